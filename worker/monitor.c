/*
 * What the daemon counts and tells of itself: see qfc/monitor.h.
 *
 * The rest of this room calls the functions at the place where the thing happens, one line each.
 */
#include "worker_private.h"

#include <stdio.h>
#include <string.h>
#include <sys/time.h>

const double qfc_bucket_s[QFC_BUCKETS] = {0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800};

static const char *const type_names[QFC_MONITOR_TYPES] = {
    "package", "delta_apply", "process_projectfile", "create_project", "other",
};

/* What jobs fail of that tell no better reason. */
#define NO_REASON "OTHER"

/* Those for which a table has no row. */
#define MANY "FURTHER"

static double wall_clock_s(void)
{
    struct timeval now;
    gettimeofday(&now, NULL);
    return (double)now.tv_sec + (double)now.tv_usec / 1e6;
}

void monitor_begin(struct qfc_worker *worker)
{
    worker->started_at = wall_clock_s();
    for (size_t i = 0; i < QFC_MONITOR_TYPES; i++)
        worker->counters.types[i].type = type_names[i];
}

static struct qfc_type_counters *counters_of(struct qfc_worker *worker, const char *type)
{
    size_t i = 0;
    while (i + 1 < QFC_MONITOR_TYPES && strcmp(type_names[i], type) != 0)
        i++;
    return &worker->counters.types[i];
}

static void observe(struct qfc_histogram *histogram, double seconds)
{
    size_t i = 0;
    while (i < QFC_BUCKETS && seconds > qfc_bucket_s[i])
        i++;
    histogram->counts[i]++;
    histogram->sum_s += seconds;
}

uint64_t qfc_histogram_count(const struct qfc_histogram *histogram)
{
    uint64_t count = 0;
    for (size_t i = 0; i <= QFC_BUCKETS; i++)
        count += histogram->counts[i];
    return count;
}

void monitor_claimed(struct qfc_worker *worker, const struct qfc_job *row)
{
    struct qfc_type_counters *counters = counters_of(worker, row->type);
    counters->claimed++;
    if (row->attempt == 1)
        observe(&counters->pickup, row->waited_s);
}

void monitor_adopted(const struct job *job)
{
    counters_of(job->worker, job->row.type)->adopted++;
}

void monitor_started(const struct job *job)
{
    double since_claim_s = (double)(uv_now(&job->worker->loop) - job->began_at_ms) / 1000;
    if (!job->adopted && job->row.attempt == 1)
        observe(&counters_of(job->worker, job->row.type)->wait, job->row.waited_s + since_claim_s);
}

static void count_named(struct qfc_named_counter *table, const char *name, uint64_t took_ms)
{
    size_t i = 0, size = sizeof table->name;
    while (i < QFC_MONITOR_NAMES && *table[i].name && strncmp(table[i].name, name, size - 1) != 0)
        i++;
    if (i + 1 >= QFC_MONITOR_NAMES) {
        i = QFC_MONITOR_NAMES - 1;
        name = MANY;
    }
    snprintf(table[i].name, size, "%s", name);
    table[i].count++;
    table[i].took_ms += took_ms;
}

static void count_used(const struct job *job)
{
    struct qfc_type_counters *counters = counters_of(job->worker, job->row.type);
    const struct usage *usage = &job->usage;
    counters->cpu_ms += usage->cpu_ms;
    counters->received_bytes += usage->received_bytes;
    counters->sent_bytes += usage->sent_bytes;
    if (usage->peak_memory_bytes > counters->peak_memory_bytes)
        counters->peak_memory_bytes = usage->peak_memory_bytes;
    for (unsigned i = 0; i < job->steps.done_count; i++)
        count_named(job->worker->counters.steps, job->steps.done[i].name, job->steps.done[i].took_ms);
}

void monitor_ended(const struct job *job, double run_s, const char *reason)
{
    struct qfc_type_counters *counters = counters_of(job->worker, job->row.type);
    if (job->outcome.finished) {
        counters->finished++;
    } else {
        counters->failed++;
        count_named(job->worker->counters.reasons, reason && *reason ? reason : NO_REASON, 0);
    }
    if (run_s > 0)
        observe(&counters->run, run_s);
    count_used(job);
}

void monitor_put_back(const struct job *job)
{
    counters_of(job->worker, job->row.type)->put_back++;
}

