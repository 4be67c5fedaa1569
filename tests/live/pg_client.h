/*
 * A client of qfc/pg.h for tests against a real server: QFC_TEST_DATABASE_URL names a throwaway one, and
 * `$QFC_TEST_PG_CTL restart -m immediate` (stop, start) works on it.
 */
#pragma once

#include "qfc/pg.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define APPLICATION "qfc live test"

struct client {
    uv_loop_t loop;
    struct qfc_pg *pg;
    struct qfc_pg_options options;
    int ready;
    int downs;
    struct qfc_error why;
    int refuse;
    int notifies;
    char channel[64];
    char payload[64];
    int notices;
    char notice[128];
    int ended; /* batches, of all */
    int ticks;
};

/* A batch and how it ended. */
struct end {
    struct client *client;
    int done;
    int place; /* the how-many-eth batch of the client that ended */
    struct qfc_error error;
    bool succeeded;
    size_t count;
    PGresult *results[8]; /* taken over */
    struct qfc_pg_batch *batch;
};

static const char *database_url;
static const char *pg_ctl; /* the command */

/* --- A second, plain connection ----------------------------------------------------------------------------------- */

static PGconn *other_connection(void)
{
    PGconn *conn = PQconnectdb(database_url);

    if (PQstatus(conn) != CONNECTION_OK)
        fail_msg("second connection: %s", PQerrorMessage(conn));
    return conn;
}

static void other_run(PGconn *conn, const char *sql)
{
    PGresult *result = PQexec(conn, sql);
    ExecStatusType status = PQresultStatus(result);

    PQclear(result);
    if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK)
        fail_msg("%s: %s", sql, PQerrorMessage(conn));
}

static int other_number(PGconn *conn, const char *sql)
{
    PGresult *result = PQexec(conn, sql);
    int number = PQntuples(result) == 1 ? atoi(PQgetvalue(result, 0, 0)) : -1;

    PQclear(result);
    return number;
}

/* --- The client --------------------------------------------------------------------------------------------------- */

static void on_state(void *userdata, enum qfc_pg_state state, const struct qfc_error *why, unsigned retry_ms)
{
    struct client *client = userdata;

    if (state == QFC_PG_READY)
        client->ready++;
    else {
        client->downs++;
        client->why = *why;
    }
}

static int on_setup(void *userdata, const struct qfc_pg_results *results, struct qfc_error *error)
{
    struct client *client = userdata;

    assert_int_equal(results->count, 3);
    assert_string_equal(qfc_pg_text(results->items[2], 0, "standby"), "f");
    if (client->refuse == 0)
        return 0;
    client->refuse--;
    return qfc_fail(error, QFC_ERROR_REFUSED, 0, "the server is a standby");
}

static void on_notice(void *userdata, const char *severity, const char *message)
{
    struct client *client = userdata;

    client->notices++;
    snprintf(client->notice, sizeof(client->notice), "%s %s", severity, message);
}

static void on_notify(void *userdata, const char *channel, const char *payload)
{
    struct client *client = userdata;

    client->notifies++;
    snprintf(client->channel, sizeof(client->channel), "%s", channel);
    snprintf(client->payload, sizeof(client->payload), "%s", payload);
}

static void start_client(struct client *client, const char *conninfo)
{
    struct qfc_statements setup = {0};
    struct qfc_error error = QFC_NO_ERROR;

    assert_int_equal(uv_loop_init(&client->loop), 0);
    assert_int_equal(qfc_statements_add(&setup, "LISTEN qfc_test", 0, NULL, &error), 0);
    assert_int_equal(qfc_statements_add(&setup, "SET lock_timeout = '10s'", 0, NULL, &error), 0);
    assert_int_equal(qfc_statements_add(&setup, "SELECT pg_is_in_recovery() AS standby", 0, NULL, &error), 0);
    client->options.conninfo = conninfo;
    client->options.application_name = APPLICATION;
    client->options.connect_ms = 20000;
    client->options.retry_min_ms = 20;
    client->options.retry_max_ms = 200;
    client->options.setup = &setup;
    client->options.on_setup = on_setup;
    client->options.on_state = on_state;
    client->options.on_notice = on_notice;
    client->options.on_notify = on_notify;
    client->options.userdata = client;
    client->pg = qfc_pg_new(&client->loop, &client->options, &error);
    if (!client->pg)
        fail_msg("%s", error.message);
    qfc_statements_free(&setup);
}

static void wait_for(struct client *client, const int *counter, int value)
{
    while (*counter < value)
        assert_true(uv_run(&client->loop, UV_RUN_ONCE) || *counter >= value);
}

