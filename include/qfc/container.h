/*
 * What a container is made of, as data, and its form in the Docker Engine API (POST /containers/create).
 */
#pragma once

#include "qfc/buffer.h"
#include "qfc/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct qfc_mount {
    /* The volume's name, or with `bind` a path on the engine's host that must be there; null: an anonymous volume,
     * removed with the container, whose labels it has. */
    const char *source;
    const char *target; /* path in the container */
    bool read_only;
    bool bind;
    bool empty; /* an anonymous one without what the image has there, which is copied otherwise as it is made */
};

/* All texts belong to whoever fills this; lists of texts are null-ended. */
struct qfc_container {
    const char *image;
    const char *const *command;     /* under the image's own entrypoint */
    const char *const *environment; /* "NAME=value"; may hold secrets */
    const char *const *labels;      /* name, value, name, value, ... */
    const char *network;            /* null or "": the engine's default */
    int64_t memory_bytes;           /* 0: no limit; swap is left to the engine's default */
    int64_t cpu_shares;             /* 0: the engine's default; relative weight */
    int64_t cpu_percent;            /* of one processor's time; 0: no quota */
    int64_t processes;              /* at most, threads included; 0: no limit */
    int64_t log_max_bytes;          /* of the container's log on the engine's disk; 0: as the engine is set */
    bool read_only_root;            /* only volumes can be written to */
    bool without_capabilities;      /* root in it is a user like others */
    bool no_new_privileges;         /* no program gets it more than it has (setuid) */
    const struct qfc_mount *mounts;
    size_t mount_count;
    const char *const *binds; /* "/path/on/the/host:/path:ro"; a source that is missing is made by the engine */
    unsigned published_port;  /* TCP port, on the host as in the container; 0: none */
};

/*
 * Appends the JSON body to `out`, whose maximum must allow it. It holds what the environment holds: wipe it with
 * qfc_buffer_wipe. Returns 0 or -1: QFC_ERROR_INVALID for a text that is not UTF-8 (the message says which, never its
 * value) or a body over the maximum, QFC_ERROR_MEMORY.
 */
int qfc_container_json(const struct qfc_container *container, struct qfc_buffer *out, struct qfc_error *error);
