"""The way past a transport: what is in pipes goes to its socket without being copied by anybody.

The transport must have nothing left to send when it begins, and be given nothing until it is through; whose business
that is, `connection` tells.  The socket has a second descriptor for it, since the loop minds those of its transports.
A socket that takes no more is waited for like any other.  Nothing here waits.

Not here: deadlines.  A peer that takes nothing is missed by its pings, like one whose transport is full.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable

from holdfast_server.memory.pipes import AVAILABLE, Piped


class _OwnSocket(socket.socket):
    """Closed with whoever has it, be it that its connection was never told of its end: then the loop has gone first."""

    def __del__(self) -> None:
        self.close()


class Bypass:
    """See the module."""

    def __init__(self, sock: socket.socket) -> None:
        """`sock` becomes ours."""
        self._socket = sock
        self._loop = asyncio.get_running_loop()
        self._ahead = memoryview(b"")
        self._piped: Piped | None = None
        self._waits = False
        self._on_sent: Callable[[], None] | None = None
        self._on_failed: Callable[[str], None] | None = None

    @property
    def busy(self) -> bool:
        return self._piped is not None

    def send(self, ahead: bytes, piped: Piped, on_sent: Callable[[], None], on_failed: Callable[[str], None]) -> bool:
        """What goes `ahead`, then what is in the pipes.  True: all is out already; else `on_sent` is called once it is.
        Or `on_failed`, maybe at once: nobody knows how much went out, so the connection has to end."""
        self._ahead, self._piped = memoryview(ahead), piped
        self._on_sent, self._on_failed = on_sent, on_failed
        return self._go_on()

    def close(self) -> None:
        """What was not sent stays so; idempotent."""
        self._forget()
        self._socket.close()

    def _go_on(self) -> bool:
        piped = self._piped
        assert piped is not None
        try:
            done = self._send_ahead() and piped.send(self._socket)
        except OSError as error:
            on_failed = self._on_failed
            self._forget()
            if on_failed is not None:
                on_failed(f"sending failed: {error}")
            return False
        if done:
            self._forget()
        elif not self._waits:
            self._waits = True
            self._loop.add_writer(self._socket.fileno(), self._writable)
        return done

    def _send_ahead(self) -> bool:
        try:
            while self._ahead:
                sent = self._socket.send(self._ahead, socket.MSG_MORE | socket.MSG_DONTWAIT)
                self._ahead = self._ahead[sent:]
        except BlockingIOError:
            return False
        return True

    def _writable(self) -> None:
        on_sent = self._on_sent
        if self._go_on() and on_sent is not None:
            on_sent()

    def _forget(self) -> None:
        if self._waits:
            self._waits = False
            self._loop.remove_writer(self._socket.fileno())
        self._piped = self._on_sent = self._on_failed = None
        self._ahead = memoryview(b"")


def bypass_to(transport_socket: socket.socket) -> Bypass | None:
    """None where there is no such way."""
    if not AVAILABLE:
        return None
    try:
        descriptor = os.dup(transport_socket.fileno())
    except OSError:
        return None
    return Bypass(_OwnSocket(transport_socket.family, transport_socket.type, fileno=descriptor))
