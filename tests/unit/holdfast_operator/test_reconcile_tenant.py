"""Whole passes over a cluster in memory: what a user would see."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import msgspec
import pytest
import yaml

from holdfast_operator.desired.secrets import LEDGER_KEY
from holdfast_operator.kube.errors import KubeForbidden, KubeRejected, KubeUnavailable, NamespaceEnding, WebhookAway
from holdfast_operator.kube.port import (
    CLAIM,
    CONFIG_MAP,
    DISRUPTION_BUDGET,
    POD,
    SECRET,
    SERVICE,
    SERVICE_ACCOUNT,
    STATEFUL_SET,
    TENANT,
    Kind,
)
from holdfast_operator.labels import INSTANCE_LABEL
from holdfast_operator.ledger import decode_ledger
from holdfast_operator.provisioner import REPEAT_SECONDS, VERIFY_SECONDS
from holdfast_operator.reconcile import MOVING_SECONDS, SETTLED_SECONDS, SILENCE_SECONDS, Reconciler, TenantKey


def served_config(world: Any) -> dict[str, Any]:
    return dict(yaml.safe_load(world.kube.object(CONFIG_MAP, "logs-config")["data"]["config.yaml"]))


def add_pool(body: dict[str, Any], name: str) -> list[dict[str, Any]]:
    first = body["spec"]["pools"][0]
    return [first, {**first, "name": name}]


async def test_a_tenant_becomes_ready_with_everything_it_declares(world: Any) -> None:
    await world.start()
    assert world.kube.names(SERVICE) == ["logs", "logs-console", "logs-pods"]
    assert world.kube.names(STATEFUL_SET) == ["logs-pool-main"]
    assert world.kube.names(SECRET) == [
        "logs-accepted-spec",
        "logs-peer",
        "logs-peer-copy",
        "logs-root",
        "logs-user-loki",
    ]
    assert world.kube.names(SERVICE_ACCOUNT) == world.kube.names(DISRUPTION_BUDGET) == ["logs"]
    status = world.kube.tenant_status()
    values = {condition["type"]: condition["status"] for condition in status["conditions"]}
    assert values == {
        "Ready": "True",
        "Progressing": "False",
        "Degraded": "False",
        "SpecValid": "True",
        "CredentialsReady": "True",
        "PoolsReady": "True",
        "BucketsReady": "True",
        "UsersReady": "True",
        "TLSReady": "True",
    }
    assert status["health"] == "Healthy"
    assert status["capacity"] == {"raw": "80Gi", "usable": "40Gi", "used": "8Gi"}
    assert status["endpoint"] == "http://logs.loki.svc.cluster.local:9000"
    assert status["users"] == [{"name": "loki", "state": "Ready", "secret": "logs-user-loki"}]
    assert status["pools"][0]["tolerates"] == {"drives": 3, "servers": 1, "nodes": 1}
    assert world.store.buckets == {"loki-chunks": 0, "loki-ruler": 0}
    (user,) = world.store.users.items()
    keys = world.secret_values("logs-user-loki")
    assert user[0] == keys["accessKey"] == keys["AWS_ACCESS_KEY_ID"]
    assert user[1].secret_key == keys["secretKey"]
    assert user[1].policies == ["tenant-user-loki"]
    assert keys["AWS_ENDPOINT_URL_S3"] == "http://logs.loki.svc.cluster.local:9000"


async def test_buckets_wait_for_the_write_quorum(world: Any) -> None:
    world.kube.put(_body())
    world.pods.down = {"logs-pool-main-1", "logs-pool-main-2"}
    await world.run_passes()
    assert world.store.calls == []
    assert world.condition("BucketsReady")["message"].startswith("loki-chunks: waiting for the write quorum")
    assert world.condition("Ready")["status"] == "False"


def _body() -> dict[str, Any]:
    return {
        "apiVersion": "holdfast.dev/v1",
        "kind": "Tenant",
        "metadata": {"name": "logs", "namespace": "loki", "generation": 1},
        "spec": {
            "pools": [
                {
                    "name": "main",
                    "servers": 4,
                    "volumesPerServer": 1,
                    "volumeClaimTemplate": {"spec": {"resources": {"requests": {"storage": "1Gi"}}}},
                }
            ],
            "buckets": [{"name": "loki-chunks"}],
        },
    }


async def test_a_tenant_at_rest_costs_no_writes(world: Any) -> None:
    await world.start()
    world.kube.calls.clear()
    world.store.calls.clear()
    assert await world.run_pass() == SETTLED_SECONDS
    assert world.kube.calls == []
    assert world.store.calls == []


async def test_formatting_is_permitted_until_all_drives_were_whole_once_and_never_again(world: Any) -> None:
    world.kube.put(_body())
    world.pods.down = {"logs-pool-main-3"}
    await world.run_passes()
    assert served_config(world)["pools"][0]["formatting"] is True
    world.pods.down = set()
    await world.run_passes()
    assert served_config(world)["pools"][0]["formatting"] is False
    world.pods.drive_states["logs", "logs-pool-main-0", 0] = "blank"
    await world.run_passes()
    assert served_config(world)["pools"][0]["formatting"] is False


async def test_a_tenant_made_again_takes_up_keys_id_and_formatting(world: Any) -> None:
    await world.start()
    root, peer = world.secret_values("logs-root"), world.secret_values("logs-peer")
    old_user = world.secret_values("logs-user-loki")["accessKey"]
    world.kube.remove(("Tenant", "loki", "logs"))
    assert world.kube.names(SECRET) == ["logs-peer", "logs-peer-copy", "logs-root"]
    assert world.kube.names(STATEFUL_SET) == []
    assert await world.run_pass() is None
    body = _body()
    body["spec"]["pools"][0]["volumesPerServer"] = 2
    body["spec"]["users"] = [{"name": "loki", "policies": ["readwrite"]}]
    world.kube.put(body)
    await world.run_pass()
    assert served_config(world)["pools"][0]["formatting"] is False
    assert world.secret_values("logs-root") == root
    assert world.secret_values("logs-peer")["peerKey"] == peer["peerKey"]
    assert served_config(world)["tenant"]["id"] == peer["tenantId"]
    await world.run_passes()
    assert world.condition("Ready")["status"] == "True"
    assert old_user not in world.store.users, "the keys of the earlier life must not open the store any more"


@pytest.mark.parametrize("claims_left", [False, True])
async def test_a_tenant_that_never_came_up_may_be_declared_anew_with_other_pools(world: Any, claims_left: bool) -> None:
    """Its number of servers was mistyped, say."""
    mistyped = _body()["spec"]["pools"]
    mistyped[0]["servers"] = 44
    world.pods.down = {"logs-pool-main-40"}
    await world.start(pools=mistyped)
    assert served_config(world)["pools"][0]["formatting"] is True
    world.kube.remove(("Tenant", "loki", "logs"))
    world.pods.down = set()
    if claims_left:
        labels = {"holdfast.dev/tenant": "logs", "holdfast.dev/pool": "main", "app.kubernetes.io/component": "storage"}
        metadata = {"name": "data0-logs-pool-main-0", "namespace": "loki", "labels": labels}
        world.kube.put({"apiVersion": "v1", "kind": CLAIM.kind, "metadata": metadata, "spec": {}})
    world.kube.put(_body())
    await world.run_passes()
    if claims_left:
        told = world.condition("SpecValid")["message"]
        assert "spec.pools[0].servers: is 4, but the pool's drives were laid out with 44" in told
    else:
        assert world.condition("Ready")["status"] == "True"
        assert [pool["servers"] for pool in served_config(world)["pools"]] == [4]


async def test_other_geometry_on_kept_claims_is_refused(world: Any) -> None:
    await world.start()
    world.kube.remove(("Tenant", "loki", "logs"))
    world.kube.put(_body())
    await world.run_passes()
    condition = world.condition("SpecValid")
    assert condition["status"] == "False"
    assert "spec.pools[0].volumesPerServer: is 1, but the pool's drives were laid out with 2" in condition["message"]
    assert world.kube.names(STATEFUL_SET) == []


async def test_nothing_that_outlives_the_tenant_looks_like_a_part_of_an_application(world: Any) -> None:
    """Argo CD takes what has the label of an application's name and no owner for its own, and deletes what manifests
    do not have: with an application `logs`, all keys of the Tenant `logs` at once."""
    await world.start(tls={"mode": "SelfSigned"}, encryption={})
    kept = {"logs-ca", "logs-encryption", "logs-peer", "logs-peer-copy", "logs-root"}

    def exposed() -> set[str]:
        found = set()
        for (kind, _, name), manifest in world.kube.objects.items():
            metadata = manifest["metadata"]
            if kind == "Secret" and not metadata.get("ownerReferences"):
                assert name in kept
                found |= {name} if INSTANCE_LABEL in metadata["labels"] else set()
        return found

    assert exposed() == set()
    for name in kept:
        world.kube.object(SECRET, name)["metadata"]["labels"][INSTANCE_LABEL] = "logs"
    await world.run_pass()
    assert exposed() == set(), "nor those that an earlier operator has made"
    world.kube.calls.clear()
    await world.run_passes()
    assert world.kube.calls == []
    world.change_spec(tls={"mode": "SelfSigned"}, encryption={}, claimRetention="Delete")
    await world.run_passes()
    world.change_spec(tls={"mode": "SelfSigned"}, encryption={})
    await world.run_passes()
    assert exposed() == set()


async def test_with_claims_that_go_the_secrets_go_too(world: Any) -> None:
    await world.start(claimRetention="Delete")
    policy = world.kube.object(STATEFUL_SET, "logs-pool-main")["spec"]["persistentVolumeClaimRetentionPolicy"]
    assert policy == {"whenDeleted": "Delete", "whenScaled": "Retain"}
    world.kube.remove(("Tenant", "loki", "logs"))
    assert world.kube.names(SECRET) == []


async def test_the_parity_of_reduced_redundancy_reaches_the_pods_and_the_status_and_may_change(world: Any) -> None:
    await world.start()
    assert served_config(world)["pools"][0]["erasure"] == {"setSize": 8, "parity": 4}
    told = world.kube.tenant_status()["pools"][0]["reducedRedundancy"]
    assert told == {"parity": 2, "drives": 2, "servers": 1, "nodes": 1}
    pools = world.body()["spec"]["pools"]
    world.change_spec(pools=[{**pools[0], "erasure": {"reducedRedundancyParity": 3}}])
    await world.run_pass()
    assert served_config(world)["pools"][0]["erasure"]["reducedRedundancyParity"] == 3
    assert world.kube.tenant_status()["pools"][0]["reducedRedundancy"]["parity"] == 3


async def test_the_loss_of_a_pod_degrades_and_does_not_end_readiness(world: Any) -> None:
    await world.start()
    world.pods.down = {"logs-pool-main-2"}
    world.pods.settle()
    assert await world.run_pass() == MOVING_SECONDS
    assert world.condition("Ready")["status"] == "True"
    assert world.condition("Degraded")["status"] == "True"
    message = world.condition("Degraded")["message"]
    assert message.startswith("2 of 8 drives are offline; reads and writes go on, also with 1 more drive of a set lost")
    assert "logs-pool-main-2: data0, data1 offline" in message
    assert world.kube.tenant_status()["pools"][0]["tolerates"] == {"drives": 1, "servers": 0, "nodes": 0}
    assert "written to it when its pod is back" in message
    assert "3 of 4 pods are ready; waiting for logs-pool-main-2" in world.condition("Progressing")["message"]
    assert world.kube.tenant_status()["health"] == "Degraded"
    assert world.kube.tenant_status()["pools"][0]["ready"] == 3
    budget = world.kube.object(DISRUPTION_BUDGET, "logs")["spec"]
    assert budget["maxUnavailable"] == 0
    world.pods.down = set()
    world.pods.settle()
    await world.run_pass()
    assert world.condition("Degraded")["status"] == "False"
    assert world.kube.object(DISRUPTION_BUDGET, "logs")["spec"]["maxUnavailable"] == 1


async def test_what_hinders_several_pods_alike_is_told_once(world: Any) -> None:
    """The causes are long, and a condition is cut at 2048 characters: other causes would not be seen."""
    await world.start()
    pods = ["logs-pool-main-0", "logs-pool-main-1", "logs-pool-main-2"]
    world.pods.down = set(pods)
    world.pods.settle()
    cannot = "failed to pull and unpack image: no such host"
    for name, message in zip(pods, (cannot, "too many requests", cannot), strict=True):
        waiting = {"reason": "ErrImagePull", "message": f"rpc error: ErrImagePull: {message}"}
        pod = world.kube.object(POD, name)
        pod["status"]["containerStatuses"] = [{"image": "holdfast:x", "state": {"waiting": waiting}}]
        pod["spec"] = {"nodeName": f"node-{name[-1]}"}
    await world.run_pass()
    for condition in ("Progressing", "PoolsReady"):
        told = world.condition(condition)["message"]
        assert told.count(cannot) == 1
        assert "too many requests; on node node-1" in told
        assert "as logs-pool-main-0; on node node-2" in told


async def test_what_differs_by_nothing_but_the_pods_name_is_told_once(world: Any) -> None:
    """A mistyped storage class: each pod has claims of its own that wait."""
    await world.start()
    pods = [f"logs-pool-main-{ordinal}" for ordinal in range(4)]
    world.pods.down = set(pods)
    world.pods.settle()
    scheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "unbound claims: pvc"}
    for name in pods:
        pod = world.kube.object(POD, name)
        pod["status"]["conditions"], pod["spec"] = [scheduled], {}
        labels = {"holdfast.dev/tenant": "logs", "holdfast.dev/pool": "main", "app.kubernetes.io/component": "storage"}
        metadata = {"name": f"data0-{name}", "namespace": "loki", "labels": labels}
        spec = {"resources": {"requests": {"storage": "1Gi"}}, "storageClassName": "fasst"}
        status = {"phase": "Pending"}
        world.kube.put({"apiVersion": "v1", "kind": CLAIM.kind, "metadata": metadata, "spec": spec, "status": status})
    await world.run_pass()
    for condition in ("Progressing", "PoolsReady"):
        told = world.condition(condition)["message"]
        assert told.count("claim data0-logs-pool-main-0 of storage class fasst is not bound") == 1
        assert told.count("fasst") == 1
        assert told.count("as logs-pool-main-0") == 3


async def test_of_a_pod_that_is_not_ready_its_drives_are_not_told_as_well(world: Any) -> None:
    await world.start()
    world.pods.down = {"logs-pool-main-0", "logs-pool-main-1"}
    world.pods.settle()
    for name in world.pods.down:
        world.kube.object(POD, name)["spec"] = {"nodeName": f"node-{name[-1]}"}
    await world.run_pass()
    told = world.condition("PoolsReady")["message"]
    assert told == (
        "reads are served, writes are refused until more drives are back; "
        "logs-pool-main-0: not ready yet, on node node-0; logs-pool-main-1: not ready yet, on node node-1"
    )


async def test_lost_quorum_ends_readiness_and_keeps_the_buckets_as_they_are_known(world: Any) -> None:
    await world.start()
    world.pods.down = {"logs-pool-main-0", "logs-pool-main-1"}
    world.pods.settle()
    await world.run_pass()
    assert world.kube.tenant_status()["health"] == "ReadOnly"
    assert world.condition("Ready")["reason"] == "ReadOnly"
    assert world.condition("BucketsReady")["status"] == "True"
    world.pods.down |= {"logs-pool-main-2"}
    world.pods.settle()
    await world.run_pass()
    assert world.kube.tenant_status()["health"] == "Unavailable"


async def test_a_hiccup_between_operator_and_pods_is_no_outage_and_a_long_silence_is(world: Any) -> None:
    await world.start()
    world.pods.silent = True
    await world.run_passes(5)
    assert world.condition("Ready")["status"] == "True"
    assert world.condition("Progressing")["reason"] == "PodsSilent"
    world.pods.silent = False
    await world.run_pass()
    assert world.condition("Progressing")["reason"] == "Settled"
    world.pods.silent = True
    await world.run_passes(int(SILENCE_SECONDS) + 2)
    assert world.condition("Ready")["reason"] == "NoPodAnswers"
    assert "4 pods are ready, and serve clients perhaps" in world.condition("Ready")["message"]


async def test_all_pods_down_is_told_at_once(world: Any) -> None:
    await world.start()
    world.pods.down = {f"logs-pool-main-{ordinal}" for ordinal in range(4)}
    world.pods.settle()
    await world.run_pass()
    assert world.condition("Ready")["reason"] == "NoPodAnswers"
    assert world.kube.tenant_status()["health"] == "Unavailable"


async def test_ready_waits_for_a_pod_that_the_service_leads_to(world: Any) -> None:
    # A kubelet probes every few seconds: the operator hears of a pod that serves before the Service does.
    world.pods.unready = {f"logs-pool-main-{ordinal}": "2026-07-01T08:00:00Z" for ordinal in range(4)}
    await world.start()
    assert world.condition("Ready")["reason"] == "NoPodReady"
    assert "the Service leads to none of them" in world.condition("PoolsReady")["message"]
    assert world.kube.tenant_status()["health"] == "Starting"
    world.pods.unready = {}
    world.pods.settle()
    await world.run_pass()
    assert world.condition("Ready")["status"] == "True"
    assert world.kube.tenant_status()["health"] == "Healthy"
    # One is enough.
    world.pods.unready = {f"logs-pool-main-{ordinal}": "2026-07-01T08:00:00Z" for ordinal in range(3)}
    world.pods.settle()
    await world.run_pass()
    assert world.condition("Ready")["status"] == "True"


async def test_transition_times_move_only_with_the_status(world: Any) -> None:
    await world.start()
    before = world.condition("PoolsReady")["lastTransitionTime"]
    world.pods.down = {"logs-pool-main-0"}
    world.pods.settle()
    await world.run_pass()
    assert world.condition("PoolsReady")["lastTransitionTime"] == before
    assert world.condition("Degraded")["lastTransitionTime"] > before


async def test_every_fault_of_a_bad_spec_is_a_condition_and_nothing_is_touched(world: Any) -> None:
    await world.start()
    world.kube.calls.clear()
    world.change_spec(region="Nowhere!", buckets=[{"name": "x"}])
    await world.run_passes(2)
    condition = world.condition("SpecValid")
    assert "spec.region" in condition["message"]
    assert "spec.buckets[0].name" in condition["message"]
    assert world.condition("Ready")["status"] == "False"
    assert world.kube.tenant_status()["observedGeneration"] == 2
    assert world.kube.tenant_status()["pools"][0]["ready"] == 4
    assert {call[:2] for call in world.kube.calls} <= {("status", "Tenant"), ("apply", "Event")}
    world.change_spec()
    await world.run_passes(2)
    assert world.condition("Ready")["status"] == "True"


async def test_an_object_of_somebody_else_is_left_alone(world: Any) -> None:
    foreign = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "logs", "namespace": "loki"}, "spec": {}}
    world.kube.put(foreign)
    world.kube.put(_body())
    await world.run_passes(2)
    assert world.kube.object(SERVICE, "logs")["spec"] == {}
    assert world.kube.names(STATEFUL_SET) == []
    assert world.condition("PoolsReady")["reason"] == "NameTaken"
    assert "Service logs" in world.condition("Ready")["message"]


@pytest.mark.parametrize("kind", [SERVICE, CONFIG_MAP, STATEFUL_SET, DISRUPTION_BUDGET])
async def test_labels_that_somebody_has_taken_off_come_back(world: Any, kind: Kind) -> None:
    await world.start()
    for name in world.kube.names(kind):
        own = world.kube.object(kind, name)
        wanted = dict(own["metadata"]["labels"])
        own["metadata"]["labels"] = {}
        await world.run_passes(2)
        assert world.kube.object(kind, name)["metadata"]["labels"] == wanted
        assert world.condition("Ready")["status"] == "True"


async def test_two_tenants_whose_names_collide_do_not_share_objects(world: Any) -> None:
    await world.start()
    body = _body()
    body["metadata"]["name"] = "logs-pods"
    world.kube.put(body)
    await world.run_pass("logs-pods")
    assert world.condition("PoolsReady", "logs-pods")["reason"] == "NameTaken"
    assert world.kube.object(SERVICE, "logs-pods")["spec"]["clusterIP"] == "None"


async def test_a_secret_that_is_not_ours_is_never_adopted(world: Any) -> None:
    metadata = {"name": "logs-root", "namespace": "loki"}
    world.kube.put({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": {}})
    world.kube.put(_body())
    await world.run_passes(2)
    assert world.condition("CredentialsReady")["reason"] == "SecretNotOurs"
    assert world.kube.object(SECRET, "logs-root")["data"] == {}


async def test_a_secret_that_was_replaced_without_its_labels_says_how_to_have_it_back(world: Any) -> None:
    """As `kubectl create secret --dry-run=client -o yaml | kubectl replace -f -` leaves it."""
    await world.start()
    own = world.kube.object(SECRET, "logs-root")
    wanted = dict(own["metadata"]["labels"])
    own["metadata"]["labels"] = {}
    own["data"] = {"accessKey": "YWRtaW4=", "secretKey": "c3VwZXJzZWNyZXQ="}
    await world.run_passes(2)
    told = world.condition("CredentialsReady")
    assert told["reason"] == "SecretNotOurs"
    words = told["message"].partition("`")[2].partition("`")[0].split()
    assert words[:5] == ["kubectl", "label", "--overwrite", "secret", "logs-root"]
    own["metadata"]["labels"] = dict(label.split("=") for label in words[5:])
    assert own["metadata"]["labels"].items() <= wanted.items()
    await world.run_passes()
    assert world.condition("CredentialsReady")["reason"] == "KeysChanging"
    assert world.secret_values("logs-root")["accessKey"] == "admin"


async def test_given_root_credentials_are_used_and_none_are_made(world: Any) -> None:
    world.kube.put(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "mine", "namespace": "loki"},
            "data": {"accessKey": "YWRtaW4=", "secretKey": "c3VwZXJzZWNyZXQ="},
        }
    )
    await world.start(rootCredentials={"secretRef": {"name": "mine"}})
    assert "logs-root" not in world.kube.names(SECRET)
    assert world.secret_values("logs-peer")["accessKey"] == "admin", "which is what the pods read"
    assert world.secret_values("logs-peer")["secretKey"] == "supersecret"
    assert world.condition("Ready")["status"] == "True"


async def test_a_missing_secret_is_named(world: Any) -> None:
    await world.start(users=[{"name": "loki", "secretRef": {"name": "absent"}}])
    assert world.condition("CredentialsReady")["message"].startswith("Secret absent does not exist, which a secretRef")


async def test_a_secret_with_keys_of_other_names_says_which_it_lacks(world: Any) -> None:
    data = {"access_key": "YWRtaW4=", "secretKey": "c3VwZXJzZWNyZXQ="}
    metadata = {"name": "mine", "namespace": "loki"}
    world.kube.put({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})
    await world.start(users=[{"name": "loki", "secretRef": {"name": "mine"}}])
    told = world.condition("CredentialsReady")
    assert (told["reason"], told["message"]) == ("SecretIncomplete", "Secret mine lacks accessKey")


async def test_a_ledger_that_cannot_be_read_stops_everything(world: Any) -> None:
    await world.start()
    for name in ("logs-peer", "logs-peer-copy"):
        world.kube.object(SECRET, name)["data"][LEDGER_KEY] = "bm90IGpzb24="
    world.kube.calls.clear()
    await world.run_pass()
    assert world.condition("CredentialsReady")["reason"] == "LedgerUnreadable"
    assert {call[:2] for call in world.kube.calls} == {("status", "Tenant"), ("apply", "Event")}


async def test_a_new_image_rolls_one_pod_at_a_time(world: Any) -> None:
    await world.start()
    world.change_spec(image="holdfast:new")
    await world.run_pass()  # applies; the revision is new after it
    for ordinal in range(4):
        world.kube.calls.clear()
        await world.run_pass()
        assert [call for call in world.kube.calls if call[0] in ("evict", "delete")] == [
            ("evict", "Pod", f"logs-pool-main-{ordinal}")
        ]
        assert world.condition("Progressing")["reason"] == "Rolling"
    await world.run_pass()
    assert world.condition("Progressing")["status"] == "False"


async def test_pods_are_rolled_where_a_webhook_changes_what_is_applied(world: Any) -> None:
    """As those do that put a registry of their own into every image: the difference stays, however often it is sent."""

    def mirrored(manifest: dict[str, Any]) -> None:
        if manifest["kind"] == "StatefulSet":
            for container in manifest["spec"]["template"]["spec"]["containers"]:
                container["image"] = "mirror/" + container["image"].removeprefix("mirror/")

    world.kube.admission = mirrored
    await world.start()
    assert world.condition("Progressing")["reason"] == "Settled"
    world.change_spec(image="holdfast:new")
    await world.run_passes(7)
    evicted = [name for verb, kind, name in world.kube.calls if (verb, kind) == ("evict", "Pod")]
    assert evicted == [f"logs-pool-main-{ordinal}" for ordinal in range(4)]
    assert world.condition("Progressing")["reason"] == "Settled"


async def test_no_roll_while_redundancy_is_reduced(world: Any) -> None:
    await world.start()
    world.pods.drive_states["logs", "logs-pool-main-0", 1] = "healing"
    world.change_spec(image="holdfast:new")
    world.kube.calls.clear()
    await world.run_passes(3)
    assert not [call for call in world.kube.calls if call[0] in ("evict", "delete")]
    assert world.condition("Progressing")["reason"] == "RollWaiting"


async def test_no_roll_while_missed_writes_wait_for_repair(world: Any) -> None:
    await world.start()
    world.pods.repair_queue_length = 3
    world.change_spec(image="holdfast:new")
    world.kube.calls.clear()
    await world.run_passes(3)
    assert not [call for call in world.kube.calls if call[0] in ("evict", "delete")]
    assert "missed writes" in world.condition("Progressing")["message"]


async def test_a_pod_that_is_down_is_replaced_even_then(world: Any) -> None:
    await world.start()
    world.pods.down = {"logs-pool-main-1"}
    world.pods.settle()
    world.change_spec(image="holdfast:fixed")
    world.kube.calls.clear()
    await world.run_passes(2)
    assert [call for call in world.kube.calls if call[0] in ("evict", "delete")] == [
        ("delete", "Pod", "logs-pool-main-1")
    ]


async def test_a_pod_that_is_down_is_replaced_while_another_cannot_end_with_its_node(world: Any) -> None:
    """An image that is nowhere, a node that dies, and then the right image: with both pods away nobody writes."""
    await world.start()
    world.pods.down = {"logs-pool-main-0", "logs-pool-main-2"}
    world.pods.settle()
    leaving = world.kube.object(POD, "logs-pool-main-2")
    leaving["metadata"]["deletionTimestamp"] = "2026-11-20T00:00:01Z"
    leaving.setdefault("spec", {})["nodeName"] = "node-2"
    world.kube.calls.clear()
    world.change_spec(image="holdfast:fixed")
    await world.run_passes(2)
    assert ("delete", "Pod", "logs-pool-main-0") not in world.kube.calls, "it may have ended in a moment"
    world.seconds += 60
    await world.run_passes(2)
    ended = [call[2] for call in world.kube.calls if call[:2] in (("delete", "Pod"), ("evict", "Pod"))]
    assert ended == ["logs-pool-main-0"]
    world.pods.down = {"logs-pool-main-2"}
    world.pods.settle()
    await world.run_passes(3)
    ended = [call[2] for call in world.kube.calls if call[:2] in (("delete", "Pod"), ("evict", "Pod"))]
    assert ended == ["logs-pool-main-0"], "none of those that serve"
    assert world.condition("Progressing")["reason"] == "RollWaiting"
    assert "`kubectl delete node" in world.condition("Progressing")["message"]


async def test_a_pod_that_nobody_makes_is_named_with_where_to_look_why(world: Any) -> None:
    """Its priority class is mistyped, or a quota is used up: only the StatefulSet's events say so."""
    await world.start()
    world.change_spec(image="holdfast:new")
    await world.run_passes(2)
    for pod in [name for name in world.kube.names(POD) if name.endswith("-2")]:
        await world.kube.delete(world.kube.object(POD, pod))
    await world.reconciler.reconcile(TenantKey("loki", "logs"))
    told = world.condition("Progressing")
    assert (told["status"], told["reason"]) == ("True", "RollWaiting")
    assert "until pod logs-pool-main-2 (not there yet; " in told["message"]
    assert "`kubectl describe statefulset logs-pool-main` says why) is ready" in told["message"]


