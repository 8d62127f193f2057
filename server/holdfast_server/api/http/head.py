"""The head of a request: its bytes, from the first of the request line to the empty line, become a `Head`.

llhttp (by `httptools`) reads it, and is strict: no bare line feeds, no folded lines, no blanks before a colon, no
control characters.  It is given nothing but the head, so that where a body ends is decided in one place only, here: by
one Content-Length of digits, or by `Transfer-Encoding: chunked` alone.  Whatever says it in two ways, or in a way that
another server on the way might understand differently, is refused: such heads exist to smuggle requests.

Names become lower case, repeated headers are joined by commas, bytes that are not UTF-8 live on as lone surrogates, as
`s3.request` wants it; the target stays as it came.  Upgrades are not offered; who asks for one is answered.

Pure; not here: how heads are found in what comes, and how long they may take (`connection`).
"""

from __future__ import annotations

import msgspec
from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from holdfast_server.s3.errors import S3Error

END = b"\r\n\r\n"
_HTTP_1_0, _HTTP_1_1 = b" HTTP/1.0", b" HTTP/1.1"
MAX_KNOWN_NAMES = 512
"""Names of headers whose lower case is remembered; more than clients use, unless they make them up."""
MAX_LENGTH_DIGITS = 19
"""Of Content-Length: what fits into 64 bits, signed."""
_ONCE = frozenset(
    {
        "content-length", "content-location", "content-range", "content-type", "etag", "host", "max-forwards", "server",
        "transfer-encoding", "user-agent",
    }
)  # fmt: skip
"""Headers that have one value: twice is a mistake, or an attempt at one."""


class Head(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a request begins with."""

    method: str
    raw_path: str
    raw_query: str
    headers: dict[str, str]
    is_http_1_0: bool
    keeps_alive: bool
    """Whether the client wants to go on with this connection."""
    size_bytes: int | None
    """Of the body; 0 where there is none, None where chunks say where it ends."""
    awaits_continue: bool
    """Whether the client sends its body once it is told to."""


class HeadReader:
    """Reads heads, one at a time.  One for all connections."""

    def __init__(self, max_line_bytes: int, max_headers: int) -> None:
        self._max_line_bytes, self._max_headers = max_line_bytes, max_headers
        self._names: dict[bytes, str] = {}

    def read(self, data: bytes) -> Head:
        """`data` ends with the first END in it, and does not begin with a line end.

        Raises InvalidRequest, RequestHeaderSectionTooLarge, NotImplemented.
        """
        self._check_sizes(data)
        fields = _Fields()
        parser = HttpRequestParser(fields)
        try:
            parser.feed_data(data)
        except HttpParserUpgrade:
            pass  # its callbacks were called
        except HttpParserError as error:
            raise malformed() from error
        line_end = data.find(b"\r\n")
        version = data[line_end - len(_HTTP_1_1) : line_end]
        if fields.heads != 1 or version not in (_HTTP_1_1, _HTTP_1_0):
            raise malformed()  # the parser knows other protocols, too
        headers = self._folded(fields.items)
        is_http_1_0 = version == _HTTP_1_0
        if not is_http_1_0 and "host" not in headers:
            raise malformed()
        raw_path, raw_query = split_target(fields.target.decode("utf-8", "surrogateescape"))
        expect = headers.get("expect")
        return Head(
            method=parser.get_method().decode(),
            raw_path=raw_path,
            raw_query=raw_query,
            headers=headers,
            is_http_1_0=is_http_1_0,
            keeps_alive=_keeps_alive(headers.get("connection"), is_http_1_0),
            size_bytes=_body_size(headers, is_http_1_0),
            awaits_continue=expect is not None and expect.lower() == "100-continue" and not is_http_1_0,
        )

    def _check_sizes(self, data: bytes) -> None:
        if data.count(b"\n") - 2 > self._max_headers:
            raise too_large()
        if len(data) > self._max_line_bytes and max(map(len, data.split(b"\r\n"))) > self._max_line_bytes:
            raise too_large()

    def _folded(self, items: list[tuple[bytes, bytes]]) -> dict[str, str]:
        names = self._names
        folded: dict[str, str] = {}
        for raw_name, raw_value in items:
            name = names.get(raw_name) or self._learn(raw_name)
            value = raw_value.rstrip(b" \t").decode("utf-8", "surrogateescape")
            if name not in folded:
                folded[name] = value
            elif name in _ONCE:
                raise malformed()
            else:
                folded[name] = f"{folded[name]},{value}"
        return folded

    def _learn(self, raw_name: bytes) -> str:
        name = raw_name.decode("ascii").lower()
        if len(self._names) < MAX_KNOWN_NAMES:
            self._names[raw_name] = name
        return name


class _Fields:
    """What the parser finds."""

    __slots__ = ("heads", "items", "target")

    def __init__(self) -> None:
        self.heads = 0
        self.items: list[tuple[bytes, bytes]] = []
        self.target = b""

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes | None) -> None:
        self.items.append((name, value or b""))

    def on_headers_complete(self) -> None:
        self.heads += 1


def split_target(target: str) -> tuple[str, str]:
    """Path and query of a request line's target, undecoded; the absolute form loses scheme and host.  Raises
    InvalidRequest where it is neither, nor `*`."""
    if not target.startswith("/") and target != "*":
        scheme, separator, rest = target.partition("://")
        if not separator or not scheme.isalpha():
            raise malformed()
        address, _, raw_query = rest.partition("?")
        _, slash, path = address.partition("/")
        return (slash + path) or "/", raw_query
    raw_path, _, raw_query = target.partition("?")
    return raw_path, raw_query


def _keeps_alive(connection: str | None, is_http_1_0: bool) -> bool:
    if connection is None:
        return not is_http_1_0
    options = {option.strip(" \t").lower() for option in connection.split(",")}
    return "close" not in options and (not is_http_1_0 or "keep-alive" in options)


def _body_size(headers: dict[str, str], is_http_1_0: bool) -> int | None:
    length, coding = headers.get("content-length"), headers.get("transfer-encoding")
    if coding is not None:
        if length is not None or is_http_1_0:
            raise malformed()
        if coding.lower() != "chunked":
            raise S3Error("NotImplemented", "No transfer coding but chunked is implemented.")
        return None
    if length is None:
        return 0
    if not (length.isascii() and length.isdigit() and len(length) <= MAX_LENGTH_DIGITS):
        raise malformed()
    return int(length)


def malformed() -> S3Error:
    return S3Error("InvalidRequest", "The request is not valid HTTP.")


def too_large() -> S3Error:
    return S3Error("RequestHeaderSectionTooLarge")
