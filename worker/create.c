/*
 * What a job's container is made of: QFieldCloud's contract with its QGIS image (v25.27 to v26.25).
 */
#include "worker_private.h"

#include "qfc/confine.h"
#include "qfc/container.h"
#include "qfc/environment.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEBUGGER_ARGUMENTS 5
#define COMMAND_MAX        (QFC_PLAN_ARGUMENTS + DEBUGGER_ARGUMENTS + 3)

#define BODY_MAX_BYTES (8u * 1024 * 1024)

/* 3.40.6 -> 3. QFieldCloud takes a project without a version for one of QGIS 3. -1: no version. */
static long qgis_major(const char *version)
{
    if (!version || !*version)
        return 3;
    char *end;
    long major = strtol(version, &end, 10);
    return end > version && (*end == '.' || *end == '\0') ? major : -1;
}

int choose_image(struct job *job, struct qfc_error *error)
{
    const struct qfc_settings *settings = job->worker->settings;
    const PGresult *project = job_rows(job).project;
    const char *version = qfc_pg_text(project, 0, "qgis_version");
    if (!qfc_pg_true(project, "images_by_qgis"))
        job->image = settings->qgis_image;
    else if (qgis_major(version) == 3)
        job->image = settings->qgis3_image;
    else if (qgis_major(version) == 4)
        job->image = settings->qgis4_image;
    else
        return qfc_fail(error, QFC_ERROR_INVALID, 0, "no QGIS image for a project of QGIS version \"%s\"", version);
    return 0;
}

static bool debugs(const struct qfc_settings *settings)
{
    return settings->debug && settings->debugpy_port > 0;
}

/* What is run under the image's own entrypoint; `listen` is debugpy's address. */
static void fill_command(const struct job *job, const char *listen, const char *command[COMMAND_MAX])
{
    const char *const debugger[] = {"-m", "debugpy", "--listen", listen, "--wait-for-client"};
    size_t count = 0;
    command[count++] = "python3";
    for (size_t i = 0; debugs(job->worker->settings) && i < DEBUGGER_ARGUMENTS; i++)
        command[count++] = debugger[i];
    command[count++] = "entrypoint.py";
    for (size_t i = 0; job->plan.arguments[i]; i++)
        command[count++] = job->plan.arguments[i];
    command[count] = NULL;
}

/* The developer's own files in place of the image's. */
static const struct {
    const char *from, *to;
} debug_paths[] = {
    {"qfc_worker", "/usr/src/app/qfc_worker"},
    {"entrypoint.py", "/usr/src/app/entrypoint.py"},
    {"libqfieldsync", "/libqfieldsync"},
    {"qfieldcloud-sdk-python", "/qfieldcloud-sdk-python"},
};

static int fill_binds(const struct qfc_settings *settings, struct qfc_texts *binds, struct qfc_error *error)
{
    if (!settings->debug || !*settings->debug_host_path)
        return 0;
    for (size_t i = 0; i < sizeof debug_paths / sizeof *debug_paths; i++)
        if (qfc_texts_printf(binds, error, "%s/%s:%s:ro", settings->debug_host_path, debug_paths[i].from,
                             debug_paths[i].to) < 0)
            return -1;
    return 0;
}

static int write_body(struct job *job, const struct qfc_environment *environment, const struct qfc_texts *binds,
                      struct qfc_error *error)
{
    const struct qfc_settings *settings = job->worker->settings;
    char app[128], attempt[16], listen[32];
    struct qfc_confines confines;
    const char *command[COMMAND_MAX];
    snprintf(app, sizeof app, "%s_worker", settings->environment);
    snprintf(attempt, sizeof attempt, "%u", job->row.attempt);
    snprintf(listen, sizeof listen, "0.0.0.0:%ld", settings->debugpy_port);
    fill_command(job, listen, command);
    const char *labels[] = {"app",        app,
                            "type",       job->row.type,
                            "job_id",     job->row.id,
                            "project_id", job->row.project_id,
                            "qfc_worker", qfc_queue_marker(job->worker->queue),
                            "qfc_stack",  job->worker->stack,
                            "attempt",    attempt,
                            NULL};
    struct qfc_container container = {
        .image = job->image,
        .command = command,
        .environment = qfc_texts(&environment->variables),
        .labels = labels,
        .binds = qfc_texts(binds),
        .published_port = debugs(settings) ? (unsigned)settings->debugpy_port : 0,
    };
    qfc_confine(settings, &job->limits, &confines, &container);
    shared_directory_make(job);
    shared_directory_mount(job, &confines, &container);
    job->body = qfc_buffer(BODY_MAX_BYTES);
    return qfc_container_json(&container, &job->body, error);
}

static int make_environment(const struct job *job, struct qfc_environment *environment, struct qfc_error *error)
{
    const struct qfc_environment_given given = {
        .secrets = job->rows[ROWS_SECRETS],
        .key = job->worker->has_fernet_key ? &job->worker->fernet_key : NULL,
        .custom_ca = qfc_has_custom_ca() ? QFC_CUSTOM_CA_FILE : NULL,
        .token = job->token,
        .url = job->worker->settings->qfieldcloud_url,
        .job_id = job->row.id,
    };
    if (qfc_environment_make(&given, environment, error) < 0)
        return -1;
    for (const char *const *warning = qfc_texts(&environment->warnings); *warning; warning++)
        qfc_log(QFC_LOG_WARNING, &job->about, "%s", *warning);
    return 0;
}

/* Values that are used as they are stand there in plain. libpq's memory is ours to write to. */
static void wipe_values(PGresult *secrets)
{
    int column = PQfnumber(secrets, "value");
    for (int row = 0; row < PQntuples(secrets); row++)
        explicit_bzero(PQgetvalue(secrets, row, column), (size_t)PQgetlength(secrets, row, column));
}

/* A name that is taken can only mean this very attempt. */
void name_container(struct job *job, const char *marker)
{
    const char *instance = strchr(marker, ':');
    snprintf(job->name, sizeof job->name, "qfc-%s-%u-%.8s", job->row.id, job->row.attempt,
             instance ? instance + 1 : marker);
}

int describe_container(struct job *job, struct qfc_error *error)
{
    name_container(job, qfc_queue_marker(job->worker->queue));
    struct qfc_environment environment = {0};
    struct qfc_texts binds = {0};
    int r = make_environment(job, &environment, error);
    if (r == 0)
        r = fill_binds(job->worker->settings, &binds, error);
    if (r == 0)
        r = write_body(job, &environment, &binds, error);
    qfc_texts_free(&binds);
    qfc_environment_free(&environment);
    if (r < 0)
        qfc_buffer_wipe(&job->body);
    else
        wipe_values(job->rows[ROWS_SECRETS]);
    return r;
}
