"""Locked versions over the real object store: once a lock was acknowledged, its version stays, whatever races with it.

Deletion and lock meet at every call of the one or the other; a coordinator dies half-way; a clock is ahead.
"""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Callable
from contextvars import ContextVar
from random import Random
from typing import Any

import pytest

from holdfast_server.clock.bounds import Reading, TimeBounds
from holdfast_server.clock.system import SystemClock
from holdfast_server.drives.port import DriveOffline
from holdfast_server.objects.object_lock import (
    COMPLIANCE,
    GOVERNANCE,
    Retention,
    allows,
    legal_hold_of,
    protects,
    retention_of,
    with_legal_hold,
    with_retention,
)
from holdfast_server.objects.port import Locked, ObjectError, Record, Versioning
from holdfast_server.objects.record import Kind
from holdfast_server.objects.store import ObjectStore
from holdfast_server.testing.memory_cluster import BUCKET, BytesBody, CutOff, MemoryCluster
from holdfast_server.testing.virtual_time import VirtualClock

BIG = bytes(range(251)) * 1500
DAY_MS = 24 * 3600 * 1000
EVERY_CALL = bool(os.environ.get("HOLDFAST_EVERY_CALL"))
"""Meddle at every single call; else at some of them."""


async def put(store: ObjectStore, data: bytes, **headers: str) -> bytes:
    body = BytesBody(data, versioning=Versioning.ENABLED, headers=headers)
    return (await store.put_object(BUCKET, "k", body)).place


async def hold(store: ObjectStore, version: bytes, on: bool = True) -> Record | None:
    return await store.amend_object(BUCKET, "k", lambda found: with_legal_hold(found.headers, on), version)


async def retain(store: ObjectStore, version: bytes, mode: str, until_ms: int) -> None:
    kept = Retention(mode, until_ms)
    await store.amend_object(BUCKET, "k", lambda found: with_retention(found.headers, kept), version)


async def delete(store: ObjectStore, version: bytes) -> Record | None:
    return await store.delete_version(BUCKET, "k", version)


async def held(store: ObjectStore, version: bytes) -> bool | None:
    """Whether it is under a legal hold; None where there is no such version."""
    found = await store.head_object(BUCKET, "k", version)
    return None if found is None else bool(legal_hold_of(found.headers))


async def insist(cluster: MemoryCluster, work: Callable[[], Any]) -> Any:
    """As a client does that gets a 503."""
    for _ in range(60):
        try:
            return await work()
        except Locked as error:
            return error
        except ObjectError:
            await cluster.clock.sleep(1)
    raise AssertionError("never answered")


ACTOR: ContextVar[str] = ContextVar("actor", default="")


class Meddler:
    """At call n of the first coordinator another does something, from beginning to end.

    `frozen`: the first does nothing at all meanwhile; else only that call is held up.
    """

    def __init__(self, cluster: MemoryCluster, calls: int, frozen: bool, work: Callable[[], Any]) -> None:
        self._cluster = cluster
        self._left = calls
        self._frozen = frozen
        self._work = work
        self.task: asyncio.Task[Any] | None = None

    async def first(self, work: Callable[[], Any]) -> Any:
        ACTOR.set("first")
        return await insist(self._cluster, work)

    async def hook(self, position: int, verb: str, _: Any) -> None:
        if ACTOR.get() != "first":
            return
        self._left -= 1
        if self._left == -1:
            ACTOR.set("second")
            self.task = asyncio.create_task(insist(self._cluster, self._work))
            ACTOR.set("first")
        if self.task is not None and (self._left == -1 or self._frozen):
            await asyncio.shield(self.task)


# -------------------------------------------------------------------- by itself


def test_what_is_in_force_can_only_be_made_longer() -> None:
    now = 1000
    for mode in (GOVERNANCE, COMPLIANCE):
        kept = Retention(mode, 2000)
        other = Retention(COMPLIANCE if mode == GOVERNANCE else GOVERNANCE, 3000)
        assert allows(kept, Retention(mode, 2000), now, False)
        assert allows(kept, Retention(mode, 2001), now, False)
        for after in (Retention(mode, 1999), None, other):
            assert not allows(kept, after, now, False)
            assert allows(kept, after, now, True) == (mode == GOVERNANCE)
            assert allows(kept, after, 2000, False), "its date is past"
            assert allows(None, after, now, False)


def test_what_cannot_be_read_protects() -> None:
    for text in ("", "FOREVER 5", "GOVERNANCE", "GOVERNANCE soon", "COMPLIANCE -1"):
        there = Record(Kind.OBJECT, 1, headers={"x-holdfast-retention": text})
        assert protects(there, 1 << 60, bypass_governance=True), text
    assert protects(Record(Kind.OBJECT, 1, headers={"x-holdfast-legal-hold": "PERHAPS"}), 0)
    assert not protects(Record(Kind.OBJECT, 1, headers={"x-holdfast-legal-hold": "OFF"}), 0)


