/*
 * What the daemon knows of itself: counters since its start, its state, and the jobs that it has. How that is shown is
 * its companion's business: see qfc/worker.h.
 *
 * Everything here is read on the loop's thread, costs no question to anybody, and holds no secret.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct qfc_worker; /* a daemon that runs */

/* Upper ends of the histograms' buckets, in seconds; what took longer is in one more. */
#define QFC_BUCKETS 14
extern const double qfc_bucket_s[QFC_BUCKETS];

struct qfc_histogram {
    uint64_t counts[QFC_BUCKETS + 1]; /* each for itself, not summed up */
    double sum_s;
};

/* Of one job type; those that nobody knows are one, "other". */
#define QFC_MONITOR_TYPES 5
struct qfc_type_counters {
    const char *type;
    uint64_t claimed;
    uint64_t adopted; /* taken over from a worker that has died */
    uint64_t finished, failed;
    uint64_t put_back; /* to `pending`, for another attempt */
    uint64_t lost;     /* deleted, ended or taken over by somebody else meanwhile */
    /* Pickup: from the job's creation to its claim. Wait: to the start of its container. Both only of first attempts.
     * Run: from there to the container's end. */
    struct qfc_histogram pickup, wait, run;
    /* What containers have used, as far as was seen. */
    uint64_t cpu_ms, received_bytes, sent_bytes;
    uint64_t peak_memory_bytes; /* the largest of one container so far */
};

/* Something by its name: failed jobs by the code of their reason, steps of workflows by what containers call them. When
 * a table is full its last row takes the rest. */
#define QFC_MONITOR_NAMES 40
struct qfc_named_counter {
    char name[64]; /* "" ends the table */
    uint64_t count;
    uint64_t took_ms; /* of steps */
};

struct qfc_counters {
    struct qfc_type_counters types[QFC_MONITOR_TYPES];
    struct qfc_named_counter reasons[QFC_MONITOR_NAMES], steps[QFC_MONITOR_NAMES];
    uint64_t claims, claim_errors; /* questions for jobs, and those that failed */
    uint64_t looks;                /* cheaper ones: is there something to claim? */
    uint64_t database_connects;    /* how often the database was there, first or again */
    uint64_t database_errors;      /* connections that were lost or could not be made */
    uint64_t engine_errors;        /* calls that the engine refused or did not answer, in the course of jobs */
    uint64_t engine_absences;      /* how often it was found not to answer */
    /* How often one was found missing, so that nothing is claimed for it. */
    uint64_t images_missed, networks_missed, volumes_missed;
    uint64_t images_restored, images_saved; /* by this worker's guard */
};

/* Something that jobs need, and that the engine lacks: no job that needs it is claimed. */
struct qfc_missing {
    const char *kind; /* "image", "network" or "volume" */
    const char *name;
};
#define QFC_MONITOR_MISSING 6

/* The texts belong to the worker, and are valid until the loop goes on. */
struct qfc_state {
    double started_at;          /* seconds since 1970 */
    const char *marker;         /* names this process in the database: "qfc-worker:<instance>:<host>" */
    const char *release;        /* QFieldCloud's; "" before the first connection */
    unsigned slots, busy, jobs; /* jobs that take no slot any more only tidy up */
    bool stopping;
    bool database_ready, engine_ready;
    const char *database_trouble, *engine_trouble; /* why not; "" where it is, or was not asked yet */
    const char *engine_version;                    /* of its API; "" before its first answer, like the next */
    const char *engine_id;
    struct qfc_missing missing[QFC_MONITOR_MISSING];
    size_t missing_count;
};

/* A job that the worker has now. Texts as in struct qfc_state. */
struct qfc_running {
    const char *job, *project_id, *type;
    const char *project, *owner; /* names; "" where they are not known */
    const char *step;            /* of the worker's own steps: "create", "wait" */
    const char *workflow_step;   /* that runs in the container, as its log tells; "": none, or not known */
    const char *container;       /* id, or "" */
    unsigned attempt;
    double had_s;     /* since it was claimed or taken over */
    double started_s; /* since its container was started; negative: not yet */
};

const struct qfc_counters *qfc_monitor_counters(const struct qfc_worker *worker);
struct qfc_state qfc_monitor_state(const struct qfc_worker *worker);

/* Fills `ret_jobs` with up to `room` jobs; returns how many. */
size_t qfc_monitor_jobs(const struct qfc_worker *worker, struct qfc_running *ret_jobs, size_t room);

/*
 * Why no job could be claimed now, one sentence each, into `ret_reasons` (at most `room`); returns how many. None: the
 * worker is ready.
 */
#define QFC_MONITOR_REASON_SIZE 512
size_t qfc_monitor_reasons(const struct qfc_worker *worker, char ret_reasons[][QFC_MONITOR_REASON_SIZE], size_t room);

/* How many observations a histogram holds. */
uint64_t qfc_histogram_count(const struct qfc_histogram *histogram);
