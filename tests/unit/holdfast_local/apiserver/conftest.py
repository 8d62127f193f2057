"""A real API server on a free loopback port, and a small client for it."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from holdfast_local.apiserver.server import RunningServer, serve

ADMIN = "admin-token"
VISITOR = "visitor-token"
OPERATOR = "operator-token"
TOKENS = {
    ADMIN: ("admin", ("system:masters",)),
    VISITOR: ("visitor", ("guests",)),
    OPERATOR: ("system:serviceaccount:default:operator", ()),
}
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY = "application/apply-patch+yaml"


@dataclass
class Api:
    """One client with one token. Each verb returns (status code, decoded body)."""

    session: aiohttp.ClientSession
    server: RunningServer

    async def call(
        self, method: str, path: str, body: Any = None, media_type: str = "application/json", **query: str
    ) -> tuple[int, Any]:
        headers = {"Content-Type": media_type, "User-Agent": "tests/1"}
        data = None if body is None else json.dumps(body)
        async with self.session.request(method, path, data=data, headers=headers, params=query) as response:
            text = await response.text()
            decoded = json.loads(text) if "json" in response.content_type else text
            return response.status, decoded

    async def get(self, path: str, **query: str) -> Any:
        status, body = await self.call("GET", path, **query)
        assert status == 200, body
        return body

    async def create(self, path: str, body: Any, **query: str) -> Any:
        status, created = await self.call("POST", path, body, **query)
        assert status == 201, created
        return created

    async def patch(self, path: str, body: Any, media_type: str = MERGE, **query: str) -> Any:
        status, patched = await self.call("PATCH", path, body, media_type, **query)
        assert status == 200, patched
        return patched

    async def apply(self, path: str, body: Any, manager: str = "owner", force: bool = False) -> tuple[int, Any]:
        query = {"fieldManager": manager, **({"force": "true"} if force else {})}
        return await self.call("PATCH", path, body, APPLY, **query)

    async def gone(self, path: str) -> None:
        """Waits, by watching, until the object at `path` is gone."""
        collection, _, name = path.rpartition("/")
        status, found = await self.call("GET", path)
        if status == 404:
            return
        query = {
            "watch": "true",
            "resourceVersion": found["metadata"]["resourceVersion"],
            "fieldSelector": f"metadata.name={name}",
            "timeoutSeconds": "30",
        }
        async with self.session.get(collection, params=query) as response:
            async for line in response.content:
                if json.loads(line)["type"] == "DELETED":
                    return
        raise AssertionError(f"{path} is still there")

    async def until(self, path: str, holds: Any) -> Any:
        """Waits, by watching, until `holds(object)`; returns the object."""
        collection, _, name = path.rpartition("/")
        query = {"watch": "true", "fieldSelector": f"metadata.name={name}", "timeoutSeconds": "30"}
        async with self.session.get(collection, params=query) as response:
            async for line in response.content:
                event = json.loads(line)
                if event["type"] != "DELETED" and holds(event["object"]):
                    return event["object"]
        raise AssertionError(f"{path} never came to that state")


@asynccontextmanager
async def client(server: RunningServer, token: str) -> AsyncIterator[Api]:
    context = ssl.create_default_context(cadata=server.certificate_authority.decode())
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    connector = aiohttp.TCPConnector(ssl=context)
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(server.url, headers=headers, connector=connector, timeout=timeout) as session:
        yield Api(session, server)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RunningServer]:
    running = await serve(tmp_path / "state", "127.0.0.1", 0, TOKENS)
    yield running
    await running.close()


@pytest.fixture
async def api(server: RunningServer) -> AsyncIterator[Api]:
    async with client(server, ADMIN) as admin:
        yield admin


@pytest.fixture
async def visitor(server: RunningServer) -> AsyncIterator[Api]:
    async with client(server, VISITOR) as found:
        yield found


@pytest.fixture
async def operator(server: RunningServer) -> AsyncIterator[Api]:
    async with client(server, OPERATOR) as found:
        yield found


@pytest.fixture
def config_map() -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "1"}}


@pytest.fixture
def connect() -> Any:
    """`async with connect(server) as api`, as administrator."""
    return lambda server: client(server, ADMIN)
