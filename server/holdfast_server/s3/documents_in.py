"""The XML documents of requests, parsed and checked: what comes out can be relied upon.

Everything a document may hold that has no meaning here (an owner id, unknown elements) is passed over; what
is missing or wrong raises MalformedXML, or the more precise error S3 has for it.
"""

from __future__ import annotations

import re

import msgspec

from holdfast_server.s3.checksums import ALGORITHMS
from holdfast_server.s3.conditions import DeleteCondition, delete_condition
from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.headers import unquote_etag
from holdfast_server.s3.names import MAX_LIST_COUNT, MAX_PART_NUMBER
from holdfast_server.s3.request import check_key
from holdfast_server.s3.tags import MAX_BUCKET_TAGS, MAX_TAGGING_SIZE_BYTES, parse_tags
from holdfast_server.s3.xml_tree import MAX_ELEMENTS, Element, parse

MAX_BUCKET_CONFIGURATION_SIZE_BYTES = 64 << 10
MAX_NEW_BUCKET_SIZE_BYTES = MAX_BUCKET_CONFIGURATION_SIZE_BYTES + MAX_TAGGING_SIZE_BYTES
MAX_DELETE_SIZE_BYTES = 4 << 20
"""1,000 keys of 1,024 bytes, escaped, with version ids."""
MAX_DELETE_ELEMENTS = 16 * MAX_LIST_COUNT
"""More than twice of what these keys take.  Any user may send such a document to any bucket, before anything is
decided about it, and each of its elements takes some microseconds of everybody's time."""
MAX_COMPLETE_SIZE_BYTES = 8 << 20
"""10,000 parts with ETags and checksums."""


_NUMBER = re.compile(r"-?\d{1,10}", re.ASCII)


class DeleteEntry(msgspec.Struct, frozen=True):
    """One key to delete."""

    key: str
    version_id: str = ""
    condition: DeleteCondition | None = None


class DeleteRequest(msgspec.Struct, frozen=True):
    """DeleteObjects' body."""

    entries: list[DeleteEntry]
    quiet: bool


class CompletedPart(msgspec.Struct, frozen=True):
    """One part as CompleteMultipartUpload names it."""

    number: int
    etag: str
    """Bare."""
    checksums: dict[str, str] = {}
    """Algorithm name → base64, where the client repeats them."""


def _root(body: bytes, name: str, max_size_bytes: int, max_elements: int = MAX_ELEMENTS) -> Element:
    if not body.strip():
        raise S3Error("MissingRequestBodyError")
    root = parse(body, max_size_bytes, max_elements)
    if root.name != name:
        raise S3Error("MalformedXML")
    return root


class NewBucket(msgspec.Struct, frozen=True):
    """CreateBucket's body."""

    location: str = ""
    """The location constraint; empty where there is none."""
    tags: dict[str, str] = {}


def parse_create_bucket(body: bytes) -> NewBucket:
    """The body may be empty too.  Raises MalformedXML, InvalidTag."""
    if not body.strip():
        return NewBucket()
    root = _root(body, "CreateBucketConfiguration", MAX_NEW_BUCKET_SIZE_BYTES)
    tags = root.find("Tags")
    return NewBucket(
        location=root.value("LocationConstraint") or "",
        tags=parse_tags(tags, MAX_BUCKET_TAGS) if tags is not None else {},
    )


class VersioningRequest(msgspec.Struct, frozen=True):
    """PutBucketVersioning's body."""

    enabled: bool
    """Else suspended."""
    mfa_delete: bool


def parse_versioning(body: bytes) -> VersioningRequest:
    """Raises MalformedXML, IllegalVersioningConfigurationException, and NotImplemented for MinIO's exceptions, which
    would otherwise seem to have been taken."""
    root = _root(body, "VersioningConfiguration", MAX_BUCKET_CONFIGURATION_SIZE_BYTES)
    if root.find("ExcludedPrefixes") is not None or (root.value("ExcludeFolders") or "false").lower() != "false":
        raise S3Error("NotImplemented", "Prefixes and folders without versions are not implemented.")
    status, mfa = root.value("Status"), root.value("MfaDelete") or "Disabled"
    if status is None:
        raise S3Error("IllegalVersioningConfigurationException")
    if status not in ("Enabled", "Suspended") or mfa not in ("Enabled", "Disabled"):
        raise S3Error("MalformedXML")
    return VersioningRequest(status == "Enabled", mfa == "Enabled")


def parse_delete(body: bytes) -> DeleteRequest:
    """DeleteObjects' keys in order: 1 to 1,000.  Raises MalformedXML, and KeyTooLongError for a key."""
    root = _root(body, "Delete", MAX_DELETE_SIZE_BYTES, MAX_DELETE_ELEMENTS)
    entries = []
    for element in root.all("Object"):
        key = element.find("Key")
        if key is None or not key.text:
            raise S3Error("MalformedXML")
        entries.append(
            DeleteEntry(
                # The text as it is: keys may begin or end with blanks.
                check_key(key.text),
                element.value("VersionId") or "",
                delete_condition(
                    element.value("ETag") or None, element.value("LastModifiedTime"), element.value("Size")
                ),
            )
        )
    if not 1 <= len(entries) <= MAX_LIST_COUNT:
        raise S3Error("MalformedXML")
    return DeleteRequest(entries, (root.value("Quiet") or "").lower() == "true")


def parse_complete(body: bytes) -> list[CompletedPart]:
    """CompleteMultipartUpload's parts, in strictly ascending order, at least one.

    Raises MalformedXML, InvalidPartOrder or InvalidArgument.  That parts exist and match is checked later.
    """
    if not body.strip():
        raise S3Error("MalformedXML")  # here S3 calls it that
    root = _root(body, "CompleteMultipartUpload", MAX_COMPLETE_SIZE_BYTES)
    parts: list[CompletedPart] = []
    for element in root.all("Part"):
        number, etag = element.value("PartNumber"), element.value("ETag")
        if not number or not etag or _NUMBER.fullmatch(number) is None:
            raise S3Error("MalformedXML")
        if not 1 <= int(number) <= MAX_PART_NUMBER:
            raise S3Error(
                "InvalidArgument",
                f"Part number must be an integer between 1 and {MAX_PART_NUMBER}, inclusive",
                ArgumentName="partNumber",
                ArgumentValue=number,
            )
        if parts and int(number) <= parts[-1].number:
            raise S3Error("InvalidPartOrder")
        parts.append(CompletedPart(int(number), unquote_etag(etag), _checksums(element)))
    if not parts:
        raise S3Error("MalformedXML")
    return parts


def _checksums(part: Element) -> dict[str, str]:
    found = {}
    for child in part.children:
        name = child.name.removeprefix("Checksum")
        if name != child.name and name in ALGORITHMS:
            found[name] = child.text.strip()
    return found
