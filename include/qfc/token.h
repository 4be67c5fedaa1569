/*
 * A job's own access token for the QFieldCloud API: a row of authentication_authtoken that lives as long as the job.
 */
#pragma once

#include "qfc/error.h"
#include "qfc/job.h"
#include "qfc/statements.h"

#define QFC_TOKEN_SIZE 101 /* 100 characters of [a-zA-Z0-9] and the zero byte */

/* Makes a key from the kernel's random numbers. Returns 0 or -1 (QFC_ERROR_BUG: the kernel gave none). */
int qfc_token_make(char ret_key[QFC_TOKEN_SIZE], struct qfc_error *error);

/* Adds the statement that makes the token valid for `valid_s` seconds; repeating it changes nothing. */
int qfc_token_insert(struct qfc_statements *writes, const struct qfc_job *job, const char *key, unsigned valid_s,
                     struct qfc_error *error);

/* Adds the statement that deletes it. */
int qfc_token_delete(struct qfc_statements *writes, const char *key, struct qfc_error *error);
