"""Watches: order, beginnings, selections, bookmarks, expiry, and the end of the server."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from holdfast_local.apiserver.http import watches
from holdfast_local.apiserver.server import serve
from holdfast_local.apiserver.storage import history

MAPS = "/api/v1/namespaces/default/configmaps"


def config_map(name: str, **labels: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}}


@asynccontextmanager
async def watching(api: Any, path: str = MAPS, **query: str) -> AsyncIterator[Any]:
    query = {"watch": "true", "timeoutSeconds": "30", **query}
    async with api.session.get(path, params=query) as response:
        assert response.status == 200

        async def following() -> dict[str, Any]:
            async with asyncio.timeout(60):
                event: dict[str, Any] = json.loads(await response.content.readline())
            return event

        yield following


async def test_a_watch_from_a_list_sees_every_later_change_in_order(api: Any) -> None:
    revision = (await api.get(MAPS))["metadata"]["resourceVersion"]
    async with watching(api, resourceVersion=revision) as following:
        await api.create(MAPS, config_map("a"))
        await api.patch(f"{MAPS}/a", {"data": {"x": "1"}})
        await api.call("DELETE", f"{MAPS}/a")
        events = [await following() for _ in range(3)]
    assert [event["type"] for event in events] == ["ADDED", "MODIFIED", "DELETED"]
    revisions = [int(event["object"]["metadata"]["resourceVersion"]) for event in events]
    assert revisions == sorted(set(revisions))
    assert events[2]["object"]["data"] == {"x": "1"}


async def test_a_watch_without_a_version_begins_with_what_is_there(api: Any) -> None:
    await api.create(MAPS, config_map("a", app="x"))
    async with watching(api, labelSelector="app=x") as following:
        first = await following()
        await api.create(MAPS, config_map("b", app="x"))
        second = await following()
    assert [(e["type"], e["object"]["metadata"]["name"]) for e in (first, second)] == [("ADDED", "a"), ("ADDED", "b")]


async def test_changes_between_list_and_watch_are_not_lost(api: Any) -> None:
    revision = (await api.get(MAPS))["metadata"]["resourceVersion"]
    await api.create(MAPS, config_map("a"))
    await api.call("DELETE", f"{MAPS}/a")
    async with watching(api, resourceVersion=revision) as following:
        assert [(await following())["type"] for _ in range(2)] == ["ADDED", "DELETED"]


async def test_entering_and_leaving_a_selection_shows_as_added_and_deleted(api: Any) -> None:
    await api.create(MAPS, config_map("a", app="x"))
    revision = (await api.get(MAPS))["metadata"]["resourceVersion"]
    async with watching(api, resourceVersion=revision, labelSelector="app=y") as following:
        await api.patch(f"{MAPS}/a", {"metadata": {"labels": {"app": "y"}}})
        await api.patch(f"{MAPS}/a", {"metadata": {"labels": {"app": "z"}}})
        assert [(await following())["type"] for _ in range(2)] == ["ADDED", "DELETED"]


async def test_a_watch_in_one_namespace_sees_no_other(api: Any) -> None:
    revision = (await api.get(MAPS))["metadata"]["resourceVersion"]
    async with watching(api, resourceVersion=revision) as following:
        await api.create("/api/v1/namespaces/kube-system/configmaps", config_map("elsewhere"))
        await api.create(MAPS, config_map("here"))
        assert (await following())["object"]["metadata"]["name"] == "here"


async def test_a_watch_ends_after_its_timeout(api: Any) -> None:
    query = {"watch": "true", "timeoutSeconds": "1", "resourceVersion": "1000000"}
    async with asyncio.timeout(60), api.session.get(MAPS, params=query) as response:
        assert await response.read() == b""


async def test_bookmarks_carry_the_current_version(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watches, "BOOKMARK_INTERVAL_SECONDS", 0.05)
    revision = (await api.get(MAPS))["metadata"]["resourceVersion"]
    async with watching(api, resourceVersion=revision, allowWatchBookmarks="true") as following:
        event = await following()
    assert (event["type"], event["object"]["kind"]) == ("BOOKMARK", "ConfigMap")
    assert int(event["object"]["metadata"]["resourceVersion"]) >= int(revision)


async def test_a_change_at_the_very_moment_of_a_bookmark_is_not_lost(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watches, "BOOKMARK_INTERVAL_SECONDS", 0.05)
    revision = (await api.create(MAPS, config_map("a")))["metadata"]["resourceVersion"]
    store = api.server._store
    (address,) = (one for one in store.addresses("default") if one.name == "a")
    async with watching(api, resourceVersion=revision, allowWatchBookmarks="true") as following:
        async with asyncio.timeout(60):
            for number in range(10):
                assert (await following())["type"] == "BOOKMARK"
                time.sleep(0.1)  # noqa: ASYNC251 - the loop is held up beyond the time of the next one
                changed = {**store.at(address), "data": {"number": str(number)}}
                asyncio.get_running_loop().call_soon(store.put, address.key, changed)
                while (event := await following())["type"] == "BOOKMARK":
                    pass
                assert event["object"]["data"] == {"number": str(number)}


async def test_initial_events_end_with_a_marked_bookmark(api: Any) -> None:
    await api.create(MAPS, config_map("a", app="x"))
    query = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "labelSelector": "app=x"}
    async with watching(api, allowWatchBookmarks="true", **query) as following:
        first, second = await following(), await following()
    assert first["object"]["metadata"]["name"] == "a"
    assert second["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


async def test_a_forgotten_version_is_gone(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "HISTORY_LENGTH", 3)
    revision = (await api.create(MAPS, config_map("a")))["metadata"]["resourceVersion"]
    for number in range(6):
        await api.patch(f"{MAPS}/a", {"data": {"n": str(number)}})
    async with watching(api, resourceVersion=revision) as following:
        event = await following()
    assert event["type"] == "ERROR"
    assert (event["object"]["code"], event["object"]["reason"]) == (410, "Expired")


async def test_watching_a_table_gives_rows(api: Any) -> None:
    headers = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    await api.create(MAPS, config_map("a", app="x"))
    query = {"watch": "true", "labelSelector": "app=x"}
    async with api.session.get(MAPS, params=query, headers=headers) as response:
        event = json.loads(await response.content.readline())
    assert event["object"]["kind"] == "Table"
    assert event["object"]["rows"][0]["cells"][0] == "a"


async def test_closing_the_server_ends_watches_at_once(tmp_path: Path, connect: Any) -> None:
    running = await serve(tmp_path / "own", "127.0.0.1", 0, {"admin-token": ("admin", ("system:masters",))})
    async with connect(running) as api:
        revision = (await api.get(MAPS))["metadata"]["resourceVersion"]
        query = {"watch": "true", "resourceVersion": revision}
        async with api.session.get(MAPS, params=query) as response, asyncio.timeout(60):
            await running.close()
            assert await response.read() == b""
