/*
 * What must be there before a job is claimed: the engine and the database (what else jobs need, see needs.c). Each
 * trouble is said once, when it begins or changes, and once when it is over.
 */
#include "worker_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PROBE_MIN_MS 250
#define PROBE_MAX_MS 15000

/* When a worker looks for the first time for jobs without an owner, and up to so much later. */
#define FIRST_RECOVERY_MS 100
#define SPREAD_MS         500

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
    uv_timer_start(&worker->probe, on_probe_timer, delay / 2 + qfc_random((uint32_t)delay / 2 + 1), 0);
}

void engine_missed(struct qfc_worker *worker)
{
    worker->engine_missed_ms = uv_now(&worker->loop);
}

static void engine_trouble(struct qfc_worker *worker, const struct qfc_error *why)
{
    worker->counters.engine_absences += worker->engine_ready || !worker->engine_trouble[0];
    worker->engine_ready = false;
    engine_missed(worker);
    if (say_trouble(worker, worker->engine_trouble, worker->engine_was_ready, why))
        probe_later(worker);
}

/* All that must be known of the engine is. */
static void engine_is_ready(struct qfc_worker *worker)
{
    worker->probing = false;
    if (!worker->engine_was_ready || worker->engine_trouble[0])
        qfc_log(QFC_LOG_INFO, NULL, "the engine at %s answers%s, API version %s", qfc_engine_host(worker->engine),
                worker->engine_was_ready ? " again" : "", worker->engine_version);
    worker->engine_ready = worker->engine_was_ready = true;
    worker->probe_failures = 0;
    worker->engine_trouble[0] = '\0';
    needs_look(worker);
    schedule(worker);
}

/*
 * Which engine is it? Docker tells its own ID. Podman tells another one each time, and a proxy may forbid the question:
 * then the id of the jobs' network will do, which is the engine's own, too. Without that, the engine is taken for the
 * only one.
 */
static void on_network_id(void *userdata, const struct qfc_error *error, const struct qfc_engine_reply *reply)
{
    struct qfc_worker *worker = userdata;
    if (!error)
        snprintf(worker->engine_id, sizeof worker->engine_id, "network %s", qfc_buffer_text(reply->data));
    engine_is_ready(worker);
}

static void identify_by_network(struct qfc_worker *worker)
{
    const char *network = worker->settings->network;
    if (!*network || qfc_engine_network(worker->engine, network, on_network_id, worker, NULL, NULL) < 0)
        engine_is_ready(worker);
}

static void on_identified(void *userdata, const struct qfc_error *error, const struct qfc_engine_reply *reply)
{
    struct qfc_worker *worker = userdata;
    const char *id = error ? "" : qfc_buffer_text(reply->data);
    if (error && error->kind != QFC_ERROR_REFUSED && error->kind != QFC_ERROR_INVALID) {
        worker->probing = false;
        engine_trouble(worker, error);
    } else if (!*id) {
        identify_by_network(worker);
    } else if (strcmp(id, worker->engine_id) == 0) {
        engine_is_ready(worker);
    } else if (++worker->identities < 3 &&
               qfc_engine_identity(worker->engine, on_identified, worker, NULL, NULL) == 0) {
        snprintf(worker->engine_id, sizeof worker->engine_id, "%s", id); /* is it the same the next time? */
    } else {
        worker->engine_id[0] = '\0';
        identify_by_network(worker);
    }
}

static void on_probed(void *userdata, const struct qfc_error *error, const struct qfc_engine_reply *reply)
{
    struct qfc_worker *worker = userdata;
    struct qfc_error failure = QFC_NO_ERROR;
    if (!error) {
        snprintf(worker->engine_version, sizeof worker->engine_version, "%s", qfc_buffer_text(reply->data));
        worker->identities = 0;
        if (qfc_engine_identity(worker->engine, on_identified, worker, NULL, &failure) == 0)
            return;
    }
    worker->probing = false;
    engine_trouble(worker, error ? error : &failure);
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
    engine_missed(worker);
    if (news)
        engine_probe(worker);
}

/* From v26.20 on a project's image depends on its QGIS version. */
static bool images_by_qgis(const struct qfc_worker *worker)
{
    for (const struct qfc_name *name = qfc_queue_names(worker->queue); name && name->name; name++)
        if (strcmp(name->name, "has_qgis_version") == 0)
            return strcmp(name->text, "true") == 0;
    return false;
}

void database_state(void *userdata, bool ready, const struct qfc_error *why, unsigned retry_ms)
{
    struct qfc_worker *worker = userdata;
    if (!ready) {
        worker->counters.database_errors++;
        say_trouble(worker, worker->database_trouble, worker->database_was_ready, why);
        return;
    }
    worker->counters.database_connects++;
    qfc_log(QFC_LOG_INFO, NULL, "connected to the database%s: QFieldCloud %s",
            worker->database_was_ready ? " again" : "", qfc_queue_release(worker->queue));
    snprintf(worker->stack, sizeof worker->stack, "%s/%s/%s", worker->settings->compose_project_name,
             worker->settings->environment, qfc_queue_identity(worker->queue));
    if (worker->database_was_ready)
        recovery_after_absence(worker);
    else
        recovery_begin(worker, FIRST_RECOVERY_MS + qfc_random(SPREAD_MS));
    worker->database_was_ready = true;
    worker->database_trouble[0] = '\0';
    scheduler_watch_now(worker);
    worker->images_by_qgis = images_by_qgis(worker);
    needs_look(worker);
    schedule(worker);
}
