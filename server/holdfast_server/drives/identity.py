"""The identity file: which drive this is and where it belongs, and the guard that watches it.

`holdfast.json` is written once a drive is formatted or adopted, rewritten when it has healed, and never
otherwise.  A drive whose file names another place, or a format this server does not know, is refused.  While
the drive is in use the file is looked at again before every acknowledgement: a folder that was swapped,
emptied or unmounted under a running pod must not go on taking writes that nobody will find (a recreated
folder would otherwise be filled silently, and every quorum that counted on it would be a lie).

The look is one `stat` (inode, device, size, time of change); only if that differs the file is read.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

import msgspec
import xxhash

from holdfast_server.drives.durable_files import replace_file
from holdfast_server.drives.faults import FaultKind
from holdfast_server.drives.port import DriveFaulty
from holdfast_server.drives.slot import Slot

IDENTITY_FILE = "holdfast.json"
FORMAT_VERSION = 1
DRIVE_ID_SIZE_BYTES = 16


class IdentityError(ValueError):
    """The file is not one this server can go by; the message says why, naming both sides where two differ."""

    kind = FaultKind.PLACE


class Identity(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", kw_only=True):
    format: int = FORMAT_VERSION
    tenant: str
    pool: str
    set: int
    position: int
    drive_id: str
    """Thirty-two hexadecimal digits, minted when the drive was formatted or adopted."""
    incarnation: int
    """Stamp of that moment."""
    state: str
    """`full` or `healing`."""
    checksum: str = ""
    """xxh3-64 of the file's JSON with this field empty, hexadecimal."""

    @property
    def id_bytes(self) -> bytes:
        return bytes.fromhex(self.drive_id)

    @property
    def healing(self) -> bool:
        return self.state == "healing"


def make_identity(slot: Slot, drive_id: bytes, incarnation: int, healing: bool) -> Identity:
    if len(drive_id) != DRIVE_ID_SIZE_BYTES:
        raise ValueError(f"a drive id has {DRIVE_ID_SIZE_BYTES} bytes, not {len(drive_id)}")
    return Identity(
        tenant=slot.tenant_id,
        pool=slot.pool,
        set=slot.set_index,
        position=slot.position,
        drive_id=drive_id.hex(),
        incarnation=incarnation,
        state="healing" if healing else "full",
    )


def encode(identity: Identity) -> bytes:
    bare = msgspec.json.encode(msgspec.structs.replace(identity, checksum=""))
    sealed = msgspec.structs.replace(identity, checksum=xxhash.xxh3_64_hexdigest(bare))
    return msgspec.json.format(msgspec.json.encode(sealed), indent=2) + b"\n"


def decode(data: bytes) -> Identity:
    """Raises IdentityError.  The format version is judged first: a later format may differ in all else."""
    try:
        raw = msgspec.json.decode(data)
        version = raw.get("format") if isinstance(raw, dict) else None
        if version != FORMAT_VERSION:
            raise IdentityError(f"format version {version}, but this server reads {FORMAT_VERSION}")
        identity = msgspec.convert(raw, Identity)
        bare = msgspec.json.encode(msgspec.structs.replace(identity, checksum=""))
        if identity.checksum != xxhash.xxh3_64_hexdigest(bare):
            raise IdentityError("its checksum does not match")
        if identity.state not in ("full", "healing") or len(identity.id_bytes) != DRIVE_ID_SIZE_BYTES:
            raise IdentityError(f"state {identity.state!r} or drive id {identity.drive_id!r} is not valid")
    except (msgspec.MsgspecError, ValueError) as error:
        raise IdentityError(str(error)) from error
    return identity


def check_place(identity: Identity, slot: Slot) -> None:
    """Raises IdentityError naming both places if the drive belongs elsewhere."""
    found = Slot(identity.tenant, identity.pool, identity.set, identity.position)
    if found != slot:
        raise IdentityError(f"belongs to {found}; this place is {slot}")


def read_identity(folder: Path) -> Identity | None:
    """None if there is no file.  Raises IdentityError, OSError."""
    try:
        data = (folder / IDENTITY_FILE).read_bytes()
    except FileNotFoundError:
        return None
    try:
        return decode(data)
    except IdentityError as error:
        raise IdentityError(f"{folder / IDENTITY_FILE}: {error}") from error


def write_identity(folder: Path, identity: Identity) -> None:
    replace_file(folder / IDENTITY_FILE, encode(identity))


class IdentityGuard:
    """Notices that the identity file has vanished or changed.  Safe to call from any thread."""

    def __init__(self, folder: Path, identity: Identity) -> None:
        self._folder = folder
        self._path = folder / IDENTITY_FILE
        self._lock = threading.Lock()
        self._identity = identity
        self._seen = self._look()

    @property
    def identity(self) -> Identity:
        return self._identity

    def rewrite(self, identity: Identity) -> None:
        """Write a changed identity of this drive (it has healed); raises DriveFaulty, OSError."""
        with self._lock:
            self._check()
            write_identity(self._folder, identity)
            self._identity = identity
            self._seen = self._look()

    def check(self) -> None:
        """Raises DriveFaulty if the file is not the one this drive was opened with."""
        with self._lock:
            self._check()

    def _check(self) -> None:
        try:
            if self._look() == self._seen:
                return
            found = read_identity(self._folder)
            self._seen = self._look()
        except (OSError, IdentityError) as error:
            raise DriveFaulty(f"the identity file vanished or changed while the drive was in use: {error}") from error
        if found != self._identity:
            raise DriveFaulty(f"{self._path} changed while the drive was in use")

    def _look(self) -> tuple[int, int, int, int]:
        facts = os.stat(self._path)
        return facts.st_dev, facts.st_ino, facts.st_size, facts.st_ctime_ns
