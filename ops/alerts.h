/*
 * Alerts: what is looked at, by which limit, and what is said when it begins and when it is over.
 *
 * One worker at a time judges: of the queue one of all, of what an engine and its host lack one of those that use it. Each
 * is a duty (qfc_queue_duty). What it knows it tells the others, so that the next judge goes on where it was.
 */
#pragma once

#include "queue_state.h"
#include "webhook.h"

#include "qfc/engine.h"
#include "qfc/monitor.h"
#include "qfc/settings.h"
#include "qfc/worker.h"

#define ALERTS 11 /* rules in the table */

/* What one judge looks at. */
enum alert_scope { OF_QUEUE, OF_HOST, SCOPES };

/* What was seen when it was looked at. */
struct alert_measure {
    double value;
    char text[256]; /* "7 jobs wait" */
};

struct alerts;

/* One thing that is looked at. */
struct alert_rule {
    const char *name;     /* for labels: "queue_depth" */
    const char *severity; /* "warning" or "critical" */
    enum alert_scope scope;
    size_t limit;                           /* where in struct qfc_settings; 0 there turns the rule off */
    enum { AT_LEAST, ABOVE, BELOW } is_bad; /* the value, held against the limit */
    bool lasts;                             /* only where it is so for QFC_WORKER_ALERT_QUEUE_FOR_S */
    const char *unit;                       /* of the limit, with a blank before it; "" for none */
    /* Looks. False: it cannot be told now, and all stays as it was. */
    bool (*measure)(const struct alerts *alerts, struct alert_measure *ret_measure);
};
extern const struct alert_rule alert_rules[ALERTS];

struct alert {
    double since;       /* seconds since 1970: it has been bad from then on; 0: it is not */
    unsigned bad, good; /* looks in a row */
    bool firing;
    bool told;       /* what the receiver was told last */
    bool from_start; /* it was bad when this judge looked for the first time, and knew nothing from another one */
    struct alert_measure last;
};

struct judge {
    struct alerts *alerts;
    enum alert_scope scope;
    bool ours;     /* the duty */
    bool due;      /* to look, once the queue's state is there */
    bool informed; /* has heard from another judge, or has looked itself */
    bool asked;    /* others for what they know */
    uint64_t looks;
    bool silent; /* all was well when the others were told last */
};

struct alerts {
    uv_loop_t *loop;
    const struct qfc_settings *settings;
    const struct qfc_worker *worker;
    struct qfc_queue *queue;
    struct qfc_engine *engine;
    struct queue_state *state;
    const struct qfc_report *report; /* while it is judged */
    bool on;
    uv_timer_t tick;
    struct webhook webhook;
    struct judge judges[SCOPES];
    struct alert items[ALERTS];
    char host[64];
    char engine_root[256]; /* the engine's directory, or "" */
    bool asking_engine;
};

/* alerts.c */
void alerts_begin(struct alerts *alerts, const struct qfc_companion_host *host, struct queue_state *state);
void alerts_end(struct alerts *alerts);

/* The queue's state is there, or cannot be had. */
void alerts_news(struct alerts *alerts);

/* Is the rule one that this worker judges now? */
bool alerts_judges(const struct alerts *alerts, size_t rule);

/* A setting's value that a rule is held against. */
long alert_limit(const struct alerts *alerts, const struct alert_rule *rule);

/* alert_words.c: what is said. */

/* Says in the log, and to the receiver, that an alert has begun or is over. */
void alert_say(struct alerts *alerts, size_t rule);

/* Sends the receiver what it has not been told. */
void alert_send(struct alerts *alerts, size_t rule);

/* Tells the other workers what a judge knows. */
void alerts_tell_others(struct alerts *alerts, struct judge *judge);

/* Asks other judges of the same to do so. */
void alerts_ask_others(struct alerts *alerts, struct judge *judge);

/* Takes another worker's word. */
void alerts_hear(struct alerts *alerts, const char *word);

/* The name of a judge's duty. */
void judge_duty(const struct judge *judge, char *out, size_t size);

/* Seconds since 1970. */
double wall_s(void);
