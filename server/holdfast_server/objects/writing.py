"""From a body to shards on drives: cut into stripes, feed the digests, encode, hash, stage, seal.

Small bodies (up to `INLINE_LIMIT_BYTES`) become one stripe whose shards travel inside the record.  Those of up to
`WHOLE_LIMIT_BYTES` are received to their end, coded at once on a thread, and sent to each drive in one call that
seals them, too: what a Loki chunk costs is hand-overs between threads and pods, not bytes.  Larger ones are streamed:
stripe by stripe a worker thread feeds the digests and encodes, and each drive's lane sends its blocks in order.
Nothing is visible until the caller commits a record that names the `Staged` data; whatever ends before that (a refusal
by `Body.finish`, a lost client, too few drives) discards what was staged.

Bounds: every stripe is taken from the budget of all writes before it is received, and given back piece by piece:
the payload when it is encoded, the shards when every drive has taken its own; at most `LANE_DEPTH + 2` stripes per
write.  While a stripe's turn has not come the one before is never kept back (`memory.budget`: nobody may wait
while holding what others need).  A drive that does not take its blocks within the drive deadline is left out of
this write, and the write goes on while the write quorum can still be met.

What is to be encrypted is sealed between digests and coding: digests see what the client sent, drives what was sealed.

Not here: records, commits, ETags, keys.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import xxhash

from holdfast_server.drives.port import Drive, DriveError, DriveFull
from holdfast_server.erasure.codec import Codec
from holdfast_server.memory.budget import Budget, Hold
from holdfast_server.objects.asking import ask, bounded, only
from holdfast_server.objects.background import Background
from holdfast_server.objects.port import Attributes, Body, Digest, OutOfSpace, TooSlow, Unavailable
from holdfast_server.objects.record import INLINE_LIMIT_BYTES, STRIPE_SIZE_BYTES
from holdfast_server.sealing.chunks import ChunkSealer, sealed_size, stripe_payload

LANE_DEPTH = 3
"""Stripes that may wait for one drive."""
WHOLE_LIMIT_BYTES = 2 * STRIPE_SIZE_BYTES
"""As much as a streamed write has at a time, too, so that slow clients hold no more."""
NEXT_STRIPE_WAIT_SECONDS = 60.0
"""How long an upload that has begun waits for its turn to go on."""
ON_LOOP_LIMIT_BYTES = 16 * 1024
"""Below this, coding takes less time than handing it to a thread."""


@dataclass(frozen=True, slots=True)
class Staged:
    """Shards that are in place, durable, and not yet named by any record."""

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
    """Drives that have their shard."""


class Encoder:
    """Stripes of one write: digests, sealing and coding, on a worker thread where that pays."""

    def __init__(
        self, codec: Codec, digests: Sequence[Digest], executor: Executor, sealer: ChunkSealer | None = None
    ) -> None:
        self._codec = codec
        self._digests = digests
        self._executor = executor
        self._sealer = sealer

    async def encode(self, chunks: list[bytes | memoryview], size_bytes: int) -> list[bytes]:
        """A body of one stripe."""
        if size_bytes <= ON_LOOP_LIMIT_BYTES:
            return self._work(chunks, True)
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._work, chunks, True)

    async def encode_and_hash(self, chunks: list[bytes | memoryview], last: bool) -> tuple[list[bytes], list[bytes]]:
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._work_and_hash, chunks, last)

    async def encode_and_hash_all(
        self, stripes: list[list[bytes | memoryview]]
    ) -> list[tuple[list[bytes], list[bytes]]]:
        """All stripes of a body, in order."""

        def work() -> list[tuple[list[bytes], list[bytes]]]:
            last = len(stripes) - 1
            return [self._work_and_hash(chunks, index == last) for index, chunks in enumerate(stripes)]

        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    def _work(self, chunks: list[bytes | memoryview], last: bool) -> list[bytes]:
        stripe = b"".join(chunks)
        for digest in self._digests:
            digest.update(stripe)
        if self._sealer is not None:
            stripe = self._sealer.seal(stripe, last)
        return self._codec.encode(stripe) if stripe else []

    def _work_and_hash(self, chunks: list[bytes | memoryview], last: bool) -> tuple[list[bytes], list[bytes]]:
        blocks = self._work(chunks, last)
        return blocks, hash_blocks(blocks)


def hash_blocks(blocks: Iterable[bytes | memoryview]) -> list[bytes]:
    return [xxhash.xxh3_128_digest(block) for block in blocks]


class Share:
    """What one stripe has taken of the budget: the payload, and its shards until all lanes have let go of them."""

    def __init__(self, hold: Hold, payload_bytes: int, shard_bytes: int, lanes: int) -> None:
        self._hold = hold
        self._payload_bytes = payload_bytes
        self._shard_bytes = shard_bytes
        self._lanes = lanes

    def encoded(self) -> None:
        self._hold.give(self._payload_bytes)

    def passed_on(self) -> None:
        """By one lane."""
        self._lanes -= 1
        if not self._lanes:
            self._hold.give(self._shard_bytes)


class Lane:
    """One drive's share of one streamed write: its blocks, in order, behind a bounded queue."""

    def __init__(self, drive: Drive, data_id: bytes) -> None:
        self.drive = drive
        self.data_id = data_id
        self.error: DriveError | None = None
        self._queue: asyncio.Queue[tuple[int, bytes, bytes, Share] | None] = asyncio.Queue(LANE_DEPTH)

    async def put(self, index: int, block: bytes, digest: bytes, share: Share) -> None:
        if self.error is None:
            await self._queue.put((index, block, digest, share))
        else:
            share.passed_on()

    async def finish(self) -> None:
        """No more blocks: seal."""
        await self._queue.put(None)

    async def run(self) -> None:
        """Until sealed or failed; a failed lane swallows what still comes, so that nobody waits for it."""
        while (item := await self._queue.get()) is not None:
            index, block, digest, share = item
            if self.error is None:
                try:
                    await bounded(self.drive.stage(self.data_id, index, [block], [digest]))
                except DriveError as error:
                    self.error = error
            del item, block  # not while waiting for the next one
            share.passed_on()
        if self.error is None:
            try:
                await bounded(self.drive.seal(self.data_id))
            except DriveError as error:
                self.error = error


