"""A witness of how far the table had got, outside of it.

RocksDB takes a log or MANIFEST whose end is missing for one that a crash left, and opens with everything behind
silently gone: rows that were flushed and acknowledged.  No checksum can tell, because nothing that is left is
wrong.  So the number of the last durable change is written beside the table, once a second and at the end, and a
table that comes back with a smaller one is damaged.

It carries the drive's id: what lies in another drive's folder proves nothing.

The file is never ahead of the table: only numbers whose flush has returned are written, after it.  It is not
synced itself: an older one, or none, or a torn one merely proves less.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

import xxhash

WITNESS_FILE = "holdfast.reached"
_MAGIC = b"HfR\x01"
_FACTS = struct.Struct(">4s16sQ")
_DIGEST_SIZE_BYTES = 8


def write_witness(folder: Path, drive_id: bytes, reached: int) -> None:
    """In place.  Raises OSError."""
    facts = _FACTS.pack(_MAGIC, drive_id, reached)
    data = facts + xxhash.xxh3_64_digest(facts)
    descriptor = os.open(folder / WITNESS_FILE, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.pwrite(descriptor, data, 0)
    finally:
        os.close(descriptor)


def read_witness(folder: Path, drive_id: bytes) -> int:
    """0 where there is none of this drive that can be believed.  Raises OSError."""
    try:
        data = (folder / WITNESS_FILE).read_bytes()
    except FileNotFoundError:
        return 0
    facts, digest = data[:-_DIGEST_SIZE_BYTES], data[-_DIGEST_SIZE_BYTES:]
    if len(facts) != _FACTS.size or digest != xxhash.xxh3_64_digest(facts):
        return 0
    magic, whose, reached = _FACTS.unpack(facts)
    return int(reached) if (magic, whose) == (_MAGIC, drive_id) else 0
