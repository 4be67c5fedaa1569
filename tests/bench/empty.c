/* What the libraries alone take: a program with the same ones as the worker, which initialises them and waits. */
#include <archive.h>
#include <curl/curl.h>
#include <jansson.h>
#include <libpq-fe.h>
#include <signal.h>
#include <stdio.h>
#include <uv.h>

static void on_signal(uv_signal_t *handle, int number)
{
    uv_close((uv_handle_t *)handle, NULL);
}

int main(void)
{
    uv_loop_t loop;
    uv_signal_t signal;
    char *message = NULL;
    uv_loop_init(&loop);
    uv_signal_init(&loop, &signal);
    uv_signal_start(&signal, on_signal, SIGTERM);
    curl_global_init(CURL_GLOBAL_DEFAULT);
    PQconninfoFree(PQconninfoParse("host=localhost", &message));
    PQfreemem(message);
    printf("%s, jansson %s: ready\n", archive_version_string(), jansson_version_str());
    fflush(stdout);
    return uv_run(&loop, UV_RUN_DEFAULT);
}
