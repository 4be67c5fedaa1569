/*
 * Podman's Docker socket, where it answers otherwise than Docker.
 *
 * Seen with podman 4.3.1 (Debian 12) and read in the sources of 4.3.1 and 5.8.2. The words are those of
 * libpod/define/errors.go, and of containers/storage for the name.
 */
#include "engine_private.h"

#include <jansson.h>
#include <string.h>

/* Its answers of 500, and what Docker answers in such a case. */
static const struct {
    const char *method;
    const char *path_end; /* of the call's path, its query left out but where it tells two calls apart */
    const char *words;
    int status;
} answers[] = {
    {"POST", "/create", "that name is already in use", 409},
    {"POST", "/create", "network not found", 404},
    {"POST", "/kill", "container state improper", 409},
    {"DELETE", "?v=1", "container state improper", 409}, /* it runs; a removal by force is to be tried again */
    {"POST", "/start", "attempted to invoke a command that was not found", 400},
    {"POST", "/start", "OCI permission denied", 400},
};

/* Does `path` end with `end`, or go on after it with a query? */
static bool ends_with(const char *path, const char *end)
{
    const char *found = strstr(path, end);
    const char rest = found ? found[strlen(end)] : 'x';

    return rest == '\0' || rest == '?';
}

int qfc_engine_status(const char *method, const char *path, const struct qfc_http_response *response)
{
    if (response->status != 500)
        return response->status;
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
        if (strcmp(method, answers[i].method) != 0 || !ends_with(path, answers[i].path_end))
            continue;
        /* The whole body is searched: the words can stand behind a long name. */
        if (memmem(qfc_buffer_text(&response->body), response->body.size, answers[i].words, strlen(answers[i].words)))
            return answers[i].status;
    }
    return response->status;
}

/* pkg/api/handlers/compat/version.go */
bool qfc_engine_is_podman(json_t *version)
{
    size_t i;
    json_t *component;

    json_array_foreach(json_object_get(version, "Components"), i, component)
    {
        const char *name = json_string_value(json_object_get(component, "Name"));
        if (name && strcmp(name, "Podman Engine") == 0)
            return true;
    }
    return false;
}
