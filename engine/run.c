/*
 * Starting a container and waiting for its end.
 *
 * The wait (condition next-exit) is asked for first, and the start sent once its headers have come: they say that the
 * engine is waiting, so that no exit is missed however short the run. Docker sends them at once; other engines may
 * hold them back until the exit, so the start does not wait for them for ever.
 *
 * Podman can miss the exit of a container that is quick (it begins to listen after it has sent the headers, until May
 * 2026: https://github.com/containers/podman/issues/28514), and one whose clean-up has failed stays `stopped`, for
 * which its not-running does not look (pkg/api/handlers/utils/containers.go of 4.3.1). So there the container is looked
 * at now and then, too.
 */
#include "engine_private.h"

#include <jansson.h>
#include <string.h>

#define PATIENCE_MS 1000
#define LOOK_MS     5000

static uint64_t now_ms(void)
{
    return uv_hrtime() / 1000000;
}

/* {"StatusCode": 0, "Error": null or {"Message": "..."}}. Whatever else comes, the end is not known: UNKNOWN. */
static int read_exit(struct qfc_engine_call *call, struct qfc_http_response *response, struct qfc_error *error)
{
    json_t *answer = json_loadb(qfc_buffer_text(&response->body), response->body.size, 0, NULL);
    json_t *code = json_object_get(answer, "StatusCode");
    const char *message = json_string_value(json_object_get(json_object_get(answer, "Error"), "Message"));
    char words[QFC_ENGINE_WORDS_SIZE];
    int r = 0;

    if (message && *message) {
        qfc_engine_clean(message, strlen(message), words, sizeof words);
        r = qfc_fail(error, QFC_ERROR_UNKNOWN, 0, "%s: the engine could not tell its end: %s", call->what, words);
    } else if (!json_is_integer(code)) {
        r = qfc_engine_nonsense(call, error, "no StatusCode");
    } else {
        call->reply.exit_code = json_integer_value(code);
    }
    json_decref(answer);
    return r;
}

static void look_later(struct qfc_engine_call *call)
{
    if (!call->engine->podman)
        return;
    call->look_at = now_ms() + LOOK_MS;
    qfc_engine_arm_patience(call->engine);
}

/* Only an end that is known for certain ends the wait: whatever else is wrong, the wait itself will tell. */
static void on_looked(void *userdata, const struct qfc_error *failure, struct qfc_http_response *response)
{
    struct qfc_engine_call *call = userdata;
    struct qfc_error error = QFC_NO_ERROR;

    call->look = NULL;
    if (failure || response->status != 200 || qfc_engine_read_state(call, response, &error) < 0 ||
        call->reply.state.status != QFC_CONTAINER_EXITED) {
        look_later(call);
        return;
    }
    qfc_http_cancel(call->transfer);
    call->transfer = NULL;
    qfc_engine_call_end(call, call->done, NULL);
}

static void look(struct qfc_engine_call *call)
{
    struct qfc_buffer path = qfc_buffer(call->path.maximum);
    struct qfc_http_request request = {
        .method = "GET",
        .max_body_bytes = QFC_SMALL_ANSWER,
        .deadline_ms = call->engine->deadline_ms,
        .on_done = on_looked,
        .userdata = call,
    };

    call->look_at = 0;
    if (qfc_engine_path(&path, "/containers/%/json", call->id) < 0 ||
        qfc_engine_send(call->engine, &request, call->engine->api, qfc_buffer_text(&path), &call->look, NULL) < 0)
        look_later(call);
    qfc_buffer_free(&path);
}

static int begin_wait(struct qfc_engine_call *call, struct qfc_error *error)
{
    if (qfc_engine_call_send(call, error) < 0)
        return -1;
    look_later(call);
    return 0;
}

static const struct call_form wait_form = {
    .method = "POST",
    .max_body_bytes = QFC_SMALL_ANSWER,
    .endless = true,
    .begin = begin_wait,
    .read = read_exit,
};

int qfc_engine_wait(struct qfc_engine *engine, const char *id, QFC_ENGINE_END)
{
    struct qfc_engine_call *call = qfc_engine_call_new(engine, &wait_form, id, done, userdata, error);

    if (!call)
        return -1;
    qfc_engine_path(&call->path, "/containers/%/wait?condition=not-running", id);
    qfc_engine_call_name(call, "wait for container %.*s", qfc_engine_shown(id), id);
    return qfc_engine_call_submit(call, ret_call, error);
}

/* The start has failed, or was not even sent: the wait is of no use. */
static void fail_start(struct qfc_engine_call *call, const struct qfc_error *error)
{
    if (call->transfer)
        qfc_http_cancel(call->transfer);
    call->transfer = NULL;
    call->patience_until = 0;
    qfc_engine_arm_patience(call->engine);
    qfc_engine_call_end(call, call->started, error);
}

/* `failure` holds how the wait has ended, until `started` has been called. */
static void end_run(struct qfc_engine_call *call)
{
    qfc_engine_call_end(call, call->done, call->failure.kind ? &call->failure : NULL);
}