class ShardWriter:
    """Writes bodies to one erasure set."""

    def __init__(
        self,
        codec: Codec,
        write_quorum: int,
        executor: Executor,
        background: Background,
        budget: Budget,
        sealer: ChunkSealer | None = None,
    ) -> None:
        """`budget` is the bytes of all writes of the pod.  With a `sealer` it writes one body, sealed."""
        self._codec = codec
        self._write_quorum = write_quorum
        self._executor = executor
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
    ) -> Staged:
        """Stage a whole body on the given drives (by position).

        Raises what the body raises, Unavailable, OutOfSpace, TooSlow, or Overloaded before anything is received;
        nothing stays staged then.
        """
        with self._budget.hold() as hold:
            try:
                return await self._write(body, drives, rotation, data_id, inline_limit_bytes, hold)
            except asyncio.CancelledError as error:
                task = asyncio.current_task()
                if not hold.evicted or task is None or task.uncancel():
                    raise
                raise TooSlow("the client was too slow while others waited") from error

    async def _write(
        self, body: Body, drives: dict[int, Drive], rotation: int, data_id: bytes, inline_limit_bytes: int, hold: Hold
    ) -> Staged:
        encoder = Encoder(self._codec, body.digests, self._executor, self._sealer)
        stripes = _Stripes(body, stripe_payload(STRIPE_SIZE_BYTES) if self._sealer else STRIPE_SIZE_BYTES)
        if body.size_bytes is not None and inline_limit_bytes < body.size_bytes <= WHOLE_LIMIT_BYTES:
            await hold.take(self._held_bytes(body.size_bytes))
            return await self._whole(encoder, body, stripes, drives, rotation, data_id, hold)
        if self._held_bytes(stripes.upcoming_bytes):
            await hold.take(self._held_bytes(stripes.upcoming_bytes))
        first = await stripes.next()
        size = sum(map(len, first))
        if size <= inline_limit_bytes and stripes.ended:
            return await self._inline(encoder, body, first, size, drives)
        return await self._stream(encoder, body, stripes, first, drives, rotation, data_id, hold)

    def _held_bytes(self, stripe_size_bytes: int) -> int:
        """What a stripe takes of the budget: itself in pieces, in one and sealed, and its shards.  Small bodies take
        nothing: what they need is part of what every request may have."""
        if stripe_size_bytes <= INLINE_LIMIT_BYTES:
            return 0
        return (4 if self._sealer else 2) * stripe_size_bytes + self._shard_bytes(stripe_size_bytes)

    def _coded_size(self, size_bytes: int) -> int:
        return sealed_size(size_bytes) if self._sealer else size_bytes

    def _shard_bytes(self, stripe_size_bytes: int) -> int:
        return stripe_size_bytes * self._codec.shards // self._codec.data_shards

    async def _inline(
        self,
        encoder: Encoder,
        body: Body,
        chunks: list[bytes | memoryview],
        size_bytes: int,
        drives: dict[int, Drive],
    ) -> Staged:
        blocks = await encoder.encode(chunks, size_bytes)
        coded_size_bytes = self._coded_size(size_bytes)
        return Staged(body.finish(), size_bytes, coded_size_bytes, b"", tuple(blocks), frozenset(drives))

    async def _whole(
        self,
        encoder: Encoder,
        body: Body,
        stripes: _Stripes,
        drives: dict[int, Drive],
        rotation: int,
        data_id: bytes,
        hold: Hold,
    ) -> Staged:
        received: list[list[bytes | memoryview]] = []
        while not stripes.ended:
            received.append(await stripes.next())
            hold.progressed()
        received = [chunks for chunks in received if chunks]
        size = sum(len(chunk) for chunks in received for chunk in chunks)
        coding = asyncio.ensure_future(encoder.encode_and_hash_all(received))
        try:
            coded = await asyncio.shield(coding)
        except BaseException:
            # The digests are in use on a thread; let it end before they are looked at or dropped.
            await asyncio.wait([coding])
            raise
        attributes = body.finish()

        async def stage(position: int, drive: Drive) -> None:
            shard = (position + rotation) % self._codec.shards
            blocks, hashes = [blocks[shard] for blocks, _ in coded], [hashes[shard] for _, hashes in coded]
            await drive.stage(data_id, 0, blocks, hashes, True)

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
        encoder: Encoder,
        body: Body,
        stripes: _Stripes,
        first: list[bytes | memoryview],
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
                size = await self._feed(encoder, stripes, first, lanes, rotation, hold)
                attributes = body.finish()
                for lane in lanes.values():
                    await lane.finish()
            self._require_quorum(len(lanes), _errors(lanes))
            done = True
        except BaseExceptionGroup as errors:
            # What the body raised is the caller's own; hand it back as it was.
            raise only(errors) from None
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
        encoder: Encoder,
        stripes: _Stripes,
        chunks: list[bytes | memoryview],
        lanes: dict[int, Lane],
        rotation: int,
        hold: Hold,
    ) -> int:
        """Encode one stripe while the next is being received; returns the size of the whole."""
        size = index = 0
        while chunks:
            stripe_size = sum(map(len, chunks))
            size += stripe_size
            coding = asyncio.ensure_future(encoder.encode_and_hash(chunks, stripes.ended))
            try:
                wanted = self._held_bytes(stripes.upcoming_bytes)
                # Without room for the next stripe, this one must be out of the way before its turn is waited for.
                chunks = await stripes.next() if not wanted or hold.try_take(wanted) else []
            except BaseException:
                # The digests are in use on a thread; let it end before they are looked at or dropped.
                await asyncio.wait([coding])
                raise
            blocks, hashes = await coding
            del coding
            self._require_quorum(len(lanes), _errors(lanes))
            shard_bytes = self._shard_bytes(stripe_size) if self._held_bytes(stripe_size) else 0
            share = Share(hold, self._held_bytes(stripe_size) - shard_bytes, shard_bytes, len(lanes))
            share.encoded()
            for position, lane in lanes.items():
                shard = (position + rotation) % self._codec.shards
                await lane.put(index, blocks[shard], hashes[shard], share)
            del blocks, hashes
            index += 1
            if not chunks and not stripes.ended:
                await hold.take(wanted, NEXT_STRIPE_WAIT_SECONDS)
                chunks = await stripes.next()
        return size

    def _require_quorum(self, drives: int, errors: list[DriveError]) -> None:
        if drives - len(errors) >= self._write_quorum:
            return
        if any(isinstance(error, DriveFull) for error in errors):
            raise OutOfSpace(f"{len(errors)} of {drives} drives could not take the data: {errors[0]}")
        raise Unavailable(f"{len(errors)} of {drives} drives failed during the write: {errors}")

    async def discard(self, drives: dict[int, Drive], data_id: bytes) -> None:
        """Let go of shards that no record names."""
        await ask(drives, lambda _, drive: drive.discard(data_id))


