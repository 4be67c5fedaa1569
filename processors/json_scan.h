/*
 * A JSON text, checked and copied in one pass, so that PostgreSQL's jsonb takes the copy. Private to processors/.
 *
 * Accepted is RFC 8259 in UTF-8, and what Python's json module and careless writers add: NaN, Infinity, -Infinity, a
 * byte order mark, broken UTF-8 and raw control characters within strings. What is not replaced is copied byte by
 * byte: numbers, order, white space.
 */
#pragma once

#include "qfc/buffer.h"
#include "qfc/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* jsonb's own parser recurses, and so does Python's: it has about 1,000 levels for all that it does. */
#define JSON_MAX_LEVELS 500

/* A member of the topmost object that the caller wants to know the place of. */
struct json_member {
    const char *name;
    size_t start; /* where its value stands in the copy */
    size_t size;  /* bytes; 0: there is no such member. Of several the last counts. */
};

struct json_scan {
    struct json_member *members; /* null name ends the list */
    size_t replaced_numbers;
    size_t replaced_characters;
    bool as_it_is; /* nothing had to be replaced: the text is its own clean copy, and `out` is empty */
};

/*
 * Appends the clean copy to `out`, which must be empty, unless it would be the same, and fills in `scan`. Returns 0, or
 * -1: QFC_ERROR_INVALID
 * (`line 1 column 7: expected ","`; or over `out`'s maximum), QFC_ERROR_MEMORY; then `out` may hold a part.
 */
int json_scan(const char *data, size_t size, struct json_scan *scan, struct qfc_buffer *out, struct qfc_error *error);

/*
 * A value of a clean copy as text: a string is decoded, anything else is as it is. What is longer than `max_bytes` is
 * cut before the character that does not fit. The caller frees it; null: out of memory.
 */
char *json_text(const char *json, size_t size, size_t max_bytes);

#define JSON_ESCAPE_SIZE 6 /* \uXXXX */

/* The UTF-16 code unit of the \uXXXX at `at`, or -1 where there is none. */
int32_t json_code_unit(const unsigned char *at, const unsigned char *end);
bool json_is_high_surrogate(int32_t unit);
bool json_is_low_surrogate(int32_t unit);
