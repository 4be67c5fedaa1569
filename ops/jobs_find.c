/*
 * Which job is meant, for the `jobs` commands.
 */
#include "command.h"
#include "jobs.h"

#include "qfc/jobs.h"
#include "qfc/log.h"
#include "qfc/pg.h"

#include <ctype.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ID_DIGITS     32
#define PREFIX_DIGITS 8

int jobs_open(struct jobs *jobs, const char *command)
{
    struct qfc_error error = QFC_NO_ERROR;
    char name[64];
    *jobs = (struct jobs){0};
    int code = read_settings(&jobs->settings);
    if (code != QFC_EXIT_OK)
        return code;
    qfc_log_configure((enum qfc_log_format)jobs->settings.log_format, (enum qfc_log_level)jobs->settings.log_level);
    snprintf(name, sizeof name, "qfc-worker %s", command);
    int r = database_open(&jobs->settings, name, &jobs->connection, &error);
    if (r == 0)
        r = database_release(jobs->connection, &jobs->release, &error);
    if (r == 0)
        return QFC_EXIT_OK;
    jobs_close(jobs);
    return failed(&error);
}

void jobs_close(struct jobs *jobs)
{
    PQfinish(jobs->connection);
    jobs->connection = NULL;
    qfc_settings_free(&jobs->settings);
}

int jobs_parse_one(const struct command *command, int argc, char **argv, struct job_request *ret_request)
{
    struct arguments arguments = {.command = command, .argc = argc, .argv = argv};
    const char *name, *value;
    enum argument next;
    while ((next = next_argument(&arguments, &name, &value)) != ARGUMENT_END) {
        if (next == ARGUMENT_WRONG)
            return QFC_EXIT_USAGE;
        if (next == ARGUMENT_OPTION)
            ret_request->option = true;
        else if (ret_request->given)
            return wrong("one job at a time", value);
        else
            ret_request->given = value;
    }
    return ret_request->given ? QFC_EXIT_OK : wrong("which job? Give its id, or the id's first 8 digits", NULL);
}

int jobs_answer(const char *command, jobs_question *question, void *request)
{
    struct qfc_error error = QFC_NO_ERROR;
    struct jobs jobs;
    int code = jobs_open(&jobs, command);
    if (code != QFC_EXIT_OK)
        return code;
    int r = question(&jobs, request, &error);
    jobs_close(&jobs);
    return r < 0 ? failed(&error) : QFC_EXIT_OK;
}

int jobs_ask(const struct jobs *jobs, struct qfc_statements *list, PGresult **ret_result, struct qfc_error *error)
{
    int r = qfc_statements_expand(list, jobs->release.names, error);
    if (r == 0)
        r = database_ask(jobs->connection, &list->items[0], ret_result, error);
    qfc_statements_free(list);
    return r;
}

/* The digits of an id's beginning, without hyphens, in lower case. Returns their number; 0: it is none. */
static size_t digits_of(const char *given, char digits[ID_DIGITS + 1])
{
    size_t count = 0;
    for (; *given; given++) {
        if (*given == '-')
            continue;
        if (!isxdigit((unsigned char)*given) || count == ID_DIGITS)
            return 0;
        digits[count++] = (char)tolower((unsigned char)*given);
    }
    digits[count] = '\0';
    return count;
}

