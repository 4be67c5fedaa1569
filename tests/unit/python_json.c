/*
 * JSON as Python prints it: what is special about it, one by one. tests/integration/test_python_json.py holds it against
 * Python itself; for that, called with a file's name, this prints what is printed of each of the file's lines.
 */
#include "../../processors/python_json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MAX_BYTES (64u * 1024 * 1024)

/* From a copy of exactly the size and its zero byte, so that reading past the end is noticed. */
static int print_copy(const char *json, size_t size, struct qfc_buffer *out, struct qfc_error *error)
{
    char *copy = strndup(json, size);
    int r = python_json_print(copy, size, out, error);
    free(copy);
    return r;
}

static void assert_printed(const char *json, const char *expected)
{
    struct qfc_buffer out = qfc_buffer(MAX_BYTES);
    struct qfc_error error = QFC_NO_ERROR;
    if (print_copy(json, strlen(json), &out, &error) < 0)
        fail_msg("%s: %s", json, error.message);
    assert_string_equal(qfc_buffer_text(&out), expected);
    qfc_buffer_free(&out);
}

static void layout_and_order(void **state)
{
    assert_printed(" {\"b\" :1,\n\"a\":[ ],\t\"ab\":{ } , \"\":[1,{\"z\":null,\"y\":true}]} ",
                   "{\"\": [1, {\"y\": true, \"z\": null}], \"a\": [], \"ab\": {}, \"b\": 1}");
    assert_printed("[[],[{\"b\":[{}],\"a\":{\"c\":[]}}],\"}\"]", "[[], [{\"a\": {\"c\": []}, \"b\": [{}]}], \"}\"]");
    assert_printed("null", "null");
    assert_printed("\"a\"", "\"a\"");
}

/* A surrogate pair stands behind U+FFFF in Python, before it in UTF-16. */
static void names_are_sorted_by_code_point(void **state)
{
    assert_printed("{\"\xEF\xBF\xBD\":1,\"\\ud83d\\ude00\":2,\"\xC3\xA9\":3,\"e\":4,\"\\u0065\\u0301\":5}",
                   "{\"e\": 4, \"e\\u0301\": 5, \"\\u00e9\": 3, \"\\ufffd\": 1, \"\\ud83d\\ude00\": 2}");
}

static void last_of_equal_names_counts(void **state)
{
    assert_printed("{\"a\":1,\"b\":2,\"\\u0061\":{\"x\":1,\"x\":[]},\"b\":3}", "{\"a\": {\"x\": []}, \"b\": 3}");
}

static void strings_are_ascii(void **state)
{
    assert_printed("\"\\u0000\\u001f\\b\\f\\n\\r\\t\\\"\\\\\\/ \x7F \xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80 \\u00e9\"",
                   "\"\\u0000\\u001f\\b\\f\\n\\r\\t\\\"\\\\/ \\u007f \\u00e9 \\u20ac \\ud83d\\ude00 \\u00e9\"");
}

static void integers_stay(void **state)
{
    assert_printed("[0,-0,-1,123456789012345678901234567890123]", "[0, 0, -1, 123456789012345678901234567890123]");
}

static void floats_as_repr_prints_them(void **state)
{
    assert_printed("[0.1,1.10,1e5,-0.0,0e0,1E15,1e16,0.0001,0.00001,123456789.123456789,9007199254740993.0]",
                   "[0.1, 1.1, 100000.0, -0.0, 0.0, 1000000000000000.0, 1e+16, 0.0001, 1e-05, 123456789.12345679, "
                   "9007199254740992.0]");
    assert_printed("[5e-324,2.2250738585072014e-308,1.7976931348623157e308,1e999,-1e999,1e-999]",
                   "[5e-324, 2.2250738585072014e-308, 1.7976931348623157e+308, Infinity, -Infinity, 0.0]");
    assert_printed("[5.6843418860808015e-14,9.5367431640625e-07]", "[5.684341886080802e-14, 9.5367431640625e-07]");
}

static void assert_refused(const char *json, size_t maximum, const char *message)
{
    struct qfc_buffer out = qfc_buffer(maximum);
    struct qfc_error error = QFC_NO_ERROR;
    assert_int_equal(print_copy(json, strlen(json), &out, &error), -1);
    assert_int_equal(error.kind, QFC_ERROR_INVALID);
    assert_string_equal(error.message, message);
    qfc_buffer_free(&out);
}

