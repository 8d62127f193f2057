"""Chunked transfer coding: the same payload however it is cut, and nothing but it."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_server.api.http.chunks import MAX_LINE_BYTES, MAX_TRAILERS, BadFraming, ChunkReader

FOLLOWS = b"GET / HTTP/1.1\r\n"


def fed(pieces: list[bytes]) -> tuple[bytes, bytes, bool]:
    reader = ChunkReader()
    out, rest = b"", b""
    for piece in pieces:
        if reader.ended:
            rest += piece
        else:
            payload, rest = reader.feed(piece)
            out += b"".join(payload)
    return out, rest, reader.ended


@given(
    chunks=st.lists(st.binary(min_size=1, max_size=40), max_size=5),
    extension=st.sampled_from([b"", b";a=b", b" ;x", b';x="y"']),
    trailers=st.sampled_from([b"", b"a: b\r\n", b"a:\r\nb: \xff\r\n"]),
    cuts=st.lists(st.integers(0, 400), max_size=6),
)
def test_however_it_is_cut_the_payload_comes_out(
    chunks: list[bytes], extension: bytes, trailers: bytes, cuts: list[int]
) -> None:
    wire = b"".join(b"%X%s\r\n%s\r\n" % (len(chunk), extension, chunk) for chunk in chunks)
    wire += b"000\r\n" + trailers + b"\r\n" + FOLLOWS
    places = sorted({0, *(cut % len(wire) for cut in cuts), len(wire)})
    pieces = [wire[start:stop] for start, stop in itertools.pairwise(places)]
    assert fed(pieces) == (b"".join(chunks), FOLLOWS, True)


@pytest.mark.parametrize(
    "wire",
    [
        b"\r\n", b"x\r\n", b"-1\r\n", b"+1\r\n", b"0x1\r\n", b" 1\r\n", b"1\n", b"1_0\r\n", b"1" * 16 + b"\r\n",
        b"1\r\nab\r\n", b"1\r\na\n", b"1\r\naX", b"1;\x00\r\n", b"0\r\nno colon\r\n", b"0\r\n a: b\r\n",
        b"0\r\na b: c\r\n", b"0\r\n\n", b"1;" + b"x" * MAX_LINE_BYTES + b"\r\n",
        b"0\r\n" + b"a: b\r\n" * (MAX_TRAILERS + 1) + b"\r\n",
    ],
)  # fmt: skip
def test_what_is_no_chunk_is_refused(wire: bytes) -> None:
    for pieces in ([wire], [wire[at : at + 1] for at in range(len(wire))]):
        reader = ChunkReader()
        with pytest.raises(BadFraming):  # noqa: PT012
            for piece in pieces:
                reader.feed(piece)
            if wire == b"1\r\naX":
                reader.feed(b"\r\n")


def test_a_line_without_end_is_refused_before_it_is_held() -> None:
    reader = ChunkReader()
    with pytest.raises(BadFraming):  # noqa: PT012
        for _ in range(MAX_LINE_BYTES + 1):
            reader.feed(b"0")


def test_what_has_no_end_has_not_ended() -> None:
    for wire in (b"5\r\nab", b"2\r\nab", b"2\r\nab\r\n", b"2\r\nab\r\n0\r\n", b"2\r\nab\r\n0\r\na: b\r\n"):
        assert fed([wire]) == (b"ab", b"", False)
