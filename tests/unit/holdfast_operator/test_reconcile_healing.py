"""What a Tenant says while it heals, how often it says so, and when it stops."""

from __future__ import annotations

from typing import Any

from holdfast_operator.kube.port import EVENT
from holdfast_operator.status.progress import PROGRESS_SECONDS
from holdfast_server.contract.healing import FillingProgress

POD = "logs-pool-main-3"


def filling(percent: int, seconds_left: float | None = 173.0) -> FillingProgress:
    return FillingProgress(
        replacement=True, registers_done=percent * 10, registers_total=1000, seconds_left=seconds_left
    )


def start_filling(world: Any, percent: int) -> None:
    world.pods.drive_states["logs", POD, 0] = "healing"
    world.pods.fillings[POD, 0] = filling(percent)


def events(world: Any) -> list[dict[str, Any]]:
    return [world.kube.object(EVENT, name) for name in world.kube.names(EVENT)]


def status_writes(world: Any) -> int:
    return sum(call[0] == "status" for call in world.kube.calls)


async def test_a_drive_that_is_filled_is_told_with_how_far_it_is(world: Any) -> None:
    await world.start()
    start_filling(world, 42)
    await world.run_pass()
    degraded = world.condition("Degraded")
    assert (degraded["status"], degraded["reason"]) == ("True", "DrivesHealing")
    assert degraded["message"].startswith("1 of 8 drives is healing (40 %, about 3 min left); reads and writes go on")
    assert world.condition("Ready")["status"] == "True"
    (pool,) = world.kube.tenant_status()["pools"]
    assert pool["healing"] == {"drives": [{"server": 3, "volume": 0, "percent": 40, "left": "3 min"}]}
    assert pool["drives"] == {"total": 8, "online": 8, "healing": 1}
    assert pool["tolerates"] == {"drives": 3, "servers": 1, "nodes": 1}


async def test_progress_is_written_now_and_then_and_news_at_once(world: Any) -> None:
    await world.start()
    start_filling(world, 1)
    await world.run_pass()
    world.kube.calls.clear()
    seconds = 60
    for percent in range(1, seconds + 1):
        start_filling(world, percent)
        await world.run_pass()
    assert 2 <= status_writes(world) <= seconds / PROGRESS_SECONDS + 1
    world.kube.calls.clear()
    start_filling(world, 70)
    await world.run_pass()
    world.pods.down = {"logs-pool-main-0"}
    world.pods.settle()
    world.kube.calls.clear()
    await world.run_pass()
    assert status_writes(world) == 1, "a pod that is lost does not wait for its turn"
    assert world.condition("Degraded")["reason"] == "DrivesMissing"


async def test_it_stays_degraded_until_missed_writes_are_made_up_for(world: Any) -> None:
    await world.start()
    world.pods.down, world.pods.repair_queue_length = {POD}, 1234
    await world.run_passes(2)
    degraded = world.condition("Degraded")
    assert degraded["message"].endswith("about 1,200 missed writes are yet to be brought to the drives")
    world.pods.down = set()
    await world.run_passes(2)
    degraded = world.condition("Degraded")
    assert (degraded["status"], degraded["reason"]) == ("True", "CatchingUp")
    assert "about 1,200 missed writes are being brought" in degraded["message"]
    assert world.kube.tenant_status()["health"] == "Degraded"
    assert world.kube.tenant_status()["pools"][0]["healing"] == {"queue": 1200}
    world.pods.repair_queue_length = 0
    await world.run_passes(2)
    assert world.condition("Degraded")["status"] == "False"
    assert "healing" not in world.kube.tenant_status()["pools"][0]


async def test_a_write_that_one_drive_missed_in_passing_is_no_alarm(world: Any) -> None:
    await world.start()
    world.pods.repair_queue_length = 3
    await world.run_passes(2)
    assert world.condition("Degraded")["status"] == "False"
    assert world.kube.tenant_status()["health"] == "Healthy"


async def test_versions_that_are_stuck_ask_for_a_person(world: Any) -> None:
    await world.start()
    world.pods.stuck = 2
    await world.run_passes(2)
    degraded = world.condition("Degraded")
    assert (degraded["status"], degraded["reason"]) == ("True", "VersionsStuck")
    assert "holdfast admin heal list-stuck" in degraded["message"]
    assert world.condition("Ready")["status"] == "True"
    (event,) = [event for event in events(world) if event["reason"] == "VersionsStuck"]
    assert event["type"] == "Warning"


async def test_drives_without_room_are_named_before_writes_stop(world: Any) -> None:
    await world.start()
    world.pods.full = {(POD, 1)}
    await world.run_passes(2)
    degraded = world.condition("Degraded")
    assert (degraded["status"], degraded["reason"]) == ("True", "DrivesFull")
    assert "1 of 8 drives takes no new data for want of room (logs-pool-main-3/data1)" in degraded["message"]
    assert world.condition("Ready")["status"] == "True"
    world.pods.full = set()
    await world.run_passes(2)
    assert world.condition("Degraded")["reason"] == "Whole"


async def test_a_tenant_that_heals_tells_its_events_once(world: Any) -> None:
    await world.start()
    for percent in range(0, 100, 5):
        start_filling(world, percent)
        await world.run_pass()
    world.pods.drive_states.clear()
    world.pods.fillings.clear()
    await world.run_passes(2)
    told = sorted((event["reason"], event["count"]) for event in events(world))
    assert [one for one in told if one[0] in ("DrivesHealing", "Whole")] == [("DrivesHealing", 1), ("Whole", 1)]
