"""A container's environment and command, from its manifest.  Pure: Secrets and ConfigMaps come in as values.

`$(NAME)` in values, command and args is replaced by what is defined before it, `$$` stands for `$`, and an
unknown name stays as it is written: Kubernetes' rules.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from holdfast_local.kubelet.manifests import NODE_NAME

_REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z0-9_.\-]+)\)")
_SUBSCRIPT = re.compile(r"^metadata\.(labels|annotations)\['(.+)'\]$")

Lookup = Callable[[str, str], Mapping[str, bytes] | None]
"""(`secrets` or `configmaps`, name) → the keys and values of that object in the pod's namespace, or None."""


class ContainerConfigError(Exception):
    """The container cannot be started as described; the message says what is missing."""


def expand(text: str, values: Mapping[str, str]) -> str:
    """Replace `$(NAME)` by its value, `$$` by `$`."""

    def replacement(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return values.get(match[1], match[0])

    return _REFERENCE.sub(replacement, text)


def expand_command(container: Mapping[str, Any], values: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """The container's `command` and `args` with references replaced."""
    command = [expand(part, values) for part in container.get("command") or []]
    arguments = [expand(part, values) for part in container.get("args") or []]
    return command, arguments


def container_environment(
    pod: Mapping[str, Any], container: Mapping[str, Any], address: str, lookup: Lookup
) -> dict[str, str]:
    """The variables the manifest asks for; raises ContainerConfigError for a missing source."""
    environment: dict[str, str] = {}
    for source in container.get("envFrom") or []:
        environment.update(_from_source(source, lookup))
    for entry in container.get("env") or []:
        if "valueFrom" in entry:
            value = _referenced(pod, entry["valueFrom"], address, lookup)
        else:
            value = expand(entry.get("value") or "", environment)
        if value is not None:
            environment[entry["name"]] = value
    return environment


def field_value(pod: Mapping[str, Any], field_path: str, address: str) -> str:
    """The downward API's value of a field; raises ContainerConfigError for one that is not offered here."""
    metadata, spec = pod["metadata"], pod["spec"]
    subscript = _SUBSCRIPT.match(field_path)
    if subscript:
        return str((metadata.get(subscript[1]) or {}).get(subscript[2], ""))
    values = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata.get("namespace", ""),
        "metadata.uid": metadata.get("uid", ""),
        "spec.nodeName": spec.get("nodeName") or NODE_NAME,
        "spec.serviceAccountName": spec.get("serviceAccountName") or "default",
        "status.podIP": address,
        "status.podIPs": address,
        "status.hostIP": "127.0.0.1",
    }
    if field_path not in values:
        raise ContainerConfigError(f"fieldRef {field_path} is not supported by the local kubelet")
    return str(values[field_path])


def _from_source(source: Mapping[str, Any], lookup: Lookup) -> dict[str, str]:
    kind, reference = (
        ("secrets", source.get("secretRef"))
        if "secretRef" in source
        else (
            "configmaps",
            source.get("configMapRef"),
        )
    )
    if reference is None:
        return {}
    data = lookup(kind, reference["name"])
    if data is None:
        if reference.get("optional"):
            return {}
        raise ContainerConfigError(f'{_singular(kind)} "{reference["name"]}" not found')
    prefix = source.get("prefix") or ""
    return {prefix + name: value.decode("utf-8", "replace") for name, value in data.items()}


def _referenced(pod: Mapping[str, Any], source: Mapping[str, Any], address: str, lookup: Lookup) -> str | None:
    if "fieldRef" in source:
        return field_value(pod, source["fieldRef"]["fieldPath"], address)
    for field, kind in (("secretKeyRef", "secrets"), ("configMapKeyRef", "configmaps")):
        if field not in source:
            continue
        reference = source[field]
        data = lookup(kind, reference["name"])
        if data is not None and reference["key"] in data:
            return data[reference["key"]].decode("utf-8", "replace")
        if reference.get("optional"):
            return None
        missing = (
            f'{_singular(kind)} "{reference["name"]}" not found'
            if data is None
            else f"couldn't find key {reference['key']} in {_singular(kind)} {reference['name']}"
        )
        raise ContainerConfigError(missing)
    raise ContainerConfigError(f"valueFrom {', '.join(source)} is not supported by the local kubelet")


def _singular(kind: str) -> str:
    return "secret" if kind == "secrets" else "configmap"
