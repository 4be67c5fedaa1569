/*
 * What jobs need of the engine besides it being there: images, the network, volumes. What is missing is not the job's
 * fault, and the next job would fare no better: so what needs it is not claimed until it is there.
 *
 * It is looked for before the first claim, when the engine tells that something was removed, and every minute; what is
 * missing every two seconds. A volume is looked for before each container, too: the engine would make one that is missing
 * by itself, empty, and the job would seem to go well.
 */
#include "worker_private.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#define MISSING_LOOK_MS 2000
#define LOOK_MS         60000

static const char *const words[NEED_COUNT] = {
    [NEED_QGIS] = "image",      [NEED_QGIS3] = "image",  [NEED_QGIS4] = "image",
    [NEED_NETWORK] = "network", [NEED_GRIDS] = "volume", [NEED_CA] = "volume",
};

const char *need_word(enum need_kind kind)
{
    return words[kind];
}

/* Networks that every engine has; Podman does not know them by these names. */
static bool is_built_in(const char *network)
{
    static const char *const names[] = {"none", "host", "bridge", "default"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(network, names[i]) == 0)
            return true;
    return strchr(network, ':') != NULL; /* container:NAME */
}

const char *need_name(const struct qfc_worker *worker, enum need_kind kind)
{
    const struct qfc_settings *settings = worker->settings;
    bool by_qgis = worker->images_by_qgis;
    switch (kind) {
    case NEED_QGIS:
        return by_qgis ? NULL : settings->qgis_image;
    case NEED_QGIS3:
        return by_qgis ? settings->qgis3_image : NULL;
    case NEED_QGIS4:
        return by_qgis ? settings->qgis4_image : NULL;
    case NEED_NETWORK:
        return *settings->network ? settings->network : NULL;
    case NEED_GRIDS:
        return *settings->grids_volume ? settings->grids_volume : NULL;
    case NEED_CA:
        return *worker->ca_volume ? worker->ca_volume : NULL;
    case NEED_COUNT:
        break;
    }
    return NULL;
}

/* Of what every engine has, only its own word that it has not counts. */
static bool is_looked_for(const struct qfc_worker *worker, enum need_kind kind)
{
    const char *name = need_name(worker, kind);
    return name && (kind != NEED_NETWORK || worker->needs[kind].missing || !is_built_in(name));
}

bool needs_met(const struct qfc_worker *worker)
{
    bool waits = worker->mode != QFC_WORKER_SINGLE_SHOT; /* which ends instead: its job goes back */
    for (enum need_kind kind = 0; kind < NEED_COUNT; kind++) {
        const struct need *need = &worker->needs[kind];
        bool unknown = is_looked_for(worker, kind) && !need->looked;
        if (need_name(worker, kind) && (unknown || (need->missing && kind >= NEED_NETWORK && waits)))
            return false;
    }
    return true;
}

size_t missing_qgis(const struct qfc_worker *worker, const char *ret_majors[2])
{
    size_t count = 0;
    if (worker->needs[worker->images_by_qgis ? NEED_QGIS3 : NEED_QGIS].missing)
        ret_majors[count++] = "3";
    if (worker->images_by_qgis && worker->needs[NEED_QGIS4].missing)
        ret_majors[count++] = "4";
    return count;
}

static void on_timer(uv_timer_t *timer)
{
    needs_look(timer->data);
}

/* A QGIS 4 image is not there yet in most places: that is no fault, until it has been there. */
bool need_is_trouble(const struct qfc_worker *worker, enum need_kind kind)
{
    const struct need *need = &worker->needs[kind];
    return need->missing && need_name(worker, kind) && (kind != NEED_QGIS4 || need->seen);
}

static void look_later(struct qfc_worker *worker)
{
    bool soon = worker->needs_failures > 0;
    for (enum need_kind kind = 0; kind < NEED_COUNT; kind++)
        soon |= is_looked_for(worker, kind) && (need_is_trouble(worker, kind) || !worker->needs[kind].looked);
    if (!worker->closing)
        uv_timer_start(&worker->need_probe, on_timer, soon ? MISSING_LOOK_MS : LOOK_MS, 0);
}

static void count_missing(struct qfc_worker *worker, enum need_kind kind)
{
    struct qfc_counters *counters = &worker->counters;
    if (kind <= NEED_QGIS4)
        counters->images_missed++;
    else if (kind == NEED_NETWORK)
        counters->networks_missed++;
    else
        counters->volumes_missed++;
}

static void mark(struct qfc_worker *worker, enum need_kind kind, const char *name, const struct qfc_error *why)
{
    struct need *need = &worker->needs[kind];
    bool was_missing = need->missing;
    worker->needs_changed |= !need->looked || (was_missing && !why);
    need->missing = why != NULL;
    need->looked = true;
    need->seen |= !why;
    bool trouble = need_is_trouble(worker, kind);
    if (why && !was_missing)
        qfc_log(trouble ? QFC_LOG_ERROR : QFC_LOG_INFO, NULL,
                "the engine has no %s %s: no job that needs it is claimed until it has; %s", need_word(kind), name,
                why->message);
    else if (!why && was_missing)
        qfc_log(QFC_LOG_INFO, NULL, "%s %s is there again", need_word(kind), name);
    if (trouble && !was_missing)
        count_missing(worker, kind);
    if (kind <= NEED_QGIS4 && why)
        guard_saw(worker, kind, NULL);
}

static void look_at(struct qfc_worker *worker, enum need_kind kind);

