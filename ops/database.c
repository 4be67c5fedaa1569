/*
 * PostgreSQL for commands: libpq as it comes, one statement after another. The daemon has qfc/pg.h.
 */
#include "ops_private.h"

#include "qfc/text.h"

#include <stdio.h>
#include <string.h>

#define CONNECT_TIMEOUT_S "10" /* for each address; the connection string may say otherwise */

/* libpq's and the server's messages can have several lines, and whatever was in a name. */
static void one_line(char *out, size_t size, const char *text)
{
    size_t length = 0;
    for (; *text && length + 1 < size; text++) {
        bool blank = (unsigned char)*text <= ' ' || *text == 0x7f;
        if (!blank)
            out[length++] = *text;
        else if (length > 0 && out[length - 1] != ' ')
            out[length++] = ' ';
    }
    while (length > 0 && out[length - 1] == ' ')
        length--;
    out[length] = '\0';
}

static int unreachable(PGconn *connection, const char *doing, struct qfc_error *error)
{
    char line[QFC_ERROR_MESSAGE_SIZE];
    one_line(line, sizeof line, PQerrorMessage(connection));
    return qfc_fail(error, QFC_ERROR_UNREACHABLE, 0, "%s: %s", doing, *line ? line : "no reason was given");
}

static void on_notice(void *userdata, const PGresult *result)
{
}

/*
 * What libpq says of a string or a value in it that it cannot understand quotes pieces of it, the password's among them
 * where that made it misread the rest. So it is not passed on.
 */
static int check_conninfo(const char *conninfo, struct qfc_error *error)
{
    char *message = NULL;
    PQconninfoOption *options = PQconninfoParse(conninfo, &message);
    PQfreemem(message);
    if (!options)
        return qfc_fail(error, QFC_ERROR_USAGE, 0, "not a connection string that libpq understands");
    PQconninfoFree(options);
    return 0;
}

static int connect_failed(PGconn *connection, struct qfc_error *error)
{
    if (strncmp(PQerrorMessage(connection), "invalid ", 8) == 0)
        return qfc_fail(error, QFC_ERROR_USAGE, 0,
                        "libpq takes one of its values for invalid, such as port or sslmode");
    return unreachable(connection, "connect to PostgreSQL", error);
}

static int connect_to(const char *conninfo, const char *command, PGconn **ret_connection, struct qfc_error *error)
{
    /* Of two of the same keyword the later one counts: dbname is taken apart where it stands. */
    const char *const keywords[] = {"connect_timeout", "fallback_application_name", "dbname", "client_encoding", NULL};
    const char *const values[] = {CONNECT_TIMEOUT_S, command, conninfo, "UTF8", NULL};
    PGconn *connection = PQconnectdbParams(keywords, values, 1);
    if (!connection)
        return qfc_fail_memory(error);
    if (PQstatus(connection) != CONNECTION_OK) {
        connect_failed(connection, error);
        PQfinish(connection);
        return -1;
    }
    PQsetNoticeReceiver(connection, on_notice, NULL);
    *ret_connection = connection;
    return 0;
}

int database_open(const struct qfc_settings *settings, const char *command, PGconn **ret_connection,
                  struct qfc_error *error)
{
    char *conninfo = qfc_settings_conninfo(settings);
    if (!conninfo)
        return qfc_fail_memory(error);
    int r = check_conninfo(conninfo, error);
    if (r == 0)
        r = connect_to(conninfo, command, ret_connection, error);
    if (r < 0 && error->kind == QFC_ERROR_USAGE)
        qfc_context(error, *settings->database_url ? "DATABASE_URL" : "POSTGRES_*");
    qfc_wipe(conninfo);
    return r;
}

/* lock_not_available, and class 40: serialization_failure, deadlock_detected. */
static enum qfc_error_kind kind_of(const char *sqlstate)
{
    return strcmp(sqlstate, "55P03") == 0 || strncmp(sqlstate, "40", 2) == 0 ? QFC_ERROR_AGAIN : QFC_ERROR_REFUSED;
}

