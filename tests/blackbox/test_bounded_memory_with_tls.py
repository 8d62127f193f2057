"""Memory of real pods that require TLS: crowds, slow clients, and clients that stay, pass no bound and stop nobody.

Every test ends by looking at the peak of every pod, and that nothing is kept of requests that ended.
"""

from __future__ import annotations

import asyncio
import resource
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from holdfast_operator.tls.minting import mint_authority, mint_leaf
from holdfast_operator.tls.values import SubjectNames
from holdfast_server.contract import names
from holdfast_server.memory.limits import KIB, MIB, MemoryLimits
from holdfast_server.testing.pods import (
    CERTIFICATE,
    KEY,
    PEERS_AUTHORITY,
    PEERS_CERTIFICATE,
    PEERS_KEY,
    PodProcesses,
)
from holdfast_server.testing.wire import Wire, counted, get, in_flight, peak_bytes, put, staged
from holdfast_server.transport.listener import MAX_SHAKING_HANDS

BUCKET = "memory"
SERVERS = 2
VOLUMES = 2
LIMITS = MemoryLimits()
BOUND_BYTES = LIMITS.bound_bytes(VOLUMES, tls=True)
CHUNK_BYTES = 1_500_000
HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
SETTLING_SECONDS = 120
NEEDED_FILES = 4000


def certificates(pods: PodProcesses) -> dict[str, str]:
    now, day = datetime.now(UTC), timedelta(days=1)
    authority = mint_authority("test", now, 2 * day)
    clients = mint_leaf(authority, SubjectNames(("s3",), tuple(map(pods.address, range(SERVERS)))), now, day)
    peers = mint_leaf(authority, SubjectNames(tuple(f"{pods.prefix}{pod}" for pod in range(SERVERS))), now, day)
    return {
        CERTIFICATE: clients.certificate, KEY: clients.key, PEERS_CERTIFICATE: peers.certificate, PEERS_KEY: peers.key,
        PEERS_AUTHORITY: authority.certificate,
    }  # fmt: skip


@pytest.fixture(scope="module")
def pods(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PodProcesses]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(NEEDED_FILES, hard)), hard))
    pods = PodProcesses(tmp_path_factory.mktemp("memory") / "pods", servers=SERVERS, volumes=VOLUMES)
    pods.tls = certificates(pods)
    try:
        asyncio.run(begin(pods))
        yield pods
    finally:
        pods.stop()


async def begin(pods: PodProcesses) -> None:
    await pods.start_all()
    assert await put(pods, f"/{BUCKET}", 0) == "200"
    assert await put(pods, f"/{BUCKET}/o", MIB) == "200"


@pytest.fixture(autouse=True)
async def bounded(pods: PodProcesses) -> AsyncIterator[None]:
    """Around every test."""
    yield
    print(f"peaks {[peak // MIB for peak in peak_bytes(pods)]} MiB, bound {BOUND_BYTES // MIB} MiB")
    assert max(peak_bytes(pods)) <= BOUND_BYTES
    async with asyncio.timeout(SETTLING_SECONDS):
        while await asyncio.to_thread(in_flight, pods) or staged(pods):
            await asyncio.sleep(0.1)


