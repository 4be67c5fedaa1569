/*
 * `process_projectfile`: reads the project file, for what the web application shows of it.
 *
 * What it brings is taken out of the feedback in SQL. Only the audit log's texts are made here, since they must look as
 * Python would print them: from the project's details as they were when `reviews` was asked. Where they have changed
 * since, the outcome is made again.
 */
#include "project_details.h"
#include "python_json.h"

#include <string.h>

/* An audit text is kept twice in a statement, and jsonb takes no longer string than 256 MB. */
#define AUDIT_MAX_BYTES (128u * 1024 * 1024)

/* QFieldCloud's time zone, where PostgreSQL knows it: an unknown one would be an error. */
#define TIME_ZONE                                                                                                      \
    "coalesce((SELECT z.name FROM pg_timezone_names z"                                                                 \
    " WHERE lower(z.name) = lower(current_setting('qfc_worker.time_zone')) LIMIT 1), 'UTC')"

/* clang-format off */

/*
 * The project as it is. A thumbnail's key is never used twice, except in a legacy storage, which keeps versions:
 * QFieldCloud v25.30, core/models.py, get_project_thumbnail_upload_to; core/utils2/storage.py, upload_project_thumbail.
 */
static const char review_sql[] =
    "SELECT p.project_details::text AS old_details, md5(p.project_details::text) AS old_md5,"
    " {has_qgis_version} AND {qgis_version} IS NULL AS wants_qgis_version, {has_qgis_project} AS has_qgis_project,"
    " {has_area_of_interest} AS has_area_of_interest, " IN_LEGACY_STORAGE " AS in_legacy_storage,"
    " p.file_storage AS thumbnail_storage,"
    " CASE WHEN {thumbnail_by_worker} THEN 'projects/' || p.id || '/meta/thumbnail' ||"
    " CASE WHEN " IN_LEGACY_STORAGE " THEN ''"
    " ELSE to_char(now() AT TIME ZONE " TIME_ZONE ", '\"_v\"YYYYMMDDHH24MISS\"_\"')"
    " || left(gen_random_uuid()::text, 8) END || '.png' END AS thumbnail_object"
    " FROM core_job j JOIN {project} p ON p.id = j.project_id WHERE j.id = $1";

static const char *const reviews[] = {review_sql, NULL};

/* $1 job, $2 MD5 of the details that were reviewed. Locks the project, so that what follows finds it like this. */
static const char check_sql[] =
    "SELECT CASE WHEN " DETAILS " IS NULL THEN "
    QFC_REFUSED("'the feedback lacks outputs.project_details.project_details'") " WHEN {has_qgis_version}"
    " AND {qgis_version} IS NULL AND jsonb_typeof(" DETAILS ") <> 'object' THEN "
    QFC_REFUSED("'the project''s details are not an object'") " WHEN {has_qgis_version}"
    " AND {qgis_version} IS NULL AND char_length(" DETAILS " ->> 'qgis_version') > 100 THEN "
    QFC_REFUSED("'qgis_version in the project''s details is longer than 100 characters'")
    " WHEN md5(p.project_details::text) IS DISTINCT FROM $2 THEN " QFC_CHANGED " ELSE 1 END FROM core_job j"
    " JOIN {project} p ON p.id = j.project_id WHERE j.id = $1 FOR NO KEY UPDATE OF p";

/* A row of the audit log about a change of the project `p` of the owner `u`; null `changes` write none. */
#define AUDIT_ROW(changes, from)                                                                                       \
    "INSERT INTO auditlog_logentry (content_type_id, object_pk, object_repr, action, changes, changes_text,"           \
    " \"timestamp\") SELECT c.id, p.id, {project_repr}, 1, change.fields, '', now() FROM " from                        \
    " JOIN core_user u ON u.id = p.owner_id"                                                                           \
    " JOIN django_content_type c ON c.app_label = '{project_app}' AND c.model = 'project',"                            \
    " LATERAL (SELECT nullif(" changes ", '{}') AS fields) AS change WHERE change.fields IS NOT NULL"

/* Details that were too much to print stand there as the database prints them, cut. */
#define OLD_TEXT "coalesce($2, left(p.project_details::text, 1000000))"
#define NEW_TEXT "coalesce($3, left((" DETAILS ")::text, 1000000))"

#define HAVE_CHANGED "p.project_details::text IS DISTINCT FROM nullif(" DETAILS ", 'null')::text"

/*
 * $1 job, $2 and $3 old and new details as texts, $4 key of the new thumbnail or null, $5 is it in a legacy storage?
 * The name that the web application's model gives a new thumbnail comes after the audit has looked at it: there it is
 * called as the worker's own code calls it (QFieldCloud v25.30, worker_wrapper/wrapper.py).
 */