def test_it_is_as_late_as_every_clock_says() -> None:
    told_ms, now_ms, age_seconds = 50 * DAY_MS, 50 * DAY_MS, 0.0

    class Steered(SystemClock):
        def now_ms(self) -> int:
            return now_ms

    def others() -> list[Reading]:
        return [Reading(told_ms + DAY_MS, age_seconds), Reading(told_ms - 5000, age_seconds)]

    bounds = TimeBounds(Steered(), others)
    assert (bounds.earliest_ms(), bounds.latest_ms()) == (now_ms - 5000, now_ms + DAY_MS)
    age_seconds = 5.0
    assert bounds.earliest_ms() == now_ms, "the others' clocks have gone on"
    now_ms += 2 * DAY_MS
    assert bounds.earliest_ms() == told_ms, "the own one was set wrong meanwhile"
    assert TimeBounds(Steered()).earliest_ms() == now_ms


async def test_a_lock_ends_with_its_date_and_not_by_one_clock_alone(cluster: MemoryCluster) -> None:
    store = cluster.store
    wrong_ms = 0

    class Wrong(VirtualClock):
        def now_ms(self) -> int:
            return super().now_ms() + wrong_ms

    store.bounds = TimeBounds(Wrong(), lambda: [Reading(cluster.clock.now_ms(), 0.0)])
    for mode in (GOVERNANCE, COMPLIANCE):
        version = await put(store, b"x")
        await retain(store, version, mode, cluster.clock.now_ms() + 20_000)
        wrong_ms = DAY_MS
        with pytest.raises(Locked):
            await delete(store, version)
        wrong_ms = 0
        await cluster.clock.sleep(21)
        assert await delete(store, version) is not None


async def test_a_lock_goes_with_its_version(cluster: MemoryCluster) -> None:
    """To rest, and back to being current when what replaced it is deleted."""
    store = cluster.store
    first = await put(store, BIG)
    await hold(store, first)
    second = await put(store, b"second")
    with pytest.raises(Locked):
        await delete(store, first)
    assert await held(store, first)
    await delete(store, second)
    assert await held(store, first)
    with pytest.raises(Locked):
        await delete(store, first)
    marker = await store.delete_object(BUCKET, "k", versioning=Versioning.ENABLED)
    assert marker is not None
    assert await held(store, first)
    await hold(store, first, False)
    assert await delete(store, first) is not None


# -------------------------------------------------------------------- deletion and lock at once

Act = Callable[[ObjectStore, dict[str, bytes]], Any]

RACES: dict[str, tuple[str, str, str]] = {
    "the current one is deleted, and locked meanwhile": ("current", "delete current", "lock current"),
    "the current one is locked, and deleted meanwhile": ("current", "lock current", "delete current"),
    "an old one is deleted, and locked meanwhile": ("old", "delete old", "lock old"),
    "an old one is locked, and deleted meanwhile": ("old", "lock old", "delete old"),
    "one is locked that becomes current": ("old", "delete current", "lock old"),
    "one becomes current while it is locked": ("old", "lock old", "delete current"),
    "one is replaced while it is locked": ("current", "lock current", "put"),
    "one is locked while it is replaced": ("current", "put", "lock current"),
}
"""What it is about, what is done, and what in the middle of it."""


def act(store: ObjectStore, ids: dict[str, bytes], what: str) -> Callable[[], Any]:
    verb, _, which = what.partition(" ")
    if verb == "put":
        return functools.partial(put, store, b"new")
    return functools.partial(hold if verb == "lock" else delete, store, ids[which])


