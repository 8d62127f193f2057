"""How well this pod and the tenant are: from drive statuses and quorums to the contract's JSON values.  Pure.

A set is *writable* with W drives that take writes (they serve and have room), and R full ones (someone must be
able to say "I have no such key"), *readable* with enough full drives to find the newest version and to read it.
Asked for maintenance, a set must stay writable with this pod's drives away, and drives that are still healing do not
count: nobody should be taken away while redundancy is reduced.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import msgspec

from holdfast_server.contract import geometry
from holdfast_server.contract.config import PoolConfig
from holdfast_server.contract.healing import HealProgress
from holdfast_server.contract.health import (
    ClusterHealth,
    DriveHealth,
    EncryptionHealth,
    PodHealth,
    SetHealth,
    TlsHealth,
)
from holdfast_server.drives.port import DriveState, DriveStatus


class PlacedStatus(NamedTuple):
    """A drive's status and where the drive is."""

    pool: str
    set_index: int
    position: int
    ordinal: int
    volume: int
    status: DriveStatus


def drive_health(placed: PlacedStatus) -> DriveHealth:
    status = placed.status
    return DriveHealth(
        pool=placed.pool,
        set_index=placed.set_index,
        position=placed.position,
        ordinal=placed.ordinal,
        volume=placed.volume,
        state=status.state.told,
        message=status.message,
        total_bytes=status.total_bytes,
        available_bytes=status.available_bytes,
        used_bytes=status.used_bytes,
        full=status.full,
    )


def pod_health(
    *,
    pod: str,
    epoch: int,
    version: str,
    opened: bool,
    faults: Sequence[str],
    drives: Iterable[PlacedStatus],
    key_revision: int = 0,
    draining: bool = False,
    unknown_to: Sequence[str] = (),
    awaits_users: bool = False,
) -> PodHealth:
    """`opened`: keys are loaded and every drive was opened, formatted or set aside.  `draining`: told to end, it serves
    those who still come.  `unknown_to`: peers that take this pod for a stranger.  `awaits_users`: it does not know the
    tenant's users yet, and waits for them (`users_wait`).

    Ready does not ask for quorum (a Service without endpoints turns 503 into refused connections), but a pod
    whose drives all wait for their identity, or are all faulty, has nothing to serve from and says so.  So has one of a
    pool that joins, until the last of the others has the configuration that names it, which may take a minute: it
    would answer each of its clients with 503, while the others serve.
    """
    listed = [drive_health(drive) for drive in drives]
    serving = sum(1 for drive in listed if drive.state in ("ok", "healing"))
    messages = [
        *(["it is about to end"] if draining else []),
        *(f"{peer} does not know this pod yet" for peer in unknown_to),
        *(["users are being loaded"] if awaits_users else []),
        *faults,
        *(f"drive {drive.volume}: {drive.message}" for drive in listed if drive.message),
    ]
    return PodHealth(
        ready=opened and serving > 0 and not draining and not unknown_to and not awaits_users,
        pod=pod,
        epoch=epoch,
        version=version,
        message="; ".join(messages) if opened else "; ".join(["drives are being opened", *messages]),
        drives=listed,
        key_revision=key_revision,
    )


def cluster_health(
    *,
    pools: Sequence[PoolConfig],
    epoch: int,
    drives: Sequence[PlacedStatus],
    me: tuple[str, int],
    maintenance: bool = False,
    healing: HealProgress | None = None,
    tls: TlsHealth | None = None,
    key_revision: int = 0,
    joining: Collection[str] = (),
    encryption: EncryptionHealth | None = None,
) -> ClusterHealth:
    """`me`: this pod's pool and ordinal; with `maintenance` its drives are taken as away.  `joining`: names of pools
    that are not read yet."""
    progress = without_names(healing or HealProgress())
    sets: list[SetHealth] = []
    failing: list[str] = []
    for pool in pools:
        quorums = geometry.resolve(pool.servers, pool.volumes_per_server, pool.erasure.set_size, pool.erasure.parity)
        for index in range(pool.servers * pool.volumes_per_server // quorums.set_size):
            members = [drive for drive in drives if (drive.pool, drive.set_index) == (pool.name, index)]
            health = _set_health(pool.name, index, quorums, members)
            sets.append(health)
            away = [drive for drive in members if not maintenance or (drive.pool, drive.ordinal) != me]
            # No request goes near a pool that joins: it cannot be missed.
            if pool.name not in joining and not _holds(quorums, away, count_healing=not maintenance):
                failing.append(f"pool {pool.name} set {index}")
    without = " without this pod" if maintenance else ""
    return ClusterHealth(
        healthy=not failing,
        epoch=epoch,
        sets=sets,
        drives=[drive_health(drive) for drive in drives],
        repair_queue_length=sum(drive.queue_length for drive in progress.drives),
        healing=progress,
        tls=tls or TlsHealth(),
        encryption=encryption or EncryptionHealth(),
        message=f"no write quorum{without}: {', '.join(failing)}" if failing else "",
        key_revision=key_revision,
    )


def without_names(progress: HealProgress) -> HealProgress:
    """Fit for those who have not signed: no keys, no buckets."""
    sets = [msgspec.structs.replace(one, stuck_samples=[]) for one in progress.sets]
    return msgspec.structs.replace(without_usage(progress), sets=sets)


def without_usage(progress: HealProgress) -> HealProgress:
    """Of a size that the number of buckets does not change."""
    drives = [msgspec.structs.replace(drive, usage=[], usage_counted_ms=0) for drive in progress.drives]
    return msgspec.structs.replace(progress, drives=drives)


def _set_health(pool: str, index: int, quorums: geometry.Quorums, members: Sequence[PlacedStatus]) -> SetHealth:
    full, healing = _count(members)
    return SetHealth(
        pool=pool,
        index=index,
        set_size=quorums.set_size,
        parity=quorums.parity_shards,
        write_quorum=quorums.write_quorum,
        online=full + healing,
        healing=healing,
        writable=_holds(quorums, members, count_healing=True),
        readable=full >= max(quorums.read_quorum, quorums.data_shards),
    )


def _holds(quorums: geometry.Quorums, members: Sequence[PlacedStatus], count_healing: bool) -> bool:
    full, _ = _count(members)
    with_room, healing_with_room = _count([member for member in members if not member.status.full])
    takers = with_room + (healing_with_room if count_healing else 0)
    return takers >= quorums.write_quorum and full >= quorums.read_quorum


def _count(members: Sequence[PlacedStatus]) -> tuple[int, int]:
    states = [member.status.state for member in members]
    return states.count(DriveState.FULL), states.count(DriveState.HEALING)
