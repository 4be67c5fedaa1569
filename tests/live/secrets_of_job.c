/*
 * What the program makes of a job's secrets, for tests in Python: the shipped query asked of a real database, and the
 * environment that comes of it, printed as a JSON object of `variables` and `warnings`.
 *
 * secrets-of-job JOB PROJECT-TABLE, with QFC_TEST_DATABASE_URL, and with SECRET_KEY and SALT_KEY or without. Where
 * there is no environment the error is printed and the exit code is 1.
 */
#include "qfc/pg.h"
#include "qfc/secrets.h"
#include "qfc/statements.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static PGresult *ask(PGconn *connection, const char *job, const char *project_table)
{
    const struct qfc_name names[] = {{"project", project_table}, {NULL, NULL}};
    struct qfc_statements statements = {0};
    struct qfc_error error = QFC_NO_ERROR;
    if (QFC_ADD(&statements, &error, qfc_secrets_sql, job) < 0 ||
        qfc_statements_expand(&statements, names, &error) < 0) {
        fprintf(stderr, "%s\n", error.message);
        exit(2);
    }
    PGresult *rows = PQexecParams(connection, statements.items[0].sql, 1, NULL, &job, NULL, NULL, 0);
    qfc_statements_free(&statements);
    if (PQresultStatus(rows) != PGRES_TUPLES_OK) {
        fprintf(stderr, "%s", PQerrorMessage(connection));
        exit(2);
    }
    return rows;
}

static json_t *array_of(const struct qfc_texts *texts)
{
    json_t *array = json_array();
    for (const char *const *text = qfc_texts(texts); *text; text++)
        json_array_append_new(array, json_string(*text));
    return array;
}

static int print(const PGresult *rows, const char *job)
{
    const char *secret_key = getenv("SECRET_KEY");
    struct qfc_fernet_key key;
    struct qfc_environment environment;
    struct qfc_error error = QFC_NO_ERROR;
    const struct qfc_environment_given given = {
        .secrets = rows, .key = secret_key ? &key : NULL, .token = "", .url = "", .job_id = job};
    if ((secret_key && qfc_fernet_key(secret_key, getenv("SALT_KEY"), &key, &error) < 0) ||
        qfc_environment_make(&given, &environment, &error) < 0) {
        printf("%s: %s\n", qfc_error_kind_name(error.kind), error.message);
        return 1;
    }
    json_t *object = json_object();
    json_object_set_new(object, "variables", array_of(&environment.variables));
    json_object_set_new(object, "warnings", array_of(&environment.warnings));
    json_dumpf(object, stdout, 0);
    json_decref(object);
    qfc_environment_free(&environment);
    return 0;
}

int main(int count, char **arguments)
{
    const char *url = getenv("QFC_TEST_DATABASE_URL");
    if (count != 3 || !url)
        return 2;
    PGconn *connection = PQconnectdb(url);
    if (PQstatus(connection) != CONNECTION_OK) {
        fprintf(stderr, "%s", PQerrorMessage(connection));
        return 2;
    }
    PGresult *rows = ask(connection, arguments[1], arguments[2]);
    int code = print(rows, arguments[1]);
    PQclear(rows);
    PQfinish(connection);
    return code;
}
