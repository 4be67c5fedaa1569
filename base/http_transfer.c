/*
 * One request as libcurl wants it, and what its end means.
 *
 * The distinction that everything above depends on is made here: UNREACHABLE only when for certain no byte of the
 * request was sent. libcurl's pre-request callback (CURLOPT_PREREQFUNCTION, 7.80) is called each time that it is about
 * to send, so it tells just that. It also stops libcurl from sending again what may not be repeated: on a reused
 * connection that breaks without an answer libcurl takes a fresh one by itself, also for a POST.
 */
#include "http_private.h"

#include <string.h>
#include <strings.h>

#include <stdlib.h>

#define SMALL_BYTES     (16u * 1024)
#define REFUSAL_BYTES   (64u * 1024)
#define BULK_BYTES      (256u * 1024)
#define CONNECT_MS      10000u
#define KEEPALIVE_IDLE  30L /* seconds */
#define KEEPALIVE_AGAIN 10L

static int before_request(void *userdata, char *primary_ip, char *local_ip, int primary_port, int local_port)
{
    struct qfc_http_transfer *transfer = userdata;

    if (transfer->state != TRANSFER_RUNNING)
        return CURL_PREREQFUNC_ABORT;
    if (transfer->attempts++ == 0 || transfer->repeatable)
        return CURL_PREREQFUNC_OK;
    qfc_fail(&transfer->error, QFC_ERROR_UNKNOWN, 0, "the connection to %s broke before an answer came",
             transfer->where);
    return CURL_PREREQFUNC_ABORT;
}

static size_t send_body(char *out, size_t size, size_t count, void *userdata)
{
    struct qfc_http_transfer *transfer = userdata;
    size_t room = size * count, left = transfer->body_size - transfer->body_offset;
    ssize_t written;

    if (transfer->state != TRANSFER_RUNNING)
        return CURL_READFUNC_ABORT;
    if (!transfer->read_body) {
        if (left < room)
            room = left;
        memcpy(out, transfer->body + transfer->body_offset, room);
        transfer->body_offset += room;
        return room;
    }
    written = transfer->read_body(transfer->userdata, out, room);
    if (written == QFC_HTTP_LATER) {
        transfer->held = true;
        return CURL_READFUNC_PAUSE;
    }
    if (written >= 0 && (size_t)written <= room)
        return (size_t)written;
    if (transfer->state == TRANSFER_RUNNING)
        qfc_fail(&transfer->error, QFC_ERROR_INVALID, 0, "the request to %s was given up by its sender",
                 transfer->where);
    return CURL_READFUNC_ABORT;
}

static int rewind_body(void *userdata, curl_off_t offset, int origin)
{
    struct qfc_http_transfer *transfer = userdata;

    if (transfer->read_body || origin != SEEK_SET || offset < 0 || (size_t)offset > transfer->body_size)
        return CURL_SEEKFUNC_CANTSEEK;
    transfer->body_offset = (size_t)offset;
    return CURL_SEEKFUNC_OK;
}

static bool is_success(int status)
{
    return status >= 200 && status < 300;
}

/* Called for each line of a header, and for a 1xx answer's, and for the trailers of a chunked body. */
static size_t receive_header(char *data, size_t size, size_t count, void *userdata)
{
    struct qfc_http_transfer *transfer = userdata;
    bool blank = count == 2 ? memcmp(data, "\r\n", 2) == 0 : count == 1 && data[0] == '\n';
    long status = 0;

    if (transfer->state != TRANSFER_RUNNING)
        return CURL_WRITEFUNC_ERROR;
    if (!blank || transfer->headers_seen)
        return count;
    curl_easy_getinfo(transfer->easy, CURLINFO_RESPONSE_CODE, &status);
    if (status < 200)
        return count;
    transfer->headers_seen = true;
    transfer->response.status = (int)status;
    transfer->response.body = qfc_buffer(is_success((int)status) ? transfer->max_body_bytes : REFUSAL_BYTES);
    if (transfer->on_headers)
        transfer->on_headers(transfer->userdata, (int)status);
    return transfer->state == TRANSFER_RUNNING ? count : CURL_WRITEFUNC_ERROR;
}

