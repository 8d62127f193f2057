"""How registers and the drive's own facts become keys of its one ordered table.  Pure.

Every key starts with a letter that says what the row is (below).  A register's *row key* keeps the order the
port promises, (space, key as UTF-8, version), under plain comparison of bytes:

    length of space (1) | space | name (`names`)

No register's row key is a prefix of another's.  A register's record row and mark row differ in their last byte and are
neighbours, so one walk meets both.  `docs/on-disk.md` lists all kinds of row.
"""

from __future__ import annotations

import xxhash

from holdfast_server.drives import names
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


class KeyCorrupt(ValueError):
    """The bytes are not a row key."""


def row_key(register: Register) -> bytes:
    """The register's place in the table, without letter and without suffix."""
    return space_start(register.space) + names.name_of(register)


def decode_row_key(row: bytes) -> Register:
    """The reverse of `row_key`; raises KeyCorrupt."""
    try:
        end_of_space = 1 + row[0]
        return Register(row[1:end_of_space], *names.parse(row[end_of_space:]))
    except (IndexError, names.NameCorrupt) as error:
        raise KeyCorrupt(f"{row.hex()} is not a row key") from error


def space_start(space: bytes) -> bytes:
    """What every row key of a space starts with."""
    return bytes((len(space),)) + space


def seek_key(space: bytes, start: bytes, version: bytes = b"") -> bytes:
    """At or before the first row key of `space` whose key is at or above `start`, and after all others.

    With a version, `start` is a whole key and its versions below `version` are left out too.
    """
    return space_start(space) + names.start_at(start, version)


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
