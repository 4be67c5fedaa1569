/*
 * The life of the one connection: attempt, setup, traffic, loss, and the wait before the next attempt.
 */
#include "pg_private.h"

#include "qfc/random.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define TICK_MS 1000

struct pg_watch {
    uv_poll_t handle;
    struct qfc_pg *pg;
    int fd;
    int events; /* what the handle polls for now */
};

static void on_timer(uv_timer_t *timer);

/* --- The socket on the loop --------------------------------------------------------------------------------------- */

static void free_watch(uv_handle_t *handle)
{
    free(handle->data);
}

void pg_unwatch(struct qfc_pg *pg)
{
    if (pg->watch)
        uv_close((uv_handle_t *)&pg->watch->handle, free_watch);
    pg->watch = NULL;
}

/* libpq may close the socket and open another one under the same number: to be called before it can. */
static void pause_watch(struct qfc_pg *pg)
{
    if (!pg->watch)
        return;
    uv_poll_stop(&pg->watch->handle);
    pg->watch->events = 0;
}

static void on_socket(uv_poll_t *handle, int status, int events);

static int open_watch(struct qfc_pg *pg, int fd)
{
    struct pg_watch *watch = calloc(1, sizeof(*watch));

    if (!watch)
        return UV_ENOMEM;
    int status = uv_poll_init(pg->loop, &watch->handle, fd);
    if (status < 0) {
        free(watch);
        return status;
    }
    watch->handle.data = watch;
    watch->pg = pg;
    watch->fd = fd;
    pg->watch = watch;
    return 0;
}

/* Polls the connection's socket for these events and no others. */
static void watch_socket(struct qfc_pg *pg, int events)
{
    int fd = PQsocket(pg->conn);
    int status = 0;

    if (pg->watch && pg->watch->fd != fd)
        pg_unwatch(pg);
    if (!pg->watch)
        status = fd >= 0 ? open_watch(pg, fd) : UV_EBADF;
    if (status == 0 && pg->watch->events != events) {
        status = uv_poll_start(&pg->watch->handle, events, on_socket);
        pg->watch->events = events;
    }
    if (status < 0) {
        struct qfc_error error;
        pg_lost_error(pg, uv_strerror(status), &error);
        pg_break(pg, &error);
    }
}

/* --- The end of a connection -------------------------------------------------------------------------------------- */

void pg_break(struct qfc_pg *pg, const struct qfc_error *why)
{
    if (!pg->broken)
        pg->why = *why;
    pg->broken = true;
}

void pg_hang_up(struct qfc_pg *pg)
{
    uv_timer_stop(&pg->timer);
    uv_prepare_stop(&pg->wake);
    pg_lookup_forget(pg);
    pg_unwatch(pg); /* before libpq closes the socket */
    if (pg->conn)
        PQfinish(pg->conn);
    pg->conn = NULL;
    pg_prepared_end(pg);
}

/* Doubles from the minimum to the maximum; up to a quarter less at random, so that many workers do not come as one. */
static unsigned next_delay(struct qfc_pg *pg)
{
    unsigned minimum = pg->options.retry_min_ms;
    unsigned maximum = pg->options.retry_max_ms;

    if (pg->backoff_ms == 0)
        pg->backoff_ms = minimum > 0 ? minimum : 1;
    else
        pg->backoff_ms = pg->backoff_ms > maximum / 2 ? maximum : pg->backoff_ms * 2;
    if (pg->backoff_ms < minimum)
        pg->backoff_ms = minimum;
    return pg->backoff_ms - qfc_random(pg->backoff_ms / 4 + 1);
}

/* The connection or the attempt is over: hang up, plan the next attempt, tell everybody. */
static void go_down(struct qfc_pg *pg)
{
    struct qfc_error why = pg->why;
    struct qfc_pg_batch *batch;

    pg_hang_up(pg);
    if (pg->phase == PG_SETTING_UP)
        TAILQ_FOREACH (batch, &pg->in_flight, link)
            batch->done = NULL; /* the setup's, which is done again */
    TAILQ_CONCAT(&pg->ended, &pg->in_flight, link);
    pg->in_flight_count = 0;
    pg->sending = NULL;
    pg->phase = PG_WAITING;
    unsigned delay_ms = next_delay(pg);
    uv_timer_start(&pg->timer, on_timer, delay_ms, 0);
    if (pg->options.on_state)
        pg->options.on_state(pg->options.userdata, QFC_PG_DOWN, &why, delay_ms);
    pg_batch_end_lost(pg, &why);
}

