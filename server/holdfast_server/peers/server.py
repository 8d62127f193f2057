"""The answering end: accepts peers' connections, lets them prove who they are, serves what they ask.

Bounds: MAX_SHAKING_HANDS connections in their TLS handshake, then MAX_STRANGERS that have not proved who they are (each
for HANDSHAKE_TIMEOUT_SECONDS),
MAX_SERVED requests at a time on a connection and `peer_request_bytes` of frames on all of them (then a socket that
brought one is read no further; each may always bring one, so that no peer keeps the others out), and
`peer_answer_bytes` of blocks read for peers, until they have taken them.  An answer waits until the peer has taken
those before; a peer that takes nothing while others wait loses its connection.

When a connection is lost its reads are cancelled; what changes a drive runs to its end, since half of it may
be done already and nobody is told either way.  A connection that fails its handshake is closed with a line in
the log, which never holds a secret.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec

from holdfast_server.clock.port import Clock
from holdfast_server.drives.port import Block
from holdfast_server.memory.budget import Budget
from holdfast_server.memory.pipes import Piped, Pipes
from holdfast_server.memory.pod_memory import PodMemory
from holdfast_server.peers import messages
from holdfast_server.peers.channel import HANDSHAKE_TIMEOUT_SECONDS
from holdfast_server.peers.connection import Connection, ConnectionLost
from holdfast_server.peers.dispatch import Dispatcher
from holdfast_server.peers.frames import Frame, FrameError
from holdfast_server.peers.handshake import (
    NONCE_SIZE_BYTES,
    Acceptor,
    HandshakeError,
    NotAMember,
    PodIdentity,
    refusal,
)
from holdfast_server.peers.messages import ConnectionClass, Reply, Report
from holdfast_server.transport.listener import Admission, Listener

log = logging.getLogger(__name__)

MAX_STRANGERS = 64
MAX_SHAKING_HANDS = 32
"""Of connections in their TLS handshake."""
MAX_SERVED = {ConnectionClass.CONTROL: 512, ConnectionClass.BULK: 64}
CLOSE_TIMEOUT_SECONDS = 5.0


class PeerServer:
    """See the module."""

    def __init__(
        self,
        me: PodIdentity,
        key: Callable[[], bytes],
        dispatcher: Dispatcher,
        report: Callable[[], Report],
        is_member: Callable[[str, int], bool],
        on_greeted: Callable[[str, int], None],
        clock: Clock,
        memory: PodMemory | None = None,
        admission: Admission | None = None,
    ) -> None:
        """`is_member`: whether (pool, ordinal) is a pod of the tenant.  `on_greeted`: that pod has dialled us.
        `memory` is what frames and answers are taken from; by default one with the usual limits.
        `admission`: who comes in with TLS and who without; by default everybody without."""
        self._me, self._key, self._dispatcher, self._report = me, key, dispatcher, report
        self._is_member, self._on_greeted, self._clock = is_member, on_greeted, clock
        self._listener = Listener(
            lambda: Connection(self._connected),
            admission or Admission(),
            HANDSHAKE_TIMEOUT_SECONDS,
            MAX_SHAKING_HANDS,
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._strangers = 0
        self._sessions: dict[_Session, tuple[str, int]] = {}
        """Each with the pool and ordinal of its peer."""
        memory = memory or PodMemory()
        self._answers, self._pipes = memory.peer_answers, memory.pipes
        self._inflow = Inflow(memory.limits.peer_request_bytes)

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port (of use where 0 was given).  Raises OSError."""
        return await self._listener.start(host, port)

    async def close(self) -> None:
        """Stop accepting, let requests that change a drive finish (CLOSE_TIMEOUT_SECONDS), drop connections."""
        await self._listener.close()
        await asyncio.gather(*(session.close() for session in list(self._sessions)))
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def push_report(self) -> None:
        """Something about this pod has changed: tell every peer now rather than at its next ping."""
        header = messages.encode(Reply(messages.PUSHED_REPORT_ID, messages.Outcome.OK, (), self._report()))
        for session in self._sessions:
            if session.connection_class is ConnectionClass.CONTROL and not session.connection.lost:
                session.connection.send(header)

    def turn_away_former_members(self) -> None:
        """Who is none of the tenant's pods any more goes by a configuration that is not that of the others."""
        for session, peer in list(self._sessions.items()):
            if not self._is_member(*peer):
                session.connection.abort("its pod is none of this tenant's any more")

    def _ended(self, session: _Session) -> None:
        self._sessions.pop(session, None)

    def _connected(self, connection: Connection) -> None:
        if self._strangers >= MAX_STRANGERS:
            connection.abort("too many connections that have not proved who they are")
            return
        self._strangers += 1
        task = asyncio.get_running_loop().create_task(self._greet(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _greet(self, connection: Connection) -> None:
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT_SECONDS):
                peer, connection_class = await self._shake_hands(connection)
        except HandshakeError as error:
            log.warning("peer turned away", extra={"address": connection.peer_address, "reason": str(error)})
            if not connection.lost:
                connection.send(refusal(error))
                connection.close()
            return
        except (ConnectionLost, FrameError, TimeoutError) as error:
            reason = str(error) or "took too long"
            log.warning("peer handshake failed", extra={"address": connection.peer_address, "reason": reason})
            connection.abort(reason)
            return
        except BaseException:
            connection.abort("the handshake failed")  # or a stranger would be left connected, and counted no more
            raise
        finally:
            self._strangers -= 1
        session = _Session(
            connection, connection_class, self._dispatcher, self._ended, self._answers, self._pipes, self._inflow
        )
        self._sessions[session] = peer.pool, peer.ordinal
        session.start()
        self._on_greeted(peer.pool, peer.ordinal)

    async def _shake_hands(self, connection: Connection) -> tuple[PodIdentity, ConnectionClass]:
        acceptor = Acceptor(self._me, self._key(), self._clock.random_bytes(NONCE_SIZE_BYTES))
        challenge, peer, connection_class = acceptor.challenge((await connection.receive()).header)
        self._require_member(peer)
        connection.send(challenge)
        welcome, _ = acceptor.welcome((await connection.receive()).header, self._report())
        # It may be none any more: `turn_away_former_members` saw only who was let in before.
        self._require_member(peer)
        connection.send(welcome)
        return peer, connection_class

    def _require_member(self, peer: PodIdentity) -> None:
        if not self._is_member(peer.pool, peer.ordinal):
            raise NotAMember(f"pod {peer.ordinal} of pool {peer.pool!r} is none of this tenant's")


class Inflow:
    """Bytes of frames that are being served, over all connections."""

    def __init__(self, capacity_bytes: int) -> None:
        self.capacity_bytes = capacity_bytes
        self.bytes = 0
        self._stopped: dict[_Session, None] = {}

    def came(self, session: _Session, size_bytes: int) -> None:
        """Serve it; and nothing more of this connection while there is too much."""
        self.bytes += size_bytes
        if self.bytes > self.capacity_bytes:
            self._stopped[session] = None
            session.pace()

    def served(self, size_bytes: int) -> None:
        self.bytes -= size_bytes
        if self._stopped and self.bytes <= self.capacity_bytes:
            stopped, self._stopped = self._stopped, {}
            for session in stopped:
                session.pace()

    def is_stopped(self, session: _Session) -> bool:
        return session in self._stopped

    def forget(self, session: _Session) -> None:
        self._stopped.pop(session, None)


class _Session:
    """One peer's connection after the handshake."""

    def __init__(
        self,
        connection: Connection,
        connection_class: ConnectionClass,
        dispatcher: Dispatcher,
        on_end: Callable[[_Session], None],
        answers: Budget,
        pipes: Pipes,
        inflow: Inflow,
    ) -> None:
        self._answers, self._pipes, self._inflow = answers, pipes, inflow
        self.connection, self.connection_class = connection, connection_class
        self._dispatcher, self._on_end = dispatcher, on_end
        self._running: dict[asyncio.Future[Any], tuple[bool, int]] = {}
        """Whether it changes a drive, and the size of its frame."""
        self._max_served = MAX_SERVED[connection_class]

    def start(self) -> None:
        self.connection.start(self._on_frame, self._on_lost, messages.wish_of_blobs)

    async def close(self) -> None:
        self.connection.pause_reading()
        if self._running:
            await asyncio.wait(list(self._running), timeout=CLOSE_TIMEOUT_SECONDS)
        for task in list(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await asyncio.sleep(0)  # for `_reply`
        self.connection.close()

    def _on_frame(self, frame: Frame) -> None:
        try:
            request = messages.decode_request(frame.header)
        except msgspec.MsgspecError as error:
            raise FrameError(f"request cannot be read: {error}") from error
        spec = messages.VERBS.get(request.verb)
        work = self._dispatcher.begin(request, frame.blobs, frame.digests)
        ended: Callable[[asyncio.Future[Any]], None] = self._done
        if work is None:
            work = asyncio.get_running_loop().create_task(self._serve(request, frame))
        else:
            ended = partial(self._reply, request)
        size_bytes = len(frame.header) + len(frame.blobs)
        self._running[work] = spec is not None and spec.changes, size_bytes
        work.add_done_callback(ended)
        self._inflow.came(self, size_bytes)
        if len(self._running) >= self._max_served:
            self.pace()

    def _reply(self, request: messages.ReceivedRequest, work: asyncio.Future[Any]) -> None:
        """What was begun without a task has ended."""
        if not work.cancelled():
            error = work.exception()
            dispatcher = self._dispatcher
            header = dispatcher.replied(request, work.result()) if error is None else dispatcher.failed(request, error)
            if self.connection.congested:
                later = asyncio.get_running_loop().create_task(self._send(request, header, ()))
                self._running[later] = self._running.pop(work)
                later.add_done_callback(self._done)
                return
            self._put(request, header, ())
        self._done(work)

    def pace(self) -> None:
        """Read on, or not."""
        if len(self._running) >= self._max_served or self._inflow.is_stopped(self):
            self.connection.pause_reading()
        else:
            self.connection.resume_reading()

    async def _serve(self, request: messages.ReceivedRequest, frame: Frame) -> None:
        pipes = self._pipes if self.connection.takes_pipes else None
        with self._answers.hold() as hold:
            header, out = await self._dispatcher.answer(request, frame.blobs, hold, frame.digests, pipes)
            del frame
            try:
                if isinstance(out, Piped):
                    await self._send_piped(request, header, out)
                else:
                    await self._send(request, header, out)
            except asyncio.CancelledError:
                if hold.evicted:
                    # What it has not taken is in memory all the same until the connection is gone.  Its calls have long
                    # missed their deadlines; if it is well, it dials anew.
                    self.connection.abort("it takes nothing of what it asked for, and others wait")
                raise

    async def _send_piped(self, request: messages.ReceivedRequest, header: bytes, out: Piped) -> None:
        connection = self.connection
        try:
            await connection.drained()
            await connection.send_piped(header, out)
            await connection.drained()
        except ConnectionLost:
            pass
        except FrameError as error:
            self._put(request, self._dispatcher.failed(request, error), ())

    async def _send(self, request: messages.ReceivedRequest, header: bytes, out: Sequence[Block]) -> None:
        connection = self.connection
        try:
            if out or connection.congested:
                await connection.drained()
            self._put(request, header, out)
            if out:
                # Until then they are in memory here, whoever holds them.
                await asyncio.sleep(0)
                await connection.drained()
        except ConnectionLost:
            pass

    def _put(self, request: messages.ReceivedRequest, header: bytes, out: Sequence[Block]) -> None:
        connection = self.connection
        try:
            connection.send(header, out)
        except ConnectionLost:
            pass
        except FrameError as error:
            connection.send(self._dispatcher.failed(request, error))

    def _done(self, work: asyncio.Future[Any]) -> None:
        _, size_bytes = self._running.pop(work, (False, 0))
        if len(self._running) == self._max_served - 1:
            self.pace()
        self._inflow.served(size_bytes)
        if self.connection.lost and not self._running:
            self._on_end(self)

    def _on_lost(self, _reason: str) -> None:
        self._inflow.forget(self)
        for task, (changes, _) in self._running.items():
            if not changes:
                task.cancel()
        if not self._running:
            self._on_end(self)
