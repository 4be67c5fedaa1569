/*
 * check: the engine, and what it must have: images, network, volumes.
 */
#include "check.h"

#include "qfc/confine.h"
#include "qfc/pg.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* For each call: nobody who waits for this should wait long. */
#define DEADLINE_MS 10000

/* Which group the user needs: the one that owns the socket. */
static void advise_group(struct look *look, const char *path)
{
    struct stat status;
    if (stat(path, &status) == 0 && (status.st_mode & S_IWGRP))
        check_advise(
            look,
            "add group %u to this user: in compose group_add: [\"%u\"], with docker run --group-add %u, on a host "
            "usermod -aG",
            status.st_gid, status.st_gid, status.st_gid);
    else
        check_advise(look, "let this user (%u) write to %s, or run as its owner", geteuid(), path);
}

static void advise_engine(struct look *look, const struct qfc_error *error)
{
    const char *host = qfc_engine_host(look->turns.engine);
    bool is_socket = strncmp(host, "unix://", 7) == 0;
    if (error->code == EACCES && is_socket)
        advise_group(look, host + 7);
    else if (error->code == ENOENT && is_socket)
        check_advise(look, "start the engine (systemctl start docker), or give this container its socket: -v %s:%s",
                     host + 7, host + 7);
    else if (error->code == ECONNREFUSED)
        check_advise(look, "start the engine: systemctl start docker");
    else if (error->kind == QFC_ERROR_REFUSED)
        check_advise(look, "bring the engine to a version between those two");
    else
        check_advise(look, "correct DOCKER_HOST, or for TLS DOCKER_CERT_PATH and DOCKER_TLS_VERIFY");
}

static const char *info_text(const struct look *look, const char *name)
{
    const char *text = json_string_value(json_object_get(look->engine_info, name));
    return text ? text : "?";
}

static void judge_info(struct look *look, const char *api)
{
    check_found(look, CHECK_OK, "the engine at %s answers: version %s, API %s", qfc_engine_host(look->turns.engine),
                info_text(look, "ServerVersion"), api);
    if (json_is_false(json_object_get(look->engine_info, "MemoryLimit"))) {
        check_found(look, CHECK_WARNING, "the engine cannot limit memory: one job can take all of the host's");
        check_advise(look, "turn on the memory cgroup on its host (cgroup_enable=memory on the kernel's command line)");
    }
}

void check_engine(struct look *look)
{
    struct qfc_error error = QFC_NO_ERROR;
    struct engine_answer answer = {0};
    json_decref(look->engine_info);
    look->engine_info = NULL;
    if (!look->turns.engine && engine_open(&look->turns, &look->settings, DEADLINE_MS, &error) < 0) {
        check_found(look, CHECK_FAILED, "%s", error.message);
        check_advise(look, "correct DOCKER_HOST, or for TLS DOCKER_CERT_PATH and DOCKER_TLS_VERIFY");
        return;
    }
    if (ENGINE_ASK(&look->turns, 0, &answer, &error, qfc_engine_probe) < 0) {
        check_found(look, CHECK_FAILED, "%s", error.message);
        advise_engine(look, &error);
        engine_answer_free(&answer);
        return;
    }
    char api[16];
    snprintf(api, sizeof api, "%s", qfc_buffer_text(&answer.data));
    /* A proxy may forbid this question; nothing depends on it. */
    if (ENGINE_ASK(&look->turns, 0, &answer, &error, qfc_engine_info) == 0)
        look->engine_info = json_loadb(qfc_buffer_text(&answer.data), answer.data.size, 0, NULL);
    engine_answer_free(&answer);
    judge_info(look, api);
}

/* Asks for one thing; returns whether it is there. Where it is not, or nobody knows, it was said with `what`. */
typedef int engine_question(struct qfc_engine *engine, const char *name, QFC_ENGINE_END);

static bool is_there(struct look *look, engine_question *question, const char *name, enum check_state missing,
                     const char *what, struct engine_answer *answer)
{
    struct qfc_error error = QFC_NO_ERROR;
    if (ENGINE_ASK(&look->turns, 0, answer, &error, question, name) == 0)
        return true;
    if (error.kind == QFC_ERROR_REFUSED && error.code == 404)
        check_found(look, missing, "%s", what);
    else
        check_found(look, CHECK_FAILED, "%s", error.message);
    return false;
}

