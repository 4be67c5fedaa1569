/* Prometheus's text format (prometheus.io/docs/instrumenting/exposition_formats), family by family. */
#pragma once

#include "companion.h"

/* What is written; `cut`: something did not fit, or there was no memory for it. */
struct metrics {
    struct qfc_buffer *buffer;
    bool cut;
};

void put_family(struct metrics *out, const char *name, const char *type, const char *help);

/* `labels`: pairs of name and value, null-ended; null: none. */
void put_sample(struct metrics *out, const char *name, const char *const *labels, double value);

#define LABELS(...) ((const char *const[]){__VA_ARGS__, NULL})

/* A family of one sample without labels. */
void put_one(struct metrics *out, const char *name, const char *type, const char *help, double value);

/* queue_metrics.c */
void put_queue(struct metrics *out, const struct qfc_report *report);
void put_alerts(struct metrics *out, const struct alerts *alerts);
