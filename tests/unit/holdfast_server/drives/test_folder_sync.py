"""One fsync of a folder serves all who asked before it began; one that failed serves nobody ever again."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast_server.drives import durable_files
from holdfast_server.drives.durable_files import FolderSync

PATIENCE_SECONDS = 60.0


class _Gate:
    """Stands for `fsync_folder`: counts, and lets each call pass one by one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun = threading.Semaphore(0)
        self.go = threading.Semaphore(0)
        self.calls = 0
        self.error: OSError | None = None
        monkeypatch.setattr(durable_files, "fsync_folder", self._fsync)

    def _fsync(self, _folder: Path) -> None:
        self.calls += 1
        self.begun.release()
        assert self.go.acquire(timeout=PATIENCE_SECONDS)
        if self.error is not None:
            raise self.error


class _Asker:
    def __init__(self, sync: FolderSync) -> None:
        self.error: OSError | None = None
        self._thread = threading.Thread(target=self._run, args=(sync.sync,))
        self._thread.start()

    def _run(self, sync: Callable[[], None]) -> None:
        try:
            sync()
        except OSError as error:
            self.error = error

    def ended(self) -> OSError | None:
        self._thread.join(PATIENCE_SECONDS)
        assert not self._thread.is_alive()
        return self.error

    @property
    def waits(self) -> bool:
        return self._thread.is_alive()


def test_whoever_asks_meanwhile_shares_the_next_and_not_the_one_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, sync = _Gate(monkeypatch), FolderSync(tmp_path)
    first = _Asker(sync)
    assert gate.begun.acquire(timeout=PATIENCE_SECONDS)
    later = [_Asker(sync) for _ in range(5)]
    while len(sync._changed._waiters) < 5:  # type: ignore[attr-defined]
        pass
    gate.go.release()
    assert first.ended() is None
    assert gate.begun.acquire(timeout=PATIENCE_SECONDS)
    assert all(asker.waits for asker in later)
    gate.go.release()
    assert [asker.ended() for asker in later] == [None] * 5
    assert gate.calls == 2


def test_after_a_failure_all_fail_and_nothing_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, sync = _Gate(monkeypatch), FolderSync(tmp_path)
    gate.error = OSError(5, "Input/output error")
    first = _Asker(sync)
    assert gate.begun.acquire(timeout=PATIENCE_SECONDS)
    second = _Asker(sync)
    while not sync._changed._waiters:  # type: ignore[attr-defined]
        pass
    gate.go.release()
    assert first.ended() is gate.error
    assert second.ended() is gate.error
    with pytest.raises(OSError, match="Input/output"):
        sync.sync()
    assert gate.calls == 1


def test_one_after_the_other_each_has_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, sync = _Gate(monkeypatch), FolderSync(tmp_path)
    for _ in range(3):
        gate.go.release()
        sync.sync()
    assert gate.calls == 3


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_a_folder_that_could_not_be_opened_for_want_of_descriptors_is_synced_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Nothing was tried, so nothing is lost; and nobody takes that for a sync."""
    gate, sync = _Gate(monkeypatch), FolderSync(tmp_path)
    gate.error = OSError(number, "Too many open files")
    first = _Asker(sync)
    assert gate.begun.acquire(timeout=PATIENCE_SECONDS)
    second = _Asker(sync)
    gate.go.release()
    assert first.ended() is gate.error
    assert gate.begun.acquire(timeout=PATIENCE_SECONDS)
    assert second.waits
    gate.error = None
    gate.go.release()
    assert second.ended() is None
    assert gate.calls == 2
