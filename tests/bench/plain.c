/*
 * What a job costs without a worker: the engine calls of one job, made by a program that does nothing else.
 *
 *     bench-plain SOCKET VERSION BODY-FILE NAME JOBS
 *
 * makes them for so many containers, one after the other, over two kept connections (the wait needs one of its own),
 * and prints a line for each with the milliseconds of each call; the heading names them. `exit` is from the start's
 * answer to the end of the wait.
 */
#include <curl/curl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ANSWER_BYTES (1u << 20)
#define PATH_BYTES   512

static CURLM *multi;
static const char *version;

/* One easy handle, used for call after call, and the answer to the last one. */
struct line {
    CURL *easy;
    bool answered; /* the headers are there */
    bool ended;
    size_t size;
    char answer[ANSWER_BYTES];
};

static struct line calls, wait;

static void die(const char *what, const char *why)
{
    fprintf(stderr, "bench-plain: %s: %s\n", what, why);
    exit(1);
}

static double now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static size_t on_header(char *data, size_t size, size_t count, void *userdata)
{
    struct line *line = userdata;
    line->answered = line->answered || (count == 2 && memcmp(data, "\r\n", 2) == 0);
    return size * count;
}

static size_t on_data(char *data, size_t size, size_t count, void *userdata)
{
    struct line *line = userdata;
    if (line->size + count >= sizeof line->answer)
        return 0;
    memcpy(line->answer + line->size, data, count);
    line->size += count;
    line->answer[line->size] = '\0';
    return size * count;
}

static void open_line(struct line *line, const char *socket, struct curl_slist *headers)
{
    line->easy = curl_easy_init();
    if (!line->easy)
        die("libcurl", "out of memory");
    curl_easy_setopt(line->easy, CURLOPT_UNIX_SOCKET_PATH, socket);
    curl_easy_setopt(line->easy, CURLOPT_PROXY, "");
    curl_easy_setopt(line->easy, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(line->easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(line->easy, CURLOPT_HEADERDATA, line);
    curl_easy_setopt(line->easy, CURLOPT_WRITEFUNCTION, on_data);
    curl_easy_setopt(line->easy, CURLOPT_WRITEDATA, line);
    curl_easy_setopt(line->easy, CURLOPT_PRIVATE, line);
}

/* `body` null: none is sent. */
static void begin(struct line *line, const char *method, const char *body, const char *format, ...)
{
    char path[PATH_BYTES], url[PATH_BYTES + 64];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(path, sizeof path, format, arguments);
    va_end(arguments);
    snprintf(url, sizeof url, "http://localhost/v%s%s", version, path);
    line->answered = line->ended = false;
    line->size = 0;
    line->answer[0] = '\0';
    curl_easy_setopt(line->easy, CURLOPT_HTTPGET, 1L);
    if (method[0] == 'P')
        curl_easy_setopt(line->easy, CURLOPT_POSTFIELDS, body ? body : "");
    curl_easy_setopt(line->easy, CURLOPT_CUSTOMREQUEST, method);
    curl_easy_setopt(line->easy, CURLOPT_URL, url);
    if (curl_multi_add_handle(multi, line->easy) != CURLM_OK)
        die(path, "cannot be asked");
}

/* A call has ended: with an answer below 400, or the program ends. */
static void take_end(CURL *easy, CURLcode result)
{
    struct line *line = NULL;
    char *url = NULL;
    long status = 0;
    curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&line);
    curl_easy_getinfo(easy, CURLINFO_EFFECTIVE_URL, &url);
    curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
    if (result != CURLE_OK || status >= 400)
        die(url, result != CURLE_OK ? curl_easy_strerror(result) : line->answer);
    line->ended = true;
    curl_multi_remove_handle(multi, easy);
}

static void until(const bool *happened)
{
    int running, left;
    for (;;) {
        curl_multi_perform(multi, &running);
        for (CURLMsg *message; (message = curl_multi_info_read(multi, &left));)
            take_end(message->easy_handle, message->data.result);
        if (*happened)
            return;
        curl_multi_poll(multi, NULL, 0, 1000, NULL);
    }
}

static void take_id(char id[65])
{
    const char *found = strstr(calls.answer, "\"Id\":\"");
    if (!found || sscanf(found, "\"Id\":\"%64[0-9a-f]", id) != 1)
        die("create", calls.answer);
}

/* Prints how long it took since the last time, and returns the time. */
static double lap(double since)
{
    double now = now_ms();
    printf(" %.3f", now - since);
    return now;
}

static void job(const char *body, const char *name, long number)
{
    char id[65];
    double time = now_ms();
    begin(&calls, "POST", body, "/containers/create?name=%s-%ld", name, number);
    until(&calls.ended);
    take_id(id);
    time = lap(time);
    begin(&wait, "POST", NULL, "/containers/%s/wait?condition=next-exit", id);
    until(&wait.answered);
    time = lap(time);
    begin(&calls, "POST", NULL, "/containers/%s/start", id);
    until(&calls.ended);
    time = lap(time);
    until(&wait.ended);
    time = lap(time);
    begin(&calls, "GET", NULL, "/containers/%s/json", id);
    until(&calls.ended);
    time = lap(time);
    begin(&calls, "GET", NULL, "/containers/%s/logs?stdout=1&stderr=1", id);
    until(&calls.ended);
    time = lap(time);
    begin(&calls, "GET", NULL, "/containers/%s/archive?path=%%2Fio%%2Ffeedback.json", id);
    until(&calls.ended);
    time = lap(time);
    begin(&calls, "DELETE", NULL, "/containers/%s?force=1&v=1", id);
    until(&calls.ended);
    lap(time);
    printf("\n");
}

static char *read_file(const char *path)
{
    static char text[ANSWER_BYTES];
    FILE *file = fopen(path, "r");
    size_t size = file ? fread(text, 1, sizeof text - 1, file) : 0;
    if (size == 0)
        die(path, "cannot be read, or is empty");
    fclose(file);
    text[size] = '\0';
    return text;
}

int main(int argc, char **argv)
{
    if (argc != 6)
        die("usage", "bench-plain SOCKET VERSION BODY-FILE NAME JOBS");
    struct curl_slist *headers = curl_slist_append(NULL, "Content-Type: application/json");
    curl_global_init(CURL_GLOBAL_DEFAULT);
    multi = curl_multi_init();
    version = argv[2];
    open_line(&calls, argv[1], headers);
    open_line(&wait, argv[1], headers);
    const char *body = read_file(argv[3]);
    begin(&calls, "GET", NULL, "/version"); /* so that the connection stands, as the worker's does */
    until(&calls.ended);
    printf("create wait start exit inspect logs feedback delete\n");
    for (long number = 0; number < strtol(argv[5], NULL, 10); number++)
        job(body, argv[4], number);
    return 0;
}
