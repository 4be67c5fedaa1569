/*
 * Fernet over libcrypto: nothing is decrypted before its signature is known to be ours.
 *
 * A token is base64 (RFC 4648, section 5) of: version 0x80, time (8 bytes), IV (16 bytes), AES-128-CBC with PKCS7
 * padding, and the HMAC-SHA256 of all before it (32 bytes). The time is not looked at: secrets do not expire.
 */
#include "qfc/fernet.h"

#include <limits.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

/* Of django-fernet-encrypted-fields 0.3.0 and 0.4.0, which QFieldCloud uses. */
#define KEY_ROUNDS 100000

#define VERSION        0x80
#define IV_AT          9
#define CONTENT_AT     25
#define BLOCK_SIZE     16
#define SIGNATURE_SIZE 32

/* What libcrypto refused, which for these algorithms means that memory is out, or that it was set up without them. */
static int fail_libcrypto(const char *what, struct qfc_error *error)
{
    unsigned long code = ERR_peek_last_error();
    if (ERR_GET_REASON(code) == ERR_R_MALLOC_FAILURE)
        return qfc_fail_memory(error);
    const char *reason = ERR_reason_error_string(code);
    return qfc_fail(error, QFC_ERROR_BUG, 0, "libcrypto cannot do %s: %s", what, reason ? reason : "no reason given");
}

int qfc_fernet_key(const char *secret_key, const char *salt_key, struct qfc_fernet_key *ret_key,
                   struct qfc_error *error)
{
    size_t secret_size = strlen(secret_key), salt_size = strlen(salt_key);
    unsigned char derived[sizeof ret_key->signing + sizeof ret_key->encryption];
    int r = secret_size > INT_MAX || salt_size > INT_MAX
                ? qfc_fail(error, QFC_ERROR_BUG, 0, "a key of more than %d bytes", INT_MAX)
                : 0;
    if (r == 0 && PKCS5_PBKDF2_HMAC(secret_key, (int)secret_size, (const unsigned char *)salt_key, (int)salt_size,
                                    KEY_ROUNDS, EVP_sha256(), sizeof derived, derived) != 1)
        r = fail_libcrypto("PBKDF2", error);
    if (r == 0) {
        memcpy(ret_key->signing, derived, sizeof ret_key->signing);
        memcpy(ret_key->encryption, derived + sizeof ret_key->signing, sizeof ret_key->encryption);
    }
    OPENSSL_cleanse(derived, sizeof derived);
    ERR_clear_error();
    return r;
}

static int six_bits(char letter)
{
    if (letter >= 'A' && letter <= 'Z')
        return letter - 'A';
    if (letter >= 'a' && letter <= 'z')
        return letter - 'a' + 26;
    if (letter >= '0' && letter <= '9')
        return letter - '0' + 52;
    if (letter == '-' || letter == '+')
        return 62;
    return letter == '_' || letter == '/' ? 63 : -1;
}

/*
 * Decodes as Python's base64.urlsafe_b64decode (CPython 3.11, Modules/binascii.c), so that whatever the web application
 * can read, we can: letters of both alphabets count, all others are passed over, full padding ends it. But missing
 * padding is no error here: the signature tells whether something is missing. `out` has room for 3 bytes per 4 letters
 * and 3 more. Returns the number of bytes, or -1 for a letter too many.
 */
static ssize_t decode(const char *text, unsigned char *out)
{
    unsigned bits = 0, letters = 0, padding = 0;
    size_t size = 0;
    for (; *text; text++) {
        int value = six_bits(*text);
        if (*text == '=' && letters >= 2 && letters + ++padding >= 4)
            break;
        if (value < 0)
            continue;
        padding = 0;
        bits = bits << 6 | (unsigned)value;
        if (letters > 0)
            out[size++] = (unsigned char)(bits >> (6 - 2 * letters));
        letters = (letters + 1) % 4;
    }
    return letters == 1 ? -1 : (ssize_t)size;
}

/* Is it a token, and signed with our key? How long the comparison takes tells nothing of the signature. */
static int verify(const struct qfc_fernet_key *key, const unsigned char *data, size_t size, struct qfc_error *error)
{
    if (size < CONTENT_AT + BLOCK_SIZE + SIGNATURE_SIZE || data[0] != VERSION ||
        (size - CONTENT_AT - SIGNATURE_SIZE) % BLOCK_SIZE != 0 || size > INT_MAX)
        return qfc_fail(error, QFC_ERROR_INVALID, 0, "not a Fernet token");
    const unsigned char *given = data + size - SIGNATURE_SIZE;
    unsigned char signature[SIGNATURE_SIZE];
    if (!HMAC(EVP_sha256(), key->signing, sizeof key->signing, data, size - SIGNATURE_SIZE, signature, NULL))
        return fail_libcrypto("HMAC-SHA256", error);
    bool equal = CRYPTO_memcmp(signature, given, SIGNATURE_SIZE) == 0;
    OPENSSL_cleanse(signature, sizeof signature);
    return equal ? 0 : qfc_fail(error, QFC_ERROR_INVALID, 0, "not signed with the key of this SECRET_KEY and SALT_KEY");
}

/* Decrypts into `out`, which has room for a block more. */
static int decrypt_into(EVP_CIPHER_CTX *context, const struct qfc_fernet_key *key, const unsigned char *data,
                        size_t size, unsigned char *out, size_t *ret_size, struct qfc_error *error)
{
    int most, rest;
    if (EVP_DecryptInit_ex2(context, EVP_aes_128_cbc(), key->encryption, data + IV_AT, NULL) != 1 ||
        EVP_DecryptUpdate(context, out, &most, data + CONTENT_AT, (int)(size - CONTENT_AT - SIGNATURE_SIZE)) != 1)
        return fail_libcrypto("AES-128-CBC", error);
    if (EVP_DecryptFinal_ex(context, out + most, &rest) != 1)
        return qfc_fail(error, QFC_ERROR_INVALID, 0, "signed with the right key, but its padding is broken");
    *ret_size = (size_t)most + (size_t)rest;
    return 0;
}

static int decrypt(const struct qfc_fernet_key *key, const unsigned char *data, size_t size, char **ret_text,
                   size_t *ret_size, struct qfc_error *error)
{
    size_t room = size - CONTENT_AT - SIGNATURE_SIZE + BLOCK_SIZE, used = 0;
    unsigned char *text = malloc(room);
    if (!text)
        return qfc_fail_memory(error);
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    int r = context ? decrypt_into(context, key, data, size, text, &used, error) : qfc_fail_memory(error);
    EVP_CIPHER_CTX_free(context); /* wipes it */
    /* Of a failure all, else what lies behind the text; its zero byte comes of it, too. */
    OPENSSL_cleanse(text + used, room - used);
    if (r < 0) {
        free(text);
        return -1;
    }
    *ret_text = (char *)text;
    *ret_size = used;
    return 0;
}

int qfc_fernet_decrypt(const struct qfc_fernet_key *key, const char *token, char **ret_text, size_t *ret_size,
                       struct qfc_error *error)
{
    unsigned char *data = malloc(strlen(token) / 4 * 3 + 3);
    if (!data)
        return qfc_fail_memory(error);
    ssize_t size = decode(token, data);
    int r = verify(key, data, size < 0 ? 0 : (size_t)size, error);
    if (r == 0)
        r = decrypt(key, data, (size_t)size, ret_text, ret_size, error);
    free(data);
    ERR_clear_error(); /* the thread's queue of errors is also TLS's, which would take ours for its own */
    return r;
}
