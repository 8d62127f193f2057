"""One client's connection: heads are found in what comes, and answered one at a time, in their order.

- What is no valid HTTP is answered with the handler's words, and is then read and thrown away for a bounded while:
  closing with unread bytes makes the kernel reset the connection, and the client would never see why it was refused.
- While a request is answered, nothing is read but its body, as far as the body wants it, and once that is complete what
  comes with one read: the next requests of a client that does not wait for answers.
- A client that shuts down its sending side is still answered, whatever it had asked completely; a body that is cut
  short this way gets its IncompleteBody.
- What is written beyond what the socket takes makes the handler wait (`drained`), for a bounded time; and a client that
  takes nothing is left to the kernel to cut, whether a handler waits for it or nobody any more.

A connection that is lost does not end the handler: it learns of it when it reads or writes.

Not here: how long heads, rests and waits may take, who gives way to whom (`places`).
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Sequence
from typing import cast

from holdfast_server.api.http.answer import CONTINUE
from holdfast_server.api.http.body import HttpBody
from holdfast_server.api.http.head import END, malformed, too_large
from holdfast_server.api.http.places import Site
from holdfast_server.s3.errors import S3Error

LINGER_SIZE_BYTES = 32 << 20
JOINED_BYTES = 64 << 10
"""Up to this size, what is written together is made one: for TLS one record's worth, for the kernel one buffer."""
_HEAD, _ANSWER, _REFUSED = range(3)
_BEGINS_LIKE_A_HEAD = re.compile(rb"[A-Z\-]{1,24}(?: |\Z)")
"""What cannot become a request line any more need not be waited for."""

Data = bytes | bytearray | memoryview