async def test_a_refused_eviction_is_waited_out(world: Any) -> None:
    await world.start()
    world.kube.evictions_refused = True
    world.change_spec(image="holdfast:new")
    await world.run_passes(2)
    assert world.condition("Progressing")["reason"] == "RollWaiting"
    world.kube.evictions_refused = False
    await world.run_passes(5)
    assert world.condition("Progressing")["status"] == "False"


@pytest.mark.parametrize("verb", ["evict", "delete"])
async def test_a_step_that_is_not_allowed_is_told_and_holds_up_nothing_else(world: Any, verb: str) -> None:
    await world.start()
    if verb == "delete":
        world.pods.down = {"logs-pool-main-1"}
        world.pods.settle()
    world.kube.fail_on = lambda done, kind, name: KubeForbidden("pods may not go") if done == verb else None
    world.change_spec(image="holdfast:new", buckets=[{"name": "late"}])
    await world.run_passes(2)
    condition = world.condition("Progressing")
    assert (condition["status"], condition["reason"]) == ("True", "RollWaiting")
    assert "is to be replaced: pods may not go" in condition["message"]
    assert "late" in world.store.buckets


async def test_a_pod_that_misses_its_probes_and_answers_is_not_taken_for_one_that_is_down(world: Any) -> None:
    """Of a busy node all miss them together: a roll must not take one while another is away."""
    await world.start()
    world.pods.down = {"logs-pool-main-3"}
    world.pods.unready = {"logs-pool-main-1": "2026-11-20T00:00:04Z"}
    world.pods.settle()
    world.change_spec(image="holdfast:new")
    await world.run_passes(2)
    ended = [call for call in world.kube.calls if call[:2] in (("delete", "Pod"), ("evict", "Pod"))]
    assert ended == [("delete", "Pod", "logs-pool-main-3")], "that one serves nobody"
    world.pods.down.clear()
    await world.run_passes(5)
    ended = [call[2] for call in world.kube.calls if call[:2] in (("delete", "Pod"), ("evict", "Pod"))]
    assert ended == ["logs-pool-main-3"]
    assert world.condition("Progressing")["reason"] == "RollWaiting"
    assert "logs-pool-main-1" in world.condition("Progressing")["message"]
    world.seconds += 60
    await world.run_passes(1)
    ended = [call[2] for call in world.kube.calls if call[:2] in (("delete", "Pod"), ("evict", "Pod"))]
    assert ended == ["logs-pool-main-3", "logs-pool-main-1"], "one that stays so may be of a bad image"


