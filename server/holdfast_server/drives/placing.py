"""Moving committed shards from `staging/` into their places: later, some at a time, with nobody waiting.

A shard may be read in either place, and start-up moves what a crash left behind, so the move is no part of a commit;
done for each by itself it would cost a small upload two hand-overs between threads for one `rename`.  Bounds: whatever
was committed within PLACE_SECONDS.

Not here: which shards may be moved (`shard_files.place` looks: those that a commit has claimed); healed ones,
which are waited for (`local`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from holdfast_server.drives.disk_threads import DiskThreads

PLACE_SECONDS = 0.02


class Placing:
    """See the module.  All but `add` is called on the loop."""

    def __init__(
        self, place: Callable[[Sequence[bytes]], None], threads: DiskThreads, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._place, self._threads, self._loop = place, threads, loop
        self._data_ids: deque[bytes] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, data_ids: Iterable[bytes]) -> None:
        """From any thread; seen by the next `look`."""
        self._data_ids.extend(data_ids)

    def look(self) -> None:
        """Something may have been added."""
        if self._data_ids and self._timer is None:
            self._timer = self._loop.call_later(PLACE_SECONDS, self.begin)

    def begin(self) -> None:
        """Do not wait for more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        data_ids = []
        while self._data_ids:
            data_ids.append(self._data_ids.popleft())
        if data_ids:
            self._threads.post(lambda: self._place(data_ids))
