/*
 * The daemon: claims jobs for its free slots and takes each through its life.
 */
#pragma once

#include "qfc/error.h"
#include "qfc/settings.h"

#include <stdio.h>
#include <uv.h>

enum qfc_worker_mode {
    QFC_WORKER_RUN,         /* until a signal says to stop */
    QFC_WORKER_SINGLE_SHOT, /* at most one job */
    QFC_WORKER_DRAIN,       /* until nothing is pending */
};

/* Exit codes of the program; the first four are also what qfc_worker_main returns. */
enum qfc_exit {
    QFC_EXIT_OK = 0,
    QFC_EXIT_FAULT = 1,       /* the worker itself is at fault, or a second signal made it leave jobs behind */
    QFC_EXIT_USAGE = 2,       /* a wrong command line or setting */
    QFC_EXIT_UNREACHABLE = 3, /* --single-shot, --drain: the database or the engine could not be reached at first */
};

/*
 * What runs along on the daemon's loop and shows its status: the daemon knows nothing of it but these two calls. `host`
 * is what it may use, and is valid within `begin` only; what it points to, until `end`. Both are called once, or, where
 * the daemon's own parts cannot be made, none is. `end` closes all handles that the companion has on the loop, and
 * forgets its questions and transfers: the daemon ends these without calling back.
 */
struct qfc_companion_host {
    uv_loop_t *loop;
    const struct qfc_settings *settings;
    enum qfc_worker_mode mode;
    const struct qfc_worker *worker; /* for qfc/monitor.h */
    struct qfc_http *http;
    struct qfc_engine *engine;
    struct qfc_queue *queue;
};
struct qfc_companion {
    void (*begin)(void *userdata, const struct qfc_companion_host *host);
    void (*end)(void *userdata);
    void *userdata;
};

/*
 * Runs until the mode's end or a signal, on a loop of its own, and returns an exit code. SIGTERM and SIGINT: claims no
 * more, waits for running jobs as the settings say (stop, stop_grace_s), and leaves the rest running for the next worker;
 * the second one, or SIGQUIT: leaves at once. Logs. `companion` may be null.
 */
enum qfc_exit qfc_worker_main(const struct qfc_settings *settings, enum qfc_worker_mode mode,
                              const struct qfc_companion *companion);

/* Prints the table of steps and events as Markdown: what happens to a job in each step on each event. */
void qfc_lifecycle_print(FILE *out);
