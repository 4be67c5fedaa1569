/*
 * The interface of qfc/pg.h: making and freeing the object, the queue's entrance, and where the loop comes in.
 */
#include "pg_private.h"

#include <stdlib.h>
#include <string.h>

void pg_enter(struct qfc_pg *pg)
{
    pg->depth++;
}

static void on_closed(uv_handle_t *handle)
{
    struct qfc_pg *pg = handle->data;

    if (--pg->handles == 0)
        free(pg);
}

static void free_texts(struct qfc_pg *pg)
{
    PQconninfoFree(pg->conninfo);
    free(pg->application_name);
    free(pg->host);
    free(pg->hostaddr);
    free(pg->port);
    qfc_statements_free(&pg->setup);
    pg_addresses_free(&pg->addresses);
}

static void take_apart(struct qfc_pg *pg)
{
    pg_hang_up(pg);
    pg_batches_free(&pg->waiting);
    pg_batches_free(&pg->in_flight);
    pg_batches_free(&pg->ended);
    free_texts(pg);
    uv_close((uv_handle_t *)&pg->timer, on_closed);
    uv_close((uv_handle_t *)&pg->wake, on_closed);
}

void pg_leave(struct qfc_pg *pg)
{
    if (--pg->depth == 0 && pg->freed)
        take_apart(pg);
}

void qfc_pg_free(struct qfc_pg *pg)
{
    if (!pg || pg->freed)
        return;
    pg->freed = true;
    if (pg->depth == 0)
        take_apart(pg);
}

/* --- Making ------------------------------------------------------------------------------------------------------- */

static int copy_setup(struct qfc_statements *to, const struct qfc_statements *from, struct qfc_error *error)
{
    for (size_t i = 0; from && i < from->count; i++) {
        const struct qfc_statement *statement = &from->items[i];
        struct qfc_value values[QFC_STATEMENT_VALUES];
        for (size_t j = 0; j < statement->count; j++) {
            values[j] = statement->values[j];
            if (values[j].kind == QFC_VALUE_BORROWED)
                values[j].kind = QFC_VALUE_COPY; /* parts have no place in a setup */
        }
        if (qfc_statements_add(to, statement->sql, statement->count, values, error) < 0)
            return -1;
    }
    return 0;
}

/* The value in effect: the conninfo's, or libpq's default, the PG* environment among them. */
static int copy_value(char **ret_text, const struct qfc_pg *pg, const PQconninfoOption *defaults, const char *keyword)
{
    const char *text = pg_given(pg->conninfo, keyword);

    /* What a service names is libpq's to find, and goes before the environment. */
    if (!text && !pg_given(pg->conninfo, "service"))
        text = pg_given(defaults, keyword);
    if (!text)
        return 0;
    *ret_text = strdup(text);
    return *ret_text ? 0 : -1;
}

static const char *either(const char *one, const char *other)
{
    return one ? one : other ? other : "";
}

static int note_target(struct qfc_pg *pg)
{
    PQconninfoOption *defaults = PQconndefaults();

    if (!defaults)
        return -1;
    int failed = copy_value(&pg->host, pg, defaults, "host") || copy_value(&pg->hostaddr, pg, defaults, "hostaddr") ||
                 copy_value(&pg->port, pg, defaults, "port");
    const char *user = either(pg_given(pg->conninfo, "user"), pg_given(defaults, "user"));
    const char *database = either(pg_given(pg->conninfo, "dbname"), either(pg_given(defaults, "dbname"), user));
    char text[sizeof(pg->where)];
    snprintf(text, sizeof(text), "PostgreSQL at %s:%s database %s as %s",
             pg->host ? pg->host : either(pg->hostaddr, "local socket"), either(pg->port, "?"), database, user);
    pg_one_line(pg->where, sizeof(pg->where), text);
    PQconninfoFree(defaults);
    return failed ? -1 : 0;
}

/*
 * A password with "@" or "/" that is not percent-encoded ends up in what libpq takes for host, port or database, and
 * from there in messages. None of the three looks like that otherwise.
 */
static bool is_misread(const struct qfc_pg *pg)
{
    const char *host = pg_given(pg->conninfo, "host");
    const char *port = pg_given(pg->conninfo, "port");
    const char *database = pg_given(pg->conninfo, "dbname");

    return (host && *host != '/' && strchr(host + 1, '@')) || (port && port[strspn(port, "0123456789,")] != '\0') ||
           (database && !pg_given(pg->conninfo, "password") && strchr(database, '@'));
}

static int parse(struct qfc_pg *pg, const char *conninfo, struct qfc_error *error)
{
    char *message = NULL;

    pg->conninfo = PQconninfoParse(conninfo, &message);
    if (!pg->conninfo) {
        pg_conninfo_error(message, error);
        PQfreemem(message);
        return -1;
    }
    if (is_misread(pg))
        return qfc_fail(error, QFC_ERROR_USAGE, 0,
                        "PostgreSQL connection string: host, port or database is malformed "
                        "(in a URI, write \"@\" and \"/\" of a password as %%40 and %%2F)");
    return note_target(pg) < 0 ? qfc_fail_memory(error) : 0;
}

