/*
 * Calls: several errands at a time, their ends gathered into one.
 *
 * A call begins in the loop's next turn, by a timer of no time, so that it never ends within the function that started
 * it, also where nothing is to be done.
 */
#include "http_private.h"
#include "stores_private.h"

#include "qfc/text.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEADLINE_MS 60000u

struct qfc_stores_call {
    struct qfc_stores *stores;
    TAILQ_ENTRY(qfc_stores_call) link;
    bool begun;
    bool reported; /* its `done` is being called; in no list */

    enum deed deed;
    const struct qfc_object *objects;
    size_t count, next;
    struct errand errands[QFC_STORE_LANES];

    size_t succeeded;
    struct qfc_error error; /* the one to report */
    struct names silent;    /* storages that did not answer: they are not asked again */

    struct names found;       /* keys of a list */
    struct qfc_object object; /* of a list or a put: copied */
    char *content_type;       /* the header's line */
    const void *data;
    size_t size;

    qfc_stores_deleted *deleted;
    qfc_stores_listed *listed;
    qfc_stores_done *stored;
    void *userdata;
};

struct qfc_stores {
    struct qfc_http *http;
    unsigned deadline_ms;
    struct store *stores;
    size_t count;
    uv_timer_t begin; /* there are calls that have not begun */
    bool freed;
    TAILQ_HEAD(, qfc_stores_call) calls;
};

unsigned stores_deadline_ms(const struct qfc_stores *stores)
{
    return stores->deadline_ms;
}

struct qfc_http *stores_http(const struct qfc_stores *stores)
{
    return stores->http;
}

/* --- Errands ------------------------------------------------------------------------------------------------------ */

static const struct store *find_store(const struct qfc_stores *stores, const char *name)
{
    for (size_t i = 0; name && i < stores->count; i++)
        if (strcmp(stores->stores[i].name, name) == 0)
            return &stores->stores[i];
    return NULL;
}

static void free_errand(struct errand *errand)
{
    if (errand->transfer)
        qfc_http_cancel(errand->transfer);
    names_free(&errand->todo);
    free(errand->key);
    free(errand->marker);
    free(errand->version_marker);
    *errand = (struct errand){0};
}

static bool is_step(const char *part, size_t size)
{
    return (size == 1 && part[0] == '.') || (size == 2 && part[0] == '.' && part[1] == '.');
}

/*
 * Names of files are users'. "." and ".." are taken away by whoever stands before a store, and an empty key is the
 * bucket itself; in WebDAV an empty part or a "/" at the end is a collection, which is deleted with all that is in it.
 * Of a prefix the last part is no whole name.
 */
static const char *what_is_wrong(const char *key, bool is_prefix, bool is_webdav)
{
    if (!key || (!key[0] && !is_prefix))
        return "the key is empty";
    if (key[0] == '/')
        return "the key begins with a slash";
    for (const char *part = key, *end = key; *end; part = end + 1) {
        end = part + strcspn(part, "/");
        bool last = !*end;
        if (is_step(part, (size_t)(end - part)) && !(last && is_prefix))
            return "the key has a part that is \".\" or \"..\"";
        if (is_webdav && end == part && !(last && is_prefix))
            return "the key has an empty part";
    }
    return NULL;
}

static int check(const struct qfc_stores_call *call, const struct qfc_object *object, const struct store **ret_store,
                 struct qfc_error *error)
{
    const struct store *store = find_store(call->stores, object->storage);
    const char *trouble = qfc_stores_trouble(call->stores, object->storage);

    if (!store || trouble)
        return qfc_fail(error, QFC_ERROR_USAGE, 0, "the storage cannot be used: %s", trouble);
    bool is_webdav = store->backend == &store_webdav;
    const char *wrong = what_is_wrong(object->key, call->deed == DEED_LIST, is_webdav);
    if (wrong)
        return qfc_fail(error, QFC_ERROR_INVALID, 0, "%s", wrong);
    if (object->legacy && is_webdav)
        return qfc_fail(error, QFC_ERROR_USAGE, 0, "the storage cannot be the legacy one: it is not S3");
    *ret_store = store;
    return 0;
}

/* A key for messages: cleaned, and cut where it is long. */
static void name_key(const char *key, char ret_text[QFC_STORE_NAMED])
{
    struct qfc_buffer text = qfc_buffer(8 * 1024);
    size_t size = key ? strlen(key) : 0;

    if (key && qfc_text_clean(&text, key, size > 2048 ? 2048 : size, NULL) < 0)
        qfc_buffer_free(&text);
    for (size_t i = 0; i < text.size; i++)
        if (iscntrl((unsigned char)text.data[i]))
            text.data[i] = ' ';
    size_t end = text.size < QFC_STORE_NAMED ? text.size : QFC_STORE_NAMED - 4;
    while (end < text.size && end > 0 && ((unsigned char)text.data[end] & 0xC0) == 0x80)
        end--;
    snprintf(ret_text, QFC_STORE_NAMED, "%.*s%s", (int)end, qfc_buffer_text(&text), end < text.size ? "..." : "");
    qfc_buffer_free(&text);
}

