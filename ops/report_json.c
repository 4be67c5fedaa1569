/*
 * The queue's state as JSON, for `status --json` and whoever else hands it out.
 */
#include "ops_private.h"

#include <string.h>

/* Seconds with milliseconds; null where there are none. */
static json_t *seconds(double value)
{
    return value < 0 ? json_null() : json_real((double)(long long)(value * 1000 + 0.5) / 1000);
}

/* As seconds(), of what may be negative. */
static json_t *signed_seconds(double value)
{
    return json_real((double)(long long)(value * 1000) / 1000);
}

static json_t *depth_json(const struct qfc_report_depth *depth)
{
    return json_pack("{s:s, s:s, s:I, s:o}", "status", depth->status, "type", depth->type, "jobs",
                     (json_int_t)depth->jobs, "oldest_s", seconds(depth->oldest_s));
}

static json_t *running_json(const struct qfc_report_running *job)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:s?, s:s?, s:o, s:o, s:s, s:s?, s:s?, s:s?, s:s?, s:s?, s:o, s:I, s:b}",
                     "job", job->id, "status", job->status, "type", job->type, "project_id", job->project_id, "project",
                     job->project, "owner", job->owner_name, "since_s", seconds(job->since_s), "age_s",
                     seconds(job->age_s), "held_by", qfc_report_owner_name(job->owner), "worker", job->worker, "host",
                     job->host, "container", job->container, "engine", job->engine, "step", job->step, "step_s",
                     seconds(job->step ? job->step_s : -1), "attempts", (json_int_t)job->attempts, "cancel",
                     (int)job->cancel);
}

static json_t *worker_json(const struct qfc_report_worker *worker)
{
    return json_pack("{s:s, s:s, s:s?, s:o, s:I, s:s?, s:o, s:o}", "instance", worker->instance, "host", worker->host,
                     "version", worker->version, "slots", worker->slots > 0 ? json_integer(worker->slots) : json_null(),
                     "jobs", (json_int_t)worker->jobs, "address", worker->address, "connected_s",
                     seconds(worker->connected_s), "silent_s", seconds(worker->silent_s));
}

static json_t *blocked_json(const struct qfc_report_blocked *blocked)
{
    return json_pack("{s:s, s:s, s:s?, s:s?, s:s, s:s?, s:o, s:I}", "why", blocked->why, "project_id",
                     blocked->project_id, "project", blocked->project, "owner", blocked->owner_name, "job",
                     blocked->job, "reason", blocked->reason, "since_s", signed_seconds(blocked->since_s), "waiting",
                     (json_int_t)blocked->waiting);
}

static json_t *reason_json(const struct qfc_report_reason *reason)
{
    return json_pack("{s:s, s:I, s:o, s:s}", "reason", reason->reason, "jobs", (json_int_t)reason->jobs, "last_s",
                     seconds(reason->last_s), "job", reason->job);
}

static json_t *percentiles_json(const struct qfc_report_percentiles *of)
{
    return json_pack("{s:o, s:o, s:o}", "p50", seconds(of->p50), "p90", seconds(of->p90), "p99", seconds(of->p99));
}

static json_t *window_json(const struct qfc_report_window *window)
{
    return json_pack("{s:I, s:I, s:o, s:o, s:o, s:o, s:I}", "finished", (json_int_t)window->finished, "failed",
                     (json_int_t)window->failed, "success",
                     window->success < 0 ? json_null() : json_real(window->success), "wait_s",
                     percentiles_json(&window->wait), "run_s", percentiles_json(&window->run), "run_mean_s",
                     seconds(window->run_mean_s), "by_old_workers", (json_int_t)window->old);
}

/* {"hour": {..., "by_type": {"package": {...}}}, "day": ...} */
static json_t *windows_json(const struct qfc_report *report)
{
    json_t *all = json_object();
    for (size_t i = 0; i < report->window_count; i++) {
        const struct qfc_report_window *window = &report->windows[i];
        if (window->type)
            continue;
        json_t *one = window_json(window), *types = json_object();
        for (size_t j = 0; j < report->window_count; j++)
            if (report->windows[j].type && strcmp(report->windows[j].name, window->name) == 0)
                json_object_set_new(types, report->windows[j].type, window_json(&report->windows[j]));
        json_object_set_new(one, "by_type", types);
        json_object_set_new(all, window->name, one);
    }
    return all;
}

#define LIST(items, count, make)                                                                                       \
    ({                                                                                                                 \
        json_t *list = json_array();                                                                                   \
        for (size_t i = 0; i < (count); i++)                                                                           \
            json_array_append_new(list, make(&(items)[i]));                                                            \
        list;                                                                                                          \
    })

static json_t *queue_json(const struct qfc_report *report)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:o}", "pending", (json_int_t)report->pending,
                     "claimable", (json_int_t)report->claimable, "behind", (json_int_t)report->behind, "locked",
                     (json_int_t)report->locked, "retry", (json_int_t)report->retry, "queued",
                     (json_int_t)report->queued, "started", (json_int_t)report->started, "oldest_pending_s",
                     seconds(report->oldest_pending_s), "oldest_claimable_s", seconds(report->oldest_claimable_s),
                     "by_type", LIST(report->depths, report->depth_count, depth_json));
}

json_t *report_json(const struct qfc_report *report, const struct qfc_release *release)
{
    return json_pack("{s:s, s:s, s:s, s:o, s:o, s:o, s:I, s:o, s:o, s:o, s:I, s:o}", "time", report->now, "release",
                     release->called, "database", release->identity, "queue", queue_json(report), "running",
                     LIST(report->running, report->running_count, running_json), "workers",
                     LIST(report->workers, report->worker_count, worker_json), "old_workers_started",
                     (json_int_t)report->old_started, "blocked",
                     LIST(report->blocked, report->blocked_count, blocked_json), "ended", windows_json(report),
                     "failures", LIST(report->reasons, report->reason_count, reason_json), "failures_in_a_row",
                     (json_int_t)report->failures_in_a_row, "history_s", seconds(report->history_s));
}
