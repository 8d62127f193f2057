"""A pod that is forked is what a program that is started would be, and ends with whoever it came from."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast_server.testing.free_ports import free_port
from holdfast_server.testing.preloaded import Forked, Stem

SERVER = "holdfast_server.main"
KEYS = {"HOLDFAST_ROOT_USER": "admin", "HOLDFAST_ROOT_PASSWORD": "password1"}
STARTING_SECONDS = 60.0


@pytest.fixture
def stem() -> Iterator[Stem]:
    stem = Stem()
    yield stem
    stem.close()


def start(
    stem: Stem,
    log: Path,
    *arguments: str,
    module: str = SERVER,
    environment: dict[str, str] | None = None,
    group: int | None = None,
) -> Forked:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}
    with log.open("ab") as file:
        return stem.start(module, arguments, {**inherited, **(environment or {})}, file, group)


def serving(stem: Stem, folder: Path, group: int | None = None) -> Forked:
    """A pod whose log has a line."""
    (folder / "drive").mkdir()
    arguments = ("server", str(folder / "drive"), "--address", f"127.0.0.1:{free_port()}")
    pod = start(stem, folder / "log", *arguments, environment=KEYS, group=group)
    while "event=serving" not in (folder / "log").read_text():
        assert pod.poll() is None, (folder / "log").read_text()
        select.select([], [], [], 0.05)
    return pod


def test_arguments_environment_output_and_exit_code_are_its_own(stem: Stem, tmp_path: Path) -> None:
    asked = start(stem, tmp_path / "asked", "--version")
    refused = start(stem, tmp_path / "refused", "server", "--config", "/nowhere", "--pod", "p")
    other = start(stem, tmp_path / "other", "server", str(tmp_path), environment={**KEYS, "HOLDFAST_LOG_LEVEL": "LOUD"})
    assert [one.wait(STARTING_SECONDS) for one in (asked, refused, other)] == [0, 2, 2]
    assert (tmp_path / "asked").read_text().startswith("holdfast ")
    assert "/nowhere" in (tmp_path / "refused").read_text()
    assert "'LOUD' is none of" in (tmp_path / "other").read_text()
    assert "found in sys.modules" not in "".join(path.read_text() for path in tmp_path.iterdir() if path.is_file())


def test_it_stops_when_asked_and_dies_when_killed(stem: Stem, tmp_path: Path) -> None:
    ends = {"asked": Forked.terminate, "killed": Forked.kill}
    codes = []
    for name, end in ends.items():
        (tmp_path / name).mkdir()
        pod = serving(stem, tmp_path / name)
        with pytest.raises(subprocess.TimeoutExpired):
            pod.wait(0.01)
        end(pod)
        codes.append(pod.wait(STARTING_SECONDS))
        pod.kill()  # nobody any more
        assert pod.poll() == pod.returncode == codes[-1]
    assert codes == [0, -signal.SIGKILL]


def test_another_module_may_alter_the_server(stem: Stem, tmp_path: Path) -> None:
    module = "holdfast_server.testing.faults.altered_server"
    words = ("--omit", "log-flush", "server", "--config", "/nowhere", "--pod", "p")
    assert start(stem, tmp_path / "log", *words, module=module).wait(STARTING_SECONDS) == 2
    assert "/nowhere" in (tmp_path / "log").read_text()


def test_pods_die_with_whoever_began_the_stem(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; sys.path[:0] = sys.argv[2:]; import test_preloaded as t; from holdfast_server.testing "
        "import preloaded; pod = t.serving(preloaded.Stem(), pathlib.Path(sys.argv[1])); print(pod.pid, flush=True); "
        "sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pod = os.pidfd_open(int(owner.stdout.readline()))
        try:
            owner.kill()
            assert select.select([pod], [], [], STARTING_SECONDS)[0]
        finally:
            os.close(pod)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_in_a_group_of_its_own_it_still_ends_with_the_stem(stem: Stem, tmp_path: Path) -> None:
    pod = serving(stem, tmp_path, group=12_345)
    assert "\nGid:\t12345\t12345\t" in Path(f"/proc/{pod.pid}/status").read_text()
    stem.close()
    assert pod.wait(STARTING_SECONDS) == -signal.SIGKILL


def test_whose_environment_counts_before_python_runs_is_not_forked() -> None:
    stem = Stem()
    assert stem.fits({**os.environ, "HOLDFAST_LOG_LEVEL": "DEBUG"})
    for name in ("LD_PRELOAD", "PYTHONPATH", "MALLOC_ARENA_MAX"):
        assert not stem.fits({**os.environ, name: "/elsewhere"})
