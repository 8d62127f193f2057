"""Keys of objects: made at random, wrapped by a master key, and what is derived from them.

Every object (and every upload, whose parts become one) has a random key.  It is stored wrapped: AES-256-GCM under a key
derived by HMAC-SHA256 from the master key and a fresh salt, so that no number of objects wears a master key out.
Authenticated with it are the method, the master key's name, the bucket's id, the object's key and the encryption
context: a wrapped key that is put into another object's record does not open there.

From an object's key come the key of each extent (by what names its shards, and the part's number), the ETag of what
must not show a digest of its content, and the *ties* of a multipart object: an authentication of which parts it has, in
which order.  The key of the ties alone is kept in the clear while an upload is open, because completing it needs no
customer key; it goes with the upload.  Pure: random bytes come in as arguments.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from typing import NamedTuple

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from holdfast_server.sealing.chunks import SealBroken

SSE_S3 = "AES256"
SSE_KMS = "aws:kms"
SSE_C = "SSE-C"

KEY_SIZE_BYTES = 32
SALT_SIZE_BYTES = 32
RANDOM_SIZE_BYTES = KEY_SIZE_BYTES + SALT_SIZE_BYTES
"""What `new_seal` takes."""
_NONCE = bytes(12)
"""Of a key that wraps once."""
_WRAP = b"holdfast object key v1\0"
_EXTENT = b"holdfast extent v1\0"
_ETAG = b"holdfast etag v1\0"
_TIES = b"holdfast parts v1\0"
_ETAG_SIZE_BYTES = 16


class Sealing(msgspec.Struct, frozen=True, array_like=True):
    """What a record says of how its object is encrypted.  Fields are only ever appended."""

    method: str
    """SSE_S3, SSE_KMS or SSE_C."""
    master: str = ""
    """The entry of the key ring that wrapped it; empty with a customer's key."""
    salt: bytes = b""
    wrapped: bytes = b""
    context: str = ""
    """Of SSE-KMS: the encryption context as it was given, base64."""
    named: str = ""
    """Of SSE-KMS: the key as the client named it."""
    bucket_key: bool = False
    """Of SSE-KMS: as asked; it changes nothing here."""
    ties: bytes = b""
    """Of an object made of parts: which, see `tie_parts`."""


class Seal(NamedTuple):
    """What a write is sealed with."""

    sealing: Sealing
    key: bytes
    """The object's."""

    def __repr__(self) -> str:
        return f"Seal({self.sealing.method}, …)"

    def etag(self, digest_hex: str) -> str:
        """The ETag of bytes with that digest: itself only where S3 says so."""
        if self.sealing.method == SSE_S3:
            return digest_hex
        return hmac.digest(self.key, _ETAG + digest_hex.encode(), hashlib.sha256)[:_ETAG_SIZE_BYTES].hex()


def new_seal(sealing: Sealing, master_key: bytes, bucket_id: bytes, key: str, random_bytes: bytes) -> Seal:
    """A new key for the object `key`, wrapped.  `sealing` says everything but salt and wrapped key."""
    assert len(random_bytes) == RANDOM_SIZE_BYTES
    object_key, salt = random_bytes[:KEY_SIZE_BYTES], random_bytes[KEY_SIZE_BYTES:]
    wrapped = _wrapping(master_key, salt).encrypt(_NONCE, object_key, _identity(sealing, bucket_id, key))
    return Seal(msgspec.structs.replace(sealing, salt=salt, wrapped=wrapped), object_key)


def open_seal(sealing: Sealing, master_key: bytes, bucket_id: bytes, key: str) -> Seal:
    """Raises SealBroken where the master key is another, or the wrapped key that of another object."""
    try:
        cipher = _wrapping(master_key, sealing.salt)
        object_key = cipher.decrypt(_NONCE, sealing.wrapped, _identity(sealing, bucket_id, key))
    except (InvalidTag, ValueError) as error:
        raise SealBroken("the object's key does not open") from error
    return Seal(sealing, object_key)


def _wrapping(master_key: bytes, salt: bytes) -> AESGCM:
    return AESGCM(hmac.digest(master_key, _WRAP + salt, hashlib.sha256))


def _identity(sealing: Sealing, bucket_id: bytes, key: str) -> bytes:
    parts = (sealing.method.encode(), sealing.master.encode(), bucket_id, key.encode(), sealing.context.encode())
    return b"".join([len(part).to_bytes(4, "big") + part for part in parts])


def extent_key(object_key: bytes, data_id: bytes, part_number: int = 0) -> bytes:
    """The key of one extent; a part is never written twice under the same `data_id`."""
    message = _EXTENT + part_number.to_bytes(4, "big") + data_id
    return hmac.digest(object_key, message, hashlib.sha256)


def ties_key(object_key: bytes) -> bytes:
    """What authenticates which parts an object has, and opens nothing."""
    return hmac.digest(object_key, _TIES, hashlib.sha256)


def tie_parts(key: bytes, parts: Iterable[tuple[int, int, bytes]]) -> bytes:
    """Over (number, sealed size, data id) of each, in order; `key` is that of the ties."""
    tie = hmac.new(key, digestmod=hashlib.sha256)
    for number, size_bytes, data_id in parts:
        tie.update(number.to_bytes(4, "big") + size_bytes.to_bytes(8, "big"))
        tie.update(len(data_id).to_bytes(1, "big") + data_id)
    return tie.digest()


def check_ties(seal: Seal, parts: Iterable[tuple[int, int, bytes]]) -> None:
    """Raises SealBroken where an object made of parts is not made of these."""
    if not hmac.compare_digest(tie_parts(ties_key(seal.key), parts), seal.sealing.ties):
        raise SealBroken("the object is not made of the parts it was completed with")
