/*
 * tar in: good archives, and hostile ones made of raw headers, as no library would write them.
 */
#include "qfc/tar.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <archive.h>
#include <archive_entry.h>

#include <cmocka.h>

#define BLOCK 512

/* POSIX.1, pax, "ustar Interchange Format". */
struct header {
    char name[100];
    char mode[8];
    char uid[8];
    char gid[8];
    char size[12];
    char mtime[12];
    char checksum[8];
    char type;
    char link[100];
    char magic[8];
    char user[32];
    char group[32];
    char major[8];
    char minor[8];
    char prefix[155];
    char padding[12];
};
_Static_assert(sizeof(struct header) == BLOCK, "a header is one block");

static struct header header(const char *name, char type, unsigned long long size)
{
    struct header header = {.type = type, .mode = "0000644", .uid = "0000000", .gid = "0000000"};
    strncpy(header.name, name, sizeof(header.name) - 1);
    snprintf(header.size, sizeof(header.size), "%011llo", size);
    memcpy(header.mtime, "00000000000", 12);
    memcpy(header.magic, "ustar\00000", 8);
    return header;
}

static void seal(struct header *header)
{
    unsigned sum = 0;
    memset(header->checksum, ' ', sizeof(header->checksum));
    for (size_t i = 0; i < sizeof(*header); i++)
        sum += ((unsigned char *)header)[i];
    snprintf(header->checksum, sizeof(header->checksum), "%06o", sum);
}

static void put(struct qfc_buffer *tar, const void *data, size_t size)
{
    assert_int_equal(qfc_buffer_append(tar, data, size), 0);
}

static void put_header(struct qfc_buffer *tar, struct header header)
{
    seal(&header);
    put(tar, &header, sizeof(header));
}

/* Data and the padding that fills its last block. */
static void put_data(struct qfc_buffer *tar, const char *data, size_t size)
{
    static const char zeros[BLOCK];
    put(tar, data, size);
    put(tar, zeros, (BLOCK - size % BLOCK) % BLOCK);
}

static void put_file(struct qfc_buffer *tar, const char *name, char type, const char *text)
{
    put_header(tar, header(name, type, strlen(text)));
    put_data(tar, text, strlen(text));
}

static void put_end(struct qfc_buffer *tar)
{
    static const char zeros[2 * BLOCK];
    put(tar, zeros, sizeof(zeros));
}

/* Reads from a copy of exactly the size, so that reading past the end is noticed, and frees the archive. */
static int read_tar(struct qfc_buffer *tar, struct qfc_buffer *out, struct qfc_error *error)
{
    char *copy = malloc(tar->size ? tar->size : 1);
    assert_non_null(copy);
    if (tar->size > 0)
        memcpy(copy, tar->data, tar->size);
    struct qfc_buffer exact = {.data = copy, .size = tar->size, .room = tar->size, .maximum = tar->size};
    int r = qfc_tar_read_one(&exact, out, error);
    free(copy);
    qfc_buffer_free(tar);
    return r;
}

static void assert_content(struct qfc_buffer *tar, const char *expected)
{
    struct qfc_buffer out = qfc_buffer(1000);
    struct qfc_error error = QFC_NO_ERROR;
    if (read_tar(tar, &out, &error) < 0)
        fail_msg("%s", error.message);
    assert_string_equal(qfc_buffer_text(&out), expected);
    assert_int_equal(out.size, strlen(expected));
    qfc_buffer_free(&out);
}

static void assert_refused_within(struct qfc_buffer *tar, size_t maximum, const char *message)
{
    struct qfc_buffer out = qfc_buffer(maximum);
    struct qfc_error error = QFC_NO_ERROR;
    put(&out, "old", 3);
    assert_int_equal(read_tar(tar, &out, &error), -1);
    assert_int_equal(error.kind, QFC_ERROR_INVALID);
    if (!strstr(error.message, message))
        fail_msg("\"%s\" does not say \"%s\"", error.message, message);
    assert_string_equal(qfc_buffer_text(&out), "old");
    assert_int_equal(out.size, 3);
    assert_true(out.room <= maximum + 1 || out.room <= 128);
    qfc_buffer_free(&out);
}

