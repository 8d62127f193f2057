"""What the wheel is made of reaches the build of the images, though `.dockerignore` keeps everything else out."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
WHEEL = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
SOURCES = sorted([*WHEEL["packages"], *WHEEL["force-include"]])


@pytest.mark.parametrize("source", SOURCES)
def test_a_source_of_the_wheel_is_let_through(source: str) -> None:
    """Of a folder, at least something that is tracked has to be."""
    let_through = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert any(source == path or source.startswith(f"{path}/") or path.startswith(f"{source}/") for path in let_through)
