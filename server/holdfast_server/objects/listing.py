"""Listing one erasure set: an ordered walk over the registers of a space, merged from R drives of the set.

The set is asked on R drives (any R meet every write quorum, so nothing committed is missed).  A register on
which all R agree, with the version marked on one of them, is decided by that: the mark says it is committed,
the R agreeing answers that nothing newer is.  Everything else (a write under way, a drive that missed one) is
decided by reading the register, like a GET.  With a delimiter the drives seek past groups, so the cost follows
the size of the answer, not of the bucket.

Drives that agree, agree on whole runs: their columns of names and stamps are compared at once, and only one of them
is asked for records, which are decoded once.

Bounds: one page of at most `page_size` entries per drive asked in memory; `RESOLVE_WIDTH` registers read at once.

Not here: merging several sets (`merged_listing`), S3's markers and tokens (`api`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

import msgspec

from holdfast_server.drives import names
from holdfast_server.drives.port import (
    MAX_SCAN_ENTRIES,
    Drive,
    DriveError,
    DriveState,
    ListPage,
    ListRequest,
    Register,
    Sign,
)
from holdfast_server.objects import record
from holdfast_server.objects.asking import bounded, together
from holdfast_server.objects.erasure_set import ErasureSet
from holdfast_server.objects.port import Unavailable
from holdfast_server.objects.record import Record

RESOLVE_WIDTH = 32

# As numbers: a flag's own arithmetic costs more than all else that is done for an entry.
_MARKED, _ABSENT, _GROUP = int(Sign.MARKED), int(Sign.ABSENT), int(Sign.GROUP)

_DOUBTFUL = bytes([not sign & _MARKED or (sign & _ABSENT and sign & _GROUP) > 0 for sign in range(256)])
"""For what all drives together say of an entry, whether that leaves a doubt: nobody knows it to be committed; or the
first key of a group is deleted, which says nothing of the rest of it."""


@dataclass(frozen=True, slots=True)
class Walk:
    """What is being listed."""

    space: bytes
    prefix: bytes = b""
    """UTF-8, as the delimiter."""
    delimiter: bytes = b""
    start: bytes = b""
    """The first name wanted, inclusive (`drives.names`)."""
    end: bytes | None = None
    """A name, exclusive; what lies there or beyond is not even looked at, so its troubles are not this walk's."""
    page_size: int = MAX_SCAN_ENTRIES
    tombstones: bool = False
    """Deleted registers are found, too; not those inside a group.  For whoever merges sets that share keys."""
    hidden: bool = False
    """Delete markers count as what they are, versions like others."""


class Found(msgspec.Struct, frozen=True, gc=False):
    """One live register, or a group of them; a deleted one where a walk asks for those."""

    name: bytes
    """As `drives.names`; of a group: its prefix, escaped."""
    register: Register
    """Of a group: the first that lives."""
    record: Record | None
    group: bytes = b""


Run = list[Found]
"""One after the other, in order."""


_NOTHING = ListPage([], [], b"", [], [], None, False)


@dataclass(slots=True)
class _Lane:
    """One drive's pages."""

    position: int
    drive: Drive
    records: bool
    """It is asked for those, too."""
    following: bytes | None
    page: ListPage = _NOTHING
    index: int = 0

    @property
    def shown(self) -> bool:
        """All entries at hand have been taken."""
        return self.index >= len(self.page.names)

    @property
    def wants(self) -> bool:
        return self.shown and self.following is not None

    @property
    def name(self) -> bytes:
        """Of the entry at hand."""
        return self.page.names[self.index]

    @property
    def first(self) -> bytes:
        """The register's name, or that of the first in the group."""
        page = self.page
        return page.firsts[self.index] if page.signs[self.index] & _GROUP else page.names[self.index]


@dataclass(frozen=True, slots=True)
class _Doubt:
    """A name on which the drives do not agree, or that nobody knows to be committed."""

    first: bytes
    """The least register's that any of them shows there."""
    group: bytes
    """Escaped."""


