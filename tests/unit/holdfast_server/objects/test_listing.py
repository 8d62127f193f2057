"""Listings against a sorted oracle, over several sets, with drives that disagree."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import pytest

from holdfast_server.drives.port import CommitMode, CommitRequest, CommitStatus, DriveOffline
from holdfast_server.objects import record
from holdfast_server.objects.port import Unavailable
from holdfast_server.testing.memory_cluster import BUCKET, MemoryCluster

ALPHABET = ["a", "b", "/", "//", "é", "日本", "\U0001f600", "\x01", " ", "~", "z", "aa", "0"]


def keys_of(seed: int, count: int) -> list[str]:
    rng = random.Random(seed)
    found: set[str] = set()
    while len(found) < count:
        found.add("".join(rng.choice(ALPHABET) for _ in range(rng.randint(1, 5))))
    return sorted(found, key=str.encode)


def expected(keys: Iterable[str], prefix: str, delimiter: str, after: str) -> list[str]:
    """Names in order, common prefixes folded, as AWS describes ListObjectsV2."""
    names: dict[str, None] = {}
    for key in sorted(keys, key=str.encode):
        if not key.startswith(prefix):
            continue
        end = key.find(delimiter, len(prefix)) if delimiter else -1
        name = key if end < 0 else key[: end + len(delimiter)]
        skipped = name.encode() <= after.encode() if end < 0 else name == after or key.encode() <= after.encode()
        if not skipped:
            names[name] = None
    return list(names)


async def page_through(cluster: MemoryCluster, prefix: str, delimiter: str, limit: int, after: str = "") -> list[str]:
    names: list[str] = []
    while True:
        listing = await cluster.store.list_objects(BUCKET, prefix=prefix, delimiter=delimiter, after=after, limit=limit)
        assert len(listing.entries) + len(listing.prefixes) <= limit
        assert all(entry.record.etag for entry in listing.entries)
        names += sorted([e.key for e in listing.entries] + listing.prefixes, key=str.encode)
        if listing.next_after is None:
            return names
        assert len(listing.entries) + len(listing.prefixes) == limit, "only the last page is short"
        after = listing.next_after


@pytest.mark.parametrize("sets", [1, 3])
async def test_listings_are_those_of_the_oracle(make_cluster: Callable[..., MemoryCluster], sets: int) -> None:
    cluster = make_cluster(sets=sets)
    keys = keys_of(sets, 180)
    for key in keys:
        await cluster.put(key, b"x")
    deleted = random.Random(5).sample(keys, 40)
    for key in deleted:
        await cluster.store.delete_object(BUCKET, key)
    live = set(keys) - set(deleted)
    await cluster.settle()
    rng = random.Random(6)
    for prefix in ("", "a", "a/", "/", "日本", "nothing", "é"):
        for delimiter in ("", "/", "//", "a", "日"):
            limit = rng.choice([1, 2, 7, 50, 1000])
            assert await page_through(cluster, prefix, delimiter, limit) == expected(live, prefix, delimiter, "")
            after = rng.choice(["", "a", "a/", "b/é", "zzzz", prefix + "a", prefix + "/"])
            got = await page_through(cluster, prefix, delimiter, 1000, after)
            assert got == expected(live, prefix, delimiter, after), (prefix, delimiter, after)


async def test_five_thousand_keys_page_by_page(cluster: MemoryCluster) -> None:
    keys = [f"index/{i % 7}/{i:05d}" for i in range(5000)]
    for key in keys:
        await cluster.put(key, b"")
    await cluster.settle()
    assert await page_through(cluster, "", "", 999) == sorted(keys)
    cluster.calls.clear()
    assert await page_through(cluster, "index/", "/", 1000) == [f"index/{i}/" for i in range(7)]
    assert len(cluster.calls) < 10, "the cost follows the answer, not the bucket"


async def test_a_listing_sees_every_acknowledged_write_at_once(cluster: MemoryCluster) -> None:
    """No notes have arrived, one drive missed everything."""

    async def hook(position: int, verb: str, _: Any) -> None:
        if verb == "note" or (verb in ("commit", "stage") and position == 0):
            raise DriveOffline("lost")

    cluster.hook = hook
    for key in ("a", "b", "c", "folder/x"):
        await cluster.put(key, b"1")
    assert await page_through(cluster, "", "/", 10) == ["a", "b", "c", "folder/"]
    await cluster.store.delete_object(BUCKET, "b")
    await cluster.store.delete_object(BUCKET, "folder/x")
    assert await page_through(cluster, "", "/", 10) == ["a", "c"]
    await cluster.settle()


@pytest.mark.parametrize("delimiter", ["", "/"])
async def test_drives_that_disagree_list_what_reads_find(cluster: MemoryCluster, delimiter: str) -> None:
    rng = random.Random(11)
    keys = keys_of(12, 60)
    for turn in range(300):
        key = rng.choice(keys)
        with cluster.away(turn % 4):
            if rng.random() < 0.4:
                await cluster.store.delete_object(BUCKET, key)
            else:
                await cluster.put(key, b"%d" % turn)
    await cluster.settle()
    live = {key for key in keys if await cluster.get(key) is not None}
    for away in ((), (0,), (1,), (2,), (3,)):
        with cluster.away(*away):
            names = await page_through(cluster, "", delimiter, 9)
            assert names == expected(live, "", delimiter, "")


async def test_a_healing_drive_is_not_believed(cluster: MemoryCluster) -> None:
    for key in ("a", "b", "c"):
        await cluster.put(key, b"x")
    await cluster.settle()
    cluster.drives[0]._states.clear()
    cluster.drives[0]._order.clear()
    cluster.drives[0]._healing = True
    assert await page_through(cluster, "", "", 2) == ["a", "b", "c"]
    with cluster.away(1):
        assert await page_through(cluster, "", "", 2) == ["a", "b", "c"]
    with cluster.away(1, 2), pytest.raises(Unavailable):
        await page_through(cluster, "", "", 2)


async def test_a_drive_that_fails_while_it_is_listed_is_replaced(cluster: MemoryCluster) -> None:
    keys = [f"{i:04d}" for i in range(2500)]
    for key in keys:
        await cluster.put(key, b"")
    await cluster.settle()
    for failing in range(1, 5):
        seen = 0

        async def hook(position: int, verb: str, _: Any, failing: int = failing) -> None:
            nonlocal seen
            if verb == "list_registers" and position < 2:
                seen += 1
                if seen >= failing:
                    raise DriveOffline("gone")

        cluster.hook = hook
        listing = await cluster.store.list_objects(BUCKET, limit=2500)
        assert [entry.key for entry in listing.entries] == keys


async def test_too_few_drives_to_list_is_said_at_once(cluster: MemoryCluster) -> None:
    await cluster.put("a", b"")

    async def hook(position: int, verb: str, _: Any) -> None:
        if verb == "list_registers" and position:
            raise DriveOffline("gone")

    cluster.hook = hook
    with pytest.raises(Unavailable):
        await cluster.store.list_objects(BUCKET)


async def test_buckets_do_not_see_each_other(cluster: MemoryCluster) -> None:
    await cluster.put("a", b"")
    listing = await cluster.store.list_objects(bytes(16))
    assert (listing.entries, listing.prefixes, listing.next_after) == ([], [], None)


@pytest.mark.parametrize("key", ["k" * 1024, "\x00", "a\x00b", "\U0010ffff", "../..", "%2F", " "])
async def test_any_key_is_listed(cluster: MemoryCluster, key: str) -> None:
    await cluster.put(key, b"x")
    await cluster.put(key[:1], b"y")
    assert await page_through(cluster, "", "", 1) == sorted({key, key[:1]}, key=str.encode)
    assert await page_through(cluster, key, "", 1) == [key]


async def test_what_enough_drives_show_but_none_knows_to_be_committed_is_decided_like_a_read(
    cluster: MemoryCluster,
) -> None:
    for key in ("a", "b"):
        await cluster.put(key, b"old")
    await cluster.settle()
    register = record.object_register(BUCKET, "a")
    for drive in cluster.by_set[0][
        :2
    ]:  # a writer that died: too few for its quorum, as many as are asked for a listing
        held = (await drive.query(register, True)).records[0]
        newer = msgspec.structs.replace(record.decode(held.record), stamp=held.stamp + (1 << 30), etag="newer")
        begun = msgspec.structs.replace(held, stamp=newer.stamp, record=record.encode(newer))
        assert (await drive.commit(CommitRequest(register, begun, CommitMode.PLAIN))).status is CommitStatus.OK
    listing = await cluster.store.list_objects(BUCKET)
    assert [entry.key for entry in listing.entries] == ["a", "b"]
    assert "newer" not in [entry.record.etag for entry in listing.entries]
