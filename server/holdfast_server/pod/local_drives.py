"""This pod's own drives over their life: opened, formatted or adopted where they are blank, remembered.

One unit of work is `settle_once`: learn what the peers remember, set aside a drive that was replaced and has
come back, look again at every drive that was set aside, decide for every blank or damaged drive (`adoption`), act.
It is repeated whenever a peer comes, goes or reports something new, and every `SETTLE_SECONDS`.  Each peer is asked in
a task of its own: one that does not answer holds up nothing.  Other pods that remember the replacement of a drive use
it no more from its first report on, whether or not its own has heard of it.

A drive that was set aside is opened anew, as a new object, when its fault may have passed (`reopening`).  Two kinds
are not: one that was replaced here, unless something else is in its folder by now; and one whose table is damaged.
That one is made blank and adopted, under the same conditions as an empty drive and not before they hold: it keeps
its shard files, so that only records have to be brought from the others, and its damaged table is kept beside until
it is full again (`folder_layout.retire_table`).

Order of a formatting: the identity is written first, then every pod of the pool is told, and until they have
noted it this pod reports the drive as blank.  The other way round, a crash in between would leave drives
remembered that never existed, and a first start would end as `DrivesBlank`.

Not here: counting votes, healing (an adopted drive is filled by `heal`), opening a drive's engine (`drives`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

import msgspec

from holdfast_server.clock.port import Clock
from holdfast_server.clock.stamp import MAX_CLOCK_SKEW_MS, HybridClock, floor_stamp
from holdfast_server.drives.faults import FaultKind
from holdfast_server.drives.identity import DRIVE_ID_SIZE_BYTES
from holdfast_server.drives.port import Drive, DriveError, DriveState, DriveStatus
from holdfast_server.drives.slot import Place
from holdfast_server.peers.messages import Report
from holdfast_server.peers.port import PeerError, SlotMemory
from holdfast_server.peers.remote import RemotePeer
from holdfast_server.pod.adoption import Action, BlankDrive, decide
from holdfast_server.pod.membership import Membership
from holdfast_server.pod.reopening import Reopening
from holdfast_server.pod.slot_book import SlotBook

log = logging.getLogger(__name__)

SETTLE_SECONDS = 1.0
_SERVING = (DriveState.FULL, DriveState.HEALING)


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

    @property
    def fault_kind(self) -> FaultKind | None:
        """Why it was set aside; None while it is not."""

    @property
    def reopen_advised(self) -> bool:
        """It serves, but has to be opened anew to serve as it should."""

    @property
    def replaces(self) -> bool:
        """Blank, but not new: it was damaged and made blank."""

    async def folder_changed(self) -> bool:
        """Whether another identity, or none, is in its folder than when it was opened."""

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
        reopen: Callable[[int, bool], Awaitable[bool]],
        peers: Callable[[], Sequence[RemotePeer]],
        clock: Clock,
        stamps: HybridClock,
        adoption_delay_seconds: float,
        on_change: Callable[[], None],
    ) -> None:
        """`membership`: this pod in the configuration in force.  `peers`: all other pods of the tenant.
        `reopen`: close a drive and open its folder anew, made blank in between if the second argument says so;
        `drives` changes in place.  False: not now.
        `adoption_delay_seconds`: L, after which nothing of a predecessor's time is under way.
        `on_change`: the report has changed."""
        self._membership = membership
        self.drives = drives
        self._reopen = reopen
        self._reopening = Reopening()
        self.book = SlotBook()
        self._peers = peers
        self._clock, self._stamps, self._on_change = clock, stamps, on_change
        self._delay_seconds = adoption_delay_seconds
        self._joins_at = [clock.monotonic_seconds() + adoption_delay_seconds] * len(drives)
        self._waiting: dict[int, str] = {}
        self._aside: set[int] = set()
        """Volumes whose drive was set aside when last looked at."""
        self._met: dict[int, OwnDrive] = {}
        """By volume, the drives whose memories have been taken over."""
        self._unannounced: set[int] = set()
        self._asked: set[tuple[str, int]] = set()
        self._told_all: set[tuple[str, int]] = set()
        """Of those asked, the ones that had opened all their drives by then."""
        self._asking: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._tried: set[tuple[str, int]] = set()
        """Of those online, the ones that have answered, or not, at least once."""
        self._wake = asyncio.Event()

    # --- what others see
    def status(self, volume: int) -> DriveStatus:
        status = self.drives[volume].status()
        if volume in self._unannounced and status.state is DriveState.FULL:
            return DriveStatus(DriveState.BLANK, message="formatted; the other pods are being told")
        waiting = self._waiting.get(volume)
        if status.state is DriveState.BLANK and waiting:
            return msgspec.structs.replace(status, message=waiting)
        if status.state is DriveState.FAULTY and waiting:
            return msgspec.structs.replace(status, message=f"{status.message}; {waiting}")
        return status

    def report(self, epoch: int) -> Report:
        return Report(epoch, tuple(self.status(volume) for volume in range(len(self.drives))))

    async def remembered_slots(self) -> list[SlotMemory]:
        # Who asks goes by that we serve: nothing that a drive just opened remembers may be missing.
        await self.load_memories()
        return self.book.everything()

    async def remember_slots(self, slots: Sequence[SlotMemory]) -> None:
        """A peer tells of its drives: kept on every drive that can keep it before this returns."""
        news = self.book.learn(slots)
        if news:
            await self._keep(news)

    def judged(self, place: Place, status: DriveStatus) -> DriveStatus:
        """What a peer says of its drive in a place.  Whoever remembers that another was put there uses it no more: the
        peer may not have heard of that yet, and would have it deny what was written since."""
        newer = self._newer(place, status)
        if newer is None:
            return status
        return DriveStatus(DriveState.FAULTY, status.drive_id, status.incarnation, _replaced(status, newer))

    def _newer(self, place: Place, status: DriveStatus) -> SlotMemory | None:
        """The drive that took the place of one that serves there now."""
        known = self.book.get(place)
        if known is None or status.state not in _SERVING or known.drive_id == status.drive_id:
            return None
        return known if known.incarnation > status.incarnation else None

    # --- the work
    async def load_memories(self) -> None:
        """Of every drive that serves and was opened since: what it remembers, and how far its stamps went."""
        for volume, drive in enumerate(self.drives):
            if drive.status().state in _SERVING and self._met.get(volume) is not drive:
                self._stamps.observe(drive.greatest_stamp)
                try:
                    self.book.learn(await drive.remembered())
                    self._met[volume] = drive
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

    async def close(self) -> None:
        """Once nobody settles any more: ask nobody any longer."""
        asking = list(self._asking.values())
        for task in asking:
            task.cancel()
        if asking:
            await asyncio.wait(asking)

    async def settle_once(self) -> None:
        """See the module."""
        await self._learn_from_peers()
        self.set_aside_outdated()
        for volume in range(len(self.drives)):
            await self._look_again(volume)
        await self.load_memories()
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
                self._told_all.discard(who)
                self._tried.discard(who)
                # What it answers now is what it knew before it went.
                if (asking := self._asking.get(who)) is not None:
                    asking.cancel()
                continue
            reported = peer.link.report.drives
            for drive, status in zip(peer.drives(), reported, strict=False):
                heard.append(
                    SlotMemory(peer.pool, drive.set_index, drive.position, status.drive_id, status.incarnation)
                )
            if who not in self._told_all and who not in self._asking:
                task = asyncio.create_task(self._ask(peer, reported), name=f"memories of {peer.link.target}")
                self._asking[who] = task
                task.add_done_callback(partial(self._asked_now, who))
        await self.remember_slots(heard)

    async def _ask(self, peer: RemotePeer, reported: Sequence[DriveStatus]) -> None:
        who = (peer.pool, peer.ordinal)
        try:
            remembered = await peer.remembered_slots()
            await self.remember_slots(remembered)
            self.set_aside_outdated()
            self._asked.add(who)
            # Else it is asked again: it does not know yet what a drive remembers that is not open.
            if all(status.state in (*_SERVING, DriveState.BLANK) for status in reported):
                self._told_all.add(who)
                self.wake()  # a blank drive may wait for it
        except PeerError as error:
            log.info("peer was not heard", extra={"peer": str(peer.link.target), "reason": str(error)})
        except Exception:
            log.exception("what a peer remembers could not be learnt", extra={"peer": str(peer.link.target)})

    def _asked_now(self, who: tuple[str, int], task: asyncio.Task[None]) -> None:
        del self._asking[who]
        if not task.cancelled() and who not in self._tried:
            self._tried.add(who)
            self.wake()

    def set_aside_outdated(self) -> None:
        """A drive that was replaced and has come back knows nothing of what happened since.  To be called often, too:
        one that was slow to open serves from then on, and another drive may be keeping `settle_once` waiting."""
        for drive in self.drives:
            status = drive.status()
            newer = self._newer((drive.pool, drive.set_index, drive.position), status)
            if newer is not None:
                log.error("an older drive came back", extra={"drive": drive, "newer": newer.drive_id.hex()})
                drive.set_aside(_replaced(status, newer))
                self._on_change()

    async def _look_again(self, volume: int) -> None:
        """What becomes of a drive that does not serve, or not as it should."""
        drive, now = self.drives[volume], self._clock.monotonic_seconds()
        kind, state = drive.fault_kind, drive.status().state
        if kind is None:
            self._aside.discard(volume)
            if state in _SERVING:
                self._waiting.pop(volume, None)
                if drive.reopen_advised:
                    if self._reopening.due(volume, FaultKind.NO_ROOM, now):
                        await self._open_anew(volume)
                else:
                    self._reopening.well(volume, now)
            elif state is DriveState.BLANK and await drive.folder_changed():
                await self._open_anew(volume)
            return
        if volume not in self._aside:
            # From now on it takes nothing: what is under way to it dies within the delay.
            self._aside.add(volume)
            self._joins_at[volume] = now + self._delay_seconds
        if kind in (FaultKind.DAMAGED, FaultKind.RETIRED):
            if await drive.folder_changed():
                self._joins_at[volume] = now + self._delay_seconds
                await self._open_anew(volume)
            elif kind is FaultKind.DAMAGED:
                await self._replace_damaged(volume, drive)
        elif self._reopening.due(volume, kind, now):
            await self._open_anew(volume)

    async def _open_anew(self, volume: int, retire: bool = False) -> None:
        if not await self._reopen(volume, retire):
            return
        # At once, before anybody is served from it: it may be one that was replaced here.
        self.set_aside_outdated()
        status = self.drives[volume].status()
        self._waiting.pop(volume, None)
        log.warning(
            "a drive was opened anew",
            extra={"volume": volume, "state": status.state.name.lower(), "reason": status.message},
        )
        if status.state is DriveState.BLANK and not retire:
            self._joins_at[volume] = self._clock.monotonic_seconds() + self._delay_seconds
        self._on_change()

    async def _replace_damaged(self, volume: int, drive: OwnDrive) -> None:
        decision = decide(replace(self._facts(volume, drive), formatting=False, remembered=True))
        if decision.action is Action.ADOPT:
            log.error("the table of a drive is damaged and made anew", extra={"volume": volume, "drive": drive})
            await self._open_anew(volume, retire=True)
        else:
            self._waits(volume, decision.message)

    def _waits(self, volume: int, message: str) -> None:
        if self._waiting.get(volume, "").partition(":")[0] != message.partition(":")[0]:
            log.warning("a drive waits", extra={"volume": volume, "reason": message})
        if self._waiting.get(volume) != message:
            self._waiting[volume] = message
            self._on_change()

    async def _settle_blank(self, volume: int, drive: OwnDrive) -> None:
        decision = decide(self._facts(volume, drive))
        if decision.action is Action.WAIT:
            self._waits(volume, decision.message)
            return
        if decision.action is Action.ADOPT and self._asks_first():
            self._waits(volume, "a replacement: joins when other pods have been asked what they remember of its place")
            return
        drive_id = self._clock.random_bytes(DRIVE_ID_SIZE_BYTES)
        now_ms = self._clock.now_ms()
        known = self.book.get((drive.pool, drive.set_index, drive.position))
        if known is not None:
            self._stamps.observe(known.incarnation)  # made when a clock was ahead, it would be the newer drive for ever
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
        await self.load_memories()  # or the next volume would take this one for a drive that was not asked yet
        self._on_change()

    def _asks_first(self) -> bool:
        """Whether a pod that could tell has not been asked; one that does not answer is waited for once."""
        return any(peer.online and (peer.pool, peer.ordinal) not in self._tried for peer in self._pool_peers())

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
        # One that serves and was not asked yet is as good as one that does not answer.
        ours = [
            DriveState.OFFLINE
            if own.status().state in _SERVING and self._met.get(number) is not own
            else own.status().state
            for number, own in enumerate(self.drives)
        ]
        states = theirs + ours
        return BlankDrive(
            formatting=pool.formatting,
            silent_pods=tuple(f"{pool.pod_name_prefix}{peer.ordinal}" for peer in silent),
            remembered=drive.replaces or self.book.get((drive.pool, drive.set_index, drive.position)) is not None,
            silent_drives=max(
                states.count(DriveState.FAULTY) + states.count(DriveState.OFFLINE),
                sum(1 for peer in self._pool_peers() if (peer.pool, peer.ordinal) not in self._told_all),
            ),
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
            if status.state in _SERVING
        ]

    async def _keep(self, slots: Sequence[SlotMemory]) -> None:
        for drive in self.drives:
            if drive.status().state in _SERVING:
                try:
                    await drive.remember(slots)
                except DriveError as error:
                    log.warning("slots cannot be remembered", extra={"drive": drive, "reason": str(error)})


def _replaced(status: DriveStatus, newer: SlotMemory) -> str:
    return (
        f"drive {status.drive_id.hex()} was replaced here by {newer.drive_id.hex()}; empty its folder to use it again"
    )
