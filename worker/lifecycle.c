/*
 * A job's life as a table: what each step does, and where each event leads.
 *
 * job_moved() alone moves a job from step to step. A step starts one asynchronous operation and returns; the
 * operation's completion calls job_ended(), which makes an event of it. So the order of things is read from the table.
 * (A step that has nothing to do, or fails at once, leads to the next one on the same stack, which the table's length
 * bounds. A job that ends on the way is freed only by the loop, after all of them have returned.)
 */
#include "worker_private.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

enum peer { ENGINE, DATABASE, STORE };

struct row {
    const char *name;
    const char *does;
    step_start *start;
    enum peer peer;
    bool before_start;  /* the container cannot have run yet */
    unsigned max_tries; /* then EVENT_SPENT; 0: no end */
    enum step next[EVENT_COUNT];
};

/* How often a container is asked to start that stays as it was created. */
#define START_TRIES 5
/* How often what a container left is asked for: an engine that is being stopped refuses it for ten seconds and more. */
#define COLLECT_TRIES 8
/* How often the database may refuse an outcome: each time a little less is written, see make_ending. */
#define FINISH_REFUSALS 4
/* How long a table or column may be missing: the web application's migrations take their time. */
#define MIGRATION_MS 120000
/* How often a step may take the database longer than a statement is given. */
#define STATEMENT_TRIES 2
/* Jobs that only tidy up in storage take no slot, up to so many. */
#define TIDYING_MAX 64
/* How often an outcome is made anew from what has changed meanwhile. */
#define REVIEWS 10

#define RETRY_MIN_MS 100
#define RETRY_MAX_MS 15000
/* Where it is tried again because of somebody's lock, which may go at any moment. */
#define PATIENT_MAX_MS 1000

