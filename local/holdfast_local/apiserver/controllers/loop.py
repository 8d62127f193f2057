"""The controllers' work loop: one bounded, ordered set of things to look at, fed by every change of the store.

Level-triggered: an entry says *what* to look at, never what happened, so entries merge and a lost order does no harm.
`settle` does all present work at once, for tests and at start; `run` does it forever.
"""

import asyncio
import logging
from collections.abc import Callable

from holdfast_local.apiserver.resources import CRDS, NAMESPACES, PODS
from holdfast_local.apiserver.storage.history import DELETED, Change
from holdfast_local.apiserver.storage.store import Address, Store

_LOGGER = logging.getLogger(__name__)
SWEEP_INTERVAL_SECONDS = 30.0
BATCH_LENGTH = 50
"""Entries worked on before other tasks get the loop again."""

Work = Callable[[Address], None]


class WorkLoop:
    """Feeds changed addresses to the controllers."""

    def __init__(self, store: Store, works: list[Work], sweep: Callable[[], None]) -> None:
        """Each of `works` is called with each changed address; `sweep` every SWEEP_INTERVAL_SECONDS."""
        self._store = store
        self._works = works
        self._sweep = sweep
        self._waiting: dict[Address, None] = {}
        self._wake = asyncio.Event()
        store.listen(self._on_change)

    def _on_change(self, address: Address, change: Change) -> None:
        self._enqueue(address)
        metadata = change.object["metadata"]
        if change.type == DELETED:
            for dependent in self._store.dependents(metadata["uid"]):
                self._enqueue(dependent)
            # What waits for its content to go: namespaces and definitions of custom kinds.
            if address.namespace:
                self._enqueue(Address(NAMESPACES, "", address.namespace))
            group, plural = address.key
            self._enqueue(Address(CRDS, "", f"{plural}.{group}"))
            for reference in metadata.get("ownerReferences") or ():
                owner = self._store.by_uid(reference["uid"])
                if owner is not None:
                    self._enqueue(owner)
        if address.key == PODS and change.previous is not None:
            # Its budget may have been chosen by the labels it had before.
            self._enqueue(address)

    def _enqueue(self, address: Address) -> None:
        """Bounded by the number of objects: an address waits at most once."""
        self._waiting[address] = None
        self._wake.set()

    def enqueue_all(self) -> None:
        """Looks at everything, as at start."""
        for address in list(self._store.addresses()):
            self._enqueue(address)

    def settle(self) -> None:
        """Works until nothing waits."""
        while self._waiting:
            self._work_batch(len(self._waiting))

    def _work_batch(self, count: int) -> None:
        for address in list(self._waiting)[:count]:
            del self._waiting[address]
            for work in self._works:
                try:
                    work(address)
                except Exception:
                    # A controller's fault must not stop the others; the next sweep tries again.
                    _LOGGER.exception("%s/%s %s", *address.key, address.name)

    async def run(self) -> None:
        """Works until cancelled."""
        self.enqueue_all()
        next_sweep = asyncio.get_running_loop().time() + SWEEP_INTERVAL_SECONDS
        while True:
            self._work_batch(BATCH_LENGTH)
            if self._waiting:
                await asyncio.sleep(0)
                continue
            self._wake.clear()
            try:
                async with asyncio.timeout_at(next_sweep):
                    await self._wake.wait()
            except TimeoutError:
                self._sweep_once()
                self.enqueue_all()
                next_sweep = asyncio.get_running_loop().time() + SWEEP_INTERVAL_SECONDS

    def _sweep_once(self) -> None:
        try:
            self._sweep()
        except Exception:
            # As above: the loop must go on.
            _LOGGER.exception("the sweep failed")
