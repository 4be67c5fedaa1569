/* Object stores: the configuration, signatures, and a store that answers in every way that one should not. */
#include "qfc/stores.h"
#include "../../base/sigv4.h"
#include "player.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define S3(options)     "{\"BACKEND\": \"qfieldcloud.filestorage.backend.QfcS3Boto3Storage\", \"OPTIONS\": " options "}"
#define WEBDAV(options) "{\"BACKEND\": \"qfieldcloud.filestorage.backend.QfcWebDavStorage\", \"OPTIONS\": " options "}"
#define KEYS            "\"access_key\": \"AKIDEXAMPLE\", \"secret_key\": \"hunter2hunter2\""
#define SECRET          "hunter2hunter2"

struct bed {
    uv_loop_t loop;
    struct qfc_http *http;
    struct qfc_stores *stores;
    struct player player;
    bool playing;
    char storages[2048];
    char *answer;       /* what the player sends, or null: an endless body */
    size_t answer_size; /* bytes */
    char *answers[64];  /* all of them: the player may still be sending */
    size_t answer_count;

    int done;
    struct qfc_error error;
    size_t count;
    char keys[1024]; /* joined by blanks */
    struct qfc_stores_call *call;
};

static int set_up(void **state)
{
    struct bed *bed = calloc(1, sizeof *bed);
    struct qfc_error error;

    assert_non_null(bed);
    uv_loop_init(&bed->loop);
    bed->http = qfc_http_new(&bed->loop, &error);
    assert_non_null(bed->http);
    *state = bed;
    return 0;
}

static int tear_down(void **state)
{
    struct bed *bed = *state;

    qfc_stores_free(bed->stores);
    qfc_http_free(bed->http);
    uv_run(&bed->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&bed->loop), 0);
    if (bed->playing)
        player_free(&bed->player);
    for (size_t i = 0; i < bed->answer_count; i++)
        free(bed->answers[i]);
    free(bed);
    return 0;
}

/* --- Configuration ------------------------------------------------------------------------------------------------ */

static void configure(struct bed *bed, const char *storages)
{
    const struct qfc_stores_options options = {.storages = storages};

    qfc_stores_free(bed->stores);
    bed->error = QFC_NO_ERROR;
    bed->stores = qfc_stores_new(bed->http, &options, &bed->error);
}

static void wrong_as_a_whole(void **state)
{
    static const char *const cases[][2] = {
        {"hunter2hunter2", "STORAGES is not JSON (line 1)"},
        {"{\"default\":\n {\"secret_key\": \"hunter2hunter2\" ", "STORAGES is not JSON (line 2)"},
        {"[\"hunter2hunter2\"]", "STORAGES is JSON, but no object of storages by their names"},
        {"\"hunter2hunter2\"", "STORAGES is JSON, but no object of storages by their names"},
        {"{\"\": {}}", "STORAGES has a storage without a name"},
        {"{\"a\": {\"QFC_IS_LEGACY\": true}, \"b\": {\"QFC_IS_LEGACY\": true}}",
         "STORAGES has two storages with QFC_IS_LEGACY: a and b"},
    };
    struct bed *bed = *state;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        configure(bed, cases[i][0]);
        assert_null(bed->stores);
        assert_int_equal(bed->error.kind, QFC_ERROR_USAGE);
        assert_string_equal(bed->error.message, cases[i][1]);
    }
}

struct trouble {
    const char *entry;
    const char *trouble; /* null: none */
};

