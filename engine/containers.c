/* Containers: what is asked, and what of the answer is kept. */
#include "engine_private.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define END_NOT_SEEN 255 /* exit code of a container that was running when the engine's host went down */

static json_t *parse(const struct qfc_http_response *response)
{
    return json_loadb(qfc_buffer_text(&response->body), response->body.size, 0, NULL);
}

static bool is_container_id(const char *id)
{
    size_t length = id ? strspn(id, "0123456789abcdef") : 0;

    return length > 0 && length < QFC_CONTAINER_ID_SIZE && id[length] == '\0';
}

static int read_id(struct qfc_engine_call *call, json_t *answer, struct qfc_error *error)
{
    const char *id = json_string_value(json_object_get(answer, "Id"));

    if (!is_container_id(id))
        return qfc_engine_nonsense(call, error, "no container id");
    strcpy(call->reply.id, id);
    return 0;
}

static int read_only_id(struct qfc_engine_call *call, struct qfc_http_response *response, struct qfc_error *error)
{
    json_t *answer = parse(response);
    int r = read_id(call, answer, error);

    json_decref(answer);
    return r;
}

/* Names of states: Docker's, and those that podman's compatible API adds. */
static int parse_status(const char *text, enum qfc_container_status *ret_status)
{
    static const struct {
        const char *name;
        enum qfc_container_status status;
    } names[] = {
        {"created", QFC_CONTAINER_CREATED},     {"configured", QFC_CONTAINER_CREATED},
        {"initialized", QFC_CONTAINER_CREATED}, {"running", QFC_CONTAINER_RUNNING},
        {"paused", QFC_CONTAINER_RUNNING},      {"restarting", QFC_CONTAINER_RUNNING},
        {"stopping", QFC_CONTAINER_RUNNING},    {"exited", QFC_CONTAINER_EXITED},
        {"stopped", QFC_CONTAINER_EXITED},      {"dead", QFC_CONTAINER_EXITED},
        {"removing", QFC_CONTAINER_EXITED},
    };

    for (size_t i = 0; text && i < sizeof names / sizeof *names; i++)
        if (strcmp(text, names[i].name) == 0) {
            *ret_status = names[i].status;
            return 0;
        }
    return -1;
}

/* "2026-01-02T03:04:05.678901234Z" in milliseconds since 1970; 0 for what is no time of these years. */
static int64_t parse_time_ms(const char *text)
{
    struct tm tm = {0};
    const char *rest = text ? strptime(text, "%Y-%m-%dT%H:%M:%S", &tm) : NULL;
    double fraction = rest && *rest == '.' ? strtod(rest, NULL) : 0;

    return rest && tm.tm_year > 70 ? (int64_t)timegm(&tm) * 1000 + (int64_t)(fraction * 1000) : 0;
}

static int64_t span_ms(const char *from, json_t *state)
{
    int64_t began = parse_time_ms(from), ended = parse_time_ms(json_string_value(json_object_get(state, "FinishedAt")));

    return began > 0 && ended > began ? ended - began : 0;
}

static bool is_going(json_t *state)
{
    const char *status = json_string_value(json_object_get(state, "Status"));
    return strcmp(status, "removing") == 0 || strcmp(status, "dead") == 0;
}

static bool has_time(json_t *state, const char *name)
{
    return parse_time_ms(json_string_value(json_object_get(state, name))) > 0;
}

/*
 * One that is being removed may never have been started. One that ran when its host went down, podman calls `created`
 * (up to 4.x) or `exited` with code 0 (5.x): see resetState in libpod/container_internal.go. But it has been started,
 * and nobody has seen its end; Docker gives such a one the code 255.
 */
static void correct_by_times(struct qfc_container_state *state, json_t *object)
{
    if (!json_is_string(json_object_get(object, "StartedAt")) || state->status == QFC_CONTAINER_RUNNING)
        return;
    if (!has_time(object, "StartedAt")) {
        state->status = QFC_CONTAINER_CREATED;
    } else if (!has_time(object, "FinishedAt") && state->exit_code == 0 && !is_going(object)) {
        state->status = QFC_CONTAINER_EXITED;
        state->exit_code = END_NOT_SEEN;
    }
}

