/*
 * The queue's state as one line of a file, for those who keep figures over months.
 */
#include "status.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LINE_BYTES 4096
#define KEPT       5 /* FILE.1 to FILE.5 */
#define LOCK_TRIES 100
#define LOCK_MS    100

static const char heads[] =
    "time,pending,claimable,behind,locked,retry,queued,started,oldest_pending_s,oldest_claimable_s,workers,slots,"
    "slots_in_use,old_started,blocked,hour_finished,hour_failed,hour_success,hour_wait_p50_s,hour_wait_p90_s,"
    "hour_run_p50_s,hour_run_p90_s,hour_run_mean_s,day_finished,day_failed,day_success,failures_in_a_row,load_1m,"
    "memory_used_percent\n";

/* A line under construction; nothing of a line that does not fit is written. */
struct line {
    char text[LINE_BYTES];
    size_t size;
};

static void put(struct line *line, const char *text)
{
    size_t length = strlen(text);
    if (line->size + length + 2 <= sizeof line->text) {
        memcpy(line->text + line->size, text, length);
        line->size += length;
        line->text[line->size++] = ',';
    }
}

static void put_long(struct line *line, long value)
{
    char text[32];
    snprintf(text, sizeof text, "%ld", value);
    put(line, text);
}

/* Empty where there is none. */
static void put_number(struct line *line, double value, int digits)
{
    char text[64] = "";
    if (value >= 0)
        snprintf(text, sizeof text, "%.*f", digits, value);
    put(line, text);
}

/* Of this machine, which may not be that of the workers. -1: not known. */
static double load_1m(void)
{
    double load[1];
    return getloadavg(load, 1) == 1 ? load[0] : -1;
}

static double memory_used_percent(void)
{
    char text[128];
    double total = -1, available = -1;
    FILE *file = fopen("/proc/meminfo", "re");
    while (file && fgets(text, sizeof text, file)) {
        sscanf(text, "MemTotal: %lf", &total);
        sscanf(text, "MemAvailable: %lf", &available);
    }
    if (file)
        fclose(file);
    return total > 0 && available >= 0 ? 100 * (1 - available / total) : -1;
}

static void put_queue(struct line *line, const struct qfc_report *report)
{
    long slots = 0, in_use = 0;
    for (size_t i = 0; i < report->worker_count; i++) {
        slots += report->workers[i].slots;
        in_use += report->workers[i].jobs;
    }
    const long counts[] = {report->pending, report->claimable, report->behind, report->locked,
                           report->retry,   report->queued,    report->started};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        put_long(line, counts[i]);
    put_number(line, report->oldest_pending_s, 1);
    put_number(line, report->oldest_claimable_s, 1);
    const long workers[] = {(long)report->worker_count, slots, in_use, report->old_started,
                            (long)report->blocked_count};
    for (size_t i = 0; i < sizeof workers / sizeof *workers; i++)
        put_long(line, workers[i]);
}

static void make_line(struct line *line, const struct qfc_report *report)
{
    const struct qfc_report_window *hour = qfc_report_window_of(report, "hour");
    const struct qfc_report_window *day = qfc_report_window_of(report, "day");
    put(line, report->now);
    put_queue(line, report);
    put_long(line, hour->finished);
    put_long(line, hour->failed);
    put_number(line, hour->success, 4);
    put_number(line, hour->wait.p50, 3);
    put_number(line, hour->wait.p90, 3);
    put_number(line, hour->run.p50, 3);
    put_number(line, hour->run.p90, 3);
    put_number(line, hour->run_mean_s, 3);
    put_long(line, day->finished);
    put_long(line, day->failed);
    put_number(line, day->success, 4);
    put_long(line, report->failures_in_a_row);
    put_number(line, load_1m(), 2);
    put_number(line, memory_used_percent(), 1);
    line->text[line->size - 1] = '\n';
}

static int refused(const char *doing, const char *path, struct qfc_error *error)
{
    int code = errno;
    return qfc_fail(error, QFC_ERROR_REFUSED, code, "%s %s: %s", doing, path, strerror(code));
}

