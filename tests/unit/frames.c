/* The frames of the engine's log, however they are cut into pieces on their way. */
#include "../../engine/frames.h"

#include "qfc/buffer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

struct printed {
    struct qfc_buffer streams[4];
    struct qfc_buffer all;
    size_t wanted; /* bytes after which the sink gives up */
};

static struct printed printed(void)
{
    struct printed out = {.all = qfc_buffer(1 << 20), .wanted = SIZE_MAX};

    for (int i = 0; i < 4; i++)
        out.streams[i] = qfc_buffer(1 << 20);
    return out;
}

static void printed_free(struct printed *out)
{
    qfc_buffer_free(&out->all);
    for (int i = 0; i < 4; i++)
        qfc_buffer_free(&out->streams[i]);
}

static int sink(void *userdata, enum qfc_frame_stream stream, const char *data, size_t size)
{
    struct printed *out = userdata;

    assert_true(size > 0);
    assert_int_equal(qfc_buffer_append(&out->streams[stream], data, size), 0);
    assert_int_equal(qfc_buffer_append(&out->all, data, size), 0);
    return out->all.size > out->wanted ? -1 : 0;
}

static const char two_lines[] = "\1\0\0\0\0\0\0\6hello\n"
                                "\2\0\0\0\0\0\0\0"
                                "\2\0\0\0\0\0\0\6oh no\n"
                                "\1\0\0\0\0\0\0\1!";

static void pieces_of_any_size(void **state)
{
    for (size_t step = 1; step < sizeof two_lines; step++) {
        struct qfc_frames frames = {0};
        struct qfc_error error;
        struct printed out = printed();

        for (size_t at = 0; at < sizeof two_lines - 1; at += step) {
            size_t size = sizeof two_lines - 1 - at < step ? sizeof two_lines - 1 - at : step;
            assert_int_equal(qfc_frames_push(&frames, two_lines + at, size, sink, &out, &error), 0);
        }
        assert_true(qfc_frames_complete(&frames));
        assert_string_equal(qfc_buffer_text(&out.all), "hello\noh no\n!");
        assert_string_equal(qfc_buffer_text(&out.streams[1]), "hello\n!");
        assert_string_equal(qfc_buffer_text(&out.streams[2]), "oh no\n");
        printed_free(&out);
    }
}

static void an_end_within_a_frame_is_not_complete(void **state)
{
    for (size_t size = 0; size < 22; size++) {
        struct qfc_frames frames = {0};
        struct qfc_error error;
        struct printed out = printed();

        assert_int_equal(qfc_frames_push(&frames, two_lines, size, sink, &out, &error), 0);
        assert_int_equal(qfc_frames_complete(&frames), size == 0 || size == 14);
        printed_free(&out);
    }
}

static void a_long_frame(void **state)
{
    static const char header[] = "\1\0\0\0\0\1\0\2"; /* 65538 */
    static char zeros[65538];
    struct qfc_frames frames = {0};
    struct qfc_error error;
    struct printed out = printed();

    assert_int_equal(qfc_frames_push(&frames, header, 8, sink, &out, &error), 0);
    assert_int_equal(qfc_frames_push(&frames, zeros, sizeof zeros - 1, sink, &out, &error), 0);
    assert_false(qfc_frames_complete(&frames));
    assert_int_equal(qfc_frames_push(&frames, zeros, 1, sink, &out, &error), 0);
    assert_true(qfc_frames_complete(&frames));
    assert_int_equal(out.all.size, 65538);
    printed_free(&out);
}

static void the_largest_length(void **state)
{
    struct qfc_frames frames = {0};
    struct qfc_error error;
    struct printed out = printed();

    assert_int_equal(qfc_frames_push(&frames, "\2\0\0\0\xff\xff\xff\xffx", 9, sink, &out, &error), 0);
    assert_int_equal(frames.left, 0xfffffffeu);
    assert_string_equal(qfc_buffer_text(&out.all), "x");
    printed_free(&out);
}

static void what_is_no_frame(void **state)
{
    static const char *const broken[] = {"plain text of a terminal", "\4\0\0\0\0\0\0\1x", "\1\0\0\1\0\0\0\1x"};

    for (int i = 0; i < 3; i++) {
        struct qfc_frames frames = {0};
        struct qfc_error error = QFC_NO_ERROR;
        struct printed out = printed();

        assert_int_equal(qfc_frames_push(&frames, broken[i], 9, sink, &out, &error), -1);
        assert_int_equal(error.kind, QFC_ERROR_INVALID);
        assert_int_equal(out.all.size, 0);
        printed_free(&out);
    }
}

static void the_sink_gives_up(void **state)
{
    struct qfc_frames frames = {0};
    struct qfc_error error = QFC_NO_ERROR;
    struct printed out = printed();

    out.wanted = 5;
    assert_int_equal(qfc_frames_push(&frames, two_lines, sizeof two_lines - 1, sink, &out, &error), -1);
    assert_int_equal(error.kind, QFC_ERROR_INVALID);
    assert_string_equal(qfc_buffer_text(&out.all), "hello\n");
    printed_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_of_any_size), cmocka_unit_test(an_end_within_a_frame_is_not_complete),
        cmocka_unit_test(a_long_frame),       cmocka_unit_test(the_largest_length),
        cmocka_unit_test(what_is_no_frame),   cmocka_unit_test(the_sink_gives_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
