"""The JSON of the admin API about buckets: what each holds, and how much it may.

GET    /buckets                     → list[BucketInfo]   from the answering pod's memory, no pod is asked
GET    /buckets/{name}/quota        → BucketQuota        both null where there is none
PUT    /buckets/{name}/quota        ← BucketQuota        in force on every pod within five seconds
DELETE /buckets/{name}/quota                             204 also where there is none; 404 without the bucket
GET    /buckets/{name}/owner        → BucketOwner
PUT    /buckets/{name}/owner        ← BucketOwner        the objects that are the bucket owner's are the new one's
GET    /buckets/{name}/etag         → BucketEtag
PUT    /buckets/{name}/etag         ← BucketEtag         of what is written from then on; 503 while a pod does not know
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

MAX_QUOTA_SIZE_BYTES = 1 << 60
MAX_QUOTA_OBJECTS = 1 << 50
EtagForm = Literal["MD5", "Opaque"]
DEFAULT_ETAG_FORM: EtagForm = "MD5"


class BucketQuota(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """None: as much as there is room for."""

    size_bytes: Annotated[int, msgspec.Meta(ge=1, le=MAX_QUOTA_SIZE_BYTES)] | None = None
    """Of objects, replaced versions and parts of open uploads, as clients see them, without parity."""
    objects: Annotated[int, msgspec.Meta(ge=1, le=MAX_QUOTA_OBJECTS)] | None = None
    """Objects, replaced versions and delete markers."""


class BucketOwner(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    account: str
    """Empty: the tenant's own."""


class BucketEtag(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    etag: EtagForm
    """What the ETag of a body is that is not small, and whose MD5 its client has not sent: its MD5, or something that
    costs less and does not look like one (docs/decisions/0015-opaque-etags.md)."""


class BucketInfo(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    name: str
    quota: BucketQuota = BucketQuota()
    objects: int = 0
    """Keys that are shown without asking for versions; as of the last count."""
    versions: int = 0
    """Objects, replaced versions and delete markers."""
    size_bytes: int = 0
    """Of all versions, and of parts of open uploads."""
    parts: int = 0
    """Of open uploads; as of the last count."""
    counted_ms: int = 0
    """When the oldest of the counts that this is made of ended; 0: not all erasure sets were counted yet."""


class TenantUsage(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """All buckets together, as far as they were counted."""

    buckets: int = 0
    objects: int = 0
    versions: int = 0
    size_bytes: int = 0
    uncounted: int = 0
    """Buckets, among `buckets`, that were not counted yet: the sums say nothing of them."""
    known: bool = True
    """Whether the buckets could be listed; else nothing here says anything."""
