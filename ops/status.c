/*
 * `qfc-worker status`: the queue's state.
 */
#include "command.h"
#include "ops_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What was asked for. */
struct request {
    bool json;
};

static int parse(const struct command *command, int argc, char **argv, struct request *request)
{
    struct arguments arguments = {.command = command, .argc = argc, .argv = argv};
    const char *name, *value;
    enum argument next;
    while ((next = next_option(&arguments, &name, &value)) == ARGUMENT_OPTION) {
        if (strcmp(name, "json") == 0)
            request->json = true;
    }
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

static int run(const struct command *command, int argc, char **argv)
{
    struct request request = {0};
    struct qfc_settings settings;
    struct qfc_error error = QFC_NO_ERROR;
    struct qfc_report report = {0};
    struct qfc_release release = {0};
    PGconn *connection = NULL;
    int code = parse(command, argc, argv, &request);
    if (code == QFC_EXIT_OK)
        code = read_settings(&settings);
    if (code != QFC_EXIT_OK)
        return code;
    int r = database_open(&settings, "qfc-worker status", &connection, &error);
    qfc_settings_free(&settings);
    if (r == 0)
        r = database_release(connection, &release, &error);
    if (r == 0)
        r = database_report(connection, &release, &report, &error);
    if (r == 0)
        r = print_json(&report, &release, &error);
    qfc_report_free(&report);
    PQfinish(connection);
    return r < 0 ? failed(&error) : QFC_EXIT_OK;
}

static const struct option_info options[] = {
    {"json", NULL, "print all of it as one JSON object"},
    {0},
};

const struct command command_status = {
    .name = "status",
    .operands = "",
    .summary = "show what waits, what runs, who works, and what went wrong lately",
    .more = "",
    .options = options,
    .run = run,
};
