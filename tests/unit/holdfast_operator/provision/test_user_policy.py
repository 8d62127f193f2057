"""The policy of a user's buckets allows these buckets and no others."""

from __future__ import annotations

from holdfast_operator.provision.policy import render_policy
from holdfast_operator.tenant.spec import BucketGrant


def test_each_access_has_its_own_statements() -> None:
    document = render_policy([BucketGrant("chunks"), BucketGrant("ruler"), BucketGrant("shared", "ReadOnly")])
    by_resource = {tuple(item["Resource"]): item["Action"] for item in document["Statement"]}
    chunks = by_resource["arn:aws:s3:::chunks/*", "arn:aws:s3:::ruler/*"]
    shared = by_resource[("arn:aws:s3:::shared/*",)]
    assert "s3:PutObject" in chunks
    assert "s3:AbortMultipartUpload" in chunks
    assert not {"s3:PutObject", "s3:DeleteObject"} & set(shared)
    assert "s3:ListBucket" in by_resource[("arn:aws:s3:::shared",)]
    assert all(item["Effect"] == "Allow" for item in document["Statement"])
    assert not any("*" in action for item in document["Statement"] for action in item["Action"])


def test_nothing_is_granted_on_buckets_that_share_a_prefix() -> None:
    resources = [name for item in render_policy([BucketGrant("a")])["Statement"] for name in item["Resource"]]
    assert set(resources) == {"arn:aws:s3:::a", "arn:aws:s3:::a/*"}
