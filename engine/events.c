/* The engine's events: one line of JSON each, and the answer that holds them asked for again and again. */
#include "engine_private.h"

#include "qfc/events.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define RETRY_MIN_MS 250
#define RETRY_MAX_MS 15000
#define FORBIDDEN_MS 60000 /* a proxy or an engine that refuses the question will not change its mind soon */

#define NS_PER_S 1000000000LL

struct qfc_events {
    struct qfc_engine *engine;
    struct qfc_engine_call *call; /* null: between two tries */
    uv_timer_t timer;
    char *filters; /* JSON */
    int64_t began_ns, last_ns;
    int64_t seen_ns; /* told before this answer was asked for, on the engine's clock; 0: nothing */
    bool told;       /* last_ns is of an event, and not of our own clock */
    unsigned failures;
    struct qfc_events_options options;
};

const char *qfc_event_attribute(const struct qfc_event *event, const char *name)
{
    return json_string_value(json_object_get(event->attributes, name));
}

static const char *text(const json_t *object, const char *name)
{
    const char *found = json_string_value(json_object_get(object, name));
    return found ? found : "";
}

static void on_line(struct qfc_engine_call *call, json_t *line)
{
    struct qfc_events *events = call->userdata;
    const json_t *actor = json_object_get(line, "Actor");
    int64_t time_ns = json_integer_value(json_object_get(line, "timeNano"));
    const struct qfc_event event = {
        .type = text(line, "Type"),
        .action = text(line, "Action"),
        .id = text(actor, "ID"),
        .time_ns = time_ns > 0 ? time_ns : json_integer_value(json_object_get(line, "time")) * NS_PER_S,
        .past = time_ns < events->began_ns,
        .attributes = json_object_get(actor, "Attributes"),
    };

    if (!*event.type || (event.time_ns > 0 && event.time_ns <= events->seen_ns))
        return;
    if (event.time_ns > events->last_ns || !events->told)
        events->last_ns = event.time_ns;
    events->told = true;
    events->options.on_event(events->options.userdata, &event);
}

static int on_data(struct qfc_engine_call *call, const char *data, size_t size)
{
    return qfc_engine_lines_add(call, data, size, on_line);
}

static void on_headers(struct qfc_engine_call *call, int status)
{
    struct qfc_events *events = call->userdata;

    if (status != 200)
        return;
    events->failures = 0;
    if (events->options.on_state)
        events->options.on_state(events->options.userdata, true, NULL);
}

static const struct call_form events_form = {
    .method = "GET",
    .endless = true,
    .on_headers = on_headers,
    .on_data = on_data,
};

static void ask(struct qfc_events *events);

static void on_timer(uv_timer_t *timer)
{
    ask(timer->data);
}

static void ask_later(struct qfc_events *events, const struct qfc_error *why)
{
    unsigned shift = events->failures < 6 ? events->failures : 6;
    uint64_t delay = (uint64_t)RETRY_MIN_MS << shift;

    events->failures++;
    if (delay > RETRY_MAX_MS)
        delay = RETRY_MAX_MS;
    if (why->kind == QFC_ERROR_REFUSED)
        delay = FORBIDDEN_MS;
    uv_timer_start(&events->timer, on_timer, delay, 0);
    if (events->options.on_state)
        events->options.on_state(events->options.userdata, false, why);
}

/* An answer that ends well has ended all the same: the engine stops. */
static void on_end(void *userdata, const struct qfc_error *error, const struct qfc_engine_reply *reply)
{
    struct qfc_events *events = userdata;
    struct qfc_error ended = QFC_NO_ERROR;

    events->call = NULL;
    if (!error)
        qfc_fail(&ended, QFC_ERROR_UNKNOWN, 0, "listen to the engine's events: the engine has ended its answer");
    ask_later(events, error ? error : &ended);
}

static void ask(struct qfc_events *events)
{
    struct qfc_error error = QFC_NO_ERROR;
    char since[48];
    struct qfc_engine_call *call = qfc_engine_call_new(events->engine, &events_form, "events", on_end, events, &error);

    if (!call) {
        ask_later(events, &error);
        return;
    }
    events->seen_ns = events->told ? events->last_ns : 0;
    snprintf(since, sizeof since, "%lld.%09lld", (long long)(events->last_ns / NS_PER_S),
             (long long)(events->last_ns % NS_PER_S));
    qfc_engine_path(&call->path, "/events?since=%&filters=%", since, events->filters);
    qfc_engine_call_name(call, "listen to the engine's events");
    if (qfc_engine_call_submit(call, &events->call, &error) < 0)
        ask_later(events, &error);
}

static int add_filter(json_t *filters, const char *name, const char *const *texts)
{
    json_t *list = json_array();

    for (; texts && *texts && list; texts++)
        if (json_array_append_new(list, json_string(*texts)) < 0)
            break;
    return json_object_set_new(filters, name, list);
}

static char *make_filters(const struct qfc_events_options *options)
{
    json_t *filters = json_object();
    char *made = NULL;

    if (filters && add_filter(filters, "type", options->types) == 0 &&
        add_filter(filters, "event", options->actions) == 0)
        made = json_dumps(filters, JSON_COMPACT);
    json_decref(filters);
    return made;
}

struct qfc_events *qfc_events_new(uv_loop_t *loop, struct qfc_engine *engine, const struct qfc_events_options *options,
                                  struct qfc_error *error)
{
    struct qfc_events *events = calloc(1, sizeof *events);
    struct timespec now;

    if (!events || !(events->filters = make_filters(options))) {
        free(events);
        qfc_fail_memory(error);
        return NULL;
    }
    clock_gettime(CLOCK_REALTIME, &now);
    events->engine = engine;
    events->options = *options;
    events->began_ns = (int64_t)now.tv_sec * NS_PER_S + now.tv_nsec;
    events->last_ns = events->began_ns - (int64_t)options->past_s * NS_PER_S;
    uv_timer_init(loop, &events->timer);
    events->timer.data = events;
    uv_timer_start(&events->timer, on_timer, 0, 0);
    return events;
}

static void on_closed(uv_handle_t *handle)
{
    struct qfc_events *events = handle->data;

    free(events->filters);
    free(events);
}

void qfc_events_free(struct qfc_events *events)
{
    if (!events)
        return;
    if (events->call)
        qfc_engine_cancel(events->call);
    events->call = NULL;
    uv_close((uv_handle_t *)&events->timer, on_closed);
}
