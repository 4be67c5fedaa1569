/* What the files of this room share. */
#pragma once

#include "qfc/processor.h"

extern const struct qfc_processor processor_package;
