/*
 * Every allocation fails once.
 *
 * malloc and its relatives are wrapped by the linker (--wrap), so that what is linked statically, the program's own
 * code, can be told "no"; allocations within shared libraries are not. Each scenario is run with its first allocation
 * failing, then its second, and so on until a run has come to its end without one being refused. Each refused run
 * must end in "out of memory", leave what it was given as it was, and leak nothing (the sanitizer says). The same once
 * more with all allocations failing from the n-th on: cleaning up must not need any.
 *
 * What is given back is looked at, too: no block may be freed, or moved, with a secret in it.
 *
 * A scenario is one line in the table at the end; those that work on a list of statements are one line in
 * LIST_SCENARIOS.
 */
#include "qfc/buffer.h"
#include "qfc/environment.h"
#include "qfc/feedback.h"
#include "qfc/fernet.h"
#include "qfc/http.h"
#include "qfc/jobs.h"
#include "qfc/pg.h"
#include "qfc/processor.h"
#include "qfc/report.h"
#include "qfc/statements.h"
#include "qfc/stores.h"
#include "qfc/tar.h"
#include "qfc/text.h"
#include "qfc/token.h"

/* The names that a connection would bring are planted. */
#include "../../queue/queue_private.h"

#include <errno.h>
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include <cmocka.h>

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *data, size_t size);
char *__real_strdup(const char *text);
char *__real_strndup(const char *text, size_t size);
void __real_free(void *data);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *data, size_t size);
char *__wrap_strdup(const char *text);
char *__wrap_strndup(const char *text, size_t size);
void __wrap_free(void *data);

/* Of the sanitizer, where there is one: reports what has leaked so far and returns whether anything has. */
int __lsan_do_recoverable_leak_check(void) __attribute__((weak));

static struct {
    bool armed;
    bool for_good; /* not only the n-th fails but all after it, too */
    size_t left;   /* this many are granted before one is refused */
    size_t refused;
} supply;

static bool is_refused(void)
{
    if (!supply.armed)
        return false;
    if (supply.left > 0) {
        supply.left--;
        return false;
    }
    if (supply.refused > 0 && !supply.for_good)
        return false;
    supply.refused++;
    errno = ENOMEM;
    return true;
}

void *__wrap_malloc(size_t size)
{
    return is_refused() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return is_refused() ? NULL : __real_calloc(count, size);
}

/* In no memory but that of the code under test: elsewhere it is encrypted (TOKEN). */
static const char secret[] = "not to be left in memory";
static size_t leaked_secrets;

static void look_for_secret(void *data)
{
    if (data && memmem(data, malloc_usable_size(data), secret, strlen(secret)))
        leaked_secrets++;
}

void *__wrap_realloc(void *data, size_t size)
{
    if (is_refused())
        return NULL;
    look_for_secret(data);
    return __real_realloc(data, size);
}

void __wrap_free(void *data)
{
    look_for_secret(data);
    __real_free(data);
}

char *__wrap_strdup(const char *text)
{
    return is_refused() ? NULL : __real_strdup(text);
}

char *__wrap_strndup(const char *text, size_t size)
{
    return is_refused() ? NULL : __real_strndup(text, size);
}

/* What a scenario does before and after the part that is tested stands between these two. */
static void grant_all(void)
{
    supply.armed = false;
}

static void ration(void)
{
    supply.armed = true;
}

struct scenario {
    /* Returns 0, or a failure: -ENOMEM, or -1 with `error`. Its own leftovers it frees. */
    int (*run)(struct qfc_error *error);
};

/* Runs it with the n-th allocation refused; returns whether there was one. */
static bool run_refused(const struct scenario *scenario, size_t n, bool for_good)
{
    struct qfc_error error = QFC_NO_ERROR;
    supply.left = n - 1;
    supply.refused = 0;
    supply.for_good = for_good;
    ration();
    leaked_secrets = 0;
    int r = scenario->run(&error);
    grant_all();
    if (leaked_secrets > 0)
        fail_msg("allocation %zu was refused, and a secret was left in memory that was given back", n);
    if (supply.refused == 0) {
        if (r != 0)
            fail_msg("failed with all the memory it wanted: %d %s", r, error.message);
        return false;
    }
    if (r == 0)
        fail_msg("allocation %zu was refused, and nobody noticed", n);
    if (r != -ENOMEM && error.kind != QFC_ERROR_MEMORY)
        fail_msg("allocation %zu was refused: %d %s: %s", n, r, qfc_error_kind_name(error.kind), error.message);
    return true;
}

