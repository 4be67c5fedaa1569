/*
 * libmicrohttpd on libuv: see server.h.
 *
 * It runs without a thread. What it waits for is in one epoll descriptor, which the loop polls; MHD_get_timeout says when
 * it wants to be called at the latest (libmicrohttpd: MHD_USE_EPOLL, MHD_DAEMON_INFO_EPOLL_FD). Its own timeout is of
 * inactivity, so that a client that sends a byte now and then could stay: each connection has a deadline besides.
 */
#include "server.h"

#include <microhttpd.h>
#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONNECTIONS      32
#define CONNECTION_BYTES (16 * 1024)
#define IDLE_S           10
#define DEADLINE_MS      10000
#define PAGE_WAIT_MS     3000
#define TICK_MS          1000
#define QUIET_TICKS      3

/* A client that is connected. */
struct visit {
    TAILQ_ENTRY(visit) link;
    struct MHD_Connection *connection;
    uint64_t came_ms;
    uint64_t waits_since_ms; /* for its page; 0: it does not */
    bool cut;
};

struct server {
    uv_loop_t *loop;
    struct MHD_Daemon *daemon;
    page_maker *make;
    void *userdata;
    bool local;
    char *open;
    bool has_token;
    unsigned char token[SHA256_DIGEST_LENGTH]; /* its digest */
    uv_poll_t poll;
    uv_timer_t timer; /* what the daemon wants */
    uv_timer_t tick;  /* deadlines */
    unsigned handles;
    unsigned quiet_ticks; /* in which nobody was connected */
    TAILQ_HEAD(, visit) visits;
};

static void run(struct server *server);

static enum MHD_Result answer(struct MHD_Connection *connection, struct page *page)
{
    struct MHD_Response *response =
        MHD_create_response_from_buffer(page->body.size, page->body.data, MHD_RESPMEM_MUST_COPY);
    enum MHD_Result result = MHD_NO;
    if (response) {
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, page->type);
        MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
        if (page->status == MHD_HTTP_UNAUTHORIZED)
            MHD_add_response_header(response, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Bearer");
        if (page->status == MHD_HTTP_METHOD_NOT_ALLOWED)
            MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
        result = MHD_queue_response(connection, page->status, response);
        MHD_destroy_response(response);
    }
    qfc_buffer_free(&page->body);
    return result;
}

static enum MHD_Result answer_text(struct MHD_Connection *connection, unsigned status, const char *text)
{
    struct page page = {.status = status, .type = "text/plain; charset=utf-8", .body = qfc_buffer(1024)};
    qfc_buffer_append_text(&page.body, text);
    return answer(connection, &page);
}

/* Digests are compared, so that neither the token's length nor where it differs shows in the time. */
static bool has_token(const struct server *server, struct MHD_Connection *connection)
{
    static const char scheme[] = "Bearer ";
    unsigned char given[SHA256_DIGEST_LENGTH];
    const char *header = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_AUTHORIZATION);
    if (!header || strncasecmp(header, scheme, strlen(scheme)) != 0)
        return false;
    header += strlen(scheme);
    SHA256((const unsigned char *)header, strlen(header), given);
    return CRYPTO_memcmp(given, server->token, sizeof given) == 0;
}

