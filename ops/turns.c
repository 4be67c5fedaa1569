/*
 * A loop for commands: see turns.h.
 */
#include "turns.h"

#include <signal.h>

static const int signal_numbers[] = {SIGINT, SIGTERM, SIGHUP};

#define SIGNALS (sizeof signal_numbers / sizeof *signal_numbers)

static void on_signal(uv_signal_t *handle, int number)
{
    struct turns *turns = handle->data;
    turns->interrupted = true;
    uv_stop(&turns->loop);
}

static void on_patience(uv_timer_t *timer)
{
    uv_stop(timer->loop);
}

static void init_handles(struct turns *turns)
{
    uv_timer_init(&turns->loop, &turns->patience);
    for (size_t i = 0; i < SIGNALS; i++) {
        uv_signal_init(&turns->loop, &turns->signals[i]);
        turns->signals[i].data = turns;
    }
}

int turns_open(struct turns *turns, struct qfc_error *error)
{
    *turns = (struct turns){0};
    signal(SIGPIPE, SIG_IGN);
    if (uv_loop_init(&turns->loop) < 0)
        return qfc_fail(error, QFC_ERROR_BUG, 0, "the event loop could not be made");
    init_handles(turns);
    turns->http = qfc_http_new(&turns->loop, error);
    if (turns->http)
        return 0;
    turns_close(turns);
    return -1;
}

void turns_close(struct turns *turns)
{
    if (turns->engine)
        qfc_engine_free(turns->engine);
    if (turns->http)
        qfc_http_free(turns->http);
    turns->engine = NULL;
    turns->http = NULL;
    uv_close((uv_handle_t *)&turns->patience, NULL);
    for (size_t i = 0; i < SIGNALS; i++)
        uv_close((uv_handle_t *)&turns->signals[i], NULL);
    uv_run(&turns->loop, UV_RUN_DEFAULT);
    uv_loop_close(&turns->loop);
}

void turns_begin(struct turns *turns)
{
    turns->ended = false;
}

void turns_end(struct turns *turns)
{
    turns->ended = true;
    uv_stop(&turns->loop);
}

/* Only while the loop runs: whoever waits elsewhere, for a connection say, is ended as ever. */
static void listen_to_signals(struct turns *turns, bool on)
{
    for (size_t i = 0; i < SIGNALS; i++) {
        if (on)
            uv_signal_start(&turns->signals[i], on_signal, signal_numbers[i]);
        else
            uv_signal_stop(&turns->signals[i]);
    }
}

/* Runs the loop until the call has ended, is given up, or somebody asks to end. */
static void turn(struct turns *turns, unsigned timeout_ms)
{
    bool was_interrupted = turns->interrupted;
    listen_to_signals(turns, !was_interrupted);
    uv_update_time(&turns->loop);
    if (timeout_ms > 0)
        uv_timer_start(&turns->patience, on_patience, timeout_ms, 0);
    while (!turns->ended && turns->interrupted == was_interrupted &&
           (timeout_ms == 0 || uv_is_active((uv_handle_t *)&turns->patience)))
        uv_run(&turns->loop, UV_RUN_DEFAULT);
    uv_timer_stop(&turns->patience);
    listen_to_signals(turns, false);
}

int turns_wait(struct turns *turns, unsigned timeout_ms, struct qfc_error *error)
{
    bool was_interrupted = turns->interrupted;
    turn(turns, timeout_ms);
    if (turns->ended)
        return 0;
    if (turns->interrupted != was_interrupted)
        return qfc_fail(error, QFC_ERROR_UNKNOWN, 0, "interrupted");
    return qfc_fail(error, QFC_ERROR_UNKNOWN, 0, "no answer within %u s", timeout_ms / 1000);
}
