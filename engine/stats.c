/*
 * What a container has used: one look at its counters. A look without the second sample that the docker client wants
 * (`one-shot`, API 1.41) costs the engine a few milliseconds; older ones take a second for it, and answer the same.
 */
#include "engine_private.h"

#include <jansson.h>

static int64_t number(json_t *object, const char *name)
{
    json_t *value = json_object_get(object, name);

    return json_is_number(value) && json_number_value(value) > 0 ? (int64_t)json_number_value(value) : 0;
}

/* Without the files that the kernel would drop at once, as the docker client shows it: cgroup v1 and v2 name them apart. */
static int64_t memory_of(json_t *memory)
{
    json_t *details = json_object_get(memory, "stats");
    int64_t usage = number(memory, "usage"), files = number(details, "total_inactive_file");

    if (files == 0)
        files = number(details, "inactive_file");
    return files < usage ? usage - files : usage;
}

static int read_stats(struct qfc_engine_call *call, struct qfc_http_response *response, struct qfc_error *error)
{
    json_t *answer = json_loadb(qfc_buffer_text(&response->body), response->body.size, 0, NULL);
    json_t *networks = json_object_get(answer, "networks"), *network;
    struct qfc_container_usage *usage = &call->reply.usage;
    const char *name;

    if (!json_is_object(answer)) {
        json_decref(answer);
        return qfc_engine_nonsense(call, error, "no object");
    }
    usage->cpu_ns = number(json_object_get(json_object_get(answer, "cpu_stats"), "cpu_usage"), "total_usage");
    usage->memory_bytes = memory_of(json_object_get(answer, "memory_stats"));
    json_object_foreach(networks, name, network)
    {
        usage->received_bytes += number(network, "rx_bytes");
        usage->sent_bytes += number(network, "tx_bytes");
    }
    json_decref(answer);
    return 0;
}

static const struct call_form stats_form = {.method = "GET", .max_body_bytes = QFC_SMALL_ANSWER, .read = read_stats};

int qfc_engine_stats(struct qfc_engine *engine, const char *id, QFC_ENGINE_END)
{
    struct qfc_engine_call *call = qfc_engine_call_new(engine, &stats_form, id, done, userdata, error);

    if (!call)
        return -1;
    qfc_engine_path(&call->path, "/containers/%/stats?stream=0&one-shot=1", id);
    qfc_engine_call_name(call, "ask what container %.*s uses", qfc_engine_shown(id), id);
    return qfc_engine_call_submit(call, ret_call, error);
}
