/*
 * `delta_apply`: applies what phones have changed to the project's data.
 *
 * PostgreSQL writes the delta file and reads the container's results: the deltas pass as they are stored, and nothing
 * here parses JSON. The job's rows of core_applyjobdelta say which deltas it may write, whatever the container tells;
 * results are written there first and copied to core_delta from there.
 *
 * Where a list of the container's meets rows, the one is made into a jsonb object and looked into: PostgreSQL knows the
 * length of neither, and a nested loop over 10,000 results and 10,000 rows would be slow.
 */
#include "processors_private.h"

#include <string.h>

/* A text as uuid, or null where it is none. Like Python's, with any hyphens or none, and with braces. */
#define UUID_OF(text)                                                                                                  \
    "CASE WHEN translate(" text ", '-{}', '') ~ '^[0-9a-fA-F]{32}$' THEN translate(" text ", '-{}', '')::uuid END"

/*
 * The job's flag, and deltafile.json as ApplyDeltaJobRun._prepare_deltas of worker_wrapper/wrapper.py makes it (v25.27
 * to v26.25). clientPks tells what the features are called now that a phone knows only by its own keys: of all deltas,
 * of any project, whose client is one of this job's. Of equal keys the newest attempt's wins: jsonb keeps the last. A
 * clientId that is no uuid is no row's. OFFSET 0 makes PostgreSQL look at one client after the other, by the index.
 */
static const char read_sql[] =
    "SELECT a.overwrite_conflicts, json_build_object("
    "'deltas', coalesce((SELECT json_agg(d.content ORDER BY o.id) FROM core_applyjobdelta o"
    " JOIN core_delta d ON d.id = o.delta_id WHERE o.apply_job_id = $1), '[]'),"
    " 'files', json_build_array(), 'id', gen_random_uuid(), 'project', j.project_id, 'version', '1.0',"
    " 'clientPks', coalesce((SELECT jsonb_object_agg(known.name, known.pk ORDER BY known.at NULLS FIRST, known.id)"
    " FROM (SELECT DISTINCT " UUID_OF(
        "d.content ->> 'clientId'") " AS id FROM core_applyjobdelta o"
                                    " JOIN core_delta d ON d.id = o.delta_id WHERE o.apply_job_id = $1) AS client"
                                    " CROSS JOIN LATERAL (SELECT d.id, d.client_id || '__' || coalesce(d.content ->> "
                                    "'localLayerId', 'None')"
                                    " || '__' || coalesce(d.content ->> 'localPk', 'None') AS name, d.last_modified_pk "
                                    "AS pk,"
                                    " d.last_apply_attempt_at AS at FROM core_delta d"
                                    " WHERE d.client_id = client.id AND d.last_modified_pk IS NOT NULL OFFSET 0) AS "
                                    "known), '{}'))::text AS deltafile"
                                    " FROM core_applyjob a JOIN core_job j ON j.id = a.job_ptr_id WHERE a.job_ptr_id = "
                                    "$1";

/* Before the start, and back where the job is put back: only what this job has begun. (CASE, since a condition would be
 * looked for by the index on last_status, and each row found there among all of `ours`.) */
static const char begin_sql[] =
    "WITH ours AS (UPDATE core_applyjobdelta SET status = 'started' WHERE apply_job_id = $1 RETURNING delta_id)"
    " UPDATE core_delta SET last_status = 'started' WHERE id IN (SELECT delta_id FROM ours)";
static const char undo_sql[] =
    "WITH ours AS (UPDATE core_applyjobdelta SET status = 'pending' WHERE apply_job_id = $1 AND status = 'started'"
    " RETURNING delta_id)"
    " UPDATE core_delta SET last_status = CASE last_status WHEN 'started' THEN 'pending' ELSE last_status END"
    " WHERE id IN (SELECT delta_id FROM ours)";

/* What the container says of the deltas, and each `element` of it with its `position` from 1. */
#define RESULTS  "(SELECT feedback -> 'outputs' -> 'apply_deltas' -> 'delta_feedback' FROM core_job WHERE id = $1)"
#define ELEMENTS "jsonb_array_elements(" RESULTS ") WITH ORDINALITY AS e (element, position)"
#define DELTA_ID UUID_OF("e.element ->> 'delta_id'") "::text"

