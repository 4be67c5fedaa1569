/*
 * What the questions of report.c have brought, as a structure whose texts belong to copies of the results.
 */
#include "qfc/report.h"

#include "queue_private.h"

#include <stdlib.h>
#include <string.h>

/* In the order of report_sql. */
enum { SETTINGS, DEPTHS, FACTS, RUNNING, WORKERS, BLOCKED, ENDED };

static double number(const PGresult *rows, int row, const char *column, double absent)
{
    const char *text = qfc_pg_text(rows, row, column);
    return text ? strtod(text, NULL) : absent;
}

static double seconds(const PGresult *rows, int row, const char *column)
{
    return number(rows, row, column, -1);
}

static long whole(const PGresult *rows, int row, const char *column)
{
    const char *text = qfc_pg_text(rows, row, column);
    return text ? strtol(text, NULL, 10) : 0;
}

/* "" for null, for what is never null in a database of QFieldCloud's. */
static const char *text(const PGresult *rows, int row, const char *column)
{
    const char *found = qfc_pg_text(rows, row, column);
    return found ? found : "";
}

/* PostgreSQL's array of numbers: "{0.1,2,30}". */
static struct qfc_report_percentiles percentiles(const PGresult *rows, int row, const char *column)
{
    double values[3] = {-1, -1, -1};
    const char *at = text(rows, row, column);
    for (size_t i = 0; i < 3 && *at; i++) {
        char *end;
        double value = strtod(++at, &end); /* behind "{" or "," */
        if (end != at)
            values[i] = value;
        at = end;
    }
    return (struct qfc_report_percentiles){values[0], values[1], values[2]};
}

static void read_depth(const PGresult *rows, int row, void *out)
{
    *(struct qfc_report_depth *)out = (struct qfc_report_depth){
        .status = text(rows, row, "status"),
        .type = text(rows, row, "type"),
        .jobs = whole(rows, row, "jobs"),
        .oldest_s = seconds(rows, row, "oldest_s"),
    };
}

static enum qfc_report_owner owner_of(const char *name)
{
    enum qfc_report_owner owner = QFC_OWNER_WORKER;
    while (owner < QFC_OWNER_NOBODY && strcmp(qfc_report_owner_name(owner), name) != 0)
        owner++;
    return owner;
}

static void read_running(const PGresult *rows, int row, void *out)
{
    const char *cancel = text(rows, row, "cancel");
    *(struct qfc_report_running *)out = (struct qfc_report_running){
        .id = text(rows, row, "id"),
        .status = text(rows, row, "status"),
        .type = text(rows, row, "type"),
        .project_id = text(rows, row, "project_id"),
        .project = qfc_pg_text(rows, row, "project"),
        .owner_name = qfc_pg_text(rows, row, "owner_name"),
        .since_s = seconds(rows, row, "since_s"),
        .age_s = seconds(rows, row, "age_s"),
        .owner = owner_of(text(rows, row, "owner")),
        .worker = qfc_pg_text(rows, row, "worker"),
        .host = qfc_pg_text(rows, row, "host"),
        .container = qfc_pg_text(rows, row, "container"),
        .engine = qfc_pg_text(rows, row, "engine"),
        .step = qfc_pg_text(rows, row, "step"),
        .step_s = seconds(rows, row, "step_s"),
        .attempts = whole(rows, row, "attempts"),
        .cancel = *cancel == 't',
    };
}

static void read_worker(const PGresult *rows, int row, void *out)
{
    *(struct qfc_report_worker *)out = (struct qfc_report_worker){
        .instance = text(rows, row, "instance"),
        .host = text(rows, row, "host"),
        .version = qfc_pg_text(rows, row, "version"),
        .slots = whole(rows, row, "slots"),
        .jobs = whole(rows, row, "jobs"),
        .address = qfc_pg_text(rows, row, "address"),
        .connected_s = seconds(rows, row, "connected_s"),
        .silent_s = seconds(rows, row, "silent_s"),
    };
}

static void read_blocked(const PGresult *rows, int row, void *out)
{
    *(struct qfc_report_blocked *)out = (struct qfc_report_blocked){
        .why = text(rows, row, "why"),
        .project_id = text(rows, row, "project_id"),
        .project = qfc_pg_text(rows, row, "project"),
        .owner_name = qfc_pg_text(rows, row, "owner_name"),
        .job = text(rows, row, "job"),
        .reason = qfc_pg_text(rows, row, "reason"),
        .since_s = number(rows, row, "since_s", 0),
        .waiting = whole(rows, row, "waiting"),
    };
}

static void read_window(const PGresult *rows, int row, void *out)
{
    long finished = whole(rows, row, "finished"), failed = whole(rows, row, "failed");
    *(struct qfc_report_window *)out = (struct qfc_report_window){
        .name = text(rows, row, "name"),
        .type = qfc_pg_text(rows, row, "type"),
        .finished = finished,
        .failed = failed,
        .success = finished + failed > 0 ? (double)finished / (double)(finished + failed) : -1,
        .wait = percentiles(rows, row, "wait"),
        .run = percentiles(rows, row, "run"),
        .run_mean_s = seconds(rows, row, "run_mean_s"),
        .old = whole(rows, row, "old"),
    };
}

