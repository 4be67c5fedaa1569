/* Where the engine is, and how it is spoken to: the options, read and checked before anything connects. */
#include "engine_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#define DEFAULT_HOST        "unix:///var/run/docker.sock"
#define DEFAULT_DEADLINE_MS 60000u

/* Each file is looked at now: libcurl would name none of them. */
static char *certificate(const char *directory, const char *name, struct qfc_error *error)
{
    char *path;

    if (asprintf(&path, "%s/%s", directory, name) < 0) {
        qfc_fail_memory(error);
        return NULL;
    }
    if (access(path, R_OK) < 0) {
        qfc_fail(error, QFC_ERROR_USAGE, errno, "DOCKER_CERT_PATH: %s: %s", path, strerror(errno));
        free(path);
        return NULL;
    }
    return path;
}

static int configure_tls(struct qfc_engine *engine, const char *cert_path, struct qfc_error *error)
{
    const char *home = getenv("HOME");
    char *directory;

    if (!cert_path || !*cert_path) {
        if (asprintf(&directory, "%s/.docker", home ? home : "") < 0)
            return qfc_fail_memory(error);
    } else if (!(directory = strdup(cert_path))) {
        return qfc_fail_memory(error);
    }
    engine->tls = true;
    if ((engine->ca_file = certificate(directory, "ca.pem", error)))
        if ((engine->certificate_file = certificate(directory, "cert.pem", error)))
            engine->key_file = certificate(directory, "key.pem", error);
    free(directory);
    return engine->key_file ? 0 : -1;
}

static int configure_unix(struct qfc_engine *engine, const char *path, struct qfc_error *error)
{
    if (path[0] != '/')
        return qfc_fail(error, QFC_ERROR_USAGE, 0, "DOCKER_HOST: %s: the socket's path must begin with \"/\"",
                        engine->host);
    if (strlen(path) >= sizeof((struct sockaddr_un *)NULL)->sun_path)
        return qfc_fail(error, QFC_ERROR_USAGE, 0, "DOCKER_HOST: %s: the socket's path is longer than %zu bytes",
                        engine->host, sizeof((struct sockaddr_un *)NULL)->sun_path - 1);
    engine->socket = strdup(path);
    engine->where = strdup(path);
    engine->url = strdup("http://localhost");
    return engine->socket && engine->where && engine->url ? 0 : qfc_fail_memory(error);
}

/* What may be shown of a host that is not understood: a user and password before an "@" may not. */
static const char *shown(const char *host)
{
    const char *at = strrchr(host, '@');
    return at ? at : host;
}

/* "host", "host:port", "[address]:port"; the port's default is the docker client's. */
static int configure_tcp(struct qfc_engine *engine, const char *address, const struct qfc_engine_options *options,
                         struct qfc_error *error)
{
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._[]:";
    size_t length = strcspn(address, "/");
    const char *end_of_host = strrchr(address, ']'), *port = strchr(end_of_host ? end_of_host : address, ':');

    if (length == 0 || strspn(address, allowed) < length || address[length + (address[length] == '/')] != '\0')
        return qfc_fail(error, QFC_ERROR_USAGE, 0, "DOCKER_HOST: %s is not of the form tcp://host:port",
                        shown(engine->host));
    if (options->tls_verify && configure_tls(engine, options->cert_path, error) < 0)
        return -1;
    if (asprintf(&engine->where, "%.*s%s", (int)length, address,
                 port                  ? ""
                 : options->tls_verify ? ":2376"
                                       : ":2375") < 0) {
        engine->where = NULL;
        return qfc_fail_memory(error);
    }
    if (asprintf(&engine->url, "%s://%s", engine->tls ? "https" : "http", engine->where) < 0) {
        engine->url = NULL;
        return qfc_fail_memory(error);
    }
    return 0;
}

static int configure(struct qfc_engine *engine, const struct qfc_engine_options *options, struct qfc_error *error)
{
    const char *host = options->host && *options->host ? options->host : DEFAULT_HOST;

    engine->deadline_ms = options->deadline_ms ? options->deadline_ms : DEFAULT_DEADLINE_MS;
    engine->host = strdup(host);
    if (!engine->host)
        return qfc_fail_memory(error);
    if (strncmp(host, "unix://", 7) == 0)
        return configure_unix(engine, host + 7, error);
    if (strncmp(host, "tcp://", 6) == 0)
        return configure_tcp(engine, host + 6, options, error);
    return qfc_fail(error, QFC_ERROR_USAGE, 0, "DOCKER_HOST: %s: only unix:///path and tcp://host:port are understood",
                    shown(host));
}

static void destroy(struct qfc_engine *engine)
{
    free(engine->host);
    free(engine->where);
    free(engine->url);
    free(engine->socket);
    free(engine->ca_file);
    free(engine->certificate_file);
    free(engine->key_file);
    free(engine);
}

struct qfc_engine *qfc_engine_new(uv_loop_t *loop, struct qfc_http *http, const struct qfc_engine_options *options,
                                  struct qfc_error *error)
{
    struct qfc_engine *engine = calloc(1, sizeof *engine);

    if (!engine) {
        qfc_fail_memory(error);
        return NULL;
    }
    engine->loop = loop;
    engine->http = http;
    TAILQ_INIT(&engine->calls);
    if (configure(engine, options, error) < 0) {
        destroy(engine);
        return NULL;
    }
    uv_timer_init(loop, &engine->patience);
    engine->patience.data = engine;
    return engine;
}

static void on_closed(uv_handle_t *handle)
{
    destroy(handle->data);
}

/* The memory goes with the timer's close callback: never within a callback that is running now. */
void qfc_engine_free(struct qfc_engine *engine)
{
    struct qfc_engine_call *call;

    if (!engine || engine->closed)
        return;
    engine->closed = true;
    while ((call = TAILQ_FIRST(&engine->calls)))
        qfc_engine_cancel(call);
    if (engine->negotiation)
        qfc_http_cancel(engine->negotiation);
    engine->negotiation = NULL;
    uv_close((uv_handle_t *)&engine->patience, on_closed);
}

const char *qfc_engine_host(const struct qfc_engine *engine)
{
    return engine->host;
}