static int open_client(void **state)
{
    struct client *client = calloc(1, sizeof(*client));
    PGconn *conn = other_connection();

    other_run(conn, "DROP TABLE IF EXISTS qfc_child, qfc_test CASCADE");
    other_run(conn, "CREATE TABLE qfc_test (id int PRIMARY KEY, text text)");
    other_run(conn, "CREATE TABLE qfc_child (id int REFERENCES qfc_test DEFERRABLE INITIALLY DEFERRED)");
    PQfinish(conn);
    start_client(client, database_url);
    wait_for(client, &client->ready, 1);
    *state = client;
    return 0;
}

static int close_client(void **state)
{
    struct client *client = *state;

    qfc_pg_free(client->pg);
    uv_run(&client->loop, UV_RUN_DEFAULT);
    int closed = uv_loop_close(&client->loop);
    free(client);
    return closed;
}

static void on_done(void *userdata, const struct qfc_error *error, const struct qfc_pg_results *results)
{
    struct end *end = userdata;

    end->done++;
    end->place = ++end->client->ended;
    end->succeeded = !error;
    end->error = error ? *error : QFC_NO_ERROR;
    for (size_t i = 0; results && i < results->count && i < 8; i++) {
        end->results[i] = results->items[i];
        results->items[i] = NULL;
    }
    end->count = results ? results->count : 0;
}

static void send_list(struct client *client, struct end *end, struct qfc_statements *list)
{
    struct qfc_error error;

    *end = (struct end){.client = client};
    assert_int_equal(qfc_pg_send(client->pg, list, on_done, end, &end->batch, &error), 0);
}

/* Sends statements without values, the last of them followed by null. */
static void send_sql(struct client *client, struct end *end, ...)
{
    struct qfc_statements list = {0};
    struct qfc_error error;
    const char *sql;
    va_list arguments;

    va_start(arguments, end);
    while ((sql = va_arg(arguments, const char *)))
        assert_int_equal(qfc_statements_add(&list, sql, 0, NULL, &error), 0);
    va_end(arguments);
    send_list(client, end, &list);
}

static void wait_end(struct end *end)
{
    wait_for(end->client, &end->done, 1);
}

static void expect_success(struct end *end)
{
    wait_end(end);
    if (!end->succeeded)
        fail_msg("the batch failed: %s", end->error.message);
}

static void expect_error(struct end *end, enum qfc_error_kind kind, const char *sqlstate)
{
    wait_end(end);
    assert_false(end->succeeded);
    assert_string_equal(end->error.sqlstate, sqlstate);
    assert_int_equal(end->error.kind, kind);
}

static void clear(struct end *end)
{
    for (size_t i = 0; i < 8; i++)
        PQclear(end->results[i]);
    *end = (struct end){0};
}

/* The number in the first column of the last result; the batch is cleared. */
static int number_of(struct end *end)
{
    expect_success(end);
    int number = atoi(PQgetvalue(end->results[end->count - 1], 0, 0));
    clear(end);
    return number;
}

static int ask_number(struct client *client, const char *sql)
{
    struct end end;

    send_sql(client, &end, sql, NULL);
    return number_of(&end);
}

/* Waits until another session sees it. */
static void wait_until(struct client *client, PGconn *conn, const char *sql)
{
    while (other_number(conn, sql) != 1)
        uv_run(&client->loop, UV_RUN_NOWAIT);
}

#define OURS_WAITS                                                                                                     \
    "SELECT count(*) FROM pg_stat_activity WHERE application_name = '" APPLICATION "' AND wait_event_type = 'Lock'"
#define OURS_SLEEPS                                                                                                    \
    "SELECT count(*) FROM pg_stat_activity WHERE application_name = '" APPLICATION "' AND wait_event = 'PgSleep'"
#define KILL_OURS                                                                                                      \
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = '" APPLICATION "'"

/* What a test program begins with. Returns 0, or -1 where the server is not named. */
static int begin_tests(void)
{
    database_url = getenv("QFC_TEST_DATABASE_URL");
    pg_ctl = getenv("QFC_TEST_PG_CTL");
    if (!database_url || !pg_ctl) {
        fputs("QFC_TEST_DATABASE_URL and QFC_TEST_PG_CTL must name a throwaway PostgreSQL server\n", stderr);
        return -1;
    }
    alarm(600); /* a test that waits for ever is to fail */
    return 0;
}

#define LIVE(name) cmocka_unit_test_setup_teardown(name, open_client, close_client)
