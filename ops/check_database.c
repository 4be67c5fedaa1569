/*
 * check: the database. Can it be reached and written to, is it QFieldCloud's, may this role do what a worker does?
 */
#include "check.h"

#include "qfc/pg.h"
#include "qfc/text.h"

#include <stdlib.h>
#include <string.h>

/* What libpq or the server says of a connection that was not made, and what to do then; the first that fits. libpq's own
 * words are English here, the server's where its lc_messages are. */
static const struct {
    const char *said, *next;
} connect_hints[] = {
    {"could not translate host name", "correct POSTGRES_HOST (or DATABASE_URL); in compose, put this service on the "
                                      "database's network"},
    {"No such file or directory",
     "POSTGRES_HOST names a socket's directory, in which there is none: is the server up?"},
    {"Connection refused", "nobody listens there: start the server, or correct POSTGRES_HOST and POSTGRES_PORT"},
    {"timeout expired", "the host does not answer: look for a firewall or a wrong address in between"},
    {"No route to host", "the host does not answer: look for a firewall or a wrong address in between"},
    {"password authentication failed", "correct POSTGRES_USER and POSTGRES_PASSWORD (or DATABASE_URL): another role "
                                       "or another password is right"},
    {"no password supplied", "set POSTGRES_PASSWORD"},
    {"no pg_hba.conf entry",
     "the server's pg_hba.conf lets nobody in from here as this role with this kind of TLS: add "
     "a line there, or correct POSTGRES_SSLMODE"},
    {"does not support SSL", "turn on ssl in the server's configuration, or set POSTGRES_SSLMODE=prefer"},
    {"root certificate file", "put the certificate of the server's authority there, or name it with sslrootcert= in "
                              "DATABASE_URL"},
    {"certificate", "the server's certificate is not the one that is trusted: compare sslrootcert and the host's name "
                    "with it"},
    {"too many c", "all of the server's connections are taken: look at pg_stat_activity, raise max_connections"},
    {"connection slots", "all of the server's connections are taken: look at pg_stat_activity, raise max_connections"},
    {"starting up", "wait until the server has come up, and run this again"},
    {"shutting down", "start the server again"},
    {"does not exist", "correct POSTGRES_DB and POSTGRES_USER"},
    {"no such database", "correct POSTGRES_DB"},
    {"no such user", "correct POSTGRES_USER"},
    {"is not permitted to log in", "ALTER ROLE ... LOGIN, or correct POSTGRES_USER"},
};

static const char *hint_for(const char *message)
{
    for (size_t i = 0; i < sizeof connect_hints / sizeof *connect_hints; i++)
        if (strstr(message, connect_hints[i].said))
            return connect_hints[i].next;
    return "correct POSTGRES_* or DATABASE_URL";
}

int check_ask(struct look *look, const char *sql, PGresult **ret_result, struct qfc_error *error)
{
    struct qfc_statements list = {0};
    int r = qfc_statements_add(&list, sql, 0, NULL, error);
    if (r == 0 && *look->release.called)
        r = qfc_statements_expand(&list, look->release.names, error);
    if (r == 0)
        r = database_ask(look->database, &list.items[0], ret_result, error);
    qfc_statements_free(&list);
    return r;
}

void check_found_error(struct look *look, const char *doing, const struct qfc_error *error)
{
    check_found(look, CHECK_FAILED, "%s: %s", doing, error->message);
    if (error->kind == QFC_ERROR_AGAIN)
        check_advise(look, "somebody was in the way: run this again");
    else if (strcmp(error->sqlstate, "42501") == 0)
        check_advise(look, "give this role what it needs: `qfc-worker check --only privileges`");
}

/* The process of the server that answers, or 0. */
static long session_of(PGconn *connection)
{
    PGresult *result = PQexec(connection, "SELECT pg_backend_pid()");
    long pid = PQresultStatus(result) == PGRES_TUPLES_OK ? strtol(PQgetvalue(result, 0, 0), NULL, 10) : 0;
    PQclear(result);
    return pid;
}

/*
 * Has each connection a session of its own? A pooler that gives sessions out by the transaction gives the second
 * connection the one that the first has just left; one that is busy gives the first now this one, now that. (Nothing is
 * held meanwhile: in a pool of one session the other would wait for ever.)
 */
