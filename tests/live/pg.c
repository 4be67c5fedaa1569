/*
 * The PostgreSQL connection against a real server.
 */
#include "pg_client.h"

#include <sys/resource.h>

#define LARGE ((size_t)50 * 1024 * 1024)
#define HUGE  ((size_t)100 * 1024 * 1024)

/* --- Tests -------------------------------------------------------------------------------------------------------- */

static void results_of_several_statements(void **state)
{
    static const char *const ids[][2] = {{"1", "4"}, {"2", "5"}, {"3", "6"}};
    struct client *client = *state;
    struct qfc_error error;

    /* As it is, parsed under a name, by the name. */
    for (int use = 0; use < 3; use++) {
        struct qfc_statements list = {0};
        struct end end;
        assert_int_equal(QFC_ADD(&list, &error, "INSERT INTO qfc_test VALUES ($1, $2), ($3, $4) RETURNING id AS \"No\"",
                                 ids[use][0], "\xc3\xa4 'q'", ids[use][1], NULL),
                         0);
        assert_int_equal(QFC_ADD(&list, &error, "UPDATE qfc_test SET text = text WHERE id = $1", "99"), 0);
        assert_int_equal(QFC_ADD(&list, &error, "SELECT text, $1::text AS none FROM qfc_test ORDER BY id", NULL), 0);
        send_list(client, &end, &list);
        expect_success(&end);
        assert_int_equal(end.count, 3);
        assert_int_equal(PQresultStatus(end.results[0]), PGRES_TUPLES_OK);
        assert_string_equal(qfc_pg_text(end.results[0], 1, "No"), ids[use][1]);
        assert_int_equal(PQresultStatus(end.results[1]), PGRES_COMMAND_OK);
        assert_string_equal(PQcmdTuples(end.results[1]), "0");
        assert_string_equal(qfc_pg_text(end.results[2], 0, "text"), "\xc3\xa4 'q'");
        assert_null(qfc_pg_text(end.results[2], 2 * use + 1, "text"));
        assert_null(qfc_pg_text(end.results[2], 0, "none"));
        assert_null(qfc_pg_text(end.results[2], 0, "no such column"));
        assert_null(qfc_pg_text(end.results[2], 99, "text"));
        assert_null(qfc_pg_text(end.results[2], -1, "text"));
        clear(&end);
    }
}

static void a_batch_is_rolled_back_as_a_whole(void **state)
{
    struct client *client = *state;

    for (int use = 0; use < 3; use++) {
        struct end end;
        send_sql(client, &end, "INSERT INTO qfc_test VALUES (1, 'a')", "INSERT INTO qfc_test VALUES (2, 'b')",
                 "INSERT INTO qfc_test VALUES (1, 'c')", "INSERT INTO qfc_test VALUES (3, 'd')", NULL);
        expect_error(&end, QFC_ERROR_REFUSED, "23505");
        assert_int_equal(end.count, 0);
        assert_string_equal(end.error.message,
                            "statement 3 of 4: duplicate key value violates unique constraint \"qfc_test_pkey\" "
                            "(23505); Key (id)=(1) already exists.");
        assert_int_equal(ask_number(client, "SELECT count(*) FROM qfc_test"), 0);
    }
    assert_int_equal(client->downs, 0);
}

static void a_failing_batch_between_two_good_ones_in_flight(void **state)
{
    struct client *client = *state;
    PGconn *conn = other_connection();
    struct end one, two, three, four;

    for (int use = 0; use < 3; use++) {
        send_sql(client, &one, "INSERT INTO qfc_test VALUES (1, 'a')", NULL);
        send_sql(client, &two, "INSERT INTO qfc_test VALUES (2, 'b')", "SELECT 1/0",
                 "INSERT INTO qfc_test VALUES (3, 'c')", NULL);
        send_sql(client, &three, "INSERT INTO qfc_test VALUES (4, 'd')", NULL);
        send_sql(client, &four, "INSERT INTO qfc_test VALUES (5, 'e')", NULL);
        expect_success(&four);
        expect_success(&one);
        expect_error(&two, QFC_ERROR_REFUSED, "22012");
        expect_success(&three);
        assert_true(one.place < two.place && two.place < three.place && three.place < four.place);
        assert_int_equal(other_number(conn, "SELECT sum(id) FROM qfc_test"), 1 + 4 + 5);
        assert_int_equal(other_number(conn, "SELECT count(*) FROM pg_stat_activity WHERE application_name = "
                                            "'" APPLICATION "' AND state = 'idle'"),
                         1);
        other_run(conn, "DELETE FROM qfc_test");
        clear(&one);
        clear(&three);
        clear(&four);
    }
    PQfinish(conn);
}

