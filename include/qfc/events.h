/*
 * What happens in the engine, as it tells it: one endless answer (GET /events) that is asked for again, from where it
 * broke off, when it has ended. For all of a process: the engine filters, and whoever needs less looks at type and
 * action.
 *
 * An engine remembers its last 256 events (Docker: daemon/events/events.go), or all in its journal (Podman). Events can
 * be lost all the same, and a proxy may forbid the question: who relies on them looks for himself now and then, too.
 */
#pragma once

#include "qfc/engine.h"

struct qfc_events;

/* Valid within the callback. No text is null. */
struct qfc_event {
    const char *type; /* "container", "image", "network", "volume" */
    const char
        *action;     /* Docker's: "die", "oom", "delete", "untag", "destroy", "prune"; Podman says "remove" of images */
    const char *id;  /* of what it has happened to: an image's id, a volume's name */
    int64_t time_ns; /* since 1970, on the engine's clock */
    bool past;       /* it had happened before this was first asked */
    const void *attributes;
};

/* "name", "image", "exitCode", a label: null where the event has none of that name, or no text. */
const char *qfc_event_attribute(const struct qfc_event *event, const char *name);

struct qfc_events_options {
    const char *const *types;   /* only these, null-ended; copied */
    const char *const *actions; /* only these, null-ended; copied */
    unsigned past_s;            /* the first time also what has happened so long ago; 0: nothing */
    void (*on_event)(void *userdata, const struct qfc_event *event);
    /* The engine tells from now on (`why` null), or does not (`why`), and is asked again by and by. Called on each change
     * and each failed try. What has happened in between may be lost: look. May be null. */
    void (*on_state)(void *userdata, bool open, const struct qfc_error *why);
    void *userdata;
};

/* Begins to listen. Null: QFC_ERROR_MEMORY. `engine` must outlive it. */
struct qfc_events *qfc_events_new(uv_loop_t *loop, struct qfc_engine *engine, const struct qfc_events_options *options,
                                  struct qfc_error *error);

/* Not from its own callbacks. Null is allowed; the memory goes when the loop has closed its handle. */
void qfc_events_free(struct qfc_events *events);