/* clang-format off */
static const struct row table[STEP_COUNT] = {
    [STEP_READ] = {"read", "fetch the job's rows and plan its run", start_read, DATABASE, true, 0, {
        [EVENT_DONE] = STEP_CREATE,          [EVENT_FAULT] = STEP_REVIEW,    [EVENT_UNKNOWN] = STEP_SAME,
        [EVENT_AGAIN] = STEP_SAME,           [EVENT_LOST] = STEP_REVOKE,     [EVENT_TAKEN] = STEP_END,
        [EVENT_ADOPTED] = STEP_INSPECT,      [EVENT_STOP] = STEP_BY_START, [EVENT_CANCEL] = STEP_IGNORE}},
    [STEP_CREATE] = {"create", "create the container", start_create, ENGINE, true, 5, {
        [EVENT_DONE] = STEP_PUT,             [EVENT_FAULT] = STEP_REVIEW,    [EVENT_NEVER_RAN] = STEP_RETURN,
        [EVENT_UNKNOWN] = STEP_SAME,         [EVENT_AGAIN] = STEP_SAME,      [EVENT_SPENT] = STEP_RETURN,
        [EVENT_STOP] = STEP_RETURN, [EVENT_CANCEL] = STEP_REVIEW}},
    [STEP_PUT] = {"put", "put its files into /io", start_put, ENGINE, true, 5, {
        [EVENT_DONE] = STEP_PREPARE,         [EVENT_FAULT] = STEP_REVIEW,    [EVENT_NEVER_RAN] = STEP_RETURN,
        [EVENT_UNKNOWN] = STEP_SAME,         [EVENT_AGAIN] = STEP_SAME,      [EVENT_SPENT] = STEP_RETURN,
        [EVENT_STOP] = STEP_RETURN, [EVENT_CANCEL] = STEP_REVIEW}},
    [STEP_PREPARE] = {"prepare", "write `started`, the container's id and the token", start_prepare, DATABASE, true, 0, {
        [EVENT_DONE] = STEP_START,           [EVENT_FAULT] = STEP_REVIEW,    [EVENT_UNKNOWN] = STEP_SAME,
        [EVENT_AGAIN] = STEP_SAME,           [EVENT_LOST] = STEP_REVOKE,     [EVENT_TAKEN] = STEP_REVOKE,
        [EVENT_STOP] = STEP_RETURN, [EVENT_CANCEL] = STEP_REVIEW}},
    [STEP_START] = {"start", "ask for the container's end, and start it", start_start, ENGINE, true, 0, {
        [EVENT_DONE] = STEP_WAIT,            [EVENT_FAULT] = STEP_REVIEW,    [EVENT_NEVER_RAN] = STEP_RETURN,
        [EVENT_UNKNOWN] = STEP_INSPECT,      [EVENT_AGAIN] = STEP_INSPECT,   [EVENT_LOST] = STEP_REVOKE,
        [EVENT_TAKEN] = STEP_END,            [EVENT_STOP] = STEP_IGNORE, [EVENT_CANCEL] = STEP_IGNORE}},
    [STEP_WAIT] = {"wait", "wait for the container's end", start_wait, ENGINE, false, 0, {
        [EVENT_DONE] = STEP_INSPECT,         [EVENT_MAY_HAVE_RUN] = STEP_INSPECT, [EVENT_UNKNOWN] = STEP_INSPECT,
        [EVENT_AGAIN] = STEP_INSPECT,        [EVENT_LOST] = STEP_REVOKE,     [EVENT_TAKEN] = STEP_END,
        [EVENT_DEADLINE] = STEP_KILL,        [EVENT_STOP] = STEP_END, [EVENT_CANCEL] = STEP_KILL}},
    [STEP_KILL] = {"kill", "kill it: its time is up", start_kill, ENGINE, false, 0, {
        [EVENT_DONE] = STEP_INSPECT,         [EVENT_MAY_HAVE_RUN] = STEP_INSPECT, [EVENT_UNKNOWN] = STEP_SAME,
        [EVENT_AGAIN] = STEP_SAME,           [EVENT_LOST] = STEP_REVOKE,     [EVENT_TAKEN] = STEP_END,
        [EVENT_STOP] = STEP_IGNORE, [EVENT_CANCEL] = STEP_IGNORE}},
    [STEP_INSPECT] = {"inspect", "look at the container: the truth about it", start_inspect, ENGINE, false, 0, {
        [EVENT_DONE] = STEP_LOGS,            [EVENT_RUNNING] = STEP_WAIT,    [EVENT_NOT_STARTED] = STEP_START,
        [EVENT_COLLECTED] = STEP_REVIEW,     [EVENT_NEVER_RAN] = STEP_RETURN, [EVENT_MAY_HAVE_RUN] = STEP_BY_TYPE,
        [EVENT_UNKNOWN] = STEP_SAME,         [EVENT_AGAIN] = STEP_SAME,
        [EVENT_LOST] = STEP_REVOKE,          [EVENT_TAKEN] = STEP_END,       [EVENT_SPENT] = STEP_RETURN,
        [EVENT_STOP] = STEP_END, [EVENT_CANCEL] = STEP_IGNORE}},
    [STEP_LOGS] = {"logs", "fetch its log", start_logs, ENGINE, false, COLLECT_TRIES, {
        [EVENT_DONE] = STEP_FEEDBACK,        [EVENT_GONE] = STEP_INSPECT,
        [EVENT_MAY_HAVE_RUN] = STEP_FEEDBACK, [EVENT_UNKNOWN] = STEP_SAME,
        [EVENT_AGAIN] = STEP_SAME,           [EVENT_SPENT] = STEP_FEEDBACK,  [EVENT_STOP] = STEP_IGNORE, [EVENT_CANCEL] = STEP_IGNORE}},
    [STEP_FEEDBACK] = {"feedback", "fetch feedback.json", start_feedback, ENGINE, false, COLLECT_TRIES, {
        [EVENT_DONE] = STEP_THUMBNAIL,       [EVENT_GONE] = STEP_INSPECT,
        [EVENT_MAY_HAVE_RUN] = STEP_REVIEW,  [EVENT_UNKNOWN] = STEP_SAME,
        [EVENT_AGAIN] = STEP_SAME,           [EVENT_SPENT] = STEP_REVIEW,    [EVENT_STOP] = STEP_IGNORE, [EVENT_CANCEL] = STEP_IGNORE}},
    [STEP_THUMBNAIL] = {"thumbnail", "fetch the project's picture, where the worker stores it", start_thumbnail, ENGINE, false, COLLECT_TRIES, {
        [EVENT_DONE] = STEP_REVIEW,          [EVENT_MAY_HAVE_RUN] = STEP_REVIEW, [EVENT_UNKNOWN] = STEP_SAME,
        [EVENT_AGAIN] = STEP_SAME,           [EVENT_SPENT] = STEP_REVIEW,    [EVENT_STOP] = STEP_IGNORE, [EVENT_CANCEL] = STEP_IGNORE}},
    [STEP_REVIEW] = {"review", "read again what the outcome depends on", start_review, DATABASE, false, 0, {
        [EVENT_DONE] = STEP_STORE,           [EVENT_FAULT] = STEP_STORE,     [EVENT_UNKNOWN] = STEP_SAME,
        [EVENT_AGAIN] = STEP_SAME,           [EVENT_LOST] = STEP_REVOKE,     [EVENT_TAKEN] = STEP_LET_GO,
        [EVENT_STOP] = STEP_IGNORE, [EVENT_CANCEL] = STEP_IGNORE}},
    [STEP_STORE] = {"store", "store the project's picture", start_store, STORE, false, 2, {
        [EVENT_DONE] = STEP_FINISH,          [EVENT_FAULT] = STEP_FINISH,    [EVENT_UNKNOWN] = STEP_SAME,
        [EVENT_AGAIN] = STEP_SAME,           [EVENT_SPENT] = STEP_FINISH,    [EVENT_LOST] = STEP_REVOKE,
        [EVENT_TAKEN] = STEP_LET_GO,         [EVENT_STOP] = STEP_IGNORE, [EVENT_CANCEL] = STEP_IGNORE}},
    [STEP_FINISH] = {"finish", "write the outcome, all of it in one transaction", start_finish, DATABASE, false, 0, {
        [EVENT_DONE] = STEP_REMOVE,          [EVENT_FAULT] = STEP_FINISH,    [EVENT_UNKNOWN] = STEP_SAME,
        [EVENT_AGAIN] = STEP_SAME,           [EVENT_LOST] = STEP_REVOKE,     [EVENT_TAKEN] = STEP_LET_GO,
        [EVENT_CHANGED] = STEP_REVIEW,       [EVENT_SPENT] = STEP_REVOKE,    [EVENT_STOP] = STEP_IGNORE, [EVENT_CANCEL] = STEP_IGNORE}},
    [STEP_REVOKE] = {"revoke", "delete the token of a job that is ours no more", start_revoke, DATABASE, false, 5, {
        [EVENT_DONE] = STEP_REMOVE,          [EVENT_FAULT] = STEP_REMOVE,    [EVENT_UNKNOWN] = STEP_SAME,
        [EVENT_AGAIN] = STEP_SAME,           [EVENT_SPENT] = STEP_REMOVE,    [EVENT_STOP] = STEP_IGNORE, [EVENT_CANCEL] = STEP_IGNORE}},
    [STEP_REMOVE] = {"remove", "remove the container", start_remove, ENGINE, false, 5, {
        [EVENT_DONE] = STEP_LIST,            [EVENT_MAY_HAVE_RUN] = STEP_SAME, [EVENT_UNKNOWN] = STEP_SAME,
        [EVENT_AGAIN] = STEP_SAME,           [EVENT_SPENT] = STEP_LIST,      [EVENT_STOP] = STEP_END}},
    [STEP_LIST] = {"list", "look for objects that have lost their rows", start_list, STORE, false, 5, {
        [EVENT_DONE] = STEP_LEFTOVERS,       [EVENT_FAULT] = STEP_ERASE,     [EVENT_UNKNOWN] = STEP_SAME,
        [EVENT_AGAIN] = STEP_SAME,           [EVENT_SPENT] = STEP_ERASE,     [EVENT_STOP] = STEP_END}},
    [STEP_LEFTOVERS] = {"leftovers", "ask which of them nobody needs", start_leftovers, DATABASE, false, 5, {
        [EVENT_DONE] = STEP_ERASE,           [EVENT_FAULT] = STEP_ERASE,     [EVENT_UNKNOWN] = STEP_SAME,
        [EVENT_AGAIN] = STEP_SAME,           [EVENT_SPENT] = STEP_ERASE,     [EVENT_STOP] = STEP_END}},
    [STEP_ERASE] = {"erase", "delete objects that nobody needs any more", start_erase, STORE, false, 6, {
        [EVENT_DONE] = STEP_END,             [EVENT_FAULT] = STEP_END,       [EVENT_UNKNOWN] = STEP_SAME,
        [EVENT_AGAIN] = STEP_SAME,           [EVENT_SPENT] = STEP_END,       [EVENT_STOP] = STEP_END}},
    [STEP_DISCARD] = {"discard", "remove the container before the job goes back", start_discard, ENGINE, false, 5, {
        [EVENT_DONE] = STEP_PUT_BACK,        [EVENT_RUNNING] = STEP_INSPECT, [EVENT_MAY_HAVE_RUN] = STEP_SAME, [EVENT_UNKNOWN] = STEP_SAME,
        [EVENT_AGAIN] = STEP_SAME,           [EVENT_SPENT] = STEP_BY_RISK,   [EVENT_STOP] = STEP_IGNORE, [EVENT_CANCEL] = STEP_IGNORE}},
    [STEP_PUT_BACK] = {"put back", "write `pending` and when to try again", start_put_back, DATABASE, false, 0, {
        [EVENT_DONE] = STEP_REMOVE,          [EVENT_FAULT] = STEP_REVIEW,    [EVENT_UNKNOWN] = STEP_SAME,
        [EVENT_AGAIN] = STEP_SAME,           [EVENT_LOST] = STEP_REVOKE,     [EVENT_TAKEN] = STEP_REVOKE,
        [EVENT_STOP] = STEP_IGNORE, [EVENT_CANCEL] = STEP_REVIEW}},
    [STEP_END] = {"end", "forget the job", NULL, DATABASE, false, 0, {0}},
};
/* clang-format on */