static bool shares_sessions(PGconn *one, PGconn *other)
{
    long first = session_of(one);
    for (unsigned i = 0; i < 3; i++) {
        long second = session_of(other), again = session_of(one);
        if (second == first || again != first)
            return first != 0 && second != 0 && again != 0;
    }
    return false;
}

static void find_pooler(struct look *look)
{
    struct qfc_error error = QFC_NO_ERROR;
    PGconn *other;
    if (database_open(&look->settings, "qfc-worker check", &other, &error) < 0) {
        check_found(look, CHECK_FAILED, "a second connection: %s", error.message);
        check_advise(look, "a worker needs two, and two more while jobs are large");
        return;
    }
    if (shares_sessions(look->database, other)) {
        check_found(look, CHECK_FAILED,
                    "a pooler gives each transaction another session (PgBouncer with pool_mode=transaction or "
                    "statement)");
        check_advise(look, "connect to PostgreSQL itself, or through a pool with pool_mode=session");
    }
    PQfinish(other);
}

/* Nothing may keep somebody waiting who was woken for this. */
static const char session_sql[] = "SET statement_timeout = '20s'; SET lock_timeout = '2s'; SET timezone = 'UTC';"
                                  " SET client_min_messages = error";

static const char state_sql[] =
    "SELECT pg_is_in_recovery() AS standby, current_setting('transaction_read_only') = 'on' AS read_only,"
    " current_setting('server_version_num')::integer < 130000 AS too_old, current_setting('server_version') AS version,"
    " current_user AS role, current_database() AS database, used, most, used >= 0.9 * most AS nearly_all"
    " FROM (SELECT count(*) AS used, current_setting('max_connections')::integer"
    "  - current_setting('superuser_reserved_connections')::integer AS most"
    "  FROM pg_stat_activity WHERE backend_type = 'client backend') AS connections";

static void judge_state(struct look *look, const PGresult *state)
{
    if (qfc_pg_true(state, "standby")) {
        check_found(look, CHECK_FAILED, "the server at %s is a standby, which takes no writes", PQhost(look->database));
        check_advise(look, "connect to the primary: correct POSTGRES_HOST, or target_session_attrs=read-write in "
                           "DATABASE_URL");
    } else if (qfc_pg_true(state, "read_only")) {
        check_found(look, CHECK_FAILED, "the database takes no writes: default_transaction_read_only is on");
        check_advise(look,
                     "find out who has set it and why, then: ALTER DATABASE %s RESET "
                     "default_transaction_read_only",
                     qfc_pg_text(state, 0, "database"));
    } else if (qfc_pg_true(state, "too_old")) {
        check_found(look, CHECK_FAILED, "PostgreSQL %s is too old: 13 or later is needed",
                    qfc_pg_text(state, 0, "version"));
        check_advise(look, "upgrade the server");
    } else {
        check_found(look, CHECK_OK, "PostgreSQL %s at %s:%s, database %s as %s%s, %s of %s connections in use",
                    qfc_pg_text(state, 0, "version"), PQhost(look->database), PQport(look->database),
                    qfc_pg_text(state, 0, "database"), qfc_pg_text(state, 0, "role"),
                    PQsslInUse(look->database) ? " over TLS" : "", qfc_pg_text(state, 0, "used"),
                    qfc_pg_text(state, 0, "most"));
    }
    if (qfc_pg_true(state, "nearly_all")) {
        check_found(look, CHECK_WARNING, "%s of the server's %s connections are in use", qfc_pg_text(state, 0, "used"),
                    qfc_pg_text(state, 0, "most"));
        check_advise(look, "look at pg_stat_activity for who holds them, or raise max_connections");
    }
}

void check_database(struct look *look)
{
    struct qfc_error error = QFC_NO_ERROR;
    PGresult *state = NULL;
    PQfinish(look->database);
    look->database = NULL;
    if (database_open(&look->settings, "qfc-worker check", &look->database, &error) < 0) {
        check_found(look, CHECK_FAILED, "%s", error.message);
        check_advise(look, "%s", hint_for(error.message));
        return;
    }
    if (database_run(look->database, session_sql, &error) < 0 || check_ask(look, state_sql, &state, &error) < 0) {
        check_found_error(look, "ask the server how it is", &error);
        return;
    }
    judge_state(look, state);
    PQclear(state);
    find_pooler(look);
}