/* Is the result a good one? */
static int check(PGconn *connection, const PGresult *result, struct qfc_error *error)
{
    ExecStatusType status = PQresultStatus(result);
    if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK)
        return 0;
    const char *sqlstate = result ? PQresultErrorField(result, PG_DIAG_SQLSTATE) : NULL;
    if (PQstatus(connection) == CONNECTION_BAD || !sqlstate)
        return unreachable(connection, "the connection to PostgreSQL was lost", error);
    char line[QFC_ERROR_MESSAGE_SIZE];
    const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    one_line(line, sizeof line, message ? message : "");
    qfc_fail(error, kind_of(sqlstate), 0, "%s (%s)", line, sqlstate);
    if (error)
        snprintf(error->sqlstate, sizeof error->sqlstate, "%s", sqlstate);
    return -1;
}

int database_ask(PGconn *connection, const struct qfc_statement *statement, PGresult **ret_result,
                 struct qfc_error *error)
{
    const char *values[QFC_STATEMENT_VALUES];
    for (size_t i = 0; i < statement->count; i++)
        values[i] = statement->values[i].text;
    PGresult *result = PQexecParams(connection, statement->sql, (int)statement->count, NULL, values, NULL, NULL, 0);
    if (check(connection, result, error) < 0) {
        PQclear(result);
        return -1;
    }
    *ret_result = result;
    return 0;
}

int database_run(PGconn *connection, const char *sql, struct qfc_error *error)
{
    PGresult *result = PQexec(connection, sql);
    int r = check(connection, result, error);
    PQclear(result);
    if (PQtransactionStatus(connection) != PQTRANS_IDLE)
        PQclear(PQexec(connection, "ROLLBACK"));
    return r;
}

int database_release(PGconn *connection, struct qfc_release *ret_release, struct qfc_error *error)
{
    struct qfc_statements list = {0};
    PGresult *probe;
    int r = qfc_release_probe(&list, error);
    if (r == 0)
        r = database_ask(connection, &list.items[0], &probe, error);
    qfc_statements_free(&list);
    if (r < 0)
        return -1;
    r = qfc_release_read(probe, ret_release, error);
    PQclear(probe);
    return r;
}

int database_begin(PGconn *connection, const char *begin, struct qfc_error *error)
{
    PGresult *result = PQexec(connection, begin);
    int r = check(connection, result, error);
    PQclear(result);
    if (r < 0)
        database_rollback(connection);
    return r;
}

int database_commit(PGconn *connection, struct qfc_error *error)
{
    PGresult *result = PQexec(connection, "COMMIT");
    int r = check(connection, result, error);
    if (r == 0 && strcmp(PQcmdStatus(result), "COMMIT") != 0)
        r = qfc_fail(error, QFC_ERROR_REFUSED, 0, "the transaction was rolled back");
    if (r < 0 && error && error->kind == QFC_ERROR_UNREACHABLE)
        error->kind = QFC_ERROR_UNKNOWN;
    PQclear(result);
    return r;
}

void database_rollback(PGconn *connection)
{
    PQclear(PQexec(connection, "ROLLBACK"));
}

int database_ask_all(PGconn *connection, const struct qfc_release *release, const char *begin,
                     struct qfc_statements *list, PGresult **ret_results, struct qfc_error *error)
{
    size_t count = list->count, asked = 0;
    PGresult *results[DATABASE_RESULTS];
    int r = count <= DATABASE_RESULTS ? 0 : qfc_fail(error, QFC_ERROR_BUG, 0, "too many statements");
    if (r == 0)
        r = qfc_statements_expand(list, release->names, error);
    if (r == 0)
        r = database_begin(connection, begin, error);
    for (; r == 0 && asked < count; asked += r == 0)
        r = database_ask(connection, &list->items[asked], &results[asked], error);
    qfc_statements_free(list);
    if (r == 0)
        r = database_commit(connection, error);
    else
        database_rollback(connection);
    for (size_t i = 0; r < 0 && i < asked; i++)
        PQclear(results[i]);
    if (r == 0)
        memcpy(ret_results, results, count * sizeof *results);
    return r;
}

int database_report(PGconn *connection, const struct qfc_release *release, struct qfc_report *ret_report,
                    struct qfc_error *error)
{
    struct qfc_statements list = {0};
    PGresult *results[DATABASE_RESULTS];
    int r = qfc_report_ask(&list, error);
    if (r == 0)
        r = database_ask_all(connection, release, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", &list, results,
                             error);
    qfc_statements_free(&list);
    if (r < 0)
        return qfc_context(error, "ask for the queue's state");
    r = qfc_report_read(results, QFC_REPORT_RESULTS, ret_report, error);
    for (size_t i = 0; i < QFC_REPORT_RESULTS; i++)
        PQclear(results[i]);
    return r;
}
