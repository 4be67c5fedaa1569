/*
 * When to claim, and looking after the rows that are ours.
 *
 * A worker with a free slot asks for jobs when it hears of one (setup-db), when one of its own has ended, and otherwise
 * again and again: soon after the last job, then less and less often. One that has nothing to do only looks, which costs
 * less than a claim. All that hear of the same job take turns, so that it is claimed once and looked at by the others.
 */
#include "worker_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* How often the rows that are ours are looked at: deletion and lost ownership are noticed so. */
#define WATCH_MS 3000

/* How often the tokens of jobs that have ended are deleted, and the workers counted. */
#define UPKEEP_MS 30000

/* The first look after a job; each further one comes after twice the time, up to QFC_WORKER_POLL_MS, or, where the
 * triggers of setup-db tell of new jobs, up to so many times that. */
#define POLL_MIN_MS 50
#define TOLD_TIMES  5

/* Between two workers' turns. */
#define TURN_MS 3

static void look(struct qfc_worker *worker, bool unowned);

/* The slots that jobs may be claimed for. */
static unsigned free_slots(const struct qfc_worker *worker)
{
    unsigned slots = worker->mode == QFC_WORKER_SINGLE_SHOT ? 1 : (unsigned)worker->settings->concurrency;
    unsigned busy = busy_jobs(worker);
    return busy < slots ? fit_slots(worker, slots - busy) : 0;
}

static bool may_ask(const struct qfc_worker *worker)
{
    return !worker->asking && !worker->stopping && !worker->closing && free_slots(worker) > 0 && worker->engine_ready &&
           needs_met(worker) && qfc_queue_ready(worker->queue);
}

static void on_poll(uv_timer_t *timer)
{
    look(timer->data, false);
}

/* Between two looks at the most. */
static uint64_t longest_pause_ms(const struct qfc_worker *worker)
{
    return (uint64_t)worker->settings->poll_ms * (worker->told ? TOLD_TIMES : 1);
}

/*
 * Many workers do not march in step: the first look comes at a random time. Later ones come exactly after poll_ms, so
 * that an idle worker sends no more than one statement in that time.
 */
static void look_again_later(struct qfc_worker *worker)
{
    if (worker->closing)
        return;
    uint64_t most = longest_pause_ms(worker), delay = worker->poll_delay_ms;
    if (worker->turn_ms > 0) {
        uv_timer_start(&worker->poll, on_poll, worker->turn_ms, 0);
        worker->turn_ms = 0;
        return;
    }
    if (delay == 0)
        delay = 1 + qfc_random((uint32_t)most);
    worker->poll_delay_ms = worker->poll_delay_ms == 0 || 2 * delay > most ? most : 2 * delay;
    uv_timer_start(&worker->poll, on_poll, delay < most ? delay : most, 0);
}

/* Something happened: look soon, and then less and less often. */
static void be_attentive(struct qfc_worker *worker)
{
    worker->poll_delay_ms = POLL_MIN_MS;
}

/* Without memory for it: it is somebody else's to find. */
static void leave_claimed(struct qfc_worker *worker, const struct qfc_job *row, const struct qfc_log_about *about,
                          const struct qfc_error *error)
{
    qfc_log(QFC_LOG_ERROR, about, "begin the job: %s", error->message);
    qfc_queue_disown(worker->queue, row->id);
}

static void say_claimed(const struct qfc_job *row, const struct qfc_log_about *about)
{
    if (row->attempt > 1)
        qfc_log(QFC_LOG_INFO, about, "claimed %s again, attempt %u", row->type, row->attempt);
    else
        qfc_log(QFC_LOG_INFO, about, "claimed %s, made %.1f s before", row->type, row->waited_s);
}

