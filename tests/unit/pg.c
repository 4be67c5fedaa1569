/*
 * The PostgreSQL connection against what needs no server: connection strings, refusals, and a false server on a
 * thread that is silent, talks rubbish, or closes at each stage.
 */
#include "qfc/pg.h"

#include "false_pg.h"

/* --- The client --------------------------------------------------------------------------------------------------- */

enum free_in { NOWHERE, ON_STATE, ON_SETUP, ON_DONE };

struct client {
    uv_loop_t loop;
    struct qfc_pg *pg;
    struct qfc_pg_options options;
    char conninfo[512];
    enum free_in free_in;
    int skip; /* how many of these callbacks come before the one that frees */
    int ready;
    int downs;
    unsigned delays[16];
    struct qfc_error why; /* of the last DOWN */
    int setups;
    int refuse; /* how many setups to refuse */
    int done;
    bool succeeded;
    size_t results;
    struct qfc_error error;      /* of the last batch */
    struct qfc_pg_batch *victim; /* to be cancelled on DOWN */
};

static void free_if(struct client *client, enum free_in here)
{
    if (client->free_in != here || client->skip-- > 0)
        return;
    qfc_pg_free(client->pg);
    client->pg = NULL;
}

static void on_state(void *userdata, enum qfc_pg_state state, const struct qfc_error *why, unsigned retry_ms)
{
    struct client *client = userdata;

    assert_int_equal(state, qfc_pg_state(client->pg));
    if (state == QFC_PG_READY) {
        assert_null(why);
        client->ready++;
    } else {
        assert_non_null(why);
        client->why = *why;
        client->delays[client->downs++ % 16] = retry_ms;
        assert_null(strstr(why->message, PASSWORD));
        assert_null(strchr(why->message, '\n'));
        if (client->victim)
            qfc_pg_cancel(client->victim);
        client->victim = NULL;
    }
    free_if(client, ON_STATE);
}

static int on_setup(void *userdata, const struct qfc_pg_results *results, struct qfc_error *error)
{
    struct client *client = userdata;

    client->setups++;
    assert_int_equal(results->count, client->options.setup ? client->options.setup->count : 0);
    free_if(client, ON_SETUP);
    if (client->refuse == 0)
        return 0;
    client->refuse--;
    return qfc_fail(error, QFC_ERROR_REFUSED, 0, "this is not the server I want");
}

static void on_done(void *userdata, const struct qfc_error *error, const struct qfc_pg_results *results)
{
    struct client *client = userdata;

    client->done++;
    client->succeeded = !error;
    client->error = error ? *error : QFC_NO_ERROR;
    client->results = results ? results->count : 0;
    assert_true(!error == !!results);
    free_if(client, ON_DONE);
}

static void open_client(struct client *client, const char *format, ...)
{
    va_list arguments;

    assert_int_equal(uv_loop_init(&client->loop), 0);
    va_start(arguments, format);
    vsnprintf(client->conninfo, sizeof(client->conninfo), format, arguments);
    va_end(arguments);
    client->options.conninfo = client->conninfo;
    client->options.application_name = "unit test";
    if (!client->options.connect_ms)
        client->options.connect_ms = 20000;
    if (!client->options.retry_min_ms)
        client->options.retry_min_ms = 8;
    if (!client->options.retry_max_ms)
        client->options.retry_max_ms = 32;
    client->options.on_setup = on_setup;
    client->options.on_state = on_state;
    client->options.userdata = client;
    struct qfc_error error = QFC_NO_ERROR;
    client->pg = qfc_pg_new(&client->loop, &client->options, &error);
    if (!client->pg)
        fail_msg("qfc_pg_new: %s", error.message);
}

static void open_to(struct client *client, const struct server *server)
{
    open_client(client,
                "host=127.0.0.1 port=%d user=me dbname=mine password=" PASSWORD " sslmode=disable gssencmode=disable",
                server->port);
}

static void close_client(struct client *client)
{
    qfc_pg_free(client->pg);
    uv_run(&client->loop, UV_RUN_DEFAULT); /* ends only when nothing of it is left on the loop */
    assert_int_equal(uv_loop_close(&client->loop), 0);
}

static void wait_for(struct client *client, const int *counter, int value)
{
    while (*counter < value)
        assert_true(uv_run(&client->loop, UV_RUN_ONCE) || *counter >= value);
}

