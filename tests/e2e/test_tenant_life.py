"""A Tenant from `apply` to `delete` and back, as its owner and its clients see it."""

from typing import Any

import pytest
from botocore.exceptions import ClientError
from kubernetes.client.exceptions import ApiException

from holdfast_operator.testing.cluster import Cluster, wait_for
from holdfast_operator.testing.traffic import s3
from holdfast_server.testing.standin import StandIn

pytestmark = [pytest.mark.timeout(1200)]


@pytest.mark.cluster
def test_a_declared_user_may_use_its_bucket_and_no_other(cluster: Cluster, tenant: dict[str, Any]) -> None:
    namespace = cluster.make_tenant(tenant)
    keys = cluster.secret(namespace, "store-user-app")
    assert keys["endpoint"] == f"store.{namespace}.svc.cluster.local:9000"
    assert keys["AWS_ACCESS_KEY_ID"] == keys["accessKey"]
    with cluster.endpoint(namespace, "store") as endpoint:
        user = s3(endpoint, keys)
        user.put_object(Bucket="first", Key="a/b", Body=b"hello")
        assert user.get_object(Bucket="first", Key="a/b")["Body"].read() == b"hello"
        assert [entry["Key"] for entry in user.list_objects_v2(Bucket="first")["Contents"]] == ["a/b"]
        with pytest.raises(ClientError) as refused:
            user.put_object(Bucket="second", Key="x", Body=b"")
        assert refused.value.response["Error"]["Code"] == "AccessDenied"


@pytest.mark.cluster
def test_a_deleted_pod_comes_back_and_no_client_notices(cluster: Cluster, tenant: dict[str, Any]) -> None:
    namespace = cluster.make_tenant(tenant)
    with cluster.endpoint(namespace, "store") as endpoint:
        root = s3(endpoint, cluster.secret(namespace, "store-root"))
        before = cluster.core.read_namespaced_pod("store-pool-main-1", namespace).metadata.uid
        cluster.core.delete_namespaced_pod("store-pool-main-1", namespace)
        for number in range(60):
            root.put_object(Bucket="first", Key=f"k/{number}", Body=b"x" * 1000 * number)
            assert len(root.get_object(Bucket="first", Key=f"k/{number}")["Body"].read()) == 1000 * number

        def is_back() -> bool:
            try:
                pod = cluster.core.read_namespaced_pod("store-pool-main-1", namespace)
            except ApiException:
                return False
            ready = [c.status for c in pod.status.conditions or [] if c.type == "Ready"]
            return pod.metadata.uid != before and ready == ["True"]

        wait_for("the pod to be back", is_back)
        wait_for("the Tenant to be whole", lambda: cluster.tenant(namespace, "store")["status"]["health"] == "Healthy")


@pytest.mark.cluster
def test_a_tenant_applied_again_on_its_kept_claims_has_its_data(cluster: Cluster, tenant: dict[str, Any]) -> None:
    namespace = cluster.make_tenant(tenant)
    wanted = {f"keep/{size}": bytes([size % 251]) * size for size in (0, 10, 70_000, 3_000_000)}
    keys = cluster.secret(namespace, "store-root")
    with cluster.endpoint(namespace, "store") as endpoint:
        for key, body in wanted.items():
            s3(endpoint, keys).put_object(Bucket="first", Key=key, Body=body)
    claims = cluster.names("persistent_volume_claim", namespace)
    assert len(claims) == 4

    cluster.delete_tenant(namespace, "store")
    wait_for("the pods to go", lambda: not cluster.names("pod", namespace))
    wait_for("the Services to go", lambda: "store" not in cluster.names("service", namespace))
    assert cluster.names("persistent_volume_claim", namespace) == claims
    assert cluster.secret(namespace, "store-root") == keys

    cluster.make_tenant(tenant)
    assert cluster.secret(namespace, "store-root") == keys
    with cluster.endpoint(namespace, "store") as endpoint:
        for key, body in wanted.items():
            assert s3(endpoint, keys).get_object(Bucket="first", Key=key)["Body"].read() == body
        listed = s3(endpoint, keys).list_objects_v2(Bucket="first", Prefix="keep/")["Contents"]
        assert {entry["Key"] for entry in listed} == set(wanted)


