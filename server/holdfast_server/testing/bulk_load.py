"""Very many records on the drives of pods that are stopped, in a hundredth of the time that requests would take.

Each drive is opened as a pod opens it and goes through its own verbs, commit and note, a few hundred registers per
batch of its committing thread; so what lies there afterwards is what requests would have left.  Not every drive is
given everything: some miss a write, some a delete, as if they had been away, without an entry in any repair queue.

A `Load` is a value that another process can be given, so that several drives are loaded at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import msgspec

from holdfast_server.api.bucket_record import BucketRecord
from holdfast_server.clock.stamp import floor_stamp
from holdfast_server.clock.system import SystemClock
from holdfast_server.drives import keys, register_rows
from holdfast_server.drives.group_commit import Transaction
from holdfast_server.drives.identity import read_identity
from holdfast_server.drives.local import LocalDrive
from holdfast_server.drives.parts import Parts
from holdfast_server.drives.port import CommitMode, CommitRequest, CommitStatus, DriveOffline, Held, Register
from holdfast_server.drives.register_verbs import RegisterVerbs
from holdfast_server.drives.slot import Slot
from holdfast_server.erasure.codec import codec
from holdfast_server.objects import record
from holdfast_server.objects.record import Extent, Geometry, Kind, Record, VersionInfo

REGISTERS_PER_BATCH = 250
SUBMIT_ATTEMPTS = 60
GROUP_SIZE = 10
"""Keys below one common prefix."""
DIFFERENCE_EVERY = 100
"""One key of so many is not the same on all drives."""
BODY = b"one line of a log and then another\n" * 8
ETAG = "8d6b6a3d1d8c2d0b5a5f6d1c0e9f7a3b"


@dataclass(frozen=True, slots=True)
class Load:
    """Keys `first` to `last` of a bucket; `deleted`: their tombstones, on all drives alike."""

    bucket_id: bytes
    last: int
    written_ms: int
    first: int = 0
    deleted: bool = False
    differences: bool = True
    versions_of: str = ""
    """No keys but versions of this one, the last of them current; they differ nowhere."""


Batch = list[tuple[bytes, Register, list[Held]]]
"""Row keys, registers, and what is given of them."""


def key_of(number: int) -> str:
    return f"{number // GROUP_SIZE:07d}/chunk-{number % GROUP_SIZE}"


def missed_write(number: int) -> bool:
    """One drive does not have the object."""
    return number % (2 * DIFFERENCE_EVERY) == DIFFERENCE_EVERY - 1


def missed_delete(number: int) -> bool:
    """One drive has the object, all others its tombstone."""
    return number % (2 * DIFFERENCE_EVERY) == 2 * DIFFERENCE_EVERY - 1


def present(load: Load) -> Iterator[str]:
    """The keys that a listing must show, in order."""
    for number in range(load.first, load.last):
        if not (load.deleted or (load.differences and missed_delete(number))):
            yield key_of(number)


def stamp_of(load: Load, number: int, later_ms: int = 0) -> int:
    return floor_stamp(load.written_ms + later_ms) + (number << 1)


class _Maker:
    """The records of a load, as one position is to hold them."""

    def __init__(self, load: Load, position: int, set_size: int, parity: int) -> None:
        self._load = load
        self._position = position
        self._set_size = set_size
        coder = codec(set_size - parity, parity)
        self._geometry = Geometry(coder.data_shards, coder.parity_shards, coder.name)
        self._shards = [bytes(shard) for shard in coder.encode(BODY)]

    def held(self, number: int) -> list[Held]:
        """What this position is given of a key, in the order of writing."""
        load = self._load
        differs = load.differences and not load.deleted and not load.versions_of
        odd_one = (number // DIFFERENCE_EVERY) % self._set_size == self._position
        found = []
        if not load.deleted and not (differs and missed_write(number) and odd_one):
            found.append(self._object(number))
        if load.deleted or (differs and missed_delete(number) and not odd_one):
            found.append(self._tombstone(number))
        return found

    def register(self, number: int) -> Register:
        load = self._load
        if not load.versions_of:
            return record.object_register(load.bucket_id, key_of(number))
        if number == load.last - 1:
            return record.object_register(load.bucket_id, load.versions_of)
        return record.version_register(load.bucket_id, load.versions_of, record.place_of(self._stamp(number, 0)))

    def _stamp(self, number: int, later: int) -> int:
        return stamp_of(self._load, number, later)

    def _object(self, number: int) -> Held:
        stamp = self._stamp(number, 0)
        made = Record(
            Kind.OBJECT,
            stamp,
            modified_ms=self._load.written_ms,
            size_bytes=len(BODY),
            etag=ETAG,
            headers={"content-type": "application/octet-stream"},
            geometry=self._geometry,
            extents=(Extent(b"", len(BODY)),),
            version=VersionInfo(record.place_of(stamp)) if self._load.versions_of else None,
        )
        return Held(stamp, False, record.encode(made), self._position, self._shards[self._position])

    def _tombstone(self, number: int) -> Held:
        stamp = self._stamp(number, 1000 * 3600)
        made = Record(Kind.TOMBSTONE, stamp, modified_ms=self._load.written_ms)
        return Held(stamp, True, record.encode(made), -1, None)


def load_drives(folders: list[Path], loads: list[Load], parity: int, processes: int = 2) -> None:
    """The drives of one set, in any order.  Raises RuntimeError where a drive does not take a record."""
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        for done in [pool.submit(_load_drive, folder, loads, len(folders), parity) for folder in folders]:
            done.result()


def _load_drive(folder: Path, loads: list[Load], set_size: int, parity: int) -> None:
    asyncio.run(_load(folder, loads, set_size, parity))


async def bucket_id(folder: Path, name: str) -> bytes:
    """Of a bucket that requests made, from a stopped pod's drive."""
    drive = await _opened(folder)
    try:
        reply = await drive.query(record.document_register(f"bucket/{name}"), True)
        return msgspec.json.decode(record.decode(reply.records[0].record).body, type=BucketRecord).id
    finally:
        await drive.close()


