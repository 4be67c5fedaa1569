/*
 * Questions about jobs: see qfc/jobs.h.
 */
#include "qfc/jobs.h"

#include "queue_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* clang-format off */

#define UTC(time) "to_char(" time " AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')"

#define ENDED_AT                                                                                                       \
    "CASE WHEN j.status IN ('finished', 'failed') THEN coalesce(j.finished_at, j.docker_finished_at) ELSE now() END"

#define SECONDS(time) "round(extract(epoch FROM " time ")::numeric, 3)"

#define COLUMNS                                                                                                        \
    "j.id, j.status, j.type, j.project_id, p.name AS project, u.username AS owner_name, "                              \
    UTC("j.created_at") " AS created_at, " SECONDS("now() - j.created_at") " AS age_s,"                                \
    " CASE WHEN j.started_at IS NOT NULL THEN " SECONDS("j.started_at - j.created_at")                                 \
    " WHEN j.status = 'pending' THEN " SECONDS("now() - j.created_at") " END AS wait_s,"                               \
    " " SECONDS(ENDED_AT " - j.started_at") " AS run_s,"                                                               \
    " CASE WHEN j.status = 'failed' THEN " REASON_OF("j") " END AS reason,"                                            \
    " CASE WHEN j.status = 'started' THEN nullif(j.feedback #>> '{qfc_worker,step}', '') END AS step"

#define OF_PROJECT " LEFT JOIN {project} p ON p.id = j.project_id LEFT JOIN core_user u ON u.id = p.owner_id"

#define HELD_BY                                                                                                        \
    "CASE WHEN j.status NOT IN ('queued', 'started') THEN NULL WHEN NOT " IS_UNOWNED("j.id") " THEN 'worker'"          \
    " WHEN " IS_MARKER("j.container_id") " OR j.feedback #> '{qfc_worker,worker}' IS NOT NULL THEN 'lost'"             \
    " WHEN j.status = 'started' THEN 'old' ELSE 'nobody' END AS held_by"

#define CONTAINER "CASE WHEN NOT " IS_MARKER("j.container_id") " THEN nullif(j.container_id, '') END AS container"

#define MARKER "CASE WHEN " IS_MARKER("j.container_id") " THEN j.container_id ELSE j.feedback #>> '{qfc_worker,worker}' END"

/* clang-format on */

/* The statement under construction, with its values. */
struct question {
    struct qfc_buffer sql;
    const char *values[8];
    size_t count;
    int r;
};

/* Adds SQL around a value's place. */
static void add(struct question *question, const char *before, const char *value, const char *after)
{
    question->values[question->count++] = value;
    if (question->r == 0)
        question->r = qfc_buffer_printf(&question->sql, "%s$%zu%s", before, question->count, after);
}

static void add_text(struct question *question, const char *text)
{
    if (question->r == 0)
        question->r = qfc_buffer_append_text(&question->sql, text);
}

/* Statuses that few jobs have, whatever the history: those are found first, and the rest is asked of them. */
static bool are_few(const char *const *statuses)
{
    bool few = statuses && *statuses;
    for (; few && *statuses; statuses++)
        few =
            strcmp(*statuses, "pending") == 0 || strcmp(*statuses, "queued") == 0 || strcmp(*statuses, "started") == 0;
    return few;
}

static char *status_array(const char *const *statuses)
{
    size_t count = 0;
    while (statuses[count])
        count++;
    return qfc_array_text(statuses, count);
}

/* OFFSET 0 keeps PostgreSQL from walking all history by created_at instead. */
static void add_source(struct question *question, const struct qfc_jobs_filter *filter, const char *statuses)
{
    add_text(question, "SELECT " COLUMNS " FROM ");
    if (filter->project)
        add(question, "(SELECT * FROM core_job WHERE project_id = ", filter->project, "::uuid OFFSET 0) j");
    else if (statuses && are_few(filter->statuses))
        add(question, "(SELECT * FROM core_job WHERE status = ANY(", statuses, "::text[]) OFFSET 0) j");
    else
        add_text(question, "core_job j");
    add_text(question, OF_PROJECT " WHERE true");
}