/* Fails the success where QFieldCloud's own worker stumbles over a key that is not there. */
static const char check_sql[] = "SELECT CASE WHEN checked.why IS NULL THEN 1 ELSE " QFC_REFUSED(
    "checked.why") " END FROM"
                   " (SELECT CASE WHEN given.list IS NULL THEN 'the feedback lacks outputs.apply_deltas.delta_feedback'"
                   " WHEN jsonb_typeof(given.list) <> 'array' THEN"
                   " 'the feedback''s outputs.apply_deltas.delta_feedback is no array but ' || jsonb_typeof(given.list)"
                   " ELSE (SELECT 'the feedback''s outputs.apply_deltas.delta_feedback[' || e.position - 1 || '] '"
                   " || CASE WHEN jsonb_typeof(e.element) <> 'object' THEN 'is no object but ' || "
                   "jsonb_typeof(e.element)"
                   " WHEN NOT e.element ? 'delta_id' THEN 'lacks delta_id' WHEN NOT e.element ? 'status' THEN 'lacks "
                   "status'"
                   " ELSE 'lacks modified_pk' END FROM jsonb_array_elements(given.list) WITH ORDINALITY AS e (element, "
                   "position)"
                   " WHERE jsonb_typeof(e.element) <> 'object' OR NOT e.element ?& ARRAY['delta_id', 'status', "
                   "'modified_pk']"
                   " ORDER BY e.position LIMIT 1) END AS why FROM (SELECT " RESULTS
                   " AS list OFFSET 0) AS given) AS checked";

/*
 * The results of the job's own deltas, by the rules of ApplyDeltaJobRun.after_docker_run; of a delta that is named
 * twice the last one counts, as in its loop. One that is not named is in error: nobody knows what became of it.
 */
static const char record_sql[] =
    "UPDATE core_applyjobdelta a SET feedback = told.element, modified_pk = told.element ->> 'modified_pk',"
    " status = CASE told.element ->> 'status' WHEN 'status_applied' THEN 'applied' WHEN 'status_conflict' THEN"
    " 'conflict' WHEN 'status_apply_failed' THEN 'not_applied' ELSE 'error' END"
    " FROM (SELECT o.id, (SELECT jsonb_object_agg(n.delta_id, n.element ORDER BY n.position) FROM"
    " (SELECT " DELTA_ID " AS delta_id, e.element, e.position FROM " ELEMENTS ") AS n"
    " WHERE n.delta_id IS NOT NULL) -> o.delta_id::text AS element"
    " FROM core_applyjobdelta o WHERE o.apply_job_id = $1 OFFSET 0) AS told WHERE a.id = told.id";

/* ApplyDeltaJobRun.after_docker_exception. */
static const char spoil_sql[] =
    "UPDATE core_applyjobdelta SET status = 'error', feedback = NULL, modified_pk = NULL WHERE apply_job_id = $1";

/* Both hooks write the same to the deltas as to the job's rows; not updated_at, as ever. */
static const char copy_sql[] =
    "UPDATE core_delta d SET last_status = a.status, last_feedback = a.feedback, last_modified_pk = a.modified_pk,"
    " last_apply_attempt_at = coalesce(j.started_at, now()), last_apply_attempt_by_id = j.created_by_id"
    " FROM core_applyjobdelta a JOIN core_job j ON j.id = a.apply_job_id"
    " WHERE a.apply_job_id = $1 AND d.id = a.delta_id";

#define OURS "(SELECT jsonb_object_agg(delta_id, true) FROM core_applyjobdelta WHERE apply_job_id = $1)"

/* The data has changed, or may have, where any result of ours says applied or error: also one that a later one of the
 * same delta has replaced. */
static const char project_sql[] =
    "UPDATE {project} p SET data_last_updated_at = now() FROM core_job j WHERE j.id = $1 AND p.id = j.project_id"
    " AND (EXISTS (SELECT FROM core_applyjobdelta WHERE apply_job_id = $1 AND status IN ('applied', 'error'))"
    " OR EXISTS (SELECT FROM " ELEMENTS " WHERE coalesce(e.element ->> 'status', '') NOT IN"
    " ('status_conflict', 'status_apply_failed') AND " OURS " ? (" DELTA_ID ")))";

