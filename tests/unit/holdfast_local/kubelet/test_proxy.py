"""The Service proxy on real sockets: whole bodies, turns, refusals, resets."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from holdfast_local.kubelet import splice
from holdfast_local.kubelet.proxy import ServiceProxy
from holdfast_local.kubelet.service_routes import Backend
from holdfast_server.testing.free_ports import free_port

BODY = bytes(range(256)) * 40_000


@asynccontextmanager
async def running_proxy() -> AsyncIterator[ServiceProxy]:
    proxy, started = ServiceProxy(), asyncio.Event()
    task = asyncio.create_task(proxy.run(started))
    await started.wait()
    try:
        yield proxy
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def free_address() -> Backend:
    return Backend("127.0.0.1", free_port())


@asynccontextmanager
async def echo_server(name: bytes) -> AsyncIterator[Backend]:
    """Answers its name and then everything it was sent, once the client has finished sending."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = await reader.read()
        writer.write(name + body)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield Backend(*server.sockets[0].getsockname())


async def talk(address: Backend, body: bytes = b"") -> bytes:
    async with asyncio.timeout(60):
        reader, writer = await asyncio.open_connection(*address)
        try:
            writer.write(body)
            writer.write_eof()
            await writer.drain()
            return await reader.read()
        finally:
            await hang_up(writer)


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


@pytest.mark.parametrize("with_splice", [True, False])
async def test_a_large_body_arrives_whole_both_ways(with_splice: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not with_splice:
        monkeypatch.setattr(splice, "_SPLICE", None)
    async with running_proxy() as proxy, echo_server(b"a") as backend:
        address = free_address()
        proxy.open(address, [backend])
        answers = await asyncio.gather(*(talk(address, BODY) for _ in range(4)))
    assert {hashlib.sha256(answer).digest() for answer in answers} == {hashlib.sha256(b"a" + BODY).digest()}


async def test_connections_go_to_the_backends_in_turn() -> None:
    async with running_proxy() as proxy, echo_server(b"a") as first, echo_server(b"b") as second:
        address = free_address()
        proxy.open(address, [first, second])
        answers = [await talk(address) for _ in range(4)]
    assert sorted(answers[:2]) == [b"a", b"b"]
    assert answers[:2] == answers[2:]


async def test_a_backend_that_refuses_is_passed_over() -> None:
    async with running_proxy() as proxy, echo_server(b"a") as alive:
        address = free_address()
        proxy.open(address, [free_address(), alive])
        assert [await talk(address) for _ in range(4)] == [b"a"] * 4


async def test_without_a_backend_the_client_is_reset() -> None:
    async with running_proxy() as proxy:
        address = free_address()
        proxy.open(address, [])
        with pytest.raises(ConnectionError):
            await talk(address, b"x")


async def test_a_backend_that_breaks_off_does_not_look_like_a_complete_answer() -> None:
    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"half")
        await writer.drain()
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, as of a kill
        writer.transport.abort()

    server = await asyncio.start_server(break_off, "127.0.0.1", 0)
    async with running_proxy() as proxy, server:
        address = free_address()
        proxy.open(address, [Backend(*server.sockets[0].getsockname())])
        reader, writer = await asyncio.open_connection(*address)
        try:
            writer.write(b"x")
            with pytest.raises(ConnectionError):
                await asyncio.wait_for(reader.read(), 60)
        finally:
            await hang_up(writer)


async def test_a_closed_port_refuses() -> None:
    async with running_proxy() as proxy, echo_server(b"a") as backend:
        address = free_address()
        proxy.open(address, [backend])
        assert await talk(address) == b"a"
        proxy.close(address)
        with pytest.raises(ConnectionRefusedError):
            await talk(address)


async def test_an_address_in_use_is_an_error_of_the_caller() -> None:
    async with running_proxy() as proxy, echo_server(b"a") as taken:
        with pytest.raises(OSError, match="in use"):
            proxy.open(taken, [])
