/*
 * feedback.json is checked strictly, cleaned sparingly, and its error is told.
 */
#include "qfc/feedback.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define FFFD "\xEF\xBF\xBD"

/* Reads from a copy with no more behind it than a buffer's zero byte, so that reading past the end is noticed. */
static int read_copy(const char *json, size_t size, struct qfc_feedback *ret_feedback, struct qfc_error *error)
{
    char *copy = malloc(size + 1);
    memcpy(copy, json, size);
    copy[size] = '\0';
    struct qfc_buffer text = {.data = copy, .size = size, .room = size, .maximum = size};
    int r = qfc_feedback_read(&text, ret_feedback, error);
    qfc_buffer_free(&text);
    return r;
}

static struct qfc_feedback read_bytes(const char *json, size_t size)
{
    struct qfc_feedback feedback = {0};
    struct qfc_error error = QFC_NO_ERROR;
    if (read_copy(json, size, &feedback, &error) < 0)
        fail_msg("%s: %s", json, error.message);
    assert_int_equal(feedback.size, strlen(feedback.json));
    return feedback;
}

static struct qfc_feedback read_text(const char *json)
{
    return read_bytes(json, strlen(json));
}

static void assert_cleaned(const char *json, size_t size, const char *expected, size_t numbers, size_t characters)
{
    struct qfc_feedback feedback = read_bytes(json, size);
    assert_string_equal(feedback.json, expected);
    assert_int_equal(feedback.replaced_numbers, numbers);
    assert_int_equal(feedback.replaced_characters, characters);
    qfc_feedback_free(&feedback);
}
#define ASSERT_CLEANED(json, expected, numbers, characters)                                                            \
    assert_cleaned(json, sizeof(json) - 1, expected, numbers, characters)
#define ASSERT_UNCHANGED(json) ASSERT_CLEANED(json, json, 0, 0)

static void assert_refused(const char *json, size_t size, const char *message)
{
    struct qfc_feedback feedback = {.size = 4711};
    struct qfc_error error = QFC_NO_ERROR;
    assert_int_equal(read_copy(json, size, &feedback, &error), -1);
    assert_int_equal(error.kind, QFC_ERROR_INVALID);
    assert_string_equal(error.message, message);
    assert_int_equal(feedback.size, 4711);
    assert_null(feedback.json);
}
#define ASSERT_REFUSED(json, message) assert_refused(json, sizeof(json) - 1, message)

static void every_kind_of_value_passes_unchanged(void **state)
{
    ASSERT_UNCHANGED("{}");
    ASSERT_UNCHANGED(" \t\r\n{ \t\r\n} \t\r\n");
    ASSERT_UNCHANGED("[]");
    ASSERT_UNCHANGED("[ ]");
    ASSERT_UNCHANGED("true");
    ASSERT_UNCHANGED("false");
    ASSERT_UNCHANGED("null");
    ASSERT_UNCHANGED("\"\"");
    ASSERT_UNCHANGED("[1, [2, [true , false,null]], {\"a\": {\"b\":[{}]}}]");
    ASSERT_UNCHANGED("{\"z\": 1, \"a\": 2, \"z\": 3}");
    ASSERT_UNCHANGED("\"all \\\" \\\\ \\/ \\b \\f \\n \\r \\t \\u0041 \\uD83D\\uDE00 \\uffff \x7F\"");
    ASSERT_UNCHANGED("\"\xC3\xA4 \xE2\x82\xAC \xF0\x9F\x98\x80 " FFFD "\"");
    ASSERT_UNCHANGED("{\"\":\"NaN Infinity\"}");
}

static void numbers_pass_as_they_were_written(void **state)
{
    ASSERT_UNCHANGED("[0, -0, 1, -1, 10, 0.1, 0.10, 1.0, 1e5, 1E5, 1e+5, 1E-5, 0e0, -0.0e-0]");
    ASSERT_UNCHANGED("12345678901234567890123456789012345678901234567890.12345678901234567890");
    ASSERT_UNCHANGED("18446744073709551616");
    ASSERT_UNCHANGED("[1e308, -1.7e308, 1e-300]");
}

