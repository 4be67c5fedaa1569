/*
 * What a command is: a row of one table, from which the dispatch, --help, the manual and the shells' completions come.
 * Each command stands in a file of its own and is named in commands.c.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct option_info {
    const char *name;    /* without its dashes: "concurrency"; null ends a list */
    const char *value;   /* what its value is called: "N", "[N]" for a number that may be left out; null: none */
    const char *meaning; /* one sentence in lower case, without a full stop */
    char letter;         /* that it is called by, too: 'f' for "-f"; 0: none */
};

struct command {
    const char *name;     /* "setup-db", or two words: "jobs list" */
    const char *operands; /* "[JOB ...]"; "" for none */
    const char *summary;  /* one sentence in lower case, without a full stop */
    const char *more;     /* for its --help and the manual: paragraphs, each line ended; "" for none */
    const struct option_info *options;
    /* `argv` begins with the command's last word. Returns an exit code. */
    int (*run)(const struct command *command, int argc, char **argv);
};

/* All commands in the order in which they are shown; the list ends with null. */
extern const struct command *const commands[];

/* The command that the arguments name, or null. `ret_words` gets the number of words of its name. */
const struct command *find_command(int argc, char **argv, int *ret_words);

/* Prints what `qfc-worker COMMAND --help` shows. */
void print_command_help(const struct command *command);

/* Reads a command's arguments, one after another. Begin with {.command = ..., .argc = ..., .argv = ...}. */
struct arguments {
    const struct command *command;
    int argc;
    char **argv;
    int read;           /* how many were */
    bool only_operands; /* "--" was read */
};

enum argument {
    ARGUMENT_END,
    ARGUMENT_OPTION,  /* `ret_name` is its name, `ret_value` its value or null */
    ARGUMENT_OPERAND, /* `ret_value` */
    ARGUMENT_WRONG,   /* it was said what is wrong: return QFC_EXIT_USAGE */
};

/* The next one. Options may be given as "--name value" and "--name=value", before and behind operands. The texts belong
 * to argv and to the command's table. */
enum argument next_argument(struct arguments *arguments, const char **ret_name, const char **ret_value);

/* For commands without operands: as next_argument, but an operand is wrong. */
enum argument next_option(struct arguments *arguments, const char **ret_name, const char **ret_value);