def _errors(lanes: dict[int, Lane]) -> list[DriveError]:
    return [lane.error for lane in lanes.values() if lane.error is not None]


class _Stripes:
    """Cuts a body's chunks into stripes, without joining them."""

    def __init__(self, body: Body, size_bytes: int) -> None:
        """`size_bytes` is that of a stripe."""
        self._size_bytes = size_bytes
        self._chunks = body.chunks()
        self._rest: memoryview | None = None
        self._left_bytes = body.size_bytes
        self.ended = False
        """There is no more than what was taken."""

    @property
    def upcoming_bytes(self) -> int:
        """What the next stripe will have, at most."""
        if self.ended:
            return 0
        return self._size_bytes if self._left_bytes is None else min(self._size_bytes, self._left_bytes)

    async def next(self) -> list[bytes | memoryview]:
        """Chunks that add up to one stripe, to less at the end, to nothing after it."""
        taken = await self._take()
        if self._left_bytes is not None:
            self._left_bytes -= min(self._left_bytes, sum(map(len, taken)))
        return taken

    async def _take(self) -> list[bytes | memoryview]:
        taken: list[bytes | memoryview] = []
        room = self._size_bytes
        while room and not self.ended:
            view = self._rest
            self._rest = None
            if view is None:
                try:
                    view = memoryview(await anext(self._chunks))
                except StopAsyncIteration:
                    self.ended = True
                    break
            taken.append(view[:room])
            if len(view) > room:
                self._rest = view[room:]
            room -= min(room, len(view))
        if not room and self._rest is None and not self.ended:
            await self._look_ahead()
        return taken

    async def _look_ahead(self) -> None:
        """Know whether a full stripe was the last one."""
        async for chunk in self._chunks:
            if len(chunk):
                self._rest = memoryview(chunk)
                return
        self.ended = True
