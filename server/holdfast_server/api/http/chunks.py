"""HTTP's chunked transfer coding (RFC 9112, 7.1), received: wire bytes in, the payload's out.

Strict: sizes are hexadecimal digits and nothing else, lines end with CR LF, extensions and trailers are read over
within bounds and mean nothing here.  What is not well-formed can never be told from the next request, so it ends body
and connection.

Pure.  Not here: S3's own aws-chunked, which may come inside (`s3.chunked`).
"""

from __future__ import annotations

import re

MAX_LINE_BYTES = 4096
"""Of a chunk's size with its extensions, and of a trailer."""
MAX_TRAILERS = 64
_SIZE, _DATA, _DATA_END, _TRAILER, _ENDED = range(5)
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")
_TRAILER_LINE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*")


class BadFraming(ValueError):
    """What comes is no chunk."""


class ChunkReader:
    """Of one body."""

    def __init__(self) -> None:
        self._state = _SIZE
        self._left_bytes = 0
        self._line = b""
        self._trailers = 0

    @property
    def ended(self) -> bool:
        return self._state == _ENDED

    def feed(self, data: bytes) -> tuple[list[bytes], bytes]:
        """The payload in it, and what follows the body's end.  Raises BadFraming."""
        out: list[bytes] = []
        at = 0
        while at < len(data) and self._state != _ENDED:
            if self._state == _DATA:
                piece = data[at : at + self._left_bytes]
                at += len(piece)
                self._left_bytes -= len(piece)
                out.append(piece)
                if not self._left_bytes:
                    self._state = _DATA_END
            else:
                at = self._take_line(data, at)
        return out, data[at:]

    def _take_line(self, data: bytes, at: int) -> int:
        end = data.find(b"\n", at, at + MAX_LINE_BYTES + 2)
        stop = end + 1 if end >= 0 else len(data)
        if len(self._line) + stop - at > MAX_LINE_BYTES:
            raise BadFraming("a line is too long")
        self._line += data[at:stop]
        if end >= 0:
            line, self._line = self._line, b""
            if not line.endswith(b"\r\n"):
                raise BadFraming("a line does not end with CR LF")
            self._handle(line[:-2])
        return stop

    def _handle(self, line: bytes) -> None:
        if self._state == _DATA_END:
            if line:
                raise BadFraming("a chunk is longer than its size")
            self._state = _SIZE
        elif self._state == _SIZE:
            match = _SIZE_LINE.fullmatch(line)
            if match is None:
                raise BadFraming("a chunk's size is malformed")
            self._left_bytes = int(match[1], 16)
            self._state = _DATA if self._left_bytes else _TRAILER
        elif not line:
            self._state = _ENDED
        else:
            self._trailers += 1
            if self._trailers > MAX_TRAILERS or not _TRAILER_LINE.fullmatch(line):
                raise BadFraming("a trailer is malformed")
