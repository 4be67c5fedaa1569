/*
 * Python's view of a JSON text, in time and memory linear to it.
 *
 * Members are printed in the order of their names, so an object is gone through twice: once to collect them, once to
 * print them. That going through must not look into what the members hold (a deeply nested text would be read as often
 * as it is deep), so one pass notes beforehand where each object and array ends.
 */
#include "python_json.h"
#include "json_scan.h"
#include "python_float.h"
#include "qfc/text.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Of the texts that are taken; what they are noted with may take four times as much. */
#define MAX_BYTES ((size_t)256 * 1024 * 1024)

/* An object or array, in the order of their beginnings. */
struct container {
    uint32_t end;  /* place of the first byte behind it */
    uint32_t next; /* the first container that begins behind it */
};

/* A member of an object that is being printed. */
struct member {
    uint32_t name; /* places: of its first quote */
    uint32_t value;
    uint32_t container; /* the first that begins at the value or behind it */
};

struct printer {
    const unsigned char *json;
    const unsigned char *at;
    const unsigned char *end;
    struct qfc_buffer containers;
    struct qfc_buffer members; /* a stack: those of the objects around, and of this one */
    uint32_t container;        /* the next that begins at or behind `at` */
    struct qfc_buffer *out;
    struct qfc_error *error;
};

static int print_value(struct printer *printer);

static int append_to(struct qfc_buffer *buffer, const void *data, size_t size, struct qfc_error *error)
{
    int r = qfc_buffer_append(buffer, data, size);
    if (r == -ENOMEM)
        return qfc_fail_memory(error);
    if (r < 0)
        return qfc_fail(error, QFC_ERROR_INVALID, 0, "larger than %zu bytes as Python prints it", buffer->maximum);
    return 0;
}

static int put(struct printer *printer, const void *data, size_t size)
{
    return append_to(printer->out, data, size, printer->error);
}

/* --- Going through ------------------------------------------------------------------------------------------------ */

static const unsigned char *skip_space(const unsigned char *at, const unsigned char *end)
{
    while (at < end && (*at == ' ' || *at == '\n' || *at == '\t' || *at == '\r'))
        at++;
    return at;
}

/* From a string's first quote to behind its last. */
static const unsigned char *skip_string(const unsigned char *at, const unsigned char *end)
{
    for (at++; at < end && *at != '"'; at++)
        at += *at == '\\';
    return at < end ? at + 1 : end;
}

/* Behind a number, true, false or null. */
static const unsigned char *skip_word(const unsigned char *at, const unsigned char *end)
{
    while (at < end && !strchr(" \t\r\n,:]}", *at))
        at++;
    return at;
}

/* Behind any value, without notes about containers. */
static const unsigned char *skip_value(const unsigned char *at, const unsigned char *end)
{
    size_t level = 0;
    do {
        if (*at == '"')
            at = skip_string(at, end);
        else if (*at == '{' || *at == '[')
            level++, at++;
        else if (*at == '}' || *at == ']')
            level--, at++;
        else if (level == 0)
            at = skip_word(at, end);
        else
            at++;
    } while (level > 0 && at < end);
    return at;
}

static struct container *container_at(const struct printer *printer, uint32_t number)
{
    return (struct container *)(void *)printer->containers.data + number;
}

/* Notes where each object and array ends. */
static int note_containers(struct printer *printer)
{
    uint32_t open[PYTHON_JSON_MAX_LEVELS], count = 0;
    size_t level = 0;
    for (const unsigned char *at = printer->json; at < printer->end;) {
        if (*at == '"') {
            at = skip_string(at, printer->end);
            continue;
        }
        if (*at == '{' || *at == '[') {
            const struct container container = {0};
            if (level == PYTHON_JSON_MAX_LEVELS)
                return qfc_fail(printer->error, QFC_ERROR_INVALID, 0, "nested deeper than %d levels",
                                PYTHON_JSON_MAX_LEVELS);
            if (append_to(&printer->containers, &container, sizeof container, printer->error) < 0)
                return -1;
            open[level++] = count++;
        } else if ((*at == '}' || *at == ']') && level > 0) {
            level--;
            *container_at(printer, open[level]) = (struct container){(uint32_t)(at + 1 - printer->json), count};
        }
        at++;
    }
    return 0;
}

