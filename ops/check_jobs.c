/*
 * check: who works, and what keeps jobs from being run.
 */
#include "check.h"

#include "jobs.h"

#include "qfc/pg.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Lines of one kind; of more only the number is told. */
#define LINES_MAX 10

/* A worker that has said nothing for so long hangs: the others end its session. */
#define SILENT_S 20

/* From then on it is worth a word that nobody takes a job that could be run, that a transfer holds a project, and that a
 * job is queued without a mark (QFieldCloud's own worker leaves none for a moment). */
#define NOT_TAKEN_S 300
#define LOCKED_S    3600
#define NOBODYS_S   60

/* The queue's state, asked once for all checks of a round; null: it was said why there is none. */
static const struct qfc_report *report_of(struct look *look)
{
    struct qfc_error error = QFC_NO_ERROR;
    if (!look->has_report && database_report(look->database, &look->release, &look->report, &error) < 0) {
        check_found_error(look, "look at the queue", &error);
        return NULL;
    }
    look->has_report = true;
    return &look->report;
}

void check_forget_report(struct look *look)
{
    if (look->has_report)
        qfc_report_free(&look->report);
    look->has_report = false;
}

static size_t count_alive(const struct qfc_report *report)
{
    size_t alive = 0;
    for (size_t i = 0; i < report->worker_count; i++)
        alive += report->workers[i].silent_s <= SILENT_S;
    return alive;
}

/* Running containers of QFieldCloud's own workers: compose's, of this project, which run its command. */
static long count_old_containers(struct look *look)
{
    struct qfc_error error = QFC_NO_ERROR;
    struct engine_answer answer = {0};
    char label[256];
    long count = 0;
    snprintf(label, sizeof label, "com.docker.compose.project=%s", look->settings.compose_project_name);
    if (ENGINE_ASK(&look->turns, 0, &answer, &error, qfc_engine_list, label) == 0) {
        json_t *list = json_loadb(qfc_buffer_text(&answer.data), answer.data.size, 0, NULL);
        for (size_t i = 0; i < json_array_size(list); i++) {
            const char *command = json_string_value(json_object_get(json_array_get(list, i), "Command"));
            const char *state = json_string_value(json_object_get(json_array_get(list, i), "State"));
            count += command && state && strstr(command, "manage.py dequeue") && strcmp(state, "running") == 0;
        }
        json_decref(list);
    }
    engine_answer_free(&answer);
    return count;
}

/* "2 on hosta, 1 on hostb", of those that live. */
static void name_hosts(const struct qfc_report *report, char *out, size_t size)
{
    size_t used = 0;
    *out = '\0';
    for (size_t i = 0; i < report->worker_count && used < size; i++) {
        const struct qfc_report_worker *worker = &report->workers[i];
        if (worker->silent_s > SILENT_S)
            continue;
        used += (size_t)snprintf(out + used, size - used, "%s%s%s%s%s", used ? ", " : "", worker->host,
                                 worker->version ? " (" : "", worker->version ? worker->version : "",
                                 worker->version ? ")" : "");
    }
}

static void find_silent(struct look *look, const struct qfc_report *report)
{
    for (size_t i = 0; i < report->worker_count; i++) {
        const struct qfc_report_worker *worker = &report->workers[i];
        if (worker->silent_s <= SILENT_S)
            continue;
        check_found(look, CHECK_WARNING, "worker %s on %s has said nothing for %.0f s: it hangs, or its host is gone",
                    worker->instance, worker->host, worker->silent_s);
        check_advise(look, "restart it there: docker compose restart worker_wrapper");
    }
}

void check_workers(struct look *look)
{
    const struct qfc_report *report = report_of(look);
    char hosts[512];
    if (!report)
        return;
    long wanted = look->settings.replicas, alive = (long)count_alive(report), old = report->old_started;
    long containers = look->has & CHECK_ENGINE ? count_old_containers(look) : 0;
    old = containers > old ? containers : old;
    name_hosts(report, hosts, sizeof hosts);
    if (alive + old == 0) {
        check_found(look, CHECK_FAILED, "no worker is alive: %ld jobs wait", report->pending);
        check_advise(look, "docker compose up -d worker_wrapper, or qfc-worker run");
    } else if (alive + old < wanted) {
        check_found(look, CHECK_WARNING, "%ld of %ld workers are alive%s%s%s, and %ld of QFieldCloud's own",
                    alive + old, wanted, *hosts ? " (" : "", hosts, *hosts ? ")" : "", old);
        check_advise(look, "docker compose ps worker_wrapper, docker compose logs worker_wrapper; or correct "
                           "QFIELDCLOUD_WORKER_REPLICAS");
    } else {
        check_found(look, CHECK_OK, "%ld alive%s%s, and %ld of QFieldCloud's own", alive, *hosts ? ": " : "", hosts,
                    old);
    }
    find_silent(look, report);
}

void check_queue(struct look *look)
{
    const struct qfc_report *report = report_of(look);
    char age[AGE_SIZE];
    if (!report)
        return;
    if (report->oldest_claimable_s > NOT_TAKEN_S) {
        check_found(look, CHECK_WARNING, "%ld jobs could be run at once, and nobody has taken the oldest for %s",
                    report->claimable, print_age(age, report->oldest_claimable_s));
        check_advise(look, "qfc-worker check --only workers,images,network; then the workers' log: docker compose logs "
                           "worker_wrapper");
        return;
    }
    check_found(look, CHECK_OK, "%ld jobs wait, the oldest for %s; %ld are under way", report->pending,
                report->pending > 0 ? print_age(age, report->oldest_pending_s) : "-", report->queued + report->started);
}

