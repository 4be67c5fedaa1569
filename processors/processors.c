/*
 * The table of job types. A new one is a file with a const table, and a line here.
 */
#include "processors_private.h"

#include <string.h>

const struct qfc_processor *const qfc_processors[] = {
    &processor_package,
    NULL,
};

const struct qfc_processor *qfc_processor_of(const char *type)
{
    for (const struct qfc_processor *const *processor = qfc_processors; *processor; processor++)
        if (strcmp((*processor)->type, type) == 0)
            return *processor;
    return NULL;
}
