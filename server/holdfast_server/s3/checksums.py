"""The checksums of S3: what a client sends or asks for, computed piece by piece, combined over parts.

Every algorithm is an object with `update(view)` and `digest()`; the kernels release the GIL, so a caller may
run `update` on a worker thread (one thread at a time per object).  Digests are big-endian bytes, on the wire
base64.
A multipart object has either a *composite* checksum (the checksum of its parts' checksums, with `-N`) or a
*full-object* one, which for CRCs is combined from the parts' CRCs and sizes without reading a byte again.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import awscrt.checksums as crt
import msgspec
import xxhash
from cryptography.hazmat.primitives import hashes

from holdfast_server.s3.errors import S3Error

Buffer = bytes | bytearray | memoryview

COMPOSITE = "COMPOSITE"
FULL_OBJECT = "FULL_OBJECT"
HEADER_PREFIX = "x-amz-checksum-"
OPAQUE_SUFFIX = "-1"
"""Ends an ETag that is no MD5, though its object was not made of parts."""


class Digest(Protocol):
    """An incremental checksum."""

    def update(self, data: Buffer, /) -> None: ...

    def digest(self) -> bytes: ...


class _Crc:
    """A CRC of awscrt as an incremental object."""

    __slots__ = ("_function", "_size_bytes", "_value")

    def __init__(self, function: Callable[[Buffer, int], int], size_bytes: int) -> None:
        self._function = function
        self._size_bytes = size_bytes
        self._value = 0

    def update(self, data: Buffer, /) -> None:
        self._value = self._function(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._size_bytes, "big")


class _Md5:
    """By the OpenSSL that `cryptography` brings along: most systems have one that takes a twentieth more, and nothing
    takes more of a large upload."""

    __slots__ = ("_hash", "update")

    def __init__(self) -> None:
        self._hash = hashes.Hash(hashes.MD5())
        self.update = self._hash.update

    def digest(self) -> bytes:
        return self._hash.copy().finalize()


class Algorithm(msgspec.Struct, frozen=True):
    """One row of the table of algorithms."""

    name: str
    """As in `x-amz-checksum-algorithm`: `CRC32C`."""
    size_bytes: int
    new: Callable[[], Digest]
    combine: Callable[[int, int, int], int] | None
    """(crc of A, crc of B, bytes in B) → crc of A‖B; None where only composite checksums exist."""
    composite: bool
    """Whether composite checksums exist (not for CRC64NVME)."""

    @property
    def header(self) -> str:
        """`x-amz-checksum-crc32c`."""
        return HEADER_PREFIX + self.name.lower()

    @property
    def element(self) -> str:
        """The XML element: `ChecksumCRC32C`."""
        return "Checksum" + self.name


def _sha(name: str) -> Callable[[], Digest]:
    return lambda: hashlib.new(name, usedforsecurity=False)


ALGORITHMS: dict[str, Algorithm] = {
    row.name: row
    for row in (
        Algorithm("CRC32", 4, lambda: _Crc(crt.crc32, 4), crt.combine_crc32, True),
        Algorithm("CRC32C", 4, lambda: _Crc(crt.crc32c, 4), crt.combine_crc32c, True),
        Algorithm("CRC64NVME", 8, lambda: _Crc(crt.crc64nvme, 8), crt.combine_crc64nvme, False),
        Algorithm("SHA1", 20, _sha("sha1"), None, True),
        Algorithm("SHA256", 32, _sha("sha256"), None, True),
        Algorithm("SHA512", 64, _sha("sha512"), None, True),
        Algorithm("MD5", 16, _Md5, None, True),
        Algorithm("XXHASH64", 8, xxhash.xxh64, None, True),
        Algorithm("XXHASH3", 8, xxhash.xxh3_64, None, True),
        Algorithm("XXHASH128", 16, xxhash.xxh3_128, None, True),
    )
}
"""name → algorithm."""
_BY_HEADER = {row.header: row for row in ALGORITHMS.values()}
_ABOUT = frozenset({HEADER_PREFIX + "algorithm", HEADER_PREFIX + "type", HEADER_PREFIX + "mode"})
"""Headers about checksums that are none themselves."""


class ChecksumRequest(msgspec.Struct, frozen=True):
    """The checksum a client sends with a body: in the head (`expected`) or in the trailer."""

    algorithm: Algorithm
    expected: bytes | None
    """None: it comes in the trailer."""


def find_algorithm(name: str, header: str = "x-amz-checksum-algorithm") -> Algorithm:
    """By its name in either case.  Raises InvalidRequest naming the header."""
    algorithm = ALGORITHMS.get(name.strip().upper())
    if algorithm is None:
        raise S3Error("InvalidRequest", f"Value for {header} header is invalid.")
    return algorithm


def decode_checksum(algorithm: Algorithm, text: str) -> bytes:
    """The digest from its base64.  Raises InvalidRequest naming the header."""
    try:
        digest = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        digest = b""
    if len(digest) != algorithm.size_bytes:
        raise S3Error("InvalidRequest", f"Value for {algorithm.header} header is invalid.")
    return digest


def encode_checksum(digest: bytes) -> str:
    """Base64, as on the wire."""
    return base64.b64encode(digest).decode()


def requested_checksum(headers: Mapping[str, str]) -> ChecksumRequest | None:
    """The checksum a request with a body carries, None where it carries none.  Raises InvalidRequest, also for one of
    an algorithm that is not known: what a client wants compared is never passed over."""
    sums = {name: value for name, value in headers.items() if name.startswith(HEADER_PREFIX) and name not in _ABOUT}
    if not sums.keys() <= _BY_HEADER.keys():
        raise S3Error("InvalidRequest", "The algorithm type you specified in x-amz-checksum- header is invalid.")
    in_head = [(_BY_HEADER[name], value) for name, value in sums.items()]
    trailer_names = [name.strip().lower() for name in headers.get("x-amz-trailer", "").split(",")]
    in_trailer = [_BY_HEADER[name] for name in trailer_names if name in _BY_HEADER]
    for name in trailer_names:
        if name and name not in _BY_HEADER:
            raise S3Error("InvalidRequest", "The value specified in the x-amz-trailer header is not supported")
    if len(in_head) + len(in_trailer) > 1:
        raise S3Error(
            "InvalidRequest", "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed."
        )
    wanted = headers.get("x-amz-sdk-checksum-algorithm")
    if not in_head and not in_trailer:
        if wanted:
            raise S3Error(
                "InvalidRequest",
                "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or x-amz-trailer "
                "headers were found.",
            )
        return None
    algorithm = in_head[0][0] if in_head else in_trailer[0]
    if wanted and find_algorithm(wanted, "x-amz-sdk-checksum-algorithm") is not algorithm:
        raise S3Error("InvalidRequest", "Value for x-amz-sdk-checksum-algorithm header is invalid.")
    return ChecksumRequest(algorithm, decode_checksum(algorithm, in_head[0][1]) if in_head else None)


def parse_content_md5(headers: Mapping[str, str]) -> bytes | None:
    """The MD5 of the body that Content-MD5 promises.  Raises InvalidDigest."""
    text = headers.get("content-md5")
    if text is None:
        return None
    try:
        digest = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        digest = b""
    if len(digest) != 16:
        raise S3Error("InvalidDigest")
    return digest


def check_content_md5(expected: bytes, actual: bytes) -> None:
    """Raises BadDigest where they differ."""
    if expected != actual:
        raise S3Error("BadDigest", "The Content-MD5 you specified did not match what we received.")


def check_digest(algorithm: Algorithm, expected: bytes, actual: bytes) -> None:
    """Raises BadDigest where they differ."""
    if expected != actual:
        raise S3Error("BadDigest", f"The {algorithm.name} you specified did not match the calculated checksum.")


def parse_upload_checksum(headers: Mapping[str, str]) -> tuple[Algorithm, str] | None:
    """Algorithm and type that CreateMultipartUpload asks for; None where it asks for none.

    The type defaults to FULL_OBJECT for CRC64NVME and to COMPOSITE for the rest.  Raises InvalidRequest.
    """
    name = headers.get("x-amz-checksum-algorithm")
    kind = headers.get("x-amz-checksum-type", "").upper()
    if not name:
        if kind:
            raise S3Error(
                "InvalidRequest",
                "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.",
            )
        return None
    algorithm = find_algorithm(name)
    if not kind:
        return algorithm, COMPOSITE if algorithm.composite else FULL_OBJECT
    possible = (algorithm.composite and kind == COMPOSITE) or (algorithm.combine and kind == FULL_OBJECT)
    if not possible:
        raise S3Error(
            "InvalidRequest",
            f"The {kind} checksum type cannot be used with the {algorithm.name.lower()} checksum algorithm.",
        )
    return algorithm, kind


def combine_parts(algorithm: Algorithm, kind: str, parts: Sequence[tuple[bytes, int]]) -> str:
    """The checksum of a multipart object from its parts' digests and sizes in bytes, as on the wire.

    `kind` is COMPOSITE (`…=-3`) or FULL_OBJECT; the pair must be one that `parse_upload_checksum` accepts.
    """
    if kind == COMPOSITE:
        whole = algorithm.new()
        whole.update(b"".join([digest for digest, _ in parts]))
        return f"{encode_checksum(whole.digest())}-{len(parts)}"
    if algorithm.combine is None:
        raise ValueError(f"{algorithm.name} cannot be combined")
    value = 0
    for digest, size_bytes in parts:
        value = algorithm.combine(value, int.from_bytes(digest, "big"), size_bytes)
    return encode_checksum(value.to_bytes(algorithm.size_bytes, "big"))


def multipart_etag(part_etags: Sequence[str]) -> str:
    """The ETag of a multipart object: MD5 over the digests in its parts' ETags (bare hex, or opaque), with `-N`."""
    digests = [bytes.fromhex(etag.removesuffix(OPAQUE_SUFFIX)) for etag in part_etags]
    whole = hashlib.md5(b"".join(digests), usedforsecurity=False)
    return f"{whole.hexdigest()}-{len(part_etags)}"
