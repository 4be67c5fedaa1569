/*
 * Every allocation fails once.
 *
 * malloc and its relatives are wrapped by the linker (--wrap), so that what is linked statically, the program's own
 * code, can be told "no"; allocations within shared libraries are not. Each scenario is run with its first allocation
 * failing, then its second, and so on until a run has come to its end without one being refused. Each refused run
 * must end in "out of memory", leave what it was given as it was, and leak nothing (the sanitizer says). The same once
 * more with all allocations failing from the n-th on: cleaning up must not need any.
 *
 * A scenario is one line in the table at the end; those that work on a list of statements are one line in
 * LIST_SCENARIOS.
 */
#include "qfc/buffer.h"
#include "qfc/feedback.h"
#include "qfc/http.h"
#include "qfc/pg.h"
#include "qfc/statements.h"
#include "qfc/tar.h"
#include "qfc/text.h"
#include "qfc/token.h"

/* The names that a connection would bring are planted. */
#include "../../queue/queue_private.h"

#include <errno.h>
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
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *data, size_t size);
char *__wrap_strdup(const char *text);
char *__wrap_strndup(const char *text, size_t size);

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

void *__wrap_realloc(void *data, size_t size)
{
    return is_refused() ? NULL : __real_realloc(data, size);
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
    int r = scenario->run(&error);
    grant_all();
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
    int r = end_with_buffer(&out, qfc_tar_read_one(tar.data, tar.size, &out, error));
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
    int r = qfc_feedback_read(json.data, json.size, &feedback, error);
    grant_all();
    qfc_buffer_free(&json);
    if (r < 0)
        assert_int_equal(feedback.size, 4711);
    else
        qfc_feedback_free(&feedback);
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
    X(delete_token, qfc_token_delete(list, "key", error))

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
    int r = pg ? qfc_pg_send(pg, &batch, 0, never_answered, NULL, NULL, error) : -1;
    qfc_pg_free(pg);
    end_loop(&loop);
    qfc_statements_free(&setup);
    return end_with_list(&batch, before, r);
}

/* --- queue -------------------------------------------------------------------------------------------------------- */

static void no_state(void *userdata, bool ready, const struct qfc_error *why, unsigned retry_ms)
{
}

static void never_claimed(void *userdata, const struct qfc_error *error, const struct qfc_claim *claim)
{
    fail_msg("a claim ended that was never sent");
}

static const char *const ids[] = {"6b1f", "9a02", NULL};
static const struct qfc_ending ending = {.container = "c0", .output = "", .feedback_extra = "{}"};
static const struct qfc_return put_back = {.container = "c0", .reason = "none"};

/* Calls of the queue: a name, and the call. Each may take `writes`, which it empties whatever comes of it. */
#define QUEUE_SCENARIOS(X)                                                                                             \
    X(claim, qfc_queue_claim(queue, 4, ids, 2, never_claimed, NULL, error))                                                    \
    X(return_strays, qfc_queue_return_strays(queue, ids, 2, never_answered, NULL, error))                              \
    X(watch_rows, qfc_queue_watch(queue, ids, ids, 2, never_answered, NULL, error))                                    \
    X(read_job, qfc_queue_read(queue, &job, ids, never_answered, NULL, error))                                         \
    X(prepare_job, qfc_queue_prepare(queue, &job, "c0", &writes, never_answered, NULL, error))                         \
    X(finish_job, qfc_queue_finish(queue, &job, &ending, &writes, never_answered, NULL, error))                        \
    X(put_back_job, qfc_queue_put_back(queue, &job, &put_back, &writes, never_answered, NULL, error))

#define DEFINE_QUEUE_SCENARIO(name, call)                                                                              \
    static int name(struct qfc_error *error)                                                                           \
    {                                                                                                                  \
        static const struct qfc_name names[] = {{"project", "p"}, {"qgis_file_name", "f"},    {"qgis_version", "v"},   \
                                                {"table", "t"},   {"images_by_qgis", "true"}, {NULL, NULL}};           \
        const struct qfc_queue_options options = {                                                                     \
            .conninfo = "host=/nonexistent", .types = (const char *const[]){"package", NULL}, .on_state = no_state};   \
        uv_loop_t loop;                                                                                                \
        struct qfc_statements writes = {0};                                                                            \
        fill(&writes);                                                                                                 \
        assert_int_equal(uv_loop_init(&loop), 0);                                                                      \
        struct qfc_queue *queue = qfc_queue_new(&loop, &options, error);                                               \
        if (queue)                                                                                                     \
            queue->names = names;                                                                                      \
        int r = queue ? (call) : -1;                                                                                   \
        qfc_statements_free(&writes);                                                                                  \
        qfc_queue_free(queue);                                                                                         \
        end_loop(&loop);                                                                                               \
        return r;                                                                                                      \
    }
QUEUE_SCENARIOS(DEFINE_QUEUE_SCENARIO)

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
                                       SCENARIO(move_statements),
                                       SCENARIO(expand_statements),
                                       SCENARIO(print_statements),
                                       SCENARIO(start_http),
                                       SCENARIO(send_to_pg),
                                       LIST_SCENARIOS(LIST_SCENARIO) QUEUE_SCENARIOS(LIST_SCENARIO)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
