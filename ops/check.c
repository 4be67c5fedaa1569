/*
 * `qfc-worker check`: looks at everything that a job needs, says of each thing whether it is well, and what to type where
 * it is not.
 *
 * Each thing is looked at although another one has failed, unless it cannot be without that. Nothing is changed but with
 * --fix, which mends what is safe to mend, and looks again.
 */
#include "check.h"

#include "command.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXIT_WARNINGS 1
#define EXIT_FAILURES 2

#define WITH_DATABASE (CHECK_SETTINGS | CHECK_DATABASE)
#define WITH_RELEASE  (WITH_DATABASE | CHECK_RELEASE)
#define WITH_ENGINE   (CHECK_SETTINGS | CHECK_ENGINE)

/* clang-format off */

const struct check checks[] = {
    {"settings", "all settings can be used, and none that begins with QFC_WORKER_ is unknown",
     0, 0, CHECK_SETTINGS, check_settings, NULL},
    {"database", "PostgreSQL takes this role, is a primary, and gives each connection a session of its own",
     CHECK_SETTINGS, 0, CHECK_DATABASE, check_database, NULL},
    {"release", "the database is that of a release of QFieldCloud that is known",
     WITH_DATABASE, 0, CHECK_RELEASE, check_release, NULL},
    {"privileges", "the role may do all that a worker does",
     WITH_RELEASE, 0, 0, check_privileges, NULL},
    {"triggers", "the triggers of setup-db are there, and of this version",
     WITH_RELEASE, 0, 0, check_triggers, mend_triggers},
    {"indexes", "the indexes of setup-db are there, or not needed yet",
     WITH_RELEASE, 0, 0, check_indexes, NULL},
    {"engine", "the engine answers, and speaks a version of its API that is known",
     CHECK_SETTINGS, 0, CHECK_ENGINE, check_engine, NULL},
    {"images", "the engine has the QGIS images that this release needs",
     WITH_RELEASE | WITH_ENGINE, 0, 0, check_images, mend_images},
    {"backups", "each of these images has a backup that can be used, where QFC_WORKER_IMAGE_BACKUP_DIR is set",
     WITH_RELEASE | WITH_ENGINE, 0, 0, check_backups, NULL},
    {"network", "the engine has the containers' network",
     WITH_ENGINE, 0, 0, check_network, NULL},
    {"volumes", "the engine has the volumes that containers get",
     WITH_ENGINE, 0, 0, check_volumes, NULL},
    {"url", "QFieldCloud answers a container on that network",
     WITH_RELEASE | WITH_ENGINE, 0, 0, check_url, NULL},
    {"storages", "each object store answers",
     CHECK_SETTINGS, 0, 0, check_storages, NULL},
    {"secrets", "SECRET_KEY and SALT_KEY decrypt what is stored",
     WITH_RELEASE, 0, 0, check_secrets, NULL},
    {"clock", "this clock, the database's and the engine's agree",
     WITH_DATABASE, WITH_ENGINE, 0, check_clock, NULL},
    {"disks", "less than 80 % of the disks that are to be seen are used; 90 % is a failure",
     CHECK_SETTINGS, WITH_ENGINE, 0, check_disks, NULL},
    {"workers", "as many workers are alive as QFIELDCLOUD_WORKER_REPLICAS says, or at least one",
     WITH_RELEASE, WITH_ENGINE, 0, check_workers, NULL},
    {"queue", "what can be run is taken within five minutes",
     WITH_RELEASE, 0, 0, check_queue, NULL},
    {"jobs", "no job has lost its worker",
     WITH_RELEASE, 0, 0, check_jobs, mend_jobs},
    {"queued", "no job was born, or set, `queued` without a worker",
     WITH_RELEASE, 0, 0, check_queued, mend_queued},
    {"projects", "no project has been locked by a file transfer for an hour",
     WITH_RELEASE, 0, 0, check_projects, NULL},
    {"leftovers", "no container is there whose job is over",
     WITH_RELEASE | WITH_ENGINE, 0, 0, check_leftovers, mend_leftovers},
    {0},
};

/* clang-format on */

#define CHECKS (sizeof checks / sizeof *checks - 1)

/* What was asked for. */
struct request {
    bool list, fix, dry_run, json, quiet;
    bool only[CHECKS]; /* of --only */
    bool some;         /* there was --only */
};

/* A sentence, or null without memory. */
static char *sentence(struct look *look, const char *format, va_list arguments)
{
    char *text;
    if (vasprintf(&text, format, arguments) >= 0)
        return text;
    look->out_of_memory = true;
    return NULL;
}

