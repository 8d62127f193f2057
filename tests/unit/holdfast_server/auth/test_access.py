"""The one evaluator: who is let in by which side, and what wins."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_server.auth.access import BucketFacts, ObjectFacts, is_allowed, looks_at_object, may_administer
from holdfast_server.auth.builtin import builtin_policies
from holdfast_server.auth.policy import Policy, PolicyError, parse_policy
from holdfast_server.auth.principal import ANONYMOUS, Principal, account_id, canonical_id
from holdfast_server.auth.publicness import is_public_policy
from holdfast_server.auth.verified import VerifiedRequest
from holdfast_server.s3.acl import ALL_USERS, AUTHENTICATED_USERS, READ, WRITE, Grant, private
from holdfast_server.s3.operations import OPERATIONS
from holdfast_server.s3.request import Request, Target
from holdfast_server.s3.sigv4 import SigningContext

READWRITE = builtin_policies()["readwrite"]
NONE = parse_policy({"Statement": {"Effect": "Allow", "Action": "s3:ListAllMyBuckets", "Resource": "*"}})
ROOT = Principal(access_key="ROOT", user_name="root", is_root=True)
HOME = Principal(access_key="HOME", user_name="home", account="here", policies=(READWRITE,))
HOME_WITHOUT = Principal(access_key="HOME2", user_name="home2", account="here", policies=(NONE,))
AWAY = Principal(access_key="AWAY", user_name="away", account="there", policies=(READWRITE,))
AWAY_WITHOUT = Principal(access_key="AWAY2", user_name="away2", account="there", policies=(NONE,))
EVERYBODY = (ROOT, HOME, HOME_WITHOUT, AWAY, AWAY_WITHOUT, ANONYMOUS)


def request_of(principal: Principal, key: str = "k", **headers: str) -> VerifiedRequest:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = Request(
        method="GET", raw_path=f"/b/{key}", raw_query="", headers=named, remote="192.0.2.1", received_ms=0, secure=False
    )
    return VerifiedRequest(
        request=request,
        principal=principal,
        context=SigningContext("UNSIGNED-PAYLOAD"),
        operation=OPERATIONS[0],
        target=Target("b", key),
        query={},
        headers=named,
    )


def bucket_policy(effect: str = "Allow", principal: object = "*", action: str = "s3:*", **more: object) -> Policy:
    resources = ["arn:aws:s3:::b", "arn:aws:s3:::b/*"]
    statement = {"Effect": effect, "Principal": principal, "Action": action, "Resource": resources, **more}
    return parse_policy({"Version": "2012-10-17", "Statement": statement}, "b")


def let_in(facts: BucketFacts, action: str = "s3:GetObject", thing: ObjectFacts | None = None) -> set[str]:
    return {who.user_name for who in EVERYBODY if is_allowed(request_of(who), action, "b", "k", facts, thing)}


ALL = {who.user_name for who in EVERYBODY}
FACTS = BucketFacts(account="here")


def test_without_a_policy_only_the_account_comes_in_and_only_who_may() -> None:
    assert let_in(FACTS) == {"root", "home"}


def test_a_bucket_policy_is_enough_at_home_and_takes_two_from_elsewhere() -> None:
    facts = msgspec.structs.replace(FACTS, policy=bucket_policy())
    assert let_in(facts) == ALL - {"away2"}
    for name in (f"arn:aws:iam::{account_id('there')}:root", account_id("there"),
                 f"arn:aws:iam::{account_id('there')}:user/away"):  # fmt: skip
        facts = msgspec.structs.replace(FACTS, policy=bucket_policy(principal={"AWS": [name]}))
        assert let_in(facts) == {"root", "home", "away"}
    canonical = {"CanonicalUser": canonical_id("there")}
    assert "away" in let_in(msgspec.structs.replace(FACTS, policy=bucket_policy(principal=canonical)))
    service = {"Service": "away"}
    assert "away" not in let_in(msgspec.structs.replace(FACTS, policy=bucket_policy(principal=service)))


@pytest.mark.parametrize("denied", [{"AWS": "*"}, "*"])
def test_a_deny_wins_over_everything_but_roots_hold_on_the_policy(denied: object) -> None:
    facts = msgspec.structs.replace(FACTS, policy=bucket_policy("Deny", denied))
    assert let_in(facts) == set()
    assert let_in(facts, "s3:PutBucketPolicy") == {"root"}
    deny_others = bucket_policy("Deny")
    statement = {"Effect": "Deny", "NotPrincipal": {"AWS": [f"arn:aws:iam::{account_id('here')}:user/home", "root"]},
                 "Action": "s3:*", "Resource": "arn:aws:s3:::b/*"}  # fmt: skip
    but_home = parse_policy({"Statement": [statement]}, "b")
    assert deny_others != but_home
    assert let_in(msgspec.structs.replace(FACTS, policy=but_home)) == {"root", "home"}


def test_a_users_own_deny_wins_over_the_buckets_allow() -> None:
    own = parse_policy({"Statement": {"Effect": "Deny", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::b/*"}})
    who = msgspec.structs.replace(HOME, policies=(READWRITE, own))
    facts = msgspec.structs.replace(FACTS, policy=bucket_policy())
    assert not is_allowed(request_of(who), "s3:GetObject", "b", "k", facts)
    assert is_allowed(request_of(who), "s3:PutObject", "b", "k", facts)


def test_grants_count_only_in_force_and_only_for_what_they_name() -> None:
    public = (Grant(ALL_USERS, READ), *private(canonical_id("here")))
    thing = ObjectFacts(account="here", grants=public)
    in_force = msgspec.structs.replace(FACTS, grants_in_force=True, grants=private(canonical_id("here")))
    assert let_in(FACTS, thing=thing) == {"root", "home"}
    assert let_in(in_force, thing=thing) == {"root", "home", "away", "anonymous"}
    assert let_in(in_force, "s3:PutObjectAcl", thing) == {"root", "home"}
    assert let_in(in_force, "s3:ListBucket") == {"root", "home"}
    known = ObjectFacts(account="here", grants=(Grant(AUTHENTICATED_USERS, READ),))
    assert let_in(in_force, thing=known) == {"root", "home", "away"}
    ignoring = msgspec.structs.replace(in_force, ignores_public_grants=True)
    assert let_in(ignoring, thing=thing) == {"root", "home"}
    named = ObjectFacts(account="here", grants=(Grant(canonical_id("there"), READ),))
    assert let_in(ignoring, thing=named) == {"root", "home", "away"}
    writable = msgspec.structs.replace(in_force, grants=(Grant(ALL_USERS, WRITE),))
    assert let_in(writable, "s3:PutObject") == {"root", "home", "away", "anonymous"}
    assert let_in(writable, "s3:PutObjectTagging") == {"root", "home"}


def test_an_object_of_another_account_is_not_the_buckets_to_give() -> None:
    facts = msgspec.structs.replace(FACTS, grants_in_force=True, policy=bucket_policy())
    thing = ObjectFacts(account="there", grants=private(canonical_id("there")))
    assert let_in(facts, thing=thing) == {"root", "away"}
    assert let_in(facts, "s3:DeleteObject", thing) == ALL - {"away2"}
    shared = ObjectFacts(account="there", grants=(Grant(canonical_id("here"), READ),))
    assert let_in(facts, thing=shared) == {"root", "home", "away"}


def test_the_public_access_block_leaves_a_public_policy_to_the_account() -> None:
    facts = msgspec.structs.replace(FACTS, policy=bucket_policy(), policy_is_public=True, restricts_public_policy=True)
    assert let_in(facts) == {"root", "home", "home2"}


def test_the_objects_tags_are_looked_at_only_where_somebody_asks() -> None:
    condition = {"StringEquals": {"s3:ExistingObjectTag/class": "open"}}
    facts = msgspec.structs.replace(FACTS, policy=bucket_policy(Condition=condition))
    assert looks_at_object(HOME, "s3:GetObject", facts)
    assert not looks_at_object(HOME, "s3:PutObject", facts)
    assert not looks_at_object(HOME, "s3:GetObject", FACTS)
    for tags, wanted in (
        ({"class": "open"}, ALL - {"away2"}),
        ({"class": "shut"}, {"root", "home"}),
        ({}, {"root", "home"}),
    ):
        assert let_in(facts, thing=ObjectFacts(account="here", tags=tags)) == wanted


def test_the_objects_tags_are_looked_at_where_a_variable_asks() -> None:
    """A Deny by `${s3:ExistingObjectTag/…}` was passed: the variable stood for nothing, which matches nobody."""
    owned = bucket_policy("Deny", Condition={"StringEquals": {"aws:username": "${s3:existingobjecttag/shut-for}"}})
    named = bucket_policy(Condition={"StringEquals": {"aws:username": "x${s3:prefix}"}})
    facts = msgspec.structs.replace(FACTS, policy=owned)
    assert looks_at_object(HOME, "s3:GetObject", facts)
    assert let_in(facts, thing=ObjectFacts(account="here", tags={"shut-for": "home"})) == {"root"}
    assert not looks_at_object(HOME, "s3:GetObject", msgspec.structs.replace(FACTS, policy=named))
    statement = {"Effect": "Deny", "Action": "s3:*", "Resource": "arn:aws:s3:::b/${s3:ExistingObjectTag/shut}/*"}
    user = msgspec.structs.replace(HOME, policies=(parse_policy({"Version": "2012-10-17", "Statement": statement}),))
    assert looks_at_object(user, "s3:GetObject", FACTS)


def test_the_admin_api_asks_the_same_policies() -> None:
    assert may_administer(ROOT, "admin:Heal")
    assert not may_administer(HOME, "admin:Heal")
    assert not may_administer(ANONYMOUS, "admin:Heal")
    console = msgspec.structs.replace(HOME, policies=(builtin_policies()["consoleAdmin"],))
    assert may_administer(console, "admin:Heal")


@pytest.mark.parametrize(
    ("more", "public"),
    [
        ({}, True),
        ({"principal": {"AWS": "123456789012"}}, False),
        ({"principal": {"AWS": ["123456789012", "*"]}}, True),
        ({"effect": "Deny"}, False),
        ({"Condition": {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}}, False),
        ({"Condition": {"IpAddress": {"aws:SourceIp": "0.0.0.0/0"}}}, True),
        ({"Condition": {"IpAddress": {"aws:SourceIp": ["10.0.0.0/8", "0.0.0.0/1"]}}}, True),
        ({"Condition": {"NotIpAddress": {"aws:SourceIp": "10.0.0.0/8"}}}, True),
        ({"Condition": {"StringLike": {"aws:SourceVpc": "vpc-*"}}}, True),
        ({"Condition": {"StringEquals": {"aws:SourceVpc": "vpc-1"}}}, False),
        ({"Condition": {"StringEqualsIfExists": {"aws:SourceVpc": "vpc-1"}}}, True),
        ({"Condition": {"StringEquals": {"aws:Referer": "x"}}}, True),
    ],
)
def test_what_public_means(more: dict[str, object], public: bool) -> None:
    assert is_public_policy(bucket_policy(**more)) == public  # type: ignore[arg-type]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["*", "s3:*", "Allow", "${x}"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["AWS", "StringLike", "aws:SourceIp", "Bool", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)
FIELDS = ["Effect", "Principal", "NotPrincipal", "Action", "NotAction", "Resource", "NotResource", "Condition"]


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, JSON)))
def test_any_document_is_a_policy_or_is_refused_by_name(fields: dict[str, object]) -> None:
    base = {"Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": "arn:aws:s3:::b/*"}
    parsed: Policy | None
    try:
        parsed = parse_policy(json.dumps({"Statement": [{**base, **fields}]}), "b")
    except PolicyError as error:
        parsed, fault = None, str(error)
    if parsed is None:
        assert fault.startswith("Statement")
        return
    facts = BucketFacts(account="here", policy=parsed, policy_is_public=is_public_policy(parsed))
    assert isinstance(is_allowed(request_of(AWAY, x_amz_acl="private"), "s3:GetObject", "b", "k", facts), bool)
