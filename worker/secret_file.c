/*
 * Secrets in files: see secret_file.h.
 */
#include "secret_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* STORAGES is the longest. */
#define SECRET_MAX_BYTES (64u * 1024)

/* What there is, up to the maximum and one byte more. */
static ssize_t read_all(const char *path, char *data)
{
    FILE *file = fopen(path, "re");
    if (!file)
        return -errno;
    setvbuf(file, NULL, _IONBF, 0); /* no copy of it stays in a buffer */
    errno = 0;
    size_t size = fread(data, 1, SECRET_MAX_BYTES + 1, file);
    int failure = ferror(file) ? (errno ? errno : EIO) : 0;
    fclose(file);
    return failure ? -failure : (ssize_t)size;
}

static int check(const char *name, const char *path, const char *data, ssize_t size, struct qfc_error *error)
{
    if (size < 0)
        return qfc_fail(error, QFC_ERROR_USAGE, 0, "%s=%s: this file cannot be read: %s", name, path,
                        strerror((int)-size));
    if (size > (ssize_t)SECRET_MAX_BYTES)
        return qfc_fail(error, QFC_ERROR_USAGE, 0, "%s=%s: expected a file of at most %u bytes", name, path,
                        SECRET_MAX_BYTES);
    if (memchr(data, '\0', (size_t)size))
        return qfc_fail(error, QFC_ERROR_USAGE, 0, "%s=%s: expected text, without zero bytes", name, path);
    return 0;
}

int read_secret_file(const char *name, const char *path, char **ret_text, struct qfc_error *error)
{
    char *data = malloc(SECRET_MAX_BYTES + 1);
    if (!data)
        return qfc_fail_memory(error);
    ssize_t size = read_all(path, data);
    int r = check(name, path, data, size, error);
    if (r == 0) {
        size_t length = (size_t)size;
        if (length > 0 && data[length - 1] == '\n')
            length--;
        if (length > 0 && data[length - 1] == '\r')
            length--;
        *ret_text = strndup(data, length);
        r = *ret_text ? 0 : qfc_fail_memory(error);
    }
    explicit_bzero(data, SECRET_MAX_BYTES + 1);
    free(data);
    return r;
}
