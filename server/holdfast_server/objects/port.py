"""What the API layer asks of the object layer: the types of its calls, and its errors.

`ObjectStore` (in `store`) implements `Objects`; nothing above this layer sees a drive, a stamp or a quorum.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from enum import Enum, auto
from typing import Final, Protocol

import msgspec

from holdfast_server.objects.record import Kind, Record
from holdfast_server.sealing.envelope import Seal, Sealing


class ObjectError(Exception):
    """Root of this layer's errors."""


class Unavailable(ObjectError):
    """Below quorum, or undecided: nothing wrong is answered; the caller may retry (503 SlowDown)."""


class Crossed(Unavailable):
    """Other writes of the same key are under way, and too many drives went with those; none of them failed."""


class Vanished(Unavailable):
    """The shards of a version are gone from so many drives that it cannot be read: since it was looked up it was
    overwritten or deleted, and its space taken back (rule 13).  Whoever has shown nothing of it looks it up anew.
    """


class Conflict(ObjectError):
    """Another conditional write is under way on the same register (409)."""


class OutOfSpace(ObjectError):
    """Too few drives have room (507)."""


class Locked(ObjectError):
    """A retention or a legal hold keeps the version from being deleted (403)."""


class TooSlow(ObjectError):
    """The client of a write moved next to nothing while others waited for the memory it held (400 RequestTimeout)."""


class Damaged(ObjectError):
    """What is stored is not what was sealed, or the key is another: nothing of it is given out (500)."""


class Missing(ObjectError):
    """No such upload, part or document."""


class Digest(Protocol):
    """Anything with `update`; called in order on a worker thread, never concurrently for one digest."""

    def update(self, data: memoryview | bytes, /) -> object: ...


class Versioning(Enum):
    """What a write leaves of the version it takes the place of."""

    OFF = auto()
    """Nothing.  Never again once the bucket has kept versions (`versions`)."""
    ENABLED = auto()
    """All of it; the write makes a version with an id of its own."""
    SUSPENDED = auto()
    """All of it, but for the one version whose id is `null`: the write makes the new one."""


class Redundancy(Enum):
    """How many losses a write is to survive (docs/quorum.md)."""

    FULL = auto()
    """As many as its erasure set."""
    REDUCED = auto()
    """Fewer, and it takes less room: as many as the pool says at that moment.  Only once every pod judges versions by
    their own numbers."""


NULL_VERSION: Final = b"null"
"""Stands for the version that was written without an id of its own; every other is eight bytes (`Record.place`)."""


class Attributes(msgspec.Struct, frozen=True):
    """What is stored beside the bytes."""

    etag: str
    headers: dict[str, str] = {}
    checksums: dict[str, str] = {}
    modified_ms: int = 0
    """0: now."""
    versioning: Versioning = Versioning.OFF
    """As it is at the moment of the commit."""
    sealing: Sealing | None = None
    """Of a completed upload, whose parts are sealed: how.  Of other writes it is in their `Seal`."""


class Filler(Protocol):
    """Puts a body where it is wanted, so that it need not be copied there."""

    async def fill(self, targets: Sequence[memoryview], go_on: Callable[[], bool]) -> int:
        """The next bytes, as many as fit into these; no more are ever asked for than there are.  Whenever one of them
        is full, `go_on` is asked whether to fill the next, if there is one.  Returns how many are full.  Raises as
        `Body.chunks` does; nothing is put anywhere once it has ended."""


class Body(Protocol):
    """The bytes of a write, as the API layer decodes them from the wire."""

    size_bytes: int | None
    """Known length, or None.  Never more bytes than this are yielded."""
    digests: Sequence[Digest]
    """Fed with every stripe, in order, on a worker thread (ETag's md5 is one of them)."""

    @property
    def filler(self) -> Filler | None:
        """Instead of `chunks`, where the bytes come as they are and their number is known."""

    def chunks(self) -> AsyncIterator[bytes | memoryview]:
        """Decoded payload.  May raise anything: the write is then given up and leaves nothing."""

    def finish(self) -> Attributes:
        """Called once, after the last byte went through the digests and before anything is committed.

        Raises to refuse the write (wrong length, checksum, signature): nothing has then changed.
        """


