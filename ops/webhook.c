/*
 * Messages to a receiver of alerts: see webhook.h.
 */
#include "webhook.h"

#include "qfc/log.h"

#include <stdlib.h>
#include <string.h>

#define CONNECT_MS   5000
#define DEADLINE_MS  15000
#define AGAIN_MIN_MS 1000
#define AGAIN_MAX_MS (5 * 60 * 1000)
#define ANSWER_BYTES 4096

static void send_first(struct webhook *webhook);

static void drop(struct webhook *webhook, size_t i)
{
    free(webhook->messages[i].body);
    webhook->count--;
    memmove(webhook->messages + i, webhook->messages + i + 1, (webhook->count - i) * sizeof *webhook->messages);
}

static void on_again(uv_timer_t *timer)
{
    send_first(timer->data);
}

static void again_later(struct webhook *webhook, const char *why)
{
    unsigned shift = webhook->failures_in_a_row < 9 ? webhook->failures_in_a_row : 9;
    uint64_t delay_ms = (uint64_t)AGAIN_MIN_MS << shift;
    if (delay_ms > AGAIN_MAX_MS)
        delay_ms = AGAIN_MAX_MS;
    webhook->failures++;
    if (webhook->failures_in_a_row++ == 0)
        qfc_log(
            QFC_LOG_WARNING, NULL,
            "the receiver of QFC_WORKER_ALERT_WEBHOOK has not taken an alert: %s; it is sent again until it does, and "
            "this is said once",
            why);
    uv_timer_start(&webhook->again, on_again, delay_ms, 0);
}

static void on_done(void *userdata, const struct qfc_error *error, struct qfc_http_response *response)
{
    struct webhook *webhook = userdata;
    struct qfc_error refused = QFC_NO_ERROR;
    webhook->sending = NULL;
    if (!error && (response->status < 200 || response->status > 299)) {
        qfc_fail(&refused, QFC_ERROR_REFUSED, response->status, "it answers %d", response->status);
        error = &refused;
    }
    if (error) {
        again_later(webhook, error->message);
        return;
    }
    if (webhook->failures_in_a_row > 0)
        qfc_log(QFC_LOG_INFO, NULL, "the receiver of QFC_WORKER_ALERT_WEBHOOK takes alerts again");
    webhook->failures_in_a_row = 0;
    webhook->delivered++;
    const struct webhook_message first = webhook->messages[0];
    drop(webhook, 0);
    webhook->taken(webhook->userdata, first.tag, first.firing);
    send_first(webhook);
}

static void send_first(struct webhook *webhook)
{
    static const char *const headers[] = {"Content-Type: application/json", NULL};
    struct qfc_error error = QFC_NO_ERROR;
    if (webhook->sending || webhook->count == 0 || uv_is_active((uv_handle_t *)&webhook->again))
        return;
    const char *body = webhook->messages[0].body;
    const struct qfc_http_request request = {
        .method = "POST",
        .url = webhook->url,
        .headers = headers,
        .body = body,
        .body_size = strlen(body),
        .max_body_bytes = ANSWER_BYTES,
        .connect_ms = CONNECT_MS,
        .deadline_ms = DEADLINE_MS,
        .on_done = on_done,
        .userdata = webhook,
    };
    if (qfc_http_start(webhook->http, &request, &webhook->sending, &error) < 0)
        again_later(webhook, error.message);
}

void webhook_begin(struct webhook *webhook, uv_loop_t *loop)
{
    uv_timer_init(loop, &webhook->again);
    webhook->again.data = webhook;
}

void webhook_send(struct webhook *webhook, char *body, unsigned tag, bool firing)
{
    if (webhook->count == WEBHOOK_MESSAGES) {
        /* The first one may be under way, and its body with it: the second goes. */
        drop(webhook, 1);
        webhook->dropped++;
        qfc_log(QFC_LOG_WARNING, NULL, "an alert was not delivered: too many wait for the receiver");
    }
    webhook->messages[webhook->count++] = (struct webhook_message){body, tag, firing};
    send_first(webhook);
}

bool webhook_has(const struct webhook *webhook, unsigned tag, bool *ret_firing)
{
    bool has = false;
    for (size_t i = 0; i < webhook->count; i++) {
        if (webhook->messages[i].tag == tag)
            *ret_firing = webhook->messages[i].firing;
        has |= webhook->messages[i].tag == tag;
    }
    return has;
}

void webhook_forget(struct webhook *webhook, unsigned tag)
{
    for (size_t i = webhook->count; i > (webhook->sending ? 1 : 0); i--)
        if (webhook->messages[i - 1].tag == tag)
            drop(webhook, i - 1);
}

void webhook_end(struct webhook *webhook)
{
    uv_close((uv_handle_t *)&webhook->again, NULL);
    if (webhook->sending)
        qfc_http_cancel(webhook->sending);
    webhook->sending = NULL;
    while (webhook->count > 0)
        drop(webhook, 0);
}
