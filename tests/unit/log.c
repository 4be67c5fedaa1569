/*
 * One record is one line, valid whatever the message holds.
 */
#include "qfc/log.h"
#include "qfc/text.h"

#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#define FFFD "\xEF\xBF\xBD"

static int ends[2]; /* of the pipe that the log is written to */

static int open_pipe(void **state)
{
    if (pipe2(ends, O_NONBLOCK) < 0)
        return -1;
    qfc_log_to(ends[1]);
    qfc_log_configure(QFC_LOG_TEXT, QFC_LOG_INFO);
    return 0;
}

static int close_pipe(void **state)
{
    qfc_log_to(STDERR_FILENO);
    qfc_log_configure(QFC_LOG_TEXT, QFC_LOG_INFO);
    close(ends[0]);
    close(ends[1]);
    return 0;
}

/* What was written since the last call. */
static const char *written(void)
{
    static char text[65536];
    ssize_t size = read(ends[0], text, sizeof(text) - 1);
    text[size > 0 ? size : 0] = '\0';
    return text;
}

static void assert_one_line(const char *text)
{
    const char *end = strchr(text, '\n');
    assert_non_null(end);
    assert_string_equal(end, "\n");
}

static json_t *written_json(void)
{
    json_error_t error;
    const char *text = written();
    assert_one_line(text);
    json_t *record = json_loads(text, JSON_REJECT_DUPLICATES, &error);
    if (!record)
        fail_msg("%s in %s", error.text, text);
    return record;
}

static void assert_member(const json_t *record, const char *name, const char *expected)
{
    const char *value = json_string_value(json_object_get(record, name));
    assert_non_null(value);
    assert_string_equal(value, expected);
}

static void assert_time(const char *text)
{
    static const char shape[] = "dddd-dd-ddTdd:dd:dd.dddZ";
    for (size_t i = 0; shape[i]; i++) {
        if (shape[i] == 'd')
            assert_in_range(text[i], '0', '9');
        else
            assert_int_equal(text[i], shape[i]);
    }
}

static void a_text_record_has_its_parts(void **state)
{
    const struct qfc_log_about about = {.job = "4f1c", .project = "9a02"};
    qfc_log(QFC_LOG_INFO, &about, "claimed %s job", "package");
    const char *text = written();
    assert_one_line(text);
    assert_time(text);
    assert_string_equal(text + 24, " info    claimed package job  job=4f1c project=9a02\n");

    qfc_log(QFC_LOG_WARNING, NULL, "100%%");
    assert_string_equal(written() + 24, " warning 100%\n");
}

static void names_that_could_be_misread_are_in_quotes(void **state)
{
    struct qfc_log_about about = {.type = "package", .owner = "alice", .project_name = "trees", .job = "4f1c"};
    qfc_log(QFC_LOG_INFO, &about, "m");
    assert_string_equal(written() + 24, " info    m  type=package owner=alice project_name=trees job=4f1c\n");
    about.owner = "";
    about.project_name = "old \"trees\"\n=\\";
    qfc_log(QFC_LOG_INFO, &about, "m");
    assert_string_equal(written() + 24,
                        " info    m  type=package project_name=\"old \\\"trees\\\"\\n=\\\\\" job=4f1c\n");
}

static void the_longest_names_leave_a_record_whole(void **state)
{
    char message[5000], name[128];
    memset(message, '\n', sizeof message - 1);
    memset(name, '\1', sizeof name - 1);
    message[sizeof message - 1] = name[sizeof name - 1] = '\0';
    const struct qfc_log_about about = {.type = "process_projectfile",
                                        .owner = name,
                                        .project_name = name,
                                        .job = "0f0e0d0c-0000-4000-8000-000000000001",
                                        .project = "0f0e0d0c-0000-4000-8000-000000000002"};
    qfc_log_configure(QFC_LOG_JSON, QFC_LOG_INFO);
    qfc_log(QFC_LOG_INFO, &about, "%s", message);
    json_t *record = written_json();
    assert_member(record, "owner", name);
    assert_member(record, "project", about.project);
    json_decref(record);
}

