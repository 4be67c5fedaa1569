/* What the files of the engine room share: a call and its life. */
#pragma once

#include "qfc/engine.h"

#include "frames.h"

#include <jansson.h>
#include <sys/queue.h>

#define QFC_SMALL_ANSWER (1024u * 1024)
#define QFC_LARGE_ANSWER (16u * 1024 * 1024)

/* An answer that is a stream of JSON texts, one a line: lines.c. A line that is too long is passed over. */
struct qfc_engine_lines {
    struct qfc_buffer line;
    bool too_long; /* the rest of this line is passed over */
};
typedef void qfc_engine_line(struct qfc_engine_call *call, json_t *line);

enum call_state {
    CALL_WAITING, /* for the version to be negotiated */
    CALL_RUNNING,
    CALL_ENDED, /* its last callback is running; in no list */
};

/* What kind of call it is: one constant per function of engine.h. Null members are left out. */
struct call_form {
    const char *method;
    const char *content_type; /* of what is sent */
    size_t max_body_bytes;    /* of the answer */
    bool endless;             /* no deadline */
    bool bulk;                /* gigabytes */
    int accepts[2];           /* refusals that are none */

    /* Sends the first request; null: the one at `path`. */
    int (*begin)(struct qfc_engine_call *call, struct qfc_error *error);
    int (*on_data)(struct qfc_engine_call *call, const char *data, size_t size); /* as of qfc/http.h */
    void (*on_headers)(struct qfc_engine_call *call, int status);
    ssize_t (*read_body)(struct qfc_engine_call *call, char *out, size_t room); /* as of qfc/http.h */
    /* Reads an answer that is no refusal. 0: the call has ended well, -1: it has failed, 1: it goes on. */
    int (*read)(struct qfc_engine_call *call, struct qfc_http_response *response, struct qfc_error *error);
    /* The transfer failed. As `read`. */
    int (*failed)(struct qfc_engine_call *call, const struct qfc_error *failure, struct qfc_error *error);
};

struct qfc_engine_call {
    struct qfc_engine *engine;
    TAILQ_ENTRY(qfc_engine_call) link;
    const struct call_form *form;
    enum call_state state;
    unsigned round; /* the negotiation that it waits for */
    bool held;      /* one of its callbacks is running: it must not be freed now */
    bool cancelled; /* while it was held */

    char *id;               /* container's, or image's */
    char *what;             /* "create container qfc-1", for messages */
    struct qfc_buffer path; /* after the version */
    const void *body;       /* the caller's */
    size_t body_size;
    struct qfc_http_transfer *transfer;
    struct qfc_buffer data; /* reply.data */
    struct qfc_engine_reply reply;
    struct qfc_error failure; /* what is already known to be wrong */
    qfc_engine_done *done;
    void *userdata;

    /* run: the wait is `transfer` */
    qfc_engine_done *started;
    struct qfc_http_transfer *start;
    uint64_t patience_until; /* of uv_hrtime, in ms: when to start without the wait's headers; 0: not any more */
    bool start_done, wait_ended;

    /* run and wait: a look now and then, whether it has ended unnoticed */
    struct qfc_http_transfer *look;
    uint64_t look_at; /* as patience_until; 0: none is due */

    /* logs */
    struct qfc_frames frames;
    qfc_engine_log *on_log; /* or: */
    qfc_engine_followed *on_followed;

    /* export, load, events: the caller's, and what came of a line */
    qfc_engine_piece *on_piece;
    qfc_engine_read *read_piece;
    struct qfc_engine_lines lines;

    /* get_file */
    size_t max_file_bytes;
    bool over; /* more came than was asked for */
};

struct qfc_engine {
    uv_loop_t *loop;
    struct qfc_http *http;
    uv_timer_t patience; /* the earliest of all calls: patience and looks */
    bool closed;
    TAILQ_HEAD(, qfc_engine_call) calls;

    char *host;   /* "unix:///var/run/docker.sock" */
    char *where;  /* "/var/run/docker.sock", "host:2375" */
    char *url;    /* "http://localhost" */
    char *socket; /* null for TCP */
    bool tls;
    char *ca_file, *certificate_file, *key_file;
    unsigned deadline_ms;
    uint64_t doubted_until; /* of uv_hrtime, in ms */

    char api[16];   /* "1.41" */
    bool podman;    /* not Docker; known with the version */
    bool api_known; /* else the next call asks first */
    unsigned round; /* of negotiation: calls that wait belong to one */
    struct qfc_http_transfer *negotiation;
};