static const char *const event_names[EVENT_COUNT] = {
    [EVENT_DONE] = "done",           [EVENT_FAULT] = "fault",
    [EVENT_NEVER_RAN] = "never ran", [EVENT_MAY_HAVE_RUN] = "may have run",
    [EVENT_UNKNOWN] = "unknown",     [EVENT_AGAIN] = "again",
    [EVENT_RUNNING] = "running",     [EVENT_NOT_STARTED] = "not started",
    [EVENT_ADOPTED] = "adopted",     [EVENT_COLLECTED] = "collected",
    [EVENT_GONE] = "gone",           [EVENT_LOST] = "lost",
    [EVENT_TAKEN] = "taken",         [EVENT_CHANGED] = "changed",
    [EVENT_DEADLINE] = "deadline",   [EVENT_CANCEL] = "cancel",
    [EVENT_STOP] = "stop",           [EVENT_SPENT] = "spent",
};

/* What an operation's end means, by who was asked and whether the container can have run. */
static enum event event_of(const struct job *job, const struct qfc_error *error)
{
    const struct row *row = &table[job->step];
    switch (error->kind) {
    case QFC_ERROR_NONE:
        return EVENT_DONE;
    case QFC_ERROR_LOST:
        return EVENT_LOST;
    case QFC_ERROR_TAKEN:
        return EVENT_TAKEN;
    case QFC_ERROR_CHANGED:
        return EVENT_CHANGED;
    case QFC_ERROR_UNKNOWN:
        return EVENT_UNKNOWN;
    case QFC_ERROR_AGAIN:
    case QFC_ERROR_MEMORY:
        return EVENT_AGAIN;
    case QFC_ERROR_UNREACHABLE:
        /* What no row names can go later; meanwhile a worker whose engine is there may have the job. */
        if (job->step == STEP_DISCARD && !job->adopted)
            return EVENT_SPENT;
        return row->before_start && row->peer == ENGINE ? EVENT_NEVER_RAN : EVENT_AGAIN;
    case QFC_ERROR_REFUSED:
    case QFC_ERROR_INVALID:
    case QFC_ERROR_USAGE:
    case QFC_ERROR_BUG:
        break;
    }
    if (row->peer != ENGINE)
        return EVENT_FAULT;
    /* What the engine does not understand, or we could not make, no other attempt would do better. (An answer of the
     * engine that makes no sense is UNKNOWN here.) */
    if (row->before_start && (error->kind == QFC_ERROR_INVALID || (job->step == STEP_CREATE && error->code == 400)))
        return EVENT_FAULT;
    return row->before_start ? EVENT_NEVER_RAN : EVENT_MAY_HAVE_RUN;
}