/* jsonb refuses the first, writes the second out as 5,001 digits, and Python loads no row that has so many. */
static void numbers_that_nobody_can_use_become_null(void **state)
{
    ASSERT_CLEANED("[1e999999, 1e5000, -1E+309,1e-5000]", "[null, null, null,null]", 4, 0);
    char digits[4003] = "[", *end = digits + 1;
    memset(end, '7', 4000);
    memcpy(end + 4000, "]", 2);
    ASSERT_UNCHANGED(digits);
    memcpy(end + 4000, "7", 2);
    struct qfc_feedback feedback = read_text(end);
    assert_string_equal(feedback.json, "null");
    assert_int_equal(feedback.replaced_numbers, 1);
    qfc_feedback_free(&feedback);
}

static void what_pythons_json_adds_becomes_null(void **state)
{
    ASSERT_CLEANED("NaN", "null", 1, 0);
    ASSERT_CLEANED("[NaN, Infinity,-Infinity ]", "[null, null,null ]", 3, 0);
    ASSERT_CLEANED("{\"a\":NaN,\"b\":[-Infinity]}", "{\"a\":null,\"b\":[null]}", 2, 0);
}

static void escapes_that_stand_for_no_character_are_replaced(void **state)
{
    ASSERT_CLEANED("\"a\\u0000b\"", "\"a\\ufffdb\"", 0, 1);
    ASSERT_CLEANED("\"\\uD800\"", "\"\\ufffd\"", 0, 1);
    ASSERT_CLEANED("\"\\udfff!\"", "\"\\ufffd!\"", 0, 1);
    ASSERT_CLEANED("\"\\udc00\\ud800\"", "\"\\ufffd\\ufffd\"", 0, 2);
    ASSERT_CLEANED("\"\\ud800\\ud800\\udc00\"", "\"\\ufffd\\ud800\\udc00\"", 0, 1);
    ASSERT_CLEANED("\"\\ud800\\u0041\"", "\"\\ufffd\\u0041\"", 0, 1);
    ASSERT_CLEANED("\"\\ud800\\n\"", "\"\\ufffd\\n\"", 0, 1);
    ASSERT_CLEANED("{\"\\u0000\":\"\\u0000\"}", "{\"\\ufffd\":\"\\ufffd\"}", 0, 2);
    ASSERT_UNCHANGED("\"\\\\u0000 \\\\ud800\"");
}

static void bytes_that_are_no_text_are_replaced(void **state)
{
    ASSERT_CLEANED("\"a\0b\"", "\"a" FFFD "b\"", 0, 1);
    ASSERT_CLEANED("\"\xFF\xC3\"", "\"" FFFD FFFD "\"", 0, 2);
    ASSERT_CLEANED("\"\xED\xA0\x80\"", "\"" FFFD FFFD FFFD "\"", 0, 3);
    ASSERT_CLEANED("\"\xC3\xA4\xC3\"", "\"\xC3\xA4" FFFD "\"", 0, 1);
    ASSERT_CLEANED("{\"k\xE9y\": \"\xE9\"}", "{\"k" FFFD "y\": \"" FFFD "\"}", 0, 2);
}

static void raw_control_characters_are_escaped(void **state)
{
    ASSERT_CLEANED("\"a\nb\tc\x01\x1F\"", "\"a\\u000ab\\u0009c\\u0001\\u001f\"", 0, 0);
}

static void a_byte_order_mark_is_skipped(void **state)
{
    ASSERT_CLEANED("\xEF\xBB\xBF{\"error\": 1}", "{\"error\": 1}", 0, 0);
    ASSERT_CLEANED("\xEF\xBB\xBF [NaN]", " [null]", 1, 0);
    ASSERT_REFUSED("\xEF\xBB\xBF\xEF\xBB\xBF{}", "line 1 column 2: expected a value");
}

/* The scanner looks at eight bytes at a time: what it looks for must be seen wherever it stands. */
static void special_bytes_are_found_at_every_offset(void **state)
{
    static const struct {
        char byte;
        const char *expected;
    } cases[] = {{'\0', FFFD}, {'\x1F', "\\u001f"}, {'\x80', FFFD}, {'\xFF', FFFD}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        for (int at = 0; at < 30; at++) {
            char json[40], expected[50];
            int size = snprintf(json, sizeof(json), "\"%.*s?%.*s\"", at, "!#!#!#!#!#!#!#!#!#!#!#!#!#!#!#!#", 29 - at,
                                "[]~ [ ~ [ ~ [ ~ [ ~ [ ~ [ ~ [ ~ [ ~ ");
            *strchr(json, '?') = cases[i].byte;
            snprintf(expected, sizeof(expected), "%.*s%s%s", at + 1, json, cases[i].expected, json + at + 2);
            assert_cleaned(json, (size_t)size, expected, 0, cases[i].expected[0] == '\\' ? 0 : 1);
        }
    }
}