void pg_fail_attempt(struct qfc_pg *pg, const struct qfc_error *error)
{
    pg->why = *error;
    go_down(pg);
}

/* --- The beginning of a connection -------------------------------------------------------------------------------- */

void pg_attempt(struct qfc_pg *pg)
{
    pg->broken = false;
    pg->phase = PG_LOOKING_UP;
    if (pg->options.connect_ms > 0)
        uv_timer_start(&pg->timer, on_timer, pg->options.connect_ms, 0);
    pg_lookup_start(pg);
}

static void on_libpq_notice(void *userdata, const PGresult *result)
{
    struct qfc_pg *pg = userdata;
    const char *severity = PQresultErrorField(result, PG_DIAG_SEVERITY_NONLOCALIZED);
    const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    char line[QFC_ERROR_MESSAGE_SIZE];

    if (pg->freed)
        return;
    pg_one_line(line, sizeof(line), message ? message : PQresultErrorMessage(result));
    if (pg_is_farewell(result)) {
        struct qfc_error error;
        pg_lost_error(pg, line, &error);
        snprintf(error.sqlstate, sizeof(error.sqlstate), "%.5s", sqlstate ? sqlstate : "");
        pg_break(pg, &error);
    } else if (pg->options.on_notice) {
        pg->options.on_notice(pg->options.userdata, severity ? severity : "NOTICE", line);
    }
}

/* Is this keyword set by us, whatever the conninfo says? */
static bool is_ours(const struct qfc_pg *pg, const char *keyword)
{
    bool address = strcmp(keyword, "host") == 0 || strcmp(keyword, "hostaddr") == 0 || strcmp(keyword, "port") == 0;

    return (address && pg->addresses.count > 0) || strcmp(keyword, "connect_timeout") == 0 ||
           strcmp(keyword, "client_encoding") == 0 || strcmp(keyword, "fallback_application_name") == 0 ||
           (strcmp(keyword, "application_name") == 0 && *pg->application_name);
}

/* The first of our own keywords give way to what the connection string says. */
#define OWN_DEFAULTS 4
#define OWN_KEYWORDS 9

static bool is_given(const struct qfc_pg *pg, const char *keyword)
{
    for (const PQconninfoOption *option = pg->conninfo; option->keyword; option++)
        if (strcmp(option->keyword, keyword) == 0)
            return option->val && *option->val;
    return false;
}

static PGconn *start_connection(const struct qfc_pg *pg)
{
    size_t count = 0;
    size_t used = 0;

    while (pg->conninfo[count].keyword)
        count++;
    const char **keywords = calloc(2 * (count + OWN_KEYWORDS + 1), sizeof(*keywords));
    if (!keywords)
        return NULL;
    const char **values = keywords + count + OWN_KEYWORDS + 1;
    for (size_t i = 0; i < count; i++)
        if (pg->conninfo[i].val && !is_ours(pg, pg->conninfo[i].keyword)) {
            keywords[used] = pg->conninfo[i].keyword;
            values[used++] = pg->conninfo[i].val;
        }
    const char *const own[OWN_KEYWORDS][2] = {
        {"keepalives_idle", "10"}, /* a vanished host is noticed within half a minute */
        {"keepalives_interval", "5"},
        {"keepalives_count", "3"},
        {"tcp_user_timeout", "25000"},
        {"client_encoding", "UTF8"},
        {*pg->application_name ? "application_name" : "fallback_application_name", pg->application_name},
        {"host", qfc_buffer_text(&pg->addresses.hosts)},
        {"hostaddr", qfc_buffer_text(&pg->addresses.hostaddrs)},
        {"port", qfc_buffer_text(&pg->addresses.ports)},
    };
    for (size_t i = 0; i < OWN_KEYWORDS - (pg->addresses.count > 0 ? 0 : 3); i++) {
        if (i < OWN_DEFAULTS && is_given(pg, own[i][0]))
            continue;
        keywords[used] = own[i][0];
        values[used++] = own[i][1];
    }
    PGconn *conn = PQconnectStartParams(keywords, values, 0);
    free(keywords);
    return conn;
}

