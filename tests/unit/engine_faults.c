/*
 * A faulty engine on each call: every row of `calls` meets every row of `faults`.
 *
 * Each call must end once, with an error that names it and says what is wrong, or well where the answer's body does not
 * matter to it; a call that changes something must not be called INVALID, since it may have been done. Nothing may be
 * left over, and memory stays bounded however much comes. The calls of a fault run at the same time, so that those that
 * only their deadline ends take no longer than one.
 */
#include "engine_bed.h"

#include <sys/resource.h>

#define DEADLINE_MS  1000
#define WATCHDOG_MS  60000
#define FILE_MAX     (256u * 1024)
#define FLOOD_BYTES  (1024u * 1024 * 1024)
#define GROWTH_BYTES (512u * 1024 * 1024) /* with the sanitizers' own; a flood is twice as large */

/* The answers. */

typedef bool play_fault(int fd);

static bool hang_up(int fd)
{
    return false;
}

static bool say_nothing(int fd)
{
    return true; /* and wait for the next request */
}

static bool headers_only(int fd)
{
    return player_text(fd, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n");
}

/* As long as somebody listens. */
static bool drip(int fd, const char *begin, const char *drop)
{
    bool listens = player_text(fd, begin);

    while (listens) {
        listens = player_text(fd, drop);
        usleep(20000);
    }
    return false;
}

static bool slow_headers(int fd)
{
    return drip(fd, "HTTP/1.1 200 OK\r\nX-Slow: ", "x");
}

static bool slow_body(int fd)
{
    return drip(fd, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n", " ");
}

static bool only_continue(int fd)
{
    return drip(fd, "", "HTTP/1.1 102 Processing\r\n\r\n");
}

static bool cut_body(int fd)
{
    return play_raw(fd,
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{\"Id\": \"01");
}

static bool cut_chunk(int fd)
{
    return play_raw(fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n400\r\n{\"Id\": \"01");
}

static bool cut_headers(int fd)
{
    return play_raw(fd, "HTTP/1.1 200 OK\r\nContent-Ty");
}

static bool length_too_short(int fd)
{
    return play_raw(fd,
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 3\r\n\r\n{\"Id\": \"0123\"}");
}

static bool length_that_is_none(int fd)
{
    return play_raw(fd, "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n{}");
}

static bool chunk_that_is_none(int fd)
{
    return play_raw(fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n");
}

static bool not_http(int fd)
{
    return play_raw(fd, "SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n");
}

static bool error_500(int fd)
{
    return player_json(fd, "500 Internal Server Error", "{\"message\": \"something is broken\"}");
}

static bool error_of_a_proxy(int fd)
{
    static const char page[] = "<html><head><title>502 Bad Gateway</title></head><body><h1>no engine today</h1></html>";
    return player_answer(fd, "502 Bad Gateway", "text/html", page, strlen(page));
}

static bool forbidden(int fd)
{
    static const char page[] =
        "<html><body><h1>403 Forbidden</h1>\nRequest forbidden by administrative rules.\n</html>";
    return player_answer(fd, "403 Forbidden", "text/html", page, strlen(page));
}

static bool page_of_html(int fd)
{
    static const char page[] = "<!DOCTYPE html><html><body>It works!</body></html>";
    return player_answer(fd, "200 OK", "text/html; charset=utf-8", page, strlen(page));
}

static bool redirected(int fd)
{
    return player_text(fd,
                       "HTTP/1.1 301 Moved Permanently\r\nLocation: https://localhost/\r\nContent-Length: 0\r\n\r\n");
}

static bool other_types(int fd)
{
    return player_json(fd, "200 OK", "{\"Id\": 5, \"ID\": 5, \"Name\": {}, \"State\": [], \"StatusCode\": \"0\"}");
}

static bool no_body(int fd)
{
    return player_json(fd, "200 OK", "");
}

/* Until the client has had enough, or a gigabyte has come. */
static atomic_size_t flooded;

static bool flood_of(int fd, const char *head, const char *text, size_t length)
{
    char piece[65536];

    for (size_t i = 0; i + length <= sizeof piece; i += length)
        memcpy(piece + i, text, length);
    if (!player_text(fd, head))
        return false;
    for (size_t sent = 0; sent < FLOOD_BYTES; sent += sizeof piece) {
        if (!player_write(fd, piece, sizeof piece / length * length))
            return false;
        flooded += sizeof piece;
    }
    return false;
}

static bool flood(int fd, const char *head, const char *text)
{
    return flood_of(fd, head, text, strlen(text));
}

/* Frames of two bytes, as good as any; the log's reader takes them all, until its time is over. */
static bool endless_log(int fd)
{
    return flood_of(fd, "HTTP/1.1 200 OK\r\n\r\n", "\1\0\0\0\0\0\0\2x\n", 10);
}

static bool json_of_1_gb(int fd)
{
    return flood(fd, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1073741824\r\n\r\n[", "{},");
}

static bool json_nested(int fd)
{
    static char nested[100000];

    memset(nested, '[', sizeof nested);
    return player_answer(fd, "200 OK", "application/json", nested, sizeof nested);
}

static bool endless_error(int fd)
{
    return flood(fd, "HTTP/1.1 500 Internal Server Error\r\n\r\n", "something is broken, ");
}

static bool endless_headers(int fd)
{
    return flood(fd, "HTTP/1.1 200 OK\r\n", "X-More: and more\r\n");
}

enum ending { ENDS, HANGS, FLOODS };

/* `words`: all of its errors have them. */
static const struct fault {
    const char *name;
    play_fault *play;
    enum ending ending;
    const char *words;
} faults[] = {
    {"hangs up", hang_up, ENDS, NULL},
    {"says nothing", say_nothing, HANGS, "within 1000 ms"},
    {"headers without a body", headers_only, HANGS, "within 1000 ms"},
    {"headers that come slowly", slow_headers, HANGS, "within 1000 ms"},
    {"a body that comes slowly", slow_body, HANGS, NULL},
    {"only interim answers", only_continue, HANGS, NULL},
    {"a body that is cut", cut_body, ENDS, NULL},
    {"a chunk that is cut", cut_chunk, ENDS, NULL},
    {"headers that are cut", cut_headers, ENDS, NULL},
    {"a length that is too short", length_too_short, ENDS, NULL},
    {"a length that is none", length_that_is_none, ENDS, NULL},
    {"a chunk that is none", chunk_that_is_none, ENDS, NULL},
    {"not HTTP", not_http, ENDS, NULL},
    {"500", error_500, ENDS, "500: something is broken"},
    {"a proxy's 502", error_of_a_proxy, ENDS, "502: 502 Bad Gateway no engine today"},
    {"a proxy's 403", forbidden, ENDS, "must allow "},
    {"a page of HTML", page_of_html, ENDS, NULL},
    {"a redirection", redirected, ENDS, NULL},
    {"JSON of other types", other_types, ENDS, NULL},
    {"an empty body", no_body, ENDS, NULL},
    {"JSON of 1 GB", json_of_1_gb, FLOODS, NULL},
    {"a log without an end", endless_log, FLOODS, NULL},
    {"JSON that is nested deeply", json_nested, ENDS, NULL},
    {"an error without an end", endless_error, FLOODS, NULL},
    {"headers without an end", endless_headers, FLOODS, NULL},
};

/* The calls. */

struct outcome {
    struct engine_bed *bed;
    int started, done, ended;
    struct qfc_error error;
    struct qfc_engine_call *call;
};

static void on_done(void *userdata, const struct qfc_error *error, const struct qfc_engine_reply *reply)
{
    struct outcome *outcome = userdata;

    outcome->done++;
    outcome->ended++;
    outcome->error = error ? *error : QFC_NO_ERROR;
}

static void on_started(void *userdata, const struct qfc_error *error, const struct qfc_engine_reply *reply)
{
    struct outcome *outcome = userdata;

    outcome->started++;
    if (error)
        outcome->ended++;
    outcome->error = error ? *error : QFC_NO_ERROR;
}

static int on_log(void *userdata, const char *data, size_t size)
{
    return 0;
}

static int on_followed(void *userdata, bool from_stderr, const char *data, size_t size)
{
    return 0;
}

static int on_piece(void *userdata, const char *data, size_t size)
{
    return 0;
}

static ssize_t read_more(void *userdata, char *out, size_t room)
{
    return 0;
}

#define ENGINE outcome->bed->engine
#define END    on_done, outcome, &outcome->call, &outcome->error
#define CALL(name, expression)                                                                                         \
    static int call_##name(struct outcome *outcome)                                                                    \
    {                                                                                                                  \
        return expression;                                                                                             \
    }

CALL(image, qfc_engine_image(ENGINE, "qgis3:latest", END))
CALL(network, qfc_engine_network(ENGINE, "net", END))
CALL(volume, qfc_engine_volume(ENGINE, "vol", END))
CALL(identity, qfc_engine_identity(ENGINE, END))
CALL(create, qfc_engine_create(ENGINE, "qfc-1", "{}", 2, END))
CALL(holder, qfc_engine_create(ENGINE, "qfc-2", "{}", 2, END))
CALL(put, qfc_engine_put_archive(ENGINE, "put", "/io", "x", 1, END))
CALL(run_wait, qfc_engine_run(ENGINE, "unwaited", on_started, END))
CALL(run_start, qfc_engine_run(ENGINE, "unstarted", on_started, END))
CALL(wait, qfc_engine_wait(ENGINE, "waited", END))
CALL(inspect, qfc_engine_inspect(ENGINE, "seen", END))
CALL(logs, qfc_engine_logs(ENGINE, "told", on_log, END))
CALL(get, qfc_engine_get_file(ENGINE, "got", "/io/f", FILE_MAX, END))
CALL(kill, qfc_engine_kill(ENGINE, "killed", END))
CALL(remove, qfc_engine_remove(ENGINE, "removed", END))
CALL(remove_idle, qfc_engine_remove_idle(ENGINE, "idle", END))
CALL(list, qfc_engine_list(ENGINE, "a=b", END))
CALL(unused, qfc_engine_unused_volumes(ENGINE, "a=b", END))
CALL(remove_volume, qfc_engine_remove_volume(ENGINE, "left", END))
CALL(stats, qfc_engine_stats(ENGINE, "used", END))
CALL(follow, qfc_engine_follow(ENGINE, "followed", on_followed, END))
CALL(export, qfc_engine_export(ENGINE, "img:4", on_piece, END))
CALL(load, qfc_engine_load(ENGINE, "img:5", read_more, END))
CALL(tag, qfc_engine_tag(ENGINE, "img", "img:2", END))
CALL(untag, qfc_engine_untag(ENGINE, "img:3", END))

#define CHANGES 1 /* the engine may have done it */
#define ANY     2 /* a 2xx answer is all that is asked for */
#define ENDLESS 4 /* no deadline */

static const struct call {
    const char *request; /* how its request begins, that is spoiled */
    const char *says;    /* how its error's message begins */
    int (*begin)(struct outcome *outcome);
    int nature;
    const char *takes; /* the fault that is none to it */
} calls[] = {
    {"GET /v1.41/images/qgis3%3Alatest/json", "look for image qgis3:latest", call_image, 0},
    {"GET /v1.41/networks/net", "look for network net", call_network, 0},
    {"GET /v1.41/volumes/vol", "look for volume vol", call_volume, 0},
    {"GET /v1.41/info", "ask the engine for its identity", call_identity, ANY},
    {"POST /v1.41/containers/create?name=qfc-1", "create container qfc-1", call_create, CHANGES},
    {"GET /v1.41/containers/qfc-2/json", "create container qfc-2", call_holder, 0},
    {"PUT /v1.41/containers/put/archive", "put files into /io of container put", call_put, CHANGES | ANY},
    {"POST /v1.41/containers/unwaited/wait", "start container unwaited", call_run_wait, CHANGES | ENDLESS},
    {"POST /v1.41/containers/unstarted/start", "start container unstarted", call_run_start, CHANGES | ANY},
    {"POST /v1.41/containers/waited/wait", "wait for container waited", call_wait, CHANGES | ENDLESS},
    {"GET /v1.41/containers/seen/json", "inspect container seen", call_inspect, 0},
    {"GET /v1.41/containers/told/logs", "read the log of container told", call_logs, 0, "an empty body"},
    {"GET /v1.41/containers/got/archive", "read the file /io/f of container got", call_get, 0},
    {"POST /v1.41/containers/killed/kill", "kill container killed", call_kill, CHANGES | ANY},
    {"DELETE /v1.41/containers/removed?force=1", "remove container removed", call_remove, CHANGES | ANY},
    {"DELETE /v1.41/containers/idle?v=1", "remove container idle", call_remove_idle, CHANGES | ANY},
    {"GET /v1.41/containers/json", "list containers with label a=b", call_list, 0,
     "JSON that is nested deeply"} /* which its caller reads */,
    {"GET /v1.41/volumes?filters=", "list unused volumes with label a=b", call_unused, 0},
    {"DELETE /v1.41/volumes/left", "remove volume left", call_remove_volume, CHANGES | ANY},
    {"GET /v1.41/containers/used/stats", "ask what container used uses", call_stats, 0,
     "JSON of other types"} /* of one that does not run all is empty */,
    {"GET /v1.41/containers/followed/logs", "follow the log of container followed", call_follow, ENDLESS | ANY},
    {"GET /v1.41/images/img%3A4/get", "export image img:4", call_export, ENDLESS | ANY},
    {"POST /v1.41/images/load", "load image img:5", call_load, CHANGES | ENDLESS | ANY},
    {"POST /v1.41/images/img/tag", "name image img img:2", call_tag, CHANGES | ANY},
    {"DELETE /v1.41/images/img%3A3", "take away the image's name img:3", call_untag, CHANGES | ANY},
};
#define CALL_COUNT (sizeof calls / sizeof *calls)

static bool play(struct player *player, int fd, const struct request *request)
{
    const struct fault *fault = ((struct engine_bed *)player->userdata)->test;
    char line[600];

    snprintf(line, sizeof line, "%s %s", request->method, request->target);
    if (strcmp(request->target, "/version") == 0)
        return player_json(fd, "200 OK", "{\"ApiVersion\": \"1.41\", \"MinAPIVersion\": \"1.12\"}");
    if (strstr(line, "name=qfc-2"))
        return player_json(fd, "409 Conflict", "{\"message\": \"taken\"}");
    if (strstr(line, "unstarted/wait")) /* it waits */
        return player_text(fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    if (strstr(line, "unwaited/start"))
        return player_text(fd, "HTTP/1.1 204 No Content\r\n\r\n");
    for (size_t i = 0; i < CALL_COUNT; i++)
        if (strncmp(line, calls[i].request, strlen(calls[i].request)) == 0)
            return fault->play(fd);
    player_check(false);
    return false;
}

/* Those whose wait stands, and that nothing but their caller ends. */
static void end_the_endless(struct outcome *outcomes)
{
    for (size_t i = 0; i < CALL_COUNT; i++)
        if (outcomes[i].ended == 0 && outcomes[i].call) {
            assert_true(calls[i].nature & (ENDLESS | ANY)); /* a start that was answered well, too */
            qfc_engine_cancel(outcomes[i].call);
            outcomes[i].call = NULL;
        }
}

static bool all_but_the_endless_have_ended(const struct outcome *outcomes)
{
    for (size_t i = 0; i < CALL_COUNT; i++)
        if (outcomes[i].ended == 0 && !(calls[i].nature & ENDLESS) && !outcomes[i].started)
            return false;
    return true;
}

static void on_watchdog(uv_timer_t *timer)
{
    fail_msg("a call has not ended in %d s", WATCHDOG_MS / 1000);
}

/* Whatever came is one line, and not too long, about this call. */
static void check(const struct call *call, const struct fault *fault, const struct outcome *outcome)
{
    const struct qfc_error *error = &outcome->error;
    const char *message = error->message;

    assert_true(outcome->done <= 1 && outcome->started <= 1);
    if (error->kind == QFC_ERROR_NONE) {
        if (!(call->nature & (ANY | ENDLESS)) && !(call->takes && strcmp(call->takes, fault->name) == 0))
            fail_msg("%s, %s: no error", call->says, fault->name);
        return;
    }
    if (strncmp(message, call->says, strlen(call->says)) != 0 || strpbrk(message, "\r\n<") || strlen(message) > 600 ||
        (fault->words && !(call->nature & ENDLESS) && !strstr(message, fault->words)))
        fail_msg("%s, %s: %s", call->says, fault->name, message);
    if (error->kind == QFC_ERROR_MEMORY || error->kind == QFC_ERROR_BUG || error->kind == QFC_ERROR_UNREACHABLE ||
        ((call->nature & CHANGES) && error->kind == QFC_ERROR_INVALID))
        if (!(call->nature & ENDLESS && error->kind == QFC_ERROR_UNREACHABLE)) /* nothing was started */
            fail_msg("%s, %s: %s: %s", call->says, fault->name, qfc_error_kind_name(error->kind), message);
    if (getenv("QFC_TEST_SHOW"))
        print_message("%s | %s\n", fault->name, message);
}

static void meets_every_call(void **state)
{
    struct engine_bed bed;
    struct outcome outcomes[CALL_COUNT] = {0};
    const struct fault *fault = *state;
    struct rusage before, after;
    uv_timer_t watchdog;

    getrusage(RUSAGE_SELF, &before);
    flooded = 0;
    bed_set_up(&bed, DEADLINE_MS, play);
    bed.test = (void *)fault;
    uv_timer_init(&bed.loop, &watchdog);
    uv_timer_start(&watchdog, on_watchdog, WATCHDOG_MS, 0);
    for (size_t i = 0; i < CALL_COUNT; i++) {
        outcomes[i].bed = &bed;
        assert_int_equal(calls[i].begin(&outcomes[i]), 0);
    }
    while (!all_but_the_endless_have_ended(outcomes))
        uv_run(&bed.loop, UV_RUN_ONCE);
    end_the_endless(outcomes);
    uv_close((uv_handle_t *)&watchdog, NULL);
    bed_tear_down(&bed);
    for (size_t i = 0; i < CALL_COUNT; i++)
        check(&calls[i], fault, &outcomes[i]);
    getrusage(RUSAGE_SELF, &after);
    assert_true((size_t)(after.ru_maxrss - before.ru_maxrss) * 1024 < GROWTH_BYTES);
    assert_true((fault->ending == FLOODS) == (flooded > 0));
    if (fault->play != endless_log)
        assert_true(flooded < FLOOD_BYTES); /* of all calls together, so each has broken it off early */
}

int main(void)
{
    enum { COUNT = sizeof faults / sizeof *faults };
    struct CMUnitTest tests[COUNT];

    for (size_t i = 0; i < COUNT; i++)
        tests[i] = (struct CMUnitTest){
            .name = faults[i].name, .test_func = meets_every_call, .initial_state = (void *)&faults[i]};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
