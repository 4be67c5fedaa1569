/*
 * Which version of the API is spoken: the engine is asked once (GET /version, which needs no version in its path), and
 * again when it could not be reached, as it may have been replaced meanwhile.
 */
#include "engine_private.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

/*
 * Ours. All that is used here exists since 1.40 (Docker 19.03, 2019). The changes up to 1.56 were read (moby/moby,
 * api/docs/CHANGELOG.md): none is to what is sent or read here. A newer version than FAVOURITE (Docker 27) is spoken only
 * where an engine speaks no older one.
 */
#define OWN_OLDEST 1040
#define FAVOURITE  1047
#define OWN_NEWEST 1056

/* "1.41" as 1041; -1 for anything else. */
static int parse_version(const char *text)
{
    unsigned major, minor;
    char rest;

    if (!text || strlen(text) > 8 || sscanf(text, "%u.%u%c", &major, &minor, &rest) != 2 || major > 99 || minor > 999)
        return -1;
    return (int)(major * 1000 + minor);
}

static int choose(struct qfc_engine *engine, const char *newest_text, const char *oldest_text, struct qfc_error *error)
{
    int newest = parse_version(newest_text), oldest = oldest_text && *oldest_text ? parse_version(oldest_text) : 0;

    if (newest < 0 || oldest < 0)
        return qfc_fail(error, QFC_ERROR_INVALID, 0, "%s answers, but not as a Docker engine does: no API version",
                        engine->where);
    if (newest < OWN_OLDEST)
        return qfc_fail(error, QFC_ERROR_REFUSED, 0,
                        "the engine at %s is too old: it speaks API %d.%d at most, and at least %d.%d is needed",
                        engine->where, newest / 1000, newest % 1000, OWN_OLDEST / 1000, OWN_OLDEST % 1000);
    if (oldest > OWN_NEWEST)
        return qfc_fail(error, QFC_ERROR_REFUSED, 0,
                        "the engine at %s is too new: it speaks API %d.%d at least, and this program %d.%d at most",
                        engine->where, oldest / 1000, oldest % 1000, OWN_NEWEST / 1000, OWN_NEWEST % 1000);
    if (newest > FAVOURITE)
        newest = oldest > FAVOURITE ? oldest : FAVOURITE;
    snprintf(engine->api, sizeof engine->api, "%d.%d", newest / 1000, newest % 1000);
    engine->api_known = true;
    return 0;
}

static int read_version(struct qfc_engine *engine, const struct qfc_http_response *response, struct qfc_error *error)
{
    json_t *version = json_loadb(qfc_buffer_text(&response->body), response->body.size, 0, NULL);
    int r = choose(engine, json_string_value(json_object_get(version, "ApiVersion")),
                   json_string_value(json_object_get(version, "MinAPIVersion")), error);

    engine->podman = qfc_engine_is_podman(version);
    json_decref(version);
    return r;
}

/* A server of TLS that takes not our certificate, or no TLS at all, often says no more than by hanging up. */
static const char *hint(const struct qfc_engine *engine, const struct qfc_error *failure)
{
    if (engine->socket || (failure->kind != QFC_ERROR_UNKNOWN && failure->kind != QFC_ERROR_INVALID))
        return "";
    return engine->tls ? "; does it accept the certificate in DOCKER_CERT_PATH?"
                       : "; where it speaks TLS, DOCKER_TLS_VERIFY must be set";
}

static int read_answer(struct qfc_engine *engine, const struct qfc_error *failure,
                       const struct qfc_http_response *response, struct qfc_error *error)
{
    char words[QFC_ENGINE_WORDS_SIZE];

    if (failure && failure->kind == QFC_ERROR_UNREACHABLE)
        return qfc_engine_unreachable(engine, failure, error);
    if (failure)
        return qfc_fail(error, failure->kind, failure->code, "ask the engine at %s for its version: %s%s",
                        engine->where, failure->message, hint(engine, failure));
    if (response->status == 200)
        return read_version(engine, response, error);
    qfc_engine_words(&response->body, words);
    if (response->status == 403 || response->status == 405)
        return qfc_engine_forbidden(response->status, "GET", "/version", "ask for the version", words, error);
    return qfc_fail(error, response->status == 503 || response->status == 429 ? QFC_ERROR_AGAIN : QFC_ERROR_REFUSED,
                    response->status, "ask the engine at %s for its version: it answered %d: %s", engine->where,
                    response->status, words);
}

static struct qfc_engine_call *first_waiting(struct qfc_engine *engine, unsigned round)
{
    struct qfc_engine_call *call;

    TAILQ_FOREACH (call, &engine->calls, link)
        if (call->state == CALL_WAITING && call->round == round)
            return call;
    return NULL;
}

/*
 * Nothing of a call that waited was sent, however the negotiation failed: it must not look as if its own answer was
 * lost (UNKNOWN) or was, say, a 404.
 */
static void fail_waiting(struct qfc_engine_call *call, const struct qfc_error *why)
{
    struct qfc_error error = *why;
    bool refused = error.kind == QFC_ERROR_REFUSED && error.code == 0;

    if (error.kind != QFC_ERROR_MEMORY && !refused) {
        if (error.kind != QFC_ERROR_UNREACHABLE)
            error.code = 0;
        error.kind = QFC_ERROR_UNREACHABLE;
    }
    qfc_context(&error, "%s", call->what);
    qfc_engine_call_end(call, call->started ? call->started : call->done, &error);
}

static void answer_probe(struct qfc_engine_call *call, const struct qfc_error *why)
{
    struct qfc_error error = *why;

    call->reply.status = 200;
    if (!error.kind && qfc_buffer_append_text(&call->data, call->engine->api) < 0)
        qfc_fail_memory(&error);
    qfc_engine_call_end(call, call->done, error.kind ? &error : NULL);
}

static void on_version(void *userdata, const struct qfc_error *failure, struct qfc_http_response *response)
{
    struct qfc_engine *engine = userdata;
    struct qfc_engine_call *call;
    struct qfc_error error = QFC_NO_ERROR;
    unsigned round = engine->round++; /* calls that come from now on belong to the next one */

    engine->negotiation = NULL;
    read_answer(engine, failure, response, &error);
    while (!engine->closed && (call = first_waiting(engine, round))) {
        if (engine->negotiation) /* asked for anew in one of these callbacks */
            call->round = engine->round;
        else if (call->form == &qfc_engine_probe_form)
            answer_probe(call, &error);
        else if (error.kind)
            fail_waiting(call, &error);
        else
            qfc_engine_call_go(call);
    }
}

int qfc_engine_negotiate(struct qfc_engine *engine, struct qfc_error *error)
{
    struct qfc_http_request request = {
        .method = "GET",
        .max_body_bytes = QFC_SMALL_ANSWER,
        .deadline_ms = engine->deadline_ms,
        .on_done = on_version,
        .userdata = engine,
    };

    engine->api_known = false;
    return qfc_engine_send(engine, &request, "", "/version", &engine->negotiation, error);
}

const struct call_form qfc_engine_probe_form = {.method = "GET", .max_body_bytes = sizeof((struct qfc_engine *)0)->api};

int qfc_engine_probe(struct qfc_engine *engine, QFC_ENGINE_END)
{
    struct qfc_engine_call *call =
        qfc_engine_call_new(engine, &qfc_engine_probe_form, "version", done, userdata, error);

    if (!call)
        return -1;
    qfc_engine_path(&call->path, "/version");
    qfc_engine_call_name(call, "ask the engine at %s for its version", engine->where);
    return qfc_engine_call_submit(call, ret_call, error);
}
