"""aws-chunked bodies: every mode, split anywhere; and what a broken or forged body is answered with."""

import hashlib
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast_server.s3.checksums import encode_checksum
from holdfast_server.s3.chunked import (
    MAX_LINE_SIZE_BYTES,
    STREAMING_SIGNED,
    STREAMING_SIGNED_TRAILER,
    STREAMING_UNSIGNED_TRAILER,
    ChunkedDecoder,
)
from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.sigv4 import SigningContext
from holdfast_server.testing import chunked_bodies
from holdfast_server.testing.chunked_bodies import MODES, decode, signer_of, signing_context


def crc32_of(data: bytes) -> str:
    return encode_checksum(zlib.crc32(data).to_bytes(4, "big"))


def encode(mode: str, chunks: list[bytes], **odd: bytes) -> bytes:
    """What a client of that mode sends, with the checksum as its trailer."""
    return chunked_bodies.encode(mode, chunks, {"x-amz-checksum-crc32": crc32_of(b"".join(chunks))}, **odd)


def code_of(mode: str, wire: bytes, size_bytes: int) -> str:
    try:
        decode(mode, wire, size_bytes)
    except S3Error as error:
        return error.code
    return "accepted"


@pytest.mark.parametrize("mode", MODES)
def test_a_body_split_at_every_byte_decodes_the_same(mode):
    chunks = [b"hello\r\n0\r\n", b"x" * 40, b"\r\n"]
    wire = encode(mode, chunks)
    for cut in range(len(wire) + 1):
        payload, trailers = decode(mode, wire, 52, [cut])
        assert payload == b"".join(chunks)
        assert ("x-amz-checksum-crc32" in trailers) == (mode != STREAMING_SIGNED)
    assert decode(mode, wire, 52, list(range(1, len(wire))))[0] == b"".join(chunks)


@settings(max_examples=80, deadline=None)
@given(
    mode=st.sampled_from(MODES),
    chunks=st.lists(st.binary(min_size=1, max_size=300), max_size=6),
    data=st.data(),
)
def test_any_chunks_split_anywhere_come_out_whole(mode, chunks, data):
    wire = encode(mode, chunks)
    cuts = data.draw(st.lists(st.integers(0, len(wire)), max_size=12))
    payload = b"".join(chunks)
    assert decode(mode, wire, len(payload), cuts)[0] == payload


@settings(max_examples=120, deadline=None)
@given(mode=st.sampled_from(MODES), data=st.data())
def test_every_truncation_is_noticed_but_for_the_last_line_ends(mode, data):
    wire = encode(mode, [b"abc" * 20, b"d" * 7])
    cut = data.draw(st.integers(0, len(wire) - 1))
    code = code_of(mode, wire[:cut], 67)
    if code == "accepted":
        # Only what carries no information may be missing: line ends, or trailers that nobody announced here.
        payload, _ = decode(mode, wire[:cut], 67)
        assert payload == b"abc" * 20 + b"d" * 7
        assert cut >= wire.rindex(b"0;" if mode != STREAMING_UNSIGNED_TRAILER else b"\r\n0\r\n")
    else:
        assert code in ("IncompleteBody", "SignatureDoesNotMatch", "MalformedTrailerError")


@settings(max_examples=150, deadline=None)
@given(mode=st.sampled_from([STREAMING_SIGNED, STREAMING_SIGNED_TRAILER]), data=st.data())
def test_a_flipped_bit_in_a_signed_body_never_yields_other_payload(mode, data):
    wire = bytearray(encode(mode, [b"abc" * 20, b"d" * 7]))
    position = data.draw(st.integers(0, len(wire) - 1))
    wire[position] ^= 1 << data.draw(st.integers(0, 7))
    code = code_of(mode, bytes(wire), 67)
    if code == "accepted":
        assert decode(mode, bytes(wire), 67)[0] == b"abc" * 20 + b"d" * 7
    else:
        assert code in ("SignatureDoesNotMatch", "IncompleteBody", "InvalidRequest", "MalformedTrailerError")


def test_payload_is_not_copied():
    wire = bytearray(encode(STREAMING_UNSIGNED_TRAILER, [b"z" * 1000]))
    views = ChunkedDecoder(STREAMING_UNSIGNED_TRAILER, signing_context(""), 1000).feed(wire)
    assert [view.obj is wire for view in views] == [True]


def test_the_bound_of_a_line_is_the_same_wherever_it_is_cut():
    line = b"3".ljust(MAX_LINE_SIZE_BYTES) + b"\r\n"
    for padding, code in ((b"", "accepted"), (b" ", "InvalidRequest")):
        wire = line[:1] + padding + line[1:] + b"abc\r\n0\r\n\r\n"
        for cut in (0, MAX_LINE_SIZE_BYTES, MAX_LINE_SIZE_BYTES + 1, MAX_LINE_SIZE_BYTES + 2):
            try:
                decode(STREAMING_UNSIGNED_TRAILER, wire, 3, [cut])
                found = "accepted"
            except S3Error as error:
                found = error.code
            assert found == code, cut


@pytest.mark.parametrize("mode", MODES)
def test_lenient_ends_are_read(mode):
    assert code_of(mode, encode(mode, [b"abc"], end=b""), 3) == "accepted"
    if mode != STREAMING_SIGNED:
        assert code_of(mode, encode(mode, [b"abc"], line_before_trailers=b"\r\n"), 3) == "accepted"
        assert code_of(mode, encode(mode, [b"abc"]).removesuffix(b"\r\n\r\n"), 3) == "accepted"