/* On a Unix socket: is it our own user, or root? */
static bool is_our_user(struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct ucred peer;
    socklen_t size = sizeof peer;
    return info && getsockopt(info->connect_fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
           (peer.uid == geteuid() || peer.uid == 0);
}

static bool is_allowed(const struct server *server, struct MHD_Connection *connection, const char *path)
{
    if (server->local)
        return is_our_user(connection);
    return !server->has_token || strcmp(path, server->open) == 0 || has_token(server, connection);
}

static struct visit *visit_of(struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info ? info->socket_context : NULL;
}

/* May be called several times for a request: when its headers are there, when it is whole, after it was resumed. */
static enum MHD_Result on_request(void *userdata, struct MHD_Connection *connection, const char *path,
                                  const char *method, const char *version, const char *upload, size_t *upload_size,
                                  void **state)
{
    struct server *server = userdata;
    struct visit *visit = visit_of(connection);
    struct page page = {0};
    if (!visit)
        return MHD_NO;
    if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
        return answer_text(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET and HEAD: nothing can be changed here\n");
    if (!*state) { /* it may have a body, which is not looked at */
        *state = visit;
        return MHD_YES;
    }
    if (*upload_size > 0) {
        *upload_size = 0;
        return MHD_YES;
    }
    if (!is_allowed(server, connection, path))
        return answer_text(connection, server->local ? MHD_HTTP_FORBIDDEN : MHD_HTTP_UNAUTHORIZED,
                           server->local ? "only for the worker's own user and root\n"
                                         : "QFC_WORKER_HTTP_TOKEN is asked for: Authorization: Bearer TOKEN\n");
    uint64_t now = uv_now(server->loop);
    bool late = visit->waits_since_ms > 0 && now - visit->waits_since_ms >= PAGE_WAIT_MS;
    if (server->make(server->userdata, path, late, &page))
        return answer(connection, &page);
    if (visit->waits_since_ms == 0)
        visit->waits_since_ms = now > 0 ? now : 1;
    MHD_suspend_connection(connection);
    return MHD_YES;
}

static bool is_suspended(const struct visit *visit)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(visit->connection, MHD_CONNECTION_INFO_CONNECTION_SUSPENDED);
    return info && info->suspended == MHD_YES;
}

static void resume(struct visit *visit)
{
    if (is_suspended(visit))
        MHD_resume_connection(visit->connection);
}

static void cut(struct visit *visit)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(visit->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    visit->cut = true;
    if (info)
        shutdown(info->connect_fd, SHUT_RDWR);
}

/* Also lets the daemon listen again after it had as many connections as it may: it does so when it is run the next time,
 * and does not ask for that. */
static void on_tick(uv_timer_t *timer)
{
    struct server *server = timer->data;
    uint64_t now = uv_now(server->loop);
    struct visit *visit;
    server->quiet_ticks = TAILQ_EMPTY(&server->visits) ? server->quiet_ticks + 1 : 0;
    TAILQ_FOREACH (visit, &server->visits, link) {
        if (visit->waits_since_ms > 0 && now - visit->waits_since_ms >= PAGE_WAIT_MS)
            resume(visit);
        if (!visit->cut && now - visit->came_ms >= DEADLINE_MS)
            cut(visit);
    }
    if (server->quiet_ticks >= QUIET_TICKS)
        uv_timer_stop(&server->tick);
    run(server);
}

static void on_connection(void *userdata, struct MHD_Connection *connection, void **context,
                          enum MHD_ConnectionNotificationCode code)
{
    struct server *server = userdata;
    if (code == MHD_CONNECTION_NOTIFY_CLOSED) {
        struct visit *visit = *context;
        if (visit)
            TAILQ_REMOVE(&server->visits, visit, link);
        free(visit);
        *context = NULL;
        return;
    }
    struct visit *visit = calloc(1, sizeof *visit);
    *context = visit; /* null: its request is not answered */
    if (!visit)
        return;
    visit->connection = connection;
    visit->came_ms = uv_now(server->loop);
    TAILQ_INSERT_TAIL(&server->visits, visit, link);
    server->quiet_ticks = 0;
    if (!uv_is_active((uv_handle_t *)&server->tick))
        uv_timer_start(&server->tick, on_tick, TICK_MS, TICK_MS);
}

static void on_timer(uv_timer_t *timer)
{
    run(timer->data);
}

static void on_readiness(uv_poll_t *poll, int status, int events)
{
    run(poll->data);
}

static void run(struct server *server)
{
    MHD_UNSIGNED_LONG_LONG timeout_ms;
    MHD_run(server->daemon);
    if (MHD_get_timeout(server->daemon, &timeout_ms) == MHD_YES)
        uv_timer_start(&server->timer, on_timer, timeout_ms, 0);
    else
        uv_timer_stop(&server->timer);
}

static int start_daemon(struct server *server, int listener, struct qfc_error *error)
{
    server->daemon = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL, on_request, server,               /* */
        MHD_OPTION_LISTEN_SOCKET, listener, MHD_OPTION_NOTIFY_CONNECTION, on_connection, server,   /* */
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS, MHD_OPTION_CONNECTION_TIMEOUT, IDLE_S, /* */
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_BYTES, MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1,
        MHD_OPTION_END);
    return server->daemon ? 0 : qfc_fail(error, QFC_ERROR_BUG, 0, "libmicrohttpd does not start");
}

static void on_closed(uv_handle_t *handle)
{
    struct server *server = handle->data;
    if (--server->handles > 0)
        return;
    free(server->open);
    OPENSSL_cleanse(server->token, sizeof server->token);
    free(server);
}

static int open_handles(struct server *server, struct qfc_error *error)
{
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(server->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    int r = info ? uv_poll_init(server->loop, &server->poll, info->epoll_fd) : UV_ENOTSUP;
    if (r < 0)
        return qfc_fail(error, QFC_ERROR_BUG, 0, "poll libmicrohttpd: %s", uv_strerror(r));
    uv_timer_init(server->loop, &server->timer);
    uv_timer_init(server->loop, &server->tick);
    server->poll.data = server->timer.data = server->tick.data = server;
    server->handles = 3;
    uv_poll_start(&server->poll, UV_READABLE, on_readiness);
    return 0;
}

struct server *server_new(const struct server_options *options, struct qfc_error *error)
{
    struct server *server = calloc(1, sizeof *server);
    char *open = strdup(options->open ? options->open : "");
    if (!server || !open) {
        free(server);
        free(open);
        close(options->listener);
        qfc_fail_memory(error);
        return NULL;
    }
    server->loop = options->loop;
    server->make = options->make;
    server->userdata = options->userdata;
    server->local = options->local;
    server->open = open;
    server->has_token = options->token && *options->token;
    if (server->has_token)
        SHA256((const unsigned char *)options->token, strlen(options->token), server->token);
    TAILQ_INIT(&server->visits);
    if (start_daemon(server, options->listener, error) < 0) {
        close(options->listener);
    } else if (open_handles(server, error) < 0) {
        MHD_stop_daemon(server->daemon);
    } else {
        run(server);
        return server;
    }
    free(server->open);
    free(server);
    return NULL;
}

void server_wake(struct server *server)
{
    struct visit *visit;
    bool something = false;
    TAILQ_FOREACH (visit, &server->visits, link) {
        something |= is_suspended(visit);
        resume(visit);
    }
    if (something)
        run(server);
}

void server_free(struct server *server)
{
    struct visit *visit;
    if (!server)
        return;
    TAILQ_FOREACH (visit, &server->visits, link)
        resume(visit); /* the daemon takes none that is suspended along */
    uv_close((uv_handle_t *)&server->poll, on_closed);
    uv_close((uv_handle_t *)&server->timer, on_closed);
    uv_close((uv_handle_t *)&server->tick, on_closed);
    MHD_stop_daemon(server->daemon);
}