static void on_start_done(void *userdata, const struct qfc_error *failure, struct qfc_http_response *response)
{
    static const char start[] = "/containers/{id}/start"; /* the call's own path is that of the wait */
    struct qfc_engine_call *call = userdata;
    struct qfc_error error = QFC_NO_ERROR;

    call->start = NULL;
    if (failure)
        qfc_engine_lost(call, failure, &error);
    else if (response->status != 304 && (response->status < 200 || response->status > 299)) {
        response->status = qfc_engine_status("POST", start, response);
        qfc_engine_refused(call, start, response, &error);
    }
    if (error.kind) {
        fail_start(call, &error);
        return;
    }
    call->start_done = true;
    call->reply.status = response->status;
    call->reply.data = &call->data;
    qfc_engine_call_hold(call);
    call->started(call->userdata, NULL, &call->reply);
    if (!qfc_engine_call_release(call))
        return;
    if (call->wait_ended)
        end_run(call);
    else
        look_later(call);
}

static void send_start(struct qfc_engine_call *call)
{
    struct qfc_error error = QFC_NO_ERROR;
    struct qfc_buffer path = qfc_buffer(call->path.maximum);
    struct qfc_http_request request = {
        .method = "POST",
        .max_body_bytes = QFC_SMALL_ANSWER,
        .deadline_ms = call->engine->deadline_ms,
        .on_done = on_start_done,
        .userdata = call,
    };
    int r = qfc_engine_path(&path, "/containers/%/start", call->id) < 0 ? qfc_fail_memory(&error) : 0;

    call->patience_until = 0;
    qfc_engine_arm_patience(call->engine);
    if (r == 0)
        r = qfc_engine_send(call->engine, &request, call->engine->api, qfc_buffer_text(&path), &call->start, &error);
    qfc_buffer_free(&path);
    if (r < 0) {
        qfc_context(&error, "%s", call->what);
        fail_start(call, &error);
    }
}

/* When it is to be seen to; 0: not by time. */
static uint64_t due_at(const struct qfc_engine_call *call)
{
    return call->patience_until ? call->patience_until : call->look_at;
}

static void on_patience(uv_timer_t *timer)
{
    struct qfc_engine *engine = timer->data;
    struct qfc_engine_call *call;

    do {
        uint64_t now = now_ms();
        TAILQ_FOREACH (call, &engine->calls, link)
            if (due_at(call) && due_at(call) <= now)
                break;
        if (call && call->patience_until)
            send_start(call);
        else if (call)
            look(call);
    } while (call && !engine->closed);
    if (!engine->closed)
        qfc_engine_arm_patience(engine);
}

void qfc_engine_arm_patience(struct qfc_engine *engine)
{
    const struct qfc_engine_call *call;
    uint64_t now = now_ms(), first = UINT64_MAX;

    TAILQ_FOREACH (call, &engine->calls, link)
        if (due_at(call) && due_at(call) < first)
            first = due_at(call);
    if (first == UINT64_MAX)
        uv_timer_stop(&engine->patience);
    else
        uv_timer_start(&engine->patience, on_patience, first > now ? first - now : 0, 0);
}

static void on_wait_headers(void *userdata, int status)
{
    struct qfc_engine_call *call = userdata;

    if (status >= 200 && status <= 299 && call->patience_until)
        send_start(call);
}

static void on_wait_done(void *userdata, const struct qfc_error *failure, struct qfc_http_response *response)
{
    struct qfc_engine_call *call = userdata;
    bool sent = call->start || call->start_done;
    struct qfc_error error = QFC_NO_ERROR;

    call->transfer = NULL;
    if (failure)
        qfc_engine_lost(call, failure, &error);
    else if (response->status != 200)
        qfc_engine_refused(call, qfc_buffer_text(&call->path), response, &error);
    else
        read_exit(call, response, &error);
    if (!sent) { /* so nothing was started, whatever became of the wait */
        if (error.kind == QFC_ERROR_UNKNOWN || error.kind == QFC_ERROR_NONE)
            error.kind = QFC_ERROR_UNREACHABLE;
        fail_start(call, &error);
        return;
    }
    if (error.kind && error.kind != QFC_ERROR_MEMORY)
        error.kind = QFC_ERROR_UNKNOWN;
    call->failure = error;
    call->wait_ended = true;
    if (call->start_done)
        end_run(call);
}

static int begin_run(struct qfc_engine_call *call, struct qfc_error *error)
{
    struct qfc_http_request request = {
        .method = "POST",
        .max_body_bytes = QFC_SMALL_ANSWER,
        .on_headers = on_wait_headers,
        .on_done = on_wait_done,
        .userdata = call,
    };

    if (qfc_engine_send(call->engine, &request, call->engine->api, qfc_buffer_text(&call->path), &call->transfer,
                        error) < 0)
        return -1;
    call->patience_until = now_ms() + PATIENCE_MS;
    qfc_engine_arm_patience(call->engine);
    return 0;
}

static const struct call_form run_form = {.method = "POST", .max_body_bytes = QFC_SMALL_ANSWER, .begin = begin_run};

int qfc_engine_run(struct qfc_engine *engine, const char *id, qfc_engine_done *started, QFC_ENGINE_END)
{
    struct qfc_engine_call *call = qfc_engine_call_new(engine, &run_form, id, done, userdata, error);

    if (!call)
        return -1;
    call->started = started;
    qfc_engine_path(&call->path, "/containers/%/wait?condition=next-exit", id);
    qfc_engine_call_name(call, "start container %.*s", qfc_engine_shown(id), id);
    return qfc_engine_call_submit(call, ret_call, error);
}
