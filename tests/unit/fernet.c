/*
 * Fernet: published tokens, and everything that is not quite a token.
 */
#include "qfc/fernet.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

/* Made by Python's `cryptography` for the value "s3cret", with the keys of QFieldCloud's .env.example. */
#define SECRET_KEY "change_me"
#define SALT_KEY   "0123456789abcdefghijklmnopqrstuvwxyz"
#define TOKEN      "gAAAAABlU_EAAAECAwQFBgcICQoLDA0ODzId1rXdK9cpsS59JLEhc7Al5M9XYMtt6FvqMctuwjMyRGm1LizAl34T2K0ChbWMtA=="
#define TOKEN_SIZE 73 /* bytes, decoded */

#define HEAD_SIZE      25
#define BLOCK_SIZE     16
#define SIGNATURE_SIZE 32

static struct qfc_fernet_key key;

static int make_key(void **state)
{
    return qfc_fernet_key(SECRET_KEY, SALT_KEY, &key, NULL);
}

/* Base64 of the URL's alphabet with padding; freed by the caller. */
static char *encode(const unsigned char *data, size_t size)
{
    char *text = malloc((size + 2) / 3 * 4 + 1);
    assert_non_null(text);
    EVP_EncodeBlock((unsigned char *)text, data, (int)size);
    for (char *at = text; *at; at++)
        *at = *at == '+' ? '-' : *at == '/' ? '_' : *at;
    return text;
}

static unsigned char *decode(const char *token, size_t size)
{
    char *text = strdup(token);
    unsigned char *data = malloc(strlen(token));
    assert_non_null(text);
    assert_non_null(data);
    for (char *at = text; *at; at++)
        *at = *at == '-' ? '+' : *at == '_' ? '/' : *at;
    assert_true(EVP_DecodeBlock(data, (unsigned char *)text, (int)strlen(text)) >= (int)size);
    free(text);
    return data;
}

/* A token of this version around content that is already padded, rightly signed. Freed by the caller. */
static char *seal_padded(unsigned char version, const unsigned char *padded, size_t size)
{
    unsigned char *data = calloc(1, HEAD_SIZE + size + BLOCK_SIZE + SIGNATURE_SIZE);
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    int written;
    assert_non_null(data);
    data[0] = version;
    assert_int_equal(EVP_EncryptInit_ex2(context, EVP_aes_128_cbc(), key.encryption, data + 9, NULL), 1);
    EVP_CIPHER_CTX_set_padding(context, 0);
    if (size > 0)
        assert_int_equal(EVP_EncryptUpdate(context, data + HEAD_SIZE, &written, padded, (int)size), 1);
    EVP_CIPHER_CTX_free(context);
    HMAC(EVP_sha256(), key.signing, sizeof key.signing, data, HEAD_SIZE + size, data + HEAD_SIZE + size, NULL);
    char *token = encode(data, HEAD_SIZE + size + SIGNATURE_SIZE);
    free(data);
    return token;
}

static char *seal(const char *value, size_t size)
{
    size_t padding = BLOCK_SIZE - size % BLOCK_SIZE;
    unsigned char *padded = malloc(size + padding);
    assert_non_null(padded);
    memcpy(padded, value, size);
    memset(padded + size, (int)padding, padding);
    char *token = seal_padded(0x80, padded, size + padding);
    free(padded);
    return token;
}

static void assert_value_of(const struct qfc_fernet_key *with, const char *token, const char *value, size_t value_size)
{
    char *text;
    size_t size;
    struct qfc_error error = QFC_NO_ERROR;
    if (qfc_fernet_decrypt(with, token, &text, &size, &error) < 0)
        fail_msg("%s: %s", token, error.message);
    assert_int_equal(size, value_size);
    assert_memory_equal(text, value, size);
    assert_int_equal(text[size], 0);
    free(text);
}

/* It is INVALID, nothing is given out, and the message, which is returned, tells nothing of the token. */
static const char *assert_refused(const struct qfc_fernet_key *with, const char *token)
{
    static struct qfc_error error;
    char *text = (char *)"as it was";
    size_t size = 4711;
    error = QFC_NO_ERROR;
    if (qfc_fernet_decrypt(with, token, &text, &size, &error) != -1)
        fail_msg("this is no token: %s", token);
    assert_int_equal(error.kind, QFC_ERROR_INVALID);
    assert_string_equal(text, "as it was");
    assert_int_equal(size, 4711);
    if (strlen(token) >= 8)
        assert_null(strstr(error.message, token));
    assert_null(strstr(error.message, "s3cret"));
    assert_int_equal(ERR_peek_error(), 0);
    return error.message;
}