/* Keeps a piece of a body within its maximum. A refusal's is cut there, and the transfer with it. */
static size_t keep(struct qfc_http_transfer *transfer, const char *data, size_t size)
{
    struct qfc_buffer *body = &transfer->response.body;
    size_t room = body->maximum - body->size, taken = size;

    if (size > room && is_success(transfer->response.status)) {
        qfc_fail(&transfer->error, QFC_ERROR_INVALID, 0, "the answer of %s is larger than %zu bytes", transfer->where,
                 body->maximum);
        return CURL_WRITEFUNC_ERROR;
    }
    if (size > room) {
        transfer->cut = true;
        taken = room;
    }
    if (qfc_buffer_append(body, data, taken) < 0)
        qfc_fail_memory(&transfer->error);
    return transfer->cut || transfer->error.kind ? CURL_WRITEFUNC_ERROR : size;
}

void qfc_http_transfer_resume(struct qfc_http_transfer *transfer)
{
    struct qfc_http *http = transfer->http;

    transfer->held = transfer->resuming = false;
    http->inside = true;
    curl_easy_pause(transfer->easy, CURLPAUSE_CONT);
    http->inside = false;
    qfc_http_drive_soon(http);
}

static size_t receive_body(char *data, size_t size, size_t count, void *userdata)
{
    struct qfc_http_transfer *transfer = userdata;

    if (transfer->state != TRANSFER_RUNNING)
        return CURL_WRITEFUNC_ERROR;
    if (transfer->held) /* of a large piece libcurl makes several, and would not stop in between by itself */
        return CURL_WRITEFUNC_PAUSE;
    if (!transfer->on_data || !is_success(transfer->response.status))
        return keep(transfer, data, count);
    int r = transfer->on_data(transfer->userdata, data, count);
    if (r >= 0) {
        transfer->held = r == QFC_HTTP_HOLD;
        return transfer->state == TRANSFER_RUNNING ? count : CURL_WRITEFUNC_ERROR;
    }
    if (transfer->state == TRANSFER_RUNNING)
        qfc_fail(&transfer->error, QFC_ERROR_INVALID, 0, "the answer of %s was given up by its receiver",
                 transfer->where);
    return CURL_WRITEFUNC_ERROR;
}

/* Sets options one after the other; the first failure stays in `code`. */
static void set_long(CURL *easy, CURLcode *code, CURLoption option, long value)
{
    if (*code == CURLE_OK)
        *code = curl_easy_setopt(easy, option, value);
}

static void set_pointer(CURL *easy, CURLcode *code, CURLoption option, const void *value)
{
    if (*code == CURLE_OK)
        *code = curl_easy_setopt(easy, option, value);
}

static void set_tls(CURL *easy, CURLcode *code, const struct qfc_http_tls *tls)
{
    if (tls->ca_file)
        set_pointer(easy, code, CURLOPT_CAINFO, tls->ca_file);
    if (tls->certificate_file)
        set_pointer(easy, code, CURLOPT_SSLCERT, tls->certificate_file);
    if (tls->key_file)
        set_pointer(easy, code, CURLOPT_SSLKEY, tls->key_file);
    set_long(easy, code, CURLOPT_SSL_VERIFYPEER, tls->verify ? 1 : 0);
    set_long(easy, code, CURLOPT_SSL_VERIFYHOST, tls->verify ? 2 : 0);
}

