/*
 * The program's own queue without containers: claims jobs, ends each at once, and claims again.
 *
 *     QFC_TEST_DATABASE_URL=... bench-cycle SLOTS JOBS
 *
 * A claim is for so many slots; its jobs are ended one after the other, each when the one before is committed, and the
 * next claim comes when all are. After so many jobs it prints "BEGIN END EMPTY": when the first claim was sent and the
 * last job was ended, in seconds since 1970, and how many claims found nothing, which are repeated. Nothing is sent
 * before all connections stand.
 */
#include "qfc/queue.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SLOTS_MAX    64
#define OUTPUT_BYTES 2048
#define EMPTY_MAX    1000

struct cycle {
    uv_loop_t loop;
    struct qfc_queue *queue;
    unsigned slots;
    long wanted, ended, empty;
    bool begun;
    double begin, end;
    struct qfc_job jobs[SLOTS_MAX];
    size_t count, next; /* of `jobs` */
    char output[OUTPUT_BYTES + 1];
};

static const char feedback[] =
    "{\"feedback_version\": \"2.0\", \"workflow_version\": \"2.0\", \"workflow_id\": \"package_project\","
    " \"workflow_name\": \"Package Project\", \"steps\": [{\"id\": \"package_project\", \"name\": \"Package Project\","
    " \"stage\": 2, \"returns\": {}}], \"outputs\": {\"package_project\": {}}}";

static void claim(struct cycle *cycle);

static void die(const char *what, const struct qfc_error *error)
{
    fprintf(stderr, "bench-cycle: %s: %s\n", what, error->message);
    exit(1);
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void on_finished(void *userdata, const struct qfc_error *error, const struct qfc_pg_results *results);

static void finish(struct cycle *cycle)
{
    struct qfc_statements writes = {0};
    struct qfc_error error = QFC_NO_ERROR;
    const struct qfc_ending ending = {
        .container = "",
        .finished = true,
        .output = cycle->output,
        .feedback = feedback,
        .feedback_extra = "{\"container_exit_code\": 0}",
        .ran_ms = "700",
    };
    if (qfc_queue_finish(cycle->queue, &cycle->jobs[cycle->next++], &ending, &writes, on_finished, cycle, &error) < 0)
        die("finish", &error);
}

static void on_finished(void *userdata, const struct qfc_error *error, const struct qfc_pg_results *results)
{
    struct cycle *cycle = userdata;
    if (error)
        die("finish", error);
    if (++cycle->ended == cycle->wanted) {
        cycle->end = now();
        qfc_queue_free(cycle->queue);
        cycle->queue = NULL;
    } else if (cycle->next < cycle->count) {
        finish(cycle);
    } else {
        claim(cycle);
    }
}

static void on_claimed(void *userdata, const struct qfc_error *error, const struct qfc_claim *claimed)
{
    struct cycle *cycle = userdata;
    if (error)
        die("claim", error);
    if (claimed->count == 0 && ++cycle->empty > EMPTY_MAX) {
        fputs("bench-cycle: there is nothing to claim\n", stderr);
        exit(1);
    }
    if (claimed->count > 0)
        memcpy(cycle->jobs, claimed->jobs, claimed->count * sizeof *claimed->jobs);
    cycle->count = claimed->count;
    cycle->next = 0;
    if (cycle->count > 0)
        finish(cycle);
    else
        claim(cycle);
}

static void claim(struct cycle *cycle)
{
    struct qfc_error error = QFC_NO_ERROR;
    const struct qfc_claim_request request = {.slots = cycle->slots};
    if (qfc_queue_claim(cycle->queue, &request, on_claimed, cycle, &error) < 0)
        die("claim", &error);
}

static void on_state(void *userdata, bool ready, const struct qfc_error *why, unsigned retry_ms)
{
    struct cycle *cycle = userdata;
    if (!ready)
        die("connect", why);
    if (cycle->begun)
        return;
    cycle->begun = true;
    cycle->begin = now();
    claim(cycle);
}

static void fill_output(char *output)
{
    static const char line[] = "::<<<::5f6f1e6c-3f4e-4b0e-9a3b-8f1f0f0f0f0f Package Project\n";
    for (size_t i = 0; i < OUTPUT_BYTES; i++)
        output[i] = line[i % (sizeof line - 1)];
}

int main(int argc, char **argv)
{
    static struct cycle cycle;
    struct qfc_error error = QFC_NO_ERROR;
    cycle.slots = argc == 3 ? (unsigned)strtoul(argv[1], NULL, 10) : 0;
    cycle.wanted = argc == 3 ? strtol(argv[2], NULL, 10) : 0;
    if (cycle.slots < 1 || cycle.slots > SLOTS_MAX || cycle.wanted < 1) {
        fputs("usage: bench-cycle SLOTS JOBS\n", stderr);
        return 2;
    }
    fill_output(cycle.output);
    const struct qfc_queue_options options = {
        .conninfo = getenv("QFC_TEST_DATABASE_URL"),
        .host = "bench",
        .on_state = on_state,
        .userdata = &cycle,
    };
    uv_loop_init(&cycle.loop);
    cycle.queue = qfc_queue_new(&cycle.loop, &options, &error);
    if (!cycle.queue)
        die("queue", &error);
    uv_run(&cycle.loop, UV_RUN_DEFAULT);
    uv_loop_close(&cycle.loop);
    printf("%.6f %.6f %ld\n", cycle.begin, cycle.end, cycle.empty);
    return 0;
}