static void fail_connect(struct qfc_pg *pg)
{
    struct qfc_error error;

    pg_connect_error(pg, &error);
    pg_fail_attempt(pg, &error);
}

void pg_dial(struct qfc_pg *pg)
{
    struct qfc_error error;

    pg->phase = PG_CONNECTING;
    pg->conn = start_connection(pg);
    if (!pg->conn) {
        qfc_fail_memory(&error);
        qfc_context(&error, "connect to %s", pg->where);
        pg_fail_attempt(pg, &error);
        return;
    }
    PQsetNoticeReceiver(pg->conn, on_libpq_notice, pg);
    PQsetErrorVerbosity(pg->conn, PQERRORS_VERBOSE); /* the only way to a failed connection's SQLSTATE */
    if (PQstatus(pg->conn) == CONNECTION_BAD) {
        fail_connect(pg);
        return;
    }
    watch_socket(pg, UV_WRITABLE);
    if (pg->broken)
        go_down(pg);
}

static void become_ready(struct qfc_pg *pg)
{
    pg->phase = PG_READY;
    pg->backoff_ms = 0;
    pg->late = 0;
    uv_timer_stop(&pg->timer);
    if (pg->options.on_state)
        pg->options.on_state(pg->options.userdata, QFC_PG_READY, NULL, 0);
}

static void on_setup_done(void *userdata, const struct qfc_error *error, const struct qfc_pg_results *results)
{
    static const struct qfc_pg_results nothing;
    struct qfc_pg *pg = userdata;
    struct qfc_error why = error ? *error : QFC_NO_ERROR;

    if (!error && (!pg->options.on_setup ||
                   pg->options.on_setup(pg->options.userdata, results ? results : &nothing, &why) == 0)) {
        if (!pg->freed)
            become_ready(pg);
        return;
    }
    if (why.kind == QFC_ERROR_NONE)
        qfc_fail(&why, QFC_ERROR_REFUSED, 0, "refused without a reason");
    qfc_context(&why, "set up %s", pg->where);
    pg_break(pg, &why);
}

static void set_up(struct qfc_pg *pg)
{
    struct qfc_error error = QFC_NO_ERROR;

    pg->phase = PG_SETTING_UP;
    pg->broken = false;
    pg_prepared_begin(pg);
    PQsetErrorVerbosity(pg->conn, PQERRORS_DEFAULT);
    if (PQsetnonblocking(pg->conn, 1) != 0 || PQenterPipelineMode(pg->conn) != 1) {
        fail_connect(pg);
        return;
    }
    if (pg->setup.count == 0) {
        on_setup_done(pg, NULL, NULL);
    } else {
        struct qfc_pg_batch *batch = pg_batch_new(pg, &pg->setup, on_setup_done, pg);
        if (batch)
            pg_batch_send(pg, batch);
        else {
            qfc_fail_memory(&error);
            pg_break(pg, &error);
        }
    }
    pg_traffic(pg, false);
}

static void go_on_connecting(struct qfc_pg *pg)
{
    pause_watch(pg);
    PostgresPollingStatusType status = PQconnectPoll(pg->conn);

    if (pg->freed)
        return;
    if (status == PGRES_POLLING_OK) {
        set_up(pg);
    } else if (status == PGRES_POLLING_FAILED) {
        fail_connect(pg);
    } else {
        watch_socket(pg, status == PGRES_POLLING_READING ? UV_READABLE : UV_WRITABLE);
        if (pg->broken)
            go_down(pg);
    }
}

/* --- Traffic ------------------------------------------------------------------------------------------------------ */

static void take_notifications(struct qfc_pg *pg)
{
    PGnotify *notify;

    while (!pg->freed && (notify = PQnotifies(pg->conn))) {
        if (pg->options.on_notify)
            pg->options.on_notify(pg->options.userdata, notify->relname, notify->extra);
        PQfreemem(notify);
    }
}

/*
 * Reads what came in. A TLS record that is larger than the room in libpq's buffer is read in two goes, and the socket
 * says nothing of the second; what this misses the timer's tick finds.
 */
