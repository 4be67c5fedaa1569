/* Images, networks and volumes: are they there, and images out of the engine and into it again. */
#include "engine_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static json_t *parse(const struct qfc_http_response *response)
{
    return json_loadb(qfc_buffer_text(&response->body), response->body.size, 0, NULL);
}

static int read_text(struct qfc_engine_call *call, json_t *answer, const char *name, struct qfc_error *error)
{
    const char *text = json_string_value(json_object_get(answer, name));

    if (!text || !*text)
        return qfc_engine_nonsense(call, error, "no id");
    return qfc_buffer_append_text(&call->data, text) < 0 ? qfc_fail_memory(error) : 0;
}

static int read_image(struct qfc_engine_call *call, struct qfc_http_response *response, struct qfc_error *error)
{
    json_t *answer = parse(response);
    int r = read_text(call, answer, "Id", error);

    call->reply.size_bytes = json_integer_value(json_object_get(answer, "Size"));
    json_decref(answer);
    return r;
}

static int read_network(struct qfc_engine_call *call, struct qfc_http_response *response, struct qfc_error *error)
{
    json_t *answer = parse(response);
    int r = read_text(call, answer, "Id", error);

    json_decref(answer);
    return r;
}

static int read_volume(struct qfc_engine_call *call, struct qfc_http_response *response, struct qfc_error *error)
{
    json_t *answer = parse(response);
    int r = read_text(call, answer, "Name", error);

    json_decref(answer);
    return r;
}

/* A call about one thing whose path is all that differs. */
static int submit(struct qfc_engine *engine, const struct call_form *form, const char *verb, const char *path,
                  const char *name, QFC_ENGINE_END)
{
    struct qfc_engine_call *call = qfc_engine_call_new(engine, form, name, done, userdata, error);

    if (!call)
        return -1;
    qfc_engine_path(&call->path, path, name);
    qfc_engine_call_name(call, "%s %s", verb, name);
    return qfc_engine_call_submit(call, ret_call, error);
}

static const struct call_form image_form = {.method = "GET", .max_body_bytes = QFC_SMALL_ANSWER, .read = read_image};

int qfc_engine_image(struct qfc_engine *engine, const char *image, QFC_ENGINE_END)
{
    return submit(engine, &image_form, "look for image", "/images/*/json", image, done, userdata, ret_call, error);
}

static const struct call_form network_form = {
    .method = "GET",
    .max_body_bytes = QFC_LARGE_ANSWER,
    .read = read_network,
};

int qfc_engine_network(struct qfc_engine *engine, const char *network, QFC_ENGINE_END)
{
    return submit(engine, &network_form, "look for network", "/networks/%", network, done, userdata, ret_call, error);
}

static const struct call_form volume_form = {.method = "GET", .max_body_bytes = QFC_SMALL_ANSWER, .read = read_volume};

int qfc_engine_volume(struct qfc_engine *engine, const char *volume, QFC_ENGINE_END)
{
    return submit(engine, &volume_form, "look for volume", "/volumes/%", volume, done, userdata, ret_call, error);
}

/* {"Volumes": [{"Name": ...}, ...] or null} */
static int read_names(struct qfc_engine_call *call, struct qfc_http_response *response, struct qfc_error *error)
{
    json_t *answer = parse(response), *names = json_array();
    const json_t *volumes = json_object_get(answer, "Volumes");
    size_t count = json_array_size(volumes);
    bool listed = json_is_array(volumes) || json_is_null(volumes);
    int r = listed ? 0 : qfc_engine_nonsense(call, error, "no list of volumes");

    for (size_t i = 0; i < count; i++) {
        json_t *name = json_object_get(json_array_get(volumes, i), "Name");
        if (json_is_string(name))
            json_array_append(names, name);
    }
    char *text = names ? json_dumps(names, JSON_COMPACT) : NULL;
    if (r == 0 && (!text || qfc_buffer_append_text(&call->data, text) < 0))
        r = qfc_fail_memory(error);
    free(text);
    json_decref(names);
    json_decref(answer);
    return r;
}

static const struct call_form unused_volumes_form = {
    .method = "GET",
    .max_body_bytes = QFC_LARGE_ANSWER,
    .read = read_names,
};

int qfc_engine_unused_volumes(struct qfc_engine *engine, const char *label, QFC_ENGINE_END)
{
    struct qfc_engine_call *call = qfc_engine_call_new(engine, &unused_volumes_form, label, done, userdata, error);

    if (!call)
        return -1;
    qfc_engine_path_filters(&call->path, "/volumes?filters=%",
                            json_pack("{s:[s], s:[s]}", "label", label, "dangling", "true"));
    qfc_engine_call_name(call, "list unused volumes with label %s", label);
    return qfc_engine_call_submit(call, ret_call, error);
}

static const struct call_form remove_volume_form = {
    .method = "DELETE",
    .max_body_bytes = QFC_SMALL_ANSWER,
    .accepts = {404, 409},
};

int qfc_engine_remove_volume(struct qfc_engine *engine, const char *volume, QFC_ENGINE_END)
{
    return submit(engine, &remove_volume_form, "remove volume", "/volumes/%", volume, done, userdata, ret_call, error);
}

