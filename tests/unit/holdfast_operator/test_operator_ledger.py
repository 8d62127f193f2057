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
    left_out,
    take_out,
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


def test_a_pool_that_no_request_goes_to_may_be_left_out(tenant_body: Any) -> None:
    """Its name and its numbers are not given again: pods may remember its drives, and it may have made stamps."""
    one, two = tenant_with(tenant_body, ("a", 4, 1)), tenant_with(tenant_body, ("a", 4, 1), ("b", 40, 1))
    ledger = advance_pools(advance_pools(Ledger(), one.pools, {}, ()), two.pools, {}, ())
    assert check_against_ledger(one, ledger) == ()
    assert left_out(ledger, ["a", "b"]) == ()
    assert left_out(ledger, []) == ("b",)
    assert take_out(ledger, ()) == ledger
    without = take_out(ledger, left_out(ledger, ["a"]))
    assert ([pool.name for pool in without.pools], without.epoch) == (["a"], 1)
    assert (without.taken_out, without.next_node) == (("b",), 44)
    assert advance_pools(without, one.pools, all_report(without, 1), ()) == without
    assert decode_ledger(encode_ledger(without)) == without
    assert [str(fault) for fault in check_against_ledger(two, without)] == [
        "spec.pools[1].name: a pool 'b' was taken out before: give this one another name"
    ]
    three = tenant_with(tenant_body, ("a", 4, 1), ("c", 4, 1), ("d", 4, 1))
    added = advance_pools(without, three.pools, all_report(without, 1), ())
    assert [(pool.name, pool.first_node, pool.readable_from_epoch) for pool in added.pools[1:]] == [
        ("c", 44, 2),
        ("d", 48, 2),
    ]
    assert added.taken_out == ("b",)
    reports = all_report(added, 1)
    assert advance_pools(added, three.pools, reports, {"c", "d"}, ["b"]).epoch == 1, "who goes by it may still be there"
    assert advance_pools(added, three.pools, reports, {"c", "d"}).epoch == 2


def test_a_pool_is_exchanged_for_another_in_one_step(tenant_body: Any) -> None:
    ledger = advance_pools(Ledger(), tenant_with(tenant_body, ("a", 4, 1)).pools, {}, ())
    ledger = advance_pools(ledger, tenant_with(tenant_body, ("a", 4, 1), ("b", 4, 1)).pools, {}, ())
    mended = tenant_with(tenant_body, ("a", 4, 1), ("c", 4, 1))
    assert check_against_ledger(mended, ledger) == ()
    assert advance_pools(ledger, mended.pools, {}, ()) == ledger, "not before somebody has made sure"
    ledger = advance_pools(take_out(ledger, ["b"]), mended.pools, {}, ())
    assert [(pool.name, pool.first_node) for pool in ledger.pools] == [("a", 0), ("c", 8)]


def test_a_pool_that_is_read_cannot_be_left_out_though_it_is_not_written(tenant_body: Any) -> None:
    one, two = tenant_with(tenant_body, ("a", 4, 1)), tenant_with(tenant_body, ("a", 4, 1), ("b", 4, 1))
    ledger = advance_pools(advance_pools(Ledger(), one.pools, {}, ()), two.pools, {}, ())
    readable = advance_pools(ledger, two.pools, all_report(ledger, 1), {"b"})
    assert readable.epoch == 2
    assert readable.joining_pools
    assert [str(fault) for fault in check_against_ledger(one, readable)] == [
        "spec.pools: pool 'b' holds data and cannot be left out"
    ]
    assert left_out(readable, ["a"]) == ()


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
