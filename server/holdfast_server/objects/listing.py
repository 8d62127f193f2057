"""Listing one erasure set: an ordered walk over the registers of a space, merged from R drives of the set.

The set is scanned on R drives (any R meet every write quorum, so nothing committed is missed).  A register on
which all R agree, with the version marked on one of them, is decided by that: the mark says it is committed,
the R agreeing answers that nothing newer is.  Everything else (a write under way, a drive that missed one) is
decided by reading the register, like a GET.  With a delimiter the drives seek past groups, so the cost follows
the size of the answer, not of the bucket.

Bounds: one page of at most `limit` entries per scanned drive in memory; `RESOLVE_WIDTH` registers read at once.

Not here: merging several sets (`merged_listing`), S3's markers and tokens (`api`).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from itertools import islice

from holdfast_server.drives.port import (
    MAX_SCAN_ENTRIES,
    Drive,
    DriveError,
    DriveState,
    Register,
    ScanEntry,
    ScanPage,
    ScanRequest,
)
from holdfast_server.objects import record
from holdfast_server.objects.asking import bounded, together
from holdfast_server.objects.erasure_set import ErasureSet
from holdfast_server.objects.port import Unavailable
from holdfast_server.objects.record import Record

RESOLVE_WIDTH = 32

Position = tuple[bytes, bytes]
"""Key as UTF-8, version."""


@dataclass(frozen=True, slots=True)
class Walk:
    """What is being listed."""

    space: bytes
    prefix: bytes = b""
    delimiter: bytes = b""
    start: Position = (b"", b"")
    """Inclusive."""
    end: Position | None = None
    """Exclusive; what lies there or beyond is not even looked at, so its troubles are not this walk's."""
    page_size: int = MAX_SCAN_ENTRIES
    tombstones: bool = False
    """Deleted registers are found, too; not those inside a group.  For whoever merges sets that share keys."""
    hidden: bool = False
    """Delete markers count as what they are, versions like others."""

    def after(self, position: Position, group: bytes = b"") -> Walk:
        """The rest of the walk, after an entry."""
        if group:
            start = (group + b"\xff", b"")  # no key is above every key of the group and below this
        else:
            start = (position[0], position[1] + b"\0") if position[1] else (position[0], b"\0")
        return replace(self, start=start)


@dataclass(frozen=True, slots=True)
class Found:
    """One live register, or a group of them; a deleted one where a walk asks for those."""

    register: Register
    record: Record | None
    group: bytes = b""

    @property
    def name(self) -> Position:
        return (self.group, b"") if self.group else (self.register.key.encode(), self.register.version)


@dataclass(slots=True)
class _Lane:
    """One drive's pages."""

    position: int
    drive: Drive
    entries: Sequence[ScanEntry] = ()
    index: int = 0
    next_start: Position | None = (b"", b"")

    @property
    def shown(self) -> bool:
        """All entries at hand have been taken."""
        return self.index >= len(self.entries)

    @property
    def name(self) -> Position:
        """Of the entry at hand."""
        return _name(self.entries[self.index])

    def take(self, entries: Sequence[ScanEntry], next_start: Position | None) -> None:
        self.entries, self.index, self.next_start = entries, 0, next_start


@dataclass(frozen=True, slots=True)
class _Candidate:
    """What the lanes say at one name."""

    name: Position
    entries: list[ScanEntry]
    agreed: bool


_Run = list[ScanEntry]
"""Entries, one after the other, on which all lanes agree: nearly all of a page, so they go without a candidate each."""


def _name(entry: ScanEntry) -> Position:
    return (entry.group, b"") if entry.group else (entry.register.key.encode(), entry.register.version)


