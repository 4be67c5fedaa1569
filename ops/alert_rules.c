/*
 * What alerts look at: see alerts.h.
 */
#include "alerts.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>

/* Of so few jobs a share says nothing. */
#define SHARE_OF_JOBS 5

static bool pending(const struct alerts *alerts, struct alert_measure *ret)
{
    ret->value = (double)alerts->report->pending;
    snprintf(ret->text, sizeof ret->text, "%ld jobs wait", alerts->report->pending);
    return true;
}

static bool oldest_pending(const struct alerts *alerts, struct alert_measure *ret)
{
    double oldest_s = alerts->report->oldest_pending_s;
    ret->value = oldest_s > 0 ? oldest_s : 0;
    snprintf(ret->text, sizeof ret->text, oldest_s < 0 ? "no job waits" : "a job has been waiting for %.0f s",
             ret->value);
    return true;
}

static bool failed_jobs(const struct alerts *alerts, struct alert_measure *ret)
{
    long failed = qfc_report_window_of(alerts->report, "hour")->failed;
    ret->value = (double)failed;
    snprintf(ret->text, sizeof ret->text, "%ld jobs have failed within an hour", failed);
    return true;
}

static bool success_rate(const struct alerts *alerts, struct alert_measure *ret)
{
    const struct qfc_report_window *hour = qfc_report_window_of(alerts->report, "hour");
    long ended = hour->finished + hour->failed;
    ret->value = ended < SHARE_OF_JOBS ? 100 : 100 * hour->success;
    snprintf(ret->text, sizeof ret->text, "%ld of %ld jobs have succeeded within an hour", hour->finished, ended);
    return true;
}

static bool average_run(const struct alerts *alerts, struct alert_measure *ret)
{
    double mean_s = qfc_report_window_of(alerts->report, "hour")->run_mean_s;
    ret->value = mean_s > 0 ? mean_s : 0;
    snprintf(ret->text, sizeof ret->text, "jobs have run for %.1f s on average within an hour", ret->value);
    return true;
}

static bool failures_in_a_row(const struct alerts *alerts, struct alert_measure *ret)
{
    ret->value = (double)alerts->report->failures_in_a_row;
    snprintf(ret->text, sizeof ret->text, "the last %ld jobs have failed", alerts->report->failures_in_a_row);
    return true;
}

/* Looks how full a disk is; keeps the fullest. */
static void look_at_disk(const char *what, const char *path, struct alert_measure *ret, bool *found)
{
    struct statvfs disk;
    if (!*path || statvfs(path, &disk) < 0 || disk.f_blocks == 0)
        return;
    /* As df counts: of what others than root may use. */
    double used = (double)(disk.f_blocks - disk.f_bfree), room = used + (double)disk.f_bavail;
    double percent = room > 0 ? 100 * used / room : 100;
    if (*found && percent <= ret->value)
        return;
    *found = true;
    ret->value = percent;
    snprintf(ret->text, sizeof ret->text, "the disk of %s (%.150s) is %.0f %% full", what, path, percent);
}

static bool disk(const struct alerts *alerts, struct alert_measure *ret)
{
    bool found = false;
    look_at_disk("the engine", alerts->engine_root, ret, &found);
    look_at_disk("the images' backups", alerts->settings->image_backup_dir, ret, &found);
    return found;
}

static bool missing(const struct alerts *alerts, const char *kind, struct alert_measure *ret)
{
    const struct qfc_state state = qfc_monitor_state(alerts->worker);
    size_t used = (size_t)snprintf(ret->text, sizeof ret->text, "the engine has no %s", kind);
    ret->value = 0;
    for (size_t i = 0; i < state.missing_count; i++) {
        if (strcmp(state.missing[i].kind, kind) != 0)
            continue;
        ret->value++;
        if (used < sizeof ret->text)
            used += (size_t)snprintf(ret->text + used, sizeof ret->text - used, " %s", state.missing[i].name);
    }
    if (ret->value == 0)
        snprintf(ret->text, sizeof ret->text, "the engine has each %s that was needed", kind);
    return state.engine_ready;
}

static bool missing_image(const struct alerts *alerts, struct alert_measure *ret)
{
    return missing(alerts, "image", ret);
}

static bool missing_network(const struct alerts *alerts, struct alert_measure *ret)
{
    return missing(alerts, "network", ret);
}

#define LIMIT(member) offsetof(struct qfc_settings, member)

/* clang-format off */
const struct alert_rule alert_rules[ALERTS] = {
    {"queue_depth", "warning", OF_QUEUE, LIMIT(alert_queue_warning), AT_LEAST, true, " jobs", pending},
    {"queue_depth", "critical", OF_QUEUE, LIMIT(alert_queue_critical), AT_LEAST, true, " jobs", pending},
    {"oldest_pending", "warning", OF_QUEUE, LIMIT(alert_oldest_pending_s), ABOVE, false, " s", oldest_pending},
    {"failed_jobs", "warning", OF_QUEUE, LIMIT(alert_failed_jobs), AT_LEAST, false, " jobs", failed_jobs},
    {"failures_in_a_row", "critical", OF_QUEUE, LIMIT(alert_failures_in_a_row), AT_LEAST, false, " jobs", failures_in_a_row},
    {"success_rate", "warning", OF_QUEUE, LIMIT(alert_success_percent), BELOW, false, " %", success_rate},
    {"average_run", "warning", OF_QUEUE, LIMIT(alert_average_run_s), ABOVE, false, " s", average_run},
    {"disk", "warning", OF_HOST, LIMIT(alert_disk_warning_percent), AT_LEAST, false, " %", disk},
    {"disk", "critical", OF_HOST, LIMIT(alert_disk_critical_percent), AT_LEAST, false, " %", disk},
    {"image_missing", "critical", OF_HOST, LIMIT(alert_image_missing), AT_LEAST, false, "", missing_image},
    {"network_missing", "critical", OF_HOST, LIMIT(alert_network_missing), AT_LEAST, false, "", missing_network},
};
/* clang-format on */

long alert_limit(const struct alerts *alerts, const struct alert_rule *rule)
{
    return *(const long *)((const char *)alerts->settings + rule->limit);
}
