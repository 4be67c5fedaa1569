/*
 * Containers that may be left over: of the engine's list those of jobs of this deployment. Which of them nobody needs,
 * the database tells (qfc_unwanted_ask). What another stack on the same engine has is no suspect.
 */
#pragma once

#include <stddef.h>

struct qfc_suspects {
    /* Of each: its job, its id, and the marker of the worker that made it, "" for QFieldCloud's own. */
    const char **jobs, **containers, **workers;
    size_t count;
    void *list; /* the texts belong to it */
};

/* Reads what qfc_engine_list has brought; a list that makes no sense has none. `network` is the containers' or "", `stack`
 * is the label qfc_stack of our containers. Returns 0 or -1 (no memory); free with qfc_suspects_free. */
int qfc_suspects_read(const char *json, size_t size, const char *network, const char *stack,
                      struct qfc_suspects *ret_suspects);
void qfc_suspects_free(struct qfc_suspects *suspects);
