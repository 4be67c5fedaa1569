/* Images in and out of the engine piece by piece, and its events, against a scripted player of its API. */
#include "player.h"
#include "qfc/engine.h"
#include "qfc/events.h"
#include "qfc/http.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define VERSION "{\"ApiVersion\": \"1.41\", \"MinAPIVersion\": \"1.12\"}"
#define BULK    (3u * 1024 * 1024 + 17)
#define PIECE   4096u

struct bed {
    uv_loop_t loop;
    struct qfc_http *http;
    struct qfc_engine *engine;
    struct player player;
    const char *load_answer;
    int event_answers;

    struct qfc_engine_call *call;
    struct qfc_error error;
    int done;
    char data[256];
    uv_timer_t timer; /* lets a call go on */
    size_t received, sent, pieces, held;
    bool waits;
    unsigned sum;

    struct qfc_events *events;
    char told[512];
    int opened, broken;
};

static const char *const event_lines[] = {
    "{\"Type\":\"image\",\"Action\":\"untag\",\"Actor\":{\"ID\":\"sha256:aa\",\"Attributes\":{\"name\":\"a\"}},"
    "\"timeNano\":1000000001}\nnot JSON\n{\"Type\":\"image\",\"Action\":\"del",
    "ete\",\"Actor\":{\"ID\":\"sha256:aa\"},\"timeNano\":1000000002}\n",
    /* the second answer begins with what was told before */
    "{\"Type\":\"image\",\"Action\":\"delete\",\"Actor\":{\"ID\":\"sha256:aa\"},\"timeNano\":1000000002}\n"
    "{\"Type\":\"volume\",\"Action\":\"destroy\",\"Actor\":{\"ID\":\"grids\"},\"timeNano\":1000000003}\n",
};

static bool send_chunk(int fd, const char *data, size_t size)
{
    char head[32];

    snprintf(head, sizeof head, "%zx\r\n", size);
    return player_text(fd, head) && player_write(fd, data, size) && player_text(fd, "\r\n");
}

static bool play_events(struct bed *bed, int fd)
{
    bool ends = bed->event_answers++ == 0;

    player_text(fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (int i = ends ? 0 : 2; i < (ends ? 2 : 3); i++)
        send_chunk(fd, event_lines[i], strlen(event_lines[i]));
    if (!ends) { /* endless: until the test has seen enough */
        char byte;
        (void)!recv(fd, &byte, 1, 0);
    }
    return false;
}

static bool play_export(int fd)
{
    char *bulk = malloc(BULK);

    player_check(bulk != NULL);
    for (size_t i = 0; i < BULK; i++)
        bulk[i] = (char)(i * 31);
    bool good = player_answer(fd, "200 OK", "application/x-tar", bulk, BULK);
    free(bulk);
    return good;
}

static bool play(struct player *player, int fd, const struct request *request)
{
    struct bed *bed = player->userdata;

    if (strcmp(request->target, "/version") == 0)
        return player_json(fd, "200 OK", VERSION);
    if (strcmp(request->target, "/v1.41/images/sha256%3Aaa/get") == 0)
        return play_export(fd);
    if (strcmp(request->target, "/v1.41/images/load?quiet=1") == 0)
        return player_json(fd, "200 OK", bed->load_answer);
    if (strncmp(request->target, "/v1.41/events?", 14) == 0)
        return play_events(bed, fd);
    if (strcmp(request->target, "/v1.41/images/a/json") == 0)
        return player_json(fd, "200 OK", "{\"Id\": \"sha256:aa\", \"Size\": 4000000000}");
    if (strcmp(request->target, "/v1.41/volumes/grids") == 0)
        return player_json(fd, "200 OK", "{\"Name\": \"grids\"}");
    if (strncmp(request->target, "/v1.41/images/sha256%3Aaa/tag?", 30) == 0)
        return player_answer(fd, "201 Created", "text/plain", "", 0);
    return player_json(fd, "404 Not Found", "{\"message\": \"no such thing\"}");
}

static int set_up(void **state)
{
    struct bed *bed = calloc(1, sizeof *bed);
    char host[128];
    const struct qfc_engine_options options = {.host = host};

    uv_loop_init(&bed->loop);
    uv_timer_init(&bed->loop, &bed->timer);
    bed->timer.data = bed;
    bed->http = qfc_http_new(&bed->loop, &bed->error);
    player_start(&bed->player, play);
    bed->player.userdata = bed;
    snprintf(host, sizeof host, "unix://%s", bed->player.path);
    bed->engine = qfc_engine_new(&bed->loop, bed->http, &options, &bed->error);
    assert_non_null(bed->engine);
    *state = bed;
    return 0;
}

static int tear_down(void **state)
{
    struct bed *bed = *state;

    qfc_events_free(bed->events);
    qfc_engine_free(bed->engine);
    qfc_http_free(bed->http);
    uv_close((uv_handle_t *)&bed->timer, NULL);
    uv_run(&bed->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&bed->loop), 0);
    player_free(&bed->player);
    free(bed);
    return 0;
}

