"""What every drive promises, whatever it is made of: one suite for all implementations (see conftest)."""

from __future__ import annotations

import msgspec
import pytest
import xxhash

from holdfast_server.drives import names
from holdfast_server.drives.port import (
    HIDDEN_INDEX,
    CommitMode,
    CommitReply,
    CommitRequest,
    CommitStatus,
    Drive,
    DriveError,
    DriveState,
    Held,
    ListPage,
    ListRequest,
    PrepareStatus,
    Register,
    ScanRequest,
    ShardCorrupt,
    ShardMissing,
    Sign,
    Tombstone,
    TombstoneRequest,
    TombstoneState,
)
from holdfast_server.peers import older_listings
from holdfast_server.testing.failures_left import refused_without_a_trace

BUCKET = b"bucket id 16 byt"
SPACE = b"o" + BUCKET
REGISTER = Register(SPACE, "photos/cat.jpg")
DATA_ID = bytes(range(16))


def held(stamp: int, *, tombstone: bool = False, data_ids: tuple[bytes, ...] = (), inline: bytes | None = None) -> Held:
    has_data = inline is not None or data_ids
    return Held(stamp, tombstone, b"record %d" % stamp, 3 if has_data else -1, inline, data_ids)


async def put(
    drive: Drive,
    stamp: int,
    register: Register = REGISTER,
    mode: CommitMode = CommitMode.PLAIN,
    lease: bytes = b"",
    watermark: int | None = None,
    **facts: object,
) -> CommitReply:
    return await drive.commit(CommitRequest(register, held(stamp, **facts), mode, lease, watermark))  # type: ignore[arg-type]


async def status(drive: Drive, stamp: int, *args: object, **facts: object) -> CommitStatus:
    return (await put(drive, stamp, *args, **facts)).status  # type: ignore[arg-type]


async def stamps(drive: Drive, register: Register = REGISTER) -> list[int]:
    return [record.stamp for record in (await drive.query(register, False)).records]


async def stage(drive: Drive, data_id: bytes = DATA_ID, count: int = 3) -> list[bytes]:
    blocks = [bytes([index]) * 1000 for index in range(count - 1)] + [b"the last"]
    hashes = [xxhash.xxh3_128_digest(block) for block in blocks]
    await drive.stage(data_id, 0, blocks[:2], hashes[:2])
    await drive.stage(data_id, 2, blocks[2:], hashes[2:])
    await drive.seal(data_id)
    return blocks


# --- commit and query


async def test_an_empty_register_has_nothing(bench):
    reply = await bench.drive.query(REGISTER, True)
    assert (reply.records, reply.mark, reply.highest, reply.watermark, reply.healing) == ((), 0, 0, 0, False)


async def test_a_committed_record_reads_back_whole(bench):
    record = Held(10, False, b"the record", 3, b"shard" * 100, ())
    assert await bench.drive.commit(CommitRequest(REGISTER, record, CommitMode.PLAIN)) == CommitReply(
        CommitStatus.OK, 10
    )
    assert (await bench.drive.query(REGISTER, True)).records == (record,)


@pytest.mark.parametrize("size", [0, 1, 1024, 1025, 16384])
async def test_inline_shards_of_any_size_are_given_only_when_asked_for(bench, size):
    await put(bench.drive, 10, inline=bytes(size))
    await put(bench.drive, 20, inline=b"x" * size)
    assert [record.inline for record in (await bench.drive.query(REGISTER, True)).records] == [b"x" * size, bytes(size)]
    assert [record.inline for record in (await bench.drive.query(REGISTER, False)).records] == [None, None]
    await bench.restart()
    assert [record.inline for record in (await bench.drive.query(REGISTER, True)).records] == [b"x" * size, bytes(size)]


async def test_records_are_given_newest_first_until_noted(bench):
    for stamp in (10, 20, 30):
        await put(bench.drive, stamp)
    assert await stamps(bench.drive) == [30, 20, 10]
    await bench.drive.note(REGISTER, 20, True)
    assert await stamps(bench.drive) == [30, 20]
    assert (await bench.drive.query(REGISTER, False)).mark == 20


async def test_committing_again_is_ok_and_changes_nothing(bench):
    await put(bench.drive, 10)
    await put(bench.drive, 20)
    assert await put(bench.drive, 10) == CommitReply(CommitStatus.OK, 20)
    assert await stamps(bench.drive) == [20, 10]


async def test_a_plain_commit_at_or_below_the_newest_is_stale(bench):
    await put(bench.drive, 10)
    assert await put(bench.drive, 9) == CommitReply(CommitStatus.STALE, 10)


async def test_a_plain_commit_at_or_below_the_fence_is_stale(bench):
    assert (await bench.drive.fence(REGISTER, 10)).fenced
    assert await put(bench.drive, 10) == CommitReply(CommitStatus.STALE, 10)
    assert await status(bench.drive, 11) is CommitStatus.OK


async def test_registers_do_not_meddle_with_each_other(bench):
    others = [
        Register(SPACE, "photos/cat.jp"),
        Register(SPACE, "photos/cat.jpg\0"),
        Register(SPACE, "photos/cat.jpg", b"\0"),
        Register(SPACE, "photos/cat.jpg", b"\0\xff"),
        Register(b"u" + BUCKET, "photos/cat.jpg"),
        Register(b"o" + bytes(16), "photos/cat.jpg"),
        Register(SPACE, ""),
        Register(SPACE, "photos/\u00fc\U0001f431"),
    ]
    for stamp, register in enumerate([REGISTER, *others], 10):
        assert await status(bench.drive, stamp, register) is CommitStatus.OK
    for stamp, register in enumerate([REGISTER, *others], 10):
        assert await stamps(bench.drive, register) == [stamp]


async def test_what_was_acknowledged_survives_a_restart(bench):
    await put(bench.drive, 10)
    await bench.drive.note(REGISTER, 10, True)
    await put(bench.drive, 20, inline=b"shard")
    await bench.drive.fence(REGISTER, 30)
    await bench.restart()
    reply = await bench.drive.query(REGISTER, True)
    assert reply.records == (held(20, inline=b"shard"), held(10))
    assert (reply.mark, reply.highest) == (10, 30)


# --- leases


async def test_a_lease_keeps_others_out_until_it_ends(bench):
    promise = await bench.drive.prepare(REGISTER, 0, b"mine", 5)
    assert promise.status is PrepareStatus.PROMISED
    assert await status(bench.drive, 10) is CommitStatus.LEASED
    assert (await bench.drive.prepare(REGISTER, 0, b"yours", 5)).status is PrepareStatus.LEASED
    bench.clock.advance(5.1)
    assert await status(bench.drive, 10) is CommitStatus.OK


async def test_a_conditional_commit_needs_its_own_live_lease_and_uses_it_up(bench):
    conditional = CommitMode.CONDITIONAL
    assert await status(bench.drive, 10, REGISTER, conditional, b"mine") is CommitStatus.REFUSED
    await bench.drive.prepare(REGISTER, 0, b"yours", 5)
    assert await status(bench.drive, 10, REGISTER, conditional, b"mine") is CommitStatus.REFUSED
    assert await status(bench.drive, 10, REGISTER, conditional, b"yours") is CommitStatus.OK
    assert await status(bench.drive, 20, REGISTER, conditional, b"yours") is CommitStatus.REFUSED
    assert await status(bench.drive, 20) is CommitStatus.OK


