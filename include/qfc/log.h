/*
 * The levelled log on stderr: text for people, or JSON lines for machines.
 *
 *     2026-02-03T10:11:12.345Z info    claimed package  type=package owner=alice project_name=trees job=4f1c... project=9a02...
 *     {"time":"2026-02-03T10:11:12.345Z","level":"info","message":"claimed package","type":"package",...}
 *
 * Only worker/ and ops/ log; the rooms below return errors or call back. One line is one write, so that lines of
 * several processes do not mix. Control characters and broken UTF-8 in a message are escaped: one record is one line.
 */
#pragma once

#include <stdbool.h>

enum qfc_log_level {
    QFC_LOG_DEBUG = 0,
    QFC_LOG_INFO,
    QFC_LOG_WARNING,
    QFC_LOG_ERROR,
};

enum qfc_log_format {
    QFC_LOG_TEXT = 0,
    QFC_LOG_JSON,
};

/* What a line is about; members that are null or "" are left out. */
struct qfc_log_about {
    const char *type;         /* core_job.type */
    const char *owner;        /* of the project, a name */
    const char *project_name; /* as text, what has blanks in it is in quotes, and escaped as in JSON */
    const char *job;          /* core_job.id */
    const char *project;      /* project id */
    const char *reason;       /* why it ended so: a code of qfc/reasons.h */
};

/* Process-wide; before the first call: info and above, as text, on file descriptor 2. */
void qfc_log_configure(enum qfc_log_format format, enum qfc_log_level level);

/* For tests: write to another file descriptor. */
void qfc_log_to(int fd);

/* Is this level written at all? For callers that would work to make a message. */
bool qfc_log_enabled(enum qfc_log_level level);

/* Writes one line. `about` may be null. Never fails: a line that cannot be written is dropped. */
void qfc_log(enum qfc_log_level level, const struct qfc_log_about *about, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
