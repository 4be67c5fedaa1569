/*
 * The queue's state (qfc/report.h) for all that show it: asked over the daemon's own connection for what nothing waits
 * for, kept for a while, and never waited for.
 */
#pragma once

#include "qfc/queue.h"
#include "qfc/report.h"

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

struct queue_state {
    uv_loop_t *loop;
    struct qfc_queue *queue;
    struct qfc_report report;
    bool has;         /* a report was read */
    uint64_t read_ms; /* when, on the loop's clock */
    bool asking;
    void (*on_news)(void *userdata); /* a question has ended, well or not */
    void *userdata;
};

/* A report that is at most so old; null: there is none, and one is asked for, if that can be. Valid until the loop goes
 * on. */
const struct qfc_report *queue_state_get(struct queue_state *state, uint64_t age_ms);

void queue_state_free(struct queue_state *state);
