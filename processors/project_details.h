/* What the files about `process_projectfile` share. Private to processors/. */
#pragma once

#include "processors_private.h"

/* The project's details in the feedback of the job `j`: SQL NULL where there are none, JSON null where it says so. */
#define DETAILS "(j.feedback -> 'outputs' -> 'project_details' -> 'project_details')"

/* Is this jsonb expression absent, or false to Python? `x or y` gives y then. */
#define FALSY(value) "coalesce(" value ", 'null') IN ('null', 'false', '0', '\"\"', '[]', '{}')"

/*
 * Adds what brings project_qgisproject and project_qgislayer in line with the details in the job's feedback (v26.22 and
 * later). `has_area_of_interest`: is there such a column (v26.25)? Returns 0 or -1.
 */
int add_qgis_project(const struct qfc_job *job, bool has_area_of_interest, struct qfc_statements *writes,
                     struct qfc_error *error);

/* Adds what deletes both, where this release has them. Returns 0 or -1. */
int add_qgis_project_deletion(const struct qfc_job *job, struct qfc_statements *writes, struct qfc_error *error);
