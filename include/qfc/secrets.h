/*
 * A job's secrets: which rows of core_secret are for it, and what they make of its container's environment.
 */
#pragma once

#include "qfc/environment.h"
#include "qfc/error.h"
#include "qfc/fernet.h"

#include <libpq-fe.h>

/*
 * The query with $1 job id, with names of qfc_queue_names. One row for each name, in their order: name, type, value (as
 * it is stored); by_person and triggered_by are the same in each. A job without secrets has one row without a name.
 */
extern const char qfc_secrets_sql[];

/*
 * Sets what the rows of qfc_secrets_sql say: a variable for each secret of type `envvar`; those of type `pgservice` go
 * behind what PGSERVICE_FILE_CONTENTS holds. A secret that cannot be given to a container is left out; a value that
 * does not decrypt, or for which there is no `key` (null), is used as it is: each with a warning. Returns 0 or -1:
 * QFC_ERROR_INVALID (triggered by no person; a type that nobody knows), QFC_ERROR_LOST (no rows: there is no such
 * job), or an error of qfc_fernet_decrypt that is not about the value.
 */
int qfc_secrets_fill(const PGresult *rows, const struct qfc_fernet_key *key, struct qfc_environment *environment,
                     struct qfc_error *error);