int jobs_find(const struct jobs *jobs, const char *given, char ret_id[QFC_UUID_SIZE], struct qfc_error *error)
{
    static const char zeros[] = "00000000000000000000000000000000", ends[] = "ffffffffffffffffffffffffffffffff";
    char digits[ID_DIGITS + 1] = "", first[ID_DIGITS + 1], last[ID_DIGITS + 1];
    struct qfc_statements list = {0};
    PGresult *found;
    size_t count = digits_of(given, digits);
    if (count < PREFIX_DIGITS)
        return qfc_fail(error, QFC_ERROR_USAGE, 0, "a job is named by its id, or the id's first %d digits or more",
                        PREFIX_DIGITS);
    snprintf(first, sizeof first, "%s%s", digits, zeros + count);
    snprintf(last, sizeof last, "%s%s", digits, ends + count);
    int r = QFC_ADD(&list, error, "SELECT id FROM core_job WHERE id BETWEEN $1::uuid AND $2::uuid ORDER BY id LIMIT 2",
                    first, last);
    r = r == 0 ? jobs_ask(jobs, &list, &found, error) : r;
    if (r < 0)
        return -1;
    if (PQntuples(found) == 1)
        snprintf(ret_id, QFC_UUID_SIZE, "%s", PQgetvalue(found, 0, 0));
    else if (PQntuples(found) == 0)
        r = qfc_fail(error, QFC_ERROR_REFUSED, 0, count == ID_DIGITS ? "no such job" : "no job's id begins like that");
    else
        r = qfc_fail(error, QFC_ERROR_REFUSED, 0, "several jobs' ids begin like that: give more of its digits");
    PQclear(found);
    return r;
}

/* A project that is named by its id; false: it is not. */
static bool take_id(const char *given, char ret_id[QFC_UUID_SIZE])
{
    char digits[ID_DIGITS + 1];
    if (digits_of(given, digits) != ID_DIGITS)
        return false;
    snprintf(ret_id, QFC_UUID_SIZE, "%.8s-%.4s-%.4s-%.4s-%.12s", digits, digits + 8, digits + 12, digits + 16,
             digits + 20);
    return true;
}

int jobs_find_project(const struct jobs *jobs, const char *given, char ret_id[QFC_UUID_SIZE], struct qfc_error *error)
{
    struct qfc_statements list = {0};
    PGresult *found;
    char owner[256];
    const char *slash = strchr(given, '/');
    if (!slash && take_id(given, ret_id))
        return 0;
    if (!slash || slash - given >= (ptrdiff_t)sizeof owner)
        return qfc_fail(error, QFC_ERROR_USAGE, 0, "a project is named by its id, or as owner/name");
    snprintf(owner, sizeof owner, "%.*s", (int)(slash - given), given);
    if (qfc_jobs_project(owner, slash + 1, &list, error) < 0 || jobs_ask(jobs, &list, &found, error) < 0)
        return -1;
    int r = PQntuples(found) == 1 ? 0 : qfc_fail(error, QFC_ERROR_REFUSED, 0, "there is no project of that name");
    if (r == 0)
        snprintf(ret_id, QFC_UUID_SIZE, "%s", PQgetvalue(found, 0, 0));
    PQclear(found);
    return r;
}

double parse_age(const char *text)
{
    static const struct {
        char unit;
        double seconds;
    } units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}, {'w', 604800}};
    char *end;
    if (!isdigit((unsigned char)*text))
        return -1;
    double value = strtod(text, &end);
    if (!isfinite(value) || value > 1e9)
        return -1;
    if (!*end)
        return value;
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (*end == units[i].unit && !end[1])
            return value * units[i].seconds;
    return -1;
}

char *print_age(char out[AGE_SIZE], double seconds)
{
    long long whole = (long long)seconds;
    if (seconds < 0)
        snprintf(out, AGE_SIZE, "-");
    else if (seconds < 10)
        snprintf(out, AGE_SIZE, "%.1fs", seconds);
    else if (whole < 60)
        snprintf(out, AGE_SIZE, "%llds", whole);
    else if (whole < 3600)
        snprintf(out, AGE_SIZE, "%lldm %llds", whole / 60, whole % 60);
    else if (whole < 86400)
        snprintf(out, AGE_SIZE, "%lldh %lldm", whole / 3600, whole % 3600 / 60);
    else
        snprintf(out, AGE_SIZE, "%lldd %lldh", whole / 86400, whole % 86400 / 3600);
    return out;
}
