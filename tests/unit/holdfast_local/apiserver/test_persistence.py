"""Objects, versions and the certificate authority survive a restart; the state folder is private and used by one."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from holdfast_local.apiserver.kubeconfig import write_kubeconfig
from holdfast_local.apiserver.server import DATABASE_NAME, serve
from holdfast_local.apiserver.storage.database import DatabaseError

MAPS = "/api/v1/namespaces/default/configmaps"
TOKENS = {"admin-token": ("admin", ("system:masters",))}


@pytest.fixture
def reopen(tmp_path: Path) -> Any:
    async def opened() -> Any:
        return await serve(tmp_path / "state", "127.0.0.1", 0, TOKENS)

    return opened


async def test_objects_and_custom_kinds_survive_a_restart(reopen: Any, connect: Any) -> None:
    crd = {
        "metadata": {"name": "boats.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "boats", "kind": "Boat"},
            "versions": [
                {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
            ],
        },
    }
    running = await reopen()
    async with connect(running) as api:
        await api.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd)
        await api.create("/apis/example.com/v1/namespaces/default/boats", {"metadata": {"name": "b"}})
        created = await api.create(MAPS, {"metadata": {"name": "c"}, "data": {"a": "1"}})
        authority = running.certificate_authority
        revision = int((await api.get(MAPS))["metadata"]["resourceVersion"])
    await running.close()
    running = await reopen()
    async with connect(running) as api:
        assert running.certificate_authority == authority
        assert await api.get(f"{MAPS}/c") == created
        assert (await api.get("/apis/example.com/v1/namespaces/default/boats/b"))["kind"] == "Boat"
        assert int((await api.get(MAPS))["metadata"]["resourceVersion"]) >= revision
        query = {"watch": "true", "resourceVersion": "2", "timeoutSeconds": "1"}
        async with api.session.get(MAPS, params=query) as response:
            assert b'"code":410' in await response.content.readline()
    await running.close()


async def test_a_watch_goes_on_from_the_last_version_after_a_restart(reopen: Any, connect: Any) -> None:
    running = await reopen()
    async with connect(running) as api:
        revision = (await api.get(MAPS))["metadata"]["resourceVersion"]
    await running.close()
    running = await reopen()
    async with connect(running) as api:
        await api.create(MAPS, {"metadata": {"name": "c"}})
        query = {"watch": "true", "resourceVersion": revision, "timeoutSeconds": "2"}
        async with api.session.get(MAPS, params=query) as response:
            assert b'"ADDED"' in await response.content.readline()
    await running.close()


async def test_secrets_and_keys_on_disk_are_private(tmp_path: Path, server: Any) -> None:
    state = tmp_path / "state"
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    private = [path for path in state.rglob("*") if path.is_file() and path.name != "ca.crt"]
    assert {path.name for path in private} >= {DATABASE_NAME, "ca.key", "server.pem"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in private} == {0o600}


async def test_a_state_folder_in_use_is_refused(tmp_path: Path, server: Any) -> None:
    with pytest.raises(DatabaseError, match="another stand-in cluster"):
        await serve(tmp_path / "state", "127.0.0.1", 0, TOKENS)


async def test_a_taken_port_is_an_error_and_leaves_the_state_free(tmp_path: Path, server: Any) -> None:
    port = int(server.url.rpartition(":")[2])
    with pytest.raises(OSError, match="in use"):
        await serve(tmp_path / "second", "127.0.0.1", port, TOKENS)
    running = await serve(tmp_path / "second", "127.0.0.1", 0, TOKENS)
    await running.close()


async def test_a_kubeconfig_is_private_and_complete(tmp_path: Path, server: Any) -> None:
    path = tmp_path / "kubeconfig"
    write_kubeconfig(path, server.url, "secret-token", server.certificate_authority)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = path.read_text()
    assert server.url in text
    assert "secret-token" in text
