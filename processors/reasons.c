/*
 * The reasons and their words: see qfc/reasons.h. The codes TIMEOUT and DOCKER_ENGINE_SIGKILL and their sentences are
 * QFieldCloud's own worker's; the web application's users know them.
 */
#include "qfc/reasons.h"

#include <string.h>

static const struct qfc_reason_words words[QFC_REASON_COUNT] = {
    [QFC_REASON_NONE] = {"", false, "It went well.", ""},
    [QFC_REASON_JOB_ERROR] = {"JOB_ERROR", false, "The job's workflow failed.", ""},
    [QFC_REASON_CONTAINER_FAILED] = {"CONTAINER_FAILED", false, "The job's container failed.", ""},
    [QFC_REASON_FEEDBACK_UNREADABLE] = {"FEEDBACK_UNREADABLE", false, "The job left no feedback that can be read.", ""},
    [QFC_REASON_JOB_INVALID] = {"JOB_INVALID", false, "The job cannot be run as it stands in the database.", ""},
    [QFC_REASON_OUTCOME_REFUSED] = {"OUTCOME_REFUSED", false, "What the job has brought cannot be written.", ""},
    [QFC_REASON_OUT_OF_MEMORY] =
        {"OUT_OF_MEMORY", true, "The job ran out of memory: its container was killed at its memory limit.",
         "Raise WORKER_QGIS_MEMORY_LIMIT in QFieldCloud's administration, or make the project's layers smaller."},
    [QFC_REASON_OUT_OF_DISK] = {"OUT_OF_DISK", true,
                                "The disk that the engine keeps its containers and volumes on is full.",
                                "Free space on the engine's host (docker system df shows what takes it), or make the "
                                "project's files smaller."},
    [QFC_REASON_READ_ONLY] =
        {"READ_ONLY", false, "The job wrote to a place of its container that is read-only.",
         "Only /io, /tmp and /root of a container can be written to; QFC_WORKER_CONTAINER_READ_ONLY=0 lifts that."},
    [QFC_REASON_NOT_PERMITTED] =
        {"NOT_PERMITTED", false, "The job did something that its container is not permitted to do.",
         "Containers have no capabilities and get no new privileges; QFC_WORKER_CONTAINER_DROP_CAPABILITIES=0 and "
         "QFC_WORKER_CONTAINER_NO_NEW_PRIVILEGES=0 lift that."},
    [QFC_REASON_TOO_MANY_PROCESSES] = {"TOO_MANY_PROCESSES", false,
                                       "The job has more processes and threads than its container may have.",
                                       "QFC_WORKER_CONTAINER_PROCESSES says how many a container may have."},
    [QFC_REASON_TIMEOUT] =
        {"TIMEOUT", true, "Worker timeout error.",
         "Raise WORKER_TIMEOUT_S in QFieldCloud's administration, or QFIELDCLOUD_WORKER_TIMEOUT_S where it is set."},
    [QFC_REASON_CANCELLED] = {"CANCELLED", true, "The job was cancelled.", ""},
    [QFC_REASON_DELETED] = {"DELETED", false, "The job or its project was deleted.", ""},
    [QFC_REASON_ENDED_ELSEWHERE] = {"ENDED_ELSEWHERE", false, "Somebody else has written the job's end.", ""},
    [QFC_REASON_TAKEN_OVER] = {"TAKEN_OVER", false, "Another worker has taken the job over.", ""},
    [QFC_REASON_WORKER_STOPPED] = {"WORKER_STOPPED", false, "The worker was told to leave.", ""},
    [QFC_REASON_WORKER_LOST] = {"WORKER_LOST", false, "The worker was gone before it started the container.", ""},
    [QFC_REASON_SIGKILL] =
        {"DOCKER_ENGINE_SIGKILL", true, "Docker engine sigkill.",
         "Somebody has killed the container (docker kill, or the host's own out-of-memory killer: its journal tells); "
         "the job can be started again."},
    [QFC_REASON_ENGINE_LOST] = {"ENGINE_LOST", true, "The engine ended the job's container, or somebody took it away.",
                                "See in the log of the engine's host why (journalctl -u docker), and whether the job "
                                "has done its work, before "
                                "it is started again."},
    [QFC_REASON_HOST_REBOOTED] = {"HOST_REBOOTED", true, "The engine's host went down under the job's container.",
                                  "See whether the job has done its work before it is started again."},
    [QFC_REASON_ENGINE_UNREACHABLE] = {"ENGINE_UNREACHABLE", false, "The engine could not be reached.",
                                       "See whether the engine runs."},
    [QFC_REASON_ENGINE_REFUSED] = {"ENGINE_REFUSED", false, "The engine could not run the job's container.", ""},
    [QFC_REASON_EXEC_FAILED] =
        {"EXEC_FAILED", true, "The image cannot run the job's program.",
         "See whether the image is QFieldCloud's own for this release (QFIELDCLOUD_QGIS_IMAGE_NAME, "
         "QFIELDCLOUD_QGIS3_IMAGE_NAME, QFIELDCLOUD_QGIS4_IMAGE_NAME) and whole."},
    [QFC_REASON_IMAGE_MISSING] = {"IMAGE_MISSING", true, "The engine has no image of that name.",
                                  "Bring the QGIS image back onto the engine."},
    [QFC_REASON_NETWORK_MISSING] = {"NETWORK_MISSING", true, "The engine has no network of that name.",
                                    "Make the network, or correct QFIELDCLOUD_DEFAULT_NETWORK."},
    [QFC_REASON_VOLUME_MISSING] = {"VOLUME_MISSING", true, "The engine has no volume of that name.",
                                   "Make the volume, or correct QFIELDCLOUD_TRANSFORMATION_GRIDS_VOLUME_NAME or "
                                   "COMPOSE_PROJECT_NAME."},
};

const struct qfc_reason_words *qfc_reason_words(enum qfc_reason reason)
{
    return &words[reason < QFC_REASON_COUNT ? reason : QFC_REASON_NONE];
}

enum qfc_reason qfc_reason_of(const char *code)
{
    for (enum qfc_reason reason = QFC_REASON_NONE + 1; reason < QFC_REASON_COUNT; reason++)
        if (strcmp(words[reason].code, code) == 0)
            return reason;
    return QFC_REASON_NONE;
}