static void on_done(void *userdata, const struct qfc_error *error, const struct qfc_engine_reply *reply)
{
    struct bed *bed = userdata;

    bed->done++;
    bed->call = NULL; /* the end may come while it is held */
    bed->error = error ? *error : QFC_NO_ERROR;
    bed->received += reply ? (size_t)reply->size_bytes : 0;
    snprintf(bed->data, sizeof bed->data, "%s", reply ? qfc_buffer_text(reply->data) : "");
}

#define END on_done, bed, &bed->call, &bed->error

static void on_timer(uv_timer_t *timer)
{
    struct bed *bed = timer->data;

    bed->waits = false;
    if (bed->call)
        qfc_engine_resume(bed->call);
}

static void wait_a_little(struct bed *bed)
{
    bed->waits = true;
    bed->held++;
    uv_timer_start(&bed->timer, on_timer, 2, 0);
}

/* Every piece is held for a while: none may come meanwhile, and none may be lost. */
static int on_piece(void *userdata, const char *data, size_t size)
{
    struct bed *bed = userdata;

    assert_false(bed->waits);
    for (size_t i = 0; i < size; i++)
        assert_int_equal(data[i], (char)((bed->received + i) * 31));
    bed->received += size;
    wait_a_little(bed);
    return QFC_HTTP_HOLD;
}

static void test_export_is_held_and_goes_on(void **state)
{
    struct bed *bed = *state;

    assert_int_equal(qfc_engine_export(bed->engine, "sha256:aa", on_piece, END), 0);
    uv_run(&bed->loop, UV_RUN_DEFAULT);
    assert_int_equal(bed->done, 1);
    assert_int_equal(bed->error.kind, QFC_ERROR_NONE);
    assert_int_equal(bed->received, BULK);
    assert_true(bed->held > 2);
}

static int give_up(void *userdata, const char *data, size_t size)
{
    return -1;
}

static void test_export_given_up(void **state)
{
    struct bed *bed = *state;

    assert_int_equal(qfc_engine_export(bed->engine, "sha256:aa", give_up, END), 0);
    uv_run(&bed->loop, UV_RUN_DEFAULT);
    assert_int_equal(bed->error.kind, QFC_ERROR_INVALID);
    assert_int_equal(qfc_engine_export(bed->engine, "sha256:bb", give_up, END), 0);
    uv_run(&bed->loop, UV_RUN_DEFAULT);
    assert_int_equal(bed->error.code, 404);
}

/* Each other time there is nothing yet. */
static ssize_t read_more(void *userdata, char *out, size_t room)
{
    struct bed *bed = userdata;
    size_t size = room < PIECE ? room : PIECE;

    if (bed->sent >= 40 * PIECE)
        return 0;
    if (bed->pieces++ % 2 == 0) {
        wait_a_little(bed);
        return QFC_HTTP_LATER;
    }
    memset(out, 'x', size);
    bed->sent += size;
    return (ssize_t)size;
}

static void load(struct bed *bed, const char *answer)
{
    bed->load_answer = answer;
    bed->sent = bed->pieces = 0;
    assert_int_equal(qfc_engine_load(bed->engine, "a", read_more, END), 0);
    uv_run(&bed->loop, UV_RUN_DEFAULT);
}

