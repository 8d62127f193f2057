"""How registers and the drive's own facts become keys of its one ordered table.  Pure.

Every key starts with a letter that says what the row is (below).  A register's *row key* keeps the order the
port promises, (space, key as UTF-8, version), under plain comparison of bytes:

    length of space (1) | space | escaped key | 00 00 | escaped version | 00 00

Escaping turns each NUL into 00 FF, so the terminator 00 00 sorts below every continuation and no register's
row key is a prefix of another's.  A register's record row and mark row differ in their last byte and are
neighbours, so one walk meets both.  `docs/on-disk.md` lists all kinds of row.
"""

from __future__ import annotations

import xxhash

from holdfast_server.drives.port import WATERMARK_RANGES, Register

REGISTER = b"r"
"""row key + RECORDS → the register's records; row key + MARK → its mark."""
INLINE = b"i"
"""row key + stamp (8) → an inline shard too large to rest in the register's row."""
REFERENCE = b"f"
"""data id (16) + row key → empty: that register's records name the shard file."""
TRASH = b"t"
"""sequence (8) → data id: perhaps no record names it any more."""
REPAIR = b"q"
"""sequence (8) → row key of a register that some drive missed."""
REPAIR_OF = b"n"
"""row key → its sequence in the repair queue."""
SWEEP = b"c"
"""row key of an upload → empty: its parts are being dropped."""
DAMAGED = b"u"
"""row key → greatest stamp (8) that may have been there: the register's rows failed their checksum."""
WATERMARK = b"w"
"""range (1) → watermark (8)."""
META = b"x"
"""name → whatever the drive keeps of itself."""

SETTLED = b"d"
"""row key → a register's only record, a marked tombstone.  Such a register has no rows under REGISTER."""

RECORDS = b"\x01"
MARK = b"\x02"

_TERMINATOR = b"\x00\x00"
_ESCAPED_NUL = b"\x00\xff"
_NO_VERSION = _TERMINATOR + _TERMINATOR


class KeyCorrupt(ValueError):
    """The bytes are not a row key."""


def escape(text: bytes) -> bytes:
    return text.replace(b"\x00", _ESCAPED_NUL) if b"\x00" in text else text


def row_key(register: Register) -> bytes:
    """The register's place in the table, without letter and without suffix."""
    return b"".join(
        (
            bytes((len(register.space),)),
            register.space,
            escape(register.key.encode()),
            _TERMINATOR,
            escape(register.version),
            _TERMINATOR,
        )
    )


def decode_row_key(row: bytes) -> Register:
    """The reverse of `row_key`; raises KeyCorrupt."""
    try:
        end_of_space = 1 + row[0]
        if row.find(0, end_of_space) == len(row) - 4 and row.endswith(_NO_VERSION):
            # No NUL in it and no version: nearly all that a listing meets.
            return Register(row[1:end_of_space], row[end_of_space:-4].decode())
        end_of_key = _find_terminator(row, end_of_space)
        end_of_version = _find_terminator(row, end_of_key + 2)
        if end_of_version + 2 != len(row):
            raise KeyCorrupt(f"bytes after the end of row key {row.hex()}")
        key = row[end_of_space:end_of_key].replace(_ESCAPED_NUL, b"\x00").decode()
        version = row[end_of_key + 2 : end_of_version].replace(_ESCAPED_NUL, b"\x00")
        return Register(row[1:end_of_space], key, version)
    except (IndexError, UnicodeDecodeError) as error:
        raise KeyCorrupt(f"{row.hex()} is not a row key") from error


def _find_terminator(row: bytes, start: int) -> int:
    # An escaped NUL is 00 FF, so the first 00 that is not followed by FF ends the component.
    at = row.find(b"\x00", start)
    while at >= 0 and row[at + 1] == 0xFF:
        at = row.find(b"\x00", at + 2)
    if at < 0 or row[at + 1] != 0:
        raise KeyCorrupt(f"{row.hex()} is not a row key")
    return at


def space_start(space: bytes) -> bytes:
    """What every row key of a space starts with."""
    return bytes((len(space),)) + space


def seek_key(space: bytes, start: bytes, version: bytes = b"") -> bytes:
    """At or before the first row key of `space` whose key is at or above `start`, and after all others.

    With a version, `start` is a whole key and its versions below `version` are left out too.
    """
    place = space_start(space) + escape(start)
    return place + _TERMINATOR + escape(version) if version else place


def successor(prefix: bytes) -> bytes | None:
    """The smallest string above everything that starts with `prefix`; None if there is none."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes((stripped[-1] + 1,)) if stripped else None


def records_key(row: bytes) -> bytes:
    return REGISTER + row + RECORDS


def mark_key(row: bytes) -> bytes:
    return REGISTER + row + MARK


def settled_key(row: bytes) -> bytes:
    return SETTLED + row


def inline_key(row: bytes, stamp: int) -> bytes:
    return INLINE + row + number(stamp)


def reference_key(data_id: bytes, row: bytes) -> bytes:
    return REFERENCE + data_id + row


def watermark_range(row: bytes) -> int:
    """Which of the watermarks is a register's; frozen, because the watermarks are kept by it."""
    return xxhash.xxh3_64_intdigest(row) % WATERMARK_RANGES


def watermark_key(index: int) -> bytes:
    return WATERMARK + bytes((index,))


def number(value: int) -> bytes:
    """Eight bytes that sort as the number does."""
    return value.to_bytes(8, "big")


def to_number(value: bytes) -> int:
    return int.from_bytes(value, "big")
