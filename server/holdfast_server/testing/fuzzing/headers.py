"""Targets: headers and parameters that have a syntax of their own, and the forms of IAM's and STS's calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from hypothesis import strategies as st

from holdfast_server.iam.errors import IamError
from holdfast_server.iam.parameters import parse_form
from holdfast_server.s3 import checksums, conditions, encryption, headers, names, ranges
from holdfast_server.s3.acl import GROUPS, acl_of_headers
from holdfast_server.s3.cors import answer_preflight, parse_cors, parse_preflight, response_headers
from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.lock_documents import lock_of_headers
from holdfast_server.s3.request import fold_headers, parse_query
from holdfast_server.s3.tags import decode_tags, encode_tags, parse_tagging_header
from holdfast_server.testing.fuzzing.damage import damaged, damaged_text
from holdfast_server.testing.fuzzing.documents import OWNER, find_account
from holdfast_server.testing.fuzzing.target import Target, pure


class Told(NamedTuple):
    headers: dict[str, str]
    query: str


_CREDIBLE = {
    "range": ["bytes=0-1", "bytes=-5", "bytes=5-", "bytes=1-0", "bytes=0-1,3-4"],
    "if-match": ['"a"', "*", 'W/"a", "b"'],
    "if-none-match": ["*", '"a"'],
    "if-modified-since": ["Wed, 21 Oct 2015 07:28:00 GMT", "Wednesday, 21-Oct-15 07:28:00 GMT"],
    "x-amz-copy-source": ["/bucket/key?versionId=null", "bucket/k%20e%2Fy"],
    "x-amz-copy-source-range": ["bytes=0-9"],
    "x-amz-copy-source-if-match": ['"a"'],
    "x-amz-tagging": ["a=b&c=d%20e", "a="],
    "x-amz-acl": ["public-read", "private"],
    "x-amz-grant-read": [f'id="{OWNER}", uri="{GROUPS[0]}"', "emailaddress=a@b"],
    "x-amz-storage-class": ["STANDARD"],
    "x-amz-metadata-directive": ["REPLACE"],
    "x-amz-checksum-crc32": ["AAAAAA=="],
    "x-amz-checksum-sha256": ["47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="],
    "x-amz-checksum-algorithm": ["CRC32", "SHA256"],
    "x-amz-checksum-type": ["COMPOSITE", "FULL_OBJECT"],
    "x-amz-sdk-checksum-algorithm": ["CRC64NVME"],
    "x-amz-trailer": ["x-amz-checksum-crc32"],
    "content-md5": ["1B2M2Y8AsgTpgAmY7PhCfg=="],
    "content-length": ["0", "10"],
    "content-encoding": ["aws-chunked,gzip"],
    "content-type": ["text/plain; charset=utf-8"],
    "expires": ["Wed, 21 Oct 2015 07:28:00 GMT"],
    "origin": ["https://a.example.com"],
    "access-control-request-method": ["PUT"],
    "access-control-request-headers": ["content-type, x-amz-date"],
    "x-amz-meta-a": ["ü", "b"],
    "x-amz-server-side-encryption": ["AES256", "aws:kms"],
    "x-amz-server-side-encryption-aws-kms-key-id": ["key-1", "arn:aws:kms:r:0:key/a"],
    "x-amz-server-side-encryption-context": ["eyJhIjoiYiJ9", "e30="],
    "x-amz-server-side-encryption-customer-algorithm": ["AES256"],
    "x-amz-server-side-encryption-customer-key": ["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="],
    "x-amz-server-side-encryption-customer-key-md5": ["cLyK+SRU5/6MKq8N6wTsEA==", "\udcff"],
    "x-amz-object-lock-mode": ["COMPLIANCE"],
    "x-amz-object-lock-retain-until-date": ["2030-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59"],
    "x-amz-object-lock-legal-hold": ["ON"],
    "x-amz-if-match-size": ["5"],
    "x-amz-if-match-last-modified-time": ["Wed, 21 Oct 2015 07:28:00 GMT", "2030-01-01T00:00:00Z"],
}
_TOKENS = ["", ",", "-", "=", '"', "*", ";", "%", "\udcff", "9" * 30, "²", "\x01", "bytes=", " ", "\t", "?", "/"]
_PARAMETERS = [
    "max-keys=5", "encoding-type=url", "part-number-marker=3", "uploadId=abc", "response-expires=a", "key-marker=%FF",
    "response-content-type=a%0Ab", "continuation-token=YQ==", "partNumber=1", "max-keys=²",
]  # fmt: skip


@st.composite
def _told(draw: Callable[..., Any]) -> Told:
    chosen = draw(st.lists(st.sampled_from(sorted(_CREDIBLE)), unique=True, max_size=6))
    if draw(st.integers(0, 4)) == 0:
        chosen = [*chosen, *(name for name in sorted(_CREDIBLE) if "customer" in name and name not in chosen)]
    found = [
        (name, draw(damaged_text(st.sampled_from(_CREDIBLE[name]), _TOKENS).filter(_on_the_wire))) for name in chosen
    ]
    query = "&".join(draw(st.lists(damaged_text(st.sampled_from(_PARAMETERS), _TOKENS), max_size=3)))
    return Told(fold_headers(found), query)


def _on_the_wire(value: str) -> bool:
    """What HTTP lets pass in a header's value."""
    return not any(sign in value for sign in "\r\n\x00")


