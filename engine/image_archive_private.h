/* What the two halves of verifying an image's archive share: what was found in it. */
#pragma once

#include "qfc/buffer.h"
#include "qfc/image_archive.h"

#include <stdbool.h>

/* One file or link of the archive. */
struct file {
    char *name;
    char *link;          /* what it leads to, or null */
    bool link_from_root; /* a hard link: its target is named from the archive's root */
    bool is_read;
    char raw[QFC_SHA256_SIZE];
    char unpacked[QFC_SHA256_SIZE]; /* of what is compressed; else "" */
    struct qfc_buffer json;         /* its content, where it looks like JSON */
};

struct contents {
    struct file *files;
    size_t count, room;
    int64_t json_bytes;
};

/* A new file of that name; null without memory, or (INVALID) where the name is taken. The pointer holds until the next. */
struct file *contents_add(struct contents *contents, const char *name, struct qfc_error *error);

/* Does it all belong together, and is it the image `id`? Returns 0 or -1. */
int contents_check(const struct contents *contents, const char *id, struct qfc_error *error);

void contents_free(struct contents *contents);

/* SHA-256, piece by piece. */
struct digest {
    void *context;
};
int sha256_begin(struct digest *digest, struct qfc_error *error);
void sha256_add(struct digest *digest, const void *data, size_t size);
void sha256_end(struct digest *digest, char out[QFC_SHA256_SIZE]);
void sha256_free(struct digest *digest); /* also of one that was not begun */
