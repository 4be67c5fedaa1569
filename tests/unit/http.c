/* HTTP on the loop against a server that misbehaves in every way that one can. */
#include "qfc/http.h"
#include "player.h"

#include <errno.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define LARGE (1024 * 1024)

static sem_t received; /* posted by the client for each piece that it got */

static bool play_endless(int fd, const char *status)
{
    char piece[4096];

    memset(piece, 'x', sizeof piece);
    player_text(fd, "HTTP/1.1 ");
    player_text(fd, status);
    player_text(fd, "\r\n\r\n");
    while (player_write(fd, piece, sizeof piece))
        ;
    return false;
}

static bool play_fragments(int fd)
{
    static const char head[] = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    static const char *const chunks[] = {"1\r\na\r\n", "2\r\nbc\r\n", "3\r\ndef\r\n", "0\r\n\r\n"};

    for (size_t i = 0; i < sizeof head - 1; i++)
        player_write(fd, head + i, 1);
    for (size_t i = 0; i < 4; i++) {
        player_text(fd, chunks[i]);
        if (i < 3)
            sem_wait(&received);
    }
    return true;
}

static bool play_silence(int fd)
{
    char byte;

    while (recv(fd, &byte, 1, 0) > 0)
        ;
    return false;
}

struct faulty {
    const char *target;
    const char *answer; /* then the connection is closed */
};

