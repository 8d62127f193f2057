"""What a power cut leaves of the table's log, and what only rot can do to it: the one opens, the other does not."""

import shutil
from pathlib import Path

import pytest

from holdfast_server.drives.engine import Engine, EngineError

VALUE = b"v" * 40_000


def put(engine: Engine, name: str) -> None:
    engine.write([(f"r{name}/{index}".encode(), VALUE) for index in range(3)])


def log_file(folder: Path) -> Path:
    return max(folder.glob("*.log"), key=lambda path: path.stat().st_size)


def crashed(engine: Engine, folder: Path, to: Path) -> Path:
    """The folder as it is while the table is open, as if the process had died."""
    shutil.copytree(folder, to)
    (to / "LOCK").unlink()
    engine.close()
    return to


def punch(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(bytes(4096))


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    engine = Engine(tmp_path / "records", create=True)
    put(engine, "flushed")
    engine.flush()
    return engine


def test_a_hole_in_what_was_not_flushed_loses_only_that(engine: Engine, tmp_path: Path) -> None:
    durable = log_file(tmp_path / "records").stat().st_size
    put(engine, "lost")
    put(engine, "behind the hole")
    folder = crashed(engine, tmp_path / "records", tmp_path / "crashed")
    punch(log_file(folder), durable + 8192)
    found = Engine(folder, create=False)
    assert found.get([b"rflushed/2", b"rlost/0", b"rbehind the hole/0"]) == [VALUE, None, None]
    # And it goes on from there.
    put(found, "later")
    found.flush()
    found.close()
    again = Engine(folder, create=False)
    assert again.get([b"rflushed/2", b"rlater/2"]) == [VALUE, VALUE]
    again.close()


def test_a_hole_in_what_was_flushed_keeps_it_shut(engine: Engine, tmp_path: Path) -> None:
    durable = log_file(tmp_path / "records").stat().st_size
    put(engine, "second")
    engine.flush()
    put(engine, "says that the second was flushed")
    folder = crashed(engine, tmp_path / "records", tmp_path / "crashed")
    punch(log_file(folder), durable + 8192)
    with pytest.raises(EngineError, match="does not open"):
        Engine(folder, create=False)
