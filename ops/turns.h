/*
 * Asynchronous calls for commands, which do one thing after another and end: each call is run to its end on a loop that
 * belongs to the command. The daemon has nothing to do with this.
 */
#pragma once

#include "qfc/engine.h"
#include "qfc/http.h"
#include "qfc/settings.h"

#include <stdbool.h>
#include <uv.h>

struct turns {
    uv_loop_t loop;
    struct qfc_http *http;
    struct qfc_engine *engine; /* null before engine_open */
    bool interrupted;          /* SIGINT, SIGTERM or SIGHUP came; the next one ends the program */

    uv_timer_t patience; /* turns.c's own, like what follows */
    uv_signal_t signals[3];
    bool ended;
};

/* Makes the loop. Returns 0 or -1 (QFC_ERROR_MEMORY, QFC_ERROR_BUG), and then there is nothing to close. SIGPIPE is
 * ignored from then on. A signal that asks the program to end makes the call that is under way fail, once, so that the
 * command can take away what it has made; between two calls it ends the program as ever. */
int turns_open(struct turns *turns, struct qfc_error *error);

/* Frees engine, http and loop. What else was made on the loop must have been freed before. */
void turns_close(struct turns *turns);

/* Before a call whose callback ends with turns_end(). */
void turns_begin(struct turns *turns);
void turns_end(struct turns *turns);

/* Runs the loop until turns_end was called. -1: it was not, and the call must be cancelled: QFC_ERROR_UNKNOWN, as
 * `timeout_ms` have passed (0: no limit), or somebody has interrupted. */
int turns_wait(struct turns *turns, unsigned timeout_ms, struct qfc_error *error);

/*
 * engine.c
 */

/* Makes turns->engine as the settings say, with `deadline_ms` for each call (0: 60 s); connects to nothing yet.
 * Returns 0 or -1 (QFC_ERROR_USAGE: the settings; QFC_ERROR_MEMORY). */
int engine_open(struct turns *turns, const struct qfc_settings *settings, unsigned deadline_ms,
                struct qfc_error *error);

/* What a call of qfc/engine.h has brought. Free with engine_answer_free; begin with {0}. */
struct engine_answer {
    struct qfc_engine_reply reply; /* its `data` is null: see below */
    struct qfc_buffer data;
    struct qfc_buffer log; /* what engine_log has collected, its first 64 KB */

    struct turns *turns; /* engine.c's own, like what follows */
    struct qfc_engine_call *call;
    struct qfc_error error;
};
void engine_answer_free(struct engine_answer *answer);

/*
 * Runs one call of qfc/engine.h to its end: ENGINE_ASK(&turns, 0, &answer, &error, qfc_engine_inspect, id). The
 * arguments behind the function are those between its engine and its `done`. Returns 0 or -1 with the call's error, or
 * that of turns_wait with `timeout_ms`, for the calls that have no end of their own. The answer is emptied first.
 */
#define ENGINE_ASK(turns, timeout_ms, answer, error, function, ...)                                                    \
    (engine_ask_begin((turns), (answer)),                                                                              \
     engine_ask_end((answer),                                                                                          \
                    function((turns)->engine, ##__VA_ARGS__, engine_answered, (answer), &(answer)->call, (error)),     \
                    (timeout_ms), (error)))

/* For qfc_engine_run, as `started`: a start that fails ends the call. For qfc_engine_logs, as `on_log`. */
qfc_engine_done engine_started;
qfc_engine_log engine_log;

void engine_ask_begin(struct turns *turns, struct engine_answer *answer);
qfc_engine_done engine_answered;
int engine_ask_end(struct engine_answer *answer, int begun, unsigned timeout_ms, struct qfc_error *error);
