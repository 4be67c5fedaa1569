/* The engine's API against a scripted player of it. */
#include "qfc/engine.h"
#include "player.h"
#include "qfc/tar.h"

#include <errno.h>
#include <grp.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define ID      "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define VERSION "{\"ApiVersion\": \"1.41\", \"MinAPIVersion\": \"1.12\"}"

enum conduct {
    ANSWER = 0,
    CLOSE,         /* no answer, the connection is closed */
    HEADERS_FIRST, /* a chunked answer whose body comes when somebody goes */
    ALL_LATER,     /* the whole answer comes when somebody goes */
    HEADERS_ONLY,  /* then the connection is closed when somebody goes */
};

/* What the player answers; the first that fits is taken, and `times` counts down where it is not 0. */
struct route {
    const char *line; /* "GET /v1.41/containers/x/json": the beginning of method and target */
    const char *status;
    const char *body;
    enum conduct conduct;
    bool goes;        /* lets one of those that wait go on, before it answers */
    size_t body_size; /* 0: of the text */
    const char *type;
    int times;
};

struct bed {
    uv_loop_t loop;
    struct qfc_http *http;
    struct qfc_engine *engine;
    struct player player;
    struct route routes[8];
    sem_t go;

    struct qfc_engine_call *call;
    int started, done;
    int started_at, done_at, clock;
    struct qfc_error start_error, error;
    struct qfc_engine_reply reply;
    struct qfc_buffer data;
    struct qfc_buffer log;
    int (*in_log)(struct bed *bed);
    void (*in_started)(struct bed *bed);
    void (*in_done)(struct bed *bed);
};

static bool play_route(struct bed *bed, int fd, const struct route *route)
{
    const char *body = route->body ? route->body : "";
    size_t size = route->body_size ? route->body_size : strlen(body);
    char text[256];

    if (route->goes)
        sem_post(&bed->go);
    if (route->conduct == CLOSE)
        return false;
    if (route->conduct == ALL_LATER)
        sem_wait(&bed->go);
    if (route->conduct == HEADERS_FIRST || route->conduct == HEADERS_ONLY) {
        snprintf(text, sizeof text, "HTTP/1.1 %s\r\nTransfer-Encoding: chunked\r\n\r\n", route->status);
        player_text(fd, text);
        sem_wait(&bed->go);
        if (route->conduct == HEADERS_ONLY)
            return false;
        if (size > 0)
            snprintf(text, sizeof text, "%zx\r\n%s\r\n", size, body);
        return (size == 0 || player_text(fd, text)) && player_text(fd, "0\r\n\r\n");
    }
    if (strncmp(route->status, "204", 3) == 0 || strncmp(route->status, "304", 3) == 0)
        return player_text(fd, "HTTP/1.1 ") && player_text(fd, route->status) && player_text(fd, "\r\n\r\n");
    return player_answer(fd, route->status, route->type ? route->type : "application/json", body, size);
}

static bool play(struct player *player, int fd, const struct request *request)
{
    struct bed *bed = player->userdata;
    struct route *found = NULL;
    char line[600];

    snprintf(line, sizeof line, "%s %s", request->method, request->target);
    pthread_mutex_lock(&player->lock);
    for (struct route *route = bed->routes; route->line && !found; route++) {
        if (route->times < 0 || strncmp(line, route->line, strlen(route->line)) != 0)
            continue;
        if (route->times > 0 && --route->times == 0)
            route->times = -1;
        found = route;
    }
    pthread_mutex_unlock(&player->lock);
    if (found)
        return play_route(bed, fd, found);
    if (strcmp(request->target, "/version") == 0)
        return player_json(fd, "200 OK", VERSION);
    return player_json(fd, "404 Not Found", "{\"message\": \"page not found\"}");
}

static void new_engine(struct bed *bed)
{
    struct qfc_error error = QFC_NO_ERROR;
    char host[128];
    struct qfc_engine_options options = {.host = host};

    snprintf(host, sizeof host, "unix://%s", bed->player.path);
    bed->engine = qfc_engine_new(&bed->loop, bed->http, &options, &error);
    assert_non_null(bed->engine);
}

static int set_up(void **state)
{
    struct bed *bed = calloc(1, sizeof *bed);
    struct qfc_error error;

    assert_non_null(bed);
    uv_loop_init(&bed->loop);
    bed->http = qfc_http_new(&bed->loop, &error);
    assert_non_null(bed->http);
    sem_init(&bed->go, 0, 0);
    bed->log = qfc_buffer(1 << 20);
    bed->data = qfc_buffer(1 << 20);
    player_start(&bed->player, play);
    bed->player.userdata = bed;
    new_engine(bed);
    *state = bed;
    return 0;
}

static int tear_down(void **state)
{
    struct bed *bed = *state;

    qfc_engine_free(bed->engine);
    qfc_http_free(bed->http);
    uv_run(&bed->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&bed->loop), 0);
    for (int i = 0; i < 16; i++)
        sem_post(&bed->go);
    player_free(&bed->player);
    qfc_buffer_free(&bed->data);
    qfc_buffer_free(&bed->log);
    sem_destroy(&bed->go);
    free(bed);
    return 0;
}

static void on_done(void *userdata, const struct qfc_error *error, const struct qfc_engine_reply *reply)
{
    struct bed *bed = userdata;

    bed->done++;
    bed->done_at = ++bed->clock;
    assert_true(!error == !!reply);
    bed->error = error ? *error : QFC_NO_ERROR;
    if (reply) {
        bed->reply = *reply;
        qfc_buffer_free(&bed->data);
        assert_int_equal(qfc_buffer_append(&bed->data, qfc_buffer_text(reply->data), reply->data->size), 0);
    }
    if (bed->in_done)
        bed->in_done(bed);
}

static void on_started(void *userdata, const struct qfc_error *error, const struct qfc_engine_reply *reply)
{
    struct bed *bed = userdata;

    bed->started++;
    bed->started_at = ++bed->clock;
    assert_true(!error == !!reply);
    bed->start_error = error ? *error : QFC_NO_ERROR;
    if (reply)
        bed->reply = *reply;
    if (bed->in_started)
        bed->in_started(bed);
}

static int on_log(void *userdata, const char *data, size_t size)
{
    struct bed *bed = userdata;

    assert_int_equal(qfc_buffer_append(&bed->log, data, size), 0);
    return bed->in_log ? bed->in_log(bed) : 0;
}

