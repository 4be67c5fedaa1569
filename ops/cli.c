/*
 * The command line: which command is meant, and what the program says of itself.
 */
#include "qfc/cli.h"

#include "command.h"
#include "ops_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char intro[] =
    "qfc-worker runs the jobs of a QFieldCloud: it takes pending jobs out of PostgreSQL and runs each in a QGIS\n"
    "container.\n"
    "\n"
    "Usage:\n"
    "  qfc-worker COMMAND [OPTION ...]\n"
    "  qfc-worker COMMAND --help\n"
    "  qfc-worker --help | --version\n"
    "\n"
    "Commands:\n";

const char exit_codes[] =
    "  0  ended as asked; jobs that failed are told of in their rows and in the log\n"
    "  1  the worker itself is at fault\n"
    "  2  a wrong command line or setting\n"
    "  3  the database or, where a command needs it, the engine could not be reached; `run` without --single-shot and\n"
    "     --drain waits for them instead\n";

static const char settings_heading[] =
    "\n"
    "Settings (environment variables; an empty one counts as not set; a value that is never shown may stand in a file\n"
    "instead, which NAME_FILE names):\n";

void print_help(void)
{
    size_t count;
    const struct qfc_setting_info *infos = qfc_settings_table(&count);
    fputs(intro, stdout);
    for (const struct command *const *command = commands; *command; command++)
        printf("  %-14s  %s\n", (*command)->name, (*command)->summary);
    printf("\nExit codes:\n%s%s", exit_codes, settings_heading);
    for (size_t i = 0; i < count; i++) {
        printf("  %s\n      %s", infos[i].name, infos[i].meaning);
        if (*infos[i].fallback)
            printf(" Default: %s.", infos[i].fallback);
        printf("\n");
    }
}

int wrong(const char *problem, const char *what)
{
    fprintf(stderr, "qfc-worker: %s%s%s\nTry: qfc-worker --help\n", problem, what ? ": " : "", what ? what : "");
    return QFC_EXIT_USAGE;
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

int failed(const struct qfc_error *error)
{
    fprintf(stderr, "qfc-worker: %s\n", error->message);
    switch (error->kind) {
    case QFC_ERROR_USAGE:
        return QFC_EXIT_USAGE;
    case QFC_ERROR_UNREACHABLE:
        return QFC_EXIT_UNREACHABLE;
    default:
        return QFC_EXIT_FAULT;
    }
}

/* The first word of commands of two: "jobs". */
static bool is_group(const char *word)
{
    size_t length = strlen(word);
    for (const struct command *const *command = commands; *command; command++)
        if (strncmp((*command)->name, word, length) == 0 && (*command)->name[length] == ' ')
            return true;
    return false;
}

static int no_such_command(int argc, char **argv)
{
    char both[128];
    if (!is_group(argv[0]))
        return wrong("no such command", argv[0]);
    if (argc < 2)
        return wrong("this command needs another word; --help lists them", argv[0]);
    snprintf(both, sizeof both, "%s %s", argv[0], argv[1]);
    return wrong("no such command", both);
}

static bool asks_for_help(int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return true;
    return false;
}

int qfc_cli(int argc, char **argv)
{
    const char *word = argc > 1 ? argv[1] : NULL;
    int words;
    if (!word)
        return wrong("no command given", NULL);
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || strcmp(word, "help") == 0) {
        print_help();
        return QFC_EXIT_OK;
    }
    if (strcmp(word, "--version") == 0) {
        printf("qfc-worker %s\n", QFC_VERSION);
        return QFC_EXIT_OK;
    }
    const struct command *command = find_command(argc - 1, argv + 1, &words);
    if (!command)
        return no_such_command(argc - 1, argv + 1);
    if (asks_for_help(argc - words, argv + words)) {
        print_command_help(command);
        return QFC_EXIT_OK;
    }
    return command->run(command, argc - words, argv + words);
}
