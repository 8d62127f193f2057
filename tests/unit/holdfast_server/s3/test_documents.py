"""XML out is well-formed whatever the keys; XML in is refused unless it is small, plain and right."""

import re
import time
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_server.s3 import documents_in, documents_out
from holdfast_server.s3.acl import acl_xml, private
from holdfast_server.s3.documents_out import (
    DeletedObject,
    DeleteFailure,
    ListedObject,
    ListedPart,
    ListedUpload,
    ObjectPage,
    Owner,
)
from holdfast_server.s3.errors import ERRORS, S3Error, error_xml
from holdfast_server.s3.xml_text import NAMESPACE, escape, escape_for_people
from holdfast_server.s3.xml_tree import parse

OWNER = Owner("0" * 64, "Root & Co")
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
NS = f"{{{NAMESPACE}}}"
# What XML 1.0 can carry: the rest is written as references, which only some parsers read.
XML_TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff"))


def page(**changes) -> ObjectPage:
    fields = {
        "bucket": "b",
        "prefix": "",
        "delimiter": "",
        "max_keys": 1000,
        "encoding_type": "",
        "objects": [],
        "common_prefixes": [],
        "is_truncated": False,
    }
    return ObjectPage(**{**fields, **changes})


@given(TEXT)
def test_escaping_leaves_nothing_that_xml_forbids(text):
    escaped = escape(text)
    assert not re.search('[<>"\r\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]', escaped)
    assert re.sub("&(?:amp|lt|gt|quot|#x[0-9a-f]+);", "", escaped).count("&") == 0


@given(XML_TEXT)
def test_escaped_text_reads_back(text):
    assert (ET.fromstring(f"<a>{escape(text)}</a>").text or "") == text
    assert (ET.fromstring(f'<a b="{escape(text)}"/>').get("b") or "") == text


def test_control_characters_are_written_as_references():
    assert escape("a\x01\rb\x7f") == "a&#x1;&#xd;b&#x7f;"
    assert escape_for_people("a\x01\rb\x7f\udcff<") == "a\ufffd&#xd;b&#x7f;\ufffd&lt;"


@given(st.lists(XML_TEXT.filter(str.strip), max_size=5), st.sampled_from(["", "url"]))
def test_a_listing_names_every_key(keys, encoding_type):
    from urllib.parse import unquote

    objects = [ListedObject(key, 1_763_676_000_123, "etag", 7) for key in keys]
    body = documents_out.list_objects_v2_xml(
        page(objects=objects, encoding_type=encoding_type, is_truncated=True, owner=OWNER), None, "token&"
    )
    root = ET.fromstring(body)
    names = [element.text for element in root.iter(f"{NS}Key")]
    assert [unquote(name) if encoding_type else name for name in names] == keys
    assert root.findtext(f"{NS}KeyCount") == str(len(keys))
    assert root.findtext(f"{NS}NextContinuationToken") == "token&"
    assert {element.text for element in root.iter(f"{NS}LastModified")} <= {"2025-11-20T22:00:00.123Z"}
    assert {element.text for element in root.iter(f"{NS}ETag")} <= {'"etag"'}


def test_listings_show_what_was_asked():
    first = documents_out.list_objects_v1_xml(
        page(prefix="a b/", delimiter="/", encoding_type="url", common_prefixes=["a b/c/"], is_truncated=True),
        "m",
        "a b/c/",
    )
    root = ET.fromstring(first)
    assert root.findtext(f"{NS}CommonPrefixes/{NS}Prefix") == "a%20b/c/"
    assert root.findtext(f"{NS}NextMarker") == "a%20b/c/"
    assert root.findtext(f"{NS}Delimiter") == "/"
    assert root.findtext(f"{NS}IsTruncated") == "true"
    assert root.find(f"{NS}Contents") is None


