/*
 * What the files behind qfc/pg.h share.
 *
 * pg.c is the interface and the object's life; pg_lookup.c turns host names into addresses; pg_connect.c is the
 * connection's life and its traffic; pg_batch.c is what goes through it; pg_prepared.c knows which statements have been
 * prepared; pg_error.c puts libpq's words into errors.
 *
 * Every callback of libuv goes through pg_enter and pg_leave, and all of libpq is called in between: a caller's
 * callback that frees the object only marks it, and pg_leave of the outermost call takes it apart. For the same reason
 * the public functions never call libpq themselves; they leave work for the next turn of the loop (pg_wake).
 */
#pragma once

#include "qfc/buffer.h"
#include "qfc/pg.h"

#include <stdint.h>
#include <sys/queue.h>

enum pg_phase {
    PG_WAITING = 0, /* for the next attempt */
    PG_LOOKING_UP,
    PG_CONNECTING,
    PG_SETTING_UP,
    PG_READY,
};

/* How a statement is sent. */
struct pg_way {
    unsigned short text; /* its number among the connection's texts, from 1; 0: as it is, without a name */
    bool parse;          /* a Parse with the name goes before it, and has an answer of its own */
};

struct qfc_pg_batch {
    TAILQ_ENTRY(qfc_pg_batch) link;
    struct qfc_pg *pg;
    struct qfc_statements own;         /* empty once libpq has a copy, unless it holds secrets */
    const struct qfc_statements *list; /* `own`, or what belongs to the connection: its setup, DEALLOCATE */
    bool sent;
    bool secret;       /* there is a secret value in it: the server's words are not to be trusted with it */
    qfc_pg_done *done; /* null: nobody wants to know */
    void *userdata;
    struct qfc_pg_results results;
    size_t handed;          /* so many statements are with libpq */
    struct pg_way *ways;    /* one per statement; all 0 until it is sent */
    unsigned generation;    /* the texts' when it was sent */
    size_t at;              /* the statement whose answer is due */
    bool parsed;            /* its Parse is answered already */
    struct qfc_error error; /* the first one */
};

TAILQ_HEAD(pg_batches, qfc_pg_batch);

struct pg_lookup;
struct pg_watch;

#define PG_TEXTS_MAXIMUM 256
#define PG_TEXTS_BYTES   ((size_t)256 * 1024)
#define PG_NAME_SIZE     40

/* A text that was sent on this connection. */
struct pg_text {
    char *sql;
    size_t size;
    enum { PG_TEXT_NOTED = 0, PG_TEXT_PARSING, PG_TEXT_PREPARED } state;
    const struct qfc_pg_batch *parser; /* whose Parse is in flight */
    unsigned number;                   /* of its name; a new one with each Parse */
};

struct pg_texts {
    struct pg_text items[PG_TEXTS_MAXIMUM];
    size_t count;
    size_t bytes;
    unsigned generation; /* changes when they are dropped */
    unsigned number;     /* the last that was given */
    uint64_t session;    /* a part of all names */
    bool off;            /* nothing is prepared on this connection (any more) */
};

/* Hosts with their addresses, as the three lists that libpq takes. */
struct pg_addresses {
    struct qfc_buffer hosts;
    struct qfc_buffer hostaddrs;
    struct qfc_buffer ports;
    size_t count;
};

struct qfc_pg {
    uv_loop_t *loop;
    struct qfc_pg_options options; /* only callbacks and numbers: the texts are the members that follow */
    char *application_name;
    struct qfc_statements setup;
    PQconninfoOption *conninfo; /* as given; holds the password */
    char *host;                 /* these three as given or by libpq's defaults; null where there is none */
    char *hostaddr;
    char *port;
    char where[256]; /* "PostgreSQL at HOST:PORT database DB as USER" */

    unsigned depth; /* how many pg_enter are open */
    bool freed;
    unsigned handles; /* not closed yet */
    uv_prepare_t wake;
    uv_timer_t timer; /* the retry's, the attempt's or the answer's, by phase */

