"""A drive's folder: what lies in it, how a blank one becomes a drive, what is found when it is opened.

    holdfast.json      identity; written last, so that whatever has one is complete
    holdfast.lock      locked while a process has the drive open
    holdfast.forming   only while formatting: what lies beside it is worthless
    records/           the table (RocksDB)
    staging/           shard files no record is known to name yet
    shards/00 … ff/    shard files

A folder without identity that holds records or shards is *not* blank: somebody's data is in it, and it is
refused rather than formatted over.  `docs/on-disk.md` has the crash points.  All functions block; they run on
a worker thread.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from holdfast_server.drives import keys
from holdfast_server.drives.durable_files import fsync_folder, replace_file
from holdfast_server.drives.engine import Engine, EngineError
from holdfast_server.drives.identity import Identity, check_place, read_identity, write_identity
from holdfast_server.drives.port import WATERMARK_RANGES, DriveFaulty
from holdfast_server.drives.shard_files import SHARDS_FOLDER, STAGING_FOLDER, make_folders
from holdfast_server.drives.slot import Slot

LOCK_FILE = "holdfast.lock"
FORMING_FILE = "holdfast.forming"
RECORDS_FOLDER = "records"
_DATA_FOLDERS = (RECORDS_FOLDER, STAGING_FOLDER, SHARDS_FOLDER)
_DRIVE_ID = keys.META + b"drive-id"


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
        return identity
    if (folder / FORMING_FILE).exists():
        _wipe(folder)
        return None
    left = [name for name in _DATA_FOLDERS if (folder / name).exists()]
    if left:
        raise DriveFaulty(f"{folder} has no identity file but holds {', '.join(left)}/; it will not be formatted")
    return None


def open_engine(folder: Path, identity: Identity) -> Engine:
    """The table of a formatted drive.  Raises EngineError, DriveFaulty."""
    records = folder / RECORDS_FOLDER
    if not (records / "CURRENT").exists():
        raise EngineError(f"{records} is missing or empty, though the drive was formatted")
    engine = Engine(records, create=False)
    stored = engine.get([_DRIVE_ID])[0]
    if stored != identity.id_bytes:
        engine.close()
        found = stored.hex() if stored else "none"
        raise DriveFaulty(f"{records} belongs to drive {found}; the identity file says {identity.drive_id}")
    return engine


def form(folder: Path, identity: Identity, watermark: int) -> Engine:
    """Make a blank folder a drive; every watermark is set.  Raises EngineError, DriveFaulty, OSError."""
    check_folder(folder)
    if read_identity(folder) is not None:
        raise DriveFaulty(f"{folder} has an identity already")
    replace_file(folder / FORMING_FILE, b"")
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
    (folder / FORMING_FILE).unlink()
    return engine


def _wipe(folder: Path, keep_marker: bool = False) -> None:
    """Remove what an interrupted formatting left; the marker goes last."""
    for name in _DATA_FOLDERS:
        if (folder / name).exists():
            shutil.rmtree(folder / name)
    if not keep_marker:
        (folder / FORMING_FILE).unlink()
