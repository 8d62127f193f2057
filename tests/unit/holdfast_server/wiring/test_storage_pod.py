"""Four whole pods in one process, each with its own loopback address: what a tenant does as pods come and go."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import aiohttp
import pytest
import yaml

from holdfast_server.api.services import Told
from holdfast_server.contract.config import ConfigError, Listen
from holdfast_server.drives.local import LocalDrive
from holdfast_server.drives.port import DriveState
from holdfast_server.drives.slot import SlotMemory
from holdfast_server.objects.port import Unavailable
from holdfast_server.peers.messages import VERSIONS_FEATURE
from holdfast_server.peers.port import PeerError
from holdfast_server.peers.remote import RemotePeer
from holdfast_server.pod import users_wait
from holdfast_server.pod.local_drives import LocalDrives
from holdfast_server.testing.free_ports import free_port
from holdfast_server.testing.whole_pods import FourPods, get, put, until
from holdfast_server.wiring import kept_running
from holdfast_server.wiring.inputs import StandaloneInputs, TenantInputs
from holdfast_server.wiring.storage_pod import PodSettings, StoragePod, serve


class Tenant(FourPods):
    """Four pods with two drives each, in one set of eight."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "127.0.19.", volumes=2)
        self.publish()

    def add_pool(self) -> TenantInputs:
        """A pool of one pod that joins: what that pod starts with; the others learn of it when it is published."""
        pool = {
            **self.config["pools"][0], "name": "more", "servers": 1, "erasure": {"setSize": 2, "parity": 1},
            "podNamePrefix": "logs-more-", "firstNode": 4, "readableFromEpoch": 2, "writableFromEpoch": 3,
        }  # fmt: skip
        self.config["pools"].append(pool)
        shutil.copytree(self.root(0) / "k", self.root(4) / "k")
        for volume in range(2):
            (self.root(4) / f"data{volume}").mkdir()
        with (self.folder / "hosts").open("a") as hosts:
            hosts.write(f"{self.address(4)} logs-more-0.pods.svc\n")
        newer = self.folder / "newer.yaml"
        newer.write_text(yaml.safe_dump(self.config))
        return TenantInputs(newer, "logs-more-0", self.root(4))

    def joining_pod(self) -> AbstractAsyncContextManager[StoragePod]:
        """The pod of such a pool, which runs inside the `async with`."""
        settings = PodSettings(bind_address=self.address(4), version="test", hosts_file=self.folder / "hosts")
        return StoragePod.running(self.add_pool(), settings)

    async def reach_epoch(self, epoch: int, *ordinals: int) -> None:
        self.publish(epoch)
        await until(lambda: all(self.pod(i).pod_health().epoch == epoch for i in ordinals))

    def pod(self, i: int) -> StoragePod:
        return self.pods[i]

    def states(self, i: int) -> list[str]:
        """Of all eight drives, by position, as pod i sees them."""
        drives = self.pod(i).cluster_health(False).drives
        return [drive.state for drive in sorted(drives, key=lambda drive: drive.position)]

    async def all_ok(self, *ordinals: int) -> None:
        await until(lambda: all(self.states(i) == ["ok"] * 8 for i in ordinals))


@pytest.fixture
async def tenant(tmp_path: Path) -> AsyncIterator[Tenant]:
    tenant = Tenant(tmp_path)
    yield tenant
    await tenant.stop()


