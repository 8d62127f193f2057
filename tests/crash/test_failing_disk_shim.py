"""The library that makes disks fail is what the tests of failing drives stand on: every way that a pod reads, writes
and syncs has to be seen by it."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast_server.testing.faults.failing_disk import FailingDisk

CALLS = {
    "read": [
        "os.read(d, 1)", "os.pread(d, 1, 0)", "os.readv(d, [bytearray(1)])", "os.preadv(d, [bytearray(1)], 0)",
        "os.splice(d, os.pipe()[1], 1, offset_src=0)",
    ],
    "write": ["os.write(d, b'x')", "os.pwrite(d, b'x', 0)", "os.writev(d, [b'x'])", "os.pwritev(d, [b'x'], 0)"],
    "sync": ["os.fsync(d)", "os.fdatasync(d)"],
}  # fmt: skip
PROGRAM = """
import json, os, sys
def outcome(call, path):
    d = os.open(path, os.O_RDWR)
    try:
        eval(call)
    except OSError as error:
        return error.errno
    return 0
calls = json.loads(sys.argv[1])
print(json.dumps([{call: outcome(call, path) for call in calls} for path in sys.argv[2:]]))
"""


@pytest.mark.parametrize("kind", CALLS)
def test_each_way_to_call_is_seen_below_the_folder_and_nowhere_else(
    kind: str, disk: FailingDisk, tmp_path: Path
) -> None:
    for name in ("failing", "working"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(b"abc")
    disk.set((kind, "eio", tmp_path / "failing"))
    files = [str(tmp_path / name / "file") for name in ("failing", "working")]
    failing, working = run(disk, json.dumps(CALLS[kind]), *files)
    assert failing == dict.fromkeys(CALLS[kind], errno.EIO)
    assert working == dict.fromkeys(CALLS[kind], 0)


def run(disk: FailingDisk, *arguments: str) -> list[dict[str, int]]:
    """Each call's errno on each file, 0 for none."""
    environment = {**os.environ, **disk.environment}
    command = [sys.executable, "-c", PROGRAM, *arguments]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    found: list[dict[str, int]] = json.loads(done.stdout)
    return found
