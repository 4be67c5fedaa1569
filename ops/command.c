/*
 * Commands as data: finding one, reading its arguments, showing it.
 */
#include "command.h"

#include "ops_private.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

static int words_of(const char *name)
{
    return strchr(name, ' ') ? 2 : 1;
}

const struct command *find_command(int argc, char **argv, int *ret_words)
{
    char both[64];
    snprintf(both, sizeof both, "%s %s", argv[0], argc > 1 ? argv[1] : "");
    for (const struct command *const *command = commands; *command; command++) {
        int words = words_of((*command)->name);
        if (strcmp((*command)->name, words == 2 ? both : argv[0]) == 0) {
            *ret_words = words;
            return *command;
        }
    }
    return NULL;
}

static const struct option_info *find_option(const struct command *command, const char *name, size_t length)
{
    for (const struct option_info *option = command->options; option && option->name; option++)
        if (strlen(option->name) == length && strncmp(option->name, name, length) == 0)
            return option;
    return NULL;
}

/* "f" of "-f": of options without a value. */
static const struct option_info *find_letter(const struct command *command, const char *letter)
{
    for (const struct option_info *option = command->options; option && option->name; option++)
        if (option->letter && option->letter == letter[0] && !letter[1])
            return option;
    return NULL;
}

/* May the value be left out, as it is here? Such a value is a number. */
static bool is_left_out(const struct option_info *option, const struct arguments *arguments)
{
    return option->value[0] == '[' &&
           (arguments->read + 1 >= arguments->argc || !isdigit((unsigned char)*arguments->argv[arguments->read + 1]));
}

/* The command's name between two halves of what is wrong. */
static enum argument wrong_argument(const char *before, const struct command *command, const char *after,
                                    const char *what)
{
    char text[128];
    snprintf(text, sizeof text, "%s%s%s", before, command->name, after);
    wrong(text, what);
    return ARGUMENT_WRONG;
}

static enum argument read_option(struct arguments *arguments, char *text, const char **ret_name, const char **ret_value)
{
    const struct command *command = arguments->command;
    const char *equals = strchr(text, '=');
    const struct option_info *option =
        text[1] == '-' ? find_option(command, text + 2, equals ? (size_t)(equals - text - 2) : strlen(text + 2))
                       : find_letter(command, text + 1);
    if (!option)
        return wrong_argument("no such option of ", command, "", text);
    *ret_name = option->name;
    *ret_value = equals ? equals + 1 : NULL;
    if (!option->value && equals)
        return wrong_argument("this option of ", command, " takes no value", text);
    if (option->value && !equals && !is_left_out(option, arguments)) {
        if (arguments->read + 1 >= arguments->argc) {
            wrong("this option needs a value", text);
            return ARGUMENT_WRONG;
        }
        *ret_value = arguments->argv[++arguments->read];
    }
    return ARGUMENT_OPTION;
}

enum argument next_argument(struct arguments *arguments, const char **ret_name, const char **ret_value)
{
    if (++arguments->read >= arguments->argc)
        return ARGUMENT_END;
    char *text = arguments->argv[arguments->read];
    if (!arguments->only_operands && strcmp(text, "--") == 0) {
        arguments->only_operands = true;
        return next_argument(arguments, ret_name, ret_value);
    }
    if (!arguments->only_operands && text[0] == '-' && text[1])
        return read_option(arguments, text, ret_name, ret_value);
    *ret_value = text;
    return ARGUMENT_OPERAND;
}

enum argument next_option(struct arguments *arguments, const char **ret_name, const char **ret_value)
{
    enum argument next = next_argument(arguments, ret_name, ret_value);
    return next == ARGUMENT_OPERAND ? wrong_argument("", arguments->command, " takes no such argument", *ret_value)
                                    : next;
}

void print_command_help(const struct command *command)
{
    bool options = command->options && command->options->name;
    printf("Usage: qfc-worker %s%s%s%s\n\n%s.\n", command->name, options ? " [OPTION ...]" : "",
           *command->operands ? " " : "", command->operands, command->summary);
    if (*command->more)
        printf("\n%s", command->more);
    if (options)
        printf("\nOptions:\n");
    for (const struct option_info *option = command->options; options && option->name; option++)
        printf("  %s%.1s%s--%s%s%s\n      %s\n", option->letter ? "-" : "", &option->letter, option->letter ? ", " : "",
               option->name, option->value ? " " : "", option->value ? option->value : "", option->meaning);
}
