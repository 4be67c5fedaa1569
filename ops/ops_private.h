/* What the files of this room share. */
#pragma once

#include "qfc/release.h"
#include "qfc/report.h"
#include "qfc/settings.h"
#include "qfc/statements.h"
#include "qfc/worker.h"

#include <jansson.h>
#include <libpq-fe.h>

/* cli.c */

/* Says what is wrong with the command line (`what` may be null); returns QFC_EXIT_USAGE. */
int wrong(const char *problem, const char *what);

/* Reads the settings from the environment. Returns QFC_EXIT_OK, or another code: then it has said why. */
int read_settings(struct qfc_settings *ret_settings);

void print_help(void);

/* What they mean, a line each. */
extern const char exit_codes[];

/* Tells why a command could not be carried out; returns its exit code. */
int failed(const struct qfc_error *error);

/*
 * database.c: PostgreSQL for commands that do one thing after another and end. Errors: USAGE (a connection string that
 * cannot be understood), UNREACHABLE (no connection, or lost), AGAIN (somebody was in the way), REFUSED (`sqlstate`),
 * MEMORY. No message holds a password.
 */

/* Connects as the settings say; `command` is this connection's name in PostgreSQL's lists. Ends with PQfinish. */
int database_open(const struct qfc_settings *settings, const char *command, PGconn **ret_connection,
                  struct qfc_error *error);

/* Asks one statement with its values. The result is the caller's. */
int database_ask(PGconn *connection, const struct qfc_statement *statement, PGresult **ret_result,
                 struct qfc_error *error);

/* Runs a text of one statement or several, without values. A transaction that it leaves open is rolled back. */
int database_run(PGconn *connection, const char *sql, struct qfc_error *error);

/* Finds out which release has made this database. Errors also REFUSED, see qfc_release_read. */
int database_release(PGconn *connection, struct qfc_release *ret_release, struct qfc_error *error);

/* One transaction, for those that ask one statement after another within: `begin` opens it, with settings behind it
 * perhaps. The answer of a COMMIT that does not come is QFC_ERROR_UNKNOWN. */
int database_begin(PGconn *connection, const char *begin, struct qfc_error *error);
int database_commit(PGconn *connection, struct qfc_error *error);
void database_rollback(PGconn *connection);

/*
 * Asks the statements, names expanded, as one transaction that the text `begin` opens; empties the list. `ret_results`
 * gets one result for each, the caller's. Also UNKNOWN: whether it was committed. At most DATABASE_RESULTS statements.
 */
#define DATABASE_RESULTS 16
int database_ask_all(PGconn *connection, const struct qfc_release *release, const char *begin,
                     struct qfc_statements *list, PGresult **ret_results, struct qfc_error *error);

/* The queue's state; free with qfc_report_free. */
int database_report(PGconn *connection, const struct qfc_release *release, struct qfc_report *ret_report,
                    struct qfc_error *error);

/* report_json.c: the queue's state as one JSON object, the caller's; null when out of memory. Ages and durations in
 * seconds, null where there is none. What each member means, qfc/report.h says. */
json_t *report_json(const struct qfc_report *report, const struct qfc_release *release);

/* setup_db.c: for `check`. */

/* The plan of qfc/setup.h to install what is missing, in full. */
int setup_db_plan(PGconn *connection, bool index, PGresult **ret_plan, struct qfc_error *error);

/* Carries out the plan, without indexes; `said` is told of each thing: "trigger ...", "made". The session has its
 * timeouts changed. */
typedef void setup_db_said(void *userdata, const char *what, const char *outcome);
int setup_db_install(PGconn *connection, setup_db_said *said, void *userdata, struct qfc_error *error);

/* The commands; the table of them is in commands.c. */
extern const struct command command_run;
extern const struct command command_health;
extern const struct command command_status;
extern const struct command command_jobs_cancel;
extern const struct command command_jobs_retry;
extern const struct command command_jobs_requeue;
extern const struct command command_image_save;
extern const struct command command_image_verify;
extern const struct command command_image_restore;
extern const struct command command_image_status;
extern const struct command command_setup_db;
extern const struct command command_settings;
extern const struct command command_lifecycle;
extern const struct command command_manual;
extern const struct command command_completion;
extern const struct command command_jobs_list, command_jobs_show, command_jobs_logs;
extern const struct command command_jobs_cancel, command_jobs_retry, command_jobs_requeue;
extern const struct command command_run, command_health, command_status, command_setup_db, command_settings,
    command_lifecycle;
extern const struct command command_image_save, command_image_verify, command_image_restore, command_image_status;
extern const struct command command_check;