def test_every_other_answer_is_well_formed():
    upload = ListedUpload("k<", "id", 0, checksum_algorithm="CRC32", checksum_type="COMPOSITE")
    answers = [
        documents_out.list_buckets_xml(OWNER, [("b", 0)]),
        documents_out.location_xml("eu-west-1"),
        documents_out.copy_object_xml("e", 0, {"ChecksumCRC32": "AAAAAA=="}),
        documents_out.copy_part_xml("e", 0),
        documents_out.create_multipart_upload_xml("b", "k&", "id"),
        documents_out.complete_multipart_upload_xml("http://h/b/k&", "b", "k&", "e-1", {"ChecksumCRC32": "x"}),
        documents_out.list_parts_xml(
            bucket="b",
            key="k<",
            upload=upload,
            owner=OWNER,
            parts=[ListedPart(1, 0, "e", 5, "AAAAAA==")],
            part_number_marker=0,
            max_parts=1000,
            is_truncated=False,
        ),
        documents_out.list_multipart_uploads_xml(
            bucket="b",
            prefix="",
            delimiter="/",
            key_marker="",
            upload_id_marker="",
            max_uploads=1,
            encoding_type="url",
            uploads=[upload],
            common_prefixes=["p/"],
            is_truncated=True,
            next_key_marker="k",
            next_upload_id_marker="id",
            owner=OWNER,
        ),
        documents_out.delete_objects_xml(
            [DeletedObject("k")], [DeleteFailure("q", "AccessDenied", "no & no")], quiet=False
        ),
        documents_out.versioning_xml(),
        documents_out.request_payment_xml(),
        documents_out.accelerate_xml(),
        documents_out.logging_xml(),
        documents_out.notification_xml(),
        acl_xml(OWNER, private(OWNER.id), lambda owner: OWNER.display_name),
    ]
    for answer in answers:
        assert ET.fromstring(answer).tag.startswith(NS)


def test_us_east_1_is_the_empty_location():
    assert not ET.fromstring(documents_out.location_xml("us-east-1")).text


def test_errors_carry_code_message_and_details():
    error = S3Error("NoSuchKey", Key="a<b", VersionId="1")
    root = ET.fromstring(error_xml(error, "/b/a<b", "REQ1"))
    assert {child.tag: child.text for child in root} == {
        "Code": "NoSuchKey",
        "Message": ERRORS["NoSuchKey"][1],
        "Key": "a<b",
        "VersionId": "1",
        "Resource": "/b/a<b",
        "RequestId": "REQ1",
        "HostId": None,
    }
    assert all(300 <= status < 600 and message for status, message in ERRORS.values())


COMPLETE = "<CompleteMultipartUpload>{}</CompleteMultipartUpload>"
PART = "<Part><PartNumber>{}</PartNumber><ETag>{}</ETag></Part>"


def complete(*parts: tuple[object, str]) -> bytes:
    return COMPLETE.format("".join(PART.format(*part) for part in parts)).encode()


def code_of(function, *arguments) -> str:
    try:
        function(*arguments)
    except S3Error as error:
        return error.code
    return "ok"


def test_complete_takes_etags_quoted_escaped_or_bare_and_any_namespace():
    body = complete((1, "abc"), (2, '"abc"'), (10000, "&quot;abc&quot;"))
    parts = documents_in.parse_complete(body)
    assert [(part.number, part.etag) for part in parts] == [(1, "abc"), (2, "abc"), (10000, "abc")]
    for namespace in (NAMESPACE, "urn:other"):
        named = body.replace(b"<CompleteMultipartUpload>", b'<CompleteMultipartUpload xmlns="%s">' % namespace.encode())
        assert documents_in.parse_complete(named) == parts
    with_checksum = body.replace(b"</ETag></Part>", b"</ETag><ChecksumCRC32>AAAAAA==</ChecksumCRC32></Part>", 1)
    assert documents_in.parse_complete(with_checksum)[0].checksums == {"CRC32": "AAAAAA=="}


def test_complete_takes_ten_thousand_parts():
    body = complete(*[(number, '"' + "a" * 32 + '"') for number in range(1, 10001)])
    assert len(documents_in.parse_complete(body)) == 10000


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "MalformedXML"),
        (b"<CompleteMultipartUpload/>", "MalformedXML"),
        (b"<Other/>", "MalformedXML"),
        (b"not xml", "MalformedXML"),
        (b"<CompleteMultipartUpload>", "MalformedXML"),
        (complete((2, "a"), (1, "a")), "InvalidPartOrder"),
        (complete((1, "a"), (1, "a")), "InvalidPartOrder"),
        (complete((0, "a")), "InvalidArgument"),
        (complete((10001, "a")), "InvalidArgument"),
        (complete(("x", "a")), "MalformedXML"),
        (complete((1, "")), "MalformedXML"),
        (b"<CompleteMultipartUpload><Part><ETag>a</ETag></Part></CompleteMultipartUpload>", "MalformedXML"),
        (b"<CompleteMultipartUpload>" + b" " * (9 << 20), "MalformedXML"),
    ],
)
def test_bad_completions(body, code):
    assert code_of(documents_in.parse_complete, body) == code


