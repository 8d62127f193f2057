"""Frames come out as they went in, however the network cuts them."""

import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast_server.memory.buffers import PAGE_SIZE_BYTES, address_of
from holdfast_server.peers import frames


def feed(reader: frames.FrameReader, data: bytes, sizes: list[int]) -> list[tuple[bytes, bytes]]:
    """Push `data` in pieces of the given sizes, the last one repeated, as a socket would."""
    return [(bytes(frame.header), bytes(frame.blobs)) for frame in frames_of(reader, data, sizes)]


def frames_of(reader: frames.FrameReader, data: bytes, sizes: list[int]) -> list[frames.Frame]:
    out: list[frames.Frame] = []
    offset = turn = 0
    while offset < len(data):
        buffer = reader.buffer()
        assert len(buffer) > 0
        count = min(len(buffer), len(data) - offset, sizes[min(turn, len(sizes) - 1)])
        buffer[:count] = data[offset : offset + count]
        out += reader.received(count)
        offset += count
        turn += 1
    return out


def on_the_wire(messages: list[tuple[bytes, list[bytes]]]) -> bytes:
    return b"".join(bytes(piece) for header, blobs in messages for piece in frames.encode_frame(header, blobs))


SMALL = [(b"first", []), (b"", [b"blob"]), (b"second", [b"a", b"", b"bc"]), (b"x" * 40, [])]
EXPECTED = [(header, b"".join(blobs)) for header, blobs in SMALL]


@pytest.mark.parametrize("first", range(1, len(on_the_wire(SMALL)) + 1))
def test_a_stream_cut_at_any_byte_gives_the_same_frames(first: int) -> None:
    data = on_the_wire(SMALL)
    assert feed(frames.FrameReader(), data, [first, len(data)]) == EXPECTED


def test_one_byte_at_a_time() -> None:
    assert feed(frames.FrameReader(), on_the_wire(SMALL), [1]) == EXPECTED


@settings(max_examples=60, deadline=None)
@given(
    blob_sizes=st.lists(st.lists(st.integers(0, 90_000), max_size=3), min_size=1, max_size=5),
    cuts=st.lists(st.integers(1, 100_000), min_size=1, max_size=20),
)
def test_large_and_small_frames_mixed(blob_sizes: list[list[int]], cuts: list[int]) -> None:
    messages = [
        (b"header %d" % i, [bytes([i * 7 + j]) * size for j, size in enumerate(sizes)])
        for i, sizes in enumerate(blob_sizes)
    ]
    reader = frames.FrameReader(frames.MAX_FRAME_SIZE_BYTES)
    assert feed(reader, on_the_wire(messages), cuts) == [(header, b"".join(blobs)) for header, blobs in messages]


@pytest.mark.parametrize("cut", [8, 20, 100, 70_000])
@pytest.mark.parametrize("wish", [0, 80, 4095, 3 * 4096 + 7])
def test_large_blobs_begin_where_they_are_wished(wish: int, cut: int) -> None:
    """As far as the header is there when memory is found for them, which it is but for the oddest cuts."""
    reader = frames.FrameReader(frames.MAX_FRAME_SIZE_BYTES)
    asked: list[bytes] = []

    def wished(header: memoryview) -> frames.Wish:
        asked.append(bytes(header))
        return frames.Wish(wish)

    reader.wish = wished
    blob = bytes(range(256)) * 400
    data = on_the_wire([(b"where to", [blob])])
    found: list[frames.Frame] = []
    for piece in (data[:cut], data[cut:]):
        while piece:
            buffer = reader.buffer()
            count = min(len(buffer), len(piece))
            buffer[:count] = piece[:count]
            piece = piece[count:]
            found += reader.received(count)
    (frame,) = found
    assert (bytes(frame.header), bytes(frame.blobs)) == (b"where to", blob)
    assert asked == ([] if cut == 8 else [b"where to"])
    assert address_of(frame.blobs) % PAGE_SIZE_BYTES == (wish % PAGE_SIZE_BYTES if asked else 0)


@settings(max_examples=60, deadline=None)
@given(
    blob_sizes=st.lists(st.integers(1, 90_000), min_size=1, max_size=5),
    cuts=st.lists(st.integers(30, 100_000), min_size=1, max_size=20),
    small=st.binary(max_size=99),
)
def test_blobs_are_hashed_as_they_come_however_they_are_cut(
    blob_sizes: list[int], cuts: list[int], small: bytes
) -> None:
    reader = frames.FrameReader(frames.MAX_FRAME_SIZE_BYTES)
    reader.wish = lambda header: frames.Wish(80, blob_sizes)
    blobs = [bytes([number + 1]) * size for number, size in enumerate(blob_sizes)]
    found: list[frames.Frame] = []
    for blob in (blobs, [small], blobs):
        found += frames_of(reader, on_the_wire([(b"header", blob)]), cuts)
    assert [bytes(frame.blobs) for frame in found] == [b"".join(blobs), small, b"".join(blobs)]
    digests = [xxhash.xxh3_128_digest(blob) for blob in blobs]
    for frame in found:
        assert list(frame.digests) in ([], digests if len(frame.blobs) > 99 else [])
    if sum(blob_sizes) > frames.READ_BUFFER_SIZE_BYTES:
        assert list(found[0].digests) == digests


@pytest.mark.parametrize("sizes", [(), (70_000, 29_999), (100_000, 0), (-1, 100_001), (99_999,)])
def test_nothing_is_hashed_where_the_sizes_are_not_those_of_the_blobs(sizes: tuple[int, ...]) -> None:
    reader = frames.FrameReader(frames.MAX_FRAME_SIZE_BYTES)
    reader.wish = lambda header: frames.Wish(0, sizes)
    (frame,) = frames_of(reader, on_the_wire([(b"header", [bytes(100_000)])]), [1000])
    assert len(frame.blobs) == 100_000
    assert list(frame.digests) == []


def test_a_frame_keeps_its_bytes_when_the_buffer_is_used_again() -> None:
    reader = frames.FrameReader()
    first = on_the_wire([(b"one", [b"11111"])])
    reader.buffer()[: len(first)] = first
    (frame,) = reader.received(len(first))
    feed(reader, on_the_wire([(b"two", [b"22222"])]), [1000])
    assert (bytes(frame.header), bytes(frame.blobs)) == (b"one", b"11111")


def test_a_size_above_the_limit_is_refused_before_anything_is_reserved() -> None:
    reader = frames.FrameReader()
    with pytest.raises(frames.FrameError, match="at most 16384"):
        feed(reader, frames.PREFIX.pack(1 << 30, 5), [8])


def test_a_header_longer_than_its_frame_is_refused() -> None:
    with pytest.raises(frames.FrameError, match="header of 9 bytes"):
        feed(frames.FrameReader(), frames.PREFIX.pack(5, 9) + b"12345", [100])


def test_a_frame_too_large_is_not_sent() -> None:
    with pytest.raises(frames.FrameError):
        frames.encode_frame(b"h", [bytes(frames.MAX_FRAME_SIZE_BYTES)])


def test_blob_sizes_must_add_up() -> None:
    blobs = memoryview(b"abcdef")
    assert [bytes(part) for part in frames.split_blobs(blobs, (2, 0, 4))] == [b"ab", b"", b"cdef"]
    for wrong in [(2, 3), (7,), (8, -2)]:
        with pytest.raises(frames.FrameError):
            frames.split_blobs(blobs, wrong)
