"""Large shards go past the page cache; the file is the same wherever that works or does not."""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
from pathlib import Path

import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast_server.drives import shard_format
from holdfast_server.drives.page_appends import DIRECT_FROM_BYTES
from holdfast_server.drives.port import Block
from holdfast_server.drives.staged_shard import Stage, StagedShard
from holdfast_server.memory.buffers import PAGE_SIZE_BYTES, uncleared_pages

DATA_ID = b"sixteen bytes id"


def _blocks(sizes: list[int], ahead_bytes: int = 0) -> list[Block]:
    memory = uncleared_pages(sum(sizes) + ahead_bytes)[ahead_bytes:]
    memory[:] = os.urandom(len(memory))
    views: list[Block] = []
    for size in sizes:
        views.append(memory[:size])
        memory = memory[size:]
    return views


def _written(path: Path, *batches: list[Block], footer_apart: bool = False, over_bytes: int | None = None) -> None:
    """`over_bytes`: over a file of that size."""
    if over_bytes is not None:
        path.write_bytes(b"x" * over_bytes)
    shard = StagedShard(path, DATA_ID, 0.0, over_bytes is not None)
    hashes: list[bytes] = []
    for number, batch in enumerate(batches, 1):
        of_batch = [xxhash.xxh3_128_digest(block) for block in batch]
        shard.append(len(hashes), batch, of_batch, last=number == len(batches) and not footer_apart)
        hashes += of_batch
    if footer_apart:
        shard.write_footer()
    assert shard.stage is Stage.COMPLETE
    blocks = [block for batch in batches for block in batch]
    shape = shard_format.ShardShape(len(blocks[0]), len(blocks), sum(map(len, blocks)))
    footer = shard_format.encode_footer(DATA_ID, shape)
    assert path.read_bytes() == b"".join([*map(bytes, blocks), *hashes, footer])


