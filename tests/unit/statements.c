/*
 * Statements as data: what they own, how they are printed, what they refuse.
 */
#include "qfc/statements.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void assert_printed(const struct qfc_statements *list, const char *expected)
{
    struct qfc_buffer out = qfc_buffer(100000);
    assert_int_equal(qfc_statements_print(list, &out), 0);
    assert_string_equal(qfc_buffer_text(&out), expected);
    qfc_buffer_free(&out);
}

static void statements_are_kept_in_order(void **state)
{
    struct qfc_statements list = {0};
    struct qfc_error error = QFC_NO_ERROR;
    assert_int_equal(QFC_ADD(&list, &error, "SELECT $1, $2", "one", NULL), 0);
    assert_int_equal(QFC_ADD(&list, &error, "SELECT now()"), 0);
    assert_int_equal(list.count, 2);
    assert_string_equal(list.items[0].sql, "SELECT $1, $2");
    assert_int_equal(list.items[0].count, 2);
    assert_string_equal(list.items[0].values[0].text, "one");
    assert_null(list.items[0].values[1].text);
    assert_int_equal(list.items[1].count, 0);
    assert_printed(&list, "SELECT $1, $2 $1='one' $2=NULL\nSELECT now()\n");
    qfc_statements_free(&list);
    assert_null(list.items);
    assert_int_equal(list.count, 0);
    qfc_statements_free(&list);
}

static void texts_are_copied_but_borrowed_ones_are_not(void **state)
{
    struct qfc_statements list = {0};
    char sql[] = "SELECT", copied[] = "copied", secret[] = "secret", borrowed[] = "borrowed";
    const struct qfc_value values[] = {{copied, QFC_VALUE_COPY},
                                       {secret, QFC_VALUE_SECRET},
                                       {borrowed, QFC_VALUE_BORROWED},
                                       {NULL, QFC_VALUE_SECRET},
                                       {NULL, QFC_VALUE_BORROWED}};
    assert_int_equal(qfc_statements_add(&list, sql, 5, values, NULL), 0);
    sql[0] = copied[0] = secret[0] = borrowed[0] = '!';
    assert_string_equal(list.items[0].sql, "SELECT");
    assert_string_equal(list.items[0].values[0].text, "copied");
    assert_string_equal(list.items[0].values[1].text, "secret");
    assert_ptr_equal(list.items[0].values[2].text, borrowed);
    qfc_statements_free(&list);
    assert_string_equal(borrowed, "!orrowed");
}

static void secrets_are_never_printed(void **state)
{
    struct qfc_statements list = {0};
    struct qfc_buffer out = qfc_buffer(1000);
    const struct qfc_value values[] = {
        {"shown", QFC_VALUE_COPY}, {"hunter2", QFC_VALUE_SECRET}, {"lent", QFC_VALUE_BORROWED}};
    assert_int_equal(qfc_statements_add(&list, "INSERT", 3, values, NULL), 0);
    assert_int_equal(qfc_statements_print(&list, &out), 0);
    assert_string_equal(out.data, "INSERT $1='shown' $2=*** $3='lent'\n");
    qfc_buffer_free(&out);
    qfc_statements_free(&list);
}

static void long_values_are_cut(void **state)
{
    struct qfc_statements list = {0};
    struct qfc_buffer out = qfc_buffer(1000);
    char text[50001];
    memset(text, 'x', sizeof(text));
    text[sizeof(text) - 1] = '\0';
    assert_int_equal(QFC_ADD(&list, NULL, "INSERT", text, "after"), 0);
    assert_int_equal(qfc_statements_print(&list, &out), 0);
    assert_non_null(strstr(out.data, "INSERT $1='xxxx"));
    assert_non_null(strstr(out.data, "50000 bytes"));
    assert_non_null(strstr(out.data, "$2='after'\n"));
    qfc_buffer_free(&out);
    qfc_statements_free(&list);
}

static void printing_that_does_not_fit_says_so(void **state)
{
    struct qfc_statements list = {0};
    assert_int_equal(QFC_ADD(&list, NULL, "SELECT $1", "value"), 0);
    for (size_t maximum = 0; maximum < strlen("SELECT $1 $1='value'\n"); maximum++) {
        struct qfc_buffer out = qfc_buffer(maximum);
        assert_true(qfc_statements_print(&list, &out) < 0);
        qfc_buffer_free(&out);
    }
    qfc_statements_free(&list);
}

