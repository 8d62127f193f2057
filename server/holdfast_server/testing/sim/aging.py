"""Simulation of objects that are sealed and expire: over the same cluster, faults and endings as `simulation`.

Two of three writes are sealed, each with a key of its own; what comes back is compared with what was written, so bytes
that were sealed with another key, or are served as they rest, are noticed.  Any coordinator carries out lifecycle rules
with the code of the pods (`api.expiring`): it judges what somebody saw a while ago, while others overwrite, delete and
lock.  Every deletion by a rule is an operation of the history:

- without versions: what is large is due.  It is a delete under the condition that the very write that was seen is
  there, and judged as such, so that an overwrite in between is never lost;
- with versions: what was replaced is due a moment later.  It never meets the newest version, nor a locked one.

Not here: leases on the bucket, and rules that change (`api`'s own tests), the walk that finds what may be due.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from dataclasses import replace
from typing import cast

from holdfast_server.api.bucket_record import ENABLED, BucketRecord
from holdfast_server.api.buckets_cache import WriteLease
from holdfast_server.api.expiring import LifecycleKeeper, Work
from holdfast_server.heal.bucket_keeper import Outcome as Ended
from holdfast_server.heal.bucket_keeper import WalkedBucket
from holdfast_server.objects.port import ObjectError, Reader, Record, Unavailable, Versioning
from holdfast_server.s3.expiry import Calendar, Due
from holdfast_server.s3.lifecycle import LifecycleRule, Terms
from holdfast_server.sealing.envelope import RANDOM_SIZE_BYTES, SSE_S3, Seal, Sealing, new_seal, open_seal
from holdfast_server.testing import virtual_time
from holdfast_server.testing.memory_services import memory_services
from holdfast_server.testing.sim import simulation, versioned
from holdfast_server.testing.sim.cluster import Cluster, Coordinator
from holdfast_server.testing.sim.history import DONE, INLINE_SIZE_BYTES, MISMATCH, History, Operation, Violation
from holdfast_server.testing.sim.plan import Plan, draw
from holdfast_server.testing.sim.simulation import Outcome
from holdfast_server.testing.sim.version_history import LOCKED
from holdfast_server.testing.sim.versioned import VersionedEnding, VersionedWorkload
from holdfast_server.testing.sim.workload import BUCKET, Client, Workload

BASES = {"aging": "any", "aging_torn": "torn", "aging_ambush": "ambush", "aging_power": "power"}
VERSIONED_BASES = {"aging_versions": "versions", "aging_versions_ambush": "versions_ambush"}
PROFILES = (*BASES, *VERSIONED_BASES)
SEEN_SECONDS_AGO = (0.0, 0.05, 1.0)
MASTER_KEY = bytes(range(32))
DAY_MS = 100
"""Of rules for replaced versions."""
WHAT_IS_LARGE = LifecycleRule(
    id="large", enabled=True, date_ms=0, filter=Terms(larger_than_bytes=INLINE_SIZE_BYTES)
)  # fmt: skip
WHAT_WAS_REPLACED = LifecycleRule(id="replaced", enabled=True, noncurrent_days=1)


class SealedWorkload(Workload):
    """Two of three writes are sealed.  Nothing is drawn for it: the number of the write decides."""

    def _seal(self, key: str, number: int) -> Seal | None:
        if number % 3 == 0:
            return None
        random_bytes = hashlib.shake_256(b"%d" % number).digest(RANDOM_SIZE_BYTES)
        return new_seal(Sealing(SSE_S3, "default.1"), MASTER_KEY, BUCKET, key, random_bytes)

    def _unlock(self, reader: Reader, number: int) -> None:
        """An upload is not sealed, and its number is no write's."""
        sealing = reader.record.sealing
        if sealing is not None:
            reader.unlock(open_seal(sealing, MASTER_KEY, BUCKET, self._key_of(number)))
        elif number in self._sealed_numbers():
            raise Violation("SealedStaysSealed", f"write {number} was sealed, and its record does not say so")

    def _key_of(self, number: int) -> str:
        return next(op.key for op in self._history.operations if op.number == number and op.kind.startswith("put"))

    def _sealed_numbers(self) -> set[int]:
        puts = (op.number for op in self._history.operations if op.kind.startswith("put"))
        return {number for number in puts if number % 3}


# ---------------------------------------------------------------- rules carried out


class _Lease:
    """The right to delete, of a bucket that stays as it is."""

    def __init__(self, bucket: BucketRecord) -> None:
        self.bucket = bucket

    @property
    def keeps(self) -> Versioning:
        return self.bucket.keeps

    async def renew(self) -> None:
        """It does not grow old."""

    def confirm(self) -> None:
        """Nobody fences it."""


class Keeper(LifecycleKeeper):
    """That of one coordinator, for one rule."""

    def __init__(self, coordinator: Coordinator, rule: LifecycleRule, versioning: str = "") -> None:
        services = memory_services(coordinator.store, coordinator.clock)
        super().__init__(services, coordinator.clock.now_ms, services.quotas, Calendar(day_ms=DAY_MS))
        self._bucket = BucketRecord(
            id=BUCKET, name="bucket", owner="", region="", created_ms=0, lifecycle=[rule], versioning=versioning
        )
        self.walked = WalkedBucket("bucket", [rule], bool(versioning))

    async def _under_lease(self, bucket_id: bytes, bucket: WalkedBucket, key: str, work: Work) -> Ended:
        self._services.buckets.writing = self._writing  # type: ignore[method-assign, assignment]
        return await super()._under_lease(bucket_id, bucket, key, work)

    def _writing(self, _: str) -> _Held:
        return _Held(cast(WriteLease, _Lease(self._bucket)))