static int make_key(struct errand *errand, struct qfc_error *error)
{
    const char *location = errand->object->legacy ? NULL : errand->store->location;

    if (asprintf(&errand->key, "%s%s", location ? location : "", errand->object->key) >= 0)
        return 0;
    errand->key = NULL;
    return qfc_fail_memory(error);
}

static int begin_errand(struct qfc_stores_call *call, struct errand *errand, const struct qfc_object *object,
                        struct qfc_error *error)
{
    *errand = (struct errand){.call = call,
                              .object = object,
                              .found = &call->found,
                              .content_type = call->content_type,
                              .data = call->data,
                              .size = call->size};
    if (check(call, object, &errand->store, error) < 0 || make_key(errand, error) < 0)
        return -1;
    return errand->store->backend->begin[call->deed](errand, NULL, error);
}

/* --- Calls -------------------------------------------------------------------------------------------------------- */

/* Worse is what ends all, then what is worth another try. */
static int weight(enum qfc_error_kind kind)
{
    switch (kind) {
    case QFC_ERROR_NONE:
        return 0;
    case QFC_ERROR_MEMORY:
        return 3;
    case QFC_ERROR_UNREACHABLE:
    case QFC_ERROR_UNKNOWN:
    case QFC_ERROR_AGAIN:
        return 2;
    default:
        return 1;
    }
}

static void note(struct qfc_stores_call *call, const struct qfc_object *object, const struct qfc_error *error)
{
    static const char *const doing[] = {[DEED_DELETE] = "delete", [DEED_LIST] = "list", [DEED_PUT] = "put"};
    struct qfc_error told = *error, ignored;
    char key[QFC_STORE_NAMED];

    if (error->kind == QFC_ERROR_UNREACHABLE || error->kind == QFC_ERROR_UNKNOWN)
        names_add(&call->silent, object->storage, &ignored);
    name_key(object->key, key);
    qfc_context(&told, "%s \"%s\" in storage \"%.100s\"", doing[call->deed], key,
                object->storage ? object->storage : "");
    if (weight(told.kind) > weight(call->error.kind))
        call->error = told;
}

static void free_call(struct qfc_stores_call *call)
{
    for (size_t i = 0; i < QFC_STORE_LANES; i++)
        free_errand(&call->errands[i]);
    names_free(&call->silent);
    names_free(&call->found);
    free((char *)call->object.storage);
    free((char *)call->object.key);
    free(call->content_type);
    free(call);
}

static void report(struct qfc_stores_call *call)
{
    const struct qfc_error *error = call->error.kind != QFC_ERROR_NONE ? &call->error : NULL;

    if (call->deleted)
        call->deleted(call->userdata, error, call->succeeded);
    if (call->listed)
        call->listed(call->userdata, error, error ? NULL : (const char *const *)call->found.items,
                     error ? 0 : call->found.count);
    if (call->stored)
        call->stored(call->userdata, error);
}

static void finish(struct qfc_stores_call *call)
{
    size_t left = call->count - call->succeeded;

    TAILQ_REMOVE(&call->stores->calls, call, link);
    call->reported = true;
    if (call->count > 1 && left > 0)
        qfc_context(&call->error, "%zu of %zu objects are left", left, call->count);
    if (call->listed)
        names_sort(&call->found);
    report(call);
    free_call(call);
}

static struct errand *free_lane(struct qfc_stores_call *call)
{
    for (size_t i = 0; i < QFC_STORE_LANES; i++)
        if (!call->errands[i].call)
            return &call->errands[i];
    return NULL;
}

static bool is_idle(const struct qfc_stores_call *call)
{
    for (size_t i = 0; i < QFC_STORE_LANES; i++)
        if (call->errands[i].call)
            return false;
    return true;
}

/* Starts what there is room for; ends the call when nothing is left to wait for. */
static void advance(struct qfc_stores_call *call)
{
    struct errand *lane;

    while (call->next < call->count && (lane = free_lane(call))) {
        const struct qfc_object *object = &call->objects[call->next++];
        struct qfc_error error = QFC_NO_ERROR;

        if (object->storage && names_have(&call->silent, object->storage))
            continue;
        int r = begin_errand(call, lane, object, &error);
        if (r > 0)
            continue;
        if (r < 0)
            note(call, object, &error);
        else
            call->succeeded++;
        free_errand(lane);
    }
    if (call->next == call->count && is_idle(call))
        finish(call);
}

void errand_end(struct errand *errand, const struct qfc_error *error)
{
    struct qfc_stores_call *call = errand->call;

    if (error)
        note(call, errand->object, error);
    else
        call->succeeded++;
    free_errand(errand);
    advance(call);
}

static struct qfc_stores_call *first_new(const struct qfc_stores *stores)
{
    struct qfc_stores_call *call;

    TAILQ_FOREACH (call, &stores->calls, link)
        if (!call->begun)
            return call;
    return NULL;
}

static void on_begin(uv_timer_t *timer)
{
    struct qfc_stores *stores = timer->data;
    struct qfc_stores_call *call;

    while (!stores->freed && (call = first_new(stores))) {
        call->begun = true;
        advance(call);
    }
}

