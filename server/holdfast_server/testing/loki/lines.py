"""Lines for Loki, each with an id of its own, and what is missing, foreign or doubled in what comes back.  Pure.

A few loud streams make chunks of the full size, stored as shards in files; many quiet ones make small chunks, stored
inside the records.  One seed decides every byte, so that a run can be repeated.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

LOUD_STREAMS = 3
QUIET_STREAMS = 44
LOUD_SHARE = 4
"""One line in as many goes to a quiet stream."""
RANDOM_BYTES = 110
NANOSECONDS = 1_000_000_000
STEP_NANOSECONDS = 20_000_000
"""Between two lines: 50 a second."""

Line = tuple[str, str]
"""Time in ns since 1970, as Loki writes it, and text."""


@dataclass(slots=True)
class Ledger:
    """Every line that Loki has acknowledged, by stream."""

    run: str
    seed: int
    lines: dict[str, set[Line]] = field(default_factory=dict)
    _count: int = 0
    _random: random.Random = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def __len__(self) -> int:
        return sum(len(lines) for lines in self.lines.values())

    def batch(self, count: int, first_ns: int, kind: str = "kept") -> dict[str, list[Line]]:
        """`count` new lines from `first_ns` on, not yet acknowledged.  `kind` becomes a label of their streams."""
        found: dict[str, list[Line]] = {}
        for place in range(count):
            number, self._count = self._count, self._count + 1
            loud = number % LOUD_SHARE != 0
            name = f"loud-{number % LOUD_STREAMS}" if loud else f"quiet-{number // LOUD_SHARE % QUIET_STREAMS}"
            text = f"{self.run} {number} {self._random.randbytes(RANDOM_BYTES).hex()}"
            found.setdefault(f"{kind}/{name}", []).append((str(first_ns + place * STEP_NANOSECONDS), text))
        return found

    def acknowledge(self, batch: Mapping[str, Iterable[Line]]) -> None:
        for stream, lines in batch.items():
            self.lines.setdefault(stream, set()).update(lines)

    def streams(self, kind: str) -> Iterator[str]:
        return (stream for stream in self.lines if stream.startswith(f"{kind}/"))


def labels(run: str, stream: str) -> dict[str, str]:
    kind, _, name = stream.partition("/")
    return {"app": "lines", "run": run, "kind": kind, "name": name}


def differences(ledger: Ledger, got: Mapping[str, Iterable[Line]], kind: str = "kept") -> list[str]:
    """What is not as it was sent: one message per stream, empty if every line came back once and nothing else did."""
    told = []
    for stream in sorted({*ledger.streams(kind), *got}):
        came = Counter(got.get(stream, ()))
        sent = ledger.lines.get(stream, set())
        missing, foreign = len(sent - came.keys()), len(came.keys() - sent)
        doubled = sum(count - 1 for count in came.values())
        if missing or foreign or doubled:
            told.append(f"{stream}: {missing} of {len(sent)} missing, {foreign} foreign, {doubled} doubled")
    return told
