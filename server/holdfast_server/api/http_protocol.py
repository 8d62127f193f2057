"""aiohttp's connection handling, bent where S3 needs it otherwise.

- What is no valid HTTP is answered with S3's XML and a code that says so, and is then read and thrown away for
  a bounded while: closing with unread bytes makes the kernel reset the connection, and the client would never
  see why it was refused.
- A client that shuts down its sending side half-way through a body still gets its IncompleteBody.
- What comes in is read in small pieces, and of a body nothing before a handler asks for it: uvloop's own way of
  reading takes up to 256 kB at a time, for each of the requests that wait for their turn.
- A head that is too large as a whole, or does not come to its end in time, is refused; and a connection beyond
  the bound takes the place of the one that has been idle longest.
- A client that takes nothing of what was written for it is left to the kernel to cut, whether a handler waits for it,
  aiohttp, which has no bound for that, or nobody any more, because the connection is closed.

Subclasses only public entry points (`data_received`, `eof_received`, `handle_error`), because aiohttp offers no
hook for either, and looks at one private thing, whether `_waiter` waits: no request's head is complete then.  A
test per behaviour notices when an upgrade changes them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable
from typing import cast

from aiohttp import StreamReader, web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.web_protocol import RequestHandler

from holdfast_server.s3.errors import S3Error

log = logging.getLogger(__name__)

READ_SIZE_BYTES = 64 << 10
HEAD_READ_SIZE_BYTES = 32 << 10
"""What is read at a time while a head is expected: what follows it is all that a request which waits may hold."""
LINGER_SECONDS = 2.0
"""How long a refused client may go on sending into nothing before the connection is cut."""
LINGER_SIZE_BYTES = 32 << 20
TAKE_UP_SECONDS = 1.0
"""Longer than it takes from the last byte of a request's head to its handler."""

MalformedAnswer = Callable[[web.BaseRequest, S3Error], web.Response]
RefusalBytes = Callable[[S3Error], bytes]
"""The same answer as it goes over the wire, for clients that have not even asked something."""


class BodyCutShort(ConnectionError):
    """The client ended its side of the connection before its body was complete."""


class _LastWords(web.Response):
    """An answer to a client that may still be sending: half-closes, then lingers before the connection ends."""

    async def write_eof(self, data: bytes = b"") -> None:
        request = self._req
        await super().write_eof(data)
        if request is not None and isinstance(request.protocol, S3Protocol):
            await request.protocol.linger()