static void read_reason(const PGresult *rows, int row, void *out)
{
    *(struct qfc_report_reason *)out = (struct qfc_report_reason){
        .reason = text(rows, row, "reason"),
        .jobs = whole(rows, row, "jobs"),
        .last_s = seconds(rows, row, "last_s"),
        .job = text(rows, row, "job"),
    };
}

#define SPARE_ROWS 2 /* the windows in which nothing has ended */

typedef void read_row(const PGresult *rows, int row, void *out);

/* All rows of a `part` (null: of any) into a new array with room for some behind them. Null when out of memory. */
static void *read_rows(const PGresult *rows, const char *part, read_row *read, size_t size, size_t *ret_count)
{
    size_t count = 0;
    char *items = calloc((size_t)PQntuples(rows) + SPARE_ROWS, size);
    for (int row = 0; items && row < PQntuples(rows); row++)
        if (!part || strcmp(text(rows, row, "part"), part) == 0)
            read(rows, row, items + count++ * size);
    *ret_count = count;
    return items;
}

static const struct qfc_report_window *find_window(const struct qfc_report *report, const char *name)
{
    for (size_t i = 0; i < report->window_count; i++)
        if (!report->windows[i].type && strcmp(report->windows[i].name, name) == 0)
            return &report->windows[i];
    return NULL;
}

/* A window in which nothing has ended has no row. */
static void add_window(struct qfc_report *report, const char *name)
{
    const struct qfc_report_percentiles none = {-1, -1, -1};
    if (!find_window(report, name))
        report->windows[report->window_count++] =
            (struct qfc_report_window){.name = name, .success = -1, .wait = none, .run = none, .run_mean_s = -1};
}

const struct qfc_report_window *qfc_report_window_of(const struct qfc_report *report, const char *name)
{
    const struct qfc_report_window *window = find_window(report, name);
    return window ? window : find_window(report, "day");
}

static void read_facts(struct qfc_report *report)
{
    const PGresult *facts = report->results[FACTS], *history = report->results[ENDED]; /* its first row */
    report->now = text(facts, 0, "now");
    report->now_s = number(facts, 0, "now_s", 0);
    report->pending = whole(facts, 0, "pending");
    report->claimable = whole(facts, 0, "claimable");
    report->locked = whole(facts, 0, "locked");
    report->retry = whole(facts, 0, "retry");
    report->behind = report->pending - report->claimable - report->locked - report->retry;
    report->oldest_pending_s = seconds(facts, 0, "oldest_pending_s");
    report->oldest_claimable_s = seconds(facts, 0, "oldest_claimable_s");
    report->failures_in_a_row = whole(history, 0, "failures_in_a_row");
    report->history_s = seconds(history, 0, "history_s");
    for (size_t i = 0; i < report->depth_count; i++) {
        const struct qfc_report_depth *depth = &report->depths[i];
        report->queued += strcmp(depth->status, "queued") == 0 ? depth->jobs : 0;
        report->started += strcmp(depth->status, "started") == 0 ? depth->jobs : 0;
    }
    for (size_t i = 0; i < report->running_count; i++)
        report->old_started += report->running[i].owner == QFC_OWNER_OLD;
}

#define READ_ROWS(which, part, read, items, count)                                                                     \
    ((report->items = read_rows(report->results[which], part, read, sizeof *report->items, &report->count)) != NULL)

static int read_all(struct qfc_report *report, struct qfc_error *error)
{
    bool all = READ_ROWS(DEPTHS, NULL, read_depth, depths, depth_count) &&
               READ_ROWS(RUNNING, NULL, read_running, running, running_count) &&
               READ_ROWS(WORKERS, NULL, read_worker, workers, worker_count) &&
               READ_ROWS(BLOCKED, NULL, read_blocked, blocked, blocked_count) &&
               READ_ROWS(ENDED, "window", read_window, windows, window_count) &&
               READ_ROWS(ENDED, "reason", read_reason, reasons, reason_count);
    if (!all)
        return qfc_fail_memory(error);
    add_window(report, "hour");
    add_window(report, "day");
    read_facts(report);
    return 0;
}

int qfc_report_read(PGresult *const *results, size_t count, struct qfc_report *ret_report, struct qfc_error *error)
{
    struct qfc_report report = {0};
    int r = count == QFC_REPORT_RESULTS ? 0 : qfc_fail(error, QFC_ERROR_BUG, 0, "not the results of a report");
    for (size_t i = 0; r == 0 && i < count; i++) {
        report.results[i] = PQcopyResult(results[i], PG_COPYRES_ATTRS | PG_COPYRES_TUPLES);
        if (!report.results[i])
            r = qfc_fail_memory(error);
    }
    if (r == 0)
        r = read_all(&report, error);
    if (r < 0) {
        qfc_report_free(&report);
        return -1;
    }
    *ret_report = report;
    return 0;
}

void qfc_report_free(struct qfc_report *report)
{
    free(report->depths);
    free(report->running);
    free(report->workers);
    free(report->blocked);
    free(report->windows);
    free(report->reasons);
    for (size_t i = 0; i < QFC_REPORT_RESULTS; i++)
        PQclear(report->results[i]);
    *report = (struct qfc_report){0};
}

const char *qfc_report_owner_name(enum qfc_report_owner owner)
{
    static const char *const names[] = {
        [QFC_OWNER_WORKER] = "worker",
        [QFC_OWNER_LOST] = "lost",
        [QFC_OWNER_OLD] = "old",
        [QFC_OWNER_NOBODY] = "nobody",
    };
    return names[owner];
}
