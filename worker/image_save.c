/*
 * Saving an image: look at it, begin a backup, export it by its id (its name may be given to another meanwhile), end the
 * backup.
 */
#include "image_work_private.h"

#include <stdlib.h>
#include <string.h>

static void tidy(struct qfc_image_work *work)
{
    qfc_backup_abort(work->writer);
    work->writer = NULL;
}

/* In a thread: the rest of the tar, and the end. */
static void finish_backup(struct qfc_image_work *work)
{
    struct qfc_backup_writer *writer = work->writer;
    if (work->block.size > 0 && qfc_backup_write(writer, work->block.data, work->block.size, &work->error) < 0)
        return;
    work->writer = NULL;
    qfc_backup_finish(writer, &work->watch, &work->result.backup, &work->error);
}

static void after_finish(struct qfc_image_work *work)
{
    work->result.how = QFC_IMAGE_DONE;
    work_end(work, work->error.kind ? &work->error : NULL);
}

static void write_block(struct qfc_image_work *work)
{
    qfc_backup_write(work->writer, work->block.data, work->block.size, &work->error);
    work->block.size = 0;
}

static void finish(struct qfc_image_work *work)
{
    uv_timer_stop(&work->timer);
    work->progress = (struct qfc_image_progress){.doing = "verifying"};
    work_in_thread(work, finish_backup, after_finish);
}

static void after_write(struct qfc_image_work *work)
{
    if (work->error.kind || work->failure.kind)
        work_end(work, work->error.kind ? &work->error : &work->failure);
    else if (work->ended)
        finish(work);
    else
        qfc_engine_resume(work->call);
}

static int on_piece(void *userdata, const char *data, size_t size)
{
    struct qfc_image_work *work = userdata;
    work->progress.bytes += (int64_t)size;
    if (qfc_buffer_append(&work->block, data, size) < 0)
        return -1;
    if (work->block.size < BLOCK_BYTES)
        return 0;
    work_in_thread(work, write_block, after_write);
    return QFC_HTTP_HOLD;
}

static void on_exported(void *userdata, const struct qfc_error *error, const struct qfc_engine_reply *reply)
{
    struct qfc_image_work *work = userdata;
    work->call = NULL;
    work->ended = true;
    if (error && work->in_thread) /* the thread has the writer */
        work->failure = *error;
    else if (error)
        work_end(work, error);
    else if (!work->in_thread)
        finish(work);
}

/* In a thread: is there a backup of it? Else one is begun. */
static void begin_backup(struct qfc_image_work *work)
{
    struct qfc_backup *backups;
    size_t count;
    if (qfc_backup_list(work->directory, work->image, &backups, &count, &work->error) < 0)
        return;
    for (size_t i = 0; i < count && !*work->result.backup.manifest; i++)
        if (strcmp(backups[i].id, work->result.id) == 0 && qfc_backup_is_there(work->directory, &backups[i]) &&
            (!work->order.thorough || qfc_backup_verify(work->directory, &backups[i], &work->watch, NULL) == 0))
            work->result.backup = backups[i];
    free(backups);
    if (!*work->result.backup.manifest)
        work->writer =
            qfc_backup_begin(work->directory, work->image, work->result.id, work->progress.total, &work->error);
}

static void after_begin(struct qfc_image_work *work)
{
    struct qfc_error error = QFC_NO_ERROR;
    if (work->error.kind || !work->writer) {
        work->result.how = QFC_IMAGE_WAS_THERE;
        work_end(work, work->error.kind ? &work->error : NULL);
        return;
    }
    work_watch(work, "exporting", work->progress.total);
    if (qfc_engine_export(work->order.engine, work->result.id, on_piece, on_exported, work, &work->call, &error) < 0)
        work_end(work, &error);
}

static void on_image(void *userdata, const struct qfc_error *error, const struct qfc_engine_reply *reply)
{
    struct qfc_image_work *work = userdata;
    work->call = NULL;
    if (error) {
        work_end(work, error);
        return;
    }
    work_copy_id(work->result.id, qfc_buffer_text(reply->data));
    work->progress = (struct qfc_image_progress){.doing = "checking", .total = reply->size_bytes};
    work_in_thread(work, begin_backup, after_begin);
}

struct qfc_image_work *qfc_image_save(const struct qfc_image_order *order, struct qfc_error *error)
{
    struct qfc_image_work *work = work_new(order, error);
    if (!work)
        return NULL;
    work->tidy = tidy;
    if (qfc_engine_image(order->engine, order->image, on_image, work, &work->call, error) == 0)
        return work;
    qfc_image_cancel(work);
    return NULL;
}
