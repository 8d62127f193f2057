"""The bytes of a shard file: blocks, then their hashes, then a footer.  Pure.

    block 0 | block 1 | … | hash 0 | hash 1 | … | footer

All blocks but the last have the same size.  A hash is the xxh3-128 of its block, as the coordinator gave it.
The footer has a fixed size, so that it is found from the file's end, and carries the data id, so that a
file's content under another file's name is noticed.  A file without a valid footer was never sealed.  A hash
that rotted shows as a block that does not match, so the hashes need no checksum of their own.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import xxhash

from holdfast_server.drives.port import HASH_SIZE_BYTES

MAGIC = b"HfS\x01"
_FIELDS = struct.Struct(">4s16sIIQ")
FOOTER_SIZE_BYTES = _FIELDS.size + 16


class NotSealed(ValueError):
    """No valid footer for this data id."""


@dataclass(frozen=True, slots=True)
class ShardShape:
    """The facts of the footer."""

    block_size_bytes: int
    block_count: int
    size_bytes: int
    """All blocks together."""

    @property
    def file_size_bytes(self) -> int:
        return self.size_bytes + self.block_count * HASH_SIZE_BYTES + FOOTER_SIZE_BYTES

    def block_range(self, index: int) -> tuple[int, int]:
        """Where a block starts, and its size."""
        start = index * self.block_size_bytes
        return start, min(self.block_size_bytes, self.size_bytes - start)

    def hash_offset(self, index: int) -> int:
        return self.size_bytes + index * HASH_SIZE_BYTES


def encode_footer(data_id: bytes, shape: ShardShape) -> bytes:
    fields = _FIELDS.pack(MAGIC, data_id, shape.block_size_bytes, shape.block_count, shape.size_bytes)
    return fields + xxhash.xxh3_128_digest(fields)


def decode_footer(data_id: bytes, footer: bytes, file_size_bytes: int) -> ShardShape:
    """Raises NotSealed, saying what is wrong."""
    if len(footer) == FOOTER_SIZE_BYTES and footer[: len(MAGIC)] != MAGIC and footer[: len(MAGIC) - 1] == MAGIC[:-1]:
        raise NotSealed(f"its footer has version {footer[len(MAGIC) - 1]}, this server reads {MAGIC[-1]}")
    if len(footer) != FOOTER_SIZE_BYTES or footer[: len(MAGIC)] != MAGIC:
        raise NotSealed("it has no footer")
    fields = footer[: _FIELDS.size]
    if xxhash.xxh3_128_digest(fields) != footer[_FIELDS.size :]:
        raise NotSealed("the footer's checksum does not match")
    _, found, block_size, block_count, size = _FIELDS.unpack(fields)
    if found != data_id:
        raise NotSealed(f"it is shard {found.hex()}")
    shape = ShardShape(block_size, block_count, size)
    if shape.file_size_bytes != file_size_bytes:
        raise NotSealed(f"it has {file_size_bytes} bytes, its footer says {shape.file_size_bytes}")
    return shape
