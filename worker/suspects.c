/*
 * Which containers may be left over: see qfc/suspects.h.
 */
#include "qfc/suspects.h"

#include "qfc/engine.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static const char *label(const json_t *container, const char *name)
{
    const char *text = json_string_value(json_object_get(json_object_get(container, "Labels"), name));
    return text ? text : "";
}

static bool is_uuid(const char *text)
{
    static const char form[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
    size_t i = 0;
    while (form[i] && (form[i] == '-' ? text[i] == '-' : strspn(text + i, "0123456789abcdef") > 0))
        i++;
    return !form[i] && !text[i];
}

/* QFieldCloud's own has no label of its stack, but is on its network. */
static bool is_on_our_network(const char *network, const json_t *container)
{
    const json_t *networks = json_object_get(json_object_get(container, "NetworkSettings"), "Networks");
    return *network && json_object_get(networks, network);
}

static bool is_of_our_stack(const char *network, const char *stack, const json_t *container)
{
    if (*label(container, "qfc_worker"))
        return strcmp(label(container, "qfc_stack"), stack) == 0;
    return is_on_our_network(network, container);
}

static void add(struct qfc_suspects *suspects, const char *network, const char *stack, const json_t *container)
{
    const char *id = json_string_value(json_object_get(container, "Id")), *job = label(container, "job_id");
    if (!id || strlen(id) >= QFC_CONTAINER_ID_SIZE || !is_uuid(job) || !is_of_our_stack(network, stack, container))
        return;
    suspects->jobs[suspects->count] = job;
    suspects->containers[suspects->count] = id;
    suspects->workers[suspects->count++] = label(container, "qfc_worker");
}

int qfc_suspects_read(const char *json, size_t size, const char *network, const char *stack,
                      struct qfc_suspects *ret_suspects)
{
    json_t *list = json_loadb(json, size, 0, NULL);
    size_t length = json_array_size(list);
    const char **texts = calloc(3 * length + 1, sizeof *texts);
    if (!texts) {
        json_decref(list);
        return -1;
    }
    *ret_suspects =
        (struct qfc_suspects){.jobs = texts, .containers = texts + length, .workers = texts + 2 * length, .list = list};
    for (size_t i = 0; i < length; i++)
        add(ret_suspects, network, stack, json_array_get(list, i));
    return 0;
}

void qfc_suspects_free(struct qfc_suspects *suspects)
{
    free(suspects->jobs);
    json_decref(suspects->list);
    *suspects = (struct qfc_suspects){0};
}
