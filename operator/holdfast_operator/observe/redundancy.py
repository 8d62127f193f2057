"""One view of the tenant's drives and sets from the many views of its pods.  Pure.

A pod knows its own drives best; of another's it knows only whether they answer.  So a drive's state is its own
pod's word; where that pod is silent, the majority of the others (a pod that merely answered late is not dead);
where all are silent, `offline`.  Whether a set is writable or readable is likewise put to the vote of the
pods that answered, so that one pod that is cut off cannot make the status flap.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from holdfast_operator.ledger import PoolRecord
from holdfast_operator.observe.health import PodView
from holdfast_server.contract import geometry
from holdfast_server.contract.healing import DriveHealing, FillingProgress
from holdfast_server.contract.health import DriveHealth, SetHealth

OK, HEALING, BLANK, OFFLINE, FAULTY = "ok", "healing", "blank", "offline", "faulty"


@dataclass(frozen=True, slots=True)
class DriveView:
    pool: str
    ordinal: int
    volume: int
    state: str
    message: str = ""
    total_bytes: int = 0
    used_bytes: int = 0
    filling: FillingProgress | None = None
    """How far it is, where its own pod tells."""
    full: bool = False
    """Serves, and takes no new data for want of room."""

    @property
    def answers(self) -> bool:
        return self.state in (OK, HEALING)


class LossesLeft(NamedTuple):
    """How many may be lost now, whichever they are, while writes go on and nothing becomes unreadable."""

    drives: int
    servers: int
    nodes: int


@dataclass(frozen=True, slots=True)
class SetView:
    pool: str
    index: int
    ok: int
    """Drives that are `ok`."""
    size: int
    writable: bool
    readable: bool
    losses_left: int = 0
    """Drives that may be lost now while writes go on and nothing becomes unreadable."""
    server_losses_left: int = 0
    """The same of servers, whichever they are."""
    node_losses_left: int = 0
    """The same of the cluster's nodes: one that several of the servers run on takes them all with it."""
    queue_length: int = 0
    """Missed writes that wait for repair: the longest queue of its drives, for all holders keep the same entries."""
    stuck: int = 0
    """Versions that the drives can neither decide nor rebuild."""

    answering: tuple[tuple[int, bool], ...] = ()
    """Of each drive that answers its server, and whether it is full."""
    answering_by_node: tuple[tuple[int, bool], ...] = ()
    """The same, with one server standing for all on its node."""

    @property
    def whole(self) -> bool:
        return self.ok == self.size

    @property
    def to_repair(self) -> int:
        """Missed writes that wait for nobody but the drives: those that a person has to decide stay in the queue."""
        return max(0, self.queue_length - self.stuck)

    def losses_left_of(self, parity: int) -> LossesLeft:
        """What objects with that parity bear now."""
        quorums = geometry.quorums(self.size, parity)
        return LossesLeft(
            geometry.losses_left(quorums, self.ok, len(self.answering) - self.ok),
            geometry.server_losses_left(quorums, self.answering),
            geometry.server_losses_left(quorums, self.answering_by_node),
        )


@dataclass(frozen=True, slots=True)
class Redundancy:
    """The tenant's drives and sets; a pool that has no pods yet has all its drives `offline`."""

    drives: tuple[DriveView, ...] = ()
    sets: tuple[SetView, ...] = ()
    answering: int = 0
    """Pods that answered."""
    epochs: Mapping[tuple[str, int], int] | None = None
    """Per pod (pool, ordinal) that answered, the epoch it works with."""
    known_pools: Mapping[tuple[str, int], frozenset[str]] | None = None
    """Per pod that answered, the pools that its configuration names."""
    key_revisions: Mapping[tuple[str, int], int] | None = None
    """Per pod that answered, the revision of the keys it works with."""
    repair_queue_length: int = 0
    """Writes that some drive missed and has not been given yet: the most that any pod knows of."""

    def of_pools(self, pools: Iterable[PoolRecord]) -> Redundancy:
        """The same, of these pools only."""
        names = {pool.name for pool in pools}
        return replace(
            self,
            drives=tuple(drive for drive in self.drives if drive.pool in names),
            sets=tuple(view for view in self.sets if view.pool in names),
        )

    @property
    def writable(self) -> bool:
        return bool(self.sets) and all(view.writable for view in self.sets)

    @property
    def readable(self) -> bool:
        return bool(self.sets) and all(view.readable for view in self.sets)

    @property
    def stuck(self) -> int:
        return sum(view.stuck for view in self.sets)

    @property
    def waiting(self) -> int:
        """Missed writes that wait for repair, over all sets."""
        return max(sum(view.queue_length for view in self.sets), self.repair_queue_length)

    @property
    def whole(self) -> bool:
        """Every drive of every set is `ok`: nothing is missing, nothing heals."""
        return bool(self.sets) and all(view.whole for view in self.sets)


