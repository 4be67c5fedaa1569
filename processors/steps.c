/*
 * The marks of a workflow's steps: see qfc/steps.h. (qfc_worker/utils.py of QFieldCloud's QGIS image prints them.)
 */
#include "qfc/steps.h"

#include "qfc/text.h"

#include <string.h>

#define BEGINS    "::<<<::"
#define ENDS      "::>>>::"
#define MARK_SIZE (sizeof BEGINS - 1)
#define UUID_SIZE 36

/* One line of UTF-8 without control characters; what does not fit is cut. */
static void take_name(char name[QFC_STEP_NAME_SIZE], const char *text, size_t size)
{
    const unsigned char *at = (const unsigned char *)text, *end = at + size;
    size_t used = 0;
    while (at < end) {
        size_t length = qfc_utf8_length(at, end);
        bool visible = length > 0 && *at >= ' ' && *at != 0x7f && !(length == 2 && *at == 0xc2 && at[1] < 0xa0);
        if (used + (visible ? length : 1) >= QFC_STEP_NAME_SIZE)
            break;
        if (visible)
            memcpy(name + used, at, length);
        else
            name[used] = '?';
        used += visible ? length : 1;
        at += length > 0 ? length : 1;
    }
    name[used] = '\0';
}

static void end_step(struct qfc_steps *steps, uint64_t now_ms, bool old)
{
    if (!*steps->uuid)
        return;
    if (steps->seen && !old && steps->done_count < QFC_STEPS_MAX) {
        struct qfc_step *step = &steps->done[steps->done_count++];
        memcpy(step->name, steps->current, sizeof step->name);
        step->took_ms = now_ms - steps->began_ms;
    }
    *steps->uuid = *steps->current = '\0';
    steps->changes++;
}

static void begin_step(struct qfc_steps *steps, const char *uuid, const char *name, size_t size, uint64_t now_ms,
                       bool old)
{
    end_step(steps, now_ms, old);
    memcpy(steps->uuid, uuid, UUID_SIZE);
    steps->uuid[UUID_SIZE] = '\0';
    take_name(steps->current, name, size);
    steps->began_ms = now_ms;
    steps->seen = !old;
    steps->changes++;
}

static bool is_uuid(const char *text)
{
    for (size_t i = 0; i < UUID_SIZE; i++) {
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        if (dash ? text[i] != '-' : !strchr("0123456789abcdefABCDEF", text[i]) || !text[i])
            return false;
    }
    return true;
}

/* A line is whole. */
static void take_line(struct qfc_steps *steps, uint64_t now_ms, bool old)
{
    const char *line = steps->line, *uuid = line + MARK_SIZE, *rest = uuid + UUID_SIZE;
    if (steps->line_size <= MARK_SIZE + UUID_SIZE || !is_uuid(uuid) || *rest != ' ')
        return;
    if (memcmp(line, BEGINS, MARK_SIZE) == 0)
        begin_step(steps, uuid, rest + 1, (size_t)(line + steps->line_size - rest - 1), now_ms, old);
    else if (memcmp(line, ENDS, MARK_SIZE) == 0 && memcmp(uuid, steps->uuid, UUID_SIZE) == 0)
        end_step(steps, now_ms, old);
}

void qfc_steps_add(struct qfc_steps *steps, const char *data, size_t size, uint64_t now_ms, bool old)
{
    while (size > 0) {
        const char *newline = memchr(data, '\n', size);
        size_t length = newline ? (size_t)(newline - data) : size;
        size_t room = sizeof steps->line - steps->line_size;
        /* A mark that is too long is one all the same: its name is cut. */
        size_t taken = length < room ? length : room;
        if (!steps->too_long)
            memcpy(steps->line + steps->line_size, data, taken);
        steps->line_size += steps->too_long ? 0 : taken;
        steps->too_long |= taken < length;
        if (newline) {
            take_line(steps, now_ms, old);
            steps->line_size = 0;
            steps->too_long = false;
        }
        data += length + (newline ? 1 : 0);
        size -= length + (newline ? 1 : 0);
    }
}
