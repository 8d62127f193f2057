"""A Tenant gets encryption while it runs, a second key, and loses its Secret: told, and never made anew."""

import base64
import hashlib
from typing import Any

import pytest

from holdfast_operator.testing.cluster import Cluster, wait_for
from holdfast_operator.testing.traffic import s3

pytestmark = [pytest.mark.timeout(1200), pytest.mark.cluster]

SECRET = "store-encryption"
BODY = b"what is to be encrypted " * 10_000


def said(cluster: Cluster, namespace: str) -> str:
    """The reason of EncryptionReady, of the newest generation."""
    tenant = cluster.tenant(namespace, "store")
    if tenant["status"].get("observedGeneration") != tenant["metadata"]["generation"]:
        return ""
    return str(cluster.condition(namespace, "store", "EncryptionReady").get("reason", ""))


def test_keys_are_made_once_added_to_and_missed(cluster: Cluster, tenant: dict[str, Any]) -> None:
    """Pods are replaced for it, also where somebody has added a variable to theirs, which applying leaves there."""
    namespace = cluster.make_tenant(tenant)
    container = {"name": "holdfast", "env": [{"name": "SOMEBODY", "value": "else"}]}
    template = {"spec": {"template": {"spec": {"containers": [container]}}}}
    cluster.apps.patch_namespaced_stateful_set("store-pool-main", namespace, template, field_manager="somebody")
    sealed = [{**tenant["spec"]["buckets"][0], "encryption": {"algorithm": "AES256"}}, *tenant["spec"]["buckets"][1:]]
    cluster.patch_tenant(namespace, "store", {"spec": {"encryption": {}, "buckets": sealed}})
    wait_for("keys to be in use", lambda: said(cluster, namespace) == "KeysInUse", 300)
    wait_for("the bucket to encrypt by default", lambda: cluster.is_ready(namespace, "store"), 300)
    first = cluster.core.read_namespaced_secret(SECRET, namespace)
    assert list(first.data) == ["default.1"]
    keys = cluster.secret(namespace, "store-user-app")
    with cluster.endpoint(namespace, "store") as endpoint:
        client = s3(endpoint, keys)
        assert client.put_object(Bucket="first", Key="one", Body=BODY)["ServerSideEncryption"] == "AES256"

        second = base64.b64encode(hashlib.sha256(b"for a test").digest()).decode()
        cluster.core.patch_namespaced_secret(SECRET, namespace, {"stringData": {"default.2": second}})
        wait_for(
            "the second key to be in use",
            lambda: (
                said(cluster, namespace) == "KeysInUse"
                and "default.2" in cluster.condition(namespace, "store", "EncryptionReady")["message"]
            ),
            300,
        )
        client.put_object(Bucket="first", Key="two", Body=BODY)

        kept = cluster.core.read_namespaced_secret(SECRET, namespace)
        cluster.core.delete_namespaced_secret(SECRET, namespace)
        wait_for("the loss to be told", lambda: said(cluster, namespace) == "KeysLost", 300)
        for key in ("one", "two"):
            assert client.get_object(Bucket="first", Key=key)["Body"].read() == BODY
        assert SECRET not in [one.metadata.name for one in cluster.core.list_namespaced_secret(namespace).items]

        kept.metadata = {"name": SECRET, "labels": kept.metadata.labels}
        cluster.core.create_namespaced_secret(namespace, kept)
        wait_for("keys to be in use again", lambda: said(cluster, namespace) == "KeysInUse", 300)
        wait_for("the Tenant to be Ready again", lambda: cluster.is_ready(namespace, "store"), 300)
        for key in ("one", "two"):
            assert client.get_object(Bucket="first", Key=key)["Body"].read() == BODY
