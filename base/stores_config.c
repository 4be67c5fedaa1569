/*
 * Which stores there are: STORAGES, or what releases before it had, read as QFieldCloud's settings_utils.py does
 * (v25.27 to v26.25).
 *
 * What is wrong with STORAGES as a whole is an error; what is wrong with one storage is that storage's trouble, so that
 * it harms nobody but its own projects. No value but the name of an unknown backend is shown: any other may be a
 * password that was put in a wrong place.
 */
#include "stores_private.h"

#include "qfc/text.h"

#include <ctype.h>
#include <curl/curl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BACKENDS "qfieldcloud.filestorage.backend."

static const struct store_backend *const backends[] = {&store_s3, &store_webdav};

int store_trouble(struct store *store, struct qfc_error *error, const char *format, ...)
{
    va_list arguments;

    if (store->trouble)
        return 0;
    va_start(arguments, format);
    int length = vasprintf(&store->trouble, format, arguments);
    va_end(arguments);
    if (length >= 0)
        return 0;
    store->trouble = NULL;
    return qfc_fail_memory(error);
}

/* Options go into headers and URLs: control characters would end the one and begin another. */
static bool has_control(const char *text)
{
    for (; *text; text++)
        if (iscntrl((unsigned char)*text))
            return true;
    return false;
}

int store_option(struct store *store, const json_t *options, const char *name, bool needed, char **ret_text,
                 struct qfc_error *error)
{
    const json_t *value = json_object_get(options, name);
    const char *text = json_string_value(value);

    if (value && !text && !json_is_null(value))
        return store_trouble(store, error, "its option %s is no text", name);
    if (!text || !text[0])
        return needed ? store_trouble(store, error, "its option %s is missing", name) : 0;
    if (has_control(text))
        return store_trouble(store, error, "its option %s has control characters", name);
    *ret_text = strdup(text);
    return *ret_text ? 0 : qfc_fail_memory(error);
}

/* --- URLs --------------------------------------------------------------------------------------------------------- */

/* The parts of a URL that are asked for here; each null where it is not there. */
struct parts {
    char *scheme, *host, *port, *path, *user, *password, *query;
};

static void free_parts(struct parts *parts)
{
    char *texts[] = {parts->scheme, parts->host, parts->port, parts->path, parts->user, parts->query};

    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        curl_free(texts[i]);
    if (parts->password)
        explicit_bzero(parts->password, strlen(parts->password));
    curl_free(parts->password);
}

static CURLUcode get_part(CURLU *url, CURLUcode code, CURLUPart part, char **ret_text, unsigned flags)
{
    if (code != CURLUE_OK)
        return code;
    code = curl_url_get(url, part, ret_text, flags);
    bool absent =
        code == CURLUE_NO_USER || code == CURLUE_NO_PASSWORD || code == CURLUE_NO_PORT || code == CURLUE_NO_QUERY;
    return absent ? CURLUE_OK : code;
}

static CURLUcode split(const char *text, struct parts *parts)
{
    CURLU *url = curl_url();
    CURLUcode code = url ? curl_url_set(url, CURLUPART_URL, text, CURLU_URLENCODE) : CURLUE_OUT_OF_MEMORY;

    code = get_part(url, code, CURLUPART_SCHEME, &parts->scheme, 0);
    code = get_part(url, code, CURLUPART_HOST, &parts->host, 0);
    code = get_part(url, code, CURLUPART_PORT, &parts->port, CURLU_NO_DEFAULT_PORT);
    code = get_part(url, code, CURLUPART_PATH, &parts->path, 0);
    code = get_part(url, code, CURLUPART_USER, &parts->user, CURLU_URLDECODE);
    code = get_part(url, code, CURLUPART_PASSWORD, &parts->password, CURLU_URLDECODE);
    code = get_part(url, code, CURLUPART_QUERY, &parts->query, 0);
    curl_url_cleanup(url);
    return code;
}

static bool is_http(const struct parts *parts)
{
    return parts->scheme && parts->host && (strcmp(parts->scheme, "http") == 0 || strcmp(parts->scheme, "https") == 0);
}