/* What an operator should know of; at most 20 of a kind (REMARKS), for a container may name as many as it likes. */
#define REMARKS "20"
static const char strangers_sql[] =
    "WITH found AS MATERIALIZED (SELECT left((e.element -> 'delta_id')::text, 60) AS name, min(e.position) AS position"
    " FROM " ELEMENTS " WHERE NOT coalesce(" OURS " ? (" DELTA_ID "), false) GROUP BY 1)"
    " (SELECT 'the feedback names delta ' || name || ', which is not of this job: left alone' AS remark"
    " FROM found ORDER BY position LIMIT " REMARKS ") UNION ALL"
    " SELECT 'the feedback names ' || count(*) - " REMARKS " || ' more deltas that are not of this job' FROM found"
    " HAVING count(*) > " REMARKS;
static const char missing_sql[] =
    "WITH found AS MATERIALIZED (SELECT id, delta_id FROM core_applyjobdelta WHERE apply_job_id = $1"
    " AND feedback IS NULL)"
    " (SELECT 'the feedback does not mention delta ' || delta_id || ': its status is error' AS remark"
    " FROM found ORDER BY id LIMIT " REMARKS ") UNION ALL"
    " SELECT 'the feedback does not mention ' || count(*) - " REMARKS " || ' more deltas' FROM found"
    " HAVING count(*) > " REMARKS;

static const char *const reads[] = {read_sql, NULL};
static const char *const success[] = {check_sql, record_sql, copy_sql, project_sql, strangers_sql, missing_sql, NULL};
static const char *const failure[] = {spoil_sql, copy_sql, NULL};

static int plan(const struct qfc_job_rows *rows, struct qfc_plan *plan, struct qfc_error *error)
{
    const char *overwrite = qfc_pg_text(rows->results[0], 0, "overwrite_conflicts");
    const char *deltafile = qfc_pg_text(rows->results[0], 0, "deltafile");
    if (!overwrite || !deltafile)
        return qfc_fail(error, QFC_ERROR_INVALID, 0, "the job has no row in core_applyjob: its deltas are not known");
    plan->arguments[0] = "apply_deltas";
    plan->arguments[1] = rows->job->project_id;
    plan->arguments[2] = qgis_file_or_none(rows);
    if (strcmp(overwrite, "t") == 0)
        plan->arguments[3] = "--overwrite-conflicts";
    plan->files[0] = (struct qfc_tar_file){"deltafile.json", deltafile, strlen(deltafile), 0644};
    plan->file_count = 1;
    return 0;
}

static int before(const struct qfc_job_rows *rows, struct qfc_statements *writes, struct qfc_error *error)
{
    return QFC_ADD(writes, error, begin_sql, rows->job->id);
}

static int put_back(const struct qfc_job_rows *rows, struct qfc_statements *writes, struct qfc_error *error)
{
    return QFC_ADD(writes, error, undo_sql, rows->job->id);
}

static int add_all(const struct qfc_job_rows *rows, const char *const *sql, struct qfc_statements *writes,
                   struct qfc_error *error)
{
    int r = 0;
    for (; r == 0 && *sql; sql++)
        r = QFC_ADD(writes, error, *sql, rows->job->id);
    return r;
}

static int succeed(const struct qfc_job_rows *rows, const struct qfc_job_end *end, struct qfc_statements *writes,
                   struct qfc_error *error)
{
    return add_all(rows, success, writes, error);
}

static int fail(const struct qfc_job_rows *rows, const struct qfc_job_end *end, struct qfc_statements *writes,
                struct qfc_error *error)
{
    return add_all(rows, failure, writes, error);
}

/* Never run twice what may have uploaded its changes: not safe_to_rerun. */
const struct qfc_processor processor_delta_apply = {
    .type = "delta_apply",
    .reads = reads,
    .plan = plan,
    .before = before,
    .succeed = succeed,
    .fail = fail,
    .put_back = put_back,
};