void check_stack(const struct look *look, char *out, size_t size)
{
    snprintf(out, size, "%s/%s/%s", look->settings.compose_project_name, look->settings.environment,
             look->release.identity);
}

const char *check_release_text(const struct look *look, const char *name)
{
    for (const struct qfc_name *known = look->release.names; known->name; known++)
        if (strcmp(known->name, name) == 0)
            return known->text;
    return "";
}

bool check_release_has(const struct look *look, const char *name)
{
    return strcmp(check_release_text(look, name), "true") == 0;
}

static void find_image(struct look *look, const char *image, const char *of, bool needed)
{
    char what[512];
    struct engine_answer answer = {0};
    snprintf(what, sizeof what, "the engine has no image %s: no job of %s is run%s", image, of,
             needed ? "" : "; there is none yet");
    if (is_there(look, qfc_engine_image, image, needed ? CHECK_FAILED : CHECK_WARNING, what, &answer))
        check_found(look, CHECK_OK, "%s is there, %.0f MB", image, (double)answer.reply.size_bytes / 1e6);
    else
        check_advise(look, "%s",
                     *look->settings.image_backup_dir
                         ? "qfc-worker check --fix restores it where it has a backup; else docker compose build"
                         : "make it again: docker compose build");
    engine_answer_free(&answer);
}

/* Has any project this major version of QGIS? */
static bool some_project_has_qgis_4(struct look *look)
{
    static const char sql[] = "SELECT EXISTS (SELECT FROM {project} p WHERE {qgis_version} LIKE '4%') AS any";
    struct qfc_error error = QFC_NO_ERROR;
    PGresult *found;
    if (check_ask(look, sql, &found, &error) < 0)
        return true;
    bool any = qfc_pg_true(found, "any");
    PQclear(found);
    return any;
}

void check_images(struct look *look)
{
    const char *images[2];
    if (!check_release_has(look, "has_qgis_version")) {
        find_image(look, look->settings.qgis_image, "any project", true);
    } else if (check_images_needed(look, images) == 1) {
        find_image(look, images[0], "QGIS 3 and 4", true);
    } else {
        find_image(look, images[0], "projects of QGIS 3", true);
        find_image(look, images[1], "projects of QGIS 4", some_project_has_qgis_4(look));
    }
}

void check_network(struct look *look)
{
    const char *network = look->settings.network;
    char what[512];
    struct engine_answer answer = {0};
    if (!*network) {
        check_found(look, CHECK_OK,
                    "containers are on the engine's default network: QFIELDCLOUD_DEFAULT_NETWORK is not "
                    "set");
        return;
    }
    snprintf(what, sizeof what, "the engine has no network %s: no job is run", network);
    if (is_there(look, qfc_engine_network, network, CHECK_FAILED, what, &answer))
        check_found(look, CHECK_OK, "%s is there", network);
    else
        check_advise(look, "docker compose up -d makes it; or correct QFIELDCLOUD_DEFAULT_NETWORK (docker network ls)");
    engine_answer_free(&answer);
}

static void find_volume(struct look *look, const char *volume, const char *why, const char *next)
{
    char what[512];
    struct engine_answer answer = {0};
    snprintf(what, sizeof what, "the engine has no volume %s: it makes an empty one for the next job, %s", volume, why);
    if (is_there(look, qfc_engine_volume, volume, CHECK_FAILED, what, &answer))
        check_found(look, CHECK_OK, "%s is there", volume);
    else
        check_advise(look, "%s", next);
    engine_answer_free(&answer);
}

void check_volumes(struct look *look)
{
    char volume[256];
    bool custom_ca = qfc_has_custom_ca();
    if (!*look->settings.grids_volume && !custom_ca)
        check_found(look, CHECK_OK, "none is asked for");
    if (*look->settings.grids_volume)
        find_volume(look, look->settings.grids_volume, "and QGIS transforms coordinates without grids",
                    "docker compose up -d makes and fills it; or correct QFIELDCLOUD_TRANSFORMATION_GRIDS_VOLUME_NAME "
                    "(docker volume ls)");
    qfc_custom_ca_volume(&look->settings, volume, sizeof volume);
    if (custom_ca)
        find_volume(look, volume, "and QGIS trusts no authority at all",
                    "correct COMPOSE_PROJECT_NAME (docker volume ls)");
}
