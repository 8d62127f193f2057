"""Simulation of a pool that joins: two pools of one erasure set each, and coordinators that change epochs one by one.

The same clients, faults, network and checkers as in `simulation`; the keys are written in the first pool, later in
the second.  An operator publishes the epoch in which the second pool is readable, then the one in which it is
writable, each when every coordinator reports the one before (`ObjectStore.epochs.settled`, as pods do); each
coordinator takes a map up some time after it was published, in the midst of whatever it does.  A coordinator that
crashes comes back with a map no older than what it had reported, and with messages of its former life under way.

At the end everybody is at the last epoch, and what has been superseded must be gone from the other pool.

Not here: drives that are lost or rot (`simulation` has them; sets are repaired each for itself).
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from holdfast_server.clock.stamp import HybridClock
from holdfast_server.contract.config import ErasureConfig, KeyFiles, PoolConfig, ServerConfig, TenantConfig
from holdfast_server.drives import keys
from holdfast_server.drives.port import Drive, Register, ScanEntry
from holdfast_server.heal.pacing import Pacer
from holdfast_server.heal.registers import RegisterHealing
from holdfast_server.heal.settings import HealSettings
from holdfast_server.objects.erasure_set import ErasureSet
from holdfast_server.objects.healing import OPERATION_DEADLINE_SECONDS
from holdfast_server.objects.store import ObjectStore
from holdfast_server.placement.map import PoolMap, SetId
from holdfast_server.testing import virtual_time
from holdfast_server.testing.memory_drive import MemoryDrive
from holdfast_server.testing.sim import checkers, simulation
from holdfast_server.testing.sim.cluster import Cluster, Coordinator, current_operation
from holdfast_server.testing.sim.faults import Faults
from holdfast_server.testing.sim.history import History, Violation
from holdfast_server.testing.sim.plan import Plan, draw
from holdfast_server.testing.sim.simulation import Outcome
from holdfast_server.testing.sim.workload import BUCKET, Workload
from holdfast_server.testing.unreliable_network import MAX_DELAY_SECONDS, CrashSwitch, Network, UnreliableDrive
from holdfast_server.testing.virtual_time import AtOnce, VirtualClock

OLD, NEW = SetId("main", 0), SetId("more", 0)
FIRST_EPOCH, LAST_EPOCH = 1, 3
WEIGHT_OF_NEW_POOL = 1e6
"""So that every key of a run moves."""
LOST_OR_ROTTEN = ("replace", "rot")
SETTLING_PASSES = 4


def pool_maps(size: int, parity: int) -> dict[int, PoolMap]:
    """By epoch: the old pool alone, both readable, both writable."""

    def pool(name: str, readable: int, writable: int, first_node: int, weight: float) -> PoolConfig:
        return PoolConfig(
            name=name,
            servers=size,
            volumes_per_server=1,
            erasure=ErasureConfig(set_size=size, parity=parity),
            pod_name_prefix=f"{name}-",
            drive_path="/data",
            first_node=first_node,
            readable_from_epoch=readable,
            writable_from_epoch=writable,
            weight=weight,
        )

    pools = [pool(OLD.pool, 1, 1, 0, 1.0), pool(NEW.pool, 2, 3, size, WEIGHT_OF_NEW_POOL)]
    files = KeyFiles(root_user_file="", root_password_file="", peer_key_file="")
    tenant = TenantConfig(id="tenant", name="tenant")
    epochs = range(FIRST_EPOCH, LAST_EPOCH + 1)
    return {e: PoolMap(ServerConfig(tenant=tenant, pools=pools, keys=files, epoch=e)) for e in epochs}


class JoiningCoordinator(Coordinator):
    """One life of one pod of a tenant of two pools."""

    def __init__(self, cluster: JoiningCluster, node: int, greatest_stamp: int, epoch: int, reported: int) -> None:
        self.node = node
        self.life = CrashSwitch(node)
        self.clock = VirtualClock(cluster.rng.randrange(1 << 32), cluster.plan.skews_ms[node])
        self.stamps = HybridClock(node, greatest_stamp)
        self._rng = cluster.rng
        by_set: dict[str, list[Drive]] = {
            set_id.pool: [
                UnreliableDrive(
                    drive, cluster.network, self.life, watcher=current_operation.get, link_number=first + drive.position
                )
                for drive in cluster.by_set[set_id]
            ]
            for set_id, first in ((OLD, 0), (NEW, cluster.plan.size))
        }
        self.drives = [*by_set[OLD.pool], *by_set[NEW.pool]]
        self.store = ObjectStore(cluster.maps[epoch], lambda pool, _: by_set[pool], self.clock, self.stamps, AtOnce())
        if reported < epoch:
            self.store.epochs.had_former_life(reported)
        self.reported = reported
        """Remembered durably before anybody is told."""

    def report(self) -> int:
        self.reported = max(self.reported, self.store.epochs.settled)
        return self.reported

    @property
    def erasure_set(self) -> ErasureSet:
        """The one that a client has repaired."""
        readable = self.store.pools.all_sets()
        return self.store.erasure_set(self._rng.choice(readable))


class JoiningCluster(Cluster):
    def __init__(self, plan: Plan, rng: random.Random, history: History) -> None:
        self.plan, self.rng, self._history = plan, rng, history
        self.maps = pool_maps(plan.size, plan.parity)
        self.pools = self.maps[FIRST_EPOCH]
        self.published = FIRST_EPOCH
        self.network = Network(rng.randrange(1 << 32), plan.weather)
        self.clock = VirtualClock()
        self.by_set = {
            set_id: [
                MemoryDrive(self.clock, pool=set_id.pool, position=p, drive_id=bytes((number, p)) * 8)
                for p in range(plan.size)
            ]
            for number, set_id in enumerate((OLD, NEW))
        }
        self.drives = [*self.by_set[OLD], *self.by_set[NEW]]
        self._behind = [asyncio.Event() for _ in range(plan.coordinators)]
        """Pods whose map is not the last that was published."""
        self.lives: list[Coordinator] = []
        self.coordinators: list[Coordinator] = []
        for node in range(plan.coordinators):
            self.coordinators.append(self._begin(node, 0, FIRST_EPOCH, FIRST_EPOCH))

    def crash(self, node: int) -> None:
        dead = self._joining(node)
        dead.life.crashed = True
        reported = dead.reported
        epoch = self.rng.randint(max(reported, self.published - 1), self.published)
        self.coordinators[node] = self._begin(node, dead.stamps.greatest, epoch, reported)

    def _begin(self, node: int, greatest_stamp: int, epoch: int, reported: int) -> JoiningCoordinator:
        coordinator = JoiningCoordinator(self, node, greatest_stamp, epoch, reported)
        if epoch < self.published:
            self._behind[node].set()
        self.lives.append(coordinator)
        return coordinator

    def _joining(self, node: int) -> JoiningCoordinator:
        coordinator = self.coordinators[node]
        assert isinstance(coordinator, JoiningCoordinator)
        return coordinator

    # ---------------------------------------------------------------- epochs

    async def publish(self) -> None:
        """The operator: the next epoch once everybody reports the last one.  Ends with the last."""
        every_seconds = self.rng.choice((0.01, 0.1, 0.5))
        while self.published < LAST_EPOCH:
            await asyncio.sleep(every_seconds)
            if self.rng.random() < 0.5 and self.everybody_reports(self.published):
                self.published += 1
                self._history.event(f"epoch {self.published} is published")
                for pod in self._behind:
                    pod.set()

    def everybody_reports(self, epoch: int) -> bool:
        return all(self._joining(node).report() >= epoch for node in range(self.plan.coordinators))

    async def follow(self, node: int) -> None:
        """A pod finds a new configuration, some time after it was published: as long as if it looked at random moments,
        of which only the first one after that counts."""
        mean_seconds = self.rng.choice((0.01, 0.3, 3.0))
        while True:
            await self._behind[node].wait()
            await asyncio.sleep(self.rng.expovariate(1 / mean_seconds))
            self._behind[node].clear()
            coordinator = self._joining(node)
            if coordinator.store.pools.epoch < self.published:
                coordinator.store.epochs.pools = self.maps[self.published]
                self._history.event(f"node {node} is at epoch {self.published}")


def replay(seed: int, profile: str = "any") -> Outcome:
    """Run one seed.  Raises Failed."""
    rng = random.Random(f"joining {profile} {seed}")
    plan = joining_plan(rng, profile)
    history = History()

    def play() -> bool:
        virtual_time.run(run(plan, history, rng))
        return simulation.judge(history, calm=False)  # writes of two epochs that meet may be refused

    return simulation.played(seed, f"joining {profile}", plan, history, play)


def joining_plan(rng: random.Random, profile: str) -> Plan:
    """A plan of `plan`, without what loses data, and long enough for the epochs to pass."""
    aimed = {"races": _races, "shadows": _shadows}.get(profile)
    plan = aimed(rng) if aimed is not None else draw(rng, profile)
    faults = {kind: times for kind, times in plan.faults.items() if kind not in LOST_OR_ROTTEN}
    steps = rng.choice(((4, 8), (6, 12)))
    return replace(plan, faults=faults, local_drives=False, steps=steps, heal_every_seconds=None)


def _races(rng: random.Random) -> Plan:
    """Conditional writes of a few keys, by many clients at once, of pods that are at different epochs."""
    return replace(
        draw(rng, "conditions"),
        keys=("k", "l", "m"),
        clients_per_coordinator=3,
        pauses_seconds=rng.choice(((0.02,), (0.1,))),
        long_pause=0.0,
        skews_ms=(0, 0, 0),
        weights={"put": rng.choice((0, 1)), "put_if": 5, "delete": rng.choice((0, 1)), "get": 3},
        faults=rng.choice(({}, {"stall": 3}, {"away": 2})),
    )


def _shadows(rng: random.Random) -> Plan:
    """What is deleted in one pool while the other still has it, because nobody has let go of it yet."""
    return replace(
        draw(rng, "torn"),
        keys=rng.choice((("k",), ("a/1",), ("a/1", "a/2"))),
        weights={"put": 3, "delete": 3, "list": 5, "get": 1},
        crash=rng.choice((0.2, 0.4)),
        faults={"cut": 3},
    )


async def run(
    plan: Plan,
    history: History,
    rng: random.Random,
    make_workload: Callable[[Cluster, History, random.Random], Workload] = Workload,
) -> None:
    """A whole run, without the judgement.  Raises Violation."""
    cluster = JoiningCluster(plan, rng, history)
    workload = make_workload(cluster, history, rng)
    faults = Faults(cluster, history, rng)
    epochs = [asyncio.create_task(cluster.follow(node)) for node in range(plan.coordinators)]
    epochs.append(asyncio.create_task(cluster.publish()))
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(workload.run())
            group.create_task(faults.run())
        cluster.network.calm()
        await _end(cluster, history, workload)
    finally:
        for task in epochs:
            task.cancel()
        await asyncio.wait(epochs)
    await cluster.close()


async def _end(cluster: JoiningCluster, history: History, workload: Workload) -> None:
    history.event("the faults end")
    await cluster.network.drained()
    await cluster.background_ended()
    await _everyone_reads(cluster, history, workload)
    await asyncio.sleep(MAX_DELAY_SECONDS + OPERATION_DEADLINE_SECONDS + 100)
    while not cluster.everybody_reports(LAST_EPOCH):
        await asyncio.sleep(1)
    await _settle(cluster)
    for set_id, drives in cluster.by_set.items():
        for drive in drives:
            drive._repairs.clear()  # worked off above, by hand
            drive.restart()
        await asyncio.sleep(2 * OPERATION_DEADLINE_SECONDS)
        for drive in drives:
            drive.reap()
        checkers.HealingConverges().check(drives, set())
        checkers.NothingGrows().check(drives)
        history.event(f"pool {set_id.pool} is whole")
    _nothing_superseded_is_left(cluster)
    await _everyone_reads(cluster, history, workload)
    await _listings_agree(cluster, workload, history)
    await workload.look_at_end()


async def _everyone_reads(cluster: Cluster, history: History, workload: Workload) -> None:
    for coordinator, key in itertools.product(cluster.coordinators, cluster.plan.keys):
        await workload.get(coordinator, key)
        operation = history.operations[-1]
        if not operation.certain:
            raise Violation("Readable", f"all drives are up, yet: {operation.told()}")


async def _settle(cluster: JoiningCluster) -> None:
    """What repair and scanner do: make every register whole in its set, end parts of uploads that have ended, let go of
    what is superseded elsewhere."""
    coordinator = cluster.coordinators[0]
    store, clock = coordinator.store, coordinator.clock
    healing = RegisterHealing(store, Pacer(clock, store.foreground, HealSettings()), clock)
    left: Sequence[object] = ()
    for _ in range(SETTLING_PASSES):
        left = [one for set_id in (OLD, NEW) for one in await _heal_all(healing, store, set_id, cluster.by_set[set_id])]
        for set_id, drives in cluster.by_set.items():
            for entry in _scanned(drives):
                await healing.let_go(store.erasure_set(set_id), entry)
        await cluster.background_ended()
    if left:
        raise Violation("HealingConverges", f"not whole after {SETTLING_PASSES} passes: {left}")


async def _heal_all(
    healing: RegisterHealing, store: ObjectStore, set_id: SetId, drives: Sequence[MemoryDrive]
) -> list[str]:
    outcome = await healing.heal(store.erasure_set(set_id), sorted(_registers(drives), key=repr))
    return [f"{set_id} {register}" for register in outcome.not_whole]


def _scanned(drives: Sequence[MemoryDrive]) -> Iterator[ScanEntry]:
    """What a scanner comes upon that might have been superseded."""
    for drive in drives:
        for row in drive.rows():
            state = drive.state_of(row)
            if state.records and not state.records[0].tombstone:
                yield ScanEntry(keys.decode_row_key(row), state.records[0], state.mark, state.settled)


def _registers(drives: Sequence[MemoryDrive]) -> set[Register]:
    return {keys.decode_row_key(row) for drive in drives for row in drive.rows()}


def _nothing_superseded_is_left(cluster: JoiningCluster) -> None:
    """Of one register only one pool may hold a version that is not a tombstone: space must come back."""
    for row in {row for drive in cluster.drives for row in drive.rows()}:
        live = {drive.pool for drive in cluster.drives for held in drive.state_of(row).records if not held.tombstone}
        if len(live) > 1:
            raise Violation("NothingGrows", f"{keys.decode_row_key(row)} is live in pools {sorted(live)}")


async def _listings_agree(cluster: JoiningCluster, workload: Workload, history: History) -> None:
    for coordinator in cluster.coordinators:
        listing = await coordinator.store.list_objects(BUCKET)
        listed = {entry.key: int(entry.record.etag) for entry in listing.entries}
        found = {}
        for key in cluster.plan.keys:
            await workload.get(coordinator, key)
            found[key] = history.operations[-1].result
        if listed != {key: value for key, value in found.items() if value is not None}:
            raise Violation("ListingAgrees", f"listed {listed}, read {found}")
