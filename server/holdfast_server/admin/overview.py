"""The whole tenant as one pod can tell it: what every pod says of itself, and what is known of the silent ones.

Every peer is asked at once, each under `ASK_TIMEOUT_SECONDS`; one that does not answer in time is told as such,
and its drives as this pod sees them.  Nothing is remembered between two questions.

Not here: what it means for people (`heal_report`), requests (`handler`), who the peers are (`wiring`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from holdfast_server.contract import geometry
from holdfast_server.contract.admin import Capacity, PodInfo, PodState, ScanStarted, TenantInfo
from holdfast_server.contract.buckets import TenantUsage
from holdfast_server.contract.config import PoolConfig
from holdfast_server.contract.health import ClusterHealth, DriveHealth
from holdfast_server.peers.port import PeerError

ASK_TIMEOUT_SECONDS = 3.0

T = TypeVar("T")


class AskedPeer(Protocol):
    """What is needed of a peer here; see `peers.port.Peer`."""

    pool: str
    ordinal: int

    async def pod_state(self) -> PodState: ...

    async def start_scan(self) -> None: ...


@dataclass(frozen=True, slots=True)
class PodAnswer:
    """One pod of the tenant; `state` is None where it did not answer, `message` says why."""

    pod: str
    pool: str
    ordinal: int
    state: PodState | None
    message: str = ""


@dataclass(frozen=True, slots=True)
class Overview:
    """One look at the tenant."""

    pools: tuple[PoolConfig, ...]
    cluster: ClusterHealth
    """As the answering pod sees it."""
    answers: tuple[PodAnswer, ...]
    """By pool and ordinal."""

    @property
    def silent(self) -> list[PodAnswer]:
        return [answer for answer in self.answers if answer.state is None]

    @property
    def drives(self) -> list[DriveHealth]:
        """All drives by pool, set and position; a drive's own pod knows it best."""
        own = {
            (drive.pool, drive.ordinal, drive.volume): drive
            for answer in self.answers
            if answer.state is not None
            for drive in answer.state.drives
        }
        drives = [own.get((drive.pool, drive.ordinal, drive.volume), drive) for drive in self.cluster.drives]
        return sorted(drives, key=lambda drive: (drive.pool, drive.set_index, drive.position))


class TenantView:
    """Looks at the tenant from one pod."""

    def __init__(
        self,
        pools: Callable[[], Sequence[PoolConfig]],
        me: Callable[[], PodState],
        cluster: Callable[[], ClusterHealth],
        peers: Callable[[], Sequence[AskedPeer]],
        start_own_scan: Callable[[], Awaitable[None]],
    ) -> None:
        self._pools, self._me, self._cluster, self._peers = pools, me, cluster, peers
        self._start_own_scan = start_own_scan

    async def look(self) -> Overview:
        """Raises nothing."""
        pools = {pool.name: pool for pool in self._pools()}
        me = self._me()
        told = await self._ask(lambda peer: peer.pod_state())
        answers = [PodAnswer(me.pod, me.pool, me.ordinal, me)]
        for peer, answer in told:
            pod = f"{pools[peer.pool].pod_name_prefix}{peer.ordinal}" if peer.pool in pools else str(peer.ordinal)
            state = answer if isinstance(answer, PodState) else None
            message = str(answer) if isinstance(answer, Exception) else ""
            answers.append(PodAnswer(pod, peer.pool, peer.ordinal, state, message))
        answers.sort(key=lambda answer: (answer.pool, answer.ordinal))
        return Overview(tuple(pools.values()), self._cluster(), tuple(answers))

    async def start_scan(self) -> ScanStarted:
        """On every pod that answers."""
        pools = {pool.name: pool for pool in self._pools()}
        await self._start_own_scan()
        started = [self._me().pod]
        silent: list[str] = []
        for peer, answer in await self._ask(lambda peer: peer.start_scan()):
            prefix = pools[peer.pool].pod_name_prefix if peer.pool in pools else ""
            (silent if isinstance(answer, Exception) else started).append(f"{prefix}{peer.ordinal}")
        return ScanStarted(started=sorted(started), silent_pods=sorted(silent))

    async def _ask(
        self, call: Callable[[AskedPeer], Awaitable[T]]
    ) -> list[tuple[AskedPeer, T | PeerError | TimeoutError]]:
        async def one(peer: AskedPeer) -> T | PeerError | TimeoutError:
            try:
                async with asyncio.timeout(ASK_TIMEOUT_SECONDS):
                    return await call(peer)
            except TimeoutError:
                return TimeoutError(f"no answer within {ASK_TIMEOUT_SECONDS:g} s")
            except PeerError as error:
                return error

        peers = list(self._peers())
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(peer)) for peer in peers]
        return list(zip(peers, (task.result() for task in tasks), strict=True))


def tenant_info(overview: Overview, answered_by: str, usage: TenantUsage) -> TenantInfo:
    drives = overview.drives
    return TenantInfo(
        healthy=overview.cluster.healthy,
        epoch=overview.cluster.epoch,
        answered_by=answered_by,
        message=overview.cluster.message,
        pods=[_pod_info(answer) for answer in overview.answers],
        sets=overview.cluster.sets,
        drives=drives,
        capacity=_capacity(overview.pools, drives),
        usage=usage,
    )


def _pod_info(answer: PodAnswer) -> PodInfo:
    state = answer.state or PodState(pod=answer.pod, pool=answer.pool, ordinal=answer.ordinal)
    return PodInfo(
        pod=answer.pod,
        pool=answer.pool,
        ordinal=answer.ordinal,
        answers=answer.state is not None,
        message=answer.message,
        version=state.version,
        epoch=state.epoch,
        started_ms=state.started_ms,
    )


def _capacity(pools: Sequence[PoolConfig], drives: Sequence[DriveHealth]) -> Capacity:
    raw = usable = used = 0
    for pool in pools:
        q = geometry.quorums(pool.erasure.set_size, pool.erasure.parity)
        total = sum(drive.total_bytes for drive in drives if drive.pool == pool.name)
        raw += total
        usable += total * q.data_shards // q.set_size
        used += sum(drive.used_bytes for drive in drives if drive.pool == pool.name)
    return Capacity(raw_bytes=raw, usable_bytes=usable, used_bytes=used)
