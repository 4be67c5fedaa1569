/*
 * The triggers and indexes of `qfc-worker setup-db`, as data: see qfc/setup.h.
 *
 * The web application must not notice them. The function catches every error, and keeps silent while the queue of
 * notifications is half full: a full one fails the transaction at COMMIT, where nothing can be caught. Its names are
 * qualified, which protects it as well as SET search_path would and costs a quarter less for each row; it holds no query
 * but one expression, which PL/pgSQL evaluates without the executor. What it cannot prevent: a transaction that has
 * notified cannot be prepared for two-phase commit, which QFieldCloud does not use.
 *
 * Each change is a short transaction of its own that does not wait long for its lock, since others queue up behind one
 * who waits. A thing is told by its name, and whether it is as it should be by its comment, which ends in a checksum of
 * the text below; where nothing is to be done no lock is taken.
 */
#include "qfc/setup.h"

#include "queue_private.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* Others, readers too, wait behind us for so long at the most. */
#define LOCK_TIMEOUT "1s"

/* One thing that is put there; <schema>, <job> and <project> become names in this database, quoted. */
struct thing {
    const char *kind;  /* function, trigger or index */
    const char *name;  /* a changed index takes a new one; the others have their checksum */
    const char *table; /* job or project; "" for a function */
    const char *sql;
};

#define TRIGGER(name, table, when)                                                                                     \
    {                                                                                                                  \
        "trigger", name, table,                                                                                        \
            "CREATE TRIGGER " name "\n    " when "\n    EXECUTE FUNCTION <schema>.qfc_worker_notify()"                 \
    }

static const struct thing things[] = {
    {"function", "qfc_worker_notify", "",
     "CREATE OR REPLACE FUNCTION <schema>.qfc_worker_notify() RETURNS trigger LANGUAGE plpgsql AS $qfc$\n"
     "BEGIN\n"
     "    -- A full queue would fail the transaction at COMMIT, where nothing can be caught.\n"
     "    IF pg_catalog.pg_notification_queue_usage() OPERATOR(pg_catalog.<) 0.5\n"
     "        AND pg_catalog.pg_notify('" QFC_SETUP_CHANNEL "', pg_catalog.right(NEW.id::pg_catalog.text, 2)) IS NULL\n"
     "    THEN -- a condition costs less than PERFORM, which is a query\n"
     "    END IF;\n"
     "    RETURN NULL;\n"
     "EXCEPTION WHEN OTHERS THEN\n"
     "    RETURN NULL; -- workers poll, too\n"
     "END\n"
     "$qfc$"},
    TRIGGER(QFC_SETUP_JOB_NEW, "job", "AFTER INSERT ON <job> FOR EACH ROW WHEN (NEW.status = 'pending')"),
    TRIGGER(QFC_SETUP_JOB_BACK, "job",
            "AFTER UPDATE OF status ON <job> FOR EACH ROW WHEN (NEW.status = 'pending' AND OLD.status <> 'pending')"),
    TRIGGER(QFC_SETUP_PROJECT_FREE, "project",
            "AFTER UPDATE OF locked_at ON <project> FOR EACH ROW"
            " WHEN (OLD.locked_at IS NOT NULL AND NEW.locked_at IS NULL)"),
    {"index", "qfc_worker_pending", "job",
     "CREATE INDEX CONCURRENTLY IF NOT EXISTS qfc_worker_pending\n"
     "    ON <job> (project_id, created_at, id) WHERE status = 'pending'"},
    {"index", "qfc_worker_active", "job",
     "CREATE INDEX CONCURRENTLY IF NOT EXISTS qfc_worker_active\n"
     "    ON <job> (project_id) WHERE status IN ('queued', 'started')"},
};

#define THINGS (sizeof things / sizeof *things)

/*
 * Making an index concurrently waits for every transaction that is older, and nobody waits behind it: given up, it
 * would be left behind unfinished, so there it has no timeouts. The transactions have their own.
 */
const char qfc_setup_session[] = "SET lock_timeout = 0;\n"
                                 "SET statement_timeout = 0;\n"
                                 "SET client_min_messages = warning;";

#define BEGIN                                                                                                          \
    "E'BEGIN;\\nSET LOCAL lock_timeout = ''" LOCK_TIMEOUT "'';\\nSET LOCAL search_path = pg_catalog, pg_temp;\\n' || "
#define COMMIT " || E';\\nCOMMIT;'"

/* clang-format off */

