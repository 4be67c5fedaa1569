/*
 * `qfc-worker run`: the daemon.
 */
#include "command.h"
#include "companion.h"
#include "ops_private.h"

#include "qfc/log.h"

#include <stdlib.h>
#include <string.h>

/* What was asked for. */
struct request {
    enum qfc_worker_mode mode;
    long concurrency; /* 0: as the settings say */
    long stop;        /* enum qfc_stop, or -1: as the settings say */
};

static int take_mode(struct request *request, enum qfc_worker_mode mode)
{
    if (request->mode != QFC_WORKER_RUN && request->mode != mode)
        return wrong("--single-shot and --drain exclude each other", NULL);
    request->mode = mode;
    return QFC_EXIT_OK;
}

static int take_concurrency(struct request *request, const char *value)
{
    char *end;
    request->concurrency = strtol(value, &end, 10);
    if (*end || end == value || request->concurrency < 1 || request->concurrency > 256)
        return wrong("--concurrency: expected a whole number from 1 to 256", value);
    return QFC_EXIT_OK;
}

static int take_stop(struct request *request, const char *value)
{
    request->stop = strcmp(value, "drain") == 0 ? QFC_STOP_DRAIN : QFC_STOP_LEAVE;
    if (request->stop == QFC_STOP_LEAVE && strcmp(value, "leave") != 0)
        return wrong("--stop: expected leave or drain", value);
    return QFC_EXIT_OK;
}

static int take_option(struct request *request, const char *name, const char *value)
{
    if (strcmp(name, "single-shot") == 0)
        return take_mode(request, QFC_WORKER_SINGLE_SHOT);
    if (strcmp(name, "drain") == 0)
        return take_mode(request, QFC_WORKER_DRAIN);
    if (strcmp(name, "concurrency") == 0)
        return take_concurrency(request, value);
    return take_stop(request, value);
}

static int parse(const struct command *command, int argc, char **argv, struct request *request)
{
    struct arguments arguments = {.command = command, .argc = argc, .argv = argv};
    const char *name, *value;
    enum argument next;
    while ((next = next_option(&arguments, &name, &value)) == ARGUMENT_OPTION) {
        int code = take_option(request, name, value);
        if (code != QFC_EXIT_OK)
            return code;
    }
    return next == ARGUMENT_END ? QFC_EXIT_OK : QFC_EXIT_USAGE;
}

static int run(const struct command *command, int argc, char **argv)
{
    struct request request = {.mode = QFC_WORKER_RUN, .stop = -1};
    struct qfc_settings settings;
    int code = parse(command, argc, argv, &request);
    if (code == QFC_EXIT_OK)
        code = read_settings(&settings);
    if (code != QFC_EXIT_OK)
        return code;
    if (request.concurrency > 0)
        settings.concurrency = request.concurrency;
    if (request.stop >= 0)
        settings.stop = request.stop;
    qfc_log_configure((enum qfc_log_format)settings.log_format, (enum qfc_log_level)settings.log_level);
    struct showing showing = {0};
    const struct qfc_companion companion = companion_of(&showing);
    code = (int)qfc_worker_main(&settings, request.mode, &companion);
    qfc_settings_free(&settings);
    return code;
}

static const struct option_info options[] = {
    {"single-shot", NULL, "run at most one job, then end"},
    {"drain", NULL, "run until nothing is pending, then end"},
    {"concurrency", "N", "run up to N jobs at the same time (1 to 256)"},
    {"stop", "leave|drain",
     "what a signal to stop does: leave jobs that do not end soon to the next worker, or drain, which waits for all; "
     "the "
     "way before QFieldCloud's own worker takes over, which takes over no jobs"},
    {0},
};

const struct command command_run = {
    .name = "run",
    .operands = "",
    .summary = "take jobs until SIGTERM or SIGINT",
    .more = "Jobs that do not end soon after the signal are left running, for the next worker on this engine to take "
            "over.\n"
            "A second signal, or SIGQUIT, leaves at once.\n",
    .options = options,
    .run = run,
};
