/* What the files of this room share. */
#pragma once

#include "qfc/processor.h"

#include "qfc/queue.h"

extern const struct qfc_processor processor_package;
extern const struct qfc_processor processor_delta_apply;
extern const struct qfc_processor processor_process_projectfile;
extern const struct qfc_processor processor_create_project;

/* Expression: is the project row `p` in the legacy storage? */
#define IN_LEGACY_STORAGE "({has_legacy_storage} AND p.file_storage = current_setting('qfc_worker.legacy_storage'))"

/* Adds what the audit log needs: the content types that Django makes when it first wants them. */
int add_content_types(struct qfc_statements *writes, struct qfc_error *error);

/* The name of the project's QGIS file, or the text "None", as QFieldCloud's own worker passes it: the container fails. */
const char *qgis_file_or_none(const struct qfc_job_rows *rows);
