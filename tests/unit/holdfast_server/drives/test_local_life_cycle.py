"""Opening a folder: blank, formatted, adopted, another's, damaged, vanished.  Nothing is ever formatted over."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from holdfast_server.drives import folder_layout
from holdfast_server.drives.local import LocalDrive
from holdfast_server.drives.port import (
    CommitMode,
    CommitRequest,
    CommitStatus,
    DriveError,
    DriveFaulty,
    DriveState,
    Held,
    Register,
)
from holdfast_server.drives.slot import Slot, SlotMemory

REGISTER = Register(b"o" + bytes(16), "key")


async def put(drive: LocalDrive, stamp: int) -> CommitStatus:
    return (await drive.commit(CommitRequest(REGISTER, Held(stamp, False, b"r", -1, None), CommitMode.PLAIN))).status


async def test_a_blank_folder_waits_for_permission(open_drive, tmp_path):
    drive = await open_drive(form=False)
    assert drive.status().state is DriveState.BLANK
    with pytest.raises(DriveFaulty, match="blank"):
        await drive.query(REGISTER, False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["holdfast.lock"]


async def test_a_formatted_drive_is_full_and_stays_it(open_drive):
    drive = await open_drive()
    await drive.close()
    drive = await open_drive(form=False)
    status = drive.status()
    assert (status.state, status.drive_id, status.incarnation) == (DriveState.FULL, b"drive id 16 byte", 7)
    assert status.total_bytes >= status.available_bytes > 0
    with pytest.raises(DriveError, match="not a blank drive"):
        await drive.format(b"another drive id", 8)


async def test_an_adopted_drive_heals_from_its_watermark_on(open_drive):
    drive = await open_drive(form=False)
    await drive.adopt(b"drive id 16 byte", 7, 1000)
    await drive.close()
    drive = await open_drive(form=False)
    assert drive.status().state is DriveState.HEALING
    assert drive.greatest_stamp == 1000
    assert await put(drive, 1000) is CommitStatus.STALE


@pytest.mark.parametrize(
    ("slot", "named"),
    [
        (Slot("tenant-2", "main", 0, 0), "tenant tenant-2"),
        (Slot("tenant-1", "other", 0, 0), "pool other"),
        (Slot("tenant-1", "main", 1, 0), "set 1"),
        (Slot("tenant-1", "main", 0, 1), "position 1"),
    ],
)
async def test_a_drive_of_another_place_is_refused_naming_both(open_drive, slot, named):
    await (await open_drive()).close()
    drive = await open_drive(slot=slot, form=False)
    assert drive.status().state is DriveState.FAULTY
    assert "belongs to tenant tenant-1, pool main, set 0, position 0" in drive.status().message
    assert named in drive.status().message


async def test_a_missing_folder_is_not_made_up(open_drive, tmp_path):
    drive = await open_drive(path=tmp_path / "absent", form=False)
    assert drive.status().state is DriveState.FAULTY
    assert "does not exist; is the volume mounted?" in drive.status().message
    assert not (tmp_path / "absent").exists()
    (tmp_path / "file").write_text("")
    assert "is not a directory" in (await open_drive(path=tmp_path / "file", form=False)).status().message


async def test_data_without_identity_is_not_formatted_over(open_drive, tmp_path):
    drive = await open_drive()
    await put(drive, 10)
    await drive.close()
    (tmp_path / "holdfast.json").unlink()
    drive = await open_drive(form=False)
    assert drive.status().state is DriveState.FAULTY
    assert "has no identity file but holds records, staging, shards/" in drive.status().message


async def test_an_interrupted_formatting_leaves_a_blank_drive(open_drive, tmp_path):
    await (await open_drive()).close()
    (tmp_path / "holdfast.json").unlink()
    (tmp_path / "holdfast.forming").write_text("")
    drive = await open_drive(form=False)
    assert drive.status().state is DriveState.BLANK
    await drive.format(b"drive id 16 byte", 8)
    assert await put(drive, 10) is CommitStatus.OK


def held_in(folder):
    """The folder or what is in it, as far as this process has it open."""
    links = (os.readlink(entry.path) for entry in os.scandir("/proc/self/fd") if os.path.lexists(entry.path))
    return [link for link in links if link.startswith(str(folder))]


@pytest.mark.parametrize("damage", ["empty", "lost", "swapped"])
async def test_records_that_are_not_this_drives_own_are_refused(open_drive, tmp_path, damage):
    await (await open_drive()).close()
    records = tmp_path / "records"
    if damage == "swapped":
        other = tmp_path / "other"
        other.mkdir()
        second = await open_drive(path=other, form=False)
        await second.format(b"another drive id", 7)
        await second.close()
        shutil.rmtree(records)
        (other / "records").rename(records)
    else:
        shutil.rmtree(records)
        if damage == "empty":
            records.mkdir()
    drive = await open_drive(form=False)
    assert drive.status().state is DriveState.FAULTY
    expected = "belongs to drive" if damage == "swapped" else "is missing or empty"
    assert expected in drive.status().message
    assert held_in(tmp_path) == [], "somebody has to be able to unmount it"


async def test_one_process_at_a_time(open_drive):
    await open_drive()
    second = await open_drive(form=False)
    assert second.status().state is DriveState.FAULTY
    assert "is in use by another process" in second.status().message


@pytest.mark.parametrize("loss", ["identity", "folder", "changed"])
async def test_a_drive_that_vanishes_in_use_acknowledges_nothing_more(open_drive, tmp_path, loss):
    path = tmp_path / "drive"
    path.mkdir()
    drive = await open_drive(path=path)
    assert await put(drive, 10) is CommitStatus.OK
    if loss == "identity":
        (path / "holdfast.json").unlink()
    elif loss == "changed":
        identity = path / "holdfast.json"
        identity.write_text(identity.read_text().replace("tenant-1", "tenant-2"))
    else:
        shutil.rmtree(path)
    with pytest.raises(DriveFaulty, match="identity file vanished or changed"):
        await put(drive, 20)
    assert drive.status().state is DriveState.FAULTY
    with pytest.raises(DriveFaulty):
        await drive.query(REGISTER, False)
    await drive.close()
    assert loss != "folder" or not path.exists()


async def test_an_idle_drive_notices_that_it_vanished(tmp_path, open_drive):
    drive = await open_drive()
    (tmp_path / "holdfast.json").unlink()
    with pytest.raises(DriveFaulty):
        drive._check()


async def test_a_drive_that_was_set_aside_serves_nothing(open_drive):
    drive = await open_drive()
    drive.set_aside("it was replaced")
    assert (drive.status().state, drive.status().message) == (DriveState.FAULTY, "it was replaced")
    with pytest.raises(DriveFaulty, match="it was replaced"):
        await put(drive, 10)


async def test_close_is_idempotent_and_final(open_drive):
    drive = await open_drive()
    await drive.close()
    await drive.close()
    with pytest.raises(DriveError, match="closed"):
        await put(drive, 10)


async def test_the_greatest_stamp_outlives_the_records(open_drive):
    drive = await open_drive()
    await put(drive, 10)
    await drive.fence(REGISTER, 500)
    await drive.remove(REGISTER, 10)
    await drive.close()
    assert (await open_drive()).greatest_stamp == 500


async def test_slots_are_remembered_by_their_newest_incarnation(open_drive):
    drive = await open_drive()
    old, new = SlotMemory("main", 0, 1, b"a" * 16, 5), SlotMemory("main", 0, 1, b"b" * 16, 6)
    other = SlotMemory("main", 0, 2, b"c" * 16, 1)
    await drive.remember([new, other])
    await drive.remember([old])
    await drive.close()
    assert await (await open_drive()).remembered() == [new, other]


def test_a_folder_deleted_under_its_mount_is_not_blank(tmp_path):
    folder = tmp_path / "mounted"
    folder.mkdir()
    held = os.open(folder, os.O_RDONLY)
    try:
        folder.rmdir()
        with pytest.raises(DriveFaulty, match="deleted while it was mounted"):
            folder_layout.check_folder(Path(f"/proc/self/fd/{held}"))
    finally:
        os.close(held)


async def test_a_marker_of_forming_that_a_crash_left_costs_no_data_when_the_identity_is_lost(open_drive, tmp_path):
    """A power cut brings the marker back, or keeps it: its removal is the last step, and not synced.  Years later the
    identity file is lost."""
    drive = await open_drive()
    await put(drive, 10)
    await drive.close()
    (tmp_path / folder_layout.FORMING_FILE).write_bytes(b"")
    await (await open_drive(form=False)).close()
    (tmp_path / "holdfast.json").unlink()
    drive = await open_drive(form=False)
    assert drive.status().state is DriveState.FAULTY
    assert "will not be formatted" in drive.status().message
    assert (tmp_path / "records" / "CURRENT").exists()