static void refuse_each(void **state)
{
    const struct scenario *scenario = *state;
    for (int for_good = 0; for_good < 2; for_good++) {
        size_t n = 1;
        while (run_refused(scenario, n, for_good))
            n++;
        assert_true(n > 1); /* else nothing was tested */
    }
    if (__lsan_do_recoverable_leak_check)
        assert_false(__lsan_do_recoverable_leak_check());
}

/* --- buffer, text ------------------------------------------------------------------------------------------------- */

/* Frees `out` and passes `r` on; a failure must have left the buffer as it was: with "old" in it. */
static int end_with_buffer(struct qfc_buffer *out, int r)
{
    grant_all();
    if (r < 0)
        assert_string_equal(qfc_buffer_text(out), "old");
    qfc_buffer_free(out);
    return r;
}

static struct qfc_buffer buffer_with_old_text(void)
{
    struct qfc_buffer out = qfc_buffer(1000000);
    grant_all();
    assert_int_equal(qfc_buffer_append_text(&out, "old"), 0);
    ration();
    return out;
}

static const char long_text[30000] = {[0 ... 29998] = 'x'};

static int append_to_buffer(struct qfc_error *error)
{
    struct qfc_buffer out = buffer_with_old_text();
    return end_with_buffer(&out, qfc_buffer_append(&out, long_text, sizeof(long_text)));
}

static int print_to_buffer(struct qfc_error *error)
{
    struct qfc_buffer out = buffer_with_old_text();
    return end_with_buffer(&out, qfc_buffer_printf(&out, "%s %d", long_text, 1));
}

static int clean_text(struct qfc_error *error)
{
    struct qfc_buffer out = buffer_with_old_text();
    char text[3000];
    memset(text, '\xFF', sizeof(text));
    return end_with_buffer(&out, qfc_text_clean(&out, text, sizeof(text), NULL));
}

/* What failed to be added can be added again, and nothing is there twice. */
static int add_to_excerpt(struct qfc_error *error)
{
    struct qfc_excerpt excerpt = qfc_excerpt(10);
    int r = qfc_excerpt_add(&excerpt, "0123456789A", 11);
    grant_all();
    if (r < 0)
        assert_int_equal(qfc_excerpt_add(&excerpt, "0123456789A", 11), 0);
    struct qfc_buffer out = qfc_buffer(1000);
    assert_int_equal(qfc_excerpt_text(&excerpt, &out), 0);
    assert_string_equal(out.data, "01234\n[... 1 bytes of output left out ...]\n6789A");
    qfc_buffer_free(&out);
    qfc_excerpt_free(&excerpt);
    return r;
}

static int excerpt_as_text(size_t size)
{
    struct qfc_excerpt excerpt = qfc_excerpt(600);
    grant_all();
    assert_int_equal(qfc_excerpt_add(&excerpt, long_text, size), 0);
    struct qfc_buffer out = buffer_with_old_text();
    int r = end_with_buffer(&out, qfc_excerpt_text(&excerpt, &out));
    qfc_excerpt_free(&excerpt);
    return r;
}

static int whole_excerpt_as_text(struct qfc_error *error)
{
    return excerpt_as_text(600);
}

static int cut_excerpt_as_text(struct qfc_error *error)
{
    return excerpt_as_text(1000);
}

/* --- tar, feedback ------------------------------------------------------------------------------------------------ */

static const struct qfc_tar_file tar_file = {"name", long_text, sizeof(long_text), 0644};

static int write_tar(struct qfc_error *error)
{
    struct qfc_buffer out = buffer_with_old_text();
    return end_with_buffer(&out, qfc_tar_write(&tar_file, 1, &out, error));
}

static int read_tar(struct qfc_error *error)
{
    struct qfc_buffer tar = qfc_buffer(100000);
    grant_all();
    assert_int_equal(qfc_tar_write(&tar_file, 1, &tar, NULL), 0);
    struct qfc_buffer out = buffer_with_old_text();
    int r = end_with_buffer(&out, qfc_tar_read_one(&tar, &out, error));
    qfc_buffer_free(&tar);
    return r;
}

