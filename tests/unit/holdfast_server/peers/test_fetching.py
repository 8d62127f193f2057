"""Blocks of another pod's drive: in pipes or not, what comes is compared here, and what does not match is corrupt."""

from __future__ import annotations

import asyncio
import errno
import os
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest
import xxhash

from holdfast_server.clock.system import SystemClock
from holdfast_server.drives.local import DriveSettings, LocalDrive
from holdfast_server.drives.port import DriveOffline, ShardCorrupt, ShardMissing
from holdfast_server.drives.slot import Slot
from holdfast_server.memory.pipes import Piped
from holdfast_server.memory.pod_memory import PodMemory
from holdfast_server.peers import dispatch, messages
from holdfast_server.peers.messages import Verb

DATA_ID = b"\0" * 15 + b"i"
SIZE_BYTES = (512 << 10) + 80
BLOCKS = [random.Random(number).randbytes(SIZE_BYTES) for number in range(9)] + [b"a small one at the end"]
HASHES = [xxhash.xxh3_128_digest(block) for block in BLOCKS]
BEFORE = tuple(feature for feature in messages.FEATURES if feature != messages.FETCH_BLOCKS_FEATURE)

every_release = pytest.mark.parametrize("features", [messages.FEATURES, BEFORE], ids=["now", "before"])


@pytest.fixture
async def served(pod: Any, tmp_path: Path) -> Any:
    """A drive with a shard, which the pod serves."""
    (tmp_path / "drive").mkdir()
    slot = Slot("tenant-1", "main", 0, 1)
    drive = await LocalDrive.open(tmp_path / "drive", slot, SystemClock(), DriveSettings(reap_interval_seconds=None))
    await drive.format(b"d" * 16, 7)
    await drive.stage(DATA_ID, 0, BLOCKS, HASHES)
    await drive.seal(DATA_ID)
    assert pod.server is not None
    pod.server._dispatcher._drives[:] = [drive]
    yield drive
    await drive.close()


def _shard(tmp_path: Path) -> Path:
    (path,) = [path for path in (tmp_path / "drive").rglob(DATA_ID.hex()) if path.is_file()]
    return path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """The verbs that blocks were asked for with, and whether they came in pipes."""
    seen: list[tuple[str, bool]] = []
    serve = dispatch.Dispatcher._serve

    async def watched(self: Any, request: Any, *rest: Any) -> Any:
        result, out = await serve(self, request, *rest)
        seen.append((Verb(request.verb).name, isinstance(out, Piped)))
        return result, out

    monkeypatch.setattr(dispatch.Dispatcher, "_serve", watched)
    return seen


def _as_of(pod: Any, features: tuple[str, ...]) -> None:
    pod.report = msgspec.structs.replace(pod.report, features=features)


@every_release
async def test_blocks_come_as_they_are(
    pod: Any, served: Any, connect: Any, asked: list[tuple[str, bool]], features: tuple[str, ...]
) -> None:
    _as_of(pod, features)
    drive = (await connect()).drives()[0]
    for first, count in ((0, 10), (0, 8), (1, 2), (8, 1), (8, 2), (9, 1)):
        blocks, hashes = await drive.read_blocks(DATA_ID, first, count)
        assert [bytes(block) for block in blocks] == BLOCKS[first : first + count]
        assert hashes == HASHES[first : first + count]
    new = features == messages.FEATURES
    verbs = [seen for seen in asked if seen[0] != "PING"]
    assert verbs[0] == (("FETCH_BLOCKS", True) if new else ("READ_BLOCKS", False))
    assert verbs[-1] == (("FETCH_BLOCKS", False) if new else ("READ_BLOCKS", False)), "what is small is copied"
    with pytest.raises(ShardMissing):
        await drive.read_blocks(b"another shard id", 0, 1)


