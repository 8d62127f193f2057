"""`status.pools`: each pool's pods, drives and how much loss it bears."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holdfast_operator.ledger import Ledger
from holdfast_operator.observe.pods import PodState
from holdfast_operator.observe.redundancy import HEALING, Redundancy
from holdfast_operator.status.healing import derive_healing
from holdfast_operator.tenant.spec import PoolSpec


def derive_pool(
    pool: PoolSpec, ledger: Ledger, pods: Sequence[PodState], redundancy: Redundancy, volume_size: str | None
) -> dict[str, Any]:
    record = ledger.pool(pool.name)
    own = redundancy.of_pools([] if record is None else [record])
    drives = pool.servers * pool.volumes_per_server
    healing = derive_healing(own)
    return {
        "name": pool.name,
        "servers": pool.servers,
        "ready": sum(pod.in_service for pod in pods if pod.pool == pool.name),
        "state": "Joining"
        if record not in ledger.serving_pools
        else _state(record is not None and record.formatted, own),
        "formatted": bool(record and record.formatted),
        "drives": {
            "total": drives,
            "online": sum(drive.answers for drive in own.drives),
            "healing": sum(drive.state == HEALING for drive in own.drives),
        },
        "erasure": {
            "sets": drives // pool.quorums.set_size,
            "setSize": pool.quorums.set_size,
            "parity": pool.quorums.parity_shards,
        },
        "tolerates": {
            "drives": min((view.losses_left for view in own.sets), default=0),
            "servers": min((view.server_losses_left for view in own.sets), default=0),
            "nodes": min((view.node_losses_left for view in own.sets), default=0),
        },
        **_reduced_redundancy(pool, own),
        **({"healing": healing} if healing else {}),
        **({"volumeSize": volume_size} if volume_size is not None else {}),
    }


def _reduced_redundancy(pool: PoolSpec, own: Redundancy) -> dict[str, Any]:
    """What objects of reduced redundancy bear, where it is not what others do."""
    parity = pool.reduced_parity
    if parity == pool.quorums.parity_shards:
        return {}
    left = [view.losses_left_of(parity) for view in own.sets]
    return {
        "reducedRedundancy": {
            "parity": parity,
            "drives": min((one.drives for one in left), default=0),
            "servers": min((one.servers for one in left), default=0),
            "nodes": min((one.nodes for one in left), default=0),
        }
    }


def _state(formatted: bool, redundancy: Redundancy) -> str:
    """One word for a pool in service: Starting, Active, Degraded, ReadOnly or Unavailable."""
    if redundancy.writable:
        return "Active" if redundancy.whole else "Degraded"
    if not formatted:
        return "Starting"
    return "ReadOnly" if redundancy.readable else "Unavailable"
