/*
 * Chance: see qfc/random.h.
 */
#include "qfc/random.h"

#include <uv.h>

uint32_t qfc_random(uint32_t below)
{
    uint32_t number = 0;
    uv_random(NULL, NULL, &number, sizeof number, 0, NULL); /* where the kernel has none yet: 0 */
    return (uint32_t)(((uint64_t)number * below) >> 32);
}
