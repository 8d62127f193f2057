"""How drives are cut into sets, and how many losses each cut survives."""

from __future__ import annotations

import pytest

from holdfast_server.contract import geometry
from holdfast_server.contract.geometry import GeometryError, Quorums

CUTS = [(s, v) for s in range(1, 18) for v in range(1, 9)]


@pytest.mark.parametrize(
    ("set_size", "parity", "expected"),
    [
        (1, 0, Quorums(1, 1, 0, 1, 1)),
        (2, 1, Quorums(2, 1, 1, 2, 1)),
        (3, 1, Quorums(3, 2, 1, 2, 2)),
        (4, 2, Quorums(4, 2, 2, 3, 2)),
        (4, 1, Quorums(4, 3, 1, 3, 2)),
        (8, 4, Quorums(8, 4, 4, 5, 4)),
        (6, 2, Quorums(6, 4, 2, 4, 3)),
        (16, 4, Quorums(16, 12, 4, 12, 5)),
    ],
)
def test_quorums_of_known_geometries(set_size: int, parity: int, expected: Quorums) -> None:
    assert geometry.quorums(set_size, parity) == expected


@pytest.mark.parametrize("set_size", range(2, 17))
def test_quorums_meet_and_suffice(set_size: int) -> None:
    for parity in range(1, set_size // 2 + 1):
        q = geometry.quorums(set_size, parity)
        assert 2 * q.write_quorum > set_size, "two write quorums share a drive"
        assert q.read_quorum + q.write_quorum > set_size, "a read meets every write"
        assert q.write_quorum >= q.data_shards, "what is committed can be read back"
        assert q.read_quorum <= q.data_shards, "any K drives can decide a read"


@pytest.mark.parametrize(
    ("servers", "volumes", "set_size"),
    [(1, 1, 1), (1, 4, 4), (4, 1, 4), (4, 2, 8), (4, 4, 16), (4, 8, 16), (3, 1, 3), (2, 1, 2), (6, 4, 12), (16, 1, 16)],
)
def test_the_largest_even_set_is_chosen(servers: int, volumes: int, set_size: int) -> None:
    assert geometry.choose_set_size(servers, volumes) == set_size


@pytest.mark.parametrize(("servers", "volumes"), CUTS)
def test_every_possible_cut_uses_each_drive_once_and_spreads_evenly(servers: int, volumes: int) -> None:
    for size in geometry.possible_set_sizes(servers, volumes):
        groups = geometry.erasure_sets(servers, volumes, size)
        slots = [slot for group in groups for slot in group]
        assert len(slots) == len(set(slots)) == servers * volumes
        assert all(len(group) == size for group in groups)
        for group in groups:
            per_server = [sum(slot.ordinal == s for slot in group) for s in range(servers)]
            used = [count for count in per_server if count]
            assert max(used) == min(used)
            assert max(used) == max(1, size // servers)


@pytest.mark.parametrize(
    ("servers", "volumes", "drives", "lost"), [(4, 2, 3, 1), (4, 1, 1, 1), (2, 1, 0, 0), (8, 1, 3, 3)]
)
def test_tolerated_losses(servers: int, volumes: int, drives: int, lost: int) -> None:
    q = geometry.resolve(servers, volumes)
    assert geometry.tolerated_drives(q) == drives
    assert geometry.tolerated_servers(servers, volumes, q) == lost


@pytest.mark.parametrize(("servers", "volumes"), [(4, 1), (4, 2), (2, 1), (8, 1), (1, 1), (6, 1), (16, 2)])
def test_the_losses_left_of_a_whole_set_are_the_tolerated_ones(servers: int, volumes: int) -> None:
    q = geometry.resolve(servers, volumes)
    group = geometry.erasure_sets(servers, volumes, q.set_size)[0]
    assert geometry.losses_left(q, q.set_size, 0) == geometry.tolerated_drives(q)
    whole = [(slot.ordinal, True) for slot in group]
    assert geometry.server_losses_left(q, whole) == min(geometry.tolerated_servers(servers, volumes, q), servers)


@pytest.mark.parametrize(
    ("full", "healing", "left"), [(8, 0, 3), (7, 1, 3), (7, 0, 2), (5, 0, 0), (4, 4, 0), (5, 3, 1), (2, 0, 0)]
)
def test_what_is_gone_or_healing_is_taken_off(full: int, healing: int, left: int) -> None:
    """4+4: W = 5, reads need 4 full drives."""
    assert geometry.losses_left(geometry.quorums(8, 4), full, healing) == left


def test_servers_left_are_counted_by_the_worst() -> None:
    q = geometry.quorums(8, 4)
    pairs = [(server, True) for server in range(4) for _ in range(2)]
    assert geometry.server_losses_left(q, pairs) == 1
    assert geometry.server_losses_left(q, pairs[1:]) == 1
    assert geometry.server_losses_left(q, pairs[2:]) == 0
    assert geometry.server_losses_left(q, [*pairs[3:], (0, False), (0, False), (1, False)]) == 0
    assert geometry.server_losses_left(geometry.quorums(1, 0), [(0, True)]) == 0


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ((0, 1), "servers"),
        ((1, 0), "volumesPerServer"),
        ((4, 2, 5), "erasure.setSize"),
        ((4, 2, 8, 5), "erasure.parity"),
        ((4, 2, 8, -1), "erasure.parity"),
        ((4, 2, 8, 0), "erasure.parity"),
        ((17, 1), "17 servers"),
    ],
)
def test_a_fault_names_its_field(arguments: tuple[int, ...], field: str) -> None:
    with pytest.raises(GeometryError, match=field.replace(".", r"\.")):
        geometry.resolve(*arguments)


