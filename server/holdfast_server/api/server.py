"""The HTTP front end: sockets and aiohttp on one side, `Request`, `IncomingBody` and `Response` on the other.

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
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus

from aiohttp import ClientConnectionError, web
from aiohttp.http_exceptions import HttpProcessingError

from holdfast_server.api.admission import Ticket
from holdfast_server.api.audit_trail import Trail, audit_line
from holdfast_server.api.dispatch import CallApi, Dispatcher, Mount, error_response
from holdfast_server.api.failures import to_s3_error
from holdfast_server.api.http_protocol import S3Protocol, S3Server, last_words
from holdfast_server.api.probes import answer_probe
from holdfast_server.api.services import Limits, Services
from holdfast_server.memory.budget import Overloaded
from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.request import BodyStream, Request, Response, fold_headers
from holdfast_server.transport.listener import Admission, Listener

log = logging.getLogger(__name__)

SERVER_NAME = "Holdfast"
DRAINED_SIZE_BYTES = 64 * 1024
"""A rest of a body up to this size is read so that the connection can be kept."""
DRAIN_SECONDS = 0.5
LINGER_SECONDS = 2.0
"""How long a client that was answered early may go on sending before the connection is cut."""
CUT_SECONDS = 0.5
"""What a request that outlived the grace of a closing server gets to notice that its client is gone."""
LAST_BYTES_SECONDS = 2.0
"""What clients of a closing server get to take the rest of their answers."""
REQUEST_ID_SIZE_BYTES = 8
WRITE_SIZE_BYTES = 256 << 10
"""Of a response, what a client has `write_idle_seconds` to take."""
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class HttpBody:
    """`IncomingBody` over an aiohttp request."""

    def __init__(self, http: web.BaseRequest, limits: Limits) -> None:
        self._http = http
        self._idle_seconds = limits.read_idle_seconds
        self.size_bytes = http.content_length if http.body_exists or http.content_length is not None else 0
        self._awaits_continue = http.headers.get("Expect", "").strip().lower() == "100-continue"
        self.received_bytes = 0

    async def pieces(self) -> AsyncIterator[bytes]:
        self._let_come()
        await self._let_go_on()
        content = self._http.content
        while True:
            try:
                piece = content.read_nowait(-1) or await self._wait_for_piece()
            except TimeoutError:
                raise S3Error("RequestTimeout") from None
            except (ClientConnectionError, ConnectionError, web.RequestPayloadError, HttpProcessingError) as error:
                raise S3Error("IncompleteBody") from error
            if not piece:
                return
            self.received_bytes += len(piece)
            yield piece

    async def _wait_for_piece(self) -> bytes:
        async with asyncio.timeout(self._idle_seconds):
            return await self._http.content.readany()

    def _let_come(self) -> None:
        protocol = self._http.protocol
        assert isinstance(protocol, S3Protocol)
        protocol.let_come()

    async def _let_go_on(self) -> None:
        if not self._awaits_continue:
            return
        self._awaits_continue = False
        if self._http.version >= (1, 1):
            writer = self._http.writer
            await writer.write(_CONTINUE)
            writer.output_size = 0  # the interim response is no part of the response's own bytes

    async def drain(self) -> bool:
        """Read a small rest; True when the body is at its end and the connection can go on."""
        content = self._http.content
        if content.at_eof():
            return True
        if self._awaits_continue or content.exception() is not None:
            return False
        if self.size_bytes is not None and self.size_bytes - self.received_bytes > DRAINED_SIZE_BYTES:
            return False
        taken = 0
        self._let_come()
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                while taken <= DRAINED_SIZE_BYTES and not content.at_eof():
                    taken += len(await content.readany())
        except (TimeoutError, ClientConnectionError, ConnectionError, web.RequestPayloadError, HttpProcessingError):
            return False
        return content.at_eof()


@dataclass(frozen=True)
class Answered:
    operation: str
    response: Response


class FrontEnd:
    """One listening port.  Built by `start`."""

    def __init__(self, services: Services, dispatcher: Dispatcher) -> None:
        self._services = services
        self._dispatcher = dispatcher
        self._in_flight = 0
        self._closing = False
        self._all_done = asyncio.Event()
        self._listener: Listener | None = None
        self.port = 0
        """The port that was bound, for `port=0`."""
        limits = services.limits
        self._server = S3Server(
            self._handle,
            self._answer_malformed,
            self._refusal,
            services.memory.limits.connections,
            services.memory.limits.tls_connection_places,
            limits.head_seconds,
            limits.head_size_bytes,
            limits.write_idle_seconds,
            keepalive_timeout=limits.keepalive_seconds,
            access_log=None,
            max_line_size=limits.header_size_bytes,
            max_field_size=limits.header_size_bytes,
            max_headers=limits.header_count,
            lingering_time=LINGER_SECONDS,
            read_bufsize=limits.read_buffer_size_bytes,
            auto_decompress=False,  # an object sent with Content-Encoding: gzip is stored as it came
        )

    async def listen(self, host: str, port: int, admission: Admission) -> None:
        listener = Listener(self._server, admission)
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
        # aiohttp's own way of closing drops what clients still send, so uploads are waited for before it begins.
        for connection in self._server.connections:
            if isinstance(connection, S3Protocol) and connection.idle and connection.transport is not None:
                connection.transport.close()
        if self._in_flight:
            self._all_done.clear()
            try:
                async with asyncio.timeout(grace_seconds):
                    await self._all_done.wait()
            except TimeoutError:
                log.warning("%d requests are cut", self._in_flight)
        self._server.pre_shutdown()
        await self._server.shutdown(CUT_SECONDS)
        await self._server.see_off(LAST_BYTES_SECONDS)
        self._listener = None

    # --- one request

    async def _handle(self, http: web.BaseRequest) -> web.StreamResponse:
        services = self._services
        started = services.clock.monotonic_seconds()
        request_id = self._request_id()
        raw_path, raw_query = split_target(http.raw_path)
        protocol = http.protocol
        assert isinstance(protocol, S3Protocol)
        protocol.begin(http.content)
        probe = answer_probe(http.method, raw_path, raw_query, services)
        if probe is not None:
            protocol.end()
            return await self._send(http, probe, request_id, keep_alive=True, trail=None)
        trail = Trail(services.clock.now_ms()) if services.audit.active else None
        body = HttpBody(http, services.limits)
        answered = Answered("none", Response(status=499))
        ticket = Ticket(services.memory)
        self._in_flight += 1
        services.metrics.in_flight.inc()
        try:
            if not http.secure and services.refuses_plaintext():
                error = S3Error("AccessDenied", "This store is reached over https only.")
                answered = Answered("rejected", self._error(error, raw_path, request_id, http.method))
            else:
                answered = await self._answer(http, raw_path, raw_query, body, request_id, ticket, trail)
            keep_alive = await body.drain() and not self._closing
            return await self._send(http, answered.response, request_id, keep_alive, trail)
        finally:
            if isinstance(answered.response.body, BodyStream):
                await close_pieces(answered.response.body)
            ticket.leave()
            protocol.end()
            self._in_flight -= 1
            if not self._in_flight:
                self._all_done.set()
            services.metrics.in_flight.dec()
            services.metrics.received_bytes.inc(body.received_bytes)
            seconds = services.clock.monotonic_seconds() - started
            services.metrics.observe(answered.operation, answered.response.status, seconds)
            if trail is not None:
                request = trail.request or self._request(http, raw_path, raw_query)
                self._audit(trail, request, answered, request_id, body.received_bytes, seconds)

    async def _answer(
        self,
        http: web.BaseRequest,
        raw_path: str,
        raw_query: str,
        body: HttpBody,
        request_id: str,
        ticket: Ticket,
        trail: Trail | None,
    ) -> Answered:
        try:
            await ticket.enter(admin=self._dispatcher.is_mounted(raw_path))
        except Overloaded as error:
            self._services.metrics.rejected.inc()
            told = to_s3_error(error)
            if trail is not None:
                trail.error = told.code
            return Answered("rejected", self._error(told, raw_path, request_id, http.method))
        request = self._request(http, raw_path, raw_query)
        if trail is not None:
            trail.request = request
        return Answered(*await self._dispatcher.answer(request, body, request_id, ticket, trail))

    def _audit(
        self, trail: Trail, request: Request, answered: Answered, request_id: str, received_bytes: int, seconds: float
    ) -> None:
        line = audit_line(
            trail,
            request,
            answered.operation,
            answered.response,
            pod=self._services.pod_name,
            request_id=request_id,
            domains=self._services.domains,
            received_bytes=received_bytes,
            seconds=seconds,
        )
        self._services.audit.offer(line)

    def _error(self, error: S3Error, raw_path: str, request_id: str, method: str) -> Response:
        return error_response(error, raw_path, request_id, self._services.pod_name, method)

    def _request_id(self) -> str:
        return self._services.clock.random_bytes(REQUEST_ID_SIZE_BYTES).hex().upper()

    def _request(self, http: web.BaseRequest, raw_path: str, raw_query: str) -> Request:
        return Request(
            method=http.method,
            raw_path=raw_path,
            raw_query=raw_query,
            headers=fold_headers(http.headers.items()),
            remote=http.remote or "",
            received_ms=self._services.clock.now_ms(),
            secure=http.secure,
        )

    # --- the response

    async def _send(
        self, http: web.BaseRequest, response: Response, request_id: str, keep_alive: bool, trail: Trail | None
    ) -> web.StreamResponse:
        headers = self._headers(response, request_id)
        streaming = isinstance(response.body, BodyStream)
        if streaming or http.method == "HEAD":
            return await self._send_stream(http, response, headers, keep_alive, trail)
        assert isinstance(response.body, bytes)
        self._services.metrics.sent_bytes.inc(len(response.body))
        if trail is not None:
            trail.sent_bytes = len(response.body)
        plain = web.Response(status=response.status, headers=headers, body=response.body)
        if not response.body:
            plain.headers.setdefault("Content-Length", "0")
        if not keep_alive:
            plain.force_close()
        return plain

    def _headers(self, response: Response, request_id: str) -> dict[str, str]:
        return {
            **response.headers,
            "x-amz-request-id": request_id,
            "x-amz-id-2": self._services.pod_name,
            "Server": SERVER_NAME,
        }

    async def _send_stream(
        self,
        http: web.BaseRequest,
        response: Response,
        headers: dict[str, str],
        keep_alive: bool,
        trail: Trail | None,
    ) -> web.StreamResponse:
        stream = web.StreamResponse(status=response.status, headers=headers)
        if not keep_alive:
            stream.force_close()
        body = response.body
        size_bytes = body.size_bytes if isinstance(body, BodyStream) else len(body)
        if size_bytes is not None and "content-length" not in stream.headers:
            stream.content_length = size_bytes
        if not isinstance(body, BodyStream) or http.method == "HEAD":
            return stream
        try:
            if trail is not None:
                trail.cut = True  # until it has come to its end
            await stream.prepare(http)
            await self._write_pieces(stream, body, trail)
            if trail is not None:
                trail.cut = False
        except asyncio.CancelledError:
            cut(http)
            raise
        except (ConnectionError, TimeoutError) as error:
            log.info("client %s went away or took nothing: %s", http.remote, error)
            cut(http)
        except Exception as error:
            # The status line is out: the one honest answer left is a connection that ends too early.
            log.error("a response was cut: %s", error, exc_info=error)
            cut(http)
        finally:
            await close_pieces(body)
        return stream

    async def _write_pieces(self, stream: web.StreamResponse, body: BodyStream, trail: Trail | None) -> None:
        sent = 0
        idle_seconds = self._services.limits.write_idle_seconds
        async for piece in body.pieces:
            sent += len(piece)
            for part in _parts(piece):
                async with asyncio.timeout(idle_seconds):
                    await stream.write(part)
            if trail is not None:
                trail.sent_bytes = sent
        self._services.metrics.sent_bytes.inc(sent)
        if body.size_bytes is not None and sent != body.size_bytes:
            raise RuntimeError(f"{sent} bytes were produced for a response of {body.size_bytes}")

    def _answer_malformed(self, http: web.BaseRequest, error: S3Error) -> web.Response:
        return last_words(*self._told_unasked(error))

    def _refusal(self, error: S3Error) -> bytes:
        status, headers, body = self._told_unasked(error)
        headers |= {"Content-Length": str(len(body)), "Connection": "close"}
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{name}: {headers[name]}" for name in headers)]
        return "\r\n".join([*lines, "", ""]).encode() + body

    def _told_unasked(self, error: S3Error) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body for a client that asked nothing that could be understood."""
        self._services.metrics.malformed.inc()
        request_id = self._request_id()
        response = self._error(error, "/", request_id, "GET")
        assert isinstance(response.body, bytes)
        return response.status, self._headers(response, request_id), response.body


def _parts(piece: bytes | bytearray | memoryview) -> Iterator[memoryview]:
    view = memoryview(piece)
    for at in range(0, len(view), WRITE_SIZE_BYTES):
        yield view[at : at + WRITE_SIZE_BYTES]


def split_target(target: str) -> tuple[str, str]:
    """Path and query of a request line's target, undecoded; the absolute form loses scheme and host."""
    if not target.startswith("/") and "://" in target:
        _, _, rest = target.partition("://")
        slash = rest.find("/")
        target = rest[slash:] if slash >= 0 else "/"
    raw_path, _, raw_query = target.partition("?")
    return raw_path, raw_query


def cut(http: web.BaseRequest) -> None:
    """End the connection at once, so that the client sees a short body as the failure it is."""
    if http.transport is not None:
        http.transport.abort()


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
