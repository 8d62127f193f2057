"""One storage pod, built from the bottom up, run until told to stop, taken down from the top.

Up: drives are opened, the peers' server listens, peers are dialled, the object layer stands on the table of
drives, the S3 front end on that.  Blank drives are settled in the background, because that takes the peers:
the pod is live, answers health and its peers, and becomes ready when its drives are.

Down: it says that it is not ready and serves on for `drain_seconds`, because the clients' way to it closes later than
it is told to end.  Then no new connections, requests under way have `GRACE_SECONDS`, then background work, the object
layer, the peers and last the drives are closed, so that whatever was acknowledged was written by drives still open.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from prometheus_client import ProcessCollector

from holdfast_server.admin.handler import AdminApi
from holdfast_server.admin.overview import TenantView
from holdfast_server.api import server as front_end
from holdfast_server.api.buckets_cache import BucketCache
from holdfast_server.api.expiring import LifecycleKeeper
from holdfast_server.api.grants import ownership_at_creation
from holdfast_server.api.identities import Identities
from holdfast_server.api.metered_objects import metered
from holdfast_server.api.quotas import Quotas
from holdfast_server.api.sealing_keys import SealingKeys
from holdfast_server.api.services import Services, Told
from holdfast_server.audit.log import AuditLog, sink_maker
from holdfast_server.clock.bounds import Reading, TimeBounds
from holdfast_server.clock.port import Clock
from holdfast_server.clock.stamp import MAX_CLOCK_SKEW_MS, HybridClock, floor_stamp
from holdfast_server.clock.system import SystemClock
from holdfast_server.clock.ticks import seconds_to_next
from holdfast_server.contract import names
from holdfast_server.contract.admin import PodState
from holdfast_server.contract.config import ServerConfig
from holdfast_server.contract.healing import HealProgress
from holdfast_server.contract.health import ClusterHealth, EncryptionHealth, PodHealth
from holdfast_server.drives.identity import IdentityError
from holdfast_server.drives.local import DriveSettings, LocalDrive
from holdfast_server.drives.port import DriveError, DriveState
from holdfast_server.drives.slot import Slot
from holdfast_server.heal.service import HealService
from holdfast_server.iam.handler import IamApi
from holdfast_server.memory.at_rest import give_back_at_rest
from holdfast_server.memory.pod_memory import PodMemory
from holdfast_server.objects.healing import OPERATION_DEADLINE_SECONDS
from holdfast_server.objects.record import object_register
from holdfast_server.objects.store import ObjectStore
from holdfast_server.peers.channel import DialSettings
from holdfast_server.peers.dispatch import Dispatcher, PeerServices
from holdfast_server.peers.handshake import PodIdentity
from holdfast_server.peers.messages import (
    FEATURES,
    IAM_FEATURE,
    LOCKS_FEATURE,
    OPAQUE_ETAGS_FEATURE,
    REDUCED_FEATURE,
    SEALING_FEATURE,
    VERSIONS_FEATURE,
    Report,
)
from holdfast_server.peers.naming import Resolver
from holdfast_server.peers.network import PeerNetwork
from holdfast_server.peers.port import PeerError
from holdfast_server.peers.server import PeerServer
from holdfast_server.placement.map import PoolMap
from holdfast_server.pod.epoch_memory import EpochMemory
from holdfast_server.pod.health import PlacedStatus, cluster_health, drive_health, pod_health, without_usage
from holdfast_server.pod.local_drives import LocalDrives
from holdfast_server.pod.membership import Volume
from holdfast_server.pod.metrics import PeerView, PodCollector, PodView
from holdfast_server.pod.users_wait import UsersWait
from holdfast_server.wiring import lifecycle
from holdfast_server.wiring.drive_table import DriveTable
from holdfast_server.wiring.inputs import PodInputs
from holdfast_server.wiring.kept_running import Work, kept_running

log = logging.getLogger(__name__)

GRACE_SECONDS = 10.0
CONFIG_POLL_SECONDS = 1.0
STATE_POLL_SECONDS = 0.25
"""How late peers hear that a drive of this pod has changed its state."""
ANNOUNCE_TIMEOUT_SECONDS = 5.0
FENCE_TIMEOUT_SECONDS = 15.0
CLOSE_DRIVE_TIMEOUT_SECONDS = 10.0
"""A drive whose disk hangs closes when the disk lets go of it."""
LAST_CLOSE_TIMEOUT_SECONDS = 60.0
"""At the end of the process there is nothing better to do; whoever ends it has a deadline of his own."""


async def open_drive(inputs: PodInputs, volume: Volume, clock: Clock, settings: DriveSettings) -> LocalDrive:
    """The drive of a volume, in whatever state it is."""
    slot = Slot(inputs.config.tenant.id, inputs.membership.pool.name, volume.set_index, volume.position)
    return await LocalDrive.open(inputs.drive_path(volume), slot, clock, settings)


async def open_drives(inputs: PodInputs, clock: Clock, settings: DriveSettings) -> list[LocalDrive]:
    """All drives of the pod, in parallel."""
    volumes = inputs.membership.volumes
    return list(await asyncio.gather(*(open_drive(inputs, volume, clock, settings) for volume in volumes)))


@dataclass(frozen=True, kw_only=True)
class PodSettings:
    """What the process was started with, beside the inputs."""

    bind_address: str
    version: str
    hosts_file: Path | None = None
    drain_seconds: float = 0.0
    """How long it serves on after it was told to end."""
    adoption_delay_seconds: float = OPERATION_DEADLINE_SECONDS
    """L of rule 11; tests shorten it."""
    drives: DriveSettings = field(default_factory=DriveSettings)


class StoragePod:
    """See the module; use as `async with StoragePod.running(...)`, or `serve`."""

    def __init__(self, inputs: PodInputs, settings: PodSettings, drives: list[LocalDrive]) -> None:
        self._inputs, self._settings, self._drives = inputs, settings, drives
        self._clock = clock = SystemClock()
        me = inputs.membership
        self._identity = PodIdentity(inputs.config.tenant.id, me.pool.name, me.ordinal, me.pod)
        # A pod that died may have minted stamps ahead of its own clock, having seen those of others, that no drive
        # of its own keeps; a stamp minted twice would name two different writes.
        self._stamps = HybridClock(me.node, floor_stamp(clock.now_ms() + MAX_CLOCK_SKEW_MS))
        self._opened = False
        self._draining = False
        self._users_wait = UsersWait()
        self._pushed: list[object] = []
        self._resolver = Resolver(settings.hosts_file)
        self._network = PeerNetwork(
            DialSettings(
                self._identity, self._peer_keys, self._report, self._resolver, clock,
                inputs.tls.dials_with_tls, inputs.tls.for_dialling,
            ), self._peers_changed, lambda place, status: self.local.judged(place, status),
        )  # fmt: skip
        self.local = LocalDrives(
            lambda: inputs.membership, drives, self._reopen, lambda: self._network.peers, clock, self._stamps,
            settings.adoption_delay_seconds, self._push,
        )  # fmt: skip
        self._epochs = EpochMemory(lambda: self._drives)
        self._epoch = 0
        """What this pod reports: no newer than what its drives remember, nor than any write of it goes by."""
        self._peers_epoch = 0
        """The newest any peer has reported."""
        self._table = DriveTable(
            drives, (me.pool.name, me.ordinal), lambda: self._peers_epoch, lambda: self._epochs.newest
        )
        self._memory = PodMemory()
        self._audit = AuditLog(sink_maker(inputs.locate))
        self.store = ObjectStore(
            PoolMap(inputs.config), self._table.drives_of, clock, self._stamps, memory=self._memory,
            bounds=TimeBounds(clock, self._peers_clocks),
        )  # fmt: skip
        self._quotas = Quotas(
            clock, self._announce, lambda: [one.name for one in self.store.all_sets()],
            lambda bucket_id, key: self.store.set_of(object_register(bucket_id, key)).name,
            lambda bucket_id: self._heal.walk_soon(bucket_id),
        )  # fmt: skip
        self._services = self._make_services()
        self._heal = HealService(
            self.store, lambda: self._drives, clock, lifecycle.heal_settings(inputs.config.debug),
            self._peers_slowdowns,
            LifecycleKeeper(
                self._services, self.store.bounds.earliest_ms, self._quotas, lifecycle.calendar(inputs.config.debug)
            ),
        )  # fmt: skip
        self._started_ms = clock.now_ms()
        self._view = TenantView(
            lambda: inputs.config.pools, self.pod_state, lambda: self.cluster_health(False),
            lambda: self._network.peers, self._start_scan,
        )  # fmt: skip
        registry = self._services.metrics.registry
        registry.register(PodCollector(self._metrics_view))
        ProcessCollector(registry=registry)
        self._peer_server = PeerServer(
            self._identity, self._peer_key, Dispatcher(drives, self._peer_services()), self._report,
            self._is_member, self._network.greeted, clock, self._memory, inputs.tls.for_peers(),
        )  # fmt: skip
        self._configured: ServerConfig | None = None
        """What the pod goes by in all its parts."""
        self.s3_port = 0
        self.peer_port = 0

    # --- life
    @classmethod
    @asynccontextmanager
    async def running(cls, inputs: PodInputs, settings: PodSettings) -> AsyncIterator[StoragePod]:
        """A pod that serves inside the `async with`.  Raises OSError where a port cannot be bound."""
        drives = await open_drives(inputs, SystemClock(), settings.drives)
        pod = cls(inputs, settings, drives)
        try:
            await pod.local.load_memories()
            await pod._remember_former_life()
            await pod._listen_to_peers()
            await pod._configure(inputs.config)
            await pod.local.settle_once()
            front = await pod._listen_to_clients()
            try:
                async with kept_running(pod._background()):
                    pod._opened = True
                    yield pod
                    log.info("stopping", extra={"drain_seconds": settings.drain_seconds})
                    await pod._drain(front)
                    await front.close(GRACE_SECONDS)
                    await pod._audit.close()
            finally:
                await front.close(0)
        finally:
            await pod._close()

    def _background(self) -> dict[str, Work]:
        return {
            "drives": self.local.run,
            "healing": self._heal.run,
            "usage": self._quotas.run,
            "identities": self._services.identities.keep_fresh,
            "configuration": self._follow_inputs,
            "states": self._follow_states,
            "audit": self._audit.run,
            "memory": give_back_at_rest,
        }

    async def _listen_to_peers(self) -> None:
        if self._inputs.has_peers:
            port = self._inputs.config.listen.peer_port
            self.peer_port = await self._peer_server.start(self._settings.bind_address, port)

    async def _listen_to_clients(self) -> front_end.FrontEnd:
        mounts = {names.ADMIN_PREFIX: AdminApi(self._services, self._view, self.store.resolve).handle}
        port = self._inputs.config.listen.s3_port
        admission = self._inputs.tls.for_clients()
        front = await front_end.start(
            self._services, self._settings.bind_address, port, mounts, admission, IamApi(self._services).handle
        )
        self.s3_port = front.port
        return front

    async def _drain(self, front: front_end.FrontEnd) -> None:
        if self._settings.drain_seconds > 0:
            self._draining = True
            front.drain()
            await asyncio.sleep(self._settings.drain_seconds)

    async def _close(self) -> None:
        await self.local.close()
        await self.store.close()
        await self._network.close()
        await self._peer_server.close()
        await asyncio.wait(
            [asyncio.ensure_future(drive.close()) for drive in self._drives], timeout=LAST_CLOSE_TIMEOUT_SECONDS
        )
        self._resolver.close()

    async def _reopen(self, number: int, retire: bool) -> bool:
        """`LocalDrives` has the rules: close a drive, make it blank if so told, open its folder anew."""
        old = self._drives[number]
        try:
            async with asyncio.timeout(CLOSE_DRIVE_TIMEOUT_SECONDS):
                await old.close()
            if retire:
                await asyncio.to_thread(old.retire_table)
        except TimeoutError:
            log.warning("a drive that was set aside does not close", extra={"path": old.path})
            return False
        except (DriveError, IdentityError, OSError) as error:
            log.error("a damaged drive cannot be made blank", extra={"path": old.path, "reason": str(error)})
        volume = self._inputs.membership.volumes[number]
        self._drives[number] = await open_drive(self._inputs, volume, self._clock, self._settings.drives)
        # Not a newer one that is just being taken over: the peers of its pools are not dialled yet.
        self._table.configure(self._configured or self._inputs.config, self._network.peers)
        return True

    # --- the configuration and what follows from it
    async def _configure(self, config: ServerConfig) -> None:
        await self._network.configure(config)
        self._peer_server.turn_away_former_members()
        self._table.configure(config, self._network.peers)
        self.store.epochs.pools = PoolMap(config)
        self._audit.configure(config.audit)
        await self._settle_epoch()
        self._push()
        self._configured = config

    async def _remember_former_life(self) -> None:
        """Messages of the process that was this pod before may be under way, sent by the map it had then."""
        await self._epochs.load()
        pools = self.store.pools
        joining = self._inputs.membership.pool.readable_from_epoch > pools.epoch
        if not (pools.one_placement or joining or self._epochs.newest >= pools.epoch):
            self.store.epochs.had_former_life(self._epochs.newest or pools.epoch - 1)
        await self._settle_epoch()

    async def _settle_epoch(self) -> None:
        """Report the epoch that all of this pod is at; remembered first."""
        await self._epochs.load()
        settled = self.store.epochs.settled
        if settled > self._epochs.newest:
            await self._epochs.remember(settled)
        self._epoch = settled

    async def _follow_inputs(self) -> None:
        while True:
            await asyncio.sleep(seconds_to_next(self._clock.monotonic_seconds(), CONFIG_POLL_SECONDS))
            await self._inputs.refresh()
            # By what is in force, and not by what this look has brought: the one that brought it may have failed later.
            if self._inputs.config is not self._configured:
                await self._configure(self._inputs.config)
            self._network.look_around()

    def _peer_key(self) -> bytes:
        return self._inputs.keys.peer_key

    def _peer_keys(self) -> tuple[bytes, ...]:
        return self._inputs.keys.peer_keys

    def _root_pairs(self) -> tuple[tuple[str, str], ...]:
        return self._inputs.keys.root_pairs

    def _is_member(self, pool: str, ordinal: int) -> bool:
        return any(pool == known.name and 0 <= ordinal < known.servers for known in self._inputs.config.pools)

    # --- reports
    def _report(self) -> Report:
        slowdown, heals = self._heal.pacer.told()
        return msgspec.structs.replace(
            self.local.report(self._epoch), slowdown=slowdown, heals=heals, features=FEATURES,
            encryption_keys=self._inputs.ring.current.fingerprints,
            now_ms=self._clock.now_ms(),
        )  # fmt: skip

    def _awaits_keys(self) -> bool:
        encryption = self._inputs.config.encryption
        return encryption is not None and bool(encryption.keys_folder) and not len(self._inputs.ring.current)

    def _has_key_everywhere(self, fingerprint: bytes) -> bool:
        """Every pod that can be reached: who cannot serves nobody, and has the keys of now when it starts."""
        reports = [peer.link.report for peer in self._network.peers if peer.online]
        return all(report is not None and fingerprint in report.encryption_keys for report in reports)

    def _every_pod_knows(self, feature: str) -> bool:
        return all(peer.online for peer in self._network.peers) and self._every_pod_in_reach_knows(feature)

    def _every_pod_in_reach_knows(self, feature: str) -> bool:
        reports = [peer.link.report for peer in self._network.peers if peer.online]
        return all(report is not None and feature in report.features for report in reports)

    def _peers_clocks(self) -> list[Reading]:
        readings = [peer.link.clock_reading() for peer in self._network.peers]
        return [reading for reading in readings if reading is not None]

    def _peers_slowdowns(self) -> list[float]:
        reports = [peer.link.report for peer in self._network.peers if peer.online and peer.link.report is not None]
        return [report.slowdown for report in reports if report.slowdown is not None]

    def _peers_changed(self) -> None:
        self._peers_epoch = max((peer.epoch for peer in self._network.peers), default=0)
        self.local.wake()

    def _push(self) -> None:
        """Tell the peers if something that matters to them has changed; sizes can wait for the next ping."""
        report = self._report()
        states = [(drive.state, drive.drive_id, drive.incarnation) for drive in report.drives]
        matters = [report.epoch, report.encryption_keys, *states]
        if matters != self._pushed:
            self._pushed = matters
            self._peer_server.push_report()

    async def _follow_states(self) -> None:
        while True:
            await asyncio.sleep(seconds_to_next(self._clock.monotonic_seconds(), STATE_POLL_SECONDS))
            self.local.set_aside_outdated()
            self._look_for_users()
            await self._settle_epoch()
            if any(peer.link.report is not None and peer.link.report.heals for peer in self._network.peers):
                self._heal.pacer.is_burdened()
            self._push()

    def _look_for_users(self) -> None:
        serves = any(one.status.state in (DriveState.FULL, DriveState.HEALING) for one in self._own_statuses())
        self._users_wait.look(self._clock.monotonic_seconds(), serves=serves, loaded=self._services.identities.loaded)

    # --- what the API and the peers are given
    def _make_services(self) -> Services:
        inputs, clock = self._inputs, self._clock
        return Services(
            objects=metered(self.store, self._quotas),
            clock=clock,
            buckets=BucketCache(self.store, clock, self._quotas.seen, self.store.bounds.latest_ms),
            quotas=self._quotas,
            identities=Identities(self.store, clock, self._peer_keys, self._root_pairs),
            pod_health=self.pod_health,
            cluster_health=self.cluster_health,
            announce=self._announce,
            fence_bucket_everywhere=self._fence_bucket_everywhere,
            every_pod_keeps_versions=lambda: self._every_pod_knows(VERSIONS_FEATURE),
            every_pod_keeps_locks=lambda: self._every_pod_knows(LOCKS_FEATURE),
            every_pod_reduces=lambda: self._every_pod_knows(REDUCED_FEATURE),
            every_pod_in_reach_reduces=lambda: self._every_pod_in_reach_knows(REDUCED_FEATURE),
            every_pod_takes_opaque_etags=lambda: self._every_pod_knows(OPAQUE_ETAGS_FEATURE),
            every_pod_knows_iam=lambda: self._every_pod_knows(IAM_FEATURE),
            bounds=self.store.bounds,
            refuses_plaintext=inputs.tls.refuses_plaintext,
            told=self._told,
            sealing=SealingKeys(
                ring=lambda: inputs.ring.current,
                is_awaited=self._awaits_keys,
                is_everywhere=self._has_key_everywhere,
                every_pod_seals=lambda: self._every_pod_knows(SEALING_FEATURE),
                customer_keys_over_plaintext=self._takes_customer_keys_over_plaintext,
            ),
            pod_name=inputs.membership.pod,
            memory=self._memory,
            audit=self._audit,
            drives_listed=lambda: sum(one.quorums.read_quorum for one in self.store.all_sets()),
        )

    def _takes_customer_keys_over_plaintext(self) -> bool:
        encryption = self._inputs.config.encryption
        return encryption is not None and encryption.customer_keys_over_plaintext == "Accepted"

    def _told(self) -> Told:
        config = self._inputs.config
        return Told(
            region=config.region,
            domains=tuple(config.domains),
            object_ownership=ownership_at_creation(config.object_ownership),
        )

    def _peer_services(self) -> PeerServices:
        return PeerServices(
            on_announce=self._services.on_announce,
            on_fence_bucket=self._services.fence_bucket,
            remembered_slots=self.local.remembered_slots,
            remember_slots=self.local.remember_slots,
            report=self._report,
            pod_state=self.pod_state,
            start_scan=self._start_scan,
        )

    async def _start_scan(self) -> None:
        self._heal.start_scan()

    def pod_state(self) -> PodState:
        """What this pod says of itself to its peers and to administrators; from memory."""
        return PodState(
            pod=self._inputs.membership.pod,
            pool=self._identity.pool,
            ordinal=self._identity.ordinal,
            version=self._settings.version,
            epoch=self._epoch,
            started_ms=self._started_ms,
            drives=[
                drive_health(placed) for placed in self._statuses() if (placed.pool, placed.ordinal) == self._place
            ],
            healing=without_usage(self.heal_progress()),
        )

    def _metrics_view(self) -> PodView:
        prefixes = {pool.name: pool.pod_name_prefix for pool in self._inputs.config.pools}
        peers = [
            PeerView(f"{prefixes.get(peer.pool, '')}{peer.ordinal}", peer.online, peer.epoch)
            for peer in self._network.peers
        ]
        return PodView(
            self.pod_state(),
            self.cluster_health(False),
            peers,
            [drive.call_times for drive in self._drives],
            self._memory.budgets(),
            self.store.background.dropped,
            self._audit.counts(),
            self._inputs.tls.certificates(),
            self._quotas.usage_by_name() if self._inputs.config.bucket_usage_metrics else (),
        )

    def pod_health(self) -> PodHealth:
        behind = self._table.behind() or self._table.lagging()
        return pod_health(
            pod=self._inputs.membership.pod,
            epoch=self._epoch,
            version=self._settings.version,
            opened=self._opened and not self._inputs.tls.lacks_certificate,
            faults=[*self._inputs.faults, *([behind] if behind else [])],
            drives=self._own_statuses(),
            key_revision=self._inputs.keys.further.revision,
            draining=self._draining,
            awaits_users=self._users_wait.waits,
            unknown_to=[str(peer.link.target) for peer in self._network.peers if peer.link.turned_away],
        )

    def cluster_health(self, maintenance: bool) -> ClusterHealth:
        config = self._inputs.config
        return cluster_health(
            pools=config.pools,
            joining=[pool.name for pool in config.pools if pool.readable_from_epoch > config.epoch],
            epoch=self._epoch,
            drives=self._statuses(),
            me=self._place,
            maintenance=maintenance,
            healing=self.heal_progress(),
            tls=self._inputs.tls.health(self._dialled()),
            encryption=EncryptionHealth(
                fingerprints=[one.hex() for one in self._inputs.ring.current.fingerprints],
                message=self._inputs.ring.fault,
            ),
            key_revision=self._inputs.keys.further.revision,
        )

    def _dialled(self) -> list[bool]:
        """Of each connection to a peer that is up, whether it has TLS."""
        channels = [channel for peer in self._network.peers for channel in peer.link.channels.values()]
        return [channel.secure for channel in channels if channel.secure is not None]

    def heal_progress(self) -> HealProgress:
        """Of this pod's own drives."""
        return self._heal.report()

    @property
    def _place(self) -> tuple[str, int]:
        return self._identity.pool, self._identity.ordinal

    def _statuses(self) -> list[PlacedStatus]:
        """Of all drives; this pod's own with what their life cycle has to say of them."""
        return [
            placed._replace(status=self.local.status(placed.volume))
            if (placed.pool, placed.ordinal) == self._place
            else placed
            for placed in self._table.statuses()
        ]

    def _own_statuses(self) -> list[PlacedStatus]:
        return [placed for placed in self._statuses() if (placed.pool, placed.ordinal) == self._place]

    async def _announce(self, topic: str, changed: Sequence[str]) -> None:
        async def tell(peer: Any) -> None:
            try:
                async with asyncio.timeout(ANNOUNCE_TIMEOUT_SECONDS):
                    await peer.announce(topic, list(changed))
            except (PeerError, TimeoutError) as error:
                log.info("peer was not told of a change", extra={"peer": peer.ordinal, "reason": str(error)})

        await asyncio.gather(*(tell(peer) for peer in self._network.peers if peer.online))

    async def _fence_bucket_everywhere(self, bucket_id: bytes) -> bool:
        async def fence(peer: Any) -> bool:
            try:
                async with asyncio.timeout(FENCE_TIMEOUT_SECONDS):
                    await peer.fence_bucket(bucket_id)
            except (PeerError, TimeoutError):
                return False
            return True

        return all(await asyncio.gather(*(fence(peer) for peer in self._network.peers)))


async def serve(inputs: PodInputs, settings: PodSettings, stop: asyncio.Event) -> None:
    """Run a pod until `stop` is set.  Raises OSError where a port cannot be bound."""
    async with StoragePod.running(inputs, settings) as pod:
        log.info("serving", extra={"pod": inputs.membership.pod, "s3_port": pod.s3_port, "peer_port": pod.peer_port})
        await stop.wait()
    log.info("stopped")