static void assert_refused(struct qfc_buffer *tar, const char *message)
{
    assert_refused_within(tar, 100000, message);
}

static struct qfc_buffer new_tar(void)
{
    return qfc_buffer(20 * 1024 * 1024);
}

static void one_file_is_read_whatever_its_name(void **state)
{
    static const char *const names[] = {"feedback.json",      "/etc/passwd", "../../x",
                                        "gr\xC3\xBC\xC3\x9F", "\xFF\xFE",    "a/b/c"};
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        struct qfc_buffer tar = new_tar();
        put_file(&tar, names[i], '0', "content");
        put_end(&tar);
        assert_content(&tar, "content");
    }
}

static void a_file_of_any_size_is_read(void **state)
{
    static const size_t sizes[] = {0, 1, 511, 512, 513, 1024, 70000};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        struct qfc_buffer tar = new_tar(), out = qfc_buffer(sizes[i]);
        struct qfc_error error = QFC_NO_ERROR;
        char *data = malloc(sizes[i] + 1);
        for (size_t n = 0; n < sizes[i]; n++)
            data[n] = (char)(n % 251);
        put_header(&tar, header("x", '0', sizes[i]));
        put_data(&tar, data, sizes[i]);
        put_end(&tar);
        assert_int_equal(read_tar(&tar, &out, &error), 0);
        assert_int_equal(out.size, sizes[i]);
        if (sizes[i] > 0)
            assert_memory_equal(out.data, data, sizes[i]);
        free(data);
        qfc_buffer_free(&out);
    }
}

static void content_is_appended(void **state)
{
    struct qfc_buffer tar = new_tar(), out = qfc_buffer(10);
    put_file(&tar, "x", '0', "new");
    put_end(&tar);
    put(&out, "old", 3);
    assert_int_equal(read_tar(&tar, &out, NULL), 0);
    assert_string_equal(qfc_buffer_text(&out), "oldnew");
    qfc_buffer_free(&out);
}

static void old_and_padded_archives_are_read(void **state)
{
    struct qfc_buffer tar = new_tar();
    struct header old = header("x", '\0', 3); /* before POSIX: no magic, type NUL */
    memset(old.magic, 0, sizeof(old.magic));
    put_header(&tar, old);
    put_data(&tar, "old", 3);
    for (int i = 0; i < 10; i++)
        put_end(&tar);
    assert_content(&tar, "old");
}

static void long_names_are_read(void **state)
{
    char name[3000];
    memset(name, 'n', sizeof(name));
    name[sizeof(name) - 1] = '\0';
    struct qfc_buffer tar = new_tar();
    put_file(&tar, "././@LongLink", 'L', name);
    put_file(&tar, "nnn", '0', "gnu");
    put_end(&tar);
    assert_content(&tar, "gnu");

    tar = new_tar();
    put_file(&tar, "PaxHeaders/x", 'x', "24 path=\xC3\xA4\xC3\xB6/long/name\n");
    put_file(&tar, "x", '0', "pax");
    put_end(&tar);
    assert_content(&tar, "pax");
}

static void too_long_a_name_is_refused(void **state)
{
    size_t size = 5 * 1024 * 1024;
    char *name = malloc(size + 1);
    assert_non_null(name);
    memset(name, 'n', size);
    name[size] = '\0';
    struct qfc_buffer tar = new_tar();
    put_file(&tar, "././@LongLink", 'L', name);
    put_file(&tar, "nnn", '0', "x");
    put_end(&tar);
    assert_refused(&tar, "a broken tar");
    free(name);
}

static void endless_long_names_are_refused(void **state)
{
    struct qfc_buffer tar = new_tar();
    for (int i = 0; i < 10000; i++)
        put_file(&tar, "././@LongLink", i % 2 ? 'L' : 'K', "name");
    put_file(&tar, "x", '0', "data");
    put_end(&tar);
    assert_refused(&tar, "");
}

