/*
 * The fence: what is written to a job's row, and what goes with it, is written only while the row is ours.
 *
 * An UPDATE that finds no row is no error to PostgreSQL, and in a pipeline the statements after it would commit. So
 * each transition ends its first statement in a cast that fails when nothing was updated. What cannot be cast tells
 * what the row is instead: "qfc-fence failed", "qfc-fence gone".
 */
#include "queue_private.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char fence_sql[] = "SELECT CASE WHEN EXISTS (SELECT FROM core_job WHERE id = $1 AND " IS_OURS ") THEN 1"
                         " ELSE " FENCE_FAILS " END";

void reconnect_if_changed(struct lane *lane, const struct qfc_error *error)
{
    static const char *const changed[] = {"25006", "42P01", "42703"};
    for (size_t i = 0; error && i < sizeof changed / sizeof *changed; i++)
        if (strcmp(error->sqlstate, changed[i]) == 0)
            qfc_pg_reconnect(lane->pg, error);
}

/* What the fence found instead of a row of ours. */
static void translate_fence(const char *told, struct qfc_error *error)
{
    char status[33];
    snprintf(status, sizeof status, "%.*s", (int)strcspn(told, " \""), told);
    if (strcmp(status, "gone") == 0)
        qfc_fail(error, QFC_ERROR_LOST, ENOENT, "the job's row is gone");
    else if (strcmp(status, "changing") == 0)
        qfc_fail(error, QFC_ERROR_AGAIN, 0, "the job's row was changed at the same moment");
    else if (strcmp(status, "queued") == 0 || strcmp(status, "started") == 0)
        qfc_fail(error, QFC_ERROR_TAKEN, 0, "the job is %s, but for another worker", status);
    else
        qfc_fail(error, QFC_ERROR_LOST, 0, "somebody else has made the job %s", status);
}

/* What a job type's statement found not to be as it should. */
static void translate_refusal(const char *told, struct qfc_error *error)
{
    const char *end = strstr(told, REFUSED_END);
    char text[QFC_ERROR_MESSAGE_SIZE];
    snprintf(text, sizeof text, "%.*s", (int)(end ? end - told : (ptrdiff_t)strlen(told)), told);
    qfc_fail(error, QFC_ERROR_REFUSED, 0, "%s", text);
}

/*
 * The mark that the failed cast was of, or null: it stands at the beginning of the text that was to be an integer.
 * What follows may hold anything, other marks too, since it can quote what a container wrote. (Nothing that comes from
 * a container is cast to an integer.)
 */
static const char *find_mark(const char *message, const char *mark)
{
    static const char *const marks[] = {FENCE_MARK, REFUSED_MARK, CHANGED_MARK};
    const char *place = strstr(message, "integer"), *first = NULL;
    for (size_t i = 0; place && i < sizeof marks / sizeof *marks; i++) {
        const char *found = strstr(place, marks[i]);
        if (found && (!first || found < first))
            first = found;
    }
    return first && strncmp(first, mark, strlen(mark)) == 0 ? first + strlen(mark) : NULL;
}

void fence_translate(struct qfc_error *error)
{
    const char *told;
    if (error->kind != QFC_ERROR_REFUSED || strcmp(error->sqlstate, "22P02") != 0)
        return;
    if ((told = find_mark(error->message, FENCE_MARK)))
        translate_fence(told, error);
    else if ((told = find_mark(error->message, REFUSED_MARK)))
        translate_refusal(told, error);
    else if (find_mark(error->message, CHANGED_MARK))
        qfc_fail(error, QFC_ERROR_CHANGED, 0, "what the outcome was made from has changed since");
}

struct call end_call(struct call *call)
{
    struct call ended = *call;
    *call->link = call->next;
    if (call->next)
        call->next->link = call->link;
    call->lane->under_way--;
    free(call);
    return ended;
}

static struct call *begin_call(struct lane *lane, const struct call *given)
{
    struct qfc_queue *queue = lane->queue;
    struct call *call = malloc(sizeof *call);
    if (!call)
        return NULL;
    *call = *given;
    call->queue = queue;
    call->lane = lane;
    lane->under_way++;
    call->next = queue->calls;
    call->link = &queue->calls;
    if (call->next)
        call->next->link = &call->next;
    queue->calls = call;
    return call;
}

int send_call(struct qfc_queue *queue, enum lane_kind kind, int added, struct qfc_statements *statements,
              qfc_pg_done *answered, const struct call *given, struct qfc_error *error)
{
    struct call *call = NULL;
    struct lane *lane = NULL;
    int r = added;
    if (r == 0 && !qfc_queue_names(queue))
        r = qfc_fail(error, QFC_ERROR_BUG, 0, "the queue was asked before it was connected");
    if (r == 0 && !(lane = lane_of(queue, kind, error)))
        r = -1;
    if (r == 0 && !(call = begin_call(lane, given)))
        r = qfc_fail_memory(error);
    if (r == 0)
        r = qfc_statements_expand(statements, queue->release.names, error);
    if (r == 0)
        r = qfc_pg_send(lane->pg, statements, answered, call, NULL, error);
    if (r < 0 && call)
        end_call(call);
    if (r < 0)
        qfc_statements_free(statements);
    return r;
}

/* A fence's error and any other go to the caller through here. */
static void answered_fenced(void *userdata, const struct qfc_error *error, const struct qfc_pg_results *results)
{
    struct call call = end_call(userdata);
    struct qfc_error translated = error ? *error : QFC_NO_ERROR;
    reconnect_if_changed(call.lane, error);
    fence_translate(&translated);
    call.done(call.userdata, error ? &translated : NULL, results);
}

int send_fenced(struct qfc_queue *queue, enum lane_kind kind, int added, struct qfc_statements *statements,
                qfc_pg_done *done, void *userdata, struct qfc_error *error)
{
    const struct call call = {.done = done, .userdata = userdata};
    return send_call(queue, kind, added, statements, answered_fenced, &call, error);
}
