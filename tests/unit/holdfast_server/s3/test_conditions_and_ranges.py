"""Conditional requests and ranges."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_server.s3.conditions import (
    check_copy_source,
    check_read,
    parse_delete_condition,
    parse_write_condition,
)
from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.headers import http_date
from holdfast_server.s3.ranges import ByteRange, parse_copy_range, parse_range, still_meant

ETAG = "d41d8cd98f00b204e9800998ecf8427e"
MODIFIED_MS = 1_763_676_000_999
SAME, EARLIER, LATER = http_date(MODIFIED_MS), http_date(MODIFIED_MS - 1000), http_date(MODIFIED_MS + 1000)


def code_of(function, *arguments) -> str:
    try:
        function(*arguments)
    except S3Error as error:
        return error.code
    return "ok"


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "ok"),
        ({"if-match": f'"{ETAG}"'}, "ok"),
        ({"if-match": ETAG}, "ok"),
        ({"if-match": f'{ETAG}"'}, "ok"),
        ({"if-match": f'"x", W/"{ETAG}"'}, "ok"),
        ({"if-match": "*"}, "ok"),
        ({"if-match": '"x"'}, "PreconditionFailed"),
        ({"if-none-match": f'"{ETAG}"'}, "NotModified"),
        ({"if-none-match": "*"}, "NotModified"),
        ({"if-none-match": '"x"'}, "ok"),
        ({"if-modified-since": SAME}, "NotModified"),
        ({"if-modified-since": LATER}, "NotModified"),
        ({"if-modified-since": EARLIER}, "ok"),
        ({"if-modified-since": "yesterday"}, "ok"),
        ({"if-unmodified-since": SAME}, "ok"),
        ({"if-unmodified-since": EARLIER}, "PreconditionFailed"),
        ({"if-match": ETAG, "if-unmodified-since": EARLIER}, "ok"),
        ({"if-none-match": '"x"', "if-modified-since": LATER}, "ok"),
        ({"if-none-match": ETAG, "if-modified-since": EARLIER}, "NotModified"),
        ({"if-match": '"x"', "if-none-match": ETAG}, "PreconditionFailed"),
    ],
)
def test_reads(headers, code):
    assert code_of(check_read, headers, ETAG, MODIFIED_MS) == code
    copy = {f"x-amz-copy-source-{name}": value for name, value in headers.items()}
    expected = "PreconditionFailed" if code == "NotModified" else code
    assert code_of(check_copy_source, copy, ETAG, MODIFIED_MS) == expected


@pytest.mark.parametrize(
    ("headers", "current", "code"),
    [
        ({"if-none-match": "*"}, None, "ok"),
        ({"if-none-match": "*"}, ETAG, "PreconditionFailed"),
        ({"if-match": f'"{ETAG}"'}, ETAG, "ok"),
        ({"if-match": '"x"'}, ETAG, "PreconditionFailed"),
        ({"if-match": f'"{ETAG}"'}, None, "NoSuchKey"),
        ({"if-match": "*"}, ETAG, "ok"),
        ({"if-match": ""}, ETAG, "PreconditionFailed"),
        ({"if-none-match": f'"{ETAG}"'}, ETAG, "PreconditionFailed"),
        ({"if-none-match": f'"x", "{ETAG}"'}, ETAG, "PreconditionFailed"),
        ({"if-none-match": '"x"'}, ETAG, "ok"),
        ({"if-none-match": '"x"'}, None, "ok"),
        ({"if-match": f'"{ETAG}"', "if-none-match": '"x"'}, ETAG, "ok"),
        ({"if-match": f'"{ETAG}"', "if-none-match": "*"}, ETAG, "PreconditionFailed"),
    ],
)
def test_writes(headers, current, code):
    condition = parse_write_condition(headers)
    assert condition is not None
    assert code_of(condition.check, current) == code


def test_no_condition_is_none():
    assert parse_write_condition({}) is None
    assert parse_delete_condition({}) is None


TIME, SIZE = "x-amz-if-match-last-modified-time", "x-amz-if-match-size"


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"if-match": f'"{ETAG}"'}, "ok"),
        ({"if-match": "*"}, "ok"),
        ({"if-match": '"x"'}, "PreconditionFailed"),
        ({TIME: "Fri, 24 May 2013 00:00:00 GMT"}, "ok"),
        ({TIME: "Fri, 24 May 2013 00:00:01 GMT"}, "PreconditionFailed"),
        ({SIZE: "17"}, "ok"),
        ({SIZE: "0"}, "PreconditionFailed"),
        ({"if-match": "*", TIME: "Fri, 24 May 2013 00:00:00 GMT", SIZE: "18"}, "PreconditionFailed"),
    ],
)
def test_deletes(headers, code):
    condition = parse_delete_condition(headers)
    assert condition is not None
    assert code_of(condition.check, ETAG, 1369353600_999, 17) == code


def test_conditions_of_a_delete_that_cannot_be_checked_are_refused():
    assert code_of(parse_delete_condition, {"if-none-match": "*"}) == "NotImplemented"
    for headers in ({SIZE: "many"}, {SIZE: "-1"}, {SIZE: ""}, {TIME: "yesterday"}, {TIME: ""}):
        assert code_of(parse_delete_condition, headers) == "InvalidArgument"


@pytest.mark.parametrize(
    ("text", "size_bytes", "expected"),
    [
        ("bytes=0-9", 100, (0, 10)),
        ("bytes=90-", 100, (90, 10)),
        ("bytes=-5", 100, (95, 5)),
        ("bytes=-500", 100, (0, 100)),
        ("bytes=99-1000", 100, (99, 1)),
        ("bytes=5-18446744073709551615", 100, (5, 95)),
        ("bytes=-18446744073709551615", 100, (0, 100)),
        ("bytes=18446744073709551615-", 100, "InvalidRange"),
        (f"bytes=5-{'9' * 5000}", 100, None),
        ("bytes=5-4", 100, None),
        ("bytes=0-1,3-4", 100, None),
        ("lines=0-1", 100, None),
        ("bytes=-", 100, None),
        ("bytes=a-b", 100, None),
        ("bytes 0-1", 100, None),
        ("bytes= -1", 100, None),
        ("bytes=0 -1", 100, None),
        (None, 100, None),
        ("", 100, None),
        ("bytes=100-", 100, "InvalidRange"),
        ("bytes=-0", 100, "InvalidRange"),
        ("bytes=0-", 0, "InvalidRange"),
        ("bytes=-1", 0, None),
    ],
)
def test_ranges(text, size_bytes, expected):
    if expected == "InvalidRange":
        assert code_of(parse_range, text, size_bytes) == expected
    else:
        assert parse_range(text, size_bytes) == (ByteRange(*expected) if expected else None)


@given(st.integers(1, 1000), st.integers(0, 1500), st.integers(0, 1500))
def test_a_range_is_the_slice_it_names(size_bytes, first, last):
    data = bytes(i % 251 for i in range(size_bytes))
    if first > last or first >= size_bytes:
        return
    found = parse_range(f"bytes={first}-{last}", size_bytes)
    assert found is not None
    assert data[found.start : found.start + found.length] == data[first : last + 1]
    assert found.content_range(size_bytes) == f"bytes {first}-{min(last, size_bytes - 1)}/{size_bytes}"


def test_copy_ranges_must_lie_within_the_source():
    assert parse_copy_range("bytes=0-9", 10) == ByteRange(0, 10)
    for text in ("bytes=0-10", "bytes=5-", "bytes=-5", "0-1", "bytes=3-2"):
        assert code_of(parse_copy_range, text, 10) == "InvalidArgument"


@pytest.mark.parametrize(
    ("if_range", "meant"),
    [
        (None, True),
        (f'"{ETAG}"', True),
        ('"x"', False),
        (f'W/"{ETAG}"', False),
        (ETAG, False),
        (SAME, True),
        (EARLIER, False),
        (LATER, False),
        ("", False),
        ("W/soon", False),
    ],
)
def test_a_range_counts_for_the_object_that_if_range_names(if_range: str | None, meant: bool) -> None:
    assert still_meant(if_range, ETAG, MODIFIED_MS) is meant