/* call.c: the life of a call. */
struct qfc_engine_call *qfc_engine_call_new(struct qfc_engine *engine, const struct call_form *form, const char *id,
                                            qfc_engine_done *done, void *userdata, struct qfc_error *error);
__attribute__((format(printf, 2, 3))) void qfc_engine_call_name(struct qfc_engine_call *call, const char *format, ...);
/* For "%.*s" in messages: the docker client's twelve digits of an id, and the whole of a name. */
int qfc_engine_shown(const char *id);
/* Queues or sends it; ends `call` when that fails. */
int qfc_engine_call_submit(struct qfc_engine_call *call, struct qfc_engine_call **ret_call, struct qfc_error *error);
/* Calls `last` (done or started), and frees the call. `error` may be null. */
void qfc_engine_call_end(struct qfc_engine_call *call, qfc_engine_done *last, const struct qfc_error *error);
/* Around a callback that is not the last; release returns false when the call was cancelled in it, and is freed. */
void qfc_engine_call_hold(struct qfc_engine_call *call);
bool qfc_engine_call_release(struct qfc_engine_call *call);
/* The one place that starts a transfer: fills in where to. `api` may be "" for no version before the path. */
int qfc_engine_send(struct qfc_engine *engine, struct qfc_http_request *request, const char *api, const char *path,
                    struct qfc_http_transfer **ret_transfer, struct qfc_error *error);
int qfc_engine_call_send(struct qfc_engine_call *call, struct qfc_error *error);
/* Sends what has waited for the version. */
void qfc_engine_call_go(struct qfc_engine_call *call);

/* negotiate.c: the version. */
int qfc_engine_negotiate(struct qfc_engine *engine, struct qfc_error *error);
extern const struct call_form qfc_engine_probe_form;

/* run.c: its timer. */
void qfc_engine_arm_patience(struct qfc_engine *engine);

/* containers.c: the state out of an inspection's answer. */
int qfc_engine_read_state(struct qfc_engine_call *call, struct qfc_http_response *response, struct qfc_error *error);

/* podman.c: the status of an answer as Docker would give it, and which of the two has answered GET /version. */
int qfc_engine_status(const char *method, const char *path, const struct qfc_http_response *response);
bool qfc_engine_is_podman(json_t *version);

/* answer.c: what answers and failures mean, in words and kinds. All return -1. */
int qfc_engine_lost(struct qfc_engine_call *call, const struct qfc_error *failure, struct qfc_error *error);
/* 403 or 405, which is what a proxy before the engine says to calls that it does not let through: names the call. */
int qfc_engine_forbidden(int status, const char *method, const char *path, const char *what, const char *words,
                         struct qfc_error *error);
int qfc_engine_refused(struct qfc_engine_call *call, const char *path, const struct qfc_http_response *response,
                       struct qfc_error *error);
/* The answer makes no sense: INVALID, or UNKNOWN where something may have been changed. */
int qfc_engine_nonsense(const struct qfc_engine_call *call, struct qfc_error *error, const char *why);
int qfc_engine_unreachable(const struct qfc_engine *engine, const struct qfc_error *failure, struct qfc_error *error);
/* The engine's own words: its JSON message or its text, made fit for one line, at most 300 bytes. */
#define QFC_ENGINE_WORDS_SIZE 304
void qfc_engine_words(const struct qfc_buffer *body, char words[QFC_ENGINE_WORDS_SIZE]);
void qfc_engine_clean(const char *text, size_t size, char *out, size_t out_size);

/* path.c: appends `format` with each '%' replaced by the next text, escaped for a URL; '*' likewise, '/' left. */
int qfc_engine_path(struct qfc_buffer *path, const char *format, ...);

/* The same with the filters, a JSON object that is taken over, for the format's only place; null: no memory. */
int qfc_engine_path_filters(struct qfc_buffer *path, const char *format, json_t *filters);

/* Calls `on_line` for each line that is complete and is JSON; ends when it has cancelled the call. Returns 0 or -1
 * (memory). */
int qfc_engine_lines_add(struct qfc_engine_call *call, const char *data, size_t size, qfc_engine_line *on_line);
/* The last line may have no newline. */
void qfc_engine_lines_end(struct qfc_engine_call *call, qfc_engine_line *on_line);

/* The call as docs/engines.md lists it: "/containers/{id}/kill". `path` is without the version, and may have a query. */
#define QFC_ENGINE_PATTERN_SIZE 64
void qfc_engine_pattern(const char *method, const char *path, char pattern[QFC_ENGINE_PATTERN_SIZE]);
