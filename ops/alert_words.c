/*
 * What is said of an alert: in the log, to the receiver, and to the other workers. See alerts.h.
 */
#include "alerts.h"

#include "qfc/log.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define TEXT_BYTES 1024

/* "queue_depth" as "queue depth". */
static void spell(const char *name, char *out, size_t size)
{
    snprintf(out, size, "%s", name);
    for (char *at = out; (at = strchr(at, '_'));)
        *at = ' ';
}

static void duration_text(double seconds, char *out, size_t size)
{
    if (seconds < 120)
        snprintf(out, size, "%.0f s", seconds);
    else if (seconds < 7200)
        snprintf(out, size, "%.0f minutes", seconds / 60);
    else
        snprintf(out, size, "%.0f hours", seconds / 3600);
}

/* Without the stack's name: "queue depth, warning: 7 jobs wait (limit: 5 jobs, for 300 s)". */
static void alert_text(const struct alerts *alerts, size_t i, char *out, size_t size)
{
    const struct alert_rule *rule = &alert_rules[i];
    const struct alert *alert = &alerts->items[i];
    char name[64], limit[96] = "", lasted[64];
    spell(rule->name, name, sizeof name);
    if (*rule->unit && rule->lasts)
        snprintf(limit, sizeof limit, " (limit: %ld%s, for %ld s)", alert_limit(alerts, rule), rule->unit,
                 alerts->settings->alert_queue_for_s);
    else if (*rule->unit)
        snprintf(limit, sizeof limit, " (limit: %ld%s)", alert_limit(alerts, rule), rule->unit);
    duration_text(alert->since > 0 ? wall_s() - alert->since : 0, lasted, sizeof lasted);
    if (alert->firing)
        snprintf(out, size, "%s%s, %s: %s%s", alert->from_start ? "(still) " : "", name, rule->severity,
                 alert->last.text, limit);
    else
        snprintf(out, size, "over after %s: %s, %s: %s", lasted, name, rule->severity, alert->last.text);
}

static void time_text(double seconds, char *out, size_t size)
{
    time_t whole = (time_t)seconds;
    struct tm utc;
    gmtime_r(&whole, &utc);
    strftime(out, size, "%Y-%m-%dT%H:%M:%SZ", &utc);
}

/* {"text": ...} is what Slack and all that are like it show; the rest is for programs. */
static char *message_json(const struct alerts *alerts, size_t i)
{
    const struct alert_rule *rule = &alert_rules[i];
    const struct alert *alert = &alerts->items[i];
    const struct qfc_settings *settings = alerts->settings;
    const struct qfc_state state = qfc_monitor_state(alerts->worker);
    char said[TEXT_BYTES], text[2 * TEXT_BYTES], since[32], now[32];
    alert_text(alerts, i, said, sizeof said);
    snprintf(text, sizeof text, "%.100s%s%.100s%s, qfc-worker%s%s: %s", settings->compose_project_name,
             *settings->environment ? " (" : "", settings->environment, *settings->environment ? ")" : "",
             rule->scope == OF_HOST ? " on " : "", rule->scope == OF_HOST ? alerts->host : "", said);
    time_text(alert->since, since, sizeof since);
    time_text(wall_s(), now, sizeof now);
    json_t *message = json_pack("{s:s, s:s, s:s, s:s, s:f, s:I, s:s, s:s?, s:s, s:s, s:s, s:s, s:s}", "text", text,
                                "alert", rule->name, "severity", rule->severity, "state",
                                alert->firing ? "firing" : "resolved", "value", round(alert->last.value * 100) / 100,
                                "limit", (json_int_t)alert_limit(alerts, rule), "detail", alert->last.text, "since",
                                alert->since > 0 ? since : NULL, "time", now, "stack", settings->compose_project_name,
                                "environment", settings->environment, "host", alerts->host, "worker", state.marker);
    char *dumped = message ? json_dumps(message, JSON_COMPACT) : NULL;
    json_decref(message);
    return dumped;
}

void alert_send(struct alerts *alerts, size_t i)
{
    struct alert *alert = &alerts->items[i];
    if (!*alerts->webhook.url) {
        alert->told = alert->firing;
        return;
    }
    char *message = message_json(alerts, i);
    if (message)
        webhook_send(&alerts->webhook, message, (unsigned)i, alert->firing);
    else
        qfc_log(QFC_LOG_ERROR, NULL, "an alert was not sent: out of memory");
}

