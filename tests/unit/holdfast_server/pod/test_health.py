"""Health is counted from statuses and quorums."""

from __future__ import annotations

import msgspec
import pytest

from holdfast_server.contract.config import ErasureConfig, PoolConfig
from holdfast_server.contract.healing import BucketUsage, DriveHealing, HealProgress, SetHealing, StuckRegister
from holdfast_server.contract.health import PodHealth
from holdfast_server.drives.port import DriveState, DriveStatus
from holdfast_server.pod.health import PlacedStatus, cluster_health, pod_health

FULL, HEALING, BLANK = DriveState.FULL, DriveState.HEALING, DriveState.BLANK
OFFLINE, FAULTY = DriveState.OFFLINE, DriveState.FAULTY

POOL = PoolConfig(
    name="main",
    servers=4,
    volumes_per_server=1,
    erasure=ErasureConfig(set_size=4, parity=2),
    pod_name_prefix="p-",
    drive_path="/data",
)


def drives(states: list[DriveState]) -> list[PlacedStatus]:
    return [PlacedStatus("main", 0, i, i, 0, DriveStatus(state)) for i, state in enumerate(states)]


@pytest.mark.parametrize(
    ("states", "writable", "readable", "maintainable"),
    [
        ([FULL, FULL, FULL, FULL], True, True, True),
        ([FULL, FULL, FULL, OFFLINE], True, True, False),
        ([OFFLINE, FULL, FULL, FULL], True, True, True),
        ([FULL, FULL, FULL, HEALING], True, True, False),
        ([HEALING, FULL, FULL, FULL], True, True, True),
        ([FULL, FULL, HEALING, OFFLINE], True, True, False),
        ([FULL, FULL, FAULTY, OFFLINE], False, True, False),
        ([FULL, BLANK, BLANK, BLANK], False, False, False),
        ([FULL, HEALING, HEALING, OFFLINE], False, False, False),
    ],
)
def test_sets_are_judged_by_their_quorums(
    states: list[DriveState], writable: bool, readable: bool, maintainable: bool
) -> None:
    def ask(maintenance: bool) -> bool:
        health = cluster_health(pools=[POOL], epoch=1, drives=drives(states), me=("main", 0), maintenance=maintenance)
        assert (health.sets[0].writable, health.sets[0].readable) == (writable, readable)
        assert bool(health.message) == (not health.healthy)
        return health.healthy

    assert ask(False) == writable
    assert ask(True) == maintainable


def test_one_set_without_quorum_makes_the_tenant_unhealthy_and_is_named() -> None:
    pool = PoolConfig(
        name="wide", servers=4, volumes_per_server=2, erasure=ErasureConfig(set_size=4, parity=2),
        pod_name_prefix="p-", drive_path="/data{volume}",
    )  # fmt: skip
    placed = [
        PlacedStatus("wide", s, p, p, s, DriveStatus(FULL if s == 0 or p < 2 else OFFLINE))
        for s in range(2)
        for p in range(4)
    ]
    health = cluster_health(pools=[pool], epoch=7, drives=placed, me=("wide", 0))
    assert not health.healthy
    assert health.message == "no write quorum: pool wide set 1"
    assert [s.online for s in health.sets] == [4, 2]


def test_a_pool_that_joins_is_told_of_and_is_not_missed() -> None:
    more = msgspec.structs.replace(POOL, name="more", readable_from_epoch=2, writable_from_epoch=3)
    for maintenance in (False, True):
        health = cluster_health(
            pools=[POOL, more], epoch=1, drives=drives([FULL] * 4), me=("main", 0), maintenance=maintenance,
            joining=["more"],
        )  # fmt: skip
        assert health.healthy
        assert [(one.pool, one.writable) for one in health.sets] == [("main", True), ("more", False)]
    assert not cluster_health(pools=[POOL, more], epoch=2, drives=drives([FULL] * 4), me=("main", 0)).healthy


def test_a_pod_that_others_take_for_a_stranger_is_not_ready() -> None:
    def asked(*unknown_to: str) -> PodHealth:
        return pod_health(
            pod="p", epoch=1, version="v", opened=True, faults=[], drives=drives([FULL]), unknown_to=unknown_to
        )

    assert asked().ready
    assert not asked("main/0 at a:1").ready
    assert asked("main/0 at a:1").message == "main/0 at a:1 does not know this pod yet"


@pytest.mark.parametrize(
    ("opened", "states", "ready"),
    [
        (True, [FULL, FULL], True),
        (True, [FULL, FAULTY], True),
        (True, [HEALING], True),
        (True, [BLANK], False),
        (True, [FAULTY, FAULTY], False),
        (False, [FULL], False),
    ],
)
def test_ready_means_open_drives_and_not_quorum(opened: bool, states: list[DriveState], ready: bool) -> None:
    health = pod_health(pod="p-0", epoch=1, version="1", opened=opened, faults=["config: x"], drives=drives(states))
    assert health.ready == ready
    assert "config: x" in health.message


def test_what_needs_no_signature_names_no_key_and_no_bucket() -> None:
    stuck = StuckRegister(
        kind="object", bucket_id="ab" * 16, key="secret-key", version="", stamp=1, copies=1, copies_needed=2, since_ms=0
    )
    usage = BucketUsage(bucket_id="cd" * 16, objects=1, size_bytes=1)
    progress = HealProgress(
        drives=[
            DriveHealing(pool="main", set_index=0, position=0, volume=0, state="ok", usage=[usage], queue_length=3)
        ],
        sets=[SetHealing(pool="main", index=0, stuck=1, stuck_samples=[stuck])],
    )
    health = cluster_health(pools=[POOL], epoch=1, drives=drives([FULL] * 4), me=("main", 0), healing=progress)
    told = msgspec.json.encode(health).decode()
    assert not any(secret in told for secret in ("secret-key", "abab", "cdcd"))
    assert health.healing.sets[0].stuck == 1
    assert health.repair_queue_length == 3
