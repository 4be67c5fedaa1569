/*
 * Jobs that have lost their owner: found every few seconds, and taken over by entering the same lifecycle.
 *
 * What is seen without an owner may have one that is just coming back; so it must be seen twice. What nobody's marker is
 * on may be QFieldCloud's own worker's, between two of its statements: that is left alone for a minute.
 */
#include "worker_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RECOVER_MS 5000

/* Between the two times that it must be seen, and when the first comes after the start. */
#define AGAIN_MS 800

#define NOBODYS_MS 60000

/* A worker that was away from the database waits so long before it takes over what others had: they were away, too. */
#define COMEBACK_MS 15000

static void on_adopted(void *userdata, const struct qfc_error *error, const struct qfc_adoption *adoption)
{
    struct qfc_worker *worker = userdata;
    struct qfc_error failure = QFC_NO_ERROR;
    if (error) {
        qfc_log(QFC_LOG_WARNING, NULL, "take over jobs whose worker is gone: %s", error->message);
    } else if (job_adopt(worker, adoption, &failure) < 0) {
        const struct qfc_log_about about = about_of(&adoption->job);
        qfc_log(QFC_LOG_ERROR, &about, "take over the job: %s", failure.message);
        qfc_queue_disown(worker->queue, adoption->job.id);
    }
}

static void on_returned(void *userdata, const struct qfc_error *error, const struct qfc_pg_results *results)
{
    if (error || PQntuples(results->items[0]) == 0)
        return;
    const struct qfc_log_about about = {.job = qfc_pg_text(results->items[0], 0, "id")};
    qfc_log(QFC_LOG_WARNING, &about,
            "put back: it was queued for a minute without any worker's mark, which blocks its project (made so by hand "
            "or by an import, or left by a worker of QFieldCloud's own)");
}

#ifdef QFC_TEST_STOPS
/* For tests: QFC_TEST_HURRY=10 makes every wait of this kind a tenth. */
uint64_t patience_ms(uint64_t ms)
{
    const char *hurry = getenv("QFC_TEST_HURRY");
    long divisor = hurry ? atol(hurry) : 1;
    return divisor > 1 ? ms / (uint64_t)divisor : ms;
}

/* A process that is to be stopped at a step is a victim, not a rescuer. */
static bool adopts(void)
{
    return !getenv("QFC_TEST_STOP");
}
#else
uint64_t patience_ms(uint64_t ms)
{
    return ms;
}

static bool adopts(void)
{
    return true;
}
#endif

/* A row of the list, as one looks at it. */
struct found {
    const char *id, *version, *engine;
    bool nobodys, started;
    bool lost_claim; /* by this process, which never got the answer */
    unsigned age_s;
};

static struct found found_in(const struct qfc_worker *worker, const PGresult *rows, int row)
{
    const char *kind = qfc_pg_text(rows, row, "kind"), *age_s = qfc_pg_text(rows, row, "age_s");
    const char *engine = qfc_pg_text(rows, row, "engine");
    return (struct found){
        .id = qfc_pg_text(rows, row, "id"),
        .version = qfc_pg_text(rows, row, "version"),
        .engine = engine ? engine : "",
        .nobodys = strcmp(kind, "nobody") == 0,
        .started = strcmp(kind, "started") == 0,
        .lost_claim = strcmp(qfc_pg_text(rows, row, "container_id"), qfc_queue_marker(worker->queue)) == 0,
        .age_s = age_s ? (unsigned)strtoul(age_s, NULL, 10) : 0,
    };
}

/* What runs on another host's engine is left to that host, until its time is over. (As long as this worker has not read
 * how long that is, it is left to the web application's task.) */
static bool is_ours_to_take(const struct qfc_worker *worker, const struct found *found)
{
    long given_s = worker->settings->timeout_s;
    unsigned timeout_s = given_s > 0 ? (unsigned)given_s : worker->timeout_s;
    bool over = timeout_s > 0 && found->age_s >= timeout_s;
    return !found->started || over || strcmp(found->engine, worker->engine_id) == 0;
}

