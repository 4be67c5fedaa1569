/*
 * The queue's state as data, for those who look at it: what waits, what runs, who works, how it went lately, what is in
 * the way. The questions are statements, so that a command asks them with libpq and the daemon through its own
 * connection; the answers are read into one structure.
 *
 * No question walks the history. What is pending or active is found by the index on the status, of each project that
 * waits one row is read. What has ended lately is found by the index on created_at, for nothing else leads there
 * (QFieldCloud's own worker does not touch updated_at, and finished_at has no index): of the jobs made in the last two
 * days the newest 30,000 are looked at. So a job that waited for a day and longer before it ended is not in the figures,
 * and where more than 30,000 were made in two days they reach back less: `history_s` says how far.
 */
#pragma once

#include "qfc/error.h"
#include "qfc/statements.h"

#include <libpq-fe.h>
#include <stdbool.h>
#include <stddef.h>

#define QFC_REPORT_RESULTS 7

/*
 * Adds QFC_REPORT_RESULTS statements, in which names are still to be expanded (qfc_statements_expand). They only read,
 * and belong into one transaction: the first one makes settings for its rest. Returns 0 or -1 (QFC_ERROR_MEMORY).
 */
int qfc_report_ask(struct qfc_statements *list, struct qfc_error *error);

/* Ages and durations are seconds on the database's clock, and -1 where there is none; texts are null then. Texts are as
 * they stand in the database: what is printed must be made harmless by whom prints it. */

/* Jobs that wait or are under way, by status ("pending", "queued", "started") and type. */
struct qfc_report_depth {
    const char *status;
    const char *type;
    long jobs;
    double oldest_s; /* since the oldest of them was made */
};

enum qfc_report_owner {
    QFC_OWNER_WORKER, /* a worker of ours lives and has it */
    QFC_OWNER_LOST,   /* ours, but nobody holds its lock: recovery takes it within seconds, where a worker is alive */
    QFC_OWNER_OLD,    /* `started` by QFieldCloud's own worker */
    QFC_OWNER_NOBODY, /* `queued` without a mark: by hand, by an import, or just now by QFieldCloud's own worker */
};

/* An active job; the longest under way come first, at most 500. */
struct qfc_report_running {
    const char *id;
    const char *status; /* "queued" or "started" */
    const char *type;
    const char *project_id;
    const char *project;    /* its name, null where the row is gone; the next likewise */
    const char *owner_name; /* the project's owner */
    double since_s;         /* since it was started; -1: it is not started yet */
    double age_s;           /* since it was made */
    enum qfc_report_owner owner;
    const char *worker;    /* 16 hexadecimal digits, as in the workers' `instance`; null: not ours */
    const char *host;      /* that worker's */
    const char *container; /* its id; null before there is one */
    const char *engine;    /* that the container is on; null where it is not known */
    const char *step; /* where live output is on: name of the workflow's step that runs (feedback.qfc_worker.step) */
    double step_s;    /* since it began (feedback.qfc_worker.step_since, a number: seconds since 1970) */
    long attempts;    /* this one included; 0: not known */
    bool cancel;      /* somebody has asked for its end (feedback.qfc_worker.cancel) */
};

/* A worker of ours whose session stands; at most 500. */
struct qfc_report_worker {
    const char *instance; /* 16 hexadecimal digits */
    const char *host;     /* cut to 36 bytes */
    const char *version;  /* null: of before it was told */
    long slots;           /* jobs that it can run at the same time; 0: not known */
    long jobs;            /* whose locks it holds */
    const char *address;  /* that it comes from; null: a socket, or not to be seen by this role */
    double connected_s;
    double silent_s; /* more than 20: it hangs, and the others end its session */
};

/* What keeps a project's jobs from being run; the longest come first, at most 100. */
struct qfc_report_blocked {
    const char *why; /* "locked": a file transfer holds the project (locked_at);
                             * "retry": its oldest job was put back and is not due yet;
                             * "lost", "nobody": an active job without a living owner, see qfc_report_owner;
                             * "overdue": a job of QFieldCloud's own worker that runs for more than an hour */
    const char *project_id;
    const char *project; /* name; null where the row is gone */
    const char *owner_name;
    const char *job;    /* the one that is in the way, or waits to be due; of a locked project its oldest */
    const char *reason; /* of "retry": why its last attempt came to nothing, or null */
    double since_s;     /* since it was locked, or started; of one that was not started, made (who has just claimed
                             * an old job is not told from who has left it: look twice); of "retry" negative: so long
                             * until it is due */
    long waiting;       /* the project's pending jobs; at least 1 of "locked" and "retry" */
};

/* Percentiles of seconds; all -1 where there is nothing. */
struct qfc_report_percentiles {
    double p50, p90, p99;
};

/* How the jobs went that ended within the last hour or day. */
struct qfc_report_window {
    const char *name; /* "hour" or "day" */
    const char *type; /* null: of all types together; there is one such row for each window, with zeros if need be */
    long finished, failed;
    double success;                     /* share of the finished ones, 0 to 1; -1: none has ended */
    struct qfc_report_percentiles wait; /* from making to (last) start, earlier attempts included */
    struct qfc_report_percentiles run;  /* from start to end, of those that had a container */
    double run_mean_s;
    long old; /* of them, run by QFieldCloud's own worker */
};

/* Why jobs have failed in the last day, of the newest 500; the most frequent reasons first, at most 20. */
struct qfc_report_reason {
    const char *reason; /* feedback.error_type, else the error's first line, cut at 100 characters */
    long jobs;
    double last_s;   /* since the newest */
    const char *job; /* that one's id */
};

struct qfc_report {
    const char *now; /* on the database's clock: "2026-02-03T10:11:12Z" */
    double now_s;    /* the same, seconds since 1970 */

    /* Pending jobs: */
    long pending;   /* all; the sum of the next four */
    long claimable; /* a worker with a free slot would take it now */
    long behind;    /* an older job of its project runs, or comes first */
    long locked;    /* their project is locked */
    long retry;     /* not due yet, with those behind them */
    double oldest_pending_s;
    double oldest_claimable_s; /* for so long nobody has taken what could be taken */

    long queued, started;
    long old_started;       /* of the started ones, those of QFieldCloud's own worker: at least so many of it live */
    long failures_in_a_row; /* jobs that failed since the last one finished, by their ends */
    double history_s;       /* how far back the figures below reach, at most two days */

    struct qfc_report_depth *depths;
    size_t depth_count;
    struct qfc_report_running *running;
    size_t running_count;
    struct qfc_report_worker *workers;
    size_t worker_count;
    struct qfc_report_blocked *blocked;
    size_t blocked_count;
    struct qfc_report_window *windows;
    size_t window_count;
    struct qfc_report_reason *reasons;
    size_t reason_count;

    PGresult *results[QFC_REPORT_RESULTS]; /* copies, which the texts belong to */
};

/*
 * Reads the results of qfc_report_ask's statements, in their order; they stay the caller's. Free with qfc_report_free.
 * Returns 0 or -1: QFC_ERROR_MEMORY, QFC_ERROR_BUG for other results.
 */
int qfc_report_read(PGresult *const *results, size_t count, struct qfc_report *ret_report, struct qfc_error *error);
void qfc_report_free(struct qfc_report *report);

/* The row of all types for "hour" or "day"; never null in a report that was read. */
const struct qfc_report_window *qfc_report_window_of(const struct qfc_report *report, const char *name);

/* "worker", "lost", "old" or "nobody". */
const char *qfc_report_owner_name(enum qfc_report_owner owner);