@pytest.mark.parametrize("race", RACES)
@pytest.mark.parametrize("frozen", [True, False])
async def test_a_lock_that_was_acknowledged_holds(
    make_cluster: Callable[..., MemoryCluster], race: str, frozen: bool
) -> None:
    """At call n of the first, another coordinator does all of the second; for many n.  Afterwards others put, delete
    and look: what was locked stays, and who was refused has changed nothing."""
    about, outer, inner = RACES[race]
    outcomes = set()
    n = -1
    while True:
        n += 1 if EVERY_CALL else 4
        cluster = make_cluster()
        await put(cluster.store, b"oldest")
        ids = {"old": await put(cluster.store, BIG + b"old"), "current": await put(cluster.store, b"current")}
        await cluster.settle()
        meddler = Meddler(cluster, n, frozen, act(cluster.new_store(), ids, inner))
        cluster.hook = meddler.hook
        first = asyncio.create_task(meddler.first(act(cluster.new_store(), ids, outer)))
        answers = {outer: await first}
        cluster.hook = None
        if meddler.task is None:
            break
        answers[inner] = await meddler.task
        await cluster.settle()
        found = await held(cluster.store, ids[about])
        if answers[f"lock {about}"] is not None:
            assert found is True, (n, "an acknowledged lock is gone")
        refused = isinstance(answers.get(f"delete {about}"), Locked)
        if f"delete {about}" in answers:
            assert found is (True if refused else None), n
        outcomes.add(found)
        # Whatever comes: it stays if it is locked, and is gone if it is not there.
        await cluster.clock.sleep(60)
        third = cluster.new_store()
        for _ in range(2):
            await put(third, b"more")
            assert await held(cluster.store, ids[about]) is found, n
            if found:
                with pytest.raises(Locked):
                    await delete(third, ids[about])
    assert frozen is False or outcomes == ({True, None} if f"delete {about}" in (outer, inner) else {True})


@pytest.mark.parametrize("about", ["current", "old"])
async def test_a_deletion_that_died_does_not_outlive_the_lock(
    make_cluster: Callable[..., MemoryCluster], about: str
) -> None:
    """The deleter dies at call n; then its version is locked, if it is still there; then it is written over."""
    reach = -1
    outcomes = set()
    while True:
        reach += 1 if EVERY_CALL else 2
        cluster = make_cluster()
        ids = {"old": await put(cluster.store, BIG), "current": await put(cluster.store, b"current")}
        await cluster.settle()
        # Its clock is ahead: what it wrote has greater stamps than what comes after, as far as those who have not
        # seen it know.
        dying = cluster.new_store()
        dying.clock = cluster.clock
        for one in dying.all_sets():
            one.next_stamp(dying._stamps.next(cluster.clock.now_ms() + 1500))
        cluster.hook = cut_off = CutOff(reach)
        try:
            await delete(dying, ids[about])
        except ObjectError:
            pass
        await dying.background.drained()
        cluster.hook = None
        await cluster.clock.sleep(0.1)
        locked = await insist(cluster, functools.partial(hold, cluster.new_store(), ids[about]))
        outcomes.add(locked is None)
        store = cluster.new_store()
        for data in (b"next", b"and the next"):
            await insist(cluster, functools.partial(put, store, data))
            assert await held(store, ids[about]) == (None if locked is None else True), reach
        if cut_off.spared:
            break
    assert outcomes == {True, False}


@pytest.mark.parametrize("seed", range(300 if EVERY_CALL else 6))
async def test_coordinators_that_lock_write_and_delete_at_the_same_time(
    make_cluster: Callable[..., MemoryCluster], seed: int
) -> None:
    rng = Random(seed)
    cluster = make_cluster()
    stores = [cluster.store, cluster.new_store(), cluster.new_store()]
    versions = [await put(cluster.store, b"%d" % number) for number in range(4)]
    unlocking: set[bytes] = set()
    locked: set[bytes] = set()

    async def hook(position: int, verb: str, _: Any) -> None:
        await cluster.clock.sleep(rng.random() * rng.choice((0.002, 0.02, 0.2)))
        if rng.random() < 0.01:
            raise DriveOffline("lost")

    async def act() -> None:
        await cluster.clock.sleep(rng.random() * 0.3)
        store, choice, version = rng.choice(stores), rng.random(), rng.choice(versions[-6:])
        try:
            if choice < 0.2:
                versions.append(await put(store, b"new"))
            elif choice < 0.5:
                if await hold(store, version) is not None and version not in unlocking:
                    locked.add(version)
            elif choice < 0.55:
                unlocking.add(version)
                locked.discard(version)
                await hold(store, version, False)
            else:
                was_locked = version in locked
                gone = await delete(store, version)
                assert not (gone is not None and was_locked and version in locked), "a locked version was deleted"
        except ObjectError:
            pass

    cluster.hook = hook
    for _ in range(5):
        async with asyncio.TaskGroup() as group:
            for _ in range(6):
                group.create_task(act())
    cluster.hook = None
    await cluster.settle()
    await cluster.clock.sleep(60)
    for version in locked:
        assert await held(cluster.store, version) is True
    await put(cluster.store, b"last")
    for version in locked:
        assert await held(cluster.new_store(), version) is True


def test_a_retention_survives_its_text() -> None:
    kept = Retention(COMPLIANCE, 1234567890123)
    assert retention_of(with_retention({"a": "b"}, kept)) == kept
    assert with_retention(with_retention({"a": "b"}, kept), None) == {"a": "b"}
