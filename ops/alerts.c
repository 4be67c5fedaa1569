/*
 * Who judges, and when an alert begins and is over: see alerts.h.
 *
 * Every few seconds each worker asks for both duties, and looks where one is its. What is seen in two looks in a row
 * begins an alert, two good ones end it: one odd look does nothing.
 */
#include "alerts.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#define LOOKS 2

double wall_s(void)
{
    struct timeval now;
    gettimeofday(&now, NULL);
    return (double)now.tv_sec + (double)now.tv_usec / 1e6;
}

void judge_duty(const struct judge *judge, char *out, size_t size)
{
    const struct qfc_state state = qfc_monitor_state(judge->alerts->worker);
    if (judge->scope == OF_QUEUE)
        snprintf(out, size, "alerts of the queue");
    else
        snprintf(out, size, "alerts of engine %s", *state.engine_id ? state.engine_id : judge->alerts->host);
}

bool alerts_judges(const struct alerts *alerts, size_t rule)
{
    return alerts->judges[alert_rules[rule].scope].ours && alert_limit(alerts, &alert_rules[rule]) > 0;
}

static bool is_bad(const struct alert_rule *rule, double value, long limit)
{
    switch (rule->is_bad) {
    case AT_LEAST:
        return value >= (double)limit;
    case ABOVE:
        return value > (double)limit;
    case BELOW:
        return value < (double)limit;
    }
    return false;
}

/* Has it just begun, or ended? */
static bool weigh(struct alerts *alerts, const struct alert_rule *rule, struct alert *alert, bool bad, bool first)
{
    double for_s = rule->lasts ? (double)alerts->settings->alert_queue_for_s : 0, now = wall_s();
    if (bad) {
        alert->good = 0;
        alert->bad++;
        if (alert->since == 0) {
            alert->since = now;
            alert->from_start = first;
        }
        if (alert->firing || alert->bad < LOOKS || now - alert->since < for_s)
            return false;
        alert->firing = true;
        return true;
    }
    alert->bad = 0;
    alert->good++;
    if (!alert->firing) {
        alert->since = 0;
        return false;
    }
    if (alert->good < LOOKS)
        return false;
    alert->firing = false;
    return true;
}

static void judge_rule(struct alerts *alerts, size_t i, bool first)
{
    const struct alert_rule *rule = &alert_rules[i];
    struct alert *alert = &alerts->items[i];
    struct alert_measure measure = {0};
    if (!rule->measure(alerts, &measure))
        return;
    alert->last = measure;
    if (!weigh(alerts, rule, alert, is_bad(rule, measure.value, alert_limit(alerts, rule)), first))
        return;
    alert_say(alerts, i);
    if (!alert->firing)
        alert->since = 0;
}

static void look(struct judge *judge)
{
    struct alerts *alerts = judge->alerts;
    bool first = !judge->informed;
    judge->due = false;
    judge->looks++;
    judge->informed = true;
    for (size_t i = 0; i < ALERTS; i++)
        if (alert_rules[i].scope == judge->scope && alert_limit(alerts, &alert_rules[i]) > 0)
            judge_rule(alerts, i, first);
    alerts_tell_others(alerts, judge);
}

static uint64_t period_ms(const struct alerts *alerts)
{
    return (uint64_t)alerts->settings->alert_period_s * 1000;
}

static void look_if_known(struct judge *judge)
{
    struct alerts *alerts = judge->alerts;
    if (judge->scope == OF_QUEUE && !(alerts->report = queue_state_get(alerts->state, period_ms(alerts) / 2)))
        return;
    look(judge);
    alerts->report = NULL;
}

void alerts_news(struct alerts *alerts)
{
    for (size_t i = 0; i < SCOPES; i++)
        if (alerts->on && alerts->judges[i].due && alerts->judges[i].ours)
            look_if_known(&alerts->judges[i]);
}

/* What the last judge, another one or this one, had not told the receiver. */
static void take_over(struct judge *judge)
{
    struct alerts *alerts = judge->alerts;
    for (size_t i = 0; i < ALERTS; i++) {
        bool told = alerts->items[i].told;
        webhook_has(&alerts->webhook, (unsigned)i, &told); /* or is about to be */
        if (alert_rules[i].scope == judge->scope && told != alerts->items[i].firing)
            alert_send(alerts, i);
    }
}

