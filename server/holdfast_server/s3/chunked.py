"""The aws-chunked body: chunks with sizes, optionally signatures, and trailers, decoded piece by piece.

    <hex size>[;chunk-signature=<64 hex>]\\r\\n <data> \\r\\n   … until size 0, then
    [<trailer name>:<value>\\r\\n …  [x-amz-trailer-signature:<64 hex>\\r\\n]]  \\r\\n

The request's head says which (`x-amz-content-sha256`), not Content-Encoding: clients leave that out.
Signatures form a chain that starts with the request's own; a chunk's payload is handed on before its signature
is known, so a caller must not commit anything before `finish` has returned.
Nothing is copied: payload comes out as views of what was fed, which therefore must not be reused before they
are consumed.  Only header lines are kept over calls, and these are bounded; a chunk may be as large as the
object (the Go SDK sends one chunk), because it is never held.
Signed chunks are hashed inside `feed`: a caller moves the whole call to a worker thread.  An instance is used
by one thread at a time and shares nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import re

import msgspec

from holdfast_server.s3.canonical import EMPTY_SHA256
from holdfast_server.s3.checksums import Buffer
from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.sigv4 import SigningContext

MAX_LINE_SIZE_BYTES = 4096
"""Bound on a chunk header or a trailer line; signed headers have about 90 bytes."""
MAX_TRAILERS = 16
MAX_BLANK_LINES = 3
"""Before, within and after the trailers."""

STREAMING_SIGNED = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
STREAMING_SIGNED_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
STREAMING_UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
STREAMING_MODES = frozenset({STREAMING_SIGNED, STREAMING_SIGNED_TRAILER, STREAMING_UNSIGNED_TRAILER})

_LINE_END = b"\r\n"
_TRAILER_SIGNATURE = "x-amz-trailer-signature"
_CHUNK_HEADER = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;[ \t]*chunk-signature=([0-9a-f]{64}))?[ \t]*")

_HEADER, _DATA, _DATA_END, _TRAILER, _DONE = range(5)


class ChunkSigner(msgspec.Struct):
    """The chain of chunk signatures; used to verify here, and to sign by clients and tests."""

    context: SigningContext
    previous: str

    def chunk(self, payload_sha256_hex: str) -> str:
        """The next chunk's signature."""
        return self._next("AWS4-HMAC-SHA256-PAYLOAD", f"{EMPTY_SHA256}\n{payload_sha256_hex}")

    def trailer(self, canonical_trailers: bytes) -> str:
        """The trailer's signature, over `name:value\\n` lines."""
        return self._next("AWS4-HMAC-SHA256-TRAILER", hashlib.sha256(canonical_trailers).hexdigest())

    def _next(self, algorithm: str, hashes: str) -> str:
        context = self.context
        if context.key is None:
            raise S3Error("InvalidRequest", "A signed streaming payload needs a signed request.")
        text = f"{algorithm}\n{context.timestamp}\n{context.scope}\n{self.previous}\n{hashes}"
        self.previous = context.key.sign(text.encode())
        return self.previous


def canonical_trailers(trailers: dict[str, str]) -> bytes:
    """What a trailer signature covers."""
    return "".join([f"{name}:{trailers[name]}\n" for name in sorted(trailers)]).encode()