static int fill(struct qfc_pg *pg, const struct qfc_pg_options *options, struct qfc_error *error)
{
    pg_addresses_free(&pg->addresses);
    TAILQ_INIT(&pg->waiting);
    TAILQ_INIT(&pg->in_flight);
    TAILQ_INIT(&pg->ended);
    pg->options = *options;
    pg->options.conninfo = pg->options.application_name = NULL;
    pg->options.setup = NULL;
    pg->application_name = strdup(options->application_name ? options->application_name : "");
    if (!pg->application_name)
        return qfc_fail_memory(error);
    if (copy_setup(&pg->setup, options->setup, error) < 0)
        return -1;
    return parse(pg, options->conninfo, error);
}

static void on_wake(uv_prepare_t *handle)
{
    struct qfc_pg *pg = handle->data;

    uv_prepare_stop(handle);
    pg_enter(pg);
    if (pg->phase == PG_READY)
        pg_traffic(pg, false);
    else if (pg->phase == PG_WAITING && !uv_is_active((uv_handle_t *)&pg->timer))
        pg_attempt(pg); /* the first one */
    pg_leave(pg);
}

/* Before the loop waits for the next event, and without a system call. */
void pg_wake(struct qfc_pg *pg)
{
    uv_prepare_start(&pg->wake, on_wake);
}

struct qfc_pg *qfc_pg_new(uv_loop_t *loop, const struct qfc_pg_options *options, struct qfc_error *error)
{
    struct qfc_pg *pg = calloc(1, sizeof(*pg));

    if (!pg) {
        qfc_fail_memory(error);
        return NULL;
    }
    if (fill(pg, options, error) < 0) {
        free_texts(pg);
        free(pg);
        return NULL;
    }
    pg->loop = loop;
    pg->timer.data = pg->wake.data = pg;
    uv_timer_init(loop, &pg->timer);
    uv_prepare_init(loop, &pg->wake);
    pg->handles = 2;
    pg_wake(pg);
    return pg;
}

/* --- Use ---------------------------------------------------------------------------------------------------------- */

void qfc_pg_reconnect(struct qfc_pg *pg, const struct qfc_error *why)
{
    if (pg->phase != PG_READY || pg->broken || pg->freed)
        return;
    pg_break(pg, why);
    pg_wake(pg);
}

enum qfc_pg_state qfc_pg_state(const struct qfc_pg *pg)
{
    return pg->phase == PG_READY ? QFC_PG_READY : QFC_PG_DOWN;
}

int qfc_pg_send(struct qfc_pg *pg, struct qfc_statements *statements, qfc_pg_done *done, void *userdata,
                struct qfc_pg_batch **ret_batch, struct qfc_error *error)
{
    if (statements->count == 0)
        return qfc_fail(error, QFC_ERROR_BUG, 0, "a batch without statements");
    if (pg->freed)
        return qfc_fail(error, QFC_ERROR_BUG, 0, "a batch for a connection that was freed");
    struct qfc_pg_batch *batch = pg_batch_new(pg, statements, done, userdata);
    if (!batch)
        return qfc_fail_memory(error);
    batch->own = *statements;
    batch->list = &batch->own;
    *statements = (struct qfc_statements){0};
    TAILQ_INSERT_TAIL(&pg->waiting, batch, link);
    if (pg->phase == PG_READY)
        pg_wake(pg);
    if (ret_batch)
        *ret_batch = batch;
    return 0;
}

/* The caller takes its texts back; a pipeline that has begun can only end with its connection. */
static void give_up_parts(struct qfc_pg_batch *batch)
{
    struct qfc_error error;

    if (batch->pg->sending != batch)
        return;
    qfc_fail(&error, QFC_ERROR_UNKNOWN, 0, "connection to %s given up: a batch was cancelled while it was sent",
             batch->pg->where);
    pg_break(batch->pg, &error);
    batch->pg->sending = NULL;
    pg_wake(batch->pg);
}

void qfc_pg_cancel(struct qfc_pg_batch *batch)
{
    if (batch->sent) {
        batch->done = NULL;
        give_up_parts(batch);
        return;
    }
    TAILQ_REMOVE(&batch->pg->waiting, batch, link);
    pg_batch_free(batch);
}

const char *qfc_pg_text(const PGresult *result, int row, const char *column)
{
    if (row < 0 || row >= PQntuples(result))
        return NULL;
    /* PQfnumber folds case and interprets quotes. */
    for (int i = 0; i < PQnfields(result); i++)
        if (strcmp(PQfname(result, i), column) == 0)
            return PQgetisnull(result, row, i) ? NULL : PQgetvalue(result, row, i);
    return NULL;
}

bool qfc_pg_true(const PGresult *result, const char *column)
{
    const char *text = result ? qfc_pg_text(result, 0, column) : NULL;
    return text && strcmp(text, "t") == 0;
}
