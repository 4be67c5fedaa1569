/*
 * `qfc-worker status`: the queue's state, for people, for programs, and for a file that grows.
 */
#include "status.h"
#include "command.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define WATCH_S 2
#define CSV_MB  10

/* What was asked for. */
struct request {
    bool json, watch;
    double watch_s;
    const char *csv;
    double csv_mb;
};

/* A number from `least` to `most`; -1 for another text. */
static double number(const char *text, double least, double most)
{
    char *end;
    double value = strtod(text, &end);
    return *end == '\0' && end != text && value >= least && value <= most ? value : -1;
}

static int take_option(struct request *request, const char *name, const char *value)
{
    if (strcmp(name, "json") == 0) {
        request->json = true;
    } else if (strcmp(name, "csv") == 0) {
        request->csv = value;
    } else if (strcmp(name, "watch") == 0) {
        request->watch = true;
        if (value && (request->watch_s = number(value, 0.1, 86400)) < 0)
            return wrong("--watch: expected seconds from 0.1 to 86400", value);
    } else if ((request->csv_mb = number(value, 0.0001, 1e6)) < 0) {
        return wrong("--rotate: expected megabytes from 0.0001 to 1000000", value);
    }
    return QFC_EXIT_OK;
}

static int parse(const struct command *command, int argc, char **argv, struct request *request)
{
    struct arguments arguments = {.command = command, .argc = argc, .argv = argv};
    const char *name, *value;
    enum argument next;
    while ((next = next_option(&arguments, &name, &value)) == ARGUMENT_OPTION)
        if (take_option(request, name, value) != QFC_EXIT_OK)
            return QFC_EXIT_USAGE;
    if (next == ARGUMENT_END && request->watch && (request->json || request->csv))
        return wrong("--watch is for itself: not with --json or --csv", NULL);
    return next == ARGUMENT_END ? QFC_EXIT_OK : QFC_EXIT_USAGE;
}

static int print_json(const struct qfc_report *report, const struct qfc_release *release, struct qfc_error *error)
{
    json_t *json = report_json(report, release);
    int r = json ? json_dumpf(json, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(15)) : -1;
    json_decref(json);
    printf("\n");
    return r < 0 ? qfc_fail_memory(error) : 0;
}

static int print_text(const struct qfc_report *report, const struct qfc_release *release, struct qfc_error *error)
{
    struct qfc_buffer page = qfc_buffer(STATUS_MAX_BYTES);
    struct winsize size = {0};
    size_t width = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
    int r = status_text(report, release, width, 0, &page, error);
    fputs(qfc_buffer_text(&page), stdout);
    qfc_buffer_free(&page);
    return r;
}

static int show(const struct request *request, const struct qfc_report *report, const struct qfc_release *release,
                struct qfc_error *error)
{
    if (request->csv && status_csv(report, request->csv, (size_t)(request->csv_mb * 1024 * 1024), error) < 0)
        return -1;
    if (request->json)
        return print_json(report, release, error);
    return request->csv ? 0 : print_text(report, release, error);
}

static int look_once(const struct request *request, const struct qfc_settings *settings)
{
    struct qfc_error error = QFC_NO_ERROR;
    struct qfc_report report = {0};
    struct qfc_release release = {0};
    PGconn *connection = NULL;
    int r = database_open(settings, "qfc-worker status", &connection, &error);
    if (r == 0)
        r = database_release(connection, &release, &error);
    if (r == 0)
        r = database_report(connection, &release, &report, &error);
    if (r == 0)
        r = show(request, &report, &release, &error);
    qfc_report_free(&report);
    PQfinish(connection);
    return r < 0 ? failed(&error) : QFC_EXIT_OK;
}

static int run(const struct command *command, int argc, char **argv)
{
    struct request request = {.watch_s = WATCH_S, .csv_mb = CSV_MB};
    struct qfc_settings settings;
    int code = parse(command, argc, argv, &request);
    if (code == QFC_EXIT_OK)
        code = read_settings(&settings);
    if (code != QFC_EXIT_OK)
        return code;
    code = request.watch ? status_watch(&settings, request.watch_s) : look_once(&request, &settings);
    qfc_settings_free(&settings);
    return code;
}

static const struct option_info options[] = {
    {"watch", "[SECONDS]",
     "show it again and again on this terminal, every 2 seconds or as given; q or Ctrl-C ends it"},
    {"json", NULL, "print all of it as one JSON object"},
    {"csv", "FILE", "append one line to this file, whose first line names its columns; print nothing"},
    {"rotate", "MB", "size at which FILE becomes FILE.1, up to FILE.5; 10 when not given"},
    {0},
};

const struct command command_status = {
    .name = "status",
    .operands = "",
    .summary = "show what waits, what runs, who works, and what went wrong lately",
    .more =
        "What is wrong stands first. Figures of the last hour and day are of jobs that were made within the last two\n"
        "days, of the newest 30,000 of them. The exit code is 0 whatever is seen; \"check\" judges.\n",
    .options = options,
    .run = run,
};
