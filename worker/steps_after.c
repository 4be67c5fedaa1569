/*
 * The steps from the container's end on, and those that undo a beginning: each starts one operation.
 */
#include "worker_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FEEDBACK_NAME "feedback.json"
#define FEEDBACK_PATH IO_DIRECTORY "/" FEEDBACK_NAME

#define MEGABYTE ((size_t)1024 * 1024)

/* PostgreSQL's query_canceled. */
#define STATEMENT_TIMED_OUT "57014"

/* An engine that is being stopped goes on answering for a moment, when it has unmounted what containers have left. So a
 * missing feedback of one that ended well is looked for again, for about a second. */
#define FEEDBACK_DOUBTS 4

/* It goes on answering, too, when it has killed all containers. So one that somebody has killed is looked at again, for
 * some seconds: an engine that goes away by then has done it. */
#define KILL_DOUBTS 6

#define LOG_LOST "[QFC/Worker/1001] Failed to read logs."

/* An engine that is stopped closes its socket, gives containers ten seconds, and kills them. */
#define FALL_MS 20000

/* The engine was away when the container ended, or a little before: both may be known late. */
static bool fell_lately(const struct job *job)
{
    uint64_t missed = job->worker->engine_missed_ms, ended = job->exited_at_ms;
    return missed > 0 && missed >= job->wait_began_ms && missed + FALL_MS >= ended;
}

static bool ended_with_engine(const struct job *job)
{
    if (job->killed || job->state.oom_killed)
        return false;
    /* Nobody has seen who killed what ended while its worker was dead: it may have gone down with its host. */
    return (job->wait_broken || job->adopted || fell_lately(job)) &&
           (job->state.exit_code == EXIT_KILLED || job->state.exit_code == EXIT_HOST_DOWN);
}

/* The worker that had it may have killed it when its time was over, and died then. Its time began after it was made. */
static bool was_killed_in_time(const struct job *job)
{
    return job->adopted && job->state.status == QFC_CONTAINER_EXITED && job->state.exit_code == EXIT_KILLED &&
           !job->state.oom_killed && job->state.lived_ms >= (int64_t)job->timeout_s * 1000;
}

/* Its engine went away while it ran, and it has come to a bad end that it could not even tell of: the end of all
 * processes of a host looks like that, one after the other. */
static bool fell_with_engine(const struct job *job)
{
    return job->wait_broken && job->collected && !job->has_feedback && !job->killed && job->state.exit_code != 0 &&
           !job->state.oom_killed;
}

/* Somebody has killed it; who, is not known yet. */
static bool is_doubtful(struct job *job)
{
    bool killed = job->state.status == QFC_CONTAINER_EXITED && job->state.exit_code == EXIT_KILLED;
    return killed && !job->state.oom_killed && !job->killed && !job->collected && !job->wait_broken && !job->adopted &&
           job->kill_doubts++ < KILL_DOUBTS;
}

/* What has ended by itself before it could be killed has its own outcome. */
static void settle_kill(struct job *job)
{
    if (was_killed_in_time(job))
        job->killed = KILLED_AT_DEADLINE;
    if (job->killed == KILLED_AS_CANCELLED && job->state.status == QFC_CONTAINER_EXITED &&
        (job->state.exit_code != EXIT_KILLED || job->state.oom_killed))
        job->killed = NOT_KILLED;
}