async def test_a_lapsed_lease_does_not_carry_a_conditional_commit(bench):
    await bench.drive.prepare(REGISTER, 0, b"mine", 5)
    bench.clock.advance(5.1)
    assert await status(bench.drive, 10, REGISTER, CommitMode.CONDITIONAL, b"mine") is CommitStatus.REFUSED


async def test_a_restart_forgets_leases_and_refuses_what_relied_on_them(bench):
    await bench.drive.prepare(REGISTER, 0, b"mine", 500)
    await bench.restart()
    assert await status(bench.drive, 10, REGISTER, CommitMode.CONDITIONAL, b"mine") is CommitStatus.REFUSED
    assert await status(bench.drive, 10) is CommitStatus.OK


async def test_prepare_fails_when_something_newer_than_expected_is_held(bench):
    await put(bench.drive, 10)
    reply = await bench.drive.prepare(REGISTER, 9, b"mine", 5)
    assert (reply.status, reply.highest, reply.healing) == (PrepareStatus.MISMATCH, 10, False)
    assert (await bench.drive.prepare(REGISTER, 10, b"mine", 5)).status is PrepareStatus.PROMISED


async def test_a_conditional_commit_below_something_newer_is_stale(bench):
    await bench.drive.fence(REGISTER, 10)
    await bench.drive.prepare(REGISTER, 0, b"mine", 5)
    reply = await put(bench.drive, 10, REGISTER, CommitMode.CONDITIONAL, b"mine")
    assert reply == CommitReply(CommitStatus.STALE, 10)


async def test_release_gives_back_only_the_own_lease(bench):
    await bench.drive.prepare(REGISTER, 0, b"mine", 5)
    await bench.drive.release(REGISTER, b"yours")
    assert await status(bench.drive, 10) is CommitStatus.LEASED
    await bench.drive.release(REGISTER, b"mine")
    await bench.drive.release(REGISTER, b"mine")
    assert await status(bench.drive, 10) is CommitStatus.OK


# --- roll-forward and heal


async def test_a_roll_forward_stops_at_anything_newer_and_at_leases(bench):
    roll = CommitMode.ROLL_FORWARD
    await bench.drive.fence(REGISTER, 10)
    assert await status(bench.drive, 10, REGISTER, roll) is CommitStatus.REFUSED
    await put(bench.drive, 20)
    assert await status(bench.drive, 15, REGISTER, roll) is CommitStatus.REFUSED
    await bench.drive.prepare(REGISTER, 20, b"mine", 5)
    assert await status(bench.drive, 30, REGISTER, roll) is CommitStatus.REFUSED
    await bench.drive.release(REGISTER, b"mine")
    assert await status(bench.drive, 30, REGISTER, roll) is CommitStatus.OK


async def test_a_heal_of_a_committed_version_passes_fences_and_leases(bench):
    await bench.drive.fence(REGISTER, 10)
    await put(bench.drive, 20)
    await bench.drive.prepare(REGISTER, 20, b"mine", 5)
    assert await status(bench.drive, 10, REGISTER, CommitMode.HEAL) is CommitStatus.OK
    assert await stamps(bench.drive) == [20, 10]


@pytest.mark.parametrize("mode", [CommitMode.HEAL, CommitMode.ROLL_FORWARD])
async def test_repairing_below_the_mark_is_superseded(bench, mode):
    await put(bench.drive, 20)
    await bench.drive.note(REGISTER, 20, True)
    assert await status(bench.drive, 10, REGISTER, mode) is CommitStatus.SUPERSEDED


@pytest.mark.parametrize("mode", [CommitMode.HEAL, CommitMode.ROLL_FORWARD])
async def test_the_watermark_is_compared_before_a_repair_is_written(bench, mode):
    await put(bench.drive, 10, tombstone=True)
    await bench.drive.drop_tombstones([Tombstone(REGISTER, 10)])
    assert await status(bench.drive, 9, REGISTER, mode) is CommitStatus.REFUSED
    assert await status(bench.drive, 9, REGISTER, mode, watermark=9) is CommitStatus.REFUSED
    assert await status(bench.drive, 9, REGISTER, mode, watermark=10) is CommitStatus.OK


@pytest.mark.parametrize("mode", [CommitMode.HEAL, CommitMode.ROLL_FORWARD])
async def test_what_is_above_the_watermark_is_repaired_however_far_that_has_risen(bench, mode):
    await put(bench.drive, 10, tombstone=True)
    await bench.drive.drop_tombstones([Tombstone(REGISTER, 10)])
    assert await status(bench.drive, 11, REGISTER, mode, watermark=9) is CommitStatus.OK


async def test_a_dropped_tombstone_is_not_written_again(bench):
    await put(bench.drive, 10, tombstone=True)
    await bench.drive.drop_tombstones([Tombstone(REGISTER, 10)])
    assert await status(bench.drive, 10, REGISTER, CommitMode.HEAL, tombstone=True) is CommitStatus.OK
    assert await stamps(bench.drive) == []


# --- healing drives


async def test_a_healing_drive_says_so_and_takes_nothing_below_its_watermark(healing_bench):
    drive = healing_bench.drive
    assert drive.status().state is DriveState.HEALING
    reply = await drive.query(REGISTER, False)
    assert (reply.healing, reply.watermark, reply.highest) == (True, 1000, 1000)
    assert (await drive.prepare(REGISTER, 0, b"mine", 5)).healing
    assert (await drive.scan(ScanRequest(SPACE))).healing
    await drive.release(REGISTER, b"mine")
    assert await status(drive, 1000) is CommitStatus.STALE
    assert await status(drive, 1001) is CommitStatus.OK


async def test_a_healing_drive_is_filled_by_compare_and_set(healing_bench):
    drive = healing_bench.drive
    assert await status(drive, 10, REGISTER, CommitMode.HEAL) is CommitStatus.REFUSED
    assert await status(drive, 10, REGISTER, CommitMode.HEAL, watermark=999) is CommitStatus.REFUSED
    assert await status(drive, 10, REGISTER, CommitMode.HEAL, watermark=1000) is CommitStatus.OK
    assert await status(drive, 8, REGISTER, CommitMode.ROLL_FORWARD, watermark=1000) is CommitStatus.OK
    tombstone = Register(SPACE, "gone")
    heal = await status(drive, 10, tombstone, CommitMode.HEAL, watermark=1000, tombstone=True)
    assert (heal, await stamps(drive, tombstone)) == (CommitStatus.OK, [10])


async def test_only_the_heal_of_its_incarnation_makes_it_full(healing_bench):
    await healing_bench.drive.finish_healing(6)
    assert healing_bench.drive.status().state is DriveState.HEALING
    await healing_bench.restart()
    assert healing_bench.drive.status().state is DriveState.HEALING
    await healing_bench.drive.finish_healing(7)
    await healing_bench.restart()
    assert healing_bench.drive.status().state is DriveState.FULL
    assert not (await healing_bench.drive.query(REGISTER, False)).healing
    assert (await healing_bench.drive.query(REGISTER, False)).watermark == 1000


# --- note, fence, remove, drop


async def test_noting_a_version_that_is_not_held_changes_nothing(bench):
    await put(bench.drive, 10)
    await bench.drive.note(REGISTER, 20, True)
    reply = await bench.drive.query(REGISTER, False)
    assert ([record.stamp for record in reply.records], reply.mark) == ([10], 0)


