/*
 * `qfc-worker jobs cancel`, `retry` and `requeue`: says what it will do, asks, and does it, each job in a transaction of
 * its own that looks again with the row locked.
 */
#include "command.h"
#include "jobs.h"

#include "qfc/actions.h"
#include "qfc/log.h"
#include "qfc/pg.h"
#include "qfc/processor.h"

#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define POLL_MS 200

/* Of a statement that waits for the row's lock. */
static const char begin_sql[] = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = '5s'";

/* One job that is named. */
struct target {
    const char *given;
    char id[QFC_UUID_SIZE];
    char project[QFC_UUID_SIZE];
    char version[24];            /* of the row, when it was first looked at */
    struct qfc_decision promise; /* what was said that would be done */
};

struct request {
    enum qfc_action action;
    bool yes, dry_run, force;
    double wait_s;
    struct target *targets;
    size_t count;
    uint64_t looked_ms; /* when all were looked at */
};

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void pause_ms(uint64_t ms)
{
    const struct timespec pause = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000};
    nanosleep(&pause, NULL);
}

/* The command line */

static int take_option(struct request *request, const char *name, const char *value)
{
    if (strcmp(name, "yes") == 0)
        request->yes = true;
    else if (strcmp(name, "dry-run") == 0)
        request->dry_run = true;
    else if (strcmp(name, "force") == 0)
        request->force = true;
    else if ((request->wait_s = parse_age(value)) < 0)
        return wrong("--wait: expected seconds, or a time like 2m", value);
    return QFC_EXIT_OK;
}

static int parse(const struct command *command, int argc, char **argv, struct request *request)
{
    struct arguments arguments = {.command = command, .argc = argc, .argv = argv};
    const char *name, *value;
    enum argument next;
    request->targets = calloc((size_t)argc + 1, sizeof *request->targets);
    if (!request->targets)
        return QFC_EXIT_FAULT;
    while ((next = next_argument(&arguments, &name, &value)) != ARGUMENT_END) {
        if (next == ARGUMENT_WRONG)
            return QFC_EXIT_USAGE;
        if (next == ARGUMENT_OPERAND)
            request->targets[request->count++].given = value;
        else if (take_option(request, name, value) != QFC_EXIT_OK)
            return QFC_EXIT_USAGE;
    }
    return request->count > 0 ? QFC_EXIT_OK : wrong("which job? Give its id, or the id's first 8 digits", NULL);
}

/* Looking */

static void say(const struct target *target, const char *what)
{
    printf("%.8s  %s\n", *target->id ? target->id : target->given, what);
}

static int look(const struct jobs *jobs, const struct request *request, struct target *target, bool take,
                struct qfc_decision *ret_decision, PGresult **ret_row, struct qfc_error *error)
{
    struct qfc_statements list = {0};
    PGresult *row;
    if (qfc_action_look(&list, target->id, take, error) < 0 || jobs_ask(jobs, &list, &row, error) < 0)
        return -1;
    qfc_action_decide(request->action, request->force, row, ret_decision);
    *ret_row = row;
    return 0;
}

static void keep(char *out, size_t size, const PGresult *row, const char *column)
{
    const char *text = qfc_pg_text(row, 0, column);
    snprintf(out, size, "%s", text ? text : "");
}

static int look_first(const struct jobs *jobs, const struct request *request, struct target *target,
                      struct qfc_error *error)
{
    PGresult *row;
    if (jobs_find(jobs, target->given, target->id, error) < 0)
        return qfc_context(error, "%s", target->given);
    if (look(jobs, request, target, false, &target->promise, &row, error) < 0)
        return -1;
    keep(target->version, sizeof target->version, row, "version");
    keep(target->project, sizeof target->project, row, "project_id");
    PQclear(row);
    return 0;
}

/* What was promised and may be done: not what is refused, nor what has to be wanted expressly. */
static bool is_wanted(const struct request *request, const struct target *target)
{
    return target->promise.effect != QFC_EFFECT_NONE && (!target->promise.risky || request->yes || request->dry_run);
}

/* Looks at all and says what would be done; `ret_wanted` gets the number of those for which something would be. */
static int look_at_all(const struct jobs *jobs, struct request *request, size_t *ret_wanted, struct qfc_error *error)
{
    size_t wanted = 0;
    for (size_t i = 0; i < request->count; i++) {
        struct target *target = &request->targets[i];
        if (look_first(jobs, request, target, error) < 0)
            return -1;
        say(target, target->promise.says);
        if (target->promise.effect != QFC_EFFECT_NONE && !is_wanted(request, target))
            say(target, "is left alone: this needs --yes");
        wanted += is_wanted(request, target);
    }
    request->looked_ms = now_ms();
    *ret_wanted = wanted;
    return 0;
}

