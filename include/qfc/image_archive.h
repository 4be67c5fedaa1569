/*
 * An exported image on disk, as a docker save makes it (manifest.json, configuration, layers; in newer engines also an OCI
 * layout), plain or compressed by gzip: is it whole, and is it that image? Blocks: for a thread, or for a command.
 */
#pragma once

#include "qfc/error.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define QFC_IMAGE_ID_SIZE 72 /* "sha256:" and 64 hexadecimal digits */
#define QFC_SHA256_SIZE   65 /* 64 hexadecimal digits */

/* What somebody else may look at, and stop, meanwhile. All zero at the beginning. */
struct qfc_watch {
    atomic_llong bytes; /* done so far, of the file */
    atomic_bool stop;   /* ends in QFC_ERROR_CHANGED, soon */
};

/* The SHA-256 of a whole file from its beginning, as hexadecimal digits, and its size. Returns 0 or -1: INVALID (it
 * cannot be read; `code` is the errno), CHANGED, MEMORY. `watch` may be null, here and below. */
int qfc_file_sha256(int fd, struct qfc_watch *watch, char ret_sha256[QFC_SHA256_SIZE], int64_t *ret_bytes,
                    struct qfc_error *error);

/*
 * Reads the whole archive from the file's beginning: every layer's SHA-256, unpacked where it is compressed, must be the
 * one that the image's configuration names, and the configuration's, or the OCI manifest's or index's, must be the
 * image's id ("sha256:..."). Nothing in it is believed, and nothing is written; memory is bounded whatever it holds.
 * Returns 0, or -1: INVALID with what is wrong ("layer 3 of 7 (blobs/sha256/...): its SHA-256 is ..."), CHANGED, MEMORY.
 */
int qfc_image_archive_verify(int fd, const char *id, struct qfc_watch *watch, struct qfc_error *error);
