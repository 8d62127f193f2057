"""The pool map: pools, their erasure sets, and where a key goes.

Placement is a function of the key, the tenant and the map's *epoch*, never of what a coordinator sees of free
space or failures, so that all coordinators agree.  The pool is chosen by weighted rendezvous hashing over the
pools that take writes in an epoch, the set by hash, the order of shards is rotated by hash so that parity and
its cost are spread.  The version is not hashed: all versions of a key, its uploads and its parts are in one set.

An epoch that changes the writable pools moves the writes of some keys; what was written earlier stays where
the earlier epoch put it.  A pool is readable one epoch before it is writable, and pods change epochs one after the
other; so a key's *look-up sets* are its placements under the coming epoch (some pods may write by it already), the
present one and every past one (`look_up_sets`).  For most keys that is one set.

Not here: how a change of the map reaches all pods (the operator publishes epochs, peers compare them), what is done
with several look-up sets (`objects.look_up`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import xxhash

from holdfast_server.contract import geometry
from holdfast_server.contract.config import PoolConfig, ServerConfig


@dataclass(frozen=True, slots=True, order=True)
class SetId:
    pool: str
    index: int


@dataclass(frozen=True, slots=True)
class Pool:
    config: PoolConfig
    quorums: geometry.Quorums
    reduced: geometry.Quorums
    """Of objects of reduced redundancy that are written now; those that were written may have others."""
    sets: tuple[tuple[geometry.DriveSlot, ...], ...]


class PoolMap:
    """The pools of one configuration, at its epoch."""

    def __init__(self, config: ServerConfig) -> None:
        self.epoch = config.epoch
        self._seed = xxhash.xxh3_64_intdigest(config.tenant.id.encode())
        self.pools = {pool.name: _pool(pool) for pool in config.pools}
        readable = [pool for pool in config.pools if pool.readable_from_epoch <= config.epoch]
        self._writable = _writable_pools(readable, config.epoch)
        self._looked_up = _writable_by_epoch(readable)

    @property
    def one_placement(self) -> bool:
        """Whether every key has one look-up set: no pool ever joined, and none is about to."""
        return len(self._looked_up) == 1

    def quorums(self, set_id: SetId) -> geometry.Quorums:
        return self.pools[set_id.pool].quorums

    def reduced_quorums(self, set_id: SetId) -> geometry.Quorums:
        """Of objects of reduced redundancy that are written now."""
        return self.pools[set_id.pool].reduced

    def slots(self, set_id: SetId) -> tuple[geometry.DriveSlot, ...]:
        return self.pools[set_id.pool].sets[set_id.index]

    def all_sets(self) -> list[SetId]:
        """Every set of every readable pool."""
        return [
            SetId(name, index)
            for name, pool in self.pools.items()
            if pool.config.readable_from_epoch <= self.epoch
            for index in range(len(pool.sets))
        ]

    def write_set(self, owner_id: bytes, key: str) -> SetId:
        """Where a key's writes go now.  `owner_id` is the bucket's unique id."""
        return self._place(self._hash(owner_id, key), self._writable)

    def look_up_sets(self, owner_id: bytes, key: str) -> list[SetId]:
        """Where a key may be: by the coming epoch, the present one and the past ones, newest first, each set once."""
        place = self._hash(owner_id, key)
        return list(dict.fromkeys(self._place(place, pools) for pools in self._looked_up))

    def rotation(self, owner_id: bytes, key: str, set_size: int) -> int:
        """Shard index of position p is (p + rotation) mod N."""
        return (self._hash(owner_id, key) >> 96) % set_size

    def _hash(self, owner_id: bytes, key: str) -> int:
        return xxhash.xxh3_128_intdigest(owner_id + key.encode(), self._seed)

    def _place(self, place: int, pools: Sequence[str]) -> SetId:
        name = pools[0] if len(pools) == 1 else max(pools, key=lambda pool: self._score(place, pool))
        return SetId(name, (place & 0xFFFFFFFF) % len(self.pools[name].sets))

    def _score(self, place: int, pool: str) -> float:
        """Weighted rendezvous: the greatest -weight / ln(u) wins, u uniform in (0, 1)."""
        mixed = xxhash.xxh3_64_intdigest(place.to_bytes(16, "big") + pool.encode())
        # 53 bits, so that u is exact in a float and never rounds to 1, whose logarithm is 0.
        return -self.pools[pool].config.weight / math.log(((mixed >> 11) + 0.5) / 2**53)


def _pool(config: PoolConfig) -> Pool:
    erasure = config.erasure
    quorums = geometry.resolve(config.servers, config.volumes_per_server, erasure.set_size, erasure.parity)
    reduced = geometry.reduced_parity(
        config.servers, config.volumes_per_server, quorums, erasure.reduced_redundancy_parity
    )
    groups = geometry.erasure_sets(config.servers, config.volumes_per_server, erasure.set_size)
    return Pool(config, quorums, geometry.quorums(quorums.set_size, reduced), tuple(tuple(group) for group in groups))


def _writable_pools(readable: Sequence[PoolConfig], epoch: int) -> tuple[str, ...]:
    """The pools that take writes in an epoch."""
    return tuple(pool.name for pool in readable if pool.writable_from_epoch <= epoch)


def _writable_by_epoch(readable: Sequence[PoolConfig]) -> list[tuple[str, ...]]:
    """The pools that take writes, for every epoch that changes them, newest first."""
    epochs = sorted({pool.writable_from_epoch for pool in readable}, reverse=True)
    return [_writable_pools(readable, epoch) for epoch in epochs]
