/*
 * The settings, as one table: see qfc/settings.h.
 */
#include "qfc/settings.h"

#include "secret_file.h"

#include "qfc/address.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum type { TEXT, SECRET, NUMBER, SWITCH, CHOICE };

/* A word that a CHOICE may be; the table ends with a null word. */
struct choice {
    const char *word;
    long value;
};

static const struct choice log_formats[] = {{"text", QFC_LOG_TEXT}, {"json", QFC_LOG_JSON}, {NULL, 0}};

static const struct choice log_levels[] = {
    {"debug", QFC_LOG_DEBUG},
    {"info", QFC_LOG_INFO},
    {"warning", QFC_LOG_WARNING},
    {"error", QFC_LOG_ERROR},
    {"warn", QFC_LOG_WARNING},
    {"critical", QFC_LOG_ERROR},
    {NULL, 0},
};

static const struct choice stops[] = {{"leave", QFC_STOP_LEAVE}, {"drain", QFC_STOP_DRAIN}, {NULL, 0}};

static const struct choice switches[] = {{"off", 0}, {"on", 1}, {"0", 0}, {"1", 1}, {NULL, 0}};

static const struct choice sslmodes[] = {
    {"disable", 0}, {"allow", 0}, {"prefer", 0}, {"require", 0}, {"verify-ca", 0}, {"verify-full", 0}, {NULL, 0},
};

struct setting {
    struct qfc_setting_info info;
    enum type type;
    size_t offset; /* in struct qfc_settings */
    long minimum, maximum;
    const struct choice *choices; /* of a CHOICE; of a TEXT, where only these are allowed */
};

#define AT(member) offsetof(struct qfc_settings, member)

