/*
 * The QGIS project and its layers as rows of their own (v26.22 and later), made from the project's details.
 *
 * The rules are those of QFieldCloud v26.25, project/models.py, QgisProjectQueryset and QgisLayerQuerySet,
 * update_from_details. The container may write anything: each value is asked for its type before it is cast.
 */
#include "project_details.h"

/* A container's text about an area; longer ones are taken for none. */
#define AREA_MAX_CHARACTERS "1000000"

/* An index entry has at most 2704 bytes (PostgreSQL's BTMaxItemSize). */
#define LAYER_ID_MAX_BYTES "2600"

/* Of `d.details`. */
#define LAYERS                                                                                                         \
    "CASE WHEN jsonb_typeof(d.details -> 'layers_by_id') = 'object' THEN d.details -> 'layers_by_id' ELSE '{}' END"
#define ORDERED                                                                                                        \
    "CASE WHEN jsonb_typeof(d.details -> 'ordered_layer_ids') = 'array' THEN d.details -> 'ordered_layer_ids' ELSE "   \
    "'[]' END"

/* The job's project with its details ($1 job); then its layers, each once, with their place. An id without a layer uses
 * up its place; of an id that appears twice the last place counts. */
#define WITH_LAYERS                                                                                                    \
    "WITH d AS MATERIALIZED (SELECT j.project_id, " DETAILS " AS details FROM core_job j WHERE j.id = $1),"            \
    " l AS MATERIALIZED (SELECT DISTINCT ON (known.key) d.project_id, known.key AS id, o.place - 1 AS place,"          \
    " known.value AS layer FROM d, jsonb_array_elements(" ORDERED ") WITH ORDINALITY AS o (id, place),"                \
    " jsonb_each(" LAYERS ") AS known WHERE jsonb_typeof(o.id) = 'string' AND known.key = o.id #>> '{}'"               \
    " AND known.value <> 'null' ORDER BY known.key, o.place DESC)"

#define IS_NULL(value)            "coalesce(" value ", 'null') = 'null'"
#define IS_NO(type, value)        "jsonb_typeof(" value ") IS DISTINCT FROM '" type "'"
#define IS_LONGER(maximum, value) "char_length(" value ") > " maximum

/* Not from 0 to 32767: the columns are PositiveSmallIntegerField. */
#define IS_NO_SMALL_NUMBER(value)                                                                                      \
    "CASE WHEN jsonb_typeof(" value ") = 'number' THEN trunc((" value                                                  \
    ")::numeric) NOT BETWEEN 0 AND 32767 ELSE true END"

/* clang-format off */

/* What is wrong with a layer, or null. */
#define LAYER_TROUBLE \
    "CASE" \
    " WHEN octet_length(l.id) > " LAYER_ID_MAX_BYTES " THEN 'its id is longer than " LAYER_ID_MAX_BYTES " bytes'" \
    " WHEN " IS_NO("object", "l.layer") " THEN 'it is not an object'" \
    " WHEN " IS_NULL("l.layer -> 'name'") " THEN 'name is missing or null'" \
    " WHEN " IS_NULL("l.layer -> 'crs'") " THEN 'crs is missing or null'" \
    " WHEN " IS_NULL("l.layer -> 'type'") " THEN 'type is missing or null'" \
    " WHEN " IS_NO_SMALL_NUMBER("l.layer -> 'type'") " THEN 'type is not a number from 0 to 32767'" \
    " WHEN NOT " IS_NULL("l.layer -> 'geom_type'") " AND " IS_NO_SMALL_NUMBER("l.layer -> 'geom_type'") "" \
    " THEN 'geom_type is not a number from 0 to 32767'" \
    " WHEN l.layer ? 'is_valid' AND " IS_NO("boolean", "l.layer -> 'is_valid'") "" \
    " THEN 'is_valid is not true or false'" \
    " WHEN l.layer ? 'is_localized' AND " IS_NO("boolean", "l.layer -> 'is_localized'") "" \
    " THEN 'is_localized is not true or false'" \
    " WHEN " IS_LONGER("50", "l.layer ->> 'wkb_type_name'") " THEN 'wkb_type_name is longer than 50 characters'" \
    " WHEN " IS_LONGER("50", "l.layer ->> 'provider_name'") " THEN 'provider_name is longer than 50 characters'" \
    " WHEN " IS_LONGER("100", "l.layer ->> 'error_code'") " THEN 'error_code is longer than 100 characters' END"

