"""TLS without I/O: what comes out is what went in, however the wire cuts it, and little is kept on the way."""

from __future__ import annotations

import random
import ssl

import pytest

from holdfast_server.transport.tls_stream import STEP_SIZE_BYTES, TlsStream

NAME = "logs.loki.svc"


class Wire:
    """Two ends, and pieces of `piece_bytes` between them."""

    def __init__(self, server: ssl.SSLContext, client: ssl.SSLContext, piece_bytes: int) -> None:
        self.server = TlsStream(server, server_side=True)
        self.client = TlsStream(client, server_side=False, server_name=NAME)
        self.piece_bytes = piece_bytes

    def pieces(self, data: bytes) -> list[memoryview]:
        return [memoryview(data[at : at + self.piece_bytes]) for at in range(0, len(data), self.piece_bytes)]

    def shake_hands(self) -> None:
        done = {self.server: False, self.client: False}
        for _ in range(10):
            for end, other in ((self.client, self.server), (self.server, self.client)):
                done[end] = done[end] or end.handshake()
                for piece in self.pieces(end.take()):
                    other.received(piece)
                    if done[other]:
                        assert other.read_into(memoryview(bytearray(10))) == 0
                    else:
                        done[other] = other.handshake()
            if all(done.values()):
                return
        raise AssertionError("no end to the handshake")

    def send(self, end: TlsStream, data: bytes) -> bytes:
        """What the other end reads of it, with buffers of many sizes."""
        other = self.client if end is self.server else self.server
        left, came, sizes = memoryview(data), bytearray(), random.Random(len(data))
        while left:
            count, encrypted = end.encrypt(left)
            assert 0 < count <= STEP_SIZE_BYTES
            left = left[count:]
            for piece in self.pieces(encrypted):
                other.received(piece)
                buffer = memoryview(bytearray(sizes.choice((1, 100, 20_000))))
                while filled := other.read_into(buffer):
                    came += buffer[:filled]
                assert not other.has_received
        return bytes(came)


@pytest.fixture(params=[1, 7, 1000, 1 << 20], ids=lambda size: f"pieces of {size}")
def wire(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], client_context: ssl.SSLContext, request: pytest.FixtureRequest
) -> Wire:
    wire = Wire(contexts[0], client_context, request.param)
    wire.shake_hands()
    return wire


def test_what_goes_in_comes_out_both_ways(wire: Wire) -> None:
    sizes = (1, 100, STEP_SIZE_BYTES + 1) if wire.piece_bytes < 100 else (1, STEP_SIZE_BYTES, 70_000)
    for size in sizes:
        data = random.Random(size).randbytes(size)
        assert wire.send(wire.server, data) == data
        assert wire.send(wire.client, data) == data


def test_what_waits_to_be_read_survives_its_buffer(wire: Wire) -> None:
    data = random.Random(0).randbytes(STEP_SIZE_BYTES)
    shared = bytearray(wire.client.encrypt(memoryview(data))[1])
    wire.server.received(memoryview(shared))
    first = memoryview(bytearray(10))
    assert wire.server.read_into(first) == 10
    wire.server.keep()
    shared[:] = bytes(len(shared))
    rest = memoryview(bytearray(STEP_SIZE_BYTES))
    assert wire.server.read_into(rest) == len(data) - 10
    assert bytes(first) + bytes(rest[: len(data) - 10]) == data


def test_the_end_comes_after_the_data_and_the_other_side_may_still_speak(wire: Wire) -> None:
    said = wire.client.encrypt(memoryview(b"last"))[1]
    wire.client.say_goodbye()
    wire.server.received(memoryview(said + wire.client.take()))
    buffer = memoryview(bytearray(100))
    assert wire.server.read_into(buffer) == 4
    assert wire.server.read_into(buffer) == 0
    assert wire.server.ended
    assert wire.server.encrypt(memoryview(b"answer"))[0] == 6


def test_a_byte_that_was_changed_on_the_way_is_an_error(wire: Wire) -> None:
    encrypted = bytearray(wire.client.encrypt(memoryview(b"data"))[1])
    encrypted[-1] ^= 1
    wire.server.received(memoryview(encrypted))
    with pytest.raises(ssl.SSLError):
        wire.server.read_into(memoryview(bytearray(100)))
    assert wire.server.has_own_words  # the alert


def test_a_dialling_end_refuses_a_certificate_for_another_name(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    wire = Wire(*contexts, 1 << 20)
    wire.client = TlsStream(contexts[1], server_side=False, server_name="another.svc")
    with pytest.raises(ssl.SSLCertVerificationError):
        wire.shake_hands()
