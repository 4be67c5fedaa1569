/*
 * The queue's state for people, who may have been woken: what is wrong comes first, in sentences.
 */
#include "jobs.h"
#include "status.h"
#include "table.h"

#include "qfc/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* When something is called wrong. Alerts have thresholds of their own. */
#define PATIENCE_S     60
#define SILENCE_S      20
#define LOCKED_S       3600
#define FEWEST_ENDED   5
#define LEAST_SUCCESS  0.9
#define FAILS_IN_A_ROW 3

enum { QUEUE, ENDED, RUNNING, WORKERS, BLOCKED, REASONS, TABLES };

/* The page under construction. */
struct page {
    const struct qfc_report *report;
    size_t width;
    struct qfc_buffer *out;
    struct table tables[TABLES];
    size_t limits[TABLES]; /* rows of them that are shown */
    size_t gap;            /* blank lines before each */
    size_t wrong;          /* sentences */
    int r;
};

/* "1.2s", "12s", "12m", "2.1h", "3.4d": at most five columns, for tables. */
static const char *brief(char out[AGE_SIZE], double seconds)
{
    static const struct {
        double below, unit;
        char letter;
    } units[] = {{60, 1, 's'}, {3600, 60, 'm'}, {86400, 3600, 'h'}, {1e12, 86400, 'd'}};
    size_t i = 0;
    if (seconds < 0)
        return "-";
    while (i < 3 && seconds >= units[i].below)
        i++;
    double value = seconds / units[i].unit;
    snprintf(out, AGE_SIZE, value < 9.95 ? "%.1f%c" : "%.0f%c", value, units[i].letter);
    return out;
}

static void add_age(struct table *table, double seconds)
{
    char age[AGE_SIZE];
    table_cell(table, brief(age, seconds));
}

static void add_project(struct table *table, const char *owner, const char *project, const char *id)
{
    if (project && owner)
        table_format(table, "%s/%s", owner, project);
    else
        table_cell(table, project ? project : id);
}

/* One line, cut to the page's width. */
__attribute__((format(printf, 2, 3))) static void line(struct page *page, const char *format, ...)
{
    char text[640], harmless[700];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    qfc_text_harmless_line(harmless, sizeof harmless, text);
    size_t bytes = page->width > 0 ? text_fitting(harmless, page->width) : strlen(harmless);
    if (page->r == 0)
        page->r = qfc_buffer_printf(page->out, "%.*s\n", (int)bytes, harmless);
}

/* What is wrong, in sentences: they are wrapped, for nobody should have to guess their ends. */
__attribute__((format(printf, 2, 3))) static void wrong_is(struct page *page, const char *format, ...)
{
    char text[640], *at = text;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    page->wrong++;
    for (const char *sign = "!"; *at; sign = " ") {
        size_t bytes = page->width > 10 ? text_fitting(at, page->width - 2) : strlen(at), cut = bytes;
        while (at[bytes] && cut > 0 && at[cut] != ' ')
            cut--;
        bytes = cut > 0 ? cut : bytes;
        line(page, "%s %.*s", sign, (int)bytes, at);
        at += bytes + strspn(at + bytes, " ");
    }
}

static const char *plural(long count)
{
    return count == 1 ? "" : "s";
}

/* Workers */

static void judge_workers(struct page *page)
{
    const struct qfc_report *report = page->report;
    long slots = 0, jobs = 0;
    char age[AGE_SIZE];
    for (size_t i = 0; i < report->worker_count; i++) {
        const struct qfc_report_worker *worker = &report->workers[i];
        slots += worker->slots;
        jobs += worker->jobs;
        if (worker->silent_s > SILENCE_S)
            wrong_is(page, "The worker on %s has said nothing for %s: it hangs, or its host is gone.", worker->host,
                     print_age(age, worker->silent_s));
    }
    if (report->worker_count == 0 && report->old_started == 0 && report->pending > 0)
        wrong_is(page, "No worker is alive, and %ld job%s wait%s: start one (qfc-worker run).", report->pending,
                 plural(report->pending), report->pending == 1 ? "s" : "");
    else if (report->worker_count == 0)
        wrong_is(page, "No worker is alive.");
    else if (report->oldest_claimable_s > PATIENCE_S && jobs < slots)
        wrong_is(page,
                 "%ld job%s could run, and nobody has taken %s for %s, though workers have free slots: their logs say "
                 "what they wait for (engine, image, network).",
                 report->claimable, plural(report->claimable), report->claimable == 1 ? "it" : "the oldest",
                 print_age(age, report->oldest_claimable_s));
    else if (report->oldest_claimable_s > PATIENCE_S)
        wrong_is(page, "All slots are in use: %ld job%s could run, the oldest for %s.", report->claimable,
                 plural(report->claimable), print_age(age, report->oldest_claimable_s));
}