static void what_is_not_json_is_refused_with_its_place(void **state)
{
    ASSERT_REFUSED("", "empty");
    ASSERT_REFUSED(" \n", "empty");
    ASSERT_REFUSED("\xEF\xBB\xBF", "empty");
    ASSERT_REFUSED("{\"a\": 1 \"b\": 2}", "line 1 column 9: expected \",\" or \"}\"");
    ASSERT_REFUSED("{\n \"a\": [1,\n 2 3]}", "line 3 column 4: expected \",\" or \"]\"");
    ASSERT_REFUSED("{\"\xC3\xA4\" 1}", "line 1 column 6: expected \":\"");
    ASSERT_REFUSED("{a: 1}", "line 1 column 2: expected a member's name in quotes");
    ASSERT_REFUSED("{\"a\":1,}", "line 1 column 8: expected a member's name in quotes");
    ASSERT_REFUSED("{,}", "line 1 column 2: expected a member's name in quotes");
    ASSERT_REFUSED("[1,]", "line 1 column 4: expected a value");
    ASSERT_REFUSED("[,1]", "line 1 column 2: expected a value");
    ASSERT_REFUSED("[1}", "line 1 column 3: expected \",\" or \"]\"");
    ASSERT_REFUSED("{\"a\":}", "line 1 column 6: expected a value");
    ASSERT_REFUSED("{} {}", "line 1 column 4: expected nothing more");
    ASSERT_REFUSED("]", "line 1 column 1: expected a value");
    ASSERT_REFUSED("{}\0", "line 1 column 3: expected nothing more");
    ASSERT_REFUSED("[\0]", "line 1 column 2: expected a value");
    ASSERT_REFUSED("[\xC2\xA0]", "line 1 column 2: expected a value");
    ASSERT_REFUSED("[\v]", "line 1 column 2: expected a value");
    ASSERT_REFUSED("'a'", "line 1 column 1: expected a value");
    ASSERT_REFUSED("// no\n1", "line 1 column 1: expected a value");
}

static void misspelt_values_are_refused(void **state)
{
    ASSERT_REFUSED("tru", "line 1 column 1: expected a value");
    ASSERT_REFUSED("truex", "line 1 column 5: expected nothing more");
    ASSERT_REFUSED("True", "line 1 column 1: expected a value");
    ASSERT_REFUSED("nan", "line 1 column 1: expected a value");
    ASSERT_REFUSED("-NaN", "line 1 column 2: expected a digit");
    ASSERT_REFUSED("+Infinity", "line 1 column 1: expected a value");
    ASSERT_REFUSED("-Infinit", "line 1 column 2: expected a digit");
    ASSERT_REFUSED("-", "ends too early: expected a digit");
    ASSERT_REFUSED("01", "line 1 column 2: expected nothing more");
    ASSERT_REFUSED("1.", "ends too early: expected a digit");
    ASSERT_REFUSED(".5", "line 1 column 1: expected a value");
    ASSERT_REFUSED("[1.e5]", "line 1 column 4: expected a digit");
    ASSERT_REFUSED("1e", "ends too early: expected a digit");
    ASSERT_REFUSED("[1e+]", "line 1 column 5: expected a digit");
    ASSERT_REFUSED("+1", "line 1 column 1: expected a value");
    ASSERT_REFUSED("0x10", "line 1 column 2: expected nothing more");
}

static void broken_strings_are_refused(void **state)
{
    ASSERT_REFUSED("\"", "line 1 column 1: a string without an end");
    ASSERT_REFUSED("[\"abc", "line 1 column 2: a string without an end");
    ASSERT_REFUSED("\"abc\\\"", "line 1 column 1: a string without an end");
    ASSERT_REFUSED("\"\\", "line 1 column 2: an unknown escape");
    ASSERT_REFUSED("\"\\x41\"", "line 1 column 2: an unknown escape");
    ASSERT_REFUSED("\"\\\0\"", "line 1 column 2: an unknown escape");
    ASSERT_REFUSED("\"\\U0041\"", "line 1 column 2: an unknown escape");
    ASSERT_REFUSED("\"\\u004\"", "line 1 column 2: expected four hexadecimal digits after \\u");
    ASSERT_REFUSED("\"\\u004g\"", "line 1 column 2: expected four hexadecimal digits after \\u");
    ASSERT_REFUSED("\"\\ud800\\u12\"", "line 1 column 8: expected four hexadecimal digits after \\u");
    ASSERT_REFUSED("\"\\u", "line 1 column 2: expected four hexadecimal digits after \\u");
}