@every_release
@pytest.mark.parametrize("at", [0, 5 * SIZE_BYTES - 1, 8 * SIZE_BYTES + 5, 9 * SIZE_BYTES + 22])
async def test_rot_is_found_wherever_it_is(
    pod: Any, served: Any, connect: Any, tmp_path: Path, at: int, features: tuple[str, ...]
) -> None:
    """The last is in the hash of the first block."""
    _as_of(pod, features)
    drive = (await connect()).drives()[0]
    with _shard(tmp_path).open("r+b") as file:
        byte = os.pread(file.fileno(), 1, at)
        os.pwrite(file.fileno(), bytes([byte[0] ^ 1]), at)
    for first in (0, at // SIZE_BYTES):
        with pytest.raises(ShardCorrupt):
            await drive.read_blocks(DATA_ID, first % 9, 10 - first % 9)
    healthy = 1 if at // SIZE_BYTES != 1 else 2
    blocks, _ = await drive.read_blocks(DATA_ID, healthy, 1)
    assert blocks[0] == BLOCKS[healthy]


async def test_a_block_that_changed_on_its_way_is_corrupt(pod: Any, connect: Any) -> None:
    drive = (await connect()).drives()[0]
    for answer in (
        ([BLOCKS[0], BLOCKS[1][:-1] + b"?"], HASHES[:2]),
        (BLOCKS[:2], HASHES[1::-1]),
        (BLOCKS[:2], HASHES[:1]),
        (BLOCKS[:1], HASHES[:2]),
    ):
        pod.drive.answers["read_blocks"] = answer
        with pytest.raises(ShardCorrupt):
            await drive.read_blocks(DATA_ID, 0, 2)
    pod.drive.answers["read_blocks"] = (BLOCKS[:2], HASHES[:2])
    assert (await drive.read_blocks(DATA_ID, 0, 2))[0] == BLOCKS[:2]


@pytest.mark.parametrize("cut_to", [0, 3 * SIZE_BYTES + 1, len(BLOCKS[-1]) + 9 * SIZE_BYTES + 3])
async def test_a_shard_that_was_cut_is_corrupt(
    pod: Any, served: Any, connect: Any, tmp_path: Path, cut_to: int
) -> None:
    drive = (await connect()).drives()[0]
    await drive.read_blocks(DATA_ID, 0, 1)  # so that it is open, and known by its whole size
    os.truncate(_shard(tmp_path), cut_to)
    with pytest.raises(ShardCorrupt):
        await drive.read_blocks(DATA_ID, 0, 8)


async def test_a_sector_that_cannot_be_read_is_corrupt_and_noted(
    pod: Any, served: Any, connect: Any, monkeypatch: pytest.MonkeyPatch, until: Any
) -> None:
    drive = (await connect()).drives()[0]
    noted: list[bytes] = []
    monkeypatch.setattr(served._parts.shards._reads, "_on_unreadable", lambda data_id, _: noted.append(data_id))
    splice = os.splice

    def failing(source: int, destination: int, count: int, offset_src: int | None = None, flags: int = 0) -> int:
        if offset_src is not None and offset_src > SIZE_BYTES:
            raise OSError(errno.EIO, "no such sector")
        return splice(source, destination, count, offset_src=offset_src, flags=flags)

    monkeypatch.setattr(os, "splice", failing)
    with pytest.raises(ShardCorrupt):
        await drive.read_blocks(DATA_ID, 0, 8)
    assert noted == [DATA_ID]
    monkeypatch.undo()
    assert (await drive.read_blocks(DATA_ID, 0, 8))[0] == BLOCKS[:8]
    assert pod.server._pipes.taken == 0


async def test_a_file_system_without_splice_is_read_as_ever(
    pod: Any, served: Any, connect: Any, monkeypatch: pytest.MonkeyPatch, asked: list[tuple[str, bool]]
) -> None:
    drive = (await connect()).drives()[0]
    tried = 0

    def refusing(*_: object, **__: object) -> int:
        nonlocal tried
        tried += 1
        raise OSError(errno.EINVAL, "no")

    monkeypatch.setattr(os, "splice", refusing)
    for _ in range(3):
        assert (await drive.read_blocks(DATA_ID, 0, 8))[0] == BLOCKS[:8]
    assert tried == 1
    assert [seen for seen in asked if seen[0] != "PING"] == [("FETCH_BLOCKS", False)] * 3


async def test_a_drive_that_hangs_is_told_and_its_pipes_come_back(
    pod: Any, served: Any, connect: Any, monkeypatch: pytest.MonkeyPatch, until: Any
) -> None:
    """The header goes out only once all of it is at hand: whoever waits is told, and the connection goes on."""
    peer = await connect()
    drive = peer.drives()[0]
    hung, ends = [], []
    read_end, write_end = os.pipe()
    splice = os.splice

    def hanging(source: int, destination: int, count: int, offset_src: int | None = None, flags: int = 0) -> int:
        if offset_src is not None and not ends:
            hung.append(1)
            os.read(read_end, 1)
        return splice(source, destination, count, offset_src=offset_src, flags=flags)

    monkeypatch.setattr(os, "splice", hanging)
    try:
        with pytest.raises(DriveOffline):
            await drive.read_blocks(DATA_ID, 0, 8)
        assert hung
        assert pod.server._pipes.taken > 0
    finally:
        ends.append(1)
        os.write(write_end, b"goon")
    await until(lambda: pod.server._pipes.taken == 0)

    for end in (read_end, write_end):
        os.close(end)
    async with asyncio.timeout(60):
        while True:  # until the drive has been probed, and is no longer left alone
            try:
                assert (await drive.read_blocks(DATA_ID, 0, 8))[0] == BLOCKS[:8]
                return
            except DriveOffline:
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("block_bytes", [1 << 20, 300])
async def test_what_was_read_for_a_peer_counts_with_its_size(block_bytes: int) -> None:
    """Of sets of two drives a block is a whole stripe."""
    budget = PodMemory().peer_answers

    async def read(data_id: bytes, first: int, count: int) -> tuple[list[bytes], list[bytes]]:
        return [bytes(block_bytes)] * count, [b"h" * 16] * count

    with budget.hold() as hold:
        await dispatch._read_blocks(read, hold, DATA_ID, 0, 8)  # type: ignore[arg-type]
        assert budget.used == 8 * block_bytes
    assert budget.used == 0
