/*
 * The limits that an administrator sets in the web application.
 */
#include "qfc/limits.h"

#include "qfc/pg.h"

#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

const char qfc_limits_sql[] = "SELECT key, value FROM constance_constance WHERE key IN"
                              " ('WORKER_QGIS_MEMORY_LIMIT', 'WORKER_QGIS_CPU_SHARES', 'WORKER_TIMEOUT_S')";

/* Beyond any machine; keeps the arithmetic of bytes within 63 bits. */
#define BYTES_MAX 9e18

int64_t qfc_parse_bytes(const char *text)
{
    static const char suffixes[] = "bkmgt";
    if (!isdigit((unsigned char)*text))
        return -1;
    char *end;
    errno = 0;
    double number = strtod(text, &end);
    if (errno != 0 || !isfinite(number))
        return -1;
    const char *suffix = *end ? strchr(suffixes, tolower((unsigned char)*end)) : suffixes;
    if (!suffix)
        return -1;
    if (*end)
        end++;
    if (suffix > suffixes && tolower((unsigned char)*end) == 'b')
        end++;
    if (*end)
        return -1;
    number = ldexp(number, (int)(10 * (suffix - suffixes)));
    return number >= BYTES_MAX ? -1 : (int64_t)number;
}

/* The bare JSON value of a constance row, which may be wrapped. A new reference, or null. */
static json_t *value_of(const char *text)
{
    json_t *json = text ? json_loads(text, JSON_DECODE_ANY, NULL) : NULL;
    json_t *inner = json_object_get(json, "__value__");
    if (!inner)
        return json;
    json_incref(inner);
    json_decref(json);
    return inner;
}

static int64_t bytes_of(const json_t *value)
{
    if (json_is_integer(value))
        return json_integer_value(value);
    return json_is_string(value) ? qfc_parse_bytes(json_string_value(value)) : -1;
}

/* Takes one row's value if it can be used. */
static void take(struct qfc_limits *limits, const char *key, const json_t *value)
{
    int64_t number = strcmp(key, "WORKER_QGIS_MEMORY_LIMIT") == 0 ? bytes_of(value) : json_integer_value(value);
    if (number <= 0 || (strcmp(key, "WORKER_TIMEOUT_S") == 0 && number > INT32_MAX / 1000))
        limits->bad = strcmp(key, "WORKER_TIMEOUT_S") == 0         ? "WORKER_TIMEOUT_S"
                      : strcmp(key, "WORKER_QGIS_CPU_SHARES") == 0 ? "WORKER_QGIS_CPU_SHARES"
                                                                   : "WORKER_QGIS_MEMORY_LIMIT";
    else if (strcmp(key, "WORKER_QGIS_MEMORY_LIMIT") == 0)
        limits->memory_bytes = number;
    else if (strcmp(key, "WORKER_QGIS_CPU_SHARES") == 0)
        limits->cpu_shares = number;
    else if (strcmp(key, "WORKER_TIMEOUT_S") == 0)
        limits->timeout_s = (unsigned)number;
}

struct qfc_limits qfc_limits_read(const PGresult *rows)
{
    struct qfc_limits limits = {.memory_bytes = 1000LL * 1024 * 1024, .cpu_shares = 512, .timeout_s = 600};
    for (int row = 0; row < PQntuples(rows); row++) {
        json_t *value = value_of(qfc_pg_text(rows, row, "value"));
        take(&limits, qfc_pg_text(rows, row, "key"), value);
        json_decref(value);
    }
    return limits;
}
