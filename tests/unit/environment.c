/*
 * What a container's environment is made of: fixed variables, secrets, and what becomes of odd ones.
 */
#include "qfc/environment.h"

#include "qfc/secrets.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Fernet tokens of this key: made by Python's `cryptography`. */
#define S3CRET "gAAAAABlU_EAAAECAwQFBgcICQoLDA0ODzId1rXdK9cpsS59JLEhc7Al5M9XYMtt6FvqMctuwjMyRGm1LizAl34T2K0ChbWMtA=="
#define NUL_WITHIN                                                                                                     \
    "gAAAAABlU_EAAAECAwQFBgcICQoLDA0OD2EG3FrPWGMsLZOzU0OhJotrY5X97fmdtqVJNrseHQCdk2V5Eox8xFncCDdWh2G-fw=="
#define NOT_UTF8 "gAAAAABlU_EAAAECAwQFBgcICQoLDA0OD8RI2YIpfW8DKjB7MRywE6Pn62ki3Uz8fH4V50ZrPbO1JqSNB4DKC-ItlT6-jvSjqg=="
#define UMLAUT   "gAAAAABlU_EAAAECAwQFBgcICQoLDA0OD_HRTbtfesVc-hXm2jHca-0PYz97RUxnCSnT4YHuO7EsxBIcUgD09CcPxql1PH1_Fw=="

static struct qfc_fernet_key key;

static int make_key(void **state)
{
    return qfc_fernet_key("change_me", "0123456789abcdefghijklmnopqrstuvwxyz", &key, NULL);
}

enum { NAME, TYPE, VALUE, BY_PERSON, TRIGGERED_BY, COLUMNS };

static PGresult *no_rows(void)
{
    static const char *const names[COLUMNS] = {"name", "type", "value", "by_person", "triggered_by"};
    PGresult *rows = PQmakeEmptyPGresult(NULL, PGRES_TUPLES_OK);
    PGresAttDesc columns[COLUMNS] = {0};
    for (int i = 0; i < COLUMNS; i++)
        columns[i].name = (char *)names[i];
    assert_int_not_equal(PQsetResultAttrs(rows, COLUMNS, columns), 0);
    return rows;
}

static void put(PGresult *rows, int row, int column, const char *text, size_t size)
{
    assert_int_not_equal(PQsetvalue(rows, row, column, (char *)text, text ? (int)size : -1), 0);
}

/* Adds a row of which name and value may hold NUL bytes. */
static void add_bytes(PGresult *rows, const char *name, size_t name_size, const char *type, const char *value,
                      size_t value_size)
{
    int row = PQntuples(rows);
    put(rows, row, NAME, name, name_size);
    put(rows, row, TYPE, type, type ? strlen(type) : 0);
    put(rows, row, VALUE, value, value_size);
    put(rows, row, BY_PERSON, "t", 1);
    put(rows, row, TRIGGERED_BY, "12", 2);
}

static void add(PGresult *rows, const char *name, const char *type, const char *value)
{
    add_bytes(rows, name, name ? strlen(name) : 0, type, value, value ? strlen(value) : 0);
}

static struct qfc_environment_given given_with(const PGresult *rows)
{
    return (struct qfc_environment_given){
        .secrets = rows, .key = &key, .token = "t0ken", .url = "http://app:8000/api/v1/", .job_id = "6b1f"};
}

/* Makes the environment, and frees the rows: it must not need them any more. */
static struct qfc_environment make_of(struct qfc_environment_given given)
{
    struct qfc_environment environment;
    struct qfc_error error = QFC_NO_ERROR;
    if (qfc_environment_make(&given, &environment, &error) < 0)
        fail_msg("%s: %s", qfc_error_kind_name(error.kind), error.message);
    PQclear((PGresult *)given.secrets);
    return environment;
}

static struct qfc_environment make(PGresult *rows)
{
    return make_of(given_with(rows));
}

static void assert_variable(const struct qfc_environment *environment, const char *name, const char *value)
{
    const char *found = qfc_environment_get(environment, name);
    if (!found)
        fail_msg("%s is not set", name);
    assert_string_equal(found, value);
}

