"""Who works: of several operators the one that holds a Lease (`coordination.k8s.io/v1`), the others stand by.

The usual protocol of Kubernetes' own controllers.  The holder renews; one that stands by takes the Lease over when it
has not seen it change for `DURATION_SECONDS` *by its own clock*, so that clocks need not agree; every write names the
version it was decided on, so that of two who take it at once one wins.

Invariants: whoever works stops `DEADLINE_SECONDS` after the *beginning* of its last renewal that succeeded, which is
earlier than anybody else may begin; a process that was stopped for long (SIGSTOP, a frozen machine) finds `held` false
before its next write.  What such a process had sent before it was stopped may still arrive: therefore what must not go
back (keys, ledger, the pods' configuration) is written with a precondition, too (`apply`).

Bounds, with the defaults: another operator works at most `DURATION_SECONDS` + 2 × `RETRY_SECONDS` + a call's time after
the holder died (about 21 s), and `RETRY_SECONDS` after one that was told to end.  While nobody works the stores serve.

Not here: what is done while the Lease is held.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

from holdfast_operator.kube.errors import KubeConflict, KubeError, KubeForbidden
from holdfast_operator.kube.port import LEASE, KubeClient, Manifest

DURATION_SECONDS = 15
DEADLINE_SECONDS = 10.0
RETRY_SECONDS = 3.0
CALL_SECONDS = 4.0
"""A renewal that takes longer is tried again: two of them fit into what is left."""
RELEASE_SECONDS = 1.0
"""How long the end of the process may be held up by saying so."""

logger = logging.getLogger(__name__)


class _LeaseLost(Exception):
    """Ends the work."""


class Lease:
    """One candidate.  `held` may be asked at any time, also by code that runs elsewhere in the loop."""

    def __init__(
        self,
        kube: KubeClient,
        namespace: str,
        name: str,
        identity: str,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
    ) -> None:
        self._kube, self._namespace, self._name, self._identity = kube, namespace, name, identity
        self._now, self._monotonic = now, monotonic
        self._held_until = float("-inf")
        self._known: Manifest | None = None
        """The Lease as of our last write, while we hold it."""
        self._seen: tuple[object, float] | None = None
        """Standing by: what the Lease said last, and since when it has."""

    @property
    def held(self) -> bool:
        """Whether nobody else can be working now."""
        return self._monotonic() < self._held_until

    async def work_while_held(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Until cancelled: stand by, run `work` while the Lease is ours, cancel it when it is lost, stand by again.

        Raises what `work` raises.  Cancelled, it gives the Lease back.
        """
        while True:
            await self._acquire()
            logger.info("holding the lease", extra={"fields": self._fields})
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._keep())
                    # Waited for here, not by the group: until Python 3.13 a group whose task fails while the group
                    # itself waits leaves this task with a cancellation counted that nobody asked for, and until 3.11.3
                    # each later time limit that runs out then ends the task, as if it had been cancelled.
                    await work()
            except* _LeaseLost:
                logger.warning("the lease is lost; standing by", extra={"fields": self._fields})
            finally:
                await self._release()

    @property
    def _fields(self) -> dict[str, Any]:
        return {"lease": f"{self._namespace}/{self._name}", "identity": self._identity}

    # --- standing by
    async def _acquire(self) -> None:
        told = ""
        while True:
            began = self._monotonic()
            try:
                async with asyncio.timeout(CALL_SECONDS):
                    holder = await self._try()
            except (KubeError, TimeoutError) as error:
                holder = "nobody knows whom"
                trouble = f"the lease cannot be had: {str(error) or 'no answer'}"
                if isinstance(error, KubeForbidden):
                    trouble += "; the operator needs get, create and patch on it"
                logger.warning(trouble, extra={"fields": self._fields})
            if not holder:
                self._held_until = began + DEADLINE_SECONDS
                return
            if holder != told:
                logger.info("standing by", extra={"fields": {**self._fields, "holder": holder}})
                told = holder
            await asyncio.sleep(RETRY_SECONDS)

    async def _try(self) -> str:
        """Empty if the Lease is ours now, else who has it.  Raises KubeError."""
        found = await self._kube.get(LEASE, self._namespace, self._name)
        if found is None:
            with contextlib.suppress(KubeConflict):
                self._known = await self._kube.create(self._manifest())
                return ""
            return "another who was first"
        spec = found.get("spec") or {}
        holder = str(spec.get("holderIdentity") or "")
        # Our own, after an API server that was away for long, is ours still: identities are never used twice.
        if holder not in ("", self._identity) and not self._has_expired(found, spec):
            return holder
        patch = self._claim(found, int(spec.get("leaseTransitions") or 0) + 1)
        try:
            self._known = await self._kube.merge(found, patch)
        except KubeConflict:
            return "another who was faster"
        return ""

    def _has_expired(self, found: Manifest, spec: Manifest) -> bool:
        """By our own clock, from when we first saw it as it is."""
        state, at = found["metadata"].get("resourceVersion"), self._monotonic()
        if self._seen is None or self._seen[0] != state:
            self._seen = (state, at)
        return at - self._seen[1] >= float(spec.get("leaseDurationSeconds") or DURATION_SECONDS)

    # --- holding
    async def _keep(self) -> None:
        """Renews; raises _LeaseLost when it is somebody else's, or can no longer be said to be ours."""
        while self.held:
            await asyncio.sleep(min(RETRY_SECONDS, max(0.0, self._held_until - self._monotonic())))
            began = self._monotonic()
            try:
                async with asyncio.timeout(min(CALL_SECONDS, max(0.1, self._held_until - began))):
                    if not await self._renew():
                        break
            except (KubeError, TimeoutError) as error:
                logger.warning(
                    "the lease is not renewed: %s", str(error) or "no answer", extra={"fields": self._fields}
                )
                continue
            self._held_until = began + DEADLINE_SECONDS
        self._held_until = float("-inf")
        raise _LeaseLost

    async def _renew(self) -> bool:
        """False if it is somebody else's.  Raises KubeError."""
        assert self._known is not None
        try:
            self._known = await self._kube.merge(self._known, self._claim(self._known, None))
        except KubeConflict:
            # Written by somebody: perhaps by ourselves, where an answer was lost.
            found = await self._kube.get(LEASE, self._namespace, self._name)
            if found is None or (found.get("spec") or {}).get("holderIdentity") != self._identity:
                return False
            self._known = await self._kube.merge(found, self._claim(found, None))
        return True

    async def _release(self) -> None:
        """So that another need not wait; best effort."""
        was_held, known = self.held, self._known
        self._held_until, self._known, self._seen = float("-inf"), None, None
        if not was_held or known is None:
            return
        patch = {"metadata": _version_of(known), "spec": {"holderIdentity": ""}}
        with contextlib.suppress(KubeError, TimeoutError):
            async with asyncio.timeout(RELEASE_SECONDS):
                await self._kube.merge(known, patch)

    # --- what is written
    def _manifest(self) -> Manifest:
        manifest = {"apiVersion": LEASE.api_version, "kind": LEASE.kind}
        metadata = {"name": self._name, "namespace": self._namespace}
        return {**manifest, "metadata": metadata, "spec": self._spec(0)}

    def _claim(self, found: Manifest, transitions: int | None) -> Manifest:
        spec = self._spec(transitions)
        if transitions is None:
            del spec["acquireTime"], spec["leaseTransitions"]
        return {"metadata": _version_of(found), "spec": spec}

    def _spec(self, transitions: int | None) -> dict[str, Any]:
        now = self._now().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": DURATION_SECONDS,
            "acquireTime": now,
            "renewTime": now,
            "leaseTransitions": transitions,
        }


def _version_of(found: Manifest) -> dict[str, str]:
    return {"resourceVersion": found["metadata"]["resourceVersion"]}
