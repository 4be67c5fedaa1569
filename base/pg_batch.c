/*
 * Batches: from the queue through the pipeline to their `done`.
 *
 * A batch is its statements and one sync point. An error makes the server skip what follows up to there, so each
 * command is answered, be it by "skipped", and answers are told apart by counting alone: a statement has one, and one
 * more before it where it is parsed under a name (pg_prepared.c).
 */
#include "pg_private.h"

#include <stdio.h>
#include <stdlib.h>

/* How many batches are under way at once: each of them has an unknown end when the connection breaks. */
#define IN_FLIGHT_MAXIMUM 16

static bool has_secret(const struct qfc_statements *list)
{
    for (size_t i = 0; i < list->count; i++)
        for (size_t j = 0; j < list->items[i].count; j++)
            if (list->items[i].values[j].kind == QFC_VALUE_SECRET)
                return true;
    return false;
}

struct qfc_pg_batch *pg_batch_new(struct qfc_pg *pg, const struct qfc_statements *list, qfc_pg_done *done,
                                  void *userdata)
{
    struct qfc_pg_batch *batch = calloc(1, sizeof(*batch));
    PGresult **items = calloc(list->count, sizeof(PGresult *));
    struct pg_way *ways = calloc(list->count, sizeof(*ways));

    if (!batch || !items || !ways) {
        free(batch);
        free(items);
        free(ways);
        return NULL;
    }
    batch->pg = pg;
    batch->list = list;
    batch->secret = has_secret(list);
    batch->done = done;
    batch->userdata = userdata;
    batch->results = (struct qfc_pg_results){items, list->count};
    batch->ways = ways;
    return batch;
}

void pg_batch_free(struct qfc_pg_batch *batch)
{
    for (size_t i = 0; i < batch->results.count; i++)
        PQclear(batch->results.items[i]);
    free(batch->results.items);
    free(batch->ways);
    qfc_statements_free(&batch->own);
    free(batch);
}

void pg_batches_free(struct pg_batches *batches)
{
    struct qfc_pg_batch *batch;

    while ((batch = TAILQ_FIRST(batches))) {
        TAILQ_REMOVE(batches, batch, link);
        pg_batch_free(batch);
    }
}

/* --- Sending ------------------------------------------------------------------------------------------------------ */

static bool send_statement(struct qfc_pg *pg, struct pg_way way, const struct qfc_statement *statement)
{
    const char *values[QFC_STATEMENT_VALUES] = {NULL};
    int sizes[QFC_STATEMENT_VALUES] = {0}, formats[QFC_STATEMENT_VALUES] = {0};
    int count = (int)statement->count;
    char name[PG_NAME_SIZE];

    for (size_t i = 0; i < statement->count; i++) {
        values[i] = statement->values[i].text;
        formats[i] = statement->values[i].kind == QFC_VALUE_PART; /* binary, which for text is the text with a length */
        sizes[i] = (int)statement->values[i].size;
    }
    if (!way.text)
        return PQsendQueryParams(pg->conn, statement->sql, count, NULL, values, sizes, formats, 0) == 1;
    pg_prepared_name(pg, way, name);
    if (way.parse && PQsendPrepare(pg->conn, name, statement->sql, 0, NULL) != 1)
        return false;
    return PQsendQueryPrepared(pg->conn, name, count, values, sizes, formats, 0) == 1;
}

static bool has_part(const struct qfc_statement *statement)
{
    for (size_t i = 0; i < statement->count; i++)
        if (statement->values[i].kind == QFC_VALUE_PART)
            return true;
    return false;
}

/* Parts have left libpq's buffer, one after another, before more is put into it. */
static bool send_statements(struct qfc_pg *pg, struct qfc_pg_batch *batch)
{
    bool part = false;

    while (batch->handed < batch->list->count && !part) {
        const struct qfc_statement *statement = &batch->list->items[batch->handed];
        batch->ways[batch->handed] = pg_prepared_way(pg, batch, statement->sql);
        if (!send_statement(pg, batch->ways[batch->handed], statement))
            return false;
        batch->handed++;
        part = has_part(statement);
    }
    return true;
}

static void send_more(struct qfc_pg *pg, struct qfc_pg_batch *batch)
{
    bool good = send_statements(pg, batch), whole = good && batch->handed == batch->list->count;

    if (!good || (whole && PQpipelineSync(pg->conn) != 1)) {
        struct qfc_error error;
        pg_lost_error(pg, PQerrorMessage(pg->conn), &error);
        /* Half a pipeline cannot be taken back, but the connection can: without the last sync point nothing commits. */
        if (!good && PQstatus(pg->conn) == CONNECTION_OK)
            qfc_fail(&batch->error, QFC_ERROR_MEMORY, 0, "%s", error.message);
        pg_break(pg, &error);
    }
    pg->sending = good && !whole ? batch : NULL;
    /* libpq has its own copy now; secrets stay until it is known that no error shows them. */
    if (!pg->sending && !batch->secret)
        qfc_statements_free(&batch->own);
}

void pg_batch_send(struct qfc_pg *pg, struct qfc_pg_batch *batch)
{
    batch->sent = true;
    batch->generation = pg->texts.generation;
    TAILQ_INSERT_TAIL(&pg->in_flight, batch, link);
    pg->in_flight_count++;
    send_more(pg, batch);
}

bool pg_batch_send_next(struct qfc_pg *pg)
{
    struct qfc_pg_batch *batch = TAILQ_FIRST(&pg->waiting);

    if (pg->sending) {
        send_more(pg, pg->sending);
        return true;
    }
    if (!batch || pg->in_flight_count >= IN_FLIGHT_MAXIMUM)
        return false;
    TAILQ_REMOVE(&pg->waiting, batch, link);
    pg_batch_send(pg, batch);
    return true;
}