const char *step_name(enum step step)
{
    return table[step].name;
}

/* Whatever else has befallen a job that was cancelled before its end: that is what it fails for. */
static void remember_cancelled(struct job *job)
{
    job->failed = job->never_ran = true;
    job->counts = false;
    job->failure_reason = QFC_REASON_CANCELLED;
    qfc_fail(&job->failure, QFC_ERROR_LOST, 0, "%s", qfc_reason_words(QFC_REASON_CANCELLED)->sentence);
}

/* Keeps why a job will go back or fail, at the first event that says so. */
static void remember(struct job *job, enum event event, const struct qfc_error *error)
{
    bool decides = event == EVENT_FAULT || event == EVENT_NEVER_RAN || event == EVENT_STOP || event == EVENT_SPENT ||
                   (event == EVENT_MAY_HAVE_RUN && job->step == STEP_INSPECT);
    /* From the container's end on only the outcome's own transaction can spoil things: what was collected counts. */
    bool ended = job->step > STEP_INSPECT && job->step < STEP_DISCARD;
    if (job->cancelled && !ended && (decides || event == EVENT_CANCEL) && job->step != STEP_WAIT) {
        remember_cancelled(job);
        return;
    }
    if (!decides || job->failed || (ended && job->step != STEP_FINISH))
        return;
    job->failure_reason = reason_of(job, event, error);
    job->failed = true;
    job->never_ran = !ended;
    bool passing = job->failure_reason == QFC_REASON_ENGINE_UNREACHABLE || is_missing(job->failure_reason);
    job->counts = event != EVENT_STOP && !passing && !(error && event != EVENT_FAULT && engine_unfit(job, error));
    if (error)
        job->failure = *error;
    else if (event == EVENT_STOP)
        qfc_fail(&job->failure, QFC_ERROR_AGAIN, 0, "the worker was told to leave");
}