/* Asking */

static bool confirm(size_t wanted, size_t count)
{
    char answer[16];
    if (!isatty(STDIN_FILENO)) {
        fprintf(stderr, "qfc-worker: nothing was changed: without a terminal to ask on, this needs --yes\n");
        return false;
    }
    if (wanted == 1 && count == 1)
        fprintf(stderr, "Do this? [y/N] ");
    else
        fprintf(stderr, "Do this for %zu of %zu jobs? [y/N] ", wanted, count);
    bool yes =
        fgets(answer, sizeof answer, stdin) && (strcasecmp(answer, "y\n") == 0 || strcasecmp(answer, "yes\n") == 0);
    if (!yes)
        fprintf(stderr, "qfc-worker: nothing was changed\n");
    return yes;
}

/* Doing */

static void log_action(const struct request *request, const struct target *target)
{
    static const char *const done[] = {
        [QFC_ACTION_CANCEL] = "cancel", [QFC_ACTION_RETRY] = "retry", [QFC_ACTION_REQUEUE] = "requeue"};
    const struct qfc_log_about about = {.job = target->id, .project = target->project};
    const char *by_sudo = getenv("SUDO_USER");
    const struct passwd *entry = getpwuid(getuid());
    char host[64] = "";
    gethostname(host, sizeof host - 1);
    qfc_log(QFC_LOG_INFO, &about, "jobs %s by %s%s%s on %s: %s", done[request->action], entry ? entry->pw_name : "?",
            by_sudo && *by_sudo ? " for " : "", by_sudo ? by_sudo : "", host, target->promise.says);
}

/* What the job type itself writes: its deltas. Other types' tables belong to jobs that ran. */
static int add_type(const PGresult *row, const struct qfc_decision *decision, const char *id,
                    struct qfc_statements *list, struct qfc_error *error)
{
    struct qfc_job job = {0};
    const struct qfc_job_rows rows = {.job = &job};
    const struct qfc_job_end end = {0};
    const char *type = qfc_pg_text(row, 0, "type");
    const struct qfc_processor *processor = type && strcmp(type, "delta_apply") == 0 ? qfc_processor_of(type) : NULL;
    snprintf(job.id, sizeof job.id, "%s", id);
    if (!processor || decision->effect == QFC_EFFECT_ASK)
        return 0;
    return decision->effect == QFC_EFFECT_FAIL ? processor->fail(&rows, &end, list, error)
                                               : processor->put_back(&rows, list, error);
}

static int write_all(const struct jobs *jobs, struct qfc_statements *list, struct qfc_error *error)
{
    int r = qfc_statements_expand(list, jobs->release.names, error);
    for (size_t i = 0; r == 0 && i < list->count; i++) {
        PGresult *result;
        r = database_ask(jobs->connection, &list->items[i], &result, error);
        if (r == 0)
            PQclear(result);
    }
    qfc_statements_free(list);
    return r;
}

/* Is what is found now still what was promised? */
static bool keeps(const struct request *request, const struct target *target, const struct qfc_decision *now,
                  const PGresult *row)
{
    const char *version = PQntuples(row) > 0 ? qfc_pg_text(row, 0, "version") : NULL;
    if (now->effect != target->promise.effect || (now->risky && !target->promise.risky && !request->yes))
        return false;
    return !now->settle || (version && strcmp(version, target->version) == 0);
}

/* Within the transaction. `ret_done`: false where the job is not any more what it was; `target->promise` then says what
 * it is. */
static int do_locked(const struct jobs *jobs, const struct request *request, struct target *target, bool *ret_done,
                     struct qfc_error *error)
{
    struct qfc_statements list = {0};
    struct qfc_decision decision;
    PGresult *row;
    int r = qfc_action_lock(&list, target->id, error);
    r = r == 0 ? write_all(jobs, &list, error) : r;
    if (r < 0 || look(jobs, request, target, true, &decision, &row, error) < 0)
        return -1;
    bool kept = keeps(request, target, &decision, row);
    if (kept) {
        r = qfc_action_write(request->action, &decision, target->id, &list, error);
        if (r == 0 && request->action != QFC_ACTION_RETRY)
            r = add_type(row, &decision, target->id, &list, error);
        r = r == 0 ? write_all(jobs, &list, error) : r;
        qfc_statements_free(&list);
    }
    target->promise = decision;
    *ret_done = kept;
    PQclear(row);
    return r;
}

