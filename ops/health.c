/*
 * `qfc-worker health`: asks the running worker itself, through its local socket. For a container's HEALTHCHECK.
 */
#include "command.h"
#include "companion.h"
#include "ops_private.h"

#include "qfc/address.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define ANSWER_S     4
#define ANSWER_BYTES 8192
#define WORKERS      64
#define NAME_BYTES   108

static int parse(const struct command *command, int argc, char **argv, bool *ret_live)
{
    struct arguments arguments = {.command = command, .argc = argc, .argv = argv};
    const char *name, *value;
    enum argument next;
    while ((next = next_option(&arguments, &name, &value)) == ARGUMENT_OPTION)
        *ret_live = true;
    return next == ARGUMENT_END ? QFC_EXIT_OK : QFC_EXIT_USAGE;
}

/* The sockets of all workers in this pid namespace. The last word of a line is the name (proc_net_unix(5)). */
static size_t find_sockets(char names[][NAME_BYTES])
{
    char line[512], prefix[NAME_BYTES];
    size_t count = 0;
    FILE *file = fopen("/proc/net/unix", "re");
    local_name(prefix, sizeof prefix, 0);
    while (file && count < WORKERS && fgets(line, sizeof line, file)) {
        const char *name = strrchr(line, ' ');
        if (!name || strncmp(name + 1, prefix, strlen(prefix)) != 0)
            continue;
        snprintf(names[count], NAME_BYTES, "%.*s", (int)strcspn(name + 1, "\n"), name + 1);
        /* A connection under way has a line of its own with the same name. */
        bool known = false;
        for (size_t i = 0; i < count; i++)
            known |= strcmp(names[i], names[count]) == 0;
        count += !known;
    }
    if (file)
        fclose(file);
    return count;
}

static int connect_to(const char *name, struct qfc_error *error)
{
    struct sockaddr_storage address;
    socklen_t size;
    const struct timeval limit = {.tv_sec = ANSWER_S};
    if (qfc_address_unix(name, &address, &size, error) < 0)
        return -1;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return qfc_fail(error, QFC_ERROR_BUG, errno, "make a socket: %s", strerror(errno));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (connect(fd, (const struct sockaddr *)&address, size) == 0)
        return fd;
    int code = errno;
    close(fd);
    return qfc_fail(error, QFC_ERROR_UNREACHABLE, code, "%s",
                    code == ECONNREFUSED || code == ENOENT ? "no worker listens there"
                    : code == EAGAIN                       ? "the worker does not take the connection"
                                                           : strerror(code));
}

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Reads up to the end of the answer. */
static int read_answer(int fd, char *answer, struct qfc_error *error)
{
    double until = now_s() + ANSWER_S;
    size_t size = 0;
    ssize_t got = 1;
    while (got > 0 && size + 1 < ANSWER_BYTES && now_s() < until) {
        got = recv(fd, answer + size, ANSWER_BYTES - 1 - size, 0);
        size += got > 0 ? (size_t)got : 0;
    }
    answer[size] = '\0';
    return got == 0 ? 0
                    : qfc_fail(error, QFC_ERROR_UNKNOWN, 0, "the worker does not answer within %d s: its loop hangs",
                               ANSWER_S);
}

/* Every line of these is about the worker's being told to stop: it is as it should be. */
static bool only_stops(const char *reasons)
{
    while (strncmp(reasons, "stopping:", 9) == 0) {
        reasons += strcspn(reasons, "\n");
        reasons += *reasons == '\n';
    }
    return !*reasons;
}

/* Asks one worker. Returns 0 when it is well; `ret_told` gets what it says in one line. */
static int ask(const char *name, bool live, char *ret_told, size_t size, struct qfc_error *error)
{
    char request[64], answer[ANSWER_BYTES];
    int fd = connect_to(name, error);
    if (fd < 0)
        return -1;
    int length = snprintf(request, sizeof request, "GET %s HTTP/1.0\r\n\r\n", live ? "/healthz" : "/readyz");
    int r = send(fd, request, (size_t)length, MSG_NOSIGNAL) == length
                ? read_answer(fd, answer, error)
                : qfc_fail(error, QFC_ERROR_UNKNOWN, errno, "the worker takes no question: %s", strerror(errno));
    close(fd);
    if (r < 0)
        return -1;
    const char *body = strstr(answer, "\r\n\r\n");
    if (!body || sscanf(answer, "HTTP/1.%*d %d", &r) != 1)
        return qfc_fail(error, QFC_ERROR_INVALID, 0, "something that is no worker answers");
    body += 4;
    snprintf(ret_told, size, "%s", body);
    for (char *end = ret_told; (end = strchr(end, '\n'));)
        *end = end[1] ? ';' : '\0';
    if (r == 200 || only_stops(body))
        return 0;
    return qfc_fail(error, QFC_ERROR_REFUSED, r, "%s", ret_told);
}

static int health(const struct command *command, int argc, char **argv)
{
    char names[WORKERS][NAME_BYTES], told[QFC_ERROR_MESSAGE_SIZE];
    bool live = false;
    int code = parse(command, argc, argv, &live);
    if (code != QFC_EXIT_OK)
        return code;
    const char *given = getenv("QFC_WORKER_SOCKET");
    size_t count = given && *given ? 1 : find_sockets(names);
    if (given && *given)
        snprintf(names[0], NAME_BYTES, "%.*s", NAME_BYTES - 1, given);
    if (count == 0) {
        printf("no worker runs here\n");
        return QFC_EXIT_FAULT;
    }
    for (size_t i = 0; i < count; i++) {
        struct qfc_error error = QFC_NO_ERROR;
        int r = ask(names[i], live, told, sizeof told, &error);
        if (count > 1)
            printf("%s: ", names[i]);
        printf("%s\n", r < 0 ? error.message : told);
        if (r < 0)
            code = QFC_EXIT_FAULT;
    }
    return code;
}

static const struct option_info options[] = {
    {"live", NULL, "only whether it answers, also where it has to wait for the database, the engine or an image"},
    {0},
};

const struct command command_health = {
    .name = "health",
    .operands = "",
    .summary = "ask the running worker how it is; for a container's HEALTHCHECK",
    .more = "Exit code 0: it is well, or stops as it was told to. 1: it is not, and one line says why. It is asked "
            "through\n"
            "QFC_WORKER_SOCKET; without that all workers in this container, or on this host, are.\n",
    .options = options,
    .run = health,
};
