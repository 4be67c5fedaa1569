/* The marks of steps in a log: whole, cut anywhere, and hostile. */
#include "qfc/steps.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define A     "3f1c0d8e-1111-4222-8333-0123456789ab"
#define B     "3f1c0d8e-1111-4222-8333-0123456789ac"
#define BEGIN "::<<<::"
#define END   "::>>>::"

static void add(struct qfc_steps *steps, const char *text, uint64_t now_ms)
{
    qfc_steps_add(steps, text, strlen(text), now_ms, false);
}

static void steps_begin_and_end(void **state)
{
    struct qfc_steps steps = {0};
    add(&steps, "noise\n" BEGIN A " Start QGIS Application\nmore noise\n", 100);
    assert_string_equal(steps.current, "Start QGIS Application");
    assert_int_equal(steps.began_ms, 100);
    add(&steps, END B " 2\n", 150); /* another's */
    assert_string_equal(steps.current, "Start QGIS Application");
    add(&steps, END A " 2\n", 350);
    assert_string_equal(steps.current, "");
    add(&steps, BEGIN B " Package Project\n" END B " 1\n", 400);
    assert_int_equal(steps.done_count, 2);
    assert_string_equal(steps.done[0].name, "Start QGIS Application");
    assert_int_equal(steps.done[0].took_ms, 250);
    assert_string_equal(steps.done[1].name, "Package Project");
    assert_int_equal(steps.done[1].took_ms, 0);
    assert_int_equal(steps.changes, 4);
}

/* Byte by byte it is the same. */
static void marks_may_be_cut_anywhere(void **state)
{
    const char *text = "x\n" BEGIN A " Pro\xc3\xa9\n" END A " 2\n" BEGIN B " Next\n";
    struct qfc_steps steps = {0};
    for (const char *at = text; *at; at++)
        qfc_steps_add(&steps, at, 1, 7, false);
    assert_int_equal(steps.done_count, 1);
    assert_string_equal(steps.done[0].name, "Pro\xc3\xa9");
    assert_string_equal(steps.current, "Next");
}

static void a_step_that_begins_ends_the_one_before(void **state)
{
    struct qfc_steps steps = {0};
    add(&steps, BEGIN A " One\n", 1);
    add(&steps, BEGIN B " Two\n", 5);
    assert_int_equal(steps.done_count, 1);
    assert_int_equal(steps.done[0].took_ms, 4);
    assert_string_equal(steps.current, "Two");
}

static void what_is_no_mark(void **state)
{
    static const char *const lines[] = {
        BEGIN "\n",
        BEGIN A "\n",
        BEGIN "not-a-uuid-but-exactly-36-characters Name\n",
        " " BEGIN A " Name\n",
        "::<<::" A " x\n",
        BEGIN A "-x\n",
        BEGIN "3f1c0d8e\n",
        END A " 2\n",
    };
    struct qfc_steps steps = {0};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        add(&steps, lines[i], 1);
    qfc_steps_add(&steps, BEGIN "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0 x\n", 46, 1,
                  false);
    assert_int_equal(steps.changes, 0);
}

static void hostile_names(void **state)
{
    struct qfc_steps steps = {0};
    char line[100000];
    add(&steps, BEGIN A " a\tb\x1b[31m\xff\xc2\x9bz\n", 1);
    assert_string_equal(steps.current, "a?b?[31m??z");
    memset(line, 'n', sizeof line);
    memcpy(line, BEGIN B " ", 44);
    qfc_steps_add(&steps, line, sizeof line, 2, false);
    qfc_steps_add(&steps, line + 44, sizeof line - 44, 2, false);
    add(&steps, "\n", 2);
    assert_int_equal(strlen(steps.current), QFC_STEP_NAME_SIZE - 1);
    add(&steps, END B " 2\n", 3);
    assert_string_equal(steps.current, "");
}

static void so_many_steps_are_remembered(void **state)
{
    struct qfc_steps steps = {0};
    for (int i = 0; i < 1000; i++)
        add(&steps, BEGIN A " Step\n" END A " 2\n", 1);
    assert_int_equal(steps.done_count, QFC_STEPS_MAX);
    assert_int_equal(steps.changes, 2000);
}

/* What was printed before anybody looked has no times; the step that runs is known all the same. */
static void what_is_old(void **state)
{
    struct qfc_steps steps = {0};
    const char *old = BEGIN A " One\n" END A " 2\n" BEGIN B " Two\n";
    qfc_steps_add(&steps, old, strlen(old), 10, true);
    assert_string_equal(steps.current, "Two");
    add(&steps, END B " 2\n", 20);
    assert_int_equal(steps.done_count, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_begin_and_end),
        cmocka_unit_test(marks_may_be_cut_anywhere),
        cmocka_unit_test(a_step_that_begins_ends_the_one_before),
        cmocka_unit_test(what_is_no_mark),
        cmocka_unit_test(hostile_names),
        cmocka_unit_test(so_many_steps_are_remembered),
        cmocka_unit_test(what_is_old),
    };
    return cmocka_run_group_tests_name("steps", tests, NULL, NULL);
}