static void bounds(void **state)
{
    char deep[2 * (PYTHON_JSON_MAX_LEVELS + 1) + 1] = "";
    memset(deep, '[', PYTHON_JSON_MAX_LEVELS);
    memset(deep + PYTHON_JSON_MAX_LEVELS, ']', PYTHON_JSON_MAX_LEVELS);
    assert_printed(deep, deep);
    memset(deep, '[', PYTHON_JSON_MAX_LEVELS + 1);
    memset(deep + PYTHON_JSON_MAX_LEVELS + 1, ']', PYTHON_JSON_MAX_LEVELS + 1);
    assert_refused(deep, MAX_BYTES, "nested deeper than 1000 levels");
    assert_refused("[1,2]", 5, "larger than 5 bytes as Python prints it");
}

/* Were objects looked into when they are passed, this would take hours. */
static void deep_objects_take_no_longer(void **state)
{
    const size_t filler = 8u * 1024 * 1024;
    struct qfc_buffer json = qfc_buffer(MAX_BYTES), out = qfc_buffer(MAX_BYTES);
    struct qfc_error error = QFC_NO_ERROR;
    for (int i = 0; i < PYTHON_JSON_MAX_LEVELS - 1; i++)
        qfc_buffer_append_text(&json, "{\"a\":");
    qfc_buffer_append_text(&json, "[");
    for (size_t i = 0; i < filler; i += 2)
        qfc_buffer_append_text(&json, "0,");
    qfc_buffer_append_text(&json, "0]");
    for (int i = 0; i < PYTHON_JSON_MAX_LEVELS - 1; i++)
        qfc_buffer_append_text(&json, "}");
    assert_int_equal(python_json_print(json.data, json.size, &out, &error), 0);
    assert_true(out.size > filler);
    qfc_buffer_free(&json);
    qfc_buffer_free(&out);
}

static void assert_found(const char *json, const char *const *path, const char *expected)
{
    const char *found = NULL;
    size_t size = 0;
    if (!expected) {
        assert_false(python_json_find(json, strlen(json), path, &found, &size));
        assert_null(found);
        return;
    }
    assert_true(python_json_find(json, strlen(json), path, &found, &size));
    assert_int_equal(size, strlen(expected));
    assert_memory_equal(found, expected, size);
}
#define PATH(...) ((const char *const[]){__VA_ARGS__, NULL})

static void members_are_found(void **state)
{
    const char *json = " {\"x\":\"{\\\"a\\\":1}\", \"a\" : {\"b\":[1,{\"c\":2}] , \"b\\\"\":3}, \"n\":null}";
    assert_found(json, PATH("a"), "{\"b\":[1,{\"c\":2}] , \"b\\\"\":3}");
    assert_found(json, PATH("a", "b"), "[1,{\"c\":2}]");
    assert_found(json, PATH("n"), "null");
    assert_found(json, PATH("a", "c"), NULL);
    assert_found(json, PATH("x", "a"), NULL);
    assert_found(json, PATH("a", "b", "c"), NULL);
    assert_found(json, PATH("aa"), NULL);
    assert_found("{\"a\":1,\"\\u0061\":{\"b\":2},\"b\":5}", PATH("a", "b"), "2");
    assert_found("{}", PATH("a"), NULL);
    assert_found("[{\"a\":1}]", PATH("a"), NULL);
}

/* Each line of a file, printed. */
static int print_lines(const char *path)
{
    FILE *file = fopen(path, "r");
    char *line = NULL;
    size_t room = 0;
    ssize_t size;
    while (file && (size = getline(&line, &room, file)) > 0) {
        struct qfc_buffer out = qfc_buffer(MAX_BYTES);
        struct qfc_error error = QFC_NO_ERROR;
        if (print_copy(line, (size_t)size - 1, &out, &error) < 0)
            puts(error.message);
        else
            puts(qfc_buffer_text(&out));
        qfc_buffer_free(&out);
    }
    free(line);
    return file ? fclose(file) : 1;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layout_and_order),
        cmocka_unit_test(names_are_sorted_by_code_point),
        cmocka_unit_test(last_of_equal_names_counts),
        cmocka_unit_test(strings_are_ascii),
        cmocka_unit_test(integers_stay),
        cmocka_unit_test(floats_as_repr_prints_them),
        cmocka_unit_test(bounds),
        cmocka_unit_test(deep_objects_take_no_longer),
        cmocka_unit_test(members_are_found),
    };
    return argc > 1 ? print_lines(argv[1]) : cmocka_run_group_tests(tests, NULL, NULL);
}