async def test_one_server_is_not_interrupted_without_leave(world: Any) -> None:
    body = _body()
    body["spec"]["pools"][0]["servers"] = 1
    pools = body["spec"]["pools"]
    await world.start(pools=pools)
    world.change_spec(pools=pools, image="holdfast:new")
    await world.run_passes(2)
    assert world.condition("Progressing")["reason"] == "RollBlocked"
    world.change_spec(pools=pools, image="holdfast:new", allowDisruption=True)
    await world.run_passes(3)
    assert world.condition("Progressing")["reason"] == "Settled"


def budgets(world: Any) -> dict[str, tuple[str, int]]:
    """By the budget's name: the pool it is for, and how many of its pods may go."""
    found = {name: world.kube.object(DISRUPTION_BUDGET, name)["spec"] for name in world.kube.names(DISRUPTION_BUDGET)}
    return {
        name: (spec["selector"]["matchLabels"].get("holdfast.dev/pool", ""), spec["maxUnavailable"])
        for name, spec in found.items()
    }


def ended_pods(world: Any) -> list[tuple[str, str]]:
    return [(call[0], call[2]) for call in world.kube.calls if call[:2] in (("delete", "Pod"), ("evict", "Pod"))]


async def test_a_pool_that_bears_no_loss_holds_up_neither_rolls_nor_drains_of_another(world: Any) -> None:
    pools = add_pool(_body(), "solo")
    pools[1] |= {"servers": 1}
    await world.start(pools=pools)
    await world.run_passes()
    assert budgets(world) == {"logs": ("main", 1), "logs-pool-solo": ("solo", 0)}
    world.kube.calls.clear()
    world.change_spec(pools=pools, image="holdfast:new")
    await world.run_passes(14)
    assert ended_pods(world) == [("evict", f"logs-pool-main-{ordinal}") for ordinal in range(4)]
    assert world.condition("Progressing")["reason"] == "RollBlocked"
    assert world.condition("Progressing")["message"].startswith("1 pod awaits the new revision, and")
    world.kube.calls.clear()
    world.change_spec(pools=pools, image="holdfast:newer", allowDisruption=True)
    await world.run_passes(14)
    evicted = [("evict", f"logs-pool-main-{ordinal}") for ordinal in range(4)]
    assert ended_pods(world) == [*evicted, ("delete", "logs-pool-solo-0")], "where one bears it, it is asked first"
    assert world.condition("Progressing")["reason"] == "Settled"


