/*
 * The queue, as metrics: each worker tells the same of it, so take the max() and no sum. And the alerts.
 */
#include "metrics.h"

#include <string.h>

static void put_depths(struct metrics *out, const struct qfc_report *report)
{
    put_family(out, "qfc_queue_jobs", "gauge", "Jobs that wait or are under way, by status and type.");
    for (size_t i = 0; i < report->depth_count; i++)
        put_sample(out, "qfc_queue_jobs", LABELS("status", report->depths[i].status, "type", report->depths[i].type),
                   (double)report->depths[i].jobs);
    put_one(out, "qfc_queue_pending", "gauge", "Jobs that wait.", (double)report->pending);
    put_family(out, "qfc_queue_pending_jobs", "gauge",
               "The same by why: claimable, behind an older job of the project, locked project, or not due again yet.");
    put_sample(out, "qfc_queue_pending_jobs", LABELS("why", "claimable"), (double)report->claimable);
    put_sample(out, "qfc_queue_pending_jobs", LABELS("why", "behind"), (double)report->behind);
    put_sample(out, "qfc_queue_pending_jobs", LABELS("why", "locked"), (double)report->locked);
    put_sample(out, "qfc_queue_pending_jobs", LABELS("why", "retry"), (double)report->retry);
    put_one(out, "qfc_queue_oldest_pending_seconds", "gauge",
            "For how long the oldest of them has been waiting; 0: none.",
            report->oldest_pending_s > 0 ? report->oldest_pending_s : 0);
    put_one(out, "qfc_queue_oldest_claimable_seconds", "gauge",
            "For how long nobody has taken what could be taken; 0: there is nothing.",
            report->oldest_claimable_s > 0 ? report->oldest_claimable_s : 0);
}

static void put_workers(struct metrics *out, const struct qfc_report *report)
{
    long slots = 0, blocked_by[5] = {0};
    static const char *const whys[] = {"locked", "retry", "lost", "nobody", "overdue"};
    for (size_t i = 0; i < report->worker_count; i++)
        slots += report->workers[i].slots;
    for (size_t i = 0; i < report->blocked_count; i++)
        for (size_t why = 0; why < sizeof whys / sizeof *whys; why++)
            blocked_by[why] += strcmp(report->blocked[i].why, whys[why]) == 0;
    put_one(out, "qfc_queue_workers", "gauge", "Workers of this kind that are connected.",
            (double)report->worker_count);
    put_one(out, "qfc_queue_slots", "gauge", "Jobs that all of them may run at the same time.", (double)slots);
    put_one(out, "qfc_queue_old_worker_jobs", "gauge", "Jobs that QFieldCloud's own workers run.",
            (double)report->old_started);
    put_family(out, "qfc_queue_blocked_projects", "gauge",
               "Projects whose jobs something keeps from running, by what.");
    for (size_t why = 0; why < sizeof whys / sizeof *whys; why++)
        put_sample(out, "qfc_queue_blocked_projects", LABELS("why", whys[why]), (double)blocked_by[why]);
}

static void put_percentiles(struct metrics *out, const char *name, const char *window,
                            const struct qfc_report_percentiles *percentiles)
{
    if (percentiles->p50 < 0)
        return;
    put_sample(out, name, LABELS("window", window, "percentile", "50"), percentiles->p50);
    put_sample(out, name, LABELS("window", window, "percentile", "90"), percentiles->p90);
    put_sample(out, name, LABELS("window", window, "percentile", "99"), percentiles->p99);
}

static void put_windows(struct metrics *out, const struct qfc_report *report)
{
    const struct qfc_report_window *windows[] = {qfc_report_window_of(report, "hour"),
                                                 qfc_report_window_of(report, "day")};
    put_family(out, "qfc_queue_ended_jobs", "gauge",
               "Jobs that ended within the last hour and day, by whichever worker.");
    for (size_t i = 0; i < 2; i++) {
        put_sample(out, "qfc_queue_ended_jobs", LABELS("window", windows[i]->name, "outcome", "finished"),
                   (double)windows[i]->finished);
        put_sample(out, "qfc_queue_ended_jobs", LABELS("window", windows[i]->name, "outcome", "failed"),
                   (double)windows[i]->failed);
    }
    put_family(out, "qfc_queue_success_ratio", "gauge",
               "Share of those that finished; not there while none has ended.");
    for (size_t i = 0; i < 2; i++)
        if (windows[i]->success >= 0)
            put_sample(out, "qfc_queue_success_ratio", LABELS("window", windows[i]->name), windows[i]->success);
    put_family(out, "qfc_queue_run_mean_seconds", "gauge", "How long they have run on average.");
    for (size_t i = 0; i < 2; i++)
        if (windows[i]->run_mean_s >= 0)
            put_sample(out, "qfc_queue_run_mean_seconds", LABELS("window", windows[i]->name), windows[i]->run_mean_s);
    put_family(out, "qfc_queue_wait_percentile_seconds", "gauge", "How long they have waited.");
    for (size_t i = 0; i < 2; i++)
        put_percentiles(out, "qfc_queue_wait_percentile_seconds", windows[i]->name, &windows[i]->wait);
    put_family(out, "qfc_queue_run_percentile_seconds", "gauge", "How long they have run.");
    for (size_t i = 0; i < 2; i++)
        put_percentiles(out, "qfc_queue_run_percentile_seconds", windows[i]->name, &windows[i]->run);
}

void put_queue(struct metrics *out, const struct qfc_report *report)
{
    put_depths(out, report);
    put_workers(out, report);
    put_windows(out, report);
    put_one(out, "qfc_queue_failures_in_a_row", "gauge", "Jobs that have failed since the last one finished.",
            (double)report->failures_in_a_row);
}

void put_alerts(struct metrics *out, const struct alerts *alerts)
{
    if (!alerts->on)
        return;
    put_family(out, "qfc_alert_judge", "gauge",
               "1: this worker judges now; of the queue one does, of each engine one.");
    put_sample(out, "qfc_alert_judge", LABELS("of", "queue"), alerts->judges[OF_QUEUE].ours);
    put_sample(out, "qfc_alert_judge", LABELS("of", "host"), alerts->judges[OF_HOST].ours);
    put_family(out, "qfc_alert_looks_total", "counter", "How often this worker has judged.");
    put_sample(out, "qfc_alert_looks_total", LABELS("of", "queue"), (double)alerts->judges[OF_QUEUE].looks);
    put_sample(out, "qfc_alert_looks_total", LABELS("of", "host"), (double)alerts->judges[OF_HOST].looks);
    put_family(out, "qfc_alert_firing", "gauge",
               "1: the alert has begun, 0: it has not; told by the worker that judges.");
    for (size_t i = 0; i < ALERTS; i++)
        if (alerts_judges(alerts, i))
            put_sample(out, "qfc_alert_firing",
                       LABELS("alert", alert_rules[i].name, "severity", alert_rules[i].severity),
                       alerts->items[i].firing);
    put_one(out, "qfc_alert_messages_delivered_total", "counter", "Messages that the receiver of alerts has taken.",
            (double)alerts->webhook.delivered);
    put_one(out, "qfc_alert_message_failures_total", "counter", "Tries to deliver one that failed.",
            (double)alerts->webhook.failures);
    put_one(out, "qfc_alert_messages_dropped_total", "counter", "Messages that were given up, since too many waited.",
            (double)alerts->webhook.dropped);
    put_one(out, "qfc_alert_messages_waiting", "gauge", "Messages that wait to be taken.",
            (double)alerts->webhook.count);
}