static struct qfc_pg_batch *send_texts(struct client *client, const char *sql, const char *secret)
{
    struct qfc_statements list = {0};
    struct qfc_value value = {secret, QFC_VALUE_SECRET};
    struct qfc_pg_batch *batch = NULL;
    struct qfc_error error;

    assert_int_equal(qfc_statements_add(&list, sql, secret ? 1 : 0, &value, &error), 0);
    assert_int_equal(qfc_pg_send(client->pg, &list, on_done, client, &batch, &error), 0);
    assert_int_equal(list.count, 0);
    return batch;
}

/* --- Tests -------------------------------------------------------------------------------------------------------- */

static void conninfo_that_cannot_be_parsed(void **state)
{
    static const char *const bad[] = {
        "host=x password=one two" PASSWORD,
        "postgresql://me:%zz" PASSWORD "@host/db",
        "postgresql://me:" PASSWORD "@[::1/db",
        "postgresql://me:a@" PASSWORD "@host/db", /* "@" not encoded: would be taken for the host */
        "postgresql://me:" PASSWORD "/x@host/db", /* "/" not encoded: for the port */
        "postgresql://me:1/" PASSWORD "@host/db", /* for the database */
        "password='" PASSWORD,
        "host=x nonsense" PASSWORD "=1",
    };
    uv_loop_t loop;

    assert_int_equal(uv_loop_init(&loop), 0);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct qfc_error error = QFC_NO_ERROR;
        struct qfc_pg_options options = {.conninfo = bad[i], .application_name = "x"};
        assert_null(qfc_pg_new(&loop, &options, &error));
        assert_int_equal(error.kind, QFC_ERROR_USAGE);
        assert_null(strstr(error.message, PASSWORD));
        assert_non_null(strstr(error.message, "connection string"));
    }
    assert_int_equal(uv_loop_close(&loop), 0);
}

static void refused_and_tried_again_with_backoff(void **state)
{
    struct client client = {0};
    int port;

    close(listen_somewhere(&port));
    open_client(&client, "postgresql://me:" PASSWORD "@127.0.0.1:%d/mine", port);
    assert_int_equal(qfc_pg_state(client.pg), QFC_PG_DOWN);
    wait_for(&client, &client.downs, 5);
    assert_int_equal(client.why.kind, QFC_ERROR_UNREACHABLE);
    assert_non_null(strstr(client.why.message, "connect to PostgreSQL at 127.0.0.1:"));
    assert_non_null(strstr(client.why.message, "database mine as me: "));
    assert_non_null(strstr(client.why.message, "refused"));
    static const unsigned upper[] = {8, 16, 32, 32, 32};
    for (int i = 0; i < 5; i++)
        assert_in_range(client.delays[i], upper[i] - upper[i] / 4, upper[i]);
    close_client(&client);
}

static void unknown_host(void **state)
{
    struct client client = {.options.connect_ms = 60000};

    open_client(&client, "host=no-such-host.invalid user=me dbname=mine password=" PASSWORD);
    wait_for(&client, &client.downs, 1);
    assert_int_equal(client.why.kind, QFC_ERROR_UNREACHABLE);
    assert_non_null(strstr(client.why.message, "look up \"no-such-host.invalid\": "));
    close_client(&client);
}

static void names_are_looked_up(void **state)
{
    struct server server;
    struct client client = {0};
    int port;

    close(listen_somewhere(&port));
    start_server(&server, GOOD, 0);
    open_client(&client,
                "host=localhost,no-such-host.invalid,127.0.0.1,localhost port=%d,%d,%d,%d user=me dbname=mine "
                "password=" PASSWORD " sslmode=disable gssencmode=disable",
                port, port, port, server.port);
    wait_for(&client, &client.ready, 1);
    assert_int_equal(client.downs, 0);
    close_client(&client);
    stop_server(&server);
}

static void silence_ends_at_the_deadline(void **state)
{
    struct server server;
    struct client client = {.options.connect_ms = 50};

    start_server(&server, SILENT, 0);
    open_to(&client, &server);
    wait_for(&client, &client.downs, 3);
    assert_int_equal(client.why.kind, QFC_ERROR_UNREACHABLE);
    assert_non_null(strstr(client.why.message, "not done within 50 ms (connecting)"));
    close_client(&client);
    stop_server(&server);
}

