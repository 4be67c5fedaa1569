/*
 * `qfc-worker jobs logs`: what a job's container has written; while it runs, from the engine itself where that can be
 * reached from here, else what its worker has put into the row so far.
 */
#include "command.h"
#include "jobs.h"
#include "turns.h"

#include "qfc/jobs.h"
#include "qfc/pg.h"
#include "qfc/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ENGINE_DEADLINE_MS 10000
#define POLL_MS            1000
#define PIECE_MAX_BYTES    (16 * 1024 * 1024)

/* Where the output comes from, and how much of it was printed. */
struct source {
    const struct jobs *jobs;
    char id[QFC_UUID_SIZE];
    char status[33], held_by[16], container[65];
    size_t printed; /* bytes of the row's output */
    bool any;       /* there was some */
};

static bool is_active(const struct source *source)
{
    return strcmp(source->status, "queued") == 0 || strcmp(source->status, "started") == 0;
}

/* Lines stay lines; whatever else could take hold of a terminal does not reach it. */
static int print(const char *data, size_t size)
{
    struct qfc_buffer clean = qfc_buffer(PIECE_MAX_BYTES);
    int r = 0;
    while (r == 0 && size > 0) {
        size_t piece = size < PIECE_MAX_BYTES / 4 ? size : PIECE_MAX_BYTES / 4;
        r = qfc_text_harmless(&clean, data, piece, true);
        if (r == 0 && fwrite(clean.data, 1, clean.size, stdout) != clean.size)
            r = -1;
        qfc_buffer_free(&clean);
        data += piece;
        size -= piece;
    }
    fflush(stdout);
    return r;
}

static void keep(char *out, size_t size, const PGresult *row, const char *column)
{
    const char *text = qfc_pg_text(row, 0, column);
    snprintf(out, size, "%s", text ? text : "");
}

/* Reads the row, and prints what is new in its output where it is `wanted`. What was cut at its beginning since (a
 * live output has a limit) is printed anew. */
static int read_row(struct source *source, bool wanted, struct qfc_error *error)
{
    struct qfc_statements question = {0};
    PGresult *row;
    if (qfc_jobs_output(source->id, &question, error) < 0 || jobs_ask(source->jobs, &question, &row, error) < 0)
        return -1;
    int r = PQntuples(row) == 1 ? 0 : qfc_fail(error, QFC_ERROR_REFUSED, 0, "the job is gone: it was deleted");
    keep(source->status, sizeof source->status, row, "status");
    keep(source->held_by, sizeof source->held_by, row, "held_by");
    keep(source->container, sizeof source->container, row, "container");
    const char *output = qfc_pg_text(row, 0, "output");
    size_t size = output ? strlen(output) : 0;
    if (r == 0 && wanted && output) {
        size_t from = size >= source->printed ? source->printed : 0;
        source->any = true;
        if (print(output + from, size - from) < 0)
            r = qfc_fail(error, QFC_ERROR_REFUSED, 0, "the output cannot be written");
        source->printed = size;
    }
    PQclear(row);
    return r;
}

static int on_log(void *userdata, const char *data, size_t size)
{
    return print(data, size);
}

static int on_followed(void *userdata, bool from_stderr, const char *data, size_t size)
{
    return print(data, size);
}

/*
 * The engine's own log of the container. Returns 1 when it was printed, 0 where this engine has no such container or
 * cannot be reached, -1 with an error.
 */
static int print_engine_log(const struct source *source, bool follow, struct qfc_error *error)
{
    struct turns turns;
    struct engine_answer answer = {0};
    struct qfc_error why = QFC_NO_ERROR;
    if (turns_open(&turns, error) < 0)
        return -1;
    int r = engine_open(&turns, &source->jobs->settings, ENGINE_DEADLINE_MS, &why);
    if (r == 0)
        r = ENGINE_ASK(&turns, 0, &answer, &why, qfc_engine_inspect, source->container);
    bool there = r == 0;
    if (there && follow)
        r = ENGINE_ASK(&turns, 0, &answer, &why, qfc_engine_follow, source->container, on_followed);
    else if (there)
        r = ENGINE_ASK(&turns, 0, &answer, &why, qfc_engine_logs, source->container, on_log);
    bool interrupted = turns.interrupted;
    engine_answer_free(&answer);
    turns_close(&turns);
    if (!there)
        fprintf(stderr, "qfc-worker: its container is not to be asked here (%s): this is what its worker has noted\n",
                why.message);
    if (there && r < 0 && !interrupted)
        fprintf(stderr, "qfc-worker: %s\n", why.message);
    return there;
}

/* Waits for the end of a job whose container has ended, or is not here. */
static int follow_row(struct source *source, bool wanted, struct qfc_error *error)
{
    const struct timespec pause = {.tv_sec = POLL_MS / 1000, .tv_nsec = POLL_MS % 1000 * 1000000};
    int r = 0;
    while (r == 0 && is_active(source)) {
        nanosleep(&pause, NULL);
        r = read_row(source, wanted, error);
    }
    return r;
}

static int logs(const struct jobs *jobs, void *asked, struct qfc_error *error)
{
    const struct job_request *request = asked;
    struct source source = {.jobs = jobs};
    if (jobs_find(jobs, request->given, source.id, error) < 0)
        return qfc_context(error, "%s", request->given);
    if (read_row(&source, false, error) < 0)
        return -1;
    if (strcmp(source.status, "pending") == 0)
        return qfc_fail(error, QFC_ERROR_REFUSED, 0, "the job waits: it has not run yet");
    int printed = 0;
    if (is_active(&source) && *source.container)
        printed = print_engine_log(&source, request->option, error);
    if (printed < 0)
        return -1;
    int r = printed ? 0 : read_row(&source, true, error);
    if (r == 0 && request->option && !printed)
        r = follow_row(&source, true, error);
    if (r == 0 && !printed && !source.any)
        fprintf(stderr, "qfc-worker: no output %s\n", is_active(&source) ? "so far" : "was kept");
    return r;
}

static int run(const struct command *command, int argc, char **argv)
{
    struct job_request request = {0};
    int code = jobs_parse_one(command, argc, argv, &request);
    return code == QFC_EXIT_OK ? jobs_answer(command->name, logs, &request) : code;
}

static const struct option_info options[] = {
    {"follow", NULL, "print what is added, until the job's end", 'f'},
    {0},
};

const struct command command_jobs_logs = {
    .name = "jobs logs",
    .operands = "JOB",
    .summary = "print what a job's container has written",
    .more =
        "Of a running job the engine of DOCKER_HOST is asked; where its container is not there, what its worker has\n"
        "noted in the row so far is printed.\n",
    .options = options,
    .run = run,
};
