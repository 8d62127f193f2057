"""Who finds a staged shard while somebody else removes it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import xxhash

from holdfast_server.drives.faults import Fault
from holdfast_server.drives.port import DriveError, ShardMissing
from holdfast_server.drives.shard_files import STAGING_LIFETIME_SECONDS, ShardFiles, make_folders
from holdfast_server.drives.space import Space
from holdfast_server.drives.staged_shard import StagedShard
from holdfast_server.testing.manual_clock import ManualClock

DATA_ID = b"sixteen bytes id"
BLOCK = b"a" * 5000
HASH = xxhash.xxh3_128_digest(BLOCK)


class Files(ShardFiles):
    """With one thing done between finding a staged shard and locking it."""

    meanwhile: Callable[[], None] | None = None

    def _get(self, data_id: bytes) -> StagedShard | None:
        found = super()._get(data_id)
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return found


@pytest.fixture
def faults() -> list[Fault]:
    return []


@pytest.fixture
def files(tmp_path: Path, faults: list[Fault]) -> Files:
    make_folders(tmp_path)
    clock = ManualClock()
    return Files(tmp_path, clock, Space(tmp_path, clock, 0), faults.append, lambda *_: None)


@pytest.mark.parametrize("remove", ["discard", "reclaim"])
def test_what_is_staged_on_is_never_written_into_the_file_that_has_its_descriptor_now(
    files: Files, faults: list[Fault], tmp_path: Path, remove: str
) -> None:
    files.stage(DATA_ID, 0, [BLOCK], [HASH])
    others: list[int] = []

    def meanwhile() -> None:
        getattr(files, remove)(DATA_ID)
        others.extend(os.open(tmp_path / f"other{number}", os.O_RDWR | os.O_CREAT) for number in range(8))

    files.meanwhile = meanwhile
    with pytest.raises(DriveError, match="gone"):
        files.stage(DATA_ID, 1, [BLOCK], [HASH])
    assert [os.fstat(other).st_size for other in others] == [0] * 8
    assert not faults
    for other in others:
        os.close(other)


@pytest.mark.parametrize("remove", ["discard", "reclaim"])
def test_what_is_sealed_is_never_sealed_in_another_file(
    files: Files, faults: list[Fault], tmp_path: Path, remove: str
) -> None:
    files.stage(DATA_ID, 0, [BLOCK], [HASH])
    files.meanwhile = lambda: getattr(files, remove)(DATA_ID)
    with pytest.raises(ShardMissing):
        files.seal_bytes(DATA_ID)
    assert not faults
    assert not list((tmp_path / "staging").iterdir())


@pytest.mark.parametrize("remove", ["discard", "reclaim"])
def test_what_is_removed_before_its_name_is_durable_is_not_sealed(files: Files, remove: str) -> None:
    files.stage(DATA_ID, 0, [BLOCK], [HASH], True)
    assert files.seal_bytes(DATA_ID)
    files.meanwhile = lambda: getattr(files, remove)(DATA_ID)
    with pytest.raises(ShardMissing):
        files.finish_seal(DATA_ID)


@pytest.mark.parametrize("remove", ["discard", "reclaim"])
def test_what_is_removed_leaves_no_descriptor(files: Files, remove: str) -> None:
    before = len(os.listdir("/proc/self/fd"))
    files.stage(DATA_ID, 0, [BLOCK], [HASH])
    assert len(os.listdir("/proc/self/fd")) == before + 1
    shard = files._staged[DATA_ID]  # whoever was at it may have it yet
    getattr(files, remove)(DATA_ID)
    assert len(os.listdir("/proc/self/fd")) == before
    assert shard.path == files.staging_folder / DATA_ID.hex()


def test_what_is_begun_anew_outlives_the_removal_of_what_was_there(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.stage(DATA_ID, 0, [b"other"], [xxhash.xxh3_128_digest(b"other")])
    removing, go_on = threading.Event(), threading.Event()
    real = StagedShard.remove

    def remove(shard: StagedShard) -> None:
        removing.set()
        go_on.wait(30)
        real(shard)

    monkeypatch.setattr(StagedShard, "remove", remove)
    with ThreadPoolExecutor(2) as threads:
        discarded = threads.submit(files.discard, DATA_ID)
        assert removing.wait(30)
        staged = threads.submit(files.stage, DATA_ID, 0, [BLOCK], [HASH], True)
        threading.Timer(0.1, go_on.set).start()
        discarded.result(30)
        staged.result(30)
    assert files.seal_bytes(DATA_ID)
    files.finish_seal(DATA_ID)
    files.claim((DATA_ID,))
    files.place((DATA_ID,))
    assert files.read(DATA_ID, 0, 1) == ([BLOCK], [HASH])


def test_what_a_record_names_and_was_never_moved_is_moved_in_time_and_not_told_of_as_forgotten(
    files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    files.stage(DATA_ID, 0, [BLOCK], [HASH], True)
    files.seal_bytes(DATA_ID)
    files.finish_seal(DATA_ID)
    files.claim((DATA_ID,))
    files.discard_idle()
    assert not files.is_placed(DATA_ID)
    files._clock.advance(STAGING_LIFETIME_SECONDS + 1)  # type: ignore[attr-defined]
    files.discard_idle()
    assert files.is_placed(DATA_ID)
    assert files.read(DATA_ID, 0, 1) == ([BLOCK], [HASH])
    assert "forgotten" not in caplog.text
