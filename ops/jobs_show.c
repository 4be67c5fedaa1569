/*
 * `qfc-worker jobs show`: all about one job.
 */
#include "command.h"
#include "jobs.h"

#include "qfc/jobs.h"
#include "qfc/pg.h"
#include "qfc/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_MAX_BYTES (64 * 1024)

/* A member as text: strings as they are, other values as JSON. The caller frees it; null where there is none. */
static char *text_of(const json_t *value)
{
    if (!value || json_is_null(value))
        return NULL;
    return json_is_string(value) ? strdup(json_string_value(value)) : json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
}

/* One line, or several behind one another below their name. Left out where there is no value. */
static void print_text(const char *label, const char *text)
{
    struct qfc_buffer clean = qfc_buffer(3 * TEXT_MAX_BYTES);
    if (!text || qfc_text_harmless(&clean, text, strnlen(text, TEXT_MAX_BYTES), true) < 0) {
        qfc_buffer_free(&clean);
        return;
    }
    const char *at = qfc_buffer_text(&clean);
    size_t size = clean.size;
    while (size > 0 && at[size - 1] == '\n')
        size--;
    printf("%-12s", label);
    for (size_t i = 0; i < size; i++)
        if (at[i] == '\n')
            printf("\n%-12s", "");
        else
            putchar(at[i]);
    putchar('\n');
    qfc_buffer_free(&clean);
}

static void print_member(const json_t *job, const char *label, const char *name)
{
    char *text = text_of(json_object_get(job, name));
    print_text(label, text);
    free(text);
}

static double seconds_of(const json_t *job, const char *name)
{
    const json_t *value = json_object_get(job, name);
    return json_is_number(value) ? json_number_value(value) : -1;
}

/* "2026-02-03T10:11:12.000Z  after 3m 2s" */
static void print_time(const json_t *job, const char *label, const char *name, const char *before, double seconds,
                       const char *behind)
{
    const char *time = json_string_value(json_object_get(job, name));
    char text[128], age[AGE_SIZE];
    if (!time)
        return;
    if (seconds >= 0)
        snprintf(text, sizeof text, "%.40s  %s%s%s", time, before, print_age(age, seconds), behind);
    else
        snprintf(text, sizeof text, "%.40s", time);
    print_text(label, text);
}

static void print_head(const json_t *job)
{
    const char *owner = json_string_value(json_object_get(job, "owner_name"));
    const char *project = json_string_value(json_object_get(job, "project"));
    char text[512];
    print_member(job, "job", "id");
    print_member(job, "type", "type");
    print_member(job, "status", "status");
    snprintf(text, sizeof text, "%.200s/%.200s  %.36s", owner ? owner : "?", project ? project : "?",
             json_string_value(json_object_get(job, "project_id")));
    print_text("project", text);
    print_member(job, "for", "triggered_by");
    print_time(job, "made", "created_at", "", seconds_of(job, "age_s"), " ago");
    print_time(job, "started", "started_at", "after ", seconds_of(job, "wait_s"), "");
    bool whole = json_is_string(json_object_get(job, "finished_at"));
    print_time(job, "ended", whole ? "finished_at" : "docker_finished_at", "after ", seconds_of(job, "run_s"), "");
}

static void print_place(const json_t *job)
{
    static const char *const held[][2] = {
        {"worker", "a worker that lives"},
        {"lost", "a worker that is gone: another one takes the job over"},
        {"old", "QFieldCloud's own worker"},
        {"nobody", "nobody: queued by hand, or just now by QFieldCloud's own worker"}};
    const char *held_by = json_string_value(json_object_get(job, "held_by"));
    const char *host = json_string_value(json_object_get(job, "host"));
    const char *worker = json_string_value(json_object_get(job, "worker"));
    char text[256];
    for (size_t i = 0; held_by && i < sizeof held / sizeof *held; i++)
        if (strcmp(held[i][0], held_by) == 0)
            print_text("held by", held[i][1]);
    if (worker) {
        snprintf(text, sizeof text, "%.64s on %.64s", worker, host ? host : "?");
        print_text("worker", text);
    }
    print_member(job, "container", "container");
}

/* What the worker keeps in the row while the job is not ended. */
static void print_trail(const json_t *job)
{
    static const char *const members[] = {"engine", "attempts", "faults", "not_before", "cancel", "step", NULL};
    const json_t *trail = json_object_get(job, "trail"), *reasons = json_object_get(trail, "reasons"), *reason;
    size_t index;
    for (size_t i = 0; members[i]; i++)
        print_member(trail, members[i], members[i]);
    json_array_foreach(reasons, index, reason) print_text(index == 0 ? "attempts'" : "", json_string_value(reason));
}

