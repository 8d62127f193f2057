"""A pod whose drives fail one way or another: it goes on with the others, says which and why, and takes the drive back
by itself once it is right again."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from holdfast_server.contract.config import Listen
from holdfast_server.drives import local
from holdfast_server.drives.disk_threads import Watch
from holdfast_server.drives.engine import EngineError
from holdfast_server.drives.faults import FaultKind
from holdfast_server.drives.parts import DriveSettings
from holdfast_server.drives.space import RESERVE_BYTES
from holdfast_server.objects.port import OutOfSpace, Unavailable, Versioning
from holdfast_server.pod import reopening
from holdfast_server.testing import whole_pods
from holdfast_server.testing.faults.failing_disk import CannotMount, ErringFileSystem, fill_up, small_file_system
from holdfast_server.testing.memory_cluster import BytesBody
from holdfast_server.testing.whole_pods import BUCKET, get, until
from holdfast_server.wiring.inputs import StandaloneInputs
from holdfast_server.wiring.storage_pod import PodSettings, StoragePod

DATA = bytes(range(256)) * 3000
LONGEST = Watch.longest
SETTINGS = PodSettings(
    bind_address="127.0.0.1", version="test", adoption_delay_seconds=0.2,
    drives=DriveSettings(reclaim_delay_seconds=0.2, reap_interval_seconds=0.5, ballast_bytes=8 << 20),
)  # fmt: skip


async def put(pod: StoragePod, key: str, data: bytes = DATA) -> None:
    await whole_pods.put(pod, key, data)


def states(pod: StoragePod) -> list[str]:
    return [drive.state for drive in pod.pod_health().drives]


def message(pod: StoragePod, volume: int) -> str:
    return pod.pod_health().drives[volume].message


def whole(pod: StoragePod) -> bool:
    health = pod.cluster_health(False)
    return states(pod) == ["ok"] * 4 and health.repair_queue_length == 0 and not pod.pod_health().message


def running(tmp_path: Path, settings: PodSettings = SETTINGS) -> object:
    listen = Listen(s3_port=0, console_port=0, peer_port=0)
    return StoragePod.running(
        StandaloneInputs([f"{tmp_path}/d{{1...4}}"], "admin", "password1", listen, "tenant"), settings
    )


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drives are looked at again soon, and as soon the next time."""
    for pauses in (reopening.FIRST_PAUSE_SECONDS, reopening.LAST_PAUSE_SECONDS):
        for kind in FaultKind:
            monkeypatch.setitem(pauses, kind, 0.5)


@pytest.fixture
def drives(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"d{i}" for i in range(1, 5)]
    for path in paths:
        path.mkdir()
    return paths


@pytest.fixture
async def pod(tmp_path: Path, drives: list[Path]) -> AsyncIterator[StoragePod]:
    async with running(tmp_path) as pod:  # type: ignore[attr-defined]
        await until(lambda: whole(pod))
        await put(pod, "before")
        yield pod


async def goes_on_without(pod: StoragePod, *volumes: int) -> None:
    assert await get(pod, "before") == DATA
    await put(pod, "meanwhile")
    assert await get(pod, "meanwhile") == DATA
    await until(lambda: pod.pod_health().ready)
    assert pod.cluster_health(False).healthy
    assert not pod.cluster_health(True).healthy


async def survives_without_the_others(pod: StoragePod, volume: int, *keys: str) -> None:
    """The drive has its shards again: with one more away than without it would do, everything can be read."""
    await until(lambda: whole(pod))
    others = [number for number in range(4) if number != volume][:2]
    for number in others:
        pod.local.drives[number].set_aside("the test takes it away")
    for key in keys:
        assert await get(pod, key) == DATA


async def test_a_missing_folder_is_taken_back_when_it_appears(pod: StoragePod, drives: list[Path]) -> None:
    drives[1].rename(drives[1].with_name("elsewhere"))
    await until(lambda: states(pod)[1] == "faulty")
    await until(lambda: "does not exist; is the volume mounted?" in message(pod, 1))
    await goes_on_without(pod)
    drives[1].with_name("elsewhere").rename(drives[1])
    await survives_without_the_others(pod, 1, "before", "meanwhile")


