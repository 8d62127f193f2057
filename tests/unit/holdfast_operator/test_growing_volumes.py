"""Volumes grow under running pods: claims first, then the StatefulSet is made again around its pods."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from holdfast_operator.growth import RESIZE_PATIENCE
from holdfast_operator.kube.errors import KubeRejected
from holdfast_operator.kube.port import CLAIM, POD, STATEFUL_SET
from holdfast_operator.observe.claims import read_claims
from holdfast_operator.quantities import parse_quantity

SET = "logs-pool-main"


def pool(storage: str) -> dict[str, Any]:
    return {
        "name": "main",
        "servers": 4,
        "volumesPerServer": 1,
        "volumeClaimTemplate": {"spec": {"resources": {"requests": {"storage": storage}}}},
    }


def make_claims(world: Any, *, owned: bool = False) -> None:
    """What the StatefulSet controller makes beside the pods."""
    stateful_set = world.kube.object(STATEFUL_SET, SET)
    owners = [{"kind": "StatefulSet", "name": SET, "uid": stateful_set["metadata"]["uid"]}] if owned else []
    for ordinal in range(4):
        world.kube.put(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {
                    "name": f"data0-{SET}-{ordinal}",
                    "namespace": "loki",
                    "labels": dict(stateful_set["spec"]["selector"]["matchLabels"]),
                    "ownerReferences": list(owners),
                },
                "spec": {"resources": {"requests": {"storage": "1Gi"}}},
                "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}},
            }
        )


async def started(world: Any, *, owned: bool = False, **changes: Any) -> None:
    await world.start(pools=[pool("1Gi")], **changes)
    make_claims(world, owned=owned)
    world.kube.calls.clear()


def requested(world: Any) -> list[str]:
    return [claim["spec"]["resources"]["requests"]["storage"] for claim in claims(world)]


def claims(world: Any) -> list[dict[str, Any]]:
    return [world.kube.object(CLAIM, name) for name in world.kube.names(CLAIM)]


def mounted(world: Any, storage: str) -> None:
    for claim in claims(world):
        claim["status"] = {"phase": "Bound", "capacity": {"storage": storage}}


def uids(world: Any, kind: Any) -> list[str]:
    return [world.kube.object(kind, name)["metadata"]["uid"] for name in world.kube.names(kind)]


async def test_a_bigger_template_grows_claims_and_then_the_template_around_running_pods(world: Any) -> None:
    await started(world)
    pods, sets = uids(world, POD), uids(world, STATEFUL_SET)
    world.change_spec(pools=[pool("2Gi")])
    await world.run_pass()
    assert requested(world) == ["2Gi"] * 4
    assert uids(world, STATEFUL_SET) == sets
    await world.run_passes()
    assert uids(world, STATEFUL_SET) != sets
    template = world.kube.object(STATEFUL_SET, SET)["spec"]["volumeClaimTemplates"][0]
    assert template["spec"]["resources"]["requests"]["storage"] == "2Gi"
    assert uids(world, POD) == pods, "no pod was replaced"
    assert ("orphan", "StatefulSet", SET) in world.kube.calls
    assert not [call for call in world.kube.calls if call[0] == "delete" or call[1] == "Pod"]


async def test_a_claim_without_a_volume_is_left_alone_until_it_has_one(world: Any) -> None:
    """A real API server refuses to change it, which is no word on whether volumes can grow."""
    await started(world)
    sets = uids(world, STATEFUL_SET)
    claims(world)[3]["status"] = {"phase": "Pending"}
    world.change_spec(pools=[pool("2Gi")])
    await world.run_passes()
    assert requested(world) == ["2Gi"] * 3 + ["1Gi"]
    assert uids(world, STATEFUL_SET) == sets, "the template follows the claims"
    mounted(world, "1Gi")
    await world.run_passes()
    assert requested(world) == ["2Gi"] * 4
    assert uids(world, STATEFUL_SET) != sets


async def test_the_status_says_which_volumes_still_grow_and_then_settles(world: Any) -> None:
    await started(world)
    world.change_spec(pools=[pool("2Gi")])
    await world.run_passes()
    condition = world.condition("Progressing")
    assert (condition["status"], condition["reason"]) == ("True", "VolumesGrowing")
    assert condition["message"] == f"4 volumes are growing; claim data0-{SET}-0"
    mounted(world, "2Gi")
    await world.run_passes()
    assert world.condition("Progressing")["reason"] == "Settled"


async def test_claims_owned_by_the_set_are_let_go_of_before_it_is_deleted(world: Any) -> None:
    await started(world, owned=True, claimRetention="Delete")
    world.change_spec(pools=[pool("2Gi")], claimRetention="Delete")
    sets = uids(world, STATEFUL_SET)
    await world.run_passes()
    assert uids(world, STATEFUL_SET) == sets, "not while a claim would go with it"
    policy = world.kube.object(STATEFUL_SET, SET)["spec"]["persistentVolumeClaimRetentionPolicy"]
    assert policy["whenDeleted"] == "Retain"
    for claim in claims(world):  # the StatefulSet controller's part
        claim["metadata"]["ownerReferences"] = []
    await world.run_passes()
    assert uids(world, STATEFUL_SET) != sets
    assert len(claims(world)) == 4
    policy = world.kube.object(STATEFUL_SET, SET)["spec"]["persistentVolumeClaimRetentionPolicy"]
    assert policy["whenDeleted"] == "Delete"


async def test_a_class_that_cannot_grow_is_told_and_other_changes_still_roll(world: Any) -> None:
    await started(world)
    refusal = KubeRejected("only dynamically provisioned pvc can be resized")
    world.kube.fail_on = lambda verb, kind, name: refusal if (verb, kind) == ("merge", CLAIM.kind) else None
    sets = uids(world, STATEFUL_SET)
    world.change_spec(pools=[pool("2Gi")], image="holdfast:new")
    await world.run_passes()
    assert uids(world, STATEFUL_SET) == sets
    condition = world.condition("Progressing")
    assert condition["status"] == "True", "an upgrade is waited for by this condition"
    assert condition["reason"] in ("Rolling", "RollWaiting")
    assert "dynamically provisioned" in condition["message"]
    await world.run_passes(12)
    condition = world.condition("Progressing")
    assert (condition["status"], condition["reason"]) == ("False", "VolumesCannotGrow")
    assert "dynamically provisioned" in condition["message"]
    assert world.condition("Ready")["status"] == "True"
    container = world.kube.object(STATEFUL_SET, SET)["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "holdfast:new"


def volume_size(world: Any) -> str | None:
    size: str | None = world.kube.tenant_status()["pools"][0].get("volumeSize")
    return size


def refuse_growth(world: Any, name: str = "") -> None:
    """As a storage class without `allowVolumeExpansion`; `name`: of that claim alone."""
    refusal = KubeRejected("only dynamically provisioned pvc can be resized")
    world.kube.fail_on = lambda verb, kind, found: (
        refusal if (verb, kind) == ("merge", CLAIM.kind) and name in ("", found) else None
    )


def template_size(world: Any) -> str:
    template = world.kube.object(STATEFUL_SET, SET)["spec"]["volumeClaimTemplates"][0]
    return str(template["spec"]["resources"]["requests"]["storage"])


async def test_a_size_that_was_refused_is_taken_back_and_forgotten(world: Any) -> None:
    """1000Gi in place of 100Gi, where the class cannot grow."""
    await started(world)
    await world.run_pass()
    assert volume_size(world) == "1Gi"
    refuse_growth(world)
    world.change_spec(pools=[pool("10Gi")])
    await world.run_passes()
    told = world.condition("Progressing")
    assert told["reason"] == "VolumesCannotGrow"
    assert "`storage` may go back to 1Gi in pool main" in told["message"]
    assert volume_size(world) == "1Gi"
    pods, sets = uids(world, POD), uids(world, STATEFUL_SET)
    world.change_spec(pools=[pool("1Gi")])
    world.kube.calls.clear()
    await world.run_passes()
    assert world.condition("Progressing")["reason"] == "Settled"
    assert (requested(world), uids(world, POD), uids(world, STATEFUL_SET)) == (["1Gi"] * 4, pods, sets)
    assert {call[:2] for call in world.kube.calls} <= {("status", "Tenant"), ("apply", "Secret"), ("apply", "Event")}


async def test_a_set_made_with_the_wrong_size_is_made_again_once_that_is_taken_back(world: Any) -> None:
    """Somebody deleted it meanwhile: a volume that is replaced would ask for what the class does not have."""
    await started(world)
    refuse_growth(world)
    world.change_spec(pools=[pool("10Gi")])
    await world.run_passes()
    await world.kube.delete(world.kube.object(STATEFUL_SET, SET), orphan=True)
    await world.run_passes()
    assert template_size(world) == "10Gi"
    pods = uids(world, POD)
    world.change_spec(pools=[pool("1Gi")])
    await world.run_passes()
    assert template_size(world) == "1Gi"
    assert uids(world, POD) == pods
    world.kube.calls.clear()
    await world.run_passes()
    assert world.kube.calls == [], "once"


async def test_the_size_that_can_be_taken_back_to_is_that_of_the_largest_volume(world: Any) -> None:
    await started(world)
    refuse_growth(world, f"data0-{SET}-2")
    world.change_spec(pools=[pool("10Gi")])
    await world.run_passes(2)
    assert requested(world) == ["10Gi", "10Gi", "1Gi", "1Gi"], "a refusal ends the steps of a pass"
    await world.run_pass()
    assert volume_size(world) == "1Gi", "asked for and not there: a quota of the store behind it may say no for ever"
    claims(world)[1]["status"]["capacity"] = {"storage": "4Gi"}
    await world.run_pass()
    assert volume_size(world) == "4Gi"
    claims(world)[0]["status"]["capacity"] = {"storage": "16Gi"}
    await world.run_pass()
    assert volume_size(world) == "10Gi", "a volume larger than its claim asks for gives nothing away"


async def test_claims_that_took_a_size_which_is_taken_back_are_left_alone(world: Any) -> None:
    await started(world)
    world.change_spec(pools=[pool("10Gi")])
    await world.run_passes()
    assert (requested(world), template_size(world)) == (["10Gi"] * 4, "10Gi")
    pods = uids(world, POD)
    world.change_spec(pools=[pool("1Gi")])
    await world.run_passes()
    assert requested(world) == ["10Gi"] * 4
    assert template_size(world) == "1Gi", "a volume that is replaced is one that can be had"
    assert uids(world, POD) == pods
    told = world.condition("Progressing")
    assert (told["reason"], told["message"]) == (
        "VolumesGrowing",
        f"4 volumes are growing; claim data0-{SET}-0; 4 claims ask for more than `storage` says, and will: where a "
        "volume cannot grow, lower its claim with `kubectl edit pvc`, to more than the volume has",
    )
    for claim in claims(world)[1:]:
        claim["spec"]["resources"]["requests"]["storage"] = claim["status"]["capacity"]["storage"] = "1.1Gi"
    await world.run_pass()
    told = world.condition("Progressing")["message"]
    assert told.startswith(f"1 volume is growing; claim data0-{SET}-0; 1 claim asks for more than")


async def test_no_size_is_told_of_a_pool_without_claims(world: Any) -> None:
    await world.start(pools=[pool("1Gi")])
    assert volume_size(world) is None


async def test_an_operator_that_dies_after_the_deletion_makes_the_set_again(world: Any) -> None:
    await started(world)
    await world.kube.delete(world.kube.object(STATEFUL_SET, SET), orphan=True)
    for claim in claims(world):
        claim["spec"]["resources"]["requests"]["storage"] = "2Gi"
    mounted(world, "2Gi")
    pods = uids(world, POD)
    world.change_spec(pools=[pool("2Gi")])
    world.restart_operator()
    await world.run_passes()
    assert world.kube.names(STATEFUL_SET) == [SET]
    assert uids(world, POD) == pods
    assert world.condition("Ready")["status"] == "True"


async def test_larger_claims_than_asked_for_are_left_alone(world: Any) -> None:
    await started(world)
    for claim in claims(world):
        claim["spec"]["resources"]["requests"]["storage"] = "8Gi"
    mounted(world, "8Gi")
    await world.run_passes()
    assert requested(world) == ["8Gi"] * 4
    assert world.kube.calls == [("status", "Tenant", "logs")], "they are told"


async def test_a_file_system_that_waits_for_a_mount_has_its_pod_replaced_one_at_a_time(world: Any) -> None:
    await started(world)
    world.change_spec(pools=[pool("2Gi")])
    await world.run_passes()
    since = (datetime(2026, 11, 20, tzinfo=UTC) - RESIZE_PATIENCE).strftime("%Y-%m-%dT%H:%M:%SZ")
    for claim in claims(world):
        claim["status"]["conditions"] = [
            {"type": "FileSystemResizePending", "status": "True", "lastTransitionTime": since}
        ]
    world.kube.calls.clear()
    await world.run_pass()
    assert [call for call in world.kube.calls if call[0] == "evict"] == [("evict", "Pod", f"{SET}-0")]
    world.kube.object(CLAIM, f"data0-{SET}-0")["status"] = {"capacity": {"storage": "2Gi"}}
    await world.run_passes(1)
    evicted = [call[2] for call in world.kube.calls if call[0] == "evict"]
    assert evicted == [f"{SET}-0", f"{SET}-1"]


async def test_a_mounted_volume_first_gets_time_to_grow_in_place(world: Any) -> None:
    await started(world)
    world.change_spec(pools=[pool("2Gi")])
    await world.run_passes()
    since = (datetime(2026, 11, 20, tzinfo=UTC) + timedelta(seconds=world.seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
    for claim in claims(world):
        claim["status"]["conditions"] = [
            {"type": "FileSystemResizePending", "status": "True", "lastTransitionTime": since, "message": "waiting"}
        ]
    world.kube.calls.clear()
    await world.run_passes()
    assert not [call for call in world.kube.calls if call[0] == "evict"]
    assert "waiting" in world.condition("Progressing")["message"]


def test_claims_are_read_by_name_and_label() -> None:
    def claim(name: str, tenant_pool: str = "main", storage: Any = "1Gi") -> dict[str, Any]:
        labels = {"holdfast.dev/pool": tenant_pool}
        spec = {"resources": {"requests": {"storage": storage}}}
        return {"metadata": {"name": name, "labels": labels}, "spec": spec}

    found = read_claims(
        [claim("data1-logs-pool-main-3"), claim("other"), claim("data0-logs-pool-main-x"), claim("a", storage="much")],
        "logs",
    )
    assert [(state.name, state.pool, state.ordinal) for state in found] == [("data1-logs-pool-main-3", "main", 3)]


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("1", 1), ("1.5Gi", 1610612736), ("2k", 2000), ("2Ki", 2048), ("3T", 3 * 10**12), ("1e3", 1000), ("1500m", 1.5)],
)
def test_quantities(text: str, size_bytes: float) -> None:
    assert parse_quantity(text) == size_bytes


@pytest.mark.parametrize("text", ["", "1g", "1Gim", "1e", "Gi", "1 Gi", "٣Gi"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a size"):
        parse_quantity(text)


async def test_a_size_that_is_no_whole_number_of_bytes_is_known_again_in_the_form_the_api_server_gives_it(
    world: Any,
) -> None:
    """It shows 3.6Ti as so many thousandths of a byte."""
    await world.start(pools=[pool("3.6Ti")])
    make_claims(world)
    stateful_set = world.kube.object(STATEFUL_SET, SET)
    shown = {"storage": "3958241859993600m"}
    for holder in (stateful_set["spec"]["volumeClaimTemplates"][0], *claims(world)):
        holder["spec"]["resources"]["requests"] = dict(shown)
    mounted(world, "3958241859994")
    sets = uids(world, STATEFUL_SET)
    await world.run_passes()
    assert world.condition("Ready")["status"] == "True"
    assert uids(world, STATEFUL_SET) == sets
    world.change_spec(pools=[pool("3.7Ti")])
    await world.run_passes()
    assert requested(world) == ["3.7Ti"] * 4
    assert uids(world, STATEFUL_SET) != sets


async def test_a_pod_whose_claim_was_deleted_is_not_replaced(world: Any) -> None:
    """The claim hangs on its pod: a `kubectl delete pvc` that was given up with Ctrl-C, and an upgrade weeks later."""
    await started(world)
    claim = world.kube.object(CLAIM, f"data0-{SET}-1")
    claim["metadata"]["deletionTimestamp"] = "2026-11-01T00:00:00Z"
    await world.run_pass()
    degraded = world.condition("Degraded")
    assert (degraded["status"], degraded["reason"]) == ("True", "ClaimsDeleted")
    assert f"data0-{SET}-1" in degraded["message"]
    assert world.condition("Ready")["status"] == "True"
    world.change_spec(pools=[pool("1Gi")], image="holdfast:new")
    await world.run_passes(12)
    assert [call[2] for call in world.kube.calls if call[0] == "evict"] == [f"{SET}-{n}" for n in (0, 2, 3)]
    told = world.condition("Progressing")
    assert (told["status"], told["reason"]) == ("False", "RollBlocked")
    assert f"kubectl delete pod {SET}-1" in told["message"]
    world.pods.down = {f"{SET}-1"}
    world.pods.settle()
    await world.run_passes(2)
    assert world.condition("Progressing")["reason"] == "RollBlocked", "nor one that is down"
    assert not [call for call in world.kube.calls if call[:2] == ("delete", "Pod")]
    del claim["metadata"]["deletionTimestamp"]  # another claim, in effect
    await world.run_passes(2)
    assert [call for call in world.kube.calls if call[:2] == ("delete", "Pod")] == [("delete", "Pod", f"{SET}-1")]
