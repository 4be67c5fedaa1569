/*
 * The steps around what is not in the database: the project's picture, which the worker stores for older releases, and
 * the objects of packages whose rows are gone.
 *
 * An object outlives its row when the worker dies between the two, or the storage cannot be reached. So after each
 * package the project's objects are listed, and the database is asked which of them nobody needs.
 */
#include "worker_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define THUMBNAIL_MAX_BYTES (32u * 1024 * 1024)

struct said_storage {
    struct said_storage *next;
    char name[];
};

static bool was_said(struct qfc_worker *worker, const char *storage)
{
    for (const struct said_storage *said = worker->said_storages; said; said = said->next)
        if (strcmp(said->name, storage) == 0)
            return true;
    struct said_storage *said = malloc(sizeof *said + strlen(storage) + 1);
    if (said) {
        strcpy(said->name, storage);
        said->next = worker->said_storages;
        worker->said_storages = said;
    }
    return false;
}

void forget_said_storages(struct qfc_worker *worker)
{
    while (worker->said_storages) {
        struct said_storage *said = worker->said_storages;
        worker->said_storages = said->next;
        free(said);
    }
}

/* Can we work with that storage? Says once why not. */
static bool is_usable(struct qfc_worker *worker, const char *storage)
{
    const char *trouble = qfc_stores_trouble(worker->stores, storage);
    if (trouble && !was_said(worker, storage))
        qfc_log(QFC_LOG_WARNING, NULL, "objects in storage \"%s\" are left alone: %s", storage, trouble);
    return !trouble;
}

/* What the project's row says in a column, or null. */
static const char *of_project(const struct job *job, const char *column)
{
    const PGresult *project = job_rows(job).project;
    return project ? qfc_pg_text(project, 0, column) : NULL;
}

static bool project_is(const struct job *job, const char *column)
{
    return qfc_pg_true(job_rows(job).project, column);
}

/* --- What is to be erased ----------------------------------------------------------------------------------------- */

void forget_objects(struct job *job)
{
    for (size_t i = 0; i < job->object_count; i++) {
        free((char *)job->objects[i].storage);
        free((char *)job->objects[i].key);
    }
    free(job->objects);
    job->objects = NULL;
    job->object_count = 0;
}

static bool is_erased_later(const struct job *job, const char *storage, const char *key)
{
    for (size_t i = 0; i < job->object_count; i++)
        if (strcmp(job->objects[i].key, key) == 0 && strcmp(job->objects[i].storage, storage) == 0)
            return true;
    return false;
}

static void erase_later(struct job *job, const char *storage, const char *key, bool legacy)
{
    if (is_erased_later(job, storage, key))
        return;
    struct qfc_object *objects = realloc(job->objects, (job->object_count + 1) * sizeof *objects);
    if (objects)
        job->objects = objects;
    struct qfc_object object = {strdup(storage), strdup(key), legacy};
    if (objects && object.storage && object.key) {
        objects[job->object_count++] = object;
        return;
    }
    free((char *)object.storage);
    free((char *)object.key);
    qfc_log(QFC_LOG_ERROR, &job->about, "out of memory: object %s in storage \"%s\" stays for now", key, storage);
}

static void erase_all_later(struct job *job, const PGresult *rows, const char *storage, bool legacy)
{
    for (int row = 0; row < PQntuples(rows); row++) {
        const char *at = storage ? storage : qfc_pg_text(rows, row, "storage");
        const char *key = qfc_pg_text(rows, row, "object");
        if (at && key && *key && is_usable(job->worker, at))
            erase_later(job, at, key, legacy);
    }
}

void take_results(struct job *job, const struct qfc_pg_results *results)
{
    for (size_t i = 0; i < results->count; i++) {
        const PGresult *rows = results->items[i];
        if (PQfnumber(rows, "object") >= 0)
            erase_all_later(job, rows, NULL, false);
        for (int row = 0; PQfnumber(rows, "remark") >= 0 && row < PQntuples(rows); row++)
            qfc_log(QFC_LOG_WARNING, &job->about, "%s", qfc_pg_text(rows, row, "remark"));
    }
}

/* --- The picture -------------------------------------------------------------------------------------------------- */

static void on_thumbnail(void *userdata, const struct qfc_error *error, const struct qfc_engine_reply *reply)
{
    struct job *job = userdata;
    if (error && error->kind == QFC_ERROR_REFUSED && error->code == 404) {
        error = NULL; /* QGIS makes none for an empty extent */
    } else if (!error) {
        job->thumbnail = *reply->data;
        *reply->data = qfc_buffer(0);
    }
    job_ended(job, error);
}

static bool wants_thumbnail(const struct job *job)
{
    bool good = job->has_feedback && job->state.exit_code == 0 && job->feedback.error == QFC_FEEDBACK_NO_ERROR;
    return good && !job->failed && job->processor->thumbnail && project_is(job, "thumbnail_by_worker");
}

int start_thumbnail(struct job *job, struct qfc_error *error)
{
    if (!job->processor || !wants_thumbnail(job))
        return 1;
    qfc_buffer_free(&job->thumbnail);
    return qfc_engine_get_file(job->worker->engine, job->container, job->processor->thumbnail, THUMBNAIL_MAX_BYTES,
                               on_thumbnail, job, NULL, error);
}

static void on_reviewed(void *userdata, const struct qfc_error *error, const struct qfc_pg_results *results)
{
    struct job *job = userdata;
    struct qfc_error failure = QFC_NO_ERROR;
    if (!error && keep_results(results, &job->reviews, &job->review_count, &failure) < 0)
        error = &failure;
    if (error)
        forget_results(&job->reviews, &job->review_count);
    job_ended(job, error);
}

