/*
 * feedback.json: what the container says of its run, made fit for jsonb without being re-printed.
 *
 * The file is Python's JSON: NaN, Infinity, -Infinity and \u0000 can appear, lone surrogates too, and PostgreSQL's
 * jsonb refuses all of them. Numbers pass as they were written: a JSON library that parses and prints them would
 * change 0.1 and integers beyond 2^63.
 */
#pragma once

#include "qfc/buffer.h"
#include "qfc/error.h"

#include <stdbool.h>
#include <stddef.h>

/* The largest feedback.json that is taken, whatever QFC_WORKER_MAX_FEEDBACK_MB says. */
#define QFC_FEEDBACK_MAX_BYTES (64u * 1024 * 1024)

enum qfc_feedback_error {
    QFC_FEEDBACK_NO_ERROR = 0, /* no member `error`, or null */
    QFC_FEEDBACK_FALSY_ERROR,  /* "", 0, false, [] or {}: fails the job, but is nobody's error */
    QFC_FEEDBACK_TRUTHY_ERROR, /* anything else */
};

struct qfc_feedback {
    char *json;                 /* cleaned: valid for jsonb; owned */
    size_t size;                /* bytes */
    bool is_object;             /* false: some other JSON value */
    size_t replaced_numbers;    /* that became null: NaN, infinities, what is beyond a double or 4,000 digits */
    size_t replaced_characters; /* NUL, lone surrogates, broken UTF-8 that became U+FFFD */
    enum qfc_feedback_error error;
    char *error_text; /* the member `error` where it is a string, decoded, cut at 4 KB; else its JSON; null: none */
    char *error_type; /* the member `error_type` where it is a string, decoded; else null */
};

/*
 * Reads the text, and takes it over where it is good, so that there are no two of it. Of a member that appears twice the
 * last counts, as in Python and jsonb. Returns 0, or -1: QFC_ERROR_INVALID for what is not JSON (the message says where and what: `line 1 column 7: expected ","`),
 * nested deeper than 500 levels, or empty; QFC_ERROR_MEMORY.
 */
int qfc_feedback_read(struct qfc_buffer *text, struct qfc_feedback *ret_feedback, struct qfc_error *error);

void qfc_feedback_free(struct qfc_feedback *feedback);
