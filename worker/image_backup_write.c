/*
 * Writing a saved image: aside, verified, and put in place by two renames, the manifest's last. See qfc/image_backup.h.
 */
#include "image_backup_private.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

/* Fast: an image is saved while jobs run. Level 1 leaves a QGIS image at some two fifths, 9 at a little less. */
#define COMPRESSION "gzip:compression-level=1"

/* So much goes to the disk at a time, so that nothing waits for gigabytes at the end, nor fills memory with them. */
#define SYNC_BYTES (64LL * 1024 * 1024)

#define ASIDE_ARCHIVE  BACKUP_HIDDEN "archive"
#define ASIDE_MANIFEST BACKUP_HIDDEN "manifest"

struct qfc_backup_writer {
    char *directory;
    int place; /* the open directory */
    int lock;
    int fd; /* the archive, aside */
    struct archive *archive;
    struct archive_entry *entry;
    int write_errno;  /* the first error of the disk: what comes after goes nowhere */
    bool abandoned;   /* likewise */
    int64_t unsynced; /* bytes of the tar */
    struct qfc_backup backup;
};

/* libarchive is never told of an error: after one it would not give all its memory back. */
static la_ssize_t write_block(struct archive *archive, void *userdata, const void *data, size_t size)
{
    struct qfc_backup_writer *writer = userdata;
    ssize_t n;
    if (writer->abandoned || writer->write_errno)
        return (la_ssize_t)size;
    do {
        n = write(writer->fd, data, size);
    } while (n < 0 && errno == EINTR);
    if (n < 0)
        writer->write_errno = errno;
    return n < 0 ? (la_ssize_t)size : n;
}

static int fail_writing(const struct qfc_backup_writer *writer, struct qfc_error *error)
{
    const char *why = writer->write_errno ? strerror(writer->write_errno) : archive_error_string(writer->archive);
    return qfc_fail(error, QFC_ERROR_INVALID, writer->write_errno, "write an archive into %s: %s", writer->directory,
                    why ? why : "no reason given");
}

/* As part of a file name: "registry:5000/group/name:tag" -> "registry_5000_group_name_tag". */
static void plain_name(const char *image, char *out, size_t size)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-";
    size_t i = 0;
    for (; image[i] && i + 1 < size; i++)
        out[i] = strchr(plain, image[i]) ? image[i] : '_';
    out[i] = '\0';
}

static int name_backup(struct qfc_backup *backup, const char *image, const char *id, int64_t image_bytes,
                       struct qfc_error *error)
{
    char name[100], when[24], stamp[20];
    struct timespec now;
    struct tm tm;
    if (strlen(image) >= sizeof backup->image || strlen(id) != QFC_IMAGE_ID_SIZE - 1)
        return qfc_fail(error, QFC_ERROR_INVALID, 0, "an image's name or id that cannot be: %s %s", image, id);
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    unsigned micro = (unsigned)now.tv_nsec / 1000 % 1000000;
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(backup->saved_at, sizeof backup->saved_at, "%s.%06uZ", when, micro);
    strftime(stamp, sizeof stamp, "%Y%m%dT%H%M%S", &tm);
    plain_name(image, name, sizeof name);
    strcpy(backup->image, image);
    strcpy(backup->id, id);
    backup->image_bytes = image_bytes;
    snprintf(backup->manifest, sizeof backup->manifest, BACKUP_PREFIX "%s-%.12s.json", name, id + 7);
    snprintf(backup->archive, sizeof backup->archive, BACKUP_PREFIX "%s-%.12s-%s.%06uZ" BACKUP_SUFFIX, name, id + 7,
             stamp, micro);
    return 0;
}

