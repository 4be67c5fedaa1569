/*
 * Addresses to listen at: see qfc/address.h.
 */
#include "qfc/address.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>
#include <uv.h>

#define BACKLOG 16

static int read_port(const char *text)
{
    char *end;
    long port = strtol(text, &end, 10);
    return *text >= '0' && *text <= '9' && !*end && port > 0 && port < 65536 ? (int)port : -1;
}

int qfc_address_parse(const char *text, struct sockaddr_storage *ret_address, socklen_t *ret_size,
                      struct qfc_error *error)
{
    struct sockaddr_storage address = {0};
    char host[64];
    const char *colon = strrchr(text, ':');
    int port = colon ? read_port(colon + 1) : -1;
    size_t length = colon ? (size_t)(colon - text) : 0;
    bool brackets = length > 2 && text[0] == '[' && text[length - 1] == ']';
    snprintf(host, sizeof host, "%.*s", (int)(brackets ? length - 2 : length), brackets ? text + 1 : text);
    if (port > 0 && brackets && uv_ip6_addr(host, port, (struct sockaddr_in6 *)&address) == 0)
        *ret_size = sizeof(struct sockaddr_in6);
    else if (port > 0 && !brackets && uv_ip4_addr(host, port, (struct sockaddr_in *)&address) == 0)
        *ret_size = sizeof(struct sockaddr_in);
    else
        return qfc_fail(error, QFC_ERROR_USAGE, 0,
                        "expected a numeric address and a port, such as 127.0.0.1:9187 or [::1]:9187");
    *ret_address = address;
    return 0;
}

int qfc_address_unix(const char *text, struct sockaddr_storage *ret_address, socklen_t *ret_size,
                     struct qfc_error *error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = strlen(text);
    if (length == 0 || length >= sizeof address.sun_path)
        return qfc_fail(error, QFC_ERROR_USAGE, 0, "expected a path, or @NAME, of up to %zu bytes",
                        sizeof address.sun_path - 1);
    memcpy(address.sun_path, text, length);
    if (*text == '@')
        address.sun_path[0] = '\0';
    memset(ret_address, 0, sizeof *ret_address);
    memcpy(ret_address, &address, sizeof address);
    /* An abstract name is as long as it is said to be; a path ends with its zero byte (unix(7)). */
    *ret_size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + (*text != '@'));
    return 0;
}

/* Removes the file of a Unix socket that nobody listens at; that of one who does stays. */
static void remove_stale(const struct sockaddr_storage *address, socklen_t size)
{
    const struct sockaddr_un *local = (const struct sockaddr_un *)address;
    if (address->ss_family != AF_UNIX || !local->sun_path[0])
        return;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return;
    if (connect(fd, (const struct sockaddr *)address, size) < 0 && errno == ECONNREFUSED)
        unlink(local->sun_path);
    close(fd);
}

int qfc_address_listen(const struct sockaddr_storage *address, socklen_t size, struct qfc_error *error)
{
    int on = 1;
    remove_stale(address, size);
    int fd = socket(address->ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0 && address->ss_family != AF_UNIX)
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (fd < 0 || bind(fd, (const struct sockaddr *)address, size) < 0 || listen(fd, BACKLOG) < 0) {
        int code = errno;
        if (fd >= 0)
            close(fd);
        return qfc_fail(error, QFC_ERROR_REFUSED, code, "%s", strerror(code));
    }
    return fd;
}
