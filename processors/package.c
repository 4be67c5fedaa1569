/*
 * `package`: makes the package of a project that phones download.
 */
#include "processors_private.h"

/* QFieldCloud's own worker passes the text of Python's None for a project without a QGIS file; the container fails. */
#define NO_QGIS_FILE "None"

static int plan(const struct qfc_job_rows *rows, struct qfc_plan *plan, struct qfc_error *error)
{
    const char *qgis_file = qfc_pg_text(rows->project, 0, "qgis_file");
    plan->arguments[0] = "package";
    plan->arguments[1] = rows->job->project_id;
    plan->arguments[2] = qgis_file ? qgis_file : NO_QGIS_FILE;
    plan->arguments[3] = qfc_pg_text(rows->project, 0, "packaging_offliner");
    return 0;
}

/* Data uploaded after the container's start may not be in the package: so its start counts. */
static int succeed(const struct qfc_job_rows *rows, struct qfc_statements *writes, struct qfc_error *error)
{
    return QFC_ADD(writes, error,
                   "UPDATE {project} SET data_last_packaged_at = (SELECT docker_started_at FROM core_job WHERE id = $1)"
                   " WHERE id = $2",
                   rows->job->id, rows->job->project_id);
}

const struct qfc_processor processor_package = {
    .type = "package",
    .safe_to_rerun = true,
    .plan = plan,
    .succeed = succeed,
};
