/* What the image commands share. */
#pragma once

#include "command.h"
#include "ops_private.h"
#include "turns.h"

#include "qfc/image_backup.h"

#define IMAGES_MAX 64

/* What one of the commands was asked for. */
struct image_request {
    struct qfc_settings settings;
    const char *directory;
    const char *id; /* restore; or null */
    const char *images[IMAGES_MAX];
    size_t count;
    bool named; /* on the command line; else those of the settings */
};

/* Reads command line and settings. Returns QFC_EXIT_OK, or another code: then it was said why, and there is nothing to
 * free. */
int image_request_read(const struct command *command, int argc, char **argv, struct image_request *ret_request);
void image_request_free(struct image_request *request);

/* "1.2 GB" */
#define BYTES_SIZE 24
const char *print_bytes(int64_t bytes, char out[BYTES_SIZE]);

/* Shows on a terminal's stderr how far something is, in one line that is written over; elsewhere every ten seconds. All
 * zero at the beginning. */
struct meter {
    bool shown;
    uint64_t said_ms;
};
void meter_show(struct meter *meter, const char *image, const char *doing, int64_t bytes, int64_t total);
void meter_clear(struct meter *meter);

extern const struct option_info image_directory_option[];