    enum pg_phase phase;
    unsigned backoff_ms;
    unsigned late; /* attempts that ended by their deadline: the next one begins with another address */
    struct pg_lookup *lookup;
    size_t lookup_next; /* the host whose turn it is */
    struct pg_addresses addresses;
    PGconn *conn;
    struct pg_watch *watch;
    struct pg_texts texts;
    uint64_t heard_ms; /* when the socket last moved */
    bool broken;       /* the connection (or the attempt) is over, for the reason in `why` */
    struct qfc_error why;

    struct pg_batches waiting;
    struct pg_batches in_flight;
    struct pg_batches ended; /* by the loss of the connection; `done` is still to be called */
    size_t in_flight_count;
    struct qfc_pg_batch *sending; /* the one in flight of which libpq has not all yet, or null */
};

/* pg.c */
void pg_enter(struct qfc_pg *pg);
void pg_leave(struct qfc_pg *pg);
void pg_wake(struct qfc_pg *pg);

/* pg_lookup.c: ends in pg_dial or pg_fail_attempt. */
void pg_lookup_start(struct qfc_pg *pg);
void pg_lookup_forget(struct qfc_pg *pg);
void pg_addresses_free(struct pg_addresses *addresses);
/* The conninfo's own value of a keyword, or null. Never null for an empty text. */
const char *pg_given(const PQconninfoOption *options, const char *keyword);

/* pg_connect.c */
void pg_attempt(struct qfc_pg *pg);
void pg_dial(struct qfc_pg *pg);
void pg_fail_attempt(struct qfc_pg *pg, const struct qfc_error *error);
void pg_traffic(struct qfc_pg *pg, bool readable);
void pg_hang_up(struct qfc_pg *pg);
void pg_unwatch(struct qfc_pg *pg);
/* Notes that the connection is over, and why; the first reason stays. Whoever called libpq then acts on it. */
void pg_break(struct qfc_pg *pg, const struct qfc_error *why);

/* pg_batch.c */
struct qfc_pg_batch *pg_batch_new(struct qfc_pg *pg, const struct qfc_statements *list, qfc_pg_done *done,
                                  void *userdata);
void pg_batch_free(struct qfc_pg_batch *batch);
void pg_batches_free(struct pg_batches *batches);
/* Hands the batch to libpq: all of it, or up to its first part of a large text. */
void pg_batch_send(struct qfc_pg *pg, struct qfc_pg_batch *batch);
/* Hands over what comes next, of a batch that was begun or of the next one. False: nothing now. */
bool pg_batch_send_next(struct qfc_pg *pg);
/* Takes all results that have come in and ends the batches whose last sync point is among them. */
void pg_batch_take_results(struct qfc_pg *pg);
/* Ends those in `ended`. */
void pg_batch_end_lost(struct qfc_pg *pg, const struct qfc_error *why);

/* pg_prepared.c */
void pg_prepared_begin(struct qfc_pg *pg); /* on a new connection */
void pg_prepared_end(struct qfc_pg *pg);
/* Decides how a statement of this batch is sent, which is what the caller then does. */
struct pg_way pg_prepared_way(struct qfc_pg *pg, const struct qfc_pg_batch *batch, const char *sql);
void pg_prepared_name(const struct qfc_pg *pg, struct pg_way way, char out[PG_NAME_SIZE]);
/* The Parse of the statement at `at` is answered: done, or skipped or refused. */
void pg_prepared_answered(struct qfc_pg *pg, const struct qfc_pg_batch *batch, bool done);
/* The batch has failed at `at` and its error is set: makes it QFC_ERROR_AGAIN where a stale name may be the reason. */
void pg_prepared_failed(struct qfc_pg *pg, struct qfc_pg_batch *batch, const PGresult *result);

/* pg_error.c */
/* libpq's message as one line without the places in the server's source. */
void pg_one_line(char *out, size_t size, const char *text);
void pg_connect_error(const struct qfc_pg *pg, struct qfc_error *error);
void pg_lost_error(const struct qfc_pg *pg, const char *reason, struct qfc_error *error);
/* What PQconninfoParse complains about, without what it quotes. Returns -1. */
int pg_conninfo_error(const char *message, struct qfc_error *error);
void pg_result_error(const PGresult *result, const struct qfc_pg_batch *batch, struct qfc_error *error);
/* Does this error (or notice) say that the server is about to close the connection? */
bool pg_is_farewell(const PGresult *result);
