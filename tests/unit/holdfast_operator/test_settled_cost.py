"""What a tenant costs the API server while nothing happens, and where its pods are."""

from __future__ import annotations

from typing import Any

from holdfast_operator.kube.port import POD
from holdfast_operator.reconcile import MOVING_SECONDS, PATIENT_AFTER_PASSES, PATIENT_SECONDS, SETTLED_SECONDS


def count_reads(world: Any) -> list[str]:
    reads: list[str] = []
    world.kube.fail_on = lambda verb, kind, name: reads.append(f"{verb} {kind}") if verb in ("get", "list") else None
    return reads


async def test_a_settled_pass_asks_as_much_for_fifty_users_as_for_one(world: Any) -> None:
    await world.start(users=[{"name": f"user-{number}"} for number in range(50)])
    reads = count_reads(world)
    assert await world.run_pass() == SETTLED_SECONDS
    assert reads.count("get Secret") == 0
    assert len(reads) <= 12, reads


async def test_a_tenant_that_stays_degraded_is_looked_at_less_often_until_something_happens(world: Any) -> None:
    await world.start()
    world.pods.down = {"logs-pool-main-1"}
    world.pods.settle()
    assert await world.run_pass() == MOVING_SECONDS
    await world.run_passes(PATIENT_AFTER_PASSES)
    assert await world.run_pass() <= MOVING_SECONDS + 1
    await world.run_passes(200)
    assert await world.run_pass() == PATIENT_SECONDS
    world.pods.down = {"logs-pool-main-1", "logs-pool-main-2"}
    world.pods.settle()
    assert await world.run_pass() == MOVING_SECONDS


async def test_a_node_with_two_pods_is_lost_with_both(world: Any) -> None:
    await world.start()
    assert world.kube.tenant_status()["pools"][0]["tolerates"] == {"drives": 3, "servers": 1, "nodes": 1}
    for name in world.kube.names(POD):
        world.kube.object(POD, name)["spec"] = {"nodeName": "one" if name[-1] in "01" else name}
    await world.run_pass()
    assert world.kube.tenant_status()["pools"][0]["tolerates"] == {"drives": 3, "servers": 1, "nodes": 0}


async def test_nothing_is_remembered_of_a_tenant_that_is_gone(world: Any) -> None:
    await world.start()
    assert held(world.reconciler)
    world.kube.remove(("Tenant", "loki", "logs"))
    await world.run_pass()
    assert held(world.reconciler) == []


def held(thing: Any, depth: int = 4) -> list[str]:
    """Names of the dicts below an object that hold anything, but for what is bounded by itself."""
    bounded = {"_allowances", "_posted", "_kept"}
    found = []
    for name, value in vars(thing).items():
        if isinstance(value, dict) and value and name not in bounded:
            found.append(name)
        elif depth and type(value).__module__.startswith("holdfast_operator") and name not in ("_ports", "_kube"):
            found += held(value, depth - 1) if hasattr(value, "__dict__") else []
    return found
