/*
 * Duties: what one of many workers does for all. Whose one is, a lock of the session for claims says, so that it goes with
 * its worker; words that all workers hear (NOTIFY) let the next one know what the last one knew.
 *
 * The keys have two halves, which keeps them apart from those of jobs: pg_locks shows the former with objsubid 2.
 */
#include "queue_private.h"

#include <stdio.h>
#include <string.h>

#define DUTY_SPACE "1902535543" /* 'qfcw' */

#define WORD_MAX_BYTES 7900 /* PostgreSQL takes less than 8000 */

/* $1 the second half of the key. To take what is ours already would count it twice. */
static const char duty_sql[] =
    "SELECT CASE WHEN EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND pid = "
    "pg_backend_pid() AND classid::bigint = " DUTY_SPACE " AND objid::bigint = $1::integer) THEN true"
    " ELSE pg_try_advisory_lock(" DUTY_SPACE ", $1::integer) END AS ours";

/* FNV-1a (datatracker.ietf.org/doc/draft-eastlake-fnv), without the sign. */
static unsigned hash(const char *name)
{
    uint32_t value = 2166136261u;
    for (; *name; name++)
        value = (value ^ (unsigned char)*name) * 16777619u;
    return value & 0x7FFFFFFF;
}

int qfc_queue_duty(struct qfc_queue *queue, const char *name, qfc_pg_done *done, void *userdata,
                   struct qfc_error *error)
{
    struct qfc_statements statements = {0};
    char key[16];
    snprintf(key, sizeof key, "%u", hash(name));
    int r = QFC_ADD(&statements, error, duty_sql, key);
    return send_fenced(queue, LANE_CLAIMS, r, &statements, done, userdata, error);
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