static int read_state(struct qfc_engine_call *call, json_t *answer, struct qfc_error *error)
{
    struct qfc_container_state *state = &call->reply.state;
    json_t *object = json_object_get(answer, "State");
    json_t *exit_code = json_object_get(object, "ExitCode");
    const char *message = json_string_value(json_object_get(object, "Error"));
    const char *status = json_string_value(json_object_get(object, "Status"));

    if (read_id(call, answer, error) < 0)
        return -1;
    if (parse_status(status, &state->status) < 0)
        return qfc_engine_nonsense(call, error, "no known State.Status");
    if (!json_is_integer(exit_code))
        return qfc_engine_nonsense(call, error, "no State.ExitCode");
    strcpy(state->id, call->reply.id);
    state->exit_code = json_integer_value(exit_code);
    correct_by_times(state, object);
    if (state->status == QFC_CONTAINER_EXITED) {
        state->ran_ms = span_ms(json_string_value(json_object_get(object, "StartedAt")), object);
        state->lived_ms = span_ms(json_string_value(json_object_get(answer, "Created")), object);
    }
    state->going = is_going(object);
    state->oom_killed = json_is_true(json_object_get(object, "OOMKilled"));
    if (message)
        qfc_engine_clean(message, strlen(message), state->error, sizeof state->error);
    call->reply.exit_code = state->exit_code;
    return 0;
}

int qfc_engine_read_state(struct qfc_engine_call *call, struct qfc_http_response *response, struct qfc_error *error)
{
    json_t *answer = parse(response);
    int r = read_state(call, answer, error);

    json_decref(answer);
    return r;
}

/*
 * The name was taken: whose is it? It keeps 409 as the reply's status. 404 means that the one that had it has gone
 * meanwhile.
 */
static int read_holder(struct qfc_engine_call *call, struct qfc_http_response *response, struct qfc_error *error)
{
    if (response->status == 404) {
        *error = call->failure;
        error->kind = QFC_ERROR_AGAIN;
        return -1;
    }
    call->reply.status = 409;
    return read_only_id(call, response, error);
}

static const struct call_form holder_form = {
    .method = "GET",
    .max_body_bytes = QFC_SMALL_ANSWER,
    .accepts = {404},
    .read = read_holder,
};

static int read_created(struct qfc_engine_call *call, struct qfc_http_response *response, struct qfc_error *error)
{
    if (response->status != 409)
        return read_only_id(call, response, error);
    qfc_engine_refused(call, qfc_buffer_text(&call->path), response, &call->failure);
    call->form = &holder_form;
    call->body = NULL;
    call->body_size = 0;
    qfc_buffer_free(&call->path);
    if (qfc_engine_path(&call->path, "/containers/%/json", call->id) < 0)
        return qfc_fail_memory(error);
    return qfc_engine_call_send(call, error) < 0 ? qfc_context(error, "%s", call->what) : 1;
}

static const struct call_form create_form = {
    .method = "POST",
    .content_type = "application/json",
    .max_body_bytes = QFC_SMALL_ANSWER,
    .accepts = {409},
    .read = read_created,
};

int qfc_engine_create(struct qfc_engine *engine, const char *name, const char *json, size_t json_size, QFC_ENGINE_END)
{
    struct qfc_engine_call *call = qfc_engine_call_new(engine, &create_form, name, done, userdata, error);

    if (!call)
        return -1;
    call->body = json;
    call->body_size = json_size;
    qfc_engine_path(&call->path, "/containers/create?name=%", name);
    qfc_engine_call_name(call, "create container %s", name);
    return qfc_engine_call_submit(call, ret_call, error);
}

/* A call about one container whose path is all that differs. */
static int submit(struct qfc_engine *engine, const struct call_form *form, const char *verb, const char *path,
                  const char *id, QFC_ENGINE_END)
{
    struct qfc_engine_call *call = qfc_engine_call_new(engine, form, id, done, userdata, error);

    if (!call)
        return -1;
    qfc_engine_path(&call->path, path, id);
    qfc_engine_call_name(call, "%s container %.*s", verb, qfc_engine_shown(id), id);
    return qfc_engine_call_submit(call, ret_call, error);
}

static const struct call_form inspect_form = {
    .method = "GET",
    .max_body_bytes = QFC_SMALL_ANSWER,
    .read = qfc_engine_read_state,
};

int qfc_engine_inspect(struct qfc_engine *engine, const char *id, QFC_ENGINE_END)
{
    return submit(engine, &inspect_form, "inspect", "/containers/%/json", id, done, userdata, ret_call, error);
}

static const struct call_form start_form = {.method = "POST", .max_body_bytes = QFC_SMALL_ANSWER, .accepts = {304}};

