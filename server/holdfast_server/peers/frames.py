"""The cut of a byte stream into frames.  Pure: bytes in, frames out; no sockets here.

A frame on the wire is eight bytes (little-endian size of the body, size of its header), then the body: a
header (MessagePack, see `messages`) followed by *blobs*, raw bytes whose sizes the header lists.  Blobs keep
shard blocks out of the encoder: they go from the caller's buffer to the socket, and from the socket to the
reader's buffer, without passing through MessagePack.

`FrameReader` is made for `asyncio.BufferedProtocol`: the socket writes into the buffer it hands out.  Small
frames are parsed in place and copied out once; a large one gets a buffer of its own as soon as its size is
known, and the rest of it is received straight into that.  A peer cannot make it reserve more than the limit,
which is small until the handshake is over.  Blobs that somebody will have to hash are hashed one by one as they
come, while they are in the processor's cache: from memory it takes four times as long.

What the header means, who may send it and when, is decided elsewhere.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import NamedTuple

import xxhash

from holdfast_server.memory.buffers import uncleared_pages

PREFIX = struct.Struct("<II")

MAX_FRAME_SIZE_BYTES = 16 << 20
"""Largest body after the handshake: eight blocks of 1 MiB and their hashes fit with room to spare."""

MAX_HANDSHAKE_FRAME_SIZE_BYTES = 16 << 10
"""Largest body before the peer has proved who it is."""

READ_BUFFER_SIZE_BYTES = 64 << 10
_OWN_BUFFER_FROM_BYTES = 16 << 10

Buffer = bytes | bytearray | memoryview


class FrameError(Exception):
    """The stream is not what this protocol sends; the connection cannot be used any more."""


class Frame(NamedTuple):
    header: memoryview
    blobs: memoryview
    """All blobs, one after the other.  Never overwritten later: the frame owns its bytes."""
    digests: Sequence[bytes] = ()
    """The xxh3-128 of each blob, where the frame was large and they were wanted."""


class Wish(NamedTuple):
    """How the blobs of a large frame had best be received."""

    lead_bytes: int = 0
    """Where in a page of memory they begin, for whoever writes them to a file."""
    digested_sizes: Sequence[int] = ()
    """Of all blobs, where they are to be hashed."""


def encode_frame(header: bytes, blobs: Sequence[Buffer] = ()) -> list[Buffer]:
    """The pieces of a frame in the order they go to the wire.  Raises FrameError if it is too large."""
    return [frame_head(header, sum(map(len, blobs)) if blobs else 0), *blobs]


def frame_head(header: bytes, blobs_size_bytes: int) -> bytes:
    """What goes before the blobs of a frame.  Raises FrameError if it is too large."""
    size = len(header) + blobs_size_bytes
    if size > MAX_FRAME_SIZE_BYTES:
        raise FrameError(f"frame of {size} bytes; at most {MAX_FRAME_SIZE_BYTES} are sent")
    return PREFIX.pack(size, len(header)) + header


def split_blobs(blobs: memoryview, sizes: Sequence[int]) -> list[memoryview]:
    """Cut the blobs apart.  Raises FrameError unless the sizes add up exactly."""
    if not sizes and not blobs:
        return []
    if any(size < 0 for size in sizes) or sum(sizes) != len(blobs):
        raise FrameError(f"blobs of {len(blobs)} bytes announced as {sum(sizes)}")
    parts, offset = [], 0
    for size in sizes:
        parts.append(blobs[offset : offset + size])
        offset += size
    return parts


class FrameReader:
    """Collects received bytes into frames.

    Invariant between calls: either `_own` is being filled, or `_shared[:_filled]` is the beginning of one
    incomplete frame that fits into `_shared`.
    """

    def __init__(self, limit_bytes: int = MAX_HANDSHAKE_FRAME_SIZE_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self.wish: Callable[[memoryview], Wish] | None = None
        """Asked with the header of a large frame, unless that is not there yet when memory is found for it."""
        self._shared = memoryview(bytearray(READ_BUFFER_SIZE_BYTES))
        self._filled = 0
        self._own: memoryview | None = None
        self._blob_start = 0
        self._blob_ends: deque[int] = deque()
        """In `_own`, of those that are yet to be hashed."""
        self._digests: list[bytes] = []

    def buffer(self) -> memoryview:
        """Where the next bytes go; never empty."""
        own = self._own
        if own is None:
            return self._shared[self._filled :]
        return own[self._filled : self._blob_ends[0]] if self._blob_ends else own[self._filled :]

    def received(self, count: int) -> list[Frame]:
        """`count` bytes were written into `buffer()`: the frames they complete.  Raises FrameError."""
        self._filled += count
        if self._own is not None:
            return self._received_into_own()
        frames: list[Frame] = []
        start, end, shared = 0, self._filled, self._shared
        while end - start >= PREFIX.size:
            body_size, header_size = self._sizes(shared, start)
            stop = start + PREFIX.size + body_size
            if stop > end:
                if body_size >= _OWN_BUFFER_FROM_BYTES:
                    self._move_to_own(shared[start:end], body_size, header_size)
                    return frames
                break
            frames.append(_cut(memoryview(bytes(shared[start + PREFIX.size : stop])), header_size))
            start = stop
        self._filled = end - start
        if start and self._filled:
            shared[: self._filled] = bytes(shared[start:end])
        return frames

    def _received_into_own(self) -> list[Frame]:
        own = self._own
        assert own is not None
        self._hash_what_came(own)
        if self._filled < len(own):
            return []
        _, header_size = PREFIX.unpack_from(own)
        digests, self._digests = self._digests, []
        self._own, self._filled = None, 0
        return [_cut(own[PREFIX.size :], header_size)._replace(digests=digests)]

    def _hash_what_came(self, own: memoryview) -> None:
        ends = self._blob_ends
        while ends and ends[0] <= self._filled:
            start, self._blob_start = self._blob_start, ends.popleft()
            self._digests.append(xxhash.xxh3_128_digest(own[start : self._blob_start]))

    def _move_to_own(self, beginning: memoryview, body_size: int, header_size: int) -> None:
        header_end = PREFIX.size + header_size
        blobs_size = body_size - header_size
        wish = Wish()
        if self.wish is not None and header_end <= len(beginning):
            wish = self.wish(beginning[PREFIX.size : header_end])
        # What is written to a file from there can go there directly.
        own = uncleared_pages(blobs_size, header_end, wish.lead_bytes)
        own[: len(beginning)] = beginning
        self._own, self._filled = own, len(beginning)
        sizes = wish.digested_sizes
        if sizes and min(sizes) > 0 and sum(sizes) == blobs_size:
            self._blob_start = header_end
            self._blob_ends.extend(header_end + end for end in accumulate(sizes))
            self._hash_what_came(own)

    def _sizes(self, source: memoryview, offset: int) -> tuple[int, int]:
        body_size, header_size = PREFIX.unpack_from(source, offset)
        if body_size > self.limit_bytes:
            raise FrameError(f"frame of {body_size} bytes announced; at most {self.limit_bytes} are taken")
        if header_size > body_size:
            raise FrameError(f"header of {header_size} bytes in a frame of {body_size}")
        return body_size, header_size


def _cut(body: memoryview, header_size: int) -> Frame:
    return Frame(body[:header_size], body[header_size:])
