"""Objects of reduced redundancy in a real store: cut with their own parity, beside others in the same set."""

from __future__ import annotations

import itertools
import random
from typing import Any

import msgspec
import pytest

from holdfast_server.clock.stamp import floor_stamp
from holdfast_server.contract.config import ErasureConfig, KeyFiles, ServerConfig, TenantConfig
from holdfast_server.drives.port import DriveOffline
from holdfast_server.objects import record
from holdfast_server.objects.healing import OPERATION_DEADLINE_SECONDS
from holdfast_server.objects.port import Attributes, Conflict, PartRef, Redundancy, Unavailable, Versioning
from holdfast_server.placement.map import PoolMap
from holdfast_server.testing.memory_cluster import BUCKET, BytesBody, MemoryCluster

REGISTER = record.object_register(BUCKET, "k")
SMALL = b"small enough to travel inside the record"
LARGE_INLINE = random.Random(1).randbytes(64 * 1024)
FILE = random.Random(2).randbytes(3 * record.STRIPE_SIZE_BYTES + 77)
REDUCED = Redundancy.REDUCED


@pytest.fixture
def six(make_cluster: Any) -> MemoryCluster:
    """Three of six drives may be lost; one, where redundancy is reduced.  W is 4, and 5."""
    return make_cluster(6, 3)  # type: ignore[no-any-return]


async def put(cluster: MemoryCluster, data: bytes, redundancy: Redundancy = REDUCED, **more: Any) -> None:
    await cluster.store.put_object(BUCKET, "k", BytesBody(data, **more), redundancy=redundancy)
    await cluster.settle()


async def survives(cluster: MemoryCluster, data: bytes, losses: int) -> None:
    """Any so many drives may be away, and not one more."""
    drives = range(len(cluster.drives))
    for away in itertools.combinations(drives, losses):
        with cluster.away(*away):
            assert await cluster.get("k") == data
    for away in itertools.islice(itertools.combinations(drives, losses + 1), 3):
        with cluster.away(*away), pytest.raises(Unavailable):
            await cluster.get("k")


@pytest.mark.parametrize("data", [SMALL, LARGE_INLINE, FILE], ids=["small", "inline", "file"])
async def test_an_object_is_cut_with_its_own_parity_and_survives_as_many_losses(
    six: MemoryCluster, data: bytes
) -> None:
    await put(six, data)
    found = await six.store.head_object(BUCKET, "k")
    assert found is not None
    assert found.geometry is not None
    assert (found.geometry.data_shards, found.geometry.parity_shards) == (5, 1)
    await survives(six, data, 1)
    await put(six, data, Redundancy.FULL)
    await survives(six, data, 3)


async def test_it_takes_less_room(six: MemoryCluster) -> None:
    used = []
    for redundancy in (REDUCED, Redundancy.FULL):
        await put(six, FILE, redundancy)
        (held,) = six.drives[0]._states.values()
        (data_id,) = held.records[0].data_ids
        blocks, _ = await six.drives[0].read_blocks(data_id, 0, 3)
        used.append(sum(len(block) for block in blocks) * 6 / len(FILE))
    assert used[0] < 1.3 < 1.9 < used[1]


async def test_it_is_acknowledged_by_as_many_drives_as_it_needs(six: MemoryCluster) -> None:
    with six.away(0):
        await put(six, SMALL)
        await six.settle()
    with six.away(0, 1):
        with pytest.raises(Unavailable):
            await put(six, FILE)
        await put(six, FILE, Redundancy.FULL)
    assert await six.get("k") == FILE