static void too_many_values_are_a_bug(void **state)
{
    struct qfc_statements list = {0};
    struct qfc_error error = QFC_NO_ERROR;
    const char *texts[QFC_STATEMENT_VALUES + 1] = {"1"};
    struct qfc_value values[QFC_STATEMENT_VALUES + 1] = {{"1", QFC_VALUE_COPY}};
    assert_int_equal(qfc_statements_add(&list, "SELECT", QFC_STATEMENT_VALUES + 1, values, &error), -1);
    assert_int_equal(error.kind, QFC_ERROR_BUG);
    error = QFC_NO_ERROR;
    assert_int_equal(qfc_statements_add_texts(&list, "SELECT", QFC_STATEMENT_VALUES + 1, texts, &error), -1);
    assert_int_equal(error.kind, QFC_ERROR_BUG);
    assert_int_equal(list.count, 0);
    assert_int_equal(qfc_statements_add(&list, "SELECT", QFC_STATEMENT_VALUES, values, &error), 0);
    assert_int_equal(list.items[0].count, QFC_STATEMENT_VALUES);
    qfc_statements_free(&list);
}

static void many_statements_fit(void **state)
{
    struct qfc_statements list = {0};
    char text[20];
    for (int i = 0; i < 1000; i++) {
        snprintf(text, sizeof(text), "%d", i);
        assert_int_equal(QFC_ADD(&list, NULL, "SELECT $1", text), 0);
    }
    assert_int_equal(list.count, 1000);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(atoi(list.items[i].values[0].text), i);
    qfc_statements_free(&list);
}

static void moved_statements_change_their_owner(void **state)
{
    struct qfc_statements to = {0}, from = {0};
    assert_int_equal(qfc_statements_move(&to, &from, NULL), 0);
    assert_int_equal(to.count, 0);
    assert_int_equal(QFC_ADD(&from, NULL, "a"), 0);
    assert_int_equal(qfc_statements_move(&to, &from, NULL), 0);
    for (int i = 0; i < 20; i++)
        assert_int_equal(QFC_ADD(&from, NULL, "b", "x"), 0);
    assert_int_equal(qfc_statements_move(&to, &from, NULL), 0);
    assert_int_equal(to.count, 21);
    assert_int_equal(from.count, 0);
    assert_null(from.items);
    assert_string_equal(to.items[0].sql, "a");
    assert_string_equal(to.items[20].sql, "b");
    assert_int_equal(QFC_ADD(&from, NULL, "c"), 0); /* still usable */
    qfc_statements_free(&from);
    qfc_statements_free(&to);
}

static const struct qfc_name names[] = {{"project", "project_project"}, {"p", "P"}, {"empty", ""}, {NULL, NULL}};

static void assert_expanded(const char *sql, const char *expected)
{
    struct qfc_statements list = {0};
    struct qfc_error error = QFC_NO_ERROR;
    assert_int_equal(QFC_ADD(&list, &error, sql, "{project}"), 0);
    if (qfc_statements_expand(&list, names, &error) < 0)
        fail_msg("%s: %s", sql, error.message);
    assert_string_equal(list.items[0].sql, expected);
    assert_string_equal(list.items[0].values[0].text, "{project}"); /* values are not SQL */
    qfc_statements_free(&list);
}

static void names_are_expanded(void **state)
{
    assert_expanded("SELECT 1", "SELECT 1");
    assert_expanded("{project}", "project_project");
    assert_expanded("SELECT {p} FROM {project} WHERE {p}{p}{empty}", "SELECT P FROM project_project WHERE PP");
    assert_expanded("SELECT '{}', '{\"a\": 1}'::jsonb, '{1,2}', '{', }",
                    "SELECT '{}', '{\"a\": 1}'::jsonb, '{1,2}', '{', }");
    assert_expanded("{{p}", "{P");
    assert_expanded("{", "{");
}

static void an_unknown_name_is_a_bug(void **state)
{
    struct qfc_statements list = {0};
    struct qfc_error error = QFC_NO_ERROR;
    assert_int_equal(QFC_ADD(&list, NULL, "SELECT {projec}"), 0);
    assert_int_equal(qfc_statements_expand(&list, names, &error), -1);
    assert_int_equal(error.kind, QFC_ERROR_BUG);
    assert_non_null(strstr(error.message, "projec"));
    qfc_statements_free(&list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(statements_are_kept_in_order),
        cmocka_unit_test(texts_are_copied_but_borrowed_ones_are_not),
        cmocka_unit_test(secrets_are_never_printed),
        cmocka_unit_test(long_values_are_cut),
        cmocka_unit_test(printing_that_does_not_fit_says_so),
        cmocka_unit_test(too_many_values_are_a_bug),
        cmocka_unit_test(many_statements_fit),
        cmocka_unit_test(moved_statements_change_their_owner),
        cmocka_unit_test(names_are_expanded),
        cmocka_unit_test(an_unknown_name_is_a_bug),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
