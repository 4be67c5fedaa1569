/*
 * check: clocks and disks.
 */
#include "check.h"

#include "qfc/pg.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <time.h>

/* Seconds. Stores refuse requests whose time is 15 minutes off. */
#define CLOCK_WARNING 5
#define CLOCK_FAILED  300

/* Percent. */
#define DISK_WARNING 80
#define DISK_FAILED  90

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* `theirs` was told between `before` and `after`, so a difference within that span is none. */
static void judge_clock(struct look *look, const char *whose, double theirs, double before, double after)
{
    double ahead = theirs > after ? theirs - after : theirs < before ? theirs - before : 0;
    double apart = fabs(ahead);
    if (apart < CLOCK_WARNING) {
        check_found(look, CHECK_OK, "%s clock and this one are less than %d s apart", whose, CLOCK_WARNING);
        return;
    }
    check_found(look, apart < CLOCK_FAILED ? CHECK_WARNING : CHECK_FAILED, "%s clock is %.0f s %s of this one", whose,
                apart, ahead > 0 ? "ahead" : "behind");
    check_advise(look, "set the wrong one, and let NTP keep it: timedatectl set-ntp true");
}

static void find_database_clock(struct look *look)
{
    struct qfc_error error = QFC_NO_ERROR;
    PGresult *answer;
    double before = now_s();
    if (check_ask(look, "SELECT extract(epoch FROM clock_timestamp()) AS now", &answer, &error) < 0) {
        check_found_error(look, "ask the database for its time", &error);
        return;
    }
    judge_clock(look, "the database's", strtod(qfc_pg_text(answer, 0, "now"), NULL), before, now_s());
    PQclear(answer);
}

/* "2026-01-02T03:04:05.678901234Z", of GET /info; or with an offset, which then is told in ISO 8601. */
static double parse_time(const char *text)
{
    struct tm tm = {0};
    const char *rest = text ? strptime(text, "%Y-%m-%dT%H:%M:%S", &tm) : NULL;
    int hours = 0, minutes = 0;
    char sign = '+';
    if (!rest)
        return 0;
    double fraction = *rest == '.' ? strtod(rest, (char **)&rest) : 0;
    if (sscanf(rest, "%c%2d:%2d", &sign, &hours, &minutes) != 3)
        hours = minutes = 0;
    double offset_s = 3600.0 * hours + 60.0 * minutes;
    return (double)timegm(&tm) + fraction - (sign == '-' ? -offset_s : offset_s);
}

static void find_engine_clock(struct look *look)
{
    struct qfc_error error = QFC_NO_ERROR;
    struct engine_answer answer = {0};
    double before = now_s();
    if (ENGINE_ASK(&look->turns, 0, &answer, &error, qfc_engine_info) == 0) {
        double after = now_s();
        json_t *info = json_loadb(qfc_buffer_text(&answer.data), answer.data.size, 0, NULL);
        double theirs = parse_time(json_string_value(json_object_get(info, "SystemTime")));
        if (theirs > 0)
            judge_clock(look, "the engine's", theirs, before, after);
        json_decref(info);
    }
    engine_answer_free(&answer);
}

void check_clock(struct look *look)
{
    find_database_clock(look);
    if (look->has & CHECK_ENGINE)
        find_engine_clock(look);
}

/* As df counts: what only root may have is no room. */
static int percent(double total, double free_of_all, double available)
{
    double used = total - free_of_all;
    return used + available > 0 ? (int)ceil(100 * used / (used + available)) : 0;
}

static void find_disk(struct look *look, const char *path, const char *what)
{
    struct statvfs disk;
    if (statvfs(path, &disk) < 0) {
        check_found(look, CHECK_FAILED, "%s, %s: %s", what, path, strerror(errno));
        check_advise(look, "make that directory, or correct the setting that names it");
        return;
    }
    double block = (double)disk.f_frsize;
    int blocks = percent((double)disk.f_blocks, (double)disk.f_bfree, (double)disk.f_bavail);
    int files = percent((double)disk.f_files, (double)disk.f_ffree, (double)disk.f_favail);
    int worst = blocks > files ? blocks : files;
    check_found(look,
                worst >= DISK_FAILED    ? CHECK_FAILED
                : worst >= DISK_WARNING ? CHECK_WARNING
                                        : CHECK_OK,
                "%s, %s: %d %% used, %.1f GB free%s", what, path, worst, block * (double)disk.f_bavail / 1e9,
                files > blocks && files >= DISK_WARNING ? " (it is short of files, not of bytes)" : "");
    if (worst >= DISK_WARNING)
        check_advise(look, "make room: df -h %s; docker system df; old images, logs and backups", path);
}

/* Only where the engine's disk can be seen from here: on its own host, or where it was mounted. */
static bool find_engine_disk(struct look *look)
{
    const char *root = json_string_value(json_object_get(look->engine_info, "DockerRootDir"));
    struct statvfs disk;
    if (!root || *root != '/' || strncmp(look->settings.docker_host, "unix://", 7) != 0 || statvfs(root, &disk) < 0)
        return false;
    find_disk(look, root, "the engine's disk");
    return true;
}

void check_disks(struct look *look)
{
    const char *backups = look->settings.image_backup_dir;
    bool any = look->has & CHECK_ENGINE && find_engine_disk(look);
    if (*backups)
        find_disk(look, backups, "the backups' disk");
    any |= *backups != '\0';
    if (!any)
        check_found(look, CHECK_OK, "none is to be seen from here");
}
