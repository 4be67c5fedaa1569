/*
 * What is seen of a container while it runs: its log is followed, for its steps and for people who look on; what it uses
 * is asked for now and then. All of that belongs to the step `wait`, and nothing depends on it: when it breaks it begins
 * anew, and the log that counts is fetched at the end (steps_after.c).
 *
 * One timer looks after all jobs. A container that ends at once is not followed at all.
 */
#include "worker_private.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define TICK_MS 250

/* How soon what a container uses is asked for, and then each time after a quarter of the time that it has run. */
#define LOOK_MIN_MS 1000
#define LOOK_MAX_MS 10000

/* Before a log that broke is followed again; doubles each time. */
#define FOLLOW_AGAIN_MS 1000

/* A log that ended while its container runs on has broken. */
#define ENDED_EARLY_MS 2000

/* One that is awaited and says nothing for so long has broken. */
#define SILENCE_MS 15000

/* What was printed before we came is there in a moment. */
#define OLD_MS 1000

/* Of the log, into the row. */
#define SHOWN_BYTES ((size_t)64 * 1024)

static uint64_t now_ms(const struct job *job)
{
    return uv_now(&job->worker->loop);
}

/* The last bytes, and at most as many again. Without memory nothing is shown. */
static void keep_recent(struct job *job, const char *data, size_t size)
{
    struct qfc_buffer *recent = &job->followed.recent;
    if (job->worker->settings->live_output_s == 0)
        return;
    recent->maximum = 2 * SHOWN_BYTES;
    if (size > SHOWN_BYTES) {
        data += size - SHOWN_BYTES;
        size = SHOWN_BYTES;
    }
    if (recent->size + size > recent->maximum) {
        memmove(recent->data, recent->data + recent->size - SHOWN_BYTES, SHOWN_BYTES);
        qfc_buffer_cut(recent, SHOWN_BYTES);
    }
    qfc_buffer_append(recent, data, size);
}

/* Beyond that what was followed is of no use at the end. */
static void give_up_whole(struct followed *followed)
{
    followed->breaks++;
    qfc_excerpt_free(&followed->kept);
}

static int on_piece(void *userdata, bool from_stderr, const char *data, size_t size)
{
    struct job *job = userdata;
    struct followed *followed = &job->followed;
    followed->heard_ms = now_ms(job);
    size_t again = followed->skip < size ? (size_t)followed->skip : size;
    followed->skip -= again;
    data += again;
    size -= again;
    if (size == 0)
        return 0;
    followed->bytes += size;
    if (followed->breaks == 0 && !job->beginning_gone && qfc_excerpt_add(&followed->kept, data, size) < 0)
        give_up_whole(followed);
    if (from_stderr)
        qfc_steps_add(&job->steps, data, size, followed->heard_ms,
                      job->adopted && followed->heard_ms - followed->began_ms < OLD_MS);
    keep_recent(job, data, size);
    return 0;
}

static void on_followed(void *userdata, const struct qfc_error *error, const struct qfc_engine_reply *reply)
{
    struct job *job = userdata;
    struct followed *followed = &job->followed;
    followed->call = NULL;
    followed->ended = !error;
    followed->heard_ms = now_ms(job);
    if (error) {
        qfc_log(QFC_LOG_DEBUG, &job->about, "%s", error->message);
        give_up_whole(followed);
    }
    if (followed->awaited) {
        followed->awaited = false;
        follow_ended(job);
    }
}

bool await_follow(struct job *job)
{
    job->followed.awaited = job->followed.call != NULL;
    job->followed.heard_ms = now_ms(job);
    return job->followed.awaited;
}

bool followed_whole(const struct job *job)
{
    return job->followed.ended && job->followed.breaks == 0 && job->followed.bytes > 0;
}

static void follow(struct job *job)
{
    struct followed *followed = &job->followed;
    uint64_t now = now_ms(job), pause = (uint64_t)FOLLOW_AGAIN_MS << (followed->breaks < 6 ? followed->breaks : 6);
    if (followed->call)
        return;
    if (followed->ended) {
        if (now - followed->heard_ms < ENDED_EARLY_MS)
            return;
        followed->ended = false;
        give_up_whole(followed);
    }
    if (followed->breaks > 0 && now - followed->heard_ms < pause)
        return;
    if (followed->kept.head.maximum == 0)
        followed->kept = qfc_excerpt((size_t)job->worker->settings->max_output_mb * 1024 * 1024);
    followed->skip = followed->bytes;
    followed->began_ms = followed->heard_ms = now;
    if (qfc_engine_follow(job->worker->engine, job->container, on_piece, on_followed, job, &followed->call,
                                NULL) < 0)
        give_up_whole(followed);
}

static void on_look(void *userdata, const struct qfc_error *error, const struct qfc_engine_reply *reply)
{
    struct job *job = userdata;
    job->look = NULL;
    if (error || reply->usage.memory_bytes == 0) /* it has just ended */
        return;
    const struct qfc_container_usage *now = &reply->usage;
    struct usage *usage = &job->usage;
    usage->known = true;
    usage->cpu_ms = (uint64_t)now->cpu_ns / 1000000;
    usage->received_bytes = (uint64_t)now->received_bytes;
    usage->sent_bytes = (uint64_t)now->sent_bytes;
    if ((uint64_t)now->memory_bytes > usage->peak_memory_bytes)
        usage->peak_memory_bytes = (uint64_t)now->memory_bytes;
}