static void end_round(struct qfc_worker *worker)
{
    bool again = worker->needs_again, changed = worker->needs_changed;
    worker->needs_looking = worker->needs_again = worker->needs_changed = false;
    if (again && !worker->closing)
        needs_look(worker);
    else
        look_later(worker);
    if (changed)
        schedule(worker);
}

/* An engine that is just being stopped answers on one connection and not on another: what comes twice counts. */
static void look_failed(struct qfc_worker *worker, const struct qfc_error *error)
{
    bool away = error->kind == QFC_ERROR_UNREACHABLE || error->kind == QFC_ERROR_UNKNOWN;
    if (++worker->needs_failures >= 2 && away)
        engine_lost(worker);
    end_round(worker);
}

static void on_looked(void *userdata, const struct qfc_error *error, const struct qfc_engine_reply *reply)
{
    struct qfc_worker *worker = userdata;
    enum need_kind kind = worker->need_looked;
    const char *name = need_name(worker, kind);
    bool missing = error && error->kind == QFC_ERROR_REFUSED && error->code == 404;
    if (error && error->kind != QFC_ERROR_REFUSED && error->kind != QFC_ERROR_INVALID) {
        look_failed(worker, error);
        return;
    }
    if (name && (!error || missing))
        mark(worker, kind, name, error);
    else if (name)
        mark(worker, kind, name, NULL); /* what a proxy forbids to look at is taken to be there */
    if (!error && kind <= NEED_QGIS4)
        guard_saw(worker, kind, qfc_buffer_text(reply->data));
    look_at(worker, kind + 1);
}

/* Looks at this need and those that follow, one at a time. */
static void look_at(struct qfc_worker *worker, enum need_kind kind)
{
    while (kind < NEED_COUNT && !is_looked_for(worker, kind))
        kind++;
    worker->need_looked = kind;
    if (kind == NEED_COUNT) {
        worker->needs_failures = 0;
        end_round(worker);
        return;
    }
    const char *name = need_name(worker, kind);
    int r = kind <= NEED_QGIS4     ? qfc_engine_image(worker->engine, name, on_looked, worker, NULL, NULL)
            : kind == NEED_NETWORK ? qfc_engine_network(worker->engine, name, on_looked, worker, NULL, NULL)
                                   : qfc_engine_volume(worker->engine, name, on_looked, worker, NULL, NULL);
    if (r < 0)
        end_round(worker);
}

void needs_look(struct qfc_worker *worker)
{
    if (worker->needs_looking) {
        worker->needs_again = true;
        return;
    }
    if (worker->closing || !worker->engine_ready || !worker->database_was_ready)
        return; /* both look when they are */
    uv_timer_stop(&worker->need_probe);
    worker->needs_looking = true;
    look_at(worker, NEED_QGIS);
}

static enum need_kind image_of(const struct job *job)
{
    const struct qfc_settings *settings = job->worker->settings;
    return job->image == settings->qgis3_image   ? NEED_QGIS3
           : job->image == settings->qgis4_image ? NEED_QGIS4
                                                 : NEED_QGIS;
}

/* Only the engine's words tell what is not there: a volume's driver and the container are answered with 404, too. Of a
 * network Docker tells at the start; other engines may when the container is created. */
static enum need_kind lacking(const struct job *job, const struct qfc_error *error)
{
    const char *message = error->message;
    if (error->kind != QFC_ERROR_REFUSED || error->code != 404)
        return NEED_COUNT;
    if (job->step == STEP_START)
        return strstr(message, "network") ? NEED_NETWORK : NEED_COUNT;
    if (job->step != STEP_CREATE)
        return NEED_COUNT;
    if (job->looked_for != NEED_COUNT)
        return job->looked_for;
    if (strcasestr(message, "no such image") || strcasestr(message, "image not known"))
        return image_of(job);
    return strcasestr(message, "network") && strcasestr(message, "not found") ? NEED_NETWORK : NEED_COUNT;
}

enum need_kind engine_lacks(struct job *job, const struct qfc_error *error)
{
    struct qfc_worker *worker = job->worker;
    enum need_kind kind = lacking(job, error);
    const char *name = kind < NEED_COUNT ? need_name(worker, kind) : NULL;
    if (!name)
        return NEED_COUNT;
    mark(worker, kind, name, error);
    look_later(worker);
    return kind;
}

static void look_for_volume(struct job *job, enum need_kind kind);

static void on_volume(void *userdata, const struct qfc_error *error, const struct qfc_engine_reply *reply)
{
    struct job *job = userdata;
    bool forbidden = error && error->kind == QFC_ERROR_REFUSED && error->code != 404;
    if (error && !forbidden)
        job_ended(job, error);
    else
        look_for_volume(job, job->looked_for + 1);
}

static void look_for_volume(struct job *job, enum need_kind kind)
{
    struct qfc_error error = QFC_NO_ERROR;
    const char *name = NULL;
    while (kind < NEED_COUNT && !(name = need_name(job->worker, kind)))
        kind++;
    job->looked_for = kind;
    int r = name ? qfc_engine_volume(job->worker->engine, name, on_volume, job, NULL, &error)
                 : job->after_volumes(job, &error);
    if (r < 0)
        job_ended(job, &error);
}

int with_volumes(struct job *job, step_start *then, struct qfc_error *error)
{
    job->looked_for = NEED_COUNT;
    for (enum need_kind kind = NEED_GRIDS; kind < NEED_COUNT; kind++) {
        const char *name = need_name(job->worker, kind);
        if (!name)
            continue;
        job->looked_for = kind;
        job->after_volumes = then;
        return qfc_engine_volume(job->worker->engine, name, on_volume, job, NULL, error);
    }
    return then(job, error);
}
