"""A Loki tenant, and a cluster in memory that it lives in."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from holdfast_operator.credentials import KeyPair, PeerIdentity
from holdfast_operator.gather import KeyMint
from holdfast_operator.kube.port import SECRET, Manifest
from holdfast_operator.metrics import OperatorMetrics
from holdfast_operator.reconcile import Ports, Reconciler, TenantKey
from holdfast_operator.testing.memory_kube import MemoryKubeClient
from holdfast_operator.testing.memory_store import MemoryPods, MemoryStore

BodyMaker = Callable[..., Manifest]


def make_body(**changes: Any) -> Manifest:
    """A valid Tenant; keyword arguments replace fields of its spec (None drops one)."""
    spec: dict[str, Any] = {
        "pools": [
            {
                "name": "main",
                "servers": 4,
                "volumesPerServer": 2,
                "volumeClaimTemplate": {"spec": {"resources": {"requests": {"storage": "10Gi"}}}},
            }
        ],
        "buckets": [{"name": "loki-chunks"}, {"name": "loki-ruler"}],
        "users": [{"name": "loki", "buckets": [{"name": "loki-chunks"}, {"name": "loki-ruler"}]}],
    }
    spec.update(changes)
    return {
        "apiVersion": "holdfast.dev/v1",
        "kind": "Tenant",
        "metadata": {"name": "logs", "namespace": "loki", "uid": "tenant-1", "generation": 1},
        "spec": {key: value for key, value in spec.items() if value is not None},
    }


@pytest.fixture
def tenant_body() -> BodyMaker:
    return make_body


@dataclass
class World:
    """One cluster, one store, one operator; time passes one second per pass."""

    kube: MemoryKubeClient = field(default_factory=MemoryKubeClient)
    store: MemoryStore = field(default_factory=MemoryStore)
    seconds: int = 0

    def __post_init__(self) -> None:
        self.pods = MemoryPods(self.kube)
        self.restart_operator()

    def restart_operator(self) -> None:
        self.metrics = OperatorMetrics("test")
        counter = itertools.count(len(self.kube.calls))
        mint = KeyMint(
            key_pair=lambda: KeyPair(f"ACCESS{next(counter):04d}", f"secret-{next(counter):04d}"),
            peer_identity=lambda: PeerIdentity(f"tenant-id-{next(counter)}", f"peer-key-{next(counter):012d}"),
            encryption_key=lambda: f"{next(counter):064d}",
        )
        self.mint = mint
        self.reconciler = Reconciler(self.ports(self.kube), "holdfast:test", "cluster.local")

    def ports(self, kube: Any) -> Ports:
        """Of an operator that reaches the cluster through `kube`."""
        return Ports(
            kube=kube,
            health=self.pods,
            store=self.store.connect,
            mint=self.mint,
            now=lambda: datetime(2026, 11, 20, tzinfo=UTC) + timedelta(seconds=self.seconds),
            monotonic=lambda: float(self.seconds),
            metrics=self.metrics,
        )

    def body(self) -> Manifest:
        """A Tenant, not made yet."""
        return make_body()

    async def run_pass(self, name: str = "logs") -> float | None:
        self.seconds += 1
        delay = await self.reconciler.reconcile(TenantKey("loki", name))
        self.pods.settle()
        return delay

    async def run_passes(self, count: int = 4) -> None:
        for _ in range(count):
            await self.run_pass()

    async def start(self, **changes: Any) -> None:
        """A tenant that has come to rest."""
        self.kube.put(make_body(**changes))
        await self.run_passes()

    def condition(self, name: str, tenant: str = "logs") -> dict[str, Any]:
        conditions = self.kube.tenant_status(tenant)["conditions"]
        return next(condition for condition in conditions if condition["type"] == name)

    def secret_values(self, name: str) -> dict[str, str]:
        data = self.kube.object(SECRET, name)["data"]
        return {key: base64.b64decode(value).decode() for key, value in data.items()}

    def change_spec(self, **changes: Any) -> None:
        body = make_body(**changes)
        body["metadata"] = dict(self.kube.objects["Tenant", "loki", "logs"]["metadata"])
        self.kube.put(body)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def new_world() -> type[World]:
    """For tests that need many."""
    return World
