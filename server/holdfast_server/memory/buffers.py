"""Large buffers that nobody needs cleared, and that direct I/O takes.

`bytearray(size)` sets every byte to zero first, which is a pass over memory for nothing where all of it is filled
before any of it is looked at.  Whoever asks for one of these fills it.

Not here: who may have how much (`budget`).
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

PAGE_SIZE_BYTES = 4096
"""Direct I/O wants memory and places in files at multiples of the device's blocks, which are no larger."""

_new_bytearray = ctypes.pythonapi.PyByteArray_FromStringAndSize
_new_bytearray.restype = ctypes.py_object
_new_bytearray.argtypes = [ctypes.c_char_p, ctypes.c_ssize_t]


def uncleared(size_bytes: int) -> bytearray:
    """With whatever is in it."""
    buffer: bytearray = _new_bytearray(None, size_bytes)
    return buffer


def uncleared_pages(size_bytes: int, ahead_bytes: int = 0, lead_bytes: int = 0) -> memoryview:
    """The same; what comes after the first `ahead_bytes` begins `lead_bytes` behind the beginning of a page."""
    buffer = uncleared(ahead_bytes + size_bytes + PAGE_SIZE_BYTES - 1)
    start = (lead_bytes - address_of(buffer) - ahead_bytes) % PAGE_SIZE_BYTES
    return memoryview(buffer)[start : start + ahead_bytes + size_bytes]


def as_one(views: Sequence[object]) -> memoryview | None:
    """Views of one writable buffer that lie one after the other, none empty, as one; None for all else."""
    first = views[0] if views else None
    if not isinstance(first, memoryview) or first.readonly or not isinstance(first.obj, bytearray):
        return None
    whole = first.obj
    start = end = address_of(first)
    for view in views:
        if not isinstance(view, memoryview) or view.obj is not whole or view.readonly or address_of(view) != end:
            return None
        end += len(view)
    ahead = start - address_of(whole)
    return memoryview(whole)[ahead : ahead + end - start]


def address_of(buffer: bytearray | memoryview) -> int:
    """Where a writable buffer of at least one byte is in memory, for as long as it lives."""
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))
