/*
 * The worker's settings: environment variables, read once, each checked.
 *
 * One table holds name, default, unit and meaning of each; `--help` and the README's table come from it.
 */
#pragma once

#include "qfc/buffer.h"
#include "qfc/error.h"
#include "qfc/log.h"

#include <stdbool.h>
#include <stddef.h>

/* What a worker that is told to stop does about its jobs. */
enum qfc_stop {
    QFC_STOP_LEAVE, /* those that do not end soon are left running, for another worker to take over */
    QFC_STOP_DRAIN, /* it waits for all */
};

struct qfc_settings {
    /* Texts are never null; "" where a setting has no value. All owned by the settings. */
    char *database_url;
    char *postgres_host;
    char *postgres_db;
    char *postgres_user;
    char *postgres_password;
    char *postgres_sslmode;
    long postgres_port;

    char *docker_host;
    char *docker_cert_path;
    bool docker_tls_verify;

    char *secret_key; /* for secrets in the database, like the next */
    char *salt_key;
    char *storages; /* JSON */
    char *storage_access_key_id;
    char *storage_secret_access_key;
    char *storage_bucket_name;
    char *storage_region_name;
    char *storage_endpoint_url;
    char *time_zone;

    char *environment; /* part of the containers' label */
    char *compose_project_name;
    char *qgis_image; /* never "" after reading, like the two below */
    char *qgis3_image;
    char *qgis4_image;
    char *qfieldcloud_url;
    char *network;
    char *grids_volume;

    long debug;            /* 0 or 1 */
    long debugpy_port;     /* 0: none; counts only with debug, like the next */
    char *debug_host_path; /* or "" */

    const char *tmp_directory;
    char *image_backup_dir; /* or "" */
    long image_hold;        /* 0 or 1 */

    long timeout_s;           /* 0: what the web application's WORKER_TIMEOUT_S says */
    long container_read_only; /* 0 or 1, like the next two */
    long container_drop_capabilities;
    long container_no_new_privileges;
    long container_processes;   /* 0: no limit */
    long container_cpu_percent; /* 0: no quota */
    long container_log_mb;      /* 0: as the engine is set */
    long max_output_mb;
    long max_feedback_mb;
    long replicas; /* 0: not known */
    long live_output_s; /* 0: never */
    long concurrency;
    long poll_ms;
    long stop_grace_s;
    long stop; /* enum qfc_stop */
    long retry_max_attempts;
    long retry_base_delay_s;

    char *http;       /* address and port, or "" */
    char *http_token; /* or "" */
    char *socket;     /* path or @name, or "" */

    long alerts;         /* 0 or 1 */
    long alert_period_s; /* between two looks */
    char *alert_webhook; /* URL, or "" */
    /* Limits; 0: not looked at. */
    long alert_queue_warning;
    long alert_queue_critical;
    long alert_queue_for_s; /* may be 0 */
    long alert_oldest_pending_s;
    long alert_failed_jobs;
    long alert_failures_in_a_row;
    long alert_success_percent;
    long alert_average_run_s;
    long alert_disk_warning_percent;
    long alert_disk_critical_percent;
    long alert_image_missing;
    long alert_network_missing;
    long heartbeat_s; /* 0: none */

    long log_format; /* enum qfc_log_format */
    long log_level;  /* enum qfc_log_level */
};

/*
 * Reads all settings through `get` (getenv, or a test's). Returns 0, or -1 with QFC_ERROR_USAGE (the message names the
 * variable, its value unless it is a secret, and what would be right) or QFC_ERROR_MEMORY. Free the result with
 * qfc_settings_free; on failure there is nothing to free.
 */
typedef const char *qfc_getenv(const char *name);
int qfc_settings_read(qfc_getenv *get, struct qfc_settings *ret_settings, struct qfc_error *error);

/* Frees all texts; the secret ones are wiped. */
void qfc_settings_free(struct qfc_settings *settings);

/*
 * The libpq connection string of DATABASE_URL or of the POSTGRES_ variables, to be freed with free(); holds the
 * password. Null when out of memory.
 */
char *qfc_settings_conninfo(const struct qfc_settings *settings);

/* One setting as `--help` and the documentation show it. */
struct qfc_setting_info {
    const char *name;
    const char *fallback; /* the default as text; "" for none */
    const char *meaning;  /* one sentence, its unit in it */
};

/* The table, in the order in which it is shown; `ret_count` gets its length. */
const struct qfc_setting_info *qfc_settings_table(size_t *ret_count);
