/*
 * One request to a store, signed where it is S3's, and what its refusal means.
 */
#include "sigv4.h"
#include "stores_private.h"

#include "qfc/text.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#define PAGE_BYTES    (8u * 1024 * 1024) /* 1000 keys of 1024 bytes, percent-encoded, and what is around them */
#define URL_BYTES     (64u * 1024)
#define HEADERS_BYTES (64u * 1024)
#define HEADERS       8

/* The lines of a request, in one text that is wiped: each followed by a zero byte. */
struct lines {
    struct qfc_buffer text;
    size_t starts[HEADERS];
    size_t count;
};

static int add_line(struct lines *lines, const char *name, const char *value)
{
    if (lines->count == HEADERS)
        return -1;
    lines->starts[lines->count++] = lines->text.size;
    if (qfc_buffer_append_text(&lines->text, name) < 0 || qfc_buffer_append_text(&lines->text, value) < 0)
        return -1;
    return qfc_buffer_append(&lines->text, "", 1);
}

static int sign(const struct store *store, const struct store_request *request, const char *path, struct lines *lines,
                struct qfc_error *error)
{
    char payload[QFC_SIGV4_HASH_SIZE], now[QFC_SIGV4_TIME_SIZE];
    struct qfc_buffer authorization = qfc_buffer(HEADERS_BYTES);
    const struct qfc_sigv4 facts = {.access_key = store->access_key,
                                    .secret_key = store->secret_key,
                                    .region = store->region,
                                    .token = store->token,
                                    .method = request->method,
                                    .host = store->host,
                                    .path = path,
                                    .query = request->query,
                                    .payload = payload,
                                    .time = now};

    qfc_sigv4_time(time(NULL), now);
    if (qfc_sigv4_hash(request->body, request->body_size, payload, error) < 0 ||
        qfc_sigv4_authorize(&facts, &authorization, error) < 0)
        return -1;
    int r = add_line(lines, "Host: ", store->host);
    if (r == 0)
        r = add_line(lines, "X-Amz-Content-Sha256: ", payload);
    if (r == 0)
        r = add_line(lines, "X-Amz-Date: ", now);
    if (r == 0 && store->token)
        r = add_line(lines, "X-Amz-Security-Token: ", store->token);
    if (r == 0)
        r = add_line(lines, "Authorization: ", qfc_buffer_text(&authorization));
    qfc_buffer_free(&authorization);
    return r < 0 ? qfc_fail_memory(error) : 0;
}

static int make_lines(const struct store *store, const struct store_request *request, const char *path,
                      struct lines *lines, struct qfc_error *error)
{
    for (const char *const *header = request->headers; header && *header; header++)
        if (add_line(lines, "", *header) < 0)
            return qfc_fail_memory(error);
    if (store->backend == &store_s3)
        return sign(store, request, path, lines, error);
    if (store->authorization && add_line(lines, "", store->authorization) < 0)
        return qfc_fail_memory(error);
    return 0;
}

static void on_done(void *userdata, const struct qfc_error *failure, struct qfc_http_response *response)
{
    struct errand *errand = userdata;
    struct qfc_error error = QFC_NO_ERROR;

    errand->transfer = NULL;
    if (failure) {
        errand_end(errand, failure);
        return;
    }
    int r = errand->next(errand, response, &error);
    if (r <= 0)
        errand_end(errand, r < 0 ? &error : NULL);
}

static int start(struct errand *errand, const struct store_request *request, const char *url, const struct lines *lines,
                 struct qfc_error *error)
{
    const struct store *store = errand->store;
    const struct qfc_http_tls tls = {.ca_file = store->ca_file, .verify = !store->trusts_all};
    const char *headers[HEADERS + 1] = {NULL};

    for (size_t i = 0; i < lines->count; i++)
        headers[i] = lines->text.data + lines->starts[i];
    const struct qfc_http_request http = {.method = request->method,
                                          .url = url,
                                          .tls = store->ca_file || store->trusts_all ? &tls : NULL,
                                          .headers = headers,
                                          .body = request->body,
                                          .body_size = request->body_size,
                                          .max_body_bytes = PAGE_BYTES,
                                          .deadline_ms = stores_deadline_ms(store->stores),
                                          .on_done = on_done,
                                          .userdata = errand};
    return qfc_http_start(stores_http(store->stores), &http, &errand->transfer, error);
}

int errand_send(struct errand *errand, const struct store_request *request, errand_act *next, struct qfc_error *error)
{
    const struct store *store = errand->store;
    struct qfc_buffer url = qfc_buffer(URL_BYTES);
    struct lines lines = {.text = qfc_buffer(HEADERS_BYTES)};

    if (++errand->answers > QFC_STORE_ANSWERS)
        return qfc_fail(error, QFC_ERROR_INVALID, 0, "that takes more than %u requests", QFC_STORE_ANSWERS);
    errand->next = next;
    int r = qfc_buffer_printf(&url, "%s%s%s%s%s", store->origin, store->path, request->path,
                              request->query[0] ? "?" : "", request->query);
    if (r < 0) {
        qfc_fail_memory(error);
    } else {
        char *path = strndup(url.data + strlen(store->origin), strlen(store->path) + strlen(request->path));
        r = path ? make_lines(store, request, path, &lines, error) : qfc_fail_memory(error);
        free(path);
    }
    if (r == 0)
        r = start(errand, request, url.data, &lines, error);
    qfc_buffer_free(&url);
    qfc_buffer_wipe(&lines.text);
    return r < 0 ? -1 : 1;
}

