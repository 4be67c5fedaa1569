/*
 * What an operator may do to a job: cancel, retry, requeue. As data: the caller asks qfc_action_look, lets
 * qfc_action_decide say what would follow, and does it in one transaction: lock, look again, decide again, write. So
 * that where a worker ends the job at the same moment exactly one of both wins, and the other can say so.
 *
 * The rules follow from what recovery does (docs/recovery.md): what was started once is run again only where that does no
 * harm, and what a living worker has is its own to end.
 */
#pragma once

#include "qfc/error.h"
#include "qfc/statements.h"

#include <libpq-fe.h>
#include <stdbool.h>

enum qfc_action {
    QFC_ACTION_CANCEL,  /* a job that waits or runs ends: `failed`, CANCELLED, its deltas in `error` */
    QFC_ACTION_RETRY,   /* a failed job waits again, its deltas too */
    QFC_ACTION_REQUEUE, /* an active job that nobody has any more waits again */
};

enum qfc_effect {
    QFC_EFFECT_NONE,    /* nothing: `says` tells why, and what can be done instead */
    QFC_EFFECT_FAIL,    /* the row becomes `failed` */
    QFC_EFFECT_ASK,     /* the worker that has the job is asked to end it */
    QFC_EFFECT_PENDING, /* the row becomes `pending` */
};

struct qfc_decision {
    enum qfc_effect effect;
    bool risky;     /* only for one who has been warned: `says` ends with the warning */
    bool settle;    /* only when the row is still the same (`version`) QFC_ACTION_SETTLE_S after it was first looked at:
                     * QFieldCloud's own worker leaves no mark between its claim and its start */
    char says[768]; /* "pending package job of ada/trees becomes failed (CANCELLED)": one line, harmless to print */
};

#define QFC_ACTION_SETTLE_S 5

/* Adds the statement that locks the row of job `id`, before a look in the same transaction. */
int qfc_action_lock(struct qfc_statements *list, const char *id, struct qfc_error *error);

/*
 * Adds the statement whose result qfc_action_decide takes; {names} are to be expanded. One row, or none where the job is
 * gone: id, version, status, type, project_id, project, owner_name, held_by (see qfc_report_owner_name), and more. With
 * `take` the transaction takes the lock that makes a job somebody's, so that nobody adopts it meanwhile.
 */
int qfc_action_look(struct qfc_statements *list, const char *id, bool take, struct qfc_error *error);

/* `force`: fail an active job, whoever has it. */
void qfc_action_decide(enum qfc_action action, bool force, const PGresult *look, struct qfc_decision *ret_decision);

/*
 * Adds what the decision makes of the row, and, for a retry, of the deltas. What a job type writes when it fails or goes
 * back (qfc_processor) is the caller's to add behind it.
 */
int qfc_action_write(enum qfc_action action, const struct qfc_decision *decision, const char *id,
                     struct qfc_statements *list, struct qfc_error *error);
