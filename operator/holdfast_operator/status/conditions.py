"""Conditions as Kubernetes means them: a `lastTransitionTime` that moves only when the status moves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

ConditionType = Literal[
    "Ready",
    "Progressing",
    "Degraded",
    "SpecValid",
    "CredentialsReady",
    "PoolsReady",
    "BucketsReady",
    "UsersReady",
    "TLSReady",
    "EncryptionReady",
    "NetworkReady",
    "MonitoringReady",
]
MAX_MESSAGE_SIZE = 2048


@dataclass(frozen=True, slots=True)
class Finding:
    """What one condition says now; `value` None where it cannot be told."""

    type: ConditionType
    value: bool | None
    reason: str
    message: str = ""

    @property
    def status(self) -> str:
        return {True: "True", False: "False", None: "Unknown"}[self.value]


def derive_conditions(
    findings: Iterable[Finding], previous: Iterable[Mapping[str, Any]], generation: int, now: str
) -> list[dict[str, Any]]:
    """The list for `status.conditions`; `now` in RFC 3339."""
    before = {condition.get("type"): condition for condition in previous}
    conditions = []
    for finding in findings:
        known = before.get(finding.type, {})
        unchanged = known.get("status") == finding.status and known.get("lastTransitionTime")
        conditions.append(
            {
                "type": finding.type,
                "status": finding.status,
                "reason": finding.reason,
                "message": _shortened(finding.message),
                "observedGeneration": generation,
                "lastTransitionTime": known["lastTransitionTime"] if unchanged else now,
            }
        )
    return conditions


def _shortened(message: str) -> str:
    return message if len(message) <= MAX_MESSAGE_SIZE else message[: MAX_MESSAGE_SIZE - 1] + "…"