/* The environment's texts, for the container, are these and no others. */
static void assert_list(const struct qfc_environment *environment, const char *const *expected)
{
    const char *const *texts = qfc_texts(&environment->variables);
    size_t count = 0;
    for (; expected[count]; count++) {
        bool found = false;
        for (size_t i = 0; texts[i]; i++)
            found = found || strcmp(texts[i], expected[count]) == 0;
        if (!found)
            fail_msg("there is no %s", expected[count]);
    }
    assert_int_equal(environment->variables.count, count);
    assert_null(texts[count]);
}

static void assert_warnings(const struct qfc_environment *environment, size_t count)
{
    if (environment->warnings.count != count)
        fail_msg("%zu warnings instead of %zu, the first: %s", environment->warnings.count, count,
                 environment->warnings.count ? environment->warnings.items[0] : "");
}

/* The only warning is this one. */
static void assert_warned(const struct qfc_environment *environment, const char *warning)
{
    assert_warnings(environment, 1);
    assert_string_equal(qfc_texts(&environment->warnings)[0], warning);
    assert_null(qfc_texts(&environment->warnings)[1]);
}

/* --- The list ----------------------------------------------------------------------------------------------------- */

static void the_later_one_wins(void **state)
{
    struct qfc_environment environment = {0};
    assert_null(qfc_texts(&environment.variables)[0]);
    assert_null(qfc_environment_get(&environment, "A"));
    assert_int_equal(qfc_environment_set(&environment, "A", "1", NULL), 0);
    assert_int_equal(qfc_environment_set(&environment, "AB", "2=3", NULL), 0);
    assert_int_equal(qfc_environment_set(&environment, "A", "", NULL), 0);
    assert_variable(&environment, "A", "");
    assert_variable(&environment, "AB", "2=3");
    assert_null(qfc_environment_get(&environment, "B"));
    assert_null(qfc_environment_get(&environment, "AB="));
    assert_list(&environment, (const char *const[]){"A=", "AB=2=3", NULL});
    qfc_environment_free(&environment);
    assert_null(qfc_texts(&environment.variables)[0]);
    qfc_environment_free(&environment);
}

static void values_are_appended(void **state)
{
    struct qfc_environment environment = {0};
    assert_int_equal(qfc_environment_append(&environment, "A", "1", NULL), 0);
    assert_int_equal(qfc_environment_append(&environment, "A", "=2", NULL), 0);
    assert_int_equal(qfc_environment_append(&environment, "A", "", NULL), 0);
    assert_list(&environment, (const char *const[]){"A=1=2", NULL});
    qfc_environment_free(&environment);
}

static void there_is_room_for_many(void **state)
{
    struct qfc_environment environment = {0};
    char name[16];
    for (int i = 0; i < 1000; i++) {
        snprintf(name, sizeof name, "N%d", i);
        assert_int_equal(qfc_environment_set(&environment, name, name, NULL), 0);
        assert_int_equal(qfc_texts_printf(&environment.warnings, NULL, "%s", name), 0);
    }
    assert_variable(&environment, "N0", "N0");
    assert_variable(&environment, "N999", "N999");
    for (int i = 0; i < 1000; i++)
        assert_non_null(qfc_texts(&environment.variables)[i]);
    assert_null(qfc_texts(&environment.variables)[1000]);
    assert_string_equal(qfc_texts(&environment.warnings)[999], "N999");
    qfc_environment_free(&environment);
}

/* --- Without odd secrets ------------------------------------------------------------------------------------------ */

static void a_job_without_secrets_has_the_fixed_variables(void **state)
{
    PGresult *rows = no_rows();
    add(rows, NULL, NULL, NULL);
    struct qfc_environment environment = make(rows);
    assert_list(&environment, (const char *const[]){
                                  "PGSERVICE_FILE_CONTENTS=", "QFIELDCLOUD_EXTRA_ENVVARS=[]", "QFIELDCLOUD_TOKEN=t0ken",
                                  "QFIELDCLOUD_URL=http://app:8000/api/v1/", "JOB_ID=6b1f",
                                  "PROJ_DOWNLOAD_DIR=/transformation_grids", "QT_QPA_PLATFORM=offscreen", NULL});
    assert_warnings(&environment, 0);
    qfc_environment_free(&environment);
}

