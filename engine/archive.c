/* Files into and out of containers: tar archives over the engine's API. */
#include "engine_private.h"

#include "qfc/tar.h"

/* What a tar adds to one file: headers, extended ones for long names and times, padding and the end. */
#define TAR_OVERHEAD (64u * 1024)

static const struct call_form put_form = {
    .method = "PUT",
    .content_type = "application/x-tar",
    .max_body_bytes = QFC_SMALL_ANSWER,
};

int qfc_engine_put_archive(struct qfc_engine *engine, const char *id, const char *directory, const void *tar,
                           size_t tar_size, QFC_ENGINE_END)
{
    struct qfc_engine_call *call = qfc_engine_call_new(engine, &put_form, id, done, userdata, error);

    if (!call)
        return -1;
    call->body = tar;
    call->body_size = tar_size;
    qfc_engine_path(&call->path, "/containers/%/archive?path=%", id, directory);
    qfc_engine_call_name(call, "put files into %s of container %.*s", directory, qfc_engine_shown(id), id);
    return qfc_engine_call_submit(call, ret_call, error);
}

static int on_archive(struct qfc_engine_call *call, const char *data, size_t size)
{
    size_t room = call->data.maximum - call->data.size;

    call->over = size > room;
    if (qfc_buffer_append(&call->data, data, call->over ? room : size) < 0)
        return qfc_fail_memory(&call->failure);
    return call->over ? -1 : 0;
}

/* There is no archive of nothing: this comes from an engine that is just being stopped. */
static bool is_empty(const struct qfc_buffer *tar)
{
    const char *data = qfc_buffer_text(tar);
    for (size_t i = 0; i < tar->size; i++)
        if (data[i])
            return false;
    return true;
}

/* Also what was cut off at the limit is looked at, so that the error says what is there. */
static int read_archive(struct qfc_engine_call *call, struct qfc_http_response *response, struct qfc_error *error)
{
    struct qfc_buffer file = qfc_buffer(call->max_file_bytes);

    if (is_empty(&call->data))
        return qfc_fail(error, QFC_ERROR_UNKNOWN, 0, "%s: an empty tar", call->what);
    if (qfc_tar_read_one(&call->data, &file, error) < 0) {
        qfc_buffer_free(&file);
        return qfc_context(error, "%s", call->what);
    }
    qfc_buffer_free(&call->data);
    call->data = file;
    if (call->over)
        return qfc_fail(error, QFC_ERROR_INVALID, 0, "%s: larger than %zu bytes", call->what, call->max_file_bytes);
    return 0;
}

static int archive_failed(struct qfc_engine_call *call, const struct qfc_error *failure, struct qfc_error *error)
{
    if (call->over)
        return read_archive(call, NULL, error);
    return qfc_engine_lost(call, call->failure.kind ? &call->failure : failure, error);
}

static const struct call_form get_form = {
    .method = "GET",
    .on_data = on_archive,
    .read = read_archive,
    .failed = archive_failed,
};

int qfc_engine_get_file(struct qfc_engine *engine, const char *id, const char *path, size_t max_bytes, QFC_ENGINE_END)
{
    struct qfc_engine_call *call = qfc_engine_call_new(engine, &get_form, id, done, userdata, error);

    if (!call)
        return -1;
    call->max_file_bytes = max_bytes;
    call->data = qfc_buffer(max_bytes + TAR_OVERHEAD);
    qfc_engine_path(&call->path, "/containers/%/archive?path=%", id, path);
    qfc_engine_call_name(call, "read the file %s of container %.*s", path, qfc_engine_shown(id), id);
    return qfc_engine_call_submit(call, ret_call, error);
}
