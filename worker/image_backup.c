/*
 * What lies in the directory of saved images: reading it, and removing from it. See qfc/image_backup.h.
 */
#include "image_backup_private.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MANIFEST_MAX_BYTES (64 * 1024)
#define BACKUPS_MAX        4096

static int copy_text(char *out, size_t size, const json_t *manifest, const char *name)
{
    const char *text = json_string_value(json_object_get(manifest, name));
    if (!text || !*text || strlen(text) >= size)
        return -1;
    strcpy(out, text);
    return 0;
}

static bool is_digest(const char *text)
{
    return strlen(text) == QFC_SHA256_SIZE - 1 && strspn(text, "0123456789abcdef") == QFC_SHA256_SIZE - 1;
}

/* Only a name within the directory, and only of the form that this program gives. */
static bool is_archive_name(const char *name)
{
    return strncmp(name, BACKUP_PREFIX, sizeof BACKUP_PREFIX - 1) == 0 && !strchr(name, '/');
}

static void take_manifest(const json_t *manifest, struct qfc_backup *backup)
{
    if (copy_text(backup->image, sizeof backup->image, manifest, "image") < 0 ||
        copy_text(backup->id, sizeof backup->id, manifest, "id") < 0 ||
        copy_text(backup->archive, sizeof backup->archive, manifest, "archive") < 0 ||
        copy_text(backup->sha256, sizeof backup->sha256, manifest, "archive_sha256") < 0 ||
        copy_text(backup->saved_at, sizeof backup->saved_at, manifest, "saved_at") < 0 ||
        !is_archive_name(backup->archive) || !is_digest(backup->sha256) || strncmp(backup->id, "sha256:", 7) != 0 ||
        !is_digest(backup->id + 7)) {
        snprintf(backup->wrong, sizeof backup->wrong, "its manifest is no manifest of a saved image");
        return;
    }
    backup->archive_bytes = json_integer_value(json_object_get(manifest, "archive_bytes"));
    backup->image_bytes = json_integer_value(json_object_get(manifest, "image_bytes"));
}

static void read_manifest(int directory, const char *name, struct qfc_backup *backup)
{
    char text[MANIFEST_MAX_BYTES];
    int fd = openat(directory, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    ssize_t size = fd < 0 ? -1 : read(fd, text, sizeof text);
    json_t *manifest = size > 0 ? json_loadb(text, (size_t)size, 0, NULL) : NULL;
    *backup = (struct qfc_backup){0};
    snprintf(backup->manifest, sizeof backup->manifest, "%s", name);
    if (size < 0)
        snprintf(backup->wrong, sizeof backup->wrong, "its manifest cannot be read: %s", strerror(errno));
    else
        take_manifest(manifest, backup);
    json_decref(manifest);
    if (fd >= 0)
        close(fd);
}

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), size = strlen(end);
    return length >= size && strcmp(text + length - size, end) == 0;
}

static bool is_manifest_name(const char *name)
{
    return strncmp(name, BACKUP_PREFIX, sizeof BACKUP_PREFIX - 1) == 0 && ends_with(name, ".json");
}

static int newest_first(const void *a, const void *b)
{
    const struct qfc_backup *one = a, *other = b;
    int order = strcmp(other->saved_at, one->saved_at);
    return order ? order : strcmp(other->archive, one->archive);
}

static int collect(DIR *directory, const char *image, struct qfc_backup **backups, size_t *count,
                   struct qfc_error *error)
{
    size_t room = 0;
    struct dirent *entry;
    while ((entry = readdir(directory)) && *count < BACKUPS_MAX) {
        if (!is_manifest_name(entry->d_name))
            continue;
        if (*count == room) {
            room = room ? 2 * room : 8;
            struct qfc_backup *more = reallocarray(*backups, room, sizeof *more);
            if (!more)
                return qfc_fail_memory(error);
            *backups = more;
        }
        struct qfc_backup *backup = &(*backups)[*count];
        read_manifest(dirfd(directory), entry->d_name, backup);
        if (!image || strcmp(backup->image, image) == 0)
            ++*count;
    }
    return 0;
}

int qfc_backup_list(const char *directory, const char *image, struct qfc_backup **ret_backups, size_t *ret_count,
                    struct qfc_error *error)
{
    struct qfc_backup *backups = NULL;
    size_t count = 0;
    DIR *open = opendir(directory);
    if (!open)
        return qfc_fail(error, QFC_ERROR_USAGE, errno, "look into the directory of saved images, %s: %s", directory,
                        strerror(errno));
    int r = collect(open, image, &backups, &count, error);
    closedir(open);
    if (r < 0) {
        free(backups);
        return -1;
    }
    if (count > 0)
        qsort(backups, count, sizeof *backups, newest_first);
    *ret_backups = backups;
    *ret_count = count;
    return 0;
}