def resident_bytes(pods: PodProcesses) -> int:
    """Of the pod that clients talk to, now."""
    pages = Path(f"/proc/{pods.processes[0].pid}/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize()


async def test_connections_that_stay_after_uploads_and_downloads_keep_little(pods: PodProcesses) -> None:
    """An event loop's own TLS keeps half a megabyte of each."""
    count, at_once, size = 200, 10, MIB
    wires: list[Wire] = []

    async def use(number: int) -> None:
        wire = await Wire(pods).__aenter__()
        wires.append(wire)
        wire.writer.write(wire.head("PUT", f"/{BUCKET}/{number % at_once}", content_length=str(size)) + bytes(size))
        assert (await wire.answer())[0] == 200
        wire.writer.write(wire.head("GET", f"/{BUCKET}/o"))
        assert (await wire.answer())[0] == 200
        await wire.take(size)

    try:
        for first in range(0, count, at_once):
            await asyncio.gather(*(use(first + number) for number in range(at_once)))
            if first == 50:
                before = resident_bytes(pods)  # what the work itself takes is there by now
        grown = resident_bytes(pods) - before
        print(f"{grown / KIB / (count - 60):.0f} KiB of each connection, with what else the work left behind")
        assert grown <= count * (LIMITS.connection_bytes + LIMITS.tls_connection_bytes) + 32 * MIB
    finally:
        for wire in wires:
            wire.writer.transport.abort()


async def test_a_burst_is_served_or_told_to_slow_down(pods: PodProcesses) -> None:
    at_once = MAX_SHAKING_HANDS - 8  # so many that none has to wait for its handshake, however slow this side is
    written = await counted(
        put(pods, f"/{BUCKET}/burst/{number}", CHUNK_BYTES, patient=True) for number in range(at_once)
    )
    read = await counted(get(pods, f"/{BUCKET}/o", MIB) for _ in range(at_once))
    print(f"written: {written}, read: {read}")
    assert set(written | read) <= {"200", "SlowDown"}
    assert written["200"]
    assert read["200"]


async def test_clients_that_take_nothing_send_slowly_or_vanish_keep_nobody_out(pods: PodProcesses) -> None:
    """A download's bytes wait for the client as they are; encrypted, they would exist twice."""
    async with asyncio.TaskGroup() as group:
        begun = asyncio.Semaphore(0)

        async def take_nothing() -> None:
            async with Wire(pods) as wire:
                wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
                wire.writer.write(wire.head("GET", f"/{BUCKET}/o"))
                begun.release()
                await asyncio.Event().wait()

        async def send_slowly(number: int) -> None:
            async with Wire(pods) as wire:
                wire.writer.write(wire.head("PUT", f"/{BUCKET}/slow-{number}", content_length=str(4 * MIB)))
                begun.release()
                while True:
                    wire.writer.write(bytes(10 * KIB))
                    await asyncio.sleep(1)

        stuck = [group.create_task(take_nothing()) for _ in range(60)]
        stuck += [group.create_task(send_slowly(number)) for number in range(60)]
        for _ in stuck:
            await begun.acquire()
        assert await put(pods, f"/{BUCKET}/quick", 4 * KIB) == "200"
        assert await get(pods, f"/{BUCKET}/quick", 4 * KIB) == "200"
        for task in stuck:
            task.cancel()  # without a goodbye


async def test_a_crowd_at_the_door_keeps_nobody_out(pods: PodProcesses) -> None:
    """Silent, in the middle of a handshake, sending garbage: twice as many as are let in."""
    crowd = []
    for number in range(1200):
        _, writer = await asyncio.open_connection(pods.address(0), names.S3_PORT)
        writer.write((b"", HELLO, b"\x16", HELLO + b"\xff" * 600, b"\x00garbage\r\n\r\n")[number % 5])
        crowd.append(writer)
    assert await put(pods, f"/{BUCKET}/quick", 4 * KIB) == "200"
    assert await asyncio.to_thread(plain_status, f"{pods.probe_endpoint()}/health/ready") == 200
    assert await asyncio.to_thread(plain_status, f"{pods.probe_endpoint()}/{BUCKET}/quick") == 403
    for writer in crowd:
        writer.transport.abort()


def plain_status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


async def test_more_connections_than_there_are_places(pods: PodProcesses) -> None:
    """One with TLS takes two of them, so that those that rest longest have to go."""
    most = LIMITS.connections // LIMITS.tls_connection_places
    wires = [await Wire(pods).__aenter__() for _ in range(most + 30)]
    try:
        for wire in wires[:10]:
            assert await is_cut(wire)
        last = wires[-1]
        last.writer.write(last.head("GET", f"/{BUCKET}/quick"))
        assert (await last.answer())[0] in (200, 404)
    finally:
        for wire in wires:
            wire.writer.transport.abort()


async def is_cut(wire: Wire) -> bool:
    try:
        return await wire.reader.read(1) == b""
    except ConnectionError:
        return True


def test_a_pod_may_open_as_many_files_as_it_is_allowed(pods: PodProcesses) -> None:
    limits = Path(f"/proc/{pods.processes[0].pid}/limits").read_text()
    (line,) = (line for line in limits.splitlines() if line.startswith("Max open files"))
    soft, hard = line.split()[3:5]
    assert int(soft) == min(int(hard), 1 << 16)