static int read_feedback(struct qfc_error *error)
{
    struct qfc_feedback feedback = {.size = 4711};
    struct qfc_buffer json = qfc_buffer(100000);
    grant_all();
    assert_int_equal(
        qfc_buffer_printf(&json, "{\"error\": \"\\u0000 %s\", \"n\": NaN, \"error_type\": \"T\"}", long_text), 0);
    ration();
    int r = qfc_feedback_read(&json, &feedback, error);
    grant_all();
    qfc_buffer_free(&json);
    if (r < 0)
        assert_int_equal(feedback.size, 4711);
    else
        qfc_feedback_free(&feedback);
    return r;
}

/* --- secrets ------------------------------------------------------------------------------------------------------ */

/* `secret`, of the key that is all zeroes: made by Python's `cryptography`. */
#define TOKEN                                                                                                          \
    "gAAAAABlU_EAAAECAwQFBgcICQoLDA0OD78w1dlgIzJa6yP7uH4BMrFHoDUNerMQj0pvA-XALzKQAVGVe-"                               \
    "Tm6fyi7e4FPGalb19t1hjTg0REAls54-g-6Oc="
static const struct qfc_fernet_key key;

/* The same and 23 letters more, rightly signed, with broken padding: found when all of it is decrypted. */
#define BROKEN_TOKEN                                                                                                   \
    "gAAAAABlU_EAAAECAwQFBgcICQoLDA0OD78w1dlgIzJa6yP7uH4BMrEL3kPA_FTGm0UdTT6rwoRIk0jiK9zgjeWjtKyBln1OIqJj2tZN-"        \
    "YI47wRV9LQ2TYQuH7awbXiCkweRAdNwks3n"

static int decrypt_token(struct qfc_error *error)
{
    char *text = NULL;
    size_t size = 4711;
    int r = qfc_fernet_decrypt(&key, TOKEN, &text, &size, error);
    grant_all();
    if (r < 0) {
        assert_null(text);
        assert_int_equal(size, 4711);
        return r;
    }
    assert_string_equal(text, secret);
    explicit_bzero(text, size);
    free(text);
    return r;
}

static int decrypt_broken_token(struct qfc_error *error)
{
    char *text;
    size_t size;
    assert_int_equal(qfc_fernet_decrypt(&key, BROKEN_TOKEN, &text, &size, error), -1);
    grant_all();
    return error->kind == QFC_ERROR_INVALID ? 0 : -1;
}

static void set_cell(PGresult *rows, int row, int column, const char *text)
{
    assert_int_not_equal(PQsetvalue(rows, row, column, (char *)text, text ? (int)strlen(text) : -1), 0);
}

/* Secrets of both types, of which one is left out and one cannot be decrypted. */
static PGresult *secret_rows(void)
{
    static const char *const cells[][5] = {{"A", "envvar", TOKEN, "t", "12"},
                                           {"B", "pgservice", TOKEN, "t", "12"},
                                           {"C", "pgservice", TOKEN, "t", "12"},
                                           {"D=", "envvar", TOKEN, "t", "12"},
                                           {"E", "envvar", "plain", "t", "12"}};
    PGresAttDesc columns[] = {{.name = (char *)"name"},
                              {.name = (char *)"type"},
                              {.name = (char *)"value"},
                              {.name = (char *)"by_person"},
                              {.name = (char *)"triggered_by"}};
    PGresult *rows = PQmakeEmptyPGresult(NULL, PGRES_TUPLES_OK);
    assert_int_not_equal(PQsetResultAttrs(rows, 5, columns), 0);
    for (int row = 0; row < 5; row++)
        for (int column = 0; column < 5; column++)
            set_cell(rows, row, column, cells[row][column]);
    return rows;
}

