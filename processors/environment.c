/*
 * What QFieldCloud's containers find in their environment (v25.27 to v26.25), in memory that is wiped.
 *
 * Each variable is a block of its own: a growing buffer would be moved, and leave copies behind.
 */
#include "qfc/environment.h"

#include "qfc/buffer.h"
#include "qfc/secrets.h"
#include "qfc/text.h"

#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* No process can be started with more in one variable, its name included (execve(2), MAX_ARG_STRLEN). */
#define NAMES_MAX_BYTES (128u * 1024 - sizeof "QFIELDCLOUD_EXTRA_ENVVARS=")

/* --- Lists -------------------------------------------------------------------------------------------------------- */

/* Makes room for one more, and the null behind it. */
static bool reserve(struct qfc_texts *texts)
{
    if (texts->count + 1 < texts->room)
        return true;
    size_t room = texts->room ? texts->room * 2 : 16;
    char **items = realloc(texts->items, room * sizeof *items);
    if (!items)
        return false;
    texts->items = items;
    texts->room = room;
    return true;
}

/* Adds a text, which is taken over whatever comes of it; null: memory is out. */
static int add(struct qfc_texts *texts, char *text, struct qfc_error *error)
{
    if (!text || !reserve(texts)) {
        qfc_wipe(text);
        return qfc_fail_memory(error);
    }
    texts->items[texts->count] = text;
    texts->items[++texts->count] = NULL;
    return 0;
}

void qfc_texts_free(struct qfc_texts *texts)
{
    for (size_t i = 0; i < texts->count; i++)
        qfc_wipe(texts->items[i]);
    free(texts->items);
    *texts = (struct qfc_texts){0};
}

int qfc_texts_printf(struct qfc_texts *texts, struct qfc_error *error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    char *text = size >= 0 ? malloc((size_t)size + 1) : NULL;
    if (text) {
        va_start(arguments, format);
        vsnprintf(text, (size_t)size + 1, format, arguments);
        va_end(arguments);
    }
    return add(texts, text, error);
}

const char *const *qfc_texts(const struct qfc_texts *texts)
{
    static const char *const none[] = {NULL};
    return texts->items ? (const char *const *)texts->items : none;
}

/* --- Variables ---------------------------------------------------------------------------------------------------- */

static size_t name_length(const char *variable)
{
    return strcspn(variable, "=");
}

/* Where the variable stands in the list, or null. */
static char **find(const struct qfc_environment *environment, const char *name)
{
    size_t length = strlen(name);
    for (size_t i = 0; i < environment->variables.count; i++) {
        char **variable = &environment->variables.items[i];
        if (name_length(*variable) == length && memcmp(*variable, name, length) == 0)
            return variable;
    }
    return NULL;
}

static char *join(const char *first, const char *second, const char *third)
{
    size_t sizes[] = {strlen(first), strlen(second), strlen(third)};
    char *text = malloc(sizes[0] + sizes[1] + sizes[2] + 1);
    if (!text)
        return NULL;
    memcpy(text, first, sizes[0]);
    memcpy(text + sizes[0], second, sizes[1]);
    memcpy(text + sizes[0] + sizes[1], third, sizes[2] + 1);
    return text;
}

/* Puts a text, which is taken over and may be null (out of memory), in the place of another, which may be null. */
static int put(struct qfc_environment *environment, char **place, char *text, struct qfc_error *error)
{
    if (!place)
        return add(&environment->variables, text, error);
    if (!text)
        return qfc_fail_memory(error);
    qfc_wipe(*place);
    *place = text;
    return 0;
}

int qfc_environment_set(struct qfc_environment *environment, const char *name, const char *value,
                        struct qfc_error *error)
{
    return put(environment, find(environment, name), join(name, "=", value), error);
}

int qfc_environment_append(struct qfc_environment *environment, const char *name, const char *value,
                           struct qfc_error *error)
{
    char **place = find(environment, name);
    return put(environment, place, place ? join(*place, "", value) : join(name, "=", value), error);
}

const char *qfc_environment_get(const struct qfc_environment *environment, const char *name)
{
    char **place = find(environment, name);
    return place ? *place + name_length(*place) + 1 : NULL;
}

void qfc_environment_free(struct qfc_environment *environment)
{
    qfc_texts_free(&environment->variables);
    qfc_texts_free(&environment->warnings);
}

static bool is_fixed(const char *name, size_t length)
{
    static const char *const fixed[] = {"PGSERVICE_FILE_CONTENTS",
                                        "QFIELDCLOUD_EXTRA_ENVVARS",
                                        "QFIELDCLOUD_TOKEN",
                                        "QFIELDCLOUD_URL",
                                        "JOB_ID",
                                        "PROJ_DOWNLOAD_DIR",
                                        "QT_QPA_PLATFORM"};
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++)
        if (strlen(fixed[i]) == length && memcmp(fixed[i], name, length) == 0)
            return true;
    return false;
}

bool qfc_environment_is_fixed(const char *name)
{
    return is_fixed(name, strlen(name));
}

/* --- QFIELDCLOUD_EXTRA_ENVVARS ------------------------------------------------------------------------------------ */