static void on_inspected(void *userdata, const struct qfc_error *error, const struct qfc_engine_reply *reply)
{
    struct job *job = userdata;
    struct qfc_error lost = QFC_NO_ERROR;
    if (error && error->code == 404) {
        job_moved(job, EVENT_MAY_HAVE_RUN, error);
        return;
    }
    if (error) { /* that says nothing about the container */
        job->wait_broken |= job->kill_doubts > 0;
        job_moved(job, error->kind == QFC_ERROR_UNKNOWN ? EVENT_UNKNOWN : EVENT_AGAIN, error);
        return;
    }
    job->state = reply->state;
    settle_kill(job);
    if (job->state.going && job->state.status == QFC_CONTAINER_EXITED) {
        qfc_fail(&lost, QFC_ERROR_LOST, 0, "container %.12s is being removed by somebody else", job->container);
        job_moved(job, EVENT_MAY_HAVE_RUN, &lost);
        return;
    }
    if (job->state.status == QFC_CONTAINER_RUNNING) {
        job_moved(job, EVENT_RUNNING, NULL);
    } else if (job->state.status == QFC_CONTAINER_CREATED && job->adopted) {
        qfc_fail(&lost, QFC_ERROR_REFUSED, 0, "its worker was gone before container %.12s was started", job->container);
        job_moved(job, EVENT_NEVER_RAN, &lost);
    } else if (job->state.status == QFC_CONTAINER_CREATED) {
        qfc_fail(&lost, QFC_ERROR_REFUSED, 0, "container %.12s stays as it was created, whatever is tried",
                 job->container);
        job_moved(job, EVENT_NOT_STARTED, &lost);
    } else if (ended_with_engine(job) || fell_with_engine(job)) {
        qfc_fail(&lost, QFC_ERROR_UNKNOWN, 0, "the engine went away and ended container %.12s with it (exit code %lld)",
                 job->container, (long long)job->state.exit_code);
        job_moved(job, EVENT_MAY_HAVE_RUN, &lost);
    } else if (is_doubtful(job)) {
        qfc_engine_doubt(job->worker->engine);
        qfc_fail(&lost, QFC_ERROR_UNKNOWN, 0, "container %.12s was killed, perhaps by an engine that is being stopped",
                 job->container);
        job_moved(job, EVENT_UNKNOWN, &lost);
    } else if (job->collected) {
        job_moved(job, EVENT_COLLECTED, NULL);
    } else {
        job_ended(job, NULL);
    }
}

int start_inspect(struct job *job, struct qfc_error *error)
{
    return qfc_engine_inspect(job->worker->engine, job->container, on_inspected, job, NULL, error);
}

/* As much of a log's beginning tells whether it is the same. */
#define BEGINNING_BYTES 4096

static size_t beginning_bytes(const struct job *job)
{
    size_t size = job->followed.kept.head.size;
    return size < BEGINNING_BYTES ? size : BEGINNING_BYTES;
}

/*
 * The engine has thrown the beginning of a very long log away. What was followed has it; the rest is what is fetched. (An
 * engine that throws away while it is followed may pass over some of it, so the end is taken only from what is fetched.)
 */
static int put_beginning_back(struct job *job)
{
    struct qfc_excerpt fetched = job->log;
    job->beginning_gone = true;
    job->log = job->followed.kept;
    job->followed.kept = qfc_excerpt(0);
    qfc_buffer_free(&job->log.tail);
    job->log.tail_start = job->log.dropped_bytes = 0;
    job->log.head.maximum = job->log.head.size; /* what follows goes into the tail */
    int r = qfc_excerpt_add(&job->log, qfc_buffer_text(&fetched.head), fetched.head.size);
    qfc_excerpt_free(&fetched);
    return r;
}

/* Of that: how much is between the two, or is in both. Without having been followed to its end nobody knows, and the
 * beginning is left. */
static void join_beginning(struct job *job)
{
    struct qfc_excerpt *log = &job->log;
    uint64_t begins = job->followed.bytes - (log->tail.size + log->dropped_bytes);
    log->at_least = true;
    if (!followed_whole(job) || log->tail.size + log->dropped_bytes > job->followed.bytes)
        qfc_buffer_free(&log->head);
    else if (begins > log->head.size)
        log->dropped_bytes += begins - log->head.size;
    else
        qfc_buffer_cut(&log->head, (size_t)begins);
}

static int check_beginning(struct job *job)
{
    size_t size = beginning_bytes(job);
    if (job->beginning_seen || job->log.head.size < size)
        return 0;
    job->beginning_seen = true;
    if (size > 0 && memcmp(job->log.head.data, job->followed.kept.head.data, size) != 0)
        return put_beginning_back(job);
    qfc_excerpt_free(&job->followed.kept); /* so that there are not two of them */
    return 0;
}

static int on_log(void *userdata, const char *data, size_t size)
{
    struct job *job = userdata;
    return qfc_excerpt_add(&job->log, data, size) < 0 ? -1 : check_beginning(job);
}