async def test_a_degraded_pool_keeps_its_own_pods_from_drains_alone(world: Any) -> None:
    pools = add_pool(_body(), "more")
    await world.start(pools=pools)
    await world.run_passes()
    assert budgets(world) == {"logs": ("main", 1), "logs-pool-more": ("more", 1)}
    world.pods.down = {"logs-pool-main-2"}
    world.pods.settle()
    await world.run_pass()
    assert budgets(world) == {"logs": ("main", 0), "logs-pool-more": ("more", 1)}


async def test_the_next_node_is_not_drained_before_missed_writes_are_made_up_for(world: Any) -> None:
    """Nodes that are restarted one after the other: of three servers with one volume each, what was written without the
    first could be read of one drive with the second away, where two are needed."""
    await world.start()
    await world.run_passes()
    world.pods.down, world.pods.repair_queue_length = {"logs-pool-main-2"}, 40
    world.pods.settle()
    await world.run_pass()
    assert budgets(world) == {"logs": ("main", 0)}
    world.pods.down = set()
    world.pods.settle()
    await world.run_passes(2)
    assert world.condition("Degraded")["reason"] == "CatchingUp"
    assert budgets(world) == {"logs": ("main", 0)}
    world.pods.repair_queue_length = 0
    await world.run_pass()
    assert budgets(world) == {"logs": ("main", 1)}
    world.pods.repair_queue_length = 3
    await world.run_pass()
    assert budgets(world) == {"logs": ("main", 1)}, "missed in passing, and repaired within seconds"


