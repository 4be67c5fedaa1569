/* What the engine's answers and its silence mean: a kind to decide by, and a sentence to act on. */
#include "engine_private.h"

#include "qfc/text.h"

#include <errno.h>
#include <grp.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* One line without control characters, cut where it is too long, on a character's boundary. */
void qfc_engine_clean(const char *text, size_t size, char *out, size_t out_size)
{
    const unsigned char *at = (const unsigned char *)text, *end = at + size;
    size_t used = 0;

    while (at < end) {
        size_t length = qfc_utf8_length(at, end);
        bool visible = length > 0 && *at > ' ' && *at != 0x7f && !(length == 2 && *at == 0xC2 && at[1] < 0xA0);

        if (used + (visible ? length : 1) > out_size - sizeof "...")
            break;
        if (visible) {
            memcpy(out + used, at, length);
            used += length;
        } else if (used > 0 && out[used - 1] != ' ') {
            out[used++] = ' ';
        }
        at += length ? length : 1;
    }
    while (used > 0 && out[used - 1] == ' ')
        used--;
    out[used] = '\0';
    if (at < end)
        strcpy(out + used, "...");
}

/* What a page of HTML says: proxies answer with such. `out` gets at most its size, and no more is looked at than that
 * needs. */
static void clean_html(const char *text, size_t size, char *out, size_t out_size)
{
    char plain[4 * QFC_ENGINE_WORDS_SIZE];
    size_t used = 0;
    bool in_tag = false;

    for (size_t i = 0; i < size && used < sizeof plain; i++) {
        if (text[i] == '<' || text[i] == '>')
            plain[used++] = ' ';
        else if (!in_tag)
            plain[used++] = text[i];
        in_tag = text[i] == '<' || (in_tag && text[i] != '>');
    }
    qfc_engine_clean(plain, used, out, out_size);
}

void qfc_engine_words(const struct qfc_buffer *body, char words[QFC_ENGINE_WORDS_SIZE])
{
    json_t *answer = json_loadb(qfc_buffer_text(body), body->size, 0, NULL);
    const char *message = json_string_value(json_object_get(answer, "message"));
    size_t blank = strspn(qfc_buffer_text(body), " \t\r\n");

    if (message)
        qfc_engine_clean(message, strlen(message), words, QFC_ENGINE_WORDS_SIZE);
    else if (qfc_buffer_text(body)[blank] == '<')
        clean_html(qfc_buffer_text(body), body->size, words, QFC_ENGINE_WORDS_SIZE);
    else
        qfc_engine_clean(qfc_buffer_text(body), body->size, words, QFC_ENGINE_WORDS_SIZE);
    json_decref(answer);
    if (!words[0])
        strcpy(words, "(nothing)");
}

/*
 * The engine quotes a malformed variable whole ("invalid environment variable: =value"), and it may be a secret.
 */
static void hide_environment(char *words)
{
    static const char before[] = "environment variable";
    char *found = strstr(words, before);

    if (found)
        found[sizeof before - 1] = '\0';
}

int qfc_engine_forbidden(int status, const char *method, const char *path, const char *what, const char *words,
                         struct qfc_error *error)
{
    char pattern[QFC_ENGINE_PATTERN_SIZE];

    qfc_engine_pattern(method, path, pattern);
    return qfc_fail(error, QFC_ERROR_REFUSED, status,
                    "%s: the engine, or a proxy before it, answered %d: %s; a proxy must allow %s %s (docs/engines.md)",
                    what, status, words, method, pattern);
}

int qfc_engine_refused(struct qfc_engine_call *call, const char *path, const struct qfc_http_response *response,
                       struct qfc_error *error)
{
    enum qfc_error_kind kind = QFC_ERROR_REFUSED;
    char words[QFC_ENGINE_WORDS_SIZE];
    int status = response->status;

