/* What the files of this room share. */
#pragma once

#include "qfc/queue.h"

#define MARKER_SIZE  65 /* core_job.container_id is varchar(64) */
#define RELEASE_SIZE 64

struct qfc_queue {
    struct qfc_pg *pg;
    struct qfc_queue_options options;
    char *types;              /* as a PostgreSQL array */
    char marker[MARKER_SIZE]; /* names this process: no other ever has it */
    char release[RELEASE_SIZE];
    const struct qfc_name *names;
};

/* release.c */

/* The queries that tell the release; their results go to recognise(). */
int release_probe(struct qfc_statements *statements, struct qfc_error *error);

/* Finds the release from the probe's result and fills the queue's names, or refuses the server with the reason. */
int release_recognise(struct qfc_queue *queue, const PGresult *probe, struct qfc_error *error);

/* fence.c */

/* "{...}" PostgreSQL array of `count` texts, to be freed; null when out of memory. */
char *array_text(const char *const *texts, size_t count);

/* The statement that fails the transaction unless the row is ours; $1 id, $2 marker, $3 container. */
extern const char fence_sql[];

/*
 * Makes of an error of the database what it means for the job: the fence's own error becomes LOST or TAKEN, with the
 * row's status told; others stay.
 */
void fence_translate(struct qfc_error *error);

/* A call of the caller's, kept while its batch is under way, so that errors can be translated before they arrive. */
struct call {
    qfc_pg_done *done;
    void *userdata;
};

/* Sends `statements` (with names expanded) as one transaction; its error is translated. The list is freed. */
int send_fenced(struct qfc_queue *queue, struct qfc_statements *statements, qfc_pg_done *done, void *userdata,
                struct qfc_error *error);