static const char audit_sql[] = AUDIT_ROW(
    "CASE WHEN " HAVE_CHANGED " AND " OLD_TEXT " IS DISTINCT FROM " NEW_TEXT " THEN"
    " jsonb_build_object('project_details', jsonb_build_array(" OLD_TEXT ", " NEW_TEXT ")) ELSE '{}' END"
    " || CASE WHEN {has_qgis_version}"
    " AND {qgis_version} IS NULL AND NOT " FALSY(DETAILS " -> 'qgis_version'")
    " THEN jsonb_build_object('qgis_version', jsonb_build_array('None', " DETAILS " ->> 'qgis_version'))"
    " ELSE '{}' END || CASE WHEN $4::text IS NULL THEN '{}' WHEN NOT $5::boolean"
    " THEN jsonb_build_object('thumbnail', jsonb_build_array(coalesce(p.thumbnail, ''),"
    " 'dummy_thumbnail_name.png')) WHEN to_jsonb(p) ->> 'legacy_thumbnail_uri' = ''"
    " THEN jsonb_build_object('legacy_thumbnail_uri', jsonb_build_array('', $4)) ELSE '{}' END",
    "(SELECT * FROM core_job WHERE id = $1) j JOIN {project} p ON p.id = j.project_id");

/* clang-format on */

/* $1 job. */
static const char details_sql[] = "UPDATE {project} p SET project_details = nullif(" DETAILS ", 'null') FROM core_job j"
                                  " WHERE j.id = $1 AND p.id = j.project_id AND " HAVE_CHANGED;

/* $1 job. By this the QGIS image is chosen; QFieldCloud v26.20 fills it where it is not known yet. */
static const char qgis_version_sql[] =
    "UPDATE {project} p SET qgis_version = " DETAILS " ->> 'qgis_version' FROM core_job j WHERE j.id = $1"
    " AND p.id = j.project_id AND p.qgis_version IS NULL AND NOT " FALSY(DETAILS " -> 'qgis_version'");

/* $1 project, $2 the thumbnail's key. Returns the object that it replaces, to be deleted. */
static const char thumbnail_sql[] =
    "WITH old AS (SELECT p.id, p.file_storage, p.thumbnail FROM {project} p WHERE p.id = $1),"
    " new AS (UPDATE {project} p SET thumbnail = $2 WHERE p.id = $1 RETURNING p.id)"
    " SELECT old.file_storage AS storage, old.thumbnail AS object FROM old JOIN new ON new.id = old.id"
    " WHERE old.thumbnail <> '' AND old.thumbnail <> $2";

/* The same in a legacy storage, whose object is overwritten. */
static const char legacy_thumbnail_sql[] =
    "UPDATE {project} p SET legacy_thumbnail_uri = $2 WHERE p.id = $1 AND p.legacy_thumbnail_uri = ''";

/* $1 project, $2 MD5 of the details that were reviewed. */
static const char unchanged_sql[] =
    "SELECT CASE WHEN md5(p.project_details::text) IS DISTINCT FROM $2 THEN " QFC_CHANGED
    " ELSE 1 END FROM {project} p WHERE p.id = $1 FOR NO KEY UPDATE";

/* $1 project, $2 its details as text. */
static const char failure_audit_sql[] = AUDIT_ROW(
    "CASE WHEN p.project_details <> 'null' THEN jsonb_build_object('project_details', jsonb_build_array(" OLD_TEXT
    ", 'null')) END",
    "(SELECT * FROM {project} WHERE id = $1) p");

static const char no_details_sql[] =
    "UPDATE {project} p SET project_details = NULL WHERE p.id = $1 AND p.project_details IS NOT NULL";

static int plan(const struct qfc_job_rows *rows, struct qfc_plan *plan, struct qfc_error *error)
{
    const char *qgis_file = qfc_pg_text(rows->project, 0, "qgis_file");
    if (!qgis_file || !*qgis_file)
        return qfc_fail(error, QFC_ERROR_INVALID, 0, "the project has no QGIS file");
    plan->arguments[0] = "process_projectfile";
    plan->arguments[1] = rows->job->project_id;
    plan->arguments[2] = qgis_file;
    return 0;
}

/* The project's row as it was right before, or null where it could not be asked. */
static const PGresult *reviewed(const struct qfc_job_end *end)
{
    const PGresult *review = end->reviews ? end->reviews[0] : NULL;
    return review && PQntuples(review) == 1 ? review : NULL;
}

/* As Python prints it; nothing of what is too much, or nested too deep: see OLD_TEXT and NEW_TEXT. */
static int print(const char *json, size_t size, struct qfc_buffer *out, struct qfc_error *error)
{
    struct qfc_error failure = QFC_NO_ERROR;
    if (python_json_print(json, size, out, &failure) == 0)
        return 0;
    qfc_buffer_free(out);
    return failure.kind == QFC_ERROR_INVALID ? 0 : qfc_fail_memory(error);
}

