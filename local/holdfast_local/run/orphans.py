"""Processes left over from an earlier run of the same cluster, found by a mark in their environment.

Normally there are none: every child is told to die with its parent.  This is the second line: for a system
where that is not possible, and for grandchildren.
"""

from __future__ import annotations

from pathlib import Path

import psutil

MARK = "HOLDFAST_LOCAL_STATE"
WAIT_SECONDS = 5.0


def end_orphans(state_root: Path) -> int:
    """Kill this user's processes that carry the mark of `state_root`; how many there were."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(state_root):
                process.kill()
                found.append(process)
        except (psutil.Error, OSError):
            continue  # gone, or another user's
    psutil.wait_procs(found, timeout=WAIT_SECONDS)
    return len(found)
