"""How a pool's drives are cut into erasure sets, and how many losses that survives.  Pure.

A pool has `servers` pods with `volumes_per_server` drives each.  A set takes N drives, spread over as many
servers as possible and evenly, so that the loss of one server takes the same, smallest number of drives from
every set.  N is frozen when the drives are formatted.  The rules of choice are MinIO's, which users know:
N is 2..16, a divisor of the number of drives, evenly spread over the servers, the largest that fits;
one drive alone is a set of one without parity.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

MAX_SET_SIZE = 16
SET_SIZE_OF_TWO = 8
"""From this size on, objects of reduced redundancy have two parity shards by default."""


class GeometryError(ValueError):
    """The pool's numbers cannot form erasure sets; the message names the field and the choices."""


@dataclass(frozen=True, slots=True)
class DriveSlot:
    """One place for a drive: `ordinal` is the server (pod) in its pool, `volume` the drive in that server."""

    ordinal: int
    volume: int


@dataclass(frozen=True, slots=True)
class Quorums:
    """The numbers of `docs/architecture.md`, quorum rules: N drives, K data shards, P parity shards."""

    set_size: int
    data_shards: int
    parity_shards: int
    write_quorum: int
    """W = K, or K + 1 when K = P: two disjoint write quorums must not exist."""
    read_quorum: int
    """R = N - W + 1: any R drives meet every write quorum."""


@lru_cache(MAX_SET_SIZE * MAX_SET_SIZE)
def quorums(set_size: int, parity: int) -> Quorums:
    """Of a set, and of a version that was coded with less parity than its set has."""
    data = set_size - parity
    write = data + 1 if data == parity else data
    return Quorums(set_size, data, parity, write, set_size - write + 1)


def default_parity(set_size: int) -> int:
    """MinIO's defaults: N=1 → 0, 2–3 → 1, 4–5 → 2, 6–7 → 3, 8 and more → 4."""
    if set_size <= 1:
        return 0
    if set_size <= 3:
        return 1
    if set_size <= 5:
        return 2
    if set_size <= 7:
        return 3
    return 4


def possible_set_sizes(servers: int, volumes_per_server: int) -> list[int]:
    """Every N that divides the pool's drives and spreads evenly over its servers, ascending."""
    drives = servers * volumes_per_server
    if drives == 1:
        return [1]
    sizes = []
    for size in range(2, min(MAX_SET_SIZE, drives) + 1):
        if drives % size:
            continue
        # Even spread: either every server gives the same number of drives to each set, or each set
        # takes at most one drive of a server and the sets tile the servers.
        if size % servers == 0 or servers % size == 0:
            sizes.append(size)
    return sizes


def choose_set_size(servers: int, volumes_per_server: int) -> int:
    """The largest possible N.  Raises GeometryError where none exists."""
    sizes = possible_set_sizes(servers, volumes_per_server)
    if not sizes:
        raise GeometryError(
            f"{servers} servers × {volumes_per_server} volumes cannot be cut into erasure sets of 2 to "
            f"{MAX_SET_SIZE} drives spread evenly over the servers"
        )
    return sizes[-1]


def resolve(servers: int, volumes_per_server: int, set_size: int | None = None, parity: int | None = None) -> Quorums:
    """Fill in the defaults and check; raises GeometryError naming the field."""
    if servers < 1:
        raise GeometryError(f"servers: {servers} is less than 1")
    if volumes_per_server < 1:
        raise GeometryError(f"volumesPerServer: {volumes_per_server} is less than 1")
    size = choose_set_size(servers, volumes_per_server) if set_size is None else set_size
    sizes = possible_set_sizes(servers, volumes_per_server)
    if size not in sizes:
        raise GeometryError(
            f"erasure.setSize: {size} does not fit {servers} servers × {volumes_per_server} volumes; "
            f"possible: {', '.join(map(str, sizes)) or 'none'}"
        )
    chosen = default_parity(size) if parity is None else parity
    if chosen < 0 or chosen > size // 2:
        raise GeometryError(f"erasure.parity: {chosen} is not within 0 to {size // 2}, half of setSize {size}")
    if size > 1 and chosen == 0:
        raise GeometryError("erasure.parity: 0 would lose data with the first drive; at least 1")
    return quorums(size, chosen)


def reduced_parity(servers: int, volumes_per_server: int, q: Quorums, chosen: int | None = None) -> int:
    """Parity shards of objects of the class REDUCED_REDUNDANCY, `chosen` or by default; raises GeometryError.

    By default 1 for sets of less than 8 drives, else 2; never more than the set has.  Where the pool bears the loss of
    a server, these objects have to as well, or every restart of a pod would make them unavailable: at least as many as
    the drives that one server has in a set.
    """
    bears_a_server = tolerated_servers(servers, volumes_per_server, q) > 0
    least = _drives_of_a_server(servers, volumes_per_server, q) if bears_a_server else min(1, q.parity_shards)
    if chosen is None:
        return min(q.parity_shards, max(least, 1 if q.set_size < SET_SIZE_OF_TWO else 2))
    if least <= chosen <= q.parity_shards:
        return chosen
    why = f"; each server has {least} drives of a set" if least > 1 else ""
    raise GeometryError(
        f"erasure.reducedRedundancyParity: {chosen} is not within {least} to {q.parity_shards}, the parity{why}"
    )


def erasure_sets(servers: int, volumes_per_server: int, set_size: int) -> list[list[DriveSlot]]:
    """Every set as its N slots; the index of a slot in the list is the drive's *position* in the set.

    Drives are dealt volume by volume over the servers, so consecutive positions lie on different servers.
    """
    order = [DriveSlot(s, v) for v in range(volumes_per_server) for s in range(servers)]
    return [order[i : i + set_size] for i in range(0, len(order), set_size)]


def tolerated_drives(q: Quorums) -> int:
    """Drives of one set that may be lost while writes go on."""
    return q.set_size - q.write_quorum


def losses_left(q: Quorums, full: int, healing: int) -> int:
    """Drives of one set that may be lost *now* while writes go on and nothing becomes unreadable: `full` of its
    drives are whole, `healing` ones are being filled; whichever are lost.  0 also where a quorum is gone already.
    """
    return max(0, min(full + healing - q.write_quorum, full - max(q.read_quorum, q.data_shards)))


def server_losses_left(q: Quorums, drives: Iterable[tuple[int, bool]]) -> int:
    """Servers whose loss one set bears *now*, whichever they are; `drives` are the set's drives that answer, each
    as (server, whether it is full)."""
    members = list(drives)
    full = Counter(server for server, whole in members if whole)
    online = Counter(server for server, _ in members)
    # The two quorums fail independently, so the worst servers for each are the worst there are.
    by_online = sorted(online.values(), reverse=True)
    by_full = sorted(full.values(), reverse=True)
    needed = max(q.read_quorum, q.data_shards)
    lost = 0
    while lost < len(by_online) and sum(by_online[lost + 1 :]) >= q.write_quorum and sum(by_full[lost + 1 :]) >= needed:
        lost += 1
    return lost


def tolerated_servers(servers: int, volumes_per_server: int, q: Quorums) -> int:
    """Servers that may be lost, whichever they are, while writes go on in every set."""
    return tolerated_drives(q) // _drives_of_a_server(servers, volumes_per_server, q)


def _drives_of_a_server(servers: int, volumes_per_server: int, q: Quorums) -> int:
    """How many drives of one set a server has, at most."""
    return max(
        max(sum(1 for slot in group if slot.ordinal == s) for s in range(servers))
        for group in erasure_sets(servers, volumes_per_server, q.set_size)
    )
