"""Copying between two TCP sockets inside the kernel: socket → pipe → socket, without the bytes in Python.

Backpressure is the pipe's: nothing is read while the other side does not accept.  A pipe is borrowed only
while bytes are in flight, so thousands of idle connections hold none.  Where `splice` is missing the bytes go
through one buffer per direction.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
from collections.abc import Callable
from typing import NamedTuple

PIPE_SIZE_BYTES = 1024 * 1024
POOLED_PIPES = 32
BUFFER_SIZE_BYTES = 256 * 1024

_SPLICE: Callable[..., int] | None = getattr(os, "splice", None)
_SPLICE_FLAGS = 1 | 2
"""SPLICE_F_MOVE | SPLICE_F_NONBLOCK"""
_F_SETPIPE_SZ = 1031


class Pipe(NamedTuple):
    read_end: int
    write_end: int


class PipePool:
    """Keeps up to POOLED_PIPES empty pipes for reuse."""

    def __init__(self) -> None:
        self._idle: list[Pipe] = []

    def borrow(self) -> Pipe:
        if self._idle:
            return self._idle.pop()
        pipe = Pipe(*os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC))
        try:
            fcntl.fcntl(pipe.write_end, _F_SETPIPE_SZ, PIPE_SIZE_BYTES)
        except OSError:
            pass  # over the user's pipe quota: the default size works, only slower
        return pipe

    def give_back(self, pipe: Pipe) -> None:
        """Take an empty pipe back."""
        if len(self._idle) < POOLED_PIPES:
            self._idle.append(pipe)
        else:
            self.discard(pipe)

    def discard(self, pipe: Pipe) -> None:
        os.close(pipe.read_end)
        os.close(pipe.write_end)

    def close(self) -> None:
        while self._idle:
            self.discard(self._idle.pop())


class RelayBroken(OSError):
    """One side went away in the middle."""

    def __init__(self, message: str, answer_broken: bool) -> None:
        super().__init__(message)
        self.answer_broken = answer_broken
        """The second side had begun to answer what the first sent last."""


async def relay(first: socket.socket, second: socket.socket, pipes: PipePool) -> None:
    """Copy both ways until both sides have finished sending; raises RelayBroken when either breaks."""
    broken: BaseException | None = None
    last_sender = [first]
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_pump(first, second, pipes, last_sender))
            group.create_task(_pump(second, first, pipes, last_sender))
    except* OSError as errors:
        broken = errors.exceptions[0]
    if broken is not None:
        raise RelayBroken(str(broken), last_sender[0] is second) from broken


async def _pump(
    source: socket.socket, target: socket.socket, pipes: PipePool, last_sender: list[socket.socket]
) -> None:
    if _SPLICE is None:
        await _pump_through_buffer(source, target, last_sender)
    else:
        await _pump_through_pipe(_SPLICE, source, target, pipes, last_sender)
    try:
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # the target has gone already; its own direction ends with it


async def _pump_through_pipe(
    splice: Callable[..., int],
    source: socket.socket,
    target: socket.socket,
    pipes: PipePool,
    last_sender: list[socket.socket],
) -> None:
    while True:
        pipe = pipes.borrow()
        in_pipe = 0
        try:
            in_pipe = splice(source.fileno(), pipe.write_end, PIPE_SIZE_BYTES, flags=_SPLICE_FLAGS)
            ended = in_pipe == 0
            if in_pipe:
                last_sender[0] = source
            while in_pipe:
                try:
                    in_pipe -= splice(pipe.read_end, target.fileno(), in_pipe, flags=_SPLICE_FLAGS)
                except BlockingIOError:
                    await _ready(target, for_writing=True)
        except BlockingIOError:
            ended = False
        finally:
            if in_pipe:
                pipes.discard(pipe)  # never lend a pipe that still holds another connection's bytes
            else:
                pipes.give_back(pipe)
        if ended:
            return
        await _ready(source, for_writing=False)


async def _pump_through_buffer(source: socket.socket, target: socket.socket, last_sender: list[socket.socket]) -> None:
    loop = asyncio.get_running_loop()
    buffer = memoryview(bytearray(BUFFER_SIZE_BYTES))
    while count := await loop.sock_recv_into(source, buffer):
        last_sender[0] = source
        await loop.sock_sendall(target, buffer[:count])


async def _ready(connection: socket.socket, for_writing: bool) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    descriptor = connection.fileno()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    (loop.add_writer if for_writing else loop.add_reader)(descriptor, wake)
    try:
        await ready
    finally:
        (loop.remove_writer if for_writing else loop.remove_reader)(descriptor)
