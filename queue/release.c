/*
 * Which release of QFieldCloud has made this database: asked on each new connection, from the schema alone.
 *
 * Some releases share a schema; there the answer is a range. Sources: the migrations of QFieldCloud v25.27 to v26.25.
 */
#include "queue_private.h"

#include <stdio.h>
#include <string.h>

/* v25.27 to v26.19: core_project, the QGIS file by its name. */
static const struct qfc_name names_core[] = {
    {"project", "core_project"},
    {"qgis_file_name", "p.the_qgis_file_name"},
    {"qgis_version", "NULL::text"},
    {"images_by_qgis", "false"},
    {NULL, NULL},
};

/* v26.20: the project knows its QGIS version. */
static const struct qfc_name names_core_version[] = {
    {"project", "core_project"},
    {"qgis_file_name", "p.the_qgis_file_name"},
    {"qgis_version", "p.qgis_version"},
    {"images_by_qgis", "true"},
    {NULL, NULL},
};

/* v26.21 and later: project_project, the QGIS file as a row of filestorage_file. */
static const struct qfc_name names_project[] = {
    {"project", "project_project"},
    {"qgis_file_name", "(SELECT f.name FROM filestorage_file f WHERE f.id = p.the_qgis_file_id)"},
    {"qgis_version", "p.qgis_version"},
    {"images_by_qgis", "true"},
    {NULL, NULL},
};

/* What sets a release apart, newest first: the first whose marks are all there is the one. */
static const struct release {
    const char *called;
    const char *marks[4]; /* columns of the probe's result that must be true */
    const struct qfc_name *names;
} releases[] = {
    {"v26.25 or later", {"project_project", "area_of_interest"}, names_project},
    {"v26.22 to v26.24", {"project_project", "qgisproject"}, names_project},
    {"v26.21", {"project_project"}, names_project},
    {"v26.20", {"core_project", "qgis_version"}, names_core_version},
    {"v26.8 to v26.19", {"core_project", "projectseed"}, names_core},
    {"v25.27 to v26.7", {"core_project"}, names_core},
};

#define HAS_COLUMN(table, column)                                                                                      \
    "EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass('" table "') AND attname = '" column                \
    "' AND NOT attisdropped)"

int release_probe(struct qfc_statements *statements, struct qfc_error *error)
{
    return qfc_statements_add(
        statements,
        "SELECT pg_is_in_recovery() AS standby,"
        " current_setting('transaction_read_only')::boolean AS read_only,"
        " current_setting('server_version_num')::integer < 130000 AS too_old,"
        " current_setting('server_version') AS server_version, current_database() AS database,"
        " to_regclass('core_job') IS NOT NULL AS core_job,"
        " to_regclass('core_project') IS NOT NULL AS core_project,"
        " to_regclass('project_project') IS NOT NULL AS project_project,"
        " to_regclass('core_projectseed') IS NOT NULL AS projectseed,"
        " to_regclass('project_qgisproject') IS NOT NULL AS qgisproject,"
        " " HAS_COLUMN("core_project", "qgis_version") " AS qgis_version,"
                                                       " " HAS_COLUMN("project_qgisproject",
                                                                      "area_of_interest") " AS area_of_interest",
        0, NULL, error);
}

static bool is_true(const PGresult *probe, const char *column)
{
    const char *text = qfc_pg_text(probe, 0, column);
    return text && strcmp(text, "t") == 0;
}

static bool matches(const struct release *release, const PGresult *probe)
{
    for (size_t i = 0; i < sizeof release->marks / sizeof *release->marks && release->marks[i]; i++)
        if (!is_true(probe, release->marks[i]))
            return false;
    return true;
}

/* A server that we must not, or cannot, work on. */
static int refuse(const PGresult *probe, struct qfc_error *error)
{
    const char *database = qfc_pg_text(probe, 0, "database");
    if (is_true(probe, "standby"))
        return qfc_fail(error, QFC_ERROR_REFUSED, 0,
                        "the server is a standby, which takes no writes: connect to the primary");
    if (is_true(probe, "read_only"))
        return qfc_fail(error, QFC_ERROR_REFUSED, 0,
                        "the database takes no writes (default_transaction_read_only is on)");
    if (is_true(probe, "too_old"))
        return qfc_fail(error, QFC_ERROR_REFUSED, 0, "PostgreSQL %s is too old: 13 or later is needed",
                        qfc_pg_text(probe, 0, "server_version"));
    if (!is_true(probe, "core_job"))
        return qfc_fail(error, QFC_ERROR_REFUSED, 0,
                        "database \"%s\" has no table core_job: it is not QFieldCloud's, or not migrated yet",
                        database ? database : "?");
    return 0;
}

int release_recognise(struct qfc_queue *queue, const PGresult *probe, struct qfc_error *error)
{
    if (refuse(probe, error) < 0)
        return -1;
    for (size_t i = 0; i < sizeof releases / sizeof *releases; i++) {
        if (!matches(&releases[i], probe))
            continue;
        snprintf(queue->release, sizeof queue->release, "%s", releases[i].called);
        queue->names = releases[i].names;
        return 0;
    }
    return qfc_fail(error, QFC_ERROR_REFUSED, 0,
                    "the database has core_job, but neither core_project nor project_project: no release that is "
                    "known (v25.27 to v26.25)");
}
