/*
 * What was seen again and again: a thing that is to be mended only once it has been so for a while.
 */
#include "worker_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct sighting *find(const struct sightings *sightings, const char *key)
{
    for (size_t i = 0; i < sightings->count; i++)
        if (strcmp(sightings->items[i].key, key) == 0)
            return &sightings->items[i];
    return NULL;
}

/* Without memory it is forgotten, and seen for the first time again. */
static void add(struct sightings *sightings, const char *key, uint64_t now_ms)
{
    if (sightings->count == sightings->room) {
        size_t room = sightings->room > 0 ? 2 * sightings->room : 16;
        struct sighting *items = reallocarray(sightings->items, room, sizeof *items);
        if (!items)
            return;
        sightings->items = items;
        sightings->room = room;
    }
    struct sighting *sighting = &sightings->items[sightings->count++];
    *sighting = (struct sighting){.since_ms = now_ms, .seen = true};
    snprintf(sighting->key, sizeof sighting->key, "%s", key);
}

uint64_t sighted_for_ms(struct sightings *sightings, const char *key, uint64_t now_ms)
{
    struct sighting *sighting = find(sightings, key);
    if (!sighting) {
        add(sightings, key, now_ms);
        return 0;
    }
    sighting->seen = true;
    return now_ms - sighting->since_ms;
}

void sightings_end_round(struct sightings *sightings)
{
    size_t kept = 0;
    for (size_t i = 0; i < sightings->count; i++) {
        if (sightings->items[i].seen) {
            sightings->items[kept] = sightings->items[i];
            sightings->items[kept++].seen = false;
        }
    }
    sightings->count = kept;
}

void sightings_free(struct sightings *sightings)
{
    free(sightings->items);
    *sightings = (struct sightings){0};
}
