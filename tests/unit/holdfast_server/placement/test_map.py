"""Placement: where keys go may never change by accident, so some places are written down here."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from holdfast_server.contract.config import ErasureConfig, KeyFiles, PoolConfig, ServerConfig, TenantConfig
from holdfast_server.placement.map import PoolMap, SetId

BUCKET = bytes(range(16))
KEYS = [f"folder/{i:05d}.bin" for i in range(6000)]


def _pool(name: str = "main", servers: int = 4, volumes: int = 2, set_size: int = 4, **more: Any) -> PoolConfig:
    return PoolConfig(
        name=name,
        servers=servers,
        volumes_per_server=volumes,
        erasure=ErasureConfig(set_size=set_size, parity=set_size // 2),
        pod_name_prefix=f"t-pool-{name}-",
        drive_path="/data{volume}",
        **more,
    )


def _map(*pools: PoolConfig, epoch: int = 1, tenant: str = "tenant-1") -> PoolMap:
    keys = KeyFiles(root_user_file="", root_password_file="", peer_key_file="")
    return PoolMap(ServerConfig(tenant=TenantConfig(id=tenant, name="t"), pools=list(pools), keys=keys, epoch=epoch))


GOLDEN = [
    ("a", "main", 1, 1),
    ("b", "more", 0, 0),
    ("folder/index.html", "more", 0, 0),
    ("loki-chunks/fake/1a2b:3c", "more", 0, 0),
    ("ключ/π", "more", 1, 0),
    ("x" * 1024, "main", 1, 0),
    ("", "main", 0, 3),
]


@pytest.mark.parametrize(("key", "pool", "index", "rotation"), GOLDEN)
def test_keys_stay_where_they_always_were(key: str, pool: str, index: int, rotation: int) -> None:
    pools = _map(_pool("main"), _pool("more", servers=8, volumes=1, weight=2.5))
    assert pools.write_set(BUCKET, key) == SetId(pool, index)
    assert pools.rotation(BUCKET, key, 4) == rotation


def test_sets_and_rotations_share_the_keys_evenly() -> None:
    pools = _map(_pool(volumes=4))
    sets = Counter(pools.write_set(BUCKET, key) for key in KEYS)
    assert len(sets) == 4
    assert all(1350 < count < 1650 for count in sets.values())
    rotations = Counter(pools.rotation(BUCKET, key, 4) for key in KEYS)
    assert all(1350 < count < 1650 for count in rotations.values())


def test_sets_and_rotations_are_independent() -> None:
    pools = _map(_pool(volumes=4))
    both = Counter((pools.write_set(BUCKET, key), pools.rotation(BUCKET, key, 4)) for key in KEYS)
    assert len(both) == 16
    assert all(280 < count < 470 for count in both.values())


def test_pools_share_by_weight() -> None:
    pools = _map(_pool("a"), _pool("b", weight=3.0))
    share = Counter(pools.write_set(BUCKET, key).pool for key in KEYS)
    assert 0.71 < share["b"] / len(KEYS) < 0.79


def test_a_new_pool_moves_only_the_keys_it_takes() -> None:
    before = _map(_pool("a"), _pool("b"))
    after = _map(_pool("a"), _pool("b"), _pool("c"))
    moved = [(before.write_set(BUCKET, k), after.write_set(BUCKET, k)) for k in KEYS]
    assert all(new == old or new.pool == "c" for old, new in moved)
    assert 0.28 < sum(new.pool == "c" for _, new in moved) / len(KEYS) < 0.39


def test_a_pool_is_read_before_it_is_written() -> None:
    config = (_pool("a"), _pool("b", readable_from_epoch=2, writable_from_epoch=3))
    one, two, three = (_map(*config, epoch=epoch) for epoch in (1, 2, 3))
    assert {s.pool for s in one.all_sets()} == {"a"}
    assert {s.pool for s in two.all_sets()} == {"a", "b"}
    for key in KEYS[:500]:
        old = one.write_set(BUCKET, key)
        assert two.write_set(BUCKET, key) == old
        assert one.look_up_sets(BUCKET, key) == [old]
        new = three.write_set(BUCKET, key)
        assert three.look_up_sets(BUCKET, key) == list(dict.fromkeys([new, old])), "older writes stay reachable"
        assert two.look_up_sets(BUCKET, key) == three.look_up_sets(BUCKET, key), "and those of pods that are ahead"
    assert (one.one_placement, two.one_placement, three.one_placement) == (True, False, False)
    assert {three.write_set(BUCKET, key).pool for key in KEYS} == {"a", "b"}


def test_every_past_placement_is_looked_at() -> None:
    config = (
        _pool("a"),
        _pool("b", readable_from_epoch=2, writable_from_epoch=3),
        _pool("c", readable_from_epoch=4, writable_from_epoch=5),
    )
    maps = {epoch: _map(*config, epoch=epoch) for epoch in range(1, 7)}
    for epoch, key in [(epoch, key) for epoch in maps for key in KEYS[:300]]:
        looked_up = maps[epoch].look_up_sets(BUCKET, key)
        written = {maps[at].write_set(BUCKET, key) for at in maps if at <= epoch + 1}
        assert written <= set(looked_up), "what any pod up to one epoch ahead may have written"
        assert maps[epoch].write_set(BUCKET, key) in looked_up
        assert len(looked_up) <= len(written) <= 3


def test_another_tenant_or_bucket_places_otherwise() -> None:
    one, other = _map(_pool(volumes=8)), _map(_pool(volumes=8), tenant="tenant-2")
    assert any(one.write_set(BUCKET, key) != other.write_set(BUCKET, key) for key in KEYS[:50])
    assert any(one.write_set(BUCKET, key) != one.write_set(bytes(16), key) for key in KEYS[:50])


def test_slots_and_quorums_of_a_set() -> None:
    pools = _map(_pool())
    assert [s.index for s in pools.all_sets()] == [0, 1]
    assert {slot.ordinal for slot in pools.slots(SetId("main", 1))} == {0, 1, 2, 3}
    assert pools.quorums(SetId("main", 0)).write_quorum == 3


@pytest.mark.parametrize("key", ["", "ключ", "a" * 1024, "\x00", "\U0010ffff"])
def test_any_key_has_a_place(key: str) -> None:
    pools = _map(_pool())
    assert pools.write_set(BUCKET, key) in pools.all_sets()
