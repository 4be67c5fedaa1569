/*
 * Text from outside. What a container prints and writes is bytes: it becomes text here, once, before anything else
 * sees it, and an endless log becomes its beginning and its end.
 */
#include "qfc/text.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#define REPLACEMENT "\xEF\xBF\xBD" /* U+FFFD */

static bool is_continuation(unsigned char byte)
{
    return (byte & 0xC0) == 0x80;
}

/* The second byte's range depends on the first (RFC 3629, section 4): that is what refuses overlong forms,
 * surrogates and code points over U+10FFFF. */
static bool second_is_good(unsigned char first, unsigned char second)
{
    switch (first) {
    case 0xE0:
        return second >= 0xA0 && second <= 0xBF;
    case 0xED:
        return second >= 0x80 && second <= 0x9F;
    case 0xF0:
        return second >= 0x90 && second <= 0xBF;
    case 0xF4:
        return second >= 0x80 && second <= 0x8F;
    default:
        return is_continuation(second);
    }
}

/* What the first byte promises; 0 for a byte that begins nothing. */
static size_t promised_length(unsigned char first)
{
    if (first < 0x80)
        return 1;
    if (first >= 0xC2 && first <= 0xDF)
        return 2;
    if (first >= 0xE0 && first <= 0xEF)
        return 3;
    if (first >= 0xF0 && first <= 0xF4)
        return 4;
    return 0;
}

size_t qfc_utf8_length(const unsigned char *at, const unsigned char *end)
{
    if (at >= end)
        return 0;
    size_t length = promised_length(at[0]);
    if (length <= 1)
        return length;
    if ((size_t)(end - at) < length || !second_is_good(at[0], at[1]))
        return 0;
    for (size_t i = 2; i < length; i++) {
        if (!is_continuation(at[i]))
            return 0;
    }
    return length;
}

/* The first byte from `at` on that is NUL or beyond ASCII: eight at a time. */
static const unsigned char *skip_ascii(const unsigned char *at, const unsigned char *end)
{
    const uint64_t ones = 0x0101010101010101u, tops = 0x8080808080808080u;
    for (; end - at >= 8; at += 8) {
        uint64_t word;
        memcpy(&word, at, sizeof(word));
        /* Subtracting one borrows into the top bit of a byte that is zero. */
        if (((word | (word - ones)) & tops) != 0)
            break;
    }
    while (at < end && *at != 0 && *at < 0x80)
        at++;
    return at;
}

/* The first byte from `at` on that may not stand in clean text. */
static const unsigned char *skip_clean(const unsigned char *at, const unsigned char *end)
{
    for (;;) {
        at = skip_ascii(at, end);
        if (at == end || *at == 0)
            return at;
        size_t length = qfc_utf8_length(at, end);
        if (length == 0)
            return at;
        at += length;
    }
}

/* Takes back what was appended since the buffer had `size` bytes. */
static int take_back(struct qfc_buffer *out, size_t size, int reason)
{
    out->size = size;
    if (out->data)
        out->data[size] = 0;
    return reason;
}

int qfc_text_clean(struct qfc_buffer *out, const char *data, size_t size, size_t *ret_replaced)
{
    if (size == 0) {
        if (ret_replaced)
            *ret_replaced = 0;
        return 0;
    }
    const unsigned char *at = (const unsigned char *)data, *end = at + size;
    size_t before = out->size, replaced = 0;
    while (at < end) {
        const unsigned char *bad = skip_clean(at, end);
        int r = qfc_buffer_append(out, at, (size_t)(bad - at));
        if (r == 0 && bad < end) {
            r = qfc_buffer_append(out, REPLACEMENT, strlen(REPLACEMENT));
            replaced++;
            bad++;
        }
        if (r < 0)
            return take_back(out, before, r);
        at = bad;
    }
    if (ret_replaced)
        *ret_replaced = replaced;
    return 0;
}

/* What would take hold of a terminal, or of how a line reads: `length` bytes of well-formed UTF-8. */
static bool is_harmful(const unsigned char *at, size_t length)
{
    if (length == 1)
        return *at < 0x20 || *at == 0x7F;
    if (length == 2)
        return at[0] == 0xC2 && at[1] < 0xA0; /* C1 */
    if (length != 3 || at[0] != 0xE2)
        return false;
    return (at[1] == 0x80 && (at[2] == 0x8E || at[2] == 0x8F || (at[2] >= 0xA8 && at[2] <= 0xAE))) || /* U+200E.. */
           (at[1] == 0x81 && at[2] >= 0xA6 && at[2] <= 0xA9);                                         /* U+2066.. */
}