async def test_a_pod_is_ready_once_it_knows_the_users_and_waits_for_no_quorum_for_long(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(users_wait, "PATIENCE_SECONDS", 3600.0)
    await tenant.start(0, 1, 2, 3)
    await tenant.all_ok(0, 1, 2, 3)
    await until(lambda: tenant.pod(0).pod_health().ready)
    assert tenant.pod(0)._services.identities.loaded
    await tenant.stop(0, 1, 2, 3)
    await tenant.start(0)
    await until(lambda: tenant.states(0).count("ok") == 2)
    await until(lambda: "users are being loaded" in tenant.pod(0).pod_health().message)
    assert not tenant.pod(0).pod_health().ready
    monkeypatch.setattr(users_wait, "PATIENCE_SECONDS", 0.0)
    await until(lambda: tenant.pod(0).pod_health().ready)
    assert not tenant.pod(0)._services.identities.loaded
    await tenant.start(1, 2)
    await until(lambda: tenant.pod(0)._services.identities.loaded)


async def test_pods_format_only_together_then_serve_and_lose_one_and_restart(tenant: Tenant) -> None:
    await tenant.start(0, 1, 2)
    await until(lambda: tenant.states(0) == ["blank", "blank", "blank", "offline"] * 2)
    await asyncio.sleep(1.5)
    assert tenant.states(0) == ["blank", "blank", "blank", "offline"] * 2
    health = tenant.pod(0).pod_health()
    assert not health.ready
    assert "missing: logs-3" in health.message
    await tenant.start(3)
    await tenant.all_ok(0, 1, 2, 3)
    await until(lambda: tenant.pod(0).pod_health().ready)
    small, large = b"s" * 100, bytes(range(256)) * 12_000
    await put(tenant.pod(0), "small", small)
    await put(tenant.pod(1), "large", large)
    for i in range(4):
        assert await get(tenant.pod(i), "small") == small
        assert await get(tenant.pod(i), "large") == large
    assert tenant.pod(0).cluster_health(True).healthy

    await tenant.stop(3)
    await until(lambda: tenant.states(0).count("offline") == 2)
    await put(tenant.pod(0), "meanwhile", large)
    assert await get(tenant.pod(2), "meanwhile") == large
    health_now = tenant.pod(0).cluster_health(False)
    assert (health_now.healthy, tenant.pod(0).cluster_health(True).healthy) == (True, False)

    await tenant.start(3)
    await tenant.all_ok(0, 1, 2, 3)
    assert await get(tenant.pod(3), "meanwhile") == large

    await tenant.stop(0, 1, 2, 3)
    await tenant.start(0, 1, 2, 3)
    await tenant.all_ok(0, 1, 2, 3)
    for key, data in [("small", small), ("large", large), ("meanwhile", large)]:
        assert await get(tenant.pod(2), key) == data


async def test_an_emptied_drive_is_a_replacement_even_while_formatting_is_permitted(tenant: Tenant) -> None:
    await tenant.start(0, 1, 2, 3)
    await tenant.all_ok(0, 1, 2, 3)
    data = bytes(range(256)) * 2000
    for i in range(5):
        await put(tenant.pod(i % 4), f"key{i}", data)
    await tenant.stop(2)
    for volume in range(2):
        shutil.rmtree(tenant.root(2) / f"data{volume}")
        (tenant.root(2) / f"data{volume}").mkdir()
    await tenant.start(2, adoption_delay_seconds=4.0)
    await until(lambda: "replacement: joins in" in tenant.pod(2).pod_health().message)
    await until(lambda: "healing" in tenant.states(2) or tenant.states(2) == ["ok"] * 8)
    await tenant.all_ok(0, 1, 2, 3)
    await tenant.stop(0, 1)
    await until(lambda: tenant.states(2).count("offline") == 4)
    for i in range(5):
        assert await get(tenant.pod(2), f"key{i}") == data


async def test_a_drive_lost_under_a_running_pod_is_filled_again_without_a_restart(tenant: Tenant) -> None:
    await tenant.start(0, 1, 2, 3)
    await tenant.all_ok(0, 1, 2, 3)
    data = bytes(range(256)) * 2000
    await put(tenant.pod(0), "before", data)
    place = tenant.root(2) / "data1"
    shutil.rmtree(place)
    await until(lambda: tenant.states(0)[6] == "faulty")
    await put(tenant.pod(0), "while", data)
    place.mkdir()
    await tenant.all_ok(0, 1, 2, 3)
    await put(tenant.pod(0), "after", data)
    assert await get(tenant.pod(2), "after") == data
    await tenant.stop(0, 3)
    await until(lambda: tenant.states(2).count("offline") == 4)
    for key in ("before", "while"):
        assert await get(tenant.pod(2), key) == data


async def test_a_tenant_that_lost_more_than_parity_stops_instead_of_serving_emptiness(tenant: Tenant) -> None:
    await tenant.start(0, 1, 2, 3)
    await tenant.all_ok(0, 1, 2, 3)
    await put(tenant.pod(0), "precious", b"data")
    await tenant.stop(0, 1, 2, 3)
    for i in range(3):
        for volume in range(2):
            shutil.rmtree(tenant.root(i) / f"data{volume}")
            (tenant.root(i) / f"data{volume}").mkdir()
    await tenant.start(0, 1, 2, 3)
    await until(lambda: "DrivesBlank" in tenant.pod(0).pod_health().message)
    await until(lambda: all(tenant.states(i) == ["blank", "blank", "blank", "ok"] * 2 for i in range(4)))
    await asyncio.sleep(1.5)
    assert tenant.states(0) == ["blank", "blank", "blank", "ok"] * 2
    assert not tenant.pod(0).cluster_health(False).healthy
    with pytest.raises(Unavailable):
        await get(tenant.pod(3), "precious")


async def put_an_older_drive_back(tenant: Tenant) -> None:
    """Pod 1 is not running; its first drive was replaced, and lies in its place again."""
    await tenant.start(0, 1, 2, 3)
    await tenant.all_ok(0, 1, 2, 3)
    await tenant.stop(1)
    place = tenant.root(1) / "data0"
    place.rename(tenant.root(1) / "old")
    place.mkdir()
    await tenant.start(1)
    await tenant.all_ok(0, 1, 2, 3)
    await tenant.stop(1)
    shutil.rmtree(place)
    (tenant.root(1) / "old").rename(place)


async def test_a_drive_that_was_replaced_and_comes_back_is_set_aside(tenant: Tenant) -> None:
    await put_an_older_drive_back(tenant)
    await tenant.start(1)
    await until(lambda: tenant.pod(1).local.status(0).state is DriveState.FAULTY)
    assert "was replaced here" in tenant.pod(1).local.status(0).message
    await until(lambda: tenant.states(0)[1] == "faulty")


async def test_nobody_who_remembers_its_replacement_uses_an_older_drive_though_its_pod_does_not_know(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It knows nothing of what was written since, and would deny it until its pod has heard what others remember."""
    await put_an_older_drive_back(tenant)
    monkeypatch.setattr(LocalDrives, "set_aside_outdated", lambda _: None)
    await tenant.start(1)
    for other in (0, 2, 3):
        peer = tenant.pod(other)._network.find("main", 1)
        assert peer is not None
        await until(lambda peer=peer: peer.online and peer.link.report.drives[1].state is DriveState.FULL)
        assert tenant.states(other)[1] == "faulty"
        (erasure_set,) = tenant.pod(other).store.all_sets()
        assert len(erasure_set.awake()) == 7
    assert tenant.pod(1).local.status(0).state is DriveState.FULL


async def test_a_peer_that_does_not_tell_what_it_remembers_keeps_no_older_drive_in_use(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put_an_older_drive_back(tenant)
    run, remembered_slots, silent = RemotePeer.run, RemotePeer.remembered_slots, asyncio.Event()
    dialled: list[RemotePeer] = []

    async def noted(peer: RemotePeer) -> None:
        dialled.append(peer)
        await run(peer)

    async def one_is_silent(peer: RemotePeer) -> list[SlotMemory]:
        serves = 1 in tenant.pods and tenant.pod(1).local.status(0).state is DriveState.FULL
        if not (serves and all(other.online and other.link.report for other in dialled)):
            # The silent one alone would be waited for, or while there is no drive yet to be set aside.
            raise PeerError("not before all can be asked about a drive that is open")
        if peer.ordinal == 0:
            await silent.wait()
        return await remembered_slots(peer)

    monkeypatch.setattr(RemotePeer, "run", noted)
    monkeypatch.setattr(RemotePeer, "remembered_slots", one_is_silent)
    # What its own other drive remembers would do, too.
    monkeypatch.setattr(LocalDrive, "remembered", nothing)
    await tenant.start(1)
    try:
        await until(lambda: tenant.pod(1).local.status(0).state is DriveState.FAULTY, 60)
    finally:
        silent.set()


async def test_an_older_drive_is_set_aside_though_another_keeps_all_settling_waiting(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that does not close, say, or is slow to open."""
    await tenant.start(0)
    local, waits = tenant.pod(0).local, asyncio.Event()
    await until(lambda: local.status(0).state is DriveState.BLANK)

    async def wait() -> None:
        waits.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(local, "settle_once", wait)
    await asyncio.wait_for(waits.wait(), 30)
    drive = tenant.pod(0)._drives[0]
    await drive.format(b"o" * 16, 10)
    assert drive.status().state is DriveState.FULL
    local.book.learn([SlotMemory("main", 0, 0, b"n" * 16, 20)])
    await until(lambda: drive.status().state is DriveState.FAULTY, 10)
    assert "was replaced here" in drive.status().message


async def test_a_drive_is_opened_anew_while_a_configuration_with_another_pool_is_taken_over(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    await tenant.start(0)
    pod = tenant.pod(0)
    taken_over = asyncio.Event()
    monkeypatch.setattr(pod, "_configure", lambda _: taken_over.wait())  # it has been read, and no more
    pod._inputs._config = tenant.add_pool().config  # type: ignore[attr-defined]
    before = pod._drives[0]
    assert await pod._reopen(0, False)
    assert pod._drives[0] is not before
    assert pod._drives[0] in pod.store.all_sets()[0].drives().values()


async def nothing(_: LocalDrive) -> list[SlotMemory]:
    return []


async def test_configuration_is_followed_and_a_pod_that_is_behind_coordinates_nothing(tenant: Tenant) -> None:
    await tenant.start(0, 1, 2, 3)
    await tenant.all_ok(0, 1, 2, 3)
    tenant.config["pools"][0]["erasure"]["parity"] = 3
    tenant.publish()
    await until(lambda: "parity changed from 4 to 3" in tenant.pod(0).pod_health().message)
    await until(lambda: tenant.pod(0).pod_health().ready)
    tenant.config["pools"][0]["erasure"]["parity"] = 4
    await tenant.stop(3)
    await tenant.reach_epoch(2, 0, 1, 2)
    tenant.publish(epoch=1)
    await tenant.start(3)
    await until(lambda: "others are at epoch 2, this pod is about to follow" in tenant.pod(3).pod_health().message)
    await until(lambda: "1 is older than 2, which is in force" in tenant.pod(0).pod_health().message)
    await tenant.all_ok(3)
    await put(tenant.pod(3), "key", b"one epoch behind is as good as none")
    await tenant.stop(3)
    await tenant.reach_epoch(3, 0, 1, 2)
    tenant.publish(epoch=1)
    await tenant.start(3)
    await until(lambda: "is of epoch 1, others are at 3" in tenant.pod(3).pod_health().message)
    with pytest.raises(Unavailable, match="epoch 1"):
        await get(tenant.pod(3), "key")
    await tenant.reach_epoch(3, 3)
    await tenant.all_ok(3)
    assert await get(tenant.pod(3), "key") == b"one epoch behind is as good as none"


async def test_a_pod_of_a_joining_pool_is_not_ready_before_every_other_pod_knows_it(tenant: Tenant) -> None:
    await tenant.start(0, 1, 2, 3)
    await tenant.all_ok(0, 1, 2, 3)
    async with tenant.joining_pod() as more:
        await until(lambda: [drive.state for drive in more.pod_health().drives] == ["ok", "ok"])
        await until(lambda: "main/0 at logs-0.pods.svc" in more.pod_health().message)
        assert "does not know this pod yet" in more.pod_health().message
        assert not more.pod_health().ready
        tenant.publish()
        await until(lambda: more.pod_health().ready)
        assert more.pod_health().message == ""
    await until(lambda: "offline" in [drive.state for drive in tenant.pod(0).cluster_health(False).drives])
    assert tenant.pod(0).cluster_health(False).healthy, "no request goes near the pool before the next epoch"
    await tenant.reach_epoch(2, 0)
    assert tenant.pod(0).cluster_health(False).message == "no write quorum: pool more set 0"


async def test_a_pool_that_was_joining_is_forgotten_once_it_is_taken_out(tenant: Tenant) -> None:
    await tenant.start(0, 1, 2, 3)
    await tenant.all_ok(0, 1, 2, 3)
    async with tenant.joining_pod() as more:
        tenant.publish()
        await until(lambda: more.pod_health().ready)
        await put(more, "key", b"written through a pod of it")
        del tenant.config["pools"][1]
        tenant.publish()
        await until(lambda: all(len(tenant.pod(i).cluster_health(False).drives) == 8 for i in range(4)))
        await until(lambda: not more.pod_health().ready)
        assert "does not know this pod yet" in more.pod_health().message
        assert all(tenant.pod(i).pod_health().message == "" for i in range(4))
        assert all(tenant.pod(i)._every_pod_knows(VERSIONS_FEATURE) for i in range(4))
    assert await get(tenant.pod(1), "key") == b"written through a pod of it"
    await put(tenant.pod(2), "key", b"and over it")
    assert await get(tenant.pod(3), "key") == b"and over it"
    await tenant.stop(0)
    await tenant.start(0)
    await tenant.all_ok(0)


async def test_what_clients_are_told_follows_the_configuration(tenant: Tenant) -> None:
    tenant.config["objectOwnership"] = "BucketOwnerPreferred"
    tenant.publish()
    await tenant.start(0)
    services = tenant.pod(0)._services
    assert services.told() == Told(object_ownership="BucketOwnerPreferred")
    del tenant.config["objectOwnership"]
    tenant.config.update(region="eu-central-1", domains=["s3.example.com"])
    tenant.publish()
    await until(lambda: services.told() == Told(region="eu-central-1", domains=("s3.example.com",)))


async def test_a_pod_knows_by_itself_that_its_configuration_is_older_than_it_was(tenant: Tenant) -> None:
    await tenant.start(0, 1, 2, 3)
    await tenant.all_ok(0, 1, 2, 3)
    await tenant.reach_epoch(2, 0, 1, 2, 3)
    await tenant.reach_epoch(3, 0, 1, 2, 3)
    await tenant.stop(0, 1, 2, 3)
    tenant.publish(epoch=2)
    await tenant.start(0)
    await until(lambda: "of epoch 2, and it has been at 3 before" in tenant.pod(0).pod_health().message)
    with pytest.raises(Unavailable, match="epoch 2"):
        await get(tenant.pod(0), "key")


@pytest.fixture
def drives(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"d{i}" for i in range(1, 5)]
    for path in paths:
        path.mkdir()
    return paths


def standalone(tmp_path: Path, new_tenant_id: str = "fresh") -> StandaloneInputs:
    return StandaloneInputs(
        [f"{tmp_path}/d{{1...4}}"], "admin", "password1", Listen(s3_port=0, console_port=0, peer_port=0), new_tenant_id
    )


SETTINGS = PodSettings(bind_address="127.0.0.1", version="test", adoption_delay_seconds=0.0)


async def test_a_pod_by_hand_keeps_its_tenant_and_heals_an_emptied_drive(tmp_path: Path, drives: list[Path]) -> None:
    async with StoragePod.running(standalone(tmp_path, "first"), SETTINGS) as pod:
        await until(lambda: pod.pod_health().ready)
        await put(pod, "key", b"value" * 100_000)
    shutil.rmtree(drives[1])
    drives[1].mkdir()
    inputs = standalone(tmp_path, "second")
    assert inputs.config.tenant.id == "first"
    async with StoragePod.running(inputs, SETTINGS) as pod:
        assert await get(pod, "key") == b"value" * 100_000
        await until(lambda: [drive.state for drive in pod.pod_health().drives] == ["ok"] * 4)
    assert any(drives[1].rglob("*"))


async def test_a_pod_by_hand_with_most_drives_emptied_does_not_start_over(tmp_path: Path, drives: list[Path]) -> None:
    async with StoragePod.running(standalone(tmp_path), SETTINGS) as pod:
        await put(pod, "key", b"value")
    for path in drives[:3]:
        shutil.rmtree(path)
        path.mkdir()
    async with StoragePod.running(standalone(tmp_path), SETTINGS) as pod:
        assert [drive.state for drive in pod.pod_health().drives] == ["blank"] * 3 + ["ok"]
        assert "DrivesBlank" in pod.pod_health().message


async def test_drives_of_two_tenants_are_refused(tmp_path: Path, drives: list[Path]) -> None:
    async with StoragePod.running(standalone(tmp_path, "first"), SETTINGS):
        pass
    kept = tmp_path / "kept"
    drives[0].rename(kept)
    for path in drives[1:]:
        shutil.rmtree(path)
    for path in drives:
        path.mkdir()
    async with StoragePod.running(standalone(tmp_path, "second"), SETTINGS):
        pass
    shutil.rmtree(drives[0])
    kept.rename(drives[0])
    with pytest.raises(ConfigError, match="different tenants"):
        standalone(tmp_path)


async def test_a_pod_that_was_told_to_end_serves_on_and_says_that_it_is_not_ready(tmp_path: Path) -> None:
    (tmp_path / "drive").mkdir()
    port, stop = free_port(), asyncio.Event()
    inputs = StandaloneInputs([str(tmp_path / "drive")], "root", "password1", Listen(s3_port=port), "a-tenant")
    settings = PodSettings(bind_address="127.0.0.1", version="test", drain_seconds=4.0)
    url = f"http://127.0.0.1:{port}"
    async with aiohttp.ClientSession() as session:

        async def ready() -> tuple[int, str]:
            try:
                async with session.get(f"{url}/health/ready") as answer:
                    return answer.status, await answer.text()
            except aiohttp.ClientError:
                return 0, ""

        async with asyncio.timeout(90), asyncio.TaskGroup() as group:
            serving = group.create_task(serve(inputs, settings, stop))
            while (await ready())[0] != 200:
                await asyncio.sleep(0.05)
            stop.set()
            while (told := await ready())[0] == 200:
                await asyncio.sleep(0.01)
            assert (told[0], "about to end" in told[1]) == (503, True)
            async with session.get(f"{url}/bucket") as answer:
                assert (answer.status, answer.headers.get("Connection")) == (404, "close")
            await serving
        assert await ready() == (0, "")


async def test_a_configuration_is_gone_by_though_the_look_that_brought_it_failed(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    await tenant.start(0)
    inputs = tenant.pod(0)._inputs
    refresh, failed = inputs.ring.refresh, []

    async def failing(config: object) -> None:
        if inputs.config.epoch == 2 and not failed:
            failed.append(config)
            raise RuntimeError("can't start new thread")
        await refresh(config)

    monkeypatch.setattr(inputs.ring, "refresh", failing)
    monkeypatch.setattr(kept_running, "RESTART_WORK_SECONDS", 0.1)
    await tenant.reach_epoch(2, 0)
    assert failed


async def test_of_a_configuration_that_is_refused_nothing_is_taken_over(tmp_path: Path) -> None:
    tenant = Tenant(tmp_path)
    inputs = TenantInputs(tmp_path / "config.yaml", "logs-0", tenant.root(0))
    before = inputs.keys
    where = tenant.config["keys"]["rootPasswordFile"]
    (tenant.root(0) / f"{where.lstrip('/')}-other").write_text("quite-another-password")
    tenant.config["keys"]["rootPasswordFile"] = f"{where}-other"
    tenant.config["pools"][0]["firstNode"] = 40
    tenant.publish(2)
    for _ in range(3):
        await inputs.refresh()
    assert inputs.faults
    assert inputs.config.epoch == 1
    assert inputs.keys == before