/*
 * The row names a container that was never started for certain, and that nobody else would start. Then the row is
 * written first, so that it never names one that is gone, of which nobody could tell any more that it has not run.
 */
static bool is_unstarted(const struct job *job)
{
    bool before_start = job->step == STEP_PREPARE || job->step == STEP_START ||
                        (job->step == STEP_INSPECT && job->state.status == QFC_CONTAINER_CREATED);
    return !job->adopted && job->prepared_at_ms && before_start;
}

/* A job may go back as long as its attempts last. */
static enum step return_or_finish(const struct job *job)
{
    unsigned faults = job->row.faults + (job->counts ? 1 : 0);
    if (faults >= (unsigned)job->worker->settings->retry_max_attempts || job->failure_reason == QFC_REASON_CANCELLED)
        return STEP_REVIEW;
    return is_unstarted(job) ? STEP_PUT_BACK : STEP_DISCARD;
}

static enum step resolve(const struct job *job, enum event event, enum step step)
{
    if (step == STEP_BY_TYPE)
        step = job->processor && job->processor->safe_to_rerun ? STEP_RETURN : STEP_REVIEW;
    if (step == STEP_BY_RISK)
        step = job->adopted && !(job->processor && job->processor->safe_to_rerun) ? STEP_REVIEW : STEP_PUT_BACK;
    if (step == STEP_BY_START)
        step = job->adopted ? STEP_END : STEP_RETURN;
    if (step == STEP_RETURN)
        step = return_or_finish(job);
    if (step == STEP_LET_GO)
        step = job->prepared_at_ms ? STEP_END : STEP_REMOVE;
    return step == STEP_SAME ? job->step : step;
}

/* A wait that the engine has held for so long was a real one. */
#define REAL_WAIT_MS 5000

/* Where the truth about a container is looked for: tries go on counting from one of these to the other. */
static bool in_doubt(enum step step)
{
    return step == STEP_START || step == STEP_WAIT || step == STEP_KILL || step == STEP_INSPECT;
}

static void count_tries(struct job *job, enum event event, const struct qfc_error *error)
{
    bool waited = event == EVENT_RUNNING && uv_now(&job->worker->loop) - job->wait_began_ms > REAL_WAIT_MS;
    if ((event == EVENT_DONE && job->step != STEP_WAIT) || waited) {
        job->tries = job->answers = 0;
    } else if (event == EVENT_UNKNOWN || event == EVENT_AGAIN || event == EVENT_RUNNING ||
               table[job->step].next[event] == STEP_SAME) {
        job->tries++;
        /* Nothing hangs on a storage: one that is not there costs a try, too. */
        job->answers += !error || error->kind != QFC_ERROR_UNREACHABLE || table[job->step].peer == STORE;
    }
}

/* PostgreSQL's query_canceled: longer than statement_timeout. */
#define TIMED_OUT "57014"

/* Is it in vain to ask the database the same again? */
static bool in_vain(struct job *job, enum event event, const struct qfc_error *error)
{
    uint64_t now = uv_now(&job->worker->loop);
    if (event == EVENT_CHANGED)
        return ++job->changes > REVIEWS;
    if (event != EVENT_AGAIN || !error || table[job->step].peer != DATABASE)
        return false;
    if (strcmp(error->sqlstate, TIMED_OUT) == 0)
        return job->answers >= STATEMENT_TRIES;
    if (strncmp(error->sqlstate, "42", 2) != 0) /* what the statement names is not there */
        return false;
    if (job->missing_since_ms == 0)
        job->missing_since_ms = now;
    return now - job->missing_since_ms > MIGRATION_MS;
}

