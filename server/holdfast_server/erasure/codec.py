"""One stripe ↔ N shard blocks, any K of which suffice (Reed–Solomon with a Cauchy matrix, by ISA-L).

Cauchy and never Vandermonde: at (6,6) eight of ISA-L's 924 Vandermonde erasure patterns cannot be decoded,
of Cauchy's none.  A block is liberasurecode's fragment: an 80-byte header, then the payload; the first K
payloads laid end to end are the stripe itself, so a read that has all data shards joins nothing and copies
nothing, and one that lacks some computes those, where they shall lie, and copies nothing either.  A set of one drive
has no parity: its block is the stripe.

A `Layout` is the memory of blocks: bytes are received there, or copied once from the pieces they came in, and the
blocks of one shard lie one after the other, so that several stripes go to a drive in one piece.

Not here: checksums (the drives hash every block), placement, I/O.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache

from pyeclib.ec_iface import ECDriver, ECDriverError

from holdfast_server.erasure.isal import ShardKernel
from holdfast_server.memory.buffers import PAGE_SIZE_BYTES, address_of, uncleared_pages

CAUCHY = "isa_l_rs_cauchy"
PLAIN = "plain"
FRAGMENT_HEADER_SIZE_BYTES = 80
RECOVERED_IN_PLACE_FROM_BYTES = 128 << 10
"""Smaller stripes are decoded by the library, whose copies cost less than finding the places in memory."""
_PAYLOAD_SIZE = struct.Struct("<I")
_STRIPE_SIZE = struct.Struct("<Q")
_METADATA_CHECKSUM = struct.Struct("<I")
_SHARD_INDEX = struct.Struct("<I")
_SHARD_INDEX_AT, _PAYLOAD_SIZE_AT, _STRIPE_SIZE_AT, _METADATA_SIZE_BYTES, _METADATA_CHECKSUM_AT = 0, 4, 12, 59, 67

Buffer = bytes | bytearray | memoryview
Block = bytes | memoryview


class CodingError(Exception):
    """Too few shards, or shards that do not belong together."""


class Codec:
    """Shards of one geometry.  Thread-safe."""

    def __init__(self, data_shards: int, parity_shards: int) -> None:
        self.data_shards = data_shards
        self.parity_shards = parity_shards
        self.name = CAUCHY if parity_shards else PLAIN
        if not parity_shards and data_shards != 1:
            raise CodingError(f"{data_shards} data shards without parity")
        self._driver = ECDriver(k=data_shards, m=parity_shards, ec_type=CAUCHY) if parity_shards else None
        self.kernel = ShardKernel(data_shards, parity_shards) if parity_shards else None
        self._headers: list[bytes] = []
        if self._driver is not None:
            # What does not depend on the stripe: which library of which version made the block.
            self._headers = [block[:FRAGMENT_HEADER_SIZE_BYTES] for block in self._driver.encode(b"\0")]
            if self.headers(1) != self._headers:
                raise CodingError("the erasure coding library writes headers of another form")

    @property
    def shards(self) -> int:
        return self.data_shards + self.parity_shards

    def block_size_bytes(self, stripe_size_bytes: int) -> int:
        """Size of each of the N blocks of a stripe."""
        if self._driver is None:
            return stripe_size_bytes
        return FRAGMENT_HEADER_SIZE_BYTES + -(-stripe_size_bytes // self.data_shards)

    def encode(self, stripe: bytes) -> list[bytes]:
        """The N blocks of a small stripe of at least one byte, data shards first: a `Layout` costs more than copies up
        to some 100 KiB."""
        if self._driver is None:
            return [stripe]
        blocks: list[bytes] = self._driver.encode(stripe)
        return blocks

    def headers(self, stripe_size_bytes: int) -> list[bytes]:
        """Of the N blocks of a stripe; none without parity."""
        payload = _PAYLOAD_SIZE.pack(-(-stripe_size_bytes // self.data_shards))
        headers = []
        for template in self._headers:
            header = bytearray(template)
            header[_PAYLOAD_SIZE_AT : _PAYLOAD_SIZE_AT + len(payload)] = payload
            _STRIPE_SIZE.pack_into(header, _STRIPE_SIZE_AT, stripe_size_bytes)
            _METADATA_CHECKSUM.pack_into(header, _METADATA_CHECKSUM_AT, zlib.crc32(header[:_METADATA_SIZE_BYTES]))
            headers.append(bytes(header))
        return headers

    def join(self, blocks: Mapping[int, Block], stripe_size_bytes: int) -> list[memoryview]:
        """The stripe, as consecutive views, from any K blocks by shard index.  Raises CodingError."""
        if len(blocks) < self.data_shards:
            raise CodingError(f"{len(blocks)} shards of the {self.data_shards} needed")
        if self._driver is None:
            if len(blocks[0]) != stripe_size_bytes:
                raise CodingError(f"the block has {len(blocks[0])} bytes instead of {stripe_size_bytes}")
            return [memoryview(blocks[0])]
        lost = [index for index in range(self.data_shards) if index not in blocks]
        if lost and stripe_size_bytes < RECOVERED_IN_PLACE_FROM_BYTES:
            return [memoryview(self._decoded(blocks, stripe_size_bytes))]
        if lost:
            blocks = {**blocks, **self._recovered(blocks, lost, stripe_size_bytes)}
        return self._trimmed(blocks, stripe_size_bytes)

    def _decoded(self, blocks: Mapping[int, Block], stripe_size_bytes: int) -> bytes:
        assert self._driver is not None
        used = sorted(blocks)[: self.data_shards]
        size = self.block_size_bytes(stripe_size_bytes)
        for index in used:
            _check_header(blocks[index], index, size, stripe_size_bytes)
        try:
            stripe: bytes = self._driver.decode([bytes(blocks[index]) for index in used])
        except ECDriverError as error:
            raise CodingError(f"cannot decode: {error}") from error
        if len(stripe) != stripe_size_bytes:
            raise CodingError(f"decoded {len(stripe)} bytes of {stripe_size_bytes}")
        return stripe

    def rebuild(self, blocks: Mapping[int, Block], missing: list[int]) -> dict[int, Block]:
        """The blocks of the missing shard indexes, from any K others.  Raises CodingError."""
        if len(blocks) < self.data_shards:
            raise CodingError(f"{len(blocks)} shards of the {self.data_shards} needed")
        if self.kernel is None:
            return dict.fromkeys(missing, blocks[0])
        some = next(iter(blocks.values()))
        if len(some) < FRAGMENT_HEADER_SIZE_BYTES:
            raise CodingError(f"a block of {len(some)} bytes")
        (stripe_size_bytes,) = _STRIPE_SIZE.unpack_from(some, _STRIPE_SIZE_AT)
        rebuilt = self._recovered(blocks, missing, stripe_size_bytes)
        headers = self.headers(stripe_size_bytes)
        for shard, block in rebuilt.items():
            block[:FRAGMENT_HEADER_SIZE_BYTES] = headers[shard]
        return dict(rebuilt)

    def _recovered(self, blocks: Mapping[int, Block], lost: list[int], stripe_size_bytes: int) -> dict[int, memoryview]:
        """Blocks of shards that are not at hand, from K that are; what their headers shall be is not set."""
        assert self.kernel is not None
        used = sorted(blocks)[: self.data_shards]
        if used[-1] >= self.shards:
            raise CodingError(f"there is no shard {used[-1]}")
        size = self.block_size_bytes(stripe_size_bytes)
        known = [_writable(blocks[index]) for index in used]
        for index, block in zip(used, known, strict=True):
            _check_header(block, index, size, stripe_size_bytes)
        # One run of memory for each: whoever is given one of them shall not hold the others.
        header_size = FRAGMENT_HEADER_SIZE_BYTES
        made = [uncleared_pages(size - header_size, header_size) for _ in lost]
        self.kernel.recover(
            size - header_size,
            used,
            [address_of(block) + header_size for block in known],
            lost,
            [address_of(block) + header_size for block in made],
        )
        return dict(zip(lost, made, strict=True))

    def _trimmed(self, blocks: Mapping[int, Block], stripe_size_bytes: int) -> list[memoryview]:
        views = []
        left = stripe_size_bytes
        for index in range(self.data_shards):
            view = memoryview(blocks[index])[FRAGMENT_HEADER_SIZE_BYTES:][:left]
            left -= len(view)
            if len(view):
                views.append(view)
        if left:
            raise CodingError(f"shards are {left} bytes short of the stripe")
        return views


class Layout:
    """Consecutive stripes as blocks: shard by shard, in each the blocks of the stripes in order.  They begin in memory
    where they begin in a page of the shard's file, so that they can go there directly.  Whoever has the data puts it
    there, whoever digests it finds it there."""

    def __init__(self, codec: Codec, sizes: Sequence[int], before_bytes: int = 0) -> None:
        """`sizes` of the stripes, whose bytes are not there yet; `before_bytes` of each shard's file come before."""
        self._codec = codec
        self._sizes = list(sizes)
        blocks = [codec.block_size_bytes(size) for size in self._sizes]
        lead_bytes = before_bytes % PAGE_SIZE_BYTES
        self._starts = [lead_bytes + sum(blocks[:index]) for index in range(len(blocks))]
        self._blocks = blocks
        self._stride = -(-(lead_bytes + sum(blocks)) // PAGE_SIZE_BYTES) * PAGE_SIZE_BYTES
        self._memory = uncleared_pages(self._stride * codec.shards)
        self._header_size_bytes = FRAGMENT_HEADER_SIZE_BYTES if codec.parity_shards else 0

    def stripe(self, index: int) -> list[memoryview]:
        """Where the bytes of a stripe are, or shall be, in order."""
        return self._payloads(index)

    def shorten(self, stripes: int) -> None:
        """There are only so many of them."""
        del self._sizes[stripes:]
        del self._blocks[stripes:]
        del self._starts[stripes:]

    @property
    def stripes(self) -> int:
        """How many there are."""
        return len(self._sizes)

    def blocks(self, index: int) -> list[memoryview]:
        """Those of a stripe whose bytes are there, all N, with their headers; parity's are not there yet."""
        self._clear_rest(index)
        blocks = [self._block(shard, index) for shard in range(self._codec.shards)]
        for block, header in zip(blocks, self._codec.headers(self._sizes[index]), strict=False):
            block[: len(header)] = header
        return blocks

    def add_parity(self, index: int) -> None:
        """To the blocks of a stripe: once is enough."""
        kernel = self._codec.kernel
        if kernel is None:
            return
        first = address_of(self._memory) + self._starts[index] + self._header_size_bytes
        places = [first + shard * self._stride for shard in range(self._codec.shards)]
        kernel.encode(self._blocks[index] - self._header_size_bytes, places)

    def _block(self, shard: int, index: int) -> memoryview:
        at = shard * self._stride + self._starts[index]
        return self._memory[at : at + self._blocks[index]]

    def _payloads(self, index: int) -> list[memoryview]:
        """Of the data shards, without what fills the last of them up."""
        views = []
        left = self._sizes[index]
        for shard in range(self._codec.data_shards):
            view = self._block(shard, index)[self._header_size_bytes :][:left]
            left -= len(view)
            if len(view):
                views.append(view)
        return views

    def fill(self, index: int, pieces: Sequence[Buffer]) -> None:
        """Copy a stripe to its place."""
        targets = iter(self._payloads(index))
        target = next(targets)
        for piece in pieces:
            view = memoryview(piece)
            while len(view):
                if not len(target):
                    target = next(targets)
                count = min(len(view), len(target))
                target[:count] = view[:count]
                target, view = target[count:], view[count:]

    def _clear_rest(self, index: int) -> None:
        """What fills the data shards up to equal size counts as zeros."""
        left = self._sizes[index]
        if left == self._codec.data_shards * (self._blocks[index] - self._header_size_bytes):
            return
        for shard in range(self._codec.data_shards):
            payload = self._block(shard, index)[self._header_size_bytes :]
            used = min(left, len(payload))
            left -= used
            payload[used:] = bytes(len(payload) - used)


def _writable(block: Block) -> bytearray | memoryview:
    """Where it is in memory can be told only of what could be written to; what comes from drives can be."""
    return block if isinstance(block, memoryview) and not block.readonly else bytearray(block)


def _check_header(block: Buffer, index: int, size_bytes: int, stripe_size_bytes: int) -> None:
    """Raises CodingError for a block that is not what it is taken for."""
    if len(block) != size_bytes:
        raise CodingError(f"shard {index} has a block of {len(block)} bytes instead of {size_bytes}")
    (found,) = _SHARD_INDEX.unpack_from(block, _SHARD_INDEX_AT)
    (stripe,) = _STRIPE_SIZE.unpack_from(block, _STRIPE_SIZE_AT)
    if (found, stripe) != (index, stripe_size_bytes):
        raise CodingError(
            f"a block of shard {found} and a stripe of {stripe} bytes, not of {index} and {stripe_size_bytes}"
        )


@lru_cache(maxsize=64)
def codec(data_shards: int, parity_shards: int) -> Codec:
    """The shared codec of a geometry."""
    return Codec(data_shards, parity_shards)
