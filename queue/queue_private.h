/* What the files of this room share. */
#pragma once

#include "qfc/queue.h"

#define MARKER_SIZE  65 /* core_job.container_id is varchar(64) */
#define RELEASE_SIZE 64
#define QUEUE_NAMES  12 /* that SQL may use, see release.c */

enum lane_kind { LANE_CLAIMS, LANE_QUICK, LANE_PATIENT, LANE_BULK, LANE_COUNT };

/* One connection: see lanes.c. */
struct lane {
    struct qfc_queue *queue;
    enum lane_kind kind;
    struct qfc_pg *pg; /* null: not open */
    bool ready;
    bool told;          /* that it cannot connect */
    char session[16];   /* pid of its backend */
    unsigned under_way; /* calls */
    uint64_t used_ms;   /* on the loop's clock */
};

struct qfc_queue {
    uv_loop_t *loop;
    struct qfc_queue_options options; /* its texts are the members that follow */
    char *conninfo;                   /* holds the password */
    char *time_zone;
    char *legacy_storage;
    struct lane lanes[LANE_COUNT];
    bool pooled;              /* a session was not ours alone: connections are refused from then on */
    char marker[MARKER_SIZE]; /* names this process: no other ever has it */
    char release[RELEASE_SIZE];
    struct qfc_name names[QUEUE_NAMES + 1]; /* empty before the first connection */
    struct call *calls;                     /* under way */
};

/*
 * A call of our user's, kept while its batch is under way, so that what comes back can be translated first. The queue
 * owns it: a batch that is never answered leaves none behind.
 */
struct call {
    struct qfc_queue *queue;
    struct lane *lane;
    struct call *next, **link;
    qfc_pg_done *done;
    qfc_queue_claimed *claimed; /* of a claim, instead of `done` */
    qfc_queue_looked *looked;   /* of a look */
    void *userdata;
};

/* lanes.c */

/* Opens a lane anew. Returns 0 or -1 (QFC_ERROR_USAGE for the conninfo, QFC_ERROR_MEMORY). */
int lane_open(struct qfc_queue *queue, enum lane_kind kind, struct qfc_error *error);

/* The lane, open; null without memory. */
struct lane *lane_of(struct qfc_queue *queue, enum lane_kind kind, struct qfc_error *error);

/* Leaves lanes that were not needed for a while. */
void lanes_tidy(struct qfc_queue *queue);

void lanes_close(struct qfc_queue *queue);

/* Fills the error of a connection that has no session of its own; returns -1. */
int lane_pooled(struct qfc_error *error);

/* release.c */

/* The queries that tell the release; their results go to recognise(). */
int release_probe(struct qfc_statements *statements, struct qfc_error *error);

/* Finds the release from the probe's result and fills the queue's names, or refuses the server with the reason. */
int release_recognise(struct qfc_queue *queue, const PGresult *probe, struct qfc_error *error);

/* fence.c */

/* $1 id, $2 marker, $3 container. */
#define IS_OURS "status IN ('queued', 'started') AND container_id IN ($2, $3)"

/*
 * SQL that cannot be evaluated, and so fails the transaction, telling what the row is instead of ours. A row that looks
 * as ours was changed while the statement waited for its lock (READ COMMITTED looks at the new row for the update, but
 * a subquery at the statement's snapshot): the same again will tell.
 */
#define FENCE_MARK "qfc-fence "
#define FENCE_FAILS                                                                                                    \
    "('" FENCE_MARK "' || coalesce((SELECT CASE WHEN " IS_OURS " THEN 'changing' ELSE status END FROM core_job"        \
    " WHERE id = $1), 'gone'))::integer"

/* As in QFC_REFUSED and QFC_CHANGED of qfc/queue.h. */
#define REFUSED_MARK "qfc-refused "
#define REFUSED_END  " qfc-end"
#define CHANGED_MARK "qfc-changed"

/* The statement that fails the transaction unless the row is ours. */
extern const char fence_sql[];

/*
 * A server that has become a standby, or whose schema is not what it was: the release is to be found out anew, so this
 * leaves the connection. Other errors (or null) change nothing.
 */
void reconnect_if_changed(struct lane *lane, const struct qfc_error *error);

/*
 * Makes of an error of the database what it means for the job: the fence's own error becomes LOST or TAKEN, with the
 * row's status told, those of QFC_REFUSED and QFC_CHANGED what they say; others stay.
 */
void fence_translate(struct qfc_error *error);

/*
 * Sends `statements`, with names expanded, as one transaction, unless one could not be `added` to the list (-1).
 * `answered` gets a copy of `call` as its userdata, and ends it with end_call(). The list is freed.
 */
int send_call(struct qfc_queue *queue, enum lane_kind kind, int added, struct qfc_statements *statements,
              qfc_pg_done *answered, const struct call *call, struct qfc_error *error);

/* Frees a call; returns what it was. */
struct call end_call(struct call *call);

/* send_call for a caller's own `done`; its error is translated. */
int send_fenced(struct qfc_queue *queue, enum lane_kind kind, int added, struct qfc_statements *statements,
                qfc_pg_done *done, void *userdata, struct qfc_error *error);
