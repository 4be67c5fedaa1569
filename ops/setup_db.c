/*
 * `qfc-worker setup-db`: carries out the plan of qfc/setup.h, or prints it.
 *
 * One thing is done at a time, and the plan is made anew before each. So it needs no lock of its own against others who
 * do the same: what they have done meanwhile is no longer in the plan, and where both came at the same time the one who
 * lost looks again.
 */
#include "command.h"
#include "ops_private.h"

#include "qfc/pg.h"
#include "qfc/random.h"
#include "qfc/setup.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Each try waits as long as its lock_timeout; the pauses between them double and differ, up to a quarter, by chance. */
#define TRIES         10
#define PAUSE_MIN_MS  250
#define PAUSE_MAX_MS  4000
#define WHAT_MAX_SIZE 512

struct setup {
    PGconn *connection;
    struct qfc_setup_wish wish;
    bool print;
    struct qfc_statements look; /* makes the plan */
    setup_db_said *said;        /* tells of each thing */
    void *userdata;
};

static void take_option(struct setup *setup, const char *name)
{
    if (strcmp(name, "index") == 0)
        setup->wish.index = true;
    else if (strcmp(name, "undo") == 0)
        setup->wish.undo = true;
    else
        setup->print = true;
}

static int parse(const struct command *command, int argc, char **argv, struct setup *setup)
{
    struct arguments arguments = {.command = command, .argc = argc, .argv = argv};
    const char *name, *value;
    enum argument next;
    while ((next = next_option(&arguments, &name, &value)) == ARGUMENT_OPTION)
        take_option(setup, name);
    return next == ARGUMENT_END ? QFC_EXIT_OK : QFC_EXIT_USAGE;
}

/* Asks what the database is, and makes the question for the plan of it. */
static int prepare(struct setup *setup, struct qfc_error *error)
{
    struct qfc_statements probe = {0};
    PGresult *answer = NULL;
    int r = qfc_setup_probe(&probe, error);
    if (r == 0)
        r = database_ask(setup->connection, &probe.items[0], &answer, error);
    if (r == 0)
        r = qfc_setup_plan(answer, setup->wish, &setup->look, error);
    PQclear(answer);
    qfc_statements_free(&probe);
    return r;
}

static int look(const struct setup *setup, PGresult **ret_plan, struct qfc_error *error)
{
    return database_ask(setup->connection, &setup->look.items[0], ret_plan, error);
}

static void print_plan(const struct setup *setup, const PGresult *plan)
{
    printf(
        "-- What qfc-worker setup-db would run in the database %s, for psql -v ON_ERROR_STOP=1. Where a lock is not\n"
        "-- had in time, run it again.\n%s\n",
        PQdb(setup->connection), qfc_setup_session);
    for (int row = 0; row < PQntuples(plan); row++) {
        const char *sql = qfc_pg_text(plan, row, "sql");
        printf("\n-- %s%s\n", sql ? "" : "already there: ", qfc_pg_text(plan, row, "what"));
        if (sql)
            printf("%s\n", sql);
    }
    if (PQntuples(plan) == 0)
        printf("\n-- nothing of qfc-worker's is there\n");
}

/* The first row that has something to be done or waited for, or -1. */
static int next_row(const PGresult *plan)
{
    for (int row = 0; row < PQntuples(plan); row++)
        if (qfc_pg_text(plan, row, "sql") || qfc_pg_text(plan, row, "waits"))
            return row;
    return -1;
}

static void print_said(void *userdata, const char *what, const char *outcome)
{
    printf("%-14s%s\n", outcome, what);
    fflush(stdout); /* the next one may take long */
}

static void say_what_is_there(const struct setup *setup, const PGresult *plan)
{
    for (int row = 0; row < PQntuples(plan); row++)
        if (!qfc_pg_text(plan, row, "sql") && !qfc_pg_text(plan, row, "waits"))
            setup->said(setup->userdata, qfc_pg_text(plan, row, "what"), "already there");
}

static void pause_before(unsigned try)
{
    unsigned pause_ms = PAUSE_MIN_MS << (try - 1);
    if (pause_ms > PAUSE_MAX_MS)
        pause_ms = PAUSE_MAX_MS;
    pause_ms -= qfc_random(pause_ms / 4);
    const struct timespec pause = {.tv_sec = pause_ms / 1000, .tv_nsec = (long)(pause_ms % 1000) * 1000000};
    nanosleep(&pause, NULL);
}

/* Somebody was in the way, or has just done the same: then the next plan tells. */
static bool is_passing(const struct qfc_error *error)
{
    static const char *const states[] = {
        "23505", /* unique_violation: two make the same at the same moment */
        "2BP01", /* dependent_objects_still_exist: somebody makes what we take away */
        "42P07", /* duplicate_table, which an index is, too */
        "42710", /* duplicate_object */
        "42704", /* undefined_object: somebody else has taken it away */
        "42883", /* undefined_function: likewise */
        "XX000", /* "tuple concurrently updated" */
    };
    for (size_t i = 0; i < sizeof states / sizeof *states; i++)
        if (strcmp(error->sqlstate, states[i]) == 0)
            return true;
    return error->kind == QFC_ERROR_AGAIN;
}

