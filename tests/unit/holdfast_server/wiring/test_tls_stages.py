"""Four whole pods in one process that begin to use TLS, stage by stage, and cease to, while requests go on."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from holdfast_operator.tls.minting import mint_authority, mint_leaf
from holdfast_operator.tls.values import KeyCertificate, SubjectNames
from holdfast_server.testing.whole_pods import PODS, FourPods, get, put, until
from holdfast_server.wiring import storage_pod

NOW = datetime.now(UTC)
DAY = timedelta(days=1)
AUTHORITY = mint_authority("logs", NOW, 10 * DAY)
TLS = {
    "certificateFile": "/tls/tls.crt", "keyFile": "/tls/tls.key",
    "peers": {"certificateFile": "/tls/peer.crt", "keyFile": "/tls/peer.key", "caFile": "/tls/peer-ca.crt"},
}  # fmt: skip


class Tenant(FourPods):
    """Four pods with a drive each, 2 + 2; each may be at another stage."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "127.0.21.")
        for i in range(PODS):
            self.write_config(i, None)

    def config_file(self, pod: int) -> Path:
        return self.root(pod) / "config.yaml"

    def write_config(self, i: int, stage: str | None, plaintext: str = "Refused") -> None:
        tls = None if stage is None else {**TLS, "stage": stage, "plaintext": plaintext}
        path = self.config_file(i)
        path.with_suffix(".new").write_text(yaml.safe_dump({**self.config, "tls": tls}))
        path.with_suffix(".new").rename(path)

    def write_certificates(self, i: int, authority: KeyCertificate = AUTHORITY, *, peers: bool = True) -> str:
        """Returns the certificate that clients see."""
        folder = self.root(i) / "tls"
        folder.mkdir(exist_ok=True)
        leaf = mint_leaf(authority, SubjectNames(("logs.loki.svc", "*.pods.svc")), NOW, 5 * DAY)
        files = {"tls.crt": leaf.certificate, "tls.key": leaf.key}
        if peers:
            peer = mint_leaf(authority, SubjectNames(("*.pods.svc",)), NOW, 5 * DAY)
            files |= {"peer.crt": peer.certificate, "peer.key": peer.key, "peer-ca.crt": authority.certificate}
        for name, text in files.items():
            (folder / name).write_text(text)
        return leaf.certificate

    def stages(self) -> list[str]:
        return [pod.cluster_health(False).tls.stage for pod in self.pods.values()]

    def whole(self) -> bool:
        healths = [pod.cluster_health(False) for pod in self.pods.values()]
        return all([drive.state for drive in health.drives] == ["ok"] * 4 for health in healths)

    def dialled_with_tls(self) -> set[bool]:
        return {secure for pod in self.pods.values() for secure in pod._dialled()}


@pytest.fixture
async def tenant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Tenant]:
    monkeypatch.setattr(storage_pod, "CONFIG_POLL_SECONDS", 0.1)
    tenant = Tenant(tmp_path)
    try:
        await tenant.start()
        await until(tenant.whole)
        yield tenant
    finally:
        await tenant.stop()


async def keep_writing(tenant: Tenant, stop: asyncio.Event, written: list[str]) -> None:
    """Through every pod in turn, each object read back through the next; any failure fails the test."""
    data = bytes(range(256)) * 800
    while not stop.is_set():
        pod, other = (tenant.pods[(len(written) + step) % 4] for step in (0, 1))
        key = f"key{len(written)}"
        await put(pod, key, data)
        assert await get(other, key) == data
        written.append(key)
        await asyncio.sleep(0.01)


async def test_pods_begin_to_use_tls_and_cease_to_with_no_request_failing(tenant: Tenant) -> None:
    for i in range(4):
        tenant.write_certificates(i)
    stop, written = asyncio.Event(), list[str]()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(keep_writing(tenant, stop, written))
        for stage, reached in [
            ("Offered", "Offered"), ("Used", "Used"), ("Required", "Required"),
            ("Used", "Used"), ("Offered", "Offered"), (None, "Off"),
        ]:  # fmt: skip
            for i in range(4):
                # As ConfigMaps do: one pod after the other, so that neighbours are a stage apart for a while.
                tenant.write_config(i, stage)
                await until(lambda i=i, reached=reached: tenant.stages()[i] == reached)  # type: ignore[misc]
                assert tenant.whole(), stage
            assert tenant.dialled_with_tls() == {stage in ("Used", "Required")}, stage
            before = len(written)
            await until(lambda before=before: len(written) > before + 1)  # type: ignore[misc]
        stop.set()


async def status(url: str, trust: ssl.SSLContext | None = None, session: aiohttp.ClientSession | None = None) -> int:
    async with aiohttp.ClientSession() as own:
        kind: Any = {"ssl": trust, "server_hostname": "logs.loki.svc"} if trust is not None else {}
        async with (session or own).get(url, **kind) as answer:
            await answer.read()
            return answer.status


def shown_certificate(address: str, port: int, trust: ssl.SSLContext) -> str:
    with (
        socket.create_connection((address, port), 60) as plain,
        trust.wrap_socket(plain, server_hostname="logs.loki.svc") as secure,
    ):
        assert secure.version() == "TLSv1.3"
        return ssl.DER_cert_to_PEM_cert(secure.getpeercert(binary_form=True) or b"")