/* Jobs */

static void judge_blocked(struct page *page)
{
    char age[AGE_SIZE], name[160];
    for (size_t i = 0; i < page->report->blocked_count; i++) {
        const struct qfc_report_blocked *blocked = &page->report->blocked[i];
        qfc_text_harmless_line(name, sizeof name, blocked->project ? blocked->project : blocked->project_id);
        if (strcmp(blocked->why, "lost") == 0)
            wrong_is(page, "Job %.8s (%s) has lost its worker: another one takes it over, or \"jobs requeue %.8s\".",
                     blocked->job, name, blocked->job);
        else if (strcmp(blocked->why, "nobody") == 0)
            wrong_is(page, "Job %.8s (%s) is queued, but nobody's: \"jobs requeue %.8s\", if it stays so.",
                     blocked->job, name, blocked->job);
        else if (strcmp(blocked->why, "overdue") == 0)
            wrong_is(page, "Job %.8s (%s) of QFieldCloud's own worker runs for %s.", blocked->job, name,
                     print_age(age, blocked->since_s));
        else if (strcmp(blocked->why, "locked") == 0 && blocked->since_s > LOCKED_S)
            wrong_is(page, "Project %s is locked for %s, as if files were being uploaded: %ld of its jobs wait.", name,
                     print_age(age, blocked->since_s), blocked->waiting);
        if (page->wrong >= 8) {
            line(page, "! ...");
            return;
        }
    }
}

static void judge_ends(struct page *page)
{
    const struct qfc_report_window *hour = qfc_report_window_of(page->report, "hour");
    if (hour->finished + hour->failed >= FEWEST_ENDED && hour->success < LEAST_SUCCESS)
        wrong_is(page, "%ld of %ld jobs have failed in the last hour.", hour->failed, hour->finished + hour->failed);
    if (page->report->failures_in_a_row >= FAILS_IN_A_ROW)
        wrong_is(page, "The last %ld jobs have all failed.", page->report->failures_in_a_row);
}

static void print_judgement(struct page *page, const struct qfc_release *release)
{
    line(page, "%.10s %.8s UTC   QFieldCloud %s", page->report->now, page->report->now + 11, release->called);
    judge_workers(page);
    judge_blocked(page);
    judge_ends(page);
    if (page->wrong == 0)
        line(page, "Nothing is wrong that the database tells of.");
}

static void print_pending(struct page *page)
{
    const struct qfc_report *report = page->report;
    if (report->pending == 0)
        return;
    line(page,
         "%ld pending: %ld can run now, %ld behind others of their project, %ld of locked projects, %ld not due yet",
         report->pending, report->claimable, report->behind, report->locked, report->retry);
}

/* Tables */

static const char *const queue_heads[] = {"QUEUE", "pending", "queued", "started", "oldest", NULL};
static const char *const ended_heads[] = {"ENDED", "jobs",    "failed", "success", "wait p50", "p90",
                                          "p99",   "run p50", "p90",    "p99",     NULL};
static const char *const running_heads[] = {"RUNNING", "type", "project", "step", "for", "worker", NULL};
static const char *const worker_heads[] = {"WORKER", "host", "version", "jobs", "from", "connected", NULL};
static const char *const blocked_heads[] = {"BLOCKED PROJECT", "why", "for", "waiting", "job", NULL};
static const char *const reason_heads[] = {"FAILED IN THE LAST DAY", "jobs", "last", "for instance", NULL};

