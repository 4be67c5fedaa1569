/*
 * The queue's life, and the marker that names this process.
 */
#include "queue_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

static int make_marker(struct qfc_queue *queue, struct qfc_error *error)
{
    unsigned char random[8];
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
        return qfc_fail(error, QFC_ERROR_BUG, 0, "the kernel gave no random bytes");
    char instance[2 * sizeof random + 1];
    for (size_t i = 0; i < sizeof random; i++)
        snprintf(instance + 2 * i, 3, "%02x", random[i]);
    const char *host = queue->options.host ? queue->options.host : "";
    snprintf(queue->marker, sizeof queue->marker, "qfc-worker:%s:%.36s", instance, host);
    return 0;
}

/* The lanes that come later need these, too. */
static int keep_texts(struct qfc_queue *queue, const struct qfc_queue_options *options, struct qfc_error *error)
{
    queue->conninfo = strdup(options->conninfo);
    queue->about = strdup(options->about ? options->about : "");
    queue->time_zone = strdup(options->time_zone ? options->time_zone : "UTC");
    queue->legacy_storage = strdup(options->legacy_storage ? options->legacy_storage : "");
    return queue->conninfo && queue->about && queue->time_zone && queue->legacy_storage ? 0 : qfc_fail_memory(error);
}

struct qfc_queue *qfc_queue_new(uv_loop_t *loop, const struct qfc_queue_options *options, struct qfc_error *error)
{
    struct qfc_queue *queue = calloc(1, sizeof *queue);
    if (!queue) {
        qfc_fail_memory(error);
        return NULL;
    }
    queue->loop = loop;
    queue->options = *options;
    bool open = keep_texts(queue, options, error) == 0 && make_marker(queue, error) == 0 &&
                lane_open(queue, LANE_CLAIMS, error) == 0;
    queue->options.conninfo = queue->options.host = queue->options.about = NULL; /* they were copied */
    queue->options.time_zone = queue->options.legacy_storage = NULL;
    if (open)
        return queue;
    qfc_queue_free(queue);
    return NULL;
}

void qfc_queue_free(struct qfc_queue *queue)
{
    if (!queue)
        return;
    lanes_close(queue);
    while (queue->calls)
        end_call(queue->calls);
    if (queue->conninfo)
        explicit_bzero(queue->conninfo, strlen(queue->conninfo));
    free(queue->conninfo);
    qfc_buffer_free(&queue->unowned);
    free(queue->about);
    free(queue->time_zone);
    free(queue->legacy_storage);
    free(queue);
}

const char *qfc_queue_release(const struct qfc_queue *queue)
{
    return queue->release.called;
}

const char *qfc_queue_identity(const struct qfc_queue *queue)
{
    return queue->release.identity;
}

const struct qfc_name *qfc_queue_names(const struct qfc_queue *queue)
{
    return queue->release.names[0].name ? queue->release.names : NULL;
}

const char *qfc_queue_marker(const struct qfc_queue *queue)
{
    return queue->marker;
}
