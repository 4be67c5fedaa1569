/*
 * The questions about the queue's state: see qfc/report.h for what is asked, and what it may cost.
 *
 * PostgreSQL's guesses decide nothing here: sets of jobs are materialised, and whole-table scans, bitmaps and the
 * compiler (which starts at the costs of a scan that is only forbidden) are turned off for the transaction. So the
 * newest jobs come by the index on created_at, and never more of them than are wanted.
 */
#include "qfc/report.h"

#include "queue_private.h"

/* clang-format off */

static const char settings_sql[] =
    "SELECT set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),"
    " set_config('jit', 'off', true)";

static const char depth_sql[] =
    "WITH here AS MATERIALIZED ("
    " SELECT status, type, created_at FROM core_job WHERE status IN ('pending', 'queued', 'started')"
    ") SELECT status, type, count(*) AS jobs, greatest(0, extract(epoch FROM now() - min(created_at))) AS oldest_s"
    " FROM here GROUP BY status, type ORDER BY status, jobs DESC, type LIMIT 100";

/* Each project with pending jobs, its oldest one, and what that waits for. */
#define WAITING                                                                                                        \
    "waiting AS MATERIALIZED ("                                                                                        \
    " SELECT project_id, count(*) AS jobs, min(created_at) AS oldest, (array_agg(id ORDER BY created_at, id))[1] AS id"\
    " FROM core_job WHERE status = 'pending' GROUP BY project_id"                                                      \
    "), project AS MATERIALIZED ("                                                                                     \
    " SELECT w.*, p.locked_at, CASE WHEN p.locked_at IS NOT NULL THEN 'locked'"                                        \
    "  WHEN w.project_id IN (SELECT b.project_id FROM core_job b WHERE b.status IN ('queued', 'started')) THEN 'busy'" \
    "  WHEN NOT " IS_DUE("j") " THEN 'retry' ELSE 'claimable' END AS state"                                            \
    " FROM waiting w JOIN core_job j ON j.id = w.id JOIN {project} p ON p.id = w.project_id)"

static const char facts_sql[] =
    "WITH " WAITING
    " SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS now,"
    " extract(epoch FROM now()) AS now_s, coalesce(sum(jobs), 0) AS pending,"
    " count(*) FILTER (WHERE state = 'claimable') AS claimable,"
    " coalesce(sum(jobs) FILTER (WHERE state = 'locked'), 0) AS locked,"
    " coalesce(sum(jobs) FILTER (WHERE state = 'retry'), 0) AS retry,"
    " extract(epoch FROM now() - min(oldest)) AS oldest_pending_s,"
    " extract(epoch FROM now() - min(oldest) FILTER (WHERE state = 'claimable')) AS oldest_claimable_s FROM project";

/* This database's advisory locks: of workers, one for each of their jobs. */
#define HELD                                                                                                           \
    "held AS MATERIALIZED (SELECT pid, (classid::bigint << 32) | objid::bigint AS key FROM pg_locks"                   \
    " WHERE locktype = 'advisory' AND objsubid = 1 AND granted"                                                        \
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))"

#define TRAIL_OF(member) "feedback #>> '{qfc_worker," member "}'"
#define NUMBER_OF(member)                                                                                              \
    "CASE jsonb_typeof(feedback #> '{qfc_worker," member "}') WHEN 'number' THEN (" TRAIL_OF(member) ")::numeric END"

#define ACTIVE                                                                                                         \
    HELD ", active AS MATERIALIZED ("                                                                                  \
    " SELECT id, project_id, type, status, created_at, started_at, nullif(container_id, '') AS container, feedback,"   \
    " CASE WHEN " LOCK_KEY("id") " IN (SELECT key FROM held) THEN 'worker'"                                            \
    "  WHEN " IS_MARKER("container_id") " OR " TRAIL_OF("worker") " IS NOT NULL THEN 'lost'"                           \
    "  WHEN status = 'started' THEN 'old' ELSE 'nobody' END AS owner,"                                                 \
    " CASE WHEN " IS_MARKER("container_id") " THEN container_id ELSE " TRAIL_OF("worker") " END AS worker"             \
    " FROM core_job WHERE status IN ('queued', 'started'))"

#define OF_PROJECT(row) " LEFT JOIN {project} p ON p.id = " row ".project_id LEFT JOIN core_user u ON u.id = p.owner_id"

