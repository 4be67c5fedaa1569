/*
 * `qfc-worker image verify` and `image status`: what is saved, and is it whole?
 */
#include "image.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LOOK_NS 250000000L

/* Reading an archive takes a while: a thread of its own, so that its progress can be shown. */
struct inspection {
    const char *directory;
    const struct qfc_backup *backup;
    struct qfc_watch watch;
    struct qfc_error error;
    atomic_bool ended;
};

static void *inspect(void *userdata)
{
    struct inspection *inspection = userdata;
    qfc_backup_verify(inspection->directory, inspection->backup, &inspection->watch, &inspection->error);
    atomic_store(&inspection->ended, true);
    return NULL;
}

static void verify(const char *directory, const struct qfc_backup *backup, struct qfc_error *error)
{
    struct inspection inspection = {.directory = directory, .backup = backup};
    struct meter meter = {0};
    pthread_t thread;
    if (pthread_create(&thread, NULL, inspect, &inspection) != 0) {
        inspect(&inspection);
    } else {
        while (!atomic_load(&inspection.ended)) {
            nanosleep(&(struct timespec){.tv_nsec = LOOK_NS / 10}, NULL);
            meter_show(&meter, backup->image, "verifying", atomic_load(&inspection.watch.bytes), backup->archive_bytes);
        }
        pthread_join(thread, NULL);
    }
    meter_clear(&meter);
    *error = inspection.error;
}

static bool is_asked_for(const struct image_request *request, const struct qfc_backup *backup)
{
    bool asked = !request->named;
    for (size_t i = 0; i < request->count && !asked; i++)
        asked = strcmp(request->images[i], backup->image) == 0;
    return asked;
}

static int verify_all(const struct image_request *request, const struct qfc_backup *backups, size_t count)
{
    size_t whole = 0, damaged = 0;
    for (size_t i = 0; i < count; i++) {
        struct qfc_error error = QFC_NO_ERROR;
        if (!is_asked_for(request, &backups[i]))
            continue;
        verify(request->directory, &backups[i], &error);
        if (error.kind == QFC_ERROR_NONE) {
            whole++;
            printf("%s: %.19s, saved at %s: whole\n", backups[i].image, backups[i].id, backups[i].saved_at);
        } else {
            damaged++;
            fprintf(stderr, "qfc-worker: %s\n", error.message);
        }
    }
    if (whole + damaged == 0)
        fprintf(stderr, "qfc-worker: there is no backup in %s\n", request->directory);
    return whole > 0 && damaged == 0 ? QFC_EXIT_OK : QFC_EXIT_FAULT;
}

static int run_verify(const struct command *command, int argc, char **argv)
{
    struct image_request request;
    struct qfc_backup *backups = NULL;
    struct qfc_error error = QFC_NO_ERROR;
    size_t count = 0;
    int code = image_request_read(command, argc, argv, &request);
    if (code != QFC_EXIT_OK)
        return code;
    if (!*request.directory)
        code = wrong("QFC_WORKER_IMAGE_BACKUP_DIR is not set, and there is no --dir", NULL);
    else if (qfc_backup_list(request.directory, NULL, &backups, &count, &error) < 0)
        code = failed(&error);
    else
        code = verify_all(&request, backups, count);
    free(backups);
    image_request_free(&request);
    return code;
}

/* Of one image: what the engine has of that name, and what is saved. */
static int tell_status(struct turns *turns, const struct image_request *request, const char *image,
                       const struct qfc_backup *backups, size_t count)
{
    struct engine_answer answer = {0};
    struct qfc_error error = QFC_NO_ERROR;
    char bytes[BYTES_SIZE];
    bool there = ENGINE_ASK(turns, 0, &answer, &error, qfc_engine_image, image) == 0;
    bool absent = error.kind == QFC_ERROR_REFUSED && error.code == 404;
    const char *id = there ? qfc_buffer_text(&answer.data) : "";
    bool saved = false;
    if (there)
        printf("%s: the engine has %.19s, %s\n", image, id, print_bytes(answer.reply.size_bytes, bytes));
    else
        printf("%s: %s\n", image, absent ? "the engine has none" : error.message);
    for (size_t i = 0; i < count; i++) {
        const struct qfc_backup *backup = &backups[i];
        if (*backup->wrong || strcmp(backup->image, image) != 0)
            continue;
        saved = saved || strcmp(backup->id, id) == 0;
        printf("  saved at %s: %.19s%s, %s in %s%s\n", backup->saved_at, backup->id,
               strcmp(backup->id, id) == 0 ? " (this one)" : "", print_bytes(backup->archive_bytes, bytes),
               backup->archive, qfc_backup_is_there(request->directory, backup) ? "" : ": DAMAGED OR GONE");
    }
    if (there && *request->directory && !saved)
        printf("  not saved\n");
    engine_answer_free(&answer);
    return there || absent ? QFC_EXIT_OK : error.kind == QFC_ERROR_UNREACHABLE ? QFC_EXIT_UNREACHABLE : QFC_EXIT_FAULT;
}

static void tell_wrong(const struct image_request *request, const struct qfc_backup *backups, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (*backups[i].wrong)
            printf("%s/%s: %s\n", request->directory, backups[i].manifest, backups[i].wrong);
}

static int tell_all(struct turns *turns, const struct image_request *request)
{
    struct qfc_backup *backups = NULL;
    struct qfc_error error = QFC_NO_ERROR;
    size_t count = 0;
    int code = QFC_EXIT_OK;
    if (engine_open(turns, &request->settings, 0, &error) < 0 ||
        (*request->directory && qfc_backup_list(request->directory, NULL, &backups, &count, &error) < 0))
        return failed(&error);
    for (size_t i = 0; i < request->count && code == QFC_EXIT_OK; i++)
        code = tell_status(turns, request, request->images[i], backups, count);
    tell_wrong(request, backups, count);
    free(backups);
    return code;
}

static int run_status(const struct command *command, int argc, char **argv)
{
    struct image_request request;
    struct turns turns;
    struct qfc_error error = QFC_NO_ERROR;
    int code = image_request_read(command, argc, argv, &request);
    if (code != QFC_EXIT_OK)
        return code;
    if (turns_open(&turns, &error) < 0) {
        code = failed(&error);
    } else {
        code = tell_all(&turns, &request);
        turns_close(&turns);
    }
    image_request_free(&request);
    return code;
}

const struct command command_image_verify = {
    .name = "image verify",
    .operands = "[IMAGE ...]",
    .summary = "read saved images to their end: every layer's digest, and the image's id",
    .more = "Needs no engine. Ends with exit code 1 when one is damaged, or there is none.\n",
    .options = image_directory_option,
    .run = run_verify,
};

const struct command command_image_status = {
    .name = "image status",
    .operands = "[IMAGE ...]",
    .summary = "tell which QGIS images the engine has, and which are saved",
    .more = "",
    .options = image_directory_option,
    .run = run_status,
};
