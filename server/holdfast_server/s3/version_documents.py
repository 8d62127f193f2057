"""The XML documents about versions: ListObjectVersions' answer.  As `documents_out`, whose pieces it uses."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from holdfast_server.s3.documents_out import ListedObject, Owner, document
from holdfast_server.s3.headers import iso_date
from holdfast_server.s3.names import encode_name
from holdfast_server.s3.xml_text import escape


class ListedObjectVersion(msgspec.Struct, frozen=True):
    """One version of a listing."""

    listed: ListedObject
    version_id: str
    latest: bool
    marker: bool
    """A delete marker."""


class VersionPage(msgspec.Struct, frozen=True, kw_only=True):
    """ListObjectVersions."""

    bucket: str
    prefix: str
    delimiter: str
    key_marker: str
    version_id_marker: str
    max_keys: int
    encoding_type: str
    versions: Sequence[ListedObjectVersion]
    common_prefixes: Sequence[str]
    is_truncated: bool
    next_key_marker: str
    next_version_id_marker: str
    """These two count only when the page is truncated."""
    owner: Owner


def list_object_versions_xml(page: VersionPage) -> bytes:
    """ListObjectVersions."""
    encode = page.encoding_type

    def element(name: str, value: str) -> str:
        return f"<{name}>{escape(value)}</{name}>"

    def optional(name: str, value: str) -> str:
        return element(name, value) if value else ""

    parts = [
        element("Name", page.bucket),
        element("Prefix", encode_name(page.prefix, encode)),
        element("KeyMarker", encode_name(page.key_marker, encode)),
        element("VersionIdMarker", page.version_id_marker),
    ]
    if page.is_truncated:
        parts.append(element("NextKeyMarker", encode_name(page.next_key_marker, encode)))
        parts.append(optional("NextVersionIdMarker", page.next_version_id_marker))
    parts += [
        f"<MaxKeys>{page.max_keys}</MaxKeys>",
        optional("Delimiter", encode_name(page.delimiter, encode)),
        optional("EncodingType", encode),
        f"<IsTruncated>{'true' if page.is_truncated else 'false'}</IsTruncated>",
    ]
    owner = page.owner.xml()
    parts += [_version_xml(version, owner, encode) for version in page.versions]
    prefixes = [element("Prefix", encode_name(prefix, encode)) for prefix in page.common_prefixes]
    parts += [f"<CommonPrefixes>{prefix}</CommonPrefixes>" for prefix in prefixes]
    return document("ListVersionsResult", "".join(parts))


def _version_xml(version: ListedObjectVersion, owner: str, encoding_type: str) -> str:
    listed = version.listed
    if listed.owner is not None:
        owner = listed.owner.xml()
    head = (
        f"<Key>{escape(encode_name(listed.key, encoding_type))}</Key><VersionId>{version.version_id}</VersionId>"
        f"<IsLatest>{'true' if version.latest else 'false'}</IsLatest>"
        f"<LastModified>{iso_date(listed.modified_ms)}</LastModified>"
    )
    if version.marker:
        return f"<DeleteMarker>{head}{owner}</DeleteMarker>"
    checksum = ""
    if listed.checksum_algorithm:
        checksum = f"<ChecksumAlgorithm>{listed.checksum_algorithm}</ChecksumAlgorithm>"
        checksum += f"<ChecksumType>{listed.checksum_type}</ChecksumType>"
    return (
        f"<Version>{head}<ETag>&quot;{escape(listed.etag)}&quot;</ETag>{checksum}<Size>{listed.size_bytes}</Size>"
        f"{owner}<StorageClass>{listed.storage_class}</StorageClass></Version>"
    )
