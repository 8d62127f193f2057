"""Looking over the shard files at rest: is a shard still what was written, and which files does nobody name.

A shard is verified from the disk, not from the page cache: what is cached says nothing of the disk, and reading a
whole drive through the cache would throw out what readers need.  Where the file system has no direct I/O, the
pages are given back after the look.  One file at a time, in pieces of `PIECE_BYTES`; blocks.  Runs on a worker thread.

Not here: how fast (`heal.scanner`), what becomes of what is found (`heal`, `trash`).
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import xxhash

from holdfast_server.drives import shard_format
from holdfast_server.drives.port import HASH_SIZE_BYTES, DriveError, ShardCorrupt
from holdfast_server.drives.shard_format import ShardShape

PIECE_BYTES = 1 << 20


def verify_file(path: Path, data_id: bytes) -> int:
    """Every block of a sealed shard against its hash; the file's size in bytes.

    Raises ShardCorrupt, FileNotFoundError, DriveError.
    """
    try:
        shape, hashes, size = _read_footer(path, data_id)
        _compare(path, data_id, shape, hashes)
    except FileNotFoundError:
        raise
    except shard_format.NotSealed as error:
        raise ShardCorrupt(f"shard {data_id.hex()}: {error}") from error
    except OSError as error:
        if error.errno == errno.EIO:
            raise ShardCorrupt(f"shard {data_id.hex()}: {error.strerror}") from error
        raise DriveError(f"shard {data_id.hex()}: {error}") from error
    return size


def _read_footer(path: Path, data_id: bytes) -> tuple[ShardShape, bytes, int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        footer_at = max(0, size - shard_format.FOOTER_SIZE_BYTES)
        footer = os.pread(descriptor, shard_format.FOOTER_SIZE_BYTES, footer_at)
        shape = shard_format.decode_footer(data_id, footer, size)
        return shape, os.pread(descriptor, shape.block_count * HASH_SIZE_BYTES, shape.hash_offset(0)), size
    finally:
        os.close(descriptor)


def _compare(path: Path, data_id: bytes, shape: ShardShape, hashes: bytes) -> None:
    index = 0
    left = shape.block_range(0)[1] if shape.block_count else 0
    digest = xxhash.xxh3_128()
    for piece in _pieces(path):
        while len(piece) and index < shape.block_count:
            digest.update(piece[:left])
            taken = min(left, len(piece))
            piece, left = piece[taken:], left - taken
            if left:
                break
            if digest.digest() != hashes[index * HASH_SIZE_BYTES : (index + 1) * HASH_SIZE_BYTES]:
                raise ShardCorrupt(f"shard {data_id.hex()}: block {index} does not match its hash")
            index += 1
            digest = xxhash.xxh3_128()
            left = shape.block_range(index)[1] if index < shape.block_count else 0
        if index == shape.block_count:
            return
    if index < shape.block_count:
        raise ShardCorrupt(f"shard {data_id.hex()}: the file ends within block {index}")


def _pieces(path: Path) -> Iterator[memoryview]:
    """The file's bytes from its start; each piece is good until the next is asked for."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)
        direct = True
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        direct = False
    try:
        # Page-aligned, as direct I/O wants it; freed with the last view of it.
        view = memoryview(mmap.mmap(-1, PIECE_BYTES))
        offset = 0
        while taken := os.preadv(descriptor, [view], offset):
            yield view[:taken]
            offset += taken
            if taken < PIECE_BYTES:
                break
    finally:
        if not direct:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def aged_files(folder: Path, before_seconds: float) -> list[bytes]:
    """The data ids of the shard files in a folder that were last written before this time (since 1970)."""
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                data_id = bytes.fromhex(entry.name)
                if entry.stat(follow_symlinks=False).st_mtime < before_seconds:
                    found.append(data_id)
            except (ValueError, FileNotFoundError):
                continue
    return found
