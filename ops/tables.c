/*
 * `qfc-worker settings` and `qfc-worker lifecycle`: the program's own tables as Markdown, which the documents hold.
 */
#include "command.h"
#include "ops_private.h"

#include <stdio.h>

static void print_markdown(const struct qfc_setting_info *infos, size_t count)
{
    printf("| setting | default | meaning |\n|---|---|---|\n");
    for (size_t i = 0; i < count; i++) {
        const char *tick = *infos[i].fallback ? "`" : "";
        printf("| `%s` | %s%s%s | %s |\n", infos[i].name, tick, infos[i].fallback, tick, infos[i].meaning);
    }
}

/* As a file for compose's --env-file and systemd's EnvironmentFile. */
static void print_env(const struct qfc_setting_info *infos, size_t count)
{
    printf(
        "# Settings of qfc-worker: take away the # before those that are to differ from what they are here, which is\n"
        "# their default. Those without a value have none, or one that their sentence tells.\n");
    for (size_t i = 0; i < count; i++)
        printf("\n# %s\n#%s=%s\n", infos[i].meaning, infos[i].name, infos[i].fallback);
}

static int print_settings(const struct command *command, int argc, char **argv)
{
    struct arguments arguments = {.command = command, .argc = argc, .argv = argv};
    const char *name, *value;
    bool env = false;
    enum argument next;
    while ((next = next_option(&arguments, &name, &value)) == ARGUMENT_OPTION)
        env = true;
    if (next != ARGUMENT_END)
        return QFC_EXIT_USAGE;
    size_t count;
    const struct qfc_setting_info *infos = qfc_settings_table(&count);
    (env ? print_env : print_markdown)(infos, count);
    return QFC_EXIT_OK;
}

/* Takes nothing. */
static int parse(const struct command *command, int argc, char **argv)
{
    struct arguments arguments = {.command = command, .argc = argc, .argv = argv};
    const char *name, *value;
    return next_option(&arguments, &name, &value) == ARGUMENT_END ? QFC_EXIT_OK : QFC_EXIT_USAGE;
}

static int print_lifecycle(const struct command *command, int argc, char **argv)
{
    int code = parse(command, argc, argv);
    if (code == QFC_EXIT_OK)
        qfc_lifecycle_print(stdout);
    return code;
}

static const struct option_info settings_options[] = {
    {"env", NULL, "as a file of NAME=value lines, all of them commented out, instead of a table"},
    {0},
};

const struct command command_settings = {
    .name = "settings",
    .operands = "",
    .summary = "print the table of all settings",
    .more = "",
    .options = settings_options,
    .run = print_settings,
};

const struct command command_lifecycle = {
    .name = "lifecycle",
    .operands = "",
    .summary = "print what happens to a job in each step on each event",
    .more = "",
    .run = print_lifecycle,
};
