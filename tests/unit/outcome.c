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
    struct qfc_buffer text = qfc_buffer(strlen(json));
    assert_int_equal(qfc_buffer_append_text(&text, json), 0);
    assert_int_equal(qfc_feedback_read(&text, &feedback, NULL), 0);
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
    assert_string_equal(outcome.told, "");
    assert_int_equal(outcome.reason, QFC_REASON_NONE);
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
    assert_string_equal(outcome.told, "no such layer");
    assert_int_equal(outcome.reason, QFC_REASON_JOB_ERROR);
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
    assert_string_equal(outcome.told, "exit code 3, and no error in the feedback");
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
    const char *last = "\nTimeout error! The job failed to finish within 600 seconds!\n";
    assert_string_equal(outcome.output_end + strlen(outcome.output_end) - strlen(last), last);
    assert_non_null(strstr(outcome.output_end, "[QFC/Worker/TIMEOUT] Raise"));
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

/* A child may have gone under although the workflow went on to its end, and told of it. */
static void test_a_child_out_of_memory_explains_a_failure(void **state)
{
    struct qfc_feedback feedback = feedback_of("{\"error\": \"ogr2ogr died\", \"error_type\": \"UNKNOWN\"}");
    struct qfc_run run = {.feedback = &feedback, .oom_killed = true};
    struct qfc_outcome outcome;
    assert_int_equal(qfc_outcome_decide(&run, &outcome, NULL), 0);
    assert_false(outcome.finished);
    assert_int_equal(outcome.reason, QFC_REASON_OUT_OF_MEMORY);
    assert_non_null(strstr(outcome.extra, "Its own last word: ogr2ogr died"));
    assert_non_null(strstr(outcome.advice, "WORKER_QGIS_MEMORY_LIMIT"));
    qfc_outcome_free(&outcome);
    qfc_feedback_free(&feedback);
}

static void test_cancelled(void **state)
{
    struct qfc_run run = {.end = QFC_END_CANCELLED, .exit_code = 137};
    struct qfc_outcome outcome =
        decide(&run, "{\"container_exit_code\": 137, \"error\": \"The job was cancelled.\","
                     " \"error_type\": \"CANCELLED\", \"error_class\": \"\", \"error_stack\": \"\","
                     " \"error_origin\": \"container\"}");
    assert_false(outcome.finished);
    assert_string_equal(outcome.output_end, "");
    qfc_outcome_free(&outcome);
}

/* What a container is denied shows in the job's own error, or else at the end of its log; where the job knows its error
 * the log alone does not change the reason. */
