/*
 * WebDAV (RFC 4918): DELETE, PUT with MKCOL, and lists by PROPFIND with Depth 1, one collection after the other, since
 * servers may refuse infinite depth.
 *
 * User and password are those of webdav_url. The option basic_auth is for downloads, which nginx does (with Nextcloud
 * it is another user's: QFieldCloud's backend.py and .env.example, v25.30), and is of no use here.
 */
#include "sigv4.h"
#include "stores_private.h"

#include "qfc/text.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define URL_BYTES (32u * 1024)

/* --- Configuration ------------------------------------------------------------------------------------------------ */

/* "Authorization: Basic ..." (RFC 7617). */
static int make_authorization(struct store *store, const char *user, struct qfc_error *error)
{
    static const char name[] = "Authorization: Basic ";
    const char *password = store->password ? store->password : "";
    char *plain = NULL;

    if (asprintf(&plain, "%s:%s", user, password) < 0)
        return qfc_fail_memory(error);
    size_t size = strlen(plain);
    store->authorization = malloc(sizeof name + (size + 2) / 3 * 4);
    if (store->authorization) {
        memcpy(store->authorization, name, sizeof name);
        EVP_EncodeBlock((unsigned char *)store->authorization + sizeof name - 1, (const unsigned char *)plain,
                        (int)size);
    }
    qfc_wipe(plain);
    return store->authorization ? 0 : qfc_fail_memory(error);
}

static int configure(struct store *store, const json_t *options, struct qfc_error *error)
{
    char *url = NULL, *user = NULL;
    int r = store_option(store, options, "webdav_url", true, &url, error);

    if (r == 0 && url)
        r = store_take_url(store, "webdav_url", url, NULL, &user, &store->password, error);
    if (r == 0 && user)
        r = make_authorization(store, user, error);
    qfc_wipe(url);
    free(user);
    return r;
}

/* --- Requests ----------------------------------------------------------------------------------------------------- */

static int request_key(struct errand *errand, const char *method, const char *key, const char *end,
                       struct store_request request, errand_act *next, struct qfc_error *error)
{
    struct qfc_buffer path = qfc_buffer(URL_BYTES);
    int r = qfc_buffer_append_text(&path, key[0] ? "/" : "");

    if (r == 0)
        r = qfc_sigv4_encode(&path, key, true);
    if (r == 0)
        r = qfc_buffer_append_text(&path, end);
    request.method = method;
    request.path = qfc_buffer_text(&path);
    request.query = "";
    if (r < 0)
        r = r == -ENOMEM ? qfc_fail_memory(error) : qfc_fail(error, QFC_ERROR_INVALID, 0, "the key is too long");
    else
        r = errand_send(errand, &request, next, error);
    qfc_buffer_free(&path);
    return r;
}

/* 207 says that some of it was not done (RFC 4918, section 9.6.1). */
static bool is_success(int status)
{
    return status >= 200 && status < 300 && status != 207;
}

static int on_removed(struct errand *errand, struct qfc_http_response *response, struct qfc_error *error)
{
    bool gone = is_success(response->status) || response->status == 404 || response->status == 410;
    return gone ? 0 : errand_refused(errand, response, error);
}

static int remove_object(struct errand *errand, struct qfc_http_response *none, struct qfc_error *error)
{
    return request_key(errand, "DELETE", errand->key, "", (struct store_request){0}, on_removed, error);
}

/* --- Put ---------------------------------------------------------------------------------------------------------- */

static int put(struct errand *errand, struct qfc_http_response *none, struct qfc_error *error);

