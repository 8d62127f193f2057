"""Is there one order of the operations on one key's versions, agreeing with real time, that gives these answers?

The model of a key: its versions, the newest first, each with the number of the write that made it, whether it is locked
and whether its id is `null`.  What is asked of it:

- the plain read and listing: the first of them, if that is no delete marker;
- a read of a version by its id, a listing of versions: whether that version is there.  A listing is no instant: while
  it is made, one version may come and another go, so each line, and the lack of one, is an answer of its own.

A deletion by a lifecycle rule for replaced versions (`expire`) is one that never meets the first of them.

The search is that of `linearizability`, over more: reads that fit are taken at once, which costs no explanation.
Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from holdfast_server.testing.sim.history import DONE, MISSING, Operation
from holdfast_server.testing.sim.linearizability import MAX_CONFIGURATIONS, TooLong

LOCKED = "locked"

READS = ("get", "has", "get_null")
"""`get`: the plain read; `has`: whether a version is there; `get_null`: the one without an id of its own."""


class Version(NamedTuple):
    number: int
    locked: bool = False
    null: bool = False


Versions = tuple[Version, ...]


def explained(operations: Iterable[Operation], markers: Collection[int]) -> bool:
    """Whether the answers about one key have an explanation.  `markers`: writes that make delete markers.

    Raises TooLong.
    """
    history = _relevant(list(operations))
    must = sum(1 << i for i, op in enumerate(history) if op.certain)
    ends = [op.end if op.certain and op.end is not None else 1 << 60 for op in history]
    by_end = sorted(range(len(history)), key=ends.__getitem__)
    seen: set[tuple[int, Versions]] = set()
    stack: list[tuple[int, Versions]] = [(0, ())]
    while stack:
        done, versions = stack.pop()
        done, limit = _with_reads(done, versions, history, ends, by_end, markers)
        if done & must == must:
            return True
        if (done, versions) in seen:
            continue
        seen.add((done, versions))
        if len(seen) > MAX_CONFIGURATIONS:
            raise TooLong
        for i, operation in enumerate(history):
            if not done >> i & 1 and operation.start <= limit and operation.kind not in READS:
                stack.extend((done | 1 << i, after) for after in changed(versions, operation))
    return False


def _with_reads(
    done: int,
    versions: Versions,
    history: Sequence[Operation],
    ends: Sequence[int],
    by_end: Sequence[int],
    markers: Collection[int],
) -> tuple[int, int]:
    """What is done once every read that may come now, and fits, has come; and until when others may begin."""
    while True:
        limit = next((ends[i] for i in by_end if not done >> i & 1), 1 << 60)
        fitting = [
            i
            for i, op in enumerate(history)
            if not done >> i & 1 and op.kind in READS and op.start <= limit and fits(versions, op, markers)
        ]
        if not fitting:
            return done, limit
        for i in fitting:
            done |= 1 << i


def fits(versions: Versions, read: Operation, markers: Collection[int]) -> bool:
    """Whether that is the answer to a read."""
    if read.kind == "has":
        return read.result == any(version.number == read.number for version in versions)
    if read.kind == "get_null":
        return read.result == next((version.number for version in versions if version.null), None)
    first = versions[0].number if versions and versions[0].number not in markers else None
    return read.result == first


def changed(versions: Versions, operation: Operation) -> list[Versions]:
    """What there may be afterwards; nothing if the answer does not fit what was there before."""
    number, result = operation.number, operation.result if operation.certain else None
    there = next((version for version in versions if version.number == number), None)
    match operation.kind:
        case "put" | "mark":
            return [(Version(number), *versions)]
        case "put_null":
            return [(Version(number, null=True), *(version for version in versions if not version.null))]
        case "delete":
            locked = there is not None and there.locked
            if result == LOCKED or locked:
                return [versions] if locked and result != DONE else []
            return [tuple(version for version in versions if version.number != number)]
        case "expire":
            if versions and versions[0].number == number:
                return [versions] if result != DONE else []
            return changed(versions, replace(operation, kind="delete"))
        case "delete_null":
            return [tuple(version for version in versions if not version.null)]
        case "lock":
            if there is None or result == MISSING:
                return [versions] if there is None and result != DONE else []
            return [tuple(v._replace(locked=True) if v.number == number else v for v in versions)]
    raise AssertionError(operation.kind)


def _relevant(operations: Sequence[Operation]) -> list[Operation]:
    """Without reads that gave no answer, and open puts that nobody saw anything of."""
    observed = {op.number for op in operations if op.kind == "has" and op.certain and op.result}
    observed |= {op.result for op in operations if op.kind in READS and op.certain}  # type: ignore[misc]
    return [
        op for op in operations if op.certain or (op.kind not in READS and (op.kind != "put" or op.number in observed))
    ]
