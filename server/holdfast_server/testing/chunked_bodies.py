"""Bodies in aws-chunked framing, as clients send them, and read back in whatever pieces: all signed by one client at
one moment.

Not here: bodies that are wrong (tests and `fuzzing.bodies` damage these).
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable

from holdfast_server.s3.chunked import (
    STREAMING_SIGNED,
    STREAMING_SIGNED_TRAILER,
    STREAMING_UNSIGNED_TRAILER,
    ChunkedDecoder,
    ChunkSigner,
    canonical_trailers,
)
from holdfast_server.s3.sigv4 import SigningContext, SigningKey

MODES = (STREAMING_SIGNED, STREAMING_SIGNED_TRAILER, STREAMING_UNSIGNED_TRAILER)
SIGNATURE_TRAILER = "x-amz-trailer-signature"
_SEED = "ab" * 32


def signing_context(mode: str) -> SigningContext:
    key = SigningKey("secret", "20251120", "us-east-1", "s3")
    return SigningContext(mode, key, _SEED, "20251120T220000Z", "20251120/us-east-1/s3/aws4_request")


def signer_of(mode: str) -> ChunkSigner | None:
    """None where chunks are not signed."""
    return None if mode == STREAMING_UNSIGNED_TRAILER else ChunkSigner(signing_context(mode), _SEED)


def encode(
    mode: str, chunks: list[bytes], trailers: dict[str, str], end: bytes = b"\r\n", line_before_trailers: bytes = b""
) -> bytes:
    """What a client of that mode sends; without a trailer in the mode that has none."""
    signer = signer_of(mode)
    body = b""
    for chunk in [*chunks, b""]:
        body += f"{len(chunk):x}".encode()
        if signer is not None:
            body += b";chunk-signature=" + signer.chunk(hashlib.sha256(chunk).hexdigest()).encode()
        body += b"\r\n" + (chunk + b"\r\n" if chunk else b"")
    if mode != STREAMING_SIGNED:
        body += line_before_trailers
        body += "".join(f"{name}:{value}\r\n" for name, value in trailers.items()).encode()
        if signer is not None:
            body += f"{SIGNATURE_TRAILER}:{signer.trailer(canonical_trailers(trailers))}\r\n".encode()
    return body + end


def decode(mode: str, wire: bytes, size_bytes: int, cuts: Iterable[int] = ()) -> tuple[bytes, dict[str, str]]:
    """Payload and trailers of what comes in pieces; raises S3Error."""
    decoder = ChunkedDecoder(mode, signing_context(mode), size_bytes)
    payload = b""
    for start, stop in itertools.pairwise([0, *sorted(cuts), len(wire)]):
        payload += b"".join(decoder.feed(wire[start:stop]))
    decoder.finish()
    return payload, decoder.trailers