class ChunkedDecoder:
    """Decodes one body.  `mode` is one of STREAMING_MODES; `size_bytes` the declared decoded length."""

    def __init__(self, mode: str, context: SigningContext, size_bytes: int) -> None:
        self.trailers: dict[str, str] = {}
        """After `finish`: the trailers, lower-case names, the signature not among them."""
        self._has_trailers = mode != STREAMING_SIGNED
        self._signer: ChunkSigner | None = None
        if mode != STREAMING_UNSIGNED_TRAILER:
            if context.key is None:
                raise S3Error("InvalidRequest", "A signed streaming payload needs a signed request.")
            self._signer = ChunkSigner(context, context.seed_signature)
        self.signed = self._signer is not None
        """Whether chunks carry signatures, and `feed` therefore hashes the payload."""
        self._remaining = size_bytes
        self._state = _HEADER
        self._line = bytearray()
        self._chunk_left = 0
        self._chunk_signature = ""
        self._chunk_hash = hashlib.sha256()
        self._trailer_signature = ""
        self._blank_lines = 0
        self._surplus = b""

    def feed(self, data: Buffer) -> list[memoryview]:
        """The payload in `data`, as views of it.

        Raises SignatureDoesNotMatch, IncompleteBody (more or less than declared), InvalidRequest (framing)
        or MalformedTrailerError; after that the instance must not be used again.
        """
        view = memoryview(data).cast("B")
        out: list[memoryview] = []
        position, end = 0, len(view)
        while position < end:
            if self._state == _DATA:
                piece = view[position : position + self._chunk_left]
                position += len(piece)
                out.append(piece)
                self._take(piece)
            elif self._state == _DONE:
                position = self._take_surplus(view[position:end], position)
            else:
                position = self._read_line(view, position, end)
        return out

    def _take_surplus(self, rest: memoryview, position: int) -> int:
        """minio-go ends unsigned trailers with one line end too many; nothing else may follow."""
        self._surplus += bytes(rest[: len(_LINE_END) + 1])
        if not _LINE_END.startswith(self._surplus):
            raise _bad_framing("bytes follow the end of the body")
        return position + len(rest)

    def _take(self, piece: memoryview) -> None:
        self._chunk_left -= len(piece)
        if self._signer is not None:
            self._chunk_hash.update(piece)
        if not self._chunk_left:
            self._state = _DATA_END

    def _read_line(self, view: memoryview, position: int, end: int) -> int:
        """Collect a line up to its newline; the new position."""
        line = self._line
        window = bytes(view[position : min(end, position + MAX_LINE_SIZE_BYTES + 2 - len(line))])
        newline = window.find(b"\n")
        if newline < 0:
            line += window
            if len(line) >= MAX_LINE_SIZE_BYTES + len(_LINE_END):  # wherever the body was cut
                raise _bad_framing("a header line is too long")
            return position + len(window)
        line += window[:newline]
        if self._state != _TRAILER and not line.endswith(b"\r"):
            raise _bad_framing("a line does not end with CR LF")
        text = bytes(line.removesuffix(b"\r"))
        line.clear()
        self._handle_line(text)
        return position + newline + 1

    def _handle_line(self, line: bytes) -> None:
        if self._state == _HEADER:
            self._start_chunk(line)
        elif self._state == _DATA_END:
            if line:
                raise _bad_framing("a chunk is longer than its size")
            self._end_chunk()
            self._state = _HEADER
        elif line:
            self._take_trailer(line)
        else:
            self._blank_lines += 1
            if self._trailers_complete() or self._blank_lines == MAX_BLANK_LINES:
                self._state = _DONE

    def _trailers_complete(self) -> bool:
        """Whether a blank line ends the body.  Some signers close the last chunk with one before the trailers,
        and minio-go sets one between the trailers and their signature."""
        if not self._has_trailers:
            return True
        return bool(self._trailer_signature) if self._signer is not None else bool(self.trailers)

    def _start_chunk(self, line: bytes) -> None:
        match = _CHUNK_HEADER.fullmatch(line)
        if match is None:
            raise _bad_framing("a chunk header is malformed")
        size_bytes = int(match[1], 16)
        signature = match[2]
        if self._signer is not None and signature is None:
            raise S3Error("SignatureDoesNotMatch", "A chunk has no signature.")
        self._chunk_signature = signature.decode() if signature else ""
        if size_bytes > self._remaining:
            raise S3Error("IncompleteBody", "The body is longer than x-amz-decoded-content-length.")
        self._remaining -= size_bytes
        self._chunk_left = size_bytes
        if size_bytes:
            self._state = _DATA
        else:
            self._end_chunk()
            self._state = _TRAILER

    def _end_chunk(self) -> None:
        """Verify the chunk that has just been read in full."""
        if self._signer is None:
            return
        expected = self._signer.chunk(self._chunk_hash.hexdigest())
        if not hmac.compare_digest(expected, self._chunk_signature):
            raise S3Error("SignatureDoesNotMatch", "A chunk's signature does not match its content.")
        self._chunk_hash = hashlib.sha256()

    def _take_trailer(self, line: bytes) -> None:
        if not self._has_trailers:
            raise _bad_framing("a trailer follows a body that announced none")
        try:
            name, colon, value = line.decode("ascii").partition(":")
        except UnicodeDecodeError as error:
            raise S3Error("MalformedTrailerError") from error
        name, value = name.strip().lower(), value.strip()
        if not colon or not name or name in self.trailers or len(self.trailers) >= MAX_TRAILERS:
            raise S3Error("MalformedTrailerError")
        if self._trailer_signature:
            raise S3Error("MalformedTrailerError")
        if name == _TRAILER_SIGNATURE:
            self._trailer_signature = value
        else:
            self.trailers[name] = value

    def finish(self) -> None:
        """The body has ended.  Raises IncompleteBody, SignatureDoesNotMatch or MalformedTrailerError."""
        rest = bytes(self._line).rstrip(b"\r")
        if rest and self._state == _TRAILER:
            # A last line without its newline: every value in it is checked, so its end need not be.
            self._take_trailer(rest)
        if self._state not in (_TRAILER, _DONE) or self._remaining:
            raise S3Error("IncompleteBody")
        if self._signer is not None and self._has_trailers:
            expected = self._signer.trailer(canonical_trailers(self.trailers))
            if not hmac.compare_digest(expected, self._trailer_signature):
                raise S3Error("SignatureDoesNotMatch", "The trailer's signature does not match its content.")


def _bad_framing(reason: str) -> S3Error:
    return S3Error("InvalidRequest", f"The aws-chunked body is malformed: {reason}.")
