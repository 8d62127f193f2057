"""A witness of how far the table had got, outside of it.

RocksDB takes a log or MANIFEST whose end is missing for one that a crash left, and opens with everything behind
silently gone: rows that were flushed and acknowledged.  No checksum can tell, because nothing that is left is
wrong.  So the number of the last durable change is written beside the table, once a second and at the end, and a
table that comes back with a smaller one is damaged.

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
_LAYOUT = struct.Struct(">4sQ8s")


def write_witness(folder: Path, reached: int) -> None:
    """In place.  Raises OSError."""
    number = struct.pack(">Q", reached)
    data = _LAYOUT.pack(_MAGIC, reached, xxhash.xxh3_64_digest(number))
    descriptor = os.open(folder / WITNESS_FILE, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.pwrite(descriptor, data, 0)
    finally:
        os.close(descriptor)


def read_witness(folder: Path) -> int:
    """0 where there is none that can be believed.  Raises OSError."""
    try:
        data = (folder / WITNESS_FILE).read_bytes()
    except FileNotFoundError:
        return 0
    if len(data) != _LAYOUT.size:
        return 0
    magic, reached, digest = _LAYOUT.unpack(data)
    if magic != _MAGIC or digest != xxhash.xxh3_64_digest(struct.pack(">Q", reached)):
        return 0
    return int(reached)
