"""Heads of responses: what they say of the body and of the connection, and that nothing breaks out of a line."""

from __future__ import annotations

import pytest

from holdfast_server.api.http.answer import Wording
from holdfast_server.api.http.head import Head, HeadReader

NOW_MS = 1_369_353_600_000


def asked(method: str = "GET", version: str = "1.1") -> Head:
    return HeadReader(1000, 10).read(f"{method} / HTTP/{version}\r\nHost: x\r\n\r\n".encode())


def lines(
    head: Head | None, status: int = 200, size: int | None = 5, keep_alive: bool = True, **headers: str
) -> list[str]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    text = Wording("pod-0").head(head, status, named, "ID", NOW_MS, size, keep_alive).decode()
    assert text.endswith("\r\n\r\n")
    return text.removesuffix("\r\n\r\n").split("\r\n")


def test_a_response_says_who_answers_and_when() -> None:
    assert lines(asked(), etag='"e"') == [
        "HTTP/1.1 200 OK",
        "Server: Holdfast",
        "Date: Fri, 24 May 2013 00:00:00 GMT",
        "x-amz-id-2: pod-0",
        "x-amz-request-id: ID",
        'etag: "e"',
        "Content-Length: 5",
        "Content-Type: application/octet-stream",
    ]


def test_the_date_goes_with_the_time() -> None:
    wording = Wording("pod-0")
    for seconds in (0, 0, 1):
        text = wording.head(asked(), 200, {}, "ID", NOW_MS + 1000 * seconds, 0, True).decode()
        assert f"00:00:0{seconds} GMT" in text


@pytest.mark.parametrize(
    ("version", "keep_alive", "line"),
    [("1.1", True, None), ("1.1", False, "close"), ("1.0", True, "keep-alive"), ("1.0", False, None)],
)
def test_what_becomes_of_the_connection(version: str, keep_alive: bool, line: str | None) -> None:
    found = lines(asked(version=version), keep_alive=keep_alive)
    assert found[0] == f"HTTP/{version} 200 OK"
    assert [text for text in found if text.startswith("Connection")] == ([f"Connection: {line}"] if line else [])


def test_what_was_not_understood_is_answered_for_good() -> None:
    assert "Connection: close" in lines(None, 400, keep_alive=False)


@pytest.mark.parametrize(
    ("method", "version", "status", "size", "length"),
    [
        ("GET", "1.1", 200, 7, "Content-Length: 7"),
        ("GET", "1.1", 200, 0, "Content-Length: 0"),
        ("GET", "1.1", 200, None, "Transfer-Encoding: chunked"),
        ("GET", "1.0", 200, None, None),
        ("HEAD", "1.1", 404, 0, "Content-Length: 0"),
        ("HEAD", "1.1", 200, None, None),
        ("DELETE", "1.1", 204, 0, None),
        ("GET", "1.1", 304, 0, None),
    ],
)
def test_where_the_body_ends_is_said_once(
    method: str, version: str, status: int, size: int | None, length: str | None
) -> None:
    found = lines(asked(method, version), status, size)
    assert [text for text in found if text.startswith(("Content-Length", "Transfer"))] == ([length] if length else [])


def test_the_length_of_an_object_that_is_not_sent_is_told() -> None:
    found = lines(asked("HEAD"), size=0, content_length="77", content_type="text/plain")
    assert [text.lower() for text in found if "ontent" in text] == ["content-length: 77", "content-type: text/plain"]


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\nb", "a\rb", "a\0b", "\udcff"])
def test_what_would_break_out_of_its_line_is_never_sent(value: str) -> None:
    with pytest.raises(ValueError, match=r"control character|encode"):
        lines(asked(), x=value)
