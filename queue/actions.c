/*
 * What an operator may do to a job: see qfc/actions.h.
 */
#include "qfc/actions.h"

#include "queue_private.h"

#include "qfc/report.h"
#include "qfc/setup.h"
#include "qfc/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* clang-format off */

/* Deltas that a further run must leave alone: they were applied since, somebody has decided about them, or another job
 * that is under way has them. */
#define IS_DECIDED(delta)                                                                                              \
    "(" delta ".last_status IN ('applied', 'ignored', 'unpermitted') OR EXISTS (SELECT FROM core_applyjobdelta x"      \
    " JOIN core_job y ON y.id = x.apply_job_id WHERE x.delta_id = " delta ".id AND x.apply_job_id <> $1"               \
    " AND y.status IN ('pending', 'queued', 'started')))"

/* $1 the job, $2 take its lock. */
static const char look_sql[] =
    "SELECT j.id, j.xmin::text AS version, j.status, j.type, j.project_id, p.name AS project, u.username AS owner_name,"
    " j.docker_started_at IS NOT NULL AS ran, " IS_MARKER("j.container_id") " AS never_started,"
    " CASE WHEN NOT " IS_MARKER("j.container_id") " THEN nullif(j.container_id, '') END AS container,"
    " substr(CASE WHEN " IS_MARKER("j.container_id") " THEN j.container_id"
    "  ELSE j.feedback #>> '{qfc_worker,worker}' END, 29) AS host,"
    " CASE WHEN j.status NOT IN ('queued', 'started') THEN NULL"
    "  WHEN CASE WHEN $2::boolean THEN NOT pg_try_advisory_xact_lock(" LOCK_KEY("j.id") ")"
    "   ELSE NOT " IS_UNOWNED("j.id") " END THEN 'worker'"
    "  WHEN " IS_MARKER("j.container_id") " OR j.feedback #> '{qfc_worker,worker}' IS NOT NULL THEN 'lost'"
    "  WHEN j.status = 'started' THEN 'old' ELSE 'nobody' END AS held_by,"
    " pg_postmaster_start_time() > clock_timestamp() - interval '15 seconds' AS just_restarted,"
    " EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()"
    "  AND application_name ~ '^qfc-worker:[0-9a-f]{16}:') AS workers,"
    " deltas.* FROM core_job j LEFT JOIN {project} p ON p.id = j.project_id LEFT JOIN core_user u ON u.id = p.owner_id,"
    " LATERAL (SELECT count(*) AS deltas, count(*) FILTER (WHERE " IS_DECIDED("d") ") AS decided"
    "  FROM core_applyjobdelta o JOIN core_delta d ON d.id = o.delta_id WHERE o.apply_job_id = $1) AS deltas"
    " WHERE j.id = $1";

/* $1 the job. What the container has written so far stays; what the worker kept in the feedback goes, as ever. */
static const char fail_sql[] =
    "UPDATE core_job SET status = 'failed', output = coalesce(output || E'\\n', '') || E'The job was cancelled.\\n',"
    " feedback = CASE jsonb_typeof(feedback) WHEN 'object' THEN feedback - 'qfc_worker' ELSE '{}'::jsonb END"
    "  || '{\"error\": \"The job was cancelled.\", \"error_type\": \"CANCELLED\", \"error_class\": \"WorkerError\","
    " \"error_stack\": \"\", \"error_origin\": \"worker_wrapper\"}',"
    " started_at = coalesce(started_at, now()), finished_at = now(), updated_at = now(),"
    " container_id = CASE WHEN " IS_MARKER("container_id") " THEN '' ELSE container_id END WHERE id = $1";

/* The worker finds the flag at its next watch; the notification is for those that would rather not wait for it. */
static const char ask_sql[] =
    "UPDATE core_job SET feedback = CASE jsonb_typeof(feedback) WHEN 'object' THEN feedback ELSE '{}'::jsonb END"
    " || jsonb_build_object('qfc_worker', " TRAIL " || '{\"cancel\": true}'::jsonb) WHERE id = $1"
    " RETURNING pg_notify('" QFC_SETUP_CHANNEL "', right(id::text, 2))";

/* As if it had never been claimed. */
static const char pending_sql[] =
    "UPDATE core_job SET status = 'pending', output = NULL, feedback = NULL, container_id = '', started_at = NULL,"
    " finished_at = NULL, docker_started_at = NULL, docker_finished_at = NULL, updated_at = now() WHERE id = $1";

/* Deltas that are decided leave the job, since a run takes all that it has; the others wait again. */
static const char drop_deltas_sql[] =
    "DELETE FROM core_applyjobdelta o USING core_delta d WHERE o.apply_job_id = $1 AND d.id = o.delta_id AND "
    IS_DECIDED("d");
