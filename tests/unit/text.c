/*
 * Text from outside becomes well-formed text of bounded size.
 */
#include "qfc/text.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define FFFD "\xEF\xBF\xBD"

static size_t length_of(const char *bytes)
{
    const unsigned char *at = (const unsigned char *)bytes;
    return qfc_utf8_length(at, at + strlen(bytes));
}

static void well_formed_sequences_have_their_length(void **state)
{
    assert_int_equal(length_of("a"), 1);
    assert_int_equal(length_of("\x7F"), 1);
    assert_int_equal(length_of("\xC2\x80"), 2);
    assert_int_equal(length_of("\xDF\xBFx"), 2);
    assert_int_equal(length_of("\xE0\xA0\x80"), 3);
    assert_int_equal(length_of("\xED\x9F\xBF"), 3); /* U+D7FF, the last before the surrogates */
    assert_int_equal(length_of("\xEE\x80\x80"), 3);
    assert_int_equal(length_of("\xEF\xBF\xBF"), 3);
    assert_int_equal(length_of("\xF0\x90\x80\x80"), 4);
    assert_int_equal(length_of("\xF4\x8F\xBF\xBF"), 4); /* U+10FFFF */
    assert_int_equal(qfc_utf8_length((const unsigned char *)"", (const unsigned char *)"" + 1), 1);
}

static void broken_sequences_have_none(void **state)
{
    static const char *const broken[] = {
        "",
        "\x80",
        "\xBF",
        "\xC0\x80",             /* overlong NUL */
        "\xC1\xBF",             /* overlong */
        "\xC3",                 /* cut */
        "\xC3(",                /* no continuation */
        "\xE0\x9F\xBF",         /* overlong */
        "\xE2\x82",             /* cut */
        "\xE2\x82(",            /* third byte */
        "\xED\xA0\x80",         /* surrogate */
        "\xED\xBF\xBF",         /* surrogate */
        "\xF0\x8F\xBF\xBF",     /* overlong */
        "\xF0\x9F\x98",         /* cut */
        "\xF0\x9F\x98\xC0",     /* fourth byte */
        "\xF4\x90\x80\x80",     /* over U+10FFFF */
        "\xF5\x80\x80\x80",     /* never begins anything */
        "\xF8\x88\x80\x80\x80", /* five bytes */
        "\xFE",
        "\xFF",
    };
    for (size_t i = 0; i < sizeof(broken) / sizeof(*broken); i++)
        assert_int_equal(length_of(broken[i]), 0);
}

/* Cleans in a copy of exactly the size, so that reading past the end is noticed. */
static void assert_cleaned(const char *data, size_t size, const char *expected, size_t expected_replaced)
{
    struct qfc_buffer out = qfc_buffer(1000);
    size_t replaced = 99;
    char *copy = malloc(size ? size : 1);
    memcpy(copy, data, size);
    assert_int_equal(qfc_text_clean(&out, copy, size, &replaced), 0);
    assert_string_equal(qfc_buffer_text(&out), expected);
    assert_int_equal(out.size, strlen(expected));
    assert_int_equal(replaced, expected_replaced);
    free(copy);
    qfc_buffer_free(&out);
}
#define ASSERT_CLEANED(text, expected, replaced) assert_cleaned(text, sizeof(text) - 1, expected, replaced)

static void clean_text_stays(void **state)
{
    ASSERT_CLEANED("", "", 0);
    ASSERT_CLEANED("short", "short", 0);
    ASSERT_CLEANED("a text of more than eight bytes\n\t\x01\x7F", "a text of more than eight bytes\n\t\x01\x7F", 0);
    ASSERT_CLEANED("gr\xC3\xBC\xC3\x9F \xE2\x82\xAC \xF0\x9F\x98\x80 and so on and on",
                   "gr\xC3\xBC\xC3\x9F \xE2\x82\xAC \xF0\x9F\x98\x80 and so on and on", 0);
}

static void each_bad_byte_is_replaced(void **state)
{
    ASSERT_CLEANED("\0", FFFD, 1);
    ASSERT_CLEANED("a\0b\0", "a" FFFD "b" FFFD, 2);
    ASSERT_CLEANED("12345678\0", "12345678" FFFD, 1);
    ASSERT_CLEANED("1234567\0 90123456", "1234567" FFFD " 90123456", 1);
    ASSERT_CLEANED("\xFF\xFE", FFFD FFFD, 2);
    ASSERT_CLEANED("\xED\xA0\x80", FFFD FFFD FFFD, 3);
    ASSERT_CLEANED("caf\xE9 au lait", "caf" FFFD " au lait", 1);
    ASSERT_CLEANED("cut \xF0\x9F\x98", "cut " FFFD FFFD FFFD, 3);
}

static void bad_bytes_are_found_at_every_offset(void **state)
{
    for (size_t bad = 0; bad < 40; bad++) {
        char data[40], expected[43];
        memset(data, 'x', sizeof(data));
        data[bad] = bad % 2 ? '\0' : '\x80';
        memcpy(expected, data, bad);
        memcpy(expected + bad, FFFD, 3);
        memset(expected + bad + 3, 'x', sizeof(data) - bad - 1);
        expected[sizeof(expected) - 1] = '\0';
        assert_cleaned(data, sizeof(data), expected, 1);
    }
}