/* The default of an image's name is made of COMPOSE_PROJECT_NAME: see fill_images. */
static const struct setting table[] = {
    {{"DATABASE_URL", "", "PostgreSQL connection URI or libpq connection string; wins over POSTGRES_*."},
     SECRET,
     AT(database_url)},
    {{"POSTGRES_HOST", "localhost", "PostgreSQL's host name, address, or socket directory."}, TEXT, AT(postgres_host)},
    {{"POSTGRES_PORT", "5432", "PostgreSQL's port."}, NUMBER, AT(postgres_port), 1, 65535},
    {{"POSTGRES_DB", "qfieldcloud_db", "Name of QFieldCloud's database."}, TEXT, AT(postgres_db)},
    {{"POSTGRES_USER", "qfieldcloud_db_admin", "Role to connect as."}, TEXT, AT(postgres_user)},
    {{"POSTGRES_PASSWORD", "", "Its password; never shown."}, SECRET, AT(postgres_password)},
    {{"POSTGRES_SSLMODE", "prefer", "TLS to PostgreSQL: disable, allow, prefer, require, verify-ca or verify-full."},
     TEXT,
     AT(postgres_sslmode),
     0,
     0,
     sslmodes},
    {{"DOCKER_HOST", "unix:///var/run/docker.sock", "The engine: unix://PATH or tcp://HOST:PORT."},
     TEXT,
     AT(docker_host)},
    {{"DOCKER_TLS_VERIFY", "", "Any value: tcp:// uses TLS and the engine's certificate is verified."},
     SWITCH,
     AT(docker_tls_verify)},
    {{"DOCKER_CERT_PATH", "", "Directory of ca.pem, cert.pem and key.pem; ~/.docker when not set."},
     TEXT,
     AT(docker_cert_path)},
    {{"ENVIRONMENT", "", "QFieldCloud's name for this stack; containers get the label app=ENVIRONMENT_worker."},
     TEXT,
     AT(environment)},
    {{"COMPOSE_PROJECT_NAME", "qfieldcloud", "Name of the compose project; the images' default names begin with it."},
     TEXT,
     AT(compose_project_name)},
    {{"SECRET_KEY", "", "QFieldCloud's key, which the secrets of its users are encrypted with; never shown."},
     SECRET,
     AT(secret_key)},
    {{"SALT_KEY", "", "QFieldCloud's salt for that key; never shown."}, SECRET, AT(salt_key)},
    {{"STORAGES", "", "QFieldCloud's object stores, as its JSON; never shown."}, SECRET, AT(storages)},
    {{"STORAGE_ACCESS_KEY_ID", "",
      "Legacy storage (up to v26.10), where STORAGES is not set: access key; never shown."},
     SECRET,
     AT(storage_access_key_id)},
    {{"STORAGE_SECRET_ACCESS_KEY", "", "Legacy storage: secret key; never shown."},
     SECRET,
     AT(storage_secret_access_key)},
    {{"STORAGE_BUCKET_NAME", "", "Legacy storage: bucket."}, TEXT, AT(storage_bucket_name)},
    {{"STORAGE_REGION_NAME", "", "Legacy storage: region."}, TEXT, AT(storage_region_name)},
    {{"STORAGE_ENDPOINT_URL", "", "Legacy storage: URL of its S3 API."}, TEXT, AT(storage_endpoint_url)},
    {{"QFIELDCLOUD_DEFAULT_TIME_ZONE", "UTC",
      "QFieldCloud's time zone, which the names of thumbnails have (up to v26.3)."},
     TEXT,
     AT(time_zone)},
    {{"QFIELDCLOUD_QGIS_IMAGE_NAME", "", "QGIS image up to v26.19; COMPOSE_PROJECT_NAME-qgis when not set."},
     TEXT,
     AT(qgis_image)},
    {{"QFIELDCLOUD_QGIS3_IMAGE_NAME", "", "QGIS 3 image from v26.20 on; COMPOSE_PROJECT_NAME-qgis3 when not set."},
     TEXT,
     AT(qgis3_image)},
    {{"QFIELDCLOUD_QGIS4_IMAGE_NAME", "", "QGIS 4 image from v26.20 on; COMPOSE_PROJECT_NAME-qgis4 when not set."},
     TEXT,
     AT(qgis4_image)},
    {{"QFIELDCLOUD_WORKER_QFIELDCLOUD_URL", "http://app:8000/api/v1/", "QFieldCloud's API as the containers reach it."},
     TEXT,
     AT(qfieldcloud_url)},
    {{"QFIELDCLOUD_DEFAULT_NETWORK", "", "Docker network of the containers; the engine's default when not set."},
     TEXT,
     AT(network)},
    {{"QFIELDCLOUD_TRANSFORMATION_GRIDS_VOLUME_NAME", "",
      "Docker volume with transformation grids, mounted read-only at /transformation_grids; none when not set."},
     TEXT,
     AT(grids_volume)},
    {{"TMP_DIRECTORY", "",
      "Directory that this worker and the engine see under the same path: a job's files go through it, which is "
      "quicker "
      "with Docker before 24; through the engine's API when not set."},
     TEXT,
     AT(tmp_directory)},
    {{"QFC_WORKER_IMAGE_BACKUP_DIR", "",
      "Directory of saved QGIS images: each is saved there once, and brought back when the engine has lost it; none "
      "when "
      "not set."},
     TEXT,
     AT(image_backup_dir)},
    {{"QFC_WORKER_IMAGE_HOLD", "off",
      "on: a tiny running container and a second name hold each QGIS image, which docker image prune -a then spares."},
     CHOICE,
     AT(image_hold),
     0,
     0,
     switches},
    {{"QFIELDCLOUD_WORKER_TIMEOUT_S", "",
      "Seconds that a container may run; when not set, WORKER_TIMEOUT_S of the web application rules (600)."},
     NUMBER,
     AT(timeout_s),
     1,
     7 * 24 * 3600},
    {{"QFC_WORKER_CONTAINER_READ_ONLY", "1",
      "1: containers can write only to /io, /tmp and /root, volumes that go with them; 0: to all of their root, too."},
     NUMBER,
     AT(container_read_only),
     0,
     1},
    {{"QFC_WORKER_CONTAINER_DROP_CAPABILITIES", "1",
      "1: containers have none of root's capabilities; 0: those that the engine gives."},
     NUMBER,
     AT(container_drop_capabilities),
     0,
     1},
    {{"QFC_WORKER_CONTAINER_NO_NEW_PRIVILEGES", "1",
      "1: no program in a container gets more privileges than it began with (setuid); 0: it may."},
     NUMBER,
     AT(container_no_new_privileges),
     0,
     1},
    {{"QFC_WORKER_CONTAINER_PROCESSES", "1024", "Processes and threads of a container, at most; 0: no limit."},
     NUMBER,
     AT(container_processes),
     0,
     4000000},
    {{"QFC_WORKER_CONTAINER_CPU_PERCENT", "0",
      "Processor time that a container may use, in percent of one processor (150: one and a half); 0: no quota."},
     NUMBER,
     AT(container_cpu_percent),
     0,
     100000},
    {{"QFC_WORKER_CONTAINER_LOG_MB", "512",
      "Megabytes of a container's log on the engine's disk, where a line takes some 80 bytes besides; 0: as the engine "
      "is set."},
     NUMBER,
     AT(container_log_mb),
     0,
     1000000},
    {{"QFC_WORKER_MAX_OUTPUT_MB", "64",
      "Megabytes of a job's log that are kept as its output; of a longer one the beginning and the end."},
     NUMBER,
     AT(max_output_mb),
     1,
     256},
    {{"QFC_WORKER_LIVE_OUTPUT_S", "0",
      "Seconds after which a running job's output and step are written into its row when they have changed, the last "
      "64 "
      "KB of its log, for people to see; 0: only at its end."},
     NUMBER,
     AT(live_output_s),
     0,
     3600},
    {{"QFC_WORKER_MAX_FEEDBACK_MB", "64", "Megabytes of feedback.json; a larger one fails the job."},
     NUMBER,
     AT(max_feedback_mb),
     1,
     64},
    {{"QFIELDCLOUD_WORKER_REPLICAS", "",
      "Workers that compose starts: `check` warns when fewer are alive; when not set, when none is."},
     NUMBER,
     AT(replicas),
     1,
     10000},
    {{"QFC_WORKER_CONCURRENCY", "1", "Jobs that run at the same time in this process."},
     NUMBER,
     AT(concurrency),
     1,
     256},
    {{"QFC_WORKER_POLL_MS", "1000",
      "Milliseconds between looks for new jobs while there are none for long, five times that with the triggers of "
      "setup-db; after a job it looks sooner."},
     NUMBER,
     AT(poll_ms),
     10,
     60000},
    {{"QFC_WORKER_STOP_GRACE_S", "8",
      "Seconds that running jobs have to end once the worker is told to stop; then they are left to the next one."},
     NUMBER,
     AT(stop_grace_s),
     0,
     24 * 3600},
    {{"QFC_WORKER_STOP", "leave",
      "leave: see QFC_WORKER_STOP_GRACE_S. drain: a worker that is told to stop waits for all of its jobs."},
     CHOICE,
     AT(stop),
     0,
     0,
     stops},
    {{"RETRY_MAX_ATTEMPTS", "5",
      "Attempts at a job whose container could not be run for reasons that are not the job's."},
     NUMBER,
     AT(retry_max_attempts),
     1,
     1000},
    {{"RETRY_BASE_DELAY_SECONDS", "1", "Seconds before the second attempt; doubles with each further one."},
     NUMBER,
     AT(retry_base_delay_s),
     0,
     3600},
    {{"DEBUG", "0", "1 turns on the two aids for developing the QGIS image below."}, NUMBER, AT(debug), 0, 1000000},
    {{"DEBUG_QGIS_DEBUGPY_PORT", "",
      "With DEBUG: jobs run under Python's debugpy on this port, which is published, and wait for a debugger."},
     NUMBER,
     AT(debugpy_port),
     1,
     65535},
    {{"DEBUG_QGIS_WORKER_HOST_PATH", "",
      "With DEBUG: directory on the engine's host whose qfc_worker, entrypoint.py, libqfieldsync and "
      "qfieldcloud-sdk-python are mounted into the containers."},
     TEXT,
     AT(debug_host_path)},
    {{"QFC_WORKER_HTTP", "",
      "ADDRESS:PORT at which the worker shows itself over HTTP, such as 127.0.0.1:9187 or [::1]:9187: /metrics, "
      "/healthz, /readyz, /status.json; off when not set."},
     TEXT,
     AT(http)},
    {{"QFC_WORKER_HTTP_TOKEN", "",
      "Token that is asked for there, but for /healthz, as \"Authorization: Bearer TOKEN\"; never shown."},
     SECRET,
     AT(http_token)},
    {{"QFC_WORKER_SOCKET", "",
      "Unix socket at which `qfc-worker health` asks the running worker: a path, or @NAME for an abstract one; when "
      "not "
      "set, an abstract one that `health` finds by itself."},
     TEXT,
     AT(socket)},
    {{"QFC_WORKER_ALERTS", "1",
      "1: the workers watch over the queue, one of them at a time, and say in the log what is wrong, once, and when it "
      "is over. 0: they do not."},
     NUMBER,
     AT(alerts),
     0,
     1},
    {{"QFC_WORKER_ALERT_PERIOD_S", "10", "Seconds between two such looks."}, NUMBER, AT(alert_period_s), 1, 10},
    {{"QFC_WORKER_ALERT_WEBHOOK", "",
      "URL that each alert is posted to when it begins and when it is over, as JSON that Slack and the like take; "
      "never shown."},
     SECRET,
     AT(alert_webhook)},
    {{"QFC_WORKER_ALERT_QUEUE_WARNING", "5",
      "Warning when so many jobs wait; 0, here and in the limits below: is not looked at."},
     NUMBER,
     AT(alert_queue_warning),
     0,
     1000000},
    {{"QFC_WORKER_ALERT_QUEUE_CRITICAL", "10", "Critical when so many jobs wait."},
     NUMBER,
     AT(alert_queue_critical),
     0,
     1000000},
    {{"QFC_WORKER_ALERT_QUEUE_FOR_S", "300", "Seconds for which so many must have waited."},
     NUMBER,
     AT(alert_queue_for_s),
     0,
     86400},
    {{"QFC_WORKER_ALERT_OLDEST_PENDING_S", "1800", "Warning when a job has been waiting for more seconds."},
     NUMBER,
     AT(alert_oldest_pending_s),
     0,
     31536000},
    {{"QFC_WORKER_ALERT_FAILED_JOBS", "10", "Warning when so many jobs have failed within an hour."},
     NUMBER,
     AT(alert_failed_jobs),
     0,
     1000000},
    {{"QFC_WORKER_ALERT_FAILURES_IN_A_ROW", "5", "Critical when the last so many jobs have all failed."},
     NUMBER,
     AT(alert_failures_in_a_row),
     0,
     1000000},
    {{"QFC_WORKER_ALERT_SUCCESS_PERCENT", "90",
      "Warning when less than so many percent of the jobs that ended within an hour have succeeded; of at least 5 "
      "jobs."},
     NUMBER,
     AT(alert_success_percent),
     0,
     100},
    {{"QFC_WORKER_ALERT_AVERAGE_RUN_S", "120",
      "Warning when jobs have run for more seconds on average within an hour."},
     NUMBER,
     AT(alert_average_run_s),
     0,
     86400},
    {{"QFC_WORKER_ALERT_DISK_WARNING_PERCENT", "80",
      "Warning when a disk is so full: that of the images' backups, or the engine's, where the worker can see it."},
     NUMBER,
     AT(alert_disk_warning_percent),
     0,
     100},
    {{"QFC_WORKER_ALERT_DISK_CRITICAL_PERCENT", "90", "Critical when it is so full."},
     NUMBER,
     AT(alert_disk_critical_percent),
     0,
     100},
    {{"QFC_WORKER_ALERT_IMAGE_MISSING", "1", "Critical when so many images are missing that jobs need."},
     NUMBER,
     AT(alert_image_missing),
     0,
     3},
    {{"QFC_WORKER_ALERT_NETWORK_MISSING", "1", "Critical when the network is missing."},
     NUMBER,
     AT(alert_network_missing),
     0,
     1},
    {{"QFC_WORKER_HEARTBEAT_S", "300",
      "Seconds between two lines in the log that tell how many jobs ran and wait; 0: none."},
     NUMBER,
     AT(heartbeat_s),
     0,
     86400},
    {{"LOG_FORMAT", "text", "text, or json for one JSON object a line."}, CHOICE, AT(log_format), 0, 0, log_formats},
    {{"LOGLEVEL", "info", "debug, info, warning or error."}, CHOICE, AT(log_level), 0, 0, log_levels},
};