@pytest.mark.parametrize(
    ("servers", "volumes", "parity"),
    [(1, 1, 0), (2, 1, 1), (3, 1, 1), (4, 1, 1), (5, 1, 1), (7, 1, 1), (1, 4, 1), (4, 2, 2), (8, 1, 2), (16, 1, 2)],
)
def test_the_parity_of_reduced_redundancy_by_default(servers: int, volumes: int, parity: int) -> None:
    assert geometry.reduced_parity(servers, volumes, geometry.resolve(servers, volumes)) == parity


@pytest.mark.parametrize(("servers", "volumes"), CUTS)
def test_objects_of_reduced_redundancy_bear_the_loss_of_a_server_where_others_do(servers: int, volumes: int) -> None:
    if not geometry.possible_set_sizes(servers, volumes):
        return
    q = geometry.resolve(servers, volumes)
    reduced = geometry.quorums(q.set_size, geometry.reduced_parity(servers, volumes, q))
    bears = geometry.tolerated_servers(servers, volumes, q) > 0
    assert (geometry.tolerated_servers(servers, volumes, reduced) > 0) == bears
    assert reduced.write_quorum >= q.write_quorum
    assert reduced.read_quorum <= q.read_quorum
    for chosen in range(10):
        try:
            geometry.reduced_parity(servers, volumes, q, chosen)
        except GeometryError:
            continue
        assert min(1, q.parity_shards) <= chosen <= q.parity_shards
        mine = geometry.quorums(q.set_size, chosen)
        assert (geometry.tolerated_servers(servers, volumes, mine) > 0) == bears


def test_a_parity_that_no_restart_would_leave_readable_is_refused_with_the_reason() -> None:
    with pytest.raises(GeometryError, match="1 is not within 2 to 4, the parity; each server has 2 drives of a set"):
        geometry.reduced_parity(4, 2, geometry.resolve(4, 2), 1)
    with pytest.raises(GeometryError, match="5 is not within 2 to 4"):
        geometry.reduced_parity(4, 2, geometry.resolve(4, 2), 5)
