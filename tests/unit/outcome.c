/* What is written of a run, for each way in which one can end; and the limits that an administrator sets. */
#include "qfc/outcome.h"
#include "qfc/limits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>
#include <libpq-fe.h>

static struct qfc_feedback feedback_of(const char *json)
{
    struct qfc_feedback feedback;
    assert_int_equal(qfc_feedback_read(json, strlen(json), &feedback, NULL), 0);
    return feedback;
}

/* Decides, and compares what is laid over the feedback with `extra`. */
static struct qfc_outcome decide(const struct qfc_run *run, const char *extra)
{
    struct qfc_outcome outcome;
    assert_int_equal(qfc_outcome_decide(run, &outcome, NULL), 0);
    json_t *got = json_loads(outcome.extra, 0, NULL);
    json_t *expected = json_loads(extra, 0, NULL);
    assert_non_null(expected);
    if (!json_equal(got, expected))
        fail_msg("got %s, expected %s", outcome.extra, extra);
    json_decref(got);
    json_decref(expected);
    return outcome;
}

static void test_success(void **state)
{
    struct qfc_feedback feedback = feedback_of("{\"steps\": []}");
    struct qfc_run run = {.feedback = &feedback};
    struct qfc_outcome outcome = decide(&run, "{\"container_exit_code\": 0}");
    assert_true(outcome.finished);
    assert_string_equal(outcome.feedback, "{\"steps\": []}");
    assert_string_equal(outcome.reason, "");
    assert_string_equal(outcome.output_end, "");
    qfc_outcome_free(&outcome);
    qfc_feedback_free(&feedback);
}

static void test_error_in_feedback_fails_although_exit_is_0(void **state)
{
    struct qfc_feedback feedback = feedback_of("{\"error\": \"no such layer\"}");
    struct qfc_run run = {.feedback = &feedback};
    struct qfc_outcome outcome = decide(&run, "{\"container_exit_code\": 0, \"error_origin\": \"container\"}");
    assert_false(outcome.finished);
    assert_string_equal(outcome.reason, "no such layer");
    qfc_outcome_free(&outcome);
    qfc_feedback_free(&feedback);
}

static void test_empty_error_fails_too(void **state)
{
    struct qfc_feedback feedback = feedback_of("{\"error\": \"\"}");
    struct qfc_run run = {.feedback = &feedback};
    struct qfc_outcome outcome = decide(&run, "{\"container_exit_code\": 0}");
    assert_false(outcome.finished);
    qfc_outcome_free(&outcome);
    qfc_feedback_free(&feedback);
}

static void test_exit_code_fails(void **state)
{
    struct qfc_feedback feedback = feedback_of("{}");
    struct qfc_run run = {.feedback = &feedback, .exit_code = 3};
    struct qfc_outcome outcome = decide(&run, "{\"container_exit_code\": 3}");
    assert_false(outcome.finished);
    assert_string_equal(outcome.reason, "exit code 3, and no error in the feedback");
    qfc_outcome_free(&outcome);
    qfc_feedback_free(&feedback);
}

static void test_no_feedback(void **state)
{
    struct qfc_error failure = QFC_NO_ERROR;
    qfc_fail(&failure, QFC_ERROR_REFUSED, 404, "no such file");
    struct qfc_run run = {.exit_code = 2, .feedback_failure = &failure};
    struct qfc_outcome outcome = decide(
        &run,
        "{\"container_exit_code\": 2, \"error\": \"exit code 2: no such file\", \"error_class\": \"FeedbackError\","
        " \"error_stack\": \"\", \"error_origin\": \"worker_wrapper\"}");
    assert_false(outcome.finished);
    assert_null(outcome.feedback);
    qfc_outcome_free(&outcome);
}