static void a_deferred_constraint_fails_the_batch(void **state)
{
    struct client *client = *state;

    for (int use = 0; use < 3; use++) {
        struct end end, next;
        send_sql(client, &end, "INSERT INTO qfc_child VALUES (77)", NULL);
        send_sql(client, &next, "SELECT count(*) FROM qfc_child", NULL);
        expect_error(&end, QFC_ERROR_REFUSED, "23503");
        assert_non_null(strstr(end.error.message, "commit: "));
        assert_int_equal(number_of(&next), 0);
    }
}

static void success_means_committed(void **state)
{
    struct client *client = *state;
    PGconn *conn = other_connection();

    for (int i = 0; i < 20; i++) {
        struct end end;
        char sql[64];
        snprintf(sql, sizeof(sql), "INSERT INTO qfc_test VALUES (%d)", i);
        send_sql(client, &end, sql, NULL);
        expect_success(&end);
        clear(&end);
        assert_int_equal(other_number(conn, "SELECT count(*) FROM qfc_test"), i + 1);
    }
    PQfinish(conn);
}

static void local_settings_end_with_the_batch(void **state)
{
    struct client *client = *state;

    for (int use = 0; use < 3; use++) {
        struct end end;
        send_sql(client, &end, "SELECT set_config('work_mem', '7MB', true)",
                 "SELECT (current_setting('work_mem') = '7MB')::int", NULL);
        assert_int_equal(number_of(&end), 1);
        assert_int_equal(ask_number(client, "SELECT (current_setting('work_mem') = '7MB')::int"), 0);
    }
}

static void a_lock_timeout_is_worth_another_try(void **state)
{
    struct client *client = *state;
    PGconn *conn = other_connection();
    struct end end;

    other_run(conn, "BEGIN; LOCK TABLE qfc_test");
    for (int use = 0; use < 3; use++) {
        send_sql(client, &end, "SELECT set_config('lock_timeout', '30ms', true)", "SELECT * FROM qfc_test", NULL);
        expect_error(&end, QFC_ERROR_AGAIN, "55P03");
    }
    send_sql(client, &end, "SELECT set_config('statement_timeout', '30ms', true)", "SELECT pg_sleep(60)", NULL);
    expect_error(&end, QFC_ERROR_AGAIN, "57014");
    PQfinish(conn);
    assert_int_equal(ask_number(client, "SELECT count(*) FROM qfc_test"), 0);
}

static void a_serialization_failure_is_worth_another_try(void **state)
{
    struct client *client = *state;
    PGconn *conn = other_connection();
    struct end end;

    other_run(conn, "INSERT INTO qfc_test VALUES (1, 'a')");
    other_run(conn, "BEGIN; UPDATE qfc_test SET text = 'b'");
    send_sql(client, &end, "SET default_transaction_isolation = 'serializable'", NULL);
    expect_success(&end);
    clear(&end);
    send_sql(client, &end, "UPDATE qfc_test SET text = 'c'", NULL);
    wait_until(client, conn, OURS_WAITS);
    other_run(conn, "COMMIT");
    expect_error(&end, QFC_ERROR_AGAIN, "40001");
    PQfinish(conn);
}

static void a_terminated_backend(void **state)
{
    struct client *client = *state;
    PGconn *conn = other_connection();
    PGconn *blocker = other_connection();
    struct end sent, later;

    other_run(blocker, "BEGIN; LOCK TABLE qfc_test");
    for (int use = 0; use < 3; use++) {
        send_sql(client, &sent, "INSERT INTO qfc_test VALUES (1)", NULL);
        wait_until(client, conn, OURS_WAITS);
        assert_int_equal(other_number(conn, KILL_OURS), 1);
        wait_for(client, &client->downs, use + 1);
        send_sql(client, &later, "SELECT 42", NULL);
        expect_error(&sent, QFC_ERROR_UNKNOWN, "57P01");
        assert_non_null(strstr(sent.error.message, "terminating connection due to administrator command"));
        assert_int_equal(number_of(&later), 42);
        assert_int_equal(client->ready, use + 2);
    }
    PQfinish(blocker);
    PQfinish(conn);
}

