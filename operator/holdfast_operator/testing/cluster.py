"""A cluster with the Holdfast operator in it, as the end-to-end suite uses one: real or stand-in, the same calls.

Everything goes through the Kubernetes API.  The S3 endpoint is the Service's address where this machine can reach
it (the stand-in), else a `kubectl port-forward` to it.  What that API has no word for, the plug of a node, is pulled by
an annotation on the stand-in and by a command of the caller's elsewhere.
"""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.stream import stream

from holdfast_operator.testing.processes import free_port

WAIT_SECONDS = 180.0
CONNECT_TIMEOUT_SECONDS = 2.0
COMMAND_TIMEOUT_SECONDS = 240.0
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted"}
"""Where these are labels of a namespace, the API server refuses pods that ask for more than they need."""
_OPERATOR = "app.kubernetes.io/name=holdfast-operator"
_TENANTS = ("holdfast.dev", "v1")
_STORAGE_CLASSES = ("storage.k8s.io", "v1", "storageclasses")


def wait_for(
    what: str, check: Callable[[], object], timeout_seconds: float = WAIT_SECONDS, pause_seconds: float = 0.2
) -> None:
    """Poll until `check` is true; raises TimeoutError naming `what`."""
    deadline = time.monotonic() + timeout_seconds
    while not check():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout_seconds:g} s for {what}")
        time.sleep(pause_seconds)


