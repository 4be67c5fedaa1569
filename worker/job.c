/*
 * A job in memory: what it begins with, and what goes with it. Its life is lifecycle.c's.
 */
#include "worker_private.h"

#include <stdlib.h>
#include <string.h>

struct qfc_log_about about_of(const struct qfc_job *row)
{
    return (struct qfc_log_about){
        .type = row->type,
        .owner = row->owner,
        .project_name = row->project_name,
        .job = row->id,
        .project = row->project_id,
    };
}

struct job *job_new(struct qfc_worker *worker, const struct qfc_job *row, struct qfc_error *error)
{
    struct job *job = calloc(1, sizeof *job);
    if (!job) {
        qfc_fail_memory(error);
        return NULL;
    }
    job->worker = worker;
    job->row = *row;
    job->about = about_of(&job->row);
    job->processor = qfc_processor_of(job->row.type);
    job->stopping = worker->stopping;
    job->began_at_ms = uv_now(&worker->loop);
    uv_timer_init(&worker->loop, &job->timer);
    job->timer.data = job;
    job->next = worker->jobs;
    worker->jobs = job;
    worker->job_count++;
    return job;
}

static void free_job(uv_handle_t *timer)
{
    struct job *job = timer->data;
    forget_results(&job->rows, &job->row_count);
    forget_results(&job->reviews, &job->review_count);
    forget_objects(job);
    free(job->found);
    qfc_buffer_free(&job->thumbnail);
    qfc_buffer_wipe(&job->body);
    qfc_buffer_free(&job->tar);
    qfc_excerpt_free(&job->log);
    qfc_feedback_free(&job->feedback);
    qfc_outcome_free(&job->outcome);
    qfc_buffer_free(&job->output);
    explicit_bzero(job->token, sizeof job->token);
    free(job);
}

void job_drop(struct job *job)
{
    struct qfc_worker *worker = job->worker;
    for (struct job **at = &worker->jobs; *at; at = &(*at)->next) {
        if (*at == job) {
            *at = job->next;
            break;
        }
    }
    worker->job_count--;
    cancel_wait(job);
    observe_end(job);
    if (worker->queue && !job->released)
        qfc_queue_disown(worker->queue, job->row.id);
    uv_close((uv_handle_t *)&job->timer, free_job);
}
