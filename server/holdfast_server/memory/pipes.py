"""Bytes of files that wait in the kernel for a socket, without passing through this process's memory.

A pipe takes references to the pages a file has in memory (`splice`), and a socket takes them from the pipe: what a peer
asks for is neither copied here nor looked at.  A file that is replaced or unlinked meanwhile keeps those pages; one
that is written over does not (`drives.spares` sees to that).

All of an answer is in pipes before the first byte of it is sent, so that a disk that fails or hangs can still be told
as what it is: filling them waits for the disk and is for worker threads, emptying them never waits and is for the loop.

Bounds: so many pipes of PIPE_SIZE_BYTES; where none is left, or the kernel gives no more of them (it counts those of a
user, `fs.pipe-user-pages-soft`), or the file system has no `splice`, the caller reads as ever.
Invariant: a pipe that is used again is empty; one that is not is closed.

Not here: who may hold how much for how long (`budget`), what goes before and behind them (`peers.connection`).
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import threading
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from holdfast_server.memory.buffers import uncleared_pages

PIPE_SIZE_BYTES = 1 << 20
"""The most that a process without privileges may have of one, as kernels come."""
COPIED_BYTES = 64 << 10
"""What is left over by full pipes, up to so much, is copied: a pipe for it costs more."""

_NO_SPLICE_ERRORS = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
_SET_PIPE_SIZE: int | None = getattr(fcntl, "F_SETPIPE_SZ", None)
AVAILABLE = hasattr(os, "splice") and _SET_PIPE_SIZE is not None
_MORE, _NOW = (os.SPLICE_F_NONBLOCK | os.SPLICE_F_MORE, os.SPLICE_F_NONBLOCK) if AVAILABLE else (0, 0)


def set_pipe_size(descriptor: int) -> int:
    """To PIPE_SIZE_BYTES, empty as it is; what it has now.  Raises OSError."""
    assert _SET_PIPE_SIZE is not None
    return fcntl.fcntl(descriptor, _SET_PIPE_SIZE, PIPE_SIZE_BYTES)


class _Pipe(NamedTuple):
    read_end: int
    write_end: int

    def close(self) -> None:
        os.close(self.read_end)
        os.close(self.write_end)


class NoSplice(Exception):
    """The file system has no such thing."""


class Pipes:
    """The pipes of one pod; they are made when they are needed first.  Safe from any thread."""

    def __init__(self, most: int) -> None:
        self._most = most if AVAILABLE else 0
        """How many there may be; those that exist, once the kernel has refused another."""
        self._made = 0
        self._idle: list[_Pipe] = []
        # Entered again where garbage is collected while it is held.
        self._lock = threading.RLock()

    @property
    def taken(self) -> int:
        """How many are in use."""
        return self._made - len(self._idle)

    def load(self, descriptor: int, offset: int, sizes: Sequence[int]) -> Piped | None:
        """Pieces of a file that lie one after the other, of these sizes in bytes, on a worker thread; None where there
        are not enough pipes.

        What the file has no more of is not in it: see `Piped.size_bytes`.  Raises NoSplice, and OSError as the disk has
        it.
        """
        size_bytes = sum(sizes)
        full, rest = divmod(size_bytes, PIPE_SIZE_BYTES)
        pipes = self._take(full + (rest > COPIED_BYTES))
        if pipes is None:
            return None
        piped = Piped(self, pipes, sizes)
        try:
            piped.fill(descriptor, offset, size_bytes)
        except BaseException as error:
            piped.close()
            if isinstance(error, OSError) and error.errno in _NO_SPLICE_ERRORS:
                raise NoSplice(str(error)) from error
            raise
        return piped

    def close(self) -> None:
        """Of those in use each is closed when it comes back."""
        with self._lock:
            self._most = 0
            self._close_idle()

    def _take(self, count: int) -> list[_Pipe] | None:
        with self._lock:
            while len(self._idle) < count:
                if self._made >= self._most or not self._make():
                    return None
            taken = self._idle[len(self._idle) - count :]
            del self._idle[len(self._idle) - count :]
            return taken

    def _make(self) -> bool:
        try:
            pipe = _Pipe(*os.pipe2(os.O_CLOEXEC))
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):  # a descriptor will be free again
                self._most = self._made
            return False
        try:
            size = set_pipe_size(pipe.write_end)
        except OSError:
            size = 0
        if size < PIPE_SIZE_BYTES:
            pipe.close()
            self._most = self._made
            return False
        self._idle.append(pipe)
        self._made += 1
        return True

    def give_back(self, pipe: _Pipe, *, empty: bool) -> None:
        with self._lock:
            if empty and self._most:
                self._idle.append(pipe)
                return
            self._made -= 1
        pipe.close()

    def _close_idle(self) -> None:
        for pipe in self._idle:
            pipe.close()
        self._made -= len(self._idle)
        self._idle.clear()

    def __del__(self) -> None:
        self._close_idle()


class Piped:
    """Bytes in pipes, to be sent once or given up.  Belongs to whoever holds it; what is dropped is closed."""

    def __init__(self, pipes: Pipes, taken: list[_Pipe], sizes: Sequence[int]) -> None:
        self._pipes = pipes
        self.sizes = sizes
        """What the bytes are cut into."""
        self._unfilled = taken
        self._filled: deque[tuple[_Pipe, int]] = deque()
        """With the bytes in each."""
        self._tail = memoryview(b"")
        """What comes behind those."""
        self.size_bytes = 0
        """Of all; of what has yet to be sent, once that has begun."""

    def fill(self, descriptor: int, offset: int, size_bytes: int) -> None:
        """Once, on a worker thread.  Raises OSError."""
        end = offset + size_bytes
        while self._unfilled and offset < end:
            pipe = self._unfilled[-1]
            # One call for each pipe: it takes what fits, which is less where the bytes do not begin with a page.
            count = os.splice(descriptor, pipe.write_end, min(end - offset, PIPE_SIZE_BYTES), offset_src=offset)
            if not count:
                return
            self._unfilled.pop()
            self._filled.append((pipe, count))
            offset += count
            self.size_bytes += count
        if offset < end:
            tail = memoryview(os.pread(descriptor, end - offset, offset))
            self._tail = tail
            self.size_bytes += len(tail)

    def send(self, destination: socket.socket) -> bool:
        """As much as the socket takes at once; True when all is out.  Raises OSError: then nobody knows how much is."""
        try:
            while self._filled:
                self._send_pipe(destination.fileno())
            while self._tail:
                sent = destination.send(self._tail, socket.MSG_DONTWAIT)
                self._tail = self._tail[sent:]
                self.size_bytes -= sent
        except BlockingIOError:
            return False
        self.close()
        return True

    def _send_pipe(self, descriptor: int) -> None:
        pipe, left = self._filled[0]
        is_last = len(self._filled) == 1 and not self._tail
        sent = os.splice(pipe.read_end, descriptor, left, flags=_NOW if is_last else _MORE)
        if not sent:
            raise OSError(errno.EIO, "a page has left the pipe it was in")
        self.size_bytes -= sent
        if sent < left:
            self._filled[0] = pipe, left - sent
            return
        self._filled.popleft()
        self._pipes.give_back(pipe, empty=True)

    def read(self) -> memoryview:
        """All of it instead, of which nothing was sent, as a copy."""
        out = uncleared_pages(self.size_bytes)
        at = 0
        while self._filled:
            pipe, left = self._filled[0]
            count = os.readv(pipe.read_end, [out[at : at + left]])
            assert count, "a pipe has what was put in"
            at += count
            if count < left:
                self._filled[0] = pipe, left - count
                continue
            self._filled.popleft()
            self._pipes.give_back(pipe, empty=True)
        out[at:] = self._tail
        self.close()
        return out

    def close(self) -> None:
        """Give up what was not sent; idempotent."""
        while self._unfilled:
            self._pipes.give_back(self._unfilled.pop(), empty=True)
        while self._filled:
            self._pipes.give_back(self._filled.popleft()[0], empty=False)
        self._tail = memoryview(b"")

    def __del__(self) -> None:
        self.close()
