/*
 * check: QFieldCloud's object stores, and the keys that its users' secrets are encrypted with.
 */
#include "check.h"

#include "qfc/confine.h"
#include "qfc/fernet.h"
#include "qfc/pg.h"
#include "qfc/stores.h"

#include <stdlib.h>
#include <string.h>

/* For one request to a storage. */
#define DEADLINE_MS 10000

/* Nothing has such a key, so the answer is short; what it takes to ask for a list is what packages need. */
#define NOBODYS_PREFIX "projects/00000000-0000-0000-0000-000000000000/packages/"

/* The end of a list. */
struct listing {
    struct turns *turns;
    struct qfc_error error;
};

static void on_listed(void *userdata, const struct qfc_error *error, const char *const *keys, size_t count)
{
    struct listing *listing = userdata;
    if (error)
        listing->error = *error;
    turns_end(listing->turns);
}

static int list(struct look *look, struct qfc_stores *stores, const char *storage, struct qfc_error *error)
{
    const char *legacy = qfc_stores_legacy(stores);
    struct listing listing = {.turns = &look->turns};
    const struct qfc_object prefix = {
        .storage = storage, .key = NOBODYS_PREFIX, .legacy = legacy && strcmp(legacy, storage) == 0};
    struct qfc_stores_call *call;
    turns_begin(&look->turns);
    if (qfc_stores_list(stores, &prefix, on_listed, &listing, &call, error) < 0)
        return -1;
    if (turns_wait(&look->turns, 0, error) < 0) {
        qfc_stores_cancel(call);
        return -1;
    }
    *error = listing.error;
    return error->kind == QFC_ERROR_NONE ? 0 : -1;
}

static const char *hint_for(const struct qfc_error *error)
{
    if (error->code == 401 || error->code == 403)
        return "the store refuses: correct the keys or the password in STORAGES, or what they may do there (list, "
               "delete)";
    if (error->code == 404)
        return "correct the bucket's name or the path in STORAGES, or make the bucket";
    if (error->kind == QFC_ERROR_UNREACHABLE)
        return "correct the address in STORAGES, or start the store: docker compose ps";
    return "look into the store's own log";
}

static void find_storage(struct look *look, struct qfc_stores *stores, const char *storage)
{
    struct qfc_error error = QFC_NO_ERROR;
    const char *trouble = qfc_stores_trouble(stores, storage);
    if (trouble) {
        check_found(look, CHECK_FAILED, "%s", trouble);
        check_advise(look, "correct STORAGES: what the web application has there is right here, too");
    } else if (list(look, stores, storage, &error) < 0) {
        check_found(look, CHECK_FAILED, "%s", error.message);
        check_advise(look, "%s", hint_for(&error));
    } else {
        check_found(look, CHECK_OK, "%s answers", storage);
    }
}

void check_storages(struct look *look)
{
    const struct qfc_settings *settings = &look->settings;
    struct qfc_error error = QFC_NO_ERROR;
    const struct qfc_stores_options options = {
        .storages = settings->storages,
        .access_key_id = settings->storage_access_key_id,
        .secret_access_key = settings->storage_secret_access_key,
        .bucket_name = settings->storage_bucket_name,
        .region_name = settings->storage_region_name,
        .endpoint_url = settings->storage_endpoint_url,
        .deadline_ms = DEADLINE_MS,
        .ca_file = qfc_has_custom_ca() ? QFC_CUSTOM_CA_FILE : NULL,
    };
    struct qfc_stores *stores = qfc_stores_new(look->turns.http, &options, &error);
    if (!stores) {
        check_found(look, CHECK_FAILED, "%s", error.message);
        check_advise(look, "correct STORAGES: what the web application has there is right here, too");
        return;
    }
    if (!qfc_stores_name(stores, 0)) {
        check_found(look, CHECK_WARNING, "no storage is set: objects of obsolete packages are not deleted");
        check_advise(look, "set STORAGES as the web application has it");
    }
    const char *storage;
    for (size_t i = 0; (storage = qfc_stores_name(stores, i)); i++)
        find_storage(look, stores, storage);
    qfc_stores_free(stores);
}

/* The newest: those that are in use, and that the keys of today have encrypted. */
static const char secrets_sql[] = "SELECT name, value FROM core_secret ORDER BY id DESC LIMIT 50";

/* Fernet's version and the first bytes of a time of these centuries: other values were never encrypted. */
static bool is_encrypted(const char *value)
{
    return strncmp(value, "gAAAA", 5) == 0;
}

/* What became of the values. */
struct tally {
    size_t encrypted, readable;
    const char *unreadable; /* name of one; null: there is none */
};

static int try_secrets(const PGresult *secrets, const struct qfc_fernet_key *key, struct tally *tally,
                       struct qfc_error *error)
{
    for (int row = 0; row < PQntuples(secrets); row++) {
        const char *value = qfc_pg_text(secrets, row, "value");
        char *text;
        size_t size;
        if (!value || !is_encrypted(value))
            continue;
        tally->encrypted++;
        if (qfc_fernet_decrypt(key, value, &text, &size, error) == 0) {
            tally->readable++;
            explicit_bzero(text, size);
            free(text);
        } else if (error->kind == QFC_ERROR_INVALID) {
            tally->unreadable = qfc_pg_text(secrets, row, "name");
        } else {
            return -1;
        }
    }
    return 0;
}

static void judge_tally(struct look *look, const struct tally *tally)
{
    if (tally->encrypted == 0) {
        check_found(look, CHECK_OK, "there is no encrypted secret that they could be tried on");
    } else if (tally->readable == tally->encrypted) {
        check_found(look, CHECK_OK, "SECRET_KEY and SALT_KEY decrypt the newest %zu secrets", tally->readable);
    } else if (tally->readable == 0) {
        check_found(look, CHECK_FAILED,
                    "SECRET_KEY and SALT_KEY decrypt none of the newest %zu secrets: jobs get them as they are stored",
                    tally->encrypted);
        check_advise(look, "set both as the web application has them (compare its environment with this one's)");
    } else {
        check_found(look, CHECK_WARNING, "%zu of the newest %zu secrets do not decrypt, \"%s\" among them",
                    tally->encrypted - tally->readable, tally->encrypted, tally->unreadable);
        check_advise(look, "they were stored under other keys: let their owners store them anew");
    }
}

void check_secrets(struct look *look)
{
    struct qfc_error error = QFC_NO_ERROR;
    struct qfc_fernet_key key;
    struct tally tally = {0};
    PGresult *secrets;
    if (!*look->settings.secret_key) {
        check_found(look, CHECK_FAILED, "SECRET_KEY is not set: jobs get secrets as they are stored");
        check_advise(look, "set SECRET_KEY and SALT_KEY as the web application has them");
        return;
    }
    if (check_ask(look, secrets_sql, &secrets, &error) < 0) {
        check_found_error(look, "read stored secrets", &error);
        return;
    }
    if (qfc_fernet_key(look->settings.secret_key, look->settings.salt_key, &key, &error) < 0 ||
        try_secrets(secrets, &key, &tally, &error) < 0)
        check_found_error(look, "decrypt stored secrets", &error);
    else
        judge_tally(look, &tally);
    explicit_bzero(&key, sizeof key);
    PQclear(secrets);
}
