"""Bodies of writes: what the object layer pulls, from the wire (`WireBody`) or from another object (`CopyBody`).

Both renew the bucket's lease when the last byte has come and confirm it in `finish`, which the object layer
calls right before it commits (see `buckets_cache`).  Digests run where the object layer runs them: on worker
threads, stripe by stripe.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from holdfast_server.api.buckets_cache import WriteLease
from holdfast_server.api.etags import BodyEtag, etag_of
from holdfast_server.api.services import IncomingBody
from holdfast_server.api.stored_headers import TYPE
from holdfast_server.objects.port import Attributes, Digest, Filler, Reader
from holdfast_server.s3.checksums import FULL_OBJECT, Algorithm, encode_checksum
from holdfast_server.s3.payload import Payload
from holdfast_server.sealing.envelope import Seal

THREADED_DECODE_SIZE_BYTES = 16 * 1024
"""Signed chunks are hashed while they are decoded; pieces from this size on are worth a thread."""
MAX_VIEWS = 16
"""Of one piece of the wire; where small chunks make more of them, they are copied: each view takes more than that."""


class WireBody:
    """The payload of a PutObject or UploadPart.

    `algorithm`, if given, is computed though the client sent no checksum of it (parts of an upload that was
    begun with one).  Where the payload is not hashed with MD5 its ETag is as the bucket has it (`etags`).
    """

    def __init__(
        self,
        payload: Payload,
        incoming: IncomingBody,
        lease: WriteLease,
        headers: Mapping[str, str],
        algorithm: Algorithm | None = None,
        seal: Seal | None = None,
    ) -> None:
        self._payload = payload
        self._incoming = incoming
        self._lease = lease
        self._headers = dict(headers)
        self._algorithm = algorithm
        self._seal = seal
        self._extra = algorithm.new() if algorithm is not None else None
        self.size_bytes: int | None = payload.size_bytes
        self._etag = None if payload.has_md5 else BodyEtag(lease.bucket)
        added = [digest for digest in (self._extra, self._etag) if digest is not None]
        self.digests: Sequence[Digest] = (*payload.digests, *added)

    @property
    def filler(self) -> Filler | None:
        return self if self._payload.is_plain else None

    async def fill(self, targets: Sequence[memoryview], go_on: Callable[[], bool]) -> int:
        """See `Filler`."""
        full = await self._incoming.fill(targets, go_on)
        if self._payload.placed(sum(map(len, targets[:full]))):
            await self._lease.renew()
        return full

    async def chunks(self) -> AsyncIterator[bytes | memoryview]:
        async for piece in self._incoming.pieces():
            if self._payload.hashes_in_decode and len(piece) >= THREADED_DECODE_SIZE_BYTES:
                views = await asyncio.to_thread(self._payload.decode, piece)
            else:
                views = self._payload.decode(piece)
            if len(views) > MAX_VIEWS:
                views = [memoryview(b"".join(views))]
            for view in views:
                yield view
        await self._lease.renew()

    def finish(self) -> Attributes:
        """Raises S3Error where anything promised about the payload does not hold."""
        result = self._payload.finish()
        checksums: dict[str, str] = {}
        if result.checksum_algorithm:
            checksums = {result.checksum_algorithm: result.checksum, TYPE: FULL_OBJECT}
        elif self._algorithm is not None and self._extra is not None:
            checksums = {self._algorithm.name: encode_checksum(self._extra.digest()), TYPE: FULL_OBJECT}
        self._lease.confirm()
        etag = etag_of(result.md5_hex, self._seal) if self._etag is None else self._etag.finish(self._seal)
        kept = self._lease.kept(self._headers)
        return Attributes(etag=etag, headers=kept, checksums=checksums, versioning=self._lease.keeps)


class CopyBody:
    """A range of an object that becomes another object, or a part."""

    def __init__(
        self,
        reader: Reader,
        start: int,
        size_bytes: int,
        lease: WriteLease,
        headers: Mapping[str, str],
        algorithm: Algorithm | None,
        seal: Seal | None = None,
    ) -> None:
        self._seal = seal
        self.filler: Filler | None = None
        self._reader = reader
        self._start = start
        self._lease = lease
        self._headers = dict(headers)
        self._algorithm = algorithm
        self._etag = BodyEtag(lease.bucket)
        self._checksum = algorithm.new() if algorithm is not None else None
        self._size_bytes = size_bytes
        self.size_bytes: int | None = size_bytes
        self.digests: Sequence[Digest] = (self._etag, *([self._checksum] if self._checksum is not None else []))

    async def chunks(self) -> AsyncIterator[bytes | memoryview]:
        if self._size_bytes:
            async for chunk in self._reader.chunks(self._start, self._size_bytes):
                yield chunk
        await self._lease.renew()

    def finish(self) -> Attributes:
        checksums: dict[str, str] = {}
        if self._algorithm is not None and self._checksum is not None:
            checksums = {self._algorithm.name: encode_checksum(self._checksum.digest()), TYPE: FULL_OBJECT}
        self._lease.confirm()
        etag, kept = self._etag.finish(self._seal), self._lease.kept(self._headers)
        return Attributes(etag=etag, headers=kept, checksums=checksums, versioning=self._lease.keeps)