static const struct trouble troubles[] = {
    {"\"hunter2\"", "it is no object"},
    {"{}", "its BACKEND is missing"},
    {"{\"BACKEND\": 1}", "its BACKEND is missing"},
    {"{\"BACKEND\": \"x.QfcS3Boto3Storage\"}", "its BACKEND is unknown (\"x.QfcS3Boto3Storage\")"},
    {S3("[]"), "its OPTIONS are no object"},
    {S3("null"), "its OPTIONS are no object"},
    {S3("{}"), "its option access_key is missing"},
    {S3("{\"access_key\": \"a\"}"), "its option secret_key is missing"},
    {S3("{\"access_key\": \"a\", \"secret_key\": null}"), "its option secret_key is missing"},
    {S3("{\"access_key\": \"a\", \"secret_key\": 7}"), "its option secret_key is no text"},
    {S3("{" KEYS "}"), "its option bucket_name is missing"},
    {S3("{" KEYS ", \"bucket_name\": \"\"}"), "its option bucket_name is missing"},
    {S3("{" KEYS ", \"bucket_name\": \"b\"}"), NULL},
    {S3("{" KEYS ", \"bucket_name\": \"b\", \"endpoint_url\": \"\", \"region_name\": \"\"}"), NULL},
    {S3("{" KEYS ", \"bucket_name\": \"b\", \"endpoint_url\": \"hunter2\"}"),
     "its option endpoint_url is no URL of http or https"},
    {S3("{" KEYS ", \"bucket_name\": \"b\", \"endpoint_url\": \"ftp://host\"}"),
     "its option endpoint_url is no URL of http or https"},
    {S3("{" KEYS ", \"bucket_name\": \"b\", \"endpoint_url\": \"http://u:hunter2@host\"}"),
     "its option endpoint_url has a user in its URL"},
    {S3("{" KEYS ", \"bucket_name\": \"b\", \"endpoint_url\": \"http://host/?hunter2\"}"),
     "its option endpoint_url has a query in its URL"},
    {S3("{" KEYS ", \"bucket_name\": \"b\", \"region_name\": \"a\\r\\nX-Evil: hunter2\"}"),
     "its option region_name has control characters"},
    {S3("{" KEYS ", \"bucket_name\": \"b\", \"session_profile\": \"p\"}"),
     "its option session_profile is not supported"},
    {S3("{" KEYS ", \"bucket_name\": \"b\", \"verify\": false, \"use_ssl\": false, \"default_acl\": \"private\"}"),
     NULL},
    {WEBDAV("{}"), "its option webdav_url is missing"},
    {WEBDAV("{\"webdav_url\": \"http://u:hunter2@\"}"), "its option webdav_url is no URL of http or https"},
    {WEBDAV("{\"webdav_url\": \"http://u:hunter2@host/dav\", \"basic_auth\": \"u:hunter2\"}"), NULL},
    {WEBDAV("{\"webdav_url\": \"https://host\"}"), NULL},
};

static void wrong_one_by_one(void **state)
{
    struct bed *bed = *state;

    for (size_t i = 0; i < sizeof troubles / sizeof *troubles; i++) {
        char text[1024];
        snprintf(text, sizeof text, "{\"fine\": %s, \"it\": %s}", S3("{" KEYS ", \"bucket_name\": \"b\"}"),
                 troubles[i].entry);
        configure(bed, text);
        if (!bed->stores)
            fail_msg("%s: %s", troubles[i].entry, bed->error.message);
        assert_null(qfc_stores_trouble(bed->stores, "fine"));
        if (!troubles[i].trouble && qfc_stores_trouble(bed->stores, "it"))
            fail_msg("%s: %s", troubles[i].entry, qfc_stores_trouble(bed->stores, "it"));
        if (troubles[i].trouble)
            assert_string_equal(qfc_stores_trouble(bed->stores, "it"), troubles[i].trouble);
    }
    assert_string_equal(qfc_stores_trouble(bed->stores, "other"), "it is not in STORAGES");
    assert_non_null(qfc_stores_trouble(bed->stores, NULL));
}

