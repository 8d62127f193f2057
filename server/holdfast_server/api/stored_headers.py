"""From an object's record to the headers of a response, and from a request's headers to what a record keeps.

Shared by the families that write objects (put, copy, multipart) and those that show them (get, head, copy).
Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

from holdfast_server.objects.record import Record
from holdfast_server.s3.checksums import ALGORITHMS, FULL_OBJECT
from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.headers import http_date, object_headers, quote_etag, storage_class
from holdfast_server.s3.tags import TAGGING_HEADER, Tags, decode_tags, encode_tags, parse_tagging_header

TYPE = "type"
"""The key of a record's checksums that holds COMPOSITE or FULL_OBJECT."""
STORAGE_CLASS_HEADER = "x-amz-storage-class"
TAG_COUNT_HEADER = "x-amz-tagging-count"

_UNIMPLEMENTED = ("x-amz-write-offset-bytes", "x-amz-copy-source-range")
"""What a client must not believe was done."""

TAGS = "x-holdfast-tags"
"""An object's tags as `tags.encode_tags` writes them, among its headers; never sent as such."""
ACL = "x-holdfast-acl"
"""An object's owner and grants (`api.access`), likewise."""
_PRIVATE = "x-holdfast-"
"""What is kept among an object's headers for this layer alone."""


def headers_to_keep(headers: Mapping[str, str]) -> dict[str, str]:
    """What an object written by this request remembers.  Raises S3Error."""
    for name in _UNIMPLEMENTED:
        if headers.get(name):
            raise S3Error("NotImplemented", f"The header {name} is not implemented.", Header=name)
    kept = object_headers(headers)
    for name, value in kept.items():
        try:
            (name + value).encode()
        except UnicodeEncodeError as error:
            # What is not UTF-8 could not be sent back as it came.
            raise S3Error("InvalidArgument", "Header values must be UTF-8", ArgumentName=name) from error
    tags = parse_tagging_header(headers.get(TAGGING_HEADER, ""))
    if tags:
        kept[TAGS] = encode_tags(tags)
    wanted = storage_class(headers)
    if wanted != "STANDARD":
        kept[STORAGE_CLASS_HEADER] = wanted
    return kept


def shown_headers(record: Record) -> dict[str, str]:
    """What a GET or HEAD sends of the kept headers, and how many tags there are."""
    shown = {name: value for name, value in record.headers.items() if not name.startswith(_PRIVATE)}
    if shown.get(STORAGE_CLASS_HEADER) == "STANDARD":
        del shown[STORAGE_CLASS_HEADER]
    tags = record.headers.get(TAGS)
    if tags:
        shown[TAG_COUNT_HEADER] = str(tags.count("&") + 1)
    return shown


def object_tags(record: Record) -> Tags:
    return decode_tags(record.headers.get(TAGS, ""))


def with_tags(headers: Mapping[str, str], tags: Mapping[str, str]) -> dict[str, str]:
    """The headers of an object that has these tags, and no others."""
    kept = {name: value for name, value in headers.items() if name != TAGS}
    return {**kept, TAGS: encode_tags(tags)} if tags else kept


def record_storage_class(record: Record) -> str:
    return record.headers.get(STORAGE_CLASS_HEADER, "STANDARD")


def validators(record: Record) -> dict[str, str]:
    """ETag and Last-Modified."""
    return {"etag": quote_etag(record.etag), "last-modified": http_date(record.modified_ms)}


def algorithm_of(checksums: Mapping[str, str]) -> str:
    """The name of the algorithm a record has a checksum of; empty where it has none."""
    for name in checksums:
        if name in ALGORITHMS:
            return name
    return ""


def checksum_headers(checksums: Mapping[str, str]) -> dict[str, str]:
    """`x-amz-checksum-*` of an object or part."""
    name = algorithm_of(checksums)
    if not name:
        return {}
    return {ALGORITHMS[name].header: checksums[name], "x-amz-checksum-type": checksums.get(TYPE, FULL_OBJECT)}


def part_checksum_headers(record: Record, number: int) -> dict[str, str]:
    """`x-amz-checksum-*` of one part of an object."""
    name = algorithm_of(record.checksums)
    checksum = next((part.checksum for part in record.parts if part.number == number), "")
    if not name or not checksum:
        return {}
    return {ALGORITHMS[name].header: checksum, "x-amz-checksum-type": record.checksums.get(TYPE, FULL_OBJECT)}


def checksum_elements(checksums: Mapping[str, str]) -> dict[str, str]:
    """The same as XML elements."""
    name = algorithm_of(checksums)
    if not name:
        return {}
    return {ALGORITHMS[name].element: checksums[name], "ChecksumType": checksums.get(TYPE, FULL_OBJECT)}
