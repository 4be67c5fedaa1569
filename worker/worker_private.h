/* What the files of this room share: the worker, and a job that it runs. */
#pragma once

#include "qfc/engine.h"
#include "qfc/fernet.h"
#include "qfc/http.h"
#include "qfc/limits.h"
#include "qfc/log.h"
#include "qfc/monitor.h"
#include "qfc/outcome.h"
#include "qfc/processor.h"
#include "qfc/queue.h"
#include "qfc/random.h"
#include "qfc/secrets.h"
#include "qfc/settings.h"
#include "qfc/steps.h"
#include "qfc/stores.h"
#include "qfc/text.h"
#include "qfc/token.h"
#include "qfc/worker.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

/* A place in a job's life: see lifecycle.c. */
enum step {
    STEP_NONE = 0, /* in the table: cannot happen */
    STEP_READ,
    STEP_CREATE,
    STEP_PUT,
    STEP_PREPARE,
    STEP_START,
    STEP_WAIT,
    STEP_KILL,
    STEP_INSPECT,
    STEP_LOGS,
    STEP_FEEDBACK,
    STEP_THUMBNAIL,
    STEP_REVIEW,
    STEP_STORE,
    STEP_FINISH,
    STEP_REVOKE,
    STEP_REMOVE,
    STEP_LIST,
    STEP_LEFTOVERS,
    STEP_ERASE,
    STEP_DISCARD,
    STEP_PUT_BACK,
    STEP_END,
    STEP_COUNT,
    /* Only in the table: */
    STEP_SAME,     /* the same again, after a while */
    STEP_RETURN,   /* discard and put back; finish (failed) when the attempts are spent */
    STEP_BY_TYPE,  /* as STEP_RETURN where the job type is safe to run again, else finish (failed) */
    STEP_BY_START, /* as STEP_RETURN, but end for a job that was taken over: its container may run */
    STEP_BY_RISK,  /* put back; finish (failed) where it was taken over and must not run twice */
    STEP_LET_GO,   /* end, but for a container that was never started */
    STEP_IGNORE,   /* nothing happens now */
};

enum event {
    EVENT_DONE = 0,
    EVENT_FAULT,        /* the job's own fault, or a database that does not take what is written */
    EVENT_NEVER_RAN,    /* the infrastructure's; the container has not run for certain */
    EVENT_MAY_HAVE_RUN, /* the infrastructure's; it may have */
    EVENT_UNKNOWN,      /* the answer is lost */
    EVENT_AGAIN,        /* not done, for a passing reason */
    EVENT_RUNNING,      /* inspect: the container runs */
    EVENT_NOT_STARTED,  /* inspect: it was never started */
    EVENT_ADOPTED,      /* read: another worker has started it, and has died */
    EVENT_COLLECTED,    /* inspect: it has ended, and all that it left was fetched */
    EVENT_GONE,         /* what was to be fetched is not there: the file, or the container? */
    EVENT_LOST,         /* the row is gone, or somebody else has ended it */
    EVENT_TAKEN,        /* another worker owns it */
    EVENT_CHANGED,      /* what the outcome was made from is not so any more */
    EVENT_DEADLINE,     /* its time is up */
    EVENT_CANCEL,       /* somebody has cancelled it */
    EVENT_STOP,         /* we must leave now */
    EVENT_SPENT,        /* tried often enough */
    EVENT_COUNT,
};

/* Exit codes of a process group that its engine took along: killed, or the host went down under it. */
#define EXIT_KILLED    137
#define EXIT_HOST_DOWN 255

/* Why we have killed a container, or are about to. */
enum kill_cause { NOT_KILLED, KILLED_AT_DEADLINE, KILLED_AS_CANCELLED };

/* What jobs need of the engine, besides it being there: needs.c. The images come first. */
enum need_kind { NEED_QGIS, NEED_QGIS3, NEED_QGIS4, NEED_NETWORK, NEED_GRIDS, NEED_CA, NEED_COUNT };
struct need {
    bool looked;  /* for it, once at least */
    bool seen;    /* it has been there, once at least */
    bool missing; /* what needs it is not claimed */
};

#define THUMBNAIL_KEY_SIZE 1025 /* project.thumbnail is varchar(1024) */