class Connection(asyncio.BufferedProtocol):
    """See the module."""

    __slots__ = (
        "_body", "_discarded_bytes", "_eof", "_head", "_later", "_reading", "_scanned", "_site", "_state", "_takes",
        "_transport", "_write_waiter", "remote", "secure",
    )  # fmt: skip

    def __init__(self, site: Site) -> None:
        self._site = site
        self._transport: asyncio.Transport | None = None
        self._state = _HEAD
        self._head = bytearray()
        """Of a head, as far as it has come."""
        self._scanned = 0
        """Up to there, its end was not found."""
        self._later = b""
        """What came after the request that is being answered."""
        self._body: HttpBody | None = None
        self._reading = True
        self._takes = True
        """Whether the socket takes what is written."""
        self._write_waiter: asyncio.Future[None] | None = None
        self._eof = False
        self._discarded_bytes = 0
        self.remote = ""
        """The client's address."""
        self.secure = False

    # --- of the transport
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # No isinstance check: uvloop's transports do not derive from asyncio.Transport.
        self._transport = cast(asyncio.Transport, transport)
        address = transport.get_extra_info("peername")
        self.remote = str(address[0]) if isinstance(address, tuple | list) else ""
        self.secure = transport.get_extra_info("sslcontext") is not None
        _set_up(transport.get_extra_info("socket"), self._site.bounds.write_idle_seconds)
        if not self._site.admit(self, secure=self.secure):
            self.refuse(S3Error("SlowDown", "Too many connections."))

    def connection_lost(self, exc: BaseException | None) -> None:
        self._transport = None
        self._site.lost(self)
        self._head.clear()
        self._later = b""
        if self._body is not None:
            self._body.broken()
        self._wake_writer(ConnectionResetError("the client is gone"))

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._state == _HEAD:
            return self._site.head_buffer
        target = self._body.target if self._state == _ANSWER and self._body is not None else None
        return self._site.buffer if target is None else target

    def buffer_updated(self, nbytes: int) -> None:
        if self._state == _HEAD:
            self._head_came(bytes(self._site.buffer[:nbytes]))
        elif self._state == _ANSWER:
            body = self._body
            if body is not None and body.target is not None:
                body.filled(nbytes)
                self.read_on()
                return
            self._more_came(bytes(self._site.buffer[:nbytes]))
        else:
            self._discarded_bytes += nbytes
            if self._discarded_bytes > LINGER_SIZE_BYTES:
                self.close()

    def eof_received(self) -> bool:
        self._eof = True
        if self._state != _ANSWER:
            return False
        if self._body is not None:
            self._body.broken()
        return True

    def pause_writing(self) -> None:
        self._takes = False

    def resume_writing(self) -> None:
        self._takes = True
        self._wake_writer(None)
        if self._state == _HEAD:
            self._next()

    # --- heads
    def _head_came(self, data: bytes) -> None:
        """The beginning of a head, or more of it; and maybe what follows it."""
        held = self._head
        if held:
            held += data
            end = held.find(END, self._scanned)
            if end >= 0:
                data = bytes(held)
                held.clear()
        else:
            data = data.lstrip(b"\r\n")  # some clients end a body with a line end too many
            if not data:
                return
            end = data.find(END)
            if end < 0:
                held += data
                self._site.arrives(self)
        if end >= 0:
            self._scanned = 0
            self._take_up(data, end + len(END))
        elif len(held) > self._site.bounds.head_bytes:
            self.refuse(too_large())
        elif not _BEGINS_LIKE_A_HEAD.match(held):
            self.refuse(malformed())
        else:
            self._scanned = len(held) - len(END) + 1 if len(held) >= len(END) else 0

    def _take_up(self, data: bytes, end: int) -> None:
        """A head is complete."""
        rest = b""
        if end < len(data):
            data, rest = data[:end], data[end:]
        try:
            if end > self._site.bounds.head_bytes:
                raise too_large()
            head = self._site.heads.read(data)
        except S3Error as error:
            self.refuse(error)
            return
        self._site.begun(self)
        self._state = _ANSWER
        self._body = body = HttpBody(self, head, self._site.body_waits)
        if rest and not body.ended:
            rest = body.arrived(rest)
        self._later = rest
        if self._eof:
            body.broken()
        self.read_on()
        self._site.handler.begin(self, head, body)

    def _more_came(self, data: bytes) -> None:
        """While a request is answered."""
        body = self._body
        if body is not None and not body.ended:
            data = body.arrived(data)
        if data:
            self._later += data
        self.read_on()

    def finish(self, keep_alive: bool) -> None:
        """The handler has written all of its answer."""
        body, self._body = self._body, None
        transport = self._transport
        if transport is None or self._state != _ANSWER or transport.is_closing():
            return
        if not keep_alive or body is None or not body.ended:
            if self._eof or (body is not None and body.ended and not self._later):
                transport.close()
            else:
                self._linger()
            return
        self._state = _HEAD
        self._site.rests(self)
        self._next()

    def _next(self) -> None:
        """The next request: what came of it already, or what will come; once the last answer is out."""
        if self._later:
            if self._takes:
                # In the next turn of the loop: who asks a thousand things at once must not keep others waiting.
                self._site.loop.call_soon(self._go_on)
        elif self._eof:
            self.close()
        self.read_on()

    def _go_on(self) -> None:
        if self._state != _HEAD or not self._later or self._transport is None:
            return
        data, self._later = self._later, b""
        self._head_came(data)
        if self._state == _HEAD:
            if self._eof:
                self.close()  # nothing more can come of it
            self.read_on()

    # --- the flow of bytes
    def read_on(self) -> None:
        """Read, or do not, by what is wanted now."""
        transport = self._transport
        if transport is None or self._eof or transport.is_closing():
            return
        wanted = self._wants_to_read()
        if wanted != self._reading:
            self._reading = wanted
            if wanted:
                transport.resume_reading()
            else:
                transport.pause_reading()

    def _wants_to_read(self) -> bool:
        if self._state == _REFUSED:
            return True
        if self._state == _HEAD:
            return self._takes and not self._later
        body = self._body
        if body is not None and not body.ended:
            return body.wants_more
        return not self._later

    def tell_to_continue(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(CONTINUE)

    def write(self, pieces: Sequence[Data]) -> None:
        """Raises ConnectionResetError where nobody takes it."""
        transport = self._transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client is gone")
        if len(pieces) == 1:
            transport.write(pieces[0])
        elif sum(map(len, pieces)) <= JOINED_BYTES:
            transport.write(b"".join(pieces))
        else:
            for piece in pieces:  # the loop sends together what it has; its `writelines` may copy first
                transport.write(piece)

    @property
    def takes(self) -> bool:
        """Whether `drained` would not wait."""
        return self._takes

    @property
    def unsent_bytes(self) -> int:
        """Of what was written, what the socket has not taken."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def leave_the_rest(self) -> None:
        """Nobody need wait for the client to take it."""
        self._wake_writer(None)

    async def drained(self) -> None:
        """Until the socket takes more.  Raises ConnectionResetError, or TimeoutError where it never does."""
        if self._transport is None:
            raise ConnectionResetError("the client is gone")
        if self._takes:
            return
        self._write_waiter = self._site.loop.create_future()
        self._site.write_waits.begin(self)
        try:
            await self._write_waiter
        finally:
            self._write_waiter = None
            self._site.write_waits.end(self)

    def give_up_writing(self) -> None:
        """The client takes nothing."""
        self._wake_writer(TimeoutError("the client takes nothing"))

    def _wake_writer(self, error: Exception | None) -> None:
        waiter = self._write_waiter
        if waiter is None or waiter.done():
            return
        if error is None:
            waiter.set_result(None)
        else:
            waiter.set_exception(error)

    # --- the end
    def close(self) -> None:
        """What was written may still be taken."""
        if self._transport is not None:
            self._transport.close()

    def cut(self) -> None:
        """At once, without waiting for a client that may never take what is left for it."""
        if self._transport is not None:
            self._transport.abort()

    def abandon(self) -> None:
        """Its handler learns that it need not go on."""
        if self._body is not None:
            self._body.broken()
        self._wake_writer(ConnectionResetError("the server closes"))

    def refuse(self, error: S3Error) -> None:
        """Answer what cannot be understood, or was not even asked."""
        transport = self._transport
        if self._state == _REFUSED or transport is None or transport.is_closing():
            return
        transport.write(self._site.handler.refusal(error))
        self._linger()

    def _linger(self) -> None:
        """Let the client finish sending, within bounds."""
        transport = self._transport
        assert transport is not None
        self._state = _REFUSED
        self._head.clear()
        self._later = b""
        if self._eof:
            transport.close()
            return
        if transport.can_write_eof():
            transport.write_eof()
        self._site.lingers(self)
        self.read_on()


def _set_up(sock: socket.socket | None, take_seconds: float) -> None:
    if sock is None:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # Where written bytes are not taken for so long, the kernel ends the connection, also after it was closed here.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(take_seconds * 1000))
