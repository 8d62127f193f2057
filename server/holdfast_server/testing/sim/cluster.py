"""The simulated tenant: one erasure set of memory drives, and coordinators with a real object store each.

A coordinator has one *life* after another; when it crashes nothing of its old life reaches a drive any more, and the
new one has forgotten everything but the greatest stamp (a pod's restart takes longer than its clock may lag, and it
asks its drives).  With `local_drives`, drives are dealt to the coordinators like volumes to pods and go down with them.

Not here: who does what to it (`workload`, `faults`).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, cast

from holdfast_server.clock.stamp import HybridClock
from holdfast_server.contract.config import ErasureConfig, KeyFiles, PoolConfig, ServerConfig, TenantConfig
from holdfast_server.contract.geometry import Quorums
from holdfast_server.drives.port import Drive
from holdfast_server.heal.own_drive import ORPHAN_FOLDERS
from holdfast_server.heal.service import HealService
from holdfast_server.heal.settings import HealSettings
from holdfast_server.objects.erasure_set import ErasureSet
from holdfast_server.objects.port import Body, Condition, Redundancy
from holdfast_server.objects.record import Record
from holdfast_server.objects.store import ObjectStore
from holdfast_server.placement.map import PoolMap, SetId
from holdfast_server.sealing.envelope import Seal, Sealing
from holdfast_server.testing.memory_drive import MemoryDrive
from holdfast_server.testing.sim.history import Operation
from holdfast_server.testing.sim.plan import Plan
from holdfast_server.testing.unreliable_network import CrashSwitch, Network, UnreliableDrive
from holdfast_server.testing.virtual_time import AtOnce, VirtualClock

SET = SetId("main", 0)

SETTINGS = HealSettings(scan_folders=ORPHAN_FOLDERS)

current_operation: ContextVar[Operation | None] = ContextVar("current_operation", default=None)
"""Whose work the running task does; tasks it starts inherit it."""


class OwnDrive(UnreliableDrive):
    """`heal.own_drive.OwnDrive`: a drive as the heal service of its own pod has it."""

    @property
    def repair_queue_length(self) -> int:
        return self._memory.repair_queue_length

    @property
    def _memory(self) -> MemoryDrive:
        return cast(MemoryDrive, self._drive)

    async def verify_shard(self, data_id: bytes) -> int:
        return await self._call("verify_shard", data_id)

    async def trash_orphans(self, folder: int, age_seconds: float) -> int:
        if not self._memory.has_shards_in(folder):
            return 0  # without a message: nearly all of the folders are empty, and asking each was half of a run's work
        return await self._call("trash_orphans", folder, age_seconds)

    async def keep(self, name: bytes, value: bytes) -> None:
        await self._call("keep", name, value)

    async def kept(self, name: bytes) -> bytes | None:
        return await self._call("kept", name)


class MixingStore(ObjectStore):
    """Of what clients write, some is of reduced redundancy, as the plan says; they need not know."""

    def __init__(self, next_redundancy: Callable[[], Redundancy], *arguments: Any) -> None:
        super().__init__(*arguments)
        self._next_redundancy = next_redundancy

    async def put_object(
        self,
        bucket_id: bytes,
        key: str,
        body: Body,
        condition: Condition | None = None,
        seal: Seal | None = None,
        redundancy: Redundancy = Redundancy.FULL,
    ) -> Record:
        return await super().put_object(bucket_id, key, body, condition, seal, self._next_redundancy())

    async def create_upload(
        self,
        bucket_id: bytes,
        key: str,
        headers: dict[str, str],
        body: bytes,
        sealing: Sealing | None = None,
        redundancy: Redundancy = Redundancy.FULL,
    ) -> bytes:
        return await super().create_upload(bucket_id, key, headers, body, sealing, self._next_redundancy())


class Coordinator:
    """One life of one pod."""

    def __init__(self, cluster: Cluster, node: int, greatest_stamp: int) -> None:
        self.node = node
        self.life = CrashSwitch(node)
        self.clock = VirtualClock(cluster.rng.randrange(1 << 32), cluster.plan.skews_ms[node])
        self.stamps = HybridClock(node, greatest_stamp)
        reached = [
            OwnDrive(drive, cluster.network, self.life, cluster.owner(drive) == node, current_operation.get)
            for drive in cluster.drives
        ]
        self.drives = cast(list[Drive], reached)
        self.store: ObjectStore = MixingStore(
            cluster.next_redundancy,
            *(cluster.pools, lambda _pool, _index: self.drives, self.clock, self.stamps, AtOnce()),
        )
        own: list[OwnDrive] = [drive for drive in reached if drive.position % cluster.plan.coordinators == node]
        self.heal_service = HealService(self.store, lambda: own, self.clock, SETTINGS)

    @property
    def erasure_set(self) -> ErasureSet:
        return self.store.erasure_set(SET)


class Cluster:
    def __init__(self, plan: Plan, rng: random.Random) -> None:
        self.plan = plan
        self.rng = rng
        self.pools = _pools(plan.size, plan.parity, plan.reduced_parity)
        self.network = Network(rng.randrange(1 << 32), plan.weather)
        self.clock = VirtualClock()
        self.drives = [MemoryDrive(self.clock, position=p, drive_id=bytes([p]) * 16) for p in range(plan.size)]
        self._writes = 0
        self.lives: list[Coordinator] = []
        self.coordinators: list[Coordinator] = []
        for node in range(plan.coordinators):
            self.coordinators.append(self._born(node, 0))

    @property
    def quorums(self) -> Quorums:
        return self.pools.quorums(SET)

    @property
    def reduced(self) -> Quorums:
        """Of versions of reduced redundancy."""
        return self.pools.reduced_quorums(SET)

    def next_redundancy(self) -> Redundancy:
        """Of the write that begins now."""
        self._writes += 1
        return self.plan.redundancy(self._writes)

    def owner(self, drive: Drive) -> int | None:
        return drive.position % self.plan.coordinators if self.plan.local_drives else None

    def crash(self, node: int) -> None:
        """The coordinator dies and is at once another; its own drives have forgotten what is not on disk."""
        dead = self.coordinators[node]
        dead.life.crashed = True
        for drive in self.drives:
            if self.owner(cast(Drive, drive)) == node:
                drive.restart()
        self.coordinators[node] = self._born(node, dead.stamps.greatest)

    def _born(self, node: int, greatest_stamp: int) -> Coordinator:
        coordinator = Coordinator(self, node, greatest_stamp)
        self.lives.append(coordinator)
        return coordinator

    async def background_ended(self) -> None:
        for life in self.lives:
            await life.store.background.drained()

    async def close(self) -> None:
        await self.network.drained()
        for life in self.lives:
            await life.store.close()


def _pools(size: int, parity: int, reduced_parity: int | None) -> PoolMap:
    pool = PoolConfig(
        name=SET.pool,
        servers=size,
        volumes_per_server=1,
        erasure=ErasureConfig(set_size=size, parity=parity, reduced_redundancy_parity=reduced_parity),
        pod_name_prefix="pod-",
        drive_path="/data",
    )
    keys = KeyFiles(root_user_file="", root_password_file="", peer_key_file="")
    return PoolMap(ServerConfig(tenant=TenantConfig(id="tenant", name="tenant"), pools=[pool], keys=keys))
