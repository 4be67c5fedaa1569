/*
 * An HTTP server for tests: threads on a Unix socket that play whatever answer the test wants, faulty ones included.
 *
 * It reads whole requests and hands each to the test's `play`, which writes what it likes to the socket. What came is
 * kept, in order, for the test to look at when the player has stopped.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define PLAYER_CONNECTIONS 64
#define PLAYER_REQUESTS    256

struct request {
    char method[16];
    char target[512];
    char *headers; /* from the first line to the blank one */
    char *body;
    size_t body_size;
    unsigned connection; /* 1, 2, ... in the order of accept */
};

struct player {
    char directory[64];
    char path[96];
    int listener;
    pthread_t acceptor;
    pthread_mutex_t lock;
    int fds[PLAYER_CONNECTIONS];
    pthread_t threads[PLAYER_CONNECTIONS];
    atomic_uint connections;
    struct request requests[PLAYER_REQUESTS];
    unsigned request_count;
    atomic_bool stopping;
    bool (*play)(struct player *player, int fd, const struct request *request); /* false: close the connection */
    void *userdata;
};

struct player_connection {
    struct player *player;
    int fd;
    unsigned number;
};

/* Not assert(): that may be compiled out, and cmocka's may be used by the test's own thread only. */
static inline void player_check(bool good)
{
    if (!good)
        abort();
}

static inline bool player_write(int fd, const void *data, size_t size)
{
    const char *at = data;

    while (size > 0) {
        ssize_t n = send(fd, at, size, MSG_NOSIGNAL);
        if (n <= 0)
            return false;
        at += n;
        size -= (size_t)n;
    }
    return true;
}

static inline bool player_text(int fd, const char *text)
{
    return player_write(fd, text, strlen(text));
}

/* A whole answer: status line, Content-Length, `body`. */
static inline bool player_answer(int fd, const char *status, const char *type, const void *body, size_t size)
{
    char head[256];

    snprintf(head, sizeof head, "HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n\r\n", status, type, size);
    return player_text(fd, head) && player_write(fd, body, size);
}

static inline bool player_json(int fd, const char *status, const char *body)
{
    return player_answer(fd, status, "application/json", body, strlen(body));
}

/* What came and is not yet used up. */
struct player_input {
    int fd;
    char *data;
    size_t size;
};

static inline bool player_more(struct player_input *input)
{
    char piece[65536];
    ssize_t n = recv(input->fd, piece, sizeof piece, 0);

    if (n <= 0)
        return false;
    char *data = realloc(input->data, input->size + (size_t)n + 1);
    player_check(data != NULL);
    memcpy(data + input->size, piece, (size_t)n);
    input->data = data;
    input->size += (size_t)n;
    data[input->size] = '\0';
    return true;
}

static inline char *player_take(struct player_input *input, size_t size)
{
    char *taken = malloc(size + 1);

    player_check(taken && size <= input->size);
    memcpy(taken, input->data, size);
    taken[size] = '\0';
    memmove(input->data, input->data + size, input->size - size + 1);
    input->size -= size;
    return taken;
}

/* Takes what ends with `end`, or null when the connection ends before. */
static inline char *player_until(struct player_input *input, const char *end)
{
    const char *found;

    while (!input->data || !(found = memmem(input->data, input->size, end, strlen(end))))
        if (!player_more(input))
            return NULL;
    return player_take(input, (size_t)(found - input->data) + strlen(end));
}

static inline char *player_exactly(struct player_input *input, size_t size)
{
    while (input->size < size || !input->data)
        if (!player_more(input))
            return NULL;
    return player_take(input, size);
}

static inline bool player_read_chunks(struct player_input *input, struct request *request)
{
    for (;;) {
        char *line = player_until(input, "\r\n");
        if (!line)
            return false;
        size_t size = strtoul(line, NULL, 16);
        free(line);
        char *chunk = player_exactly(input, size + 2);
        if (!chunk)
            return false;
        request->body = realloc(request->body, request->body_size + size + 1);
        player_check(request->body != NULL);
        memcpy(request->body + request->body_size, chunk, size);
        request->body_size += size;
        free(chunk);
        if (size == 0)
            return true;
    }
}

