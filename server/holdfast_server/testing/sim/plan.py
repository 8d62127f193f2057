"""What one simulated run is made of, drawn from its seed.

*Swarm testing*: a run does not do a little of everything but much of a few things: each kind of operation and each
fault is in or out, at a strength of its own.  Histories in which, say, nothing but deletes meets nothing but crashes
reach states that an even mixture hardly ever does.  A *profile* narrows the draw, to aim at one rule.

Pure, given the generator.  Not here: carrying the plan out.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from holdfast_server.objects.port import Redundancy
from holdfast_server.testing.unreliable_network import Weather

GREATEST_SKEW_SECONDS = 20
"""No clock of a run is further ahead than this; what `MAX_CLOCK_SKEW_MS` is to pods."""

GEOMETRIES = ((4, 2), (4, 2), (3, 1), (4, 1), (6, 2), (2, 1), (5, 2))
"""Drives and parity of the set."""

OPERATIONS = ("put", "delete", "get", "range", "list", "put_if", "delete_if", "upload", "heal", "scan")
FAULTS = ("away", "power", "faulty", "full", "hang", "stall", "cut", "replace", "rot", "all_down")


@dataclass(frozen=True, kw_only=True)
class Plan:
    size: int = 4
    parity: int = 2
    coordinators: int = 2
    clients_per_coordinator: int = 1
    keys: tuple[str, ...] = ("k",)
    steps: tuple[int, int] = (2, 6)
    """Operations per client: at least, at most."""
    pauses_seconds: tuple[float, ...] = (0.005, 0.05, 1.0)
    """Means between a client's operations, one drawn for each."""
    long_pause: float = 0.05
    """Chance of waiting, before an operation, until what is under way must be dead."""
    weights: Mapping[str, int] = field(default_factory=lambda: {"put": 2, "get": 2})
    file_sized: float = 0.25
    """Chance of a body whose shards are files."""
    large: float = 0.0
    """Chance of a body that is read in several batches."""
    cancel: float = 0.0
    crash: float = 0.0
    """Chances, per operation, that its client leaves or its coordinator dies meanwhile."""
    weather: Weather = field(default_factory=Weather)
    skews_ms: tuple[int, ...] = (0, 0, 0)
    local_drives: bool = False
    """Coordinators own drives, which they reach without a network and which go down with them."""
    faults: Mapping[str, int] = field(default_factory=dict)
    """How often each kind strikes."""
    fault_gap_seconds: float = 0.1
    fault_length_seconds: float = 0.3
    heal_every_seconds: float | None = None
    """The heal service of each pod looks at its queue so often (mean)."""
    reduced: int = 0
    """Of ten writes, how many are of reduced redundancy."""
    reduced_parity: int | None = None
    """Theirs; None: as the pool has it by default."""
    scripts: tuple[str, ...] = ()
    """What the run begins with (`prefixes`), one after the other."""
    ambushed: tuple[str, ...] = ()
    """Messages that the fault `ambush` waits for."""

    @property
    def calm(self) -> bool:
        """Nothing can go wrong, so nothing may be refused."""
        trouble = self.faults or self.crash or self.cancel or self.weather.loss or self.weather.slow or self.scripts
        return not trouble

    def redundancy(self, number: int) -> Redundancy:
        """Of the write with that number.  It is not drawn, so that a run is otherwise what it is without."""
        return Redundancy.REDUCED if number * 7 % 10 < self.reduced else Redundancy.FULL


def draw(rng: random.Random, profile: str = "any") -> Plan:
    return PROFILES[profile](rng)


