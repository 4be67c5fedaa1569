/*
 * AWS Signature Version 4 for S3 ("Authenticating Requests: Using the Authorization Header", Amazon S3 API Reference).
 *
 * Our own, over libcrypto: libcurl's CURLOPT_AWS_SIGV4 of 7.81 signs the host without its port and does not sign
 * x-amz-content-sha256 (lib/http_aws_sigv4.c of that release), so that no store on a port of its own accepts it, and
 * each later release treats paths and queries in another way.
 */
#pragma once

#include "qfc/buffer.h"
#include "qfc/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <time.h>

#define QFC_SIGV4_HASH_SIZE 65 /* a SHA-256 in hexadecimal digits, and the zero byte */
#define QFC_SIGV4_TIME_SIZE 17 /* "20130524T000000Z", and the zero byte */

struct qfc_sigv4 {
    const char *access_key, *secret_key, *region;
    const char *token;   /* x-amz-security-token, or null */
    const char *method;  /* "GET", ... */
    const char *host;    /* the Host header's value */
    const char *path;    /* from the first "/", encoded as qfc_sigv4_encode does: it is sent like this */
    const char *query;   /* encoded and sorted by name, each name with its "="; "" where there is none */
    const char *payload; /* qfc_sigv4_hash of the body */
    const char *time;    /* qfc_sigv4_time: x-amz-date */
};

/* Appends the value of the Authorization header. The request's headers are to be host, x-amz-content-sha256, x-amz-date
 * and, with a token, x-amz-security-token; others are not signed. Returns 0 or -1 (MEMORY). */
int qfc_sigv4_authorize(const struct qfc_sigv4 *request, struct qfc_buffer *out, struct qfc_error *error);

int qfc_sigv4_hash(const void *data, size_t size, char ret_hash[QFC_SIGV4_HASH_SIZE], struct qfc_error *error);
void qfc_sigv4_time(time_t now, char ret_time[QFC_SIGV4_TIME_SIZE]);

/* Appends `text` with all but unreserved characters (RFC 3986) percent-encoded, and "/" unless `keep_slashes`.
 * Returns 0, -EMSGSIZE or -ENOMEM. */
int qfc_sigv4_encode(struct qfc_buffer *out, const char *text, bool keep_slashes);
