/*
 * `qfc-worker manual` and `qfc-worker completion`: the manual pages and what shells complete, made of the same tables
 * as --help. They are made when the program is built, and installed with it.
 */
#include "command.h"
#include "ops_private.h"

#include <stdio.h>
#include <string.h>

/* Text for roff: backslashes, and dots and apostrophes at the beginning of a line, mean something there; a dash that is
 * to be typed is \-. */
static void print_roff(const char *text)
{
    bool line_start = true;
    for (; *text; text++) {
        if (line_start && (*text == '.' || *text == '\''))
            fputs("\\&", stdout);
        if (*text == '\\')
            fputs("\\e", stdout);
        else if (*text == '-')
            fputs("\\-", stdout);
        else
            putchar(*text);
        line_start = *text == '\n';
    }
}

/* One sentence of a table, with a capital letter and a full stop. */
static void print_sentence(const char *text)
{
    char first[2] = {*text >= 'a' && *text <= 'z' ? (char)(*text - 'a' + 'A') : *text, '\0'};
    print_roff(first);
    print_roff(text + 1);
    if (text[strlen(text) - 1] != '.')
        putchar('.');
    putchar('\n');
}

static void print_heading(const char *section, const char *summary)
{
    printf(".TH QFC\\-WORKER %s \"\" \"qfc\\-worker %s\"\n.SH NAME\nqfc\\-worker \\- ", section, QFC_VERSION);
    print_roff(summary);
    putchar('\n');
}

/* A blank line in the text begins a paragraph. */
static void print_paragraphs(const char *text)
{
    while (*text) {
        size_t length = strcspn(text, "\n");
        char line[256];
        snprintf(line, sizeof line, "%.*s", (int)length, text);
        if (length == 0)
            puts(".PP");
        else if (*line == ' ')
            printf(".br\n");
        print_roff(line);
        if (length > 0)
            putchar('\n');
        text += length + (text[length] == '\n');
    }
}

static void print_option(const struct option_info *option)
{
    fputs(".TP\n.B ", stdout);
    if (option->letter)
        printf("\\-%c\\fR, \\fB", option->letter);
    print_roff("--");
    print_roff(option->name);
    if (option->value)
        printf("\\fR \\fI%s", option->value);
    fputs("\\fR\n", stdout);
    print_sentence(option->meaning);
}

static void print_command(const struct command *command)
{
    printf(".SS qfc\\-worker ");
    print_roff(command->name);
    if (command->options && command->options->name)
        fputs(" [OPTION ...]", stdout);
    if (*command->operands) {
        putchar(' ');
        print_roff(command->operands);
    }
    putchar('\n');
    print_sentence(command->summary);
    if (*command->more) {
        puts(".PP");
        print_paragraphs(command->more);
    }
    for (const struct option_info *option = command->options; option && option->name; option++)
        print_option(option);
}

static void print_manual_of_commands(void)
{
    print_heading("1", "runs the jobs of a QFieldCloud");
    puts(".SH SYNOPSIS\n.B qfc\\-worker\n.I COMMAND\n[OPTION ...]\n.br\n.B qfc\\-worker\n.I COMMAND\n.B \\-\\-help\n"
         ".SH DESCRIPTION\nTakes pending jobs of a QFieldCloud out of its PostgreSQL database, runs each in a QGIS\n"
         "container, and writes the outcome back. Settings are environment variables: see\n.BR qfc\\-worker (5).\n"
         ".SH COMMANDS");
    for (const struct command *const *command = commands; *command; command++)
        print_command(*command);
    puts(".SH EXIT STATUS");
    print_paragraphs(exit_codes);
    puts(".SH SEE ALSO\n.BR qfc\\-worker (5)");
}

static void print_manual_of_settings(void)
{
    size_t count;
    const struct qfc_setting_info *infos = qfc_settings_table(&count);
    print_heading("5", "settings of qfc-worker");
    puts(".SH DESCRIPTION\n.BR qfc\\-worker (1)\nreads its settings from environment variables. An empty one counts as "
         "not set. The value of one that is never shown may stand in a file instead, which the variable with _FILE\n"
         "behind its name says.\n.SH SETTINGS");
    for (size_t i = 0; i < count; i++) {
        printf(".TP\n.B %s\n", infos[i].name);
        print_sentence(infos[i].meaning);
        if (*infos[i].fallback) {
            fputs("Default: ", stdout);
            print_roff(infos[i].fallback);
            puts(".");
        }
    }
    puts(".SH SEE ALSO\n.BR qfc\\-worker (1)");
}

/* The next argument, which must be the only one, or null where something is wrong. */
static const char *only_operand(const struct command *command, int argc, char **argv)
{
    struct arguments arguments = {.command = command, .argc = argc, .argv = argv};
    const char *name, *value, *more;
    enum argument next = next_argument(&arguments, &name, &value);
    if (next == ARGUMENT_OPERAND)
        return next_option(&arguments, &name, &more) == ARGUMENT_END ? value : NULL;
    if (next == ARGUMENT_END)
        wrong("this command needs an argument", command->name);
    return NULL;
}

static int print_manual(const struct command *command, int argc, char **argv)
{
    const char *section = only_operand(command, argc, argv);
    if (!section)
        return QFC_EXIT_USAGE;
    if (strcmp(section, "1") == 0)
        print_manual_of_commands();
    else if (strcmp(section, "5") == 0)
        print_manual_of_settings();
    else
        return wrong("there is no such section of the manual, only 1 and 5", section);
    return QFC_EXIT_OK;
}