@pytest.mark.parametrize("reached", range(1, 6))
@pytest.mark.parametrize("data", [SMALL, FILE], ids=["inline", "file"])
async def test_a_write_that_reached_too_few_is_never_seen_and_is_taken_back(
    six: MemoryCluster, data: bytes, reached: int
) -> None:
    """Also where it reached the set's own W: by that, it would have taken the place of what was acknowledged."""
    await put(six, b"before", Redundancy.FULL)

    async def dies(position: int, verb: str, _: object) -> None:
        if verb == "commit" and position >= reached:
            raise DriveOffline("the coordinator has died")

    six.hook = dies
    if reached < 5:
        with pytest.raises(Unavailable):
            await put(six, data)
    else:
        await put(six, data)
    six.hook = None
    expected = data if reached == 5 else b"before"
    for _ in range(2):
        assert await six.get("k") == expected
        await six.clock.sleep(OPERATION_DEADLINE_SECONDS + 1)
        assert await six.heal("k")
    assert len({tuple(stamps) for stamps in six.stamps(REGISTER)}) == 1
    assert six.unnamed_shards() == set()


@pytest.mark.parametrize("data", [SMALL, FILE], ids=["inline", "file"])
async def test_a_replaced_drive_is_given_its_shard(six: MemoryCluster, data: bytes) -> None:
    await put(six, data)
    lost = six.drives[2]
    lost.lose_everything()
    lost.adopt(b"another drive id", floor_stamp(six.clock.now_ms()), floor_stamp(six.clock.now_ms() + 20_000))
    assert await six.heal("k")
    await lost.finish_healing(floor_stamp(six.clock.now_ms()))
    with six.away(4):
        assert await six.get("k") == data


async def test_rot_is_read_around_and_rebuilt(six: MemoryCluster) -> None:
    await put(six, FILE)
    (data_id,) = six.drives[3].shard_ids()
    six.drives[3].rot(data_id, 1)
    assert await six.get("k") == FILE
    assert await six.heal("k", verify=True)
    with six.away(0):
        assert await six.get("k") == FILE


async def test_what_lost_more_than_its_parity_is_no_wrong_answer_and_may_be_written_over(six: MemoryCluster) -> None:
    await put(six, FILE)
    for drive in six.drives[:2]:
        drive.lose_everything()
        drive.adopt(b"another" + bytes([drive.position]) * 9, 1, floor_stamp(six.clock.now_ms() + 20_000))
    with pytest.raises(Unavailable):
        await six.get("k")
    await six.clock.sleep(OPERATION_DEADLINE_SECONDS + 1)
    healed = await six.store.heal(six.set_of("k"), REGISTER)
    assert healed.stuck is not None
    assert (healed.stuck.copies, healed.stuck.copies_needed, healed.stuck.committed) == (4, 5, True)
    await put(six, SMALL)
    assert await six.get("k") == SMALL


async def test_one_register_has_versions_of_either_kind_one_after_the_other(six: MemoryCluster) -> None:
    for number, redundancy in enumerate([REDUCED, Redundancy.FULL, REDUCED, REDUCED, Redundancy.FULL]):
        with six.away(number % 6):
            await put(six, bytes([number]) * 100, redundancy)
            assert await six.get("k") == bytes([number]) * 100
    await six.store.delete_object(BUCKET, "k")
    assert await six.get("k") is None


async def test_headers_change_and_the_shards_stay_as_they_were_cut(six: MemoryCluster) -> None:
    for data in (SMALL, FILE):
        await put(six, data)
        await six.store.amend_object(BUCKET, "k", lambda found: {**found.headers, "x-amz-meta-a": "b"})
        await six.settle()
        await survives(six, data, 1)


async def test_conditional_writes_of_either_kind_exclude_each_other(six: MemoryCluster) -> None:
    def absent(current: object) -> None:
        if current is not None:
            raise KeyError

    other = six.new_store()
    first = await six.store.put_object(BUCKET, "k", BytesBody(SMALL), absent, redundancy=REDUCED)
    with pytest.raises(KeyError):
        await other.put_object(BUCKET, "k", BytesBody(FILE), absent)
    found = await other.head_object(BUCKET, "k")
    assert found is not None
    assert found.stamp == first.stamp


