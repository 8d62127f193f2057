"""docs/s3-compatibility.md says of every operation of the S3 API what the code says.

Run as a script, this writes the document's table anew:
`.venv/bin/python tests/unit/holdfast_server/api/test_documented_operations.py`
"""

from __future__ import annotations

from pathlib import Path

from holdfast_server.api import off_answers
from holdfast_server.s3.operations import OPERATIONS, Operation

DOCUMENT = Path(__file__).parents[4] / "docs" / "s3-compatibility.md"
BEGIN = "<!-- operations: begin (written by tests/unit/holdfast_server/api/test_documented_operations.py) -->\n"
END = "<!-- operations: end -->\n"


def answer_of(row: Operation) -> str:
    if not row.implemented:
        return "501"
    return "off" if row.name in off_answers.OPERATIONS else "yes"


def request_of(row: Operation) -> str:
    path = {"service": "/", "bucket": "/bucket", "object": "/bucket/key"}[row.level]
    query = f"?{'&'.join(row.query)}" if row.query else ""
    return f"`{row.method} {path}{query}`" + "".join(f", `{header}`" for header in row.headers)


def table() -> str:
    """One line per operation, those that work first, then by name; an operation with two addresses has two."""
    order = {"yes": 0, "off": 1, "501": 2}
    rows = sorted(OPERATIONS, key=lambda row: (order[answer_of(row)], row.name, row.level))
    lines = [f"| {row.name} | {request_of(row)} | {answer_of(row)} |" for row in rows]
    return "\n".join(["| operation | request | here |", "|---|---|---|", *lines]) + "\n"


def with_table(text: str) -> str:
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}{table()}{END}{tail}"


def test_the_document_lists_every_operation_as_the_code_has_it() -> None:
    text = DOCUMENT.read_text()
    assert BEGIN in text
    assert END in text
    assert with_table(text) == text, "run this file as a script to write the table anew"


if __name__ == "__main__":
    DOCUMENT.write_text(with_table(DOCUMENT.read_text()))
