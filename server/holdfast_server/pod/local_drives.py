"""This pod's own drives over their life: opened, formatted or adopted where they are blank, remembered.

One unit of work is `settle_once`: learn what the peers remember, set aside a drive that was replaced and has
come back, take up the empty folder of a drive lost under the running pod, decide for every blank drive
(`adoption`), act.  It is repeated whenever a peer comes, goes or reports something new, and every
`SETTLE_SECONDS`.

Order of a formatting: the identity is written first, then every pod of the pool is told, and until they have
noted it this pod reports the drive as blank.  The other way round, a crash in between would leave drives
remembered that never existed, and a first start would end as `DrivesBlank`.

Not here: counting votes, healing (an adopted drive is filled by `heal`), opening a drive's engine (`drives`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import msgspec

from holdfast_server.clock.port import Clock
from holdfast_server.clock.stamp import HybridClock, floor_stamp
from holdfast_server.drives.port import Drive, DriveError, DriveState, DriveStatus
from holdfast_server.peers.messages import Report
from holdfast_server.peers.port import PeerError, SlotMemory
from holdfast_server.peers.remote import RemotePeer
from holdfast_server.pod.adoption import MAX_CLOCK_SKEW_MS, Action, BlankDrive, decide
from holdfast_server.pod.membership import Membership
from holdfast_server.pod.slot_book import SlotBook

log = logging.getLogger(__name__)

SETTLE_SECONDS = 1.0
DRIVE_ID_SIZE_BYTES = 16


class OwnDrive(Drive, Protocol):
    """What the life cycle needs of a local drive beyond the port."""

    @property
    def greatest_stamp(self) -> int: ...

    async def format(self, drive_id: bytes, incarnation: int) -> None:
        """Blank to full.  Raises DriveError."""

    async def adopt(self, drive_id: bytes, incarnation: int, watermark: int) -> None:
        """Blank to healing; nothing at or below the watermark is ever accepted.  Raises DriveError."""

    def set_aside(self, reason: str) -> None:
        """Serve nothing any more."""

    async def close(self) -> None: ...

    async def remember(self, slots: Sequence[SlotMemory]) -> None:
        """Durably.  Raises DriveError."""

    async def remembered(self) -> list[SlotMemory]:
        """Raises DriveError."""


class LocalDrives:
    """See the module.  The drives are opened (or blank, or set aside) when they are given."""

    def __init__(
        self,
        membership: Callable[[], Membership],
        drives: Sequence[OwnDrive],
        reopen_if_blank: Callable[[int], Awaitable[bool]],
        peers: Callable[[], Sequence[RemotePeer]],
        clock: Clock,
        stamps: HybridClock,
        adoption_delay_seconds: float,
        on_change: Callable[[], None],
    ) -> None:
        """`membership`: this pod in the configuration in force.  `peers`: all other pods of the tenant.
        `reopen_if_blank`: open a drive that was set aside anew if its folder is empty; `drives` changes in place.
        `adoption_delay_seconds`: L, after which nothing of a predecessor's time is under way.
        `on_change`: the report has changed."""
        self._membership = membership
        self.drives = drives
        self._reopen_if_blank = reopen_if_blank
        self.book = SlotBook()
        self._peers = peers
        self._clock, self._stamps, self._on_change = clock, stamps, on_change
        self._delay_seconds = adoption_delay_seconds
        self._joins_at = [clock.monotonic_seconds() + adoption_delay_seconds] * len(drives)
        self._waiting: dict[int, str] = {}
        self._unannounced: set[int] = set()
        self._asked: set[tuple[str, int]] = set()
        self._wake = asyncio.Event()

    # --- what others see
    def status(self, volume: int) -> DriveStatus:
        status = self.drives[volume].status()
        if volume in self._unannounced and status.state is DriveState.FULL:
            return DriveStatus(DriveState.BLANK, message="formatted; the other pods are being told")
        if status.state is DriveState.BLANK and self._waiting.get(volume):
            return msgspec.structs.replace(status, message=self._waiting[volume])
        return status

    def report(self, epoch: int) -> Report:
        return Report(epoch, tuple(self.status(volume) for volume in range(len(self.drives))))

    async def remembered_slots(self) -> list[SlotMemory]:
        return self.book.everything()

    async def remember_slots(self, slots: Sequence[SlotMemory]) -> None:
        """A peer tells of its drives: kept on every drive that can keep it before this returns."""
        news = self.book.learn(slots)
        if news:
            await self._keep(news)

    # --- the work
    async def load_memories(self) -> None:
        """Once, after the drives were opened."""
        for drive in self.drives:
            if drive.status().state in (DriveState.FULL, DriveState.HEALING):
                self._stamps.observe(drive.greatest_stamp)
                try:
                    self.book.learn(await drive.remembered())
                except DriveError as error:
                    log.warning("memories of a drive cannot be read", extra={"drive": drive, "reason": str(error)})
        await self.remember_slots(self._own_slots())

    def wake(self) -> None:
        """Something about the peers has changed."""
        self._wake.set()

    async def run(self) -> None:
        """Settle for ever; cancelled at the end."""
        while True:
            self._wake.clear()
            await self.settle_once()
            try:
                async with asyncio.timeout(SETTLE_SECONDS):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def settle_once(self) -> None:
        """See the module."""
        await self._learn_from_peers()
        await self._set_aside_outdated()
        await self._take_up_emptied()
        for volume, drive in enumerate(self.drives):
            if drive.status().state is DriveState.BLANK:
                await self._settle_blank(volume, drive)
        if self._unannounced:
            await self._announce()

    async def _learn_from_peers(self) -> None:
        heard: list[SlotMemory] = []
        for peer in self._peers():
            who = (peer.pool, peer.ordinal)
            if not peer.online or peer.link.report is None:
                self._asked.discard(who)
                continue
            for drive, status in zip(peer.drives(), peer.link.report.drives, strict=False):
                heard.append(
                    SlotMemory(peer.pool, drive.set_index, drive.position, status.drive_id, status.incarnation)
                )
            if who not in self._asked:
                try:
                    heard += await peer.remembered_slots()
                    self._asked.add(who)
                except PeerError as error:
                    log.info("peer was not heard", extra={"peer": str(peer.link.target), "reason": str(error)})
        await self.remember_slots(heard)

    async def _set_aside_outdated(self) -> None:
        """A drive that was replaced and has come back knows nothing of what happened since."""
        for drive in self.drives:
            status = drive.status()
            known = self.book.get((drive.pool, drive.set_index, drive.position))
            if (
                status.state in (DriveState.FULL, DriveState.HEALING)
                and known is not None
                and known.drive_id != status.drive_id
                and known.incarnation > status.incarnation
            ):
                log.error("an older drive came back", extra={"drive": drive, "newer": known.drive_id.hex()})
                drive.set_aside(
                    f"drive {status.drive_id.hex()} was replaced here by {known.drive_id.hex()}; "
                    "empty its folder to use it again"
                )
                self._on_change()

    async def _take_up_emptied(self) -> None:
        """A drive that was lost under the running pod and has an empty folder again is a replacement."""
        for volume, drive in enumerate(self.drives):
            if drive.status().state is DriveState.FAULTY and await self._reopen_if_blank(volume):
                log.warning("an empty drive took the place of one set aside", extra={"volume": volume})
                self._joins_at[volume] = self._clock.monotonic_seconds() + self._delay_seconds
                self._on_change()

    async def _settle_blank(self, volume: int, drive: OwnDrive) -> None:
        decision = decide(self._facts(volume, drive))
        if decision.action is Action.WAIT:
            if self._waiting.get(volume, "").partition(":")[0] != decision.message.partition(":")[0]:
                log.warning("a blank drive waits", extra={"volume": volume, "reason": decision.message})
            if self._waiting.get(volume) != decision.message:
                self._waiting[volume] = decision.message
                self._on_change()
            return
        drive_id = self._clock.random_bytes(DRIVE_ID_SIZE_BYTES)
        now_ms = self._clock.now_ms()
        incarnation = self._stamps.next(now_ms)
        try:
            if decision.action is Action.FORMAT:
                self._unannounced.add(volume)
                await drive.format(drive_id, incarnation)
            else:
                # Twice: clocks differ by that much, and a pod that restarts begins that much ahead of its own.
                ahead = floor_stamp(now_ms + 2 * MAX_CLOCK_SKEW_MS)
                await drive.adopt(drive_id, incarnation, max(ahead, self._stamps.greatest))
        except DriveError as error:
            self._unannounced.discard(volume)
            log.error("a blank drive cannot be used", extra={"volume": volume, "reason": str(error)})
            return
        self._waiting.pop(volume, None)
        done = "drive formatted" if decision.action is Action.FORMAT else "replacement drive adopted, to be healed"
        log.info(done, extra={"volume": volume, "drive": drive_id.hex()})
        self.book.learn(self._own_slots())
        await self._keep(self.book.everything())
        self._on_change()

    async def _announce(self) -> None:
        """Tell every pod of the pool about drives just formatted; they count once all have noted them."""
        slots = self._own_slots()
        silent = False
        for peer in self._pool_peers():
            try:
                await peer.remember_slots(slots)
            except PeerError as error:
                silent = True
                log.info("peer was not told", extra={"peer": str(peer.link.target), "reason": str(error)})
        if not silent:
            self._unannounced.clear()
            self._on_change()

    # --- facts
    def _facts(self, volume: int, drive: OwnDrive) -> BlankDrive:
        pool = self._membership().pool
        silent = [peer for peer in self._pool_peers() if (peer.pool, peer.ordinal) not in self._asked]
        theirs = [other.status().state for peer in self._pool_peers() for other in peer.drives()]
        states = theirs + [own.status().state for own in self.drives]
        return BlankDrive(
            formatting=pool.formatting,
            silent_pods=tuple(f"{pool.pod_name_prefix}{peer.ordinal}" for peer in silent),
            remembered=self.book.get((drive.pool, drive.set_index, drive.position)) is not None,
            faulty_drives=states.count(DriveState.FAULTY),
            set_size=pool.erasure.set_size,
            parity=pool.erasure.parity,
            others=self._others_of_set(drive),
            seconds_left=self._joins_at[volume] - self._clock.monotonic_seconds(),
        )

    def _others_of_set(self, drive: OwnDrive) -> list[DriveState]:
        own = [other for other in self.drives if other is not drive]
        remote = [other for peer in self._pool_peers() for other in peer.drives()]
        return [other.status().state for other in [*own, *remote] if other.set_index == drive.set_index]

    def _pool_peers(self) -> list[RemotePeer]:
        return [peer for peer in self._peers() if peer.pool == self._membership().pool.name]

    def _own_slots(self) -> list[SlotMemory]:
        statuses = [(drive, drive.status()) for drive in self.drives]
        return [
            SlotMemory(drive.pool, drive.set_index, drive.position, status.drive_id, status.incarnation)
            for drive, status in statuses
            if status.state in (DriveState.FULL, DriveState.HEALING)
        ]

    async def _keep(self, slots: Sequence[SlotMemory]) -> None:
        for drive in self.drives:
            if drive.status().state in (DriveState.FULL, DriveState.HEALING):
                try:
                    await drive.remember(slots)
                except DriveError as error:
                    log.warning("slots cannot be remembered", extra={"drive": drive, "reason": str(error)})
