"""Targets: what comes over a connection, as bytes: HTTP heads and bodies at a served API, TLS records at a stream.

Whatever is sent, the API answers with HTTP or closes, never with a 500, and the next good request is served.  A TLS
stream gives on what the other end wrote, or a beginning of it, or fails as TLS fails.

Not here: real pods (`hammer`); the API is served over objects in memory.
"""

from __future__ import annotations

import re
import socket
import ssl
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import strategies as st

from holdfast_server.clock.system import SystemClock
from holdfast_server.s3.signing import KeyPair, sign_headers
from holdfast_server.testing.fuzzing.damage import damaged
from holdfast_server.testing.fuzzing.target import Check, Target
from holdfast_server.testing.memory_services import ROOT_PASSWORD, ROOT_USER, Endpoint, memory_services, served
from holdfast_server.transport.tls import client_facing_context
from holdfast_server.transport.tls_stream import TlsStream

_PAUSE_SECONDS = 0.02
"""After so long without an answer nothing is waited for: the API may wait for more, too."""
_ANSWER_SECONDS = 30.0
_HOST = "store:9000"

_TARGETS = [
    "/", "/bucket", "/bucket/key", "/bucket/a%20b?tagging", "/bucket?list-type=2", "/bucket/new?uploads", "*",
    "/health/live", "http://x/bucket", "/bucket?delete", "/minio/admin/v3/info", "/bucket/key?partNumber=1",
    "/bucket?cors", "/bucket?policy", "/bucket?versioning", "/bucket/key?acl", "/bucket/key?attributes",
]  # fmt: skip
_HEADERS = [
    "Content-Length: 0", "Content-Length: 5", "Transfer-Encoding: chunked", "Expect: 100-continue",
    "Range: bytes=0-1", "Connection: keep-alive", "Connection: close", "Upgrade: h2c", "x-amz-tagging: a=b",
    "x-amz-copy-source: /bucket/key", "Content-MD5: AAAA", "x-amz-acl: public-read", "Origin: https://a",
    "x-amz-content-sha256: UNSIGNED-PAYLOAD", "Content-Encoding: aws-chunked",
    "Content-Type: multipart/form-data; boundary=b", "x-amz-meta-a: b",
    "x-amz-content-sha256: STREAMING-UNSIGNED-PAYLOAD-TRAILER", "x-amz-decoded-content-length: 5",
    "Authorization: AWS4-HMAC-SHA256 Credential=a/20260101/r/s3/aws4_request, SignedHeaders=host, Signature=0",
]  # fmt: skip
_TOKENS = [
    b"\r\n", b"\n", b"\r\n\r\n", b"\r", b" ", b":", b"\x00", b"\xff", b"%", b"HTTP/1.0", b"HTTP/2.0",
    b"Content-Length: -1", b"Content-Length: 1" + b"0" * 30, b"\r\nTransfer-Encoding: chunked\r\n",
    b"5\r\nhello\r\n0\r\n\r\n", b"0\r\n\r\n", b"x: " + b"y" * 9000, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\r\nContent-Length: 5\r\n", b"\r\nTransfer-Encoding: gzip, chunked\r\n", b"\r\nExpect: 100-continue\r\n",
    b"\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n", b"fffffffffffffffff\r\n", b"5;a=b\r\n", b"\r\n folded\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\x02\x00\x01",
]  # fmt: skip


@st.composite
def _asked(draw: Callable[..., Any]) -> bytes:
    """One request, signed for this moment or not, with whatever headers."""
    method = draw(st.sampled_from(["GET", "PUT", "POST", "DELETE", "HEAD", "OPTIONS", "PATCH", "G\x00T"]))
    target = draw(st.sampled_from(_TARGETS))
    lines = draw(st.lists(st.sampled_from(_HEADERS), max_size=4))
    if draw(st.booleans()):
        given = {"host": _HOST}
        given |= {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        payload_hash = given.pop("x-amz-content-sha256", "UNSIGNED-PAYLOAD")
        given.pop("authorization", None)
        path, _, query = target.partition("?")
        # A signature's time is that of the clock: a client of another day never gets past the door.
        now_ms = SystemClock().now_ms()
        signed = sign_headers(KeyPair(ROOT_USER, ROOT_PASSWORD), method, path, query, given, now_ms, payload_hash)
        lines = [f"{name}: {value}" for name, value in signed.items()]
    else:
        lines = [f"Host: {_HOST}", *lines]
    head = "".join(f"{line}\r\n" for line in [f"{method} {target} HTTP/1.1", *lines, ""])
    return head.encode() + draw(st.sampled_from([b"", b"", b"hello", b"<Delete/>", b"--b\r\n\r\n--b--"]))


class Talk(NamedTuple):
    pieces: tuple[bytes, ...]
    half_close: bool


@st.composite
def _talk(draw: Callable[..., Any]) -> Talk:
    wire = draw(damaged(st.lists(_asked(), min_size=1, max_size=2).map(b"".join), _TOKENS))
    cuts = sorted(draw(st.lists(st.integers(0, len(wire)), max_size=2)))
    pieces = [wire[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(wire)], strict=True)]
    return Talk(tuple(pieces), draw(st.integers(0, 9)) == 0)


