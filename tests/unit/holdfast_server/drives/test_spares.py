"""Files of shards that nobody names any more are written over by new ones, and never while anybody could tell."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from pathlib import Path

import pytest
import xxhash

from holdfast_server.drives import shard_format, spares
from holdfast_server.drives.local import UNLINKS_PER_JOB, LocalDrive
from holdfast_server.drives.port import CommitMode, CommitRequest, CommitStatus, DriveError, DriveFull, Held, Register
from holdfast_server.drives.shard_files import ShardFiles, make_folders, staged_names
from holdfast_server.drives.space import Room, Space
from holdfast_server.drives.spares import LEAST_BYTES, SUFFIX, Spare, Spares
from holdfast_server.testing.manual_clock import ManualClock

SPACE = b"o" + bytes(16)
SIZE = 200_000
ROOM = Room(total_bytes=1 << 40, available_bytes=1 << 39)


class Content:
    """A shard's blocks and hashes, all different."""

    def __init__(self, number: int, sizes: tuple[int, ...] = (SIZE,)) -> None:
        self.data_id = bytes((number,)) * 16
        self.blocks = [os.urandom(size) for size in sizes]
        self.hashes = [xxhash.xxh3_128_digest(block) for block in self.blocks]

    @property
    def file(self) -> bytes:
        shape = shard_format.ShardShape(len(self.blocks[0]), len(self.blocks), sum(map(len, self.blocks)))
        return b"".join([*self.blocks, *self.hashes, shard_format.encode_footer(self.data_id, shape)])

    def place(self, folder: Path) -> Path:
        name = self.data_id.hex()
        return folder / "shards" / name[:2] / name


async def put(drive: LocalDrive, content: Content) -> CommitStatus:
    for index, (block, digest) in enumerate(zip(content.blocks, content.hashes, strict=True)):
        await drive.stage(content.data_id, index, [block], [digest], last=index == len(content.blocks) - 1)
    held = Held(10, False, b"r", 0, None, (content.data_id,))
    status = (await drive.commit(CommitRequest(register(content), held, CommitMode.PLAIN))).status
    await placed(drive)
    return status


async def delete(drive: LocalDrive, content: Content) -> None:
    held = Held(20, True, b"r", 0, None, ())
    assert (await drive.commit(CommitRequest(register(content), held, CommitMode.PLAIN))).status is CommitStatus.OK
    await drive.note(register(content), 20, True)
    drive._clock.advance(100)  # type: ignore[attr-defined]


def register(content: Content) -> Register:
    return Register(SPACE, content.data_id.hex())


async def placed(drive: LocalDrive) -> None:
    async with asyncio.timeout(20):
        while staged_names(drive.path):
            await asyncio.sleep(0.005)


def spare_names(drive: LocalDrive) -> list[str]:
    return sorted(path.name for path in (drive.path / "staging").iterdir() if path.name.endswith(SUFFIX))


async def reclaimed(drive: LocalDrive, *contents: Content) -> list[int]:
    """Put, deleted and reclaimed; the numbers of their files' inodes."""
    for content in contents:
        assert await put(drive, content) is CommitStatus.OK
    inodes = [content.place(drive.path).stat().st_ino for content in contents]
    for content in contents:
        await delete(drive, content)
    assert await drive.reap() == len(contents)
    assert not any(content.place(drive.path).exists() for content in contents)
    return inodes