class S3Protocol(RequestHandler):
    """One connection."""

    __slots__ = (
        "_answer_malformed",
        "_content",
        "_discarded_bytes",
        "_head_bytes",
        "_held_back",
        "_last_content",
        "_refused",
        "_sender_done",
        "_server",
        "_unanswered",
        "_wire",
    )

    def __init__(self, manager: S3Server, answer_malformed: MalformedAnswer, **options: object) -> None:
        super().__init__(manager, **options)  # type: ignore[arg-type]
        self._server = manager
        self._answer_malformed = answer_malformed
        self._refused = False
        self._discarded_bytes = 0
        self._sender_done = asyncio.Event()
        self._content: StreamReader | None = None
        self._last_content: StreamReader | None = None
        self._unanswered = False
        self._held_back = False
        self._head_bytes = 0
        self._wire: asyncio.Transport | None = None
        """The transport until the connection is lost; aiohttp forgets its own when it closes it."""

    @property
    def idle(self) -> bool:
        """Nothing was asked that has not been answered."""
        return self._content is None and not self._unanswered

    def begin(self, content: StreamReader) -> None:
        """The front end takes up a request of this connection; `content` is its body, which is not read on before
        `let_come`."""
        self._content = self._last_content = content
        if content.is_eof():
            self.let_come()
        else:
            self._hold_back()
        self._head_bytes = 0
        self._server.begun(self)
        if self._sender_done.is_set():
            self._end_sending(content)

    def end(self) -> None:
        """The front end is done with it."""
        self.let_come()
        if self._content is not None and self._content.exception() is not None:
            # Nothing more comes, and that was told.  aiohttp would wait for it, and log a failure of its own.
            self._content.feed_eof()
        self._content = None
        self._unanswered = False
        self._server.rests(self)

    @property
    def between_requests(self) -> bool:
        """No head is complete that was not answered."""
        waiter = self._waiter
        return waiter is not None and not waiter.done()

    @property
    def in_body(self) -> bool:
        """Its handler is at work: what comes now is a body."""
        return self._content is not None

    def _hold_back(self) -> None:
        if not self._held_back and self.transport is not None:
            self._held_back = True
            self.transport.pause_reading()

    def let_come(self) -> None:
        """Read the body that is on its way, as far as it is taken."""
        if self._held_back:
            self._held_back = False
            self.resume_reading()

    def data_received(self, data: bytes) -> None:
        if not self._refused:
            head = self._content is None and bool(data)
            if head:
                if self._unanswered and not self.between_requests:
                    self._hold_back()  # more of a body whose request has yet to be taken up
                self._unanswered = True
                self._server.woken(self)
                self._head_bytes += len(data)
            super().data_received(data)
            if head and self._head_bytes > self._server.max_head_bytes and self.between_requests:
                self.refuse(S3Error("RequestHeaderSectionTooLarge"))
            return
        self._discarded_bytes += len(data)
        if self._discarded_bytes > LINGER_SIZE_BYTES:
            self._sender_done.set()

    def eof_received(self) -> bool | None:  # type: ignore[override]
        self._sender_done.set()
        if self._content is not None:
            self._end_sending(self._content)
            return True
        if self._unanswered:
            # A request may be complete and about to be taken up, or its head may have been cut in the middle.
            asyncio.get_running_loop().call_later(TAKE_UP_SECONDS, self._close_if_idle)
            return True
        return None

    def _end_sending(self, content: StreamReader) -> None:
        if not content.is_eof():
            content.set_exception(BodyCutShort("the client stopped sending"))
        self.close()  # after the current response: nothing more will be asked on this connection

    def _close_if_idle(self) -> None:
        if self._content is None and self.transport is not None:
            self.transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # No isinstance check: uvloop's transports do not derive from asyncio.Transport.
        self._wire = cast(asyncio.Transport, transport)
        _bound_silence(self._wire, self._server.take_seconds)
        super().connection_made(transport)
        if not self._server.admit(self, secure=transport.get_extra_info("sslcontext") is not None):
            self.refuse(S3Error("SlowDown", "Too many connections."))

    def connection_lost(self, exc: BaseException | None) -> None:
        self._wire = None
        self._server.lost(self)
        self._sender_done.set()
        if self._content is None and self._last_content is not None:
            # aiohttp may still be reading the rest of a refused body; it would wait for it in vain.
            self._last_content.feed_eof()
        super().connection_lost(exc)

    def cut(self) -> None:
        """At once, without waiting for a client that may never take what is left for it."""
        if self._wire is not None:
            self._wire.abort()

    def refuse(self, error: S3Error) -> None:
        """Answer what was not asked, and let the client finish sending within bounds."""
        transport = self.transport
        if self._refused or transport is None:
            return
        self._refused = True
        transport.write(self._server.refusal(error))
        if transport.can_write_eof():
            transport.write_eof()
        asyncio.get_running_loop().call_later(LINGER_SECONDS, transport.close)

    async def linger(self) -> None:
        """Let a refused client finish sending, within bounds."""
        transport = self.transport
        if transport is None:
            return
        if transport.can_write_eof():
            transport.write_eof()
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                await self._sender_done.wait()
        except TimeoutError:
            return

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """aiohttp's own failures: a head that cannot be parsed, or a bug that got past the front end."""
        if request.writer.output_size > 0:
            raise ConnectionResetError("a response was begun already")
        if not isinstance(exc, HttpProcessingError):
            log.error("the front end failed", exc_info=exc)
            error = S3Error("InternalError")
        elif isinstance(exc, LineTooLong) or "too many headers" in str(exc).lower():
            error = S3Error("RequestHeaderSectionTooLarge")
        else:
            error = S3Error("InvalidRequest", "The request is not valid HTTP.")
        self._refused = True
        self.let_come()  # to be thrown away
        response = self._answer_malformed(request, error)
        response.force_close()
        return response


def _bound_silence(transport: asyncio.Transport, seconds: float) -> None:
    """Where written bytes are not taken for so long, the kernel ends the connection, also after it was closed here."""
    sock = transport.get_extra_info("socket")
    if sock is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000))