/* A job's log as it is followed while the container runs: observe.c. */
struct followed {
    struct qfc_engine_call *call; /* under way, or null */
    struct qfc_excerpt kept;      /* in case the engine has thrown the beginning away by the end */
    struct qfc_buffer recent;     /* the end of it, for live output */
    uint64_t bytes;               /* that came */
    uint64_t skip;                /* that came before it broke, and come again */
    uint64_t began_ms, heard_ms;  /* the call; its last bytes */
    unsigned breaks;              /* what came may lack something from the first one on */
    bool ended;                   /* as it should: with the container */
    bool awaited;                 /* nothing but this is waited for */
};

/* What a container has used so far, as of the last look. */
struct usage {
    uint64_t cpu_ms;            /* of all processors together */
    uint64_t peak_memory_bytes; /* the largest that was seen */
    uint64_t received_bytes, sent_bytes;
    bool known;
};

/* One job that this worker has claimed. It owns all that lives as long as it does; lifecycle.c frees it. */
#define IO_DIRECTORY     "/io" /* of a container */
#define SHARED_PATH_SIZE 512

struct job {
    struct qfc_worker *worker;
    struct job *next; /* in the worker's list */
    struct qfc_job row;
    struct qfc_log_about about;
    uint64_t began_at_ms;                  /* claimed or taken over, on the loop's clock */
    const struct qfc_processor *processor; /* null: a type that nobody knows */

    enum step step;
    unsigned tries;   /* that were not done since the last step that was: the backoff grows with them */
    unsigned answers; /* of these, those that the other side was there for: too many are EVENT_SPENT */
    bool waiting;     /* for the timer, before the step is tried again */
    bool stopping;    /* EVENT_STOP is to come as soon as the step allows */
    bool cancelled;   /* EVENT_CANCEL likewise */
    bool adopted;     /* its container was started by a worker that has died */
    bool released;    /* so is its lock: the row is not ours any more */
    uv_timer_t timer; /* the next try, or at STEP_WAIT the deadline */

    PGresult **rows; /* what `read` brought */
    size_t row_count;
    struct qfc_plan plan;
    const char *image; /* the settings' */
    struct qfc_limits limits;
    unsigned timeout_s;
    char token[QFC_TOKEN_SIZE];

    char name[80];                         /* of the container */
    char shared[SHARED_PATH_SIZE];         /* its /io on the host, or "": shared_directory.c */
    char container[QFC_CONTAINER_ID_SIZE]; /* its id, or "" */
    enum need_kind looked_for;             /* the volume that is asked for before; NEED_COUNT: none */
    int (*after_volumes)(struct job *job, struct qfc_error *error);
    bool create_sent;             /* there may be a container of that name */
    struct qfc_buffer body;       /* of the creation; holds the token */
    struct qfc_buffer tar;        /* for /io */
    struct qfc_engine_call *wait; /* under way from start to the container's end, or null */
    bool wait_broken;             /* an answer about its end was lost: the engine may have been ended */
    unsigned kill_doubts;         /* how often it was looked who has killed it */
    uint64_t wait_began_ms;
    /* On the loop's clock, which counts from the machine's start: a job that was taken over may have begun before, and
     * wraps around. 0: not yet. */
    uint64_t prepared_at_ms, exited_at_ms;

    /* What is seen of it while it runs, for all who ask. */
    struct qfc_steps steps; /* its running step (current, began_ms on the loop's clock), and those that are done */
    struct usage usage;

    struct followed followed;
    struct qfc_engine_call *look;    /* at what it uses: under way, or null */
    uint64_t look_at_ms, show_at_ms; /* when the next is due */
    unsigned shown_changes;          /* steps.changes as last written into the row */
    uint64_t shown_bytes;            /* followed.bytes likewise */

    struct qfc_container_state state;
    enum kill_cause killed;
    struct qfc_excerpt log;
    bool beginning_seen; /* of the log that is fetched, and compared with what was followed */
    bool beginning_gone; /* the engine has thrown it away */
    bool log_lost;       /* the engine did not give it */
    bool collected;      /* nothing is left to be fetched */
    struct qfc_feedback feedback;
    bool has_feedback;
    struct qfc_error feedback_failure;

