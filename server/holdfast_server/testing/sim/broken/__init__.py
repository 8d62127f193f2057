"""The rules of `docs/quorum.md`, each broken on purpose: patches of the production code, in force inside a `with`.

Each takes away one thing that a rule asks for and leaves everything else as it is.  By where the rule lives: `deciding`
(what coordinators make of answers), `accepting` (what drives take), `repairing` (healing, dropping, replacing),
`serving` (buckets and reads).  `breakages` has them all by name; which are noticed, and where, is
`tests/sim/test_checkers_bite.py`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

Breakage = Callable[[], AbstractContextManager[Any]]


@contextmanager
def both(*patches: AbstractContextManager[Any]) -> Any:
    """All of them at once."""
    with ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch)
        yield