/* Does what a row says. */
static int carry_out(const struct setup *setup, const PGresult *plan, int row, struct qfc_error *error)
{
    const char *waits = qfc_pg_text(plan, row, "waits");
    const char *refusal = qfc_pg_text(plan, row, "refusal");
    if (refusal)
        return qfc_fail(error, QFC_ERROR_REFUSED, 0, "%s", refusal);
    if (waits)
        return qfc_fail(error, QFC_ERROR_AGAIN, 0, "%s", waits);
    return database_run(setup->connection, qfc_pg_text(plan, row, "sql"), error);
}

static int give_up(const char *what, struct qfc_error *error)
{
    if (strcmp(error->sqlstate, "42501") == 0) /* insufficient_privilege */
        qfc_context(error, "this needs the role that owns QFieldCloud's tables");
    if (error->kind == QFC_ERROR_AGAIN)
        qfc_context(error, "given up after %d tries, run it again when less is going on", TRIES);
    return qfc_context(error, "%s", what);
}

/* How far it has come. */
struct progress {
    char last[WHAT_MAX_SIZE]; /* what was done last; "" at first */
    unsigned tries;           /* at the next one */
    bool done;
};

/* One step: the first thing of a new plan. Returns 0 also where it is to be tried again. */
static int step(const struct setup *setup, const PGresult *plan, struct progress *progress, struct qfc_error *error)
{
    int row = next_row(plan);
    progress->done = row < 0;
    if (progress->done)
        return 0;
    const char *what = qfc_pg_text(plan, row, "what");
    if (strcmp(progress->last, what) == 0)
        return qfc_fail(error, QFC_ERROR_REFUSED, 0,
                        "%s: was done, and is not as it should be: something else has that name, or undoes it", what);
    if (carry_out(setup, plan, row, error) < 0) {
        if (!is_passing(error) || ++progress->tries == TRIES)
            return give_up(what, error);
        pause_before(progress->tries);
        return 0;
    }
    progress->tries = 0;
    snprintf(progress->last, sizeof progress->last, "%s", what);
    bool removed = setup->wish.undo || strncmp(what, "unfinished ", 11) == 0;
    setup->said(setup->userdata, what, removed ? "removed" : "made");
    return 0;
}

/* Looks and does the next thing until nothing is left to be done. */
static int carry_out_all(const struct setup *setup, struct qfc_error *error)
{
    struct progress progress = {0};
    int r = database_run(setup->connection, qfc_setup_session, error);
    for (bool first = true; r == 0 && !progress.done; first = false) {
        PGresult *plan;
        if (look(setup, &plan, error) < 0)
            return -1;
        if (first)
            say_what_is_there(setup, plan);
        r = step(setup, plan, &progress, error);
        PQclear(plan);
    }
    if (r == 0 && setup->wish.undo && !*progress.last)
        printf("nothing of qfc-worker's is there\n");
    return r;
}

int setup_db_plan(PGconn *connection, bool index, PGresult **ret_plan, struct qfc_error *error)
{
    struct setup setup = {.connection = connection, .wish.index = index};
    int r = prepare(&setup, error);
    if (r == 0)
        r = look(&setup, ret_plan, error);
    qfc_statements_free(&setup.look);
    return r;
}

int setup_db_install(PGconn *connection, setup_db_said *said, void *userdata, struct qfc_error *error)
{
    struct setup setup = {.connection = connection, .said = said, .userdata = userdata};
    int r = prepare(&setup, error);
    if (r == 0)
        r = carry_out_all(&setup, error);
    qfc_statements_free(&setup.look);
    return r;
}

static int print_all(const struct setup *setup, struct qfc_error *error)
{
    PGresult *plan;
    if (look(setup, &plan, error) < 0)
        return -1;
    print_plan(setup, plan);
    PQclear(plan);
    return 0;
}

static int run(const struct command *command, int argc, char **argv)
{
    struct setup setup = {.said = print_said};
    struct qfc_settings settings;
    struct qfc_error error = QFC_NO_ERROR;
    int code = parse(command, argc, argv, &setup);
    if (code == QFC_EXIT_OK)
        code = read_settings(&settings);
    if (code != QFC_EXIT_OK)
        return code;
    int r = database_open(&settings, "qfc-worker setup-db", &setup.connection, &error);
    qfc_settings_free(&settings);
    if (r == 0)
        r = prepare(&setup, &error);
    if (r == 0)
        r = setup.print ? print_all(&setup, &error) : carry_out_all(&setup, &error);
    PQfinish(setup.connection);
    qfc_statements_free(&setup.look);
    return r < 0 ? failed(&error) : QFC_EXIT_OK;
}

static const struct option_info options[] = {
    {"index", NULL, "also make two small indexes, for a table of jobs with a long history"},
    {"undo", NULL, "take away all that setup-db has ever made"},
    {"print", NULL, "print the SQL and change nothing"},
    {0},
};

const struct command command_setup_db = {
    .name = "setup-db",
    .operands = "",
    .summary = "let the database tell workers of new jobs at once; optional, safe to repeat and under traffic",
    .more = "",
    .options = options,
    .run = run,
};
