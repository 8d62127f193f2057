"""From a body to shards on drives: cut into stripes, feed the digests, encode, hash, stage, seal.

Small bodies (up to `INLINE_LIMIT_BYTES`) become one stripe whose shards travel inside the record.  Larger ones
are streamed: stripe by stripe a worker thread feeds the digests and encodes, and each drive's lane sends its
blocks in order.  Nothing is visible until the caller commits a record that names the `Staged` data; whatever
ends before that (a refusal by `Body.finish`, a lost client, too few drives) discards what was staged.

Bounds: per write at most `LANE_DEPTH + 2` stripes and their shards in memory; a drive that does not take its
blocks within the drive deadline is left out of this write, and the write goes on while the write quorum can
still be met.

Not here: records, commits, ETags.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import xxhash

from holdfast_server.drives.port import Drive, DriveError, DriveFull
from holdfast_server.erasure.codec import Codec
from holdfast_server.objects.asking import ask, bounded, only
from holdfast_server.objects.background import Background
from holdfast_server.objects.port import Attributes, Body, Digest, OutOfSpace, Unavailable
from holdfast_server.objects.record import INLINE_LIMIT_BYTES, STRIPE_SIZE_BYTES

LANE_DEPTH = 3
"""Stripes that may wait for one drive."""
ON_LOOP_LIMIT_BYTES = 16 * 1024
"""Below this, coding takes less time than handing it to a thread."""


@dataclass(frozen=True, slots=True)
class Staged:
    """Shards that are in place, durable, and not yet named by any record."""

    attributes: Attributes
    size_bytes: int
    data_id: bytes
    """Empty: the shards are in `inline`."""
    inline: tuple[bytes, ...]
    """By shard index."""
    positions: frozenset[int]
    """Drives that have their shard."""


class Encoder:
    """Stripes of one write: digests and coding, on a worker thread where that pays."""

    def __init__(self, codec: Codec, digests: Sequence[Digest], executor: Executor) -> None:
        self._codec = codec
        self._digests = digests
        self._executor = executor

    async def encode(self, chunks: list[bytes | memoryview], size_bytes: int) -> list[bytes]:
        if size_bytes <= ON_LOOP_LIMIT_BYTES:
            return self._work(chunks)
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._work, chunks)

    async def encode_and_hash(self, chunks: list[bytes | memoryview]) -> tuple[list[bytes], list[bytes]]:
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._work_and_hash, chunks)

    def _work(self, chunks: list[bytes | memoryview]) -> list[bytes]:
        stripe = b"".join(chunks)
        for digest in self._digests:
            digest.update(stripe)
        return self._codec.encode(stripe) if stripe else []

    def _work_and_hash(self, chunks: list[bytes | memoryview]) -> tuple[list[bytes], list[bytes]]:
        blocks = self._work(chunks)
        return blocks, hash_blocks(blocks)


def hash_blocks(blocks: Iterable[bytes]) -> list[bytes]:
    return [xxhash.xxh3_128_digest(block) for block in blocks]


class Lane:
    """One drive's share of one streamed write: its blocks, in order, behind a bounded queue."""

    def __init__(self, drive: Drive, data_id: bytes) -> None:
        self.drive = drive
        self.data_id = data_id
        self.error: DriveError | None = None
        self._queue: asyncio.Queue[tuple[int, bytes, bytes] | None] = asyncio.Queue(LANE_DEPTH)

    async def put(self, index: int, block: bytes, digest: bytes) -> None:
        if self.error is None:
            await self._queue.put((index, block, digest))

    async def finish(self) -> None:
        """No more blocks: seal."""
        await self._queue.put(None)

    async def run(self) -> None:
        """Until sealed or failed; a failed lane swallows what still comes, so that nobody waits for it."""
        while (item := await self._queue.get()) is not None:
            if self.error is None:
                index, block, digest = item
                try:
                    await bounded(self.drive.stage(self.data_id, index, [block], [digest]))
                except DriveError as error:
                    self.error = error
        if self.error is None:
            try:
                await bounded(self.drive.seal(self.data_id))
            except DriveError as error:
                self.error = error


