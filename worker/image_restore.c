/*
 * Bringing an image back: where the engine still has it, only its name is given again; else the newest backup that is as
 * it was saved is loaded, and looked for by its id. What is loaded has no name until it has proved to be the right one.
 */
#include "image_work_private.h"

#include <archive.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void try_backup(struct qfc_image_work *work);

static void close_file(struct qfc_image_work *work)
{
    if (work->unpacker)
        archive_read_free(work->unpacker);
    work->unpacker = NULL;
    if (work->fd >= 0)
        close(work->fd);
    work->fd = -1;
}

static const struct qfc_backup *backup(const struct qfc_image_work *work)
{
    return &work->backups[work->at];
}

/* The id that is asked for may be only its beginning. */
static bool is_wanted(const struct qfc_image_work *work, const char *id)
{
    size_t length = strlen(work->wanted_id);
    return strncmp(id, work->wanted_id, length) == 0 || strncmp(id + strlen("sha256:"), work->wanted_id, length) == 0;
}

/* This backup is of no use: the next one. */
static void refuse_backup(struct qfc_image_work *work, const struct qfc_error *error)
{
    char remark[QFC_ERROR_MESSAGE_SIZE + 64];
    close_file(work);
    uv_timer_stop(&work->timer);
    if (!work->any_refused)
        work->refusal = *error;
    work->any_refused = true;
    snprintf(remark, sizeof remark, "the backup of %s cannot be used: %s", backup(work)->saved_at, error->message);
    if (work->order.on_remark)
        work->order.on_remark(work->order.userdata, remark);
    work->at++;
    try_backup(work);
}

static void on_named(void *userdata, const struct qfc_error *error, const struct qfc_engine_reply *reply)
{
    struct qfc_image_work *work = userdata;
    work->call = NULL;
    work_end(work, error);
}

static void give_name(struct qfc_image_work *work, const char *id)
{
    struct qfc_error error = QFC_NO_ERROR;
    uv_timer_stop(&work->timer);
    work_copy_id(work->result.id, id);
    if (qfc_engine_tag(work->order.engine, id, work->image, on_named, work, &work->call, &error) < 0)
        work_end(work, &error);
}

/* Did the right one come? */
static void on_loaded_image(void *userdata, const struct qfc_error *error, const struct qfc_engine_reply *reply)
{
    struct qfc_image_work *work = userdata;
    struct qfc_error other = QFC_NO_ERROR;
    work->call = NULL;
    if (!error) {
        work->result.how = QFC_IMAGE_DONE;
        work->result.backup = *backup(work);
        give_name(work, backup(work)->id);
    } else if (error->kind == QFC_ERROR_REFUSED && error->code == 404) {
        qfc_fail(&other, QFC_ERROR_INVALID, 0, "the engine took it, but has no image %s now: it holds another one",
                 backup(work)->id);
        refuse_backup(work, &other);
    } else {
        work_end(work, error);
    }
}

/* The engine has answered, and no thread is at work. What the disk has said counts more. */
static void take_answer(struct qfc_image_work *work)
{
    const struct qfc_error error = work->error.kind ? work->error : work->failure;
    if (work->error.kind || error.kind == QFC_ERROR_REFUSED)
        refuse_backup(work, &error);
    else if (error.kind)
        work_end(work, &error);
    else
        work_ask_image(work, backup(work)->id, on_loaded_image);
}

static void on_loaded(void *userdata, const struct qfc_error *error, const struct qfc_engine_reply *reply)
{
    struct qfc_image_work *work = userdata;
    work->call = NULL;
    work->failure = error ? *error : QFC_NO_ERROR;
    if (!work->in_thread)
        take_answer(work);
}

static void fail_unpacking(struct qfc_image_work *work)
{
    const char *why = work->unpacker ? archive_error_string(work->unpacker) : NULL;
    qfc_fail(&work->error, QFC_ERROR_INVALID, 0, "read %s: %s", backup(work)->archive, why ? why : "no reason given");
}

/* The engine gets a plain tar: Podman takes no other. */
static void begin_unpacking(struct qfc_image_work *work)
{
    struct archive_entry *entry;
    work->unpacker = archive_read_new();
    if (!work->unpacker)
        qfc_fail_memory(&work->error);
    else if (lseek(work->fd, 0, SEEK_SET) < 0 || archive_read_support_format_raw(work->unpacker) != ARCHIVE_OK ||
             archive_read_support_filter_gzip(work->unpacker) != ARCHIVE_OK ||
             archive_read_open_fd(work->unpacker, work->fd, BLOCK_BYTES) != ARCHIVE_OK ||
             archive_read_next_header(work->unpacker, &entry) != ARCHIVE_OK)
        fail_unpacking(work);
}

/* In a thread: the next block. */
static void read_block(struct qfc_image_work *work)
{
    la_ssize_t n = archive_read_data(work->unpacker, work->block.data, BLOCK_BYTES);
    if (n < 0)
        fail_unpacking(work);
    work->block.size = n > 0 ? (size_t)n : 0;
    work->taken = 0;
    work->ended = n <= 0;
    work->read_bytes = archive_filter_bytes(work->unpacker, -1);
}

