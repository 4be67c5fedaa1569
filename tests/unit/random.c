/*
 * Chance is within its bounds, and no two processes have the same.
 */
#include "qfc/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static void numbers_are_within_their_bounds(void **state)
{
    bool seen[5] = {false};
    for (unsigned i = 0; i < 1000; i++) {
        uint32_t number = qfc_random(5);
        assert_in_range(number, 0, 4);
        seen[number] = true;
    }
    for (unsigned i = 0; i < 5; i++)
        assert_true(seen[i]);
    assert_int_equal(qfc_random(1), 0);
    assert_int_equal(qfc_random(0), 0);
}

/* Copies of one process begin alike in all but what the kernel gives. */
static void copies_of_a_process_differ(void **state)
{
    enum { NUMBERS = 4 };
    uint32_t numbers[2][NUMBERS] = {{0}};
    for (unsigned copy = 0; copy < 2; copy++) {
        int ends[2];
        assert_int_equal(pipe(ends), 0);
        pid_t child = fork();
        if (child == 0) {
            for (unsigned i = 0; i < NUMBERS; i++)
                numbers[copy][i] = qfc_random(UINT32_MAX);
            _exit(write(ends[1], numbers[copy], sizeof numbers[copy]) == sizeof numbers[copy] ? 0 : 1);
        }
        assert_int_equal(read(ends[0], numbers[copy], sizeof numbers[copy]), sizeof numbers[copy]);
        assert_int_equal(waitpid(child, NULL, 0), child);
        close(ends[0]);
        close(ends[1]);
    }
    assert_memory_not_equal(numbers[0], numbers[1], sizeof numbers[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_are_within_their_bounds),
        cmocka_unit_test(copies_of_a_process_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
