/*
 * A job's access token: QFieldCloud's API takes uploads of packages only with such a one, while the job is `started`.
 *
 * Keys are looked for with ~>=~ and ~<~, which the index on key for patterns serves whatever the collation is.
 */
#include "qfc/token.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#define PREFIX "qfcworker"

static const char alphabet[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";

/* "qfcworker" and the id without its hyphens. Returns its length. */
static size_t write_prefix(const struct qfc_job *job, char ret_prefix[QFC_TOKEN_SIZE])
{
    size_t length = sizeof PREFIX - 1;
    memcpy(ret_prefix, PREFIX, length);
    for (const char *id = job->id; *id; id++)
        if (*id != '-')
            ret_prefix[length++] = *id;
    ret_prefix[length] = '\0';
    return length;
}

int qfc_token_make(const struct qfc_job *job, char ret_key[QFC_TOKEN_SIZE], struct qfc_error *error)
{
    const unsigned letters = sizeof alphabet - 1;
    const unsigned fair = 256 - 256 % letters; /* bytes from here on would make some letters likelier */
    char key[QFC_TOKEN_SIZE];
    unsigned char random[QFC_TOKEN_SIZE];
    for (size_t made = write_prefix(job, key); made < QFC_TOKEN_SIZE - 1;) {
        if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
            return qfc_fail(error, QFC_ERROR_BUG, 0, "the kernel gave no random bytes");
        for (size_t i = 0; i < sizeof random && made < QFC_TOKEN_SIZE - 1; i++)
            if (random[i] < fair)
                key[made++] = alphabet[random[i] % letters];
    }
    key[QFC_TOKEN_SIZE - 1] = '\0';
    memcpy(ret_key, key, sizeof key);
    explicit_bzero(key, sizeof key);
    explicit_bzero(random, sizeof random);
    return 0;
}

int qfc_token_insert(struct qfc_statements *writes, const struct qfc_job *job, const char *key, unsigned valid_s,
                     struct qfc_error *error)
{
    static const char sql[] =
        "INSERT INTO authentication_authtoken"
        " (user_id, key, created_at, updated_at, expires_at, last_used_at, user_agent, client_type)"
        " VALUES ($1, $2, now(), now(), now() + $3::integer * interval '1 second', NULL, '', 'worker')"
        " ON CONFLICT (key) DO NOTHING";
    char seconds[16];
    snprintf(seconds, sizeof seconds, "%u", valid_s);
    const struct qfc_value values[] = {
        {job->created_by, QFC_VALUE_COPY}, {key, QFC_VALUE_SECRET}, {seconds, QFC_VALUE_COPY}};
    return qfc_statements_add(writes, sql, 3, values, error);
}

int qfc_token_revoke(struct qfc_statements *writes, const char *key, struct qfc_error *error)
{
    const struct qfc_value value = {key, QFC_VALUE_SECRET};
    return qfc_statements_add(writes, "DELETE FROM authentication_authtoken WHERE key = $1", 1, &value, error);
}

int qfc_token_delete(struct qfc_statements *writes, const struct qfc_job *job, struct qfc_error *error)
{
    char prefix[QFC_TOKEN_SIZE];
    write_prefix(job, prefix);
    return QFC_ADD(writes, error,
                   "DELETE FROM authentication_authtoken WHERE client_type = 'worker'"
                   " AND key ~>=~ $1 AND key ~<~ ($1 || '~')",
                   prefix);
}

#define HEX_START "length('" PREFIX "') + 1"

const char qfc_token_sweep_sql[] =
    "DELETE FROM authentication_authtoken t WHERE client_type = 'worker'"
    " AND key ~>=~ '" PREFIX "' AND key ~<~ '" PREFIX "~'"
    " AND CASE WHEN substr(key, " HEX_START ", 32) ~ '^[0-9a-f]{32}$' THEN NOT EXISTS"
    " (SELECT FROM core_job j WHERE j.id = substr(key, " HEX_START ", 32)::uuid"
    " AND j.status IN ('queued', 'started')) ELSE false END RETURNING id";
