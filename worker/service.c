/*
 * What the service manager is told, where there is one: sd_notify(3)'s protocol, which is one datagram of text to the
 * socket that NOTIFY_SOCKET names. The watchdog is fed by the loop, so that a loop that hangs is noticed.
 */
#include "worker_private.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* systemd asks to be told twice in the time that it waits. */
static uint64_t watchdog_ms(void)
{
    const char *usec = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
    if (!usec || (pid && strtol(pid, NULL, 10) != (long)getpid()))
        return 0;
    uint64_t period_ms = strtoull(usec, NULL, 10) / 2000;
    return period_ms;
}

static void tell(const char *text)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = getenv("NOTIFY_SOCKET");
    if (!path || (*path != '/' && *path != '@') || strlen(path) >= sizeof address.sun_path)
        return;
    size_t length = strlen(path);
    memcpy(address.sun_path, path, length);
    if (*path == '@')
        address.sun_path[0] = '\0'; /* an abstract one */
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return;
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
    if (sendto(fd, text, strlen(text), MSG_NOSIGNAL, (const struct sockaddr *)&address, size) < 0)
        qfc_log(QFC_LOG_DEBUG, NULL, "the service manager does not listen at %s", path);
    close(fd);
}

static void on_service_timer(uv_timer_t *timer)
{
    const struct qfc_worker *worker = timer->data;
    char text[128];
    snprintf(text, sizeof text, "WATCHDOG=1\nSTATUS=%u of %ld jobs run%s", worker->job_count,
             worker->settings->concurrency, worker->stopping ? "; stopping" : "");
    tell(text);
}

void service_begin(struct qfc_worker *worker)
{
    uint64_t period_ms = watchdog_ms();
    tell("READY=1");
    if (period_ms > 0)
        uv_timer_start(&worker->service, on_service_timer, 0, period_ms);
}

void service_stopping(void)
{
    tell("STOPPING=1");
}
