/*
 * Saving an image out of the engine into a backup, and bringing a missing one back, on a loop: the engine's answers there,
 * the disk, compression and digests in libuv's threads, each held while the other is at work. For the worker's guard and
 * for commands.
 */
#pragma once

#include "qfc/engine.h"
#include "qfc/image_backup.h"

#include <uv.h>

struct qfc_image_work;

struct qfc_image_result {
    char id[QFC_IMAGE_ID_SIZE]; /* of the image */
    enum {
        QFC_IMAGE_WAS_THERE, /* save: the backup; restore: the image: nothing was to be done */
        QFC_IMAGE_NAMED,     /* restore: the engine still had it, and only its name was missing */
        QFC_IMAGE_DONE,      /* saved; loaded from the backup */
    } how;
    struct qfc_backup backup; /* but for a restore that needed none */
};

struct qfc_image_order {
    uv_loop_t *loop;
    struct qfc_engine *engine;
    const char *directory; /* of the backups; "": there are none. Copied, like all texts here */
    const char *image;     /* its name */
    const char *id;        /* restore: this one, whatever has the name now; null: any, where it is missing */
    const char *known_id;  /* restore: what had the name before, an id or another name; taken where the engine still has
                            * it. May be null */
    bool thorough;         /* save: is what is there read to its end, or only its size looked at? */
    /* A backup could not be used, and the one before it is tried. May be null. */
    void (*on_remark)(void *userdata, const char *remark);
    /* The end; `result` is null where `error` is not. Errors: those of the engine, of qfc/image_backup.h, and LOST: there
     * is no backup of it. Never from within the function that began it. */
    void (*on_done)(void *userdata, const struct qfc_error *error, const struct qfc_image_result *result);
    void *userdata;
};

/* Both return the work, valid until `on_done` or qfc_image_cancel, or null (QFC_ERROR_MEMORY, QFC_ERROR_BUG). */
struct qfc_image_work *qfc_image_save(const struct qfc_image_order *order, struct qfc_error *error);
struct qfc_image_work *qfc_image_restore(const struct qfc_image_order *order, struct qfc_error *error);

struct qfc_image_progress {
    const char *doing; /* "exporting", "verifying", "checking", "loading"; never null */
    int64_t bytes;     /* so far */
    int64_t total;     /* about; 0: not known */
};
struct qfc_image_progress qfc_image_progress(const struct qfc_image_work *work);

/* Ends it without a callback, leaving everything as it was before. A thread that is at work ends soon: the loop must run
 * until it has. */
void qfc_image_cancel(struct qfc_image_work *work);
