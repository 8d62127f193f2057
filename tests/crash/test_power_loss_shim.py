"""The shim and the journal are what the power-loss tests stand on: tried on a program of a few calls."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast_server.testing.faults.power_loss import Loss, WatchedFolders


class Watched:
    def __init__(self, shim: Path, directory: Path) -> None:
        self.shim, self.data = shim, directory / "data"
        self.data.mkdir(parents=True)
        self.folders = WatchedFolders(self.data, directory / "power", directory / "grave")

    def run(self, program: str) -> None:
        """Python lines that see `data` (a Path), `sync(path)` and `os`."""
        begin = (
            "import os, sys, threading\nfrom pathlib import Path\ndata = Path(sys.argv[1])\n"
            "def sync(path):\n    d = os.open(path, os.O_RDONLY)\n    os.fsync(d)\n    os.close(d)\n"
        )
        environment = {**os.environ, **self.folders.environment(self.shim)}
        subprocess.run([sys.executable, "-c", begin + program, str(self.data)], env=environment, check=True)

    def cut(self, loss: Loss = Loss.EVERYTHING, seed: int = 1) -> dict[str, bytes]:
        """What is left, by relative path."""
        self.folders.cut(random.Random(seed), loss)
        return {str(path.relative_to(self.data)): path.read_bytes() for path in self.data.rglob("*") if path.is_file()}


@pytest.fixture
def watched(shim: Path, tmp_path: Path) -> Watched:
    return Watched(shim, tmp_path.resolve())


def test_bytes_and_names_without_fsync_are_lost(watched: Watched) -> None:
    watched.run("(data / 'a').write_bytes(b'x' * 10000)")
    assert watched.cut() == {}


def test_a_synced_file_whose_folder_was_not_synced_has_no_name(watched: Watched) -> None:
    watched.run("(data / 'a').write_bytes(b'x'); sync(data / 'a')")
    assert watched.cut() == {}


def test_a_synced_folder_keeps_the_name_of_a_file_that_lost_its_bytes(watched: Watched) -> None:
    watched.run("(data / 'a').write_bytes(b'x'); sync(data)")
    assert watched.cut() == {"a": b""}


def test_what_was_synced_stays_and_what_came_later_goes(watched: Watched) -> None:
    watched.run(
        "(data / 'a').write_bytes(b'kept'); sync(data / 'a'); sync(data)\n"
        "with open(data / 'a', 'r+b') as f: f.write(b'lost'); f.seek(100); f.write(b'hole')"
    )
    assert watched.cut() == {"a": b"kept"}


@pytest.mark.parametrize("loss", list(Loss))
def test_what_was_synced_stays_however_much_is_lost(watched: Watched, loss: Loss) -> None:
    for seed in range(5):
        watched.run(
            "(data / 'a').write_bytes(b'kept' * 1000); sync(data / 'a'); sync(data)\n"
            "with open(data / 'a', 'ab') as f: f.write(os.urandom(20000))\n"
            "(data / 'b').write_bytes(b'x')"
        )
        left = watched.cut(loss, seed)
        assert left["a"][:4000] == b"kept" * 1000


def test_a_rename_is_durable_with_the_folder_it_went_into_only(watched: Watched) -> None:
    watched.run("for n in 'st': os.mkdir(data / n)\nfor n in '', 's', 't': sync(data / n)")
    watched.cut()
    watched.run(
        "(data / 's/a').write_bytes(b'x'); sync(data / 's/a'); sync(data / 's')\n"
        "os.rename(data / 's/a', data / 't/a'); sync(data / 's')"
    )
    assert watched.cut() == {"s/a": b"x"}
    watched.run("os.rename(data / 's/a', data / 't/a'); sync(data / 't')")
    assert watched.cut() == {"t/a": b"x"}


def test_what_a_lost_rename_replaced_is_there_again(watched: Watched) -> None:
    watched.run(
        "(data / 'a').write_bytes(b'old'); sync(data / 'a'); sync(data)\n"
        "(data / 'b').write_bytes(b'new'); sync(data / 'b'); os.rename(data / 'b', data / 'a')"
    )
    assert watched.cut() == {"a": b"old"}


def test_a_lost_unlink_brings_the_file_back(watched: Watched) -> None:
    watched.run("(data / 'a').write_bytes(b'x'); sync(data / 'a'); sync(data)\nos.unlink(data / 'a')")
    assert watched.cut() == {"a": b"x"}
    watched.run("os.unlink(data / 'a'); sync(data)")
    assert watched.cut() == {}


def test_truncation_is_undone(watched: Watched) -> None:
    watched.run("(data / 'a').write_bytes(b'0123456789'); sync(data / 'a'); sync(data)\nos.truncate(data / 'a', 3)")
    assert watched.cut() == {"a": b"0123456789"}
    watched.run("open(data / 'a', 'wb').close()")
    assert watched.cut() == {"a": b"0123456789"}
    watched.run("os.truncate(data / 'a', 3); sync(data / 'a')")
    assert watched.cut() == {"a": b"012"}


def test_what_several_processes_and_threads_left_adds_up(watched: Watched) -> None:
    watched.run("(data / 'a').write_bytes(b''); sync(data)")
    watched.run("with open(data / 'a', 'ab') as f: f.write(b'one')")
    watched.run(
        "def write(n):\n    with open(data / f't{n}', 'wb') as f:\n        for _ in range(50): f.write(b'x' * 8192)\n"
        "        f.flush(); os.fsync(f.fileno())\n"
        "threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]; sync(data)"
    )
    assert watched.cut() == {"a": b"", **{f"t{n}": b"x" * 8192 * 50 for n in range(8)}}


def test_blocks_are_torn_and_reordered(watched: Watched) -> None:
    seen = set()
    for seed in range(12):
        watched.run("(data / 'a').write_bytes(b''); sync(data / 'a'); sync(data)")
        watched.run("(data / 'a').write_bytes(b'x' * 8192)")
        seen.add(watched.cut(Loss.SCATTERED, seed)["a"])
    assert any(b"x" in content and b"\0" in content for content in seen)
    assert len(seen) > 5


def test_a_way_of_writing_that_is_not_seen_ends_the_process(watched: Watched) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        watched.run("import mmap\nf = open(data / 'a', 'w+b'); f.truncate(4096); mmap.mmap(f.fileno(), 4096)")
