"""`python -m bench` over every workload, against endpoints without a store: no pods, so it takes seconds."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast_server.testing.free_ports import free_port

ROOT = Path(__file__).resolve().parents[3]
LIMIT_SECONDS = 500.0

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture
def peer() -> Iterator[tuple[int, int]]:
    """Port and pid of an endpoint."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "bench.nothing", "127.0.0.1", str(port)], cwd=ROOT)
    try:
        end = time.monotonic() + LIMIT_SECONDS
        while not listens(port):
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
        yield port, process.pid
    finally:
        process.kill()
        process.wait()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def bench(directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", "--peers-only", "--directory", str(directory), "--seconds", "0.1",
               "--rounds", "1", "--rest", "0.1", "--keys", "20", *options]  # fmt: skip
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False)


def test_every_workload_runs_over_peers_and_is_told(peer: tuple[int, int], tmp_path: Path) -> None:
    port, pid = peer
    pids = tmp_path / "daemons"
    pids.mkdir()
    (pids / "one.pid").write_text(f"{pid}\n")
    url = f"http://127.0.0.1:{port}"
    ended = bench(
        tmp_path, "--ceiling", "--peer", f"One={url},key,secret,{pid}", "--peer", f"Two={url}+{url},k,s,{pids}"
    )
    assert ended.returncode == 0, ended.stderr
    result = json.loads((tmp_path / "results.json").read_text())
    assert {row["target"] for row in result["rows"]} == {"One", "Two", "no store"}
    assert len({row["workload"] for row in result["rows"]}) == len(result["rows"]) / 3
    for row in result["rows"]:
        assert row["operations"] > 0, row
        assert row["errors"] == 0, row
    assert {"GET", "HEAD", "PUT"} <= set(next(r for r in result["rows"] if "mixed" in r["workload"])["by_kind"])
    assert [row["processes"] for row in result["rest"]] == [1, 1]
    for name in ("benchmarks-cpu.svg", "benchmarks-rate.svg"):
        assert ElementTree.parse(tmp_path / name).getroot().tag.endswith("svg")
    assert "The load generator" in (tmp_path / "results.md").read_text()


@pytest.mark.parametrize("text", ["One=http://host,key", "One=http://h,k,s,/gone"])
def test_a_peer_that_is_told_badly_is_refused(text: str, tmp_path: Path) -> None:
    ended = bench(tmp_path, "--peer", text)
    assert ended.returncode == 2
    assert "--peer" in ended.stderr
