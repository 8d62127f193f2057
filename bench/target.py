"""What is measured: endpoints, keys, and the processes whose CPU counts."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from holdfast_server.testing.pods import PodProcesses

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Target:
    name: str
    endpoints: tuple[tuple[str, int], ...]
    """Host and port; connections are spread over them."""
    access_key: str
    secret_key: str
    pids: tuple[int, ...]

    def cpu_seconds(self) -> float:
        """User and system time of all its processes, threads included."""
        return sum(_cpu_seconds(pid) for pid in self.pids)

    def resident_bytes(self) -> list[int]:
        pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self.pids]
        return [count * os.sysconf("SC_PAGE_SIZE") for count in pages]


def of_pods(name: str, pods: PodProcesses) -> Target:
    endpoints = tuple((pods.address(pod), 9000) for pod in sorted(pods.processes))
    pids = tuple(process.pid for process in pods.processes.values())
    return Target(name, endpoints, pods.access_key, pods.secret_key, pids)


def of_peer(text: str) -> Target:
    """`NAME=URL,KEY,SECRET,PID…`: any S3 endpoint that is running already.  Raises ValueError."""
    name, separator, rest = text.partition("=")
    fields = rest.split(",")
    if not separator or len(fields) < 4:
        raise ValueError(f"--peer {text!r}: expected NAME=URL,KEY,SECRET,PID[,PID…]")
    url = urlsplit(fields[0])
    if url.hostname is None:
        raise ValueError(f"--peer {text!r}: the URL has no host")
    pids = tuple(int(pid) for pid in fields[3:])
    return Target(name, ((url.hostname, url.port or 80),), fields[1], fields[2], pids)


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND
