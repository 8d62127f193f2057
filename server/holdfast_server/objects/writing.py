"""From a body to shards on drives: receive, have it coded, stage, seal.

Small bodies (up to `INLINE_LIMIT_BYTES`) become one stripe whose shards travel inside the record.  Those of up to
`WHOLE_LIMIT_BYTES` are sent to each drive in one call that seals them, too, and where the caller can do so commits the
record: what a Loki chunk costs is hand-overs between threads and pods, not bytes.  Larger ones are streamed: a few
stripes at a time each drive's lane sends its blocks in order.  Stripes are coded (`coding`) while the next ones come.
Nothing is visible until the caller commits a record that names the `Staged` data; whatever ends before that (a refusal
by `Body.finish`, a lost client, too few drives) discards what was staged.

A shard that travels with its commit (`Carried`) leaves a version undecided where too few drives take it, as the small
ones do whose shards are in the record.  So it is done only while every drive has so much room that it will not be full
for seconds (`CARRIED_ROOM_BYTES`): full drives are what makes writes fail for hours, and many of them.

A body is received into the memory of the blocks that are coded from it, or copied there once (`stripes`); it is
digested there, and sent and written from there.  Of a streamed one the drives may have made everything durable before
the last byte is digested; only then the body says whether it is what was announced, and what is refused is discarded.

Bounds: every stripe is taken from the budget of all writes before it is received, and given back piece by piece:
the payload when it is digested, the shards when every drive has taken its own, too; at most `LANE_DEPTH + 2` batches
per write, of `BATCH_STRIPES`, or of `LARGE_BATCH_STRIPES` while nearly nobody else writes.  While a stripe's turn has
not come the one before is never kept back (`memory.budget`: nobody may wait while holding what others need).  A drive
that does not take its blocks within the drive deadline is left out of this write, and the write goes on while the write
quorum can still be met.

What is to be encrypted is sealed between digests and coding: digests see what the client sent, drives what was sealed.

Not here: coding, records, commits, ETags, keys.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass

from holdfast_server.drives.port import CommitReply, CommitRequest, Drive, DriveError, DriveFull
from holdfast_server.erasure.codec import Codec
from holdfast_server.memory.budget import Budget, Hold
from holdfast_server.objects.asking import ask, bounded, raise_first, without_frames
from holdfast_server.objects.background import Background
from holdfast_server.objects.coding import Coder, Column
from holdfast_server.objects.port import Attributes, Body, OutOfSpace, TooSlow, Unavailable
from holdfast_server.objects.record import INLINE_LIMIT_BYTES, STRIPE_SIZE_BYTES
from holdfast_server.objects.stripes import Batch, Stripes, stripes_of
from holdfast_server.sealing.chunks import ChunkSealer, sealed_size, stripe_payload

BATCH_STRIPES = 4
"""Sent at a time: a hand-over between pods costs more than what it carries."""
LARGE_BATCH_STRIPES = 8
"""Half the messages and turns of the loop, for a write that is nearly alone: others have at most `ALONE_BYTES`."""
ALONE_BYTES = 8 << 20
BATCH_SECONDS = 0.05
"""A client that does not send so much in this time is not waited for with what it has sent."""
LANE_DEPTH = 1
"""Batches that may wait for one drive."""
WHOLE_LIMIT_BYTES = 2 * STRIPE_SIZE_BYTES
"""So that slow clients hold no more than of a streamed write."""
WHOLE_STRIPES = 3
"""Of so many bytes; a stripe that is to be sealed has less than STRIPE_SIZE_BYTES of them."""
NEXT_STRIPE_WAIT_SECONDS = 60.0
"""How long an upload that has begun waits for its turn to go on."""
CARRIED_ROOM_BYTES = 2 << 30
CARRIED_ROOM_FRACTION = 0.02
"""Left on every drive, both together, above what it keeps for deletes: what peers tell of it is a second or two old."""


class Carried:
    """Whole shards that go along with the first commit each drive is sent; later ones go alone."""

    def __init__(self, columns: dict[int, Column], hold: Hold) -> None:
        """By position.  `hold`: what they have of the budget, given back by `close`."""
        self._columns = columns
        self._hold = hold

    def deliver(self, position: int, drive: Drive, request: CommitRequest) -> Awaitable[CommitReply]:
        column = self._columns.pop(position, None)
        if column is None:
            return drive.commit(request)
        return drive.commit_with_shard(request, column.blocks, column.hashes)

    def close(self) -> None:
        self._columns.clear()
        self._hold.close()


@dataclass(frozen=True, slots=True)
class Staged:
    """Shards that are in place, durable, and not yet named by any record; or that are still `carried`."""

    attributes: Attributes
    size_bytes: int
    """Of the body."""
    coded_size_bytes: int
    """Of what was coded: the body, or the body sealed."""
    data_id: bytes
    """Empty: the shards are in `inline`."""
    inline: tuple[bytes, ...]
    """By shard index."""
    positions: frozenset[int]
    """Drives that have their shard, or are to get it."""
    carried: Carried | None = None
    """Which they get with their commits."""


class _Taken:
    """Room for stripes that was taken of the budget before (`stripes.Room`)."""

    def __init__(self, hold: Hold) -> None:
        self._hold = hold

    def take(self, size_bytes: int) -> bool:
        return True

    def give(self, size_bytes: int) -> None:
        return

    def came(self) -> None:
        self._hold.progressed()


class _Room:
    """What stripes take of the budget at once or not at all (`stripes.Room`)."""

    def __init__(self, hold: Hold, held_bytes: Callable[[int], int], first_taken: bool) -> None:
        """`first_taken`: room for one was waited for."""
        self._hold, self._held_bytes, self._first_taken = hold, held_bytes, first_taken

    def came(self) -> None:
        self._hold.progressed()

    def take(self, size_bytes: int) -> bool:
        if self._first_taken:
            self._first_taken = False
            return True
        wanted = self._held_bytes(size_bytes)
        return not wanted or self._hold.try_take(wanted)

    def give(self, size_bytes: int) -> None:
        self._hold.give(self._held_bytes(size_bytes))


class Share:
    """What one batch, which is coded, has taken of the budget: the payload until it is digested, the shards until all
    lanes have let go of them, too."""

    def __init__(self, hold: Hold, payload_bytes: int, shard_bytes: int, lanes: int) -> None:
        self._hold = hold
        self._payload_bytes = payload_bytes
        self._shard_bytes = shard_bytes
        self._waiting = lanes + 1

    def digested(self, done: asyncio.Future[None]) -> None:
        """Or not: then the write ends, and gives back all it has."""
        if not done.cancelled() and done.exception() is None:
            self._hold.give(self._payload_bytes)
            self.passed_on()

    def passed_on(self) -> None:
        """By one lane."""
        self._waiting -= 1
        if not self._waiting:
            self._hold.give(self._shard_bytes)


class Lane:
    """One drive's share of one streamed write: its blocks, in order, behind a bounded queue."""

    def __init__(self, drive: Drive, data_id: bytes) -> None:
        self.drive = drive
        self.data_id = data_id
        self.error: DriveError | None = None
        self._queue: asyncio.Queue[tuple[int, Column, Share, bool]] = asyncio.Queue(LANE_DEPTH)

    async def put(self, index: int, column: Column, share: Share, last: bool) -> None:
        """Blocks from stripe `index` on; with the last ones the shard is sealed."""
        await self._queue.put((index, column, share, last))

    async def run(self) -> None:
        """Until sealed or failed; a failed lane swallows what still comes, so that nobody waits for it."""
        last = False
        while not last:
            index, column, share, last = await self._queue.get()
            if self.error is None:
                try:
                    await bounded(self.drive.stage(self.data_id, index, column.blocks, column.hashes, last))
                except DriveError as error:
                    self.error = without_frames(error)
            del column  # not while waiting for the next one
            share.passed_on()


