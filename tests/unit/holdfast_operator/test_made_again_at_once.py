"""A Tenant is made again (`kubectl replace --force`) while the garbage collector still takes away the former one's."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from holdfast_operator.kube.port import CLAIM, CONFIG_MAP, TENANT


def made_again(world: Any, **spec: Any) -> None:
    """What is to go with the former Tenant is there still."""
    del world.kube.objects[TENANT.kind, "loki", "logs"]
    body = world.body()
    body["spec"].update(spec)
    body["metadata"]["uid"] = "tenant-2"
    world.kube.put(body)


def is_former(value: dict[str, Any]) -> bool:
    return any(owner["uid"] == "tenant-1" for owner in value["metadata"].get("ownerReferences") or [])


def collect(world: Any, *, but: str) -> None:
    """What the collector has got round to."""
    for key in [key for key, value in world.kube.objects.items() if is_former(value) and key[2] != but]:
        world.kube.remove(key)


@pytest.mark.parametrize("last", ["logs-peer", "logs-peer-copy"])
async def test_the_ledger_of_data_that_go_is_not_taken_up(world: Any, last: str) -> None:
    """By it the new, blank volumes would count as formatted, and the Tenant would wait for their data for ever."""
    await world.start(claimRetention="Delete")
    former = world.secret_values("logs-peer")["tenantId"]
    made_again(world, claimRetention="Delete")
    collect(world, but=last)
    for key in [key for key in world.kube.objects if key[0] == CLAIM.kind]:
        del world.kube.objects[key]
    await world.run_pass()
    condition = world.condition("CredentialsReady")
    assert condition["reason"] == "SecretNotOurs"
    assert f"Secret {last} still belongs to Tenant logs (uid tenant-1)" in condition["message"]
    collect(world, but="")
    await world.run_pass()
    served = yaml.safe_load(world.kube.object(CONFIG_MAP, "logs-config")["data"]["config.yaml"])
    assert served["pools"][0]["formatting"] is True
    await world.run_passes()
    assert world.secret_values("logs-peer")["tenantId"] != former
    assert world.condition("Ready")["status"] == "True"


async def test_the_keys_of_its_users_end_with_it(world: Any) -> None:
    await world.start()
    former = world.secret_values("logs-user-loki")["accessKey"]
    made_again(world)
    collect(world, but="logs-user-loki")
    await world.run_passes()
    assert world.condition("UsersReady")["status"] == "False", "its Secret is not ours yet"
    collect(world, but="")
    await world.run_passes()
    now = world.secret_values("logs-user-loki")["accessKey"]
    assert now != former
    assert set(world.store.users) == {now}
    assert world.condition("Ready")["status"] == "True"
