/* Takes the frames off a log: see frames.h. */
#include "frames.h"

#include <string.h>

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Takes up to eight bytes. Returns how many, or -1 when they cannot be a header. */
static int take_header(struct qfc_frames *frames, const char *data, size_t size, struct qfc_error *error)
{
    unsigned char *header = frames->header;
    size_t taken = smaller(size, sizeof frames->header - frames->header_size);

    memcpy(header + frames->header_size, data, taken);
    frames->header_size += taken;
    if (frames->header_size < sizeof frames->header)
        return (int)taken;
    if (header[0] > QFC_FRAME_ENGINE || header[1] || header[2] || header[3])
        return qfc_fail(error, QFC_ERROR_INVALID, 0, "the log is not framed as the engine's API says");
    frames->left = (uint32_t)header[4] << 24 | (uint32_t)header[5] << 16 | (uint32_t)header[6] << 8 | header[7];
    if (frames->left == 0)
        frames->header_size = 0;
    return (int)taken;
}

int qfc_frames_push(struct qfc_frames *frames, const char *data, size_t size, qfc_frames_sink *sink, void *userdata,
                    struct qfc_error *error)
{
    while (size > 0) {
        size_t taken;

        if (frames->left == 0) {
            int n = take_header(frames, data, size, error);
            if (n < 0)
                return -1;
            taken = (size_t)n;
        } else {
            taken = smaller(size, frames->left);
            if (sink(userdata, (enum qfc_frame_stream)frames->header[0], data, taken) < 0)
                return qfc_fail(error, QFC_ERROR_INVALID, 0, "the log was given up by its receiver");
            frames->left -= (uint32_t)taken;
            if (frames->left == 0)
                frames->header_size = 0;
        }
        data += taken;
        size -= taken;
    }
    return 0;
}

bool qfc_frames_complete(const struct qfc_frames *frames)
{
    return frames->header_size == 0;
}
