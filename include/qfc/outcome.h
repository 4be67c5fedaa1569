/*
 * How a run ended, and what of that is written into the job's row.
 */
#pragma once

#include "qfc/buffer.h"
#include "qfc/error.h"
#include "qfc/feedback.h"
#include "qfc/reasons.h"

#include <stdbool.h>
#include <stdint.h>

enum qfc_end {
    QFC_END_EXITED,    /* the container ended by itself, or was killed by someone else */
    QFC_END_DEADLINE,  /* we killed it: its time was up */
    QFC_END_CANCELLED, /* we killed it: somebody has cancelled the job */
    QFC_END_NO_RUN,    /* it never ran, or what it left is lost: `failure` says why */
};

/* What holds the container in: what fails by it is told with the setting that loosens it. */
struct qfc_confinement {
    bool read_only, unprivileged, few_processes;
};

/* What is known when the run is over. */
struct qfc_run {
    enum qfc_end end;
    int64_t exit_code;
    bool oom_killed;
    unsigned timeout_s;
    const struct qfc_feedback *feedback; /* null where it is absent or unreadable: `feedback_failure` says why */
    const struct qfc_error *feedback_failure;
    const struct qfc_error *failure; /* of the worker's own, or null */
    enum qfc_reason failure_reason;
    struct qfc_confinement confinement;
    const char *log_end; /* the end of what it has printed, or null */
};

/* What is written; free with qfc_outcome_free. `feedback` may point into the run's feedback, which must outlive it. */
struct qfc_outcome {
    bool finished;             /* else failed */
    enum qfc_reason reason;    /* of a failure */
    const char *advice;        /* what to do about it; never null, "" where there is nothing to be said */
    char told[1024];           /* the failure in its own words, for the log; "" when finished */
    const char *feedback;      /* the container's JSON object, or null where it does not count */
    char *extra;               /* JSON object laid over it: container_exit_code, error, error_origin, ...; owned */
    char output_end[2048];     /* what is added to the log, or "" */
    struct qfc_buffer wrapped; /* behind `feedback`, where that had to be made */
};

/* Decides. Returns 0 or -1 (QFC_ERROR_MEMORY). */
int qfc_outcome_decide(const struct qfc_run *run, struct qfc_outcome *ret_outcome, struct qfc_error *error);

void qfc_outcome_free(struct qfc_outcome *outcome);
