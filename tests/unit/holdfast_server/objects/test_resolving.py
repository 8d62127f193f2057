"""A person decides what the drives cannot: only that, only when every drive answers, and for good."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast_server.clock.stamp import floor_stamp
from holdfast_server.drives import keys
from holdfast_server.drives.port import DriveOffline
from holdfast_server.drives.rules import RegisterState
from holdfast_server.objects import resolving
from holdfast_server.objects.erasure_set import ErasureSet
from holdfast_server.objects.healing import OPERATION_DEADLINE_SECONDS
from holdfast_server.objects.port import NULL_VERSION, Conflict, Missing, Unavailable, Versioning
from holdfast_server.objects.record import STRIPE_SIZE_BYTES, object_register, version_register
from holdfast_server.testing.memory_cluster import BUCKET, BytesBody, MemoryCluster
from holdfast_server.testing.memory_drive import MemoryDrive

REGISTER = object_register(BUCKET, "k")
BIG = b"big" * STRIPE_SIZE_BYTES


def replace(cluster: MemoryCluster, position: int) -> MemoryDrive:
    fresh = MemoryDrive(
        cluster.clock,
        position=position,
        drive_id=bytes((99, position)) * 8,
        healing=True,
        incarnation=99,
        watermark=floor_stamp(cluster.clock.now_ms() + 5000),
    )
    lost = cluster.drives[position]
    cluster.drives[position] = fresh
    cluster._hooked[0][position]._drive = fresh  # type: ignore[attr-defined]
    return lost


async def undecided(cluster: MemoryCluster) -> None:
    """One copy of a write of which nobody knows whether it was acknowledged: two drives were replaced since."""
    await cluster.put("k", b"old")
    await cluster.settle()

    async def lost(position: int, verb: str, _: Any) -> None:
        if verb == "commit" and position != 0:
            raise DriveOffline("lost")

    cluster.hook = lost
    with pytest.raises(Unavailable):
        await cluster.put("k", BIG)
    cluster.hook = None
    replace(cluster, 2)
    replace(cluster, 3)
    await cluster.clock.sleep(OPERATION_DEADLINE_SECONDS + 10)
    healed = await cluster.store.heal(cluster.set_of("k"), REGISTER)
    assert healed.stuck is not None
    assert not healed.stuck.committed
    with pytest.raises(Unavailable):
        await cluster.get("k")


async def test_an_undecided_version_that_is_discarded_gives_way_to_the_one_before(cluster: MemoryCluster) -> None:
    await undecided(cluster)
    assert "taken back" in await cluster.store.resolve(REGISTER, keep=False)
    await cluster.settle()
    assert await cluster.get("k") == b"old"
    assert await cluster.heal("k")
    assert len({tuple(stamps) for stamps in cluster.stamps(REGISTER)}) == 1
    with pytest.raises(Missing):
        await cluster.store.resolve(REGISTER, keep=False)


async def test_what_is_kept_stays_and_says_what_is_missing(cluster: MemoryCluster) -> None:
    await undecided(cluster)
    before = cluster.stamps(REGISTER)
    with pytest.raises(Conflict, match="1 of the 2 shards"):
        await cluster.store.resolve(REGISTER, keep=True)
    assert cluster.stamps(REGISTER) == before


async def test_a_discarded_version_does_not_come_back_with_a_late_message(cluster: MemoryCluster) -> None:
    await undecided(cluster)
    held = cluster.drives[0]._states[next(iter(cluster.drives[0]._states))].records[0]
    await cluster.store.resolve(REGISTER, keep=False)
    for drive in cluster.drives:
        reply = await drive.query(REGISTER, False)
        assert all(record.stamp != held.stamp for record in reply.records)
        assert reply.highest >= held.stamp, "a plain commit of it is refused for good"


async def test_a_committed_version_that_lost_too_much_is_deleted_not_removed(cluster: MemoryCluster) -> None:
    await cluster.put("k", BIG)
    await cluster.settle()
    for position in (1, 2, 3):
        replace(cluster, position)
    await cluster.clock.sleep(OPERATION_DEADLINE_SECONDS + 10)
    with pytest.raises(Conflict):
        await cluster.store.resolve(REGISTER, keep=True)
    assert "deleted" in await cluster.store.resolve(REGISTER, keep=False)
    for drive in cluster.drives:
        await drive.finish_healing(99)
    assert await cluster.get("k") is None


async def rotted_before_it_was_copied(cluster: MemoryCluster, gone: bool, positions: tuple[int, ...] = (0, 1)) -> None:
    with cluster.away(3):
        await cluster.put("k", BIG)
        await cluster.settle()
    for position in positions:
        drive = cluster.drives[position]
        (data_id,) = drive.shard_ids()
        if gone:
            drive._shards.clear()
        else:
            drive.rot(data_id, 1)
    await cluster.clock.sleep(OPERATION_DEADLINE_SECONDS + 10)


@pytest.mark.parametrize("gone", [False, True])
async def test_a_version_with_too_few_shards_behind_its_records_waits_for_a_person(
    cluster: MemoryCluster, gone: bool
) -> None:
    await rotted_before_it_was_copied(cluster, gone)
    healed = await cluster.store.heal(cluster.set_of("k"), REGISTER)
    assert healed.stuck is not None
    assert (healed.stuck.copies, healed.stuck.copies_needed, healed.stuck.committed) == (1, 2, True)
    assert not healed.settled
    with pytest.raises(Conflict, match="1 of the 2 shards"):
        await cluster.store.resolve(REGISTER, keep=True)
    assert "deleted" in await cluster.store.resolve(REGISTER, keep=False)
    await cluster.settle()
    assert await cluster.get("k") is None
    assert await cluster.heal("k"), "nothing of it is left to be repaired"


async def test_a_version_whose_shards_may_be_on_a_silent_drive_is_not_stuck(cluster: MemoryCluster) -> None:
    await rotted_before_it_was_copied(cluster, gone=False)
    with cluster.away(2), pytest.raises(Unavailable):
        await cluster.store.heal(cluster.set_of("k"), REGISTER)


async def test_a_version_whose_shards_cannot_be_read_just_now_is_not_stuck(cluster: MemoryCluster) -> None:
    """A drive says that it has the record, and gives no shard: a disk that hangs, a connection that breaks."""
    await rotted_before_it_was_copied(cluster, gone=False, positions=(0,))

    async def fail(position: int, verb: str, _: Any) -> None:
        if position == 1 and verb == "read_blocks":
            raise DriveOffline("no answer in time")

    cluster.hook = fail
    with pytest.raises(Unavailable):
        await cluster.store.heal(cluster.set_of("k"), REGISTER)


async def test_a_version_that_is_overwritten_while_its_shards_are_looked_at_is_not_stuck(
    cluster: MemoryCluster,
) -> None:
    await rotted_before_it_was_copied(cluster, gone=True)

    async def overwrite(position: int, verb: str, _: Any) -> None:
        if verb == "read_blocks":
            cluster.hook = None
            await cluster.put("k", b"new")

    cluster.hook = overwrite
    with pytest.raises(Unavailable):
        await cluster.store.heal(cluster.set_of("k"), REGISTER)
    assert cluster.hook is None
    assert await cluster.heal("k")
    assert await cluster.get("k") == b"new"


async def test_nothing_is_decided_while_a_drive_is_silent(cluster: MemoryCluster) -> None:
    await undecided(cluster)
    before = cluster.stamps(REGISTER)
    for silent in (1, 2):
        with cluster.away(silent), pytest.raises(Unavailable):
            await cluster.store.resolve(REGISTER, keep=False)
    assert cluster.stamps(REGISTER) == before


async def test_what_is_not_stuck_is_not_touched(cluster: MemoryCluster) -> None:
    await cluster.put("k", BIG)
    await cluster.settle()
    for keep in (True, False):
        with pytest.raises(Missing):
            await cluster.store.resolve(REGISTER, keep)
        with pytest.raises(Missing):
            await cluster.store.resolve(object_register(BUCKET, "absent"), keep)
    assert await cluster.get("k") == BIG


async def test_a_decision_cut_off_at_any_call_may_be_repeated(cluster: MemoryCluster) -> None:
    n = calls = 0
    while calls >= n:
        n += 1
        made = MemoryCluster(cluster.clock, 4, 2, 1)
        await undecided(made)
        calls = 0

        async def hook(position: int, verb: str, _: Any, n: int = n) -> None:
            nonlocal calls
            calls += 1
            if calls == n:
                raise DriveOffline(f"call {n}, {verb}")

        made.hook = hook
        try:
            await made.store.resolve(REGISTER, keep=False)
        except Unavailable:
            made.hook = None
            try:
                await made.store.resolve(REGISTER, keep=False)
            except Missing:
                pass  # it had been taken back already, but for the answer
        made.hook = None
        assert await made.get("k") == b"old", n
        await made.close()
    assert n > 10


async def too_few_shards(cluster: MemoryCluster, data_ids: set[bytes]) -> None:
    """Of these; each is left on one drive."""
    for drive in cluster.drives[1:]:
        for data_id in data_ids:
            drive.rot(data_id, 1)
    await cluster.clock.sleep(OPERATION_DEADLINE_SECONDS + 10)


async def put_version(cluster: MemoryCluster, data: bytes) -> tuple[bytes, set[bytes]]:
    """Its id, and what names its shards."""
    before = cluster.drives[0].shard_ids()
    made = await cluster.store.put_object(BUCKET, "k", BytesBody(data, versioning=Versioning.ENABLED))
    await cluster.settle()
    return made.place, cluster.drives[0].shard_ids() - before


async def versions(cluster: MemoryCluster) -> list[tuple[bytes, bool]]:
    listing = await cluster.store.list_versions(BUCKET, prefix="k")
    return [(entry.record.place, entry.record.marker) for entry in listing.entries]


async def read_version(cluster: MemoryCluster, version: bytes) -> bytes:
    reader = await cluster.store.open_object(BUCKET, "k", version)
    assert reader is not None
    return b"".join([bytes(chunk) async for chunk in reader.chunks(0, reader.record.size_bytes)])


async def test_a_current_version_that_is_discarded_takes_no_other_version_with_it(cluster: MemoryCluster) -> None:
    """A key without a current version has none at all: the others would be gone, and locked ones with them."""
    first, _ = await put_version(cluster, BIG)
    second, lost = await put_version(cluster, BIG + b"2")
    await too_few_shards(cluster, lost)
    assert "older versions stay" in await cluster.store.resolve(REGISTER, keep=False)
    await cluster.settle()
    ((marker, hides), *others) = await versions(cluster)
    assert hides
    assert others == [(first, False)]
    assert await read_version(cluster, first) == BIG
    assert await cluster.get("k") == b""
    # As after any other delete.
    await cluster.store.delete_version(BUCKET, "k", marker)
    assert await cluster.get("k") == BIG
    assert await cluster.heal("k", verify=True)
    assert await cluster.store.open_object(BUCKET, "k", second) is None


async def test_a_current_version_of_which_drives_were_lost_gives_way_to_a_marker(cluster: MemoryCluster) -> None:
    first, _ = await put_version(cluster, b"small")
    await put_version(cluster, BIG)
    # Of the second only one shard is left behind a mark; the first rests on all drives.
    row = keys.row_key(REGISTER)
    for drive in cluster.drives[1:]:
        drive._put(row, RegisterState())
    for drive in cluster.drives[2:]:
        drive._healing = True
    await cluster.clock.sleep(OPERATION_DEADLINE_SECONDS + 10)
    with pytest.raises(Unavailable):
        await cluster.get("k")
    await cluster.store.resolve(REGISTER, keep=False)
    await cluster.settle()
    assert [marker for _, marker in await versions(cluster)] == [True, False]
    assert await read_version(cluster, first) == b"small"


async def test_a_version_at_rest_is_discarded_alone(cluster: MemoryCluster) -> None:
    first, lost = await put_version(cluster, BIG)
    second, _ = await put_version(cluster, b"second")
    third, _ = await put_version(cluster, b"third")
    await too_few_shards(cluster, lost)
    assert "deleted" in await cluster.store.resolve(version_register(BUCKET, "k", first), keep=False)
    assert await versions(cluster) == [(third, False), (second, False)]


async def test_a_null_version_that_is_discarded_names_no_place_to_rest(cluster: MemoryCluster) -> None:
    first, _ = await put_version(cluster, BIG)
    suspended = BytesBody(BIG + b"null", versioning=Versioning.SUSPENDED)
    before = cluster.drives[0].shard_ids()
    await cluster.store.put_object(BUCKET, "k", suspended)
    await cluster.settle()
    await too_few_shards(cluster, cluster.drives[0].shard_ids() - before)
    await cluster.store.resolve(REGISTER, keep=False)
    assert [marker for _, marker in await versions(cluster)] == [True, False]
    assert await cluster.store.open_object(BUCKET, "k", NULL_VERSION) is None
    assert await read_version(cluster, first) == BIG


async def test_what_was_overwritten_meanwhile_is_not_discarded(
    cluster: MemoryCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rotted_before_it_was_copied(cluster, gone=False)
    find_stuck = resolving.find_stuck

    async def slowly(*arguments: Any) -> Any:
        found = await find_stuck(*arguments)
        await cluster.put("k", b"new")
        return found

    monkeypatch.setattr(resolving, "find_stuck", slowly)
    with pytest.raises(Unavailable, match="look at it again"):
        await cluster.store.resolve(REGISTER, keep=False)
    await cluster.settle()
    assert await cluster.get("k") == b"new"


async def test_a_later_write_that_failed_keeps_nothing_from_being_discarded(cluster: MemoryCluster) -> None:
    await cluster.put("k", BIG)
    await cluster.settle()
    for drive in cluster.drives[1:]:
        drive._put(keys.row_key(REGISTER), RegisterState())

    async def only_two(position: int, verb: str, _: Any) -> None:
        if verb == "commit" and position > 1:
            raise DriveOffline("lost")

    cluster.hook = only_two
    with pytest.raises(Unavailable):
        await cluster.put("k", b"failed")
    cluster.hook = None
    await cluster.clock.sleep(OPERATION_DEADLINE_SECONDS + 10)
    assert "deleted" in await cluster.store.resolve(REGISTER, keep=False)
    await cluster.settle()
    assert await cluster.get("k") is None


async def test_a_version_that_is_put_while_the_current_one_is_discarded_stays(
    cluster: MemoryCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = await put_version(cluster, BIG)
    _, lost = await put_version(cluster, BIG + b"2")
    await too_few_shards(cluster, lost)
    put: list[bytes] = []

    def preceded(call: Any) -> Any:
        async def after_a_put(erasure_set: ErasureSet, *arguments: Any, **more: Any) -> Any:
            if not put:
                put.append(b"")
                body = BytesBody(b"new", versioning=Versioning.ENABLED)
                put[0] = (await cluster.new_store().put_object(BUCKET, "k", body)).place
            return await call(erasure_set, *arguments, **more)

        return after_a_put

    for step in ("promise", "commit"):
        monkeypatch.setattr(ErasureSet, step, preceded(getattr(ErasureSet, step)))
    with pytest.raises(Unavailable, match="look at it again"):
        await cluster.store.resolve(REGISTER, keep=False)
    await cluster.settle()
    assert await cluster.get("k") == b"new"
    assert (await versions(cluster))[0] == (put[0], False)
    assert await read_version(cluster, first) == BIG
