/*
 * Prepared statements against a real server: which texts are, and that a batch ends as it would without.
 */
#include "pg_client.h"

/* A text that is looked for begins like this. */
#define T "/*T*/ "
/* Each use makes a plan or takes one. */
#define HOW_OFTEN                                                                                                      \
    "SELECT coalesce(sum(generic_plans + custom_plans), 0) FROM pg_prepared_statements WHERE statement LIKE '/*T*/%'"
#define HOW_MANY  "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '/*T*/%'"
#define HOW_LARGE "SELECT sum(length(statement)) FROM pg_prepared_statements"
#define INSERT    T "INSERT INTO qfc_test VALUES ($1, $2)"

static void send_values(struct client *client, struct end *end, const char *sql, const char *one, const char *two)
{
    struct qfc_statements list = {0};
    struct qfc_error error;

    assert_int_equal(QFC_ADD(&list, &error, sql, one, two), 0);
    send_list(client, end, &list);
}

static void insert(struct client *client, const char *id)
{
    struct end end;

    send_values(client, &end, INSERT, id, "a text");
    expect_success(&end);
    clear(&end);
}

static void run(struct client *client, const char *sql)
{
    struct end end;

    send_sql(client, &end, sql, NULL);
    expect_success(&end);
    clear(&end);
}