static struct check_result *result_of(struct look *look)
{
    return &look->results[look->check - checks];
}

void check_found(struct look *look, enum check_state state, const char *format, ...)
{
    struct check_result *result = result_of(look);
    va_list arguments;
    va_start(arguments, format);
    char *seen = sentence(look, format, arguments);
    va_end(arguments);
    struct finding *more = realloc(result->findings, (result->count + 1) * sizeof *more);
    if (!more || !seen) {
        look->out_of_memory = true;
        result->findings = more ? more : result->findings;
        free(seen);
        return;
    }
    result->findings = more;
    more[result->count++] = (struct finding){.state = state, .seen = seen};
}

void check_advise(struct look *look, const char *format, ...)
{
    struct check_result *result = result_of(look);
    va_list arguments;
    if (result->count == 0)
        return;
    va_start(arguments, format);
    char *next = sentence(look, format, arguments);
    va_end(arguments);
    free(result->findings[result->count - 1].next);
    result->findings[result->count - 1].next = next;
}

void check_mended(struct look *look, const char *format, ...)
{
    struct check_result *result = result_of(look);
    va_list arguments;
    va_start(arguments, format);
    char *text = sentence(look, format, arguments);
    va_end(arguments);
    char **more = realloc(result->mended, (result->mended_count + 1) * sizeof *more);
    if (!more || !text) {
        look->out_of_memory = true;
        result->mended = more ? more : result->mended;
        free(text);
        return;
    }
    result->mended = more;
    more[result->mended_count++] = text;
}

enum check_state check_state_of(const struct check_result *result)
{
    enum check_state worst = CHECK_OK;
    for (size_t i = 0; i < result->count; i++)
        if (result->findings[i].state > worst)
            worst = result->findings[i].state;
    return worst;
}

static void forget_findings(struct check_result *result)
{
    for (size_t i = 0; i < result->count; i++) {
        free(result->findings[i].seen);
        free(result->findings[i].next);
    }
    free(result->findings);
    result->findings = NULL;
    result->count = 0;
}

static void free_results(struct check_result *results)
{
    for (size_t i = 0; i < CHECKS; i++) {
        forget_findings(&results[i]);
        for (size_t j = 0; j < results[i].mended_count; j++)
            free(results[i].mended[j]);
        free(results[i].mended);
    }
}

/* Why a check cannot be made: the first thing that it lacks. */
static const char *reason(unsigned missing)
{
    return missing & CHECK_SETTINGS   ? "the settings cannot be used"
           : missing & CHECK_DATABASE ? "the database cannot be worked with"
           : missing & CHECK_RELEASE  ? "the release is not known"
                                      : "the engine does not answer";
}

static void look_at(struct look *look, const struct check *check)
{
    struct check_result *result = &look->results[check - checks];
    unsigned missing = check->needs & ~look->has;
    look->check = check;
    forget_findings(result);
    if (missing)
        check_found(look, CHECK_SKIPPED, "not looked at: %s", reason(missing));
    else
        check->find(look);
    if (check_state_of(result) < CHECK_FAILED)
        look->has |= check->gives;
    else
        look->has &= ~check->gives;
}

/* Mends what is not well; returns whether there was anything to be said. */
static bool mend_all(struct look *look, const struct request *request)
{
    bool any = false;
    for (const struct check *check = checks; check->name && !look->turns.interrupted; check++) {
        struct check_result *result = &look->results[check - checks];
        if (!result->asked || !check->mend || (check->needs & ~look->has) || check_state_of(result) == CHECK_OK)
            continue;
        look->check = check;
        check->mend(look);
        any |= result->mended_count > 0;
        if (!request->json)
            check_print_mended(check, result, look->dry_run);
    }
    return any;
}

/* Looks at everything that was asked for; the second time only at what was not well. */
static void look_at_all(struct look *look, const struct request *request, bool again)
{
    check_forget_report(look);
    for (const struct check *check = checks; check->name && !look->turns.interrupted; check++) {
        struct check_result *result = &look->results[check - checks];
        if (!result->asked || (again && check_state_of(result) == CHECK_OK))
            continue;
        look_at(look, check);
        if (!request->json)
            check_print(check, result, request->quiet);
    }
}

