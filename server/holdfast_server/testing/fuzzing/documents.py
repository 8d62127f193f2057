"""Targets: every XML document that requests bring, damaged and made up.

A reader gives its value or S3's error, nothing else, and the error can be read by every XML parser.  What was accepted
and what is then shown to clients must be the same document: read, written and read again it has not changed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

from hypothesis import strategies as st

from holdfast_server.s3.acl import ALL_USERS, acl_xml, parse_acl
from holdfast_server.s3.cors import cors_xml, parse_cors
from holdfast_server.s3.documents_in import parse_complete, parse_create_bucket, parse_delete, parse_versioning
from holdfast_server.s3.documents_out import Owner
from holdfast_server.s3.encryption import bucket_encryption_xml, parse_bucket_encryption
from holdfast_server.s3.errors import S3Error, error_xml
from holdfast_server.s3.lifecycle import lifecycle_xml, parse_lifecycle
from holdfast_server.s3.lock_documents import parse_legal_hold, parse_lock_configuration, parse_retention
from holdfast_server.s3.tags import MAX_BUCKET_TAGS, parse_tagging, tagging_xml
from holdfast_server.s3.xml_tree import Element, parse
from holdfast_server.testing.fuzzing.damage import damaged
from holdfast_server.testing.fuzzing.target import Target, pure

OWNER = "0" * 64
_NS = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
_XSI = 'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
_VALID = [
    f"<CreateBucketConfiguration {_NS}><LocationConstraint>eu</LocationConstraint></CreateBucketConfiguration>",
    f"<VersioningConfiguration {_NS}><Status>Enabled</Status></VersioningConfiguration>",
    f"<Delete {_NS}><Quiet>true</Quiet><Object><Key> a&amp;b\n</Key><VersionId>null</VersionId></Object></Delete>",
    f"<CompleteMultipartUpload {_NS}><Part><PartNumber>1</PartNumber><ETag>&quot;a&quot;</ETag><ChecksumCRC32>AAAAAA=="
    "</ChecksumCRC32></Part><Part><PartNumber>2</PartNumber><ETag>b</ETag></Part></CompleteMultipartUpload>",
    "<CORSConfiguration><CORSRule><ID>one</ID><AllowedOrigin>https://*.example.com</AllowedOrigin><AllowedMethod>PUT"
    "</AllowedMethod><AllowedHeader>*</AllowedHeader><ExposeHeader>ETag</ExposeHeader><MaxAgeSeconds>30"
    "</MaxAgeSeconds></CORSRule></CORSConfiguration>",
    "<Tagging><TagSet><Tag><Key>a b</Key><Value>ü+=</Value></Tag><Tag><Key>c</Key><Value/></Tag></TagSet></Tagging>",
    f"<AccessControlPolicy {_XSI}><Owner><ID>{OWNER}</ID></Owner><AccessControlList><Grant><Grantee "
    f'xsi:type="Group"><URI>{ALL_USERS}</URI></Grantee><Permission>READ</Permission></Grant><Grant><Grantee>'
    f"<ID>{OWNER}</ID></Grantee><Permission>FULL_CONTROL</Permission></Grant></AccessControlList>"
    "</AccessControlPolicy>",
    f"<ServerSideEncryptionConfiguration {_NS}><Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>aws:kms"
    "</SSEAlgorithm><KMSMasterKeyID>key-1</KMSMasterKeyID></ApplyServerSideEncryptionByDefault><BucketKeyEnabled>true"
    "</BucketKeyEnabled></Rule></ServerSideEncryptionConfiguration>",
    f"<ObjectLockConfiguration {_NS}><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention>"
    "<Mode>GOVERNANCE</Mode><Days>3</Days></DefaultRetention></Rule></ObjectLockConfiguration>",
    f"<Retention {_NS}><Mode>COMPLIANCE</Mode><RetainUntilDate>2030-01-01T00:00:00Z</RetainUntilDate></Retention>",
    f"<LegalHold {_NS}><Status>ON</Status></LegalHold>",
    "<LifecycleConfiguration><Rule><ID>one</ID><Status>Enabled</Status><Filter><And><Prefix>a</Prefix><Tag><Key>k</Key>"
    "<Value>v</Value></Tag><ObjectSizeGreaterThan>5</ObjectSizeGreaterThan></And></Filter><Expiration><Days>3</Days>"
    "</Expiration><NoncurrentVersionExpiration><NoncurrentDays>2</NoncurrentDays></NoncurrentVersionExpiration></Rule>"
    "</LifecycleConfiguration>",
    "<LifecycleConfiguration><Rule><Status>Disabled</Status><Prefix/><Expiration><Date>2030-01-01T00:00:00Z</Date>"
    "</Expiration><AbortIncompleteMultipartUpload><DaysAfterInitiation>1</DaysAfterInitiation>"
    "</AbortIncompleteMultipartUpload></Rule></LifecycleConfiguration>",
]
_TOKENS = [
    b"<", b">", b"</", b"/>", b"&", b"&amp;", b"&#0;", b"&#x1F600;", b"&#55296;", b"&lol;", b"<!--", b"-->", b"]]>",
    b"<![CDATA[", b'<?xml version="1.0" encoding="utf-16"?>', b'<?xml version="1.0" encoding="x"?>', b"\xff\xfe",
    b'<!DOCTYPE a [<!ENTITY l "ha">]>', b"<Key>", b"<Object>", b"<Part>", b"<Tag>", b"<Grant>", b"<CORSRule>", b"*",
    b"\x00", b"\xc3", b"\xed\xa0\x80", b"9" * 30, b"-1", "²".encode(), "١".encode(), b"<a>" * 40, b" a='b'" * 100,
]  # fmt: skip
_NAMES = [
    "Delete", "Object", "Key", "Tagging", "TagSet", "Tag", "Value", "CORSConfiguration", "CORSRule", "Part", "ETag",
    "AllowedMethod", "AllowedOrigin", "PartNumber", "CompleteMultipartUpload", "Owner", "ID", "Grant", "Grantee",
    "AccessControlPolicy", "AccessControlList", "Permission", "Status", "VersioningConfiguration", "Rule", "Filter",
    "LifecycleConfiguration", "Expiration", "Days", "Date", "And", "Prefix",
]  # fmt: skip
_TEXTS = ["", "a", "1", "PUT", "GET", "*", "Enabled", OWNER, "READ", " ", "\U0001f600", "&lt;", "10001", "&#1;"]


def _tag(name: str, inner: list[str]) -> str:
    return f"<{name}>{''.join(inner)}</{name}>"


_TREES = st.recursive(
    st.sampled_from(_TEXTS),
    lambda inner: st.builds(_tag, st.sampled_from(_NAMES), st.lists(inner, max_size=4)),
    max_leaves=12,
)
_MADE_UP = st.builds(_tag, st.sampled_from(_NAMES), st.lists(_TREES, max_size=4))


def find_account(account: str) -> str | None:
    """The one account there is."""
    return "root" if account == OWNER else None


def _same_again(read: Callable[[bytes], Any], write: Callable[[Any], bytes], body: bytes) -> None:
    value = read(body)
    assert read(write(value)) == value


_READERS: dict[str, Callable[[bytes], object]] = {
    "create": parse_create_bucket,
    "versioning": parse_versioning,
    "delete": parse_delete,
    "complete": parse_complete,
    "cors": lambda body: _same_again(parse_cors, cors_xml, body),
    "tags": lambda body: _same_again(lambda again: parse_tagging(again, MAX_BUCKET_TAGS), tagging_xml, body),
    "lifecycle": lambda body: _same_again(lambda again: parse_lifecycle(again, lambda: "id"), lifecycle_xml, body),
    "encryption": lambda body: _same_again(parse_bucket_encryption, bucket_encryption_xml, body),
    "lock": parse_lock_configuration,
    "retention": parse_retention,
    "legal hold": parse_legal_hold,
    "acl": lambda body: _same_again(
        lambda again: parse_acl(again, OWNER, find_account),
        lambda grants: acl_xml(Owner(OWNER, "root"), grants, find_account),
        body,
    ),
}


def _equal(ours: Element, theirs: ElementTree.Element) -> None:
    assert ours.name == theirs.tag.rpartition("}")[2]
    texts = [theirs.text or "", *[child.tail or "" for child in theirs]]
    assert ours.text == "".join(texts)
    assert len(ours.children) == len(theirs)
    for mine, other in zip(ours.children, theirs, strict=True):
        _equal(mine, other)


def check_document(body: bytes) -> None:
    for read in _READERS.values():
        try:
            read(body)
        except S3Error as error:
            shown = error_xml(error, "/a\x00\x1b\udcff", "R")  # whatever the resource was called
            ElementTree.fromstring(shown)
    try:
        root = parse(body, 1 << 20)
    except S3Error:
        return
    _equal(root, ElementTree.fromstring(body))


TARGETS = [
    Target("XML documents", damaged(st.sampled_from(_VALID).map(str.encode), _TOKENS), pure(check_document)),
    Target("made-up XML", damaged(_MADE_UP.map(str.encode), _TOKENS), pure(check_document)),
]
