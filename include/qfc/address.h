/*
 * Addresses to listen at, as settings name them.
 */
#pragma once

#include "qfc/error.h"

#include <sys/socket.h>

/*
 * "127.0.0.1:9187", "[::1]:9187": a numeric address, an IPv6 one in brackets, and a port. Host names are not looked up.
 * Returns 0, or -1 with QFC_ERROR_USAGE and what would be right.
 */
int qfc_address_parse(const char *text, struct sockaddr_storage *ret_address, socklen_t *ret_size,
                      struct qfc_error *error);

/*
 * The same for a Unix socket: a path, or "@name" for an abstract one, which has no file. Returns 0 or -1
 * (QFC_ERROR_USAGE: too long).
 */
int qfc_address_unix(const char *text, struct sockaddr_storage *ret_address, socklen_t *ret_size,
                     struct qfc_error *error);

/*
 * A socket that listens there, without waiting, for the caller to close. A Unix socket's file that nobody listens at any
 * more is replaced. Returns it, or -1 with QFC_ERROR_REFUSED (`code` is the errno).
 */
int qfc_address_listen(const struct sockaddr_storage *address, socklen_t size, struct qfc_error *error);
