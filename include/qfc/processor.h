/*
 * Job types: data in, data out. Nothing here waits, and nothing here owns a socket.
 *
 * A processor is a const table of plain functions. Given a job's rows it says what to run; given how the run ended, it
 * says what to write. What it wants written becomes part of the same transaction as the job's own row. SQL may use the
 * names of qfc_queue_names.
 */
#pragma once

#include "qfc/error.h"
#include "qfc/job.h"
#include "qfc/pg.h"
#include "qfc/statements.h"
#include "qfc/tar.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define QFC_PLAN_ARGUMENTS 12
#define QFC_PLAN_FILES     4

/* What `read` has brought. Valid while the job lives. */
struct qfc_job_rows {
    const struct qfc_job *job;
    const PGresult *project;        /* one row: project_name, owner, qgis_file, qgis_version, packaging_offliner */
    const PGresult *const *results; /* one for each of the processor's `reads` */
    size_t count;
};

/* What to run. Texts and data belong to the rows, are constants, or are in `owned`. */
struct qfc_plan {
    const char *arguments[QFC_PLAN_ARGUMENTS + 1]; /* of entrypoint.py; null-ended */
    struct qfc_tar_file files[QFC_PLAN_FILES];     /* for /io, before the start */
    size_t file_count;
    struct qfc_buffer owned; /* for what a processor makes; freed with the plan */
};

struct qfc_processor {
    const char *type;         /* core_job.type */
    bool safe_to_rerun;       /* may it be started again after a start that may have run? */
    const char *const *reads; /* queries with $1 job id and $2 project id, null-ended; may be null */

    /* What to run. -1: the job fails with that error (QFC_ERROR_INVALID), or memory is out. Never null. */
    int (*plan)(const struct qfc_job_rows *rows, struct qfc_plan *plan, struct qfc_error *error);

    /* What to write in the transactions of prepare, of finish (after success; after failure) and of putting back; each
     * may be null. They add to `writes`, where $-values may be read from core_job, which is written before. */
    int (*before)(const struct qfc_job_rows *rows, struct qfc_statements *writes, struct qfc_error *error);
    int (*succeed)(const struct qfc_job_rows *rows, struct qfc_statements *writes, struct qfc_error *error);
    int (*fail)(const struct qfc_job_rows *rows, struct qfc_statements *writes, struct qfc_error *error);
    int (*put_back)(const struct qfc_job_rows *rows, struct qfc_statements *writes, struct qfc_error *error);
};

/* All processors, null-ended. */
extern const struct qfc_processor *const qfc_processors[];

/* The processor of a job type, or null for a type that nobody knows. */
const struct qfc_processor *qfc_processor_of(const char *type);
