/*
 * The life of transfers: started, ended, cancelled, past their deadline.
 *
 * libcurl may not be called from within its own callbacks (CURLM_RECURSIVE_API_CALL). So whatever a caller asks for in
 * one is only noted in the transfer's state, and done by qfc_http_settle when libcurl has returned. on_done is called
 * there, too, outside of libcurl, where a caller may do anything.
 */
#include "http_private.h"

#include <stdlib.h>

/* Connections that are in use count, too: with fewer than there are long polls none would be kept for the next call. */
#define KEPT_CONNECTIONS 256L

static uint64_t now_ms(void)
{
    return uv_hrtime() / 1000000;
}

static void on_deadline(uv_timer_t *timer)
{
    struct qfc_http *http = timer->data;
    struct qfc_http_transfer *transfer;
    uint64_t now = now_ms();

    TAILQ_FOREACH (transfer, &http->transfers, link)
        if (transfer->deadline && transfer->deadline <= now && transfer->state <= TRANSFER_RUNNING)
            qfc_http_transfer_expire(transfer);
    qfc_http_settle(http);
}

/* All transfers share one timer, so that a transfer owns no handle that would have to outlive it. */
static void arm_deadline(struct qfc_http *http)
{
    const struct qfc_http_transfer *transfer;
    uint64_t now = now_ms(), first = UINT64_MAX;

    TAILQ_FOREACH (transfer, &http->transfers, link)
        if (transfer->deadline && transfer->deadline < first)
            first = transfer->deadline;
    if (first == UINT64_MAX)
        uv_timer_stop(&http->deadline);
    else
        uv_timer_start(&http->deadline, on_deadline, first > now ? first - now : 0, 0);
}

struct qfc_http *qfc_http_new(uv_loop_t *loop, struct qfc_error *error)
{
    struct qfc_http *http = calloc(1, sizeof *http);

    if (!http) {
        qfc_fail_memory(error);
        return NULL;
    }
    http->loop = loop;
    TAILQ_INIT(&http->transfers);
    if (curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK && !(http->multi = curl_multi_init()))
        curl_global_cleanup();
    if (!http->multi) {
        free(http);
        qfc_fail_memory(error);
        return NULL;
    }
    qfc_http_loop_open(http);
    curl_multi_setopt(http->multi, CURLMOPT_MAXCONNECTS, KEPT_CONNECTIONS);
    curl_multi_setopt(http->multi, CURLMOPT_PIPELINING, (long)CURLPIPE_NOTHING);
    return http;
}

static void leave_multi(struct qfc_http_transfer *transfer)
{
    if (transfer->in_multi)
        curl_multi_remove_handle(transfer->http->multi, transfer->easy);
    transfer->in_multi = false;
}

static void drop(struct qfc_http_transfer *transfer)
{
    leave_multi(transfer);
    TAILQ_REMOVE(&transfer->http->transfers, transfer, link);
    qfc_http_transfer_destroy(transfer);
}

static void shut(struct qfc_http *http)
{
    struct qfc_http_transfer *transfer;

    if (!http->multi)
        return;
    while ((transfer = TAILQ_FIRST(&http->transfers)))
        drop(transfer);
    curl_multi_cleanup(http->multi);
    http->multi = NULL;
    qfc_http_loop_close(http);
}

void qfc_http_free(struct qfc_http *http)
{
    struct qfc_http_transfer *transfer;

    if (!http || http->freed)
        return;
    http->freed = true;
    TAILQ_FOREACH (transfer, &http->transfers, link)
        transfer->state = TRANSFER_CANCELLED;
    if (!http->inside)
        shut(http);
}

static int enter_multi(struct qfc_http_transfer *transfer, struct qfc_error *error)
{
    CURLMcode code = curl_multi_add_handle(transfer->http->multi, transfer->easy);

    if (code != CURLM_OK)
        return qfc_fail(error, code == CURLM_OUT_OF_MEMORY ? QFC_ERROR_MEMORY : QFC_ERROR_BUG, 0,
                        "start a transfer: %s", curl_multi_strerror(code));
    transfer->in_multi = true;
    transfer->state = TRANSFER_RUNNING;
    return 0;
}

