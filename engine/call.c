/*
 * The life of a call: submitted, held back until the version is known, sent, ended exactly once.
 *
 * A call may be cancelled, and the whole engine freed, in any callback of its own: a call whose callback is running is
 * held, and freed when that has returned.
 */
#include "engine_private.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define PATH_BYTES (64u * 1024)

static void destroy(struct qfc_engine_call *call)
{
    qfc_buffer_free(&call->path);
    qfc_buffer_free(&call->data);
    qfc_buffer_free(&call->lines.line);
    free(call->id);
    free(call->what);
    free(call);
}

struct qfc_engine_call *qfc_engine_call_new(struct qfc_engine *engine, const struct call_form *form, const char *id,
                                            qfc_engine_done *done, void *userdata, struct qfc_error *error)
{
    struct qfc_engine_call *call = calloc(1, sizeof *call);

    if (!call) {
        qfc_fail_memory(error);
        return NULL;
    }
    call->engine = engine;
    call->form = form;
    call->path = qfc_buffer(PATH_BYTES);
    call->data = qfc_buffer(form->max_body_bytes);
    call->done = done;
    call->userdata = userdata;
    call->id = strdup(id);
    if (!call->id) {
        destroy(call);
        qfc_fail_memory(error);
        return NULL;
    }
    return call;
}

void qfc_engine_call_name(struct qfc_engine_call *call, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    if (vasprintf(&call->what, format, arguments) < 0)
        call->what = NULL;
    va_end(arguments);
}

int qfc_engine_shown(const char *id)
{
    return strlen(id) == QFC_CONTAINER_ID_SIZE - 1 ? 12 : (int)strnlen(id, 200);
}

/* Docker gives containers ten seconds to end, and itself fifteen. */
#define DOUBT_MS 15000

void qfc_engine_doubt(struct qfc_engine *engine)
{
    engine->doubted_until = uv_hrtime() / 1000000 + DOUBT_MS;
}

int qfc_engine_send(struct qfc_engine *engine, struct qfc_http_request *request, const char *api, const char *path,
                    struct qfc_http_transfer **ret_transfer, struct qfc_error *error)
{
    struct qfc_http_tls tls = {.ca_file = engine->ca_file,
                               .certificate_file = engine->certificate_file,
                               .key_file = engine->key_file,
                               .verify = true};
    char *url;
    int r;

    if (asprintf(&url, "%s%s%s%s", engine->url, *api ? "/v" : "", api, path) < 0)
        return qfc_fail_memory(error);
    request->url = url;
    request->unix_socket = engine->socket;
    request->tls = engine->tls ? &tls : NULL;
    request->fresh = uv_hrtime() / 1000000 < engine->doubted_until;
    r = qfc_http_start(engine->http, request, ret_transfer, error);
    free(url);
    return r;
}

static int accept_answer(struct qfc_engine_call *call, struct qfc_http_response *response, struct qfc_error *error)
{
    const struct call_form *form = call->form;
    int status = response->status = qfc_engine_status(form->method, qfc_buffer_text(&call->path), response);
    bool accepted = status >= 200 && status < 300;

    if (!accepted && status != form->accepts[0] && status != form->accepts[1])
        return qfc_engine_refused(call, qfc_buffer_text(&call->path), response, error);
    if (strncasecmp(response->content_type, "text/html", 9) == 0)
        return qfc_engine_nonsense(call, error, "a page of HTML: is it an engine that answers there?");
    call->reply.status = status;
    return form->read ? form->read(call, response, error) : 0;
}

static void on_answer(void *userdata, const struct qfc_error *failure, struct qfc_http_response *response)
{
    struct qfc_engine_call *call = userdata;
    struct qfc_error error = QFC_NO_ERROR;
    int r;

    call->transfer = NULL;
    if (!failure)
        r = accept_answer(call, response, &error);
    else if (call->form->failed)
        r = call->form->failed(call, failure, &error);
    else
        r = qfc_engine_lost(call, failure, &error);
    if (r <= 0)
        qfc_engine_call_end(call, call->done, r < 0 ? &error : NULL);
}

static int on_data(void *userdata, const char *data, size_t size)
{
    struct qfc_engine_call *call = userdata;
    int r;

    qfc_engine_call_hold(call);
    r = call->form->on_data(call, data, size);
    return qfc_engine_call_release(call) ? r : -1;
}