/* What --only names, and what that needs. */
static void ask(const struct request *request, struct check_result *results)
{
    unsigned needed = 0;
    for (size_t i = 0; i < CHECKS; i++) {
        results[i].asked = !request->some || request->only[i];
        needed |= results[i].asked ? checks[i].needs | checks[i].wants : 0;
    }
    for (size_t i = 0; i < CHECKS; i++)
        results[i].asked |= (checks[i].gives & needed) != 0;
}

static int take_only(struct request *request, const char *names)
{
    request->some = true;
    while (*names) {
        size_t length = strcspn(names, ","), i = 0;
        while (i < CHECKS && (strlen(checks[i].name) != length || strncmp(checks[i].name, names, length) != 0))
            i++;
        if (i == CHECKS)
            return wrong("--only: no such check; `qfc-worker check --list` names them", names);
        request->only[i] = true;
        names += length + (names[length] == ',');
    }
    return QFC_EXIT_OK;
}

static int parse(const struct command *command, int argc, char **argv, struct request *request)
{
    struct arguments arguments = {.command = command, .argc = argc, .argv = argv};
    const char *name, *value;
    enum argument argument;
    int code = QFC_EXIT_OK;
    while (code == QFC_EXIT_OK && (argument = next_option(&arguments, &name, &value)) == ARGUMENT_OPTION) {
        if (strcmp(name, "only") == 0)
            code = take_only(request, value);
        else if (strcmp(name, "list") == 0)
            request->list = true;
        else if (strcmp(name, "json") == 0)
            request->json = true;
        else if (strcmp(name, "quiet") == 0)
            request->quiet = true;
        else
            request->fix = true; /* --dry-run says what --fix would do */
        request->dry_run |= strcmp(name, "dry-run") == 0;
    }
    return code != QFC_EXIT_OK || argument == ARGUMENT_WRONG ? QFC_EXIT_USAGE : QFC_EXIT_OK;
}

static int exit_code(const struct look *look)
{
    enum check_state worst = CHECK_OK;
    for (size_t i = 0; i < CHECKS; i++)
        if (check_state_of(&look->results[i]) > worst)
            worst = check_state_of(&look->results[i]);
    if (worst >= CHECK_FAILED || look->out_of_memory || look->turns.interrupted)
        return EXIT_FAILURES;
    return worst == CHECK_WARNING ? EXIT_WARNINGS : 0;
}

static int run_checks(struct look *look, const struct request *request)
{
    look_at_all(look, request, false);
    if (request->fix && mend_all(look, request) && !request->dry_run)
        look_at_all(look, request, true);
    if (request->json && check_print_json(look->results, request->quiet, request->dry_run) < 0)
        look->out_of_memory = true;
    if (!request->json && !request->quiet)
        check_print_sum(look->results);
    if (look->out_of_memory)
        fprintf(stderr, "qfc-worker: out of memory\n");
    if (look->turns.interrupted)
        fprintf(stderr, "qfc-worker: interrupted\n");
    return exit_code(look);
}

static int run(const struct command *command, int argc, char **argv)
{
    struct request request = {0};
    struct check_result results[CHECKS] = {0};
    struct look look = {.results = results};
    struct qfc_error error = QFC_NO_ERROR;
    int code = parse(command, argc, argv, &request);
    if (code != QFC_EXIT_OK)
        return code;
    if (request.list) {
        check_print_list();
        return QFC_EXIT_OK;
    }
    if (turns_open(&look.turns, &error) < 0) {
        failed(&error);
        return EXIT_FAILURES;
    }
    look.dry_run = request.dry_run;
    ask(&request, results);
    code = run_checks(&look, &request);
    check_forget_report(&look);
    PQfinish(look.database);
    json_decref(look.engine_info);
    turns_close(&look.turns);
    qfc_settings_free(&look.settings);
    free_results(results);
    return code;
}

static const struct option_info options[] = {
    {"list", NULL, "print a table of the checks"},
    {"only", "NAME[,NAME]", "make these checks, and those that they need"},
    {"quiet", NULL, "print only what is not well"},
    {"json", NULL, "print an array of {name, state, seen, next}"},
    {"fix", NULL, "mend what is safe to mend, say what was done, and look again"},
    {"dry-run", NULL, "say what --fix would do, and change nothing"},
    {0},
};

const struct command command_check = {
    .name = "check",
    .operands = "",
    .summary = "look at everything that jobs need, and say what to do where something is wrong",
    .more = "Exit codes: 0 all is well, 1 there are warnings, 2 something has failed, or the command line is wrong.\n",
    .options = options,
    .run = run,
};
