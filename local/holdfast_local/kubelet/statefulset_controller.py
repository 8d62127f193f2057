"""Carries out `statefulset_plan` through the API.  Level-triggered: every pass looks at everything anew."""

from __future__ import annotations

from holdfast_local.kubelet.client import CLAIMS, PODS, STATEFUL_SETS, ApiClient, ApiError, Resource
from holdfast_local.kubelet.informer import Informer, ReconcileQueue
from holdfast_local.kubelet.manifests import Key, Manifest, is_owned_by, is_terminating, owner_reference, uid_of
from holdfast_local.kubelet.statefulset_plan import plan_statefulset, pods_to_adopt


class StatefulSetController:
    """Reconciles StatefulSets from shared informers."""

    def __init__(self, client: ApiClient, sets: Informer, pods: Informer, claims: Informer) -> None:
        self._client = client
        self._sets, self._pods, self._claims = sets, pods, claims
        self._queue = ReconcileQueue("statefulset", self.reconcile)
        sets.on_change(lambda key, _: self._queue.mark(key))
        pods.on_change(self._pod_changed)
        claims.on_change(self._claim_changed)

    async def run(self) -> None:
        for informer in (self._sets, self._pods, self._claims):
            await informer.synced.wait()
        await self._queue.run()

    def _claim_changed(self, key: Key, claim: Manifest | None) -> None:
        if claim is None:  # a pod may wait for it
            self._mark_namespace(key[0])

    def _mark_namespace(self, namespace: str) -> None:
        for set_key in self._sets.items:
            if set_key[0] == namespace:
                self._queue.mark(set_key)

    def _pod_changed(self, key: Key, pod: Manifest | None) -> None:
        if pod is None:  # its owner is not known any more: look at every set of the namespace
            self._mark_namespace(key[0])
            return
        for reference in pod["metadata"].get("ownerReferences") or []:
            if reference.get("kind") == "StatefulSet":
                self._queue.mark((key[0], reference["name"]))

    async def reconcile(self, key: Key) -> None:
        """One pass over one set."""
        statefulset = self._sets.items.get(key)
        if statefulset is None:
            return
        namespace = key[0]
        present = [pod for pod_key, pod in self._pods.items.items() if pod_key[0] == namespace]
        if not is_terminating(statefulset) and (orphans := pods_to_adopt(statefulset, present)):
            await self._adopt(statefulset, orphans)
            return  # the pods' change brings the next pass
        pods = [pod for pod in present if is_owned_by(pod, uid_of(statefulset))]
        claims = {name: claim for (space, name), claim in self._claims.items.items() if space == namespace}
        plan = plan_statefulset(statefulset, pods, claims)
        for claim, owners in plan.own_claims:
            patch = {"metadata": {"uid": uid_of(claim), "ownerReferences": owners}}
            await self._client.merge(CLAIMS, namespace, claim["metadata"]["name"], patch)
        for claim in plan.create_claims:
            await self._create_if_absent(CLAIMS, claim)
        for pod in plan.create_pods:
            await self._create_if_absent(PODS, pod)
        for pod in plan.delete_pods:
            await self._client.delete(PODS, namespace, pod["metadata"]["name"], uid_of(pod))
        previous = statefulset.get("status") or {}
        if any(previous.get(name) != value for name, value in plan.status.items()):
            await self._client.merge(STATEFUL_SETS, *key, {"status": plan.status}, "status")

    async def _adopt(self, statefulset: Manifest, orphans: list[Manifest]) -> None:
        reference = owner_reference(statefulset, "apps/v1", "StatefulSet")
        for pod in orphans:
            owners = [*(pod["metadata"].get("ownerReferences") or []), reference]
            patch = {"metadata": {"uid": uid_of(pod), "ownerReferences": owners}}
            await self._client.merge(PODS, pod["metadata"]["namespace"], pod["metadata"]["name"], patch)

    async def _create_if_absent(self, resource: Resource, manifest: Manifest) -> None:
        try:
            await self._client.create(resource, manifest)
        except ApiError as error:
            if error.status != 409:  # the informer lags: the next event brings the object
                raise
