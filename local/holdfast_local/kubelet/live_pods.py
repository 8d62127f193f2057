"""What this node knows of its pods right now, ahead of what the API says: address and readiness.

The Service proxy and the hosts tables follow this, so that an endpoint disappears the instant its process
ends and a status left over from an earlier run routes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from holdfast_local.kubelet.manifests import Key


@dataclass(frozen=True)
class LivePod:
    address: str
    ready: bool


class LivePods:
    """Pods by key; listeners hear of each change synchronously."""

    def __init__(self) -> None:
        self._pods: dict[Key, LivePod] = {}
        self._listeners: list[Callable[[Key], None]] = []

    def on_change(self, listener: Callable[[Key], None]) -> None:
        self._listeners.append(listener)

    def get(self, key: Key) -> LivePod | None:
        return self._pods.get(key)

    def set(self, key: Key, pod: LivePod) -> None:
        if self._pods.get(key) != pod:
            self._pods[key] = pod
            self._announce(key)

    def remove(self, key: Key) -> None:
        if self._pods.pop(key, None) is not None:
            self._announce(key)

    def _announce(self, key: Key) -> None:
        for listener in self._listeners:
            listener(key)