Condition = Callable[[Record | None], None]
"""Raises (an API error) unless the current version, None if absent, allows the write.  Pure, may be called
more than once."""


class PartRef(msgspec.Struct, frozen=True):
    """One line of a CompleteMultipartUpload."""

    number: int
    etag: str
    checksums: dict[str, str] = {}


Assemble = Callable[[Record, Sequence[tuple[PartRef, Record | None]]], Attributes]
"""Gets the upload's record and, for every part asked for, what is stored (None: no such part); returns the object's
attributes, or raises to refuse it."""


class UploadInfo(msgspec.Struct, frozen=True):
    key: str
    upload_id: bytes
    record: Record
    """Kind UPLOAD: `modified_ms` is when it began, `headers` what the object will get, `body` the API layer's."""


class Listed(msgspec.Struct, frozen=True, gc=False):
    key: str
    record: Record
    version: bytes = b""


class Listing(msgspec.Struct, frozen=True):
    entries: list[Listed]
    prefixes: list[str]
    """Common prefixes, ordered; together with `entries` at most `limit`."""
    next_after: str | None
    """Where the next page starts (exclusive: a key or a common prefix); None at the end."""


class ListedVersion(msgspec.Struct, frozen=True, gc=False):
    key: str
    record: Record
    """An object or a delete marker."""
    latest: bool
    """The current one."""


class VersionListing(msgspec.Struct, frozen=True):
    entries: list[ListedVersion]
    """By key, then the newest first."""
    prefixes: list[str]
    truncated: bool
    """There is more, after the last entry or the last prefix, whichever is the greater."""


class Reader(Protocol):
    """A version that is being read; holds on to what it needs until closed."""

    record: Record

    def unlock(self, seal: Seal) -> None:
        """Needed before `chunks` where the record says that the version is sealed.  Raises Damaged."""

    def chunks(self, start: int, length: int) -> AsyncIterator[bytes | memoryview]:
        """The bytes of a range, verified.  Raises Unavailable before the first byte, never a wrong byte;
        a failure after the first byte raises too and the caller must cut the connection.
        Vanished before the first byte: open it anew.  Damaged where it is not what was sealed, or not unlocked."""