class SetWalk:
    """The walk over one erasure set: candidates in order, decided in batches."""

    def __init__(self, erasure_set: ErasureSet, walk: Walk) -> None:
        self._set = erasure_set
        self._walk = walk
        self._given_up: set[int] = set()
        """Positions that failed during this walk: not asked again, so that two bad drives do not take turns."""

    async def found(self) -> AsyncGenerator[Found]:
        batch: list[_Candidate] = []
        async with aclosing(self._steps()) as steps:
            async for step in steps:
                if isinstance(step, _Candidate):
                    batch.append(step)
                if batch and (isinstance(step, list) or len(batch) >= RESOLVE_WIDTH):
                    for item in await self._decide(batch):
                        yield item
                    batch = []
                if isinstance(step, list):
                    for entry in step:
                        settled = self._settled(entry)
                        if settled is not None:
                            yield settled
        for item in await self._decide(batch):
            yield item

    async def _decide(self, batch: list[_Candidate]) -> list[Found]:
        async def one(candidate: _Candidate) -> Found | None:
            return self._settled(candidate.entries[0]) if candidate.agreed else await self._resolve(candidate)

        return [item for item in await together(map(one, batch)) if item is not None]

    def _settled(self, entry: ScanEntry) -> Found | None:
        if self._absent(entry) and (entry.group or not self._walk.tombstones):
            return None
        if entry.group:
            return Found(entry.register, None, entry.group)
        return Found(entry.register, record.decode(entry.newest.record))

    def _absent(self, entry: ScanEntry) -> bool:
        return entry.newest.tombstone or (entry.newest.hidden and not self._walk.hidden)

    async def _resolve(self, candidate: _Candidate) -> Found | None:
        """Read the register; within a group, look for its first live one."""
        first = min(candidate.entries, key=lambda entry: (entry.register.key.encode(), entry.register.version))
        register = first.register
        current = await self._set.read(register)
        live = current.record is not None and counts(current.record, self._walk)
        if not first.group:
            shown = live or (current.record is not None and self._walk.tombstones)
            return Found(register, current.record) if shown else None
        if live:
            return Found(register, None, first.group)
        position = (register.key.encode(), register.version)
        inside = Walk(self._walk.space, first.group, page_size=RESOLVE_WIDTH, hidden=self._walk.hidden).after(position)
        async with aclosing(SetWalk(self._set, inside).found()) as others:
            other = await anext(others, None)
        return Found(other.register, None, first.group) if other is not None else None

    async def _steps(self) -> AsyncGenerator[_Run | _Candidate]:
        lanes = self._open_lanes()
        reached = self._walk.start
        while True:
            if any(lane.shown and lane.next_start is not None for lane in lanes):
                await self._fill(lanes, reached)
            if run := self._take_run(lanes):
                reached = self._walk.after(_name(run[-1]), run[-1].group).start
                yield run
                continue
            heads = [lane for lane in lanes if not lane.shown]
            if not heads:
                return
            name = min([lane.name for lane in heads])
            if self._walk.end is not None and name >= self._walk.end:
                return
            entries = []
            for lane in heads:
                if lane.name == name:
                    entries.append(lane.entries[lane.index])
                    lane.index += 1
            reached = self._walk.after(name, entries[0].group).start
            yield _Candidate(name, entries, self._agree(entries, len(lanes)))

    def _take_run(self, lanes: list[_Lane]) -> _Run:
        """What all lanes agree on, from where they stand."""
        run: _Run = []
        end = self._walk.end
        for entries in zip(*(islice(lane.entries, lane.index, None) for lane in lanes), strict=False):
            first = entries[0]
            if any(entry.register != first.register or entry.group != first.group for entry in entries):
                break
            if not self._agree(entries, len(lanes)) or (end is not None and _name(first) >= end):
                break
            run.append(first)
        for lane in lanes:
            lane.index += len(run)
        return run

    def _agree(self, entries: Sequence[ScanEntry], lanes: int) -> bool:
        first = entries[0]
        stamp = first.newest.stamp
        if first.group and self._absent(first):
            return False  # a deleted first key says nothing of the rest of its group
        if len(entries) != lanes:
            return False
        marked = False
        for entry in entries:
            if entry.newest.stamp != stamp or (first.group and entry.register != first.register):
                return False
            marked = marked or entry.mark == stamp
        return marked

    def _open_lanes(self) -> list[_Lane]:
        wanted = self._set.quorums.read_quorum
        lanes = [_Lane(p, drive, next_start=self._walk.start) for p, drive in self._full_drives()]
        if len(lanes) < wanted:
            raise Unavailable(f"{self._set.name}: {len(lanes)} drives can be listed, {wanted} are needed")
        return lanes[:wanted]

    def _full_drives(self) -> list[tuple[int, Drive]]:
        """Drives whose silence counts, local ones first."""
        full = [(p, d) for p, d in self._set.awake().items() if d.status().state is DriveState.FULL]
        return sorted(full, key=lambda item: not item[1].local)

    async def _fill(self, lanes: list[_Lane], reached: Position) -> None:
        """Every lane has an entry to show, or has ended."""
        empty = [lane for lane in lanes if lane.shown and lane.next_start is not None]
        await together(self._fill_one(lanes, lane, reached) for lane in empty)

    async def _fill_one(self, lanes: list[_Lane], lane: _Lane, reached: Position) -> None:
        while lane.shown and lane.next_start is not None:
            try:
                page = await self._page(lane)
            except DriveError as error:
                self._replace(lanes, lane, reached, error)
                continue
            if page.healing:
                self._replace(lanes, lane, reached, None)
                continue
            beyond = (page.next_start, page.next_version) if page.next_start is not None else None
            lane.take(page.entries, beyond)

    async def _page(self, lane: _Lane) -> ScanPage:
        assert lane.next_start is not None
        walk = self._walk
        start, version = lane.next_start
        request = ScanRequest(
            walk.space, walk.prefix, start, walk.delimiter, walk.page_size, walk.tombstones, version, walk.hidden
        )
        return await bounded(lane.drive.scan(request))

    def _replace(self, lanes: list[_Lane], lane: _Lane, reached: Position, error: DriveError | None) -> None:
        """Go on with another drive from where the walk stands."""
        self._given_up.add(lane.position)
        taken = {other.position for other in lanes} | self._given_up
        for position, drive in self._full_drives():
            if position not in taken:
                lane.position, lane.drive = position, drive
                lane.take((), reached)
                return
        raise Unavailable(f"{self._set.name}: too few drives can be listed ({error or 'healing'})")


def counts(found: Record, walk: Walk) -> bool:
    """Whether it is there, for this walk."""
    return not found.deleted if walk.hidden else found.live


def start_after(prefix: str, delimiter: str, after: str) -> tuple[bytes, bytes]:
    """The first place greater than `after`; beyond all its keys, where it names a common prefix."""
    if not after:
        return b"", b""
    if delimiter and after.startswith(prefix):
        rest = after[len(prefix) :]
        if rest.endswith(delimiter) and rest.find(delimiter) == len(rest) - len(delimiter):
            return after.encode() + b"\xff", b""
    return after.encode() + b"\0", b""
