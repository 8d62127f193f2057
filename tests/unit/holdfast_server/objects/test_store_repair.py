"""What is missing, rotten or undecided: reads come out right, and redundancy comes back."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

from holdfast_server.clock.stamp import floor_stamp
from holdfast_server.drives import keys
from holdfast_server.drives.port import DriveOffline, Tombstone
from holdfast_server.objects import record
from holdfast_server.objects.erasure_set import UNMARKED_AFTER_SECONDS
from holdfast_server.objects.healing import OPERATION_DEADLINE_SECONDS
from holdfast_server.objects.port import Unavailable
from holdfast_server.objects.record import STRIPE_SIZE_BYTES
from holdfast_server.testing.memory_cluster import BUCKET, MemoryCluster
from holdfast_server.testing.memory_drive import MemoryDrive

REGISTER = record.object_register(BUCKET, "k")
SMALL = b"small enough to travel inside the record"
BIG = random.Random(1).randbytes(2 * STRIPE_SIZE_BYTES + 77)


async def whole(cluster: MemoryCluster, data: bytes | None) -> None:
    """Every drive holds one and the same version, and any K of them give it back."""
    held = cluster.stamps(REGISTER)
    assert all(stamps == held[0] for stamps in held)
    assert len(held[0]) <= 1
    for away in itertools.combinations(range(4), 2):
        with cluster.away(*away):
            assert await cluster.get("k") == data


def shard_of(drive: MemoryDrive) -> bytes:
    (data_id,) = drive.shard_ids()
    return data_id


def rot(cluster: MemoryCluster, *positions: int, block: int = 0) -> None:
    for position in positions:
        cluster.drives[position].rot(shard_of(cluster.drives[position]), block)


# -------------------------------------------------------------------- reading around damage


@pytest.mark.parametrize("rotten", [(0,), (1,), (2,), (3,), (0, 1), (0, 2), (1, 3), (2, 3)])
async def test_rotten_shards_are_read_around_and_rebuilt(cluster: MemoryCluster, rotten: tuple[int, ...]) -> None:
    await cluster.put("k", BIG)
    await cluster.settle()
    rot(cluster, *rotten, block=1)
    began = cluster.clock.monotonic_seconds()
    assert await cluster.get("k") == BIG
    assert cluster.clock.monotonic_seconds() - began < 0.5, "another shard is asked for at once"
    await cluster.settle()
    assert await cluster.heal("k", verify=True), "a scan finds what the read did not come across"
    await whole(cluster, BIG)


async def test_a_read_repairs_what_it_comes_across(cluster: MemoryCluster) -> None:
    await cluster.put("k", BIG)
    await cluster.settle()
    rotten = [
        p for p, drive in enumerate(cluster.drives) for s in drive._states.values() if s.records[0].shard_index < 2
    ]
    rot(cluster, *rotten)
    assert await cluster.get("k") == BIG
    await cluster.settle()
    await whole(cluster, BIG)


@pytest.mark.parametrize("gone", [(0,), (3,), (1, 2)])
async def test_vanished_shards_are_read_around_and_rebuilt(cluster: MemoryCluster, gone: tuple[int, ...]) -> None:
    await cluster.put("k", BIG)
    await cluster.settle()
    for position in gone:
        cluster.drives[position]._shards.clear()
    assert await cluster.get("k") == BIG
    await cluster.settle()
    assert await cluster.heal("k", verify=True)
    await whole(cluster, BIG)


SCATTERED = {
    "one stripe each": {0: [0], 1: [1], 2: [2]},
    "all drives": {0: [0, 1], 1: [2, 3], 2: [0, 1], 3: [2, 3]},
    "the own block of who is rebuilt": {0: [0], 1: [1, 2], 2: [1, 2], 3: [0]},
    "far apart": {0: [3], 1: [7], 2: [9], 3: [10]},
}


@pytest.mark.parametrize("rotten", SCATTERED.values(), ids=SCATTERED)
async def test_rot_of_different_stripes_is_read_around_on_however_many_drives(
    cluster: MemoryCluster, rotten: dict[int, list[int]]
) -> None:
    """No drive may be whole, as long as each stripe is on K."""
    data = random.Random(6).randbytes(11 * STRIPE_SIZE_BYTES)
    await cluster.put("k", data)
    await cluster.settle()
    for position, stripes in rotten.items():
        for stripe in stripes:
            rot(cluster, position, block=stripe)
    began = cluster.clock.monotonic_seconds()
    assert await cluster.get("k") == data
    assert cluster.clock.monotonic_seconds() - began < 0.5, "nothing is waited for"
    await cluster.settle()
    assert await cluster.heal("k", verify=True)
    await whole(cluster, data)


@pytest.mark.parametrize("lost", [[0, 1, 2], [0, 1, 2, 3]])
async def test_a_stripe_that_is_lost_keeps_what_is_left_of_the_others(cluster: MemoryCluster, lost: list[int]) -> None:
    """Nothing is replaced by what cannot be whole."""
    await cluster.put("k", BIG)
    await cluster.settle()
    rot(cluster, *lost, block=1)
    rot(cluster, 3, block=0)
    healed = await cluster.store.heal(cluster.set_of("k"), REGISTER, verify=True)
    assert healed.stuck is not None
    assert healed.stuck.copies < healed.stuck.copies_needed
    first = await cluster.get("k", 0, STRIPE_SIZE_BYTES)
    assert first == BIG[:STRIPE_SIZE_BYTES]


async def test_more_rot_than_parity_is_refused(cluster: MemoryCluster) -> None:
    await cluster.put("k", BIG)
    await cluster.settle()
    rot(cluster, 0, 1, 2)
    with pytest.raises(Unavailable):
        await cluster.get("k")
    await cluster.settle()


async def test_one_bad_shard_of_a_large_object_is_repaired_once(cluster: MemoryCluster) -> None:
    """Not once per batch: each pass reads the whole object."""
    data = random.Random(2).randbytes(40 * STRIPE_SIZE_BYTES)
    await cluster.put("k", data)
    await cluster.settle()
    for drive in cluster.drives[:2]:
        for block in range(40):
            drive.rot(shard_of(drive), block)
    cluster.calls.clear()
    assert await cluster.get("k") == data
    await cluster.settle()
    reads = sum(verb == "read_blocks" for _, verb in cluster.calls)
    assert reads < 150, "ten batches for the read, ten more per drive for the repair, and the rebuilding"
    await whole(cluster, data)


async def test_a_slow_drive_is_waited_for_once_per_read(cluster: MemoryCluster) -> None:
    data = random.Random(3).randbytes(40 * STRIPE_SIZE_BYTES)
    await cluster.put("k", data)
    await cluster.settle()

    for slow in range(4):

        async def hook(position: int, verb: str, _: Any, slow: int = slow) -> None:
            if position == slow and verb == "read_blocks":
                await cluster.clock.sleep(3)

        cluster.hook = hook
        began = cluster.clock.monotonic_seconds()
        assert await cluster.get("k") == data
        assert cluster.clock.monotonic_seconds() - began < 1.5


async def test_a_reader_that_leaves_early_leaves_no_task(cluster: MemoryCluster) -> None:
    await cluster.put("k", random.Random(4).randbytes(12 * STRIPE_SIZE_BYTES))
    reader = await cluster.store.open_object(BUCKET, "k")
    assert reader is not None
    stream = reader.chunks(0, reader.record.size_bytes)
    await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]


# -------------------------------------------------------------------- healing


@pytest.mark.parametrize("data", [b"", SMALL, BIG])
@pytest.mark.parametrize("missed", [0, 3])
async def test_a_missed_write_is_copied(cluster: MemoryCluster, data: bytes, missed: int) -> None:
    await cluster.put("k", b"old")
    with cluster.away(missed):
        await cluster.put("k", data)
    await cluster.settle()
    assert await cluster.heal("k")
    await whole(cluster, data)
    assert not cluster.unnamed_shards()


async def test_a_missed_delete_is_copied(cluster: MemoryCluster) -> None:
    await cluster.put("k", BIG)
    with cluster.away(1):
        await cluster.store.delete_object(BUCKET, "k")
    await cluster.settle()
    assert await cluster.heal("k")
    await whole(cluster, None)


async def test_many_versions_missed_by_different_drives(cluster: MemoryCluster) -> None:
    for turn in range(8):
        with cluster.away(turn % 4):
            await cluster.put("k", b"%d" % turn + BIG)
    await cluster.settle()
    assert await cluster.heal("k")
    await whole(cluster, b"7" + BIG)


async def test_nothing_is_whole_while_a_drive_is_away(cluster: MemoryCluster) -> None:
    await cluster.put("k", SMALL)
    with cluster.away(2):
        assert not await cluster.heal("k")
        assert not await cluster.heal("absent")
    assert await cluster.heal("k")
    assert await cluster.heal("absent")


@pytest.mark.parametrize("data", [SMALL, BIG])
async def test_a_failed_write_is_taken_back_after_the_deadline_only(cluster: MemoryCluster, data: bytes) -> None:
    await cluster.put("k", b"old")

    async def hook(position: int, verb: str, _: Any) -> None:
        if verb == "commit" and position != 1:
            raise DriveOffline("the commit is lost")

    cluster.hook = hook
    with pytest.raises(Unavailable):
        await cluster.put("k", data)
    cluster.hook = None
    assert not await cluster.heal("k")
    assert len(cluster.stamps(REGISTER)[1]) == 2, "its coordinator may still be at work"
    await cluster.clock.sleep(OPERATION_DEADLINE_SECONDS + 1)
    assert await cluster.heal("k")
    await whole(cluster, b"old")
    cluster.reap()
    assert not cluster.unnamed_shards()


async def test_what_may_have_been_acknowledged_is_rolled_forward(cluster: MemoryCluster) -> None:
    await cluster.put("k", b"old")
    with cluster.away(3):
        await cluster.put("k", BIG)
    await cluster.settle()
    for drive in cluster.drives:  # the notes were lost
        for state in drive._states.values():
            state.mark = 0
    with cluster.away(2):
        await cluster.clock.sleep(OPERATION_DEADLINE_SECONDS + 1)
        await cluster.heal("k")
        assert await cluster.get("k") == BIG
    assert await cluster.heal("k")
    await whole(cluster, BIG)


def replace_drive(cluster: MemoryCluster, position: int) -> None:
    """An empty drive in the place of one that is lost, adopted now (rule 11)."""
    fresh = MemoryDrive(
        cluster.clock,
        position=position,
        healing=True,
        incarnation=99,
        watermark=floor_stamp(cluster.clock.now_ms() + 5000),
    )
    cluster.drives[position] = fresh
    cluster._hooked[0][position]._drive = fresh  # type: ignore[attr-defined]


@pytest.mark.parametrize("data", [SMALL, BIG, None])
async def test_a_replaced_drive_is_filled(cluster: MemoryCluster, data: bytes | None) -> None:
    await cluster.put("k", b"old")
    if data is None:
        await cluster.store.delete_object(BUCKET, "k")
    else:
        await cluster.put("k", data)
    await cluster.settle()
    replace_drive(cluster, 2)
    with cluster.away(1):
        assert await cluster.get("k") == data
    assert await cluster.heal("k")
    await cluster.drives[2].finish_healing(99)
    await whole(cluster, data)


async def test_an_empty_replacement_denies_nothing(cluster: MemoryCluster) -> None:
    """K - 1 full drives that lack it and a replacement: an acknowledged write must not be judged absent."""
    with cluster.away(0):
        await cluster.put("k", SMALL)
    await cluster.settle()
    for drive in cluster.drives:
        for state in drive._states.values():
            state.mark = 0
    replace_drive(cluster, 1)
    with cluster.away(2), pytest.raises(Unavailable):
        await cluster.get("k")
    assert await cluster.get("k") == SMALL, "two copies and one negative vote: rolled forward"


@pytest.mark.parametrize("silent", [(0, 1, 3), (1, 3), (2,)])
async def test_a_register_is_not_settled_while_its_holders_are_silent(
    cluster: MemoryCluster, silent: tuple[int, ...]
) -> None:
    """Else the replacement would count as full without it, and deny what was acknowledged."""
    with cluster.away(0):
        await cluster.put("k", SMALL)
    await cluster.settle()
    replace_drive(cluster, 2)

    async def hook(position: int, verb: str, _: Any) -> None:
        if verb == "query" and position in silent:
            raise DriveOffline("lost")

    cluster.hook = hook
    try:
        healed = await cluster.store.heal(cluster.set_of("k"), REGISTER)
    except Unavailable:
        return
    assert not healed.settled
    cluster.hook = None
    assert (await cluster.store.heal(cluster.set_of("k"), REGISTER)).settled


async def test_a_new_write_reaches_a_healing_drive(cluster: MemoryCluster) -> None:
    await cluster.put("k", b"old")
    replace_drive(cluster, 0)
    await cluster.clock.sleep(6)
    await cluster.put("k", SMALL)
    await cluster.settle()
    assert all(len(stamps) == 1 for stamps in cluster.stamps(REGISTER))


async def test_a_write_behind_a_replacements_watermark_is_still_acknowledged(cluster: MemoryCluster) -> None:
    """Its watermark lies ahead of the clocks; the others make the quorum, repair does the rest."""
    await cluster.put("k", b"old")
    await cluster.settle()
    replace_drive(cluster, 0)
    await cluster.put("k", SMALL)
    await cluster.settle()
    assert await cluster.heal("k")
    await cluster.drives[0].finish_healing(99)
    await whole(cluster, SMALL)


@pytest.mark.parametrize("rotten", [0, 1])
async def test_drives_that_answer_late_stand_in_reserve(cluster: MemoryCluster, rotten: int) -> None:
    """The version is known after two answers; when one of these two cannot be read, the others are asked."""
    await cluster.put("k", BIG)
    await cluster.settle()
    rot(cluster, rotten)

    async def hook(position: int, verb: str, _: Any) -> None:
        if position > 1 and verb == "query":
            await cluster.clock.sleep(1)

    cluster.hook = hook
    began = cluster.clock.monotonic_seconds()
    assert await cluster.get("k") == BIG
    assert cluster.clock.monotonic_seconds() - began < 0.5


# -------------------------------------------------------------------- coordinators that die early


async def test_a_read_sends_the_notes_that_a_dead_coordinator_did_not(cluster: MemoryCluster) -> None:
    async def no_notes(position: int, verb: str, arguments: Any) -> None:
        if verb == "note":
            raise DriveOffline("the coordinator died before it told anybody")

    cluster.hook = no_notes
    await cluster.put("k", SMALL)
    await cluster.settle()
    cluster.hook = None
    with cluster.away(0, 1), pytest.raises(Unavailable):
        await cluster.get("k")  # two copies, no mark: it could be a write that failed
    await cluster.clock.sleep(UNMARKED_AFTER_SECONDS)
    assert await cluster.get("k") == SMALL
    await cluster.settle()
    with cluster.away(0, 1):
        assert await cluster.get("k") == SMALL


async def test_a_read_right_after_a_write_leaves_the_notes_to_its_coordinator(cluster: MemoryCluster) -> None:
    noted: list[int] = []

    async def watch(position: int, verb: str, arguments: Any) -> None:
        if verb == "note":
            noted.append(position)
            raise DriveOffline("late")

    cluster.hook = watch
    await cluster.put("k", SMALL)
    await cluster.settle()
    assert len(noted) == 4
    assert await cluster.get("k") == SMALL
    await cluster.settle()
    assert len(noted) == 4


# -------------------------------------------------------------------- while others are deleted


def drop_another(cluster: MemoryCluster, position: int) -> Any:
    """A tombstone of the same range is dropped on one drive, newer than all there is."""
    stamp = floor_stamp(cluster.clock.now_ms() + 1000)
    return cluster._hooked[0][position]._drive.drop_tombstones([Tombstone(REGISTER, stamp)])


async def test_a_shard_is_not_rebuilt_in_vain_because_tombstones_are_dropped_meanwhile(cluster: MemoryCluster) -> None:
    with cluster.away(3):
        await cluster.put("k", BIG)
        await cluster.settle()

    async def hook(position: int, verb: str, _: Any) -> None:
        if position == 3 and verb == "seal":
            await drop_another(cluster, 3)

    cluster.hook = hook
    assert await cluster.heal("k")
    assert cluster.calls.count((3, "seal")) == 1
    await cluster.settle()
    await whole(cluster, BIG)


async def test_what_is_deleted_and_forgotten_during_its_repair_is_not_offered_again(cluster: MemoryCluster) -> None:
    with cluster.away(3):
        await cluster.put("k", BIG)
        await cluster.settle()

    async def hook(position: int, verb: str, _: Any) -> None:
        if position == 3 and verb == "seal":
            cluster.hook = None
            await cluster.store.delete_object(BUCKET, "k")
            await cluster.settle()
            for drive in cluster.drives:
                (deleted,) = drive.state_of(keys.row_key(REGISTER)).records
                await drive.drop_tombstones([Tombstone(REGISTER, deleted.stamp)])

    cluster.hook = hook
    await cluster.heal("k")
    assert cluster.hook is None
    assert cluster.stamps(REGISTER) == [[]] * 4
    assert cluster.unnamed_shards() == set()
    assert await cluster.get("k") is None


# -------------------------------------------------------------------- nothing is left lying about


async def test_a_repair_overtaken_by_a_write_leaves_no_shards(cluster: MemoryCluster) -> None:
    with cluster.away(3):
        await cluster.put("k", BIG)
        await cluster.settle()
    sealed = False

    async def overtake(position: int, verb: str, _: Any) -> None:
        nonlocal sealed
        if position == 3 and verb == "commit" and sealed:
            cluster.hook = None
            await cluster.put("k", SMALL)
        sealed = sealed or (position == 3 and verb == "seal")

    cluster.hook = overtake
    await cluster.heal("k")
    assert sealed
    assert cluster.hook is None, "the write came between the shard and its record"
    assert await cluster.get("k") == SMALL
    await cluster.settle()
    assert cluster.unnamed_shards() == set()


async def test_the_rebuilding_of_a_rotten_shard_that_is_overtaken_by_a_write_leaves_nothing_staged(
    cluster: MemoryCluster,
) -> None:
    await cluster.put("k", BIG)
    await cluster.settle()
    rot(cluster, 3)
    sealed = False

    async def overtake(position: int, verb: str, _: Any) -> None:
        nonlocal sealed
        if position == 3 and verb == "commit" and sealed:
            cluster.hook = None
            await cluster.put("k", SMALL)
            await cluster.settle()
        sealed = sealed or (position == 3 and verb == "seal")

    cluster.hook = overtake
    await cluster.heal("k", verify=True)
    assert sealed
    assert cluster.hook is None
    assert await cluster.get("k") == SMALL
    assert not cluster.drives[3]._anew


async def test_a_repair_that_fails_midway_leaves_nothing_staged(cluster: MemoryCluster) -> None:
    data = random.Random(2).randbytes(6 * STRIPE_SIZE_BYTES)
    with cluster.away(3):
        await cluster.put("k", data)
        await cluster.settle()
    rot(cluster, 0, 1, block=5)  # what comes before can be rebuilt
    assert not await cluster.heal("k")
    await cluster.settle()
    assert cluster.drives[3].shard_ids() == set()
    with cluster.away(2):  # nobody knows whether it has stripe 5
        with pytest.raises(Unavailable):
            await cluster.heal("k")
        await cluster.settle()
    assert cluster.drives[3].shard_ids() == set()
