/*
 * Parameterised SQL statements as data: what is sent in one batch, shown by a debug log, and compared in a unit test.
 *
 * Values are text (PostgreSQL's text format), null for SQL NULL. A list owns its SQL and its values, except values
 * that were added as borrowed. Secret values are never printed and are wiped when the list is freed.
 */
#pragma once

#include "qfc/buffer.h"
#include "qfc/error.h"

#include <stdbool.h>
#include <stddef.h>

#define QFC_STATEMENT_VALUES 16

enum qfc_value_kind {
    QFC_VALUE_COPY = 0, /* copied into the list */
    QFC_VALUE_SECRET,   /* copied, never printed, wiped when freed */
    QFC_VALUE_BORROWED, /* the caller's: must outlive the list (large texts) */
    QFC_VALUE_PART, /* likewise, `size` bytes of a larger text, whole characters; parts are sent one after another */
};

struct qfc_value {
    const char *text; /* null: SQL NULL */
    enum qfc_value_kind kind;
    size_t size; /* of a part */
};

struct qfc_statement {
    char *sql;
    size_t count; /* values in use */
    struct qfc_value values[QFC_STATEMENT_VALUES];
};

struct qfc_statements {
    struct qfc_statement *items; /* null while empty */
    size_t count;
    size_t room;
};

/*
 * Appends one statement with `count` (at most QFC_STATEMENT_VALUES) values. Returns 0 or -1 (QFC_ERROR_MEMORY,
 * QFC_ERROR_BUG); on failure the list is as it was.
 */
int qfc_statements_add(struct qfc_statements *list, const char *sql, size_t count, const struct qfc_value *values,
                       struct qfc_error *error);

/* qfc_statements_add with copied values: QFC_ADD(&list, error, "DELETE FROM t WHERE id = $1", id). */
#define QFC_ADD(list, error, sql, ...)                                                                                 \
    qfc_statements_add_texts((list), (sql), sizeof((const char *[]){__VA_ARGS__}) / sizeof(const char *),              \
                             (const char *[]){__VA_ARGS__}, (error))
int qfc_statements_add_texts(struct qfc_statements *list, const char *sql, size_t count, const char *const *texts,
                             struct qfc_error *error);

/* Moves all statements of `from` to the end of `to`; `from` is empty afterwards. Returns 0 or -1 (nothing moved). */
int qfc_statements_move(struct qfc_statements *to, struct qfc_statements *from, struct qfc_error *error);

/*
 * Replaces each "{name}" in every statement's SQL by its text. Names that differ by release of the other side are
 * written like that, so that no caller asks for a release. Returns 0 or -1 (QFC_ERROR_BUG for a name not in the table).
 */
struct qfc_name {
    const char *name; /* null ends the table */
    const char *text;
};
int qfc_statements_expand(struct qfc_statements *list, const struct qfc_name *names, struct qfc_error *error);

/* Each statement, as it is written, with its values and a newline: secrets as "***" and long values cut, for a test. */
int qfc_statements_print(const struct qfc_statements *list, struct qfc_buffer *out);

/* Frees everything the list owns; the list is empty again. */
void qfc_statements_free(struct qfc_statements *list);

/* A value for a parameter of type text[] (or any array of what can be written so): "{"a","b"}". To be freed; null when
 * out of memory, or above 256 MB. */
char *qfc_array_text(const char *const *texts, size_t count);