static inline bool player_read(struct player_input *input, struct request *request)
{
    request->headers = player_until(input, "\r\n\r\n");
    if (!request->headers || sscanf(request->headers, "%15s %511s", request->method, request->target) != 2)
        return false;
    if (strcasestr(request->headers, "\r\nTransfer-Encoding: chunked\r\n"))
        return player_read_chunks(input, request);
    const char *length = strcasestr(request->headers, "\r\nContent-Length:");
    request->body_size = length ? strtoul(length + strlen("\r\nContent-Length:"), NULL, 10) : 0;
    request->body = request->body_size ? player_exactly(input, request->body_size) : NULL;
    return request->body || !request->body_size;
}

static inline struct request *player_keep(struct player *player, const struct request *request)
{
    struct request *kept = NULL;

    pthread_mutex_lock(&player->lock);
    if (player->request_count < PLAYER_REQUESTS) {
        kept = &player->requests[player->request_count++];
        *kept = *request;
    }
    pthread_mutex_unlock(&player->lock);
    player_check(kept != NULL);
    return kept;
}

static inline void *player_serve(void *userdata)
{
    struct player_connection *connection = userdata;
    struct player *player = connection->player;
    struct player_input input = {.fd = connection->fd};
    bool goes_on = true;

    while (goes_on) {
        struct request request = {.connection = connection->number};
        if (player_read(&input, &request)) {
            goes_on = player->play(player, connection->fd, player_keep(player, &request));
            continue;
        }
        free(request.headers);
        free(request.body);
        break;
    }
    shutdown(connection->fd, SHUT_RDWR); /* closed when the player stops: its number must not be used again before */
    free(input.data);
    free(connection);
    return NULL;
}

static inline void *player_accept(void *userdata)
{
    struct player *player = userdata;
    int fd;

    while ((fd = accept(player->listener, NULL, NULL)) >= 0) {
        struct player_connection *connection = malloc(sizeof *connection);
        unsigned n = player->connections;

        player_check(connection && n < PLAYER_CONNECTIONS);
        *connection = (struct player_connection){.player = player, .fd = fd, .number = n + 1};
        player->fds[n] = fd;
        pthread_create(&player->threads[n], NULL, player_serve, connection);
        player->connections = n + 1;
    }
    return NULL;
}

static inline void player_start(struct player *player,
                                bool (*play)(struct player *player, int fd, const struct request *request))
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    memset(player, 0, sizeof *player);
    player->play = play;
    pthread_mutex_init(&player->lock, NULL);
    strcpy(player->directory, "/tmp/qfc-player-XXXXXX");
    player_check(mkdtemp(player->directory) != NULL);
    chmod(player->directory, 0755);
    snprintf(player->path, sizeof player->path, "%s/socket", player->directory);
    strcpy(address.sun_path, player->path);
    player->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    player_check(bind(player->listener, (struct sockaddr *)&address, sizeof address) == 0);
    player_check(listen(player->listener, 64) == 0);
    pthread_create(&player->acceptor, NULL, player_accept, player);
}

static inline void player_stop(struct player *player)
{
    if (player->stopping)
        return;
    player->stopping = true;
    shutdown(player->listener, SHUT_RDWR);
    pthread_join(player->acceptor, NULL);
    for (unsigned i = 0; i < player->connections; i++)
        shutdown(player->fds[i], SHUT_RDWR);
    for (unsigned i = 0; i < player->connections; i++) {
        pthread_join(player->threads[i], NULL);
        close(player->fds[i]);
    }
    close(player->listener);
    unlink(player->path);
    rmdir(player->directory);
}

static inline void player_free(struct player *player)
{
    player_stop(player);
    for (unsigned i = 0; i < player->request_count; i++) {
        free(player->requests[i].headers);
        free(player->requests[i].body);
    }
    player->request_count = 0;
}

/* How many requests came whose "METHOD target" begins with `start`. Call it when the player has stopped. */
static inline unsigned player_count(const struct player *player, const char *start)
{
    unsigned count = 0;

    for (unsigned i = 0; i < player->request_count; i++) {
        char line[600];
        snprintf(line, sizeof line, "%s %s", player->requests[i].method, player->requests[i].target);
        if (strncmp(line, start, strlen(start)) == 0)
            count++;
    }
    return count;
}
