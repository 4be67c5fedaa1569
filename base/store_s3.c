/*
 * S3: path style (or virtual-hosted, where addressing_style says so), signature version 4, REST API of 2006-03-01.
 *
 * Lists are asked for with encoding-type=url, since XML 1.0 cannot carry every key; a store that does not know it does
 * not repeat it in its answer, and is taken by its word.
 */
#include "sigv4.h"
#include "stores_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEY_BYTES   (16u * 1024) /* percent-encoded, and some more than S3's 1024 */
#define QUERY_BYTES (48u * 1024)

/* --- Configuration ------------------------------------------------------------------------------------------------ */

static int read_texts(struct store *store, const json_t *options, char **ret_bucket, char **ret_endpoint,
                      char **ret_style, struct qfc_error *error)
{
    char *profile = NULL;
    const struct {
        const char *name;
        bool needed;
        char **ret_text;
    } wanted[] = {
        {"session_profile", false, &profile},     {"access_key", true, &store->access_key},
        {"secret_key", true, &store->secret_key}, {"bucket_name", true, ret_bucket},
        {"region_name", false, &store->region},   {"endpoint_url", false, ret_endpoint},
        {"location", false, &store->location},    {"security_token", false, &store->token},
        {"addressing_style", false, ret_style},
    };
    int r = 0;

    for (size_t i = 0; i < sizeof wanted / sizeof *wanted && r == 0; i++)
        r = store_option(store, options, wanted[i].name, wanted[i].needed, wanted[i].ret_text, error);
    if (r == 0 && profile)
        r = store_trouble(store, error, "its option session_profile is not supported");
    free(profile);
    return r;
}

/* django-storages' `verify` is requests': false, or a file of certificates. */
static int read_verify(struct store *store, const json_t *options, struct qfc_error *error)
{
    const json_t *verify = json_object_get(options, "verify");

    store->trusts_all = json_is_false(verify);
    if (!json_is_string(verify))
        return 0;
    free(store->ca_file);
    store->ca_file = strdup(json_string_value(verify));
    return store->ca_file ? 0 : qfc_fail_memory(error);
}

/* django-storages joins it with "/", without slashes at its ends (storages/utils.py, safe_join). */
static int settle_location(struct store *store, struct qfc_error *error)
{
    char *text = store->location;
    size_t start = 0, end = text ? strlen(text) : 0;

    while (end > 0 && text[end - 1] == '/')
        end--;
    while (start < end && text[start] == '/')
        start++;
    store->location = NULL;
    if (end > start && asprintf(&store->location, "%.*s/", (int)(end - start), text + start) < 0) {
        store->location = NULL;
        free(text);
        return qfc_fail_memory(error);
    }
    free(text);
    return 0;
}

/* The path of the bucket: the endpoint's, and its name where that is not in the host. */
static int settle_path(struct store *store, const char *bucket, struct qfc_error *error)
{
    struct qfc_buffer path = qfc_buffer(KEY_BYTES);

    if (qfc_buffer_printf(&path, "%s/", store->path) < 0 || qfc_sigv4_encode(&path, bucket, false) < 0) {
        qfc_buffer_free(&path);
        return qfc_fail_memory(error);
    }
    free(store->path);
    store->path = qfc_buffer_take(&path);
    return 0;
}

/* Without an endpoint, or a region, it is Amazon's; an empty region is us-east-1 (botocore). */
static int settle_address(struct store *store, const json_t *options, const char *bucket, const char *endpoint,
                          const char *style, struct qfc_error *error)
{
    char *made = NULL;
    bool is_virtual = style && strcmp(style, "virtual") == 0;
    const char *scheme = json_is_false(json_object_get(options, "use_ssl")) ? "http" : "https";

    if (!store->region && !(store->region = strdup("us-east-1")))
        return qfc_fail_memory(error);
    if (!endpoint && asprintf(&made, "%s://s3.%s.amazonaws.com", scheme, store->region) < 0)
        return qfc_fail_memory(error);
    int r = store_take_url(store, endpoint ? "endpoint_url" : "region_name", endpoint ? endpoint : made,
                           is_virtual ? bucket : NULL, NULL, NULL, error);
    free(made);
    if (r == 0 && !store->trouble && !is_virtual)
        r = settle_path(store, bucket, error);
    return r;
}

