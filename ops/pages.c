/*
 * The pages that the daemon shows.
 */
#include "companion.h"
#include "ops_private.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>

#define PAGE_MAX_BYTES (1024 * 1024)
#define REASONS        8
#define JOBS           256
#define STATE_AGE_MS   5000

static const char plain_text[] = "text/plain; charset=utf-8";

/* Does the loop live? It does, or this would not be asked. */
static void show_health(const struct showing *showing, const struct qfc_report *report, struct page *page)
{
    qfc_buffer_append_text(&page->body, "ok\n");
}

static void show_readiness(const struct showing *showing, const struct qfc_report *report, struct page *page)
{
    char reasons[REASONS][QFC_MONITOR_REASON_SIZE];
    size_t count = qfc_monitor_reasons(showing->worker, reasons, REASONS);
    page->status = count > 0 ? 503 : 200;
    if (count == 0)
        qfc_buffer_append_text(&page->body, "ok\n");
    for (size_t i = 0; i < count; i++)
        qfc_buffer_printf(&page->body, "%s\n", reasons[i]);
}

static void show_metrics(const struct showing *showing, const struct qfc_report *report, struct page *page)
{
    page->type = "text/plain; version=0.0.4; charset=utf-8";
    if (write_metrics(showing, report, &page->body) < 0)
        page->status = 500;
}

/* Seconds with milliseconds, or null for none. */
static json_t *seconds(double value)
{
    return value < 0 ? json_null() : json_real((double)(long long)(value * 1000 + 0.5) / 1000);
}

static json_t *job_json(const struct qfc_running *job)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:i, s:o, s:o}", "id", job->job, "type", job->type,
                     "project", job->project, "owner", job->owner, "project_id", job->project_id, "step", job->step,
                     "workflow_step", job->workflow_step, "container", job->container, "attempt", (int)job->attempt,
                     "had_s", seconds(job->had_s), "started_s", seconds(job->started_s));
}

static json_t *jobs_json(const struct qfc_worker *worker)
{
    struct qfc_running jobs[JOBS];
    size_t count = qfc_monitor_jobs(worker, jobs, JOBS);
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(list, job_json(&jobs[i]));
    return list;
}

static json_t *reasons_json(const struct qfc_worker *worker)
{
    char reasons[REASONS][QFC_MONITOR_REASON_SIZE];
    size_t count = qfc_monitor_reasons(worker, reasons, REASONS);
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(list, json_string(reasons[i]));
    return list;
}

static json_t *missing_json(const struct qfc_state *state)
{
    json_t *list = json_array();
    for (size_t i = 0; i < state->missing_count; i++)
        json_array_append_new(list,
                              json_pack("{s:s, s:s}", "kind", state->missing[i].kind, "name", state->missing[i].name));
    return list;
}

static json_t *types_json(const struct qfc_counters *counters)
{
    json_t *types = json_object();
    for (size_t i = 0; i < QFC_MONITOR_TYPES; i++) {
        const struct qfc_type_counters *type = &counters->types[i];
        json_object_set_new(types, type->type,
                            json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "claimed", (json_int_t)type->claimed, "adopted",
                                      (json_int_t)type->adopted, "finished", (json_int_t)type->finished, "failed",
                                      (json_int_t)type->failed, "put_back", (json_int_t)type->put_back, "lost",
                                      (json_int_t)type->lost));
    }
    return types;
}

static json_t *worker_json(const struct showing *showing)
{
    const struct qfc_state state = qfc_monitor_state(showing->worker);
    json_t *reasons = reasons_json(showing->worker);
    bool ready = json_array_size(reasons) == 0;
    return json_pack("{s:s, s:s, s:s, s:f, s:i, s:i, s:b, s:b, s:o, s:b, s:b, s:s, s:o, s:o, s:o}", "marker",
                     state.marker, "version", QFC_VERSION, "release", state.release, "started_at", state.started_at,
                     "slots", (int)state.slots, "busy", (int)state.busy, "stopping", (int)state.stopping, "ready",
                     (int)ready, "reasons", reasons, "database", (int)state.database_ready, "engine",
                     (int)state.engine_ready, "engine_version", state.engine_version, "missing", missing_json(&state),
                     "jobs", jobs_json(showing->worker), "counts", types_json(qfc_monitor_counters(showing->worker)));
}

/* What is wrong, as the worker that judges has told. */
static json_t *alerts_json(const struct showing *showing)
{
    json_t *list = json_array();
    for (size_t i = 0; i < ALERTS; i++) {
        const struct alert *alert = &showing->alerts.items[i];
        if (alert->firing)
            json_array_append_new(list, json_pack("{s:s, s:s, s:f, s:s}", "alert", alert_rules[i].name, "severity",
                                                  alert_rules[i].severity, "since", alert->since, "detail",
                                                  alert->last.text));
    }
    return list;
}

static json_t *queue_json(const struct showing *showing, const struct qfc_report *report)
{
    struct qfc_release release = {0};
    if (!report)
        return json_null();
    snprintf(release.called, sizeof release.called, "%s", qfc_queue_release(showing->queue));
    snprintf(release.identity, sizeof release.identity, "%s", qfc_queue_identity(showing->queue));
    return report_json(report, &release);
}

static void show_status(const struct showing *showing, const struct qfc_report *report, struct page *page)
{
    json_t *status = json_pack("{s:o, s:o, s:o}", "worker", worker_json(showing), "alerts", alerts_json(showing),
                               "queue", queue_json(showing, report));
    char *text = status ? json_dumps(status, JSON_INDENT(2)) : NULL;
    page->type = "application/json";
    if (!text || qfc_buffer_printf(&page->body, "%s\n", text) < 0)
        page->status = 500;
    free(text);
    json_decref(status);
}

static void show_index(const struct showing *showing, const struct qfc_report *report, struct page *page)
{
    qfc_buffer_printf(&page->body, "qfc-worker %s: /metrics, /healthz, /readyz, /status.json\n", QFC_VERSION);
}

static const struct {
    const char *path;
    void (*show)(const struct showing *showing, const struct qfc_report *report, struct page *page);
    bool waits; /* for what the database says */
} pages[] = {
    {"/", show_index, false},         {"/healthz", show_health, false},    {"/readyz", show_readiness, false},
    {"/metrics", show_metrics, true}, {"/status.json", show_status, true},
};

bool make_page(void *userdata, const char *path, bool now, struct page *ret_page)
{
    struct showing *showing = userdata;
    *ret_page = (struct page){.status = 200, .type = plain_text, .body = qfc_buffer(PAGE_MAX_BYTES)};
    for (size_t i = 0; i < sizeof pages / sizeof *pages; i++) {
        if (strcmp(pages[i].path, path) != 0)
            continue;
        const struct qfc_report *report = pages[i].waits ? queue_state_get(&showing->state, STATE_AGE_MS) : NULL;
        if (pages[i].waits && !report && !now && showing->state.asking)
            return false;
        pages[i].show(showing, report, ret_page);
        return true;
    }
    ret_page->status = 404;
    qfc_buffer_append_text(&ret_page->body, "no such page: /metrics, /healthz, /readyz, /status.json\n");
    return true;
}