static void set_connection(CURL *easy, CURLcode *code, const struct qfc_http_request *request)
{
    set_long(easy, code, CURLOPT_NOSIGNAL, 1);
    set_long(easy, code, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
#if LIBCURL_VERSION_NUM >= 0x075500
    set_pointer(easy, code, CURLOPT_PROTOCOLS_STR, "http,https");
#else
    set_long(easy, code, CURLOPT_PROTOCOLS, CURLPROTO_HTTP | CURLPROTO_HTTPS);
#endif
    set_long(easy, code, CURLOPT_FOLLOWLOCATION, 0);
    set_long(easy, code, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
    if (request->bulk) {
        set_long(easy, code, CURLOPT_BUFFERSIZE, (long)BULK_BYTES);
        set_long(easy, code, CURLOPT_UPLOAD_BUFFERSIZE, (long)BULK_BYTES);
    }
    set_long(easy, code, CURLOPT_FRESH_CONNECT, request->fresh ? 1 : 0);
    set_long(easy, code, CURLOPT_TCP_NODELAY, 1);
    set_long(easy, code, CURLOPT_TCP_KEEPALIVE, 1);
    set_long(easy, code, CURLOPT_TCP_KEEPIDLE, KEEPALIVE_IDLE);
    set_long(easy, code, CURLOPT_TCP_KEEPINTVL, KEEPALIVE_AGAIN);
    set_long(easy, code, CURLOPT_CONNECTTIMEOUT_MS, (long)(request->connect_ms ? request->connect_ms : CONNECT_MS));
    if (request->unix_socket) {
        set_pointer(easy, code, CURLOPT_UNIX_SOCKET_PATH, request->unix_socket);
        set_pointer(easy, code, CURLOPT_PROXY, ""); /* nor what http_proxy says */
    }
    if (request->tls)
        set_tls(easy, code, request->tls);
}

/*
 * With CURLOPT_POSTFIELDS libcurl sends a small body in one write with the headers. It is a copy, since libcurl would
 * still read the caller's memory in the moment between a cancel within a callback and the transfer's removal. All other
 * bodies go through send_body.
 */
static bool set_small_body(struct qfc_http_transfer *transfer, CURLcode *code, const struct qfc_http_request *request)
{
    if (request->read_body || request->body_size == 0 || request->body_size > SMALL_BYTES ||
        strcmp(request->method, "POST") != 0)
        return false;
    transfer->small = qfc_buffer(SMALL_BYTES);
    if (qfc_buffer_append(&transfer->small, request->body, request->body_size) < 0)
        *code = CURLE_OUT_OF_MEMORY;
    set_long(transfer->easy, code, CURLOPT_POSTFIELDSIZE, (long)request->body_size);
    set_pointer(transfer->easy, code, CURLOPT_POSTFIELDS, transfer->small.data);
    return true;
}

static void set_method(struct qfc_http_transfer *transfer, CURLcode *code, const struct qfc_http_request *request)
{
    bool sends = request->body_size > 0 || request->read_body;

    if (set_small_body(transfer, code, request))
        return;
    if (sends) {
        set_long(transfer->easy, code, CURLOPT_UPLOAD, 1);
        if (*code == CURLE_OK)
            *code = curl_easy_setopt(transfer->easy, CURLOPT_INFILESIZE_LARGE,
                                     request->read_body ? (curl_off_t)-1 : (curl_off_t)request->body_size);
    } else if (strcmp(request->method, "HEAD") == 0) {
        set_long(transfer->easy, code, CURLOPT_NOBODY, 1);
    } else if (request->method[0] == 'P') { /* POST, PUT, PATCH: say Content-Length: 0 */
        set_pointer(transfer->easy, code, CURLOPT_POSTFIELDS, "");
        set_long(transfer->easy, code, CURLOPT_POSTFIELDSIZE, 0);
    }
    set_pointer(transfer->easy, code, CURLOPT_CUSTOMREQUEST, request->method);
}

static void set_callbacks(struct qfc_http_transfer *transfer, CURLcode *code)
{
    CURL *easy = transfer->easy;

    set_pointer(easy, code, CURLOPT_PRIVATE, transfer);
    set_pointer(easy, code, CURLOPT_ERRORBUFFER, transfer->curl_message);
    set_pointer(easy, code, CURLOPT_PREREQFUNCTION, (const void *)before_request);
    set_pointer(easy, code, CURLOPT_PREREQDATA, transfer);
    set_pointer(easy, code, CURLOPT_READFUNCTION, (const void *)send_body);
    set_pointer(easy, code, CURLOPT_READDATA, transfer);
    set_pointer(easy, code, CURLOPT_SEEKFUNCTION, (const void *)rewind_body);
    set_pointer(easy, code, CURLOPT_SEEKDATA, transfer);
    set_pointer(easy, code, CURLOPT_HEADERFUNCTION, (const void *)receive_header);
    set_pointer(easy, code, CURLOPT_HEADERDATA, transfer);
    set_pointer(easy, code, CURLOPT_WRITEFUNCTION, (const void *)receive_body);
    set_pointer(easy, code, CURLOPT_WRITEDATA, transfer);
}

static int add_header(struct qfc_http_transfer *transfer, const char *line)
{
    struct curl_slist *longer = curl_slist_append(transfer->headers, line);

    if (!longer)
        return -1;
    transfer->headers = longer;
    return 0;
}

/* libcurl adds headers of its own: waiting for "100 Continue" costs a second, and a body is no HTML form. */
static int make_headers(struct qfc_http_transfer *transfer, const char *const *headers)
{
    bool typed = false;

    for (; headers && *headers; headers++) {
        if (add_header(transfer, *headers) < 0)
            return -1;
        if (strncasecmp(*headers, "Content-Type:", strlen("Content-Type:")) == 0)
            typed = true;
    }
    if (add_header(transfer, "Expect:") < 0)
        return -1;
    return typed ? 0 : add_header(transfer, "Content-Type:");
}

/* "host:port" of a URL, without anything secret that it may hold; null when it is no URL, or memory is out. */
static char *authority(const char *url, CURLUcode *code)
{
    CURLU *parts = curl_url();
    char *host = NULL, *port = NULL, *text = NULL;

    *code = parts ? curl_url_set(parts, CURLUPART_URL, url, CURLU_NON_SUPPORT_SCHEME) : CURLUE_OUT_OF_MEMORY;
    if (*code == CURLUE_OK)
        *code = curl_url_get(parts, CURLUPART_HOST, &host, 0);
    if (*code == CURLUE_OK)
        *code = curl_url_get(parts, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT);
    if (*code == CURLUE_OK && asprintf(&text, "%s:%s", host, port) < 0)
        text = NULL;
    curl_free(host);
    curl_free(port);
    curl_url_cleanup(parts);
    return text;
}

static int name_the_other_side(struct qfc_http_transfer *transfer, const struct qfc_http_request *request,
                               struct qfc_error *error)
{
    CURLUcode code = CURLUE_OK;

    transfer->where = authority(request->url, &code);
    if (code != CURLUE_OK && code != CURLUE_OUT_OF_MEMORY)
        return qfc_fail(error, QFC_ERROR_BUG, 0, "start a transfer: that is no URL: %s", curl_url_strerror(code));
    if (request->unix_socket) {
        free(transfer->where);
        transfer->where = strdup(request->unix_socket);
    }
    return transfer->where ? 0 : qfc_fail_memory(error);
}

static void copy_request(struct qfc_http_transfer *transfer, const struct qfc_http_request *request)
{
    transfer->repeatable = strcmp(request->method, "POST") != 0 && strcmp(request->method, "PATCH") != 0;
    transfer->body = request->body;
    transfer->body_size = request->body_size;
    transfer->read_body = request->read_body;
    transfer->max_body_bytes = request->max_body_bytes;
    transfer->deadline_ms = request->deadline_ms;
    transfer->on_headers = request->on_headers;
    transfer->on_data = request->on_data;
    transfer->on_done = request->on_done;
    transfer->userdata = request->userdata;
    transfer->response.content_type = "";
}

int qfc_http_transfer_prepare(struct qfc_http_transfer *transfer, const struct qfc_http_request *request,
                              struct qfc_error *error)
{
    CURLcode code = CURLE_OK;

    copy_request(transfer, request);
    if (name_the_other_side(transfer, request, error) < 0)
        return -1;
    transfer->easy = curl_easy_init();
    if (!transfer->easy || make_headers(transfer, request->headers) < 0)
        return qfc_fail_memory(error);
    set_connection(transfer->easy, &code, request);
    set_method(transfer, &code, request);
    set_callbacks(transfer, &code);
    set_pointer(transfer->easy, &code, CURLOPT_URL, request->url);
    set_long(transfer->easy, &code, CURLOPT_PATH_AS_IS, 1);
    set_pointer(transfer->easy, &code, CURLOPT_HTTPHEADER, transfer->headers);
    set_pointer(transfer->easy, &code, CURLOPT_USERAGENT, "qfc-worker/" QFC_VERSION);
    if (code == CURLE_OUT_OF_MEMORY)
        return qfc_fail_memory(error);
    if (code != CURLE_OK)
        return qfc_fail(error, QFC_ERROR_BUG, 0, "start a transfer: %s", curl_easy_strerror(code));
    return 0;
}

static const char *reason(const struct qfc_http_transfer *transfer, CURLcode result, int system_error)
{
    if (transfer->attempts == 0 && system_error)
        return strerror(system_error);
    return transfer->curl_message[0] ? transfer->curl_message : curl_easy_strerror(result);
}

static void explain(struct qfc_http_transfer *transfer, CURLcode result)
{
    struct qfc_error *error = &transfer->error;
    long system_error = 0;

    curl_easy_getinfo(transfer->easy, CURLINFO_OS_ERRNO, &system_error);
    const char *why = reason(transfer, result, (int)system_error);
    if (result == CURLE_OUT_OF_MEMORY)
        qfc_fail_memory(error);
    else if (transfer->attempts == 0)
        qfc_fail(error, QFC_ERROR_UNREACHABLE, (int)system_error, "connect to %s: %s", transfer->where, why);
    else if (result == CURLE_UNSUPPORTED_PROTOCOL || result == CURLE_WEIRD_SERVER_REPLY)
        qfc_fail(error, QFC_ERROR_INVALID, 0, "the answer of %s is not HTTP: %s", transfer->where, why);
    else
        qfc_fail(error, QFC_ERROR_UNKNOWN, (int)system_error,
                 "the connection to %s broke before the whole answer came: %s", transfer->where, why);
}

void qfc_http_transfer_conclude(struct qfc_http_transfer *transfer, CURLcode result)
{
    const char *type = NULL;

    transfer->state = TRANSFER_ENDED;
    if (transfer->error.kind != QFC_ERROR_NONE)
        return;
    if (result != CURLE_OK && !transfer->cut) {
        explain(transfer, result);
        return;
    }
    if (!transfer->headers_seen) { /* libcurl 7.88 is content with a header that was cut off */
        explain(transfer, CURLE_PARTIAL_FILE);
        return;
    }
    curl_easy_getinfo(transfer->easy, CURLINFO_CONTENT_TYPE, &type);
    if (type)
        transfer->response.content_type = type;
}

void qfc_http_transfer_expire(struct qfc_http_transfer *transfer)
{
    transfer->state = TRANSFER_ENDED;
    if (transfer->error.kind != QFC_ERROR_NONE)
        return;
    if (transfer->attempts == 0)
        qfc_fail(&transfer->error, QFC_ERROR_UNREACHABLE, 0, "connect to %s: not possible within %u ms",
                 transfer->where, transfer->deadline_ms);
    else
        qfc_fail(&transfer->error, QFC_ERROR_UNKNOWN, 0, "no whole answer of %s within %u ms", transfer->where,
                 transfer->deadline_ms);
}

/* They may hold a password, or what is as good. */
static void wipe_headers(struct qfc_http_transfer *transfer)
{
    for (struct curl_slist *line = transfer->headers; line; line = line->next)
        explicit_bzero(line->data, strlen(line->data));
}

void qfc_http_transfer_destroy(struct qfc_http_transfer *transfer)
{
    curl_easy_cleanup(transfer->easy);
    wipe_headers(transfer);
    curl_slist_free_all(transfer->headers);
    qfc_buffer_free(&transfer->response.body);
    qfc_buffer_wipe(&transfer->small);
    free(transfer->where);
    free(transfer);
}
