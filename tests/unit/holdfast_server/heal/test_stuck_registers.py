"""What is stuck is told by what it is, and for no longer than it is."""

from __future__ import annotations

from typing import Any

from holdfast_server.heal import registers
from holdfast_server.heal.service import HealService
from holdfast_server.objects.healing import OPERATION_DEADLINE_SECONDS
from holdfast_server.objects.port import Versioning
from holdfast_server.objects.record import STRIPE_SIZE_BYTES, object_register, part_register, version_register
from holdfast_server.testing.memory_cluster import BUCKET, BytesBody, MemoryCluster

BIG = b"big" * STRIPE_SIZE_BYTES


def service(cluster: MemoryCluster) -> HealService:
    drive: Any = cluster._hooked[0][0]
    return HealService(cluster.new_store(), lambda: (drive,), cluster.clock)


def rot(cluster: MemoryCluster, data_ids: set[bytes]) -> None:
    """Of each shard, on more drives than parity replaces."""
    for drive in cluster.drives[1:]:
        for data_id in data_ids:
            drive.rot(data_id, 1)


def told(healing: HealService, cluster: MemoryCluster) -> list[tuple[str, str]]:
    count, some = healing.registers.stuck(cluster.set_of("k").set_id)
    assert count == len(some)
    return [(one.kind, one.version) for one in some]


async def test_a_part_that_was_stuck_is_so_no_longer_once_its_upload_has_ended(cluster: MemoryCluster) -> None:
    """Or the tenant would have a stuck version, and its rolls wait, until the pod is restarted."""
    upload_id = await cluster.store.create_upload(BUCKET, "k", {}, b"")
    await cluster.store.put_part(BUCKET, "k", upload_id, 1, BytesBody(BIG))
    await cluster.settle()
    rot(cluster, cluster.drives[0].shard_ids())
    await cluster.clock.sleep(OPERATION_DEADLINE_SECONDS + 10)
    healing, home, part = service(cluster), cluster.set_of("k"), part_register(BUCKET, "k", upload_id, 1)
    await healing.registers.heal(home, [part], verify=True)
    assert told(healing, cluster) == [("part", part.version.hex())]
    await cluster.store.abort_upload(BUCKET, "k", upload_id)
    await cluster.settle()
    await healing.registers.look_again(home)
    await cluster.settle()
    assert told(healing, cluster) == []


async def test_a_version_at_rest_that_is_stuck_is_told_as_what_a_person_can_name(cluster: MemoryCluster) -> None:
    first = await cluster.store.put_object(BUCKET, "k", BytesBody(BIG, versioning=Versioning.ENABLED))
    lost = set(cluster.drives[0].shard_ids())
    await cluster.store.put_object(BUCKET, "k", BytesBody(b"second", versioning=Versioning.ENABLED))
    await cluster.settle()
    rot(cluster, lost)
    await cluster.clock.sleep(OPERATION_DEADLINE_SECONDS + 10)
    healing, home = service(cluster), cluster.set_of("k")
    resting = version_register(BUCKET, "k", first.place)
    await healing.registers.heal(home, [resting], verify=True)
    assert told(healing, cluster) == [("version", first.place.hex())]


async def test_what_was_found_stuck_by_reading_its_shards_stays_so_until_that_is_over(cluster: MemoryCluster) -> None:
    """All drives have its record, so that nothing is amiss for whoever does not read them."""
    await cluster.put("k", BIG)
    await cluster.settle()
    (data_id,) = cluster.drives[0].shard_ids()
    rot(cluster, {data_id})
    await cluster.clock.sleep(OPERATION_DEADLINE_SECONDS + 10)
    healing, home = service(cluster), cluster.set_of("k")
    await healing.registers.heal(home, [object_register(BUCKET, "k")], verify=True)
    for _ in range(3):
        await healing.registers.look_again(home)
        assert told(healing, cluster) == [("object", "")]
    rot(cluster, {data_id})  # flips the bits back
    await healing.registers.look_again(home)
    assert told(healing, cluster) == [("object", "")], "shards are not read each time"
    await cluster.clock.sleep(registers.READ_AGAIN_SECONDS + 1)
    await healing.registers.look_again(home)
    assert told(healing, cluster) == []


async def test_what_was_found_stuck_by_reading_its_shards_is_not_once_it_is_overwritten(cluster: MemoryCluster) -> None:
    await cluster.put("k", BIG)
    await cluster.settle()
    rot(cluster, cluster.drives[0].shard_ids())
    await cluster.clock.sleep(OPERATION_DEADLINE_SECONDS + 10)
    healing, home = service(cluster), cluster.set_of("k")
    await healing.registers.heal(home, [object_register(BUCKET, "k")], verify=True)
    await cluster.put("k", b"new")
    await cluster.settle()
    await healing.registers.look_again(home)
    assert told(healing, cluster) == []