static int lock(int fd, const char *path, struct qfc_error *error)
{
    const struct timespec pause = {.tv_nsec = LOCK_MS * 1000000};
    for (int tries = 0; tries < LOCK_TRIES; tries++) {
        if (flock(fd, LOCK_EX | LOCK_NB) == 0)
            return 0;
        if (errno != EWOULDBLOCK && errno != EINTR)
            return refused("lock", path, error);
        nanosleep(&pause, NULL);
    }
    return qfc_fail(error, QFC_ERROR_AGAIN, 0, "lock %s: another process has had it for %d s", path,
                    LOCK_TRIES * LOCK_MS / 1000);
}

/* Opens and locks it. Who waited for the lock may have a file that was moved away meanwhile. Returns it, or -1. */
static int open_locked(const char *path, struct stat *ret_about, struct qfc_error *error)
{
    for (int tries = 0; tries < 10; tries++) {
        struct stat named;
        int fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0644);
        if (fd < 0)
            return refused("open", path, error);
        if (lock(fd, path, error) < 0 || fstat(fd, ret_about) < 0) {
            close(fd);
            return error->message[0] ? -1 : refused("look at", path, error);
        }
        if (stat(path, &named) == 0 && named.st_ino == ret_about->st_ino && named.st_dev == ret_about->st_dev)
            return fd;
        close(fd);
    }
    return qfc_fail(error, QFC_ERROR_AGAIN, 0, "open %s: it is moved away again and again", path);
}

/* FILE.4 becomes FILE.5, and so on, and FILE FILE.1. */
static int rotate(const char *path, struct qfc_error *error)
{
    char from[4096], to[4096];
    for (int i = KEPT - 1; i >= 0; i--) {
        int size = snprintf(to, sizeof to, "%s.%d", path, i + 1);
        if (size < 0 || (size_t)size >= sizeof to)
            return qfc_fail(error, QFC_ERROR_USAGE, 0, "the file's name is too long");
        snprintf(from, sizeof from, i > 0 ? "%s.%d" : "%s", path, i);
        if (rename(from, to) < 0 && errno != ENOENT)
            return refused("move", from, error);
    }
    return 0;
}

/* Does it begin with our heads, and end in a whole line? One that does not was made by another version, or by hand. */
static bool is_ours(int fd, off_t size)
{
    char begin[sizeof heads], end;
    ssize_t got = pread(fd, begin, sizeof heads - 1, 0);
    return got == (ssize_t)sizeof heads - 1 && memcmp(begin, heads, (size_t)got) == 0 &&
           pread(fd, &end, 1, size - 1) == 1 && end == '\n';
}

/* All of it or nothing. */
static int append(int fd, off_t size, const char *data, size_t length, const char *path, struct qfc_error *error)
{
    ssize_t written = write(fd, data, length);
    if (written == (ssize_t)length)
        return 0;
    if (written >= 0)
        errno = ENOSPC;
    refused("write", path, error);
    if (written > 0 && ftruncate(fd, size) < 0)
        qfc_context(error, "a part of a line was left behind");
    return -1;
}

int status_csv(const struct qfc_report *report, const char *path, size_t maximum_bytes, struct qfc_error *error)
{
    char data[sizeof heads + LINE_BYTES];
    struct line line = {.size = 0};
    struct stat about;
    make_line(&line, report);
    int fd = open_locked(path, &about, error);
    if (fd < 0)
        return -1;
    bool regular = S_ISREG(about.st_mode);
    bool full = (size_t)about.st_size + line.size > maximum_bytes || !is_ours(fd, about.st_size);
    int r = 0;
    if (regular && about.st_size > 0 && full) {
        r = rotate(path, error);
        close(fd);
        fd = r == 0 ? open_locked(path, &about, error) : -1;
    }
    if (fd < 0)
        return -1;
    bool first = regular && about.st_size == 0;
    int length = snprintf(data, sizeof data, "%s%.*s", first ? heads : "", (int)line.size, line.text);
    r = append(fd, about.st_size, data, (size_t)length, path, error);
    close(fd);
    return r;
}
