/* What saving and restoring share: one work, its thread, its engine call. */
#pragma once

#include "qfc/buffer.h"
#include "qfc/image_work.h"

/* What goes through a thread at a time. */
#define BLOCK_BYTES (1024u * 1024)

struct qfc_image_work {
    struct qfc_image_order order; /* its texts are ours */
    struct qfc_image_progress progress;
    struct qfc_image_result result;
    char *directory, *image, *wanted_id, *known_id;
    bool cancelled;

    struct qfc_engine_call *call; /* under way, or null */
    uv_timer_t timer;             /* watches over a call that has no deadline */
    int64_t seen_bytes;           /* when it looked last */
    unsigned idle;                /* times that it has seen no progress */

    uv_work_t thread;
    bool in_thread;
    void (*job)(struct qfc_image_work *work);   /* in the thread; sets `error` */
    void (*after)(struct qfc_image_work *work); /* on the loop */
    void (*tidy)(struct qfc_image_work *work);  /* what the work has open, before it is freed */
    struct qfc_watch watch;
    struct qfc_error error;   /* the job's */
    struct qfc_error failure; /* the call's, that ended while the thread was at work */

    struct qfc_buffer block;
    size_t taken; /* load: bytes of the block that were sent */
    bool ended;   /* save: the export; load: the archive */

    /* save */
    struct qfc_backup_writer *writer;

    /* restore */
    struct qfc_backup *backups;
    size_t count, at;
    int fd;
    struct archive *unpacker; /* of what fd has */
    int64_t read_bytes;       /* of the file so far */
    bool any_refused; /* a backup could not be used; `refusal` says why the first could not */
    struct qfc_error refusal;
};

/* A work that has not begun. Null without memory. */
struct qfc_image_work *work_new(const struct qfc_image_order *order, struct qfc_error *error);

/* Runs `job` in a thread and then `after` on the loop, unless the work was cancelled meanwhile. */
void work_in_thread(struct qfc_image_work *work, void (*job)(struct qfc_image_work *work),
                    void (*after)(struct qfc_image_work *work));

/* Watches over a call that has no deadline: one that makes no progress for long ends in an error. */
void work_watch(struct qfc_image_work *work, const char *doing, int64_t total);

/* Ends the work; `error` is null where it went well. */
void work_end(struct qfc_image_work *work, const struct qfc_error *error);

/* "sha256:..." of what an engine calls an image's id (Podman leaves the prefix out at times). */
void work_copy_id(char out[QFC_IMAGE_ID_SIZE], const char *id);

/* Asks for an image. 0, or -1 and the work has ended. */
void work_ask_image(struct qfc_image_work *work, const char *name, qfc_engine_done *done);
