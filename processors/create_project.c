/*
 * `create_project` (v26.8 and later): makes a project's first files. The container uploads them; nothing is left to do.
 */
#include "processors_private.h"

static int plan(const struct qfc_job_rows *rows, struct qfc_plan *plan, struct qfc_error *error)
{
    plan->arguments[0] = "create_project";
    plan->arguments[1] = rows->job->project_id;
    return 0;
}

const struct qfc_processor processor_create_project = {
    .type = "create_project",
    .plan = plan,
};
