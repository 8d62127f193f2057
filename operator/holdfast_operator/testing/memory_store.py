"""What the rest of the cluster does in a test: pods come up, answer health questions, keep buckets and users."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from holdfast_operator import labels
from holdfast_operator.credentials import KeyPair
from holdfast_operator.kube.port import CONFIG_MAP, POD, SECRET, STATEFUL_SET
from holdfast_operator.observe.health import PodView
from holdfast_operator.observe.pods import REVISION_LABEL, PodState
from holdfast_operator.observe.redundancy import OFFLINE, OK
from holdfast_operator.provision.client import StoreRefused, StoreUnavailable
from holdfast_operator.testing.memory_kube import MemoryKubeClient
from holdfast_server.contract import admin, config, geometry
from holdfast_server.contract.healing import DriveHealing, FillingProgress, HealProgress, SetHealing
from holdfast_server.contract.health import ClusterHealth, DriveHealth, SetHealth


class MemoryStore:
    """`StoreClient` in memory."""

    def __init__(self) -> None:
        self.buckets: dict[str, int] = {}
        """Name → number of objects."""
        self.policies: dict[str, Mapping[str, Any]] = {}
        self.users: dict[str, admin.UserSpec] = {}
        self.calls: list[str] = []
        self.silent = False
        self.refuse_buckets: set[str] = set()

    def connect(self, hosts: Sequence[str], root: KeyPair, region: str) -> MemoryStore:
        """As `StoreFactory`; without hosts nothing answers."""
        self.silent = not hosts
        return self

    async def create_bucket(self, name: str) -> None:
        self._note(f"create_bucket {name}")
        if name in self.refuse_buckets:
            raise StoreRefused("InvalidBucketName", "the name is refused")
        self.buckets.setdefault(name, 0)

    async def delete_bucket(self, name: str) -> None:
        self._note(f"delete_bucket {name}")
        if self.buckets.get(name):
            raise StoreRefused("BucketNotEmpty", "the bucket is not empty")
        self.buckets.pop(name, None)

    async def put_policy(self, name: str, document: Mapping[str, Any]) -> None:
        self._note(f"put_policy {name}")
        self.policies[name] = document

    async def delete_policy(self, name: str) -> None:
        self._note(f"delete_policy {name}")
        self.policies.pop(name, None)

    async def put_user(self, access_key: str, user: admin.UserSpec) -> None:
        self._note(f"put_user {access_key}")
        self.users[access_key] = user

    async def delete_user(self, access_key: str) -> None:
        self._note(f"delete_user {access_key}")
        self.users.pop(access_key, None)

    def _note(self, call: str) -> None:
        if self.silent:
            raise StoreUnavailable("no pod is ready")
        self.calls.append(call)


class MemoryPods:
    """The StatefulSet controller, the kubelet and the pods' health answers, stepped by hand.

    Pods read the ConfigMap as it is at each question, as real ones re-read the mounted file.
    """

    def __init__(self, kube: MemoryKubeClient) -> None:
        self._kube = kube
        self.down: set[str] = set()
        """Names of pods that exist but are not ready and do not answer."""
        self.drive_states: dict[tuple[str, str, int], str] = {}
        """(tenant, pod, volume) → what the pod says of the drive, where it is not `ok`."""
        self.stuck_epochs: dict[str, int] = {}
        """Pods that still work with an older configuration."""
        self.repair_queue_length = 0
        """Of every drive."""
        self.stuck = 0
        """Versions of the first set that need a person."""
        self.full: set[tuple[str, int]] = set()
        """(pod, volume) of drives without room."""
        self.fillings: dict[tuple[str, int], FillingProgress] = {}
        """(pod, volume) → how far the drive is."""
        self.silent = False
        """Pods are ready, and none answers the operator."""

    def settle(self) -> None:
        """Make the pods that the StatefulSets ask for, with the newest revision; restart nothing."""
        for (kind, namespace, name), stateful_set in list(self._kube.objects.items()):
            if kind != STATEFUL_SET.kind:
                continue
            template = stateful_set["spec"]["template"]
            digest = hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:10]
            revision = f"{name}-{digest}"
            stateful_set["status"] = {
                "observedGeneration": stateful_set["metadata"]["generation"],
                "updateRevision": revision,
            }
            for ordinal in range(stateful_set["spec"]["replicas"]):
                self._make_pod(namespace, f"{name}-{ordinal}", ordinal, template, revision, stateful_set)

    def _make_pod(self, namespace: str, name: str, ordinal: int, template: Any, revision: str, owner: Any) -> None:
        existing = self._kube.objects.get((POD.kind, namespace, name))
        if existing is None:
            own_labels = {**template["metadata"]["labels"], REVISION_LABEL: revision}
            reference = {"kind": "StatefulSet", "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"]}
            existing = self._kube.put(
                {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "metadata": {
                        "name": name,
                        "namespace": namespace,
                        "labels": own_labels,
                        "ownerReferences": [reference],
                    },
                }
            )
        ready = "False" if name in self.down else "True"
        self._kube.objects[POD.kind, namespace, name]["status"] = {
            "podIP": f"127.77.0.{ordinal + 1}",
            "conditions": [{"type": "Ready", "status": ready}],
        }

    async def ask_all(self, pods: Iterable[PodState]) -> tuple[PodView, ...]:
        answering = [pod for pod in pods if pod.name not in self.down and not self.silent]
        return tuple(PodView(pod.pool, pod.ordinal, self._health(pod)) for pod in answering)

    async def bears_absence(self, pod: PodState) -> bool:
        health = self._health(pod)
        return health.healthy

    def _health(self, pod: PodState) -> ClusterHealth:
        manifest = pod.manifest or {}
        namespace, tenant = manifest["metadata"]["namespace"], labels.labels_of(manifest)[labels.TENANT_LABEL]
        document = self._kube.object(CONFIG_MAP, labels.config_map_name(tenant), namespace)["data"]["config.yaml"]
        assert (SECRET.kind, namespace, labels.peer_secret_name(tenant)) in self._kube.objects
        served = config.from_builtins(yaml.safe_load(document))
        drives, sets = [], []
        for pool in served.pools:
            for index, slots in enumerate(
                geometry.erasure_sets(pool.servers, pool.volumes_per_server, pool.erasure.set_size)
            ):
                members = [self._drive(namespace, tenant, pool, index, at, slot) for at, slot in enumerate(slots)]
                drives += members
                quorums = geometry.quorums(pool.erasure.set_size, pool.erasure.parity)
                online = sum(member.state in (OK, "healing") for member in members)
                sets.append(
                    SetHealth(
                        pool=pool.name,
                        index=index,
                        set_size=quorums.set_size,
                        parity=quorums.parity_shards,
                        write_quorum=quorums.write_quorum,
                        online=online,
                        healing=0,
                        writable=online >= quorums.write_quorum,
                        readable=online >= quorums.data_shards,
                    )
                )
        return ClusterHealth(
            healthy=all(view.writable for view in sets),
            epoch=self.stuck_epochs.get(pod.name, served.epoch),
            sets=sets,
            drives=drives,
            repair_queue_length=self.repair_queue_length,
            healing=self._healing(pod, drives),
        )

    def _healing(self, pod: PodState, drives: Sequence[DriveHealth]) -> HealProgress:
        own = [drive for drive in drives if (drive.pool, drive.ordinal) == (pod.pool, pod.ordinal)]
        return HealProgress(
            drives=[
                DriveHealing(
                    pool=drive.pool,
                    set_index=drive.set_index,
                    position=drive.position,
                    volume=drive.volume,
                    state=drive.state,
                    queue_length=self.repair_queue_length,
                    filling=self.fillings.get((pod.name, drive.volume)),
                )
                for drive in own
            ],
            sets=[SetHealing(pool=pod.pool, index=0, stuck=self.stuck)],
        )

    def _drive(
        self,
        namespace: str,
        tenant: str,
        pool: config.PoolConfig,
        index: int,
        position: int,
        slot: geometry.DriveSlot,
    ) -> DriveHealth:
        name = f"{pool.pod_name_prefix}{slot.ordinal}"
        exists = (POD.kind, namespace, name) in self._kube.objects
        state = OFFLINE if name in self.down or not exists else OK
        return DriveHealth(
            pool=pool.name,
            set_index=index,
            position=position,
            ordinal=slot.ordinal,
            volume=slot.volume,
            state=state if state == OFFLINE else self.drive_states.get((tenant, name, slot.volume), OK),
            total_bytes=10 * 1024**3,
            used_bytes=1024**3,
            available_bytes=9 * 1024**3,
            full=(name, slot.volume) in self.full,
        )
