/*
 * A small HTTP server (libmicrohttpd) on the daemon's loop, without a thread: it only shows pages.
 *
 * GET and HEAD. One answer a connection; connections are bounded in number, size and time.
 */
#pragma once

#include "qfc/buffer.h"
#include "qfc/error.h"

#include <stdbool.h>
#include <uv.h>

/* What is shown; the body may be empty. */
struct page {
    unsigned status;  /* 200, 404, 503, ... */
    const char *type; /* Content-Type; lives as long as the program */
    struct qfc_buffer body;
};

/*
 * Makes the page at `path`. Returns true when it has; false when it waits for something that server_wake() tells of:
 * then it is called again. After a while it is called with `now`, and makes of it what it can.
 */
typedef bool page_maker(void *userdata, const char *path, bool now, struct page *ret_page);

struct server_options {
    uv_loop_t *loop;
    int listener;      /* a socket that listens; the server's, also when it cannot be made */
    bool local;        /* it is a Unix socket: only this process's user and root are answered */
    const char *token; /* asked for as "Authorization: Bearer TOKEN" ... ; "" or null: none is; copied */
    const char *open;  /* ... but for this path */
    page_maker *make;
    void *userdata;
};

/* Returns null with the reason. */
struct server *server_new(const struct server_options *options, struct qfc_error *error);

/* What pages wait for is there. Not from within a page_maker. */
void server_wake(struct server *server);

/* Closes everything; memory goes when the loop has closed its handles. Null is allowed. */
void server_free(struct server *server);