/* A log whose beginning looks the same, but that is shorter than what was followed: what is between is gone. */
static void count_gone(struct job *job)
{
    uint64_t bytes = job->log.head.size + job->log.tail.size + job->log.dropped_bytes;
    if (job->followed.breaks > 0 || job->followed.bytes <= bytes)
        return;
    job->log.dropped_bytes += job->followed.bytes - bytes;
    job->log.at_least = true;
}

void follow_ended(struct job *job)
{
    join_beginning(job);
    job_ended(job, NULL);
}

static void on_logged(void *userdata, const struct qfc_error *error, const struct qfc_engine_reply *reply)
{
    struct job *job = userdata;
    bool looked = job->log_lost;
    struct qfc_error failure = QFC_NO_ERROR;
    job->log_lost = error != NULL;
    if (error && error->code == 404 && !looked) {
        job_moved(job, EVENT_GONE, error);
        return;
    }
    /* One that is shorter than the part that is compared has lost its beginning, too. */
    if (!error && !job->beginning_seen && beginning_bytes(job) > 0 && put_beginning_back(job) < 0) {
        qfc_fail_memory(&failure);
        error = &failure;
    }
    if (!error && !job->beginning_gone)
        count_gone(job);
    if (error || !job->beginning_gone)
        job_ended(job, error);
    else if (!await_follow(job))
        follow_ended(job);
}

/* Of a longer log the head and the tail are kept. */
static size_t output_max_bytes(const struct job *job)
{
    return (size_t)job->worker->settings->max_output_mb * MEGABYTE;
}

int start_logs(struct job *job, struct qfc_error *error)
{
    if (job->exited_at_ms == 0 && job->adopted && job->state.ran_ms > 0)
        job->exited_at_ms = job->prepared_at_ms + (uint64_t)job->state.ran_ms; /* before we came */
    else if (job->exited_at_ms == 0)
        job->exited_at_ms = uv_now(&job->worker->loop);
    job->beginning_gone = job->beginning_seen = false;
    qfc_excerpt_free(&job->log);
    job->log = qfc_excerpt(output_max_bytes(job));
    return qfc_engine_logs(job->worker->engine, job->container, on_log, on_logged, job, NULL, error);
}

static void say_cleaned(const struct job *job)
{
    const struct qfc_feedback *feedback = &job->feedback;
    if (feedback->replaced_numbers > 0 || feedback->replaced_characters > 0)
        qfc_log(QFC_LOG_WARNING, &job->about,
                "feedback.json was cleaned for the database: %zu numbers that are none (NaN, Infinity) are null now, "
                "%zu characters that it refuses are U+FFFD",
                feedback->replaced_numbers, feedback->replaced_characters);
}

static void on_feedback(void *userdata, const struct qfc_error *error, const struct qfc_engine_reply *reply)
{
    struct job *job = userdata;
    struct qfc_error failure = QFC_NO_ERROR;
    job->feedback_failure = error ? *error : failure;
    if (error && (error->kind == QFC_ERROR_REFUSED || error->kind == QFC_ERROR_INVALID)) {
        /* The container has not left one, or none that can be read: its end is judged without. */
        if (error->code == 404 && job->state.exit_code == 0 && job->tries < FEEDBACK_DOUBTS) {
            job_moved(job, EVENT_UNKNOWN, error);
            return;
        }
        job->collected = true;
        if (error->code == 404) {
            qfc_fail(&job->feedback_failure, QFC_ERROR_INVALID, 0, "the container left no " FEEDBACK_PATH);
            job_moved(job, EVENT_GONE, NULL);
            return;
        }
        qfc_context(&job->feedback_failure, "read the job's feedback");
        job_ended(job, NULL);
        return;
    }
    if (!error && qfc_feedback_read(reply->data, &job->feedback, &failure) < 0) {
        job->feedback_failure = failure;
        qfc_context(&job->feedback_failure, "read the job's feedback: feedback.json");
        job_ended(job, failure.kind == QFC_ERROR_INVALID ? NULL : &failure);
        return;
    }
    job->has_feedback = !error;
    say_cleaned(job);
    job_ended(job, error);
}