static void the_published_tokens_are_read(void **state)
{
    /* generate.json of https://github.com/fernet/spec, whose key begins with cw_0x689RpI. */
    static const struct qfc_fernet_key spec = {
        .signing = {0x73, 0x0f, 0xf4, 0xc7, 0xaf, 0x3d, 0x46, 0x92, 0x3e, 0x8e, 0xd4, 0x51, 0xee, 0x81, 0x3c, 0x87},
        .encryption = {0xf7, 0x90, 0xb0, 0xa2, 0x26, 0xbc, 0x96, 0xa9, 0x2d, 0xe4, 0x9b, 0x5e, 0x9c, 0x05, 0xe1, 0xee},
    };
    assert_value_of(&key, TOKEN, "s3cret", 6);
    assert_value_of(
        &spec,
        "gAAAAAAdwJ6wAAECAwQFBgcICQoLDA0ODy021cpGVWKZ_eEwCGM4BLLF_5CV9dOPmrhuVUPgJobwOz7JcbmrR64jVmpU4IwqDA==", "hello",
        5);
}

static void values_of_all_sizes_are_read(void **state)
{
    char *value = malloc(1024 * 1024);
    assert_non_null(value);
    for (size_t i = 0; i < 1024 * 1024; i++)
        value[i] = (char)(i * 7 + i / 251); /* NUL bytes and no UTF-8, too */
    for (size_t size = 0; size <= 1024 * 1024; size += size < 70 ? 1 : 1024 * 1024 - 70) {
        char *token = seal(value, size);
        assert_value_of(&key, token, value, size);
        free(token);
    }
    free(value);
}

static void another_key_reads_nothing(void **state)
{
    static const char *const keys[][2] = {
        {"change_mf", SALT_KEY}, {SECRET_KEY, "0123456789"}, {SALT_KEY, SECRET_KEY}, {"", ""}};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        struct qfc_fernet_key other;
        assert_int_equal(qfc_fernet_key(keys[i][0], keys[i][1], &other, NULL), 0);
        assert_non_null(strstr(assert_refused(&other, TOKEN), "SECRET_KEY"));
    }
}

static void each_part_of_the_key_counts(void **state)
{
    struct qfc_fernet_key other = key;
    other.signing[15] ^= 1;
    assert_non_null(strstr(assert_refused(&other, TOKEN), "not signed"));
    other = key;
    other.encryption[0] ^= 1;
    char *text;
    size_t size;
    if (qfc_fernet_decrypt(&other, TOKEN, &text, &size, NULL) == 0) { /* with luck its last byte looks like padding */
        assert_true(size != 6 || memcmp(text, "s3cret", 6) != 0);
        free(text);
    }
}

static void each_bit_counts(void **state)
{
    unsigned char *data = decode(TOKEN, TOKEN_SIZE);
    for (size_t bit = 0; bit < (size_t)TOKEN_SIZE * 8; bit++) {
        data[bit / 8] ^= (unsigned char)(1 << bit % 8);
        char *token = encode(data, TOKEN_SIZE);
        assert_refused(&key, token);
        free(token);
        data[bit / 8] ^= (unsigned char)(1 << bit % 8);
    }
    free(data);
}

/* Another letter of which the upper bits differ: the lower ones of the last letter say nothing. */
static char other_letter(char letter)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    const char *at = strchr(letters, letter);
    return at ? letters[(at - letters) ^ 32] : 'A';
}

static void each_letter_counts(void **state)
{
    for (size_t i = 0; i < strlen(TOKEN); i++) {
        char token[] = TOKEN;
        token[i] = other_letter(token[i]);
        if (i < strlen(TOKEN) - 1) /* the last sign of the padding is followed by nothing that it could end */
            assert_refused(&key, token);
        token[i] = '*';
        if (i < strlen(TOKEN) - 2)
            assert_refused(&key, token);
    }
}

static void a_truncated_token_is_refused(void **state)
{
    for (size_t size = 0; size < strlen(TOKEN) - 2; size++) {
        char token[] = TOKEN;
        token[size] = 0;
        assert_refused(&key, token);
    }
}

