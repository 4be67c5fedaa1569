/*
 * What a QFieldCloud administrator sets in the web application ("constance") for the worker's containers.
 */
#pragma once

#include <libpq-fe.h>
#include <stdint.h>

struct qfc_limits {
    int64_t memory_bytes; /* WORKER_QGIS_MEMORY_LIMIT; 1000 MiB by default */
    int64_t cpu_shares;   /* WORKER_QGIS_CPU_SHARES; 512 by default */
    unsigned timeout_s;   /* WORKER_TIMEOUT_S; 600 by default */
    const char *bad;      /* the key whose value could not be used, so that its default stands; or null */
};

/* The query whose result qfc_limits_read takes. */
extern const char qfc_limits_sql[];

/*
 * Reads rows of (key, value). A value is JSON, bare or as {"__type__": "default", "__value__": X}; an absent row means
 * the default. Never fails: see `bad`.
 */
struct qfc_limits qfc_limits_read(const PGresult *rows);

/*
 * "1000m", "1.5GB", "512": bytes, with the suffixes b, k, m, g, t (and kb, mb, ...) of either case, powers of 1024, as
 * Docker's clients read them. Returns the number of bytes, or -1 for anything else.
 */
int64_t qfc_parse_bytes(const char *text);