class _InSmallPieces(asyncio.BufferedProtocol):
    """Stands between transport and protocol, and decides how much is read at a time.

    One buffer serves all connections: what it got is copied out before anything else is read.
    """

    def __init__(self, protocol: S3Protocol, buffer: memoryview) -> None:
        self._protocol = protocol
        self._buffer = buffer
        self._head_buffer = buffer[:HEAD_READ_SIZE_BYTES]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._protocol.connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._protocol.connection_lost(exc)

    def eof_received(self) -> bool | None:
        return self._protocol.eof_received()

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer if self._protocol.in_body else self._head_buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._protocol.data_received(bytes(self._buffer[:nbytes]))


class S3Server(web.Server):
    """Makes an `S3Protocol` per connection, and knows which of them rest and which have begun a request's head."""

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], object],
        answer_malformed: MalformedAnswer,
        refusal: RefusalBytes,
        max_connections: int,
        secure_places: int,
        head_seconds: float,
        max_head_bytes: int,
        take_seconds: float,
        **options: object,
    ) -> None:
        super().__init__(handler)  # type: ignore[arg-type]
        self._places_left = max_connections
        self._secure_places = secure_places
        self.max_head_bytes = max_head_bytes
        self.take_seconds = take_seconds
        """How long a client may take nothing of what was written for it."""
        self.refusal = refusal
        self._head_seconds = head_seconds
        self._answer_malformed = answer_malformed
        self._options = options
        self._buffer = memoryview(bytearray(READ_SIZE_BYTES))
        self._open: dict[S3Protocol, int] = {}
        """How many places each takes.  One that is refused has its own until it is gone."""
        self._resting: dict[S3Protocol, None] = {}
        """Longest first."""
        self._arriving: dict[S3Protocol, float] = {}
        """Heads on their way, and since when; the oldest first."""
        self._sweep: asyncio.TimerHandle | None = None
        self._nobody = asyncio.Event()

    def __call__(self) -> asyncio.BufferedProtocol:  # type: ignore[override]
        protocol = S3Protocol(self, self._answer_malformed, loop=asyncio.get_running_loop(), **self._options)
        return _InSmallPieces(protocol, self._buffer)

    def admit(self, connection: S3Protocol, *, secure: bool) -> bool:
        """A new connection; False if there is no place for it and none rests.  One with TLS takes several places."""
        places = self._secure_places if secure else 1
        while self._places_left < places and self._resting:
            rested = next(iter(self._resting))
            self.lost(rested)
            rested.cut()
        fits = self._places_left >= places
        self._places_left -= places
        self._open[connection] = places
        self._nobody.clear()
        if fits:
            self._resting[connection] = None
        return fits

    def lost(self, connection: S3Protocol) -> None:
        """It is closed; idempotent."""
        self._places_left += self._open.pop(connection, 0)
        self._resting.pop(connection, None)
        self._arriving.pop(connection, None)
        if not self._open:
            self._nobody.set()

    def woken(self, connection: S3Protocol) -> None:
        """The first bytes of a head came, or more of it."""
        if connection in self._arriving:
            return
        self._resting.pop(connection, None)
        loop = asyncio.get_running_loop()
        self._arriving[connection] = loop.time()
        if self._sweep is None:
            self._sweep = loop.call_later(self._head_seconds, self._refuse_slow_heads)

    def begun(self, connection: S3Protocol) -> None:
        """Its head is complete and being answered."""
        self._arriving.pop(connection, None)
        self._resting.pop(connection, None)

    def rests(self, connection: S3Protocol) -> None:
        """It was answered."""
        if connection in self._open:
            self._resting[connection] = None

    async def see_off(self, timeout_seconds: float) -> None:
        """All connections are closed: let clients take what is left for them, then cut those that do not."""
        if self._open:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_seconds):
                    await self._nobody.wait()
        for connection in list(self._open):
            connection.cut()
        if self._sweep is not None:
            self._sweep.cancel()

    def _refuse_slow_heads(self) -> None:
        loop = asyncio.get_running_loop()
        self._sweep = None
        for connection, since in list(self._arriving.items()):
            if loop.time() - since < self._head_seconds:
                self._sweep = loop.call_at(since + self._head_seconds, self._refuse_slow_heads)
                return
            del self._arriving[connection]
            if connection.between_requests:
                connection.refuse(S3Error("RequestTimeout"))


def last_words(status: int, headers: dict[str, str], body: bytes) -> web.Response:
    """The response for `MalformedAnswer` to return."""
    return _LastWords(status=status, headers=headers, body=body)
