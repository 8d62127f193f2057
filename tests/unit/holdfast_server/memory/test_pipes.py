"""What goes through pipes comes out as it is in the file, in whatever steps; no pipe is lost or brings old bytes."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast_server.memory import pipes as module
from holdfast_server.memory.pipes import COPIED_BYTES, PIPE_SIZE_BYTES, NoSplice, Piped, Pipes

DATA = random.Random(3).randbytes(5 * PIPE_SIZE_BYTES)
MOST = 6


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "file").write_bytes(DATA)
    opened = os.open(tmp_path / "file", os.O_RDONLY)
    yield opened
    os.close(opened)


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    listening = socket.create_server(("127.0.0.1", 0))
    one = socket.create_connection(listening.getsockname())
    other, _ = listening.accept()
    one.setblocking(False)
    other.settimeout(30)
    yield one, other
    for sock in (one, other, listening):
        sock.close()


def _sent(piped: Piped, ends: tuple[socket.socket, socket.socket]) -> bytes:
    """Whatever the socket takes at once."""
    size, came = piped.size_bytes, bytearray()
    done = False
    while not done or len(came) < size:
        if not done:
            done = piped.send(ends[0])
        came += ends[1].recv(1 << 20)
    return bytes(came)


@pytest.mark.parametrize("offset", [0, 1, 4096, 5000])
@pytest.mark.parametrize(
    "size", [1, COPIED_BYTES, COPIED_BYTES + 1, PIPE_SIZE_BYTES, PIPE_SIZE_BYTES + 640, 4 * PIPE_SIZE_BYTES + 640]
)
def test_bytes_come_out_as_they_are(
    descriptor: int, ends: tuple[socket.socket, socket.socket], offset: int, size: int
) -> None:
    pipes = Pipes(MOST)
    for _ in range(2):
        piped = pipes.load(descriptor, offset, [1, size - 1])
        assert piped is not None
        assert (piped.size_bytes, list(piped.sizes)) == (size, [1, size - 1])
        assert _sent(piped, ends) == DATA[offset : offset + size]
        assert pipes.taken == 0
    piped = pipes.load(descriptor, offset, [size])
    assert piped is not None
    assert piped.read() == DATA[offset : offset + size]
    assert pipes.taken == 0


def test_what_a_file_lacks_is_told(descriptor: int) -> None:
    for offset, size in ((len(DATA), PIPE_SIZE_BYTES), (len(DATA) - 5000, 3 * PIPE_SIZE_BYTES)):
        piped = Pipes(MOST).load(descriptor, offset, [size])
        assert piped is not None
        assert piped.size_bytes == len(DATA) - offset


def test_there_are_only_so_many(descriptor: int) -> None:
    pipes = Pipes(MOST)
    held = [pipes.load(descriptor, 0, [2 * PIPE_SIZE_BYTES]) for _ in range(4)]
    assert [piped is None for piped in held] == [False, False, False, True]
    assert pipes.taken == MOST
    del held[0]
    assert pipes.taken == MOST - 2
    assert pipes.load(descriptor, 0, [2 * PIPE_SIZE_BYTES]) is not None


def test_what_was_given_up_comes_to_nobody(descriptor: int, ends: tuple[socket.socket, socket.socket]) -> None:
    pipes = Pipes(2)
    given_up = pipes.load(descriptor, 0, [2 * PIPE_SIZE_BYTES])
    assert given_up is not None
    given_up.close()
    given_up.close()
    assert pipes.taken == 0
    for offset in (5000, 0):
        piped = pipes.load(descriptor, offset, [2 * PIPE_SIZE_BYTES])
        assert piped is not None
        assert _sent(piped, ends) == DATA[offset : offset + 2 * PIPE_SIZE_BYTES]


def test_a_file_that_is_replaced_keeps_what_was_loaded(
    descriptor: int, tmp_path: Path, ends: tuple[socket.socket, socket.socket]
) -> None:
    piped = Pipes(MOST).load(descriptor, 0, [PIPE_SIZE_BYTES])
    assert piped is not None
    (tmp_path / "other").write_bytes(b"other")
    os.replace(tmp_path / "other", tmp_path / "file")
    assert _sent(piped, ends) == DATA[:PIPE_SIZE_BYTES]


def test_a_kernel_that_gives_no_more_is_not_asked_again(descriptor: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the user has its share of them already."""
    asked = 0

    def refusing(descriptor: int) -> int:
        nonlocal asked
        asked += 1
        if asked > 2:
            raise PermissionError(errno.EPERM, "no")
        return fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, PIPE_SIZE_BYTES)

    pipes = Pipes(MOST)
    monkeypatch.setattr(module, "set_pipe_size", refusing)
    before = len(os.listdir("/proc/self/fd"))
    assert pipes.load(descriptor, 0, [3 * PIPE_SIZE_BYTES]) is None
    for _ in range(3):
        piped = pipes.load(descriptor, 0, [2 * PIPE_SIZE_BYTES])
        assert piped is not None
        assert piped.read() == DATA[: 2 * PIPE_SIZE_BYTES]
        assert pipes.load(descriptor, 0, [3 * PIPE_SIZE_BYTES]) is None
    assert asked == 3
    assert len(os.listdir("/proc/self/fd")) == before + 4
    pipes.close()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(("number", "expected"), [(errno.EINVAL, NoSplice), (errno.EIO, OSError)])
def test_failures_of_the_file_system_cost_no_pipe(
    descriptor: int, monkeypatch: pytest.MonkeyPatch, number: int, expected: type[Exception]
) -> None:
    pipes = Pipes(MOST)
    splice = os.splice

    def failing(source: int, destination: int, count: int, offset_src: int) -> int:
        if offset_src:
            raise OSError(number, "no")
        return splice(source, destination, count, offset_src=offset_src)

    monkeypatch.setattr(os, "splice", failing)
    with pytest.raises(expected):
        pipes.load(descriptor, 0, [3 * PIPE_SIZE_BYTES])
    assert pipes.taken == 0
    monkeypatch.undo()
    piped = pipes.load(descriptor, 7, [3 * PIPE_SIZE_BYTES])
    assert piped is not None
    assert piped.read() == DATA[7 : 7 + 3 * PIPE_SIZE_BYTES]
