"""Multipart uploads: parts that drives missed, completions that race or repeat, what is left behind."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from hashlib import md5
from typing import Any

import pytest

from holdfast_server.drives.port import DriveOffline
from holdfast_server.objects import record
from holdfast_server.objects.erasure_set import OFFERED_SECONDS
from holdfast_server.objects.healing import OPERATION_DEADLINE_SECONDS
from holdfast_server.objects.port import Attributes, Conflict, Missing, ObjectError, PartRef, Unavailable
from holdfast_server.objects.record import Record
from holdfast_server.testing.memory_cluster import BUCKET, BytesBody, MemoryCluster

PARTS = [random.Random(number).randbytes(size) for number, size in enumerate((1_500_000, 70_000, 10))]
WHOLE = b"".join(PARTS)


class Refused(Exception):
    pass


def assemble(upload: Record, asked: Sequence[tuple[PartRef, Record | None]]) -> Attributes:
    if any(part is None or part.etag != ref.etag for ref, part in asked):
        raise Refused
    return Attributes(etag=f"parts-{len(asked)}", headers=upload.headers)


def refs(count: int = 3) -> list[PartRef]:
    return [PartRef(i + 1, md5(PARTS[i]).hexdigest()) for i in range(count)]


async def start(cluster: MemoryCluster) -> bytes:
    return await cluster.store.create_upload(BUCKET, "k", {"content-type": "x/y"}, b"body")


async def upload_parts(cluster: MemoryCluster, upload: bytes, away: Sequence[int | None] = (None, None, None)) -> None:
    for number, (data, missing) in enumerate(zip(PARTS, away, strict=True), 1):
        with cluster.away(*([] if missing is None else [missing])):
            await cluster.store.put_part(BUCKET, "k", upload, number, BytesBody(data))


async def complete(cluster: MemoryCluster, upload: bytes, **more: Any) -> Record:
    return await cluster.store.complete_upload(BUCKET, "k", upload, refs(), assemble, **more)


async def test_an_upload_becomes_an_object_and_leaves_nothing(cluster: MemoryCluster) -> None:
    upload = await start(cluster)
    await upload_parts(cluster, upload)
    parts, more = await cluster.store.list_parts(BUCKET, "k", upload)
    assert [(number, part.size_bytes) for number, part in parts] == [(1, 1_500_000), (2, 70_000), (3, 10)]
    assert not more
    assert await cluster.get("k") is None
    made = await complete(cluster, upload)
    assert (made.size_bytes, made.headers) == (len(WHOLE), {"content-type": "x/y"})
    assert [part.number for part in made.parts] == [1, 2, 3]
    await cluster.settle()
    assert await cluster.get("k") == WHOLE
    assert await cluster.get("k", 1_499_990, 70_015) == WHOLE[1_499_990 : 1_499_990 + 70_015]
    assert await cluster.store.get_upload(BUCKET, "k", upload) is None
    with pytest.raises(Missing):
        await cluster.store.list_parts(BUCKET, "k", upload)
    assert all(len(drive.shard_ids()) == 3 for drive in cluster.drives)
    with cluster.away(0, 1):
        assert await cluster.get("k") == WHOLE


@pytest.mark.parametrize("pause_seconds", [0.0, 100.0])
async def test_a_download_ends_though_the_object_is_overwritten_and_it_takes_minutes(
    cluster: MemoryCluster, pause_seconds: float
) -> None:
    """Of parts that nobody has read for longer than drives keep what no record names; at the pace of the network, and
    of a client that takes nothing for long."""
    upload = await start(cluster)
    await upload_parts(cluster, upload)
    await complete(cluster, upload)
    await cluster.settle()
    reader = await cluster.store.open_object(BUCKET, "k")
    assert reader is not None
    found = []
    async for chunk in reader.chunks(0, len(WHOLE)):
        if not found:
            await cluster.put("k", b"another")
            await cluster.settle()
        found.append(bytes(chunk))
        for _ in range(5):
            await asyncio.sleep(pause_seconds / 5 or 9)
            cluster.reap()
    assert b"".join(found) == WHOLE
    for _ in range(3):
        await asyncio.sleep(31)
        cluster.reap()
    assert not any(drive.shard_ids() for drive in cluster.drives), "what is read no more goes"


async def test_parts_are_listed_in_pages(cluster: MemoryCluster) -> None:
    upload, other = await start(cluster), await start(cluster)
    for number in (1, 2, 300, 9999, 10_000):
        await cluster.store.put_part(BUCKET, "k", upload, number, BytesBody(b"x"))
        await cluster.store.put_part(BUCKET, "k", other, number + 1 if number < 10_000 else 5, BytesBody(b"y"))
    numbers, after = [], 0
    while True:
        parts, more = await cluster.store.list_parts(BUCKET, "k", upload, after, 2)
        numbers += [number for number, _ in parts]
        if not more:
            break
        after = numbers[-1]
    assert numbers == [1, 2, 300, 9999, 10_000]


@pytest.mark.parametrize("away", [(0, 1, 2), (3, 3, 3), (0, 0, 1), (None, 2, None)])
async def test_drives_that_missed_parts_do_not_stop_completion(
    cluster: MemoryCluster, away: tuple[int | None, ...]
) -> None:
    upload = await start(cluster)
    await upload_parts(cluster, upload, away)
    await cluster.settle()
    await complete(cluster, upload)
    await cluster.settle()
    assert await cluster.get("k") == WHOLE
    assert await cluster.heal("k")
    for pair in ((0, 1), (1, 2), (2, 3), (0, 3)):
        with cluster.away(*pair):
            assert await cluster.get("k") == WHOLE
    assert not cluster.unnamed_shards()


async def test_a_write_that_takes_too_long_is_not_offered_any_more(cluster: MemoryCluster) -> None:
    """Others take its coordinator for dead by then, and may have fenced the write and dropped what they know of it."""
    upload = await start(cluster)
    await upload_parts(cluster, upload, (0, 1, 2))
    await cluster.settle()
    began = cluster.clock.monotonic_seconds()
    committed: list[float] = []

    async def slow(_: int, verb: str, arguments: Any) -> None:
        if verb in ("stage", "seal", "read_blocks"):
            await cluster.clock.sleep(4)
        elif verb == "commit" and arguments[0].register == record.object_register(BUCKET, "k"):
            committed.append(cluster.clock.monotonic_seconds() - began)

    cluster.hook = slow
    with pytest.raises(Unavailable):
        await complete(cluster, upload)
    assert cluster.clock.monotonic_seconds() - began > OPERATION_DEADLINE_SECONDS
    assert committed
    assert max(committed) < OFFERED_SECONDS
    cluster.hook = None
    await complete(cluster, upload)
    assert await cluster.get("k") == WHOLE


async def test_completing_twice_is_completing_once(cluster: MemoryCluster) -> None:
    upload = await start(cluster)
    await upload_parts(cluster, upload)
    first = await complete(cluster, upload)
    assert await complete(cluster, upload) == first
    with pytest.raises(Missing):
        await cluster.store.complete_upload(BUCKET, "k", upload, refs(2), assemble)
    await cluster.put("k", b"newer")
    assert await complete(cluster, upload) == first
    assert await cluster.get("k") == b"newer", "the answer is repeated, not the write"


async def test_concurrent_completions_agree(cluster: MemoryCluster) -> None:
    upload = await start(cluster)
    await upload_parts(cluster, upload)
    stores = [cluster.store, cluster.new_store(), cluster.new_store()]
    made = await asyncio.gather(*(s.complete_upload(BUCKET, "k", upload, refs(), assemble) for s in stores))
    assert len({record.stamp for record in made}) == 1
    await cluster.settle()
    assert await cluster.get("k") == WHOLE


async def test_abort_and_complete_race(make_cluster: Callable[..., MemoryCluster]) -> None:
    for delay in range(0, 40, 3):
        cluster = make_cluster()
        upload = await start(cluster)
        await upload_parts(cluster, upload)

        async def abort(cluster: MemoryCluster = cluster, upload: bytes = upload, delay: int = delay) -> None:
            for _ in range(delay):
                await asyncio.sleep(0)
            await cluster.new_store().abort_upload(BUCKET, "k", upload)

        outcomes = await asyncio.gather(complete(cluster, upload), abort(), return_exceptions=True)
        await cluster.settle()
        assert all(not isinstance(o, BaseException) or isinstance(o, ObjectError) for o in outcomes), outcomes
        found = await cluster.get("k")
        if isinstance(outcomes[0], Record):
            assert found == WHOLE
        elif isinstance(outcomes[0], (Missing, Conflict)):
            assert found is None
        for drive in cluster.drives:
            await cluster.clock.sleep(60)
            drive.reap()
        if outcomes[1] is None and found is None:
            assert not any(drive.shard_ids() for drive in cluster.drives)


async def test_an_abort_that_comes_too_late_says_so_and_takes_no_answer_away(cluster: MemoryCluster) -> None:
    """It began while the upload was open, and met the completion's lease."""
    upload = await start(cluster)
    await upload_parts(cluster, upload)
    closing, go_on = asyncio.Event(), asyncio.Event()

    async def hold(position: int, verb: str, arguments: tuple[Any, ...]) -> None:
        if verb == "commit" and arguments[0].register.space[:1] == record.UPLOAD_SPACE and not go_on.is_set():
            closing.set()
            await go_on.wait()

    cluster.hook = hold
    completing = asyncio.create_task(complete(cluster, upload))
    await closing.wait()
    aborting = asyncio.create_task(cluster.new_store().abort_upload(BUCKET, "k", upload))
    await cluster.clock.sleep(0.1)
    go_on.set()
    made = await completing
    with pytest.raises(Missing):
        await aborting
    cluster.hook = None
    await cluster.settle()
    assert await complete(cluster, upload) == made
    assert await cluster.get("k") == WHOLE


