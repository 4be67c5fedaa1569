/*
 * Claiming jobs, giving lost claims back, and watching the rows that are ours.
 */
#include "queue_private.h"

#include "qfc/setup.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* No worker has more slots. */
#define CLAIM_MAX 256

/*
 * Conditions on a project, and on a job that is found by its id, written so that PostgreSQL's guess at how many jobs are
 * pending or active decides nothing: behind a long history its statistics know nothing of a burst, and it would read all
 * pending rows anew for each project. The busy projects are asked for once, and no index on the status is of use.
 */
#define IS_BUSY(project) project " IN (SELECT b.project_id FROM core_job b WHERE b.status IN ('queued', 'started'))"
#define IS_PENDING(job)  job ".status || '' = 'pending'"

/* clang-format off */

/*
 * Is there a job that could be claimed? Asked by those that have nothing to do, since it costs less than a claim. (One
 * behind an older job of its project that is not due yet counts, too: the claim then takes nothing.)
 */
#define LOOK                                                                                                           \
    "SELECT pg_backend_pid() AS session, EXISTS (SELECT FROM core_job j JOIN {project} p ON p.id = j.project_id"       \
    "  WHERE j.status = 'pending' AND p.locked_at IS NULL AND NOT " IS_BUSY("j.project_id")                                \
    "   AND " IS_DUE("j") ") AS work"

/* $1 the marker. The workers that hear of new jobs are those with a connection for claims, which is called like that. */
static const char upkeep_sql[] =
    ", workers.*, triggers.told, (SELECT count(*) FROM upkeep) AS upkept FROM ("
    " SELECT count(*) FILTER (WHERE application_name < left($1, 63)) AS rank, count(*) AS workers FROM pg_stat_activity"
    "  WHERE datname = current_database() AND application_name ~ '^qfc-worker:[0-9a-f]{16}:[^:]*$') AS workers,"
    " (SELECT count(*) = 3 AS told FROM pg_trigger WHERE tgrelid IN ('core_job'::regclass, '{project}'::regclass)"
    "  AND tgname IN ('" QFC_SETUP_JOB_NEW "', '" QFC_SETUP_JOB_BACK "', '" QFC_SETUP_PROJECT_FREE "')"
    "  AND tgenabled IN ('O', 'A')) AS triggers";

/*
 * Takes the locks of up to $1 projects whose turn it is, and of their oldest jobs. These are found as a set first, so
 * that the limit is not known there: an ORDER BY created_at LIMIT over core_job makes PostgreSQL walk all history by
 * the index on created_at. Then they are tried one after another, until there are enough. A project's oldest job
 * decides: while that one waits to be due the younger wait, too. What somebody else has locked, project or job, is
 * passed over. A session other than $4 is a pooler's: the locks would not stay with us there, so nothing is taken.
 */
static const char lock_projects_sql[] =
    "WITH oldest AS MATERIALIZED ("
    " SELECT DISTINCT ON (project_id) project_id, created_at, id FROM core_job WHERE status = 'pending'"
    "  ORDER BY project_id, created_at, id"
    "), candidate AS MATERIALIZED ("
    " SELECT * FROM oldest o WHERE NOT " IS_BUSY("o.project_id")
    "), locked AS ("
    " SELECT p.id FROM (SELECT * FROM candidate ORDER BY created_at) c, LATERAL ("
    "  SELECT p.id FROM {project} p, core_job j WHERE p.id = c.project_id AND j.id = c.id"
    "   AND p.locked_at IS NULL AND " IS_PENDING("j") " AND " IS_DUE("j")
    "   AND NOT coalesce(nullif(split_part({qgis_version}, '.', 1), ''), '3') = ANY($3::text[])"
    "   FOR NO KEY UPDATE OF p, j SKIP LOCKED) p"
    " LIMIT CASE WHEN pg_backend_pid() = $4::integer THEN $1::bigint ELSE 0 END"
    ") SELECT pg_backend_pid() AS session,"
    " CASE WHEN $2::boolean THEN (SELECT count(*) FROM core_job WHERE status = 'pending') ELSE 0 END AS pending,"
    " set_config('qfc_worker.locked', coalesce((SELECT string_agg(id::text, ',') FROM locked), ''), true)";

/*
 * With the locks held, a new snapshot: what is asked here stays so until commit, for each worker that locks, too. $2
 * are the jobs that this process still lives with: one whose way back is not written yet must not begin a second life.
 * The locks that make them ours are taken only of rows that nobody else can take any more.
 */