class ShardWriter:
    """Writes bodies to one erasure set."""

    def __init__(
        self,
        codec: Codec,
        write_quorum: int,
        executor: Executor,
        digesting: Executor,
        background: Background,
        budget: Budget,
        sealer: ChunkSealer | None = None,
    ) -> None:
        """`digesting`: what digests bodies that are streamed.  `budget` is the bytes of all writes of the pod.  With a
        `sealer` it writes one body, sealed."""
        self._codec = codec
        self._write_quorum = write_quorum
        self._executor = executor
        self._digesting = digesting
        self._background = background
        self._budget = budget
        self._sealer = sealer

    async def write(
        self,
        body: Body,
        drives: dict[int, Drive],
        rotation: int,
        data_id: bytes,
        inline_limit_bytes: int = INLINE_LIMIT_BYTES,
        may_carry: Callable[[Attributes], bool] = lambda _: False,
    ) -> Staged:
        """Stage a whole body on the given drives (by position).

        `may_carry`: the caller can send shards along with the commits, and closes `Staged.carried` after it.
        Raises what the body raises, Unavailable, OutOfSpace, TooSlow, or Overloaded before anything is received;
        nothing stays staged then.
        """
        with self._budget.hold() as hold:
            try:
                return await self._write(body, drives, rotation, data_id, inline_limit_bytes, may_carry, hold)
            except asyncio.CancelledError as error:
                task = asyncio.current_task()
                if not hold.evicted or task is None or task.uncancel():
                    raise
                raise TooSlow("the client was too slow while others waited") from error

    async def _write(
        self,
        body: Body,
        drives: dict[int, Drive],
        rotation: int,
        data_id: bytes,
        inline_limit_bytes: int,
        may_carry: Callable[[Attributes], bool],
        hold: Hold,
    ) -> Staged:
        size_bytes = body.size_bytes
        digesting = None if size_bytes is not None and size_bytes <= WHOLE_LIMIT_BYTES else self._digesting
        coder = Coder(self._codec, body.digests, self._executor, self._sealer, digesting)
        filler = body.filler if self._sealer is None else None
        if size_bytes is None or size_bytes <= max(inline_limit_bytes, INLINE_LIMIT_BYTES):
            filler = None
        stripe_size = stripe_payload(STRIPE_SIZE_BYTES) if self._sealer else STRIPE_SIZE_BYTES
        stripes = stripes_of(body, self._codec, stripe_size, filler)
        known_bytes = size_bytes or 0
        whole = inline_limit_bytes < known_bytes <= WHOLE_LIMIT_BYTES
        held_bytes = self._held_bytes(known_bytes if whole else stripes.upcoming_bytes, stripes)
        if held_bytes:
            await hold.take(held_bytes)
        try:
            if whole:
                return await self._whole(coder, body, stripes, drives, rotation, data_id, may_carry, hold)
            first = await self._receive(coder, stripes, hold, first_taken=True)
            size = sum(first.sizes)
            if size <= inline_limit_bytes and stripes.ended:
                return await self._inline(coder, body, first, size, drives)
            return await self._stream(coder, body, stripes, first, drives, rotation, data_id, hold)
        except BaseException:
            await coder.stop()
            raise

    def _held_bytes(self, stripe_size_bytes: int, stripes: Stripes) -> int:
        """What a stripe takes of the budget: its shards, itself in pieces where it comes in such, and where it is
        sealed, itself in one, its chunks and these in one.  Small bodies take nothing: what they need is part of what
        every request may have."""
        if stripe_size_bytes <= INLINE_LIMIT_BYTES:
            return 0
        copies = 4 if self._sealer else 0 if stripes.is_direct else 1
        return copies * stripe_size_bytes + self._shard_bytes(stripe_size_bytes)

    def _coded_size(self, size_bytes: int) -> int:
        return sealed_size(size_bytes) if self._sealer else size_bytes

    def _shard_bytes(self, stripe_size_bytes: int) -> int:
        return stripe_size_bytes * self._codec.shards // self._codec.data_shards

    async def _inline(
        self,
        coder: Coder,
        body: Body,
        batch: Batch,
        size_bytes: int,
        drives: dict[int, Drive],
    ) -> Staged:
        blocks = await coder.encode([chunk for chunks in batch.pieces for chunk in chunks], size_bytes)
        coded_size_bytes = self._coded_size(size_bytes)
        return Staged(body.finish(), size_bytes, coded_size_bytes, b"", tuple(blocks), frozenset(drives))

    async def _whole(
        self,
        coder: Coder,
        body: Body,
        stripes: Stripes,
        drives: dict[int, Drive],
        rotation: int,
        data_id: bytes,
        may_carry: Callable[[Attributes], bool],
        hold: Hold,
    ) -> Staged:
        batch = await stripes.take(WHOLE_STRIPES, _Taken(hold), coder.came)
        size = sum(batch.sizes)
        columns = await coder.finish(batch, True)
        del batch
        attributes = body.finish()
        by_position = {position: columns[(position + rotation) % self._codec.shards] for position in drives}
        if may_carry(attributes) and all(map(_has_room, drives.values())):
            carried = Carried(by_position, hold.hand_over())
            return Staged(attributes, size, self._coded_size(size), data_id, (), frozenset(drives), carried)

        async def stage(position: int, drive: Drive) -> None:
            column = by_position[position]
            await drive.stage(data_id, 0, column.blocks, column.hashes, True)

        done = False
        try:
            answers = await ask(drives, stage)
            self._require_quorum(len(drives), list(answers.errors.values()))
            done = True
        finally:
            failed = {p: drive for p, drive in drives.items() if not done or p in answers.errors}
            if failed:
                self._background.spawn(self.discard(failed, data_id))
        return Staged(attributes, size, self._coded_size(size), data_id, (), frozenset(answers))

    async def _stream(
        self,
        coder: Coder,
        body: Body,
        stripes: Stripes,
        first: Batch,
        drives: dict[int, Drive],
        rotation: int,
        data_id: bytes,
        hold: Hold,
    ) -> Staged:
        lanes = {position: Lane(drive, data_id) for position, drive in drives.items()}
        done = False
        try:
            async with asyncio.TaskGroup() as group:
                for lane in lanes.values():
                    group.create_task(lane.run())
                size, attributes = await self._feed(group, coder, body, stripes, first, lanes, rotation, hold)
            if isinstance(attributes, Exception):
                raise attributes
            self._require_quorum(len(lanes), _errors(lanes))
            done = True
        except BaseExceptionGroup as errors:
            # What the body raised is the caller's own; hand it back as it was.
            raise_first(errors)
        except asyncio.CancelledError as error:
            # The task group's own frame has it: what the frames here have would stay with it, the last batch for one.
            error.__traceback__ = None
            raise
        finally:
            if not done:
                self._background.spawn(self.discard(drives, data_id))
        sealed = frozenset(position for position, lane in lanes.items() if lane.error is None)
        failed = {position: drives[position] for position in drives if position not in sealed}
        if failed:
            self._background.spawn(self.discard(failed, data_id))
        return Staged(attributes, size, self._coded_size(size), data_id, (), sealed)

    async def _feed(
        self,
        group: asyncio.TaskGroup,
        coder: Coder,
        body: Body,
        stripes: Stripes,
        batch: Batch,
        lanes: dict[int, Lane],
        rotation: int,
        hold: Hold,
    ) -> tuple[int, Attributes | Exception]:
        """Code one batch of stripes and pass it on while the next is being received; returns the size of the whole, and
        what the body says of itself once it is digested.  What refuses it is returned, too: who raised it here would
        cancel lanes, and a drive might come to seal its shard after it was told to discard it."""
        size = index = 0
        behind: deque[asyncio.Future[None]] = deque()
        while True:
            sizes = batch.sizes
            size += sum(sizes)
            last = stripes.ended
            coding = coder.finish(batch, last)
            batch.let_go()  # whoever began this has the first one for as long as it takes
            del batch
            receiving = None if last else group.create_task(self._receive(coder, stripes, hold))
            columns = await coding
            self._require_quorum(len(lanes), _errors(lanes))
            share = self._share(sizes, stripes, hold, len(lanes))
            behind.append(coder.digested())
            behind[-1].add_done_callback(share.digested)
            if len(behind) > LANE_DEPTH + 1:
                await behind.popleft()
            for position, lane in lanes.items():
                put = lane.put(index, columns[(position + rotation) % self._codec.shards], share, last)
                if last:
                    group.create_task(put)  # nothing comes behind it, and the body can say that it is whole without it
                else:
                    await put
            del coding, columns
            if last:
                for digested in behind:
                    await digested
                return size, _finished(body)
            index += len(sizes)
            try:
                batch = await receiving if receiving else Batch([], [])
            finally:
                del receiving  # it may have its failure, which has this frame
            if not batch.sizes:
                # There was no room for the next stripe; now nothing is kept back while its turn is waited for.
                await hold.take(self._held_bytes(stripes.upcoming_bytes, stripes), NEXT_STRIPE_WAIT_SECONDS)
                batch = await stripes.take(1, _Taken(hold), coder.came)

    def _share(self, sizes: list[int], stripes: Stripes, hold: Hold, lanes: int) -> Share:
        """Of stripes that are coded."""
        held = [self._held_bytes(size, stripes) for size in sizes]
        shard_bytes = sum(self._shard_bytes(size) for size, had in zip(sizes, held, strict=True) if had)
        return Share(hold, sum(held) - shard_bytes, shard_bytes, lanes)

    async def _receive(self, coder: Coder, stripes: Stripes, hold: Hold, first_taken: bool = False) -> Batch:
        """The next stripes, as many as there is room for and soon come; none if there is no room.

        `first_taken`: these are the first, and room for one was waited for: it is all that who is not nearly alone may
        hold before anything has come."""
        room = _Room(hold, lambda size_bytes: self._held_bytes(size_bytes, stripes), first_taken)
        alone = not self._budget.waiting and self._budget.used - hold.held <= ALONE_BYTES
        most = LARGE_BATCH_STRIPES if alone else 1 if first_taken else BATCH_STRIPES
        return await stripes.take(most, room, coder.came, BATCH_SECONDS)

    def _require_quorum(self, drives: int, errors: list[DriveError]) -> None:
        if drives - len(errors) >= self._write_quorum:
            return
        if any(isinstance(error, DriveFull) for error in errors):
            raise OutOfSpace(f"{len(errors)} of {drives} drives could not take the data: {errors[0]}")
        raise Unavailable(f"{len(errors)} of {drives} drives failed during the write: {errors}")

    async def discard(self, drives: dict[int, Drive], data_id: bytes) -> None:
        """Let go of shards that no record names."""
        await ask(drives, lambda _, drive: drive.discard(data_id))


def _has_room(drive: Drive) -> bool:
    status = drive.status()
    left = status.available_bytes - int(status.total_bytes * CARRIED_ROOM_FRACTION)
    return not status.full and left >= CARRIED_ROOM_BYTES


def _finished(body: Body) -> Attributes | Exception:
    try:
        return body.finish()
    except Exception as error:
        return error


def _errors(lanes: dict[int, Lane]) -> list[DriveError]:
    return [lane.error for lane in lanes.values() if lane.error is not None]
