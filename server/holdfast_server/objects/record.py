"""The record: everything that is kept of one version of one register, except its shards.

The same bytes rest on every drive of the set (`drives.port.Held` adds what differs: shard index, inline
shard).  Encoding: four bytes magic and format version, eight bytes xxh3-64 of the rest, msgpack of the
struct as an array.  Fields are only ever appended, with defaults, so that a reader of version n reads what
n-1 wrote; a reader that meets a higher format version refuses it.  `docs/on-disk.md` has the layout.
Pure.
"""

from __future__ import annotations

from enum import IntEnum

import msgspec
import xxhash

from holdfast_server.clock.stamp import MAX_STAMP
from holdfast_server.drives.port import Register
from holdfast_server.sealing.envelope import Sealing

MAGIC = b"HfR\x01"
_HEADER_SIZE_BYTES = len(MAGIC) + 8

STRIPE_SIZE_BYTES = 1 << 20
INLINE_LIMIT_BYTES = 64 * 1024
"""Objects up to this size keep their shards in the record's row."""

BUCKET_ID_SIZE_BYTES = 16
SYSTEM_ID = bytes(BUCKET_ID_SIZE_BYTES)
PLACE_SIZE_BYTES = 8

OBJECT_SPACE = b"o"
UPLOAD_SPACE = b"u"
PART_SPACE = b"p"
DOCUMENT_SPACE = b"d"
VERSION_SPACE = b"v"
"""Versions of objects that are not current (`versions`)."""


class RecordCorrupt(ValueError):
    """The bytes are not a record, or their checksum does not match."""


class Kind(IntEnum):
    OBJECT = 1
    TOMBSTONE = 2
    UPLOAD = 3
    PART = 4
    DOCUMENT = 5
    MOVED = 6
    """A tombstone in one of a key's erasure sets that says: the version of this stamp is in another of them."""


class Extent(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One run of bytes that was striped and coded by itself: a whole object, or one part of it."""

    data_id: bytes
    """Names the shard file on every drive; empty where the shards are inline."""
    size_bytes: int
    """As it was coded: of sealed bytes more than what they hold (`sealing.chunks`)."""


class PartInfo(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A part as the completed object remembers it; part *i* is extent *i*."""

    number: int
    size_bytes: int
    etag: str
    checksum: str = ""


class Geometry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How the shards were cut; frozen with the version."""

    data_shards: int
    parity_shards: int
    codec: str = "isa_l_rs_cauchy"
    stripe_size_bytes: int = STRIPE_SIZE_BYTES


class VersionInfo(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a record says of itself as one of its key's versions; absent from what was written without versioning.
    Fields are only ever appended."""

    place: bytes = b""
    """Where it stands among them, newest first, whether or not it is current: `place_of` the stamp with which it
    became current first.  Empty in a template: of the stamp it is committed with."""
    null: bool = False
    """Its id is `null`: written while versioning was suspended.  (So is one without this struct.)"""
    marker: bool = False
    """A delete marker."""
    null_place: bytes = b""
    """Of the current version: where the one that is `null` rests, if another is."""
    claimed: bool = False
    """Of one that rests: somebody means to make it current again."""


class Record(msgspec.Struct, frozen=True, array_like=True, gc=False):
    kind: Kind
    stamp: int
    """Order and identity of the write, see `clock.stamp`."""
    modified_ms: int = 0
    size_bytes: int = 0
    etag: str = ""
    """Without quotes: hex md5, or `<hex>-<parts>` of a multipart upload."""
    headers: dict[str, str] = {}
    """What the API layer gives back: content-type, cache-control …, x-amz-meta-*.  Lower-case names."""
    checksums: dict[str, str] = {}
    """S3 algorithm name → base64 value (`-N` appended where composite); plus "type" for multipart."""
    geometry: Geometry | None = None
    extents: tuple[Extent, ...] = ()
    parts: tuple[PartInfo, ...] = ()
    body: bytes = b""
    """DOCUMENT: the document.  UPLOAD, TOMBSTONE: whatever the owner of the register wants to keep."""
    version: VersionInfo | None = None
    sealing: Sealing | None = None
    """How it is encrypted, if it is; every size but those of the extents is of what was sealed."""

    @property
    def deleted(self) -> bool:
        """A tombstone: nothing is kept."""
        return self.kind in (Kind.TOMBSTONE, Kind.MOVED)

    @property
    def marker(self) -> bool:
        """A delete marker: a version like others, that hides its key from whoever asks for no version."""
        return self.version is not None and self.version.marker

    @property
    def live(self) -> bool:
        return not self.deleted and not self.marker

    @property
    def place(self) -> bytes:
        """See `VersionInfo.place`."""
        return (self.version.place if self.version is not None else b"") or place_of(self.stamp)

    @property
    def null(self) -> bool:
        return self.version is None or self.version.null

    @property
    def inline(self) -> bool:
        return len(self.extents) == 1 and not self.extents[0].data_id

    @property
    def copies_needed(self) -> int:
        """How many drives must hold it before it can be served: K where there are shards to join, else 1."""
        return self.geometry.data_shards if self.geometry is not None and self.extents else 1

    @property
    def data_ids(self) -> tuple[bytes, ...]:
        return tuple(extent.data_id for extent in self.extents if extent.data_id)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Record)


