"""A node for thousands of pods: the StatefulSet controller, the volumes and the pods, without a process per pod.

For tests of the operator under load.  Real in such a test: the operator's process, and the stand-in's API server with
all its rules.  Played here: claims are bound at once, pods are made by ordinal and are Ready at once (or
stay unready), a pod that is deleted is gone and made anew with the latest template, and each answers at an address of
its own, port 9000, what a whole pod would: `/health/cluster` from the ConfigMap and the keys as they are in the
cluster, and the calls of provisioning, which are refused to a root key that is not on record.

Not here: anything of a store.  No byte is kept, no TLS is spoken.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import re
import socket
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import unquote

import msgspec
from aiohttp import web

from holdfast_operator import labels
from holdfast_operator.desired import secrets
from holdfast_operator.kube.client import HttpKubeClient
from holdfast_operator.kube.errors import KubeConflict, KubeError
from holdfast_operator.kube.login import load_configuration
from holdfast_operator.kube.port import CLAIM, CONFIG_MAP, POD, SECRET, STATEFUL_SET, Kind, Manifest
from holdfast_operator.observe.pods import REVISION_LABEL, PodState, read_pods
from holdfast_operator.testing.memory_kube import MemoryKubeClient
from holdfast_operator.testing.memory_store import MemoryPods, MemoryStore
from holdfast_server.contract import admin, names
from holdfast_server.contract.keys import decode_further_keys

RETRY_SECONDS = 0.3
WORKERS = 8
"""StatefulSets that are seen to at a time, each by one."""
MANAGER_OF_PODS = "holdfast.dev/tenant"
SLOTS = range(100, 200)
"""Second numbers of the loopback addresses; a slot belongs to one node of this machine."""
_ACCESS_KEY = re.compile(r"Credential=([^/]+)/")
_WATCHED = (STATEFUL_SET, POD, CLAIM, CONFIG_MAP, SECRET)

Place = tuple[str, str]
"""(namespace, name)"""


class NodeClient(HttpKubeClient):
    """The operator's client, with the one verb that only a kubelet needs."""

    async def remove_pod(self, pod: Manifest) -> None:
        """Let a pod that is terminating go."""
        metadata = pod["metadata"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
        options = {"gracePeriodSeconds": 0, "preconditions": {"uid": metadata["uid"]}}
        with contextlib.suppress(KubeError):
            await self._call("DELETE", path, body=options)

    async def make_namespace(self, name: str) -> None:
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        await self._call("POST", "/api/v1/namespaces", body=body)


class HollowNode:
    """Use `running`."""

    def __init__(self, kube: NodeClient, slot: int) -> None:
        self._kube = kube
        self._slot = slot
        self.cluster = MemoryKubeClient()
        """What the API server has told, as `MemoryPods` reads it."""
        self.pods = MemoryPods(self.cluster)
        self.stores: dict[Place, MemoryStore] = {}
        """By namespace and tenant."""
        self.pods_are_ready = True
        self.hangs: set[Place] = set()
        """Tenants whose pods take questions and never answer."""
        self.refused_keys: list[str] = []
        """`namespace/tenant/access key` of each call that was refused."""
        self.served: Counter[str] = Counter()
        """Requests by path."""
        self.changes: list[tuple[str, Manifest]] = []
        """(event type, object) of everything but Secrets' and ConfigMaps' first listing, in order; for checks."""
        self.recording = False
        self._addresses: dict[Place, str] = {}
        self._owners: dict[str, Place] = {}
        """Address → pod."""
        self._answers: dict[tuple[object, ...], bytes] = {}
        self._due: dict[Place, None] = {}
        self._busy: set[Place] = set()
        self._wake = asyncio.Event()
        self._runner: web.AppRunner | None = None

    @classmethod
    @contextlib.asynccontextmanager
    async def running(cls, kubeconfig: Path) -> AsyncIterator[HollowNode]:
        """While the `async with` lasts; an API server that goes away is waited for."""
        holder, slot = _claim_slot()
        with contextlib.closing(holder):
            kube = NodeClient(await load_configuration(str(kubeconfig)))
            async with kube:
                node = cls(kube, slot)
                application = web.Application()
                application.router.add_route("*", "/{path:.*}", node._serve)
                node._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
                await node._runner.setup()
                try:
                    async with asyncio.TaskGroup() as group:
                        tasks = [group.create_task(node._follow(kind)) for kind in _WATCHED]
                        tasks += [group.create_task(node._work()) for _ in range(WORKERS)]
                        yield node
                        for task in tasks:
                            task.cancel()
                finally:
                    await node._runner.cleanup()

    async def make_namespace(self, name: str) -> None:
        """What an administrator does; the node has the client for it."""
        await self._kube.make_namespace(name)

    def touch(self) -> None:
        """Look at everything again: `pods_are_ready` has changed."""
        for kind, namespace, name in list(self.cluster.objects):
            if kind == STATEFUL_SET.kind:
                self._mark((namespace, name))

    # --- what the API server tells
    async def _follow(self, kind: Kind) -> None:
        selector = MANAGER_OF_PODS
        while True:
            try:
                found, version = await self._kube.list_for_watch(kind, None, selector)
                self._replace(kind, found)
                while True:
                    async for event in self._kube.watch(kind, None, selector, version):
                        version = event.manifest["metadata"]["resourceVersion"]
                        if event.type != "BOOKMARK":
                            self._note(kind, event.type, {**event.manifest, **_type_of(kind)})
            except KubeError:
                await asyncio.sleep(RETRY_SECONDS)

    def _replace(self, kind: Kind, found: list[Manifest]) -> None:
        present = {(item["metadata"]["namespace"], item["metadata"]["name"]) for item in found}
        for other, namespace, name in list(self.cluster.objects):
            if other == kind.kind and (namespace, name) not in present:
                self._note(kind, "DELETED", self.cluster.objects[other, namespace, name])
        for item in found:
            self._note(kind, "ADDED", item)

    def _note(self, kind: Kind, event: str, manifest: Manifest) -> None:
        metadata = manifest["metadata"]
        key = (kind.kind, metadata["namespace"], metadata["name"])
        if self.recording:
            self.changes.append((event, manifest))
        if event == "DELETED":
            self.cluster.objects.pop(key, None)
        else:
            self.cluster.objects[key] = manifest
        if kind == STATEFUL_SET:
            self._mark(key[1:])
        elif kind in (POD, CLAIM):
            pool = labels.labels_of(manifest).get(labels.POOL_LABEL, "")
            tenant = labels.labels_of(manifest).get(labels.TENANT_LABEL, "")
            self._mark((key[1], labels.stateful_set_name(tenant, pool)))

    def _mark(self, place: Place) -> None:
        self._due[place] = None
        self._wake.set()

    # --- what a StatefulSet controller and a kubelet do
    async def _work(self) -> None:
        while True:
            place = next((place for place in self._due if place not in self._busy), None)
            if place is None:
                self._wake.clear()
                await self._wake.wait()
                continue
            del self._due[place]
            self._busy.add(place)
            try:
                await self._settle(place)
            except KubeConflict:
                self._mark(place)
            except KubeError:
                self._mark(place)
                await asyncio.sleep(RETRY_SECONDS)
            finally:
                self._busy.discard(place)
                self._wake.set()

    async def _settle(self, place: Place) -> None:
        stateful_set = self.cluster.objects.get((STATEFUL_SET.kind, *place))
        if stateful_set is None or stateful_set["metadata"].get("deletionTimestamp"):
            await self._remove_orphans(place)
            return
        namespace, name = place
        spec = stateful_set["spec"]
        digest = hashlib.sha256(json.dumps(spec["template"], sort_keys=True).encode()).hexdigest()[:10]
        status = {
            "observedGeneration": stateful_set["metadata"]["generation"],
            "updateRevision": f"{name}-{digest}",
            "replicas": spec["replicas"],
        }
        if any((stateful_set.get("status") or {}).get(key) != value for key, value in status.items()):
            await self._kube.patch_status(STATEFUL_SET, namespace, name, status)
        for ordinal in range(spec["replicas"]):
            for template in spec["volumeClaimTemplates"]:
                await self._claim(stateful_set, template, ordinal)
            await self._pod(stateful_set, ordinal, status["updateRevision"])

    async def _claim(self, stateful_set: Manifest, template: Manifest, ordinal: int) -> None:
        metadata = stateful_set["metadata"]
        name = f"{template['metadata']['name']}-{metadata['name']}-{ordinal}"
        known = self.cluster.objects.get((CLAIM.kind, metadata["namespace"], name))
        if known is None:
            own = {**(template["metadata"].get("labels") or {}), **stateful_set["spec"]["selector"]["matchLabels"]}
            known = await self._create(
                {
                    **_type_of(CLAIM),
                    "metadata": {"name": name, "namespace": metadata["namespace"], "labels": own},
                    "spec": template["spec"],
                }
            )
        wanted = {"phase": "Bound", "capacity": {"storage": known["spec"]["resources"]["requests"]["storage"]}}
        if any((known.get("status") or {}).get(key) != value for key, value in wanted.items()):
            await self._kube.patch_status(CLAIM, metadata["namespace"], name, wanted)

    async def _pod(self, stateful_set: Manifest, ordinal: int, revision: str) -> None:
        metadata = stateful_set["metadata"]
        place = (metadata["namespace"], f"{metadata['name']}-{ordinal}")
        known = self.cluster.objects.get((POD.kind, *place))
        if known is not None and known["metadata"].get("deletionTimestamp"):
            await self._kube.remove_pod(known)
            return
        if known is None:
            known = await self._create(_pod_of(stateful_set, place, revision))
        ready = "True" if self.pods_are_ready else "False"
        wanted = {
            "phase": "Running",
            "podIP": await self._address(place),
            "conditions": [{"type": "Ready", "status": ready}],
        }
        if any((known.get("status") or {}).get(key) != value for key, value in wanted.items()):
            await self._kube.patch_status(POD, *place, wanted)

    async def _create(self, manifest: Manifest) -> Manifest:
        """Noted at once, so that the next look does not make it twice."""
        created = await self._kube.create(manifest)
        metadata = created["metadata"]
        self.cluster.objects.setdefault((manifest["kind"], metadata["namespace"], metadata["name"]), created)
        return created

    async def _remove_orphans(self, place: Place) -> None:
        """Pods whose StatefulSet is gone; the garbage collector marks them, the kubelet lets them go."""
        for kind, namespace, name in list(self.cluster.objects):
            if kind == POD.kind and namespace == place[0] and name.startswith(f"{place[1]}-"):
                pod = self.cluster.objects.get((kind, namespace, name))
                if pod is not None and pod["metadata"].get("deletionTimestamp"):
                    await self._kube.remove_pod(pod)

    async def _address(self, place: Place) -> str:
        """The pod's own, and somebody listening there."""
        known = self._addresses.get(place)
        if known is not None:
            return known
        number = len(self._addresses) + 1
        address = f"127.{self._slot}.{number >> 8}.{(number & 255)}"
        self._addresses[place], self._owners[address] = address, place
        assert self._runner is not None
        await web.TCPSite(self._runner, address, names.S3_PORT, backlog=8).start()
        return address

    # --- what a pod answers
    async def _serve(self, request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        place = self._owners.get(request.transport.get_extra_info("sockname")[0])
        pod = self.cluster.objects.get((POD.kind, *place)) if place is not None else None
        if place is None or pod is None:
            return web.Response(status=503)
        tenant = labels.labels_of(pod).get(labels.TENANT_LABEL, "")
        if (place[0], tenant) in self.hangs:
            await asyncio.sleep(3600)
        self.served[request.path] += 1
        if (CONFIG_MAP.kind, place[0], labels.config_map_name(tenant)) not in self.cluster.objects:
            return web.Response(status=503)  # on its way out
        if request.path == names.HEALTH_CLUSTER_PATH:
            (state,) = read_pods([pod], tenant)
            return web.Response(body=self._health(state), content_type="application/json")
        return await self._call_store(request, place[0], tenant)

    def _health(self, state: PodState) -> bytes:
        assert state.manifest is not None
        namespace, tenant = state.manifest["metadata"]["namespace"], state.manifest["metadata"]["labels"]
        name = tenant[labels.TENANT_LABEL]
        seen = tuple(
            (self.cluster.objects.get((kind.kind, namespace, of)) or {}).get("metadata", {}).get("resourceVersion")
            for kind, of in ((CONFIG_MAP, labels.config_map_name(name)), (SECRET, labels.peer_secret_name(name)))
        )
        present = sum(kind == POD.kind and space == namespace for kind, space, _ in self.cluster.objects)
        key = (namespace, state.name, seen, present)
        answer = self._answers.get(key)
        if answer is None:
            if len(self._answers) > 20_000:
                self._answers.clear()
            answer = self._answers[key] = msgspec.json.encode(self.pods._health(state))
        return answer

    async def _call_store(self, request: web.Request, namespace: str, tenant: str) -> web.Response:
        match = _ACCESS_KEY.search(request.headers.get("Authorization", ""))
        access_key = match[1] if match else ""
        if access_key not in self.accepted_root_keys(namespace, tenant):
            self.refused_keys.append(f"{namespace}/{tenant}/{access_key}")
            error = admin.AdminError(code="InvalidAccessKeyId", message="not on record")
            return web.Response(status=403, body=msgspec.json.encode(error))
        store = self.stores.setdefault((namespace, tenant), MemoryStore())
        body = await request.read()
        answer = await _dispatch(store, request.method, request.path, request.query_string, body)
        return web.Response(status=200, body=answer)

    def accepted_root_keys(self, namespace: str, tenant: str) -> set[str]:
        """As the pods read them from the mounted Secret."""
        found = self.cluster.objects.get((SECRET.kind, namespace, labels.peer_secret_name(tenant))) or {}
        data = {key: base64.b64decode(value) for key, value in (found.get("data") or {}).items()}
        if secrets.ACCESS_KEY not in data:
            return set()
        further = decode_further_keys(data[secrets.FURTHER_KEY])
        return {data[secrets.ACCESS_KEY].decode(), *(pair.access_key for pair in further.root)}


async def _dispatch(store: MemoryStore, method: str, path: str, setting: str, body: bytes) -> bytes:
    """The calls that `provision.client` makes."""
    if not path.startswith(names.ADMIN_PREFIX):
        bucket = unquote(path.strip("/"))
        if not bucket:
            listed = "".join(f"<Bucket><Name>{name}</Name></Bucket>" for name in sorted(await store.bucket_names()))
            return f"<R><Buckets>{listed}</Buckets></R>".encode()
        if setting:
            if method == "GET":
                return await store.bucket_setting(bucket, setting) or b""
            await store.put_bucket_setting(bucket, setting, body if method == "PUT" else None)
            return b""
        await (store.create_bucket(bucket) if method == "PUT" else store.delete_bucket(bucket))
        return b""
    collection, _, name = path.removeprefix(names.ADMIN_PREFIX).strip("/").partition("/")
    name = unquote(name)
    if name == "reseal":
        return msgspec.json.encode(await store.reseal_users())
    if collection == "accounts":
        if method == "GET":
            named = await store.account_names()
            return msgspec.json.encode(
                [admin.AccountInfo(name=name, display_name=shown, declared=True) for name, shown in named.items()]
            )
        shown = msgspec.json.decode(body, type=admin.AccountSpec).display_name if method == "PUT" else ""
        await (store.put_account(name, shown) if method == "PUT" else store.delete_account(name))
        return b""
    if method == "GET":
        users = collection == "users"
        return msgspec.json.encode(
            list((await store.list_users()).values()) if users else sorted(await store.policy_names())
        )
    if collection == "policies":
        await (store.put_policy(name, json.loads(body)) if method == "PUT" else store.delete_policy(name))
    elif method == "PUT":
        await store.put_user(name, msgspec.json.decode(body, type=admin.UserSpec))
    else:
        await store.delete_user(name)
    return b""


def _pod_of(stateful_set: Manifest, place: Place, revision: str) -> Manifest:
    template, metadata = stateful_set["spec"]["template"], stateful_set["metadata"]
    reference = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
    }
    return {
        **_type_of(POD),
        "metadata": {
            "name": place[1],
            "namespace": place[0],
            "labels": {**template["metadata"]["labels"], REVISION_LABEL: revision},
            "ownerReferences": [reference],
        },
        # Of a pod's spec the operator reads nothing but the node.
        "spec": {"nodeName": "hollow", "containers": [{"name": "storage", "image": "hollow"}]},
    }


def _type_of(kind: Kind) -> dict[str, str]:
    return {"apiVersion": kind.api_version, "kind": kind.kind}


def _claim_slot() -> tuple[socket.socket, int]:
    for slot in SLOTS:
        holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            holder.bind((f"127.{slot}.0.0", names.S3_PORT))
            holder.listen(1)
        except OSError:
            holder.close()
            continue
        return holder, slot
    raise RuntimeError("no free range of loopback addresses")