/* A job whose outcome is written has nothing left that the worker must stay for, but its container. */
static bool is_tidying(enum step step)
{
    return step == STEP_LIST || step == STEP_LEFTOVERS || step == STEP_ERASE;
}

static bool may_stop(const struct job *job, enum event event)
{
    enum step stop = table[job->step].next[EVENT_STOP];
    bool goes_on = event == EVENT_DONE || event == EVENT_UNKNOWN || event == EVENT_AGAIN;
    return goes_on && stop != STEP_IGNORE && (stop != STEP_END || is_tidying(job->step));
}

/* A step before the start, or one that puts the job back, has come to an end of any kind but that. */
static bool may_cancel(const struct job *job, enum event event)
{
    const struct row *row = &table[job->step];
    bool goes_on = (event == EVENT_DONE && row->before_start) || event == EVENT_UNKNOWN || event == EVENT_AGAIN;
    return goes_on && row->next[EVENT_CANCEL] == STEP_REVIEW;
}

/* The next event of a job whose step has been tried too often, or that is to stop. */
static enum event consider(struct job *job, enum event event, const struct qfc_error *error)
{
    const struct row *row = &table[job->step];
    count_tries(job, event, error);
    if (event == EVENT_DONE)
        job->missing_since_ms = 0;
    if (in_vain(job, event, error)) {
        job->tries = job->answers = 0;
        event = EVENT_FAULT;
    }
    if (row->max_tries > 0 && job->answers >= row->max_tries)
        return EVENT_SPENT;
    if (event == EVENT_NOT_STARTED && job->answers >= START_TRIES)
        return EVENT_SPENT;
    if (job->step == STEP_FINISH && event == EVENT_FAULT && ++job->refusals > FINISH_REFUSALS)
        return EVENT_SPENT;
    if (job->cancelled && may_cancel(job, event))
        return EVENT_CANCEL;
    return job->stopping && may_stop(job, event) ? EVENT_STOP : event;
}

static uint64_t retry_delay_ms(const struct job *job)
{
    uint64_t most = job->row.patient ? PATIENT_MAX_MS : RETRY_MAX_MS;
    uint64_t delay = job->tries > 8 ? most : (uint64_t)RETRY_MIN_MS << (job->tries - 1);
    if (delay > most)
        delay = most;
    return delay / 2 + qfc_random((uint32_t)delay / 2 + 1);
}

#ifdef QFC_TEST_STOPS
/* For tests: QFC_TEST_STOP="start before" or "start after" stops the process there, once. */
static void stop_for_test(const struct job *job, const char *when)
{
    static bool stopped;
    char here[64];
    const char *there = getenv("QFC_TEST_STOP");
    snprintf(here, sizeof here, "%s %s", table[job->step].name, when);
    if (stopped || !there || strcmp(there, here) != 0)
        return;
    stopped = true;
    qfc_log(QFC_LOG_INFO, &job->about, "stopped for a test: %s", here);
    raise(SIGSTOP);
}
#else
static void stop_for_test(const struct job *job, const char *when)
{
}
#endif

static void move_now(struct job *job, enum event event, const struct qfc_error *error);

static void begin_step(struct job *job)
{
    struct qfc_error error = QFC_NO_ERROR;
    stop_for_test(job, "before");
    int r = table[job->step].start(job, &error);
    if (r != 0)
        job_ended(job, r < 0 ? &error : NULL);
}

static void on_retry(uv_timer_t *timer)
{
    struct job *job = timer->data;
    job->waiting = false;
    begin_step(job);
}

/* The row has gone back: it is free for all at once, however long it takes to tidy up. (The lock of one that is over or
 * gone is in nobody's way. It goes with the job, and lets others see till then whether this process hangs.) */
static void release_row(struct job *job)
{
    job->released = true;
    qfc_queue_disown(job->worker->queue, job->row.id);
    scheduler_watch_now(job->worker);
}

