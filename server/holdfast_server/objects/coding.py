"""Stripes of one body become blocks of shards: digested, sealed, coded and hashed, in order, on worker threads.

A stripe that is received where it will be coded (`stripes`) is worked on as soon as it has come, while the next one
comes: when the last byte of a body is there, little more than its last stripe is left to do.  All that is done with a
stripe is done while it is in the processor's cache; what comes from memory again takes four times as long to hash.

Digests and seals are of bytes in order, so there is one thread at a time for a body; and MD5 is half of what a body
takes.  A body that is streamed is therefore digested on threads of its own (`digesting`), behind the coding: its blocks
go to the drives, and are written and made durable there, while its digests are still on their way.  A body that is sent
whole is digested along with its coding, as two threads cost more there than they save.  What fails on a thread is
raised to who waits for it, and nothing is done after it.

Not here: receiving, room, lanes (`writing`); the code itself (`erasure.codec`).
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import NamedTuple

import xxhash

from holdfast_server.drives.port import ComputedHashes
from holdfast_server.erasure.codec import Codec, Layout
from holdfast_server.objects.port import Digest
from holdfast_server.objects.strand import Strand, settle
from holdfast_server.objects.stripes import Batch
from holdfast_server.sealing.chunks import ChunkSealer

CODING_THREADS = 4
DIGESTING_THREADS = 4
DIGESTING_NICE = 5
ON_LOOP_LIMIT_BYTES = 16 * 1024
"""Below this, coding takes less time than handing it to a thread."""


def coding_threads() -> Executor:
    return _begun(CODING_THREADS, "coding", lambda: None)


def digesting_threads() -> Executor:
    """Threads that give way to all others of the pod: what waits for a processor then is digests, and not the messages
    and writes that keep peers and disks busy meanwhile."""
    nice = os.getpriority(os.PRIO_PROCESS, 0) + DIGESTING_NICE

    def give_way() -> None:
        with suppress(OSError):  # not everywhere has a thread a priority of its own
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)

    return _begun(DIGESTING_THREADS, "digesting", give_way)


def _begun(count: int, name: str, initializer: Callable[[], None]) -> Executor:
    """Now, all of them: later there may be no more to be had, and jobs are given to the pool by its own threads.  Where
    fewer are to be had, those do the work of all: a pool that may have more asks for one whenever all are busy, and
    then refuses the job."""
    threads = ThreadPoolExecutor(count, name, initializer)
    all_there = threading.Barrier(count)
    for begun in range(count):
        try:
            threads.submit(all_there.wait)
        except RuntimeError:
            all_there.abort()
            if begun:
                threads.shutdown()
                return _begun(begun, name, initializer)
            break
    return threads


class Column(NamedTuple):
    """Consecutive blocks of one shard."""

    blocks: list[memoryview]
    hashes: ComputedHashes


class Coder:
    """Codes one body, batch by batch: `came` for each stripe that came in place, then `finish`."""

    def __init__(
        self,
        codec: Codec,
        digests: Sequence[Digest],
        executor: Executor,
        sealer: ChunkSealer | None = None,
        digesting: Executor | None = None,
    ) -> None:
        """With `digesting` there is no waiting for digests before `digested`."""
        self._codec = codec
        self._digests = digests
        self._executor = executor
        self._sealer = sealer
        self._strand = Strand(executor)
        self._digesting = Strand(digesting) if digesting is not None and digests else None
        self._digesting_error: BaseException | None = None
        # All below is the strand's.
        self._before_bytes = 0
        """Of each shard, of the stripes that were laid out here."""
        self._blocks: list[list[memoryview]] = [[] for _ in range(codec.shards)]
        self._hashes: list[list[bytes]] = [[] for _ in range(codec.shards)]
        """Of this batch, by shard."""
        self._error: BaseException | None = None

    async def encode(self, chunks: list[bytes | memoryview], size_bytes: int) -> list[bytes]:
        """The blocks of a body that is one stripe, which need no hashes."""
        if size_bytes <= ON_LOOP_LIMIT_BYTES:
            return self._encoded(chunks)
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._encoded, chunks)

    def came(self, layout: Layout, index: int) -> None:
        """The next stripe of a batch is in its place."""
        self._strand.add(partial(self._work, partial(self._code, layout, index, True)))

    def finish(self, batch: Batch, last: bool) -> asyncio.Future[list[Column]]:
        """The batch is there; `last`: so is the body.  What comes of it, by shard; raises what failed on the thread."""
        columns: asyncio.Future[list[Column]] = asyncio.get_running_loop().create_future()
        if batch.pieces:
            self._strand.add(partial(self._work, partial(self._code_pieces, batch.pieces, last)))
        self._strand.add(partial(self._hand_over, columns))
        return columns

    def digested(self) -> asyncio.Future[None]:
        """When all that is coded by now has been digested; raises what failed on the thread."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._digesting is None:
            done.set_result(None)
        else:
            self._digesting.add(lambda: settle(done, None, self._digesting_error))
        return done

    async def stop(self) -> None:
        """Nothing is begun any more, and nobody has the digests in hand after this."""
        await self._strand.stop()
        if self._digesting is not None:
            await self._digesting.stop()

    def _work(self, job: Callable[[], None]) -> None:
        if self._error is None:
            try:
                job()
            except BaseException as error:
                self._error = error

    def _hand_over(self, columns: asyncio.Future[list[Column]]) -> None:
        made = [
            Column(blocks, ComputedHashes(hashes)) for blocks, hashes in zip(self._blocks, self._hashes, strict=True)
        ]
        settle(columns, made, self._error)
        self._blocks = [[] for _ in range(self._codec.shards)]
        self._hashes = [[] for _ in range(self._codec.shards)]

    def _code(self, layout: Layout, index: int, to_digest: bool) -> None:
        data = layout.stripe(index)
        digests: Sequence[Digest] = ()
        if to_digest and self._digesting is None:
            digests = self._digests
        elif to_digest:
            self._digest_apart(data)
        for shard, block in enumerate(layout.blocks(index)):
            if shard < len(data):
                for digest in digests:
                    digest.update(data[shard])
            elif shard == self._codec.data_shards:
                layout.add_parity(index)
            self._blocks[shard].append(block)
            self._hashes[shard].append(hash_block(block))

    def _code_pieces(self, pieces: list[list[bytes | memoryview]], last: bool) -> None:
        """Stripes that came in pieces are digested, sealed if they are to be, and put into their place here."""
        if self._sealer is not None:
            end = len(pieces) - 1
            pieces = [[self._digested_and_sealed(some, last and index == end)] for index, some in enumerate(pieces)]
        sizes = [sum(map(len, some)) for some in pieces]
        layout = Layout(self._codec, sizes, self._before_bytes)
        self._before_bytes += sum(map(self._codec.block_size_bytes, sizes))
        for index, some in enumerate(pieces):
            layout.fill(index, some)
            self._code(layout, index, self._sealer is None)

    def _digested_and_sealed(self, chunks: list[bytes | memoryview], last: bool) -> bytes:
        assert self._sealer is not None
        stripe = b"".join(chunks)
        if self._digesting is None:
            self._digest([stripe])
        else:
            self._digest_apart([stripe])
        return self._sealer.seal(stripe, last)

    def _encoded(self, chunks: list[bytes | memoryview]) -> list[bytes]:
        stripe = b"".join(chunks)
        self._digest([stripe])
        if self._sealer is not None:
            stripe = self._sealer.seal(stripe, True)
        return self._codec.encode(stripe) if stripe else []

    def _digest(self, data: Sequence[memoryview | bytes]) -> None:
        for view in data:
            for digest in self._digests:
                digest.update(view)

    def _digest_apart(self, data: Sequence[memoryview | bytes]) -> None:
        assert self._digesting is not None
        self._digesting.add(partial(self._try_to_digest, data))

    def _try_to_digest(self, data: Sequence[memoryview | bytes]) -> None:
        if self._digesting_error is None:
            try:
                self._digest(data)
            except BaseException as error:
                self._digesting_error = error


def hash_block(block: bytes | memoryview) -> bytes:
    digest: bytes = xxhash.xxh3_128_digest(block)
    return digest


def hash_blocks(blocks: Iterable[bytes | memoryview]) -> ComputedHashes:
    return ComputedHashes(map(hash_block, blocks))