static void which_one_is_legacy(void **state)
{
    struct bed *bed = *state;
    struct qfc_stores_options older = {
        .storages = "", .access_key_id = "a", .secret_access_key = "s", .bucket_name = "b", .region_name = ""};

    configure(bed, "{\"old\": {\"QFC_IS_LEGACY\": true}, \"new\": {\"QFC_IS_LEGACY\": false}}");
    assert_string_equal(qfc_stores_legacy(bed->stores), "old");
    configure(bed, "{\"new\": {}}");
    assert_null(qfc_stores_legacy(bed->stores));
    configure(bed, NULL);
    assert_null(qfc_stores_legacy(bed->stores));
    assert_non_null(qfc_stores_trouble(bed->stores, "default"));
    qfc_stores_free(bed->stores);
    bed->stores = qfc_stores_new(bed->http, &older, &bed->error);
    assert_string_equal(qfc_stores_legacy(bed->stores), "default");
    assert_null(qfc_stores_trouble(bed->stores, "default"));
    older.secret_access_key = NULL;
    qfc_stores_free(bed->stores);
    bed->stores = qfc_stores_new(bed->http, &older, &bed->error);
    assert_string_equal(qfc_stores_trouble(bed->stores, "default"), "its option secret_key is missing");
}

/* --- Signatures --------------------------------------------------------------------------------------------------- */

#define EMPTY "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

/* "Examples: Signature calculations in AWS Signature Version 4" of the Amazon S3 API Reference: those two whose headers
 * are ours. */
