"""`python -m bench.plot results.json figure.svg`: bars per workload and target, as one SVG and without any library.

Each workload has a scale of its own, so that slow and fast ones are both legible.  Bars are CPU per operation: shorter
is better.  The generator's ceiling is no store and is left out.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from bench.nothing import NAME as NOTHING
from bench.report import rate

FIELDS = {
    "cpu": ("cpu_microseconds_per_operation", "CPU µs per operation, all daemons (shorter is better)"),
    "rate": ("operations_per_second", "Operations per second (longer is better)"),
}
COLOURS = ("#2a78b8", "#7fb2d9", "#c8553d", "#8c8c46", "#6d5a9c", "#4d9078", "#b5838d", "#777777")
WIDTH, LABELS, BAR, GAP, VALUES = 860, 190, 15, 12, 110
STYLE = "text{font:12px system-ui,sans-serif;fill:#222}.h{font-weight:600}rect.page{fill:#fff}"


def figure(rows: list[dict[str, Any]], field: str, title: str) -> str:
    """The SVG's text."""
    rows = [row for row in rows if row["target"] != NOTHING]
    targets = list(dict.fromkeys(row["target"] for row in rows))
    colours = {target: COLOURS[index % len(COLOURS)] for index, target in enumerate(targets)}
    parts, y = [f'<text class="h" x="10" y="20">{escape(title)}</text>'], 38
    for index, target in enumerate(targets):
        x = 10 + index % 4 * 210
        parts.append(f'<rect x="{x}" y="{y - 9}" width="10" height="10" fill="{colours[target]}"/>')
        parts.append(f'<text x="{x + 15}" y="{y}">{escape(target)}</text>')
        y += 18 if index % 4 == 3 else 0
    y += 20
    for workload in dict.fromkeys(row["workload"] for row in rows):
        found = [row for row in rows if row["workload"] == workload]
        most = max(row[field] for row in found) or 1
        parts.append(f'<text x="10" y="{y + len(found) * BAR / 2 + 4}">{escape(workload)}</text>')
        for row in found:
            width = max(1.0, row[field] / most * (WIDTH - LABELS - VALUES))
            name = f"{row['target']}, {workload}"
            parts.append(
                f'<rect x="{LABELS}" y="{y}" width="{width:.1f}" height="{BAR - 2}" fill="{colours[row["target"]]}">'
                f"<title>{escape(name)}</title></rect>"
                f'<text x="{LABELS + width + 5:.1f}" y="{y + 11}">{rate(row[field])}</text>'
            )
            y += BAR
        y += GAP
    size = f'width="{WIDTH}" height="{y}" viewBox="0 0 {WIDTH} {y}"'
    page = f'<rect class="page" width="{WIDTH}" height="{y}"/>'
    body = "\n".join([f"<style>{STYLE}</style>", page, *parts])
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n{body}\n</svg>\n'


def write(rows: list[dict[str, Any]], folder: Path) -> list[Path]:
    """One file per figure; returns their paths."""
    made = []
    for name, (field, title) in FIELDS.items():
        path = folder / f"benchmarks-{name}.svg"
        path.write_text(figure(rows, field, title))
        made.append(path)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.plot", description="SVG figures of a run's JSON")
    parser.add_argument("results", type=Path)
    parser.add_argument("folder", type=Path, help="where benchmarks-*.svg are written")
    options = parser.parse_args()
    for path in write(json.loads(options.results.read_text())["rows"], options.folder):
        print(path)


if __name__ == "__main__":
    main()