void monitor_lost(const struct job *job)
{
    counters_of(job->worker, job->row.type)->lost++;
}

const struct qfc_counters *qfc_monitor_counters(const struct qfc_worker *worker)
{
    return &worker->counters;
}

/* Two needs may have the same name. */
static void add_missing(struct qfc_state *state, const char *kind, const char *name)
{
    for (size_t i = 0; i < state->missing_count; i++)
        if (strcmp(state->missing[i].name, name) == 0 && strcmp(state->missing[i].kind, kind) == 0)
            return;
    if (state->missing_count < QFC_MONITOR_MISSING)
        state->missing[state->missing_count++] = (struct qfc_missing){kind, name};
}

/* With one of two images jobs can still be claimed. */
static bool lacks_all_images(const struct qfc_worker *worker)
{
    return worker->needs[NEED_QGIS].missing || (worker->needs[NEED_QGIS3].missing && worker->needs[NEED_QGIS4].missing);
}

struct qfc_state qfc_monitor_state(const struct qfc_worker *worker)
{
    struct qfc_state state = {
        .started_at = worker->started_at,
        .marker = worker->queue ? qfc_queue_marker(worker->queue) : "",
        .release = worker->queue ? qfc_queue_release(worker->queue) : "",
        .slots = worker->mode == QFC_WORKER_SINGLE_SHOT ? 1 : (unsigned)worker->settings->concurrency,
        .busy = busy_jobs(worker),
        .jobs = worker->job_count,
        .stopping = worker->stopping,
        .database_ready = worker->queue && qfc_queue_ready(worker->queue),
        .engine_ready = worker->engine_ready,
        .database_trouble = worker->database_trouble,
        .engine_trouble = worker->engine_trouble,
        .engine_version = worker->engine_version,
        .engine_id = worker->engine_id,
    };
    for (enum need_kind kind = 0; kind < NEED_COUNT; kind++)
        if (need_is_trouble(worker, kind))
            add_missing(&state, need_word(kind), need_name(worker, kind));
    return state;
}

size_t qfc_monitor_jobs(const struct qfc_worker *worker, struct qfc_running *ret_jobs, size_t room)
{
    uint64_t now = uv_now(&worker->loop);
    size_t count = 0;
    for (const struct job *job = worker->jobs; job && count < room; job = job->next)
        ret_jobs[count++] = (struct qfc_running){
            .job = job->row.id,
            .project_id = job->row.project_id,
            .type = job->row.type,
            .project = job->row.project_name,
            .owner = job->row.owner,
            .step = step_name(job->step),
            .workflow_step = job->steps.current,
            .container = job->container,
            .attempt = job->row.attempt,
            .had_s = (double)(now - job->began_at_ms) / 1000,
            .started_s = job->prepared_at_ms ? (double)(now - job->prepared_at_ms) / 1000 : -1,
        };
    return count;
}

size_t qfc_monitor_reasons(const struct qfc_worker *worker, char ret_reasons[][QFC_MONITOR_REASON_SIZE], size_t room)
{
    const struct qfc_state state = qfc_monitor_state(worker);
    size_t count = 0;
    if (!state.database_ready && count < room)
        snprintf(ret_reasons[count++], QFC_MONITOR_REASON_SIZE, "database: %.*s", QFC_MONITOR_REASON_SIZE - 20,
                 *state.database_trouble ? state.database_trouble : "not connected yet");
    if (!state.engine_ready && count < room)
        snprintf(ret_reasons[count++], QFC_MONITOR_REASON_SIZE, "engine: %.*s", QFC_MONITOR_REASON_SIZE - 20,
                 *state.engine_trouble ? state.engine_trouble : "has not answered yet");
    for (size_t i = 0; i < state.missing_count && count < room; i++)
        if (strcmp(state.missing[i].kind, "image") != 0 || lacks_all_images(worker))
            snprintf(ret_reasons[count++], QFC_MONITOR_REASON_SIZE, "%s: the engine has no %s %.400s",
                     state.missing[i].kind, state.missing[i].kind, state.missing[i].name);
    if (state.stopping && count < room)
        snprintf(ret_reasons[count++], QFC_MONITOR_REASON_SIZE, "stopping: %u jobs still run", state.jobs);
    return count;
}