/* All collections that the key is in, outermost first. */
static int name_parents(struct errand *errand, struct qfc_error *error)
{
    for (char *slash = strchr(errand->key, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        int r = names_add(&errand->todo, errand->key, error);
        *slash = '/';
        if (r < 0)
            return -1;
    }
    return 0;
}

static int make_next(struct errand *errand, struct qfc_error *error);

/* 405: there is something by that name already. */
static int on_made(struct errand *errand, struct qfc_http_response *response, struct qfc_error *error)
{
    if (!is_success(response->status) && response->status != 405)
        return errand_refused(errand, response, error);
    return make_next(errand, error);
}

static int make_next(struct errand *errand, struct qfc_error *error)
{
    if (errand->done == errand->todo.count)
        return put(errand, NULL, error);
    return request_key(errand, "MKCOL", errand->todo.items[errand->done++], "/", (struct store_request){0}, on_made,
                       error);
}

/* 409: a collection that it should be in is not there (RFC 4918, section 9.7.1); some say 404. */
static int on_put(struct errand *errand, struct qfc_http_response *response, struct qfc_error *error)
{
    if (is_success(response->status))
        return 0;
    if (errand->tried || (response->status != 409 && response->status != 404))
        return errand_refused(errand, response, error);
    errand->tried = true;
    return name_parents(errand, error) < 0 ? -1 : make_next(errand, error);
}

static int put(struct errand *errand, struct qfc_http_response *none, struct qfc_error *error)
{
    const char *headers[] = {errand->content_type, NULL};
    const struct store_request request = {.headers = headers, .body = errand->data, .body_size = errand->size};

    return request_key(errand, "PUT", errand->key, "", request, on_put, error);
}

/* --- List --------------------------------------------------------------------------------------------------------- */

static const char question[] = "<?xml version=\"1.0\" encoding=\"utf-8\"?>"
                               "<propfind xmlns=\"DAV:\"><prop><resourcetype/></prop></propfind>";

/* One answer to PROPFIND being read. */
struct listing {
    struct errand *errand;
    char *collection; /* that was asked for: "" or "a/b" */
    char *base;       /* the store's path, decoded */
    char *href;       /* of the response being read */
    bool is_collection;
    bool is_multistatus;
};

/* An href is a path, or a whole URL (RFC 4918, section 8.3). */
static const char *path_of(const char *href)
{
    const char *authority = href[0] == '/' ? NULL : strstr(href, "://");

    return authority ? strchr(authority + 3, '/') : href;
}

static bool is_step(const char *part, size_t size)
{
    return size == 0 || (size == 1 && part[0] == '.') || (size == 2 && part[0] == '.' && part[1] == '.');
}

/* Are these names, one below the other, and none that leads elsewhere? */
static bool is_plain(const char *key)
{
    for (const char *part = key; part; part = strchr(part, '/')) {
        part += part != key;
        if (is_step(part, strcspn(part, "/")))
            return false;
    }
    return true;
}

/* The key of an href, in place; null where it is not below what was asked for, "" for that itself. */
static char *key_of(const struct listing *listing, char *href)
{
    size_t base = strlen(listing->base), inside = strlen(listing->collection), length;
    char *path = (char *)path_of(href);

    if (!path || !store_decode(path, false) || strncmp(path, listing->base, base) != 0)
        return NULL;
    path += base;
    path += *path == '/';
    length = strlen(path);
    if (length > 0 && path[length - 1] == '/')
        path[length - 1] = '\0';
    if (strcmp(path, listing->collection) == 0)
        return path + strlen(path);
    if (strncmp(path, listing->collection, inside) != 0 || (inside && path[inside] != '/') || !is_plain(path))
        return NULL;
    return path;
}

/* Can anything below this collection begin with what is looked for? */
static bool leads_there(const char *collection, const char *prefix)
{
    size_t length = strlen(collection);

    if (strncmp(collection, prefix, strlen(prefix)) == 0)
        return true;
    return strncmp(collection, prefix, length) == 0 && prefix[length] == '/';
}

static int take(struct listing *listing, struct qfc_error *error)
{
    struct errand *errand = listing->errand;
    char *key = listing->href ? key_of(listing, listing->href) : NULL;
    int r = 0;

    if (!key)
        r = qfc_fail(error, QFC_ERROR_INVALID, 0, "the store lists what is not below what it was asked for");
    else if (key[0] && listing->is_collection && leads_there(key, errand->key))
        r = names_add(&errand->todo, key, error);
    else if (key[0] && !listing->is_collection && strncmp(key, errand->key, strlen(errand->key)) == 0)
        r = names_add(errand->found, key, error);
    free(listing->href);
    listing->href = NULL;
    listing->is_collection = false;
    return r;
}

static int on_element(void *userdata, const char *path, const char *text, struct qfc_error *error)
{
    struct listing *listing = userdata;

    if (strcmp(path, "multistatus") == 0)
        listing->is_multistatus = true;
    if (strcmp(path, "multistatus/response/propstat/prop/resourcetype/collection") == 0)
        listing->is_collection = true;
    if (strcmp(path, "multistatus/response") == 0)
        return take(listing, error);
    if (strcmp(path, "multistatus/response/href") != 0 || listing->href)
        return 0;
    listing->href = strdup(text);
    return listing->href ? 0 : qfc_fail_memory(error);
}

static int read_listing(struct listing *listing, const struct qfc_http_response *response, struct qfc_error *error)
{
    const struct errand *errand = listing->errand;

    listing->collection = strdup(errand->todo.items[errand->done - 1]);
    listing->base = strdup(errand->store->path);
    if (!listing->collection || !listing->base)
        return qfc_fail_memory(error);
    store_decode(listing->base, false);
    if (store_xml_read(response->body.data, response->body.size, on_element, listing, error) < 0)
        return -1;
    return listing->is_multistatus ? 0 : qfc_fail(error, QFC_ERROR_INVALID, 0, "the store's answer is no multistatus");
}

static int look_into_next(struct errand *errand, struct qfc_error *error);

/* What is not there, or not any more, has nothing in it. */
static int on_listing(struct errand *errand, struct qfc_http_response *response, struct qfc_error *error)
{
    struct listing listing = {.errand = errand};
    int r = 0;

    if (response->status == 207)
        r = read_listing(&listing, response, error);
    else if (response->status != 404)
        r = errand_refused(errand, response, error);
    free(listing.collection);
    free(listing.base);
    free(listing.href);
    return r < 0 ? r : look_into_next(errand, error);
}

static int look_into_next(struct errand *errand, struct qfc_error *error)
{
    static const char *const headers[] = {"Depth: 1", "Content-Type: application/xml; charset=utf-8", NULL};
    const struct store_request request = {.headers = headers, .body = question, .body_size = sizeof question - 1};

    if (errand->done == errand->todo.count)
        return 0;
    return request_key(errand, "PROPFIND", errand->todo.items[errand->done++], "/", request, on_listing, error);
}

/* Begins with the innermost collection that everything sought is in. */
static int list(struct errand *errand, struct qfc_http_response *none, struct qfc_error *error)
{
    const char *slash = strrchr(errand->key, '/');
    char *start = strndup(errand->key, slash ? (size_t)(slash - errand->key) : 0);
    int r = start ? names_add(&errand->todo, start, error) : qfc_fail_memory(error);

    free(start);
    return r < 0 ? r : look_into_next(errand, error);
}

const struct store_backend store_webdav = {
    .class_name = "QfcWebDavStorage",
    .configure = configure,
    .begin = {[DEED_DELETE] = remove_object, [DEED_LIST] = list, [DEED_PUT] = put},
};
