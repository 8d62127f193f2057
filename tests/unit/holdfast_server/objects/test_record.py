"""The record's bytes: what was written once is read for ever, and damage is seen."""

from __future__ import annotations

import msgspec
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from holdfast_server.objects import record
from holdfast_server.objects.record import Extent, Geometry, Kind, PartInfo, Record, RecordCorrupt

FULL = Record(
    Kind.OBJECT,
    (1_790_000_000_000 << 20) | (3 << 10) | 7,
    modified_ms=1_790_000_000_123,
    size_bytes=5_242_880 + 11,
    etag="9b2cf535f27731c974343645a3985328-2",
    headers={"content-type": "text/plain", "x-amz-meta-π": "ü"},
    checksums={"CRC32": "AAAAAA==-2", "type": "COMPOSITE"},
    geometry=Geometry(4, 2),
    extents=(Extent(b"\x01" * 16, 5_242_880), Extent(b"\x02" * 16, 11)),
    parts=(PartInfo(1, 5_242_880, "a" * 32, "AAAAAA=="), PartInfo(2, 11, "b" * 32)),
    body=b"\x00\xff",
)

GOLDEN_V1 = bytes.fromhex(
    "48665201410cb80f161e624d9b01cf1a0c4506c0000c07cf000001a0c4506c7bce0050000bd9223962326366353335663237"
    "3733316339373433343336343561333938353332382d3282ac636f6e74656e742d74797065aa746578742f706c61696ead78"
    "2d616d7a2d6d6574612dcf80a2c3bc82a54352433332aa4141414141413d3d2d32a474797065a9434f4d504f534954459404"
    "02af6973615f6c5f72735f636175636879ce001000009292c41001010101010101010101010101010101ce0050000092c410"
    "020202020202020202020202020202020b929401ce00500000d9206161616161616161616161616161616161616161616161"
    "616161616161616161a84141414141413d3d94020bd920626262626262626262626262626262626262626262626262626262"
    "6262626262a0c40200ff"
)
"""FULL as format version 1 was first written; drives in the field hold such bytes."""


def test_todays_bytes_are_those_of_format_1() -> None:
    assert record.encode(FULL) == GOLDEN_V1


def test_format_1_is_read() -> None:
    assert record.decode(GOLDEN_V1) == FULL


def test_fields_that_were_appended_later_may_be_missing() -> None:
    body = msgspec.msgpack.encode([2, 77])
    assert record.decode(record.MAGIC + xxhash.xxh3_64_digest(body) + body) == Record(Kind.TOMBSTONE, 77)


texts = st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=3)
records = st.builds(
    Record,
    kind=st.sampled_from(Kind),
    stamp=st.integers(0, 2**63 - 1),
    modified_ms=st.integers(0, 2**43),
    size_bytes=st.integers(0, 5 << 40),
    etag=st.text(max_size=40),
    headers=texts,
    checksums=texts,
    geometry=st.none() | st.builds(Geometry, st.integers(1, 15), st.integers(0, 8)),
    extents=st.lists(st.builds(Extent, st.binary(max_size=16), st.integers(0, 5 << 30)), max_size=3).map(tuple),
    parts=st.lists(st.builds(PartInfo, st.integers(1, 10_000), st.integers(0, 5 << 30), st.text()), max_size=3).map(
        tuple
    ),
    body=st.binary(max_size=64),
)


@given(records)
def test_round_trip(made: Record) -> None:
    assert record.decode(record.encode(made)) == made


@given(st.integers(0, len(GOLDEN_V1) - 1), st.integers(1, 255))
def test_any_changed_byte_is_seen(at: int, flip: int) -> None:
    damaged = bytearray(GOLDEN_V1)
    damaged[at] ^= flip
    with pytest.raises(RecordCorrupt):
        record.decode(bytes(damaged))


@given(st.integers(0, len(GOLDEN_V1) - 1))
def test_any_truncation_is_seen(length: int) -> None:
    with pytest.raises(RecordCorrupt):
        record.decode(GOLDEN_V1[:length])


@given(st.binary(max_size=80))
def test_whole_checksum_but_no_record(body: bytes) -> None:
    framed = record.MAGIC + xxhash.xxh3_64_digest(body) + body
    try:
        record.decode(framed)
    except RecordCorrupt:
        pass


def test_a_higher_format_is_refused() -> None:
    with pytest.raises(RecordCorrupt, match="format version 2, this server reads 1"):
        record.decode(b"HfR\x02" + GOLDEN_V1[4:])


def test_what_a_record_says_of_its_shards() -> None:
    inline = Record(Kind.OBJECT, 1, size_bytes=3, geometry=Geometry(4, 2), extents=(Extent(b"", 3),))
    assert (inline.inline, inline.copies_needed, inline.data_ids) == (True, 4, ())
    assert (FULL.inline, FULL.copies_needed, FULL.data_ids) == (False, 4, (b"\x01" * 16, b"\x02" * 16))
    empty = Record(Kind.OBJECT, 1)
    assert (empty.inline, empty.copies_needed, empty.live) == (False, 1, True)
    assert not Record(Kind.TOMBSTONE, 1).live


def test_registers_of_one_key_lie_apart_and_in_order() -> None:
    bucket, upload = bytes(range(16)), bytes(16)
    parts = [record.part_register(bucket, "k", upload, number) for number in (1, 2, 255, 256, 10_000)]
    assert [p.version for p in parts] == sorted(p.version for p in parts)
    spaces = {
        record.object_register(bucket, "k").space,
        record.upload_register(bucket, "k", upload).space,
        parts[0].space,
        record.document_register("k").space,
    }
    assert len(spaces) == 4
