/*
 * Duties: what one of many workers does for all. Whose one is, a lock of the session for claims says, so that it goes with
 * its worker; words that all workers hear (NOTIFY) let the next one know what the last one knew. Looks for new jobs ask
 * for them on their way, so that they cost an idle worker no statement.
 *
 * The keys have two halves, which keeps them apart from those of jobs: pg_locks shows the former with objsubid 2.
 */
#include "queue_private.h"

#include <stdio.h>
#include <string.h>
#include <uv.h>

#define DUTY_SPACE "1902535543" /* 'qfcw' */

#define WORD_MAX_BYTES 7900 /* PostgreSQL takes less than 8000 */

/* To take what is ours already would count it twice. */
#define DUTY(key)                                                                                                      \
    "(CASE WHEN EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND pid = pg_backend_pid()"  \
    " AND classid::bigint = " DUTY_SPACE " AND objid::bigint = " key ") THEN true"                                     \
    " ELSE pg_try_advisory_lock(" DUTY_SPACE ", " key ") END)"

/* A look comes every five seconds at the latest, by default, where there is one at all. */
#define LOOKS_LATELY_MS 6000

/* FNV-1a (datatracker.ietf.org/doc/draft-eastlake-fnv), without the sign. */
static unsigned hash(const char *name)
{
    uint32_t value = 2166136261u;
    for (; *name; name++)
        value = (value ^ (unsigned char)*name) * 16777619u;
    return value & 0x7FFFFFFF;
}

int duties_add(struct qfc_queue *queue, struct qfc_buffer *sql, struct call *look)
{
    for (size_t i = 0; i < DUTIES; i++) {
        struct duty *duty = &queue->duties[i];
        if (*duty->key && qfc_buffer_printf(sql, ", " DUTY("%s") " AS duty_%zu", duty->key, duty->key, i) < 0)
            return -1;
        look->duties[i] = *duty;
    }
    memset(queue->duties, 0, sizeof queue->duties);
    return 0;
}

void duties_answered(const struct call *look, const struct qfc_error *error, const PGresult *row)
{
    char column[16];
    for (size_t i = 0; i < DUTIES; i++) {
        const struct duty *duty = &look->duties[i];
        snprintf(column, sizeof column, "duty_%zu", i);
        if (*duty->key)
            duty->done(duty->userdata, error, !error && qfc_pg_true(row, column));
    }
}

static void on_asked(void *userdata, const struct qfc_error *error, const struct qfc_pg_results *results)
{
    struct call call = end_call(userdata);
    duties_answered(&call, error, error ? NULL : results->items[0]);
}

/* A question of its own, for what waits: there may be no look for long. */
static int ask_alone(struct qfc_queue *queue, struct qfc_error *error)
{
    struct qfc_statements statements = {0};
    struct qfc_buffer sql = qfc_buffer(SQL_MAX_BYTES);
    struct call call = {0};
    int r = qfc_buffer_append_text(&sql, "SELECT pg_backend_pid() AS session");
    r = r < 0 || duties_add(queue, &sql, &call) < 0 ? qfc_fail_memory(error) : 0;
    if (r == 0)
        r = qfc_statements_add(&statements, sql.data, 0, NULL, error);
    qfc_buffer_free(&sql);
    return send_call(queue, LANE_CLAIMS, r, &statements, on_asked, &call, error);
}

int qfc_queue_duty(struct qfc_queue *queue, const char *name, qfc_queue_duty_done *done, void *userdata,
                   struct qfc_error *error)
{
    struct duty asked = {.done = done, .userdata = userdata};
    struct duty *place = NULL;
    snprintf(asked.key, sizeof asked.key, "%u", hash(name));
    bool waits = false;
    for (size_t i = 0; i < DUTIES && !waits; i++) {
        waits = strcmp(queue->duties[i].key, asked.key) == 0;
        if (waits || (!place && !*queue->duties[i].key))
            place = &queue->duties[i];
    }
    if (!place)
        return qfc_fail(error, QFC_ERROR_BUG, 0, "more duties than %d", DUTIES);
    *place = asked;
    if (!waits && uv_now(queue->loop) - queue->looked_ms < LOOKS_LATELY_MS)
        return 0;
    return ask_alone(queue, error);
}

static void on_told_all(void *userdata, const struct qfc_error *error, const struct qfc_pg_results *results)
{
}

int qfc_queue_tell(struct qfc_queue *queue, const char *word, struct qfc_error *error)
{
    struct qfc_statements statements = {0};
    if (strlen(word) > WORD_MAX_BYTES)
        return qfc_fail(error, QFC_ERROR_INVALID, 0, "a word to all workers is too long");
    int r = QFC_ADD(&statements, error, "SELECT pg_notify('" WORDS_CHANNEL "', $1)", word);
    return send_fenced(queue, LANE_CLAIMS, r, &statements, on_told_all, NULL, error);
}

void qfc_queue_on_told(struct qfc_queue *queue, qfc_queue_told *told, void *userdata)
{
    queue->told = told;
    queue->told_userdata = userdata;
}
