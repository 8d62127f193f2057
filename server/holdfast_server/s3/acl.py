"""Access control lists: canned ones, grants in headers and documents, who is granted what.

A list belongs to an owner and grants permissions to accounts (by canonical id) and to two groups, everybody and
everybody who is known.  What a permission is good for is decided in `auth.access`; who may have lists at all is a
matter of the bucket's ownership controls.  Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from holdfast_server.s3.documents_out import Owner, document
from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.xml_text import escape
from holdfast_server.s3.xml_tree import Element, parse

MAX_ACL_SIZE_BYTES = 64 << 10
MAX_GRANTS = 100
CANNED_HEADER = "x-amz-acl"

FULL_CONTROL, READ, WRITE, READ_ACP, WRITE_ACP = "FULL_CONTROL", "READ", "WRITE", "READ_ACP", "WRITE_ACP"
PERMISSIONS = (FULL_CONTROL, READ, WRITE, READ_ACP, WRITE_ACP)

_GROUPS_URI = "http://acs.amazonaws.com/groups/"
ALL_USERS = _GROUPS_URI + "global/AllUsers"
AUTHENTICATED_USERS = _GROUPS_URI + "global/AuthenticatedUsers"
LOG_DELIVERY = _GROUPS_URI + "s3/LogDelivery"
GROUPS = (ALL_USERS, AUTHENTICATED_USERS, LOG_DELIVERY)
PUBLIC_GROUPS = frozenset({ALL_USERS, AUTHENTICATED_USERS})

_HEADERS = {
    "x-amz-grant-read": READ,
    "x-amz-grant-write": WRITE,
    "x-amz-grant-read-acp": READ_ACP,
    "x-amz-grant-write-acp": WRITE_ACP,
    "x-amz-grant-full-control": FULL_CONTROL,
}
_CANNED: dict[str, tuple[tuple[str, str], ...]] = {
    "private": (),
    "public-read": ((ALL_USERS, READ),),
    "public-read-write": ((ALL_USERS, READ), (ALL_USERS, WRITE)),
    "authenticated-read": ((AUTHENTICATED_USERS, READ),),
    "log-delivery-write": ((LOG_DELIVERY, WRITE), (LOG_DELIVERY, READ_ACP)),
}
BUCKET_OWNER_FULL_CONTROL = "bucket-owner-full-control"
_FOR_BUCKET_OWNER = {"bucket-owner-read": READ, BUCKET_OWNER_FULL_CONTROL: FULL_CONTROL}
_XSI = "http://www.w3.org/2001/XMLSchema-instance"


class Grant(msgspec.Struct, frozen=True):
    """One permission of one grantee."""

    grantee: str
    """A canonical id, or the URI of a group."""
    permission: str

    @property
    def public(self) -> bool:
        return self.grantee in PUBLIC_GROUPS


Grants = tuple[Grant, ...]

Find = Callable[[str], str | None]
"""The name of the account with that canonical id; None where there is none."""


def private(owner: str) -> Grants:
    """`owner` is a canonical id, here and below."""
    return (Grant(owner, FULL_CONTROL),)


def permits(grants: Sequence[Grant], permission: str, grantees: Sequence[str]) -> bool:
    """Whether one of the grantees has the permission."""
    return any(grant.permission in (permission, FULL_CONTROL) and grant.grantee in grantees for grant in grants)


def asks_for_acl(headers: Mapping[str, str]) -> bool:
    """Whether a request says anything about grants."""
    return CANNED_HEADER in headers or names_grantees(headers)


def asks_for_more_than_private(headers: Mapping[str, str]) -> bool:
    """Whether a request asks for other grants than the owner's, which `x-amz-acl: private` alone means."""
    return names_grantees(headers) or headers.get(CANNED_HEADER, "private") != "private"


def names_grantees(headers: Mapping[str, str]) -> bool:
    """Whether a request says who is granted what, header by header."""
    return any(name in headers for name in _HEADERS)


def acl_of_headers(headers: Mapping[str, str], owner: str, bucket_owner: str, find: Find) -> Grants | None:
    """The grants that a request's headers ask for; None where they ask for none.

    `bucket_owner` is the same as `owner` where the list is the bucket's.  Raises InvalidArgument, InvalidRequest,
    UnresolvableGrantByEmailAddress, NotImplemented.
    """
    canned = headers.get(CANNED_HEADER)
    granted = [(name, permission) for name, permission in _HEADERS.items() if name in headers]
    if canned is not None and granted:
        raise S3Error("InvalidRequest", "Specifying both Canned ACLs and Header Grants is not allowed")
    if canned is not None:
        return canned_acl(canned, owner, bucket_owner)
    if not granted:
        return None
    grants = [
        Grant(grantee, permission) for name, permission in granted for grantee in _grantees(headers[name], name, find)
    ]
    return _bounded(grants)


