"""TLS between a socket and a protocol: what the event loops offer for it, with bounded memory.

Both loops' own way (asyncio's and uvloop's) gives each connection a buffer of 256 KiB, reads as much as fits, and
encrypts whatever is written at once; memory of a pod would be bounded by its clients' good will.  Here

- all connections of a listener read into one buffer, and no more at a time than the protocol would take;
- nothing is read while the protocol takes nothing, and at most that one read waits;
- what is written waits as it came, referred to, and is encrypted as far as the socket takes it;
- an end that will not say goodbye, or take what is left for it, is cut off.

A side that ends its sending (close_notify, or the bare end of the connection) may still be answered, as without TLS.

Not here: the TLS itself (`tls_stream`), how long a handshake may take (whoever waits for `established`).
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Iterable
from typing import Any, cast

from holdfast_server.transport.tls_stream import STEP_SIZE_BYTES, TlsStream

READ_SIZE_BYTES = 64 << 10
_LEAST_READ_BYTES = 16 << 10
SOCKET_BUFFER_BYTES = 64 << 10
"""Encrypted, and not taken by the kernel yet; one turn of writing may exceed it by TURN_STEPS records."""
TURN_STEPS = 4
WRITE_HIGH_BYTES = 64 << 10
"""Above it the protocol is asked to pause; unless it says otherwise."""
GOODBYE_SECONDS = 5.0
"""How long a closed connection may wait for the other end to close it, too."""
FLUSH_SECONDS = 60.0
"""How long it may take before that to take what was written."""

Data = bytes | bytearray | memoryview
_NOBODY = asyncio.BufferedProtocol()
"""Stands in for the protocol of a lost connection: what refers to each other in a circle is freed late."""


class TlsConnection(asyncio.BufferedProtocol):
    """The protocol of the socket.  The protocol above is connected once the handshake is over."""

    def __init__(
        self,
        protocol: asyncio.BufferedProtocol,
        context: ssl.SSLContext,
        buffer: memoryview,
        *,
        server_side: bool,
        server_name: str | None = None,
    ) -> None:
        """`buffer` may be shared with other connections of the same loop."""
        self._protocol, self._context, self._buffer = protocol, context, buffer
        self._stream = TlsStream(context, server_side=server_side, server_name=server_name)
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._established: asyncio.Future[None] | None = loop.create_future()
        self._transport: asyncio.Transport | None = None
        self._connected = False
        self._delivering = False
        self._wire_ended = False
        self._end_told = False
        self._protocol_reads = True
        self._socket_full = False
        self._backlog: deque[memoryview] = deque()
        self._backlog_bytes = 0
        self._protocol_waits = False
        self._high_bytes, self._low_bytes = WRITE_HIGH_BYTES, WRITE_HIGH_BYTES // 4
        self._closing = False
        self._said_goodbye = False
        self._failure: Exception | None = None
        self._deadline: asyncio.TimerHandle | None = None

    async def established(self) -> None:
        """Once, by whoever made the connection: until the handshake is over.  Raises OSError."""
        future = self._established
        assert future is not None
        try:
            await future
        finally:
            self._established = None

    # --- the socket's side
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # No isinstance check: uvloop's transports do not derive from asyncio.Transport.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=SOCKET_BUFFER_BYTES)
        self._shake_hands()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._closing = True
        self._backlog.clear()
        self._backlog_bytes = 0
        if self._deadline is not None:
            self._deadline.cancel()
        self._stream.forget()
        self._settle(exc or ConnectionResetError("closed during the handshake"))
        protocol, self._protocol = self._protocol, _NOBODY
        if self._connected:
            self._connected = False
            protocol.connection_lost(exc or self._failure)

    def get_buffer(self, sizehint: int) -> memoryview:
        if not self._connected or self._closing:
            return self._buffer[:_LEAST_READ_BYTES]
        wanted = len(memoryview(self._protocol.get_buffer(sizehint)))
        return self._buffer[: max(wanted, _LEAST_READ_BYTES)]

    def buffer_updated(self, nbytes: int) -> None:
        if self._closing or self._stream.ended:
            return  # thrown away, until the other end has closed
        self._stream.received(self._buffer[:nbytes])
        try:
            if self._connected:
                self._deliver()
            else:
                self._shake_hands()
        finally:
            self._stream.keep()

    def eof_received(self) -> bool:
        if self._closing or not self._connected:
            return False
        self._wire_ended = True
        self._deliver()
        return not self._closing

    def pause_writing(self) -> None:
        self._socket_full = True

    def resume_writing(self) -> None:
        self._socket_full = False
        self._send()
        self._pace_reading()

    # --- handshake
    def _shake_hands(self) -> None:
        try:
            complete = self._stream.handshake()
        except ssl.SSLError as error:
            self._send_own_words()  # the alert says why
            self._settle(error)
            self._break_off(error)
            return
        self._send_own_words()
        if complete:
            self._connected = True
            self._settle(None)
            self._protocol.connection_made(TlsTransport(self))
            self._deliver()

    def _settle(self, error: Exception | None) -> None:
        future = self._established
        if future is None or future.done():
            return
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
            future.exception()  # whoever waited may be gone

    # --- reading
    def _deliver(self) -> None:
        if self._delivering:
            return
        self._delivering = True
        try:
            self._deliver_all()
        except ssl.SSLError as error:
            self._send_own_words()
            self._break_off(error)
        except Exception:
            self.abort()  # a mistake of the protocol's, which the loop logs
            raise
        finally:
            self._delivering = False

    def _deliver_all(self) -> None:
        while self._protocol_reads and not self._closing and not self._choked:
            count = self._stream.read_into(memoryview(self._protocol.get_buffer(-1)))
            if not count:
                break
            self._protocol.buffer_updated(count)
        if self._stream.has_own_words:
            self._send_own_words()
        if self._protocol_reads and not self._closing and (self._stream.ended or self._wire_ended):
            self._tell_end()
        self._pace_reading()

    @property
    def _choked(self) -> bool:
        """What the library has to say to the other end is not taken by it, and each record may give it more."""
        return self._socket_full and self._stream.has_own_words

    def _pace_reading(self) -> None:
        transport = self._transport
        if transport is None:
            return
        if self._closing or (self._protocol_reads and not self._stream.has_received and not self._choked):
            transport.resume_reading()
        else:
            transport.pause_reading()

    def _tell_end(self) -> None:
        if self._end_told:
            return
        self._end_told = True
        if not self._protocol.eof_received():
            self.close()

    # --- writing
    def _send_own_words(self) -> None:
        if self._transport is not None and not self._socket_full and not self._said_goodbye:
            words = self._stream.take()
            if words:
                self._transport.write(words)

    def _send(self) -> None:
        """As much as the socket takes."""
        transport = self._transport
        if transport is None:
            return
        try:
            if not self._socket_full and self._stream.has_own_words:
                self._send_own_words()
            while self._backlog and not self._socket_full:
                transport.writelines([self._encrypt_next() for _ in range(TURN_STEPS) if self._backlog])
        except ssl.SSLError as error:
            self._break_off(error)
            return
        self._pace_writing()
        if self._closing and not self._backlog and not self._socket_full:
            self._say_goodbye()

    def _encrypt_next(self) -> bytes:
        data = self._backlog[0]
        count, encrypted = self._stream.encrypt(data)
        self._backlog_bytes -= count
        if count < len(data):
            self._backlog[0] = data[count:]
        else:
            self._backlog.popleft()
        return encrypted

    def _pace_writing(self) -> None:
        waiting = self._backlog_bytes  # none, and the socket takes more; some, and it will say when it does
        if waiting > self._high_bytes and not self._protocol_waits:
            self._protocol_waits = True
            self._protocol.pause_writing()
        elif waiting <= self._low_bytes and self._protocol_waits:
            self._protocol_waits = False
            self._protocol.resume_writing()

    # --- the end
    def _break_off(self, error: Exception) -> None:
        """The other end was told why, if it wants to know."""
        self._closing = True
        self._failure = error
        if self._transport is not None:
            self._transport.close()
            self._set_deadline(GOODBYE_SECONDS)

    def _say_goodbye(self) -> None:
        transport = self._transport
        if self._said_goodbye or transport is None:
            return
        self._stream.say_goodbye()
        self._send_own_words()
        self._said_goodbye = True
        if self._stream.ended or self._wire_ended:
            transport.close()
        else:
            # Closing with unread bytes makes the kernel reset the connection, and what was sent last is lost with it.
            transport.write_eof()
            transport.resume_reading()
        self._set_deadline(GOODBYE_SECONDS)

    def _set_deadline(self, seconds: float) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self._loop.call_later(seconds, self.abort)

    # --- the protocol's side, for `TlsTransport`
    @property
    def closing(self) -> bool:
        return self._closing

    @property
    def reads(self) -> bool:
        return self._protocol_reads

    @property
    def write_buffer_bytes(self) -> int:
        below = self._transport.get_write_buffer_size() if self._transport is not None else 0
        return self._backlog_bytes + below

    @property
    def limits_bytes(self) -> tuple[int, int]:
        return self._low_bytes, self._high_bytes

    def write(self, pieces: Iterable[Data]) -> None:
        if self._closing:
            return
        for piece in pieces:
            if piece:
                data = memoryview(piece).cast("B")
                self._backlog.append(data)
                self._backlog_bytes += len(data)
        self._send()

    def set_limits(self, high: int | None, low: int | None) -> None:
        self._high_bytes = high if high is not None else (WRITE_HIGH_BYTES if low is None else 4 * low)
        self._low_bytes = low if low is not None else self._high_bytes // 4
        self._pace_writing()

    def stop_reading(self) -> None:
        self._protocol_reads = False
        self._pace_reading()

    def read_on(self) -> None:
        if not self._protocol_reads:
            self._protocol_reads = True
            self._loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        if self._connected and not self._closing:
            self._deliver()

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        self._set_deadline(FLUSH_SECONDS)
        self._stream.forget()
        self._send()

    def abort(self) -> None:
        self._closing = True
        if self._transport is not None:
            self._transport.abort()

    def info(self, name: str, default: Any) -> Any:
        if name == "sslcontext":
            return self._context
        if name == "ssl_object":
            return self._stream.ssl_object
        return self._transport.get_extra_info(name, default) if self._transport is not None else default


class TlsTransport(asyncio.Transport):
    """What the protocol above has of it."""

    def __init__(self, connection: TlsConnection) -> None:
        super().__init__()
        self._connection = connection

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._connection.info(name, default)

    def is_closing(self) -> bool:
        return self._connection.closing

    def close(self) -> None:
        self._connection.close()

    def abort(self) -> None:
        self._connection.abort()

    def is_reading(self) -> bool:
        return self._connection.reads

    def pause_reading(self) -> None:
        self._connection.stop_reading()

    def resume_reading(self) -> None:
        self._connection.read_on()

    def write(self, data: Data) -> None:
        self._connection.write((data,))

    def writelines(self, list_of_data: Iterable[Data]) -> None:
        pieces = list(list_of_data)
        small = len(pieces) > 1 and sum(map(len, pieces)) <= STEP_SIZE_BYTES  # one record, then
        self._connection.write((b"".join(pieces),) if small else pieces)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._connection.set_limits(high, low)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._connection.limits_bytes

    def get_write_buffer_size(self) -> int:
        return self._connection.write_buffer_bytes

    def can_write_eof(self) -> bool:
        """False: the end of sending is the end of the connection, as far as other ends are concerned."""
        return False


async def dial_tls(
    protocol: asyncio.BufferedProtocol, context: ssl.SSLContext, server_name: str, address: str, port: int
) -> None:
    """Connect the protocol to the other end, which must show a certificate for `server_name`.  Raises OSError.

    How long it may take is the caller's to say."""
    buffer = memoryview(bytearray(READ_SIZE_BYTES))
    connection = TlsConnection(protocol, context, buffer, server_side=False, server_name=server_name)
    try:
        await asyncio.get_running_loop().create_connection(lambda: connection, address, port)
        await connection.established()
    except BaseException:
        connection.abort()
        raise
