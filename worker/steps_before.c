/*
 * The steps up to the container's start: each starts one operation.
 */
#include "worker_private.h"

#include <stdlib.h>
#include <string.h>

/* The directory of the container that the job's files go into, and its feedback comes from. */

#define TAR_MAX_BYTES (256u * 1024 * 1024)

/* The token outlives the container's time limit a little. */
#define TOKEN_SPARE_S 60

struct qfc_job_rows job_rows(const struct job *job)
{
    if (job->row_count < ROWS_PROCESSOR)
        return (struct qfc_job_rows){.job = &job->row};
    return (struct qfc_job_rows){
        .job = &job->row,
        .project = job->rows[ROWS_PROJECT],
        .results = (const PGresult *const *)job->rows + ROWS_PROCESSOR,
        .count = job->row_count - ROWS_PROCESSOR,
    };
}

void forget_results(PGresult ***results, size_t *count)
{
    for (size_t i = 0; i < *count; i++)
        PQclear((*results)[i]);
    free(*results);
    *results = NULL;
    *count = 0;
}

int keep_results(const struct qfc_pg_results *results, PGresult ***kept, size_t *count, struct qfc_error *error)
{
    PGresult **taken = calloc(results->count, sizeof(PGresult *));
    if (!taken)
        return qfc_fail_memory(error);
    forget_results(kept, count);
    for (size_t i = 0; i < results->count; i++) {
        taken[i] = results->items[i];
        results->items[i] = NULL;
    }
    *kept = taken;
    *count = results->count;
    return 0;
}

static int plan(struct job *job, struct qfc_error *error)
{
    /* Each query sees what is there when its turn comes: the row can go between the fence and these. */
    if (PQntuples(job->rows[ROWS_PROJECT]) == 0 || PQntuples(job->rows[ROWS_SECRETS]) == 0)
        return qfc_fail(error, QFC_ERROR_LOST, 0, "the job's row is gone");
    job->limits = qfc_limits_read(job->rows[ROWS_LIMITS]);
    if (job->limits.bad)
        qfc_log(QFC_LOG_WARNING, &job->about, "the value of %s cannot be used: its default stands", job->limits.bad);
    long timeout_s = job->worker->settings->timeout_s;
    job->worker->timeout_s = job->timeout_s = timeout_s > 0 ? (unsigned)timeout_s : job->limits.timeout_s;
    if (job->failed) {
        *error = job->failure;
        return -1;
    }
    if (job->adopted)
        return 0;
    if (!job->processor)
        return qfc_fail(error, QFC_ERROR_INVALID, 0, "nobody knows jobs of type \"%s\"", job->row.type);
    const struct qfc_job_rows rows = job_rows(job);
    if (choose_image(job, error) < 0 || job->processor->plan(&rows, &job->plan, error) < 0)
        return -1;
    return *job->token ? 0 : qfc_token_make(&job->row, job->token, error);
}

static void on_read(void *userdata, const struct qfc_error *error, const struct qfc_pg_results *results)
{
    struct job *job = userdata;
    struct qfc_error failure = QFC_NO_ERROR;
    if (error)
        job_ended(job, error);
    else if (keep_results(results, &job->rows, &job->row_count, &failure) < 0 || plan(job, &failure) < 0)
        job_ended(job, &failure);
    else if (job->adopted)
        job_moved(job, EVENT_ADOPTED, NULL);
    else
        job_ended(job, NULL);
}

#define READS_MAX 8

/* What the job type asks for besides, or null. */
static const char *const *more_reads(const struct job *job)
{
    return job->processor ? job->processor->reads : NULL;
}

int start_read(struct job *job, struct qfc_error *error)
{
    const char *reads[READS_MAX] = {qfc_project_sql, qfc_limits_sql, qfc_secrets_sql};
    size_t count = ROWS_PROCESSOR - ROWS_PROJECT;
    for (const char *const *more = more_reads(job); more && *more; more++) {
        if (count >= READS_MAX)
            return qfc_fail(error, QFC_ERROR_BUG, 0, "job type %s reads too much", job->row.type);
        reads[count++] = *more;
    }
    return qfc_queue_read(job->worker->queue, &job->row, job->container, reads, count, !more_reads(job), on_read, job,
                          error);
}

static void on_created(void *userdata, const struct qfc_error *error, const struct qfc_engine_reply *reply)
{
    struct job *job = userdata;
    struct qfc_error again = error ? *error : QFC_NO_ERROR;
    if (!error)
        memcpy(job->container, reply->id, sizeof job->container);
    else if (shared_directory_refused(job, error))
        again.kind = QFC_ERROR_AGAIN;
    job_ended(job, error ? &again : NULL);
}