/* The details that the project has, as the audit log shows them; nothing where they cannot be printed. */
static int print_old(const PGresult *review, struct qfc_buffer *out, struct qfc_error *error)
{
    const char *details = qfc_pg_text(review, 0, "old_details");
    if (!details)
        details = "null";
    return print(details, strlen(details), out, error);
}

/* Those that the container brings; nothing where it brings none, which the database then says. */
static int print_new(const struct qfc_feedback *feedback, struct qfc_buffer *out, struct qfc_error *error)
{
    static const char *const path[] = {"outputs", "project_details", "project_details", NULL};
    const char *details;
    size_t size;
    if (!feedback || !python_json_find(feedback->json, feedback->size, path, &details, &size))
        return 0;
    return print(details, size, out, error);
}

/* The text, or null for an empty buffer. */
static const char *text_or_null(const struct qfc_buffer *buffer)
{
    return buffer->size > 0 ? buffer->data : NULL;
}

static int add_audit(const struct qfc_job_rows *rows, const struct qfc_job_end *end, struct qfc_statements *writes,
                     struct qfc_error *error)
{
    struct qfc_buffer old = qfc_buffer(AUDIT_MAX_BYTES), new = qfc_buffer(AUDIT_MAX_BYTES);
    const PGresult *review = reviewed(end);
    const char *legacy = qfc_pg_true(review, "in_legacy_storage") ? "t" : "f";
    int r = print_old(review, &old, error);
    if (r == 0)
        r = print_new(end->feedback, &new, error);
    if (r == 0)
        r = QFC_ADD(writes, error, audit_sql, rows->job->id, text_or_null(&old), text_or_null(&new), end->thumbnail,
                    legacy);
    qfc_buffer_free(&old);
    qfc_buffer_free(&new);
    return r;
}

/* The columns of the project's own row. */
static int add_project(const struct qfc_job_rows *rows, const struct qfc_job_end *end, struct qfc_statements *writes,
                       struct qfc_error *error)
{
    const struct qfc_job *job = rows->job;
    const PGresult *review = reviewed(end);
    int r = QFC_ADD(writes, error, details_sql, job->id);
    if (r == 0 && qfc_pg_true(review, "wants_qgis_version"))
        r = QFC_ADD(writes, error, qgis_version_sql, job->id);
    if (r == 0 && end->thumbnail)
        r = QFC_ADD(writes, error, qfc_pg_true(review, "in_legacy_storage") ? legacy_thumbnail_sql : thumbnail_sql,
                    job->project_id, end->thumbnail);
    return r;
}

static int succeed(const struct qfc_job_rows *rows, const struct qfc_job_end *end, struct qfc_statements *writes,
                   struct qfc_error *error)
{
    const PGresult *review = reviewed(end);
    if (!review)
        return qfc_fail(error, QFC_ERROR_INVALID, 0, "the project could not be read again");
    int r = QFC_ADD(writes, error, check_sql, rows->job->id, qfc_pg_text(review, 0, "old_md5"));
    if (r == 0)
        r = add_content_types(writes, error);
    if (r == 0)
        r = add_audit(rows, end, writes, error);
    if (r == 0)
        r = add_project(rows, end, writes, error);
    if (r == 0 && qfc_pg_true(review, "has_qgis_project"))
        r = add_qgis_project(rows->job, qfc_pg_true(review, "has_area_of_interest"), writes, error);
    return r;
}

/* The log of what the project loses. */
static int add_failure_audit(const struct qfc_job *job, const PGresult *review, struct qfc_statements *writes,
                             struct qfc_error *error)
{
    struct qfc_buffer old = qfc_buffer(AUDIT_MAX_BYTES);
    int r = 0;
    if (review)
        r = print_old(review, &old, error);
    if (r == 0 && review)
        r = QFC_ADD(writes, error, unchanged_sql, job->project_id, qfc_pg_text(review, 0, "old_md5"));
    if (r == 0)
        r = add_content_types(writes, error);
    if (r == 0)
        r = QFC_ADD(writes, error, failure_audit_sql, job->project_id, text_or_null(&old));
    qfc_buffer_free(&old);
    return r;
}

/* A project whose file cannot be read has no details: nothing that a phone could be shown is true of it. */
static int fail(const struct qfc_job_rows *rows, const struct qfc_job_end *end, struct qfc_statements *writes,
                struct qfc_error *error)
{
    int r = add_failure_audit(rows->job, reviewed(end), writes, error);
    if (r == 0)
        r = QFC_ADD(writes, error, no_details_sql, rows->job->project_id);
    if (r == 0)
        r = add_qgis_project_deletion(rows->job, writes, error);
    return r;
}

const struct qfc_processor processor_process_projectfile = {
    .type = "process_projectfile",
    .safe_to_rerun = true,
    .reviews = reviews,
    .plan = plan,
    .succeed = succeed,
    .fail = fail,
    .thumbnail = "/io/thumbnail.png",
};
