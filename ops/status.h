/* What the files of `status` share. */
#pragma once

#include "ops_private.h"

#include "qfc/buffer.h"

/*
 * status_text.c: the queue's state for people, lines that end in newlines. `width` columns and `height` lines at most; 0:
 * as many as there are. Where not all fits, long lists are cut first. Returns 0 or -1 (QFC_ERROR_MEMORY).
 */
int status_text(const struct qfc_report *report, const struct qfc_release *release, size_t width, size_t height,
                struct qfc_buffer *out, struct qfc_error *error);

#define STATUS_MAX_BYTES (256 * 1024)

/*
 * status_csv.c: appends one line to a file, with a line of heads at its beginning. The file is locked meanwhile; one
 * that would be larger than `maximum_bytes`, or has other heads, becomes FILE.1, that one FILE.2, up to FILE.5. -1:
 * QFC_ERROR_REFUSED with what the system said; the file has no part of a line then.
 */
int status_csv(const struct qfc_report *report, const char *path, size_t maximum_bytes, struct qfc_error *error);

/* status_watch.c: shows it again and again on the terminal, until somebody ends it. Returns an exit code. */
int status_watch(const struct qfc_settings *settings, double every_s);
