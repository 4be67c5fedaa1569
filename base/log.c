/*
 * The levelled log: see qfc/log.h.
 */
#include "qfc/log.h"

#include "qfc/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* One record is one write of at most this many bytes; a longer message is cut. */
#define RECORD_BYTES  10240
#define MESSAGE_BYTES 4096
/* What follows the message: two ids of 36 characters, two names of up to 127 bytes that can be escaped, and a type. */
#define AFTER_MESSAGE_BYTES 2560

static enum qfc_log_format log_format = QFC_LOG_TEXT;
static enum qfc_log_level log_level = QFC_LOG_INFO;
static int log_fd = STDERR_FILENO;

static const char *const level_names[] = {"debug", "info", "warning", "error"};

void qfc_log_configure(enum qfc_log_format format, enum qfc_log_level level)
{
    log_format = format;
    log_level = level;
}

void qfc_log_to(int fd)
{
    log_fd = fd;
}

bool qfc_log_enabled(enum qfc_log_level level)
{
    return level >= log_level;
}

/*
 * A record under construction. Bytes beyond `limit` are left out: while the message is written the limit keeps room
 * for what must come after it, so that a record is always closed.
 */
struct record {
    size_t size;
    size_t limit;
    char text[RECORD_BYTES];
};

static void put(struct record *record, const char *data, size_t size)
{
    if (record->size + size <= record->limit) {
        memcpy(record->text + record->size, data, size);
        record->size += size;
    }
}

static void put_text(struct record *record, const char *text)
{
    put(record, text, strlen(text));
}

/* Writes a text as it may stand in one line of a log: UTF-8 without control characters; for JSON, quotes escaped. */
static void put_escaped(struct record *record, const char *text, bool json)
{
    const unsigned char *at = (const unsigned char *)text;
    const unsigned char *end = at + strlen(text);
    while (at < end) {
        size_t length = qfc_utf8_length(at, end);
        char escape[8];
        if (length == 0) {
            put_text(record, "\xEF\xBF\xBD");
            length = 1;
        } else if (*at == '\n') {
            put_text(record, "\\n");
        } else if (length == 2 && at[0] == 0xC2 && at[1] < 0xA0) {
            /* C1 control characters: a terminal may obey them. */
            put(record, escape, (size_t)snprintf(escape, sizeof escape, "\\u%04x", at[1]));
        } else if (*at < 0x20 || *at == 0x7F) {
            put(record, escape, (size_t)snprintf(escape, sizeof escape, json ? "\\u%04x" : "\\x%02x", *at));
        } else if (json && (*at == '"' || *at == '\\')) {
            put(record, (char[]){'\\', (char)*at}, 2);
        } else {
            put(record, (const char *)at, length);
        }
        at += length;
    }
}

/* As text a value is in quotes where its end could not be told otherwise. */
static void put_member(struct record *record, const char *name, const char *value)
{
    if (!value || !*value)
        return;
    bool json = log_format == QFC_LOG_JSON, quoted = json || strpbrk(value, " \"=");
    put_text(record, json ? ",\"" : " ");
    put_text(record, name);
    put_text(record, json ? "\":" : "=");
    put_text(record, quoted ? "\"" : "");
    put_escaped(record, value, quoted);
    put_text(record, quoted ? "\"" : "");
}

static void put_message(struct record *record, const char *message)
{
    record->limit = sizeof record->text - AFTER_MESSAGE_BYTES;
    put_escaped(record, message, log_format == QFC_LOG_JSON);
    record->limit = sizeof record->text;
}

static void put_time(struct record *record)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    struct tm utc;
    gmtime_r(&now.tv_sec, &utc);
    char text[40];
    size_t length = strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &utc);
    length += (size_t)snprintf(text + length, sizeof text - length, ".%03ldZ", now.tv_nsec / 1000000);
    put(record, text, length);
}

static void put_record(struct record *record, enum qfc_log_level level, const struct qfc_log_about *about,
                       const char *message)
{
    if (log_format == QFC_LOG_JSON) {
        put_text(record, "{\"time\":\"");
        put_time(record);
        put_text(record, "\"");
        put_member(record, "level", level_names[level]);
        put_text(record, ",\"message\":\"");
        put_message(record, message);
        put_text(record, "\"");
    } else {
        char name[16];
        put_time(record);
        put(record, name, (size_t)snprintf(name, sizeof name, " %-7s ", level_names[level]));
        put_message(record, message);
        put_text(record, about ? " " : "");
    }
    if (about) {
        put_member(record, "type", about->type);
        put_member(record, "owner", about->owner);
        put_member(record, "project_name", about->project_name);
        put_member(record, "job", about->job);
        put_member(record, "project", about->project);
        put_member(record, "reason", about->reason);
    }
    put_text(record, log_format == QFC_LOG_JSON ? "}\n" : "\n");
}

void qfc_log(enum qfc_log_level level, const struct qfc_log_about *about, const char *format, ...)
{
    if (!qfc_log_enabled(level))
        return;
    char message[MESSAGE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    if (length < 0)
        return;
    if ((size_t)length >= sizeof message)
        memcpy(message + sizeof message - 4, "...", 4);

    struct record record;
    record.size = 0;
    record.limit = sizeof record.text;
    put_record(&record, level, about, message);
    /* A full disk or a closed pipe must not stop the work that the line is about. */
    ssize_t written = write(log_fd, record.text, record.size);
    (void)written;
}