static const char take_jobs_sql[] =
    "WITH locked AS MATERIALIZED ("
    " SELECT p.id FROM {project} p WHERE p.locked_at IS NULL AND NOT " IS_BUSY("p.id")
    "  AND p.id = ANY(string_to_array(current_setting('qfc_worker.locked'), ',')::uuid[])"
    "), oldest AS MATERIALIZED ("
    " SELECT DISTINCT ON (j.project_id) j.id FROM core_job j JOIN locked ON locked.id = j.project_id"
    "  WHERE j.status = 'pending' ORDER BY j.project_id, j.created_at, j.id"
    "), taken AS ("
    " SELECT j.id FROM oldest o, LATERAL ("
    "  SELECT j.id FROM core_job j"
    "   WHERE j.id = o.id AND " IS_PENDING("j") " AND NOT j.id = ANY($2::uuid[]) AND " IS_DUE("j")
    "   FOR NO KEY UPDATE OF j SKIP LOCKED) j"
    "), held AS MATERIALIZED ("
    " SELECT id, pg_try_advisory_lock(" LOCK_KEY("id") ") AS held FROM taken"
    ") UPDATE core_job j SET status = 'queued', container_id = $1, started_at = NULL"
    " FROM held WHERE j.id = held.id AND held.held"
    " RETURNING j.id, j.project_id, j.type, j.created_by_id, j.triggered_by_id,"
    "  j.feedback #>> '{qfc_worker,attempts}' AS attempts, j.feedback #>> '{qfc_worker,faults}' AS faults,"
    "  extract(epoch FROM clock_timestamp() - j.created_at) AS waited_s, " NAMES_OF_PROJECT("j");

/* clang-format on */

/* A text that is too long is cut between two characters of its UTF-8. */
static void copy_text(char *to, size_t size, const PGresult *rows, int row, const char *column)
{
    const char *text = qfc_pg_text(rows, row, column);
    size_t length = text ? strlen(text) : 0;
    if (length >= size) {
        length = size - 1;
        while (length > 0 && ((unsigned char)text[length] & 0xC0) == 0x80)
            length--;
    }
    memcpy(to, text ? text : "", length);
    to[length] = '\0';
}

static unsigned count_of(const PGresult *rows, int row, const char *column)
{
    const char *text = qfc_pg_text(rows, row, column);
    unsigned long count = text ? strtoul(text, NULL, 10) : 0;
    return count < 1000000 ? (unsigned)count : 0;
}

struct qfc_job job_of(const PGresult *rows, int row)
{
    struct qfc_job job = {0};
    copy_text(job.id, sizeof job.id, rows, row, "id");
    copy_text(job.project_id, sizeof job.project_id, rows, row, "project_id");
    copy_text(job.type, sizeof job.type, rows, row, "type");
    copy_text(job.created_by, sizeof job.created_by, rows, row, "created_by_id");
    copy_text(job.triggered_by, sizeof job.triggered_by, rows, row, "triggered_by_id");
    copy_text(job.project_name, sizeof job.project_name, rows, row, "project_name");
    copy_text(job.owner, sizeof job.owner, rows, row, "owner");
    const char *waited_s = qfc_pg_text(rows, row, "waited_s");
    job.waited_s = waited_s ? strtod(waited_s, NULL) : 0;
    if (job.waited_s < 0)
        job.waited_s = 0;
    job.attempt = count_of(rows, row, "attempts") + 1;
    job.faults = count_of(rows, row, "faults");
    return job;
}

/* A session that is not the one of the connection's setup is not ours alone. */
static void check_session(struct lane *lane, const PGresult *rows)
{
    const char *session = qfc_pg_text(rows, 0, "session");
    struct qfc_error why = QFC_NO_ERROR;
    if (!session || strcmp(session, lane->session) == 0)
        return;
    lane->queue->pooled = true;
    lane_pooled(&why);
    qfc_pg_reconnect(lane->pg, &why);
}

static void fail_claim(const struct call *call, const struct qfc_error *error)
{
    struct qfc_error told = *error;
    qfc_context(&told, "claim jobs");
    call->queue->locks_doubtful = true;
    reconnect_if_changed(call->lane, error);
    call->claimed(call->userdata, &told, NULL);
}

static void claimed(void *userdata, const struct qfc_error *error, const struct qfc_pg_results *results)
{
    struct call call = end_call(userdata);
    if (error) {
        fail_claim(&call, error);
        return;
    }
    struct qfc_job jobs[CLAIM_MAX];
    const PGresult *first = results->items[results->count - 2], *rows = results->items[results->count - 1];
    const char *pending = qfc_pg_text(first, 0, "pending");
    struct qfc_claim claim = {.jobs = jobs, .pending = pending ? strtol(pending, NULL, 10) : 0};
    for (; claim.count < (size_t)PQntuples(rows) && claim.count < CLAIM_MAX; claim.count++)
        jobs[claim.count] = job_of(rows, (int)claim.count);
    check_session(call.lane, first);
    call.claimed(call.userdata, NULL, &claim);
}

int qfc_queue_claim(struct qfc_queue *queue, const struct qfc_claim_request *request, qfc_queue_claimed *done,
                    void *userdata, struct qfc_error *error)
{
    char *ids = qfc_array_text(request->known, request->known_count);
    char *without = qfc_array_text(request->without_qgis, request->without_count);
    char limit[16];
    snprintf(limit, sizeof limit, "%u", request->slots < CLAIM_MAX ? request->slots : CLAIM_MAX);
    struct qfc_statements statements = {0};
    const struct call call = {.claimed = done, .userdata = userdata};
    int r = ids && without ? locks_add(queue, ids, &statements, error) : qfc_fail_memory(error);
    if (r == 0)
        r = QFC_ADD(&statements, error, lock_projects_sql, limit, request->count_pending ? "true" : "false", without,
                    queue->lanes[LANE_CLAIMS].session);
    if (r == 0)
        r = QFC_ADD(&statements, error, take_jobs_sql, queue->marker, ids);
    free(ids);
    free(without);
    lanes_tidy(queue);
    r = send_call(queue, LANE_CLAIMS, r, &statements, claimed, &call, error);
    return r < 0 ? qfc_context(error, "claim jobs") : 0;
}

