/*
 * Buffers grow, end in a zero byte, and never exceed their maximum.
 */
#include "qfc/buffer.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void a_new_buffer_is_empty(void **state)
{
    struct qfc_buffer buffer = qfc_buffer(10);
    assert_null(buffer.data);
    assert_int_equal(buffer.size, 0);
    assert_string_equal(qfc_buffer_text(&buffer), "");
    assert_null(qfc_buffer_take(&buffer));
    qfc_buffer_free(&buffer);
}

static void appended_bytes_follow_each_other(void **state)
{
    struct qfc_buffer buffer = qfc_buffer(100);
    assert_int_equal(qfc_buffer_append(&buffer, "a\0b", 3), 0);
    assert_int_equal(qfc_buffer_append_text(&buffer, "cd"), 0);
    assert_int_equal(qfc_buffer_append(&buffer, NULL, 0), 0);
    assert_int_equal(qfc_buffer_printf(&buffer, "%d-%s", 7, "x"), 0);
    assert_int_equal(buffer.size, 8);
    assert_memory_equal(buffer.data, "a\0bcd7-x", 9);
    qfc_buffer_free(&buffer);
}

static void appending_nothing_to_an_empty_buffer_is_no_error(void **state)
{
    struct qfc_buffer buffer = qfc_buffer(0);
    assert_int_equal(qfc_buffer_append(&buffer, NULL, 0), 0);
    assert_int_equal(qfc_buffer_append_text(&buffer, ""), 0);
    assert_int_equal(qfc_buffer_printf(&buffer, "%s", ""), 0);
    assert_int_equal(buffer.size, 0);
    assert_string_equal(qfc_buffer_text(&buffer), "");
    qfc_buffer_free(&buffer);
}

/* Each way to append, with one byte too many and then with exactly what fits. */
static void the_maximum_is_kept(void **state)
{
    struct qfc_buffer buffer = qfc_buffer(5);
    assert_int_equal(qfc_buffer_append_text(&buffer, "abc"), 0);
    assert_int_equal(qfc_buffer_append(&buffer, "123", 3), -EMSGSIZE);
    assert_int_equal(qfc_buffer_append_text(&buffer, "123"), -EMSGSIZE);
    assert_int_equal(qfc_buffer_printf(&buffer, "%d", 123), -EMSGSIZE);
    assert_int_equal(qfc_buffer_append(&buffer, "123", SIZE_MAX), -EMSGSIZE);
    assert_int_equal(qfc_buffer_append(&buffer, "123", SIZE_MAX - 2), -EMSGSIZE);
    assert_string_equal(buffer.data, "abc");
    assert_int_equal(buffer.size, 3);
    assert_int_equal(qfc_buffer_printf(&buffer, "%d", 12), 0);
    assert_string_equal(buffer.data, "abc12");
    assert_int_equal(qfc_buffer_append(&buffer, "3", 1), -EMSGSIZE);
    assert_int_equal(qfc_buffer_append(&buffer, NULL, 0), 0);
    qfc_buffer_free(&buffer);
}

static void a_large_buffer_is_filled_bytewise(void **state)
{
    const size_t size = 1000003;
    struct qfc_buffer buffer = qfc_buffer(size);
    for (size_t i = 0; i < size; i++) {
        char byte = (char)(i % 251);
        assert_int_equal(qfc_buffer_append(&buffer, &byte, 1), 0);
    }
    assert_int_equal(qfc_buffer_append(&buffer, "x", 1), -EMSGSIZE);
    assert_int_equal(buffer.size, size);
    assert_int_equal(buffer.data[size], 0);
    for (size_t i = 0; i < size; i++)
        assert_int_equal((unsigned char)buffer.data[i], i % 251);
    assert_true(buffer.room <= size + 1);
    qfc_buffer_free(&buffer);
}

static void content_can_be_taken(void **state)
{
    struct qfc_buffer buffer = qfc_buffer(10);
    assert_int_equal(qfc_buffer_append_text(&buffer, "mine"), 0);
    char *text = qfc_buffer_take(&buffer);
    assert_string_equal(text, "mine");
    assert_null(buffer.data);
    assert_int_equal(buffer.size, 0);
    assert_int_equal(qfc_buffer_append_text(&buffer, "0123456789"), 0);
    assert_int_equal(qfc_buffer_append_text(&buffer, "!"), -EMSGSIZE);
    assert_string_equal(text, "mine");
    free(text);
    qfc_buffer_free(&buffer);
}

static void a_freed_buffer_can_be_used_again(void **state)
{
    void (*const free_it[])(struct qfc_buffer *) = {qfc_buffer_free, qfc_buffer_wipe};
    for (int i = 0; i < 2; i++) {
        struct qfc_buffer buffer = qfc_buffer(4);
        assert_int_equal(qfc_buffer_append_text(&buffer, "abcd"), 0);
        free_it[i](&buffer);
        assert_null(buffer.data);
        assert_int_equal(buffer.size, 0);
        assert_int_equal(buffer.maximum, 4);
        free_it[i](&buffer);
        assert_int_equal(qfc_buffer_append_text(&buffer, "efgh"), 0);
        assert_string_equal(qfc_buffer_text(&buffer), "efgh");
        free_it[i](&buffer);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_new_buffer_is_empty),
        cmocka_unit_test(appended_bytes_follow_each_other),
        cmocka_unit_test(appending_nothing_to_an_empty_buffer_is_no_error),
        cmocka_unit_test(the_maximum_is_kept),
        cmocka_unit_test(a_large_buffer_is_filled_bytewise),
        cmocka_unit_test(content_can_be_taken),
        cmocka_unit_test(a_freed_buffer_can_be_used_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