static int make_environment(struct qfc_error *error)
{
    grant_all();
    const struct qfc_environment_given given = {
        .secrets = secret_rows(), .key = &key, .custom_ca = "/ca", .token = secret, .url = "u", .job_id = "6b1f"};
    struct qfc_environment environment = {.warnings = {.count = 4711}};
    ration();
    int r = qfc_environment_make(&given, &environment, error);
    grant_all();
    PQclear((PGresult *)given.secrets);
    if (r < 0) {
        assert_int_equal(environment.warnings.count, 4711);
        return r;
    }
    assert_string_equal(qfc_environment_get(&environment, "A"), secret);
    assert_int_equal(environment.variables.count, 10);
    assert_int_equal(environment.warnings.count, 2);
    qfc_environment_free(&environment);
    return r;
}

/* More than there is room for, some of them twice; after a failure all is as it was. */
static int set_variables(struct qfc_error *error)
{
    struct qfc_environment environment = {0};
    char name[16];
    int r = 0;
    for (int i = 0; r == 0 && i < 40; i++) {
        snprintf(name, sizeof name, "N%d", i % 30);
        size_t before = environment.variables.count;
        r = i < 35 ? qfc_environment_set(&environment, name, secret, error)
                   : qfc_environment_append(&environment, name, secret, error);
        if (r < 0)
            assert_int_equal(environment.variables.count, before);
        assert_null(qfc_texts(&environment.variables)[environment.variables.count]);
        if (i >= 30)
            assert_non_null(strstr(qfc_environment_get(&environment, name), secret));
    }
    grant_all();
    qfc_environment_free(&environment);
    return r;
}

/* --- statements --------------------------------------------------------------------------------------------------- */

static const struct qfc_value values[] = {
    {"copy", QFC_VALUE_COPY}, {"secret", QFC_VALUE_SECRET}, {NULL, QFC_VALUE_COPY}};

/* Statements enough that one more makes the list grow. */
static void fill(struct qfc_statements *list)
{
    grant_all();
    do
        assert_int_equal(qfc_statements_add(list, "INSERT INTO {table}", 3, values, NULL), 0);
    while (list->count < list->room);
    ration();
}

static char *printed(const struct qfc_statements *list)
{
    struct qfc_buffer out = qfc_buffer(1000000);
    grant_all();
    assert_int_equal(qfc_statements_print(list, &out), 0);
    assert_int_equal(qfc_buffer_append_text(&out, ""), 0); /* not null for an empty list */
    ration();
    return qfc_buffer_take(&out);
}

/* A failure must have left the list as it was when `before` was printed. Frees both. */
static int end_with_list(struct qfc_statements *list, char *before, int r)
{
    char *after = printed(list);
    grant_all();
    if (r < 0)
        assert_string_equal(after, before);
    else
        assert_string_not_equal(after, before);
    free(before);
    free(after);
    qfc_statements_free(list);
    return r;
}

static const struct qfc_job job = {.id = "6b1f", .project_id = "9a02", .type = "package"};

/* Calls that add to `list` and, when they fail, leave it as it was: a name, and the call. */
#define LIST_SCENARIOS(X)                                                                                              \
    X(add_statement, qfc_statements_add(list, "SELECT $1, $2, $3", 3, values, error))                                  \
    X(add_texts, QFC_ADD(list, error, "SELECT $1, $2", "a", "b"))                                                      \
    X(insert_token, qfc_token_insert(list, &job, "key", 60, error))                                                    \
    X(revoke_token, qfc_token_revoke(list, "key", error))                                                              \
    X(delete_token, qfc_token_delete(list, &job, error))

#define DEFINE_LIST_SCENARIO(name, call)                                                                               \
    static int name(struct qfc_error *error)                                                                           \
    {                                                                                                                  \
        struct qfc_statements statements = {0}, *list = &statements;                                                   \
        fill(list);                                                                                                    \
        char *before = printed(list);                                                                                  \
        return end_with_list(list, before, (call));                                                                    \
    }
LIST_SCENARIOS(DEFINE_LIST_SCENARIO)

static int move_statements(struct qfc_error *error)
{
    struct qfc_statements to = {0}, from = {0};
    fill(&to);
    fill(&from);
    char *to_before = printed(&to), *from_before = printed(&from);
    int r = qfc_statements_move(&to, &from, error);
    end_with_list(&from, from_before, r);
    return end_with_list(&to, to_before, r);
}

