/* What the files of this room share. */
#pragma once

#include "qfc/queue.h"
#include "qfc/release.h"

#define MARKER_SIZE 65 /* core_job.container_id is varchar(64) */

/*
 * The key of a job's advisory lock: the first 64 bits of its id. The session that holds it is the job's owner; the lock
 * goes with the session, so a job without one has lost its owner.
 */
#define LOCK_KEY(id) "('x' || left(replace(" id "::text, '-', ''), 16))::bit(64)::bigint"

/* Columns `project_name` and `owner` of a row of core_job, for RETURNING: looked up by keys, row by row. */
#define NAMES_OF_PROJECT(job)                                                                                          \
    "(SELECT p.name FROM {project} p WHERE p.id = " job ".project_id) AS project_name,"                                \
    " (SELECT u.username FROM {project} p JOIN core_user u ON u.id = p.owner_id WHERE p.id = " job                     \
    ".project_id) AS owner"

/* Where workers tell each other what all should know: see duty.c. */
#define WORDS_CHANNEL "qfc_worker_words"

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

/* A question whose a duty is: see duty.c. */
struct duty {
    char key[16]; /* "": none */
    qfc_queue_duty_done *done;
    void *userdata;
};
#define DUTIES 4

struct qfc_queue {
    uv_loop_t *loop;
    struct qfc_queue_options options; /* its texts are the members that follow */
    char *conninfo;                   /* holds the password */
    char *about;
    char *time_zone;
    char *legacy_storage;
    struct lane lanes[LANE_COUNT];
    bool pooled;                /* a session was not ours alone: connections are refused from then on */
    char marker[MARKER_SIZE];   /* names this process: no other ever has it */
    struct qfc_buffer unowned;  /* ids, each with a comma: jobs whose locks are to be released */
    bool locks_doubtful;        /* a claim failed, and may have left locks of jobs that it did not take */
    bool locks_missing;         /* the session is new, and has not got the locks of our jobs yet */
    struct qfc_release release; /* empty before the first connection */
    struct call *calls;         /* under way */
    struct duty duties[DUTIES]; /* questions that wait for the next look */
    uint64_t looked_ms;         /* when the last look was sent */
    qfc_queue_told *told;       /* or null */
    void *told_userdata;
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
    qfc_queue_adopted *adopted; /* of an adoption */
    struct duty duties[DUTIES]; /* that a look has asked for besides */
    void *userdata;
};

/*
 * A job that was put back is due again at feedback.qfc_worker.not_before, seconds since 1970. Whatever else stands
 * there (a text, a time beyond any that we would write) makes it due, too.
 */
#define IS_DUE(job)                                                                                                    \
    "CASE WHEN jsonb_typeof(" job ".feedback #> '{qfc_worker,not_before}') = 'number' THEN (" job                      \
    ".feedback #>> '{qfc_worker,not_before}')::numeric - extract(epoch FROM clock_timestamp())::numeric"               \
    " NOT BETWEEN 0 AND 10800 ELSE true END"

/* Statements are put together up to this size. */
#define SQL_MAX_BYTES 16384

/* duty.c */

/* Takes the questions that wait into this look: a column of its SELECT each. Returns 0 or -1 (no memory). */
int duties_add(struct qfc_queue *queue, struct qfc_buffer *sql, struct call *look);

/* Their answers, from the look's row; `error` as for `done`. */
void duties_answered(const struct call *look, const struct qfc_error *error, const PGresult *row);

/* lanes.c */

/* Opens a lane anew. Returns 0 or -1 (QFC_ERROR_USAGE for the conninfo, QFC_ERROR_MEMORY). */
int lane_open(struct qfc_queue *queue, enum lane_kind kind, struct qfc_error *error);

/* The lane, open; null without memory. */
struct lane *lane_of(struct qfc_queue *queue, enum lane_kind kind, struct qfc_error *error);

/* Leaves lanes that were not needed for a while. */
void lanes_tidy(struct qfc_queue *queue);

/* locks.c */

/* Adds what is to be done about locks before anything else is asked on the lane for claims; `known` are our jobs, as a
 * PostgreSQL array. Returns 0 or -1. */
int locks_add(struct qfc_queue *queue, const char *known, struct qfc_statements *statements, struct qfc_error *error);

/* The session has ended, and with it its locks. */
void locks_lost(struct qfc_queue *queue);

/* claim.c: the job of a row that was claimed or adopted; its attempt is the one that follows. */
struct qfc_job job_of(const PGresult *rows, int row);

/* A column that holds the marker of a worker of ours. */
#define IS_MARKER(column) "left(" column ", 11) = 'qfc-worker:'"

/*
 * Why a job has failed, in a few words that group well, from its row `job`: a text, never null. A feedback of megabytes
 * is not unpacked for it. What is no object has no such members, and says nothing.
 */
#define REASON_OF(job)                                                                                                 \
    "CASE WHEN pg_column_size(" job ".feedback) > 131072 THEN 'a feedback too large to look into'"                     \
    " ELSE coalesce(nullif(left(" job ".feedback ->> 'error_type', 100), ''), nullif(left(split_part(" job             \
    ".feedback ->> 'error', E'\\n', 1), 100), ''), nullif(left(" job ".feedback ->> 'error_class', 100), ''),"         \
    " 'exit code ' || left(" job ".feedback ->> 'container_exit_code', 20), 'no reason given') END"

/* report.c: the questions of qfc/report.h. */
extern const char *const report_sql[];

/* recover.c: to be added to a look; a column `unowned`: are there jobs that have lost their owner? */
extern const char recover_look_sql[];

/* Takes the locks of our jobs ($1) that the session has not got. */
extern const char locks_take_sql[];

/* An SQL condition: no session holds the lock of the job `id`. */
#define IS_UNOWNED(id)                                                                                                 \
    "NOT EXISTS (SELECT FROM pg_locks l WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.database = (SELECT oid" \
    " FROM pg_database WHERE datname = current_database())"                                                            \
    " AND (l.classid::bigint << 32) | l.objid::bigint = " LOCK_KEY(id) ")"

void lanes_close(struct qfc_queue *queue);

/* Fills the error of a connection that has no session of its own; returns -1. */
int lane_pooled(struct qfc_error *error);

/* fence.c */

/* What the queue itself keeps in core_job.feedback while a job is active. */
#define TRAIL                                                                                                          \
    "CASE jsonb_typeof(core_job.feedback -> 'qfc_worker') WHEN 'object' THEN core_job.feedback -> 'qfc_worker'"        \
    " ELSE '{}'::jsonb END"

/* $1 id, $2 marker, $3 container. The container stays the same when another worker takes a job over. */
#define IS_OURS                                                                                                        \
    "status IN ('queued', 'started') AND (container_id = $2 OR (container_id = $3"                                     \
    " AND core_job.feedback #>> '{qfc_worker,worker}' = $2))"

/* Somebody has asked for the job's end: `jobs cancel` does so in the row itself, which its owner looks at. */
#define IS_CANCELLED "core_job.feedback #> '{qfc_worker,cancel}' = 'true'::jsonb"

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
