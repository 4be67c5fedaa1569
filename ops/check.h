/*
 * `qfc-worker check`: what its files share. A check is a row of the table in check.c: a function that looks at one thing
 * and says what it has found, in one line or several, and perhaps one that mends it.
 */
#pragma once

#include "ops_private.h"
#include "turns.h"

#include "qfc/environment.h"

#include <stdbool.h>
#include <stddef.h>

enum check_state {
    CHECK_OK,
    CHECK_WARNING, /* works, but not as it should, or not for long */
    CHECK_FAILED,  /* jobs do not run, or not all of them */
    CHECK_SKIPPED, /* not looked at: what it needs has failed */
};

/* What must be there before a check can be made: bits of `needs`; a check that does not fail `gives` its own. */
enum check_need {
    CHECK_SETTINGS = 1,
    CHECK_DATABASE = 2,
    CHECK_RELEASE = 4,
    CHECK_ENGINE = 8,
};

struct look;

struct check {
    const char *name;
    const char *about; /* what is so when all is well: a sentence in lower case, without a full stop */
    unsigned needs;    /* all that is needed, directly or not */
    unsigned wants;    /* without which it looks at less */
    unsigned gives;
    void (*find)(struct look *look);
    /* Mends what it can, and says each thing with check_mended, before with `dry_run`; null: there is nothing to mend. */
    void (*mend)(struct look *look);
};

/* One line. Texts as they came: whoever prints them makes them harmless. */
struct finding {
    enum check_state state;
    char *seen;
    char *next; /* what to do or type next; null: nothing */
};

struct check_result {
    bool asked; /* by --only, or by a check that needs it */
    struct finding *findings;
    size_t count;
    char **mended; /* sentences; with `dry_run` what would be done */
    size_t mended_count;
};

/* One run of the command. */
struct look {
    struct qfc_settings settings;
    bool dry_run;
    unsigned has; /* of enum check_need */
    struct turns turns;
    PGconn *database;           /* null before it was reached */
    struct qfc_release release; /* `called` is "" before it was recognised */
    json_t *engine_info;        /* GET /info, or null */
    struct qfc_report report;   /* where has_report is true */
    bool has_report;
    bool out_of_memory;

    const struct check *check; /* that is being made */
    struct check_result *results;
};

/* The table; the list ends with a check without name. */
extern const struct check checks[];

/* Says what the check that is being made has found. */
void check_found(struct look *look, enum check_state state, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* What to do about what was found last. */
void check_advise(struct look *look, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Says what was mended, or, with `dry_run`, would be: "put job X back". */
void check_mended(struct look *look, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The worst that a check has found; CHECK_OK for nothing. */
enum check_state check_state_of(const struct check_result *result);

/* check_print.c */
void check_print_list(void); /* a Markdown table, which the documents hold */
void check_print(const struct check *check, const struct check_result *result, bool quiet);
void check_print_mended(const struct check *check, const struct check_result *result, bool dry_run);
void check_print_sum(const struct check_result *results);
/* Returns 0 or -1 (no memory). */
int check_print_json(const struct check_result *results, bool quiet, bool dry_run);

/* The checks. */
/* A question to the database, {names} of the release expanded where that is known. The result is the caller's. */
int check_ask(struct look *look, const char *sql, PGresult **ret_result, struct qfc_error *error);
void check_found_error(struct look *look, const char *doing, const struct qfc_error *error);

/* The text of a name of the release (qfc_queue_names), never null; is it "true"? */
const char *check_release_text(const struct look *look, const char *name);
bool check_release_has(const struct look *look, const char *name);

/* The names of the QGIS images that the release needs: one or two; belong to the settings. */
size_t check_images_needed(const struct look *look, const char *ret_images[2]);

/* What this deployment calls itself in labels: as the worker's containers have it in `qfc_stack`. */
void check_stack(const struct look *look, char *out, size_t size);

/* The label of containers that a check has made; its value is the stack. */
#define CHECK_LABEL "qfc_check"

/* The checks, in the order of the table; they are made one after another. */
void check_settings(struct look *look);
void check_database(struct look *look);
void check_release(struct look *look);
void check_privileges(struct look *look);
void check_triggers(struct look *look);
void mend_triggers(struct look *look);
void check_indexes(struct look *look);
void check_engine(struct look *look);
void check_images(struct look *look);
void mend_images(struct look *look);
void check_backups(struct look *look);
void check_network(struct look *look);
void check_volumes(struct look *look);
void check_url(struct look *look);
void check_storages(struct look *look);
void check_secrets(struct look *look);
void check_clock(struct look *look);
void check_workers(struct look *look);
void check_queue(struct look *look);
void check_jobs(struct look *look);
void mend_jobs(struct look *look);
void check_queued(struct look *look);
void mend_queued(struct look *look);
void check_projects(struct look *look);
void check_leftovers(struct look *look);
void mend_leftovers(struct look *look);

/* The next question about the queue is asked anew. */
void check_forget_report(struct look *look);
void check_disks(struct look *look);
