"""Is there one order of the operations, agreeing with real time, in which a single register gives these answers?

Wing and Gong's search with Lowe's memory of configurations already seen.  An operation whose outcome nobody knows may
happen at any moment after its start, or never.  A completed upload is a write that repeated calls do not repeat: where
one has taken effect, further calls for it may be answered without effect.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from holdfast_server.testing.sim.history import CONFLICT, LIVE, MISMATCH, MISSING, WRITES, Operation, Value

MAX_CONFIGURATIONS = 300_000
"""Beyond it the search is given up; a run that reaches it is counted as not judged."""


class TooLong(Exception):
    """The history has too many open operations to be judged."""


def linearizable(operations: Iterable[Operation]) -> bool:
    """Whether the answers about one key have an explanation.  Raises TooLong."""
    history = _relevant(list(operations))
    must = sum(1 << i for i, op in enumerate(history) if op.certain)
    ends = [op.end if op.certain and op.end is not None else 1 << 60 for op in history]
    by_end = sorted(range(len(history)), key=ends.__getitem__)
    seen: set[tuple[int, Value]] = set()
    stack: list[tuple[int, Value]] = [(0, None)]
    while stack:
        done, value = stack.pop()
        if done & must == must:
            return True
        if (done, value) in seen:
            continue
        seen.add((done, value))
        if len(seen) > MAX_CONFIGURATIONS:
            raise TooLong
        limit = next(ends[i] for i in by_end if not done >> i & 1)
        for i, operation in enumerate(history):
            if not done >> i & 1 and operation.start <= limit:
                stack.extend((done | 1 << i, after) for after in _after(operation, value, history, done))
    return False


def _relevant(operations: Sequence[Operation]) -> list[Operation]:
    """Without what was refused, what only read and gave no answer, and open writes that nothing depends on."""
    observed = {op.result for op in operations if op.reads and op.certain}
    observed |= {op.expected for op in operations if op.kind.endswith("_if")}
    doubts = any(op.result in (MISMATCH, LIVE) for op in operations)
    kept = []
    for op in operations:
        if op.result in (CONFLICT, MISSING) or not (op.reads or op.kind in WRITES):
            continue
        if not op.certain and (op.reads or (op.number and op.number not in observed and not doubts)):
            continue
        kept.append(op)
    return kept


def _after(operation: Operation, value: Value, history: Sequence[Operation], done: int) -> list[Value]:
    """The values there may be afterwards; none if the answer does not fit the value before."""
    if operation.reads:
        fits = value is not None if operation.result == LIVE else value == operation.result
        return [value] if fits else []
    if operation.kind.endswith("_if"):
        if operation.result == MISMATCH:
            return [value] if value != operation.expected else []
        if value != operation.expected:
            return []
    if operation.kind == "complete" and any(
        done >> i & 1 and other.kind == "complete" and other.number == operation.number
        for i, other in enumerate(history)
    ):
        return [value, operation.number]
    return [operation.number or None]