def merge_views(
    pools: Iterable[PoolRecord], views: Sequence[PodView], nodes: Mapping[tuple[str, int], str] | None = None
) -> Redundancy:
    """`nodes`: where each pod (pool, ordinal) runs; one that is not in it counts as alone on its node."""
    drives: list[DriveView] = []
    sets: list[SetView] = []
    said = _statements(views)
    votes = _votes(views)
    healing = _healing(views)
    stuck = _stuck(views)
    for pool in pools:
        quorums = geometry.quorums(pool.set_size, pool.parity)
        for index, slots in enumerate(geometry.erasure_sets(pool.servers, pool.volumes_per_server, pool.set_size)):
            told = [healing.get((pool.name, index, position)) for position in range(len(slots))]
            members = [_drive(pool.name, slot, said, one) for slot, one in zip(slots, told, strict=True)]
            full = sum(member.state == OK for member in members)
            answering = [(member.ordinal, member.state == OK) for member in members if member.answers]
            by_node = _by_node(pool.name, answering, nodes or {})
            drives += members
            ballots = votes.get((pool.name, index), [])
            sets.append(
                SetView(
                    pool=pool.name,
                    index=index,
                    ok=full,
                    size=len(slots),
                    writable=_majority(ballot.writable for ballot in ballots),
                    readable=_majority(ballot.readable for ballot in ballots),
                    losses_left=geometry.losses_left(quorums, full, len(answering) - full),
                    server_losses_left=geometry.server_losses_left(quorums, answering),
                    node_losses_left=geometry.server_losses_left(quorums, by_node),
                    queue_length=max((one.queue_length for one in told if one is not None), default=0),
                    stuck=stuck.get((pool.name, index), 0),
                    answering=tuple(answering),
                    answering_by_node=tuple(by_node),
                )
            )
    return Redundancy(
        drives=tuple(sorted(drives, key=lambda drive: (drive.pool, drive.ordinal, drive.volume))),
        sets=tuple(sets),
        answering=len(views),
        epochs={(view.pool, view.ordinal): view.health.epoch for view in views},
        known_pools={(view.pool, view.ordinal): frozenset(one.pool for one in view.health.sets) for view in views},
        key_revisions={(view.pool, view.ordinal): view.health.key_revision for view in views},
        repair_queue_length=max((view.health.repair_queue_length for view in views), default=0),
    )


def _by_node(
    pool: str, answering: Iterable[tuple[int, bool]], nodes: Mapping[tuple[str, int], str]
) -> list[tuple[int, bool]]:
    """The drives that answer, with the first server of their node in place of their own."""
    first: dict[str, int] = {}
    found = []
    for ordinal, full in answering:
        node = nodes.get((pool, ordinal))
        found.append((first.setdefault(node, ordinal) if node else ordinal, full))
    return found


def formatted_pools(pools: Iterable[PoolRecord], redundancy: Redundancy) -> frozenset[str]:
    """Pools whose every drive is `ok` by its own pod's word: each has its identity now."""
    names = set()
    epochs = redundancy.epochs or {}
    for pool in pools:
        states = [drive.state for drive in redundancy.drives if drive.pool == pool.name]
        heard = all((pool.name, ordinal) in epochs for ordinal in range(pool.servers))
        if heard and len(states) == pool.servers * pool.volumes_per_server and set(states) == {OK}:
            names.add(pool.name)
    return frozenset(names)


def reported_epochs(pools: Iterable[PoolRecord], redundancy: Redundancy) -> dict[tuple[str, int], int]:
    """What the pods that know every one of these pools say they work with.

    A pool that joins is named to the pods without a new epoch, a minute before the last of them may read of it, and
    those that have not turn its pods away.
    """
    names = {pool.name for pool in pools}
    known = redundancy.known_pools or {}
    return {
        place: epoch for place, epoch in (redundancy.epochs or {}).items() if names <= known.get(place, frozenset())
    }


_Place = tuple[str, int, int]


def _statements(views: Sequence[PodView]) -> dict[_Place, list[tuple[bool, DriveHealth]]]:
    """Per drive what is said of it, and whether its own pod says so."""
    said: dict[_Place, list[tuple[bool, DriveHealth]]] = {}
    for view in views:
        for drive in view.health.drives:
            own = (drive.pool, drive.ordinal) == (view.pool, view.ordinal)
            said.setdefault((drive.pool, drive.ordinal, drive.volume), []).append((own, drive))
    return said


def _votes(views: Sequence[PodView]) -> dict[tuple[str, int], list[SetHealth]]:
    votes: dict[tuple[str, int], list[SetHealth]] = {}
    for view in views:
        for ballot in view.health.sets:
            votes.setdefault((ballot.pool, ballot.index), []).append(ballot)
    return votes


def _healing(views: Sequence[PodView]) -> dict[_Place, DriveHealing]:
    """Per drive (pool, set, position) what its own pod tells of its healing."""
    return {
        (drive.pool, drive.set_index, drive.position): drive for view in views for drive in view.health.healing.drives
    }


def _stuck(views: Sequence[PodView]) -> dict[tuple[str, int], int]:
    """Per set; the pods of a set meet the same ones, so that adding up would count them several times."""
    found: dict[tuple[str, int], int] = {}
    for view in views:
        for one in view.health.healing.sets:
            found[one.pool, one.index] = max(one.stuck, found.get((one.pool, one.index), 0))
    return found


def _drive(
    pool: str,
    slot: geometry.DriveSlot,
    said: Mapping[_Place, list[tuple[bool, DriveHealth]]],
    healing: DriveHealing | None,
) -> DriveView:
    statements = said.get((pool, slot.ordinal, slot.volume), [])
    chosen = next((drive for own, drive in statements if own), None)
    if chosen is None and statements:
        state, _ = Counter(drive.state for _, drive in statements).most_common(1)[0]
        chosen = next(drive for _, drive in statements if drive.state == state)
    if chosen is None:
        return DriveView(pool, slot.ordinal, slot.volume, OFFLINE)
    return DriveView(
        pool=pool,
        ordinal=slot.ordinal,
        volume=slot.volume,
        state=chosen.state,
        message=chosen.message,
        total_bytes=chosen.total_bytes,
        used_bytes=chosen.used_bytes,
        filling=healing.filling if healing is not None else None,
        full=chosen.full,
    )


def _majority(ballots: Iterable[bool]) -> bool:
    """More ayes than noes, or as many: with two views the one that still reaches a quorum is right."""
    counted = list(ballots)
    return bool(counted) and sum(counted) * 2 >= len(counted)