static const struct faulty faulty_answers[] = {
    {"/cut", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this"},
    {"/cut-headers", "HTTP/1.1 200 OK\r\nContent-Le"},
    {"/cut-chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nabc"},
    {"/too-much", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfour and more"},
    {"/garbage", "\x16\x03\x01 what is this?\r\n\r\n"},
    {"/nothing", ""},
    {"/html", "HTTP/1.1 500 Internal Server Error\r\nContent-Type: text/html\r\n\r\n<html>oops</html>"},
    {"/redirect", "HTTP/1.1 302 Found\r\nLocation: /hello\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"},
    {"/continue", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"},
    {"/trailers", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-End: 1\r\n\r\n"},
    {"/until-close", "HTTP/1.0 200 OK\r\n\r\nup to the end"},
};

static bool play(struct player *player, int fd, const struct request *request)
{
    const char *target = request->target;

    for (size_t i = 0; i < sizeof faulty_answers / sizeof *faulty_answers; i++)
        if (strcmp(target, faulty_answers[i].target) == 0) {
            player_text(fd, faulty_answers[i].answer);
            return false;
        }
    if (strcmp(target, "/endless") == 0)
        return play_endless(fd, "200 OK");
    if (strcmp(target, "/endless-refusal") == 0)
        return play_endless(fd, "404 Not Found");
    if (strcmp(target, "/fragments") == 0)
        return play_fragments(fd);
    if (strcmp(target, "/silence") == 0)
        return play_silence(fd);
    if (strcmp(target, "/none") == 0)
        return player_text(fd, "HTTP/1.1 204 No Content\r\n\r\n");
    if (strcmp(target, "/once") == 0 && request->connection == 1)
        return false;
    if (strcmp(target, "/headers-only") == 0)
        return player_text(fd, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n") && play_silence(fd);
    if (strcmp(request->method, "HEAD") == 0)
        return player_text(fd, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
    return player_answer(fd, "200 OK", "text/plain; charset=utf-8", request->body ? request->body : "hello",
                         request->body ? request->body_size : 5);
}

/* What a test asks for and what it got. */
struct exchange {
    struct bed *bed;
    struct qfc_http_transfer *transfer;
    char url[64];
    int headers, done;
    int header_status, status;
    struct qfc_error error;
    char *body;
    size_t body_size;
    char content_type[64];
    struct qfc_buffer pieces;
    size_t sent;
};

struct bed {
    uv_loop_t loop;
    struct qfc_http *http;
    struct player player;
    struct exchange one, two, three;
};

static int set_up(void **state)
{
    struct bed *bed = calloc(1, sizeof *bed);
    struct qfc_error error;

    assert_non_null(bed);
    uv_loop_init(&bed->loop);
    bed->http = qfc_http_new(&bed->loop, &error);
    assert_non_null(bed->http);
    sem_init(&received, 0, 0);
    player_start(&bed->player, play);
    bed->one.bed = bed->two.bed = bed->three.bed = bed;
    bed->one.pieces = bed->two.pieces = bed->three.pieces = qfc_buffer(LARGE);
    *state = bed;
    return 0;
}

static void end_http(struct bed *bed)
{
    qfc_http_free(bed->http);
    bed->http = NULL;
    uv_run(&bed->loop, UV_RUN_DEFAULT);
}

static int tear_down(void **state)
{
    struct bed *bed = *state;
    struct exchange *exchanges[] = {&bed->one, &bed->two, &bed->three};

    end_http(bed);
    assert_int_equal(uv_loop_close(&bed->loop), 0);
    player_free(&bed->player);
    for (int i = 0; i < 3; i++) {
        free(exchanges[i]->body);
        qfc_buffer_free(&exchanges[i]->pieces);
    }
    free(bed);
    return 0;
}

static void on_headers(void *userdata, int status)
{
    struct exchange *exchange = userdata;

    exchange->headers++;
    exchange->header_status = status;
}

static int on_data(void *userdata, const char *data, size_t size)
{
    struct exchange *exchange = userdata;

    sem_post(&received);
    return qfc_buffer_append(&exchange->pieces, data, size) < 0 ? -1 : 0;
}

static void on_done(void *userdata, const struct qfc_error *error, struct qfc_http_response *response)
{
    struct exchange *exchange = userdata;

    exchange->done++;
    exchange->transfer = NULL;
    assert_true(!error == !!response);
    if (error) {
        exchange->error = *error;
        return;
    }
    exchange->status = response->status;
    snprintf(exchange->content_type, sizeof exchange->content_type, "%s", response->content_type);
    exchange->body_size = response->body.size;
    exchange->body = qfc_buffer_take(&response->body);
}

static struct qfc_http_request request_to(struct exchange *exchange, const char *method, const char *target)
{
    snprintf(exchange->url, sizeof exchange->url, "http://localhost%s", target);
    return (struct qfc_http_request){
        .method = method,
        .url = exchange->url,
        .unix_socket = exchange->bed->player.path,
        .max_body_bytes = LARGE,
        .on_headers = on_headers,
        .on_done = on_done,
        .userdata = exchange,
    };
}

static void start(struct exchange *exchange, const struct qfc_http_request *request)
{
    struct qfc_error error = QFC_NO_ERROR;

    assert_int_equal(qfc_http_start(exchange->bed->http, request, &exchange->transfer, &error), 0);
}

/* Starts it and runs the loop until nothing is left to do. */
static void perform(struct exchange *exchange, const struct qfc_http_request *request)
{
    start(exchange, request);
    assert_int_equal(exchange->done, 0); /* never from within start */
    uv_run(&exchange->bed->loop, UV_RUN_DEFAULT);
}

static struct exchange *get(void **state, const char *target)
{
    struct bed *bed = *state;
    struct qfc_http_request request = request_to(&bed->one, "GET", target);

    perform(&bed->one, &request);
    assert_int_equal(bed->one.done, 1);
    return &bed->one;
}

static void assert_kind(const struct exchange *exchange, enum qfc_error_kind kind)
{
    if (exchange->error.kind != kind)
        fail_msg("expected %s, got %s: %s", qfc_error_kind_name(kind), qfc_error_kind_name(exchange->error.kind),
                 exchange->error.message);
}

static void assert_answer(const struct exchange *exchange, int status, const char *body)
{
    assert_kind(exchange, QFC_ERROR_NONE);
    assert_int_equal(exchange->done, 1);
    assert_int_equal(exchange->status, status);
    assert_int_equal(exchange->headers, 1);
    assert_int_equal(exchange->header_status, status);
    assert_string_equal(exchange->body ? exchange->body : "", body);
}

static void a_whole_answer(void **state)
{
    struct exchange *exchange = get(state, "/hello");

    assert_answer(exchange, 200, "hello");
    assert_string_equal(exchange->content_type, "text/plain; charset=utf-8");
    assert_null(strcasestr(exchange->bed->player.requests[0].headers, "Expect:"));
    assert_null(strcasestr(exchange->bed->player.requests[0].headers, "Content-Type:"));
}

static void no_body_and_no_redirect(void **state)
{
    struct bed *bed = *state;
    struct qfc_http_request request = request_to(&bed->two, "POST", "/none");

    assert_answer(get(state, "/redirect"), 302, "");
    perform(&bed->two, &request);
    assert_answer(&bed->two, 204, "");
    assert_string_equal(bed->two.content_type, "");
    request = request_to(&bed->three, "HEAD", "/");
    perform(&bed->three, &request);
    assert_answer(&bed->three, 200, "");
    player_stop(&bed->player);
    assert_int_equal(bed->player.request_count, 3);
    assert_non_null(strcasestr(bed->player.requests[1].headers, "\r\nContent-Length: 0\r\n"));
}

static void interim_answers_and_trailers_are_not_the_answer(void **state)
{
    struct bed *bed = *state;
    struct qfc_http_request request = request_to(&bed->two, "GET", "/trailers");

    assert_answer(get(state, "/continue"), 200, "ok");
    perform(&bed->two, &request);
    assert_answer(&bed->two, 200, "ok");
}

static void fragments(void **state)
{
    struct bed *bed = *state;
    struct qfc_http_request request = request_to(&bed->one, "GET", "/fragments");

    request.on_data = on_data;
    perform(&bed->one, &request);
    assert_answer(&bed->one, 200, "");
    assert_string_equal(qfc_buffer_text(&bed->one.pieces), "abcdef");
}

static void broken_answers_are_unknown(void **state)
{
    static const char *const targets[] = {"/cut", "/cut-headers", "/cut-chunk", "/nothing"};
    struct bed *bed = *state;

    for (int i = 0; i < 4; i++) {
        bed->one.done = 0;
        get(state, targets[i]);
        assert_kind(&bed->one, QFC_ERROR_UNKNOWN);
        assert_non_null(strstr(bed->one.error.message, bed->player.path));
    }
}

static void other_lengths(void **state)
{
    struct bed *bed = *state;
    struct qfc_http_request request = request_to(&bed->two, "GET", "/until-close");

    assert_answer(get(state, "/too-much"), 200, "four");
    perform(&bed->two, &request);
    assert_answer(&bed->two, 200, "up to the end");
}

static void garbage_is_invalid(void **state)
{
    assert_kind(get(state, "/garbage"), QFC_ERROR_INVALID);
}

static void a_refusal_is_collected_even_with_on_data(void **state)
{
    struct bed *bed = *state;
    struct qfc_http_request request = request_to(&bed->one, "GET", "/html");

    request.on_data = on_data;
    request.max_body_bytes = 0;
    perform(&bed->one, &request);
    assert_answer(&bed->one, 500, "<html>oops</html>");
    assert_string_equal(bed->one.content_type, "text/html");
    assert_int_equal(bed->one.pieces.size, 0);
}

static void an_endless_answer_is_invalid(void **state)
{
    assert_kind(get(state, "/endless"), QFC_ERROR_INVALID);
    assert_non_null(strstr(((struct bed *)*state)->one.error.message, "1048576 bytes"));
}

static void an_endless_refusal_is_cut(void **state)
{
    struct exchange *exchange = get(state, "/endless-refusal");

    assert_kind(exchange, QFC_ERROR_NONE);
    assert_int_equal(exchange->status, 404);
    assert_int_equal(exchange->body_size, 65536);
}

static char *large_body(void)
{
    char *body = malloc(LARGE + 1);

    assert_non_null(body);
    for (size_t i = 0; i < LARGE; i++)
        body[i] = (char)('a' + i % 23);
    body[LARGE] = '\0';
    return body;
}

static void bodies_are_sent(void **state)
{
    struct bed *bed = *state;
    char *body = large_body();
    const char *const headers[] = {"Content-Type: application/x-tar", NULL};
    struct qfc_http_request request = request_to(&bed->one, "PUT", "/echo");

    request.body = body;
    request.body_size = LARGE;
    request.headers = headers;
    perform(&bed->one, &request);
    assert_answer(&bed->one, 200, body);
    request = request_to(&bed->two, "POST", "/echo");
    request.body = "{}";
    request.body_size = 2;
    perform(&bed->two, &request);
    assert_answer(&bed->two, 200, "{}");
    player_stop(&bed->player);
    assert_string_equal(bed->player.requests[0].method, "PUT");
    assert_non_null(strstr(bed->player.requests[0].headers, "\r\nContent-Type: application/x-tar\r\n"));
    assert_non_null(strstr(bed->player.requests[0].headers, "\r\nContent-Length: 1048576\r\n"));
    assert_null(strcasestr(bed->player.requests[0].headers, "\r\nExpect"));
    assert_string_equal(bed->player.requests[1].method, "POST");
    assert_null(strcasestr(bed->player.requests[1].headers, "\r\nContent-Type"));
    free(body);
}

/* 700,000 bytes in pieces of at most 1000. */
static ssize_t read_body(void *userdata, char *out, size_t room)
{
    struct exchange *exchange = userdata;
    size_t size = 700000 - exchange->sent;

    if (size > 1000)
        size = 1000;
    if (size > room)
        size = room;
    memset(out, 's', size);
    exchange->sent += size;
    return (ssize_t)size;
}

static void a_streamed_body_is_chunked(void **state)
{
    struct bed *bed = *state;
    struct qfc_http_request request = request_to(&bed->one, "POST", "/echo");

    request.read_body = read_body;
    perform(&bed->one, &request);
    assert_kind(&bed->one, QFC_ERROR_NONE);
    assert_int_equal(bed->one.body_size, 700000);
    player_stop(&bed->player);
    assert_non_null(strcasestr(bed->player.requests[0].headers, "\r\nTransfer-Encoding: chunked\r\n"));
    assert_string_equal(bed->player.requests[0].method, "POST");
}

static ssize_t refuse_to_read(void *userdata, char *out, size_t room)
{
    return -1;
}

static int refuse_data(void *userdata, const char *data, size_t size)
{
    return -1;
}

static void callbacks_abort(void **state)
{
    struct bed *bed = *state;
    struct qfc_http_request request = request_to(&bed->one, "POST", "/echo");

    request.read_body = refuse_to_read;
    perform(&bed->one, &request);
    assert_kind(&bed->one, QFC_ERROR_INVALID);
    request = request_to(&bed->two, "GET", "/hello");
    request.on_data = refuse_data;
    perform(&bed->two, &request);
    assert_kind(&bed->two, QFC_ERROR_INVALID);
}

static void a_deadline(void **state)
{
    struct bed *bed = *state;
    struct qfc_http_request request = request_to(&bed->one, "GET", "/silence");
    struct qfc_http_request other = request_to(&bed->two, "GET", "/headers-only");

    request.deadline_ms = 30;
    other.deadline_ms = 500;
    start(&bed->one, &request);
    perform(&bed->two, &other);
    assert_kind(&bed->one, QFC_ERROR_UNKNOWN);
    assert_kind(&bed->two, QFC_ERROR_UNKNOWN);
    assert_int_equal(bed->one.headers, 0);
    assert_int_equal(bed->two.headers, 1);
    assert_non_null(strstr(bed->one.error.message, "within 30 ms"));
    assert_non_null(strstr(bed->two.error.message, "within 500 ms"));
}

static void nothing_to_connect_to(void **state)
{
    struct bed *bed = *state;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct qfc_http_request request = request_to(&bed->one, "POST", "/");
    int unheard = socket(AF_UNIX, SOCK_STREAM, 0);

    request.unix_socket = "/nonexistent/socket";
    perform(&bed->one, &request);
    assert_kind(&bed->one, QFC_ERROR_UNREACHABLE);
    assert_int_equal(bed->one.error.code, ENOENT);
    assert_string_equal(bed->one.error.message, "connect to /nonexistent/socket: No such file or directory");

    snprintf(address.sun_path, sizeof address.sun_path, "%s/unheard", bed->player.directory);
    assert_int_equal(bind(unheard, (struct sockaddr *)&address, sizeof address), 0);
    request = request_to(&bed->two, "POST", "/");
    request.unix_socket = address.sun_path;
    perform(&bed->two, &request);
    close(unheard);
    unlink(address.sun_path);
    assert_kind(&bed->two, QFC_ERROR_UNREACHABLE);
    assert_int_equal(bed->two.error.code, ECONNREFUSED);

    request = request_to(&bed->three, "POST", "/");
    request.unix_socket = NULL;
    request.url = "http://user:hunter2@127.0.0.1:1/?token=hunter2";
    perform(&bed->three, &request);
    assert_kind(&bed->three, QFC_ERROR_UNREACHABLE);
    assert_int_equal(bed->three.error.code, ECONNREFUSED);
    assert_string_equal(bed->three.error.message, "connect to 127.0.0.1:1: Connection refused");
}

static void a_proxy_is_not_for_unix_sockets(void **state)
{
    setenv("http_proxy", "http://127.0.0.1:1", 1);
    struct exchange *exchange = get(state, "/hello");
    unsetenv("http_proxy");
    assert_answer(exchange, 200, "hello");
}

static void what_is_no_url(void **state)
{
    struct bed *bed = *state;
    struct qfc_error error = QFC_NO_ERROR;
    struct qfc_http_request request = request_to(&bed->one, "GET", "/");

    request.url = "http://a b:c/";
    assert_int_equal(qfc_http_start(bed->http, &request, NULL, &error), -1);
    assert_int_equal(error.kind, QFC_ERROR_BUG);
    uv_run(&bed->loop, UV_RUN_DEFAULT);
    assert_int_equal(bed->one.done, 0);
}

static void start_third(void *userdata, const struct qfc_error *error, struct qfc_http_response *response)
{
    struct exchange *exchange = userdata;
    struct bed *bed = exchange->bed;
    struct qfc_http_request request = request_to(&bed->three, "GET", "/hello");

    on_done(userdata, error, response);
    start(&bed->three, &request);
}

static void start_second(void *userdata, const struct qfc_error *error, struct qfc_http_response *response)
{
    struct exchange *exchange = userdata;
    struct bed *bed = exchange->bed;
    struct qfc_http_request request = request_to(&bed->two, "POST", "/hello");

    on_done(userdata, error, response);
    request.on_done = start_third;
    start(&bed->two, &request);
    assert_int_equal(bed->two.done, 0);
}

static void one_connection_is_used_again(void **state)
{
    struct bed *bed = *state;
    struct qfc_http_request request = request_to(&bed->one, "GET", "/hello");

    request.on_done = start_second;
    perform(&bed->one, &request);
    assert_answer(&bed->one, 200, "hello");
    assert_answer(&bed->two, 200, "hello");
    assert_answer(&bed->three, 200, "hello");
    player_stop(&bed->player);
    assert_int_equal(bed->player.request_count, 3);
    assert_int_equal(bed->player.connections, 1);
}

/* The server closes the reused connection when the request has come: libcurl would send it again by itself. */
static void a_post_is_not_repeated(void **state)
{
    struct bed *bed = *state;
    struct qfc_http_request request;

    get(state, "/hello");
    request = request_to(&bed->two, "POST", "/once");
    perform(&bed->two, &request);
    assert_kind(&bed->two, QFC_ERROR_UNKNOWN);
    player_stop(&bed->player);
    assert_int_equal(player_count(&bed->player, "POST /once"), 1);
}

static void a_put_is_repeated_whole(void **state)
{
    struct bed *bed = *state;
    struct qfc_http_request request;

    get(state, "/hello");
    request = request_to(&bed->two, "PUT", "/once");
    request.body = "whole";
    request.body_size = 5;
    perform(&bed->two, &request);
    assert_kind(&bed->two, QFC_ERROR_NONE);
    assert_string_equal(bed->two.body, "whole");
    player_stop(&bed->player);
    assert_int_equal(player_count(&bed->player, "PUT /once"), 2);
    assert_int_equal(bed->player.connections, 2);
}

/* The server is gone when libcurl tries again: bytes were sent, so it is not "unreachable". */
static void a_repeat_that_cannot_connect_is_unknown(void **state)
{
    struct bed *bed = *state;
    struct qfc_http_request request;

    get(state, "/hello");
    unlink(bed->player.path);
    request = request_to(&bed->two, "DELETE", "/once");
    perform(&bed->two, &request);
    assert_kind(&bed->two, QFC_ERROR_UNKNOWN);
}

/* Cancelling, in turn from each callback. */
static void cancel_in_headers(void *userdata, int status)
{
    struct exchange *exchange = userdata;

    exchange->headers++;
    qfc_http_cancel(exchange->transfer);
}

static int cancel_in_data(void *userdata, const char *data, size_t size)
{
    struct exchange *exchange = userdata;

    exchange->sent++;
    qfc_http_cancel(exchange->transfer);
    return 0;
}

static ssize_t cancel_in_read(void *userdata, char *out, size_t room)
{
    struct exchange *exchange = userdata;

    exchange->sent++;
    qfc_http_cancel(exchange->transfer);
    memset(out, 'x', room);
    return (ssize_t)room;
}

static void cancel_in_done(void *userdata, const struct qfc_error *error, struct qfc_http_response *response)
{
    struct exchange *exchange = userdata;

    qfc_http_cancel(exchange->transfer);
    on_done(userdata, error, response);
    if (exchange->bed->two.transfer)
        qfc_http_cancel(exchange->bed->two.transfer);
}

static void cancel_in_each_callback(void **state)
{
    struct bed *bed = *state;
    struct qfc_http_request request = request_to(&bed->one, "GET", "/endless");

    request.on_headers = cancel_in_headers;
    request.on_data = cancel_in_data;
    perform(&bed->one, &request);
    assert_int_equal(bed->one.headers, 1);
    assert_int_equal(bed->one.sent, 0);
    request.on_headers = NULL;
    perform(&bed->one, &request);
    assert_int_equal(bed->one.sent, 1);
    request.read_body = cancel_in_read;
    request.method = "POST";
    perform(&bed->one, &request);
    assert_int_equal(bed->one.sent, 2);
    assert_int_equal(bed->one.done, 0);
}

static void cancel_another_in_done(void **state)
{
    struct bed *bed = *state;
    struct qfc_http_request silent = request_to(&bed->two, "GET", "/silence");
    struct qfc_http_request request;

    start(&bed->two, &silent);
    request = request_to(&bed->one, "GET", "/hello");
    request.on_done = cancel_in_done;
    perform(&bed->one, &request);
    assert_int_equal(bed->one.done, 1);
    assert_int_equal(bed->two.done, 0);
}

static void cancel_right_after_start(void **state)
{
    struct bed *bed = *state;
    struct qfc_http_request request = request_to(&bed->one, "GET", "/hello");

    start(&bed->one, &request);
    qfc_http_cancel(bed->one.transfer);
    uv_run(&bed->loop, UV_RUN_DEFAULT);
    assert_int_equal(bed->one.done, 0);
}

/* Within a callback of one transfer: cancels the other, whose body's memory then goes, and starts a third. */
static int change_everything(void *userdata, const char *data, size_t size)
{
    struct exchange *exchange = userdata;
    struct bed *bed = exchange->bed;
    struct qfc_http_request request = request_to(&bed->three, "GET", "/hello");

    if (!bed->two.transfer)
        return 0;
    qfc_http_cancel(bed->two.transfer);
    bed->two.transfer = NULL;
    free(bed->two.body);
    bed->two.body = NULL;
    start(&bed->three, &request);
    return 0;
}

static void start_and_cancel_others_in_data(void **state)
{
    struct bed *bed = *state;
    struct qfc_http_request request = request_to(&bed->two, "PUT", "/silence");

    bed->two.body = large_body();
    request.body = bed->two.body;
    request.body_size = LARGE;
    start(&bed->two, &request);
    request = request_to(&bed->one, "GET", "/hello");
    request.on_data = change_everything;
    perform(&bed->one, &request);
    assert_answer(&bed->one, 200, "");
    assert_int_equal(bed->two.done, 0);
    assert_answer(&bed->three, 200, "hello");
}

/* Freeing everything, in turn from each callback, with another transfer under way. */
static void free_in_headers(void *userdata, int status)
{
    qfc_http_free(((struct exchange *)userdata)->bed->http);
}

static int free_in_data(void *userdata, const char *data, size_t size)
{
    qfc_http_free(((struct exchange *)userdata)->bed->http);
    return 0;
}

static ssize_t free_in_read(void *userdata, char *out, size_t room)
{
    qfc_http_free(((struct exchange *)userdata)->bed->http);
    return 0;
}

static void free_in_done(void *userdata, const struct qfc_error *error, struct qfc_http_response *response)
{
    struct exchange *exchange = userdata;

    qfc_http_free(exchange->bed->http);
    on_done(userdata, error, response);
}

static void free_in_each_callback(void **state)
{
    struct bed *bed = *state;
    struct qfc_error error;

    for (int i = 0; i < 4; i++) {
        struct qfc_http_request request = request_to(&bed->two, "GET", "/silence");

        start(&bed->two, &request);
        request = request_to(&bed->one, i == 2 ? "POST" : "GET", "/hello");
        if (i == 0)
            request.on_headers = free_in_headers;
        if (i == 1)
            request.on_data = free_in_data;
        if (i == 2)
            request.read_body = free_in_read;
        if (i == 3)
            request.on_done = free_in_done;
        perform(&bed->one, &request);
        assert_int_equal(bed->one.done, i == 3 ? 1 : 0);
        assert_int_equal(bed->two.done, 0);
        bed->http = qfc_http_new(&bed->loop, &error);
        assert_non_null(bed->http);
    }
}

static void free_with_transfers_under_way(void **state)
{
    struct bed *bed = *state;
    struct qfc_http_request request = request_to(&bed->one, "GET", "/headers-only");

    start(&bed->one, &request);
    while (bed->one.headers == 0)
        uv_run(&bed->loop, UV_RUN_ONCE);
    end_http(bed);
    assert_int_equal(bed->one.done, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_whole_answer, set_up, tear_down),
        cmocka_unit_test_setup_teardown(no_body_and_no_redirect, set_up, tear_down),
        cmocka_unit_test_setup_teardown(interim_answers_and_trailers_are_not_the_answer, set_up, tear_down),
        cmocka_unit_test_setup_teardown(fragments, set_up, tear_down),
        cmocka_unit_test_setup_teardown(broken_answers_are_unknown, set_up, tear_down),
        cmocka_unit_test_setup_teardown(other_lengths, set_up, tear_down),
        cmocka_unit_test_setup_teardown(garbage_is_invalid, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_refusal_is_collected_even_with_on_data, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_endless_answer_is_invalid, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_endless_refusal_is_cut, set_up, tear_down),
        cmocka_unit_test_setup_teardown(bodies_are_sent, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_streamed_body_is_chunked, set_up, tear_down),
        cmocka_unit_test_setup_teardown(callbacks_abort, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_deadline, set_up, tear_down),
        cmocka_unit_test_setup_teardown(nothing_to_connect_to, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_proxy_is_not_for_unix_sockets, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_no_url, set_up, tear_down),
        cmocka_unit_test_setup_teardown(one_connection_is_used_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_post_is_not_repeated, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_put_is_repeated_whole, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_repeat_that_cannot_connect_is_unknown, set_up, tear_down),
        cmocka_unit_test_setup_teardown(cancel_in_each_callback, set_up, tear_down),
        cmocka_unit_test_setup_teardown(cancel_another_in_done, set_up, tear_down),
        cmocka_unit_test_setup_teardown(cancel_right_after_start, set_up, tear_down),
        cmocka_unit_test_setup_teardown(start_and_cancel_others_in_data, set_up, tear_down),
        cmocka_unit_test_setup_teardown(free_in_each_callback, set_up, tear_down),
        cmocka_unit_test_setup_teardown(free_with_transfers_under_way, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
