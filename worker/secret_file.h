/* A secret setting's value that stands in a file, as Docker and Kubernetes hand secrets out. */
#pragma once

#include "qfc/error.h"

/*
 * Reads the file that `name` (a variable, "SECRET_KEY_FILE") says: one line break at its end is taken off. The text is
 * the caller's, to be wiped. Returns 0 or -1: QFC_ERROR_USAGE (it names the variable and the path, never what is in it)
 * or QFC_ERROR_MEMORY.
 */
int read_secret_file(const char *name, const char *path, char **ret_text, struct qfc_error *error);
