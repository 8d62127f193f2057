"""docs/s3-compatibility.md says of every operation of the S3 API what the code says, and which test shows it.

A test shows an operation if it names the method of boto3 that asks for it (itself, or a helper of its module that it
names), so the column cannot name a test that is not there or does something else.  What the document says stays as long
as it is true; only then is another test looked for.

Run as a script, this writes the document's table anew:
`.venv/bin/python tests/unit/holdfast_server/api/test_documented_operations.py`
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from botocore import xform_name

from holdfast_server.api import off_answers
from holdfast_server.s3.operations import OPERATIONS, Operation

ROOT = Path(__file__).parents[4]
DOCUMENT = ROOT / "docs" / "s3-compatibility.md"
BEGIN = "<!-- operations: begin (written by tests/unit/holdfast_server/api/test_documented_operations.py) -->\n"
END = "<!-- operations: end -->\n"

FOLDERS = ("tests/blackbox", "tests/unit/holdfast_server/api")
"""Where tests are clients of the S3 API, those against real pods first."""
METHODS = {"PostObject": ("generate_presigned_post", "post_form")}
"""Where an operation is asked for by other names than its own."""
NO_CLIENTS = ("objects", "store")
"""Receivers of methods with the same names."""
OTHER_CLIENTS = ("operator", "kubectl", "helm", "other_clients")
"""In names of files whose clients have methods with the same names."""


def answer_of(row: Operation) -> str:
    if not row.implemented:
        return "501"
    return "off" if row.name in off_answers.OPERATIONS else "yes"


def request_of(row: Operation) -> str:
    path = {"service": "/", "bucket": "/bucket", "object": "/bucket/key"}[row.level]
    query = f"?{'&'.join(row.query)}" if row.query else ""
    return f"`{row.method} {path}{query}`" + "".join(f", `{header}`" for header in row.headers)


# --- which test shows what


def names_in(tree: ast.AST) -> Iterator[str]:
    """Attributes of clients, functions of the module, and texts (of paginators and of tables of methods)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            receiver = node.value
            if not (isinstance(receiver, ast.Attribute) and receiver.attr in NO_CLIENTS):
                yield node.attr
        elif isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@cache
def names_by_test(path: Path) -> dict[str, frozenset[str]]:
    """Test → every name in it, and in what it names of its own module."""
    found = {
        node.name: set(names_in(node))
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    grows = True
    while grows:
        grows = False
        for names in found.values():
            more = set().union(*(found[name] for name in names & found.keys())) - names
            names |= more
            grows = grows or bool(more)
    return {name: frozenset(names) for name, names in found.items() if name.startswith("test_")}


def shows(test: str, operation: str) -> bool:
    path, _, name = test.partition("::")
    methods = METHODS.get(operation, (xform_name(operation),))
    file = ROOT / path
    if not file.is_file() or any(other in file.stem for other in OTHER_CLIENTS):
        return False
    return not names_by_test(file).get(name, frozenset()).isdisjoint(methods)


@cache
def candidates(folder: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Tests of a folder in order, each with the names in its own body, as often as they are there."""
    found = []
    for file in sorted((ROOT / folder).glob("test_*.py")):
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                found.append((f"{file.relative_to(ROOT)}::{node.name}", tuple(names_in(node))))
    return tuple(found)


def shown_by(operation: str) -> str:
    """The one that is about it most, by how much of what it names is this; empty where there is none."""
    methods = METHODS.get(operation, (xform_name(operation),))
    for folder in FOLDERS:
        told = [
            (sum(name in methods for name in names) / len(names), test)
            for test, names in candidates(folder)
            if names and shows(test, operation)
        ]
        if told:
            return max(told)[1]
    return ""


def documented_tests(text: str) -> dict[str, str]:
    rows = re.findall(r"^\| (\w+) \| .* \| `(tests/\S+)` \|$", text, re.MULTILINE)
    return {operation: test for operation, test in rows if shows(test, operation)}


# --- the table


def table(documented: dict[str, str]) -> str:
    """One line per operation, those that work first, then by name; an operation with two addresses has two."""
    order = {"yes": 0, "off": 1, "501": 2}
    rows = sorted(OPERATIONS, key=lambda row: (order[answer_of(row)], row.name, row.level))
    lines = ["| operation | request | here | test that shows it |", "|---|---|---|---|"]
    for row in rows:
        test = (documented.get(row.name) or shown_by(row.name)) if row.implemented else ""
        lines.append(f"| {row.name} | {request_of(row)} | {answer_of(row)} | {f'`{test}`' if test else ''} |")
    return "\n".join(lines) + "\n"


def with_table(text: str) -> str:
    head, _, rest = text.partition(BEGIN)
    old, _, tail = rest.partition(END)
    return f"{head}{BEGIN}{table(documented_tests(old))}{END}{tail}"


def test_the_document_lists_every_operation_as_the_code_has_it() -> None:
    text = DOCUMENT.read_text()
    assert BEGIN in text
    assert END in text
    assert with_table(text) == text, "run this file as a script to write the table anew"


@pytest.mark.parametrize("operation", sorted({row.name for row in OPERATIONS if row.implemented}))
def test_every_operation_that_works_is_shown_by_a_test(operation: str) -> None:
    assert shown_by(operation)


def test_a_test_that_is_gone_or_does_something_else_shows_nothing() -> None:
    test = shown_by("GetObject")
    assert shows(test, "GetObject")
    assert not shows(test + "_no_more", "GetObject")
    assert not shows(test, "PutBucketCors")


if __name__ == "__main__":
    DOCUMENT.write_text(with_table(DOCUMENT.read_text()))
