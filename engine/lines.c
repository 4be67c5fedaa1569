/* Answers that are JSON texts, one a line: what a load says, and the engine's events. */
#include "engine_private.h"

#include <string.h>

#define LINE_MAX_BYTES (256u * 1024)

static void take_line(struct qfc_engine_call *call, qfc_engine_line *on_line)
{
    struct qfc_engine_lines *lines = &call->lines;
    json_t *line = lines->too_long ? NULL : json_loadb(qfc_buffer_text(&lines->line), lines->line.size, 0, NULL);

    if (lines->line.data)
        lines->line.data[0] = '\0';
    lines->line.size = 0;
    lines->too_long = false;
    if (line)
        on_line(call, line);
    json_decref(line);
}

int qfc_engine_lines_add(struct qfc_engine_call *call, const char *data, size_t size, qfc_engine_line *on_line)
{
    struct qfc_engine_lines *lines = &call->lines;

    lines->line.maximum = LINE_MAX_BYTES;
    while (size > 0 && !call->cancelled) {
        const char *end = memchr(data, '\n', size);
        size_t length = end ? (size_t)(end - data) : size, used = length + (end != NULL);

        if (length > LINE_MAX_BYTES - lines->line.size)
            lines->too_long = true;
        if (!lines->too_long && qfc_buffer_append(&lines->line, data, length) < 0)
            return qfc_fail_memory(&call->failure);
        if (end)
            take_line(call, on_line);
        data += used;
        size -= used;
    }
    return 0;
}

void qfc_engine_lines_end(struct qfc_engine_call *call, qfc_engine_line *on_line)
{
    if (call->lines.line.size > 0)
        take_line(call, on_line);
}
