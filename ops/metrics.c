/*
 * The daemon in Prometheus's text format (prometheus.io/docs/instrumenting/exposition_formats). Labels have few values:
 * no jobs, no projects, no users.
 */
#include "metrics.h"

#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define JOBS 256

#define PUT(out, ...) ((out)->cut |= qfc_buffer_printf((out)->buffer, __VA_ARGS__) < 0)

void put_family(struct metrics *out, const char *name, const char *type, const char *help)
{
    PUT(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* A label's value, with what would end it escaped. */
static void put_value(struct metrics *out, const char *value)
{
    for (; *value; value++) {
        if (*value == '\n')
            PUT(out, "\\n");
        else if (*value == '"' || *value == '\\')
            PUT(out, "\\%c", *value);
        else
            PUT(out, "%c", *value);
    }
}

void put_sample(struct metrics *out, const char *name, const char *const *labels, double value)
{
    PUT(out, "%s", name);
    for (size_t i = 0; labels && labels[i]; i += 2) {
        PUT(out, "%s%s=\"", i ? "," : "{", labels[i]);
        put_value(out, labels[i + 1]);
        PUT(out, "\"");
    }
    PUT(out, "%s %.15g\n", labels && labels[0] ? "}" : "", value);
}

void put_one(struct metrics *out, const char *name, const char *type, const char *help, double value)
{
    put_family(out, name, type, help);
    put_sample(out, name, NULL, value);
}

static void put_histogram(struct metrics *out, const char *name, const char *type,
                          const struct qfc_histogram *histogram)
{
    char full[64], bound[32];
    uint64_t sum = 0;
    snprintf(full, sizeof full, "%s_bucket", name);
    for (size_t i = 0; i < QFC_BUCKETS; i++) {
        sum += histogram->counts[i];
        snprintf(bound, sizeof bound, "%g", qfc_bucket_s[i]);
        put_sample(out, full, LABELS("type", type, "le", bound), (double)sum);
    }
    sum += histogram->counts[QFC_BUCKETS];
    put_sample(out, full, LABELS("type", type, "le", "+Inf"), (double)sum);
    snprintf(full, sizeof full, "%s_sum", name);
    put_sample(out, full, LABELS("type", type), histogram->sum_s);
    snprintf(full, sizeof full, "%s_count", name);
    put_sample(out, full, LABELS("type", type), (double)sum);
}

static void put_histograms(struct metrics *out, const struct qfc_counters *counters)
{
    put_family(out, "qfc_worker_pickup_seconds", "histogram",
               "From a job's creation to its claim, first attempts only.");
    for (size_t i = 0; i < QFC_MONITOR_TYPES; i++)
        put_histogram(out, "qfc_worker_pickup_seconds", counters->types[i].type, &counters->types[i].pickup);
    put_family(out, "qfc_worker_wait_seconds", "histogram",
               "From a job's creation to the start of its container, first attempts only.");
    for (size_t i = 0; i < QFC_MONITOR_TYPES; i++)
        put_histogram(out, "qfc_worker_wait_seconds", counters->types[i].type, &counters->types[i].wait);
    put_family(out, "qfc_worker_run_seconds", "histogram", "From the start of a job's container to its end.");
    for (size_t i = 0; i < QFC_MONITOR_TYPES; i++)
        put_histogram(out, "qfc_worker_run_seconds", counters->types[i].type, &counters->types[i].run);
}

static void put_types(struct metrics *out, const struct qfc_counters *counters)
{
    put_family(out, "qfc_worker_jobs_claimed_total", "counter", "Jobs that this worker has claimed.");
    for (size_t i = 0; i < QFC_MONITOR_TYPES; i++)
        put_sample(out, "qfc_worker_jobs_claimed_total", LABELS("type", counters->types[i].type),
                   (double)counters->types[i].claimed);
    put_family(out, "qfc_worker_jobs_adopted_total", "counter", "Jobs taken over from workers that had died.");
    for (size_t i = 0; i < QFC_MONITOR_TYPES; i++)
        put_sample(out, "qfc_worker_jobs_adopted_total", LABELS("type", counters->types[i].type),
                   (double)counters->types[i].adopted);
    put_family(
        out, "qfc_worker_jobs_ended_total", "counter",
        "Jobs that this worker has no more, by how: put_back is for another attempt, lost means deleted, ended or "
        "taken by somebody else.");
    for (size_t i = 0; i < QFC_MONITOR_TYPES; i++) {
        const struct qfc_type_counters *type = &counters->types[i];
        const struct {
            const char *how;
            uint64_t count;
        } ends[] = {
            {"finished", type->finished}, {"failed", type->failed}, {"put_back", type->put_back}, {"lost", type->lost}};
        for (size_t end = 0; end < sizeof ends / sizeof *ends; end++)
            put_sample(out, "qfc_worker_jobs_ended_total", LABELS("type", type->type, "outcome", ends[end].how),
                       (double)ends[end].count);
    }
    put_family(out, "qfc_worker_jobs_failed_total", "counter", "Failed jobs by the code of their reason.");
    for (size_t i = 0; i < QFC_MONITOR_NAMES && *counters->reasons[i].name; i++)
        put_sample(out, "qfc_worker_jobs_failed_total", LABELS("reason", counters->reasons[i].name),
                   (double)counters->reasons[i].count);
}

static void put_usage(struct metrics *out, const struct qfc_counters *counters)
{
    put_family(out, "qfc_worker_job_cpu_seconds_total", "counter", "Processor time that jobs' containers have used.");
    for (size_t i = 0; i < QFC_MONITOR_TYPES; i++)
        put_sample(out, "qfc_worker_job_cpu_seconds_total", LABELS("type", counters->types[i].type),
                   (double)counters->types[i].cpu_ms / 1000);
    put_family(out, "qfc_worker_job_network_bytes_total", "counter", "What jobs' containers have received and sent.");
    for (size_t i = 0; i < QFC_MONITOR_TYPES; i++) {
        const struct qfc_type_counters *type = &counters->types[i];
        put_sample(out, "qfc_worker_job_network_bytes_total", LABELS("type", type->type, "direction", "received"),
                   (double)type->received_bytes);
        put_sample(out, "qfc_worker_job_network_bytes_total", LABELS("type", type->type, "direction", "sent"),
                   (double)type->sent_bytes);
    }
    put_family(out, "qfc_worker_job_peak_memory_bytes", "gauge",
               "The largest memory of one container that was seen since this worker's start.");
    for (size_t i = 0; i < QFC_MONITOR_TYPES; i++)
        put_sample(out, "qfc_worker_job_peak_memory_bytes", LABELS("type", counters->types[i].type),
                   (double)counters->types[i].peak_memory_bytes);
    put_family(out, "qfc_worker_step_seconds", "summary", "How long steps of workflows took, as containers tell.");
    for (size_t i = 0; i < QFC_MONITOR_NAMES && *counters->steps[i].name; i++) {
        const struct qfc_named_counter *step = &counters->steps[i];
        put_sample(out, "qfc_worker_step_seconds_sum", LABELS("step", step->name), (double)step->took_ms / 1000);
        put_sample(out, "qfc_worker_step_seconds_count", LABELS("step", step->name), (double)step->count);
    }
}

static void put_counters(struct metrics *out, const struct qfc_counters *counters)
{
    const struct {
        const char *name, *help;
        uint64_t value;
    } rows[] = {
        {"qfc_worker_claims_total", "Questions for jobs to claim.", counters->claims},
        {"qfc_worker_claim_errors_total", "Such questions that failed.", counters->claim_errors},
        {"qfc_worker_looks_total", "Questions whether there is something to claim.", counters->looks},
        {"qfc_worker_database_connects_total", "How often the database was there, first or again.",
         counters->database_connects},
        {"qfc_worker_database_errors_total", "Connections to the database that were lost or could not be made.",
         counters->database_errors},
        {"qfc_worker_engine_errors_total", "Calls of jobs that the engine refused or did not answer.",
         counters->engine_errors},
        {"qfc_worker_engine_absences_total", "How often the engine was found not to answer.",
         counters->engine_absences},
        {"qfc_worker_images_missed_total", "How often an image was found missing.", counters->images_missed},
        {"qfc_worker_networks_missed_total", "How often the network was found missing.", counters->networks_missed},
        {"qfc_worker_volumes_missed_total", "How often a volume was found missing.", counters->volumes_missed},
        {"qfc_worker_images_restored_total", "Missing images that this worker has brought back.",
         counters->images_restored},
        {"qfc_worker_images_saved_total", "Images that this worker has saved.", counters->images_saved},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        put_one(out, rows[i].name, "counter", rows[i].help, (double)rows[i].value);
}

/* Of which types are the jobs that the worker has? */
static void put_jobs(struct metrics *out, const struct qfc_worker *worker)
{
    const struct qfc_counters *counters = qfc_monitor_counters(worker);
    struct qfc_running jobs[JOBS];
    size_t count = qfc_monitor_jobs(worker, jobs, JOBS);
    unsigned running[QFC_MONITOR_TYPES] = {0};
    for (size_t i = 0; i < count; i++) {
        size_t type = 0;
        while (type + 1 < QFC_MONITOR_TYPES && strcmp(counters->types[type].type, jobs[i].type) != 0)
            type++;
        running[type]++;
    }
    put_family(out, "qfc_worker_jobs", "gauge", "Jobs that the worker has now.");
    for (size_t i = 0; i < QFC_MONITOR_TYPES; i++)
        put_sample(out, "qfc_worker_jobs", LABELS("type", counters->types[i].type), running[i]);
}

static void put_state(struct metrics *out, const struct showing *showing)
{
    const struct qfc_state state = qfc_monitor_state(showing->worker);
    char reasons[1][QFC_MONITOR_REASON_SIZE];
    put_family(out, "qfc_worker_info", "gauge", "Which worker this is, and of which releases its database can be.");
    put_sample(out, "qfc_worker_info", LABELS("version", QFC_VERSION, "release", state.release), 1);
    put_one(out, "qfc_worker_slots", "gauge", "Jobs that may run at the same time.", state.slots);
    put_one(out, "qfc_worker_busy", "gauge", "Slots that are taken.", state.busy);
    put_one(out, "qfc_worker_ready", "gauge", "1: jobs can be claimed. /readyz says why not.",
            qfc_monitor_reasons(showing->worker, reasons, 1) == 0);
    put_one(out, "qfc_worker_database_up", "gauge", "1: the database is connected.", state.database_ready);
    put_one(out, "qfc_worker_engine_up", "gauge", "1: the container engine answers.", state.engine_ready);
    put_one(out, "qfc_worker_stopping", "gauge", "1: it claims no more jobs, and will end.", state.stopping);
    put_family(out, "qfc_worker_missing", "gauge",
               "An image, network or volume that the engine lacks: nothing that needs it is claimed.");
    for (size_t i = 0; i < state.missing_count; i++)
        put_sample(out, "qfc_worker_missing", LABELS("kind", state.missing[i].kind, "name", state.missing[i].name), 1);
    put_jobs(out, showing->worker);
    put_one(out, "process_start_time_seconds", "gauge", "When it was started, in seconds since 1970.",
            state.started_at);
}

static double resident_bytes(void)
{
    unsigned long size = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (file && fscanf(file, "%lu %lu", &size, &resident) != 2)
        resident = 0;
    if (file)
        fclose(file);
    return (double)resident * (double)sysconf(_SC_PAGESIZE);
}

static void put_process(struct metrics *out)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    double cpu_s = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                   (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    put_one(out, "process_cpu_seconds_total", "counter", "Processor time of the worker itself.", cpu_s);
    put_one(out, "process_resident_memory_bytes", "gauge", "Memory of the worker itself.", resident_bytes());
}

int write_metrics(const struct showing *showing, const struct qfc_report *report, struct qfc_buffer *buffer)
{
    const struct qfc_counters *counters = qfc_monitor_counters(showing->worker);
    struct metrics out = {.buffer = buffer};
    put_state(&out, showing);
    put_types(&out, counters);
    put_usage(&out, counters);
    put_histograms(&out, counters);
    put_counters(&out, counters);
    put_alerts(&out, &showing->alerts);
    if (report)
        put_queue(&out, report);
    put_process(&out);
    return out.cut ? -1 : 0;
}
