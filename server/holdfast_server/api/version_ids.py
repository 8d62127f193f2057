"""Versions in requests and answers: which one is asked for, what is said of the one that is answered with.

A version id is sixteen hexadecimal digits, or `null`; opaque to clients.  Buckets that never kept versions have
objects with the id `null` and never speak of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from holdfast_server.api.bucket_record import BucketRecord
from holdfast_server.objects.port import NULL_VERSION, Objects, Record
from holdfast_server.objects.record import PLACE_SIZE_BYTES
from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.headers import http_date

NULL_VERSION_ID = "null"
VERSION_ID_HEADER = "x-amz-version-id"
DELETE_MARKER_HEADER = "x-amz-delete-marker"
_FORM = re.compile(rf"[0-9a-f]{{{2 * PLACE_SIZE_BYTES}}}")


def parse_version_id(text: str, name: str = "versionId") -> bytes:
    """As the object layer takes it.  Raises InvalidArgument for what never was an id."""
    if text == NULL_VERSION_ID:
        return NULL_VERSION
    if not _FORM.fullmatch(text):
        what = "Invalid version id specified" if text else "Version id cannot be the empty string"
        raise S3Error("InvalidArgument", what, ArgumentName=name, ArgumentValue=text)
    return bytes.fromhex(text)


def asked_version(query: Mapping[str, str]) -> bytes | None:
    """`versionId`; None where the request is for the current version.  Raises InvalidArgument."""
    text = query.get("versionId")
    return None if text is None else parse_version_id(text)


def refuse_version(query: Mapping[str, str]) -> None:
    """Of a write: what names one is not done, for whoever asks expects that version to be replaced.  Raises
    InvalidArgument."""
    if "versionId" in query:
        what = "This operation does not accept a version-id."
        raise S3Error("InvalidArgument", what, ArgumentName="versionId", ArgumentValue=query["versionId"])


def version_id(record: Record) -> str:
    return NULL_VERSION_ID if record.null else record.place.hex()


def version_headers(record: Record, bucket: BucketRecord | None = None) -> dict[str, str]:
    """What an answer says of the version it is about; `bucket` is given where the record itself may be from before the
    bucket kept versions."""
    if record.version is None and (bucket is None or not bucket.versioning):
        return {}
    headers = {VERSION_ID_HEADER: version_id(record)}
    if record.marker:
        headers[DELETE_MARKER_HEADER] = "true"
    return headers


def written_headers(record: Record) -> dict[str, str]:
    """What is said of a version that was just written; of `null` nothing, as S3 has it."""
    return {} if record.null else version_headers(record)


def absence(bucket: BucketRecord, key: str, version: bytes | None) -> S3Error:
    """What is said where nothing was found."""
    if version is None or (version == NULL_VERSION and not bucket.versioning):
        return S3Error("NoSuchKey", Key=key)
    asked = NULL_VERSION_ID if version == NULL_VERSION else version.hex()
    return S3Error("NoSuchVersion", Key=key, VersionId=asked)


def present(
    record: Record | None, bucket: BucketRecord, key: str, version: bytes | None, method: str = "GET"
) -> Record:
    """The object that was found; `method` of the request that asks for it.  Raises NoSuchKey, NoSuchVersion, and for a
    delete marker what S3 says of one."""
    if record is None:
        raise absence(bucket, key, version)
    if not record.marker:
        return record
    if version is None:
        raise S3Error("NoSuchKey", Key=key).with_headers(version_headers(record))
    refusal = S3Error("MethodNotAllowed", Method=method, ResourceType="DeleteMarker")
    told = {**version_headers(record), "allow": "DELETE", "last-modified": http_date(record.modified_ms)}
    raise refusal.with_headers(told)


async def amended(
    objects: Objects,
    bucket: BucketRecord,
    key: str,
    change: Callable[[Record], dict[str, str]],
    version: bytes | None,
    method: str,
) -> Record:
    """The version with its headers changed (`Objects.amend_object`).  Raises what `present` does: a delete marker can
    only be deleted, and its id is no unknown one."""
    record = await objects.amend_object(bucket.id, key, change, version)
    if record is None and version is not None:
        found = await objects.head_object(bucket.id, key, version)
        record = found if found is not None and found.marker else None
    return present(record, bucket, key, version, method)
