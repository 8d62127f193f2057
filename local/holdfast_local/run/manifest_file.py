"""Reading a file of manifests: several YAML documents, every fault with its line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from holdfast_local.run.failure import RunFailed

TENANT_API_GROUP = "holdfast.dev"
DOCUMENT_LIMIT = 1000


class _Loader(yaml.CSafeLoader):
    """Takes a day or a time for text, as kubectl does: JSON has neither, and the Tenant API wants text."""


def _as_text(loader: _Loader, node: yaml.ScalarNode) -> str:
    return str(loader.construct_scalar(node))


_Loader.add_constructor("tag:yaml.org,2002:timestamp", _as_text)


@dataclass(frozen=True)
class Document:
    """One manifest and where it stands."""

    manifest: dict[str, Any]
    source: str
    """`file:line` of its first line."""

    @property
    def title(self) -> str:
        metadata = self.manifest["metadata"]
        return f"{self.manifest['kind']} {metadata['name']}"

    @property
    def is_tenant(self) -> bool:
        group = str(self.manifest["apiVersion"]).partition("/")[0]
        return group == TENANT_API_GROUP and self.manifest["kind"] == "Tenant"


def load_documents(path: Path) -> list[Document]:
    """All documents of `path`; raises RunFailed naming file, line and fault."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise RunFailed(f"cannot read {path}: {reason}") from error
    return list(_documents(path, text))


def load_tenant_file(path: Path) -> list[Document]:
    """Like `load_documents`, and there is at least one Tenant in it."""
    documents = load_documents(path)
    if not any(document.is_tenant for document in documents):
        found = sorted({f"{document.manifest['kind']} of {document.manifest['apiVersion']}" for document in documents})
        raise RunFailed(
            f"{path}: there is no Tenant of {TENANT_API_GROUP}/v1 in this file; it has {', '.join(found) or 'nothing'}"
        )
    return documents


def _documents(path: Path, text: str) -> Iterator[Document]:
    try:
        nodes = list(yaml.compose_all(text, Loader=yaml.CSafeLoader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise RunFailed(f"{where}: not valid YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise RunFailed(f"{path}: not valid YAML: {error}") from error
    if len(nodes) > DOCUMENT_LIMIT:
        raise RunFailed(f"{path}: more than {DOCUMENT_LIMIT} documents")
    for node, manifest in zip(nodes, _values(path, text), strict=True):
        if manifest is None:
            continue  # an empty document between two separators
        source = f"{path}:{node.start_mark.line + 1}"
        _check(source, manifest)
        if not manifest["metadata"].get("namespace"):
            manifest["metadata"].pop("namespace", None)  # `namespace:` and nothing behind it: none, as for kubectl
        yield Document(manifest, source)


def _values(path: Path, text: str) -> list[Any]:
    try:
        return list(yaml.load_all(text, Loader=_Loader))
    except yaml.YAMLError as error:
        raise RunFailed(f"{path}: not valid YAML: {error}") from error


def _check(source: str, manifest: object) -> None:
    if not isinstance(manifest, dict):
        raise RunFailed(f"{source}: a manifest must be a mapping, this is a {type(manifest).__name__}")
    for field in ("apiVersion", "kind"):
        if not isinstance(manifest.get(field), str) or not manifest[field]:
            raise RunFailed(f"{source}: {field} is missing")
    metadata = manifest.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
        raise RunFailed(f"{source}: metadata.name is missing")
    if not isinstance(metadata.get("namespace") or "", str):
        raise RunFailed(f"{source}: metadata.namespace must be text, this is a {type(metadata['namespace']).__name__}")