class ShardWriter:
    """Writes bodies to one erasure set."""

    def __init__(self, codec: Codec, write_quorum: int, executor: Executor, background: Background) -> None:
        self._codec = codec
        self._write_quorum = write_quorum
        self._executor = executor
        self._background = background

    async def write(
        self,
        body: Body,
        drives: dict[int, Drive],
        rotation: int,
        data_id: bytes,
        inline_limit_bytes: int = INLINE_LIMIT_BYTES,
    ) -> Staged:
        """Stage a whole body on the given drives (by position).

        Raises what the body raises, Unavailable or OutOfSpace; nothing stays staged then.
        """
        encoder = Encoder(self._codec, body.digests, self._executor)
        stripes = _Stripes(body)
        first = await stripes.next()
        size = sum(map(len, first))
        if size <= inline_limit_bytes and stripes.ended:
            return await self._inline(encoder, body, first, size, drives)
        return await self._stream(encoder, body, stripes, first, drives, rotation, data_id)

    async def _inline(
        self,
        encoder: Encoder,
        body: Body,
        chunks: list[bytes | memoryview],
        size_bytes: int,
        drives: dict[int, Drive],
    ) -> Staged:
        blocks = await encoder.encode(chunks, size_bytes)
        return Staged(body.finish(), size_bytes, b"", tuple(blocks), frozenset(drives))

    async def _stream(
        self,
        encoder: Encoder,
        body: Body,
        stripes: _Stripes,
        first: list[bytes | memoryview],
        drives: dict[int, Drive],
        rotation: int,
        data_id: bytes,
    ) -> Staged:
        lanes = {position: Lane(drive, data_id) for position, drive in drives.items()}
        done = False
        try:
            async with asyncio.TaskGroup() as group:
                for lane in lanes.values():
                    group.create_task(lane.run())
                size = await self._feed(encoder, stripes, first, lanes, rotation)
                attributes = body.finish()
                for lane in lanes.values():
                    await lane.finish()
            self._require_quorum(lanes)
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
        return Staged(attributes, size, data_id, (), sealed)

    async def _feed(
        self,
        encoder: Encoder,
        stripes: _Stripes,
        chunks: list[bytes | memoryview],
        lanes: dict[int, Lane],
        rotation: int,
    ) -> int:
        """Encode one stripe while the next is being received; returns the size of the whole."""
        size = index = 0
        while chunks:
            size += sum(map(len, chunks))
            coding = asyncio.ensure_future(encoder.encode_and_hash(chunks))
            try:
                chunks = await stripes.next()
            except BaseException:
                # The digests are in use on a thread; let it end before they are looked at or dropped.
                await asyncio.wait([coding])
                raise
            blocks, hashes = await coding
            self._require_quorum(lanes)
            for position, lane in lanes.items():
                shard = (position + rotation) % self._codec.shards
                await lane.put(index, blocks[shard], hashes[shard])
            index += 1
        return size

    def _require_quorum(self, lanes: dict[int, Lane]) -> None:
        errors = [lane.error for lane in lanes.values() if lane.error is not None]
        if len(lanes) - len(errors) >= self._write_quorum:
            return
        if any(isinstance(error, DriveFull) for error in errors):
            raise OutOfSpace(f"{len(errors)} of {len(lanes)} drives could not take the data: {errors[0]}")
        raise Unavailable(f"{len(errors)} of {len(lanes)} drives failed during the write: {errors}")

    async def discard(self, drives: dict[int, Drive], data_id: bytes) -> None:
        """Let go of shards that no record names."""
        await ask(drives, lambda _, drive: drive.discard(data_id))


class _Stripes:
    """Cuts a body's chunks into stripes, without joining them."""

    def __init__(self, body: Body) -> None:
        self._chunks = body.chunks()
        self._rest: memoryview | None = None
        self.ended = False

    async def next(self) -> list[bytes | memoryview]:
        """Chunks that add up to one stripe, to less at the end, to nothing after it."""
        taken: list[bytes | memoryview] = []
        room = STRIPE_SIZE_BYTES
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
