"""kill -9 in the middle of group commits; logs that are torn or rotten."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from holdfast_server.drives.port import (
    CommitMode,
    CommitRequest,
    DriveState,
    Held,
    Register,
    Tombstone,
    TombstoneState,
)

SPACE = b"o" + bytes(16)

WRITER = """
import asyncio, os, sys
from pathlib import Path
import xxhash
from holdfast_server.clock.system import SystemClock
from holdfast_server.drives.local import LocalDrive
from holdfast_server.drives.port import CommitMode, CommitRequest, Held, Register
from holdfast_server.drives.slot import Slot

async def main(path):
    drive = await LocalDrive.open(Path(path), Slot("tenant-1", "main", 0, 0), SystemClock())
    await drive.format(b"drive id 16 byte", 7)
    count = 0

    async def write():
        nonlocal count
        while True:
            count += 1
            number = count
            data_ids = ()
            if number % 8 == 0:
                data_ids = (number.to_bytes(16, "big"),)
                block = b"%d" % number * 100
                await drive.stage(data_ids[0], 0, [block], [xxhash.xxh3_128_digest(block)])
                await drive.seal(data_ids[0])
            held = Held(number, False, b"record %d" % number, 0, None if data_ids else b"shard", data_ids)
            register = Register(b"o" + bytes(16), f"key-{number}")
            await drive.commit(CommitRequest(register, held, CommitMode.PLAIN))
            os.write(1, b"%d\\n" % number)

    await asyncio.gather(*(write() for _ in range(32)))

asyncio.run(main(sys.argv[1]))
"""


async def test_every_acknowledged_record_is_there_after_kill_9(open_drive, tmp_path):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITER, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    acknowledged = [int(await process.stdout.readline()) for _ in range(2000)]
    process.send_signal(signal.SIGKILL)
    acknowledged += [int(line) for line in (await process.stdout.read()).split(b"\n")[:-1]]
    await process.wait()

    drive = await open_drive()
    assert drive.status().state is DriveState.FULL
    for number in acknowledged:
        reply = await drive.query(Register(SPACE, f"key-{number}"), True)
        assert reply.records[0].record == b"record %d" % number
        for data_id in reply.records[0].data_ids:
            assert (await drive.read_blocks(data_id, 0, 1))[0] == [b"%d" % number * 100]
    assert drive.greatest_stamp >= max(acknowledged)
    assert list((tmp_path / "staging").iterdir()) == []


async def fill(drive, count: int) -> None:
    for number in range(1, count + 1):
        held = Held(number, False, b"record", -1, b"x" * 500)
        await drive.commit(CommitRequest(Register(SPACE, f"key-{number}"), held, CommitMode.PLAIN))


def copy_of_a_crashed_drive(source: Path, target: Path) -> Path:
    """The files as a kill -9 would leave them; returns the newest log."""
    for path in source.rglob("*"):
        if path.is_dir():
            (target / path.relative_to(source)).mkdir(parents=True)
        elif path.name not in ("LOCK", "holdfast.lock"):
            (target / path.relative_to(source)).write_bytes(path.read_bytes())
    return max((target / "records").glob("*.log"))


async def test_a_torn_end_of_the_log_costs_only_what_was_never_whole(open_drive, tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    await fill(await open_drive(path=source), 20)
    log = copy_of_a_crashed_drive(source, target)
    log.write_bytes(log.read_bytes()[:-100])
    drive = await open_drive(path=target)
    assert drive.status().state is DriveState.FULL
    found = [len((await drive.query(Register(SPACE, f"key-{number}"), False)).records) for number in range(1, 21)]
    assert found == [1] * 19 + [0]


async def test_rot_in_the_middle_of_the_log_sets_the_drive_aside(open_drive, tmp_path):
    """The engine's default would open with half of what was acknowledged silently gone."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    await fill(await open_drive(path=source), 200)
    log = copy_of_a_crashed_drive(source, target)
    data = bytearray(log.read_bytes())
    data[len(data) // 2] ^= 1
    log.write_bytes(data)
    drive = await open_drive(path=target)
    assert drive.status().state is DriveState.FAULTY
    assert "does not open: Corruption" in drive.status().message


async def test_rot_in_a_sorted_file_is_an_error_and_never_an_absence(open_drive, tmp_path):
    drive = await open_drive()
    await fill(drive, 200)
    await drive.close()
    table = max((tmp_path / "records").glob("*.sst"), key=lambda path: path.stat().st_size)
    data = bytearray(table.read_bytes())
    for at in range(0, len(data) // 2, 512):
        data[at] ^= 1
    table.write_bytes(data)
    drive = await open_drive()
    try:
        reply = await drive.query(Register(SPACE, "key-100"), True)
    except Exception:
        reply = None
    assert reply is None
    assert drive.status().state is DriveState.FAULTY


async def test_what_is_told_of_a_tombstone_is_on_stable_storage_first(open_drive, monkeypatch):
    """The note that dropped what lay beneath it was not."""
    drive = await open_drive()
    register = Register(SPACE, "gone")
    for stamp in (10, 20):
        await drive.commit(CommitRequest(register, Held(stamp, stamp == 20, b"r", -1, None), CommitMode.PLAIN))
    engine = drive._opened().engine
    flush, flushed = engine.flush, []
    monkeypatch.setattr(engine, "flush", lambda: flushed.append(flush()))
    await drive.note(register, 20, True)
    assert flushed == []
    reply = await drive.weigh_tombstones([Tombstone(register, 20)], 0.0)
    assert (reply.states, len(flushed)) == ((TombstoneState.SETTLED,), 1)
