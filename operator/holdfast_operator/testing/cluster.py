"""A cluster with the Holdfast operator in it, as the end-to-end suite uses one: real or stand-in, the same calls.

Everything goes through the Kubernetes API.  The S3 endpoint is the Service's address where this machine can reach
it (the stand-in), else a `kubectl port-forward` to it.
"""

from __future__ import annotations

import base64
import contextlib
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

WAIT_SECONDS = 180.0
CONNECT_TIMEOUT_SECONDS = 2.0
_TENANTS = ("holdfast.dev", "v1")


def wait_for(what: str, check: Callable[[], object], timeout_seconds: float = WAIT_SECONDS) -> None:
    """Poll until `check` is true; raises TimeoutError naming `what`."""
    deadline = time.monotonic() + timeout_seconds
    while not check():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout_seconds:g} s for {what}")
        time.sleep(0.2)


class Cluster:
    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        self._api = config.new_client_from_config(str(kubeconfig))
        # Any: the client's annotations know only its own classes, not the plain dicts that it takes too.
        self.core: Any = client.CoreV1Api(self._api)
        self.apps: Any = client.AppsV1Api(self._api)
        self._storage: Any = client.StorageV1Api(self._api)
        self._custom: Any = client.CustomObjectsApi(self._api)

    def close(self) -> None:
        self._api.close()

    def make_namespace(self, name: str) -> None:
        self.core.create_namespace({"metadata": {"name": name}})

    def delete_namespace(self, name: str) -> None:
        self.core.delete_namespace(name)

    # --- tenants
    def create_tenant(self, tenant: dict[str, Any]) -> None:
        self._custom.create_namespaced_custom_object(*_TENANTS, tenant["metadata"]["namespace"], "tenants", tenant)

    def patch_tenant(self, namespace: str, name: str, patch: dict[str, Any]) -> None:
        self._custom.patch_namespaced_custom_object(*_TENANTS, namespace, "tenants", name, patch)

    def delete_tenant(self, namespace: str, name: str) -> None:
        self._custom.delete_namespaced_custom_object(*_TENANTS, namespace, "tenants", name)

    def tenant(self, namespace: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self._custom.get_namespaced_custom_object(*_TENANTS, namespace, "tenants", name)
        return found

    def condition(self, namespace: str, name: str, kind: str) -> dict[str, Any]:
        """The condition of that type; empty if there is none."""
        conditions = self.tenant(namespace, name).get("status", {}).get("conditions", [])
        return next((condition for condition in conditions if condition["type"] == kind), {})

    def is_ready(self, namespace: str, name: str) -> bool:
        tenant = self.tenant(namespace, name)
        current = tenant.get("status", {}).get("observedGeneration") == tenant["metadata"]["generation"]
        return current and self.condition(namespace, name, "Ready").get("status") == "True"

    # --- what it made
    def names(self, kind: str, namespace: str) -> set[str]:
        """Names of all objects of a kind of the core API: `pod`, `service`, `secret`, `persistent_volume_claim`."""
        return {item.metadata.name for item in getattr(self.core, f"list_namespaced_{kind}")(namespace).items}

    def claims_can_grow(self, namespace: str) -> bool:
        """Whether the claims' storage class allows it; without a class, as on the stand-in, it does."""
        for claim in self.core.list_namespaced_persistent_volume_claim(namespace).items:
            if claim.spec.storage_class_name:
                found = self._storage.read_storage_class(claim.spec.storage_class_name)
                return bool(found.allow_volume_expansion)
        return True

    # --- its nodes
    @property
    def has_plugs(self) -> bool:
        """Whether nodes can be cut off: those of the stand-in can."""
        nodes = self.core.list_node().items
        return all("holdfast-local" in node.status.node_info.kubelet_version for node in nodes)

    def set_power(self, node: str, *, on: bool) -> None:
        self.core.patch_node(node, {"metadata": {"annotations": {"holdfast.dev/power": None if on else "off"}}})

    def cordon(self, node: str, *, on: bool) -> None:
        self.core.patch_node(node, {"spec": {"unschedulable": on or None}})

    def evict(self, namespace: str, pod: str) -> bool:
        """As `kubectl drain` does; False while a disruption budget forbids it."""
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": namespace}}
        try:
            self.core.create_namespaced_pod_eviction(pod, namespace, eviction)
        except ApiException as error:
            if error.status == 429:
                return False
            raise
        return True

    def secret(self, namespace: str, name: str) -> dict[str, str]:
        """Decoded; empty if there is none."""
        try:
            data = self.core.read_namespaced_secret(name, namespace).data or {}
        except ApiException as error:
            if error.status == 404:
                return {}
            raise
        return {key: base64.b64decode(value).decode() for key, value in data.items()}

    def annotate_secret(self, namespace: str, name: str, annotation: str, value: str) -> None:
        self.core.patch_namespaced_secret(name, namespace, {"metadata": {"annotations": {annotation: value}}})

    @contextlib.contextmanager
    def endpoint(self, namespace: str, service: str) -> Iterator[str]:
        """An S3 URL that reaches the Service from here."""
        found = self.core.read_namespaced_service(service, namespace)
        address = str(found.spec.cluster_ip)
        if _connects(address, 9000):
            yield f"http://{address}:9000"
            return
        port = _free_port()
        command = ["kubectl", "--kubeconfig", str(self.kubeconfig), "-n", namespace, "port-forward"]
        forward = subprocess.Popen([*command, f"service/{service}", f"{port}:9000"], stdout=subprocess.DEVNULL)
        try:
            wait_for("the port-forward", lambda: _connects("127.0.0.1", port), 30)
            yield f"http://127.0.0.1:{port}"
        finally:
            forward.terminate()
            forward.wait()


def _connects(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), CONNECT_TIMEOUT_SECONDS):
            return True
    except OSError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