static void silence_in_setup_ends_at_the_deadline(void **state)
{
    struct server server;
    struct qfc_statements setup = {0};
    struct client client = {.options = {.connect_ms = 100, .setup = &setup}};
    struct qfc_error error;

    assert_int_equal(qfc_statements_add(&setup, "LISTEN x", 0, NULL, &error), 0);
    start_server(&server, SILENT_ANSWER, 0);
    open_to(&client, &server);
    while (!strstr(client.why.message, "not done within 100 ms (the first statements)"))
        uv_run(&client.loop, UV_RUN_ONCE); /* on a busy machine it may be later than an earlier stage */
    assert_int_equal(client.ready, 0);
    close_client(&client);
    stop_server(&server);
    qfc_statements_free(&setup);
}

static void closing_and_rubbish_at_each_stage(void **state)
{
    static const enum act acts[] = {
        CLOSE_AT_ONCE,    CLOSE_AFTER_STARTUP, RUBBISH,         CLOSE_AFTER_PASSWORD, CLOSE_AFTER_AUTHENTICATION,
        CLOSE_WHEN_READY, RUBBISH_WHEN_READY,  CLOSE_IN_ANSWER, FATAL_ANSWER,         RUBBISH_ANSWER,
        COPY_ANSWER,
    };
    struct qfc_statements setup = {0};
    struct qfc_error error;

    assert_int_equal(qfc_statements_add(&setup, "LISTEN x", 0, NULL, &error), 0);
    for (size_t i = 0; i < sizeof(acts) / sizeof(acts[0]); i++) {
        struct server server;
        struct client client = {.options.setup = &setup};
        start_server(&server, acts[i], 0);
        open_to(&client, &server);
        wait_for(&client, &client.downs, 3);
        assert_int_equal(client.ready, 0);
        assert_int_equal(client.setups, 0);
        assert_true(client.why.kind == QFC_ERROR_UNREACHABLE || acts[i] == COPY_ANSWER);
        assert_non_null(strstr(client.why.message, "PostgreSQL at 127.0.0.1:"));
        close_client(&client);
        stop_server(&server);
    }
    qfc_statements_free(&setup);
}