async def said(url: str, trust: ssl.SSLContext | None = None) -> str:
    async with aiohttp.ClientSession() as session:
        kind: Any = {"ssl": trust, "server_hostname": "logs.loki.svc"} if trust is not None else {}
        async with session.get(url, **kind) as answer:
            assert 400 <= answer.status < 500  # without a signature, whatever else
            return await answer.text()


async def test_clients_without_tls_are_turned_away_only_where_it_is_required_and_probes_never(tenant: Tenant) -> None:
    plain, secure = (f"{scheme}://{tenant.address(0)}:{tenant.s3_port}" for scheme in ("http", "https"))
    trust = ssl.create_default_context(cadata=AUTHORITY.certificate)
    refusal = "over https only"
    tenant.write_certificates(0)
    tenant.write_config(0, "Offered")
    await until(lambda: tenant.stages()[0] == "Offered")
    assert refusal not in await said(f"{plain}/bucket") + await said(f"{secure}/bucket", trust)
    tenant.write_config(0, "Required", "Accepted")
    await until(lambda: not tenant.pods[0]._inputs.tls.for_peers().plain())
    assert refusal not in await said(f"{plain}/bucket")
    tenant.write_config(0, "Required")
    await until(tenant.pods[0]._inputs.tls.refuses_plaintext)
    assert refusal in await said(f"{plain}/bucket")
    assert refusal not in await said(f"{secure}/bucket", trust)
    await until(lambda: tenant.pods[0].pod_health().ready)
    for path in ("/health/ready", "/metrics"):
        assert (await status(plain + path), await status(secure + path, trust)) == (200, 200)


async def test_a_renewed_certificate_serves_the_next_connection_and_a_broken_one_is_left_aside(tenant: Tenant) -> None:
    trust = ssl.create_default_context(cadata=AUTHORITY.certificate)
    first = tenant.write_certificates(0)
    tenant.write_config(0, "Offered")
    await until(lambda: tenant.stages()[0] == "Offered")
    pod, store = tenant.pods[0], tenant.pods[0]._inputs.tls
    assert await asyncio.to_thread(shown_certificate, tenant.address(0), tenant.s3_port, trust) == first
    url = f"https://{tenant.address(0)}:{tenant.s3_port}/metrics"
    async with aiohttp.ClientSession() as session:
        assert await status(url, trust, session) == 200
        second = tenant.write_certificates(0)
        await until(lambda: store._contents[0].decode() == second)
        assert await asyncio.to_thread(shown_certificate, tenant.address(0), tenant.s3_port, trust) == second
        assert await status(url, trust, session) == 200  # on the connection it had
    stranger = mint_leaf(AUTHORITY, SubjectNames(("logs.loki.svc",)), NOW, DAY)
    (tenant.root(0) / "tls" / "tls.key").write_text(stranger.key)
    await until(lambda: "tls.certificateFile: /tls/tls.crt: the key is not of" in pod.pod_health().message)
    await until(lambda: pod.pod_health().ready)
    assert "the key is not of" in pod.cluster_health(False).tls.message
    assert await asyncio.to_thread(shown_certificate, tenant.address(0), tenant.s3_port, trust) == second
    shutil.rmtree(tenant.root(0) / "tls")
    await until(lambda: "No such file" in pod.pod_health().message)
    assert await asyncio.to_thread(shown_certificate, tenant.address(0), tenant.s3_port, trust) == second
    third = tenant.write_certificates(0)
    await until(lambda: pod.pod_health().message == "")
    assert await asyncio.to_thread(shown_certificate, tenant.address(0), tenant.s3_port, trust) == third


async def test_a_pod_with_certificates_of_another_authority_is_no_peer(tenant: Tenant) -> None:
    for i in range(4):
        tenant.write_certificates(i)
        tenant.write_config(i, "Required")
    await until(lambda: tenant.stages() == ["Required"] * 4)
    await until(tenant.whole)
    tenant.write_certificates(3, mint_authority("another", NOW, 10 * DAY))
    pod = tenant.pods[3]
    await until(lambda: pod._inputs.tls._contents[4] != AUTHORITY.certificate.encode())
    for peer in pod._network.peers:
        for dialled in peer.link.channels.values():
            dialled.abort("for the test")
    await until(lambda: not any(peer.online for peer in pod._network.peers))
    await until(
        lambda: any(
            "CERTIFICATE" in dialled.last_failure or "UNKNOWN_CA" in dialled.last_failure
            for peer in pod._network.peers
            for dialled in peer.link.channels.values()
        )
    )
    assert not any(peer.online for peer in pod._network.peers)


async def test_a_pod_that_requires_tls_and_has_no_certificate_serves_probes_alone(tenant: Tenant) -> None:
    tenant.write_config(0, "Required")
    pod = tenant.pods[0]
    await until(lambda: "tls.certificateFile" in pod.pod_health().message)
    assert not pod.pod_health().ready
    plain = tenant.endpoint(0)
    assert await status(f"{plain}/health/ready") == 503
    assert await status(f"{plain}/health/live") == 200
    assert "over https only" in await said(f"{plain}/bucket")
    tenant.write_certificates(0)
    await until(lambda: pod.pod_health().ready)