/* What stands for the character at `at`: itself, a blank, U+FFFD, or nothing. `length` is 0 where there is none. */
static const char *harmless(const unsigned char *at, size_t length, bool lines)
{
    if (length == 1 && (*at == '\n' || *at == '\t'))
        return lines ? NULL : " ";
    if (length == 1 && at[0] == '\r' && at[1] == '\n')
        return "";
    return length == 0 || is_harmful(at, length) ? "\xEF\xBF\xBD" : NULL;
}

int qfc_text_harmless(struct qfc_buffer *out, const char *data, size_t size, bool lines)
{
    const unsigned char *at = (const unsigned char *)data, *end = at + size, *plain = at;
    int r = 0;
    while (r == 0 && at < end) {
        size_t length = qfc_utf8_length(at, end);
        /* The byte behind a carriage return that comes last is not ours to look at. */
        const char *instead = *at == '\r' && at + 1 == end ? "\xEF\xBF\xBD" : harmless(at, length, lines);
        if (instead) {
            r = qfc_buffer_append(out, plain, (size_t)(at - plain));
            if (r == 0)
                r = qfc_buffer_append_text(out, instead);
            plain = at + (length ? length : 1);
        }
        at += length ? length : 1;
    }
    return r == 0 ? qfc_buffer_append(out, plain, (size_t)(end - plain)) : r;
}

void qfc_text_harmless_line(char *out, size_t size, const char *text)
{
    const unsigned char *at = (const unsigned char *)text, *end = at + strlen(text);
    size_t used = 0;
    while (at < end) {
        size_t length = qfc_utf8_length(at, end), taken = length ? length : 1;
        const char *instead = harmless(at, length, false);
        size_t needed = instead ? strlen(instead) : length;
        if (used + needed + 1 > size)
            break;
        memcpy(out + used, instead ? instead : (const char *)at, needed);
        used += needed;
        at += taken;
    }
    if (size > 0)
        out[used] = '\0';
}

struct qfc_excerpt qfc_excerpt(size_t maximum_bytes)
{
    size_t head = maximum_bytes / 2;
    return (struct qfc_excerpt){.head = qfc_buffer(head), .tail = qfc_buffer(maximum_bytes - head)};
}

/* Overwrites the oldest bytes of the full ring. */
static void turn_ring(struct qfc_excerpt *excerpt, const char *data, size_t size)
{
    size_t ring = excerpt->tail.maximum;
    excerpt->dropped_bytes += size;
    if (size > ring) {
        data += size - ring;
        size = ring;
    }
    while (size > 0) {
        size_t piece = ring - excerpt->tail_start;
        if (piece > size)
            piece = size;
        memcpy(excerpt->tail.data + excerpt->tail_start, data, piece);
        excerpt->tail_start = (excerpt->tail_start + piece) % ring;
        data += piece;
        size -= piece;
    }
}

/* Appends as much as fits; returns how much that was, or -ENOMEM. */
static ssize_t fill(struct qfc_buffer *buffer, const char *data, size_t size)
{
    size_t room = buffer->maximum - buffer->size;
    if (size > room)
        size = room;
    if (size == 0)
        return 0;
    int r = qfc_buffer_append(buffer, data, size);
    return r < 0 ? r : (ssize_t)size;
}

int qfc_excerpt_add(struct qfc_excerpt *excerpt, const char *data, size_t size)
{
    size_t head_before = excerpt->head.size;
    ssize_t in_head = fill(&excerpt->head, data, size);
    if (in_head < 0)
        return (int)in_head;
    data += in_head;
    size -= (size_t)in_head;
    ssize_t in_tail = fill(&excerpt->tail, data, size);
    if (in_tail < 0)
        return take_back(&excerpt->head, head_before, (int)in_tail);
    turn_ring(excerpt, data + in_tail, size - (size_t)in_tail);
    return 0;
}

