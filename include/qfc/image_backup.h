/*
 * The directory of saved images (QFC_WORKER_IMAGE_BACKUP_DIR).
 *
 *   qfc-image-NAME-ID.json               manifest of one image id: see struct qfc_backup
 *   qfc-image-NAME-ID-TIME.tar.gz        the archive that it names, with its SHA-256
 *   .qfc-image-*                         what is being written; nobody's after a crash, and removed by the next save
 *   .qfc-image-lock                      locked (flock) by the one process that writes
 *
 * An archive never changes once it has its name, and the manifest is put in place last, by a rename: whatever dies, each
 * manifest names a whole archive. Everything here blocks: for a thread, or for a command.
 */
#pragma once

#include "qfc/error.h"
#include "qfc/image_archive.h"

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define QFC_BACKUPS_KEPT    2 /* of each image name */
#define QFC_IMAGE_NAME_SIZE 256

struct qfc_backup {
    char manifest[NAME_MAX + 1]; /* file name */
    char wrong[256];             /* why the manifest cannot be used, and then nothing else is set; or "" */
    char image[QFC_IMAGE_NAME_SIZE];
    char id[QFC_IMAGE_ID_SIZE];
    char archive[NAME_MAX + 1];
    char sha256[QFC_SHA256_SIZE]; /* of the archive file */
    char saved_at[32];            /* 2026-02-03T10:11:12.345678Z */
    int64_t archive_bytes, image_bytes;
};

/* The backups of one image name, or of all (`image` null), newest first. Returns 0 or -1 (USAGE: no such directory; the
 * message names it). The list is to be freed. */
int qfc_backup_list(const char *directory, const char *image, struct qfc_backup **ret_backups, size_t *ret_count,
                    struct qfc_error *error);

/* Is its archive there, with the size that it should have? */
bool qfc_backup_is_there(const char *directory, const struct qfc_backup *backup);

/* Opens a backup's archive and compares its size and SHA-256 with the manifest: that it is what was saved, and verified
 * then. Returns a file descriptor or -1: INVALID (what is wrong), CHANGED (`watch`), MEMORY. */
int qfc_backup_open(const char *directory, const struct qfc_backup *backup, struct qfc_watch *watch,
                    struct qfc_error *error);

/* The same, and reads all of it: qfc_image_archive_verify. Returns 0 or -1. */
int qfc_backup_verify(const char *directory, const struct qfc_backup *backup, struct qfc_watch *watch,
                      struct qfc_error *error);

/* A backup being written. */
struct qfc_backup_writer;

/* Takes the lock, removes what crashes have left, looks for room (`image_bytes`, which the compressed archive will not
 * need) and begins. Null: AGAIN (another process writes there), USAGE (no such directory, not writable), INVALID (no
 * room, or the disk's own error), MEMORY. */
struct qfc_backup_writer *qfc_backup_begin(const char *directory, const char *image, const char *id,
                                           int64_t image_bytes, struct qfc_error *error);

/* Compresses and writes a piece of the exported tar. Returns 0 or -1 (INVALID). */
int qfc_backup_write(struct qfc_backup_writer *writer, const void *data, size_t size, struct qfc_error *error);

/* Ends the archive, verifies all of it from the disk, puts it and its manifest in place, and removes what is more than
 * QFC_BACKUPS_KEPT of this name. The writer is freed, whatever comes of it. Returns 0 or -1 (INVALID, CHANGED, MEMORY):
 * then everything is as it was before. */
int qfc_backup_finish(struct qfc_backup_writer *writer, struct qfc_watch *watch, struct qfc_backup *ret_backup,
                      struct qfc_error *error);

/* Gives it up and frees it. Null is allowed. */
void qfc_backup_abort(struct qfc_backup_writer *writer);
