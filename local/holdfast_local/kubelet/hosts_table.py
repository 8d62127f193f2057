"""Names inside the cluster, as the text of a hosts file.  Pure.

One table per namespace, since a pod resolves short names in its own: `<service>`, `<service>.<ns>`,
`<service>.<ns>.svc` and `<service>.<ns>.svc.cluster.local`; below a headless Service also
`<pod>.<service>…`.  A name the machine's own hosts file gives stays, after ours.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Name(NamedTuple):
    """One address of a Service (or of a pod below it: `host` is then `<pod>.<service>`)."""

    address: str
    host: str
    namespace: str


def render(namespace: str, names: Iterable[Name], machine_lines: Iterable[str]) -> str:
    """The hosts file seen by pods of `namespace`."""
    lines = ["# Written by holdfast-local; replaced whenever a pod or a Service changes."]
    for name in sorted(names):
        scoped = f"{name.host}.{name.namespace}"
        aliases = [f"{scoped}.svc.cluster.local", f"{scoped}.svc", scoped]
        if name.namespace == namespace:
            aliases.append(name.host)
        lines.append(f"{name.address} {' '.join(aliases)}")
    machine = [line for line in machine_lines if line.strip() and not line.lstrip().startswith("#")]
    lines += machine or ["127.0.0.1 localhost"]
    return "\n".join(lines) + "\n"
