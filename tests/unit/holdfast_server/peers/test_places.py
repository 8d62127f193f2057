"""Blocks that come from a peer are received where in a page of memory they will be in a page of their file, and hashed
as they come."""

import pytest

from holdfast_server.memory.buffers import PAGE_SIZE_BYTES
from holdfast_server.peers import messages
from holdfast_server.peers.messages import Request, Verb

BLOCK = 524_368


def _header(verb: int, sizes: tuple[int, ...], arguments: object) -> memoryview:
    return memoryview(messages.encode(Request(7, verb, 0, sizes, arguments)))


@pytest.mark.parametrize("verb", [Verb.STAGE, Verb.STAGE_LAST])
@pytest.mark.parametrize("index", [0, 1, 5, 60_000])
def test_of_blocks_that_are_staged(verb: Verb, index: int) -> None:
    header = _header(verb, (BLOCK, BLOCK), (b"d" * 16, index, [b"h" * 16] * 2))
    assert messages.wish_of_blobs(header) == (index * BLOCK % PAGE_SIZE_BYTES, (BLOCK, BLOCK))


def test_of_a_shard_that_comes_with_its_commit() -> None:
    header = _header(Verb.COMMIT_SHARD, (BLOCK, BLOCK), ("a commit", [b"h" * 16] * 2))
    assert messages.wish_of_blobs(header) == (0, (BLOCK, BLOCK))


@pytest.mark.parametrize(
    "header",
    [
        _header(Verb.READ_BLOCKS, (BLOCK,), (b"d" * 16, 1, 1)),
        _header(Verb.STAGE, (), (b"d" * 16, 1, [])),
        _header(Verb.STAGE, (BLOCK,), (b"d" * 16, "one", [])),
        _header(Verb.STAGE, (BLOCK,), ()),
        _header(999, (BLOCK,), ()),
        memoryview(b"no message at all"),
        memoryview(b""),
    ],
)
def test_a_page_begins_with_all_else(header: memoryview) -> None:
    assert messages.wish_of_blobs(header) == (0, ())


@pytest.mark.parametrize(("index", "size"), [(-1, BLOCK), (1 << 63, 1 << 63), (1, -3)])
def test_nonsense_is_placed_within_a_page(index: int, size: int) -> None:
    header = _header(Verb.STAGE, (size,), (b"d" * 16, index, [b"h" * 16]))
    assert 0 <= messages.wish_of_blobs(header).lead_bytes < PAGE_SIZE_BYTES