    struct qfc_buffer thumbnail;               /* the picture that the container left */
    char thumbnail_object[THUMBNAIL_KEY_SIZE]; /* its key in the project's storage, or "" */
    bool thumbnail_stored;
    PGresult **reviews; /* what `review` brought, or null */
    size_t review_count;
    bool written;               /* the outcome is committed */
    struct qfc_object *objects; /* to erase; owned, like their texts */
    size_t object_count;
    bool storage_silent; /* it did not answer */
    char *found;         /* keys below the project's prefix, as a PostgreSQL array; null: none */

    struct qfc_error failure; /* why it goes back, or fails by the worker's word */
    enum qfc_reason failure_reason;
    bool failed;               /* `failure` decides */
    bool never_ran;            /* then: the container has not run, or what it left is lost */
    bool counts;               /* the attempt counts against RETRY_MAX_ATTEMPTS */
    unsigned refusals;         /* of finish by the database */
    unsigned changes;          /* that made the outcome be made anew */
    uint64_t missing_since_ms; /* a table or column is not there; 0: all is */
    bool finish_unknown;       /* a finish may have been written although its answer was lost */
    enum qfc_reason reason;    /* how it has ended so far, for all who ask; QFC_REASON_NONE: well, or not yet */
    struct qfc_outcome outcome;
    struct qfc_buffer output; /* the container's log as text, and then what the outcome adds */
    size_t log_bytes;         /* of it */
};

/* What was seen again and again, and since when: sightings.c. */
struct sighting {
    char key[96];
    uint64_t since_ms;
    bool seen; /* in the present round */
};
struct sightings {
    struct sighting *items;
    size_t count, room;
};

/* Does the engine run containers at all? fitness.c */
struct fitness {
    unsigned jobs;           /* in a row whose containers came to nothing before their start */
    char job[QFC_UUID_SIZE]; /* the last of them */
    bool closed;             /* it does not: nothing is claimed, */
    bool trial;              /* but one job, now */
    unsigned trials;         /* that were in vain, or the closing */
};

struct qfc_worker {
    uv_loop_t loop;
    const struct qfc_settings *settings;
    enum qfc_worker_mode mode;
    struct qfc_http *http;
    struct qfc_engine *engine;
    struct qfc_queue *queue;
    struct qfc_stores *stores;
    struct qfc_fernet_key fernet_key;
    bool has_fernet_key;                /* SECRET_KEY is set */
    struct said_storage *said_storages; /* those that cannot be used, and whose reason was said */

    const struct qfc_companion *companion; /* what runs along, or null */
    struct qfc_counters counters;          /* monitor.c */
    double started_at;                     /* seconds since 1970 */

    struct job *jobs;
    unsigned job_count;
    bool asking;       /* a claim or a look is under way */
    bool news;         /* and something has happened since it was sent */
    bool said_waiting; /* --drain: what is pending cannot be claimed now */
    uv_timer_t poll;   /* the next look */
    uv_timer_t watch;  /* the next look at the rows that are ours */
    bool watching;
    uint64_t turn_ms;       /* a job was heard of while a question was under way: when to look; 0: none */
    uint64_t poll_delay_ms; /* until the next look; 0: not yet known */
    uint64_t upkeep_ms;     /* when it is due, on the loop's clock, like the next */
    unsigned rank, workers; /* our place among the workers that hear of new jobs, and their number */
    bool kept_up;           /* that is known, and */
    bool told;              /* whether triggers tell of new jobs */

    uv_timer_t recover;         /* the next look for jobs that have lost their owner: recovery.c */
    bool recovering;            /* it is under way */
    uint64_t recover_others_ms; /* on the loop's clock: before, only what this process has lost is taken */
    struct sightings unowned;   /* those that were seen */
    unsigned timeout_s;         /* the jobs' time limit as it was last read; 0: not yet */
    uv_timer_t sweep;           /* the next look for containers that nobody needs: sweep.c */
    struct sightings unwanted;  /* those that were seen */
    struct sightings unused;    /* and volumes */

    uv_timer_t observe;      /* the next look at jobs that run: observe.c */
    const struct job *shown; /* whose output is being written into its row, or null */
    bool showing;