int qfc_jobs_list(const struct qfc_jobs_filter *filter, struct qfc_statements *list, struct qfc_error *error)
{
    struct question question = {.sql = qfc_buffer(SQL_MAX_BYTES)};
    char older[32], newer[32], limit[32];
    char *statuses = filter->statuses ? status_array(filter->statuses) : NULL;
    snprintf(older, sizeof older, "%.3f", filter->older_s);
    snprintf(newer, sizeof newer, "%.3f", filter->newer_s);
    snprintf(limit, sizeof limit, "%ld", filter->limit);
    if (filter->statuses && !statuses)
        return qfc_fail_memory(error);
    add_source(&question, filter, statuses);
    if (statuses)
        add(&question, " AND j.status = ANY(", statuses, "::text[])");
    if (filter->type)
        add(&question, " AND j.type = ", filter->type, "");
    if (filter->older_s >= 0)
        add(&question, " AND j.created_at <= now() - ", older, "::double precision * interval '1 second'");
    if (filter->newer_s >= 0)
        add(&question, " AND j.created_at >= now() - ", newer, "::double precision * interval '1 second'");
    if (filter->reason) {
        add_text(&question, " AND j.status = 'failed' AND strpos(lower(" REASON_OF("j") "),");
        add(&question, " lower(", filter->reason, ")) > 0");
    }
    add_text(&question,
             are_few(filter->statuses) ? " ORDER BY j.created_at, j.id" : " ORDER BY j.created_at DESC, j.id");
    add(&question, " LIMIT ", limit, "::bigint");
    int r = question.r < 0 ? qfc_fail_memory(error)
                           : qfc_statements_add_texts(list, question.sql.data, question.count, question.values, error);
    qfc_buffer_free(&question.sql);
    free(statuses);
    return r;
}

int qfc_jobs_project(const char *owner, const char *name, struct qfc_statements *list, struct qfc_error *error)
{
    return QFC_ADD(list, error,
                   "SELECT p.id FROM {project} p JOIN core_user u ON u.id = p.owner_id WHERE u.username = $1 AND p.name"
                   " = $2",
                   owner, name);
}

/* clang-format off */
static const char show_sql[] =
    "SELECT (to_jsonb(about) || jsonb_build_object('trail', j.feedback -> 'qfc_worker', " 
    "'triggered_by', t.username, 'created_by', c.username, 'updated_at', " UTC("j.updated_at") ","
    " 'started_at', " UTC("j.started_at") ", 'docker_started_at', " UTC("j.docker_started_at") ","
    " 'docker_finished_at', " UTC("j.docker_finished_at") ", 'finished_at', " UTC("j.finished_at") ","
    " 'exit_code', j.feedback -> 'container_exit_code', 'error', left(j.feedback ->> 'error', 4096),"
    " 'error_type', j.feedback -> 'error_type', 'error_class', j.feedback -> 'error_class',"
    " 'error_origin', j.feedback -> 'error_origin', 'error_stack', left(j.feedback ->> 'error_stack', 8192),"
    " 'steps', CASE jsonb_typeof(j.feedback -> 'steps') WHEN 'array' THEN (SELECT jsonb_agg(jsonb_build_object("
    "   'id', s -> 'id', 'name', s -> 'name', 'stage', s -> 'stage')) FROM jsonb_array_elements(j.feedback -> 'steps') s) END,"
    " 'output_bytes', octet_length(j.output), 'feedback_bytes', pg_column_size(j.feedback),"
    " 'delta_count', (SELECT count(*) FROM core_applyjobdelta WHERE apply_job_id = $1),"
    " 'overwrite_conflicts', a.overwrite_conflicts,"
    " 'deltas', (SELECT jsonb_agg(to_jsonb(d) ORDER BY d.n) FROM (SELECT o.delta_id AS delta, o.status, d.last_status,"
    "   row_number() OVER (ORDER BY o.id) AS n FROM core_applyjobdelta o JOIN core_delta d ON d.id = o.delta_id"
    "   WHERE o.apply_job_id = $1 ORDER BY o.id LIMIT 1000) d)))::text AS job"
    " FROM core_job j LEFT JOIN core_user t ON t.id = j.triggered_by_id LEFT JOIN core_user c ON c.id = j.created_by_id"
    " LEFT JOIN core_applyjob a ON a.job_ptr_id = j.id,"
    " LATERAL (SELECT " COLUMNS ", " CONTAINER ", " HELD_BY ", substr(" MARKER ", 12, 16) AS worker,"
    "  substr(" MARKER ", 29) AS host FROM (SELECT j.*) j" OF_PROJECT ") AS about WHERE j.id = $1";
/* clang-format on */

int qfc_jobs_show(const char *id, struct qfc_statements *list, struct qfc_error *error)
{
    return QFC_ADD(list, error, show_sql, id);
}

int qfc_jobs_output(const char *id, struct qfc_statements *list, struct qfc_error *error)
{
    return QFC_ADD(list, error, "SELECT j.status, " CONTAINER ", " HELD_BY ", j.output FROM core_job j WHERE j.id = $1",
                   id);
}
