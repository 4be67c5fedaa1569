/* What the `jobs` commands share. */
#pragma once

#include "ops_private.h"

#include "qfc/job.h"

/* A command's connection, and what is known of the database. */
struct jobs {
    PGconn *connection;
    struct qfc_release release;
    struct qfc_settings settings;
};

/* Reads the settings, sets up the log, connects. Returns an exit code; but for QFC_EXIT_OK it has said why, and there is
 * nothing to close. */
int jobs_open(struct jobs *jobs, const char *command);
void jobs_close(struct jobs *jobs);

/* What a command about one job was asked: which one, and its only option. Returns an exit code, and has said what is
 * wrong. */
struct job_request {
    const char *given;
    bool option;
};
struct command;
int jobs_parse_one(const struct command *command, int argc, char **argv, struct job_request *ret_request);

/* Opens, asks, closes. Returns the command's exit code; what was wrong it has said. */
typedef int jobs_question(const struct jobs *jobs, void *request, struct qfc_error *error);
int jobs_answer(const char *command, jobs_question *question, void *request);

/* Asks the only statement of the list with names expanded; empties the list. The result is the caller's. */
int jobs_ask(const struct jobs *jobs, struct qfc_statements *list, PGresult **ret_result, struct qfc_error *error);

/*
 * The job whose id begins with `given`: at least 8 hexadecimal digits, hyphens or not. -1: QFC_ERROR_USAGE for what is no
 * beginning of an id, QFC_ERROR_REFUSED where no job or several begin like that.
 */
int jobs_find(const struct jobs *jobs, const char *given, char ret_id[QFC_UUID_SIZE], struct qfc_error *error);

/* The id of a project that is given as such, or as "owner/name". Errors as jobs_find. */
int jobs_find_project(const struct jobs *jobs, const char *given, char ret_id[QFC_UUID_SIZE], struct qfc_error *error);

/* jobs_times.c: notes in the steps of a job that qfc_jobs_show has brought what each took, as far as its output tells:
 * `took_s`, and `took` for people. */
void jobs_add_times(const struct jobs *jobs, const char *id, json_t *job);

/*
 * For `check`: as `jobs requeue`, without asking, and only where that has no risk. `said` is told of each job what was
 * done (or, with `dry_run`, would be), or, with `done` false, why nothing was.
 */
typedef void jobs_said(void *userdata, const char *id, bool done, const char *says);
int jobs_requeue(const struct jobs *jobs, const char *const *ids, size_t count, bool dry_run, jobs_said *said,
                 void *userdata, struct qfc_error *error);

/* Seconds of an age: "90", "90s", "10m", "2h", "3d", "1w"; -1 for what is none. */
double parse_age(const char *text);

/* "1.2 s", "12 s", "3m 20s", "2h 5m", "3d 4h"; "-" for less than 0. Returns `out`. */
#define AGE_SIZE 24
char *print_age(char out[AGE_SIZE], double seconds);
