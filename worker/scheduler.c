/*
 * When to claim, and looking after the rows that are ours.
 */
#include "worker_private.h"

#include <stdlib.h>
#include <string.h>

/* How often the rows that are ours are looked at: deletion and lost ownership are noticed so. */
#define WATCH_MS 3000

/* How often the tokens of jobs that have ended are looked for. */
#define TOKEN_SWEEP_MS 30000

/* Spread by a quarter to both sides, so that many workers do not march in step. */
static uint64_t poll_delay_ms(const struct qfc_worker *worker)
{
    uint64_t delay = (uint64_t)worker->settings->poll_ms;
    return delay - delay / 4 + (uint64_t)random() % (delay / 2 + 1);
}

static void on_poll(uv_timer_t *timer)
{
    schedule(timer->data);
}

static void look_again_later(struct qfc_worker *worker)
{
    if (!worker->closing)
        uv_timer_start(&worker->poll, on_poll, poll_delay_ms(worker), 0);
}

static void begin_jobs(struct qfc_worker *worker, const struct qfc_claim *claim)
{
    for (size_t i = 0; i < claim->count; i++) {
        const struct qfc_job *row = &claim->jobs[i];
        const struct qfc_log_about about = {.job = row->id, .project = row->project_id};
        struct qfc_error error = QFC_NO_ERROR;
        qfc_log(QFC_LOG_INFO, &about, "claimed %s%s", row->type, row->attempt > 1 ? " again" : "");
        if (job_begin(worker, row, &error) < 0)
            qfc_log(QFC_LOG_ERROR, &about, "begin the job: %s", error.message);
    }
}

/* The modes that end by themselves: is this the end? */
static void consider_end(struct qfc_worker *worker, const struct qfc_claim *claim)
{
    if (worker->mode == QFC_WORKER_SINGLE_SHOT) {
        worker->stopping = true;
    } else if (worker->mode == QFC_WORKER_DRAIN && claim->count == 0 && worker->job_count == 0) {
        if (claim->pending == 0)
            worker->stopping = true;
        else if (!worker->said_waiting)
            qfc_log(QFC_LOG_INFO, NULL,
                    "%ld jobs are pending that cannot be claimed now: their projects are busy or locked, or they wait "
                    "for another attempt",
                    claim->pending);
        worker->said_waiting = claim->pending > 0;
    }
}

static void on_claimed(void *userdata, const struct qfc_error *error, const struct qfc_claim *claim)
{
    struct qfc_worker *worker = userdata;
    worker->claiming = false;
    if (error && is_news(worker->claim_trouble, error->message)) {
        qfc_log(QFC_LOG_WARNING, NULL, "%s; this is said once, and tried again", error->message);
    } else if (!error) {
        worker->claim_trouble[0] = '\0';
        begin_jobs(worker, claim);
        consider_end(worker, claim);
    }
    look_again_later(worker);
    stop_when_idle(worker);
}

/* The ids of all our jobs, in an array to be freed; null without memory. */
static const char **known_ids(const struct qfc_worker *worker, size_t *ret_count)
{
    const char **known = calloc(worker->job_count + 1, sizeof *known);
    *ret_count = 0;
    for (const struct job *job = worker->jobs; known && job; job = job->next)
        known[(*ret_count)++] = job->row.id;
    return known;
}

static int claim(struct qfc_worker *worker, unsigned slots, struct qfc_error *error)
{
    size_t count;
    const char **known = known_ids(worker, &count);
    if (!known)
        return qfc_fail_memory(error);
    int r = qfc_queue_claim(worker->queue, slots, known, count, on_claimed, worker, error);
    free(known);
    return r;
}

void schedule(struct qfc_worker *worker)
{
    unsigned slots = worker->mode == QFC_WORKER_SINGLE_SHOT ? 1 : (unsigned)worker->settings->concurrency;
    if (worker->claiming || worker->stopping || worker->closing || busy_jobs(worker) >= slots ||
        !worker->engine_ready || !qfc_queue_ready(worker->queue))
        return;
    struct qfc_error error = QFC_NO_ERROR;
    uv_timer_stop(&worker->poll);
    if (claim(worker, slots - busy_jobs(worker), &error) == 0) {
        worker->claiming = true;
        return;
    }
    qfc_log(QFC_LOG_ERROR, NULL, "%s", error.message);
    look_again_later(worker);
}

