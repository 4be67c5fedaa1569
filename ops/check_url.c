/*
 * check: does QFieldCloud answer where containers look for it?
 *
 * Only a container on the jobs' network can tell: its names and routes are not the worker's. So one is made of the QGIS
 * image, held in as a job's, with a little Python that asks once; it is removed however that ends. It has no label by
 * which QFieldCloud's own workers would take it for theirs, and kill it.
 */
#include "check.h"

#include "qfc/confine.h"
#include "qfc/limits.h"
#include "qfc/pg.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* Of the request, which the program in the container keeps, and of all of the container's run. */
#define ANSWER_S "10"
#define RUN_MS   40000

#define BODY_MAX_BYTES (64 * 1024)

/* It says one line. Of an error only what the system said: a URL can hold a password. */
static const char program[] =
    "import os, ssl, urllib.error, urllib.request\n"
    "url = os.environ['QFIELDCLOUD_URL'].rstrip('/') + '/status/'\n"
    "try:\n"
    "    context = ssl.create_default_context(cafile=os.environ.get('REQUESTS_CA_BUNDLE'))\n"
    "    answer = urllib.request.urlopen(url, timeout=" ANSWER_S ", context=context)\n"
    "    print('qfc-check:', 'status' if answer.geturl() == url else 'moved', answer.status)\n"
    "except urllib.error.HTTPError as error:\n"
    "    print('qfc-check: status', error.code)\n"
    "except OSError as error:\n"
    "    print('qfc-check: error', getattr(error, 'reason', error))\n"
    "except Exception as error:\n"
    "    print('qfc-check: error', type(error).__name__)\n";

#define SAID "qfc-check: "

/* What a container that could not ask has said, and what to do then. */
static const struct {
    const char *said, *next;
} hints[] = {
    {"Name or service not known",
     "no service of that name is on the containers' network: correct "
     "QFIELDCLOUD_WORKER_QFIELDCLOUD_URL or QFIELDCLOUD_DEFAULT_NETWORK; docker compose ps "
     "app"},
    {"name resolution", "no service of that name is on the containers' network: correct "
                        "QFIELDCLOUD_WORKER_QFIELDCLOUD_URL or QFIELDCLOUD_DEFAULT_NETWORK; docker compose ps app"},
    {"Connection refused", "the web application does not listen there: docker compose ps app, docker compose logs app"},
    {"CERTIFICATE_VERIFY_FAILED", "containers do not trust its certificate: give them its authority (volume "
                                  "COMPOSE_PROJECT_NAME_custom_ca_certificates), or use http:// within the network"},
};

static const char *hint_for(const char *said)
{
    for (size_t i = 0; i < sizeof hints / sizeof *hints; i++)
        if (strstr(said, hints[i].said))
            return hints[i].next;
    return "correct QFIELDCLOUD_WORKER_QFIELDCLOUD_URL; docker compose ps app, docker compose logs app";
}

/* The URL without a user and password. */
static void shown_url(const struct look *look, char *out, size_t size)
{
    const char *url = look->settings.qfieldcloud_url;
    const char *host = strstr(url, "://");
    host = host ? host + 3 : url;
    size_t length = strcspn(host, "/");
    const char *at = memrchr(host, '@', length);
    snprintf(out, size, "%.*s%s", (int)(host - url), url, at ? at + 1 : host);
}

static void judge_status(struct look *look, const char *url, long status, bool moved)
{
    if (status >= 200 && status < 300 && !moved) {
        check_found(look, CHECK_OK, "%s answers a container: HTTP %ld", url, status);
    } else if (status >= 200 && status < 300) {
        check_found(look, CHECK_WARNING, "%s sends a container on to another address, where uploads are lost", url);
        check_advise(look, "give QFIELDCLOUD_WORKER_QFIELDCLOUD_URL the address itself, with its http:// or https://");
    } else if (status == 400) {
        check_found(look, CHECK_FAILED, "%s refuses a container: HTTP 400", url);
        check_advise(look, "add the name in that URL to DJANGO_ALLOWED_HOSTS of the web application");
    } else if (status == 404) {
        check_found(look, CHECK_FAILED, "%s is not QFieldCloud's API: HTTP 404", url);
        check_advise(look, "QFIELDCLOUD_WORKER_QFIELDCLOUD_URL must end in /api/v1/");
    } else {
        check_found(look, CHECK_FAILED, "%s answers a container: HTTP %ld", url, status);
        check_advise(look, "docker compose ps app, docker compose logs app");
    }
}