async def test_versions_that_a_person_has_to_decide_keep_no_node_from_being_drained(world: Any) -> None:
    await world.start()
    await world.run_passes()
    world.pods.down, world.pods.repair_queue_length, world.pods.stuck = {"logs-pool-main-2"}, 3, 2
    world.pods.settle()
    await world.run_pass()
    world.pods.down = set()
    world.pods.settle()
    await world.run_pass()
    assert budgets(world) == {"logs": ("main", 0)}, "one of them can be made up for"
    world.pods.repair_queue_length = 2
    await world.run_pass()
    assert budgets(world) == {"logs": ("main", 1)}


async def test_a_pool_that_no_request_goes_to_has_no_budget(world: Any) -> None:
    """And counts in none: pods that never come up would else use up what may be drained of the others."""
    await world.start()
    world.pods.down = {f"logs-pool-more-{ordinal}" for ordinal in range(4)}
    world.change_spec(pools=add_pool(world.kube.objects["Tenant", "loki", "logs"], "more"))
    await world.run_passes(3)
    assert budgets(world) == {"logs": ("main", 1)}
    world.pods.down = set()
    world.pods.settle()
    await world.run_passes(8)
    assert budgets(world) == {"logs": ("main", 1), "logs-pool-more": ("more", 1)}


async def test_a_pool_that_joins_and_would_bear_no_loss_is_rolled_as_it_is(world: Any) -> None:
    await world.start()
    pools = add_pool(world.kube.objects["Tenant", "loki", "logs"], "solo")
    pools[1] |= {"servers": 1}
    world.pods.unaware_of["logs-pool-main-3"] = "solo"
    world.change_spec(pools=pools)
    await world.run_passes(4)
    assert world.kube.tenant_status()["pools"][1]["state"] == "Joining"
    world.kube.calls.clear()
    world.change_spec(pools=pools, image="holdfast:new")
    await world.run_passes(14)
    assert sorted(name for verb, name in ended_pods(world) if verb == "evict") == [
        *(f"logs-pool-main-{ordinal}" for ordinal in range(4)),
        "logs-pool-solo-0",
    ]


async def test_a_pool_joins_without_touching_the_service(world: Any) -> None:
    await world.start()
    world.change_spec(pools=add_pool(world.kube.objects["Tenant", "loki", "logs"], "more"))
    world.pods.down = {"logs-pool-more-1"}
    await world.run_passes(3)
    assert served_config(world)["epoch"] == 1
    assert [pool["firstNode"] for pool in served_config(world)["pools"]] == [0, 4]
    assert world.condition("Ready")["status"] == "True"
    assert world.condition("Degraded")["status"] == "False"
    assert world.kube.tenant_status()["pools"][1]["state"] == "Joining"
    world.pods.down = set()
    world.pods.unaware_of["logs-pool-main-3"] = "more"
    await world.run_passes(4)
    assert served_config(world)["epoch"] == 1, "a pod whose configuration does not name the pool turns its pods away"
    assert world.kube.tenant_status()["pools"][1]["state"] == "Joining"
    world.pods.unaware_of.clear()
    world.pods.stuck_epochs["logs-pool-main-3"] = 1
    await world.run_passes(4)
    served = served_config(world)
    assert served["epoch"] == 2, "readable, and not writable before the last pod reports it"
    assert (served["pools"][1]["readableFromEpoch"], served["pools"][1]["writableFromEpoch"]) == (2, 3)
    assert world.condition("Progressing")["reason"] == "PoolJoining"
    world.pods.stuck_epochs.clear()
    await world.run_passes(3)
    assert served_config(world)["epoch"] == 3
    assert world.condition("Progressing")["reason"] == "Settled"
    assert world.kube.tenant_status()["pools"][1]["state"] == "Active"


async def test_a_change_is_never_called_settled_before_it_is(world: Any) -> None:
    """`kubectl wait --for=condition=Progressing=false` after a change must not return at once."""
    await world.start()
    assert world.condition("Progressing")["status"] == "False"
    world.change_spec(image="holdfast:next")
    for _ in range(3):
        await world.reconciler.reconcile(TenantKey("loki", "logs"))
        told = world.condition("Progressing")
        assert told["observedGeneration"] == world.kube.objects["Tenant", "loki", "logs"]["metadata"]["generation"]
        assert (told["status"], told["reason"]) == ("True", "RollWaiting"), "the controller has not seen it yet"
        world.seconds += 1