static void a_wrong_version_is_refused_though_rightly_signed(void **state)
{
    static const unsigned char padded[BLOCK_SIZE] = "123456789012345\1";
    for (unsigned version = 0; version < 256; version++) {
        char *token = seal_padded((unsigned char)version, padded, sizeof padded);
        if (version == 0x80)
            assert_value_of(&key, token, "123456789012345", 15);
        else
            assert_string_equal(assert_refused(&key, token), "not a Fernet token");
        free(token);
    }
}

static void content_of_no_whole_blocks_is_refused_though_rightly_signed(void **state)
{
    unsigned char *data = decode(TOKEN, TOKEN_SIZE);
    for (size_t size = 0; size < 2 * BLOCK_SIZE - 1; size++) {
        if (size == BLOCK_SIZE)
            continue;
        HMAC(EVP_sha256(), key.signing, sizeof key.signing, data, HEAD_SIZE + size, data + HEAD_SIZE + size, NULL);
        char *token = encode(data, HEAD_SIZE + size + SIGNATURE_SIZE);
        assert_string_equal(assert_refused(&key, token), "not a Fernet token");
        free(token);
    }
    free(data);
}

static void broken_padding_is_refused_though_rightly_signed(void **state)
{
    static const char *const broken[] = {"123456789012345\0", "123456789012345\x11", "12345678901234\1\2",
                                         "\x0f\x10\x10\x10\x10\x10\x10\x10\x10\x10\x10\x10\x10\x10\x10\x10",
                                         "123456789012345\xff"};
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        char *token = seal_padded(0x80, (const unsigned char *)broken[i], BLOCK_SIZE);
        assert_non_null(strstr(assert_refused(&key, token), "padding"));
        free(token);
    }
}

/* Replaces each `from` of a copy by `to`. */
static void assert_read_with(const char *prefix, const char *suffix, char from, char to)
{
    char token[300];
    snprintf(token, sizeof token, "%s%s%s", prefix, TOKEN, suffix);
    for (char *at = token; *at; at++)
        *at = *at == from ? to : *at;
    assert_value_of(&key, token, "s3cret", 6);
}

static void what_python_decodes_is_decoded(void **state)
{
    assert_read_with("", "", '_', '/'); /* the standard alphabet */
    assert_read_with("\n ", "\r\n", 0, 0);
    assert_read_with("\"", "\"", 0, 0);
    assert_read_with("=", "", 0, 0);
    assert_read_with("", "and more", 0, 0);
    assert_value_of(&key,
                    "g.A.A.A"
                    "AABlU_EAAAECAwQFBgcICQoLDA0ODzId1rXdK9cpsS59JLEhc7Al5M9XYMtt6FvqMctuwjMyRGm1LizA"
                    "l34T2K0ChbWMtA==",
                    "s3cret", 6);
}

static void padding_may_be_missing(void **state)
{
    char token[] = TOKEN;
    token[strlen(token) - 1] = 0;
    assert_value_of(&key, token, "s3cret", 6);
    token[strlen(token) - 1] = 0;
    assert_value_of(&key, token, "s3cret", 6);
}

static void what_is_no_base64_is_refused(void **state)
{
    static const char *const texts[] = {"",
                                        "=",
                                        "====",
                                        "g",
                                        "gA==",
                                        "gAAAAA",
                                        "hunter2",
                                        "\xff\xfe",
                                        "postgres://",
                                        "plain text, as someone has put it there, of more than a hundred letters, so "
                                        "that its length could be a token's"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        assert_string_equal(assert_refused(&key, texts[i]), "not a Fernet token");
    char token[sizeof TOKEN + 8] = TOKEN;
    memcpy(token + strlen(TOKEN) - 2, "AAA", 4); /* one letter too many */
    assert_refused(&key, token);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_published_tokens_are_read),
        cmocka_unit_test(values_of_all_sizes_are_read),
        cmocka_unit_test(another_key_reads_nothing),
        cmocka_unit_test(each_part_of_the_key_counts),
        cmocka_unit_test(each_bit_counts),
        cmocka_unit_test(each_letter_counts),
        cmocka_unit_test(a_truncated_token_is_refused),
        cmocka_unit_test(a_wrong_version_is_refused_though_rightly_signed),
        cmocka_unit_test(content_of_no_whole_blocks_is_refused_though_rightly_signed),
        cmocka_unit_test(broken_padding_is_refused_though_rightly_signed),
        cmocka_unit_test(what_python_decodes_is_decoded),
        cmocka_unit_test(padding_may_be_missing),
        cmocka_unit_test(what_is_no_base64_is_refused),
    };
    return cmocka_run_group_tests(tests, make_key, NULL);
}