/* A list of which a part is expanded may be expanded again. */
static int expand_statements(struct qfc_error *error)
{
    static const struct qfc_name names[] = {{"table", "core_job"}, {NULL, NULL}};
    struct qfc_statements list = {0};
    fill(&list);
    int r = qfc_statements_expand(&list, names, error);
    grant_all();
    if (r < 0)
        assert_int_equal(qfc_statements_expand(&list, names, NULL), 0);
    for (size_t i = 0; i < list.count; i++)
        assert_string_equal(list.items[i].sql, "INSERT INTO core_job");
    qfc_statements_free(&list);
    return r;
}

static int print_statements(struct qfc_error *error)
{
    struct qfc_statements list = {0};
    fill(&list);
    struct qfc_buffer out = qfc_buffer(100000);
    int r = qfc_statements_print(&list, &out);
    grant_all();
    qfc_buffer_free(&out);
    qfc_statements_free(&list);
    return r;
}

/* --- http, pg ----------------------------------------------------------------------------------------------------- */

/* Lets the close callbacks run; nothing may be left open. */
static void end_loop(uv_loop_t *loop)
{
    grant_all();
    uv_run(loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(loop), 0);
}

static void never_done(void *userdata, const struct qfc_error *error, struct qfc_http_response *response)
{
    fail_msg("a transfer ended that was cancelled or never started");
}

static int start_http(struct qfc_error *error)
{
    const char *const headers[] = {"Content-Type: application/json", "X-Test: 1", NULL};
    const struct qfc_http_request request = {
        .method = "POST",
        .url = "http://localhost/",
        .unix_socket = "/nonexistent/socket",
        .headers = headers,
        .body = "{}",
        .body_size = 2,
        .on_done = never_done,
    };
    uv_loop_t loop;
    assert_int_equal(uv_loop_init(&loop), 0);
    struct qfc_http *http = qfc_http_new(&loop, error);
    int r = http ? qfc_http_start(http, &request, NULL, error) : -1;
    qfc_http_free(http);
    end_loop(&loop);
    return r;
}

static void never_answered(void *userdata, const struct qfc_error *error, const struct qfc_pg_results *results)
{
    fail_msg("a batch ended that was never sent");
}

static int send_to_pg(struct qfc_error *error)
{
    struct qfc_statements setup = {0}, batch = {0};
    fill(&setup);
    fill(&batch);
    char *before = printed(&batch);
    const struct qfc_pg_options options = {
        .conninfo = "host=/nonexistent dbname=x user=y password=z",
        .application_name = "test",
        .connect_ms = 1000,
        .retry_min_ms = 1000,
        .retry_max_ms = 1000,
        .setup = &setup,
    };
    uv_loop_t loop;
    assert_int_equal(uv_loop_init(&loop), 0);
    struct qfc_pg *pg = qfc_pg_new(&loop, &options, error);
    int r = pg ? qfc_pg_send(pg, &batch, never_answered, NULL, NULL, error) : -1;
    qfc_pg_free(pg);
    end_loop(&loop);
    qfc_statements_free(&setup);
    return end_with_list(&batch, before, r);
}

/* --- stores ------------------------------------------------------------------------------------------------------- */

#define STORE(class_name, options)                                                                                     \
    "{\"BACKEND\": \"qfieldcloud.filestorage.backend." class_name "\", \"OPTIONS\": {" options "}}"

static const char storages[] = "{\"s3\": " STORE(
    "QfcS3Boto3Storage",
    "\"access_key\": \"a\", \"secret_key\": \"s\", \"bucket_name\": \"b\", "
    "\"location\": \"/l/\", \"verify\": \"/ca.pem\"") ", "
                                                      "\"dav\": " STORE(
                                                          "QfcWebDavStorage",
                                                          "\"webdav_url\": \"http://u:p@h/d\"") ", \"broken\": {}}";

static void never_deleted(void *userdata, const struct qfc_error *error, size_t deleted)
{
}

static void never_listed(void *userdata, const struct qfc_error *error, const char *const *keys, size_t count)
{
}

static void never_stored(void *userdata, const struct qfc_error *error)
{
}

