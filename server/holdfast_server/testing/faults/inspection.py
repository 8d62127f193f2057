"""What lies on the drives of pods that are stopped: read with the server's own formats, judged against each other.

Full redundancy means: for every register, every drive of its set holds the newest committed version, each under its
own shard index, and every shard reads back: files with valid footer and hashes, inline shards equal to what coding
the object anew gives.  And nothing is left over: no staged files, no shard file that no row names, no repairs.

A version that too few drives hold to be committed is no fault: an undecided write that never happened.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import xxhash

from holdfast_server.contract.geometry import Quorums
from holdfast_server.drives import keys, rows, shard_format
from holdfast_server.drives.engine import Engine
from holdfast_server.drives.folder_layout import RECORDS_FOLDER
from holdfast_server.drives.identity import read_identity
from holdfast_server.drives.port import HASH_SIZE_BYTES, DriveError, Held, Register
from holdfast_server.drives.shard_files import SHARDS_FOLDER, STAGING_FOLDER, staged_names
from holdfast_server.erasure.codec import codec
from holdfast_server.objects import record
from holdfast_server.objects.quorum import of_version
from holdfast_server.sealing.chunks import sealed_size


@dataclass(slots=True)
class StoppedDrive:
    """One drive's rows."""

    folder: Path
    registers: dict[Register, list[Held]] = field(default_factory=dict)
    marks: dict[Register, int] = field(default_factory=dict)
    repairs: list[Register] = field(default_factory=list)
    named: set[str] = field(default_factory=set)
    """Data ids that some row names: references and trash."""


@dataclass(slots=True)
class Findings:
    registers: int = 0
    shards_verified: int = 0
    shard_files: list[Path] = field(default_factory=list, repr=False)
    """Those of committed versions, sound or not."""
    uncommitted: int = 0
    """Versions that some drive holds and that never were committed."""
    missing: list[str] = field(default_factory=list)
    """What keeps the set from full redundancy."""
    left_over: list[str] = field(default_factory=list)
    repairs: int = 0


def read_drive(folder: Path) -> StoppedDrive:
    """All rows of a drive that no process has open.  Raises EngineError, RowCorrupt."""
    if read_identity(folder) is None:
        raise DriveError(f"{folder} has no identity")
    engine = Engine(folder / RECORDS_FOLDER, create=False)
    drive = StoppedDrive(folder)
    try:
        for key, value in _rows(engine):
            kind, row = key[:1], key[1:]
            if kind == keys.REGISTER and row[-1:] == keys.RECORDS:
                drive.registers[keys.decode_row_key(row[:-1])] = _held(engine, row[:-1], value)
            elif kind == keys.SETTLED:
                register, settled = keys.decode_row_key(row), rows.decode_settled(value).record
                drive.registers[register], drive.marks[register] = [settled.held()], settled.stamp
            elif kind == keys.REGISTER:
                drive.marks[keys.decode_row_key(row[:-1])] = keys.to_number(value)
            elif kind == keys.REFERENCE:
                drive.named.add(row[:16].hex())
            elif kind == keys.TRASH:
                drive.named.add(value.hex())
            elif kind == keys.REPAIR:
                drive.repairs.append(keys.decode_row_key(value))
    finally:
        engine.close()
    return drive


def inspect_set(folders: Mapping[int, Path], quorums: Quorums) -> Findings:
    """All drives of one erasure set, by position.  Raises EngineError, RowCorrupt, DriveError."""
    drives = {position: read_drive(folder) for position, folder in folders.items()}
    findings = Findings(repairs=sum(len(drive.repairs) for drive in drives.values()))
    for register in sorted({r for drive in drives.values() for r in drive.registers}, key=lambda r: (r.space, r.key)):
        findings.registers += 1
        _inspect_register(register, drives, quorums, findings)
    for drive in drives.values():
        findings.left_over += list(_left_over(drive))
    return findings


def _inspect_register(
    register: Register, drives: Mapping[int, StoppedDrive], quorums: Quorums, findings: Findings
) -> None:
    if register.space[:1] == record.PART_SPACE and _ended(register, drives):
        return
    holders: dict[int, dict[int, Held]] = defaultdict(dict)
    for position, drive in drives.items():
        for held in drive.registers.get(register, []):
            holders[held.stamp][position] = held
    marked = max(drive.marks.get(register, 0) for drive in drives.values())
    for stamp in sorted(holders, reverse=True):
        needed = of_version(quorums, next(iter(holders[stamp].values()))).write_quorum
        if len(holders[stamp]) < needed and stamp != marked:
            findings.uncommitted += 1
            continue
        _inspect_version(register, holders[stamp], drives, findings)
        return


