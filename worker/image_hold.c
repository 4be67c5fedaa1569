/*
 * Holding an image: a tiny container that runs for ever spares it from `docker image prune -a`, and a second name from
 * becoming nobody's when its own is given to another. When it has become another image, the one before keeps a name, too,
 * so that there is a way back; the one before that is let go. The worker itself deletes no image.
 *
 * The container uses only what a QGIS image has for certain, a shell: where there is no `sleep`, it reads from a standard
 * input that never says anything. It has a label of its own, so that nobody takes it for a job's.
 */
#include "image_guard.h"

#include <ctype.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LABEL       "qfc_image_hold"
#define IMAGE_LABEL "qfc_image"
#define REPOSITORY  "qfc-worker-hold"

#define MEMORY_BYTES (32 * 1024 * 1024)
#define PROCESSES    16
#define NOBODY       "65534:65534"

static const char script[] = "trap 'exit 0' TERM INT; while :; do sleep 86400 & wait $! || read x || exit 1; done";

#define HOLD_AGAIN_MS 60000
#define STALE_MAX     16

/* One image being held, or all of them let go. */
struct hold {
    struct guard *guard;
    enum need_kind kind;
    char name[QFC_IMAGE_NAME_SIZE]; /* of the image */
    char current[HOLD_NAME_SIZE], previous[HOLD_NAME_SIZE];
    char stale[STALE_MAX][QFC_CONTAINER_ID_SIZE]; /* containers that hold something else, or do not run */
    size_t stale_count;
    char made[QFC_CONTAINER_ID_SIZE];
    bool held;           /* by a container that runs */
    unsigned names_gone; /* of those that are taken away */
    char *json;
};

/* Which stack's: others on the same engine have their own. */
static void owner(const struct qfc_worker *worker, char out[256])
{
    snprintf(out, 256, "%.100s/%.100s", worker->settings->compose_project_name, worker->settings->environment);
}

/* A name for an image is lower case letters, digits and single separators; a tag may be more. */
static void plain(const char *text, char *out, size_t size)
{
    size_t used = 0;
    for (; *text && used + 1 < size; text++)
        out[used++] = isalnum((unsigned char)*text) ? *text : '-';
    out[used] = '\0';
}

/* "now": what the image is; "before": what it was. */
static void second_name(const struct qfc_worker *worker, const char *image, const char *which, char out[HOLD_NAME_SIZE])
{
    char project[40], environment[30], name[80];
    plain(worker->settings->compose_project_name, project, sizeof project);
    plain(worker->settings->environment, environment, sizeof environment);
    plain(image, name, sizeof name);
    snprintf(out, HOLD_NAME_SIZE, REPOSITORY ":%s_%s_%s.%s", project, environment, name, which);
}

static void name_tags(struct hold *hold)
{
    second_name(hold->guard->worker, hold->name, "now", hold->current);
    second_name(hold->guard->worker, hold->name, "before", hold->previous);
}

void hold_name(const struct guard *guard, enum need_kind kind, char out[HOLD_NAME_SIZE])
{
    second_name(guard->worker, need_name(guard->worker, kind), "now", out);
}

static void end(struct hold *hold, const struct qfc_error *error)
{
    struct guard *guard = hold->guard;
    struct guarded *image = &guard->images[hold->kind];
    if (error && is_news(image->hold_said, error->message))
        qfc_log(QFC_LOG_WARNING, NULL, "hold image %s: %s; it is tried again, and this said once", hold->name,
                error->message);
    if (!error)
        image->hold_said[0] = '\0';
    image->hold_due = false;
    image->hold_due_ms = error ? uv_now(&guard->worker->loop) + HOLD_AGAIN_MS : 0;
    guard->hold = NULL;
    free(hold->json);
    free(hold);
    guard_held(guard);
}

static void remove_stale(struct hold *hold);

static void on_removed(void *userdata, const struct qfc_error *error, const struct qfc_engine_reply *reply)
{
    struct hold *hold = userdata;
    if (error)
        end(hold, error);
    else
        remove_stale(hold);
}

/* Last: the image has its new holder. */
static void remove_stale(struct hold *hold)
{
    struct qfc_error error = QFC_NO_ERROR;
    if (hold->stale_count == 0)
        end(hold, NULL);
    else if (qfc_engine_remove(hold->guard->worker->engine, hold->stale[--hold->stale_count], on_removed, hold, NULL,
                               &error) < 0)
        end(hold, &error);
}

static const char *id_of(const struct hold *hold)
{
    return hold->guard->images[hold->kind].id;
}

static void on_tagged(void *userdata, const struct qfc_error *error, const struct qfc_engine_reply *reply)
{
    struct hold *hold = userdata;
    if (error)
        end(hold, error);
    else
        remove_stale(hold);
}