static void every_cut_is_refused(void **state)
{
    static const char whole[] = "{\"error\": \"x\\u00e9\", \"list\": [true, -1.5e+3, {\"a\": null}], \"more\": NaN}";
    struct qfc_error error = QFC_NO_ERROR;
    for (size_t size = 0; size < strlen(whole); size++) {
        struct qfc_feedback feedback;
        assert_int_equal(read_copy(whole, size, &feedback, &error), -1);
        assert_int_equal(error.kind, QFC_ERROR_INVALID);
    }
}

static char *nested(const char *open, size_t levels, const char *close)
{
    struct qfc_buffer json = qfc_buffer(1000000);
    for (size_t i = 0; i < levels; i++)
        assert_int_equal(qfc_buffer_append_text(&json, open), 0);
    assert_int_equal(qfc_buffer_append_text(&json, "0"), 0);
    for (size_t i = 0; i < levels; i++)
        assert_int_equal(qfc_buffer_append_text(&json, close), 0);
    return qfc_buffer_take(&json);
}

static void nesting_ends_at_five_hundred_levels(void **state)
{
    char *arrays = nested("[", 500, "]"), *objects = nested("{\"a\":", 500, "}");
    char *too_deep = nested("[", 501, "]"), *open_end = nested("[", 100000, "");
    struct qfc_feedback feedback = read_text(arrays);
    qfc_feedback_free(&feedback);
    feedback = read_text(objects);
    qfc_feedback_free(&feedback);
    assert_refused(too_deep, strlen(too_deep), "line 1 column 501: nested deeper than 500 levels");
    assert_refused(open_end, strlen(open_end), "line 1 column 501: nested deeper than 500 levels");
    free(arrays);
    free(objects);
    free(too_deep);
    free(open_end);
}

static void siblings_do_not_count_as_levels(void **state)
{
    struct qfc_buffer json = qfc_buffer(100000);
    assert_int_equal(qfc_buffer_append_text(&json, "[0"), 0);
    for (int i = 0; i < 3000; i++)
        assert_int_equal(qfc_buffer_append_text(&json, ",[[]],{\"a\":{}}"), 0);
    assert_int_equal(qfc_buffer_append_text(&json, "]"), 0);
    struct qfc_feedback feedback = read_bytes(json.data, json.size);
    assert_string_equal(feedback.json, json.data);
    qfc_feedback_free(&feedback);
    qfc_buffer_free(&json);
}

static void size_is_limited(void **state)
{
    size_t size = QFC_FEEDBACK_MAX_BYTES;
    char *json = malloc(size + 1);
    struct qfc_feedback feedback;
    struct qfc_error error = QFC_NO_ERROR;
    assert_non_null(json);
    memset(json, 'x', size + 1);
    json[0] = json[size - 1] = '"';
    json[size] = ' ';
    assert_int_equal(read_copy(json, size, &feedback, &error), 0);
    assert_int_equal(feedback.size, size);
    assert_memory_equal(feedback.json, json, size);
    qfc_feedback_free(&feedback);
    assert_refused(json, size + 1, "larger than 67108864 bytes");
    memset(json + 1, 1, size - 2); /* each becomes six bytes */
    assert_refused(json, size, "larger than 134217728 bytes once cleaned");
    free(json);
}

static void only_an_object_is_an_object(void **state)
{
    static const struct {
        const char *json;
        bool is_object;
    } cases[] = {{"{}", true}, {" \n{\"a\":[]}", true}, {"\xEF\xBB\xBF\t{}", true}, {"[{}]", false}, {"\"{}\"", false},
                 {"1", false}, {"NaN", false}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct qfc_feedback feedback = read_text(cases[i].json);
        assert_true(feedback.is_object == cases[i].is_object);
        qfc_feedback_free(&feedback);
    }
}

static void assert_error(const char *json, enum qfc_feedback_error expected, const char *text)
{
    struct qfc_feedback feedback = read_text(json);
    if (feedback.error != expected)
        fail_msg("%s: %d, not %d", json, (int)feedback.error, (int)expected);
    if (text)
        assert_string_equal(feedback.error_text, text);
    else
        assert_null(feedback.error_text);
    qfc_feedback_free(&feedback);
}