/* False also of what cannot be read: then the engine is asked, and its answer judged. */
static bool take_shared_feedback(struct job *job, size_t max_bytes)
{
    struct qfc_buffer found = qfc_buffer(max_bytes);
    struct qfc_error failure = QFC_NO_ERROR;
    bool good =
        shared_directory_read(job, FEEDBACK_NAME, &found) && qfc_feedback_read(&found, &job->feedback, &failure) == 0;
    qfc_buffer_free(&found);
    if (!good)
        return false;
    job->feedback_failure = failure;
    job->has_feedback = true;
    say_cleaned(job);
    return true;
}

int start_feedback(struct job *job, struct qfc_error *error)
{
    observe_end(job);
    if (job->killed)
        return 1;
    size_t most = (size_t)job->worker->settings->max_feedback_mb * MEGABYTE;
    if (take_shared_feedback(job, most))
        return 1;
    return qfc_engine_get_file(job->worker->engine, job->container, FEEDBACK_PATH, most, on_feedback, job, NULL, error);
}

/* How much of the log's end is looked at for why the job has failed. */
#define LOG_END_BYTES 4096

static const char *log_end(const struct job *job)
{
    const char *text = qfc_buffer_text(&job->output);
    return text + (job->log_bytes > LOG_END_BYTES ? job->log_bytes - LOG_END_BYTES : 0);
}

static int decide(struct job *job, struct qfc_error *error)
{
    static const enum qfc_end ends[] = {
        [NOT_KILLED] = QFC_END_EXITED,
        [KILLED_AT_DEADLINE] = QFC_END_DEADLINE,
        [KILLED_AS_CANCELLED] = QFC_END_CANCELLED,
    };
    const struct qfc_settings *settings = job->worker->settings;
    const struct qfc_run run = {
        .end = job->never_ran ? QFC_END_NO_RUN : ends[job->killed],
        .exit_code = job->state.exit_code,
        .oom_killed = job->state.oom_killed,
        .timeout_s = job->timeout_s,
        .feedback = job->has_feedback ? &job->feedback : NULL,
        .feedback_failure = &job->feedback_failure,
        .failure = job->failed ? &job->failure : NULL,
        .failure_reason = job->failure_reason,
        .confinement = {.read_only = settings->container_read_only,
                        .unprivileged = settings->container_drop_capabilities || settings->container_no_new_privileges,
                        .few_processes = settings->container_processes > 0},
        .log_end = log_end(job),
    };
    qfc_buffer_cut(&job->output, job->log_bytes); /* what an earlier outcome has added */
    qfc_outcome_free(&job->outcome);
    if (qfc_outcome_decide(&run, &job->outcome, error) < 0)
        return -1;
    job->reason = job->outcome.reason;
    return 0;
}

/* Makes text of what the container has printed, once; the log itself is not needed any more. Cleaning can make three
 * bytes of one; what the outcome adds is short. */
static int take_log(struct job *job, struct qfc_error *error)
{
    if (job->output.maximum > 0)
        return 0;
    struct qfc_buffer output = qfc_buffer(3 * output_max_bytes(job) + 2 * sizeof job->outcome.output_end);
    int r = 0;
    if (job->log_lost && !job->never_ran)
        r = qfc_buffer_append_text(&output, LOG_LOST);
    else if (!job->never_ran)
        r = qfc_excerpt_text(&job->log, &output);
    if (r < 0) {
        qfc_buffer_free(&output);
        job->log_lost = true; /* part of it has given its memory back */
        return qfc_fail_memory(error);
    }
    job->output = output;
    job->log_bytes = output.size;
    return 0;
}

static int end_output(struct job *job, struct qfc_error *error)
{
    const char *end = job->outcome.output_end;
    return qfc_text_clean(&job->output, end, strlen(end), NULL) < 0 ? qfc_fail_memory(error) : 0;
}

/* The processor's statements for this outcome, and the end of the token. */
static int make_writes(const struct job *job, struct qfc_statements *writes, struct qfc_error *error)
{
    if (qfc_token_delete(writes, &job->row, error) < 0)
        return -1;
    if (!job->processor || job->refusals > 3)
        return 0;
    const struct qfc_job_rows rows = job_rows(job);
    const struct qfc_job_end end = {
        .feedback = job->has_feedback ? &job->feedback : NULL,
        .reviews = job->reviews ? (const PGresult *const *)job->reviews + 1 : NULL,
        .thumbnail = job->thumbnail_stored ? job->thumbnail_object : NULL,
    };
    qfc_job_end_writes *hook = job->outcome.finished ? job->processor->succeed : job->processor->fail;
    return hook ? hook(&rows, &end, writes, error) : 0;
}

