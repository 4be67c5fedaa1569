/*
 * From how a run ended to what is written of it. The values are those of QFieldCloud's own worker, which the web
 * application and its users know; where that one could not tell what had happened (out of memory), ours are new.
 */
#include "qfc/outcome.h"

#include "qfc/text.h"

#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXIT_KILLED         (128 + SIGKILL)
#define EXIT_NOT_EXECUTABLE 126
#define EXIT_NOT_FOUND      127
#define EXIT_BY_DEADLINE    (-1)

/* The members that a failure adds to the feedback. */
struct failure {
    const char *error;
    enum qfc_reason reason; /* its code is the error_type, if it is one */
    const char *class;      /* error_class */
    const char *origin;     /* "container", "worker_wrapper" */
};

/* A JSON string of a text that may hold anything. */
static json_t *clean_string(const char *text)
{
    struct qfc_buffer clean = qfc_buffer(3 * strlen(text));
    json_t *string =
        qfc_text_clean(&clean, text, strlen(text), NULL) == 0 ? json_string(qfc_buffer_text(&clean)) : NULL;
    qfc_buffer_free(&clean);
    return string;
}

static int add_failure(json_t *extra, const struct failure *failure)
{
    const struct qfc_reason_words *words = qfc_reason_words(failure->reason);
    int r = json_object_set_new(extra, "error", clean_string(failure->error));
    if (r == 0 && words->is_type)
        r = json_object_set_new(extra, "error_type", json_string(words->code));
    if (r == 0)
        r = json_object_set_new(extra, "error_class", json_string(failure->class));
    if (r == 0)
        r = json_object_set_new(extra, "error_stack", json_string(""));
    if (r == 0)
        r = json_object_set_new(extra, "error_origin", json_string(failure->origin));
    return r;
}

static void say(struct qfc_outcome *outcome, enum qfc_reason reason, const char *text)
{
    outcome->reason = reason;
    snprintf(outcome->told, sizeof outcome->told, "%s", text);
}

/* A job that has done well all the same is not spoilt by a child of its that had to go. */
static bool is_out_of_memory(const struct qfc_run *run)
{
    bool well = run->exit_code == 0 && run->feedback && run->feedback->error == QFC_FEEDBACK_NO_ERROR;
    return run->oom_killed && !well;
}

/* Where the container cannot speak for itself any more, or its own word explains nothing; else QFC_REASON_NONE. */
static enum qfc_reason killed_by(const struct qfc_run *run)
{
    if (run->end == QFC_END_DEADLINE)
        return QFC_REASON_TIMEOUT;
    if (run->end == QFC_END_CANCELLED)
        return QFC_REASON_CANCELLED;
    if (is_out_of_memory(run))
        return QFC_REASON_OUT_OF_MEMORY;
    return run->exit_code == EXIT_KILLED ? QFC_REASON_SIGKILL : QFC_REASON_NONE;
}

static int judge_killed(const struct qfc_run *run, enum qfc_reason reason, json_t *extra, struct qfc_outcome *outcome)
{
    const char *own = run->end == QFC_END_EXITED && run->feedback ? run->feedback->error_text : NULL;
    own = own && *own ? own : NULL;
    char text[sizeof outcome->told];
    snprintf(text, sizeof text, "%s%s%s", qfc_reason_words(reason)->sentence, own ? " Its own last word: " : "",
             own ? own : "");
    say(outcome, reason, text);
    return add_failure(extra, &(struct failure){text, reason, "", "container"});
}

/* Words by which programs tell that something was denied to them: the C library's, Python's, a shell's. */
static const struct symptom {
    const char *text;
    enum qfc_reason reason;
} symptoms[] = {
    {"No space left on device", QFC_REASON_OUT_OF_DISK},
    {"Disk quota exceeded", QFC_REASON_OUT_OF_DISK},
    {"Read-only file system", QFC_REASON_READ_ONLY},
    {"Resource temporarily unavailable", QFC_REASON_TOO_MANY_PROCESSES},
    {"can't start new thread", QFC_REASON_TOO_MANY_PROCESSES},
    {"can't fork", QFC_REASON_TOO_MANY_PROCESSES},
    {"Operation not permitted", QFC_REASON_NOT_PERMITTED},
    {"are you root?", QFC_REASON_NOT_PERMITTED},
};