int qfc_engine_start(struct qfc_engine *engine, const char *id, QFC_ENGINE_END)
{
    return submit(engine, &start_form, "start", "/containers/%/start", id, done, userdata, ret_call, error);
}

static const struct call_form kill_form = {
    .method = "POST",
    .max_body_bytes = QFC_SMALL_ANSWER,
    .accepts = {404, 409},
};

int qfc_engine_kill(struct qfc_engine *engine, const char *id, QFC_ENGINE_END)
{
    return submit(engine, &kill_form, "kill", "/containers/%/kill?signal=KILL", id, done, userdata, ret_call, error);
}

static const struct call_form remove_form = {
    .method = "DELETE",
    .max_body_bytes = QFC_SMALL_ANSWER,
    .accepts = {404, 409},
};

int qfc_engine_remove(struct qfc_engine *engine, const char *id, QFC_ENGINE_END)
{
    return submit(engine, &remove_form, "remove", "/containers/%?force=1&v=1", id, done, userdata, ret_call, error);
}

static const struct call_form remove_idle_form = {
    .method = "DELETE",
    .max_body_bytes = QFC_SMALL_ANSWER,
    .accepts = {404},
};

int qfc_engine_remove_idle(struct qfc_engine *engine, const char *id, QFC_ENGINE_END)
{
    return submit(engine, &remove_idle_form, "remove", "/containers/%?v=1", id, done, userdata, ret_call, error);
}

/* The engine's own text, as it came, handed on. */
static int read_list(struct qfc_engine_call *call, struct qfc_http_response *response, struct qfc_error *error)
{
    const char *text = qfc_buffer_text(&response->body);

    if (text[strspn(text, " \t\r\n")] != '[')
        return qfc_engine_nonsense(call, error, "no list");
    call->data = response->body;
    response->body = qfc_buffer(0);
    return 0;
}

static const struct call_form list_form = {
    .method = "GET",
    .max_body_bytes = QFC_LARGE_ANSWER,
    .read = read_list,
};

int qfc_engine_list(struct qfc_engine *engine, const char *label, QFC_ENGINE_END)
{
    struct qfc_engine_call *call = qfc_engine_call_new(engine, &list_form, label, done, userdata, error);

    if (!call)
        return -1;
    qfc_engine_path_filters(&call->path, "/containers/json?all=1&filters=%", json_pack("{s:[s]}", "label", label));
    qfc_engine_call_name(call, "list containers with label %s", label);
    return qfc_engine_call_submit(call, ret_call, error);
}

static int read_info(struct qfc_engine_call *call, struct qfc_http_response *response, struct qfc_error *error)
{
    json_t *answer = parse(response);
    const char *id = json_string_value(json_object_get(answer, "ID"));
    int r = qfc_buffer_append_text(&call->data, id ? id : "");

    json_decref(answer);
    return r < 0 ? qfc_fail_memory(error) : 0;
}

static const struct call_form info_form = {.method = "GET", .max_body_bytes = QFC_LARGE_ANSWER, .read = read_info};

int qfc_engine_identity(struct qfc_engine *engine, QFC_ENGINE_END)
{
    struct qfc_engine_call *call = qfc_engine_call_new(engine, &info_form, "info", done, userdata, error);

    if (!call)
        return -1;
    qfc_engine_path(&call->path, "/info");
    qfc_engine_call_name(call, "ask the engine for its identity");
    return qfc_engine_call_submit(call, ret_call, error);
}

static int read_all(struct qfc_engine_call *call, struct qfc_http_response *response, struct qfc_error *error)
{
    const char *text = qfc_buffer_text(&response->body);

    if (text[strspn(text, " \t\r\n")] != '{')
        return qfc_engine_nonsense(call, error, "no object");
    call->data = response->body;
    response->body = qfc_buffer(0);
    return 0;
}

static const struct call_form all_info_form = {.method = "GET", .max_body_bytes = QFC_LARGE_ANSWER, .read = read_all};

int qfc_engine_info(struct qfc_engine *engine, QFC_ENGINE_END)
{
    struct qfc_engine_call *call = qfc_engine_call_new(engine, &all_info_form, "info", done, userdata, error);

    if (!call)
        return -1;
    qfc_engine_path(&call->path, "/info");
    qfc_engine_call_name(call, "ask the engine about itself");
    return qfc_engine_call_submit(call, ret_call, error);
}