static void enter(struct job *job, enum step step)
{
    if (job->step == STEP_PUT_BACK && step == STEP_REMOVE)
        release_row(job);
    job->step = step;
    uv_timer_stop(&job->timer);
    job->waiting = false;
    if (step == STEP_END) {
        struct qfc_worker *worker = job->worker;
        job_drop(job);
        scheduler_job_ended(worker);
    } else if (step == STEP_WAIT && job->cancelled && !job->killed) {
        move_now(job, EVENT_CANCEL, NULL);
    } else if (step == STEP_WAIT && job->stopping) {
        job_happened(job, EVENT_STOP, NULL);
    } else if (job->tries > 0) {
        job->waiting = true;
        uv_timer_start(&job->timer, on_retry, retry_delay_ms(job), 0);
    } else {
        struct qfc_worker *worker = job->worker;
        unsigned jobs = worker->job_count;
        bool freed = step == STEP_LIST || (step == STEP_REMOVE && job->written); /* its slot, or its project */
        begin_step(job);
        if (freed && worker->job_count == jobs)
            schedule(worker); /* it has not ended yet, which would have told of it */
    }
}

unsigned busy_jobs(const struct qfc_worker *worker)
{
    unsigned busy = 0, tidying = 0;
    for (const struct job *job = worker->jobs; job; job = job->next) {
        if (is_tidying(job->step))
            tidying++;
        else
            busy++;
    }
    return busy + (tidying > TIDYING_MAX ? tidying - TIDYING_MAX : 0);
}

/* Says what an operator should know of; the rest is for the debug log. */
static void say_move(const struct job *job, enum event event, enum step to, const struct qfc_error *error)
{
    bool first = job->tries <= 1 || event == EVENT_SPENT;
    bool told = to == STEP_REVIEW && job->failed; /* the reason comes with the outcome */
    bool not_ours = event == EVENT_LOST || event == EVENT_TAKEN;
    const struct qfc_log_about about = about_with_reason(job, not_ours ? job->reason : QFC_REASON_NONE);
    bool noteworthy = error && event != EVENT_DONE && first && !told;
    qfc_log(noteworthy ? QFC_LOG_WARNING : QFC_LOG_DEBUG, &about, "%s: %s, so: %s%s%s", table[job->step].name,
            event_names[event], table[to].name, error ? ": " : "", error ? error->message : "");
}

void job_left_behind(const struct job *job)
{
    if (is_tidying(job->step) || job->written)
        return;
    bool running = job->step == STEP_WAIT;
    qfc_log(running ? QFC_LOG_INFO : QFC_LOG_WARNING, &job->about, "left %s at step \"%s\" for the next worker%s%.12s",
            job->row.type, table[job->step].name, job->prepared_at_ms ? " on this engine: container " : "",
            job->prepared_at_ms ? job->container : "");
}

void job_moved(struct job *job, enum event event, const struct qfc_error *error)
{
    stop_for_test(job, "after");
    if (error && error->kind == QFC_ERROR_UNREACHABLE && table[job->step].peer == ENGINE)
        engine_lost(job->worker);
    if (error && table[job->step].peer == ENGINE)
        job->worker->counters.engine_errors++;
    event = consider(job, event, error);
    remember(job, event, error);
    enum step next = table[job->step].next[event];
    if (next == STEP_IGNORE)
        return;
    if (next == STEP_NONE) {
        qfc_log(QFC_LOG_ERROR, &job->about, "%s: no way on from \"%s\"%s%s", table[job->step].name, event_names[event],
                error ? ": " : "", error ? error->message : "");
        next = STEP_END;
    }
    enum step to = resolve(job, event, next);
    if (event == EVENT_LOST || event == EVENT_TAKEN)
        job->reason = reason_of(job, event, error);
    say_move(job, event, to, error);
    if (event == EVENT_SPENT || (to != job->step && !(in_doubt(job->step) && in_doubt(to))))
        job->tries = job->answers = 0;
    if (event == EVENT_STOP && to == STEP_END)
        job_left_behind(job);
    if (event == EVENT_LOST || event == EVENT_TAKEN)
        monitor_lost(job);
    enter(job, to);
}

/* PostgreSQL's lock_not_available. */
#define LOCKED "55P03"

void job_ended(struct job *job, const struct qfc_error *error)
{
    if (error && strcmp(error->sqlstate, LOCKED) == 0)
        job->row.patient = true;
    job_moved(job, error ? event_of(job, error) : EVENT_DONE, error);
}

/* Leaves what the job waits for. */
static void move_now(struct job *job, enum event event, const struct qfc_error *error)
{
    cancel_wait(job);
    job->tries = job->answers = 0;
    job_moved(job, event, error);
}