static void tag_current(struct hold *hold)
{
    struct qfc_error error = QFC_NO_ERROR;
    if (qfc_engine_tag(hold->guard->worker->engine, id_of(hold), hold->current, on_tagged, hold, NULL, &error) < 0)
        end(hold, &error);
}

static void on_previous_tagged(void *userdata, const struct qfc_error *error, const struct qfc_engine_reply *reply)
{
    struct hold *hold = userdata;
    if (error)
        end(hold, error);
    else
        tag_current(hold);
}

/* What has the second name now? */
static void on_current(void *userdata, const struct qfc_error *error, const struct qfc_engine_reply *reply)
{
    struct hold *hold = userdata;
    struct qfc_error failure = QFC_NO_ERROR;
    if (error && !(error->kind == QFC_ERROR_REFUSED && error->code == 404))
        end(hold, error);
    else if (error)
        tag_current(hold);
    else if (strcmp(qfc_buffer_text(reply->data), id_of(hold)) == 0)
        remove_stale(hold);
    else if (qfc_engine_tag(hold->guard->worker->engine, qfc_buffer_text(reply->data), hold->previous,
                            on_previous_tagged, hold, NULL, &failure) < 0)
        end(hold, &failure);
}

static void look_at_tags(struct hold *hold)
{
    struct qfc_error error = QFC_NO_ERROR;
    if (qfc_engine_image(hold->guard->worker->engine, hold->current, on_current, hold, NULL, &error) < 0)
        end(hold, &error);
}

static void on_started(void *userdata, const struct qfc_error *error, const struct qfc_engine_reply *reply)
{
    struct hold *hold = userdata;
    if (error) {
        end(hold, error);
        return;
    }
    qfc_log(QFC_LOG_INFO, NULL, "image %s (%.19s) is held by container %.12s", hold->name, id_of(hold), hold->made);
    look_at_tags(hold);
}

static void on_created(void *userdata, const struct qfc_error *error, const struct qfc_engine_reply *reply)
{
    struct hold *hold = userdata;
    struct qfc_error failure = QFC_NO_ERROR;
    if (error) {
        end(hold, error);
        return;
    }
    snprintf(hold->made, sizeof hold->made, "%s", reply->id);
    if (qfc_engine_start(hold->guard->worker->engine, reply->id, on_started, hold, NULL, &failure) < 0)
        end(hold, &failure);
}

static char *container_json(const struct hold *hold)
{
    char whose[256];
    owner(hold->guard->worker, whose);
    json_t *limits =
        json_pack("{s:s s:i s:i s:i s:i s:b s:[s] s:[s] s:{s:s}}", "NetworkMode", "none", "Memory", MEMORY_BYTES,
                  "MemorySwap", MEMORY_BYTES, "PidsLimit", PROCESSES, "CpuShares", 2, "ReadonlyRootfs", 1, "CapDrop",
                  "ALL", "SecurityOpt", "no-new-privileges", "RestartPolicy", "Name", "always");
    json_t *body = json_pack("{s:s s:[s,s] s:[s] s:s s:b s:{s:s s:s} s:o}", "Image", id_of(hold), "Entrypoint",
                             "/bin/sh", "-c", "Cmd", script, "User", NOBODY, "OpenStdin", 1, "Labels", LABEL, whose,
                             IMAGE_LABEL, hold->name, "HostConfig", limits);
    char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
    json_decref(body);
    return text;
}

static void create(struct hold *hold)
{
    struct qfc_error error = QFC_NO_ERROR;
    char name[160], whose[256], readable[64];
    owner(hold->guard->worker, whose);
    plain(whose, readable, sizeof readable);
    snprintf(name, sizeof name, REPOSITORY "-%s-%.12s", readable, id_of(hold) + strlen("sha256:"));
    hold->json = container_json(hold);
    if (!hold->json)
        qfc_fail_memory(&error);
    else
        qfc_engine_create(hold->guard->worker->engine, name, hold->json, strlen(hold->json), on_created, hold, NULL,
                          &error);
    if (error.kind)
        end(hold, &error);
}

static bool has_label(const json_t *container, const char *name, const char *value)
{
    const char *text = json_string_value(json_object_get(json_object_get(container, "Labels"), name));
    return text && strcmp(text, value) == 0;
}

static const char *text(const json_t *object, const char *name)
{
    const char *found = json_string_value(json_object_get(object, name));
    return found ? found : "";
}

/* A container of the present image that is about to be started, or has ended, is started again, not removed. */
static void sort_container(struct hold *hold, const json_t *container)
{
    const char *id = text(container, "Id"), *state = text(container, "State");
    if (!has_label(container, IMAGE_LABEL, hold->name) || strlen(id) >= QFC_CONTAINER_ID_SIZE)
        return;
    if (strcmp(text(container, "ImageID"), id_of(hold)) == 0)
        hold->held = hold->held || strcmp(state, "running") == 0;
    else if (hold->stale_count < STALE_MAX)
        strcpy(hold->stale[hold->stale_count++], id);
}

