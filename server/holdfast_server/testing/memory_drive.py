"""A drive in memory: the port's meaning without a disk, for tests of what stands above it.

It decides by the same `rules` and walks by the same `scanning` as the local drive, and passes the same port
suite (`tests/ports`); that is what makes it trustworthy.  `restart` forgets what a real drive forgets when its
process ends (leases, staged shards that no record names).  `lose_power` also takes back the latest *lazy* changes:
those of verbs that answer before they are synced (`note`, `repaired`), newest first, back to the last verb whose
answer promised durability (`commit`, `fence`, `remove`, `drop`), exactly as a log that is cut off at its end.
Faults are switches: `offline`, `faulty`, `full`, and `rot` for one block.

Not here: slowness, lost messages; a simulation wraps those around it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import xxhash

from holdfast_server.clock.port import Clock
from holdfast_server.drives import keys, rules
from holdfast_server.drives.leases import Leases
from holdfast_server.drives.port import (
    WATERMARK_RANGES,
    Block,
    CommitMode,
    CommitReply,
    CommitRequest,
    CommitStatus,
    Drive,
    DriveError,
    DriveFaulty,
    DriveFull,
    DriveOffline,
    DriveState,
    DriveStatus,
    FenceReply,
    Held,
    ListPage,
    ListRequest,
    Note,
    PrepareReply,
    PrepareStatus,
    QueryReply,
    Register,
    ScanPage,
    ScanRequest,
    ShardCorrupt,
    ShardMissing,
    Tombstone,
    TombstonePage,
    TombstoneReply,
    TombstoneRequest,
    TombstoneState,
)
from holdfast_server.drives.rules import RegisterState
from holdfast_server.drives.scanning import Registers, Walk, list_page, scan_page

State = RegisterState[Held]

MAX_UNSYNCED = 1000
"""Lazy changes that a loss of power can take back; a real log is synced by time or size long before."""


@dataclass
class _Unsynced:
    """What one lazy verb changed, as it was before: registers, and one entry of the repair queue."""

    states: list[tuple[bytes, State | None]] = field(default_factory=list)
    repairs: list[tuple[bytes, int | None]] = field(default_factory=list)


@dataclass
class _Shard:
    blocks: list[bytes] = field(default_factory=list)
    hashes: list[bytes] = field(default_factory=list)
    sealed: bool = False
    touched_seconds: float = 0.0


class MemoryDrive:
    """`drives.port.Drive`.  Deterministic: no thread, no time but the clock's."""

    local = True

    def __init__(
        self,
        clock: Clock,
        *,
        pool: str = "main",
        set_index: int = 0,
        position: int = 0,
        drive_id: bytes = b"memory drive id.",
        incarnation: int = 1,
        healing: bool = False,
        watermark: int = 0,
        reclaim_delay_seconds: float = 30.0,
    ) -> None:
        self.pool = pool
        self.set_index = set_index
        self.position = position
        self.offline = False
        self.faulty = ""
        self.full = False
        """Its reserve is reached."""
        self.reserve_used = False
        """Of that, too, what is open to deletes and documents."""
        self.full_is_news = False
        """It does not say yet that it is full."""
        self.total_bytes = 1 << 40
        self._clock = clock
        self._drive_id = drive_id
        self._incarnation = incarnation
        self._blank = False
        self._healing = healing
        self._reclaim_delay_seconds = reclaim_delay_seconds
        self._states: dict[bytes, State] = {}
        self._order: list[bytes] = []
        """The row keys of `_states`, sorted."""
        self._watermarks = [watermark] * WATERMARK_RANGES
        self._leases: Leases[bytes] = Leases(clock)
        self._shards: dict[bytes, _Shard] = {}
        self._anew: dict[bytes, _Shard] = {}
        """Staged under the name of one that a record names: read, and there after a restart, is the old one until the
        new one is named, too."""
        self._trash: dict[bytes, float] = {}
        """Data id → when no record named it any more, or when it was last read since."""
        self._together: dict[bytes, tuple[bytes, ...]] = {}
        """Data id in the trash → what the record named that named it."""
        self._settled_since: dict[bytes, float] = {}
        """Row key → since when there is nothing but a marked tombstone."""
        self._repairs: dict[bytes, int] = {}
        self._handed_out: dict[bytes, int] = {}
        self._noted = 0
        self._kept: dict[bytes, bytes] = {}
        self._damaged: dict[bytes, int] = {}
        """Row key → the greatest stamp that may have been there."""
        self._unsynced: list[_Unsynced] = []
        """Lazy changes since the last durable one, oldest first."""

    # --- switches

    def restart(self) -> None:
        """The process ended and came back."""
        self._leases = Leases(self._clock)
        named = self.named_shards()
        self._shards = {
            data_id: shard for data_id, shard in self._shards.items() if data_id in named | set(self._trash)
        }
        self._anew.clear()
        self._trash = dict.fromkeys(self._trash, self._clock.monotonic_seconds())
        self._together.clear()
        self._settled_since = dict.fromkeys(self._settled_since, self._clock.monotonic_seconds())
        self._handed_out.clear()

    def damage(self, register: Register) -> None:
        """The rows of a register rot, and that is noticed."""
        row = keys.row_key(register)
        held = (record.stamp for state in self._states.values() for record in state.records)
        self._damaged[row] = max(held, default=0)
        self._put(row, State())
        self._noted += 1
        self._repairs[row] = self._noted

    def copy_of(self, row: bytes) -> State | None:
        """A register as it is now, unaffected by what comes."""
        state = self._states.get(row)
        return None if state is None else replace(state, records=list(state.records))

    @property
    def unsynced_count(self) -> int:
        """How many lazy changes a loss of power can take back now."""
        return len(self._unsynced)

    def lose_power(self, unsynced_kept: int = 0) -> None:
        """The machine went down and came back: of the unsynced changes only the oldest so many survive."""
        while len(self._unsynced) > unsynced_kept:
            lost = self._unsynced.pop()
            for row, state in reversed(lost.states):
                self._put(row, state or State())
            for row, number in reversed(lost.repairs):
                self._repairs.pop(row, None)
                if number is not None:
                    self._repairs[row] = number
        named = self.named_shards()
        self._trash = {data_id: since for data_id, since in self._trash.items() if data_id not in named}
        self.restart()

    def lose_everything(self) -> None:
        """The drive is gone; a blank one is in its place, which serves nothing before `adopt`."""
        self.__init__(  # type: ignore[misc]
            self._clock, pool=self.pool, set_index=self.set_index, position=self.position, incarnation=0
        )
        self._blank = True

    def adopt(self, drive_id: bytes, incarnation: int, watermark: int) -> None:
        """Make a blank drive a replacement (rule 11): HEALING, nothing at or below `watermark` accepted unseen."""
        self._blank, self._healing = False, True
        self._drive_id, self._incarnation = drive_id, incarnation
        self._watermarks = [watermark] * WATERMARK_RANGES

    def rot(self, data_id: bytes, index: int = 0) -> None:
        """Flip a bit of a block at rest."""
        block = self._shards[data_id].blocks[index]
        self._shards[data_id].blocks[index] = bytes((block[0] ^ 1,)) + block[1:]

    def reap(self) -> int:
        """Remove the shards whose delay is over; how many."""
        due = self._clock.monotonic_seconds() - self._reclaim_delay_seconds
        named = self.named_shards()
        ripe = [data_id for data_id, since in self._trash.items() if since <= due or data_id in named]
        for data_id in ripe:
            del self._trash[data_id]
            self._together.pop(data_id, None)
            if data_id not in named:
                self._shards.pop(data_id, None)
        return len(ripe)

    def shard_ids(self) -> set[bytes]:
        """Every shard that takes up room, staged ones included."""
        return set(self._shards)

    # --- for those who look from above

    def rows(self) -> list[bytes]:
        """The keys of all registers it knows anything of, in order."""
        return list(self._order)

    def state_of(self, row: bytes) -> State:
        """What it knows of one register; for looking only."""
        return self._states.get(row) or State()

    def has_healthy(self, data_id: bytes, block: int | None = None) -> bool:
        """Whether the shard is here, sealed, and not rotten; with `block`, whether that one of it is not."""
        shard = self._shards.get(data_id)
        if shard is None or not shard.sealed:
            return False
        if block is not None:
            return block < len(shard.blocks) and _matches(shard.blocks[block], shard.hashes[block])
        return all(map(_matches, shard.blocks, shard.hashes))

    def block_count(self, data_id: bytes) -> int:
        """Of a shard that is here."""
        return len(self._shards[data_id].blocks)

    @property
    def healing(self) -> bool:
        """A replacement that is not filled yet."""
        return self._healing

    def repair_rows(self) -> set[bytes]:
        """The registers in its repair queue."""
        return set(self._repairs)

    @property
    def repair_queue_length(self) -> int:
        return len(self._repairs)

    @property
    def state(self) -> DriveState:
        if self.faulty:
            return DriveState.FAULTY
        if self.offline:
            return DriveState.OFFLINE
        if self._blank:
            return DriveState.BLANK
        return DriveState.HEALING if self._healing else DriveState.FULL

    def status(self) -> DriveStatus:
        there = (*self._shards.values(), *self._anew.values())
        used = sum(len(block) for shard in there for block in shard.blocks)
        return DriveStatus(
            self.state,
            self._drive_id,
            self._incarnation,
            self.faulty,
            self.total_bytes,
            self.total_bytes - used,
            used,
            self.full and not self.full_is_news,
            registers=len(self._states),
        )

    # --- registers

    async def query(self, register: Register, with_inline: bool) -> QueryReply:
        state = self._state(keys.row_key(register))
        records = tuple(record if with_inline else _bare(record) for record in state.records)
        return QueryReply(records, state.mark, state.highest, state.watermark, state.healing)

    async def query_many(self, registers: Sequence[Register], with_inline: bool) -> list[QueryReply]:
        return [await self.query(register, with_inline) for register in registers]

    async def commit(self, request: CommitRequest) -> CommitReply:
        row = keys.row_key(request.register)
        state = self._state(row)
        status, accepted = rules.judge_commit(state, request, self._leases.live(row))
        if not accepted:
            if status is CommitStatus.OK and request.mode is CommitMode.HEAL:
                self._replace(request.held.data_ids)
            return CommitReply(status, state.highest)
        if row in self._damaged and request.mode is not CommitMode.HEAL:
            return CommitReply(CommitStatus.REFUSED, state.highest)
        from_reserve = request.from_reserve or request.mode is CommitMode.ROLL_FORWARD
        if self.full and not (request.held.tombstone or (from_reserve and not self.reserve_used)):
            raise DriveFull("the drive is full")
        if not all(data_id in self._shards and self._shards[data_id].sealed for data_id in request.held.data_ids):
            return CommitReply(CommitStatus.NO_DATA, state.highest)
        rules.accept(state, request.held)
        self._damaged.pop(row, None)
        self._save(row, state)
        self._replace(request.held.data_ids)
        if request.mode in (CommitMode.PLAIN, CommitMode.CONDITIONAL):
            self._leases.use_up(row)
        return CommitReply(CommitStatus.OK, state.highest)

    def _replace(self, data_ids: Sequence[bytes]) -> None:
        """Those of them that were staged anew."""
        for data_id in data_ids:
            if data_id in self._anew and self._anew[data_id].sealed:
                self._shards[data_id] = self._anew.pop(data_id)

    async def commit_many(self, requests: Sequence[CommitRequest]) -> list[CommitReply | None]:
        return await commit_each(self, requests)

    async def commit_with_shard(
        self, request: CommitRequest, blocks: Sequence[Block], hashes: Sequence[bytes]
    ) -> CommitReply:
        (data_id,) = request.held.data_ids
        await self.stage(data_id, 0, blocks, hashes, last=True)
        return await self.commit(request)

    async def note(self, register: Register, stamp: int, whole: bool) -> None:
        row = keys.row_key(register)
        state = self._state(row)
        before = state.mark
        older = rules.note(state, stamp)
        lazily = _Unsynced(repairs=[(row, self._repairs.get(row))])
        self._save(row, state, older, lazily)
        if state.mark != before and register.space[:1] == b"u" and state.records[-1].tombstone:
            self._drop_parts(register, lazily)
        if not whole and (row not in self._repairs or self._handed_out.get(row) == self._repairs[row]):
            self._noted += 1
            self._repairs.pop(row, None)
            self._repairs[row] = self._noted
        self._keep_unsynced(lazily)

    async def note_many(self, notes: Sequence[Note]) -> None:
        for note in notes:
            await self.note(*note)

    async def prepare(self, register: Register, expected: int, lease: bytes, duration_seconds: float) -> PrepareReply:
        row = keys.row_key(register)
        state = self._state(row)
        status = rules.judge_prepare(state, expected, lease, self._leases.live(row))
        if status is PrepareStatus.PROMISED:
            self._leases.grant(row, lease, duration_seconds)
        return PrepareReply(status, state.highest, state.healing)

    async def release(self, register: Register, lease: bytes) -> None:
        self._answering()
        self._leases.release(keys.row_key(register), lease)

    async def fence(self, register: Register, stamp: int) -> FenceReply:
        row = keys.row_key(register)
        state = self._state(row)
        fenced = rules.fence(state, stamp)
        self._save(row, state)
        return FenceReply(fenced, state.healing, state.newest)

    async def remove(self, register: Register, stamp: int) -> None:
        row = keys.row_key(register)
        state = self._state(row)
        if stamp > self._damaged.get(row, stamp):
            del self._damaged[row]
            self._save(row, state)
            return
        self._save(row, state, rules.remove(state, stamp))

    async def tombstones(self, request: TombstoneRequest) -> TombstonePage:
        self._answering()
        first, last = keys.row_key(request.first), keys.row_key(request.last)
        found: list[Tombstone] = []
        for row in self._order[bisect_left(self._order, first) : bisect_left(self._order, last)]:
            if self._settled_seconds(row) >= request.settled_seconds and row in self._settled_since:
                if len(found) == request.limit:
                    return TombstonePage(tuple(found), keys.decode_row_key(row))
                found.append(Tombstone(keys.decode_row_key(row), self._states[row].newest))
        return TombstonePage(tuple(found), None)

    async def weigh_tombstones(self, tombstones: Sequence[Tombstone], settled_seconds: float) -> TombstoneReply:
        self._answering()
        self._unsynced.clear()
        states = (self._weigh(keys.row_key(one.register), one.stamp, settled_seconds) for one in tombstones)
        return TombstoneReply(tuple(states), self._healing)

    def _weigh(self, row: bytes, stamp: int, settled_seconds: float) -> TombstoneState:
        state = self._state(row)
        weighed = rules.weigh_tombstone(state, stamp, self._settled_seconds(row) >= settled_seconds)
        if weighed is TombstoneState.GONE:
            self._watermarks[keys.watermark_range(row)] = rules.raised(state.watermark, stamp)
        return weighed

    async def drop_tombstones(self, tombstones: Sequence[Tombstone]) -> None:
        for tombstone in tombstones:
            row = keys.row_key(tombstone.register)
            state = self._state(row)
            gone = rules.drop(state, tombstone.stamp)
            self._watermarks[keys.watermark_range(row)] = state.watermark
            self._save(row, state, gone)

    def _settled_seconds(self, row: bytes) -> float:
        return self._clock.monotonic_seconds() - self._settled_since.get(row, float("inf"))

    async def scan(self, request: ScanRequest) -> ScanPage:
        self._answering()
        return scan_page(self._walk(request.space), request, self._healing or bool(self._damaged))

    async def list_registers(self, request: ListRequest) -> ListPage:
        self._answering()
        return list_page(self._walk(request.space), request, self._healing or bool(self._damaged))

    def _walk(self, space: bytes) -> Registers:
        place = keys.space_start(space)

        def walk(start: bytes) -> Walk:
            at = bisect_left(self._order, place + start)
            while at < len(self._order) and (row := self._order[at]).startswith(place):
                state = self._states[row]
                elsewhere = yield row[len(place) :], state.records, state.mark
                at = at + 1 if elsewhere is None else bisect_left(self._order, place + elsewhere)

        return walk

    async def spaces(self, after: bytes, limit: int) -> list[bytes]:
        self._answering()
        spaces = dict.fromkeys(keys.decode_row_key(row).space for row in self._order)
        return sorted(space for space in spaces if space > after)[:limit]

    async def repairs(self, limit: int) -> list[Register]:
        self._answering()
        rows = sorted(self._repairs, key=self._repairs.__getitem__)[:limit]
        self._handed_out.update((row, self._repairs[row]) for row in rows)
        return [keys.decode_row_key(row) for row in rows]

    async def repaired(self, whole: Sequence[tuple[Register, int]]) -> None:
        for register, stamp in whole:
            self._repaired(register, stamp)

    def _repaired(self, register: Register, stamp: int) -> None:
        row = keys.row_key(register)
        if self._state(row).newest > stamp:
            return
        known = self._repairs.get(row)
        if self._handed_out.pop(row, known) == known:
            self._repairs.pop(row, None)
            self._keep_unsynced(_Unsynced(repairs=[(row, known)]))

    async def finish_healing(self, incarnation: int) -> None:
        self._answering()
        if incarnation == self._incarnation:
            self._healing = False

    # --- shards

    async def stage(
        self, data_id: bytes, index: int, blocks: Sequence[Block], hashes: Sequence[bytes], last: bool = False
    ) -> None:
        self._stage(data_id, index, blocks, hashes)
        if last:
            await self.seal(data_id)

    def _stage(self, data_id: bytes, index: int, blocks: Sequence[Block], hashes: Sequence[bytes]) -> None:
        self._answering()
        shard = self._anew.get(data_id) or self._shards.get(data_id)
        repeated = shard is not None and hashes and shard.hashes[index : index + len(hashes)] == list(hashes)
        if shard is not None and repeated and (not shard.sealed or all(map(_matches, shard.blocks, shard.hashes))):
            return
        if self.full:
            raise DriveFull("the drive is full")
        for offset, (block, digest) in enumerate(zip(blocks, hashes, strict=True)):
            if not _matches(block, digest):
                raise ShardCorrupt(f"block {index + offset} arrived with another hash")
        if shard is None or index == 0:
            folder = self._anew if data_id in self.named_shards() else self._shards
            shard = folder[data_id] = _Shard()
        if shard.sealed or index != len(shard.hashes):
            raise DriveError(f"block {index} is not the next one")
        sizes = [len(block) for block in (*shard.blocks, *blocks)]
        if any(size != sizes[0] for size in sizes[:-1]) or not 0 < sizes[-1] <= sizes[0]:
            raise DriveError("only the last block may be shorter than the others")
        shard.blocks.extend(map(bytes, blocks))
        shard.hashes.extend(map(bytes, hashes))
        shard.touched_seconds = self._clock.monotonic_seconds()

    async def seal(self, data_id: bytes) -> None:
        self._answering()
        shard = self._anew.get(data_id) or self._shards.get(data_id)
        if shard is None:
            raise ShardMissing("nothing is staged")
        shard.sealed = True

    async def discard(self, data_id: bytes) -> None:
        self._answering()
        self._anew.pop(data_id, None)
        if data_id not in self.named_shards() and data_id not in self._trash:
            self._shards.pop(data_id, None)

    async def read_blocks(self, data_id: bytes, first: int, count: int) -> tuple[list[Block], list[bytes]]:
        self._answering()
        shard = self._shards.get(data_id)
        if shard is None or not shard.sealed:
            raise ShardMissing("no such sealed shard")
        for one in self._together.get(data_id, (data_id,)):
            if one in self._trash:
                self._trash[one] = self._clock.monotonic_seconds()
        if first < 0 or first + count > len(shard.blocks):
            raise DriveError(f"the shard has {len(shard.blocks)} blocks")
        blocks, hashes = shard.blocks[first : first + count], shard.hashes[first : first + count]
        if not all(map(_matches, blocks, hashes)):
            raise ShardCorrupt("a block does not match its hash")
        return list(blocks), hashes

    # --- what the scanner asks, and what the pod keeps

    async def verify_shard(self, data_id: bytes) -> int:
        self._answering()
        shard = self._shards.get(data_id)
        if shard is None or not shard.sealed:
            raise ShardMissing("no such sealed shard")
        if not all(map(_matches, shard.blocks, shard.hashes)):
            raise ShardCorrupt("a block does not match its hash")
        return sum(map(len, shard.blocks))

    def has_shards_in(self, folder: int) -> bool:
        return any(data_id[0] == folder for data_id in self._shards)

    async def trash_orphans(self, folder: int, age_seconds: float) -> int:
        self._answering()
        now = self._clock.monotonic_seconds()
        named = self.named_shards()
        orphans = [
            data_id
            for data_id, shard in self._shards.items()
            if data_id[0] == folder and shard.sealed and now - shard.touched_seconds >= age_seconds
            if data_id not in named and data_id not in self._trash
        ]
        self._trash.update(dict.fromkeys(orphans, now))
        return len(orphans)

    async def keep(self, name: bytes, value: bytes) -> None:
        self._answering()
        self._kept[name] = value

    async def kept(self, name: bytes) -> bytes | None:
        self._answering()
        return self._kept.get(name)

    # --- inside

    def _answering(self) -> None:
        if self.faulty:
            raise DriveFaulty(self.faulty)
        if self.offline:
            raise DriveOffline("not reachable")
        if self._blank:
            raise DriveFaulty("it has neither been formatted nor adopted")

    def _state(self, row: bytes) -> State:
        """A copy to work on; `_save` puts it back."""
        self._answering()
        state = self._states.get(row) or State()
        watermark = self._watermarks[keys.watermark_range(row)]
        fence, healing = max(state.fence, self._damaged.get(row, 0)), self._healing or row in self._damaged
        return replace(state, records=list(state.records), watermark=watermark, healing=healing, fence=fence)

    def _save(self, row: bytes, state: State, gone: Sequence[Held] = (), lazily: _Unsynced | None = None) -> None:
        """`lazily`: not synced; the state before is kept there, for a loss of power.  Else all is durable now."""
        if lazily is not None:
            lazily.states.append((row, self._states.get(row)))
        else:
            self._unsynced.clear()
        self._put(row, state)
        if any(record.data_ids for record in gone):
            named, now = self.named_shards(), self._clock.monotonic_seconds()
            for held in gone:
                unnamed = tuple(data_id for data_id in held.data_ids if data_id not in named)
                self._trash.update(dict.fromkeys(unnamed, now))
                self._together.update(dict.fromkeys(unnamed, unnamed))

    def _keep_unsynced(self, lazily: _Unsynced) -> None:
        self._unsynced.append(lazily)
        del self._unsynced[:-MAX_UNSYNCED]

    def _put(self, row: bytes, state: State) -> None:
        at = bisect_left(self._order, row)
        known = at < len(self._order) and self._order[at] == row
        if state.forgotten:
            if known:
                del self._order[at], self._states[row]
        else:
            if not known:
                self._order.insert(at, row)
            self._states[row] = state
        if not state.settled:
            self._settled_since.pop(row, None)
        elif row not in self._settled_since:
            self._settled_since[row] = self._clock.monotonic_seconds()

    def _drop_parts(self, upload: Register, lazily: _Unsynced) -> None:
        space, key = b"p" + upload.space[1:], upload.key
        for row in list(self._order):
            part = keys.decode_row_key(row)
            if part.space == space and part.key == key and part.version.startswith(upload.version):
                self._save(row, State(watermark=1 << 63), self._states[row].records, lazily)

    def named_shards(self) -> set[bytes]:
        return {data_id for state in self._states.values() for record in state.records for data_id in record.data_ids}


async def commit_each(drive: Drive, requests: Sequence[CommitRequest]) -> list[CommitReply | None]:
    """`Drive.commit_many` of a drive that takes them one after the other."""
    replies: list[CommitReply | None] = []
    for request in requests:
        try:
            replies.append(await drive.commit(request))
        except DriveFull:
            replies.append(None)
    return replies


def _bare(held: Held) -> Held:
    return Held(held.stamp, held.tombstone, held.record, held.shard_index, None, held.data_ids)


def _matches(block: Block, digest: bytes) -> bool:
    return xxhash.xxh3_128_digest(block) == digest
