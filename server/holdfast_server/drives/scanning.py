"""One page of an ordered walk over a space.  Pure: the caller provides the registers from any place on.

The cost follows the answer: with a delimiter the walk goes on past a group as soon as one live key of it is found,
so a bucket of a million keys under ten "folders" costs ten seeks.  What can still be long is a run of
registers that yield no entry (tombstones, fences), or records that are large; so a page ends after `MAX_STEPS`
rows or `MAX_PAGE_BYTES`, however few entries it has, and says where to go on.

Two kinds of page: `scan_page` shows all that is known of each register, for whoever looks after the drive;
`list_page` is for listings, by far the most frequent, and tells just what they decide by.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
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

Walk = Generator[Shown, bytes | None, None]
"""Registers in order; who sends it a start (`names`) goes on there."""

Registers = Callable[[bytes], Walk]
"""Those of one space, from a start on."""


class _Question:
    """What of the registers is wanted: the same for both kinds of page."""

    def __init__(self, request: ScanRequest | ListRequest) -> None:
        self.prefix = names.escape(request.prefix)
        self.delimiter = names.escape(request.delimiter)
        self.tombstones = request.tombstones
        self.hidden = request.hidden
        self.limit = max(1, min(request.limit, MAX_SCAN_ENTRIES))

    def end_of_group(self, name: bytes) -> int:
        """Of the escaped common prefix that stands for the register; 0 for none."""
        at = name.find(self.delimiter, len(self.prefix))
        end = at + len(self.delimiter)
        # What was found may be in the version, or the end of it in the terminator.
        return end if at >= 0 and end <= names.end_of_key(name) else 0

    def absent(self, record: Kept) -> bool:
        return record.tombstone or (record.shard_index == HIDDEN_INDEX and not self.hidden)

    def wanted(self, records: Sequence[Kept], mark: int, grouped: bool) -> bool:
        """Of a register whose newest version is absent."""
        if grouped:
            # An undecided delete over a version that lives: the group may well exist, so the doubt is shown.
            return records[0].stamp != mark and any(not self.absent(record) for record in records)
        return self.tombstones or records[0].stamp != mark


def list_page(registers: Registers, request: ListRequest, healing: bool, max_steps: int = MAX_STEPS) -> ListPage:
    # The loop is once per key and drive of every listing: no calls that can be saved.
    question, with_records = _Question(request), request.records
    prefix, limit, delimiter = question.prefix, question.limit, question.delimiter
    found: list[bytes] = []
    stamps: list[int] = []
    signs = bytearray()
    firsts: list[bytes] = []
    records: list[bytes] = []
    steps = size_bytes = end = 0
    behind: bytes | None = None
    following: bytes | None = None
    advance = registers(max(request.start, prefix)).send
    try:
        while True:
            name, versions, mark = advance(behind)
            behind = None
            if not name.startswith(prefix):
                break
            if len(found) >= limit or steps >= max_steps or size_bytes >= MAX_PAGE_BYTES:
                following = name
                break
            steps += 1
            if not versions:
                continue
            newest = versions[0]
            if delimiter:
                end = question.end_of_group(name)
            sign = _MARKED if newest.stamp == mark else 0
            if (newest.tombstone or newest.shard_index == HIDDEN_INDEX) and question.absent(newest):
                if not question.wanted(versions, mark, end > 0):
                    continue
                sign |= _ABSENT
            stamps.append(newest.stamp)
            if end:
                group = name[:end]
                found.append(group)
                signs.append(sign | _GROUP)
                firsts.append(name)
                if with_records:
                    records.append(b"")
                behind = keys.successor(group)
                continue
            found.append(name)
            signs.append(sign)
            if delimiter:
                firsts.append(b"")
            if with_records:
                records.append(newest.record)
                size_bytes += len(newest.record)
    except StopIteration:
        pass  # the end of the space
    return ListPage(found, stamps, bytes(signs), firsts, records, following, healing)


def scan_page(registers: Registers, request: ScanRequest, healing: bool, max_steps: int = MAX_STEPS) -> ScanPage:
    question = _Question(request)
    entries: list[ScanEntry] = []
    steps, size = 0, 0
    walk = registers(max(names.start_at(request.start, request.start_version), question.prefix))
    shown = next(walk, None)
    while shown is not None:
        name, records, mark = shown
        if not name.startswith(question.prefix):
            break
        key, version = names.parse(name)
        if len(entries) >= question.limit or steps >= max_steps or size >= MAX_PAGE_BYTES:
            return ScanPage(tuple(entries), key.encode(), healing, version)
        steps += 1
        end = question.end_of_group(name) if question.delimiter else 0
        behind = None
        if records and (not question.absent(records[0]) or question.wanted(records, mark, end > 0)):
            newest = _held(records[0])
            settled = len(records) == 1 and newest.stamp == mark
            group = name[:end]
            entries.append(
                ScanEntry(Register(request.space, key, version), newest, mark, settled, names.unescape(group))
            )
            size += len(newest.record)
            behind = keys.successor(group) if end else None
        try:
            shown = walk.send(behind)
        except StopIteration:
            break
    return ScanPage(tuple(entries), None, healing)


def _held(record: Kept) -> Held:
    return Held(record.stamp, record.tombstone, record.record, record.shard_index, None, record.data_ids)
