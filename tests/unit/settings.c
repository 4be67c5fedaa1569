/* Settings: defaults, each kind of wrong value, and the connection string. */
#include "qfc/settings.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <libpq-fe.h>

/* The test's environment: name, value, ..., null. */
static const char *const *variables;

static const char *get(const char *name)
{
    for (const char *const *at = variables; at && *at; at += 2)
        if (strcmp(*at, name) == 0)
            return at[1];
    return NULL;
}

static struct qfc_settings read_good(const char *const *given)
{
    struct qfc_settings settings;
    struct qfc_error error = QFC_NO_ERROR;
    variables = given;
    if (qfc_settings_read(get, &settings, &error) < 0)
        fail_msg("%s", error.message);
    return settings;
}

static void expect_error(const char *name, const char *value, const char *message)
{
    struct qfc_settings settings;
    struct qfc_error error = QFC_NO_ERROR;
    const char *given[] = {name, value, NULL};
    variables = given;
    assert_int_equal(qfc_settings_read(get, &settings, &error), -1);
    assert_int_equal(error.kind, QFC_ERROR_USAGE);
    assert_string_equal(error.message, message);
}

static void test_defaults(void **state)
{
    struct qfc_settings settings = read_good(NULL);
    assert_int_equal(settings.postgres_port, 5432);
    assert_int_equal(settings.concurrency, 1);
    assert_int_equal(settings.timeout_s, 0);
    assert_string_equal(settings.docker_host, "unix:///var/run/docker.sock");
    assert_string_equal(settings.qgis_image, "qfieldcloud-qgis");
    assert_string_equal(settings.qgis3_image, "qfieldcloud-qgis3");
    assert_string_equal(settings.qgis4_image, "qfieldcloud-qgis4");
    assert_false(settings.docker_tls_verify);
    assert_int_equal(settings.log_format, QFC_LOG_TEXT);
    assert_int_equal(settings.log_level, QFC_LOG_INFO);
    qfc_settings_free(&settings);
}

static void test_values(void **state)
{
    const char *given[] = {"QFIELDCLOUD_WORKER_TIMEOUT_S",
                           "90",
                           "LOG_FORMAT",
                           "json",
                           "LOGLEVEL",
                           "WARNING",
                           "COMPOSE_PROJECT_NAME",
                           "maps",
                           "QFIELDCLOUD_QGIS4_IMAGE_NAME",
                           "q4",
                           "DOCKER_TLS_VERIFY",
                           "1",
                           "QFC_WORKER_CONCURRENCY",
                           "",
                           NULL};
    struct qfc_settings settings = read_good(given);
    assert_int_equal(settings.timeout_s, 90);
    assert_int_equal(settings.log_format, QFC_LOG_JSON);
    assert_int_equal(settings.log_level, QFC_LOG_WARNING);
    assert_string_equal(settings.qgis3_image, "maps-qgis3");
    assert_string_equal(settings.qgis4_image, "q4");
    assert_true(settings.docker_tls_verify);
    assert_int_equal(settings.concurrency, 1);
    qfc_settings_free(&settings);
}

static void test_wrong_values(void **state)
{
    expect_error("QFIELDCLOUD_WORKER_TIMEOUT_S", "abc",
                 "QFIELDCLOUD_WORKER_TIMEOUT_S=abc: expected a whole number from 1 to 604800");
    expect_error("QFIELDCLOUD_WORKER_TIMEOUT_S", "0",
                 "QFIELDCLOUD_WORKER_TIMEOUT_S=0: expected a whole number from 1 to 604800");
    expect_error("POSTGRES_PORT", "5432x", "POSTGRES_PORT=5432x: expected a whole number from 1 to 65535");
    expect_error("POSTGRES_PORT", "99999999999999999999",
                 "POSTGRES_PORT=99999999999999999999: expected a whole number from 1 to 65535");
    expect_error("QFC_WORKER_CONCURRENCY", "-1", "QFC_WORKER_CONCURRENCY=-1: expected a whole number from 1 to 256");
    expect_error("POSTGRES_SSLMODE", "sometimes",
                 "POSTGRES_SSLMODE=sometimes: expected one of disable, allow, prefer, require, verify-ca, verify-full");
    expect_error("LOG_FORMAT", "xml", "LOG_FORMAT=xml: expected one of text, json");
    expect_error("LOGLEVEL", "loud", "LOGLEVEL=loud: expected one of debug, info, warning, error, warn, critical");
    expect_error("QFIELDCLOUD_WORKER_QFIELDCLOUD_URL", "app:8000",
                 "QFIELDCLOUD_WORKER_QFIELDCLOUD_URL=app:8000: expected a URL that begins with http:// or https://");
}

