"""All peers of a pod: who they are by the configuration, kept connected, added and removed as it changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from holdfast_server.contract import geometry
from holdfast_server.contract.config import ServerConfig
from holdfast_server.peers.channel import DialSettings, Target
from holdfast_server.peers.handshake import PodIdentity
from holdfast_server.peers.remote import Judge, RemotePeer


def targets(config: ServerConfig, me: PodIdentity) -> dict[Target, tuple[int, list[tuple[int, int]]]]:
    """Every other pod of the tenant: its number in stamps, and (set index, position) of each of its volumes."""
    found: dict[Target, tuple[int, list[tuple[int, int]]]] = {}
    for pool in config.pools:
        sets = geometry.erasure_sets(pool.servers, pool.volumes_per_server, pool.erasure.set_size)
        where = {
            (slot.ordinal, slot.volume): (set_index, position)
            for set_index, group in enumerate(sets)
            for position, slot in enumerate(group)
        }
        for ordinal in range(pool.servers):
            if (pool.name, ordinal) == (me.pool, me.ordinal):
                continue
            host = f"{pool.pod_name_prefix}{ordinal}{pool.host_suffix}"
            target = Target(pool.name, ordinal, host, config.listen.peer_port)
            volumes = [where[ordinal, volume] for volume in range(pool.volumes_per_server)]
            found[target] = (pool.first_node + ordinal, volumes)
    return found


class PeerNetwork:
    """Runs one RemotePeer for each other pod of the tenant."""

    def __init__(self, settings: DialSettings, on_change: Callable[[], None], judge: Judge) -> None:
        """`on_change`: some peer came, went, or reported something new."""
        self._settings = settings
        self._judge = judge
        self._on_change = on_change
        self._peers: dict[Target, tuple[RemotePeer, asyncio.Task[None]]] = {}

    @property
    def peers(self) -> list[RemotePeer]:
        return [peer for peer, _ in self._peers.values()]

    def find(self, pool: str, ordinal: int) -> RemotePeer | None:
        return next((p for p in self.peers if (p.pool, p.ordinal) == (pool, ordinal)), None)

    def greeted(self, pool: str, ordinal: int) -> None:
        """That pod has dialled us, so it is up: dial it at once if it is not connected."""
        peer = self.find(pool, ordinal)
        if peer is not None:
            peer.link.wake()

    def look_around(self) -> None:
        """Replace connections that have TLS and should have none, or the other way round; to be called now and then."""
        for peer in self.peers:
            for channel in peer.link.channels.values():
                channel.look_around()

    async def configure(self, config: ServerConfig) -> None:
        """Dial the pods of this configuration, and no others."""
        wanted = targets(config, self._settings.me)
        for target in [target for target in self._peers if target not in wanted]:
            _, task = self._peers.pop(target)
            await _stop(task)
        for target, (node, positions) in wanted.items():
            if target not in self._peers:
                peer = RemotePeer(target, node, positions, self._settings, self._on_change, self._judge)
                task = asyncio.get_running_loop().create_task(peer.run(), name=f"peer {target}")
                self._peers[target] = (peer, task)
        self._on_change()

    async def close(self) -> None:
        for _, task in self._peers.values():
            await _stop(task)
        self._peers.clear()


async def _stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