/* A path without slashes at its end: keys are put after it with one. */
static char *trimmed(const char *path)
{
    size_t length = strlen(path);

    while (length > 0 && path[length - 1] == '/')
        length--;
    return strndup(path, length);
}

static int take_parts(struct store *store, const struct parts *parts, const char *bucket, struct qfc_error *error)
{
    if (asprintf(&store->host, "%s%s%s%s%s", bucket ? bucket : "", bucket ? "." : "", parts->host,
                 parts->port ? ":" : "", parts->port ? parts->port : "") < 0)
        store->host = NULL;
    if (!store->host || asprintf(&store->origin, "%s://%s", parts->scheme, store->host) < 0)
        store->origin = NULL;
    store->path = trimmed(parts->path ? parts->path : "");
    return store->host && store->origin && store->path ? 0 : qfc_fail_memory(error);
}

static int take_user(const struct parts *parts, char **ret_user, char **ret_password, struct qfc_error *error)
{
    *ret_user = parts->user ? strdup(parts->user) : NULL;
    *ret_password = parts->password ? strdup(parts->password) : NULL;
    bool good = !parts->user == !*ret_user && !parts->password == !*ret_password;
    return good ? 0 : qfc_fail_memory(error);
}

int store_take_url(struct store *store, const char *option, const char *url, const char *bucket, char **ret_user,
                   char **ret_password, struct qfc_error *error)
{
    struct parts parts = {0};
    CURLUcode code = split(url, &parts);
    int r;

    if (code == CURLUE_OUT_OF_MEMORY)
        r = qfc_fail_memory(error);
    else if (code != CURLUE_OK || !is_http(&parts))
        r = store_trouble(store, error, "its option %s is no URL of http or https", option);
    else if (parts.query || (parts.user && !ret_user))
        r = store_trouble(store, error, "its option %s has a %s in its URL", option, parts.query ? "query" : "user");
    else
        r = take_parts(store, &parts, bucket, error);
    if (r == 0 && !store->trouble && ret_user)
        r = take_user(&parts, ret_user, ret_password, error);
    free_parts(&parts);
    return r;
}

/* --- Storages ----------------------------------------------------------------------------------------------------- */

static bool is_set(const char *text)
{
    return text && text[0];
}

static const struct store_backend *find_backend(const char *class_name)
{
    size_t module = strlen(BACKENDS);

    if (strncmp(class_name, BACKENDS, module) != 0)
        return NULL;
    for (size_t i = 0; i < sizeof backends / sizeof *backends; i++)
        if (strcmp(class_name + module, backends[i]->class_name) == 0)
            return backends[i];
    return NULL;
}

static int configure(struct store *store, const char *name, const json_t *entry, const char *ca_file,
                     struct qfc_error *error)
{
    const char *class_name = json_string_value(json_object_get(entry, "BACKEND"));
    const json_t *options = json_object_get(entry, "OPTIONS");

    store->name = strdup(name);
    store->ca_file = is_set(ca_file) ? strdup(ca_file) : NULL;
    if (!store->name || (is_set(ca_file) && !store->ca_file))
        return qfc_fail_memory(error);
    store->legacy = json_is_true(json_object_get(entry, "QFC_IS_LEGACY"));
    if (!json_is_object(entry))
        return store_trouble(store, error, "it is no object");
    if (!class_name)
        return store_trouble(store, error, "its BACKEND is missing");
    store->backend = find_backend(class_name);
    if (!store->backend)
        return store_trouble(store, error, "its BACKEND is unknown (\"%.100s\")", class_name);
    if (options && !json_is_object(options))
        return store_trouble(store, error, "its OPTIONS are no object");
    return store->backend->configure(store, options, error);
}

static int configure_all(const json_t *root, const char *ca_file, struct store **ret_stores, struct qfc_error *error)
{
    size_t count = json_object_size(root), done = 0;
    struct store *stores = calloc(count ? count : 1, sizeof *stores);
    const char *name;
    json_t *entry;

    if (!stores)
        return qfc_fail_memory(error);
    json_object_foreach((json_t *)root, name, entry)
    {
        if (configure(&stores[done++], name, entry, ca_file, error) == 0)
            continue;
        stores_wipe(stores, done);
        return -1;
    }
    *ret_stores = stores;
    return (int)count;
}