static const char running_sql[] =
    "WITH " ACTIVE
    " SELECT a.id, a.status, a.type, a.project_id, p.name AS project, u.username AS owner_name,"
    " extract(epoch FROM now() - a.started_at) AS since_s, extract(epoch FROM now() - a.created_at) AS age_s, a.owner,"
    " substr(a.worker, 12, 16) AS worker, substr(a.worker, 29) AS host,"
    " CASE WHEN NOT " IS_MARKER("a.container") " THEN a.container END AS container,"
    " a." TRAIL_OF("engine") " AS engine, nullif(a." TRAIL_OF("step") ", '') AS step,"
    " extract(epoch FROM now()) - step_since AS step_s, attempts,"
    " a.feedback #> '{qfc_worker,cancel}' = 'true'::jsonb AS cancel FROM active a" OF_PROJECT("a")
    ", LATERAL (SELECT " NUMBER_OF("step_since") " AS step_since, " NUMBER_OF("attempts") " AS attempts) AS trail"
    " ORDER BY coalesce(a.started_at, a.created_at) LIMIT 500";

/*
 * A worker is its session for claims, "qfc-worker:<instance>:<host>". What else is known of it is the name of the one
 * for transitions: "qfc-worker:<instance>:<version>:<slots>:quick".
 */
static const char workers_sql[] =
    "WITH " HELD ", session AS MATERIALIZED ("
    " SELECT pid, application_name AS name, left(application_name, 27) AS process, client_addr, backend_start,"
    "  greatest(query_start, state_change) AS heard FROM pg_stat_activity"
    " WHERE datname = current_database() AND application_name ~ '^qfc-worker:[0-9a-f]{16}:'"
    "), about AS MATERIALIZED ("
    " SELECT DISTINCT ON (process) process, split_part(name, ':', 3) AS version, split_part(name, ':', 4) AS slots"
    " FROM session WHERE name ~ ':[^:]+:[0-9]+:quick$' ORDER BY process, backend_start DESC"
    ") SELECT substr(s.name, 12, 16) AS instance, substr(s.name, 29) AS host, a.version, a.slots,"
    " host(s.client_addr) AS address, (SELECT count(*) FROM held h WHERE h.pid = s.pid) AS jobs,"
    " extract(epoch FROM clock_timestamp() - s.backend_start) AS connected_s,"
    " greatest(0, extract(epoch FROM clock_timestamp() - s.heard)) AS silent_s"
    " FROM session s LEFT JOIN about a ON a.process = s.process WHERE s.name ~ '^[^:]*:[^:]*:[^:]*$'"
    " ORDER BY host, s.backend_start LIMIT 500";

static const char blocked_sql[] =
    "WITH " WAITING ", " ACTIVE ", found AS ("
    " SELECT w.state AS why, w.project_id, w.id, w.jobs, CASE w.state WHEN 'locked'"
    "   THEN extract(epoch FROM now() - w.locked_at) ELSE extract(epoch FROM now())"
    "   - (j." TRAIL_OF("not_before") ")::numeric END AS since_s,"
    "  CASE WHEN w.state = 'retry' THEN left(j." TRAIL_OF("reasons,-1") ", 300) END AS reason"
    " FROM project w JOIN core_job j ON j.id = w.id WHERE w.state IN ('locked', 'retry')"
    " UNION ALL SELECT CASE a.owner WHEN 'old' THEN 'overdue' ELSE a.owner END, a.project_id, a.id,"
    "  coalesce((SELECT w.jobs FROM waiting w WHERE w.project_id = a.project_id), 0),"
    "  extract(epoch FROM now() - coalesce(a.started_at, a.created_at)), NULL"
    " FROM active a WHERE a.owner IN ('lost', 'nobody') OR a.owner = 'old'"
    "  AND coalesce(a.started_at, a.created_at) < now() - interval '1 hour'"
    ") SELECT f.why, f.project_id, p.name AS project, u.username AS owner_name, f.id AS job, f.reason, f.since_s,"
    " f.jobs AS waiting FROM found f" OF_PROJECT("f") " ORDER BY f.since_s DESC LIMIT 100";

/*
 * What has ended lately, in one pass over the newest jobs: rows of three kinds, told apart by `part`. Of QFieldCloud's
 * own worker finished_at is null where the container failed; a worker of ours writes started_at and docker_started_at in
 * one transaction, that one one after the other.
 */
#define WALKED_JOBS "30000"

