/*
 * check: QFieldCloud's tables. Which release has made them, may this role do what a worker does, and is there what
 * setup-db makes?
 */
#include "check.h"

#include "qfc/pg.h"
#include "qfc/setup.h"

#include <stdlib.h>
#include <string.h>

/* Jobs from which on the indexes of setup-db are worth their while. */
#define MANY_JOBS 1000000

void check_release(struct look *look)
{
    struct qfc_error error = QFC_NO_ERROR;
    if (database_release(look->database, &look->release, &error) == 0) {
        check_found(look, CHECK_OK, "QFieldCloud %s", look->release.called);
        return;
    }
    check_found(look, CHECK_FAILED, "%s", error.message);
    check_advise(look,
                 "correct POSTGRES_DB, or let the web application make its tables: docker compose exec app python "
                 "manage.py migrate");
}

/* clang-format off */

/*
 * All that the worker's statements do. Tables that this release has not got need nothing; what is missing comes as
 * statements for the tables' owner.
 */
static const char privileges_sql[] =
    "WITH needed (name, privileges) AS (VALUES"
    " ('core_job', 'SELECT,UPDATE'), ('{project}', 'SELECT,UPDATE'), ('core_applyjob', 'SELECT'),"
    " ('core_applyjobdelta', 'SELECT,UPDATE'), ('core_delta', 'SELECT,UPDATE'), ('core_user', 'SELECT'),"
    " ('core_projectcollaborator', 'SELECT'), ('core_secret', 'SELECT'), ('constance_constance', 'SELECT'),"
    " ('organizations_with_roles_vw', 'SELECT'), ('authentication_authtoken', 'SELECT,INSERT,DELETE'),"
    " ('filestorage_file', 'SELECT,UPDATE,DELETE'), ('filestorage_fileversion', 'SELECT,DELETE'),"
    " ('auditlog_logentry', 'INSERT'), ('django_content_type', 'SELECT,INSERT'),"
    " ('project_qgisproject', 'SELECT,INSERT,UPDATE,DELETE'), ('project_qgislayer', 'SELECT,INSERT,UPDATE,DELETE')"
    "), missing AS ("
    " SELECT to_regclass(name)::text AS name, string_agg(privilege, ', ' ORDER BY privilege) AS privileges"
    " FROM needed, unnest(string_to_array(privileges, ',')) AS privilege"
    " WHERE to_regclass(name) IS NOT NULL AND NOT has_table_privilege(to_regclass(name), privilege) GROUP BY 1"
    " UNION ALL SELECT 'SEQUENCE ' || to_regclass(name)::text, 'USAGE' FROM (VALUES ('organizations_with_roles_vw_seq'))"
    "  AS sequence (name) WHERE to_regclass(name) IS NOT NULL"
    "  AND NOT has_sequence_privilege(to_regclass(name), 'USAGE')"
    ") SELECT current_user AS role, count(*) AS count,"
    " string_agg(privileges || ' on ' || name, '; ' ORDER BY name) AS what,"
    " string_agg(format('GRANT %s ON %s TO %I', privileges, name, current_user), '; ' ORDER BY name) AS grants"
    " FROM missing";

/* clang-format on */

void check_privileges(struct look *look)
{
    struct qfc_error error = QFC_NO_ERROR;
    PGresult *missing;
    if (check_ask(look, privileges_sql, &missing, &error) < 0) {
        check_found_error(look, "ask for this role's privileges", &error);
        return;
    }
    if (strcmp(qfc_pg_text(missing, 0, "count"), "0") == 0) {
        check_found(look, CHECK_OK, "%s may do all that a worker does", qfc_pg_text(missing, 0, "role"));
    } else {
        check_found(look, CHECK_FAILED, "%s lacks %s", qfc_pg_text(missing, 0, "role"),
                    qfc_pg_text(missing, 0, "what"));
        check_advise(look, "as the tables' owner: %s", qfc_pg_text(missing, 0, "grants"));
    }
    PQclear(missing);
}

/* What setup-db would do, or null: it was said why that cannot be found out. */
static PGresult *plan(struct look *look)
{
    struct qfc_error error = QFC_NO_ERROR;
    PGresult *found = NULL;
    if (setup_db_plan(look->database, true, &found, &error) < 0)
        check_found_error(look, "look for what setup-db makes", &error);
    return found;
}

static bool is_index(const PGresult *found, int row)
{
    return strstr(qfc_pg_text(found, row, "what"), "index ") != NULL;
}

/* How many indexes, or other things, are not as they should be; `ret_refusal` gets why this role cannot make them. */
static int count_missing(const PGresult *found, bool indexes, const char **ret_refusal)
{
    int count = 0;
    *ret_refusal = NULL;
    for (int row = 0; row < PQntuples(found); row++) {
        if (is_index(found, row) != indexes || !qfc_pg_text(found, row, "sql"))
            continue;
        count++;
        *ret_refusal = qfc_pg_text(found, row, "refusal");
    }
    return count;
}

void check_triggers(struct look *look)
{
    const char *refusal;
    PGresult *found = plan(look);
    if (!found)
        return;
    if (count_missing(found, false, &refusal) == 0) {
        check_found(look, CHECK_OK, "workers hear of new jobs at once");
    } else {
        check_found(look, CHECK_WARNING,
                    "no trigger tells workers of new jobs, or it is of another version: they look "
                    "for them every %ld ms",
                    look->settings.poll_ms);
        check_advise(look, "qfc-worker setup-db%s%s", refusal ? "; " : "", refusal ? refusal : "");
    }
    PQclear(found);
}

static const char job_count_sql[] =
    "SELECT greatest(reltuples, 0)::bigint AS jobs FROM pg_class WHERE oid = to_regclass('core_job')";

void check_indexes(struct look *look)
{
    struct qfc_error error = QFC_NO_ERROR;
    const char *refusal;
    PGresult *found = plan(look), *jobs;
    if (!found)
        return;
    int missing = count_missing(found, true, &refusal);
    PQclear(found);
    if (missing == 0) {
        check_found(look, CHECK_OK, "claims find pending and active jobs by an index of their own");
        return;
    }
    if (check_ask(look, job_count_sql, &jobs, &error) < 0) {
        check_found_error(look, "ask how many jobs there are", &error);
        return;
    }
    const char *count = qfc_pg_text(jobs, 0, "jobs");
    bool many = atoll(count) >= MANY_JOBS;
    check_found(look, many ? CHECK_WARNING : CHECK_OK, "no index of its own for claims: core_job has some %s rows%s",
                count, many ? ", among which they search" : ", for which it is not needed");
    if (many)
        check_advise(look, "qfc-worker setup-db --index");
    PQclear(jobs);
}

static void said(void *userdata, const char *what, const char *outcome)
{
    check_mended(userdata, "%s %s", outcome, what);
}

void mend_triggers(struct look *look)
{
    struct qfc_error error = QFC_NO_ERROR;
    if (look->dry_run)
        check_mended(look, "install the triggers, as qfc-worker setup-db does");
    else if (setup_db_install(look->database, said, look, &error) < 0)
        check_mended(look, "the triggers could not be installed: %s", error.message);
}
