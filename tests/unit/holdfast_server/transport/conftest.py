"""Certificates, and the other end of a TLS connection as a test wants it."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest

from holdfast_operator.tls.minting import mint_authority, mint_leaf
from holdfast_operator.tls.values import SubjectNames
from holdfast_server.transport.tls import client_facing_context

NAME = "logs.loki.svc"


class Contexts(NamedTuple):
    server: ssl.SSLContext
    client: ssl.SSLContext


@pytest.fixture(scope="session")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> Contexts:
    folder, now, lifetime = tmp_path_factory.mktemp("tls"), datetime.now(UTC), timedelta(days=1)
    return make_contexts(folder, now, lifetime)


def make_contexts(folder: Path, now: datetime, lifetime: timedelta) -> Contexts:
    authority = mint_authority("test", now, lifetime)
    leaf = mint_leaf(authority, SubjectNames((NAME,)), now, lifetime)
    (folder / "crt").write_text(leaf.certificate)
    (folder / "key").write_text(leaf.key)
    client = ssl.create_default_context(cadata=authority.certificate)
    return Contexts(client_facing_context(folder / "crt", folder / "key"), client)


@pytest.fixture(params=["TLSv1_2", "TLSv1_3"])
def client_context(request: pytest.FixtureRequest, contexts: Contexts) -> ssl.SSLContext:
    """Trusts the server, and speaks one version only."""
    version = ssl.TLSVersion[request.param]
    context = ssl.create_default_context()
    context.load_verify_locations(cadata="".join(map(ssl.DER_cert_to_PEM_cert, contexts.client.get_ca_certs(True))))
    context.minimum_version = context.maximum_version = version
    return context
