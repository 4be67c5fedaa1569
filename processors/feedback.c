/*
 * What the container says of its run. The JSON is cleaned by json_scan.c and goes to the database as it is; here is
 * only what the worker itself must know of it: was there an error, and which.
 */
#include "qfc/feedback.h"
#include "json_scan.h"

#include <stdlib.h>
#include <string.h>

/* Cleaning makes text longer: a raw control character becomes six bytes. Twice is more than Python's own output ever
 * needs ("NaN" to "null"), and keeps hostile input within bounds. */
#define CLEANED_MAX_BYTES (2 * (size_t)QFC_FEEDBACK_MAX_BYTES)

#define TEXT_MAX_BYTES 4096

enum { ERROR, ERROR_TYPE, MEMBERS_END };

/* No digit but 0 before the exponent: 0, -0, 0.00, 0e5. */
static bool is_zero(const char *json, size_t size)
{
    size_t mantissa = 0;
    while (mantissa < size && json[mantissa] != 'e' && json[mantissa] != 'E')
        mantissa++;
    for (size_t i = 0; i < mantissa; i++) {
        if (json[i] >= '1' && json[i] <= '9')
            return false;
    }
    return true;
}

/* [] or {}, with any white space between. */
static bool is_hollow(const char *json, size_t size)
{
    for (size_t i = 1; i + 1 < size; i++) {
        if (!strchr(" \t\r\n", json[i]))
            return false;
    }
    return true;
}

/* As Python sees the value. */
static bool is_falsy(const char *json, size_t size)
{
    switch (json[0]) {
    case '"':
        return size == 2;
    case '[':
    case '{':
        return is_hollow(json, size);
    case 't':
        return false;
    case 'f':
        return true;
    default:
        return is_zero(json, size);
    }
}

static enum qfc_feedback_error judge_error(const char *json, size_t size)
{
    if (size == 0 || json[0] == 'n')
        return QFC_FEEDBACK_NO_ERROR;
    return is_falsy(json, size) ? QFC_FEEDBACK_FALSY_ERROR : QFC_FEEDBACK_TRUTHY_ERROR;
}

/* Takes error and error_type out of the cleaned JSON. */
static int read_members(struct qfc_feedback *feedback, const struct json_member *members, struct qfc_error *error)
{
    const char *problem = feedback->json + members[ERROR].start, *type = feedback->json + members[ERROR_TYPE].start;
    feedback->error = judge_error(problem, members[ERROR].size);
    if (feedback->error != QFC_FEEDBACK_NO_ERROR) {
        feedback->error_text = json_text(problem, members[ERROR].size, TEXT_MAX_BYTES);
        if (!feedback->error_text)
            return qfc_fail_memory(error);
    }
    if (members[ERROR_TYPE].size > 0 && type[0] == '"') {
        feedback->error_type = json_text(type, members[ERROR_TYPE].size, TEXT_MAX_BYTES);
        if (!feedback->error_type)
            return qfc_fail_memory(error);
    }
    return 0;
}

int qfc_feedback_read(struct qfc_buffer *text, struct qfc_feedback *ret_feedback, struct qfc_error *error)
{
    struct json_member members[] = {
        [ERROR] = {.name = "error"},
        [ERROR_TYPE] = {.name = "error_type"},
        [MEMBERS_END] = {.name = NULL},
    };
    struct json_scan scan = {.members = members};
    struct qfc_buffer out = qfc_buffer(CLEANED_MAX_BYTES);
    if (text->size > QFC_FEEDBACK_MAX_BYTES)
        return qfc_fail(error, QFC_ERROR_INVALID, 0, "larger than %u bytes", QFC_FEEDBACK_MAX_BYTES);
    if (json_scan(qfc_buffer_text(text), text->size, &scan, &out, error) < 0) {
        qfc_buffer_free(&out);
        return -1;
    }
    struct qfc_buffer *clean = scan.as_it_is ? text : &out;
    struct qfc_feedback feedback = {
        .size = clean->size,
        .replaced_numbers = scan.replaced_numbers,
        .replaced_characters = scan.replaced_characters,
    };
    feedback.json = qfc_buffer_take(clean);
    qfc_buffer_free(text);
    feedback.is_object = feedback.json[strspn(feedback.json, " \t\r\n")] == '{';
    if (read_members(&feedback, members, error) < 0) {
        qfc_feedback_free(&feedback);
        return -1;
    }
    *ret_feedback = feedback;
    return 0;
}

void qfc_feedback_free(struct qfc_feedback *feedback)
{
    free(feedback->json);
    free(feedback->error_text);
    free(feedback->error_type);
    *feedback = (struct qfc_feedback){0};
}