/* --- Strings ------------------------------------------------------------------------------------------------------ */

static uint32_t decode_utf8(const unsigned char *at, size_t length)
{
    static const unsigned char masks[] = {0, 0x7F, 0x1F, 0x0F, 0x07};
    uint32_t point = *at & masks[length];
    for (size_t i = 1; i < length; i++)
        point = point << 6 | (at[i] & 0x3F);
    return point;
}

static uint32_t next_escaped(const unsigned char **at, const unsigned char *end)
{
    static const char escapes[] = "bfnrt", decoded[] = "\b\f\n\r\t";
    const unsigned char *p = *at;
    int32_t unit = json_code_unit(p, end);
    if (unit < 0) {
        const char *escape = strchr(escapes, p[1]);
        *at = p + 2;
        return escape && *escape ? (unsigned char)decoded[escape - escapes] : p[1];
    }
    *at = p + JSON_ESCAPE_SIZE;
    int32_t low = json_is_high_surrogate(unit) ? json_code_unit(*at, end) : -1;
    if (!json_is_low_surrogate(low))
        return (uint32_t)unit;
    *at += JSON_ESCAPE_SIZE;
    return 0x10000 + ((uint32_t)(unit - 0xD800) << 10) + (uint32_t)(low - 0xDC00);
}

/* The next character within a string, or -1 at its last quote. */
static int64_t next_point(const unsigned char **at, const unsigned char *end)
{
    if (*at >= end || **at == '"')
        return -1;
    if (**at == '\\' && end - *at > 1)
        return next_escaped(at, end);
    size_t length = qfc_utf8_length(*at, end);
    if (length == 0)
        length = 1;
    uint32_t point = decode_utf8(*at, length);
    *at += length;
    return point;
}

static int put_unit(struct printer *printer, uint32_t unit)
{
    static const char digits[] = "0123456789abcdef";
    const char escape[JSON_ESCAPE_SIZE] = {
        '\\', 'u', digits[unit >> 12], digits[unit >> 8 & 15], digits[unit >> 4 & 15], digits[unit & 15],
    };
    return put(printer, escape, sizeof escape);
}

