/*
 * The queue's state: see queue_state.h.
 */
#include "queue_state.h"

static void on_report(void *userdata, const struct qfc_error *error, const struct qfc_pg_results *results)
{
    struct queue_state *state = userdata;
    struct qfc_report report;
    state->asking = false;
    if (!error && qfc_report_read(results->items, results->count, &report, NULL) == 0) {
        if (state->has)
            qfc_report_free(&state->report);
        state->report = report;
        state->has = true;
        state->read_ms = uv_now(state->loop);
    }
    state->on_news(state->userdata);
}

static void ask(struct queue_state *state)
{
    struct qfc_statements statements = {0};
    if (state->asking || !qfc_queue_ready(state->queue))
        return;
    if (qfc_report_ask(&statements, NULL) == 0)
        state->asking = qfc_queue_write(state->queue, &statements, on_report, state, NULL) == 0;
    qfc_statements_free(&statements);
}

const struct qfc_report *queue_state_get(struct queue_state *state, uint64_t age_ms)
{
    if (state->has && uv_now(state->loop) - state->read_ms <= age_ms)
        return &state->report;
    ask(state);
    return NULL;
}

void queue_state_free(struct queue_state *state)
{
    if (state->has)
        qfc_report_free(&state->report);
    state->has = false;
}
