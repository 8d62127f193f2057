"""The Service proxy: one listening socket per Service port, connections handed to Ready pods in turn.

Invariants: a connection goes only to a backend that was in the list when it was opened; a backend that
refuses is skipped for the next; without any, the client is reset (as refused as a listener can be).
The number of open connections is bounded; beyond it clients wait in the listen queue.
Not done here: UDP, session affinity, the client's own address (pods see the proxy's).
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Sequence

from holdfast_local.kubelet.service_routes import Backend
from holdfast_local.kubelet.splice import PipePool, RelayBroken, relay

LINGER_SECONDS = 1.0
LINGER_READ_BYTES = 64 * 1024
CONNECT_TIMEOUT_SECONDS = 2.0
CONNECTION_LIMIT = 4096
LISTEN_BACKLOG = 512

logger = logging.getLogger(__name__)


class Listener:
    """One Service port."""

    def __init__(self, listening: socket.socket) -> None:
        self.backends: tuple[Backend, ...] = ()
        self.listening = listening
        self._next = 0

    def candidates(self) -> list[Backend]:
        """Every backend once, starting with the one whose turn it is."""
        if not self.backends:
            return []
        self._next = (self._next + 1) % len(self.backends)
        return [*self.backends[self._next :], *self.backends[: self._next]]


class ServiceProxy:
    """All listeners; use it as a context, it owns the tasks of its connections."""

    def __init__(self) -> None:
        self._listeners: dict[Backend, Listener] = {}
        self._accepting: dict[Backend, asyncio.Task[None]] = {}
        self._pipes = PipePool()
        self._connections = asyncio.Semaphore(CONNECTION_LIMIT)
        self._group = asyncio.TaskGroup()

    async def run(self, started: asyncio.Event) -> None:
        """Serve until cancelled; `open` may be called once `started` is set."""
        try:
            async with self._group:
                started.set()
                await asyncio.Event().wait()
        finally:
            for listener in self._listeners.values():
                listener.listening.close()
            self._pipes.close()

    def addresses(self) -> set[Backend]:
        """The addresses and ports being served."""
        return set(self._listeners)

    def open(self, address: Backend, backends: Sequence[Backend]) -> None:
        """Serve `address`, or change its backends; raises OSError if it cannot be bound."""
        listener = self._listeners.get(address)
        if listener is None:
            listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            try:
                listening.setblocking(False)
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listening.bind(address)
                listening.listen(LISTEN_BACKLOG)
            except OSError:
                listening.close()
                raise
            listener = self._listeners[address] = Listener(listening)
            self._accepting[address] = self._group.create_task(self._accept(listener))
        listener.backends = tuple(backends)

    def close(self, address: Backend) -> None:
        """Stop accepting; open connections live on."""
        listener = self._listeners.pop(address, None)
        if listener is not None:
            self._accepting.pop(address).cancel()
            asyncio.get_running_loop().remove_reader(listener.listening.fileno())
            listener.listening.close()

    async def _accept(self, listener: Listener) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._connections.acquire()
            try:
                client, _ = await loop.sock_accept(listener.listening)
            except OSError as error:  # out of descriptors, or a client gone before it was accepted
                self._connections.release()
                logger.warning("proxy: %s", error)
                await asyncio.sleep(0.05)
                continue
            except BaseException:
                self._connections.release()
                raise
            self._group.create_task(self._serve(client, listener))

    async def _serve(self, client: socket.socket, listener: Listener) -> None:
        try:
            with client:
                client.setblocking(False)
                backend = await self._connect(listener)
                if backend is None:
                    _reset_on_close(client)
                    return
                with backend:
                    for side in (client, backend):
                        side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                        side.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                    try:
                        await relay(client, backend, self._pipes)
                    except RelayBroken as broken:
                        _reset_on_close(backend)
                        if broken.answer_broken:
                            _reset_on_close(client)  # a broken answer must not look like a complete one
                        else:
                            await _end_orderly(client)
        finally:
            self._connections.release()

    async def _connect(self, listener: Listener) -> socket.socket | None:
        loop = asyncio.get_running_loop()
        for address in listener.candidates():
            if address not in listener.backends:
                continue  # removed while an earlier one was tried
            backend = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            backend.setblocking(False)
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
                    await loop.sock_connect(backend, address)
            except OSError:  # TimeoutError is one too
                backend.close()
                continue
            except BaseException:
                backend.close()
                raise
            return backend
        return None


async def _end_orderly(client: socket.socket) -> None:
    """End of stream for a request that found its pod dead; what the client still sends is swallowed for a moment.

    Closing with unread bytes would be a reset, and some clients (s3cmd 2.4) give up on a reset where they repeat
    a request to which nothing was answered.
    """
    loop = asyncio.get_running_loop()
    try:
        client.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(LINGER_SECONDS):
            while await loop.sock_recv(client, LINGER_READ_BYTES):
                pass
    except OSError:  # TimeoutError is one too
        pass


def _reset_on_close(connection: socket.socket) -> None:
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except OSError:
        pass
