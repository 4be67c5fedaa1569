/*
 * The settings' limits and volumes as a container's: see qfc/confine.h.
 */
#include "qfc/confine.h"

#include "qfc/environment.h"

#include <stdio.h>
#include <unistd.h>

#define MEGABYTE (1024 * 1024)

/*
 * Where the QGIS image writes, as volumes that go with the container. (A tmpfs would count against the memory limit, and
 * the archive API does not see it.) Of the image's own /root nothing is needed, and copying it could take long.
 */
static const struct qfc_mount writable[] = {{.target = "/io"}, {.target = "/tmp"}, {.target = "/root", .empty = true}};

#define WRITABLE_COUNT (sizeof writable / sizeof *writable)

bool qfc_has_custom_ca(void)
{
    return access(QFC_CUSTOM_CA_FILE, F_OK) == 0;
}

void qfc_custom_ca_volume(const struct qfc_settings *settings, char *out, size_t size)
{
    snprintf(out, size, "%s_custom_ca_certificates", settings->compose_project_name);
}

/* The named ones first: an engine that refuses one of them leaves behind what it has made until then (20.10). */
static size_t fill_mounts(const struct qfc_settings *settings, struct qfc_confines *confines)
{
    size_t count = 0;
    if (*settings->grids_volume)
        confines->mounts[count++] =
            (struct qfc_mount){.source = settings->grids_volume, .target = QFC_CONTAINER_GRIDS, .read_only = true};
    if (qfc_has_custom_ca()) {
        qfc_custom_ca_volume(settings, confines->ca_volume, sizeof confines->ca_volume);
        confines->mounts[count++] =
            (struct qfc_mount){.source = confines->ca_volume, .target = QFC_CUSTOM_CA_DIRECTORY, .read_only = true};
    }
    for (size_t i = 0; settings->container_read_only && i < WRITABLE_COUNT; i++)
        confines->mounts[count++] = writable[i];
    return count;
}

void qfc_confine(const struct qfc_settings *settings, const struct qfc_limits *limits, struct qfc_confines *confines,
                 struct qfc_container *container)
{
    container->network = settings->network;
    container->memory_bytes = limits->memory_bytes;
    container->cpu_shares = limits->cpu_shares;
    container->cpu_percent = settings->container_cpu_percent;
    container->processes = settings->container_processes;
    container->log_max_bytes = (int64_t)settings->container_log_mb * MEGABYTE;
    container->read_only_root = settings->container_read_only;
    container->without_capabilities = settings->container_drop_capabilities;
    container->no_new_privileges = settings->container_no_new_privileges;
    container->mounts = confines->mounts;
    container->mount_count = fill_mounts(settings, confines);
}
