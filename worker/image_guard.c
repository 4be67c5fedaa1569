/*
 * Looks after the QGIS images. What is there is saved once (QFC_WORKER_IMAGE_BACKUP_DIR) and held
 * (QFC_WORKER_IMAGE_HOLD); what is missing is brought back. What the engine has, needs.c tells: on the engine's events,
 * and every minute.
 *
 * Of all workers on an engine one does it: the one whose session holds an advisory lock. It is asked for before each
 * work, since a session may have been lost. One work at a time, a missing image first. Nothing is ever pulled.
 */
#include "image_guard.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* After a failure; a missing image is waited for by jobs. */
#define SAVE_AGAIN_MS    600000
#define RESTORE_AGAIN_MS 10000
#define RELEASE_AGAIN_MS 60000
#define NEVER_THERE_MS   60000 /* nor is there a backup, so far */

static const char *directory(const struct guard *guard)
{
    return guard->worker->settings->image_backup_dir;
}

static void consider(struct guard *guard);

static void on_remark(void *userdata, const char *remark)
{
    const struct guard *guard = userdata;
    qfc_log(QFC_LOG_ERROR, NULL, "%s: %s", need_name(guard->worker, guard->at), remark);
}

static void tell_failure(struct guarded *image, const char *doing, const char *name, const struct qfc_error *error)
{
    if (is_news(image->said, error->message))
        qfc_log(QFC_LOG_ERROR, NULL, "%s image %s: %s; it is tried again, and this said once", doing, name,
                error->message);
}

static void tell_restored(const struct guarded *image, const char *name, const struct qfc_image_result *result)
{
    uint64_t took_ms = image->missing_ms ? (uv_hrtime() / 1000000) - image->missing_ms : 0;
    if (result->how == QFC_IMAGE_DONE)
        qfc_log(QFC_LOG_WARNING, NULL, "image %s is back after %.1f s: restored %.19s, as saved at %s", name,
                (double)took_ms / 1000, result->id, result->backup.saved_at);
    else if (result->how == QFC_IMAGE_NAMED)
        qfc_log(QFC_LOG_WARNING, NULL, "image %s is back after %.1f s: the engine still had %.19s, without its name",
                name, (double)took_ms / 1000, result->id);
}

static void on_restored(void *userdata, const struct qfc_error *error, const struct qfc_image_result *result)
{
    struct guard *guard = userdata;
    struct guarded *image = &guard->images[guard->at];
    const char *name = need_name(guard->worker, guard->at);
    guard->work = NULL;
    bool never_there = error && error->kind == QFC_ERROR_LOST && !*image->id; /* that it is missing was said */
    if (error && name && !never_there)
        tell_failure(image, "restore", name, error);
    else if (name && !error)
        tell_restored(image, name, result);
    guard->worker->counters.images_restored += result && result->how != QFC_IMAGE_WAS_THERE;
    if (error)
        image->restore_due_ms = uv_now(&guard->worker->loop) + (never_there ? NEVER_THERE_MS : RESTORE_AGAIN_MS);
    else
        image->said[0] = '\0';
    if (!error && image->culprit_due)
        tell_culprit_soon(guard);
    needs_look(guard->worker); /* which opens the gate, and brings us on */
}

static void on_saved(void *userdata, const struct qfc_error *error, const struct qfc_image_result *result)
{
    struct guard *guard = userdata;
    struct guarded *image = &guard->images[guard->at];
    const char *name = need_name(guard->worker, guard->at);
    guard->work = NULL;
    if (error) {
        bool busy = error->kind == QFC_ERROR_AGAIN; /* another host's worker saves in the same directory */
        image->save_due_ms = uv_now(&guard->worker->loop) + SAVE_AGAIN_MS / (busy ? 20 : 1);
        if (name && !busy && error->kind != QFC_ERROR_UNREACHABLE)
            tell_failure(image, "save", name, error);
    } else {
        snprintf(image->saved_id, sizeof image->saved_id, "%s", result->id);
        image->said[0] = '\0';
        guard->worker->counters.images_saved += result->how == QFC_IMAGE_DONE;
        if (name && result->how == QFC_IMAGE_DONE)
            qfc_log(QFC_LOG_INFO, NULL, "image %s is saved: %.19s, %lld MB in %s/%s", name, result->id,
                    (long long)result->backup.archive_bytes / 1000000, directory(guard), result->backup.archive);
    }
    consider(guard);
}

/* An image that this process has never seen may have its second name still; `room` is for that. */
static struct qfc_image_order order_for(struct guard *guard, enum need_kind kind, char room[HOLD_NAME_SIZE])
{
    const struct guarded *image = &guard->images[kind];
    hold_name(guard, kind, room);
    return (struct qfc_image_order){
        .loop = &guard->worker->loop,
        .engine = guard->worker->engine,
        .directory = directory(guard),
        .image = need_name(guard->worker, kind),
        .known_id = *image->id ? image->id : room,
        .on_remark = on_remark,
        .userdata = guard,
    };
}

static bool is_due(const struct guard *guard, uint64_t due_ms)
{
    return uv_now(&guard->worker->loop) >= due_ms;
}

/* A name that two of the settings share is one image. */
static bool is_double(const struct guard *guard, enum need_kind kind)
{
    const char *name = need_name(guard->worker, kind);
    return kind == NEED_QGIS4 && need_name(guard->worker, NEED_QGIS3) &&
           strcmp(name, need_name(guard->worker, NEED_QGIS3)) == 0;
}

static bool wants_restore(const struct guard *guard, enum need_kind kind)
{
    const struct guarded *image = &guard->images[kind];
    return need_name(guard->worker, kind) && !is_double(guard, kind) && image->missing &&
           is_due(guard, image->restore_due_ms);
}