#define END on_done, bed, &bed->call, &bed->error

static void finish(struct bed *bed, int r)
{
    assert_int_equal(r, 0);
    assert_int_equal(bed->done + bed->started, 0); /* never from within the function that starts it */
    uv_run(&bed->loop, UV_RUN_DEFAULT);
}

#define CALL(call)                                                                                                     \
    do {                                                                                                               \
        bed->done = bed->started = 0;                                                                                  \
        finish(bed, (call));                                                                                           \
    } while (0)

static void route(struct bed *bed, const struct route *routes, size_t count)
{
    pthread_mutex_lock(&bed->player.lock);
    memset(bed->routes, 0, sizeof bed->routes);
    memcpy(bed->routes, routes, count * sizeof *routes);
    pthread_mutex_unlock(&bed->player.lock);
}

#define ROUTE(...)                                                                                                     \
    route(bed, (struct route[]){__VA_ARGS__}, sizeof((struct route[]){__VA_ARGS__}) / sizeof(struct route))

static void assert_error(const struct qfc_error *error, enum qfc_error_kind kind, int code, const char *message)
{
    if (error->kind != kind || error->code != code || !strstr(error->message, message))
        fail_msg("expected %s %d: %s\n     got %s %d: %s", qfc_error_kind_name(kind), code, message,
                 qfc_error_kind_name(error->kind), error->code, error->message);
}

static void assert_done(const struct bed *bed)
{
    if (bed->error.kind)
        fail_msg("%s %d: %s", qfc_error_kind_name(bed->error.kind), bed->error.code, bed->error.message);
    assert_int_equal(bed->done, 1);
}

static void assert_failed(const struct bed *bed, enum qfc_error_kind kind, int code, const char *message)
{
    assert_int_equal(bed->done, 1);
    assert_error(&bed->error, kind, code, message);
}

/* Hosts and certificates */

static void refuse_host(struct bed *bed, const struct qfc_engine_options *options, const char *message)
{
    struct qfc_error error = QFC_NO_ERROR;

    assert_null(qfc_engine_new(&bed->loop, bed->http, options, &error));
    assert_int_equal(error.kind, QFC_ERROR_USAGE);
    if (!strstr(error.message, message))
        fail_msg("%s is not in %s", message, error.message);
}

static void hosts_that_cannot_be_used(void **state)
{
    struct bed *bed = *state;
    static const char *const hosts[] = {
        "ssh://user@host",
        "unix://relative",
        "unix://",
        "tcp://",
        "tcp://user@host:1",
        "tcp://host/path",
        "docker",
        "unix:///0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"
        "01234567",
    };

    for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++)
        refuse_host(bed, &(struct qfc_engine_options){.host = hosts[i]}, "DOCKER_HOST: ");
    refuse_host(bed,
                &(struct qfc_engine_options){.host = "tcp://host", .tls_verify = true, .cert_path = "/nonexistent"},
                "DOCKER_CERT_PATH: /nonexistent/ca.pem: No such file or directory");
}

static void hosts(void **state)
{
    struct bed *bed = *state;
    static const char *const given[] = {NULL, "", "tcp://localhost", "tcp://[::1]:2375", "tcp://localhost:1/"};
    static const char *const spoken[] = {"unix:///var/run/docker.sock", "unix:///var/run/docker.sock",
                                         "tcp://localhost", "tcp://[::1]:2375", "tcp://localhost:1/"};

    for (int i = 0; i < 5; i++) {
        struct qfc_engine *engine =
            qfc_engine_new(&bed->loop, bed->http, &(struct qfc_engine_options){.host = given[i]}, &bed->error);
        assert_non_null(engine);
        assert_string_equal(qfc_engine_host(engine), spoken[i]);
        qfc_engine_free(engine);
    }
}

static void certificates(void **state)
{
    struct bed *bed = *state;
    struct qfc_engine_options options = {.host = "tcp://127.0.0.1:1", .tls_verify = true};
    static const char *const names[] = {"ca.pem", "cert.pem", "key.pem"};
    char path[128];

    options.cert_path = bed->player.directory;
    for (int i = 0; i < 3; i++) {
        refuse_host(bed, &options, names[i]);
        snprintf(path, sizeof path, "%s/%s", bed->player.directory, names[i]);
        fclose(fopen(path, "w"));
    }
    qfc_engine_free(bed->engine);
    bed->engine = qfc_engine_new(&bed->loop, bed->http, &options, &bed->error);
    assert_non_null(bed->engine);
    CALL(qfc_engine_inspect(bed->engine, ID, END));
    assert_failed(bed, QFC_ERROR_UNREACHABLE, ECONNREFUSED,
                  "inspect container 0123456789ab: connect to the engine at 127.0.0.1:1: nobody listens there");
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", bed->player.directory, names[i]);
        unlink(path);
    }
}

static void probe_of(struct bed *bed, const char *path)
{
    char host[128];

    snprintf(host, sizeof host, "unix://%s", path);
    qfc_engine_free(bed->engine);
    bed->engine = qfc_engine_new(&bed->loop, bed->http, &(struct qfc_engine_options){.host = host}, &bed->error);
    assert_non_null(bed->engine);
    CALL(qfc_engine_probe(bed->engine, END));
}

static void nobody_there(void **state)
{
    struct bed *bed = *state;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int unheard = socket(AF_UNIX, SOCK_STREAM, 0);

    probe_of(bed, "/nonexistent/docker.sock");
    assert_failed(bed, QFC_ERROR_UNREACHABLE, ENOENT,
                  "connect to the engine at /nonexistent/docker.sock: no socket there: is the engine running?");
    snprintf(address.sun_path, sizeof address.sun_path, "%s/unheard", bed->player.directory);
    assert_int_equal(bind(unheard, (struct sockaddr *)&address, sizeof address), 0);
    probe_of(bed, address.sun_path);
    assert_failed(bed, QFC_ERROR_UNREACHABLE, ECONNREFUSED, "nobody listens there: is the engine running?");
    close(unheard);
    unlink(address.sun_path);
}