async def test_the_mark_never_goes_down(bench):
    await put(bench.drive, 10)
    await put(bench.drive, 20)
    await bench.drive.note(REGISTER, 20, True)
    await bench.drive.note(REGISTER, 10, True)
    assert (await bench.drive.query(REGISTER, False)).mark == 20


async def test_what_is_held_cannot_be_fenced(bench):
    await put(bench.drive, 10)
    reply = await bench.drive.fence(REGISTER, 10)
    assert (reply.fenced, reply.healing) == (False, False)
    assert (await bench.drive.fence(REGISTER, 9)).fenced
    assert (await bench.drive.fence(REGISTER, 9)).fenced


async def test_a_removed_version_is_gone_and_does_not_come_back(bench):
    await put(bench.drive, 10)
    await put(bench.drive, 20)
    await bench.drive.remove(REGISTER, 20)
    await bench.drive.remove(REGISTER, 20)
    assert await stamps(bench.drive) == [10]
    await bench.restart()
    assert await put(bench.drive, 20) == CommitReply(CommitStatus.STALE, 20)


async def test_a_marked_version_is_not_removed(bench):
    await put(bench.drive, 10)
    await bench.drive.note(REGISTER, 10, True)
    await bench.drive.remove(REGISTER, 10)
    assert await stamps(bench.drive) == [10]


async def test_dropping_a_tombstone_raises_the_watermark_for_good(bench):
    await put(bench.drive, 10, tombstone=True)
    await bench.drive.note(REGISTER, 10, True)
    await bench.drive.drop_tombstones([Tombstone(REGISTER, 10)])
    await bench.drive.drop_tombstones([Tombstone(REGISTER, 10)])
    await bench.restart()
    reply = await bench.drive.query(REGISTER, False)
    assert (reply.records, reply.mark, reply.watermark, reply.highest) == ((), 0, 10, 10)
    assert await status(bench.drive, 10) is CommitStatus.STALE
    assert await status(bench.drive, 11) is CommitStatus.OK


async def test_dropping_leaves_a_newer_version_alone(bench):
    await put(bench.drive, 10, tombstone=True)
    await put(bench.drive, 20)
    await bench.drive.drop_tombstones([Tombstone(REGISTER, 10)])
    assert await stamps(bench.drive) == [20, 10]
    assert (await bench.drive.query(REGISTER, False)).watermark == 10


# --- settled tombstones (rule 10)

FIRST, LAST = Register(b"o" + bytes(16), ""), Register(b"o" + b"\xff" * 16, "")
LONG = 62.0


async def bury(drive: Drive, key: str, stamp: int = 10) -> Tombstone:
    """A tombstone over a version, noted."""
    register = Register(SPACE, key)
    await put(drive, stamp - 1, register)
    await put(drive, stamp, register, tombstone=True)
    await drive.note(register, stamp, True)
    return Tombstone(register, stamp)


async def ripe(drive: Drive, limit: int = 1000, seconds: float = LONG) -> list[Tombstone]:
    found: list[Tombstone] = []
    first: Register | None = FIRST
    while first is not None:
        page = await drive.tombstones(TombstoneRequest(first, LAST, seconds, limit))
        found += page.tombstones
        first = page.next_first
    return found


async def weigh(drive: Drive, *tombstones: Tombstone) -> list[TombstoneState]:
    return list((await drive.weigh_tombstones(tombstones, LONG)).states)


@pytest.mark.parametrize("limit", [1, 2, 1000])
async def test_tombstones_that_are_alone_are_told_in_order_when_they_are_old_enough(bench, limit):
    drive = bench.drive
    buried = [await bury(drive, key) for key in ("a", "a\0", "b/c", "z", "\u00e9")]
    await put(drive, 20, Register(SPACE, "lives"))
    assert await ripe(drive, limit) == []
    assert await ripe(drive, limit, 0) == buried
    assert await weigh(drive, *buried) == [TombstoneState.YOUNG] * 5
    bench.clock.advance(LONG)
    late = await bury(drive, "late")
    assert await ripe(drive, limit) == buried
    assert await weigh(drive, *buried, late) == [TombstoneState.SETTLED] * 5 + [TombstoneState.YOUNG]
    page = await drive.tombstones(TombstoneRequest(buried[1].register, buried[3].register, LONG, 10))
    assert list(page.tombstones) == buried[1:3]


async def test_a_drive_tells_what_stands_against_dropping_a_tombstone(bench):
    drive = bench.drive

    def at(key: str, stamp: int = 10) -> Tombstone:
        return Tombstone(Register(SPACE, key), stamp)

    await put(drive, 10, Register(SPACE, "unmarked"), tombstone=True)
    await put(drive, 9, Register(SPACE, "over another"))
    await put(drive, 10, Register(SPACE, "over another"), tombstone=True)
    await bury(drive, "written again")
    await put(drive, 11, Register(SPACE, "written again"))
    await put(drive, 9, Register(SPACE, "missed the delete"))
    await bury(drive, "other delete", 12)
    bench.clock.advance(LONG)
    assert await weigh(drive, at("unmarked"), at("over another")) == [TombstoneState.UNNOTED] * 2
    others = [at("written again"), at("missed the delete"), at("other delete"), at("knows nothing")]
    assert await weigh(drive, *others) == [TombstoneState.OTHER] * 4
    assert await ripe(drive) == [at("other delete", 12)]


async def test_a_restart_lets_all_settled_tombstones_wait_anew(bench):
    buried = await bury(bench.drive, "a")
    bench.clock.advance(LONG)
    await bench.restart()
    assert await weigh(bench.drive, buried) == [TombstoneState.YOUNG]
    bench.clock.advance(LONG)
    assert await weigh(bench.drive, buried) == [TombstoneState.SETTLED]
    assert await ripe(bench.drive) == [buried]


async def test_a_settled_tombstone_is_read_overwritten_and_walked_like_any_record(bench):
    await bury(bench.drive, "a")
    settled = await bury(bench.drive, "b")
    await put(bench.drive, 30, Register(SPACE, "c"))
    for _ in range(2):
        reply = await bench.drive.query(settled.register, True)
        assert ([(h.stamp, h.tombstone) for h in reply.records], reply.mark, reply.highest) == ([(10, True)], 10, 10)
        walked = (await bench.drive.scan(ScanRequest(SPACE))).entries
        assert [(e.register.key, e.newest.stamp, e.mark, e.settled) for e in walked] == [
            ("a", 10, 10, True),
            ("b", 10, 10, True),
            ("c", 30, 0, False),
        ]
        assert [e.register.key for e in (await bench.drive.scan(ScanRequest(SPACE, tombstones=False))).entries] == ["c"]
        assert await bench.drive.spaces(b"", 10) == [SPACE]
        await bench.restart()
    assert await put(bench.drive, 10, settled.register) == CommitReply(CommitStatus.OK, 10)
    assert await put(bench.drive, 9, settled.register) == CommitReply(CommitStatus.STALE, 10)
    assert await status(bench.drive, 8, settled.register, CommitMode.HEAL) is CommitStatus.SUPERSEDED
    await put(bench.drive, 20, settled.register)
    reply = await bench.drive.query(settled.register, True)
    assert ([h.stamp for h in reply.records], reply.mark) == ([20, 10], 10)
    await bench.drive.note(settled.register, 20, True)
    await bench.restart()
    reply = await bench.drive.query(settled.register, True)
    assert ([h.stamp for h in reply.records], reply.mark) == ([20], 20)
    assert [e.register.key for e in (await bench.drive.scan(ScanRequest(SPACE, tombstones=False))).entries] == [
        "b",
        "c",
    ]