static void a_backend_terminated_while_idle(void **state)
{
    struct client *client = *state;
    PGconn *conn = other_connection();

    assert_int_equal(other_number(conn, KILL_OURS), 1);
    wait_for(client, &client->downs, 1); /* without anything being sent */
    assert_string_equal(client->why.sqlstate, "57P01");
    assert_non_null(strstr(client->why.message, "terminating connection due to administrator command"));
    wait_for(client, &client->ready, 2);
    PQfinish(conn);
}

static void control(const char *what)
{
    char command[1024];

    snprintf(command, sizeof(command), "%s %s", pg_ctl, what);
    if (system(command) != 0)
        fail_msg("%s failed", command);
}

static void restart(struct client *client, const char *how)
{
    struct end before, sent, waiting[3];
    int downs = client->downs;
    PGconn *conn = other_connection();

    send_sql(client, &before, "SELECT 1", NULL);
    assert_int_equal(number_of(&before), 1);
    send_sql(client, &sent, "INSERT INTO qfc_test VALUES (1)", "SELECT pg_sleep(600)", NULL);
    wait_until(client, conn, OURS_SLEEPS);
    PQfinish(conn);
    control(how);
    wait_for(client, &client->downs, downs + 1);
    for (int i = 0; i < 3; i++)
        send_sql(client, &waiting[i], "SELECT count(*) FROM qfc_test", NULL);
    wait_end(&sent);
    assert_int_equal(sent.error.kind, QFC_ERROR_UNKNOWN);
    if (strstr(how, "stop")) {
        wait_for(client, &client->downs, downs + 3);
        assert_int_equal(waiting[0].done, 0);
        control("start");
    }
    for (int i = 0; i < 3; i++)
        assert_int_equal(number_of(&waiting[i]), 0);
}

static void a_restarted_server(void **state)
{
    restart(*state, "restart -m immediate");
    restart(*state, "restart -m fast");
    restart(*state, "stop -m fast");
}

static char *letters(size_t size)
{
    char *text = malloc(size + 1);

    assert_non_null(text);
    for (size_t i = 0; i < size; i++)
        text[i] = (char)('a' + i % 23);
    text[size] = '\0';
    return text;
}

static void on_tick(uv_timer_t *timer)
{
    struct client *client = timer->data;

    client->ticks++;
}

/* The server does not read while it waits for a lock: the loop goes on all the same. */
static void a_large_parameter_does_not_block(void **state)
{
    struct client *client = *state;
    PGconn *conn = other_connection();
    struct qfc_statements list = {0};
    struct qfc_error error;
    struct end waiting, big;
    char *huge = letters(HUGE);
    struct qfc_value value = {huge, QFC_VALUE_BORROWED};
    uv_timer_t timer;

    uv_timer_init(&client->loop, &timer);
    timer.data = client;
    other_run(conn, "BEGIN; LOCK TABLE qfc_test");
    send_sql(client, &waiting, "SELECT count(*) FROM qfc_test", NULL);
    assert_int_equal(qfc_statements_add(&list, "SELECT length($1::text)", 1, &value, &error), 0);
    send_list(client, &big, &list);
    wait_until(client, conn, OURS_WAITS);
    uv_timer_start(&timer, on_tick, 1, 1);
    wait_for(client, &client->ticks, 20);
    uv_close((uv_handle_t *)&timer, NULL);
    assert_int_equal(big.done + waiting.done, 0);
    other_run(conn, "COMMIT");
    assert_int_equal(number_of(&waiting), 0);
    assert_int_equal(number_of(&big), HUGE);
    free(huge);
    PQfinish(conn);
}

/* What comes back must be read while more is being sent. */
static void large_parameters_there_and_back(void **state)
{
    struct client *client = *state;
    struct qfc_statements list = {0};
    struct qfc_error error;
    struct end large, small;
    char *text = letters(LARGE);
    struct qfc_value value = {text, QFC_VALUE_BORROWED};

    for (int i = 0; i < 3; i++)
        assert_int_equal(qfc_statements_add(&list, "SELECT $1::text AS text", 1, &value, &error), 0);
    send_list(client, &large, &list);
    send_sql(client, &small, "SELECT 3", NULL);
    expect_success(&large);
    for (int i = 0; i < 3; i++)
        assert_true(strcmp(qfc_pg_text(large.results[i], 0, "text"), text) == 0);
    clear(&large);
    assert_int_equal(number_of(&small), 3);
    free(text);
}