def canned_acl(name: str, owner: str, bucket_owner: str) -> Grants:
    """Raises InvalidArgument for a name that is none."""
    if name in _FOR_BUCKET_OWNER:
        if owner == bucket_owner:
            return private(owner)
        return (*private(owner), Grant(bucket_owner, _FOR_BUCKET_OWNER[name]))
    if name == "aws-exec-read":
        raise S3Error("NotImplemented", "The canned ACL aws-exec-read is for Amazon EC2 alone.", Header=CANNED_HEADER)
    if name not in _CANNED:
        raise S3Error("InvalidArgument", ArgumentName=CANNED_HEADER, ArgumentValue=name)
    return (*[Grant(grantee, permission) for grantee, permission in _CANNED[name]], *private(owner))


def _grantees(text: str, header: str, find: Find) -> list[str]:
    """`id="…", uri="…"` → grantees."""
    found = []
    for part in text.split(","):
        kind, equals, value = part.strip().partition("=")
        value = value.strip().strip('"')
        if not equals or not value:
            raise S3Error("InvalidArgument", "Argument format not recognized", ArgumentName=header, ArgumentValue=text)
        found.append(_grantee(kind.strip().lower(), value, find))
    return found


def _grantee(kind: str, value: str, find: Find) -> str:
    if kind == "uri":
        if value not in GROUPS:
            raise S3Error("InvalidArgument", "Invalid group uri", ArgumentName="uri", ArgumentValue=value)
        return value
    if kind == "emailaddress":
        raise S3Error("UnresolvableGrantByEmailAddress", EmailAddress=value)
    if kind != "id" or find(value) is None:
        raise S3Error("InvalidArgument", "Invalid id", ArgumentName="id", ArgumentValue=value)
    return value


def _bounded(grants: Sequence[Grant]) -> Grants:
    unique = tuple(dict.fromkeys(grants))
    if len(unique) > MAX_GRANTS:
        raise S3Error("InvalidRequest", f"An ACL can have at most {MAX_GRANTS} grants.")
    return unique


# --- the document


def parse_acl(body: bytes, owner: str, find: Find) -> Grants:
    """The grants of an AccessControlPolicy.  Raises MalformedACLError, InvalidArgument,
    UnresolvableGrantByEmailAddress, and AccessDenied where it names another owner."""
    try:
        root = parse(body, MAX_ACL_SIZE_BYTES)
    except S3Error as error:
        raise S3Error("MalformedACLError") from error
    lists = list(root.all("AccessControlList"))
    named = root.find("Owner")
    if root.name != "AccessControlPolicy" or len(lists) != 1 or named is None:
        raise S3Error("MalformedACLError")
    if named.value("ID") != owner:
        raise S3Error("AccessDenied")
    return _bounded([_parse_grant(element, find) for element in lists[0].all("Grant")])


def _parse_grant(element: Element, find: Find) -> Grant:
    grantee, permission = element.find("Grantee"), element.value("Permission")
    if grantee is None or permission not in PERMISSIONS:
        raise S3Error("MalformedACLError")
    for kind, name in (("id", "ID"), ("uri", "URI"), ("emailaddress", "EmailAddress")):
        value = grantee.value(name)
        if value:
            return Grant(_grantee(kind, value, find), permission)
    raise S3Error("MalformedACLError")


def acl_xml(owner: Owner, grants: Sequence[Grant], find: Find) -> bytes:
    """GetBucketAcl and GetObjectAcl: groups first, however they were put."""
    rows = "".join(
        f"<Grant>{_grantee_xml(grant.grantee, find)}<Permission>{grant.permission}</Permission></Grant>"
        for grant in sorted(grants, key=lambda grant: grant.grantee not in GROUPS)
    )
    return document("AccessControlPolicy", f"{owner.xml()}<AccessControlList>{rows}</AccessControlList>")


def _grantee_xml(grantee: str, find: Find) -> str:
    if grantee in GROUPS:
        return f'<Grantee xmlns:xsi="{_XSI}" xsi:type="Group"><URI>{escape(grantee)}</URI></Grantee>'
    name = find(grantee)
    shown = f"<DisplayName>{escape(name)}</DisplayName>" if name else ""
    return f'<Grantee xmlns:xsi="{_XSI}" xsi:type="CanonicalUser"><ID>{escape(grantee)}</ID>{shown}</Grantee>'