@pytest.mark.parametrize(
    "sizes", [(SIZE,), (SIZE - 1,), (SIZE // 2 + 4096,), (4 << 20,), (100_000, 50_000), (100_000,) * 3, (65_536,)],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("former", [(SIZE,), (1 << 20, 1 << 20, 77)], ids=str)
async def test_a_shard_is_what_it_is_whatever_its_file_was(open_drive, former, sizes):
    drive = await open_drive()
    await reclaimed(drive, Content(1, former))
    new = Content(2, sizes)
    assert await put(drive, new) is CommitStatus.OK
    assert new.place(drive.path).read_bytes() == new.file
    assert await drive.read_blocks(new.data_id, 0, len(new.blocks)) == (new.blocks, new.hashes)
    assert await drive.verify_shard(new.data_id) == len(new.file)


async def test_a_file_of_about_that_size_is_written_over(open_drive):
    drive = await open_drive()
    (inode,) = await reclaimed(drive, Content(1))
    assert spare_names(drive) == [Content(1).data_id.hex() + SUFFIX]
    new = Content(2, (SIZE - 5000,))
    await put(drive, new)
    assert new.place(drive.path).stat().st_ino == inode
    assert not spare_names(drive)


async def test_one_that_comes_in_pieces_takes_a_file_as_large_as_the_last_that_did(open_drive):
    drive = await open_drive()
    small, large = await reclaimed(drive, Content(1, (SIZE,)), Content(2, (SIZE, SIZE)))
    first = Content(3, (SIZE, SIZE))
    await put(drive, first)
    assert first.place(drive.path).stat().st_ino == large
    whole = Content(4, (SIZE,))
    await put(drive, whole)
    assert whole.place(drive.path).stat().st_ino == small


async def test_small_shards_leave_no_spares_and_take_none(open_drive):
    drive = await open_drive()
    await reclaimed(drive, Content(1, (LEAST_BYTES - 1000,)))
    assert not spare_names(drive)
    await reclaimed(drive, Content(2, (LEAST_BYTES + 1000,)))
    await put(drive, Content(3, (LEAST_BYTES - 1000,)))
    assert spare_names(drive)


async def test_it_is_durable_that_nobody_names_a_file_before_it_is_set_apart(open_drive, monkeypatch):
    drive = await open_drive()
    parts = drive._parts
    content = Content(1)
    await put(drive, content)
    await delete(drive, content)
    seen = []
    set_apart = parts.shards.spares.set_apart

    def noted(place):
        seen.append((parts.commits.reached, parts.engine.reached))
        return set_apart(place)

    monkeypatch.setattr(parts.shards.spares, "set_apart", noted)
    assert parts.commits.reached < parts.engine.reached  # the note, which names it no more
    await drive.reap()
    ((flushed, written),) = seen
    assert flushed == written


async def test_without_room_for_that_it_is_removed(open_drive):
    drive = await open_drive()
    content = Content(1)
    await put(drive, content)
    await delete(drive, content)
    drive._parts.commits.no_room = "no room"
    with pytest.raises(DriveFull):  # it is not noted that it has gone
        await drive.reap()
    assert not spare_names(drive)
    assert not content.place(drive.path).exists()


class SlowReads:
    """`os.preadv` waits, the first time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()
        self._preadv = os.preadv
        monkeypatch.setattr(os, "preadv", self._slowly)

    def _slowly(self, *arguments):
        if not self.begun.is_set():
            self.begun.set()
            assert self.go_on.wait(20)
        return self._preadv(*arguments)


@pytest.mark.parametrize("reader", ["read", "verify"])
async def test_a_file_that_is_read_is_never_written_over(open_drive, monkeypatch, reader):
    drive = await open_drive()
    old, new = Content(1), Content(2)
    await put(drive, old)
    await delete(drive, old)
    slow = SlowReads(monkeypatch)
    if reader == "read":
        reading = asyncio.create_task(drive.read_blocks(old.data_id, 0, 1))
    else:
        reading = asyncio.create_task(drive.verify_shard(old.data_id))
    assert await asyncio.to_thread(slow.begun.wait, 20)
    drive._clock.advance(1000)  # it has been under way for so long that nobody remembers it
    assert await drive.reap() == 1
    assert not spare_names(drive)
    await put(drive, new)
    slow.go_on.set()
    assert await reading == (([old.blocks[0]], old.hashes) if reader == "read" else len(old.file))


async def test_a_file_that_was_read_since_it_was_chosen_is_not_written_over(open_drive, monkeypatch):
    """What was read may still be on its way to another pod out of pages of the file (`memory.pipes`)."""
    drive = await open_drive()
    old = Content(1)
    await put(drive, old)
    await delete(drive, old)
    reclaim = drive._parts.shards.reclaim
    chosen, go_on = threading.Event(), threading.Event()

    def slowly(*arguments) -> None:
        chosen.set()
        assert go_on.wait(20)
        reclaim(*arguments)

    monkeypatch.setattr(drive._parts.shards, "reclaim", slowly)
    reaping = asyncio.create_task(drive.reap())
    assert await asyncio.to_thread(chosen.wait, 20)
    await drive.fetch_blocks(old.data_id, 0, 1, None)
    go_on.set()
    assert await reaping == 1
    assert not spare_names(drive)


async def test_who_reads_after_it_was_reclaimed_finds_nothing_though_it_was_open(open_drive):
    drive = await open_drive()
    old, new = Content(1), Content(2)
    await put(drive, old)
    await drive.read_blocks(old.data_id, 0, 1)
    await delete(drive, old)
    await drive.reap()
    await put(drive, new)
    with pytest.raises(DriveError):
        await drive.read_blocks(old.data_id, 0, 1)


async def test_a_copy_made_of_links_stays_what_it_was(open_drive, tmp_path):
    drive = await open_drive()
    old, new = Content(1), Content(2)
    await put(drive, old)
    copy = tmp_path / "copy"
    copy.hardlink_to(old.place(drive.path))
    await delete(drive, old)
    await drive.reap()
    await put(drive, new)
    assert copy.read_bytes() == old.file


async def test_spares_are_there_after_a_restart(open_drive):
    drive = await open_drive()
    (inode,) = await reclaimed(drive, Content(1))
    await drive.close()
    again = await open_drive()
    new = Content(2)
    await put(again, new)
    assert new.place(again.path).stat().st_ino == inode


async def test_what_was_written_over_and_not_sealed_is_gone_after_a_crash(open_drive):
    drive = await open_drive()
    await reclaimed(drive, Content(1, (SIZE, SIZE)))
    new = Content(2, (SIZE, SIZE))
    await drive.stage(new.data_id, 0, new.blocks[:1], new.hashes[:1])
    assert not spare_names(drive)
    await drive.close()
    again = await open_drive()
    assert not list((again.path / "staging").iterdir())


async def test_a_file_that_cannot_be_opened_is_not_left_under_the_new_name(open_drive, monkeypatch):
    drive = await open_drive()
    await reclaimed(drive, Content(1))
    real = os.open

    def none_left(path, flags, *rest, **named):
        if "staging" in str(path) and flags & os.O_RDWR:
            raise OSError(errno.EMFILE, "Too many open files")
        return real(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", none_left)
    new = Content(2)
    with pytest.raises(DriveError):
        await drive.stage(new.data_id, 0, new.blocks, new.hashes, last=True)
    monkeypatch.undo()
    assert not list((drive.path / "staging").iterdir())
    assert await put(drive, new) is CommitStatus.OK


async def test_a_spare_that_somebody_took_away_is_not_missed(open_drive):
    drive = await open_drive()
    await reclaimed(drive, Content(1))
    for name in spare_names(drive):
        (drive.path / "staging" / name).unlink()
    assert await put(drive, Content(2)) is CommitStatus.OK


async def test_a_drive_that_fills_up_gives_its_spares_back(open_drive, monkeypatch):
    drive = await open_drive()
    await reclaimed(drive, *(Content(1 + number) for number in range(20)))
    assert len(spare_names(drive)) == 20
    space = drive._parts.space
    space.room = Room(space.room.total_bytes, int(0.09 * space.room.total_bytes), space.room.used_bytes)
    monkeypatch.setattr(space, "refresh", lambda: space.room)
    assert await drive.reap() == 0
    assert not spare_names(drive)
    await reclaimed(drive, Content(99))
    assert not spare_names(drive)


async def test_no_piece_of_work_removes_more_than_a_few_though_one_takes_the_room_of_many(open_drive, monkeypatch):
    """Hundreds of files in one piece take a slow disk longer than it may take without being said to hang."""
    drive = await open_drive()
    monkeypatch.setattr(spares, "MAX_BYTES", 5 << 20)
    await reclaimed(drive, *(Content(1 + number, (100_000,)) for number in range(50)))
    assert len(spare_names(drive)) == 50
    large = Content(99, (4 << 20,))
    await put(drive, large)
    await delete(drive, large)
    removed, of_each = [], []
    drop, on_thread = Spares.drop, drive._on_thread

    def noted(self, spare):
        removed.append(spare)
        drop(self, spare)

    async def counted(threads, work, watched=True):
        before = len(removed)
        result = await on_thread(threads, work, watched)
        of_each.append(len(removed) - before)
        return result

    monkeypatch.setattr(Spares, "drop", noted)
    monkeypatch.setattr(drive, "_on_thread", counted)
    await drive.reap()
    assert large.data_id.hex() + SUFFIX in spare_names(drive)
    assert len(removed) > 30
    assert max(of_each) <= UNLINKS_PER_JOB


# --- the spares alone


@pytest.fixture
def space(tmp_path: Path) -> Space:
    """Of a large drive that is half empty."""
    space = Space(tmp_path, ManualClock(), 0)
    space.room = ROOM
    return space


@pytest.fixture
def kept(tmp_path: Path, space: Space) -> Spares:
    return Spares(tmp_path, space)


@pytest.fixture
def files(tmp_path: Path, space: Space) -> ShardFiles:
    make_folders(tmp_path)
    return ShardFiles(tmp_path, ManualClock(), space, lambda _: None, lambda *_: None)


def offer(kept: Spares, folder: Path, size_bytes: int) -> Spare | None:
    place = folder / f"shard-{size_bytes}"
    with place.open("wb") as file:
        file.truncate(size_bytes)
    spare = kept.set_apart(place)
    if spare is not None:
        kept.add(spare)
        kept.trim(100)
    return spare


def taken(kept: Spares, folder: Path, size_bytes: int, whole: bool = True) -> int | None:
    path = folder / "taken"
    return path.stat().st_size if kept.take(path, size_bytes, whole) else None


MIB = 1 << 20


@pytest.mark.parametrize(("wanted", "got"), [
    (MIB, MIB), (MIB + 1, 2 * MIB), (2 * MIB, 2 * MIB), (2 * MIB + 1, 8 * MIB), (4 * MIB, 8 * MIB), (8 * MIB, 8 * MIB),
    (LEAST_BYTES, None), (9 * MIB, None),
])  # fmt: skip
def test_the_smallest_that_has_room_for_all_is_taken(kept, tmp_path, wanted, got):
    for size in (8 * MIB, MIB, 2 * MIB):
        offer(kept, tmp_path, size)
    expected = None if wanted == 2 * MIB + 1 else got  # four times as large would be freed again
    assert taken(kept, tmp_path, wanted) == expected


def test_of_what_comes_in_pieces_a_part_may_be_written_over(kept, tmp_path):
    for size in (8 * MIB, 2 * MIB):
        offer(kept, tmp_path, size)
    kept.streamed(32 * MIB)
    assert taken(kept, tmp_path, MIB, whole=False) == 8 * MIB
    assert taken(kept, tmp_path, 3 * MIB, whole=False) is None
    assert taken(kept, tmp_path, MIB, whole=False) == 2 * MIB


def test_they_are_bounded_in_number(kept, tmp_path, monkeypatch):
    monkeypatch.setattr(spares, "MAX_FILES", 3)
    found = [offer(kept, tmp_path, MIB + number) for number in range(5)]
    assert [spare is not None for spare in found] == [True] * 3 + [False] * 2
    assert not kept.wanted
    assert taken(kept, tmp_path, MIB) is not None
    assert kept.wanted


def test_they_are_bounded_by_a_share_of_the_drive(kept, tmp_path):
    kept._space.room = Room(total_bytes=500 * MIB, available_bytes=400 * MIB)
    assert [offer(kept, tmp_path, 2 * MIB + number) is not None for number in range(3)] == [True, True, False]
    assert taken(kept, tmp_path, 2 * MIB) is not None
    assert offer(kept, tmp_path, 2 * MIB + 9) is not None


def test_the_oldest_make_way_for_what_was_missed_and_for_no_more(kept, tmp_path, monkeypatch):
    monkeypatch.setattr(spares, "MAX_FILES", 3)
    former = [offer(kept, tmp_path, MIB + number) for number in range(3)]
    for _ in range(2):
        assert taken(kept, tmp_path, 8 * MIB) is None
    assert [offer(kept, tmp_path, 8 * MIB + number) is not None for number in range(3)] == [True, True, False]
    assert [spare is not None and spare.path.exists() for spare in former] == [False, False, True]
    assert [taken(kept, tmp_path, 8 * MIB) for _ in range(3)] == [8 * MIB, 8 * MIB + 1, None]
    assert taken(kept, tmp_path, MIB) == MIB + 2


def test_a_large_one_takes_the_room_of_many_small_ones(kept, tmp_path, monkeypatch):
    monkeypatch.setattr(spares, "MAX_BYTES", 8 * MIB)
    small = [offer(kept, tmp_path, MIB + number) for number in range(7)]
    assert taken(kept, tmp_path, 4 * MIB) is None
    assert offer(kept, tmp_path, 9 * MIB) is None
    assert offer(kept, tmp_path, 5 * MIB) is not None
    assert [spare is not None and spare.path.exists() for spare in small] == [False] * 5 + [True] * 2
    assert taken(kept, tmp_path, 4 * MIB) == 5 * MIB


def test_of_a_large_drive_they_take_less_than_that(kept, tmp_path, monkeypatch):
    monkeypatch.setattr(spares, "MAX_BYTES", 3 * MIB)
    assert [offer(kept, tmp_path, MIB + number) is not None for number in range(4)] == [True, True, False, False]


def test_what_lies_there_at_the_start_is_kept_within_the_same_bounds(kept, tmp_path, monkeypatch):
    monkeypatch.setattr(spares, "MAX_FILES", 1)
    paths = [tmp_path / f"{number}{SUFFIX}" for number in range(2)]
    for path in paths:
        path.write_bytes(bytes(MIB))
    other = tmp_path / "shard"
    other.write_bytes(bytes(MIB))
    assert [kept.found(path) for path in (*paths, other)] == [True, True, False]
    assert [path.exists() for path in (*paths, other)] == [True, False, True]
    assert taken(kept, tmp_path, MIB) == MIB


def test_what_cannot_be_set_apart_stays_where_it_is(kept, tmp_path, monkeypatch):
    def refused(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "replace", refused)
    assert offer(kept, tmp_path, MIB) is None
    assert (tmp_path / f"shard-{MIB}").exists()


def test_what_cannot_be_taken_is_removed(kept, tmp_path, monkeypatch):
    """It would be counted by nobody, and lie there until the next start."""
    spare = offer(kept, tmp_path, MIB)

    def refused(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", refused)
    assert taken(kept, tmp_path, MIB) is None
    assert not spare.path.exists()


def test_a_shard_of_which_an_older_copy_waits_is_reclaimed_once_more(files, tmp_path):
    """Healed under its old name, and dropped again: the second file is removed."""
    content = Content(1)
    for _ in range(2):
        content.place(tmp_path).write_bytes(content.file)
        files.reclaim(content.data_id, unnamed=True)
        assert not content.place(tmp_path).exists()
    assert files.spares._kept_bytes == len(content.file)
    taker, other = Content(2), Content(3)
    for new in (taker, other):
        files.stage(new.data_id, 0, new.blocks, new.hashes, last=True)
        files.seal_bytes(new.data_id)
        assert (tmp_path / "staging" / new.data_id.hex()).read_bytes() == new.file


def test_a_file_that_is_read_is_not_taken_for_the_spare_that_its_older_copy_left(files, tmp_path, monkeypatch):
    """Both have the same name; whether it is read is known only after it has left its place."""
    old, new = Content(1), Content(2)
    old.place(tmp_path).write_bytes(old.file)
    files.reclaim(old.data_id, unnamed=True)
    old.place(tmp_path).write_bytes(old.file)  # healed under its old name
    forget = files._reads.forget

    def and_meanwhile_another_is_written(data_id: bytes) -> bool:
        monkeypatch.setattr(files._reads, "forget", forget)
        files.stage(new.data_id, 0, new.blocks, new.hashes, last=True)
        return forget(data_id)

    monkeypatch.setattr(files._reads, "forget", and_meanwhile_another_is_written)
    with old.place(tmp_path).open("rb") as reader, files._reads.reading(old.data_id):
        files.reclaim(old.data_id, unnamed=True)
        assert reader.read() == old.file
    assert (tmp_path / "staging" / new.data_id.hex()).read_bytes() == new.file