/* What libpq makes of our connection string for `keyword`. */
static void expect_keyword(const char *conninfo, const char *keyword, const char *value)
{
    PQconninfoOption *options = PQconninfoParse(conninfo, NULL);
    assert_non_null(options);
    const char *found = NULL;
    for (PQconninfoOption *option = options; option->keyword; option++)
        if (strcmp(option->keyword, keyword) == 0)
            found = option->val;
    assert_non_null(found);
    assert_string_equal(found, value);
    PQconninfoFree(options);
}

static void test_conninfo_is_quoted(void **state)
{
    const char *given[] = {"POSTGRES_PASSWORD", "it's a \\ 'trap' host=evil", "POSTGRES_HOST", "db", NULL};
    struct qfc_settings settings = read_good(given);
    char *conninfo = qfc_settings_conninfo(&settings);
    expect_keyword(conninfo, "password", "it's a \\ 'trap' host=evil");
    expect_keyword(conninfo, "host", "db");
    expect_keyword(conninfo, "dbname", "qfieldcloud_db");
    expect_keyword(conninfo, "sslmode", "prefer");
    free(conninfo);
    qfc_settings_free(&settings);
}

/* Makes a new file with this content; `path` gets its name. */
static void make_file(char path[32], const void *content, size_t size)
{
    strcpy(path, "/tmp/qfc-secret-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0 && write(fd, content, size) == (ssize_t)size);
    close(fd);
}

static void test_secrets_in_files(void **state)
{
    char path[32];
    make_file(path, "it's\nsecret\n", 12);
    const char *given[] = {"SECRET_KEY_FILE", path, "POSTGRES_PASSWORD", "p", NULL};
    struct qfc_settings settings = read_good(given);
    assert_string_equal(settings.secret_key, "it's\nsecret");
    assert_string_equal(settings.postgres_password, "p");
    assert_string_equal(settings.salt_key, "");
    qfc_settings_free(&settings);
    unlink(path);
}

static void test_secrets_in_wrong_files(void **state)
{
    char message[256], path[32];
    make_file(path, "a\0b", 3);
    snprintf(message, sizeof message, "SALT_KEY_FILE=%s: expected text, without zero bytes", path);
    expect_error("SALT_KEY_FILE", path, message);
    assert_int_equal(truncate(path, 64 * 1024 + 1), 0);
    snprintf(message, sizeof message, "SALT_KEY_FILE=%s: expected a file of at most 65536 bytes", path);
    expect_error("SALT_KEY_FILE", path, message);
    unlink(path);
    expect_error("SALT_KEY_FILE", "/nowhere/salt",
                 "SALT_KEY_FILE=/nowhere/salt: this file cannot be read: No such file or directory");
    expect_error("SALT_KEY_FILE", "/", "SALT_KEY_FILE=/: this file cannot be read: Is a directory");
}

static void test_secret_twice(void **state)
{
    const char *given[] = {"SECRET_KEY_FILE", "/run/secrets/key", "SECRET_KEY", "geheim", NULL};
    struct qfc_settings settings;
    struct qfc_error error = QFC_NO_ERROR;
    variables = given;
    assert_int_equal(qfc_settings_read(get, &settings, &error), -1);
    assert_string_equal(error.message, "SECRET_KEY and SECRET_KEY_FILE are both set: expected one of them");
}

static void test_url_wins(void **state)
{
    const char *given[] = {"DATABASE_URL", "postgresql://u:p@h/d", "POSTGRES_HOST", "db", NULL};
    struct qfc_settings settings = read_good(given);
    char *conninfo = qfc_settings_conninfo(&settings);
    assert_string_equal(conninfo, "postgresql://u:p@h/d");
    free(conninfo);
    qfc_settings_free(&settings);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),         cmocka_unit_test(test_values),
        cmocka_unit_test(test_wrong_values),     cmocka_unit_test(test_conninfo_is_quoted),
        cmocka_unit_test(test_secrets_in_files), cmocka_unit_test(test_secrets_in_wrong_files),
        cmocka_unit_test(test_secret_twice),     cmocka_unit_test(test_url_wins),
    };
    return cmocka_run_group_tests_name("settings", tests, NULL, NULL);
}
