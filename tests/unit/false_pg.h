/*
 * A false PostgreSQL server on a thread, for tests: it is silent, talks rubbish, refuses, or closes at each stage, and
 * answers statements of any kind as if they had been done. Knows as much of the protocol (version 3) as that takes.
 */
#pragma once

#include <arpa/inet.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define PASSWORD "hunter2-very-secret"

enum act {
    CLOSE_AT_ONCE,
    SILENT,
    CLOSE_AFTER_STARTUP,
    RUBBISH,
    CLOSE_AFTER_PASSWORD,
    CLOSE_AFTER_AUTHENTICATION,
    WRONG_PASSWORD,
    STARTING_UP,
    TOO_MANY,
    CLOSE_WHEN_READY,
    RUBBISH_WHEN_READY,
    /* from here on the setup is answered */
    CLOSE_IN_ANSWER,
    SILENT_ANSWER,
    FATAL_ANSWER,
    RUBBISH_ANSWER,
    COPY_ANSWER,
    FAREWELL_AFTER_ANSWER,
    SECRET_ANSWER,
    CLOSE_IN_PARSE, /* of a statement with a name */
    POOLER,         /* forgets at each sync point what has a name */
    GOOD,
};

struct server {
    int listener;
    int port;
    enum act act;
    int setups; /* sync points that are answered well before `act` begins */
    pthread_t thread;
};

static void put_all(int fd, const void *data, size_t size)
{
    while (size > 0) {
        ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);
        if (sent <= 0)
            return;
        data = (const char *)data + sent;
        size -= (size_t)sent;
    }
}

static int get_all(int fd, void *data, size_t size)
{
    while (size > 0) {
        ssize_t got = recv(fd, data, size, 0);
        if (got <= 0)
            return -1;
        data = (char *)data + got;
        size -= (size_t)got;
    }
    return 0;
}

/* Appends one message of the protocol to `out`. */
static size_t message(char *out, char type, const void *body, size_t size)
{
    uint32_t length = htonl((uint32_t)size + 4);

    out[0] = type;
    memcpy(out + 1, &length, 4);
    memcpy(out + 5, body, size);
    return size + 5;
}

static size_t error_message(char *out, char type, const char *severity, const char *sqlstate, const char *text)
{
    char body[512];
    int size = snprintf(body, sizeof(body), "S%s%cV%s%cC%s%cM%s%cFauth.c%cL330%cRauth_failed%c", severity, 0, severity,
                        0, sqlstate, 0, text, 0, 0, 0, 0);

    body[size] = '\0';
    return message(out, type, body, (size_t)size + 1);
}

static void hang(int fd)
{
    char byte;

    while (recv(fd, &byte, 1, 0) > 0)
        ;
}

static const char rubbish[] = "HTTP/1.1 400 Bad Request\r\nServer: not PostgreSQL\r\n\r\n";

static void answer_execute(int fd, const struct server *server, bool bad)
{
    char out[1024];
    size_t size = 0;

    size += message(out + size, '2', "", 0);
    if (bad && server->act == COPY_ANSWER)
        size += message(out + size, 'H', "\0\0\0", 3);
    else {
        size += message(out + size, 'n', "", 0);
        size += message(out + size, 'C', "DO", 3);
    }
    put_all(fd, out, size);
}

/* Returns false when the conversation is over. */
static bool answer_sync(int fd, const struct server *server, bool bad)
{
    char out[1024];
    size_t size = message(out, 'Z', "I", 1);

    if (bad && server->act == FAREWELL_AFTER_ANSWER)
        size += error_message(out + size, 'E', "FATAL", "57P01", "terminating connection on a whim");
    put_all(fd, out, size);
    return !(bad && server->act == FAREWELL_AFTER_ANSWER);
}

/* What is said instead of an answer. */
static bool misbehave(int fd, enum act act)
{
    char out[1024];

    if (act == CLOSE_IN_ANSWER) {
        put_all(fd, "1\0\0", 3);
    } else if (act == SILENT_ANSWER) {
        hang(fd);
    } else if (act == FATAL_ANSWER) {
        put_all(fd, out, error_message(out, 'E', "FATAL", "57P01", "terminating connection on a whim"));
    } else if (act == RUBBISH_ANSWER) {
        put_all(fd, rubbish, sizeof(rubbish));
        hang(fd);
    } else if (act == SECRET_ANSWER) {
        put_all(fd, out, error_message(out, 'E', "ERROR", "22P02", "invalid input: \"" PASSWORD "\""));
        return true;
    } else {
        return true;
    }
    return false;
}

/* Parse. Returns false when the conversation is over. */
static bool answer_parse(int fd, const struct server *server, bool bad, const char *name)
{
    char out[16];

    if (bad && *name && server->act == CLOSE_IN_PARSE)
        return false;
    put_all(fd, out, message(out, '1', "", 0));
    return true;
}

