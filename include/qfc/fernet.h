/*
 * Fernet tokens, as QFieldCloud keeps the values of its secrets: https://github.com/fernet/spec (Spec.md), with a key
 * made of the web application's SECRET_KEY and SALT_KEY.
 */
#pragma once

#include "qfc/error.h"

#include <stddef.h>

/* A secret: wipe it with explicit_bzero when it is no longer needed. */
struct qfc_fernet_key {
    unsigned char signing[16];
    unsigned char encryption[16];
};

/*
 * Makes the key, which takes some hundredths of a second: 100,000 rounds of PBKDF2. Returns 0 or -1 (QFC_ERROR_MEMORY;
 * QFC_ERROR_BUG: libcrypto cannot do it).
 */
int qfc_fernet_key(const char *secret_key, const char *salt_key, struct qfc_fernet_key *ret_key,
                   struct qfc_error *error);

/*
 * Decrypts a token of any age. `ret_text` gets its content: `ret_size` bytes of whatever was encrypted, and a zero byte
 * behind. The caller wipes it with explicit_bzero and frees it with free(). Returns 0 or -1: QFC_ERROR_INVALID for
 * what is no token, or none of this key (the message holds nothing of it), QFC_ERROR_MEMORY, QFC_ERROR_BUG (as above).
 */
int qfc_fernet_decrypt(const struct qfc_fernet_key *key, const char *token, char **ret_text, size_t *ret_size,
                       struct qfc_error *error);