/* One row for each type, from up to three of the report's. */
static void fill_queue(struct table *table, const struct qfc_report *report)
{
    static const char *const statuses[] = {"pending", "queued", "started"};
    for (size_t i = 0; i < report->depth_count; i++) {
        const char *type = report->depths[i].type;
        double oldest_s = -1;
        bool first = true;
        for (size_t j = 0; j < i; j++)
            first &= strcmp(report->depths[j].type, type) != 0;
        if (!first)
            continue;
        table_cell(table, type);
        for (size_t s = 0; s < 3; s++) {
            long jobs = 0;
            for (size_t j = i; j < report->depth_count; j++) {
                const struct qfc_report_depth *depth = &report->depths[j];
                if (strcmp(depth->type, type) != 0 || strcmp(depth->status, statuses[s]) != 0)
                    continue;
                jobs += depth->jobs;
                oldest_s = depth->oldest_s > oldest_s ? depth->oldest_s : oldest_s;
            }
            table_format(table, "%ld", jobs);
        }
        add_age(table, oldest_s);
    }
}

static void fill_window(struct table *table, const struct qfc_report_window *window)
{
    table_format(table, "last %s", window->name);
    table_format(table, "%ld", window->finished + window->failed);
    table_format(table, "%ld", window->failed);
    if (window->success < 0)
        table_cell(table, "-");
    else
        table_format(table, "%.4g%%", (double)(long)(1000 * window->success) / 10);
    add_age(table, window->wait.p50);
    add_age(table, window->wait.p90);
    add_age(table, window->wait.p99);
    add_age(table, window->run.p50);
    add_age(table, window->run.p90);
    add_age(table, window->run.p99);
}

static const char *holder(const struct qfc_report_running *job)
{
    switch (job->owner) {
    case QFC_OWNER_OLD:
        return "QFieldCloud's own";
    case QFC_OWNER_NOBODY:
        return "nobody";
    case QFC_OWNER_LOST:
        return "lost";
    default:
        return job->host && *job->host ? job->host : "?";
    }
}

static void fill_running(struct table *table, const struct qfc_report *report)
{
    for (size_t i = 0; i < report->running_count; i++) {
        const struct qfc_report_running *job = &report->running[i];
        table_format(table, "%.8s", job->id);
        table_cell(table, job->type);
        add_project(table, job->owner_name, job->project, job->project_id);
        table_cell(table, job->cancel ? "being cancelled" : job->step ? job->step : job->status);
        add_age(table, job->since_s);
        table_cell(table, holder(job));
    }
}

static void fill_workers(struct table *table, const struct qfc_report *report)
{
    for (size_t i = 0; i < report->worker_count; i++) {
        const struct qfc_report_worker *worker = &report->workers[i];
        table_format(table, "%.8s", worker->instance);
        table_cell(table, worker->host);
        table_cell(table, worker->version);
        if (worker->slots > 0)
            table_format(table, "%ld of %ld", worker->jobs, worker->slots);
        else
            table_format(table, "%ld", worker->jobs);
        table_cell(table, worker->address);
        add_age(table, worker->connected_s);
    }
    const struct qfc_report_window *hour = qfc_report_window_of(report, "hour");
    if (report->old_started == 0 && hour->old == 0)
        return;
    table_cell(table, "others");
    table_format(table, "QFieldCloud's own (%ld ended in 1 h)", hour->old);
    table_cell(table, "-");
    table_format(table, "%ld", report->old_started);
    table_cell(table, "-");
    table_cell(table, "-");
}

static void fill_blocked(struct table *table, const struct qfc_report *report)
{
    for (size_t i = 0; i < report->blocked_count; i++) {
        const struct qfc_report_blocked *blocked = &report->blocked[i];
        bool retry = strcmp(blocked->why, "retry") == 0;
        char due[AGE_SIZE];
        add_project(table, blocked->owner_name, blocked->project, blocked->project_id);
        if (retry)
            table_format(table, "tries again in %s: %s", brief(due, -blocked->since_s),
                         blocked->reason ? blocked->reason : "?");
        else
            table_cell(table, blocked->why);
        add_age(table, retry ? -1 : blocked->since_s);
        table_format(table, "%ld", blocked->waiting);
        table_format(table, "%.8s", blocked->job);
    }
}

