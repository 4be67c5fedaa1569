/*
 * check: what nobody needs any more: containers of jobs that are gone or over and whose worker is dead, and of earlier
 * checks; volumes that were made for such containers. Workers remove those of jobs themselves, within a minute or, of
 * QFieldCloud's own, five.
 */
#include "check.h"

#include "qfc/pg.h"
#include "qfc/queue.h"
#include "qfc/suspects.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* A check that runs just now has its container for less. */
#define CHECK_OLD_S 300

static int list(struct look *look, const char *label, struct engine_answer *answer, struct qfc_error *error)
{
    return ENGINE_ASK(&look->turns, 0, answer, error, qfc_engine_list, label);
}

static int keep(struct qfc_texts *found, const char *container, struct qfc_error *error)
{
    return qfc_texts_printf(found, error, "%s", container);
}

static int ask_database(struct look *look, const struct qfc_suspects *suspects, struct qfc_texts *found,
                        struct qfc_error *error)
{
    struct qfc_statements statements = {0};
    PGresult *rows = NULL;
    char *jobs = qfc_array_text(suspects->jobs, suspects->count);
    char *containers = qfc_array_text(suspects->containers, suspects->count);
    char *workers = qfc_array_text(suspects->workers, suspects->count);
    int r = jobs && containers && workers ? 0 : qfc_fail_memory(error);
    if (r == 0)
        r = qfc_unwanted_ask(&statements, jobs, containers, workers, error);
    if (r == 0)
        r = database_ask(look->database, &statements.items[0], &rows, error);
    for (int row = 0; r == 0 && row < PQntuples(rows); row++)
        r = keep(found, qfc_pg_text(rows, row, "container"), error);
    PQclear(rows);
    qfc_statements_free(&statements);
    free(jobs);
    free(containers);
    free(workers);
    return r;
}

static int find_of_jobs(struct look *look, struct qfc_texts *found, struct qfc_error *error)
{
    char label[160], stack[256];
    struct engine_answer answer = {0};
    struct qfc_suspects suspects;
    check_stack(look, stack, sizeof stack);
    snprintf(label, sizeof label, "app=%s_worker", look->settings.environment);
    int r = list(look, label, &answer, error);
    if (r == 0 && qfc_suspects_read(qfc_buffer_text(&answer.data), answer.data.size, look->settings.network, stack,
                                    &suspects) < 0)
        r = qfc_fail_memory(error);
    else if (r == 0) {
        r = suspects.count > 0 ? ask_database(look, &suspects, found, error) : 0;
        qfc_suspects_free(&suspects);
    }
    engine_answer_free(&answer);
    return r;
}

static int find_of_checks(struct look *look, struct qfc_texts *found, struct qfc_error *error)
{
    char label[320], stack[256];
    struct engine_answer answer = {0};
    check_stack(look, stack, sizeof stack);
    snprintf(label, sizeof label, CHECK_LABEL "=%s", stack);
    int r = list(look, label, &answer, error);
    json_t *containers = r == 0 ? json_loadb(qfc_buffer_text(&answer.data), answer.data.size, 0, NULL) : NULL;
    for (size_t i = 0; r == 0 && i < json_array_size(containers); i++) {
        const json_t *container = json_array_get(containers, i);
        const char *id = json_string_value(json_object_get(container, "Id"));
        if (id && json_integer_value(json_object_get(container, "Created")) < time(NULL) - CHECK_OLD_S)
            r = keep(found, id, error);
    }
    json_decref(containers);
    engine_answer_free(&answer);
    return r;
}

struct leftovers {
    struct qfc_texts containers, volumes;
};

static int find_volumes(struct look *look, struct qfc_texts *found, struct qfc_error *error)
{
    char label[320], stack[256];
    struct engine_answer answer = {0};
    check_stack(look, stack, sizeof stack);
    snprintf(label, sizeof label, "qfc_stack=%s", stack);
    int r = ENGINE_ASK(&look->turns, 0, &answer, error, qfc_engine_unused_volumes, label);
    if (r < 0 && error->kind == QFC_ERROR_REFUSED) { /* a proxy may forbid it */
        *error = QFC_NO_ERROR;
        r = 0;
    }
    json_t *names = r == 0 ? json_loadb(qfc_buffer_text(&answer.data), answer.data.size, 0, NULL) : NULL;
    for (size_t i = 0; r == 0 && i < json_array_size(names); i++)
        r = keep(found, json_string_value(json_array_get(names, i)), error);
    json_decref(names);
    engine_answer_free(&answer);
    return r;
}

static void leftovers_free(struct leftovers *found)
{
    qfc_texts_free(&found->containers);
    qfc_texts_free(&found->volumes);
}

static int find_all(struct look *look, struct leftovers *found, struct qfc_error *error)
{
    if (find_of_jobs(look, &found->containers, error) < 0 || find_of_checks(look, &found->containers, error) < 0)
        return -1;
    return find_volumes(look, &found->volumes, error);
}

/* "2 volumes are left over, which no container has: 0123456789ab ...", or "". */
static void words(char out[160], const char *things, const char *why, const struct qfc_texts *found)
{
    *out = '\0';
    if (found->count > 0)
        snprintf(out, 160, "%zu %s are left over, %s: %.12s%s", found->count, things, why, found->items[0],
                 found->count > 1 ? " ..." : "");
}

void check_leftovers(struct look *look)
{
    struct qfc_error error = QFC_NO_ERROR;
    struct leftovers found = {0};
    if (find_all(look, &found, &error) < 0) {
        check_found_error(look, "look for what is left over", &error);
    } else if (found.containers.count + found.volumes.count == 0) {
        check_found(look, CHECK_OK, "no container and no volume is left over");
    } else {
        char containers[160], volumes[160];
        words(containers, "containers", "whose jobs are over", &found.containers);
        words(volumes, "volumes", "which no container has", &found.volumes);
        check_found(look, CHECK_WARNING, "%s%s%s", containers, *containers && *volumes ? "; " : "", volumes);
        check_advise(look, "workers remove them within minutes; now: qfc-worker check --fix");
    }
    leftovers_free(&found);
}

typedef int remove_function(struct qfc_engine *engine, const char *name, QFC_ENGINE_END);

static void remove_all(struct look *look, const char *thing, const struct qfc_texts *found, remove_function *remove_one)
{
    for (size_t i = 0; i < found->count && !look->turns.interrupted; i++) {
        struct qfc_error error = QFC_NO_ERROR;
        struct engine_answer answer = {0};
        if (look->dry_run)
            check_mended(look, "remove %s %.12s", thing, found->items[i]);
        else if (ENGINE_ASK(&look->turns, 0, &answer, &error, remove_one, found->items[i]) == 0)
            check_mended(look, "removed %s %.12s", thing, found->items[i]);
        else
            check_mended(look, "nothing: %s", error.message);
        engine_answer_free(&answer);
    }
}

/* Asks anew which they are: a worker may have come for one meanwhile. */
void mend_leftovers(struct look *look)
{
    struct qfc_error error = QFC_NO_ERROR;
    struct leftovers found = {0};
    if (find_all(look, &found, &error) < 0) {
        check_mended(look, "nothing: %s", error.message);
    } else {
        remove_all(look, "container", &found.containers, qfc_engine_remove);
        remove_all(look, "volume", &found.volumes, qfc_engine_remove_volume);
    }
    leftovers_free(&found);
}