/* $1 kinds, $2 names, $3 tables, $4 texts, all as in `things`. {project} here is the release's own name. */
static const char install_sql[] =
    "WITH place AS ("
    " SELECT j.oid AS job, format('%I.%I', jn.nspname, j.relname) AS job_name, j.relowner AS job_owner,"
    "  p.oid AS project, format('%I.%I', pn.nspname, p.relname) AS project_name, p.relowner AS project_owner,"
    "  jn.oid AS namespace, quote_ident(jn.nspname) AS schema"
    " FROM pg_class j JOIN pg_namespace jn ON jn.oid = j.relnamespace,"
    "  pg_class p JOIN pg_namespace pn ON pn.oid = p.relnamespace"
    " WHERE j.oid = to_regclass('core_job') AND p.oid = to_regclass('{project}')"
    "), thing AS ("
    " SELECT t.rank, t.kind, t.name, p.schema, to_regprocedure(p.schema || '.qfc_worker_notify()') AS function,"
    "  CASE t.relation WHEN 'job' THEN p.job WHEN 'project' THEN p.project END AS relation,"
    "  CASE t.relation WHEN 'job' THEN p.job_name WHEN 'project' THEN p.project_name END AS relation_name,"
    "  replace(replace(replace(t.sql, '<schema>', p.schema), '<job>', p.job_name), '<project>', p.project_name) AS sql,"
    "  'Made by qfc-worker setup-db, which takes it away with --undo. '"
    "   || left(encode(sha256(convert_to(t.sql, 'UTF8')), 'hex'), 16) AS mark"
    " FROM place p, unnest($1::text[], $2::text[], $3::text[], $4::text[])"
    "  WITH ORDINALITY AS t (kind, name, relation, sql, rank)"
    "), looked AS ("
    " SELECT t.*, coalesce(CASE t.kind"
    "  WHEN 'function' THEN (SELECT CASE WHEN obj_description(p.oid, 'pg_proc') = t.mark AND p.proconfig IS NULL"
    "    AND strpos(t.sql, p.prosrc) > 0 THEN 'there' ELSE 'other' END FROM pg_proc p WHERE p.oid = t.function)"
    "  WHEN 'trigger' THEN (SELECT CASE WHEN obj_description(g.oid, 'pg_trigger') = t.mark AND g.tgfoid = t.function"
    "    AND g.tgenabled IN ('O', 'A') THEN 'there' ELSE 'other' END"
    "   FROM pg_trigger g WHERE g.tgrelid = t.relation AND g.tgname = t.name AND NOT g.tgisinternal)"
    "  WHEN 'index' THEN (SELECT CASE WHEN i.indisvalid AND i.indisready AND i.indislive THEN 'there'"
    "    WHEN EXISTS (SELECT FROM pg_stat_progress_create_index b WHERE b.relid = i.indrelid"
    "     AND b.datname = current_database() AND b.pid <> pg_backend_pid()) THEN 'busy' ELSE 'unfinished' END"
    "   FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = t.relation AND c.relname = t.name)"
    "  END, 'absent') AS state"
    " FROM thing t"
    "), plan AS ("
    /* what an interrupted CREATE INDEX CONCURRENTLY has left */
    " SELECT rank, 0 AS part, format('unfinished index %I on %s', name, relation_name) AS what, NULL AS waits,"
    "  format('DROP INDEX CONCURRENTLY IF EXISTS %s.%I;', schema, name) AS sql"
    " FROM looked WHERE state = 'unfinished'"
    " UNION ALL SELECT rank, 1, CASE kind WHEN 'function' THEN format('function %s.%I()', schema, name)"
    "   ELSE format('%s %I on %s', kind, name, relation_name) END,"
    "  CASE state WHEN 'busy' THEN 'another session is making an index on ' || relation_name END,"
    "  CASE WHEN state IN ('there', 'busy') THEN NULL WHEN kind = 'index' THEN sql || ';'"
    "   WHEN kind = 'function' THEN "
    BEGIN "format(E'%s;\\nCOMMENT ON FUNCTION %s.%I() IS %L', sql, schema, name, mark)" COMMIT
    "   ELSE " BEGIN "format(E'DROP TRIGGER IF EXISTS %I ON %s;\\n%s;\\nCOMMENT ON TRIGGER %1$I ON %2$s IS %4$L',"
    "    name, relation_name, sql, mark)" COMMIT " END"
    " FROM looked"
    ") SELECT plan.what, plan.waits, plan.sql, CASE"
    " WHEN NOT EXISTS (SELECT FROM pg_language WHERE lanname = 'plpgsql' AND has_language_privilege(oid, 'USAGE'))"
    "  THEN format('role %I cannot use the language plpgsql in this database: it needs CREATE EXTENSION plpgsql, and"
    " USAGE on that language', current_user)"
    " WHEN NOT pg_has_role(job_owner, 'USAGE') THEN format('role %I is not the owner of %s: connect as %s',"
    "  current_user, job_name, job_owner::regrole)"
    " WHEN NOT pg_has_role(project_owner, 'USAGE') THEN format('role %I is not the owner of %s: connect as %s',"
    "  current_user, project_name, project_owner::regrole)"
    " WHEN NOT has_schema_privilege(namespace, 'CREATE') THEN"
    "  format('role %I may not create anything in schema %s: it needs GRANT CREATE ON SCHEMA %s TO %I',"
    "   current_user, schema, schema, current_user) END AS refusal"
    " FROM plan, place ORDER BY plan.rank, plan.part";