static int set_text(json_t *object, const char *name, const char *text)
{
    return json_object_set_new(object, name, json_string(text ? text : ""));
}

/* What releases up to v26.10 make of the older variables. An object without members where none of them is set. */
static json_t *make_legacy(const struct qfc_stores_options *options)
{
    json_t *root = json_object(), *entry = json_object(), *inner = json_object();
    bool any = is_set(options->access_key_id) || is_set(options->secret_access_key) || is_set(options->bucket_name) ||
               is_set(options->endpoint_url);
    bool good = root && entry && inner && set_text(inner, "access_key", options->access_key_id) == 0 &&
                set_text(inner, "secret_key", options->secret_access_key) == 0 &&
                set_text(inner, "bucket_name", options->bucket_name) == 0 &&
                set_text(inner, "region_name", options->region_name) == 0 &&
                set_text(inner, "endpoint_url", options->endpoint_url) == 0 &&
                set_text(entry, "BACKEND", BACKENDS "QfcS3Boto3Storage") == 0 &&
                json_object_set(entry, "OPTIONS", inner) == 0 &&
                json_object_set_new(entry, "QFC_IS_LEGACY", json_true()) == 0 &&
                (!any || json_object_set(root, "default", entry) == 0);

    json_decref(inner);
    json_decref(entry);
    if (good)
        return root;
    json_decref(root);
    return NULL;
}

static json_t *read_storages(const char *text, struct qfc_error *error)
{
    json_error_t problem;
    json_t *root = json_loads(text, JSON_DECODE_ANY, &problem);

    if (!root && json_error_code(&problem) == json_error_out_of_memory)
        qfc_fail_memory(error);
    else if (!root) /* its text shows what stands there */
        qfc_fail(error, QFC_ERROR_USAGE, 0, "STORAGES is not JSON (line %d)", problem.line);
    else if (!json_is_object(root))
        qfc_fail(error, QFC_ERROR_USAGE, 0, "STORAGES is JSON, but no object of storages by their names");
    else if (json_object_get(root, ""))
        qfc_fail(error, QFC_ERROR_USAGE, 0, "STORAGES has a storage without a name");
    else
        return root;
    json_decref(root);
    return NULL;
}

/* A second legacy storage: QFieldCloud does not start with that. */
static int check_legacy(const struct store *stores, size_t count, struct qfc_error *error)
{
    const struct store *first = NULL;

    for (size_t i = 0; i < count; i++) {
        if (stores[i].legacy && first)
            return qfc_fail(error, QFC_ERROR_USAGE, 0,
                            "STORAGES has two storages with QFC_IS_LEGACY: %.100s and %.100s", first->name,
                            stores[i].name);
        if (stores[i].legacy)
            first = &stores[i];
    }
    return 0;
}

int stores_configure(const struct qfc_stores_options *options, struct store **ret_stores, struct qfc_error *error)
{
    struct store *stores = NULL;
    json_t *root = is_set(options->storages) ? read_storages(options->storages, error) : make_legacy(options);

    if (!root)
        return is_set(options->storages) ? -1 : qfc_fail_memory(error);
    int count = configure_all(root, options->ca_file, &stores, error);
    json_decref(root);
    if (count < 0)
        return -1;
    if (check_legacy(stores, (size_t)count, error) < 0) {
        stores_wipe(stores, (size_t)count);
        return -1;
    }
    *ret_stores = stores;
    return count;
}

void stores_wipe(struct store *stores, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct store *store = &stores[i];
        char *plain[] = {store->name, store->trouble, store->origin, store->host,
                         store->path, store->ca_file, store->region, store->location};
        char *secret[] = {store->access_key, store->secret_key, store->token, store->password, store->authorization};

        for (size_t at = 0; at < sizeof plain / sizeof *plain; at++)
            free(plain[at]);
        for (size_t at = 0; at < sizeof secret / sizeof *secret; at++)
            qfc_wipe(secret[at]);
    }
    free(stores);
}
