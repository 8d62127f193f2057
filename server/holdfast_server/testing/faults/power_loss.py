"""A power cut for real pods: take away from their folders what no fsync had made durable.

`power_loss_shim.c` is preloaded into the pods and writes down every change below RocksDB and below Python; `cut` reads
that journal once every process is dead, decides what the disk had not kept yet, and undoes it.  The model is harsher
than most file systems, and POSIX promises no more:

- A file's bytes and size are durable after an fsync of the file that began after they were written.
- A folder's entries are durable after an fsync of that folder.  A file's own fsync says nothing of its name.
- A rename is one step: after an fsync of the folder it went into it is durable, before that it may be lost, and then
  the old name is there again and what it replaced as well.
- Everything else may be lost or kept, in any order (`Loss`): blocks of 512 or 4096 bytes each for themselves, zeros
  where a block beyond the old end was lost, changes of one name only from the last backwards.

What is lost is decided for each pod by the random generator that is given.  The journal is begun anew by a cut: what
is in the folder then is what is on the disk.

Not here: disks that lie about fsync, bytes that rot while the power is off.
"""

from __future__ import annotations

import os
import random
import shutil
import struct
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from pathlib import Path

from holdfast_server.testing.pods import PodProcesses

SOURCE = Path(__file__).with_name("power_loss_shim.c")
MAX_SYNC_US = 2000
BLOCK_SIZES_BYTES = (512, 4096)
_EVENT = struct.Struct("<IIQQQQII")
_MAGIC = 0x314C5748


class Kind(IntEnum):
    """As in the shim."""

    WRITE = 1
    SIZE = 2
    SYNC_BEGIN = 3
    SYNC_END = 4
    CREATE = 5
    UNLINK = 6
    RENAME = 7
    MAKE_FOLDER = 8
    REMOVE_FOLDER = 9
    LINK = 10


class Loss(Enum):
    """Which of the changes that were not durable are lost."""

    EVERYTHING = "everything"
    LATEST = "latest"
    """All from some moment on, the write of that moment torn."""
    SCATTERED = "scattered"
    """Any, as if the disk had written in an order of its own."""


class NoCompiler(Exception):
    """The shim cannot be built here; the message says why."""


@dataclass(slots=True)
class Change:
    """One change of one file's bytes or size, with what undoes it."""

    offset: int
    size: int
    old_size: int
    old_bytes: bytes
    is_size: bool


@dataclass(slots=True)
class NameChange:
    """One change of folder entries."""

    kind: Kind
    names: tuple[str, ...]
    """One path; source and target of a rename."""
    inode: int
    replaced: int
    number: int
    """Position among all that were ever made."""

    @property
    def durable_with(self) -> str:
        """The folder whose fsync makes it durable."""
        return os.path.dirname(self.names[-1])


@dataclass(slots=True)
class Pending:
    """What a journal leaves undurable."""

    files: dict[int, list[Change]] = field(default_factory=lambda: defaultdict(list))
    names: list[NameChange] = field(default_factory=list)
    names_made: int = 0