class SetWalk:
    """The walk over one erasure set, page by page."""

    def __init__(self, erasure_set: ErasureSet, walk: Walk) -> None:
        self._set = erasure_set
        self._walk = walk
        self._reached = walk.start
        """Everything below has been taken."""
        self._given_up: set[int] = set()
        """Positions that failed during this walk: not asked again, so that two bad drives do not take turns."""

    async def runs(self) -> AsyncGenerator[Run]:
        """What is found, in order; no run is empty."""
        lanes = self._open_lanes()
        ended = False
        while not ended:
            await self._fill(lanes)
            steps, ended = self._compare(lanes)
            doubts = [step for step in steps if isinstance(step, _Doubt)]
            settled: list[Found | None] = []
            for start in range(0, len(doubts), RESOLVE_WIDTH):
                settled += await together(map(self._resolve, doubts[start : start + RESOLVE_WIDTH]))
            judged = iter(settled)
            run: Run = []
            for step in steps:
                if isinstance(step, list):
                    run += step
                elif (found := next(judged)) is not None:
                    run.append(found)
            if run:
                yield run

    def _compare(self, lanes: list[_Lane]) -> tuple[list[Run | _Doubt], bool]:
        """What the lanes say, until one of them has to be asked for more; whether that was the end."""
        steps: list[Run | _Doubt] = []
        end = self._walk.end
        while not any(lane.wants for lane in lanes):
            if count := self._agreeing(lanes):
                steps.append(self._settled(lanes[0], count))
                for lane in lanes:
                    lane.index += count
                self._pass(lanes[0])
                continue
            heads = [lane for lane in lanes if not lane.shown]
            if not heads:
                return steps, True
            name = min([lane.name for lane in heads])
            if end is not None and name >= end:
                return steps, True
            same = [lane for lane in heads if lane.name == name]
            is_group = same[0].page.signs[same[0].index] & _GROUP
            steps.append(_Doubt(min([lane.first for lane in same]), name if is_group else b""))
            for lane in same:
                lane.index += 1
            self._pass(same[0])
        return steps, False

    def _pass(self, lane: _Lane) -> None:
        """The entry before the one at hand was taken."""
        at = lane.index - 1
        name = lane.page.names[at]
        self._reached = names.after_group(name) if lane.page.signs[at] & _GROUP else names.after(name)

    def _agreeing(self, lanes: list[_Lane]) -> int:
        """How many entries, from where the lanes stand, all say alike and beyond doubt."""
        lead, at = lanes[0].page, lanes[0].index
        count = min([len(lane.page.names) - lane.index for lane in lanes])
        if self._walk.end is not None:
            count = bisect_left(lead.names, self._walk.end, at, at + count) - at
        for lane in lanes[1:]:
            page, start = lane.page, lane.index
            for ours, theirs in ((lead.names, page.names), (lead.stamps, page.stamps), (lead.firsts, page.firsts)):
                count = _alike(ours[at : at + count], theirs[start : start + count], count)
        together = 0
        for lane in lanes:
            together |= int.from_bytes(lane.page.signs[lane.index : lane.index + count], "big")
        doubt = together.to_bytes(count, "big").translate(_DOUBTFUL).find(1)
        return count if doubt < 0 else doubt

    def _settled(self, lane: _Lane, count: int) -> Run:
        """Entries on which all agree."""
        page, stop = lane.page, lane.index + count
        space = self._walk.space
        signs = page.signs[lane.index : stop]
        some = page.names[lane.index : stop]
        if not signs.translate(None, b"\0\1"):
            registers = names.registers(space, some)
            records = map(record.decode, page.records[lane.index : stop])
            return list(map(Found, some, registers, records))
        firsts = page.firsts[lane.index : stop] or some  # there are none without a delimiter
        registers = names.registers(space, [first or name for first, name in zip(firsts, some, strict=True)])
        run: Run = []
        for at, (name, register, sign) in enumerate(zip(some, registers, signs, strict=True), lane.index):
            if sign & _GROUP:
                run.append(Found(name, register, None, names.unescape(name)))
            elif not sign & _ABSENT or self._walk.tombstones:
                run.append(Found(name, register, record.decode(page.records[at])))
        return run

    async def _resolve(self, doubt: _Doubt) -> Found | None:
        """Read the register; within a group, look for its first live one."""
        register = _register(self._walk.space, doubt.first)
        current = await self._set.read(register)
        live = current.record is not None and counts(current.record, self._walk)
        if not doubt.group:
            shown = live or (current.record is not None and self._walk.tombstones)
            return Found(doubt.first, register, current.record) if shown else None
        group = names.unescape(doubt.group)
        if live:
            return Found(doubt.group, register, None, group)
        inside = Walk(
            self._walk.space, group, start=names.after(doubt.first), page_size=RESOLVE_WIDTH, hidden=self._walk.hidden
        )
        async with aclosing(SetWalk(self._set, inside).runs()) as others:
            run = await anext(others, None)
        return Found(doubt.group, run[0].register, None, group) if run is not None else None

    def _open_lanes(self) -> list[_Lane]:
        wanted = self._set.quorums.read_quorum
        full = self._full_drives()
        if len(full) < wanted:
            raise Unavailable(f"{self._set.name}: {len(full)} drives can be listed, {wanted} are needed")
        return [_Lane(p, drive, at == 0, self._walk.start) for at, (p, drive) in enumerate(full[:wanted])]

    def _full_drives(self) -> list[tuple[int, Drive]]:
        """Drives whose silence counts, local ones first."""
        full = [(p, d) for p, d in self._set.awake().items() if d.status().state is DriveState.FULL]
        return sorted(full, key=lambda item: not item[1].local)

    async def _fill(self, lanes: list[_Lane]) -> None:
        """Every lane has an entry to show, or has ended."""
        await together(self._fill_one(lanes, lane) for lane in lanes if lane.wants)

    async def _fill_one(self, lanes: list[_Lane], lane: _Lane) -> None:
        while lane.wants:
            try:
                page = await self._page(lane)
            except DriveError as error:
                self._replace(lanes, lane, error)
                continue
            if page.healing:
                self._replace(lanes, lane, None)
                continue
            lane.page, lane.index, lane.following = page, 0, page.following

    async def _page(self, lane: _Lane) -> ListPage:
        walk = self._walk
        assert lane.following is not None
        request = ListRequest(
            walk.space, walk.prefix, lane.following, walk.delimiter, walk.page_size, walk.tombstones, walk.hidden,
            lane.records,
        )  # fmt: skip
        return await bounded(lane.drive.list_registers(request))

    def _replace(self, lanes: list[_Lane], lane: _Lane, error: DriveError | None) -> None:
        """Go on with another drive from where the walk stands."""
        self._given_up.add(lane.position)
        taken = {other.position for other in lanes} | self._given_up
        for position, drive in self._full_drives():
            if position not in taken:
                lane.position, lane.drive = position, drive
                lane.page, lane.index, lane.following = _NOTHING, 0, self._reached
                return
        raise Unavailable(f"{self._set.name}: too few drives can be listed ({error or 'healing'})")


def _register(space: bytes, name: bytes) -> Register:
    return Register(space, *names.parse(name))


def _alike(ours: Sequence[object], theirs: Sequence[object], count: int) -> int:
    """How many of the first `count` are the same."""
    if ours == theirs:
        return count
    return next(at for at, (one, other) in enumerate(zip(ours, theirs, strict=True)) if one != other)


async def one_by_one(runs: AsyncGenerator[Run]) -> AsyncGenerator[Found]:
    """What the runs have, for whoever seldom needs many."""
    async with aclosing(runs):
        async for run in runs:
            for found in run:
                yield found


def counts(found: Record, walk: Walk) -> bool:
    """Whether it is there, for this walk."""
    return not found.deleted if walk.hidden else found.live


def start_after(prefix: str, delimiter: str, after: str) -> bytes:
    """The first start greater than `after`; beyond all its keys, where it names a common prefix."""
    if not after:
        return b""
    if delimiter and after.startswith(prefix):
        rest = after[len(prefix) :]
        if rest.endswith(delimiter) and rest.find(delimiter) == len(rest) - len(delimiter):
            return names.after_group(names.escape(after.encode()))
    return names.start_at(after.encode() + b"\0")
