/*
 * The Docker Engine API, as far as a worker needs it: one call at a time per job, all on one libuv loop.
 *
 * Facts about the API are from the Docker Engine API reference and its history up to v1.56, and from measurements noted beside
 * the code. The version is negotiated once (GET /version without a version in the path), before the first call, and
 * again after the engine could not be reached: min(own newest, the engine's), refused below the engine's minimum.
 *
 * Each call ends in exactly one `done`, never from within the function that started it, unless it is cancelled.
 * Errors carry the kinds of http.h; REFUSED with the HTTP status in `code` for an answer of 400 and more, AGAIN for
 * 503 and 429, for a GET that fails on the engine's side (5xx but 501), and where another engine has taken this one's
 * place and does not speak the version (400). An answer that makes no sense is INVALID, or UNKNOWN where the call may
 * have changed something. When the version cannot be negotiated, the calls that wait for it end in UNREACHABLE, as
 * nothing of them was sent, or, for a version that is refused, in REFUSED with the code 0. Each says what was tried and
 * what the engine answered:
 *     create container qfc-4f1c...-1: the engine answered 404: No such image: qgis3:latest
 *     connect to the engine at /var/run/docker.sock: permission denied: this user is not in the group "docker" (998)
 *         that owns the socket
 */
#pragma once

#include "qfc/buffer.h"
#include "qfc/error.h"
#include "qfc/http.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct qfc_engine;
struct qfc_engine_call;

#define QFC_CONTAINER_ID_SIZE 65 /* 64 hexadecimal digits and the zero byte */

struct qfc_engine_options {
    const char *host;      /* "unix:///path", "tcp://host:port"; null or "": unix:///var/run/docker.sock */
    bool tls_verify;       /* tcp over TLS, the server's certificate verified */
    const char *cert_path; /* directory of ca.pem, cert.pem, key.pem; null: ~/.docker as the docker client does */
    unsigned deadline_ms;  /* for one call, but for the wait of run and wait; 0: 60 s */
};

enum qfc_container_status {
    QFC_CONTAINER_CREATED,
    QFC_CONTAINER_RUNNING, /* also paused and restarting */
    QFC_CONTAINER_EXITED,  /* also dead and removing */
};

struct qfc_container_state {
    char id[QFC_CONTAINER_ID_SIZE];
    enum qfc_container_status status;
    int64_t exit_code;
    bool going;       /* somebody removes it: nothing can be fetched from it any more */
    bool oom_killed;  /* some process of it was killed for memory; the exit code may be anything */
    int64_t ran_ms;   /* from start to end on the engine's clock; of one that has ended, else 0 */
    int64_t lived_ms; /* the same from its creation on */
    char error[256];  /* the engine's own word on why it could not start, or "" */
};

/* What a container has used since its start; zero where the engine does not tell. */
struct qfc_container_usage {
    int64_t cpu_ns;       /* time of all processors together */
    int64_t memory_bytes; /* now; files that the kernel would drop at once are not counted */
    int64_t received_bytes, sent_bytes;
};

/* What a call brought; which members are set stands at the call. All of it ends with `done`. */
struct qfc_engine_reply {
    int status; /* HTTP status: 304 of start is a start, too */
    char id[QFC_CONTAINER_ID_SIZE];
    struct qfc_container_state state;
    int64_t exit_code;
    int64_t size_bytes; /* of an image; 0: not told */
    struct qfc_container_usage usage;
    struct qfc_buffer *data; /* a caller may take it with qfc_buffer_take */
};

/* `reply` is null where `error` is not. */
typedef void qfc_engine_done(void *userdata, const struct qfc_error *error, const struct qfc_engine_reply *reply);

/* Returns null with QFC_ERROR_USAGE for a host or certificates that cannot be used (the message names DOCKER_HOST or
 * DOCKER_CERT_PATH), or QFC_ERROR_MEMORY. Connects to nothing yet. `http` must outlive the engine. */
struct qfc_engine *qfc_engine_new(uv_loop_t *loop, struct qfc_http *http, const struct qfc_engine_options *options,
                                  struct qfc_error *error);

/* Cancels all calls. */
void qfc_engine_free(struct qfc_engine *engine);

/* "unix:///var/run/docker.sock", as it is spoken of. Never null. */
const char *qfc_engine_host(const struct qfc_engine *engine);

