"""From shards to bytes: pick K shards, verify, join or decode, stream.

A batch of stripes is fetched while the one before it is being sent.  For each batch K drives are asked, the best
first (`sources`); one that fails, answers with bytes that do not match their hash, or does not answer within
`HEDGE_SECONDS` is replaced at once by another, and comes last in the batches that follow.  A batch of which rot on
too many drives leaves no K whole is read stripe by stripe: what each needs may be on others.
A stripe leaves here only after every block that went into it matched the hash the drive keeps, in this pod's memory
(`drives.shard_reads`, and `peers.calls` for what comes from another pod): no byte that fails its checksum reaches the
caller.  What is sealed is
opened then, on a worker thread, only the chunks that are asked for.

A version that is overwritten while it is read stays readable to its end: drives keep what they were just asked for
(rule 13), and while a client takes long for what it has, they are told that there is more to come (`_Keeping`).

Bounds: one batch of `BATCH_STRIPES` stripes in memory per read, taken from the budget of all reads; the one that
is read ahead only where the budget has room for it at once.  Batches after the first have `LARGE_BATCH_STRIPES` where
few others read.

Not here: which version to read (`erasure_set`), repair of what was found bad (`report_bad` tells the store).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from holdfast_server.clock.port import Clock
from holdfast_server.drives.port import Block, DriveError, Held, ShardCorrupt, ShardMissing
from holdfast_server.erasure.codec import Codec, CodingError, codec
from holdfast_server.memory.budget import Budget, Hold, Overloaded
from holdfast_server.memory.views import sliced
from holdfast_server.objects.asking import ask, awake, let_go
from holdfast_server.objects.port import Damaged, Unavailable, Vanished
from holdfast_server.objects.record import Extent, Record
from holdfast_server.objects.sealed import Opener
from holdfast_server.objects.sources import Race, Source, checked
from holdfast_server.sealing.envelope import Seal

BATCH_STRIPES = 4
LARGE_BATCH_STRIPES = 8
"""Of a read that goes on, while the budget is at most half used with it: fewer messages and turns of the loop."""
HEDGE_SECONDS = 0.5
FETCH_ROUNDS = 6
ROUND_PAUSE_SECONDS = 0.25
"""A batch for which too few holders answer is tried again: a pod that restarts is back within a second or two."""

BYTES_HELD_PER_BYTE_READ = 1.5
"""What a batch takes in memory, by its size: its blocks, and now and then one more than needed or a stripe that is
put together from parity."""
BYTES_HELD_PER_SEALED_BYTE = 2.5
"""Of sealed ones: what they hold, too."""
OPENED_ON_LOOP_BYTES = 16 * 1024
"""Opening so much takes less time than handing it to a thread."""
NEXT_BATCH_WAIT_SECONDS = 60.0
"""How long a download that has begun waits for its turn to go on before it is cut."""
KEEP_SECONDS = 10.0
"""Between two times that drives are told that a download has yet to read something: less than half of what they wait
before they reclaim what nobody names and nobody reads (`drives.trash`), so that one such call may be lost."""

KEPT_SECONDS = 3600.0
"""Of a client that takes nothing for so long what it has yet to read is not kept any more: deletes are to free room."""


class ShardReader:
    """Fetches stripes of one extent from whichever K holders answer."""

    def __init__(
        self,
        codec: Codec,
        sources: list[Source],
        stripe_size_bytes: int,
        clock: Clock,
        report_bad: Callable[[], None],
    ) -> None:
        self._codec = codec
        self._sources = sources
        self._stripe_size_bytes = stripe_size_bytes
        self._clock = clock
        self._report_bad = report_bad
        self._reported = False
        self._doubtful: set[int] = set()
        """Positions that failed or were slow during this read."""

    async def stripes(self, extent: Extent, first: int, count: int) -> list[list[memoryview]]:
        """`count` stripes, each as consecutive views.  Raises Unavailable."""
        out = []
        for stripe, blocks in enumerate(
            await self.blocks(extent.data_id, first, count, self._codec.data_shards), first
        ):
            size = min(self._stripe_size_bytes, extent.size_bytes - stripe * self._stripe_size_bytes)
            try:
                out.append(self._codec.join(blocks, size))
            except CodingError as error:
                raise Unavailable(f"stripe {stripe}: {error}") from error
        return out

    async def blocks(self, data_id: bytes, first: int, count: int, wanted: int) -> list[dict[int, Block]]:
        """Verified blocks of `wanted` different shards, or more, by shard index, of each of `count` stripes.

        Where rot leaves too few drives that have all of these stripes, each is read by itself, from whichever drives
        have it.  Raises Unavailable, Vanished.
        """
        errors: dict[int, DriveError] = {}
        for round_ in range(FETCH_ROUNDS):
            if round_:
                await self._clock.sleep(ROUND_PAUSE_SECONDS * round_)
            found = await self._round(data_id, first, count, wanted, errors)
            if len(found) >= wanted:
                return [{shard: column[offset] for shard, column in found.items()} for offset in range(count)]
            if count > 1 and any(isinstance(error, ShardCorrupt) for error in errors.values()):
                del found
                return [
                    blocks
                    for stripe in range(first, first + count)
                    for blocks in await self.blocks(data_id, stripe, 1, wanted)
                ]
            gone = [p for p, error in errors.items() if isinstance(error, ShardMissing)]
            if len(self._sources) - len(gone) < wanted:
                # No waiting brings them back: superseded since the look-up, or lost.
                raise Vanished(f"{len(gone)} of the drives have this version's shards no longer")
        told = "; ".join(f"{p}: {error}" for p, error in sorted(errors.items()))
        raise Unavailable(f"{len(found)} of the {wanted} shards needed can be read ({told})")

    async def keep(self, data_id: bytes) -> None:
        """Have all that may be asked for it, or for what is named beside it, keep it for a while.  Raises nothing."""
        drives = awake({source.position: source.drive for source in self._sources})
        await ask(drives, lambda _, drive: drive.read_blocks(data_id, 0, 0))

    async def _round(
        self, data_id: bytes, first: int, count: int, wanted: int, errors: dict[int, DriveError]
    ) -> dict[int, list[Block]]:
        up = awake({source.position: source.drive for source in self._sources})
        spare = [source for source in self._sources if source.position in up]
        spare.sort(key=lambda source: source.position in self._doubtful)
        found: dict[int, list[Block]] = {}
        race = Race(asyncio.get_running_loop())

        def start() -> None:
            source = spare.pop(0)
            race.start(source, source.drive.read_blocks(data_id, first, count))

        try:
            for _ in range(min(wanted, len(spare))):
                start()
            while race.goes_on and len(found) < wanted:
                ended = await race.next(HEDGE_SECONDS if spare else None)
                if ended is None:
                    self._doubtful.update(source.position for source in race.running)
                    start()
                    continue
                source, answer = ended
                blocks = checked(count, answer)
                if not isinstance(blocks, DriveError):
                    self._doubtful.discard(source.position)
                    found[source.shard_index] = blocks
                    continue
                errors[source.position] = blocks
                self._failed(source, blocks)
                if spare:
                    start()
        finally:
            race.end()
        return found

    def _failed(self, source: Source, error: DriveError) -> None:
        """What is found bad is reported once per read."""
        self._doubtful.add(source.position)
        bad = isinstance(error, ShardCorrupt) or (source.sure and isinstance(error, ShardMissing))
        if bad and not self._reported:
            self._reported = True
            self._report_bad()


class _Keeping:
    """Sees to it that what a download has not read yet stays where it is.

    A timer for most, which end before it does; a task for those that do not."""

    def __init__(self, shards: ShardReader) -> None:
        self._loop = asyncio.get_running_loop()
        self._data_id = b""
        """Of what is read next."""
        self._moved_seconds = 0.0
        self._shards = shards
        self._task: asyncio.Task[None] | None = None
        self._timer = self._loop.call_later(KEEP_SECONDS, self._begin)

    def moved(self, data_id: bytes) -> None:
        """The client has taken what came before."""
        self._data_id, self._moved_seconds = data_id, self._loop.time()

    def _begin(self) -> None:
        self._task = asyncio.ensure_future(self._keep())

    async def _keep(self) -> None:
        while self._loop.time() - self._moved_seconds < KEPT_SECONDS:
            # Side by side: a drive that hangs must not have the others wait for longer.
            await asyncio.gather(self._shards.keep(self._data_id), asyncio.sleep(KEEP_SECONDS))

    async def end(self) -> None:
        self._timer.cancel()
        await _ended(self._task)


async def _ended(task: asyncio.Task[Any] | None) -> None:
    if task is not None:
        let_go(task)
        await asyncio.wait([task])


def join_inline(codec: Codec, record: Record, holders: Mapping[int, Held]) -> list[memoryview]:
    """The bytes of an inline object.  Raises Unavailable."""
    blocks = {held.shard_index: held.inline for held in holders.values() if held.inline is not None}
    try:
        return codec.join(blocks, record.extents[0].size_bytes)
    except CodingError as error:
        raise Unavailable(str(error)) from error


def recut_inline(record: Record, holders: Mapping[int, Held]) -> list[bytes]:
    """The shards of an inline object, by index, cut from its bytes again; none where they are files.
    Raises Unavailable."""
    if not record.inline or record.geometry is None:
        return []
    code = codec(record.geometry.data_shards, record.geometry.parity_shards)
    return code.encode(b"".join(join_inline(code, record, holders)))


class ObjectReader:
    """One version being read (`objects.port.Reader`)."""

    def __init__(
        self,
        record: Record,
        shards: ShardReader | None,
        inline: list[memoryview],
        budget: Budget | None = None,
        executor: Executor | None = None,
    ) -> None:
        """`budget` is what is taken from while shards are read; needed only where there are `shards`.  What is
        sealed is opened on the `executor`."""
        self.record = record
        self._shards = shards
        self._inline = inline
        self._budget = budget
        self._executor = executor
        self._opener: Opener | None = None

    def unlock(self, seal: Seal) -> None:
        if self.record.size_bytes:
            self._opener = Opener(self.record, seal)

    async def chunks(self, start: int, length: int) -> AsyncIterator[bytes | memoryview]:
        if start < 0 or length < 0 or start + length > self.record.size_bytes:
            raise ValueError(f"range {start}+{length} outside of {self.record.size_bytes} bytes")
        if not length:
            return
        if self.record.sealing is not None and self._opener is None:
            raise Damaged("a sealed version was not unlocked")
        if self._shards is None:
            for view in await self._cut_inline(start, length):
                yield view
            return
        # Closed with this generator, so that a client that leaves leaves no read-ahead behind.
        async with aclosing(self._wanted(start, length)) as wanted:
            async for view in wanted:
                yield view

    async def _wanted(self, start: int, length: int) -> AsyncGenerator[memoryview, None]:
        """The bytes of a range.

        Raises Overloaded before the first, Unavailable where a later batch does not get its turn.
        """
        assert self._budget is not None
        assert self._shards is not None
        batches = _batches(self.record, self._opener, start, length, self._budget)
        ahead: asyncio.Task[list[list[memoryview]]] | None = None
        keeping: _Keeping | None = None
        with self._budget.hold() as hold:
            try:
                upcoming = next(batches, None)
                if upcoming is not None:
                    await hold.take(upcoming.held_bytes)
                while upcoming is not None:
                    batch = upcoming
                    stripes = await (ahead or self._read(batch))
                    ahead = None
                    upcoming = next(batches, None)
                    if upcoming is not None:
                        data_id = self.record.extents[upcoming.extent].data_id
                        keeping = keeping or _Keeping(self._shards)
                        keeping.moved(data_id)
                    elif keeping is not None:
                        await keeping.end()
                    if upcoming is not None and hold.try_take(upcoming.held_bytes):
                        ahead = asyncio.ensure_future(self._read(upcoming))
                    for stripe in stripes:
                        for view in stripe:
                            yield view
                        hold.progressed()
                    del stripes
                    hold.give(batch.held_bytes)
                    if upcoming is not None and ahead is None:
                        await _take_turn(hold, upcoming.held_bytes)
            finally:
                try:
                    await _ended(ahead)
                finally:
                    if keeping is not None:
                        await keeping.end()

    async def _read(self, batch: Batch) -> list[list[memoryview]]:
        """What is wanted of each stripe of a batch."""
        assert self._shards is not None
        extent = self.record.extents[batch.extent]
        stripes = await self._shards.stripes(extent, batch.first, len(batch.slices))
        if self._opener is None:
            return [sliced(stripe, *piece) for stripe, piece in zip(stripes, batch.slices, strict=True)]
        return await self._opened(self._opener, batch, stripes)

    async def _cut_inline(self, start: int, length: int) -> list[memoryview]:
        if self._opener is None:
            return sliced(self._inline, start, length)
        return (await self._opened(self._opener, Batch(0, 0, [(start, length)], 0), [self._inline]))[0]

    async def _opened(self, opener: Opener, batch: Batch, stripes: list[list[memoryview]]) -> list[list[memoryview]]:
        if sum(take for _, take in batch.slices) <= OPENED_ON_LOOP_BYTES:
            return _open(opener, batch, stripes)
        return await asyncio.get_running_loop().run_in_executor(self._executor, _open, opener, batch, stripes)


def _open(opener: Opener, batch: Batch, stripes: list[list[memoryview]]) -> list[list[memoryview]]:
    return [
        opener.open(batch.extent, batch.first + offset, stripes[offset], skip, take)
        for offset, (skip, take) in enumerate(batch.slices)
    ]


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive stripes of one extent, with (skip, take) in each."""

    extent: int
    """Its index."""
    first: int
    slices: list[tuple[int, int]]
    """Of what the stripes hold, if they are sealed."""
    held_bytes: int
    """What reading it takes of the budget."""


