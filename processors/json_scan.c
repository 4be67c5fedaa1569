/*
 * The JSON scanner behind feedback.c: one function for each rule of the grammar. A library that builds a tree would
 * take many times the memory of a 64 MB text, and print numbers back that nobody wrote.
 *
 * What needs no change is copied in long runs: `copied` follows `at` only when something is replaced.
 */
#include "json_scan.h"
#include "qfc/text.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define REPLACEMENT        "\xEF\xBF\xBD" /* U+FFFD */
#define REPLACEMENT_ESCAPE "\\ufffd"
#define BYTE_ORDER_MARK    "\xEF\xBB\xBF"

struct scanner {
    const unsigned char *start;
    const unsigned char *at;
    const unsigned char *end;
    const unsigned char *copied; /* the input before this is in `out` or was replaced */
    size_t level;
    struct json_scan *scan;
    struct qfc_buffer *out;
    struct qfc_error *error;
};

static int scan_value(struct scanner *scanner);

/* Fails at a place; columns count characters, as editors do. */
static int fail_at(const struct scanner *scanner, const unsigned char *place, const char *what)
{
    size_t line = 1, column = 1;
    for (const unsigned char *p = scanner->start; p < place; p++) {
        if (*p == '\n') {
            line++;
            column = 1;
        } else if ((*p & 0xC0) != 0x80) {
            column++;
        }
    }
    return qfc_fail(scanner->error, QFC_ERROR_INVALID, 0, "line %zu column %zu: %s", line, column, what);
}

static int fail_here(const struct scanner *scanner, const char *what)
{
    if (scanner->at == scanner->end)
        return qfc_fail(scanner->error, QFC_ERROR_INVALID, 0, "ends too early: %s", what);
    return fail_at(scanner, scanner->at, what);
}

static int append(struct scanner *scanner, const void *data, size_t size)
{
    int r = qfc_buffer_append(scanner->out, data, size);
    if (r == -ENOMEM)
        return qfc_fail_memory(scanner->error);
    if (r < 0)
        return qfc_fail(scanner->error, QFC_ERROR_INVALID, 0, "larger than %zu bytes once cleaned",
                        scanner->out->maximum);
    return 0;
}

static int copy_run(struct scanner *scanner)
{
    int r = append(scanner, scanner->copied, (size_t)(scanner->at - scanner->copied));
    scanner->copied = scanner->at;
    return r;
}

/* Writes `text` in place of the next `size` bytes. */
static int replace(struct scanner *scanner, size_t size, const char *text)
{
    if (copy_run(scanner) < 0)
        return -1;
    scanner->at += size;
    scanner->copied = scanner->at;
    return append(scanner, text, strlen(text));
}

static int replace_character(struct scanner *scanner, size_t size, const char *text)
{
    scanner->scan->replaced_characters++;
    return replace(scanner, size, text);
}

/* The next byte, or 0 at the end (a real zero byte fits no rule outside strings either). */
static unsigned char peek(const struct scanner *scanner)
{
    return scanner->at < scanner->end ? *scanner->at : 0;
}

static bool take(struct scanner *scanner, unsigned char byte)
{
    if (peek(scanner) != byte || byte == 0)
        return false;
    scanner->at++;
    return true;
}

static bool starts_with(const struct scanner *scanner, const char *word)
{
    size_t length = strlen(word);
    return (size_t)(scanner->end - scanner->at) >= length && memcmp(scanner->at, word, length) == 0;
}

static void skip_space(struct scanner *scanner)
{
    const unsigned char *at = scanner->at, *end = scanner->end;
    while (at < end && (*at == ' ' || *at == '\n' || *at == '\t' || *at == '\r'))
        at++;
    scanner->at = at;
}

/* The first byte from `at` on that a string cannot simply hold: a quote, a backslash, a control character or
 * anything beyond ASCII. Eight bytes at a time, after "determine if a word has a byte less than n". */
static const unsigned char *skip_plain(const unsigned char *at, const unsigned char *end)
{
    const uint64_t ones = 0x0101010101010101u, tops = 0x8080808080808080u;
    for (; end - at >= 8; at += 8) {
        uint64_t word;
        memcpy(&word, at, sizeof(word));
        uint64_t quote = (word ^ (ones * '"')) - ones;
        uint64_t backslash = (word ^ (ones * '\\')) - ones;
        uint64_t control = word - ones * 0x20;
        if (((word | quote | backslash | control) & tops) != 0)
            break;
    }
    while (at < end && *at >= 0x20 && *at < 0x80 && *at != '"' && *at != '\\')
        at++;
    return at;
}

