"""Targets: the policy language, against a plain model, and its documents damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from hypothesis import strategies as st

from holdfast_server.auth.conditions import OPERATORS, like
from holdfast_server.auth.policy import PolicyError, Question, parse_policy
from holdfast_server.auth.publicness import is_public_policy
from holdfast_server.testing.fuzzing import naive_policy
from holdfast_server.testing.fuzzing.damage import damaged
from holdfast_server.testing.fuzzing.target import Target, pure

BUCKET = "bucket"
_USER = "arn:aws:iam::000000000000:user/ann"
_NAMES = (_USER, "ann", "000000000000")
_ACTIONS = ["s3:GetObject", "s3:PutObject", "s3:ListBucket", "s3:Get*", "S3:getobject", "*", "s3:*", "s3:?etObject"]
_ASKED_ACTIONS = ["s3:GetObject", "s3:PutObject", "s3:ListBucket", "s3:DeleteObject", "admin:Heal"]
_KEYS = ["a", "home/ann/x", "home/bob/x", "a*b", "ann", "", "日/x", "a\nb"]
_PATTERNS = ["", "/*", "/a", "/home/${aws:username}/*", "/*/x", "/a${*}b", "/${aws:none}", "/a?b", "/**a*", "/${x",
             "/home/${aws:username, 'bob'}/?", "/${aws:none, 'a'}*", "/${aws:none, a}"]  # fmt: skip
_VALUE_KEYS = [
    "aws:username", "aws:SourceIp", "s3:prefix", "aws:CurrentTime", "s3:max-keys", "aws:SecureTransport",
    "s3:RequestObjectTagKeys", "S3:PREFIX", "aws:none",
]  # fmt: skip
_VALUES = [
    "ann", "ANN", "a*", "", "home/", "5", "5.0", "-1", "true", "False", "2026-01-02T03:04:05Z", "1767323045",
    "10.0.0.1", "10.0.0.0/8", "::1", "2001:db8::/32", "${aws:username}", "h?me/", "straße", "STRASSE", "1e3", "nan",
]  # fmt: skip


def _some(choices: list[str]) -> st.SearchStrategy[Any]:
    return st.sampled_from(choices) | st.lists(st.sampled_from(choices), min_size=1, max_size=3)


_RESOURCES = [f"arn:aws:s3:::{BUCKET}{pattern}" for pattern in _PATTERNS]
_PRINCIPALS = st.just("*") | st.dictionaries(
    st.sampled_from(["AWS", "CanonicalUser", "Service"]), _some(["*", _USER, "ann", "bob", "000000000000"]), min_size=1
)
_OPERATOR_NAMES = st.builds(
    lambda qualifier, name, suffix: qualifier + name + ("" if name == "Null" else suffix),
    st.sampled_from(["", "", "", "ForAnyValue:", "ForAllValues:"]),
    st.sampled_from(sorted(OPERATORS)),
    st.sampled_from(["", "", "IfExists"]),
)
_CONDITIONS = st.dictionaries(
    _OPERATOR_NAMES,
    st.dictionaries(st.sampled_from(_VALUE_KEYS), _some(_VALUES) | st.booleans() | st.integers(-2, 9), max_size=2),
    max_size=2,
)


@st.composite
def _statement(draw: Callable[..., Any], of_bucket: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"Effect": draw(st.sampled_from(["Allow", "Allow", "Deny"]))}
    found[draw(st.sampled_from(["Action", "Action", "NotAction"]))] = draw(_some(_ACTIONS))
    found[draw(st.sampled_from(["Resource", "Resource", "NotResource"]))] = draw(_some(_RESOURCES))
    if of_bucket:
        found[draw(st.sampled_from(["Principal", "Principal", "NotPrincipal"]))] = draw(_PRINCIPALS)
    if draw(st.booleans()):
        found["Condition"] = draw(_CONDITIONS)
    return found


class Asked(NamedTuple):
    document: dict[str, Any]
    of_bucket: bool
    action: str
    resource: str
    names: tuple[str, ...]
    values: dict[str, tuple[str, ...]]


@st.composite
def _asked(draw: Callable[..., Any]) -> Asked:
    of_bucket = draw(st.booleans())
    statements = draw(st.lists(_statement(of_bucket), min_size=1, max_size=4))
    key = draw(st.sampled_from(_KEYS))
    values = draw(
        st.dictionaries(
            st.sampled_from([key.lower() for key in _VALUE_KEYS if key != "aws:none"]),
            st.tuples(st.sampled_from(_VALUES)) | st.tuples(st.sampled_from(_VALUES), st.sampled_from(_VALUES)),
            max_size=5,
        )
    )
    return Asked(
        {"Version": "2012-10-17", "Statement": statements},
        of_bucket,
        draw(st.sampled_from(_ASKED_ACTIONS)),
        f"arn:aws:s3:::{BUCKET}" + (f"/{key}" if key else ""),
        draw(st.sampled_from([_NAMES, ()])),
        values,
    )


def check_decision(asked: Asked) -> None:
    text = json.dumps(asked.document)
    try:
        policy = parse_policy(text, BUCKET if asked.of_bucket else None)
    except PolicyError:
        return
    question = Question(
        action=asked.action, resource=asked.resource, principal_names=asked.names, values=lambda: asked.values
    )
    decided = policy.decide(question)
    modelled = naive_policy.decide(asked.document, asked.action, asked.resource, asked.names, asked.values)
    assert decided == modelled, (decided, modelled)


_TOKENS = [
    b"{", b"}", b"[", b"]", b",", b":", b'"', b"null", b"1e999", b"*", b"${", b"}", b'"Deny"', b'"NotAction":',
    b"[" * 3000, b"\\ud800", b"\xff", b"9" * 400,
]  # fmt: skip


def check_document(text: bytes) -> None:
    """Either a policy that can be asked, or the one error."""
    for bucket in (None, BUCKET):
        try:
            policy = parse_policy(text, bucket)
        except PolicyError:
            continue
        is_public_policy(policy)
        policy.decide(Question(action="s3:GetObject", resource="arn:aws:s3:::bucket/a", values=dict))


def check_wildcard(drawn: tuple[str, str]) -> None:
    pattern, text = drawn
    assert like(pattern, text) == naive_policy.like(naive_policy.signs(pattern), text)


_DOCUMENTS = _asked().map(lambda asked: json.dumps(asked.document, indent=1).encode())
TARGETS = [
    Target("decisions of policies", _asked(), pure(check_decision), examples=60),
    Target("documents of policies", damaged(_DOCUMENTS, _TOKENS), pure(check_document), examples=40),
    Target("wildcards", st.tuples(st.text("*?ab\n", max_size=24), st.text("ab\n*", max_size=40)), pure(check_wildcard)),
]