async def _opened(folder: Path) -> LocalDrive:
    identity = read_identity(folder)
    if identity is None:
        raise RuntimeError(f"{folder} is no drive")
    slot = Slot(identity.tenant, identity.pool, identity.set, identity.position)
    return await LocalDrive.open(folder, slot, SystemClock())


async def _load(folder: Path, loads: list[Load], set_size: int, parity: int) -> None:
    drive = await _opened(folder)
    try:
        for load in loads:
            await _fill(drive, load, _Maker(load, drive.position, set_size, parity))
    finally:
        await drive.close()


async def _fill(drive: LocalDrive, load: Load, maker: _Maker) -> None:
    parts = drive._opened()
    for first in range(load.first, load.last, REGISTERS_PER_BATCH):
        batch: Batch = []
        for number in range(first, min(first + REGISTERS_PER_BATCH, load.last)):
            register = maker.register(number)
            batch.append((keys.row_key(register), register, maker.held(number)))
        wanted = [key for row, _, _ in batch for key in register_rows.wanted(row)]
        await _submit(parts, wanted, batch)


async def _submit(parts: Parts, wanted: list[bytes], batch: Batch) -> None:
    """Again where the drive hung meanwhile: committing what is held already changes nothing."""
    for _ in range(SUBMIT_ATTEMPTS):
        try:
            await parts.commits.submit(wanted, lambda transaction: _write(parts.verbs, transaction, batch))
        except DriveOffline:
            await asyncio.sleep(1)
        else:
            return
    raise RuntimeError("the drive hangs")


def _write(verbs: RegisterVerbs, transaction: Transaction, batch: Batch) -> None:
    for row, register, versions in batch:
        for held in versions:
            reply = verbs.commit(transaction, row, CommitRequest(register, held, CommitMode.PLAIN))
            if reply.status is CommitStatus.STALE and reply.highest == versions[-1].stamp:
                continue  # by an earlier attempt it was written and superseded
            if reply.status is not CommitStatus.OK:
                raise RuntimeError(f"{register.key!r} was refused: {reply}")
            verbs.note(transaction, register, row, held.stamp, True)