void scheduler_job_ended(struct qfc_worker *worker)
{
    worker->said_waiting = false;
    schedule(worker);
    stop_when_idle(worker);
}

static struct job *find(struct qfc_worker *worker, const char *id)
{
    struct job *job = worker->jobs;
    while (job && strcmp(job->row.id, id) != 0)
        job = job->next;
    return job;
}

static void on_watched(void *userdata, const struct qfc_error *error, const struct qfc_pg_results *results)
{
    struct qfc_worker *worker = userdata;
    worker->watching = false;
    if (error) /* A broken connection is told of by the connection itself. */
        return;
    for (int row = 0; row < PQntuples(results->items[0]); row++) {
        const char *fate = qfc_pg_text(results->items[0], row, "fate");
        const char *status = qfc_pg_text(results->items[0], row, "status");
        struct job *job = find(worker, qfc_pg_text(results->items[0], row, "id"));
        if (!job)
            continue;
        bool taken = strcmp(fate, "taken") == 0;
        struct qfc_error lost = QFC_NO_ERROR;
        qfc_fail(&lost, taken ? QFC_ERROR_TAKEN : QFC_ERROR_LOST, 0, status ? "the row is %s%s" : "the row is gone%s%s",
                 status ? status : "", taken ? ", for another worker" : "");
        job_happened(job, taken ? EVENT_TAKEN : EVENT_LOST, &lost);
    }
}

static void on_strays(void *userdata, const struct qfc_error *error, const struct qfc_pg_results *results)
{
    int count = error ? 0 : PQntuples(results->items[0]);
    for (int row = 0; row < count; row++) {
        const struct qfc_log_about about = {.job = qfc_pg_text(results->items[0], row, "id")};
        qfc_log(QFC_LOG_WARNING, &about, "put back: it was claimed, but its claim did not arrive");
    }
}

/*
 * A claim whose answer was lost leaves rows that are `queued` with our marker and that we know nothing of; its commit
 * may even come after the connection's end. So they are looked for again and again.
 */
static void return_strays(struct qfc_worker *worker)
{
    size_t count;
    const char **known = known_ids(worker, &count);
    if (known)
        qfc_queue_return_strays(worker->queue, known, count, on_strays, NULL, NULL);
    free(known);
}

static void on_tokens_swept(void *userdata, const struct qfc_error *error, const struct qfc_pg_results *results)
{
    int count = error ? 0 : PQntuples(results->items[0]);
    if (count > 0)
        qfc_log(QFC_LOG_INFO, NULL, "deleted %d tokens of jobs that have ended", count);
}

/* A worker that died has left its jobs' tokens behind. */
static void sweep_tokens(struct qfc_worker *worker)
{
    struct qfc_statements writes = {0};
    worker->tokens_swept_ms = uv_now(&worker->loop);
    if (qfc_token_sweep(&writes, NULL) < 0 || qfc_queue_write(worker->queue, &writes, on_tokens_swept, NULL, NULL) < 0)
        qfc_statements_free(&writes);
}

static void on_watch(uv_timer_t *timer)
{
    struct qfc_worker *worker = timer->data;
    if (!qfc_queue_ready(worker->queue))
        return;
    if (!worker->claiming)
        return_strays(worker);
    if (worker->tokens_swept_ms == 0 || uv_now(&worker->loop) - worker->tokens_swept_ms > TOKEN_SWEEP_MS)
        sweep_tokens(worker);
    if (worker->watching || worker->job_count == 0)
        return;
    const char **ids = calloc(2 * worker->job_count, sizeof *ids);
    if (!ids)
        return;
    const char **containers = ids + worker->job_count;
    size_t count = 0;
    for (const struct job *job = worker->jobs; job; job = job->next, count++) {
        ids[count] = job->row.id;
        containers[count] = job->container;
    }
    worker->watching = qfc_queue_watch(worker->queue, ids, containers, count, on_watched, worker, NULL) == 0;
    free(ids);
}

void scheduler_watch(struct qfc_worker *worker)
{
    uv_timer_start(&worker->watch, on_watch, WATCH_MS, WATCH_MS);
}