def check_told(told: Told) -> None:
    given = told.headers
    for step in (
        lambda: ranges.parse_range(given.get("range"), 1000),
        lambda: ranges.parse_copy_range(given.get("x-amz-copy-source-range", "bytes=0-1"), 1000),
        lambda: conditions.parse_write_condition(given),
        lambda: conditions.parse_delete_condition(given),
        lambda: encryption.parse_wanted(given),
        lambda: encryption.parse_customer_key(given, secure=True),
        lambda: lock_of_headers(given, 1_700_000_000_000),
        lambda: conditions.check_read(given, "a", 1_700_000_000_000),
        lambda: conditions.check_copy_source(given, "a", 1_700_000_000_000),
        lambda: names.parse_copy_source(given.get("x-amz-copy-source", "a/b")),
        lambda: _check_tags(given),
        lambda: acl_of_headers(given, OWNER, OWNER, find_account),
        lambda: headers.object_headers(given),
        lambda: headers.storage_class(given),
        lambda: headers.copy_directive(given, "metadata"),
        lambda: headers.copy_directive(given, "tagging"),
        lambda: headers.content_length(given),
        lambda: checksums.requested_checksum(given),
        lambda: checksums.parse_upload_checksum(given),
        lambda: checksums.parse_content_md5(given),
        lambda: answer_preflight([], parse_preflight(given)),
        lambda: _check_told_to_browsers(given),
        lambda: _check_parameters(told.query),
    ):
        try:
            step()
        except S3Error:
            continue


def _check_tags(given: Mapping[str, str]) -> None:
    tags = parse_tagging_header(given.get("x-amz-tagging", ""))
    assert decode_tags(encode_tags(tags)) == tags


_RULES = parse_cors(
    b"<CORSConfiguration><CORSRule><AllowedOrigin>https://*</AllowedOrigin><AllowedMethod>PUT</AllowedMethod>"
    b"<AllowedHeader>*</AllowedHeader></CORSRule></CORSConfiguration>"
)


def _check_told_to_browsers(given: Mapping[str, str]) -> None:
    """What is said back can stand in a header."""
    said = {**response_headers(_RULES, given, "PUT"), **answer_preflight(_RULES, parse_preflight(given))}
    assert all(value.isascii() and value.isprintable() for value in said.values())


def _check_parameters(raw_query: str) -> None:
    query = parse_query(raw_query)
    for step in (
        lambda: names.parse_count(query),
        lambda: names.parse_encoding_type(query),
        lambda: names.parse_part_number(query.get("partNumber", "")),
        lambda: names.parse_part_number_marker(query),
        lambda: names.parse_upload_id(query),
        lambda: names.decode_token(query.get("continuation-token", "")),
        lambda: headers.response_overrides(query),
    ):
        try:
            step()
        except S3Error:
            continue


# --- the query protocol of IAM and STS

_CALLS = [
    "Action=CreateUser&Version=2010-05-08&UserName=ann&Path=%2Fa%2F&Tags.member.1.Key=a&Tags.member.1.Value=b",
    "Action=ListUsers&MaxItems=5&Marker=x&PathPrefix=%2F",
    "Action=AssumeRole&DurationSeconds=900&RoleArn=arn&PolicyArns.member.1.arn=b",
]


def check_call(body: bytes) -> None:
    try:
        parameters = parse_form(body)
    except IamError:
        return
    for read in (
        lambda: parameters.name("UserName", 64),
        parameters.path,
        parameters.path_prefix,
        parameters.tags,
        parameters.page,
        lambda: parameters.members("PolicyArns"),
        lambda: parameters.number("DurationSeconds", 3600, 900, 43200),
        lambda: parameters.check_known(frozenset({"UserName"})),
    ):
        try:
            read()
        except IamError:
            continue


_CALL_TOKENS = [
    b"&",
    b"=",
    b"%",
    b"%ff",
    b"%00",
    b"+",
    b"Tags.member.2.Key=",
    b".member.",
    b"a=b&" * 400,
    b"\xff",
    b"9999",
]
TARGETS = [
    Target("headers and parameters", _told(), pure(check_told)),
    Target("calls of IAM", damaged(st.sampled_from(_CALLS).map(str.encode), _CALL_TOKENS), pure(check_call)),
]
