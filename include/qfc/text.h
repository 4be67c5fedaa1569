/*
 * Text from outside: made fit for PostgreSQL and for a terminal, and kept within bounds.
 */
#pragma once

#include "qfc/buffer.h"
#include "qfc/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * How many bytes (1 to 4) the well-formed UTF-8 sequence at `at` has (RFC 3629: no surrogates, nothing over
 * U+10FFFF, no overlong forms), or 0 where there is none. `end` is the first byte after the text.
 */
size_t qfc_utf8_length(const unsigned char *at, const unsigned char *end);

/*
 * Appends `size` bytes to `out`, with each NUL byte and each byte that is not part of well-formed UTF-8 as U+FFFD.
 * PostgreSQL's text refuses both. Returns 0, -EMSGSIZE or -ENOMEM as qfc_buffer_append; `ret_replaced` (may be null)
 * gets the number of replacements.
 */
int qfc_text_clean(struct qfc_buffer *out, const char *data, size_t size, size_t *ret_replaced);

/*
 * Appends `size` bytes as a terminal may be given them: control characters (C0, C1, DEL), those that change the direction
 * of writing, line and paragraph separators, and what is not well-formed UTF-8 become U+FFFD; a tab, and a line's end,
 * a blank, but with `lines` they stay. A carriage return before a line's end goes. Returns 0, -EMSGSIZE or -ENOMEM.
 */
int qfc_text_harmless(struct qfc_buffer *out, const char *data, size_t size, bool lines);

/* The same, as one line, into a fixed place; cut between two characters where it does not fit. */
void qfc_text_harmless_line(char *out, size_t size, const char *text);

/*
 * An excerpt of a text that may be endless: the first half and the last half of what `maximum_bytes` allows are kept,
 * and the number of bytes between them.
 */
struct qfc_excerpt {
    struct qfc_buffer head;
    struct qfc_buffer tail; /* a ring once it is full */
    size_t tail_start;      /* where the ring begins */
    uint64_t dropped_bytes;
    bool at_least; /* so many: nobody has counted all */
};

struct qfc_excerpt qfc_excerpt(size_t maximum_bytes);

/* Adds bytes. Returns 0 or -ENOMEM. */
int qfc_excerpt_add(struct qfc_excerpt *excerpt, const char *data, size_t size);

/*
 * Appends the cleaned text (qfc_text_clean): head, then, where something was dropped, a line
 * "\n[... N bytes of output left out ...]\n" ("at least N" where it is so), then the tail. The excerpt is empty afterwards,
 * and gives its memory back as the text grows. Returns 0, -EMSGSIZE (never for a maximum of at least three times the
 * excerpt's plus 100: cleaning can triple a byte) or -ENOMEM, with `out` as it was.
 */
int qfc_excerpt_text(struct qfc_excerpt *excerpt, struct qfc_buffer *out);

void qfc_excerpt_free(struct qfc_excerpt *excerpt);

/* Overwrites a secret text and frees it. Null is allowed. */
void qfc_wipe(char *text);