async def test_a_drive_that_drops_a_tombstone_below_its_watermark_raises_that(healing_bench):
    drive = healing_bench.drive
    assert await status(drive, 10, REGISTER, CommitMode.HEAL, watermark=1000, tombstone=True) is CommitStatus.OK
    await drive.note(REGISTER, 10, True)
    await drive.finish_healing(7)
    healing_bench.clock.advance(LONG)
    assert await weigh(drive, Tombstone(REGISTER, 10)) == [TombstoneState.SETTLED]
    await drive.drop_tombstones([Tombstone(REGISTER, 10)])
    await nobody_repairs_who_saw_it_at(healing_bench, 1000)


async def test_a_drive_that_says_a_tombstone_is_gone_raises_its_watermark(healing_bench):
    await healing_bench.drive.finish_healing(7)
    assert await weigh(healing_bench.drive, Tombstone(REGISTER, 10)) == [TombstoneState.GONE]
    await nobody_repairs_who_saw_it_at(healing_bench, 1000)


async def nobody_repairs_who_saw_it_at(bench, watermark: int) -> None:
    assert await status(bench.drive, 9, REGISTER, CommitMode.HEAL, watermark=watermark) is CommitStatus.REFUSED
    await bench.restart()
    assert await status(bench.drive, 9, REGISTER, CommitMode.HEAL, watermark=watermark) is CommitStatus.REFUSED
    risen = (await bench.drive.query(REGISTER, False)).watermark
    assert await status(bench.drive, 9, REGISTER, CommitMode.HEAL, watermark=risen) is CommitStatus.OK


async def test_dropping_many_at_once_drops_what_is_alone_and_leaves_the_rest(bench):
    buried = [await bury(bench.drive, f"{n:03}", 10 + n) for n in range(300)]
    await put(bench.drive, 1000, buried[0].register)
    bench.clock.advance(LONG)
    await bench.drive.drop_tombstones(buried)
    await bench.restart()
    assert await stamps(bench.drive, buried[0].register) == [1000, 10]
    for tombstone in buried[1:]:
        reply = await bench.drive.query(tombstone.register, False)
        assert reply.records == ()
        assert reply.watermark >= tombstone.stamp
        assert not reply.mark
    assert [e.register.key for e in (await bench.drive.scan(ScanRequest(SPACE))).entries] == ["000"]
    assert await weigh(bench.drive, *buried) == [TombstoneState.OTHER] + [TombstoneState.GONE] * 299
    assert await status(bench.drive, 11, buried[1].register) is CommitStatus.STALE


async def test_a_fence_above_a_tombstone_outlives_it(bench):
    buried = await bury(bench.drive, "a")
    await bench.drive.fence(buried.register, 50)
    bench.clock.advance(LONG)
    assert await weigh(bench.drive, buried) == [TombstoneState.SETTLED]
    await bench.drive.drop_tombstones([buried])
    await bench.restart()
    assert await put(bench.drive, 50, buried.register) == CommitReply(CommitStatus.STALE, 50)
    assert (await bench.drive.scan(ScanRequest(SPACE))).entries == ()


async def test_a_spaces_only_tombstones_are_still_a_space(bench):
    await bury(bench.drive, "a")
    other = Register(b"p" + BUCKET, "b")
    await put(bench.drive, 5, other)
    assert await bench.drive.spaces(b"", 10) == [SPACE, b"p" + BUCKET]
    assert await bench.drive.spaces(SPACE, 10) == [b"p" + BUCKET]


async def test_a_healing_drive_speaks_against_dropping_anything(healing_bench):
    tombstone = Tombstone(REGISTER, 10)
    reply = await healing_bench.drive.weigh_tombstones([tombstone], LONG)
    assert reply.healing
    assert reply.states == (TombstoneState.OTHER,)


# --- shards


async def test_a_sealed_shard_reads_back_with_its_hashes(bench):
    blocks = await stage(bench.drive)
    hashes = [xxhash.xxh3_128_digest(block) for block in blocks]
    assert await status(bench.drive, 10, data_ids=(DATA_ID,)) is CommitStatus.OK
    assert await bench.drive.read_blocks(DATA_ID, 0, 3) == (blocks, hashes)
    assert await bench.drive.read_blocks(DATA_ID, 1, 1) == (blocks[1:2], hashes[1:2])
    assert await bench.drive.read_blocks(DATA_ID, 3, 0) == ([], [])
    with pytest.raises(DriveError):
        await bench.drive.read_blocks(DATA_ID, 2, 2)
    await bench.restart()
    assert await bench.drive.read_blocks(DATA_ID, 0, 3) == (blocks, hashes)
    assert (await bench.drive.query(REGISTER, False)).records[0].data_ids == (DATA_ID,)


async def test_the_last_blocks_may_seal_it(bench):
    blocks = [b"a" * 1000, b"the last"]
    hashes = [xxhash.xxh3_128_digest(block) for block in blocks]
    await bench.drive.stage(DATA_ID, 0, blocks[:1], hashes[:1])
    await bench.drive.stage(DATA_ID, 1, blocks[1:], hashes[1:], last=True)
    assert await bench.drive.read_blocks(DATA_ID, 0, 2) == (blocks, hashes)


async def test_a_record_whose_shard_is_not_sealed_here_is_not_accepted(bench):
    assert await status(bench.drive, 10, data_ids=(DATA_ID,)) is CommitStatus.NO_DATA
    block = b"block"
    await bench.drive.stage(DATA_ID, 0, [block], [xxhash.xxh3_128_digest(block)])
    assert await status(bench.drive, 10, data_ids=(DATA_ID,)) is CommitStatus.NO_DATA
    assert await stamps(bench.drive) == []
    await bench.drive.seal(DATA_ID)
    assert await status(bench.drive, 10, data_ids=(DATA_ID,)) is CommitStatus.OK


@pytest.mark.parametrize("times", [1, 20_000])
async def test_blocks_that_arrive_damaged_or_out_of_order_are_refused(bench, times):
    block = b"block" * times
    digest = xxhash.xxh3_128_digest(block)
    with pytest.raises(ShardCorrupt):
        await bench.drive.stage(DATA_ID, 0, [block, b"block" * (times - 1) + b"bl0ck"], [digest, digest])
    with pytest.raises(DriveError):
        await bench.drive.stage(DATA_ID, 1, [block], [digest])
    await bench.drive.stage(DATA_ID, 0, [block], [digest])
    with pytest.raises(DriveError):
        await bench.drive.stage(DATA_ID, 2, [block], [digest])
    with pytest.raises(DriveError):
        await bench.drive.stage(DATA_ID, 1, [block * 2], [xxhash.xxh3_128_digest(block * 2)])
    await bench.drive.seal(DATA_ID)
    assert await bench.drive.read_blocks(DATA_ID, 0, 1) == ([block], [digest])


async def test_staging_and_sealing_again_is_harmless(bench):
    blocks = await stage(bench.drive)
    assert await stage(bench.drive) == blocks
    await put(bench.drive, 10, data_ids=(DATA_ID,))
    await bench.drive.seal(DATA_ID)
    assert (await bench.drive.read_blocks(DATA_ID, 0, 3))[0] == blocks


