/*
 * What must be there before a job is claimed: the engine and the database. Each trouble is said once, when it begins or
 * changes, and once when it is over.
 */
#include "worker_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PROBE_MIN_MS 250
#define PROBE_MAX_MS 15000

bool is_news(char said[QFC_ERROR_MESSAGE_SIZE], const char *message)
{
    if (strcmp(said, message) == 0)
        return false;
    snprintf(said, QFC_ERROR_MESSAGE_SIZE, "%s", message);
    return true;
}

/* --single-shot and --drain are for shells and scripts: they end at once when they cannot begin. */
static bool cannot_begin(const struct qfc_worker *worker, bool was_ready)
{
    return worker->mode != QFC_WORKER_RUN && !was_ready;
}

/* Says what is wrong, once; returns whether it is worth another try. */
static bool say_trouble(struct qfc_worker *worker, char said[QFC_ERROR_MESSAGE_SIZE], bool was_ready,
                        const struct qfc_error *why)
{
    bool again = !cannot_begin(worker, was_ready);
    if (is_news(said, why->message))
        qfc_log(QFC_LOG_ERROR, NULL, "%s%s", why->message,
                again ? "; no job is claimed until this is over, which is tried again and again" : "");
    if (!again)
        stop_now(worker, QFC_EXIT_UNREACHABLE);
    return again;
}

static void on_probe_timer(uv_timer_t *timer)
{
    engine_probe(timer->data);
}

static void probe_later(struct qfc_worker *worker)
{
    unsigned shift = worker->probe_failures < 6 ? worker->probe_failures : 6;
    uint64_t delay = (uint64_t)PROBE_MIN_MS << shift;
    if (delay > PROBE_MAX_MS)
        delay = PROBE_MAX_MS;
    worker->probe_failures++;
    uv_timer_start(&worker->probe, on_probe_timer, delay / 2 + (uint64_t)random() % (delay / 2 + 1), 0);
}

static void engine_trouble(struct qfc_worker *worker, const struct qfc_error *why)
{
    worker->engine_ready = false;
    if (say_trouble(worker, worker->engine_trouble, worker->engine_was_ready, why))
        probe_later(worker);
}

static void on_probed(void *userdata, const struct qfc_error *error, const struct qfc_engine_reply *reply)
{
    struct qfc_worker *worker = userdata;
    worker->probing = false;
    if (error) {
        engine_trouble(worker, error);
        return;
    }
    if (!worker->engine_was_ready || worker->engine_trouble[0])
        qfc_log(QFC_LOG_INFO, NULL, "the engine at %s answers%s, API version %s", qfc_engine_host(worker->engine),
                worker->engine_was_ready ? " again" : "", qfc_buffer_text(reply->data));
    worker->engine_ready = worker->engine_was_ready = true;
    worker->probe_failures = 0;
    worker->engine_trouble[0] = '\0';
    schedule(worker);
}

void engine_probe(struct qfc_worker *worker)
{
    struct qfc_error error = QFC_NO_ERROR;
    if (worker->probing || worker->closing)
        return;
    uv_timer_stop(&worker->probe);
    worker->probing = qfc_engine_probe(worker->engine, on_probed, worker, NULL, &error) == 0;
    if (!worker->probing)
        engine_trouble(worker, &error);
}

void engine_lost(struct qfc_worker *worker)
{
    bool news = worker->engine_ready;
    worker->engine_ready = false;
    if (news)
        engine_probe(worker);
}

void database_state(void *userdata, bool ready, const struct qfc_error *why, unsigned retry_ms)
{
    struct qfc_worker *worker = userdata;
    if (!ready) {
        say_trouble(worker, worker->database_trouble, worker->database_was_ready, why);
        return;
    }
    qfc_log(QFC_LOG_INFO, NULL, "connected to the database%s: QFieldCloud %s",
            worker->database_was_ready ? " again" : "", qfc_queue_release(worker->queue));
    worker->database_was_ready = true;
    worker->database_trouble[0] = '\0';
    schedule(worker);
}
