/*
 * Secrets: rows of core_secret made into variables.
 *
 * What may not be given to a container costs the secret, not the job: whoever runs the job is seldom the one who has
 * set the secret. A warning tells which.
 */
#include "qfc/secrets.h"

#include "qfc/pg.h"
#include "qfc/text.h"

#include <stdlib.h>
#include <string.h>

/*
 * Of all secrets of one name, whatever their types, one wins: the project's before the organization's, and of each the
 * one assigned to the user before that for all (SecretQueryset.for_user_and_project of QFieldCloud, v25.27 to v26.25).
 * Two of them can still be equal, of two types, or because assigned_to is null in both and so not unique: the web
 * application then takes any, we the older. Names are in the database's own order, as there.
 */
const char qfc_secrets_sql[] =
    "SELECT s.name, s.type, s.value, u.type = 1 AS by_person, u.id AS triggered_by"
    " FROM core_job j JOIN core_user u ON u.id = j.triggered_by_id JOIN {project} p ON p.id = j.project_id"
    " JOIN core_user o ON o.id = p.owner_id"
    " LEFT JOIN LATERAL (SELECT DISTINCT ON (name) name, type, value FROM core_secret"
    " WHERE ((organization_id = o.id AND o.type = 2 AND project_id IS NULL)"
    " OR (organization_id IS NULL AND project_id = p.id))"
    " AND (assigned_to_id IS NULL OR assigned_to_id = u.id)"
    " ORDER BY name, organization_id IS NOT NULL, assigned_to_id IS NULL, id) s ON u.type = 1"
    " WHERE j.id = $1 ORDER BY s.name";

struct value {
    const char *text; /* the row's, or `owned` */
    char *owned;      /* decrypted; may be null */
    size_t size;
};

static void wipe(struct value *value)
{
    if (value->owned)
        explicit_bzero(value->owned, value->size);
    free(value->owned);
}

static bool is_utf8(const char *text, size_t size)
{
    const unsigned char *at = (const unsigned char *)text, *end = at + size;
    while (at < end) {
        size_t length = qfc_utf8_length(at, end);
        if (length == 0)
            return false;
        at += length;
    }
    return true;
}

/* Why no variable can have this name, or null. */
static const char *name_fault(const char *name, size_t size)
{
    if (size == 0)
        return "its name is empty";
    if (memchr(name, 0, size))
        return "its name holds a NUL byte";
    if (memchr(name, '=', size))
        return "its name holds an equals sign";
    if (!is_utf8(name, size))
        return "its name is not UTF-8";
    return qfc_environment_is_fixed(name) ? "the worker sets a variable of this name itself" : NULL;
}

/* Linux starts no process with a longer variable, its name and the zero byte included (execve(2), MAX_ARG_STRLEN). */
#define VARIABLE_MAX_BYTES (128u * 1024)

#define SERVICE_FILE "PGSERVICE_FILE_CONTENTS"

/* Has the variable that the value goes into room for it, after what it holds already? */
static bool has_room(const char *name, const char *before, const struct value *value)
{
    size_t used = strlen(name) + strlen("=") + (before ? strlen(before) + strlen("\n") : 0) + 1;
    return used < VARIABLE_MAX_BYTES && value->size <= VARIABLE_MAX_BYTES - used;
}

/* Why no variable can have this value, or null. */
static const char *value_fault(const char *name, bool variable, const struct value *value,
                               const struct qfc_environment *environment)
{
    const char *before = variable ? NULL : qfc_environment_get(environment, SERVICE_FILE);
    if (!has_room(variable ? name : SERVICE_FILE, before, value))
        return "no process can be started with a variable of more than 128 KiB";
    if (memchr(value->text, 0, value->size))
        return "its value holds a NUL byte";
    return is_utf8(value->text, value->size) ? NULL : "its value is not UTF-8";
}

