/*
 * Containers that nobody needs: ours whose job is gone or over and whose worker has died, and those of QFieldCloud's own
 * worker, which leaves some behind. What another stack on the same engine has is left alone.
 *
 * A container must be seen unwanted again and again for a while before it goes.
 */
#include "worker_private.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SWEEP_MS       30000
#define FIRST_SWEEP_MS 3000

/* How long they must have been unwanted: ours, and those of QFieldCloud's own worker. */
#define OURS_MS   45000
#define OTHERS_MS 300000

static const char *label(const json_t *container, const char *name)
{
    const char *text = json_string_value(json_object_get(json_object_get(container, "Labels"), name));
    return text ? text : "";
}

static bool is_uuid(const char *text)
{
    static const char form[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
    size_t i = 0;
    while (form[i] && (form[i] == '-' ? text[i] == '-' : strspn(text + i, "0123456789abcdef") > 0))
        i++;
    return !form[i] && !text[i];
}

/* QFieldCloud's own has no label of its stack, but is on its network. */
static bool is_on_our_network(const struct qfc_worker *worker, const json_t *container)
{
    const json_t *networks = json_object_get(json_object_get(container, "NetworkSettings"), "Networks");
    return *worker->settings->network && json_object_get(networks, worker->settings->network);
}

static bool is_of_our_stack(const struct qfc_worker *worker, const json_t *container)
{
    if (*label(container, "qfc_worker"))
        return strcmp(label(container, "qfc_stack"), worker->stack) == 0;
    return is_on_our_network(worker, container);
}

static bool is_in_use(const struct qfc_worker *worker, const char *id)
{
    for (const struct job *job = worker->jobs; job; job = job->next)
        if (strcmp(job->container, id) == 0)
            return true;
    return false;
}

/* What the database is asked about. */
struct suspects {
    const char **jobs, **containers, **workers;
    size_t count;
};

static void add_suspect(struct qfc_worker *worker, const json_t *container, struct suspects *suspects)
{
    const char *id = json_string_value(json_object_get(container, "Id")), *job = label(container, "job_id");
    if (!id || strlen(id) >= QFC_CONTAINER_ID_SIZE || !is_uuid(job) || !is_of_our_stack(worker, container) ||
        is_in_use(worker, id))
        return;
    const char *maker = label(container, "qfc_worker");
    suspects->jobs[suspects->count] = job;
    suspects->containers[suspects->count] = id;
    /* Of this process's own, all that are in use are known. */
    suspects->workers[suspects->count] = strcmp(maker, qfc_queue_marker(worker->queue)) == 0 ? "this" : maker;
    suspects->count++;
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
static void ask(struct qfc_worker *worker, const struct suspects *suspects)
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
    json_t *list = json_loadb(qfc_buffer_text(reply->data), reply->data->size, 0, NULL);
    if (json_is_array(list))
        shared_directory_sweep(worker, list);
    size_t size = json_array_size(list);
    const char **texts = calloc(3 * size + 1, sizeof *texts);
    struct suspects suspects = {.jobs = texts, .containers = texts + size, .workers = texts + 2 * size};
    for (size_t i = 0; texts && i < size; i++)
        add_suspect(worker, json_array_get(list, i), &suspects);
    if (suspects.count > 0)
        ask(worker, &suspects);
    else
        sightings_end_round(&worker->unwanted);
    free(texts);
    json_decref(list);
}

static void on_sweep(uv_timer_t *timer)
{
    struct qfc_worker *worker = timer->data;
    char app[160];
    if (!worker->engine_ready || !qfc_queue_ready(worker->queue) || worker->stopping)
        return;
    snprintf(app, sizeof app, "app=%s_worker", worker->settings->environment);
    qfc_engine_list(worker->engine, app, on_list, worker, NULL, NULL);
}

void sweep_begin(struct qfc_worker *worker)
{
    uv_timer_start(&worker->sweep, on_sweep, FIRST_SWEEP_MS + qfc_random(FIRST_SWEEP_MS), patience_ms(SWEEP_MS));
}
