"""What clients find at the S3 port: versions, chain, protocol, names, sessions."""

from __future__ import annotations

import asyncio
import socket
import ssl
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from holdfast_operator.tls.minting import mint_authority, mint_leaf
from holdfast_operator.tls.values import SubjectNames
from holdfast_server.transport.listener import Admission, Listener
from holdfast_server.transport.tls import client_facing_context

NAME = "logs.loki.svc"
TIMEOUT_SECONDS = 60


class Greeter(asyncio.BufferedProtocol):
    """Says one byte, with which a client's tickets come."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.write(b"!")  # type: ignore[attr-defined]

    def get_buffer(self, sizehint: int) -> bytearray:
        return bytearray(100)

    def buffer_updated(self, nbytes: int) -> None:
        pass


class Pair(NamedTuple):
    certificate: Path
    """With its chain."""
    key: Path
    root: str


class Seen(NamedTuple):
    """By a client, of one connection."""

    version: str | None
    protocol: str | None
    chain: list[x509.Certificate]
    session: ssl.SSLSession | None
    resumed: bool | None


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    now, day = datetime.now(UTC), timedelta(days=1)
    root = mint_authority("root", now, 30 * day)
    leaf = mint_leaf(root, SubjectNames((NAME,)), now, day)
    (tmp_path / "crt").write_text(leaf.certificate + root.certificate)
    (tmp_path / "key").write_text(leaf.key)
    return Pair(tmp_path / "crt", tmp_path / "key", root.certificate)


Connect = Callable[..., Awaitable[Seen]]


@pytest.fixture
async def connect(pair: Pair) -> AsyncIterator[Connect]:
    context = client_facing_context(pair.certificate, pair.key)
    listener = Listener(Greeter, Admission(tls=lambda: context))
    port = await listener.start("127.0.0.1", 0)

    def dial(client: ssl.SSLContext, name: str | None, session: ssl.SSLSession | None) -> Seen:
        with (
            socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS) as plain,
            client.wrap_socket(plain, server_hostname=name, session=session) as secure,
        ):
            assert secure.recv(1) == b"!"
            inner: Any = secure._sslobj  # type: ignore[attr-defined]
            chain = [x509.load_der_x509_certificate(one.public_bytes(2)) for one in inner.get_unverified_chain() or ()]
            return Seen(secure.version(), secure.selected_alpn_protocol(), chain, secure.session, secure.session_reused)

    yield lambda client, name=NAME, session=None: asyncio.to_thread(dial, client, name, session)
    await listener.close()


def trusting(pair: Pair) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=pair.root)


async def test_the_chain_is_shown_whole_and_http_1_1_agreed_upon(connect: Connect, pair: Pair) -> None:
    client = trusting(pair)
    client.set_alpn_protocols(["h2", "http/1.1"])
    seen = await connect(client)
    assert (seen.version, seen.protocol) == ("TLSv1.3", "http/1.1")
    assert seen.chain == x509.load_pem_x509_certificates(pair.certificate.read_bytes())


async def test_a_client_that_offers_other_protocols_only_is_served(connect: Connect, pair: Pair) -> None:
    client = trusting(pair)
    client.set_alpn_protocols(["h2"])
    assert (await connect(client)).protocol is None


async def test_versions_before_1_2_are_refused(connect: Connect, pair: Pair) -> None:
    client = trusting(pair)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        client.minimum_version = client.maximum_version = ssl.TLSVersion.TLSv1_1
    client.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError):
        await connect(client)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    assert (await connect(client)).version == "TLSv1.2"


@pytest.mark.parametrize("name", ["another.example.com", None])
async def test_whoever_asks_for_another_name_is_shown_the_same(connect: Connect, pair: Pair, name: str | None) -> None:
    client = trusting(pair)
    client.check_hostname = False
    assert (await connect(client, name)).chain[0] == x509.load_pem_x509_certificate(pair.certificate.read_bytes())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_sessions_are_resumed(connect: Connect, pair: Pair, version: ssl.TLSVersion) -> None:
    client = trusting(pair)
    client.minimum_version = client.maximum_version = version
    first = await connect(client)
    assert first.resumed is False
    assert (await connect(client, NAME, first.session)).resumed is True


def test_a_key_with_a_password_is_refused_and_nobody_is_asked_for_it(pair: Pair) -> None:
    key = serialization.load_pem_private_key(pair.key.read_bytes(), None)
    locked = serialization.BestAvailableEncryption(b"secret")
    pair.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked))
    with pytest.raises(OSError, match="the key has a password"):
        client_facing_context(pair.certificate, pair.key)