static void a_json_record_has_its_parts(void **state)
{
    const struct qfc_log_about about = {.job = "4f1c", .project = "9a02"};
    qfc_log_configure(QFC_LOG_JSON, QFC_LOG_INFO);
    qfc_log(QFC_LOG_ERROR, &about, "claimed %s job", "package");
    json_t *record = written_json();
    assert_time(json_string_value(json_object_get(record, "time")));
    assert_member(record, "level", "error");
    assert_member(record, "message", "claimed package job");
    assert_member(record, "job", "4f1c");
    assert_member(record, "project", "9a02");
    assert_int_equal(json_object_size(record), 5);
    json_decref(record);
}

static void what_it_is_about_may_be_unknown(void **state)
{
    const struct qfc_log_about about = {.project = "9a02"};
    qfc_log(QFC_LOG_INFO, &about, "m");
    assert_null(strstr(written(), "job="));
    qfc_log_configure(QFC_LOG_JSON, QFC_LOG_INFO);
    qfc_log(QFC_LOG_INFO, &about, "m");
    json_t *record = written_json();
    assert_int_equal(json_object_size(record), 4);
    json_decref(record);
    qfc_log(QFC_LOG_INFO, NULL, "m");
    record = written_json();
    assert_int_equal(json_object_size(record), 3);
    json_decref(record);
}

static void levels_below_the_chosen_one_are_left_out(void **state)
{
    static const char *const names[] = {"debug", "info", "warning", "error"};
    for (int chosen = QFC_LOG_DEBUG; chosen <= QFC_LOG_ERROR; chosen++) {
        qfc_log_configure(QFC_LOG_TEXT, (enum qfc_log_level)chosen);
        for (int level = QFC_LOG_DEBUG; level <= QFC_LOG_ERROR; level++) {
            qfc_log((enum qfc_log_level)level, NULL, "m");
            const char *text = written();
            assert_true(qfc_log_enabled((enum qfc_log_level)level) == (level >= chosen));
            assert_true((strstr(text, names[level]) != NULL) == (level >= chosen));
        }
    }
}

/* Every byte but NUL, each between two letters. */
static void make_all_bytes(char *out)
{
    for (int byte = 1; byte < 256; byte++) {
        *out++ = 'a';
        *out++ = (char)byte;
    }
    *out = '\0';
}

static void assert_harmless(const char *line)
{
    struct qfc_buffer out = qfc_buffer(100000);
    size_t replaced;
    assert_one_line(line);
    for (const char *p = line; *p && *p != '\n'; p++)
        assert_true((unsigned char)*p >= 0x20 && *p != 0x7F);
    assert_int_equal(qfc_text_clean(&out, line, strlen(line), &replaced), 0);
    assert_int_equal(replaced, 0);
    qfc_buffer_free(&out);
}

static void no_byte_breaks_a_text_record(void **state)
{
    char bytes[512];
    make_all_bytes(bytes);
    const struct qfc_log_about about = {.job = "j\n\x1B[2J\xFF", .project = "p"};
    qfc_log(QFC_LOG_INFO, &about, "%s", bytes);
    const char *line = written();
    assert_harmless(line);
    assert_non_null(strstr(line, "aza{a|a}a~a"));
    assert_non_null(strstr(line, "project=p\n"));
}

