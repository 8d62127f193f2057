"""How much may be lost now, so that every failure is the product's fault.

Faults that lose no durable data (drives away, hung, full; messages lost; crashes; power) need no budget: no number of
them may break a promise, they only make answers rarer.  What loses data does: a drive that is gone for good, a shard
that rots.  Promise 1 allows them as long as every version that was, or may yet be, acknowledged or read keeps enough
copies; a version that cannot be told from an acknowledged one (rule 11: K - 1 copies and a replaced drive) is an
admin's decision, not the cluster's.

It looks at the drives from above, as no coordinator can.
"""

from __future__ import annotations

from collections.abc import Iterable

from holdfast_server.contract.geometry import Quorums
from holdfast_server.drives.port import Held
from holdfast_server.objects.quorum import copies_needed, of_version
from holdfast_server.testing.memory_drive import MemoryDrive
from holdfast_server.testing.sim.cluster import Cluster


def may_lose_drive(quorums: Quorums, drives: Iterable[MemoryDrive], lost: MemoryDrive) -> bool:
    """Whether every register stays decidable and readable from the drives that are left."""
    left = [drive for drive in drives if drive is not lost]
    full = [drive for drive in left if not drive.healing]
    if len(full) < quorums.data_shards:
        return False
    for row in lost.rows():
        mark = max(drive.state_of(row).mark for drive in (*left, lost))
        for held in lost.state_of(row).records:
            if held.stamp < mark:
                continue
            healthy = sum(_holds(drive, row, held) for drive in left)
            lacking = sum(not drive.state_of(row).holds(held.stamp) for drive in full)
            denied = held.stamp != mark and lacking >= of_version(quorums, held).read_quorum
            if healthy < copies_needed(quorums, held) and not denied:
                return False
    return True


def may_rot(cluster: Cluster, rotten: MemoryDrive, data_id: bytes, block: int) -> bool:
    """Whether enough of the other drives have this block of their shards of the same name, whatever ails the others."""
    others = [drive for drive in cluster.drives if drive is not rotten]
    # It may not be named yet: then the redundancy of what will name it is anybody's guess.
    numbers = cluster.reduced if cluster.plan.reduced else cluster.quorums
    return sum(drive.has_healthy(data_id, block) for drive in others) >= numbers.data_shards


def _holds(drive: MemoryDrive, row: bytes, held: Held) -> bool:
    return drive.state_of(row).holds(held.stamp) and all(map(drive.has_healthy, held.data_ids))
