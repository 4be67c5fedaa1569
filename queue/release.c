/*
 * Which release of QFieldCloud has made this database: asked on each new connection, from the schema alone.
 *
 * Some releases share a schema; there the answer is a range. Sources: the migrations of QFieldCloud v25.27 to v26.25.
 */
#include "qfc/release.h"

#include "qfc/pg.h"

#include <stdio.h>
#include <string.h>

#define VERSION_DISPLAY "to_char(v.uploaded_at AT TIME ZONE 'UTC', '\"v\"YYYYMMDDHH24MISS')"

/* What sets a release apart, newest first: the first whose marks are all there is the one. */
static const struct release {
    const char *called;
    const char *marks[4]; /* columns of the probe's result that must be true */
} releases[] = {
    {"v26.25 or later", {"project_project", "area_of_interest"}},
    {"v26.22 to v26.24", {"project_project", "qgisproject"}},
    {"v26.21", {"project_project"}},
    {"v26.20", {"core_project", "qgis_version"}},
    {"v26.8 to v26.19", {"core_project", "projectseed"}},
    {"v25.27 to v26.7", {"core_project"}},
};

/* A name's text depends on one mark alone: what is there is asked, not which release it is. */
static const struct feature {
    const char *name;
    const char *mark; /* column of the probe's result */
    const char *with, *without;
} features[QFC_RELEASE_NAMES] = {
    {"project", "project_project", "project_project", "core_project"},
    {"project_app", "project_project", "project", "core"},
    {"qgis_file_name", "qgis_file_id", "(SELECT f.name FROM filestorage_file f WHERE f.id = p.the_qgis_file_id)",
     "p.the_qgis_file_name"},
    {"qgis_version", "qgis_version", "p.qgis_version", "NULL::text"},
    {"has_qgis_version", "qgis_version", "true", "false"},
    {"has_qgis_project", "qgisproject", "true", "false"},
    {"has_area_of_interest", "area_of_interest", "true", "false"},
    {"has_legacy_storage", "legacy_storage", "true", "false"},
    {"thumbnail_by_worker", "projectseed", "false", "true"},
    {"project_repr", "qgisproject", "(u.username || '/' || p.name || ' [id=' || p.id || ']')",
     "(p.name || ' (' || p.id || ') owner: ' || u.username)"},
    {"file_repr", "qgisproject", "(f.project_id || '/' || f.name || ' [id=' || f.id || ']')",
     "('File(' || f.id || ') in \"' || f.project_id || '\" \"' || f.name || '\"')"},
    {"version_repr", "qgisproject",
     "(f.project_id || '/' || f.name || '/' || " VERSION_DISPLAY " || ' [id=' || v.id || ']')",
     "('FileVersion(' || v.id || ') in \"' || f.project_id || '\" \"' || f.name || '\" \"' || " VERSION_DISPLAY
     " || '\"')"},
};

#define HAS_COLUMN(table, column)                                                                                      \
    "EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass('" table "') AND attname = '" column                \
    "' AND NOT attisdropped)"

/* clang-format off */
static const char probe_sql[] =
    "SELECT pg_backend_pid() AS session, pg_is_in_recovery() AS standby,"
    " current_setting('transaction_read_only')::boolean AS read_only,"
    " current_setting('server_version_num')::integer < 130000 AS too_old,"
    " current_setting('server_version') AS server_version, current_database() AS database,"
    " (SELECT system_identifier FROM pg_control_system())"
    "  || '-' || (SELECT oid FROM pg_database WHERE datname = current_database()) AS identity,"
    " to_regclass('core_job') IS NOT NULL AS core_job,"
    " to_regclass('core_project') IS NOT NULL AS core_project,"
    " to_regclass('project_project') IS NOT NULL AS project_project,"
    " coalesce(to_regclass('core_projectseed'), to_regclass('project_projectseed')) IS NOT NULL AS projectseed,"
    " to_regclass('project_qgisproject') IS NOT NULL AS qgisproject,"
    " " HAS_COLUMN("core_project", "qgis_version")
    " OR " HAS_COLUMN("project_project", "qgis_version") " AS qgis_version,"
    " " HAS_COLUMN("core_project", "the_qgis_file_id")
    " OR " HAS_COLUMN("project_project", "the_qgis_file_id") " AS qgis_file_id,"
    " " HAS_COLUMN("project_qgisproject", "area_of_interest") " AS area_of_interest,"
    " " HAS_COLUMN("core_project", "legacy_thumbnail_uri") " AS legacy_storage";
/* clang-format on */

int qfc_release_probe(struct qfc_statements *list, struct qfc_error *error)
{
    return qfc_statements_add(list, probe_sql, 0, NULL, error);
}

static bool matches(const struct release *release, const PGresult *probe)
{
    for (size_t i = 0; i < sizeof release->marks / sizeof *release->marks && release->marks[i]; i++)
        if (!qfc_pg_true(probe, release->marks[i]))
            return false;
    return true;
}

/* A server that we must not, or cannot, work on. */
static int refuse(const PGresult *probe, struct qfc_error *error)
{
    const char *database = qfc_pg_text(probe, 0, "database");
    if (qfc_pg_true(probe, "standby"))
        return qfc_fail(error, QFC_ERROR_REFUSED, 0,
                        "the server is a standby, which takes no writes: connect to the primary");
    if (qfc_pg_true(probe, "read_only"))
        return qfc_fail(error, QFC_ERROR_REFUSED, 0,
                        "the database takes no writes (default_transaction_read_only is on)");
    if (qfc_pg_true(probe, "too_old"))
        return qfc_fail(error, QFC_ERROR_REFUSED, 0, "PostgreSQL %s is too old: 13 or later is needed",
                        qfc_pg_text(probe, 0, "server_version"));
    if (!qfc_pg_true(probe, "core_job"))
        return qfc_fail(error, QFC_ERROR_REFUSED, 0,
                        "database \"%s\" has no table core_job: it is not QFieldCloud's, or not migrated yet",
                        database ? database : "?");
    return 0;
}

static void fill_names(struct qfc_name *names, const PGresult *probe)
{
    for (size_t i = 0; i < QFC_RELEASE_NAMES; i++) {
        const struct feature *feature = &features[i];
        names[i].name = feature->name;
        names[i].text = qfc_pg_true(probe, feature->mark) ? feature->with : feature->without;
    }
}

int qfc_release_read(const PGresult *probe, struct qfc_release *ret_release, struct qfc_error *error)
{
    if (refuse(probe, error) < 0)
        return -1;
    for (size_t i = 0; i < sizeof releases / sizeof *releases; i++) {
        if (!matches(&releases[i], probe))
            continue;
        snprintf(ret_release->called, sizeof ret_release->called, "%s", releases[i].called);
        const char *identity = qfc_pg_text(probe, 0, "identity");
        snprintf(ret_release->identity, sizeof ret_release->identity, "%s", identity ? identity : "");
        fill_names(ret_release->names, probe);
        return 0;
    }
    return qfc_fail(error, QFC_ERROR_REFUSED, 0,
                    "the database has core_job, but neither core_project nor project_project: no release that is "
                    "known (v25.27 to v26.25)");
}
