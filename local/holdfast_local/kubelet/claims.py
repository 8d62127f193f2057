"""PersistentVolumeClaims as folders: bound at once, protected while in use, removed with the claim.

A claim's folder is `<volumes>/<namespace>/<claim>`.  The finalizer `kubernetes.io/pvc-protection` keeps a
deleted claim until no pod uses it and the folder is gone.  Capacity is what was asked for; nothing enforces it.

A claim of a StorageClass with the provisioner `kubernetes.io/no-provisioner` waits for a volume that somebody makes by
hand, as on a real cluster; here nobody can, so that it waits for ever.  Every other class stands for folders, whether
there is such a StorageClass or not.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from holdfast_local.kubelet.client import CLAIMS, ApiClient
from holdfast_local.kubelet.events import EventRecorder
from holdfast_local.kubelet.informer import Informer, ReconcileQueue
from holdfast_local.kubelet.manifests import Key, Manifest, is_terminating, uid_of
from holdfast_local.kubelet.volumes import claim_folder, claim_names

PROTECTION_FINALIZER = "kubernetes.io/pvc-protection"
NO_PROVISIONER = "kubernetes.io/no-provisioner"


def waits_for_a_volume(claim: Mapping[str, Any], classes: Informer) -> bool:
    """Whether the claim cannot be bound."""
    if (claim.get("status") or {}).get("phase") == "Bound":
        return False
    found = classes.items.get(("", (claim.get("spec") or {}).get("storageClassName") or ""))
    return found is not None and found.get("provisioner") == NO_PROVISIONER


class ClaimController:
    """Binds, grows and removes claims."""

    def __init__(
        self,
        client: ApiClient,
        claims: Informer,
        pods: Informer,
        classes: Informer,
        events: EventRecorder,
        volumes_directory: Path,
    ) -> None:
        self._client = client
        self._claims, self._pods, self._classes = claims, pods, classes
        self._events = events
        self._volumes_directory = volumes_directory
        self._queue = ReconcileQueue("persistentvolumeclaim", self.reconcile)
        claims.on_change(self._claim_changed)
        pods.on_change(self._pod_changed)
        classes.on_change(self._class_changed)

    async def run(self) -> None:
        await self._claims.synced.wait()
        await self._pods.synced.wait()
        await self._classes.synced.wait()
        await self._queue.run()

    def _claim_changed(self, key: Key, claim: Manifest | None) -> None:
        self._queue.mark(key)

    def _pod_changed(self, key: Key, pod: Manifest | None) -> None:
        if pod is None or not pod["spec"].get("nodeName"):
            for claim_key, claim in self._claims.items.items():
                if is_terminating(claim):
                    self._queue.mark(claim_key)

    def _class_changed(self, key: Key, _: Manifest | None) -> None:
        for claim_key, claim in self._claims.items.items():
            if claim["spec"].get("storageClassName") == key[1]:
                self._queue.mark(claim_key)

    async def reconcile(self, key: Key) -> None:
        """One pass over one claim."""
        claim = self._claims.items.get(key)
        if claim is None:
            return
        finalizers = claim["metadata"].get("finalizers") or []
        if is_terminating(claim):
            if PROTECTION_FINALIZER in finalizers and not self._in_use(key):
                await asyncio.to_thread(self._remove_folder, key)
                left = [name for name in finalizers if name != PROTECTION_FINALIZER]
                await self._client.merge(CLAIMS, *key, {"metadata": {"finalizers": left}})
            return
        if PROTECTION_FINALIZER not in finalizers:
            patch = {"metadata": {"finalizers": [*finalizers, PROTECTION_FINALIZER]}}
            claim = await self._client.merge(CLAIMS, *key, patch)
        if waits_for_a_volume(claim, self._classes):
            message = "no persistent volumes available for this claim, and its storage class provisions none"
            self._events.record("PersistentVolumeClaim", claim, "FailedBinding", message, warning=True)
            return
        await self._bind(key, claim)

    async def _bind(self, key: Key, claim: Manifest) -> None:
        spec = claim["spec"]
        if not spec.get("volumeName"):
            # As after dynamic provisioning; there is no such PersistentVolume here, but only a claim that names one may
            # grow.
            await self._client.merge(CLAIMS, *key, {"spec": {"volumeName": f"pvc-{uid_of(claim)}"}})
        wanted = {
            "phase": "Bound",
            "accessModes": spec.get("accessModes") or ["ReadWriteOnce"],
            "capacity": {"storage": spec["resources"]["requests"]["storage"]},
        }
        status = claim.get("status") or {}
        if any(status.get(name) != value for name, value in wanted.items()):
            claim_folder(self._volumes_directory, *key)
            await self._client.merge(CLAIMS, *key, {"status": wanted}, "status")

    def _in_use(self, key: Key) -> bool:
        namespace, name = key
        # A pod without a node has not begun to use it, and waits until it is gone and made anew.
        return any(
            pod_key[0] == namespace and pod["spec"].get("nodeName") and name in claim_names(pod)
            for pod_key, pod in self._pods.items.items()
        )

    def _remove_folder(self, key: Key) -> None:
        shutil.rmtree(self._volumes_directory / key[0] / key[1], ignore_errors=True)
