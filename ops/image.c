/*
 * `qfc-worker image save` and `image restore`: the worker's own work on images, by hand. See docs/images.md.
 */
#include "image.h"

#include "qfc/image_work.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LOOK_MS    250
#define SAY_MS     10000
#define CLEAR_LINE "\r\033[K"

const struct option_info image_directory_option[] = {
    {"dir", "DIR", "the directory of saved images; else QFC_WORKER_IMAGE_BACKUP_DIR"},
    {NULL, NULL, NULL},
};

static const struct option_info restore_options[] = {
    {"dir", "DIR", "the directory of saved images; else QFC_WORKER_IMAGE_BACKUP_DIR"},
    {"id", "ID", "bring back this id (sha256:... or its beginning), and give it the name, whatever has that now"},
    {NULL, NULL, NULL},
};

static void add_image(struct image_request *request, const char *image)
{
    for (size_t i = 0; i < request->count; i++)
        if (strcmp(request->images[i], image) == 0)
            return;
    if (request->count < IMAGES_MAX)
        request->images[request->count++] = image;
}

static int read_arguments(const struct command *command, int argc, char **argv, struct image_request *request)
{
    struct arguments arguments = {.command = command, .argc = argc, .argv = argv};
    const char *name, *value;
    enum argument next;
    while ((next = next_argument(&arguments, &name, &value)) == ARGUMENT_OPTION || next == ARGUMENT_OPERAND) {
        if (next == ARGUMENT_OPERAND)
            add_image(request, value);
        else if (strcmp(name, "dir") == 0)
            request->directory = value;
        else
            request->id = value;
    }
    return next == ARGUMENT_END ? QFC_EXIT_OK : QFC_EXIT_USAGE;
}

int image_request_read(const struct command *command, int argc, char **argv, struct image_request *ret_request)
{
    struct image_request request = {0};
    int code = read_arguments(command, argc, argv, &request);
    if (code == QFC_EXIT_OK && request.id && request.count != 1)
        code = wrong("--id: name the image, too, and only one", NULL);
    if (code == QFC_EXIT_OK)
        code = read_settings(&request.settings);
    if (code != QFC_EXIT_OK)
        return code;
    request.named = request.count > 0;
    if (!request.named) {
        add_image(&request, request.settings.qgis_image);
        add_image(&request, request.settings.qgis3_image);
        add_image(&request, request.settings.qgis4_image);
    }
    *ret_request = request;
    if (!ret_request->directory)
        ret_request->directory = ret_request->settings.image_backup_dir;
    return QFC_EXIT_OK;
}

void image_request_free(struct image_request *request)
{
    qfc_settings_free(&request->settings);
}

const char *print_bytes(int64_t bytes, char out[BYTES_SIZE])
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    double number = (double)bytes;
    size_t unit = 0;
    for (; number >= 1000 && unit + 1 < sizeof units / sizeof *units; unit++)
        number /= 1000;
    snprintf(out, BYTES_SIZE, unit > 0 ? "%.1f %s" : "%.0f %s", number, units[unit]);
    return out;
}

void meter_show(struct meter *meter, const char *image, const char *doing, int64_t bytes, int64_t total)
{
    char so_far[BYTES_SIZE], all[BYTES_SIZE];
    bool terminal = isatty(STDERR_FILENO);
    uint64_t now = uv_hrtime() / 1000000;
    if (meter->said_ms == 0)
        meter->said_ms = now;
    if (bytes == 0 || (!terminal && now - meter->said_ms < SAY_MS))
        return;
    meter->said_ms = now;
    meter->shown = terminal;
    fprintf(stderr, "%s%s: %s, %s", terminal ? CLEAR_LINE : "", image, doing, print_bytes(bytes, so_far));
    if (total > 0)
        fprintf(stderr, " of about %s", print_bytes(total, all));
    if (!terminal)
        fputc('\n', stderr);
}

void meter_clear(struct meter *meter)
{
    if (meter->shown)
        fputs(CLEAR_LINE, stderr);
    meter->shown = false;
}

/* One work on one image. */
struct labour {
    struct turns *turns;
    const char *image;
    struct meter meter;
    struct qfc_image_work *work;
    struct qfc_error error;
    struct qfc_image_result result;
};

static void on_remark(void *userdata, const char *remark)
{
    struct labour *labour = userdata;
    meter_clear(&labour->meter);
    fprintf(stderr, "qfc-worker: %s\n", remark);
}

static void on_done(void *userdata, const struct qfc_error *error, const struct qfc_image_result *result)
{
    struct labour *labour = userdata;
    labour->work = NULL;
    if (error)
        labour->error = *error;
    else
        labour->result = *result;
    turns_end(labour->turns);
}

static void on_look(uv_timer_t *timer)
{
    struct labour *labour = timer->data;
    if (!labour->work)
        return;
    const struct qfc_image_progress progress = qfc_image_progress(labour->work);
    meter_show(&labour->meter, labour->image, progress.doing, progress.bytes, progress.total);
}

