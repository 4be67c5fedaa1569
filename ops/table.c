/*
 * A table for a terminal: see table.h.
 */
#include "table.h"

#include "qfc/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GAP       2 /* blanks between two columns */
#define NARROWEST 8 /* of the column that gives way */

static bool is_continuation(char byte)
{
    return ((unsigned char)byte & 0xC0) == 0x80;
}

size_t text_columns(const char *text)
{
    size_t columns = 0;
    for (; *text; text++)
        columns += !is_continuation(*text);
    return columns;
}

size_t text_fitting(const char *text, size_t columns)
{
    size_t bytes = 0;
    while (text[bytes] && (columns > 0 || is_continuation(text[bytes])))
        columns -= !is_continuation(text[bytes++]);
    return bytes;
}

void table_cell(struct table *table, const char *text)
{
    if (table->count == table->room) {
        size_t room = table->room ? 2 * table->room : 64;
        void *cells = realloc(table->cells, room * sizeof *table->cells);
        if (!cells) {
            table->failed = true;
            return;
        }
        table->cells = cells;
        table->room = room;
    }
    qfc_text_harmless_line(table->cells[table->count++], TABLE_CELL, text ? text : "-");
}

void table_format(struct table *table, const char *format, ...)
{
    char text[2 * TABLE_CELL];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    table_cell(table, text);
}

static size_t columns_of(const struct table *table)
{
    size_t columns = 0;
    while (table->heads[columns])
        columns++;
    return columns;
}

size_t table_rows(const struct table *table)
{
    return table->count / columns_of(table);
}

static void measure(const struct table *table, size_t rows, size_t width, size_t widths[TABLE_COLUMNS])
{
    size_t columns = columns_of(table), all = GAP * (columns - 1);
    for (size_t i = 0; i < columns; i++) {
        widths[i] = text_columns(table->heads[i]);
        for (size_t row = 0; row < rows; row++) {
            size_t cell = text_columns(table->cells[row * columns + i]);
            widths[i] = cell > widths[i] ? cell : widths[i];
        }
        all += widths[i];
    }
    size_t *gives_way = &widths[table->gives_way];
    if (width > 0 && all > width)
        *gives_way = *gives_way > all - width + NARROWEST ? *gives_way - (all - width) : NARROWEST;
}

/* A text in a column, with blanks around it; of the last column none behind it. Where it is cut, the last place says so. */
static int print_cell(const char *text, size_t width, bool right, bool last, struct qfc_buffer *out)
{
    size_t columns = text_columns(text), blanks = columns < width ? width - columns : 0;
    bool cut = columns > width;
    size_t bytes = text_fitting(text, cut ? width - 1 : width);
    int r = qfc_buffer_printf(out, "%*s%.*s%s", right ? (int)blanks : 0, "", (int)bytes, text, cut ? "…" : "");
    return r == 0 && !last ? qfc_buffer_printf(out, "%*s", (right ? 0 : (int)blanks) + GAP, "") : r;
}

static int print_row(const struct table *table, const size_t *widths, const char *const *texts, size_t width,
                     struct qfc_buffer *out)
{
    struct qfc_buffer line = qfc_buffer(8192);
    size_t columns = columns_of(table), rights = strlen(table->right);
    int r = 0;
    for (size_t i = 0; r == 0 && i < columns; i++)
        r = print_cell(texts[i], widths[i], i < rights && table->right[i] == 'r', i + 1 == columns, &line);
    if (r == 0) { /* a terminal that is narrower than all of that */
        const char *text = qfc_buffer_text(&line);
        size_t bytes = width > 0 ? text_fitting(text, width) : line.size;
        while (bytes > 0 && text[bytes - 1] == ' ')
            bytes--;
        r = qfc_buffer_printf(out, "%.*s\n", (int)bytes, text);
    }
    qfc_buffer_free(&line);
    return r;
}

int table_print(const struct table *table, size_t rows, size_t width, struct qfc_buffer *out)
{
    size_t widths[TABLE_COLUMNS], columns = columns_of(table);
    const char *texts[TABLE_COLUMNS];
    if (rows > table_rows(table))
        rows = table_rows(table);
    measure(table, rows, width, widths);
    int r = print_row(table, widths, table->heads, width, out);
    for (size_t row = 0; r == 0 && row < rows; row++) {
        for (size_t i = 0; i < columns; i++)
            texts[i] = table->cells[row * columns + i];
        r = print_row(table, widths, texts, width, out);
    }
    return r < 0 || table->failed ? -1 : 0;
}

void table_free(struct table *table)
{
    free(table->cells);
    table->cells = NULL;
    table->count = table->room = 0;
}
