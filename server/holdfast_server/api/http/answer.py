"""The head of a response, as bytes; and where the body's end is told.

What is the same for all responses of a second (status line, date, who answers) is put together once.  A header that
would break out of its line is our own mistake, and is refused instead of sent.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from holdfast_server.api.http.head import Head
from holdfast_server.s3.headers import http_date

SERVER_NAME = "Holdfast"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"
_BODILESS = frozenset({204, 304})
_DEFAULT_TYPE = "application/octet-stream"


class Wording:
    """Says how a pod's responses begin."""

    def __init__(self, pod_name: str) -> None:
        self._pod_name = pod_name
        self._second = -1
        self._openings: dict[tuple[bool, int], str] = {}

    def head(
        self,
        asked: Head | None,
        status: int,
        headers: Mapping[str, str],
        request_id: str,
        now_ms: int,
        size_bytes: int | None,
        keep_alive: bool,
    ) -> bytes:
        """`asked`: None where nothing was asked that could be understood.  `size_bytes`: of the body; where it is
        None, see `is_chunked`.  Raises ValueError for headers that cannot be sent."""
        is_http_1_0, is_head = (False, False) if asked is None else (asked.is_http_1_0, asked.method == "HEAD")
        lines = [self._opening(is_http_1_0, status, now_ms), "x-amz-request-id: ", request_id, "\r\n"]
        for name, value in headers.items():
            lines += (name, ": ", value, "\r\n")
        count = len(headers) + 6
        if status not in _BODILESS:
            if "content-length" in headers:
                pass
            elif size_bytes is not None:
                lines += ("Content-Length: ", str(size_bytes), "\r\n")
                count += 1
            elif is_chunked(asked, size_bytes) and not is_head:
                lines.append("Transfer-Encoding: chunked\r\n")
                count += 1
            if size_bytes != 0 and "content-type" not in headers and not is_head:
                lines += ("Content-Type: ", _DEFAULT_TYPE, "\r\n")
                count += 1
        if keep_alive == is_http_1_0:
            lines.append("Connection: keep-alive\r\n" if keep_alive else "Connection: close\r\n")
            count += 1
        lines.append("\r\n")
        encoded = "".join(lines).encode()
        if encoded.count(b"\n") != count or encoded.count(b"\r") != count or b"\0" in encoded:
            raise ValueError("a header of a response holds a control character")
        return encoded

    def _opening(self, is_http_1_0: bool, status: int, now_ms: int) -> str:
        second = now_ms // 1000
        if second != self._second:
            self._second = second
            self._openings.clear()
        found = self._openings.get((is_http_1_0, status))
        if found is None:
            version = "1.0" if is_http_1_0 else "1.1"
            found = (
                f"HTTP/{version} {status} {HTTPStatus(status).phrase}\r\nServer: {SERVER_NAME}\r\n"
                f"Date: {http_date(now_ms)}\r\nx-amz-id-2: {self._pod_name}\r\n"
            )
            self._openings[is_http_1_0, status] = found
        return found


def has_no_body(method: str, status: int) -> bool:
    """Whatever the headers say."""
    return method == "HEAD" or status in _BODILESS


def is_chunked(asked: Head | None, size_bytes: int | None) -> bool:
    """Whether the body is sent in chunks; one of unknown size that is not, ends with the connection."""
    return size_bytes is None and asked is not None and not asked.is_http_1_0


def chunk(piece: bytes | bytearray | memoryview) -> tuple[bytes, bytes | bytearray | memoryview, bytes]:
    """A piece, which is not empty, with what goes around it."""
    return b"%x\r\n" % memoryview(piece).nbytes, piece, b"\r\n"
