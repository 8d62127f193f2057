"""StatefulSet planning follows the real controller's rules."""

from __future__ import annotations

from typing import Any

from holdfast_local.kubelet.statefulset_plan import plan_statefulset, pods_to_adopt, render_pod, revision_name

Manifest = dict[str, Any]


def make_set(
    replicas: int = 3,
    policy: str = "Parallel",
    strategy: str = "OnDelete",
    image: str = "one",
    status: Manifest | None = None,
    retention: str = "Retain",
    rolling: Manifest | None = None,
) -> Manifest:
    return {
        "metadata": {"name": "web", "namespace": "shop", "uid": "set-uid", "generation": 4},
        "spec": {
            "replicas": replicas,
            "serviceName": "web-pods",
            "podManagementPolicy": policy,
            "updateStrategy": {"type": strategy, **({"rollingUpdate": rolling} if rolling else {})},
            "selector": {"matchLabels": {"app": "web"}},
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": retention},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": image}], "volumes": [{"name": "tmp", "emptyDir": {}}]},
            },
            "volumeClaimTemplates": [
                {"metadata": {"name": "data0"}, "spec": {"resources": {"requests": {"storage": "1Gi"}}}}
            ],
        },
        "status": status or {},
    }


def make_pod(statefulset: Manifest, ordinal: int, ready: bool = True, **metadata: Any) -> Manifest:
    pod = render_pod(statefulset, ordinal)
    pod["metadata"].update(metadata)
    pod["status"] = {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
    }
    return pod


def names(manifests: list[Manifest]) -> list[str]:
    return [manifest["metadata"]["name"] for manifest in manifests]


def test_parallel_creates_every_pod_and_claim_at_once() -> None:
    plan = plan_statefulset(make_set(), [], {})
    assert names(plan.create_pods) == ["web-0", "web-1", "web-2"]
    assert names(plan.create_claims) == ["data0-web-0", "data0-web-1", "data0-web-2"]


def test_ordered_waits_for_each_pod_to_be_ready() -> None:
    statefulset = make_set(policy="OrderedReady")
    assert names(plan_statefulset(statefulset, [], {}).create_pods) == ["web-0"]
    starting = [make_pod(statefulset, 0, ready=False)]
    assert plan_statefulset(statefulset, starting, {}).create_pods == []
    assert names(plan_statefulset(statefulset, [make_pod(statefulset, 0)], {}).create_pods) == ["web-1"]


def test_an_existing_claim_is_kept_and_used_again() -> None:
    plan = plan_statefulset(make_set(replicas=1), [], {"data0-web-0": {}})
    assert plan.create_claims == []
    volumes = plan.create_pods[0]["spec"]["volumes"]
    assert {"name": "data0", "persistentVolumeClaim": {"claimName": "data0-web-0"}} in volumes
    assert {"name": "tmp", "emptyDir": {}} in volumes


def test_claims_belong_to_the_set_only_where_they_shall_go_with_it() -> None:
    kept = plan_statefulset(make_set(replicas=1), [], {}).create_claims[0]
    assert "ownerReferences" not in kept["metadata"]
    assert kept["metadata"]["labels"] == {"app": "web"}
    owned = plan_statefulset(make_set(replicas=1, retention="Delete"), [], {}).create_claims[0]
    assert owned["metadata"]["ownerReferences"][0]["uid"] == "set-uid"


def test_on_delete_leaves_outdated_pods_alone_and_replaces_with_the_new_template() -> None:
    old, new = make_set(image="one"), make_set(image="two")
    outdated = [make_pod(old, ordinal) for ordinal in range(3)]
    assert plan_statefulset(new, outdated, {}).delete_pods == []
    plan = plan_statefulset(new, outdated[:2], {})
    assert plan.create_pods[0]["spec"]["containers"][0]["image"] == "two"
    assert plan.create_pods[0]["metadata"]["labels"]["controller-revision-hash"] == revision_name(new)


def test_rolling_update_takes_one_pod_at_a_time_from_the_highest() -> None:
    old, new = make_set(image="one"), make_set(image="two", strategy="RollingUpdate")
    pods = [make_pod(old, 0), make_pod(old, 1), make_pod(old, 2)]
    assert names(plan_statefulset(new, pods, {}).delete_pods) == ["web-2"]
    pods[2] = make_pod(new, 2, ready=False)
    assert plan_statefulset(new, pods, {}).delete_pods == []
    pods[2] = make_pod(new, 2)
    assert names(plan_statefulset(new, pods, {}).delete_pods) == ["web-1"]


