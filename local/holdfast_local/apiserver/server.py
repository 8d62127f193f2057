"""Start and stop of the API server: the only module that others import.

`serve` opens the state folder, makes or loads the certificate authority, serves HTTPS and runs the controllers; it
returns when requests are answered. `RunningServer.close` ends open watches, stops the controllers and closes the state.
"""

import asyncio
import secrets
import string
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from aiohttp import web

from holdfast_local.apiserver.access.authorizer import Authorizer
from holdfast_local.apiserver.access.bootstrap import ensure_defaults
from holdfast_local.apiserver.access.identity import Authenticator, Tokens
from holdfast_local.apiserver.certificates import ServerIdentity, server_identity
from holdfast_local.apiserver.controllers.garbage import GarbageCollector
from holdfast_local.apiserver.controllers.loop import WorkLoop
from holdfast_local.apiserver.controllers.upkeep import Upkeep
from holdfast_local.apiserver.definitions import Definitions
from holdfast_local.apiserver.http.application import MAX_HEADER_SIZE_BYTES, Front
from holdfast_local.apiserver.resources import Registry
from holdfast_local.apiserver.storage.database import Database
from holdfast_local.apiserver.storage.store import Store
from holdfast_local.apiserver.writing import Writer

DATABASE_NAME = "state.sqlite"
SHUTDOWN_TIMEOUT_SECONDS = 2.0
_SUFFIX_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_SUFFIX_LENGTH = 5


@dataclass
class _Closing:
    """Set once, when the server begins to close."""

    begun: bool = False

    def __call__(self) -> bool:
        return self.begun


class RunningServer:
    """A server that answers requests at `url` until it is closed."""

    def __init__(
        self,
        url: str,
        identity: ServerIdentity,
        runner: web.AppRunner,
        store: Store,
        controllers: asyncio.Task[None],
        closing: _Closing,
    ) -> None:
        self.url = url
        self.certificate_authority_file = identity.authority_file
        """PEM file that clients have to trust."""
        self._runner = runner
        self._store = store
        self._controllers = controllers
        self._closing = closing

    @property
    def certificate_authority(self) -> bytes:
        """The same as PEM."""
        return self.certificate_authority_file.read_bytes()

    async def close(self) -> None:
        """Ends watches and connections, then closes the state. Call it once."""
        self._closing.begun = True
        self._store.wake_watchers()
        await self._runner.cleanup()
        self._controllers.cancel()
        await asyncio.gather(self._controllers, return_exceptions=True)
        self._store.close()


async def serve(state_directory: Path, host: str, port: int, tokens: Tokens) -> RunningServer:
    """Serves the state in `state_directory`; port 0 takes a free one.

    `tokens` maps bearer tokens to (user name, groups); the group `system:masters` may do everything, the user
    `system:serviceaccount:<namespace>:<name>` is that service account. Raises OSError when the port is taken,
    `storage.database.DatabaseError` when the state is in use or unreadable.
    """
    database = Database(state_directory / DATABASE_NAME)
    try:
        store = Store(database)
        registry = Registry(Definitions.load())
        writer = Writer(store, registry, _now, _new_uid, _name_suffix)
        identity = server_identity(state_directory / "pki", host)
        authority = identity.authority_pem.decode()
        upkeep = Upkeep(writer, lambda: authority)
        upkeep.serve_definitions()
        store.listen(upkeep.on_change)
        loop = WorkLoop(store, [GarbageCollector(writer).collect, upkeep.look_at], upkeep.drop_old_events)
        ensure_defaults(writer)
        loop.settle()
        closing = _Closing()
        front = Front(writer, registry, Authenticator(tokens), Authorizer(store), closing)
        runner = await _listen(front, host, port, identity)
    except BaseException:
        database.close()
        raise
    bound_port = runner.addresses[0][1]
    controllers = asyncio.create_task(loop.run(), name="apiserver-controllers")
    return RunningServer(f"https://{host}:{bound_port}", identity, runner, store, controllers, closing)


async def _listen(front: Front, host: str, port: int, identity: ServerIdentity) -> web.AppRunner:
    runner = web.AppRunner(
        front.application(),
        access_log=None,
        handle_signals=False,
        shutdown_timeout=SHUTDOWN_TIMEOUT_SECONDS,
        max_field_size=MAX_HEADER_SIZE_BYTES,
        max_line_size=MAX_HEADER_SIZE_BYTES,
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, ssl_context=identity.context).start()
    except BaseException:
        await runner.cleanup()
        raise
    return runner


def _now() -> datetime:
    return datetime.now(UTC)


def _new_uid() -> str:
    return str(uuid.uuid4())


def _name_suffix() -> str:
    assert set(_SUFFIX_LETTERS) <= set(string.ascii_lowercase + string.digits)
    return "".join(secrets.choice(_SUFFIX_LETTERS) for _ in range(_SUFFIX_LENGTH))
