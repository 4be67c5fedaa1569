/*
 * A job as the queue hands it out: one row of core_job that this worker has claimed.
 */
#pragma once

#include <stdbool.h>

#define QFC_UUID_SIZE 37
#define QFC_ID_SIZE   12 /* an integer as text */
#define QFC_NAME_SIZE 128

struct qfc_job {
    char id[QFC_UUID_SIZE];
    char project_id[QFC_UUID_SIZE];
    char type[33];
    char project_name[QFC_NAME_SIZE]; /* longer ones are cut, like the next */
    char owner[QFC_NAME_SIZE];        /* of the project: a user's or an organization's name */
    char created_by[QFC_ID_SIZE];     /* core_user.id, as text */
    char triggered_by[QFC_ID_SIZE];   /* core_user.id, as text */
    unsigned attempt;                 /* 1 for the first */
    unsigned faults;                  /* earlier attempts that count against the limit */
    double waited_s;                  /* since it was created; 0 where that is not known */
    bool patient; /* somebody holds the lock of a row that it needs: it waits where it holds up no other */
};