static void fill_reasons(struct table *table, const struct qfc_report *report)
{
    for (size_t i = 0; i < report->reason_count; i++) {
        table_cell(table, report->reasons[i].reason);
        table_format(table, "%ld", report->reasons[i].jobs);
        add_age(table, report->reasons[i].last_s);
        table_format(table, "%.8s", report->reasons[i].job);
    }
}

static void fill_tables(struct page *page)
{
    const struct qfc_report *report = page->report;
    page->tables[QUEUE] = (struct table){.heads = queue_heads, .right = " rrrr"};
    page->tables[ENDED] = (struct table){.heads = ended_heads, .right = " rrrrrrrrr"};
    page->tables[RUNNING] = (struct table){.heads = running_heads, .right = "    r ", .gives_way = 2};
    page->tables[WORKERS] = (struct table){.heads = worker_heads, .right = "   r r", .gives_way = 1};
    page->tables[BLOCKED] = (struct table){.heads = blocked_heads, .right = "  rr ", .gives_way = 1};
    page->tables[REASONS] = (struct table){.heads = reason_heads, .right = " rr "};
    fill_queue(&page->tables[QUEUE], report);
    fill_window(&page->tables[ENDED], qfc_report_window_of(report, "hour"));
    fill_window(&page->tables[ENDED], qfc_report_window_of(report, "day"));
    fill_running(&page->tables[RUNNING], report);
    fill_workers(&page->tables[WORKERS], report);
    fill_blocked(&page->tables[BLOCKED], report);
    fill_reasons(&page->tables[REASONS], report);
}

/* Lines of a table: a blank one where there is room, the heads, the rows, and one that says how many are not shown. */
static size_t lines_of(const struct page *page, size_t table)
{
    size_t rows = table_rows(&page->tables[table]), shown = page->limits[table];
    return rows == 0 ? 0 : page->gap + 1 + shown + (shown < rows);
}

/* Takes rows from the longest list, one after another, until all fits, or none has more than `fewest`. */
static bool shorten(struct page *page, size_t before, size_t height, size_t fewest)
{
    for (;;) {
        size_t all = before, longest = 0;
        for (size_t i = 0; i < TABLES; i++) {
            all += lines_of(page, i);
            longest = page->limits[i] > page->limits[longest] ? i : longest;
        }
        if (all <= height || page->limits[longest] <= fewest)
            return all <= height;
        page->limits[longest]--;
    }
}

/* Rather no blank lines than lists of one. */
static void fit(struct page *page, size_t before, size_t height)
{
    page->gap = 1;
    for (size_t i = 0; i < TABLES; i++)
        page->limits[i] = table_rows(&page->tables[i]);
    if (height == 0 || shorten(page, before, height, 3))
        return;
    page->gap = 0;
    shorten(page, before, height, 1);
}

static void print_tables(struct page *page)
{
    for (size_t i = 0; i < TABLES; i++) {
        size_t rows = table_rows(&page->tables[i]), shown = page->limits[i];
        if (rows == 0)
            continue;
        if (page->gap)
            line(page, "%s", "");
        if (page->r == 0)
            page->r = table_print(&page->tables[i], shown, page->width, page->out);
        if (shown < rows)
            line(page, "... and %zu more", rows - shown);
    }
}

static size_t lines_in(const struct qfc_buffer *out)
{
    size_t lines = 0;
    for (size_t i = 0; i < out->size; i++)
        lines += out->data[i] == '\n';
    return lines;
}

/* Nothing that is below the last line. */
static void cut(struct qfc_buffer *out, size_t height)
{
    size_t lines = 0;
    for (size_t i = 0; i < out->size && height > 0; i++)
        if (out->data[i] == '\n' && ++lines == height) {
            out->size = i + 1;
            out->data[out->size] = '\0';
        }
}

int status_text(const struct qfc_report *report, const struct qfc_release *release, size_t width, size_t height,
                struct qfc_buffer *out, struct qfc_error *error)
{
    struct page page = {.report = report, .width = width, .out = out};
    print_judgement(&page, release);
    print_pending(&page);
    fill_tables(&page);
    fit(&page, lines_in(out), height);
    print_tables(&page);
    cut(out, height);
    for (size_t i = 0; i < TABLES; i++)
        table_free(&page.tables[i]);
    return page.r < 0 ? qfc_fail_memory(error) : 0;
}
