/*
 * What holds a container of the QGIS image in, and what it may reach: the same for a job's and for one that `check` asks
 * a question with.
 */
#pragma once

#include "qfc/container.h"
#include "qfc/limits.h"
#include "qfc/settings.h"

#include <stdbool.h>

/* Where a deployment keeps a certificate authority of its own (v26.8 and later), here and in the container. */
#define QFC_CUSTOM_CA_DIRECTORY "/etc/ssl/custom_certs"
#define QFC_CUSTOM_CA_FILE      QFC_CUSTOM_CA_DIRECTORY "/custom_ca.crt"

/* Is there one? */
bool qfc_has_custom_ca(void);

/* The volume of it, which containers get. */
void qfc_custom_ca_volume(const struct qfc_settings *settings, char *out, size_t size);

/* What the container's members point to: it must live as long. */
struct qfc_confines {
    struct qfc_mount mounts[5];
    char ca_volume[256];
};

/* Sets the container's network, limits, privileges and mounts. */
void qfc_confine(const struct qfc_settings *settings, const struct qfc_limits *limits, struct qfc_confines *confines,
                 struct qfc_container *container);
