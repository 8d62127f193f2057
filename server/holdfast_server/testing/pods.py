"""A tenant of real `holdfast server` processes on loopback, without any cluster: for tests and benchmarks.

Every pod has its own loopback address and its own folders below one directory; names are resolved through a
hosts table.  Pods can be killed, restarted and emptied; what they print is kept in `<pod>.log`.  Everything that
was started is ended by `stop`, and by the kernel if this process dies.  With `tls` they require TLS of clients and
of each other; probes are asked without, as kubelets do.

Not here: restarting by itself (a kubelet does that), Services, making certificates.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from holdfast_server.contract import geometry, names
from holdfast_server.contract.config import (
    DEFAULT_OBJECT_OWNERSHIP,
    AuditConfig,
    CertificateFiles,
    DebugConfig,
    EncryptionConfig,
    ErasureConfig,
    KeyFiles,
    ObjectOwnership,
    PoolConfig,
    ServerConfig,
    TenantConfig,
    TlsConfig,
    to_builtins,
)
from holdfast_server.drives.shard_files import staged_names
from holdfast_server.testing import preloaded
from holdfast_server.testing.preloaded import Process, Stem, die_with_parent

START_TIMEOUT_SECONDS = 300.0
"""Of all pods at once, on a machine that has more to do than time for it; they take seconds on one that is idle."""
STOP_TIMEOUT_SECONDS = 60.0
PLACED_SECONDS = 180.0
CERTIFICATE, KEY, PEERS_CERTIFICATE, PEERS_KEY, PEERS_AUTHORITY = (
    "tls.crt", "tls.key", "peer.crt", "peer.key", "peer-ca.crt",
)  # fmt: skip
"""The files of `PodProcesses.tls`, all in PEM."""


def free_network() -> str:
    """A loopback network that nobody listens on; one of so many that two who look at the same time do not meet."""
    for _ in range(200):
        prefix = f"127.{80 + secrets.randbelow(20)}.{secrets.randbelow(254) + 1}."
        with socket.socket() as probe:
            try:
                probe.bind((prefix + "1", names.PEER_PORT))
            except OSError:
                continue
            return prefix
    raise OSError("no free loopback network")


@dataclass(slots=True)
class PodProcesses:
    """`servers` pods with `volumes` drives each."""

    directory: Path
    servers: int = 4
    volumes: int = 1
    set_size: int | None = None
    parity: int | None = None
    network: str = field(default_factory=free_network)
    access_key: str = "testroot"
    secret_key: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)
    environment: dict[str, str] = field(default_factory=dict)
    """For every pod, on top of this process's."""
    pod_environment: Callable[[int], dict[str, str]] | None = None
    """For one pod, on top of that: a shim with a journal of its own."""
    entry: tuple[str, ...] = ("-m", "holdfast_server.main")
    """What Python runs; `altered_server` stands in where a test alters the server."""
    tls: Mapping[str, str] | None = None
    """Texts of the files named above, the same for every pod; None for pods without TLS."""
    object_ownership: ObjectOwnership = DEFAULT_OBJECT_OWNERSHIP
    debug: DebugConfig | None = None
    audit: AuditConfig | None = None
    encryption_keys: Mapping[str, str] | None = None
    """Files of the key ring, by name; None for pods without one.  Keys of SSE-C are taken without TLS with one."""
    first_group: int | None = None
    """Pod n runs in the group of this number plus n (needs root): a firewall can tell by it whose a connection is."""
    stem: Stem | None = field(default_factory=preloaded.in_force, repr=False)
    """What pods come from, where it fits them."""
    processes: dict[int, Process] = field(default_factory=dict)

    @property
    def prefix(self) -> str:
        return "test-pool-main-"

    def address(self, pod: int) -> str:
        return f"{self.network}{pod + 1}"

    def endpoint(self, pod: int = 0) -> str:
        """For clients."""
        return f"{'http' if self.tls is None else 'https'}://{self.address(pod)}:{names.S3_PORT}"

    def probe_endpoint(self, pod: int = 0) -> str:
        """For health and metrics, which are answered without TLS always."""
        return f"http://{self.address(pod)}:{names.S3_PORT}"

    def group(self, pod: int) -> int | None:
        return None if self.first_group is None else self.first_group + pod

    def drive_path(self, pod: int, volume: int = 0) -> Path:
        return self.directory / f"{self.prefix}{pod}" / f"data{volume}"

    def wait_placed(self) -> None:
        """Blocks until shards are where they belong: those that were just committed are moved there soon.  Of pods that
        run, while nobody uploads.  Raises TimeoutError."""
        drives = [self.drive_path(pod, volume) for pod in self.processes for volume in range(self.volumes)]
        end = time.monotonic() + PLACED_SECONDS
        while any(map(staged_names, drives)):
            if time.monotonic() > end:
                raise TimeoutError("shards stay staged")
            time.sleep(0.05)

    def write_config(self, formatting: bool = True) -> None:
        """The files every pod reads; again with `formatting` False once all drives have an identity."""
        self.directory.mkdir(parents=True, exist_ok=True)
        quorums = geometry.resolve(self.servers, self.volumes, self.set_size, self.parity)
        keys = self._write_keys()
        config = ServerConfig(
            tenant=TenantConfig(id="test-tenant", name="test"),
            pools=[
                PoolConfig(
                    name="main",
                    servers=self.servers,
                    volumes_per_server=self.volumes,
                    erasure=ErasureConfig(set_size=quorums.set_size, parity=quorums.parity_shards),
                    pod_name_prefix=self.prefix,
                    drive_path="/data{volume}",
                    formatting=formatting,
                )
            ],
            keys=keys,
            tls=self._write_certificates(),
            object_ownership=self.object_ownership,
            debug=self.debug,
            audit=self.audit,
            encryption=self._encryption(),
        )
        for pod in range(self.servers):
            path = self.directory / f"{self.prefix}{pod}" / "config.yaml"
            path.with_suffix(".new").write_text(yaml.safe_dump(to_builtins(config)))
            path.with_suffix(".new").rename(path)
        hosts = "".join(f"{self.address(pod)} {self.prefix}{pod}\n" for pod in range(self.servers))
        (self.directory / "hosts").write_text(hosts)

    def _encryption(self) -> EncryptionConfig | None:
        if self.encryption_keys is None:
            return None
        for pod in range(self.servers):
            self.write_encryption_keys(pod, self.encryption_keys)
        return EncryptionConfig(keys_folder="/encryption", customer_keys_over_plaintext="Accepted")

    def write_encryption_keys(self, pod: int, keys: Mapping[str, str]) -> None:
        """What one pod finds the next time it looks; the others keep theirs."""
        folder = self.directory / f"{self.prefix}{pod}" / "encryption"
        folder.mkdir(exist_ok=True)
        for name, text in keys.items():
            (folder / f".{name}").write_text(text)
            (folder / f".{name}").rename(folder / name)
        for path in folder.iterdir():
            if path.name not in keys:
                path.unlink()

    def _write_keys(self) -> KeyFiles:
        for pod in range(self.servers):
            folder = self.directory / f"{self.prefix}{pod}" / "keys"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "user").write_text(self.access_key)
            (folder / "password").write_text(self.secret_key)
            (folder / "peer").write_text(self.secret_key * 2)
            for volume in range(self.volumes):
                self.drive_path(pod, volume).mkdir(parents=True, exist_ok=True)
        return KeyFiles(root_user_file="/keys/user", root_password_file="/keys/password", peer_key_file="/keys/peer")

    def _write_certificates(self) -> TlsConfig | None:
        if self.tls is None:
            return None
        for pod in range(self.servers):
            folder = self.directory / f"{self.prefix}{pod}" / "tls"
            folder.mkdir(exist_ok=True)
            for name, text in self.tls.items():
                (folder / name).write_text(text)
        peers = CertificateFiles(
            certificate_file=f"/tls/{PEERS_CERTIFICATE}",
            key_file=f"/tls/{PEERS_KEY}",
            ca_file=f"/tls/{PEERS_AUTHORITY}",
        )
        return TlsConfig(certificate_file=f"/tls/{CERTIFICATE}", key_file=f"/tls/{KEY}", peers=peers, stage="Required")

    def start(self, pod: int) -> None:
        name = f"{self.prefix}{pod}"
        arguments = ["server", "--config", "/config.yaml", "--pod", name]
        environment = {
            **os.environ,
            "HOLDFAST_BIND_ADDRESS": self.address(pod),
            "HOLDFAST_ROOT_PREFIX": str(self.directory / name),
            "HOLDFAST_HOSTS_FILE": str(self.directory / "hosts"),
            **self.environment,
            **(self.pod_environment(pod) if self.pod_environment is not None else {}),
        }
        group = self.group(pod)
        with (self.directory / f"{name}.log").open("ab") as log:
            if self.stem is not None and self.stem.fits(environment):
                _, module, *first = self.entry
                self.processes[pod] = self.stem.start(module, [*first, *arguments], environment, log, group)
                return
            self.processes[pod] = subprocess.Popen(
                [sys.executable, *self.entry, *arguments],
                stdout=log, stderr=log, env=environment, preexec_fn=die_with_parent, group=group,
            )  # fmt: skip

    def kill(self, pod: int) -> None:
        """SIGKILL, and wait until it is gone."""
        self.kill_together((pod,))

    def kill_together(self, pods: Iterable[int]) -> None:
        """SIGKILL to all of them before waiting for any: as near to the same moment as it gets."""
        dying = [self.processes.pop(pod) for pod in pods]
        for process in dying:
            process.kill()
        for process in dying:
            process.wait()

    def stop_one(self, pod: int) -> None:
        """SIGTERM, as a roll does it; SIGKILL if that does not end it."""
        process = self.processes.pop(pod)
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def suspend(self, pod: int) -> None:
        """SIGSTOP: alive, its connections open, and silent."""
        self.processes[pod].send_signal(signal.SIGSTOP)

    def resume(self, pod: int) -> None:
        self.processes[pod].send_signal(signal.SIGCONT)

    def empty(self, pod: int, volume: int = 0) -> None:
        """Take everything off a drive, as if it had been replaced; the pod must not run."""
        path = self.drive_path(pod, volume)
        shutil.rmtree(path)
        path.mkdir()

    async def start_all(self) -> None:
        """From nothing or from what is there, until every set has its write quorum."""
        self.write_config()
        for pod in range(self.servers):
            if pod not in self.processes:
                self.start(pod)
        await self.wait_healthy()
        self.write_config(formatting=False)

    async def wait_ready(self, pod: int) -> None:
        await self._wait(f"{self.probe_endpoint(pod)}{names.HEALTH_READY_PATH}")

    async def wait_healthy(self) -> None:
        """Every running pod sees all running drives serve."""
        for pod in self.processes:
            await self._wait(f"{self.probe_endpoint(pod)}{names.HEALTH_CLUSTER_PATH}")

    async def wait_whole(self, timeout_seconds: float = START_TIMEOUT_SECONDS) -> None:
        """All drives are full and the repair queues are empty, as every pod sees it."""
        async with asyncio.timeout(timeout_seconds):
            for pod in self.processes:
                while not _whole(await asyncio.to_thread(self.health, pod)):
                    await asyncio.sleep(0.1)

    def health(self, pod: int) -> dict[str, object]:
        """`/health/cluster` of a pod, whatever its status; empty if it does not answer."""
        return _get(f"{self.probe_endpoint(pod)}{names.HEALTH_CLUSTER_PATH}")[1]

    async def _wait(self, url: str) -> None:
        async with asyncio.timeout(START_TIMEOUT_SECONDS):
            while (await asyncio.to_thread(_get, url))[0] != 200:
                self._require_running()
                await asyncio.sleep(0.05)

    def _require_running(self) -> None:
        for pod, process in self.processes.items():
            if process.poll() is not None:
                raise RuntimeError(f"pod {pod} ended with {process.returncode}:\n{self.log_tail(pod)}")

    def log_tail(self, pod: int) -> str:
        return (self.directory / f"{self.prefix}{pod}.log").read_text(errors="replace")[-4000:]

    def stop(self) -> None:
        """SIGTERM to all, SIGKILL to those that do not end."""
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(STOP_TIMEOUT_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes.clear()


def _get(url: str) -> tuple[int, dict[str, object]]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            try:
                return error.code, json.load(error)
            except ValueError:
                return error.code, {}
    except (OSError, ValueError):
        return 0, {}


def _whole(health: dict[str, object]) -> bool:
    drives = health.get("drives")
    if not isinstance(drives, list) or not drives:
        return False
    return all(drive["state"] == "ok" for drive in drives) and health.get("repairQueueLength", 1) == 0