/* Why the rows of project `p` with details `d` cannot be made, or null. */
#define TROUBLE \
    "CASE" \
    " WHEN " IS_NO("object", "d.details") " THEN 'the project''s details are not an object'" \
    " WHEN p.the_qgis_file_id IS NULL THEN 'the project has lost its QGIS file'" \
    " WHEN (SELECT f.latest_version_id FROM filestorage_file f WHERE f.id = p.the_qgis_file_id) IS NULL" \
    " THEN 'the project''s QGIS file has no version'" \
    " WHEN " IS_NULL("d.details -> 'project_name'") "" \
    " THEN 'project_name is missing or null in the project''s details'" \
    " WHEN NOT " FALSY("d.details -> 'qgis_version'") " AND " IS_NO("string", "d.details -> 'qgis_version'") "" \
    " THEN 'qgis_version in the project''s details is not a text'" \
    " WHEN " IS_LONGER("7", "d.details ->> 'background_color'") "" \
    " THEN 'background_color in the project''s details is longer than 7 characters'" \
    " WHEN " IS_NO("array", "d.details -> 'ordered_layer_ids'") "" \
    " THEN 'ordered_layer_ids is missing in the project''s details, or not a list'" \
    " WHEN NOT " FALSY("d.details -> 'layers_by_id'") " AND " IS_NO("object", "d.details -> 'layers_by_id'") "" \
    " THEN 'layers_by_id in the project''s details is not an object'" \
    " ELSE (SELECT 'layer \"' || left(l.id, 100) || '\" of the project''s details: ' || " LAYER_TROUBLE \
    " FROM l WHERE " LAYER_TROUBLE " IS NOT NULL ORDER BY l.place LIMIT 1) END"

/* clang-format on */

/* A text about an area as it goes to areas_sql. */
#define AREA(name)                                                                                                     \
    "set_config('qfc_worker." name "', CASE WHEN jsonb_typeof(d.details -> '" name "') = 'string' AND"                 \
    " char_length(d.details ->> '" name "') <= " AREA_MAX_CHARACTERS " THEN d.details ->> '" name                      \
    "' ELSE '' END, true)"

/* $1 job. A block of code takes no values: it is given texts in settings of the transaction. */
/* clang-format off */
static const char check_sql[] =
    WITH_LAYERS
    " SELECT CASE WHEN why IS NULL THEN 1 ELSE " QFC_REFUSED("why") " END, " AREA("extent") ", "
    AREA("area_of_interest")
    ", set_config('qfc_worker.crs', coalesce(left(d.details ->> 'crs', 100), ''), true)"
    " FROM d JOIN {project} p ON p.id = d.project_id, LATERAL (SELECT " TROUBLE " AS why) AS trouble";
/* clang-format on */

#define IS_ON_EARTH                                                                                                    \
    "(ST_XMin(shape) >= -180 AND ST_XMax(shape) <= 180 AND ST_YMin(shape) >= -90 AND ST_YMax(shape) <= 90)"

/*
 * Makes geometries of the texts, or nothing: what cannot be parsed or transformed raises, and only a block of code can
 * catch that. From v26.24 the container gives longitude and latitude. In v26.22 and v26.23, which have the same
 * schema, an extent is in the project's coordinate system: coordinates that are not on earth tell. Only systems that
 * PostGIS knows are looked up: a text given to PROJ could make the server open files. It takes a number of a system
 * that there cannot be for none, so that is looked at in the text.
 */
static const char areas_sql[] =
    "DO $do$ DECLARE area text; given text; shape geometry; system integer; crs text := "
    "current_setting('qfc_worker.crs'); BEGIN"
    " FOREACH area IN ARRAY ARRAY['extent', 'area_of_interest'] LOOP"
    " given := current_setting('qfc_worker.' || area);"
    " shape := NULL;"
    " IF given <> '' AND (given !~* '^\\s*SRID' OR given ~* '^\\s*SRID=4326;') THEN BEGIN"
    " shape := given::geometry;"
    " IF GeometryType(shape) <> 'POLYGON' OR ST_NDims(shape) <> 2 OR ST_IsEmpty(shape)"
    " OR ST_SRID(shape) NOT IN (0, 4326) OR (crs = '' AND NOT {has_area_of_interest}) THEN"
    " shape := NULL;"
    " ELSIF NOT " IS_ON_EARTH " AND NOT {has_area_of_interest} AND area = 'extent' THEN"
    " SELECT s.srid INTO system FROM spatial_ref_sys s WHERE s.auth_name || ':' || s.auth_srid = upper(crs) LIMIT 1;"
    " shape := ST_Transform(ST_SetSRID(shape, system), 4326);"
    " END IF;"
    " IF NOT " IS_ON_EARTH " OR ST_AsText(shape) ~* 'nan|inf' THEN shape := NULL; END IF;"
    " EXCEPTION WHEN OTHERS THEN shape := NULL; END; END IF;"
    " PERFORM set_config('qfc_worker.' || area, coalesce(ST_SetSRID(shape, 4326)::text, ''), true);"
    " END LOOP; END $do$";

