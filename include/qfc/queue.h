/*
 * core_job as a queue: claiming, ownership, and the transitions of a row, each one pipelined transaction.
 *
 * Ownership is written in the row itself. From claim to `prepare` core_job.container_id holds this process's marker
 * ("qfc-worker:<instance>:<host>"), from then on the container's id, and feedback.qfc_worker.worker the marker. Every
 * later write begins with a fence: a statement that fails the whole transaction unless the row is active (`queued` or
 * `started`) and has our marker. So each of these may be repeated when its answer was lost. That the owner lives is
 * proved by an advisory lock of its session, taken as the job is claimed; a job without is anybody's to adopt.
 *
 * Tables and columns that differ by release are looked up once on each new connection. SQL given to this room writes
 * them as names in braces; see qfc_queue_names. The SQL is what PostgreSQL 13 understands.
 */
#pragma once

#include "qfc/error.h"
#include "qfc/job.h"
#include "qfc/pg.h"
#include "qfc/statements.h"

#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

struct qfc_queue;

struct qfc_queue_options {
    const char *conninfo; /* libpq connection string or URI; copied, like all texts here */
    const char *host;     /* names this machine in the marker; cut to fit */
    /* What others shall know of this process, "<version>:<slots>": its sessions' names tell it (qfc/report.h). Null: "". */
    const char *about;
    /* For SQL, settings of the session: qfc_worker.time_zone is QFieldCloud's own, "UTC" for null;
     * qfc_worker.legacy_storage names its legacy storage, "" for null. */
    const char *time_zone;
    const char *legacy_storage;
    /* The connection stands and the database is one that we know (`why` null), or does not (`why` and when the next
     * try comes). Called on each change and on each failed try. */
    void (*on_state)(void *userdata, bool ready, const struct qfc_error *why, unsigned retry_ms);
    void (*on_notice)(void *userdata, const char *severity, const char *message); /* may be null */
    /* A notification of qfc/setup.h: there may be something to claim. `about` is a number that the workers that
     * hear it take turns by: 0 to 255. May be null. */
    void (*on_news)(void *userdata, unsigned about);
    void *userdata;
};

/* Starts to connect. Null with QFC_ERROR_USAGE (conninfo) or QFC_ERROR_MEMORY. */
struct qfc_queue *qfc_queue_new(uv_loop_t *loop, const struct qfc_queue_options *options, struct qfc_error *error);
void qfc_queue_free(struct qfc_queue *queue);

bool qfc_queue_ready(const struct qfc_queue *queue);

/* Which releases this database can belong to: "v26.22 to v26.24". Never null; "" before the first connection. */
const char *qfc_queue_release(const struct qfc_queue *queue);

/* Which database this is, whatever it is called: "7710924288672965773-16401", the server's system identifier and the
 * database's oid. Never null; "" before the first connection. */
const char *qfc_queue_identity(const struct qfc_queue *queue);

/*
 * The names that SQL may use, resolved for the connected release; null before the first connection:
 *   {project}               the project table
 *   {project_app}           app_label of its model's content type
 *   {qgis_file_name}        expression: the name of the QGIS file of the project row `p`, or null
 *   {qgis_version}          expression: qgis_version of the project row `p`, or null where there is no such column
 *   {has_qgis_version}      true or false: has the project a column qgis_version, by which its image is chosen (v26.20)?
 *   {has_qgis_project}      true or false: are there project_qgisproject and project_qgislayer (v26.22)?
 *   {has_area_of_interest}  true or false: has project_qgisproject that column (v26.25)?
 *   {has_legacy_storage}    true or false: can the project be in a legacy storage (up to v26.10)?
 *   {thumbnail_by_worker}   true or false: is the project's thumbnail stored by the worker (before v26.8)?
 *   {project_repr}          expression: how the audit log calls the project row `p` of the owner `u`
 *   {file_repr}             expression: how it calls the row `f` of filestorage_file
 *   {version_repr}          expression: how it calls the row `v` of filestorage_fileversion, a version of `f`
 */
