"""A bucket as a document of the configuration: `bucket/<name>`, JSON.  Pure.

The sixteen-byte id is minted at creation and is part of every object's register, so a bucket created anew
under an old name never shows the old one's objects.  While a delete is deciding whether the bucket is empty
the state is `deleting` and `mark` tells apart one attempt from the next (see `buckets`).

A bucket's settings (tags, CORS, policy, grants …) are optional fields of it: none set is what a bucket had before the
field existed.  Fields that this release does not know are kept and written back (`unknown`), so that a pod that is
one release behind takes nothing away from a bucket it marks or changes.
"""

from __future__ import annotations

from typing import Any

import msgspec

from holdfast_server.objects.port import Versioning
from holdfast_server.s3.acl import Grant
from holdfast_server.s3.cors import CorsRule
from holdfast_server.s3.encryption import BucketEncryption
from holdfast_server.s3.lifecycle import MINIMUM_SIZES, LifecycleRule
from holdfast_server.s3.lock_documents import DefaultRetention

DOCUMENT_PREFIX = "bucket/"
FORMAT = 1
VERSIONED_FORMAT = 2
"""Of a bucket that keeps versions: a release that knows nothing of them would overwrite one; so it refuses the bucket.
"""
SEALED_FORMAT = 3
"""Of a bucket that has, or may have, encrypted objects: a release that knows nothing of that would serve what was
sealed as if it were the object; so it refuses the bucket."""
LOCKED_FORMAT = 4
"""Of a bucket with object lock: a release that knows nothing of that would delete what is locked; so it refuses the
bucket."""
REDUCED_FORMAT = 5
"""Of a bucket that has, or may have, objects of reduced redundancy: a release that knows nothing of that would take one
that failed for one that succeeded; so it refuses the bucket."""
NEWEST_FORMAT = REDUCED_FORMAT
ACTIVE = "active"
DELETING = "deleting"

ENABLED = "Enabled"
SUSPENDED = "Suspended"
PREPARING = "Preparing"
"""As SUSPENDED; not every pod may have read so much yet (`versioning`)."""


OPAQUE = "Opaque"
"""Of ETags: see `etags`."""


class PublicAccessBlock(msgspec.Struct, frozen=True, kw_only=True):
    """What a bucket does not give to everybody, whatever its policy and grants say."""

    block_public_acls: bool = False
    ignore_public_acls: bool = False
    block_public_policy: bool = False
    restrict_public_buckets: bool = False


class Quota(msgspec.Struct, frozen=True, kw_only=True):
    """How much a bucket may hold; None: as much as there is room for."""

    size_bytes: int | None = None
    """Of objects, replaced versions and parts of open uploads, as clients see them."""
    objects: int | None = None
    """Objects, replaced versions and delete markers."""


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

    versioning: str = ""
    """ENABLED, SUSPENDED or PREPARING; empty where no versions were ever kept."""
    tags: dict[str, str] = {}
    cors: list[CorsRule] = []
    account: str = ""
    """Whom it belongs to; the tenant's own account where empty."""
    policy: str = ""
    """Its document, as it was put."""
    ownership: str = ""
    """Of its objects: BucketOwnerEnforced, BucketOwnerPreferred or ObjectWriter; the last where nothing was set."""
    ownership_by_default: bool = False
    """Nobody asked for that ownership: `x-amz-acl: private`, which some clients send always, is let pass."""
    grants: list[Grant] | None = None
    """None: the owner's full control alone."""
    public_access_block: PublicAccessBlock | None = None
    lifecycle: list[LifecycleRule] = []
    lifecycle_minimum_size: str = MINIMUM_SIZES[0]
    """Of transitions, which do not exist here; kept because clients read it back."""
    encryption: BucketEncryption | None = None
    """Of objects whose writer asks for none."""
    blocked_encryption: str = ""
    """NONE or SSE-C, as clients said it (`s3.encryption`): whether customers' keys are refused with new objects."""
    quota: Quota | None = None
    object_lock: str = ""
    """ENABLED or PREPARING; empty where there is no locking.  Never taken back."""
    default_retention: DefaultRetention | None = None
    """Of new objects whose writer asks for none."""
    etags: str = ""
    """Of objects that are written: OPAQUE, or their MD5."""
    unknown: dict[str, Any] = {}
    """Members of the document that only a later release knows; no member of it themselves."""

    @property
    def deleting(self) -> bool:
        return self.state == DELETING

    @property
    def has_opaque_etags(self) -> bool:
        return self.etags == OPAQUE

    @property
    def keeps(self) -> Versioning:
        """What a write is to leave of what it takes the place of."""
        if not self.versioning:
            return Versioning.OFF
        return Versioning.ENABLED if self.versioning == ENABLED else Versioning.SUSPENDED


class BucketDocumentError(ValueError):
    """The stored document is not a bucket's: it was written by something else, or a newer version."""


class LaterFormat(BucketDocumentError):
    """A later release wrote it, and may mean by it what must not be overlooked."""

    def __init__(self, bucket: BucketRecord) -> None:
        super().__init__(f"bucket {bucket.name!r} has format {bucket.format}, this server reads up to {NEWEST_FORMAT}")
        self.bucket = bucket


def raised(bucket: BucketRecord, format_: int) -> BucketRecord:
    """With a format that is at least this one."""
    return msgspec.structs.replace(bucket, format=max(bucket.format, format_))


_FIELDS = frozenset(BucketRecord.__struct_fields__) - {"unknown"}


def document_name(bucket_name: str) -> str:
    return DOCUMENT_PREFIX + bucket_name


def encode(record: BucketRecord) -> bytes:
    members = msgspec.to_builtins(record)
    return msgspec.json.encode({**members.pop("unknown"), **members})


def decode(body: bytes) -> BucketRecord:
    """Raises BucketDocumentError, LaterFormat."""
    try:
        members = msgspec.json.decode(body, type=dict[str, Any])
        unknown = {name: value for name, value in members.items() if name not in _FIELDS}
        known = {name: value for name, value in members.items() if name in _FIELDS}
        found = msgspec.convert({**known, "unknown": unknown}, BucketRecord)
    except msgspec.MsgspecError as error:
        raise BucketDocumentError(str(error)) from error
    if found.format > NEWEST_FORMAT:
        raise LaterFormat(found)
    return found


def decode_listed(body: bytes) -> BucketRecord:
    """For lists of all buckets: one in a later format, too, so that it holds up none of the others; of it nothing is
    to expire by rules that may mean something else.  Raises BucketDocumentError."""
    try:
        return decode(body)
    except LaterFormat as error:
        return msgspec.structs.replace(error.bucket, lifecycle=[])
