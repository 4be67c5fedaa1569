/*
 * Why a job ended as it did, or went back: one word for each, the same in feedback, log, metrics and status.
 */
#pragma once

#include <stdbool.h>

enum qfc_reason {
    QFC_REASON_NONE, /* it went well, or it is not over */
    /* The job's own. */
    QFC_REASON_JOB_ERROR,        /* its workflow says so */
    QFC_REASON_CONTAINER_FAILED, /* an exit code, and nobody says why */
    QFC_REASON_FEEDBACK_UNREADABLE,
    QFC_REASON_JOB_INVALID,     /* it cannot be run as it stands in the database */
    QFC_REASON_OUTCOME_REFUSED, /* what it has brought cannot be written */
    /* What it ran into. */
    QFC_REASON_OUT_OF_MEMORY,
    QFC_REASON_OUT_OF_DISK,
    QFC_REASON_READ_ONLY,
    QFC_REASON_NOT_PERMITTED,
    QFC_REASON_TOO_MANY_PROCESSES,
    QFC_REASON_TIMEOUT,
    /* What somebody did. */
    QFC_REASON_CANCELLED,
    QFC_REASON_DELETED,         /* job or project: there is no row to write to */
    QFC_REASON_ENDED_ELSEWHERE, /* somebody else has written its end */
    QFC_REASON_TAKEN_OVER,      /* another worker has it */
    QFC_REASON_WORKER_STOPPED,  /* this one was told to leave */
    QFC_REASON_WORKER_LOST,     /* before it started the container */
    QFC_REASON_SIGKILL,         /* from outside */
    /* The infrastructure's. */
    QFC_REASON_ENGINE_LOST,   /* it, or somebody, took the container away; how the job ended is not known */
    QFC_REASON_HOST_REBOOTED, /* under it */
    QFC_REASON_ENGINE_UNREACHABLE,
    QFC_REASON_ENGINE_REFUSED, /* to make, fill or start the container */
    QFC_REASON_EXEC_FAILED,    /* the image has not the program, or cannot run it */
    QFC_REASON_IMAGE_MISSING,
    QFC_REASON_NETWORK_MISSING,
    QFC_REASON_VOLUME_MISSING,
    QFC_REASON_COUNT,
};

struct qfc_reason_words {
    const char *code;     /* "OUT_OF_MEMORY"; "" for QFC_REASON_NONE */
    bool is_type;         /* the code is written as the feedback's error_type; the others' feedback speaks for itself */
    const char *sentence; /* what happened, for people */
    const char *advice;   /* what to do about it, one sentence; "" where the reason itself tells */
};

/* Never null. */
const struct qfc_reason_words *qfc_reason_words(enum qfc_reason reason);

/* The reason of that code, or QFC_REASON_NONE. */
enum qfc_reason qfc_reason_of(const char *code);