static void test_load(void **state)
{
    struct bed *bed = *state;

    load(bed, "{\"status\":\"x\"}\n{\"stream\":\"Loaded image ID: sha256:aa\\n\"}\n");
    assert_int_equal(bed->error.kind, QFC_ERROR_NONE);
    assert_string_equal(bed->data, "Loaded image ID: sha256:aa");
    assert_true(bed->held > 10);
    player_stop(&bed->player);
    assert_int_equal(bed->player.requests[1].body_size, bed->sent);
}

static void test_load_fails_within_200(void **state)
{
    struct bed *bed = *state;

    load(bed, "{\"stream\":\"so far\"}\n{\"errorDetail\":{\"message\":\"no \\nspace\"},\"error\":\"no space\"}");
    assert_int_equal(bed->error.kind, QFC_ERROR_REFUSED);
    assert_int_equal(bed->error.code, 200);
    assert_string_equal(bed->error.message, "load image a: the engine answered: no space");
}

static void test_looks(void **state)
{
    struct bed *bed = *state;

    assert_int_equal(qfc_engine_image(bed->engine, "a", END), 0);
    uv_run(&bed->loop, UV_RUN_DEFAULT);
    assert_string_equal(bed->data, "sha256:aa");
    assert_true(bed->received == 4000000000u);
    assert_int_equal(qfc_engine_volume(bed->engine, "grids", END), 0);
    uv_run(&bed->loop, UV_RUN_DEFAULT);
    assert_string_equal(bed->data, "grids");
    assert_int_equal(qfc_engine_tag(bed->engine, "sha256:aa", "host:5000/group/a:1.2", END), 0);
    uv_run(&bed->loop, UV_RUN_DEFAULT);
    assert_int_equal(qfc_engine_tag(bed->engine, "sha256:aa", "host:5000/a", END), 0);
    uv_run(&bed->loop, UV_RUN_DEFAULT);
    assert_int_equal(bed->error.kind, QFC_ERROR_NONE);
    player_stop(&bed->player);
    assert_int_equal(
        player_count(&bed->player, "POST /v1.41/images/sha256%3Aaa/tag?repo=host%3A5000%2Fgroup%2Fa&tag=1.2"), 1);
    assert_int_equal(player_count(&bed->player, "POST /v1.41/images/sha256%3Aaa/tag?repo=host%3A5000%2Fa&tag=latest"),
                     1);
}

static void on_enough(uv_timer_t *timer)
{
    uv_stop(timer->loop);
}

static void on_event(void *userdata, const struct qfc_event *event)
{
    struct bed *bed = userdata;
    const char *name = qfc_event_attribute(event, "name");
    size_t used = strlen(bed->told);

    snprintf(bed->told + used, sizeof bed->told - used, "%s %s %s %s;", event->type, event->action, event->id,
             name ? name : "-");
    if (strcmp(event->type, "volume") == 0)
        uv_timer_start(&bed->timer, on_enough, 0, 0);
}

static void on_events_state(void *userdata, bool open, const struct qfc_error *why)
{
    struct bed *bed = userdata;

    assert_true(open == !why);
    bed->opened += open;
    bed->broken += !open;
}

static void test_events_go_on_where_they_broke_off(void **state)
{
    struct bed *bed = *state;
    const char *const types[] = {"image", "volume", NULL}, *const actions[] = {"delete", NULL};
    const struct qfc_events_options options = {
        .types = types,
        .actions = actions,
        .on_event = on_event,
        .on_state = on_events_state,
        .userdata = bed,
    };

    bed->events = qfc_events_new(&bed->loop, bed->engine, &options, &bed->error);
    uv_run(&bed->loop, UV_RUN_DEFAULT);
    assert_string_equal(bed->told, "image untag sha256:aa a;image delete sha256:aa -;volume destroy grids -;");
    assert_int_equal(bed->opened, 2);
    assert_int_equal(bed->broken, 1);
    qfc_events_free(bed->events);
    bed->events = NULL;
    uv_run(&bed->loop, UV_RUN_NOWAIT);
    player_stop(&bed->player);
    assert_int_equal(player_count(&bed->player, "GET /v1.41/events?since=1.000000002&filters=%7B%22type%22%3A%5B"
                                                "%22image%22%2C%22volume%22%5D%2C%22event%22%3A%5B%22delete%22%5D%7D"),
                     1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_export_is_held_and_goes_on, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_export_given_up, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_load, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_load_fails_within_200, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_looks, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_events_go_on_where_they_broke_off, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