/* --- The end of a batch ------------------------------------------------------------------------------------------- */

/* A batch without an error that has not come to its good end all the same. */
static void check_complete(struct qfc_pg_batch *batch)
{
    if (batch->error.kind != QFC_ERROR_NONE)
        return;
    for (size_t i = 0; i < batch->results.count; i++)
        if (!batch->results.items[i])
            qfc_fail(&batch->error, QFC_ERROR_UNKNOWN, 0, "statement %zu of %zu was not answered", i + 1,
                     batch->results.count);
}

/* Not in any list any more. */
static void finish(struct qfc_pg_batch *batch)
{
    bool failed = batch->error.kind != QFC_ERROR_NONE;

    if (batch->done && !batch->pg->freed)
        batch->done(batch->userdata, failed ? &batch->error : NULL, failed ? NULL : &batch->results);
    pg_batch_free(batch);
}

void pg_batch_end_lost(struct qfc_pg *pg, const struct qfc_error *why)
{
    struct qfc_pg_batch *batch;

    while (!pg->freed && (batch = TAILQ_FIRST(&pg->ended))) {
        TAILQ_REMOVE(&pg->ended, batch, link);
        /* After an error of the server there is no doubt: what has failed is rolled back. */
        if (batch->error.kind == QFC_ERROR_NONE) {
            batch->error = *why;
            batch->error.kind = QFC_ERROR_UNKNOWN;
        }
        finish(batch);
    }
}

/* --- Results ------------------------------------------------------------------------------------------------------ */

static void take_error(struct qfc_pg *pg, struct qfc_pg_batch *batch, const PGresult *result)
{
    const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);

    if (pg_is_farewell(result) || PQstatus(pg->conn) == CONNECTION_BAD) {
        struct qfc_error error;
        pg_unwatch(pg);
        pg_lost_error(pg, message ? message : PQresultErrorMessage(result), &error);
        snprintf(error.sqlstate, sizeof(error.sqlstate), "%.5s", sqlstate ? sqlstate : "");
        pg_break(pg, &error);
    } else if (batch->error.kind == QFC_ERROR_NONE) {
        pg_result_error(result, batch, &batch->error);
        pg_prepared_failed(pg, batch, result);
    }
}

static bool parse_is_due(const struct qfc_pg_batch *batch)
{
    return batch->at < batch->results.count && batch->ways[batch->at].parse && !batch->parsed;
}

/* On to the next answer. */
static void count_answer(struct qfc_pg *pg, struct qfc_pg_batch *batch, bool done)
{
    bool parse = parse_is_due(batch);

    if (parse)
        pg_prepared_answered(pg, batch, done);
    batch->parsed = parse;
    batch->at += !parse;
}

static void take_answer(struct qfc_pg *pg, struct qfc_pg_batch *batch, PGresult *result)
{
    if (!parse_is_due(batch) && batch->at < batch->results.count)
        batch->results.items[batch->at] = result;
    else
        PQclear(result);
    count_answer(pg, batch, true);
}

static void take_sync(struct qfc_pg *pg, struct qfc_pg_batch *batch)
{
    TAILQ_REMOVE(&pg->in_flight, batch, link);
    pg->in_flight_count--;
    check_complete(batch);
    finish(batch);
}

/* What cannot be a part of a pipeline; the connection is of no use after it. */
static void take_stranger(struct qfc_pg *pg, const char *what)
{
    struct qfc_error error;

    qfc_fail(&error, QFC_ERROR_BUG, 0, "connection to %s given up: %s in a batch", pg->where, what);
    pg_break(pg, &error);
}

/* Takes the result over. Returns false where libpq has nothing sensible to say after it. */
static bool take_result(struct qfc_pg *pg, struct qfc_pg_batch *batch, PGresult *result)
{
    ExecStatusType status = PQresultStatus(result);
    bool go_on = true;

    switch (status) {
    case PGRES_TUPLES_OK:
    case PGRES_COMMAND_OK:
    case PGRES_EMPTY_QUERY: /* nothing was asked, and that was done */
        take_answer(pg, batch, result);
        return true;
    case PGRES_PIPELINE_SYNC:
        take_sync(pg, batch);
        break;
    case PGRES_PIPELINE_ABORTED:
        count_answer(pg, batch, false);
        break;
    case PGRES_FATAL_ERROR:
    case PGRES_NONFATAL_ERROR:
    case PGRES_BAD_RESPONSE:
        take_error(pg, batch, result);
        count_answer(pg, batch, false);
        break;
    default:
        take_stranger(pg, PQresStatus(status));
        go_on = false;
    }
    PQclear(result);
    return go_on;
}

void pg_batch_take_results(struct qfc_pg *pg)
{
    struct qfc_pg_batch *batch;
    unsigned nothings = 0;
    bool go_on = true;

    /* One null ends the results of each command; several in a row only come from a connection that is lost. */
    while (go_on && !pg->freed && nothings < 3 && (batch = TAILQ_FIRST(&pg->in_flight)) && !PQisBusy(pg->conn)) {
        PGresult *result = PQgetResult(pg->conn);
        if (PQstatus(pg->conn) == CONNECTION_BAD)
            pg_unwatch(pg); /* libpq has closed the socket */
        nothings = result ? 0 : nothings + 1;
        if (result)
            go_on = take_result(pg, batch, result);
    }
    if (nothings >= 3) {
        struct qfc_error error;
        pg_lost_error(pg, "no result where one was due", &error);
        pg_break(pg, &error);
    }
}
