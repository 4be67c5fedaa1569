/*
 * The body of a container's creation: Docker Engine API v1.41, ContainerCreate.
 */
#include "qfc/container.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

/* Adds `value`, which is taken over; a null `value` (out of memory, or not UTF-8) is an error. */
static int set(json_t *object, const char *name, json_t *value, struct qfc_error *error)
{
    if (!value || json_object_set_new(object, name, value) < 0)
        return qfc_fail(error, QFC_ERROR_INVALID, 0, "the container's %s is not UTF-8, or memory is out", name);
    return 0;
}

/* A list of texts, or null. */
static json_t *text_array(const char *const *texts)
{
    json_t *array = json_array();
    for (; array && texts && *texts; texts++) {
        if (json_array_append_new(array, json_string(*texts)) < 0) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

static json_t *text_pairs(const char *const *pairs)
{
    json_t *object = json_object();
    for (; object && pairs && pairs[0]; pairs += 2) {
        if (json_object_set_new(object, pairs[0], json_string(pairs[1])) < 0) {
            json_decref(object);
            return NULL;
        }
    }
    return object;
}

/*
 * Volumes as Mounts; the engine makes a named one that is missing. Anonymous ones have the container's labels, by which
 * those are known that an engine has made or left on its way down, and that no container has.
 */
static json_t *mount_array(const struct qfc_container *container)
{
    json_t *array = json_array();
    for (size_t i = 0; array && i < container->mount_count; i++) {
        const struct qfc_mount *mount = &container->mounts[i];
        json_t *object = json_pack("{s:s, s:s, s:b}", "Type", mount->bind ? "bind" : "volume", "Target", mount->target,
                                   "ReadOnly", (int)mount->read_only);
        int r = object && mount->source ? json_object_set_new(object, "Source", json_string(mount->source)) : 0;
        if (object && r == 0 && !mount->source)
            r = json_object_set_new(object, "VolumeOptions",
                                    json_pack("{s:b, s:o}", "NoCopy", (int)mount->empty, "Labels",
                                              text_pairs(container->labels)));
        if (r < 0) {
            json_decref(object);
            object = NULL;
        }
        if (json_array_append_new(array, object) < 0) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

/*
 * Set whatever the engine's default is: that may rotate the log away before it is fetched, or keep it elsewhere. Of two
 * files the older one goes when the newer one is full, so at least half of the size is there at the end; a single one
 * would be emptied.
 */
static json_t *log_config(int64_t max_bytes)
{
    char size[24];
    snprintf(size, sizeof size, "%lldk", (long long)(max_bytes / 2 / 1024));
    return json_pack("{s:s, s:{s:s, s:s}}", "Type", "json-file", "Config", "max-size", size, "max-file", "2");
}

/* The kernel's own period. NanoCpus would be refused on a host with fewer processors. */
#define CPU_PERIOD_US 100000

/* What holds the container in. */
static int confine(json_t *config, const struct qfc_container *container, struct qfc_error *error)
{
    if (container->processes > 0 && set(config, "PidsLimit", json_integer(container->processes), error) < 0)
        return -1;
    if (container->cpu_percent > 0 &&
        (set(config, "CpuPeriod", json_integer(CPU_PERIOD_US), error) < 0 ||
         set(config, "CpuQuota", json_integer(container->cpu_percent * CPU_PERIOD_US / 100), error) < 0))
        return -1;
    if (container->read_only_root && set(config, "ReadonlyRootfs", json_true(), error) < 0)
        return -1;
    if (container->without_capabilities && set(config, "CapDrop", json_pack("[s]", "ALL"), error) < 0)
        return -1;
    if (container->no_new_privileges && set(config, "SecurityOpt", json_pack("[s]", "no-new-privileges"), error) < 0)
        return -1;
    return 0;
}

/* "5678/tcp" */
static const char *port_name(unsigned port, char text[16])
{
    snprintf(text, 16, "%u/tcp", port);
    return text;
}

static json_t *port_bindings(unsigned port)
{
    char name[16], number[16];
    snprintf(number, sizeof number, "%u", port);
    return json_pack("{s:[{s:s}]}", port_name(port, name), "HostPort", number);
}

static json_t *exposed_ports(unsigned port)
{
    char name[16];
    return json_pack("{s:{}}", port_name(port, name));
}

static json_t *host_config(const struct qfc_container *container, struct qfc_error *error)
{
    json_t *config = json_object();
    if (!config || set(config, "Mounts", mount_array(container), error) < 0)
        goto failed;
    if (container->memory_bytes > 0 && set(config, "Memory", json_integer(container->memory_bytes), error) < 0)
        goto failed;
    if (container->cpu_shares > 0 && set(config, "CpuShares", json_integer(container->cpu_shares), error) < 0)
        goto failed;
    if (container->log_max_bytes > 0 && set(config, "LogConfig", log_config(container->log_max_bytes), error) < 0)
        goto failed;
    if (container->network && *container->network &&
        set(config, "NetworkMode", json_string(container->network), error) < 0)
        goto failed;
    if (container->binds && set(config, "Binds", text_array(container->binds), error) < 0)
        goto failed;
    if (container->published_port > 0 &&
        set(config, "PortBindings", port_bindings(container->published_port), error) < 0)
        goto failed;
    if (confine(config, container, error) < 0)
        goto failed;
    return config;

failed:
    json_decref(config);
    return NULL;
}

static int append(const char *data, size_t size, void *userdata)
{
    return qfc_buffer_append(userdata, data, size);
}

int qfc_container_json(const struct qfc_container *container, struct qfc_buffer *out, struct qfc_error *error)
{
    json_t *body = json_object();
    if (!body)
        return qfc_fail_memory(error);
    json_t *config = host_config(container, error);
    int r = config ? set(body, "HostConfig", config, error) : -1;
    if (r == 0)
        r = set(body, "Image", json_string(container->image), error);
    if (r == 0 && container->published_port > 0)
        r = set(body, "ExposedPorts", exposed_ports(container->published_port), error);
    if (r == 0)
        r = set(body, "Cmd", text_array(container->command), error);
    if (r == 0)
        r = set(body, "Env", text_array(container->environment), error);
    if (r == 0)
        r = set(body, "Labels", text_pairs(container->labels), error);
    if (r == 0 && json_dump_callback(body, append, out, JSON_COMPACT) < 0)
        r = qfc_fail(error, QFC_ERROR_INVALID, 0, "the container's description is larger than %zu bytes", out->maximum);
    json_decref(body);
    return r;
}
