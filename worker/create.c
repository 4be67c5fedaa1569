/*
 * What a job's container is made of: QFieldCloud's contract with its QGIS image (v25.27 to v26.25).
 */
#include "worker_private.h"

#include "qfc/container.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BODY_MAX_BYTES (8u * 1024 * 1024)

/* More than is kept of it: each line costs the engine some 80 bytes besides. */
#define ENGINE_LOG_MAX_BYTES (512LL * 1024 * 1024)

#define GRIDS_PATH "/transformation_grids"

/* QGIS 3.40.6 -> 3. QFieldCloud takes a project without a version for one of QGIS 3. */
static long qgis_major(const char *version)
{
    return version && *version ? strtol(version, NULL, 10) : 3;
}

int choose_image(struct job *job, struct qfc_error *error)
{
    const struct qfc_settings *settings = job->worker->settings;
    const PGresult *project = job_rows(job).project;
    const char *version = qfc_pg_text(project, 0, "qgis_version");
    const char *by_qgis = qfc_pg_text(project, 0, "images_by_qgis");
    if (!by_qgis || strcmp(by_qgis, "t") != 0)
        job->image = settings->qgis_image;
    else if (qgis_major(version) == 3)
        job->image = settings->qgis3_image;
    else if (qgis_major(version) == 4)
        job->image = settings->qgis4_image;
    else
        return qfc_fail(error, QFC_ERROR_INVALID, 0, "no QGIS image for a project of QGIS version \"%s\"", version);
    return 0;
}

/* The container's environment: texts in one buffer, found by their offsets once all are there. */
struct environment {
    struct qfc_buffer texts;
    size_t offsets[16];
    size_t count;
    const char *list[17];
};

static int add(struct environment *environment, const char *name, const char *value)
{
    environment->offsets[environment->count++] = environment->texts.size;
    if (qfc_buffer_printf(&environment->texts, "%s=%s", name, value) < 0)
        return -1;
    return qfc_buffer_append(&environment->texts, "", 1);
}

static int fill_environment(const struct job *job, struct environment *environment)
{
    environment->texts = qfc_buffer(BODY_MAX_BYTES);
    if (add(environment, "PGSERVICE_FILE_CONTENTS", "") < 0 ||
        add(environment, "QFIELDCLOUD_EXTRA_ENVVARS", "[]") < 0 ||
        add(environment, "QFIELDCLOUD_TOKEN", job->token) < 0 ||
        add(environment, "QFIELDCLOUD_URL", job->worker->settings->qfieldcloud_url) < 0 ||
        add(environment, "JOB_ID", job->row.id) < 0 || add(environment, "PROJ_DOWNLOAD_DIR", GRIDS_PATH) < 0 ||
        add(environment, "QT_QPA_PLATFORM", "offscreen") < 0)
        return -1;
    for (size_t i = 0; i < environment->count; i++)
        environment->list[i] = environment->texts.data + environment->offsets[i];
    return 0;
}

static int write_body(struct job *job, const struct environment *environment, struct qfc_error *error)
{
    const struct qfc_settings *settings = job->worker->settings;
    const char *command[QFC_PLAN_ARGUMENTS + 3] = {"python3", "entrypoint.py"};
    for (size_t i = 0; job->plan.arguments[i]; i++)
        command[i + 2] = job->plan.arguments[i];
    char app[128], attempt[16];
    snprintf(app, sizeof app, "%s_worker", settings->environment);
    snprintf(attempt, sizeof attempt, "%u", job->row.attempt);
    const char *labels[] = {"app",        app,
                            "type",       job->row.type,
                            "job_id",     job->row.id,
                            "project_id", job->row.project_id,
                            "qfc_worker", qfc_queue_marker(job->worker->queue),
                            "attempt",    attempt,
                            NULL};
    const struct qfc_mount grids = {.source = settings->grids_volume, .target = GRIDS_PATH, .read_only = true};
    const struct qfc_container container = {
        .image = job->image,
        .command = command,
        .environment = environment->list,
        .labels = labels,
        .network = settings->network,
        .memory_bytes = job->limits.memory_bytes,
        .cpu_shares = job->limits.cpu_shares,
        .log_max_bytes = ENGINE_LOG_MAX_BYTES,
        .mounts = &grids,
        .mount_count = *settings->grids_volume ? 1 : 0,
    };
    job->body = qfc_buffer(BODY_MAX_BYTES);
    return qfc_container_json(&container, &job->body, error);
}

int describe_container(struct job *job, struct qfc_error *error)
{
    /* Of job, attempt and process: a name that is taken can only mean this very attempt. */
    const char *instance = strchr(qfc_queue_marker(job->worker->queue), ':') + 1;
    snprintf(job->name, sizeof job->name, "qfc-%s-%u-%.8s", job->row.id, job->row.attempt, instance);
    struct environment environment = {0};
    int r = fill_environment(job, &environment) < 0 ? qfc_fail_memory(error) : write_body(job, &environment, error);
    qfc_buffer_wipe(&environment.texts);
    if (r < 0)
        qfc_buffer_wipe(&job->body);
    return r;
}
