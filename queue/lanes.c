/*
 * The queue's connections. PostgreSQL answers one statement after another on each, so what may take long has a lane of
 * its own: one job that waits for somebody's lock, or writes 50 MB, holds up no other job and no claim.
 *
 *   claims   claims, watches, hears of new jobs; never waits for a row
 *   quick    the transitions of jobs; gives up a lock after a moment
 *   patient  those that have met a lock: waits for it a while; made when it is needed, left when it is not
 *   bulk     those that are large; likewise
 */
#include "queue_private.h"

#include "qfc/setup.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONNECT_MS   10000
#define RETRY_MIN_MS 250
#define RETRY_MAX_MS 5000 /* well before somebody else takes our jobs over: see recover.c */

/* No statement of ours runs long; one that does is hung. */
#define STATEMENT_TIMEOUT "60s"
#define ANSWER_MS         90000

#define NAME_SIZE (MARKER_SIZE + 16)

/* A lane that is not always needed is left after so long. */
#define IDLE_MS 60000

static const struct {
    const char *suffix;       /* of the marker, as application_name */
    const char *lock_timeout; /* how long a statement waits for somebody's lock */
    bool always;              /* there as long as the queue is */
    const char *plans;        /* plan_cache_mode */
} kinds[LANE_COUNT] = {
    /* A long history makes the claim look dear, whose plan does not depend on its values: it would be made each time. */
    [LANE_CLAIMS] = {"", "100ms", true, "force_generic_plan"},
    [LANE_QUICK] = {":quick", "100ms", true, "auto"},
    [LANE_PATIENT] = {":patient", "500ms", false, "auto"},
    [LANE_BULK] = {":bulk", "500ms", false, "auto"},
};

bool qfc_queue_ready(const struct qfc_queue *queue)
{
    return queue->lanes[LANE_CLAIMS].ready && queue->lanes[LANE_QUICK].ready;
}

/* The others begin when the first one stands: see check_session. */
static void open_the_others(struct qfc_queue *queue)
{
    struct qfc_error error = QFC_NO_ERROR;
    for (enum lane_kind kind = LANE_CLAIMS; kind < LANE_COUNT; kind++)
        if (kinds[kind].always && !queue->lanes[kind].pg && lane_open(queue, kind, &error) < 0)
            queue->options.on_state(queue->options.userdata, false, &error, 0);
}

/* Of a lane that is not always there: once, since others go on meanwhile. */
static void say_trouble(struct lane *lane, const struct qfc_error *why)
{
    if (why && !lane->told && lane->queue->options.on_notice)
        lane->queue->options.on_notice(lane->queue->options.userdata, "WARNING", why->message);
    lane->told = why != NULL;
}

static void on_state(void *userdata, enum qfc_pg_state state, const struct qfc_error *why, unsigned retry_ms)
{
    struct lane *lane = userdata;
    struct qfc_queue *queue = lane->queue;
    bool was_ready = qfc_queue_ready(queue);
    lane->ready = state == QFC_PG_READY;
    if (!lane->ready && lane->kind == LANE_CLAIMS)
        locks_lost(queue);
    if (lane->ready)
        open_the_others(queue);
    if (!kinds[lane->kind].always) {
        say_trouble(lane, why);
        return;
    }
    if (why)
        queue->options.on_state(queue->options.userdata, false, why, retry_ms);
    else if (!was_ready && qfc_queue_ready(queue))
        queue->options.on_state(queue->options.userdata, true, NULL, 0);
}

static void on_notice(void *userdata, const char *severity, const char *message)
{
    struct qfc_queue *queue = ((struct lane *)userdata)->queue;
    if (queue->options.on_notice)
        queue->options.on_notice(queue->options.userdata, severity, message);
}

static void on_notify(void *userdata, const char *channel, const char *payload)
{
    struct qfc_queue *queue = ((struct lane *)userdata)->queue;
    if (strcmp(channel, WORDS_CHANNEL) == 0) {
        if (queue->told)
            queue->told(queue->told_userdata, payload);
    } else if (queue->options.on_news)
        queue->options.on_news(queue->options.userdata, (unsigned)strtoul(payload, NULL, 16));
}

int lane_pooled(struct qfc_error *error)
{
    return qfc_fail(error, QFC_ERROR_REFUSED, 0,
                    "the connection goes through a pooler that gives each transaction another session (PgBouncer with "
                    "pool_mode=transaction or statement): connect to PostgreSQL itself, or through a pool with "
                    "pool_mode=session");
}

/*
 * Each connection must have a session of its own. A pooler that hands sessions out by the transaction gives a second
 * connection the one that the first, which is idle now, has just used; so they are opened one after another. When the
 * pooler is busy this may not show at once, but later with claims: see qfc_queue_claim.
 */
static int check_session(struct lane *lane, const PGresult *probe, struct qfc_error *error)
{
    const char *session = qfc_pg_text(probe, 0, "session");
    if (lane->queue->pooled)
        return lane_pooled(error);
    for (enum lane_kind kind = LANE_CLAIMS; kind < LANE_COUNT; kind++) {
        const struct lane *other = &lane->queue->lanes[kind];
        if (other != lane && other->ready && strcmp(other->session, session) == 0)
            return lane_pooled(error);
    }
    snprintf(lane->session, sizeof lane->session, "%s", session);
    return 0;
}

static int on_setup(void *userdata, const struct qfc_pg_results *results, struct qfc_error *error)
{
    struct lane *lane = userdata;
    const PGresult *probe = results->items[results->count - 1];
    if (qfc_release_read(probe, &lane->queue->release, error) < 0)
        return -1;
    return check_session(lane, probe, error);
}