def _ended(part: Register, drives: Mapping[int, StoppedDrive]) -> bool:
    """Whether the part's upload is over: what is left of the part goes, each drive in its own time."""
    upload = Register(record.UPLOAD_SPACE + part.space[1:], part.key, part.version[:-2])
    newest = [drive.registers[upload][0] for drive in drives.values() if drive.registers.get(upload)]
    return not newest or any(held.tombstone for held in newest)


def _inspect_version(
    register: Register, have: Mapping[int, Held], drives: Mapping[int, StoppedDrive], findings: Findings
) -> None:
    name = f"{register.space[:1].decode()}/{register.key}"
    tombstone = next(iter(have.values())).tombstone
    for position in sorted(drives.keys() - have.keys()):
        # A tombstone need not be written where nothing is.
        if not tombstone or drives[position].registers.get(register):
            findings.missing.append(f"{name}: drive {position} lacks the committed version")
    if tombstone:
        return
    if len({held.shard_index for held in have.values()}) != len(have) and next(iter(have.values())).shard_index >= 0:
        findings.missing.append(f"{name}: two drives hold the same shard")
    kept = record.decode(next(iter(have.values())).record)
    for position, held in have.items():
        for data_id in held.data_ids:
            path = shard_path(drives[position].folder, data_id)
            findings.shard_files.append(path)
            fault = verify_shard(path, data_id)
            findings.shards_verified += 1
            if fault:
                findings.missing.append(f"{name}: drive {position}: {fault}")
    if kept.inline and kept.size_bytes and kept.geometry is not None:
        _inspect_inline(name, kept, have, findings)


def _inspect_inline(name: str, kept: record.Record, have: Mapping[int, Held], findings: Findings) -> None:
    assert kept.geometry is not None
    coder = codec(kept.geometry.data_shards, kept.geometry.parity_shards)
    shards = {held.shard_index: held.inline for held in have.values() if held.inline is not None}
    if len(shards) < coder.data_shards:
        findings.missing.append(f"{name}: {len(shards)} inline shards, {coder.data_shards} are needed")
        return
    coded_size = kept.size_bytes if kept.sealing is None else sealed_size(kept.size_bytes)
    stripe = b"".join(bytes(view) for view in coder.join(shards, coded_size))
    for index, block in enumerate(coder.encode(stripe)):
        findings.shards_verified += 1
        if index in shards and shards[index] != block:
            findings.missing.append(f"{name}: inline shard {index} is not what coding gives")
        elif index not in shards:
            findings.missing.append(f"{name}: nobody has inline shard {index}")


def shard_path(folder: Path, data_id: bytes) -> Path:
    """In its place, or where it was staged."""
    name = data_id.hex()
    place = folder / SHARDS_FOLDER / name[:2] / name
    return place if place.exists() else folder / STAGING_FOLDER / name


def verify_shard(path: Path, data_id: bytes) -> str:
    """What is wrong with a shard file; empty if it is sealed and every block matches its hash."""
    name = path.name
    try:
        data = path.read_bytes()
        shape = shard_format.decode_footer(data_id, data[-shard_format.FOOTER_SIZE_BYTES :], len(data))
    except (OSError, shard_format.NotSealed) as error:
        return f"shard {name}: {error}"
    for index in range(shape.block_count):
        start, size = shape.block_range(index)
        hash_at = shape.hash_offset(index)
        if xxhash.xxh3_128_digest(data[start : start + size]) != data[hash_at : hash_at + HASH_SIZE_BYTES]:
            return f"shard {name}: block {index} does not match its hash"
    return ""


def _left_over(drive: StoppedDrive) -> Iterator[str]:
    for name in staged_names(drive.folder):
        if name not in drive.named:
            yield f"{drive.folder.name}: staging/{name} is left over"
    for path in (drive.folder / SHARDS_FOLDER).glob("*/*"):
        if path.name not in drive.named:
            yield f"{drive.folder.name}: no row names shards/{path.parent.name}/{path.name}"


def _rows(engine: Engine) -> Iterator[tuple[bytes, bytes]]:
    cursor = engine.cursor()
    cursor.seek(b"\x00")
    while (key := cursor.key()) is not None:
        yield key, cursor.value()
        cursor.next()


def _held(engine: Engine, row: bytes, value: bytes) -> list[Held]:
    held = []
    for stored in rows.decode(value).records:
        inline = stored.inline
        if stored.inline_apart:
            found = engine.get([keys.inline_key(row, stored.stamp)])[0]
            inline = rows.decode_inline(found) if found is not None else None
        held.append(stored.held(inline))
    return held