static struct qfc_stores_call *new_call(struct qfc_stores *stores, enum deed deed, void *userdata)
{
    struct qfc_stores_call *call = calloc(1, sizeof *call);

    if (!call)
        return NULL;
    call->stores = stores;
    call->deed = deed;
    call->userdata = userdata;
    return call;
}

static int begin_later(struct qfc_stores_call *call, struct qfc_stores_call **ret_call)
{
    TAILQ_INSERT_TAIL(&call->stores->calls, call, link);
    uv_timer_start(&call->stores->begin, on_begin, 0, 0);
    if (ret_call)
        *ret_call = call;
    return 0;
}

int qfc_stores_delete(struct qfc_stores *stores, const struct qfc_object *objects, size_t count,
                      qfc_stores_deleted *done, void *userdata, struct qfc_stores_call **ret_call,
                      struct qfc_error *error)
{
    struct qfc_stores_call *call = new_call(stores, DEED_DELETE, userdata);

    if (!call)
        return qfc_fail_memory(error);
    call->objects = objects;
    call->count = count;
    call->deleted = done;
    return begin_later(call, ret_call);
}

/* A call about one object, whose texts are copied. */
static struct qfc_stores_call *new_single(struct qfc_stores *stores, enum deed deed, const struct qfc_object *object,
                                          void *userdata)
{
    struct qfc_stores_call *call = new_call(stores, deed, userdata);

    if (!call)
        return NULL;
    call->object = (struct qfc_object){.storage = strdup(object->storage ? object->storage : ""),
                                       .key = strdup(object->key ? object->key : ""),
                                       .legacy = object->legacy};
    call->objects = &call->object;
    call->count = 1;
    if (call->object.storage && call->object.key)
        return call;
    free_call(call);
    return NULL;
}

int qfc_stores_list(struct qfc_stores *stores, const struct qfc_object *prefix, qfc_stores_listed *done, void *userdata,
                    struct qfc_stores_call **ret_call, struct qfc_error *error)
{
    struct qfc_stores_call *call = new_single(stores, DEED_LIST, prefix, userdata);

    if (!call)
        return qfc_fail_memory(error);
    call->listed = done;
    return begin_later(call, ret_call);
}

int qfc_stores_put(struct qfc_stores *stores, const struct qfc_object *object, const char *content_type,
                   const void *data, size_t size, qfc_stores_done *done, void *userdata,
                   struct qfc_stores_call **ret_call, struct qfc_error *error)
{
    struct qfc_stores_call *call = new_single(stores, DEED_PUT, object, userdata);

    if (!call)
        return qfc_fail_memory(error);
    if (asprintf(&call->content_type, "Content-Type: %s", content_type) < 0) {
        call->content_type = NULL;
        free_call(call);
        return qfc_fail_memory(error);
    }
    call->data = data;
    call->size = size;
    call->stored = done;
    return begin_later(call, ret_call);
}

void qfc_stores_cancel(struct qfc_stores_call *call)
{
    if (call->reported)
        return;
    TAILQ_REMOVE(&call->stores->calls, call, link);
    free_call(call);
}

/* --- All of them -------------------------------------------------------------------------------------------------- */

struct qfc_stores *qfc_stores_new(struct qfc_http *http, const struct qfc_stores_options *options,
                                  struct qfc_error *error)
{
    struct qfc_stores *stores = calloc(1, sizeof *stores);

    if (!stores) {
        qfc_fail_memory(error);
        return NULL;
    }
    int count = stores_configure(options, &stores->stores, error);
    if (count < 0) {
        free(stores);
        return NULL;
    }
    stores->count = (size_t)count;
    stores->http = http;
    stores->deadline_ms = options->deadline_ms ? options->deadline_ms : DEADLINE_MS;
    TAILQ_INIT(&stores->calls);
    for (size_t i = 0; i < stores->count; i++)
        stores->stores[i].stores = stores;
    uv_timer_init(http->loop, &stores->begin);
    stores->begin.data = stores;
    return stores;
}

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void qfc_stores_free(struct qfc_stores *stores)
{
    struct qfc_stores_call *call;

    if (!stores || stores->freed)
        return;
    stores->freed = true;
    while ((call = TAILQ_FIRST(&stores->calls)))
        qfc_stores_cancel(call);
    stores_wipe(stores->stores, stores->count);
    stores->stores = NULL;
    stores->count = 0;
    uv_close((uv_handle_t *)&stores->begin, on_closed);
}

const char *qfc_stores_name(const struct qfc_stores *stores, size_t index)
{
    return index < stores->count ? stores->stores[index].name : NULL;
}

const char *qfc_stores_trouble(const struct qfc_stores *stores, const char *storage)
{
    const struct store *store = find_store(stores, storage);
    return store ? store->trouble : "it is not in STORAGES";
}

const char *qfc_stores_legacy(const struct qfc_stores *stores)
{
    for (size_t i = 0; i < stores->count; i++)
        if (stores->stores[i].legacy)
            return stores->stores[i].name;
    return NULL;
}
