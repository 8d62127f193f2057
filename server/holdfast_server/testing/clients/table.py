"""The table of clients in docs/s3-compatibility.md: read, compared, written anew."""

from __future__ import annotations

from collections.abc import Mapping

from holdfast_server.testing.clients.operations import OPERATIONS

BEGIN = "<!-- clients: begin (written by tests/blackbox/test_client_table.py) -->"
END = "<!-- clients: end -->"


def rows_of(document: str) -> dict[str, dict[str, str]]:
    """Client → operation → cell, as documented; the version is not part of the name."""
    block = document.partition(BEGIN)[2].partition(END)[0]
    found = {}
    for line in block.splitlines()[3:]:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        found[cells[0]] = dict(zip(OPERATIONS, cells[2:], strict=True))
    return found


def versions_of(document: str) -> dict[str, str]:
    """Client → the version that was run."""
    block = document.partition(BEGIN)[2].partition(END)[0]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()[3:]]
    return {cells[0]: cells[1] for cells in lines}


def with_rows(document: str, rows: Mapping[str, Mapping[str, str]], versions: Mapping[str, str]) -> str:
    """The document with these rows put in or replaced; rows of clients that did not run stay."""
    merged = {**rows_of(document), **rows}
    told = {**versions_of(document), **versions}
    lines = [f"| client | version | {' | '.join(OPERATIONS)} |", "|---" * (len(OPERATIONS) + 2) + "|"]
    for client in sorted(merged, key=str.lower):
        cells = [merged[client][name] for name in OPERATIONS]
        lines.append(f"| {client} | {told[client]} | {' | '.join(cells)} |")
    head, _, rest = document.partition(BEGIN)
    return "\n".join([head + BEGIN, *lines, END]) + rest.partition(END)[2]