static void the_servers_refusals_have_their_sqlstate(void **state)
{
    static const struct {
        enum act act;
        const char *sqlstate;
        enum qfc_error_kind kind;
        const char *text;
    } cases[] = {
        {WRONG_PASSWORD, "28P01", QFC_ERROR_REFUSED, "password authentication failed for user \"me\""},
        {STARTING_UP, "57P03", QFC_ERROR_AGAIN, "the database system is starting up"},
        {TOO_MANY, "53300", QFC_ERROR_AGAIN, "too many clients"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct server server;
        struct client client = {0};
        start_server(&server, cases[i].act, 0);
        open_to(&client, &server);
        wait_for(&client, &client.downs, 1);
        assert_string_equal(client.why.sqlstate, cases[i].sqlstate);
        assert_int_equal(client.why.kind, cases[i].kind);
        assert_non_null(strstr(client.why.message, cases[i].text));
        assert_null(strstr(client.why.message, "auth.c")); /* the place in the server's source is left out */
        close_client(&client);
        stop_server(&server);
    }
}

static void setup_can_refuse_the_server(void **state)
{
    struct server server;
    struct qfc_statements setup = {0};
    struct client client = {.options.setup = &setup, .refuse = 2};
    struct qfc_error error;

    assert_int_equal(qfc_statements_add(&setup, "SELECT 1", 0, NULL, &error), 0);
    assert_int_equal(qfc_statements_add(&setup, "SELECT 2", 0, NULL, &error), 0);
    start_server(&server, GOOD, 0);
    open_to(&client, &server);
    send_texts(&client, "SELECT 3", NULL);
    wait_for(&client, &client.downs, 2);
    assert_int_equal(client.ready, 0);
    assert_int_equal(client.done, 0);
    assert_int_equal(client.why.kind, QFC_ERROR_REFUSED);
    assert_non_null(strstr(client.why.message, "set up PostgreSQL at "));
    assert_non_null(strstr(client.why.message, "this is not the server I want"));
    wait_for(&client, &client.done, 1);
    assert_int_equal(client.ready, 1);
    assert_int_equal(client.setups, 3);
    assert_true(client.succeeded);
    close_client(&client);
    stop_server(&server);
    qfc_statements_free(&setup);
}

/* A batch against an act: how it ends. The connection needs no setup, so that the act begins with the batch. */
static void end_of_batch(struct client *client, enum act act, const char *secret)
{
    struct server server;

    start_server(&server, act, 0);
    open_to(client, &server);
    send_texts(client, "SELECT 1", secret);
    wait_for(client, &client->done, 1);
    close_client(client);
    stop_server(&server);
}

static void a_lost_answer_is_unknown(void **state)
{
    static const enum act acts[] = {CLOSE_IN_ANSWER, FATAL_ANSWER, RUBBISH_ANSWER, COPY_ANSWER};

    for (size_t i = 0; i < sizeof(acts) / sizeof(acts[0]); i++) {
        struct client client = {0};
        end_of_batch(&client, acts[i], NULL);
        assert_int_equal(client.error.kind, QFC_ERROR_UNKNOWN);
        assert_int_equal(client.downs, 1);
        if (acts[i] == FATAL_ANSWER)
            assert_string_equal(client.error.sqlstate, "57P01");
    }
}

/* The second use is parsed under a name, and that is what the connection ends in. */
static void a_lost_parse_is_unknown(void **state)
{
    struct server server;
    struct client client = {0};

    start_server(&server, CLOSE_IN_PARSE, 0);
    open_to(&client, &server);
    for (int i = 0; i < 3; i++)
        send_texts(&client, "SELECT 1", NULL);
    wait_for(&client, &client.done, 1);
    assert_true(client.succeeded);
    wait_for(&client, &client.done, 3);
    assert_int_equal(client.error.kind, QFC_ERROR_UNKNOWN);
    assert_int_equal(client.downs, 1);
    send_texts(&client, "SELECT 1", NULL); /* the first on its connection */
    wait_for(&client, &client.done, 4);
    assert_true(client.succeeded);
    close_client(&client);
    stop_server(&server);
}

/* Behind a pooler one batch fails for it, and then nothing is prepared any more. */
static void a_server_that_forgets_names(void **state)
{
    struct server server;
    struct client client = {0};

    start_server(&server, POOLER, 0);
    open_to(&client, &server);
    for (int i = 1; i <= 12; i++) {
        send_texts(&client, "SELECT 1", NULL);
        wait_for(&client, &client.done, i);
        assert_int_equal(client.succeeded, i != 3);
        assert_int_equal(client.error.kind, i == 3 ? QFC_ERROR_AGAIN : QFC_ERROR_NONE);
    }
    assert_int_equal(client.downs, 0);
    close_client(&client);
    stop_server(&server);
}

static void a_silent_server_is_given_up(void **state)
{
    struct client client = {.options.answer_ms = 50};

    end_of_batch(&client, SILENT_ANSWER, NULL);
    assert_int_equal(client.error.kind, QFC_ERROR_UNKNOWN);
    assert_non_null(strstr(client.error.message, "no answer within 50 ms"));
}

static void an_answer_that_came_before_the_end_counts(void **state)
{
    struct client client = {0};

    end_of_batch(&client, FAREWELL_AFTER_ANSWER, NULL);
    assert_true(client.succeeded);
    assert_int_equal(client.results, 1);
}

static void no_secret_in_errors(void **state)
{
    struct client client = {0};
    struct client other = {0};

    end_of_batch(&client, SECRET_ANSWER, PASSWORD);
    assert_string_equal(client.error.sqlstate, "22P02");
    assert_null(strstr(client.error.message, PASSWORD));
    end_of_batch(&other, SECRET_ANSWER, "something else");
    assert_non_null(strstr(other.error.message, PASSWORD)); /* not secret here */
}

static void batches_end_in_order_and_new_ones_can_be_sent_when_down(void **state)
{
    struct server server;
    struct client client = {0};

    start_server(&server, CLOSE_IN_ANSWER, 2);
    open_to(&client, &server);
    for (int i = 0; i < 5; i++)
        send_texts(&client, "SELECT 1", NULL);
    wait_for(&client, &client.done, 3);
    assert_int_equal(client.error.kind, QFC_ERROR_UNKNOWN); /* the third; it and those behind it were sent */
    assert_int_equal(client.downs, 1);
    send_texts(&client, "SELECT 1", NULL);
    wait_for(&client, &client.done, 6);
    assert_true(client.succeeded);
    assert_int_equal(client.ready, 2);
    close_client(&client);
    stop_server(&server);
}

static void a_sent_batch_can_be_cancelled_while_it_is_lost(void **state)
{
    struct server server;
    struct client client = {0};

    start_server(&server, CLOSE_IN_ANSWER, 0);
    open_to(&client, &server);
    client.victim = send_texts(&client, "SELECT 1", NULL);
    send_texts(&client, "SELECT 2", NULL);
    wait_for(&client, &client.done, 1);
    assert_int_equal(client.error.kind, QFC_ERROR_UNKNOWN);
    wait_for(&client, &client.ready, 2);
    assert_int_equal(client.done, 1);
    close_client(&client);
    stop_server(&server);
}

static void freed_anywhere(void **state)
{
    struct server server;
    struct qfc_statements setup = {0};
    struct qfc_error error;

    assert_int_equal(qfc_statements_add(&setup, "SELECT 1", 0, NULL, &error), 0);
    start_server(&server, GOOD, 0);
    for (enum free_in where = ON_STATE; where <= ON_DONE; where++) {
        struct client client = {.free_in = where, .options.setup = &setup};
        open_to(&client, &server);
        send_texts(&client, "SELECT 1", NULL);
        send_texts(&client, "SELECT 2", NULL);
        while (client.pg)
            assert_true(uv_run(&client.loop, UV_RUN_ONCE) || !client.pg);
        close_client(&client);
        assert_int_equal(client.done, where == ON_DONE ? 1 : 0);
    }
    /* After each number of turns of the loop: looking up, connecting, setting up, sending. */
    for (int turns = 0; turns < 30; turns++) {
        struct client client = {.options.setup = &setup};
        open_client(&client, "host=localhost port=%d user=me password=" PASSWORD " sslmode=disable gssencmode=disable",
                    server.port);
        for (int i = 0; i < 3; i++) /* as it is, parsed under a name, by the name */
            send_texts(&client, "SELECT 1", NULL);
        for (int i = 0; i < turns && client.done < 3; i++)
            uv_run(&client.loop, UV_RUN_ONCE);
        close_client(&client);
    }
    stop_server(&server);
    qfc_statements_free(&setup);
}

static void freed_while_it_is_lost(void **state)
{
    for (enum free_in where = ON_STATE; where <= ON_DONE; where += 2) {
        struct server server;
        struct client client = {.free_in = where, .skip = 1};
        start_server(&server, CLOSE_IN_ANSWER, 1);
        open_to(&client, &server);
        for (int i = 0; i < 3; i++)
            send_texts(&client, "SELECT 1", NULL);
        while (client.pg)
            assert_true(uv_run(&client.loop, UV_RUN_ONCE) || !client.pg);
        close_client(&client);
        assert_int_equal(client.downs, 1);
        assert_int_equal(client.done, where == ON_DONE ? 2 : 1);
        stop_server(&server);
    }
}

static void a_batch_needs_statements(void **state)
{
    struct client client = {0};
    struct qfc_statements none = {0};
    struct qfc_error error;

    open_client(&client, "host=/nowhere");
    assert_int_equal(qfc_pg_send(client.pg, &none, on_done, &client, NULL, &error), -1);
    assert_int_equal(error.kind, QFC_ERROR_BUG);
    struct qfc_pg_batch *batch = send_texts(&client, "SELECT 1", NULL);
    send_texts(&client, "SELECT 2", NULL);
    qfc_pg_cancel(batch);
    wait_for(&client, &client.downs, 2);
    assert_int_equal(client.done, 0);
    close_client(&client);
    assert_int_equal(client.done, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(conninfo_that_cannot_be_parsed),
        cmocka_unit_test(refused_and_tried_again_with_backoff),
        cmocka_unit_test(unknown_host),
        cmocka_unit_test(names_are_looked_up),
        cmocka_unit_test(silence_ends_at_the_deadline),
        cmocka_unit_test(silence_in_setup_ends_at_the_deadline),
        cmocka_unit_test(closing_and_rubbish_at_each_stage),
        cmocka_unit_test(the_servers_refusals_have_their_sqlstate),
        cmocka_unit_test(setup_can_refuse_the_server),
        cmocka_unit_test(a_lost_answer_is_unknown),
        cmocka_unit_test(a_lost_parse_is_unknown),
        cmocka_unit_test(a_server_that_forgets_names),
        cmocka_unit_test(a_silent_server_is_given_up),
        cmocka_unit_test(an_answer_that_came_before_the_end_counts),
        cmocka_unit_test(no_secret_in_errors),
        cmocka_unit_test(batches_end_in_order_and_new_ones_can_be_sent_when_down),
        cmocka_unit_test(a_sent_batch_can_be_cancelled_while_it_is_lost),
        cmocka_unit_test(freed_anywhere),
        cmocka_unit_test(freed_while_it_is_lost),
        cmocka_unit_test(a_batch_needs_statements),
    };

    alarm(300); /* a test that waits for ever is to fail */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
