/* What the files of the image guard share: image_guard.c, image_hold.c, image_culprit.c. */
#pragma once

#include "worker_private.h"

#include "qfc/events.h"
#include "qfc/image_work.h"

#define HOLD_NAME_SIZE 256

/* One of the images, by its need. */
struct guarded {
    char id[QFC_IMAGE_ID_SIZE];       /* as it was last seen; "": never */
    char saved_id[QFC_IMAGE_ID_SIZE]; /* that one is saved */
    bool missing;
    bool hold_due;                                     /* its holder is to be looked at */
    uint64_t missing_ms;                               /* since when, of uv_hrtime */
    uint64_t restore_due_ms, save_due_ms, hold_due_ms; /* not before, on the loop's clock */
    bool culprit_due;                                  /* who has removed it is to be said */
    char said[QFC_ERROR_MESSAGE_SIZE], hold_said[QFC_ERROR_MESSAGE_SIZE];
};

/* What has happened to images, as the engine tells it: the last of it. */
#define DEEDS 64
struct deed {
    char action[16]; /* "untag", "delete", "prune", or "network prune" */
    char id[QFC_IMAGE_ID_SIZE];
    int64_t time_ns;
};

struct guard {
    struct qfc_worker *worker;
    struct guarded images[NEED_NETWORK];
    struct qfc_image_work *work; /* under way, on the image `at`; or null */
    enum need_kind at;
    bool asking;             /* for the lock */
    bool holding;            /* image_hold.c is at work */
    uint64_t release_due_ms; /* holding is switched off: when to look whether something is left of it */
    struct hold *hold;

    struct qfc_events *events;
    bool told_deaf; /* that the engine does not tell its events */
    struct deed deeds[DEEDS];
    size_t deed_count;
    uv_timer_t tell;  /* who has removed what is missing */
    uint64_t calm_ms; /* on the loop's clock: names are being taken away until then, by a prune perhaps */
};

/* image_guard.c: image_hold.c has ended. */
void guard_held(struct guard *guard);

/* image_hold.c: sees to it that a running container and a second name hold the image; ends in guard_held. */
void hold_image(struct guard *guard, enum need_kind kind);

/* The second name of the image. */
void hold_name(const struct guard *guard, enum need_kind kind, char out[HOLD_NAME_SIZE]);

/* Holding is switched off: what holds images is let go; ends in guard_held. */
void release_images(struct guard *guard);

/* The worker ends. */
void hold_forget(struct guard *guard);

/* image_culprit.c: listens to the engine's events. */
int guard_listen(struct guard *guard, struct qfc_error *error);

/* Says, a little later, what the events tell about images that are missing, and looks at all of them again. */
void tell_culprit_soon(struct guard *guard);
