"""No request may come to cost more messages, syncs, copies or Python calls than `bench/counts/bounds.toml` says.

Counts, not times: they are the same on a busy machine.  `python -m bench.counts` prints them.
"""

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
BOUNDS = tomllib.loads((ROOT / "bench" / "counts" / "bounds.toml").read_text())
TIMEOUT_SECONDS = 600
"""It takes seven seconds of a processor."""

pytestmark = pytest.mark.timeout(TIMEOUT_SECONDS + 60)


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    """From a process of its own, because counting alters classes and the loop's clock."""
    command = [sys.executable, "-m", "bench.counts", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_SECONDS)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


def test_every_operation_is_counted_and_has_bounds(report: dict[str, Any]) -> None:
    assert set(report["counted"]) == set(BOUNDS)


@pytest.mark.parametrize("operation", BOUNDS)
def test_a_request_takes_no_more_than_its_bounds(operation: str, report: dict[str, Any]) -> None:
    exceeded = report["exceeded"][operation]
    assert not exceeded, f"{operation}: {'; '.join(exceeded)}\nall of it: {report['counted'][operation]}"
