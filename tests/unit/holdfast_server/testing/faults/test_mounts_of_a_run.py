"""A test run may be killed while file systems are mounted for it: the next must not meet them, nor mind if it does."""

import getpass
import os
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast_server.testing.faults.failing_disk import CannotMount, small_file_system

ROOT = Path(__file__).parents[5]
RUN = """
import sys, time
from pathlib import Path
from holdfast_server.testing.faults.failing_disk import keep_mounts_to_oneself, small_file_system
print(keep_mounts_to_oneself(), flush=True)
with small_file_system(Path(sys.argv[1]), 1 << 20) as folder:
    print(folder.is_mount(), flush=True)
    time.sleep(600)
"""
TEST = "def test_with_a_folder(tmp_path):\n    pass\n"


@pytest.fixture(autouse=True)
def may_mount(tmp_path: Path) -> None:
    try:
        with small_file_system(tmp_path / "probe", 1 << 20):
            pass
    except CannotMount as error:
        pytest.skip(str(error))


def test_what_a_killed_run_mounted_goes_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    with subprocess.Popen([sys.executable, "-c", RUN, str(folder)], stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        kept_to_itself, mounted = run.stdout.readline(), run.stdout.readline()
        seen_by_others = folder.is_mount()
        run.kill()
    assert mounted == b"True\n"
    if kept_to_itself == b"False\n":
        pytest.skip("here, what one process mounts, all have")
    assert not seen_by_others
    folder.rmdir()


def test_a_run_is_not_judged_by_what_another_left(tmp_path: Path) -> None:
    runs = tmp_path / f"pytest-of-{getpass.getuser()}"
    left = runs / "pytest-0" / "small"
    (runs / "pytest-9").mkdir(parents=True)
    test = tmp_path / "test_small.py"
    test.write_text(TEST)
    command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "-p", "no:cacheprovider", str(test)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment["PYTEST_DEBUG_TEMPROOT"] = str(tmp_path)
    with small_file_system(left, 1 << 20):
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        (met,) = runs.glob("garbage-*")
        # Where it is unmounted.
        met.rename(left.parent)
    assert done.returncode == 0, done.stdout + done.stderr