static void test_feedback_that_is_no_object(void **state)
{
    struct qfc_feedback feedback = feedback_of("[1, 2]");
    struct qfc_run run = {.feedback = &feedback};
    struct qfc_outcome outcome = decide(
        &run, "{\"container_exit_code\": 0, \"error\": \"feedback.json is JSON, but not an object\","
              " \"error_class\": \"FeedbackError\", \"error_stack\": \"\", \"error_origin\": \"worker_wrapper\"}");
    assert_string_equal(outcome.feedback, "{\"error_feedback\":[1, 2]}");
    qfc_outcome_free(&outcome);
    qfc_feedback_free(&feedback);
}

static void test_deadline(void **state)
{
    struct qfc_run run = {.end = QFC_END_DEADLINE, .exit_code = 137, .timeout_s = 600};
    struct qfc_outcome outcome =
        decide(&run, "{\"container_exit_code\": -1, \"error\": \"Worker timeout error.\", \"error_type\": \"TIMEOUT\","
                     " \"error_class\": \"\", \"error_stack\": \"\", \"error_origin\": \"container\"}");
    assert_false(outcome.finished);
    assert_string_equal(outcome.output_end, "\nTimeout error! The job failed to finish within 600 seconds!\n");
    qfc_outcome_free(&outcome);
}

static void test_kill_from_outside_and_out_of_memory_are_told_apart(void **state)
{
    struct qfc_run run = {.exit_code = 137};
    struct qfc_outcome outcome =
        decide(&run, "{\"container_exit_code\": 137, \"error\": \"Docker engine sigkill.\","
                     " \"error_type\": \"DOCKER_ENGINE_SIGKILL\", \"error_class\": \"\", \"error_stack\": \"\","
                     " \"error_origin\": \"container\"}");
    qfc_outcome_free(&outcome);
    run.oom_killed = true;
    assert_int_equal(qfc_outcome_decide(&run, &outcome, NULL), 0);
    assert_non_null(strstr(outcome.extra, "\"OUT_OF_MEMORY\""));
    qfc_outcome_free(&outcome);
}

static void test_a_child_out_of_memory_does_not_spoil_a_success(void **state)
{
    struct qfc_feedback feedback = feedback_of("{}");
    struct qfc_run run = {.feedback = &feedback, .oom_killed = true};
    struct qfc_outcome outcome = decide(&run, "{\"container_exit_code\": 0}");
    assert_true(outcome.finished);
    qfc_outcome_free(&outcome);
    qfc_feedback_free(&feedback);
}

static void test_no_run(void **state)
{
    struct qfc_error failure = QFC_NO_ERROR;
    qfc_fail(&failure, QFC_ERROR_REFUSED, 404, "no image \xff");
    struct qfc_run run = {.end = QFC_END_NO_RUN, .failure = &failure, .failure_type = "ENGINE_LOST"};
    struct qfc_outcome outcome =
        decide(&run, "{\"error\": \"no image \xEF\xBF\xBD\", \"error_type\": \"ENGINE_LOST\","
                     " \"error_class\": \"WorkerError\", \"error_stack\": \"\", \"error_origin\": \"worker_wrapper\"}");
    assert_false(outcome.finished);
    assert_string_equal(outcome.output_end, "no image \xff\n");
    qfc_outcome_free(&outcome);
}

static void test_success_that_could_not_be_written(void **state)
{
    struct qfc_error failure = QFC_NO_ERROR;
    qfc_fail(&failure, QFC_ERROR_REFUSED, 0, "violates a constraint");
    struct qfc_feedback feedback = feedback_of("{\"steps\": [1]}");
    struct qfc_run run = {.feedback = &feedback, .failure = &failure};
    struct qfc_outcome outcome =
        decide(&run, "{\"container_exit_code\": 0, \"error\": \"violates a constraint\","
                     " \"error_class\": \"WorkerError\", \"error_stack\": \"\", \"error_origin\": \"worker_wrapper\"}");
    assert_false(outcome.finished);
    assert_string_equal(outcome.feedback, "{\"steps\": [1]}");
    qfc_outcome_free(&outcome);
    qfc_feedback_free(&feedback);
}