static bool wants_save(const struct guard *guard, enum need_kind kind)
{
    const struct guarded *image = &guard->images[kind];
    return need_name(guard->worker, kind) && !is_double(guard, kind) && *directory(guard) && !image->missing &&
           *image->id && strcmp(image->id, image->saved_id) != 0 && is_due(guard, image->save_due_ms);
}

static bool wants_hold(const struct guard *guard, enum need_kind kind)
{
    const struct guarded *image = &guard->images[kind];
    return need_name(guard->worker, kind) && !is_double(guard, kind) && guard->worker->settings->image_hold &&
           !image->missing && *image->id && image->hold_due && is_due(guard, image->hold_due_ms) &&
           is_due(guard, guard->calm_ms);
}

/* The first image that wants it, or NEED_NETWORK. */
static enum need_kind first(const struct guard *guard, bool (*wants)(const struct guard *guard, enum need_kind kind))
{
    enum need_kind kind = NEED_QGIS;
    while (kind < NEED_NETWORK && !wants(guard, kind))
        kind++;
    return kind;
}

static bool is_active(const struct guard *guard)
{
    return *directory(guard) || guard->worker->settings->image_hold;
}

static bool has_work(const struct guard *guard)
{
    return first(guard, wants_restore) < NEED_NETWORK || first(guard, wants_hold) < NEED_NETWORK ||
           first(guard, wants_save) < NEED_NETWORK;
}

/* We are the one. A missing image goes before all else, and holding before saving, which takes long. */
static void work(struct guard *guard)
{
    struct qfc_error error = QFC_NO_ERROR;
    enum need_kind restore = first(guard, wants_restore), hold = first(guard, wants_hold);
    enum need_kind save = first(guard, wants_save);
    guard->at = restore < NEED_NETWORK ? restore : hold < NEED_NETWORK ? hold : save;
    if (guard->at == NEED_NETWORK)
        return;
    char room[HOLD_NAME_SIZE];
    struct qfc_image_order order = order_for(guard, guard->at, room);
    if (restore < NEED_NETWORK) {
        order.on_done = on_restored;
        guard->work = qfc_image_restore(&order, &error);
    } else if (hold < NEED_NETWORK) {
        hold_image(guard, guard->at);
    } else {
        order.on_done = on_saved;
        guard->work = qfc_image_save(&order, &error);
    }
    if (error.kind)
        qfc_log(QFC_LOG_ERROR, NULL, "look after image %s: %s", order.image, error.message);
}

static void on_lock(void *userdata, const struct qfc_error *error, const struct qfc_pg_results *results)
{
    struct guard *guard = userdata;
    guard->asking = false;
    if (!error && qfc_pg_true(results->items[results->count - 1], "held") && !guard->work && !guard->holding)
        work(guard);
}

/* Is there something to be done, and are we the one to do it? Letting go does nobody any harm who does it, too. */
static void consider(struct guard *guard)
{
    const struct qfc_worker *worker = guard->worker;
    if (guard->work || guard->holding || guard->asking || worker->stopping || worker->closing)
        return;
    if (!worker->settings->image_hold && is_due(guard, guard->release_due_ms)) {
        guard->release_due_ms = uv_now(&worker->loop) + RELEASE_AGAIN_MS;
        release_images(guard);
        return;
    }
    if (!is_active(guard) || !has_work(guard) || !qfc_queue_ready(worker->queue))
        return;
    guard->asking = qfc_queue_guard(worker->queue, worker->engine_id, on_lock, guard, NULL) == 0;
}

void guard_held(struct guard *guard)
{
    guard->holding = false;
    consider(guard);
}

static void note_missing(struct guard *guard, enum need_kind kind)
{
    struct guarded *image = &guard->images[kind];
    if (image->missing)
        return;
    image->missing = true;
    image->missing_ms = uv_hrtime() / 1000000;
    image->restore_due_ms = 0;
    image->culprit_due = true;
    tell_culprit_soon(guard);
    if (guard->work && !wants_restore(guard, guard->at)) { /* a save can wait */
        qfc_image_cancel(guard->work);
        guard->work = NULL;
    }
}

static void note_there(struct guard *guard, enum need_kind kind, const char *id)
{
    struct guarded *image = &guard->images[kind];
    bool other = strcmp(image->id, id) != 0;
    if (*image->id && other)
        qfc_log(QFC_LOG_INFO, NULL, "image %s is another one now: %.19s, it was %.19s", need_name(guard->worker, kind),
                id, image->id);
    if (other)
        image->save_due_ms = image->hold_due_ms = 0;
    snprintf(image->id, sizeof image->id, "%s", id);
    image->missing = false;
    image->hold_due = true; /* looked at again each time */
}

void guard_saw(struct qfc_worker *worker, enum need_kind kind, const char *id)
{
    struct guard *guard = worker->guard;
    if (!guard)
        return;
    if (id)
        note_there(guard, kind, id);
    else
        note_missing(guard, kind);
    consider(guard);
}

int guard_open(struct qfc_worker *worker, struct qfc_error *error)
{
    struct guard *guard = calloc(1, sizeof *guard);
    if (!guard)
        return qfc_fail_memory(error);
    guard->worker = worker;
    worker->guard = guard;
    uv_timer_init(&worker->loop, &guard->tell);
    guard->tell.data = guard;
    return guard_listen(guard, error);
}

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void guard_close(struct qfc_worker *worker)
{
    struct guard *guard = worker->guard;
    if (!guard)
        return;
    if (guard->work)
        qfc_image_cancel(guard->work);
    hold_forget(guard);
    qfc_events_free(guard->events);
    worker->guard = NULL;
    uv_close((uv_handle_t *)&guard->tell, on_closed);
}