static void assert_harmless(const char *text, const char *lines, const char *line)
{
    struct qfc_buffer out = qfc_buffer(1000);
    char *copy = malloc(strlen(text)), fixed[64];
    memcpy(copy, text, strlen(text));
    assert_int_equal(qfc_text_harmless(&out, copy, strlen(text), true), 0);
    assert_string_equal(qfc_buffer_text(&out), lines);
    qfc_buffer_free(&out);
    assert_int_equal(qfc_text_harmless(&out, copy, strlen(text), false), 0);
    assert_string_equal(qfc_buffer_text(&out), line);
    qfc_text_harmless_line(fixed, sizeof fixed, text);
    assert_string_equal(fixed, line);
    free(copy);
    qfc_buffer_free(&out);
}

static void nothing_takes_hold_of_a_terminal(void **state)
{
    assert_harmless("plain gr\xC3\xBC\xC3\x9F \xE2\x82\xAC", "plain gr\xC3\xBC\xC3\x9F \xE2\x82\xAC",
                    "plain gr\xC3\xBC\xC3\x9F \xE2\x82\xAC");
    assert_harmless("a\nb\tc\r\nd", "a\nb\tc\nd", "a b c d");
    assert_harmless("\033[2J\x07\x7F\rx\r", FFFD "[2J" FFFD FFFD FFFD "x" FFFD, FFFD "[2J" FFFD FFFD FFFD "x" FFFD);
    assert_harmless("\xC2\x9B"
                    "2J \xC2\xA0",
                    FFFD "2J \xC2\xA0", FFFD "2J \xC2\xA0"); /* C1 */
    assert_harmless("\xE2\x80\xAE \xE2\x81\xA6 \xE2\x80\xA6", FFFD " " FFFD " \xE2\x80\xA6",
                    FFFD " " FFFD " \xE2\x80\xA6"); /* U+202E, U+2066; U+2026 stays */
    assert_harmless("\xFF\xED\xA0\x80", FFFD FFFD FFFD FFFD, FFFD FFFD FFFD FFFD);
}

static void a_line_is_cut_between_characters(void **state)
{
    char fixed[4];
    qfc_text_harmless_line(fixed, sizeof fixed, "a\xE2\x82\xAC");
    assert_string_equal(fixed, "a");
    qfc_text_harmless_line(fixed, sizeof fixed, "\xE2\x82\xAC");
    assert_string_equal(fixed, "\xE2\x82\xAC");
}

static void cleaning_that_does_not_fit_leaves_the_buffer_as_it_was(void **state)
{
    struct qfc_buffer out = qfc_buffer(8);
    assert_int_equal(qfc_buffer_append_text(&out, "ab"), 0);
    assert_int_equal(qfc_text_clean(&out, "12345\0", 6, NULL), -EMSGSIZE);
    assert_string_equal(qfc_buffer_text(&out), "ab");
    assert_int_equal(qfc_text_clean(&out, "123\0", 4, NULL), 0);
    assert_string_equal(qfc_buffer_text(&out), "ab123" FFFD);
    qfc_buffer_free(&out);
}

/* The excerpt's text after `data` was added in pieces of `piece` bytes. */
static void assert_excerpt(size_t maximum, const char *data, size_t piece, const char *expected)
{
    struct qfc_excerpt excerpt = qfc_excerpt(maximum);
    struct qfc_buffer out = qfc_buffer(3 * maximum + 100);
    size_t size = strlen(data);
    for (size_t at = 0; at < size; at += piece)
        assert_int_equal(qfc_excerpt_add(&excerpt, data + at, size - at < piece ? size - at : piece), 0);
    assert_int_equal(qfc_excerpt_text(&excerpt, &out), 0);
    assert_string_equal(qfc_buffer_text(&out), expected);
    assert_true(excerpt.head.size + excerpt.tail.size <= maximum);
    qfc_buffer_free(&out);
    qfc_excerpt_free(&excerpt);
}

static void assert_excerpt_in_any_pieces(size_t maximum, const char *data, const char *expected)
{
    for (size_t piece = 1; piece <= strlen(data) + 1; piece++)
        assert_excerpt(maximum, data, piece, expected);
}

static void a_text_that_fits_stays_whole(void **state)
{
    assert_excerpt_in_any_pieces(10, "", "");
    assert_excerpt_in_any_pieces(10, "abc", "abc");
    assert_excerpt_in_any_pieces(10, "0123456789", "0123456789");
    assert_excerpt_in_any_pieces(7, "0123456", "0123456");
}

static void a_character_on_the_seam_stays_whole(void **state)
{
    assert_excerpt_in_any_pieces(10, "1234\xF0\x9F\x98\x80z", "1234\xF0\x9F\x98\x80z");
}