static void test_denials(void **state)
{
    static const struct {
        const char *feedback, *log_end;
        struct qfc_confinement confinement;
        enum qfc_reason reason;
        const char *advice;
    } cases[] = {
        {"{\"error\": \"[Errno 30] Read-only file system: 'x'\"}",
         "",
         {.read_only = true},
         QFC_REASON_READ_ONLY,
         "QFC_WORKER_CONTAINER_READ_ONLY=0"},
        {"{\"error\": \"[Errno 30] Read-only file system: 'x'\"}",
         "",
         {.unprivileged = true},
         QFC_REASON_JOB_ERROR,
         ""},
        {"{\"error\": \"bad layer\"}",
         "x: Operation not permitted",
         {.unprivileged = true},
         QFC_REASON_JOB_ERROR,
         "QFC_WORKER_CONTAINER_DROP_CAPABILITIES=0"},
        {NULL,
         "mount: permission denied (are you root?)",
         {.unprivileged = true},
         QFC_REASON_NOT_PERMITTED,
         "QFC_WORKER_CONTAINER_NO_NEW_PRIVILEGES=0"},
        {NULL,
         "sh: can't fork: Resource temporarily unavailable",
         {.few_processes = true},
         QFC_REASON_TOO_MANY_PROCESSES,
         "QFC_WORKER_CONTAINER_PROCESSES"},
        {NULL, "sh: can't fork: Resource temporarily unavailable", {0}, QFC_REASON_CONTAINER_FAILED, ""},
        {NULL, "write: NO SPACE left on device", {0}, QFC_REASON_OUT_OF_DISK, "docker system df"},
        {NULL, "all is well", {true, true, true}, QFC_REASON_CONTAINER_FAILED, ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct qfc_feedback feedback = feedback_of(cases[i].feedback ? cases[i].feedback : "{}");
        struct qfc_error none = QFC_NO_ERROR;
        struct qfc_run run = {.exit_code = 1,
                              .feedback = cases[i].feedback ? &feedback : NULL,
                              .feedback_failure = &none,
                              .confinement = cases[i].confinement,
                              .log_end = cases[i].log_end};
        struct qfc_outcome outcome;
        assert_int_equal(qfc_outcome_decide(&run, &outcome, NULL), 0);
        assert_int_equal(outcome.reason, cases[i].reason);
        assert_non_null(strstr(outcome.advice, cases[i].advice));
        assert_int_equal(*outcome.advice == 0, *cases[i].advice == 0);
        assert_int_equal(*outcome.output_end == 0, *cases[i].advice == 0);
        qfc_outcome_free(&outcome);
        qfc_feedback_free(&feedback);
    }
}

static void test_exec_failure(void **state)
{
    struct qfc_error failure = QFC_NO_ERROR;
    qfc_fail(&failure, QFC_ERROR_INVALID, 0, "no feedback");
    struct qfc_run run = {.exit_code = 127, .feedback_failure = &failure};
    struct qfc_outcome outcome;
    assert_int_equal(qfc_outcome_decide(&run, &outcome, NULL), 0);
    assert_int_equal(outcome.reason, QFC_REASON_EXEC_FAILED);
    assert_non_null(strstr(outcome.extra, "\"EXEC_FAILED\""));
    qfc_outcome_free(&outcome);
}

/* Each has a word of its own, by which it is found again, and a sentence. */
static void test_reasons(void **state)
{
    for (enum qfc_reason reason = QFC_REASON_NONE + 1; reason < QFC_REASON_COUNT; reason++) {
        const struct qfc_reason_words *words = qfc_reason_words(reason);
        assert_non_null(words->code);
        assert_int_equal(qfc_reason_of(words->code), reason);
        assert_true(*words->sentence && words->advice);
    }
    assert_int_equal(qfc_reason_of("nothing"), QFC_REASON_NONE);
}

static void test_no_run(void **state)
{
    struct qfc_error failure = QFC_NO_ERROR;
    qfc_fail(&failure, QFC_ERROR_REFUSED, 404, "no image \xff");
    struct qfc_run run = {.end = QFC_END_NO_RUN, .failure = &failure, .failure_reason = QFC_REASON_ENGINE_LOST};
    struct qfc_outcome outcome =
        decide(&run, "{\"error\": \"no image \xEF\xBF\xBD\", \"error_type\": \"ENGINE_LOST\","
                     " \"error_class\": \"WorkerError\", \"error_stack\": \"\", \"error_origin\": \"worker_wrapper\"}");
    assert_false(outcome.finished);
    assert_memory_equal(outcome.output_end, "no image \xff\n[QFC/Worker/ENGINE_LOST] See", 38);
    assert_int_equal(outcome.reason, QFC_REASON_ENGINE_LOST);
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
        cmocka_unit_test(test_a_child_out_of_memory_explains_a_failure),
        cmocka_unit_test(test_cancelled),
        cmocka_unit_test(test_denials),
        cmocka_unit_test(test_exec_failure),
        cmocka_unit_test(test_reasons),
        cmocka_unit_test(test_no_run),
        cmocka_unit_test(test_success_that_could_not_be_written),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_limits_that_cannot_be_used),
    };
    return cmocka_run_group_tests_name("outcome", tests, NULL, NULL);
}
