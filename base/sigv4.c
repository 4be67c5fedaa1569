/*
 * AWS Signature Version 4: see sigv4.h.
 */
#include "sigv4.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <string.h>

#define HASH_BYTES      32
#define DATE_LENGTH     8 /* of the time: "20130524" */
#define CANONICAL_BYTES (64u * 1024)
#define ALGORITHM       "AWS4-HMAC-SHA256"

static void to_hex(const unsigned char hash[HASH_BYTES], char ret_hex[QFC_SIGV4_HASH_SIZE])
{
    for (int i = 0; i < HASH_BYTES; i++)
        snprintf(ret_hex + (size_t)i * 2, 3, "%02x", hash[i]);
}

int qfc_sigv4_hash(const void *data, size_t size, char ret_hash[QFC_SIGV4_HASH_SIZE], struct qfc_error *error)
{
    unsigned char hash[HASH_BYTES];

    if (!EVP_Digest(data ? data : "", size, hash, NULL, EVP_sha256(), NULL))
        return qfc_fail_memory(error);
    to_hex(hash, ret_hash);
    return 0;
}

void qfc_sigv4_time(time_t now, char ret_time[QFC_SIGV4_TIME_SIZE])
{
    struct tm parts;

    gmtime_r(&now, &parts);
    strftime(ret_time, QFC_SIGV4_TIME_SIZE, "%Y%m%dT%H%M%SZ", &parts);
}

static bool is_unreserved(unsigned char byte)
{
    return (byte >= 'A' && byte <= 'Z') || (byte >= 'a' && byte <= 'z') || (byte >= '0' && byte <= '9') ||
           (byte && strchr("-._~", byte));
}

int qfc_sigv4_encode(struct qfc_buffer *out, const char *text, bool keep_slashes)
{
    int r = 0;

    for (; *text && r == 0; text++) {
        if (is_unreserved((unsigned char)*text) || (*text == '/' && keep_slashes))
            r = qfc_buffer_append(out, text, 1);
        else
            r = qfc_buffer_printf(out, "%%%02X", (unsigned char)*text);
    }
    return r;
}

/* The hash of the request in its canonical form. */
static int hash_request(const struct qfc_sigv4 *request, const char *signed_headers, char ret_hash[QFC_SIGV4_HASH_SIZE],
                        struct qfc_error *error)
{
    struct qfc_buffer text = qfc_buffer(CANONICAL_BYTES);
    int r = qfc_buffer_printf(&text, "%s\n%s\n%s\nhost:%s\nx-amz-content-sha256:%s\nx-amz-date:%s\n", request->method,
                              request->path, request->query, request->host, request->payload, request->time);

    if (r == 0 && request->token)
        r = qfc_buffer_printf(&text, "x-amz-security-token:%s\n", request->token);
    if (r == 0)
        r = qfc_buffer_printf(&text, "\n%s\n%s", signed_headers, request->payload);
    r = r < 0 ? qfc_fail_memory(error) : qfc_sigv4_hash(text.data, text.size, ret_hash, error);
    qfc_buffer_wipe(&text);
    return r;
}

static bool chain(unsigned char key[HASH_BYTES], const char *text, size_t size)
{
    unsigned char next[HASH_BYTES];
    bool good = HMAC(EVP_sha256(), key, HASH_BYTES, (const unsigned char *)text, size, next, NULL);

    if (good)
        memcpy(key, next, HASH_BYTES);
    OPENSSL_cleanse(next, sizeof next);
    return good;
}

/* The key that signs on this day, in this region, for S3. */
static bool derive_key(const struct qfc_sigv4 *request, unsigned char ret_key[HASH_BYTES])
{
    struct qfc_buffer secret = qfc_buffer(CANONICAL_BYTES);
    bool good = qfc_buffer_printf(&secret, "AWS4%s", request->secret_key) == 0 &&
                HMAC(EVP_sha256(), secret.data, (int)secret.size, (const unsigned char *)request->time, DATE_LENGTH,
                     ret_key, NULL) &&
                chain(ret_key, request->region, strlen(request->region)) && chain(ret_key, "s3", 2) &&
                chain(ret_key, "aws4_request", strlen("aws4_request"));

    qfc_buffer_wipe(&secret);
    return good;
}

int qfc_sigv4_authorize(const struct qfc_sigv4 *request, struct qfc_buffer *out, struct qfc_error *error)
{
    const char *headers = request->token ? "host;x-amz-content-sha256;x-amz-date;x-amz-security-token"
                                         : "host;x-amz-content-sha256;x-amz-date";
    struct qfc_buffer text = qfc_buffer(CANONICAL_BYTES);
    unsigned char key[HASH_BYTES] = {0};
    char hash[QFC_SIGV4_HASH_SIZE];

    if (hash_request(request, headers, hash, error) < 0)
        return -1;
    bool good = qfc_buffer_printf(&text, ALGORITHM "\n%s\n%.8s/%s/s3/aws4_request\n%s", request->time, request->time,
                                  request->region, hash) == 0 &&
                derive_key(request, key) && chain(key, text.data, text.size);
    to_hex(key, hash);
    OPENSSL_cleanse(key, sizeof key);
    qfc_buffer_free(&text);
    if (!good ||
        qfc_buffer_printf(out, ALGORITHM " Credential=%s/%.8s/%s/s3/aws4_request, SignedHeaders=%s, Signature=%s",
                          request->access_key, request->time, request->region, headers, hash) < 0)
        return qfc_fail_memory(error);
    return 0;
}