static void begin_jobs(struct qfc_worker *worker, const struct qfc_claim *claim)
{
    for (size_t i = 0; i < claim->count; i++) {
        const struct qfc_job *row = &claim->jobs[i];
        const struct qfc_log_about about = about_of(row);
        struct qfc_error error = QFC_NO_ERROR;
        say_claimed(row, &about);
        monitor_claimed(worker, row);
        if (job_begin(worker, row, &error) < 0)
            leave_claimed(worker, row, &about, &error);
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

/* The answer to a claim or a look is there. */
static void asked(struct qfc_worker *worker)
{
    bool again = worker->news;
    worker->asking = worker->news = false;
    if (again)
        schedule(worker);
    else
        look_again_later(worker);
    stop_when_idle(worker);
}

static void say_claim_trouble(struct qfc_worker *worker, const struct qfc_error *error)
{
    if (is_news(worker->claim_trouble, error->message))
        qfc_log(QFC_LOG_WARNING, NULL, "%s; this is said once, and tried again", error->message);
}

static void on_claimed(void *userdata, const struct qfc_error *error, const struct qfc_claim *claim)
{
    struct qfc_worker *worker = userdata;
    if (error) {
        worker->counters.claim_errors++;
        say_claim_trouble(worker, error);
    } else {
        worker->claim_trouble[0] = '\0';
        if (claim->count > 0)
            be_attentive(worker);
        begin_jobs(worker, claim);
        consider_end(worker, claim);
    }
    asked(worker);
}

/* The ids of all our jobs, or of those whose row is ours, in an array to be freed; null without memory. */
static const char **known_ids(const struct qfc_worker *worker, bool all, size_t *ret_count)
{
    const char **known = calloc(worker->job_count + 1, sizeof *known);
    *ret_count = 0;
    for (const struct job *job = worker->jobs; known && job; job = job->next)
        if (all || !job->released)
            known[(*ret_count)++] = job->row.id;
    return known;
}

static int claim(struct qfc_worker *worker, struct qfc_error *error)
{
    struct qfc_claim_request request = {
        .slots = free_slots(worker),
        .count_pending = worker->mode == QFC_WORKER_DRAIN,
    };
    const char *majors[2];
    request.without_qgis = majors;
    request.without_count = missing_qgis(worker, majors);
    const char **known = known_ids(worker, true, &request.known_count);
    if (!known)
        return qfc_fail_memory(error);
    request.known = known;
    worker->counters.claims++;
    int r = qfc_queue_claim(worker->queue, &request, on_claimed, worker, error);
    free(known);
    return r;
}

/* Takes the result of sending a question. */
static void ask(struct qfc_worker *worker, int sent, const struct qfc_error *error)
{
    worker->asking = sent == 0;
    if (sent == 0)
        return;
    qfc_log(QFC_LOG_ERROR, NULL, "%s", error->message);
    look_again_later(worker);
}

void schedule(struct qfc_worker *worker)
{
    struct qfc_error error = QFC_NO_ERROR;
    worker->news |= worker->asking;
    if (!may_ask(worker))
        return;
    uv_timer_stop(&worker->poll);
    ask(worker, claim(worker, &error), &error);
}

static void keep_up(struct qfc_worker *worker, const struct qfc_look *look)
{
    worker->rank = look->rank;
    worker->workers = look->workers;
    bool news = !worker->kept_up || look->told != worker->told;
    worker->kept_up = true;
    worker->told = look->told;
    if (news)
        qfc_log(QFC_LOG_INFO, NULL, "new jobs are looked for every %.1f s%s", (double)longest_pause_ms(worker) / 1000,
                worker->told ? "; triggers tell of them at once"
                             : " (setup-db installs triggers that tell of them at once)");
    if (look->upkept > 0)
        qfc_log(QFC_LOG_INFO, NULL, "deleted %u tokens of jobs that have ended", look->upkept);
}

static void on_looked(void *userdata, const struct qfc_error *error, const struct qfc_look *look)
{
    struct qfc_worker *worker = userdata;
    if (!error && look->kept_up)
        keep_up(worker, look);
    if (!error)
        worker->news |= look->work;
    if (!error && look->unowned)
        recovery_list(worker);
    asked(worker);
}

static void look(struct qfc_worker *worker, bool unowned)
{
    struct qfc_error error = QFC_NO_ERROR;
    if (worker->mode != QFC_WORKER_RUN) {
        schedule(worker); /* these modes must know how many jobs are pending */
        return;
    }
    if (!may_ask(worker))
        return;
    uint64_t now = uv_now(&worker->loop);
    bool upkeep = now >= worker->upkeep_ms;
    worker->counters.looks++;
    uv_timer_stop(&worker->poll);
    if (upkeep)
        worker->upkeep_ms = now + UPKEEP_MS;
    ask(worker, qfc_queue_look(worker->queue, upkeep ? qfc_token_sweep_sql : NULL, unowned, on_looked, worker, &error),
        &error);
}

bool scheduler_look(struct qfc_worker *worker)
{
    if (worker->mode != QFC_WORKER_RUN || !may_ask(worker))
        return false;
    look(worker, true);
    return true;
}

/* The first in turn claims; the others look, each a little later, in case those before have no slot free. */
void scheduler_news(void *userdata, unsigned about)
{
    struct qfc_worker *worker = userdata;
    unsigned workers = worker->workers > 0 ? worker->workers : 1;
    unsigned turn = (worker->rank + about) % workers;
    if (turn == 0)
        schedule(worker);
    else if (worker->asking)
        worker->turn_ms = turn * TURN_MS;
    else if (may_ask(worker) && uv_timer_get_due_in(&worker->poll) > turn * TURN_MS)
        uv_timer_start(&worker->poll, on_poll, turn * TURN_MS, 0);
}

void scheduler_job_ended(struct qfc_worker *worker)
{
    worker->said_waiting = false;
    be_attentive(worker);
    schedule(worker);
    stop_when_idle(worker);
}

struct job *find_job(const struct qfc_worker *worker, const char *id)
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
        struct job *job = find_job(worker, qfc_pg_text(results->items[0], row, "id"));
        if (!job)
            continue;
        if (strcmp(fate, "cancelled") == 0) {
            job_happened(job, EVENT_CANCEL, NULL);
            continue;
        }
        bool taken = strcmp(fate, "taken") == 0;
        struct qfc_error lost = QFC_NO_ERROR;
        qfc_fail(&lost, taken ? QFC_ERROR_TAKEN : QFC_ERROR_LOST, status ? 0 : ENOENT,
                 status ? "the row is %s%s" : "the row is gone%s%s", status ? status : "",
                 taken ? ", for another worker" : "");
        job_happened(job, taken ? EVENT_TAKEN : EVENT_LOST, &lost);
    }
}

static void on_watch(uv_timer_t *timer)
{
    struct qfc_worker *worker = timer->data;
    if (!worker->database_was_ready)
        return;
    if (worker->watching || (worker->job_count == 0 && !qfc_queue_has_spare_locks(worker->queue)))
        return;
    size_t count;
    const char **ids = known_ids(worker, false, &count);
    worker->watching = ids && qfc_queue_watch(worker->queue, ids, count, on_watched, worker, NULL) == 0;
    free(ids);
}

void scheduler_watch_now(struct qfc_worker *worker)
{
    if (!worker->closing)
        uv_timer_start(&worker->watch, on_watch, 0, WATCH_MS);
}

void scheduler_watch(struct qfc_worker *worker)
{
    uv_timer_start(&worker->watch, on_watch, WATCH_MS, WATCH_MS);
}
