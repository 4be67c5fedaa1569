/*
 * check: the saved images (QFC_WORKER_IMAGE_BACKUP_DIR), and bringing a missing one back.
 */
#include "check.h"

#include "qfc/image_backup.h"
#include "qfc/image_work.h"

#include <stdlib.h>
#include <string.h>

size_t check_images_needed(const struct look *look, const char *ret_images[2])
{
    if (!check_release_has(look, "has_qgis_version")) {
        ret_images[0] = look->settings.qgis_image;
        return 1;
    }
    ret_images[0] = look->settings.qgis3_image;
    ret_images[1] = look->settings.qgis4_image;
    return strcmp(ret_images[0], ret_images[1]) == 0 ? 1 : 2;
}

/* The id of an image, "" where the engine has none of that name, or does not say. */
static void id_of(struct look *look, const char *image, char id[QFC_IMAGE_ID_SIZE])
{
    struct qfc_error error = QFC_NO_ERROR;
    struct engine_answer answer = {0};
    *id = '\0';
    if (ENGINE_ASK(&look->turns, 0, &answer, &error, qfc_engine_image, image) == 0)
        snprintf(id, QFC_IMAGE_ID_SIZE, "%s", qfc_buffer_text(&answer.data));
    engine_answer_free(&answer);
}

static void judge_backup(struct look *look, const char *image, const struct qfc_backup *newest)
{
    const char *directory = look->settings.image_backup_dir;
    char id[QFC_IMAGE_ID_SIZE];
    id_of(look, image, id);
    if (*newest->wrong || !qfc_backup_is_there(directory, newest))
        check_found(look, CHECK_WARNING, "%s: the newest backup cannot be used: %s", image,
                    *newest->wrong ? newest->wrong : "its archive is gone, or has another size");
    else if (*id && strcmp(id, newest->id) != 0)
        check_found(look, CHECK_WARNING, "%s: the newest backup, of %.10s, is of another image than the engine has",
                    image, newest->saved_at);
    else {
        check_found(look, CHECK_OK, "%s was saved at %.16s, %.0f MB", image, newest->saved_at,
                    (double)newest->archive_bytes / 1e6);
        return;
    }
    check_advise(look, "qfc-worker image save %s", image);
}

static void find_backup(struct look *look, const char *image)
{
    struct qfc_error error = QFC_NO_ERROR;
    struct qfc_backup *backups = NULL;
    size_t count = 0;
    if (qfc_backup_list(look->settings.image_backup_dir, image, &backups, &count, &error) < 0) {
        check_found(look, CHECK_FAILED, "%s", error.message);
        check_advise(look, "make that directory, or correct QFC_WORKER_IMAGE_BACKUP_DIR");
    } else if (count == 0) {
        check_found(look, CHECK_WARNING, "%s has no backup", image);
        check_advise(look, "qfc-worker image save %s", image);
    } else {
        judge_backup(look, image, &backups[0]);
    }
    free(backups);
}

void check_backups(struct look *look)
{
    const char *images[2];
    size_t count = check_images_needed(look, images);
    if (!*look->settings.image_backup_dir)
        check_found(look, CHECK_OK, "none are kept: QFC_WORKER_IMAGE_BACKUP_DIR is not set");
    for (size_t i = 0; *look->settings.image_backup_dir && i < count; i++)
        find_backup(look, images[i]);
}

/* The end of a restore. */
struct restore {
    struct turns *turns;
    struct qfc_error error;
    struct qfc_image_result result;
};

static void on_restored(void *userdata, const struct qfc_error *error, const struct qfc_image_result *result)
{
    struct restore *restore = userdata;
    if (error)
        restore->error = *error;
    else
        restore->result = *result;
    turns_end(restore->turns);
}

static int restore_image(struct look *look, const char *image, struct restore *restore, struct qfc_error *error)
{
    const struct qfc_image_order order = {
        .loop = &look->turns.loop,
        .engine = look->turns.engine,
        .directory = look->settings.image_backup_dir,
        .image = image,
        .on_done = on_restored,
        .userdata = restore,
    };
    turns_begin(&look->turns);
    struct qfc_image_work *work = qfc_image_restore(&order, error);
    if (!work)
        return -1;
    if (turns_wait(&look->turns, 0, error) < 0) {
        qfc_image_cancel(work);
        return -1;
    }
    *error = restore->error;
    return error->kind == QFC_ERROR_NONE ? 0 : -1;
}

static void mend_image(struct look *look, const char *image)
{
    struct qfc_error error = QFC_NO_ERROR;
    struct restore restore = {.turns = &look->turns};
    char id[QFC_IMAGE_ID_SIZE];
    id_of(look, image, id);
    if (*id)
        return;
    if (look->dry_run)
        check_mended(look, "restore image %s from its backup", image);
    else if (restore_image(look, image, &restore, &error) < 0)
        check_mended(look, "nothing: restore image %s: %s", image, error.message);
    else
        check_mended(look, "restored image %s, saved at %.16s", image, restore.result.backup.saved_at);
}

void mend_images(struct look *look)
{
    const char *images[2];
    size_t count = check_images_needed(look, images);
    for (size_t i = 0; *look->settings.image_backup_dir && i < count && !look->turns.interrupted; i++)
        mend_image(look, images[i]);
}
