/*
 * Chance, for waits that many workers must not have in common.
 *
 * It comes from the kernel each time (libuv's uv_random). A generator that is seeded with the time and the process's
 * number would be the same in all replicas: they are started within the same second, and in its container each is
 * process 1.
 */
#pragma once

#include <stdint.h>

/* A number from 0 to `below` - 1, each as probable as the others; 0 where `below` is 0. May be called anywhere. */
uint32_t qfc_random(uint32_t below);