/* Does what is to be done about one row; returns whether it is to be looked at again soon. `ids` and `versions` get one
 * that is to be adopted. */
static bool consider(struct qfc_worker *worker, const struct found *found, const char **ids, const char **versions,
                     size_t *count)
{
    char key[96];
    if (find_job(worker, found->id) || !is_ours_to_take(worker, found))
        return false;
    if (found->lost_claim) {
        ids[*count] = found->id;
        versions[(*count)++] = found->version;
        return false;
    }
    if (uv_now(&worker->loop) < worker->recover_others_ms)
        return false;
    snprintf(key, sizeof key, "%s %s", found->id, found->version);
    uint64_t seen_ms = sighted_for_ms(&worker->unowned, key, uv_now(&worker->loop));
    if (found->nobodys) {
        if (seen_ms >= patience_ms(NOBODYS_MS))
            qfc_queue_return_nobodys(worker->queue, found->id, found->version, on_returned, worker, NULL);
        return false;
    }
    if (seen_ms < AGAIN_MS / 2)
        return true;
    ids[*count] = found->id;
    versions[(*count)++] = found->version;
    return false;
}

static void say_ended(const PGresult *rows)
{
    for (int row = 0; row < PQntuples(rows); row++)
        qfc_log(QFC_LOG_WARNING, NULL, "ended session %s of %s: it holds jobs and has been silent for 20 s",
                qfc_pg_text(rows, row, "pid"), qfc_pg_text(rows, row, "name"));
}

static void on_listed(void *userdata, const struct qfc_error *error, const struct qfc_pg_results *results)
{
    struct qfc_worker *worker = userdata;
    worker->recovering = false;
    if (error && is_news(worker->recovery_trouble, error->message))
        qfc_log(QFC_LOG_WARNING, NULL, "look for jobs whose worker is gone: %s; this is said once", error->message);
    if (error || worker->stopping)
        return;
    worker->recovery_trouble[0] = '\0';
    const PGresult *rows = results->items[results->count - 1];
    int listed = PQntuples(rows);
    const char **ids = calloc(2 * (size_t)listed + 1, sizeof *ids);
    if (!ids)
        return;
    const char **versions = ids + listed;
    size_t count = 0;
    bool again = PQntuples(results->items[0]) > 0;
    say_ended(results->items[0]);
    for (int row = 0; row < listed; row++) {
        const struct found found = found_in(worker, rows, row);
        again |= consider(worker, &found, ids, versions, &count);
    }
    sightings_end_round(&worker->unowned);
    if (count > 0 && adopts())
        qfc_queue_adopt(worker->queue, ids, versions, count, on_adopted, worker, NULL);
    if (again)
        recovery_begin(worker, AGAIN_MS);
    free(ids);
}

void recovery_list(struct qfc_worker *worker)
{
    if (!worker->recovering && !worker->stopping && !worker->closing)
        worker->recovering = qfc_queue_list_unowned(worker->queue, on_listed, worker, NULL) == 0;
}

static void on_recover(uv_timer_t *timer)
{
    struct qfc_worker *worker = timer->data;
    if (worker->mode != QFC_WORKER_SINGLE_SHOT && worker->engine_ready && qfc_queue_ready(worker->queue) &&
        (worker->unowned.count > 0 || !scheduler_look(worker)))
        recovery_list(worker);
}

void recovery_after_absence(struct qfc_worker *worker)
{
    worker->recover_others_ms = uv_now(&worker->loop) + COMEBACK_MS;
    recovery_begin(worker, AGAIN_MS);
}

void recovery_begin(struct qfc_worker *worker, uint64_t delay_ms)
{
    if (!worker->closing)
        uv_timer_start(&worker->recover, on_recover, delay_ms, RECOVER_MS);
}
