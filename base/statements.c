/*
 * Statements as data: see qfc/statements.h.
 */
#include "qfc/statements.h"

#include <stdlib.h>
#include <string.h>

/* Longer values are cut when they are printed. */
#define PRINTED_VALUE_BYTES 200
/* No statement of ours comes near; a guard for the expansion's buffer. */
#define SQL_MAX_BYTES   (1024u * 1024)
#define ARRAY_MAX_BYTES (256u * 1024 * 1024)

static bool is_borrowed(const struct qfc_value *value)
{
    return value->kind == QFC_VALUE_BORROWED || value->kind == QFC_VALUE_PART;
}

static void free_value(struct qfc_value *value)
{
    if (is_borrowed(value) || !value->text)
        return;
    char *owned = (char *)value->text;
    if (value->kind == QFC_VALUE_SECRET)
        explicit_bzero(owned, strlen(owned));
    free(owned);
}

static void free_statement(struct qfc_statement *statement)
{
    for (size_t i = 0; i < statement->count; i++)
        free_value(&statement->values[i]);
    free(statement->sql);
    *statement = (struct qfc_statement){0};
}

static int make_statement(const char *sql, size_t count, const struct qfc_value *values,
                          struct qfc_statement *ret_statement)
{
    struct qfc_statement statement = {.sql = strdup(sql)};
    if (!statement.sql)
        return -1;
    for (size_t i = 0; i < count; i++) {
        struct qfc_value value = values[i];
        if (!is_borrowed(&value) && value.text && !(value.text = strdup(value.text))) {
            free_statement(&statement);
            return -1;
        }
        statement.values[statement.count++] = value;
    }
    *ret_statement = statement;
    return 0;
}

static int reserve(struct qfc_statements *list, size_t more)
{
    if (list->count + more <= list->room)
        return 0;
    size_t room = list->room ? list->room * 2 : 8;
    while (room < list->count + more)
        room *= 2;
    struct qfc_statement *items = realloc(list->items, room * sizeof *items);
    if (!items)
        return -1;
    list->items = items;
    list->room = room;
    return 0;
}

int qfc_statements_add(struct qfc_statements *list, const char *sql, size_t count, const struct qfc_value *values,
                       struct qfc_error *error)
{
    if (count > QFC_STATEMENT_VALUES)
        return qfc_fail(error, QFC_ERROR_BUG, 0, "%zu values for one statement: %s", count, sql);
    struct qfc_statement statement;
    if (reserve(list, 1) < 0 || make_statement(sql, count, values, &statement) < 0)
        return qfc_fail_memory(error);
    list->items[list->count++] = statement;
    return 0;
}

int qfc_statements_add_texts(struct qfc_statements *list, const char *sql, size_t count, const char *const *texts,
                             struct qfc_error *error)
{
    struct qfc_value values[QFC_STATEMENT_VALUES] = {0};
    for (size_t i = 0; i < count && i < QFC_STATEMENT_VALUES; i++)
        values[i].text = texts[i];
    return qfc_statements_add(list, sql, count, values, error);
}

int qfc_statements_move(struct qfc_statements *to, struct qfc_statements *from, struct qfc_error *error)
{
    if (from->count == 0)
        return 0;
    if (reserve(to, from->count) < 0)
        return qfc_fail_memory(error);
    memcpy(to->items + to->count, from->items, from->count * sizeof *to->items);
    to->count += from->count;
    free(from->items);
    *from = (struct qfc_statements){0};
    return 0;
}

static const char *look_up(const struct qfc_name *names, const char *name, size_t length)
{
    for (; names->name; names++)
        if (strlen(names->name) == length && memcmp(names->name, name, length) == 0)
            return names->text;
    return NULL;
}

/* "{name}" is a name only when it is made of letters and underscores: '{}' of an array or of JSON is not. */
static size_t name_length(const char *brace)
{
    size_t length = strspn(brace + 1, "abcdefghijklmnopqrstuvwxyz_");
    return brace[1 + length] == '}' ? length : 0;
}