async def test_staging_anew_from_the_first_block_replaces_what_was_staged(bench):
    await stage(bench.drive)
    other = b"something else"
    await bench.drive.stage(DATA_ID, 0, [other], [xxhash.xxh3_128_digest(other)])
    await bench.drive.seal(DATA_ID)
    assert (await bench.drive.read_blocks(DATA_ID, 0, 1))[0] == [other]


async def test_an_unsealed_or_unknown_shard_cannot_be_read(bench):
    with pytest.raises(ShardMissing):
        await bench.drive.read_blocks(DATA_ID, 0, 1)
    with pytest.raises(ShardMissing):
        await bench.drive.seal(DATA_ID)
    await bench.drive.stage(DATA_ID, 0, [b"x"], [xxhash.xxh3_128_digest(b"x")])
    with pytest.raises(ShardMissing):
        await bench.drive.read_blocks(DATA_ID, 0, 1)


async def test_a_discarded_shard_is_gone_but_a_named_one_stays(bench):
    await stage(bench.drive)
    await bench.drive.discard(DATA_ID)
    await bench.drive.discard(DATA_ID)
    assert not bench.has_shard(DATA_ID)
    assert await status(bench.drive, 10, data_ids=(DATA_ID,)) is CommitStatus.NO_DATA
    blocks = await stage(bench.drive)
    await put(bench.drive, 10, data_ids=(DATA_ID,))
    await bench.drive.discard(DATA_ID)
    assert (await bench.drive.read_blocks(DATA_ID, 0, 3))[0] == blocks


async def test_a_restart_removes_staged_shards_that_no_record_names(bench):
    await stage(bench.drive)
    await stage(bench.drive, b"another shard id")
    await put(bench.drive, 10, data_ids=(DATA_ID,))
    await bench.restart()
    assert (bench.has_shard(DATA_ID), bench.has_shard(b"another shard id")) == (True, False)


async def test_a_shard_that_is_staged_anew_is_read_as_it_was_until_it_is_named_again(bench):
    """So that a rotten one still gives the blocks that are whole, while it is being replaced."""
    drive = bench.drive
    blocks = await stage(drive)
    await put(drive, 10, data_ids=(DATA_ID,))
    anew = [b"anew" * 250, b"the end"]
    hashes = [xxhash.xxh3_128_digest(block) for block in anew]
    await drive.stage(DATA_ID, 0, anew[:1], hashes[:1])
    assert (await drive.read_blocks(DATA_ID, 0, 3))[0] == blocks
    await bench.restart()
    drive = bench.drive
    assert (await drive.read_blocks(DATA_ID, 0, 3))[0] == blocks, "half of another does not take its place"
    await drive.stage(DATA_ID, 0, anew[:1], hashes[:1])
    await drive.stage(DATA_ID, 1, anew[1:], hashes[1:])
    await drive.seal(DATA_ID)
    assert (await drive.read_blocks(DATA_ID, 0, 3))[0] == blocks
    assert await status(drive, 10, mode=CommitMode.HEAL, data_ids=(DATA_ID,)) is CommitStatus.OK
    assert (await drive.read_blocks(DATA_ID, 0, 2))[0] == anew


# --- reclaim


async def overwrite(bench) -> None:
    await stage(bench.drive)
    await put(bench.drive, 10, data_ids=(DATA_ID,))
    await put(bench.drive, 20)
    await bench.drive.note(REGISTER, 20, True)


async def test_a_superseded_shard_is_reclaimed_only_after_the_delay(bench):
    await overwrite(bench)
    bench.clock.advance(29)
    await bench.reap()
    assert len((await bench.drive.read_blocks(DATA_ID, 0, 3))[0]) == 3
    bench.clock.advance(31)
    await bench.reap()
    bench.clock.advance(61)
    await bench.reap()
    assert not bench.has_shard(DATA_ID)
    with pytest.raises(ShardMissing):
        await bench.drive.read_blocks(DATA_ID, 0, 1)


async def test_a_read_puts_reclaim_off(bench):
    await overwrite(bench)
    for _ in range(3):
        bench.clock.advance(25)
        await bench.drive.read_blocks(DATA_ID, 0, 1)
        await bench.reap()
        assert bench.has_shard(DATA_ID)


async def test_to_ask_for_no_block_puts_reclaim_off_too(bench):
    await overwrite(bench)
    for _ in range(3):
        bench.clock.advance(25)
        assert await bench.drive.read_blocks(DATA_ID, 0, 0) == ([], [])
        await bench.reap()
        assert bench.has_shard(DATA_ID)


async def test_all_that_a_record_named_stays_while_one_shard_of_it_is_read(bench):
    """Whoever reads an object of many parts comes to the last of them when it does."""
    parts = [bytes([number]) * 16 for number in range(4)]
    for data_id in parts:
        await stage(bench.drive, data_id)
    await put(bench.drive, 10, data_ids=tuple(parts))
    await bench.drive.read_blocks(parts[0], 0, 1)
    bench.clock.advance(1)
    await put(bench.drive, 20)
    await bench.drive.note(REGISTER, 20, True)
    for data_id in (parts[0], parts[0], parts[1], parts[2], parts[2]):
        bench.clock.advance(25)
        await bench.drive.read_blocks(data_id, 0, 1)
        await bench.reap()
        assert all(map(bench.has_shard, parts))
    for _ in range(3):
        bench.clock.advance(61)
        await bench.reap()
    assert not any(map(bench.has_shard, parts))


async def test_the_trash_survives_a_restart_and_waits_anew(bench):
    await overwrite(bench)
    bench.clock.advance(29)
    await bench.restart()
    bench.clock.advance(29)
    await bench.reap()
    assert bench.has_shard(DATA_ID)
    bench.clock.advance(2)
    await bench.reap()
    assert not bench.has_shard(DATA_ID)


async def test_a_shard_that_another_record_took_over_stays(bench):
    part = Register(b"p" + BUCKET, "photos/cat.jpg", b"upload id 16 byt\0\1")
    blocks = await stage(bench.drive)
    await put(bench.drive, 10, part, data_ids=(DATA_ID,))
    assert await status(bench.drive, 20, data_ids=(DATA_ID,)) is CommitStatus.OK
    await bench.drive.remove(part, 10)
    bench.clock.advance(1000)
    await bench.reap()
    assert (await bench.drive.read_blocks(DATA_ID, 0, 3))[0] == blocks
    await put(bench.drive, 30)
    await bench.drive.note(REGISTER, 30, True)
    bench.clock.advance(1000)
    await bench.reap()
    assert not bench.has_shard(DATA_ID)


OTHER_DATA_ID = bytes(range(16, 32))


@pytest.mark.parametrize(("space", "data_ids"), [
    (b"p", (DATA_ID,)), (b"v", (DATA_ID,)), (b"v", (DATA_ID, OTHER_DATA_ID)),
], ids=["the part it was", "a version that rests", "one of parts that rests"])  # fmt: skip
async def test_the_delay_begins_with_the_last_record_that_named_it(bench, space, data_ids):
    """A reader that found that one has as long as any other."""
    other = Register(space + BUCKET, "photos/cat.jpg", b"upload id 16 byt\0\1")
    for data_id in data_ids:
        await stage(bench.drive, data_id)
    await put(bench.drive, 10, other, data_ids=data_ids)
    assert await status(bench.drive, 20, data_ids=data_ids) is CommitStatus.OK
    await bench.drive.remove(other, 10)
    bench.clock.advance(20)
    await put(bench.drive, 30)
    await bench.drive.note(REGISTER, 30, True)
    bench.clock.advance(15)
    await bench.reap()
    assert all(map(bench.has_shard, data_ids))
    bench.clock.advance(16)
    await bench.reap()
    assert not any(map(bench.has_shard, data_ids))