async def test_a_pool_that_cannot_come_up_holds_up_no_upgrade_of_the_others(world: Any) -> None:
    """Its class has no volumes, say; no request goes to it, and it may stay so for good."""
    await world.start()
    pools = add_pool(world.kube.objects["Tenant", "loki", "logs"], "more")
    world.pods.down = {f"logs-pool-more-{ordinal}" for ordinal in range(4)}
    world.change_spec(pools=pools)
    await world.run_passes(3)
    world.change_spec(pools=pools, image="holdfast:new")
    await world.run_passes(20)
    pods = {name: world.kube.object(POD, name) for name in world.kube.names(POD)}
    revisions = {name: pod["metadata"]["labels"]["controller-revision-hash"] for name, pod in pods.items()}
    newest = world.kube.object(STATEFUL_SET, "logs-pool-main")["status"]["updateRevision"]
    assert [revisions[f"logs-pool-main-{ordinal}"] for ordinal in range(4)] == [newest] * 4
    assert world.condition("Progressing")["reason"] == "PodsStarting"
    assert world.condition("Ready")["status"] == "True"
    evicted = [call[2] for call in world.kube.calls if call[0] == "evict"]
    assert sorted(evicted) == [f"logs-pool-main-{ordinal}" for ordinal in range(4)]


async def test_a_pool_cannot_be_left_out(world: Any) -> None:
    await world.start()
    pools = add_pool(world.kube.objects["Tenant", "loki", "logs"], "more")
    world.change_spec(pools=pools[1:])
    world.kube.calls.clear()
    await world.run_passes(3)
    assert "pool 'main' holds data" in world.condition("SpecValid")["message"]
    touched = {kind for verb, kind, name in world.kube.calls if verb != "status"}
    assert touched == {"Event"}, "nothing of what runs"
    assert world.kube.names(STATEFUL_SET) == ["logs-pool-main"], "nor is the other pool begun"
    assert world.kube.tenant_status()["pools"][0]["ready"] == 4


async def test_a_pool_that_has_not_joined_is_taken_out_again(world: Any) -> None:
    """A typo in it must not stay for good."""
    await world.start()
    before = world.kube.objects["Tenant", "loki", "logs"]["spec"]["pools"]
    world.pods.down = {"logs-pool-typo-1"}
    world.change_spec(pools=add_pool(world.kube.objects["Tenant", "loki", "logs"], "typo"))
    await world.run_passes(3)
    assert len(served_config(world)["pools"]) == 2
    assert world.kube.names(STATEFUL_SET) == ["logs-pool-main", "logs-pool-typo"]
    world.change_spec(pools=before)
    world.kube.calls.clear()
    await world.run_passes(3)
    assert [pool["name"] for pool in served_config(world)["pools"]] == ["main"]
    assert world.kube.names(STATEFUL_SET) == ["logs-pool-main"]
    deleted = [call for call in world.kube.calls if call[0] == "delete"]
    assert deleted == [("delete", "StatefulSet", "logs-pool-typo")], "its claims stay, as claims do"
    assert [pool["name"] for pool in world.kube.tenant_status()["pools"]] == ["main"]
    assert world.condition("Progressing")["reason"] == "Settled"
    assert world.condition("Ready")["status"] == "True"
    events = [event for (kind, _, _), event in world.kube.objects.items() if kind == "Event"]
    told = [event["message"] for event in events if event["reason"] == "PoolTakenOut"]
    assert len(told) == 1
    assert "kubectl delete pvc -l holdfast.dev/tenant=logs,holdfast.dev/pool=typo" in told[0]

    world.change_spec(pools=add_pool(world.kube.objects["Tenant", "loki", "logs"], "typo"))
    await world.run_passes(2)
    assert "'typo' was taken out before: give this one another name" in world.condition("SpecValid")["message"]
    world.change_spec(pools=before)
    world.change_spec(pools=add_pool(world.kube.objects["Tenant", "loki", "logs"], "mended"))
    await world.run_passes(8)
    assert [pool["state"] for pool in world.kube.tenant_status()["pools"]] == ["Active", "Active"]
    assert [pool["firstNode"] for pool in served_config(world)["pools"]] == [0, 8]


async def test_no_pool_is_taken_out_by_an_old_view_of_the_tenant_or_a_spec_of_before(world: Any) -> None:
    await world.start()
    before = world.kube.objects["Tenant", "loki", "logs"]["spec"]["pools"]
    old = copy.deepcopy(world.kube.objects)
    world.pods.down = {"logs-pool-more-1"}
    world.change_spec(pools=add_pool(world.kube.objects["Tenant", "loki", "logs"], "more"))
    await world.run_passes(3)
    record = ("Secret", "loki", "logs-accepted-spec")

    class OldView:
        def __getattr__(self, name: str) -> Any:
            return getattr(world.kube, name)

        async def get(self, kind: Kind, namespace: str, name: str) -> Any:
            if kind is TENANT:
                return copy.deepcopy(old[kind.kind, namespace, name])
            return await world.kube.get(kind, namespace, name)

    ports = replace(world.ports(OldView()), fresh_kube=world.kube)
    world.reconciler = Reconciler(ports, "holdfast:test", "cluster.local")
    await world.run_passes(2)
    assert world.kube.names(STATEFUL_SET) == ["logs-pool-main", "logs-pool-more"]
    assert len(served_config(world)["pools"]) == 2

    world.restart_operator()
    world.kube.objects[record] = copy.deepcopy(old[record])
    world.change_spec(pools=[{**before[0], "servers": 5}])
    await world.run_passes(2)
    assert world.condition("SpecValid")["status"] == "False"
    assert world.kube.names(STATEFUL_SET) == ["logs-pool-main", "logs-pool-more"]
    assert len(served_config(world)["pools"]) == 2


async def test_pods_and_claims_of_a_pool_that_was_taken_out_are_nobodys_concern(world: Any) -> None:
    """They are on their way out for a while, one of them stuck perhaps."""
    await world.start()
    before = world.kube.objects["Tenant", "loki", "logs"]["spec"]["pools"]
    world.pods.down = {f"logs-pool-typo-{ordinal}" for ordinal in range(4)}
    world.change_spec(pools=add_pool(world.kube.objects["Tenant", "loki", "logs"], "typo"))
    await world.run_passes(3)
    stuck = world.kube.object(POD, "logs-pool-typo-0")
    world.change_spec(pools=before)
    await world.run_passes(1)
    world.kube.objects["Pod", "loki", "logs-pool-typo-0"] = stuck
    world.change_spec(pools=before, image="holdfast:new")
    await world.run_passes(12)
    assert world.condition("Progressing")["reason"] == "Settled"
    assert "typo" not in str(world.kube.tenant_status()["conditions"])

    world.change_spec(pools=add_pool(world.kube.objects["Tenant", "loki", "logs"], "more"))
    await world.run_passes(6)
    assert served_config(world)["epoch"] == 1, "it may coordinate, and would never learn of another epoch"
    assert "first the pods of typo, which was taken out, must be gone" in world.condition("Progressing")["message"]
    del world.kube.objects["Pod", "loki", "logs-pool-typo-0"]
    await world.run_passes(6)
    assert [pool["state"] for pool in world.kube.tenant_status()["pools"]] == ["Active", "Active"]


async def test_a_user_that_leaves_the_spec_leaves_the_store_and_its_secret_goes(world: Any) -> None:
    await world.start()
    world.change_spec(users=[])
    await world.run_passes(2)
    assert world.store.users == {}
    assert world.store.policies == {}
    assert "logs-user-loki" not in world.kube.names(SECRET)
    assert decode_ledger(world.secret_values("logs-peer")[LEDGER_KEY].encode()).users == {}