static int take_lock(struct qfc_backup_writer *writer, struct qfc_error *error)
{
    writer->place = open(writer->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (writer->place >= 0)
        writer->lock = openat(writer->place, BACKUP_LOCK, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (writer->lock < 0)
        return qfc_fail(error, QFC_ERROR_USAGE, errno, "write to the directory of saved images, %s: %s",
                        writer->directory, strerror(errno));
    if (flock(writer->lock, LOCK_EX | LOCK_NB) < 0)
        return qfc_fail(error, QFC_ERROR_AGAIN, errno, "another process saves an image in %s: %s", writer->directory,
                        strerror(errno));
    return 0;
}

static int look_for_room(const struct qfc_backup_writer *writer, struct qfc_error *error)
{
    struct statvfs status;
    if (fstatvfs(writer->place, &status) < 0)
        return qfc_fail(error, QFC_ERROR_INVALID, errno, "ask for the room in %s: %s", writer->directory,
                        strerror(errno));
    int64_t room = (int64_t)status.f_bavail * (int64_t)status.f_frsize;
    if (room >= writer->backup.image_bytes)
        return 0;
    return qfc_fail(error, QFC_ERROR_INVALID, ENOSPC,
                    "no room for image %s in %s: it has %lld MB, and %lld MB are free there", writer->backup.image,
                    writer->directory, (long long)writer->backup.image_bytes / 1000000, (long long)room / 1000000);
}

static int open_archive(struct qfc_backup_writer *writer, struct qfc_error *error)
{
    writer->fd = openat(writer->place, ASIDE_ARCHIVE, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (writer->fd < 0) {
        writer->write_errno = errno;
        return fail_writing(writer, error);
    }
    writer->archive = archive_write_new();
    writer->entry = archive_entry_new();
    if (!writer->archive || !writer->entry)
        return qfc_fail_memory(error);
    archive_entry_set_filetype(writer->entry, AE_IFREG);
    if (archive_write_set_format_raw(writer->archive) != ARCHIVE_OK ||
        archive_write_add_filter_gzip(writer->archive) != ARCHIVE_OK ||
        archive_write_set_options(writer->archive, COMPRESSION) != ARCHIVE_OK ||
        archive_write_set_bytes_in_last_block(writer->archive, 1) != ARCHIVE_OK ||
        archive_write_open(writer->archive, writer, NULL, write_block, NULL) != ARCHIVE_OK ||
        archive_write_header(writer->archive, writer->entry) != ARCHIVE_OK)
        return fail_writing(writer, error);
    return 0;
}

struct qfc_backup_writer *qfc_backup_begin(const char *directory, const char *image, const char *id,
                                           int64_t image_bytes, struct qfc_error *error)
{
    struct qfc_backup_writer *writer = calloc(1, sizeof *writer);
    if (!writer) {
        qfc_fail_memory(error);
        return NULL;
    }
    writer->place = writer->lock = writer->fd = -1;
    writer->directory = strdup(directory);
    int r = writer->directory ? name_backup(&writer->backup, image, id, image_bytes, error) : qfc_fail_memory(error);
    if (r == 0)
        r = take_lock(writer, error);
    if (r == 0) {
        backup_remove_leftovers(directory, writer->place);
        r = look_for_room(writer, error);
    }
    if (r == 0)
        r = open_archive(writer, error);
    if (r == 0)
        return writer;
    qfc_backup_abort(writer);
    return NULL;
}

int qfc_backup_write(struct qfc_backup_writer *writer, const void *data, size_t size, struct qfc_error *error)
{
    if (archive_write_data(writer->archive, data, size) != (la_ssize_t)size || writer->write_errno)
        return fail_writing(writer, error);
    writer->unsynced += (int64_t)size;
    if (writer->unsynced < SYNC_BYTES)
        return 0;
    writer->unsynced = 0;
    if (fdatasync(writer->fd) == 0)
        return 0;
    writer->write_errno = errno;
    return fail_writing(writer, error);
}

/* The archive is complete and on the disk. */
static int end_archive(struct qfc_backup_writer *writer, struct qfc_watch *watch, struct qfc_error *error)
{
    struct qfc_backup *backup = &writer->backup;
    if (archive_write_close(writer->archive) != ARCHIVE_OK || writer->write_errno)
        return fail_writing(writer, error);
    if (fsync(writer->fd) < 0) {
        writer->write_errno = errno;
        return fail_writing(writer, error);
    }
    if (qfc_image_archive_verify(writer->fd, backup->id, watch, error) < 0 ||
        qfc_file_sha256(writer->fd, watch, backup->sha256, &backup->archive_bytes, error) < 0)
        return error->kind == QFC_ERROR_CHANGED ? -1 : qfc_context(error, "what the engine exported is not usable");
    return 0;
}

static char *manifest_text(const struct qfc_backup *backup)
{
    json_t *manifest =
        json_pack("{s:i s:s s:s s:I s:s s:I s:s s:s}", "format", 1, "image", backup->image, "id", backup->id,
                  "image_bytes", (json_int_t)backup->image_bytes, "archive", backup->archive, "archive_bytes",
                  (json_int_t)backup->archive_bytes, "archive_sha256", backup->sha256, "saved_at", backup->saved_at);
    char *text = manifest ? json_dumps(manifest, JSON_INDENT(2)) : NULL;
    json_decref(manifest);
    return text;
}

static int write_aside(struct qfc_backup_writer *writer, const char *text)
{
    int fd = openat(writer->place, ASIDE_MANIFEST, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    size_t size = strlen(text);
    int r = fd >= 0 && write(fd, text, size) == (ssize_t)size && fsync(fd) == 0 ? 0 : -1;
    if (r < 0)
        writer->write_errno = errno;
    if (fd >= 0)
        close(fd);
    return r;
}

/* Each step is on the disk before the next: a manifest never names what may not be there. */
static int put_in_place(struct qfc_backup_writer *writer, struct qfc_error *error)
{
    const struct qfc_backup *backup = &writer->backup;
    char *text = manifest_text(backup);
    if (!text)
        return qfc_fail_memory(error);
    int r = write_aside(writer, text);
    free(text);
    if (r == 0 &&
        (renameat(writer->place, ASIDE_ARCHIVE, writer->place, backup->archive) < 0 || fsync(writer->place) < 0 ||
         renameat(writer->place, ASIDE_MANIFEST, writer->place, backup->manifest) < 0 || fsync(writer->place) < 0)) {
        writer->write_errno = errno;
        r = -1;
    }
    return r < 0 ? fail_writing(writer, error) : 0;
}

static void close_writer(struct qfc_backup_writer *writer)
{
    if (writer->archive)
        archive_write_free(writer->archive);
    archive_entry_free(writer->entry);
    if (writer->fd >= 0)
        close(writer->fd);
    if (writer->lock >= 0)
        close(writer->lock);
    if (writer->place >= 0)
        close(writer->place);
    free(writer->directory);
    free(writer);
}

int qfc_backup_finish(struct qfc_backup_writer *writer, struct qfc_watch *watch, struct qfc_backup *ret_backup,
                      struct qfc_error *error)
{
    if (end_archive(writer, watch, error) < 0 || put_in_place(writer, error) < 0) {
        qfc_backup_abort(writer);
        return -1;
    }
    backup_remove_older(writer->directory, writer->place, writer->backup.image);
    backup_remove_leftovers(writer->directory, writer->place);
    *ret_backup = writer->backup;
    close_writer(writer);
    return 0;
}

void qfc_backup_abort(struct qfc_backup_writer *writer)
{
    if (!writer)
        return;
    writer->abandoned = true;
    if (writer->fd >= 0)
        unlinkat(writer->place, ASIDE_ARCHIVE, 0);
    if (writer->fd >= 0)
        unlinkat(writer->place, ASIDE_MANIFEST, 0);
    close_writer(writer);
}
