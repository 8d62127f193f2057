"""A register whose rows rotted on a drive, and of which nobody else has anything: it is no hole for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from holdfast_server.drives import keys
from holdfast_server.drives.port import DriveOffline
from holdfast_server.objects.healing import OPERATION_DEADLINE_SECONDS
from holdfast_server.objects.port import Missing, Unavailable
from holdfast_server.objects.record import object_register
from holdfast_server.testing.memory_cluster import BUCKET, MemoryCluster

REGISTER = object_register(BUCKET, "k")
ROW = keys.row_key(REGISTER)


async def failed_write(cluster: MemoryCluster) -> None:
    """Only the first drive has it, and lost it: it rotted there."""

    async def lost(position: int, verb: str, _: Any) -> None:
        if verb == "commit" and position != 0:
            raise DriveOffline("lost")

    cluster.hook = lost
    with pytest.raises(Unavailable):
        await cluster.put("k", b"never acknowledged")
    cluster.hook = None
    cluster.drives[0].damage(REGISTER)


async def test_it_ends_where_the_others_have_nothing(cluster: MemoryCluster) -> None:
    await failed_write(cluster)
    await cluster.clock.sleep(OPERATION_DEADLINE_SECONDS + 1)
    reply = await cluster.drives[0].query(REGISTER, False)
    assert reply.healing
    assert not await cluster.heal("k")  # it ends it, and is not believed before it has been looked at again
    assert await cluster.heal("k")
    reply = await cluster.drives[0].query(REGISTER, False)
    assert (reply.healing, reply.records) == (False, ())
    assert await cluster.get("k") is None
    await cluster.put("k", b"new")
    await cluster.settle()
    assert await cluster.get("k") == b"new"
    assert all(len(stamps) == 1 for stamps in cluster.stamps(REGISTER))


async def test_a_commit_of_what_was_lost_there_is_taken_by_nobody_afterwards(cluster: MemoryCluster) -> None:
    await failed_write(cluster)
    bound = cluster.drives[0]._damaged[ROW]
    await cluster.clock.sleep(OPERATION_DEADLINE_SECONDS + 1)
    await cluster.heal("k")
    replies = [await drive.query(REGISTER, False) for drive in cluster.drives]
    assert all(reply.highest >= bound for reply in replies)


async def test_it_is_left_alone_while_its_write_may_be_under_way(cluster: MemoryCluster) -> None:
    await failed_write(cluster)
    assert not await cluster.heal("k")
    assert ROW in cluster.drives[0]._damaged


async def test_it_is_left_alone_while_too_few_others_can_tell(cluster: MemoryCluster) -> None:
    await failed_write(cluster)
    await cluster.clock.sleep(OPERATION_DEADLINE_SECONDS + 1)
    with cluster.away(2, 3):
        assert not await cluster.heal("k")
        assert ROW in cluster.drives[0]._damaged
    await cluster.heal("k")
    assert ROW not in cluster.drives[0]._damaged


async def test_a_version_that_one_of_the_others_took_meanwhile_is_not_made_an_absence(cluster: MemoryCluster) -> None:
    """Between the look and the promises a write reaches the others: they do not say that they have nothing."""
    await failed_write(cluster)
    await cluster.clock.sleep(OPERATION_DEADLINE_SECONDS + 1)
    writing: asyncio.Task[None] | None = None

    async def write_first(position: int, verb: str, _: Any) -> None:
        nonlocal writing
        if verb == "fence":
            writing = writing or asyncio.create_task(cluster.put("k", b"new"))
            await writing

    cluster.hook = write_first
    await cluster.heal("k")
    cluster.hook = None
    assert writing is not None
    assert ROW in cluster.drives[0]._damaged
    assert await cluster.heal("k")
    assert await cluster.get("k") == b"new"
    assert ROW not in cluster.drives[0]._damaged


async def test_damaged_everywhere_it_is_told_and_can_be_given_up(make_cluster: Callable[..., MemoryCluster]) -> None:
    """A pod with one drive has nobody to ask: its key could be neither read nor written any more."""
    cluster = make_cluster(1, 0)
    await cluster.put("k", b"lost")
    await cluster.put("other", b"there")
    await cluster.settle()
    cluster.drives[0].damage(REGISTER)
    with pytest.raises(Unavailable):
        await cluster.get("k")
    await cluster.clock.sleep(OPERATION_DEADLINE_SECONDS + 1)
    healed = await cluster.store.heal(cluster.set_of("k"), REGISTER)
    assert healed.stuck is not None
    assert (healed.whole, healed.stuck.copies, healed.stuck.committed) == (False, 0, False)
    assert "nothing of it is left" in await cluster.store.resolve(REGISTER, keep=False)
    assert await cluster.get("k") is None
    await cluster.put("k", b"new")
    assert await cluster.get("k") == b"new"
    with pytest.raises(Missing):
        await cluster.store.resolve(REGISTER, keep=False)
    assert await cluster.get("other") == b"there"


async def test_damaged_on_too_many_drives_nobody_says_that_it_never_was(cluster: MemoryCluster) -> None:
    await cluster.put("k", b"lost")
    await cluster.settle()
    for drive in cluster.drives:
        drive.damage(REGISTER)
    await cluster.clock.sleep(OPERATION_DEADLINE_SECONDS + 1)
    for _ in range(3):
        healed = await cluster.store.heal(cluster.set_of("k"), REGISTER)
        assert healed.stuck is not None
    with pytest.raises(Unavailable):
        await cluster.get("k")
    await cluster.store.resolve(REGISTER, keep=False)
    assert await cluster.get("k") is None