def build_shim(directory: Path, source: Path = SOURCE) -> Path:
    """Compile it (or another one) into a directory; returns the shared object.  Raises NoCompiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise NoCompiler("no C compiler (cc) is installed")
    path = directory / f"{source.stem}.so"
    command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(path), str(source), "-ldl", "-lpthread"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise NoCompiler(f"{' '.join(command)} failed: {done.stderr[-500:]}")
    return path


class WatchedFolders:
    """The folders of one pod: all that start with `prefix`.  The journal must be outside of them, the graveyard outside
    and on the same file system."""

    def __init__(self, prefix: Path, journal_folder: Path, grave_folder: Path) -> None:
        self.prefix, self.journal_folder = prefix.resolve(), journal_folder.resolve()
        self.grave_folder = grave_folder.resolve()
        self.journal_folder.mkdir(parents=True, exist_ok=True)
        self.grave_folder.mkdir(parents=True, exist_ok=True)

    def environment(self, shim: Path, max_sync_us: int = MAX_SYNC_US) -> dict[str, str]:
        """What a process needs to be watched."""
        return {
            "LD_PRELOAD": str(shim),
            "HOLDFAST_POWER_PREFIX": str(self.prefix),
            "HOLDFAST_POWER_FOLDER": str(self.journal_folder),
            "HOLDFAST_POWER_GRAVE": str(self.grave_folder),
            "HOLDFAST_POWER_SYNC_US": str(max_sync_us),
        }

    def cut(self, chance: random.Random, loss: Loss | None = None) -> str:
        """Undo what was not durable; no process may be running.  Returns what was done, for people."""
        loss = loss or chance.choice(list(Loss))
        pending = read_journal(self.journal_folder)
        changes = sum(map(len, pending.files.values()))
        lost_names = choose_names(pending.names, loss, chance)
        for change in reversed(lost_names):
            self._undo_name(change)
        touched = 0
        for inode, path in self._files():
            if inode in pending.files:
                lose_bytes(path, pending.files.pop(inode), loss, chance)
                touched += 1
        self._begin_anew()
        return (
            f"{loss.value}: {len(lost_names)} of {len(pending.names)} names lost, "
            f"{changes} writes to {touched} files open"
        )

    def settle(self) -> None:
        """Take what is in the folders now for durable: whoever changed them from outside has synced."""
        self._begin_anew()

    def buried_bytes(self) -> int:
        """What the graveyard keeps from being freed."""
        return sum(grave.stat().st_size for grave in self.grave_folder.iterdir())

    def _undo_name(self, change: NameChange) -> None:
        """Also of a change that was noted and not made: the process died in between."""
        path = change.names[-1]
        if change.kind in (Kind.CREATE, Kind.LINK):
            _unlink(path)
        elif change.kind is Kind.UNLINK:
            self._bring_back(change.inode, path)
        elif change.kind is Kind.MAKE_FOLDER:
            shutil.rmtree(path, ignore_errors=True)
        elif change.kind is Kind.REMOVE_FOLDER:
            os.makedirs(path, exist_ok=True)
        elif change.kind is Kind.RENAME and os.path.exists(path) and os.stat(path).st_ino == change.inode:
            os.replace(path, change.names[0])
            if change.replaced:
                self._bring_back(change.replaced, path)

    def _bring_back(self, inode: int, path: str) -> None:
        if not os.path.exists(path):
            os.link(self.grave_folder / str(inode), path)

    def _files(self) -> Iterator[tuple[int, Path]]:
        for root in sorted(self.prefix.parent.glob(self.prefix.name + "*")):
            for folder, _, names in os.walk(root):
                for name in names:
                    path = Path(folder, name)
                    yield path.stat().st_ino, path

    def _begin_anew(self) -> None:
        for journal in self.journal_folder.glob("journal.*"):
            journal.unlink()
        for grave in self.grave_folder.iterdir():
            grave.unlink()


# --- what is pending


def read_journal(folder: Path) -> Pending:
    """All journals of a folder, one per process that ran, in their order."""
    pending = Pending()
    for path in sorted(folder.glob("journal.*")):
        _read_one(path.read_bytes(), pending)
    return pending


def _read_one(data: bytes, pending: Pending) -> None:
    begun: dict[int, int] = {}
    """Per fsync under way: how many changes had been made when it began."""
    forgotten: dict[int, int] = defaultdict(int)
    """Per file: how many of its changes are durable already."""
    at = 0
    while len(data) - at >= _EVENT.size:
        magic, kind, inode, a, b, c, first_size, second_size = _EVENT.unpack_from(data, at)
        assert magic == _MAGIC, f"the journal is damaged at {at}"
        start, middle = at + _EVENT.size, at + _EVENT.size + first_size
        at = middle + second_size
        if at > len(data):
            return  # the process died while it noted this, so before it did it
        first, second = data[start:middle], data[middle:at]
        if kind in (Kind.WRITE, Kind.SIZE):
            pending.files[inode].append(Change(a, b, c, first, kind == Kind.SIZE))
        elif kind == Kind.SYNC_BEGIN:
            begun[a] = len(pending.files[inode]) + forgotten[inode] if inode else pending.names_made
        elif kind == Kind.SYNC_END and inode:
            durable = max(0, begun.pop(a) - forgotten[inode])
            del pending.files[inode][:durable]
            forgotten[inode] += durable
        elif kind == Kind.SYNC_END:
            pending.names = _without_durable(pending.names, begun.pop(a), os.fsdecode(first))
        else:
            names = (os.fsdecode(first), os.fsdecode(second)) if kind == Kind.RENAME else (os.fsdecode(first),)
            pending.names.append(NameChange(Kind(kind), names, inode, a, pending.names_made))
            pending.names_made += 1


def _without_durable(names: list[NameChange], count: int, folder: str) -> list[NameChange]:
    """What is still pending after an fsync of a folder that began when `count` changes had been made.  With a change
    those before it of the same names are settled too: the disk has what came of them."""
    settled: set[str] = set()
    kept = []
    for change in reversed(names):
        if change.number >= count:
            kept.append(change)
        elif change.durable_with == folder or not settled.isdisjoint(change.names):
            settled.update(change.names)
        else:
            kept.append(change)
    return kept[::-1]


# --- what is lost


def choose_names(names: Sequence[NameChange], loss: Loss, chance: random.Random) -> list[NameChange]:
    """Those that are lost, in their order; with a change all later ones of the same names, or inside a lost folder."""
    first = chance.randint(0, len(names))
    lost: list[NameChange] = []
    gone: set[str] = set()
    for number, change in enumerate(names):
        wanted = loss is Loss.EVERYTHING or (number >= first if loss is Loss.LATEST else chance.random() < 0.5)
        if wanted or any(name in gone or os.path.dirname(name) in gone for name in change.names):
            lost.append(change)
            gone.update(change.names)
    return lost


def lose_bytes(path: Path, changes: list[Change], loss: Loss, chance: random.Random) -> None:
    """Replace a file's content by what the disk may hold of it."""
    now = path.read_bytes()
    if loss is Loss.SCATTERED:
        content = _scatter(now, _undone(now, changes), changes, chance)
    elif loss is Loss.LATEST:
        kept = chance.randint(0, len(changes))
        content = _tear(now, changes, kept, chance)
    else:
        content = _undone(now, changes)
    if content != now:
        with path.open("r+b") as file:
            file.write(content)
            file.truncate(len(content))