static void no_error_is_told(void **state)
{
    assert_error("{}", QFC_FEEDBACK_NO_ERROR, NULL);
    assert_error("{\"error\": null}", QFC_FEEDBACK_NO_ERROR, NULL);
    assert_error("{\"error\": NaN}", QFC_FEEDBACK_NO_ERROR, NULL);
    assert_error("{\"Error\":1, \"error_\":1, \"erro\":1, \"\":1, \"error\\u0000\":1}", QFC_FEEDBACK_NO_ERROR, NULL);
    assert_error("{\"outputs\": {\"error\": \"not at the top\"}}", QFC_FEEDBACK_NO_ERROR, NULL);
    assert_error("[{\"error\": \"not at the top\"}]", QFC_FEEDBACK_NO_ERROR, NULL);
    assert_error("[\"error\", 1]", QFC_FEEDBACK_NO_ERROR, NULL);
    assert_error("\"error\"", QFC_FEEDBACK_NO_ERROR, NULL);
}

static void falsy_errors_are_as_in_python(void **state)
{
    assert_error("{\"error\": \"\"}", QFC_FEEDBACK_FALSY_ERROR, "");
    assert_error("{\"error\": 0}", QFC_FEEDBACK_FALSY_ERROR, "0");
    assert_error("{\"error\":-0}", QFC_FEEDBACK_FALSY_ERROR, "-0");
    assert_error("{\"error\":0.00}", QFC_FEEDBACK_FALSY_ERROR, "0.00");
    assert_error("{\"error\":0e12}", QFC_FEEDBACK_FALSY_ERROR, "0e12");
    assert_error("{\"error\":-0.0E-7}", QFC_FEEDBACK_FALSY_ERROR, "-0.0E-7");
    assert_error("{\"error\": false}", QFC_FEEDBACK_FALSY_ERROR, "false");
    assert_error("{\"error\": [ \n ] }", QFC_FEEDBACK_FALSY_ERROR, "[ \n ]");
    assert_error("{\"error\": {}}", QFC_FEEDBACK_FALSY_ERROR, "{}");
}

static void truthy_errors_are_as_in_python(void **state)
{
    assert_error("{\"error\": \"x\"}", QFC_FEEDBACK_TRUTHY_ERROR, "x");
    assert_error("{\"error\": \" \"}", QFC_FEEDBACK_TRUTHY_ERROR, " ");
    assert_error("{\"error\": \"0\"}", QFC_FEEDBACK_TRUTHY_ERROR, "0");
    assert_error("{\"error\": 0.01}", QFC_FEEDBACK_TRUTHY_ERROR, "0.01");
    assert_error("{\"error\": -1 }", QFC_FEEDBACK_TRUTHY_ERROR, "-1");
    assert_error("{\"error\": 10e0}", QFC_FEEDBACK_TRUTHY_ERROR, "10e0");
    assert_error("{\"error\": true}", QFC_FEEDBACK_TRUTHY_ERROR, "true");
    assert_error("{\"error\": [0] , \"x\": 1}", QFC_FEEDBACK_TRUTHY_ERROR, "[0]");
    assert_error("{\"error\": {\"\": NaN}}", QFC_FEEDBACK_TRUTHY_ERROR, "{\"\": null}");
}

static void the_last_of_several_errors_counts(void **state)
{
    assert_error("{\"error\": \"first\", \"error\": \"last\"}", QFC_FEEDBACK_TRUTHY_ERROR, "last");
    assert_error("{\"error\": \"first\", \"error\": null}", QFC_FEEDBACK_NO_ERROR, NULL);
    assert_error("{\"error\": null, \"a\": [NaN], \"\\u0065r\\u0072or\": \"\"}", QFC_FEEDBACK_FALSY_ERROR, "");
    assert_error("{\"error\": \"before\", \"x\": \"\\u0000\xFF\x01\", \"error\": 2}", QFC_FEEDBACK_TRUTHY_ERROR, "2");
}

static void the_errors_text_is_decoded(void **state)
{
    assert_error("{\"error\": \"\\\"\\\\\\/\\b\\f\\n\\r\\t\"}", QFC_FEEDBACK_TRUTHY_ERROR, "\"\\/\b\f\n\r\t");
    assert_error("{\"error\": \"\\u0041\\u00e9\\u20AC\\ud83d\\ude00\"}", QFC_FEEDBACK_TRUTHY_ERROR,
                 "A\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80");
    assert_error("{\"error\": \"\\u0000 \\udead \xFF \x07\"}", QFC_FEEDBACK_TRUTHY_ERROR,
                 FFFD " " FFFD " " FFFD " \x07");
    assert_error("{\"error\": \"\\u007f\\u0080\\u07ff\\u0800\\uffff\\ud800\\udc00\\udbff\\udfff\"}",
                 QFC_FEEDBACK_TRUTHY_ERROR,
                 "\x7F\xC2\x80\xDF\xBF\xE0\xA0\x80\xEF\xBF\xBF\xF0\x90\x80\x80\xF4\x8F\xBF\xBF");
}

