/*
 * Host names into addresses, beside the loop: libpq's own look-up would block it.
 *
 * Each name of the conninfo's host list is looked up in turn by libuv, and handed to libpq with its address
 * (`hostaddr`), once per address. Names that only libpq knows of, those of a `service=` in the conninfo, are left to
 * it.
 */
#include "pg_private.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>

#define ADDRESSES_MAXIMUM 32
#define LIST_MAXIMUM      ((size_t)64 * 1024)

struct pg_lookup {
    uv_getaddrinfo_t request;
    struct qfc_pg *pg; /* null once nobody waits any more */
};

static void look_up_next(struct qfc_pg *pg);

const char *pg_given(const PQconninfoOption *options, const char *keyword)
{
    for (const PQconninfoOption *option = options; option && option->keyword; option++)
        if (strcmp(option->keyword, keyword) == 0)
            return option->val && *option->val ? option->val : NULL;
    return NULL;
}

static size_t elements(const char *list)
{
    size_t count = 1;

    for (; *list; list++)
        count += *list == ',';
    return count;
}

/* Copies the element of a comma list. Returns false where it does not fit. */
static bool element(const char *list, size_t index, char *out, size_t size)
{
    while (index-- > 0)
        list += strcspn(list, ",") + 1;
    size_t length = strcspn(list, ",");
    if (length >= size)
        return false;
    memcpy(out, list, length);
    out[length] = '\0';
    return true;
}

/* A name that has to be looked up: not a path, not an abstract socket, not an address. */
static bool is_name(const char *host)
{
    struct in_addr address;

    return *host && *host != '/' && *host != '@' && !strchr(host, ':') && inet_pton(AF_INET, host, &address) != 1;
}

static bool needs_lookup(const struct qfc_pg *pg)
{
    char host[NI_MAXHOST];

    if (!pg->host || pg->hostaddr)
        return false;
    size_t hosts = elements(pg->host);
    size_t ports = elements(pg->port ? pg->port : "");
    if (ports != 1 && ports != hosts)
        return false; /* libpq refuses that, and says it best */
    for (size_t i = 0; i < hosts; i++)
        if (element(pg->host, i, host, sizeof(host)) && is_name(host))
            return true;
    return false;
}

void pg_addresses_free(struct pg_addresses *addresses)
{
    qfc_buffer_free(&addresses->hosts);
    qfc_buffer_free(&addresses->hostaddrs);
    qfc_buffer_free(&addresses->ports);
    *addresses = (struct pg_addresses){
        qfc_buffer(LIST_MAXIMUM),
        qfc_buffer(LIST_MAXIMUM),
        qfc_buffer(LIST_MAXIMUM),
        0,
    };
}

static int add_address(struct qfc_pg *pg, const char *host, const char *hostaddr)
{
    struct pg_addresses *addresses = &pg->addresses;
    const char *comma = addresses->count > 0 ? "," : "";
    char port[32] = "";

    if (pg->port && !element(pg->port, elements(pg->port) == 1 ? 0 : pg->lookup_next, port, sizeof(port)))
        return -1;
    if (qfc_buffer_printf(&addresses->hosts, "%s%s", comma, host) < 0 ||
        qfc_buffer_printf(&addresses->hostaddrs, "%s%s", comma, hostaddr) < 0 ||
        qfc_buffer_printf(&addresses->ports, "%s%s", comma, port) < 0)
        return -1;
    addresses->count++;
    return 0;
}

/* All addresses of a name, beginning with another one after each attempt that met nothing but silence. */
static int add_addresses(struct qfc_pg *pg, const char *host, const struct addrinfo *list)
{
    char texts[ADDRESSES_MAXIMUM][NI_MAXHOST];
    size_t count = 0;

    for (const struct addrinfo *info = list; info && count < ADDRESSES_MAXIMUM; info = info->ai_next)
        if (getnameinfo(info->ai_addr, info->ai_addrlen, texts[count], NI_MAXHOST, NULL, 0, NI_NUMERICHOST) == 0)
            count++;
    for (size_t i = 0; i < count; i++)
        if (add_address(pg, host, texts[(i + pg->late) % count]) < 0)
            return -1;
    return 0;
}

static void fail_lookup(struct qfc_pg *pg, const char *host, const char *reason)
{
    struct qfc_error error;

    qfc_fail(&error, QFC_ERROR_UNREACHABLE, 0, "connect to %s: look up \"%s\": %s", pg->where, host, reason);
    pg_fail_attempt(pg, &error);
}

static void on_resolved(uv_getaddrinfo_t *request, int status, struct addrinfo *list)
{
    struct pg_lookup *lookup = request->data;
    struct qfc_pg *pg = lookup->pg;
    char host[NI_MAXHOST] = "";

    free(lookup);
    if (!pg) {
        uv_freeaddrinfo(list);
        return;
    }
    pg_enter(pg);
    pg->lookup = NULL;
    element(pg->host, pg->lookup_next, host, sizeof(host));
    int added = status == 0 ? add_addresses(pg, host, list) : 0;
    uv_freeaddrinfo(list);
    pg->lookup_next++;
    if (added < 0)
        fail_lookup(pg, host, "out of memory");
    else if (status < 0 && pg->addresses.count == 0 && pg->lookup_next >= elements(pg->host))
        fail_lookup(pg, host, uv_strerror(status));
    else
        look_up_next(pg); /* one name of several may fail */
    pg_leave(pg);
}

static void look_up(struct qfc_pg *pg, const char *host)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct pg_lookup *lookup = calloc(1, sizeof(*lookup));

    if (!lookup) {
        fail_lookup(pg, host, "out of memory");
        return;
    }
    lookup->request.data = lookup;
    int status = uv_getaddrinfo(pg->loop, &lookup->request, on_resolved, host, NULL, &hints);
    if (status < 0) {
        free(lookup);
        fail_lookup(pg, host, uv_strerror(status));
        return;
    }
    lookup->pg = pg;
    pg->lookup = lookup;
}

static void look_up_next(struct qfc_pg *pg)
{
    char host[NI_MAXHOST];

    for (; pg->lookup_next < elements(pg->host); pg->lookup_next++) {
        if (!element(pg->host, pg->lookup_next, host, sizeof(host))) {
            fail_lookup(pg, "...", "the name is too long");
            return;
        }
        if (is_name(host)) {
            look_up(pg, host);
            return;
        }
        if (add_address(pg, host, "") < 0) {
            fail_lookup(pg, host, "out of memory");
            return;
        }
    }
    pg_dial(pg);
}

void pg_lookup_start(struct qfc_pg *pg)
{
    pg_addresses_free(&pg->addresses);
    pg->lookup_next = 0;
    if (needs_lookup(pg))
        look_up_next(pg);
    else
        pg_dial(pg);
}

void pg_lookup_forget(struct qfc_pg *pg)
{
    if (!pg->lookup)
        return;
    uv_cancel((uv_req_t *)&pg->lookup->request); /* on_resolved is called in any case, and frees it */
    pg->lookup->pg = NULL;
    pg->lookup = NULL;
}
