/*
 * Prepared statements: what the server knows by a name, so that it neither parses nor plans it anew.
 *
 * A text that comes for the second time on a connection is parsed under a name, from the third time on the name alone
 * is sent. The Parse with a name stands in the very place of the Parse without one that each statement has otherwise:
 * it sees the same tables, waits for the same locks and fails with the same words, so a batch cannot tell the
 * difference. When it is skipped or fails there is no such name, and the next use begins again; a batch behind it in
 * the pipeline does not count on it before it is answered. A Parse that was answered stays, even if its batch is
 * rolled back (PostgreSQL's manual, PREPARE: the name lasts for the session).
 *
 * A name can go stale: with the tables (a column of another type), or because the session is not ours alone (a pooler,
 * DEALLOCATE). After an error that may come from that, all names are dropped, and the next try is sent as it is.
 */
#include "pg_private.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static void drop_texts(struct pg_texts *texts)
{
    for (size_t i = 0; i < texts->count; i++)
        free(texts->items[i].sql);
    texts->count = texts->bytes = 0;
    texts->generation++; /* what is still in flight speaks of these no more */
}

void pg_prepared_end(struct qfc_pg *pg)
{
    drop_texts(&pg->texts);
}

/*
 * Names hold a random number: behind a pooler that gives its sessions to all, another client's names must not be taken
 * for ours.
 */
void pg_prepared_begin(struct qfc_pg *pg)
{
    drop_texts(&pg->texts);
    pg->texts.number = 0;
    pg->texts.off = uv_random(NULL, NULL, &pg->texts.session, sizeof(pg->texts.session), 0, NULL) != 0;
}

/* --- Sending ------------------------------------------------------------------------------------------------------ */

static struct pg_text *find(struct pg_texts *texts, const char *sql, size_t size)
{
    for (size_t i = 0; i < texts->count; i++)
        if (texts->items[i].size == size && memcmp(texts->items[i].sql, sql, size) == 0)
            return &texts->items[i];
    return NULL;
}

/* What finds no room is sent as it is, each time. */
static void note(struct pg_texts *texts, const char *sql, size_t size)
{
    if (texts->count == PG_TEXTS_MAXIMUM || size > PG_TEXTS_BYTES - texts->bytes)
        return;
    char *copy = strdup(sql);
    if (!copy)
        return;
    texts->items[texts->count++] = (struct pg_text){.sql = copy, .size = size};
    texts->bytes += size;
}

struct pg_way pg_prepared_way(struct qfc_pg *pg, const struct qfc_pg_batch *batch, const char *sql)
{
    struct pg_texts *texts = &pg->texts;
    size_t size = strlen(sql);

    /* A batch that is sent in parts may have seen the names go. */
    if (texts->off || batch->list != &batch->own || batch->generation != texts->generation)
        return (struct pg_way){0};
    struct pg_text *text = find(texts, sql, size);
    if (!text)
        note(texts, sql, size);
    /* Another batch's Parse may still be skipped; our own cannot without all that follows being skipped with it. */
    if (!text || (text->state == PG_TEXT_PARSING && text->parser != batch))
        return (struct pg_way){0};
    struct pg_way way = {.text = (unsigned short)(text - texts->items + 1), .parse = text->state == PG_TEXT_NOTED};
    if (way.parse) {
        text->state = PG_TEXT_PARSING;
        text->parser = batch;
        text->number = ++texts->number;
    }
    return way;
}

void pg_prepared_name(const struct qfc_pg *pg, struct pg_way way, char out[PG_NAME_SIZE])
{
    snprintf(out, PG_NAME_SIZE, "qfc_%016" PRIx64 "_%u", pg->texts.session, pg->texts.items[way.text - 1].number);
}

/* --- Answers ------------------------------------------------------------------------------------------------------ */

void pg_prepared_answered(struct qfc_pg *pg, const struct qfc_pg_batch *batch, bool done)
{
    if (batch->generation != pg->texts.generation)
        return;
    struct pg_text *text = &pg->texts.items[batch->ways[batch->at].text - 1];
    text->state = done ? PG_TEXT_PREPARED : PG_TEXT_NOTED;
    text->parser = NULL;
}

/* The next thing that the server is told: nothing that is sent after this may count on a name. */
static void deallocate(struct qfc_pg *pg)
{
    static char sql[] = "DEALLOCATE ALL";
    static struct qfc_statement statement = {.sql = sql};
    static const struct qfc_statements all = {&statement, 1, 1};
    struct qfc_pg_batch *batch = pg_batch_new(pg, &all, NULL, NULL);
    struct qfc_error error;

    if (batch) {
        TAILQ_INSERT_HEAD(&pg->waiting, batch, link);
        return;
    }
    qfc_fail_memory(&error);
    qfc_context(&error, "connection to %s given up", pg->where);
    pg_break(pg, &error);
}

static bool is_of(const char *sqlstate, const char *const *list)
{
    for (; *list; list++)
        if (strncmp(sqlstate, *list, strlen(*list)) == 0)
            return true;
    return false;
}

/* Can it come from the name alone, for what the name stands for is not what it was? Then the same once more will do. */
static bool is_stale(const PGresult *result, const char *sqlstate)
{
    static const char *const stale[] = {
        "26000", /* invalid_sql_statement_name: there is no such name any more */
        "42804", /* datatype_mismatch: a parameter keeps the type that it had when the statement was prepared */
        "42846", /* cannot_coerce: likewise */
        "42883", /* undefined_function: likewise, of an operator */
        NULL,
    };
    const char *function = PQresultErrorField(result, PG_DIAG_SOURCE_FUNCTION);

    /* "cached plan must not change result type" (plancache.c): 0A000 says other things, too, and messages are
     * translated. */
    return is_of(sqlstate, stale) ||
           (strcmp(sqlstate, "0A000") == 0 && function && strcmp(function, "RevalidateCachedQuery") == 0);
}

void pg_prepared_failed(struct qfc_pg *pg, struct qfc_pg_batch *batch, const PGresult *result)
{
    static const char *const doubtful[] = {
        "0A",    "26", "42", "22", /* data exception: a value that the type of before cannot hold */
        "57014",                   /* query_canceled: a plan for any value may be a bad one for this */
        NULL,
    };
    const char *sqlstate = batch->error.sqlstate;

    if (batch->at >= batch->results.count || !batch->ways[batch->at].text || batch->ways[batch->at].parse)
        return;
    if (is_stale(result, sqlstate))
        batch->error.kind = QFC_ERROR_AGAIN;
    if (batch->generation != pg->texts.generation || !is_of(sqlstate, doubtful))
        return;
    drop_texts(&pg->texts);
    /* Names that vanish are of no use, and those that are there may be somebody else's. */
    pg->texts.off = strcmp(sqlstate, "26000") == 0;
    if (!pg->texts.off)
        deallocate(pg);
}
