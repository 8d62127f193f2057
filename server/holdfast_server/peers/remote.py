"""The peer and drive ports over a link: another pod, and its drives as if they were local.

A call that gets no answer is a DriveOffline: whether it took effect is unknown, exactly as the port says.
Nothing is ever sent twice here: that would break rule 6 (a plain commit is sent at most once with one stamp).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from holdfast_server.contract.admin import PodState
from holdfast_server.drives import port
from holdfast_server.drives.port import Block, Drive, DriveState, DriveStatus, Note, Register
from holdfast_server.drives.slot import Place
from holdfast_server.peers import older_listings
from holdfast_server.peers.channel import DialSettings, Target
from holdfast_server.peers.commits import CommitQueue
from holdfast_server.peers.frames import Buffer
from holdfast_server.peers.link import Link
from holdfast_server.peers.messages import (
    COMMIT_MANY_FEATURE,
    COMMIT_SHARD_FEATURE,
    FETCH_BLOCKS_FEATURE,
    LIST_PAGES_FEATURE,
    MAX_BLOCKS_PER_READ,
    STAGE_LAST_FEATURE,
    Report,
    Verb,
)
from holdfast_server.peers.notes import NoteBatch
from holdfast_server.peers.port import PeerRefused, SlotMemory

RESTART_SECONDS = 1.0
_GATHERED = (port.CommitMode.PLAIN, port.CommitMode.CONDITIONAL)
_MAX_STAGE_SIZE_BYTES = 5 << 20
"""Blocks sent in one call; more are cut into several."""


log = logging.getLogger(__name__)


class RemoteDrive:
    """`drives.port.Drive` on another pod; see there for every verb."""

    local = False

    def __init__(self, link: Link, pool: str, set_index: int, position: int, volume: int) -> None:
        self.pool, self.set_index, self.position = pool, set_index, position
        self._link, self._volume = link, volume
        self._notes = NoteBatch(self.note_many)
        self._commits = CommitQueue(self._commit_one, self.commit_many)

    def __repr__(self) -> str:
        return f"RemoteDrive({self._link.target}, volume {self._volume})"

    @property
    def state(self) -> DriveState:
        last = self._last_told()
        return last.state if last is not None and self._reached else DriveState.OFFLINE

    @property
    def _reached(self) -> bool:
        return self._link.online and not self._link.skipped(self._volume)

    def _last_told(self) -> DriveStatus | None:
        report = self._link.report
        return report.drives[self._volume] if report and self._volume < len(report.drives) else None

    def status(self) -> DriveStatus:
        last = self._last_told()
        if last is not None and self._reached:
            return last
        reason = self._link.why_offline() or f"{self._link.target}: misses deadlines"
        if last is None:
            return DriveStatus(DriveState.OFFLINE, message=reason)
        return DriveStatus(DriveState.OFFLINE, last.drive_id, last.incarnation, reason, last.total_bytes)

    def _call(self, verb: Verb, *arguments: Any, blobs: Sequence[Buffer] = ()) -> asyncio.Future[Any]:
        return self._link.call_drive(self._volume, verb, arguments, blobs)

    def query(self, register: Register, with_inline: bool) -> Awaitable[port.QueryReply]:
        return self._call(Verb.QUERY, register, with_inline)

    async def query_many(self, registers: Sequence[Register], with_inline: bool) -> list[port.QueryReply]:
        try:
            replies: list[port.QueryReply] = await self._call(Verb.QUERY_MANY, list(registers), with_inline)
        except port.DriveOffline as error:
            if len(registers) == 1 or not isinstance(error.__cause__, PeerRefused):
                raise
        else:
            return replies
        # Large records (of ten thousand parts, say) do not fit into one frame all together.
        half = len(registers) // 2
        first = await self.query_many(registers[:half], with_inline)
        return first + await self.query_many(registers[half:], with_inline)

    def commit(self, request: port.CommitRequest) -> Awaitable[port.CommitReply]:
        if request.mode in _GATHERED and COMMIT_MANY_FEATURE in self._features():
            return self._commits.add(request)
        return self._commit_one(request)

    def _commit_one(self, request: port.CommitRequest) -> asyncio.Future[port.CommitReply]:
        return self._call(Verb.COMMIT, request)

    def commit_many(self, requests: Sequence[port.CommitRequest]) -> asyncio.Future[list[port.CommitReply | None]]:
        return self._call(Verb.COMMIT_MANY, requests)

    def commit_with_shard(
        self, request: port.CommitRequest, blocks: Sequence[Block], hashes: Sequence[bytes]
    ) -> Awaitable[port.CommitReply]:
        if COMMIT_SHARD_FEATURE in self._features() and sum(map(len, blocks)) <= _MAX_STAGE_SIZE_BYTES:
            return self._call(Verb.COMMIT_SHARD, request, list(hashes), blobs=list(blocks))
        return self._stage_and_commit(request, blocks, hashes)

    async def _stage_and_commit(
        self, request: port.CommitRequest, blocks: Sequence[Block], hashes: Sequence[bytes]
    ) -> port.CommitReply:
        (data_id,) = request.held.data_ids
        await self.stage(data_id, 0, blocks, hashes, last=True)
        return await self.commit(request)

    def note(self, register: Register, stamp: int, whole: bool) -> Awaitable[None]:
        return self._notes.add((register, stamp, whole))

    def note_many(self, notes: Sequence[Note]) -> asyncio.Future[None]:
        return self._call(Verb.NOTE, notes)

    async def prepare(
        self, register: Register, expected: int, lease: bytes, duration_seconds: float
    ) -> port.PrepareReply:
        reply: port.PrepareReply = await self._call(Verb.PREPARE, register, expected, lease, duration_seconds)
        return reply

    async def release(self, register: Register, lease: bytes) -> None:
        await self._call(Verb.RELEASE, register, lease)

    async def fence(self, register: Register, stamp: int) -> port.FenceReply:
        reply: port.FenceReply = await self._call(Verb.FENCE, register, stamp)
        return reply

    async def remove(self, register: Register, stamp: int) -> None:
        await self._call(Verb.REMOVE, register, stamp)

    async def tombstones(self, request: port.TombstoneRequest) -> port.TombstonePage:
        page: port.TombstonePage = await self._call(Verb.TOMBSTONES, request)
        return page

    async def weigh_tombstones(
        self, tombstones: Sequence[port.Tombstone], settled_seconds: float
    ) -> port.TombstoneReply:
        reply: port.TombstoneReply = await self._call(Verb.WEIGH_TOMBSTONES, tombstones, settled_seconds)
        return reply

    async def drop_tombstones(self, tombstones: Sequence[port.Tombstone]) -> None:
        await self._call(Verb.DROP_TOMBSTONES, tombstones)

    async def stage(
        self, data_id: bytes, index: int, blocks: Sequence[Block], hashes: Sequence[bytes], last: bool = False
    ) -> None:
        seals = last and STAGE_LAST_FEATURE in self._features()
        start = 0
        while start < len(blocks):
            stop, size = start + 1, len(blocks[start])
            while stop < len(blocks) and size + len(blocks[stop]) <= _MAX_STAGE_SIZE_BYTES:
                size += len(blocks[stop])
                stop += 1
            verb = Verb.STAGE_LAST if seals and stop == len(blocks) else Verb.STAGE
            await self._call(verb, data_id, index + start, list(hashes[start:stop]), blobs=list(blocks[start:stop]))
            start = stop
        if last and not seals:
            await self.seal(data_id)

    async def seal(self, data_id: bytes) -> None:
        await self._call(Verb.SEAL, data_id)

    async def discard(self, data_id: bytes) -> None:
        await self._call(Verb.DISCARD, data_id)

    def read_blocks(self, data_id: bytes, first: int, count: int) -> Awaitable[tuple[list[Block], list[bytes]]]:
        if 0 <= count <= MAX_BLOCKS_PER_READ:
            return self._fetch(data_id, first, count)
        return self._read_piecemeal(data_id, first, count)

    def _fetch(self, data_id: bytes, first: int, count: int) -> asyncio.Future[tuple[list[Block], list[bytes]]]:
        """Compared with their hashes when they come (`calls`), so nobody has to do that where they are."""
        verb = Verb.FETCH_BLOCKS if FETCH_BLOCKS_FEATURE in self._features() else Verb.READ_BLOCKS
        return self._call(verb, data_id, first, count)

    async def _read_piecemeal(self, data_id: bytes, first: int, count: int) -> tuple[list[Block], list[bytes]]:
        blocks: list[Block] = []
        hashes: list[bytes] = []
        for start in range(first, first + count, MAX_BLOCKS_PER_READ):
            wanted = min(MAX_BLOCKS_PER_READ, first + count - start)
            some, digests = await self._fetch(data_id, start, wanted)
            blocks += some
            hashes += digests
        return blocks, hashes

    async def scan(self, request: port.ScanRequest) -> port.ScanPage:
        page: port.ScanPage = await self._call(Verb.SCAN, request)
        return page

    async def list_registers(self, request: port.ListRequest) -> port.ListPage:
        if LIST_PAGES_FEATURE in self._features():
            page: port.ListPage = await self._call(Verb.LIST_REGISTERS, request)
            return page
        return older_listings.columns(await self.scan(older_listings.scan_request(request)), request)

    def _features(self) -> tuple[str, ...]:
        report = self._link.report
        return report.features if report is not None else ()

    async def spaces(self, after: bytes, limit: int) -> list[bytes]:
        spaces: list[bytes] = await self._call(Verb.SPACES, after, limit)
        return spaces

    async def repairs(self, limit: int) -> list[Register]:
        registers: list[Register] = await self._call(Verb.REPAIRS, limit)
        return registers

    async def repaired(self, whole: Sequence[tuple[Register, int]]) -> None:
        await self._call(Verb.REPAIRED, list(whole))

    async def finish_healing(self, incarnation: int) -> None:
        await self._call(Verb.FINISH_HEALING, incarnation)


Judge = Callable[[Place, DriveStatus], DriveStatus]
"""What is to be made of what a pod says of its drive in a place."""


class RemotePeer:
    """`peers.port.Peer` over a link."""

    def __init__(
        self,
        target: Target,
        node: int,
        positions: Sequence[tuple[int, int]],
        settings: DialSettings,
        on_change: Callable[[], None],
        judge: Judge = lambda _, status: status,
    ) -> None:
        """`positions`: (set index, position) of each volume, in order."""
        self.pool, self.ordinal, self.node = target.pool, target.ordinal, node
        places = [(target.pool, *position) for position in positions]

        def judged(report: Report) -> Report:
            drives = tuple(map(judge, places, report.drives)) + report.drives[len(places) :]
            return msgspec.structs.replace(report, drives=drives)

        self.link = Link(target, settings, on_change, judged)
        self._drives: list[Drive] = [
            RemoteDrive(self.link, target.pool, set_index, position, volume)
            for volume, (set_index, position) in enumerate(positions)
        ]

    @property
    def online(self) -> bool:
        return self.link.online

    @property
    def epoch(self) -> int:
        return self.link.report.epoch if self.link.report is not None else 0

    def drives(self) -> list[Drive]:
        return self._drives

    async def announce(self, topic: str, names: list[str]) -> None:
        await self.link.call_pod(Verb.ANNOUNCE, (topic, names))

    async def fence_bucket(self, bucket_id: bytes) -> None:
        await self.link.call_pod(Verb.FENCE_BUCKET, (bucket_id,))

    async def remembered_slots(self) -> list[SlotMemory]:
        slots: list[SlotMemory] = await self.link.call_pod(Verb.REMEMBERED_SLOTS, ())
        return slots

    async def remember_slots(self, slots: list[SlotMemory]) -> None:
        """Returns once the peer has durably noted these drives.  Raises PeerError."""
        await self.link.call_pod(Verb.REMEMBER_SLOTS, (slots,))

    async def pod_state(self) -> PodState:
        state: PodState = await self.link.call_pod(Verb.POD_STATE, ())
        return state

    async def start_scan(self) -> None:
        await self.link.call_pod(Verb.START_SCAN, ())

    async def run(self) -> None:
        """Keep the connections up until cancelled, whatever happens: nobody else would dial this peer again."""
        while True:
            try:
                await self.link.run()
            except Exception:
                log.exception("the connections to a peer failed and are begun anew", extra={"peer": self.link.target})
            await asyncio.sleep(RESTART_SECONDS)
