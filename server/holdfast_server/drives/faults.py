"""What can be wrong with a drive, by what has to happen before it may be used again.  Pure.

The kind of a fault decides how the pod goes on (`pod.local_drives`): whether the drive is opened again from what
is on the disk, how soon, or whether it has to be filled anew.  Opening again is always safe: nothing is
acknowledged before it is on stable storage, so whatever a failed write or fsync may have lost had not been
acknowledged, and a fresh open reads the disk and believes nothing that this process had in memory.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from enum import Enum

from holdfast_server.drives.port import DriveFaulty

NO_ROOM_ERRORS = (errno.ENOSPC, errno.EDQUOT)
NO_DESCRIPTOR_ERRORS = (errno.EMFILE, errno.ENFILE)


class FaultKind(Enum):
    PLACE = "place"
    """Not the drive that belongs here, or none, or another process has it: over as soon as somebody puts it right."""
    NO_ROOM = "no room"
    """The file system is full to the last byte, and the table could not be written or opened."""
    READ_ONLY = "read-only"
    """The file system is mounted read-only."""
    DESCRIPTORS = "descriptors"
    """The process, or the machine, has no more files to open: over as soon as some are closed.  Only where that befell
    the table in writing; a file that could not be opened is one call that failed (`is_passing`)."""
    MEDIUM = "medium"
    """An I/O error: a failed write, fsync or read of the table.  It may pass, it may come again."""
    DAMAGED = "damaged"
    """The table fails its checks: it cannot be trusted, and is made anew and filled from the other drives."""
    RETIRED = "retired"
    """The pod has learnt that it must not be used: it was replaced here by another drive."""


@dataclass(frozen=True, slots=True)
class Fault:
    kind: FaultKind
    message: str


def kind_of(error: BaseException) -> FaultKind:
    """The kind of a fault, by the exception that told of it; MEDIUM where nothing better is known."""
    kind = getattr(error, "kind", None)
    if isinstance(kind, FaultKind):
        return kind
    if isinstance(error, DriveFaulty):
        return FaultKind.PLACE
    number = getattr(error, "errno", None)
    if number in NO_ROOM_ERRORS:
        return FaultKind.NO_ROOM
    if number == errno.EROFS:
        return FaultKind.READ_ONLY
    if number in NO_DESCRIPTOR_ERRORS:
        return FaultKind.DESCRIPTORS
    return FaultKind.MEDIUM


def is_passing(error: BaseException) -> bool:
    """Whether it says nothing of the drive, and nothing was begun: a file could not be opened."""
    return kind_of(error) is FaultKind.DESCRIPTORS


_TABLE_SIGNS = (
    ("No space left on device", FaultKind.NO_ROOM),
    ("Disk quota exceeded", FaultKind.NO_ROOM),
    ("Read-only file system", FaultKind.READ_ONLY),
    ("Too many open files", FaultKind.DESCRIPTORS),
    ("Input/output error", FaultKind.MEDIUM),
    ("While lock file", FaultKind.PLACE),
    ("lock hold by", FaultKind.PLACE),
    ("Corruption", FaultKind.DAMAGED),
    ("No such file or directory", FaultKind.DAMAGED),
    ("does not exist", FaultKind.DAMAGED),
)
"""In this order: RocksDB calls an input/output error on the way to a checksum a corruption as well."""


def kind_of_table_message(message: str) -> FaultKind:
    """The kind of a RocksDB failure, of which the binding passes on only the text."""
    return next((kind for sign, kind in _TABLE_SIGNS if sign in message), FaultKind.MEDIUM)