/* --- Refusals ----------------------------------------------------------------------------------------------------- */

/* S3 says <Error><Code>, <Message>; of WebDAV servers sabre/dav, and so Nextcloud, <error><exception>, <message>. */
struct words {
    char code[64];
    struct qfc_buffer message;
};

static bool is_named(const char *path, const char *name)
{
    const char *slash = strrchr(path, '/');
    return strcasecmp(slash ? slash + 1 : path, name) == 0;
}

/* Control characters to spaces, broken UTF-8 replaced. What does not fit is left out. */
static void clean(struct qfc_buffer *out, const char *text)
{
    size_t from = out->size;

    if (qfc_text_clean(out, text, strlen(text), NULL) < 0)
        return;
    for (size_t i = from; i < out->size; i++)
        if (iscntrl((unsigned char)out->data[i]))
            out->data[i] = ' ';
}

static int on_word(void *userdata, const char *path, const char *text, struct qfc_error *error)
{
    struct words *words = userdata;

    if (!words->code[0] && (is_named(path, "Code") || is_named(path, "exception")))
        snprintf(words->code, sizeof words->code, "%s", text);
    else if (words->message.size == 0 && is_named(path, "Message"))
        clean(&words->message, text);
    return 0;
}

static void read_words(const struct qfc_http_response *response, struct words *words)
{
    struct qfc_error ignored = QFC_NO_ERROR;

    *words = (struct words){.message = qfc_buffer(64u * 1024)};
    store_xml_read(response->body.data, response->body.size, on_word, words, &ignored);
    for (char *at = words->code; *at; at++)
        if (!isalnum((unsigned char)*at) && !strchr("._-\\", *at))
            *at = ' ';
}

/* A store that repeats what it was sent must not get our secrets into a log. */
static void hide(struct qfc_buffer *text, const char *secret)
{
    size_t size = secret ? strlen(secret) : 0;
    char *found = size ? text->data : NULL;

    for (; found && (found = strstr(found, secret)); found += size)
        memset(found, '*', size);
}

static void hide_secrets(struct qfc_buffer *text, const struct store *store)
{
    const char *blank = store->authorization ? strrchr(store->authorization, ' ') : NULL;

    hide(text, store->secret_key);
    hide(text, store->access_key);
    hide(text, store->token);
    hide(text, store->password);
    hide(text, blank ? blank + 1 : NULL);
}

static void cut(struct qfc_buffer *text)
{
    if (text->size <= QFC_STORE_REASON)
        return;
    size_t end = QFC_STORE_REASON;
    while (end > 0 && ((unsigned char)text->data[end] & 0xC0) == 0x80)
        end--;
    text->data[end] = '\0';
    text->size = end;
}

/* "SlowDown" comes with 503, but others have sent it with 4xx; a RequestTimeout is a 400; an OperationAborted is a 409
 * (Amazon S3 API Reference, "Error responses"). 423 is WebDAV's "Locked". */
static bool is_passing(int status, const char *code)
{
    static const char *const codes[] = {"SlowDown", "RequestTimeout", "OperationAborted", "Throttling",
                                        "TooManyRequests"};

    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
        if (strcmp(code, codes[i]) == 0)
            return true;
    return status >= 500 || status == 408 || status == 423 || status == 429;
}

int errand_refused(const struct errand *errand, const struct qfc_http_response *response, struct qfc_error *error)
{
    struct words words;
    int status = response->status;

    read_words(response, &words);
    enum qfc_error_kind kind = is_passing(status, words.code) ? QFC_ERROR_AGAIN : QFC_ERROR_REFUSED;
    struct qfc_buffer code = qfc_buffer(sizeof words.code);
    qfc_buffer_append_text(&code, words.code);
    hide_secrets(&code, errand->store);
    hide_secrets(&words.message, errand->store);
    cut(&words.message);
    qfc_fail(error, kind, status, "the store answers %d%s%s%s%s", status, code.size ? " " : "", qfc_buffer_text(&code),
             words.message.size ? ": " : "", qfc_buffer_text(&words.message));
    qfc_buffer_free(&code);
    qfc_buffer_free(&words.message);
    return -1;
}

void store_error_code(const struct qfc_http_response *response, char *ret_code, size_t size)
{
    struct words words;

    read_words(response, &words);
    snprintf(ret_code, size, "%s", words.code);
    qfc_buffer_free(&words.message);
}
