"""Sealed versions as the object layer has them: which key opens which extent, and the opening of ranges.

An object that was written at once has one extent, sealed under a key of the object's that is used for nothing else.  In
one made of parts, each extent is sealed under the number of its part and the id of its shards, so that a part that was
sent twice, or stands in another's place, has another key.  Pure.

Not here: how chunks are sealed (`sealing.chunks`), who has the key (`api`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from holdfast_server.objects.port import Damaged
from holdfast_server.objects.record import Record
from holdfast_server.sealing.chunks import CHUNK_SIZE_BYTES, ChunkOpener, SealBroken, plain_size, stripe_payload
from holdfast_server.sealing.envelope import Seal, check_ties, extent_key


def key_of_extent(seal: Seal, data_id: bytes, number: int) -> bytes:
    """`number`: of the part; 0 of what is none."""
    return extent_key(seal.key, data_id, number) if number else extent_key(seal.key, b"")


def ties_of(parts: Iterable[tuple[int, Record]]) -> Iterator[tuple[int, int, bytes]]:
    """What ties the parts of an object, by their numbers, together (`envelope.tie_parts`)."""
    for number, part in parts:
        size_bytes = part.extents[0].size_bytes if part.extents else 0
        yield number, size_bytes, part.extents[0].data_id if part.extents else b""


class Opener:
    """Opens the stripes of one sealed version."""

    def __init__(self, record: Record, seal: Seal) -> None:
        """Raises Damaged where its record is not the one it was written or completed with."""
        assert record.geometry is not None
        numbers = [part.number for part in record.parts] or [0]
        sizes = [plain_size(extent.size_bytes) for extent in record.extents]
        if len(numbers) != len(record.extents) or sum(sizes) != record.size_bytes:
            raise Damaged("the sizes of a sealed version do not add up")
        if record.parts:
            tied = zip(numbers, record.extents, strict=True)
            try:
                check_ties(seal, ((number, extent.size_bytes, extent.data_id) for number, extent in tied))
            except SealBroken as error:
                raise Damaged(str(error)) from error
        self.stripe_payload_bytes = stripe_payload(record.geometry.stripe_size_bytes)
        self.sizes = sizes
        """Of what each extent holds."""
        self._chunks_per_stripe = record.geometry.stripe_size_bytes // CHUNK_SIZE_BYTES
        self._seal = seal
        self._record = record
        self._numbers = numbers
        self._current: tuple[int, ChunkOpener] | None = None

    def open(self, extent: int, stripe: int, views: list[memoryview], skip: int, take: int) -> list[memoryview]:
        """`take` bytes after `skip` of what a stripe of an extent, both by their index, holds.  Raises Damaged.

        For one thread at a time.
        """
        try:
            return self._opener(extent).open(views, stripe * self._chunks_per_stripe, skip, take)
        except SealBroken as error:
            raise Damaged(f"part {self._numbers[extent]}, stripe {stripe}: {error}") from error

    def _opener(self, index: int) -> ChunkOpener:
        if self._current is None or self._current[0] != index:
            extent = self._record.extents[index]
            key = key_of_extent(self._seal, extent.data_id, self._numbers[index])
            self._current = index, ChunkOpener(key, extent.size_bytes)
        return self._current[1]
