"""Waiting for Tenants: what their conditions say, as it changes, until Ready or a verdict.

Pure parts (`verdict`, `describe`) are apart from the polling.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from holdfast_local.kubelet.client import PODS, ApiClient, ClientError, Resource
from holdfast_local.kubelet.log_file import tail
from holdfast_local.kubelet.manifests import LOG_PATH_ANNOTATION, Key, Manifest, is_ready, key_of
from holdfast_local.run.failure import RunFailed
from holdfast_local.run.progress import Progress
from holdfast_local.run.serving import is_serving

POLL_SECONDS = 0.25
STRAGGLER_SECONDS = 10.0
"""How long a pod that is still starting is waited for when the Tenant serves without it."""
LOG_LINES_SHOWN = 15
LOGS_SHOWN = 2
"""Pods that fail tend to fail alike."""
MESSAGE_LIMIT = 300
ORDER = ("SpecValid", "CredentialsReady", "PoolsReady", "BucketsReady", "UsersReady", "TLSReady", "Ready")
"""The order in which conditions come true; the first that is not is the one to show."""
_BETWEEN_FAULTS = re.compile(r"; (?=spec[^ ]*: )")


class Verdict(NamedTuple):
    ready: bool
    refused: str
    """Why the operator refuses the spec; empty while it does not."""


def conditions_of(tenant: Mapping[str, Any]) -> dict[str, Manifest]:
    conditions = (tenant.get("status") or {}).get("conditions") or []
    return {condition["type"]: condition for condition in conditions}


def verdict(tenant: Mapping[str, Any]) -> Verdict:
    """Ready, refused, or neither yet; a status about an older generation says nothing."""
    status = tenant.get("status") or {}
    if status.get("observedGeneration") != tenant["metadata"].get("generation"):
        return Verdict(False, "")
    conditions = conditions_of(tenant)
    valid = conditions.get("SpecValid", {})
    if valid.get("status") == "False":
        return Verdict(False, valid.get("message") or valid.get("reason") or "the spec is not valid")
    return Verdict(conditions.get("Ready", {}).get("status") == "True", "")


def one_per_line(refused: str) -> str:
    """The faults of a spec: the operator tells them in one line, as conditions are; one alone stays in it."""
    faults = _BETWEEN_FAULTS.split(refused)
    return refused if len(faults) == 1 else "".join(f"\n  {fault}" for fault in faults)


def describe(tenant: Mapping[str, Any], pods: Sequence[Mapping[str, Any]]) -> str:
    """One line: pods that are ready, and the first condition that is not true."""
    ready = sum(is_ready(pod) for pod in pods)
    conditions = conditions_of(tenant)
    if pods:
        parts = [f"pods {ready}/{len(pods)}"]
    else:
        parts = ["no pods yet" if conditions else "the operator has not answered yet"]
    for name in ORDER:
        condition = conditions.get(name)
        if condition is not None and condition.get("status") != "True":
            text = condition.get("message") or condition.get("reason") or ""
            parts.append(f"{name}: {text}" if text else name)
            break
    return " · ".join(parts)


class TenantWatch:
    """Follows the Tenants of one run."""

    def __init__(self, client: ApiClient, resource: Resource, keys: Sequence[Key], progress: Progress) -> None:
        self._client, self._resource, self._keys, self._progress = client, resource, keys, progress

    async def until_ready(self, timeout_seconds: float) -> list[Manifest]:
        """The Tenants, all Ready; raises RunFailed when one is refused or time runs out."""
        tenants = []
        deadline = time.monotonic() + timeout_seconds
        for key in self._keys:
            title = f"Tenant {'/'.join(key)}"
            async with self._progress.step(title):
                tenants.append(await self._one(key, deadline, timeout_seconds))
        return tenants

    async def _one(self, key: Key, deadline: float, timeout_seconds: float) -> Manifest:
        served_since = None
        while True:
            try:
                tenant = await self._client.get(self._resource, *key)
                pods = await self.pods_of(key)
            except ClientError as error:
                self._progress.detail(str(error))
            else:
                if tenant is None:
                    raise RunFailed(f"Tenant {'/'.join(key)} was deleted before it became ready")
                outcome = verdict(tenant)
                if outcome.refused:
                    raise RunFailed(f"Tenant {'/'.join(key)} is not valid: {one_per_line(outcome.refused)}")
                self._progress.detail(describe(tenant, pods))
                if outcome.ready and await is_serving(self._client, key):
                    served_since = served_since or time.monotonic()
                    everyone = all(is_ready(pod) for pod in pods)
                    if everyone or time.monotonic() - served_since > STRAGGLER_SECONDS:
                        return tenant
            if time.monotonic() > deadline:
                raise RunFailed(await self._explain(key, timeout_seconds))
            await asyncio.sleep(POLL_SECONDS)

    async def others(self) -> list[str]:
        """The Tenants of the cluster that are not waited for, as namespace/name."""
        answer = await self._client.request("GET", self._resource.path())
        return sorted("/".join(key) for key in {key_of(item) for item in answer.get("items") or []} - {*self._keys})

    async def pods_of(self, key: Key) -> list[Manifest]:
        parameters = {"labelSelector": f"holdfast.dev/tenant={key[1]}"}
        answer = await self._client.request("GET", PODS.path(key[0]), parameters=parameters)
        return list(answer.get("items") or [])

    async def _explain(self, key: Key, timeout_seconds: float) -> str:
        lines = [f"Tenant {'/'.join(key)} was not ready after {timeout_seconds:g} s"]
        try:
            tenant = await self._client.get(self._resource, *key) or {"metadata": {}}
            pods = await self.pods_of(key)
        except ClientError as error:
            return f"{lines[0]}; its state cannot be read: {error}"
        for name, condition in conditions_of(tenant).items():
            text = f"{condition.get('reason', '')} {condition.get('message', '')}".strip()
            lines.append(f"  {name}={condition.get('status')} {text[:MESSAGE_LIMIT]}".rstrip())
        logs_shown = 0
        for pod in pods:
            lines += _pod_lines(pod, with_log=logs_shown < LOGS_SHOWN)
            logs_shown += not is_ready(pod)
        return "\n".join(lines)


def _pod_lines(pod: Mapping[str, Any], with_log: bool) -> list[str]:
    metadata = pod["metadata"]
    states = [c.get("state") or {} for c in (pod.get("status") or {}).get("containerStatuses") or []]
    described = ", ".join(
        f"{kind}{' ' + str(value.get('reason')) if value.get('reason') else ''}"
        for state in states
        for kind, value in state.items()
    )
    lines = [f"  pod {metadata['name']}: {'ready' if is_ready(pod) else 'not ready'} ({described or 'not started'})"]
    log_path = (metadata.get("annotations") or {}).get(LOG_PATH_ANNOTATION)
    if log_path and with_log and not is_ready(pod):
        lines += [f"    {line}" for line in tail(Path(log_path), LOG_LINES_SHOWN)]
    return lines
