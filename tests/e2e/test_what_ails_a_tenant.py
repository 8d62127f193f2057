"""What cannot work is told in the Tenant's status, with what to do, and leaves what runs as it is."""

from __future__ import annotations

from typing import Any

import pytest
from kubernetes.client.exceptions import ApiException

from holdfast_operator.testing.cluster import Cluster, wait_for
from holdfast_operator.testing.traffic import s3

pytestmark = [pytest.mark.timeout(1200), pytest.mark.cluster]

NOWHERE = "registry.invalid/holdfast:mistyped"


class Store:
    """The Tenant `store` of a namespace, and what is said of it."""

    def __init__(self, cluster: Cluster, tenant: dict[str, Any]) -> None:
        self.cluster, self.tenant = cluster, tenant
        self.namespace = str(tenant["metadata"]["namespace"])

    def create(self) -> None:
        self.cluster.make_tenant(self.tenant)

    def change(self, **spec: Any) -> None:
        self.cluster.patch_tenant(self.namespace, "store", {"spec": spec})

    def wait_told(self, condition: str, *words: str) -> str:
        """Until the condition's message has them all; the message."""
        told = ""

        def look() -> bool:
            nonlocal told
            told = self.cluster.condition(self.namespace, "store", condition).get("message", "")
            return all(word in told for word in words)

        wait_for(f"{condition} to tell {words}", look)
        return told

    def wait_settled(self) -> None:
        def settled() -> bool:
            tenant = self.cluster.tenant(self.namespace, "store")
            conditions = {one["type"]: one for one in tenant["status"]["conditions"]}
            current = tenant["status"]["observedGeneration"] == tenant["metadata"]["generation"]
            return (
                current
                and tenant["status"]["health"] == "Healthy"
                and conditions["Progressing"]["reason"] == "Settled"
                and conditions["Ready"]["status"] == "True"
            )

        wait_for("the Tenant to be as declared", settled)

    def pods(self) -> dict[str, str]:
        return {
            pod.metadata.name: pod.metadata.uid for pod in self.cluster.core.list_namespaced_pod(self.namespace).items
        }


@pytest.fixture
def store(cluster: Cluster, tenant: dict[str, Any]) -> Store:
    return Store(cluster, tenant)


def test_a_change_that_cannot_work_is_told_takes_one_pod_at_most_and_can_be_taken_back(store: Store) -> None:
    store.create()
    store.wait_settled()
    before = store.pods()
    store.change(image=NOWHERE)
    told = store.wait_told("Progressing", f"image {NOWHERE} cannot be pulled")
    assert "pods are to be replaced, and left as they are until pod store-pool-main-" in told
    assert store.cluster.condition(store.namespace, "store", "Ready")["status"] == "True", "clients are served"
    assert len(set(before.items()) & set(store.pods().items())) == 3, "the others are left alone"
    store.change(image=None)
    store.wait_settled()

    pool = store.tenant["spec"]["pools"][0]
    store.change(pools=[{**pool, "nodeSelector": {"holdfast.dev/nowhere": "true"}}])
    store.wait_told("Progressing", "Unschedulable: ", "left as they are until pod store-pool-main-")
    store.change(pools=[pool])
    store.wait_settled()

    user = store.tenant["spec"]["users"][0]
    store.change(users=[{**user, "secretRef": {"name": "mistyped"}}])
    store.wait_told("CredentialsReady", "Secret mistyped does not exist", "make it, with accessKey and secretKey")
    store.change(users=[user])
    store.wait_settled()


def test_claims_that_nobody_binds_are_named(store: Store) -> None:
    name = f"no-volumes-{store.namespace}"
    store.cluster.make_class_without_volumes(name)
    try:
        claim = {"spec": {"resources": {"requests": {"storage": "1Gi"}}, "storageClassName": name}}
        store.tenant["spec"]["pools"][0]["volumeClaimTemplate"] = claim
        store.cluster.create_tenant(store.tenant)
        store.wait_told(
            "Progressing",
            f"claim data0-store-pool-main-0 of storage class {name} is not bound to a volume",
            "`kubectl describe pvc data0-store-pool-main-0` says why",
        )
    finally:
        store.cluster.delete_class(name)


def test_a_pool_that_never_comes_up_holds_up_neither_drains_nor_rolls_of_the_others(store: Store) -> None:
    """Its pods count in no budget of pods that serve."""
    store.create()
    store.wait_settled()
    name = f"no-volumes-{store.namespace}"
    store.cluster.make_class_without_volumes(name)
    try:
        first = store.tenant["spec"]["pools"][0]
        claim = {"spec": {"resources": {"requests": {"storage": "1Gi"}}, "storageClassName": name}}
        more = {**first, "name": "more", "volumeClaimTemplate": claim}
        store.change(pools=[first, more])
        store.wait_told("Progressing", "data0-store-pool-more-0", "is not bound to a volume")
        before = {pod: uid for pod, uid in store.pods().items() if "-main-" in pod}
        assert store.cluster.evict(store.namespace, "store-pool-main-0")
        store.change(pools=[{**first, "annotations": {"example.com/try": "2"}}, more])
        wait_for("every pod that serves to be another", lambda: not set(before.items()) & set(store.pods().items()))
        wait_for("the Tenant to be Ready", lambda: store.cluster.is_ready(store.namespace, "store"))
    finally:
        store.cluster.delete_class(name)


def test_a_pool_that_holds_data_cannot_be_left_out_however_it_is_tried(store: Store) -> None:
    store.create()
    cluster, namespace = store.cluster, store.namespace
    keys, pods = cluster.secret(namespace, "store-root"), store.pods()
    with cluster.endpoint(namespace, "store") as endpoint:
        s3(endpoint, keys).put_object(Bucket="first", Key="kept", Body=b"here")
    renamed = {**store.tenant["spec"]["pools"][0], "name": "other"}
    with pytest.raises(ApiException) as refused:
        store.change(pools=[renamed])
    assert refused.value.status == 422
    assert "a pool that has joined holds data and cannot be left out" in str(refused.value.body)

    # A Tenant that is made anew has no past that the API server could compare with; the operator has.
    cluster.delete_tenant(namespace, "store", orphan=True)
    wait_for("the Tenant to go", lambda: not cluster.has_tenant(namespace, "store"))
    cluster.create_tenant({**store.tenant, "spec": {**store.tenant["spec"], "pools": [renamed]}})
    told = store.wait_told("SpecValid", "holds data")
    assert told == "spec.pools: pool 'main' holds data and cannot be left out"
    assert store.pods() == pods, "the pods go on running, and no others are made"
    with cluster.endpoint(namespace, "store") as endpoint:
        assert s3(endpoint, keys).get_object(Bucket="first", Key="kept")["Body"].read() == b"here"

    # What it never took over does not go with it.
    cluster.delete_tenant(namespace, "store")
    wait_for("the Tenant to go", lambda: not cluster.has_tenant(namespace, "store"))
    store.create()
    store.wait_settled()
    assert store.pods() == pods
