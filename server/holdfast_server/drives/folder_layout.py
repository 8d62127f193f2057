"""A drive's folder: what lies in it, how a blank one becomes a drive, what is found when it is opened.

    holdfast.json      identity; written last, so that whatever has one is complete
    holdfast.lock      locked while a process has the drive open
    holdfast.forming   only while formatting: what lies beside it is worthless
    holdfast.retired   the table was damaged and is being replaced; the shards beside it are worth keeping
    holdfast.reached   how far the table had got (`witness`)
    holdfast.ballast   room kept for the time when there is none (`ballast`)
    records.damaged/   the table that was replaced, until the drive is full again
    records/           the table (RocksDB)
    staging/           shard files no record is known to name yet, and files to be written over (`spares`)
    shards/00 … ff/    shard files

A folder without identity that holds records or shards is *not* blank: somebody's data is in it, and it is
refused rather than formatted over.  `docs/on-disk.md` has the crash points.  All functions block; they run on
a worker thread.
"""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

from holdfast_server.drives import keys
from holdfast_server.drives.durable_files import fsync_folder, replace_file
from holdfast_server.drives.engine import Engine, EngineError
from holdfast_server.drives.faults import FaultKind
from holdfast_server.drives.identity import IDENTITY_FILE, Identity, check_place, read_identity, write_identity
from holdfast_server.drives.port import WATERMARK_RANGES, DriveFaulty
from holdfast_server.drives.shard_files import SHARDS_FOLDER, STAGING_FOLDER, make_folders
from holdfast_server.drives.slot import Slot
from holdfast_server.drives.witness import WITNESS_FILE, read_witness

LOCK_FILE = "holdfast.lock"
RETIRED_FILE = "holdfast.retired"
DAMAGED_FOLDER = "records.damaged"
FORMING_FILE = "holdfast.forming"
RECORDS_FOLDER = "records"
_DATA_FOLDERS = (RECORDS_FOLDER, STAGING_FOLDER, SHARDS_FOLDER)
_DRIVE_ID = keys.META + b"drive-id"
KEEP_ROOM_BYTES = 256 << 20

log = logging.getLogger(__name__)


def check_folder(folder: Path) -> None:
    """Raises DriveFaulty; never creates the folder: one that is missing is a mount that is missing."""
    if not folder.is_dir():
        found = "is not a directory" if folder.exists() else "does not exist"
        raise DriveFaulty(f"{folder} {found}; is the volume mounted?")
    if folder.stat().st_nlink == 0:
        # What is mounted here was removed where it came from: nothing can be put into it any more.
        raise DriveFaulty(f"{folder} was deleted while it was mounted; restart the pod to mount it anew")


def find_identity(folder: Path, slot: Slot) -> Identity | None:
    """The identity of the drive in the folder, fit for the slot; None if the folder is blank.

    Raises IdentityError, DriveFaulty, OSError.
    """
    identity = read_identity(folder)
    if identity is not None:
        check_place(identity, slot)
        # Whatever has an identity is complete.  Left lying by a crash, the marker would say that all beside it is
        # worthless on the day on which the identity is lost.
        _remove_forming(folder)
        return identity
    if (folder / FORMING_FILE).exists():
        _wipe(folder)
        return None
    if is_retired(folder):
        return None
    left = [name for name in _DATA_FOLDERS if (folder / name).exists()]
    if left:
        raise DriveFaulty(f"{folder} has no identity file but holds {', '.join(left)}/; it will not be formatted")
    return None


def footprint(folder: Path) -> tuple[int, int] | None:
    """Which identity file is in the folder: changes when another, or none, is there.  Raises OSError."""
    try:
        facts = os.stat(folder / IDENTITY_FILE)
    except FileNotFoundError:
        return None
    return facts.st_dev, facts.st_ino


def open_engine(folder: Path, identity: Identity) -> Engine:
    """The table of a formatted drive.  Raises EngineError, DriveFaulty."""
    records = folder / RECORDS_FOLDER
    if not (records / "CURRENT").exists():
        raise EngineError(f"{records} is missing or empty, though the drive was formatted", FaultKind.DAMAGED)
    engine = Engine(records, create=False)
    try:
        stored = engine.get([_DRIVE_ID])[0]
        if stored is not None and stored != identity.id_bytes:
            raise DriveFaulty(f"{records} belongs to drive {stored.hex()}; the identity file says {identity.drive_id}")
        reached, proven = engine.reached, read_witness(folder, identity.id_bytes)
        if stored is None or reached < proven:
            raise EngineError(
                f"{records} has lost its end: it stops at change {reached}, and {proven} was acknowledged",
                FaultKind.DAMAGED,
            )
    except BaseException:
        engine.close()
        raise
    # A table that opens was not retired after all, or is the one that came after it.
    (folder / RETIRED_FILE).unlink(missing_ok=True)
    return engine