static int do_one(const struct jobs *jobs, const struct request *request, struct target *target, bool *ret_done,
                  struct qfc_error *error)
{
    uint64_t settled_ms = request->looked_ms + QFC_ACTION_SETTLE_S * 1000, now = now_ms();
    if (target->promise.settle && now < settled_ms)
        pause_ms(settled_ms - now);
    int r = database_begin(jobs->connection, begin_sql, error);
    if (r == 0)
        r = do_locked(jobs, request, target, ret_done, error);
    if (r == 0 && *ret_done)
        r = database_commit(jobs->connection, error);
    else
        database_rollback(jobs->connection);
    if (r < 0 && error->kind == QFC_ERROR_AGAIN)
        qfc_context(error, "somebody holds the job's row: nothing was changed, try again");
    if (r < 0 && error->kind == QFC_ERROR_UNKNOWN)
        qfc_context(error, "whether it was done is not known, \"jobs show\" tells");
    if (r < 0)
        return qfc_context(error, "job %s", target->id);
    if (*ret_done)
        log_action(request, target);
    return 0;
}

/* Waiting for a worker */

/* How the job stands: "failed", "finished", ... and why it failed. */
static int ask_end(const struct jobs *jobs, const struct target *target, char status[33], char type[64],
                   struct qfc_error *error)
{
    struct qfc_statements list = {0};
    PGresult *row;
    int r = QFC_ADD(&list, error,
                    "SELECT status, left(feedback ->> 'error_type', 60) AS error_type FROM core_job WHERE id = $1",
                    target->id);
    if (r < 0 || jobs_ask(jobs, &list, &row, error) < 0)
        return -1;
    keep(status, 33, row, "status");
    keep(type, 64, row, "error_type");
    PQclear(row);
    return 0;
}

static bool is_active(const char *status)
{
    return strcmp(status, "queued") == 0 || strcmp(status, "started") == 0;
}

/* What became of the wish. Returns whether it was fulfilled. */
static bool say_end(const struct request *request, const struct target *target, const char *status, const char *type)
{
    char text[200];
    bool cancelled = strcmp(status, "failed") == 0 && strcmp(type, "CANCELLED") == 0;
    if (is_active(status))
        snprintf(text, sizeof text, "was asked to end, and has not ended within %.0f s: it will, when its worker looks",
                 request->wait_s);
    else if (cancelled)
        snprintf(text, sizeof text, "is failed now (CANCELLED)");
    else if (!*status)
        snprintf(text, sizeof text, "is gone: it was deleted meanwhile");
    else
        snprintf(text, sizeof text, "was not cancelled: it had come to its own end before, and is %s", status);
    say(target, text);
    return cancelled;
}

static int wait_for_end(const struct jobs *jobs, const struct request *request, struct target *target, bool *ret_done,
                        struct qfc_error *error)
{
    char status[33], type[64];
    uint64_t until_ms = now_ms() + (uint64_t)(request->wait_s * 1000);
    do {
        pause_ms(POLL_MS);
        if (ask_end(jobs, target, status, type, error) < 0)
            return qfc_context(error, "job %s was asked to end; wait for that", target->id);
    } while (is_active(status) && now_ms() < until_ms);
    if (strcmp(status, "pending") != 0) {
        *ret_done = say_end(request, target, status, type);
        return 0;
    }
    /* Its worker has put it back at the same moment. */
    target->promise.effect = QFC_EFFECT_FAIL;
    if (do_one(jobs, request, target, ret_done, error) < 0)
        return -1;
    say(target, target->promise.says);
    return 0;
}

static int do_target(const struct jobs *jobs, const struct request *request, struct target *target, bool *ret_done,
                     struct qfc_error *error)
{
    if (do_one(jobs, request, target, ret_done, error) < 0)
        return -1;
    if (!*ret_done) {
        say(target, target->promise.effect == QFC_EFFECT_NONE
                        ? target->promise.says
                        : "has changed at this moment: nothing was done, try again");
        return 0;
    }
    if (target->promise.effect == QFC_EFFECT_ASK)
        return wait_for_end(jobs, request, target, ret_done, error);
    say(target, "done");
    return 0;
}

static int do_all(const struct jobs *jobs, const struct request *request, size_t *ret_done, struct qfc_error *error)
{
    for (size_t i = 0; i < request->count; i++) {
        bool done = false;
        fflush(stdout);
        if (is_wanted(request, &request->targets[i]) &&
            do_target(jobs, request, &request->targets[i], &done, error) < 0)
            return -1;
        *ret_done += done;
    }
    return 0;
}

