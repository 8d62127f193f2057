"""The drive port: one drive of one erasure set, as its callers see it.

A drive keeps *registers*.  A register is the address of one thing that can be overwritten: an object version,
a multipart upload, a part, a document of the configuration.  Per register the drive holds: the records it has
accepted (usually one; two while an overwrite is between commit and note), the *mark* (greatest stamp it knows
to be committed), the *fence* (greatest stamp it promised never to accept), and in memory a *lease* of a
conditional write.  Per range of registers (`watermark_range`) it keeps the *watermark* G: the greatest stamp
of a tombstone it has dropped.  `docs/quorum.md` has the rules and why each exists; the drive obeys its side of
them (stated at each verb) and nothing else: it counts no votes.

Shards too large to be inline are files.  A shard is *staged* block by block, *sealed* (durable, complete),
then named by a committed record; staged shards that no record names are removed at start-up.  Each block is
hashed by the coordinator (xxh3-128), checked when it is staged and again whenever it is read.

Every verb may raise a DriveError.  Cancelling an await says nothing about whether the verb took effect.
No answer, to a read or to a write, exposes a record that is not yet on stable storage.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from enum import IntEnum, IntFlag
from typing import Protocol

import msgspec

HASH_SIZE_BYTES = 16
"""xxh3-128 of a block."""


class ComputedHashes(tuple[bytes, ...]):
    """Hashes that this process has computed from these very blocks as they lie in its memory: nobody who is handed both
    need do so again."""

    __slots__ = ()


WATERMARK_RANGES = 256

MAX_REGISTERS_PER_CALL = 64
"""Of the verbs that take many; with their inline shards the answer fits into a frame, but for very large records."""

MAX_SCAN_ENTRIES = 1001
"""A listing of a thousand, and one more to tell whether it is the end."""


MAX_TOMBSTONES = 1000
"""In one call of the verbs on tombstones."""


class Register(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The address of one register.

    `space` is one letter (what kind of thing) and the sixteen bytes of the bucket's unique id, `key` the
    object key, `version` what tells apart registers of one key: empty for the null version of an object,
    the upload id of an upload, upload id and part number of a part.  Registers are ordered by
    (space, key as UTF-8, version).
    """

    space: bytes
    key: str
    version: bytes = b""


Note = tuple[Register, int, bool]
"""A register, the stamp that is committed, and whether every drive of the set has it: the arguments of `Drive.note`."""


class DriveState(IntEnum):
    FULL = 1
    """Serves, and its absence counts: it has every record that was committed to it."""
    HEALING = 2
    """A replacement that is being filled: takes writes, casts no negative vote."""
    BLANK = 3
    """No identity yet; neither formatting nor adoption has been permitted."""
    OFFLINE = 4
    """Does not answer: its pod cannot be reached, or its disk hangs.  It keeps what it has."""
    FAULTY = 5
    """Set aside: wrong identity, vanished identity, I/O errors, an engine that does not open."""

    @property
    def told(self) -> str:
        """As `contract.health.DriveHealth` has it."""
        return "ok" if self is DriveState.FULL else self.name.lower()


STAGED_FOR_COMMIT_SECONDS = 5.0
"""How long whoever sent a shard with its commit waits at most."""


class DriveStatus(msgspec.Struct, frozen=True, array_like=True, gc=False):
    state: DriveState
    drive_id: bytes = b""
    incarnation: int = 0
    """Stamp of the moment the drive was formatted or adopted."""
    message: str = ""
    total_bytes: int = 0
    available_bytes: int = 0
    used_bytes: int = 0
    full: bool = False
    """It serves, but takes no new data for want of room; the message says more."""
    registers: int = 0
    """About how many the drive holds; 0 if that is not known."""


NO_SHARD = -1
HIDDEN_INDEX = -2
"""A value and no field of its own: what a pod of an earlier release passes on keeps it."""


