/*
 * `qfc-worker settings` and `qfc-worker lifecycle`: the program's own tables as Markdown, which the documents hold.
 */
#include "command.h"
#include "ops_private.h"

#include <stdio.h>

/* They take nothing. */
static int parse(const struct command *command, int argc, char **argv)
{
    struct arguments arguments = {.command = command, .argc = argc, .argv = argv};
    const char *name, *value;
    return next_option(&arguments, &name, &value) == ARGUMENT_END ? QFC_EXIT_OK : QFC_EXIT_USAGE;
}

static int print_settings(const struct command *command, int argc, char **argv)
{
    int code = parse(command, argc, argv);
    size_t count;
    const struct qfc_setting_info *infos = qfc_settings_table(&count);
    if (code != QFC_EXIT_OK)
        return code;
    printf("| setting | default | meaning |\n|---|---|---|\n");
    for (size_t i = 0; i < count; i++) {
        const char *tick = *infos[i].fallback ? "`" : "";
        printf("| `%s` | %s%s%s | %s |\n", infos[i].name, tick, infos[i].fallback, tick, infos[i].meaning);
    }
    return QFC_EXIT_OK;
}

static int print_lifecycle(const struct command *command, int argc, char **argv)
{
    int code = parse(command, argc, argv);
    if (code == QFC_EXIT_OK)
        qfc_lifecycle_print(stdout);
    return code;
}

const struct command command_settings = {
    .name = "settings",
    .operands = "",
    .summary = "print the table of all settings",
    .more = "",
    .run = print_settings,
};

const struct command command_lifecycle = {
    .name = "lifecycle",
    .operands = "",
    .summary = "print what happens to a job in each step on each event",
    .more = "",
    .run = print_lifecycle,
};