static void what_is_no_regular_file_is_named(void **state)
{
    static const struct {
        char type;
        const char *message;
    } cases[] = {{'5', "not a regular file but a directory"},
                 {'6', "not a regular file but a fifo"},
                 {'3', "not a regular file but a device"},
                 {'4', "not a regular file but a device"},
                 {'2', "not a regular file but a symbolic link to \"target\""},
                 {'1', "not a regular file but a hard link to \"target\""}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct qfc_buffer tar = new_tar();
        struct header first = header("x", cases[i].type, 0);
        if (cases[i].type <= '2')
            strcpy(first.link, "target");
        put_header(&tar, first);
        put_end(&tar);
        assert_refused(&tar, cases[i].message);
    }
}

static void a_hard_link_with_data_is_refused(void **state)
{
    struct qfc_buffer tar = new_tar();
    struct header first = header("x", '1', 4);
    strcpy(first.link, "target");
    put_header(&tar, first);
    put_data(&tar, "data", 4);
    put_end(&tar);
    assert_refused(&tar, "not a regular file but a hard link to \"target\"");
}

static void links_beyond_ascii_are_refused_too(void **state)
{
    static const char *const types[] = {"1", "2"}, *const names[] = {"not a regular file but", "symbolic link"};
    for (int i = 0; i < 2; i++) {
        struct qfc_buffer tar = new_tar();
        put_file(&tar, "PaxHeaders/x", 'x', "19 linkpath=\xC3\xA4\xC3\xB6.t\n");
        put_header(&tar, header("x", types[i][0], 0));
        put_end(&tar);
        assert_refused(&tar, names[i]);
    }
}

static void a_links_name_is_made_harmless(void **state)
{
    struct qfc_buffer tar = new_tar();
    struct header first = header("x", '2', 0);
    strcpy(first.link, "a\n\x1B[31m\"\x7F\xFFz");
    put_header(&tar, first);
    put_end(&tar);
    assert_refused(&tar, "a symbolic link to \"a??[31m???z\"");

    tar = new_tar();
    first = header("x", '2', 0);
    memset(first.link, 'l', sizeof(first.link)); /* not ended by a zero byte */
    put_header(&tar, first);
    put_end(&tar);
    assert_refused(&tar, "a symbolic link to \"lllll");
}

static void a_cut_archive_still_says_what_it_was(void **state)
{
    struct qfc_buffer tar = new_tar();
    put_header(&tar, header("x", '5', 0));
    assert_refused(&tar, "not a regular file but a directory");
}

static void a_second_entry_is_refused(void **state)
{
    struct qfc_buffer tar = new_tar();
    put_file(&tar, "x", '0', "first");
    put_file(&tar, "y", '0', "second");
    put_end(&tar);
    assert_refused(&tar, "more than one file");

    tar = new_tar();
    put_file(&tar, "x", '0', "first");
    put_header(&tar, header("dir", '5', 0));
    put_end(&tar);
    assert_refused(&tar, "more than one file");
}

static void what_follows_the_end_is_not_looked_at(void **state)
{
    struct qfc_buffer tar = new_tar();
    put_file(&tar, "x", '0', "first");
    put_end(&tar);
    put_file(&tar, "y", '0', "second");
    put(&tar, "garbage", 7);
    assert_content(&tar, "first");
}

static void garbage_in_place_of_the_end_is_refused(void **state)
{
    char garbage[2 * BLOCK];
    memset(garbage, 'g', sizeof(garbage));
    struct qfc_buffer tar = new_tar();
    put_file(&tar, "x", '0', "first");
    put(&tar, garbage, sizeof(garbage));
    assert_refused(&tar, "a broken tar");
}