class Cluster:
    def __init__(self, kubeconfig: Path, power_command: Sequence[str] = ()) -> None:
        """`power_command`, followed by `on` or `off` and a node's name, pulls that node's plug or puts it back."""
        self.kubeconfig = kubeconfig
        self._power_command = power_command
        self._api = config.new_client_from_config(str(kubeconfig))
        # Any: the client's annotations know only its own classes, not the plain dicts that it takes too.
        self.core: Any = client.CoreV1Api(self._api)
        self.apps: Any = client.AppsV1Api(self._api)
        self._storage: Any = client.StorageV1Api(self._api)
        self._leases: Any = client.CoordinationV1Api(self._api)
        self._custom: Any = client.CustomObjectsApi(self._api)

    def close(self) -> None:
        self._api.close()

    def make_namespace(self, name: str) -> None:
        self.core.create_namespace({"metadata": {"name": name, "labels": RESTRICTED}})

    def delete_namespace(self, name: str) -> None:
        self.core.delete_namespace(name)

    # --- tenants
    def create_tenant(self, tenant: dict[str, Any]) -> None:
        self._custom.create_namespaced_custom_object(*_TENANTS, tenant["metadata"]["namespace"], "tenants", tenant)

    def make_tenant(self, tenant: dict[str, Any], timeout_seconds: float = WAIT_SECONDS) -> str:
        """The same; returns once it is ready, its namespace."""
        namespace, name = str(tenant["metadata"]["namespace"]), str(tenant["metadata"]["name"])
        self.create_tenant(tenant)
        wait_for("the Tenant to be Ready", lambda: self.is_ready(namespace, name), timeout_seconds)
        return namespace

    def patch_tenant(self, namespace: str, name: str, patch: dict[str, Any]) -> None:
        self._custom.patch_namespaced_custom_object(*_TENANTS, namespace, "tenants", name, patch)

    def delete_tenant(self, namespace: str, name: str, *, orphan: bool = False) -> None:
        """`orphan`: all that belongs to it stays, and belongs to nobody."""
        policy = "Orphan" if orphan else "Background"
        self._custom.delete_namespaced_custom_object(*_TENANTS, namespace, "tenants", name, propagation_policy=policy)

    def has_tenant(self, namespace: str, name: str) -> bool:
        try:
            self.tenant(namespace, name)
        except ApiException as error:
            if error.status == 404:
                return False
            raise
        return True

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

    def make_class_without_volumes(self, name: str) -> None:
        """A StorageClass whose claims wait for volumes that somebody makes by hand."""
        self._make_class(name, "kubernetes.io/no-provisioner")

    def make_class_of_fixed_size(self, name: str) -> None:
        """One of the stand-in's, whose volumes do not grow."""
        self._make_class(name, "holdfast.dev/folders")

    def _make_class(self, name: str, provisioner: str) -> None:
        body = {"metadata": {"name": name}, "provisioner": provisioner}
        self._custom.create_cluster_custom_object(
            *_STORAGE_CLASSES,
            body={"apiVersion": "/".join(_STORAGE_CLASSES[:2]), "kind": "StorageClass", **body},
        )

    def delete_class(self, name: str) -> None:
        self._custom.delete_cluster_custom_object(*_STORAGE_CLASSES, name)

    # --- its nodes
    @property
    def has_plugs(self) -> bool:
        """Whether nodes can be cut off: those of the stand-in can, others by the command given."""
        nodes = self.core.list_node().items
        return bool(self._power_command) or all(
            "holdfast-local" in node.status.node_info.kubelet_version for node in nodes
        )

    def set_power(self, node: str, *, on: bool) -> None:
        """Returns when the node is off; when it is put back, it may still be starting."""
        if self._power_command:
            command = [*self._power_command, "on" if on else "off", node]
            subprocess.run(command, check=True, timeout=COMMAND_TIMEOUT_SECONDS)
            return
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

    # --- its operator
    def operator_pods(self) -> list[Any]:
        """Those that are Ready and not on their way out; none on the stand-in, whose operator is no pod."""
        found = self.core.list_pod_for_all_namespaces(label_selector=_OPERATOR).items
        return [pod for pod in found if pod.metadata.deletion_timestamp is None and _is_ready(pod)]

    def kill_operator(self) -> None:
        """Delete the pods of the operator, without grace; its Deployment makes others."""
        found = self.core.list_pod_for_all_namespaces(label_selector=_OPERATOR).items
        if not found:
            raise LookupError("no pod of the operator")
        for pod in found:
            self.core.delete_namespaced_pod(pod.metadata.name, pod.metadata.namespace, grace_period_seconds=0)

    def scale_operator(self, replicas: int) -> int:
        """How many there were to be before."""
        (found,) = self.apps.list_deployment_for_all_namespaces(label_selector=_OPERATOR).items
        scale = {"spec": {"replicas": replicas}}
        self.apps.patch_namespaced_deployment_scale(found.metadata.name, found.metadata.namespace, scale)
        return int(found.spec.replicas)

    def working_operator(self) -> tuple[str, str]:
        """Name and namespace of the pod that holds the Lease now, or held it last."""
        (found,) = self.apps.list_deployment_for_all_namespaces(label_selector=_OPERATOR).items
        lease = self._leases.read_namespaced_lease(found.metadata.name, found.metadata.namespace)
        return str(lease.spec.holder_identity or "").rpartition("_")[0], str(found.metadata.namespace)

    # --- its pods

    def run_in(self, namespace: str, pod: str, command: Sequence[str]) -> str:
        """What the command says, run in the pod's container; the stand-in cannot."""
        # A client of its own: `stream` swaps the one it is given for a websocket while it runs.
        with config.new_client_from_config(str(self.kubeconfig)) as api:
            call = client.CoreV1Api(api).connect_get_namespaced_pod_exec
            # Not preloaded: a stream that reads by itself leaves its socket open.
            running = stream(
                call, pod, namespace, command=list(command), stdout=True, stderr=True, _preload_content=False
            )
            running.run_forever(COMMAND_TIMEOUT_SECONDS)
            said = str(running.read_all())
            running.sock.shutdown()  # `close` does nothing once the other side has closed
            return said

    def pod_page(self, namespace: str, pod: str, path: str) -> str:
        """What the pod answers on port 9000: asked directly, or through the API server where no route leads to it."""
        address = self.core.read_namespaced_pod(pod, namespace).status.pod_ip
        if _connects(address, 9000):
            with urllib.request.urlopen(f"http://{address}:9000{path}", timeout=60) as answer:
                return str(answer.read().decode())
        page = self.core.connect_get_namespaced_pod_proxy_with_path(
            f"{pod}:9000", namespace, path.lstrip("/"), _preload_content=False
        )
        return str(page.data.decode())

    def table(self, namespace: str) -> list[dict[str, Any]]:
        """Tenants as `kubectl get` shows them: column → cell."""
        accept = "application/json;as=Table;v=v1;g=meta.k8s.io"
        path = f"/apis/{'/'.join(_TENANTS)}/namespaces/{namespace}/tenants"
        request = self._api.param_serialize(
            "GET", path, header_params={"Accept": accept}, auth_settings=["BearerToken"]
        )
        found = json.loads(self._api.call_api(*request).read())
        columns = [column["name"] for column in found["columnDefinitions"]]
        return [dict(zip(columns, row["cells"], strict=True)) for row in found["rows"]]

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
        port = free_port()
        command = ["kubectl", "--kubeconfig", str(self.kubeconfig), "-n", namespace, "port-forward"]
        forward = subprocess.Popen([*command, f"service/{service}", f"{port}:9000"], stdout=subprocess.DEVNULL)
        try:
            wait_for("the port-forward", lambda: _connects("127.0.0.1", port))
            yield f"http://127.0.0.1:{port}"
        finally:
            forward.terminate()
            forward.wait()


def _is_ready(pod: Any) -> bool:
    return any(condition.type == "Ready" and condition.status == "True" for condition in pod.status.conditions or [])


def _connects(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), CONNECT_TIMEOUT_SECONDS):
            return True
    except OSError:
        return False