static int create(struct job *job, struct qfc_error *error)
{
    job->looked_for = NEED_COUNT;
    job->create_sent = true;
    return qfc_engine_create(job->worker->engine, job->name, job->body.data, job->body.size, on_created, job, NULL,
                             error);
}

int start_create(struct job *job, struct qfc_error *error)
{
    if (job->body.size == 0 && describe_container(job, error) < 0)
        return -1;
    return with_volumes(job, create, error);
}

/* For engine calls whose reply holds nothing that is needed. */
static void on_engine_done(void *userdata, const struct qfc_error *error, const struct qfc_engine_reply *reply)
{
    job_ended(userdata, error);
}

int start_put(struct job *job, struct qfc_error *error)
{
    qfc_buffer_wipe(&job->body);
    if (job->plan.file_count == 0 || *job->shared)
        return 1;
    job->tar.maximum = TAR_MAX_BYTES;
    if (job->tar.size == 0 && qfc_tar_write(job->plan.files, job->plan.file_count, &job->tar, error) < 0)
        return -1;
    return qfc_engine_put_archive(job->worker->engine, job->container, IO_DIRECTORY, job->tar.data, job->tar.size,
                                  on_engine_done, job, NULL, error);
}

static void on_prepared(void *userdata, const struct qfc_error *error, const struct qfc_pg_results *results)
{
    struct job *job = userdata;
    job->prepared_at_ms = uv_now(&job->worker->loop);
    job_ended(job, error);
}

int start_prepare(struct job *job, struct qfc_error *error)
{
    qfc_buffer_free(&job->tar);
    const struct qfc_job_rows rows = job_rows(job);
    struct qfc_statements writes = {0};
    if (qfc_token_insert(&writes, &job->row, job->token, job->timeout_s + TOKEN_SPARE_S, error) < 0 ||
        (job->processor->before && job->processor->before(&rows, &writes, error) < 0)) {
        qfc_statements_free(&writes);
        return -1;
    }
    return qfc_queue_prepare(job->worker->queue, &job->row, job->container, job->worker->engine_id, &writes,
                             on_prepared, job, error);
}

static void on_exited(void *userdata, const struct qfc_error *error, const struct qfc_engine_reply *reply)
{
    struct job *job = userdata;
    job->wait = NULL;
    job->wait_broken = error != NULL;
    job->exited_at_ms = uv_now(&job->worker->loop);
    job_ended(job, error);
}

static void on_started(void *userdata, const struct qfc_error *error, const struct qfc_engine_reply *reply)
{
    struct job *job = userdata;
    if (error) {
        job->wait = NULL;
        job->wait_broken = error->kind == QFC_ERROR_UNKNOWN; /* it may run, and nobody waits for it */
    } else {
        qfc_log(QFC_LOG_INFO, &job->about, "started container %.12s%s%s", job->container,
                job->image ? " of image " : "", job->image ? job->image : "");
        monitor_started(job);
        engine_fit(job->worker);
    }
    job_ended(job, error);
}

int start_start(struct job *job, struct qfc_error *error)
{
    return qfc_engine_run(job->worker->engine, job->container, on_started, on_exited, job, &job->wait, error);
}

static void on_deadline(uv_timer_t *timer)
{
    struct job *job = timer->data;
    if (!job->killed) {
        qfc_log(QFC_LOG_WARNING, &job->about, "killing container %.12s: its %u seconds are over", job->container,
                job->timeout_s);
        job->killed = KILLED_AT_DEADLINE;
    }
    job_happened(job, EVENT_DEADLINE, NULL);
}

/* A killed container that still runs is killed again. */
#define KILL_AGAIN_MS 5000

int start_wait(struct job *job, struct qfc_error *error)
{
    uint64_t now = uv_now(&job->worker->loop);
    job->wait_began_ms = now;
    observe_begin(job);
    uint64_t deadline = job->prepared_at_ms + (uint64_t)job->timeout_s * 1000;
    if (job->killed)
        deadline = now + KILL_AGAIN_MS;
    int64_t left_ms = (int64_t)(deadline - now);
    uv_timer_start(&job->timer, on_deadline, left_ms > 0 ? (uint64_t)left_ms : 0, 0);
    if (job->wait)
        return 0;
    return qfc_engine_wait(job->worker->engine, job->container, on_exited, job, &job->wait, error);
}

int start_kill(struct job *job, struct qfc_error *error)
{
    if (!job->killed) {
        qfc_log(QFC_LOG_INFO, &job->about, "killing container %.12s: the job was cancelled", job->container);
        job->killed = KILLED_AS_CANCELLED;
    }
    return qfc_engine_kill(job->worker->engine, job->container, on_engine_done, job, NULL, error);
}

void cancel_wait(struct job *job)
{
    if (job->wait)
        qfc_engine_cancel(job->wait);
    job->wait = NULL;
}
