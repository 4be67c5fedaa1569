/*
 * Errors without allocation: see qfc/error.h for the convention.
 */
#include "qfc/error.h"

#include <stdio.h>
#include <string.h>

/* Marks a text that did not fit by three dots at its end, on a character boundary. */
static void mark_cut(char *text, size_t size)
{
    size_t end = size - 4;
    while (end > 0 && ((unsigned char)text[end] & 0xC0) == 0x80)
        end--;
    memcpy(text + end, "...", 4);
}

int qfc_fail(struct qfc_error *error, enum qfc_error_kind kind, int code, const char *format, ...)
{
    if (!error)
        return -1;
    error->kind = kind;
    error->code = code;
    error->sqlstate[0] = '\0';
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(error->message, sizeof error->message, format, arguments);
    va_end(arguments);
    if (length < 0)
        snprintf(error->message, sizeof error->message, "(unprintable error)");
    else if ((size_t)length >= sizeof error->message)
        mark_cut(error->message, sizeof error->message);
    return -1;
}

int qfc_fail_memory(struct qfc_error *error)
{
    return qfc_fail(error, QFC_ERROR_MEMORY, 0, "out of memory");
}

int qfc_context(struct qfc_error *error, const char *format, ...)
{
    if (!error)
        return -1;
    char inner[QFC_ERROR_MESSAGE_SIZE];
    memcpy(inner, error->message, sizeof inner);
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(error->message, sizeof error->message, format, arguments);
    va_end(arguments);
    if (length < 0)
        length = 0;
    if ((size_t)length < sizeof error->message)
        length += snprintf(error->message + length, sizeof error->message - (size_t)length, ": %s", inner);
    if ((size_t)length >= sizeof error->message)
        mark_cut(error->message, sizeof error->message);
    return -1;
}

const char *qfc_error_kind_name(enum qfc_error_kind kind)
{
    switch (kind) {
    case QFC_ERROR_NONE:
        return "none";
    case QFC_ERROR_UNREACHABLE:
        return "unreachable";
    case QFC_ERROR_UNKNOWN:
        return "unknown";
    case QFC_ERROR_REFUSED:
        return "refused";
    case QFC_ERROR_AGAIN:
        return "again";
    case QFC_ERROR_INVALID:
        return "invalid";
    case QFC_ERROR_LOST:
        return "lost";
    case QFC_ERROR_TAKEN:
        return "taken";
    case QFC_ERROR_CHANGED:
        return "changed";
    case QFC_ERROR_USAGE:
        return "usage";
    case QFC_ERROR_MEMORY:
        return "memory";
    case QFC_ERROR_BUG:
        return "bug";
    }
    return "?";
}
