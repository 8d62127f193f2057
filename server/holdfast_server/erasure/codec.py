"""One stripe ↔ N shard blocks, any K of which suffice (Reed–Solomon with a Cauchy matrix, by ISA-L).

Cauchy and never Vandermonde: at (6,6) eight of ISA-L's 924 Vandermonde erasure patterns cannot be decoded,
of Cauchy's none.  A block is liberasurecode's fragment: an 80-byte header, then the payload; the first K
payloads laid end to end are the stripe itself, so a read that has all data shards joins nothing and copies
nothing.  A set of one drive has no parity: its block is the stripe.

Not here: checksums (the drives hash every block), placement, I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from pyeclib.ec_iface import ECDriver, ECDriverError

CAUCHY = "isa_l_rs_cauchy"
PLAIN = "plain"
FRAGMENT_HEADER_SIZE_BYTES = 80


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

    @property
    def shards(self) -> int:
        return self.data_shards + self.parity_shards

    def block_size_bytes(self, stripe_size_bytes: int) -> int:
        """Size of each of the N blocks of a stripe."""
        if self._driver is None:
            return stripe_size_bytes
        return FRAGMENT_HEADER_SIZE_BYTES + -(-stripe_size_bytes // self.data_shards)

    def encode(self, stripe: bytes) -> list[bytes]:
        """The N blocks of a stripe of at least one byte, data shards first."""
        if self._driver is None:
            return [stripe]
        blocks: list[bytes] = self._driver.encode(stripe)
        return blocks

    def join(self, blocks: Mapping[int, bytes | memoryview], stripe_size_bytes: int) -> list[memoryview]:
        """The stripe, as consecutive views, from any K blocks by shard index.  Raises CodingError."""
        if len(blocks) < self.data_shards:
            raise CodingError(f"{len(blocks)} shards of the {self.data_shards} needed")
        if self._driver is None:
            if len(blocks[0]) != stripe_size_bytes:
                raise CodingError(f"the block has {len(blocks[0])} bytes instead of {stripe_size_bytes}")
            return [memoryview(blocks[0])]
        if all(index in blocks for index in range(self.data_shards)):
            return self._trimmed(blocks, stripe_size_bytes)
        try:
            stripe = self._driver.decode([bytes(block) for block in blocks.values()])
        except ECDriverError as error:
            raise CodingError(f"cannot decode: {error}") from error
        if len(stripe) != stripe_size_bytes:
            raise CodingError(f"decoded {len(stripe)} bytes of {stripe_size_bytes}")
        return [memoryview(stripe)]

    def rebuild(self, blocks: Mapping[int, bytes | memoryview], missing: list[int]) -> dict[int, bytes]:
        """The blocks of the missing shard indexes, from any K others.  Raises CodingError."""
        if len(blocks) < self.data_shards:
            raise CodingError(f"{len(blocks)} shards of the {self.data_shards} needed")
        if self._driver is None:
            return dict.fromkeys(missing, bytes(blocks[0]))
        try:
            rebuilt = self._driver.reconstruct([bytes(block) for block in blocks.values()], missing)
        except ECDriverError as error:
            raise CodingError(f"cannot rebuild: {error}") from error
        return dict(zip(missing, rebuilt, strict=True))

    def _trimmed(self, blocks: Mapping[int, bytes | memoryview], stripe_size_bytes: int) -> list[memoryview]:
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


@lru_cache(maxsize=64)
def codec(data_shards: int, parity_shards: int) -> Codec:
    """The shared codec of a geometry."""
    return Codec(data_shards, parity_shards)
