"""CPU and memory of processes and of all that they started, from /proc.

A process that ended is in the figures of the one that waited for it, so nothing is lost when a worker is replaced.
What the kernel does in threads of its own (writing back, interrupts) belongs to no process: `machine_busy_seconds`
has it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Process:
    parent: int
    cpu_seconds: float
    """User and system time, all threads, and that of children that ended and were waited for."""
    resident_bytes: int


def _read(pid: int) -> Process | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    ticks = sum(int(field) for field in fields[11:15])
    return Process(int(fields[1]), ticks / _TICKS_PER_SECOND, int(fields[21]) * _PAGE_BYTES)


def tree(roots: Iterable[int]) -> dict[int, Process]:
    """These processes and all their descendants.  Raises ProcessLookupError if one of `roots` is gone."""
    found = {int(name): made for name in os.listdir("/proc") if name.isdigit() and (made := _read(int(name)))}
    children: dict[int, list[int]] = {}
    for pid, process in found.items():
        children.setdefault(process.parent, []).append(pid)
    kept: dict[int, Process] = {}
    left = list(roots)
    for pid in left:
        if pid not in found:
            raise ProcessLookupError(f"process {pid} is gone")
    while left:
        pid = left.pop()
        if pid not in kept:
            kept[pid] = found[pid]
            left += children.get(pid, [])
    return kept


def machine_busy_seconds() -> float:
    """What all CPUs together were not idle and not waiting for disks since the machine's start."""
    with open("/proc/stat") as stat:
        fields = [int(field) for field in stat.readline().split()[1:9]]
    user, nice, system, _idle, _waiting, hard, soft, stolen = fields
    del stolen  # taken by other machines: nobody's work here
    return (user + nice + system + hard + soft) / _TICKS_PER_SECOND
