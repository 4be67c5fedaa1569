/*
 * The daemon's own life: its loop, its parts, its signals, its end.
 */
#include "worker_private.h"

#include "qfc/confine.h"

#include <jansson.h>
#include <malloc.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* How long what can still be written is waited for when the worker leaves. */
#define GIVE_UP_MS 1500

/* For one request to a storage. */
#define STORE_DEADLINE_MS 20000

/* Buffers from this size on (logs, feedback) go back to the system as soon as they are freed. */
#define BIG_BUFFER_BYTES (256 * 1024)

static const int signal_numbers[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT};

static void on_notice(void *userdata, const char *severity, const char *message)
{
    bool warning = strcmp(severity, "WARNING") == 0;
    qfc_log(warning ? QFC_LOG_WARNING : QFC_LOG_DEBUG, NULL, "the database says: %s: %s", severity, message);
}

static void close_handle(uv_handle_t *handle)
{
    if (!uv_is_closing(handle))
        uv_close(handle, NULL);
}

/* Frees all parts. The loop ends when their handles are closed. */
static void shut_down(struct qfc_worker *worker)
{
    if (worker->closing)
        return;
    worker->closing = true;
    if (worker->companion)
        worker->companion->end(worker->companion->userdata);
    while (worker->jobs)
        job_drop(worker->jobs);
    guard_close(worker);
    if (worker->queue)
        qfc_queue_free(worker->queue);
    if (worker->engine)
        qfc_engine_free(worker->engine);
    if (worker->stores)
        qfc_stores_free(worker->stores);
    if (worker->http)
        qfc_http_free(worker->http);
    forget_said_storages(worker);
    explicit_bzero(&worker->fernet_key, sizeof worker->fernet_key);
    close_handle((uv_handle_t *)&worker->poll);
    close_handle((uv_handle_t *)&worker->watch);
    close_handle((uv_handle_t *)&worker->observe);
    close_handle((uv_handle_t *)&worker->probe);
    close_handle((uv_handle_t *)&worker->give_up);
    close_handle((uv_handle_t *)&worker->recover);
    close_handle((uv_handle_t *)&worker->sweep);
    close_handle((uv_handle_t *)&worker->need_probe);
    close_handle((uv_handle_t *)&worker->trial);
    close_handle((uv_handle_t *)&worker->service);
    sightings_free(&worker->unowned);
    sightings_free(&worker->unwanted);
    sightings_free(&worker->unused);
    for (size_t i = 0; i < sizeof signal_numbers / sizeof *signal_numbers; i++)
        close_handle((uv_handle_t *)&worker->signals[i]);
}

/* Not from within a part's callback: the part would be freed under its own feet. */
static void on_end(uv_timer_t *timer)
{
    shut_down(timer->data);
}

void stop_now(struct qfc_worker *worker, enum qfc_exit exit_code)
{
    worker->stopping = true;
    worker->exit_code = exit_code;
    if (!worker->closing)
        uv_timer_start(&worker->give_up, on_end, 0, 0);
}

void stop_when_idle(struct qfc_worker *worker)
{
    bool asking = worker->asking && qfc_queue_ready(worker->queue);
    if (worker->stopping && worker->job_count == 0 && !asking)
        stop_now(worker, worker->exit_code);
}

static void on_give_up(uv_timer_t *timer)
{
    struct qfc_worker *worker = timer->data;
    for (const struct job *job = worker->jobs; job; job = job->next)
        job_left_behind(job);
    shut_down(worker);
}

/* What runs is left to the next worker; what was not started goes back; what has ended is written, if that is quick. */
static void leave(struct qfc_worker *worker)
{
    uv_timer_start(&worker->give_up, on_give_up, worker->job_count > 0 ? GIVE_UP_MS : 0, 0);
    struct job *next;
    for (struct job *job = worker->jobs; job; job = next) {
        next = job->next;
        job_happened(job, EVENT_STOP, NULL);
    }
}

static void on_grace_over(uv_timer_t *timer)
{
    leave(timer->data);
}

static void say_jobs(const struct qfc_worker *worker)
{
    for (const struct job *job = worker->jobs; job; job = job->next)
        qfc_log(QFC_LOG_INFO, &job->about, "waiting for %s", job->row.type);
}

static void stop_gently(struct qfc_worker *worker)
{
    const struct qfc_settings *settings = worker->settings;
    if (worker->job_count == 0)
        return;
    if (settings->stop == QFC_STOP_DRAIN) {
        qfc_log(QFC_LOG_INFO, NULL,
                "stopping: no more jobs are claimed; waiting for %u to end (once more to leave now)",
                worker->job_count);
    } else {
        qfc_log(QFC_LOG_INFO, NULL,
                "stopping: no more jobs are claimed; %u have %ld s to end, then they are left to the next worker (once "
                "more to leave now)",
                worker->job_count, settings->stop_grace_s);
        uv_timer_start(&worker->give_up, on_grace_over, (uint64_t)settings->stop_grace_s * 1000, 0);
    }
    say_jobs(worker);
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct qfc_worker *worker = handle->data;
    bool at_once = number == SIGQUIT || worker->signal_count > 0;
    worker->signal_count++;
    worker->stopping = true;
    service_stopping();
    if (at_once)
        leave(worker);
    else
        stop_gently(worker);
    stop_when_idle(worker);
}

static void init_handles(struct qfc_worker *worker)
{
    uv_timer_t *timers[] = {&worker->poll,  &worker->watch,      &worker->probe, &worker->give_up, &worker->recover,
                            &worker->sweep, &worker->need_probe, &worker->trial, &worker->service, &worker->observe};
    for (size_t i = 0; i < sizeof timers / sizeof *timers; i++) {
        uv_timer_init(&worker->loop, timers[i]);
        timers[i]->data = worker;
    }
    for (size_t i = 0; i < sizeof signal_numbers / sizeof *signal_numbers; i++) {
        uv_signal_init(&worker->loop, &worker->signals[i]);
        worker->signals[i].data = worker;
        uv_signal_start(&worker->signals[i], on_signal, signal_numbers[i]);
    }
}

static int open_engine(struct qfc_worker *worker, struct qfc_error *error)
{
    const struct qfc_settings *settings = worker->settings;
    const struct qfc_engine_options options = {
        .host = settings->docker_host,
        .tls_verify = settings->docker_tls_verify,
        .cert_path = *settings->docker_cert_path ? settings->docker_cert_path : NULL,
    };
    worker->http = qfc_http_new(&worker->loop, error);
    if (!worker->http)
        return -1;
    worker->engine = qfc_engine_new(&worker->loop, worker->http, &options, error);
    return worker->engine ? 0 : -1;
}

static int open_stores(struct qfc_worker *worker, struct qfc_error *error)
{
    const struct qfc_settings *settings = worker->settings;
    const struct qfc_stores_options options = {
        .storages = settings->storages,
        .access_key_id = settings->storage_access_key_id,
        .secret_access_key = settings->storage_secret_access_key,
        .bucket_name = settings->storage_bucket_name,
        .region_name = settings->storage_region_name,
        .endpoint_url = settings->storage_endpoint_url,
        .deadline_ms = STORE_DEADLINE_MS,
        .ca_file = qfc_has_custom_ca() ? QFC_CUSTOM_CA_FILE : NULL,
    };
    worker->stores = qfc_stores_new(worker->http, &options, error);
    return worker->stores ? 0 : -1;
}

static int make_fernet_key(struct qfc_worker *worker, struct qfc_error *error)
{
    const struct qfc_settings *settings = worker->settings;
    worker->has_fernet_key = *settings->secret_key != '\0';
    return worker->has_fernet_key ? qfc_fernet_key(settings->secret_key, settings->salt_key, &worker->fernet_key, error)
                                  : 0;
}

static int open_queue(struct qfc_worker *worker, struct qfc_error *error)
{
    char *conninfo = qfc_settings_conninfo(worker->settings);
    if (!conninfo)
        return qfc_fail_memory(error);
    char host[64] = "", about[64];
    gethostname(host, sizeof host - 1);
    snprintf(about, sizeof about, "%s:%ld", QFC_VERSION, worker->settings->concurrency);
    const struct qfc_queue_options options = {
        .conninfo = conninfo,
        .host = host,
        .about = about,
        .time_zone = worker->settings->time_zone,
        .legacy_storage = qfc_stores_legacy(worker->stores),
        .on_state = database_state,
        .on_notice = on_notice,
        .on_news = scheduler_news,
        .userdata = worker,
    };
    worker->queue = qfc_queue_new(&worker->loop, &options, error);
    explicit_bzero(conninfo, strlen(conninfo));
    free(conninfo);
    if (worker->queue)
        return 0;
    return qfc_context(error, *worker->settings->database_url ? "DATABASE_URL" : "POSTGRES_*");
}

/* What jansson frees may have held secrets: a container's environment, the keys of STORAGES. */
static void free_wiped(void *memory)
{
    if (memory)
        explicit_bzero(memory, malloc_usable_size(memory));
    free(memory);
}

static void begin_companion(struct qfc_worker *worker)
{
    const struct qfc_companion_host host = {
        .loop = &worker->loop,
        .settings = worker->settings,
        .mode = worker->mode,
        .worker = worker,
        .http = worker->http,
        .engine = worker->engine,
        .queue = worker->queue,
    };
    if (worker->companion)
        worker->companion->begin(worker->companion->userdata, &host);
}

enum qfc_exit qfc_worker_main(const struct qfc_settings *settings, enum qfc_worker_mode mode,
                              const struct qfc_companion *companion)
{
    struct qfc_worker worker = {.settings = settings, .mode = mode};
    struct qfc_error error = QFC_NO_ERROR;
    signal(SIGPIPE, SIG_IGN);
    signal(SIGCHLD, SIG_IGN); /* as process 1 of a container: what is handed to us leaves no zombie */
    json_set_alloc_funcs(malloc, free_wiped);
    mallopt(M_MMAP_THRESHOLD, BIG_BUFFER_BYTES);
    if (uv_loop_init(&worker.loop) < 0) {
        qfc_log(QFC_LOG_ERROR, NULL, "the event loop could not be made");
        return QFC_EXIT_FAULT;
    }
    init_handles(&worker);
    if (qfc_has_custom_ca())
        qfc_custom_ca_volume(settings, worker.ca_volume, sizeof worker.ca_volume);
    monitor_begin(&worker);
    if (open_engine(&worker, &error) < 0 || open_stores(&worker, &error) < 0 || make_fernet_key(&worker, &error) < 0 ||
        open_queue(&worker, &error) < 0 || guard_open(&worker, &error) < 0) {
        qfc_log(QFC_LOG_ERROR, NULL, "%s", error.message);
        stop_now(&worker, error.kind == QFC_ERROR_USAGE ? QFC_EXIT_USAGE : QFC_EXIT_FAULT);
    } else {
        qfc_log(QFC_LOG_INFO, NULL, "qfc-worker %s, %ld jobs at a time, as %s", QFC_VERSION, settings->concurrency,
                qfc_queue_marker(worker.queue));
        worker.companion = companion;
        begin_companion(&worker);
        engine_probe(&worker);
        scheduler_watch(&worker);
        sweep_begin(&worker);
        service_begin(&worker);
    }
    uv_run(&worker.loop, UV_RUN_DEFAULT);
    uv_loop_close(&worker.loop);
    return worker.exit_code;
}