const struct qfc_name *qfc_queue_names(const struct qfc_queue *queue);

/* The value that container_id has while a job of ours has no container. */
const char *qfc_queue_marker(const struct qfc_queue *queue);

/*
 * Is there something to claim? One statement, for those that have nothing to do. With `upkeep`, SQL without parameters
 * that returns rows (DELETE ... RETURNING), it does that, too, and tells how many workers hear of new jobs. With
 * `unowned` it also asks whether qfc_queue_list_unowned would find something.
 */
struct qfc_look {
    bool work;
    bool unowned;           /* where it was asked: some job has lost its owner, or some worker is silent */
    bool kept_up;           /* there was `upkeep`: the next four are set */
    unsigned upkept;        /* rows that it returned */
    unsigned rank, workers; /* our place among the workers (0 is the first), and their number */
    bool told;              /* the triggers of setup-db are in place: on_news hears of all there is to claim */
};
typedef void qfc_queue_looked(void *userdata, const struct qfc_error *error, const struct qfc_look *look);
int qfc_queue_look(struct qfc_queue *queue, const char *upkeep, bool unowned, qfc_queue_looked *done, void *userdata,
                   struct qfc_error *error);

/*
 * Claims up to `slots` jobs, at most one per project, oldest first, in one round trip. Within one transaction the
 * projects are locked first and asked about in a later statement, so that of two workers that look at the same time
 * only one takes a project (SKIP LOCKED re-checks only the row that it locks, not whether the project is busy). Also
 * tells, where asked, how many jobs are pending, whether or not they can be claimed now.
 */
struct qfc_claim_request {
    unsigned slots;
    const char *const *without_qgis; /* major versions of QGIS whose projects are left: {"3", "4"} */
    size_t without_count;
    bool count_pending;
    const char *const *known; /* ids of the jobs that this process still has: they are not claimed again */
    size_t known_count;
};
struct qfc_claim {
    const struct qfc_job *jobs;
    size_t count;
    long pending; /* before this claim; 0 where it was not asked */
};
typedef void qfc_queue_claimed(void *userdata, const struct qfc_error *error, const struct qfc_claim *claim);
int qfc_queue_claim(struct qfc_queue *queue, const struct qfc_claim_request *request, qfc_queue_claimed *done,
                    void *userdata, struct qfc_error *error);

/*
 * Which of these jobs are no longer ours? The sign of life, asked every few seconds, and at once on a new connection,
 * since it also takes the jobs' locks again where the session is new. Results: rows of id, `fate` ("gone", "ended",
 * "taken", or "cancelled", of one that is still ours) and status (null when gone); none for the others.
 *
 * An active job is cancelled by setting feedback.qfc_worker.cancel to true in its row.
 */
int qfc_queue_watch(struct qfc_queue *queue, const char *const *ids, size_t count, qfc_pg_done *done, void *userdata,
                    struct qfc_error *error);

/* This process has nothing more to do with a job that it claimed or adopted: its lock goes with the next question. */
void qfc_queue_disown(struct qfc_queue *queue, const char *id);

/* Are there locks to be released, so that a watch is due although there may be no jobs? */
bool qfc_queue_has_spare_locks(const struct qfc_queue *queue);

/*
 * Jobs that have lost their owner. First ends sessions of workers that hold locks and have been silent for 20 s.
 * Results: one row of `name` (application_name) for each session that was ended; then a row of id, version, kind,
 * container_id, project_id, engine, age_s (since started_at; null: not started) for each job: "never started" (claimed,
 * its container not started), "started", or "nobody" (queued without anybody's marker: by hand, by an import, or just
 * now by QFieldCloud's own worker). No jobs are told of in the first 15 s after the server's start, in which owners come
 * back.
 */
int qfc_queue_list_unowned(struct qfc_queue *queue, qfc_pg_done *done, void *userdata, struct qfc_error *error);

