/*
 * tar in and out, in memory and within limits, over libarchive.
 */
#pragma once

#include "qfc/buffer.h"
#include "qfc/error.h"

#include <stddef.h>
#include <stdint.h>

struct qfc_tar_file {
    const char *name; /* relative, UTF-8, no ".." */
    const void *data;
    size_t size;   /* bytes */
    unsigned mode; /* permission bits, 0644 */
};

/* Appends a tar of regular files owned by 0:0 to `out`. Returns 0 or -1 (QFC_ERROR_INVALID: over `out`'s maximum;
 * QFC_ERROR_BUG: a name that is not as said above; QFC_ERROR_MEMORY), with `out` as it was. */
int qfc_tar_write(const struct qfc_tar_file *files, size_t count, struct qfc_buffer *out, struct qfc_error *error);

/*
 * Reads a tar that must hold exactly one entry, a regular file, whatever its name, and appends its content to `out`.
 * Nothing in the archive is believed: the size is what comes out, links, directories, devices and a second entry are
 * refused. The archive may have been cut off by the caller at some limit: a cut one is refused too, but its first
 * header is looked at before, so that the error says what it was (a directory, a symbolic link to X, ...).
 * What follows the archive's end marker is not looked at. The archive is of no use afterwards: it gives its memory back
 * as `out` grows (qfc_buffer_forget). Returns 0 or -1, with `out` as it was: QFC_ERROR_INVALID with what was found
 * ("not a regular file but a directory", "more than one file", "a broken tar: ..."), or, where more
 * came (or is announced) than `out` can hold, "larger than N bytes"; QFC_ERROR_MEMORY.
 */
int qfc_tar_read_one(struct qfc_buffer *tar, struct qfc_buffer *out, struct qfc_error *error);