def _talk_to(endpoint: Endpoint, talk: Talk) -> bytes:
    """What came back."""
    heard = b""
    with socket.create_connection((endpoint.host, endpoint.port), timeout=_ANSWER_SECONDS) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for piece in talk.pieces:
                connection.sendall(piece)
            if talk.half_close:
                connection.shutdown(socket.SHUT_WR)
            else:
                connection.settimeout(_PAUSE_SECONDS)
            while piece := connection.recv(1 << 16):
                heard += piece
        except ConnectionError:
            pass  # cut off while it was still talking
        except TimeoutError:
            assert not talk.half_close, "no answer to a client that said all it had to say"
    return heard


_STATUS = re.compile(rb"HTTP/(?:0\.9|1\.[01]) (\d{3}) ")


def check_answers(heard: bytes) -> None:
    if heard:
        assert _STATUS.match(heard), heard[:200]
    assert b"<Code>InternalError</Code>" not in heard, heard
    assert not re.search(rb"(?m)^HTTP/\d\.\d 500 ", heard), heard


def _is_alive(endpoint: Endpoint) -> None:
    asked = b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    heard = _talk_to(endpoint, Talk((asked,), True))
    assert heard.startswith(b"HTTP/1.1 200"), heard


@contextmanager
def _api() -> Iterator[Check]:
    with served(memory_services()) as endpoint:
        pair = KeyPair(endpoint.access_key, endpoint.secret_key)
        headers = {"host": _HOST, "content-length": "0", "connection": "close"}
        signed = sign_headers(pair, "PUT", "/bucket", "", headers, SystemClock().now_ms())
        lines = "".join(f"{name}: {value}\r\n" for name, value in signed.items())
        made = _talk_to(endpoint, Talk((f"PUT /bucket HTTP/1.1\r\n{lines}\r\n".encode(),), True))
        assert made.startswith(b"HTTP/1.1 200"), made

        def check(talk: Talk) -> None:
            check_answers(_talk_to(endpoint, talk))
            _is_alive(endpoint)

        yield check


# --- TLS


class Records(NamedTuple):
    """What a client writes, and what is done to its records."""

    texts: tuple[bytes, ...]
    damage: tuple[tuple[str, int, int], ...]
    """(kind, which record, where in it)."""
    of_handshake: bool


_RECORDS = st.builds(
    Records,
    st.lists(st.binary(max_size=60), max_size=4).map(tuple),
    st.lists(
        st.tuples(st.sampled_from(["flip", "cut", "repeat", "drop", "junk"]), st.integers(0, 5), st.integers(0, 400)),
        max_size=2,
    ).map(tuple),
    st.booleans(),
)


def _harmed(record: bytes, number: int, damage: tuple[tuple[str, int, int], ...]) -> bytes:
    for kind, which, where in damage:
        if which != number or not record:
            continue
        at = where % len(record)
        record = {
            "flip": record[:at] + bytes([record[at] ^ 0x41]) + record[at + 1 :],
            "cut": record[:at],
            "repeat": record + record[at:],
            "drop": b"",
            "junk": record[:at] + b"\x17\x03\x03\x00\x02xx" + record[at:],
        }[kind]
    return record


class _Client:
    """The other end, by the library alone."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = context.wrap_bio(self.incoming, self.outgoing, server_hostname="store")

    def step(self) -> None:
        try:
            self.object.do_handshake()
        except ssl.SSLWantReadError:
            pass


def _self_signed(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "store")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("store")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / "key").write_bytes(key.private_bytes(encoding, form, serialization.NoEncryption()))
    trust = ssl.create_default_context(cafile=str(folder / "crt"))
    return client_facing_context(folder / "crt", folder / "key"), trust


@contextmanager
def _streams() -> Iterator[Check]:
    with tempfile.TemporaryDirectory() as folder:
        server_context, trust = _self_signed(Path(folder))
    yield lambda records: check_records(records, server_context, trust)


def check_records(records: Records, server_context: ssl.SSLContext, trust: ssl.SSLContext) -> None:
    server, client = TlsStream(server_context, server_side=True), _Client(trust)
    try:
        for number in range(4):
            client.step()
            flight = client.outgoing.read()
            server.received(memoryview(_harmed(flight, number, records.damage) if records.of_handshake else flight))
            done = server.handshake()
            server.keep()
            client.incoming.write(server.take())
            if done:
                break
        else:
            return
        client.step()
        got, sent = b"", b"".join(records.texts)
        buffer = memoryview(bytearray(64))
        for number, text in enumerate(records.texts):
            if text:
                client.object.write(text)
            record = client.outgoing.read()
            server.forget()
            server.received(memoryview(record if records.of_handshake else _harmed(record, number, records.damage)))
            while count := server.read_into(buffer):
                got += bytes(buffer[:count])
                assert sent.startswith(got), (got, sent)
    except ssl.SSLError:
        return


TARGETS = [
    Target("HTTP on the wire", _talk(), _api, examples=60),
    Target("TLS records", _RECORDS, _streams),
]