static int expand(char **sql, const struct qfc_name *names, struct qfc_error *error)
{
    struct qfc_buffer out = qfc_buffer(SQL_MAX_BYTES);
    const char *at = *sql;
    for (const char *brace; (brace = strchr(at, '{'));) {
        size_t length = name_length(brace);
        const char *text = "{";
        if (length > 0 && !(text = look_up(names, brace + 1, length))) {
            qfc_buffer_free(&out);
            return qfc_fail(error, QFC_ERROR_BUG, 0, "no name \"%.*s\" for: %s", (int)length, brace + 1, *sql);
        }
        if (qfc_buffer_append(&out, at, (size_t)(brace - at)) < 0 || qfc_buffer_append_text(&out, text) < 0)
            goto no_memory;
        at = brace + (length > 0 ? length + 2 : 1);
    }
    if (qfc_buffer_append_text(&out, at) < 0)
        goto no_memory;
    free(*sql);
    *sql = qfc_buffer_take(&out);
    return 0;

no_memory:
    qfc_buffer_free(&out);
    return qfc_fail_memory(error);
}

int qfc_statements_expand(struct qfc_statements *list, const struct qfc_name *names, struct qfc_error *error)
{
    for (size_t i = 0; i < list->count; i++)
        if (strchr(list->items[i].sql, '{') && expand(&list->items[i].sql, names, error) < 0)
            return -1;
    return 0;
}

static int print_value(const struct qfc_value *value, size_t number, struct qfc_buffer *out)
{
    if (!value->text)
        return qfc_buffer_printf(out, " $%zu=NULL", number);
    if (value->kind == QFC_VALUE_SECRET)
        return qfc_buffer_printf(out, " $%zu=***", number);
    size_t length = value->kind == QFC_VALUE_PART ? value->size : strlen(value->text);
    if (length <= PRINTED_VALUE_BYTES)
        return qfc_buffer_printf(out, " $%zu='%.*s'", number, (int)length, value->text);
    return qfc_buffer_printf(out, " $%zu='%.*s'... (%zu bytes)", number, PRINTED_VALUE_BYTES, value->text, length);
}

int qfc_statements_print(const struct qfc_statements *list, struct qfc_buffer *out)
{
    for (size_t i = 0; i < list->count; i++) {
        const struct qfc_statement *statement = &list->items[i];
        int r = qfc_buffer_append_text(out, statement->sql);
        for (size_t n = 0; r == 0 && n < statement->count; n++)
            r = print_value(&statement->values[n], n + 1, out);
        if (r == 0)
            r = qfc_buffer_append_text(out, "\n");
        if (r < 0)
            return r;
    }
    return 0;
}

void qfc_statements_free(struct qfc_statements *list)
{
    for (size_t i = 0; i < list->count; i++)
        free_statement(&list->items[i]);
    free(list->items);
    *list = (struct qfc_statements){0};
}

/* Quotes one element: PostgreSQL's manual, "Array Input and Output Syntax". */
static int append_element(struct qfc_buffer *out, const char *text)
{
    int r = qfc_buffer_append(out, "\"", 1);
    for (; r == 0 && *text; text++) {
        if (*text == '"' || *text == '\\')
            r = qfc_buffer_append(out, "\\", 1);
        if (r == 0)
            r = qfc_buffer_append(out, text, 1);
    }
    return r < 0 ? r : qfc_buffer_append(out, "\"", 1);
}

char *qfc_array_text(const char *const *texts, size_t count)
{
    struct qfc_buffer out = qfc_buffer(ARRAY_MAX_BYTES);
    int r = qfc_buffer_append(&out, "{", 1);
    for (size_t i = 0; r == 0 && i < count; i++) {
        if (i > 0)
            r = qfc_buffer_append(&out, ",", 1);
        if (r == 0)
            r = append_element(&out, texts[i]);
    }
    if (r == 0)
        r = qfc_buffer_append(&out, "}", 1);
    if (r < 0) {
        qfc_buffer_free(&out);
        return NULL;
    }
    return qfc_buffer_take(&out);
}
