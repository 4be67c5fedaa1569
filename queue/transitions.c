/*
 * The transitions of a claimed job's row: one fenced transaction each.
 */
#include "queue_private.h"

#include <stdio.h>
#include <string.h>

/* Why earlier attempts came to nothing. */
#define REASONS                                                                                                        \
    "CASE jsonb_typeof(core_job.feedback #> '{qfc_worker,reasons}') WHEN 'array'"                                      \
    " THEN core_job.feedback #> '{qfc_worker,reasons}' ELSE '[]'::jsonb END"

/* Around an UPDATE named `mine`: fails the transaction when it found no row of ours. */
#define WHERE_OURS   " WHERE id = $1 AND " IS_OURS
#define UPDATE_FENCE " RETURNING id) SELECT CASE WHEN EXISTS (SELECT FROM mine) THEN 1 ELSE " FENCE_FAILS " END"

/* An id that no row has, for a job without container: "" would match rows that are nobody's. */
static const char *container_or_marker(const struct qfc_queue *queue, const char *container)
{
    return container && *container ? container : queue->marker;
}

/* From this size of its texts on a batch takes PostgreSQL longer than others should wait. */
#define BULK_BYTES (256 * 1024)

static enum lane_kind lane_for(const struct qfc_job *job, size_t bytes)
{
    if (job->patient)
        return LANE_PATIENT;
    return bytes >= BULK_BYTES ? LANE_BULK : LANE_QUICK;
}

/* Sends the row's statement, which was `added` to the list well or not, with the job type's writes behind it. */
static int send_transition(struct qfc_queue *queue, enum lane_kind kind, int added, struct qfc_statements *statements,
                           struct qfc_statements *writes, qfc_pg_done *done, void *userdata, struct qfc_error *error)
{
    if (added == 0)
        added = qfc_statements_move(statements, writes, error);
    if (added < 0)
        qfc_statements_free(writes);
    return send_fenced(queue, kind, added, statements, done, userdata, error);
}

/* Gives a query the values that it asks for: PostgreSQL refuses one that is not used. */
static int add_read(struct qfc_statements *statements, const char *sql, const struct qfc_job *job,
                    struct qfc_error *error)
{
    const char *values[] = {job->id, job->project_id};
    size_t count = strstr(sql, "$2") ? 2 : strstr(sql, "$1") ? 1 : 0;
    return qfc_statements_add_texts(statements, sql, count, values, error);
}

int qfc_queue_read(struct qfc_queue *queue, const struct qfc_job *job, const char *container, const char *const *reads,
                   size_t count, bool small, qfc_pg_done *done, void *userdata, struct qfc_error *error)
{
    struct qfc_statements statements = {0};
    int r = QFC_ADD(&statements, error, fence_sql, job->id, queue->marker, container_or_marker(queue, container));
    for (size_t i = 0; r == 0 && i < count; i++)
        r = add_read(&statements, reads[i], job, error);
    return send_fenced(queue, small && !job->patient ? LANE_CLAIMS : lane_for(job, 0), r, &statements, done, userdata,
                       error);
}

int qfc_queue_prepare(struct qfc_queue *queue, const struct qfc_job *job, const char *container, const char *engine,
                      struct qfc_statements *writes, qfc_pg_done *done, void *userdata, struct qfc_error *error)
{
    char attempts[16];
    snprintf(attempts, sizeof attempts, "%u", job->attempt);
    struct qfc_statements statements = {0};
    int r = QFC_ADD(&statements, error,
                    "WITH mine AS (UPDATE core_job SET status = 'started', container_id = $3, started_at = now(),"
                    " docker_started_at = now(), finished_at = NULL, docker_finished_at = NULL,"
                    " feedback = jsonb_build_object('qfc_worker', " TRAIL " || jsonb_build_object('worker', $2::text,"
                    " 'engine', $4::text, 'attempts', $5::integer))" WHERE_OURS UPDATE_FENCE,
                    job->id, queue->marker, container, engine, attempts);
    return send_transition(queue, lane_for(job, 0), r, &statements, writes, done, userdata, error);
}