static void a_large_result(void **state)
{
    struct client *client = *state;
    struct end end;

    send_sql(client, &end, "SELECT repeat('x', 50 * 1024 * 1024) AS text", "SELECT generate_series(1, 500000) AS n",
             NULL);
    expect_success(&end);
    assert_int_equal(PQgetlength(end.results[0], 0, 0), LARGE);
    assert_int_equal(PQntuples(end.results[1]), 500000);
    assert_string_equal(qfc_pg_text(end.results[1], 499999, "n"), "500000");
    clear(&end);
}

static void notifications(void **state)
{
    struct client *client = *state;
    PGconn *conn = other_connection();
    struct end end;

    other_run(conn, "NOTIFY qfc_test, 'from idle'");
    wait_for(client, &client->notifies, 1);
    assert_string_equal(client->channel, "qfc_test");
    assert_string_equal(client->payload, "from idle");
    other_run(conn, "BEGIN; LOCK TABLE qfc_test");
    send_sql(client, &end, "SELECT pg_notify('qfc_test', 'own')", "SELECT count(*) FROM qfc_test", NULL);
    wait_until(client, conn, OURS_WAITS);
    other_run(conn, "COMMIT");
    expect_success(&end);
    wait_for(client, &client->notifies, 2);
    assert_string_equal(client->payload, "own");
    /* On the next connection as well. */
    assert_int_equal(other_number(conn, KILL_OURS), 1);
    wait_for(client, &client->ready, 2);
    other_run(conn, "NOTIFY qfc_test, 'again'");
    wait_for(client, &client->notifies, 3);
    assert_string_equal(client->payload, "again");
    clear(&end);
    PQfinish(conn);
}

static void notices(void **state)
{
    struct client *client = *state;
    struct end end;

    send_sql(client, &end, "DO $$BEGIN RAISE WARNING 'look %', 'here'; END$$", "SELECT 1", NULL);
    assert_int_equal(number_of(&end), 1);
    assert_int_equal(client->notices, 1);
    assert_string_equal(client->notice, "WARNING look here");
}

static void setup_refuses(void **state)
{
    struct client client = {.refuse = 2};
    struct end end;

    start_client(&client, database_url);
    send_sql(&client, &end, "SELECT 5", NULL);
    wait_for(&client, &client.downs, 2);
    assert_non_null(strstr(client.why.message, "the server is a standby"));
    assert_int_equal(end.done, 0);
    assert_int_equal(number_of(&end), 5);
    assert_int_equal(client.ready, 1);
    qfc_pg_free(client.pg);
    uv_run(&client.loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&client.loop), 0);
}

/* The test's connection string with another database. */
static void other_database(char *out, size_t size, const char *database)
{
    PQconninfoOption *options = PQconninfoParse(database_url, NULL);

    assert_non_null(options);
    out[0] = '\0';
    for (PQconninfoOption *option = options; option->keyword; option++)
        if (option->val && strcmp(option->keyword, "dbname") != 0)
            snprintf(out + strlen(out), size - strlen(out), "%s='%s' ", option->keyword, option->val);
    snprintf(out + strlen(out), size - strlen(out), "dbname='%s'", database);
    PQconninfoFree(options);
}

static void a_database_that_is_not_there(void **state)
{
    struct client client = {0};
    char conninfo[1024];

    other_database(conninfo, sizeof(conninfo), "no such database");
    start_client(&client, conninfo);
    wait_for(&client, &client.downs, 1);
    assert_string_equal(client.why.sqlstate, "3D000");
    assert_int_equal(client.why.kind, QFC_ERROR_REFUSED);
    assert_non_null(strstr(client.why.message, "database no such database as "));
    qfc_pg_free(client.pg);
    uv_run(&client.loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&client.loop), 0);
}

