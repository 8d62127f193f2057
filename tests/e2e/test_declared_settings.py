"""What a Tenant declares of its buckets and accounts, all at once: each honoured, changed, taken away, put right.

Seen through a client, not through what the store says of its configuration: an object that is gone, a write refused, a
date, an algorithm, an owner.  Only a default that has no effect before tomorrow is asked for by its header.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from holdfast_operator.testing.cluster import Cluster, wait_for
from holdfast_operator.testing.traffic import s3
from holdfast_server.admin.client import AdminClient, AdminFailure
from holdfast_server.contract.accounts import canonical_id
from holdfast_server.contract.buckets import BucketQuota
from holdfast_server.s3.signing import KeyPair
from holdfast_server.testing.boto import refusal

pytestmark = [pytest.mark.timeout(1200), pytest.mark.cluster]

DAY = timedelta(days=1)
OF_LONG_AGO = {"id": "rule", "filter": {"prefix": "old/"}, "expiration": {"date": "2020-01-01"}}
IN_A_MONTH = {"id": "later", "filter": {"prefix": "new/"}, "expiration": {"days": 30}}

BUCKETS: dict[str, dict[str, Any]] = {
    "aging": {"lifecycle": [OF_LONG_AGO]},
    "limited": {"quota": {"objects": 3}},
    "books": {"owner": "finance"},
    "ledger": {"objectLock": {"enabled": True, "mode": "GOVERNANCE", "days": 1}},
    "sealed": {"encryption": {"algorithm": "AES256"}},
}
CHANGED: dict[str, dict[str, Any]] = {
    "aging": {"lifecycle": [IN_A_MONTH]},
    "limited": {"quota": {"objects": 6}},
    "books": {"owner": "sales"},
    "ledger": {"objectLock": {"enabled": True, "mode": "GOVERNANCE", "days": 9}},
    "sealed": {"encryption": {"algorithm": "aws:kms"}},
}
REMOVED: dict[str, dict[str, Any]] = {
    "aging": {"lifecycle": []},
    "limited": {"quota": {}},
    "books": {"owner": "sales"},
    "ledger": {"objectLock": {"enabled": True}},
    "sealed": {"encryption": {"algorithm": "None"}},
}


class Declared:
    """The Tenant `store`, and clients of it."""

    def __init__(self, cluster: Cluster, tenant: dict[str, Any]) -> None:
        self._cluster, self._tenant = cluster, tenant
        self.namespace = str(tenant["metadata"]["namespace"])
        self._endpoint = ""

    def create(self) -> None:
        self._tenant["spec"] |= self._spec(BUCKETS) | {
            "encryption": {},
            "accounts": [{"name": "finance", "displayName": "The money"}, {"name": "sales"}],
            "users": [{"name": name, "account": name, "accountRoot": True} for name in ("finance", "sales")],
        }
        self._cluster.create_tenant(self._tenant)
        self._wait_ready()

    def declare(self, buckets: dict[str, dict[str, Any]], **more: Any) -> None:
        """Returns once it is so."""
        self._cluster.patch_tenant(self.namespace, "store", {"spec": self._spec(buckets) | more})
        self._wait_ready()

    def _spec(self, buckets: dict[str, dict[str, Any]]) -> dict[str, Any]:
        return {"buckets": [{"name": name, **declared} for name, declared in buckets.items()]}

    def _wait_ready(self) -> None:
        wait_for("the Tenant to be Ready", lambda: self._cluster.is_ready(self.namespace, "store"), 300)

    @contextmanager
    def reached(self) -> Iterator[None]:
        with self._cluster.endpoint(self.namespace, "store") as self._endpoint:
            yield

    def keys(self, user: str = "") -> dict[str, str]:
        return self._cluster.secret(self.namespace, f"store-user-{user}" if user else "store-root")

    def client(self, user: str = "") -> Any:
        """Of root, or of a user."""
        return s3(self._endpoint, self.keys(user))

    def admin(self) -> AdminClient:
        keys = self.keys()
        return AdminClient(self._endpoint, KeyPair(keys["accessKey"], keys["secretKey"]))

    def status(self) -> dict[str, Any]:
        return dict(self._cluster.tenant(self.namespace, "store")["status"])

    def state(self, bucket: str) -> tuple[str, str]:
        """With the message."""
        tenant = self._cluster.tenant(self.namespace, "store")
        if tenant["status"].get("observedGeneration") != tenant["metadata"]["generation"]:
            return "", ""
        (found,) = [one for one in tenant["status"]["buckets"] if one["name"] == bucket]
        return found["state"], found.get("message", "")

    def events(self, reason: str) -> str:
        listed = self._cluster.core.list_namespaced_event(self.namespace).items
        return " ".join(event.message for event in listed if event.reason == reason)


@pytest.fixture
def declared(cluster: Cluster, tenant: dict[str, Any]) -> Iterator[Declared]:
    found = Declared(cluster, tenant)
    found.create()
    with found.reached():
        yield found


def fill(root: Any, at_most: int) -> None:
    """Until the quota holds through every pod, however the writes are spread: no more than so many, by the listing."""

    def held() -> bool:
        there = {entry["Key"] for entry in root.list_objects_v2(Bucket="limited").get("Contents", [])}
        if len(there) < at_most:
            root.put_object(Bucket="limited", Key=f"k{len(there)}", Body=b"x")
            return False
        # A pod that has not counted the bucket yet takes one more: it is taken away again.
        code = refusal(root.put_object, Bucket="limited", Key="beyond", Body=b"x")
        if not code:
            root.delete_object(Bucket="limited", Key="beyond")
        return code == "QuotaExceeded"

    wait_for(f"a quota of {at_most}", held)


def retained_days(root: Any, key: str) -> int:
    """For how many whole days from now, rounded up, a new object is kept."""
    version = root.put_object(Bucket="ledger", Key=key, Body=b"x")["VersionId"]
    found = root.head_object(Bucket="ledger", Key=key, VersionId=version)
    if "ObjectLockRetainUntilDate" not in found:
        return 0
    assert found["ObjectLockMode"] == "GOVERNANCE"
    assert refusal(root.delete_object, Bucket="ledger", Key=key, VersionId=version) == "AccessDenied"
    return -(-(found["ObjectLockRetainUntilDate"] - datetime.now(UTC)) // DAY)


def scan(declared: Declared) -> None:
    """Has the pods look through the buckets now."""
    try:
        declared.admin().start_scan()
    except AdminFailure:
        pass  # asked again


def honoured(declared: Declared) -> None:
    root, finance, sales = declared.client(), declared.client("finance"), declared.client("sales")
    for key in ("old/one", "new/one"):
        root.put_object(Bucket="aging", Key=key, Body=b"x")

    def expired() -> bool:
        scan(declared)
        return [entry["Key"] for entry in root.list_objects_v2(Bucket="aging")["Contents"]] == ["new/one"]

    wait_for("what is old to expire", expired)
    fill(root, 3)
    finance.put_object(Bucket="books", Key="balance", Body=b"42")
    assert finance.get_bucket_acl(Bucket="books")["Owner"]["ID"] == canonical_id("finance")
    assert refusal(sales.get_object, Bucket="books", Key="balance") == "AccessDenied"
    assert retained_days(root, "first") == 1
    assert root.put_object(Bucket="sealed", Key="one", Body=b"secret")["ServerSideEncryption"] == "AES256"
    accounts = {one["name"]: one for one in declared.status()["accounts"]}
    assert accounts["finance"]["canonicalId"] == canonical_id("finance")
    assert {one["state"] for one in (*accounts.values(), *declared.status()["users"])} == {"Ready"}


def changed(declared: Declared) -> None:
    root, finance, sales = declared.client(), declared.client("finance"), declared.client("sales")
    declared.declare(CHANGED)
    root.put_object(Bucket="aging", Key="old/two", Body=b"x")
    wait_for(
        "every pod to go by the new rules",
        lambda: (
            'rule-id="later"' in root.head_object(Bucket="aging", Key="new/one").get("Expiration", "")
            and "Expiration" not in root.head_object(Bucket="aging", Key="old/two")
        ),
    )
    fill(root, 6)
    assert sales.get_object(Bucket="books", Key="balance")["Body"].read() == b"42"
    assert refusal(finance.get_object, Bucket="books", Key="balance") == "AccessDenied"
    wait_for("the longer retention", lambda: retained_days(root, "second") == 9)
    wait_for(
        "the other algorithm",
        lambda: root.put_object(Bucket="sealed", Key="two", Body=b"secret")["ServerSideEncryption"] == "aws:kms",
    )


def refused(declared: Declared) -> None:
    """One setting that cannot be is told at its bucket, and holds up no other."""
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject",
                                                      "Resource": "arn:aws:s3:::elsewhere/*"}]}  # fmt: skip
    buckets = {**CHANGED, "aging": {"lifecycle": [OF_LONG_AGO], "policy": policy}, "books": {}}
    declared._cluster.patch_tenant(declared.namespace, "store", {"spec": declared._spec(buckets)})
    wait_for("the refusal", lambda: declared.state("aging")[0] == "Failed")
    assert "MalformedPolicy" in declared.state("aging")[1]
    assert declared.state("books")[0] == "Failed"
    assert "'sales': spec.buckets[].owner has to say so" in declared.state("books")[1]
    assert declared.state("limited") == ("Ready", "")
    condition = declared._cluster.condition(declared.namespace, "store", "BucketsReady")
    assert (condition["status"], "aging" in condition["message"]) == ("False", True)
    rules = declared.client().get_bucket_lifecycle_configuration(Bucket="aging")["Rules"]
    assert [rule["ID"] for rule in rules] == ["rule"], "the rules do not wait for the policy"


def removed(declared: Declared) -> None:
    root, sales = declared.client(), declared.client("sales")
    gone = declared.keys("finance")
    declared.declare(
        REMOVED,
        accounts=[{"name": "sales"}],
        users=[{"name": "sales", "account": "sales", "accountRoot": True}],
    )
    wait_for("no rule", lambda: "Expiration" not in root.head_object(Bucket="aging", Key="new/one"))
    for key in (f"more{number}" for number in range(6)):
        wait_for("no quota", lambda key=key: not refusal(root.put_object, Bucket="limited", Key=key, Body=b"x"))
    assert sales.get_object(Bucket="books", Key="balance")["Body"].read() == b"42"
    wait_for("no retention", lambda: retained_days(root, "third") == 0)
    wait_for(
        "no encryption",
        lambda: "ServerSideEncryption" not in root.put_object(Bucket="sealed", Key="three", Body=b"plain"),
    )
    for key in ("one", "two"):
        assert root.get_object(Bucket="sealed", Key=key)["Body"].read() == b"secret"
    assert root.get_object_lock_configuration(Bucket="ledger")["ObjectLockConfiguration"] == {
        "ObjectLockEnabled": "Enabled"
    }
    wait_for(
        "the user to be gone",
        lambda: refusal(s3(declared._endpoint, gone).list_buckets) == "InvalidAccessKeyId",
    )
    assert [one["name"] for one in declared.status()["accounts"]] == ["sales"]


def test_settings_are_honoured_changed_refused_and_taken_away(declared: Declared) -> None:
    honoured(declared)
    changed(declared)
    refused(declared)
    removed(declared)


@pytest.mark.skipif(
    "KUBECONFIG" not in os.environ and "HOLDFAST_ALL_OPERATIONS" not in os.environ,
    reason="takes a minute, the time between two looks: HOLDFAST_ALL_OPERATIONS=1",
)
def test_what_clients_change_is_as_declared_again(declared: Declared) -> None:
    root = declared.client()
    root.delete_bucket_lifecycle(Bucket="aging")
    declared.admin().put_bucket_quota("limited", BucketQuota(objects=99))
    root.put_object_lock_configuration(
        Bucket="ledger",
        ObjectLockConfiguration={
            "ObjectLockEnabled": "Enabled",
            "Rule": {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 3}},
        },
    )
    root.delete_bucket_encryption(Bucket="sealed")
    admin = declared.admin()
    admin.remove_account("sales")

    def put_right() -> bool:
        told = declared.events("DriftCorrected")
        return all(word in told for word in ("lifecycle", "quota", "object-lock", "encryption", "account sales"))

    wait_for("the drift to be told", put_right)
    wait_for("the Tenant to be Ready", lambda: declared.state("aging") == ("Ready", ""))
    assert admin.bucket_quota("limited") == BucketQuota(objects=3)
    assert [rule["ID"] for rule in root.get_bucket_lifecycle_configuration(Bucket="aging")["Rules"]] == ["rule"]
    wait_for("the retention that is declared", lambda: retained_days(root, "drifted") == 1)
    wait_for(
        "the encryption that is declared",
        lambda: root.put_object(Bucket="sealed", Key="four", Body=b"x").get("ServerSideEncryption") == "AES256",
    )
    assert {one.name for one in admin.accounts() if one.declared} >= {"finance", "sales"}
