/*
 * PostgreSQL over libpq on a libuv loop: one connection that connects, and connects again, by itself, and takes
 * batches of statements, each batch one pipeline with one sync point.
 *
 * Batches are run in the order in which they were given. While there is no connection they wait; when the connection
 * breaks, those that were sent end with QFC_ERROR_UNKNOWN and those that were not go on waiting. All on the loop's
 * thread; callbacks may call anything here.
 */
#pragma once

#include "qfc/error.h"
#include "qfc/statements.h"

#include <libpq-fe.h>
#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

struct qfc_pg;
struct qfc_pg_batch;

/* What a batch returned: one result per statement, in order (PGRES_TUPLES_OK or PGRES_COMMAND_OK, all of them). */
struct qfc_pg_results {
    PGresult **items;
    size_t count;
};

enum qfc_pg_state {
    QFC_PG_DOWN,  /* no connection; another try comes by itself after `retry_ms` */
    QFC_PG_READY, /* connected, and `on_setup` was content */
};

struct qfc_pg_options {
    /* A libpq connection string or URI. Its password never appears in an error. Copied, like all texts here. */
    const char *conninfo;
    const char *application_name;
    unsigned connect_ms; /* for one attempt, names and TLS and authentication and setup included; 0: no end */
    /* A connection that is silent for so long while a batch is under way is given up. 0: never. Must be more than the
     * longest statement may take (statement_timeout, lock_timeout). */
    unsigned answer_ms;
    unsigned retry_min_ms;              /* backoff between attempts: doubles from here ... */
    unsigned retry_max_ms;              /* ... to here, each time up to a quarter less at random */
    const struct qfc_statements *setup; /* run first on each new connection; may be null; copied */

    /* Looks at what `setup` returned. -1 refuses the server: the connection is closed, and tried again with backoff.
     * May be null. */
    int (*on_setup)(void *userdata, const struct qfc_pg_results *results, struct qfc_error *error);
    /* Called on each change of state and on each failed attempt, never from within qfc_pg_new. `why` is null for
     * READY. A lost connection is told here first, then to the batches that it ends. May be null. */
    void (*on_state)(void *userdata, enum qfc_pg_state state, const struct qfc_error *why, unsigned retry_ms);
    /* A notice or warning of the server, without newline at the end. May be null. */
    void (*on_notice)(void *userdata, const char *severity, const char *message);
    /* A notification of a channel that `setup` LISTENs to. May be null. */
    void (*on_notify)(void *userdata, const char *channel, const char *payload);
    void *userdata;
};

/*
 * Starts to connect. Returns null for a conninfo that libpq cannot parse (QFC_ERROR_USAGE) or without memory.
 * Host names are looked up without blocking the loop.
 */
struct qfc_pg *qfc_pg_new(uv_loop_t *loop, const struct qfc_pg_options *options, struct qfc_error *error);

/*
 * Closes the connection without waiting; batches not yet answered end without their callback being called. May be
 * called at any time, from callbacks too. The memory goes when the loop has closed its handles: let it run once more.
 * Null is allowed.
 */
void qfc_pg_free(struct qfc_pg *pg);

enum qfc_pg_state qfc_pg_state(const struct qfc_pg *pg);

/*
 * Leaves the connection and makes a new one: for what `setup` found is not true any more. Batches as with any lost
 * connection. `why` is what on_state gets.
 */
void qfc_pg_reconnect(struct qfc_pg *pg, const struct qfc_error *why);

/*
 * The end of a batch. `error` is null when the sync point was reached without an error: it is committed; else `results`
 * is null. Kinds: UNKNOWN (connection lost, or `answer_ms` passed, after the batch was sent and before an error had
 * come; a server that shuts down or ends the session is a lost connection), AGAIN (serialization failure 40001,
 * deadlock 40P01, lock timeout 55P03, statement timeout 57014, too many connections and out of memory of class 53, a
 * prepared statement that has gone stale), REFUSED (any other error of the server: `sqlstate` tells), MEMORY. The
 * message holds no secret value.
 * Results end with the call, unless taken out by setting an item to null.
 */
typedef void qfc_pg_done(void *userdata, const struct qfc_error *error, const struct qfc_pg_results *results);

/*
 * Every batch is atomic and committed at its sync point: PostgreSQL runs what lies between two sync points in one
 * implicit transaction. A statement that fails takes the whole batch back, other batches are not touched, and a
 * deferred constraint is an error of the batch. BEGIN, COMMIT, ROLLBACK, COPY, several commands in one statement, and
 * what only an explicit transaction takes (LOCK TABLE, SAVEPOINT, DECLARE) have no place in a batch.
 *
 * A statement whose text came before on the same connection is prepared, as long as there is room for its text (256
 * texts, 256 KB); so what changes from call to call belongs into values, not into the text. That changes nothing but
 * the time it takes, but for one thing: the types of its parameters are settled when it is prepared. When a column
 * then changes its type, the first batch after that may fail for it: with AGAIN, or, where a value does not fit the
 * type of before, with REFUSED (class 22). The one after it is prepared anew.
 */

/*
 * Queues a batch and empties `statements`: the list moves into the batch. Returns 0 and, where `ret_batch` is not
 * null, the batch for qfc_pg_cancel, valid until `done`; or -1 (QFC_ERROR_MEMORY, or QFC_ERROR_BUG for no statements),
 * with `statements` as it was. `done` is never called from within. Borrowed values must
 * live until `done` or qfc_pg_cancel.
 */
int qfc_pg_send(struct qfc_pg *pg, struct qfc_statements *statements, qfc_pg_done *done, void *userdata,
                struct qfc_pg_batch **ret_batch, struct qfc_error *error);

/*
 * The batch's `done` will not be called, and the handle ends here. Not sent yet: it is dropped. Sent: it runs to its
 * end all the same, but for one whose parts (QFC_VALUE_PART) are still being sent: the connection ends with it. Not for a
 * batch whose `done` has been called, or is being called now.
 */
void qfc_pg_cancel(struct qfc_pg_batch *batch);

/*
 * The text of a column by its exact name in a result, or null for SQL NULL, a row that is not there, or a column that
 * is not there. Belongs to the result.
 */
const char *qfc_pg_text(const PGresult *result, int row, const char *column);

/* Is that column of the first row a boolean that is true? `result` may be null. */
bool qfc_pg_true(const PGresult *result, const char *column);
