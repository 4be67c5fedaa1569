/*
 * The heartbeat: see heartbeat.h.
 */
#include "heartbeat.h"

#include "qfc/log.h"

#include <stdio.h>

#define STATE_AGE_MS  1000
#define STATE_WAIT_MS 5000

static void since_last(struct heartbeat *heartbeat, char *out, size_t size)
{
    const struct qfc_counters *counters = qfc_monitor_counters(heartbeat->worker);
    uint64_t finished = 0, failed = 0, put_back = 0;
    for (size_t i = 0; i < QFC_MONITOR_TYPES; i++) {
        finished += counters->types[i].finished;
        failed += counters->types[i].failed;
        put_back += counters->types[i].put_back;
    }
    int used = snprintf(out, size, "%llu finished, %llu failed", (unsigned long long)(finished - heartbeat->finished),
                        (unsigned long long)(failed - heartbeat->failed));
    if (put_back > heartbeat->put_back)
        snprintf(out + used, size - (size_t)used, ", %llu put back",
                 (unsigned long long)(put_back - heartbeat->put_back));
    heartbeat->finished = finished;
    heartbeat->failed = failed;
    heartbeat->put_back = put_back;
}

static void queue_text(const struct qfc_report *report, char *out, size_t size)
{
    if (!report)
        snprintf(out, size, "the database has not told how many wait");
    else if (report->pending == 0)
        snprintf(out, size, "none waits");
    else
        snprintf(out, size, "%ld wait, the oldest for %.0f s", report->pending, report->oldest_pending_s);
}

static void say(struct heartbeat *heartbeat, const struct qfc_report *report)
{
    char jobs[128], queue[128], reasons[1][QFC_MONITOR_REASON_SIZE];
    const struct qfc_state state = qfc_monitor_state(heartbeat->worker);
    bool ready = qfc_monitor_reasons(heartbeat->worker, reasons, 1) == 0;
    uint64_t now = uv_now(heartbeat->timer.loop);
    unsigned long long seconds = (now - heartbeat->said_ms + 500) / 1000;
    heartbeat->said_ms = now;
    since_last(heartbeat, jobs, sizeof jobs);
    queue_text(report, queue, sizeof queue);
    qfc_log(QFC_LOG_INFO, NULL, "alive: %s in the last %llu s; %u run here, %s%s%s", jobs, seconds, state.busy, queue,
            ready ? "" : "; nothing is claimed: ", ready ? "" : reasons[0]);
    heartbeat->due = false;
    uv_timer_stop(&heartbeat->wait);
}

static void on_wait(uv_timer_t *timer)
{
    say(timer->data, NULL);
}

static void on_timer(uv_timer_t *timer)
{
    struct heartbeat *heartbeat = timer->data;
    if (heartbeat->due) /* the last one still waits */
        return;
    heartbeat->due = true;
    uv_timer_start(&heartbeat->wait, on_wait, STATE_WAIT_MS, 0);
    heartbeat_news(heartbeat);
}

void heartbeat_news(struct heartbeat *heartbeat)
{
    const struct qfc_report *report = heartbeat->due ? queue_state_get(heartbeat->state, STATE_AGE_MS) : NULL;
    if (report)
        say(heartbeat, report);
}

void heartbeat_begin(struct heartbeat *heartbeat, uv_loop_t *loop)
{
    uint64_t period_ms = (uint64_t)heartbeat->settings->heartbeat_s * 1000;
    uv_timer_init(loop, &heartbeat->timer);
    uv_timer_init(loop, &heartbeat->wait);
    heartbeat->said_ms = uv_now(loop);
    heartbeat->timer.data = heartbeat->wait.data = heartbeat;
    if (period_ms > 0)
        uv_timer_start(&heartbeat->timer, on_timer, period_ms, period_ms);
}

void heartbeat_end(struct heartbeat *heartbeat)
{
    uv_close((uv_handle_t *)&heartbeat->timer, NULL);
    uv_close((uv_handle_t *)&heartbeat->wait, NULL);
}