    struct need needs[NEED_COUNT];
    uv_timer_t need_probe;
    bool needs_looking, needs_again;
    unsigned needs_failures;    /* looks in a row that came to nothing */
    bool needs_changed;         /* in this look: there may be something to claim now */
    enum need_kind need_looked; /* the one that is asked for */
    bool images_by_qgis;        /* this release chooses a project's image by its QGIS version */
    char ca_volume[256];        /* of a certificate authority of the deployment's own; "": none */
    struct guard *guard;        /* of the images: image_guard.c */
    struct fitness fitness;
    uv_timer_t trial; /* when a job is tried */
    char engine_version[16];
    unsigned identities; /* how often the engine has told another one than before, in this probe */
    char engine_id[128]; /* the engine's identity; "" where it tells none */
    char stack[192];     /* the label of this stack's containers */
    bool engine_ready;
    uint64_t engine_missed_ms; /* when it was last seen to be away, or to have ended what it was to tell; 0: never */
    bool probing;
    unsigned probe_failures;
    uv_timer_t probe;
    char engine_trouble[QFC_ERROR_MESSAGE_SIZE]; /* what was said last, so that it is said once */
    char database_trouble[QFC_ERROR_MESSAGE_SIZE];
    char claim_trouble[QFC_ERROR_MESSAGE_SIZE];
    char recovery_trouble[QFC_ERROR_MESSAGE_SIZE];
    bool shared_off; /* TMP_DIRECTORY is of no use */
    char sweep_trouble[QFC_ERROR_MESSAGE_SIZE];
    bool database_was_ready, engine_was_ready;

    uv_signal_t signals[4];
    uv_timer_t give_up; /* after the second signal */
    uv_timer_t service; /* the next sign of life for the service manager: service.c */
    unsigned signal_count;
    bool stopping, closing;
    enum qfc_exit exit_code;
};

/* job.c */

/* What each line of the log says of a job. The texts are the row's. */
struct qfc_log_about about_of(const struct qfc_job *row);

/* A job of the worker's, at no step yet; null (QFC_ERROR_MEMORY). */
struct job *job_new(struct qfc_worker *worker, const struct qfc_job *row, struct qfc_error *error);

/* Frees a job without writing anything. */
void job_drop(struct job *job);

/* lifecycle.c */

/* Takes over a claimed row and begins its life, or its way back when the worker is stopping. Returns 0 or -1
 * (QFC_ERROR_MEMORY: the row stays as it is). */
int job_begin(struct qfc_worker *worker, const struct qfc_job *row, struct qfc_error *error);

/* Takes over a job whose owner has died: its life goes on where it stands. Returns 0 or -1 (QFC_ERROR_MEMORY: the row
 * stays as it is). */
int job_adopt(struct qfc_worker *worker, const struct qfc_adoption *adoption, struct qfc_error *error);

/* Something happened to the job from outside of its step's operation. */
void job_happened(struct job *job, enum event event, const struct qfc_error *error);

/* observe.c: what is seen of a container while it runs. */

/* Begins to look at the container, if nobody does. */
void observe_begin(struct job *job);

/* Ends all of it; what was seen stays. */
void observe_end(struct job *job);

/* Is the log still being followed? Then follow_ended comes when that is over. */
bool await_follow(struct job *job);

/* Has the log been followed to its end, without a break? */
bool followed_whole(const struct job *job);

/* steps_after.c: what was awaited is over, one way or the other. */
void follow_ended(struct job *job);

/* "cpu 1.2 s, memory 34 MB, received 1.0 MB, sent 0.1 MB; Package Project 2.1 s, ..." */
void describe_observed(const struct job *job, char *text, size_t size);

/* reasons.c */

/* Why the job goes back or fails, from the event that decided it; `error` may be null. */
enum qfc_reason reason_of(struct job *job, enum event event, const struct qfc_error *error);

/* Is it an image, a network or a volume that is missing? */
bool is_missing(enum qfc_reason reason);

/* What the job's lines in the log are about, with its reason. */
struct qfc_log_about about_with_reason(const struct job *job, enum qfc_reason reason);

/* The step's operation has ended, well (`error` null) or not. */
void job_ended(struct job *job, const struct qfc_error *error);

/* The step's operation has ended in this event. */
void job_moved(struct job *job, enum event event, const struct qfc_error *error);

/* What a step is called in the table. */
const char *step_name(enum step step);