def is_retired(folder: Path) -> bool:
    """Whether the folder waits for a new table beside the shards it has."""
    return (folder / RETIRED_FILE).exists() and not (folder / IDENTITY_FILE).exists()


def damage_note(folder: Path) -> str:
    """Why the table that is kept aside was replaced; empty if there is none."""
    try:
        return (folder / DAMAGED_FOLDER / RETIRED_FILE).read_text(errors="replace")
    except OSError:
        return ""


def retire_table(folder: Path, slot: Slot, reason: str) -> None:
    """Make a drive whose table is damaged blank, keeping its shards.  Raises DriveError, IdentityError, OSError.

    The order lets a crash at any point be followed by another attempt: first the marker, so that the folder
    without identity is taken for what it is; then the table goes aside, and without it the drive does not open;
    the identity goes last.
    """
    identity = read_identity(folder)
    if identity is None:
        raise DriveFaulty(f"{folder} has no identity file: nothing there to be replaced")
    check_place(identity, slot)
    replace_file(folder / RETIRED_FILE, reason.encode())
    records, aside = folder / RECORDS_FOLDER, folder / DAMAGED_FOLDER
    if records.exists():
        shutil.rmtree(aside, ignore_errors=True)
        if _may_be_kept(folder, records):
            os.replace(records, aside)
        else:
            log.warning("%s: no room to keep the damaged table, it is removed", folder)
            shutil.rmtree(records)
    fsync_folder(folder)
    (folder / IDENTITY_FILE).unlink()
    fsync_folder(folder)


def forget_damaged(folder: Path) -> None:
    """The drive is full again: nobody needs the table that was replaced."""
    shutil.rmtree(folder / DAMAGED_FOLDER, ignore_errors=True)


def _may_be_kept(folder: Path, records: Path) -> bool:
    """Whether there is room for the damaged table beside a new one of its size."""
    size = sum(path.stat().st_size for path in records.rglob("*") if path.is_file())
    facts = os.statvfs(folder)
    return facts.f_bavail * facts.f_frsize > size + KEEP_ROOM_BYTES


def form(folder: Path, identity: Identity, watermark: int) -> Engine:
    """Make a blank folder a drive; every watermark is set.  Raises EngineError, DriveFaulty, OSError."""
    check_folder(folder)
    if read_identity(folder) is not None:
        raise DriveFaulty(f"{folder} has an identity already")
    replace_file(folder / FORMING_FILE, b"")
    kept = is_retired(folder)
    _wipe(folder, keep_marker=True)
    make_folders(folder)
    engine = Engine(folder / RECORDS_FOLDER, create=True)
    changes = [(_DRIVE_ID, identity.id_bytes)]
    changes += [(keys.watermark_key(index), keys.number(watermark)) for index in range(WATERMARK_RANGES) if watermark]
    engine.write(changes)
    engine.flush()
    for name in _DATA_FOLDERS:
        fsync_folder(folder / name)
    fsync_folder(folder)
    # From here on it is a drive: everything it needs is durable.
    write_identity(folder, identity)
    if kept:
        _keep_note(folder)
    _remove_forming(folder)
    return engine


def _remove_forming(folder: Path) -> None:
    """Durably."""
    try:
        (folder / FORMING_FILE).unlink()
    except FileNotFoundError:
        return
    fsync_folder(folder)


def _keep_note(folder: Path) -> None:
    """The reason goes to the table that is kept aside, for people; without one it has served its purpose."""
    if (folder / DAMAGED_FOLDER).is_dir():
        os.replace(folder / RETIRED_FILE, folder / DAMAGED_FOLDER / RETIRED_FILE)
    else:
        (folder / RETIRED_FILE).unlink()


def _wipe(folder: Path, keep_marker: bool = False) -> None:
    """Remove what an interrupted formatting left; the marker goes last.  Shards beside a table that was retired
    stay: each is checked against its hashes when it is read, and a record that comes back finds its own."""
    retired = is_retired(folder)
    for name in _DATA_FOLDERS:
        if (folder / name).exists() and not (retired and name == SHARDS_FOLDER):
            shutil.rmtree(folder / name)
    (folder / WITNESS_FILE).unlink(missing_ok=True)
    if not keep_marker:
        (folder / FORMING_FILE).unlink()
