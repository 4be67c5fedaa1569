/*
 * The command line: what it takes, and what it says of itself.
 */
#include "qfc/cli.h"

#include "ops_private.h"
#include "qfc/log.h"

#include <errno.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "qfc-worker runs the jobs of a QFieldCloud: it takes pending jobs out of PostgreSQL and runs each in a QGIS\n"
    "container.\n"
    "\n"
    "Usage:\n"
    "  qfc-worker run [--single-shot | --drain] [--concurrency N] [--stop leave|drain]\n"
    "  qfc-worker setup-db [--index] [--undo] [--print]\n"
    "  qfc-worker settings\n"
    "  qfc-worker lifecycle\n"
    "  qfc-worker --help | --version\n"
    "\n"
    "Commands:\n"
    "  run             take jobs until SIGTERM or SIGINT. Jobs that do not end soon then are left running, for the\n"
    "                  next worker on this engine to take over; a second signal, or SIGQUIT, leaves at once\n"
    "  setup-db        let the database tell workers of new jobs at once; optional, safe to repeat and under traffic\n"
    "  settings        print the table of all settings\n"
    "  lifecycle       print what happens to a job in each step on each event\n"
    "\n"
    "Options of run:\n"
    "  --single-shot   run at most one job, then end\n"
    "  --drain         run until nothing is pending, then end\n"
    "  --concurrency N run up to N jobs at the same time (1 to 256)\n"
    "  --stop drain    wait for all running jobs when told to stop: before QFieldCloud's own worker takes over, which\n"
    "                  takes over no jobs\n"
    "\n"
    "Options of setup-db:\n"
    "  --index         also make two small indexes, for a table of jobs with a long history\n"
    "  --undo          take away all that setup-db has ever made\n"
    "  --print         print the SQL and change nothing\n"
    "\n"
    "Exit codes:\n"
    "  0  ended as asked; jobs that failed are told of in their rows and in the log\n"
    "  1  the worker itself is at fault\n"
    "  2  a wrong command line or setting\n"
    "  3  --single-shot, --drain: the database or the engine could not be reached at first; setup-db: the database\n"
    "\n"
    "Settings (environment variables; an empty one counts as not set):\n";

void print_help(void)
{
    size_t count;
    const struct qfc_setting_info *infos = qfc_settings_table(&count);
    fputs(usage, stdout);
    for (size_t i = 0; i < count; i++) {
        printf("  %s\n      %s", infos[i].name, infos[i].meaning);
        if (*infos[i].fallback)
            printf(" Default: %s.", infos[i].fallback);
        printf("\n");
    }
}

/* As Markdown: the README's table. */
static void print_settings(void)
{
    size_t count;
    const struct qfc_setting_info *infos = qfc_settings_table(&count);
    printf("| setting | default | meaning |\n|---|---|---|\n");
    for (size_t i = 0; i < count; i++) {
        const char *tick = *infos[i].fallback ? "`" : "";
        printf("| `%s` | %s%s%s | %s |\n", infos[i].name, tick, infos[i].fallback, tick, infos[i].meaning);
    }
}

int wrong(const char *problem, const char *what)
{
    fprintf(stderr, "qfc-worker: %s%s%s\nTry: qfc-worker --help\n", problem, what ? ": " : "", what ? what : "");
    return QFC_EXIT_USAGE;
}

/* What `run` was asked for. */
struct request {
    enum qfc_worker_mode mode;
    long concurrency; /* 0: as the settings say */
    long stop;        /* enum qfc_stop, or -1: as the settings say */
};

static int parse_run(int argc, char **argv, struct request *request)
{
    static const struct option options[] = {
        {"single-shot", no_argument, NULL, 's'},
        {"drain", no_argument, NULL, 'd'},
        {"concurrency", required_argument, NULL, 'c'},
        {"stop", required_argument, NULL, 'p'},
        {NULL, 0, NULL, 0},
    };
    opterr = 0;
    for (int option; (option = getopt_long(argc, argv, ":", options, NULL)) != -1;) {
        char *end;
        enum qfc_worker_mode mode = option == 's' ? QFC_WORKER_SINGLE_SHOT : QFC_WORKER_DRAIN;
        switch (option) {
        case 's':
        case 'd':
            if (request->mode != QFC_WORKER_RUN && request->mode != mode)
                return wrong("--single-shot and --drain exclude each other", NULL);
            request->mode = mode;
            break;
        case 'c':
            request->concurrency = strtol(optarg, &end, 10);
            if (*end || end == optarg || request->concurrency < 1 || request->concurrency > 256)
                return wrong("--concurrency: expected a whole number from 1 to 256", optarg);
            break;
        case 'p':
            request->stop = strcmp(optarg, "drain") == 0 ? QFC_STOP_DRAIN : QFC_STOP_LEAVE;
            if (request->stop == QFC_STOP_LEAVE && strcmp(optarg, "leave") != 0)
                return wrong("--stop: expected leave or drain", optarg);
            break;
        case ':':
            return wrong("this option needs a value", argv[optind - 1]);
        default:
            return wrong("no such option of run", argv[optind - 1]);
        }
    }
    return optind < argc ? wrong("run takes no such argument", argv[optind]) : 0;
}

static const char *environment(const char *name)
{
    return getenv(name);
}

int read_settings(struct qfc_settings *ret_settings)
{
    struct qfc_error error = QFC_NO_ERROR;
    return qfc_settings_read(environment, ret_settings, &error) < 0 ? failed(&error) : QFC_EXIT_OK;
}

static int run(int argc, char **argv)
{
    struct request request = {.mode = QFC_WORKER_RUN, .stop = -1};
    struct qfc_settings settings;
    int r = parse_run(argc, argv, &request);
    if (r == QFC_EXIT_OK)
        r = read_settings(&settings);
    if (r != QFC_EXIT_OK)
        return r;
    if (request.concurrency > 0)
        settings.concurrency = request.concurrency;
    if (request.stop >= 0)
        settings.stop = request.stop;
    qfc_log_configure((enum qfc_log_format)settings.log_format, (enum qfc_log_level)settings.log_level);
    r = (int)qfc_worker_main(&settings, request.mode);
    qfc_settings_free(&settings);
    return r;
}

int qfc_cli(int argc, char **argv)
{
    const char *command = argc > 1 ? argv[1] : NULL;
    if (!command)
        return wrong("no command given", NULL);
    if (strcmp(command, "--help") == 0 || strcmp(command, "-h") == 0 || strcmp(command, "help") == 0)
        print_help();
    else if (strcmp(command, "--version") == 0)
        printf("qfc-worker %s\n", QFC_VERSION);
    else if (strcmp(command, "settings") == 0)
        print_settings();
    else if (strcmp(command, "lifecycle") == 0)
        qfc_lifecycle_print(stdout);
    else if (strcmp(command, "run") == 0)
        return run(argc - 1, argv + 1);
    else if (strcmp(command, "setup-db") == 0)
        return command_setup_db(argc - 1, argv + 1);
    else
        return wrong("no such command", command);
    return QFC_EXIT_OK;
}