static void after_read(struct qfc_image_work *work)
{
    if (work->call)
        qfc_engine_resume(work->call);
    else
        take_answer(work);
}

static ssize_t read_more(void *userdata, char *out, size_t room)
{
    struct qfc_image_work *work = userdata;
    size_t left = work->block.size - work->taken;
    if (work->in_thread)
        return QFC_HTTP_LATER;
    if (left == 0 && work->ended)
        return work->error.kind ? -1 : 0;
    if (left == 0) {
        work_in_thread(work, read_block, after_read);
        return QFC_HTTP_LATER;
    }
    if (left > room)
        left = room;
    memcpy(out, work->block.data + work->taken, left);
    work->taken += left;
    work->progress.bytes = work->read_bytes;
    return (ssize_t)left;
}

static void after_check(struct qfc_image_work *work)
{
    struct qfc_error error = QFC_NO_ERROR;
    if (work->error.kind) {
        error = work->error;
        refuse_backup(work, &error);
        return;
    }
    work->block.size = work->taken = 0;
    work->read_bytes = 0;
    work->ended = false;
    work_watch(work, "loading", backup(work)->archive_bytes);
    if (qfc_engine_load(work->order.engine, work->image, read_more, on_loaded, work, &work->call, &error) < 0)
        work_end(work, &error);
}

/* In a thread. The block's memory is made here, once. */
static void check_backup(struct qfc_image_work *work)
{
    static const char nothing[BLOCK_BYTES];
    if (!work->block.data && qfc_buffer_append(&work->block, nothing, sizeof nothing) < 0) {
        qfc_fail_memory(&work->error);
        return;
    }
    work->fd = qfc_backup_open(work->directory, backup(work), &work->watch, &work->error);
    if (work->fd >= 0)
        begin_unpacking(work);
}

/* Has the engine still got that id? */
static void on_backup_image(void *userdata, const struct qfc_error *error, const struct qfc_engine_reply *reply)
{
    struct qfc_image_work *work = userdata;
    work->call = NULL;
    if (!error) {
        work->result.how = QFC_IMAGE_NAMED;
        work->result.backup = *backup(work);
        give_name(work, backup(work)->id);
    } else if (error->kind == QFC_ERROR_REFUSED && error->code == 404) {
        work->progress = (struct qfc_image_progress){.doing = "checking", .total = backup(work)->archive_bytes};
        work_in_thread(work, check_backup, after_check);
    } else {
        work_end(work, error);
    }
}

static void try_backup(struct qfc_image_work *work)
{
    struct qfc_error error = QFC_NO_ERROR;
    while (work->at < work->count && !is_wanted(work, backup(work)->id))
        work->at++;
    if (work->at < work->count) {
        work_ask_image(work, backup(work)->id, on_backup_image);
        return;
    }
    if (work->any_refused)
        error = work->refusal;
    else
        qfc_fail(&error, QFC_ERROR_LOST, 0, "there is no backup of it%s%s", *work->directory ? " in " : "",
                 work->directory);
    qfc_context(&error, "restore image %s", work->image);
    work_end(work, &error);
}

static void list_backups(struct qfc_image_work *work)
{
    if (*work->directory)
        qfc_backup_list(work->directory, work->image, &work->backups, &work->count, &work->error);
}

static void after_list(struct qfc_image_work *work)
{
    if (work->error.kind)
        work_end(work, &work->error);
    else
        try_backup(work);
}

static void look_for_backups(struct qfc_image_work *work)
{
    work_in_thread(work, list_backups, after_list);
}

static void on_known_image(void *userdata, const struct qfc_error *error, const struct qfc_engine_reply *reply)
{
    struct qfc_image_work *work = userdata;
    work->call = NULL;
    if (!error) {
        work->result.how = QFC_IMAGE_NAMED;
        give_name(work, qfc_buffer_text(reply->data));
    } else if (error->kind == QFC_ERROR_REFUSED && error->code == 404) {
        look_for_backups(work);
    } else {
        work_end(work, error);
    }
}

static void on_image(void *userdata, const struct qfc_error *error, const struct qfc_engine_reply *reply)
{
    struct qfc_image_work *work = userdata;
    work->call = NULL;
    if (error && !(error->kind == QFC_ERROR_REFUSED && error->code == 404)) {
        work_end(work, error);
        return;
    }
    if (!error)
        work_copy_id(work->result.id, qfc_buffer_text(reply->data));
    if (!error && is_wanted(work, work->result.id))
        work_end(work, NULL);
    else if (!*work->wanted_id && *work->known_id)
        work_ask_image(work, work->known_id, on_known_image);
    else
        look_for_backups(work);
}

struct qfc_image_work *qfc_image_restore(const struct qfc_image_order *order, struct qfc_error *error)
{
    struct qfc_image_work *work = work_new(order, error);
    if (!work)
        return NULL;
    work->tidy = close_file;
    work->result.how = QFC_IMAGE_WAS_THERE;
    if (qfc_engine_image(order->engine, order->image, on_image, work, &work->call, error) == 0)
        return work;
    qfc_image_cancel(work);
    return NULL;
}