static void no_byte_breaks_a_json_record(void **state)
{
    char bytes[512];
    make_all_bytes(bytes);
    const struct qfc_log_about about = {.job = "j\"\n\\\xFF", .project = "p"};
    qfc_log_configure(QFC_LOG_JSON, QFC_LOG_INFO);
    qfc_log(QFC_LOG_INFO, &about, "%s", bytes);
    char line[65536];
    strcpy(line, written());
    assert_harmless(line);
    json_t *record = json_loads(line, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(record);
    const char *message = json_string_value(json_object_get(record, "message"));
    assert_memory_equal(message, bytes, 2 * 127); /* ASCII comes back as it was */
    assert_memory_equal(message + 2 * 127, "a" FFFD "a" FFFD, 8);
    assert_member(record, "job", "j\"\n\\" FFFD);
    assert_member(record, "project", "p");
    json_decref(record);
}

static void text_beyond_ascii_stays(void **state)
{
    qfc_log(QFC_LOG_INFO, NULL, "gr\xC3\xBC\xC3\x9F \xF0\x9F\x98\x80");
    assert_non_null(strstr(written(), "gr\xC3\xBC\xC3\x9F \xF0\x9F\x98\x80\n"));
}

/* Messages around every limit that there may be, of characters that grow when they are escaped or are several bytes. */
static void a_long_message_is_cut_but_its_record_is_whole(void **state)
{
    static const char *const units[] = {"x", "\xF0\x9F\x98\x80", "\"", "\x01", "\n", "\xFF"};
    static const size_t sizes[] = {1000, 2000, 4090, 4095, 4096, 4097, 8192, 30000};
    const struct qfc_log_about about = {.job = "0f0e0d0c-0000-4000-8000-000000000001", .project = "9a02"};
    char *message = malloc(30001);
    assert_non_null(message);
    qfc_log_configure(QFC_LOG_JSON, QFC_LOG_INFO);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes) * (sizeof(units) / sizeof(*units)); i++) {
        const char *unit = units[i % (sizeof(units) / sizeof(*units))];
        size_t size = sizes[i / (sizeof(units) / sizeof(*units))], used = 0;
        for (; used + strlen(unit) <= size; used += strlen(unit))
            memcpy(message + used, unit, strlen(unit));
        message[used] = '\0';
        qfc_log(QFC_LOG_INFO, &about, "%s", message);
        json_t *record = written_json();
        assert_member(record, "job", about.job);
        assert_member(record, "project", about.project);
        assert_true(json_string_length(json_object_get(record, "message")) >= 1000);
        json_decref(record);
    }
    free(message);
}

static void a_record_is_small_enough_to_be_one_write(void **state)
{
    char *message = malloc(100001);
    assert_non_null(message);
    memset(message, '\x01', 100000);
    message[100000] = '\0';
    qfc_log(QFC_LOG_INFO, NULL, "%s", message);
    assert_true(strlen(written()) <= 8192);
    free(message);
}

static void a_line_that_cannot_be_written_is_dropped(void **state)
{
    while (write(ends[1], "x", 1) == 1) /* fill the pipe */
        ;
    qfc_log(QFC_LOG_INFO, NULL, "lost");
    qfc_log_to(-1);
    qfc_log(QFC_LOG_INFO, NULL, "lost");
    qfc_log_to(ends[1]);
    while (read(ends[0], (char[PIPE_BUF]){0}, PIPE_BUF) > 0)
        ;
    qfc_log(QFC_LOG_INFO, NULL, "kept");
    const char *text = written();
    assert_null(strstr(text, "lost"));
    assert_non_null(strstr(text, "kept"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_text_record_has_its_parts, open_pipe, close_pipe),
        cmocka_unit_test_setup_teardown(names_that_could_be_misread_are_in_quotes, open_pipe, close_pipe),
        cmocka_unit_test_setup_teardown(the_longest_names_leave_a_record_whole, open_pipe, close_pipe),
        cmocka_unit_test_setup_teardown(a_json_record_has_its_parts, open_pipe, close_pipe),
        cmocka_unit_test_setup_teardown(what_it_is_about_may_be_unknown, open_pipe, close_pipe),
        cmocka_unit_test_setup_teardown(levels_below_the_chosen_one_are_left_out, open_pipe, close_pipe),
        cmocka_unit_test_setup_teardown(no_byte_breaks_a_text_record, open_pipe, close_pipe),
        cmocka_unit_test_setup_teardown(no_byte_breaks_a_json_record, open_pipe, close_pipe),
        cmocka_unit_test_setup_teardown(text_beyond_ascii_stays, open_pipe, close_pipe),
        cmocka_unit_test_setup_teardown(a_long_message_is_cut_but_its_record_is_whole, open_pipe, close_pipe),
        cmocka_unit_test_setup_teardown(a_record_is_small_enough_to_be_one_write, open_pipe, close_pipe),
        cmocka_unit_test_setup_teardown(a_line_that_cannot_be_written_is_dropped, open_pipe, close_pipe),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
