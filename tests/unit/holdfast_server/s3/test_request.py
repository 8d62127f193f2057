"""Bucket, key and parameters come out exactly as the client meant them."""

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.request import Request, fold_headers, parse_query, parse_target, percent_decode


def _request(path: str, host: str = "localhost:9000", query: str = "") -> Request:
    return Request(
        method="GET",
        raw_path=path,
        raw_query=query,
        headers={"host": host},
        remote="",
        received_ms=0,
        secure=False,
    )


def target_of(path: str, host: str = "localhost:9000", domains=()) -> tuple[str, str, str]:
    target = parse_target(_request(path, host), domains)
    return target.level, target.bucket, target.key


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", ("service", "", "")),
        ("/b", ("bucket", "b", "")),
        ("/b/", ("bucket", "b", "")),
        ("/b/k", ("object", "b", "k")),
        ("/b//k", ("object", "b", "/k")),
        ("/b/k/", ("object", "b", "k/")),
        ("/b/a//b/../c/./d", ("object", "b", "a//b/../c/./d")),
        ("/b/%2F%2e%2E%3A%3D%2B+%20", ("object", "b", "/..:=++ ")),
        ("/b/%E6%97%A5", ("object", "b", "日")),
        ("/b/日", ("object", "b", "日")),
    ],
)
def test_path_style(path, expected):
    assert target_of(path) == expected


@pytest.mark.parametrize(
    ("host", "path", "expected"),
    [
        ("b.s3.example.com", "/k", ("object", "b", "k")),
        ("B.S3.Example.Com:9000", "/", ("bucket", "b", "")),
        ("a.b.s3.example.com", "/x/y", ("object", "a.b", "x/y")),
        ("s3.example.com:9000", "/b/k", ("object", "b", "k")),
        ("xs3.example.com", "/b/k", ("object", "b", "k")),
        ("[::1]:9000", "/b/k", ("object", "b", "k")),
        ("[::1]", "/b/k", ("object", "b", "k")),
        ("127.0.0.1:9000", "/b", ("bucket", "b", "")),
    ],
)
def test_virtual_host_style(host, path, expected):
    assert target_of(path, host, ["other.example", "s3.example.com"]) == expected


@pytest.mark.parametrize("name", ["\udcff", "ü", "a\x01", "a b\x7f"])
def test_a_host_that_names_no_bucket_is_refused(name):
    with pytest.raises(S3Error) as raised:
        target_of("/k", f"{name}.s3.example.com", ["s3.example.com"])
    assert raised.value.code == "InvalidBucketName"


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/b/%00", "InvalidURI"),
        ("/b/a\x00", "InvalidURI"),
        ("/b/%ff", "InvalidURI"),
        ("/b/%ed%a0%80", "InvalidURI"),
        ("/b/\udcff", "InvalidURI"),
        ("/b/%", "InvalidURI"),
        ("/b/%zz", "InvalidURI"),
        ("b/k", "InvalidURI"),
        ("", "InvalidURI"),
        ("*", "InvalidURI"),
        ("http://host/b/k", "InvalidURI"),
        ("//k", "InvalidBucketName"),
        ("/b/" + "k" * 1025, "KeyTooLongError"),
        ("/b/" + "%C3%A9" * 513, "KeyTooLongError"),
    ],
)
def test_bad_addresses_are_refused(path, code):
    with pytest.raises(S3Error) as caught:
        parse_target(_request(path))
    assert caught.value.code == code


def test_keys_up_to_1024_bytes_are_taken():
    assert len(parse_target(_request("/b/" + "k" * 1024)).key) == 1024
    assert len(parse_target(_request("/b/" + "%C3%A9" * 512)).key) == 512


@pytest.mark.parametrize("domains", [("a.example", "s3.a.example"), ("s3.a.example", "a.example")])
@pytest.mark.parametrize(
    ("host", "bucket", "key"),
    [
        ("s3.a.example", "b", "k"),
        ("S3.a.example:9000", "b", "k"),
        ("a.example", "b", "k"),
        ("logs.s3.a.example", "logs", "b/k"),
        ("logs.a.example", "logs", "b/k"),
    ],
)
def test_of_domains_within_each_other_the_longer_one_counts(
    host: str, bucket: str, key: str, domains: tuple[str, ...]
) -> None:
    target = parse_target(_request("/b/k", host), domains)
    assert (target.bucket, target.key) == (bucket, key)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), st.sampled_from(["", "/", "/:=+"]))
def test_decoding_undoes_encoding(text, safe):
    assert percent_decode(quote(text, safe=safe)) == text


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", {}),
        ("uploads", {"uploads": ""}),
        ("location=", {"location": ""}),
        ("a=1&a=2&b", {"a": "1", "b": ""}),
        ("prefix=a%20b+c%2Bd&delimiter=%2F", {"prefix": "a b c+d", "delimiter": "/"}),
        ("&&x=a=b&", {"x": "a=b"}),
    ],
)
def test_queries(query, expected):
    assert parse_query(query) == expected


def test_bad_or_endless_queries_are_refused():
    for query in ("a=%ff", "%zz", "&".join(["a=1"] * 300)):
        with pytest.raises(S3Error, match="InvalidURI"):
            parse_query(query)


def test_headers_are_folded():
    folded = fold_headers([("Host", "h"), ("X-Amz-Meta-A", " 1 "), ("x-amz-meta-a", "2\t")])
    assert folded == {"host": "h", "x-amz-meta-a": "1,2"}