static int put_escaped(struct qfc_buffer *out, uint32_t point)
{
    if (point < 0x10000)
        return qfc_buffer_printf(out, "\\u%04x", (unsigned)point);
    point -= 0x10000;
    return qfc_buffer_printf(out, "\\u%04x\\u%04x", 0xD800u + (unsigned)(point >> 10), 0xDC00u + (point & 0x3FF));
}

/* One character of a JSON string, as Python's json.dumps writes it: ASCII alone. */
static int put_character(struct qfc_buffer *out, const unsigned char *at, size_t length)
{
    static const char escaped[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt";
    const char *escape = *at ? strchr(escaped, *at) : NULL;
    if (escape)
        return qfc_buffer_printf(out, "\\%c", letters[escape - escaped]);
    if (*at >= ' ' && *at <= '~')
        return qfc_buffer_append(out, at, 1);
    uint32_t point = length == 1 ? *at : *at & (0x7Fu >> length);
    for (size_t i = 1; i < length; i++)
        point = point << 6 | (at[i] & 0x3Fu);
    return put_escaped(out, point);
}

/* The name of a variable, which is UTF-8, as a JSON string. */
static int put_name(struct qfc_buffer *out, const char *variable)
{
    const unsigned char *at = (const unsigned char *)variable, *end = at + name_length(variable);
    int r = qfc_buffer_append_text(out, "\"");
    for (size_t length; r == 0 && (length = qfc_utf8_length(at, end)) > 0; at += length)
        r = put_character(out, at, length);
    return r == 0 ? qfc_buffer_append_text(out, "\"") : r;
}

/* By name; the order of UTF-8's bytes is that of code points, as in Python's sorted(). */
static int compare_names(const void *a, const void *b)
{
    const char *one = *(const char *const *)a, *other = *(const char *const *)b;
    size_t one_length = name_length(one), other_length = name_length(other);
    int order = memcmp(one, other, one_length < other_length ? one_length : other_length);
    return order != 0 ? order : (one_length > other_length) - (one_length < other_length);
}

/* The names of what secrets, and a custom CA, have set, as a JSON array. */
static int put_names(const struct qfc_environment *environment, struct qfc_buffer *out)
{
    char **sorted = malloc((environment->variables.count + 1) * sizeof *sorted);
    size_t count = 0;
    if (!sorted)
        return -ENOMEM;
    for (size_t i = 0; i < environment->variables.count; i++) {
        char *variable = environment->variables.items[i];
        if (!is_fixed(variable, name_length(variable)))
            sorted[count++] = variable;
    }
    qsort(sorted, count, sizeof *sorted, compare_names);
    int r = qfc_buffer_append_text(out, "[");
    for (size_t i = 0; r == 0 && i < count; i++) {
        r = i > 0 ? qfc_buffer_append_text(out, ", ") : 0;
        if (r == 0)
            r = put_name(out, sorted[i]);
    }
    free(sorted);
    return r == 0 ? qfc_buffer_append_text(out, "]") : r;
}

static int set_names(struct qfc_environment *environment, struct qfc_error *error)
{
    struct qfc_buffer names = qfc_buffer(NAMES_MAX_BYTES);
    int r = put_names(environment, &names);
    if (r == 0)
        r = qfc_environment_set(environment, "QFIELDCLOUD_EXTRA_ENVVARS", names.data, error);
    else if (r == -EMSGSIZE)
        r = qfc_fail(error, QFC_ERROR_INVALID, 0, "the names of the secrets are more than %zu bytes", NAMES_MAX_BYTES);
    else
        r = qfc_fail_memory(error);
    qfc_buffer_free(&names);
    return r;
}

/* --- All of it ---------------------------------------------------------------------------------------------------- */

/* These win over secrets of their names, which qfc_secrets_fill has left out. */
static int set_fixed(const struct qfc_environment_given *given, struct qfc_environment *environment,
                     struct qfc_error *error)
{
    const char *const fixed[][2] = {
        {"QFIELDCLOUD_TOKEN", given->token},        {"QFIELDCLOUD_URL", given->url},  {"JOB_ID", given->job_id},
        {"PROJ_DOWNLOAD_DIR", QFC_CONTAINER_GRIDS}, {"QT_QPA_PLATFORM", "offscreen"},
    };
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++)
        if (qfc_environment_set(environment, fixed[i][0], fixed[i][1], error) < 0)
            return -1;
    return 0;
}

int qfc_environment_make(const struct qfc_environment_given *given, struct qfc_environment *ret_environment,
                         struct qfc_error *error)
{
    struct qfc_environment environment = {0};
    int r = 0;
    if (given->custom_ca)
        r = qfc_environment_set(&environment, "REQUESTS_CA_BUNDLE", given->custom_ca, error);
    if (r == 0)
        r = qfc_environment_set(&environment, "PGSERVICE_FILE_CONTENTS", "", error);
    if (r == 0)
        r = qfc_secrets_fill(given->secrets, given->key, &environment, error);
    if (r == 0)
        r = set_names(&environment, error);
    if (r == 0)
        r = set_fixed(given, &environment, error);
    if (r == 0)
        *ret_environment = environment;
    else
        qfc_environment_free(&environment);
    return r;
}
