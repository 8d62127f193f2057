"""The tests that docs/operations.md calls to witness are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
TEXT = (ROOT / "docs" / "operations.md").read_text()
WITNESS = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def test_every_witness_exists() -> None:
    witnesses = WITNESS.findall(TEXT)
    assert len(witnesses) >= 20
    missing = []
    for path, name in witnesses:
        file = ROOT / path
        if not file.exists() or not re.search(rf"^(async )?def {name}\(", file.read_text(), re.MULTILINE):
            missing.append(f"{path}::{name}")
    assert missing == []


def test_every_pain_has_its_row() -> None:
    section = TEXT.partition("## What hurt elsewhere")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\d+) \| [^|]+ \| [^|]+ \| ([^|]+) \|$", section, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 18))
    for number, shown in rows:
        assert WITNESS.search(shown) or "Nothing" in shown, f"row {number} shows nothing and does not say so"
