/*
 * Errors carry kind, code and a sentence that gathers context and always fits.
 */
#include "qfc/error.h"
#include "qfc/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void failing_fills_the_error(void **state)
{
    struct qfc_error error = QFC_NO_ERROR;
    assert_int_equal(error.kind, QFC_ERROR_NONE);
    strcpy(error.sqlstate, "40001");
    assert_int_equal(qfc_fail(&error, QFC_ERROR_REFUSED, 404, "no %s of %d", "image", 3), -1);
    assert_int_equal(error.kind, QFC_ERROR_REFUSED);
    assert_int_equal(error.code, 404);
    assert_string_equal(error.message, "no image of 3");
    assert_string_equal(error.sqlstate, "");
}

static void failing_again_replaces_the_error(void **state)
{
    struct qfc_error error = QFC_NO_ERROR;
    qfc_fail(&error, QFC_ERROR_REFUSED, 404, "a long message that is replaced");
    qfc_fail(&error, QFC_ERROR_BUG, 0, "short");
    assert_int_equal(error.kind, QFC_ERROR_BUG);
    assert_int_equal(error.code, 0);
    assert_string_equal(error.message, "short");
}

static void no_memory_is_an_error_like_any(void **state)
{
    struct qfc_error error = QFC_NO_ERROR;
    assert_int_equal(qfc_fail_memory(&error), -1);
    assert_int_equal(error.kind, QFC_ERROR_MEMORY);
    assert_string_equal(error.message, "out of memory");
}

static void nobody_need_want_the_error(void **state)
{
    assert_int_equal(qfc_fail(NULL, QFC_ERROR_BUG, 0, "x"), -1);
    assert_int_equal(qfc_fail_memory(NULL), -1);
    assert_int_equal(qfc_context(NULL, "x"), -1);
}

static void context_comes_first(void **state)
{
    struct qfc_error error = QFC_NO_ERROR;
    qfc_fail(&error, QFC_ERROR_UNKNOWN, 110, "cause");
    strcpy(error.sqlstate, "57014");
    assert_int_equal(qfc_context(&error, "inner %d", 1), -1);
    assert_int_equal(qfc_context(&error, "outer"), -1);
    assert_string_equal(error.message, "outer: inner 1: cause");
    assert_int_equal(error.kind, QFC_ERROR_UNKNOWN);
    assert_int_equal(error.code, 110);
    assert_string_equal(error.sqlstate, "57014");
}

static void assert_cut(const struct qfc_error *error, const char *start)
{
    size_t length = strlen(error->message);
    size_t fits = QFC_ERROR_MESSAGE_SIZE - 1;
    assert_true(length <= fits && length > fits - 8);
    assert_string_equal(error->message + length - 3, "...");
    assert_memory_equal(error->message, start, strlen(start));
}

static void a_long_message_is_cut(void **state)
{
    struct qfc_error error = QFC_NO_ERROR;
    char text[3000];
    memset(text, 'x', sizeof(text));
    text[sizeof(text) - 1] = '\0';
    qfc_fail(&error, QFC_ERROR_BUG, 0, "start %s", text);
    assert_cut(&error, "start xxx");

    text[QFC_ERROR_MESSAGE_SIZE - 1] = '\0';
    qfc_fail(&error, QFC_ERROR_BUG, 0, "%s", text);
    assert_string_equal(error.message, text); /* fits to the byte */
}

static void a_cut_message_is_well_formed(void **state)
{
    for (size_t before = 0; before < 4; before++) {
        struct qfc_error error = QFC_NO_ERROR;
        char text[2000] = "";
        memset(text, 'x', before);
        while (strlen(text) < sizeof(text) - 5)
            strcat(text, "\xF0\x9F\x98\x80");
        qfc_fail(&error, QFC_ERROR_BUG, 0, "%s", text);
        assert_cut(&error, "");
        struct qfc_buffer out = qfc_buffer(10000);
        size_t replaced;
        assert_int_equal(qfc_text_clean(&out, error.message, strlen(error.message), &replaced), 0);
        assert_int_equal(replaced, 0);
        qfc_buffer_free(&out);
    }
}

static void context_is_kept_whole_and_the_message_is_cut(void **state)
{
    struct qfc_error error = QFC_NO_ERROR;
    char text[901];
    memset(text, 'i', sizeof(text));
    text[sizeof(text) - 1] = '\0';
    qfc_fail(&error, QFC_ERROR_INVALID, 0, "%s", text);
    memset(text, 'o', sizeof(text) - 1);
    assert_int_equal(qfc_context(&error, "%s", text), -1);
    assert_cut(&error, text);
    assert_memory_equal(error.message + strlen(text), ": iii", 5);
    assert_int_equal(error.kind, QFC_ERROR_INVALID);
}

static void context_alone_may_be_too_long(void **state)
{
    struct qfc_error error = QFC_NO_ERROR;
    char text[5000];
    memset(text, 'o', sizeof(text));
    text[sizeof(text) - 1] = '\0';
    qfc_fail(&error, QFC_ERROR_INVALID, 0, "cause");
    qfc_context(&error, "%s", text);
    assert_cut(&error, "ooo");
}

static void kinds_have_names_of_their_own(void **state)
{
    static const enum qfc_error_kind last = QFC_ERROR_BUG;
    assert_string_equal(qfc_error_kind_name(QFC_ERROR_UNREACHABLE), "unreachable");
    for (int kind = 0; kind <= (int)last; kind++) {
        assert_true(strlen(qfc_error_kind_name((enum qfc_error_kind)kind)) > 1);
        for (int other = 0; other < kind; other++)
            assert_string_not_equal(qfc_error_kind_name((enum qfc_error_kind)kind),
                                    qfc_error_kind_name((enum qfc_error_kind)other));
    }
    assert_non_null(qfc_error_kind_name((enum qfc_error_kind)99));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(failing_fills_the_error),
        cmocka_unit_test(failing_again_replaces_the_error),
        cmocka_unit_test(no_memory_is_an_error_like_any),
        cmocka_unit_test(nobody_need_want_the_error),
        cmocka_unit_test(context_comes_first),
        cmocka_unit_test(a_long_message_is_cut),
        cmocka_unit_test(a_cut_message_is_well_formed),
        cmocka_unit_test(context_is_kept_whole_and_the_message_is_cut),
        cmocka_unit_test(context_alone_may_be_too_long),
        cmocka_unit_test(kinds_have_names_of_their_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