/* The exit code is that of success where something was done, or would be, for each of the jobs. */
static int change(const struct jobs *jobs, struct request *request)
{
    struct qfc_error error = QFC_NO_ERROR;
    size_t wanted = 0, done = 0;
    if (look_at_all(jobs, request, &wanted, &error) < 0)
        return failed(&error);
    fflush(stdout);
    if (request->dry_run || wanted == 0)
        return wanted == request->count ? QFC_EXIT_OK : QFC_EXIT_FAULT;
    if (!request->yes && !confirm(wanted, request->count))
        return QFC_EXIT_FAULT;
    if (do_all(jobs, request, &done, &error) < 0)
        return failed(&error);
    return done == request->count ? QFC_EXIT_OK : QFC_EXIT_FAULT;
}

int jobs_requeue(const struct jobs *jobs, const char *const *ids, size_t count, bool dry_run, jobs_said *said,
                 void *userdata, struct qfc_error *error)
{
    struct request request = {.action = QFC_ACTION_REQUEUE, .dry_run = dry_run, .count = count};
    int r = 0;
    request.targets = calloc(count + 1, sizeof *request.targets);
    if (!request.targets)
        return qfc_fail_memory(error);
    for (size_t i = 0; r == 0 && i < count; i++) {
        request.targets[i].given = ids[i];
        r = look_first(jobs, &request, &request.targets[i], error);
    }
    request.looked_ms = now_ms();
    for (size_t i = 0; r == 0 && i < count; i++) {
        struct target *target = &request.targets[i];
        bool wanted = target->promise.effect == QFC_EFFECT_PENDING && !target->promise.risky, done = wanted;
        if (wanted && !dry_run)
            r = do_one(jobs, &request, target, &done, error);
        if (r == 0)
            said(userdata, target->id, done, target->promise.says);
    }
    free(request.targets);
    return r;
}

static int run(const struct command *command, int argc, char **argv, enum qfc_action action)
{
    struct request request = {.action = action, .wait_s = 30};
    struct jobs jobs;
    int code = parse(command, argc, argv, &request);
    if (code == QFC_EXIT_OK)
        code = jobs_open(&jobs, command->name);
    if (code == QFC_EXIT_OK) {
        code = change(&jobs, &request);
        jobs_close(&jobs);
    }
    free(request.targets);
    return code;
}

static int run_cancel(const struct command *command, int argc, char **argv)
{
    return run(command, argc, argv, QFC_ACTION_CANCEL);
}

static int run_retry(const struct command *command, int argc, char **argv)
{
    return run(command, argc, argv, QFC_ACTION_RETRY);
}

static int run_requeue(const struct command *command, int argc, char **argv)
{
    return run(command, argc, argv, QFC_ACTION_REQUEUE);
}

#define YES                                                                                                            \
    {                                                                                                                  \
        "yes", NULL, "do it without asking, also what has a warning"                                                   \
    }
#define DRY_RUN                                                                                                        \
    {                                                                                                                  \
        "dry-run", NULL, "only say what would be done"                                                                 \
    }

static const struct option_info cancel_options[] = {
    YES,
    DRY_RUN,
    {"force", NULL, "mark a running job failed at once, whoever has it: also one of QFieldCloud's own worker"},
    {"wait", "SECONDS", "how long to wait for the worker that runs the job; 30 when not given"},
    {0},
};
static const struct option_info options[] = {YES, DRY_RUN, {0}};

#define EXIT_CODES "The exit code is 1 where something was not done, or would not be.\n"

const struct command command_jobs_cancel = {
    .name = "jobs cancel",
    .operands = "JOB ...",
    .summary = "end jobs that wait or run: they become failed (CANCELLED), their deltas error",
    .more = "A running job is ended by the worker that has it; this waits for that. " EXIT_CODES,
    .options = cancel_options,
    .run = run_cancel,
};

const struct command command_jobs_retry = {
    .name = "jobs retry",
    .operands = "JOB ...",
    .summary = "let failed jobs wait again, with those of their deltas that are not applied",
    .more = "A job that may have changed something before it failed needs --yes. " EXIT_CODES,
    .options = options,
    .run = run_retry,
};

const struct command command_jobs_requeue = {
    .name = "jobs requeue",
    .operands = "JOB ...",
    .summary = "let jobs wait again that are queued or started, and that no worker has any more",
    .more = "Workers do so by themselves within a minute; this is for when none is alive. A job that may have changed\n"
            "something is not run twice. " EXIT_CODES,
    .options = options,
    .run = run_requeue,
};
