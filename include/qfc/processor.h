/*
 * Job types: data in, data out. Nothing here waits, and nothing here owns a socket.
 *
 * A processor is a const table of plain functions. Given a job's rows it says what to run; given how the run ended, it
 * says what to write. What it wants written becomes part of the same transaction as the job's own row. SQL may use the
 * names of qfc_queue_names.
 */
#pragma once

#include "qfc/error.h"
#include "qfc/feedback.h"
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
    const PGresult *project;        /* one row, see qfc_project_sql; null where `read` failed */
    const PGresult *const *results; /* one for each of the processor's `reads` */
    size_t count;
};

/* What `read` asks about the project of job $1: project_name, owner, qgis_file, qgis_version, images_by_qgis,
 * packaging_offliner, file_storage, legacy_storage (is that one the legacy storage?), thumbnail_by_worker. */
extern const char qfc_project_sql[];

/* What to run. Texts and data belong to the rows, or are constants. */
struct qfc_plan {
    const char *arguments[QFC_PLAN_ARGUMENTS + 1]; /* of entrypoint.py; null-ended */
    struct qfc_tar_file files[QFC_PLAN_FILES];     /* for /io, before the start */
    size_t file_count;
};

/* What is known when a job's outcome is about to be written. */
struct qfc_job_end {
    const struct qfc_feedback *feedback; /* the container's; null where there is none */
    const PGresult *const *reviews;      /* one for each of the processor's `reviews`; null where they were not asked */
    const char *thumbnail;               /* key of the object that the thumbnail was stored as, or null */
};

typedef int qfc_job_writes(const struct qfc_job_rows *rows, struct qfc_statements *writes, struct qfc_error *error);
typedef int qfc_job_end_writes(const struct qfc_job_rows *rows, const struct qfc_job_end *end,
                               struct qfc_statements *writes, struct qfc_error *error);

struct qfc_processor {
    const char *type;         /* core_job.type */
    bool safe_to_rerun;       /* may it be started again after a start that may have run? */
    const char *const *reads; /* queries with $1 job id and $2 project id, null-ended; may be null */

    /* Queries as `reads`, asked when the run is over, right before the outcome is written; null-ended; may be null. A
     * write that finds what they brought changed since fails with QFC_CHANGED, and they are asked again. */
    const char *const *reviews;

    /* What to run. -1: the job fails with that error (QFC_ERROR_INVALID), or memory is out. Never null. */
    int (*plan)(const struct qfc_job_rows *rows, struct qfc_plan *plan, struct qfc_error *error);

    /*
     * What to write in the transactions of prepare, of finish (after success; after failure) and of putting back; each
     * may be null. They add to `writes`, whose statements run after the job's own row is written: core_job.feedback is
     * then the container's, cleaned, and times are set. What cannot be done in one of them (QFC_REFUSED, a constraint)
     * fails the whole transaction; the job then fails with that reason. `fail` must not depend on anything but the
     * job: rows and feedback may be missing.
     *
     * Results speak by their columns: each row with a column `remark` is logged as a warning about the job once the
     * transaction is committed; each with columns `storage` and `object` names an object to delete then.
     */
    qfc_job_writes *before;
    qfc_job_end_writes *succeed;
    qfc_job_end_writes *fail;
    qfc_job_writes *put_back;

    /* Path of a picture that the container may leave for the project where the row says thumbnail_by_worker, or null.
     * The first review then names where it is stored: columns thumbnail_storage, thumbnail_object. */
    const char *thumbnail;

    /* Prefix of the project's objects that may have lost their rows, as a format with one %s, the project's id; or
     * null. What is found below it in the project's storage is given to `leftovers` after a success ($1 job id, $2
     * project id, $3 text[] of keys), which returns the column `object` for each that nobody needs. */
    const char *swept_prefix;
    const char *leftovers;
};

/* All processors, null-ended. */
extern const struct qfc_processor *const qfc_processors[];

/* The processor of a job type, or null for a type that nobody knows. */
const struct qfc_processor *qfc_processor_of(const char *type);
