/*
 * Why a job goes back or fails, as one word: from the event that decided it, the step in which it came, and what the
 * engine has said.
 */
#include "worker_private.h"

#include <errno.h>
#include <string.h>

/* An image without the program, or with one that cannot be run: Docker answers 400 to the start, Podman 500. */
static bool is_exec_failure(const struct qfc_error *error)
{
    return error->code == 400 || strcasestr(error->message, "executable file") || strcasestr(error->message, "exec:");
}

static const enum qfc_reason missing[NEED_COUNT] = {
    [NEED_QGIS] = QFC_REASON_IMAGE_MISSING,   [NEED_QGIS3] = QFC_REASON_IMAGE_MISSING,
    [NEED_QGIS4] = QFC_REASON_IMAGE_MISSING,  [NEED_NETWORK] = QFC_REASON_NETWORK_MISSING,
    [NEED_GRIDS] = QFC_REASON_VOLUME_MISSING, [NEED_CA] = QFC_REASON_VOLUME_MISSING,
};

static enum qfc_reason refusal(struct job *job, const struct qfc_error *error)
{
    if (error->kind == QFC_ERROR_UNREACHABLE)
        return QFC_REASON_ENGINE_UNREACHABLE;
    if (job->step == STEP_INSPECT && job->adopted)
        return QFC_REASON_WORKER_LOST;
    if (strcasestr(error->message, "no space left on device"))
        return QFC_REASON_OUT_OF_DISK;
    enum need_kind lacking = engine_lacks(job, error);
    if (lacking != NEED_COUNT)
        return missing[lacking];
    if (job->step == STEP_START && is_exec_failure(error))
        return QFC_REASON_EXEC_FAILED;
    return QFC_REASON_ENGINE_REFUSED;
}

bool is_missing(enum qfc_reason reason)
{
    return reason == QFC_REASON_IMAGE_MISSING || reason == QFC_REASON_NETWORK_MISSING ||
           reason == QFC_REASON_VOLUME_MISSING;
}

enum qfc_reason reason_of(struct job *job, enum event event, const struct qfc_error *error)
{
    switch (event) {
    case EVENT_CANCEL:
        return QFC_REASON_CANCELLED;
    case EVENT_STOP:
        return QFC_REASON_WORKER_STOPPED;
    case EVENT_LOST:
        return error && error->code == ENOENT ? QFC_REASON_DELETED : QFC_REASON_ENDED_ELSEWHERE;
    case EVENT_TAKEN:
        return QFC_REASON_TAKEN_OVER;
    case EVENT_FAULT:
        return job->step == STEP_FINISH ? QFC_REASON_OUTCOME_REFUSED : QFC_REASON_JOB_INVALID;
    case EVENT_MAY_HAVE_RUN:
        return job->state.exit_code == EXIT_HOST_DOWN && error && error->kind == QFC_ERROR_UNKNOWN
                   ? QFC_REASON_HOST_REBOOTED
                   : QFC_REASON_ENGINE_LOST;
    default:
        return error ? refusal(job, error) : QFC_REASON_ENGINE_REFUSED;
    }
}

struct qfc_log_about about_with_reason(const struct job *job, enum qfc_reason reason)
{
    struct qfc_log_about about = job->about;
    about.reason = reason ? qfc_reason_words(reason)->code : NULL;
    return about;
}
