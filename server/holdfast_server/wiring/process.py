"""What concerns the process as a whole: its memory allocator, its garbage collector, its open files and its end.

glibc gives every buffer above 128 KiB back to the kernel when it is freed and takes it anew, page fault by page
fault, which costs up to six times the work on it. Larger thresholds keep what was used for the next use; what is free
at the end of the heap beyond the trim threshold goes back (all of it at rest: `memory.at_rest`). And it gives each of
up to eight arenas per core to threads, between which buffers are not shared: one arena for all took a quarter off
what a pod has resident after work, and no CPU that could be measured, since nearly all threads allocate under the
GIL.

Python's cycle collector looks at what is young each 700 objects, which a few requests make: 6 % of the CPU of small
requests.  Hardly anything here is part of a cycle, so it may look seldom; and never at modules, classes and code.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import resource
import signal

_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

MMAP_THRESHOLD_BYTES = 1 << 30
TRIM_THRESHOLD_BYTES = 64 << 20
TOP_PAD_BYTES = 16 << 20
ARENAS = 1
YOUNG_OBJECTS = 20_000
"""After so many more container objects the collector looks at them: some MB, should all of them be garbage."""
OPEN_FILES = 1 << 16
"""Connections, of which there may be some 4,000 before any has to give way, take descriptors that drives need, too."""


def tune_allocator() -> bool:
    """True if the C library is glibc and took the settings; others are left as they are."""
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018 — only glibc has it, and only there the numbers mean this
        set_option = library.mallopt
    except (OSError, AttributeError):
        return False
    options = (
        (_M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES),
        (_M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES),
        (_M_TOP_PAD, TOP_PAD_BYTES),
        (_M_ARENA_MAX, ARENAS),
    )
    taken = [set_option(name, value) for name, value in options]
    return taken == [1] * len(options)


def tune_collector() -> None:
    """Once everything is imported."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 10, 10)


def raise_file_limit() -> int:
    """As far as is allowed and of use; returns what it is now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return soft


def stop_on_signals(loop: asyncio.AbstractEventLoop) -> asyncio.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop
