"""`holdfast-local run`: the steps in order, and their undoing.

Every step is a context or a task of one group, so that leaving, for whatever reason, ends everything that was
started: first the operator (it would react to pods going away), then the pods, then the API server.
"""

from __future__ import annotations

import asyncio
import resource
import sys
from collections.abc import Mapping

from holdfast_local.kubelet.client import ApiClient, ClientError
from holdfast_local.kubelet.manifests import Key
from holdfast_local.run import accounts, cluster
from holdfast_local.run.failure import RunFailed
from holdfast_local.run.installation import crd_documents, manifests_root, operator_documents
from holdfast_local.run.interruption import StopRequest, own_foreground_group
from holdfast_local.run.manifest_file import Document, load_tenant_file
from holdfast_local.run.options import RunOptions
from holdfast_local.run.orphans import end_orphans
from holdfast_local.run.progress import Progress
from holdfast_local.run.readiness import TenantWatch
from holdfast_local.run.state_directory import StateDirectory, shown, write_private
from holdfast_local.run.submission import DEFAULT_NAMESPACE, Submitter
from holdfast_local.run.summary import Connection, connection_of, look_around, render_environment, render_next_steps


async def run(options: RunOptions, environment: Mapping[str, str], progress: Progress) -> None:
    """Until SIGINT or SIGTERM; raises RunFailed, with nothing left running."""
    documents = load_tenant_file(options.tenant_file)
    state = StateDirectory(options.state)
    state.acquire()
    try:
        state.prepare()
        raise_descriptor_limit()
        request = StopRequest()
        request.listen()
        with own_foreground_group():
            await _run_locked(options, state, documents, environment, progress, request)
    except OSError as error:
        raise RunFailed(f"{error.strerror or error}{': ' + error.filename if error.filename else ''}") from error
    finally:
        state.environment_file.unlink(missing_ok=True)
        state.release()


async def _run_locked(
    options: RunOptions,
    state: StateDirectory,
    documents: list[Document],
    environment: Mapping[str, str],
    progress: Progress,
    request: StopRequest,
) -> None:
    orphans = end_orphans(state.root)
    if orphans:
        progress.line(f"ended {orphans} process(es) left over from an earlier run")
    processes = cluster.process_environment(state, environment)
    tokens = accounts.load_or_mint(state)
    async with cluster.api_server(state, options.port, tokens) as endpoint:
        progress.line(f"API server on {endpoint.url}, state in {shown(state.root)}/")
        async with (
            endpoint.connect(tokens.node) as node_client,
            endpoint.connect(tokens.admin) as admin_client,
            cluster.node(
                state, node_client, options.isolation, processes, request.hurry, options.nodes, options.refresh_seconds
            ) as running,
        ):
            progress.line(f"node ready: {running.sentence}")
            submitter = Submitter(admin_client)
            await install(submitter, progress)
            operator = cluster.operator_process(state, running, processes, progress)
            async with asyncio.TaskGroup() as group:
                group.create_task(operator.run())
                try:
                    await _until_stopped(options, state, documents, admin_client, submitter, progress, request)
                finally:
                    operator.stop()
                    progress.line("Stopping the operator and the pods …")
    progress.line("Stopped.")


async def install(submitter: Submitter, progress: Progress) -> None:
    """What an administrator installs before the first Tenant."""
    async with progress.step("CRD and the operator's account"):
        root = manifests_root()
        for document in [*crd_documents(root), *operator_documents(root)]:
            await submitter.apply(document)


async def _until_stopped(
    options: RunOptions,
    state: StateDirectory,
    documents: list[Document],
    client: ApiClient,
    submitter: Submitter,
    progress: Progress,
    request: StopRequest,
) -> None:
    starting = asyncio.create_task(_start_tenants(options, state, documents, client, submitter, progress))
    stopping = asyncio.create_task(request.stop.wait())
    try:
        await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            for line in starting.result():
                progress.line(line)
            await stopping
    finally:
        starting.cancel()
        stopping.cancel()
        await asyncio.gather(starting, stopping, return_exceptions=True)


async def _start_tenants(
    options: RunOptions,
    state: StateDirectory,
    documents: list[Document],
    client: ApiClient,
    submitter: Submitter,
    progress: Progress,
) -> list[str]:
    try:
        async with progress.step(f"apply {options.tenant_file}"):
            for name in await submitter.ensure_namespaces(documents):
                progress.detail(f"namespace {name} created")
            for document in documents:
                await submitter.apply(document)
        tenants = [document for document in documents if document.is_tenant]
        resource_ = await submitter.resource_of(tenants[0].manifest["apiVersion"], "Tenant")
        assert resource_ is not None, "it was applied a moment ago"
        watch = TenantWatch(client, resource_, [_key(document) for document in tenants], progress)
        ready = await watch.until_ready(options.timeout_seconds)
        connections = [await connection_of(client, tenant) for tenant in ready]
        others = await watch.others()
    except ClientError as error:
        raise RunFailed(f"the API server does not answer as expected: {error}") from error
    _write_environment(state, connections[0])
    return render_next_steps(connections, state, look_around(others))


def _key(document: Document) -> Key:
    metadata = document.manifest["metadata"]
    return metadata.get("namespace", DEFAULT_NAMESPACE), metadata["name"]


def _write_environment(state: StateDirectory, connection: Connection) -> None:
    certificate_path = None
    if connection.certificate_authority:
        certificate_path = state.root / "ca.crt"
        write_private(certificate_path, connection.certificate_authority)
    write_private(state.environment_file, render_environment(connection, certificate_path))


def raise_descriptor_limit() -> None:
    """Allow as many open files as the system lets us: the proxy and the pods' databases need them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard if hard != resource.RLIM_INFINITY else max(soft, 65536)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, 1 << 20), hard))
    except (ValueError, OSError) as error:
        print(f"warning: open files stay limited to {soft}: {error}", file=sys.stderr)