/* How many bytes at the end are the beginning of a character whose rest is missing: 0 to 3. */
static size_t unfinished_bytes(const char *data, size_t size)
{
    for (size_t back = 1; back <= 3 && back <= size; back++) {
        unsigned char byte = (unsigned char)data[size - back];
        if (!is_continuation(byte))
            return promised_length(byte) > back ? back : 0;
    }
    return 0;
}

/* How many bytes at the start are the rest of a character whose beginning is missing: 0 to 3. */
static size_t orphaned_bytes(const char *data, size_t size)
{
    size_t count = 0;
    while (count < 3 && count < size && is_continuation((unsigned char)data[count]))
        count++;
    return count;
}

/* Turns the ring, so that it begins at its beginning: by turning over both parts, and then the whole. */
static void turn_over(char *data, size_t size)
{
    for (size_t i = 0; i < size / 2; i++) {
        char swapped = data[i];
        data[i] = data[size - 1 - i];
        data[size - 1 - i] = swapped;
    }
}

static void straighten(struct qfc_excerpt *excerpt)
{
    char *data = excerpt->tail.data;
    size_t start = excerpt->tail_start, size = excerpt->tail.size;
    if (start == 0)
        return;
    turn_over(data, start);
    turn_over(data + start, size - start);
    turn_over(data, size);
    excerpt->tail_start = 0;
}

/* Between head and tail: what was left out, to which the halves of cut characters are counted; or, where nothing was,
 * the character that lies on the seam. Takes `orphaned` bytes of the tail. */
static int add_seam(const struct qfc_excerpt *excerpt, size_t unfinished, size_t orphaned, struct qfc_buffer *out)
{
    const struct qfc_buffer *head = &excerpt->head;
    char seam[6];
    if (excerpt->dropped_bytes > 0)
        return qfc_buffer_printf(out, "\n[... %s%" PRIu64 " bytes of output left out ...]\n",
                                 excerpt->at_least ? "at least " : "", excerpt->dropped_bytes + unfinished + orphaned);
    if (unfinished + orphaned == 0)
        return 0;
    if (unfinished > 0)
        memcpy(seam, head->data + head->size - unfinished, unfinished);
    if (orphaned > 0)
        memcpy(seam + unfinished, excerpt->tail.data, orphaned);
    return qfc_text_clean(out, seam, unfinished + orphaned, NULL);
}

/* Cleans from byte `from` up to `to`, and forgets what was read. */
static int move_clean(struct qfc_buffer *data, size_t from, size_t to, struct qfc_buffer *out)
{
    int r = 0;
    while (r == 0 && from < to) {
        const char *at = qfc_buffer_text(data) + from;
        size_t size = to - from < QFC_FORGET_BYTES ? to - from : QFC_FORGET_BYTES;
        if (from + size < to)
            size -= unfinished_bytes(at, size);
        r = qfc_text_clean(out, at, size, NULL);
        from += size;
        qfc_buffer_forget(data, from);
    }
    return r;
}

int qfc_excerpt_text(struct qfc_excerpt *excerpt, struct qfc_buffer *out)
{
    struct qfc_buffer *head = &excerpt->head, *tail = &excerpt->tail;
    char seam[96];
    struct qfc_buffer between = {.data = seam, .room = sizeof seam, .maximum = sizeof seam - 1};
    size_t before = out->size;
    straighten(excerpt);
    size_t unfinished = unfinished_bytes(qfc_buffer_text(head), head->size);
    size_t orphaned = orphaned_bytes(qfc_buffer_text(tail), tail->size);
    int r = add_seam(excerpt, unfinished, orphaned, &between);
    if (r == 0)
        r = move_clean(head, 0, head->size - unfinished, out);
    qfc_buffer_free(head);
    if (r == 0)
        r = qfc_buffer_append(out, between.data, between.size);
    if (r == 0)
        r = move_clean(tail, orphaned, tail->size, out);
    qfc_excerpt_free(excerpt);
    return r < 0 ? take_back(out, before, r) : 0;
}

void qfc_excerpt_free(struct qfc_excerpt *excerpt)
{
    qfc_buffer_free(&excerpt->head);
    qfc_buffer_free(&excerpt->tail);
    excerpt->tail_start = 0;
    excerpt->dropped_bytes = 0;
    excerpt->at_least = false;
}

void qfc_wipe(char *text)
{
    if (text)
        explicit_bzero(text, strlen(text));
    free(text);
}
