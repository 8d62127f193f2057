"""Heads of requests: what they say, and which are refused because they could be understood in two ways."""

from __future__ import annotations

import pytest

from holdfast_server.api.http.head import MAX_KNOWN_NAMES, Head, HeadReader
from holdfast_server.s3.errors import S3Error

LINE_BYTES = 1000
HEADERS = 20


@pytest.fixture
def reader() -> HeadReader:
    return HeadReader(LINE_BYTES, HEADERS)


def read(reader: HeadReader, *lines: bytes, begin: bytes = b"PUT /b/k?x=1 HTTP/1.1", host: bytes = b"Host: x") -> Head:
    return reader.read(b"\r\n".join([begin, host, *lines, b"", b""]))


def test_a_head_is_what_came(reader: HeadReader) -> None:
    head = read(reader, b"X-Amz-Meta-A:  one ", b"x-amz-meta-a:\ttwo\t", b"Empty:", b"B: \xc3\xa4\xff")
    assert (head.method, head.raw_path, head.raw_query) == ("PUT", "/b/k", "x=1")
    assert head.headers == {"host": "x", "x-amz-meta-a": "one,two", "empty": "", "b": "ä\udcff"}
    assert (head.size_bytes, head.keeps_alive, head.awaits_continue, head.is_http_1_0) == (0, True, False, False)


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/", "/", ""),
        (b"/a%20b//c?x=%41&y", "/a%20b//c", "x=%41&y"),
        (b"/a?b?c", "/a", "b?c"),
        (b"*", "*", ""),
        (b"http://host:1/a?b", "/a", "b"),
        (b"http://host", "/", ""),
        (b"http://host?b=/c", "/", "b=/c"),
    ],
)
def test_a_target_is_taken_as_it_came(reader: HeadReader, target: bytes, path: str, query: str) -> None:
    head = read(reader, begin=b"OPTIONS %s HTTP/1.1" % target)
    assert (head.raw_path, head.raw_query) == (path, query)


@pytest.mark.parametrize(
    ("line", "size"),
    [
        (b"Content-Length: 0", 0),
        (b"content-length:7", 7),
        (b"Transfer-Encoding: chunked", None),
        (b"transfer-encoding: Chunked", None),
        (b"Transfer_Encoding: chunked", 0),
    ],
)
def test_how_long_a_body_is_is_said_once(reader: HeadReader, line: bytes, size: int | None) -> None:
    assert read(reader, line).size_bytes == size


@pytest.mark.parametrize(
    "lines",
    [
        [b"Content-Length: -1"], [b"Content-Length: +1"], [b"Content-Length: 0x1"], [b"Content-Length: 1 1"],
        [b"Content-Length:"], [b"Content-Length: 1, 1"], [b"Content-Length: 1" + b"0" * 20],
        [b"Content-Length: 1", b"Content-Length: 1"], [b"Content-Length: 1", b"content-length: 2"],
        [b"Content-Length: 5", b"Transfer-Encoding: chunked"], [b"Transfer-Encoding: chunked", b"Content-Length: 5"],
        [b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"], [b"Transfer-Encoding: chunked, gzip"],
        [b"Transfer-Encoding: gzip, chunked"], [b"Transfer-Encoding: xchunked"], [b"Transfer-Encoding: \x0bchunked"],
        [b"Transfer-Encoding: identity"], [b"Transfer-Encoding:"], [b"Content-Length : 1"], [b" Content-Length: 1"],
        [b"A: b\r\n c"], [b"A: b\n"], [b"A: b\rc"], [b"A: b\x00"], [b"A: b\x7f"], [b"A\xe4: b"], [b": b"], [b"A b: c"],
        [b"no colon"], [b"Host: y"], [b"Content-Type: a", b"Content-Type: b"],
    ],
)  # fmt: skip
def test_what_could_be_understood_in_two_ways_is_refused(reader: HeadReader, lines: list[bytes]) -> None:
    with pytest.raises(S3Error) as refused:
        read(reader, *lines)
    assert refused.value.code in ("InvalidRequest", "NotImplemented")


@pytest.mark.parametrize(
    "begin",
    [
        b"GET", b"GET /", b"GET / HTTP/2.0", b"GET / HTTP/0.9", b"GET / HTTP/1.10", b"GET / HTTP/1.1 ",
        b"GET / http/1.1", b"GET / RTSP/1.0", b"SOURCE / ICE/1.0", b"get / HTTP/1.1", b"NOSUCH / HTTP/1.1",
        b"GET b/k HTTP/1.1", b"CONNECT a:1 HTTP/1.1", b"GET /\xff HTTP/1.1", b"GET /\x01 HTTP/1.1",
        b"GET /a b HTTP/1.1", b"PRI * HTTP/2.0",
    ],
)  # fmt: skip
def test_what_begins_like_no_request_is_refused(reader: HeadReader, begin: bytes) -> None:
    with pytest.raises(S3Error) as refused:
        read(reader, begin=begin)
    assert refused.value.code == "InvalidRequest"


@pytest.mark.parametrize(
    ("version", "lines", "kept"),
    [
        (b"1.1", [], True),
        (b"1.1", [b"Connection: close"], False),
        (b"1.1", [b"Connection: Upgrade, Close"], False),
        (b"1.1", [b"Connection: Upgrade", b"Upgrade: websocket"], True),
        (b"1.0", [], False),
        (b"1.0", [b"Connection: Keep-Alive"], True),
    ],
)
def test_who_wants_to_go_on(reader: HeadReader, version: bytes, lines: list[bytes], kept: bool) -> None:
    head = read(reader, *lines, begin=b"GET / HTTP/" + version)
    assert (head.keeps_alive, head.is_http_1_0) == (kept, version == b"1.0")


def test_an_upgrade_hides_no_body(reader: HeadReader) -> None:
    assert read(reader, b"Connection: Upgrade", b"Upgrade: h2c", b"Content-Length: 5").size_bytes == 5


def test_only_http_1_1_needs_a_host_and_waits_to_continue(reader: HeadReader) -> None:
    assert read(reader, b"Expect: 100-Continue", b"Content-Length: 1").awaits_continue
    assert not read(reader, b"Expect: 100-continue", b"Content-Length: 1", begin=b"PUT / HTTP/1.0").awaits_continue
    assert read(reader, begin=b"GET / HTTP/1.0", host=b"A: b").headers == {"a": "b"}
    with pytest.raises(S3Error):
        read(reader, host=b"A: b")
    with pytest.raises(S3Error):
        read(reader, b"Transfer-Encoding: chunked", begin=b"PUT / HTTP/1.0")


def test_lines_and_their_number_are_bounded(reader: HeadReader) -> None:
    assert len(read(reader, b"A: " + b"v" * (LINE_BYTES - 3)).headers["a"]) == LINE_BYTES - 3
    read(reader, *[b"A: b"] * (HEADERS - 1))
    for lines in ([b"A: " + b"v" * (LINE_BYTES - 2)], [b"A: b"] * HEADERS):
        with pytest.raises(S3Error) as refused:
            read(reader, *lines)
        assert refused.value.code == "RequestHeaderSectionTooLarge"


def test_made_up_names_are_not_remembered_for_ever(reader: HeadReader) -> None:
    for number in range(MAX_KNOWN_NAMES + 10):
        assert read(reader, b"Name-%d: v" % number).headers[f"name-{number}"] == "v"
    assert len(reader._names) == MAX_KNOWN_NAMES
