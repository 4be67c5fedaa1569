/*
 * libcurl's multi socket interface on libuv (libcurl: CURLMOPT_SOCKETFUNCTION, CURLMOPT_TIMERFUNCTION).
 *
 * libcurl says which sockets it wants watched and when it wants to be called at the latest; this file does only that.
 */
#include "http_private.h"

#include <stdlib.h>

static void drive(struct qfc_http *http, curl_socket_t fd, int flags)
{
    int running;

    http->inside = true;
    curl_multi_socket_action(http->multi, fd, flags, &running);
    http->inside = false;
    qfc_http_settle(http);
}

static void on_readiness(uv_poll_t *poll, int status, int events)
{
    struct http_socket *watched = poll->data;
    int flags = 0;

    /* libuv turns POLLERR without anything else into UV_EBADF. */
    if (status < 0)
        flags = CURL_CSELECT_ERR;
    if (events & UV_READABLE)
        flags |= CURL_CSELECT_IN;
    if (events & UV_WRITABLE)
        flags |= CURL_CSELECT_OUT;
    drive(watched->http, watched->fd, flags);
}

static void release(struct qfc_http *http)
{
    if (--http->handles)
        return;
    curl_global_cleanup();
    free(http);
}

static void on_socket_closed(uv_handle_t *handle)
{
    struct http_socket *watched = handle->data;
    struct qfc_http *http = watched->http;

    free(watched);
    release(http);
}

static void unwatch(struct http_socket *watched)
{
    uv_poll_stop(&watched->poll);
    uv_close((uv_handle_t *)&watched->poll, on_socket_closed);
}

static struct http_socket *watch(struct qfc_http *http, curl_socket_t fd)
{
    struct http_socket *watched = calloc(1, sizeof *watched);

    if (!watched)
        return NULL;
    watched->http = http;
    watched->fd = fd;
    watched->poll.data = watched;
    if (uv_poll_init_socket(http->loop, &watched->poll, fd) < 0) {
        free(watched);
        return NULL;
    }
    http->handles++;
    curl_multi_assign(http->multi, fd, watched);
    return watched;
}

/* An error returned from this callback would end the whole multi handle: only the one transfer is ended. */
static void give_up(CURL *easy)
{
    struct qfc_http_transfer *transfer = NULL;

    curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&transfer);
    if (!transfer || transfer->state != TRANSFER_RUNNING)
        return;
    qfc_fail_memory(&transfer->error);
    transfer->state = TRANSFER_ENDED;
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *userdata, void *assigned)
{
    struct qfc_http *http = userdata;
    struct http_socket *watched = assigned;
    int events = 0;

    if (what == CURL_POLL_REMOVE) {
        curl_multi_assign(http->multi, fd, NULL);
        if (watched)
            unwatch(watched);
        return 0;
    }
    if (what & CURL_POLL_IN)
        events |= UV_READABLE;
    if (what & CURL_POLL_OUT)
        events |= UV_WRITABLE;
    if (!watched)
        watched = watch(http, fd);
    if (!watched || uv_poll_start(&watched->poll, events, on_readiness) < 0)
        give_up(easy);
    return 0;
}

static void on_timer(uv_timer_t *timer)
{
    drive(timer->data, CURL_SOCKET_TIMEOUT, 0);
}

/* libcurl is called, and what has ended is told, from the loop. */
void qfc_http_drive_soon(struct qfc_http *http)
{
    uv_timer_start(&http->timer, on_timer, 0, 0);
}

static int on_timeout_change(CURLM *multi, long timeout_ms, void *userdata)
{
    struct qfc_http *http = userdata;

    if (timeout_ms < 0)
        uv_timer_stop(&http->timer);
    else
        uv_timer_start(&http->timer, on_timer, (uint64_t)timeout_ms, 0);
    return 0;
}

void qfc_http_loop_open(struct qfc_http *http)
{
    uv_timer_init(http->loop, &http->timer);
    uv_timer_init(http->loop, &http->deadline);
    http->timer.data = http;
    http->deadline.data = http;
    http->handles = 2;
    curl_multi_setopt(http->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    curl_multi_setopt(http->multi, CURLMOPT_SOCKETDATA, http);
    curl_multi_setopt(http->multi, CURLMOPT_TIMERFUNCTION, on_timeout_change);
    curl_multi_setopt(http->multi, CURLMOPT_TIMERDATA, http);
}

static void on_timer_closed(uv_handle_t *handle)
{
    release(handle->data);
}

void qfc_http_loop_close(struct qfc_http *http)
{
    uv_close((uv_handle_t *)&http->timer, on_timer_closed);
    uv_close((uv_handle_t *)&http->deadline, on_timer_closed);
}