#define MADE_AREA(name) "nullif(current_setting('qfc_worker." name "'), '')::geometry"

/* A member of the details, or what stands for it where it says nothing. */
#define OR_ELSE(name, otherwise)                                                                                       \
    "CASE WHEN " FALSY("d.details -> '" name "'") " THEN " otherwise " ELSE d.details ->> '" name "' END"
#define OR_ELSE_JSON(name, otherwise)                                                                                  \
    "CASE WHEN " FALSY("d.details -> '" name "'") " THEN '" otherwise "'::jsonb ELSE d.details -> '" name "' END"

/* $1 job. With a further column, its value, and how it is set. */
/* clang-format off */
#define QGIS_PROJECT(column, value, set) \
    "INSERT INTO project_qgisproject AS q (project_id, file_version_id, name, qgis_version, crs," \
    " background_color, custom_properties, created_at, updated_at, extent" column ") SELECT p.id," \
    " f.latest_version_id, d.details ->> 'project_name', left(" OR_ELSE("qgis_version", "''") ", 100), " \
    OR_ELSE("crs", "''") ", " OR_ELSE("background_color", "'#ffffff'") ", jsonb_build_object('attachment_dirs', " \
    OR_ELSE_JSON("attachment_dirs", "[\"DCIM\"]") ", 'data_dirs', " OR_ELSE_JSON("data_dirs", "[]") "), now()," \
    " now(), " MADE_AREA("extent") value " FROM (SELECT j.project_id, " DETAILS " AS details FROM core_job j" \
    " WHERE j.id = $1) AS d JOIN {project} p ON p.id = d.project_id" \
    " JOIN filestorage_file f ON f.id = p.the_qgis_file_id ON CONFLICT (project_id) DO" \
    " UPDATE SET file_version_id = excluded.file_version_id, name = excluded.name," \
    " qgis_version = excluded.qgis_version, crs = excluded.crs, background_color = excluded.background_color," \
    " custom_properties = excluded.custom_properties, updated_at = excluded.updated_at, extent = excluded.extent" \
    set
/* clang-format on */

static const char qgis_project_sql[] = QGIS_PROJECT("", "", "");
static const char qgis_project_with_area_sql[] = QGIS_PROJECT(", area_of_interest", ", " MADE_AREA("area_of_interest"),
                                                              ", area_of_interest = excluded.area_of_interest");

/* The columns that may change, of a table or alias "t.". */
#define LAYER_COLUMNS(of)                                                                                              \
    of "name, " of "crs, " of "geom_type, " of "wkb_type_name, " of "layer_type, " of "provider_name, " of             \
       "ordering, " of "datasource, " of "file_name, " of "is_valid, " of "is_localized, " of "error_code, " of        \
       "error_summary, " of "error_message, " of "provider_error_summary, " of "provider_error_message, " of           \
       "qfs_settings"

#define LAYER_TEXT(name, otherwise)                                                                                    \
    "CASE WHEN " FALSY("l.layer -> '" name "'") " THEN '" otherwise "' ELSE l.layer ->> '" name "' END"
#define LAYER_SETTING(name) "'" name "', l.layer -> '" name "'"

