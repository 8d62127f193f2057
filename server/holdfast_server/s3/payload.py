"""A request's body from wire to verified payload: one object per body.

The head decides the mode: as it is, or aws-chunked with or without signatures and trailers; and everything
that must hold: length, SHA-256, Content-MD5, checksum in head or trailer.  The caller feeds wire bytes to
`decode`, runs every view it gets through `update` (on a worker thread, stripe by stripe, in order), and calls
`finish` once; nothing may be committed before `finish` has returned.

`decode` is cheap but for signed chunks, whose SHA-256 it computes: see `hashes_in_decode`.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping

import msgspec

from holdfast_server.s3 import checksums
from holdfast_server.s3.canonical import UNSIGNED_PAYLOAD
from holdfast_server.s3.checksums import Buffer, ChecksumRequest, Digest
from holdfast_server.s3.chunked import STREAMING_MODES, STREAMING_SIGNED, STREAMING_UNSIGNED_TRAILER, ChunkedDecoder
from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.headers import content_length
from holdfast_server.s3.names import MAX_PUT_SIZE_BYTES
from holdfast_server.s3.sigv4 import SigningContext

DECODED_BYTES = 64 << 10
"""Of a request document, at a time."""
_SHA256_HEX = re.compile("[0-9a-fA-F]{64}")


class PayloadResult(msgspec.Struct, frozen=True):
    """What is known of a body that passed every check."""

    size_bytes: int
    md5_hex: str
    """Empty where it was neither wanted nor promised."""
    checksum_algorithm: str = ""
    """`CRC32C`; empty where the client sent no checksum."""
    checksum: str = ""
    """Base64, as sent and verified."""


class Payload:
    """One body on its way in.  Made by `payload_of`."""

    def __init__(
        self,
        decoder: ChunkedDecoder | None,
        size_bytes: int | None,
        max_size_bytes: int,
        sha256: str,
        content_md5: bytes | None,
        checksum: ChecksumRequest | None,
        with_md5: bool,
    ) -> None:
        self.size_bytes = size_bytes
        """The decoded size the client declared; `finish` refuses any other.  None where HTTP's own chunks say where
        the body ends, which a connection that breaks off does not."""
        self.max_size_bytes = max_size_bytes if size_bytes is None else size_bytes
        self.hashes_in_decode = decoder is not None and decoder.signed
        """True when `decode` computes a SHA-256 of all it is fed: run it on a worker thread."""
        self._decoder = decoder
        self._received = 0
        self._sha256 = sha256
        self._content_md5 = content_md5
        self._checksum = checksum
        self._digests: dict[str, Digest] = {}
        if with_md5 or content_md5 is not None:
            self._digests["MD5"] = checksums.ALGORITHMS["MD5"].new()
        if sha256:
            self._digests["SHA256"] = checksums.ALGORITHMS["SHA256"].new()
        if checksum is not None:
            self._digests.setdefault(checksum.algorithm.name, checksum.algorithm.new())

    @property
    def digests(self) -> tuple[Digest, ...]:
        """The digests `update` feeds; a caller may feed each on a thread of its own instead."""
        return tuple(self._digests.values())

    def decode(self, data: Buffer) -> list[memoryview]:
        """The payload within a piece of the wire's body, as views of it.  Raises S3Error."""
        if self._decoder is not None:
            views = self._decoder.feed(data)
        else:
            views = [memoryview(data).cast("B")] if len(data) else []
        self._received += sum(map(len, views))
        if self._received > self.max_size_bytes:
            if self.size_bytes is None:
                raise S3Error("EntityTooLarge", MaxSizeAllowed=self.max_size_bytes)
            raise S3Error("IncompleteBody", "The body is longer than was declared.")
        return views

    @property
    def has_md5(self) -> bool:
        """Whether the MD5 is among the digests, wanted or promised."""
        return "MD5" in self._digests

    @property
    def is_plain(self) -> bool:
        """Whether payload and body are the same bytes, of known number: then it need not be decoded (`placed`)."""
        return self._decoder is None and self.size_bytes is not None

    def placed(self, size_bytes: int) -> bool:
        """So much more of a plain body has come; True with the last of it."""
        self._received += size_bytes
        return self._received == self.size_bytes

    def update(self, view: Buffer) -> None:
        """Feed payload to every digest, in order, each byte once."""
        for digest in self._digests.values():
            digest.update(view)

    def finish(self) -> PayloadResult:
        """Verify everything, after the last `update`.

        Raises IncompleteBody, SignatureDoesNotMatch, XAmzContentSHA256Mismatch, BadDigest,
        MalformedTrailerError or InvalidRequest.
        """
        if self._decoder is not None:
            self._decoder.finish()
            if not self._decoder.trailers.keys() <= self._announced():
                raise S3Error("MalformedTrailerError")
        if self.size_bytes is not None and self._received != self.size_bytes:
            raise S3Error("IncompleteBody")
        digests = {name: digest.digest() for name, digest in self._digests.items()}
        if self._sha256 and not hmac.compare_digest(digests["SHA256"].hex(), self._sha256):
            raise S3Error(
                "XAmzContentSHA256Mismatch",
                ClientComputedContentSHA256=self._sha256,
                S3ComputedContentSHA256=digests["SHA256"].hex(),
            )
        if self._content_md5 is not None:
            checksums.check_content_md5(self._content_md5, digests["MD5"])
        md5_hex = digests["MD5"].hex() if "MD5" in digests else ""
        if self._checksum is None:
            return PayloadResult(self._received, md5_hex)
        algorithm = self._checksum.algorithm
        checksums.check_digest(algorithm, self._expected_checksum(self._checksum), digests[algorithm.name])
        return PayloadResult(
            self._received, md5_hex, algorithm.name, checksums.encode_checksum(digests[algorithm.name])
        )

    def _announced(self) -> set[str]:
        """The trailers that the head tells of.  One that it does not would not be compared."""
        checksum = self._checksum
        return {checksum.algorithm.header} if checksum is not None and checksum.expected is None else set()

    def _expected_checksum(self, request: ChecksumRequest) -> bytes:
        if request.expected is not None:
            return request.expected
        sent = self._decoder.trailers.get(request.algorithm.header) if self._decoder is not None else None
        if sent is None:
            raise S3Error("MalformedTrailerError")
        return checksums.decode_checksum(request.algorithm, sent)


