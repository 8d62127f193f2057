"""Versions over the real object store: what S3 says they are, whatever fails, dies or runs at the same time."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any, NamedTuple

import pytest

from holdfast_server.clock.stamp import floor_stamp
from holdfast_server.drives.port import DriveOffline
from holdfast_server.objects.healing import OPERATION_DEADLINE_SECONDS
from holdfast_server.objects.port import NULL_VERSION, ObjectError, OutOfSpace, Record, Versioning
from holdfast_server.objects.record import VERSION_SPACE, version_register
from holdfast_server.objects.store import ObjectStore
from holdfast_server.testing.memory_cluster import BUCKET, BytesBody, CutOff, MemoryCluster

ON, SUSPENDED, OFF = Versioning.ENABLED, Versioning.SUSPENDED, Versioning.OFF
SMALL = bytes(range(256)) * 8
BIG = bytes(range(251)) * 6000


class Shown(NamedTuple):
    """One version as a client sees it."""

    version: bytes
    data: bytes | None
    """None: a delete marker."""


def version_of(record: Record) -> bytes:
    return NULL_VERSION if record.null else record.place


async def put(store: ObjectStore, data: bytes, versioning: Versioning = ON, key: str = "k", **more: Any) -> bytes:
    return version_of(await store.put_object(BUCKET, key, BytesBody(data, versioning=versioning), **more))


async def mark(store: ObjectStore, versioning: Versioning = ON, key: str = "k") -> bytes:
    marker = await store.delete_object(BUCKET, key, versioning=versioning)
    assert marker is not None
    assert marker.marker
    return version_of(marker)


async def read(store: ObjectStore, version: bytes | None = None, key: str = "k") -> Shown | None:
    reader = await store.open_object(BUCKET, key, version)
    if reader is None:
        return None
    record = reader.record
    if record.marker:
        return Shown(version_of(record), None)
    data = b"".join([bytes(chunk) async for chunk in reader.chunks(0, record.size_bytes)])
    return Shown(version_of(record), data)


async def listed(store: ObjectStore, key: str = "k", limit: int = 1000) -> list[bytes]:
    """By pages; the first is said to be the latest."""
    found: list[bytes] = []
    after: dict[str, Any] = {}
    while True:
        page = await store.list_versions(BUCKET, prefix=key, limit=limit, **after)
        assert [entry.latest for entry in page.entries] == [not found and not at for at in range(len(page.entries))]
        found += [version_of(entry.record) for entry in page.entries]
        if not page.truncated:
            return found
        after = {"after": key, "after_version": found[-1]}


async def look(store: ObjectStore, limit: int = 1000) -> list[Shown]:
    """Everything there is of the key; listing, reads by version, the plain read and the plain listing must agree."""
    versions = await listed(store, limit=limit)
    shown = [await read(store, version) for version in versions]
    assert all(one is not None and one.version == version for one, version in zip(shown, versions, strict=True))
    assert await read(store) == (shown[0] if shown else None)
    page = await store.list_objects(BUCKET)
    assert bool(page.entries) == bool(shown and shown[0] is not None and shown[0].data is not None)
    return [one for one in shown if one is not None]


# -------------------------------------------------------------------- what is kept


@pytest.mark.parametrize("data", [SMALL, BIG, b""])
async def test_each_put_leaves_a_version_and_each_can_be_read(cluster: MemoryCluster, data: bytes) -> None:
    ids = [await put(cluster.store, data + bytes((number,))) for number in range(3)]
    assert await look(cluster.store) == [Shown(ids[n], data + bytes((n,))) for n in (2, 1, 0)]
    assert await look(cluster.store, limit=1) == await look(cluster.new_store(), limit=2)


async def test_what_was_there_before_becomes_the_null_version(cluster: MemoryCluster) -> None:
    await cluster.put("k", b"before")
    first = await put(cluster.store, b"after")
    assert await look(cluster.store) == [Shown(first, b"after"), Shown(NULL_VERSION, b"before")]


async def test_a_delete_marker_hides_the_key_and_deleting_it_shows_it_again(cluster: MemoryCluster) -> None:
    first = await put(cluster.store, SMALL)
    marker = await mark(cluster.store)
    second = await mark(cluster.store)
    assert await look(cluster.store) == [Shown(second, None), Shown(marker, None), Shown(first, SMALL)]
    for version in (second, marker):
        await cluster.store.delete_version(BUCKET, "k", version)
    assert await look(cluster.store) == [Shown(first, SMALL)]


@pytest.mark.parametrize("data", [SMALL, BIG])
async def test_deleting_what_is_current_makes_the_next_newest_current(cluster: MemoryCluster, data: bytes) -> None:
    ids = [await put(cluster.store, data + bytes((number,))) for number in range(4)]
    await cluster.store.delete_version(BUCKET, "k", ids[2])
    await cluster.store.delete_version(BUCKET, "k", ids[3])
    assert await look(cluster.store) == [Shown(ids[n], data + bytes((n,))) for n in (1, 0)]
    last = await put(cluster.store, b"last")
    assert await look(cluster.store) == [Shown(last, b"last"), *(Shown(ids[n], data + bytes((n,))) for n in (1, 0))]
    for version in (last, ids[1], ids[0]):
        await cluster.store.delete_version(BUCKET, "k", version)
    assert await look(cluster.store) == []
    assert await cluster.store.delete_version(BUCKET, "k", ids[0]) is None


async def test_suspended_there_is_one_null_version(cluster: MemoryCluster) -> None:
    await cluster.put("k", b"before")
    first = await put(cluster.store, b"first")
    await put(cluster.store, b"null again", SUSPENDED)
    assert await look(cluster.store) == [Shown(NULL_VERSION, b"null again"), Shown(first, b"first")]
    await put(cluster.store, b"and again", SUSPENDED)
    second = await put(cluster.store, b"second")
    expected = [Shown(second, b"second"), Shown(NULL_VERSION, b"and again"), Shown(first, b"first")]
    assert await look(cluster.store) == expected
    assert await mark(cluster.store, SUSPENDED) == NULL_VERSION
    assert await look(cluster.store) == [Shown(NULL_VERSION, None), Shown(second, b"second"), Shown(first, b"first")]
    await cluster.store.delete_version(BUCKET, "k", NULL_VERSION)
    assert await look(cluster.store) == [Shown(second, b"second"), Shown(first, b"first")]


async def test_a_null_version_is_current_again_and_is_still_the_only_one(cluster: MemoryCluster) -> None:
    await put(cluster.store, b"null", SUSPENDED)
    first = await put(cluster.store, b"first")
    await cluster.store.delete_version(BUCKET, "k", first)
    assert await look(cluster.store) == [Shown(NULL_VERSION, b"null")]
    second = await put(cluster.store, b"second")
    assert await look(cluster.store) == [Shown(second, b"second"), Shown(NULL_VERSION, b"null")]
    await put(cluster.store, b"another", SUSPENDED)
    await cluster.store.delete_version(BUCKET, "k", NULL_VERSION)
    assert await look(cluster.store) == [Shown(second, b"second")]


async def test_deleting_a_version_gives_its_shards_back(cluster: MemoryCluster) -> None:
    ids = [await put(cluster.store, BIG + bytes((number,))) for number in range(3)]
    for version in (ids[0], ids[2], ids[1]):
        await cluster.store.delete_version(BUCKET, "k", version)
    await cluster.settle()
    assert not cluster.unnamed_shards()
    assert not any(drive.named_shards() for drive in cluster.drives)


@pytest.mark.parametrize("data", [SMALL, BIG])
async def test_full_drives_take_deletes(cluster: MemoryCluster, data: bytes) -> None:
    """What ends versions begins with a delete marker, expiry too."""
    store = cluster.store
    oldest, newest = await put(store, data), await put(store, data + b"2")
    await put(store, data, key="suspended")
    await cluster.settle()
    for drive in cluster.drives:
        drive.full = True
    marker = await mark(store)
    assert await listed(store) == [marker, newest, oldest]
    await mark(store, SUSPENDED, key="suspended")
    await store.delete_version(BUCKET, "k", marker)
    assert await read(store) == Shown(newest, data + b"2")
    await store.delete_version(BUCKET, "k", newest)
    assert await read(store) == Shown(oldest, data)
    await store.delete_version(BUCKET, "k", oldest)
    assert await read(store) is None
    for versioning in (ON, SUSPENDED, OFF):
        with pytest.raises(OutOfSpace):
            await put(store, SMALL, versioning, key="new")
    await cluster.settle()
    assert not cluster.unnamed_shards()


async def test_delete_markers_leave_half_of_the_reserve_to_what_frees_space(cluster: MemoryCluster) -> None:
    store = cluster.store
    version = await put(store, SMALL)
    await cluster.settle()
    for drive in cluster.drives:
        drive.full = drive.reserve_used = True
    with pytest.raises(OutOfSpace):
        await mark(store)
    await cluster.settle()
    assert await read(store) == Shown(version, SMALL)
    await store.delete_version(BUCKET, "k", version)
    assert await read(store) is None


async def test_a_replaced_null_version_gives_its_shards_back(cluster: MemoryCluster) -> None:
    await put(cluster.store, BIG, SUSPENDED)
    await put(cluster.store, b"first")
    await put(cluster.store, b"null", SUSPENDED)
    await cluster.settle()
    assert not any(drive.named_shards() for drive in cluster.drives)


async def test_a_condition_is_about_the_current_version(cluster: MemoryCluster) -> None:
    class Refused(Exception):
        pass

    def absent(current: Record | None) -> None:
        if current is not None:
            raise Refused

    await put(cluster.store, b"first", condition=absent)
    with pytest.raises(Refused):
        await put(cluster.store, b"second", condition=absent)
    await mark(cluster.store)
    await put(cluster.store, b"third", condition=absent)
    assert [one.data for one in await look(cluster.store)] == [b"third", None, b"first"]


# -------------------------------------------------------------------- listing


async def test_markers_hide_groups_from_one_listing_and_not_from_the_other(cluster: MemoryCluster) -> None:
    store = cluster.store
    for key in ("a/1", "a/2", "b/1", "b/2", "c"):
        await put(store, b"x", key=key)
        await put(store, b"y", key=key)
    for key in ("a/1", "a/2", "b/1", "c"):
        await mark(store, key=key)
    plain = await store.list_objects(BUCKET, delimiter="/")
    assert ([entry.key for entry in plain.entries], plain.prefixes) == ([], ["b/"])
    everything = await store.list_versions(BUCKET, delimiter="/")
    assert [entry.key for entry in everything.entries] == ["c"] * 3
    assert everything.prefixes == ["a/", "b/"]
    first = await store.list_versions(BUCKET, delimiter="/", limit=1)
    assert (first.prefixes, first.truncated) == (["a/"], True)
    rest = await store.list_versions(BUCKET, delimiter="/", after="a/", limit=2)
    assert (rest.prefixes, len(rest.entries), rest.truncated) == (["b/"], 1, True)


async def test_a_listing_of_versions_goes_by_pages_of_any_size(cluster: MemoryCluster) -> None:
    store = cluster.store
    expected = []
    for key in ("a", "a\0b", "b", "ü"):
        made = [await put(store, b"x", key=key) for _ in range(3)]
        expected += [(key, version) for version in reversed(made)]
    for limit in (1, 2, 3, 4, 5, 12):
        found: list[tuple[str, bytes]] = []
        after: dict[str, Any] = {}
        while True:
            page = await store.list_versions(BUCKET, limit=limit, **after)
            assert len(page.entries) <= limit
            found += [(entry.key, version_of(entry.record)) for entry in page.entries]
            if not page.truncated:
                break
            after = {"after": found[-1][0], "after_version": found[-1][1]}
        assert found == expected
    whole_keys = await store.list_versions(BUCKET, after="a\0b")
    assert [entry.key for entry in whole_keys.entries] == ["b"] * 3 + ["ü"] * 3


async def test_listing_current_objects_asks_no_more_of_a_drive_for_old_versions(cluster: MemoryCluster) -> None:
    async def calls() -> int:
        await cluster.settle()
        cluster.calls.clear()
        await cluster.store.list_objects(BUCKET)
        return len(cluster.calls)

    await put(cluster.store, b"x")
    before = await calls()
    for _ in range(20):
        await put(cluster.store, b"x")
    assert await calls() == before


async def test_a_page_costs_the_same_however_many_versions_there_are(cluster: MemoryCluster) -> None:
    """Of a key with many versions, at any depth, and of the keys around it."""
    store = cluster.store
    await put(store, b"x", key="a")
    made = [await put(store, b"%d" % number, key="k") for number in range(90)]
    for number in range(40):
        await put(store, b"x", key=f"l{number}")
    scanned = 0

    async def hook(position: int, verb: str, arguments: tuple[Any, ...]) -> None:
        nonlocal scanned
        scanned += arguments[0].limit if verb == "list_registers" else 0

    cluster.hook = hook
    costs = []
    for depth in (0, 45, 80):
        await cluster.settle()
        scanned = 0
        after = {"after": "k", "after_version": made[-depth]} if depth else {"after": "a"}
        page = await store.list_versions(BUCKET, limit=5, **after)  # type: ignore[arg-type]
        expected = made[::-1][depth : depth + 5]
        assert [version_of(entry.record) for entry in page.entries] == expected
        costs.append(scanned)
    assert max(costs) <= 2 * min(costs), costs
    assert max(costs) < 90, costs


# -------------------------------------------------------------------- whatever fails

Change = Callable[[ObjectStore, dict[str, bytes]], Any]

CHANGES: dict[str, tuple[Change, Callable[[list[Shown], dict[str, bytes]], list[bytes | None]]]] = {
    "put": (lambda s, _: put(s, BIG), lambda before, _: [BIG, *(one.data for one in before)]),
    "put null": (
        lambda s, _: put(s, SMALL, SUSPENDED),
        lambda before, _: [SMALL, *(one.data for one in before if one.version != NULL_VERSION)],
    ),
    "mark": (lambda s, _: mark(s), lambda before, _: [None, *(one.data for one in before)]),
    "delete current": (
        lambda s, ids: s.delete_version(BUCKET, "k", ids["current"]),
        lambda before, _: [one.data for one in before[1:]],
    ),
    "delete old": (
        lambda s, ids: s.delete_version(BUCKET, "k", ids["old"]),
        lambda before, ids: [one.data for one in before if one.version != ids["old"]],
    ),
    "delete null": (
        lambda s, _: s.delete_version(BUCKET, "k", NULL_VERSION),
        lambda before, _: [one.data for one in before if one.version != NULL_VERSION],
    ),
}


async def shelf(cluster: MemoryCluster) -> dict[str, bytes]:
    await put(cluster.store, b"oldest")
    await put(cluster.store, b"null", SUSPENDED)
    ids = {"old": await put(cluster.store, BIG + b"old"), "current": await put(cluster.store, SMALL + b"current")}
    await cluster.settle()
    return ids


EVERY_CALL = bool(os.environ.get("HOLDFAST_EVERY_CALL"))
"""Die at every single call; else at some of them."""


@pytest.mark.parametrize("change", CHANGES)
async def test_a_coordinator_that_dies_at_any_call_leaves_the_change_whole_or_undone(
    make_cluster: Callable[..., MemoryCluster], change: str
) -> None:
    """From call n on, nothing reaches any drive; for many n until the change is through before that."""
    work, expected = CHANGES[change]
    outcomes = set()
    reach = -1
    while True:
        reach += 1 if EVERY_CALL else 1 + (reach + len(change)) % 3 * 3
        cluster = make_cluster()
        ids = await shelf(cluster)
        before = await look(cluster.store)
        dying = cluster.new_store()
        cluster.hook = cut_off = CutOff(reach)
        acknowledged = True
        try:
            await work(dying, ids)
        except ObjectError:
            acknowledged = False
        await dying.background.drained()
        cluster.hook = None
        await cluster.clock.sleep(60)
        after = expected(before, ids)
        found = [one.data for one in await look(cluster.store)]
        assert found == after if acknowledged else found in (after, [one.data for one in before])
        for _ in range(2):
            assert [one.data for one in await look(cluster.new_store())] == found, "what was seen stays so"
        # What was left half done is in nobody's way, and takes effect with the next write or not at all.
        await put(cluster.store, b"next")
        now = [one.data for one in await look(cluster.store)]
        assert now == [b"next", *found] or now == [b"next", *after]
        outcomes.add(found == after)
        if cut_off.spared:
            break
    assert outcomes == {True, False}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("position", range(4))
async def test_a_change_with_a_drive_away_is_made_good_on_it(
    cluster: MemoryCluster, change: str, position: int
) -> None:
    work, expected = CHANGES[change]
    ids = await shelf(cluster)
    before = await look(cluster.store)
    with cluster.away(position):
        await work(cluster.store, ids)
        await cluster.settle()
    registers = [register for drive in cluster.drives for register in await drive.repairs(100)]
    assert registers
    for register in registers:
        assert (await cluster.store.heal(cluster.store.set_of(register), register)).whole
    await cluster.settle()
    others = [p for p in range(4) if p != position]
    with cluster.away(*others[:1]):
        assert [one.data for one in await look(cluster.store)] == expected(before, ids)


# -------------------------------------------------------------------- whoever else is writing


class History:
    """What was acknowledged, what may have happened."""

    def __init__(self) -> None:
        self.written: dict[bytes, bytes | None] = {}
        self.maybe_written: set[bytes | None] = set()
        self.deleting: set[bytes] = set()
        self.deleted: set[bytes] = set()
        self.failures = 0


async def _act(store: ObjectStore, rng: Random, history: History, number: int) -> None:
    await store.clock.sleep(rng.random() * 0.3)
    choice = rng.random()
    data = b"%d" % number + (BIG if rng.random() < 0.1 else b"")
    try:
        if choice < 0.35:
            history.written[await put(store, data)] = data
        elif choice < 0.45:
            history.written[await mark(store)] = None
        elif choice < 0.85:
            versions = await listed(store)
            if versions:
                chosen = versions[0] if rng.random() < 0.6 else rng.choice(versions)
                history.deleting.add(chosen)
                await store.delete_version(BUCKET, "k", chosen)
                history.deleted.add(chosen)
                assert await read(store, chosen) is None, "an acknowledged delete is seen at once"
        else:
            deleted = set(history.deleted)
            found = await listed(store)
            assert not deleted & set(found), "what was deleted is not listed"
            assert found == sorted(found), "newest first"
    except ObjectError:
        history.failures += 1
        history.maybe_written.add(None if 0.35 <= choice < 0.45 else data)


@pytest.mark.parametrize("seed", range(400 if EVERY_CALL else 8))
async def test_coordinators_that_write_and_delete_at_the_same_time(
    make_cluster: Callable[..., MemoryCluster], seed: int
) -> None:
    rng = Random(seed)
    cluster = make_cluster()
    stores = [cluster.store, cluster.new_store(), cluster.new_store()]
    history = History()

    async def hook(position: int, verb: str, _: Any) -> None:
        await cluster.clock.sleep(rng.random() * rng.choice((0.002, 0.02, 0.2)))
        if rng.random() < 0.01:
            raise DriveOffline("lost")

    cluster.hook = hook
    for round_ in range(4):
        async with asyncio.TaskGroup() as group:
            for number in range(6):
                group.create_task(_act(rng.choice(stores), rng, history, round_ * 100 + number))
    cluster.hook = None
    await cluster.settle()
    await cluster.clock.sleep(60)
    found = await look(cluster.store)
    assert not {one.version for one in found} & history.deleted, "an acknowledged delete is for good"
    there = {one.version: one.data for one in found}
    for version, data in history.written.items():
        if version not in history.deleting:
            assert version in there, "an acknowledged version stays until it is deleted"
        if version in there:
            assert there[version] == data
    for version, data in there.items():
        assert version in history.written or data in history.maybe_written
    assert list(there) == sorted(there)
    assert await look(cluster.new_store(), limit=2) == found
    # And it can all be deleted: nothing comes back, nothing is left.
    for version in list(there):
        await cluster.store.delete_version(BUCKET, "k", version)
    assert await look(cluster.store) == []
    await cluster.settle()
    for version in history.written:
        left = (await cluster.set_of("k").read(version_register(BUCKET, "k", version))).record
        assert left is None or left.deleted


# -------------------------------------------------------------------- one change in the middle of another

Between = Callable[[ObjectStore, dict[str, bytes]], Any]

PAIRS: dict[str, tuple[Between, Between]] = {
    "the next one goes while it is about to become current": (
        lambda s, ids: s.delete_version(BUCKET, "k", ids["current"]),
        lambda s, ids: s.delete_version(BUCKET, "k", ids["old"]),
    ),
    "what is to rest goes": (
        lambda s, _: put(s, b"new"),
        lambda s, ids: s.delete_version(BUCKET, "k", ids["current"]),
    ),
    "something new comes while the current one goes": (
        lambda s, ids: s.delete_version(BUCKET, "k", ids["current"]),
        lambda s, _: put(s, b"new"),
    ),
    "two that are null": (lambda s, _: put(s, b"new", SUSPENDED), lambda s, _: put(s, b"other", SUSPENDED)),
    "the same goes twice": (
        lambda s, ids: s.delete_version(BUCKET, "k", ids["current"]),
        lambda s, ids: s.delete_version(BUCKET, "k", ids["current"]),
    ),
}


async def insist(cluster: MemoryCluster, work: Callable[[], Any]) -> None:
    """As a client does that gets a 503."""
    for attempt in range(20):
        try:
            await work()
            return
        except ObjectError:
            if attempt == 19:
                raise
            await cluster.clock.sleep(1)


class Meddler:
    """Holds up call n until it has done something else; that goes on if nobody waits for the call any more."""

    def __init__(self, cluster: MemoryCluster, calls: int, work: Callable[[], Any]) -> None:
        self._cluster = cluster
        self._left = calls
        self._work = work
        self.task: asyncio.Task[None] | None = None

    async def hook(self, position: int, verb: str, _: Any) -> None:
        self._left -= 1
        if self._left == -1:
            self.task = asyncio.create_task(insist(self._cluster, self._work))
            await asyncio.shield(self.task)


@pytest.mark.parametrize("pair", PAIRS)
async def test_a_change_in_the_middle_of_another(make_cluster: Callable[..., MemoryCluster], pair: str) -> None:
    """At call n of the first, another coordinator does all of the second; for many n."""
    outer, inner = PAIRS[pair]
    n = -1
    while True:
        n += 1 if EVERY_CALL else 7
        cluster = make_cluster()
        ids = await shelf(cluster)
        before = {one.version: one.data for one in await look(cluster.store)}
        first, second = cluster.new_store(), cluster.new_store()
        meddler = Meddler(cluster, n, functools.partial(inner, second, ids))
        cluster.hook = meddler.hook
        await insist(cluster, functools.partial(outer, first, ids))
        cluster.hook = None
        if meddler.task is None:
            break
        await meddler.task
        await cluster.settle()
        found = await look(cluster.store)
        there = {one.version: one.data for one in found}
        gone = {ids["current"]} if "goes" in pair else set()
        gone |= {ids["old"]} if pair.startswith("the next") else set()
        assert not gone & set(there), (n, "what was deleted is back")
        kept = {version: data for version, data in before.items() if version not in (ids["current"], ids["old"])}
        if "null" in pair:
            kept.pop(NULL_VERSION)
            assert there.pop(NULL_VERSION) in (b"new", b"other")
            kept |= {version: before[version] for version in ids.values()}
        elif not pair.startswith("the next"):
            kept[ids["old"]] = before[ids["old"]]
        made = [one.data for one in found if one.version not in before]
        assert set(kept.items()) <= set(there.items()), (n, "what nobody touched is gone")
        assert len(there) == len(kept) + len(made)
        assert set(made) <= {b"new"}


@pytest.mark.parametrize("change", ["overwritten", "marked", "deleted by its id"])
async def test_a_key_is_changed_though_a_copy_of_its_current_version_cannot_be_decided(
    make_cluster: Callable[..., MemoryCluster], change: str
) -> None:
    """Its writer died when half of six drives had it, with one of them for good: nobody can tell whether that copy was
    whole, and nobody need."""
    six = make_cluster(6, 2)
    store = six.store
    first, before = await put(store, BIG), await put(store, b"before")
    await six.settle()
    six.hook = _dies_when_three_of_six_have_what_rests()
    with pytest.raises(ObjectError):
        await put(store, b"never")
    six.hook = None
    await six.settle()
    six.drives[5].lose_everything()
    now_ms = six.clock.now_ms()
    six.drives[5].adopt(b"another drive id", floor_stamp(now_ms), floor_stamp(now_ms + 20_000))
    await six.clock.sleep(OPERATION_DEADLINE_SECONDS + 1)
    store = six.new_store()
    resting = version_register(BUCKET, "k", before)
    assert (await store.heal(six.set_of("k"), resting)).stuck is not None
    if change == "deleted by its id":
        await store.delete_version(BUCKET, "k", before)
        assert await listed(store) == [first]
        assert await read(store) == Shown(first, BIG)
    else:
        after = await mark(store) if change == "marked" else await put(store, b"after")
        assert await listed(store) == [after, before, first]
        assert await read(store, before) == Shown(before, b"before")
        assert await read(store, first) == Shown(first, BIG)
    await six.settle()
    assert (await store.heal(six.set_of("k"), resting)).stuck is None


def _dies_when_three_of_six_have_what_rests() -> Callable[[int, str, Any], Awaitable[None]]:
    asked: set[int] = set()

    async def hook(position: int, verb: str, arguments: Any) -> None:
        if len(asked) == 6:
            raise DriveOffline("its coordinator is dead")
        if verb == "commit" and arguments[0].register.space[:1] == VERSION_SPACE:
            asked.add(position)
            if position not in (0, 1, 2):
                raise DriveOffline("it did not come to that")

    return hook