int qfc_http_start(struct qfc_http *http, const struct qfc_http_request *request,
                   struct qfc_http_transfer **ret_transfer, struct qfc_error *error)
{
    struct qfc_http_transfer *transfer;

    if (http->freed)
        return qfc_fail(error, QFC_ERROR_BUG, 0, "start a transfer: http is being freed");
    transfer = calloc(1, sizeof *transfer);
    if (!transfer)
        return qfc_fail_memory(error);
    transfer->http = http;
    if (qfc_http_transfer_prepare(transfer, request, error) < 0 ||
        (!http->inside && enter_multi(transfer, error) < 0)) {
        qfc_http_transfer_destroy(transfer);
        return -1;
    }
    if (request->deadline_ms)
        transfer->deadline = now_ms() + request->deadline_ms;
    TAILQ_INSERT_TAIL(&http->transfers, transfer, link);
    arm_deadline(http);
    if (ret_transfer)
        *ret_transfer = transfer;
    return 0;
}

void qfc_http_cancel(struct qfc_http_transfer *transfer)
{
    struct qfc_http *http = transfer->http;

    if (transfer->state == TRANSFER_REPORTED)
        return;
    transfer->state = TRANSFER_CANCELLED;
    if (http->inside)
        return;
    drop(transfer);
    arm_deadline(http);
}

void qfc_http_resume(struct qfc_http_transfer *transfer)
{
    if (!transfer->held || transfer->state != TRANSFER_RUNNING)
        return;
    if (transfer->http->inside)
        transfer->resuming = true;
    else
        qfc_http_transfer_resume(transfer);
}

static void read_messages(struct qfc_http *http)
{
    CURLMsg *message;
    int left;

    while ((message = curl_multi_info_read(http->multi, &left))) {
        struct qfc_http_transfer *transfer = NULL;

        if (message->msg != CURLMSG_DONE)
            continue;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&transfer);
        if (transfer->state == TRANSFER_RUNNING)
            qfc_http_transfer_conclude(transfer, message->data.result);
    }
}

static void sort_out(struct qfc_http *http)
{
    struct qfc_http_transfer *transfer, *next;

    for (transfer = TAILQ_FIRST(&http->transfers); transfer; transfer = next) {
        next = TAILQ_NEXT(transfer, link);
        if (transfer->state == TRANSFER_QUEUED && enter_multi(transfer, &transfer->error) < 0)
            transfer->state = TRANSFER_ENDED;
        if (transfer->state == TRANSFER_RUNNING && transfer->resuming)
            qfc_http_transfer_resume(transfer);
        if (transfer->state == TRANSFER_ENDED)
            leave_multi(transfer);
        if (transfer->state == TRANSFER_CANCELLED)
            drop(transfer);
    }
}

static struct qfc_http_transfer *first_ended(struct qfc_http *http)
{
    struct qfc_http_transfer *transfer;

    TAILQ_FOREACH (transfer, &http->transfers, link)
        if (transfer->state == TRANSFER_ENDED)
            return transfer;
    return NULL;
}

void qfc_http_settle(struct qfc_http *http)
{
    struct qfc_http_transfer *transfer;

    if (http->freed) {
        shut(http);
        return;
    }
    read_messages(http);
    sort_out(http);
    while (!http->freed && (transfer = first_ended(http))) {
        bool failed = transfer->error.kind != QFC_ERROR_NONE;

        TAILQ_REMOVE(&http->transfers, transfer, link);
        transfer->state = TRANSFER_REPORTED;
        transfer->on_done(transfer->userdata, failed ? &transfer->error : NULL, failed ? NULL : &transfer->response);
        qfc_http_transfer_destroy(transfer);
    }
    if (!http->freed)
        arm_deadline(http);
}