async def test_a_users_account_is_carried_and_kept(world: Any) -> None:
    await world.start(users=[{"name": "loki", "account": "team-a"}])
    (key,) = world.store.users
    assert world.store.users[key].account == "team-a"
    world.store.users[key] = msgspec.structs.replace(world.store.users[key], account="team-b")
    world.seconds += int(VERIFY_SECONDS)
    await world.run_passes(2)
    assert world.store.users[key].account == "team-a"
    events = {item["message"] for (kind, _, _), item in world.kube.objects.items() if kind == "Event"}
    assert "made again as declared: user loki was changed" in events
    world.change_spec(users=[{"name": "loki"}])
    await world.run_passes(2)
    assert world.store.users[key].account == ""


async def test_users_made_by_others_stay(world: Any) -> None:
    await world.start()
    world.store.users["SOMEBODY"] = world.store.users[next(iter(world.store.users))]
    world.change_spec(users=[])
    await world.run_passes(2)
    assert set(world.store.users) == {"SOMEBODY"}


@pytest.mark.parametrize(
    ("policy", "objects", "left"), [("Retain", 0, True), ("Delete", 0, False), ("Delete", 5, True)]
)
async def test_a_bucket_is_deleted_only_on_demand_and_only_when_empty(
    world: Any, policy: str, objects: int, left: bool
) -> None:
    await world.start(buckets=[{"name": "scratch", "deletionPolicy": policy}], users=[])
    world.store.buckets["scratch"] = objects
    world.change_spec(buckets=[], users=[])
    await world.run_passes(2)
    assert ("scratch" in world.store.buckets) is left
    status = world.kube.tenant_status()["buckets"]
    assert [item["state"] for item in status] == (["NotEmpty"] if objects else [])
    assert world.condition("Ready")["status"] == "True"


async def test_one_refused_bucket_does_not_hold_up_the_others(world: Any) -> None:
    world.store.refuse_buckets = {"loki-chunks"}
    await world.start()
    assert world.kube.tenant_status()["buckets"] == [
        {"name": "loki-chunks", "state": "Failed", "message": "InvalidBucketName: the name is refused"},
        {"name": "loki-ruler", "state": "Ready"},
    ]
    assert world.condition("BucketsReady")["reason"] == "Failed"
    assert world.condition("UsersReady")["status"] == "True"


@pytest.mark.parametrize("open_bucket", ["NotEmpty", "Failed"])
async def test_what_stays_open_has_nothing_else_made_again(world: Any, open_bucket: str) -> None:
    """A bucket that is not empty may stay so for years, with hundreds of users beside it."""
    await world.start(buckets=[{"name": "scratch", "deletionPolicy": "Delete"}])
    if open_bucket == "NotEmpty":
        world.store.buckets["scratch"] = 1
        world.change_spec()
    else:
        world.store.refuse_buckets = {"loki-chunks"}
        world.change_spec()
    await world.run_passes(2)
    world.store.calls.clear()
    await world.run_passes(30)
    assert {call.split()[0] for call in world.store.calls} <= {"delete_bucket", "create_bucket"}
    assert 3 <= len(world.store.calls) <= 8, "tried again, with growing pauses"
    world.store.buckets["scratch"], world.store.refuse_buckets = 0, set()
    world.seconds += 30
    await world.run_pass()
    assert {item["state"] for item in world.kube.tenant_status()["buckets"]} == {"Ready"}


async def test_drift_is_found_beside_a_bucket_that_is_refused(world: Any) -> None:
    world.store.refuse_buckets = {"loki-chunks"}
    await world.start()
    world.seconds += 61
    await world.run_passes(2)
    assert "DriftCorrected" not in {event["reason"] for event in _events(world)}
    world.store.users.clear()
    world.store.buckets.pop("loki-ruler")
    world.seconds += 61
    await world.run_passes(2)
    assert world.store.users
    assert "loki-ruler" in world.store.buckets
    (told,) = [event["message"] for event in _events(world) if event["reason"] == "DriftCorrected"]
    assert "loki-chunks" not in told


def _events(world: Any) -> list[dict[str, Any]]:
    return [manifest for (kind, _, _), manifest in world.kube.objects.items() if kind == "Event"]


async def test_drift_is_put_right(world: Any) -> None:
    await world.start()
    world.kube.object(SERVICE, "logs")["spec"]["selector"] = {"somebody": "else"}
    world.kube.remove(("PodDisruptionBudget", "loki", "logs"))
    await world.run_pass()
    assert "holdfast.dev/tenant" in world.kube.object(SERVICE, "logs")["spec"]["selector"]
    assert world.kube.names(DISRUPTION_BUDGET) == ["logs"]


@pytest.mark.parametrize("error", [KubeRejected("422: no such field"), KubeForbidden("403: not allowed")])
async def test_a_refused_apply_is_a_condition(world: Any, error: Exception) -> None:
    world.kube.fail_on = lambda verb, kind, name: error if (verb, kind) == ("apply", "StatefulSet") else None
    await world.start()
    assert world.condition("PoolsReady")["reason"] == "ApplyFailed"
    assert str(error) in world.condition("PoolsReady")["message"]


async def test_nothing_is_told_of_a_namespace_that_is_being_deleted(world: Any) -> None:
    """Its content goes in no order; what is gone cannot be made again, and nobody has to see to that."""
    await world.start(tls={"mode": "SelfSigned"})
    before = world.kube.tenant_status()
    ending = NamespaceEnding("403: because it is being terminated")
    there = world.kube.objects

    def fail(verb: str, kind: str, name: str) -> Exception | None:
        makes = verb == "create" or (verb == "apply" and (kind, "loki", name) not in there)
        return ending if makes and kind != "Event" else None

    world.kube.fail_on = fail
    for key in (("Secret", "logs-ca"), ("StatefulSet", "logs-pool-main"), ("Service", "logs")):
        world.kube.remove((key[0], "loki", key[1]))
        with pytest.raises(NamespaceEnding):
            await world.run_pass()
    assert world.kube.tenant_status() == before


async def test_a_webhook_that_went_with_a_node_does_not_keep_the_lost_drives_from_being_told(world: Any) -> None:
    """A policy engine's: it is asked about everything, and its pod was on the same node."""
    await world.start()
    away = WebhookAway('500: failed calling webhook "validate.kyverno.svc-fail"')
    world.kube.fail_on = lambda verb, kind, name: away if verb in ("create", "apply", "merge", "evict") else None
    world.pods.down = {"logs-pool-main-1"}
    world.pods.settle()
    world.change_spec(buckets=[*world.body()["spec"]["buckets"], {"name": "new"}], users=[])
    await world.run_passes(3)
    assert world.condition("Degraded")["reason"] == "DrivesMissing"
    assert world.condition("PoolsReady")["reason"] == "ApplyFailed"
    assert "kyverno" in world.condition("PoolsReady")["message"]
    world.kube.fail_on = lambda verb, kind, name: None
    world.pods.down = set()
    world.pods.settle()
    await world.run_passes(6)
    assert world.condition("Ready")["status"] == "True"
    assert "new" in world.store.buckets
    world.change_spec(image="holdfast:next", buckets=[{"name": "new"}], users=[])
    await world.run_pass()
    world.kube.fail_on = lambda verb, kind, name: away if verb == "evict" else None
    await world.run_passes(2)
    told = world.condition("Progressing")
    assert told["reason"] == "RollWaiting"
    assert "kyverno" in told["message"]


@pytest.mark.parametrize("name", ["logs-accepted-spec", "logs"])
async def test_what_is_refused_keeps_no_drain_from_being_refused(world: Any, name: str) -> None:
    """A quota on load balancers, a policy about Secrets: what comes before the budgets in the order of things."""
    await world.start()
    assert world.kube.object(DISRUPTION_BUDGET, "logs")["spec"]["maxUnavailable"] == 1
    quota = KubeForbidden("403: exceeded quota")
    world.kube.fail_on = lambda verb, kind, at: (
        quota if (verb, at) == ("apply", name) and kind in ("Secret", "Service") else None
    )
    world.change_spec(service={"type": "LoadBalancer"}, image="holdfast:next")
    world.pods.down = {"logs-pool-main-1"}
    world.pods.settle()
    await world.run_passes(3)
    assert world.condition("PoolsReady")["reason"] == "ApplyFailed"
    assert world.kube.object(DISRUPTION_BUDGET, "logs")["spec"]["maxUnavailable"] == 0