def carries_integrity(headers: Mapping[str, str]) -> bool:
    """Whether a request says what its body must hash to, in its head or its trailer.  Raises InvalidRequest."""
    return "content-md5" in headers or checksums.requested_checksum(headers) is not None


def payload_of(
    headers: Mapping[str, str],
    context: SigningContext,
    *,
    with_md5: bool = True,
    max_size_bytes: int = MAX_PUT_SIZE_BYTES,
) -> Payload:
    """The payload that a request's head announces.

    Raises MissingContentLength, EntityTooLarge, InvalidArgument (payload mode), InvalidDigest,
    InvalidRequest or NotImplemented.
    """
    mode = context.payload_hash
    decoder = None
    sha256 = ""
    size_bytes: int | None
    if mode in STREAMING_MODES:
        size_bytes = _decoded_length(headers)
    elif mode.startswith("STREAMING-"):
        raise S3Error("NotImplemented", f"The payload mode {mode} is not implemented.")
    else:
        size_bytes = content_length(headers)
        if size_bytes is None and headers.get("transfer-encoding", "").strip().lower() != "chunked":
            raise S3Error("MissingContentLength")
        sha256 = _check_payload_hash(mode)
    if size_bytes is not None and size_bytes > max_size_bytes:
        raise S3Error("EntityTooLarge", ProposedSize=size_bytes, MaxSizeAllowed=max_size_bytes)
    checksum = checksums.requested_checksum(headers)
    if mode in STREAMING_MODES:
        assert size_bytes is not None
        decoder = ChunkedDecoder(mode, context, size_bytes)
    has_trailer = mode in STREAMING_MODES and mode != STREAMING_SIGNED
    if checksum is not None and checksum.expected is None and not has_trailer:
        raise S3Error("InvalidRequest", "x-amz-trailer needs a payload mode with a trailer.")
    return Payload(
        decoder, size_bytes, max_size_bytes, sha256, checksums.parse_content_md5(headers), checksum, with_md5
    )


def verify_small_body(headers: Mapping[str, str], context: SigningContext, body: bytes, max_size_bytes: int) -> bytes:
    """A request document's payload, decoded and verified at once (DeleteObjects, CompleteMultipartUpload …).

    `body` is the whole body as on the wire.  Raises as `payload_of` and `Payload.finish` do, and
    MaxMessageLengthExceeded.
    """
    if context.payload_hash not in STREAMING_MODES and "content-length" not in headers:
        headers = {**headers, "content-length": str(len(body))}
    try:
        payload = payload_of(headers, context, with_md5=False, max_size_bytes=max_size_bytes)
    except S3Error as error:
        if error.code == "EntityTooLarge":
            raise S3Error("MaxMessageLengthExceeded", MaxMessageLengthBytes=max_size_bytes) from error
        raise
    decoded = bytearray()
    wire = memoryview(body)
    for at in range(0, len(body), DECODED_BYTES):  # views of all, where chunks are small, would take far more than it
        for view in payload.decode(wire[at : at + DECODED_BYTES]):
            payload.update(view)
            decoded += view
    payload.finish()
    return bytes(decoded)


def _decoded_length(headers: Mapping[str, str]) -> int:
    text = headers.get("x-amz-decoded-content-length")
    if text is None:
        raise S3Error("MissingContentLength", "You must provide the x-amz-decoded-content-length HTTP header.")
    if not (text.isascii() and text.isdigit() and len(text) <= 19):
        raise S3Error(
            "InvalidArgument",
            "x-amz-decoded-content-length is not a number",
            ArgumentName="x-amz-decoded-content-length",
            ArgumentValue=text,
        )
    return int(text)


def _check_payload_hash(mode: str) -> str:
    """The SHA-256 to verify in lower-case hex, empty for an unsigned payload."""
    if mode == UNSIGNED_PAYLOAD:
        return ""
    if not _SHA256_HEX.fullmatch(mode):
        raise S3Error(
            "InvalidArgument",
            f"x-amz-content-sha256 must be {UNSIGNED_PAYLOAD}, {STREAMING_UNSIGNED_TRAILER}, "
            f"{STREAMING_SIGNED}, {STREAMING_SIGNED}-TRAILER, or a valid sha256 value.",
            ArgumentName="x-amz-content-sha256",
            ArgumentValue=mode,
        )
    return mode.lower()