static void secrets_are_decrypted_and_set(void **state)
{
    PGresult *rows = no_rows();
    add(rows, "B", "envvar", S3CRET);
    add(rows, "A_B", "envvar", S3CRET);
    add(rows, "A", "envvar", S3CRET);
    add(rows, "A1", "envvar", S3CRET);
    struct qfc_environment environment = make(rows);
    assert_variable(&environment, "A", "s3cret");
    assert_variable(&environment, "B", "s3cret");
    assert_variable(&environment, "QFIELDCLOUD_EXTRA_ENVVARS", "[\"A\", \"A1\", \"A_B\", \"B\"]");
    assert_variable(&environment, "PGSERVICE_FILE_CONTENTS", "");
    assert_warnings(&environment, 0);
    qfc_environment_free(&environment);
}

static void services_are_in_one_file_in_their_order(void **state)
{
    struct qfc_environment_given given = given_with(no_rows());
    PGresult *rows = (PGresult *)given.secrets;
    given.key = NULL;
    add(rows, "A", "pgservice", "[one]\nhost=h");
    add(rows, "JOB_ID", "pgservice", "[two]");
    add(rows, "X", "envvar", "x");
    add(rows, "=", "pgservice", "");
    add(rows, "", "pgservice", "[four]\n");
    struct qfc_environment environment = make_of(given);
    assert_variable(&environment, "PGSERVICE_FILE_CONTENTS", "\n[one]\nhost=h\n[two]\n\n[four]\n");
    assert_variable(&environment, "QFIELDCLOUD_EXTRA_ENVVARS", "[\"X\"]");
    assert_variable(&environment, "JOB_ID", "6b1f");
    assert_null(qfc_environment_get(&environment, "A"));
    qfc_environment_free(&environment);
}

static void a_custom_ca_is_told(void **state)
{
    struct qfc_environment_given given = given_with(no_rows());
    given.custom_ca = "/etc/ssl/custom_certs/custom_ca.crt";
    add((PGresult *)given.secrets, "Z", "envvar", S3CRET);
    struct qfc_environment environment = make_of(given);
    assert_variable(&environment, "REQUESTS_CA_BUNDLE", "/etc/ssl/custom_certs/custom_ca.crt");
    assert_variable(&environment, "QFIELDCLOUD_EXTRA_ENVVARS", "[\"REQUESTS_CA_BUNDLE\", \"Z\"]");
    qfc_environment_free(&environment);
}

static void a_secret_may_replace_the_custom_ca(void **state)
{
    struct qfc_environment_given given = given_with(no_rows());
    given.custom_ca = "/etc/ssl/custom_certs/custom_ca.crt";
    add((PGresult *)given.secrets, "REQUESTS_CA_BUNDLE", "envvar", S3CRET);
    struct qfc_environment environment = make_of(given);
    assert_variable(&environment, "REQUESTS_CA_BUNDLE", "s3cret");
    assert_variable(&environment, "QFIELDCLOUD_EXTRA_ENVVARS", "[\"REQUESTS_CA_BUNDLE\"]");
    assert_int_equal(environment.variables.count, 8);
    assert_warnings(&environment, 0);
    qfc_environment_free(&environment);
}

static void any_other_name_is_the_users_own_business(void **state)
{
    PGresult *rows = no_rows();
    add(rows, "PATH", "envvar", S3CRET);
    add(rows, "LD_PRELOAD", "envvar", S3CRET);
    add(rows, "lower case", "envvar", S3CRET);
    struct qfc_environment environment = make(rows);
    assert_variable(&environment, "PATH", "s3cret");
    assert_variable(&environment, "LD_PRELOAD", "s3cret");
    assert_variable(&environment, "lower case", "s3cret");
    assert_warnings(&environment, 0);
    qfc_environment_free(&environment);
}