/* Another one judges: what still waits to be delivered it delivers. */
static void hand_over(struct judge *judge)
{
    for (size_t i = 0; i < ALERTS; i++)
        if (alert_rules[i].scope == judge->scope)
            webhook_forget(&judge->alerts->webhook, (unsigned)i);
}

static void on_duty(void *userdata, const struct qfc_error *error, bool ours)
{
    struct judge *judge = userdata;
    bool had = judge->ours;
    judge->ours = ours;
    if (!judge->ours) {
        judge->due = false;
        if (!error)
            hand_over(judge);
        if (!error && !judge->asked)
            alerts_ask_others(judge->alerts, judge);
        return;
    }
    if (!had)
        take_over(judge);
    judge->due = true;
    look_if_known(judge);
}

static void on_engine_info(void *userdata, const struct qfc_error *error, const struct qfc_engine_reply *reply)
{
    struct alerts *alerts = userdata;
    const char *root = NULL;
    json_t *info = error ? NULL : json_loads(qfc_buffer_text(reply->data), 0, NULL);
    alerts->asking_engine = false;
    json_unpack(info, "{s:s}", "DockerRootDir", &root);
    /* "/" is what a stand-in or a proxy tells: it says nothing about the engine. */
    snprintf(alerts->engine_root, sizeof alerts->engine_root, "%s", root && root[0] == '/' && root[1] ? root : "");
    json_decref(info);
}

/* Where is the engine's disk? Only one on this host can be seen, and not from within every container. */
static void ask_engine(struct alerts *alerts)
{
    const struct qfc_state state = qfc_monitor_state(alerts->worker);
    if (alerts->asking_engine || *alerts->engine_root || !state.engine_ready ||
        strncmp(alerts->settings->docker_host, "unix://", 7) != 0)
        return;
    alerts->asking_engine = qfc_engine_info(alerts->engine, on_engine_info, alerts, NULL, NULL) == 0;
}

static void on_tick(uv_timer_t *timer)
{
    struct alerts *alerts = timer->data;
    if (!qfc_queue_ready(alerts->queue))
        return;
    ask_engine(alerts);
    for (size_t i = 0; i < SCOPES; i++) {
        struct judge *judge = &alerts->judges[i];
        char duty[200];
        judge_duty(judge, duty, sizeof duty);
        (void)qfc_queue_duty(alerts->queue, duty, on_duty, judge, NULL);
    }
}

static void on_told(void *userdata, const char *word)
{
    alerts_hear(userdata, word);
}

static void on_taken(void *userdata, unsigned tag, bool firing)
{
    struct alerts *alerts = userdata;
    alerts->items[tag].told = firing;
    alerts_tell_others(alerts, &alerts->judges[alert_rules[tag].scope]);
}

void alerts_begin(struct alerts *alerts, const struct qfc_companion_host *host, struct queue_state *state)
{
    alerts->loop = host->loop;
    alerts->settings = host->settings;
    alerts->worker = host->worker;
    alerts->queue = host->queue;
    alerts->engine = host->engine;
    alerts->state = state;
    alerts->on = host->settings->alerts && host->mode == QFC_WORKER_RUN;
    gethostname(alerts->host, sizeof alerts->host - 1);
    for (size_t i = 0; i < SCOPES; i++)
        alerts->judges[i] = (struct judge){.alerts = alerts, .scope = (enum alert_scope)i, .silent = true};
    alerts->webhook.http = host->http;
    alerts->webhook.url = host->settings->alert_webhook;
    alerts->webhook.taken = on_taken;
    alerts->webhook.userdata = alerts;
    webhook_begin(&alerts->webhook, host->loop);
    uv_timer_init(host->loop, &alerts->tick);
    alerts->tick.data = alerts;
    if (!alerts->on)
        return;
    qfc_queue_on_told(host->queue, on_told, alerts);
    uv_timer_start(&alerts->tick, on_tick, period_ms(alerts), period_ms(alerts));
}

void alerts_end(struct alerts *alerts)
{
    qfc_queue_on_told(alerts->queue, NULL, NULL);
    uv_close((uv_handle_t *)&alerts->tick, NULL);
    webhook_end(&alerts->webhook);
}
