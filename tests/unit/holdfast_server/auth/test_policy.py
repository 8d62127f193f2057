"""The policy language: what matches, what wins, and what is refused with the field that is wrong."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_server.auth.builtin import builtin_policies
from holdfast_server.auth.conditions import like
from holdfast_server.auth.policy import PolicyError, Question, parse_policy

ARN = "arn:aws:s3:::"


def statement(effect="Allow", **fields):
    return {"Effect": effect, "Action": "s3:*", "Resource": f"{ARN}*", **fields}


def document(*statements):
    return {"Version": "2012-10-17", "Statement": list(statements)}


def decide(statements, action="s3:GetObject", resource="b/k", bucket=None, names=(), **values):
    given_values = {name.replace("__", ":").replace("_", "-"): (value,) for name, value in values.items()}
    question = Question(action=action, resource=ARN + resource, principal_names=names, values=lambda: given_values)
    return parse_policy(json.dumps(document(*statements)), bucket).decide(question)


@pytest.mark.parametrize(
    ("action", "asked", "matches"),
    [
        ("s3:GetObject", "s3:GetObject", True),
        ("S3:getobject", "s3:GetObject", True),
        ("s3:Get*", "s3:GetObject", True),
        ("s3:*Object", "s3:GetObject", True),
        ("s3:GetObjec?", "s3:GetObject", True),
        ("*", "s3:GetObject", True),
        ("s3:GetObject", "s3:GetObjectVersion", False),
        ("s3:GetObject?", "s3:GetObject", False),
        ("s3:Put*", "s3:GetObject", False),
    ],
)
def test_actions(action, asked, matches):
    assert (decide([statement(Action=action)], asked) == "Allow") is matches


@pytest.mark.parametrize(
    ("resource", "asked", "matches"),
    [
        ("*", "b/k", True),
        (f"{ARN}*", "b/k", True),
        (f"{ARN}b/*", "b/k/deep/er", True),
        (f"{ARN}b*", "b/k", True),
        (f"{ARN}b", "b/k", False),
        (f"{ARN}b/*", "b", False),
        (f"{ARN}b/*", "bb/k", False),
        (f"{ARN}b/?", "b/k", True),
        (f"{ARN}b/K", "b/k", False),
        (f"{ARN}b/a.c", "b/abc", False),
        (f"{ARN}b/[k]", "b/k", False),
        (f"{ARN}b/*", "b/line\nbreak", True),
    ],
)
def test_resources(resource, asked, matches):
    assert (decide([statement(Resource=resource)], resource=asked) == "Allow") is matches


def _glob(pattern: str, text: str) -> bool:
    """The definition of a wildcard match, as slow as it is plain."""
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(_glob(pattern[1:], text[start:]) for start in range(len(text) + 1))
    return bool(text) and pattern[0] in ("?", text[0]) and _glob(pattern[1:], text[1:])


@given(st.text("ab*?", max_size=8), st.text("ab", max_size=10))
def test_wildcards_match_as_defined(pattern, text):
    assert like(pattern, text) == _glob(pattern, text)


def test_no_pattern_makes_matching_slow():
    # With a backtracking match this would not end within the age of the universe.
    assert not like("*a" * 200 + "b", "a" * 1024)


def test_what_variables_stand_for_makes_no_question_slow():
    """A resource of 1,600 times a prefix of 500 characters took 13 s, and a prefix may have 15,000."""
    one = statement(Resource=f"{ARN}b/" + "${s3:prefix}" * 1600)
    many = statement(Resource=[f"{ARN}b/?${{s3:prefix}}"] * 400)
    condition = statement(Condition={"StringLike": {"aws:referer": ["a?${s3:prefix}"] * 400}})
    began = time.monotonic()
    unclosed = statement(Resource=[f"{ARN}b/" + "${" * 9000])
    for asked in (one, many, condition, unclosed, unclosed):
        assert decide([asked], s3__prefix="x*" * 7500, aws__referer="x" * 100) is None
    assert time.monotonic() - began < 2
    assert decide([statement(Resource=f"{ARN}b/${{s3:prefix}}?")], resource="b/x*y", s3__prefix="x*") == "Allow"
    assert decide([statement(Resource=f"{ARN}b/${{s3:prefix}}?")], resource="b/xzy", s3__prefix="x*") is None
    assert decide([statement(Resource=f"{ARN}b/${{s3:prefix}}*")], resource="b/x?y", s3__prefix="x?") == "Allow"
    assert decide([statement(Resource=f"{ARN}b/${{s3:prefix}}*")], resource="b/xzy", s3__prefix="x?") is None
    denied = [statement(), statement("Deny", Condition={"StringNotLike": {"aws:referer": "${s3:prefix}/*"}})]
    assert decide(denied, s3__prefix="x" * 9000, aws__referer="x/") == "Deny", "what matches nothing is not like it"


def test_a_policy_of_many_patterns_compiles_none(monkeypatch):
    """A policy of 15 kB with 1,500 of them took 0.12 s to ask, for each key of a DeleteObjects anew, and 2,000 actions
    a quarter of a second to read, and half a megabyte of memory."""
    prefixes = [f"team-{number}/{'?' * (number % 2)}*" for number in range(700)]
    resources = [f"{ARN}b/?{number}" for number in range(400)]
    actions = [f"s3:?{number}*" for number in range(400)]
    monkeypatch.setattr("re.compile", None)
    liked = parse_policy(json.dumps(document(statement(Condition={"StringLike": {"s3:prefix": prefixes}}))))
    named = parse_policy(json.dumps(document(statement(Action=actions, Resource=resources, Principal="*"))), "b")
    for have, decision in (("team-699/x", "Allow"), ("team-700/x", None)):
        asked = Question(action="s3:GetObject", resource=f"{ARN}b/k", values=lambda have=have: {"s3:prefix": (have,)})
        assert liked.decide(asked) == decision
    for key, decision in (("k399", "Allow"), ("k400", None)):
        asked = Question(action="s3:A399b", resource=f"{ARN}b/{key}", values=dict)
        assert named.decide(asked) == decision


SOME = "".join(map(chr, range(0x4E00, 0x4E00 + 500)))


@pytest.mark.parametrize(
    ("pattern", "have"),
    [
        ("*" + "a?" * 128 + "b*", "a" * 512),
        ("*?a" * 100 + "*", "a" * 512),
        ("*" + "?" * 250 + "b${s3:prefix}*", "a" * 512),
        ("?a" * 256, "a" * 512),
        ("*a?b*", "ac" * 8000),
        ("*" + "?".join(SOME) + "*", "x".join(SOME) * 16),
    ],
    ids=range(6),
)
def test_no_pattern_with_marks_makes_a_question_slow(pattern, have):
    """And each key of a DeleteObjects is one."""
    condition = {"StringLike": {"aws:referer": [pattern] * (16_000 // (len(pattern) + 4))}}
    policy = parse_policy(json.dumps(document(statement(Condition=condition)), ensure_ascii=False))
    values = {"aws:referer": (have,), "s3:prefix": ("b",)}
    asked = Question(action="s3:GetObject", resource=f"{ARN}b/k", values=lambda: values)
    began = time.process_time()
    for _ in range(5):
        policy.decide(asked)
    assert time.process_time() - began < 1


def test_deny_wins_wherever_it_stands():
    deny = statement("Deny", Action="s3:DeleteObject")
    for statements in ([statement(), deny], [deny, statement()]):
        assert decide(statements, "s3:DeleteObject") == "Deny"
        assert decide(statements, "s3:GetObject") == "Allow"
    assert decide([deny]) is None


def test_negated_actions_and_resources():
    only = {"Effect": "Allow", "NotAction": "s3:Delete*", "Resource": f"{ARN}*"}
    assert decide([only], "s3:GetObject") == "Allow"
    assert decide([only], "s3:DeleteObject") is None
    others = {"Effect": "Deny", "Action": "s3:*", "NotResource": f"{ARN}b/*"}
    assert decide([statement(), others], resource="b/k") == "Allow"
    assert decide([statement(), others], resource="c/k") == "Deny"


def test_variables_in_resources():
    own = [statement(Resource=f"{ARN}b/${{aws:username}}/*")]
    assert decide(own, resource="b/anna/x", aws__username="anna") == "Allow"
    assert decide(own, resource="b/otto/x", aws__username="anna") is None
    assert decide(own, resource="b/otto/x") is None
    assert decide([statement(Resource=f"{ARN}b/${{*}}")], resource="b/*") == "Allow"
    assert decide([statement(Resource=f"{ARN}b/${{*}}")], resource="b/x") is None
    assert decide(own, resource="b/otto/x", aws__username="*") is None, "what a client chooses is no wildcard"
    assert decide(own, resource="b/*/x", aws__username="*") == "Allow"


@pytest.mark.parametrize(
    ("pattern", "asked", "given", "decision"),
    [
        ("${aws:username, 'anonymous'}/*", "anonymous/x", {}, "Allow"),
        ("${aws:username, 'anonymous'}/*", "anna/x", {"aws__username": "anna"}, "Allow"),
        ("${aws:username, 'anonymous'}/*", "anonymous/x", {"aws__username": "anna"}, None),
        ("${ aws:username ,'two words'  }/*", "two words/x", {}, "Allow"),
        ("${aws:username, ''}/*", "/x", {}, "Allow"),
        ("${aws:username, '*'}/*", "anna/x", {}, None),
        ("${aws:username, '*'}/?", "*/x", {}, "Allow"),
        ("${aws:username, anonymous}/*", "anonymous/x", {}, None),
        ("${aws:username, 'a', 'b'}/*", "a/x", {}, None),
        ("${, 'a'}/*", "a/x", {}, "Allow"),
    ],
)
def test_a_variable_may_have_a_default(pattern, asked, given, decision):
    assert decide([statement(Resource=f"{ARN}b/{pattern}")], resource=f"b/{asked}", **given) == decision
    condition = {"StringLike": {"s3:prefix": pattern}}
    assert decide([statement(Condition=condition)], s3__prefix=asked, **given) == decision


@pytest.mark.parametrize("version", [{}, {"Version": "2008-10-17"}])
def test_policies_of_the_first_version_have_no_variables(version):
    """Nor have those that name none, which AWS takes for such."""
    named = statement(Resource=f"{ARN}b/${{aws:username}}/*")
    liked = statement(Condition={"StringEquals": {"s3:prefix": "${aws:username}"}})

    def decided(one, key, prefix):
        values = {"aws:username": ("anna",), "s3:prefix": (prefix,)}
        asked = Question(action="s3:GetObject", resource=f"{ARN}b/{key}", values=lambda: values)
        return parse_policy(json.dumps({**version, "Statement": one})).decide(asked)

    assert decided(named, "anna/x", "") is None
    assert decided(named, "${aws:username}/x", "") == "Allow"
    assert decided(liked, "k", "anna") is None
    assert decided(liked, "k", "${aws:username}") == "Allow"
    with pytest.raises(PolicyError, match=r"NumericEquals.s3:max-keys"):
        parse_policy({**version, "Statement": statement(Condition={"NumericEquals": {"s3:max-keys": "${x}"}})})


@pytest.mark.parametrize(
    ("operator", "key", "wanted", "have", "holds"),
    [
        ("StringEquals", "s3:prefix", "a/", "a/", True),
        ("StringEquals", "s3:prefix", ["x", "a/"], "a/", True),
        ("StringEquals", "S3:Prefix", "a/", "a/", True),
        ("StringEquals", "s3:prefix", "a/", "A/", False),
        ("StringEquals", "s3:prefix", "a/", None, False),
        ("StringEqualsIfExists", "s3:prefix", "a/", None, True),
        ("StringNotEquals", "s3:prefix", "a/", None, True),
        ("StringNotEquals", "s3:prefix", ["a/", "b/"], "b/", False),
        ("StringNotEquals", "s3:prefix", ["a/", "b/"], "c/", True),
        ("StringEqualsIgnoreCase", "s3:prefix", "a/", "A/", True),
        ("StringLike", "s3:prefix", "a/*", "a/b", True),
        ("StringNotLike", "s3:prefix", "a/*", "a/b", False),
        ("NumericLessThanEquals", "s3:prefix", 100, "100", True),
        ("NumericGreaterThan", "s3:prefix", "100", "100", False),
        ("NumericEquals", "s3:prefix", "1", "x", False),
        ("Bool", "s3:prefix", True, "true", True),
        ("Bool", "s3:prefix", "false", "true", False),
        ("IpAddress", "s3:prefix", "10.0.0.0/8", "10.1.2.3", True),
        ("IpAddress", "s3:prefix", "10.0.0.0/8", "11.1.2.3", False),
        ("IpAddress", "s3:prefix", "::1/128", "::1", True),
        ("IpAddress", "s3:prefix", "10.0.0.0/8", "no address", False),
        ("NotIpAddress", "s3:prefix", ["10.0.0.0/8"], "11.1.2.3", True),
        ("DateLessThan", "s3:prefix", "2026-01-01T00:00:00Z", "2025-11-20T22:00:00Z", True),
        ("DateGreaterThan", "s3:prefix", "0", "2025-11-20T22:00:00Z", True),
        ("ArnLike", "s3:prefix", "arn:aws:iam::*:user/a", "arn:aws:iam::1:user/a", True),
        ("Null", "s3:prefix", "true", None, True),
        ("Null", "s3:prefix", "true", "x", False),
        ("Null", "s3:prefix", False, "x", True),
        ("ForAllValues:StringEquals", "s3:prefix", "a", None, True),
        ("ForAnyValue:StringNotEquals", "s3:prefix", "a", None, False),
        ("ForAnyValue:StringLike", "s3:prefix", "a*", "ab", True),
    ],
)
def test_conditions(operator, key, wanted, have, holds):
    values = {} if have is None else {"s3__prefix": have}
    conditional = statement(Condition={operator: {key: wanted}})
    assert (decide([conditional], **values) == "Allow") is holds


def test_every_condition_must_hold():
    both = statement(Condition={"StringEquals": {"s3:prefix": "a", "s3:delimiter": "/"}})
    assert decide([both], s3__prefix="a", s3__delimiter="/") == "Allow"
    assert decide([both], s3__prefix="a") is None


def test_bucket_policies_name_whom_they_mean():
    everyone = statement(Principal="*", Resource=f"{ARN}b/*")
    assert decide([everyone], bucket="b") == "Allow"
    anna = {**everyone, "Principal": {"AWS": ["arn:aws:iam::000000000000:user/anna"]}}
    assert decide([anna], bucket="b") is None
    assert decide([anna], bucket="b", names=("arn:aws:iam::000000000000:user/anna", "anna")) == "Allow"
    others = {"Effect": "Deny", "NotPrincipal": {"AWS": "anna"}, "Action": "s3:*", "Resource": f"{ARN}b/*"}
    assert decide([others], bucket="b", names=("anna",)) is None
    assert decide([others], bucket="b", names=("otto",)) == "Deny"


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        (b"", "document"),
        (b"[]", "document"),
        (b"{", "document"),
        (b"\xff", "document"),
        ({"Version": "2020-01-01", "Statement": [statement()]}, "Version"),
        ({"Statement": [statement()], "Extra": 1}, "Extra"),
        ({}, "Statement"),
        ({"Statement": []}, "Statement"),
        ({"Statement": "x"}, "Statement"),
        ({"Statement": ["x"]}, "Statement[0]"),
        (document(statement(), statement(effect="allow")), "Statement[1].Effect"),
        (document(statement(Action=[])), "Statement[0].Action"),
        (document(statement(Action="GetObject")), "Statement[0].Action"),
        (document(statement(Action="ec2:Start")), "Statement[0].Action"),
        (document(statement(Action={"a": 1})), "Statement[0].Action"),
        (document(statement(NotAction="s3:*")), "Statement[0].Action"),
        (document({"Effect": "Allow", "Action": "s3:*"}), "Statement[0].Resource"),
        (document(statement(Resource="b/*")), "Statement[0].Resource"),
        (document(statement(Principal="*")), "Statement[0].Principal"),
        (document(statement(Nonsense="*")), "Statement[0].Nonsense"),
        (document(statement(Condition=[])), "Statement[0].Condition"),
        (document(statement(Condition={"StringSame": {"a": "b"}})), "Statement[0].Condition"),
        (document(statement(Condition={"ForSome:StringLike": {"a": "b"}})), "Statement[0].Condition"),
        (document(statement(Condition={"IpAddress": {"aws:SourceIp": "x"}})), "IpAddress.aws:SourceIp"),
        (document(statement(Condition={"Bool": {"aws:SecureTransport": "yes"}})), "Bool.aws:SecureTransport"),
        (document(statement(Condition={"NumericEquals": {"a": "x"}})), "NumericEquals.a"),
        (document(statement(Condition={"StringEquals": "x"})), "Condition.StringEquals"),
    ],
)
def test_a_bad_document_is_refused_with_its_field(raw, field):
    with pytest.raises(PolicyError) as caught:
        parse_policy(raw)
    assert field in str(caught.value)


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        (document(statement(Resource=f"{ARN}b/*")), "Principal"),
        (document(statement(Resource=f"{ARN}other/*", Principal="*")), "Resource"),
        (document(statement(Resource="*", Principal="*")), "Resource"),
        (document(statement(Resource=f"{ARN}b/*", Principal={"Servant": "x"})), "Principal"),
        (document(statement(Resource=f"{ARN}b/*", Principal="anna")), "Principal"),
    ],
)
def test_a_bad_bucket_policy_is_refused_with_its_field(raw, field):
    with pytest.raises(PolicyError) as caught:
        parse_policy(raw, "b")
    assert field in str(caught.value)


def test_a_document_is_bounded():
    with pytest.raises(PolicyError, match="20480"):
        parse_policy(b" " * 20481)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda inner: st.lists(
    inner, max_size=3) | st.dictionaries(
        st.sampled_from(["Statement", "Effect", "Action", "Resource", "Principal", "Condition", "StringLike", "AWS"]),
        inner, max_size=5), max_leaves=12))  # fmt: skip
def test_any_json_is_a_policy_or_a_policy_error(raw):
    for bucket in (None, "b"):
        try:
            parse_policy(json.dumps({"Statement": [raw]}), bucket)
        except PolicyError:
            continue


@pytest.mark.parametrize(
    ("name", "action", "allowed"),
    [
        ("readonly", "s3:GetObject", True),
        ("readonly", "s3:PutObject", False),
        ("readonly", "admin:ServerInfo", False),
        ("readwrite", "s3:DeleteBucket", True),
        ("readwrite", "admin:ServerInfo", False),
        ("writeonly", "s3:PutObject", True),
        ("writeonly", "s3:GetObject", False),
        ("diagnostics", "admin:ServerInfo", True),
        ("diagnostics", "s3:GetObject", False),
        ("consoleAdmin", "admin:CreateUser", True),
        ("consoleAdmin", "s3:GetObject", True),
    ],
)
def test_built_in_policies(name, action, allowed):
    question = Question(action=action, resource=f"{ARN}b/k", values=dict)
    assert (builtin_policies()[name].decide(question) == "Allow") is allowed