static int begin_calls(struct qfc_stores *stores, struct qfc_error *error)
{
    static const struct qfc_object object = {"s3", "p/a", false};
    int r = qfc_stores_delete(stores, &object, 1, never_deleted, NULL, NULL, error);

    if (r == 0)
        r = qfc_stores_list(stores, &object, never_listed, NULL, NULL, error);
    if (r == 0)
        r = qfc_stores_put(stores, &object, "text/plain", "x", 1, never_stored, NULL, NULL, error);
    return r;
}

static int use_stores(struct qfc_error *error)
{
    const struct qfc_stores_options options = {.storages = storages, .ca_file = "/other.pem"};
    uv_loop_t loop;

    assert_int_equal(uv_loop_init(&loop), 0);
    struct qfc_http *http = qfc_http_new(&loop, error);
    struct qfc_stores *stores = http ? qfc_stores_new(http, &options, error) : NULL;
    int r = stores ? begin_calls(stores, error) : -1;
    qfc_stores_free(stores);
    qfc_http_free(http);
    end_loop(&loop);
    return r;
}

/* --- queue -------------------------------------------------------------------------------------------------------- */

static void no_state(void *userdata, bool ready, const struct qfc_error *why, unsigned retry_ms)
{
}

static void never_claimed(void *userdata, const struct qfc_error *error, const struct qfc_claim *claim)
{
    fail_msg("a claim ended that was never sent");
}

static void never_adopted(void *userdata, const struct qfc_error *error, const struct qfc_adoption *adoption)
{
    fail_msg("an adoption ended that was never sent");
}

static const char *const ids[] = {"6b1f", "9a02", NULL};
static const struct qfc_claim_request claim_request = {.slots = 4, .known = ids, .known_count = 2};
static const struct qfc_ending ending = {.container = "c0", .output = "", .feedback_extra = "{}"};
static const struct qfc_return put_back = {.container = "c0", .reason = "none"};

static const struct qfc_jobs_filter filter = {.statuses = ids, .type = "package", .reason = "x", .limit = 1};

/* Of what is only asked for. */
static int ask_and_end(int r, struct qfc_statements *list)
{
    qfc_statements_free(list);
    return r;
}

/* Calls of the queue: a name, and the call. Each may take `writes`, which it empties whatever comes of it. */
#define QUEUE_SCENARIOS(X)                                                                                             \
    X(claim, qfc_queue_claim(queue, &claim_request, never_claimed, NULL, error))                                       \
    X(list_unowned, qfc_queue_list_unowned(queue, never_answered, NULL, error))                                        \
    X(adopt_jobs, qfc_queue_adopt(queue, ids, ids, 2, never_adopted, NULL, error))                                     \
    X(return_nobodys, qfc_queue_return_nobodys(queue, "6b1f", "7", never_answered, NULL, error))                       \
    X(find_unwanted, qfc_queue_find_unwanted(queue, "{}", "{}", "{}", never_answered, NULL, error))                    \
    X(ask_report, ask_and_end(qfc_report_ask(&writes, error), &writes))                                                \
    X(list_jobs, ask_and_end(qfc_jobs_list(&filter, &writes, error), &writes))                                         \
    X(watch_rows, qfc_queue_watch(queue, ids, 2, never_answered, NULL, error))                                         \
    X(read_job, qfc_queue_read(queue, &job, "c0", ids, 2, false, never_answered, NULL, error))                         \
    X(prepare_job, qfc_queue_prepare(queue, &job, "c0", "engine", &writes, never_answered, NULL, error))               \
    X(finish_job, qfc_queue_finish(queue, &job, &ending, &writes, never_answered, NULL, error))                        \
    X(put_back_job, qfc_queue_put_back(queue, &job, &put_back, &writes, never_answered, NULL, error))

#define DEFINE_QUEUE_SCENARIO(name, call)                                                                              \
    static int name(struct qfc_error *error)                                                                           \
    {                                                                                                                  \
        const struct qfc_queue_options options = {.conninfo = "host=/nonexistent", .on_state = no_state};              \
        uv_loop_t loop;                                                                                                \
        struct qfc_statements writes = {0};                                                                            \
        fill(&writes);                                                                                                 \
        assert_int_equal(uv_loop_init(&loop), 0);                                                                      \
        struct qfc_queue *queue = qfc_queue_new(&loop, &options, error);                                               \
        if (queue) {                                                                                                   \
            queue->release.names[0] = (struct qfc_name){"project", "p"};                                               \
            queue->release.names[1] = (struct qfc_name){"table", "t"};                                                 \
            queue->release.names[2] = (struct qfc_name){"qgis_version", "v"};                                          \
        }                                                                                                              \
        int r = queue ? (call) : -1;                                                                                   \
        qfc_statements_free(&writes);                                                                                  \
        qfc_queue_free(queue);                                                                                         \
        end_loop(&loop);                                                                                               \
        return r;                                                                                                      \
    }