static void signatures(void **state)
{
    static const char *const cases[][2] = {
        {"lifecycle=", "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"},
        {"max-keys=2&prefix=J", "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct qfc_buffer out = qfc_buffer(1024);
        struct qfc_error error;
        char expected[512];
        const struct qfc_sigv4 request = {.access_key = "AKIAIOSFODNN7EXAMPLE",
                                          .secret_key = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
                                          .region = "us-east-1",
                                          .method = "GET",
                                          .host = "examplebucket.s3.amazonaws.com",
                                          .path = "/",
                                          .query = cases[i][0],
                                          .payload = EMPTY,
                                          .time = "20130524T000000Z"};
        assert_int_equal(qfc_sigv4_authorize(&request, &out, &error), 0);
        snprintf(expected, sizeof expected,
                 "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, "
                 "SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature=%s",
                 cases[i][1]);
        assert_string_equal(qfc_buffer_text(&out), expected);
        qfc_buffer_free(&out);
    }
}

static void hashes_times_and_encoding(void **state)
{
    struct qfc_buffer out = qfc_buffer(1024);
    char hash[QFC_SIGV4_HASH_SIZE], text[QFC_SIGV4_TIME_SIZE];
    struct qfc_error error;

    assert_int_equal(qfc_sigv4_hash(NULL, 0, hash, &error), 0);
    assert_string_equal(hash, EMPTY);
    assert_int_equal(qfc_sigv4_hash("abc", 3, hash, &error), 0); /* FIPS 180-2, B.1 */
    assert_string_equal(hash, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    qfc_sigv4_time(1369353600, text);
    assert_string_equal(text, "20130524T000000Z");
    assert_int_equal(qfc_sigv4_encode(&out, "aZ09-._~/ +%&=\xC3\xBC\x7F", true), 0);
    assert_string_equal(qfc_buffer_text(&out), "aZ09-._~/%20%2B%25%26%3D%C3%BC%7F");
    qfc_buffer_free(&out);
    assert_int_equal(qfc_sigv4_encode(&out, "a/b", false), 0);
    assert_string_equal(qfc_buffer_text(&out), "a%2Fb");
    qfc_buffer_free(&out);
}

/* --- A store that is played --------------------------------------------------------------------------------------- */

static bool play_endless(int fd)
{
    char piece[4096];

    memset(piece, 'x', sizeof piece);
    player_text(fd, "HTTP/1.1 200 OK\r\n\r\n");
    while (player_write(fd, piece, sizeof piece))
        ;
    return false;
}

static bool play(struct player *player, int fd, const struct request *request)
{
    const struct bed *bed = player->userdata;

    return bed->answer ? player_write(fd, bed->answer, bed->answer_size) : play_endless(fd);
}

/* As player_start, on a TCP port. */
static unsigned start_player(struct bed *bed)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof address;

    bed->player.play = play;
    bed->player.userdata = bed;
    pthread_mutex_init(&bed->player.lock, NULL);
    bed->player.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    player_check(bind(bed->player.listener, (struct sockaddr *)&address, size) == 0);
    player_check(listen(bed->player.listener, 64) == 0);
    player_check(getsockname(bed->player.listener, (struct sockaddr *)&address, &size) == 0);
    pthread_create(&bed->player.acceptor, NULL, player_accept, &bed->player);
    bed->playing = true;
    return ntohs(address.sin_port);
}

static int set_up_player(void **state)
{
    set_up(state);
    struct bed *bed = *state;
    unsigned port = start_player(bed);
    snprintf(
        bed->storages, sizeof bed->storages,
        "{\"s3\": " S3("{" KEYS ", \"bucket_name\": \"b\", \"endpoint_url\": \"http://127.0.0.1:%u\", "
                       "\"security_token\": \"t0ken\"}") ", \"dav\": " WEBDAV("{\"webdav_url\": \"http://user:" SECRET
                                                                              "@127.0.0.1:%u/base\"}") "}",
        port, port);
    configure(bed, bed->storages);
    assert_non_null(bed->stores);
    return 0;
}

static void answer(struct bed *bed, const char *status, const char *body, size_t size)
{
    char head[256];
    int length = snprintf(head, sizeof head, "HTTP/1.1 %s\r\nContent-Length: %zu\r\n\r\n", status, size);

    bed->answer = malloc((size_t)length + size);
    assert_non_null(bed->answer);
    assert_true(bed->answer_count < sizeof bed->answers / sizeof *bed->answers);
    bed->answers[bed->answer_count++] = bed->answer;
    memcpy(bed->answer, head, (size_t)length);
    memcpy(bed->answer + length, body, size);
    bed->answer_size = (size_t)length + size;
}

static void on_listed(void *userdata, const struct qfc_error *error, const char *const *keys, size_t count)
{
    struct bed *bed = userdata;

    bed->done++;
    bed->error = error ? *error : QFC_NO_ERROR;
    bed->count = count;
    bed->keys[0] = '\0';
    for (size_t i = 0; i < count && strlen(bed->keys) < 900; i++)
        snprintf(bed->keys + strlen(bed->keys), 100, "%s%.90s", i ? " " : "", keys[i]);
}

static void start_list(struct bed *bed, const char *storage)
{
    const struct qfc_object prefix = {.storage = storage, .key = "p/"};

    bed->done = 0;
    assert_int_equal(qfc_stores_list(bed->stores, &prefix, on_listed, bed, &bed->call, &bed->error), 0);
    assert_int_equal(bed->done, 0);
}

static void list(struct bed *bed, const char *storage, const char *status, const char *body, size_t size)
{
    if (body)
        answer(bed, status, body, size);
    start_list(bed, storage);
    uv_run(&bed->loop, UV_RUN_DEFAULT);
    assert_int_equal(bed->done, 1);
}

struct hostile {
    const char *body;
    const char *message; /* part of the error's; or, of a good one, null */
    const char *keys;
};

#define LIST(inside) "<ListBucketResult>" inside "</ListBucketResult>"
#define KEY(name)    "<Contents><Key>" name "</Key></Contents>"
#define ENCODED      "<EncodingType>url</EncodingType>"

static const struct hostile s3_answers[] = {
    {"", "the store's answer is not XML", NULL},
    {"<html><body><p>hello<br></body></html>", "is not XML: mismatched tag", NULL},
    {"<html></html>", "the store's answer is no list of objects", NULL},
    {"<List></List>", "the store's answer is no list of objects", NULL},
    {"<ListBucketResult>" KEY("p/a"), "is not XML: no element found", NULL},
    {"<!DOCTYPE a [<!ENTITY e \"x\">]><ListBucketResult/>", "has a document type", NULL},
    {LIST(KEY("p/a") KEY("q/a")), "keys that do not begin like that", NULL},
    {LIST(KEY("p/a") "<Contents><Size>1</Size></Contents>"), "an entry without a key", NULL},
    {LIST(KEY("p/%00a") ENCODED), "a key with a zero byte", NULL},
    {LIST(KEY("p/a") "<IsTruncated>true</IsTruncated>"), "goes on and does not say where", NULL},
    {LIST("<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"),
     "goes on where it was before", NULL},
    {LIST(""), NULL, ""},
    {LIST("<IsTruncated>false</IsTruncated><Prefix>p/</Prefix><Other><Key>q</Key></Other>"), NULL, ""},
    {LIST(KEY("p/b") KEY("p/a") KEY("p/b")), NULL, "p/a p/b"},
    {LIST(KEY("p/&lt;&amp;&#252;") KEY("p/%41+")), NULL, "p/%41+ p/<&\xC3\xBC"},
    {LIST(KEY("p/%41+%2B%zz") ENCODED), NULL, "p/A +%zz"},
    {"<?xml version=\"1.0\"?>\n<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">" KEY(
         "p/a") "</ListBucketResult>",
     NULL, "p/a"},
};

