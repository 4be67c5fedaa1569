/*
 * HTTP over libcurl's multi interface on a libuv loop: Unix sockets and TCP, streaming both ways, deadlines, cancel.
 *
 * Everything happens on the loop's thread. A transfer ends in exactly one call of `on_done`, unless it is cancelled;
 * `on_done` is never called from within qfc_http_start, and anything, also qfc_http_start, qfc_http_cancel and freeing
 * the caller's own things, may be called from it.
 *
 * Connections are kept and used again. When one of these breaks before an answer came, the request is sent once more on
 * a fresh one, unless its method is POST or PATCH: these end in UNKNOWN. No redirects, no .netrc, HTTP/1.1. A program
 * that uses TLS ignores SIGPIPE.
 */
#pragma once

#include "qfc/buffer.h"
#include "qfc/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

struct qfc_http;          /* one curl multi handle and its connections */
struct qfc_http_transfer; /* one request under way */

#define QFC_HTTP_HOLD  1
#define QFC_HTTP_LATER (-2)

struct qfc_http_response {
    int status;               /* the HTTP status; also of refusals: only the caller knows what it means */
    const char *content_type; /* never null, "" where there was none */
    struct qfc_buffer body;   /* what `on_data` did not take; owned by the transfer */
};

/* TLS of a TCP connection. Paths of PEM files; null members are left to libcurl's defaults. */
struct qfc_http_tls {
    const char *ca_file;
    const char *certificate_file;
    const char *key_file;
    bool verify;
};

struct qfc_http_request {
    const char *method;             /* "GET", ...; copied, like every text here */
    const char *url;                /* "http://..." or "https://..." */
    const char *unix_socket;        /* path of the socket to use in place of the URL's host, or null */
    const struct qfc_http_tls *tls; /* null: libcurl's defaults */
    const char *const *headers;     /* "Name: value", null-ended, or null; the copies are wiped */

    const void *body; /* sent as it is; must live until on_done or cancel; null: no body */
    size_t body_size; /* bytes */
    /* Or, instead of `body`: called for the next bytes; returns how many were written to `out`, 0 at the end, -1 to
     * abort the transfer (on_done: QFC_ERROR_INVALID), or QFC_HTTP_LATER: there are none yet, and it is called again
     * after qfc_http_resume. The body is sent chunked. */
    ssize_t (*read_body)(void *userdata, char *out, size_t room);

    size_t max_body_bytes; /* of the answer, when it is collected; more ends the transfer with QFC_ERROR_INVALID */
    unsigned connect_ms;   /* to connect; 0: 10 s */
    unsigned deadline_ms;  /* for the whole transfer; 0: none (long polls, logs, events) */
    bool bulk;             /* gigabytes: larger pieces */
    bool fresh;            /* over a connection that did not stand before */

    /* The answer's headers are there; for 1xx it is not called. May be null. */
    void (*on_headers)(void *userdata, int status);
    /* A piece of the body of a 2xx answer, in place of collecting it; return -1 to abort (on_done: QFC_ERROR_INVALID),
     * or QFC_HTTP_HOLD: it was taken, and no more comes (but perhaps the end) until qfc_http_resume. May be null.
     * Bodies of other answers are always collected (cut at 64 KB, never refused; the transfer ends there). */
    int (*on_data)(void *userdata, const char *data, size_t size);
    /*
     * The end. `error` is null when an answer came whole, whatever its status; else `response` is null. Kinds:
     * UNREACHABLE (no connection: nothing was sent; `code` is the errno, so that EACCES, ENOENT and ECONNREFUSED are
     * told apart), UNKNOWN (broken or past its deadline after the connection stood), INVALID (not HTTP, over the
     * limit, aborted by a callback), MEMORY. Both belong to the transfer and end with the call; a caller may take
     * response->body with qfc_buffer_take.
     */
    void (*on_done)(void *userdata, const struct qfc_error *error, struct qfc_http_response *response);
    void *userdata;
};

/* Returns null when out of memory (`error` says so). */
struct qfc_http *qfc_http_new(uv_loop_t *loop, struct qfc_error *error);

/* Cancels what is under way and closes all handles; memory goes when the loop has run their close callbacks. */
void qfc_http_free(struct qfc_http *http);

/*
 * Starts a transfer. Returns 0 and, where `ret_transfer` is not null, the transfer for qfc_http_cancel, valid until
 * on_done; or -1 (QFC_ERROR_MEMORY, QFC_ERROR_BUG), and then on_done is not called.
 */
int qfc_http_start(struct qfc_http *http, const struct qfc_http_request *request,
                   struct qfc_http_transfer **ret_transfer, struct qfc_error *error);

/* Lets a transfer go on that was held (QFC_HTTP_HOLD, QFC_HTTP_LATER); nothing for one that was not. No callback is called
 * from within, but perhaps `on_data` and `read_body`. */
void qfc_http_resume(struct qfc_http_transfer *transfer);

/* Ends a transfer without any further callback. Its connection is closed. May be called from its own callbacks. */
void qfc_http_cancel(struct qfc_http_transfer *transfer);
