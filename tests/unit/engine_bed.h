/* An engine client and a player of an engine, for tests that play one answer after another. */
#pragma once

#include "player.h"
#include "qfc/engine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define ID "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

struct engine_bed {
    uv_loop_t loop;
    struct qfc_http *http;
    struct qfc_engine *engine;
    struct player player;
    unsigned deadline_ms; /* of a call */
    void *test;

    int started, done;
    struct qfc_error start_error, error;
    struct qfc_engine_reply reply; /* without its data */
    size_t log_size;
};

static inline void bed_set_up(struct engine_bed *bed, unsigned deadline_ms,
                              bool (*play)(struct player *player, int fd, const struct request *request))
{
    char host[128];
    struct qfc_engine_options options = {.host = host, .deadline_ms = deadline_ms};

    memset(bed, 0, sizeof *bed);
    uv_loop_init(&bed->loop);
    bed->http = qfc_http_new(&bed->loop, &bed->error);
    assert_non_null(bed->http);
    player_start(&bed->player, play);
    bed->player.userdata = bed;
    snprintf(host, sizeof host, "unix://%s", bed->player.path);
    bed->engine = qfc_engine_new(&bed->loop, bed->http, &options, &bed->error);
    assert_non_null(bed->engine);
}

/* Also that nothing is left in the loop. */
static inline void bed_tear_down(struct engine_bed *bed)
{
    qfc_engine_free(bed->engine);
    qfc_http_free(bed->http);
    uv_run(&bed->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&bed->loop), 0);
    player_free(&bed->player);
}

static inline void bed_done(void *userdata, const struct qfc_error *error, const struct qfc_engine_reply *reply)
{
    struct engine_bed *bed = userdata;

    bed->done++;
    bed->error = error ? *error : QFC_NO_ERROR;
    if (reply)
        bed->reply = *reply;
}

static inline void bed_started(void *userdata, const struct qfc_error *error, const struct qfc_engine_reply *reply)
{
    struct engine_bed *bed = userdata;

    bed->started++;
    bed->start_error = error ? *error : QFC_NO_ERROR;
    if (reply)
        bed->reply = *reply;
}

static inline int bed_log(void *userdata, const char *data, size_t size)
{
    struct engine_bed *bed = userdata;

    bed->log_size += size;
    return 0;
}

/* Runs a call that has been begun to its end. */
static inline void bed_finish(struct engine_bed *bed, int r)
{
    assert_int_equal(r, 0);
    uv_run(&bed->loop, UV_RUN_DEFAULT);
}

#define BED_END bed_done, bed, NULL, &bed->error
#define BED_CALL(call)                                                                                                 \
    do {                                                                                                               \
        bed->done = bed->started = 0;                                                                                  \
        bed->error = bed->start_error = QFC_NO_ERROR;                                                                  \
        bed_finish(bed, (call));                                                                                       \
    } while (0)

/* An answer that is written as it stands, and then the connection is closed. */
static inline bool play_raw(int fd, const char *text)
{
    player_text(fd, text);
    return false;
}
