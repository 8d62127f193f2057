"""Many views, one truth."""

from __future__ import annotations

from msgspec import structs

from holdfast_operator.ledger import PoolRecord
from holdfast_operator.observe.health import PodView
from holdfast_operator.observe.redundancy import Redundancy, formatted_pools, merge_views, reported_epochs
from holdfast_server.contract.health import ClusterHealth, DriveHealth, SetHealth

POOL = PoolRecord(
    name="main",
    servers=4,
    volumes_per_server=1,
    set_size=4,
    parity=2,
    first_node=0,
    readable_from_epoch=1,
    writable_from_epoch=1,
)


def view(ordinal: int, states: str, writable: bool = True) -> PodView:
    """`states` has one letter per pod: o(k), h(ealing), x (offline), b(lank)."""
    words = {"o": "ok", "h": "healing", "x": "offline", "b": "blank"}
    drives = [
        DriveHealth(
            pool="main",
            set_index=0,
            position=at,
            ordinal=at,
            volume=0,
            state=words[letter],
            total_bytes=100,
            used_bytes=7,
        )
        for at, letter in enumerate(states)
    ]
    ballot = SetHealth(
        pool="main",
        index=0,
        set_size=4,
        parity=2,
        write_quorum=3,
        online=4,
        healing=0,
        writable=writable,
        readable=True,
    )
    return PodView("main", ordinal, ClusterHealth(healthy=writable, epoch=1, sets=[ballot], drives=drives))


def states(*views: PodView) -> list[str]:
    return [drive.state for drive in merge_views([POOL], views).drives]


def test_a_pods_own_word_counts_for_its_drives() -> None:
    assert states(view(0, "hxxx"), view(1, "oooo"), view(2, "oooo"), view(3, "oooo")) == ["healing", "ok", "ok", "ok"]


def test_a_silent_pod_is_judged_by_the_others() -> None:
    assert states(view(0, "oooo"), view(1, "oooo"), view(2, "ooox")) == ["ok", "ok", "ok", "ok"]
    assert states(view(0, "ooox"), view(1, "ooox"), view(2, "oooo")) == ["ok", "ok", "ok", "offline"]


def test_where_nobody_answers_all_is_offline_and_nothing_is_served() -> None:
    merged = merge_views([POOL], ())
    assert {drive.state for drive in merged.drives} == {"offline"}
    assert not merged.writable
    assert not merged.readable
    assert not merged.whole


def test_one_pod_that_is_cut_off_is_outvoted() -> None:
    views = [view(0, "oooo"), view(1, "oooo"), view(2, "oooo"), view(3, "xxxo", writable=False)]
    merged = merge_views([POOL], views)
    assert merged.writable
    assert merged.whole


def test_a_majority_without_quorum_is_believed() -> None:
    views = [view(0, "oxxx", writable=False), view(1, "xoxx", writable=False), view(2, "xxox")]
    assert not merge_views([POOL], views).writable


def test_a_pool_counts_as_formatted_only_by_every_pods_own_word() -> None:
    whole = [view(ordinal, "oooo") for ordinal in range(4)]
    assert formatted_pools([POOL], merge_views([POOL], whole)) == {"main"}
    assert formatted_pools([POOL], merge_views([POOL], whole[:3])) == frozenset()
    blank = [*whole[:3], view(3, "ooob")]
    assert formatted_pools([POOL], merge_views([POOL], blank)) == frozenset()


def test_a_pod_that_does_not_know_every_pool_reports_no_epoch() -> None:
    views = [view(0, "oooo"), view(1, "oooo")]
    ballots = [*views[1].health.sets, structs.replace(views[1].health.sets[0], pool="more")]
    views[1] = PodView("main", 1, structs.replace(views[1].health, sets=ballots))
    redundancy = merge_views([POOL], views)
    assert reported_epochs([POOL], redundancy) == {("main", 0): 1, ("main", 1): 1}
    assert reported_epochs([POOL, structs.replace(POOL, name="more")], redundancy) == {("main", 1): 1}
    assert reported_epochs([POOL], Redundancy()) == {}


def test_pools_the_pods_do_not_know_yet_are_offline() -> None:
    other = PoolRecord(**{**{name: getattr(POOL, name) for name in POOL.__struct_fields__}, "name": "more"})
    merged = merge_views([POOL, other], [view(ordinal, "oooo") for ordinal in range(4)])
    assert merged.of_pools([POOL]).writable
    assert not merged.of_pools([other]).writable
    assert not merged.writable
