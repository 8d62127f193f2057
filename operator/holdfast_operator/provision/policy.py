"""The policy that stands for a user's `buckets`: exactly these buckets, nothing else.  Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holdfast_operator.tenant.limits import GENERATED_POLICY_PREFIX
from holdfast_operator.tenant.spec import BucketGrant

_BUCKET_READ = ["s3:GetBucketLocation", "s3:ListBucket", "s3:ListBucketVersions"]
_BUCKET_WRITE = [*_BUCKET_READ, "s3:ListBucketMultipartUploads"]
_OBJECT_READ = ["s3:GetObject", "s3:GetObjectTagging", "s3:GetObjectVersion"]
_OBJECT_WRITE = [
    *_OBJECT_READ,
    "s3:PutObject",
    "s3:PutObjectTagging",
    "s3:DeleteObject",
    "s3:DeleteObjectTagging",
    "s3:DeleteObjectVersion",
    "s3:AbortMultipartUpload",
    "s3:ListMultipartUploadParts",
]


def generated_policy_name(user_name: str) -> str:
    return f"{GENERATED_POLICY_PREFIX}{user_name}"


def render_policy(grants: Sequence[BucketGrant]) -> dict[str, Any]:
    """Two statements per kind of access: the buckets themselves, and what is in them."""
    statements = []
    for access, on_bucket, on_objects in (
        ("ReadWrite", _BUCKET_WRITE, _OBJECT_WRITE),
        ("ReadOnly", _BUCKET_READ, _OBJECT_READ),
    ):
        buckets = sorted({grant.name for grant in grants if grant.access == access})
        if buckets:
            statements += [
                _allow(on_bucket, [f"arn:aws:s3:::{name}" for name in buckets]),
                _allow(on_objects, [f"arn:aws:s3:::{name}/*" for name in buckets]),
            ]
    return {"Version": "2012-10-17", "Statement": statements}


def _allow(actions: list[str], resources: list[str]) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": actions, "Resource": resources}