class Objects(Protocol):
    """The object layer.  `bucket_id` is the sixteen bytes of the bucket's record."""

    # --- objects
    async def put_object(
        self,
        bucket_id: bytes,
        key: str,
        body: Body,
        condition: Condition | None = None,
        seal: Seal | None = None,
        redundancy: Redundancy = Redundancy.FULL,
    ) -> Record:
        """`seal`: what the body is encrypted with; no two writes share one."""

    async def head_object(self, bucket_id: bytes, key: str, version: bytes | None = None) -> Record | None:
        """The current version, or the one named; None if there is none.  A delete marker is returned as what it is
        (`Record.marker`).  Raises Unavailable."""

    async def open_object(self, bucket_id: bytes, key: str, version: bytes | None = None) -> Reader | None:
        """As `head_object`, to be read."""

    async def delete_object(
        self,
        bucket_id: bytes,
        key: str,
        condition: Condition | None = None,
        versioning: Versioning = Versioning.OFF,
    ) -> Record | None:
        """Absent afterwards.  Returns what was there, if that was looked at; where versions are kept, the delete
        marker that hides it."""

    async def delete_version(
        self,
        bucket_id: bytes,
        key: str,
        version: bytes,
        condition: Condition | None = None,
        bypass_governance: bool = False,
    ) -> Record | None:
        """Delete one version for good; if it was current, the newest of the others is.  Returns what was there.

        Raises Locked where `object_lock.protects` it at that moment, whoever asks: a client or a lifecycle rule.
        """

    async def list_versions(
        self,
        bucket_id: bytes,
        *,
        prefix: str = "",
        delimiter: str = "",
        after: str = "",
        after_version: bytes = b"",
        limit: int = 1000,
    ) -> VersionListing:
        """All versions of all keys, delete markers too, after that version of that key; without a version, after the
        whole key (or the common prefix that it is)."""

    async def amend_object(
        self,
        bucket_id: bytes,
        key: str,
        change: Callable[[Record], dict[str, str]],
        version: bytes | None = None,
    ) -> Record | None:
        """Give the current version, or the one named, other headers and leave everything else of it as it is, its
        time too.  A delete marker is as if it were absent.

        `change` gets the version and returns its headers; it is pure, may raise to refuse, and may be called more
        than once.  Returns the version as it is now; None if absent.  Raises Conflict where other writes go on."""

    async def list_objects(
        self, bucket_id: bytes, *, prefix: str = "", delimiter: str = "", after: str = "", limit: int = 1000
    ) -> Listing:
        """Keys greater than `after` (and beyond the common prefix it names, if it does), ordered by UTF-8."""

    # --- multipart
    async def create_upload(
        self,
        bucket_id: bytes,
        key: str,
        headers: dict[str, str],
        body: bytes,
        sealing: Sealing | None = None,
        redundancy: Redundancy = Redundancy.FULL,
    ) -> bytes:
        """Returns the upload id, sixteen bytes; the order of a key's ids is that in which its uploads began.  `sealing`
        is what its parts will be sealed with, `redundancy` theirs and the object's, decided now."""

    async def get_upload(self, bucket_id: bytes, key: str, upload_id: bytes) -> Record | None:
        """The open upload; None if there is none (never was, completed, aborted)."""

    async def put_part(
        self, bucket_id: bytes, key: str, upload_id: bytes, number: int, body: Body, seal: Seal | None = None
    ) -> Record:
        """`seal` is the same for all parts of an upload."""

    async def list_parts(
        self, bucket_id: bytes, key: str, upload_id: bytes, after: int = 0, limit: int = 1000
    ) -> tuple[list[tuple[int, Record]], bool]:
        """Parts with numbers above `after`, ascending, and whether more follow.  Raises Missing."""

    async def complete_upload(
        self,
        bucket_id: bytes,
        key: str,
        upload_id: bytes,
        parts: Sequence[PartRef],
        assemble: Assemble,
        condition: Condition | None = None,
    ) -> Record:
        """Make the object out of its parts.  Completing twice with the same result is one completion.  Raises Missing,
        and what `assemble` raises."""

    async def abort_upload(self, bucket_id: bytes, key: str, upload_id: bytes) -> None:
        """Raises Missing."""

    async def list_uploads(
        self,
        bucket_id: bytes,
        *,
        prefix: str = "",
        delimiter: str = "",
        after: tuple[str, bytes] = ("", b""),
        limit: int = 1000,
    ) -> tuple[list[UploadInfo], list[str], bool]:
        """Open uploads ordered by key, then upload id; common prefixes; whether more follow.

        `after` names an upload; with an empty id all uploads of its key, or the common prefix that it is.
        """

    # --- documents: small replicated records of the configuration (buckets, users, policies)
    async def get_document(self, name: str) -> Record | None: ...

    async def put_document(self, name: str, body: bytes, condition: Condition | None = None) -> Record: ...

    async def delete_document(self, name: str, condition: Condition | None = None) -> None: ...

    async def list_documents(self, prefix: str, after: str = "", limit: int = 1000) -> Listing: ...


__all__ = [
    "NULL_VERSION", "Assemble", "Attributes", "Body", "Condition", "Conflict", "Damaged", "Digest", "Kind", "Listed",
    "ListedVersion", "Listing", "Locked", "Missing", "ObjectError", "Objects", "OutOfSpace", "PartRef", "Reader",
    "Record", "Redundancy", "TooSlow", "Unavailable", "UploadInfo", "Vanished", "VersionListing", "Versioning",
]  # fmt: skip