static void on_headers(void *userdata, int status)
{
    struct qfc_engine_call *call = userdata;

    qfc_engine_call_hold(call);
    call->form->on_headers(call, status);
    qfc_engine_call_release(call);
}

static ssize_t read_body(void *userdata, char *out, size_t room)
{
    struct qfc_engine_call *call = userdata;
    ssize_t n;

    qfc_engine_call_hold(call);
    n = call->form->read_body(call, out, room);
    return qfc_engine_call_release(call) ? n : -1;
}

int qfc_engine_call_send(struct qfc_engine_call *call, struct qfc_error *error)
{
    const struct call_form *form = call->form;
    char type[64];
    const char *headers[] = {type, NULL};
    struct qfc_http_request request = {
        .method = form->method,
        .body = call->body,
        .body_size = call->body_size,
        .max_body_bytes = form->max_body_bytes,
        .deadline_ms = form->endless ? 0 : call->engine->deadline_ms,
        .bulk = form->bulk,
        .read_body = form->read_body ? read_body : NULL,
        .on_headers = form->on_headers ? on_headers : NULL,
        .on_data = form->on_data ? on_data : NULL,
        .on_done = on_answer,
        .userdata = call,
    };

    if (form->content_type) {
        snprintf(type, sizeof type, "Content-Type: %s", form->content_type);
        request.headers = headers;
    }
    return qfc_engine_send(call->engine, &request, call->engine->api, qfc_buffer_text(&call->path), &call->transfer,
                           error);
}

static int begin(struct qfc_engine_call *call, struct qfc_error *error)
{
    call->state = CALL_RUNNING;
    return call->form->begin ? call->form->begin(call, error) : qfc_engine_call_send(call, error);
}

void qfc_engine_call_go(struct qfc_engine_call *call)
{
    struct qfc_error error = QFC_NO_ERROR;

    if (begin(call, &error) == 0)
        return;
    qfc_context(&error, "%s", call->what);
    qfc_engine_call_end(call, call->started ? call->started : call->done, &error);
}

static int submit(struct qfc_engine_call *call, struct qfc_error *error)
{
    struct qfc_engine *engine = call->engine;

    if (!call->what || !call->path.size)
        return qfc_fail_memory(error);
    if (engine->closed || !call->id[0])
        return qfc_fail(error, QFC_ERROR_BUG, 0, "%s: %s", call->what,
                        engine->closed ? "the engine is being freed" : "no name was given");
    if (engine->api_known && !engine->negotiation && call->form != &qfc_engine_probe_form)
        return begin(call, error);
    call->round = engine->round;
    return engine->negotiation ? 0 : qfc_engine_negotiate(engine, error);
}

int qfc_engine_call_submit(struct qfc_engine_call *call, struct qfc_engine_call **ret_call, struct qfc_error *error)
{
    TAILQ_INSERT_TAIL(&call->engine->calls, call, link);
    if (submit(call, error) < 0) {
        TAILQ_REMOVE(&call->engine->calls, call, link);
        destroy(call);
        return -1;
    }
    if (ret_call)
        *ret_call = call;
    return 0;
}

void qfc_engine_call_end(struct qfc_engine_call *call, qfc_engine_done *last, const struct qfc_error *error)
{
    TAILQ_REMOVE(&call->engine->calls, call, link);
    call->state = CALL_ENDED;
    if (call->look)
        qfc_http_cancel(call->look);
    call->reply.data = &call->data;
    last(call->userdata, error, error ? NULL : &call->reply);
    destroy(call);
}

void qfc_engine_call_hold(struct qfc_engine_call *call)
{
    call->held = true;
}

bool qfc_engine_call_release(struct qfc_engine_call *call)
{
    call->held = false;
    if (!call->cancelled)
        return true;
    destroy(call);
    return false;
}

void qfc_engine_resume(struct qfc_engine_call *call)
{
    if (call->transfer)
        qfc_http_resume(call->transfer);
}

void qfc_engine_cancel(struct qfc_engine_call *call)
{
    if (call->state == CALL_ENDED || call->cancelled)
        return;
    if (call->transfer)
        qfc_http_cancel(call->transfer);
    if (call->start)
        qfc_http_cancel(call->start);
    if (call->look)
        qfc_http_cancel(call->look);
    call->transfer = call->start = call->look = NULL;
    TAILQ_REMOVE(&call->engine->calls, call, link);
    call->cancelled = true;
    if (call->patience_until || call->look_at)
        qfc_engine_arm_patience(call->engine);
    if (!call->held)
        destroy(call);
}