async def test_of_what_two_records_named_only_what_neither_does_goes(bench):
    data_ids = (DATA_ID, OTHER_DATA_ID)
    for data_id in data_ids:
        await stage(bench.drive, data_id)
    rests = Register(b"v" + BUCKET, "photos/cat.jpg", b"place")
    assert await status(bench.drive, 10, data_ids=data_ids) is CommitStatus.OK
    assert await status(bench.drive, 11, rests, data_ids=(DATA_ID,)) is CommitStatus.OK
    await put(bench.drive, 20)
    await bench.drive.note(REGISTER, 20, True)
    bench.clock.advance(31)
    await bench.reap()
    assert [bench.has_shard(data_id) for data_id in data_ids] == [True, False]
    await bench.drive.remove(rests, 11)
    bench.clock.advance(31)
    await bench.reap()
    assert not any(map(bench.has_shard, data_ids))


async def test_a_record_cannot_name_a_shard_that_was_reclaimed(bench):
    await overwrite(bench)
    bench.clock.advance(31)
    await bench.reap()
    assert await status(bench.drive, 30, data_ids=(DATA_ID,)) is CommitStatus.NO_DATA


async def test_noting_an_uploads_tombstone_drops_its_parts_and_no_others(bench):
    def part(upload: bytes, number: int, key: str = "big") -> Register:
        return Register(b"p" + BUCKET, key, upload + number.to_bytes(2, "big"))

    mine, yours = b"m" * 15 + b"\0", b"m" * 15 + b"\1"
    await stage(bench.drive)
    await put(bench.drive, 10, part(mine, 1), data_ids=(DATA_ID,))
    for register in (part(mine, 256), part(mine, 10000), part(yours, 1), part(mine, 1, "big/ger")):
        await put(bench.drive, 10, register)
        await bench.drive.note(register, 10, True)
    upload = Register(b"u" + BUCKET, "big", mine)
    await put(bench.drive, 10, upload)
    await bench.drive.note(upload, 10, True)
    await put(bench.drive, 20, upload, tombstone=True)
    await bench.reap()
    assert await stamps(bench.drive, part(mine, 1)) == [10]
    await bench.drive.note(upload, 20, True)
    await bench.restart()
    await bench.reap()
    assert [await stamps(bench.drive, part(mine, number)) for number in (1, 256, 10000)] == [[], [], []]
    assert await stamps(bench.drive, part(yours, 1)) == [10]
    assert await stamps(bench.drive, part(mine, 1, "big/ger")) == [10]
    bench.clock.advance(31)
    await bench.reap()
    assert not bench.has_shard(DATA_ID)


# --- scan


async def fill(drive: Drive, keys: list[str], first_stamp: int = 10) -> None:
    for stamp, key in enumerate(keys, first_stamp):
        await put(drive, stamp, Register(SPACE, key), inline=b"shard")
        await drive.note(Register(SPACE, key), stamp, True)


async def walk(drive: Drive, **facts: object) -> list[str]:
    """All pages, which a listing must show alike; a group by its prefix, a plain key by its name."""
    scanned = await scan_all(drive, **facts)
    assert await list_all(drive, **facts) == scanned
    return scanned


async def list_all(drive: Drive, **facts: object) -> list[str]:
    found: list[str] = []
    request = ListRequest(SPACE, **{"tombstones": True, **facts})  # type: ignore[arg-type]
    while True:
        page = await drive.list_registers(request)
        assert page == sound(page, request)
        for at, name in enumerate(page.names):
            group = page.signs[at] & Sign.GROUP
            found.append(names.unescape(name).decode() if group else names.parse(name)[0])
            if group:
                assert page.firsts[at].startswith(name)
        if page.following is None:
            return found
        request = msgspec.structs.replace(request, start=page.following)


def sound(page: ListPage, request: ListRequest) -> ListPage:
    """The page, if its columns go together."""
    count = len(page.names)
    assert count <= request.limit
    assert page.names == sorted(page.names)
    assert (len(page.stamps), len(page.signs), len(page.records)) == (count, count, count if request.records else 0)
    assert len(page.firsts) == (count if request.delimiter else 0)
    assert page.following is None or not page.names or page.following > page.names[-1]
    return page


async def scan_all(drive: Drive, **facts: object) -> list[str]:
    found: list[str] = []
    start, version = b"", b""
    while True:
        request = ScanRequest(SPACE, **{"start": start, "start_version": version, **facts})  # type: ignore[arg-type]
        page = await drive.scan(request)
        assert len(page.entries) <= request.limit
        found += [entry.group.decode() or entry.register.key for entry in page.entries]
        if page.next_start is None:
            return found
        start, version = page.next_start, page.next_version


KEYS = ["", "\0", "\0\0", "\0\x01", "a", "a\0", "a\0b", "a\x01", "aa", "b/1", "b/2", "b0", "ü", "\uffff", "\U0001f431"]


async def test_keys_come_in_the_order_of_their_bytes_whatever_the_page_size(bench):
    await fill(bench.drive, KEYS[::-1])
    await put(bench.drive, 1, Register(b"o" + bytes(16), "elsewhere"))
    await put(bench.drive, 1, Register(b"o" + b"\xff" * 16, "elsewhere"))
    expected = sorted(KEYS, key=str.encode)
    for limit in (1, 2, 7, 1000):
        assert await walk(bench.drive, limit=limit) == expected


@pytest.mark.parametrize("key", KEYS)
async def test_a_walk_starts_at_or_after_a_key(bench, key):
    await fill(bench.drive, KEYS)
    ordered = sorted(KEYS, key=str.encode)
    at = ordered.index(key)
    page = await bench.drive.scan(ScanRequest(SPACE, start=key.encode()))
    assert [entry.register.key for entry in page.entries] == ordered[at:]
    page = await bench.drive.scan(ScanRequest(SPACE, start=key.encode() + b"\0"))
    after = [other for other in ordered if other.encode() >= key.encode() + b"\0"]
    assert [entry.register.key for entry in page.entries] == after


async def test_a_prefix_limits_the_walk(bench):
    await fill(bench.drive, KEYS)
    assert await walk(bench.drive, prefix=b"a") == ["a", "a\0", "a\0b", "a\x01", "aa"]
    assert await walk(bench.drive, prefix=b"b/") == ["b/1", "b/2"]
    assert await walk(bench.drive, prefix="ü".encode()[:1]) == ["ü"]
    assert await walk(bench.drive, prefix=b"zzz") == []


async def test_a_delimiter_makes_groups(bench):
    await fill(bench.drive, ["a", "a/1", "a/2", "a/b/3", "a0", "b/x", "c", "d//1"])
    for limit in (1, 2, 1000):
        assert await walk(bench.drive, delimiter=b"/", limit=limit) == ["a", "a/", "a0", "b/", "c", "d/"]
    assert await walk(bench.drive, delimiter=b"/", prefix=b"a/") == ["a/1", "a/2", "a/b/"]
    assert await walk(bench.drive, delimiter=b"/", prefix=b"d/") == ["d//"]
    assert await walk(bench.drive, delimiter=b"//") == ["a", "a/1", "a/2", "a/b/3", "a0", "b/x", "c", "d//"]