QUEUE_SCENARIOS(DEFINE_QUEUE_SCENARIO)

/* --- job types ---------------------------------------------------------------------------------------------------- */

/* A result of one row, as a processor's review brings it. */
static PGresult *review_of(const char *const *columns, const char *const *texts, int count)
{
    PGresult *result = PQmakeEmptyPGresult(NULL, PGRES_TUPLES_OK);
    PGresAttDesc descriptions[8] = {0};
    for (int i = 0; i < count; i++)
        descriptions[i].name = (char *)(uintptr_t)columns[i];
    assert_true(PQsetResultAttrs(result, count, descriptions));
    for (int i = 0; i < count; i++)
        assert_true(PQsetvalue(result, 0, i, (char *)(uintptr_t)texts[i], (int)strlen(texts[i])));
    return result;
}

static int write_project_outcome(bool failed, struct qfc_error *error)
{
    static const char *const columns[] = {"old_details",          "old_md5",
                                          "wants_qgis_version",   "has_qgis_project",
                                          "has_area_of_interest", "in_legacy_storage"};
    static const char *const texts[] = {"{\"b\":[{\"d\":1,\"c\":2}],\"a\":0.1}", "0", "t", "t", "t", "f"};
    static char json[] = "{\"outputs\":{\"project_details\":{\"project_details\":{\"b\":{},\"a\":1.5}}}}";
    const struct qfc_processor *processor = qfc_processor_of("process_projectfile");
    grant_all();
    const PGresult *review = review_of(columns, texts, 6);
    ration();
    const struct qfc_feedback feedback = {.json = json, .size = sizeof json - 1, .is_object = true};
    const struct qfc_job_rows rows = {.job = &job};
    const struct qfc_job_end end = {.feedback = &feedback, .reviews = &review, .thumbnail = "key"};
    struct qfc_statements writes = {0};
    int r = (failed ? processor->fail : processor->succeed)(&rows, &end, &writes, error);
    qfc_statements_free(&writes);
    PQclear((PGresult *)(uintptr_t)review);
    return r;
}

static int succeed_with_project(struct qfc_error *error)
{
    return write_project_outcome(false, error);
}

static int fail_with_project(struct qfc_error *error)
{
    return write_project_outcome(true, error);
}

#define SCENARIO(name)                                                                                                 \
    {                                                                                                                  \
#name, refuse_each, NULL, NULL, &(struct scenario)                                                             \
        {                                                                                                              \
            name                                                                                                       \
        }                                                                                                              \
    }
#define LIST_SCENARIO(name, call) SCENARIO(name),

int main(void)
{
    const struct CMUnitTest tests[] = {SCENARIO(append_to_buffer),
                                       SCENARIO(print_to_buffer),
                                       SCENARIO(clean_text),
                                       SCENARIO(add_to_excerpt),
                                       SCENARIO(whole_excerpt_as_text),
                                       SCENARIO(cut_excerpt_as_text),
                                       SCENARIO(write_tar),
                                       SCENARIO(read_tar),
                                       SCENARIO(read_feedback),
                                       SCENARIO(decrypt_token),
                                       SCENARIO(decrypt_broken_token),
                                       SCENARIO(make_environment),
                                       SCENARIO(set_variables),
                                       SCENARIO(succeed_with_project),
                                       SCENARIO(fail_with_project),
                                       SCENARIO(move_statements),
                                       SCENARIO(expand_statements),
                                       SCENARIO(print_statements),
                                       SCENARIO(start_http),
                                       SCENARIO(use_stores),
                                       SCENARIO(send_to_pg),
                                       LIST_SCENARIOS(LIST_SCENARIO) QUEUE_SCENARIOS(LIST_SCENARIO)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
