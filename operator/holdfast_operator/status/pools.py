"""`status.pools`: each pool's pods, drives and how much loss it bears."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holdfast_operator import labels
from holdfast_operator.ledger import Ledger
from holdfast_operator.observe.pods import PodState
from holdfast_operator.observe.redundancy import FAULTY, HEALING, OFFLINE, OK, Redundancy
from holdfast_operator.tenant.spec import PoolSpec
from holdfast_server.contract import geometry

TROUBLES_NAMED = 8
_PROSPECTS = {
    OFFLINE: "what an offline drive misses is written to it when its pod is back",
    HEALING: "a healing drive is being filled",
    FAULTY: "a faulty drive waits until its folder is emptied, or put right and its pod restarted",
}


def derive_pool(pool: PoolSpec, ledger: Ledger, pods: Sequence[PodState], redundancy: Redundancy) -> dict[str, Any]:
    record = ledger.pool(pool.name)
    own = redundancy.of_pools([] if record is None else [record])
    drives = pool.servers * pool.volumes_per_server
    return {
        "name": pool.name,
        "servers": pool.servers,
        "ready": sum(pod.ready and not pod.deleting for pod in pods if pod.pool == pool.name),
        "state": "Joining"
        if record not in ledger.serving_pools
        else _state(record is not None and record.formatted, own),
        "formatted": bool(record and record.formatted),
        "drives": {
            "total": drives,
            "online": sum(drive.state in (OK, HEALING) for drive in own.drives),
            "healing": sum(drive.state == HEALING for drive in own.drives),
        },
        "erasure": {
            "sets": drives // pool.quorums.set_size,
            "setSize": pool.quorums.set_size,
            "parity": pool.quorums.parity_shards,
        },
        "tolerates": {
            "drives": geometry.tolerated_drives(pool.quorums),
            "servers": pool.tolerated_servers,
        },
    }


def _state(formatted: bool, redundancy: Redundancy) -> str:
    """One word for a pool in service: Starting, Active, Degraded, ReadOnly or Unavailable."""
    if redundancy.writable:
        return "Active" if redundancy.whole else "Degraded"
    if not formatted:
        return "Starting"
    return "ReadOnly" if redundancy.readable else "Unavailable"


def drive_troubles(redundancy: Redundancy, tenant_name: str) -> str:
    """The drives that are not `ok`, those of a pod that fare alike together; empty if all are."""
    alike: dict[tuple[str, int, str, str], list[str]] = {}
    for drive in redundancy.drives:
        if drive.state != OK:
            key = (drive.pool, drive.ordinal, drive.state, drive.message)
            alike.setdefault(key, []).append(f"data{drive.volume}")
    named = [
        f"{labels.pod_name_prefix(tenant_name, pool)}{ordinal}: {', '.join(volumes)} {state}"
        + (f" ({message})" if message else "")
        for (pool, ordinal, state, message), volumes in alike.items()
    ]
    more = [f"and drives of {len(named) - TROUBLES_NAMED} more"] if len(named) > TROUBLES_NAMED else []
    return "; ".join([*named[:TROUBLES_NAMED], *more])


def drive_prospects(redundancy: Redundancy) -> str:
    """What becomes of the drives that are not `ok`, and which of them wait for a person."""
    states = {drive.state for drive in redundancy.drives}
    return "; ".join(sentence for state, sentence in _PROSPECTS.items() if state in states)