class Held(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One record as a drive holds it."""

    stamp: int
    tombstone: bool
    record: bytes
    """Opaque here; `objects/record.py` encodes it, the same bytes on every drive of the set."""
    shard_index: int
    """Which shard of the erasure code this drive has: 0..N-1; `NO_SHARD` where there is no data, `HIDDEN_INDEX` where
    there is none and the record hides its key."""
    inline: bytes | None
    """The shard block itself where the object is small; None where it is in files or was not asked for."""
    data_ids: tuple[bytes, ...] = ()
    """Shard files this record names, sixteen bytes each."""

    @property
    def hidden(self) -> bool:
        """A listing passes over it as over a tombstone, unless it asks for such (`ScanRequest.hidden`); in all else
        it is a record like others."""
        return self.shard_index == HIDDEN_INDEX


class QueryReply(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What one drive knows of one register (rule 3)."""

    records: tuple[Held, ...]
    """Newest first."""
    mark: int
    highest: int
    """max(newest held, fence, watermark): a plain commit must be above it."""
    watermark: int
    healing: bool


class CommitMode(IntEnum):
    PLAIN = 1
    CONDITIONAL = 2
    ROLL_FORWARD = 3
    HEAL = 4


class CommitRequest(msgspec.Struct, frozen=True, array_like=True, gc=False):
    register: Register
    held: Held
    mode: CommitMode
    lease: bytes = b""
    """CONDITIONAL: the lease id that was promised."""
    watermark: int | None = None
    """HEAL and ROLL_FORWARD: the watermark the caller saw; compare-and-set where the stamp is not above it."""
    from_reserve: bool = False
    """It may use half of the room that is kept from new data."""


class CommitStatus(IntEnum):
    OK = 1
    """Durable, or already held with this stamp (or, for a healed tombstone, already dropped here)."""
    STALE = 2
    """At or below something newer; `highest` says what."""
    LEASED = 3
    """Another's conditional write holds a live lease."""
    REFUSED = 4
    """No own live lease, or the watermark has moved, or a roll-forward onto something newer."""
    SUPERSEDED = 5
    """Below the mark: something newer is known to be committed."""
    NO_DATA = 6
    """The record names a shard file this drive does not have sealed."""


class CommitReply(msgspec.Struct, frozen=True, array_like=True, gc=False):
    status: CommitStatus
    highest: int = 0


class PrepareStatus(IntEnum):
    PROMISED = 1
    LEASED = 2
    MISMATCH = 3
    """Holds something newer than expected."""


class PrepareReply(msgspec.Struct, frozen=True, array_like=True, gc=False):
    status: PrepareStatus
    highest: int
    healing: bool


class FenceReply(msgspec.Struct, frozen=True, array_like=True, gc=False):
    fenced: bool
    """False: the drive holds that very version."""
    healing: bool
    newest: int | None = None
    """Stamp of the newest record the drive holds, 0 for none; None from a pod that does not tell."""


class ScanRequest(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An ordered walk over one space.

    (`start`, `start_version`) is the first register wanted (inclusive): a key as UTF-8, whole or not, and a
    version; append b"\\0" to the key to start after all its versions.  With a delimiter, keys that share the
    text up to and including the first delimiter after the prefix are one *group*: the entry is the group's
    first key whose newest record is live (or an unmarked tombstone over one that is), and the walk seeks past
    the group, so that the cost follows the answer and not the bucket.
    """

    space: bytes
    prefix: bytes = b""
    start: bytes = b""
    delimiter: bytes = b""
    limit: int = MAX_SCAN_ENTRIES
    tombstones: bool = True
    """False: registers whose newest record is a marked tombstone are passed over."""
    start_version: bytes = b""
    hidden: bool = False
    """Records that are hidden are shown like others."""


class ScanEntry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    register: Register
    newest: Held
    """Without its inline shard."""
    mark: int
    settled: bool
    """This drive holds exactly one record and it is marked: nothing here is in doubt."""
    group: bytes = b""
    """With a delimiter: the common prefix this entry stands for; empty for a plain key."""


class ScanPage(msgspec.Struct, frozen=True, array_like=True, gc=False):
    entries: tuple[ScanEntry, ...]
    next_start: bytes | None
    """Where to go on; None at the end.  A page may be shorter than its limit (bounded work per call)."""
    healing: bool
    next_version: bytes = b""
    """With `next_start`: the version to go on at, where a page ends between two versions of one key."""


class ListRequest(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An ordered walk over one space that tells what a listing decides by, and no more.

    Prefix and delimiter are UTF-8; with a delimiter keys are grouped as `ScanRequest` says.
    """

    space: bytes
    prefix: bytes = b""
    start: bytes = b""
    """The first name wanted (`names`), inclusive."""
    delimiter: bytes = b""
    limit: int = MAX_SCAN_ENTRIES
    tombstones: bool = False
    """False: registers that are absent, and marked so, are passed over."""
    hidden: bool = False
    """Records that are hidden are not absent."""
    records: bool = True
    """False: names, stamps and signs will do; another drive is asked for the records."""


class Sign(IntFlag):
    """What a drive says of an entry of a listing."""

    MARKED = 1
    """The newest version is known to be committed."""
    ABSENT = 2
    """The newest version is one that the listing does not show: a tombstone, or hidden."""
    GROUP = 4
    """The entry stands for a common prefix."""


class ListPage(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Columns, so that what two drives say is compared as a whole."""

    names: list[bytes]
    """Of the registers, ascending (`names`); of a group: its prefix, escaped."""
    stamps: list[int]
    """Of each newest version; of a group: of its first register."""
    signs: bytes
    """`Sign`s of each."""
    firsts: list[bytes]
    """With a delimiter: of each group the name of its first register whose newest version is not absent (or an
    unmarked one over one that is not); empty for a register."""
    records: list[bytes]
    """Of each newest version; empty for a group.  None where they were not asked for."""
    following: bytes | None
    """Where to go on; None at the end.  A page may be shorter than its limit (bounded work per call)."""
    healing: bool


class Tombstone(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A delete, by register and stamp."""

    register: Register
    stamp: int


class TombstoneRequest(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A walk over a drive's settled tombstones, in the order of registers."""

    first: Register
    """Inclusive."""
    last: Register
    """Exclusive."""
    settled_seconds: float
    """Only those that have been settled here for so long."""
    limit: int = MAX_TOMBSTONES


class TombstonePage(msgspec.Struct, frozen=True, array_like=True, gc=False):
    tombstones: tuple[Tombstone, ...]
    next_first: Register | None
    """Where to go on; None at the end.  A page may be shorter than its limit (bounded work per call)."""


class TombstoneState(IntEnum):
    """What one drive holds where another has a settled tombstone (rule 10)."""

    SETTLED = 1
    """Exactly this tombstone, marked, and for long enough."""
    YOUNG = 2
    """The same, not for long enough; or something that hangs on it is still being dropped."""
    UNNOTED = 3
    """This tombstone is the newest, but it is not marked, or older versions are still beneath it."""
    GONE = 4
    """Nothing, and the watermark is at the tombstone or above."""
    OTHER = 5
    """Something newer, or only something older, or nothing that the watermark would explain."""


class TombstoneReply(msgspec.Struct, frozen=True, array_like=True, gc=False):
    states: tuple[TombstoneState, ...]
    healing: bool


class DriveError(Exception):
    """The verb did not succeed on this drive; another may do."""


class DriveOffline(DriveError):
    """Not reachable, or its answer did not come in time: whether it took effect is unknown."""


class DriveFaulty(DriveError):
    """Set aside: I/O error, wrong or vanished identity."""


class DriveFull(DriveError):
    """No space for this write; reads and deletes go on."""


class ShardMissing(DriveError):
    """No such sealed shard here."""


class ShardCorrupt(DriveError):
    """A block's bytes do not match their hash."""


Block = bytes | memoryview
"""One drive's piece of a stripe; a view of the frame it came in, where it came from another pod."""


class Drive(Protocol):
    """One drive.  All verbs are safe to call concurrently."""

    pool: str
    set_index: int
    position: int
    local: bool
    """In this process: preferred as a source of shards, nothing crosses the network."""

    @property
    def state(self) -> DriveState:
        """That of `status`, which costs more: every request looks at each drive of its set."""

    def status(self) -> DriveStatus:
        """What is known now, without waiting."""

    def query(self, register: Register, with_inline: bool) -> Awaitable[QueryReply]:
        """What this drive knows of a register (rule 3).  Answers only what is durable.

        Like `commit` on every request's path several times, and so a future in some implementations, at work as soon
        as it is there; neither ever raises before it is awaited.
        """

    async def query_many(self, registers: Sequence[Register], with_inline: bool) -> list[QueryReply]:
        """`query` of each, in order; at most `MAX_REGISTERS_PER_CALL`.  One call, for background work."""

    def commit(self, request: CommitRequest) -> Awaitable[CommitReply]:
        """Accept a record, durably before answering, or say why not.

        Held already: OK.  PLAIN (rule 6): STALE unless the stamp is above `highest`; LEASED under a
        foreign live lease.  CONDITIONAL (rule 7): the same, but REFUSED unless the own lease lives; the
        lease is used up.  ROLL_FORWARD and HEAL (rules 5 and 9): SUPERSEDED below the mark; a tombstone at or
        below the watermark of a full drive that holds nothing is OK without writing; REFUSED if the stamp is not
        above the watermark and `watermark` is not what it is now; ROLL_FORWARD also REFUSED under any live lease
        and, on a full drive, at or below what it holds or has fenced.
        NO_DATA if a named shard is not sealed here (or referenced by a record already held).
        Raises DriveFull.
        """

    def commit_many(self, requests: Sequence[CommitRequest]) -> Awaitable[list[CommitReply | None]]:
        """Each as by `commit`, in order, all or nothing by itself; None where there was no room.  Not for HEAL."""

    def commit_with_shard(
        self, request: CommitRequest, blocks: Sequence[Block], hashes: Sequence[bytes]
    ) -> Awaitable[CommitReply]:
        """`stage` and `seal` the one shard that the record names, all of its blocks, then `commit`; one call.

        What ends the first leaves the second undone, and a shard that took longer than `STAGED_FOR_COMMIT_SECONDS` is
        not committed: nobody waits for it any more.  Never sent twice, as a commit is not.  Where the commit is
        refused the shard stays, until it is discarded.  Raises ShardCorrupt, DriveFull.
        """

    def note(self, register: Register, stamp: int, whole: bool) -> Awaitable[None]:
        """The version is committed: raise the mark if it is held, drop older records, and let their shards be
        reclaimed once no read can still need them (rules 1 and 13).  Lazy: not synced.

        `whole` False: some drive of the set missed it; remember the register for repair (`repairs`).
        Noting a tombstone of an upload also drops the parts of that upload.
        """

    def note_many(self, notes: Sequence[Note]) -> Awaitable[None]:
        """All of them, in order, as one piece of work."""

    async def prepare(self, register: Register, expected: int, lease: bytes, duration_seconds: float) -> PrepareReply:
        """Promise to take no foreign write for a while, if nothing newer than `expected` is held (rule 7)."""

    async def release(self, register: Register, lease: bytes) -> None:
        """Give the lease back; nothing if it is not held."""

    async def fence(self, register: Register, stamp: int) -> FenceReply:
        """Promise, durably, never to accept this stamp or a lower one, unless it is held (rule 8)."""

    async def remove(self, register: Register, stamp: int) -> None:
        """Take back a version that was never committed; a marked one stays (rules 1 and 8).

        Above all that a damaged register may have held (its `highest`): nothing it held was, and it is empty now.  Its
        promises stay.
        """

    async def tombstones(self, request: TombstoneRequest) -> TombstonePage:
        """Registers of which this drive holds a marked tombstone and nothing else."""

    async def weigh_tombstones(self, tombstones: Sequence[Tombstone], settled_seconds: float) -> TombstoneReply:
        """What this drive holds of these registers, in their order (rule 10).

        The answer is durable: no loss of power brings back what a note had dropped beneath a tombstone that was
        called SETTLED.  Whoever is called GONE has its watermark raised: no repair that saw it before is accepted any
        more.
        """

    async def drop_tombstones(self, tombstones: Sequence[Tombstone]) -> None:
        """Drop each that is all its register holds, and raise the watermarks, durably (rule 10): to its stamp, and in
        any case above what it was."""

    async def stage(
        self, data_id: bytes, index: int, blocks: Sequence[Block], hashes: Sequence[bytes], last: bool = False
    ) -> None:
        """Append blocks to a staged shard; `index` is the number of the first, starting at 0, in order.

        `last`: no more come; `seal` it, too.
        All blocks but the last of a shard have the same size.  Raises ShardCorrupt if a hash does not match
        (nothing is written; not looked at where these are `ComputedHashes`), DriveFull.
        """

    async def seal(self, data_id: bytes) -> None:
        """Make the staged shard complete and durable: bytes, block hashes, directory entry."""

    async def discard(self, data_id: bytes) -> None:
        """Forget a staged or sealed shard that no record names; nothing if there is none."""

    def read_blocks(self, data_id: bytes, first: int, count: int) -> Awaitable[tuple[list[Block], list[bytes]]]:
        """Blocks `first`..`first+count-1` of a sealed shard with their hashes, verified here against rot.

        Raises ShardMissing, ShardCorrupt.  Defers reclaim of the shard for a while (rule 13), and with it that of the
        others of a record that named it; none, and no hash, for a `count` of 0, which does just that.
        """

    async def scan(self, request: ScanRequest) -> ScanPage:
        """One page of an ordered walk; `newest` of each register, durable ones only."""

    async def list_registers(self, request: ListRequest) -> ListPage:
        """One page of a listing; durable versions only.  As `scan`, for whoever decides by stamps and marks alone."""

    async def spaces(self, after: bytes, limit: int) -> list[bytes]:
        """The spaces above `after` in which registers are held, ascending."""

    async def repairs(self, limit: int) -> list[Register]:
        """Registers noted as not whole, oldest first."""

    async def repaired(self, whole: Sequence[tuple[Register, int]]) -> None:
        """Each register is whole up to that version: forget that it was missed (`repairs`), unless something newer
        is held here, or it was noted again since `repairs` told of it.  At most `MAX_REGISTERS_PER_CALL`.

        Lazy: not synced.
        """

    async def finish_healing(self, incarnation: int) -> None:
        """A heal pass begun after this incarnation was adopted is complete: the drive is FULL (rule 11)."""
