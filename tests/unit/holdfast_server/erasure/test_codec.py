"""The codec: any K of N shards give the stripe back, whichever they are and however short it is."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast_server.erasure.codec import (
    CAUCHY,
    PLAIN,
    RECOVERED_IN_PLACE_FROM_BYTES,
    Codec,
    CodingError,
    Layout,
    codec,
)
from holdfast_server.memory.buffers import PAGE_SIZE_BYTES, address_of

GEOMETRIES = [(1, 1), (2, 1), (2, 2), (3, 1), (4, 2), (4, 4)]
SIZES = [1, 2, 3, 7, 15, 16, 17, 79, 80, 81, 1000, 4096, 65_537, RECOVERED_IN_PLACE_FROM_BYTES + 1]


def _stripe(size: int, seed: int = 0) -> bytes:
    return random.Random(seed * 1_000_003 + size).randbytes(size)


def _joined(views: list[memoryview]) -> bytes:
    return b"".join(views)


@pytest.mark.parametrize(("data", "parity"), GEOMETRIES)
def test_every_erasure_pattern_joins(data: int, parity: int) -> None:
    code = codec(data, parity)
    for size in SIZES:
        stripe = _stripe(size)
        blocks = code.encode(stripe)
        assert len(blocks) == data + parity
        for kept in itertools.combinations(range(data + parity), data):
            assert _joined(code.join({i: blocks[i] for i in kept}, size)) == stripe


def test_every_erasure_pattern_of_six_and_six_joins() -> None:
    """Vandermonde matrices fail on eight of these 924."""
    code = codec(6, 6)
    stripe = _stripe(601)
    blocks = code.encode(stripe)
    for kept in itertools.combinations(range(12), 6):
        assert _joined(code.join({i: blocks[i] for i in kept}, 601)) == stripe


@pytest.mark.parametrize(("data", "parity"), GEOMETRIES)
def test_any_lost_shards_are_rebuilt_byte_for_byte(data: int, parity: int) -> None:
    code = codec(data, parity)
    for size in (1, 17, 4096):
        blocks = code.encode(_stripe(size))
        for kept in itertools.combinations(range(data + parity), data):
            missing = [i for i in range(data + parity) if i not in kept]
            rebuilt = code.rebuild({i: blocks[i] for i in kept}, missing)
            assert rebuilt == {i: blocks[i] for i in missing}


@given(st.binary(min_size=1, max_size=5000), st.sampled_from(GEOMETRIES), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_more_shards_than_needed_in_any_order(stripe: bytes, geometry: tuple[int, int], rng: random.Random) -> None:
    code = codec(*geometry)
    blocks = dict(enumerate(code.encode(stripe)))
    kept = rng.sample(sorted(blocks), rng.randint(code.data_shards, code.shards))
    assert _joined(code.join({i: blocks[i] for i in kept}, len(stripe))) == stripe


@pytest.mark.parametrize(("data", "parity"), [*GEOMETRIES, (1, 0), (8, 4), (12, 4)])
def test_blocks_have_the_announced_size(data: int, parity: int) -> None:
    code = codec(data, parity)
    for size in [*SIZES, 1 << 20]:
        assert {len(block) for block in code.encode(_stripe(size))} == {code.block_size_bytes(size)}


def test_all_data_shards_join_without_a_copy() -> None:
    code = codec(4, 2)
    blocks = dict(enumerate(code.encode(_stripe(1 << 16))))
    views = code.join(blocks, 1 << 16)
    assert [view.obj for view in views] == [blocks[i] for i in range(4)]
    assert all(view.obj is blocks[i] for i, view in enumerate(views))


def test_what_is_there_is_joined_without_a_copy_where_others_are_lost() -> None:
    code = codec(4, 2)
    stripe = _stripe(RECOVERED_IN_PLACE_FROM_BYTES + 3)
    blocks = {index: memoryview(bytearray(block)) for index, block in enumerate(code.encode(stripe))}
    before = {index: bytes(block) for index, block in blocks.items()}
    views = code.join({index: blocks[index] for index in (0, 2, 4, 5)}, len(stripe))
    assert _joined(views) == stripe
    assert [views[0].obj, views[2].obj] == [blocks[0].obj, blocks[2].obj]
    assert {index: bytes(block) for index, block in blocks.items()} == before


@pytest.mark.parametrize(("data", "parity"), [(2, 2), (4, 2), (5, 3)])
def test_one_lost_shard_after_another_comes_from_what_was_rebuilt(data: int, parity: int) -> None:
    """Blocks that were computed serve as those that were stored, headers included."""
    code = codec(data, parity)
    blocks = code.encode(_stripe(10_001))
    known = {index: memoryview(block) for index, block in enumerate(blocks)}
    for index in range(code.shards):
        del known[index]
        known[index] = memoryview(code.rebuild(known, [index])[index])
    assert [bytes(known[index]) for index in range(code.shards)] == blocks


def test_a_block_that_is_taken_for_another_shard_is_refused() -> None:
    code = codec(2, 2)
    blocks = code.encode(_stripe(100))
    with pytest.raises(CodingError, match="a block of shard 3"):
        code.join({0: blocks[0], 2: blocks[3]}, 100)
    large = code.encode(_stripe(RECOVERED_IN_PLACE_FROM_BYTES))
    with pytest.raises(CodingError, match="a block of shard 3"):
        code.join({0: large[0], 2: large[3]}, RECOVERED_IN_PLACE_FROM_BYTES)
    with pytest.raises(CodingError, match="a block of shard 1"):
        code.rebuild({0: blocks[1], 2: blocks[2]}, [1])


def test_one_drive_keeps_the_stripe_itself() -> None:
    code = codec(1, 0)
    assert code.name == PLAIN
    assert code.encode(b"abc") == [b"abc"]
    assert _joined(code.join({0: b"abc"}, 3)) == b"abc"


def test_too_few_shards_are_refused() -> None:
    code = codec(4, 2)
    blocks = dict(enumerate(code.encode(_stripe(100))))
    few = {i: blocks[i] for i in range(3)}
    with pytest.raises(CodingError, match="3 shards of the 4 needed"):
        code.join(few, 100)
    with pytest.raises(CodingError, match="3 shards of the 4 needed"):
        code.rebuild(few, [5])


@pytest.mark.parametrize("kept", [range(4), (0, 1, 2, 5)])
def test_shards_of_another_size_are_refused(kept: tuple[int, ...]) -> None:
    code = codec(4, 2)
    blocks = code.encode(_stripe(100))
    with pytest.raises(CodingError):
        code.join({i: blocks[i] for i in kept}, 4000)


def test_a_plain_block_of_another_size_is_refused() -> None:
    with pytest.raises(CodingError):
        codec(1, 0).join({0: b"abc"}, 4)


@pytest.mark.parametrize("damage", [b"", b"\0" * 200, b"x" * 40])
def test_blocks_that_are_none_are_refused(damage: bytes) -> None:
    code = codec(2, 2)
    blocks = code.encode(_stripe(100))
    with pytest.raises(CodingError):
        code.join({2: damage, 3: blocks[3]}, 100)


def test_data_without_parity_needs_one_drive() -> None:
    with pytest.raises(CodingError, match="without parity"):
        Codec(2, 0)


def test_the_name_that_records_keep() -> None:
    assert codec(4, 2).name == CAUCHY == "isa_l_rs_cauchy"


def _laid_out(code: Codec, stripes: list[list[bytes]], before_bytes: int = 0) -> Layout:
    layout = Layout(code, [sum(map(len, pieces)) for pieces in stripes], before_bytes)
    for index, pieces in enumerate(stripes):
        layout.fill(index, pieces)
    return layout


def _data(layout: Layout) -> bytes:
    return _joined([view for index in range(layout.stripes) for view in layout.stripe(index)])


def _columns(layout: Layout) -> list[tuple[memoryview, ...]]:
    """By shard: its blocks, of all stripes."""
    stripes = []
    for index in range(layout.stripes):
        stripes.append(layout.blocks(index))
        layout.add_parity(index)
    return list(zip(*stripes, strict=True))


@given(st.lists(st.lists(st.binary(max_size=400), min_size=1, max_size=4).filter(any), min_size=1, max_size=3),
       st.sampled_from([*GEOMETRIES, (1, 0), (6, 2)]))  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_stripes_laid_out_have_the_blocks_of_the_library(stripes: list[list[bytes]], geometry: tuple[int, int]) -> None:
    """Byte for byte, headers and what fills up included: drives hold what earlier releases wrote."""
    code = codec(*geometry)
    layout = _laid_out(code, stripes)
    assert _data(layout) == b"".join(itertools.chain.from_iterable(stripes))
    expected = [code.encode(b"".join(pieces)) for pieces in stripes]
    columns = _columns(layout)
    assert [[bytes(block) for block in column] for column in columns] == [
        [blocks[shard] for blocks in expected] for shard in range(code.shards)
    ]


def test_a_large_stripe_laid_out_has_the_blocks_of_the_library() -> None:
    code = codec(4, 2)
    stripe = _stripe(1 << 20)
    pieces = [stripe[: 1 << 16], stripe[1 << 16 : 1 << 19], stripe[1 << 19 :]]
    assert [bytes(block) for (block,) in _columns(_laid_out(code, [pieces]))] == code.encode(stripe)


@pytest.mark.parametrize("before", [0, 80, 5 * 4096 + 4095])
def test_the_blocks_of_a_shard_lie_one_after_the_other_as_in_their_file(before: int) -> None:
    code = codec(2, 2)
    stripes = [[_stripe(5000)], [_stripe(5000, 1)], [_stripe(77)]]
    layout = _laid_out(code, stripes, before)
    assert _data(layout) == b"".join(itertools.chain.from_iterable(stripes))
    for column in _columns(layout):
        at = address_of(column[0])
        assert at % PAGE_SIZE_BYTES == before % PAGE_SIZE_BYTES
        for block in column:
            assert address_of(block) == at
            at += len(block)