#define PERCENTILES(value) "percentile_cont(ARRAY[0.5, 0.9, 0.99]) WITHIN GROUP (ORDER BY " value ")"

static const char ended_sql[] =
    "WITH walked AS MATERIALIZED ("
    " SELECT id, type, status, created_at, started_at, docker_started_at, greatest(started_at,"
    "  coalesce(finished_at, docker_finished_at, started_at, created_at)) AS ended_at"
    " FROM core_job WHERE created_at >= now() - interval '2 days' ORDER BY created_at DESC LIMIT " WALKED_JOBS
    "), ended AS MATERIALIZED ("
    " SELECT w.*, greatest(0, extract(epoch FROM started_at - created_at))::double precision AS wait_s,"
    "  CASE WHEN docker_started_at IS NOT NULL AND ended_at > started_at"
    "   THEN extract(epoch FROM ended_at - started_at)::double precision END AS run_s"
    " FROM walked w WHERE status IN ('finished', 'failed') AND ended_at >= now() - interval '1 day'"
    "), failed AS MATERIALIZED ("
    " SELECT id, ended_at FROM ended WHERE status = 'failed' ORDER BY ended_at DESC LIMIT 500"
    "), told AS MATERIALIZED ("
    " SELECT f.*, " REASON_OF("j") " AS reason FROM failed f JOIN core_job j ON j.id = f.id"
    "), counted AS ("
    " SELECT reason, count(*) AS jobs, extract(epoch FROM now() - max(ended_at)) AS last_s,"
    "  (array_agg(id ORDER BY ended_at DESC))[1] AS job FROM told GROUP BY reason ORDER BY jobs DESC, last_s LIMIT 20"
    "), timed AS ("
    " SELECT span.rank, span.name, e.type, count(*) FILTER (WHERE e.status = 'finished') AS finished,"
    "  count(*) FILTER (WHERE e.status = 'failed') AS failed, " PERCENTILES("e.wait_s") " AS wait,"
    "  " PERCENTILES("e.run_s") " AS run, avg(e.run_s) AS run_mean_s,"
    "  count(*) FILTER (WHERE e.docker_started_at <> e.started_at) AS old"
    " FROM (VALUES (1, 'hour', interval '1 hour'), (2, 'day', interval '1 day')) AS span (rank, name, length)"
    " JOIN ended e ON e.ended_at >= now() - span.length"
    " GROUP BY GROUPING SETS ((span.rank, span.name), (span.rank, span.name, e.type)) LIMIT 100"
    ") SELECT 'history' AS part, 0::bigint AS place, NULL AS name, NULL AS type, NULL::bigint AS finished,"
    " NULL::bigint AS failed, NULL::double precision[] AS wait, NULL::double precision[] AS run,"
    " NULL::double precision AS run_mean_s, NULL::bigint AS old, NULL AS reason, NULL::bigint AS jobs,"
    " NULL::double precision AS last_s, NULL::uuid AS job, CASE WHEN count(*) < " WALKED_JOBS
    "  THEN 172800 ELSE extract(epoch FROM now() - min(created_at)) END AS history_s,"
    " (SELECT count(*) FROM ended WHERE status = 'failed' AND ended_at >"
    "  coalesce((SELECT max(ended_at) FROM ended WHERE status = 'finished'), '-infinity')) AS failures_in_a_row"
    " FROM walked"
    " UNION ALL SELECT 'window', rank, name, type, finished, failed, wait, run, run_mean_s, old, NULL, NULL, NULL, NULL,"
    "  NULL, NULL FROM timed"
    " UNION ALL SELECT 'reason', row_number() OVER (ORDER BY jobs DESC, last_s), NULL, NULL, NULL, NULL, NULL, NULL,"
    "  NULL, NULL, reason, jobs, last_s, job, NULL, NULL FROM counted"
    " ORDER BY part, place, type NULLS FIRST";

/* clang-format on */

const char *const report_sql[QFC_REPORT_RESULTS] = {
    settings_sql, depth_sql, facts_sql, running_sql, workers_sql, blocked_sql, ended_sql,
};

int qfc_report_ask(struct qfc_statements *list, struct qfc_error *error)
{
    for (size_t i = 0; i < QFC_REPORT_RESULTS; i++)
        if (qfc_statements_add(list, report_sql[i], 0, NULL, error) < 0)
            return -1;
    return 0;
}