/* The last line that is the program's own, whatever else the image printed. */
static void judge_log(struct look *look, const struct engine_answer *run, const char *log)
{
    char url[512], line[256] = "";
    long status;
    shown_url(look, url, sizeof url);
    for (const char *at = strstr(log, SAID); at; at = strstr(at + 1, SAID))
        snprintf(line, sizeof line, "%.*s", (int)strcspn(at + sizeof SAID - 1, "\r\n"), at + sizeof SAID - 1);
    if (sscanf(line, "status %ld", &status) == 1 || sscanf(line, "moved %ld", &status) == 1) {
        judge_status(look, url, status, *line == 'm');
    } else if (strncmp(line, "error ", 6) == 0) {
        check_found(look, CHECK_FAILED, "%s does not answer a container: %s", url, line + 6);
        check_advise(look, "%s", hint_for(line));
    } else {
        check_found(look, CHECK_FAILED, "a container that should ask %s ended with exit code %lld and said: %.200s",
                    url, (long long)run->reply.exit_code, log);
        check_advise(look, "look whether the QGIS image is the one of this release, and make it again: docker compose "
                           "build qgis");
    }
}

static struct qfc_limits read_limits(struct look *look)
{
    PGresult *rows = NULL;
    check_ask(look, qfc_limits_sql, &rows, NULL);
    struct qfc_limits limits = qfc_limits_read(rows);
    PQclear(rows);
    return limits;
}

static const char *image_of(const struct look *look)
{
    return check_release_has(look, "has_qgis_version") ? look->settings.qgis3_image : look->settings.qgis_image;
}

static int describe(struct look *look, struct qfc_buffer *body, struct qfc_error *error)
{
    char url[1024], stack[256];
    struct qfc_confines confines;
    const struct qfc_limits limits = read_limits(look);
    const char *const command[] = {"python3", "-c", program, NULL};
    const char *const environment[] = {url, qfc_has_custom_ca() ? "REQUESTS_CA_BUNDLE=" QFC_CUSTOM_CA_FILE : NULL,
                                       NULL};
    const char *const labels[] = {CHECK_LABEL, stack, "qfc_stack", stack, NULL}; /* as volumes of jobs have it */
    struct qfc_container container = {
        .image = image_of(look), .command = command, .environment = environment, .labels = labels};
    check_stack(look, stack, sizeof stack);
    snprintf(url, sizeof url, "QFIELDCLOUD_URL=%s", look->settings.qfieldcloud_url);
    qfc_confine(&look->settings, &limits, &confines, &container);
    return qfc_container_json(&container, body, error);
}

/* Runs the container and reads its log, as far as that goes. */
static int run_container(struct look *look, const char *name, struct engine_answer *run, struct engine_answer *log,
                         struct qfc_error *error)
{
    struct qfc_buffer body = qfc_buffer(BODY_MAX_BYTES);
    struct engine_answer created = {0};
    int r = describe(look, &body, error);
    if (r == 0)
        r = ENGINE_ASK(&look->turns, 0, &created, error, qfc_engine_create, name, body.data, body.size);
    if (r == 0)
        r = ENGINE_ASK(&look->turns, RUN_MS, run, error, qfc_engine_run, name, engine_started);
    if (r == 0)
        r = ENGINE_ASK(&look->turns, 0, log, error, qfc_engine_logs, name, engine_log);
    engine_answer_free(&created);
    qfc_buffer_wipe(&body);
    return r;
}

/* Also one whose creation was not answered. */
static void remove_container(struct look *look, const char *name)
{
    struct qfc_error error = QFC_NO_ERROR;
    struct engine_answer answer = {0};
    if (ENGINE_ASK(&look->turns, 0, &answer, &error, qfc_engine_remove, name) < 0) {
        check_found(look, CHECK_WARNING, "the container %s could not be removed: %s", name, error.message);
        check_advise(look, "docker rm -f %s", name);
    }
    engine_answer_free(&answer);
}

void check_url(struct look *look)
{
    struct qfc_error error = QFC_NO_ERROR;
    struct engine_answer run = {0}, log = {0};
    char name[48];
    unsigned long long random = 0;
    if (getrandom(&random, sizeof random, 0) != (ssize_t)sizeof random)
        random = (unsigned long long)uv_hrtime();
    snprintf(name, sizeof name, "qfc-check-%016llx", random);
    if (run_container(look, name, &run, &log, &error) == 0) {
        judge_log(look, &run, qfc_buffer_text(&log.log));
    } else {
        bool lacks = error.kind == QFC_ERROR_REFUSED && error.code == 404;
        check_found(look, lacks ? CHECK_SKIPPED : CHECK_FAILED, "%s%s", lacks ? "not looked at: " : "", error.message);
    }
    remove_container(look, name);
    engine_answer_free(&run);
    engine_answer_free(&log);
}