static void cancelled(void **state)
{
    struct client *client = *state;
    PGconn *conn = other_connection();
    struct end sent, unsent, last;

    other_run(conn, "BEGIN; LOCK TABLE qfc_child");
    send_sql(client, &sent, "SELECT count(*) FROM qfc_child", "INSERT INTO qfc_test VALUES (1)", NULL);
    wait_until(client, conn, OURS_WAITS);
    send_sql(client, &unsent, "INSERT INTO qfc_test VALUES (2)", NULL);
    qfc_pg_cancel(unsent.batch);
    qfc_pg_cancel(sent.batch);
    other_run(conn, "COMMIT");
    send_sql(client, &last, "SELECT sum(id) FROM qfc_test", NULL);
    assert_int_equal(number_of(&last), 1); /* the sent one has run, the other has not */
    assert_int_equal(sent.done, 0);
    assert_int_equal(unsent.done, 0);
    PQfinish(conn);
}

/* "aé€😀" again and again, in parts of whole characters, each kept as a setting of the transaction: 80 MB in all, of
 * which libpq never has more than a part. */
#define CHARACTERS "a\303\251\342\202\254\360\237\230\200"
#define PARTS      20
#define PART_TIMES (size_t)400000
#define PART_SETTINGS                                                                                                  \
    "string_agg(current_setting('qfc_test.part_' || n), '' ORDER BY n) FROM generate_series(1, 20) AS n"
#define GROWTH_KB (40 * 1024)

static char *make_part(size_t *ret_size)
{
    size_t one = strlen(CHARACTERS);
    char *part = malloc(PART_TIMES * one); /* without a NUL, so that whoever looks for one is found out */

    assert_non_null(part);
    for (size_t i = 0; i < PART_TIMES; i++)
        memcpy(part + i * one, CHARACTERS, one);
    *ret_size = PART_TIMES * one;
    return part;
}

static long most_memory_kb(void)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss;
}

static void add_parts(struct qfc_statements *list, const char *part, size_t size)
{
    struct qfc_error error;

    for (int i = 1; i <= PARTS; i++) {
        char name[32];
        snprintf(name, sizeof(name), "qfc_test.part_%d", i);
        const struct qfc_value values[] = {{.text = name}, {.text = part, .kind = QFC_VALUE_PART, .size = size}};
        assert_int_equal(qfc_statements_add(list, "SELECT length(set_config($1, $2, true))", 2, values, &error), 0);
    }
}

static void a_text_in_parts(void **state)
{
    struct client *client = *state;
    struct end before, parts, behind;
    struct qfc_statements list = {0};
    struct qfc_error error;
    size_t size;
    char *part = make_part(&size);
    long memory_kb = most_memory_kb();

    add_parts(&list, part, size);
    /* What is not the same divides by 0. */
    assert_int_equal(
        QFC_ADD(&list, &error, "SELECT 1 / ((SELECT " PART_SETTINGS ") = repeat($1, 8000000))::int", CHARACTERS), 0);
    send_sql(client, &before, "SELECT 1", NULL);
    send_list(client, &parts, &list);
    send_sql(client, &behind, "SELECT length((SELECT " PART_SETTINGS "))", NULL);
    expect_success(&parts);
    assert_int_equal(parts.count, PARTS + 1);
    assert_true(most_memory_kb() - memory_kb < GROWTH_KB);
    expect_success(&before);
    assert_int_equal(number_of(&behind), 0); /* they are gone with their transaction */
    clear(&parts);
    clear(&before);
    free(part);
}

static void parts_of_a_batch_that_fails(void **state)
{
    struct client *client = *state;
    struct end parts, behind;
    struct qfc_statements list = {0};
    struct qfc_error error;
    size_t size;
    char *part = make_part(&size);

    assert_int_equal(qfc_statements_add(&list, "INSERT INTO qfc_test VALUES (1)", 0, NULL, &error), 0);
    assert_int_equal(qfc_statements_add(&list, "SELECT 1 / 0", 0, NULL, &error), 0);
    add_parts(&list, part, size);
    send_list(client, &parts, &list);
    send_sql(client, &behind, "SELECT count(*) FROM qfc_test", NULL);
    assert_int_equal(number_of(&behind), 0);
    assert_false(parts.succeeded);
    assert_string_equal(parts.error.sqlstate, "22012");
    free(part);
}

