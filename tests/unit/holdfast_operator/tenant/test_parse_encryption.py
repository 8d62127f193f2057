"""Encryption as a Tenant declares it."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast_operator.tenant.parse import parse_tenant
from holdfast_operator.tenant.spec import BucketEncryptionSpec, EncryptionSpec


def test_what_is_declared_is_read(tenant_body: Any) -> None:
    spec = parse_tenant(
        tenant_body(
            encryption={
                "secretRef": {"name": "mine"},
                "customerKeysOverPlaintext": "Accepted",
                "retiredKeys": ["default.1"],
            },
            buckets=[{"name": "b-1", "encryption": {"algorithm": "aws:kms", "keyName": "billing"}}],
        )
    ).spec
    assert spec is not None
    assert spec.encryption == EncryptionSpec("mine", "Accepted", ("default.1",))
    assert spec.buckets[0].encryption == BucketEncryptionSpec("aws:kms", "billing")


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"encryption": {"customerKeysOverPlaintext": "Maybe"}}, "spec.encryption.customerKeysOverPlaintext"),
        ({"encryption": {"retiredKeys": ["a b"]}}, "spec.encryption.retiredKeys[0]"),
        ({"encryption": {"key": "x"}}, "spec.encryption.key"),
        ({"encryption": {"secretRef": {}}}, "spec.encryption.secretRef.name"),
        ({"buckets": [{"name": "b-1", "encryption": {"algorithm": "AES256"}}]}, "spec.buckets[0].encryption"),
        (
            {"encryption": {}, "buckets": [{"name": "b-1", "encryption": {"algorithm": "rot13"}}]},
            "spec.buckets[0].encryption.algorithm",
        ),
        (
            {"encryption": {}, "buckets": [{"name": "b-1", "encryption": {"algorithm": "AES256", "keyName": "k"}}]},
            "spec.buckets[0].encryption.keyName",
        ),
    ],
)
def test_each_fault_names_its_field(tenant_body: Any, changes: dict[str, Any], fault: str) -> None:
    found = [str(one) for one in parse_tenant(tenant_body(**changes)).faults]
    assert any(one.startswith(fault) for one in found), found


def test_a_bucket_may_be_told_to_have_none_without_keys(tenant_body: Any) -> None:
    body = tenant_body(buckets=[{"name": "b-1", "encryption": {"algorithm": "None"}}])
    assert not parse_tenant(body).faults
