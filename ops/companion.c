/*
 * The companion's life: see companion.h.
 */
#include "companion.h"

#include "qfc/address.h"
#include "qfc/log.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LISTEN_AGAIN_MS 10000

/*
 * An abstract socket needs no directory that could be written to, and no user that it belongs to; it goes with its
 * process. Its name says in which pid namespace that is: containers on the host's network share such names. Within one,
 * the pid tells several workers apart; `health` finds them all in /proc/net/unix.
 */
void local_name(char *out, size_t size, long pid)
{
    char space[64] = "";
    ssize_t length = readlink("/proc/self/ns/pid", space, sizeof space - 1);
    const char *digits = length > 0 ? strpbrk(space, "0123456789") : NULL;
    int used =
        snprintf(out, size, "@qfc-worker/%.*s/", digits ? (int)strspn(digits, "0123456789") : 1, digits ? digits : "0");
    if (pid > 0 && used > 0 && (size_t)used < size)
        snprintf(out + used, size - (size_t)used, "%ld", pid);
}

static struct server *serve(struct showing *showing, int listener, bool local, struct qfc_error *error)
{
    const struct server_options options = {
        .loop = showing->loop,
        .listener = listener,
        .local = local,
        .token = local ? NULL : showing->settings->http_token,
        .open = "/healthz",
        .make = make_page,
        .userdata = showing,
    };
    return server_new(&options, error);
}

/* Without it `health` has nobody to ask, but jobs run all the same. */
static void serve_locally(struct showing *showing)
{
    char name[128];
    struct sockaddr_storage address;
    socklen_t size;
    struct qfc_error error = QFC_NO_ERROR;
    int fd = -1;
    local_name(name, sizeof name, (long)getpid());
    const char *wanted = *showing->settings->socket ? showing->settings->socket : name;
    if (qfc_address_unix(wanted, &address, &size, &error) == 0)
        fd = qfc_address_listen(&address, size, &error);
    if (fd >= 0)
        showing->local = serve(showing, fd, true, &error);
    if (!showing->local)
        qfc_log(QFC_LOG_WARNING, NULL,
                "the local socket %s cannot be listened at, so `qfc-worker health` has none to ask: %s", wanted,
                error.message);
}

static void on_listen_again(uv_timer_t *timer);

static void serve_pages(struct showing *showing)
{
    struct sockaddr_storage address;
    socklen_t size;
    struct qfc_error error = QFC_NO_ERROR;
    const char *wanted = showing->settings->http;
    int fd = -1;
    if (qfc_address_parse(wanted, &address, &size, &error) == 0)
        fd = qfc_address_listen(&address, size, &error);
    if (fd >= 0)
        showing->server = serve(showing, fd, false, &error);
    if (showing->server) {
        qfc_log(QFC_LOG_INFO, NULL, "shows itself at http://%s: /metrics, /healthz, /readyz, /status.json", wanted);
        return;
    }
    if (!showing->listen_said)
        qfc_log(QFC_LOG_ERROR, NULL,
                "QFC_WORKER_HTTP=%s cannot be listened at: %s; jobs run all the same, and it is tried again every %d s",
                wanted, error.message, LISTEN_AGAIN_MS / 1000);
    showing->listen_said = true;
    uv_timer_start(&showing->listen_again, on_listen_again, LISTEN_AGAIN_MS, 0);
}

static void on_listen_again(uv_timer_t *timer)
{
    serve_pages(timer->data);
}

/* The queue's state is there, or cannot be had: what waits for it goes on. */
static void on_queue_news(void *userdata)
{
    struct showing *showing = userdata;
    alerts_news(&showing->alerts);
    heartbeat_news(&showing->heartbeat);
    if (showing->server)
        server_wake(showing->server);
    if (showing->local)
        server_wake(showing->local);
}

static void begin(void *userdata, const struct qfc_companion_host *host)
{
    struct showing *showing = userdata;
    showing->loop = host->loop;
    showing->settings = host->settings;
    showing->worker = host->worker;
    showing->queue = host->queue;
    showing->state = (struct queue_state){
        .loop = host->loop,
        .queue = host->queue,
        .on_news = on_queue_news,
        .userdata = showing,
    };
    showing->heartbeat = (struct heartbeat){
        .settings = host->settings,
        .worker = host->worker,
        .state = &showing->state,
    };
    heartbeat_begin(&showing->heartbeat, host->loop);
    alerts_begin(&showing->alerts, host, &showing->state);
    uv_timer_init(host->loop, &showing->listen_again);
    showing->listen_again.data = showing;
    serve_locally(showing);
    if (*host->settings->http)
        serve_pages(showing);
}

static void end(void *userdata)
{
    struct showing *showing = userdata;
    uv_close((uv_handle_t *)&showing->listen_again, NULL);
    alerts_end(&showing->alerts);
    heartbeat_end(&showing->heartbeat);
    queue_state_free(&showing->state);
    server_free(showing->server);
    server_free(showing->local);
    showing->server = showing->local = NULL;
    if (*showing->settings->socket == '/')
        unlink(showing->settings->socket);
}

struct qfc_companion companion_of(struct showing *showing)
{
    return (struct qfc_companion){.begin = begin, .end = end, .userdata = showing};
}
