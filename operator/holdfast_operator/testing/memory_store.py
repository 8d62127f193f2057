"""What the rest of the cluster does in a test: pods come up, answer health questions, keep buckets and users."""

from __future__ import annotations

import base64
import functools
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
from holdfast_operator.observe.trust import PLAIN, Reach
from holdfast_operator.provision.client import StoreFailed, StoreRefused, StoreUnavailable
from holdfast_operator.testing.memory_kube import MemoryKubeClient
from holdfast_server.contract import admin, config, geometry
from holdfast_server.contract.encryption_keys import decode_ring, fingerprint
from holdfast_server.contract.healing import DriveHealing, FillingProgress, HealProgress, SetHealing
from holdfast_server.contract.health import ClusterHealth, DriveHealth, EncryptionHealth, SetHealth, TlsHealth
from holdfast_server.contract.keys import decode_further_keys


class MemoryStore:
    """`StoreClient` in memory."""

    def __init__(self) -> None:
        self.buckets: dict[str, int] = {}
        """Name → number of objects."""
        self.settings: dict[tuple[str, str], bytes] = {}
        """(Bucket, sub-resource) → document."""
        self.policies: dict[str, Mapping[str, Any]] = {}
        self.accounts: dict[str, str] = {}
        """Name → display name."""
        self.users: dict[str, admin.UserSpec] = {}
        self.calls: list[str] = []
        self.silent = False
        self.refuse_buckets: set[str] = set()
        self.fail_buckets: set[str] = set()
        """Of which every pod says 5xx."""
        self.unseen_settings: set[tuple[str, str]] = set()
        """(Bucket, sub-resource) that root may not look at."""
        self.to_reseal = 0
        """Users whose secrets are sealed with a former peer key."""
        self.looks = 0
        """Questions that were answered."""
        self.connected_with: KeyPair | None = None

    def connect(self, hosts: Sequence[str], root: KeyPair, region: str, reach: Reach = PLAIN) -> MemoryStore:
        """As `StoreFactory`; without hosts nothing answers."""
        self.silent = not hosts
        self.connected_with = root
        return self

    async def create_bucket(self, name: str, of_any_account: bool = False) -> None:
        self._note(f"create_bucket {name}")
        if name in self.refuse_buckets:
            raise StoreRefused("InvalidBucketName", "the name is refused")
        if name in self.fail_buckets:
            raise StoreFailed("503 SlowDown")
        self.buckets.setdefault(name, 0)

    async def delete_bucket(self, name: str) -> None:
        self._note(f"delete_bucket {name}")
        if self.buckets.get(name):
            raise StoreRefused("BucketNotEmpty", "the bucket is not empty")
        self.buckets.pop(name, None)

    async def bucket_setting(self, name: str, setting: str) -> bytes | None:
        self._look()
        if (name, setting) in self.unseen_settings:
            raise StoreRefused("AccessDenied", "Access Denied.")
        return self.settings.get((name, setting))

    async def put_bucket_setting(self, name: str, setting: str, document: bytes | None) -> None:
        self._note(f"put_bucket_setting {name} {setting}")
        if document is None:
            self.settings.pop((name, setting), None)
        else:
            self.settings[name, setting] = document

    async def put_policy(self, name: str, document: Mapping[str, Any]) -> None:
        self._note(f"put_policy {name}")
        self.policies[name] = document

    async def delete_policy(self, name: str) -> None:
        self._note(f"delete_policy {name}")
        self.policies.pop(name, None)

    async def put_account(self, name: str, display_name: str) -> None:
        self._note(f"put_account {name}")
        self.accounts[name] = display_name or name

    async def delete_account(self, name: str) -> None:
        self._note(f"delete_account {name}")
        self.accounts.pop(name, None)

    async def account_names(self) -> dict[str, str]:
        self._look()
        return dict(self.accounts)

    async def put_user(self, access_key: str, user: admin.UserSpec) -> None:
        self._note(f"put_user {access_key}")
        self.users[access_key] = user

    async def delete_user(self, access_key: str) -> None:
        self._note(f"delete_user {access_key}")
        self.users.pop(access_key, None)

    async def reseal_users(self) -> admin.Resealed:
        self._note("reseal_users")
        done, self.to_reseal = self.to_reseal, 0
        return admin.Resealed(done=done, left=0, unreadable=0)

    async def bucket_names(self) -> frozenset[str]:
        self._look()
        return frozenset(self.buckets)

    async def policy_names(self) -> frozenset[str]:
        self._look()
        return frozenset(self.policies)

    async def list_users(self) -> dict[str, admin.UserInfo]:
        self._look()
        return {
            key: admin.UserInfo(
                access_key=key,
                name=user.name,
                policies=user.policies,
                enabled=user.enabled,
                account=user.account,
                account_root=user.account_root,
            )
            for key, user in self.users.items()
        }

    def _look(self) -> None:
        """Reading is no call that changes anything."""
        if self.silent:
            raise StoreUnavailable("no pod is ready")
        self.looks += 1

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
        self.unready: dict[str, str] = {}
        """Pods that answer and are not ready by the kubelet's word, each with since when."""
        self.drive_states: dict[tuple[str, str, int], str] = {}
        """(tenant, pod, volume) → what the pod says of the drive, where it is not `ok`."""
        self.reach = PLAIN
        """How the operator has asked last."""
        self.stuck_tls: dict[str, str] = {}
        """Pods that are at another stage of TLS than they were told to be."""
        self.stuck_epochs: dict[str, int] = {}
        self.unaware_of: dict[str, str] = {}
        """Pod → a pool that its configuration does not name yet."""
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
        self.key_revisions: dict[str, int] = {}
        """Pods that still work with the keys of an older revision."""
        self.without_new_keys: set[str] = set()
        """Pods whose kubelet has not refreshed the mounted encryption keys."""
        self.of_keys: dict[str, str] = {}
        """What pods say of their files of encryption keys."""
        self._mounted_revision = 0
        self._mounted_keys: list[str] = []

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
        ready = "False" if name in self.down or name in self.unready else "True"
        since = {"lastTransitionTime": self.unready[name]} if name in self.unready else {}
        self._kube.objects[POD.kind, namespace, name]["status"] = {
            "podIP": f"127.77.0.{ordinal + 1}",
            "conditions": [{"type": "Ready", "status": ready, **since}],
        }

    async def ask_all(self, pods: Iterable[PodState], reach: Reach = PLAIN) -> tuple[PodView, ...]:
        self.reach = reach
        answering = [pod for pod in pods if pod.name not in self.down and not self.silent]
        return tuple(PodView(pod.pool, pod.ordinal, self._health(pod)) for pod in answering)

    async def bears_absence(self, pod: PodState, reach: Reach = PLAIN) -> bool:
        health = self._health(pod)
        return health.healthy

    def _health(self, pod: PodState) -> ClusterHealth:
        manifest = pod.manifest or {}
        namespace, tenant = manifest["metadata"]["namespace"], labels.labels_of(manifest)[labels.TENANT_LABEL]
        document = self._kube.object(CONFIG_MAP, labels.config_map_name(tenant), namespace)["data"]["config.yaml"]
        served = _served(document)
        drives, sets = [], []
        for pool in (one for one in served.pools if one.name != self.unaware_of.get(pod.name)):
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
        used = {pool.name for pool in served.pools if pool.readable_from_epoch <= served.epoch}
        stage = self.stuck_tls.get(pod.name, served.tls.stage if served.tls is not None else "Off")
        return ClusterHealth(
            tls=TlsHealth(stage=stage),
            healthy=all(view.writable for view in sets if view.pool in used),
            epoch=self.stuck_epochs.get(pod.name, served.epoch),
            sets=sets,
            drives=drives,
            repair_queue_length=self.repair_queue_length,
            healing=self._healing(pod, drives),
            key_revision=self.key_revisions.get(pod.name, self._key_revision(namespace, tenant)),
            encryption=EncryptionHealth(
                fingerprints=self._encryption_keys(pod.name, namespace, tenant),
                message=self.of_keys.get(pod.name, ""),
            ),
        )

    def _encryption_keys(self, pod: str, namespace: str, tenant: str) -> list[str]:
        """Running pods keep what a Secret had that is gone."""
        secret = self._kube.objects.get((SECRET.kind, namespace, labels.encryption_secret_name(tenant)))
        if secret is not None:
            files = {entry: base64.b64decode(text) for entry, text in secret["data"].items()}
            self._mounted_keys = sorted(fingerprint(entry, key).hex() for entry, key in decode_ring(files).items())
        return self._mounted_keys[:-1] if pod in self.without_new_keys else self._mounted_keys

    def _key_revision(self, namespace: str, tenant: str) -> int:
        """A Secret that is gone, or lacks what is mounted, leaves running pods with what they had."""
        secret = self._kube.objects.get((SECRET.kind, namespace, labels.peer_secret_name(tenant))) or {}
        keys = (secret.get("data") or {}).get("furtherKeys.json")
        if keys is not None:
            self._mounted_revision = decode_further_keys(base64.b64decode(keys)).revision
        return self._mounted_revision

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


@functools.lru_cache(maxsize=256)
def _served(document: str) -> config.ServerConfig:
    """What all pods of a tenant read alike, each time they are asked: reading it was most of what a test took."""
    return config.from_builtins(yaml.safe_load(document))