static int scan_unicode_escape(struct scanner *scanner)
{
    int32_t unit = json_code_unit(scanner->at, scanner->end);
    if (unit < 0)
        return fail_here(scanner, "expected four hexadecimal digits after \\u");
    if (json_is_high_surrogate(unit) &&
        json_is_low_surrogate(json_code_unit(scanner->at + JSON_ESCAPE_SIZE, scanner->end))) {
        scanner->at += 2 * JSON_ESCAPE_SIZE;
        return 0;
    }
    if (unit == 0 || json_is_high_surrogate(unit) || json_is_low_surrogate(unit))
        return replace_character(scanner, JSON_ESCAPE_SIZE, REPLACEMENT_ESCAPE);
    scanner->at += JSON_ESCAPE_SIZE;
    return 0;
}

static int scan_escape(struct scanner *scanner)
{
    unsigned char next = scanner->end - scanner->at > 1 ? scanner->at[1] : 0;
    if (next == 'u')
        return scan_unicode_escape(scanner);
    if (next == 0 || !strchr("\"\\/bfnrt", next))
        return fail_here(scanner, "an unknown escape");
    scanner->at += 2;
    return 0;
}

/* A raw control character: JSON wants it escaped, and NUL cannot be had at all. */
static int scan_control(struct scanner *scanner)
{
    static const char digits[] = "0123456789abcdef";
    unsigned char byte = *scanner->at;
    if (byte == 0)
        return replace_character(scanner, 1, REPLACEMENT);
    char escape[JSON_ESCAPE_SIZE + 1] = {'\\', 'u', '0', '0', digits[byte / 16], digits[byte % 16], 0};
    return replace(scanner, 1, escape);
}

static int scan_beyond_ascii(struct scanner *scanner)
{
    while (peek(scanner) >= 0x80) {
        size_t length = qfc_utf8_length(scanner->at, scanner->end);
        if (length == 0)
            return replace_character(scanner, 1, REPLACEMENT);
        scanner->at += length;
    }
    return 0;
}

static int scan_string(struct scanner *scanner)
{
    const unsigned char *quote = scanner->at;
    int r = 0;
    scanner->at++;
    while (r == 0) {
        scanner->at = skip_plain(scanner->at, scanner->end);
        if (scanner->at == scanner->end)
            return fail_at(scanner, quote, "a string without an end");
        unsigned char byte = *scanner->at;
        if (byte == '"') {
            scanner->at++;
            return 0;
        }
        if (byte == '\\')
            r = scan_escape(scanner);
        else if (byte < 0x20)
            r = scan_control(scanner);
        else
            r = scan_beyond_ascii(scanner);
    }
    return r;
}

static int skip_digits(struct scanner *scanner)
{
    const unsigned char *first = scanner->at;
    while (scanner->at < scanner->end && *scanner->at >= '0' && *scanner->at <= '9')
        scanner->at++;
    return scanner->at > first ? 0 : fail_here(scanner, "expected a digit");
}

/* Python reads no whole number of more than 4,300 digits (sys.int_info), so a row that holds one cannot be loaded. */
#define NUMBER_MAX_BYTES 4000

/* What jsonb refuses, or would write out as thousands of digits: of a number with an exponent, what is no double. */
static bool is_beyond(const unsigned char *start, const unsigned char *end, bool has_exponent)
{
    char text[NUMBER_MAX_BYTES + 1];
    size_t size = (size_t)(end - start);
    if (size > NUMBER_MAX_BYTES)
        return true;
    if (!has_exponent)
        return false;
    memcpy(text, start, size);
    text[size] = '\0';
    errno = 0;
    strtod(text, NULL);
    return errno == ERANGE;
}

/* Puts null in place of the number that was just read, where it is beyond what anybody can use. */
static int check_number(struct scanner *scanner, const unsigned char *start, bool has_exponent)
{
    size_t size = (size_t)(scanner->at - start);
    if (!is_beyond(start, scanner->at, has_exponent))
        return 0;
    scanner->at = start;
    scanner->scan->replaced_numbers++;
    return replace(scanner, size, "null");
}

static int scan_number(struct scanner *scanner)
{
    const unsigned char *start = scanner->at;
    if (starts_with(scanner, "-Infinity")) {
        scanner->scan->replaced_numbers++;
        return replace(scanner, strlen("-Infinity"), "null");
    }
    take(scanner, '-');
    if (!take(scanner, '0') && skip_digits(scanner) < 0)
        return -1;
    if (take(scanner, '.') && skip_digits(scanner) < 0)
        return -1;
    if (take(scanner, 'e') || take(scanner, 'E')) {
        if (!take(scanner, '+'))
            take(scanner, '-');
        return skip_digits(scanner) < 0 ? -1 : check_number(scanner, start, true);
    }
    return check_number(scanner, start, false);
}

static int scan_word(struct scanner *scanner)
{
    static const char *const words[] = {"true", "false", "null"}, *const numbers[] = {"NaN", "Infinity"};
    for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++) {
        if (starts_with(scanner, words[i])) {
            scanner->at += strlen(words[i]);
            return 0;
        }
    }
    for (size_t i = 0; i < sizeof(numbers) / sizeof(*numbers); i++) {
        if (starts_with(scanner, numbers[i])) {
            scanner->scan->replaced_numbers++;
            return replace(scanner, strlen(numbers[i]), "null");
        }
    }
    return fail_here(scanner, "expected a value");
}