static void a_socket_of_others(void **state)
{
    struct bed *bed = *state;
    const struct group *daemon = getgrnam("daemon");
    gid_t unnamed = 54321;
    char expected[200];

    if (geteuid() != 0)
        skip();
    while (getgrgid(unnamed))
        unnamed++;
    for (int i = 0; i < 3; i++) {
        gid_t owner = i == 0 ? unnamed : daemon->gr_gid;

        assert_int_equal(chown(bed->player.path, 0, owner), 0);
        assert_int_equal(chmod(bed->player.path, i == 2 ? 0600 : 0660), 0);
        assert_int_equal(seteuid(65534), 0);
        probe_of(bed, bed->player.path);
        assert_int_equal(seteuid(0), 0);
        if (i == 0)
            snprintf(expected, sizeof expected,
                     ": permission denied: this user is not in the group %u that owns the socket", owner);
        if (i == 1)
            snprintf(expected, sizeof expected,
                     ": permission denied: this user is not in the group \"daemon\" (%u) that owns the socket", owner);
        if (i == 2)
            snprintf(expected, sizeof expected,
                     ": permission denied: the socket belongs to user 0 and group %u with mode 0600", owner);
        assert_failed(bed, QFC_ERROR_UNREACHABLE, EACCES, expected);
    }
}

/* The version */

static void the_version_is_asked_once(void **state)
{
    struct bed *bed = *state;
    struct qfc_engine_call *second, *third;

    ROUTE({"GET /v1.41/", "200 OK", "[]"});
    assert_int_equal(qfc_engine_list(bed->engine, "a", on_done, bed, &second, &bed->error), 0);
    assert_int_equal(qfc_engine_list(bed->engine, "b", on_done, bed, &third, &bed->error), 0);
    qfc_engine_cancel(third);
    CALL(qfc_engine_list(bed->engine, "c", END));
    assert_int_equal(bed->done, 2);
    CALL(qfc_engine_list(bed->engine, "d", END));
    assert_done(bed);
    player_stop(&bed->player);
    assert_string_equal(bed->player.requests[0].target, "/version");
    assert_int_equal(player_count(&bed->player, "GET /version"), 1);
    assert_int_equal(player_count(&bed->player, "GET /v1.41/containers/json?all=1&filters="), 3);
    assert_int_equal(bed->player.request_count, 4);
}

