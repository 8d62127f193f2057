"""Consecutive views as the one run of bytes that they are: stripes come as such, sealed and plain ones alike, and what
is written to files.  Pure."""

from __future__ import annotations

from collections.abc import Sequence


def sliced(views: Sequence[memoryview], skip: int, take: int) -> list[memoryview]:
    """At most `take` bytes after the first `skip`, as consecutive views without an empty one."""
    out = []
    for view in views:
        if skip >= len(view):
            skip -= len(view)
            continue
        part = view[skip : skip + take]
        skip = 0
        take -= len(part)
        if len(part):
            out.append(part)
        if not take:
            break
    return out
