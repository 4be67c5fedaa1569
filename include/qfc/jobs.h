/*
 * Questions about jobs, as statements whose {names} are to be expanded: for those that list and show them. None changes
 * anything.
 */
#pragma once

#include "qfc/error.h"
#include "qfc/statements.h"

#include <stdbool.h>

/* Which jobs; null, or negative ages: all. */
struct qfc_jobs_filter {
    const char *const *statuses; /* null-ended */
    const char *type;
    const char *project; /* its id */
    double older_s;      /* made before that time */
    double newer_s;      /* made after */
    const char *reason;  /* failed jobs whose reason has this text in it, in capitals or not */
    long limit;
};

/*
 * One row for each job: id, status, type, project_id, project (name), owner_name, created_at ("2026-02-03T10:11:12Z"),
 * age_s (since it was made), wait_s (until its last start; of a pending one until now), run_s (until its end, or now),
 * reason (of a failed one), step (of a running one). Newest first; but where only jobs that wait or run are asked for,
 * oldest first, as their turn comes. Those, and the jobs of one project, are found by an index; the others by going back
 * in time, so what is rare in a long history is found faster with `newer_s`.
 */
int qfc_jobs_list(const struct qfc_jobs_filter *filter, struct qfc_statements *list, struct qfc_error *error);

/* The id of the project "owner/name". */
int qfc_jobs_project(const char *owner, const char *name, struct qfc_statements *list, struct qfc_error *error);

/*
 * All about a job: one row, or none, of one column `job`, a JSON object: what qfc_jobs_list has, and triggered_by,
 * created_by, updated_at, started_at, docker_started_at, docker_finished_at, finished_at, container, held_by (see
 * qfc_report_owner_name), worker, host, trail (feedback.qfc_worker), exit_code, error, error_type, error_class,
 * error_origin, error_stack (its first 8 KB), steps (of the feedback: id, name, stage), output_bytes, feedback_bytes,
 * deltas ([{delta, status, last_status}], at most 1000), delta_count, overwrite_conflicts.
 */
int qfc_jobs_show(const char *id, struct qfc_statements *list, struct qfc_error *error);

/* A job's output: one row, or none, of status, container (null: none), held_by, output (null: none). */
int qfc_jobs_output(const char *id, struct qfc_statements *list, struct qfc_error *error);