static void every_cut_is_refused(void **state)
{
    struct qfc_buffer whole = new_tar();
    char data[700];
    memset(data, 'd', sizeof(data));
    put_header(&whole, header("x", '0', sizeof(data)));
    put_data(&whole, data, sizeof(data));
    size_t needed = whole.size + BLOCK; /* the first of the two zero blocks says that it ends */
    put_end(&whole);
    for (size_t size = 0; size < whole.size; size++) {
        struct qfc_buffer tar = new_tar(), out = qfc_buffer(1000);
        struct qfc_error error = QFC_NO_ERROR;
        put(&tar, whole.data, size);
        int r = read_tar(&tar, &out, &error);
        assert_int_equal(r, size < needed ? -1 : 0);
        assert_int_equal(error.kind, size < needed ? QFC_ERROR_INVALID : QFC_ERROR_NONE);
        qfc_buffer_free(&out);
    }
    qfc_buffer_free(&whole);
}

static void what_is_no_tar_is_refused(void **state)
{
    struct qfc_buffer tar = new_tar();
    assert_refused(&tar, "an empty tar");

    tar = new_tar();
    put_end(&tar);
    assert_refused(&tar, "an empty tar");

    tar = new_tar();
    put(&tar, "{\"message\": \"no such container\"}", 32);
    assert_refused(&tar, "a broken tar");

    char noise[4 * BLOCK];
    for (size_t i = 0; i < sizeof(noise); i++)
        noise[i] = (char)(i * 7919 >> 3);
    tar = new_tar();
    put(&tar, noise, sizeof(noise));
    assert_refused(&tar, "a broken tar");
}

static void a_compressed_archive_is_refused(void **state)
{
    struct archive *writer = archive_write_new();
    struct archive_entry *entry = archive_entry_new();
    char packed[100000], zeros[1000] = {0};
    size_t size = 0;
    archive_write_set_format_ustar(writer);
    archive_write_add_filter_gzip(writer);
    archive_write_open_memory(writer, packed, sizeof(packed), &size);
    archive_entry_set_pathname(entry, "bomb");
    archive_entry_set_filetype(entry, AE_IFREG);
    archive_entry_set_size(entry, sizeof(zeros));
    assert_int_equal(archive_write_header(writer, entry), ARCHIVE_OK);
    assert_int_equal(archive_write_data(writer, zeros, sizeof(zeros)), sizeof(zeros));
    assert_int_equal(archive_write_close(writer), ARCHIVE_OK);
    archive_entry_free(entry);
    archive_write_free(writer);

    struct qfc_buffer tar = new_tar();
    put(&tar, packed, size);
    assert_refused(&tar, "a broken tar");
}

static void a_wrong_checksum_is_refused(void **state)
{
    struct qfc_buffer tar = new_tar();
    put_file(&tar, "x", '0', "data");
    put_end(&tar);
    tar.data[0]++;
    assert_refused(&tar, "a broken tar");
}

static void more_than_fits_is_refused(void **state)
{
    struct qfc_buffer tar = new_tar(), out = qfc_buffer(7);
    put_file(&tar, "x", '0', "12345678");
    put_end(&tar);
    assert_refused_within(&tar, 10, "larger than 7 bytes"); /* 3 of the 10 are in use */

    put_file(&tar, "x", '0', "1234567");
    put_end(&tar);
    assert_int_equal(read_tar(&tar, &out, NULL), 0);
    assert_string_equal(qfc_buffer_text(&out), "1234567");
    qfc_buffer_free(&out);
}

static void an_archive_cut_at_the_limit_is_too_large_not_broken(void **state)
{
    struct qfc_buffer tar = new_tar();
    char data[1000] = "";
    put_header(&tar, header("x", '0', 5000));
    put(&tar, data, sizeof(data));
    assert_refused_within(&tar, 1003, "larger than 1000 bytes");
}

static void a_terabyte_is_refused(void **state)
{
    struct qfc_buffer tar = new_tar();
    struct header first = header("x", '0', 0);
    static const char terabyte[12] = {'\x80', 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0}; /* base 256 */
    memcpy(first.size, terabyte, sizeof(terabyte));
    put_header(&tar, first);
    put_data(&tar, "data", 4);
    put_end(&tar);
    assert_refused(&tar, "larger than 99997 bytes");

    tar = new_tar();
    put_file(&tar, "PaxHeaders/x", 'x', "22 size=1099511627776\n");
    put_file(&tar, "x", '0', "data");
    put_end(&tar);
    assert_refused(&tar, "larger than 99997 bytes");
}