static int put_point(struct printer *printer, uint32_t point)
{
    static const char plain[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt";
    const char *special = point > 0 && point < 0x80 ? strchr(plain, (int)point) : NULL;
    if (special)
        return put(printer, (const char[]){'\\', letters[special - plain]}, 2);
    if (point >= 0x20 && point < 0x7F)
        return put(printer, &(const char){(char)point}, 1);
    if (point < 0x10000)
        return put_unit(printer, point);
    if (put_unit(printer, 0xD800 + ((point - 0x10000) >> 10)) < 0)
        return -1;
    return put_unit(printer, 0xDC00 + ((point - 0x10000) & 0x3FF));
}

/* The string at `at`, which need not be the printer's place. */
static int print_string(struct printer *printer, const unsigned char *at, const unsigned char **ret_behind)
{
    if (put(printer, "\"", 1) < 0)
        return -1;
    at++;
    for (;;) {
        const unsigned char *run = at;
        while (at < printer->end && *at >= 0x20 && *at < 0x7F && *at != '"' && *at != '\\')
            at++;
        if (at > run && put(printer, run, (size_t)(at - run)) < 0)
            return -1;
        int64_t point = next_point(&at, printer->end);
        if (point < 0)
            break;
        if (put_point(printer, (uint32_t)point) < 0)
            return -1;
    }
    *ret_behind = at + 1;
    return put(printer, "\"", 1);
}

/* --- Objects ------------------------------------------------------------------------------------------------------ */

/* By name, as Python compares texts (by code point); of equal names the one that comes first in the text. */
static int compare_members(const void *a, const void *b, void *userdata)
{
    const struct printer *printer = userdata;
    const struct member *left = a, *right = b;
    const unsigned char *p = printer->json + left->name + 1, *q = printer->json + right->name + 1;
    for (;;) {
        int64_t one = next_point(&p, printer->end), other = next_point(&q, printer->end);
        if (one != other)
            return one < other ? -1 : 1;
        if (one < 0)
            return 0;
    }
}

static int compare_places(const void *a, const void *b, void *userdata)
{
    int r = compare_members(a, b, userdata);
    const struct member *left = a, *right = b;
    return r != 0 ? r : left->name < right->name ? -1 : left->name > right->name;
}

static struct member *member_at(const struct printer *printer, size_t number)
{
    return (struct member *)(void *)printer->members.data + number;
}

static size_t count_members(const struct printer *printer)
{
    return printer->members.size / sizeof(struct member);
}

/* Goes on behind the value, whatever is in it. */
static void pass_value(struct printer *printer)
{
    if (*printer->at == '{' || *printer->at == '[') {
        const struct container *container = container_at(printer, printer->container);
        printer->at = printer->json + container->end;
        printer->container = container->next;
    } else {
        printer->at = skip_value(printer->at, printer->end);
    }
}

/* Puts the members of the object at the printer's place on the stack, and goes on behind it. */
static int collect_members(struct printer *printer)
{
    const unsigned char *end = printer->end;
    printer->container++;
    printer->at = skip_space(printer->at + 1, end);
    while (printer->at < end && *printer->at == '"') {
        struct member member = {.name = (uint32_t)(printer->at - printer->json)};
        printer->at = skip_space(skip_string(printer->at, end), end);
        printer->at = skip_space(printer->at + 1, end);
        member.value = (uint32_t)(printer->at - printer->json);
        member.container = printer->container;
        if (append_to(&printer->members, &member, sizeof member, printer->error) < 0)
            return -1;
        pass_value(printer);
        printer->at = skip_space(printer->at, end);
        if (printer->at < end && *printer->at == ',')
            printer->at = skip_space(printer->at + 1, end);
    }
    printer->at++;
    return 0;
}

static int print_member(struct printer *printer, const struct member *member, bool is_first)
{
    const unsigned char *behind;
    if (!is_first && put(printer, ", ", 2) < 0)
        return -1;
    if (print_string(printer, printer->json + member->name, &behind) < 0 || put(printer, ": ", 2) < 0)
        return -1;
    printer->at = printer->json + member->value;
    printer->container = member->container;
    return print_value(printer);
}

static int print_members(struct printer *printer, size_t first, size_t end)
{
    bool is_first = true;
    for (size_t i = first; i < end; i++) {
        const struct member member = *member_at(printer, i); /* the stack may move */
        if (i + 1 < end && compare_members(&member, member_at(printer, i + 1), printer) == 0)
            continue;
        if (print_member(printer, &member, is_first) < 0)
            return -1;
        is_first = false;
    }
    return 0;
}

static int print_object(struct printer *printer)
{
    size_t first = count_members(printer);
    if (put(printer, "{", 1) < 0 || collect_members(printer) < 0)
        return -1;
    const unsigned char *behind = printer->at;
    uint32_t container = printer->container;
    size_t end = count_members(printer);
    if (end > first + 1)
        qsort_r(member_at(printer, first), end - first, sizeof(struct member), compare_places, printer);
    if (print_members(printer, first, end) < 0)
        return -1;
    printer->members.size = first * sizeof(struct member);
    printer->at = behind;
    printer->container = container;
    return put(printer, "}", 1);
}

/* --- The rest ----------------------------------------------------------------------------------------------------- */

static int print_array(struct printer *printer)
{
    printer->container++;
    printer->at = skip_space(printer->at + 1, printer->end);
    if (put(printer, "[", 1) < 0)
        return -1;
    while (printer->at < printer->end && *printer->at != ']') {
        if (print_value(printer) < 0)
            return -1;
        printer->at = skip_space(printer->at, printer->end);
        if (*printer->at == ',') {
            printer->at = skip_space(printer->at + 1, printer->end);
            if (put(printer, ", ", 2) < 0)
                return -1;
        }
    }
    printer->at++;
    return put(printer, "]", 1);
}

/* A number, true, false or null. */
static int print_word(struct printer *printer)
{
    const unsigned char *word = printer->at;
    printer->at = skip_word(word, printer->end);
    size_t size = (size_t)(printer->at - word);
    bool is_number = *word == '-' || (*word >= '0' && *word <= '9');
    if (is_number && (memchr(word, '.', size) || memchr(word, 'e', size) || memchr(word, 'E', size))) {
        char text[PYTHON_FLOAT_SIZE];
        python_float(strtod((const char *)word, NULL), text);
        return put(printer, text, strlen(text));
    }
    if (size == 2 && memcmp(word, "-0", 2) == 0)
        return put(printer, "0", 1);
    return put(printer, word, size);
}

static int print_value(struct printer *printer)
{
    switch (printer->at < printer->end ? *printer->at : 0) {
    case '{':
        return print_object(printer);
    case '[':
        return print_array(printer);
    case '"':
        return print_string(printer, printer->at, &printer->at);
    default:
        return print_word(printer);
    }
}

int python_json_print(const char *json, size_t size, struct qfc_buffer *out, struct qfc_error *error)
{
    const unsigned char *start = (const unsigned char *)json;
    struct printer printer = {
        .json = start,
        .at = skip_space(start, start + size),
        .end = start + size,
        .containers = qfc_buffer(4 * MAX_BYTES),
        .members = qfc_buffer(4 * MAX_BYTES),
        .out = out,
        .error = error,
    };
    if (size > MAX_BYTES)
        return qfc_fail(error, QFC_ERROR_INVALID, 0, "larger than %zu bytes", MAX_BYTES);
    int r = note_containers(&printer);
    if (r == 0)
        r = print_value(&printer);
    qfc_buffer_free(&printer.containers);
    qfc_buffer_free(&printer.members);
    return r;
}

/* --- Finding ------------------------------------------------------------------------------------------------------ */

/* Is the string at `at` this ASCII name? */
static bool is_called(const unsigned char *at, const unsigned char *end, const char *name)
{
    for (at++;; name++) {
        int64_t point = next_point(&at, end);
        if (point < 0 || *name == 0)
            return point < 0 && *name == 0;
        if (point != (unsigned char)*name)
            return false;
    }
}

/* The value of the object's last member of that name, or null. */
static const unsigned char *find_member(const unsigned char *at, const unsigned char *end, const char *name)
{
    const unsigned char *found = NULL;
    at = skip_space(at, end);
    if (at == end || *at != '{')
        return NULL;
    at = skip_space(at + 1, end);
    while (at < end && *at == '"') {
        const unsigned char *called = at;
        at = skip_space(skip_string(at, end), end);
        at = skip_space(at + 1, end);
        if (is_called(called, end, name))
            found = at;
        at = skip_space(skip_value(at, end), end);
        if (at < end && *at == ',')
            at = skip_space(at + 1, end);
    }
    return found;
}

bool python_json_find(const char *json, size_t size, const char *const *path, const char **ret_json, size_t *ret_size)
{
    const unsigned char *at = (const unsigned char *)json, *end = at + size;
    for (; *path; path++) {
        at = find_member(at, end, *path);
        if (!at)
            return false;
        end = skip_value(at, end);
    }
    *ret_json = (const char *)at;
    *ret_size = (size_t)(end - at);
    return true;
}
