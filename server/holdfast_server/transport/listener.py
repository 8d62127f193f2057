"""A listening port that takes TLS and plain connections side by side, told apart by their first bytes.

The choice is made for each connection, with what is in force at that moment: a renewed certificate serves the next
connection, and a tenant can begin or cease to use TLS while it runs (docs/decisions/0007-tls.md).  A TLS connection
begins with a handshake record, 16 03 and a minor version from 01 on; HTTP begins with a letter, and a peer's frame
of such a size would be larger than any that begins a connection.  The bytes are looked at and left in the socket.

Bounds: MAX_ARRIVING connections that have not said what they are, or wait for their handshake, each for
`first_bytes_seconds`; one more takes the place of the oldest.  `max_shaking_hands` in their TLS handshake, each for
`tls.HANDSHAKE_SECONDS`; while others wait, CROWDED_SECONDS must do.  A burst of connections is served in turn, and
those that come no further do not hold up the others for long.

Not here: what is spoken inside, and how many connections there may be (the protocols).
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from holdfast_server.transport.tls import HANDSHAKE_SECONDS
from holdfast_server.transport.tls_connection import READ_SIZE_BYTES, TlsConnection

log = logging.getLogger(__name__)

MAX_ARRIVING = 512
MAX_SHAKING_HANDS = 128
"""Fewer: a handshake takes up to 160 KiB where the client makes the most of it."""
CROWDED_SECONDS = 5.0
BACKLOG = 1024
FIRST_BYTES_SECONDS = 30.0
ACCEPT_PAUSE_SECONDS = 0.5
"""After a failure to accept, which is mostly a want of file descriptors."""
_HANDSHAKE_RECORD = b"\x16\x03"
_PEEKED_BYTES = 3
_PEEKS = 4
"""One that finds nothing, one that finds enough, and some for kernels that wake for less than was asked for.  Who has
not sent enough then has closed."""
_PEEK_AGAIN_SECONDS = 0.2


class Admission(NamedTuple):
    """What is asked for each connection."""

    tls: Callable[[], ssl.SSLContext | None] = lambda: None
    """The context to serve TLS with; None while there is none."""
    plain: Callable[[], bool] = lambda: True
    """Whether a connection without TLS may come in."""


class Listener:
    """See the module."""

    def __init__(
        self,
        make_protocol: Callable[[], asyncio.BufferedProtocol],
        admission: Admission,
        first_bytes_seconds: float = FIRST_BYTES_SECONDS,
        max_shaking_hands: int = MAX_SHAKING_HANDS,
    ) -> None:
        self._make_protocol, self._admission = make_protocol, admission
        self._first_bytes_seconds = first_bytes_seconds
        self._sockets: list[socket.socket] = []
        self._accepting: list[asyncio.Task[None]] = []
        self._arriving = _Few(MAX_ARRIVING)
        self._shaking_hands = _InTurn(max_shaking_hands)
        self._buffer = memoryview(bytearray(READ_SIZE_BYTES))
        """Of all its TLS connections."""

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port, of use where 0 was given.  Raises OSError."""
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except (OSError, UnicodeError) as error:  # the latter of a name with an empty label
            reason = getattr(error, "strerror", None) or "not the name of a host"
            raise OSError(errno.EADDRNOTAVAIL, f"{host!r} is no address to listen on: {reason}") from error
        try:
            for family, kind, protocol, _, address in dict.fromkeys(found):
                self._sockets.append(_bound(family, kind, protocol, address))
        except OSError:
            await self.close()
            raise
        self._accepting = [loop.create_task(self._accept_for_ever(listening)) for listening in self._sockets]
        return int(self._sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Accept nothing more; connections that a protocol has already are its own."""
        tasks = [*self._accepting, *self._arriving.tasks, *self._shaking_hands.tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for listening in self._sockets:
            listening.close()
        self._sockets, self._accepting = [], []

    async def _accept_for_ever(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            # Not `sock_accept`: what it has accepted when its caller is cancelled belongs to nobody.
            await _readable(listening)
            try:
                accepted, address = listening.accept()
            except (BlockingIOError, ConnectionAbortedError):
                continue  # who was there has left
            except OSError as error:
                log.error("no connection can be accepted", extra={"reason": str(error)})
                await asyncio.sleep(ACCEPT_PAUSE_SECONDS)
                continue
            task = loop.create_task(self._take(accepted, str(address[0])))
            task.add_done_callback(partial(_close_if_cancelled, accepted))
            self._arriving.add(task)

    async def _take(self, accepted: socket.socket, address: str) -> None:
        """Give the connection to a protocol, or close it; who is cancelled need not."""
        loop = asyncio.get_running_loop()
        try:
            accepted.setblocking(False)
            context = self._admission.tls()
            if context is not None:
                async with asyncio.timeout(self._first_bytes_seconds):
                    if not await _begins_with_tls(accepted):
                        context = None
            if context is None and not self._admission.plain():
                log.info("a connection without TLS is refused", extra={"address": address})
                accepted.close()
                return
            if context is None:
                await loop.connect_accepted_socket(self._make_protocol, accepted)
            else:
                await self._shake_hands(accepted, context)
        except (OSError, TimeoutError) as error:
            log.info("a connection came to nothing", extra={"address": address, "reason": str(error) or "too slow"})
            accepted.close()

    async def _shake_hands(self, accepted: socket.socket, context: ssl.SSLContext) -> None:
        """Raises OSError, TimeoutError."""
        task = asyncio.current_task()
        assert task is not None
        async with asyncio.timeout(self._first_bytes_seconds):
            await self._shaking_hands.enter(task)
        self._arriving.forget(task)
        connection = TlsConnection(self._make_protocol(), context, self._buffer, server_side=True)
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                await asyncio.get_running_loop().connect_accepted_socket(lambda: connection, accepted)
                await connection.established()
        except ssl.SSLError:
            raise  # it is closing, with an alert that says why
        except BaseException:
            connection.abort()
            raise
        finally:
            self._shaking_hands.leave(task)


class _Few:
    """Tasks of which there may be so many; one more takes the place of the oldest."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.tasks: dict[asyncio.Task[None], None] = {}
        """The oldest first."""

    def add(self, task: asyncio.Task[None]) -> None:
        if len(self.tasks) >= self._most:
            oldest = next(iter(self.tasks))
            del self.tasks[oldest]
            oldest.cancel()
        self.tasks[task] = None
        task.add_done_callback(self.forget)

    def forget(self, task: asyncio.Task[None]) -> None:
        self.tasks.pop(task, None)


class _InTurn:
    """Tasks of which there may be so many; others wait, and after a while those that take long have to go."""

    def __init__(self, most: int) -> None:
        self._places = asyncio.Semaphore(most)
        self.tasks: dict[asyncio.Task[None], float] = {}
        """Since when; the oldest first."""

    async def enter(self, task: asyncio.Task[None]) -> None:
        """The caller says how long it may take."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                async with asyncio.timeout(CROWDED_SECONDS):
                    await self._places.acquire()
                break
            except TimeoutError:
                self._end_oldest(loop.time() - CROWDED_SECONDS)
        self.tasks[task] = loop.time()

    def _end_oldest(self, begun_before: float) -> None:
        for task, since in self.tasks.items():
            if since <= begun_before and not task.cancelling():
                task.cancel()
                return

    def leave(self, task: asyncio.Task[None]) -> None:
        del self.tasks[task]
        self._places.release()


def _bound(family: int, kind: int, protocol: int, address: tuple[object, ...]) -> socket.socket:
    try:
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listening.bind(address)
            listening.listen(BACKLOG)
            listening.setblocking(False)
        except OSError:
            listening.close()
            raise
    except OSError as error:
        raise OSError(error.errno, f"{address[0]} port {address[1]}: {error.strerror}") from error
    return listening


def _close_if_cancelled(accepted: socket.socket, task: asyncio.Task[None]) -> None:
    """A task that is cancelled before its first step could not close anything itself."""
    if task.cancelled():
        accepted.close()


async def _begins_with_tls(accepted: socket.socket) -> bool:
    """Raises ConnectionError where the other end leaves without a word."""
    # To be woken once, whoever sends byte by byte.
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, _PEEKED_BYTES)
    for _ in range(_PEEKS):
        first = _peek(accepted)
        if first is not None and first[:1] != _HANDSHAKE_RECORD[:1]:
            break
        if first is not None and len(first) == _PEEKED_BYTES:
            break
        if first is not None:
            await asyncio.sleep(_PEEK_AGAIN_SECONDS)
        await _readable(accepted)
    else:
        raise ConnectionResetError("closed within its first bytes")
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
    return first.startswith(_HANDSHAKE_RECORD) and 0x01 <= first[2] <= 0x04


def _peek(accepted: socket.socket) -> bytes | None:
    """None while nothing has come.  Raises ConnectionError."""
    try:
        first = accepted.recv(_PEEKED_BYTES, socket.MSG_PEEK)
    except BlockingIOError:
        return None
    if not first:
        raise ConnectionResetError("closed without a word")
    return first


async def _readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(sock.fileno(), _wake, ready)
    try:
        await ready
    finally:
        loop.remove_reader(sock.fileno())


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
