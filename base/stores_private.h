/*
 * What the files of stores share.
 *
 * An errand is what is done about one object (or one prefix): a chain of requests to one store. Each request names the
 * function that its answer goes to, and that one sends the next request or ends the errand. stores.c starts errands and
 * gathers their ends into calls; a backend (store_s3.c, store_webdav.c) knows what to ask for.
 */
#pragma once

#include "qfc/stores.h"

#include <jansson.h>
#include <sys/queue.h>

#define QFC_STORE_KEYS    100000u /* keys that a list may have */
#define QFC_STORE_REASON  400     /* bytes of a store's own words in a message */
#define QFC_STORE_NAMED   300     /* bytes of a key in a message */
#define QFC_STORE_LANES   4       /* errands of one call at a time */
#define QFC_STORE_ANSWERS 10000u  /* requests of one errand */

struct errand;
struct store;

/* What an errand does with an answer, or as its first act: 1, another request is under way; 0, it is done; -1. */
typedef int errand_act(struct errand *errand, struct qfc_http_response *response, struct qfc_error *error);

enum deed {
    DEED_DELETE,
    DEED_LIST,
    DEED_PUT,
    DEED_COUNT,
};

struct store_backend {
    const char *class_name; /* of QFieldCloud's filestorage/backend.py */
    /* Fills the store from its OPTIONS. Returns 0, also where it sets `trouble`; -1: MEMORY. */
    int (*configure)(struct store *store, const json_t *options, struct qfc_error *error);
    errand_act *begin[DEED_COUNT]; /* first acts: their response is null */
};

struct store {
    struct qfc_stores *stores;
    char *name;
    char *trouble; /* why it cannot be used; null: it can */
    const struct store_backend *backend;
    bool legacy;

    char *origin;  /* "https://host:port" */
    char *host;    /* "host:port", as the Host header has it */
    char *path;    /* before all keys, percent-encoded: "" or "/..." (S3: with the bucket) */
    char *ca_file; /* of those to trust, or null: libcurl's default */
    bool trusts_all;

    /* S3; all but the first three may be null. */
    char *access_key, *secret_key, *region;
    char *token;
    char *location; /* null, or what comes before each key, with its "/" */

    /* WebDAV; null where there is no user. */
    char *password;
    char *authorization; /* "Authorization: Basic ..." */
};

/* A growing list of texts within bounds. */
struct names {
    char **items;
    size_t count, room, bytes;
};

int names_add(struct names *names, const char *text, struct qfc_error *error);
void names_free(struct names *names);
/* Puts them in their byte order, and leaves each only once. */
void names_sort(struct names *names);
bool names_have(const struct names *names, const char *text);

struct errand {
    struct qfc_stores_call *call; /* null: this lane is free */
    const struct store *store;
    const struct qfc_object *object;
    struct qfc_http_transfer *transfer;
    errand_act *next;
    size_t answers;

    char *key;                     /* in the store: with its location */
    struct names todo;             /* S3: versions to delete; WebDAV: collections to look into, or to make */
    size_t done;                   /* how many of `todo` are */
    char *marker, *version_marker; /* S3: where the next page of a list begins */
    bool more;                     /* S3: the next page has further versions of this key */
    bool tried;                    /* WebDAV: the put was tried, and its collections were not there */

    struct names *found;      /* where a list's keys go: the call's */
    const char *content_type; /* of a put: the header's line */
    const void *data;
    size_t size;
};

/* What a backend asks for; texts are copied. */
struct store_request {
    const char *method;
    const char *path;           /* after the store's own, percent-encoded */
    const char *query;          /* canonical, without "?"; or "" */
    const char *const *headers; /* null-ended, or null */
    const void *body;           /* lives as long as the errand */
    size_t body_size;
};

/* store_request.c */

/* Sends it; `next` gets the answer, whatever its status. Returns 1, or -1. */
int errand_send(struct errand *errand, const struct store_request *request, errand_act *next, struct qfc_error *error);
/* The error that an answer which is no success means, with the store's own words. Returns -1. */
int errand_refused(const struct errand *errand, const struct qfc_http_response *response, struct qfc_error *error);
/* The S3 error code of an answer, "" where it names none. */
void store_error_code(const struct qfc_http_response *response, char *ret_code, size_t size);

/* stores.c */
void errand_end(struct errand *errand, const struct qfc_error *error);
unsigned stores_deadline_ms(const struct qfc_stores *stores);
struct qfc_http *stores_http(const struct qfc_stores *stores);

/* stores_config.c */

/* Reads all storages into `*ret_stores`. Returns their number, or -1 (USAGE, MEMORY). */
int stores_configure(const struct qfc_stores_options *options, struct store **ret_stores, struct qfc_error *error);
void stores_wipe(struct store *stores, size_t count);

/* For backends: an option's text, null where it is absent, null or empty. Sets the store's trouble where it is no
 * text, or where it must be there and is not. Returns 0 or -1 (MEMORY). */
int store_option(struct store *store, const json_t *options, const char *name, bool needed, char **ret_text,
                 struct qfc_error *error);
/* Sets the store's trouble, unless it has one. Returns 0 or -1 (MEMORY). */
int store_trouble(struct store *store, struct qfc_error *error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Takes origin, host and path from a URL, with `bucket` before its host where that is not null. `ret_user` and
 * `ret_password` get what the URL has of these, decoded; where they are null, a URL with a user is in trouble. */
int store_take_url(struct store *store, const char *option, const char *url, const char *bucket, char **ret_user,
                   char **ret_password, struct qfc_error *error);

/* store_xml.c */

/* Calls `on_element` at the end of each element, with the path of local names from the root ("A/B/C") and the text in
 * it after its last child. It returns 0, or -1 to stop. Returns 0 or -1 (INVALID: not well-formed, has a document
 * type, or is over a limit; MEMORY; or what `on_element` said). */
typedef int xml_element(void *userdata, const char *path, const char *text, struct qfc_error *error);
int store_xml_read(const char *data, size_t size, xml_element *on_element, void *userdata, struct qfc_error *error);

/* Percent-decodes in place. False: it holds what would be a zero byte. */
bool store_decode(char *text, bool plus_is_space);

extern const struct store_backend store_s3, store_webdav;
