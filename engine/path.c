/* Paths of the engine's API, with texts from outside escaped in them (RFC 3986, section 2.3). */
#include "engine_private.h"

#include <stdarg.h>
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