/*
 * What is there, by its names alone: also half of it, also on tables that a migration has renamed. The functions are
 * looked for where core_job is, or, where that has gone, where this role's names lead. REINDEX CONCURRENTLY can leave
 * copies of an index behind. Other triggers that call our function go with it.
 */
static const char undo_sql[] =
    "WITH place AS ("
    " SELECT oid, nspname FROM pg_namespace WHERE CASE WHEN to_regclass('core_job') IS NULL"
    "  THEN nspname = ANY (current_schemas(false))"
    "  ELSE oid = (SELECT relnamespace FROM pg_class WHERE oid = to_regclass('core_job')) END"
    "), function AS ("
    " SELECT p.oid, format('%I.%I', n.nspname, p.proname) AS name FROM pg_proc p JOIN place n ON n.oid = p.pronamespace"
    " WHERE p.proname LIKE 'qfc\\_worker\\_%' AND p.pronargs = 0 AND p.prorettype = 'trigger'::regtype"
    "), plan AS ("
    " SELECT 1 AS rank, format('trigger %I on %I.%I', g.tgname, n.nspname, c.relname) AS what,"
    "  " BEGIN "format('DROP TRIGGER IF EXISTS %I ON %I.%I', g.tgname, n.nspname, c.relname)" COMMIT " AS sql"
    " FROM function f JOIN pg_trigger g ON g.tgfoid = f.oid AND NOT g.tgisinternal"
    " JOIN pg_class c ON c.oid = g.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
    " UNION ALL SELECT 2, format('function %s()', name),"
    "  " BEGIN "format('DROP FUNCTION IF EXISTS %s()', name)" COMMIT " FROM function"
    " UNION ALL SELECT 3, format('index %I on %I.%I', c.relname, n.nspname, t.relname),"
    "  format('DROP INDEX CONCURRENTLY IF EXISTS %I.%I;', n.nspname, c.relname)"
    " FROM pg_class c JOIN place n ON n.oid = c.relnamespace JOIN pg_index i ON i.indexrelid = c.oid"
    " JOIN pg_class t ON t.oid = i.indrelid"
    " WHERE c.relkind = 'i' AND c.relname ~ '^qfc_worker_(pending|active)(_cc(new|old)[0-9]*)?$'"
    ") SELECT what, NULL AS waits, sql, NULL AS refusal FROM plan ORDER BY rank, what";

/* clang-format on */

int qfc_setup_probe(struct qfc_statements *list, struct qfc_error *error)
{
    return qfc_release_probe(list, error);
}

static bool takes_writes(const PGresult *probe)
{
    const char *standby = qfc_pg_text(probe, 0, "standby");
    const char *read_only = qfc_pg_text(probe, 0, "read_only");
    return standby && *standby == 'f' && read_only && *read_only == 'f';
}

/* One member of all things as an array for PostgreSQL; null when out of memory. */
static char *column(size_t offset, size_t count)
{
    const char *texts[THINGS];
    for (size_t i = 0; i < count; i++)
        memcpy(&texts[i], (const char *)&things[i] + offset, sizeof texts[i]);
    return qfc_array_text(texts, count);
}

static int plan_install(struct qfc_setup_wish wish, struct qfc_statements *list, struct qfc_error *error)
{
    size_t count = THINGS;
    while (!wish.index && strcmp(things[count - 1].kind, "index") == 0)
        count--;
    char *kinds = column(offsetof(struct thing, kind), count);
    char *names = column(offsetof(struct thing, name), count);
    char *tables = column(offsetof(struct thing, table), count);
    char *texts = column(offsetof(struct thing, sql), count);
    int r = -1;
    if (!kinds || !names || !tables || !texts)
        qfc_fail_memory(error);
    else
        r = QFC_ADD(list, error, install_sql, kinds, names, tables, texts);
    free(kinds);
    free(names);
    free(tables);
    free(texts);
    return r;
}

int qfc_setup_plan(const PGresult *probe, struct qfc_setup_wish wish, struct qfc_statements *list,
                   struct qfc_error *error)
{
    struct qfc_release release = {0};
    if (wish.undo && takes_writes(probe))
        return QFC_ADD(list, error, undo_sql);
    if (qfc_release_read(probe, &release, error) < 0)
        return -1;
    return plan_install(wish, list, error) < 0 ? -1 : qfc_statements_expand(list, release.names, error);
}
