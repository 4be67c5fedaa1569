/*
 * Jobs that have lost their owner, and taking them over.
 *
 * The lock that a session holds for each of its jobs is the proof that it lives. What is active without a lock was left
 * by a worker that has died, or by hand, or by QFieldCloud's own worker, which knows no locks.
 */
#include "queue_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* After a restart of the server no session has its locks: owners have so long to come back. */
#define COMEBACK "interval '15 seconds'"

/* A session that holds a job's lock says something every few seconds. */
#define SILENCE "interval '20 seconds'"

/* clang-format off */

/* Rows that we may have to do with. `started` without our trail is QFieldCloud's own worker's. */
#define LEFT_BEHIND                                                                                                    \
    "core_job WHERE status IN ('queued', 'started') AND (status = 'queued' OR " IS_MARKER("container_id")              \
    " OR feedback #> '{qfc_worker,worker}' IS NOT NULL)"                                                               \
    " AND pg_postmaster_start_time() < clock_timestamp() - " COMEBACK " AND " IS_UNOWNED("core_job.id")

/* Sessions that hold a lock and have not said anything for long: hung, or their host is gone. */
#define SILENT                                                                                                         \
    "pg_stat_activity a WHERE a.datname = current_database() AND a.usename = current_user"                             \
    " AND a.application_name ~ '^qfc-worker:[0-9a-f]{16}:' AND a.pid <> pg_backend_pid()"                              \
    " AND a.state <> 'disabled' AND (a.state <> 'active' OR a.wait_event_type = 'Client')"                             \
    " AND greatest(a.query_start, a.state_change, a.backend_start) < clock_timestamp() - " SILENCE                     \
    " AND EXISTS (SELECT FROM pg_locks l WHERE l.pid = a.pid AND l.locktype = 'advisory')"

const char recover_look_sql[] =
    ", EXISTS (SELECT FROM " LEFT_BEHIND ") OR EXISTS (SELECT FROM " SILENT ") AS unowned";

/* All sessions of a process whose session for claims is silent: others may hold the locks of rows. */
static const char end_silent_sql[] =
    "SELECT a.pid, a.application_name AS name, pg_terminate_backend(a.pid) FROM pg_stat_activity a"
    " WHERE a.datname = current_database() AND a.usename = current_user AND a.pid <> pg_backend_pid()"
    " AND left(a.application_name, 27) IN (SELECT left(a.application_name, 27) FROM " SILENT ")";

static const char list_sql[] =
    "SELECT id, xmin::text AS version, container_id, status, project_id, feedback #>> '{qfc_worker,engine}' AS engine,"
    " CASE WHEN " IS_MARKER("container_id") " THEN 'never started'"
    "  WHEN feedback #> '{qfc_worker,worker}' IS NOT NULL AND status = 'started' THEN 'started'"
    "  ELSE 'nobody' END AS kind,"
    " greatest(0, floor(extract(epoch FROM clock_timestamp() - started_at))) AS age_s FROM " LEFT_BEHIND;

/* clang-format on */

int qfc_queue_list_unowned(struct qfc_queue *queue, qfc_pg_done *done, void *userdata, struct qfc_error *error)
{
    struct qfc_statements statements = {0};
    int r = qfc_statements_add(&statements, end_silent_sql, 0, NULL, error);
    if (r == 0)
        r = qfc_statements_add(&statements, list_sql, 0, NULL, error);
    return send_fenced(queue, LANE_CLAIMS, r, &statements, done, userdata, error);
}

/* clang-format off */

/*
 * $1 ids, $2 their rows' versions, $3 our marker. A row that has changed since it was listed is somebody's. One that was
 * never started is ours by our marker; of one that was, the container stays what it is.
 */
static const char adopt_sql[] =
    "WITH alone AS ("
    " SELECT j.id, j.container_id FROM core_job j JOIN unnest($1::uuid[], $2::text[]) AS listed (id, version)"
    "  ON listed.id = j.id AND j.xmin::text = listed.version"
    "  WHERE j.status IN ('queued', 'started') FOR NO KEY UPDATE OF j SKIP LOCKED"
    "), held AS MATERIALIZED ("
    " SELECT id, container_id, pg_try_advisory_lock(" LOCK_KEY("id") ") AS held FROM alone"
    ") UPDATE core_job SET"
    " container_id = CASE WHEN " IS_MARKER("held.container_id") " THEN $3::text ELSE held.container_id END,"
    " feedback = jsonb_build_object('qfc_worker', " TRAIL " || jsonb_build_object('worker', $3::text))"
    " FROM held WHERE core_job.id = held.id AND held.held"
    " RETURNING core_job.id, project_id, type, created_by_id, triggered_by_id,"
    "  CASE WHEN " IS_MARKER("held.container_id") " THEN held.container_id END AS former,"
    "  CASE WHEN NOT " IS_MARKER("held.container_id") " THEN held.container_id END AS container,"
    "  feedback #>> '{qfc_worker,engine}' AS engine, feedback #>> '{qfc_worker,attempts}' AS attempts, feedback #>> '{qfc_worker,faults}' AS faults,"
    " " NAMES_OF_PROJECT("core_job") ","
    "  greatest(0, floor(1000 * extract(epoch FROM clock_timestamp() - started_at))) AS age_ms";

