"""The commands of docs/operations.md are run as they stand there, against one stand-in cluster, in their order there.

In a fenced block `console`, `$ ` begins a command and `> ` goes on with it, as does whatever follows a line that ends
in a backslash; the lines below are what it prints, with `…` for anything, and runs of blanks alike.  A command without
such lines has to succeed; one whose output begins like a refusal has to fail.  After each section what was stored
before the first one is read back.  Sections that wait for long are left to `make soak` (HOLDFAST_ALL_OPERATIONS).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from holdfast_operator.testing.cluster import Cluster, wait_for
from holdfast_operator.testing.traffic import s3
from holdfast_server.testing.standin import StandIn

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "operations.md"
CHAPTER = "Day by day"
SLOW = ("Upgrade", "Replace a drive", "Lose a node for good")
"""A roll takes ten seconds a pod, an empty volume is adopted half a minute after it was seen."""
NOT_RUN = ("helm ",)
"""tests/blackbox/test_helm_on_standin.py has these."""
REFUSALS = ("Error", "The Tenant")
SECTION_TIMEOUT_SECONDS = 1200
NAMESPACE, NAME = "loki", "logs"
KEPT = {f"kept/{size}": bytes([size % 251]) * size for size in (0, 1000, 3_000_000)}

pytestmark = [
    pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed"),
    pytest.mark.timeout(SECTION_TIMEOUT_SECONDS + 300),
]


@dataclass
class Command:
    text: str
    output: list[str] = field(default_factory=list)

    @property
    def refused(self) -> bool:
        return bool(self.output) and self.output[0].startswith(REFUSALS)

    def matches(self, printed: str) -> bool:
        """Whether that is what the document says; it may say nothing."""
        if not self.output:
            return True
        parts = [".*" if line == "…" else r"\s+".join(map(_pattern, line.split())) for line in self.output]
        return re.fullmatch(r"\s*\n?".join(parts) + r"\s*", printed.strip("\n"), re.DOTALL) is not None


def _pattern(word: str) -> str:
    return ".*".join(re.escape(part) for part in word.split("…"))


def sections() -> dict[str, list[Command]]:
    """Heading → its commands."""
    chapter = DOCUMENT.read_text().split(f"\n## {CHAPTER}\n")[1].split("\n## ")[0]
    found: dict[str, list[Command]] = {}
    for part in chapter.split("\n### ")[1:]:
        heading, _, text = part.partition("\n")
        commands = [c for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL) for c in _commands(block)]
        if commands:
            found[heading] = commands
    return found


def _commands(block: str) -> Iterator[Command]:
    command: Command | None = None
    for line in block.splitlines():
        if line.startswith("$ "):
            if command is not None:
                yield command
            command = Command(line[2:])
        elif command is None:
            raise AssertionError(f"output without a command: {line}")
        elif line.startswith("> ") or command.text.endswith("\\"):
            command.text += "\n" + line.removeprefix("> ")
        else:
            command.output.append(line)
    if command is not None:
        yield command


SECTIONS = sections()


@pytest.fixture(scope="module")
def standin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandIn]:
    standin = StandIn(tmp_path_factory.mktemp("operations") / "state", ROOT / "examples/smallest.yaml", nodes=4)
    standin.start()
    try:
        yield standin
    finally:
        standin.stop()


@pytest.fixture(scope="module")
def cluster(standin: StandIn) -> Iterator[Cluster]:
    """Without the Tenant that it came with."""
    cluster = Cluster(standin.kubeconfig)
    cluster.delete_tenant("default", "small")
    wait_for("its pods to go", lambda: not cluster.names("pod", "default"))
    yield cluster
    cluster.close()


def run(commands: list[Command], folder: Path, kubeconfig: Path) -> list[tuple[int, str]]:
    """In one shell, up to the first that ends otherwise than told; exit code and output of each."""
    folder.mkdir()
    script = "\n".join(
        f"{{ {command.text}\n}} >{folder}/{index}.out 2>&1; code=$?; echo $code >{folder}/{index}.code\n"
        f"if [ $code {'=' if command.refused else '!='} 0 ]; then exit; fi"
        for index, command in enumerate(commands)
    )
    environment = {
        "HOME": str(folder),
        "KUBECONFIG": str(kubeconfig),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    subprocess.run(
        ["bash", "-c", script], cwd=_checkout(folder), env=environment, check=True, timeout=SECTION_TIMEOUT_SECONDS
    )
    told = []
    for index in range(len(commands)):
        code = folder / f"{index}.code"
        if not code.exists():
            break
        told.append((int(code.read_text()), (folder / f"{index}.out").read_text()))
    return told


def _checkout(folder: Path) -> Path:
    """A folder like that of a checkout, in which files may be written."""
    place = folder / "checkout"
    place.mkdir()
    for name in ("charts", "crds", "deploy", "examples", "kustomization.yaml"):
        source = ROOT / name
        shutil.copytree(source, place / name) if source.is_dir() else shutil.copy(source, place / name)
    return place


def store(cluster: Cluster, endpoint: str) -> Any:
    return s3(endpoint, cluster.secret(NAMESPACE, f"{NAME}-root"))


def test_the_document_tells_how_to_do_what_operators_have_to_do() -> None:
    expected = ["Install", "Upgrade", "Grow", "Shrink", "Replace a drive", "Lose a node", "Rotate keys"]
    expected += ["Restore from claims", "Remove"]
    assert [heading for heading in SECTIONS if heading in expected] == expected
    assert set(SLOW) <= set(SECTIONS)
    assert all(commands for commands in SECTIONS.values())


def test_what_is_printed_is_compared() -> None:
    command = Command("x", ["NAME READY", "logs True …", "…", "last"])
    assert command.matches("NAME   READY\nlogs   True   5s\nanything\nat all\nlast\n")
    assert not command.matches("NAME   READY\nlogs   False   5s\nlast\n")
    assert not command.matches("NAME   READY\nlogs   True   5s\nlast\nand more\n")
    assert Command("x").matches("whatever")


@pytest.mark.parametrize("heading", SECTIONS)
def test_the_commands_do_what_the_document_says(
    heading: str, standin: StandIn, cluster: Cluster, tmp_path: Path
) -> None:
    if heading in SLOW and "HOLDFAST_ALL_OPERATIONS" not in os.environ:
        pytest.skip("make soak runs it")
    commands = [command for command in SECTIONS[heading] if not command.text.startswith(NOT_RUN)]
    told = run(commands, tmp_path / "run", standin.kubeconfig)
    for command, (code, printed) in zip(commands, told, strict=False):
        assert (code != 0) == command.refused, f"$ {command.text}\n{printed}\nended with {code}"
        assert command.matches(printed), f"$ {command.text}\n{printed}\nwhere the document says\n{command.output}"
    assert len(told) == len(commands)
    if heading == "Remove":
        assert not cluster.names("pod", NAMESPACE)
        return
    wait_for("the Tenant to be whole", lambda: cluster.tenant(NAMESPACE, NAME)["status"]["health"] == "Healthy")
    with cluster.endpoint(NAMESPACE, NAME) as endpoint:
        client = store(cluster, endpoint)
        if heading == "Install":
            for key, body in KEPT.items():
                client.put_object(Bucket="loki-chunks", Key=key, Body=body)
        for key, body in KEPT.items():
            assert client.get_object(Bucket="loki-chunks", Key=key)["Body"].read() == body, key