/* The jobs that take a slot. */
unsigned busy_jobs(const struct qfc_worker *worker);

/* Says that a job is left as it is, for another worker. */
void job_left_behind(const struct job *job);

/* steps_before.c, steps_after.c, steps_objects.c: start the step's one operation. 0: started, 1: there is nothing to do,
 * -1: error. */
typedef int step_start(struct job *job, struct qfc_error *error);
step_start start_read, start_create, start_put, start_prepare, start_start, start_wait, start_kill, start_inspect,
    start_logs, start_feedback, start_thumbnail, start_review, start_store, start_finish, start_revoke, start_remove,
    start_list, start_leftovers, start_erase, start_discard, start_put_back;

/* Ends the wait that runs beside the job's steps, if there is one. */
void cancel_wait(struct job *job);

/* The job's rows as processors see them. */
struct qfc_job_rows job_rows(const struct job *job);

/* What the transaction of finish has said, by the columns of its results: remarks to log, objects to erase. */
void take_results(struct job *job, const struct qfc_pg_results *results);

/* The thumbnail that was stored is nobody's: it is to be erased. */
void disown_thumbnail(struct job *job);

/* Frees the list of objects to erase. */
void forget_objects(struct job *job);

void forget_said_storages(struct qfc_worker *worker);

/* Takes the results out of a batch, for as long as the job lives; those that were there before are freed. Returns 0 or
 * -1 (QFC_ERROR_MEMORY). */
int keep_results(const struct qfc_pg_results *results, PGresult ***kept, size_t *count, struct qfc_error *error);

void forget_results(PGresult ***results, size_t *count);

/* Results of `read`: the fence, then these, then the processor's own. */
enum { ROWS_FENCE, ROWS_PROJECT, ROWS_LIMITS, ROWS_SECRETS, ROWS_PROCESSOR };

/* create.c */

/* The name of a job's container: of job, attempt and the process that the marker names. */
void name_container(struct job *job, const char *marker);

/* Sets job->image: by the project's QGIS version where the release chooses like that. -1: QFC_ERROR_INVALID. */
int choose_image(struct job *job, struct qfc_error *error);

/* Makes job->name and job->body. Returns 0 or -1. */
int describe_container(struct job *job, struct qfc_error *error);

/* scheduler.c */

/* Claims if there is a free slot and all that a job needs. May be called at any time. */
void schedule(struct qfc_worker *worker);

/* There may be a new job. */
void scheduler_news(void *userdata, unsigned about);

/* A job has ended and is about to be freed. */
void scheduler_job_ended(struct qfc_worker *worker);

/* Starts the periodic look at our rows. */
void scheduler_watch(struct qfc_worker *worker);

/* Looks at our rows now: the connection is new. */
void scheduler_watch_now(struct qfc_worker *worker);

/* One look for new jobs and for those that have lost their owner, where there would have been a look anyway: false
 * otherwise. */
bool scheduler_look(struct qfc_worker *worker);

/* The job of that id, or null. */
struct job *find_job(const struct qfc_worker *worker, const char *id);

/* recovery.c */

/* Begins to look for jobs that have lost their owner after `delay_ms`, and then every few seconds. */
void recovery_begin(struct qfc_worker *worker, uint64_t delay_ms);

/* The same, after the database could not be reached: what others had is left to them for a while. */
void recovery_after_absence(struct qfc_worker *worker);

/* There are some. */
void recovery_list(struct qfc_worker *worker);

/* For how long a thing must have been seen before it is mended: as given, but in a hurry for tests. */
uint64_t patience_ms(uint64_t ms);

/* monitor.c: what is counted, each called where it happens. `run_s`: 0 where it did not run; `reason`: the code of a
 * failure's, or null. */
void monitor_begin(struct qfc_worker *worker);
void monitor_claimed(struct qfc_worker *worker, const struct qfc_job *row);
void monitor_adopted(const struct job *job);
void monitor_started(const struct job *job);
void monitor_ended(const struct job *job, double run_s, const char *reason);
void monitor_put_back(const struct job *job);
void monitor_lost(const struct job *job);
/* service.c: tells the service manager that the worker is there, and from then on, where it asks for it, that its loop
 * lives; and that the worker is stopping. Nothing where there is no NOTIFY_SOCKET. */
