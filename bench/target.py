"""What is measured: endpoints, keys, and the processes whose CPU counts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from bench.processes import tree
from holdfast_server.testing.pods import PodProcesses


@dataclass(frozen=True, slots=True)
class Target:
    name: str
    endpoints: tuple[tuple[str, int], ...]
    """Host and port; connections are spread over them."""
    access_key: str
    secret_key: str
    pids: tuple[int, ...]
    """Its processes; their children count as well."""

    def cpu_seconds(self) -> float:
        """User and system time of all its processes, threads included."""
        return sum(process.cpu_seconds for process in tree(self.pids).values())

    def resident_bytes(self) -> list[int]:
        return [process.resident_bytes for process in tree(self.pids).values()]


def of_pods(name: str, pods: PodProcesses) -> Target:
    endpoints = tuple((pods.address(pod), 9000) for pod in sorted(pods.processes))
    pids = tuple(process.pid for process in pods.processes.values())
    return Target(name, endpoints, pods.access_key, pods.secret_key, pids)


def of_peer(text: str) -> Target:
    """`NAME=URL[+URL…],KEY,SECRET,PID…`: any S3 endpoint that is running already; instead of a PID the path of a
    folder with its daemons' `*.pid` files.  Raises ValueError."""
    name, separator, rest = text.partition("=")
    fields = rest.split(",")
    if not separator or len(fields) < 4:
        raise ValueError(f"--peer {text!r}: expected NAME=URL[+URL…],KEY,SECRET,PID|FOLDER[,…]")
    endpoints = tuple(_endpoint(text, url) for url in fields[0].split("+"))
    pids = tuple(pid for field in fields[3:] for pid in _pids(text, field))
    return Target(name, endpoints, fields[1], fields[2], pids)


def _endpoint(text: str, url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    if parts.hostname is None or parts.scheme != "http":
        raise ValueError(f"--peer {text!r}: expected http://HOST[:PORT], not {url!r}")
    return parts.hostname, parts.port or 80


def _pids(text: str, field: str) -> list[int]:
    if field.isdigit():
        return [int(field)]
    found = [int(path.read_text()) for path in sorted(Path(field).glob("*.pid"))]
    if not found:
        raise ValueError(f"--peer {text!r}: no *.pid files in {field!r}")
    return found