#define TABLE_LENGTH (sizeof table / sizeof *table)

static void *member(struct qfc_settings *settings, const struct setting *setting)
{
    return (char *)settings + setting->offset;
}

static int read_number(const struct setting *setting, const char *value, long *ret_number, struct qfc_error *error)
{
    if (!*value)
        return 0;
    char *end;
    errno = 0;
    long number = strtol(value, &end, 10);
    if (errno == ERANGE)
        end = (char *)value;
    if (*end || end == value || number < setting->minimum || number > setting->maximum)
        return qfc_fail(error, QFC_ERROR_USAGE, 0, "%s=%s: expected a whole number from %ld to %ld", setting->info.name,
                        value, setting->minimum, setting->maximum);
    *ret_number = number;
    return 0;
}

/* The words of a CHOICE as "text, json". */
static void list_choices(const struct choice *choices, char *out, size_t size)
{
    size_t used = 0;
    for (; choices->word && used < size; choices++)
        used += (size_t)snprintf(out + used, size - used, "%s%s", used ? ", " : "", choices->word);
}

static int read_choice(const struct setting *setting, const char *value, long *ret_number, struct qfc_error *error)
{
    for (const struct choice *choice = setting->choices; choice->word; choice++) {
        if (strcasecmp(choice->word, value) == 0) {
            *ret_number = choice->value;
            return 0;
        }
    }
    char words[128];
    list_choices(setting->choices, words, sizeof words);
    return qfc_fail(error, QFC_ERROR_USAGE, 0, "%s=%s: expected one of %s", setting->info.name, value, words);
}

