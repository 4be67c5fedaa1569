/*
 * Ends a job as the worker does when its container has ended, without a container: the job type's reviews, then its
 * writes with the job's row, sent by the program's own queue to a real database.
 *
 *     finish-job TYPE JOB PROJECT [name=value ...]
 *
 * with QFC_TEST_DATABASE_URL, and of these: feedback=PATH (feedback.json), failed=1 (the container's end was no good
 * one), thumbnail=KEY, blind=1 (the reviews were not asked), between=SQL (somebody does that after the first review),
 * zone=NAME and legacy=NAME (of QFieldCloud's settings). What is written again because something has changed is counted.
 * Prints a JSON object: `error` (or null), `changed` (a count), `statements` (of the job type's last writes), `review`
 * (the first, its columns) and `objects` (those to be deleted). An outcome that is refused is written as a failure, as the
 * worker does.
 */
#include "qfc/processor.h"
#include "qfc/queue.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REVIEWS 4

struct finish {
    uv_loop_t loop;
    struct qfc_queue *queue;
    struct qfc_job job;
    const struct qfc_processor *processor;
    struct qfc_feedback feedback;
    bool has_feedback, failed, begun;
    const char *thumbnail, *between, *blind;
    PGresult *reviews[REVIEWS];
    size_t review_count;
    json_t *told;
};

static void review(struct finish *finish);

static void die(const char *what, const struct qfc_error *error)
{
    fprintf(stderr, "%s: %s\n", what, error->message);
    exit(1);
}

static void end(struct finish *finish)
{
    qfc_queue_free(finish->queue);
    finish->queue = NULL;
}

static json_t *row_of(const PGresult *result, int row)
{
    json_t *columns = json_object();
    for (int i = 0; i < PQnfields(result); i++) {
        const char *text = qfc_pg_text(result, row, PQfname(result, i));
        json_object_set_new(columns, PQfname(result, i), text ? json_string(text) : json_null());
    }
    return columns;
}

static void on_finished(void *userdata, const struct qfc_error *error, const struct qfc_pg_results *results)
{
    struct finish *finish = userdata;
    if (error && error->kind == QFC_ERROR_CHANGED) {
        json_t *changed = json_object_get(finish->told, "changed");
        json_integer_set(changed, json_integer_value(changed) + 1);
        review(finish);
        return;
    }
    if (error && !finish->failed) {
        json_object_set_new(finish->told, "error", json_string(error->message));
        finish->failed = true;
        review(finish);
        return;
    }
    if (error)
        die("finish", error);
    for (size_t i = 0; i < results->count; i++)
        for (int row = 0; PQfnumber(results->items[i], "object") >= 0 && row < PQntuples(results->items[i]); row++)
            json_array_append_new(json_object_get(finish->told, "objects"), row_of(results->items[i], row));
    end(finish);
}

static void write_end(struct finish *finish)
{
    struct qfc_statements writes = {0};
    struct qfc_error error = QFC_NO_ERROR;
    const struct qfc_job_rows rows = {.job = &finish->job};
    const struct qfc_job_end how = {
        .feedback = finish->has_feedback ? &finish->feedback : NULL,
        .reviews = finish->blind ? NULL : (const PGresult *const *)finish->reviews,
        .thumbnail = finish->thumbnail,
    };
    qfc_job_end_writes *hook = finish->failed ? finish->processor->fail : finish->processor->succeed;
    if (hook && hook(&rows, &how, &writes, &error) < 0) {
        qfc_statements_free(&writes);
        if (finish->failed)
            die("fail", &error);
        on_finished(finish, &error, NULL);
        return;
    }
    json_object_set_new(finish->told, "statements", json_integer((json_int_t)writes.count));
    const struct qfc_ending ending = {
        .container = "",
        .finished = !finish->failed,
        .output = "",
        .feedback = finish->has_feedback ? finish->feedback.json : NULL,
        .feedback_extra = "{}",
    };
    if (qfc_queue_finish(finish->queue, &finish->job, &ending, &writes, on_finished, finish, &error) < 0)
        die("finish", &error);
}

static void on_between(void *userdata, const struct qfc_error *error, const struct qfc_pg_results *results)
{
    if (error)
        die("between", error);
    write_end(userdata);
}

static void go_between(struct finish *finish)
{
    struct qfc_statements writes = {0};
    struct qfc_error error = QFC_NO_ERROR;
    if (!finish->between) {
        write_end(finish);
        return;
    }
    if (qfc_statements_add(&writes, finish->between, 0, NULL, &error) < 0 ||
        qfc_queue_write(finish->queue, &writes, on_between, finish, &error) < 0)
        die("between", &error);
    finish->between = NULL;
}

