/*
 * A table for a terminal: columns as wide as what stands in them, and one that gives way where the line would be longer
 * than the terminal. Texts from outside are made harmless as they are put in. A character is taken for one column wide.
 */
#pragma once

#include "qfc/buffer.h"

#include <stdbool.h>
#include <stddef.h>

#define TABLE_COLUMNS 12
#define TABLE_CELL    160 /* bytes; longer texts are cut */

struct table {
    const char *const *heads; /* null-ended */
    const char *right;        /* for each column 'r', or anything else for those that begin at the left */
    size_t gives_way;         /* number of the column that is cut to fit */
    char (*cells)[TABLE_CELL];
    size_t count, room;
    bool failed; /* out of memory: what is missing is not printed */
};

/* Adds a cell; so many as there are columns make a row. A null text is "-". */
void table_cell(struct table *table, const char *text);
void table_format(struct table *table, const char *format, ...) __attribute__((format(printf, 2, 3)));

size_t table_rows(const struct table *table);

/* The heads and the first `rows` rows, each a line of at most `width` columns (0: no limit). Returns 0 or -1. */
int table_print(const struct table *table, size_t rows, size_t width, struct qfc_buffer *out);
void table_free(struct table *table);

/* How many columns of a terminal a text takes, and its first bytes that take at most `columns`. */
size_t text_columns(const char *text);
size_t text_fitting(const char *text, size_t columns);
