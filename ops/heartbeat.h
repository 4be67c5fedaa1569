/*
 * A line in the log every few minutes: that the worker lives, how many jobs ran and wait.
 */
#pragma once

#include "queue_state.h"

#include "qfc/monitor.h"
#include "qfc/settings.h"

struct heartbeat {
    const struct qfc_settings *settings;
    const struct qfc_worker *worker;
    struct queue_state *state;
    uv_timer_t timer;
    uv_timer_t wait;                     /* for the queue's state */
    uint64_t said_ms;                    /* when the last line was written, on the loop's clock */
    bool due;                            /* the line, once that is there */
    uint64_t finished, failed, put_back; /* at the last line */
};

void heartbeat_begin(struct heartbeat *heartbeat, uv_loop_t *loop);

/* The queue's state is there, or cannot be had. */
void heartbeat_news(struct heartbeat *heartbeat);

void heartbeat_end(struct heartbeat *heartbeat);