static void test_bytes(void **state)
{
    assert_int_equal(qfc_parse_bytes("1000m"), 1000LL * 1024 * 1024);
    assert_int_equal(qfc_parse_bytes("1.5GB"), 1536LL * 1024 * 1024);
    assert_int_equal(qfc_parse_bytes("512"), 512);
    assert_int_equal(qfc_parse_bytes("7b"), 7);
    assert_int_equal(qfc_parse_bytes("2Kb"), 2048);
    assert_int_equal(qfc_parse_bytes("1t"), 1024LL * 1024 * 1024 * 1024);
    assert_int_equal(qfc_parse_bytes(""), -1);
    assert_int_equal(qfc_parse_bytes("-1m"), -1);
    assert_int_equal(qfc_parse_bytes("m"), -1);
    assert_int_equal(qfc_parse_bytes("1mm"), -1);
    assert_int_equal(qfc_parse_bytes("1bb"), -1);
    assert_int_equal(qfc_parse_bytes("9e99"), -1);
    assert_int_equal(qfc_parse_bytes("nan"), -1);
}

/* A result as PostgreSQL would give it. */
static PGresult *rows_of(const char *const *cells, int count)
{
    PGresult *rows = PQmakeEmptyPGresult(NULL, PGRES_TUPLES_OK);
    PGresAttDesc columns[] = {{.name = (char *)"key"}, {.name = (char *)"value"}};
    PQsetResultAttrs(rows, 2, columns);
    for (int i = 0; i < 2 * count; i++)
        PQsetvalue(rows, i / 2, i % 2, (char *)cells[i], cells[i] ? (int)strlen(cells[i]) : -1);
    return rows;
}

static void test_limits(void **state)
{
    const char *cells[] = {"WORKER_QGIS_MEMORY_LIMIT", "{\"__type__\": \"default\", \"__value__\": \"2g\"}",
                           "WORKER_QGIS_CPU_SHARES",   "{\"__type__\": \"default\", \"__value__\": 256}",
                           "WORKER_TIMEOUT_S",         "90"};
    PGresult *rows = rows_of(cells, 3);
    struct qfc_limits limits = qfc_limits_read(rows);
    assert_int_equal(limits.memory_bytes, 2LL * 1024 * 1024 * 1024);
    assert_int_equal(limits.cpu_shares, 256);
    assert_int_equal(limits.timeout_s, 90);
    assert_null(limits.bad);
    PQclear(rows);
}

static void test_limits_that_cannot_be_used(void **state)
{
    const char *cells[] = {"WORKER_QGIS_MEMORY_LIMIT", "\"lots\"", "WORKER_QGIS_CPU_SHARES", NULL,
                           "WORKER_TIMEOUT_S",         "nonsense"};
    for (int i = 0; i < 3; i++) {
        PGresult *rows = rows_of(cells + 2 * i, 1);
        struct qfc_limits limits = qfc_limits_read(rows);
        assert_int_equal(limits.memory_bytes, 1000LL * 1024 * 1024);
        assert_int_equal(limits.cpu_shares, 512);
        assert_int_equal(limits.timeout_s, 600);
        assert_string_equal(limits.bad, cells[2 * i]);
        PQclear(rows);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_success),
        cmocka_unit_test(test_error_in_feedback_fails_although_exit_is_0),
        cmocka_unit_test(test_empty_error_fails_too),
        cmocka_unit_test(test_exit_code_fails),
        cmocka_unit_test(test_no_feedback),
        cmocka_unit_test(test_feedback_that_is_no_object),
        cmocka_unit_test(test_deadline),
        cmocka_unit_test(test_kill_from_outside_and_out_of_memory_are_told_apart),
        cmocka_unit_test(test_a_child_out_of_memory_does_not_spoil_a_success),
        cmocka_unit_test(test_no_run),
        cmocka_unit_test(test_success_that_could_not_be_written),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_limits_that_cannot_be_used),
    };
    return cmocka_run_group_tests_name("outcome", tests, NULL, NULL);
}