static int read_text(const struct setting *setting, const char *value, char **ret_text, struct qfc_error *error)
{
    long known;
    if (setting->choices && read_choice(setting, value, &known, error) < 0)
        return -1;
    char *text = strdup(value);
    if (!text)
        return qfc_fail_memory(error);
    *ret_text = text;
    return 0;
}

static int read_setting(const struct setting *setting, const char *value, struct qfc_settings *settings,
                        struct qfc_error *error)
{
    switch (setting->type) {
    case TEXT:
    case SECRET:
        return read_text(setting, value, member(settings, setting), error);
    case NUMBER:
        return read_number(setting, value, member(settings, setting), error);
    case SWITCH:
        *(bool *)member(settings, setting) = *value != '\0';
        return 0;
    case CHOICE:
        return read_choice(setting, value, member(settings, setting), error);
    }
    return qfc_fail(error, QFC_ERROR_BUG, 0, "%s has no type", setting->info.name);
}

static int default_image(char **image, const char *project, const char *suffix, struct qfc_error *error)
{
    char *name;
    if (**image)
        return 0;
    if (asprintf(&name, "%s-%s", project, suffix) < 0)
        return qfc_fail_memory(error);
    free(*image);
    *image = name;
    return 0;
}

static int check_addresses(const struct qfc_settings *settings, struct qfc_error *error)
{
    struct sockaddr_storage address;
    socklen_t size;
    if (*settings->http && qfc_address_parse(settings->http, &address, &size, error) < 0)
        return qfc_context(error, "QFC_WORKER_HTTP=%s", settings->http);
    if (*settings->socket && qfc_address_unix(settings->socket, &address, &size, error) < 0)
        return qfc_context(error, "QFC_WORKER_SOCKET=%s", settings->socket);
    return 0;
}