/* Goes one level down and past the opening bracket; true in `ret_empty` when the closing one follows at once. */
static int enter(struct scanner *scanner, unsigned char closing, bool *ret_empty)
{
    if (scanner->level == JSON_MAX_LEVELS)
        return fail_here(scanner, "nested deeper than 500 levels");
    scanner->level++;
    scanner->at++;
    skip_space(scanner);
    *ret_empty = take(scanner, closing);
    return 0;
}

static int scan_array(struct scanner *scanner)
{
    bool closed = false;
    if (enter(scanner, ']', &closed) < 0)
        return -1;
    while (!closed) {
        skip_space(scanner);
        if (scan_value(scanner) < 0)
            return -1;
        skip_space(scanner);
        closed = take(scanner, ']');
        if (!closed && !take(scanner, ','))
            return fail_here(scanner, "expected \",\" or \"]\"");
    }
    scanner->level--;
    return 0;
}

/* Is this scanned string, without its quotes, the (ASCII) name? Its letters may be written as \u escapes. */
static bool is_name(const unsigned char *at, const unsigned char *end, const char *name)
{
    for (; *name != 0; name++) {
        int32_t unit = json_code_unit(at, end);
        if (unit < 0 && at < end)
            unit = *at;
        if (unit != *name)
            return false;
        at += *at == '\\' ? JSON_ESCAPE_SIZE : 1;
    }
    return at == end;
}

static struct json_member *find_member(const struct scanner *scanner, const unsigned char *at, const unsigned char *end)
{
    for (struct json_member *member = scanner->scan->members; member->name; member++) {
        if (is_name(at, end, member->name))
            return member;
    }
    return NULL;
}

/* Where the next byte of the input will stand in the copy. */
static size_t place_in_copy(const struct scanner *scanner)
{
    return scanner->out->size + (size_t)(scanner->at - scanner->copied);
}

static int scan_member(struct scanner *scanner)
{
    skip_space(scanner);
    const unsigned char *name = scanner->at + 1;
    if (peek(scanner) != '"')
        return fail_here(scanner, "expected a member's name in quotes");
    if (scan_string(scanner) < 0)
        return -1;
    struct json_member *member = scanner->level == 1 ? find_member(scanner, name, scanner->at - 1) : NULL;
    skip_space(scanner);
    if (!take(scanner, ':'))
        return fail_here(scanner, "expected \":\"");
    skip_space(scanner);
    size_t start = place_in_copy(scanner);
    if (scan_value(scanner) < 0)
        return -1;
    if (member) {
        member->start = start;
        member->size = place_in_copy(scanner) - start;
    }
    skip_space(scanner);
    return 0;
}

static int scan_object(struct scanner *scanner)
{
    bool closed = false;
    if (enter(scanner, '}', &closed) < 0)
        return -1;
    while (!closed) {
        if (scan_member(scanner) < 0)
            return -1;
        closed = take(scanner, '}');
        if (!closed && !take(scanner, ','))
            return fail_here(scanner, "expected \",\" or \"}\"");
    }
    scanner->level--;
    return 0;
}

/* Recursion ends at JSON_MAX_LEVELS. */
static int scan_value(struct scanner *scanner)
{
    switch (peek(scanner)) {
    case '{':
        return scan_object(scanner);
    case '[':
        return scan_array(scanner);
    case '"':
        return scan_string(scanner);
    case '-':
    case '0' ... '9':
        return scan_number(scanner);
    default:
        return scan_word(scanner);
    }
}

static int scan_text(struct scanner *scanner)
{
    if (starts_with(scanner, BYTE_ORDER_MARK)) {
        scanner->at += strlen(BYTE_ORDER_MARK);
        scanner->copied = scanner->at;
    }
    skip_space(scanner);
    if (scanner->at == scanner->end)
        return qfc_fail(scanner->error, QFC_ERROR_INVALID, 0, "empty");
    if (scan_value(scanner) < 0)
        return -1;
    skip_space(scanner);
    if (scanner->at < scanner->end)
        return fail_here(scanner, "expected nothing more");
    scanner->scan->as_it_is = scanner->copied == scanner->start && scanner->out->size == 0;
    return scanner->scan->as_it_is ? 0 : copy_run(scanner);
}

int json_scan(const char *data, size_t size, struct json_scan *scan, struct qfc_buffer *out, struct qfc_error *error)
{
    const unsigned char *start = (const unsigned char *)(size > 0 ? data : "");
    struct scanner scanner = {
        .start = start,
        .at = start,
        .end = start + size,
        .copied = start,
        .scan = scan,
        .out = out,
        .error = error,
    };
    scan->replaced_numbers = 0;
    scan->replaced_characters = 0;
    for (struct json_member *member = scan->members; member->name; member++)
        member->start = member->size = 0;
    return scan_text(&scanner);
}
