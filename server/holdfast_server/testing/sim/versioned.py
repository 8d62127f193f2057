"""Simulation of a bucket that keeps versions: over the same cluster, faults, joining pools and endings as `simulation`.

Clients put, mark, delete by id, lock, read and list; every answer is noted, and one order must explain all of them
(`version_history`): what was acknowledged is there until it is deleted by its id, what was deleted stays gone, what is
locked is not deleted, and the current version is the newest of those there are.  With the faults off, all coordinators
list the same versions, each of them can be read from any K drives, and nothing rests that is none.

A delete marker tells no number: one that nobody was told of is taken for the write of that pod that was under way when
its stamp was given; so each pod has one client, that does not leave.

Not here: S3's own words (`api`), what judges single registers (`checkers`).
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace

from holdfast_server.clock.stamp import MAX_STAMP, stamp_node
from holdfast_server.drives import keys
from holdfast_server.objects import record
from holdfast_server.objects.object_lock import with_legal_hold
from holdfast_server.objects.port import NULL_VERSION, Attributes, Locked, ObjectError, Reader, Versioning
from holdfast_server.objects.record import Record
from holdfast_server.testing import virtual_time
from holdfast_server.testing.sim import joining, simulation
from holdfast_server.testing.sim.checkers import copies_suffice
from holdfast_server.testing.sim.cluster import Cluster, Coordinator
from holdfast_server.testing.sim.ending import MAX_SUBSETS, Ending
from holdfast_server.testing.sim.history import DONE, MISSING, History, Operation, Violation, contents
from holdfast_server.testing.sim.linearizability import TooLong
from holdfast_server.testing.sim.plan import Plan, draw
from holdfast_server.testing.sim.simulation import Outcome
from holdfast_server.testing.sim.version_history import LOCKED, explained
from holdfast_server.testing.sim.workload import BUCKET, Client, NumberedBody, Workload

BASES = {
    "versions": "any",
    "versions_torn": "torn",
    "versions_ambush": "ambush",
    "versions_power": "power",
    "versions_lost_drives": "lost_drives",
    "versions_joining": "any",
    "versions_reduced": "reduced",
}
PROFILES = tuple(BASES)


def versioned_plan(rng: random.Random, profile: str) -> Plan:
    base = draw(rng, BASES[profile])
    if profile == "versions_joining":
        base = joining.joining_plan(rng, BASES[profile])
    weights = {
        "put": 4,
        "mark": rng.choice((0, 2)),
        "put_null": rng.choice((0, 0, 2)),
        "delete": rng.choice((1, 4)),
        "lock": rng.choice((0, 2)),
        "get": 2,
        "get_version": rng.choice((0, 2)),
        "list_versions": 1,
        "heal": rng.choice((0, 1)),
    }
    ambushed = ("prepare", "commit", "release") if base.ambushed else ()
    return replace(
        base, keys=rng.choice((("k",), ("k",), ("a/1", "a/2"))), coordinators=3, clients_per_coordinator=1,
        steps=(4, 8), cancel=0.0, weights=weights, ambushed=ambushed,
    )  # fmt: skip


def replay(seed: int, profile: str = "versions") -> Outcome:
    """Run one seed.  Raises Failed."""
    rng = random.Random(f"{profile} {seed}")
    plan = versioned_plan(rng, profile)
    history = History()
    book: list[VersionedWorkload] = []

    def workload(cluster: Cluster, history: History, rng: random.Random) -> VersionedWorkload:
        book.append(VersionedWorkload(cluster, history, rng))
        return book[0]

    def play() -> bool:
        if profile == "versions_joining":
            virtual_time.run(joining.run(plan, history, rng, workload))
        else:
            virtual_time.run(simulation.run(plan, history, rng, workload, VersionedEnding))
        return judge(history, book[0])

    return simulation.played(seed, profile, plan, history, play)


def judge(history: History, workload: VersionedWorkload) -> bool:
    for key in dict.fromkeys(operation.key for operation in history.operations):
        try:
            if not explained(history.of(key), workload.markers):
                raise Violation("VersionsLinearizable", f"no order explains what was answered about {key}")
        except TooLong:
            return False
    return True


class VersionedBody(NumberedBody):
    def __init__(self, number: int, data: bytes, versioning: Versioning) -> None:
        super().__init__(number, data)
        self._versioning = versioning

    def finish(self) -> Attributes:
        return Attributes(etag=str(self._number), versioning=self._versioning)


class VersionedWorkload(Workload):
    def __init__(self, cluster: Cluster, history: History, rng: random.Random) -> None:
        super().__init__(cluster, history, rng)
        self.markers: set[int] = set()
        self._ids: dict[str, dict[bytes, int]] = {}
        """key → id → number, of every version that anybody was shown."""
        self._before: dict[int, int] = {}
        """Mark → the greatest stamp its coordinator knew."""

    async def _one(self, client: Client, kind: str, key: str) -> None:
        coordinator = self._cluster.coordinators[client.node]
        known = list(self._ids.get(key, {}).items())
        match kind:
            case "heal":
                await self._heal_versions(coordinator, key)
            case "list_versions":
                await self.list_versions(coordinator, key)
            case "put" | "put_null":
                await self._put(coordinator, kind, key)
            case "mark":
                await self._mark(coordinator, key)
            case "delete" | "lock" | "get_version" if known:
                version, number = self._rng.choice(known[-4:])
                work = {"delete": self._delete, "lock": self._lock, "get_version": self.get_version}[kind]
                await work(coordinator, key, version, number)
            case _:
                await self.get(coordinator, key)

    # ---------------------------------------------------------------- changes

    async def _attempt(
        self, coordinator: Coordinator, operation: Operation, work: Callable[[], Awaitable[str]]
    ) -> None:
        try:
            result = await work()
        except Locked:
            result = LOCKED
        except ObjectError as error:
            self._history.give_up(operation, error)
            return
        self._end(coordinator, operation, result)

    async def _put(self, coordinator: Coordinator, kind: str, key: str) -> None:
        history, number = self._history, self._history.next_number()
        operation = history.begin(kind, key, coordinator.node, number)
        history.bodies[number] = contents(number, self._size())
        versioning = Versioning.SUSPENDED if kind == "put_null" else Versioning.ENABLED
        body = VersionedBody(number, history.bodies[number], versioning)

        async def put() -> str:
            seal = self._seal(key, number)
            self._learn(key, await coordinator.store.put_object(BUCKET, key, body, seal=seal))
            return DONE

        await self._attempt(coordinator, operation, put)

    async def _mark(self, coordinator: Coordinator, key: str) -> None:
        number = self._history.next_number()
        operation = self._history.begin("mark", key, coordinator.node, number)
        self.markers.add(number)
        self._before[number] = coordinator.stamps.greatest

        async def mark() -> str:
            marker = await coordinator.store.delete_object(BUCKET, key, versioning=Versioning.ENABLED)
            assert marker is not None
            self._ids.setdefault(key, {})[marker.place] = number
            return DONE

        await self._attempt(coordinator, operation, mark)

    async def _delete(self, coordinator: Coordinator, key: str, version: bytes, number: int) -> None:
        kind = "delete_null" if version == NULL_VERSION else "delete"
        operation = self._history.begin(kind, key, coordinator.node, number)

        async def delete() -> str:
            await coordinator.store.delete_version(BUCKET, key, version)
            return DONE

        await self._attempt(coordinator, operation, delete)

    async def _lock(self, coordinator: Coordinator, key: str, version: bytes, number: int) -> None:
        if version == NULL_VERSION or number in self.markers:
            return
        operation = self._history.begin("lock", key, coordinator.node, number)

        async def lock() -> str:
            store = coordinator.store
            found = await store.amend_object(BUCKET, key, lambda there: with_legal_hold(there.headers, True), version)
            return MISSING if found is None else DONE

        await self._attempt(coordinator, operation, lock)

    # ---------------------------------------------------------------- answers

    async def _read(self, reader: Reader, whole: bool) -> int | None:  # type: ignore[override]
        return None if reader.record.marker else await super()._read(reader, whole)

    async def get_version(self, coordinator: Coordinator, key: str, version: bytes, number: int) -> None:
        null = version == NULL_VERSION
        operation = self._history.begin("get_null" if null else "has", key, coordinator.node, 0 if null else number)
        try:
            reader = await coordinator.store.open_object(BUCKET, key, version)
            value = None if reader is None or reader.record.marker else await super()._read(reader, True)
        except ObjectError as error:
            self._history.give_up(operation, error)
            return
        if value is not None and not null and value != number:
            raise Violation("HalfVisibleWrites", f"version {number} of {key} has the bytes of {value}")
        self._end(coordinator, operation, value if null else reader is not None)

    async def list_versions(self, coordinator: Coordinator, key: str) -> None:
        """All versions of one key, by pages of any size."""
        start, limit = self._history.tick(), self._rng.choice((1, 2, 1000))
        expected = [op.number for op in self._history.of(key) if op.kind in ("put", "mark") and op.result == DONE]
        try:
            found = await listed(coordinator, key, limit)
        except ObjectError:
            return
        if coordinator.life.crashed:
            return
        if [one.place for one in found] != sorted({one.place for one in found}):
            raise Violation("ListingAgrees", f"versions of {key} out of order: {found}")
        there = {self._learn(key, one) for one in found if not one.null}
        for number in sorted({*there, *expected}):
            observed = Operation("has", key, coordinator.node, number, start, end=self._history.tick(), certain=True)
            observed.result = number in there
            self._history.operations.append(observed)

    def _learn(self, key: str, found: Record) -> int:
        """The number of a version, by what its record says."""
        ids = self._ids.setdefault(key, {})
        if found.null:
            ids[NULL_VERSION] = 0
            return 0
        if found.place not in ids:
            ids[found.place] = int(found.etag) if not found.marker else self._unknown_mark(key, found)
        return ids[found.place]

    def _unknown_mark(self, key: str, found: Record) -> int:
        stamp = MAX_STAMP - int.from_bytes(found.place, "big")
        under_way = [
            op.number
            for op in self._history.of(key)
            if op.kind == "mark" and op.node == stamp_node(stamp) and self._before[op.number] < stamp
        ]
        if not under_way:
            raise Violation("VersionsLinearizable", f"a delete marker of {key} that nobody wrote")
        return under_way[-1]

    # ---------------------------------------------------------------- repair

    async def _heal_versions(self, coordinator: Coordinator, key: str) -> None:
        await self._heal(coordinator, key)
        for version in list(self._ids.get(key, {})):
            if version != NULL_VERSION:
                try:
                    register = record.version_register(BUCKET, key, version)
                    await coordinator.store.heal(coordinator.erasure_set, register)
                except ObjectError:
                    continue

    async def look_at_end(self) -> None:
        """All coordinators list the same, all of it can be read, and nothing else rests."""
        for key in self._plan.keys:
            everybody = zip(self._cluster.coordinators, (1, 2, 1000), strict=True)
            shown = [await listed(one, key, limit) for one, limit in everybody]
            if any([v.place for v in one] != [v.place for v in shown[0]] for one in shown):
                raise Violation("ListingAgrees", f"coordinators list other versions of {key}: {shown}")
            for coordinator in self._cluster.coordinators:
                await self.list_versions(coordinator, key)
                await self.get(coordinator, key)
            await self.read_all(key)
            self._nothing_else_rests(key, {one.place for one in shown[0]})

    async def read_all(self, key: str) -> None:
        for version, number in list(self._ids.get(key, {}).items()):
            await self.get_version(self._cluster.coordinators[0], key, version, number)
            operation = self._history.operations[-1]
            if not operation.certain:
                raise Violation("Readable", f"{operation.told()}")

    def _nothing_else_rests(self, key: str, places: set[bytes]) -> None:
        for row in {row for drive in self._cluster.drives for row in drive.rows()}:
            register = keys.decode_row_key(row)
            if register.space != record.VERSION_SPACE + BUCKET or register.key != key or register.version in places:
                continue
            for drive in self._cluster.drives:
                if any(not held.tombstone for held in drive.state_of(row).records):
                    raise Violation("NothingGrows", f"version {register.version.hex()} of {key} rests and is none")


async def listed(coordinator: Coordinator, key: str, limit: int) -> list[Record]:
    """Raises ObjectError."""
    found: list[Record] = []
    after = b""
    while True:
        page = await coordinator.store.list_versions(
            BUCKET, prefix=key, after=key if after else "", after_version=after, limit=limit
        )
        found += [entry.record for entry in page.entries if entry.key == key]
        if not page.truncated or not page.entries:
            return found
        after = NULL_VERSION if page.entries[-1].record.null else page.entries[-1].record.place


class VersionedEnding(Ending):
    async def _any_k_suffice(self) -> None:
        await self._workload.look_at_end()
        drives = self._cluster.drives
        numbers = self._cluster.reduced if self._cluster.plan.reduced else self._cluster.quorums
        subsets = list(itertools.combinations(range(len(drives)), copies_suffice(numbers)))
        self._rng.shuffle(subsets)
        assert isinstance(self._workload, VersionedWorkload)
        for up in subsets[: MAX_SUBSETS // 3]:
            for position, drive in enumerate(drives):
                drive.offline = position not in up
            for key in self._cluster.plan.keys:
                await self._workload.read_all(key)
        for drive in drives:
            drive.offline = False