int qfc_queue_show(struct qfc_queue *queue, const struct qfc_job *job, const char *container, const char *output,
                   const struct qfc_running_step *step, qfc_pg_done *done, void *userdata, struct qfc_error *error)
{
    char age[24];
    snprintf(age, sizeof age, "%.3f", step->age_s);
    static const char sql[] =
        "WITH free AS (SELECT id FROM core_job" WHERE_OURS " FOR NO KEY UPDATE SKIP LOCKED)"
        " UPDATE core_job SET output = $4::text, feedback = jsonb_build_object('qfc_worker', " TRAIL
        " || jsonb_build_object('step', $5::text, 'step_since', CASE WHEN $6::numeric >= 0"
        " THEN round(extract(epoch FROM clock_timestamp())::numeric - $6::numeric, 3) END))"
        " FROM free WHERE core_job.id = free.id";
    struct qfc_statements statements = {0};
    int r = QFC_ADD(&statements, error, sql, job->id, queue->marker, container_or_marker(queue, container), output,
                    step->name, age);
    return send_fenced(queue, LANE_QUICK, r, &statements, done, userdata, error);
}

/*
 * A large text goes in parts, so that libpq's copy is that of one part: settings of the transaction, which take any text,
 * need no right, leave nothing behind, and are put together by the statement that writes the row.
 */
#define PART_BYTES     (256 * 1024)
#define JOINED(parts)  "string_agg(current_setting('qfc_worker." parts "_' || number), '' ORDER BY number)"
#define FROM_PARTS(to) " FROM generate_series(1, " to "::integer) AS number"

/* Where a part that begins at `at` ends: before a character that would be cut. */
static size_t part_size(const char *at, size_t left)
{
    size_t size = left < PART_BYTES ? left : PART_BYTES;
    while (size < left && size > 1 && ((unsigned char)at[size] & 0xC0) == 0x80)
        size--;
    return size;
}

/* `ret_count` is their number, as text; no text is none. */
static int add_parts(struct qfc_statements *statements, const char *name, const char *text, size_t left,
                     char ret_count[16], struct qfc_error *error)
{
    unsigned count = 0;
    for (size_t size; text && (size = part_size(text, left)) > 0; text += size, left -= size) {
        char setting[48];
        snprintf(setting, sizeof setting, "qfc_worker.%s_%u", name, ++count);
        const struct qfc_value values[] = {{.text = setting}, {.text = text, .kind = QFC_VALUE_PART, .size = size}};
        if (qfc_statements_add(statements, "SELECT length(set_config($1, $2, true))", 2, values, error) < 0)
            return -1;
    }
    snprintf(ret_count, 16, "%u", count);
    return 0;
}

/* Where output and feedback come from differs. error_stack is an array up to v26.14 and text from v26.15: text always. */
#define FINISH(output, feedback)                                                                                       \
    "WITH given AS (SELECT " output " AS output, coalesce(" feedback "::jsonb, '{}'::jsonb) AS feedback),"             \
    " mine AS (UPDATE core_job SET status = $4, output = CASE WHEN $10::boolean THEN given.output || (SELECT"          \
    " coalesce(E'\\nBefore:' || string_agg(E'\\n' || number || '. ' || reason, '' ORDER BY number), '')"               \
    " FROM jsonb_array_elements_text(" REASONS ") WITH ORDINALITY AS earlier (reason, number)) ELSE given.output END," \
    " feedback = given.feedback"                                                                                       \
    " || CASE WHEN jsonb_typeof(given.feedback -> 'error_stack') = 'array' THEN jsonb_build_object('error_stack',"     \
    " (SELECT coalesce(string_agg(line, '' ORDER BY number), '') FROM"                                                 \
    " jsonb_array_elements_text(CASE WHEN jsonb_typeof(given.feedback -> 'error_stack') = 'array'"                     \
    " THEN given.feedback -> 'error_stack' END) WITH ORDINALITY AS stack (line, number)))"                             \
    " ELSE '{}'::jsonb END || $7::jsonb,"                                                                              \
    " started_at = coalesce(started_at, now()), finished_at = now(),"                                                  \
    " docker_finished_at = docker_started_at + $8::double precision * interval '1 millisecond',"                       \
    " container_id = CASE WHEN container_id = $2 THEN $9 ELSE container_id END"                                        \
    " FROM given" WHERE_OURS UPDATE_FENCE

