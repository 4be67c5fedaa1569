"""Secrets as QFieldCloud encrypts them: Fernet with a key made of SECRET_KEY and SALT_KEY."""

import base64
import hashlib

from cryptography.fernet import Fernet


def fernet_of(secret_key, salt_key):
    key = hashlib.pbkdf2_hmac("sha256", secret_key.encode(), salt_key.encode(), 100_000, 32)
    return Fernet(base64.urlsafe_b64encode(key))