/*
 * All of these: return 0 and, where `ret_call` is not null, the call for qfc_engine_cancel, valid until its `done`;
 * or -1 (QFC_ERROR_MEMORY, QFC_ERROR_BUG), and then `done` is not called. `id` is a container's id or name. Texts are
 * copied; buffers that are sent are the caller's until `done` or cancel.
 */
#define QFC_ENGINE_END qfc_engine_done *done, void *userdata, struct qfc_engine_call **ret_call, struct qfc_error *error

/* GET /version: is the engine there, and which API version do we speak? Negotiates anew. Sets data: "1.41". */
int qfc_engine_probe(struct qfc_engine *engine, QFC_ENGINE_END);

/* Is there an image of that name or id? REFUSED 404: no. Sets data: its id ("sha256:..."), and size_bytes. */
int qfc_engine_image(struct qfc_engine *engine, const char *image, QFC_ENGINE_END);

/* Is there a network of that name or id? REFUSED 404: no. Sets data: its id. */
int qfc_engine_network(struct qfc_engine *engine, const char *network, QFC_ENGINE_END);

/* Is there a volume of that name? REFUSED 404: no. (A container that mounts one that is missing makes it, empty.) */
int qfc_engine_volume(struct qfc_engine *engine, const char *volume, QFC_ENGINE_END);

/* The volumes with that label ("name=value") that no container has. Sets data: their names, as a JSON array. */
int qfc_engine_unused_volumes(struct qfc_engine *engine, const char *label, QFC_ENGINE_END);

/* Removes a volume. One that is gone (404), or that a container has (409), is a success. */
int qfc_engine_remove_volume(struct qfc_engine *engine, const char *volume, QFC_ENGINE_END);

/* Gives the image of that id or name the name "repository" or "repository:tag" too; another image that has it loses it.
 * REFUSED 404: no such image. */
int qfc_engine_tag(struct qfc_engine *engine, const char *image, const char *name, QFC_ENGINE_END);

/* Takes away that name; an image without another one goes with it, unless a container is made of it (REFUSED 409). That
 * there is none (404) is a success. */
int qfc_engine_untag(struct qfc_engine *engine, const char *name, QFC_ENGINE_END);

/*
 * GET /images/NAME/get: the image as a tar, piece by piece to `piece`, which returns 0, -1 (abort: QFC_ERROR_INVALID) or
 * QFC_HTTP_HOLD (no more until qfc_engine_resume). By its id it comes without names. An engine that fails in the middle
 * may end the tar in an error's text: what came must be verified. No deadline: the caller watches over the progress.
 */
typedef int qfc_engine_piece(void *userdata, const char *data, size_t size);
int qfc_engine_export(struct qfc_engine *engine, const char *image, qfc_engine_piece *piece, QFC_ENGINE_END);

/*
 * POST /images/load of a tar, plain or compressed by gzip: `read_more` writes its next bytes and returns their number, 0
 * at the end, -1 (abort) or QFC_HTTP_LATER (none before qfc_engine_resume). `name` is for messages. Sets data: what the
 * engine said last. REFUSED with the code 200: it has answered that, and then found the archive wanting.
 */
typedef ssize_t qfc_engine_read(void *userdata, char *out, size_t room);
int qfc_engine_load(struct qfc_engine *engine, const char *name, qfc_engine_read *read_more, QFC_ENGINE_END);

/* Lets a call go on that its callback has held. */
void qfc_engine_resume(struct qfc_engine_call *call);

/* GET /info: sets data to the engine's ID, which outlives its restarts; empty where it tells none. Podman tells another
 * one each time (pkg/api/handlers/compat/info.go). */
int qfc_engine_identity(struct qfc_engine *engine, QFC_ENGINE_END);

/* GET /info: sets data to the engine's JSON object about itself. */
int qfc_engine_info(struct qfc_engine *engine, QFC_ENGINE_END);

/* Creates a container from a JSON body of the API. Sets id. A name that is taken is no error but a success with status
 * 409 and the id of the one that has it: names are made so that it can only be the same attempt, whose answer was lost.
 * `json` is the caller's until `done`; it may hold secrets and appears in no error. */
int qfc_engine_create(struct qfc_engine *engine, const char *name, const char *json, size_t json_size, QFC_ENGINE_END);