static void looked(void *userdata, const struct qfc_error *error, const struct qfc_pg_results *results)
{
    struct call call = end_call(userdata);
    struct qfc_look look = {0};
    reconnect_if_changed(call.lane, error);
    if (!error) {
        const PGresult *row = results->items[results->count - 1];
        look.work = qfc_pg_true(row, "work");
        look.unowned = qfc_pg_true(row, "unowned");
        look.kept_up = PQfnumber(row, "workers") >= 0;
        look.rank = count_of(row, 0, "rank");
        look.workers = count_of(row, 0, "workers");
        look.upkept = count_of(row, 0, "upkept");
        look.told = qfc_pg_true(row, "told");
        check_session(call.lane, row);
    }
    duties_answered(&call, error, error ? NULL : results->items[results->count - 1]);
    call.looked(call.userdata, error, error ? NULL : &look);
}

int qfc_queue_look(struct qfc_queue *queue, const char *upkeep, bool unowned, qfc_queue_looked *done, void *userdata,
                   struct qfc_error *error)
{
    struct qfc_statements statements = {0};
    struct call call = {.looked = done, .userdata = userdata};
    queue->looked_ms = uv_now(queue->loop);
    struct qfc_buffer sql = qfc_buffer(SQL_MAX_BYTES);
    int r = 0;
    if (upkeep)
        r = qfc_buffer_printf(&sql, "WITH upkeep AS (%s) ", upkeep);
    if (r == 0)
        r = qfc_buffer_printf(&sql, "%s%s", LOOK, unowned ? recover_look_sql : "");
    if (r == 0)
        r = duties_add(queue, &sql, &call);
    if (r == 0 && upkeep)
        r = qfc_buffer_append_text(&sql, upkeep_sql);
    r = r < 0 ? qfc_fail_memory(error) : locks_add(queue, NULL, &statements, error);
    if (r == 0)
        r = qfc_statements_add_texts(&statements, sql.data, upkeep ? 1 : 0, (const char *[]){queue->marker}, error);
    qfc_buffer_free(&sql);
    lanes_tidy(queue);
    return send_call(queue, LANE_CLAIMS, r, &statements, looked, &call, error);
}

static void watched(void *userdata, const struct qfc_error *error, const struct qfc_pg_results *results)
{
    struct call call = end_call(userdata);
    reconnect_if_changed(call.lane, error);
    const PGresult *taken = !error && results->count > 1 ? results->items[results->count - 2] : NULL;
    if (taken && PQfnumber(taken, "held") >= 0) { /* it may be what was unlocked */
        bool all = true;
        for (int row = 0; row < PQntuples(taken); row++)
            all &= strcmp(PQgetvalue(taken, row, 1), "t") == 0;
        call.queue->locks_missing = !all;
    }
    const struct qfc_pg_results fates = {.items = error ? NULL : results->items + results->count - 1, .count = 1};
    call.done(call.userdata, error, error ? NULL : &fates);
}

/* $1 ids, $2 our marker, by which a row is ours whatever container it names by now. */
static const char watch_sql[] =
    "SELECT * FROM (SELECT ours.id, core_job.status, CASE WHEN core_job.id IS NULL THEN 'gone'"
    " WHEN core_job.status NOT IN ('queued', 'started') THEN 'ended'"
    " WHEN NOT (core_job.container_id = $2 OR coalesce(core_job.feedback #>> '{qfc_worker,worker}' = $2, false))"
    " THEN 'taken' WHEN " IS_CANCELLED " THEN 'cancelled' END AS fate"
    " FROM unnest($1::uuid[]) AS ours (id) LEFT JOIN core_job ON core_job.id = ours.id) AS seen"
    " WHERE fate IS NOT NULL";

int qfc_queue_watch(struct qfc_queue *queue, const char *const *ids, size_t count, qfc_pg_done *done, void *userdata,
                    struct qfc_error *error)
{
    struct qfc_statements statements = {0};
    const struct call call = {.done = done, .userdata = userdata};
    char *id_array = qfc_array_text(ids, count);
    int r = id_array ? locks_add(queue, id_array, &statements, error) : qfc_fail_memory(error);
    if (r == 0 && queue->locks_missing)
        r = QFC_ADD(&statements, error, locks_take_sql, id_array);
    if (r == 0)
        r = QFC_ADD(&statements, error, watch_sql, id_array, queue->marker);
    free(id_array);
    return send_call(queue, LANE_CLAIMS, r, &statements, watched, &call, error);
}
