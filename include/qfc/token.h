/*
 * A job's own access token for the QFieldCloud API: a row of authentication_authtoken that lives as long as the job.
 *
 * The key is "qfcworker", the job's id in hexadecimal digits, and random characters. So whoever ends a job deletes its
 * tokens without knowing them, and those of jobs that nobody has ended are found, whichever worker made them.
 */
#pragma once

#include "qfc/error.h"
#include "qfc/job.h"
#include "qfc/statements.h"

#define QFC_TOKEN_SIZE 101 /* 100 characters of [a-zA-Z0-9] and the zero byte */

/* Makes a key, with 59 characters of the kernel's random numbers. Returns 0 or -1 (QFC_ERROR_BUG: there were none). */
int qfc_token_make(const struct qfc_job *job, char ret_key[QFC_TOKEN_SIZE], struct qfc_error *error);

/* Adds the statement that makes the token valid for `valid_s` seconds; repeating it changes nothing. */
int qfc_token_insert(struct qfc_statements *writes, const struct qfc_job *job, const char *key, unsigned valid_s,
                     struct qfc_error *error);

/* Adds the statement that deletes one token, by its key. */
int qfc_token_revoke(struct qfc_statements *writes, const char *key, struct qfc_error *error);

/* Adds the statement that deletes all tokens of the job: for a transaction that makes sure that the job is ours. */
int qfc_token_delete(struct qfc_statements *writes, const struct qfc_job *job, struct qfc_error *error);

/* Deletes the tokens of jobs that are not active, whoever made them; the keys of QFieldCloud's own workers are not
 * touched. Returns a row for each. */
extern const char qfc_token_sweep_sql[];
