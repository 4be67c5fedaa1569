/*
 * What libpq and the server say, as errors: one line, of a kind that code can act on, and without secrets.
 */
#include "pg_private.h"

#include <stdlib.h>
#include <string.h>

#define DETAIL_MAXIMUM 200

static const char *field(const PGresult *result, int code)
{
    const char *text = PQresultErrorField(result, code);

    return text ? text : "";
}

void pg_one_line(char *out, size_t size, const char *text)
{
    static const char place[] = "LOCATION:  "; /* PQERRORS_VERBOSE adds it */
    size_t length = 0;

    while (*text && length + 2 < size) {
        if (strncmp(text, place, sizeof(place) - 1) == 0) {
            text += strcspn(text, "\n");
            continue;
        }
        size_t line = strcspn(text, "\n");
        for (size_t i = 0; i < line && length + 2 < size; i++) {
            bool blank = (unsigned char)text[i] <= ' ' || text[i] == 0x7f;
            if (!blank)
                out[length++] = text[i];
            else if (length > 0 && out[length - 1] != ' ')
                out[length++] = ' ';
        }
        text += line + (text[line] == '\n');
        if (length > 0 && out[length - 1] != ' ')
            out[length++] = ' ';
    }
    while (length > 0 && out[length - 1] == ' ')
        length--;
    out[length] = '\0';
}

/*
 * The SQLSTATE in an error message of PQERRORS_VERBOSE ("FATAL:  28P01: password ..."), the last one where several
 * hosts were tried: before there is a connection there is no PGresult that could be asked.
 */
