"""The HTTP front end: connections on one side (`api.http`), `Request`, `IncomingBody` and `Response` on the other.

Invariants: the path and the query go on exactly as they came; a body is read only when a handler asks for it,
in pieces, and only then is a client that waits for `100 Continue` told to go on; so a refused upload costs
its head only.  Every wait for a client is bounded.  After a response whose request body was not read to its
end the connection is closed (a small rest is read first), so that no body is ever taken for a request.  A
response that cannot be finished is cut, never padded.  A request waits for its turn before anything is done for
it, and keeps it until its response is sent (`admission`); probes need none.

Where plaintext is refused, probes without TLS are answered all the same: they are unsigned and name nothing secret,
kubelets ask this way, and switching TLS on must not restart pods.

Not here: what requests mean (`dispatch` and the handlers), TLS certificates' life (`pod.tls_files`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from holdfast_server.api.admission import Ticket
from holdfast_server.api.audit_trail import Trail, audit_line
from holdfast_server.api.dispatch import CallApi, Dispatcher, Mount, error_response
from holdfast_server.api.failures import to_s3_error
from holdfast_server.api.http.answer import LAST_CHUNK, Wording, chunk, has_no_body, is_chunked
from holdfast_server.api.http.body import HttpBody
from holdfast_server.api.http.connection import Connection, Data
from holdfast_server.api.http.head import Head
from holdfast_server.api.http.places import Bounds, Site
from holdfast_server.api.probes import answer_probe
from holdfast_server.api.services import Services
from holdfast_server.memory.budget import Overloaded
from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.request import BodyStream, Request, Response
from holdfast_server.transport.listener import Admission, Listener

log = logging.getLogger(__name__)

CUT_SECONDS = 0.5
"""What a request that outlived the grace of a closing server gets to notice that its client is gone."""
LAST_BYTES_SECONDS = 2.0
"""What clients of a closing server get to take the rest of their answers."""
REQUEST_ID_SIZE_BYTES = 8
WRITE_SIZE_BYTES = 512 << 10
"""Of a response, what a client has `write_idle_seconds` to take: half a stripe, which then is one call."""


@dataclass(slots=True, eq=False)
class Exchange:
    """A request, and where its answer goes."""

    connection: Connection
    head: Head
    body: HttpBody
    request_id: str
    begun: bool = False
    """Something of the answer was written."""


@dataclass(frozen=True, slots=True)
class Answered:
    operation: str
    response: Response


class FrontEnd:
    """One listening port.  Built by `start`."""

    def __init__(self, services: Services, dispatcher: Dispatcher) -> None:
        self._services = services
        self._dispatcher = dispatcher
        self._wording = Wording(services.pod_name)
        self._closing = False
        self._tasks: dict[Exchange, asyncio.Task[None]] = {}
        """One for each request that is being answered."""
        self._listener: Listener | None = None
        self.port = 0
        """The port that was bound, for `port=0`."""
        self._site = Site(self, _bounds(services))
        memory = services.memory
        for budget in (memory.requests, memory.streams, memory.writes, memory.documents):
            budget.add_relief(self._site.relieve)
        memory.documents.add_relief(self._site.relieve_of_answers)

    async def listen(self, host: str, port: int, admission: Admission) -> None:
        listener = Listener(lambda: Connection(self._site), admission)
        self.port = await listener.start(host, port)
        self._listener = listener

    def drain(self) -> None:
        """Go on serving, and end each connection with its next response: clients look for another pod."""
        self._closing = True

    async def close(self, grace_seconds: float) -> None:
        """Stop accepting, close idle connections, give requests under way up to the grace, then cut them."""
        if self._listener is None:
            return
        self._closing = True
        await self._listener.close()
        self._site.close_resting()
        self._site.leave_answers()
        await self._end_requests(grace_seconds)
        self._site.close_all()
        await self._site.see_off(LAST_BYTES_SECONDS)
        self._listener = None

    async def _end_requests(self, grace_seconds: float) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=grace_seconds)
        if self._tasks:
            log.warning("%d requests are cut", len(self._tasks))
            self._site.abandon()
            await asyncio.wait(self._tasks.values(), timeout=CUT_SECONDS)
        for task in self._tasks.values():
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=CUT_SECONDS)

    # --- one request
    def begin(self, connection: Connection, head: Head, body: HttpBody) -> None:
        """See `http.places.Handler`."""
        exchange = Exchange(connection, head, body, self._request_id())
        self._tasks[exchange] = self._site.loop.create_task(self._serve(exchange))

    def refusal(self, error: S3Error) -> bytes:
        """See `http.places.Handler`."""
        self._services.metrics.malformed.inc()
        request_id = self._request_id()
        response = error_response(error, "/", request_id, self._services.pod_name, "GET")
        assert isinstance(response.body, bytes)
        return self._head_of(None, response, request_id, len(response.body), keep_alive=False) + response.body

    async def _serve(self, exchange: Exchange) -> None:
        """To the end of its answer.  Raises nothing but CancelledError."""
        connection = exchange.connection
        keep_alive = False
        try:
            keep_alive = await self._answer_and_send(exchange)
            if not connection.takes and not self._closing:
                await self._see_it_taken(connection)
        except asyncio.CancelledError:
            connection.cut()
            raise
        except (ConnectionError, TimeoutError, Overloaded) as error:
            log.info("client %s went away or took nothing: %s", connection.remote, error)
            connection.cut()
        except Exception as error:
            if exchange.begun:
                # The status line is out: the one honest answer left is a connection that ends too early.
                log.error("a response was cut: %s", error, exc_info=error)
                connection.cut()
            else:
                log.error("the front end failed", exc_info=error)
                connection.refuse(S3Error("InternalError"))
        finally:
            del self._tasks[exchange]
            connection.finish(keep_alive)

    async def _see_it_taken(self, connection: Connection) -> None:
        """An answer that was written as a whole, and that the socket has not taken, is in memory yet, though its
        request has given back all it had: it counts as a document.  Raises as `drained` does, and Overloaded."""
        with self._services.memory.documents.hold() as hold:
            await hold.take(connection.unsent_bytes)
            await self._site.taken(connection)

    async def _answer_and_send(self, exchange: Exchange) -> bool:
        """Whether the connection goes on.  Raises ConnectionError, TimeoutError, and mistakes of our own."""
        services, head, body = self._services, exchange.head, exchange.body
        started = services.clock.monotonic_seconds()
        probe = answer_probe(head.method, head.raw_path, head.raw_query, services)
        if probe is not None:
            return await self._send(exchange, probe, await self._may_go_on(exchange), None)
        trail = Trail(services.clock.now_ms()) if services.audit.active else None
        answered = Answered("none", Response(status=499))
        ticket = Ticket(services.memory)
        counts = services.metrics.requests
        counts.in_flight += 1
        try:
            if not exchange.connection.secure and services.refuses_plaintext():
                error = S3Error("AccessDenied", "This store is reached over https only.")
                answered = Answered("rejected", self._error(error, exchange))
            else:
                answered = await self._answer(exchange, ticket, trail)
            return await self._send(exchange, answered.response, await self._may_go_on(exchange), trail)
        finally:
            if isinstance(answered.response.body, BodyStream):
                await close_pieces(answered.response.body)
            ticket.leave()
            counts.in_flight -= 1
            counts.received_bytes += body.received_bytes
            seconds = services.clock.monotonic_seconds() - started
            counts.observe(answered.operation, answered.response.status, seconds)
            if trail is not None:
                self._audit(trail, exchange, answered, seconds)

    async def _may_go_on(self, exchange: Exchange) -> bool:
        """Whether another request may follow on this connection."""
        return await exchange.body.drain() and exchange.head.keeps_alive and not self._closing

    async def _answer(self, exchange: Exchange, ticket: Ticket, trail: Trail | None) -> Answered:
        try:
            await ticket.enter(admin=self._dispatcher.is_mounted(exchange.head.raw_path))
        except Overloaded as error:
            self._services.metrics.rejected.inc()
            told = to_s3_error(error)
            if trail is not None:
                trail.error = told.code
            return Answered("rejected", self._error(told, exchange))
        request = self._request(exchange)
        if trail is not None:
            trail.request = request
        return Answered(*await self._dispatcher.answer(request, exchange.body, exchange.request_id, ticket, trail))

    def _audit(self, trail: Trail, exchange: Exchange, answered: Answered, seconds: float) -> None:
        line = audit_line(
            trail,
            trail.request or self._request(exchange),
            answered.operation,
            answered.response,
            pod=self._services.pod_name,
            request_id=exchange.request_id,
            domains=self._services.domains,
            received_bytes=exchange.body.received_bytes,
            seconds=seconds,
        )
        self._services.audit.offer(line)

    def _error(self, error: S3Error, exchange: Exchange) -> Response:
        head = exchange.head
        return error_response(error, head.raw_path, exchange.request_id, self._services.pod_name, head.method)

    def _request_id(self) -> str:
        return self._services.clock.random_bytes(REQUEST_ID_SIZE_BYTES).hex().upper()

    def _request(self, exchange: Exchange) -> Request:
        head = exchange.head
        return Request(
            method=head.method,
            raw_path=head.raw_path,
            raw_query=head.raw_query,
            headers=head.headers,
            remote=exchange.connection.remote,
            received_ms=self._services.clock.now_ms(),
            secure=exchange.connection.secure,
        )

    # --- the response
    def _head_of(
        self, asked: Head | None, response: Response, request_id: str, size_bytes: int | None, keep_alive: bool
    ) -> bytes:
        now_ms = self._services.clock.now_ms()
        return self._wording.head(asked, response.status, response.headers, request_id, now_ms, size_bytes, keep_alive)

    async def _send(self, exchange: Exchange, response: Response, keep_alive: bool, trail: Trail | None) -> bool:
        """Whether the connection goes on.  Raises ConnectionError, TimeoutError, and what a stream's pieces raise.

        A body that is there as a whole is left to the connection (`_see_it_taken`).
        """
        asked, body = exchange.head, response.body
        size_bytes = len(body) if isinstance(body, bytes) else body.size_bytes
        if size_bytes is None and not is_chunked(asked, size_bytes):
            keep_alive = False
        head = self._head_of(asked, response, exchange.request_id, size_bytes, keep_alive)
        if has_no_body(asked.method, response.status):
            self._write(exchange, (head,))
        elif isinstance(body, bytes):
            self._services.metrics.requests.sent_bytes += len(body)
            if trail is not None:
                trail.sent_bytes = len(body)
            self._write(exchange, (head, body))
        else:
            if trail is not None:
                trail.cut = True  # until it has come to its end
            await self._send_stream(exchange, head, body, trail)
            if trail is not None:
                trail.cut = False
        return keep_alive

    def _write(self, exchange: Exchange, pieces: tuple[Data, ...]) -> None:
        exchange.begun = True
        exchange.connection.write(pieces)

    async def _send_stream(self, exchange: Exchange, head: bytes, body: BodyStream, trail: Trail | None) -> None:
        connection = exchange.connection
        chunked = body.size_bytes is None and not exchange.head.is_http_1_0
        sent = 0
        unsent: tuple[Data, ...] = (head,)  # goes with the first piece
        async for piece in body.pieces:
            sent += len(piece)
            for part in _parts(piece):
                self._write(exchange, (*unsent, *(chunk(part) if chunked else (part,))))
                unsent = ()
                if not connection.takes:
                    await connection.drained()
            if trail is not None:
                trail.sent_bytes = sent
        if chunked:
            unsent = (*unsent, LAST_CHUNK)
        if unsent:
            self._write(exchange, unsent)
        self._services.metrics.requests.sent_bytes += sent
        if body.size_bytes is not None and sent != body.size_bytes:
            raise RuntimeError(f"{sent} bytes were produced for a response of {body.size_bytes}")


def _bounds(services: Services) -> Bounds:
    limits, memory = services.limits, services.memory.limits
    return Bounds(
        connections=memory.connections,
        secure_places=memory.tls_connection_places,
        line_bytes=limits.header_size_bytes,
        head_bytes=limits.head_size_bytes,
        headers=limits.header_count,
        head_seconds=limits.head_seconds,
        keepalive_seconds=limits.keepalive_seconds,
        read_idle_seconds=limits.read_idle_seconds,
        write_idle_seconds=limits.write_idle_seconds,
    )


def _parts(piece: Data) -> Iterator[Data]:
    if len(piece) <= WRITE_SIZE_BYTES:
        if piece:
            yield piece
        return
    view = memoryview(piece)
    for at in range(0, len(view), WRITE_SIZE_BYTES):
        yield view[at : at + WRITE_SIZE_BYTES]


async def close_pieces(body: BodyStream) -> None:
    """Give back what a half-read stream holds on to."""
    closing = getattr(body.pieces, "aclose", None)
    if closing is not None:
        await closing()


async def start(
    services: Services,
    host: str,
    port: int,
    mounts: Mapping[str, Mount] | None = None,
    admission: Admission | None = None,
    calls: CallApi | None = None,
) -> FrontEnd:
    """Listen; `port` 0 takes any free one; `mounts` are path prefixes with handlers of their own; `admission`: who
    comes in with TLS and who without, by default everybody without; `calls`: what answers IAM and STS.

    Raises OSError if the port cannot be bound.
    """
    front_end = FrontEnd(services, Dispatcher(services, mounts, calls))
    await front_end.listen(host, port, admission or Admission())
    return front_end
