"""One page of an ordered walk over a space.  Pure: the walk moves a cursor that its caller provides.

The cost follows the answer: with a delimiter the cursor seeks past a group as soon as one live key of it is
found, so a bucket of a million keys under ten "folders" costs ten seeks.  What can still be long is a run of
registers that yield no entry (tombstones, fences), or records that are large; so a page ends after `MAX_STEPS`
rows or `MAX_PAGE_BYTES`, however few entries it has, and says where to go on.
"""

from __future__ import annotations

from typing import Protocol

from holdfast_server.drives import keys
from holdfast_server.drives.port import MAX_SCAN_ENTRIES, Held, Register, ScanEntry, ScanPage, ScanRequest

MAX_STEPS = 10_000
MAX_PAGE_BYTES = 4 << 20
"""Of records: one of a ten-thousand-part object has about a megabyte, and a page must fit into memory and frame."""


class RegisterCursor(Protocol):
    """Registers of one space in order."""

    def seek(self, key: bytes, version: bytes) -> None:
        """To the first register at or above (key, version)."""

    def current(self) -> tuple[Register, tuple[Held, ...], int] | None:
        """The register, its records newest first without inline shards (none where there is only a fence),
        and its mark; None at the end of the space."""

    def next(self) -> None: ...


def scan_page(cursor: RegisterCursor, request: ScanRequest, healing: bool, max_steps: int = MAX_STEPS) -> ScanPage:
    limit = max(1, min(request.limit, MAX_SCAN_ENTRIES))
    entries: list[ScanEntry] = []
    if request.start >= request.prefix:
        cursor.seek(request.start, request.start_version)
    else:
        cursor.seek(request.prefix, b"")
    steps, size = 0, 0
    while (found := cursor.current()) is not None:
        register, records, mark = found
        key = register.key.encode()
        if not key.startswith(request.prefix):
            break
        if len(entries) >= limit or steps >= max_steps or size >= MAX_PAGE_BYTES:
            return ScanPage(tuple(entries), key, healing, register.version)
        steps += 1
        group = _group(key, request)
        if not _wanted(records, mark, request, group):
            cursor.next()
            continue
        settled = len(records) == 1 and records[0].stamp == mark
        entries.append(ScanEntry(register, records[0], mark, settled, group))
        size += len(records[0].record)
        if not group:
            cursor.next()
        elif (behind := keys.successor(group)) is not None:
            cursor.seek(behind, b"")
        else:
            break
    return ScanPage(tuple(entries), None, healing)


def _group(key: bytes, request: ScanRequest) -> bytes:
    if not request.delimiter:
        return b""
    at = key.find(request.delimiter, len(request.prefix))
    return key[: at + len(request.delimiter)] if at >= 0 else b""


def _wanted(records: tuple[Held, ...], mark: int, request: ScanRequest, group: bytes) -> bool:
    if not records:
        return False
    newest = records[0]
    if not _absent(newest, request):
        return True
    if group:
        # An undecided delete over a version that lives: the group may well exist, so the doubt is shown.
        return newest.stamp != mark and any(not _absent(record, request) for record in records)
    return request.tombstones or newest.stamp != mark


def _absent(record: Held, request: ScanRequest) -> bool:
    """For this walk."""
    return record.tombstone or (record.hidden and not request.hidden)
