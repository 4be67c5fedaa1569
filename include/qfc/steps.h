/*
 * The steps of a job's workflow, as its log tells of them while it runs: on stderr each prints
 * `::<<<::<uuid> <step name>` when it begins and `::>>>::<uuid> <stage>` when it ends.
 *
 * A pure push parser: bytes in as they come, cut anywhere. What a container prints may be hostile: lines are kept up to a
 * bound, names are made fit for one line of UTF-8, and so many steps are remembered.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define QFC_STEP_NAME_SIZE 64
#define QFC_STEPS_MAX      24

struct qfc_step {
    char name[QFC_STEP_NAME_SIZE];
    uint64_t took_ms;
};

/* All zero at the beginning. */
struct qfc_steps {
    char current[QFC_STEP_NAME_SIZE];    /* the running step's name; "": none runs */
    uint64_t began_ms;                   /* when it began, on the caller's clock, */
    bool seen;                           /* if that is known: it was not printed before anybody looked */
    struct qfc_step done[QFC_STEPS_MAX]; /* in their order, those whose beginning was seen */
    unsigned done_count;
    unsigned changes; /* how often a step has begun or ended: to see whether something is new */

    /* The parser's own. */
    char uuid[37];
    char line[8 + 37 + QFC_STEP_NAME_SIZE * 4];
    size_t line_size;
    bool too_long; /* the rest of this line is passed over */
};

/* Takes what came on stderr at `now_ms`. `old`: it was printed before anybody looked, so nothing is known of its time. */
void qfc_steps_add(struct qfc_steps *steps, const char *data, size_t size, uint64_t now_ms, bool old);