static const char retry_deltas_sql[] =
    "WITH ours AS (UPDATE core_applyjobdelta SET status = 'pending', feedback = NULL, modified_pk = NULL"
    " WHERE apply_job_id = $1 RETURNING delta_id)"
    " UPDATE core_delta SET last_status = 'pending', last_feedback = NULL WHERE id IN (SELECT delta_id FROM ours)";

/* clang-format on */

int qfc_action_lock(struct qfc_statements *list, const char *id, struct qfc_error *error)
{
    return QFC_ADD(list, error, "SELECT FROM core_job WHERE id = $1 FOR NO KEY UPDATE", id);
}

int qfc_action_look(struct qfc_statements *list, const char *id, bool take, struct qfc_error *error)
{
    return QFC_ADD(list, error, look_sql, id, take ? "true" : "false");
}

/* What was found, for those who judge it. */
struct found {
    const char *status, *type, *held_by, *container, *host;
    bool ran;            /* its container was about to be started, or more */
    bool never_started;  /* of an active one: claimed by a worker of ours, and no container was started */
    bool harmless;       /* may be run a second time */
    bool just_restarted; /* PostgreSQL: owners may be on their way back */
    bool workers;        /* one of ours is alive */
    long deltas, decided;
};

static const char *text(const PGresult *look, const char *column)
{
    const char *found = qfc_pg_text(look, 0, column);
    return found ? found : "";
}

static struct found read_look(const PGresult *look)
{
    struct found found = {
        .status = text(look, "status"),
        .type = text(look, "type"),
        .held_by = text(look, "held_by"),
        .container = text(look, "container"),
        .host = text(look, "host"),
        .ran = qfc_pg_true(look, "ran"),
        .never_started = qfc_pg_true(look, "never_started"),
        .just_restarted = qfc_pg_true(look, "just_restarted"),
        .workers = qfc_pg_true(look, "workers"),
        .deltas = strtol(text(look, "deltas"), NULL, 10),
        .decided = strtol(text(look, "decided"), NULL, 10),
    };
    found.harmless = strcmp(found.type, "package") == 0 || strcmp(found.type, "process_projectfile") == 0;
    return found;
}

static bool is(const char *text, const char *other)
{
    return strcmp(text, other) == 0;
}

/* Adds to what the decision says. */
__attribute__((format(printf, 2, 3))) static void say(struct qfc_decision *decision, const char *format, ...)
{
    size_t length = strlen(decision->says);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(decision->says + length, sizeof decision->says - length, format, arguments);
    va_end(arguments);
}

static void say_deltas(struct qfc_decision *decision, const struct found *found, const char *what)
{
    if (found->deltas > 0)
        say(decision, ", %s %ld delta%s %s", found->deltas == 1 ? "its" : "its", found->deltas,
            found->deltas == 1 ? "" : "s", what);
}

static void fail_it(struct qfc_decision *decision, const struct found *found)
{
    decision->effect = QFC_EFFECT_FAIL;
    say(decision, "becomes failed (CANCELLED)");
    say_deltas(decision, found, "error");
}

static void say_container(struct qfc_decision *decision, const struct found *found, const char *what)
{
    if (*found->container)
        say(decision, "%s \"docker kill %.12s\"", what, found->container);
}

static void force(struct qfc_decision *decision, const struct found *found)
{
    fail_it(decision, found);
    if (is(found->held_by, "old") || is(found->held_by, "nobody")) {
        decision->risky = true;
        say(decision, "; QFieldCloud's own worker asks nobody: when its container ends, it writes its own outcome over "
                      "this");
        say_container(decision, found, ", so stop that one first:");
    }
}

static void cancel(struct qfc_decision *decision, const struct found *found, bool forced)
{
    if (is(found->status, "pending")) {
        fail_it(decision, found);
    } else if (!*found->held_by) {
        say(decision, "has ended already: nothing to cancel");
    } else if (forced) {
        force(decision, found);
    } else if (is(found->held_by, "nobody")) {
        decision->settle = true;
        fail_it(decision, found);
    } else if (is(found->held_by, "old")) {
        say(decision, "is QFieldCloud's own worker's, which takes no wishes: stop its container");
        say_container(decision, found, " with");
        say(decision, ", which fails the job; --force marks it failed as the web application's own task does, whatever "
                      "its worker does then");
    } else {
        decision->effect = QFC_EFFECT_ASK;
        say(decision, "is ended by its worker (%s) and becomes failed (CANCELLED)", *found->host ? found->host : "?");
        say_deltas(decision, found, "error");
        if (!found->workers)
            say(decision, "; but no worker is alive: as soon as one is; --force marks it failed at once");
    }
}

/* What a second run of it may do. */
static void warn(struct qfc_decision *decision, const struct found *found)
{
    decision->risky = true;
    say(decision, is(found->type, "delta_apply")
                      ? ". WARNING: its container ran, and may have uploaded changes before it failed: they would be "
                        "applied twice"
                      : ". WARNING: its container ran, and may have done part of its work: it would be done twice");
}