class _Calls:
    """What goes to `os.pwritev`, and whether directly."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.direct: list[int] = []
        self.cached: list[int] = []
        pwritev = os.pwritev

        def noted(descriptor: int, buffers: list[memoryview], offset: int) -> int:
            is_direct = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT
            (self.direct if is_direct else self.cached).append(sum(map(len, buffers)))
            return self.write(descriptor, buffers, offset, bool(is_direct))

        self._pwritev = pwritev
        monkeypatch.setattr(os, "pwritev", noted)

    def write(self, descriptor: int, buffers: list[memoryview], offset: int, direct: bool) -> int:
        return self._pwritev(descriptor, buffers, offset)


def _has_direct_io(folder: Path) -> bool:
    try:
        os.close(os.open(folder / "probe", os.O_RDWR | os.O_CREAT | os.O_DIRECT))
    except OSError:
        return False
    return True


@pytest.mark.parametrize("sizes", [[DIRECT_FROM_BYTES], [524_368, 225_793], [DIRECT_FROM_BYTES + 1], [1 << 20] * 3])
def test_whole_pages_go_directly_and_the_rest_does_not(
    sizes: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not _has_direct_io(tmp_path):
        pytest.skip("this file system has no direct I/O")
    calls = _Calls(monkeypatch)
    _written(tmp_path / "shard", _blocks(sizes))
    assert calls.direct == [sum(sizes) // PAGE_SIZE_BYTES * PAGE_SIZE_BYTES]
    assert len(calls.cached) == 1


@pytest.mark.parametrize(("sizes", "ahead"), [([DIRECT_FROM_BYTES - 1], 0), ([1 << 20], 512), ([1 << 20], 1)])
def test_what_is_small_or_not_at_a_page_goes_through_the_cache(
    sizes: list[int], ahead: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = _Calls(monkeypatch)
    _written(tmp_path / "shard", _blocks(sizes, ahead))
    assert not calls.direct


def test_blocks_of_different_memory_go_through_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = _Calls(monkeypatch)
    _written(tmp_path / "shard", [*_blocks([1 << 19]), *_blocks([1 << 19])])
    assert sum(calls.direct) <= 1 << 19


def test_a_file_system_without_direct_io_is_written_to_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fcntl.fcntl

    def refusing(descriptor: int, command: int, flags: int = 0) -> int:
        if command == fcntl.F_SETFL and flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(descriptor, command, flags)

    monkeypatch.setattr(fcntl, "fcntl", refusing)
    _written(tmp_path / "shard", _blocks([1 << 20]))


BLOCK = 524_368
"""Of a stripe of 1 MiB, cut in two: no multiple of a page."""


def _stream(counts: list[int], last_size: int = BLOCK) -> list[list[Block]]:
    """Batches of blocks, each in memory as it will be in a page of the file; the last block has `last_size`."""
    batches, before = [], 0
    for count in counts:
        batches.append(_blocks([BLOCK] * count, before % PAGE_SIZE_BYTES))
        before += count * BLOCK
    batches[-1][-1] = batches[-1][-1][:last_size]
    return batches


@pytest.mark.parametrize("footer_apart", [False, True])
@pytest.mark.parametrize(
    ("counts", "last_size"), [([1, 4, 4, 3], BLOCK), ([1, 4, 1], 300_001), ([4, 1], 5), ([2] * 9, BLOCK)]
)
def test_what_comes_in_several_calls_goes_directly_too(
    counts: list[int], last_size: int, footer_apart: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not _has_direct_io(tmp_path):
        pytest.skip("this file system has no direct I/O")
    calls = _Calls(monkeypatch)
    batches = _stream(counts, last_size)
    _written(tmp_path / "shard", *batches, footer_apart=footer_apart)
    size = sum(len(block) for batch in batches for block in batch)
    assert size - sum(calls.direct) < DIRECT_FROM_BYTES
    assert all(written % PAGE_SIZE_BYTES == 0 for written in calls.direct)
    assert len(calls.cached) == 1


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(1, 5), min_size=1, max_size=5),
    placed=st.lists(st.booleans(), min_size=5, max_size=5),
    block=st.sampled_from([5, 4_096, 70_000, 131_072, 131_152, BLOCK]),
    last_size=st.integers(1, BLOCK),
    fails=st.lists(st.sampled_from(["", "short", "refused"]), min_size=5, max_size=5),
    over_bytes=st.none() | st.integers(0, 2 * BLOCK) | st.sampled_from([PAGE_SIZE_BYTES, 16 * BLOCK]),
)
def test_the_file_is_the_same_however_it_comes_and_whatever_was_there(
    tmp_path_factory: pytest.TempPathFactory,
    counts: list[int], placed: list[bool], block: int, last_size: int, fails: list[str], over_bytes: int | None,
) -> None:  # fmt: skip
    batches, before = [], 0
    for count, at_its_place in zip(counts, placed, strict=False):
        batches.append(_blocks([block] * count, before % PAGE_SIZE_BYTES if at_its_place else 3))
        before += count * block
    batches[-1][-1] = batches[-1][-1][: min(block, last_size)]
    with pytest.MonkeyPatch.context() as patch:
        _Failing(patch, fails)
        _written(tmp_path_factory.mktemp("any") / "shard", *batches, over_bytes=over_bytes)


@pytest.mark.parametrize("size", [70_000, 131_073, BLOCK])
def test_what_is_written_over_is_never_read_for_it(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As what is in a page would be of which only a part is written: one read for each call, and one that may fail."""
    calls = _Calls(monkeypatch)
    _written(tmp_path / "shard", *(_blocks([size], ahead_bytes=3) for _ in range(5)), over_bytes=8 * size)
    assert len(calls.cached) > 1
    assert all(written % PAGE_SIZE_BYTES == 0 for written in calls.cached)


class _Failing(_Calls):
    """Direct writes fall short or are refused, in turn."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fails: list[str]) -> None:
        super().__init__(monkeypatch)
        self._fails = itertools.cycle(fails)

    def write(self, descriptor: int, buffers: list[memoryview], offset: int, direct: bool) -> int:
        how = next(self._fails) if direct else ""
        if how == "refused":
            raise OSError(errno.EINVAL, "Invalid argument")
        if how == "short":
            buffers = [buffers[0][:PAGE_SIZE_BYTES]]
        return super().write(descriptor, buffers, offset, direct)


class _Refusing(_Calls):
    def write(self, descriptor: int, buffers: list[memoryview], offset: int, direct: bool) -> int:
        if direct:
            raise OSError(errno.EINVAL, "Invalid argument")
        return super().write(descriptor, buffers, offset, direct)


def test_a_device_with_larger_blocks_is_written_to_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _Refusing(monkeypatch)
    _written(tmp_path / "shard", _blocks([1 << 20]))


class _Short(_Calls):
    def write(self, descriptor: int, buffers: list[memoryview], offset: int, direct: bool) -> int:
        if direct:
            buffers = [buffers[0][: 3 * PAGE_SIZE_BYTES]]
        return super().write(descriptor, buffers, offset, direct)


def test_a_direct_write_that_falls_short_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _Short(monkeypatch)
    _written(tmp_path / "shard", _blocks([524_368, 524_368]))


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwritev", full)
    shard = StagedShard(tmp_path / "shard", DATA_ID, 0.0)
    with pytest.raises(OSError, match="No space"):
        shard.append(0, _blocks([1 << 20]), [b"h" * 16], last=True)
    shard.remove()
