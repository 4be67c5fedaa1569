/*
 * Messages to a receiver of alerts, one after another, in their order, each until it was taken: with backoff, within
 * bounds, and so that nothing waits for it.
 */
#pragma once

#include "qfc/http.h"

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#define WEBHOOK_MESSAGES 32 /* that wait; of more the oldest is dropped */

struct webhook_message {
    char *body;
    unsigned tag;
    bool firing;
};

struct webhook {
    struct qfc_http *http;
    const char *url; /* a secret: never logged */
    /* A message was taken. */
    void (*taken)(void *userdata, unsigned tag, bool firing);
    void *userdata;
    struct webhook_message messages[WEBHOOK_MESSAGES];
    size_t count;
    struct qfc_http_transfer *sending; /* of the first one, or null */
    unsigned failures_in_a_row;
    uv_timer_t again;
    uint64_t delivered, failures, dropped;
};

void webhook_begin(struct webhook *webhook, uv_loop_t *loop);

/* Sends a JSON text, which is the webhook's now. `tag` and `firing` are for `taken`. */
void webhook_send(struct webhook *webhook, char *body, unsigned tag, bool firing);

/* Does a message with that tag wait, or is one under way? `ret_firing` gets the last one's. */
bool webhook_has(const struct webhook *webhook, unsigned tag, bool *ret_firing);

/* Forgets what waits with that tag, but for one that is under way: somebody else sends it. */
void webhook_forget(struct webhook *webhook, unsigned tag);

/* Ends what is under way, and forgets what waits. */
void webhook_end(struct webhook *webhook);
