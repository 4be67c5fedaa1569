/*
 * `qfc-worker jobs list`.
 */
#include "command.h"
#include "jobs.h"
#include "table.h"

#include "qfc/jobs.h"
#include "qfc/pg.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define STATUSES       8
#define LIMIT          50
#define LIST_MAX_BYTES (64 * 1024 * 1024)

/* What was asked for. */
struct request {
    struct qfc_jobs_filter filter;
    const char *statuses[STATUSES + 1];
    const char *project; /* as it was given */
    char project_id[QFC_UUID_SIZE];
    bool json;
};

/* The known status of `size` bytes, or null. */
static const char *known_status(const char *word, size_t size)
{
    static const char *const known[] = {"pending", "queued", "started", "finished", "failed", "stopped"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strlen(known[i]) == size && memcmp(known[i], word, size) == 0)
            return known[i];
    return NULL;
}

/* "failed,pending"; "active" is short for those under way. */
static int take_statuses(struct request *request, const char *value)
{
    size_t count = 0, size;
    for (const char *word = value; word; word = word[size] ? word + size + 1 : NULL) {
        size = strcspn(word, ",");
        const char *status = known_status(word, size);
        bool active = size == 6 && memcmp(word, "active", 6) == 0;
        if ((!status && !active) || count + 2 > STATUSES)
            return wrong("--status: expected pending, queued, started, finished, failed, stopped or active, or several "
                         "of these with commas between",
                         value);
        request->statuses[count++] = active ? "queued" : status;
        if (active)
            request->statuses[count++] = "started";
    }
    request->filter.statuses = request->statuses;
    return QFC_EXIT_OK;
}

static int take_limit(struct request *request, const char *value)
{
    char *end;
    request->filter.limit = strtol(value, &end, 10);
    if (*end || end == value || request->filter.limit < 1 || request->filter.limit > 100000)
        return wrong("--limit: expected a whole number from 1 to 100000", value);
    return QFC_EXIT_OK;
}

static int take_age(const char *problem, const char *value, double *ret_age_s)
{
    *ret_age_s = parse_age(value);
    return *ret_age_s < 0 ? wrong(problem, value) : QFC_EXIT_OK;
}

static int take_option(struct request *request, const char *name, const char *value)
{
    if (strcmp(name, "status") == 0)
        return take_statuses(request, value);
    if (strcmp(name, "limit") == 0)
        return take_limit(request, value);
    if (strcmp(name, "older") == 0)
        return take_age("--older: expected an age like 90s, 10m, 2h, 3d", value, &request->filter.older_s);
    if (strcmp(name, "newer") == 0)
        return take_age("--newer: expected an age like 90s, 10m, 2h, 3d", value, &request->filter.newer_s);
    if (strcmp(name, "type") == 0)
        request->filter.type = value;
    else if (strcmp(name, "project") == 0)
        request->project = value;
    else if (strcmp(name, "reason") == 0)
        request->filter.reason = value;
    else
        request->json = true;
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
    return next == ARGUMENT_END ? QFC_EXIT_OK : QFC_EXIT_USAGE;
}

static void add_name(struct table *table, const PGresult *rows, int row)
{
    const char *owner = qfc_pg_text(rows, row, "owner_name"), *name = qfc_pg_text(rows, row, "project");
    if (owner && name)
        table_format(table, "%s/%s", owner, name);
    else
        table_cell(table, qfc_pg_text(rows, row, "project_id"));
}

static void add_seconds(struct table *table, const PGresult *rows, int row, const char *column)
{
    const char *text = qfc_pg_text(rows, row, column);
    char age[AGE_SIZE];
    table_cell(table, print_age(age, text ? strtod(text, NULL) : -1));
}

