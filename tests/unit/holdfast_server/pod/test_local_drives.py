"""The life cycle of a pod's drives, against peers that are slow, silent or wrong; whole pods are in `wiring`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from holdfast_server.clock.stamp import HybridClock, floor_stamp
from holdfast_server.clock.system import SystemClock
from holdfast_server.contract.config import ErasureConfig, PoolConfig
from holdfast_server.drives.faults import FaultKind
from holdfast_server.drives.port import DriveState, DriveStatus
from holdfast_server.drives.slot import SlotMemory
from holdfast_server.peers.messages import Report
from holdfast_server.peers.port import PeerError
from holdfast_server.pod.local_drives import LocalDrives
from holdfast_server.testing.whole_pods import until

POOL = "main"
OLD, NEW = b"o" * 16, b"n" * 16
REPLACED = SlotMemory(POOL, 0, 0, NEW, 20)


class OwnDrive:
    """In the first place of a set of four."""

    pool, set_index, position = POOL, 0, 0
    replaces = reopen_advised = False
    greatest_stamp = 0

    def __init__(self, state: DriveState, drive_id: bytes = b"", incarnation: int = 0) -> None:
        self.state, self.drive_id, self.incarnation = state, drive_id, incarnation
        self.aside: list[str] = []
        self.adopted: list[tuple[bytes, int, int]] = []

    def status(self) -> DriveStatus:
        return DriveStatus(self.state, self.drive_id, self.incarnation)

    @property
    def fault_kind(self) -> FaultKind | None:
        return FaultKind.RETIRED if self.aside else None

    def set_aside(self, reason: str) -> None:
        self.aside.append(reason)
        self.state = DriveState.FAULTY

    async def adopt(self, drive_id: bytes, incarnation: int, watermark: int) -> None:
        self.adopted.append((drive_id, incarnation, watermark))
        self.state, self.drive_id, self.incarnation = DriveState.HEALING, drive_id, incarnation

    async def folder_changed(self) -> bool:
        return False

    async def remember(self, slots: Sequence[SlotMemory]) -> None:
        pass

    async def remembered(self) -> list[SlotMemory]:
        return []


class Peer:
    """A pod with one full drive of the set."""

    def __init__(self, ordinal: int) -> None:
        self.pool, self.ordinal, self.online = POOL, ordinal, True
        report = Report(1, (DriveStatus(DriveState.FULL, bytes([ordinal]) * 16, 10),))
        self.link = SimpleNamespace(report=report, target=f"{POOL}/{ordinal}")
        self.memories: list[SlotMemory] | PeerError = []
        self.silent: asyncio.Event | None = None
        """Set: it answers no more before that."""
        self.asked = 0

    def drives(self) -> list[Any]:
        status = self.link.report.drives[0]
        return [SimpleNamespace(pool=POOL, set_index=0, position=self.ordinal, status=lambda: status)]

    async def remembered_slots(self) -> list[SlotMemory]:
        self.asked += 1
        if self.silent is not None:
            await self.silent.wait()
        if not self.online:
            raise PeerError("it went")
        if isinstance(self.memories, PeerError):
            raise self.memories
        return self.memories


class Pod:
    def __init__(self, drive: OwnDrive) -> None:
        self.drive = drive
        self.peers = [Peer(ordinal) for ordinal in (1, 2, 3)]
        pool = PoolConfig(
            name=POOL, servers=4, volumes_per_server=1, pod_name_prefix="logs-", drive_path="/data{volume}",
            erasure=ErasureConfig(set_size=4, parity=1),
        )  # fmt: skip
        clock = SystemClock()
        self.stamps = HybridClock(0, floor_stamp(clock.now_ms()))
        self.local = LocalDrives(
            cast(Any, lambda: SimpleNamespace(pool=pool)), [cast(Any, drive)], self._never,
            cast(Any, lambda: self.peers), clock, self.stamps, 0.0, lambda: None,
        )  # fmt: skip

    async def _never(self, volume: int, retire: bool) -> bool:
        return False


@pytest.fixture
async def running() -> AsyncIterator[Any]:
    tasks, pods = [], []

    def run(drive: OwnDrive) -> Pod:
        pod = Pod(drive)
        pods.append(pod)
        return pod

    def begin(pod: Pod) -> None:
        tasks.append(asyncio.create_task(pod.local.run()))

    yield SimpleNamespace(pod=run, begin=begin)
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
    for pod in pods:
        await pod.local.close()
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("memories of")]


async def test_a_silent_peer_keeps_no_older_drive_in_use_that_opens_meanwhile(running: Any) -> None:
    pod = running.pod(OwnDrive(DriveState.OFFLINE, OLD, 10))
    silent, telling, _ = pod.peers
    silent.silent = asyncio.Event()
    telling.memories = [REPLACED]
    running.begin(pod)
    await until(lambda: silent.asked and telling.asked, 10)
    pod.drive.state = DriveState.FULL
    await until(lambda: pod.drive.aside, 10)
    assert "was replaced here" in pod.drive.aside[0]
    assert silent.asked == 1, "one that does not answer is not asked again and again"


async def test_what_a_peer_tells_after_it_went_and_came_back_is_not_its_word_of_now(running: Any) -> None:
    """It may have been asked while it still opened its drives, or by another life of it."""
    pod = running.pod(OwnDrive(DriveState.BLANK))
    silent = pod.peers[0]
    silent.silent = asyncio.Event()
    await pod.local.settle_once()
    await until(lambda: silent.asked == 1, 10)
    silent.online = False
    await pod.local.settle_once()
    silent.online = True
    await asyncio.sleep(0.05)
    await pod.local.settle_once()
    await until(lambda: silent.asked == 2, 10)


async def test_a_silent_peer_does_not_keep_a_replacement_from_joining_for_long(running: Any) -> None:
    pod = running.pod(OwnDrive(DriveState.BLANK))
    silent = pod.peers[0]
    silent.silent = asyncio.Event()
    running.begin(pod)
    await until(lambda: silent.asked, 10)
    await pod.local.settle_once()
    assert not pod.drive.adopted
    silent.memories = PeerError("no answer in time")
    silent.silent.set()
    await until(lambda: pod.drive.adopted, 10)


async def test_a_replacement_is_newer_than_what_it_replaces_whatever_the_clocks_said_then(running: Any) -> None:
    """Else everybody would take it for the older drive, and set it aside as often as somebody empties it."""
    pod = running.pod(OwnDrive(DriveState.BLANK))
    a_day_ahead = floor_stamp(SystemClock().now_ms() + 86_400_000)
    pod.peers[1].memories = [SlotMemory(POOL, 0, 0, OLD, a_day_ahead)]
    running.begin(pod)
    await until(lambda: pod.drive.adopted, 10)
    _, incarnation, watermark = pod.drive.adopted[0]
    assert watermark >= incarnation > a_day_ahead
    await pod.local.settle_once()
    assert not pod.drive.aside
