/*
 * Containers that nobody needs: ours whose job is gone or over and whose worker has died, and those of QFieldCloud's own
 * worker, which leaves some behind. And volumes that were made for our containers and have none, after the engine has
 * died on the way. What another stack on the same engine has is left alone.
 *
 * A thing must be seen unwanted again and again for a while before it goes.
 */
#include "worker_private.h"

#include "qfc/suspects.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SWEEP_MS       30000
#define FIRST_SWEEP_MS 3000

/* How long they must have been unwanted: ours, and those of QFieldCloud's own worker. */
#define OURS_MS   45000
#define OTHERS_MS 300000

static bool is_in_use(const struct qfc_worker *worker, const char *id)
{
    for (const struct job *job = worker->jobs; job; job = job->next)
        if (strcmp(job->container, id) == 0)
            return true;
    return false;
}

/* Leaves out what is in use by this process, which knows all that is; the others of its own have no worker. */
static void leave_out(const struct qfc_worker *worker, struct qfc_suspects *suspects)
{
    size_t count = 0;
    for (size_t i = 0; i < suspects->count; i++) {
        if (is_in_use(worker, suspects->containers[i]))
            continue;
        const char *maker = suspects->workers[i];
        suspects->jobs[count] = suspects->jobs[i];
        suspects->containers[count] = suspects->containers[i];
        suspects->workers[count++] = strcmp(maker, qfc_queue_marker(worker->queue)) == 0 ? "this" : maker;
    }
    suspects->count = count;
}

static void on_removed(void *userdata, const struct qfc_error *error, const struct qfc_engine_reply *reply)
{
    if (error)
        qfc_log(QFC_LOG_WARNING, NULL, "remove a container that no job needs: %s", error->message);
}

static void consider(struct qfc_worker *worker, const char *container, bool ours)
{
    uint64_t unwanted_ms = sighted_for_ms(&worker->unwanted, container, uv_now(&worker->loop));
    if (unwanted_ms < patience_ms(ours ? OURS_MS : OTHERS_MS) || is_in_use(worker, container))
        return;
    qfc_log(QFC_LOG_WARNING, NULL, "removing container %.12s%s: its job is gone or over", container,
            ours ? "" : ", which a worker of QFieldCloud's own has left");
    qfc_engine_remove(worker->engine, container, on_removed, worker, NULL, NULL);
}

static void on_found(void *userdata, const struct qfc_error *error, const struct qfc_pg_results *results)
{
    struct qfc_worker *worker = userdata;
    if (error && is_news(worker->sweep_trouble, error->message))
        qfc_log(QFC_LOG_WARNING, NULL, "look for containers that no job needs: %s; this is said once", error->message);
    if (error)
        return;
    worker->sweep_trouble[0] = '\0';
    const PGresult *rows = results->items[0];
    for (int row = 0; row < PQntuples(rows); row++)
        consider(worker, qfc_pg_text(rows, row, "container"), strcmp(qfc_pg_text(rows, row, "ours"), "t") == 0);
    sightings_end_round(&worker->unwanted);
}

/* Texts of labels cannot break out of an array: qfc_array_text quotes them. */
static void ask(struct qfc_worker *worker, const struct qfc_suspects *suspects)
{
    char *jobs = qfc_array_text(suspects->jobs, suspects->count);
    char *containers = qfc_array_text(suspects->containers, suspects->count);
    char *workers = qfc_array_text(suspects->workers, suspects->count);
    if (jobs && containers && workers)
        qfc_queue_find_unwanted(worker->queue, jobs, containers, workers, on_found, worker, NULL);
    free(jobs);
    free(containers);
    free(workers);
}

static void on_list(void *userdata, const struct qfc_error *error, const struct qfc_engine_reply *reply)
{
    struct qfc_worker *worker = userdata;
    bool refused = error && (error->kind == QFC_ERROR_REFUSED || error->kind == QFC_ERROR_INVALID);
    if (refused && is_news(worker->sweep_trouble, error->message))
        qfc_log(QFC_LOG_WARNING, NULL, "%s; containers that no job needs stay; this is said once", error->message);
    if (error || !qfc_queue_ready(worker->queue))
        return;
    struct qfc_suspects suspects;
    if (qfc_suspects_read(qfc_buffer_text(reply->data), reply->data->size, worker->settings->network, worker->stack,
                          &suspects) < 0)
        return;
    if (json_is_array((const json_t *)suspects.list))
        shared_directory_sweep(worker, suspects.list);
    leave_out(worker, &suspects);
    if (suspects.count > 0)
        ask(worker, &suspects);
    else
        sightings_end_round(&worker->unwanted);
    qfc_suspects_free(&suspects);
}

static void on_volume_removed(void *userdata, const struct qfc_error *error, const struct qfc_engine_reply *reply)
{
    if (error)
        qfc_log(QFC_LOG_WARNING, NULL, "remove a volume that no container has: %s", error->message);
}

static void consider_volume(struct qfc_worker *worker, const char *volume)
{
    if (sighted_for_ms(&worker->unused, volume, uv_now(&worker->loop)) < patience_ms(OURS_MS))
        return;
    qfc_log(QFC_LOG_WARNING, NULL, "removing volume %.12s: it was made for a job, and no container has it", volume);
    qfc_engine_remove_volume(worker->engine, volume, on_volume_removed, worker, NULL, NULL);
}

static void on_volumes(void *userdata, const struct qfc_error *error, const struct qfc_engine_reply *reply)
{
    struct qfc_worker *worker = userdata;
    if (error) /* also of a proxy that forbids the question: they stay, and harm nobody but the disk */
        return;
    json_t *names = json_loadb(qfc_buffer_text(reply->data), reply->data->size, 0, NULL);
    for (size_t i = 0; i < json_array_size(names); i++)
        consider_volume(worker, json_string_value(json_array_get(names, i)));
    json_decref(names);
    sightings_end_round(&worker->unused);
}

static void on_sweep(uv_timer_t *timer)
{
    struct qfc_worker *worker = timer->data;
    char app[160], stack[sizeof worker->stack + 16];
    if (!worker->engine_ready || !qfc_queue_ready(worker->queue) || worker->stopping)
        return;
    snprintf(app, sizeof app, "app=%s_worker", worker->settings->environment);
    snprintf(stack, sizeof stack, "qfc_stack=%s", worker->stack);
    qfc_engine_list(worker->engine, app, on_list, worker, NULL, NULL);
    qfc_engine_unused_volumes(worker->engine, stack, on_volumes, worker, NULL, NULL);
}

void sweep_begin(struct qfc_worker *worker)
{
    uv_timer_start(&worker->sweep, on_sweep, FIRST_SWEEP_MS + qfc_random(FIRST_SWEEP_MS), patience_ms(SWEEP_MS));
}