static int configure(struct store *store, const json_t *options, struct qfc_error *error)
{
    char *bucket = NULL, *endpoint = NULL, *style = NULL;
    int r = read_texts(store, options, &bucket, &endpoint, &style, error);

    if (r == 0)
        r = read_verify(store, options, error);
    if (r == 0)
        r = settle_location(store, error);
    if (r == 0 && !store->trouble)
        r = settle_address(store, options, bucket, endpoint, style, error);
    free(bucket);
    free(endpoint);
    free(style);
    return r;
}

/* --- Requests ----------------------------------------------------------------------------------------------------- */

static int request_key(struct errand *errand, const char *method, const char *query, errand_act *next,
                       struct qfc_error *error)
{
    struct qfc_buffer path = qfc_buffer(KEY_BYTES);
    const char *headers[2] = {errand->content_type, NULL};
    int r = qfc_buffer_append_text(&path, "/");

    if (r == 0)
        r = qfc_sigv4_encode(&path, errand->key, true);
    const struct store_request request = {.method = method,
                                          .path = qfc_buffer_text(&path),
                                          .query = query,
                                          .headers = headers,
                                          .body = errand->data,
                                          .body_size = errand->size};
    if (r < 0)
        r = r == -ENOMEM ? qfc_fail_memory(error) : qfc_fail(error, QFC_ERROR_INVALID, 0, "the key is too long");
    else
        r = errand_send(errand, &request, next, error);
    qfc_buffer_free(&path);
    return r;
}

static bool is_success(const struct qfc_http_response *response)
{
    return response->status >= 200 && response->status < 300;
}

/* A key or version that is gone is as good as deleted; a bucket that is gone is not. */
static bool is_gone(const struct qfc_http_response *response)
{
    char code[64];

    if (response->status != 404)
        return false;
    store_error_code(response, code, sizeof code);
    return strcmp(code, "NoSuchKey") == 0 || strcmp(code, "NoSuchVersion") == 0;
}

static int on_removed(struct errand *errand, struct qfc_http_response *response, struct qfc_error *error)
{
    return is_success(response) || is_gone(response) ? 0 : errand_refused(errand, response, error);
}

static int on_put(struct errand *errand, struct qfc_http_response *response, struct qfc_error *error)
{
    return is_success(response) ? 0 : errand_refused(errand, response, error);
}

static int put(struct errand *errand, struct qfc_http_response *none, struct qfc_error *error)
{
    return request_key(errand, "PUT", "", on_put, error);
}

/* --- Pages -------------------------------------------------------------------------------------------------------- */

/* What a page of a list says; entries are pairs of key and version ("" in a list of keys). */
struct page {
    struct names entries;
    char *key, *version; /* of the entry being read */
    bool is_list, is_encoded, is_truncated;
    char *marker, *version_marker; /* where the next page begins */
};

static int keep(char **place, const char *text, struct qfc_error *error)
{
    char *copy = strdup(text);

    if (!copy)
        return qfc_fail_memory(error);
    free(*place);
    *place = copy;
    return 0;
}

static int end_entry(struct page *page, struct qfc_error *error)
{
    int r = page->key ? names_add(&page->entries, page->key, error)
                      : qfc_fail(error, QFC_ERROR_INVALID, 0, "the store's list has an entry without a key");

    if (r == 0)
        r = names_add(&page->entries, page->version ? page->version : "", error);
    free(page->key);
    free(page->version);
    page->key = page->version = NULL;
    return r;
}

/* `path` without the root's name; lists of versions and of keys are told apart by what was asked for. */
static int read_item(struct page *page, const char *item, const char *text, struct qfc_error *error)
{
    if (strcmp(item, "Contents") == 0 || strcmp(item, "Version") == 0 || strcmp(item, "DeleteMarker") == 0)
        return end_entry(page, error);
    if (strcmp(item, "Contents/Key") == 0 || strcmp(item, "Version/Key") == 0 || strcmp(item, "DeleteMarker/Key") == 0)
        return keep(&page->key, text, error);
    if (strcmp(item, "Version/VersionId") == 0 || strcmp(item, "DeleteMarker/VersionId") == 0)
        return keep(&page->version, text, error);
    if (strcmp(item, "NextContinuationToken") == 0 || strcmp(item, "NextKeyMarker") == 0)
        return keep(&page->marker, text, error);
    if (strcmp(item, "NextVersionIdMarker") == 0)
        return keep(&page->version_marker, text, error);
    if (strcmp(item, "IsTruncated") == 0)
        page->is_truncated = strcmp(text, "true") == 0;
    if (strcmp(item, "EncodingType") == 0)
        page->is_encoded = strcmp(text, "url") == 0;
    return 0;
}

