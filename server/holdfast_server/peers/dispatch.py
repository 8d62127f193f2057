"""The answering end, without sockets: a request to the drive or callback it is meant for, and back to a reply.

Every failure becomes an answer: a DriveError its own outcome, anything else a refusal (and, if it is our bug,
a traceback in the log).  A peer's mistake never ends the connection, let alone the pod.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import msgspec

from holdfast_server.contract.admin import PodState
from holdfast_server.drives.port import Block, CommitReply, CommitRequest, ComputedHashes, Drive, DriveError
from holdfast_server.memory.budget import Hold, Overloaded
from holdfast_server.memory.pipes import Piped, Pipes
from holdfast_server.peers import messages
from holdfast_server.peers.frames import FrameError, split_blobs
from holdfast_server.peers.messages import MAX_BLOCKS_PER_READ, Outcome, Reply, Report, Verb
from holdfast_server.peers.port import PeerError, SlotMemory

EXPECTED_BLOCK_SIZE_BYTES = 512 << 10
"""Taken for a block until its size is known: a stripe of 1 MiB over two data shards; most have more."""

log = logging.getLogger(__name__)


class PeerServices(NamedTuple):
    """What a pod does for its peers besides serving its drives."""

    on_announce: Callable[[str, list[str]], Awaitable[None]]
    on_fence_bucket: Callable[[bytes], Awaitable[None]]
    remembered_slots: Callable[[], Awaitable[list[SlotMemory]]]
    remember_slots: Callable[[list[SlotMemory]], Awaitable[None]]
    """Returns once they are on stable storage."""
    report: Callable[[], Report]
    pod_state: Callable[[], PodState]
    start_scan: Callable[[], Awaitable[None]]
    """Begin a scan pass of this pod's drives now."""


class Refused(Exception):
    """The request makes no sense."""


class Dispatcher:
    """Serves one pod's drives and services to its peers."""

    def __init__(self, drives: Sequence[Drive], services: PeerServices) -> None:
        self._drives = drives
        self._services = services

    async def answer(
        self,
        request: messages.ReceivedRequest,
        blobs: memoryview,
        hold: Hold | None = None,
        digests: Sequence[bytes] = (),
        pipes: Pipes | None = None,
    ) -> tuple[bytes, Sequence[Block] | Piped]:
        """The reply's header and blobs.  Never raises, except when cancelled.

        Blocks that are read are taken from `hold`; the caller closes it when they are sent.  They may be in `pipes`.
        `digests`: of the blobs, if they were hashed as they came.
        """
        try:
            result, out = await self._serve(request, blobs, hold, digests, pipes)
        except Exception as error:
            return self.failed(request, error), ()
        sizes = out.sizes if isinstance(out, Piped) else map(len, out)
        return messages.encode(Reply(request.id, Outcome.OK, tuple(sizes), result)), out

    def begin(
        self, request: messages.ReceivedRequest, blobs: memoryview, digests: Sequence[bytes] = ()
    ) -> asyncio.Future[Any] | None:
        """What writes and reads ask of a drive most, begun at once and without a task where the drive allows it; None
        for all else, and for what cannot be read, which `answer` tells.  `replied` and `failed` turn its end into a
        reply."""
        begin = _AT_ONCE.get(request.verb)
        if begin is None or not 0 <= request.volume < len(self._drives):
            return None
        try:
            arguments = messages.VERBS[request.verb].arguments.decode(request.arguments)
            received = _Received(split_blobs(blobs, request.sizes), digests)
        except (msgspec.MsgspecError, FrameError):
            return None
        return asyncio.ensure_future(begin(self._drives[request.volume], arguments, received))

    def replied(self, request: messages.ReceivedRequest, result: Any) -> bytes:
        """The reply of what `begin` began."""
        return messages.encode(Reply(request.id, Outcome.OK, (), result))

    def failed(self, request: messages.ReceivedRequest, error: BaseException) -> bytes:
        """The reply that tells of a failure."""
        outcome, told = Outcome.REFUSED, str(error)
        if isinstance(error, DriveError):
            outcome = messages.outcome_of(error)
        elif isinstance(error, Overloaded):
            outcome = messages.outcome_of(DriveError())
        elif not isinstance(error, Refused | PeerError | FrameError | msgspec.MsgspecError):
            log.error("a peer's request failed", exc_info=error, extra={"verb": request.verb})
            told = f"internal error: {type(error).__name__}"
        return messages.encode(Reply(request.id, outcome, (), told))

    async def _serve(
        self,
        request: messages.ReceivedRequest,
        blobs: memoryview,
        hold: Hold | None,
        digests: Sequence[bytes],
        pipes: Pipes | None,
    ) -> tuple[Any, Sequence[Block] | Piped]:
        spec = messages.VERBS.get(request.verb)
        if spec is None:
            raise Refused(f"unknown verb {request.verb}")
        arguments = spec.arguments.decode(request.arguments)
        if request.volume < 0:
            return await self._serve_pod(request.verb, arguments), []
        if request.volume >= len(self._drives):
            raise Refused(f"no volume {request.volume} here; there are {len(self._drives)}")
        drive = self._drives[request.volume]
        begin = _AT_ONCE.get(request.verb)
        if begin is not None:
            return await begin(drive, arguments, _Received(split_blobs(blobs, request.sizes), digests)), []
        if request.verb == Verb.READ_BLOCKS:
            return await _read_blocks(drive.read_blocks, hold, *arguments)
        if request.verb == Verb.FETCH_BLOCKS:
            fetch = getattr(drive, "fetch_blocks", None)
            read = drive.read_blocks if fetch is None else partial(fetch, pipes=pipes)
            return await _read_blocks(read, hold, *arguments)
        method = _DRIVE_METHODS.get(request.verb)
        if method is None:
            raise Refused(f"verb {request.verb} is not a drive's")
        return await getattr(drive, method)(*arguments), []

    async def _serve_pod(self, verb: int, arguments: tuple[Any, ...]) -> Any:
        services = self._services
        if verb == Verb.PING:
            return services.report()
        if verb == Verb.ANNOUNCE:
            return await services.on_announce(*arguments)
        if verb == Verb.FENCE_BUCKET:
            return await services.on_fence_bucket(*arguments)
        if verb == Verb.REMEMBERED_SLOTS:
            return await services.remembered_slots()
        if verb == Verb.REMEMBER_SLOTS:
            return await services.remember_slots(*arguments)
        if verb == Verb.POD_STATE:
            return services.pod_state()
        if verb == Verb.START_SCAN:
            return await services.start_scan()
        raise Refused(f"verb {verb} needs a volume")