/* clang-format on */

static void adopted(void *userdata, const struct qfc_error *error, const struct qfc_pg_results *results)
{
    struct call call = end_call(userdata);
    if (error) {
        call.queue->locks_doubtful = true;
        reconnect_if_changed(call.lane, error);
        call.adopted(call.userdata, error, NULL);
        return;
    }
    const PGresult *rows = results->items[results->count - 1];
    for (int row = 0; row < PQntuples(rows); row++) {
        const char *age_ms = qfc_pg_text(rows, row, "age_ms"), *engine = qfc_pg_text(rows, row, "engine");
        struct qfc_adoption adoption = {
            .job = job_of(rows, row),
            .container = qfc_pg_text(rows, row, "container"),
            .engine = engine ? engine : "",
            .former = qfc_pg_text(rows, row, "former"),
            .age_ms = age_ms ? strtoull(age_ms, NULL, 10) : 0,
        };
        if (adoption.container)
            adoption.job.attempt--; /* it goes on, and does not begin anew */
        call.adopted(call.userdata, NULL, &adoption);
    }
}

int qfc_queue_adopt(struct qfc_queue *queue, const char *const *ids, const char *const *versions, size_t count,
                    qfc_queue_adopted *done, void *userdata, struct qfc_error *error)
{
    struct qfc_statements statements = {0};
    const struct call call = {.adopted = done, .userdata = userdata};
    char *id_array = qfc_array_text(ids, count), *version_array = qfc_array_text(versions, count);
    int r = id_array && version_array ? 0 : qfc_fail_memory(error);
    if (r == 0)
        r = QFC_ADD(&statements, error, adopt_sql, id_array, version_array, queue->marker);
    free(id_array);
    free(version_array);
    return send_call(queue, LANE_CLAIMS, r, &statements, adopted, &call, error);
}

int qfc_queue_return_nobodys(struct qfc_queue *queue, const char *id, const char *version, qfc_pg_done *done,
                             void *userdata, struct qfc_error *error)
{
    struct qfc_statements statements = {0};
    int r = QFC_ADD(&statements, error,
                    "UPDATE core_job SET status = 'pending', container_id = '', started_at = NULL WHERE id = $1"
                    " AND xmin::text = $2 AND status = 'queued' AND " IS_UNOWNED("core_job.id") " RETURNING id",
                    id, version);
    return send_fenced(queue, LANE_QUICK, r, &statements, done, userdata, error);
}

/*
 * $1 jobs, $2 containers, $3 markers of the workers that made them or "". Wanted is what an active row names, what
 * belongs to a worker that lives, and what QFieldCloud's own worker made for a job that is still active.
 */
static const char unwanted_sql[] =
    "SELECT c.container, c.worker <> '' AS ours FROM unnest($1::uuid[], $2::text[], $3::text[]) AS c (job, container, "
    "worker)"
    " LEFT JOIN core_job j ON j.id = c.job AND j.status IN ('queued', 'started')"
    " WHERE NOT (j.id IS NOT NULL AND (j.container_id = c.container OR c.worker = ''))"
    " AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.datname = current_database()"
    "  AND c.worker <> '' AND left(a.application_name, 27) = left(c.worker, 27))";

int qfc_unwanted_ask(struct qfc_statements *list, const char *jobs, const char *containers, const char *workers,
                     struct qfc_error *error)
{
    return QFC_ADD(list, error, unwanted_sql, jobs, containers, workers);
}

int qfc_queue_find_unwanted(struct qfc_queue *queue, const char *jobs, const char *containers, const char *workers,
                            qfc_pg_done *done, void *userdata, struct qfc_error *error)
{
    struct qfc_statements statements = {0};
    int r = qfc_unwanted_ask(&statements, jobs, containers, workers, error);
    return send_fenced(queue, LANE_CLAIMS, r, &statements, done, userdata, error);
}