void alert_say(struct alerts *alerts, size_t i)
{
    char text[TEXT_BYTES];
    alert_text(alerts, i, text, sizeof text);
    bool critical = strcmp(alert_rules[i].severity, "critical") == 0;
    qfc_log(!alerts->items[i].firing ? QFC_LOG_INFO
            : critical               ? QFC_LOG_ERROR
                                     : QFC_LOG_WARNING,
            NULL, "alert %s", text);
    alert_send(alerts, i);
}

/* Is there something that the next judge must know? */
static bool is_worth_a_word(const struct alert *alert)
{
    return alert->since > 0 || alert->firing || alert->told;
}

static void tell(struct alerts *alerts, json_t *word)
{
    char *text = word ? json_dumps(word, JSON_COMPACT) : NULL;
    if (text && qfc_queue_ready(alerts->queue))
        qfc_queue_tell(alerts->queue, text, NULL);
    free(text);
    json_decref(word);
}

/* While all is well nothing is said, but once. */
void alerts_tell_others(struct alerts *alerts, struct judge *judge)
{
    char duty[200];
    json_t *list = json_array();
    for (size_t i = 0; i < ALERTS; i++) {
        const struct alert *alert = &alerts->items[i];
        if (alert_rules[i].scope == judge->scope && is_worth_a_word(alert))
            json_array_append_new(list, json_pack("{s:s, s:s, s:f, s:b, s:b, s:f, s:s}", "name", alert_rules[i].name,
                                                  "severity", alert_rules[i].severity, "since", alert->since, "firing",
                                                  (int)alert->firing, "told", (int)alert->told, "value",
                                                  alert->last.value, "text", alert->last.text));
    }
    bool silent = json_array_size(list) == 0;
    judge_duty(judge, duty, sizeof duty);
    if (silent && judge->silent)
        json_decref(list);
    else
        tell(alerts, json_pack("{s:s, s:s, s:o}", "duty", duty, "from", qfc_monitor_state(alerts->worker).marker,
                               "alerts", list));
    judge->silent = silent;
}

void alerts_ask_others(struct alerts *alerts, struct judge *judge)
{
    char duty[200];
    judge_duty(judge, duty, sizeof duty);
    judge->asked = true;
    tell(alerts,
         json_pack("{s:s, s:s, s:b}", "duty", duty, "from", qfc_monitor_state(alerts->worker).marker, "ask", 1));
}

/* What the judge says of one alert; null: nothing, so all is well with it. */
static void take_word(struct alert *alert, json_t *item)
{
    const char *text = "";
    int firing = 0, told = 0;
    double since = 0, value = 0;
    json_unpack(item, "{s:F, s:b, s:b, s?F, s?s}", "since", &since, "firing", &firing, "told", &told, "value", &value,
                "text", &text);
    *alert = (struct alert){.since = since, .firing = firing, .told = told, .bad = since > 0};
    alert->last.value = value;
    snprintf(alert->last.text, sizeof alert->last.text, "%s", text);
}

static json_t *find_item(json_t *list, const struct alert_rule *rule)
{
    size_t index;
    json_t *item;
    json_array_foreach(list, index, item)
    {
        const char *name = "", *severity = "";
        json_unpack(item, "{s:s, s:s}", "name", &name, "severity", &severity);
        if (strcmp(name, rule->name) == 0 && strcmp(severity, rule->severity) == 0)
            return item;
    }
    return NULL;
}

static void hear(struct alerts *alerts, struct judge *judge, json_t *word)
{
    json_t *list = json_object_get(word, "alerts");
    if (judge->ours && json_is_true(json_object_get(word, "ask"))) {
        judge->silent = false;
        alerts_tell_others(alerts, judge);
    }
    if (judge->ours || !json_is_array(list))
        return;
    judge->informed = true;
    for (size_t i = 0; i < ALERTS; i++)
        if (alert_rules[i].scope == judge->scope)
            take_word(&alerts->items[i], find_item(list, &alert_rules[i]));
}

void alerts_hear(struct alerts *alerts, const char *text)
{
    const char *duty = "", *from = "";
    char ours[200];
    json_t *word = json_loads(text, 0, NULL);
    json_unpack(word, "{s:s, s:s}", "duty", &duty, "from", &from);
    for (size_t i = 0; i < SCOPES; i++) {
        judge_duty(&alerts->judges[i], ours, sizeof ours);
        if (strcmp(duty, ours) == 0 && strcmp(from, qfc_monitor_state(alerts->worker).marker) != 0)
            hear(alerts, &alerts->judges[i], word);
    }
    json_decref(word);
}
