/*
 * /io as a directory of the host that this worker and the engine share (TMP_DIRECTORY): quicker than the archive API
 * where each of its calls costs the engine a process of its own (Docker before 24).
 *
 * The directories of all jobs lie in one that only this user may enter, named after stack and engine; within it the
 * container, whose root has no capabilities, may write whoever owns it. Whether the engine sees the same directory, it
 * says itself: a bind mount, unlike a volume, is refused when its source is not there, and the source's name is new.
 *
 * What the container leaves there is read only when it is a plain file of bounded size; else, and for jobs that were
 * taken over, the archive API is asked, which sees the same. Directories that a dead worker has left are swept once no
 * container has their name.
 */
#include "worker_private.h"

#include "qfc/confine.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LEFT_S 600 /* a directory without a container is younger only while its container is being made */

/* FNV-1a: only to tell stacks and engines apart. */
static uint64_t mixed(uint64_t hash, const char *text)
{
    for (; *text; text++)
        hash = (hash ^ (unsigned char)*text) * 0x100000001b3;
    return hash;
}

/* False where none is to be used. Without the engine's identity, others' directories could not be told from ours. */
static bool base_path(const struct qfc_worker *worker, char path[SHARED_PATH_SIZE])
{
    const char *directory = worker->settings->tmp_directory;
    if (*directory != '/' || worker->shared_off || !worker->engine_id[0])
        return false;
    uint64_t hash = mixed(mixed(0xcbf29ce484222325, worker->stack), worker->engine_id);
    int length = snprintf(path, SHARED_PATH_SIZE, "%s/qfc-worker-%016llx", directory, (unsigned long long)hash);
    return length < SHARED_PATH_SIZE;
}

static void give_up(struct qfc_worker *worker, const char *path, const char *why)
{
    if (!worker->shared_off)
        qfc_log(QFC_LOG_WARNING, NULL, "TMP_DIRECTORY is not used, files go through the engine's API: %s: %s", path,
                why);
    worker->shared_off = true;
}

/* Somebody else may have been here before in a directory that everybody can write to. */
static int open_base(struct qfc_worker *worker, const char *path)
{
    struct stat status;
    if (mkdir(path, 0700) < 0 && errno != EEXIST) {
        give_up(worker, path, strerror(errno));
        return -1;
    }
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) < 0) {
        give_up(worker, path, strerror(errno));
    } else if (status.st_uid != geteuid() || (status.st_mode & 077)) {
        give_up(worker, path, "it is not this user's alone");
    } else {
        return fd;
    }
    if (fd >= 0)
        close(fd);
    return -1;
}

