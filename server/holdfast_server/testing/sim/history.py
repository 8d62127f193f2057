"""What the clients of a run did and were told: the only thing checkers judge.

A value is the number of the write that made it, None where the key is absent; each write's bytes are a function of its
number (`contents`), so that bytes alone tell which write they belong to.

Not here: judging.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

Value = int | None

LIVE = -1
"""As an answer: there is something, no telling which version (a common prefix of a listing)."""
MISMATCH = "mismatch"
CONFLICT = "conflict"
DONE = "done"
MISSING = "missing"

WRITES = ("put", "put_if", "delete", "delete_if", "complete")
"""Kinds of operation that may change what a key holds."""

INLINE_SIZE_BYTES = 24
FILE_SIZE_BYTES = 66_000
"""Above the inline limit: shards are files."""
LARGE_SIZE_BYTES = 5 << 20
"""More than one batch of stripes."""


class Violation(AssertionError):
    """A promise is broken; `checker` says which checker saw it."""

    def __init__(self, checker: str, told: str) -> None:
        super().__init__(f"{checker}: {told}")
        self.checker = checker


@lru_cache(maxsize=256)
def contents(number: int, size_bytes: int) -> bytes:
    """The bytes of write `number`: any ten of them in a row tell it."""
    word = b"<%08d>" % number
    return (word * (size_bytes // len(word) + 1))[:size_bytes]


@dataclass(eq=False)
class Operation:
    """One answer about one key, or the lack of it.  Times are ticks of the run, all different."""

    kind: str
    key: str
    node: int
    number: int
    """What it writes; 0: nothing, or a delete."""
    start: int
    expected: Value = None
    """Of a conditional write."""
    end: int | None = None
    result: object = None
    certain: bool = False
    """It ended with an answer that says what happened."""
    gave_up: int = 1 << 60
    """When it ended without such an answer."""
    commits: dict[tuple[int, int], bool] = field(default_factory=dict)
    """(stamp, position) of each commit sent for it → whether it was answered or waited for."""

    @property
    def reads(self) -> bool:
        return self.kind in ("get", "list")

    def commit_sent(self, position: int, stamp: int) -> None:
        self.commits.setdefault((stamp, position), False)

    def commit_ended(self, position: int, stamp: int) -> None:
        self.commits[stamp, position] = True

    def told(self) -> str:
        wants = f" expected {self.expected}" if self.kind.endswith("_if") else ""
        return (
            f"{self.start:4} {self.end or '-':>4} node {self.node} {self.kind} {self.key} #{self.number}{wants}"
            f" → {self.result}"
        )


@dataclass
class Upload:
    """One multipart upload, as its clients know it."""

    number: int
    """The value of the object it makes."""
    key: str
    upload_id: bytes
    bodies: dict[int, bytes] = field(default_factory=dict)
    """By part number: those whose put was acknowledged."""
    completes: list[Operation] = field(default_factory=list)
    aborts: list[Operation] = field(default_factory=list)


class History:
    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.uploads: list[Upload] = []
        self.events: list[str] = []
        """Faults, for the reader of a failed run."""
        self.bodies: dict[int, bytes] = {}
        self._tick = 0
        self._number = 0

    def tick(self) -> int:
        self._tick += 1
        return self._tick

    def next_number(self) -> int:
        self._number += 1
        return self._number

    def begin(self, kind: str, key: str, node: int, number: int = 0) -> Operation:
        operation = Operation(kind, key, node, number, self.tick())
        self.operations.append(operation)
        return operation

    def end(self, operation: Operation, result: object) -> None:
        operation.result, operation.end, operation.certain = result, self.tick(), True

    def give_up(self, operation: Operation, error: Exception) -> None:
        """It ended, and nobody knows whether it happened."""
        operation.result, operation.gave_up = f"{type(error).__name__}: {error}", self.tick()

    def observe(self, kind: str, key: str, node: int, start: int, value: object) -> None:
        """A read that has ended just now."""
        operation = Operation(kind, key, node, 0, start, end=self.tick(), result=value, certain=True)
        self.operations.append(operation)

    def event(self, told: str) -> None:
        self.events.append(f"{self.tick():4} {told}")

    def of(self, key: str) -> list[Operation]:
        return [operation for operation in self.operations if operation.key == key]

    def told(self) -> str:
        lines = [(op.start, op.told()) for op in self.operations]
        lines += [(int(event[:4]), f"{event[:4]}      {event[5:]}") for event in self.events]
        return "\n".join(line for _, line in sorted(lines))