def _any(rng: random.Random) -> Plan:
    size, parity = rng.choice(GEOMETRIES)
    operations = ["put", "get", *(name for name in OPERATIONS if rng.random() < 0.45)]
    faults = {name: rng.randint(1, 3) for name in FAULTS if rng.random() < 0.25}
    quiet = rng.random() < 0.1
    return Plan(
        size=size,
        parity=parity,
        coordinators=rng.choice((2, 2, 3)),
        clients_per_coordinator=rng.choice((1, 1, 2)),
        keys=rng.choice((("k",), ("k",), ("k",), ("a/1", "b"), ("a/1", "a/2", "b", "c/d/1"))),
        pauses_seconds=rng.choice(((0.005, 0.05, 1.0), (0.005,), (0.5, 5.0))),
        long_pause=rng.choice((0.0, 0.05, 0.2)),
        weights={name: rng.randint(1, 4) for name in operations},
        file_sized=rng.choice((0.0, 0.25, 0.7)),
        cancel=0.0 if quiet else rng.choice((0.0, 0.05, 0.15)),
        crash=0.0 if quiet else rng.choice((0.0, 0.05, 0.2)),
        weather=Weather() if quiet else weather(rng),
        skews_ms=(0, rng.choice((0, -2000, 15_000)), rng.choice((0, 3000, -90_000))),
        local_drives=rng.random() < 0.3,
        faults={} if quiet else faults,
        fault_gap_seconds=rng.choice((0.02, 0.1, 1.0)),
        fault_length_seconds=rng.choice((0.05, 0.3, 6.0)),
        heal_every_seconds=rng.choice((None, 1.0, 5.0)),
    )


def weather(rng: random.Random) -> Weather:
    return Weather(
        loss=rng.choice((0.0, 0.01, 0.05, 0.15)),
        repeat=rng.choice((0.0, 0.2)),
        slow=rng.choice((0.0, 0.02, 0.1)),
        usual_seconds=rng.choice((0.002, 0.02)),
    )


def _calm(rng: random.Random) -> Plan:
    """No fault at all: whatever is refused is refused without reason."""
    return replace(
        _any(rng), cancel=0.0, crash=0.0, weather=Weather(usual_seconds=rng.choice((0.002, 0.02))), faults={}
    )


def _torn(rng: random.Random) -> Plan:
    """Writes that die half way, then reads and heals that see different drives."""
    return replace(
        _any(rng),
        keys=("k",),
        coordinators=3,
        steps=(4, 8),
        long_pause=rng.choice((0.0, 0.3)),
        weights={
            "put": 2,
            "delete": rng.choice((0, 2)),
            "get": 4,
            "heal": rng.choice((0, 2)),
            "put_if": rng.choice((0, 2)),
        },
        crash=rng.choice((0.1, 0.3)),
        weather=replace(weather(rng), loss=rng.choice((0.05, 0.15))),
        faults={"cut": 4, "away": 2},
        fault_gap_seconds=rng.choice((0.02, 5.0)),
        fault_length_seconds=rng.choice((0.3, 6.0, 30.0)),
    )


def _lost_drives(rng: random.Random) -> Plan:
    """Drives that miss writes, and others that are lost and replaced."""
    return replace(
        _any(rng),
        weights={"put": 4, "get": 2, "delete": 1, "list": 1},
        faults={"away": 3, "replace": 2, "rot": rng.choice((0, 1))},
        fault_gap_seconds=rng.choice((0.1, 1.0)),
        fault_length_seconds=rng.choice((0.3, 6.0)),
        heal_every_seconds=rng.choice((None, 5.0)),
    )


def _conditions(rng: random.Random) -> Plan:
    """Conditional writes under stalls longer than a lease, restarts and clocks that differ."""
    return replace(
        _any(rng),
        keys=("k",),
        coordinators=3,
        steps=(4, 8),
        pauses_seconds=rng.choice(((0.005, 0.05), (0.05, 1.0), (0.5, 3.0))),
        weights={"put": rng.choice((1, 3)), "put_if": 4, "delete_if": 1, "get": 4, "delete": 1},
        skews_ms=(0, 15_000, -3000),
        faults={"stall": 5, "away": rng.choice((0, 4)), "power": rng.choice((0, 2))},
        fault_gap_seconds=rng.choice((0.02, 0.5, 2.0)),
        fault_length_seconds=rng.choice((0.3, 6.0, 12.0)),
    )


def _hot(rng: random.Random) -> Plan:
    """One key, many writers, answers that get lost."""
    return replace(
        _any(rng),
        keys=("k",),
        coordinators=3,
        clients_per_coordinator=2,
        pauses_seconds=rng.choice(((0.005,), (0.05, 1.0))),
        weights={"put": 3, "get": 5, "delete": rng.choice((0, 1))},
        weather=replace(weather(rng), loss=rng.choice((0.05, 0.15)), slow=rng.choice((0.02, 0.1))),
    )


