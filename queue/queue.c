/*
 * The queue's life: its connection, what is said on each new one, and the marker that names this process.
 */
#include "queue_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define CONNECT_MS   10000
#define RETRY_MIN_MS 250
#define RETRY_MAX_MS 15000

/* No statement of ours runs long; one that does is hung. */
#define STATEMENT_TIMEOUT "60s"
#define ANSWER_MS         90000

static void on_state(void *userdata, enum qfc_pg_state state, const struct qfc_error *why, unsigned retry_ms)
{
    struct qfc_queue *queue = userdata;
    queue->options.on_state(queue->options.userdata, state == QFC_PG_READY, why, retry_ms);
}

static void on_notice(void *userdata, const char *severity, const char *message)
{
    struct qfc_queue *queue = userdata;
    if (queue->options.on_notice)
        queue->options.on_notice(queue->options.userdata, severity, message);
}

static int on_setup(void *userdata, const struct qfc_pg_results *results, struct qfc_error *error)
{
    return release_recognise(userdata, results->items[results->count - 1], error);
}

/* The session must not depend on what the role or the database has set. The probe comes last: see on_setup. */
static int make_setup(const struct qfc_queue *queue, struct qfc_statements *setup, struct qfc_error *error)
{
    char lock_timeout[32];
    snprintf(lock_timeout, sizeof lock_timeout, "%ums", queue->options.lock_timeout_ms);
    if (QFC_ADD(setup, error,
                "SELECT set_config('lock_timeout', $1, false), set_config('statement_timeout', $2, false),"
                " set_config('default_transaction_isolation', 'read committed', false),"
                " set_config('timezone', 'UTC', false), set_config('qfc_worker.time_zone', coalesce($3, 'UTC'), false),"
                " set_config('qfc_worker.legacy_storage', coalesce($4, ''), false)",
                lock_timeout, STATEMENT_TIMEOUT, queue->options.time_zone, queue->options.legacy_storage) < 0)
        return -1;
    return release_probe(setup, error);
}

static int make_marker(struct qfc_queue *queue, struct qfc_error *error)
{
    unsigned char random[8];
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
        return qfc_fail(error, QFC_ERROR_BUG, 0, "the kernel gave no random bytes");
    char instance[2 * sizeof random + 1];
    for (size_t i = 0; i < sizeof random; i++)
        snprintf(instance + 2 * i, 3, "%02x", random[i]);
    const char *host = queue->options.host ? queue->options.host : "";
    snprintf(queue->marker, sizeof queue->marker, "qfc-worker:%s:%.36s", instance, host);
    return 0;
}

static int open_connection(uv_loop_t *loop, struct qfc_queue *queue, struct qfc_error *error)
{
    struct qfc_statements setup = {0};
    if (make_setup(queue, &setup, error) < 0) {
        qfc_statements_free(&setup);
        return -1;
    }
    struct qfc_pg_options options = {
        .conninfo = queue->options.conninfo,
        .application_name = queue->marker,
        .connect_ms = CONNECT_MS,
        .answer_ms = ANSWER_MS,
        .retry_min_ms = RETRY_MIN_MS,
        .retry_max_ms = RETRY_MAX_MS,
        .setup = &setup,
        .on_setup = on_setup,
        .on_state = on_state,
        .on_notice = on_notice,
        .userdata = queue,
    };
    queue->pg = qfc_pg_new(loop, &options, error);
    qfc_statements_free(&setup);
    return queue->pg ? 0 : -1;
}

struct qfc_queue *qfc_queue_new(uv_loop_t *loop, const struct qfc_queue_options *options, struct qfc_error *error)
{
    struct qfc_queue *queue = calloc(1, sizeof *queue);
    if (!queue) {
        qfc_fail_memory(error);
        return NULL;
    }
    queue->options = *options;
    bool open = make_marker(queue, error) == 0 && open_connection(loop, queue, error) == 0;
    queue->options.conninfo = queue->options.host = NULL; /* they were copied */
    queue->options.time_zone = queue->options.legacy_storage = NULL;
    if (open)
        return queue;
    qfc_queue_free(queue);
    return NULL;
}

void qfc_queue_free(struct qfc_queue *queue)
{
    if (!queue)
        return;
    if (queue->pg)
        qfc_pg_free(queue->pg);
    while (queue->calls)
        end_call(queue->calls);
    free(queue);
}

bool qfc_queue_ready(const struct qfc_queue *queue)
{
    return qfc_pg_state(queue->pg) == QFC_PG_READY;
}

const char *qfc_queue_release(const struct qfc_queue *queue)
{
    return queue->release;
}

const struct qfc_name *qfc_queue_names(const struct qfc_queue *queue)
{
    return queue->names[0].name ? queue->names : NULL;
}

const char *qfc_queue_marker(const struct qfc_queue *queue)
{
    return queue->marker;
}