static void sizes_beyond_sense_are_refused(void **state)
{
    static const char sizes[][12] = {
        "\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF", /* base 256: -256 + the last byte */
        "\x80\x00\x00\x00\xFF\xFF\xFF\xFF\xFF\xFF\xFF", /* more than 63 bits */
        "\xBF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF", /* the largest */
        "77777777777",
    };
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        struct qfc_buffer tar = new_tar();
        struct header first = header("x", '0', 0);
        memcpy(first.size, sizes[i], sizeof(first.size));
        put_header(&tar, first);
        put_data(&tar, "data", 4);
        put_end(&tar);
        assert_refused(&tar, "");
    }
    struct qfc_buffer tar = new_tar();
    put_file(&tar, "PaxHeaders/x", 'x', "12 size=-99\n");
    put_file(&tar, "x", '0', "data");
    put_end(&tar);
    assert_refused(&tar, "");
}

static void a_size_that_lies_about_the_next_header_is_found(void **state)
{
    struct qfc_buffer tar = new_tar();
    put_header(&tar, header("x", '0', 3)); /* but there are two blocks of data */
    put_data(&tar, "abc", 3);
    put_data(&tar, "more", 4);
    put_end(&tar);
    assert_refused(&tar, "a broken tar");
}

/* GNU tar's old sparse format: offsets and sizes of four pieces, and the real size, in the header. */
static void a_sparse_file_is_refused(void **state)
{
    struct qfc_buffer tar = new_tar();
    struct header first = header("x", 'S', 512);
    char *gnu = (char *)&first;
    memcpy(first.magic, "ustar  ", 8);
    memcpy(gnu + 386, "10000000000", 12); /* 1 GB of nothing before the data */
    memcpy(gnu + 398, "00000001000", 12);
    memcpy(gnu + 483, "10000001000", 12);
    put_header(&tar, first);
    put_data(&tar, "data", 4);
    put_end(&tar);
    assert_refused(&tar, "a sparse file");

    tar = new_tar();
    put_file(&tar, "PaxHeaders/x", 'x', "25 GNU.sparse.size=90000\n25 GNU.sparse.map=5000,4\n");
    put_file(&tar, "x", '0', "data");
    put_end(&tar);
    assert_refused(&tar, "a sparse file");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_file_is_read_whatever_its_name),
        cmocka_unit_test(a_file_of_any_size_is_read),
        cmocka_unit_test(content_is_appended),
        cmocka_unit_test(old_and_padded_archives_are_read),
        cmocka_unit_test(long_names_are_read),
        cmocka_unit_test(too_long_a_name_is_refused),
        cmocka_unit_test(endless_long_names_are_refused),
        cmocka_unit_test(what_is_no_regular_file_is_named),
        cmocka_unit_test(a_hard_link_with_data_is_refused),
        cmocka_unit_test(links_beyond_ascii_are_refused_too),
        cmocka_unit_test(a_links_name_is_made_harmless),
        cmocka_unit_test(a_cut_archive_still_says_what_it_was),
        cmocka_unit_test(a_second_entry_is_refused),
        cmocka_unit_test(what_follows_the_end_is_not_looked_at),
        cmocka_unit_test(garbage_in_place_of_the_end_is_refused),
        cmocka_unit_test(every_cut_is_refused),
        cmocka_unit_test(what_is_no_tar_is_refused),
        cmocka_unit_test(a_compressed_archive_is_refused),
        cmocka_unit_test(a_wrong_checksum_is_refused),
        cmocka_unit_test(more_than_fits_is_refused),
        cmocka_unit_test(an_archive_cut_at_the_limit_is_too_large_not_broken),
        cmocka_unit_test(a_terabyte_is_refused),
        cmocka_unit_test(sizes_beyond_sense_are_refused),
        cmocka_unit_test(a_size_that_lies_about_the_next_header_is_found),
        cmocka_unit_test(a_sparse_file_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