async def test_where_others_have_promises_that_it_needs_nothing_is_written(six: MemoryCluster) -> None:
    """Four of six promise, which is the set's W; it takes five."""

    def always(_: object) -> None:
        return

    await put(six, b"before")
    (newest,) = six.stamps(REGISTER)[0]
    for drive in six.drives[:2]:
        await drive.prepare(REGISTER, newest, b"another's lease!", 10.0)
    with pytest.raises(Conflict):
        await six.store.put_object(BUCKET, "k", BytesBody(SMALL), always, redundancy=REDUCED)
    await six.settle()
    assert six.stamps(REGISTER) == [[newest]] * 6
    await six.store.put_object(BUCKET, "k", BytesBody(FILE), always)
    assert await six.get("k") == FILE
    await six.clock.sleep(11)
    await six.store.put_object(BUCKET, "k", BytesBody(SMALL), always, redundancy=REDUCED)
    assert await six.get("k") == SMALL


async def test_versions_rest_and_come_back_as_they_were_cut(six: MemoryCluster) -> None:
    async def write(data: bytes, redundancy: Redundancy) -> bytes:
        body = BytesBody(data, versioning=Versioning.ENABLED)
        return (await six.store.put_object(BUCKET, "k", body, redundancy=redundancy)).place

    for data in (SMALL, FILE):
        older = await write(data, REDUCED)
        newer = await write(b"newer", Redundancy.FULL)
        await six.settle()
        reader = await six.store.open_object(BUCKET, "k", older)
        assert reader is not None
        assert b"".join([bytes(chunk) async for chunk in reader.chunks(0, len(data))]) == data
        await six.store.delete_version(BUCKET, "k", newer)
        await six.settle()
        await survives(six, data, 1)


# -------------------------------------------------------------------- multipart


async def upload(cluster: MemoryCluster, upload_id: bytes, number: int, data: bytes) -> PartRef:
    part = await cluster.store.put_part(BUCKET, "k", upload_id, number, BytesBody(data))
    return PartRef(number, part.etag)


def with_reduced_parity(pools: PoolMap, set_size: int, parity: int, reduced: int) -> PoolMap:
    pool = msgspec.structs.replace(
        pools.pools["main"].config,
        erasure=ErasureConfig(set_size=set_size, parity=parity, reduced_redundancy_parity=reduced),
    )
    keys = KeyFiles(root_user_file="", root_password_file="", peer_key_file="")
    return PoolMap(ServerConfig(tenant=TenantConfig(id="tenant", name="tenant"), pools=[pool], keys=keys))


async def test_parts_and_object_are_cut_as_the_upload_said_whatever_is_said_later(six: MemoryCluster) -> None:
    upload_id = await six.store.create_upload(BUCKET, "k", {}, b"", redundancy=REDUCED)
    first = await upload(six, upload_id, 1, FILE)
    six.store.epochs.pools = with_reduced_parity(six.pools, 6, 3, 2)
    with six.away(5):
        second = await upload(six, upload_id, 2, SMALL)
    made = await six.store.complete_upload(BUCKET, "k", upload_id, [first, second], lambda *_: Attributes(etag="e-2"))
    await six.settle()
    assert made.geometry is not None
    assert (made.geometry.data_shards, made.geometry.parity_shards) == (5, 1)
    assert await six.heal("k")
    await survives(six, FILE + SMALL, 1)
    await put(six, SMALL)
    await survives(six, SMALL, 2)


async def test_an_upload_that_said_nothing_has_full_redundancy(six: MemoryCluster) -> None:
    upload_id = await six.store.create_upload(BUCKET, "k", {}, b"")
    ref = await upload(six, upload_id, 1, FILE)
    await six.store.complete_upload(BUCKET, "k", upload_id, [ref], lambda *_: Attributes(etag="e-1"))
    await six.settle()
    await survives(six, FILE, 3)
