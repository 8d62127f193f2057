"""The operator's client of a store that is really there: the whole API, over objects in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest

from holdfast_operator.credentials import KeyPair
from holdfast_operator.provision import client as store_client
from holdfast_operator.provision.client import HttpStoreClient
from holdfast_server.testing.memory_services import Endpoint, memory_services, served


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    """Quotas hold; only the port differs from a cluster's."""
    with served(memory_services(meter=True)) as found:
        monkeypatch.setattr(store_client.names, "S3_PORT", found.port)
        yield found


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


@pytest.fixture
def store(endpoint: Endpoint, session: aiohttp.ClientSession) -> HttpStoreClient:
    """As root."""
    root = KeyPair(endpoint.access_key, endpoint.secret_key)
    return HttpStoreClient(session, [endpoint.host], root, "us-east-1")