async def test_a_walk_that_starts_within_a_group_finds_what_is_left_of_it(bench):
    await fill(bench.drive, ["a/1", "a/2", "b"])
    page = await bench.drive.scan(ScanRequest(SPACE, start=b"a/1\0", delimiter=b"/"))
    assert [(entry.group, entry.register.key) for entry in page.entries] == [(b"a/", "a/2"), (b"", "b")]
    page = await bench.drive.scan(ScanRequest(SPACE, start=b"a/2\0", delimiter=b"/"))
    assert [entry.register.key for entry in page.entries] == ["b"]


async def test_groups_of_the_dead_are_passed_over(bench):
    await fill(bench.drive, ["a/1", "a/2", "b/1"])
    for key in ("a/1", "b/1"):
        await put(bench.drive, 50, Register(SPACE, key), tombstone=True)
        await bench.drive.note(Register(SPACE, key), 50, True)
    page = await bench.drive.scan(ScanRequest(SPACE, delimiter=b"/"))
    assert [(entry.group, entry.register.key) for entry in page.entries] == [(b"a/", "a/2")]


async def test_a_group_with_an_undecided_delete_is_shown(bench):
    await fill(bench.drive, ["a/1"])
    await put(bench.drive, 50, Register(SPACE, "a/1"), tombstone=True)
    page = await bench.drive.scan(ScanRequest(SPACE, delimiter=b"/", tombstones=False))
    assert [(entry.group, entry.newest.tombstone, entry.settled) for entry in page.entries] == [(b"a/", True, False)]


async def test_marked_tombstones_are_given_only_when_asked_for(bench):
    await fill(bench.drive, ["a", "b", "c"])
    for key in ("a", "b"):
        await put(bench.drive, 50, Register(SPACE, key), tombstone=True)
    await bench.drive.note(Register(SPACE, "a"), 50, True)
    assert await walk(bench.drive) == ["a", "b", "c"]
    assert await walk(bench.drive, tombstones=False) == ["b", "c"]


async def test_what_is_hidden_is_passed_over_unless_asked_for(bench):
    await fill(bench.drive, ["a/1", "a/2", "b/1", "c", "d"])
    for key in ("a/1", "b/1", "c", "d"):
        hidden = Held(50, False, b"marker", HIDDEN_INDEX, None)
        await bench.drive.commit(CommitRequest(Register(SPACE, key), hidden, CommitMode.PLAIN))
        if key != "d":
            await bench.drive.note(Register(SPACE, key), 50, True)
    assert await walk(bench.drive, tombstones=False) == ["a/2", "d"]  # of d it is not known yet
    assert await walk(bench.drive, tombstones=False, delimiter=b"/") == ["a/", "d"]
    assert await walk(bench.drive, tombstones=False, hidden=True) == ["a/1", "a/2", "b/1", "c", "d"]
    assert await walk(bench.drive, tombstones=False, hidden=True, delimiter=b"/") == ["a/", "b/", "c", "d"]
    assert await walk(bench.drive) == ["a/1", "a/2", "b/1", "c", "d"]
    page = await bench.drive.tombstones(TombstoneRequest(Register(SPACE, ""), Register(SPACE, "z"), 0.0))
    assert page.tombstones == (), "it is a record like others, and nobody drops it"


async def test_an_entry_tells_whether_anything_is_in_doubt(bench):
    await fill(bench.drive, ["settled", "overwritten"])
    await put(bench.drive, 50, Register(SPACE, "overwritten"))
    await put(bench.drive, 60, Register(SPACE, "new"))
    await bench.drive.fence(Register(SPACE, "fenced"), 5)
    page = await bench.drive.scan(ScanRequest(SPACE))
    found = {entry.register.key: (entry.newest.stamp, entry.mark, entry.settled) for entry in page.entries}
    assert found == {"settled": (10, 10, True), "overwritten": (50, 11, False), "new": (60, 0, False)}
    assert all(entry.newest.inline is None for entry in page.entries)


async def test_a_listing_tells_what_it_decides_by(bench):
    await fill(bench.drive, ["g/1", "g/2", "plain"])
    await put(bench.drive, 50, Register(SPACE, "doubtful"))
    await put(bench.drive, 60, Register(SPACE, "deleted"), tombstone=True)
    await put(bench.drive, 70, Register(SPACE, "going/x"))
    await put(bench.drive, 80, Register(SPACE, "going/x"), tombstone=True)
    await bench.drive.fence(Register(SPACE, "fenced"), 5)
    page = await bench.drive.list_registers(ListRequest(SPACE, delimiter=b"/"))
    held = (await bench.drive.query(Register(SPACE, "plain"), False)).records[0]
    shown = list(zip(page.names, page.stamps, page.signs, page.firsts, page.records, strict=True))
    plain = names.name_of(Register(SPACE, "plain"))
    assert [(names.unescape(name).rstrip(b"\0"), *facts) for name, *facts, _, _ in shown] == [
        (b"deleted", 60, Sign.ABSENT),
        (b"doubtful", 50, 0),
        (b"g/", 10, Sign.MARKED | Sign.GROUP),
        (b"going/", 80, Sign.ABSENT | Sign.GROUP),
        (b"plain", 12, Sign.MARKED),
    ]
    assert page.firsts == [b"", b"", *[names.name_of(Register(SPACE, key)) for key in ("g/1", "going/x")], b""]
    assert shown[-1] == (plain, 12, Sign.MARKED, b"", held.record)
    assert (page.records[2], page.following, page.healing) == (b"", None, False)
    bare = await bench.drive.list_registers(ListRequest(SPACE, delimiter=b"/", records=False))
    assert bare == msgspec.structs.replace(page, records=[])


@pytest.mark.parametrize("older", [False, True])
async def test_a_listing_by_versions_and_by_what_a_pod_of_an_earlier_release_scans(bench, older):
    async def pages(request: ListRequest) -> list[ListPage]:
        found = []
        while True:
            if older:
                scanned = await bench.drive.scan(older_listings.scan_request(request))
                page = older_listings.columns(scanned, request)
            else:
                page = await bench.drive.list_registers(request)
            found.append(sound(page, request))
            if page.following is None:
                return found
            request = msgspec.structs.replace(request, start=page.following)

    registers = [
        Register(SPACE, key, version)
        for key in ("", "a", "a\0", "b/c")
        for version in (bytes(2), b"\0/\xff", b"/", b"\1\0", b"\xff\xff")
    ]
    for stamp, register in enumerate(registers, 10):
        await put(bench.drive, stamp, register)
    by_name = sorted(map(names.name_of, registers))
    for limit in (1, 3, 100):
        for after in (b"", names.after(by_name[3]), names.after(by_name[11])):
            wanted = [name for name in by_name if name >= after]
            request = ListRequest(SPACE, start=after, limit=limit)
            assert [name for page in await pages(request) for name in page.names] == wanted
            grouped = await pages(msgspec.structs.replace(request, delimiter=b"/"))
            assert [name for page in grouped for name in page.names] == [n for n in wanted if n < b"b"] + [b"b/"]


