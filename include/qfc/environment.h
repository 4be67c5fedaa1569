/*
 * The environment of a job's container: QFieldCloud's fixed variables and the job's secrets, wiped from memory when
 * freed.
 */
#pragma once

#include "qfc/error.h"
#include "qfc/fernet.h"

#include <libpq-fe.h>
#include <stdbool.h>
#include <stddef.h>

/* Where the container finds transformation grids: PROJ_DOWNLOAD_DIR, and where their volume belongs. */
#define QFC_CONTAINER_GRIDS "/transformation_grids"

/* A growing list of texts that it owns; begins as all zeroes. */
struct qfc_texts {
    char **items; /* null-ended; null while empty */
    size_t count;
    size_t room;
};

/* Adds a text. Returns 0 or -1 (QFC_ERROR_MEMORY), and then nothing has changed. */
int qfc_texts_printf(struct qfc_texts *texts, struct qfc_error *error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The texts, null-ended, as struct qfc_container takes them. Never null; belong to the list. */
const char *const *qfc_texts(const struct qfc_texts *texts);

/* Wipes and frees the texts; the list is empty again. */
void qfc_texts_free(struct qfc_texts *texts);

struct qfc_environment {
    struct qfc_texts variables; /* "NAME=value", each name once */
    struct qfc_texts warnings;  /* sentences for the log; they hold names of secrets, never values */
};

/* Everything that it is made of. The texts are the caller's. */
struct qfc_environment_given {
    const PGresult *secrets;          /* what qfc_secrets_sql brought */
    const struct qfc_fernet_key *key; /* null: there is no SECRET_KEY, and values are used as they are */
    const char *custom_ca;            /* REQUESTS_CA_BUNDLE, a path in the container; null: not set */
    const char *token;
    const char *url; /* of the API, as containers reach it */
    const char *job_id;
};

/*
 * Makes all of it. Returns 0, or -1 with an error of qfc_secrets_fill or QFC_ERROR_MEMORY. Free the result with
 * qfc_environment_free.
 */
int qfc_environment_make(const struct qfc_environment_given *given, struct qfc_environment *ret_environment,
                         struct qfc_error *error);

/* Is it a variable that qfc_environment_make sets whatever the secrets say? */
bool qfc_environment_is_fixed(const char *name);

/* Sets a variable; the later one wins. Copied. Returns 0 or -1 (QFC_ERROR_MEMORY), and then nothing has changed. */
int qfc_environment_set(struct qfc_environment *environment, const char *name, const char *value,
                        struct qfc_error *error);

/* The same, with the value put behind what the variable holds already. */
int qfc_environment_append(struct qfc_environment *environment, const char *name, const char *value,
                           struct qfc_error *error);

/* The variable's value, or null when it is not set. Belongs to the environment. */
const char *qfc_environment_get(const struct qfc_environment *environment, const char *name);

/* Wipes and frees everything; the environment is empty again. */
void qfc_environment_free(struct qfc_environment *environment);
