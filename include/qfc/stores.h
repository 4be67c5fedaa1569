/*
 * The object stores of a QFieldCloud: S3 and WebDAV, by the names that its STORAGES gives them.
 *
 * Everything happens on the loop's thread, over qfc/http.h. A call ends in exactly one call of its `done`, never from
 * within the function that started it, unless it is cancelled; anything may be done in it, also freeing the stores.
 * Each call may be repeated as a whole: what is gone already counts as deleted, what is there already is overwritten.
 *
 * Errors: UNREACHABLE and UNKNOWN as of qfc/http.h; AGAIN (the store is there and cannot now: 5xx, 408, 423, 429,
 * SlowDown); REFUSED (any other answer that is no success; `code` is its status); INVALID (a key that no store should
 * be asked for, an answer that cannot be right, or more than is taken); USAGE (that storage cannot be used: see
 * qfc_stores_trouble); MEMORY. Messages name storage and key and hold the store's own words, bounded; keys and
 * passwords are in none.
 */
#pragma once

#include "qfc/error.h"
#include "qfc/http.h"

#include <stdbool.h>
#include <stddef.h>

struct qfc_stores;      /* all of them */
struct qfc_stores_call; /* what is under way */

/* The environment's variables (null is as ""), all copied. */
struct qfc_stores_options {
    const char *storages; /* STORAGES */
    /* STORAGE_*, of which releases up to v26.10 make a legacy storage "default" where STORAGES is empty. */
    const char *access_key_id, *secret_access_key, *bucket_name, *region_name, *endpoint_url;
    const char *ca_file;  /* PEM file of those to trust, or null: libcurl's default */
    unsigned deadline_ms; /* for each transfer; 0: 60 s */
};

/* An object, or in qfc_stores_list all those whose keys begin with `key`. */
struct qfc_object {
    const char *storage; /* its name in STORAGES */
    const char *key;     /* without the storage's `location` */
    /*
     * It is of a project whose file_storage is the legacy one, as releases up to v26.10 keep them: `location` does not
     * apply, it is there while any version of it is, and deleting it deletes all versions. Else a plain DELETE is sent,
     * which in a bucket with versions leaves them. S3 only.
     */
    bool legacy;
};

/*
 * Reads the configuration. Null: STORAGES is not what it must be as a whole (QFC_ERROR_USAGE; the message shows none of
 * its values), or MEMORY. A single storage that cannot be used is not an error: see qfc_stores_trouble.
 */
struct qfc_stores *qfc_stores_new(struct qfc_http *http, const struct qfc_stores_options *options,
                                  struct qfc_error *error);

/* Cancels what is under way and wipes its copies of keys and passwords. To be called before qfc_http_free; memory goes
 * when the loop has run a close callback. */
void qfc_stores_free(struct qfc_stores *stores);

/* The names of the storages, from 0 on; null behind the last one. Belongs to the stores. */
const char *qfc_stores_name(const struct qfc_stores *stores, size_t index);

/* Why a storage cannot be used, or null: it can. Belongs to the stores. */
const char *qfc_stores_trouble(const struct qfc_stores *stores, const char *storage);

/* The name of the storage that releases up to v26.10 take for the legacy one, or null. */
const char *qfc_stores_legacy(const struct qfc_stores *stores);

/* `deleted` counts those that are gone now, also where they were before. */
typedef void qfc_stores_deleted(void *userdata, const struct qfc_error *error, size_t deleted);

/* Keys in their byte order, each once; valid during the call. */
typedef void qfc_stores_listed(void *userdata, const struct qfc_error *error, const char *const *keys, size_t count);

typedef void qfc_stores_done(void *userdata, const struct qfc_error *error);

/*
 * Deletes `count` objects, a few at a time. One that cannot be deleted does not keep the others from it, except that a
 * storage that did not answer is not asked again. `error` is then the one to act on (worth another try before final),
 * of the first object that had it. `objects` stays the caller's, and must live until `done` or cancel.
 *
 * These three return 0 and, where `ret_call` is not null, the call for qfc_stores_cancel, valid until `done`; or -1
 * (MEMORY) and `done` is not called.
 */
int qfc_stores_delete(struct qfc_stores *stores, const struct qfc_object *objects, size_t count,
                      qfc_stores_deleted *done, void *userdata, struct qfc_stores_call **ret_call,
                      struct qfc_error *error);

/* Finds the keys that begin with prefix->key, "projects/<id>/packages/" for one; at most 100,000 (more is INVALID: a
 * list is whole, or none). Texts are copied. */
int qfc_stores_list(struct qfc_stores *stores, const struct qfc_object *prefix, qfc_stores_listed *done, void *userdata,
                    struct qfc_stores_call **ret_call, struct qfc_error *error);

/* Stores an object, in place of one that may be there. Texts are copied; `data` must live until `done` or cancel. */
int qfc_stores_put(struct qfc_stores *stores, const struct qfc_object *object, const char *content_type,
                   const void *data, size_t size, qfc_stores_done *done, void *userdata,
                   struct qfc_stores_call **ret_call, struct qfc_error *error);

/* Ends a call without `done`; a request that was sent may still be done by the store. */
void qfc_stores_cancel(struct qfc_stores_call *call);
