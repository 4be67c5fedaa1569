/* What the files of http share: the engine room of base/http*.c, of no use to anybody else. */
#pragma once

#include "qfc/http.h"

#include <curl/curl.h>
#include <stdint.h>
#include <sys/queue.h>

enum transfer_state {
    TRANSFER_QUEUED,    /* started from within a callback of libcurl: added when libcurl has returned */
    TRANSFER_RUNNING,   /* libcurl's */
    TRANSFER_ENDED,     /* on_done is due */
    TRANSFER_CANCELLED, /* no callback any more; removed when libcurl has returned */
    TRANSFER_REPORTED,  /* on_done is being called; in no list */
};

struct qfc_http_transfer {
    struct qfc_http *http;
    TAILQ_ENTRY(qfc_http_transfer) link;
    enum transfer_state state;
    bool in_multi;

    CURL *easy;
    struct curl_slist *headers;
    char curl_message[CURL_ERROR_SIZE];
    char *where;       /* "/var/run/docker.sock" or "host:port", for messages: a URL may hold a password */
    bool repeatable;   /* by its method: libcurl may send it again on a fresh connection */
    unsigned attempts; /* times that libcurl was about to send the request */

    const char *body; /* the caller's */
    size_t body_size;
    size_t body_offset;
    struct qfc_buffer small; /* a copy of a small body, which libcurl reads by itself */

    uint64_t deadline; /* of uv_hrtime, in ms; 0: none */
    unsigned deadline_ms;

    size_t max_body_bytes;
    bool headers_seen; /* those of the answer itself, not of a 1xx */
    bool held;         /* paused by its callback */
    bool resuming;     /* to go on when libcurl has returned */
    bool cut;          /* the body of a refusal was longer than is kept: that is all right */
    struct qfc_http_response response;
    struct qfc_error error; /* set as soon as it is known why the transfer cannot succeed */

    ssize_t (*read_body)(void *userdata, char *out, size_t room);
    void (*on_headers)(void *userdata, int status);
    int (*on_data)(void *userdata, const char *data, size_t size);
    void (*on_done)(void *userdata, const struct qfc_error *error, struct qfc_http_response *response);
    void *userdata;
};

/* One socket of libcurl and the handle that watches it. */
struct http_socket {
    uv_poll_t poll;
    struct qfc_http *http;
    curl_socket_t fd;
};

struct qfc_http {
    uv_loop_t *loop;
    CURLM *multi;
    uv_timer_t timer;    /* libcurl's one timeout */
    uv_timer_t deadline; /* the earliest deadline of all transfers */
    unsigned handles;    /* libuv handles not yet closed; memory goes with the last one */
    bool inside;         /* libcurl is being called: it must not be called again */
    bool freed;
    TAILQ_HEAD(, qfc_http_transfer) transfers;
};

/* http.c: ends what has ended, adds what is queued, once libcurl has returned. */
void qfc_http_settle(struct qfc_http *http);

/* http_loop.c: libcurl's sockets and its timer on the loop. */
void qfc_http_drive_soon(struct qfc_http *http);
void qfc_http_loop_open(struct qfc_http *http);
void qfc_http_loop_close(struct qfc_http *http);

/* http_transfer.c: one request's options and callbacks. */
int qfc_http_transfer_prepare(struct qfc_http_transfer *transfer, const struct qfc_http_request *request,
                              struct qfc_error *error);
/* Goes on after it was held; libcurl must not be running. */
void qfc_http_transfer_resume(struct qfc_http_transfer *transfer);
/* libcurl has ended it: an answer, or why there is none. */
void qfc_http_transfer_conclude(struct qfc_http_transfer *transfer, CURLcode result);
void qfc_http_transfer_expire(struct qfc_http_transfer *transfer);
void qfc_http_transfer_destroy(struct qfc_http_transfer *transfer);
