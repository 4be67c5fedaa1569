/*
 * Prints what a job type sends, for tests that run the shipped SQL without a container:
 *
 *     statements-of TYPE JOB_ID PROJECT_ID
 *
 * gives a JSON object with `reads` (texts) and, for each of `before`, `succeed`, `fail` and `put_back` that the type
 * has, its statements as [SQL, [values]]. Names in braces are not expanded.
 */
#include "qfc/processor.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

static json_t *statement_json(const struct qfc_statement *statement)
{
    json_t *values = json_array();
    for (size_t i = 0; i < statement->count; i++)
        json_array_append_new(values, json_string(statement->values[i].text));
    return json_pack("[so]", statement->sql, values);
}

/* What a hook has added; none where it failed, which is told. */
static void print_hook(json_t *all, const char *name, int r, struct qfc_statements *writes,
                       const struct qfc_error *error)
{
    json_t *list = json_array();
    for (size_t i = 0; i < writes->count; i++)
        json_array_append_new(list, statement_json(&writes->items[i]));
    qfc_statements_free(writes);
    if (r == 0)
        json_object_set(all, name, list);
    else
        fprintf(stderr, "%s: %s\n", name, error->message);
    json_decref(list);
}

static void print_begin(json_t *all, const char *name, qfc_job_writes *hook, const struct qfc_job_rows *rows)
{
    struct qfc_statements writes = {0};
    struct qfc_error error = QFC_NO_ERROR;
    if (hook)
        print_hook(all, name, hook(rows, &writes, &error), &writes, &error);
}

static void print_end(json_t *all, const char *name, qfc_job_end_writes *hook, const struct qfc_job_rows *rows)
{
    const struct qfc_job_end end = {0};
    struct qfc_statements writes = {0};
    struct qfc_error error = QFC_NO_ERROR;
    if (hook)
        print_hook(all, name, hook(rows, &end, &writes, &error), &writes, &error);
}

int main(int argc, char **argv)
{
    const struct qfc_processor *processor = argc == 4 ? qfc_processor_of(argv[1]) : NULL;
    struct qfc_job job = {0};
    if (!processor) {
        fputs("usage: statements-of TYPE JOB_ID PROJECT_ID\n", stderr);
        return 2;
    }
    snprintf(job.id, sizeof job.id, "%s", argv[2]);
    snprintf(job.project_id, sizeof job.project_id, "%s", argv[3]);
    const struct qfc_job_rows rows = {.job = &job};
    json_t *all = json_object(), *reads = json_array();
    for (const char *const *read = processor->reads; read && *read; read++)
        json_array_append_new(reads, json_string(*read));
    json_object_set_new(all, "reads", reads);
    print_begin(all, "before", processor->before, &rows);
    print_begin(all, "put_back", processor->put_back, &rows);
    print_end(all, "succeed", processor->succeed, &rows);
    print_end(all, "fail", processor->fail, &rows);
    int r = json_dumpf(all, stdout, 0);
    json_decref(all);
    return r == 0 ? 0 : 1;
}
