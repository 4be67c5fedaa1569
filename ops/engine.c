/*
 * The engine for commands: one call after another. The daemon uses qfc/engine.h as it is.
 */
#include "turns.h"

#define LOG_MAX_BYTES (64 * 1024)

int engine_open(struct turns *turns, const struct qfc_settings *settings, unsigned deadline_ms, struct qfc_error *error)
{
    const struct qfc_engine_options options = {
        .host = settings->docker_host,
        .tls_verify = settings->docker_tls_verify,
        .cert_path = *settings->docker_cert_path ? settings->docker_cert_path : NULL,
        .deadline_ms = deadline_ms,
    };
    turns->engine = qfc_engine_new(&turns->loop, turns->http, &options, error);
    return turns->engine ? 0 : -1;
}

void engine_answer_free(struct engine_answer *answer)
{
    qfc_buffer_free(&answer->data);
    qfc_buffer_free(&answer->log);
    *answer = (struct engine_answer){0};
}

void engine_ask_begin(struct turns *turns, struct engine_answer *answer)
{
    engine_answer_free(answer);
    answer->turns = turns;
    answer->log = qfc_buffer(LOG_MAX_BYTES);
    turns_begin(turns);
}

void engine_answered(void *userdata, const struct qfc_error *error, const struct qfc_engine_reply *reply)
{
    struct engine_answer *answer = userdata;
    if (error) {
        answer->error = *error;
    } else {
        answer->reply = *reply;
        answer->data = *reply->data;
        *reply->data = qfc_buffer(reply->data->maximum);
        answer->reply.data = NULL;
    }
    turns_end(answer->turns);
}

void engine_started(void *userdata, const struct qfc_error *error, const struct qfc_engine_reply *reply)
{
    if (error)
        engine_answered(userdata, error, NULL);
}

int engine_log(void *userdata, const char *data, size_t size)
{
    struct engine_answer *answer = userdata;
    size_t room = answer->log.maximum - answer->log.size;
    return qfc_buffer_append(&answer->log, data, size < room ? size : room) < 0 ? -1 : 0;
}

int engine_ask_end(struct engine_answer *answer, int begun, unsigned timeout_ms, struct qfc_error *error)
{
    if (begun < 0)
        return -1;
    if (turns_wait(answer->turns, timeout_ms, error) < 0) {
        qfc_engine_cancel(answer->call);
        return -1;
    }
    if (answer->error.kind == QFC_ERROR_NONE)
        return 0;
    if (error)
        *error = answer->error;
    return -1;
}
