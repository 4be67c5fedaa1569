/*
 * `package`: makes the package of a project that phones download.
 *
 * Each user may get a package of his own, since secrets differ. So with each new package it is settled whose are still
 * in use; the files of all others go, with audit rows as the web application's models write them.
 */
#include "processors_private.h"

/*
 * Subqueries for WITH: `project` ($2), and `latest`, the newest package job, however it ended, of each user that
 * counts. On a public project these are all who ever asked for a package. Otherwise they are the owner, or the owner,
 * admins and members of the organization that owns it, and those collaborators who are persons and not incognito.
 * (QFieldCloud v26.25, Project.latest_package_jobs; releases before v26.15 keep less of public projects.)
 */
#define LATEST_PACKAGES                                                                                                \
    "project AS (SELECT p.is_public, p.owner_id FROM {project} p WHERE p.id = $2::uuid),"                              \
    " members AS (SELECT u.id FROM project p JOIN core_user u ON u.id = p.owner_id WHERE u.type = 1"                   \
    "  UNION SELECT r.user_id FROM organizations_with_roles_vw r"                                                      \
    "   WHERE r.organization_id = (SELECT owner_id FROM project)"                                                      \
    "  UNION SELECT c.collaborator_id FROM core_projectcollaborator c JOIN core_user u ON u.id = c.collaborator_id"    \
    "   WHERE c.project_id = $2::uuid AND u.type = 1 AND NOT c.is_incognito),"                                         \
    " latest AS (SELECT DISTINCT ON (j.triggered_by_id) j.id FROM core_job j"                                          \
    "  WHERE j.project_id = $2::uuid AND j.type = 'package'"                                                           \
    "   AND ((SELECT is_public FROM project) OR j.triggered_by_id IN (SELECT id FROM members))"                        \
    "  ORDER BY j.triggered_by_id, j.created_at DESC, j.id)"

/*
 * Is the package of job `package_job_id` obsolete? Not where that is one of `latest`, or still active. This very job
 * ($1) counts as active, as it does for QFieldCloud's own worker, which asks before it writes `finished`: else members
 * of a team, who are none of the users above, would never see a package. A package without a job is obsolete (it passes
 * Django's exclude(package_job_id__in=...)). The subselect for the status stays a look-up by key for each job that is
 * left: it can become no join with a table of millions of jobs.
 */
#define IS_OBSOLETE                                                                                                    \
    "(package_job_id = $1::uuid OR package_job_id IN (SELECT id FROM latest)"                                          \
    " OR (SELECT a.type = 'package' AND a.status NOT IN ('finished', 'failed') FROM core_job a"                        \
    "  WHERE a.id = package_job_id)) IS NOT TRUE"

/*
 * The audit log's `changes` of a deleted row, from its columns in `fields`: each that is not null, as Python's str()
 * has it, except those that QFieldCloud does not audit (AUDITLOG_INCLUDE_TRACKING_MODELS). A field of Django is called
 * as its column, a foreign key without `_id`; times are in UTC, their fraction left out where it is zero.
 */
#define DELETION                                                                                                       \
    "(SELECT jsonb_object_agg(CASE c.name WHEN 'legacy_id' THEN c.name ELSE regexp_replace(c.name, '_id$', '') END,"   \
    "  jsonb_build_array(CASE WHEN right(c.name, 3) <> '_at' THEN c.value ELSE regexp_replace("                        \
    "   to_char(c.value::timestamptz AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US'), '[.]000000$', '') END, 'None'))" \
    " FROM jsonb_each_text(fields) AS c(name, value) WHERE c.value IS NOT NULL"                                        \
    "  AND c.name NOT IN ('latest_version_count', 'md5sum', 'sha256sum'))"

/* Deleting a file has this field, too: the versions' manager of a file that is no more, as text. */
#define VERSIONS_FIELD "jsonb_build_object('versions', jsonb_build_array('filestorage.FileVersion.None', 'None'))"

/*
 * Deletes the project's obsolete package files with all their versions, and logs it: of each file that it has no latest
 * version any more, of each version and each file that it is deleted. What was deleted is what RETURNING says, so a row
 * that somebody else deletes meanwhile is logged once. Foreign keys are checked at COMMIT. Arrays instead of joins, so
 * that nothing is sought but by index, whatever PostgreSQL thinks how many these are. Rows: the objects.
 */
