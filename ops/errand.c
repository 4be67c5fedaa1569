/*
 * A loop for commands: see errand.h.
 */
#include "errand.h"

#include <signal.h>

static const int signal_numbers[] = {SIGINT, SIGTERM, SIGHUP};

#define SIGNALS (sizeof signal_numbers / sizeof *signal_numbers)

static void on_signal(uv_signal_t *handle, int number)
{
    struct errand *errand = handle->data;
    errand->interrupted = true;
    uv_stop(&errand->loop);
}

static void on_patience(uv_timer_t *timer)
{
    uv_stop(timer->loop);
}

static void init_handles(struct errand *errand)
{
    uv_timer_init(&errand->loop, &errand->patience);
    for (size_t i = 0; i < SIGNALS; i++) {
        uv_signal_init(&errand->loop, &errand->signals[i]);
        errand->signals[i].data = errand;
    }
}

int errand_open(struct errand *errand, struct qfc_error *error)
{
    *errand = (struct errand){0};
    signal(SIGPIPE, SIG_IGN);
    if (uv_loop_init(&errand->loop) < 0)
        return qfc_fail(error, QFC_ERROR_BUG, 0, "the event loop could not be made");
    init_handles(errand);
    errand->http = qfc_http_new(&errand->loop, error);
    if (errand->http)
        return 0;
    errand_close(errand);
    return -1;
}

void errand_close(struct errand *errand)
{
    if (errand->engine)
        qfc_engine_free(errand->engine);
    if (errand->http)
        qfc_http_free(errand->http);
    errand->engine = NULL;
    errand->http = NULL;
    uv_close((uv_handle_t *)&errand->patience, NULL);
    for (size_t i = 0; i < SIGNALS; i++)
        uv_close((uv_handle_t *)&errand->signals[i], NULL);
    uv_run(&errand->loop, UV_RUN_DEFAULT);
    uv_loop_close(&errand->loop);
}

void errand_begin(struct errand *errand)
{
    errand->ended = false;
}

void errand_end(struct errand *errand)
{
    errand->ended = true;
    uv_stop(&errand->loop);
}

/* Only while the loop runs: whoever waits elsewhere, for a connection say, is ended as ever. */
static void listen_to_signals(struct errand *errand, bool on)
{
    for (size_t i = 0; i < SIGNALS; i++) {
        if (on)
            uv_signal_start(&errand->signals[i], on_signal, signal_numbers[i]);
        else
            uv_signal_stop(&errand->signals[i]);
    }
}

/* Runs the loop until the call has ended, is given up, or somebody asks to end. */
static void turn(struct errand *errand, unsigned timeout_ms)
{
    bool was_interrupted = errand->interrupted;
    listen_to_signals(errand, !was_interrupted);
    uv_update_time(&errand->loop);
    if (timeout_ms > 0)
        uv_timer_start(&errand->patience, on_patience, timeout_ms, 0);
    while (!errand->ended && errand->interrupted == was_interrupted &&
           (timeout_ms == 0 || uv_is_active((uv_handle_t *)&errand->patience)))
        uv_run(&errand->loop, UV_RUN_DEFAULT);
    uv_timer_stop(&errand->patience);
    listen_to_signals(errand, false);
}

int errand_wait(struct errand *errand, unsigned timeout_ms, struct qfc_error *error)
{
    bool was_interrupted = errand->interrupted;
    turn(errand, timeout_ms);
    if (errand->ended)
        return 0;
    if (errand->interrupted != was_interrupted)
        return qfc_fail(error, QFC_ERROR_UNKNOWN, 0, "interrupted");
    return qfc_fail(error, QFC_ERROR_UNKNOWN, 0, "no answer within %u s", timeout_ms / 1000);
}
