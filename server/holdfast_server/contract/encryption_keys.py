"""The key ring of a tenant: a folder of keys that objects are encrypted under, one file each.

Of a tenant it is a Secret, mounted; of a pod by hand a folder that somebody keeps.  A file's name is the name of a key,
or `<name>.<generation>`: writes take a key's highest generation, what earlier ones encrypted stays readable for as long
as they are there.  The key `default` is that of SSE-S3 and of SSE-KMS without a key's name; every other can be named in
SSE-KMS.  A file holds 32 bytes, as they are or in base64 or hexadecimal digits.

A key's *fingerprint* tells whether two pods have the same key under the same name, and nothing else of it.
Pure.  Not here: reading files (`pod.key_ring`), what is done with keys (`sealing`).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping
from typing import NamedTuple

DEFAULT_KEY = "default"
KEY_SIZE_BYTES = 32
MAX_KEYS = 100
MAX_KEY_FILE_SIZE_BYTES = 256
FINGERPRINT_SIZE_BYTES = 8

KEY_NAME_PATTERN = "[A-Za-z0-9][A-Za-z0-9_-]{0,62}"
_ENTRY = re.compile(rf"({KEY_NAME_PATTERN})(?:\.([1-9][0-9]{{0,5}}))?")
_FINGERPRINT = b"holdfast encryption key fingerprint v1\0"


class EncryptionKeyError(ValueError):
    """An entry that cannot be used; the message shows nothing of the key."""


class Entry(NamedTuple):
    """Which key, and which of its generations; 0 where its name has none."""

    name: str
    generation: int


def parse_entry(text: str) -> Entry:
    """Raises EncryptionKeyError."""
    match = _ENTRY.fullmatch(text)
    if match is None:
        raise EncryptionKeyError(
            f"{text[:80]!r} is no name of a key: letters, digits, '-', '_', then '.' and a generation, as in default.1"
        )
    return Entry(match[1], int(match[2] or 0))


def decode_key(data: bytes) -> bytes:
    """Thirty-two bytes.  Raises EncryptionKeyError."""
    if len(data) == KEY_SIZE_BYTES:
        return data
    text = data.strip()
    try:
        key = bytes.fromhex(text.decode()) if len(text) == 2 * KEY_SIZE_BYTES else base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        key = b""
    if len(key) != KEY_SIZE_BYTES:
        raise EncryptionKeyError(f"is not {KEY_SIZE_BYTES} bytes, as they are or in base64 or hexadecimal digits")
    return key


def decode_ring(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The keys by the names of their files.  Raises EncryptionKeyError with every fault, one per line."""
    faults, keys = [], {}
    for name in sorted(files):
        try:
            parse_entry(name)
        except EncryptionKeyError as error:
            faults.append(str(error))
            continue
        try:
            keys[name] = decode_key(files[name])
        except EncryptionKeyError as error:
            faults.append(f"the key {name!r} {error}")
    if len(files) > MAX_KEYS:
        faults.append(f"{len(files)} keys; at most {MAX_KEYS}")
    if faults:
        raise EncryptionKeyError("\n".join(faults))
    return keys


def fingerprint(entry: str, key: bytes) -> bytes:
    """Eight bytes that are the same for the same key under the same name."""
    return hmac.digest(key, _FINGERPRINT + entry.encode(), hashlib.sha256)[:FINGERPRINT_SIZE_BYTES]