/* What depends on more than one variable. */
static int complete(struct qfc_settings *settings, struct qfc_error *error)
{
    const char *project = settings->compose_project_name;
    if (default_image(&settings->qgis_image, project, "qgis", error) < 0 ||
        default_image(&settings->qgis3_image, project, "qgis3", error) < 0 ||
        default_image(&settings->qgis4_image, project, "qgis4", error) < 0)
        return -1;
    if (check_addresses(settings, error) < 0)
        return -1;
    const char *webhook = settings->alert_webhook;
    if (*webhook && strncmp(webhook, "http://", 7) != 0 && strncmp(webhook, "https://", 8) != 0)
        return qfc_fail(error, QFC_ERROR_USAGE, 0,
                        "QFC_WORKER_ALERT_WEBHOOK: expected a URL that begins with http:// or https://");
    const char *url = settings->qfieldcloud_url;
    if (strncmp(url, "http://", 7) != 0 && strncmp(url, "https://", 8) != 0)
        return qfc_fail(error, QFC_ERROR_USAGE, 0,
                        "QFIELDCLOUD_WORKER_QFIELDCLOUD_URL=%s: expected a URL that begins with http:// or https://",
                        url);
    return 0;
}

/* The value of a secret is in the variable itself, or in the file that the variable with _FILE behind its name says. */
static int read_secret(const struct setting *setting, qfc_getenv *get, struct qfc_settings *settings,
                       struct qfc_error *error)
{
    char name[64];
    const char *value = get(setting->info.name);
    snprintf(name, sizeof name, "%s_FILE", setting->info.name);
    const char *path = get(name);
    if (!path || !*path)
        return read_text(setting, value ? value : "", member(settings, setting), error);
    if (value && *value)
        return qfc_fail(error, QFC_ERROR_USAGE, 0, "%s and %s are both set: expected one of them", setting->info.name,
                        name);
    return read_secret_file(name, path, member(settings, setting), error);
}