static int wait_for(struct labour *labour)
{
    uv_timer_t look;
    uv_timer_init(&labour->turns->loop, &look);
    look.data = labour;
    uv_timer_start(&look, on_look, LOOK_MS, LOOK_MS);
    struct qfc_error error = QFC_NO_ERROR;
    if (turns_wait(labour->turns, 0, &error) < 0) {
        qfc_image_cancel(labour->work);
        labour->error = error;
    }
    uv_close((uv_handle_t *)&look, NULL);
    uv_run(&labour->turns->loop, UV_RUN_NOWAIT); /* its memory is here */
    meter_clear(&labour->meter);
    return labour->error.kind ? -1 : 0;
}

typedef struct qfc_image_work *image_work(const struct qfc_image_order *order, struct qfc_error *error);

static int do_work(struct turns *turns, const struct image_request *request, const char *image, image_work *begin,
                   struct labour *labour)
{
    *labour = (struct labour){.turns = turns, .image = image};
    const struct qfc_image_order order = {
        .loop = &turns->loop,
        .engine = turns->engine,
        .directory = request->directory,
        .image = image,
        .id = request->id,
        .thorough = true,
        .on_remark = on_remark,
        .on_done = on_done,
        .userdata = labour,
    };
    turns_begin(turns);
    labour->work = begin(&order, &labour->error);
    return labour->work ? wait_for(labour) : -1;
}

static void tell_saved(const struct labour *labour)
{
    const struct qfc_backup *backup = &labour->result.backup;
    char bytes[BYTES_SIZE];
    printf("%s: %s %.19s, %s in %s\n", labour->image,
           labour->result.how == QFC_IMAGE_WAS_THERE ? "there is a whole backup of" : "saved", labour->result.id,
           print_bytes(backup->archive_bytes, bytes), backup->archive);
}

static void tell_restored(const struct labour *labour)
{
    const char *id = labour->result.id;
    if (labour->result.how == QFC_IMAGE_WAS_THERE)
        printf("%s: the engine has it, %.19s\n", labour->image, id);
    else if (labour->result.how == QFC_IMAGE_NAMED)
        printf("%s: the engine still had %.19s, and it has its name again\n", labour->image, id);
    else
        printf("%s: restored %.19s, saved at %s\n", labour->image, id, labour->result.backup.saved_at);
}

/* Not every release has each of the images that the settings name. */
static bool is_merely_absent(const struct image_request *request, const struct qfc_error *error)
{
    return !request->named &&
           ((error->kind == QFC_ERROR_REFUSED && error->code == 404) || error->kind == QFC_ERROR_LOST);
}

static int work_on_all(struct turns *turns, const struct image_request *request, image_work *begin,
                       void (*tell)(const struct labour *labour))
{
    struct labour labour;
    size_t done = 0;
    int code = QFC_EXIT_OK;
    for (size_t i = 0; i < request->count && !turns->interrupted; i++) {
        if (do_work(turns, request, request->images[i], begin, &labour) == 0) {
            done++;
            tell(&labour);
        } else if (is_merely_absent(request, &labour.error)) {
            fprintf(stderr, "qfc-worker: %s\n", labour.error.message);
        } else {
            code = failed(&labour.error);
        }
    }
    return code == QFC_EXIT_OK && done == 0 ? QFC_EXIT_FAULT : code;
}

static int run_work(const struct command *command, int argc, char **argv, image_work *begin,
                    void (*tell)(const struct labour *labour))
{
    struct image_request request;
    struct turns turns;
    struct qfc_error error = QFC_NO_ERROR;
    int code = image_request_read(command, argc, argv, &request);
    if (code != QFC_EXIT_OK)
        return code;
    if (!*request.directory)
        code = wrong("QFC_WORKER_IMAGE_BACKUP_DIR is not set, and there is no --dir", NULL);
    else if (turns_open(&turns, &error) < 0)
        code = failed(&error);
    else {
        code = engine_open(&turns, &request.settings, 0, &error) < 0 ? failed(&error)
                                                                     : work_on_all(&turns, &request, begin, tell);
        turns_close(&turns);
    }
    image_request_free(&request);
    return code;
}

static int run_save(const struct command *command, int argc, char **argv)
{
    return run_work(command, argc, argv, qfc_image_save, tell_saved);
}

static int run_restore(const struct command *command, int argc, char **argv)
{
    return run_work(command, argc, argv, qfc_image_restore, tell_restored);
}

const struct command command_image_save = {
    .name = "image save",
    .operands = "[IMAGE ...]",
    .summary = "save QGIS images into compressed archives, unless they are there already",
    .more =
        "Without a name, those that the settings name and the engine has. Each archive is written aside, read from\n"
        "the disk again and verified before it takes its place. The last two of each image are kept.\n",
    .options = image_directory_option,
    .run = run_save,
};

const struct command command_image_restore = {
    .name = "image restore",
    .operands = "[IMAGE ...]",
    .summary = "bring back QGIS images that the engine has lost, from their archives",
    .more = "Without a name, those that the settings name. An archive that is not as it was saved is refused, and the\n"
            "one before it is taken. An image that the engine still has under another name only gets its name again.\n",
    .options = restore_options,
    .run = run_restore,
};
