"""The one table of S3's operations: what selects each, which permission it needs, whether it is implemented.

A request's method, its level (service, bucket, object), the sub-resources in its query and a few headers name
exactly one operation.  Every operation of the S3 API stands here, so that an unimplemented one is answered
by 501 with its name and never mistaken for another (a `PUT ?acl` must not overwrite the object).
Parameters that are no sub-resource (`x-id=GetObject`, unknown ones) select nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from holdfast_server.s3.errors import S3Error


class Operation(msgspec.Struct, frozen=True):
    """One row of the table."""

    name: str
    method: str
    level: str
    """`service`, `bucket` or `object`."""
    query: tuple[str, ...] = ()
    """Parameters that must be present; `name=value` asks for that value."""
    headers: tuple[str, ...] = ()
    """Headers that must be present."""
    action: str = ""
    """The IAM action, `s3:GetObject`; derived from the name where it is the same."""
    versioned_action: str = ""
    """The IAM action when the request names a versionId; empty where that makes no difference."""
    implemented: bool = False

    def action_for(self, query: Mapping[str, str]) -> str:
        """The IAM action this request needs on its target (copies need more on their source)."""
        return self.versioned_action if self.versioned_action and "versionId" in query else self.action


def _service(name: str, method: str, **rest: object) -> Operation:
    return _row(name, method, "service", "", rest)


def _bucket(name: str, method: str, query: str = "", **rest: object) -> Operation:
    return _row(name, method, "bucket", query, rest)


def _object(name: str, method: str, query: str = "", **rest: object) -> Operation:
    return _row(name, method, "object", query, rest)


def _row(name: str, method: str, level: str, query: str, rest: dict[str, object]) -> Operation:
    fields: dict[str, object] = {"name": name, "method": method, "level": level, "action": f"s3:{name}"}
    fields["query"] = tuple(query.split("&")) if query else ()
    return msgspec.convert({**fields, **rest}, Operation)


_COPY = ("x-amz-copy-source",)
_PUT = "s3:PutObject"

_IMPLEMENTED: tuple[Operation, ...] = (
    _service("ListBuckets", "GET", action="s3:ListAllMyBuckets"),
    _bucket("CreateBucket", "PUT"),
    _bucket("HeadBucket", "HEAD", action="s3:ListBucket"),
    _bucket("DeleteBucket", "DELETE"),
    _bucket("ListObjects", "GET", action="s3:ListBucket"),
    _bucket("ListObjectsV2", "GET", "list-type=2", action="s3:ListBucket"),
    _bucket("ListObjectVersions", "GET", "versions", action="s3:ListBucketVersions"),
    _bucket("PutBucketVersioning", "PUT", "versioning"),
    _bucket("ListMultipartUploads", "GET", "uploads", action="s3:ListBucketMultipartUploads"),
    _bucket("DeleteObjects", "POST", "delete", action="s3:DeleteObject"),
    _bucket("GetBucketLocation", "GET", "location"),
    _bucket("GetBucketAccelerateConfiguration", "GET", "accelerate", action="s3:GetAccelerateConfiguration"),
    _bucket("GetBucketAcl", "GET", "acl"),
    _bucket("GetBucketCors", "GET", "cors", action="s3:GetBucketCORS"),
    _bucket("GetBucketEncryption", "GET", "encryption", action="s3:GetEncryptionConfiguration"),
    _bucket("GetBucketLifecycleConfiguration", "GET", "lifecycle", action="s3:GetLifecycleConfiguration"),
    _bucket("GetBucketLogging", "GET", "logging"),
    _bucket("GetBucketNotificationConfiguration", "GET", "notification", action="s3:GetBucketNotification"),
    _bucket("GetBucketOwnershipControls", "GET", "ownershipControls"),
    _bucket("GetBucketPolicy", "GET", "policy"),
    _bucket("GetBucketPolicyStatus", "GET", "policyStatus"),
    _bucket("GetBucketReplication", "GET", "replication", action="s3:GetReplicationConfiguration"),
    _bucket("GetBucketRequestPayment", "GET", "requestPayment"),
    _bucket("GetBucketTagging", "GET", "tagging"),
    _bucket("GetBucketVersioning", "GET", "versioning"),
    _bucket("GetBucketWebsite", "GET", "website"),
    _bucket("GetObjectLockConfiguration", "GET", "object-lock", action="s3:GetBucketObjectLockConfiguration"),
    _bucket("GetPublicAccessBlock", "GET", "publicAccessBlock", action="s3:GetBucketPublicAccessBlock"),
    _object("PutObject", "PUT"),
    _object("GetObject", "GET", versioned_action="s3:GetObjectVersion"),
    _object("HeadObject", "HEAD", action="s3:GetObject", versioned_action="s3:GetObjectVersion"),
    _object("DeleteObject", "DELETE", versioned_action="s3:DeleteObjectVersion"),
    _object("CopyObject", "PUT", headers=_COPY, action=_PUT),
    _object("CreateMultipartUpload", "POST", "uploads", action=_PUT),
    _object("UploadPart", "PUT", "partNumber&uploadId", action=_PUT),
    _object("UploadPartCopy", "PUT", "partNumber&uploadId", headers=_COPY, action=_PUT),
    _object("CompleteMultipartUpload", "POST", "uploadId", action=_PUT),
    _object("AbortMultipartUpload", "DELETE", "uploadId"),
    _object("ListParts", "GET", "uploadId", action="s3:ListMultipartUploadParts"),
    _object("GetObjectAcl", "GET", "acl", versioned_action="s3:GetObjectVersionAcl"),
    _bucket("PutBucketTagging", "PUT", "tagging"),
    _bucket("DeleteBucketTagging", "DELETE", "tagging", action="s3:PutBucketTagging"),
    _object("GetObjectTagging", "GET", "tagging", versioned_action="s3:GetObjectVersionTagging"),
    _object("PutObjectTagging", "PUT", "tagging", versioned_action="s3:PutObjectVersionTagging"),
    _object("DeleteObjectTagging", "DELETE", "tagging", versioned_action="s3:DeleteObjectVersionTagging"),
    _bucket("PutBucketCors", "PUT", "cors", action="s3:PutBucketCORS"),
    _bucket("PutBucketLifecycleConfiguration", "PUT", "lifecycle", action="s3:PutLifecycleConfiguration"),
    _bucket("DeleteBucketLifecycle", "DELETE", "lifecycle", action="s3:PutLifecycleConfiguration"),
    _bucket("DeleteBucketCors", "DELETE", "cors", action="s3:PutBucketCORS"),
    _bucket("PutBucketPolicy", "PUT", "policy"),
    _bucket("DeleteBucketPolicy", "DELETE", "policy"),
    _bucket("PutPublicAccessBlock", "PUT", "publicAccessBlock", action="s3:PutBucketPublicAccessBlock"),
    _bucket("DeletePublicAccessBlock", "DELETE", "publicAccessBlock", action="s3:PutBucketPublicAccessBlock"),
    _bucket("PutBucketAcl", "PUT", "acl"),
    _object("PutObjectAcl", "PUT", "acl", versioned_action="s3:PutObjectVersionAcl"),
    _bucket("PutBucketOwnershipControls", "PUT", "ownershipControls"),
    _bucket("DeleteBucketOwnershipControls", "DELETE", "ownershipControls", action="s3:PutBucketOwnershipControls"),
    _object("GetObjectAttributes", "GET", "attributes", versioned_action="s3:GetObjectVersionAttributes"),
    _bucket("PostObject", "POST", action=_PUT),
    _bucket("PutObjectLockConfiguration", "PUT", "object-lock", action="s3:PutBucketObjectLockConfiguration"),
    _object("GetObjectRetention", "GET", "retention"),
    _object("PutObjectRetention", "PUT", "retention"),
    _object("GetObjectLegalHold", "GET", "legal-hold"),
    _object("PutObjectLegalHold", "PUT", "legal-hold"),
    _bucket("PutBucketEncryption", "PUT", "encryption", action="s3:PutEncryptionConfiguration"),
    _bucket("DeleteBucketEncryption", "DELETE", "encryption", action="s3:PutEncryptionConfiguration"),
)

_NOT_IMPLEMENTED: tuple[Operation, ...] = (
    _service("ListDirectoryBuckets", "GET", headers=("x-amz-directory-buckets",)),
    _object("WriteGetObjectResponse", "POST", headers=("x-amz-request-route",)),
    _bucket("WriteGetObjectResponse", "POST", headers=("x-amz-request-route",)),
    _bucket("CreateSession", "GET", "session"),
    _bucket("CreateBucketMetadataConfiguration", "POST", "metadataConfiguration"),
    _bucket("CreateBucketMetadataTableConfiguration", "POST", "metadataTable"),
    _bucket("DeleteBucketAnalyticsConfiguration", "DELETE", "analytics", action="s3:PutAnalyticsConfiguration"),
    _bucket("DeleteBucketIntelligentTieringConfiguration", "DELETE", "intelligent-tiering"),
    _bucket("DeleteBucketInventoryConfiguration", "DELETE", "inventory", action="s3:PutInventoryConfiguration"),
    _bucket("DeleteBucketMetadataConfiguration", "DELETE", "metadataConfiguration"),
    _bucket("DeleteBucketMetadataTableConfiguration", "DELETE", "metadataTable"),
    _bucket("DeleteBucketMetricsConfiguration", "DELETE", "metrics", action="s3:PutMetricsConfiguration"),
    _bucket("DeleteBucketReplication", "DELETE", "replication", action="s3:PutReplicationConfiguration"),
    _bucket("DeleteBucketWebsite", "DELETE", "website"),
    _bucket("GetBucketAbac", "GET", "abac"),
    _bucket("GetBucketAnalyticsConfiguration", "GET", "analytics&id", action="s3:GetAnalyticsConfiguration"),
    _bucket("GetBucketIntelligentTieringConfiguration", "GET", "intelligent-tiering&id"),
    _bucket("GetBucketInventoryConfiguration", "GET", "inventory&id", action="s3:GetInventoryConfiguration"),
    _bucket("GetBucketMetadataConfiguration", "GET", "metadataConfiguration"),
    _bucket("GetBucketMetadataTableConfiguration", "GET", "metadataTable"),
    _bucket("GetBucketMetricsConfiguration", "GET", "metrics&id", action="s3:GetMetricsConfiguration"),
    _bucket("ListBucketAnalyticsConfigurations", "GET", "analytics", action="s3:GetAnalyticsConfiguration"),
    _bucket("ListBucketIntelligentTieringConfigurations", "GET", "intelligent-tiering"),
    _bucket("ListBucketInventoryConfigurations", "GET", "inventory", action="s3:GetInventoryConfiguration"),
    _bucket("ListBucketMetricsConfigurations", "GET", "metrics", action="s3:GetMetricsConfiguration"),
    _bucket("PutBucketAbac", "PUT", "abac"),
    _bucket("PutBucketAccelerateConfiguration", "PUT", "accelerate", action="s3:PutAccelerateConfiguration"),
    _bucket("PutBucketAnalyticsConfiguration", "PUT", "analytics", action="s3:PutAnalyticsConfiguration"),
    _bucket("PutBucketIntelligentTieringConfiguration", "PUT", "intelligent-tiering"),
    _bucket("PutBucketInventoryConfiguration", "PUT", "inventory", action="s3:PutInventoryConfiguration"),
    _bucket("PutBucketLogging", "PUT", "logging"),
    _bucket("PutBucketMetricsConfiguration", "PUT", "metrics", action="s3:PutMetricsConfiguration"),
    _bucket("PutBucketNotificationConfiguration", "PUT", "notification", action="s3:PutBucketNotification"),
    _bucket("PutBucketReplication", "PUT", "replication", action="s3:PutReplicationConfiguration"),
    _bucket("PutBucketRequestPayment", "PUT", "requestPayment"),
    _bucket("PutBucketWebsite", "PUT", "website"),
    _bucket("UpdateBucketMetadataAnnotationTableConfiguration", "PUT", "metadataAnnotationTable"),
    _bucket("UpdateBucketMetadataInventoryTableConfiguration", "PUT", "metadataInventoryTable"),
    _bucket("UpdateBucketMetadataJournalTableConfiguration", "PUT", "metadataJournalTable"),
    _object("DeleteObjectAnnotation", "DELETE", "annotation"),
    _object("GetObjectAnnotation", "GET", "annotation&annotationName"),
    _object("GetObjectTorrent", "GET", "torrent", versioned_action="s3:GetObjectVersionTorrent"),
    _object("ListObjectAnnotations", "GET", "annotation"),
    _object("PutObjectAnnotation", "PUT", "annotation"),
    _object("RenameObject", "PUT", "renameObject"),
    _object("RestoreObject", "POST", "restore"),
    _object("SelectObjectContent", "POST", "select", action="s3:GetObject"),
    _object("UpdateObjectEncryption", "PUT", "encryption"),
)

OPERATIONS: tuple[Operation, ...] = (
    *(msgspec.structs.replace(row, implemented=True) for row in _IMPLEMENTED),
    *_NOT_IMPLEMENTED,
)
"""Every operation of the S3 API."""

SUB_RESOURCES = frozenset(part.partition("=")[0] for row in OPERATIONS for part in row.query)
"""Query parameters that can select an operation."""


def _index() -> dict[tuple[str, str], tuple[Operation, ...]]:
    """Rows by method and level, those that ask for more first."""
    rows: dict[tuple[str, str], list[Operation]] = {}
    for row in OPERATIONS:
        rows.setdefault((row.method, row.level), []).append(row)
    return {
        key: tuple(sorted(group, key=lambda row: -len(row.query) - len(row.headers))) for key, group in rows.items()
    }


_ROWS = _index()


_SELECTING_HEADERS = tuple(sorted({header for row in OPERATIONS for header in row.headers}))
_PLAIN = {key: rows[-1] for key, rows in _ROWS.items() if not rows[-1].query and not rows[-1].headers}
_SAFE_METHODS = frozenset({"GET", "HEAD"})


def match(method: str, level: str, query: Mapping[str, str], headers: Mapping[str, str]) -> Operation:
    """The one operation a request names.

    Raises MethodNotAllowed where there is none; also when a changing request carries a sub-resource that no
    operation of its level knows, for it meant anything but the plain operation.
    """
    plain = _PLAIN.get((method, level))
    selected = not SUB_RESOURCES.isdisjoint(query)
    if plain is not None and not selected and not any(name in headers for name in _SELECTING_HEADERS):
        return plain
    for row in _ROWS.get((method, level), ()):
        if all(_present(part, query) for part in row.query) and all(name in headers for name in row.headers):
            if selected and not row.query and method not in _SAFE_METHODS:
                break
            return row
    raise S3Error("MethodNotAllowed", Method=method, ResourceType=level.upper())


def _present(part: str, query: Mapping[str, str]) -> bool:
    name, equals, value = part.partition("=")
    return query.get(name) == value if equals else name in query