static bool applies(enum qfc_reason reason, const struct qfc_confinement *confinement)
{
    return (reason != QFC_REASON_READ_ONLY || confinement->read_only) &&
           (reason != QFC_REASON_TOO_MANY_PROCESSES || confinement->few_processes) &&
           (reason != QFC_REASON_NOT_PERMITTED || confinement->unprivileged);
}

static enum qfc_reason find_symptom(const struct qfc_run *run, const char *text)
{
    for (size_t i = 0; text && i < sizeof symptoms / sizeof *symptoms; i++)
        if (applies(symptoms[i].reason, &run->confinement) && strcasestr(text, symptoms[i].text))
            return symptoms[i].reason;
    return QFC_REASON_NONE;
}

/*
 * A job that failed by what its container is denied: its own words stay, and what to do about it is added. What stands
 * only in the log of a job that knows its error may have nothing to do with it: then the reason stays, too.
 */
static void look_for_denial(const struct qfc_run *run, struct qfc_outcome *outcome)
{
    bool speaks = run->feedback && run->feedback->error_text && *run->feedback->error_text;
    enum qfc_reason found = find_symptom(run, speaks ? run->feedback->error_text : NULL);
    enum qfc_reason perhaps = found ? found : find_symptom(run, run->log_end);
    if (found || (perhaps && !speaks))
        outcome->reason = perhaps;
    if (perhaps)
        outcome->advice = qfc_reason_words(perhaps)->advice;
}

/* {"error_feedback": <what is not an object>}, as QFieldCloud's own worker keeps it. */
static int wrap_feedback(const struct qfc_feedback *feedback, struct qfc_outcome *outcome)
{
    outcome->wrapped = qfc_buffer(feedback->size + 64);
    if (qfc_buffer_append_text(&outcome->wrapped, "{\"error_feedback\":") < 0 ||
        qfc_buffer_append(&outcome->wrapped, feedback->json, feedback->size) < 0 ||
        qfc_buffer_append_text(&outcome->wrapped, "}") < 0)
        return -1;
    outcome->feedback = outcome->wrapped.data;
    return 0;
}

static int fail_by_worker(const char *text, enum qfc_reason reason, const char *class, json_t *extra,
                          struct qfc_outcome *outcome)
{
    outcome->finished = false;
    say(outcome, reason, text);
    return add_failure(extra, &(struct failure){text, reason, class, "worker_wrapper"});
}

static int judge_without_feedback(const struct qfc_run *run, json_t *extra, struct qfc_outcome *outcome)
{
    struct qfc_error why = QFC_NO_ERROR;
    enum qfc_reason reason = QFC_REASON_FEEDBACK_UNREADABLE;
    if (run->exit_code == EXIT_NOT_EXECUTABLE || run->exit_code == EXIT_NOT_FOUND)
        reason = QFC_REASON_EXEC_FAILED;
    else if (run->exit_code != 0)
        reason = QFC_REASON_CONTAINER_FAILED;
    if (run->feedback_failure)
        why = *run->feedback_failure;
    if (run->exit_code != 0)
        qfc_context(&why, "exit code %lld", (long long)run->exit_code);
    return fail_by_worker(why.message, reason, "FeedbackError", extra, outcome);
}

static void say_exit_code(const struct qfc_run *run, struct qfc_outcome *outcome)
{
    char text[80];
    snprintf(text, sizeof text, "exit code %lld, and no error in the feedback", (long long)run->exit_code);
    say(outcome, QFC_REASON_CONTAINER_FAILED, text);
}

