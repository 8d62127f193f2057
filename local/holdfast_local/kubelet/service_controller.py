"""Services made to work: addresses, proxy backends, hosts tables, EndpointSlices and Endpoints.

Routing and names change at once with the node's own knowledge (`LivePods`); the objects in the API follow.
"""

from __future__ import annotations

import logging
from collections.abc import Container
from pathlib import Path

from holdfast_local.kubelet import hosts_table
from holdfast_local.kubelet.addresses import AddressBook
from holdfast_local.kubelet.client import ENDPOINT_SLICES, ENDPOINTS, SERVICES, ApiClient, ApiError, Resource
from holdfast_local.kubelet.events import EventRecorder
from holdfast_local.kubelet.informer import Informer, ReconcileQueue
from holdfast_local.kubelet.live_pods import LivePod, LivePods
from holdfast_local.kubelet.manifests import Key, Manifest, is_terminating, key_of, labels_match
from holdfast_local.kubelet.proxy import ServiceProxy
from holdfast_local.kubelet.service_routes import (
    Backend,
    Member,
    backends_of,
    members_of,
    names_of,
    needs_address,
    render_endpoint_slice,
    render_endpoints,
)

MACHINE_HOSTS = Path("/etc/hosts")

logger = logging.getLogger(__name__)


class HostsFiles:
    """A hosts file per namespace, `<directory>/<namespace>`, replaced atomically when it changes."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._written: dict[str, str] = {}
        directory.mkdir(parents=True, exist_ok=True)
        try:
            self._machine_lines = MACHINE_HOSTS.read_text().splitlines()
        except OSError:
            self._machine_lines = []

    def path(self, namespace: str) -> Path:
        """The file of a namespace; it exists from the first call on."""
        if namespace not in self._written:
            self._write(namespace, [])
        return self._directory / namespace

    def update(self, names: list[hosts_table.Name]) -> None:
        """Show `names` in the files of their namespaces and of every namespace seen before."""
        for namespace in {name.namespace for name in names} | set(self._written):
            self._write(namespace, names)

    def _write(self, namespace: str, names: list[hosts_table.Name]) -> None:
        text = hosts_table.render(namespace, names, self._machine_lines)
        if self._written.get(namespace) == text:
            return
        fresh = self._directory / f".{namespace}.new"
        fresh.write_text(text)
        fresh.rename(self._directory / namespace)
        self._written[namespace] = text


class ServiceController:
    """Keeps every Service's address, routes, names and endpoint objects right."""

    def __init__(
        self,
        client: ApiClient,
        services: Informer,
        pods: Informer,
        live: LivePods,
        proxy: ServiceProxy,
        hosts: HostsFiles,
        book: AddressBook,
        events: EventRecorder,
    ) -> None:
        self._client, self._proxy, self._hosts, self._book, self._events = client, proxy, hosts, book, events
        self._services, self._pods, self._live = services, pods, live
        self._queue = ReconcileQueue("service", self.reconcile)
        self._failed_to_bind: set[Backend] = set()
        services.on_change(lambda key, _: self._changed(key))
        pods.on_change(lambda key, _: self._pod_changed(key))
        live.on_change(self._pod_changed)

    async def run(self) -> None:
        await self._services.synced.wait()
        await self._pods.synced.wait()
        for key in self._services.items:
            self._queue.mark(key)
        self.route()
        await self._queue.run()

    def route(self) -> None:
        """Bring proxy and hosts tables up to date with what is known this instant."""
        names: list[hosts_table.Name] = []
        wanted: dict[Backend, tuple[Manifest, list[Backend]]] = {}
        for service in self._services.items.values():
            members = self._members(service)
            names += names_of(service, members)
            address = service["spec"].get("clusterIP")
            if needs_address(service) and address and self._book.contains(address):
                for port in service["spec"].get("ports") or []:
                    if port.get("protocol", "TCP") == "TCP":
                        listen = Backend(address, int(port["port"]))
                        wanted[listen] = (service, backends_of(service, port, members))
        for gone in self._proxy.addresses() - set(wanted):
            self._proxy.close(gone)
        for listen, (service, backends) in wanted.items():
            self._open(listen, service, backends)
        self._hosts.update(names)

    async def reconcile(self, key: Key) -> None:
        """One pass over one Service's API objects."""
        service = self._services.items.get(key)
        if service is None or is_terminating(service):
            return
        if needs_address(service):
            await self._ensure_address(key, service)
        if service["spec"].get("selector"):
            members = self._members(service)
            await self._put(ENDPOINT_SLICES, render_endpoint_slice(service, members))
            await self._put(ENDPOINTS, render_endpoints(service, members))

    async def _ensure_address(self, key: Key, service: Manifest) -> None:
        current = service["spec"].get("clusterIP")
        if current and self._book.contains(current):
            return
        address = self._book.address("/".join(key), _Names(self._services))
        patch = {"spec": {"clusterIP": address, "clusterIPs": [address]}}
        self._services.items[key] = await self._client.merge(SERVICES, *key, patch)
        self.route()

    async def _put(self, resource: Resource, manifest: Manifest) -> None:
        namespace, name = key_of(manifest)
        current = await self._client.get(resource, namespace, name)
        if current is None:
            await self._client.create(resource, manifest)
            return
        content = {field: value for field, value in manifest.items() if field != "metadata"}
        if any(current.get(field) != value for field, value in content.items()):
            body = {**manifest, "metadata": {**manifest["metadata"]}}
            body["metadata"]["resourceVersion"] = current["metadata"]["resourceVersion"]
            try:
                await self._client.request("PUT", resource.path(namespace, name), body)
            except ApiError as error:
                if error.status != 409:
                    raise
                self._queue.mark((namespace, manifest["metadata"]["ownerReferences"][0]["name"]))

    def _members(self, service: Manifest) -> list[Member]:
        live: dict[Key, LivePod] = {}
        for key in self._pods.items:
            known = self._live.get(key)
            if known is not None:
                live[key] = known
        return members_of(service, self._pods.items.values(), live)

    def _open(self, listen: Backend, service: Manifest, backends: list[Backend]) -> None:
        try:
            self._proxy.open(listen, backends)
            self._failed_to_bind.discard(listen)
        except OSError as error:
            if listen not in self._failed_to_bind:
                self._failed_to_bind.add(listen)
                message = f"cannot listen on {listen.address}:{listen.port}: {error.strerror}"
                self._events.record("Service", service, "FailedToListen", message, warning=True)
                logger.warning("service %s: %s", "/".join(key_of(service)), message)

    def _changed(self, key: Key) -> None:
        self._queue.mark(key)
        self.route()

    def _pod_changed(self, key: Key) -> None:
        pod = self._pods.items.get(key)
        for service_key, service in self._services.items.items():
            if service_key[0] == key[0] and (pod is None or labels_match(service["spec"].get("selector"), pod)):
                self._queue.mark(service_key)
        self.route()


class _Names(Container[str]):
    """The Services there are, as the address book names them."""

    def __init__(self, services: Informer) -> None:
        self._services = services

    def __contains__(self, name: object) -> bool:
        namespace, _, service = str(name).partition("/")
        return (namespace, service) in self._services.items
