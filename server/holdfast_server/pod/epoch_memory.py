"""The newest epoch that this pod has reported, kept on its drives.

A pod's report is a promise: it looks where the pools of that epoch are.  The operator acts on it, so it must outlive
the process: a pod that comes back with an older configuration (its node had not heard of the new one) would look for
keys where they no longer are written.  Such a pod knows from its drives that it is behind, without asking anybody.

Order: remembered durably on every drive that serves, then reported.  A pod none of whose drives serves promises
nothing that could be broken through it alone: its peers tell it (`wiring.drive_table`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from holdfast_server.drives.port import DriveError, DriveState, DriveStatus

log = logging.getLogger(__name__)

NAME = b"epoch"
SIZE_BYTES = 8


class KeepingDrive(Protocol):
    def status(self) -> DriveStatus: ...

    async def keep(self, name: bytes, value: bytes, durable: bool = False) -> None:
        """Raises DriveError."""

    async def kept(self, name: bytes) -> bytes | None:
        """Raises DriveError."""


class EpochMemory:
    def __init__(self, drives: Callable[[], Sequence[KeepingDrive]]) -> None:
        self._drives = drives
        self.newest = 0
        """The newest epoch ever reported, as far as the drives know; 0 if none."""

    def _serving(self) -> list[KeepingDrive]:
        return [d for d in self._drives() if d.status().state in (DriveState.FULL, DriveState.HEALING)]

    async def load(self) -> None:
        """What the drives that serve remember."""
        for drive in self._serving():
            try:
                kept = await drive.kept(NAME)
            except DriveError as error:
                log.warning("a drive does not tell its epoch", extra={"drive": drive, "reason": str(error)})
                continue
            self.newest = max(self.newest, int.from_bytes(kept or b"", "big"))

    async def remember(self, epoch: int) -> None:
        """Before it is reported."""
        self.newest = max(self.newest, epoch)
        for drive in self._serving():
            try:
                await drive.keep(NAME, self.newest.to_bytes(SIZE_BYTES, "big"), durable=True)
            except DriveError as error:
                log.warning("a drive does not keep the epoch", extra={"drive": drive, "reason": str(error)})