/* A standby takes no LISTEN: what it is, the probe tells. */
static const char listen_sql[] = "DO $$ BEGIN IF NOT pg_is_in_recovery() THEN EXECUTE 'LISTEN " QFC_SETUP_CHANNEL "';"
                                 " EXECUTE 'LISTEN " WORDS_CHANNEL "'; END IF; END $$";

/*
 * A session of ours whose connection was lost may still be there, with its locks: on jobs, and on rows.
 */
static const char end_former_sql[] =
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = "
    "current_setting('application_name')"
    " AND application_name ~ '^qfc-worker:[0-9a-f]{16}:'"
    " AND usename = current_user AND datname = current_database() AND pid <> pg_backend_pid()";

/* So that the server notices a client's host that is gone. A setting that it does not have (PostgreSQL 13) is left. */
static const char notice_death_sql[] =
    "SELECT set_config(name, value, false) FROM pg_settings JOIN (VALUES ('tcp_keepalives_idle', '10'),"
    " ('tcp_keepalives_interval', '5'), ('tcp_keepalives_count', '2'), ('tcp_user_timeout', '20000'),"
    " ('client_connection_check_interval', '10000')) AS wanted (name, value) USING (name)"
    " WHERE name <> 'client_connection_check_interval' OR version() LIKE '%linux%'";

/* Releasing a lock that somebody else has taken meanwhile is worth no word. */
static const char quiet_sql[] = "SET client_min_messages = error";

/* The session must not depend on what the role or the database has set. The probe comes last: see on_setup. */
static int make_setup(const struct lane *lane, struct qfc_statements *setup, struct qfc_error *error)
{
    const struct qfc_queue *queue = lane->queue;
    if (QFC_ADD(setup, error,
                "SELECT set_config('lock_timeout', $1, false), set_config('statement_timeout', $2, false),"
                " set_config('default_transaction_isolation', 'read committed', false),"
                " set_config('timezone', 'UTC', false), set_config('qfc_worker.time_zone', $3, false),"
                " set_config('qfc_worker.legacy_storage', $4, false), set_config('plan_cache_mode', $5, false)",
                kinds[lane->kind].lock_timeout, STATEMENT_TIMEOUT, queue->time_zone, queue->legacy_storage,
                kinds[lane->kind].plans) < 0)
        return -1;
    if (qfc_statements_add(setup, end_former_sql, 0, NULL, error) < 0 ||
        qfc_statements_add(setup, notice_death_sql, 0, NULL, error) < 0)
        return -1;
    if (lane->kind == LANE_CLAIMS && qfc_statements_add(setup, quiet_sql, 0, NULL, error) < 0)
        return -1;
    if (lane->kind == LANE_CLAIMS && qfc_statements_add(setup, listen_sql, 0, NULL, error) < 0)
        return -1;
    return qfc_release_probe(setup, error);
}

/*
 * The session's name in pg_stat_activity, of which PostgreSQL keeps 63 bytes. That of the lane for claims is the marker,
 * which names the host; the others have room for what the process says of itself: see report.c.
 */
static void name_lane(const struct qfc_queue *queue, enum lane_kind kind, char name[NAME_SIZE])
{
    if (!*kinds[kind].suffix)
        snprintf(name, NAME_SIZE, "%s", queue->marker);
    else
        snprintf(name, NAME_SIZE, "%.27s:%.25s%s", queue->marker, queue->about, kinds[kind].suffix);
}

int lane_open(struct qfc_queue *queue, enum lane_kind kind, struct qfc_error *error)
{
    struct lane *lane = &queue->lanes[kind];
    struct qfc_statements setup = {0};
    char name[NAME_SIZE];
    *lane = (struct lane){.queue = queue, .kind = kind};
    name_lane(queue, kind, name);
    int r = make_setup(lane, &setup, error);
    const struct qfc_pg_options options = {
        .conninfo = queue->conninfo,
        .application_name = name,
        .connect_ms = CONNECT_MS,
        .answer_ms = ANSWER_MS,
        .retry_min_ms = RETRY_MIN_MS,
        .retry_max_ms = RETRY_MAX_MS,
        .setup = &setup,
        .on_setup = on_setup,
        .on_state = on_state,
        .on_notice = on_notice,
        .on_notify = on_notify,
        .userdata = lane,
    };
    if (r == 0 && !(lane->pg = qfc_pg_new(queue->loop, &options, error)))
        r = -1;
    qfc_statements_free(&setup);
    return r;
}

void lanes_close(struct qfc_queue *queue)
{
    for (enum lane_kind kind = LANE_CLAIMS; kind < LANE_COUNT; kind++) {
        if (queue->lanes[kind].pg)
            qfc_pg_free(queue->lanes[kind].pg);
        queue->lanes[kind] = (struct lane){0};
    }
}

struct lane *lane_of(struct qfc_queue *queue, enum lane_kind kind, struct qfc_error *error)
{
    struct lane *lane = &queue->lanes[kind];
    if (!lane->pg && lane_open(queue, kind, error) < 0)
        return NULL;
    lane->used_ms = uv_now(queue->loop);
    return lane;
}

void lanes_tidy(struct qfc_queue *queue)
{
    uint64_t now = uv_now(queue->loop);
    for (enum lane_kind kind = LANE_CLAIMS; kind < LANE_COUNT; kind++) {
        struct lane *lane = &queue->lanes[kind];
        if (kinds[kind].always || !lane->pg || lane->under_way > 0 || now - lane->used_ms < IDLE_MS)
            continue;
        qfc_pg_free(lane->pg);
        *lane = (struct lane){0};
    }
}
