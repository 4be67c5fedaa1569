/*
 * tar out: what is written is what others read. tar_read.c is about the way in.
 */
#include "qfc/tar.h"

#include <locale.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <archive.h>
#include <archive_entry.h>
#include <cmocka.h>

#define BLOCK 512

static void assert_written(const struct qfc_tar_file *files, size_t count)
{
    struct qfc_buffer tar = qfc_buffer(100000);
    struct qfc_error error = QFC_NO_ERROR;
    struct archive *reader = archive_read_new();
    struct archive_entry *entry;
    char data[10000];
    if (qfc_tar_write(files, count, &tar, &error) < 0)
        fail_msg("%s", error.message);
    assert_int_equal(tar.size % BLOCK, 0);
    archive_read_support_format_tar(reader);
    archive_read_set_options(reader, "hdrcharset=BINARY");
    assert_int_equal(archive_read_open_memory(reader, tar.data, tar.size), ARCHIVE_OK);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(archive_read_next_header(reader, &entry), ARCHIVE_OK);
        assert_string_equal(archive_entry_pathname(entry), files[i].name);
        assert_int_equal(archive_entry_filetype(entry), AE_IFREG);
        assert_int_equal(archive_entry_perm(entry), files[i].mode);
        assert_int_equal(archive_entry_uid(entry), 0);
        assert_int_equal(archive_entry_gid(entry), 0);
        assert_int_equal(archive_read_data(reader, data, sizeof(data)), files[i].size);
        if (files[i].size > 0)
            assert_memory_equal(data, files[i].data, files[i].size);
    }
    assert_int_equal(archive_read_next_header(reader, &entry), ARCHIVE_EOF);
    archive_read_free(reader);
    qfc_buffer_free(&tar);
}

static void files_are_written(void **state)
{
    static const char data[1000] = "binary \0 data";
    const struct qfc_tar_file files[] = {{"deltafile.json", "{}", 2, 0644},
                                         {"dir/empty", NULL, 0, 0600},
                                         {"run.sh", "#!/bin/sh\n", 10, 0755},
                                         {"..not/a..b/...", data, sizeof(data), 0444}};
    assert_written(files, 4);
    assert_written(files, 1);
    assert_written(NULL, 0);
}

static void names_beyond_ascii_survive_in_any_locale(void **state)
{
    static const char *const locales[] = {"C", "C.UTF-8"};
    char long_name[400];
    memset(long_name, 'n', sizeof(long_name));
    strcpy(long_name + 300, "/\xC3\xA4\xF0\x9F\x98\x80");
    const struct qfc_tar_file files[] = {{"\xC5\xBB\xC3\xB3\xC5\x82w/\xE6\x97\xA5\xE6\x9C\xAC.json", "a", 1, 0644},
                                         {long_name, "b", 1, 0644}};
    for (int i = 0; i < 2; i++) {
        assert_non_null(setlocale(LC_ALL, locales[i]));
        assert_written(files, 2);
    }
    setlocale(LC_ALL, "C");
}

static void a_small_file_makes_a_small_archive(void **state)
{
    struct qfc_buffer tar = qfc_buffer(100000);
    assert_int_equal(qfc_tar_write(&(struct qfc_tar_file){"a", "b", 1, 0644}, 1, &tar, NULL), 0);
    assert_int_equal(tar.size, 4 * BLOCK);
    qfc_buffer_free(&tar);
}

static void what_was_written_is_read(void **state)
{
    struct qfc_buffer tar = qfc_buffer(100000), out = qfc_buffer(100);
    assert_int_equal(qfc_tar_write(&(struct qfc_tar_file){"\xC3\xA4/b", "content", 7, 0644}, 1, &tar, NULL), 0);
    assert_int_equal(qfc_tar_read_one(&tar, &out, NULL), 0);
    assert_string_equal(qfc_buffer_text(&out), "content");
    qfc_buffer_free(&tar);
    qfc_buffer_free(&out);
}

static void an_archive_that_does_not_fit_is_refused(void **state)
{
    static const char data[50000]; /* more than libarchive hands on at once */
    const struct qfc_tar_file file = {"a", data, sizeof(data), 0644};
    for (size_t maximum = 3; maximum < 3 + sizeof(data); maximum += 1000) {
        struct qfc_buffer out = qfc_buffer(maximum);
        struct qfc_error error = QFC_NO_ERROR;
        assert_int_equal(qfc_buffer_append_text(&out, "old"), 0);
        assert_int_equal(qfc_tar_write(&file, 1, &out, &error), -1);
        assert_int_equal(error.kind, QFC_ERROR_INVALID);
        assert_non_null(strstr(error.message, "larger than"));
        assert_string_equal(out.data, "old");
        assert_int_equal(out.size, 3);
        qfc_buffer_free(&out);
    }
}

static void names_that_lead_elsewhere_are_a_bug(void **state)
{
    static const char *const names[] = {"", "/", "/etc/passwd", "..", "../a", "a/..", "a/../b", "a//../b", NULL};
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        struct qfc_buffer out = qfc_buffer(100000);
        struct qfc_error error = QFC_NO_ERROR;
        const struct qfc_tar_file files[] = {{"good", "a", 1, 0644}, {names[i], "b", 1, 0644}};
        assert_int_equal(qfc_tar_write(files, 2, &out, &error), -1);
        assert_int_equal(error.kind, QFC_ERROR_BUG);
        assert_int_equal(out.size, 0);
        qfc_buffer_free(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_are_written),
        cmocka_unit_test(names_beyond_ascii_survive_in_any_locale),
        cmocka_unit_test(a_small_file_makes_a_small_archive),
        cmocka_unit_test(what_was_written_is_read),
        cmocka_unit_test(an_archive_that_does_not_fit_is_refused),
        cmocka_unit_test(names_that_lead_elsewhere_are_a_bug),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
