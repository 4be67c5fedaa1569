/*
 * The life of a work on an image: its engine calls on the loop, its jobs in threads, one at a time. See qfc/image_work.h.
 */
#include "image_work_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* An engine of before 2024 writes the whole image aside before its export says the first word. */
#define LOOK_MS   10000
#define IDLE_MOST 90 /* looks without progress: 15 minutes */

static char *copy(const char *text)
{
    return strdup(text ? text : "");
}

struct qfc_image_work *work_new(const struct qfc_image_order *order, struct qfc_error *error)
{
    struct qfc_image_work *work = calloc(1, sizeof *work);
    if (!work) {
        qfc_fail_memory(error);
        return NULL;
    }
    work->order = *order;
    work->fd = -1;
    work->progress.doing = "looking";
    work->block = qfc_buffer(2 * BLOCK_BYTES);
    work->directory = copy(order->directory);
    work->image = copy(order->image);
    work->wanted_id = copy(order->id);
    work->known_id = copy(order->known_id);
    uv_timer_init(order->loop, &work->timer);
    work->timer.data = work->thread.data = work;
    if (work->directory && work->image && work->wanted_id && work->known_id)
        return work;
    qfc_fail_memory(error);
    qfc_image_cancel(work);
    return NULL;
}

static void on_closed(uv_handle_t *handle)
{
    struct qfc_image_work *work = handle->data;
    qfc_buffer_free(&work->block);
    free(work->backups);
    free(work->directory);
    free(work->image);
    free(work->wanted_id);
    free(work->known_id);
    free(work);
}

static void destroy(struct qfc_image_work *work)
{
    if (work->tidy)
        work->tidy(work);
    uv_close((uv_handle_t *)&work->timer, on_closed);
}

void work_end(struct qfc_image_work *work, const struct qfc_error *error)
{
    struct qfc_error why = error ? *error : QFC_NO_ERROR;
    if (work->call)
        qfc_engine_cancel(work->call);
    work->call = NULL;
    if (work->tidy)
        work->tidy(work);
    work->tidy = NULL;
    work->cancelled = true;
    work->order.on_done(work->order.userdata, error ? &why : NULL, error ? NULL : &work->result);
    destroy(work);
}

void qfc_image_cancel(struct qfc_image_work *work)
{
    if (work->cancelled)
        return;
    work->cancelled = true;
    atomic_store(&work->watch.stop, true);
    if (work->call)
        qfc_engine_cancel(work->call);
    work->call = NULL;
    if (!work->in_thread)
        destroy(work);
}

static void in_thread(uv_work_t *thread)
{
    struct qfc_image_work *work = thread->data;
    work->job(work);
}

static void after_thread(uv_work_t *thread, int status)
{
    struct qfc_image_work *work = thread->data;
    work->in_thread = false;
    if (work->cancelled)
        destroy(work);
    else
        work->after(work);
}

void work_in_thread(struct qfc_image_work *work, void (*job)(struct qfc_image_work *work),
                    void (*after)(struct qfc_image_work *work))
{
    work->job = job;
    work->after = after;
    work->in_thread = true;
    work->error = QFC_NO_ERROR;
    uv_queue_work(work->order.loop, &work->thread, in_thread, after_thread);
}

static void on_look(uv_timer_t *timer)
{
    struct qfc_image_work *work = timer->data;
    struct qfc_error error = QFC_NO_ERROR;
    if (!work->call || work->in_thread || work->progress.bytes != work->seen_bytes)
        work->idle = 0;
    work->seen_bytes = work->progress.bytes;
    if (++work->idle <= IDLE_MOST)
        return;
    uv_timer_stop(timer);
    qfc_fail(&error, QFC_ERROR_UNKNOWN, 0, "%s image %s: the engine has made no progress for %d minutes",
             work->progress.doing, work->image, IDLE_MOST * LOOK_MS / 60000);
    work_end(work, &error);
}

void work_watch(struct qfc_image_work *work, const char *doing, int64_t total)
{
    work->progress = (struct qfc_image_progress){.doing = doing, .total = total};
    work->seen_bytes = 0;
    work->idle = 0;
    uv_timer_start(&work->timer, on_look, LOOK_MS, LOOK_MS);
}

/* While a file is read through, the thread tells how far it is. */
struct qfc_image_progress qfc_image_progress(const struct qfc_image_work *work)
{
    struct qfc_image_progress progress = work->progress;
    if (strcmp(progress.doing, "verifying") == 0 || strcmp(progress.doing, "checking") == 0)
        progress.bytes = atomic_load(&work->watch.bytes);
    return progress;
}

void work_copy_id(char out[QFC_IMAGE_ID_SIZE], const char *id)
{
    static const char prefix[] = "sha256:";
    const char *digits = strncmp(id, prefix, sizeof prefix - 1) == 0 ? id + sizeof prefix - 1 : id;
    size_t length = strnlen(digits, QFC_SHA256_SIZE - 1);
    memcpy(out, prefix, sizeof prefix - 1);
    memcpy(out + sizeof prefix - 1, digits, length);
    out[sizeof prefix - 1 + length] = '\0';
}

void work_ask_image(struct qfc_image_work *work, const char *name, qfc_engine_done *done)
{
    struct qfc_error error = QFC_NO_ERROR;
    if (qfc_engine_image(work->order.engine, name, done, work, &work->call, &error) < 0)
        work_end(work, &error);
}