async def test_an_abort_gets_past_what_another_left_half_done(cluster: MemoryCluster) -> None:
    upload = await start(cluster)
    await upload_parts(cluster, upload)

    async def lost(position: int, verb: str, arguments: tuple[Any, ...]) -> None:
        if verb == "commit" and position != 0 and arguments[0].held.tombstone:
            raise DriveOffline("lost")

    cluster.hook = lost
    with pytest.raises(Unavailable):
        await cluster.store.abort_upload(BUCKET, "k", upload)
    cluster.hook = None
    await cluster.clock.sleep(OPERATION_DEADLINE_SECONDS + 1)
    try:
        await cluster.new_store().abort_upload(BUCKET, "k", upload)
    except Missing:
        pass  # the first one was made to take effect
    assert await cluster.store.get_upload(BUCKET, "k", upload) is None


async def test_abort_leaves_nothing(cluster: MemoryCluster) -> None:
    upload = await start(cluster)
    await upload_parts(cluster, upload)
    await cluster.store.abort_upload(BUCKET, "k", upload)
    await cluster.settle()
    await cluster.clock.sleep(60)
    for drive in cluster.drives:
        drive.reap()
        assert not drive.shard_ids()
    for call in (
        cluster.store.abort_upload(BUCKET, "k", upload),
        complete(cluster, upload),
        cluster.store.put_part(BUCKET, "k", upload, 1, BytesBody(b"x")),
    ):
        with pytest.raises(Missing):
            await call