static void consume(struct qfc_pg *pg)
{
    int ok = PQconsumeInput(pg->conn);

    if (ok && PQsslInUse(pg->conn))
        ok = PQconsumeInput(pg->conn);
    if (!ok || PQstatus(pg->conn) == CONNECTION_BAD)
        pg_unwatch(pg);
}

static void check_alive(struct qfc_pg *pg)
{
    struct qfc_error error;

    if (!pg->broken && (PQstatus(pg->conn) == CONNECTION_BAD || PQsocket(pg->conn) < 0)) {
        pg_unwatch(pg);
        pg_lost_error(pg, PQerrorMessage(pg->conn), &error);
        pg_break(pg, &error);
    }
}

/* While an answer is due the timer ticks: for its deadline, and for what TLS may hold back. */
static void set_tick(struct qfc_pg *pg)
{
    unsigned limit_ms = pg->options.answer_ms;
    bool needed = pg->in_flight_count > 0 && (limit_ms > 0 || PQsslInUse(pg->conn));

    if (pg->phase != PG_READY)
        return; /* the attempt's deadline still runs */
    if (!needed) {
        uv_timer_stop(&pg->timer);
    } else if (!uv_is_active((uv_handle_t *)&pg->timer)) {
        unsigned tick_ms = limit_ms > 0 && limit_ms < TICK_MS ? limit_ms : TICK_MS;
        pg->heard_ms = uv_now(pg->loop);
        uv_timer_start(&pg->timer, on_timer, tick_ms, tick_ms);
    }
}

/*
 * Moves everything that can be moved now: bytes out, bytes in, results to their batches, the next batch to libpq. A
 * batch is given to libpq only when all before it has left, so that libpq's buffer holds no more than one.
 */
void pg_traffic(struct qfc_pg *pg, bool readable)
{
    int unsent = 0;
    bool more = true;

    if (readable)
        consume(pg);
    while (more) {
        unsent = PQflush(pg->conn); /* when the socket is full, this reads, too */
        pg_batch_take_results(pg);
        if (!pg->freed)
            take_notifications(pg);
        if (pg->freed)
            return;
        check_alive(pg);
        more = !pg->broken && unsent == 0 && pg->phase == PG_READY && pg_batch_send_next(pg);
    }
    if (!pg->broken)
        watch_socket(pg, unsent != 0 ? UV_READABLE | UV_WRITABLE : UV_READABLE);
    if (pg->broken)
        go_down(pg);
    else
        set_tick(pg);
}

static void on_socket(uv_poll_t *handle, int status, int events)
{
    struct pg_watch *watch = handle->data;
    struct qfc_pg *pg = watch->pg;

    if (status < 0)
        watch->events = 0; /* libuv has stopped the handle; libpq finds out why */
    pg_enter(pg);
    pg->heard_ms = uv_now(pg->loop);
    if (pg->phase == PG_CONNECTING)
        go_on_connecting(pg);
    else
        pg_traffic(pg, status < 0 || (events & UV_READABLE));
    pg_leave(pg);
}

static void fail_late(struct qfc_pg *pg)
{
    static const char *const doing[] = {
        [PG_LOOKING_UP] = "looking up the host",
        [PG_CONNECTING] = "connecting",
        [PG_SETTING_UP] = "the first statements",
    };
    struct qfc_error error;

    pg->late++;
    qfc_fail(&error, QFC_ERROR_UNREACHABLE, 0, "connect to %s: not done within %u ms (%s)", pg->where,
             pg->options.connect_ms, doing[pg->phase]);
    pg_fail_attempt(pg, &error);
}

static void tick(struct qfc_pg *pg)
{
    unsigned limit_ms = pg->options.answer_ms;
    char reason[64];
    struct qfc_error error;

    if (limit_ms > 0 && uv_now(pg->loop) - pg->heard_ms >= limit_ms) {
        snprintf(reason, sizeof(reason), "no answer within %u ms", limit_ms);
        pg_lost_error(pg, reason, &error);
        pg_break(pg, &error);
    }
    pg_traffic(pg, true);
}

static void on_timer(uv_timer_t *timer)
{
    struct qfc_pg *pg = timer->data;

    pg_enter(pg);
    if (pg->phase == PG_WAITING)
        pg_attempt(pg);
    else if (pg->phase == PG_READY)
        tick(pg);
    else
        fail_late(pg);
    pg_leave(pg);
}