def test_the_trailers_of_minio_go_are_read_however_split():
    """It ends each trailer with LF alone and sets an empty line between them and their signature."""
    wire = encode(STREAMING_SIGNED_TRAILER, [b"abc"])
    value = b"x-amz-checksum-crc32:" + crc32_of(b"abc").encode()
    assert value + b"\r\n" in wire
    wire = wire.replace(value + b"\r\n", value + b"\n\r\n")
    for cut in range(len(wire) + 1):
        payload, trailers = decode(STREAMING_SIGNED_TRAILER, wire, 3, [cut])
        assert (payload, trailers) == (b"abc", {"x-amz-checksum-crc32": crc32_of(b"abc")})
    forged = wire.replace(value, value[:-4] + b"AAA=")
    assert code_of(STREAMING_SIGNED_TRAILER, forged, 3) == "SignatureDoesNotMatch"
    assert code_of(STREAMING_SIGNED_TRAILER, wire + b"x", 3) == "InvalidRequest"


def test_one_line_end_too_many_is_read_and_no_more():
    """minio-go ends unsigned trailers so."""
    wire = encode(STREAMING_UNSIGNED_TRAILER, [b"abc"], end=b"\r\n\r\n")
    for cut in range(len(wire) + 1):
        assert decode(STREAMING_UNSIGNED_TRAILER, wire, 3, [cut])[0] == b"abc"
    for surplus in (b"\r\n", b"\n", b"x", b"\r\nx"):
        assert code_of(STREAMING_UNSIGNED_TRAILER, wire + surplus, 3) == "InvalidRequest"


def test_a_single_chunk_larger_than_any_buffer_is_read_piecewise():
    decoder = ChunkedDecoder(STREAMING_UNSIGNED_TRAILER, signing_context(""), 64 << 20)
    decoder.feed(b"4000000\r\n")
    piece = bytes(1 << 20)
    assert sum(len(view) for _ in range(64) for view in decoder.feed(piece)) == 64 << 20
    decoder.feed(b"\r\n0\r\n\r\n")
    decoder.finish()


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        (b"3\r\nabcd\r\n0\r\n\r\n", "InvalidRequest"),
        (b"3\r\nab\r\n0\r\n\r\n", "InvalidRequest"),
        (b"zz\r\nabc\r\n0\r\n\r\n", "InvalidRequest"),
        (b"-3\r\nabc\r\n0\r\n\r\n", "InvalidRequest"),
        (b"\r\n", "InvalidRequest"),
        (b"3;ext=1\r\nabc\r\n0\r\n\r\n", "InvalidRequest"),
        (b"f" * 17 + b"\r\n", "InvalidRequest"),
        (b"1" * (MAX_LINE_SIZE_BYTES + 10), "InvalidRequest"),
        (b"4\r\nabcd\r\n0\r\n\r\n", "IncompleteBody"),
        (b"2\r\nab\r\n0\r\n\r\n", "IncompleteBody"),
        (b"3\r\nabc\r\n", "IncompleteBody"),
        (b"", "IncompleteBody"),
        (b"3\r\nabc\r\n0\r\nno colon\r\n\r\n", "MalformedTrailerError"),
        (b"3\r\nabc\r\n0\r\na:1\r\nA:2\r\n\r\n", "MalformedTrailerError"),
        (b"3\r\nabc\r\n0\r\na:\xff\r\n\r\n", "MalformedTrailerError"),
        (b"3\r\nabc\r\n0\r\n" + b"".join(b"t%d:1\r\n" % i for i in range(20)), "MalformedTrailerError"),
        (b"3\r\nabc\r\n0\r\na:1\r\n\r\nextra", "InvalidRequest"),
        (b"3\r\nabc\r\n0\r\na:1\r\n\r\n", "accepted"),
    ],
)
def test_malformed_framing_has_its_error(wire, code):
    assert code_of(STREAMING_UNSIGNED_TRAILER, wire, 3) == code


def test_signatures_cannot_be_left_out_reordered_or_taken_from_elsewhere():
    mode = STREAMING_SIGNED
    assert code_of(mode, b"3\r\nabc\r\n0\r\n\r\n", 3) == "SignatureDoesNotMatch"
    first, second = b"a" * 10, b"b" * 10
    signer = signer_of(mode)
    signed = [(chunk, signer.chunk(hashlib.sha256(chunk).hexdigest())) for chunk in (first, second, b"")]
    swapped = [signed[1], signed[0], signed[2]]
    wire = b"".join(b"%x;chunk-signature=%s\r\n%s\r\n" % (len(c), s.encode(), c) for c, s in swapped)
    assert code_of(mode, wire, 20) == "SignatureDoesNotMatch"
    dropped = [signed[0], signed[2]]
    wire = b"".join(b"%x;chunk-signature=%s\r\n%s\r\n" % (len(c), s.encode(), c) for c, s in dropped)
    assert code_of(mode, wire, 10) == "SignatureDoesNotMatch"


def test_a_signed_trailer_cannot_be_left_out():
    mode = STREAMING_SIGNED_TRAILER
    wire = encode(mode, [b"abc"])
    without_signature = wire[: wire.index(b"x-amz-trailer-signature")] + b"\r\n"
    assert code_of(mode, without_signature, 3) == "SignatureDoesNotMatch"
    without_trailers = wire[: wire.index(b"x-amz-checksum")] + b"\r\n"
    assert code_of(mode, without_trailers, 3) == "SignatureDoesNotMatch"


def test_an_anonymous_request_cannot_send_signed_chunks():
    with pytest.raises(S3Error, match="InvalidRequest"):
        ChunkedDecoder(STREAMING_SIGNED, SigningContext(STREAMING_SIGNED), 3)