static void find_sqlstate(const char *text, char sqlstate[6])
{
    for (const char *at = strstr(text, ":  "); at; at = strstr(at + 1, ":  ")) {
        const char *code = at + 3;
        if (strspn(code, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") == 5 && code[5] == ':') {
            memcpy(sqlstate, code, 5);
            sqlstate[5] = '\0';
        }
    }
}

static bool starts(const char *sqlstate, const char *with)
{
    return strncmp(sqlstate, with, strlen(with)) == 0;
}

static enum qfc_error_kind kind_of(const char *sqlstate)
{
    static const char *const again[] = {
        "40001", /* serialization_failure */
        "40P01", /* deadlock_detected */
        "55P03", /* lock_not_available */
        "57014", /* query_canceled: statement_timeout among its reasons */
        "57P03", /* cannot_connect_now: starting up or shutting down */
        "25006", /* read_only_sql_transaction: the server is not the primary any more, or not yet */
        "42P01", /* undefined_table: the schema is being migrated */
        "42703", /* undefined_column: likewise */
        "58",    /* system error: the server could not read or write */
        "XX",    /* internal error */
        "53",    /* insufficient resources: too many connections, out of memory, disk full */
    };

    if (!*sqlstate)
        return QFC_ERROR_UNREACHABLE;
    for (size_t i = 0; i < sizeof(again) / sizeof(again[0]); i++)
        if (starts(sqlstate, again[i]))
            return QFC_ERROR_AGAIN;
    return QFC_ERROR_REFUSED;
}

void pg_connect_error(const struct qfc_pg *pg, struct qfc_error *error)
{
    const char *text = PQerrorMessage(pg->conn);
    char line[QFC_ERROR_MESSAGE_SIZE];
    char sqlstate[6] = "";

    find_sqlstate(text, sqlstate);
    pg_one_line(line, sizeof(line), text);
    qfc_fail(error, kind_of(sqlstate), 0, "connect to %s: %s", pg->where, line);
    memcpy(error->sqlstate, sqlstate, sizeof(sqlstate));
}

void pg_lost_error(const struct qfc_pg *pg, const char *reason, struct qfc_error *error)
{
    char line[QFC_ERROR_MESSAGE_SIZE];

    pg_one_line(line, sizeof(line), reason);
    qfc_fail(error, QFC_ERROR_UNREACHABLE, 0, "connection to %s lost: %s", pg->where, line);
}

int pg_conninfo_error(const char *message, struct qfc_error *error)
{
    /* libpq quotes what it cannot parse: a piece of the password, or the whole URI. */
    const char *first = message ? strchr(message, '"') : NULL;
    const char *last = message ? strrchr(message, '"') : NULL;
    char line[QFC_ERROR_MESSAGE_SIZE];

    if (!message)
        return qfc_fail_memory(error);
    if (!first)
        pg_one_line(line, sizeof(line), message);
    else {
        char tail[QFC_ERROR_MESSAGE_SIZE / 2];
        pg_one_line(tail, sizeof(tail), last + 1);
        snprintf(line, sizeof(line), "%.*s\"...\"%s%s", (int)(first - message < 256 ? first - message : 256), message,
                 *tail ? " " : "", tail);
    }
    return qfc_fail(error, QFC_ERROR_USAGE, 0, "PostgreSQL connection string: %s", line);
}

bool pg_is_farewell(const PGresult *result)
{
    const char *severity = field(result, PG_DIAG_SEVERITY_NONLOCALIZED);
    const char *sqlstate = field(result, PG_DIAG_SQLSTATE);

    /* An immediate shutdown and a crash say good-bye with a warning (57P01, 57P02). */
    return strcmp(severity, "FATAL") == 0 || strcmp(severity, "PANIC") == 0 || starts(sqlstate, "57P01") ||
           starts(sqlstate, "57P02") || starts(sqlstate, "57P03");
}

static bool holds_secret(const char *text, const struct qfc_statements *list)
{
    for (size_t i = 0; i < list->count; i++)
        for (size_t j = 0; j < list->items[i].count; j++) {
            const struct qfc_value *value = &list->items[i].values[j];
            if (value->kind == QFC_VALUE_SECRET && value->text && *value->text && strstr(text, value->text))
                return true;
        }
    return false;
}

/* DETAIL and HINT where they are short and cannot hold values that nobody meant to show. */
static void add_details(const PGresult *result, struct qfc_error *error)
{
    static const int codes[] = {PG_DIAG_MESSAGE_DETAIL, PG_DIAG_MESSAGE_HINT};
    const char *sqlstate = field(result, PG_DIAG_SQLSTATE);

    /* not_null_violation and check_violation show the whole row. */
    if (starts(sqlstate, "23502") || starts(sqlstate, "23514"))
        return;
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        char line[DETAIL_MAXIMUM + 2];
        const char *text = field(result, codes[i]);
        size_t length = strlen(error->message);

        if (!*text || strlen(text) > DETAIL_MAXIMUM || length + strlen(text) + 3 > sizeof(error->message))
            continue;
        pg_one_line(line, sizeof(line), text);
        snprintf(error->message + length, sizeof(error->message) - length, "; %s", line);
    }
}

void pg_result_error(const PGresult *result, const struct qfc_pg_batch *batch, struct qfc_error *error)
{
    const char *sqlstate = field(result, PG_DIAG_SQLSTATE);
    const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    char line[QFC_ERROR_MESSAGE_SIZE];
    char what[64] = "commit";

    if (batch->at < batch->results.count)
        snprintf(what, sizeof(what), "statement %zu of %zu", batch->at + 1, batch->results.count);
    pg_one_line(line, sizeof(line), message ? message : PQresultErrorMessage(result));
    if (batch->secret && holds_secret(line, batch->list))
        snprintf(line, sizeof(line), "(message left out, it shows a secret value)");
    /* An error without SQLSTATE is libpq's own (no memory for a result): what the server did is not known. */
    qfc_fail(error, *sqlstate ? kind_of(sqlstate) : QFC_ERROR_UNKNOWN, 0, "%s: %s%s%s%s", what, line,
             *sqlstate ? " (" : "", sqlstate, *sqlstate ? ")" : "");
    snprintf(error->sqlstate, sizeof(error->sqlstate), "%.5s", sqlstate);
    if (!batch->secret)
        add_details(result, error);
}
