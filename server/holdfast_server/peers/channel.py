"""The asking end: one long-lived connection of one class to one peer, and the calls under way on it.

`run` dials for ever (50 ms to 1 s between attempts, jittered; at once when `wake` is called, as when the peer
has just dialled us).  The name is resolved and the peer proves who it is at every dial.  When the connection
is lost every pending call fails at once.  Every call has a deadline; a late answer is ignored.

Calls that were given up leave what they sent in the connection's buffer; while that is too full (the peer takes
nothing), further calls send nothing, and miss their deadline.

Not here: the calls' own life (`calls`), which peers there are, and what a missed deadline says about one (`link`).
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from holdfast_server.clock.port import Clock
from holdfast_server.peers import messages
from holdfast_server.peers.calls import Call, Calls, DeadlineMissed, FailAs, NotConnected
from holdfast_server.peers.connection import Connection, ConnectionLost
from holdfast_server.peers.frames import Buffer, Frame, FrameError
from holdfast_server.peers.handshake import NONCE_SIZE_BYTES, Dialler, HandshakeError, NotAMember, PodIdentity
from holdfast_server.peers.messages import ConnectionClass, Report, Request, Verb
from holdfast_server.peers.naming import Resolver
from holdfast_server.peers.port import PeerError
from holdfast_server.transport.tls_connection import dial_tls

log = logging.getLogger(__name__)

HANDSHAKE_TIMEOUT_SECONDS = 5.0
RETIRE_SECONDS = 10.0
"""How long calls may take on a connection that was replaced by another."""
_FIRST_RETRY_SECONDS = 0.05
_LAST_RETRY_SECONDS = 1.0
_HANGING_AFTER_SECONDS = 0.5
_RETIRE_STEP_SECONDS = 0.1


class Target(NamedTuple):
    """A pod to dial."""

    pool: str
    ordinal: int
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.pool}/{self.ordinal} at {self.host}:{self.port}"


class DialSettings(NamedTuple):
    """What every dial of a pod needs."""

    me: PodIdentity
    keys: Callable[[], Sequence[bytes]]
    """The tenant's peer keys, this pod's own first; asked at each dial."""
    report: Callable[[], Report]
    resolver: Resolver
    clock: Clock
    wants_tls: Callable[[], bool] = lambda: False
    """Whether connections shall have TLS now; one that does not do as it should is replaced."""
    tls: Callable[[], ssl.SSLContext | None] = lambda: None
    """The context to dial with, None for none; raises OSError where there is none and should be."""


class Channel:
    """See the module.  `run` must be running for calls to get through."""

    def __init__(
        self,
        target: Target,
        connection_class: ConnectionClass,
        settings: DialSettings,
        on_report: Callable[[Report], None],
        on_change: Callable[[], None],
        on_missed: Callable[[Call], None],
        on_answered: Callable[[int], None],
    ) -> None:
        """`on_report`: at each handshake and when the peer pushes one.  `on_change`: up or down.  `on_missed`: a call
        misses its deadline.  `on_answered`: that volume has answered."""
        self.target = target
        self.connection_class = connection_class
        self._settings = settings
        self._on_report = on_report
        self._on_change = on_change
        self._on_missed = on_missed
        self._on_answered = on_answered
        self._connection: Connection | None = None
        self._loop = asyncio.get_running_loop()
        self._calls = Calls(connection_class, self._loop, self._missed)
        self._wake = asyncio.Event()
        self._outdated = asyncio.Event()
        self._attempt_timeout: asyncio.Timeout | None = None
        self._attempt_began = 0.0
        self.last_failure = "not connected yet"
        self.turned_away = False
        """Whether the last attempt ended with the peer's word that this pod is none of the tenant's."""

    @property
    def connected(self) -> bool:
        return self._connection is not None

    @property
    def secure(self) -> bool | None:
        """Whether the connection has TLS; None without one."""
        return None if self._connection is None else self._connection.secure

    def wake(self) -> None:
        """Dial now instead of waiting for the next attempt, or for one that hangs on an address left behind."""
        self._wake.set()
        now, attempt = asyncio.get_running_loop().time(), self._attempt_timeout
        # One that has run out, or was woken already, is over as soon as its task has its turn.
        if attempt is not None and not attempt.expired() and now - self._attempt_began > _HANGING_AFTER_SECONDS:
            attempt.reschedule(now)

    def abort(self, reason: str) -> None:
        """Give the connection up (it is silent) and dial again."""
        if self._connection is not None:
            self._connection.abort(reason)

    # --- calls
    def call(
        self,
        verb: Verb,
        volume: int,
        arguments: tuple[Any, ...],
        blobs: Sequence[Buffer] = (),
        timeout_seconds: float | None = None,
        fail_as: FailAs = lambda error: error,
    ) -> asyncio.Future[Any]:
        """Ask: a future of the decoded result, and of the answer's blobs where the verb has any.  Never raises itself.

        The future raises the DriveError the peer answered with, or a PeerError (NotConnected, DeadlineMissed, refusal)
        as `fail_as` has it.
        """
        spec = messages.VERBS[verb]
        deadline = self._loop.time() + (spec.timeout_seconds if timeout_seconds is None else timeout_seconds)
        size = sum(map(len, blobs)) if blobs else 0
        call = Call(self._calls, spec, volume, deadline, size, fail_as)
        connection = self._connection
        if self._calls.has_room(size) and (connection is None or not connection.congested):
            self._send(connection, call, verb, arguments, blobs)
            return call
        return asyncio.ensure_future(self._wait_and_send(call, verb, arguments, blobs))

    def _send(
        self,
        connection: Connection | None,
        call: Call,
        verb: Verb,
        arguments: tuple[Any, ...],
        blobs: Sequence[Buffer],
    ) -> None:
        if connection is None:
            call.fail(NotConnected(f"{self.target}: {self.last_failure}"))
            return
        self._calls.begin(call)
        try:
            sizes = tuple(map(len, blobs))
            connection.send(messages.encode(Request(call.id, verb, call.volume, sizes, arguments)), blobs)
        except ConnectionLost as error:
            call.fail(NotConnected(f"{self.target}: {error}"))
        except FrameError as error:
            call.fail(PeerError(str(error)))
        except BaseException:
            self._calls.end(call)
            raise

    async def _wait_and_send(self, call: Call, verb: Verb, arguments: tuple[Any, ...], blobs: Sequence[Buffer]) -> Any:
        try:
            try:
                await self._calls.wait_for_room(call.size_bytes, call.deadline)
            except TimeoutError:
                raise PeerError(f"{self.target}: too many calls under way") from None
            connection = self._connection
            if connection is not None and connection.congested:
                await self._wait_until_taken(connection, call)
        except PeerError as error:
            call.fail(error)
        else:
            self._send(connection, call, verb, arguments, blobs)
        return await call

    async def _wait_until_taken(self, connection: Connection, call: Call) -> None:
        """Raises NotConnected; a peer that takes nothing in time has missed the deadline."""
        try:
            async with asyncio.timeout_at(call.deadline):
                await connection.drained()
        except ConnectionLost as error:
            raise NotConnected(f"{self.target}: {error}") from error
        except TimeoutError:
            self._on_missed(call)
            raise DeadlineMissed(f"{self.target}: does not take what is sent") from None

    def _missed(self, call: Call) -> None:
        # First: what follows may give up all calls for another reason, and a ping has to know that it was missed.
        call.fail(DeadlineMissed(f"{self.target}: no answer in time"))
        self._on_missed(call)

    # --- answers
    def _on_frame(self, frame: Frame) -> None:
        try:
            reply = messages.decode_reply(frame.header)
            if reply.id == messages.PUSHED_REPORT_ID:
                self._on_report(messages.VERBS[Verb.PING].result.decode(reply.result))
                return
        except msgspec.MsgspecError as error:
            raise FrameError(f"reply cannot be read: {error}") from error
        call = self._calls.get(reply.id)
        if call is not None:
            self._on_answered(call.volume)
            call.answer(reply, frame, self.target)

    def _on_lost(self, connection: Connection, reason: str) -> None:
        if connection is not self._connection:
            return  # another has taken its place; `_retire` sees to the calls on it
        self._connection = None
        self.last_failure = reason
        self.give_up_calls(reason)
        self._on_change()

    def give_up_calls(self, reason: str) -> None:
        """Fail everything under way without closing the connection: the peer does not react."""
        for call in self._calls.under_way():
            call.fail(NotConnected(f"{self.target}: {reason}"))

    # --- dialling
    async def run(self) -> None:
        """Keep the connection up until cancelled."""
        try:
            await self._dial_for_ever()
        finally:
            self.abort("this pod is closing the connection")

    def look_around(self) -> None:
        """Whether connections shall have TLS may have changed: have one replaced that does not do as it should."""
        connection = self._connection
        if connection is not None and connection.secure != self._settings.wants_tls():
            self._outdated.set()

    async def _dial_for_ever(self) -> None:
        delay = _FIRST_RETRY_SECONDS
        while True:
            self._wake.clear()
            connection = await self._attempt()
            if connection is not None:
                delay = _FIRST_RETRY_SECONDS
                await self._use(connection)
                log.warning("peer connection lost", extra=self._fields(reason=self.last_failure))
            await self._pause(delay)
            delay = min(_LAST_RETRY_SECONDS, delay * 2)

    async def _use(self, connection: Connection) -> None:
        """Until it, or what has taken its place, is lost."""
        while True:
            self._outdated.clear()
            async with asyncio.TaskGroup() as tasks:
                ends = [tasks.create_task(connection.ended()), tasks.create_task(self._outdated.wait())]
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                for end in ends:
                    end.cancel()
            if connection.lost:
                return
            fresh = await self._attempt()
            if fresh is None:
                if self._connection is not connection:
                    # Lost in the moment it had taken over; what it took over from is of no use alone.
                    connection.abort(self.last_failure)
                    return
                await self._pause(_LAST_RETRY_SECONDS)
                continue
            await self._retire(connection)
            connection = fresh

    async def _retire(self, connection: Connection) -> None:
        """The calls on a connection that was replaced are still answered on it, within bounds."""
        left = self._calls.under_way()
        deadline = asyncio.get_running_loop().time() + RETIRE_SECONDS
        while not connection.lost and asyncio.get_running_loop().time() < deadline:
            if all(call.done() for call in left):
                break
            await asyncio.sleep(_RETIRE_STEP_SECONDS)
        connection.close()
        for call in left:
            call.fail(NotConnected(f"{self.target}: the connection was replaced"))

    async def _attempt(self) -> Connection | None:
        try:
            self._attempt_began = asyncio.get_running_loop().time()
            async with asyncio.timeout(HANDSHAKE_TIMEOUT_SECONDS) as self._attempt_timeout:
                connection, report = await self._dial()
        except (OSError, ConnectionLost, HandshakeError, FrameError, TimeoutError) as error:
            # The first failure and every change of it are worth a line; a pod that is away is not, each second.
            # Python's own TimeoutError has no words, and a status shows this to people.
            silence = f"no handshake within {HANDSHAKE_TIMEOUT_SECONDS:g} s"
            failure = str(error) or (silence if isinstance(error, TimeoutError) else type(error).__name__)
            level = logging.DEBUG if failure == self.last_failure else logging.WARNING
            self.last_failure = failure
            self.turned_away = isinstance(error, NotAMember)
            log.log(level, "peer cannot be dialled", extra=self._fields(reason=failure))
            return None
        finally:
            self._attempt_timeout = None
        self._connection = connection
        self.turned_away = False
        connection.start(self._on_frame, lambda reason: self._on_lost(connection, reason), messages.wish_of_blocks)
        if connection.lost:
            return None
        log.info("peer connected", extra=self._fields())
        self._on_report(report)
        self._on_change()
        return connection

    async def _dial(self) -> tuple[Connection, Report]:
        settings = self._settings
        address = await settings.resolver.resolve(self.target.host)
        loop = asyncio.get_running_loop()
        connection = Connection()
        context = settings.tls()
        try:
            if context is None:
                await loop.create_connection(lambda: connection, address, self.target.port)
            else:
                await dial_tls(connection, context, self.target.host, address, self.target.port)
            dialler = Dialler(
                settings.me, self.target.pool, self.target.ordinal, self.connection_class,
                settings.keys(), settings.clock.random_bytes(NONCE_SIZE_BYTES),
            )  # fmt: skip
            connection.send(dialler.hello())
            connection.send(dialler.prove((await connection.receive()).header, settings.report()))
            return connection, dialler.welcomed((await connection.receive()).header)
        except BaseException as error:
            connection.abort(str(error))
            raise

    async def _pause(self, seconds: float) -> None:
        jitter = 0.5 + self._settings.clock.random_bytes(1)[0] / 255
        try:
            async with asyncio.timeout(seconds * jitter):
                await self._wake.wait()
        except TimeoutError:
            pass

    def _fields(self, **more: str) -> dict[str, str]:
        return {"peer": str(self.target), "connection_class": self.connection_class.name.lower(), **more}
