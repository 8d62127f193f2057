"""One page of an ordered walk over a space.  Pure: the caller provides the registers from any place on.

The cost follows the answer: with a delimiter the walk begins anew past a group as soon as one live key of it is
found, so a bucket of a million keys under ten "folders" costs ten seeks.  What can still be long is a run of
registers that yield no entry (tombstones, fences), or records that are large; so a page ends after `MAX_STEPS`
rows or `MAX_PAGE_BYTES`, however few entries it has, and says where to go on.

Two kinds of page: `scan_page` shows all that is known of each register, for whoever looks after the drive;
`list_page` is for listings, by far the most frequent, and tells just what they decide by.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from holdfast_server.drives import keys, names
from holdfast_server.drives.port import (
    HIDDEN_INDEX,
    MAX_SCAN_ENTRIES,
    Held,
    ListPage,
    ListRequest,
    Register,
    ScanEntry,
    ScanPage,
    ScanRequest,
    Sign,
)

MAX_STEPS = 10_000
MAX_PAGE_BYTES = 4 << 20
"""Of records: one of a ten-thousand-part object has about a megabyte, and a page must fit into memory and frame."""

# As numbers: a flag's own arithmetic costs more than all else that is done for an entry.
_MARKED, _ABSENT, _GROUP = int(Sign.MARKED), int(Sign.ABSENT), int(Sign.GROUP)


class Kept(Protocol):
    """A record as a drive keeps it; see `port.Held`."""

    @property
    def stamp(self) -> int: ...
    @property
    def tombstone(self) -> bool: ...
    @property
    def record(self) -> bytes: ...
    @property
    def shard_index(self) -> int: ...
    @property
    def data_ids(self) -> tuple[bytes, ...]: ...


Shown = tuple[bytes, Sequence[Kept], int]
"""A register's name, its records newest first (none where there is only a fence), its mark."""

Registers = Callable[[bytes], Iterator[Shown]]
"""Those of one space in order, from a start on (`names`)."""


class _Question:
    """What of the registers is wanted: the same for both kinds of page."""

    def __init__(self, request: ScanRequest | ListRequest, max_steps: int) -> None:
        self.prefix = names.escape(request.prefix)
        self.delimiter = names.escape(request.delimiter)
        self.tombstones = request.tombstones
        self.hidden = request.hidden
        self.limit = max(1, min(request.limit, MAX_SCAN_ENTRIES))
        self.max_steps = max_steps

    def group(self, name: bytes) -> bytes:
        """The escaped common prefix that stands for the register; empty for none."""
        at = name.find(self.delimiter, len(self.prefix))
        end = at + len(self.delimiter)
        # What was found may be in the version, or the end of it in the terminator.
        return name[:end] if at >= 0 and end <= names.end_of_key(name) else b""

    def absent(self, record: Kept) -> bool:
        return record.tombstone or (record.shard_index == HIDDEN_INDEX and not self.hidden)

    def wanted(self, records: Sequence[Kept], mark: int, group: bytes) -> bool:
        """Of a register whose newest version is absent."""
        if group:
            # An undecided delete over a version that lives: the group may well exist, so the doubt is shown.
            return records[0].stamp != mark and any(not self.absent(record) for record in records)
        return self.tombstones or records[0].stamp != mark


def list_page(registers: Registers, request: ListRequest, healing: bool, max_steps: int = MAX_STEPS) -> ListPage:
    page = _Listing(_Question(request, max_steps), request.records)
    start: bytes | None = max(request.start, page.question.prefix)
    while start is not None and not page.full:
        start = page.take(registers(start))
    return ListPage(page.names, page.stamps, bytes(page.signs), page.firsts, page.records, start, healing)


class _Listing:
    """A page that is being filled."""

    def __init__(self, question: _Question, with_records: bool) -> None:
        self.question = question
        self.names: list[bytes] = []
        self.stamps: list[int] = []
        self.signs = bytearray()
        self.firsts: list[bytes] = []
        self.records: list[bytes] = []
        self.full = False
        self._with_records = with_records
        self._steps = 0
        self._size_bytes = 0

    def take(self, run: Iterator[Shown]) -> bytes | None:
        """As many as there is room for, up to a group; where to go on, None at the end."""
        # This is once per key and drive of every listing: no calls that can be saved.
        question = self.question
        prefix, limit, grouped = question.prefix, question.limit, bool(question.delimiter)
        for name, records, mark in run:
            if not name.startswith(prefix):
                return None
            if len(self.names) >= limit or self._steps >= question.max_steps or self._size_bytes >= MAX_PAGE_BYTES:
                self.full = True
                return name
            self._steps += 1
            if not records:
                continue
            newest = records[0]
            group = question.group(name) if grouped else b""
            sign = _MARKED if newest.stamp == mark else 0
            if (newest.tombstone or newest.shard_index == HIDDEN_INDEX) and question.absent(newest):
                if not question.wanted(records, mark, group):
                    continue
                sign |= _ABSENT
            self.stamps.append(newest.stamp)
            if group:
                return self._take_group(group, name, sign)
            self.names.append(name)
            self.signs.append(sign)
            if grouped:
                self.firsts.append(b"")
            if self._with_records:
                self.records.append(newest.record)
                self._size_bytes += len(newest.record)
        return None

    def _take_group(self, group: bytes, first: bytes, sign: int) -> bytes | None:
        self.names.append(group)
        self.signs.append(sign | _GROUP)
        self.firsts.append(first)
        if self._with_records:
            self.records.append(b"")
        return keys.successor(group)


def scan_page(registers: Registers, request: ScanRequest, healing: bool, max_steps: int = MAX_STEPS) -> ScanPage:
    question = _Question(request, max_steps)
    entries: list[ScanEntry] = []
    start: bytes | None = max(names.start_at(request.start, request.start_version), question.prefix)
    steps, size = 0, 0
    while start is not None:
        run, start = registers(start), None
        for name, records, mark in run:
            if not name.startswith(question.prefix):
                break
            key, version = names.parse(name)
            if len(entries) >= question.limit or steps >= max_steps or size >= MAX_PAGE_BYTES:
                return ScanPage(tuple(entries), key.encode(), healing, version)
            steps += 1
            group = question.group(name) if question.delimiter else b""
            if not records or (question.absent(records[0]) and not question.wanted(records, mark, group)):
                continue
            newest = _held(records[0])
            settled = len(records) == 1 and newest.stamp == mark
            register = Register(request.space, key, version)
            entries.append(ScanEntry(register, newest, mark, settled, names.unescape(group)))
            size += len(newest.record)
            if group:
                start = keys.successor(group)
                break
    return ScanPage(tuple(entries), None, healing)


def _held(record: Kept) -> Held:
    return Held(record.stamp, record.tombstone, record.record, record.shard_index, None, record.data_ids)