static int leave_out(const char *name, const char *fault, struct qfc_environment *environment, struct qfc_error *error)
{
    return qfc_texts_printf(&environment->warnings, error, "secret \"%.200s\" is left out: %s", name, fault);
}

/* The value in plain; where it does not decrypt, as it is: so does the web application. */
static int reveal(const char *name, const struct qfc_fernet_key *key, struct value *value,
                  struct qfc_environment *environment, struct qfc_error *error)
{
    struct qfc_error why = QFC_NO_ERROR;
    if (!key)
        return qfc_texts_printf(&environment->warnings, error,
                                "secret \"%.200s\" is used as it is: there is no SECRET_KEY to decrypt it with", name);
    if (qfc_fernet_decrypt(key, value->text, &value->owned, &value->size, &why) == 0) {
        value->text = value->owned;
        return 0;
    }
    if (why.kind == QFC_ERROR_INVALID)
        return qfc_texts_printf(&environment->warnings, error, "secret \"%.200s\" is used as it is: it is %s", name,
                                why.message);
    if (error)
        *error = why;
    return qfc_context(error, "decrypt secret \"%.200s\"", name);
}

/* Sets what one secret says; `variable`: of its own name, else a part of the service file. */
static int give(const char *name, bool variable, const struct value *value, struct qfc_environment *environment,
                struct qfc_error *error)
{
    if (variable)
        return qfc_environment_set(environment, name, value->text, error);
    if (qfc_environment_append(environment, SERVICE_FILE, "\n", error) < 0)
        return -1;
    return qfc_environment_append(environment, SERVICE_FILE, value->text, error);
}

static int add_secret(const char *name, bool variable, struct value *value, const struct qfc_fernet_key *key,
                      struct qfc_environment *environment, struct qfc_error *error)
{
    if (reveal(name, key, value, environment, error) < 0)
        return -1;
    const char *fault = value_fault(name, variable, value, environment);
    return fault ? leave_out(name, fault, environment, error) : give(name, variable, value, environment, error);
}

static int add_row(const PGresult *rows, int row, const struct qfc_fernet_key *key, struct qfc_environment *environment,
                   struct qfc_error *error)
{
    const char *name = qfc_pg_text(rows, row, "name"), *type = qfc_pg_text(rows, row, "type");
    if (!name)
        return 0;
    bool variable = type && strcmp(type, "envvar") == 0;
    if (!variable && (!type || strcmp(type, "pgservice") != 0))
        return qfc_fail(error, QFC_ERROR_INVALID, 0, "secret \"%.200s\" is of the unknown type \"%s\"", name,
                        type ? type : "");
    const char *fault = variable ? name_fault(name, (size_t)PQgetlength(rows, row, PQfnumber(rows, "name"))) : NULL;
    if (fault)
        return leave_out(name, fault, environment, error);
    const char *stored = qfc_pg_text(rows, row, "value");
    struct value value = {.text = stored ? stored : ""};
    value.size = stored ? (size_t)PQgetlength(rows, row, PQfnumber(rows, "value")) : 0;
    int r = add_secret(name, variable, &value, key, environment, error);
    wipe(&value);
    return r;
}

int qfc_secrets_fill(const PGresult *rows, const struct qfc_fernet_key *key, struct qfc_environment *environment,
                     struct qfc_error *error)
{
    const char *by_person = qfc_pg_text(rows, 0, "by_person"), *user = qfc_pg_text(rows, 0, "triggered_by");
    if (!by_person)
        return qfc_fail(error, QFC_ERROR_LOST, 0, "there is no such job to have secrets");
    if (strcmp(by_person, "t") != 0)
        return qfc_fail(error, QFC_ERROR_INVALID, 0,
                        "secrets are for persons, and user %s, who has triggered the job, is none", user ? user : "?");
    for (int row = 0; row < PQntuples(rows); row++)
        if (add_row(rows, row, key, environment, error) < 0)
            return -1;
    return 0;
}
