/*
 * The least that it takes to hear of a job and to ask an engine for its container: libpq, one connection, no loop.
 *
 *     QFC_TEST_DATABASE_URL=... bench-listener CHANNEL ENGINE-SOCKET STATEMENTS-FILE REQUEST-FILE
 *
 * On each notification it sends the statements of the first batch in a pipeline, which claim a job, then those of the
 * second, which read what the job needs, and then the request, as it is, over a kept connection. So it waits for the
 * database and for the engine as often as the worker does. Then it ends the job's row, and asks for the container's
 * removal, which tells the other side that it is done.
 *
 * A line of the statements' file is the batch's number, the statement, and its values, with tabs between them; @job and
 * @project are the ids of the claimed job, @null is NULL. All are prepared when the program begins; then it prints
 * "ready".
 */
#include <libpq-fe.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define STATEMENTS_MAX 16
#define VALUES_MAX     16
#define ID_SIZE        37
#define REQUEST_MAX    (1u << 20)

static const char end_sql[] = "UPDATE core_job SET status = 'finished', container_id = '' WHERE id = $1";
static const char remove_request[] = "DELETE /v1.40/containers/bench HTTP/1.1\r\nHost: localhost\r\n\r\n";

struct statement {
    int batch;
    char name[16];
    const char *values[VALUES_MAX];
    int count;
};

static PGconn *conn;
static int engine = -1;
static struct statement statements[STATEMENTS_MAX];
static int statement_count;
static char job_id[ID_SIZE], project_id[ID_SIZE];

static void die(const char *what, const char *why)
{
    fprintf(stderr, "bench-listener: %s: %s\n", what, why);
    exit(1);
}

static void run(const char *sql)
{
    PGresult *result = PQexec(conn, sql);
    if (PQresultStatus(result) != PGRES_COMMAND_OK)
        die(sql, PQerrorMessage(conn));
    PQclear(result);
}

static void prepare(const char *name, const char *sql)
{
    PGresult *result = PQprepare(conn, name, sql, 0, NULL);
    if (PQresultStatus(result) != PGRES_COMMAND_OK)
        die(sql, PQerrorMessage(conn));
    PQclear(result);
}

static size_t read_file(const char *path, char *text)
{
    FILE *file = fopen(path, "r");
    size_t size = file ? fread(text, 1, REQUEST_MAX - 1, file) : 0;
    if (size == 0)
        die(path, "cannot be read, or is empty");
    fclose(file);
    text[size] = '\0';
    return size;
}

static const char *meaning(const char *value)
{
    if (strcmp(value, "@job") == 0)
        return job_id;
    if (strcmp(value, "@project") == 0)
        return project_id;
    return strcmp(value, "@null") == 0 ? NULL : value;
}

/* The line lives as long as the program. */
static void add_statement(char *line)
{
    struct statement *statement = &statements[statement_count];
    const char *batch = strsep(&line, "\t"), *sql = strsep(&line, "\t");
    if (!sql || statement_count == STATEMENTS_MAX)
        die("statements", "a line that is not understood, or too many");
    statement->batch = atoi(batch);
    snprintf(statement->name, sizeof statement->name, "s%d", statement_count++);
    while (line && statement->count < VALUES_MAX)
        statement->values[statement->count++] = meaning(strsep(&line, "\t"));
    prepare(statement->name, sql);
}

static void send_statement(const char *name, const char *const *values, int count)
{
    if (PQsendQueryPrepared(conn, name, count, values, NULL, NULL, 0) != 1)
        die("send", PQerrorMessage(conn));
}

/* The last statement's result; the caller clears it. */
static PGresult *take_results(void)
{
    PGresult *last = NULL;
    if (PQpipelineSync(conn) != 1)
        die("send", PQerrorMessage(conn));
    for (;;) {
        PGresult *result = PQgetResult(conn);
        ExecStatusType status = PQresultStatus(result);
        if (!result)
            continue;
        if (status == PGRES_PIPELINE_SYNC) {
            PQclear(result);
            return last;
        }
        if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK)
            die("statement", PQresultErrorMessage(result));
        PQclear(last);
        last = result;
    }
}

static PGresult *run_batch(int batch)
{
    for (int i = 0; i < statement_count; i++)
        if (statements[i].batch == batch)
            send_statement(statements[i].name, statements[i].values, statements[i].count);
    return take_results();
}

static void open_engine(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    engine = socket(AF_UNIX, SOCK_STREAM, 0);
    if (engine < 0 || connect(engine, (struct sockaddr *)&address, sizeof address) < 0)
        die(path, "no connection");
}

/* The played engine answers each of these in one piece. */
static void ask_engine(const char *request, size_t size)
{
    char answer[4096];
    for (size_t sent = 0; sent < size;) {
        ssize_t n = send(engine, request + sent, size - sent, MSG_NOSIGNAL);
        if (n < 0)
            die("engine", "the request could not be sent");
        sent += (size_t)n;
    }
    ssize_t n = recv(engine, answer, sizeof answer - 1, 0);
    if (n < 12 || strncmp(answer, "HTTP/1.1 2", 10) != 0)
        die("engine", "no good answer");
}

static bool claim(void)
{
    PGresult *result = run_batch(1);
    bool claimed = PQntuples(result) > 0;
    if (claimed) {
        snprintf(job_id, sizeof job_id, "%s", PQgetvalue(result, 0, PQfnumber(result, "id")));
        snprintf(project_id, sizeof project_id, "%s", PQgetvalue(result, 0, PQfnumber(result, "project_id")));
    }
    PQclear(result);
    return claimed;
}

static void live_a_job(const char *request, size_t size)
{
    if (!claim())
        return;
    PQclear(run_batch(2));
    ask_engine(request, size);
    send_statement("end", (const char *[]){job_id}, 1);
    PQclear(take_results());
    ask_engine(remove_request, sizeof remove_request - 1);
}

static bool heard(void)
{
    PGnotify *notify = PQnotifies(conn);
    PQfreemem(notify);
    return notify != NULL;
}

static void listen_for_ever(const char *request, size_t size)
{
    struct pollfd poller = {.fd = PQsocket(conn), .events = POLLIN};
    for (;;) {
        poll(&poller, 1, -1);
        if (PQconsumeInput(conn) != 1)
            die("connection", PQerrorMessage(conn));
        while (heard())
            live_a_job(request, size);
    }
}

int main(int argc, char **argv)
{
    static char lines[REQUEST_MAX], request[REQUEST_MAX];
    if (argc != 5)
        die("usage", "bench-listener CHANNEL ENGINE-SOCKET STATEMENTS-FILE REQUEST-FILE");
    conn = PQconnectdb(getenv("QFC_TEST_DATABASE_URL"));
    if (PQstatus(conn) != CONNECTION_OK)
        die("connect", PQerrorMessage(conn));
    read_file(argv[3], lines);
    for (char *rest = lines, *line; (line = strsep(&rest, "\n")) && *line;)
        add_statement(line);
    prepare("end", end_sql);
    size_t size = read_file(argv[4], request);
    open_engine(argv[2]);
    char listen_sql[128];
    snprintf(listen_sql, sizeof listen_sql, "LISTEN %s", argv[1]);
    run(listen_sql);
    if (PQenterPipelineMode(conn) != 1)
        die("pipeline", PQerrorMessage(conn));
    puts("ready");
    fflush(stdout);
    listen_for_ever(request, size);
}