int start_review(struct job *job, struct qfc_error *error)
{
    size_t count = 0;
    const char *const *reviews = job->processor ? job->processor->reviews : NULL;
    while (reviews && reviews[count])
        count++;
    if (count == 0)
        return 1;
    return qfc_queue_read(job->worker->queue, &job->row, job->container, reviews, count, false, on_reviewed, job,
                          error);
}

static void on_stored(void *userdata, const struct qfc_error *error)
{
    struct job *job = userdata;
    job->thumbnail_stored = !error;
    job_ended(job, error);
}

/* Stored once, also where the outcome is made anew. */
int start_store(struct job *job, struct qfc_error *error)
{
    const PGresult *review = job->review_count > 1 ? job->reviews[1] : NULL;
    const char *storage = review ? qfc_pg_text(review, 0, "thumbnail_storage") : NULL;
    const char *key = review ? qfc_pg_text(review, 0, "thumbnail_object") : NULL;
    if (job->thumbnail.size == 0 || job->thumbnail_stored || !storage || !key || !is_usable(job->worker, storage))
        return 1;
    snprintf(job->thumbnail_object, sizeof job->thumbnail_object, "%s", key);
    const struct qfc_object object = {storage, job->thumbnail_object, project_is(job, "legacy_storage")};
    return qfc_stores_put(job->worker->stores, &object, "image/png", job->thumbnail.data, job->thumbnail.size,
                          on_stored, job, NULL, error);
}

/* In legacy storage the key is always the same: there it took the old picture's place. */
void disown_thumbnail(struct job *job)
{
    const char *storage = job->thumbnail_stored ? of_project(job, "file_storage") : NULL;
    if (storage && !project_is(job, "legacy_storage"))
        erase_later(job, storage, job->thumbnail_object, false);
    job->thumbnail_stored = false;
}

/* --- Objects without rows ----------------------------------------------------------------------------------------- */

static bool is_text(const char *key)
{
    const unsigned char *at = (const unsigned char *)key, *end = at + strlen(key);
    for (size_t length; at < end; at += length)
        if ((length = qfc_utf8_length(at, end)) == 0)
            return false;
    return true;
}

/* Keeps what was found as the value of a parameter; keys that are no text, which no row can name, are nobody's here. */
static int keep_found(struct job *job, const char *const *keys, size_t count, struct qfc_error *error)
{
    const char **texts = calloc(count + 1, sizeof *texts);
    size_t kept = 0;
    for (size_t i = 0; texts && i < count; i++)
        if (is_text(keys[i]))
            texts[kept++] = keys[i];
    free(job->found);
    job->found = texts ? qfc_array_text(texts, kept) : NULL;
    free(texts);
    return job->found ? 0 : qfc_fail_memory(error);
}

static void on_listed(void *userdata, const struct qfc_error *error, const char *const *keys, size_t count)
{
    struct job *job = userdata;
    struct qfc_error failure = QFC_NO_ERROR;
    if (!error && keep_found(job, keys, count, &failure) < 0)
        error = &failure;
    job->storage_silent = error && (error->kind == QFC_ERROR_UNREACHABLE || error->kind == QFC_ERROR_UNKNOWN);
    job_ended(job, error);
}

/* The prefix's one %s is the project's id. */
static void write_prefix(const struct job *job, char *out, size_t size)
{
    const char *format = job->processor->swept_prefix, *place = strstr(format, "%s");
    snprintf(out, size, "%.*s%s%s", (int)(place - format), format, job->row.project_id, place + 2);
}

int start_list(struct job *job, struct qfc_error *error)
{
    const char *storage = of_project(job, "file_storage");
    if (!job->written || !job->outcome.finished || !job->processor->swept_prefix || !storage ||
        !is_usable(job->worker, storage))
        return 1;
    char prefix[128];
    write_prefix(job, prefix, sizeof prefix);
    const struct qfc_object below = {storage, prefix, project_is(job, "legacy_storage")};
    return qfc_stores_list(job->worker->stores, &below, on_listed, job, NULL, error);
}

static void on_leftovers(void *userdata, const struct qfc_error *error, const struct qfc_pg_results *results)
{
    struct job *job = userdata;
    if (!error)
        erase_all_later(job, results->items[0], of_project(job, "file_storage"), project_is(job, "legacy_storage"));
    job_ended(job, error);
}

int start_leftovers(struct job *job, struct qfc_error *error)
{
    if (!job->found)
        return 1;
    struct qfc_statements question = {0};
    const struct qfc_value values[] = {{job->row.id}, {job->row.project_id}, {job->found, QFC_VALUE_BORROWED}};
    if (qfc_statements_add(&question, job->processor->leftovers, 3, values, error) < 0)
        return -1;
    return qfc_queue_write(job->worker->queue, &question, on_leftovers, job, error);
}

static void on_erased(void *userdata, const struct qfc_error *error, size_t deleted)
{
    struct job *job = userdata;
    struct qfc_error told = error ? *error : QFC_NO_ERROR;
    if (error)
        qfc_context(&told, "%zu of %zu objects deleted; the others go with the project's next package", deleted,
                    job->object_count);
    else
        qfc_log(QFC_LOG_DEBUG, &job->about, "deleted %zu objects", deleted);
    job_ended(job, error ? &told : NULL);
}

int start_erase(struct job *job, struct qfc_error *error)
{
    if (job->object_count == 0)
        return 1;
    if (job->storage_silent) {
        qfc_log(QFC_LOG_WARNING, &job->about, "%zu objects stay for now: they go with the project's next package",
                job->object_count);
        return 1;
    }
    return qfc_stores_delete(job->worker->stores, job->objects, job->object_count, on_erased, job, NULL, error);
}