async def test_a_folder_that_comes_late_at_the_start_is_taken_up(tmp_path: Path, drives: list[Path]) -> None:
    async with running(tmp_path) as pod:  # type: ignore[attr-defined]
        await until(lambda: whole(pod))
        await put(pod, "before")
    drives[1].rename(drives[1].with_name("elsewhere"))
    async with running(tmp_path) as pod:  # type: ignore[attr-defined]
        assert states(pod) == ["ok", "faulty", "ok", "ok"]
        await goes_on_without(pod)
        drives[1].with_name("elsewhere").rename(drives[1])
        await survives_without_the_others(pod, 1, "before", "meanwhile")


async def test_swapped_drives_are_refused_naming_both_and_taken_back(tmp_path: Path, drives: list[Path]) -> None:
    def swap() -> None:
        drives[1].rename(tmp_path / "x")
        drives[2].rename(drives[1])
        (tmp_path / "x").rename(drives[2])

    async with running(tmp_path) as pod:  # type: ignore[attr-defined]
        await until(lambda: whole(pod))
        await put(pod, "before")
    swap()
    async with running(tmp_path) as pod:  # type: ignore[attr-defined]
        assert states(pod) == ["ok", "faulty", "faulty", "ok"]
        assert "belongs to tenant tenant, pool " in message(pod, 1)
        assert "position 2; this place is tenant tenant" in message(pod, 1)
        assert "position 1; this place is tenant tenant" in message(pod, 2)
        assert await get(pod, "before") == DATA
        with pytest.raises(Unavailable):
            await put(pod, "refused")
        assert not pod.cluster_health(False).healthy
        swap()
        await until(lambda: whole(pod))
        await put(pod, "after")


async def test_drives_swapped_under_a_running_pod_are_both_set_aside(
    tmp_path: Path, drives: list[Path], pod: StoragePod
) -> None:
    drives[1].rename(tmp_path / "x")
    drives[2].rename(drives[1])
    (tmp_path / "x").rename(drives[2])
    await until(lambda: states(pod) == ["ok", "faulty", "faulty", "ok"])
    await until(lambda: "belongs to" in message(pod, 1) and "belongs to" in message(pod, 2))
    assert await get(pod, "before") == DATA
    drives[1].rename(tmp_path / "x")
    drives[2].rename(drives[1])
    (tmp_path / "x").rename(drives[2])
    await survives_without_the_others(pod, 1, "before")


async def test_a_lost_identity_is_not_formatted_over_and_taken_back_with_it(
    pod: StoragePod, drives: list[Path]
) -> None:
    identity = drives[3] / "holdfast.json"
    kept = identity.read_bytes()
    identity.unlink()
    await until(lambda: "has no identity file but holds" in message(pod, 3))
    await goes_on_without(pod)
    identity.write_bytes(kept)
    await survives_without_the_others(pod, 3, "before", "meanwhile")


