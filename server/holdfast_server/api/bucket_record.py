"""A bucket as a document of the configuration: `bucket/<name>`, JSON.  Pure.

The sixteen-byte id is minted at creation and is part of every object's register, so a bucket created anew
under an old name never shows the old one's objects.  While a delete is deciding whether the bucket is empty
the state is `deleting` and `mark` tells apart one attempt from the next (see `buckets`).
"""

from __future__ import annotations

import msgspec

DOCUMENT_PREFIX = "bucket/"
FORMAT = 1
ACTIVE = "active"
DELETING = "deleting"


class BucketRecord(msgspec.Struct, frozen=True, kw_only=True):
    id: bytes
    name: str
    owner: str
    """Access key of the creator; the root user's buckets carry `root`, so that its key can be rotated."""
    region: str
    created_ms: int
    state: str = ACTIVE
    mark: bytes = b""
    """Of the delete under way: random, so that only the attempt that set it can finish it."""
    marked_ms: int = 0
    format: int = FORMAT
    """Of this document; fields are only ever appended, and a document of a later format is refused."""

    @property
    def deleting(self) -> bool:
        return self.state == DELETING


class BucketDocumentError(ValueError):
    """The stored document is not a bucket's: it was written by something else, or a newer version."""


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(BucketRecord)


def document_name(bucket_name: str) -> str:
    return DOCUMENT_PREFIX + bucket_name


def encode(record: BucketRecord) -> bytes:
    return _encoder.encode(record)


def decode(body: bytes) -> BucketRecord:
    """Raises BucketDocumentError."""
    try:
        found = _decoder.decode(body)
    except msgspec.MsgspecError as error:
        raise BucketDocumentError(str(error)) from error
    if found.format > FORMAT:
        raise BucketDocumentError(f"bucket {found.name!r} has format {found.format}, this server reads up to {FORMAT}")
    return found
