"""Listings asked of a pod of an earlier release, which knows scans only: the same question, and its answer in columns.

Pure.  To be dropped with the first release that need not be rolled to from one without `LIST_PAGES_FEATURE`.
"""

from __future__ import annotations

from holdfast_server.drives import names
from holdfast_server.drives.port import ListPage, ListRequest, ScanEntry, ScanPage, ScanRequest, Sign


def scan_request(request: ListRequest) -> ScanRequest:
    start, version = names.position(request.start)
    return ScanRequest(
        request.space, request.prefix, start, request.delimiter, request.limit, request.tombstones, version,
        request.hidden,
    )  # fmt: skip


def columns(page: ScanPage, request: ListRequest) -> ListPage:
    """What the pod would have answered to `request`."""
    entries = page.entries
    return ListPage(
        [names.escape(entry.group) or names.name_of(entry.register) for entry in entries],
        [entry.newest.stamp for entry in entries],
        bytes([_sign(entry, request.hidden) for entry in entries]),
        [names.name_of(entry.register) if entry.group else b"" for entry in entries] if request.delimiter else [],
        [b"" if entry.group else entry.newest.record for entry in entries] if request.records else [],
        None if page.next_start is None else names.start_at(page.next_start, page.next_version),
        page.healing,
    )


def _sign(entry: ScanEntry, hidden: bool) -> int:
    sign = Sign.MARKED if entry.mark == entry.newest.stamp else Sign(0)
    if entry.newest.tombstone or (entry.newest.hidden and not hidden):
        sign |= Sign.ABSENT
    return sign | (Sign.GROUP if entry.group else 0)