/*
 * Takes over jobs that were listed, if they are still as they were listed. `done` is called for each that is ours now,
 * or once with an error; the texts are valid within.
 */
struct qfc_adoption {
    struct qfc_job job;    /* its attempt is the one that is under way */
    const char *container; /* its container; null: it was never started */
    const char *engine;    /* that it is on; "" where that is not known */
    const char *former;    /* of one that was never started: the marker of the worker that had claimed it */
    uint64_t age_ms;       /* since it was started, on the database's clock */
};
typedef void qfc_queue_adopted(void *userdata, const struct qfc_error *error, const struct qfc_adoption *adoption);
int qfc_queue_adopt(struct qfc_queue *queue, const char *const *ids, const char *const *versions, size_t count,
                    qfc_queue_adopted *done, void *userdata, struct qfc_error *error);

/* Back to `pending` with a job of kind "nobody", if its row is still that version. Results: its id, if it was. */
int qfc_queue_return_nobodys(struct qfc_queue *queue, const char *id, const char *version, qfc_pg_done *done,
                             void *userdata, struct qfc_error *error);

/*
 * Which of these containers belong to no active job and no living worker? Arrays as PostgreSQL's text: job ids,
 * container ids, and the markers of the workers that made them ("" for QFieldCloud's own). Results: rows of container,
 * and `ours`, whether it had a marker.
 */
int qfc_queue_find_unwanted(struct qfc_queue *queue, const char *jobs, const char *containers, const char *workers,
                            qfc_pg_done *done, void *userdata, struct qfc_error *error);

/* The same as a statement, for those who have a connection of their own. Returns 0 or -1 (QFC_ERROR_MEMORY). */
int qfc_unwanted_ask(struct qfc_statements *list, const char *jobs, const char *containers, const char *workers,
                     struct qfc_error *error);

/*
 * Are we the one worker that looks after that engine, known by its identity? Takes an advisory lock of the session, which
 * goes with it: to be asked again before each deed. Results: `held`.
 */
int qfc_queue_guard(struct qfc_queue *queue, const char *engine, qfc_pg_done *done, void *userdata,
                    struct qfc_error *error);

/*
 * Each of the following goes through a connection where it holds up no other job, by its size and by job->patient.
 *
 * The transitions of a claimed job. `writes` holds the job type's own statements, with {names}; they become part of
 * the same transaction, after the job's row is written, and the list is emptied. Errors: LOST (the row is gone, or
 * somebody else has ended it; sqlstate is empty), TAKEN, CHANGED, AGAIN, UNKNOWN (ask again: all of these may be
 * repeated), REFUSED (the database does not take what was written: `sqlstate`), MEMORY. `container` is the container's
 * id, or "".
 */

/*
 * Asks `count` queries ($1 job id, $2 project id) behind a fence: the results are the fence's own, then one of each.
 * What is `small` goes with the claims: that session has just been at work, and answers sooner.
 */
int qfc_queue_read(struct qfc_queue *queue, const struct qfc_job *job, const char *container, const char *const *reads,
                   size_t count, bool small, qfc_pg_done *done, void *userdata, struct qfc_error *error);

/*
 * Expressions that fail the transaction on purpose, for a job type's own statements: `SELECT CASE WHEN <as it should
 * be> THEN 1 ELSE ` QFC_REFUSED("'feedback lacks ...'") ` END`. QFC_REFUSED takes an SQL expression of type text that
 * says why: the transition ends with QFC_ERROR_REFUSED and that text. QFC_CHANGED says that what the statements were
 * made from is not so any more: QFC_ERROR_CHANGED. (A cast that cannot be done; the clock keeps PostgreSQL from trying
 * it when it plans the statement.)
 */
#define QFC_REFUSED(text) "('qfc-refused ' || " text " || ' qfc-end' || left(clock_timestamp()::text, 0))::integer"
#define QFC_CHANGED       "('qfc-changed' || left(clock_timestamp()::text, 0))::integer"