class _Held:
    """`async with` it."""

    def __init__(self, lease: WriteLease) -> None:
        self._lease = lease

    async def __aenter__(self) -> WriteLease:
        return self._lease

    async def __aexit__(self, *_: object) -> None:
        return None


class AgingWorkload(SealedWorkload):
    async def _one(self, client: Client, kind: str, key: str) -> None:
        if kind == "expire":
            await self._expire(self._cluster.coordinators[client.node], key)
        else:
            await super()._one(client, kind, key)

    async def _expire(self, coordinator: Coordinator, key: str) -> None:
        try:
            seen = await coordinator.store.head_object(BUCKET, key)
        except ObjectError:
            return
        await asyncio.sleep(self._rng.choice(SEEN_SECONDS_AGO))
        if seen is None:
            return
        keeper = Keeper(coordinator, WHAT_IS_LARGE)
        if seen.size_bytes <= INLINE_SIZE_BYTES:
            if (await keeper.expire(BUCKET, keeper.walked, key, seen.stamp)).done:
                raise Violation("OnlyWhatIsDue", f"{seen.etag} of {key} expired, which is small")
            return
        operation = self._history.begin("delete_if", key, coordinator.node)
        operation.expected = int(seen.etag)
        ended = await keeper.expire(BUCKET, keeper.walked, key, seen.stamp)
        if ended.failed:
            self._history.give_up(operation, Unavailable("not now"))
        else:
            self._end(coordinator, operation, DONE if ended.done else MISMATCH)


class AgingVersions(SealedWorkload, VersionedWorkload):
    def __init__(self, cluster: Cluster, history: History, rng: random.Random) -> None:
        super().__init__(cluster, history, rng)
        self.judged: list[tuple[Record, Due]] = []
        """What was found due by anybody: a pod that was suspended acts on it much later."""

    async def _one(self, client: Client, kind: str, key: str) -> None:
        """What is deleted is the newest more often than not: then what a rule judged is current again."""
        coordinator = self._cluster.coordinators[client.node]
        known = list(self._ids.get(key, {}).items())
        if kind == "expire":
            keeper = _NotingKeeper(self, coordinator)
            if self.judged and self._rng.random() < 0.5:
                await keeper.end_what_was_judged(key, *self._rng.choice(self.judged))
            else:
                await keeper.settle(BUCKET, keeper.walked, key)
        elif kind == "delete" and known and self._rng.random() < 0.7:
            await self._delete(coordinator, key, *known[-1])
        else:
            await super()._one(client, kind, key)


class _NotingKeeper(Keeper):
    """Each deletion is an operation."""

    def __init__(self, workload: AgingVersions, coordinator: Coordinator) -> None:
        super().__init__(coordinator, WHAT_WAS_REPLACED, ENABLED)
        self._workload, self._coordinator = workload, coordinator

    async def end_what_was_judged(self, key: str, judged: Record, due: Due) -> None:
        async def work(lease: WriteLease, outcome: Ended) -> None:
            await self._end(lease, key, judged, due, outcome)

        await self._under_lease(BUCKET, self.walked, key, work)

    async def _end(self, lease: WriteLease, key: str, judged: Record, due: Due, outcome: Ended) -> None:
        history = self._workload._history
        number = self._workload._learn(key, judged)
        self._workload.judged.append((judged, due))
        await asyncio.sleep(self._workload._rng.choice(SEEN_SECONDS_AGO))
        operation = history.begin("expire", key, self._coordinator.node, number)
        before = (outcome.done.total(), outcome.locked, outcome.failed)
        await super()._end(lease, key, judged, due, outcome)
        done, locked, failed = (
            now - then for now, then in zip((outcome.done.total(), outcome.locked, outcome.failed), before, strict=True)
        )
        if failed:
            history.give_up(operation, Unavailable("not now"))
        elif done or locked:
            self._workload._end(self._coordinator, operation, DONE if done else LOCKED)
        else:
            self._nothing_done(history, operation)

    def _nothing_done(self, history: History, operation: Operation) -> None:
        """It was gone, or is another by now: that is no answer about anything."""
        history.operations.remove(operation)


# ---------------------------------------------------------------- the run


def aging_plan(rng: random.Random, profile: str) -> Plan:
    if profile in VERSIONED_BASES:
        base = versioned.versioned_plan(rng, VERSIONED_BASES[profile])
        weights = {"put": 5, "delete": 4, "lock": rng.choice((0, 1)), "list_versions": 1, "get": 1, "expire": 8}
        return replace(base, keys=("k",), weights=weights, steps=(8, 12))
    base = draw(rng, BASES[profile])
    weights = {"put": 4, "get": 2, "range": 1, **base.weights, "upload": 0, "expire": rng.choice((5, 10))}
    return replace(base, weights=weights, file_sized=rng.choice((0.4, 0.7)))


def replay(seed: int, profile: str = "aging") -> Outcome:
    """Run one seed.  Raises Failed."""
    rng = random.Random(f"{profile} {seed}")
    plan = aging_plan(rng, profile)
    history = History()
    book: list[AgingVersions] = []

    def versions(cluster: Cluster, history: History, rng: random.Random) -> AgingVersions:
        book.append(AgingVersions(cluster, history, rng))
        return book[0]

    def play() -> bool:
        if profile in VERSIONED_BASES:
            virtual_time.run(simulation.run(plan, history, rng, versions, VersionedEnding))
            return versioned.judge(history, book[0])
        virtual_time.run(simulation.run(plan, history, rng, AgingWorkload))
        return simulation.judge(history, plan.calm)

    return simulation.played(seed, profile, plan, history, play)