static void retry(struct qfc_decision *decision, const struct found *found)
{
    if (is(found->status, "pending")) {
        say(decision, "waits already: nothing to retry");
    } else if (*found->held_by) {
        say(decision, "is under way: nothing to retry; \"jobs requeue\" is for jobs that nobody has any more");
    } else if (!is(found->status, "failed")) {
        say(decision, "has not failed: nothing to retry");
    } else if (found->deltas > 0 && found->decided == found->deltas) {
        say(decision, "has no delta left: all %ld were applied or decided since, or are with another job",
            found->deltas);
    } else {
        decision->effect = QFC_EFFECT_PENDING;
        say(decision, "becomes pending");
        if (found->deltas > 0)
            say(decision, ", with %ld of its %ld deltas", found->deltas - found->decided, found->deltas);
        if (found->decided > 0)
            say(decision, " (the others were applied or decided since, or are with another job: they leave this one)");
        if (found->ran && !found->harmless)
            warn(decision, found);
    }
}

static void requeue_lost(struct qfc_decision *decision, const struct found *found)
{
    if (found->just_restarted) {
        say(decision, "may be a worker's that is just coming back: PostgreSQL has restarted less than 15 s ago");
    } else if (!found->never_started && !found->harmless) {
        say(decision,
            "was started, and nobody knows how far it has come: it is not run twice. A worker on its engine takes it "
            "over, or fails it; \"jobs cancel --force\" does so at once");
    } else {
        decision->effect = QFC_EFFECT_PENDING;
        say(decision, "becomes pending: its worker (%s) is gone", *found->host ? found->host : "?");
        if (!found->never_started) {
            decision->risky = true;
            say(decision, ". WARNING: its container may still run");
            say_container(decision, found, "; where it does,");
            say(decision, " stops it; a worker on that engine would take the job over instead");
        }
    }
}

static void requeue(struct qfc_decision *decision, const struct found *found)
{
    if (is(found->status, "pending"))
        say(decision, "waits already: nothing to put back");
    else if (!*found->held_by)
        say(decision, "has ended: nothing to put back; \"jobs retry\" is for failed jobs");
    else if (is(found->held_by, "worker"))
        say(decision, "is under way on a worker that lives (%s): nothing to put back; \"jobs cancel\" ends it",
            *found->host ? found->host : "?");
    else if (is(found->held_by, "old"))
        say(decision, "was started by QFieldCloud's own worker, which nobody can see: its scheduled task fails the job "
                      "when its time is over; \"jobs cancel --force\" and \"jobs retry\" do by hand what it will not");
    else if (is(found->held_by, "lost"))
        requeue_lost(decision, found);
    else {
        decision->effect = QFC_EFFECT_PENDING;
        decision->settle = true;
        say(decision, "becomes pending: no worker has it");
    }
}

/* Names come from outside. */
static void say_name(struct qfc_decision *decision, const PGresult *look)
{
    char type[34], name[100];
    qfc_text_harmless_line(type, sizeof type, text(look, "type"));
    qfc_text_harmless_line(name, sizeof name, text(look, "owner_name"));
    say(decision, "%s %s job of %s/", text(look, "status"), type, name);
    qfc_text_harmless_line(name, sizeof name, text(look, "project"));
    say(decision, "%s ", name);
}

void qfc_action_decide(enum qfc_action action, bool forced, const PGresult *look, struct qfc_decision *ret_decision)
{
    struct qfc_decision decision = {0};
    if (PQntuples(look) == 0) {
        say(&decision, "is gone: deleted, with its project perhaps");
        *ret_decision = decision;
        return;
    }
    const struct found found = read_look(look);
    say_name(&decision, look);
    if (action == QFC_ACTION_CANCEL)
        cancel(&decision, &found, forced);
    else if (action == QFC_ACTION_RETRY)
        retry(&decision, &found);
    else
        requeue(&decision, &found);
    *ret_decision = decision;
}

int qfc_action_write(enum qfc_action action, const struct qfc_decision *decision, const char *id,
                     struct qfc_statements *list, struct qfc_error *error)
{
    static const char *const sql[] = {
        [QFC_EFFECT_FAIL] = fail_sql, [QFC_EFFECT_ASK] = ask_sql, [QFC_EFFECT_PENDING] = pending_sql};
    int r = 0;
    if (decision->effect != QFC_EFFECT_NONE)
        r = QFC_ADD(list, error, sql[decision->effect], id);
    if (action != QFC_ACTION_RETRY || decision->effect != QFC_EFFECT_PENDING)
        return r;
    if (r == 0)
        r = QFC_ADD(list, error, drop_deltas_sql, id);
    return r == 0 ? QFC_ADD(list, error, retry_deltas_sql, id) : r;
}
