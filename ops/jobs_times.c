/*
 * How long each step of a job took, from its output: the container says where steps begin and end
 * ("::<<<::<uuid> <name>", "::>>>::<uuid> <stage>"), and its other lines begin with the time of day.
 */
#include "jobs.h"

#include "qfc/jobs.h"
#include "qfc/pg.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#define STEP_BEGINS "::<<<::"
#define STEP_ENDS   "::>>>::"
#define DAY_S       86400

/* "01:25:02.605 " at the beginning of a line as seconds of the day; -1: none. */
static double time_of(const char *line)
{
    int hours, minutes, taken = 0;
    double seconds;
    if (!isdigit((unsigned char)*line) || sscanf(line, "%2d:%2d:%6lf%n", &hours, &minutes, &seconds, &taken) != 3 ||
        taken != 12)
        return -1;
    return 3600.0 * hours + 60.0 * minutes + seconds;
}

/* Notes in the feedback's step of that number what it took. */
static void note(json_t *steps, size_t number, double first, double last)
{
    json_t *step = json_array_get(steps, number);
    char age[AGE_SIZE];
    if (!step || first < 0 || last < 0)
        return;
    double took = last - first + (last < first ? DAY_S : 0);
    json_object_set_new(step, "took_s", json_real(took));
    json_object_set_new(step, "took", json_string(print_age(age, took)));
}

/* Steps run one after another, in the feedback's order. */
static void read_times(const char *output, json_t *steps)
{
    double first = -1, last = -1;
    size_t number = 0;
    bool within = false;
    for (const char *line = output; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        double time = time_of(line);
        if (strncmp(line, STEP_BEGINS, strlen(STEP_BEGINS)) == 0) {
            within = true;
            first = last = -1;
        } else if (within && strncmp(line, STEP_ENDS, strlen(STEP_ENDS)) == 0) {
            note(steps, number++, first, last);
            within = false;
        } else if (time >= 0) {
            first = first < 0 ? time : first;
            last = time;
        }
    }
}

void jobs_add_times(const struct jobs *jobs, const char *id, json_t *job)
{
    struct qfc_statements question = {0};
    struct qfc_error error = QFC_NO_ERROR;
    PGresult *row;
    json_t *steps = json_object_get(job, "steps");
    if (!json_is_array(steps) || qfc_jobs_output(id, &question, &error) < 0 ||
        jobs_ask(jobs, &question, &row, &error) < 0)
        return;
    const char *output = qfc_pg_text(row, 0, "output");
    if (output)
        read_times(output, steps);
    PQclear(row);
}