static void on_list(void *userdata, const struct qfc_error *error, const struct qfc_engine_reply *reply)
{
    struct hold *hold = userdata;
    if (error) {
        end(hold, error);
        return;
    }
    json_t *list = json_loadb(qfc_buffer_text(reply->data), reply->data->size, 0, NULL);
    for (size_t i = 0; i < json_array_size(list); i++)
        sort_container(hold, json_array_get(list, i));
    json_decref(list);
    if (hold->held)
        look_at_tags(hold);
    else
        create(hold);
}

/* Lists our holders for `done`. */
static void begin(struct guard *guard, enum need_kind kind, qfc_engine_done *done)
{
    struct qfc_error error = QFC_NO_ERROR;
    struct hold *hold = calloc(1, sizeof *hold);
    const char *image = need_name(guard->worker, kind);
    char whose[256], label[300];
    if (!hold)
        return; /* the next look comes */
    hold->guard = guard;
    hold->kind = kind;
    snprintf(hold->name, sizeof hold->name, "%s", image ? image : "");
    name_tags(hold);
    guard->holding = true;
    guard->hold = hold;
    owner(guard->worker, whose);
    snprintf(label, sizeof label, LABEL "=%s", whose);
    if (qfc_engine_list(guard->worker->engine, label, done, hold, NULL, &error) < 0)
        end(hold, &error);
}

void hold_image(struct guard *guard, enum need_kind kind)
{
    begin(guard, kind, on_list);
}

/*
 * Holding is switched off: containers and names go. Asked each time that the images are looked at, since a worker that
 * still had it switched on may have made them again.
 */

static void release_names(struct hold *hold);

static void on_name_gone(void *userdata, const struct qfc_error *error, const struct qfc_engine_reply *reply)
{
    struct hold *hold = userdata;
    if (error)
        end(hold, error);
    else
        release_names(hold);
}

/* Two names of each image, one after the other. */
static void release_names(struct hold *hold)
{
    struct guard *guard = hold->guard;
    struct qfc_error error = QFC_NO_ERROR;
    const char *image = NULL;
    while (hold->names_gone < 2 * NEED_NETWORK && !(image = need_name(guard->worker, hold->names_gone / 2)))
        hold->names_gone += 2;
    if (!image) {
        end(hold, NULL);
        return;
    }
    snprintf(hold->name, sizeof hold->name, "%s", image);
    name_tags(hold);
    const char *name = hold->names_gone++ % 2 == 0 ? hold->current : hold->previous;
    if (qfc_engine_untag(guard->worker->engine, name, on_name_gone, hold, NULL, &error) < 0)
        end(hold, &error);
}

static void release_containers(struct hold *hold);

static void on_container_gone(void *userdata, const struct qfc_error *error, const struct qfc_engine_reply *reply)
{
    struct hold *hold = userdata;
    if (error)
        end(hold, error);
    else
        release_containers(hold);
}

static void release_containers(struct hold *hold)
{
    struct qfc_error error = QFC_NO_ERROR;
    if (hold->stale_count == 0)
        release_names(hold);
    else if (qfc_engine_remove(hold->guard->worker->engine, hold->stale[--hold->stale_count], on_container_gone, hold,
                               NULL, &error) < 0)
        end(hold, &error);
}

static void on_held_list(void *userdata, const struct qfc_error *error, const struct qfc_engine_reply *reply)
{
    struct hold *hold = userdata;
    if (error) {
        end(hold, NULL); /* who may not look has made none */
        return;
    }
    json_t *list = json_loadb(qfc_buffer_text(reply->data), reply->data->size, 0, NULL);
    for (size_t i = 0; i < json_array_size(list) && hold->stale_count < STALE_MAX; i++) {
        const char *id = text(json_array_get(list, i), "Id");
        if (*id && strlen(id) < QFC_CONTAINER_ID_SIZE)
            strcpy(hold->stale[hold->stale_count++], id);
    }
    json_decref(list);
    if (hold->stale_count > 0)
        qfc_log(QFC_LOG_INFO, NULL, "holding images is switched off: removing %zu containers that hold some",
                hold->stale_count);
    if (hold->stale_count == 0) /* nor was there ever a second name, or it was taken away with them */
        end(hold, NULL);
    else
        release_containers(hold);
}

void release_images(struct guard *guard)
{
    begin(guard, NEED_QGIS, on_held_list);
}

void hold_forget(struct guard *guard)
{
    if (guard->hold)
        free(guard->hold->json);
    free(guard->hold);
    guard->hold = NULL;
}