static bool is_root(const char *path, size_t root, const char *name)
{
    return root == strlen(name) && strncmp(path, name, root) == 0;
}

static int on_element(void *userdata, const char *path, const char *text, struct qfc_error *error)
{
    struct page *page = userdata;
    const char *slash = strchr(path, '/');
    size_t root = slash ? (size_t)(slash - path) : strlen(path);

    if (!is_root(path, root, "ListBucketResult") && !is_root(path, root, "ListVersionsResult"))
        return qfc_fail(error, QFC_ERROR_INVALID, 0, "the store's answer is no list of objects");
    page->is_list = true;
    return slash ? read_item(page, slash + 1, text, error) : 0;
}

static void free_page(struct page *page)
{
    names_free(&page->entries);
    free(page->key);
    free(page->version);
    free(page->marker);
    free(page->version_marker);
}

/* Every second one is a version's id, which is never encoded. */
static int decode(struct page *page, bool versions, struct qfc_error *error)
{
    bool good = true;

    for (size_t i = 0; page->is_encoded && i < page->entries.count; i += 2)
        good = store_decode(page->entries.items[i], true) && good;
    if (page->is_encoded && versions && page->marker)
        good = store_decode(page->marker, true) && good;
    return good ? 0 : qfc_fail(error, QFC_ERROR_INVALID, 0, "the store's list has a key with a zero byte");
}

/* A page that says that there is more must say where, and that must be elsewhere than where this one began. */
static int check_next(const struct errand *errand, const struct page *page, struct qfc_error *error)
{
    const char *old = errand->marker, *old_version = errand->version_marker ? errand->version_marker : "";
    const char *version = page->version_marker ? page->version_marker : "";

    if (!page->is_truncated)
        return 0;
    if (!page->marker || !page->marker[0])
        return qfc_fail(error, QFC_ERROR_INVALID, 0, "the store's list goes on and does not say where");
    if (old && strcmp(old, page->marker) == 0 && strcmp(old_version, version) == 0)
        return qfc_fail(error, QFC_ERROR_INVALID, 0, "the store's list goes on where it was before");
    return 0;
}

static int read_page(const struct errand *errand, const struct qfc_http_response *response, bool versions,
                     struct page *page, struct qfc_error *error)
{
    if (response->status != 200)
        return errand_refused(errand, response, error);
    if (store_xml_read(response->body.data, response->body.size, on_element, page, error) < 0 ||
        decode(page, versions, error) < 0)
        return -1;
    return check_next(errand, page, error);
}

/* `name`=`value` in the canonical query, where the value is there. */
static int add_parameter(struct qfc_buffer *query, const char *name, const char *value)
{
    if (!value)
        return 0;
    int r = qfc_buffer_printf(query, "%s%s=", query->size ? "&" : "", name);
    return r < 0 ? r : qfc_sigv4_encode(query, value, false);
}

/* Asks for the next page; the bucket itself is asked, not a key. */
static int ask(struct errand *errand, const char *prefix, bool versions, errand_act *next, struct qfc_error *error)
{
    struct qfc_buffer query = qfc_buffer(QUERY_BYTES);
    int r = versions ? 0 : add_parameter(&query, "continuation-token", errand->marker);

    if (r == 0)
        r = add_parameter(&query, "encoding-type", "url");
    if (r == 0)
        r = versions ? add_parameter(&query, "key-marker", errand->marker) : add_parameter(&query, "list-type", "2");
    if (r == 0)
        r = add_parameter(&query, "prefix", prefix);
    if (r == 0 && versions)
        r = add_parameter(&query, "version-id-marker", errand->version_marker);
    if (r == 0 && versions)
        r = add_parameter(&query, "versions", "");
    const struct store_request request = {
        .method = "GET", .path = errand->store->path[0] ? "" : "/", .query = qfc_buffer_text(&query)};
    if (r < 0)
        r = r == -ENOMEM ? qfc_fail_memory(error) : qfc_fail(error, QFC_ERROR_INVALID, 0, "the prefix is too long");
    else
        r = errand_send(errand, &request, next, error);
    qfc_buffer_free(&query);
    return r;
}

