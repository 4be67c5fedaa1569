/* Podman's Docker socket, where it differs: its answers are played as podman 4.3.1 and 5.8.2 give them. */
#include "engine_bed.h"

#define PODMAN_VERSION                                                                                                 \
    "{\"Components\": [{\"Name\": \"Podman Engine\", \"Version\": \"4.3.1\"}], \"ApiVersion\": \"1.41\", "             \
    "\"MinAPIVersion\": \"1.24\"}"

/* What is answered to the request that begins so. */
struct answer {
    const char *line, *status, *body;
};

static const struct answer *answers;
static atomic_int looks;

static bool play(struct player *player, int fd, const struct request *request)
{
    char line[600];

    if (strcmp(request->target, "/version") == 0)
        return player_json(fd, "200 OK", PODMAN_VERSION);
    snprintf(line, sizeof line, "%s %s", request->method, request->target);
    looks += strstr(line, "/json") != NULL;
    for (const struct answer *answer = answers; answer->line; answer++) {
        if (strncmp(line, answer->line, strlen(answer->line)) != 0)
            continue;
        if (!answer->body) /* the headers, and nothing more */
            return player_text(fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        if (strcmp(answer->status, "204") == 0)
            return player_text(fd, "HTTP/1.1 204 No Content\r\n\r\n");
        return player_json(fd, answer->status, answer->body);
    }
    return player_json(fd, "404 Not Found", "{\"message\": \"page not found\"}");
}

static int set_up(void **state)
{
    *state = calloc(1, sizeof(struct engine_bed));
    assert_non_null(*state);
    bed_set_up(*state, 0, play);
    return 0;
}

static int tear_down(void **state)
{
    bed_tear_down(*state);
    free(*state);
    return 0;
}

#define ANSWERS(...)                                                                                                   \
    answers = (const struct answer[])                                                                                  \
    {                                                                                                                  \
        __VA_ARGS__,                                                                                                   \
        {                                                                                                              \
            NULL, NULL, NULL                                                                                           \
        }                                                                                                              \
    }

static void a_name_that_is_taken(void **state)
{
    struct engine_bed *bed = *state;

    ANSWERS(
        {"POST /v1.41/containers/create", "500 Internal Server Error",
         "{\"message\": \"container create: creating container storage: the container name \\\"qfc-1\\\" is already "
         "in use by " ID ". You have to remove that container to be able to reuse that name: that name is already "
         "in use\"}"},
        {"GET /v1.41/containers/qfc-1/json", "200 OK", "{\"Id\": \"" ID "\"}"});
    BED_CALL(qfc_engine_create(bed->engine, "qfc-1", "{}", 2, BED_END));
    assert_int_equal(bed->done, 1);
    assert_int_equal(bed->error.kind, QFC_ERROR_NONE);
    assert_int_equal(bed->reply.status, 409);
    assert_string_equal(bed->reply.id, ID);
}

static void a_kill_and_a_removal_that_come_at_the_wrong_time(void **state)
{
    struct engine_bed *bed = *state;
    static const char body[] = "{\"message\": \"" ID ": container state improper\"}";

    ANSWERS({"POST /v1.41/containers/c/kill", "500 Internal Server Error", body},
            {"DELETE /v1.41/containers/c", "500 Internal Server Error", body});
    BED_CALL(qfc_engine_kill(bed->engine, "c", BED_END));
    assert_int_equal(bed->error.kind, QFC_ERROR_NONE); /* it does not run */
    BED_CALL(qfc_engine_remove_idle(bed->engine, "c", BED_END));
    assert_int_equal(bed->error.code, 409); /* it runs */
    BED_CALL(qfc_engine_remove(bed->engine, "c", BED_END));
    assert_int_equal(bed->error.code, 500); /* by force: to be tried again */
}

static void what_is_missing(void **state)
{
    struct engine_bed *bed = *state;

    ANSWERS({"POST /v1.41/containers/create", "500 Internal Server Error",
             "{\"message\": \"container create: unable to find network with name or ID x: network not found\"}"},
            {"POST /v1.41/containers/c/wait", "200 OK", NULL},
            {"POST /v1.41/containers/c/start", "500 Internal Server Error",
             "{\"message\": \"runc: exec: \\\"/x\\\": no such file or directory: OCI runtime attempted to invoke a "
             "command that was not found\"}"});
    BED_CALL(qfc_engine_create(bed->engine, "qfc-1", "{}", 2, BED_END));
    assert_int_equal(bed->error.kind, QFC_ERROR_REFUSED);
    assert_int_equal(bed->error.code, 404);
    BED_CALL(qfc_engine_run(bed->engine, "c", bed_started, BED_END));
    assert_int_equal(bed->started, 1);
    assert_int_equal(bed->start_error.kind, QFC_ERROR_REFUSED);
    assert_int_equal(bed->start_error.code, 400);
}

#define STATE(status, code, finished)                                                                                  \
    "{\"Id\": \"" ID "\", \"Created\": \"2026-01-01T00:00:00Z\", \"State\": {\"Status\": \"" status                    \
    "\", \"ExitCode\": " code ", \"StartedAt\": \"2026-01-01T00:00:01Z\", \"FinishedAt\": \"" finished "\"}}"
#define NEVER "0001-01-01T00:00:00Z"

/* The exit was missed: the wait never ends by itself. */
static void a_wait_that_misses_the_exit(void **state)
{
    struct engine_bed *bed = *state;

    looks = 0;
    ANSWERS({"POST /v1.41/containers/c/wait", "200 OK", NULL}, {"POST /v1.41/containers/c/start", "204", ""},
            {"GET /v1.41/containers/c/json", "200 OK", STATE("exited", "7", "2026-01-01T00:00:02Z")});
    BED_CALL(qfc_engine_run(bed->engine, "c", bed_started, BED_END));
    assert_int_equal(bed->started, 1);
    assert_int_equal(bed->done, 1);
    assert_int_equal(bed->error.kind, QFC_ERROR_NONE);
    assert_int_equal(bed->reply.exit_code, 7);
    assert_int_equal(looks, 1);
    BED_CALL(qfc_engine_wait(bed->engine, "c", BED_END));
    assert_int_equal(bed->done, 1);
    assert_int_equal(bed->reply.exit_code, 7);
}

/* What podman 4 and 5 make of a container that was running when the machine went down. */
static void a_boot_under_a_running_container(void **state)
{
    struct engine_bed *bed = *state;
    static const char *const states[] = {STATE("created", "0", NEVER), STATE("exited", "0", NEVER)};

    for (int i = 0; i < 2; i++) {
        ANSWERS({"GET /v1.41/containers/c/json", "200 OK", states[i]});
        BED_CALL(qfc_engine_inspect(bed->engine, "c", BED_END));
        assert_int_equal(bed->error.kind, QFC_ERROR_NONE);
        assert_int_equal(bed->reply.state.status, QFC_CONTAINER_EXITED);
        assert_int_equal(bed->reply.state.exit_code, 255);
    }
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_name_that_is_taken),
        TEST(a_kill_and_a_removal_that_come_at_the_wrong_time),
        TEST(what_is_missing),
        TEST(a_wait_that_misses_the_exit),
        TEST(a_boot_under_a_running_container),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
