"""A real Loki: the binary that HOLDFAST_LOKI names.  Without it these tests are skipped."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def loki_binary() -> Path:
    given = os.environ.get("HOLDFAST_LOKI")
    if not given:
        pytest.skip("HOLDFAST_LOKI does not name a Loki binary")
    path = Path(given).resolve()
    assert os.access(path, os.X_OK), f"HOLDFAST_LOKI: {path} cannot be run"
    return path
