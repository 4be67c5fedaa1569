/*
 * What `qfc-worker check` has found, as lines for people and as JSON.
 */
#include "check.h"

#include "qfc/text.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#define INDENT "                      "

static const char *const states[] = {
    [CHECK_OK] = "ok", [CHECK_WARNING] = "warning", [CHECK_FAILED] = "failed", [CHECK_SKIPPED] = "skipped"};

/* Does a character do something to a terminal, or turn the direction in which text is read? */
static bool is_unruly(const unsigned char *at, size_t length)
{
    unsigned code = length == 2   ? (unsigned)(at[0] & 0x1F) << 6 | (at[1] & 0x3F)
                    : length == 3 ? (unsigned)(at[0] & 0x0F) << 12 | (unsigned)(at[1] & 0x3F) << 6 | (at[2] & 0x3F)
                                  : *at;
    return code < 0x20 || (code >= 0x7F && code < 0xA0) || (code >= 0x200E && code <= 0x200F) ||
           (code >= 0x2028 && code <= 0x202E) || (code >= 0x2066 && code <= 0x2069);
}

/* A text from outside on one line, made harmless. */
static void put(const char *text)
{
    const unsigned char *at = (const unsigned char *)text, *end = at + strlen(text);
    while (at < end) {
        size_t length = qfc_utf8_length(at, end);
        if (length == 0 || is_unruly(at, length))
            fputc(*at == '\n' ? ' ' : '?', stdout);
        else
            fwrite(at, 1, length, stdout);
        at += length > 0 ? length : 1;
    }
}

static void put_line(const char *state, const char *name, const char *text)
{
    printf("%-9s%-13s", state, name);
    put(text);
    fputc('\n', stdout);
}

void check_print_list(void)
{
    printf("| check | is well when | mended by --fix |\n|---|---|---|\n");
    for (const struct check *check = checks; check->name; check++)
        printf("| %s | %s | %s |\n", check->name, check->about, check->mend ? "yes" : "");
}

void check_print(const struct check *check, const struct check_result *result, bool quiet)
{
    for (size_t i = 0; i < result->count; i++) {
        const struct finding *finding = &result->findings[i];
        if (quiet && finding->state == CHECK_OK)
            continue;
        put_line(states[finding->state], check->name, finding->seen);
        if (!finding->next)
            continue;
        printf(INDENT "next: ");
        put(finding->next);
        fputc('\n', stdout);
    }
    fflush(stdout); /* the next one may take long */
}

void check_print_mended(const struct check *check, const struct check_result *result, bool dry_run)
{
    for (size_t i = 0; i < result->mended_count; i++)
        put_line(dry_run ? "would" : "fixed", check->name, result->mended[i]);
    fflush(stdout);
}

void check_print_sum(const struct check_result *results)
{
    size_t counts[CHECK_SKIPPED + 1] = {0};
    for (const struct check *check = checks; check->name; check++)
        for (size_t i = 0; i < results[check - checks].count; i++)
            counts[results[check - checks].findings[i].state]++;
    printf("%zu ok, %zu warnings, %zu failed", counts[CHECK_OK], counts[CHECK_WARNING], counts[CHECK_FAILED]);
    if (counts[CHECK_SKIPPED] > 0)
        printf(", %zu not looked at", counts[CHECK_SKIPPED]);
    printf("\n");
}

/* A JSON string of any text; null for null, or without memory. */
static json_t *string(const char *text)
{
    struct qfc_buffer clean = qfc_buffer(64 * 1024);
    json_t *json = NULL;
    if (!text)
        return json_null();
    if (qfc_text_clean(&clean, text, strlen(text), NULL) == 0)
        json = json_string(qfc_buffer_text(&clean));
    qfc_buffer_free(&clean);
    return json;
}

static json_t *sentences(const struct check_result *result)
{
    json_t *array = json_array();
    for (size_t i = 0; array && i < result->mended_count; i++)
        json_array_append_new(array, string(result->mended[i]));
    return array;
}

static int add(json_t *array, const struct check *check, const struct check_result *result, bool quiet, bool dry_run)
{
    for (size_t i = 0; i < result->count; i++) {
        const struct finding *finding = &result->findings[i];
        bool told = i == 0 && result->mended_count > 0;
        if (quiet && finding->state == CHECK_OK && !told)
            continue;
        json_t *object = json_pack("{s:s, s:s, s:o, s:o}", "name", check->name, "state", states[finding->state], "seen",
                                   string(finding->seen), "next", string(finding->next));
        if (object && told)
            json_object_set_new(object, dry_run ? "would" : "fixed", sentences(result));
        if (json_array_append_new(array, object) < 0)
            return -1;
    }
    return 0;
}

int check_print_json(const struct check_result *results, bool quiet, bool dry_run)
{
    json_t *array = json_array();
    int r = array ? 0 : -1;
    for (const struct check *check = checks; r == 0 && check->name; check++)
        r = add(array, check, &results[check - checks], quiet, dry_run);
    /* ASCII alone: then nothing in it can do anything to a terminal. */
    if (r == 0)
        r = json_dumpf(array, stdout, JSON_INDENT(1) | JSON_ENSURE_ASCII);
    json_decref(array);
    printf("\n");
    return r;
}