static void parts_of_a_batch_that_is_cancelled(void **state)
{
    struct client *client = *state;
    PGconn *conn = other_connection();
    struct end parts, behind;
    struct qfc_statements list = {0};
    struct qfc_error error;
    size_t size;
    char *part = make_part(&size);

    other_run(conn, "BEGIN; LOCK TABLE qfc_child");
    assert_int_equal(qfc_statements_add(&list, "INSERT INTO qfc_test VALUES (1)", 0, NULL, &error), 0);
    assert_int_equal(qfc_statements_add(&list, "SELECT count(*) FROM qfc_child", 0, NULL, &error), 0);
    add_parts(&list, part, size);
    send_list(client, &parts, &list);
    wait_until(client, conn, OURS_WAITS);
    qfc_pg_cancel(parts.batch);
    memset(part, 0xFF, size); /* the text is ours again */
    free(part);
    other_run(conn, "COMMIT");
    send_sql(client, &behind, "SELECT count(*) FROM qfc_test", NULL);
    assert_int_equal(number_of(&behind), 0);
    assert_int_equal(parts.done, 0);
    assert_int_equal(client->downs, 1);
    PQfinish(conn);
}

static void a_thousand_batches(void **state)
{
    struct client *client = *state;
    struct end *ends = calloc(1000, sizeof(*ends));
    struct qfc_error error;

    assert_non_null(ends);
    for (int i = 0; i < 1000; i++) {
        struct qfc_statements list = {0};
        char number[16];
        snprintf(number, sizeof(number), "%d", i);
        assert_int_equal(QFC_ADD(&list, &error, "INSERT INTO qfc_test VALUES ($1::int) RETURNING id", number), 0);
        send_list(client, &ends[i], &list);
    }
    for (int i = 0; i < 1000; i++) {
        expect_success(&ends[i]);
        assert_int_equal(ends[i].place, i + 1);
        assert_int_equal(number_of(&ends[i]), i);
    }
    assert_int_equal(ask_number(client, "SELECT count(*) FROM qfc_test"), 1000);
    free(ends);
}

static void on_alarm(uv_timer_t *timer)
{
    uv_stop(timer->loop);
}

static void on_turn(uv_check_t *check)
{
    ++*(int *)check->data;
}

static void no_busy_loop(void **state)
{
    struct client *client = *state;
    PGconn *conn = other_connection();
    struct end end;
    uv_timer_t timer;
    uv_check_t check;
    int turns;

    uv_timer_init(&client->loop, &timer);
    uv_check_init(&client->loop, &check);
    check.data = &turns;
    uv_check_start(&check, on_turn);
    other_run(conn, "BEGIN; LOCK TABLE qfc_test");
    for (int i = 0; i < 2; i++) {
        turns = 0;
        uv_timer_start(&timer, on_alarm, 300, 0);
        uv_run(&client->loop, UV_RUN_DEFAULT);
        assert_in_range(turns, 1, 20); /* idle first, then with a batch that waits */
        if (i == 0)
            send_sql(client, &end, "SELECT count(*) FROM qfc_test", NULL);
    }
    PQfinish(conn);
    assert_int_equal(number_of(&end), 0);
    uv_close((uv_handle_t *)&timer, NULL);
    uv_close((uv_handle_t *)&check, NULL);
    uv_run(&client->loop, UV_RUN_NOWAIT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        LIVE(a_text_in_parts), /* before any that takes more memory */
        LIVE(results_of_several_statements),
        LIVE(a_batch_is_rolled_back_as_a_whole),
        LIVE(a_failing_batch_between_two_good_ones_in_flight),
        LIVE(a_deferred_constraint_fails_the_batch),
        LIVE(success_means_committed),
        LIVE(local_settings_end_with_the_batch),
        LIVE(a_lock_timeout_is_worth_another_try),
        LIVE(a_serialization_failure_is_worth_another_try),
        LIVE(a_terminated_backend),
        LIVE(a_backend_terminated_while_idle),
        LIVE(a_restarted_server),
        LIVE(a_large_parameter_does_not_block),
        LIVE(large_parameters_there_and_back),
        LIVE(a_large_result),
        LIVE(notifications),
        LIVE(notices),
        cmocka_unit_test(setup_refuses),
        cmocka_unit_test(a_database_that_is_not_there),
        LIVE(cancelled),
        LIVE(parts_of_a_batch_that_fails),
        LIVE(parts_of_a_batch_that_is_cancelled),
        LIVE(a_thousand_batches),
        LIVE(no_busy_loop),
    };

    if (begin_tests() < 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
