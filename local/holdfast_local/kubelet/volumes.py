"""From a pod's `volumes` and `volumeMounts` to folders of this machine.

Kinds: persistentVolumeClaim, emptyDir, secret, configMap, downwardAPI and projected (of the three before).
hostPath and the rest are refused with a clear message.  `volume_files` is pure; `VolumeFolders` touches disk.
Not done here: size limits, fsGroup, medium; service account tokens (no pod here gets one by itself).
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from holdfast_local.kubelet.environment import ContainerConfigError, Lookup, expand, field_value
from holdfast_local.kubelet.isolation import Mount
from holdfast_local.kubelet.projected_folder import write_folder


def volume_files(
    pod: Mapping[str, Any], volume: Mapping[str, Any], address: str, lookup: Lookup
) -> dict[str, bytes] | None:
    """The files of a volume that is made of API objects; None for a volume of another kind."""
    if "projected" in volume:
        files: dict[str, bytes] = {}
        for source in volume["projected"].get("sources") or []:
            if "serviceAccountToken" in source:
                raise ContainerConfigError(
                    f"volume {volume['name']}: serviceAccountToken is not supported by the local kubelet"
                )
            files.update(volume_files(pod, {"name": volume["name"], **source}, address, lookup) or {})
        return files
    if "secret" in volume:
        source = volume["secret"]
        return _object_files("secrets", source.get("secretName") or source.get("name"), source, lookup)
    if "configMap" in volume:
        return _object_files("configmaps", volume["configMap"]["name"], volume["configMap"], lookup)
    if "downwardAPI" in volume:
        items = volume["downwardAPI"].get("items") or []
        return {i["path"]: field_value(pod, i["fieldRef"]["fieldPath"], address).encode() for i in items}
    return None


def referenced_objects(pod: Mapping[str, Any]) -> set[tuple[str, str]]:
    """(`secrets` or `configmaps`, name) of everything the pod's volumes show."""
    found: set[tuple[str, str]] = set()
    for volume in pod["spec"].get("volumes") or []:
        for source in [volume, *(volume.get("projected", {}).get("sources") or [])]:
            if "secret" in source:
                found.add(("secrets", source["secret"].get("secretName") or source["secret"].get("name")))
            if "configMap" in source:
                found.add(("configmaps", source["configMap"]["name"]))
    return found


def claim_names(pod: Mapping[str, Any]) -> set[str]:
    volumes = pod["spec"].get("volumes") or []
    return {v["persistentVolumeClaim"]["claimName"] for v in volumes if "persistentVolumeClaim" in v}


class VolumeFolders:
    """The folders of one pod, below `pod_directory`; claims live in `volumes_directory`/<ns>/<claim>."""

    def __init__(self, pod_directory: Path, volumes_directory: Path) -> None:
        self._pod_directory = pod_directory
        self._volumes_directory = volumes_directory

    def prepare(self, pod: Mapping[str, Any], address: str, lookup: Lookup) -> dict[str, Path]:
        """Create or refresh every volume's folder; volume name → folder."""
        return {
            volume["name"]: self._prepare_one(pod, volume, address, lookup)
            for volume in pod["spec"].get("volumes") or []
        }

    def _prepare_one(self, pod: Mapping[str, Any], volume: Mapping[str, Any], address: str, lookup: Lookup) -> Path:
        folder = self._pod_directory / "volumes" / volume["name"]
        if "persistentVolumeClaim" in volume:
            claim = volume["persistentVolumeClaim"]["claimName"]
            return claim_folder(self._volumes_directory, pod["metadata"]["namespace"], claim)
        files = volume_files(pod, volume, address, lookup)
        if files is not None:
            write_folder(folder, files)
        elif "emptyDir" in volume:
            folder.mkdir(parents=True, exist_ok=True)
        else:
            kind = next((field for field in volume if field != "name"), "unknown")
            raise ContainerConfigError(f"volume {volume['name']}: {kind} is not supported by the local kubelet")
        return folder

    def remove(self) -> None:
        """Forget everything of the pod but its claims."""
        shutil.rmtree(self._pod_directory, ignore_errors=True)


def claim_folder(volumes_directory: Path, namespace: str, claim: str) -> Path:
    """Where a claim's data live; created, since the claim has been bound by now."""
    folder = volumes_directory / namespace / claim
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def container_mounts(
    container: Mapping[str, Any], folders: Mapping[str, Path], environment: Mapping[str, str]
) -> list[Mount]:
    """The mounts of one container; raises ContainerConfigError for an unknown volume."""
    mounts = []
    for mount in container.get("volumeMounts") or []:
        folder = folders.get(mount["name"])
        if folder is None:
            raise ContainerConfigError(f"volumeMount {mount['name']}: the pod has no such volume")
        inner = mount.get("subPath") or expand(mount.get("subPathExpr") or "", environment)
        source = folder / inner if inner else folder
        if inner and not source.exists():
            source.mkdir(parents=True)
        mounts.append(Mount(source, mount["mountPath"], bool(mount.get("readOnly"))))
    return mounts


def _object_files(kind: str, name: str, source: Mapping[str, Any], lookup: Lookup) -> dict[str, bytes]:
    data = lookup(kind, name)
    if data is None:
        if source.get("optional"):
            return {}
        raise ContainerConfigError(f'{"secret" if kind == "secrets" else "configmap"} "{name}" not found')
    if not source.get("items"):
        return dict(data)
    missing = [item["key"] for item in source["items"] if item["key"] not in data]
    if missing and not source.get("optional"):
        raise ContainerConfigError(f"{kind[:-1]} {name} has no key {', '.join(missing)}")
    return {item["path"]: data[item["key"]] for item in source["items"] if item["key"] in data}
