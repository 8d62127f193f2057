"""Cross-origin rules: which one a request falls under, and documents that are none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_server.s3.cors import (
    MAX_REQUEST_HEADERS,
    METHODS,
    CorsRule,
    answer_preflight,
    cors_xml,
    find_rule,
    parse_cors,
    parse_preflight,
)
from holdfast_server.s3.errors import S3Error

PRINTABLE = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="*"), min_size=1, max_size=20)


@pytest.mark.parametrize(
    ("pattern", "origin", "allowed"),
    [
        ("*", "null", True),
        ("http://a", "http://a", True),
        ("http://a", "http://ab", False),
        ("*suffix", "foo.suffix", True),
        ("*suffix", "suffix.foo", False),
        ("start*end", "startend", True),
        ("start*end", "start1end", True),
        ("aba*aba", "aba", False),
        ("prefix*", "prefix", True),
        ("HTTP://A", "http://a", False),
        ("*", "\udcff", False),
        ("*", "a\tb", False),
    ],
)
def test_origins_match_by_one_star(pattern: str, origin: str, allowed: bool) -> None:
    rule = CorsRule(origins=[pattern], methods=["GET"])
    assert (find_rule([rule], origin, "GET") is rule) == allowed
    assert find_rule([rule], origin, "PUT") is None


def test_the_first_rule_that_allows_everything_asked_is_taken() -> None:
    narrow = CorsRule(origins=["*"], methods=["PUT"], headers=["x-a"])
    wide = CorsRule(origins=["*"], methods=["PUT"], headers=["X-*"])
    assert find_rule([narrow, wide], "o", "PUT", ["X-A"]) is narrow
    assert find_rule([narrow, wide], "o", "PUT", ["x-a", "x-b"]) is wide
    assert find_rule([narrow, wide], "o", "PUT", ["authorization"]) is None


@given(
    st.lists(
        st.builds(
            CorsRule,
            origins=st.lists(PRINTABLE | st.just("*"), min_size=1, max_size=3),
            methods=st.lists(st.sampled_from(METHODS), min_size=1, max_size=3),
            headers=st.lists(PRINTABLE, max_size=3),
            exposed=st.lists(PRINTABLE, max_size=3),
            max_age_seconds=st.none() | st.integers(0, (1 << 31) - 1),
            id=st.just("") | PRINTABLE,
        ),
        min_size=1,
        max_size=5,
    )
)
def test_rules_read_back(rules: list[CorsRule]) -> None:
    assert parse_cors(cors_xml(rules)) == rules


def rule_xml(inner: str) -> bytes:
    return f"<CORSConfiguration><CORSRule>{inner}</CORSRule></CORSConfiguration>".encode()


ORIGIN, METHOD = "<AllowedOrigin>*</AllowedOrigin>", "<AllowedMethod>GET</AllowedMethod>"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"<CORSConfiguration/>", "MalformedXML"),
        (rule_xml(ORIGIN), "MalformedXML"),
        (rule_xml(METHOD), "MalformedXML"),
        (rule_xml(f"{ORIGIN}{METHOD}<MaxAgeSeconds>--1</MaxAgeSeconds>"), "MalformedXML"),
        (rule_xml(f"{ORIGIN}{METHOD}<MaxAgeSeconds>-2147483648</MaxAgeSeconds>"), "MalformedXML"),
        (rule_xml(f"{ORIGIN}<AllowedMethod>get</AllowedMethod>"), "InvalidRequest"),
        (rule_xml(f"<AllowedOrigin>*.*</AllowedOrigin>{METHOD}"), "InvalidRequest"),
        (rule_xml(f"{ORIGIN}{METHOD}<AllowedHeader>*-*</AllowedHeader>"), "InvalidRequest"),
        (rule_xml(f"{ORIGIN}{METHOD}<ExposeHeader>x-*</ExposeHeader>"), "InvalidRequest"),
        (rule_xml(f"<AllowedOrigin>a&#10;b</AllowedOrigin>{METHOD}"), "InvalidRequest"),
        (rule_xml(f"{ORIGIN}{METHOD}<ID>{'x' * 256}</ID>"), "InvalidRequest"),
        (b"<CORSConfiguration>" + f"<CORSRule>{ORIGIN}{METHOD}</CORSRule>".encode() * 101 + b"</CORSConfiguration>",
         "MalformedXML"),
    ],
)  # fmt: skip
def test_a_bad_document_is_refused(body: bytes, code: str) -> None:
    with pytest.raises(S3Error) as told:
        parse_cors(body)
    assert told.value.code == code


def test_a_rule_may_have_answers_kept_for_no_time() -> None:
    """As S3 takes it: `-1` has browsers ask before each request."""
    (rule,) = parse_cors(rule_xml(f"{ORIGIN}{METHOD}<MaxAgeSeconds>-1</MaxAgeSeconds>"))
    assert rule.max_age_seconds == -1
    assert parse_cors(cors_xml([rule])) == [rule]


def test_a_preflight_asks_for_no_more_headers_than_a_request_can_have() -> None:
    """Nobody signs it: 8,000 of them took half a minute, against the rules of some bucket."""
    asked = {"origin": "o", "access-control-request-method": "GET"}
    names = ["x"] * MAX_REQUEST_HEADERS
    assert parse_preflight({**asked, "access-control-request-headers": ", ".join(names)}).headers == tuple(names)
    with pytest.raises(S3Error, match="BadRequest"):
        parse_preflight({**asked, "access-control-request-headers": ",".join([*names, "x"])})


def test_a_preflight_without_rules_or_without_a_question_is_refused() -> None:
    with pytest.raises(S3Error, match="Origin"):
        parse_preflight({})
    with pytest.raises(S3Error, match="Request-Method"):
        parse_preflight({"origin": "o"})
    with pytest.raises(S3Error) as told:
        answer_preflight([], parse_preflight({"origin": "o", "access-control-request-method": "GET"}))
    assert told.value.status == 403