async def test_a_bucket_that_is_gone_and_cannot_be_forgotten_holds_up_nothing(world: Any) -> None:
    kept = world.body()["spec"]["buckets"]
    await world.start(buckets=[*kept, {"name": "brief", "deletionPolicy": "Delete"}])
    assert "brief" in world.store.buckets
    refused = KubeRejected("400: denied by a policy")
    world.change_spec()
    world.kube.fail_on = lambda verb, kind, name: refused if (verb, name) == ("apply", "logs-peer-copy") else None
    await world.run_pass()
    assert "brief" not in world.store.buckets
    assert world.condition("PoolsReady")["status"] == "True", "nothing is wrong with what is served"
    world.pods.down = {"logs-pool-main-1"}
    world.pods.settle()
    await world.run_passes(2)
    assert world.condition("Degraded")["reason"] == "DrivesMissing"
    assert world.kube.object(DISRUPTION_BUDGET, "logs")["spec"]["maxUnavailable"] == 0
    world.kube.fail_on = lambda verb, kind, name: None
    world.pods.down = set()
    world.pods.settle()
    world.seconds += int(REPEAT_SECONDS)
    await world.run_passes()
    assert world.condition("Ready")["status"] == "True"
    assert "brief" not in decode_ledger(world.secret_values("logs-peer")[LEDGER_KEY].encode()).buckets


@pytest.mark.parametrize("name", ["logs-accepted-spec", "logs-peer-copy", "logs-peer"])
async def test_no_key_is_made_in_the_store_that_is_not_on_record(world: Any, name: str) -> None:
    """Else each pass, with the operator's rights on Secrets gone, would leave another valid key in the store."""
    await world.start()
    world.kube.fail_on = lambda verb, kind, at: KubeForbidden("no") if (verb, at) == ("apply", name) else None
    users = [*world.body()["spec"]["users"], {"name": "new", "buckets": [{"name": "loki-chunks"}]}]
    world.change_spec(users=users)
    world.store.calls.clear()
    await world.run_passes(3)
    assert world.store.calls == []
    assert "waiting for the record of keys" in world.condition("UsersReady")["message"]
    world.kube.fail_on = lambda verb, kind, at: None
    await world.run_passes()
    announced = {world.secret_values(f"logs-user-{user}")["accessKey"] for user in ("loki", "new")}
    assert set(world.store.users) == announced
    assert world.condition("Ready")["status"] == "True"


async def test_every_write_may_fail_once_and_the_tenant_still_becomes_ready(world: Any) -> None:
    """The n-th write fails, over every n, with an outcome nobody knows."""
    for n in range(60):
        fresh = type(world)()
        seen = iter(range(10_000))

        def fail(verb: str, kind: str, name: str, seen: Any = seen, n: int = n) -> KubeUnavailable | None:
            writes = verb in ("create", "apply", "status", "delete")
            return KubeUnavailable("reset by peer") if writes and next(seen) == n else None

        fresh.kube.put(_body())
        fresh.kube.fail_on = fail
        failures = 0
        for _ in range(6):
            try:
                await fresh.run_pass()
            except KubeUnavailable:
                failures += 1
                fresh.restart_operator()
        assert fresh.condition("Ready")["status"] == "True", n
        if not failures:
            assert n > 5
            return
    pytest.fail("more writes than a tenant should need")


async def test_pods_of_the_tenant_never_get_a_token_or_root(world: Any) -> None:
    await world.start()
    for name in world.kube.names(POD):
        assert name.startswith("logs-pool-main-")
    spec = world.kube.object(STATEFUL_SET, "logs-pool-main")["spec"]["template"]["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True


async def test_a_bucket_of_which_the_store_cannot_tell_holds_up_no_other(world: Any) -> None:
    """Too few drives have the record of it: every pod answers 503 for that one, and serves the rest."""
    world.store.fail_buckets = {"loki-chunks"}
    await world.start()
    states = {item["name"]: item["state"] for item in world.kube.tenant_status()["buckets"]}
    assert states == {"loki-chunks": "Pending", "loki-ruler": "Ready"}
    assert world.condition("UsersReady")["status"] == "True"
    assert "loki-chunks: the store does not answer" in world.condition("BucketsReady")["message"]


async def test_a_store_that_fails_every_call_is_not_asked_everything(world: Any) -> None:
    names = [f"bucket-{number}" for number in range(20)]
    world.store.fail_buckets = set(names)
    await world.start()
    world.store.calls.clear()
    world.change_spec(buckets=[{"name": name} for name in names], users=[])
    await world.run_pass()
    assert len(world.store.calls) == 3


async def test_drift_is_found_beside_what_must_not_be_looked_at(world: Any) -> None:
    tagged = [{"name": name, "tags": {"a": "b"}} for name in ("closed", "open")]
    await world.start(buckets=tagged)
    world.store.unseen_settings = {("closed", "tagging")}
    world.store.settings["open", "tagging"] = b"<Tagging/>"
    world.store.users.clear()
    world.seconds += 61
    await world.run_passes(2)
    assert world.store.settings["open", "tagging"] != b"<Tagging/>"
    assert world.store.users


async def test_a_new_tenant_says_why_no_pass_over_it_ends(world: Any) -> None:
    """As where a ResourceQuota has no room for its Secrets: it had no status at all."""
    world.kube.put(_body())
    key = TenantKey("loki", "logs")
    await world.reconciler.tell_failing(key, "403: exceeded quota: secrets=10")
    for condition, status in (("Ready", "False"), ("Progressing", "True")):
        told = world.condition(condition)
        assert (told["status"], told["reason"]) == (status, "PassFails")
        assert "exceeded quota" in told["message"]
    assert [event["reason"] for (kind, _, _), event in world.kube.objects.items() if kind == "Event"] == [
        "PassFails"
    ] * 2
    await world.run_passes()
    assert world.condition("Ready")["status"] == "True"
    assert world.condition("Progressing")["reason"] == "Settled"


async def test_a_tenant_that_serves_stays_ready_while_passes_fail(world: Any) -> None:
    await world.start()
    world.change_spec(image="holdfast:new")
    await world.reconciler.tell_failing(TenantKey("loki", "logs"), "503")
    assert world.condition("Ready")["status"] == "True"
    assert world.condition("Progressing")["status"] == "True", "nobody is to take the change for done"
    status = world.kube.tenant_status()
    assert status["observedGeneration"] == 1
    before = len(world.kube.calls)
    await world.reconciler.tell_failing(TenantKey("loki", "logs"), "503")
    assert len(world.kube.calls) == before, "nothing new"
    await world.reconciler.tell_failing(TenantKey("loki", "gone"), "503")


async def test_a_user_of_a_bucket_that_nobody_declares_says_so(world: Any) -> None:
    """A client may have made it; or the name has a slip, and the user no rights to the bucket that was meant."""
    grants = [{"name": "loki-chunks"}, {"name": "loki-rules"}]
    await world.start(users=[{"name": "loki", "buckets": grants}, {"name": "other", "buckets": grants[:1]}])
    told = {item["name"]: (item["state"], item.get("message", "")) for item in world.kube.tenant_status()["users"]}
    assert told["loki"] == ("Ready", "has rights to what spec.buckets does not declare: loki-rules")
    assert told["other"] == ("Ready", "")
    condition = world.condition("UsersReady")
    assert condition["status"] == "True"
    assert condition["message"].endswith("; loki has rights to what spec.buckets does not declare: loki-rules")
