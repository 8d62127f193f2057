"""A pool joins a tenant that is being read and written: no request fails, no pod restarts, nothing is lost."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import pytest
from kubernetes.client.exceptions import ApiException

from holdfast_operator.testing.cluster import Cluster, wait_for
from holdfast_operator.testing.traffic import s3
from holdfast_server.testing.repeating import Repeating

pytestmark = [pytest.mark.timeout(1200), pytest.mark.cluster]

BODY_SIZE_BYTES = 200_000
OLD_KEYS = 60
NEW_POOL = {"name": "more", "servers": 2, "volumesPerServer": 2, "erasure": {"setSize": 4, "parity": 2}}


def body(key: str, version: int = 0) -> bytes:
    return (f"{key} {version} ".encode() * BODY_SIZE_BYTES)[:BODY_SIZE_BYTES]


class Traffic(Repeating):
    """Writes, overwrites, reads back, lists and deletes, until it is stopped; remembers what was acknowledged."""

    def __init__(self, client: Any) -> None:
        super().__init__()
        self._client = client
        self.acknowledged: dict[str, int | None] = {}
        self.operations = 0

    def step(self, number: int) -> None:
        old = f"old/{number % OLD_KEYS}"
        if number % 5 == 0:
            self._expect(old)
        elif number % 5 == 1:
            self._put(f"new/{number % 40}", number)
        elif number % 5 == 2:
            self._put(old, number)
        elif number % 5 == 3:
            self._expect(f"new/{(number - 2) % 40}")
        elif number % 50 == 4:
            self._delete(f"new/{(number - 3) % 40}")
            self._list()

    def _put(self, key: str, version: int) -> None:
        self.operations += 1
        self._client.put_object(Bucket="first", Key=key, Body=body(key, version))
        self.acknowledged[key] = version

    def _delete(self, key: str) -> None:
        self.operations += 1
        self._client.delete_object(Bucket="first", Key=key)
        self.acknowledged[key] = None

    def _expect(self, key: str) -> None:
        self.operations += 1
        version = self.acknowledged.get(key)
        if version is None:
            return
        if self._client.get_object(Bucket="first", Key=key)["Body"].read() != body(key, version):
            raise AssertionError(f"{key} is not what was acknowledged")

    def _list(self) -> None:
        self.operations += 1
        wanted = {key for key, version in self.acknowledged.items() if version is not None}
        listed = {entry["Key"] for entry in self._client.list_objects_v2(Bucket="first").get("Contents", [])}
        if listed != wanted:
            raise AssertionError(f"listed wrongly: {listed ^ wanted}")

    def check_everything(self) -> None:
        for key in self.acknowledged:
            self._expect(key)
        self._list()


def test_a_pool_joins_under_traffic(cluster: Cluster, tenant: dict[str, Any]) -> None:
    namespace = cluster.make_tenant(tenant)
    before = pods(cluster, namespace)
    keys = cluster.secret(namespace, "store-root")
    with cluster.endpoint(namespace, "store") as endpoint:
        traffic = Traffic(s3(endpoint, keys))
        for number in range(OLD_KEYS):
            traffic._put(f"old/{number}", 0)
        pool = tenant["spec"]["pools"][0]
        new = {**NEW_POOL, "volumeClaimTemplate": pool["volumeClaimTemplate"]}
        with traffic.running():
            cluster.patch_tenant(namespace, "store", {"spec": {"pools": [pool, new]}})
            wait_for("the pool to be Active", lambda: states(cluster, namespace) == ["Active", "Active"], 300)
            wait_for("the Tenant to be Ready", lambda: cluster.is_ready(namespace, "store"))
            joined_after = traffic.operations
            wait_for("traffic on both pools", lambda: traffic.operations > joined_after + 80, 300)
        assert not traffic.failures
        assert joined_after > 20, "the pool joined before anything was asked of the store"
        traffic.check_everything()
        after = pods(cluster, namespace)
        assert {name: after[name] for name in before} == before, "a pod was restarted"
        assert len(after) == len(before) + 2
        assert used_bytes(endpoint, "more") > 10 * BODY_SIZE_BYTES, "nothing is written in the new pool"
        with pytest.raises(ApiException) as refused:
            cluster.patch_tenant(namespace, "store", {"spec": {"pools": [pool]}})
        assert refused.value.status == 422
        assert "cannot be left out" in str(refused.value.body)


def test_a_pool_with_a_typo_is_taken_out_and_put_right(cluster: Cluster, tenant: dict[str, Any]) -> None:
    namespace = cluster.make_tenant(tenant)
    before = pods(cluster, namespace)
    keys = cluster.secret(namespace, "store-root")
    pool = tenant["spec"]["pools"][0]
    nowhere = f"mistyped-{namespace}"
    template = {"spec": {**pool["volumeClaimTemplate"]["spec"], "storageClassName": nowhere}}
    with cluster.endpoint(namespace, "store") as endpoint:
        traffic = Traffic(s3(endpoint, keys))
        for number in range(OLD_KEYS):
            traffic._put(f"old/{number}", 0)
        with traffic.running():
            typo = {**NEW_POOL, "name": "typo", "volumeClaimTemplate": template}
            cluster.patch_tenant(namespace, "store", {"spec": {"pools": [pool, typo]}})
            wait_for("the pool to join", lambda: states(cluster, namespace) == ["Active", "Joining"], 300)
            wait_for("its pods to be there", lambda: len(pods(cluster, namespace)) == len(before) + 2, 300)
            with pytest.raises(ApiException) as refused:
                cluster.patch_tenant(namespace, "store", {"spec": {"pools": [pool, {**typo, "servers": 4}]}})
            assert refused.value.status == 422
            # The right one beside it would wait for it; in its place it does not.
            mended = {**NEW_POOL, "name": "mended", "volumeClaimTemplate": pool["volumeClaimTemplate"]}
            cluster.patch_tenant(namespace, "store", {"spec": {"pools": [pool, mended]}})
            wait_for("the other to be Active", lambda: states(cluster, namespace) == ["Active", "Active"], 300)
            wait_for("the Tenant to be Ready", lambda: cluster.is_ready(namespace, "store"))
            wait_for("the pods to go", lambda: len(pods(cluster, namespace)) == len(before) + 2, 300)
            # What the operator refuses has no state, and can be taken back.
            again = {**typo, "volumeClaimTemplate": pool["volumeClaimTemplate"]}
            cluster.patch_tenant(namespace, "store", {"spec": {"pools": [pool, mended, again]}})
            wait_for("the refusal", lambda: cluster.condition(namespace, "store", "SpecValid")["status"] == "False")
            assert "was taken out before" in cluster.condition(namespace, "store", "SpecValid")["message"]
            cluster.patch_tenant(namespace, "store", {"spec": {"pools": [pool, mended]}})
            wait_for("the Tenant to be Ready", lambda: cluster.is_ready(namespace, "store"))
        assert not traffic.failures
        traffic.check_everything()
    after = pods(cluster, namespace)
    assert {name: after[name] for name in before} == before, "a pod was restarted"
    assert not [name for name in after if "typo" in name]
    left = [one.metadata.name for one in cluster.core.list_namespaced_persistent_volume_claim(namespace).items]
    assert len([name for name in left if "typo" in name]) == 4, "claims stay"
    told = [event.message for event in cluster.core.list_namespaced_event(namespace).items]
    assert any("pool typo is taken out" in (message or "") for message in told)


def pods(cluster: Cluster, namespace: str) -> dict[str, tuple[str, int]]:
    """Name → uid and restarts."""
    return {
        pod.metadata.name: (pod.metadata.uid, sum(c.restart_count for c in pod.status.container_statuses or []))
        for pod in cluster.core.list_namespaced_pod(namespace).items
    }


def states(cluster: Cluster, namespace: str) -> list[str]:
    return [pool["state"] for pool in cluster.tenant(namespace, "store")["status"].get("pools", [])]


def used_bytes(endpoint: str, pool: str) -> int:
    try:
        with urllib.request.urlopen(f"{endpoint}/health/cluster", timeout=10) as answer:
            drives = json.load(answer)["drives"]
    except urllib.error.HTTPError as error:
        with error:
            raise AssertionError(f"{error.code}: {error.read().decode()}") from error
    return sum(drive["usedBytes"] for drive in drives if drive["pool"] == pool)