#define MULTI(inside)  "<d:multistatus xmlns:d=\"DAV:\">" inside "</d:multistatus>"
#define FILE_AT(href)  "<d:response><d:href>" href "</d:href></d:response>"
#define COLLECTION(at) /* all are answered alike */                                                                    \
    "<d:response><d:href>" at "</d:href><d:propstat><d:prop><d:resourcetype><d:collection/></d:resourcetype></d:prop>" \
    "</d:propstat></d:response>"

static const struct hostile webdav_answers[] = {
    {"", "the store's answer is not XML", NULL},
    {"<html></html>", "the store's answer is no multistatus", NULL},
    {"<!DOCTYPE a><multistatus/>", "has a document type", NULL},
    {MULTI(FILE_AT("/base/p/a") FILE_AT("/base/q/a")), "not below what it was asked for", NULL},
    {MULTI(FILE_AT("/other/p/a")), "not below what it was asked for", NULL},
    {MULTI(FILE_AT("/base/p/../q")), "not below what it was asked for", NULL},
    {MULTI(FILE_AT("/base/p/%2e%2e/q")), "not below what it was asked for", NULL},
    {MULTI(FILE_AT("/base/p//q")), "not below what it was asked for", NULL},
    {MULTI(FILE_AT("/base/p/%00")), "not below what it was asked for", NULL},
    {MULTI(FILE_AT("http://host")), "not below what it was asked for", NULL},
    {MULTI("<d:response></d:response>"), "not below what it was asked for", NULL},
    {MULTI(COLLECTION("/base/p/x/") COLLECTION("/base/p/y/")), "not below what it was asked for",
     NULL}, /* inside of x there is no y */
    {MULTI(""), NULL, ""},
    {MULTI(COLLECTION("/base/p/") FILE_AT("/base/p/b") FILE_AT("http://h:1/base/p/%61%20+")), NULL, "p/a + p/b"},
};

static void check_hostile(struct bed *bed, const char *storage, const char *status, const struct hostile *cases,
                          size_t count)
{
    for (size_t i = 0; i < count; i++) {
        list(bed, storage, status, cases[i].body, strlen(cases[i].body));
        if (cases[i].message && bed->error.kind != QFC_ERROR_INVALID)
            fail_msg("%s: %s %s", cases[i].body, qfc_error_kind_name(bed->error.kind), bed->error.message);
        if (cases[i].message && !strstr(bed->error.message, cases[i].message))
            fail_msg("%s: %s", cases[i].body, bed->error.message);
        if (!cases[i].message && bed->error.kind)
            fail_msg("%s: %s", cases[i].body, bed->error.message);
        if (cases[i].keys)
            assert_string_equal(bed->keys, cases[i].keys);
    }
}

static void hostile_s3_lists(void **state)
{
    check_hostile(*state, "s3", "200 OK", s3_answers, sizeof s3_answers / sizeof *s3_answers);
}

