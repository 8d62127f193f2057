"""Appending to one file, past the page cache where that can be: whole pages directly, the last part of one through it.

Direct I/O takes half the CPU of the page cache, but only whole pages, from memory that begins at one.  So what does
not fill the last page is kept here until more comes, and is then put in front of it; the rest goes out from where it
is, if that begins in memory where it will begin in its page of the file.  Whoever has the bytes in memory sees to that
(`memory.buffers.uncleared_pages`, `erasure.codec.Layout`, `peers.frames`); where it is not so, where little comes at a
time, or where the file system has no direct I/O, all goes through the page cache, and the file is the same.

A file that is written over (`spares`) has bytes behind the end already.  Its last page is written whole, since a part
of it would be read from the disk first, and then it is cut to its size.  Before the last there are whole pages only.

Invariant: `_at` is a multiple of pages, the file has all bytes before it, and `_tail` is what comes after them.

Not here: when bytes are durable, whose file it is.  Called by one thread at a time.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Sequence

from holdfast_server.drives.port import Block
from holdfast_server.memory.buffers import PAGE_SIZE_BYTES, address_of, as_one, uncleared_pages
from holdfast_server.memory.views import sliced

DIRECT_FROM_BYTES = 128 << 10
"""Below it, waiting for the device costs more than the page cache."""
_MAX_BUFFERS_PER_WRITE = 512


class PageAppends:
    """See the module."""

    def __init__(self, descriptor: int, over: bool = False) -> None:
        """Of an empty file, or `over` what a file has."""
        self._descriptor = descriptor
        self._over = over
        self._at = 0
        self._tail = b""

    def append(self, buffers: Sequence[Block], ending: Sequence[bytes] = ()) -> None:
        """Write all but what does not fill the last page.  With an `ending` that, too, and then the ending: nothing is
        appended any more.  Raises OSError: what the file has is not known then."""
        views = self._directly([memoryview(buffer) for buffer in buffers if len(buffer)])
        if ending:
            self._end([memoryview(self._tail), *views, *(memoryview(piece) for piece in ending)])
            return
        views = [memoryview(self._tail), *views]
        size_bytes = sum(map(len, views))
        left = size_bytes % PAGE_SIZE_BYTES
        self._write(sliced(views, 0, size_bytes - left))
        self._tail = b"".join(_after(views, size_bytes - left))
        self._at += size_bytes - left

    def _end(self, views: list[memoryview]) -> None:
        if not self._over:
            self._write(views)
            return
        end = self._at + sum(map(len, views))
        self._write([*views, memoryview(bytes(-end % PAGE_SIZE_BYTES))])
        os.ftruncate(self._descriptor, end)

    def _directly(self, views: list[memoryview]) -> list[memoryview]:
        """Write what can be, whole pages from the first byte on; what is left of the views."""
        run = as_one(_together(views))
        if run is None or len(run) < DIRECT_FROM_BYTES:
            return views
        kept = len(self._tail)
        if address_of(run) % PAGE_SIZE_BYTES != kept:
            return views
        buffers: list[memoryview] = []
        ahead_bytes = 0
        if kept:
            ahead_bytes = PAGE_SIZE_BYTES - kept
            page = uncleared_pages(PAGE_SIZE_BYTES)
            page[:kept], page[kept:] = self._tail, run[:ahead_bytes]
            buffers.append(page)
        pages_bytes = (len(run) - ahead_bytes) // PAGE_SIZE_BYTES * PAGE_SIZE_BYTES
        buffers.append(run[ahead_bytes : ahead_bytes + pages_bytes])
        size_bytes = sum(map(len, buffers))
        if self._write_directly(buffers) != size_bytes:
            return views  # all of it once more, the other way
        self._at += size_bytes
        self._tail = b""
        return _after(views, ahead_bytes + pages_bytes)

    def _write_directly(self, buffers: list[memoryview]) -> int:
        """How much of it the file has now."""
        flags = fcntl.fcntl(self._descriptor, fcntl.F_GETFL)
        try:
            fcntl.fcntl(self._descriptor, fcntl.F_SETFL, flags | os.O_DIRECT)
            try:
                return os.pwritev(self._descriptor, buffers, self._at)
            finally:
                fcntl.fcntl(self._descriptor, fcntl.F_SETFL, flags)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return 0  # the file system does not have it

    def _write(self, views: list[memoryview]) -> None:
        """Through the page cache, gathered, however short each write falls."""
        offset = self._at
        views = [view for view in views if len(view)]
        while views:
            written = os.pwritev(self._descriptor, views[:_MAX_BUFFERS_PER_WRITE], offset)
            offset += written
            views = _after(views, written)


def _after(views: list[memoryview], count: int) -> list[memoryview]:
    """Without the first `count` bytes."""
    gone = 0
    while count and count >= len(views[gone]):
        count -= len(views[gone])
        gone += 1
    left = views[gone:]
    if count:
        left[0] = left[0][count:]
    return left


def _together(views: list[memoryview]) -> list[memoryview]:
    """The first of them that are views of one buffer."""
    count = 0
    while count < len(views) and views[count].obj is views[0].obj:
        count += 1
    return views[:count]