static const struct call_form tag_form = {.method = "POST", .max_body_bytes = QFC_SMALL_ANSWER};

/* "registry:5000/group/name:tag": a colon before the last slash is a port's. */
int qfc_engine_tag(struct qfc_engine *engine, const char *image, const char *name, QFC_ENGINE_END)
{
    struct qfc_engine_call *call = qfc_engine_call_new(engine, &tag_form, image, done, userdata, error);
    const char *slash = strrchr(name, '/'), *colon = strchr(slash ? slash : name, ':');
    char repository[512];

    if (!call)
        return -1;
    snprintf(repository, sizeof repository, "%.*s", (int)(colon ? colon - name : (ptrdiff_t)strlen(name)), name);
    qfc_engine_path(&call->path, "/images/*/tag?repo=%&tag=%", image, repository, colon ? colon + 1 : "latest");
    qfc_engine_call_name(call, "name image %s %s", image, name);
    return qfc_engine_call_submit(call, ret_call, error);
}

static const struct call_form untag_form = {
    .method = "DELETE",
    .max_body_bytes = QFC_LARGE_ANSWER, /* a list of layers */
    .accepts = {404},
};

int qfc_engine_untag(struct qfc_engine *engine, const char *name, QFC_ENGINE_END)
{
    return submit(engine, &untag_form, "take away the image's name", "/images/*", name, done, userdata, ret_call,
                  error);
}

static int on_piece(struct qfc_engine_call *call, const char *data, size_t size)
{
    return call->on_piece(call->userdata, data, size);
}

static const struct call_form export_form = {.method = "GET", .endless = true, .bulk = true, .on_data = on_piece};

int qfc_engine_export(struct qfc_engine *engine, const char *image, qfc_engine_piece *piece, QFC_ENGINE_END)
{
    struct qfc_engine_call *call = qfc_engine_call_new(engine, &export_form, image, done, userdata, error);

    if (!call)
        return -1;
    call->on_piece = piece;
    qfc_engine_path(&call->path, "/images/*/get", image);
    qfc_engine_call_name(call, "export image %s", image);
    return qfc_engine_call_submit(call, ret_call, error);
}

static ssize_t read_piece(struct qfc_engine_call *call, char *out, size_t room)
{
    return call->read_piece(call->userdata, out, room);
}

/* {"stream": "Loaded image ID: sha256:..."}, or {"errorDetail": {"message": ...}, "error": ...}, within HTTP 200. */
static void on_load_line(struct qfc_engine_call *call, json_t *line)
{
    const char *wrong = json_string_value(json_object_get(json_object_get(line, "errorDetail"), "message"));
    const char *said = json_string_value(json_object_get(line, "stream"));
    char words[QFC_ENGINE_WORDS_SIZE];

    if (!wrong)
        wrong = json_string_value(json_object_get(line, "error"));
    if (wrong && call->failure.kind == QFC_ERROR_NONE) {
        qfc_engine_clean(wrong, strlen(wrong), words, sizeof words);
        qfc_fail(&call->failure, QFC_ERROR_REFUSED, 200, "%s: the engine answered: %s", call->what, words);
    }
    if (said && !wrong) {
        qfc_engine_clean(said, strlen(said), words, sizeof words);
        qfc_buffer_free(&call->data);
        (void)qfc_buffer_append_text(&call->data, words);
    }
}

static int on_load_data(struct qfc_engine_call *call, const char *data, size_t size)
{
    return qfc_engine_lines_add(call, data, size, on_load_line);
}

static int read_loaded(struct qfc_engine_call *call, struct qfc_http_response *response, struct qfc_error *error)
{
    qfc_engine_lines_end(call, on_load_line);
    if (call->failure.kind == QFC_ERROR_NONE)
        return 0;
    *error = call->failure;
    return -1;
}

/* An engine that has said what is wrong may close the connection before all was sent. */
static int load_failed(struct qfc_engine_call *call, const struct qfc_error *failure, struct qfc_error *error)
{
    qfc_engine_lines_end(call, on_load_line);
    if (call->failure.kind == QFC_ERROR_NONE)
        return qfc_engine_lost(call, failure, error);
    *error = call->failure;
    return -1;
}

static const struct call_form load_form = {
    .method = "POST",
    .content_type = "application/x-tar",
    .max_body_bytes = QFC_SMALL_ANSWER,
    .endless = true,
    .bulk = true,
    .on_data = on_load_data,
    .read_body = read_piece,
    .read = read_loaded,
    .failed = load_failed,
};

int qfc_engine_load(struct qfc_engine *engine, const char *name, qfc_engine_read *read_more, QFC_ENGINE_END)
{
    struct qfc_engine_call *call = qfc_engine_call_new(engine, &load_form, name, done, userdata, error);

    if (!call)
        return -1;
    call->read_piece = read_more;
    qfc_engine_path(&call->path, "/images/load?quiet=1");
    qfc_engine_call_name(call, "load image %s", name);
    return qfc_engine_call_submit(call, ret_call, error);
}