static int check_file(int fd, const struct qfc_backup *backup, struct qfc_watch *watch, struct qfc_error *error)
{
    char sha256[QFC_SHA256_SIZE];
    struct stat status;
    int64_t bytes;
    if (fd < 0 || fstat(fd, &status) < 0)
        return qfc_fail(error, QFC_ERROR_INVALID, errno, "%s", strerror(errno));
    if (!S_ISREG(status.st_mode))
        return qfc_fail(error, QFC_ERROR_INVALID, 0, "not a regular file");
    if (status.st_size != backup->archive_bytes)
        return qfc_fail(error, QFC_ERROR_INVALID, 0, "%lld bytes, where its manifest says %lld: it was %s",
                        (long long)status.st_size, (long long)backup->archive_bytes,
                        status.st_size < backup->archive_bytes ? "cut off" : "replaced or added to");
    if (qfc_file_sha256(fd, watch, sha256, &bytes, error) < 0)
        return -1;
    if (strcmp(sha256, backup->sha256) != 0)
        return qfc_fail(error, QFC_ERROR_INVALID, 0,
                        "its SHA-256 is %s, where its manifest says %s: it was changed or replaced since it was saved",
                        sha256, backup->sha256);
    return 0;
}

/* The archive's file, or -1 and errno. */
static int open_file(const char *directory, const struct qfc_backup *backup)
{
    int place = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
    int fd = place < 0 ? -1 : openat(place, backup->archive, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    int why = errno;
    if (place >= 0)
        close(place);
    errno = why;
    return fd;
}

bool qfc_backup_is_there(const char *directory, const struct qfc_backup *backup)
{
    struct stat status;
    int fd = *backup->wrong ? -1 : open_file(directory, backup);
    bool there = fd >= 0 && fstat(fd, &status) == 0 && status.st_size == backup->archive_bytes;
    if (fd >= 0)
        close(fd);
    return there;
}

int qfc_backup_open(const char *directory, const struct qfc_backup *backup, struct qfc_watch *watch,
                    struct qfc_error *error)
{
    if (*backup->wrong)
        return qfc_fail(error, QFC_ERROR_INVALID, 0, "%s/%s: %s", directory, backup->manifest, backup->wrong);
    int fd = open_file(directory, backup);
    int r = check_file(fd, backup, watch, error);
    if (r < 0 && error->kind != QFC_ERROR_CHANGED)
        qfc_context(error, "%s/%s", directory, backup->archive);
    if (r < 0 && fd >= 0)
        close(fd);
    return r < 0 ? -1 : fd;
}

int qfc_backup_verify(const char *directory, const struct qfc_backup *backup, struct qfc_watch *watch,
                      struct qfc_error *error)
{
    int fd = qfc_backup_open(directory, backup, watch, error);
    if (fd < 0)
        return -1;
    int r = qfc_image_archive_verify(fd, backup->id, watch, error);
    close(fd);
    return r < 0 ? qfc_context(error, "%s/%s", directory, backup->archive) : 0;
}

static bool is_named(const struct qfc_backup *backups, size_t count, const char *archive)
{
    for (size_t i = 0; i < count; i++)
        if (!*backups[i].wrong && strcmp(backups[i].archive, archive) == 0)
            return true;
    return false;
}

/* A manifest that cannot be read may name any archive: then only what was never put in place is left over. */
static bool is_left_over(const char *name, const struct qfc_backup *backups, size_t count, bool all_known)
{
    if (strncmp(name, BACKUP_HIDDEN, sizeof BACKUP_HIDDEN - 1) == 0)
        return strcmp(name, BACKUP_LOCK) != 0;
    return all_known && is_archive_name(name) && ends_with(name, BACKUP_SUFFIX) && !is_named(backups, count, name);
}

void backup_remove_leftovers(const char *directory, int place)
{
    struct qfc_backup *backups;
    size_t count;
    bool all_known = true;
    DIR *open = opendir(directory);
    struct dirent *entry;
    if (open && qfc_backup_list(directory, NULL, &backups, &count, NULL) == 0) {
        for (size_t i = 0; i < count; i++)
            all_known &= !*backups[i].wrong;
        while ((entry = readdir(open)))
            if (is_left_over(entry->d_name, backups, count, all_known))
                unlinkat(place, entry->d_name, 0);
        free(backups);
    }
    if (open)
        closedir(open);
}

void backup_remove_older(const char *directory, int place, const char *image)
{
    struct qfc_backup *backups;
    size_t count;
    if (qfc_backup_list(directory, image, &backups, &count, NULL) < 0)
        return;
    for (size_t i = QFC_BACKUPS_KEPT; i < count; i++)
        unlinkat(place, backups[i].manifest, 0); /* first what names the archive */
    fsync(place);
    for (size_t i = QFC_BACKUPS_KEPT; i < count; i++)
        unlinkat(place, backups[i].archive, 0);
    free(backups);
}