static int print_table(const PGresult *rows, struct qfc_error *error)
{
    static const char *const heads[] = {"JOB", "type", "status", "project", "age", "waited", "ran", "reason", NULL};
    struct table table = {.heads = heads, .right = "    rrr", .gives_way = 7};
    struct qfc_buffer out = qfc_buffer(LIST_MAX_BYTES);
    struct winsize size = {0};
    size_t width = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
    for (int row = 0; row < PQntuples(rows); row++) {
        const char *reason = qfc_pg_text(rows, row, "reason"), *step = qfc_pg_text(rows, row, "step");
        table_format(&table, "%.8s", qfc_pg_text(rows, row, "id"));
        table_cell(&table, qfc_pg_text(rows, row, "type"));
        table_cell(&table, qfc_pg_text(rows, row, "status"));
        add_name(&table, rows, row);
        add_seconds(&table, rows, row, "age_s");
        add_seconds(&table, rows, row, "wait_s");
        add_seconds(&table, rows, row, "run_s");
        table_cell(&table, reason ? reason : step ? step : "");
    }
    int r = table_print(&table, table_rows(&table), width, &out);
    fputs(qfc_buffer_text(&out), stdout);
    qfc_buffer_free(&out);
    table_free(&table);
    return r < 0 ? qfc_fail_memory(error) : 0;
}

static json_t *text_json(const PGresult *rows, int row, const char *column)
{
    const char *text = qfc_pg_text(rows, row, column);
    return text ? json_string(text) : json_null();
}

static json_t *seconds_json(const PGresult *rows, int row, const char *column)
{
    const char *text = qfc_pg_text(rows, row, column);
    return text ? json_real(strtod(text, NULL)) : json_null();
}

static json_t *job_json(const PGresult *rows, int row)
{
    static const char *const texts[][2] = {{"job", "id"},
                                           {"status", "status"},
                                           {"type", "type"},
                                           {"project_id", "project_id"},
                                           {"project", "project"},
                                           {"owner", "owner_name"},
                                           {"created_at", "created_at"},
                                           {"reason", "reason"},
                                           {"step", "step"}};
    static const char *const seconds[] = {"age_s", "wait_s", "run_s"};
    json_t *job = json_object();
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        json_object_set_new(job, texts[i][0], text_json(rows, row, texts[i][1]));
    for (size_t i = 0; i < sizeof seconds / sizeof *seconds; i++)
        json_object_set_new(job, seconds[i], seconds_json(rows, row, seconds[i]));
    return job;
}

static int print_json(const PGresult *rows, struct qfc_error *error)
{
    json_t *jobs = json_array();
    for (int row = 0; row < PQntuples(rows); row++)
        json_array_append_new(jobs, job_json(rows, row));
    int r = jobs ? json_dumpf(jobs, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(15)) : -1;
    printf("\n");
    json_decref(jobs);
    return r < 0 ? qfc_fail_memory(error) : 0;
}

static int list(const struct jobs *jobs, void *asked, struct qfc_error *error)
{
    struct request *request = asked;
    struct qfc_statements question = {0};
    PGresult *rows;
    if (request->project && jobs_find_project(jobs, request->project, request->project_id, error) < 0)
        return -1;
    if (request->project)
        request->filter.project = request->project_id;
    if (qfc_jobs_list(&request->filter, &question, error) < 0 || jobs_ask(jobs, &question, &rows, error) < 0)
        return -1;
    int r = request->json ? print_json(rows, error) : print_table(rows, error);
    if (!request->json && PQntuples(rows) == request->filter.limit)
        printf("(the first %ld: more with --limit)\n", request->filter.limit);
    PQclear(rows);
    return r;
}

static int run(const struct command *command, int argc, char **argv)
{
    struct request request = {.filter = {.older_s = -1, .newer_s = -1, .limit = LIMIT}};
    int code = parse(command, argc, argv, &request);
    return code == QFC_EXIT_OK ? jobs_answer(command->name, list, &request) : code;
}

static const struct option_info options[] = {
    {"status", "STATUS", "pending, queued, started, finished, failed, or active; several with commas between"},
    {"type", "TYPE", "package, delta_apply, process_projectfile or create_project"},
    {"project", "PROJECT", "the project's id, or owner/name"},
    {"older", "AGE", "made before that time: 90s, 10m, 2h, 3d"},
    {"newer", "AGE", "made since then"},
    {"reason", "TEXT", "failed jobs whose reason has this in it"},
    {"limit", "N", "at most so many; 50 when not given"},
    {"json", NULL, "print a JSON array"},
    {0},
};

const struct command command_jobs_list = {
    .name = "jobs list",
    .operands = "",
    .summary = "list jobs, the newest first; of those that wait or run the oldest first",
    .more = "",
    .options = options,
    .run = run,
};
