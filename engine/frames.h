/*
 * The frames in which the engine wraps what a container without a terminal prints: one byte that names the stream,
 * three zero bytes, the length as 32 bits big-endian, then as many bytes (Docker Engine API, ContainerAttach, "Stream
 * format"). A pure push parser: bytes in as they come, pieces out, nothing kept but the place.
 */
#pragma once

#include "qfc/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum qfc_frame_stream {
    QFC_FRAME_STDIN = 0, /* written to stdout, says the reference */
    QFC_FRAME_STDOUT = 1,
    QFC_FRAME_STDERR = 2,
    QFC_FRAME_ENGINE = 3, /* the engine's word on why the stream ends: "systemerr" of its stdcopy package */
};

/* All zero at the beginning. */
struct qfc_frames {
    unsigned char header[8];
    size_t header_size; /* bytes of it that have come */
    uint32_t left;      /* bytes of the frame that are still to come */
};

/* A piece of a frame, never empty. -1 ends the parsing. */
typedef int qfc_frames_sink(void *userdata, enum qfc_frame_stream stream, const char *data, size_t size);

/* Returns 0, or -1 with QFC_ERROR_INVALID: what came is no frame, or the sink did not want it. */
int qfc_frames_push(struct qfc_frames *frames, const char *data, size_t size, qfc_frames_sink *sink, void *userdata,
                    struct qfc_error *error);

/* May the input end here, between two frames? */
bool qfc_frames_complete(const struct qfc_frames *frames);