/* From `prepare` to the container's end. */
static uint64_t ran_ms(const struct job *job)
{
    return job->prepared_at_ms && job->exited_at_ms ? job->exited_at_ms - job->prepared_at_ms : 0;
}

static void say_observed(const struct job *job)
{
    char text[1024];
    describe_observed(job, text, sizeof text);
    if (*text)
        qfc_log(QFC_LOG_INFO, &job->about, "used: %s", text);
}

static void say_finished(const struct job *job)
{
    say_observed(job);
    double run_s = (double)ran_ms(job) / 1000;
    const struct qfc_outcome *outcome = &job->outcome;
    const struct qfc_log_about about = about_with_reason(job, job->reason);
    monitor_ended(job, run_s, about.reason);
    if (job->outcome.finished)
        qfc_log(QFC_LOG_INFO, &job->about, "finished %s after %.1f s", job->row.type, run_s);
    else
        qfc_log(QFC_LOG_WARNING, &about, "failed %s after %.1f s: %s%s%s", job->row.type, run_s, outcome->told,
                *outcome->advice ? " " : "", outcome->advice);
}

static void say_not_finished(const struct job *job, const struct qfc_error *error)
{
    if (error->kind == QFC_ERROR_LOST && job->finish_unknown)
        qfc_log(QFC_LOG_INFO, &job->about, "the outcome was written before its answer was lost: %s", error->message);
    else if (error->kind == QFC_ERROR_LOST)
        qfc_log(QFC_LOG_WARNING, &job->about, "the outcome is not written: %s", error->message);
    else if (error->kind != QFC_ERROR_UNKNOWN && error->kind != QFC_ERROR_AGAIN && error->kind != QFC_ERROR_CHANGED)
        qfc_log(QFC_LOG_ERROR, &job->about, "the outcome could not be written: %s", error->message);
}

static void on_finished(void *userdata, const struct qfc_error *error, const struct qfc_pg_results *results)
{
    struct job *job = userdata;
    if (!error) {
        job->written = true;
        say_finished(job);
        take_results(job, results);
        if (!job->outcome.finished)
            disown_thumbnail(job);
        job_ended(job, NULL);
        return;
    }
    say_not_finished(job, error);
    job->finish_unknown |= error->kind == QFC_ERROR_UNKNOWN;
    struct qfc_error told = *error;
    /* Too much for the database within the time that a statement has: the same again would be too much again. */
    if (strcmp(error->sqlstate, STATEMENT_TIMED_OUT) == 0)
        told.kind = QFC_ERROR_REFUSED;
    /* What the job type itself has refused explains itself. */
    if (*error->sqlstate || error->kind != QFC_ERROR_REFUSED)
        qfc_context(&told, "write the job's outcome");
    job_ended(job, &told);
}

/*
 * What the database refuses is left out, a little more with each refusal: first the success, then the feedback, then
 * the output, and at last what the job type would write. So a job ends, with the database's reason, whatever its
 * container wrote.
 */
static struct qfc_ending make_ending(const struct job *job, const char *ran)
{
    return (struct qfc_ending){
        .container = job->container,
        .finished = job->outcome.finished,
        .tell_earlier = job->never_ran,
        .output = job->refusals > 2 ? job->outcome.output_end : qfc_buffer_text(&job->output),
        .feedback = job->refusals > 1 ? NULL : job->outcome.feedback,
        .feedback_extra = job->outcome.extra,
        .ran_ms = job->exited_at_ms ? ran : NULL,
    };
}

int start_finish(struct job *job, struct qfc_error *error)
{
    struct qfc_statements writes = {0};
    if (take_log(job, error) < 0 || decide(job, error) < 0 || end_output(job, error) < 0)
        return -1;
    if (make_writes(job, &writes, error) < 0) {
        qfc_statements_free(&writes);
        return -1;
    }
    char ran[24];
    snprintf(ran, sizeof ran, "%llu", (unsigned long long)ran_ms(job));
    const struct qfc_ending ending = make_ending(job, ran);
    return qfc_queue_finish(job->worker->queue, &job->row, &ending, &writes, on_finished, job, error);
}