static void look(struct job *job)
{
    uint64_t now = now_ms(job), pause = (now - job->wait_began_ms) / 4;
    if (job->look || now < job->look_at_ms)
        return;
    job->look_at_ms = now + (pause < LOOK_MIN_MS ? LOOK_MIN_MS : pause > LOOK_MAX_MS ? LOOK_MAX_MS : pause);
    (void)qfc_engine_stats(job->worker->engine, job->container, on_look, job, &job->look, NULL);
}

static void on_shown(void *userdata, const struct qfc_error *error, const struct qfc_pg_results *results)
{
    struct qfc_worker *worker = userdata;
    if (error && worker->shown)
        qfc_log(QFC_LOG_DEBUG, &worker->shown->about, "show its output: %s", error->message);
    worker->showing = false;
    worker->shown = NULL;
}

/* The last lines of the log, from the beginning of one where there is one. */
static int recent_text(const struct job *job, struct qfc_buffer *text)
{
    const struct qfc_buffer *recent = &job->followed.recent;
    size_t left_out = recent->size > SHOWN_BYTES ? recent->size - SHOWN_BYTES : 0;
    const char *from = qfc_buffer_text(recent) + left_out;
    const char *newline = left_out > 0 ? memchr(from, '\n', recent->size - left_out) : NULL;
    if (newline)
        from = newline + 1;
    return qfc_text_clean(text, from, (size_t)(qfc_buffer_text(recent) + recent->size - from), NULL);
}

/* One at a time, of all jobs, so that others' statements never wait for many. */
static void show(struct job *job)
{
    struct qfc_worker *worker = job->worker;
    uint64_t now = now_ms(job), every = (uint64_t)worker->settings->live_output_s * 1000;
    bool new = job->steps.changes != job->shown_changes || job->followed.bytes != job->shown_bytes;
    if (every == 0 || worker->showing || !new || now < job->show_at_ms || !qfc_queue_ready(worker->queue))
        return;
    struct qfc_buffer text = qfc_buffer(3 * SHOWN_BYTES);
    const struct qfc_running_step step = {.name = job->steps.current,
                                          .age_s = *job->steps.current && job->steps.seen
                                                       ? (double)(now - job->steps.began_ms) / 1000
                                                       : -1};
    job->show_at_ms = now + every;
    if (recent_text(job, &text) == 0 && qfc_queue_show(worker->queue, &job->row, job->container, qfc_buffer_text(&text),
                                                       &step, on_shown, worker, NULL) == 0) {
        worker->showing = true;
        worker->shown = job;
        job->shown_changes = job->steps.changes;
        job->shown_bytes = job->followed.bytes;
    }
    qfc_buffer_free(&text);
}

static void await(struct job *job)
{
    if (now_ms(job) - job->followed.heard_ms < SILENCE_MS)
        return;
    struct qfc_error silent = QFC_NO_ERROR;
    qfc_fail(&silent, QFC_ERROR_UNKNOWN, 0, "the rest of the log does not come");
    if (job->followed.call)
        qfc_engine_cancel(job->followed.call);
    on_followed(job, &silent, NULL);
}

static void on_tick(uv_timer_t *timer)
{
    struct qfc_worker *worker = timer->data;
    bool any = false;
    struct job *next;
    for (struct job *job = worker->jobs; job; job = next) {
        next = job->next;
        any |= job->step == STEP_WAIT || job->followed.awaited;
        if (job->step == STEP_WAIT && worker->engine_ready) {
            follow(job);
            look(job);
            show(job);
        } else if (job->followed.awaited) {
            await(job);
        }
    }
    if (!any)
        uv_timer_stop(timer);
}

void observe_begin(struct job *job)
{
    uv_timer_t *timer = &job->worker->observe;
    uint64_t now = now_ms(job);
    if (job->look_at_ms == 0) {
        job->look_at_ms = now + LOOK_MIN_MS;
        job->show_at_ms = now + (uint64_t)job->worker->settings->live_output_s * 1000;
    }
    if (!uv_is_active((uv_handle_t *)timer))
        uv_timer_start(timer, on_tick, TICK_MS, TICK_MS);
}

void observe_end(struct job *job)
{
    if (job->followed.call)
        qfc_engine_cancel(job->followed.call);
    if (job->look)
        qfc_engine_cancel(job->look);
    if (job->worker->shown == job)
        job->worker->shown = NULL;
    job->followed.call = job->look = NULL;
    job->followed.awaited = false;
    qfc_excerpt_free(&job->followed.kept);
    qfc_buffer_free(&job->followed.recent);
}

static size_t add(char *text, size_t size, size_t used, const char *format, ...) __attribute__((format(printf, 4, 5)));

static size_t add(char *text, size_t size, size_t used, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int length = used < size ? vsnprintf(text + used, size - used, format, arguments) : 0;
    va_end(arguments);
    return used + (length > 0 ? (size_t)length : 0);
}

void describe_observed(const struct job *job, char *text, size_t size)
{
    const struct usage *usage = &job->usage;
    size_t used = 0;
    *text = '\0';
    if (usage->known)
        used = add(text, size, used, "processor %.1f s, memory %.0f MB at most, received %.1f MB, sent %.1f MB",
                   (double)usage->cpu_ms / 1e3, (double)usage->peak_memory_bytes / 1048576.0,
                   (double)usage->received_bytes / 1048576.0, (double)usage->sent_bytes / 1048576.0);
    for (unsigned i = 0; i < job->steps.done_count; i++)
        used = add(text, size, used, "%s%s %.1f s",
                   i > 0          ? ", "
                   : usage->known ? "; steps: "
                                  : "steps: ",
                   job->steps.done[i].name, (double)job->steps.done[i].took_ms / 1e3);
}