def test_rolling_update_stops_at_the_partition() -> None:
    old = make_set(image="one")
    new = make_set(image="two", strategy="RollingUpdate", rolling={"partition": 2})
    pods = [make_pod(old, 0), make_pod(old, 1), make_pod(new, 2)]
    assert plan_statefulset(new, pods, {}).delete_pods == []


def test_scaling_down_deletes_the_highest_and_in_order_only_one() -> None:
    for policy, expected in (("Parallel", ["web-2", "web-1"]), ("OrderedReady", ["web-2"])):
        statefulset = make_set(replicas=1, policy=policy)
        pods = [make_pod(statefulset, ordinal) for ordinal in range(3)]
        assert names(plan_statefulset(statefulset, pods, {}).delete_pods) == expected


def test_a_terminating_pod_is_waited_for() -> None:
    statefulset = make_set(replicas=1)
    leaving = [make_pod(statefulset, 0, deletionTimestamp="2026-01-01T00:00:00Z")]
    plan = plan_statefulset(statefulset, leaving, {})
    assert (plan.create_pods, plan.delete_pods) == ([], [])


def test_a_failed_pod_is_replaced() -> None:
    statefulset = make_set(replicas=1)
    pod = make_pod(statefulset, 0, ready=False)
    pod["status"]["phase"] = "Failed"
    assert names(plan_statefulset(statefulset, [pod], {}).delete_pods) == ["web-0"]


def test_a_set_being_deleted_creates_nothing() -> None:
    statefulset = make_set()
    statefulset["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert plan_statefulset(statefulset, [], {}).create_pods == []


def test_pods_of_a_longer_named_set_are_not_taken_for_ours() -> None:
    statefulset = make_set(replicas=0)
    stranger = make_pod(statefulset, 0)
    stranger["metadata"]["name"] = "web-old-0"
    assert plan_statefulset(statefulset, [stranger], {}).delete_pods == []


def test_status_counts_and_revisions() -> None:
    old = make_set(image="one")
    new = make_set(image="two", status={"currentRevision": revision_name(old)})
    pods = [make_pod(old, 0), make_pod(new, 1), make_pod(new, 2, ready=False)]
    status = plan_statefulset(new, pods, {}).status
    assert status["observedGeneration"] == 4
    assert (status["replicas"], status["readyReplicas"], status["updatedReplicas"]) == (3, 2, 2)
    assert (status["currentRevision"], status["updateRevision"]) == (revision_name(old), revision_name(new))


def test_a_complete_rolling_update_moves_the_current_revision_and_on_delete_never_does() -> None:
    old = make_set(image="one")
    for strategy, moved in (("RollingUpdate", True), ("OnDelete", False)):
        new = make_set(image="two", strategy=strategy, status={"currentRevision": revision_name(old)})
        status = plan_statefulset(new, [make_pod(new, ordinal) for ordinal in range(3)], {}).status
        assert (status["currentRevision"] == revision_name(new)) is moved


def test_pods_that_lost_their_controller_are_adopted() -> None:
    statefulset = make_set()
    orphan, owned, leaving, stranger = (make_pod(statefulset, ordinal) for ordinal in range(4))
    orphan["metadata"]["ownerReferences"] = []
    leaving["metadata"].update(ownerReferences=[], deletionTimestamp="2026-01-01T00:00:00Z")
    stranger["metadata"].update(ownerReferences=[], labels={"app": "other"})
    assert names(pods_to_adopt(statefulset, [orphan, owned, leaving, stranger])) == ["web-0"]


def test_claims_get_and_lose_their_owner_with_the_retention_policy() -> None:
    kept, deleted = make_set(replicas=1), make_set(replicas=1, retention="Delete")
    free = plan_statefulset(kept, [], {}).create_claims[0]
    owned = plan_statefulset(deleted, [], {}).create_claims[0]
    assert plan_statefulset(kept, [], {"data0-web-0": free}).own_claims == []
    assert plan_statefulset(deleted, [], {"data0-web-0": owned}).own_claims == []
    ((claim, owners),) = plan_statefulset(deleted, [], {"data0-web-0": free}).own_claims
    assert (claim, [owner["uid"] for owner in owners]) == (free, ["set-uid"])
    assert plan_statefulset(kept, [], {"data0-web-0": owned}).own_claims == [(owned, [])]
