"""Access control lists: canned, in headers, as documents."""

from __future__ import annotations

import pytest

from holdfast_server.s3.acl import (
    ALL_USERS,
    FULL_CONTROL,
    MAX_GRANTS,
    READ,
    WRITE,
    Grant,
    acl_of_headers,
    acl_xml,
    parse_acl,
    permits,
    private,
)
from holdfast_server.s3.documents_out import Owner
from holdfast_server.s3.errors import S3Error

ME, OTHER, BUCKET_OWNER = "1" * 64, "2" * 64, "3" * 64


def find(canonical: str) -> str | None:
    return {ME: "me", OTHER: "other", BUCKET_OWNER: "bucket-owner"}.get(canonical)


def of(**headers: str) -> set[Grant] | None:
    found = acl_of_headers({name.replace("_", "-"): value for name, value in headers.items()}, ME, BUCKET_OWNER, find)
    return None if found is None else set(found)


def test_canned_lists_are_what_s3_documents() -> None:
    own = Grant(ME, FULL_CONTROL)
    assert of() is None
    assert of(x_amz_acl="private") == {own}
    assert of(x_amz_acl="public-read") == {own, Grant(ALL_USERS, READ)}
    assert of(x_amz_acl="public-read-write") == {own, Grant(ALL_USERS, READ), Grant(ALL_USERS, WRITE)}
    assert of(x_amz_acl="bucket-owner-read") == {own, Grant(BUCKET_OWNER, READ)}
    assert of(x_amz_acl="bucket-owner-full-control") == {own, Grant(BUCKET_OWNER, FULL_CONTROL)}


def test_headers_name_grantees_by_id_and_group() -> None:
    assert of(x_amz_grant_read=f'id="{OTHER}", uri="{ALL_USERS}"', x_amz_grant_write=f"id={OTHER}") == {
        Grant(OTHER, READ),
        Grant(ALL_USERS, READ),
        Grant(OTHER, WRITE),
    }


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"x_amz_acl": "publik"}, "InvalidArgument"),
        ({"x_amz_acl": ""}, "InvalidArgument"),
        ({"x_amz_acl": "private", "x_amz_grant_read": f"id={OTHER}"}, "InvalidRequest"),
        ({"x_amz_grant_read": f"id={'9' * 64}"}, "InvalidArgument"),
        ({"x_amz_grant_read": "uri=http://elsewhere"}, "InvalidArgument"),
        ({"x_amz_grant_read": "emailAddress=a@b"}, "UnresolvableGrantByEmailAddress"),
        ({"x_amz_grant_read": "nonsense"}, "InvalidArgument"),
        ({"x_amz_acl": "aws-exec-read"}, "NotImplemented"),
    ],
)
def test_what_cannot_be_granted_is_refused(headers: dict[str, str], code: str) -> None:
    with pytest.raises(S3Error) as told:
        of(**headers)
    assert told.value.code == code


def test_a_document_reads_back() -> None:
    grants = (Grant(ALL_USERS, READ), Grant(OTHER, WRITE), *private(ME))
    assert parse_acl(acl_xml(Owner(ME, "me"), grants, find), ME, find) == grants


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "MalformedACLError"),
        (b"<AccessControlPolicy/>", "MalformedACLError"),
        (b"<AccessControlPolicy><AccessControlList/></AccessControlPolicy>", "MalformedACLError"),
        (acl_xml(Owner(OTHER, "other"), private(OTHER), find), "AccessDenied"),
        (acl_xml(Owner(ME, "me"), [Grant("9" * 64, READ)], find), "InvalidArgument"),
        (acl_xml(Owner(ME, "me"), [Grant(OTHER, "OWN")], find), "MalformedACLError"),
    ],
)
def test_a_bad_document_is_refused(body: bytes, code: str) -> None:
    with pytest.raises(S3Error) as told:
        parse_acl(body, ME, find)
    assert told.value.code == code


def test_a_list_is_bounded_and_says_each_grant_once() -> None:
    twice = acl_xml(Owner(ME, "me"), [*private(ME), *private(ME)], find)
    assert parse_acl(twice, ME, find) == private(ME)

    def everybody(canonical: str) -> str:
        return canonical

    many = [Grant(f"{number:064}", READ) for number in range(MAX_GRANTS + 1)]
    with pytest.raises(S3Error, match="at most"):
        parse_acl(acl_xml(Owner(ME, "me"), many, everybody), ME, everybody)


def test_full_control_is_every_permission() -> None:
    assert permits(private(ME), READ, [ME])
    assert not permits(private(ME), READ, [OTHER, ALL_USERS])
    assert not permits([Grant(ME, WRITE)], READ, [ME])