/* What Python 3.11 prints: json.dumps(sorted(names)). */
static void names_are_written_as_python_does(void **state)
{
    PGresult *rows = no_rows();
    add(rows, "\xF0\x9F\x90\x98", "envvar", S3CRET); /* U+1F418 */
    add(rows, "\xEF\xBC\xA1", "envvar", S3CRET);     /* U+FF21: before the former, though not in UTF-16 */
    add(rows, "\xC3\xA9", "envvar", S3CRET);
    add(rows, "A\"\\/\b\f\n\r\t\x01\x7F~ ", "envvar", S3CRET);
    struct qfc_environment environment = make(rows);
    assert_variable(&environment, "QFIELDCLOUD_EXTRA_ENVVARS",
                    "[\"A\\\"\\\\/\\b\\f\\n\\r\\t\\u0001\\u007f~ \", \"\\u00e9\", \"\\uff21\", \"\\ud83d\\udc18\"]");
    qfc_environment_free(&environment);
}

/* --- Odd secrets -------------------------------------------------------------------------------------------------- */

/* An envvar of this name, which is none, is left out with a warning, and the others are not. */
static void assert_name_left_out(const char *name, size_t size, const char *warning)
{
    PGresult *rows = no_rows();
    add(rows, "BEFORE", "envvar", S3CRET);
    add_bytes(rows, name, size, "envvar", S3CRET, strlen(S3CRET));
    add(rows, "BEHIND", "envvar", S3CRET);
    struct qfc_environment environment = make(rows);
    assert_warned(&environment, warning);
    assert_variable(&environment, "QFIELDCLOUD_EXTRA_ENVVARS", "[\"BEFORE\", \"BEHIND\"]");
    assert_int_equal(environment.variables.count, 9);
    for (size_t i = 0; i < environment.variables.count; i++)
        if (strncmp(environment.variables.items[i], "BE", 2) != 0)
            assert_null(strstr(environment.variables.items[i], "s3cret"));
    qfc_environment_free(&environment);
}

static void names_that_no_variable_can_have_are_left_out(void **state)
{
    assert_name_left_out("", 0, "secret \"\" is left out: its name is empty");
    assert_name_left_out("A=B", 3, "secret \"A=B\" is left out: its name holds an equals sign");
    assert_name_left_out("=", 1, "secret \"=\" is left out: its name holds an equals sign");
    assert_name_left_out("A\0B", 3, "secret \"A\" is left out: its name holds a NUL byte");
    assert_name_left_out("\xC3", 1, "secret \"\xC3\" is left out: its name is not UTF-8");
}

static void fixed_variables_are_not_replaced(void **state)
{
    PGresult *rows = no_rows();
    add(rows, NULL, NULL, NULL);
    struct qfc_environment plain = make(rows);
    assert_int_equal(plain.variables.count, 7);
    for (size_t i = 0; i < plain.variables.count; i++) {
        char name[64], warning[200];
        snprintf(name, sizeof name, "%.*s", (int)strcspn(plain.variables.items[i], "="), plain.variables.items[i]);
        snprintf(warning, sizeof warning, "secret \"%s\" is left out: the worker sets a variable of this name itself",
                 name);
        assert_name_left_out(name, strlen(name), warning);
    }
    qfc_environment_free(&plain);
}

static void values_that_do_not_decrypt_are_used_as_they_are(void **state)
{
    PGresult *rows = no_rows();
    add(rows, "PLAIN", "envvar", "hunter2");
    struct qfc_environment environment = make(rows);
    assert_variable(&environment, "PLAIN", "hunter2");
    assert_variable(&environment, "QFIELDCLOUD_EXTRA_ENVVARS", "[\"PLAIN\"]");
    assert_warned(&environment, "secret \"PLAIN\" is used as it is: it is not a Fernet token");
    qfc_environment_free(&environment);
}

static void values_of_another_key_are_used_as_they_are(void **state)
{
    struct qfc_environment_given given = given_with(no_rows());
    struct qfc_fernet_key other = key;
    other.signing[0] ^= 1;
    given.key = &other;
    add((PGresult *)given.secrets, "S", "pgservice", S3CRET);
    struct qfc_environment environment = make_of(given);
    assert_variable(&environment, "PGSERVICE_FILE_CONTENTS", "\n" S3CRET);
    assert_warned(&environment,
                  "secret \"S\" is used as it is: it is not signed with the key of this SECRET_KEY and SALT_KEY");
    qfc_environment_free(&environment);
}