async def test_a_drive_whose_fsync_failed_is_opened_anew_and_misses_nothing(
    pod: StoragePod, drives: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = pod.local.drives[2]._parts.engine  # type: ignore[attr-defined]

    def fail() -> None:
        raise EngineError("the log did not reach stable storage: IO error: While fdatasync: Input/output error")

    monkeypatch.setattr(engine, "flush", fail)
    await put(pod, "missed")
    assert states(pod)[2] == "faulty"
    assert "did not reach stable storage" in message(pod, 2)
    await goes_on_without(pod)
    await survives_without_the_others(pod, 2, "before", "missed", "meanwhile")


async def test_a_drive_that_hangs_is_skipped_and_catches_up(pod: StoragePod, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = pod.local.drives[2]._parts  # type: ignore[attr-defined]
    release, real = threading.Event(), parts.engine.flush

    def held_up(watch: Watch) -> tuple[float, str]:
        """Of the drive that hangs: see `conftest`."""
        return LONGEST(watch) if watch is parts.watch and not release.is_set() else (0.0, "")

    monkeypatch.setattr(local, "HANG_SECONDS", 0.3)
    monkeypatch.setattr(Watch, "longest", held_up)

    def hang() -> None:
        release.wait(60)
        real()

    monkeypatch.setattr(parts.engine, "flush", hang)
    try:
        await put(pod, "missed")
        assert states(pod)[2] == "offline"
        assert "does not answer since" in message(pod, 2)
        for number in range(10):
            await put(pod, f"missed{number}")
        await goes_on_without(pod)
    finally:
        release.set()
    await survives_without_the_others(pod, 2, "before", "missed", "missed9", "meanwhile")


# --- damaged tables


async def test_a_damaged_table_is_made_anew_and_filled_from_the_others(tmp_path: Path, drives: list[Path]) -> None:
    async with running(tmp_path) as pod:  # type: ignore[attr-defined]
        await until(lambda: whole(pod))
        for number in range(20):
            await put(pod, f"key{number}")
            await put(pod, f"small{number}", b"small" * number)
        former = pod.local.drives[1].status()
    shard = next(path for path in (drives[1] / "shards").rglob("*") if path.is_file())
    inode = shard.stat().st_ino
    (drives[1] / "records" / "CURRENT").write_text("MANIFEST-999999\n")
    async with running(tmp_path) as pod:  # type: ignore[attr-defined]
        await until(lambda: states(pod)[1] in ("healing", "ok"))
        await until(lambda: whole(pod))
        status = pod.local.drives[1].status()
        assert status.drive_id != former.drive_id
        assert status.incarnation > former.incarnation
        assert shard.stat().st_ino == inode, "shards that are there need not be brought again"
        await until(lambda: not (drives[1] / "records.damaged").exists())  # let go of just after it is full
        for number in (0, 2):
            pod.local.drives[number].set_aside("the test takes it away")
        for number in range(20):
            assert await get(pod, f"key{number}") == DATA
            assert await get(pod, f"small{number}") == b"small" * number


async def test_a_table_that_rots_in_use_is_replaced_under_the_running_pod(
    pod: StoragePod, drives: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = pod.local.drives[1]._parts.engine  # type: ignore[attr-defined]

    def rotten(keys: object) -> list[bytes | None]:
        raise EngineError("read failed: Corruption: block checksum mismatch: stored = 1, computed = 2")

    incarnation = pod.local.drives[1].status().incarnation
    monkeypatch.setattr(engine, "get", rotten)
    assert await get(pod, "before") == DATA
    await until(lambda: pod.local.drives[1].status().incarnation > incarnation)
    await survives_without_the_others(pod, 1, "before")


async def test_damaged_tables_beyond_parity_are_left_as_they_are(tmp_path: Path, drives: list[Path]) -> None:
    async with running(tmp_path) as pod:  # type: ignore[attr-defined]
        await until(lambda: whole(pod))
        await put(pod, "before")
    for path in drives[:3]:
        (path / "records" / "CURRENT").rename(path / "records" / "kept")
    async with running(tmp_path) as pod:  # type: ignore[attr-defined]
        await until(lambda: "DrivesBlank" in message(pod, 0))
        assert "is missing or empty, though the drive was formatted" in message(pod, 0)
        await asyncio.sleep(1.5)
        assert states(pod) == ["faulty", "faulty", "faulty", "ok"]
        for path in drives[:3]:
            assert (path / "holdfast.json").exists()
    for path in drives[:3]:
        (path / "records" / "kept").rename(path / "records" / "CURRENT")
    async with running(tmp_path) as pod:  # type: ignore[attr-defined]
        await until(lambda: whole(pod))
        assert await get(pod, "before") == DATA


async def test_an_emptied_folder_of_a_damaged_drive_is_a_replacement(tmp_path: Path, drives: list[Path]) -> None:
    async with running(tmp_path) as pod:  # type: ignore[attr-defined]
        await until(lambda: whole(pod))
        await put(pod, "before")
    (drives[1] / "records" / "CURRENT").unlink()
    settings = PodSettings(bind_address="127.0.0.1", version="test", adoption_delay_seconds=4.0)
    async with running(tmp_path, settings) as pod:  # type: ignore[attr-defined]
        await until(lambda: "a replacement: joins in" in message(pod, 1))
        shutil.rmtree(drives[1])
        drives[1].mkdir()
        await until(lambda: states(pod)[1] == "blank")
        await survives_without_the_others(pod, 1, "before")


# --- read-only file systems


async def test_a_file_system_that_turns_read_only_sets_the_drive_aside_until_it_is_mounted_anew(
    tmp_path: Path, drives: list[Path]
) -> None:
    try:
        disk = await asyncio.to_thread(ErringFileSystem, drives[1], tmp_path / "image", 300 << 20)
    except CannotMount as error:
        pytest.skip(str(error))
    shutil.rmtree(drives[1] / "lost+found")
    try:
        async with running(tmp_path) as pod:  # type: ignore[attr-defined]
            await until(lambda: whole(pod))
            await put(pod, "before")
            disk.turn_read_only()
            await put(pod, "missed")
            await until(lambda: "Read-only file system" in message(pod, 1))
            await goes_on_without(pod)
            await until(disk.unmount)
            # In between there is nothing but the empty mount point, which is not taken for a replacement at once.
            await asyncio.to_thread(disk.mount_anew)
            await survives_without_the_others(pod, 1, "before", "missed", "meanwhile")
    finally:
        disk.give_up()


# --- full disks


@pytest.fixture
def small_drives(tmp_path: Path, drives: list[Path]) -> object:
    with ExitStack() as mounted:
        for path in drives:
            try:
                mounted.enter_context(small_file_system(path, 200 << 20))
            except CannotMount as error:
                pytest.skip(str(error))
        yield drives


async def test_full_drives_refuse_data_and_take_it_again_once_something_was_deleted(
    tmp_path: Path, small_drives: list[Path]
) -> None:
    async with running(tmp_path) as pod:  # type: ignore[attr-defined]
        await until(lambda: whole(pod))
        await put(pod, "before")
        await pod.store.put_object(BUCKET, "kept", BytesBody(DATA, versioning=Versioning.ENABLED))
        for path in small_drives:
            fill_up(path / "other", leave_bytes=90 << 20)
        written: list[str] = []

        async def fill() -> None:
            for number in range(200):
                await put(pod, f"key{number}")
                written.append(f"key{number}")

        with pytest.raises(OutOfSpace):
            await fill()
        # What was refused may have left room for less than it, and a drive with any room does not say that it is full.
        for path in small_drives:
            fill_up(path / "more", leave_bytes=RESERVE_BYTES - (1 << 20))
        await until(lambda: all("full: takes no new data" in message(pod, volume) for volume in range(4)))
        await until(lambda: pod.pod_health().ready)
        assert not pod.cluster_health(False).healthy
        assert pod.cluster_health(False).sets[0].readable
        with pytest.raises(OutOfSpace):
            await put(pod, "small", b"x")
        for key in ("before", "kept", *written):
            assert await get(pod, key) == DATA
        marker = await pod.store.delete_object(BUCKET, "kept", versioning=Versioning.ENABLED)
        assert marker is not None
        assert await get(pod, "kept") == b""
        await pod.store.delete_version(BUCKET, "kept", marker.place)
        assert await get(pod, "kept") == DATA
        await pod.store.put_document("a rule that makes room", b"{}")
        for key in written:
            await pod.store.delete_object(BUCKET, key)
        await until(lambda: whole(pod))
        await put(pod, "after")
        assert await get(pod, "after") == DATA


async def test_a_drive_full_to_the_last_byte_reads_and_comes_back(tmp_path: Path, small_drives: list[Path]) -> None:
    """Somebody else took everything, the reserve too."""
    async with running(tmp_path) as pod:  # type: ignore[attr-defined]
        await until(lambda: whole(pod))
        await until(lambda: all((path / "holdfast.ballast").exists() for path in small_drives))
        for number in range(8):
            await put(pod, f"key{number}")
        for path in small_drives:
            fill_up(path / "other")
        await until(lambda: all(drive.status().full for drive in pod.local.drives))
        with pytest.raises(OutOfSpace):
            await put(pod, "refused", b"x")
        for number in range(8):
            assert await get(pod, f"key{number}") == DATA

        # A delete meets the full disk, has the ballast released, and then goes through.
        async def deleted(key: str) -> bool:
            try:
                await pod.store.delete_object(BUCKET, key)
            except (OutOfSpace, Unavailable):
                return False
            return True

        async with asyncio.timeout(60):
            for number in range(4):
                while not await deleted(f"key{number}"):
                    await asyncio.sleep(0.1)
        for number in range(4, 8):
            assert await get(pod, f"key{number}") == DATA
        # Now even that is taken, until its owner gives it back.
        for path in small_drives:
            fill_up(path / "more")
        assert await get(pod, "key7") == DATA
        for path in small_drives:
            os.unlink(path / "more")
            os.unlink(path / "other")
        await until(lambda: whole(pod))
        await put(pod, "after")
        for key in ("after", "key7"):
            assert await get(pod, key) == DATA
        assert await get(pod, "key0") is None
        await until(lambda: all((path / "holdfast.ballast").exists() for path in small_drives))


async def test_a_full_disk_does_not_keep_a_pod_from_starting(tmp_path: Path, small_drives: list[Path]) -> None:
    async with running(tmp_path) as pod:  # type: ignore[attr-defined]
        await until(lambda: whole(pod))
        await until(lambda: all((path / "holdfast.ballast").exists() for path in small_drives))
        await put(pod, "before")
    for path in small_drives:
        fill_up(path / "other")
    async with running(tmp_path) as pod:  # type: ignore[attr-defined]
        await until(lambda: states(pod) == ["ok"] * 4)
        assert await get(pod, "before") == DATA
        await pod.store.delete_object(BUCKET, "before")
    for path in small_drives:
        fill_up(path / "more")
    async with running(tmp_path) as pod:  # type: ignore[attr-defined]
        assert "No space left on device" in message(pod, 0)
        for path in small_drives:
            os.unlink(path / "other")
            os.unlink(path / "more")
        await until(lambda: whole(pod))
        assert await get(pod, "before") is None
        await put(pod, "after")


async def test_an_empty_drive_is_not_taken_for_new_while_those_that_may_remember_it_are_being_opened(
    tmp_path: Path, drives: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Formatted, it would say of everything that it had never been; the set would believe it."""
    async with running(tmp_path) as pod:  # type: ignore[attr-defined]
        await until(lambda: whole(pod))
        await put(pod, "k")
    shutil.rmtree(drives[1])
    drives[1].mkdir()
    monkeypatch.setattr(local, "OPEN_PATIENCE_SECONDS", 0.05)
    release = threading.Event()
    open_engine = local.folder_layout.open_engine

    def slow(*arguments):
        assert release.wait(60)
        return open_engine(*arguments)

    monkeypatch.setattr(local.folder_layout, "open_engine", slow)
    async with running(tmp_path) as pod:  # type: ignore[attr-defined]
        try:
            await asyncio.sleep(2.5)
            assert states(pod) == ["offline", "blank", "offline", "offline"]
            assert not (drives[1] / "holdfast.json").exists()
        finally:
            release.set()
        # Filled, which is counted a moment after the drive is; taken for new, it would be whole without.
        await until(lambda: whole(pod) and pod.heal_progress().drives_filled == 1)
        assert await get(pod, "k") == DATA