_FIELDS = len(Record.__struct_fields__)


def encode(record: Record) -> bytes:
    body = _encoder.encode(record)
    if record.sealing is None:
        # What does not use the last fields is, byte for byte, what it was before there were any.
        absent = 1 if record.version is not None else 2
        body = bytes((0x90 | (_FIELDS - absent),)) + body[1:-absent]
    return b"".join((MAGIC, xxhash.xxh3_64_digest(body), body))


def decode(data: bytes) -> Record:
    """Raises RecordCorrupt."""
    # Cut out, not viewed: for records as short as nearly all are that is the cheaper, and listings read thousands.
    body = data[_HEADER_SIZE_BYTES:]
    if not data.startswith(MAGIC):
        if len(data) >= len(MAGIC) and data[: len(MAGIC) - 1] == MAGIC[:-1]:
            raise RecordCorrupt(f"record of format version {data[len(MAGIC) - 1]}, this server reads {MAGIC[-1]}")
        raise RecordCorrupt(f"starts with {data[:4].hex()}, not with {MAGIC.hex()}")
    if xxhash.xxh3_64_digest(body) != data[len(MAGIC) : _HEADER_SIZE_BYTES]:
        raise RecordCorrupt("checksum does not match")
    try:
        return _decoder.decode(body)
    except msgspec.MsgspecError as error:
        raise RecordCorrupt(str(error)) from error


class _Head(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The fields up to the geometry; what is not asked for is not taken apart."""

    kind: msgspec.Raw
    stamp: msgspec.Raw
    modified_ms: msgspec.Raw
    size_bytes: msgspec.Raw
    etag: msgspec.Raw
    headers: msgspec.Raw
    checksums: msgspec.Raw
    geometry: Geometry | None = None


_head_decoder = msgspec.msgpack.Decoder(_Head)


def geometry_of(data: bytes) -> Geometry | None:
    """How the shards of an encoded record were cut; None where there are none, or where this is no record (whoever
    decodes it will find out).  On every read's path: it neither checks nor decodes the rest."""
    if data[: len(MAGIC)] != MAGIC:
        return None
    try:
        return _head_decoder.decode(memoryview(data)[_HEADER_SIZE_BYTES:]).geometry
    except msgspec.MsgspecError:
        return None


def object_register(bucket_id: bytes, key: str, version: bytes = b"") -> Register:
    return Register(OBJECT_SPACE + bucket_id, key, version)


def version_register(bucket_id: bytes, key: str, place: bytes) -> Register:
    """Where a version rests while it is not current."""
    return Register(VERSION_SPACE + bucket_id, key, place)


def place_of(stamp: int) -> bytes:
    """Eight bytes that sort the newest first."""
    return (MAX_STAMP - stamp).to_bytes(PLACE_SIZE_BYTES, "big")


def upload_register(bucket_id: bytes, key: str, upload_id: bytes) -> Register:
    return Register(UPLOAD_SPACE + bucket_id, key, upload_id)


def part_register(bucket_id: bytes, key: str, upload_id: bytes, number: int) -> Register:
    return Register(PART_SPACE + bucket_id, key, upload_id + number.to_bytes(2, "big"))


def document_register(name: str) -> Register:
    """Configuration documents (buckets, users, policies) live in one space of the tenant: `bucket/<name>`."""
    return Register(DOCUMENT_SPACE + SYSTEM_ID, name)