static void without_a_key_values_are_used_as_they_are(void **state)
{
    struct qfc_environment_given given = given_with(no_rows());
    given.key = NULL;
    add((PGresult *)given.secrets, "S", "envvar", S3CRET);
    struct qfc_environment environment = make_of(given);
    assert_variable(&environment, "S", S3CRET);
    assert_warned(&environment, "secret \"S\" is used as it is: there is no SECRET_KEY to decrypt it with");
    qfc_environment_free(&environment);
}

/* A value that cannot be given to a container, as a token, is left out, of either type. */
static void assert_value_left_out(const char *token, const char *warning)
{
    for (int service = 0; service < 2; service++) {
        PGresult *rows = no_rows();
        add(rows, "ODD", service ? "pgservice" : "envvar", token);
        add(rows, "OTHER", service ? "pgservice" : "envvar", S3CRET);
        struct qfc_environment environment = make(rows);
        assert_warned(&environment, warning);
        assert_variable(&environment, "PGSERVICE_FILE_CONTENTS", service ? "\ns3cret" : "");
        assert_variable(&environment, "QFIELDCLOUD_EXTRA_ENVVARS", service ? "[]" : "[\"OTHER\"]");
        assert_null(qfc_environment_get(&environment, "ODD"));
        qfc_environment_free(&environment);
    }
}

static void values_that_no_variable_can_have_are_left_out(void **state)
{
    assert_value_left_out(NUL_WITHIN, "secret \"ODD\" is left out: its value holds a NUL byte");
    assert_value_left_out(NOT_UTF8, "secret \"ODD\" is left out: its value is not UTF-8");
}

static void the_same_holds_for_values_as_they_are(void **state)
{
    struct qfc_environment_given given = given_with(no_rows());
    PGresult *rows = (PGresult *)given.secrets;
    add_bytes(rows, "A", 1, "envvar", "a\0b", 3);
    add(rows, "B", "envvar", "\xE9");
    struct qfc_environment environment = make_of(given);
    assert_warnings(&environment, 4); /* that each is used as it is, and then is not */
    assert_string_equal(environment.warnings.items[1], "secret \"A\" is left out: its value holds a NUL byte");
    assert_string_equal(environment.warnings.items[3], "secret \"B\" is left out: its value is not UTF-8");
    assert_int_equal(environment.variables.count, 7);
    qfc_environment_free(&environment);
}

/* "BIG=", the value and the zero byte are 128 KiB at most. */
static void values_too_large_for_a_process_are_left_out(void **state)
{
    static const size_t most = 128 * 1024 - 5;
    for (size_t size = most; size <= most + 1; size++) {
        struct qfc_environment_given given = given_with(no_rows());
        given.key = NULL;
        char *value = calloc(1, size + 1);
        memset(value, 'x', size);
        add((PGresult *)given.secrets, "BIG", "envvar", value);
        struct qfc_environment environment = make_of(given);
        assert_int_equal(qfc_environment_get(&environment, "BIG") != NULL, size == most);
        assert_warnings(&environment, size == most ? 1 : 2);
        qfc_environment_free(&environment);
        free(value);
    }
}

static void services_too_large_for_a_process_are_left_out(void **state)
{
    struct qfc_environment_given given = given_with(no_rows());
    given.key = NULL;
    char *value = calloc(1, 70001);
    memset(value, 'x', 70000);
    add((PGresult *)given.secrets, "first", "pgservice", value);
    add((PGresult *)given.secrets, "second", "pgservice", value);
    struct qfc_environment environment = make_of(given);
    assert_int_equal(strlen(qfc_environment_get(&environment, "PGSERVICE_FILE_CONTENTS")), 70001);
    assert_warnings(&environment, 3);
    qfc_environment_free(&environment);
    free(value);
}

static void values_may_be_empty_or_any_text(void **state)
{
    PGresult *rows = no_rows();
    add(rows, "EMPTY", "envvar", "");
    add(rows, "NONE", "envvar", NULL);
    add(rows, "UMLAUT", "envvar", UMLAUT);
    struct qfc_environment environment = make(rows);
    assert_variable(&environment, "EMPTY", "");
    assert_variable(&environment, "NONE", "");
    assert_variable(&environment, "UMLAUT", "Z\xC3\xBCrich=\n\xF0\x9F\x90\x98");
    assert_warnings(&environment, 2);
    qfc_environment_free(&environment);
}

