/*
 * The object stores, driven from tests/integration/test_stores.py:
 *
 *     stores-cli delete [--legacy] STORAGE KEY...       prints how many are gone
 *     stores-cli list [--legacy] STORAGE PREFIX         prints the keys, each followed by a zero byte
 *     stores-cli put STORAGE KEY CONTENT-TYPE TEXT
 *     stores-cli trouble STORAGE                        prints why it cannot be used
 *     stores-cli legacy                                 prints the legacy storage's name
 *
 * Configured by the variables that QFieldCloud knows, and QFC_TEST_DEADLINE_MS. An error goes to stderr as "KIND CODE
 * MESSAGE", with exit code 1.
 */
#include "qfc/stores.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failed;

static void complain(const struct qfc_error *error)
{
    if (!error)
        return;
    fprintf(stderr, "%s %d %s\n", qfc_error_kind_name(error->kind), error->code, error->message);
    failed = 1;
}

static void on_deleted(void *userdata, const struct qfc_error *error, size_t deleted)
{
    complain(error);
    printf("%zu\n", deleted);
}

static void on_listed(void *userdata, const struct qfc_error *error, const char *const *keys, size_t count)
{
    complain(error);
    for (size_t i = 0; i < count; i++)
        fwrite(keys[i], 1, strlen(keys[i]) + 1, stdout);
}

static void on_stored(void *userdata, const struct qfc_error *error)
{
    complain(error);
}

/* Each object stands for itself: the stores are asked for all of them at once. */
static int remove_all(struct qfc_stores *stores, char **words, bool legacy, struct qfc_object *objects,
                      struct qfc_error *error)
{
    size_t count = 0;

    for (; words[count + 1]; count++)
        objects[count] = (struct qfc_object){.storage = words[0], .key = words[count + 1], .legacy = legacy};
    return qfc_stores_delete(stores, objects, count, on_deleted, NULL, NULL, error);
}

static int run(struct qfc_stores *stores, char **words, struct qfc_object *objects, struct qfc_error *error)
{
    const char *what = *words++;
    bool legacy = *words && strcmp(*words, "--legacy") == 0;

    words += legacy;
    struct qfc_object object = {.storage = words[0], .key = words[0] ? words[1] : NULL, .legacy = legacy};
    if (strcmp(what, "delete") == 0)
        return remove_all(stores, words, legacy, objects, error);
    if (strcmp(what, "list") == 0)
        return qfc_stores_list(stores, &object, on_listed, NULL, NULL, error);
    if (strcmp(what, "put") == 0)
        return qfc_stores_put(stores, &object, words[2], words[3], strlen(words[3]), on_stored, NULL, NULL, error);
    const char *text = strcmp(what, "legacy") == 0 ? qfc_stores_legacy(stores) : qfc_stores_trouble(stores, words[0]);
    printf("%s\n", text ? text : "");
    return 0;
}

static struct qfc_stores *make(struct qfc_http *http, struct qfc_error *error)
{
    const char *deadline = getenv("QFC_TEST_DEADLINE_MS");
    const struct qfc_stores_options options = {.storages = getenv("STORAGES"),
                                               .access_key_id = getenv("STORAGE_ACCESS_KEY_ID"),
                                               .secret_access_key = getenv("STORAGE_SECRET_ACCESS_KEY"),
                                               .bucket_name = getenv("STORAGE_BUCKET_NAME"),
                                               .region_name = getenv("STORAGE_REGION_NAME"),
                                               .endpoint_url = getenv("STORAGE_ENDPOINT_URL"),
                                               .deadline_ms = deadline ? (unsigned)atoi(deadline) : 0};

    return qfc_stores_new(http, &options, error);
}

int main(int argc, char **argv)
{
    uv_loop_t *loop = uv_default_loop();
    struct qfc_error error = QFC_NO_ERROR;
    struct qfc_object *objects = calloc((size_t)argc + 1, sizeof *objects);
    struct qfc_http *http = qfc_http_new(loop, &error);
    struct qfc_stores *stores = http ? make(http, &error) : NULL;

    if (argc < 2 || !objects || !stores || run(stores, argv + 1, objects, &error) < 0)
        complain(&error);
    uv_run(loop, UV_RUN_DEFAULT);
    qfc_stores_free(stores);
    qfc_http_free(http);
    uv_run(loop, UV_RUN_DEFAULT);
    uv_loop_close(loop);
    free(objects);
    return failed;
}
