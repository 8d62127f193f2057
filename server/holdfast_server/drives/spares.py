"""Shard files that no record names any more, kept to be written over instead of new ones.

Most of what a new file of some megabytes costs, beside its bytes, is that the file system finds room for it, writes
down where, and waits for its journal; freeing the old file costs as much again.  A file that had those blocks before
needs none of that.  So `shard_files` sets reclaimed files apart under `staging/<id>.spare`, and a shard on its way in
takes one of about its size, writes over it from the start and cuts off what is left at its end.  What lies in a
`.spare` means nothing, and neither does what a staged file has beyond what was written into it: a shard is what its
footer and hashes say, and a record names it only once all of them are durable.

Writing over a file is final where removing its name was not.  So a file is set apart only when

- it is durable that nothing names it any more (whoever calls sees to that, by a flush);
- nobody reads it, or did just now: who has it open would find another shard's bytes there, with their hashes, and what
  is on its way to another pod is pages of the file (`ShardFiles.reclaim` says so; such a file is removed, and stays
  whole for its readers);
- it has no other name (`st_nlink`): a copy made of links stays what it was.

They lie in `staging/`, so that taking one is a rename within one folder, which the sync that a sealed shard waits for
anyway makes durable as a whole; and so that a release that does not know them removes them at its start.

Bounds: so much of the drive (`SHARE`, `MAX_BYTES`), so many files, and none where the drive is nearly full: there they
are removed (`trim`), since nobody should have to wonder where the room has gone.  At the bound the oldest make way, for
as many new ones as there were shards that found none of their size; what nobody missed is removed as ever.

Safe from any thread; blocks on the file system.  Not here: making spares before there is anything to
reclaim.  A drive that only ever grows has none.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import threading
from bisect import bisect_left, insort
from pathlib import Path
from typing import NamedTuple

from holdfast_server.drives.space import Space

SUFFIX = ".spare"
LEAST_BYTES = 64 << 10
"""Smaller files gain nothing."""
MAX_FILES = 1024
MAX_BYTES = 2 << 30
SHARE = 0.01
"""Of the drive's size, if that is less."""
ROOM_TO_KEEP, ROOM_TO_TAKE = 0.10, 0.12
"""Of the drive's size: with less room than the first none are kept, with less than the second none are added."""
GREATEST_EXCESS = 2
"""A spare may be so many times as large as the shard that takes it: the rest has to be freed after all."""

log = logging.getLogger(__name__)


class Spare(NamedTuple):
    size_bytes: int
    path: Path


