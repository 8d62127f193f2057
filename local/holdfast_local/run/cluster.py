"""The stand-in cluster as one object: API server, node, operator; started in order and ended in reverse."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from holdfast_local.apiserver import server
from holdfast_local.apiserver.kubeconfig import write_kubeconfig
from holdfast_local.apiserver.storage.database import DatabaseError
from holdfast_local.kubelet.addresses import Slot
from holdfast_local.kubelet.agent import Kubelet
from holdfast_local.kubelet.client import ApiClient, connect
from holdfast_local.kubelet.isolation import (
    Isolation,
    UnsupportedMachine,
    choose_isolation,
    installation_paths,
    require_loopback,
)
from holdfast_local.run.accounts import OPERATOR_ACCOUNT, OPERATOR_NAMESPACE, Tokens
from holdfast_local.run.failure import RunFailed
from holdfast_local.run.operator_process import OperatorProcess
from holdfast_local.run.orphans import MARK
from holdfast_local.run.progress import Progress
from holdfast_local.run.state_directory import StateDirectory

HOST = "127.0.0.1"
DEFAULT_PORT = 6443
POD_GRACE_SECONDS = 30.0
OPERATOR_LEASE = f"{OPERATOR_NAMESPACE}/{OPERATOR_ACCOUNT}"
OPERATOR_COMMAND = ("holdfast-operator", "--all-namespaces", "--log-format", "text", "--lease", OPERATOR_LEASE)


@dataclass(frozen=True)
class Node:
    """A running node and how pods are isolated on it."""

    kubelet: Kubelet
    isolation: Isolation
    sentence: str


@dataclass(frozen=True)
class Endpoint:
    """Where the API server answers, and the authority its certificate comes from (PEM)."""

    url: str
    authority_pem: str

    def connect(self, token: str) -> AbstractAsyncContextManager[ApiClient]:
        return connect(self.url, token, self.authority_pem)


@asynccontextmanager
async def api_server(state: StateDirectory, port: int | None, tokens: Tokens) -> AsyncIterator[Endpoint]:
    """The API server while it runs, with the person's and the operator's kubeconfig written."""
    running = await _serve(state, port, tokens)
    try:
        authority = running.certificate_authority
        write_kubeconfig(state.kubeconfig, running.url, tokens.admin, authority)
        write_kubeconfig(state.operator / "kubeconfig", running.url, tokens.operator, authority)
        yield Endpoint(running.url, authority.decode())
    finally:
        state.kubeconfig.unlink(missing_ok=True)
        await running.close()


async def _serve(state: StateDirectory, port: int | None, tokens: Tokens) -> server.RunningServer:
    for candidate in (DEFAULT_PORT, 0) if port is None else (port,):
        try:
            return await server.serve(state.api, HOST, candidate, tokens.users())
        except DatabaseError as error:
            raise RunFailed(f"the cluster's state in {state.api} cannot be opened: {error}") from error
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise RunFailed(f"cannot start the API server on {HOST}:{candidate}: {error}") from error
            if port is not None:
                raise RunFailed(f"port {port} of {HOST} is taken by another program; choose another --port") from error
    raise RunFailed("no free port for the API server")


@asynccontextmanager
async def node(
    state: StateDirectory,
    client: ApiClient,
    isolation_wanted: str,
    environment: Mapping[str, str],
    hurry: asyncio.Event,
    node_count: int,
    refresh_seconds: float,
) -> AsyncIterator[Node]:
    """The nodes while they run; at the end every pod has been stopped, gracefully unless `hurry` is set."""
    try:
        require_loopback()
        isolation, sentence = await choose_isolation(state.node, isolation_wanted)
    except UnsupportedMachine as error:
        raise RunFailed(str(error)) from error
    slot = Slot.claim(state.root)
    connector = aiohttp.TCPConnector(force_close=True, limit=0)  # a probe proves a new connection works, too
    try:
        async with aiohttp.ClientSession(connector=connector) as probe_session:
            kubelet = Kubelet(
                client, probe_session, state.node, state.volumes, slot.number, isolation, environment, node_count,
                refresh_seconds,
            )  # fmt: skip
            ready = asyncio.Event()
            running = asyncio.create_task(kubelet.run(ready))
            waiting = asyncio.create_task(ready.wait())
            try:
                await asyncio.wait([running, waiting], return_when=asyncio.FIRST_COMPLETED)
                if running.done():
                    running.result()
                yield Node(kubelet, isolation, sentence)
            finally:
                await _stop_pods(kubelet, hurry)
                for task in (waiting, running):
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await task
    finally:
        slot.close()


async def _stop_pods(kubelet: Kubelet, hurry: asyncio.Event) -> None:
    stopping = asyncio.create_task(kubelet.stop_pods(POD_GRACE_SECONDS))
    hurrying = asyncio.create_task(hurry.wait())
    await asyncio.wait([stopping, hurrying], return_when=asyncio.FIRST_COMPLETED)
    hurrying.cancel()
    if not stopping.done():
        await kubelet.stop_pods(0)
    await stopping


def operator_process(
    state: StateDirectory, running: Node, environment: Mapping[str, str], progress: Progress
) -> OperatorProcess:
    """The operator, not yet started."""
    return OperatorProcess(
        command=OPERATOR_COMMAND,
        environment={**environment, "KUBECONFIG": str(state.operator / "kubeconfig"), "HOME": str(state.operator)},
        root=state.operator / "root",
        hosts_file=running.kubelet.hosts.path(OPERATOR_NAMESPACE),
        log_path=state.logs / "operator.log",
        isolation=running.isolation,
        keep=installation_paths(state.root),
        report=progress.line,
    )


def process_environment(state: StateDirectory, inherited: Mapping[str, str]) -> dict[str, str]:
    """What every process of the cluster starts from: the installation's programs first on PATH, and our mark."""
    programs = str(Path(sys.executable).parent)
    path = os.pathsep.join([programs, inherited.get("PATH") or os.defpath])
    environment = {"PATH": path, "LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1", MARK: str(state.root)}
    for name in ("TZ", "PYTHONPATH", "LD_LIBRARY_PATH"):  # an installation may depend on these
        if inherited.get(name):
            environment[name] = inherited[name]
    return environment
