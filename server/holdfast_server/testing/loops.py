"""What the event loops of some Pythons get wrong, for tests that run on both, asyncio's and uvloop's.

Pods run on uvloop only (`holdfast_server.main`), so none of this reaches a user.
"""

from __future__ import annotations

import asyncio
import sys

_FAULTY = (3, 12) <= sys.version_info < (3, 12, 9) or (3, 13) <= sys.version_info < (3, 13, 2)


def writelines_never_pauses() -> bool:
    """Whether the running loop lets a protocol write on with `writelines` however much waits: asyncio's, in Python 3.12
    before 3.12.9 and in 3.13 before 3.13.2 (CVE-2024-12254)."""
    return _FAULTY and isinstance(asyncio.get_running_loop(), asyncio.SelectorEventLoop)
