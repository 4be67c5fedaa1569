/*
 * Growing byte buffers with a maximum: see qfc/buffer.h.
 */
#include "qfc/buffer.h"

#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct qfc_buffer qfc_buffer(size_t maximum_bytes)
{
    return (struct qfc_buffer){.maximum = maximum_bytes};
}

/* Makes room for `more` bytes and the zero byte. Doubles, so that appending is linear, but never beyond the maximum. */
static int reserve(struct qfc_buffer *buffer, size_t more)
{
    if (more > buffer->maximum - buffer->size)
        return -EMSGSIZE;
    size_t needed = buffer->size + more + 1;
    if (needed <= buffer->room)
        return 0;
    size_t room = buffer->room < 128 ? 128 : buffer->room;
    while (room < needed)
        room = room > buffer->maximum / 2 ? buffer->maximum + 1 : room * 2;
    char *data = realloc(buffer->data, room);
    if (!data)
        return -ENOMEM;
    buffer->data = data;
    buffer->room = room;
    return 0;
}

int qfc_buffer_append(struct qfc_buffer *buffer, const void *data, size_t size)
{
    int r = reserve(buffer, size);
    if (r < 0)
        return r;
    if (size > 0)
        memcpy(buffer->data + buffer->size, data, size);
    buffer->size += size;
    buffer->data[buffer->size] = '\0';
    return 0;
}

int qfc_buffer_append_text(struct qfc_buffer *buffer, const char *text)
{
    return qfc_buffer_append(buffer, text, strlen(text));
}

int qfc_buffer_printf(struct qfc_buffer *buffer, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    if (length < 0)
        return -EMSGSIZE;
    int r = reserve(buffer, (size_t)length);
    if (r < 0)
        return r;
    va_start(arguments, format);
    vsnprintf(buffer->data + buffer->size, (size_t)length + 1, format, arguments);
    va_end(arguments);
    buffer->size += (size_t)length;
    return 0;
}

const char *qfc_buffer_text(const struct qfc_buffer *buffer)
{
    return buffer->data ? buffer->data : "";
}

void qfc_buffer_cut(struct qfc_buffer *buffer, size_t size)
{
    if (size >= buffer->size)
        return;
    buffer->size = size;
    buffer->data[size] = '\0';
}

void qfc_buffer_forget(struct qfc_buffer *buffer, size_t size)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), start = (uintptr_t)buffer->data;
    uintptr_t first = (start + page - 1) / page * page,
              end = (start + (size < buffer->size ? size : buffer->size)) / page * page;
    if (end > first && end - first >= QFC_FORGET_BYTES / 2)
        madvise((void *)first, end - first, MADV_DONTNEED);
}

char *qfc_buffer_take(struct qfc_buffer *buffer)
{
    char *data = buffer->data;
    *buffer = qfc_buffer(buffer->maximum);
    return data;
}

void qfc_buffer_free(struct qfc_buffer *buffer)
{
    free(buffer->data);
    *buffer = qfc_buffer(buffer->maximum);
}

void qfc_buffer_wipe(struct qfc_buffer *buffer)
{
    if (buffer->data)
        explicit_bzero(buffer->data, buffer->room);
    qfc_buffer_free(buffer);
}