/* Bind, whose answer comes with that to Execute. Returns false for a name that is not known. */
static bool bind_name(int fd, const struct server *server, const char *name, const char *known)
{
    char out[1024];

    if (server->act != POOLER || strcmp(name, known) == 0)
        return true;
    put_all(fd, out, error_message(out, 'E', "ERROR", "26000", "prepared statement does not exist"));
    return false;
}

static void converse(int fd, const struct server *server)
{
    int syncs = 0;
    bool aborted = false;
    char name[64] = ""; /* the last that came with a Parse */

    for (;;) {
        char head[5];
        char body[4096];
        uint32_t length;
        if (get_all(fd, head, 5) < 0)
            return;
        memcpy(&length, head + 1, 4);
        length = ntohl(length) - 4;
        if (length >= sizeof(body) || get_all(fd, body, length) < 0 || head[0] == 'X')
            return;
        bool bad = syncs >= server->setups;
        if (head[0] == 'P' && !aborted) {
            snprintf(name, sizeof(name), "%.63s", body);
            if (!answer_parse(fd, server, bad, name))
                return;
        }
        if (head[0] == 'B' && !aborted)
            aborted = !bind_name(fd, server, body + strlen(body) + 1, name);
        if (head[0] == 'E' && !aborted) {
            if (bad && !misbehave(fd, server->act))
                return;
            aborted = bad && server->act == SECRET_ANSWER;
            if (!aborted)
                answer_execute(fd, server, bad);
        }
        if (head[0] == 'S') {
            if (!answer_sync(fd, server, bad))
                return;
            aborted = false;
            name[0] = '\0';
            syncs++;
        }
    }
}

static void send_error(int fd, const char *sqlstate, const char *text)
{
    char out[1024];

    put_all(fd, out, error_message(out, 'E', "FATAL", sqlstate, text));
}

static void serve(int fd, const struct server *server)
{
    char startup[4096];
    uint32_t length;
    char out[256];

    if (server->act == CLOSE_AT_ONCE)
        return;
    if (server->act == SILENT) {
        hang(fd);
        return;
    }
    if (get_all(fd, &length, 4) < 0 || ntohl(length) > sizeof(startup) || get_all(fd, startup, ntohl(length) - 4) < 0)
        return;
    if (server->act == RUBBISH)
        put_all(fd, rubbish, sizeof(rubbish));
    if (server->act == STARTING_UP)
        send_error(fd, "57P03", "the database system is starting up");
    if (server->act == TOO_MANY)
        send_error(fd, "53300", "sorry, too many clients already");
    if (server->act == CLOSE_AFTER_STARTUP || server->act == RUBBISH || server->act == STARTING_UP ||
        server->act == TOO_MANY)
        return;
    put_all(fd, out, message(out, 'R', "\0\0\0\3", 4)); /* a clear text password, please */
    if (get_all(fd, out, 5 + sizeof(PASSWORD)) < 0 || server->act == CLOSE_AFTER_PASSWORD)
        return;
    if (server->act == WRONG_PASSWORD) {
        send_error(fd, "28P01", "password authentication failed for user \"me\"");
        return;
    }
    put_all(fd, out, message(out, 'R', "\0\0\0\0", 4));
    if (server->act == CLOSE_AFTER_AUTHENTICATION)
        return;
    put_all(fd, out, message(out, 'K', "\0\0\0\1\0\0\0\2", 8));
    put_all(fd, out, message(out, 'Z', "I", 1));
    if (server->act == RUBBISH_WHEN_READY) {
        put_all(fd, rubbish, sizeof(rubbish));
        hang(fd);
    } else if (server->act != CLOSE_WHEN_READY) {
        converse(fd, server);
    }
}

static void *run_server(void *data)
{
    struct server *server = data;

    for (;;) {
        int fd = accept(server->listener, NULL, NULL);
        if (fd < 0)
            return NULL;
        serve(fd, server);
        shutdown(fd, SHUT_WR);
        hang(fd); /* closing with unread bytes would reset the connection, and what was answered could be lost */
        close(fd);
    }
}

static int listen_somewhere(int *ret_port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, size), 0);
    assert_int_equal(listen(fd, 16), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    *ret_port = ntohs(address.sin_port);
    return fd;
}

static void start_server(struct server *server, enum act act, int setups)
{
    server->act = act;
    server->setups = setups;
    server->listener = listen_somewhere(&server->port);
    assert_int_equal(pthread_create(&server->thread, NULL, run_server, server), 0);
}

static void stop_server(struct server *server)
{
    shutdown(server->listener, SHUT_RDWR);
    pthread_join(server->thread, NULL);
    close(server->listener);
}