int qfc_settings_read(qfc_getenv *get, struct qfc_settings *ret_settings, struct qfc_error *error)
{
    struct qfc_settings settings = {0};
    for (size_t i = 0; i < TABLE_LENGTH; i++) {
        /* Compose passes an unset variable as an empty one. */
        const char *value = get(table[i].info.name);
        if (!value || !*value)
            value = table[i].info.fallback;
        int r = table[i].type == SECRET ? read_secret(&table[i], get, &settings, error)
                                        : read_setting(&table[i], value, &settings, error);
        if (r < 0)
            goto failed;
    }
    if (complete(&settings, error) < 0)
        goto failed;
    *ret_settings = settings;
    return 0;

failed:
    qfc_settings_free(&settings);
    return -1;
}

void qfc_settings_free(struct qfc_settings *settings)
{
    for (size_t i = 0; i < TABLE_LENGTH; i++) {
        if (table[i].type != TEXT && table[i].type != SECRET)
            continue;
        char *text = *(char **)member(settings, &table[i]);
        if (text && table[i].type == SECRET)
            explicit_bzero(text, strlen(text));
        free(text);
    }
    *settings = (struct qfc_settings){0};
}

/* key='value', quoted as libpq reads it (PostgreSQL's manual, "Keyword/Value Connection Strings"). */
static int append_keyword(struct qfc_buffer *out, const char *key, const char *value)
{
    if (!*value)
        return 0;
    int r = qfc_buffer_printf(out, " %s='", key);
    for (; r == 0 && *value; value++) {
        if (*value == '\'' || *value == '\\')
            r = qfc_buffer_append(out, "\\", 1);
        if (r == 0)
            r = qfc_buffer_append(out, value, 1);
    }
    return r < 0 ? r : qfc_buffer_append(out, "'", 1);
}

char *qfc_settings_conninfo(const struct qfc_settings *settings)
{
    if (*settings->database_url)
        return strdup(settings->database_url);
    struct qfc_buffer out = qfc_buffer(64 * 1024);
    if (append_keyword(&out, "host", settings->postgres_host) < 0 ||
        qfc_buffer_printf(&out, " port=%ld", settings->postgres_port) < 0 ||
        append_keyword(&out, "dbname", settings->postgres_db) < 0 ||
        append_keyword(&out, "user", settings->postgres_user) < 0 ||
        append_keyword(&out, "password", settings->postgres_password) < 0 ||
        append_keyword(&out, "sslmode", settings->postgres_sslmode) < 0) {
        qfc_buffer_wipe(&out);
        return NULL;
    }
    return qfc_buffer_take(&out);
}

const struct qfc_setting_info *qfc_settings_table(size_t *ret_count)
{
    static struct qfc_setting_info infos[TABLE_LENGTH];
    for (size_t i = 0; i < TABLE_LENGTH; i++)
        infos[i] = table[i].info;
    *ret_count = TABLE_LENGTH;
    return infos;
}