static void hostile_webdav_lists(void **state)
{
    check_hostile(*state, "dav", "207 Multi-Status", webdav_answers, sizeof webdav_answers / sizeof *webdav_answers);
}

/* `start`, `count` times `piece`, `end`. */
static char *repeat(const char *start, const char *piece, size_t count, const char *end)
{
    size_t length = strlen(piece);
    char *text = malloc(strlen(start) + count * length + strlen(end) + 1);
    char *at = stpcpy(text, start);

    for (size_t i = 0; i < count; i++)
        at = stpcpy(at, piece);
    strcpy(at, end);
    return text;
}

static void check_bound(struct bed *bed, char *body, const char *message)
{
    list(bed, "s3", "200 OK", body, strlen(body));
    free(body);
    assert_int_equal(bed->error.kind, QFC_ERROR_INVALID);
    if (!strstr(bed->error.message, message))
        fail_msg("%s", bed->error.message);
}

static void answers_are_bounded(void **state)
{
    struct bed *bed = *state;

    check_bound(bed, repeat("<ListBucketResult>", KEY("p/a"), 100001, "</ListBucketResult>"), "there are more than");
    check_bound(bed, repeat("<ListBucketResult><Contents><Key>p/", "x", 20000, KEY("") "</ListBucketResult>"),
                "an element whose text is too long");
    check_bound(bed, repeat("<ListBucketResult>", "<aaaaaaaa>", 10000, ""), "nested too deeply");
    bed->answer = NULL;
    list(bed, "s3", NULL, NULL, 0);
    assert_int_equal(bed->error.kind, QFC_ERROR_INVALID);
    assert_non_null(strstr(bed->error.message, "is larger than"));
}

/* --- Refusals ----------------------------------------------------------------------------------------------------- */

static void refusals_are_told_cleaned_cut_and_without_secrets(void **state)
{
    struct bed *bed = *state;
    static const char echo[] = "<Error><Code>" SECRET "</Code><Message>a\tb " SECRET " AKIDEXAMPLE t0ken "
                               "dXNlcjpodW50ZXIyaHVudGVyMg==.</Message></Error>";
    char *endless = repeat("<Error><Message>", "x", 10000, "</Message></Error>");

    list(bed, "s3", "403 Forbidden", echo, strlen(echo));
    assert_int_equal(bed->error.kind, QFC_ERROR_REFUSED);
    assert_int_equal(bed->error.code, 403);
    assert_string_equal(bed->error.message, "list \"p/\" in storage \"s3\": the store answers 403 **************: a b "
                                            "************** *********** ***** dXNlcjpodW50ZXIyaHVudGVyMg==.");
    list(bed, "dav", "403 Forbidden", echo, strlen(echo));
    assert_string_equal(bed->error.message, "list \"p/\" in storage \"dav\": the store answers 403 **************: a b "
                                            "************** AKIDEXAMPLE t0ken ****************************.");
    list(bed, "s3", "503 Slow", endless, strlen(endless));
    assert_int_equal(bed->error.kind, QFC_ERROR_AGAIN);
    assert_true(strlen(bed->error.message) < 500);
    list(bed, "s3", "502 Bad Gateway", "<html>no", 8);
    assert_string_equal(bed->error.message, "list \"p/\" in storage \"s3\": the store answers 502");
    free(endless);
}

static void secrets_go_only_where_they_belong(void **state)
{
    struct bed *bed = *state;
    const struct request *request;

    list(bed, "dav", "207 Multi-Status", MULTI(""), strlen(MULTI("")));
    list(bed, "s3", "200 OK", LIST(""), strlen(LIST("")));
    player_stop(&bed->player);
    assert_int_equal(bed->player.request_count, 2);
    request = &bed->player.requests[0];
    assert_string_equal(request->target, "/base/p/");
    assert_non_null(strstr(request->headers, "\r\nAuthorization: Basic dXNlcjpodW50ZXIyaHVudGVyMg==\r\n"));
    request = &bed->player.requests[1];
    assert_string_equal(request->target, "/b?encoding-type=url&list-type=2&prefix=p%2F");
    assert_null(strstr(request->headers, SECRET));
    assert_non_null(strstr(request->headers, "\r\nX-Amz-Security-Token: t0ken\r\n"));
    assert_non_null(strstr(request->headers, "host;x-amz-content-sha256;x-amz-date;x-amz-security-token"));
}