def _batches(record: Record, opener: Opener | None, start: int, length: int, budget: Budget) -> Iterator[Batch]:
    """The stripes that have bytes of a range.  How many go together is decided when a batch is asked for."""
    assert record.geometry is not None
    stripe_size = opener.stripe_payload_bytes if opener else record.geometry.stripe_size_bytes
    sizes = opener.sizes if opener else [extent.size_bytes for extent in record.extents]
    held_per_byte = BYTES_HELD_PER_SEALED_BYTE if opener else BYTES_HELD_PER_BYTE_READ
    offset = 0
    end = start + length
    large_bytes = int(LARGE_BATCH_STRIPES * stripe_size * held_per_byte)
    begun = False

    def most() -> int:
        has_room = not budget.waiting and budget.used + large_bytes <= budget.capacity // 2
        return LARGE_BATCH_STRIPES if begun and has_room else BATCH_STRIPES

    def batch_of(extent: int, first: int, slices: list[tuple[int, int]]) -> Batch:
        size = min(len(slices) * stripe_size, sizes[extent] - first * stripe_size)
        return Batch(extent, first, slices, int(size * held_per_byte))

    for extent, size_bytes in enumerate(sizes):
        low = max(start - offset, 0)
        high = min(end - offset, size_bytes)
        offset += size_bytes
        if low >= high:
            continue
        stripe = low // stripe_size
        slices: list[tuple[int, int]] = []
        first, wanted = stripe, 0
        while stripe * stripe_size < high:
            wanted = wanted or most()
            base = stripe * stripe_size
            skip = max(low - base, 0)
            slices.append((skip, min(high - base, stripe_size) - skip))
            stripe += 1
            if len(slices) == wanted:
                yield batch_of(extent, first, slices)
                slices, first = [], stripe
                begun, wanted = True, 0
        if slices:
            yield batch_of(extent, first, slices)


async def _take_turn(hold: Hold, amount: int) -> None:
    """For the next batch of a download that has begun.  Raises Unavailable."""
    try:
        await hold.take(amount, NEXT_BATCH_WAIT_SECONDS)
    except Overloaded as error:
        raise Unavailable(str(error)) from error