def _large(rng: random.Random) -> Plan:
    """Objects read in several batches while they are overwritten, and nothing breaks."""
    return replace(
        _calm(rng),
        keys=("k",),
        coordinators=2,
        clients_per_coordinator=2,
        pauses_seconds=(0.01,),
        weights={"put": 1, "range": 1, "get": 3},
        large=0.7,
    )


def _mended(rng: random.Random) -> Plan:
    """Keys are repaired while they are being written, and nothing breaks: repair must not refuse anybody."""
    return replace(
        _calm(rng),
        keys=("k", "l", "m"),
        coordinators=3,
        clients_per_coordinator=2,
        steps=(5, 8),
        pauses_seconds=(0.03,),
        long_pause=0.0,
        weights={"put": 2, "get": 1, "delete": 1, "heal": 4},
        weather=Weather(usual_seconds=0.02),
    )


def _uploads(rng: random.Random) -> Plan:
    return replace(_any(rng), weights={"upload": 4, "get": 3, "put": 1, "delete": 1, "heal": rng.choice((0, 1))})


def _power(rng: random.Random) -> Plan:
    """The power goes everywhere at once."""
    return replace(
        _any(rng),
        faults={"all_down": 4, "power": 2},
        fault_gap_seconds=rng.choice((0.02, 0.1, 1.0)),
        fault_length_seconds=0.05,
        weights={"put": 3, "get": 3, "delete": 1, "upload": rng.choice((0, 2)), "list": rng.choice((0, 1))},
    )


def _ambush(rng: random.Random) -> Plan:
    """Messages of single steps of the protocol are held up, lost, or the last of their coordinator."""
    return replace(
        _any(rng),
        keys=("k",),
        coordinators=3,
        steps=(3, 7),
        long_pause=rng.choice((0.0, 0.1, 0.3)),
        weights={
            "put": 3,
            "get": 4,
            "delete": rng.choice((0, 2)),
            "put_if": rng.choice((0, 2)),
            "delete_if": rng.choice((0, 1)),
            "heal": rng.choice((0, 3)),
        },
        faults={"ambush": 8, "away": rng.choice((0, 3)), "cut": rng.choice((0, 3)), "power": rng.choice((0, 1))},
        ambushed=rng.choice(
            (
                ("commit",),
                ("query", "commit"),
                ("commit", "note"),
                ("fence", "remove"),
                ("prepare", "commit", "release"),
                ("query", "commit", "note", "prepare", "release", "fence", "remove"),
            )
        ),
        fault_gap_seconds=rng.choice((0.02, 0.5, 5.0)),
        fault_length_seconds=rng.choice((0.3, 6.0)),
    )


def _forgetting(rng: random.Random) -> Plan:
    """Deletes that grow old among drives that miss them, lose power, and come back late."""
    return replace(
        _any(rng),
        keys=rng.choice((("k",), ("k",), ("a/1", "b"))),
        coordinators=2,
        steps=(3, 6),
        pauses_seconds=rng.choice(((20.0,), (1.0, 60.0))),
        long_pause=0.3,
        weights={"put": 2, "delete": 3, "get": 3, "put_if": rng.choice((0, 1)), "list": rng.choice((0, 1))},
        crash=rng.choice((0.0, 0.1)),
        faults={"away": 3, "power": rng.choice((0, 3)), "ambush": rng.choice((0, 6)), "replace": rng.choice((0, 1))},
        ambushed=("drop_tombstones", "weigh_tombstones", "note", "commit", "query"),
        fault_gap_seconds=rng.choice((1.0, 30.0)),
        fault_length_seconds=rng.choice((6.0, 60.0)),
        heal_every_seconds=rng.choice((1.0, 3.0)),
    )


def _refilled(rng: random.Random) -> Plan:
    """Lost drives are replaced and filled while others miss writes and messages of repair get lost."""
    return replace(
        _any(rng),
        keys=rng.choice((("k",), ("k", "l"))),
        coordinators=2,
        steps=(4, 8),
        pauses_seconds=rng.choice(((5.0,), (1.0, 20.0))),
        long_pause=0.1,
        weights={"put": 3, "get": 5, "delete": rng.choice((0, 1)), "put_if": rng.choice((0, 1))},
        weather=replace(weather(rng), loss=rng.choice((0.05, 0.15))),
        faults={"replace": rng.choice((1, 2)), "away": 4, "cut": 4, "ambush": 4},
        ambushed=("commit", "note", "query_many"),
        fault_gap_seconds=rng.choice((1.0, 10.0)),
        fault_length_seconds=rng.choice((6.0, 30.0)),
        heal_every_seconds=1.0,
    )


