"""Which pod this process is, and which places for drives are its own.  Pure."""

from __future__ import annotations

from typing import NamedTuple

from holdfast_server.contract import geometry
from holdfast_server.contract.config import ConfigError, PoolConfig, ServerConfig


class Volume(NamedTuple):
    """One of this pod's drives."""

    number: int
    path: str
    """As the configuration names it, before any prefix."""
    set_index: int
    position: int


class Membership(NamedTuple):
    pool: PoolConfig
    ordinal: int
    pod: str
    node: int
    """This pod's number in stamps."""
    volumes: tuple[Volume, ...]


def find_membership(config: ServerConfig, pod: str) -> Membership:
    """Raises ConfigError if no pool of the configuration has such a pod."""
    for pool in config.pools:
        number = pod.removeprefix(pool.pod_name_prefix)
        if not pod.startswith(pool.pod_name_prefix) or not number.isdecimal() or str(int(number)) != number:
            continue
        ordinal = int(number)
        if ordinal >= pool.servers:
            raise ConfigError(f"pod {pod!r}: pool {pool.name!r} has servers 0 to {pool.servers - 1}")
        return Membership(pool, ordinal, pod, pool.first_node + ordinal, _volumes(pool, ordinal))
    prefixes = ", ".join(repr(pool.pod_name_prefix) for pool in config.pools)
    raise ConfigError(f"pod {pod!r}: belongs to no pool; their pods' names begin with {prefixes}")


def check_successor(before: Membership, after: ServerConfig) -> Membership:
    """This pod in a changed configuration.  Raises ConfigError where something changed that never may."""
    now = find_membership(after, before.pod)
    faults = [
        f"pool {now.pool.name!r}: {name} changed from {old} to {new}; it is frozen"
        for name, old, new in [
            ("name", before.pool.name, now.pool.name),
            ("servers", before.pool.servers, now.pool.servers),
            ("volumesPerServer", before.pool.volumes_per_server, now.pool.volumes_per_server),
            ("erasure.setSize", before.pool.erasure.set_size, now.pool.erasure.set_size),
            ("erasure.parity", before.pool.erasure.parity, now.pool.erasure.parity),
            ("drivePath", before.pool.drive_path, now.pool.drive_path),
            ("firstNode", before.pool.first_node, now.pool.first_node),
        ]
        if old != new
    ]
    if faults:
        raise ConfigError("\n".join(faults))
    return now


def check_pools(before: ServerConfig, after: ServerConfig) -> None:
    """Pools are added, and taken out again only before anything is looked for in them.  What placement goes by is
    frozen: a pool that changed its shape, or the epochs of its joining, would have keys looked for where they are not.
    Raises ConfigError."""
    faults = []
    if after.epoch < before.epoch:
        faults.append(f"epoch: {after.epoch} is older than {before.epoch}, which is in force")
    pools = {pool.name: pool for pool in after.pools}
    for old in before.pools:
        new = pools.get(old.name)
        if new is None:
            if old.readable_from_epoch <= before.epoch:
                faults.append(f"pool {old.name!r} is missing; it holds data")
            continue
        was, now = _placing_values(old), _placing_values(new)
        faults += [
            f"pool {old.name!r}: {field} changed from {was[field]} to {now[field]}; it is frozen"
            for field in was
            if was[field] != now[field]
        ]
    if faults:
        raise ConfigError("\n".join(faults))


_PLACING_FIELDS = (
    "servers", "volumes_per_server", "first_node", "weight", "readable_from_epoch", "writable_from_epoch",
)  # fmt: skip


def _placing_values(pool: PoolConfig) -> dict[str, object]:
    """How objects of reduced redundancy are cut is not among them: each says it itself."""
    values: dict[str, object] = {field: getattr(pool, field) for field in _PLACING_FIELDS}
    return {**values, "erasure.set_size": pool.erasure.set_size, "erasure.parity": pool.erasure.parity}


def _volumes(pool: PoolConfig, ordinal: int) -> tuple[Volume, ...]:
    sets = geometry.erasure_sets(pool.servers, pool.volumes_per_server, pool.erasure.set_size)
    own = [
        Volume(slot.volume, pool.drive_path.replace("{volume}", str(slot.volume)), set_index, position)
        for set_index, group in enumerate(sets)
        for position, slot in enumerate(group)
        if slot.ordinal == ordinal
    ]
    return tuple(sorted(own))
