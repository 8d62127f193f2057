"""What the wheel is made of reaches the build of the images, which sees only what .dockerignore names."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_part_of_the_wheel_is_in_the_context_of_the_images() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    parts = [*wheel["packages"], *wheel["force-include"]]
    assert parts
    shown = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    folders = {"crds": {f"crds/{path.name}" for path in (ROOT / "crds").iterdir()}}
    needed = {one for part in parts for one in folders.get(part, {part})}
    assert needed - shown == set()
    assert all((ROOT / part).exists() for part in parts)