/* "package job 4f1c2a3b of ada/trees" */
static void name_job(const struct qfc_report_blocked *blocked, char *out, size_t size)
{
    snprintf(out, size, "job %.8s of %s/%s", blocked->job ? blocked->job : "?",
             blocked->owner_name ? blocked->owner_name : "?", blocked->project ? blocked->project : "?");
}

static bool is_nobodys(const struct qfc_report_blocked *blocked)
{
    return strcmp(blocked->why, "nobody") == 0 && blocked->since_s > NOBODYS_S;
}

static bool is_stuck(const struct qfc_report_blocked *blocked)
{
    return strcmp(blocked->why, "lost") == 0 || strcmp(blocked->why, "overdue") == 0;
}

static bool is_locked(const struct qfc_report_blocked *blocked)
{
    return strcmp(blocked->why, "locked") == 0 && blocked->since_s > LOCKED_S;
}

static void say_stuck(struct look *look, const struct qfc_report_blocked *blocked)
{
    char job[256], age[AGE_SIZE];
    name_job(blocked, job, sizeof job);
    print_age(age, blocked->since_s);
    if (strcmp(blocked->why, "overdue") == 0) {
        check_found(look, CHECK_WARNING, "%s has run for %s on a worker of QFieldCloud's own; %ld more wait behind it",
                    job, age, blocked->waiting);
        check_advise(look, "if nothing runs it any more: qfc-worker jobs cancel --force %.8s", blocked->job);
    } else if (count_alive(&look->report) > 0) {
        check_found(look, CHECK_WARNING, "%s has lost its worker, after %s; %ld more wait behind it", job, age,
                    blocked->waiting);
        check_advise(look,
                     "a worker on its engine takes it over within seconds: run this again; if there is none, "
                     "qfc-worker jobs requeue %.8s",
                     blocked->job);
    } else {
        check_found(look, CHECK_FAILED,
                    "%s has lost its worker, after %s, and no other is alive; %ld more wait behind it", job, age,
                    blocked->waiting);
        check_advise(look, "start a worker, which takes it over; or qfc-worker check --fix");
    }
}

static void say_nobodys(struct look *look, const struct qfc_report_blocked *blocked)
{
    char job[256], age[AGE_SIZE];
    name_job(blocked, job, sizeof job);
    check_found(look, CHECK_WARNING, "%s is queued, and no worker has ever marked it, for %s; %ld more wait behind it",
                job, print_age(age, blocked->since_s), blocked->waiting);
    check_advise(look, "qfc-worker check --fix, or qfc-worker jobs requeue %.8s", blocked->job);
}

static void say_locked(struct look *look, const struct qfc_report_blocked *blocked)
{
    char age[AGE_SIZE];
    const char *project = check_release_text(look, "project");
    check_found(look, CHECK_WARNING, "%s/%s is locked by a file transfer for %s; %ld jobs wait",
                blocked->owner_name ? blocked->owner_name : "?", blocked->project ? blocked->project : "?",
                print_age(age, blocked->since_s), blocked->waiting);
    check_advise(look, "if no transfer is under way any more: UPDATE %s SET locked_at = NULL WHERE id = '%s'", project,
                 blocked->project_id);
}

/* One line for each that is as asked, and one for the rest; or that there is none. */
static void find_blocked(struct look *look, bool (*is)(const struct qfc_report_blocked *),
                         void (*say)(struct look *, const struct qfc_report_blocked *), const char *none)
{
    const struct qfc_report *report = report_of(look);
    size_t count = 0;
    if (!report)
        return;
    for (size_t i = 0; i < report->blocked_count; i++)
        if (is(&report->blocked[i]) && count++ < LINES_MAX)
            say(look, &report->blocked[i]);
    if (count == 0)
        check_found(look, CHECK_OK, "%s", none);
    if (count > LINES_MAX)
        check_found(look, CHECK_WARNING, "and %zu more", count - LINES_MAX);
}

void check_jobs(struct look *look)
{
    find_blocked(look, is_stuck, say_stuck, "none has lost its worker");
}

void check_queued(struct look *look)
{
    find_blocked(look, is_nobodys, say_nobodys, "none is queued without a worker's mark");
}

void check_projects(struct look *look)
{
    find_blocked(look, is_locked, say_locked, "none has been locked by a transfer for an hour");
}

static void said(void *userdata, const char *id, bool done, const char *says)
{
    check_mended(userdata, "%s%s", done ? "" : "nothing: ", says);
}

/* The same as `jobs requeue`, and so the same as recovery does. */
static void mend_blocked(struct look *look, bool (*is)(const struct qfc_report_blocked *))
{
    struct qfc_error error = QFC_NO_ERROR;
    const struct jobs jobs = {.connection = look->database, .release = look->release};
    const struct qfc_report *report = report_of(look);
    const char **ids = calloc((report ? report->blocked_count : 0) + 1, sizeof *ids);
    size_t count = 0;
    for (size_t i = 0; ids && report && i < report->blocked_count; i++)
        if (is(&report->blocked[i]) && report->blocked[i].job)
            ids[count++] = report->blocked[i].job;
    if (count > 0 && jobs_requeue(&jobs, ids, count, look->dry_run, said, look, &error) < 0)
        check_mended(look, "not all: %s", error.message);
    free(ids);
}

void mend_jobs(struct look *look)
{
    mend_blocked(look, is_stuck);
}

void mend_queued(struct look *look)
{
    mend_blocked(look, is_nobodys);
}
