/*
 * The advisory locks that say whose a job is. The session of the lane for claims holds one for each job of this process;
 * what is to be done about them goes along with the next batch there, so that it costs no round trip.
 */
#include "queue_private.h"

#include <stdio.h>
#include <string.h>

/* Ids that wait; a worker has 256 slots, and a batch every few seconds at the latest. */
#define UNOWNED_MAX_BYTES (64 * 1024)

void qfc_queue_disown(struct qfc_queue *queue, const char *id)
{
    queue->unowned.maximum = UNOWNED_MAX_BYTES;
    if (qfc_buffer_printf(&queue->unowned, "%s,", id) < 0)
        queue->locks_doubtful = true;
}

bool qfc_queue_has_spare_locks(const struct qfc_queue *queue)
{
    return queue->unowned.size > 0 || queue->locks_doubtful;
}

/* clang-format off */

/* $1 the jobs. */
static const char unlock_sql[] = "SELECT pg_advisory_unlock(" LOCK_KEY("id") ") FROM unnest($1::uuid[]) AS id";

/* This session's locks: one row each, of `key`. */
#define OUR_LOCKS                                                                                                      \
    "(SELECT (classid::bigint << 32) | objid::bigint AS key FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1"\
    " AND pid = pg_backend_pid()) AS held"

/* $1 our jobs: other locks go. */
static const char unlock_others_sql[] =
    "SELECT pg_advisory_unlock(held.key) FROM " OUR_LOCKS
    " WHERE held.key NOT IN (SELECT " LOCK_KEY("id") " FROM unnest($1::uuid[]) AS id)";

/* $1 our jobs. One that another session holds stays without: the next watch tries again, or tells whose it is. */
const char locks_take_sql[] =
    "SELECT id, pg_try_advisory_lock(" LOCK_KEY("id") ") AS held FROM unnest($1::uuid[]) AS id"
    " WHERE " LOCK_KEY("id") " NOT IN (SELECT key FROM " OUR_LOCKS ")";

/* clang-format on */

static int add_unlock(struct qfc_queue *queue, struct qfc_statements *statements, struct qfc_error *error)
{
    struct qfc_buffer ids = qfc_buffer(UNOWNED_MAX_BYTES + 3);
    int r = qfc_buffer_printf(&ids, "{%.*s}", (int)queue->unowned.size - 1, qfc_buffer_text(&queue->unowned));
    r = r < 0 ? qfc_fail_memory(error) : QFC_ADD(statements, error, unlock_sql, ids.data);
    qfc_buffer_free(&ids);
    if (r == 0)
        qfc_buffer_free(&queue->unowned);
    return r;
}

int locks_add(struct qfc_queue *queue, const char *known, struct qfc_statements *statements, struct qfc_error *error)
{
    if (queue->locks_doubtful && known) {
        if (QFC_ADD(statements, error, unlock_others_sql, known) < 0)
            return -1;
        queue->locks_doubtful = false;
        queue->locks_missing = true; /* of a job that is just being adopted, perhaps */
        qfc_buffer_free(&queue->unowned);
    }
    return queue->unowned.size > 0 ? add_unlock(queue, statements, error) : 0;
}

void locks_lost(struct qfc_queue *queue)
{
    qfc_buffer_free(&queue->unowned);
    queue->locks_doubtful = false;
    queue->locks_missing = true;
}

/* clang-format off */

/* Two numbers make a lock of another kind than a job's (objsubid 2): the first says that it is ours. $1 the engine. */
#define GUARD_CLASS "1902535543"
static const char guard_sql[] =
    "WITH engine AS (SELECT ('x' || left(md5($1::text), 8))::bit(32)::integer AS key)"
    " SELECT CASE WHEN EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2"
    " AND pid = pg_backend_pid() AND classid = " GUARD_CLASS " AND objid = (key::bigint & 4294967295)::oid) THEN true"
    " ELSE pg_try_advisory_lock(" GUARD_CLASS ", key) END AS held FROM engine";

/* clang-format on */

int qfc_queue_guard(struct qfc_queue *queue, const char *engine, qfc_pg_done *done, void *userdata,
                    struct qfc_error *error)
{
    struct qfc_statements statements = {0};
    int r = QFC_ADD(&statements, error, guard_sql, engine);
    return send_fenced(queue, LANE_CLAIMS, r, &statements, done, userdata, error);
}