def _undone(now: bytes, changes: Sequence[Change]) -> bytes:
    content = bytearray(now)
    for change in reversed(changes):
        content.extend(bytes(max(0, change.offset + len(change.old_bytes) - len(content))))
        content[change.offset : change.offset + len(change.old_bytes)] = change.old_bytes
        content.extend(bytes(max(0, change.old_size - len(content))))
        del content[change.old_size :]
    return bytes(content)


def _tear(now: bytes, changes: Sequence[Change], kept: int, chance: random.Random) -> bytes:
    """The first `kept` changes, and of the next one a part from its beginning."""
    before = _undone(now, changes[kept:])
    if kept == len(changes) or changes[kept].is_size:
        return before
    change = changes[kept]
    after = _undone(now, changes[kept + 1 :])
    block = chance.choice(BLOCK_SIZES_BYTES)
    blocks = (change.offset % block + change.size) // block
    end = min(len(after), (change.offset // block + chance.randint(0, blocks)) * block)
    return after[:end] + before[end:] if end > change.offset else before


def _scatter(now: bytes, durable: bytes, changes: Sequence[Change], chance: random.Random) -> bytes:
    """Every block that changed is the old one or the new one; the size is the old, the new, or that of what is kept."""
    block = chance.choice(BLOCK_SIZES_BYTES)
    changed: set[int] = set()
    for change in changes:
        low = min(change.offset, change.old_size)
        high = max(change.offset + (0 if change.is_size else change.size), change.old_size if change.is_size else 0)
        changed.update(range(low // block, -(-high // block)))
    share = chance.choice((0.1, 0.5, 0.9))
    content = bytearray(durable.ljust(len(now), b"\0"))
    end = len(durable)
    for number in sorted(changed):
        if chance.random() < share:
            new = now[number * block : (number + 1) * block]
            content[number * block : number * block + len(new)] = new
            end = max(end, number * block + len(new))
    size = chance.choice((end, max(len(now), len(durable)), end))
    return bytes(content[:size])


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


class PowerSupply:
    """The power of all pods of a tenant, which fails for all at once."""

    def __init__(self, pods: PodProcesses, shim: Path) -> None:
        """Before the first pod is started: each is watched from then on."""
        self._folders = [
            WatchedFolders(
                pods.drive_path(pod).with_name("data"),
                pods.directory / "power" / str(pod),
                pods.drive_path(pod).with_name("grave"),
            )
            for pod in range(pods.servers)
        ]
        pods.pod_environment = lambda pod: self._folders[pod].environment(shim)
        self._pods = pods
        self.loss: Loss | None = None
        """The same for every cut; None: as chance will have it."""

    def cut(self, chance: random.Random) -> str:
        """Every pod must have been killed.  Half of the time all lose in the same way, which is the worst."""
        assert not self._pods.processes, "a pod runs"
        loss = self.loss
        if loss is None and chance.random() < 0.5:
            loss = chance.choice(list(Loss))
        return "; ".join(f"pod {pod}: {watched.cut(chance, loss)}" for pod, watched in enumerate(self._folders))

    def settle(self, pod: int) -> None:
        """A pod's drive was changed from outside while the pod was down."""
        self._folders[pod].settle()

    def buried_bytes(self) -> int:
        """Of the fullest graveyard: a cut empties them."""
        return max(watched.buried_bytes() for watched in self._folders)
