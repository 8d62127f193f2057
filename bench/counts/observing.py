"""Counts what happens in this process between two moments: by a profile function in every thread, by looking at what
is sent between pods, and by a library preloaded into the process.

The profile function sees Python functions begin (and coroutines go on) and functions of C being called.  Calls inside
asyncio, threads' machinery and this package are left out: production runs another loop, and clients are not counted.

It has to be put in place before the first thread is started.  To be used in a process of its own: it alters classes.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import ctypes
import os
import selectors
import sys
import threading
import tracemalloc
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import msgspec

from bench.counts.steady_loop import SteadyLoop
from holdfast_server.memory.pipes import Piped
from holdfast_server.peers.connection import Connection
from holdfast_server.peers.frames import PREFIX
from holdfast_server.peers.messages import Verb

COUNTED_IN_C = {
    "SimpleQueue.put": "to_threads",
    "WriteBatch.put": "rows",
    "WriteBatch.delete": "rows",
    "Rdict.write": "batches",
}
"""Functions of C by their qualified names, and what each call counts as."""
BELOW_PYTHON = ("fsyncs", "opens", "written_bytes", "read_bytes", "copied_bytes")
"""As in the library, in its order."""
_REQUEST_FIELDS = 5
_LEFT_OUT = (
    threading.__file__,
    selectors.__file__,
    *(str(Path(file).parent) + os.sep for file in (asyncio.__file__, concurrent.futures.__file__)),
    str(Path(__file__).parents[1]) + os.sep,
)


class Observer:
    """`counts` is what has been counted while it was on."""

    def __init__(self, loop: SteadyLoop, library: str) -> None:
        """`library`: the path of `counting_shim.c`, compiled and preloaded; empty where there is no compiler."""
        self._loop = loop
        self._below = None if not library else ctypes.CDLL(library).holdfast_counts
        self._on = False
        self._counts: Counter[str] = Counter()
        self._before: dict[str, int] = {}
        self._counted: dict[CodeType, bool] = {}

    def install(self) -> None:
        """Before the first thread."""
        threading.setprofile(self._profile)
        send = Connection.send

        def counting_send(connection: Connection, header: bytes, blobs: Any = ()) -> None:
            if self._on:
                self._sent(header, blobs)
            send(connection, header, blobs)

        Connection.send = counting_send  # type: ignore[method-assign]
        send_piped = Connection.send_piped

        def counting_send_piped(connection: Connection, header: bytes, piped: Piped) -> asyncio.Future[None]:
            if self._on:
                self._counts["peers_bytes"] += PREFIX.size + len(header) + piped.size_bytes
            return send_piped(connection, header, piped)

        Connection.send_piped = counting_send_piped  # type: ignore[method-assign]

    def begin(self) -> None:
        self._counts = Counter()
        self._before = self._totals()
        self._on = True
        sys.setprofile(self._profile)

    def end(self) -> dict[str, float]:
        """What was counted since; of the loop and below Python, too."""
        sys.setprofile(None)
        self._on = False
        after = self._totals()
        return {**self._counts, **{name: after[name] - count for name, count in self._before.items()}}

    def so_far(self) -> dict[str, int]:
        """To see whether anything still goes on."""
        return self._totals()

    def _totals(self) -> dict[str, int]:
        found = {"from_threads": self._loop.handed_over, "tasks": self._loop.tasks}
        if self._below is not None:
            counters = (ctypes.c_uint64 * len(BELOW_PYTHON))()
            self._below(counters)
            found |= dict(zip(BELOW_PYTHON, counters, strict=True))
        return found

    def _profile(self, frame: FrameType, event: str, argument: Any) -> None:
        if not self._on:
            return
        if event == "call":
            code = frame.f_code
            counted = self._counted.get(code)
            if counted is None:
                counted = self._counted[code] = not code.co_filename.startswith(_LEFT_OUT)
            if counted:
                self._counts["calls"] += 1
        elif event == "c_call":
            name = COUNTED_IN_C.get(argument.__qualname__)
            if name is not None:
                self._counts[name] += 1

    def _sent(self, header: bytes, blobs: Any) -> None:
        fields = msgspec.msgpack.decode(header)
        if isinstance(fields, list) and len(fields) == _REQUEST_FIELDS:
            self._counts["messages"] += 1
            self._counts[f"messages {Verb(fields[1]).name}"] += 1
        self._counts["peers_bytes"] += PREFIX.size + len(header) + sum(map(len, blobs))


class MemoryPeak:
    """How much more Python memory than before was in use at once, in bytes."""

    def __enter__(self) -> MemoryPeak:
        tracemalloc.reset_peak()
        self._before = tracemalloc.get_traced_memory()[0]
        self.size_bytes = 0
        return self

    def __exit__(self, *error: object) -> None:
        self.size_bytes = tracemalloc.get_traced_memory()[1] - self._before