/* The container exists on the engine of that name, and is about to be started: `started`, its id, started_at and
 * docker_started_at, and in feedback.qfc_worker the attempt, the engine, and the marker. */
int qfc_queue_prepare(struct qfc_queue *queue, const struct qfc_job *job, const char *container, const char *engine,
                      struct qfc_statements *writes, qfc_pg_done *done, void *userdata, struct qfc_error *error);

struct qfc_running_step {
    const char *name; /* "": none */
    double age_s;     /* since it began; below 0: not known */
};

/*
 * What a running job says so far, for people to see: `output` becomes the row's, and `step` feedback.qfc_worker.step and
 * .step_since (seconds since 1970 on the database's clock, or null). Only while the row is ours; when it is not, or
 * somebody holds its lock, nothing is written, and that is no error. finish and put back replace both.
 */
int qfc_queue_show(struct qfc_queue *queue, const struct qfc_job *job, const char *container, const char *output,
                   const struct qfc_running_step *step, qfc_pg_done *done, void *userdata, struct qfc_error *error);

struct qfc_ending {
    const char *container;      /* id, or "" when there is none */
    bool finished;              /* else failed */
    const char *output;         /* text without NUL; must live until `done` */
    const char *feedback;       /* the container's cleaned JSON object, or null; must live until `done` */
    const char *feedback_extra; /* JSON object, laid over the feedback's members */
    bool tell_earlier;          /* the output ends with the reasons of earlier attempts */
    const char *ran_ms;         /* for docker_finished_at: from `prepare` to the container's end; null: it never ran */
};
int qfc_queue_finish(struct qfc_queue *queue, const struct qfc_job *job, const struct qfc_ending *ending,
                     struct qfc_statements *writes, qfc_pg_done *done, void *userdata, struct qfc_error *error);

/*
 * Back to `pending`, as if never claimed, but for feedback.qfc_worker: the attempts so far, the reasons of those that
 * count, and when the next one is due (`delay_s` from now). While it waits no younger job of its project overtakes it.
 * One that was cancelled does not go back: AGAIN, until the watch has told.
 */
struct qfc_return {
    const char *container;
    unsigned faults; /* attempts that count against the limit, this one included */
    double delay_s;
    const char *reason;
};
int qfc_queue_put_back(struct qfc_queue *queue, const struct qfc_job *job, const struct qfc_return *how,
                       struct qfc_statements *writes, qfc_pg_done *done, void *userdata, struct qfc_error *error);

/* Statements that need no fence, since they write to no row of core_job; nothing waits for them. The list is emptied. */
int qfc_queue_write(struct qfc_queue *queue, struct qfc_statements *writes, qfc_pg_done *done, void *userdata,
                    struct qfc_error *error);

/*
 * A duty that one worker of this database has at a time, whatever it is called: it is ours if nobody has it. To be asked
 * every 10 seconds or more often: that also tells when it was lost with its session, and is the sign of life without which
 * others take it after 20 s. It goes with the process. The answer comes with the next look for jobs; asked again before,
 * the question is sent at once, and answered once. Returns 0 or -1 (MEMORY, BUG: more than 4 duties at a time).
 */
typedef void qfc_queue_duty_done(void *userdata, const struct qfc_error *error, bool ours);
int qfc_queue_duty(struct qfc_queue *queue, const char *name, qfc_queue_duty_done *done, void *userdata,
                   struct qfc_error *error);

/*
 * Says a word, at most 7900 bytes of text, to all workers of this database that are connected now, this one too. Nobody
 * learns whether it was heard. Errors as of any question: INVALID for a word that is too long.
 */
int qfc_queue_tell(struct qfc_queue *queue, const char *word, struct qfc_error *error);

/* Such words go here; `told` may be null. They may come from anybody who can connect to this database. */
typedef void qfc_queue_told(void *userdata, const char *word);
void qfc_queue_on_told(struct qfc_queue *queue, qfc_queue_told *told, void *userdata);
