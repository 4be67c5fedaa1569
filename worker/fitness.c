/*
 * Does the engine run containers at all? One that answers may have a full disk, or a runtime that is broken. That is no
 * job's fault, and the next job would fare no better: so jobs wait, and one of them is tried now and then.
 *
 * A full disk is known by its name, and nothing counts then. Of anything else the jobs may be the cause after all: when
 * the containers of several of them in a row, with none between that ran, came to nothing, it is the engine; but
 * attempts count on, so that jobs that can never run do not hold up the queue for ever.
 */
#include "worker_private.h"

#include <stdio.h>
#include <string.h>

/* So many jobs in a row make it the engine's fault. */
#define JOBS_IN_A_ROW 3

/* Until one job is tried; doubles each time that it is in vain. */
#define TRIAL_MIN_MS 5000
#define TRIAL_MAX_MS 60000

/* What a job brings along is never so large that less space than that would be its fault. */
#define SMALL_TAR_BYTES (1024 * 1024)

static bool is_full(const struct job *job, const struct qfc_error *error)
{
    bool large = job->step == STEP_PUT && job->tar.size > SMALL_TAR_BYTES;
    return !large && strcasestr(error->message, "no space left on device");
}

static void on_trial(uv_timer_t *timer)
{
    struct qfc_worker *worker = timer->data;
    worker->fitness.trial = true;
    schedule(worker);
}

static void close_gate(struct qfc_worker *worker, const struct qfc_error *error)
{
    struct fitness *fitness = &worker->fitness;
    if (fitness->closed && !fitness->trial) /* a job that was under way then */
        return;
    uint64_t delay = (uint64_t)TRIAL_MIN_MS << (fitness->trials < 4 ? fitness->trials : 4);
    if (!fitness->closed)
        qfc_log(
            QFC_LOG_ERROR, NULL,
            "the engine runs no containers: no job is claimed until it does, but for one now and then that is tried; "
            "%s",
            error->message);
    fitness->closed = true;
    fitness->trial = false;
    fitness->trials++;
    uv_timer_start(&worker->trial, on_trial, patience_ms(delay < TRIAL_MAX_MS ? delay : TRIAL_MAX_MS), 0);
}

bool engine_unfit(struct job *job, const struct qfc_error *error)
{
    struct fitness *fitness = &job->worker->fitness;
    if (!error || job->step < STEP_CREATE || job->step > STEP_START)
        return false;
    if (strcmp(fitness->job, job->row.id) != 0)
        fitness->jobs++;
    snprintf(fitness->job, sizeof fitness->job, "%s", job->row.id);
    bool full = is_full(job, error);
    if (full || fitness->closed || fitness->jobs >= JOBS_IN_A_ROW)
        close_gate(job->worker, error);
    return full;
}

void engine_fit(struct qfc_worker *worker)
{
    bool closed = worker->fitness.closed;
    worker->fitness = (struct fitness){0};
    if (!closed)
        return;
    qfc_log(QFC_LOG_INFO, NULL, "the engine runs containers again");
    uv_timer_stop(&worker->trial);
    schedule(worker);
}

unsigned fit_slots(const struct qfc_worker *worker, unsigned slots)
{
    if (!worker->fitness.closed || slots == 0)
        return slots;
    for (const struct job *job = worker->jobs; job; job = job->next)
        if (job->step <= STEP_START) /* it tells soon how things are */
            return 0;
    return worker->fitness.trial ? 1 : 0;
}