static void versions(void **state)
{
    struct bed *bed = *state;
    static const struct {
        const char *body, *spoken, *refused;
    } cases[] = {
        {"{\"ApiVersion\": \"1.41\"}", "1.41", NULL},
        {"{\"ApiVersion\": \"1.40\", \"MinAPIVersion\": \"\"}", "1.40", NULL},
        {"{\"ApiVersion\": \"1.52\", \"MinAPIVersion\": \"1.47\"}", "1.47", NULL},
        {"{\"ApiVersion\": \"2.0\", \"MinAPIVersion\": \"1.24\"}", "1.47", NULL},
        {"{\"ApiVersion\": \"1.39\", \"MinAPIVersion\": \"1.12\"}", NULL, "too old: it speaks API 1.39 at most"},
        {"{\"ApiVersion\": \"1.9\"}", NULL, "too old: it speaks API 1.9 at most"},
        {"{\"ApiVersion\": \"1.60\", \"MinAPIVersion\": \"1.50\"}", "1.50", NULL},
        {"{\"ApiVersion\": \"1.60\", \"MinAPIVersion\": \"1.57\"}", NULL, "too new: it speaks API 1.57 at least"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ROUTE({"GET /version", "200 OK", cases[i].body});
        CALL(qfc_engine_probe(bed->engine, END));
        if (cases[i].spoken) {
            assert_done(bed);
            assert_string_equal(qfc_buffer_text(&bed->data), cases[i].spoken);
        } else {
            assert_failed(bed, QFC_ERROR_REFUSED, 0, cases[i].refused);
        }
    }
}

static void a_refused_version_ends_the_calls_that_wait(void **state)
{
    struct bed *bed = *state;

    ROUTE({"GET /version", "200 OK", "{\"ApiVersion\": \"1.30\"}"});
    CALL(qfc_engine_run(bed->engine, ID, on_started, END));
    assert_int_equal(bed->done, 0);
    assert_int_equal(bed->started, 1);
    assert_error(&bed->start_error, QFC_ERROR_REFUSED, 0, "start container 0123456789ab: the engine at ");
    player_stop(&bed->player);
    assert_int_equal(bed->player.request_count, 1);
}

static void what_is_no_engine(void **state)
{
    struct bed *bed = *state;
    static const char *const bodies[] = {"<html>", "{}", "[1]", "{\"ApiVersion\": 1}", "{\"ApiVersion\": \"v1\"}"};

    for (int i = 0; i < 5; i++) {
        ROUTE({"GET /version", "200 OK", bodies[i]});
        CALL(qfc_engine_probe(bed->engine, END));
        assert_failed(bed, QFC_ERROR_INVALID, 0, "not as a Docker engine does");
    }
    ROUTE({"GET /version", "404 Not Found", "<h1>no\nsuch page</h1>"});
    CALL(qfc_engine_probe(bed->engine, END));
    assert_failed(bed, QFC_ERROR_REFUSED, 404, "it answered 404: no such page");
    /* It must not look as if there were no such container. */
    CALL(qfc_engine_inspect(bed->engine, ID, END));
    assert_failed(bed, QFC_ERROR_UNREACHABLE, 0, "inspect container 0123456789ab: ask the engine at ");
}

static void nothing_was_sent_when_the_version_is_lost(void **state)
{
    struct bed *bed = *state;

    ROUTE({"GET /version", .conduct = CLOSE});
    CALL(qfc_engine_probe(bed->engine, END));
    assert_failed(bed, QFC_ERROR_UNKNOWN, 0, "ask the engine at");
    CALL(qfc_engine_create(bed->engine, "a", "{}", 2, END));
    assert_failed(bed, QFC_ERROR_UNREACHABLE, 0, "create container a: ask the engine at");
}

static void the_version_is_asked_again_after_a_break(void **state)
{
    struct bed *bed = *state;

    ROUTE({"GET /v1.41/containers/a/json", .conduct = CLOSE}, {"GET /version", "200 OK", VERSION, .times = 1},
          {"GET /version", "200 OK", "{\"ApiVersion\": \"1.44\"}"},
          {"GET /v1.44/containers/a/json", "400 Bad Request",
           "client version 1.44 is too new. Maximum supported API version is 1.41", .type = "text/plain"});
    CALL(qfc_engine_inspect(bed->engine, "a", END));
    assert_failed(bed, QFC_ERROR_UNKNOWN, 0, "inspect container a: the connection to ");
    CALL(qfc_engine_inspect(bed->engine, "a", END));
    assert_failed(bed, QFC_ERROR_AGAIN, 400, "client version 1.44 is too new");
    CALL(qfc_engine_inspect(bed->engine, "a", END));
    player_stop(&bed->player);
    assert_int_equal(player_count(&bed->player, "GET /version"), 3);
}

static void ask_again(struct bed *bed)
{
    bed->in_done = NULL;
    assert_int_equal(qfc_engine_probe(bed->engine, END), 0);
}

static void calls_wait_for_a_version_asked_in_a_callback(void **state)
{
    struct bed *bed = *state;

    ROUTE({"GET /version", "200 OK", VERSION, .times = 1}, {"GET /version", "200 OK", "{\"ApiVersion\": \"1.44\"}"},
          {"GET /v1.44/containers/json", "200 OK", "[]"});
    bed->in_done = ask_again;
    assert_int_equal(qfc_engine_probe(bed->engine, END), 0);
    CALL(qfc_engine_list(bed->engine, "x", END));
    assert_int_equal(bed->done, 3);
    assert_int_equal(bed->error.kind, QFC_ERROR_NONE);
    player_stop(&bed->player);
    assert_int_equal(player_count(&bed->player, "GET /v1.44/containers/json"), 1);
}

static void free_engine(struct bed *bed)
{
    qfc_engine_free(bed->engine);
    bed->engine = NULL;
}

static void freeing_while_calls_wait(void **state)
{
    struct bed *bed = *state;

    assert_int_equal(qfc_engine_list(bed->engine, "x", on_done, bed, NULL, &bed->error), 0);
    qfc_engine_free(bed->engine);
    uv_run(&bed->loop, UV_RUN_DEFAULT);
    assert_int_equal(bed->done, 0);
    new_engine(bed);
    bed->in_done = free_engine;
    assert_int_equal(qfc_engine_probe(bed->engine, END), 0);
    CALL(qfc_engine_list(bed->engine, "x", END));
    assert_int_equal(bed->done, 1);
}

/* Containers */

static void a_container_is_created(void **state)
{
    struct bed *bed = *state;

    ROUTE({"POST /v1.41/containers/create?name=qfc-1", "201 Created", "{\"Id\": \"" ID "\", \"Warnings\": []}"});
    CALL(qfc_engine_create(bed->engine, "qfc-1", "{\"a\":1}", 7, END));
    assert_done(bed);
    assert_string_equal(bed->reply.id, ID);
    assert_int_equal(bed->reply.status, 201);
    player_stop(&bed->player);
    assert_string_equal(bed->player.requests[1].body, "{\"a\":1}");
    assert_non_null(strstr(bed->player.requests[1].headers, "\r\nContent-Type: application/json\r\n"));
}

static void a_name_that_is_taken_is_ours(void **state)
{
    struct bed *bed = *state;

    ROUTE({"POST /v1.41/containers/create", "409 Conflict", "{\"message\": \"The name is already in use\"}"},
          {"GET /v1.41/containers/qfc-1/json", "200 OK", "{\"Id\": \"" ID "\"}", .times = 1});
    CALL(qfc_engine_create(bed->engine, "qfc-1", "{}", 2, END));
    assert_done(bed);
    assert_string_equal(bed->reply.id, ID);
    assert_int_equal(bed->reply.status, 409);
    /* and now the other one is gone when it is looked for */
    CALL(qfc_engine_create(bed->engine, "qfc-1", "{}", 2, END));
    assert_failed(bed, QFC_ERROR_AGAIN, 409, "create container qfc-1: the engine answered 409: The name is already");
}

static void creations_that_fail(void **state)
{
    struct bed *bed = *state;
    static const char json[] = "{\"Env\": [\"=hunter2\"]}";
    static const struct {
        const char *status, *body;
        enum qfc_error_kind kind;
        int code;
        const char *message;
    } cases[] = {
        {"404 Not Found", "{\"message\": \"No such image: qgis3:latest\"}", QFC_ERROR_REFUSED, 404,
         "create container a: the engine answered 404: No such image: qgis3:latest"},
        {"400 Bad Request", "{\"message\": \"invalid environment variable: =hunter2\"}", QFC_ERROR_REFUSED, 400,
         "answered 400: invalid environment variable"},
        {"503 Service Unavailable", "{}", QFC_ERROR_AGAIN, 503, "answered 503: {}"},
        {"429 Too Many Requests", "slow down\r\n", QFC_ERROR_AGAIN, 429, "answered 429: slow down"},
        {"500 Oops", "", QFC_ERROR_REFUSED, 500, "answered 500: (nothing)"},
        {"500 Oops", "{\"message\": \"\\u001b[31mred\\u0000\\n\\tend\\u0007\"}", QFC_ERROR_REFUSED, 500,
         "answered 500: {"},
        {"500 Oops", "{\"message\": \"\\u001b[31mred\\n\\tend\\u0007 \\u0085\"}", QFC_ERROR_REFUSED, 500,
         "answered 500: [31mred end"},
        {"302 Found", "", QFC_ERROR_UNKNOWN, 0, "not as its API says"},
        {"201 Created", "{\"Id\": \"../../x\"}", QFC_ERROR_UNKNOWN, 0, "no container id"},
        {"201 Created", "{\"Id\": \"" ID "0\"}", QFC_ERROR_UNKNOWN, 0, "no container id"},
        {"201 Created", "not JSON", QFC_ERROR_UNKNOWN, 0, "no container id"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ROUTE({"POST /v1.41/containers/create?name=a", cases[i].status, cases[i].body});
        CALL(qfc_engine_create(bed->engine, "a", json, sizeof json - 1, END));
        assert_failed(bed, cases[i].kind, cases[i].code, cases[i].message);
        assert_null(strstr(bed->error.message, "hunter2"));
        for (const char *c = bed->error.message; *c; c++)
            assert_true((unsigned char)*c >= ' ');
    }
}

static void long_answers_are_cut(void **state)
{
    struct bed *bed = *state;
    static char body[2001]; /* the player may still be at it */

    for (int i = 0; i < 1000; i++)
        memcpy(body + 2 * i, "\xC3\xA4", 3);
    ROUTE({"GET /v1.41/images/a/json", "500 Oops", body, .type = "text/plain"});
    CALL(qfc_engine_image(bed->engine, "a", END));
    assert_failed(bed, QFC_ERROR_AGAIN, 500, "look for image a: the engine answered 500: \xC3\xA4\xC3\xA4");
    assert_in_range(strlen(bed->error.message), 280, 346);
    assert_string_equal(bed->error.message + strlen(bed->error.message) - 5, "\xC3\xA4...");
}

static void images(void **state)
{
    struct bed *bed = *state;

    ROUTE({"GET /v1.41/images/example.org/a%3Ab/json", "200 OK", "{\"Id\": \"sha256:1234\"}"});
    CALL(qfc_engine_image(bed->engine, "example.org/a:b", END));
    assert_done(bed);
    assert_string_equal(qfc_buffer_text(&bed->data), "sha256:1234");
}

static void states_of_containers(void **state)
{
    struct bed *bed = *state;
    static const struct {
        const char *body;
        enum qfc_container_status status;
        int64_t exit_code;
        bool oom_killed;
        const char *error;
    } cases[] = {
        {"{\"Id\": \"" ID
         "\", \"State\": {\"Status\": \"created\", \"ExitCode\": 127, \"OOMKilled\": false, \"Error\": "
         "\"exec: \\\"/x\\\":\\nno such file\"}}",
         QFC_CONTAINER_CREATED, 127, false, "exec: \"/x\": no such file"},
        {"{\"Id\": \"" ID "\", \"State\": {\"Status\": \"paused\", \"ExitCode\": 0}}", QFC_CONTAINER_RUNNING, 0, false,
         ""},
        {"{\"Id\": \"" ID "\", \"State\": {\"Status\": \"exited\", \"ExitCode\": 4294967295, \"OOMKilled\": true}}",
         QFC_CONTAINER_EXITED, 4294967295, true, ""},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ROUTE({"GET /v1.41/containers/a%2F..%2Fb/json", "200 OK", cases[i].body});
        CALL(qfc_engine_inspect(bed->engine, "a/../b", END));
        assert_done(bed);
        assert_string_equal(bed->reply.state.id, ID);
        assert_int_equal(bed->reply.state.status, cases[i].status);
        assert_int_equal(bed->reply.state.exit_code, cases[i].exit_code);
        assert_int_equal(bed->reply.state.oom_killed, cases[i].oom_killed);
        assert_string_equal(bed->reply.state.error, cases[i].error);
    }
}

static void inspections_that_fail(void **state)
{
    struct bed *bed = *state;
    char *large = malloc(1100000);

    ROUTE({"GET /v1.41/containers/a/json", "200 OK", "{\"Id\": \"" ID "\", \"State\": {\"Status\": \"dancing\"}}"},
          {"GET /v1.41/containers/b/json", "404 Not Found", "{\"message\": \"No such container: b\"}"});
    CALL(qfc_engine_inspect(bed->engine, "a", END));
    assert_failed(bed, QFC_ERROR_INVALID, 0, "inspect container a: the engine's answer is not as its API says");
    CALL(qfc_engine_inspect(bed->engine, "b", END));
    assert_failed(bed, QFC_ERROR_REFUSED, 404, "inspect container b: the engine answered 404: No such container: b");
    assert_non_null(large);
    memset(large, ' ', 1100000);
    ROUTE({"GET /v1.41/containers/a/json", "200 OK", large, .body_size = 1100000});
    CALL(qfc_engine_inspect(bed->engine, "a", END));
    assert_failed(bed, QFC_ERROR_INVALID, 0, "larger than 1048576 bytes");
    assert_int_equal(qfc_engine_inspect(bed->engine, "", END), -1);
    assert_int_equal(bed->error.kind, QFC_ERROR_BUG);
    player_stop(&bed->player); /* it may still be sending */
    free(large);
}

static void kill_remove_list(void **state)
{
    struct bed *bed = *state;
    static const char *const gone[] = {"204 No Content", "404 Not Found", "409 Conflict"};

    for (int i = 0; i < 3; i++) {
        ROUTE({"POST /v1.41/containers/" ID "/kill?signal=KILL", gone[i]},
              {"DELETE /v1.41/containers/" ID "?force=1&v=1", gone[i]}, {"DELETE /v1.41/volumes/a%20b", gone[i]});
        CALL(qfc_engine_kill(bed->engine, ID, END));
        assert_done(bed);
        CALL(qfc_engine_remove(bed->engine, ID, END));
        assert_done(bed);
        CALL(qfc_engine_remove_volume(bed->engine, "a b", END));
        assert_done(bed);
    }
    ROUTE({"POST /v1.41/containers/a/kill", "500 Oops", "x"}, {"DELETE /v1.41/containers/a", .conduct = CLOSE},
          {"GET /v1.41/containers/json?all=1&filters=%7B%22label%22%3A%5B%22app%3Dx%22%5D%7D", "200 OK",
           " [{\"Id\": \"" ID "\"}]"});
    CALL(qfc_engine_kill(bed->engine, "a", END));
    assert_failed(bed, QFC_ERROR_REFUSED, 500, "kill container a: the engine answered 500: x");
    CALL(qfc_engine_remove(bed->engine, "a", END));
    assert_failed(bed, QFC_ERROR_UNKNOWN, 0, "remove container a: ");
    CALL(qfc_engine_list(bed->engine, "app=x", END));
    assert_done(bed);
    assert_string_equal(qfc_buffer_text(&bed->data), " [{\"Id\": \"" ID "\"}]");
}

/* Runs */

#define WAIT  "POST /v1.41/containers/a/wait?condition=next-exit"
#define START "POST /v1.41/containers/a/start"

static void a_run(void **state)
{
    struct bed *bed = *state;

    ROUTE({WAIT, "200 OK", "{\"StatusCode\": 3, \"Error\": null}", HEADERS_FIRST},
          {START, "204 No Content", .goes = true});
    CALL(qfc_engine_run(bed->engine, "a", on_started, END));
    assert_done(bed);
    assert_int_equal(bed->started, 1);
    assert_int_equal(bed->start_error.kind, QFC_ERROR_NONE);
    assert_true(bed->started_at < bed->done_at);
    assert_int_equal(bed->reply.exit_code, 3);
    assert_int_equal(bed->reply.status, 204);
    player_stop(&bed->player);
    assert_int_equal(bed->player.request_count, 3);
    assert_non_null(strstr(bed->player.requests[1].target, "/wait"));
    assert_non_null(strstr(bed->player.requests[2].target, "/start"));
}

/* The wait's whole answer is there before the start's. */
static void a_run_that_ends_at_once(void **state)
{
    struct bed *bed = *state;

    ROUTE({WAIT, "200 OK", "{\"StatusCode\": 0}"}, {START, "304 Not Modified"});
    CALL(qfc_engine_run(bed->engine, "a", on_started, END));
    assert_done(bed);
    assert_int_equal(bed->started, 1);
    assert_true(bed->started_at < bed->done_at);
    assert_int_equal(bed->reply.status, 304);
}

static void a_start_that_fails_ends_the_wait(void **state)
{
    struct bed *bed = *state;

    ROUTE({WAIT, "200 OK", "{\"StatusCode\": 0}", HEADERS_FIRST},
          {START, "400 Bad Request", "{\"message\": \"exec: no such file\"}", .times = 1}, {START, .conduct = CLOSE});
    CALL(qfc_engine_run(bed->engine, "a", on_started, END));
    assert_int_equal(bed->done, 0);
    assert_int_equal(bed->started, 1);
    assert_error(&bed->start_error, QFC_ERROR_REFUSED, 400,
                 "start container a: the engine answered 400: exec: no such file");
    CALL(qfc_engine_run(bed->engine, "a", on_started, END));
    assert_int_equal(bed->done, 0);
    assert_error(&bed->start_error, QFC_ERROR_UNKNOWN, 0, "start container a: the connection to ");
}

static void no_start_without_a_wait(void **state)
{
    struct bed *bed = *state;

    ROUTE({WAIT, "404 Not Found", "{\"message\": \"No such container: a\"}", .times = 1}, {WAIT, .conduct = CLOSE});
    CALL(qfc_engine_run(bed->engine, "a", on_started, END));
    assert_int_equal(bed->done, 0);
    assert_error(&bed->start_error, QFC_ERROR_REFUSED, 404, "start container a: the engine answered 404");
    CALL(qfc_engine_run(bed->engine, "a", on_started, END));
    assert_int_equal(bed->done, 0);
    assert_int_equal(bed->start_error.kind, QFC_ERROR_UNREACHABLE);
    player_stop(&bed->player);
    assert_int_equal(player_count(&bed->player, START), 0);
}

/* An engine that holds the wait's headers back until the exit. */
static void a_start_without_the_headers_of_the_wait(void **state)
{
    struct bed *bed = *state;

    ROUTE({WAIT, "200 OK", "{\"StatusCode\": 5}", ALL_LATER}, {START, "204 No Content", .goes = true});
    CALL(qfc_engine_run(bed->engine, "a", on_started, END));
    assert_done(bed);
    assert_int_equal(bed->started, 1);
    assert_int_equal(bed->reply.exit_code, 5);
}

static void a_wait_whose_answer_is_lost(void **state)
{
    struct bed *bed = *state;
    static const struct route waits[] = {
        {WAIT, "200 OK", .conduct = HEADERS_ONLY},
        {WAIT, "200 OK", "", HEADERS_FIRST},
        {WAIT, "200 OK", "{\"StatusCode\": \"0\"}", HEADERS_FIRST},
        {WAIT, "200 OK", "{\"StatusCode\": 0, \"Error\": {\"Message\": \"it was lost\"}}", HEADERS_FIRST},
    };

    for (int i = 0; i < 4; i++) {
        ROUTE(waits[i], {START, "204 No Content", .goes = true});
        CALL(qfc_engine_run(bed->engine, "a", on_started, END));
        assert_int_equal(bed->started, 1);
        assert_int_equal(bed->start_error.kind, QFC_ERROR_NONE);
        assert_failed(bed, QFC_ERROR_UNKNOWN, 0, i == 3 ? "could not tell its end: it was lost" : "container a: ");
        assert_true(bed->started_at < bed->done_at);
    }
}

static void cancel_call(struct bed *bed)
{
    qfc_engine_cancel(bed->call);
}

static void cancelling_and_freeing_a_run(void **state)
{
    struct bed *bed = *state;

    ROUTE({WAIT, "200 OK", "{\"StatusCode\": 3}", HEADERS_FIRST}, {START, "204 No Content"});
    bed->in_started = cancel_call;
    CALL(qfc_engine_run(bed->engine, "a", on_started, END));
    assert_int_equal(bed->started, 1);
    assert_int_equal(bed->done, 0);
    bed->in_started = free_engine;
    CALL(qfc_engine_run(bed->engine, "a", on_started, END));
    assert_int_equal(bed->started, 1);
    assert_int_equal(bed->done, 0);
}

/* Cancelled while its headers are awaited: nothing is left that keeps the loop running. */
static void cancelling_a_run_early(void **state)
{
    struct bed *bed = *state;

    ROUTE({WAIT, "200 OK", "", ALL_LATER});
    CALL(qfc_engine_probe(bed->engine, END));
    bed->done = 0;
    assert_int_equal(qfc_engine_run(bed->engine, "a", on_started, END), 0);
    uv_run(&bed->loop, UV_RUN_NOWAIT);
    qfc_engine_cancel(bed->call);
    uv_run(&bed->loop, UV_RUN_NOWAIT);
    assert_false(uv_loop_alive(&bed->loop));
    assert_int_equal(bed->started + bed->done, 0);
    sem_post(&bed->go);
    player_stop(&bed->player);
    assert_int_equal(player_count(&bed->player, START), 0);
}

static void waits(void **state)
{
    struct bed *bed = *state;

    ROUTE({"POST /v1.41/containers/a/wait?condition=not-running", "200 OK", "{\"StatusCode\": 137}"},
          {"POST /v1.41/containers/b/wait?condition=not-running", "404 Not Found", "{\"message\": \"no b\"}"});
    CALL(qfc_engine_wait(bed->engine, "a", END));
    assert_done(bed);
    assert_int_equal(bed->reply.exit_code, 137);
    CALL(qfc_engine_wait(bed->engine, "b", END));
    assert_failed(bed, QFC_ERROR_REFUSED, 404, "wait for container b: the engine answered 404: no b");
}

/* Logs and files */

#define LOGS "GET /v1.41/containers/a/logs?stdout=1&stderr=1"
#define LOG(text)                                                                                                      \
    {                                                                                                                  \
        LOGS, "200 OK", text, .body_size = sizeof(text) - 1                                                            \
    }

static void logs(void **state)
{
    struct bed *bed = *state;

    ROUTE(LOG("\1\0\0\0\0\0\0\4out\n\2\0\0\0\0\0\0\4err\n"));
    CALL(qfc_engine_logs(bed->engine, "a", on_log, END));
    assert_done(bed);
    assert_string_equal(qfc_buffer_text(&bed->log), "out\nerr\n");
    ROUTE({LOGS, "200 OK", ""});
    CALL(qfc_engine_logs(bed->engine, "a", on_log, END));
    assert_done(bed);
    ROUTE({LOGS, "501 Not Implemented", "{\"message\": \"configured logging driver does not support reading\"}"});
    CALL(qfc_engine_logs(bed->engine, "a", on_log, END));
    assert_failed(bed, QFC_ERROR_REFUSED, 501, "read the log of container a: the engine answered 501: configured");
}

#define FOLLOW "GET /v1.41/containers/a/logs?follow=1&stdout=1&stderr=1"

/* Each piece with its stream before it. */
static int on_followed(void *userdata, bool from_stderr, const char *data, size_t size)
{
    struct bed *bed = userdata;
    assert_int_equal(qfc_buffer_printf(&bed->log, "%s:%.*s", from_stderr ? "err" : "out", (int)size, data), 0);
    return 0;
}

static void following(void **state)
{
    struct bed *bed = *state;

    ROUTE({FOLLOW, "200 OK", "\1\0\0\0\0\0\0\2a\n\2\0\0\0\0\0\0\2b\n", .body_size = 20});
    CALL(qfc_engine_follow(bed->engine, "a", on_followed, END));
    assert_done(bed);
    assert_string_equal(qfc_buffer_text(&bed->log), "out:a\nerr:b\n");
    ROUTE({FOLLOW, "404 Not Found", "{\"message\": \"no a\"}"});
    CALL(qfc_engine_follow(bed->engine, "a", on_followed, END));
    assert_failed(bed, QFC_ERROR_REFUSED, 404, "follow the log of container a: the engine answered 404: no a");
}

#define STATS "GET /v1.41/containers/a/stats?stream=0&one-shot=1"

static void assert_usage(struct bed *bed, const char *answer, struct qfc_container_usage expected)
{
    ROUTE({STATS, "200 OK", answer});
    CALL(qfc_engine_stats(bed->engine, "a", END));
    assert_done(bed);
    assert_memory_equal(&bed->reply.usage, &expected, sizeof expected);
}

/* As cgroup v1 and v2 tell it, and nonsense. */
static void stats(void **state)
{
    struct bed *bed = *state;

    assert_usage(
        bed,
        "{\"cpu_stats\": {\"cpu_usage\": {\"total_usage\": 412303613}}, \"memory_stats\": {\"usage\": 23085056,"
        " \"max_usage\": 24662016, \"stats\": {\"total_inactive_file\": 21733376, \"inactive_file\": 1}},"
        " \"networks\": {\"eth0\": {\"rx_bytes\": 700, \"tx_bytes\": 5}, \"eth1\": {\"rx_bytes\": 36}}}",
        (struct qfc_container_usage){412303613, 1351680, 736, 5});
    assert_usage(bed, "{\"memory_stats\": {\"usage\": 100, \"stats\": {\"inactive_file\": 40}}}",
                 (struct qfc_container_usage){.memory_bytes = 60});
    assert_usage(bed, "{\"memory_stats\": {\"usage\": 100, \"stats\": {\"inactive_file\": 400}}}",
                 (struct qfc_container_usage){.memory_bytes = 100});
    assert_usage(bed, "{\"cpu_stats\": 7, \"memory_stats\": {\"usage\": -1}, \"networks\": {\"eth0\": [\"rx_bytes\"]}}",
                 (struct qfc_container_usage){0});
    ROUTE({STATS, "200 OK", "[]"});
    CALL(qfc_engine_stats(bed->engine, "a", END));
    assert_failed(bed, QFC_ERROR_INVALID, 0, "ask what container a uses: the engine's answer is not as its API says");
}

static int give_up(struct bed *bed)
{
    return -1;
}

static int cancel_in_log(struct bed *bed)
{
    qfc_engine_cancel(bed->call);
    return 0;
}

static int free_in_log(struct bed *bed)
{
    free_engine(bed);
    return 0;
}

static void logs_that_fail(void **state)
{
    struct bed *bed = *state;

    ROUTE(LOG("no frames at all"));
    CALL(qfc_engine_logs(bed->engine, "a", on_log, END));
    assert_failed(bed, QFC_ERROR_INVALID, 0, "read the log of container a: the log is not framed");
    ROUTE(LOG("\1\0\0\0\0\0\0\5out\n"));
    CALL(qfc_engine_logs(bed->engine, "a", on_log, END));
    assert_failed(bed, QFC_ERROR_INVALID, 0, "ends within a frame");
    ROUTE(LOG("\1\0\0\0\0\0\0\1x\3\0\0\0\0\0\0\5oops\n"));
    CALL(qfc_engine_logs(bed->engine, "a", on_log, END));
    assert_failed(bed, QFC_ERROR_INVALID, 0, "the engine broke off: oops");
    bed->in_log = give_up;
    CALL(qfc_engine_logs(bed->engine, "a", on_log, END));
    assert_failed(bed, QFC_ERROR_INVALID, 0, "given up");
    ROUTE(LOG("\1\0\0\0\0\0\0\1x\1\0\0\0\0\0\0\1y"));
    qfc_buffer_free(&bed->log);
    bed->in_log = cancel_in_log;
    CALL(qfc_engine_logs(bed->engine, "a", on_log, END));
    assert_int_equal(bed->done, 0);
    assert_string_equal(qfc_buffer_text(&bed->log), "x");
    bed->in_log = free_in_log;
    CALL(qfc_engine_logs(bed->engine, "a", on_log, END));
    assert_int_equal(bed->done, 0);
}

static void put_archive(void **state)
{
    struct bed *bed = *state;

    ROUTE({"PUT /v1.41/containers/a/archive?path=%2Fio", "200 OK"});
    CALL(qfc_engine_put_archive(bed->engine, "a", "/io", "a tar", 5, END));
    assert_done(bed);
    CALL(qfc_engine_put_archive(bed->engine, "b", "/io", "a tar", 5, END));
    assert_failed(bed, QFC_ERROR_REFUSED, 404, "put files into /io of container b: the engine answered 404");
    player_stop(&bed->player);
    assert_string_equal(bed->player.requests[1].body, "a tar");
    assert_non_null(strstr(bed->player.requests[1].headers, "\r\nContent-Type: application/x-tar\r\n"));
}

#define FILE_OF_A "GET /v1.41/containers/a/archive?path=%2Fio%2Ffeedback.json"

/* A directory's header is a file's with another type (POSIX, ustar) and the sum of its bytes made right. */
static void make_directory(char *header)
{
    unsigned sum = 0;

    header[156] = '5';
    memset(header + 124, '0', 11);
    memset(header + 148, ' ', 8);
    for (int i = 0; i < 512; i++)
        sum += (unsigned char)header[i];
    snprintf(header + 148, 8, "%06o", sum);
}

static void files(void **state)
{
    struct bed *bed = *state;
    static char content[200000];
    struct qfc_tar_file file = {.name = "feedback.json", .data = content, .size = 1000, .mode = 0644};
    struct qfc_buffer small = qfc_buffer(1 << 20), large = qfc_buffer(1 << 20), directory = qfc_buffer(1 << 20);

    memset(content, 'f', sizeof content);
    assert_int_equal(qfc_tar_write(&file, 1, &small, &bed->error), 0);
    file.size = sizeof content;
    assert_int_equal(qfc_tar_write(&file, 1, &large, &bed->error), 0);
    ROUTE({FILE_OF_A, "200 OK", small.data, .body_size = small.size});
    CALL(qfc_engine_get_file(bed->engine, "a", "/io/feedback.json", 1000, END));
    assert_done(bed);
    assert_int_equal(bed->data.size, 1000);
    assert_memory_equal(bed->data.data, content, 1000);
    CALL(qfc_engine_get_file(bed->engine, "a", "/io/feedback.json", 999, END));
    assert_failed(bed, QFC_ERROR_INVALID, 0, "read the file /io/feedback.json of container a: larger than 999 bytes");

    ROUTE({FILE_OF_A, "200 OK", large.data, .body_size = large.size});
    CALL(qfc_engine_get_file(bed->engine, "a", "/io/feedback.json", 1000, END));
    assert_failed(bed, QFC_ERROR_INVALID, 0, "larger than 1000 bytes");
    assert_int_equal(qfc_buffer_append(&directory, large.data, large.size), 0);
    make_directory(directory.data);
    ROUTE({FILE_OF_A, "200 OK", directory.data, .body_size = directory.size});
    CALL(qfc_engine_get_file(bed->engine, "a", "/io/feedback.json", 1000, END));
    assert_failed(bed, QFC_ERROR_INVALID, 0, "directory");
    ROUTE({FILE_OF_A, "200 OK", small.data, .body_size = 700});
    CALL(qfc_engine_get_file(bed->engine, "a", "/io/feedback.json", 1000, END));
    assert_int_equal(bed->error.kind, QFC_ERROR_INVALID);
    ROUTE({FILE_OF_A, "200 OK", ""});
    CALL(qfc_engine_get_file(bed->engine, "a", "/io/feedback.json", 1000, END));
    assert_int_equal(bed->error.kind, QFC_ERROR_UNKNOWN);
    ROUTE({FILE_OF_A, "404 Not Found", "{\"message\": \"Could not find the file\"}"});
    CALL(qfc_engine_get_file(bed->engine, "a", "/io/feedback.json", 1000, END));
    assert_failed(bed, QFC_ERROR_REFUSED, 404, "answered 404: Could not find the file");
    player_stop(&bed->player); /* it may still be sending */
    qfc_buffer_free(&small);
    qfc_buffer_free(&large);
    qfc_buffer_free(&directory);
}

static void a_deadline(void **state)
{
    struct bed *bed = *state;
    char host[128];
    struct qfc_engine_options options = {.host = host, .deadline_ms = 500};

    ROUTE({"GET /v1.41/containers/a/json", "200 OK", "", HEADERS_FIRST});
    snprintf(host, sizeof host, "unix://%s", bed->player.path);
    qfc_engine_free(bed->engine);
    bed->engine = qfc_engine_new(&bed->loop, bed->http, &options, &bed->error);
    assert_non_null(bed->engine);
    CALL(qfc_engine_inspect(bed->engine, "a", END));
    assert_failed(bed, QFC_ERROR_UNKNOWN, 0, "inspect container a: no whole answer of ");
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(hosts_that_cannot_be_used),
        TEST(hosts),
        TEST(certificates),
        TEST(nobody_there),
        TEST(a_socket_of_others),
        TEST(the_version_is_asked_once),
        TEST(versions),
        TEST(a_refused_version_ends_the_calls_that_wait),
        TEST(what_is_no_engine),
        TEST(nothing_was_sent_when_the_version_is_lost),
        TEST(the_version_is_asked_again_after_a_break),
        TEST(calls_wait_for_a_version_asked_in_a_callback),
        TEST(freeing_while_calls_wait),
        TEST(a_container_is_created),
        TEST(a_name_that_is_taken_is_ours),
        TEST(creations_that_fail),
        TEST(long_answers_are_cut),
        TEST(images),
        TEST(states_of_containers),
        TEST(inspections_that_fail),
        TEST(kill_remove_list),
        TEST(a_run),
        TEST(a_run_that_ends_at_once),
        TEST(a_start_that_fails_ends_the_wait),
        TEST(no_start_without_a_wait),
        TEST(a_start_without_the_headers_of_the_wait),
        TEST(a_wait_whose_answer_is_lost),
        TEST(cancelling_and_freeing_a_run),
        TEST(cancelling_a_run_early),
        TEST(waits),
        TEST(logs),
        TEST(logs_that_fail),
        TEST(following),
        TEST(stats),
        TEST(put_archive),
        TEST(files),
        TEST(a_deadline),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
