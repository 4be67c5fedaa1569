/*
 * JSON as Python prints it. Private to processors/.
 *
 * The web application's audit log shows a JSON field as the text of json.dumps(value, sort_keys=True), and tells by
 * comparing such texts whether it has changed. What the worker writes there must look the same.
 */
#pragma once

#include "qfc/buffer.h"
#include "qfc/error.h"

#include <stdbool.h>
#include <stddef.h>

/* As many as feedback.json may have. */
#define PYTHON_JSON_MAX_LEVELS 1000

/*
 * Appends what json.dumps(json.loads(json), sort_keys=True) gives: ASCII, ", " and ": " between values, names in the
 * order of their characters, of equal names the last, floats as repr() prints them, integers of any length as they
 * are. `json` must be valid (a clean copy of json_scan, or PostgreSQL's own) and followed by a zero byte. Takes up to
 * four times its size in memory. Returns 0, or -1: QFC_ERROR_INVALID (nested too deep, or over `out`'s maximum),
 * QFC_ERROR_MEMORY; then `out` may hold a part.
 */
int python_json_print(const char *json, size_t size, struct qfc_buffer *out, struct qfc_error *error);

/*
 * Finds a member of a member ... of a valid JSON object by the names in `path` (ASCII, null-ended); of equal names the
 * last counts. Points `ret_json` into `json`. False: there is none.
 */
bool python_json_find(const char *json, size_t size, const char *const *path, const char **ret_json, size_t *ret_size);