static void head_and_tail_of_a_long_text_are_kept(void **state)
{
    assert_excerpt_in_any_pieces(10, "0123456789A", "01234\n[... 1 bytes of output left out ...]\n6789A");
    assert_excerpt_in_any_pieces(10, "abcdefghijklmnopqrstuvwxyz",
                                 "abcde\n[... 16 bytes of output left out ...]\nvwxyz");
    assert_excerpt_in_any_pieces(1, "xyz", "\n[... 2 bytes of output left out ...]\nz");
    assert_excerpt_in_any_pieces(0, "xyz", "\n[... 3 bytes of output left out ...]\n");
}

static void characters_that_are_cut_in_two_are_left_out(void **state)
{
    /* Kept are "abc" and two bytes of the euro sign, and one byte of another and "wxyz". */
    assert_excerpt_in_any_pieces(10, "abc\xE2\x82\xAC----\xE2\x82\xACwxyz",
                                 "abc\n[... 10 bytes of output left out ...]\nwxyz");
    assert_excerpt_in_any_pieces(8, "abc\xC3\xA4----\xF0\x9F\x98\x80z",
                                 "abc\n[... 10 bytes of output left out ...]\nz");
}

static void an_excerpt_is_cleaned(void **state)
{
    struct qfc_excerpt excerpt = qfc_excerpt(4);
    struct qfc_buffer out = qfc_buffer(3 * 4 + 100);
    assert_int_equal(qfc_excerpt_add(&excerpt, "\0\xFF\x01--\0\xFF", 7), 0);
    assert_int_equal(qfc_excerpt_text(&excerpt, &out), 0);
    assert_string_equal(qfc_buffer_text(&out), FFFD FFFD "\n[... 3 bytes of output left out ...]\n" FFFD FFFD);
    assert_int_equal(excerpt.head.size + excerpt.tail.size, 0);
    qfc_buffer_free(&out);
    qfc_excerpt_free(&excerpt);
}

static void an_excerpt_that_does_not_fit_leaves_the_buffer_as_it_was(void **state)
{
    struct qfc_excerpt excerpt = qfc_excerpt(10);
    struct qfc_buffer out = qfc_buffer(20);
    assert_int_equal(qfc_excerpt_add(&excerpt, "0123456789ABCDEF", 16), 0);
    assert_int_equal(qfc_buffer_append_text(&out, "before"), 0);
    assert_int_equal(qfc_excerpt_text(&excerpt, &out), -EMSGSIZE);
    assert_string_equal(qfc_buffer_text(&out), "before");
    qfc_buffer_free(&out);
    qfc_excerpt_free(&excerpt);
}

static void an_endless_text_takes_no_more_memory(void **state)
{
    struct qfc_excerpt excerpt = qfc_excerpt(1000);
    char line[97];
    memset(line, 'x', sizeof(line));
    for (int i = 0; i < 100000; i++)
        assert_int_equal(qfc_excerpt_add(&excerpt, line, sizeof(line)), 0);
    assert_true(excerpt.dropped_bytes == UINT64_C(97) * 100000 - 1000);
    assert_true(excerpt.head.room + excerpt.tail.room <= 1002);
    qfc_excerpt_free(&excerpt);
}

static void a_freed_excerpt_is_empty(void **state)
{
    struct qfc_excerpt excerpt = qfc_excerpt(4);
    struct qfc_buffer out = qfc_buffer(100);
    assert_int_equal(qfc_excerpt_add(&excerpt, "0123456789", 10), 0);
    qfc_excerpt_free(&excerpt);
    assert_int_equal(qfc_excerpt_add(&excerpt, "abcd", 4), 0);
    assert_int_equal(qfc_excerpt_text(&excerpt, &out), 0);
    assert_string_equal(qfc_buffer_text(&out), "abcd");
    qfc_buffer_free(&out);
    qfc_excerpt_free(&excerpt);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(well_formed_sequences_have_their_length),
        cmocka_unit_test(broken_sequences_have_none),
        cmocka_unit_test(clean_text_stays),
        cmocka_unit_test(each_bad_byte_is_replaced),
        cmocka_unit_test(bad_bytes_are_found_at_every_offset),
        cmocka_unit_test(nothing_takes_hold_of_a_terminal),
        cmocka_unit_test(a_line_is_cut_between_characters),
        cmocka_unit_test(cleaning_that_does_not_fit_leaves_the_buffer_as_it_was),
        cmocka_unit_test(a_text_that_fits_stays_whole),
        cmocka_unit_test(a_character_on_the_seam_stays_whole),
        cmocka_unit_test(head_and_tail_of_a_long_text_are_kept),
        cmocka_unit_test(characters_that_are_cut_in_two_are_left_out),
        cmocka_unit_test(an_excerpt_is_cleaned),
        cmocka_unit_test(an_excerpt_that_does_not_fit_leaves_the_buffer_as_it_was),
        cmocka_unit_test(an_endless_text_takes_no_more_memory),
        cmocka_unit_test(a_freed_excerpt_is_empty),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
