/* A container's log: the engine's frames taken off as they come, so that its size does not matter. */
#include "engine_private.h"

#include <stdio.h>
#include <string.h>

#define ENGINE_WORDS 256

/* What the engine itself has to say is kept: the log is not whole then. */
static int sink(void *userdata, enum qfc_frame_stream stream, const char *data, size_t size)
{
    struct qfc_engine_call *call = userdata;
    size_t room = call->data.maximum - call->data.size;

    if (stream == QFC_FRAME_ENGINE)
        return qfc_buffer_append(&call->data, data, size < room ? size : room) < 0 ? -1 : 0;
    if (call->on_log ? call->on_log(call->userdata, data, size) < 0
                     : call->on_followed(call->userdata, stream == QFC_FRAME_STDERR, data, size) < 0)
        return -1;
    return call->cancelled ? -1 : 0;
}

static int on_log_data(struct qfc_engine_call *call, const char *data, size_t size)
{
    return qfc_frames_push(&call->frames, data, size, sink, call, &call->failure);
}

static int read_end(struct qfc_engine_call *call, struct qfc_http_response *response, struct qfc_error *error)
{
    char words[QFC_ENGINE_WORDS_SIZE];

    if (call->data.size > 0) {
        qfc_engine_clean(call->data.data, call->data.size, words, sizeof words);
        return qfc_fail(error, QFC_ERROR_INVALID, 0, "%s: the engine broke off: %s", call->what, words);
    }
    if (!qfc_frames_complete(&call->frames))
        return qfc_engine_nonsense(call, error, "the log ends within a frame");
    return 0;
}

static int log_failed(struct qfc_engine_call *call, const struct qfc_error *failure, struct qfc_error *error)
{
    if (call->failure.kind == QFC_ERROR_NONE)
        return qfc_engine_lost(call, failure, error);
    *error = call->failure;
    return qfc_context(error, "%s", call->what);
}

static const struct call_form logs_form = {
    .method = "GET",
    .max_body_bytes = ENGINE_WORDS,
    .on_data = on_log_data,
    .read = read_end,
    .failed = log_failed,
};

int qfc_engine_logs(struct qfc_engine *engine, const char *id, qfc_engine_log *on_log, QFC_ENGINE_END)
{
    struct qfc_engine_call *call = qfc_engine_call_new(engine, &logs_form, id, done, userdata, error);

    if (!call)
        return -1;
    call->on_log = on_log;
    qfc_engine_path(&call->path, "/containers/%/logs?stdout=1&stderr=1", id);
    qfc_engine_call_name(call, "read the log of container %.*s", qfc_engine_shown(id), id);
    return qfc_engine_call_submit(call, ret_call, error);
}

static const struct call_form follow_form = {
    .method = "GET",
    .max_body_bytes = ENGINE_WORDS,
    .endless = true,
    .on_data = on_log_data,
    .read = read_end,
    .failed = log_failed,
};

int qfc_engine_follow(struct qfc_engine *engine, const char *id, qfc_engine_followed *on_log, QFC_ENGINE_END)
{
    struct qfc_engine_call *call = qfc_engine_call_new(engine, &follow_form, id, done, userdata, error);

    if (!call)
        return -1;
    call->on_followed = on_log;
    qfc_engine_path(&call->path, "/containers/%/logs?follow=1&stdout=1&stderr=1", id);
    qfc_engine_call_name(call, "follow the log of container %.*s", qfc_engine_shown(id), id);
    return qfc_engine_call_submit(call, ret_call, error);
}
