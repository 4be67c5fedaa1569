/*
 * Lists of keys, versions, collections: all that a store names, kept within bounds.
 */
#include "stores_private.h"

#include <stdlib.h>
#include <string.h>

#define NAMES_BYTES (32u * 1024 * 1024)

int names_add(struct names *names, const char *text, struct qfc_error *error)
{
    size_t size = strlen(text) + 1;

    if (names->count == QFC_STORE_KEYS || size > NAMES_BYTES - names->bytes)
        return qfc_fail(error, QFC_ERROR_INVALID, 0, "there are more than %u objects, or %u bytes of their names",
                        QFC_STORE_KEYS, NAMES_BYTES);
    if (names->count == names->room) {
        size_t room = names->room ? names->room * 2 : 16;
        char **items = reallocarray(names->items, room, sizeof *items);
        if (!items)
            return qfc_fail_memory(error);
        names->items = items;
        names->room = room;
    }
    char *copy = strdup(text);
    if (!copy)
        return qfc_fail_memory(error);
    names->items[names->count++] = copy;
    names->bytes += size;
    return 0;
}

void names_free(struct names *names)
{
    for (size_t i = 0; i < names->count; i++)
        free(names->items[i]);
    free(names->items);
    *names = (struct names){0};
}

static int compare(const void *one, const void *other)
{
    return strcmp(*(char *const *)one, *(char *const *)other);
}

void names_sort(struct names *names)
{
    size_t kept = 0;

    if (names->count > 0)
        qsort(names->items, names->count, sizeof *names->items, compare);
    for (size_t i = 0; i < names->count; i++) {
        if (kept > 0 && strcmp(names->items[kept - 1], names->items[i]) == 0)
            free(names->items[i]);
        else
            names->items[kept++] = names->items[i];
    }
    names->count = kept;
}

bool names_have(const struct names *names, const char *text)
{
    for (size_t i = 0; i < names->count; i++)
        if (strcmp(names->items[i], text) == 0)
            return true;
    return false;
}
