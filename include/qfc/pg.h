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
    unsigned connect_ms;    /* for one attempt, names and TLS and authentication and setup included */
    unsigned retry_min_ms;  /* backoff between attempts: doubles from here ... */
    unsigned retry_max_ms;  /* ... to here, with jitter */
    const struct qfc_statements *setup; /* run first on each new connection; may be null; copied */

    /* Looks at what `setup` returned. -1 refuses the server: the connection is closed, and tried again with backoff.
     * May be null. */
    int (*on_setup)(void *userdata, const struct qfc_pg_results *results, struct qfc_error *error);
    /* Called on each change of state and on each failed attempt. `why` is null for READY. */
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

/* Closes the connection without waiting; batches not yet answered end without their callback being called. */
void qfc_pg_free(struct qfc_pg *pg);

enum qfc_pg_state qfc_pg_state(const struct qfc_pg *pg);

/*
 * The end of a batch. `error` is null when the sync point was reached without an error (for a transaction: when it is
 * committed); else `results` is null. Kinds: UNKNOWN (connection lost, or the deadline passed, after the batch was
 * sent), AGAIN (serialization failure 40001, deadlock 40P01, lock timeout 55P03, statement timeout 57014, too many
 * connections and out of memory of class 53), REFUSED (any other error of the server: `sqlstate` tells), MEMORY.
 * Results end with the call, unless taken out by setting an item to null.
 */
typedef void qfc_pg_done(void *userdata, const struct qfc_error *error, const struct qfc_pg_results *results);

enum qfc_pg_flags {
    QFC_PG_TRANSACTION = 1 << 0, /* BEGIN and COMMIT around the statements; their results are not counted */
};

/*
 * Queues a batch and empties `statements`: the list moves into the batch. Returns 0 and, where `ret_batch` is not
 * null, the batch for qfc_pg_cancel, valid until `done`; or -1 (QFC_ERROR_MEMORY, or QFC_ERROR_BUG for no statements),
 * with `statements` as it was and `done` not called. Without QFC_PG_TRANSACTION the statements of one batch still
 * share the pipeline's implicit transaction.
 */
int qfc_pg_send(struct qfc_pg *pg, struct qfc_statements *statements, int flags, qfc_pg_done *done, void *userdata,
                struct qfc_pg_batch **ret_batch, struct qfc_error *error);

/* The batch's `done` will not be called. Not sent yet: it is dropped. Sent: it runs to its end all the same. */
void qfc_pg_cancel(struct qfc_pg_batch *batch);

/*
 * The text of a column by name in a result, or null for SQL NULL, a row that is not there, or a column that is not
 * there. Belongs to the result.
 */
const char *qfc_pg_text(const PGresult *result, int row, const char *column);