int qfc_queue_finish(struct qfc_queue *queue, const struct qfc_job *job, const struct qfc_ending *ending,
                     struct qfc_statements *writes, qfc_pg_done *done, void *userdata, struct qfc_error *error)
{
    static const char whole[] = FINISH("$5::text", "$6");
    static const char joined[] = FINISH("(SELECT coalesce(" JOINED("output") ", '')" FROM_PARTS("$5") ")",
                                        "(SELECT " JOINED("feedback") FROM_PARTS("$6") ")");
    struct qfc_statements statements = {0};
    char outputs[16], feedbacks[16];
    const char *container = container_or_marker(queue, ending->container);
    struct qfc_value values[] = {
        {job->id, QFC_VALUE_COPY},
        {queue->marker, QFC_VALUE_COPY},
        {container, QFC_VALUE_COPY},
        {ending->finished ? "finished" : "failed", QFC_VALUE_COPY},
        {ending->output, QFC_VALUE_BORROWED},
        {ending->feedback, QFC_VALUE_BORROWED},
        {ending->feedback_extra, QFC_VALUE_COPY},
        {ending->ran_ms, QFC_VALUE_COPY},
        {ending->container ? ending->container : "", QFC_VALUE_COPY},
        {ending->tell_earlier ? "true" : "false", QFC_VALUE_COPY},
    };
    size_t output_bytes = strlen(ending->output), feedback_bytes = ending->feedback ? strlen(ending->feedback) : 0;
    bool large = output_bytes + feedback_bytes >= BULK_BYTES;
    int r = 0;
    if (large) {
        r = add_parts(&statements, "output", ending->output, output_bytes, outputs, error);
        if (r == 0)
            r = add_parts(&statements, "feedback", ending->feedback, feedback_bytes, feedbacks, error);
        values[4] = (struct qfc_value){.text = outputs};
        values[5] = (struct qfc_value){.text = feedbacks};
    }
    if (r == 0)
        r = qfc_statements_add(&statements, large ? joined : whole, sizeof values / sizeof *values, values, error);
    return send_transition(queue, lane_for(job, output_bytes + feedback_bytes), r, &statements, writes, done, userdata,
                           error);
}

/* Of a job that was cancelled meanwhile the fence says that its row is changing, until the watch tells. */
int qfc_queue_put_back(struct qfc_queue *queue, const struct qfc_job *job, const struct qfc_return *how,
                       struct qfc_statements *writes, qfc_pg_done *done, void *userdata, struct qfc_error *error)
{
    static const char sql[] =
        "WITH mine AS (UPDATE core_job SET status = 'pending', container_id = '', started_at = NULL,"
        " docker_started_at = NULL, docker_finished_at = NULL, output = NULL,"
        " feedback = jsonb_build_object('qfc_worker', jsonb_build_object('attempts', $4::integer,"
        " 'faults', $5::integer, 'reasons', " REASONS " || CASE WHEN $8::boolean THEN jsonb_build_array($6::text)"
        " ELSE '[]'::jsonb END, 'not_before',"
        " round((extract(epoch FROM clock_timestamp()) + $7::double precision)::numeric, 3)))" WHERE_OURS
        " AND (" IS_CANCELLED ") IS NOT TRUE" UPDATE_FENCE;
    char attempts[16], faults[16], delay[32];
    snprintf(attempts, sizeof attempts, "%u", job->attempt);
    snprintf(faults, sizeof faults, "%u", how->faults);
    snprintf(delay, sizeof delay, "%.3f", how->delay_s);
    struct qfc_statements statements = {0};
    int r = QFC_ADD(&statements, error, sql, job->id, queue->marker, container_or_marker(queue, how->container),
                    attempts, faults, how->reason, delay, how->faults > job->faults ? "true" : "false");
    return send_transition(queue, lane_for(job, 0), r, &statements, writes, done, userdata, error);
}

int qfc_queue_write(struct qfc_queue *queue, struct qfc_statements *writes, qfc_pg_done *done, void *userdata,
                    struct qfc_error *error)
{
    return send_fenced(queue, LANE_BULK, 0, writes, done, userdata, error);
}