static void the_second_use_is_prepared(void **state)
{
    struct client *client = *state;
    static const char *const ids[] = {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"};

    for (int use = 0; use < 10; use++) {
        insert(client, ids[use]);
        assert_int_equal(ask_number(client, HOW_MANY), use > 0);
        assert_int_equal(ask_number(client, HOW_OFTEN), use);
    }
    assert_int_equal(ask_number(client, "SELECT sum(id) FROM qfc_test"), 45);
}

static void a_text_several_times_in_one_batch(void **state)
{
    struct client *client = *state;
    struct end end;

    for (int batch = 0; batch < 3; batch++) {
        send_sql(client, &end, T "SELECT 1", T "SELECT 1", "SELECT 2", T "SELECT 1", "SELECT 2", NULL);
        expect_success(&end);
        assert_int_equal(end.count, 5);
        for (int i = 0; i < 5; i++)
            assert_string_equal(PQgetvalue(end.results[i], 0, 0), i == 2 || i == 4 ? "2" : "1");
        clear(&end);
        assert_int_equal(ask_number(client, HOW_MANY), 1);
        assert_int_equal(ask_number(client, HOW_OFTEN), 2 + 3 * batch);
    }
}

static void the_setup_is_not_prepared(void **state)
{
    struct client *client = *state;

    qfc_pg_reconnect(client->pg, &client->why);
    wait_for(client, &client->ready, 2);
    run(client, "SELECT pg_is_in_recovery() AS standby");
    assert_int_equal(ask_number(client, "SELECT count(*) FROM pg_prepared_statements"), 0);
}

static void expect_message(struct end *end, const char *message)
{
    expect_error(end, QFC_ERROR_REFUSED, "22012");
    assert_string_equal(end->error.message, message);
}

static void an_error_before_it(void **state)
{
    struct client *client = *state;
    struct end end;

    run(client, T "SELECT 5");
    for (int i = 0; i < 3; i++) {
        char sql[64];
        snprintf(sql, sizeof(sql), "SELECT %d/0", i); /* not a prepared one */
        send_sql(client, &end, "SELECT 7", sql, T "SELECT 5", NULL);
        expect_message(&end, "statement 2 of 3: division by zero (22012)");
        assert_int_equal(ask_number(client, HOW_MANY), 0); /* the Parse was skipped */
    }
    for (int i = 0; i < 3; i++) {
        assert_int_equal(ask_number(client, T "SELECT 5"), 5);
        assert_int_equal(ask_number(client, HOW_OFTEN), i + 1);
    }
}

static void an_error_behind_it(void **state)
{
    struct client *client = *state;
    struct end end;

    run(client, T "SELECT 5");
    for (int i = 0; i < 3; i++) {
        char sql[64];
        snprintf(sql, sizeof(sql), "SELECT %d/0", i); /* not a prepared one */
        send_sql(client, &end, T "SELECT 5", sql, T "SELECT 5", NULL);
        expect_message(&end, "statement 2 of 3: division by zero (22012)");
        assert_int_equal(ask_number(client, HOW_MANY), 1); /* outlives the batch */
    }
    assert_int_equal(ask_number(client, T "SELECT 5"), 5);
    assert_int_equal(ask_number(client, HOW_OFTEN), 4);
}

static void a_parse_that_fails(void **state)
{
    struct client *client = *state;
    struct end end;

    for (int i = 0; i < 4; i++) {
        send_sql(client, &end, "SELECT 7", T "SELECT n FROM qfc_late", "SELECT 8", NULL);
        expect_error(&end, QFC_ERROR_AGAIN, "42P01");
        assert_string_equal(end.error.message, "statement 2 of 3: relation \"qfc_late\" does not exist (42P01)");
        assert_int_equal(ask_number(client, HOW_MANY), 0);
    }
    for (int i = 0; i < 3; i++) {
        /* What a batch makes itself is there for the statements behind it. */
        send_sql(client, &end, "CREATE TEMP TABLE qfc_late AS SELECT 9 AS n", T "SELECT n FROM qfc_late",
                 "DROP TABLE qfc_late", T "SELECT 10", NULL);
        assert_int_equal(number_of(&end), 10);
    }
    assert_int_equal(ask_number(client, HOW_MANY), 2);
}

/* The types of columns change while statements are prepared that give them or take them. */
static void another_type(void **state, const char *sql, const char *alter, const char *sqlstate,
                         enum qfc_error_kind kind)
{
    struct client *client = *state;
    struct end end;

    for (int i = 0; i < 3; i++) {
        send_values(client, &end, sql, "3", "4");
        expect_success(&end);
        clear(&end);
    }
    run(client, "SELECT 1 AS innocent");
    run(client, "SELECT 1 AS innocent");
    run(client, alter);
    send_values(client, &end, sql, "5000000000", "6");
    expect_error(&end, kind, sqlstate);
    /* One is dropped with the other. */
    assert_int_equal(ask_number(client, "SELECT count(*) FROM pg_prepared_statements"), 0);
    for (int i = 0; i < 3; i++) {
        send_values(client, &end, sql, "5000000000", "6");
        expect_success(&end);
        clear(&end);
    }
    assert_int_equal(ask_number(client, HOW_OFTEN), 2);
    assert_int_equal(client->downs, 0);
}

static void a_result_of_another_type(void **state)
{
    another_type(state, T "SELECT *, $1::bigint, $2::text FROM qfc_test", "ALTER TABLE qfc_test ADD more int", "0A000",
                 QFC_ERROR_AGAIN);
}

static void a_parameter_that_cannot_be_assigned(void **state)
{
    another_type(state, T "UPDATE qfc_test SET id = id + $1::bigint, text = $2",
                 "ALTER TABLE qfc_test ALTER text TYPE bigint USING text::bigint", "42804", QFC_ERROR_AGAIN);
}

static void a_parameter_without_operator(void **state)
{
    another_type(state, T "SELECT FROM qfc_test WHERE id = $1::bigint OR text = $2",
                 "ALTER TABLE qfc_test ALTER text TYPE bigint USING text::bigint", "42883", QFC_ERROR_AGAIN);
}

static void a_value_that_does_not_fit_the_type_of_before(void **state)
{
    another_type(state, T "UPDATE qfc_test SET id = $1, text = $2", "ALTER TABLE qfc_test ALTER id TYPE bigint",
                 "22003", QFC_ERROR_REFUSED);
}

/* What fails by its own fault says so each time. */
static void an_error_that_is_not_the_names(void **state)
{
    struct client *client = *state;
    struct end end;

    for (int i = 0; i < 7; i++) {
        send_values(client, &end, T "SELECT $1::int / $2::int", "1", "0");
        expect_message(&end, "statement 1 of 1: division by zero (22012)");
        send_sql(client, &end, "DO $$BEGIN RAISE feature_not_supported; END$$", NULL);
        expect_error(&end, QFC_ERROR_REFUSED, "0A000");
    }
}

static void deallocated_behind_our_back(void **state)
{
    struct client *client = *state;
    struct end first, second;

    for (int i = 0; i < 3; i++)
        run(client, T "SELECT 5");
    run(client, "DEALLOCATE ALL");
    send_sql(client, &first, "SELECT 4", T "SELECT 5", NULL);
    send_sql(client, &second, T "SELECT 5", NULL); /* in flight with it */
    expect_error(&first, QFC_ERROR_AGAIN, "26000");
    expect_error(&second, QFC_ERROR_AGAIN, "26000");
    for (int i = 0; i < 4; i++)
        assert_int_equal(ask_number(client, T "SELECT 5"), 5);
    assert_int_equal(ask_number(client, HOW_MANY), 0); /* a session like that has none any more */
    assert_int_equal(client->downs, 0);
    qfc_pg_reconnect(client->pg, &first.error);
    wait_for(client, &client->ready, 2);
    for (int i = 0; i < 3; i++)
        assert_int_equal(ask_number(client, T "SELECT 5"), 5);
    assert_int_equal(ask_number(client, HOW_OFTEN), 2);
}

static void a_new_connection_begins_anew(void **state)
{
    struct client *client = *state;
    PGconn *conn = other_connection();

    for (int connection = 1; connection < 4; connection++) {
        for (int use = 0; use < 3; use++) {
            assert_int_equal(ask_number(client, T "SELECT 5"), 5);
            assert_int_equal(ask_number(client, HOW_OFTEN), use);
        }
        assert_int_equal(other_number(conn, KILL_OURS), 1);
        wait_for(client, &client->ready, connection + 1);
    }
    PQfinish(conn);
}

/* None of them may count on the Parse of another: it may still be skipped. */
static void batches_in_flight_share_a_new_text(void **state)
{
    struct client *client = *state;
    PGconn *conn = other_connection();
    struct end waiting, ends[6];

    run(client, T "SELECT 5");
    other_run(conn, "BEGIN; LOCK TABLE qfc_test");
    send_sql(client, &waiting, "SELECT count(*) FROM qfc_test", NULL);
    wait_until(client, conn, OURS_WAITS);
    send_sql(client, &ends[0], "SELECT 1/0", T "SELECT 5", NULL);
    for (int i = 1; i < 6; i++)
        send_sql(client, &ends[i], T "SELECT 5", T "SELECT 6", T "SELECT 6", NULL);
    for (int i = 0; i < 100; i++)
        uv_run(&client->loop, UV_RUN_NOWAIT); /* all are sent */
    other_run(conn, "COMMIT");
    PQfinish(conn);
    expect_message(&ends[0], "statement 1 of 2: division by zero (22012)");
    for (int i = 1; i < 6; i++)
        assert_int_equal(number_of(&ends[i]), 6);
    assert_int_equal(number_of(&waiting), 0);
    assert_int_equal(ask_number(client, HOW_MANY), 1);
    assert_int_equal(ask_number(client, T "SELECT 5"), 5);
    assert_int_equal(ask_number(client, T "SELECT 5"), 5);
    assert_int_equal(ask_number(client, HOW_MANY), 2);
}

static void more_texts_than_there_is_room_for(void **state)
{
    struct client *client = *state;
    char sql[64];

    for (int use = 0; use < 3; use++)
        for (int i = 0; i < 300; i++) {
            snprintf(sql, sizeof(sql), T "SELECT %d", i);
            assert_int_equal(ask_number(client, sql), i);
        }
    assert_int_equal(ask_number(client, HOW_MANY), 256);
    assert_int_equal(ask_number(client, HOW_OFTEN), 2 * 256);
}

static void longer_texts_than_there_is_room_for(void **state)
{
    struct client *client = *state;
    const size_t size = 50000;
    char *sql = malloc(size);

    assert_non_null(sql);
    for (int use = 0; use < 3; use++)
        for (int i = 10; i < 20; i++) {
            snprintf(sql, size, T "SELECT %d %*s", i, (int)size - 30, "-- spaces");
            assert_int_equal(ask_number(client, sql), i);
        }
    free(sql);
    assert_int_equal(ask_number(client, HOW_MANY), 5);
    assert_in_range(ask_number(client, HOW_LARGE), 5 * 49000, 256 * 1024);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        LIVE(the_second_use_is_prepared),
        LIVE(a_text_several_times_in_one_batch),
        LIVE(the_setup_is_not_prepared),
        LIVE(an_error_before_it),
        LIVE(an_error_behind_it),
        LIVE(a_parse_that_fails),
        LIVE(a_result_of_another_type),
        LIVE(a_parameter_that_cannot_be_assigned),
        LIVE(a_parameter_without_operator),
        LIVE(a_value_that_does_not_fit_the_type_of_before),
        LIVE(an_error_that_is_not_the_names),
        LIVE(deallocated_behind_our_back),
        LIVE(a_new_connection_begins_anew),
        LIVE(batches_in_flight_share_a_new_text),
        LIVE(more_texts_than_there_is_room_for),
        LIVE(longer_texts_than_there_is_room_for),
    };

    if (begin_tests() < 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
