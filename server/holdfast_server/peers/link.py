"""What is known of one peer: its connections, its last report, and whether it can be expected to answer.

A peer that is not connected, or that has missed a deadline, is *skipped*: calls to it fail at once instead of
making every request wait; and if it was a ping that it missed, the calls under way fail too.  Pings go on in
the background (PING_INTERVAL_SECONDS); an answer lifts the suspicion, SILENT_SECONDS without one drops the
connections and dials again, which is what finds a peer whose machine vanished without closing them.

A drive can hang while its pod answers pings.  So the drive whose call missed its deadline is skipped for a
time that doubles with each miss in a row, and forgotten with the first answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from holdfast_server.clock.bounds import Reading
from holdfast_server.clock.ticks import seconds_to_next
from holdfast_server.drives.port import DriveOffline
from holdfast_server.peers import messages
from holdfast_server.peers.calls import Call, DeadlineMissed, NotConnected
from holdfast_server.peers.channel import Channel, DialSettings, Target
from holdfast_server.peers.frames import Buffer
from holdfast_server.peers.messages import ConnectionClass, Report, Verb
from holdfast_server.peers.port import PeerError

log = logging.getLogger(__name__)

PING_INTERVAL_SECONDS = 0.75
SILENT_SECONDS = 8.0
_FIRST_HOLD_OFF_SECONDS = 0.5
_LAST_HOLD_OFF_SECONDS = 10.0


class Link:
    """See the module.  `run` must be running."""

    def __init__(
        self,
        target: Target,
        settings: DialSettings,
        on_change: Callable[[], None],
        judged: Callable[[Report], Report] = lambda report: report,
    ) -> None:
        """`on_change` is called when the peer comes, goes, or reports something new; `judged` tells what is to be made
        of a report."""
        self.target = target
        self._judged = judged
        self.report: Report | None = None
        self._clock_reading: tuple[int, float] | None = None
        self._on_change = on_change
        self.online = False
        """Connected, and not under suspicion.  Kept, not asked for: every request looks at it."""
        self._suspect = False
        self._ping_now = asyncio.Event()
        self._misses: dict[int, int] = {}
        self._skip_until: dict[int, float] = {}
        self.channels = {
            kind: Channel(target, kind, settings, self._reported, self._channel_changed, self._missed, self._answered)
            for kind in ConnectionClass
        }

    @property
    def turned_away(self) -> bool:
        """Whether the peer, when last asked, did not know this pod: its configuration is older than this one's."""
        return any(channel.turned_away for channel in self.channels.values())

    def clock_reading(self) -> Reading | None:
        """What the peer's clock showed at last; None where it is not known, or the peer cannot be reached."""
        if self._clock_reading is None or not self.online:
            return None
        told_ms, heard_at = self._clock_reading
        return Reading(told_ms, asyncio.get_running_loop().time() - heard_at)

    def why_offline(self) -> str:
        """A line for people; empty when online."""
        if self._suspect:
            return f"{self.target}: missed a deadline and has not answered a ping since"
        for channel in self.channels.values():
            if not channel.connected:
                return f"{self.target}: {channel.last_failure}"
        return ""

    def wake(self) -> None:
        """The peer has dialled us: dial it at once."""
        for channel in self.channels.values():
            channel.wake()

    async def call_pod(self, verb: Verb, arguments: tuple[Any, ...], timeout_seconds: float | None = None) -> Any:
        """A verb of the pod itself.  Raises PeerError."""
        if self._suspect and verb is not Verb.PING:
            raise NotConnected(self.why_offline())
        channel = self.channels[messages.VERBS[verb].connection]
        return await channel.call(verb, -1, arguments, timeout_seconds=timeout_seconds)

    def call_drive(
        self, volume: int, verb: Verb, arguments: tuple[Any, ...], blobs: Sequence[Buffer] = ()
    ) -> asyncio.Future[Any]:
        """A verb of one drive.  Never raises itself; the future raises DriveError as the drive did, DriveOffline where
        it did not answer: whether it took effect is unknown then."""
        if self._suspect:
            return _offline(self.why_offline())
        if self._skip_until and self.skipped(volume):
            return _offline(f"{self.target}: drive {volume} has missed deadlines and is left alone for a moment")
        channel = self.channels[messages.VERBS[verb].connection]
        return channel.call(verb, volume, arguments, blobs, fail_as=_as_offline)

    def _missed(self, call: Call) -> None:
        if call.volume >= 0:
            self._suspicious()
            self._hold_off(call.volume)
        elif call.spec is messages.VERBS[Verb.PING]:
            # Letting go of a bucket or forgetting documents may rightly take long; a ping may not.
            self._suspicious()
            for channel in self.channels.values():
                channel.give_up_calls("does not answer pings")

    def _answered(self, volume: int) -> None:
        if self._misses:
            self._misses.pop(volume, None)
            self._skip_until.pop(volume, None)

    def skipped(self, volume: int) -> bool:
        """Whether the drive is being left alone after missed deadlines."""
        until = self._skip_until.get(volume)
        return until is not None and until > asyncio.get_running_loop().time()

    async def run(self) -> None:
        """Keep both connections and the pings going until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for channel in self.channels.values():
                tasks.create_task(channel.run())
            tasks.create_task(self._ping_for_ever())

    async def _ping_for_ever(self) -> None:
        answered = asyncio.get_running_loop().time()
        while True:
            if await self._ping():
                answered = asyncio.get_running_loop().time()
            elif self._suspect and asyncio.get_running_loop().time() - answered > SILENT_SECONDS:
                answered = asyncio.get_running_loop().time()
                for channel in self.channels.values():
                    channel.abort(f"silent for {SILENT_SECONDS:.0f} s")
            self._ping_now.clear()
            try:
                async with asyncio.timeout(seconds_to_next(asyncio.get_running_loop().time(), PING_INTERVAL_SECONDS)):
                    await self._ping_now.wait()
            except TimeoutError:
                pass

    async def _ping(self) -> bool:
        try:
            report = await self.call_pod(Verb.PING, ())
        except DeadlineMissed:
            return False
        except PeerError:
            return True  # not connected: dialling is the channel's business, not silence
        if self._suspect:
            self._suspect = False
            self._look()
            log.info("peer answers again", extra={"peer": str(self.target)})
        self._reported(report)
        return True

    def _suspicious(self) -> None:
        if not self._suspect:
            self._suspect = True
            self._look()
            log.warning("peer missed a deadline, skipped until it answers", extra={"peer": str(self.target)})
            self._on_change()
        self._ping_now.set()

    def _hold_off(self, volume: int) -> None:
        misses = self._misses[volume] = self._misses.get(volume, 0) + 1
        seconds = min(_LAST_HOLD_OFF_SECONDS, _FIRST_HOLD_OFF_SECONDS * 2 ** (misses - 1))
        self._skip_until[volume] = asyncio.get_running_loop().time() + seconds

    def _reported(self, report: Report) -> None:
        if report.now_ms:
            self._clock_reading = report.now_ms, asyncio.get_running_loop().time()
            report = msgspec.structs.replace(report, now_ms=0)  # what changes with every report is no news
        report = self._judged(report)
        changed = self.report is None or _matters(report) != _matters(self.report)
        self.report = report
        if changed:
            self._on_change()

    def _channel_changed(self) -> None:
        if not self.channels[ConnectionClass.CONTROL].connected:
            self._suspect = False
        self._look()
        self._on_change()

    def _look(self) -> None:
        self.online = not self._suspect and all(channel.connected for channel in self.channels.values())


def _as_offline(error: PeerError) -> DriveOffline:
    offline = DriveOffline(str(error))
    offline.__cause__ = error
    return offline


def _offline(reason: str) -> asyncio.Future[Any]:
    future = asyncio.get_running_loop().create_future()
    future.set_exception(DriveOffline(reason))
    return future


def _matters(report: Report) -> tuple[object, ...]:
    """All of it but how much room drives have, which changes with every write of anybody on their disks."""
    drives = [(one.state, one.drive_id, one.incarnation, one.full, one.message) for one in report.drives]
    return report.epoch, report.heals, report.features, report.encryption_keys, drives