async def test_a_refusal_changes_nothing(cluster: MemoryCluster) -> None:
    upload = await start(cluster)
    await upload_parts(cluster, upload)

    def exists(current: Record | None) -> None:
        if current is None:
            raise Refused

    with pytest.raises(Refused):
        await cluster.store.complete_upload(BUCKET, "k", upload, [PartRef(9, "none")], assemble)
    with pytest.raises(Refused):
        await complete(cluster, upload, condition=exists)
    await complete(cluster, upload)
    assert await cluster.get("k") == WHOLE


async def test_a_part_put_again_replaces_the_first(cluster: MemoryCluster) -> None:
    upload = await start(cluster)
    await cluster.store.put_part(BUCKET, "k", upload, 1, BytesBody(b"first" * 20_000))
    await upload_parts(cluster, upload)
    await complete(cluster, upload)
    await cluster.settle()
    assert await cluster.get("k") == WHOLE
    await cluster.clock.sleep(60)
    for drive in cluster.drives:
        drive.reap()
        assert len(drive.shard_ids()) == 3


async def test_a_completion_cancelled_anywhere_is_whole_or_open(make_cluster: Callable[..., MemoryCluster]) -> None:
    outcomes = set()
    for turns in range(0, 400, 2):
        cluster = make_cluster()
        upload = await start(cluster)
        await upload_parts(cluster, upload)
        await cluster.settle()
        task = asyncio.ensure_future(complete(cluster, upload))
        for _ in range(turns):
            await asyncio.sleep(0)
        finished = task.done()
        task.cancel()
        await asyncio.wait([task])
        await cluster.settle()
        found = await cluster.get("k")
        assert found in (None, WHOLE)
        outcomes.add(found)
        began = cluster.clock.monotonic_seconds()
        await complete(cluster, upload)
        assert cluster.clock.monotonic_seconds() - began < 1, "no lease stands in the way"
        assert await cluster.get("k") == WHOLE
        if finished:
            break
    assert outcomes == {None, WHOLE}