static void on_revoked(void *userdata, const struct qfc_error *error, const struct qfc_pg_results *results)
{
    job_ended(userdata, error);
}

/* The row is not ours to write any more, but this token is. The job's new owner, if it has one, has another. */
int start_revoke(struct job *job, struct qfc_error *error)
{
    struct qfc_statements writes = {0};
    if (!job->finish_unknown)
        disown_thumbnail(job);
    if (!*job->token)
        return 1;
    if (qfc_token_revoke(&writes, job->token, error) < 0)
        return -1;
    return qfc_queue_write(job->worker->queue, &writes, on_revoked, job, error);
}

static void on_removed(void *userdata, const struct qfc_error *error, const struct qfc_engine_reply *reply)
{
    struct job *job = userdata;
    if (!error) {
        job->create_sent = false;
        shared_directory_leave(job);
    }
    job_ended(job, error);
}

/* By its name where its id never came: a create whose answer was lost may have made it. */
int start_remove(struct job *job, struct qfc_error *error)
{
    if (!job->create_sent) {
        shared_directory_leave(job);
        return 1;
    }
    return qfc_engine_remove(job->worker->engine, *job->container ? job->container : job->name, on_removed, job, NULL,
                             error);
}

static void on_discarded(void *userdata, const struct qfc_error *error, const struct qfc_engine_reply *reply)
{
    struct job *job = userdata;
    if (error && error->code == 409 && strcasestr(error->message, "in progress")) {
        on_removed(userdata, NULL, reply);    /* by somebody else, docker system prune perhaps */
    } else if (error && error->code == 409) { /* it runs, so its end is the truth */
        job->failed = job->never_ran = job->counts = false;
        job_moved(job, EVENT_RUNNING, error);
    } else {
        on_removed(userdata, error, reply);
    }
}

/*
 * A container that was not started, as far as we know, is not removed by force: should a worker that was taken for dead
 * start it at this very moment, the job must not go back.
 */
int start_discard(struct job *job, struct qfc_error *error)
{
    cancel_wait(job);
    observe_end(job);
    if (!job->create_sent || !job->never_ran || !*job->container)
        return start_remove(job, error);
    return qfc_engine_remove_idle(job->worker->engine, job->container, on_discarded, job, NULL, error);
}

static void on_put_back(void *userdata, const struct qfc_error *error, const struct qfc_pg_results *results)
{
    struct job *job = userdata;
    const struct qfc_log_about about = about_with_reason(job, job->failure_reason);
    if (!error)
        monitor_put_back(job);
    if (!error)
        qfc_log(QFC_LOG_WARNING, &about, "put back %s after attempt %u: %s", job->row.type, job->row.attempt,
                job->failure.message);
    job_ended(job, error);
}

/* Doubles with each fault, and is spread, so that jobs that failed together do not come back together. */
static double return_delay_s(const struct job *job, unsigned faults)
{
    if (!job->counts)
        return 0;
    double delay = (double)job->worker->settings->retry_base_delay_s;
    for (unsigned i = 1; i < faults && delay < 3600; i++)
        delay *= 2;
    return delay * (0.75 + 0.5 * (double)qfc_random(UINT32_MAX) / (double)UINT32_MAX);
}

int start_put_back(struct job *job, struct qfc_error *error)
{
    struct qfc_statements writes = {0};
    cancel_wait(job);
    observe_end(job);
    int r = qfc_token_delete(&writes, &job->row, error);
    if (r == 0 && job->processor && job->processor->put_back) {
        const struct qfc_job_rows rows = job_rows(job);
        r = job->processor->put_back(&rows, &writes, error);
    }
    if (r < 0) {
        qfc_statements_free(&writes);
        return -1;
    }
    unsigned faults = job->row.faults + (job->counts ? 1 : 0);
    const struct qfc_return how = {
        .container = job->container,
        .faults = faults,
        .delay_s = return_delay_s(job, faults),
        .reason = job->failure.message,
    };
    return qfc_queue_put_back(job->worker->queue, &job->row, &how, &writes, on_put_back, job, error);
}
