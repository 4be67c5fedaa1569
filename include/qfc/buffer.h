/*
 * Growing byte buffers, each born with a maximum, so that nothing that comes from outside can take all memory.
 *
 * `data` is always followed by a zero byte once anything was appended, so that text needs no copy.
 */
#pragma once

#include <stddef.h>

struct qfc_buffer {
    char *data;     /* null while nothing was appended */
    size_t size;    /* bytes in use, without the trailing zero byte */
    size_t room;    /* bytes allocated */
    size_t maximum; /* `size` never exceeds this */
};

/* An empty buffer that will never hold more than `maximum_bytes`. Allocates nothing. */
struct qfc_buffer qfc_buffer(size_t maximum_bytes);

/*
 * Appends. Returns 0, -EMSGSIZE when the maximum would be exceeded, -ENOMEM when out of memory; on failure the buffer
 * is as it was. `data` may be null when `size` is 0, and must not point into the buffer itself.
 */
int qfc_buffer_append(struct qfc_buffer *buffer, const void *data, size_t size);
int qfc_buffer_append_text(struct qfc_buffer *buffer, const char *text);
int qfc_buffer_printf(struct qfc_buffer *buffer, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The content as text: never null, "" for an empty buffer. Belongs to the buffer. */
const char *qfc_buffer_text(const struct qfc_buffer *buffer);

/* Keeps the first `size` bytes; a buffer that has no more stays as it is. */
void qfc_buffer_cut(struct qfc_buffer *buffer, size_t size);

/*
 * The first `size` bytes are not needed any more: their memory goes back to the system, as far as it is whole pages of a
 * large buffer. `size` stays as it is; what those bytes are then is not known. For reading a large buffer while another
 * grows from it, so that both together take no more than one.
 */
void qfc_buffer_forget(struct qfc_buffer *buffer, size_t size);
#define QFC_FORGET_BYTES ((size_t)1024 * 1024) /* worth while after so many more */

/* Hands the content to the caller, who frees it with free(); null for an empty buffer, which this leaves empty. */
char *qfc_buffer_take(struct qfc_buffer *buffer);

/* Frees the content; the buffer is empty again and keeps its maximum. qfc_buffer_wipe overwrites it before. */
void qfc_buffer_free(struct qfc_buffer *buffer);
void qfc_buffer_wipe(struct qfc_buffer *buffer);
