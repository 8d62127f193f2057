"""How the bytes of one extent are sealed: AES-256-GCM over chunks of a fixed size.

An *extent* (a whole object, or one part of one) has a key of its own (`envelope.extent_key`), which never seals
anything else; so the nonce of a chunk can be its index, and with it comes whether it is the last one.  A chunk that is
moved to another place, left out, or taken from another extent does not open, and neither does what comes to stand last
when the end was cut off.

A sealed chunk is 64 KiB, its tag included; sixteen of them are one stripe of 1 MiB, so that a stripe is opened without
any other, and sealed extents are cut, coded, healed and measured like all others.  A range is read by opening the
chunks it touches.  Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from holdfast_server.memory.views import sliced

TAG_SIZE_BYTES = 16
CHUNK_SIZE_BYTES = 64 * 1024
"""Of a sealed chunk."""
PAYLOAD_SIZE_BYTES = CHUNK_SIZE_BYTES - TAG_SIZE_BYTES
"""What it holds."""
_INDEX_SIZE_BYTES = 8
_MORE = b"\0\0\0\0"
_LAST = b"\0\0\0\1"


class SealBroken(ValueError):
    """What was stored is not what was sealed: changed, cut off, or put in the place of something else; or the key is
    another."""


def sealed_size(size_bytes: int) -> int:
    """Of so many bytes once they are sealed."""
    return size_bytes + TAG_SIZE_BYTES * -(-size_bytes // PAYLOAD_SIZE_BYTES)


def plain_size(sealed_size_bytes: int) -> int:
    """What so many sealed bytes hold."""
    return sealed_size_bytes - TAG_SIZE_BYTES * -(-sealed_size_bytes // CHUNK_SIZE_BYTES)


def stripe_payload(stripe_size_bytes: int) -> int:
    """What a stripe of that size holds."""
    return stripe_size_bytes // CHUNK_SIZE_BYTES * PAYLOAD_SIZE_BYTES


def _nonce(index: int, last: bool) -> bytes:
    return index.to_bytes(_INDEX_SIZE_BYTES, "big") + (_LAST if last else _MORE)


class ChunkSealer:
    """Seals one extent, front to back, stripe by stripe.  Not for two threads at a time."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self._index = 0

    def seal(self, stripe: bytes, last: bool) -> bytes:
        """The next bytes: whole chunks but for the last time, which `last` says it is.  Empty stays empty."""
        assert last or len(stripe) % PAYLOAD_SIZE_BYTES == 0
        view = memoryview(stripe)
        sealed = []
        for start in range(0, len(stripe), PAYLOAD_SIZE_BYTES):
            end = start + PAYLOAD_SIZE_BYTES
            nonce = _nonce(self._index, last and end >= len(stripe))
            sealed.append(self._cipher.encrypt(nonce, view[start:end], None))
            self._index += 1
        return b"".join(sealed)


class ChunkOpener:
    """Opens chunks of one extent; several threads may."""

    def __init__(self, key: bytes, sealed_size_bytes: int) -> None:
        """`sealed_size_bytes` is the extent's, which says which chunk is the last."""
        self._cipher = AESGCM(key)
        self._last = -(-sealed_size_bytes // CHUNK_SIZE_BYTES) - 1

    def open(self, stripe: Sequence[memoryview], first: int, skip: int, take: int) -> list[memoryview]:
        """`take` bytes after `skip` of what a stripe holds, given as consecutive views; its first chunk has the index
        `first`.  Raises SealBroken."""
        low, high = skip // PAYLOAD_SIZE_BYTES, -(-(skip + take) // PAYLOAD_SIZE_BYTES)
        opened = []
        for number in range(low, high):
            sealed = sliced(stripe, number * CHUNK_SIZE_BYTES, CHUNK_SIZE_BYTES)
            plain = memoryview(self._open(first + number, sealed[0] if len(sealed) == 1 else b"".join(sealed)))
            start = number * PAYLOAD_SIZE_BYTES
            opened.append(plain[max(skip - start, 0) : skip + take - start])
        if sum(map(len, opened)) != take:
            raise SealBroken("a chunk is shorter than it should be")
        return opened

    def _open(self, index: int, sealed: bytes | memoryview) -> bytes:
        try:
            return self._cipher.decrypt(_nonce(index, index == self._last), sealed, None)
        except (InvalidTag, ValueError) as error:
            raise SealBroken(f"chunk {index} does not open") from error
