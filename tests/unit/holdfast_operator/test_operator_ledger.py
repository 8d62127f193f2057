"""The ledger: what must never be forgotten, and what may never change."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast_operator.ledger import (
    Ledger,
    LedgerError,
    advance_pools,
    check_against_ledger,
    decode_ledger,
    encode_ledger,
)
from holdfast_operator.tenant.parse import parse_tenant
from holdfast_operator.tenant.spec import TenantSpec


def tenant_with(make_body: Any, *pools: tuple[str, int, int]) -> TenantSpec:
    claim = {"spec": {"resources": {"requests": {"storage": "1Gi"}}}}
    body = make_body(
        pools=[
            {"name": name, "servers": servers, "volumesPerServer": volumes, "volumeClaimTemplate": claim}
            for name, servers, volumes in pools
        ]
    )
    spec = parse_tenant(body).spec
    assert spec is not None
    return spec


def all_report(ledger: Ledger, epoch: int) -> dict[tuple[str, int], int]:
    return {(pool.name, ordinal): epoch for pool in ledger.pools for ordinal in range(pool.servers)}


def test_the_first_pools_are_writable_at_once(tenant_body: Any) -> None:
    tenant = tenant_with(tenant_body, ("a", 4, 1), ("b", 2, 2))
    ledger = advance_pools(Ledger(), tenant.pools, {}, ())
    assert ledger.epoch == 1
    assert [(pool.first_node, pool.writable_from_epoch) for pool in ledger.pools] == [(0, 1), (4, 1)]
    assert advance_pools(ledger, tenant.pools, {}, ()) == ledger


def test_a_later_pool_is_formatted_then_readable_then_writable(tenant_body: Any) -> None:
    first = advance_pools(Ledger(), tenant_with(tenant_body, ("a", 4, 1)).pools, {}, ())
    pools = tenant_with(tenant_body, ("a", 4, 1), ("b", 4, 1)).pools
    added = advance_pools(first, pools, {}, ())
    assert (added.epoch, added.pools[1].readable_from_epoch, added.pools[1].writable_from_epoch) == (1, 2, 3)
    assert added.pools[1].first_node == 4
    assert [pool.name for pool in added.serving_pools] == ["a"]
    assert [pool.name for pool in added.joining_pools] == ["b"]
    assert advance_pools(added, pools, all_report(added, 1), ()).epoch == 1, "not before its drives are formatted"
    late = {**all_report(added, 1), ("a", 2): 0}
    assert advance_pools(added, pools, late, {"b"}).epoch == 1, "not before every pod reports the epoch"
    readable = advance_pools(added, pools, all_report(added, 1), {"b"})
    assert readable.epoch == 2
    assert len(readable.serving_pools) == 2
    late = {**all_report(added, 2), ("b", 3): 1}
    assert advance_pools(readable, pools, late, ()).epoch == 2
    writable = advance_pools(readable, pools, all_report(added, 2), ())
    assert writable.epoch == 3
    assert writable.joining_pools == ()
    assert advance_pools(writable, pools, all_report(added, 3), ()) == writable


def test_the_next_pool_waits_until_the_one_before_has_joined(tenant_body: Any) -> None:
    two = tenant_with(tenant_body, ("a", 4, 1), ("b", 4, 1)).pools
    three = tenant_with(tenant_body, ("a", 4, 1), ("b", 4, 1), ("c", 4, 1)).pools
    ledger = advance_pools(Ledger(), two[:1], {}, ())
    ledger = advance_pools(ledger, two, {}, ())
    for epoch in (1, 2):
        ledger = advance_pools(ledger, three, all_report(ledger, epoch), {"b"})
        assert (ledger.epoch, len(ledger.pools)) == (epoch + 1, 2)
    ledger = advance_pools(ledger, three, {}, ())
    assert (ledger.epoch, ledger.pools[2].readable_from_epoch, ledger.pools[2].first_node) == (3, 4, 8)


def test_formatted_is_never_taken_back(tenant_body: Any) -> None:
    tenant = tenant_with(tenant_body, ("a", 4, 1))
    ledger = advance_pools(advance_pools(Ledger(), tenant.pools, {}, ()), tenant.pools, {}, {"a"})
    assert ledger.pools[0].formatted
    assert advance_pools(ledger, tenant.pools, {}, ()).pools[0].formatted


def test_geometry_and_membership_are_frozen(tenant_body: Any) -> None:
    ledger = advance_pools(Ledger(), tenant_with(tenant_body, ("a", 4, 1), ("b", 4, 1)).pools, {}, ())
    faults = [str(fault) for fault in check_against_ledger(tenant_with(tenant_body, ("a", 6, 2)), ledger)]
    assert faults == [
        "spec.pools[0].servers: is 6, but the pool's drives were laid out with 4",
        "spec.pools[0].volumesPerServer: is 2, but the pool's drives were laid out with 1",
        "spec.pools[0].erasure.setSize: is 12, but the pool's drives were laid out with 4",
        "spec.pools[0].erasure.parity: is 4, but the pool's drives were laid out with 2",
        "spec.pools: pool 'b' holds data and cannot be left out",
    ]


def test_pod_numbers_are_bounded(tenant_body: Any) -> None:
    ledger = advance_pools(Ledger(), tenant_with(tenant_body, *[(n, 256, 1) for n in "abcd"]).pools, {}, ())
    more = tenant_with(tenant_body, *[(n, 256, 1) for n in "abcd"])
    assert check_against_ledger(more, ledger) == ()
    pools = (*more.pools, tenant_with(tenant_body, ("e", 2, 1)).pools[0])
    crowded = TenantSpec(name="logs", namespace="loki", uid="u", generation=1, pools=pools)
    assert "pod numbers beyond 1023" in str(check_against_ledger(crowded, ledger)[0])


def test_the_ledger_survives_writing_and_reading(tenant_body: Any) -> None:
    ledger = advance_pools(Ledger(users={"loki": ("A", "B")}), tenant_with(tenant_body, ("a", 4, 1)).pools, {}, ())
    assert decode_ledger(encode_ledger(ledger)) == ledger


@pytest.mark.parametrize("data", [b"", b"[]", b'{"version": 2}', b'{"unknown": 1}', b'{"pools": [{}]}'])
def test_a_ledger_that_cannot_be_understood_is_an_error(data: bytes) -> None:
    with pytest.raises(LedgerError):
        decode_ledger(data)


def test_the_bytes_of_version_1_are_still_read() -> None:
    stored = (
        b'{"buckets":{"a":"Retain"},"epoch":3,"policies":["p"],"pools":[{"firstNode":0,"formatted":true,'
        b'"name":"main","parity":4,"readableFromEpoch":1,"servers":4,"setSize":8,"volumesPerServer":2,'
        b'"writableFromEpoch":1}],"users":{"loki":["KEY"]},"version":1}'
    )
    ledger = decode_ledger(stored)
    assert encode_ledger(ledger) == stored
    assert ledger.pools[0].formatted