static void turn_page(struct errand *errand, struct page *page)
{
    free(errand->marker);
    free(errand->version_marker);
    errand->marker = page->marker;
    errand->version_marker = page->version_marker;
    page->marker = page->version_marker = NULL;
}

/* --- List --------------------------------------------------------------------------------------------------------- */

static int list(struct errand *errand, struct qfc_http_response *none, struct qfc_error *error);

static int take_keys(struct errand *errand, const struct page *page, struct qfc_error *error)
{
    const char *location = errand->store->location;
    size_t skip = location && !errand->object->legacy ? strlen(location) : 0, length = strlen(errand->key);

    for (size_t i = 0; i < page->entries.count; i += 2) {
        const char *key = page->entries.items[i];
        /* What is listed may be deleted next: a store that does not care about prefixes must not lose all it has. */
        if (strncmp(key, errand->key, length) != 0)
            return qfc_fail(error, QFC_ERROR_INVALID, 0, "the store's list has keys that do not begin like that");
        if (names_add(errand->found, key + skip, error) < 0)
            return -1;
    }
    return 0;
}

static int on_list(struct errand *errand, struct qfc_http_response *response, struct qfc_error *error)
{
    struct page page = {0};
    int r = read_page(errand, response, errand->object->legacy, &page, error);

    if (r == 0)
        r = take_keys(errand, &page, error);
    bool more = page.is_truncated;
    turn_page(errand, &page);
    free_page(&page);
    return r == 0 && more ? list(errand, NULL, error) : r;
}

static int list(struct errand *errand, struct qfc_http_response *none, struct qfc_error *error)
{
    return ask(errand, errand->key, errand->object->legacy, on_list, error);
}

/* --- Delete ------------------------------------------------------------------------------------------------------- */

static int remove_versions(struct errand *errand, struct qfc_error *error);

static int on_version_removed(struct errand *errand, struct qfc_http_response *response, struct qfc_error *error)
{
    if (!is_success(response) && !is_gone(response))
        return errand_refused(errand, response, error);
    errand->done++;
    return remove_versions(errand, error);
}

/*
 * Keys come in their byte order, so those that only begin like this one come after all of its versions. The next page
 * is asked for as the first one, when these are deleted: where it would begin is then gone with them.
 */
static int on_versions(struct errand *errand, struct qfc_http_response *response, struct qfc_error *error)
{
    struct page page = {0};
    int r = read_page(errand, response, true, &page, error);

    names_free(&errand->todo);
    errand->done = 0;
    for (size_t i = 0; r == 0 && i < page.entries.count; i += 2)
        if (strcmp(page.entries.items[i], errand->key) == 0)
            r = names_add(&errand->todo, page.entries.items[i + 1], error);
    errand->more = r == 0 && page.is_truncated && strcmp(page.marker, errand->key) == 0;
    free_page(&page);
    return r < 0 ? r : remove_versions(errand, error);
}

/* One after the other, then the next page. */
static int remove_versions(struct errand *errand, struct qfc_error *error)
{
    struct qfc_buffer query = qfc_buffer(QUERY_BYTES);

    if (errand->done == errand->todo.count)
        return errand->more ? ask(errand, errand->key, true, on_versions, error) : 0;
    const char *version = errand->todo.items[errand->done];
    int r = add_parameter(&query, "versionId", version[0] ? version : "null");
    r = r < 0 ? qfc_fail_memory(error)
              : request_key(errand, "DELETE", qfc_buffer_text(&query), on_version_removed, error);
    qfc_buffer_free(&query);
    return r;
}

static int remove_object(struct errand *errand, struct qfc_http_response *none, struct qfc_error *error)
{
    if (errand->object->legacy)
        return ask(errand, errand->key, true, on_versions, error);
    return request_key(errand, "DELETE", "", on_removed, error);
}

const struct store_backend store_s3 = {
    .class_name = "QfcS3Boto3Storage",
    .configure = configure,
    .begin = {[DEED_DELETE] = remove_object, [DEED_LIST] = list, [DEED_PUT] = put},
};
