/*
 * The engine's events: something was removed, so look; and who has removed an image, as far as they tell. `docker image
 * prune` ends with an event of its own, `docker system prune` with one for networks besides, `docker rmi` with none.
 */
#include "image_guard.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define PAST_S  3600
#define TELL_MS 5000 /* a prune says so when it has ended */
#define CALM_MS 3000

#define NS_PER_S       1000000000LL
#define PRUNE_WITHIN_S 300

static const char *const types[] = {"image", "network", "volume", NULL};
static const char *const actions[] = {"delete", "untag",  "remove", "prune", "destroy",
                                      "tag",    "import", "load",   "pull",  NULL};

static void note(struct guard *guard, const char *action, const struct qfc_event *event)
{
    if (guard->deed_count == DEEDS)
        memmove(guard->deeds, guard->deeds + 1, sizeof *guard->deeds * --guard->deed_count);
    struct deed *deed = &guard->deeds[guard->deed_count++];
    snprintf(deed->action, sizeof deed->action, "%s", action);
    snprintf(deed->id, sizeof deed->id, "%.71s", event->id);
    deed->time_ns = event->time_ns;
}

/* `docker image prune -a` takes an image's names one by one, and spares the last one of an image that a container has. A
 * second name that is given again while it is at work would cost the image its own. */
static void note_unrest(struct guard *guard, const char *action)
{
    if (strcmp(action, "untag") != 0 && strcmp(action, "delete") != 0)
        return;
    guard->calm_ms = uv_now(&guard->worker->loop) + CALM_MS;
    tell_culprit_soon(guard); /* which looks again */
}

static void on_event(void *userdata, const struct qfc_event *event)
{
    struct guard *guard = userdata;
    bool image = strcmp(event->type, "image") == 0, prune = strcmp(event->action, "prune") == 0;
    if (image && strcmp(event->action, "remove") == 0)
        note(guard, "delete", event);
    else if (image && (prune || strcmp(event->action, "untag") == 0 || strcmp(event->action, "delete") == 0))
        note(guard, event->action, event);
    else if (prune && strcmp(event->type, "network") == 0)
        note(guard, "network prune", event);
    if (image && !event->past)
        note_unrest(guard, event->action);
    if (!event->past)
        needs_look(guard->worker);
}

/* Without events there is still the look every minute. An engine that is stopped ends its answer, however soon it is
 * back. */
static void on_state(void *userdata, bool open, const struct qfc_error *why)
{
    struct guard *guard = userdata;
    if (open)
        needs_look(guard->worker);
    else if (why->kind != QFC_ERROR_REFUSED)
        engine_missed(guard->worker);
    else if (!guard->told_deaf)
        qfc_log(QFC_LOG_INFO, NULL,
                "%s; what is removed from the engine is noticed within a minute all the same, but not what removed it",
                why->message);
    guard->told_deaf |= !open && why->kind == QFC_ERROR_REFUSED;
}

/* The last such deed to that image (any, for a null id) from that time on, or null. */
static const struct deed *last(const struct guard *guard, const char *action, const char *id, int64_t from_ns)
{
    for (size_t i = guard->deed_count; i > 0; i--) {
        const struct deed *deed = &guard->deeds[i - 1];
        if (strcmp(deed->action, action) == 0 && (!id || strcmp(deed->id, id) == 0) && deed->time_ns >= from_ns)
            return deed;
    }
    return NULL;
}

static const char *doer_of(const struct guard *guard, const struct deed *deed)
{
    int64_t since = deed->time_ns - PRUNE_WITHIN_S * NS_PER_S;
    if (!last(guard, "prune", NULL, deed->time_ns))
        return "docker rmi, or a call like it: there was no prune";
    return last(guard, "network prune", NULL, since) ? "docker system prune, or a call like it"
                                                     : "docker image prune, or a call like it";
}

static void tell(const struct guard *guard, const struct guarded *image, const char *name)
{
    const struct deed *untagged = last(guard, "untag", image->id, 0), *deleted = last(guard, "delete", image->id, 0);
    const struct deed *deed = deleted ? deleted : untagged;
    char when[32] = "";
    if (!deed) {
        qfc_log(QFC_LOG_WARNING, NULL, "the engine's events do not tell what has removed image %s", name);
        return;
    }
    time_t seconds = (time_t)(deed->time_ns / NS_PER_S);
    struct tm tm;
    gmtime_r(&seconds, &tm);
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", &tm);
    qfc_log(QFC_LOG_WARNING, NULL, "image %s (%.19s) was %s at %s by %s", name, image->id,
            deleted ? "deleted" : "left without that name", when, doer_of(guard, deed));
}

static void on_tell(uv_timer_t *timer)
{
    struct guard *guard = timer->data;
    for (enum need_kind kind = NEED_QGIS; kind < NEED_NETWORK; kind++) {
        struct guarded *image = &guard->images[kind];
        const char *name = need_name(guard->worker, kind);
        if (!image->culprit_due || !*image->id || !name)
            continue;
        image->culprit_due = false;
        if (!guard->told_deaf)
            tell(guard, image, name);
    }
    needs_look(guard->worker);
}

void tell_culprit_soon(struct guard *guard)
{
    uv_timer_start(&guard->tell, on_tell, TELL_MS, 0);
}

int guard_listen(struct guard *guard, struct qfc_error *error)
{
    const struct qfc_events_options options = {
        .types = types,
        .actions = actions,
        .past_s = PAST_S,
        .on_event = on_event,
        .on_state = on_state,
        .userdata = guard,
    };
    guard->events = qfc_events_new(&guard->worker->loop, guard->worker->engine, &options, error);
    return guard->events ? 0 : -1;
}
