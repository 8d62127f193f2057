"""Sealed chunks: what went in comes out, whatever the range, and what was meddled with does not open."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast_server.sealing.chunks import (
    CHUNK_SIZE_BYTES,
    PAYLOAD_SIZE_BYTES,
    ChunkOpener,
    ChunkSealer,
    SealBroken,
    plain_size,
    sealed_size,
    stripe_payload,
)

KEY, OTHER = bytes(range(32)), bytes(32)
SIZES = [1, PAYLOAD_SIZE_BYTES - 1, PAYLOAD_SIZE_BYTES, PAYLOAD_SIZE_BYTES + 1, 3 * PAYLOAD_SIZE_BYTES + 17]


def content(size: int) -> bytes:
    return bytes((index * 7 + index // 251) % 256 for index in range(size))


def sealed(data: bytes, key: bytes = KEY) -> bytes:
    return ChunkSealer(key).seal(data, last=True)


def opened(data: bytes, size: int, key: bytes = KEY, skip: int = 0) -> bytes:
    return b"".join(ChunkOpener(key, len(data)).open([memoryview(data)], 0, skip, size))


@pytest.mark.parametrize("size", SIZES)
def test_sizes_are_told_in_both_directions(size: int) -> None:
    assert len(sealed(content(size))) == sealed_size(size)
    assert plain_size(sealed_size(size)) == size


def test_nothing_stays_nothing() -> None:
    assert sealed(b"") == b""
    assert sealed_size(0) == plain_size(0) == 0


def test_a_sealed_stripe_is_as_large_as_any() -> None:
    assert sealed_size(stripe_payload(1 << 20)) == 1 << 20


@settings(max_examples=60, deadline=None)
@given(size=st.sampled_from(SIZES), data=st.data())
def test_any_range_comes_out_as_it_went_in(size: int, data: st.DataObject) -> None:
    plain = content(size)
    skip = data.draw(st.integers(0, size - 1))
    take = data.draw(st.integers(1, size - skip))
    cut = data.draw(st.integers(0, sealed_size(size)))
    whole = sealed(plain)
    views = [memoryview(whole)[:cut], memoryview(whole)[cut:]]
    assert b"".join(ChunkOpener(KEY, len(whole)).open(views, 0, skip, take)) == plain[skip : skip + take]


def test_stripes_are_sealed_one_after_the_other_and_opened_alone() -> None:
    payload = stripe_payload(4 * CHUNK_SIZE_BYTES)
    plain = content(payload + 5)
    sealer = ChunkSealer(KEY)
    stripes = [sealer.seal(plain[:payload], last=False), sealer.seal(plain[payload:], last=True)]
    opener = ChunkOpener(KEY, sum(map(len, stripes)))
    assert b"".join(opener.open([memoryview(stripes[1])], 4, 0, 5)) == plain[payload:]


def test_a_range_needs_only_its_own_chunks() -> None:
    plain = content(3 * PAYLOAD_SIZE_BYTES)
    broken = bytearray(sealed(plain))
    broken[5] ^= 1
    broken[-5] ^= 1
    middle = opened(bytes(broken), 100, skip=PAYLOAD_SIZE_BYTES + 10)
    assert middle == plain[PAYLOAD_SIZE_BYTES + 10 : PAYLOAD_SIZE_BYTES + 110]


@pytest.mark.parametrize("place", [0, CHUNK_SIZE_BYTES - 1, CHUNK_SIZE_BYTES, 2 * CHUNK_SIZE_BYTES + 3])
def test_a_changed_bit_is_noticed(place: int) -> None:
    plain = content(3 * PAYLOAD_SIZE_BYTES)
    broken = bytearray(sealed(plain))
    broken[place] ^= 0x10
    with pytest.raises(SealBroken):
        opened(bytes(broken), len(plain))


def test_exchanged_chunks_are_noticed() -> None:
    plain = content(3 * PAYLOAD_SIZE_BYTES)
    whole = sealed(plain)
    swapped = whole[CHUNK_SIZE_BYTES : 2 * CHUNK_SIZE_BYTES] + whole[:CHUNK_SIZE_BYTES] + whole[2 * CHUNK_SIZE_BYTES :]
    with pytest.raises(SealBroken):
        opened(swapped, len(plain))


def test_an_end_that_was_cut_off_is_noticed() -> None:
    whole = sealed(content(3 * PAYLOAD_SIZE_BYTES))
    with pytest.raises(SealBroken):
        opened(whole[: 2 * CHUNK_SIZE_BYTES], 2 * PAYLOAD_SIZE_BYTES)


def test_an_end_that_was_added_is_noticed() -> None:
    whole = sealed(content(2 * PAYLOAD_SIZE_BYTES))
    with pytest.raises(SealBroken):
        opened(whole + whole[:CHUNK_SIZE_BYTES], 3 * PAYLOAD_SIZE_BYTES)


def test_chunks_of_another_extent_are_noticed() -> None:
    plain = content(100)
    with pytest.raises(SealBroken):
        opened(sealed(plain, OTHER), 100)


def test_a_stripe_that_is_not_all_there_is_noticed() -> None:
    whole = sealed(content(2 * PAYLOAD_SIZE_BYTES))
    with pytest.raises(SealBroken):
        ChunkOpener(KEY, len(whole)).open([memoryview(whole)[:CHUNK_SIZE_BYTES]], 0, 0, 2 * PAYLOAD_SIZE_BYTES)
