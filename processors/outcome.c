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

#define EXIT_KILLED      (128 + SIGKILL)
#define EXIT_BY_DEADLINE (-1)

/* The members that a failure adds to the feedback. */
struct failure {
    const char *error;
    const char *type;   /* error_type, or null */
    const char *class;  /* error_class */
    const char *origin; /* "container", "worker_wrapper" */
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
    int r = json_object_set_new(extra, "error", clean_string(failure->error));
    if (r == 0 && failure->type)
        r = json_object_set_new(extra, "error_type", json_string(failure->type));
    if (r == 0)
        r = json_object_set_new(extra, "error_class", json_string(failure->class));
    if (r == 0)
        r = json_object_set_new(extra, "error_stack", json_string(""));
    if (r == 0)
        r = json_object_set_new(extra, "error_origin", json_string(failure->origin));
    return r;
}

/* Where the container cannot speak for itself any more, or its own word explains nothing. */
static bool killed(const struct qfc_run *run, struct failure *ret_failure)
{
    if (run->end == QFC_END_DEADLINE)
        *ret_failure = (struct failure){"Worker timeout error.", "TIMEOUT", "", "container"};
    else if (run->oom_killed && (run->exit_code != 0 || !run->feedback))
        *ret_failure = (struct failure){"The job ran out of memory: its container was killed at its memory limit.",
                                        "OUT_OF_MEMORY", "", "container"};
    else if (run->exit_code == EXIT_KILLED)
        *ret_failure = (struct failure){"Docker engine sigkill.", "DOCKER_ENGINE_SIGKILL", "", "container"};
    else
        return false;
    return true;
}

static void say(struct qfc_outcome *outcome, const char *text)
{
    snprintf(outcome->reason, sizeof outcome->reason, "%s", text);
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

static int fail_by_worker(const char *text, const char *type, const char *class, json_t *extra,
                          struct qfc_outcome *outcome)
{
    const struct failure failure = {text, type, class, "worker_wrapper"};
    outcome->finished = false;
    say(outcome, text);
    return add_failure(extra, &failure);
}

static int judge_without_feedback(const struct qfc_run *run, json_t *extra, struct qfc_outcome *outcome)
{
    struct qfc_error why = QFC_NO_ERROR;
    if (run->feedback_failure)
        why = *run->feedback_failure;
    if (run->exit_code != 0)
        qfc_context(&why, "exit code %lld", (long long)run->exit_code);
    return fail_by_worker(why.message, NULL, "FeedbackError", extra, outcome);
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
        return fail_by_worker("feedback.json is JSON, but not an object", NULL, "FeedbackError", extra, outcome);
    }
    outcome->feedback = feedback->json;
    outcome->finished = run->exit_code == 0 && feedback->error == QFC_FEEDBACK_NO_ERROR;
    if (!outcome->finished && feedback->error_text && *feedback->error_text)
        say(outcome, feedback->error_text);
    else if (!outcome->finished)
        snprintf(outcome->reason, sizeof outcome->reason, "exit code %lld, and no error in the feedback",
                 (long long)run->exit_code);
    if (feedback->error == QFC_FEEDBACK_TRUTHY_ERROR)
        return json_object_set_new(extra, "error_origin", json_string("container"));
    return 0;
}

static int judge(const struct qfc_run *run, json_t *extra, struct qfc_outcome *outcome)
{
    struct failure failure;
    if (run->end == QFC_END_NO_RUN) {
        snprintf(outcome->output_end, sizeof outcome->output_end, "%s\n", run->failure->message);
        return fail_by_worker(run->failure->message, run->failure_type, "WorkerError", extra, outcome);
    }
    int64_t code = run->end == QFC_END_DEADLINE ? EXIT_BY_DEADLINE : run->exit_code;
    if (json_object_set_new(extra, "container_exit_code", json_integer(code)) < 0)
        return -1;
    if (run->end == QFC_END_DEADLINE)
        snprintf(outcome->output_end, sizeof outcome->output_end,
                 "\nTimeout error! The job failed to finish within %u seconds!\n", run->timeout_s);
    if (killed(run, &failure)) {
        say(outcome, failure.error);
        return add_failure(extra, &failure);
    }
    if (judge_exit(run, extra, outcome) < 0)
        return -1;
    /* The container did well, but what should have been done with it could not be. */
    return run->failure ? fail_by_worker(run->failure->message, run->failure_type, "WorkerError", extra, outcome) : 0;
}

int qfc_outcome_decide(const struct qfc_run *run, struct qfc_outcome *ret_outcome, struct qfc_error *error)
{
    struct qfc_outcome outcome = {0};
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
