"""What every pod of the node shares: the API, folders, addresses, and how processes are wrapped."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from holdfast_local.kubelet.addresses import AddressBook
from holdfast_local.kubelet.client import ApiClient
from holdfast_local.kubelet.environment import Lookup
from holdfast_local.kubelet.events import EventRecorder
from holdfast_local.kubelet.informer import Informer
from holdfast_local.kubelet.isolation import Isolation
from holdfast_local.kubelet.live_pods import LivePods
from holdfast_local.kubelet.scheduling import Scheduler
from holdfast_local.kubelet.service_controller import HostsFiles


@dataclass(frozen=True)
class PodContext:
    """Shared by all pod workers; owned by the kubelet."""

    client: ApiClient
    events: EventRecorder
    live: LivePods
    scheduler: Scheduler
    book: AddressBook
    hosts: HostsFiles
    pods: Informer
    claims: Informer
    secrets: Informer
    config_maps: Informer
    probe_session: aiohttp.ClientSession
    isolation: Isolation
    keep: tuple[Path, ...]
    """Folders a mount must not hide: the installation and the state."""
    pods_directory: Path
    volumes_directory: Path
    base_environment: Mapping[str, str]
    """PATH with the installation's programs first, locale, and the marker by which orphans are found."""

    def lookup_in(self, namespace: str) -> Lookup:
        """Secrets and ConfigMaps of a namespace, decoded."""

        def lookup(kind: str, name: str) -> Mapping[str, bytes] | None:
            informer = self.secrets if kind == "secrets" else self.config_maps
            manifest = informer.items.get((namespace, name))
            if manifest is None:
                return None
            if kind == "secrets":
                return {key: base64.b64decode(value) for key, value in (manifest.get("data") or {}).items()}
            text = {key: value.encode() for key, value in (manifest.get("data") or {}).items()}
            binary = {key: base64.b64decode(value) for key, value in (manifest.get("binaryData") or {}).items()}
            return {**text, **binary}

        return lookup
