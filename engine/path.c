/* Paths of the engine's API, with texts from outside escaped in them (RFC 3986, section 2.3). */
#include "engine_private.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int append_escaped(struct qfc_buffer *path, const char *text, const char *left)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
    int r = 0;

    for (; *text && r == 0; text++) {
        if (strchr(plain, *text) || strchr(left, *text))
            r = qfc_buffer_append(path, text, 1);
        else
            r = qfc_buffer_printf(path, "%%%02X", (unsigned char)*text);
    }
    return r;
}

int qfc_engine_path(struct qfc_buffer *path, const char *format, ...)
{
    va_list texts;
    int r = 0;

    va_start(texts, format);
    for (; *format && r == 0; format++) {
        if (*format == '%' || *format == '*')
            r = append_escaped(path, va_arg(texts, const char *), *format == '*' ? "/" : "");
        else
            r = qfc_buffer_append(path, format, 1);
    }
    va_end(texts);
    return r;
}

int qfc_engine_path_filters(struct qfc_buffer *path, const char *format, json_t *filters)
{
    char *text = filters ? json_dumps(filters, JSON_COMPACT) : NULL;
    int r = text ? qfc_engine_path(path, format, text) : -ENOMEM;

    free(text);
    json_decref(filters);
    return r;
}

/* "/containers/create": a call upon all of them, not upon one that is named. */
static bool is_named(const char *rest, size_t length)
{
    static const char *const calls[] = {"create", "json", "load"};

    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        if (length == strlen(calls[i]) && strncmp(rest, calls[i], length) == 0)
            return false;
    return length > 0;
}

/* An image's name can have slashes of its own; nothing stands behind what is removed. */
void qfc_engine_pattern(const char *method, const char *path, char pattern[QFC_ENGINE_PATTERN_SIZE])
{
    size_t length = strcspn(path, "?");
    const char *end = path + length, *last = memrchr(path, '/', length);
    const char *first = length > 1 ? memchr(path + 1, '/', length - 1) : NULL;

    if (!first || !is_named(first + 1, (size_t)(end - first - 1))) {
        snprintf(pattern, QFC_ENGINE_PATTERN_SIZE, "%.*s", (int)length, path);
        return;
    }
    snprintf(pattern, QFC_ENGINE_PATTERN_SIZE, "%.*s/%s%.*s", (int)(first - path), path,
             strncmp(path, "/containers/", 12) == 0 ? "{id}" : "{name}",
             last > first && strcmp(method, "DELETE") != 0 ? (int)(end - last) : 0, last);
}
