"""What becomes the ETag of a body: its MD5, or, where its bucket says so, what costs less and looks like none.

MD5 is one dependent chain that no core does faster than some 0.5 GB/s.  A bucket with opaque ETags gives a body that is
larger than what records keep inline the xxh3-128 of its bytes, `<32 hex>-1`: the form of an object of one part, which
clients do not take for an MD5.  The same bytes have the same ETag there, through any pod and in any erasure set, so all
that compares ETags works as it does with MD5; but it is easy to make two bodies with one ETag on purpose.  Smaller
bodies keep their MD5, and so does what is hashed with MD5 because its client said what that must be (`s3.payload`).
See docs/decisions/0015-opaque-etags.md.

Not here: what a client promised about a body (`s3.payload`), the ETag of an object of parts (`s3.checksums`).
"""

from __future__ import annotations

from holdfast_server.api.bucket_record import BucketRecord
from holdfast_server.objects.record import INLINE_LIMIT_BYTES
from holdfast_server.s3.checksums import ALGORITHMS, OPAQUE_SUFFIX, Buffer, Digest
from holdfast_server.sealing.envelope import Seal


class BodyEtag:
    """One body's.  A digest of the object layer: fed in order, on worker threads."""

    def __init__(self, bucket: BucketRecord) -> None:
        self._md5: Digest | None = ALGORITHMS["MD5"].new()
        self._opaque: Digest | None = ALGORITHMS["XXHASH128"].new() if bucket.has_opaque_etags else None
        self._size_bytes = 0

    def update(self, data: Buffer, /) -> None:
        """The size need not be known beforehand: what is large ceases to be hashed with MD5."""
        if self._opaque is not None:
            self._size_bytes += len(data)
            if self._size_bytes > INLINE_LIMIT_BYTES:
                self._md5 = None
            self._opaque.update(data)
        if self._md5 is not None:
            self._md5.update(data)

    def finish(self, seal: Seal | None) -> str:
        """After the last byte; of bytes that are stored with that seal."""
        if self._md5 is not None:
            return etag_of(self._md5.digest().hex(), seal)
        assert self._opaque is not None
        return etag_of(self._opaque.digest().hex(), seal) + OPAQUE_SUFFIX


def etag_of(digest_hex: str, seal: Seal | None) -> str:
    """Of bytes that are stored with that seal."""
    return digest_hex if seal is None else seal.etag(digest_hex)
