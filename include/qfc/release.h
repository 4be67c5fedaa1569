/*
 * Which release of QFieldCloud has made a database: found out from its schema alone, so that SQL can be written once,
 * with names in braces for what differs. Nothing here talks to a database: the caller asks the probe. Some releases
 * share a schema; there the answer is a range.
 */
#pragma once

#include "qfc/error.h"
#include "qfc/statements.h"

#include <libpq-fe.h>

#define QFC_RELEASE_NAMES 12 /* that SQL may use: see qfc_queue_names */

struct qfc_release {
    char called[64];                              /* "v26.22 to v26.24"; "" before it was read */
    char identity[64];                            /* of the database: see qfc_queue_identity */
    struct qfc_name names[QFC_RELEASE_NAMES + 1]; /* for qfc_statements_expand; empty before it was read */
};

/* Adds the one statement whose result qfc_release_read takes. Returns 0 or -1 (QFC_ERROR_MEMORY). */
int qfc_release_probe(struct qfc_statements *list, struct qfc_error *error);

/*
 * Fills the release from the probe's result; its texts own nothing. Returns 0, or -1 with QFC_ERROR_REFUSED and the
 * reason for a server that is not to be worked on (a standby, one that takes no writes or is older than PostgreSQL 13, a
 * database that is not QFieldCloud's or of no release that is known); then `ret_release` is as it was.
 */
int qfc_release_read(const PGresult *probe, struct qfc_release *ret_release, struct qfc_error *error);