async def test_a_completion_that_could_not_be_closed_can_be_repeated(cluster: MemoryCluster) -> None:
    upload = await start(cluster)
    await upload_parts(cluster, upload)

    async def hook(position: int, verb: str, arguments: tuple[Any, ...]) -> None:
        if verb == "commit" and arguments[0].held.tombstone:
            raise DriveOffline("the closing is lost")

    cluster.hook = hook
    await complete(cluster, upload)
    cluster.hook = None
    assert await cluster.store.get_upload(BUCKET, "k", upload) is not None
    await complete(cluster, upload)
    await cluster.settle()
    assert await cluster.get("k") == WHOLE
    assert await cluster.store.get_upload(BUCKET, "k", upload) is None


async def test_uploads_are_listed_by_key_then_id(make_cluster: Callable[..., MemoryCluster]) -> None:
    cluster = make_cluster(sets=3)
    made = []
    for key in ("a", "b", "b", "b", "dir/x", "dir/y", "z"):
        made.append((key, await cluster.store.create_upload(BUCKET, key, {}, b"")))
    made.sort()
    names: list[tuple[str, bytes]] = []
    after = ("", b"")
    while True:
        uploads, prefixes, more = await cluster.store.list_uploads(BUCKET, after=after, limit=2)
        assert not prefixes
        names += [(u.key, u.upload_id) for u in uploads]
        if not more:
            break
        after = names[-1]
    assert names == made
    uploads, prefixes, more = await cluster.store.list_uploads(BUCKET, delimiter="/", limit=100)
    assert ([u.key for u in uploads], prefixes, more) == (["a", "b", "b", "b", "z"], ["dir/"], False)
    await cluster.store.abort_upload(BUCKET, *made[0])
    uploads, _, _ = await cluster.store.list_uploads(BUCKET, prefix="a")
    assert uploads == []


async def test_empty_parts(cluster: MemoryCluster) -> None:
    upload = await start(cluster)
    etag = md5(b"").hexdigest()
    await cluster.store.put_part(BUCKET, "k", upload, 1, BytesBody(b""))
    await cluster.store.complete_upload(BUCKET, "k", upload, [PartRef(1, etag)], assemble)
    assert await cluster.get("k") == b""
    upload = await start(cluster)
    await upload_parts(cluster, upload)
    await cluster.store.put_part(BUCKET, "k", upload, 4, BytesBody(b""))
    await cluster.store.complete_upload(BUCKET, "k", upload, [*refs(), PartRef(4, etag)], assemble)
    await cluster.settle()
    assert await cluster.get("k") == WHOLE
    assert await cluster.heal("k", verify=True)