/* --- Life --------------------------------------------------------------------------------------------------------- */

static void cancelled_before_it_began_and_later(void **state)
{
    struct bed *bed = *state;

    answer(bed, "200 OK", LIST(""), strlen(LIST("")));
    start_list(bed, "s3");
    qfc_stores_cancel(bed->call);
    uv_run(&bed->loop, UV_RUN_DEFAULT);
    assert_int_equal(bed->done, 0);
    start_list(bed, "s3");
    uv_run(&bed->loop, UV_RUN_ONCE);
    qfc_stores_cancel(bed->call);
    uv_run(&bed->loop, UV_RUN_DEFAULT);
    assert_int_equal(bed->done, 0);
    start_list(bed, "s3");
    uv_run(&bed->loop, UV_RUN_DEFAULT);
    assert_int_equal(bed->done, 1);
}

static void free_all(void *userdata, const struct qfc_error *error, size_t deleted)
{
    struct bed *bed = userdata;

    bed->done++;
    bed->count = deleted;
    qfc_stores_cancel(bed->call);
    qfc_stores_free(bed->stores);
    bed->stores = NULL;
}

static void freed_in_a_callback(void **state)
{
    struct bed *bed = *state;
    const struct qfc_object objects[] = {{"s3", "a", false}, {"dav", "a", false}, {"none", "a", false}};

    answer(bed, "204 No Content", "", 0);
    start_list(bed, "dav");
    assert_int_equal(qfc_stores_delete(bed->stores, objects, 3, free_all, bed, &bed->call, &bed->error), 0);
    while (bed->done == 0)
        uv_run(&bed->loop, UV_RUN_ONCE);
    uv_run(&bed->loop, UV_RUN_DEFAULT);
    assert_true(bed->count <= 2);
}

static void freed_with_nothing_to_wait_for(void **state)
{
    struct bed *bed = *state;
    const struct qfc_object object = {"none", "a", false};

    start_list(bed, "s3");
    assert_int_equal(qfc_stores_delete(bed->stores, &object, 1, free_all, bed, &bed->call, &bed->error), 0);
    uv_run(&bed->loop, UV_RUN_DEFAULT);
    assert_int_equal(bed->done, 1);
    assert_int_equal(bed->count, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(wrong_as_a_whole, set_up, tear_down),
        cmocka_unit_test_setup_teardown(wrong_one_by_one, set_up, tear_down),
        cmocka_unit_test_setup_teardown(which_one_is_legacy, set_up, tear_down),
        cmocka_unit_test(signatures),
        cmocka_unit_test(hashes_times_and_encoding),
        cmocka_unit_test_setup_teardown(hostile_s3_lists, set_up_player, tear_down),
        cmocka_unit_test_setup_teardown(hostile_webdav_lists, set_up_player, tear_down),
        cmocka_unit_test_setup_teardown(answers_are_bounded, set_up_player, tear_down),
        cmocka_unit_test_setup_teardown(refusals_are_told_cleaned_cut_and_without_secrets, set_up_player, tear_down),
        cmocka_unit_test_setup_teardown(secrets_go_only_where_they_belong, set_up_player, tear_down),
        cmocka_unit_test_setup_teardown(cancelled_before_it_began_and_later, set_up_player, tear_down),
        cmocka_unit_test_setup_teardown(freed_in_a_callback, set_up_player, tear_down),
        cmocka_unit_test_setup_teardown(freed_with_nothing_to_wait_for, set_up_player, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
