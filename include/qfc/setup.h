/*
 * What `qfc-worker setup-db` puts into QFieldCloud's database, and how it is taken away again: triggers that tell
 * listening workers of new work at once, and partial indexes that keep a claim's cost apart from history. All of it is
 * optional: without it workers poll.
 *
 * Nothing here talks to a database. The caller asks the probe, then the plan as often as it likes: the plan looks at
 * what is there and says what is still to be done, so that it can be carried out one row at a time, beside others who
 * do the same.
 */
#pragma once

#include "qfc/error.h"
#include "qfc/statements.h"

#include <libpq-fe.h>
#include <stdbool.h>

/*
 * The channel that the triggers notify. The payload is the last two hexadecimal digits of an id: the job's for one that
 * is new or was put back, the project's for one that was unlocked. So listeners can take turns, and a transaction with
 * any number of jobs costs 256 notifications at the most: PostgreSQL sends equal ones of a transaction once.
 */
#define QFC_SETUP_CHANNEL "qfc_worker"

/* The triggers: with all of them in place, and not switched off, on_news of a queue hears of everything. */
#define QFC_SETUP_JOB_NEW      "qfc_worker_job_new"
#define QFC_SETUP_JOB_BACK     "qfc_worker_job_back"
#define QFC_SETUP_PROJECT_FREE "qfc_worker_project_free"

struct qfc_setup_wish {
    bool undo;  /* take all of it away, indexes too, whatever else is asked for */
    bool index; /* with the indexes */
};

/* Several statements in one text, for the session that carries out a plan. */
extern const char qfc_setup_session[];

/* Adds the one statement whose result qfc_setup_plan takes. Returns 0 or -1 (QFC_ERROR_MEMORY). */
int qfc_setup_probe(struct qfc_statements *list, struct qfc_error *error);

/*
 * Adds the one statement whose rows, in this order, are what belongs there (or, to undo, what is there):
 *   what     for people: "trigger qfc_worker_job_new on public.core_job"
 *   sql      what brings it about, null where nothing is to be done: one text for the simple query protocol, with its
 *            own BEGIN and COMMIT, or one statement that must not be in a transaction. May be repeated.
 *   waits    why it cannot be done just now, though nothing is in the way; else null
 *   refusal  why this role cannot do it in this database, with what is needed; else null
 * Returns 0 or -1: QFC_ERROR_REFUSED with the reason for a server that is not to be changed (a standby, no QFieldCloud
 * that is known: but undoing needs no core_job), QFC_ERROR_MEMORY.
 */
int qfc_setup_plan(const PGresult *probe, struct qfc_setup_wish wish, struct qfc_statements *list,
                   struct qfc_error *error);