class Spares:
    def __init__(self, folder: Path, space: Space) -> None:
        """`folder` is where shards are staged."""
        self._folder = folder
        self._space = space
        self._lock = threading.Lock()
        self._kept: list[Spare] = []
        """By size."""
        self._ages: dict[Path, Spare] = {}
        """The same, the oldest first."""
        self._kept_bytes = 0
        self._missed = 0
        """Shards that found none, and for which none was exchanged yet."""
        self._streamed_bytes = 0

    def streamed(self, size_bytes: int) -> None:
        """So much the last shard had that came in pieces: the next one is likely to have as much."""
        self._streamed_bytes = size_bytes

    def found(self, path: Path) -> bool:
        """At start-up: whether this file of the folder is a spare.  It is kept, or removed."""
        if path.suffix != SUFFIX:
            return False
        facts = path.stat()
        if self._is_fit(facts):
            self.add(Spare(facts.st_size, path))
        else:
            path.unlink()
        return True

    def set_apart(self, place: Path) -> Spare | None:
        """Take a shard's file away from its place; None, and nothing was done, if it is not wanted.  `add` or `drop` is
        to follow."""
        try:
            facts = place.stat()
            if not self._is_fit(facts):
                return None
            path = self._folder / (place.name + SUFFIX)
            if path.exists():
                # Of an older copy, and to be taken at any time: this one, of which nobody knows yet whether it is read,
                # would be what is taken.
                return None
            os.replace(place, path)
        except OSError as error:
            if not isinstance(error, FileNotFoundError):
                log.warning("%s is not kept to be written over: %s", place, error)
            return None
        return Spare(facts.st_size, path)

    def add(self, spare: Spare) -> None:
        """Of what was set apart.  Whether there is a `surplus` now is to be looked at."""
        with self._lock:
            if spare.path not in self._ages:  # else somebody took away the file that it was of
                insort(self._kept, spare)
                self._ages[spare.path] = spare
                self._kept_bytes += spare.size_bytes
            self._missed = max(0, self._missed - self._is_over(0, 0))

    def drop(self, spare: Spare) -> None:
        """Of one that is not kept.  Raises OSError."""
        spare.path.unlink(missing_ok=True)

    def take(self, path: Path, size_bytes: int, whole: bool) -> bool:
        """Have a file at `path` for a shard of that size, or, if that is not the `whole`, one that begins so."""
        wanted_bytes = size_bytes if whole else max(size_bytes, self._streamed_bytes)
        spare = self._pop(wanted_bytes, size_bytes) if size_bytes >= LEAST_BYTES else None
        if spare is None:
            return False
        try:
            os.replace(spare.path, path)
        except OSError as error:
            log.warning("%s cannot be written over: %s", spare.path, error)
            with contextlib.suppress(OSError):  # nobody counts it any more
                self.drop(spare)
            return False
        return True

    @property
    def surplus(self) -> bool:
        """Whether some are to be removed: there is little room, or there are too many."""
        room = self._space.room
        return self._is_over(0, 0) or (bool(self._kept) and room.available_bytes < ROOM_TO_KEEP * room.total_bytes)

    def trim(self, limit: int) -> None:
        """Remove the oldest of the surplus, so many at most: one that was added may take the room of hundreds, and a
        slow disk must not be thought to hang for them.  Raises OSError."""
        spares: list[Spare] = []
        with self._lock:
            while self.surplus and len(spares) < limit:
                spares.append(self._remove(next(iter(self._ages.values()))))
        for spare in spares:
            self.drop(spare)

    @property
    def wanted(self) -> bool:
        """Whether there is any use in setting files apart."""
        return self._is_wanted(LEAST_BYTES)

    def _is_wanted(self, size_bytes: int) -> bool:
        room = self._space.room
        if room.available_bytes < ROOM_TO_TAKE * room.total_bytes or size_bytes > self._bound_bytes:
            return False
        return self._missed > 0 or not self._is_over(1, size_bytes)

    @property
    def _bound_bytes(self) -> int:
        return min(MAX_BYTES, int(SHARE * self._space.room.total_bytes))

    def _is_over(self, more_files: int, more_bytes: int) -> bool:
        return len(self._kept) + more_files > MAX_FILES or self._kept_bytes + more_bytes > self._bound_bytes

    def _is_fit(self, facts: os.stat_result) -> bool:
        return (
            stat.S_ISREG(facts.st_mode)
            and facts.st_nlink == 1
            and facts.st_size >= LEAST_BYTES
            and self._is_wanted(facts.st_size)
        )

    def _pop(self, wanted_bytes: int, least_bytes: int) -> Spare | None:
        """The smallest that has all of it, else the largest that has the least."""
        with self._lock:
            at = bisect_left(self._kept, wanted_bytes, key=_size)
            if at == len(self._kept) or self._kept[at].size_bytes > GREATEST_EXCESS * wanted_bytes:
                at -= 1
            if at < 0 or self._kept[at].size_bytes < least_bytes:
                self._missed = min(MAX_FILES, self._missed + 1)
                return None
            return self._remove(self._kept[at])

    def _remove(self, spare: Spare) -> Spare:
        """Under the lock."""
        del self._kept[bisect_left(self._kept, spare)]
        del self._ages[spare.path]
        self._kept_bytes -= spare.size_bytes
        return spare


def _size(spare: Spare) -> int:
    return spare.size_bytes
