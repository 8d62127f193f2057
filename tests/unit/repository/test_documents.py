"""What the documents name is there: links, files, make targets, the pod's variables."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from holdfast_server import main

ROOT = Path(__file__).resolve().parents[3]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
LINK = re.compile(r"\]\(([^)\s]+)\)")
PATH = re.compile(r"`((?:tests|docs|examples|charts|images|server|operator|local|crds)/[A-Za-z0-9_./-]+)`")
TARGET = re.compile(r"(?:`|^\$ )make ([a-z0-9]+)", re.MULTILINE)


def anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_paths_lead_somewhere(document: Path) -> None:
    dead = []
    for link in LINK.findall(document.read_text()):
        file, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = (document.parent / file).resolve() if file else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    dead += [path for path in PATH.findall(document.read_text()) if not (ROOT / path).exists()]
    assert dead == []


def test_every_make_target_that_is_named_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z0-9]+):", makefile, re.MULTILINE))
    named = {target for document in DOCUMENTS for target in TARGET.findall(document.read_text())}
    assert "run" in named
    assert named <= targets, named - targets


def test_every_make_target_for_people_is_in_its_help() -> None:
    shown = subprocess.run(["make", "-s", "help"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert {line.split()[1] for line in shown.splitlines()} >= {"run", "stop", "clean", "test", "lint", "images"}


def test_operations_explains_every_variable_of_a_pod() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    variables = set(re.findall(r"\bHOLDFAST_[A-Z_]+", Path(main.__file__).read_text()))
    assert len(variables) >= 5
    assert {name for name in variables if f"`{name}`" not in text} == set()


def test_deleting_what_an_example_made_leaves_the_claims() -> None:
    """`kubectl delete -f` of a file with a namespace in it would take all data along."""
    examples = [path.read_text() for path in (ROOT / "examples").rglob("*.yaml")]
    assert len(examples) >= 3
    assert not any(re.search(r"^kind: Namespace", text, re.MULTILINE) for text in examples)