    if (status < 400)
        return qfc_engine_nonsense(call, error, "an unexpected status");
    if (status >= 500)
        qfc_engine_doubt(call->engine);
    qfc_engine_words(&response->body, words);
    hide_environment(words);
    /* A look that failed on the engine's side says nothing about what was looked at; 501 is what it cannot do at all.
     */
    bool looks = strcmp(call->form->method, "GET") == 0;
    if (status == 503 || status == 429 || (looks && status >= 500 && status != 501))
        kind = QFC_ERROR_AGAIN;
    if (status == 403 || status == 405)
        return qfc_engine_forbidden(status, call->form->method, path, call->what, words, error);
    if (status == 400 && strstr(words, "client version")) { /* another engine has taken this one's place */
        call->engine->api_known = false;
        kind = QFC_ERROR_AGAIN;
    }
    return qfc_fail(error, kind, status, "%s: the engine answered %d: %s", call->what, status, words);
}

int qfc_engine_nonsense(const struct qfc_engine_call *call, struct qfc_error *error, const char *why)
{
    bool changes = strcmp(call->form->method, "GET") != 0;

    return qfc_fail(error, changes ? QFC_ERROR_UNKNOWN : QFC_ERROR_INVALID, 0,
                    "%s: the engine's answer is not as its API says: %s", call->what, why);
}

int qfc_engine_lost(struct qfc_engine_call *call, const struct qfc_error *failure, struct qfc_error *error)
{
    bool changes = strcmp(call->form->method, "GET") != 0;

    if (failure->kind == QFC_ERROR_UNREACHABLE || failure->kind == QFC_ERROR_UNKNOWN)
        call->engine->api_known = false;
    if (failure->kind == QFC_ERROR_UNREACHABLE)
        qfc_engine_unreachable(call->engine, failure, error);
    else
        *error = *failure;
    if (changes && error->kind == QFC_ERROR_INVALID)
        error->kind = QFC_ERROR_UNKNOWN;
    return qfc_context(error, "%s", call->what);
}

static bool is_member(gid_t group)
{
    gid_t groups[1024];
    int count = getgroups(1024, groups);

    if (getegid() == group)
        return true;
    for (int i = 0; i < count; i++)
        if (groups[i] == group)
            return true;
    return false;
}

/* Why this user may not use the socket: the one mistake that nearly everybody makes once. */
static void explain_denial(const char *path, char *why, size_t size)
{
    struct stat status;

    if (stat(path, &status) < 0) {
        snprintf(why, size, "permission denied: this user (%u) may not look into the socket's directory", geteuid());
        return;
    }
    if (!(status.st_mode & S_IWGRP) || is_member(status.st_gid)) {
        snprintf(why, size,
                 "permission denied: the socket belongs to user %u and group %u with mode %04o, this user is %u",
                 status.st_uid, status.st_gid, status.st_mode & 07777, geteuid());
        return;
    }
    const struct group *group = getgrgid(status.st_gid);
    if (group)
        snprintf(why, size, "permission denied: this user is not in the group \"%s\" (%u) that owns the socket",
                 group->gr_name, status.st_gid);
    else
        snprintf(why, size, "permission denied: this user is not in the group %u that owns the socket", status.st_gid);
}

int qfc_engine_unreachable(const struct qfc_engine *engine, const struct qfc_error *failure, struct qfc_error *error)
{
    char why[256] = "";
    int code = failure->code;

    if (code == EACCES && engine->socket)
        explain_denial(engine->socket, why, sizeof why);
    else if (code == ENOENT && engine->socket)
        snprintf(why, sizeof why, "no socket there: is the engine running?");
    else if (code == ECONNREFUSED)
        snprintf(why, sizeof why, "nobody listens there: is the engine running?");
    if (!why[0]) {
        static const char said[] = "connect to ";
        bool same = strncmp(failure->message, said, sizeof said - 1) == 0;

        return qfc_fail(error, QFC_ERROR_UNREACHABLE, code, "connect to the engine at %s",
                        failure->message + (same ? sizeof said - 1 : 0));
    }
    return qfc_fail(error, QFC_ERROR_UNREACHABLE, code, "connect to the engine at %s: %s", engine->where, why);
}
