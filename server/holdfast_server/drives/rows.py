"""The row of one register: what it holds, as bytes.  Pure.

Layout: three bytes magic, one byte format version, eight bytes xxh3-64 of the rest, msgpack of
`RegisterRow` as an array.  Fields are only ever appended, with defaults.  The mark is not in it: a note
would rewrite the records to raise eight bytes; it has a row of its own beside this one.

An inline shard above `INLINE_IN_ROW_BYTES` rests in a row of its own as well (`keys.INLINE`), with its own
checksum, so that a listing does not carry shards past every key and an overwrite does not write the old
version's shard again.
"""

from __future__ import annotations

import msgspec
import xxhash

from holdfast_server.drives.port import Held

MAGIC = b"HfD\x01"
INLINE_MAGIC = b"HfI\x01"
SETTLED_MAGIC = b"HfT\x01"
_MAGIC_SIZE_BYTES = len(MAGIC)
_HEADER_SIZE_BYTES = _MAGIC_SIZE_BYTES + 8

INLINE_IN_ROW_BYTES = 1024
"""A 4 KiB object over four data shards stays within: one look-up reads it whole."""


class RowCorrupt(ValueError):
    """The bytes are not a row, or their checksum does not match."""


class StoredRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One record in a row; as `port.Held`, apart from where the inline shard is."""

    stamp: int
    tombstone: bool
    record: bytes
    shard_index: int
    inline: bytes | None
    data_ids: tuple[bytes, ...] = ()
    inline_apart: bool = False
    """The inline shard is in its own row; `inline` is None."""

    def held(self, inline: bytes | None = None) -> Held:
        return Held(self.stamp, self.tombstone, self.record, self.shard_index, inline, self.data_ids)


class RegisterRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    fence: int
    records: tuple[StoredRecord, ...]
    """Newest first."""


class SettledRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A register of which nothing is held but a marked tombstone."""

    record: StoredRecord
    fence: int
    process: bytes
    """Who wrote this row: `since_ms` says something only to the same process."""
    since_ms: int
    """By that process's monotonic clock."""


EMPTY = RegisterRow(0, ())

_encoder = msgspec.msgpack.Encoder()
_decode = msgspec.msgpack.Decoder(RegisterRow).decode
_digest = xxhash.xxh3_64_digest
_settled_decoder = msgspec.msgpack.Decoder(SettledRow)


def stored(held: Held) -> StoredRecord:
    apart = held.inline is not None and len(held.inline) > INLINE_IN_ROW_BYTES
    inline = None if apart else held.inline
    return StoredRecord(held.stamp, held.tombstone, held.record, held.shard_index, inline, held.data_ids, apart)


def encode(row: RegisterRow) -> bytes:
    body = _encoder.encode(row)
    return b"".join((MAGIC, xxhash.xxh3_64_digest(body), body))


def decode(data: bytes | None) -> RegisterRow:
    """No row is an empty one.  Raises RowCorrupt."""
    if data is None:
        return EMPTY
    # Cut out, not viewed: for rows as short as nearly all are that is the cheaper, and listings read thousands.
    body = data[_HEADER_SIZE_BYTES:]
    if _digest(body) != data[_MAGIC_SIZE_BYTES:_HEADER_SIZE_BYTES] or not data.startswith(MAGIC):
        _checked(data, MAGIC)
    try:
        return _decode(body)
    except msgspec.MsgspecError as error:
        raise RowCorrupt(str(error)) from error


def encode_settled(row: SettledRow) -> bytes:
    body = _encoder.encode(row)
    return b"".join((SETTLED_MAGIC, xxhash.xxh3_64_digest(body), body))


def decode_settled(data: bytes) -> SettledRow:
    """Raises RowCorrupt."""
    try:
        return _settled_decoder.decode(_checked(data, SETTLED_MAGIC))
    except msgspec.MsgspecError as error:
        raise RowCorrupt(str(error)) from error


def encode_inline(shard: bytes) -> bytes:
    return b"".join((INLINE_MAGIC, xxhash.xxh3_64_digest(shard), shard))


def decode_inline(data: bytes) -> bytes:
    return _checked(data, INLINE_MAGIC)


def _checked(data: bytes, magic: bytes) -> bytes:
    body = data[_HEADER_SIZE_BYTES:]
    if data.startswith(magic) and _digest(body) == data[len(magic) : _HEADER_SIZE_BYTES]:
        return body
    if len(data) >= len(magic) and data[: len(magic) - 1] == magic[:-1] and data[: len(magic)] != magic:
        raise RowCorrupt(f"format version {data[len(magic) - 1]}, this server reads {magic[-1]}")
    if not data.startswith(magic):
        raise RowCorrupt(f"starts with {data[:4].hex()}, not with {magic.hex()}")
    raise RowCorrupt("checksum does not match")
