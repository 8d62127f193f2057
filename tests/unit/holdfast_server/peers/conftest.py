"""Two pods in one process, talking over real loopback sockets, with drives that do as the test says.

A busy machine may let nobody answer for seconds: all deadlines are far off but those that a test sets.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from holdfast_server.clock.system import SystemClock
from holdfast_server.contract.admin import PodState
from holdfast_server.drives.port import DriveState, DriveStatus
from holdfast_server.peers import channel, messages, server
from holdfast_server.peers.channel import DialSettings, Target
from holdfast_server.peers.dispatch import Dispatcher, PeerServices
from holdfast_server.peers.handshake import PodIdentity
from holdfast_server.peers.messages import FEATURES, Report
from holdfast_server.peers.naming import Resolver
from holdfast_server.peers.port import SlotMemory
from holdfast_server.peers.remote import RemotePeer
from holdfast_server.peers.server import PeerServer

KEY = b"the tenant's peer key"
PATIENT_SECONDS = 90.0
ME = PodIdentity("tenant-1", "main", 1, "pod-1")
REPORT = Report(1, (DriveStatus(DriveState.FULL, b"d" * 16, 7),), features=FEATURES)


class ScriptedDrive:
    """Answers every verb with what `answers` has for it (a value, an exception, or an async function)."""

    pool, set_index, position = "main", 0, 0
    fetch_blocks = None
    """It has blocks to give only as `read_blocks` gives them."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.cancelled: list[str] = []
        self.finished: list[str] = []

    def status(self) -> DriveStatus:
        return DriveStatus(DriveState.FULL, b"d" * 16, 7)

    def __getattr__(self, verb: str) -> Callable[..., Awaitable[Any]]:
        if verb.startswith("_"):
            raise AttributeError(verb)

        async def call(*arguments: Any) -> Any:
            self.calls.append((verb, arguments))
            answer = self.answers.get(verb)
            try:
                if callable(answer):
                    answer = await answer(*arguments)
            except asyncio.CancelledError:
                self.cancelled.append(verb)
                raise
            if isinstance(answer, Exception):
                raise answer
            self.finished.append(verb)
            return answer

        return call


@dataclass
class Pod:
    """Pod 1, which is asked."""

    drive: ScriptedDrive = field(default_factory=ScriptedDrive)
    key: bytes = KEY
    identity: PodIdentity = ME
    report: Report = REPORT
    port: int = 0
    greeted: list[tuple[str, int]] = field(default_factory=list)
    told: list[Any] = field(default_factory=list)
    server: PeerServer | None = None

    async def start(self) -> None:
        async def on_announce(topic: str, names: list[str]) -> None:
            self.told.append((topic, names))

        async def on_fence_bucket(bucket_id: bytes) -> None:
            self.told.append(bucket_id)

        async def remembered_slots() -> list[SlotMemory]:
            return [SlotMemory("main", 0, 1, b"d" * 16, 7)]

        async def remember_slots(slots: list[SlotMemory]) -> None:
            self.told.append(slots)

        async def start_scan() -> None:
            self.told.append("scan")

        def pod_state() -> PodState:
            return PodState(pod="pod-1", pool="main", ordinal=1, version="9.9", epoch=3)

        services = PeerServices(
            on_announce, on_fence_bucket, remembered_slots, remember_slots, lambda: self.report, pod_state, start_scan
        )
        self.server = PeerServer(
            self.identity,
            lambda: self.key,
            Dispatcher([self.drive], services),
            lambda: self.report,
            lambda pool, ordinal: pool == "main" and ordinal < 4,
            lambda pool, ordinal: self.greeted.append((pool, ordinal)),
            SystemClock(),
        )
        self.port = await self.server.start("127.0.0.1", self.port)

    async def stop(self) -> None:
        assert self.server is not None
        await self.server.close()


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (channel, server):
        monkeypatch.setattr(module, "HANDSHAKE_TIMEOUT_SECONDS", PATIENT_SECONDS)
    for verb, spec in messages.VERBS.items():
        monkeypatch.setitem(messages.VERBS, verb, spec._replace(timeout_seconds=PATIENT_SECONDS))


@pytest.fixture
async def pod() -> AsyncIterator[Pod]:
    pod = Pod()
    await pod.start()
    yield pod
    await pod.stop()


Connect = Callable[..., Awaitable[RemotePeer]]


@pytest.fixture
async def connect(pod: Pod) -> AsyncIterator[Connect]:
    """Dial the pod as pod 0; waits until it is online unless told not to."""
    resolver = Resolver()
    tasks: list[asyncio.Task[None]] = []

    async def dial(key: bytes = KEY, tenant: str = "tenant-1", to_ordinal: int = 1, wait: bool = True) -> RemotePeer:
        me = PodIdentity(tenant, "main", 0, "pod-0")
        settings = DialSettings(me, lambda: [key], lambda: Report(1, ()), resolver, SystemClock())
        peer = RemotePeer(Target("main", to_ordinal, "127.0.0.1", pod.port), 1, [(0, 1)], settings, lambda: None)
        tasks.append(asyncio.get_running_loop().create_task(peer.run()))
        if wait:
            await until(lambda: peer.online)
        return peer

    yield dial
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    resolver.close()


async def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture(name="until")
def until_fixture() -> Callable[..., Awaitable[None]]:
    return until
