"""The newest epoch that this pod has reported, kept on its drives.

A pod's report is a promise: it looks where the pools of that epoch are.  The operator acts on it, so it must outlive
the process: a pod that comes back with an older configuration (its node had not heard of the new one) would look for
keys where they no longer are written.  Such a pod knows from its drives that it is behind, without asking anybody.

Order: remembered durably on every drive that serves, then reported.  A drive that begins to serve later (it was slow to
open, set aside, or empty) is asked as soon as it does, and told what it does not know: the next process of this pod may
find that one alone.  A pod none of whose drives serves promises nothing that could be broken through it alone: its
peers tell it (`wiring.drive_table`).
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
        self._met: list[KeepingDrive] = []
        """Drives that serve, have been asked, and know what this pod knows."""
        self._complained: list[KeepingDrive] = []
        """Of those that could not be asked or told, the ones of which the log has it."""
        self.newest = 0
        """The newest epoch ever reported, as far as the drives know; 0 if none."""

    def _serving(self) -> list[KeepingDrive]:
        return [d for d in self._drives() if d.status().state in (DriveState.FULL, DriveState.HEALING)]

    async def load(self) -> None:
        """What the drives that serve remember; to be called now and then, since others may have come."""
        serving = self._serving()
        self._met = [drive for drive in self._met if drive in serving]
        self._complained = [drive for drive in self._complained if drive in serving]
        for drive in serving:
            if drive not in self._met:
                await self._meet(drive)

    async def _meet(self, drive: KeepingDrive) -> None:
        try:
            kept = int.from_bytes(await drive.kept(NAME) or b"", "big")
        except DriveError as error:
            self._complain("a drive does not tell its epoch", drive, error)
            return
        if kept > self.newest:
            self.newest = kept
            self._met.clear()  # they are told with the next look
        if kept == self.newest or await self._tell(drive):
            self._met.append(drive)
            self._complained = [other for other in self._complained if other is not drive]

    async def remember(self, epoch: int) -> None:
        """Before it is reported."""
        await self.load()  # or a drive that has just come, and knows of a newer one, would be made to forget it
        self.newest = max(self.newest, epoch)
        met, self._met = self._met, []
        for drive in met:
            if await self._tell(drive):
                self._met.append(drive)

    async def _tell(self, drive: KeepingDrive) -> bool:
        """Whether it knows."""
        try:
            await drive.keep(NAME, self.newest.to_bytes(SIZE_BYTES, "big"), durable=True)
        except DriveError as error:
            self._complain("a drive does not keep the epoch", drive, error)
            return False
        return True

    def _complain(self, message: str, drive: KeepingDrive, error: DriveError) -> None:
        if drive not in self._complained:
            self._complained.append(drive)
            log.warning(message, extra={"drive": drive, "reason": str(error)})