class _Received(NamedTuple):
    """Blocks that came with a request."""

    blocks: list[memoryview]
    digests: Sequence[bytes]
    """Theirs, if they were hashed as they came."""

    def judged(self, hashes: Sequence[bytes]) -> Sequence[bytes]:
        """What the request says are their hashes.  Where that was not found here, too, the drive has to look."""
        return ComputedHashes(hashes) if self.digests == hashes else hashes


def _stage(
    drive: Drive, arguments: tuple[bytes, int, list[bytes]], received: _Received, last: bool = False
) -> Awaitable[None]:
    data_id, index, hashes = arguments
    return drive.stage(data_id, index, received.blocks, received.judged(hashes), last)


def _commit_shard(
    drive: Drive, arguments: tuple[CommitRequest, list[bytes]], received: _Received
) -> Awaitable[CommitReply]:
    request, hashes = arguments
    return drive.commit_with_shard(request, received.blocks, received.judged(hashes))


_AT_ONCE: dict[int, Callable[[Drive, Any, _Received], Awaitable[Any]]] = {
    Verb.QUERY: lambda drive, arguments, _: drive.query(*arguments),
    Verb.COMMIT: lambda drive, arguments, _: drive.commit(*arguments),
    Verb.COMMIT_MANY: lambda drive, arguments, _: drive.commit_many(*arguments),
    Verb.NOTE: lambda drive, arguments, _: drive.note_many(*arguments),
    Verb.STAGE: _stage,
    Verb.STAGE_LAST: partial(_stage, last=True),
    Verb.COMMIT_SHARD: _commit_shard,
}

_DRIVE_METHODS: dict[int, str] = {
    verb: verb.name.lower()
    for verb in Verb
    if verb >= Verb.QUERY and verb not in (*_AT_ONCE, Verb.READ_BLOCKS, Verb.FETCH_BLOCKS)
}


async def _read_blocks(
    read: Callable[[bytes, int, int], Awaitable[tuple[list[Block] | Piped, list[bytes]]]],
    hold: Hold | None,
    data_id: bytes,
    first: int,
    count: int,
) -> tuple[list[bytes], list[Block] | Piped]:
    if not 0 <= count <= MAX_BLOCKS_PER_READ:
        raise Refused(f"{count} blocks asked for; at most {MAX_BLOCKS_PER_READ} are given at a time")
    if hold is not None and count:
        await hold.take(count * EXPECTED_BLOCK_SIZE_BYTES)
    blocks, hashes = await read(data_id, first, count)
    if hold is not None:
        size_bytes = blocks.size_bytes if isinstance(blocks, Piped) else sum(map(len, blocks))
        more_bytes = size_bytes - count * EXPECTED_BLOCK_SIZE_BYTES
        if more_bytes <= 0:
            hold.give(-more_bytes)
        else:
            hold.try_take(more_bytes)  # it is there already: only who comes next can wait
    return hashes, blocks
