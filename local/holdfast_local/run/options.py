"""The command line of `holdfast-local run`, parsed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunOptions:
    """The command line of `run`."""

    tenant_file: Path
    state: Path
    port: int | None
    """Of the API server on 127.0.0.1; None for 6443 or, where that is taken, any."""
    isolation: str
    """`auto`, `namespaces` or `prefix`."""
    timeout_seconds: float
    """Until every Tenant must be Ready."""
    nodes: int = 1
    """How many nodes this machine plays."""
    refresh_seconds: float = 0.0
    """By how much changed Secrets and ConfigMaps reach a pod late at most; on a cluster it is about a minute."""