static void a_long_name_is_cut_in_its_warning(void **state)
{
    char name[3000];
    memset(name, 'N', sizeof name);
    memcpy(name + 1000, "=", 1);
    name[sizeof name - 1] = 0;
    PGresult *rows = no_rows();
    add(rows, name, "envvar", S3CRET);
    struct qfc_environment environment = make(rows);
    assert_warnings(&environment, 1);
    assert_non_null(strstr(environment.warnings.items[0], "NNN\" is left out: its name holds an equals sign"));
    qfc_environment_free(&environment);
}

/* --- What fails the job ------------------------------------------------------------------------------------------- */

/* Fails so, with nothing given out; frees the rows. */
static void assert_fails(PGresult *rows, enum qfc_error_kind kind, const char *message)
{
    const struct qfc_environment_given given = given_with(rows);
    struct qfc_environment environment = {.variables = {.count = 4711}};
    struct qfc_error error = QFC_NO_ERROR;
    assert_int_equal(qfc_environment_make(&given, &environment, &error), -1);
    assert_int_equal(error.kind, kind);
    assert_string_equal(error.message, message);
    assert_int_equal(environment.variables.count, 4711);
    PQclear(rows);
}

static void an_unknown_type_fails(void **state)
{
    PGresult *rows = no_rows();
    add(rows, "FIRST", "envvar", S3CRET);
    add(rows, "FILE", "file", S3CRET);
    assert_fails(rows, QFC_ERROR_INVALID, "secret \"FILE\" is of the unknown type \"file\"");
    rows = no_rows();
    add(rows, "FILE", NULL, S3CRET);
    assert_fails(rows, QFC_ERROR_INVALID, "secret \"FILE\" is of the unknown type \"\"");
}

static void a_job_that_no_person_has_triggered_fails(void **state)
{
    PGresult *rows = no_rows();
    add(rows, NULL, NULL, NULL);
    put(rows, 0, BY_PERSON, "f", 1);
    assert_fails(rows, QFC_ERROR_INVALID, "secrets are for persons, and user 12, who has triggered the job, is none");
}

static void a_job_that_is_gone_is_lost(void **state)
{
    assert_fails(no_rows(), QFC_ERROR_LOST, "there is no such job to have secrets");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_later_one_wins),
        cmocka_unit_test(values_are_appended),
        cmocka_unit_test(there_is_room_for_many),
        cmocka_unit_test(a_job_without_secrets_has_the_fixed_variables),
        cmocka_unit_test(secrets_are_decrypted_and_set),
        cmocka_unit_test(services_are_in_one_file_in_their_order),
        cmocka_unit_test(a_custom_ca_is_told),
        cmocka_unit_test(a_secret_may_replace_the_custom_ca),
        cmocka_unit_test(any_other_name_is_the_users_own_business),
        cmocka_unit_test(names_are_written_as_python_does),
        cmocka_unit_test(names_that_no_variable_can_have_are_left_out),
        cmocka_unit_test(fixed_variables_are_not_replaced),
        cmocka_unit_test(values_that_do_not_decrypt_are_used_as_they_are),
        cmocka_unit_test(values_of_another_key_are_used_as_they_are),
        cmocka_unit_test(without_a_key_values_are_used_as_they_are),
        cmocka_unit_test(values_that_no_variable_can_have_are_left_out),
        cmocka_unit_test(the_same_holds_for_values_as_they_are),
        cmocka_unit_test(values_too_large_for_a_process_are_left_out),
        cmocka_unit_test(services_too_large_for_a_process_are_left_out),
        cmocka_unit_test(values_may_be_empty_or_any_text),
        cmocka_unit_test(a_long_name_is_cut_in_its_warning),
        cmocka_unit_test(an_unknown_type_fails),
        cmocka_unit_test(a_job_that_no_person_has_triggered_fails),
        cmocka_unit_test(a_job_that_is_gone_is_lost),
    };
    return cmocka_run_group_tests(tests, make_key, NULL);
}
