/*
 * The table of job types, and what all of them ask. A new type is a file with a const table, and a line here.
 */
#include "processors_private.h"

#include <string.h>

const struct qfc_processor *const qfc_processors[] = {
    &processor_package, &processor_delta_apply, &processor_process_projectfile, &processor_create_project, NULL,
};

const struct qfc_processor *qfc_processor_of(const char *type)
{
    for (const struct qfc_processor *const *processor = qfc_processors; *processor; processor++)
        if (strcmp((*processor)->type, type) == 0)
            return *processor;
    return NULL;
}

const char qfc_project_sql[] =
    "SELECT p.name AS project_name, u.username AS owner, {qgis_file_name} AS qgis_file, {qgis_version} AS qgis_version,"
    " {has_qgis_version} AS images_by_qgis, {thumbnail_by_worker} AS thumbnail_by_worker, p.packaging_offliner,"
    " p.file_storage, " IN_LEGACY_STORAGE
    " AS legacy_storage FROM core_job j JOIN {project} p ON p.id = j.project_id JOIN core_user u ON u.id = p.owner_id"
    " WHERE j.id = $1";

const char *qgis_file_or_none(const struct qfc_job_rows *rows)
{
    const char *qgis_file = qfc_pg_text(rows->project, 0, "qgis_file");
    return qgis_file ? qgis_file : "None";
}

int add_content_types(struct qfc_statements *writes, struct qfc_error *error)
{
    static const char sql[] =
        "INSERT INTO django_content_type (app_label, model) SELECT wanted.* FROM (VALUES ('{project_app}', 'project'),"
        " ('filestorage', 'file'), ('filestorage', 'fileversion')) AS wanted (app, model) WHERE NOT EXISTS"
        " (SELECT FROM django_content_type t WHERE t.app_label = wanted.app AND t.model = wanted.model)";
    return qfc_statements_add(writes, sql, 0, NULL, error);
}