/* The container ended by itself: its exit code and its feedback say how. */
static int judge_exit(const struct qfc_run *run, json_t *extra, struct qfc_outcome *outcome)
{
    const struct qfc_feedback *feedback = run->feedback;
    if (!feedback)
        return judge_without_feedback(run, extra, outcome);
    if (!feedback->is_object) {
        if (wrap_feedback(feedback, outcome) < 0)
            return -1;
        return fail_by_worker("feedback.json is JSON, but not an object", QFC_REASON_FEEDBACK_UNREADABLE,
                              "FeedbackError", extra, outcome);
    }
    outcome->feedback = feedback->json;
    outcome->finished = run->exit_code == 0 && feedback->error == QFC_FEEDBACK_NO_ERROR;
    if (!outcome->finished && feedback->error_text && *feedback->error_text)
        say(outcome, QFC_REASON_JOB_ERROR, feedback->error_text);
    else if (!outcome->finished)
        say_exit_code(run, outcome);
    if (feedback->error == QFC_FEEDBACK_TRUTHY_ERROR)
        return json_object_set_new(extra, "error_origin", json_string("container"));
    return 0;
}

/* What to do about it goes into the log; QFieldCloud's own last line, by which people know a timeout, stays the last. */
static void end_output(const struct qfc_run *run, struct qfc_outcome *outcome)
{
    char *end = outcome->output_end;
    size_t size = sizeof outcome->output_end, used = 0;
    if (run->end == QFC_END_NO_RUN)
        used = (size_t)snprintf(end, size, "%s\n", run->failure->message);
    if (*outcome->advice && used < size)
        used += (size_t)snprintf(end + used, size - used, "%s[QFC/Worker/%s] %s\n", used ? "" : "\n",
                                 qfc_reason_words(outcome->reason)->code, outcome->advice);
    if (run->end == QFC_END_DEADLINE && used < size)
        snprintf(end + used, size - used, "\nTimeout error! The job failed to finish within %u seconds!\n",
                 run->timeout_s);
}

/* The container did well, but what should have been done with it could not be; or it never ran. */
static int judge_failure(const struct qfc_run *run, json_t *extra, struct qfc_outcome *outcome)
{
    return fail_by_worker(run->failure->message, run->failure_reason, "WorkerError", extra, outcome);
}

static int judge_run(const struct qfc_run *run, json_t *extra, struct qfc_outcome *outcome)
{
    enum qfc_reason killed = killed_by(run);
    int64_t code = run->end == QFC_END_DEADLINE ? EXIT_BY_DEADLINE : run->exit_code;
    if (json_object_set_new(extra, "container_exit_code", json_integer(code)) < 0)
        return -1;
    if (killed)
        return judge_killed(run, killed, extra, outcome);
    if (judge_exit(run, extra, outcome) < 0)
        return -1;
    if (run->failure)
        return judge_failure(run, extra, outcome);
    if (!outcome->finished)
        look_for_denial(run, outcome);
    return 0;
}

static int judge(const struct qfc_run *run, json_t *extra, struct qfc_outcome *outcome)
{
    int r = run->end == QFC_END_NO_RUN ? judge_failure(run, extra, outcome) : judge_run(run, extra, outcome);
    if (!*outcome->advice)
        outcome->advice = qfc_reason_words(outcome->reason)->advice;
    end_output(run, outcome);
    return r;
}

int qfc_outcome_decide(const struct qfc_run *run, struct qfc_outcome *ret_outcome, struct qfc_error *error)
{
    struct qfc_outcome outcome = {.advice = ""};
    json_t *extra = json_object();
    if (extra && judge(run, extra, &outcome) == 0)
        outcome.extra = json_dumps(extra, JSON_COMPACT);
    json_decref(extra);
    if (!outcome.extra) {
        qfc_outcome_free(&outcome);
        return qfc_fail_memory(error);
    }
    *ret_outcome = outcome;
    return 0;
}

void qfc_outcome_free(struct qfc_outcome *outcome)
{
    free(outcome->extra);
    qfc_buffer_free(&outcome->wrapped);
    *outcome = (struct qfc_outcome){0};
}
