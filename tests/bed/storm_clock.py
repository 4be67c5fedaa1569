"""A clock of the day that jumps from one moment to the next, for single processes: what asks for the time is replaced.

The clock that only counts on is left alone, as it is when somebody sets a machine's time.
"""

import datetime
import os
import struct
import subprocess

HOUR_S = 3600
SOURCE = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *offset;

__attribute__((constructor)) static void open_offset(void)
{
    const char *path = getenv("QFC_TEST_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *page = file >= 0 ? mmap(NULL, sizeof *offset, PROT_READ, MAP_SHARED, file, 0) : MAP_FAILED;
    if (page == MAP_FAILED)
        _exit(126);
    offset = page;
    close(file);
}

int clock_gettime(clockid_t id, struct timespec *now)
{
    int r = (int)syscall(SYS_clock_gettime, id, now);
    if (r == 0 && offset && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
        now->tv_sec += *offset;
    return r;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec precise;
    int r = clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return r;
}

time_t time(time_t *ret)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (ret)
        *ret = now.tv_sec;
    return now.tv_sec;
}
"""


class Clock:
    """That of the processes that are started with `env`. A sanitizer, which wants to be the first library, is told."""

    def __init__(self, directory):
        source, library = (os.path.join(directory, name) for name in ("clock.c", "clock.so"))
        self._path = os.path.join(directory, "clock")
        with open(source, "w", encoding="ascii") as file:
            file.write(SOURCE)
        subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, source], check=True)
        with open(self._path, "wb") as file:
            file.write(struct.pack("=q", 0))
        options = [text for text in (os.environ.get("ASAN_OPTIONS"), "verify_asan_link_order=0") if text]
        self.env = {"LD_PRELOAD": library, "QFC_TEST_CLOCK": self._path, "ASAN_OPTIONS": ":".join(options)}

    def jump(self, hours):
        """From now on it is off by so many."""
        with open(self._path, "r+b") as file:
            file.write(struct.pack("=q", hours * HOUR_S))


def hours_off(process):
    """By how much the clock of a process is, as the last line of its log shows."""
    written = datetime.datetime.fromisoformat(process.output().lines[-1]["time"].replace("Z", "+00:00"))
    return round((written - datetime.datetime.now(datetime.timezone.utc)).total_seconds() / HOUR_S)