/* `unit` repeated to more than 4 KB; the text must hold `expected_size` bytes of it. */
static void assert_cut(const char *before, const char *unit, const char *after, size_t expected_size)
{
    struct qfc_buffer json = qfc_buffer(100000);
    assert_int_equal(qfc_buffer_printf(&json, "{\"error\": %s", before), 0);
    while (json.size < 20000)
        assert_int_equal(qfc_buffer_append_text(&json, unit), 0);
    assert_int_equal(qfc_buffer_printf(&json, "%s}", after), 0);
    struct qfc_feedback feedback = read_bytes(json.data, json.size);
    assert_int_equal(strlen(feedback.error_text), expected_size);
    qfc_feedback_free(&feedback);
    qfc_buffer_free(&json);
}

static void a_long_error_is_cut_between_characters(void **state)
{
    assert_cut("\"", "x", "\"", 4096);
    assert_cut("\"", "\xE2\x82\xAC", "\"", 4095);
    assert_cut("\"", "\\u20ac", "\"", 4095);
    assert_cut("\"x", "\\ud83d\\ude00", "\"", 4093);
    assert_cut("[\"", "\xE2\x82\xAC", "\"]", 4094);
}

static void the_errors_type_is_told(void **state)
{
    static const struct {
        const char *json;
        const char *type;
    } cases[] = {
        {"{\"error_type\": \"TIMEOUT\"}", "TIMEOUT"},
        {"{\"error\":\"x\",\"error\\u005ftype\":\"A\\u00e9\"}", "A\xC3\xA9"},
        {"{\"error_type\": \"\"}", ""},
        {"{\"error_type\": \"first\", \"error_type\": null}", NULL},
        {"{\"error_type\": 1}", NULL},
        {"{\"error_type\": {\"error_type\": \"x\"}}", NULL},
        {"{}", NULL},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct qfc_feedback feedback = read_text(cases[i].json);
        if (cases[i].type)
            assert_string_equal(feedback.error_type, cases[i].type);
        else
            assert_null(feedback.error_type);
        qfc_feedback_free(&feedback);
    }
}

static void freeing_twice_does_no_harm(void **state)
{
    struct qfc_feedback feedback = read_text("{\"error\": \"x\", \"error_type\": \"y\"}");
    qfc_feedback_free(&feedback);
    assert_null(feedback.json);
    qfc_feedback_free(&feedback);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_of_value_passes_unchanged),
        cmocka_unit_test(numbers_pass_as_they_were_written),
        cmocka_unit_test(numbers_that_nobody_can_use_become_null),
        cmocka_unit_test(what_pythons_json_adds_becomes_null),
        cmocka_unit_test(escapes_that_stand_for_no_character_are_replaced),
        cmocka_unit_test(bytes_that_are_no_text_are_replaced),
        cmocka_unit_test(raw_control_characters_are_escaped),
        cmocka_unit_test(a_byte_order_mark_is_skipped),
        cmocka_unit_test(special_bytes_are_found_at_every_offset),
        cmocka_unit_test(what_is_not_json_is_refused_with_its_place),
        cmocka_unit_test(misspelt_values_are_refused),
        cmocka_unit_test(broken_strings_are_refused),
        cmocka_unit_test(every_cut_is_refused),
        cmocka_unit_test(nesting_ends_at_five_hundred_levels),
        cmocka_unit_test(siblings_do_not_count_as_levels),
        cmocka_unit_test(size_is_limited),
        cmocka_unit_test(only_an_object_is_an_object),
        cmocka_unit_test(no_error_is_told),
        cmocka_unit_test(falsy_errors_are_as_in_python),
        cmocka_unit_test(truthy_errors_are_as_in_python),
        cmocka_unit_test(the_last_of_several_errors_counts),
        cmocka_unit_test(the_errors_text_is_decoded),
        cmocka_unit_test(a_long_error_is_cut_between_characters),
        cmocka_unit_test(the_errors_type_is_told),
        cmocka_unit_test(freeing_twice_does_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
