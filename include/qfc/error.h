/*
 * Errors that gather context on their way up.
 *
 * A function that can fail takes a `struct qfc_error *` as its last argument and returns a negative number on
 * failure, 0 (or a positive, documented number) otherwise. Its `ret_` parameters are untouched on failure. The
 * message is one sentence for an operator, innermost cause last:
 *
 *     create container qfc-4f1c...-1: image "qgis3": No such image: qgis3:latest
 *
 * An error never allocates, so that "out of memory" can be reported like anything else, and owns nothing: it may be
 * copied by assignment and forgotten. Passwords, tokens and secret values never go into a message.
 */
#pragma once

#include <stdarg.h>

/* What kind of failure this is: code decides by the kind, never by the text. */
enum qfc_error_kind {
    QFC_ERROR_NONE = 0,
    QFC_ERROR_UNREACHABLE, /* the other side could not be reached: for certain nothing was sent */
    QFC_ERROR_UNKNOWN,     /* something was sent and the answer is lost: it may or may not have been done */
    QFC_ERROR_REFUSED,     /* the other side answered, and the answer is no: for certain not done */
    QFC_ERROR_AGAIN,       /* not done for a passing reason (lock timeout, deadlock, busy): worth another try */
    QFC_ERROR_INVALID,     /* what came in is malformed or over a limit; or, of a job: the job's own fault */
    QFC_ERROR_LOST,        /* the row is gone, or somebody else has ended it */
    QFC_ERROR_TAKEN,       /* the row is active, but another worker owns it */
    QFC_ERROR_CHANGED,     /* what was read before is not so any more: read again */
    QFC_ERROR_USAGE,       /* a wrong setting or command line */
    QFC_ERROR_MEMORY,      /* an allocation failed */
    QFC_ERROR_BUG,         /* a programming error of ours */
};

#define QFC_ERROR_MESSAGE_SIZE 1024

struct qfc_error {
    enum qfc_error_kind kind;
    int code;         /* HTTP status when an answer came, errno when a system call failed, else 0 */
    char sqlstate[6]; /* PostgreSQL's five characters, or "" */
    char message[QFC_ERROR_MESSAGE_SIZE];
};

/* The empty error, for initialising: `struct qfc_error error = QFC_NO_ERROR;`. */
#define QFC_NO_ERROR                                                                                                   \
    (struct qfc_error)                                                                                                 \
    {                                                                                                                  \
        .kind = QFC_ERROR_NONE                                                                                         \
    }

/*
 * Fills `error` (may be null: then nothing is kept) and returns -1, so that failing reads `return qfc_fail(...)`.
 * `code` as in struct qfc_error. No argument may point into `error` itself. A message longer than fits is cut and ends in
 * "...".
 */
int qfc_fail(struct qfc_error *error, enum qfc_error_kind kind, int code, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* qfc_fail with QFC_ERROR_MEMORY and the text "out of memory". */
int qfc_fail_memory(struct qfc_error *error);

/*
 * Puts "<context>: " before the message and returns -1, so that passing on reads `return qfc_context(...)`. Where both
 * do not fit, the context is kept whole and the old message is cut.
 */
int qfc_context(struct qfc_error *error, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The kind's name for logs and tests: "unreachable", "unknown", ... Never null. */
const char *qfc_error_kind_name(enum qfc_error_kind kind);