/* PUT of a tar into a directory of a container that may not have been started yet. 404: no such directory. */
int qfc_engine_put_archive(struct qfc_engine *engine, const char *id, const char *directory, const void *tar,
                           size_t tar_size, QFC_ENGINE_END);

/*
 * Starts a container and waits for its end: the wait (condition next-exit) is asked for before the start is sent, so
 * that no exit is missed however short the run. `started` is called first (its call has then ended, but not the
 * wait), and `done` when the container has exited: exit_code is set. When the start fails, `started` says so and
 * `done` is not called. Cancelling ends both. A wait whose answer is lost ends `done` with UNKNOWN: inspect tells.
 * A wait that fails before the start was sent is a start that failed: REFUSED, or UNREACHABLE, as for certain nothing
 * was started. An engine that holds the wait's headers back until the exit is sent the start after a second.
 */
int qfc_engine_run(struct qfc_engine *engine, const char *id, qfc_engine_done *started, QFC_ENGINE_END);

/* Starts a container that nobody waits for; one that runs already (304) is a success. */
int qfc_engine_start(struct qfc_engine *engine, const char *id, QFC_ENGINE_END);

/* Waits until a container that was started is no longer running. Sets exit_code. */
int qfc_engine_wait(struct qfc_engine *engine, const char *id, QFC_ENGINE_END);

/* Sets state (and id). REFUSED 404: no such container. */
int qfc_engine_inspect(struct qfc_engine *engine, const char *id, QFC_ENGINE_END);

/* The whole log so far, stdout and stderr in the order in which they were written, piece by piece to `on_log`
 * (-1 aborts: QFC_ERROR_INVALID); frames are taken off. Broken frames end in QFC_ERROR_INVALID. */
typedef int qfc_engine_log(void *userdata, const char *data, size_t size);
int qfc_engine_logs(struct qfc_engine *engine, const char *id, qfc_engine_log *on_log, QFC_ENGINE_END);

/* The same of a container that was started, from the log's beginning on and while it is written; ends when the container
 * has. A callback that is slow holds up neither the container nor other calls, but an engine may pass over what it has
 * thrown away meanwhile. */
typedef int qfc_engine_followed(void *userdata, bool from_stderr, const char *data, size_t size);
int qfc_engine_follow(struct qfc_engine *engine, const char *id, qfc_engine_followed *on_log, QFC_ENGINE_END);

/* Sets usage. Of one that does not run it is all zero, or REFUSED. */
int qfc_engine_stats(struct qfc_engine *engine, const char *id, QFC_ENGINE_END);

/* The content of one regular file of a container, also of one that has exited. Sets data. REFUSED 404: no such file
 * or container (the message tells which); UNKNOWN: nothing at all, as an engine answers that is being stopped;
 * INVALID: no regular file, or larger than `max_bytes`. */
int qfc_engine_get_file(struct qfc_engine *engine, const char *id, const char *path, size_t max_bytes, QFC_ENGINE_END);

/* SIGKILL. A container that is not running (409), or is gone (404), is a success. */
int qfc_engine_kill(struct qfc_engine *engine, const char *id, QFC_ENGINE_END);

/* Removes a container by force with its anonymous volumes. One that is gone (404), or is being removed (409), is a
 * success. */
int qfc_engine_remove(struct qfc_engine *engine, const char *id, QFC_ENGINE_END);

/* The same, but for a container that runs: REFUSED 409. */
int qfc_engine_remove_idle(struct qfc_engine *engine, const char *id, QFC_ENGINE_END);

/* All containers, running or not, that have the label ("name=value" or "name"). Sets data: the engine's JSON array. */
int qfc_engine_list(struct qfc_engine *engine, const char *label, QFC_ENGINE_END);

/*
 * Is it being stopped? Such an engine takes no more connections, but answers on over those that it has, while it closes
 * its stores one after the other: what is asked of it then fails (500), or is done by half (the volumes of a container
 * that is removed stay behind). So from now on, for a while, each call makes a connection of its own, and finds out. An
 * answer of 500 and above raises this doubt by itself.
 */
void qfc_engine_doubt(struct qfc_engine *engine);

/* Ends a call without any further callback. */
void qfc_engine_cancel(struct qfc_engine_call *call);