void job_happened(struct job *job, enum event event, const struct qfc_error *error)
{
    if (event == EVENT_STOP)
        job->stopping = true;
    if (event == EVENT_CANCEL && job->cancelled)
        return; /* it is told again and again */
    if (event == EVENT_CANCEL)
        job->cancelled = true;
    bool between = job->step == STEP_WAIT || job->waiting;
    enum step next = table[job->step].next[event];
    if (!between || next == STEP_NONE || next == STEP_IGNORE)
        return;
    move_now(job, event, error);
}

int job_begin(struct qfc_worker *worker, const struct qfc_job *row, struct qfc_error *error)
{
    struct job *job = job_new(worker, row, error);
    if (!job)
        return -1;
    enter(job, STEP_READ);
    return 0;
}

/* A job that its last worker has not started: what that one may have made goes, and the job goes back. */
static void undo_former(struct job *job, const char *former)
{
    bool ours = strcmp(former, qfc_queue_marker(job->worker->queue)) == 0;
    name_container(job, former);
    job->create_sent = job->failed = job->never_ran = true;
    job->failure_reason = QFC_REASON_WORKER_LOST;
    job->counts = !ours;
    if (ours)
        qfc_fail(&job->failure, QFC_ERROR_REFUSED, 0, "the answer to its claim was lost");
    else
        qfc_fail(&job->failure, QFC_ERROR_REFUSED, 0, "its worker (%s) was gone before the container was started",
                 former);
    enter(job, return_or_finish(job) == STEP_DISCARD ? STEP_DISCARD : STEP_READ);
}

int job_adopt(struct qfc_worker *worker, const struct qfc_adoption *adoption, struct qfc_error *error)
{
    struct job *job = job_new(worker, &adoption->job, error);
    if (!job)
        return -1;
    if (!adoption->container) {
        undo_former(job, adoption->former);
        return 0;
    }
    uint64_t now = uv_now(&worker->loop);
    job->adopted = true;
    monitor_adopted(job);
    job->stopping = worker->stopping && worker->settings->stop == QFC_STOP_LEAVE;
    job->prepared_at_ms = now - adoption->age_ms; /* perhaps before this machine was started */
    if (job->prepared_at_ms == 0)
        job->prepared_at_ms = 1;
    snprintf(job->container, sizeof job->container, "%s", adoption->container);
    if (strcmp(adoption->engine, worker->engine_id) == 0) {
        job->create_sent = true;
        qfc_log(QFC_LOG_WARNING, &job->about, "took over %s, whose worker is gone: container %.12s", job->row.type,
                job->container);
    } else {
        job->failed = job->never_ran = true;
        job->failure_reason = QFC_REASON_ENGINE_LOST;
        qfc_fail(&job->failure, QFC_ERROR_REFUSED, 0,
                 "its container %.12s was started on another engine (%s), and no worker there has told of its end",
                 job->container, adoption->engine);
    }
    enter(job, STEP_READ);
    return 0;
}

static const char *cell(enum step step)
{
    switch (step) {
    case STEP_NONE:
        return "";
    case STEP_SAME:
        return "again, later";
    case STEP_RETURN:
        return "discard (put back, where the row names a container already), or review (failed) when the attempts are "
               "spent";
    case STEP_BY_TYPE:
        return "as \"never ran\" where the job type is safe to run again, else review (failed)";
    case STEP_BY_START:
        return "as \"never ran\"; end, where the job was taken over";
    case STEP_BY_RISK:
        return "put back; review (failed), where the job was taken over and must not run twice";
    case STEP_LET_GO:
        return "end; remove, where the container was never started";
    case STEP_IGNORE:
        return "no matter";
    default:
        return table[step].name;
    }
}

void qfc_lifecycle_print(FILE *out)
{
    for (enum step step = STEP_READ; step < STEP_END; step++) {
        fprintf(out, "**%s**: %s", table[step].name, table[step].does);
        if (table[step].max_tries > 0)
            fprintf(out, " (at most %u times)", table[step].max_tries);
        fprintf(out, "\n\n| event | leads to |\n|---|---|\n");
        for (enum event event = 0; event < EVENT_COUNT; event++)
            if (table[step].next[event] != STEP_NONE)
                fprintf(out, "| %s | %s |\n", event_names[event], cell(table[step].next[event]));
        fprintf(out, "\n");
    }
}
