"""Kept headers, dates, ETags, and the names and numbers of requests."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_server.s3 import headers, names
from holdfast_server.s3.errors import S3Error


def code_of(function, *arguments) -> str:
    try:
        function(*arguments)
    except S3Error as error:
        return error.code
    return "ok"


def test_content_headers_and_metadata_are_kept_and_nothing_else():
    sent = {
        "host": "h",
        "content-length": "1",
        "cache-control": "no-cache",
        "content-encoding": "gzip, aws-chunked",
        "x-amz-meta-a": "1",
        "x-amz-acl": "private",
        "expires": "soon",
    }
    assert headers.object_headers(sent) == {
        "content-type": "binary/octet-stream",
        "cache-control": "no-cache",
        "content-encoding": "gzip",
        "expires": "soon",
        "x-amz-meta-a": "1",
    }
    two = headers.object_headers({"content-encoding": "deflate, gzip"})
    assert two["content-encoding"] == "deflate, gzip"
    framed = headers.object_headers({"content-encoding": "aws-chunked,deflate, gzip"})
    assert framed["content-encoding"] == "deflate, gzip"
    assert "content-encoding" not in headers.object_headers({"content-encoding": "aws-chunked"})
    assert headers.object_headers({"content-type": "text/plain"}) == {"content-type": "text/plain"}


def test_metadata_is_bounded_in_bytes():
    assert code_of(headers.object_headers, {"x-amz-meta-a": "v" * 2047}) == "ok"
    assert code_of(headers.object_headers, {"x-amz-meta-a": "v" * 2048}) == "MetadataTooLarge"
    assert code_of(headers.object_headers, {"x-amz-meta-a": "é" * 1024}) == "MetadataTooLarge"
    assert code_of(headers.object_headers, {"cache-control": "v" * 9000}) == "MetadataTooLarge"
    assert code_of(headers.object_headers, {"x-amz-meta-a": "a\x01"}) == "InvalidArgument"
    assert code_of(headers.object_headers, {"x-amz-meta-a": "日本\udcff"}) == "ok"


@pytest.mark.parametrize("name", ["a b", "a: b", "a\nset-cookie", "a\r\nset-cookie", "ü", "a\x00", "a(b)"])
def test_metadata_has_names_that_headers_can_have(name: str) -> None:
    """Fields of forms and parameters of links may be called anything."""
    assert code_of(headers.object_headers, {f"x-amz-meta-{name}": "v"}) == "InvalidArgument"


def test_metadata_has_values_that_headers_can_have() -> None:
    assert code_of(headers.object_headers, {"x-amz-meta-a": "v\x7f"}) == "InvalidArgument"
    assert code_of(headers.object_headers, {"x-amz-meta-a.b_c~1!#$%&'*+^`|": "v\tw"}) == "ok"


def test_a_redirect_leads_to_somewhere() -> None:
    redirect = "x-amz-website-redirect-location"
    for good in ("/there", "http://example.com/", "https://example.com/"):
        assert headers.object_headers({redirect: good})[redirect] == good
    for bad in ("there", "ftp://example.com/", "javascript:alert(1)"):
        assert code_of(headers.object_headers, {redirect: bad}) == "InvalidRedirectLocation"


def test_choices_are_checked():
    assert headers.storage_class({}) == "STANDARD"
    assert code_of(headers.storage_class, {"x-amz-storage-class": "BEST"}) == "InvalidStorageClass"
    assert headers.copy_directive({"x-amz-metadata-directive": "REPLACE"}, "metadata") == "REPLACE"
    assert code_of(headers.copy_directive, {"x-amz-tagging-directive": "MERGE"}, "tagging") == "InvalidArgument"


def test_response_overrides_cannot_inject_headers():
    assert headers.response_overrides({"response-content-type": "text/html"}) == {"content-type": "text/html"}
    assert code_of(headers.response_overrides, {"response-expires": "x\r\nSet-Cookie: a"}) == "InvalidArgument"


@given(st.integers(0, 253_402_300_799_999))
def test_http_dates_read_back_to_the_second(milliseconds):
    assert headers.parse_http_date(headers.http_date(milliseconds)) == milliseconds // 1000 * 1000


def test_dates_as_s3_writes_them():
    assert headers.http_date(1_369_353_600_999) == "Fri, 24 May 2013 00:00:00 GMT"
    assert headers.iso_date(1_369_353_600_007) == "2013-05-24T00:00:00.007Z"
    for text in (
        "",
        "x",
        "Fri, 99 May 2013 00:00:00 GMT",
        "Fri, 24 May 99999 00:00:00 GMT",
        f"Fri, {'2' * 42} May 2013 00:00:00 GMT",
    ):
        assert headers.parse_http_date(text) is None


def test_etags():
    assert headers.quote_etag("a") == '"a"'
    texts = ('"a"', "a", ' W/"a" ', 'a"', '"a', '"', "")
    assert [headers.unquote_etag(text) for text in texts] == ["a", "a", "a", "a", "a", "", ""]


@pytest.mark.parametrize("name", ["abc", "a" * 63, "loki-chunks", "a.b.c", "123", "my-bucket.1"])
def test_good_bucket_names(name):
    assert names.check_new_bucket_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "ab",
        "a" * 64,
        "Abc",
        "a_b",
        "-ab",
        "ab-",
        ".ab",
        "ab.",
        "a..b",
        "a.-b",
        "1.2.3.4",
        "xn--a",
        "a-s3alias",
        "a.mrap",
        "a--x-s3",
        "a--table-s3",
        "é",
        "holdfast",
        "minio",
        "health",
        "abc\n",
        "",
    ],
)
def test_bad_bucket_names(name):
    assert code_of(names.check_new_bucket_name, name) == "InvalidBucketName"


@pytest.mark.parametrize(("text", "count"), [("", 1000), ("0", 0), ("7", 7), ("5000", 1000), ("2147483647", 1000)])
def test_max_keys(text, count):
    assert names.parse_count({"max-keys": text}) == count


@pytest.mark.parametrize("text", ["-1", "x", "1.5", "2147483648", "9" * 40, "²", " 1"])
def test_bad_max_keys(text):
    assert code_of(names.parse_count, {"max-keys": text}) == "InvalidArgument"


def test_part_numbers_upload_ids_and_markers():
    assert names.parse_part_number("10000") == 10000
    for text in ("", "0", "10001", "-1", "x", "²"):
        assert code_of(names.parse_part_number, text) == "InvalidArgument"
    assert names.parse_upload_id({"uploadId": "aZ0-_.~"}) == "aZ0-_.~"
    for text in ("", "a/b", "a" * 257, "../x"):
        assert code_of(names.parse_upload_id, {"uploadId": text}) == "NoSuchUpload"
    assert names.parse_part_number_marker({}) == 0
    assert code_of(names.parse_part_number_marker, {"part-number-marker": "x"}) == "InvalidArgument"
    assert code_of(names.parse_encoding_type, {"encoding-type": "xml"}) == "InvalidArgument"


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_continuation_tokens_read_back(key):
    token = names.encode_token(key)
    assert names.decode_token(token) == key
    assert token.replace("-", "").replace("_", "").isalnum()


@pytest.mark.parametrize("token", ["", "x", "!!!!", "AAAA", "é", "M_8"])
def test_bad_tokens(token):
    assert code_of(names.decode_token, token) == "InvalidArgument"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/b/k", ("b", "k", "")),
        ("b/k%20%2B", ("b", "k +", "")),
        ("b/a+b", ("b", "a b", "")),
        ("b/k?versionId=null", ("b", "k", "null")),
        ("b/k%3FversionId=1", ("b", "k?versionId=1", "")),
        ("b//k/", ("b", "/k/", "")),
    ],
)
def test_copy_sources(text, expected):
    source = names.parse_copy_source(text)
    assert (source.bucket, source.key, source.version_id) == expected


@pytest.mark.parametrize("text", ["", "/", "b", "b/", "/b/", "b/%ff"])
def test_bad_copy_sources(text):
    assert code_of(names.parse_copy_source, text) == "InvalidArgument"