def test_delete_keeps_keys_exactly():
    body = (
        b"<Delete><Quiet>true</Quiet><Object><Key> a &amp; b </Key></Object>"
        b"<Object><Key>c</Key><VersionId>null</VersionId></Object></Delete>"
    )
    request = documents_in.parse_delete(body)
    assert [(entry.key, entry.version_id) for entry in request.entries] == [(" a & b ", ""), ("c", "null")]
    assert request.quiet


def test_bad_deletes():
    keys = b"<Object><Key>k</Key></Object>"
    assert code_of(documents_in.parse_delete, b"<Delete>" + keys * 1000 + b"</Delete>") == "ok"
    assert code_of(documents_in.parse_delete, b"<Delete>" + keys * 1001 + b"</Delete>") == "MalformedXML"
    assert code_of(documents_in.parse_delete, b"<Delete/>") == "MalformedXML"
    assert code_of(documents_in.parse_delete, b"<Delete><Object/></Delete>") == "MalformedXML"
    others = b"<a/>" * documents_in.MAX_DELETE_ELEMENTS
    assert code_of(documents_in.parse_delete, b"<Delete>" + keys + others + b"</Delete>") == "MalformedXML"
    long = b"<Delete><Object><Key>" + b"k" * 1025 + b"</Key></Object></Delete>"
    assert code_of(documents_in.parse_delete, long) == "KeyTooLongError"


def test_minios_exceptions_from_versions_are_not_taken_for_granted():
    body = b"<VersioningConfiguration><Status>Enabled</Status>%s</VersioningConfiguration>"
    for extra in (b"", b"<ExcludeFolders>false</ExcludeFolders>"):
        assert documents_in.parse_versioning(body % extra).enabled
    prefix = b"<ExcludedPrefixes><Prefix>tmp/</Prefix></ExcludedPrefixes>"
    for extra in (prefix, b"<ExcludeFolders>true</ExcludeFolders>"):
        with pytest.raises(S3Error, match="NotImplemented"):
            documents_in.parse_versioning(body % extra)


def test_create_bucket_configuration():
    assert documents_in.parse_create_bucket(b"") == documents_in.NewBucket()
    location, tag = b"<LocationConstraint> eu </LocationConstraint>", b"<Tag><Key>a</Key><Value>b</Value></Tag>"
    body = b"<CreateBucketConfiguration>%s<Tags>%s</Tags></CreateBucketConfiguration>"
    assert documents_in.parse_create_bucket(body % (location, tag)) == documents_in.NewBucket("eu", {"a": "b"})
    for tags, code in ((tag * 2, "InvalidTag"), (b"<Tag/>", "MalformedXML"), (b"<Other/>", "MalformedXML")):
        with pytest.raises(S3Error, match=code):
            documents_in.parse_create_bucket(body % (location, tags))


@pytest.mark.parametrize(
    "body",
    [
        b'<!DOCTYPE a [<!ENTITY e "x">]><a>&e;</a>',
        b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>',
        b"<a>&undefined;</a>",
        b"<a>" * 100,
        b"<a>" + b"<b/>" * 100_001 + b"</a>",
        b"<a " + b" ".join(b"a%d='>'" % number for number in range(17)) + b"/>",
        b"<a " + b" ".join(b'xmlns:a%d = "u"' % number for number in range(17)) + b"/>",
        b"<a>" + b'<b c="" d="" xmlns:e="u"/>' * 30_000 + b"</a>",
        "<a/>".encode("utf-16"),
        b'<?xml version="1.0" encoding="klingon"?><a/>',
        b"<a/><b/>",
        b"\xff\xfe",
        b"<a>\x00</a>",
        b"<a>" + b"x" * 2_000_000 + b"</a>",
    ],
)
def test_dangerous_documents_are_refused(body):
    with pytest.raises(S3Error, match="MalformedXML"):
        parse(body, 1_000_000)


def test_what_attributes_there_are_is_no_matter_of_seconds():
    """One element with 380,000 of them took two, on whichever thread."""
    body = b"<Delete " + b" ".join(b'a%x="" ' % number for number in range(300_000)) + b"/>"
    began = time.monotonic()
    assert code_of(documents_in.parse_delete, body) == "MalformedXML"
    assert time.monotonic() - began < 0.5


@given(st.text("a<>\"'= /", max_size=60))
def test_no_document_is_refused_for_attributes_that_it_does_not_have(text):
    body = f"""<a xmlns="u" xmlns:x='v' x:type="{escape(text)}">{escape(text)}<b/></a>""".encode()
    assert parse(body, 1000).text == text


@given(st.binary(max_size=200))
def test_no_bytes_break_the_parser(body):
    assert code_of(parse, body, 1000) in ("ok", "MalformedXML")