/* Completion. `words` of two-word commands are completed one after the other. */

static void print_options(const struct command *command)
{
    for (const struct option_info *option = command->options; option && option->name; option++)
        printf(" --%s", option->name);
    printf(" --help");
}

/* Each first word once, in the table's order. */
static bool is_first_of_its_word(const struct command *const *command)
{
    size_t length = strcspn((*command)->name, " ");
    for (const struct command *const *earlier = commands; earlier < command; earlier++)
        if (strncmp((*earlier)->name, (*command)->name, length + 1) == 0 && (*command)->name[length])
            return false;
    return true;
}

static void print_first_words(void)
{
    for (const struct command *const *command = commands; *command; command++)
        if (is_first_of_its_word(command))
            printf(" %.*s", (int)strcspn((*command)->name, " "), (*command)->name);
}

static void print_second_words(const char *first, size_t length)
{
    for (const struct command *const *command = commands; *command; command++)
        if (strncmp((*command)->name, first, length) == 0 && (*command)->name[length] == ' ')
            printf(" %s", (*command)->name + length + 1);
}

static void print_bash(void)
{
    puts("# bash completion of qfc-worker\n_qfc_worker() {\n    local words\n    COMPREPLY=()\n"
         "    case \"${COMP_WORDS[1]} ${COMP_WORDS[2]}\" in");
    for (const struct command *const *command = commands; *command; command++) {
        bool two = strchr((*command)->name, ' ');
        printf("    \"%s%s) words=\"", (*command)->name, two ? "\"" : " \"*");
        print_options(*command);
        printf("\"; [ \"$COMP_CWORD\" -gt %d ] || words= ;;\n", two ? 2 : 1);
    }
    puts("    esac\n    if [ \"$COMP_CWORD\" = 1 ]; then");
    fputs("        words=\"", stdout);
    print_first_words();
    puts(" --help --version\"\n    elif [ \"$COMP_CWORD\" = 2 ]; then\n        case \"${COMP_WORDS[1]}\" in");
    for (const struct command *const *command = commands; *command; command++) {
        size_t length = strcspn((*command)->name, " ");
        if (!(*command)->name[length] || !is_first_of_its_word(command))
            continue;
        printf("        %.*s) words=\"", (int)length, (*command)->name);
        print_second_words((*command)->name, length);
        puts("\" ;;");
    }
    puts("        esac\n    fi\n    # shellcheck disable=SC2207 # no word has a blank in it\n"
         "    COMPREPLY=($(compgen -W \"$words\" -- \"${COMP_WORDS[COMP_CWORD]}\"))\n"
         "}\ncomplete -F _qfc_worker qfc-worker");
}

/* In single quotes for a shell. */
static void print_quoted(const char *text)
{
    putchar('\'');
    for (; *text; text++) {
        if (*text == '\'')
            fputs("'\\''", stdout);
        else
            putchar(*text);
    }
    putchar('\'');
}

static void print_zsh(void)
{
    puts("#compdef qfc-worker\n# zsh completion of qfc-worker: by bash's, which is made of the same table\n"
         "autoload -U +X bashcompinit && bashcompinit");
    print_bash();
}

static void print_fish_condition(const char *name)
{
    size_t length = strcspn(name, " ");
    printf("complete -c qfc-worker -n '__fish_seen_subcommand_from %.*s", (int)length, name);
    if (name[length])
        printf("; and __fish_seen_subcommand_from %s", name + length + 1);
    putchar('\'');
}

static void print_fish(void)
{
    puts("# fish completion of qfc-worker\ncomplete -c qfc-worker -f");
    for (const struct command *const *command = commands; *command; command++) {
        size_t length = strcspn((*command)->name, " ");
        if ((*command)->name[length]) {
            printf("complete -c qfc-worker -n '__fish_seen_subcommand_from %.*s' -a %s -d ", (int)length,
                   (*command)->name, (*command)->name + length + 1);
            print_quoted((*command)->summary);
            putchar('\n');
        }
        if (is_first_of_its_word(command)) {
            printf("complete -c qfc-worker -n __fish_use_subcommand -a %.*s", (int)length, (*command)->name);
            if (!(*command)->name[length]) {
                fputs(" -d ", stdout);
                print_quoted((*command)->summary);
            }
            putchar('\n');
        }
        for (const struct option_info *option = (*command)->options; option && option->name; option++) {
            print_fish_condition((*command)->name);
            if (option->letter)
                printf(" -s %c", option->letter);
            printf(" -l %s%s -d ", option->name, option->value && option->value[0] != '[' ? " -x" : "");
            print_quoted(option->meaning);
            putchar('\n');
        }
    }
}

static int print_completion(const struct command *command, int argc, char **argv)
{
    const char *shell = only_operand(command, argc, argv);
    if (!shell)
        return QFC_EXIT_USAGE;
    if (strcmp(shell, "bash") == 0)
        print_bash();
    else if (strcmp(shell, "zsh") == 0)
        print_zsh();
    else if (strcmp(shell, "fish") == 0)
        print_fish();
    else
        return wrong("there is no completion for this shell, only for bash, zsh and fish", shell);
    return QFC_EXIT_OK;
}

const struct command command_manual = {
    .name = "manual",
    .operands = "1|5",
    .summary = "print a page of the manual, 1 about commands or 5 about settings, for man -l",
    .more = "",
    .run = print_manual,
};

const struct command command_completion = {
    .name = "completion",
    .operands = "bash|zsh|fish",
    .summary = "print what the shell needs to complete this program's commands and options",
    .more = "",
    .run = print_completion,
};