static void print_failure(const json_t *job)
{
    print_member(job, "exit code", "exit_code");
    print_member(job, "error", "error");
    print_member(job, "error type", "error_type");
    print_member(job, "class", "error_class");
    print_member(job, "said by", "error_origin");
    const char *stack = json_string_value(json_object_get(job, "error_stack"));
    if (stack && *stack)
        print_text("stack", stack);
}

static const char *stage_name(const json_t *step)
{
    switch (json_integer_value(json_object_get(step, "stage"))) {
    case 2:
        return "done";
    case 1:
        return "FAILED";
    default:
        return "not begun";
    }
}

static void print_steps(const json_t *job)
{
    const json_t *step;
    size_t index;
    json_array_foreach(json_object_get(job, "steps"), index, step)
    {
        const char *name = json_string_value(json_object_get(step, "name"));
        const char *took = json_string_value(json_object_get(step, "took"));
        char text[300];
        snprintf(text, sizeof text, "%-9s  %.200s%s%s", stage_name(step), name ? name : "?", took ? "  " : "",
                 took ? took : "");
        print_text(index == 0 ? "steps" : "", text);
    }
}

static void print_deltas(const json_t *job)
{
    const json_t *delta, *overwrite = json_object_get(job, "overwrite_conflicts");
    json_int_t count = json_integer_value(json_object_get(job, "delta_count"));
    size_t index;
    char text[200];
    if (!json_is_boolean(overwrite))
        return;
    snprintf(text, sizeof text, "%lld%s", (long long)count,
             json_is_true(overwrite) ? ", conflicts are overwritten" : "");
    print_text("deltas", text);
    json_array_foreach(json_object_get(job, "deltas"), index, delta)
    {
        const char *own = json_string_value(json_object_get(delta, "status"));
        const char *last = json_string_value(json_object_get(delta, "last_status"));
        bool differs = own && last && strcmp(own, last) != 0;
        snprintf(text, sizeof text, "%.36s  %.32s%s%.32s", json_string_value(json_object_get(delta, "delta")),
                 own ? own : "?", differs ? ", by now " : "", differs ? last : "");
        print_text("", text);
    }
    if ((size_t)count > json_array_size(json_object_get(job, "deltas")))
        print_text("", "...");
}

static void print_job(const json_t *job)
{
    char text[128];
    json_int_t bytes = json_integer_value(json_object_get(job, "output_bytes"));
    print_head(job);
    print_place(job);
    print_trail(job);
    print_failure(job);
    print_steps(job);
    print_deltas(job);
    if (bytes > 0) {
        snprintf(text, sizeof text, "%lld bytes: qfc-worker jobs logs %.8s", (long long)bytes,
                 json_string_value(json_object_get(job, "id")));
        print_text("output", text);
    }
}

static int show(const struct jobs *jobs, void *asked, struct qfc_error *error)
{
    const struct job_request *request = asked;
    char id[QFC_UUID_SIZE];
    struct qfc_statements question = {0};
    PGresult *row;
    if (jobs_find(jobs, request->given, id, error) < 0)
        return qfc_context(error, "%s", request->given);
    if (qfc_jobs_show(id, &question, error) < 0 || jobs_ask(jobs, &question, &row, error) < 0)
        return -1;
    const char *text = qfc_pg_text(row, 0, "job");
    json_t *job = text ? json_loads(text, 0, NULL) : NULL;
    int r = job ? 0 : qfc_fail(error, QFC_ERROR_REFUSED, 0, "%s: it is gone", request->given);
    PQclear(row);
    if (r == 0)
        jobs_add_times(jobs, id, job);
    if (r == 0 && request->option) {
        json_dumpf(job, stdout, JSON_INDENT(2));
        printf("\n");
    } else if (r == 0) {
        print_job(job);
    }
    json_decref(job);
    return r;
}

static int run(const struct command *command, int argc, char **argv)
{
    struct job_request request = {0};
    int code = jobs_parse_one(command, argc, argv, &request);
    return code == QFC_EXIT_OK ? jobs_answer(command->name, show, &request) : code;
}

static const struct option_info options[] = {
    {"json", NULL, "print one JSON object"},
    {0},
};

const struct command command_jobs_show = {
    .name = "jobs show",
    .operands = "JOB",
    .summary = "show all about one job: times, worker, container, steps, deltas, and why it failed",
    .more = "",
    .options = options,
    .run = run,
};