static void forget_reviews(struct finish *finish)
{
    for (size_t i = 0; i < finish->review_count; i++)
        PQclear(finish->reviews[i]);
    finish->review_count = 0;
}

static void on_reviewed(void *userdata, const struct qfc_error *error, const struct qfc_pg_results *results)
{
    struct finish *finish = userdata;
    if (error)
        die("review", error);
    forget_reviews(finish);
    for (size_t i = 1; i < results->count; i++) {
        finish->reviews[finish->review_count++] = results->items[i];
        results->items[i] = NULL;
    }
    if (!json_object_get(finish->told, "review") && finish->review_count > 0)
        json_object_set_new(finish->told, "review", row_of(finish->reviews[0], 0));
    go_between(finish);
}

static void review(struct finish *finish)
{
    size_t count = 0;
    struct qfc_error error = QFC_NO_ERROR;
    while (finish->processor->reviews && finish->processor->reviews[count] && count < REVIEWS)
        count++;
    if (qfc_queue_read(finish->queue, &finish->job, "", finish->processor->reviews, count, false, on_reviewed, finish,
                       &error) < 0)
        die("review", &error);
}

static void on_begun(void *userdata, const struct qfc_error *error, const struct qfc_pg_results *results)
{
    if (error)
        die("begin", error);
    review(userdata);
}

/* The row as it is while a container runs, and ours. */
static void on_state(void *userdata, bool ready, const struct qfc_error *why, unsigned retry_ms)
{
    struct finish *finish = userdata;
    struct qfc_statements writes = {0};
    struct qfc_error error = QFC_NO_ERROR;
    if (!ready)
        die("connect", why);
    if (finish->begun)
        return;
    finish->begun = true;
    if (QFC_ADD(&writes, &error,
                "UPDATE core_job SET status = 'started', started_at = now(), container_id = $2 WHERE id = $1",
                finish->job.id, qfc_queue_marker(finish->queue)) < 0 ||
        qfc_queue_write(finish->queue, &writes, on_begun, finish, &error) < 0)
        die("begin", &error);
}

static void read_feedback(struct finish *finish, const char *path)
{
    char *text = NULL;
    size_t size = 0;
    struct qfc_error error = QFC_NO_ERROR;
    FILE *file = fopen(path, "r");
    if (!file || getdelim(&text, &size, 0, file) < 0 ||
        qfc_feedback_read(&(struct qfc_buffer){.data = text, .size = strlen(text), .room = size, .maximum = size},
                          &finish->feedback, &error) < 0)
        die(path, &error);
    finish->has_feedback = true;
    fclose(file);
}

static const char *value_of(char **arguments, const char *name)
{
    size_t length = strlen(name);
    for (; *arguments; arguments++)
        if (strncmp(*arguments, name, length) == 0 && (*arguments)[length] == '=')
            return *arguments + length + 1;
    return NULL;
}

int main(int argc, char **argv)
{
    struct finish finish = {.told = json_pack("{s:n, s:i, s:[]}", "error", "changed", 0, "objects")};
    struct qfc_error error = QFC_NO_ERROR;
    finish.processor = argc > 3 ? qfc_processor_of(argv[1]) : NULL;
    if (!finish.processor) {
        fputs("usage: finish-job TYPE JOB PROJECT [name=value ...]\n", stderr);
        return 2;
    }
    snprintf(finish.job.id, sizeof finish.job.id, "%s", argv[2]);
    snprintf(finish.job.project_id, sizeof finish.job.project_id, "%s", argv[3]);
    snprintf(finish.job.type, sizeof finish.job.type, "%s", argv[1]);
    finish.thumbnail = value_of(argv, "thumbnail");
    finish.between = value_of(argv, "between");
    finish.blind = value_of(argv, "blind");
    finish.failed = value_of(argv, "failed") != NULL;
    if (value_of(argv, "feedback"))
        read_feedback(&finish, value_of(argv, "feedback"));
    const struct qfc_queue_options options = {
        .conninfo = getenv("QFC_TEST_DATABASE_URL"),
        .time_zone = value_of(argv, "zone"),
        .legacy_storage = value_of(argv, "legacy"),

        .on_state = on_state,
        .userdata = &finish,
    };
    uv_loop_init(&finish.loop);
    finish.queue = qfc_queue_new(&finish.loop, &options, &error);
    if (!finish.queue)
        die("queue", &error);
    uv_run(&finish.loop, UV_RUN_DEFAULT);
    uv_loop_close(&finish.loop);
    forget_reviews(&finish);
    qfc_feedback_free(&finish.feedback);
    int r = json_dumpf(finish.told, stdout, 0);
    json_decref(finish.told);
    return r;
}
