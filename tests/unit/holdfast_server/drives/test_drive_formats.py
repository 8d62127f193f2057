"""The bytes that drives in the field hold: each format must go on being read (docs/on-disk.md).

A change that breaks one of these needs a new format version and a reader for the old one, never a new value
here.
"""

from __future__ import annotations

import pytest
import xxhash

from holdfast_server.drives import identity, keys, rows, shard_format
from holdfast_server.drives.port import Held, Register
from holdfast_server.drives.rows import RegisterRow, SettledRow, StoredRecord
from holdfast_server.drives.shard_format import ShardShape
from holdfast_server.drives.slot import Slot

ROW = RegisterRow(
    5,
    (
        StoredRecord(1 << 60, False, b"newest record", 3, None, (bytes(range(16)),)),
        StoredRecord(7, False, b"small", 0, b"inline"),
        StoredRecord(6, False, b"large", 1, None, (), True),
        StoredRecord(4, True, b"dead", -1, None),
    ),
)
ROW_BYTES = bytes.fromhex(
    "48664401450499381570179292059497cf1000000000000000c2c40d6e6577657374207265636f726403c091c41000010203"
    "0405060708090a0b0c0d0e0fc29707c2c405736d616c6c00c406696e6c696e6590c29706c2c4056c6172676501c090c39704"
    "c3c40464656164ffc090c2"
)
SETTLED = SettledRow(StoredRecord(1 << 60, True, b"dead", -1, None), 9, b"process!", 123456)
SETTLED_BYTES = bytes.fromhex(
    "486654018baf66dacbb600399497cf1000000000000000c3c40464656164ffc090c209c40870726f6365737321ce0001e240"
)
INLINE_BYTES = bytes.fromhex("4866490192dda177dd29110c696e6c696e65207368617264")
FOOTER_BYTES = bytes.fromhex(
    "48665301000102030405060708090a0b0c0d0e0f00040000000000050000000000100001b691b4690d0647d0617e674a0c63740e"
)
IDENTITY_BYTES = b"""{
  "format": 1,
  "tenant": "tenant-1",
  "pool": "main",
  "set": 3,
  "position": 2,
  "driveId": "000102030405060708090a0b0c0d0e0f",
  "incarnation": 1234567890123456789,
  "state": "healing",
  "checksum": "d445338b1b23988a"
}
"""
SLOT = Slot("tenant-1", "main", 3, 2)
IDENTITY = identity.make_identity(SLOT, bytes(range(16)), 1234567890123456789, healing=True)


def test_a_row_reads_back():
    assert rows.decode(ROW_BYTES) == ROW
    assert rows.encode(ROW) == ROW_BYTES


def test_a_settled_tombstone_reads_back():
    assert rows.decode_settled(SETTLED_BYTES) == SETTLED
    assert rows.encode_settled(SETTLED) == SETTLED_BYTES
    with pytest.raises(rows.RowCorrupt):
        rows.decode_settled(SETTLED_BYTES[:-1] + b"\x00")


def test_an_inline_shard_reads_back():
    assert rows.decode_inline(INLINE_BYTES) == b"inline shard"
    assert rows.encode_inline(b"inline shard") == INLINE_BYTES


def test_a_footer_reads_back():
    shape = ShardShape(262144, 5, 1048577)
    assert shard_format.encode_footer(bytes(range(16)), shape) == FOOTER_BYTES
    assert shard_format.decode_footer(bytes(range(16)), FOOTER_BYTES, shape.file_size_bytes) == shape


def test_an_identity_reads_back():
    assert identity.decode(IDENTITY_BYTES) == identity.decode(identity.encode(IDENTITY))
    assert identity.encode(IDENTITY) == IDENTITY_BYTES
    identity.check_place(identity.decode(IDENTITY_BYTES), SLOT)


def test_keys_are_what_they_were():
    row = keys.row_key(Register(b"o" + bytes(16), "a\0b", b"\0v"))
    assert row == b"\x11o" + bytes(16) + b"a\x00\xffb\x00\x00\x00\xffv\x00\x00"
    assert keys.records_key(row) == b"r" + row + b"\x01"
    assert keys.mark_key(row) == b"r" + row + b"\x02"
    assert keys.inline_key(row, 258) == b"i" + row + b"\0\0\0\0\0\0\1\2"
    assert keys.reference_key(bytes(16), row) == b"f" + bytes(16) + row
    assert keys.watermark_range(row) == 3


@pytest.mark.parametrize("at", range(len(ROW_BYTES)))
def test_no_flipped_bit_of_a_row_goes_unnoticed(at):
    with pytest.raises(rows.RowCorrupt):
        rows.decode(ROW_BYTES[:at] + bytes((ROW_BYTES[at] ^ 4,)) + ROW_BYTES[at + 1 :])


@pytest.mark.parametrize("at", range(len(FOOTER_BYTES)))
def test_no_flipped_bit_of_a_footer_goes_unnoticed(at):
    damaged = FOOTER_BYTES[:at] + bytes((FOOTER_BYTES[at] ^ 4,)) + FOOTER_BYTES[at + 1 :]
    with pytest.raises(shard_format.NotSealed):
        shard_format.decode_footer(bytes(range(16)), damaged, 1048577 + 5 * 16 + len(FOOTER_BYTES))


def test_a_row_of_a_newer_server_with_more_fields_is_read():
    longer = [5, [[7, False, b"r", 0, b"i", [], False, "a field of tomorrow"]], "another"]
    body = rows._encoder.encode(longer)
    decoded = rows.decode(rows.MAGIC + xxhash.xxh3_64_digest(body) + body)
    assert decoded.records[0].held(b"i") == Held(7, False, b"r", 0, b"i", ())


def test_an_unknown_format_version_is_refused_by_name():
    with pytest.raises(identity.IdentityError, match="format version 2, but this server reads 1"):
        identity.decode(IDENTITY_BYTES.replace(b'"format": 1', b'"format": 2'))
    with pytest.raises(identity.IdentityError, match="checksum"):
        identity.decode(IDENTITY_BYTES.replace(b'"position": 2', b'"position": 1'))
    with pytest.raises(identity.IdentityError):
        identity.decode(IDENTITY_BYTES[:-10])


def test_a_drive_of_another_place_is_refused_naming_both():
    with pytest.raises(identity.IdentityError, match=r"set 3, position 2; this place is .* set 3, position 1"):
        identity.check_place(IDENTITY, Slot("tenant-1", "main", 3, 1))