@pytest.mark.cluster
def test_volumes_grow_under_running_pods(cluster: Cluster, tenant: dict[str, Any]) -> None:
    namespace = cluster.make_tenant(tenant)
    pods = {pod.metadata.uid for pod in cluster.core.list_namespaced_pod(namespace).items}
    pool = tenant["spec"]["pools"][0]

    def sized(storage: str) -> dict[str, Any]:
        claim = {"spec": {"resources": {"requests": {"storage": storage}}}}
        return {"spec": {"pools": [{**pool, "volumeClaimTemplate": claim}]}}

    with pytest.raises(ApiException) as refused:
        cluster.patch_tenant(namespace, "store", sized("1Mi"))
    assert "can only grow, or go back to the volumeSize of its pool in the status, 1Gi" in str(refused.value.body)
    cluster.patch_tenant(namespace, "store", sized("2Gi"))

    def template() -> str:
        try:
            found = cluster.apps.read_namespaced_stateful_set("store-pool-main", namespace)
        except ApiException as error:
            if error.status == 404:
                return "between the old one and the new one"
            raise
        return str(found.spec.volume_claim_templates[0].spec.resources.requests["storage"])

    claims = cluster.core.list_namespaced_persistent_volume_claim
    if cluster.claims_can_grow(namespace):
        wait_for("the StatefulSet to be made again", lambda: template() == "2Gi")
        assert {claim.spec.resources.requests["storage"] for claim in claims(namespace).items} == {"2Gi"}
    else:
        wait_for(
            "the refusal", lambda: cluster.condition(namespace, "store", "Progressing")["reason"] == "VolumesCannotGrow"
        )
    wait_for("the Tenant to be Ready", lambda: cluster.is_ready(namespace, "store"))
    assert {pod.metadata.uid for pod in cluster.core.list_namespaced_pod(namespace).items} == pods


@pytest.mark.cluster
def test_a_size_that_the_storage_class_refuses_is_taken_back(
    cluster: Cluster, standin: StandIn | None, tenant: dict[str, Any]
) -> None:
    pool, fixed = tenant["spec"]["pools"][0], f"fixed-{tenant['metadata']['namespace']}"
    claim = pool["volumeClaimTemplate"]["spec"]
    if standin is not None:
        cluster.make_class_of_fixed_size(fixed)
        claim["storageClassName"] = fixed
    try:
        namespace = cluster.make_tenant(tenant)
        if cluster.claims_can_grow(namespace):
            pytest.skip("the default storage class lets claims grow")

        def ask_for(storage: str) -> None:
            sized = {"spec": {**claim, "resources": {"requests": {"storage": storage}}}}
            cluster.patch_tenant(namespace, "store", {"spec": {"pools": [{**pool, "volumeClaimTemplate": sized}]}})

        def wait_told(reason: str) -> str:
            def told() -> dict[str, Any]:
                return cluster.condition(namespace, "store", "Progressing")

            wait_for(reason, lambda: told()["reason"] == reason)
            return str(told()["message"])

        wait_told("Settled")
        ask_for("1000Gi")
        assert "`storage` may go back to 1Gi in pool main" in wait_told("VolumesCannotGrow")
        with pytest.raises(ApiException) as refused:
            ask_for("1023Mi")
        assert "go back to the volumeSize of its pool in the status, 1Gi" in str(refused.value.body)
        ask_for("1Gi")
        wait_told("Settled")
        assert cluster.is_ready(namespace, "store")
    finally:
        if standin is not None:
            cluster.delete_class(fixed)


@pytest.mark.cluster
def test_what_would_lose_data_is_refused_with_the_field(cluster: Cluster, tenant: dict[str, Any]) -> None:
    namespace = cluster.make_tenant(tenant)
    pool = tenant["spec"]["pools"][0]
    with pytest.raises(ApiException) as refused:
        cluster.patch_tenant(namespace, "store", {"spec": {"pools": [{**pool, "servers": 2}]}})
    assert refused.value.status == 422
    assert "servers" in str(refused.value.body)
    typo = {**tenant, "metadata": {"name": "typo", "namespace": namespace}}
    typo["spec"] = {**tenant["spec"], "pools": [{**pool, "erasure": {"setSize": 4, "parity": 3}}]}
    assert "parity" in refusal(cluster, namespace, typo)


def refusal(cluster: Cluster, namespace: str, tenant: dict[str, Any]) -> str:
    """Why a Tenant is refused: by the API server at once, or in its status."""
    name = tenant["metadata"]["name"]
    try:
        cluster.create_tenant(tenant)
    except ApiException as error:
        return str(error.body)
    wait_for("the reason", lambda: cluster.condition(namespace, name, "SpecValid").get("status") == "False")
    return str(cluster.condition(namespace, name, "SpecValid")["message"])