void service_begin(struct qfc_worker *worker);
void service_stopping(void);

/* sweep.c: begins to look for containers that nobody needs. */
void sweep_begin(struct qfc_worker *worker);

/* sightings.c */

/* Marks `key` as seen; returns for how long it has been seen in each round, 0 for the first time. */
uint64_t sighted_for_ms(struct sightings *sightings, const char *key, uint64_t now_ms);

/* Ends a round: what was not seen in it is forgotten. */
void sightings_end_round(struct sightings *sightings);

void sightings_free(struct sightings *sightings);

/* gates.c: what must be there before a job is claimed. */

void engine_probe(struct qfc_worker *worker);
/* A job could not reach the engine: the next probe says so, if it cannot either. */
void engine_lost(struct qfc_worker *worker);
/* A sign that the engine goes, or has gone and come back. */
void engine_missed(struct qfc_worker *worker);
/* fitness.c: an engine that answers and runs no containers. */

/* A job's container came to nothing before its start. Returns whether that was certainly not the job's doing. */
bool engine_unfit(struct job *job, const struct qfc_error *error);

/* A container was started. */
void engine_fit(struct qfc_worker *worker);

/* For how many of so many free slots jobs may be claimed. */
unsigned fit_slots(const struct qfc_worker *worker, unsigned slots);

/* Is this something else than what was said last? Remembers it. */
bool is_news(char said[QFC_ERROR_MESSAGE_SIZE], const char *message);
void database_state(void *userdata, bool ready, const struct qfc_error *why, unsigned retry_ms);

/* needs.c: what jobs need of the engine besides. */

/* Looks for all of it, now. May be called at any time. */
void needs_look(struct qfc_worker *worker);

/* Is there all that every job needs? */
bool needs_met(const struct qfc_worker *worker);

/* Could a job not be run since the engine lacks what others need, too? They are not claimed until it is there. Returns
 * what is lacking, or NEED_COUNT. */
enum need_kind engine_lacks(struct job *job, const struct qfc_error *error);

/* The major versions of QGIS whose image is missing: at most 2, into `ret_majors`. */
size_t missing_qgis(const struct qfc_worker *worker, const char *ret_majors[2]);

/* Its name, as the settings call it; null where this deployment or this release has no need of it. */
const char *need_name(const struct qfc_worker *worker, enum need_kind kind);

/* It is missing, and should not be. */
bool need_is_trouble(const struct qfc_worker *worker, enum need_kind kind);

/* "image", "network" or "volume". */
const char *need_word(enum need_kind kind);

/* Goes on with `then`, once it is certain that the job's volumes are there; it is an error of its step when one is not
 * (REFUSED 404). As a step_start. */
int with_volumes(struct job *job, step_start *then, struct qfc_error *error);

/* image_guard.c: looks after the images. */
int guard_open(struct qfc_worker *worker, struct qfc_error *error);
void guard_close(struct qfc_worker *worker);

/* The engine has that image, or (`id` null) does not. */
void guard_saw(struct qfc_worker *worker, enum need_kind kind, const char *id);

/* worker.c: ends the worker when nothing is left to do. */
void stop_when_idle(struct qfc_worker *worker);
void stop_now(struct qfc_worker *worker, enum qfc_exit exit_code);

/*
 * shared_directory.c: /io through TMP_DIRECTORY. Makes the job's directory, with its files, where there is to be one
 * (else job->shared stays ""); puts it into the container's mounts; tells whether the engine has refused the container
 * because it does not see it (no further job gets one then, and this one is to be described again).
 */
struct qfc_confines;
struct qfc_container;
void shared_directory_make(struct job *job);
void shared_directory_mount(const struct job *job, struct qfc_confines *confines, struct qfc_container *container);
bool shared_directory_refused(struct job *job, const struct qfc_error *error);
/* Appends a plain file that fits into `out`; false: it must be asked for by the engine's API. */
bool shared_directory_read(const struct job *job, const char *name, struct qfc_buffer *out);
/* Removes the job's directory: its container is gone. */
void shared_directory_leave(struct job *job);
/* Removes directories without a container; `list` is the engine's, of all of this stack's. */
void shared_directory_sweep(struct qfc_worker *worker, const json_t *list);