SCRIPTED_GEOMETRIES: Mapping[str, tuple[tuple[int, int], ...]] = {
    "lease": ((4, 2), (4, 1), (3, 1), (5, 2), (6, 2)),
    "take_back": ((4, 2), (4, 2), (4, 1), (3, 1), (5, 2), (6, 2)),
    "weak_fence": ((4, 2),),
    "early_heal": GEOMETRIES,
    "twice": ((4, 2), (4, 2), (4, 1), (3, 1), (5, 2), (6, 2)),
    "late_commit": GEOMETRIES,
    "rebuild": ((4, 2), (4, 1), (3, 1), (5, 2), (6, 2)),
    "newcomer": ((4, 2), (4, 1), (3, 1), (5, 2), (6, 2)),
    "half_told": ((4, 2), (4, 1), (3, 1), (5, 2), (6, 2)),
    "slow_reader": ((4, 2),),
    "forgetful": ((4, 2), (2, 1), (3, 1), (4, 1), (5, 2), (6, 2)),
    "left_out": ((4, 2), (2, 1)),
    "predecessor": ((3, 1),),
}
"""Where the script of that name can have its way."""


def _scripted(script: str) -> Callable[[random.Random], Plan]:
    def draw_plan(rng: random.Random) -> Plan:
        size, parity = rng.choice(SCRIPTED_GEOMETRIES[script])
        return replace(
            _any(rng),
            size=size,
            parity=parity,
            keys=("k",),
            coordinators=3,
            clients_per_coordinator=1,
            steps=(0, 3),
            skews_ms=(0, 15_000, 0) if script == "late_commit" else (0, 0, 0),
            local_drives=False,
            faults=rng.choice(({}, {}, {"away": 1}, {"cut": 2})),
            scripts=(script,),
        )

    return draw_plan


def _medley(rng: random.Random) -> Plan:
    """Several scripts one after the other, each on what the one before has left."""
    scripts = [script for script, geometries in SCRIPTED_GEOMETRIES.items() if (4, 2) in geometries]
    return replace(
        _scripted("late_commit")(rng), size=4, parity=2, scripts=tuple(rng.choices(scripts, k=rng.randint(2, 4)))
    )


REDUCED_GEOMETRIES = ((4, 2, 1), (4, 2, 1), (5, 2, 1), (6, 3, 1), (6, 3, 2), (6, 2, 1), (8, 4, 2))
"""Drives and parity of the set, parity of what is of reduced redundancy."""


def _reduced(profile: str) -> Callable[[random.Random], Plan]:
    """The same in a set where some writes, or all, are of reduced redundancy."""

    def draw_plan(rng: random.Random) -> Plan:
        plan = PROFILES[profile](rng)
        size, parity, reduced_parity = rng.choice(REDUCED_GEOMETRIES)
        return replace(plan, size=size, parity=parity, reduced=rng.choice((3, 5, 5, 10)), reduced_parity=reduced_parity)

    return draw_plan


PROFILES: Mapping[str, Callable[[random.Random], Plan]] = {
    "any": _any,
    "calm": _calm,
    "torn": _torn,
    "lost_drives": _lost_drives,
    "conditions": _conditions,
    "hot": _hot,
    "large": _large,
    "uploads": _uploads,
    "power": _power,
    "mended": _mended,
    "ambush": _ambush,
    "forgetting": _forgetting,
    "refilled": _refilled,
    "medley": _medley,
    "reduced": _reduced("any"),
    "reduced_torn": _reduced("torn"),
    "reduced_lost_drives": _reduced("lost_drives"),
    "reduced_refilled": _reduced("refilled"),
    "reduced_conditions": _reduced("conditions"),
    "reduced_uploads": _reduced("uploads"),
    "reduced_ambush": _reduced("ambush"),
    "reduced_calm": _reduced("calm"),
    **{script: _scripted(script) for script in SCRIPTED_GEOMETRIES},
}
