/*
 * What runs along with the daemon and shows it: pages over HTTP, the local socket that `health` asks, alerts, heartbeat.
 */
#pragma once

#include "alerts.h"
#include "heartbeat.h"
#include "queue_state.h"
#include "server.h"

#include "qfc/monitor.h"
#include "qfc/settings.h"
#include "qfc/worker.h"

struct showing {
    uv_loop_t *loop;
    const struct qfc_settings *settings;
    const struct qfc_worker *worker;
    struct qfc_queue *queue;
    struct server *server; /* at QFC_WORKER_HTTP, or null */
    struct server *local;  /* at QFC_WORKER_SOCKET, or null */
    uv_timer_t listen_again;
    bool listen_said; /* that the address cannot be listened at */
    struct queue_state state;
    struct alerts alerts;
    struct heartbeat heartbeat;
};

/* companion.c: to be given to qfc_worker_main, with a `struct showing` of zeroes. */
struct qfc_companion companion_of(struct showing *showing);

/* The local socket's name where the settings give none: "@qfc-worker/<pid namespace>/<pid>"; `pid` 0: without the pid. */
void local_name(char *out, size_t size, long pid);

/* pages.c: a page_maker for a `struct showing`. */
bool make_page(void *userdata, const char *path, bool now, struct page *ret_page);

/* metrics.c: everything in Prometheus's text format; `report` may be null. Returns 0, or -1 where it did not fit or there
 * was no memory. */
int write_metrics(const struct showing *showing, const struct qfc_report *report, struct qfc_buffer *out);