static const char delete_obsolete[] =
    "WITH " LATEST_PACKAGES ","
    " obsolete AS (SELECT f.* FROM filestorage_file f"
    "  WHERE f.project_id = $2::uuid AND f.file_type = 2 AND " IS_OBSOLETE "),"
    " versions AS (DELETE FROM filestorage_fileversion"
    "  WHERE file_id = ANY (ARRAY(SELECT id FROM obsolete)) RETURNING *),"
    " files AS (DELETE FROM filestorage_file WHERE id = ANY (ARRAY(SELECT id FROM obsolete)) RETURNING *),"
    " gone_versions AS (SELECT v.id, {version_repr} AS called, to_jsonb(v) AS fields"
    "  FROM versions v JOIN obsolete f ON f.id = v.file_id),"
    " gone_files AS (SELECT f.id, f.latest_version_id, {file_repr} AS called, to_jsonb(f) AS fields FROM files f),"
    " entries AS ("
    "  SELECT 1 AS place, 1 AS action, 'file' AS model, id::text AS pk, id AS number, called,"
    "   jsonb_build_object('latest_version', jsonb_build_array(latest_version_id, 'None')) AS changes"
    "   FROM gone_files WHERE latest_version_id IS NOT NULL"
    "  UNION ALL SELECT 2, 2, 'fileversion', id::text, NULL, called, " DELETION " FROM gone_versions"
    "  UNION ALL SELECT 3, 2, 'file', id::text, id, called, " DELETION " || " VERSIONS_FIELD " FROM gone_files),"
    " logged AS (INSERT INTO auditlog_logentry"
    "   (action, content_type_id, object_pk, object_id, object_repr, changes, changes_text, timestamp)"
    "  SELECT e.action, t.id, e.pk, e.number, e.called, e.changes, '', clock_timestamp() FROM entries e"
    "   LEFT JOIN django_content_type t ON t.app_label = 'filestorage' AND t.model = e.model"
    "   ORDER BY e.place, e.pk)"
    " SELECT DISTINCT file_storage AS storage, content AS object FROM versions";

/*
 * Which of the keys $3 are objects of obsolete packages that no row names? Packages in legacy storage (up to v26.10)
 * never had rows; elsewhere they are what a failed job uploaded, or what could not be deleted when its rows were. Only
 * the project's own files can name these keys; there is no index on `content`, so they are all read, but not before a
 * key is in doubt. A key that is not written exactly as QFieldCloud writes it is left alone, as are those with `..` in
 * them, which mean another place to some storages.
 */
static const char leftovers[] =
    "WITH " LATEST_PACKAGES ","
    " keys AS (SELECT k.key, CASE WHEN k.key !~ '(^|/)[.][.]?(/|$)' AND k.key ~ ('^projects/' || $2::uuid ||"
    "   '/packages/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/.')"
    "   THEN split_part(k.key, '/', 4)::uuid END AS package_job_id"
    "  FROM project CROSS JOIN unnest($3::text[]) AS k(key)),"
    " doubtful AS MATERIALIZED (SELECT DISTINCT key FROM keys WHERE package_job_id IS NOT NULL AND " IS_OBSOLETE ")"
    " SELECT key AS object FROM doubtful WHERE key NOT IN (SELECT v.content FROM filestorage_fileversion v"
    "  WHERE v.file_id = ANY (ARRAY(SELECT f.id FROM filestorage_file f WHERE f.project_id = $2::uuid)))";

static int plan(const struct qfc_job_rows *rows, struct qfc_plan *plan, struct qfc_error *error)
{
    plan->arguments[0] = "package";
    plan->arguments[1] = rows->job->project_id;
    plan->arguments[2] = qgis_file_or_none(rows);
    plan->arguments[3] = qfc_pg_text(rows->project, 0, "packaging_offliner");
    return 0;
}

/* Data uploaded after the container's start may not be in the package: so its start counts. */
static int succeed(const struct qfc_job_rows *rows, const struct qfc_job_end *end, struct qfc_statements *writes,
                   struct qfc_error *error)
{
    if (QFC_ADD(writes, error,
                "UPDATE {project} SET data_last_packaged_at = (SELECT docker_started_at FROM core_job WHERE id = $1)"
                " WHERE id = $2",
                rows->job->id, rows->job->project_id) < 0 ||
        add_content_types(writes, error) < 0)
        return -1;
    return QFC_ADD(writes, error, delete_obsolete, rows->job->id, rows->job->project_id);
}

const struct qfc_processor processor_package = {
    .type = "package",
    .safe_to_rerun = true,
    .plan = plan,
    .succeed = succeed,
    .swept_prefix = "projects/%s/packages/",
    .leftovers = leftovers,
};