async def test_versions_of_one_key_are_paged_without_loss(bench):
    versions = [bytes(2), b"\0\1", b"\0\xff", b"\1", b"\1\0", b"\xff\xff"]
    for version in versions:
        await put(bench.drive, 10, Register(SPACE, "key", version))
    await put(bench.drive, 10, Register(SPACE, "key\0"))
    found = []
    start, version = b"", b""
    while True:
        page = await bench.drive.scan(ScanRequest(SPACE, start=start, start_version=version, limit=2))
        found += [(entry.register.key, entry.register.version) for entry in page.entries]
        if page.next_start is None:
            break
        start, version = page.next_start, page.next_version
    assert found == [*(("key", version) for version in versions), ("key\0", b"")]
    page = await bench.drive.scan(ScanRequest(SPACE, start=b"key", start_version=b"\0\2"))
    assert [entry.register.version for entry in page.entries] == [*versions[2:], b""]


async def test_many_registers_are_queried_at_once_in_their_order(bench):
    registers = [Register(SPACE, key) for key in ("b", "absent", "a")]
    for stamp, register in enumerate(registers, 10):
        if register.key != "absent":
            await put(bench.drive, stamp, register)
    many = await bench.drive.query_many(registers, True)
    assert many == [await bench.drive.query(register, True) for register in registers]
    assert [len(reply.records) for reply in many] == [1, 0, 1]
    assert await bench.drive.query_many([], True) == []


async def test_notes_that_come_together_are_each_taken(bench):
    registers = [Register(SPACE, key) for key in ("a", "b")]
    for register in registers:
        await put(bench.drive, 10, register)
        await put(bench.drive, 20, register)
    await bench.drive.note_many([(registers[0], 20, True), (registers[1], 10, False), (Register(SPACE, "c"), 5, True)])
    assert [len((await bench.drive.query(register, False)).records) for register in registers] == [1, 2]
    assert [(await bench.drive.query(register, False)).mark for register in registers] == [20, 10]
    assert await bench.drive.repairs(10) == [registers[1]]


async def test_commits_that_come_together_are_each_judged_in_order(bench):
    """Two of the same register among them: the second sees what the first did."""
    other = Register(SPACE, "other")
    await put(bench.drive, 30, other)
    requests = [
        CommitRequest(REGISTER, Held(10, False, b"first", 0, None), CommitMode.PLAIN),
        CommitRequest(REGISTER, Held(5, False, b"late", 0, None), CommitMode.PLAIN),
        CommitRequest(other, Held(20, False, b"late", 0, None), CommitMode.PLAIN),
        CommitRequest(REGISTER, Held(20, False, b"second", 0, None), CommitMode.PLAIN),
        CommitRequest(REGISTER, Held(25, False, b"no shards", 0, None, (b"i" * 16,)), CommitMode.PLAIN),
    ]
    replies = await bench.drive.commit_many(requests)
    statuses = [CommitStatus.OK, CommitStatus.STALE, CommitStatus.STALE, CommitStatus.OK, CommitStatus.NO_DATA]
    assert [(reply.status, reply.highest) for reply in replies] == list(
        zip(statuses, (10, 10, 30, 20, 20), strict=True)
    )
    await bench.restart()
    assert await stamps(bench.drive) == [20, 10]


async def test_a_commit_may_bring_its_shard_along(bench):
    blocks = [b"a" * 1000, b"the last"]
    hashes = [xxhash.xxh3_128_digest(block) for block in blocks]
    held = Held(10, False, b"record", 0, None, (DATA_ID,))
    request = CommitRequest(REGISTER, held, CommitMode.PLAIN)
    with pytest.raises(ShardCorrupt):
        await bench.drive.commit_with_shard(request, [b"b" * 1000, b"the last"], hashes)
    assert await stamps(bench.drive) == []
    reply = await bench.drive.commit_with_shard(request, blocks, hashes)
    assert (reply.status, reply.highest) == (CommitStatus.OK, 10)
    await bench.restart()
    assert await stamps(bench.drive) == [10]
    assert await bench.drive.read_blocks(DATA_ID, 0, 2) == (blocks, hashes)


async def test_a_shard_whose_commit_is_refused_stays_until_it_is_discarded(bench):
    """Its coordinator may offer the record once more with another stamp."""
    await put(bench.drive, 10)
    block = b"block"
    digests = [xxhash.xxh3_128_digest(block)]
    for data_id in (DATA_ID, b"i" * 16):
        held = Held(5, False, b"late", 0, None, (data_id,))
        reply = await bench.drive.commit_with_shard(CommitRequest(REGISTER, held, CommitMode.PLAIN), [block], digests)
        assert (reply.status, reply.highest) == (CommitStatus.STALE, 10)
    await bench.drive.discard(b"i" * 16)
    assert await status(bench.drive, 20, data_ids=(b"i" * 16,)) is CommitStatus.NO_DATA
    assert await status(bench.drive, 20, data_ids=(DATA_ID,)) is CommitStatus.OK
    assert await bench.drive.read_blocks(DATA_ID, 0, 1) == ([block], digests)


# --- the repair queue


async def test_what_a_drive_missed_is_remembered_oldest_first(bench):
    registers = [Register(SPACE, key) for key in ("c", "a", "b")]
    for register in registers:
        await put(bench.drive, 10, register)
        await bench.drive.note(register, 10, False)
    await bench.drive.note(registers[0], 10, False)
    assert await bench.drive.repairs(10) == registers
    assert await bench.drive.repairs(2) == registers[:2]
    await bench.drive.repaired([(registers[1], 10)])
    await bench.restart()
    assert await bench.drive.repairs(10) == [registers[0], registers[2]]
    await bench.drive.repaired([(registers[0], 10)])
    await bench.drive.repaired([(registers[0], 10)])
    assert await bench.drive.repairs(10) == [registers[2]]


async def test_a_newer_version_that_others_missed_is_not_forgotten_with_an_older_one(bench):
    """This drive handed out nothing: another worked its own entry off."""
    await put(bench.drive, 10)
    await bench.drive.note(REGISTER, 10, False)
    await put(bench.drive, 20)
    await bench.drive.note(REGISTER, 20, False)
    await bench.drive.repaired([(REGISTER, 10)])
    assert await bench.drive.repairs(10) == [REGISTER]
    await bench.drive.repaired([(REGISTER, 20)])
    assert await bench.drive.repairs(10) == []


async def test_a_miss_noted_while_its_register_is_repaired_is_not_forgotten(bench):
    await bench.drive.note(REGISTER, 10, False)
    assert await bench.drive.repairs(10) == [REGISTER]
    await bench.drive.note(REGISTER, 20, False)
    await bench.drive.repaired([(REGISTER, 20)])
    assert await bench.drive.repairs(10) == [REGISTER]
    await bench.drive.repaired([(REGISTER, 20)])
    assert await bench.drive.repairs(10) == []


# --- failures


async def test_nothing_of_what_a_drive_refused_stays_in_memory(bench):
    block = bytes(5000)
    refused = [
        lambda: bench.drive.stage(DATA_ID, 0, [block], [xxhash.xxh3_128_digest(b"another")]),
        lambda: bench.drive.read_blocks(DATA_ID, 0, 1),
        lambda: bench.drive.seal(DATA_ID),
    ]
    await refused_without_a_trace(refused, DriveError)