static int write_file(int directory, const struct qfc_tar_file *file)
{
    int fd = openat(directory, file->name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (fd < 0)
        return -1;
    const char *at = file->data, *end = at + file->size;
    while (at < end) {
        ssize_t n = write(fd, at, (size_t)(end - at));
        if (n < 0 && errno != EINTR)
            break;
        at += n > 0 ? n : 0;
    }
    return close(fd) < 0 || at < end ? -1 : 0;
}

/* The job's directory with its files. The files belong to the container, which may replace them. */
static int fill(const struct job *job, int base, const char *name)
{
    int directory = -1, r = mkdirat(base, name, 0700);
    if (r == 0)
        directory = openat(base, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (directory < 0)
        return -1;
    r = fchmod(directory, 0777);
    for (size_t i = 0; r == 0 && i < job->plan.file_count; i++)
        r = write_file(directory, &job->plan.files[i]);
    int code = errno;
    close(directory);
    errno = code;
    return r;
}

void shared_directory_make(struct job *job)
{
    char base[SHARED_PATH_SIZE];
    uint64_t chance;
    if (*job->shared || !base_path(job->worker, base) || getrandom(&chance, sizeof chance, 0) != sizeof chance)
        return;
    int fd = open_base(job->worker, base);
    if (fd < 0)
        return;
    int length =
        snprintf(job->shared, sizeof job->shared, "%s/%s.%016llx", base, job->name, (unsigned long long)chance);
    if (length >= (int)sizeof job->shared) {
        *job->shared = '\0';
    } else if (fill(job, fd, job->shared + strlen(base) + 1) < 0) {
        give_up(job->worker, job->shared, strerror(errno));
        shared_directory_leave(job);
    }
    close(fd);
}

void shared_directory_mount(const struct job *job, struct qfc_confines *confines, struct qfc_container *container)
{
    size_t at = 0;
    if (!*job->shared)
        return;
    while (at < container->mount_count && strcmp(confines->mounts[at].target, IO_DIRECTORY) != 0)
        at++;
    confines->mounts[at] = (struct qfc_mount){.source = job->shared, .target = IO_DIRECTORY, .bind = true};
    if (at == container->mount_count)
        container->mount_count++;
}

/* Docker: "bind source path does not exist: PATH" (400); podman: "statfs PATH: no such file or directory" (500). */
bool shared_directory_refused(struct job *job, const struct qfc_error *error)
{
    if (!*job->shared || error->kind != QFC_ERROR_REFUSED || !strstr(error->message, job->shared))
        return false;
    give_up(job->worker, job->worker->settings->tmp_directory,
            "the engine does not see the worker's directories there");
    shared_directory_leave(job);
    qfc_buffer_wipe(&job->body); /* to be described anew */
    return true;
}

/* Looked at before it is opened: opening a device can do things. */
static int open_plain_file(const char *directory, const char *name, size_t max_bytes)
{
    char path[32];
    struct stat status;
    int fd = -1, parent = open(directory, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int found = parent < 0 ? -1 : openat(parent, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (found >= 0 && fstat(found, &status) == 0 && S_ISREG(status.st_mode) && (uint64_t)status.st_size <= max_bytes) {
        snprintf(path, sizeof path, "/proc/self/fd/%d", found);
        fd = open(path, O_RDONLY | O_CLOEXEC);
    }
    if (found >= 0)
        close(found);
    if (parent >= 0)
        close(parent);
    return fd;
}

bool shared_directory_read(const struct job *job, const char *name, struct qfc_buffer *out)
{
    static char piece[65536];
    ssize_t n = -1;
    int fd = *job->shared ? open_plain_file(job->shared, name, out->maximum) : -1;
    if (fd < 0)
        return false;
    while ((n = read(fd, piece, sizeof piece)) > 0)
        if (qfc_buffer_append(out, piece, (size_t)n) < 0)
            break;
    close(fd);
    if (n != 0)
        qfc_buffer_free(out);
    return n == 0;
}

/* A container can leave millions of files: another thread takes them away. */
struct removal {
    uv_work_t work;
    char path[SHARED_PATH_SIZE];
};

static int remove_entry(const char *path, const struct stat *status, int flag, struct FTW *place)
{
    (void)remove(path);
    return 0;
}

static void remove_all(uv_work_t *work)
{
    struct removal *removal = work->data;
    nftw(removal->path, remove_entry, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

static void on_all_removed(uv_work_t *work, int status)
{
    free(work->data);
}

static void remove_later(struct qfc_worker *worker, const char *path)
{
    struct removal *removal = calloc(1, sizeof *removal);
    if (!removal)
        return; /* the sweep will see it */
    removal->work.data = removal;
    snprintf(removal->path, sizeof removal->path, "%s", path);
    if (uv_queue_work(&worker->loop, &removal->work, remove_all, on_all_removed) < 0)
        free(removal);
}

void shared_directory_leave(struct job *job)
{
    if (*job->shared)
        remove_later(job->worker, job->shared);
    *job->shared = '\0';
}

/* Is there a container of the name that the directory begins with? */
static bool has_container(const json_t *list, const char *directory)
{
    size_t i, length = strcspn(directory, ".");
    const json_t *container;
    json_array_foreach(list, i, container)
    {
        const char *name = json_string_value(json_array_get(json_object_get(container, "Names"), 0));
        if (name && *name == '/' && strlen(name + 1) == length && strncmp(name + 1, directory, length) == 0)
            return true;
    }
    return false;
}

void shared_directory_sweep(struct qfc_worker *worker, const json_t *list)
{
    char base[SHARED_PATH_SIZE], path[SHARED_PATH_SIZE];
    struct stat status;
    DIR *directory = base_path(worker, base) ? opendir(base) : NULL;
    const struct dirent *entry;
    time_t youngest = time(NULL) - (time_t)(patience_ms(LEFT_S * 1000) / 1000);
    while (directory && (entry = readdir(directory))) {
        int length = snprintf(path, sizeof path, "%s/%s", base, entry->d_name);
        if (strncmp(entry->d_name, "qfc-", 4) == 0 && length < SHARED_PATH_SIZE && lstat(path, &status) == 0 &&
            status.st_ctime < youngest && !has_container(list, entry->d_name))
            remove_later(worker, path);
    }
    if (directory)
        closedir(directory);
}
