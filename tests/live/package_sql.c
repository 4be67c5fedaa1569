/*
 * The SQL that the program sends when a package job has succeeded, for tests in Python: a JSON array of the statements
 * of its transaction and, last, of the query for objects that nobody needs. package-sql NAME=TEXT... gives the names
 * that differ by release.
 */
#include "qfc/processor.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAMES 32

static void must(int r, const struct qfc_error *error)
{
    if (r == 0)
        return;
    fprintf(stderr, "%s\n", error->message);
    exit(1);
}

/* Splits "NAME=TEXT" in place. */
static void read_names(int count, char **arguments, struct qfc_name *names)
{
    for (int i = 0; i < count && i < NAMES; i++) {
        char *text = strchr(arguments[i], '=');
        if (!text)
            exit(2);
        *text = '\0';
        names[i] = (struct qfc_name){arguments[i], text + 1};
    }
}

int main(int count, char **arguments)
{
    struct qfc_name names[NAMES + 1] = {0};
    struct qfc_statements statements = {0};
    struct qfc_error error = QFC_NO_ERROR;
    const struct qfc_processor *package = qfc_processor_of("package");
    const struct qfc_job job = {.type = "package"};
    const struct qfc_job_rows rows = {.job = &job};
    const struct qfc_job_end end = {0};
    read_names(count - 1, arguments + 1, names);
    must(package->succeed(&rows, &end, &statements, &error), &error);
    must(qfc_statements_add(&statements, package->leftovers, 0, NULL, &error), &error);
    must(qfc_statements_expand(&statements, names, &error), &error);
    json_t *array = json_array();
    for (size_t i = 0; i < statements.count; i++)
        json_array_append_new(array, json_string(statements.items[i].sql));
    json_dumpf(array, stdout, 0);
    json_decref(array);
    qfc_statements_free(&statements);
    return 0;
}