/* Their values, in the same order, named by the first of `UNION`'s. */
/* clang-format off */
#define LAYER_VALUES \
    "l.layer ->> 'name' AS name, l.layer ->> 'crs' AS crs, CASE WHEN " IS_NULL("l.layer -> 'geom_type'") " THEN 4" \
    " ELSE trunc((l.layer -> 'geom_type')::numeric) END::smallint AS geom_type, " LAYER_TEXT("wkb_type_name", "") \
    " AS wkb_type_name, trunc((l.layer -> 'type')::numeric)::smallint AS layer_type, " \
    LAYER_TEXT("provider_name", "") " AS provider_name, l.place::integer AS ordering, " \
    LAYER_TEXT("datasource", "") " AS datasource, " LAYER_TEXT("filename", "") " AS file_name," \
    " coalesce((l.layer -> 'is_valid')::boolean, false) AS is_valid," \
    " coalesce((l.layer -> 'is_localized')::boolean, false) AS is_localized, " \
    LAYER_TEXT("error_code", "no_error") " AS error_code, " LAYER_TEXT("error_summary", "") " AS error_summary, " \
    LAYER_TEXT("error_message", "") " AS error_message, " LAYER_TEXT("provider_error_summary", "") \
    " AS provider_error_summary, " LAYER_TEXT("provider_error_message", "") " AS provider_error_message," \
    " jsonb_build_object(" LAYER_SETTING("qfs_action") ", " LAYER_SETTING("qfs_cloud_action") ", " \
    LAYER_SETTING("qfs_photo_naming") ", " LAYER_SETTING("qfs_is_geometry_locked") ", " \
    LAYER_SETTING("qfs_unsupported_source_pk") ", " LAYER_SETTING("qfc_source_data_pk_name") ") AS qfs_settings"
/* clang-format on */

/* $1 job. Rows that say the same already stay as they are. (To look for those that are there before inserting others
 * takes time that grows with the square, where PostgreSQL does not know the table yet.) */
/* clang-format off */
static const char layers_sql[] =
    WITH_LAYERS ", wanted AS MATERIALIZED (SELECT l.project_id AS qgis_project_id, l.id AS qgis_layer_id, "
    LAYER_VALUES " FROM l),"
    " gone AS (DELETE FROM project_qgislayer t USING d WHERE t.qgis_project_id = d.project_id"
    " AND NOT EXISTS (SELECT FROM wanted w WHERE w.qgis_layer_id = t.qgis_layer_id)),"
    " changed AS (UPDATE project_qgislayer t SET (" LAYER_COLUMNS("") ", updated_at) = ROW(" LAYER_COLUMNS("w.")
    ", now()) FROM wanted w WHERE t.qgis_project_id = w.qgis_project_id AND t.qgis_layer_id = w.qgis_layer_id"
    " AND ROW(" LAYER_COLUMNS("t.") ") IS DISTINCT FROM ROW(" LAYER_COLUMNS("w.") "))"
    " INSERT INTO project_qgislayer (id, qgis_project_id, qgis_layer_id, " LAYER_COLUMNS("") ", created_at, updated_at)"
    " SELECT gen_random_uuid(), w.qgis_project_id, w.qgis_layer_id, " LAYER_COLUMNS("w.") ", now(), now() FROM wanted w"
    " ORDER BY w.ordering ON CONFLICT (qgis_project_id, qgis_layer_id) DO NOTHING";

/* clang-format on */

int add_qgis_project(const struct qfc_job *job, bool has_area_of_interest, struct qfc_statements *writes,
                     struct qfc_error *error)
{
    int r = QFC_ADD(writes, error, check_sql, job->id);
    if (r == 0)
        r = qfc_statements_add(writes, areas_sql, 0, NULL, error);
    if (r == 0)
        r = QFC_ADD(writes, error, has_area_of_interest ? qgis_project_with_area_sql : qgis_project_sql, job->id);
    if (r == 0)
        r = QFC_ADD(writes, error, layers_sql, job->id);
    return r;
}

/* As a block of code, whose statements are not looked at before they are reached: `fail` need not know the release. */
static const char deletion_sql[] =
    "DO $do$ BEGIN IF {has_qgis_project} THEN"
    " DELETE FROM project_qgislayer WHERE qgis_project_id = current_setting('qfc_worker.project')::uuid;"
    " DELETE FROM project_qgisproject WHERE project_id = current_setting('qfc_worker.project')::uuid;"
    " END IF; END $do$";

int add_qgis_project_deletion(const struct qfc_job *job, struct qfc_statements *writes, struct qfc_error *error)
{
    if (QFC_ADD(writes, error, "SELECT set_config('qfc_worker.project', $1, true)", job->project_id) < 0)
        return -1;
    return qfc_statements_add(writes, deletion_sql, 0, NULL, error);
}
