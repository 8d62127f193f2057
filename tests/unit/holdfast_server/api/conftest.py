"""A served API, and a client that says exactly what a test wants on the wire.

The API is as patient as it is by default: a busy machine may keep a client, or the API itself, from going on for a
while.  Tests of its impatience serve one of their own.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from holdfast_operator.tls.minting import mint_authority, mint_leaf
from holdfast_operator.tls.values import SubjectNames
from holdfast_server.api import bucket_record
from holdfast_server.api.admission import Ticket
from holdfast_server.api.dispatch import Dispatcher
from holdfast_server.api.services import IncomingBody
from holdfast_server.clock.system import SystemClock
from holdfast_server.s3.request import Request, Response
from holdfast_server.s3.signing import KeyPair, sign_headers
from holdfast_server.testing.memory_services import ROOT_PASSWORD, ROOT_USER, Endpoint, memory_services, served
from holdfast_server.transport.tls import client_facing_context

WAIT_SECONDS = 60.0


class SkippingClock(SystemClock):
    """Sleeps at once, and remembers for how long it should have."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


class GivenBody:
    def __init__(self, data: bytes) -> None:
        self.size_bytes: int | None = len(data)
        self._data = data

    async def pieces(self):
        if self._data:
            yield self._data

    async def fill(self, targets, go_on):
        for full, target in enumerate(targets, 1):
            target[:], self._data = self._data[: len(target)], self._data[len(target) :]
            if not go_on():
                return full
        return len(targets)


class Api:
    """Asks the dispatcher directly, signed as root."""

    def __init__(self) -> None:
        self.clock = SkippingClock()
        self.services = memory_services(clock=self.clock)

    async def ask(self, method: str, path: str, body: bytes = b"", query: str = "", **headers: str) -> Response:
        return await self.send(method, path, GivenBody(body), query, **headers)

    async def send(self, method: str, path: str, body: IncomingBody, query: str = "", **headers: str) -> Response:
        """`ask` with a body that comes as it will."""
        named = {"host": "x", "content-length": str(body.size_bytes), **headers}
        now_ms = self.clock.now_ms()
        signed = sign_headers(KeyPair(ROOT_USER, ROOT_PASSWORD), method, path, query, named, now_ms)
        request = Request(
            method=method, raw_path=path, raw_query=query, headers=signed, remote="", received_ms=now_ms, secure=False
        )
        ticket = Ticket(self.services.memory)
        try:
            return (await Dispatcher(self.services).answer(request, body, "REQUEST", ticket))[1]
        finally:
            ticket.leave()

    async def stored(self) -> bucket_record.BucketRecord | None:
        document = await self.services.objects.get_document("bucket/b01")
        return bucket_record.decode(document.body) if document else None


@pytest.fixture
def unserved_api() -> Api:
    return Api()


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        text = self.body.decode()
        return text.partition("<Code>")[2].partition("</Code>")[0]


class Wire:
    """One connection; sends bytes, reads whole responses."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.socket = socket.create_connection((endpoint.host, endpoint.port), timeout=WAIT_SECONDS)
        if endpoint.trust is not None:
            self.socket = endpoint.trust.wrap_socket(self.socket, server_hostname=endpoint.host)
        self.reader = self.socket.makefile("rb")

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.reader.close()
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def read(self, method: str = "GET") -> Answer:
        line = self.reader.readline()
        if not line:
            raise ConnectionResetError("closed without a response")
        status = int(line.split()[1])
        headers = {}
        while (line := self.reader.readline().strip()) != b"":
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        length = 0 if method == "HEAD" or status in (100, 204, 304) else int(headers.get("content-length", 0))
        return Answer(status, headers, self.reader.read(length))

    def end_sending(self) -> None:
        """Of the socket: shutdown() of one with TLS would forget that it has TLS."""
        socket.socket.shutdown(self.socket, socket.SHUT_WR)

    def closed(self) -> bool:
        """Whether the server ends the connection (waits for it)."""
        try:
            return self.reader.read(1) == b""
        except ConnectionResetError:
            return True

    def head(
        self,
        method: str,
        path: str,
        headers: dict[str, str] | None = None,
        *,
        query: str = "",
        payload_hash: str = "UNSIGNED-PAYLOAD",
        secret_key: str | None = None,
        access_key: str | None = None,
        skew_seconds: float = 0,
    ) -> bytes:
        """A signed request's head."""
        pair = KeyPair(access_key or self.endpoint.access_key, secret_key or self.endpoint.secret_key)
        named = {"host": f"{self.endpoint.host}:{self.endpoint.port}", **(headers or {})}
        now_ms = int((time.time() + skew_seconds) * 1000)
        signed = sign_headers(pair, method, path, query, named, now_ms, payload_hash)
        target = f"{path}?{query}" if query else path
        return "".join(
            [f"{method} {target} HTTP/1.1\r\n", *[f"{k}: {v}\r\n" for k, v in signed.items()], "\r\n"]
        ).encode()

    def ask(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None, **options
    ) -> Answer:
        named = {**(headers or {}), "content-length": str(len(body))} if body or method == "PUT" else headers
        self.send(self.head(method, path, named, **options) + body)
        return self.read(method)


@pytest.fixture(scope="module")
def services():
    return memory_services()


@pytest.fixture(scope="session")
def tls_contexts(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's on loopback, and its clients'."""
    folder, now, lifetime = tmp_path_factory.mktemp("tls"), datetime.now(UTC), timedelta(days=1)
    authority = mint_authority("test", now, lifetime)
    leaf = mint_leaf(authority, SubjectNames(("localhost",), ("127.0.0.1",)), now, lifetime)
    (folder / "crt").write_text(leaf.certificate)
    (folder / "key").write_text(leaf.key)
    trust = ssl.create_default_context(cadata=authority.certificate)
    return client_facing_context(folder / "crt", folder / "key"), trust


@pytest.fixture(scope="module")
def endpoint(services) -> Iterator[Endpoint]:
    with served(services) as served_endpoint:
        with Wire(served_endpoint) as wire:
            assert wire.ask("PUT", "/bucket").status == 200
        yield served_endpoint


@pytest.fixture
def wire(endpoint: Endpoint) -> Iterator[Wire]:
    with Wire(endpoint) as connection:
        yield connection


@pytest.fixture
def connect(endpoint: Endpoint):
    return lambda: Wire(endpoint)


@pytest.fixture(scope="session")
def until():
    """Waits for what comes about in the server's thread."""

    def wait(condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while not condition():
            assert time.monotonic() < deadline, "it does not come to that"
            time.sleep(0.005)

    return wait


@pytest.fixture(scope="session")
def make_wire():
    """For tests that serve an API of their own."""
    return Wire
