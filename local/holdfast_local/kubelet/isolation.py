"""What this machine allows, found by trying, and how a container's command is wrapped accordingly.

`namespaces`: the container gets a mount namespace with its volumes at their paths and its own /etc/hosts.
`prefix`: it shares the machine's root; HOLDFAST_ROOT_PREFIX names a folder that holds the pod's mount paths
as links, and HOLDFAST_HOSTS_FILE a hosts table.  The storage pods and the operator understand both variables;
another program in a pod would have to do so too.
Nothing is inferred from the user id: a trial container is run with the very launcher used later.
"""

from __future__ import annotations

import asyncio
import enum
import itertools
import json
import os
import socket
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from holdfast_local.kubelet import launcher
from holdfast_local.kubelet.environment import ContainerConfigError

TRIAL_TIMEOUT_SECONDS = 10.0
TRIAL_MOUNT_PATH = "/holdfast-trial/inner"


class Isolation(enum.Enum):
    NAMESPACES = "namespaces"
    PREFIX = "prefix"


class UnsupportedMachine(Exception):
    """The stand-in cluster cannot run here; the message says why and what to do."""


@dataclass(frozen=True)
class Mount:
    """A folder or file of the machine and where the container sees it."""

    source: Path
    path: str
    read_only: bool = False


@dataclass(frozen=True)
class LaunchSpec:
    """Everything needed to start one container's process."""

    command: list[str]
    environment: dict[str, str]
    host_name: str
    root: Path
    """An empty folder of this container: the private root in one mode, the prefix in the other."""
    hosts_file: Path
    mounts: list[Mount] = field(default_factory=list)
    working_directory: str | None = None


def installation_paths(state_directory: Path) -> list[Path]:
    """What every process needs to see even if a volume is mounted above it."""
    source_root = Path(__file__).resolve().parents[3]
    found = {source_root, Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve(), state_directory}
    outermost = [path for path in found if not any(other in path.parents for other in found)]
    return sorted(path for path in outermost if len(path.parts) > 1)


def launcher_command(spec: LaunchSpec, isolation: Isolation, keep: Sequence[Path]) -> list[str]:
    """The argument vector that starts `spec`, to be executed by this very process."""
    document = {
        "namespaces": isolation is Isolation.NAMESPACES,
        "command": spec.command,
        "host_name": spec.host_name,
        "root": str(spec.root),
        "hosts_file": str(spec.hosts_file),
        "mounts": [
            {"source": str(mount.source), "path": mount.path, "read_only": mount.read_only} for mount in spec.mounts
        ],
        "keep": [str(path) for path in keep],
        "working_directory": spec.working_directory,
        "parent_pid": os.getpid(),
    }
    return _launcher(document)


def join_command(command: Sequence[str], pid: int, isolation: Isolation) -> list[str]:
    """The argument vector that runs `command` beside the container whose process is `pid`."""
    document: dict[str, object] = {
        "namespaces": False,
        "command": list(command),
        "parent_pid": os.getpid(),
    }
    if isolation is Isolation.NAMESPACES:
        document["join_pid"] = pid
    return _launcher(document)


def prepare_prefix(spec: LaunchSpec) -> None:
    """Lay the links of `prefix` mode out below `spec.root`; raises ContainerConfigError for nested mounts."""
    paths = sorted(os.path.normpath(mount.path) for mount in spec.mounts)
    for outer, inner in itertools.pairwise(paths):
        if inner.startswith(outer + "/"):
            raise ContainerConfigError(f"mountPath {inner} lies inside {outer}: not possible without mount namespaces")
    for mount in spec.mounts:
        link = spec.root / os.path.normpath(mount.path).lstrip("/")
        link.parent.mkdir(parents=True, exist_ok=True)
        if link.is_symlink():
            link.unlink()
        link.symlink_to(mount.source, target_is_directory=mount.source.is_dir())


def prefix_variables(spec: LaunchSpec) -> dict[str, str]:
    return {"HOLDFAST_ROOT_PREFIX": str(spec.root), "HOLDFAST_HOSTS_FILE": str(spec.hosts_file)}


async def probe_namespaces(state_directory: Path) -> str | None:
    """None if mount namespaces work for this user here; else the reason why not."""
    if not sys.platform.startswith("linux"):
        return "this is not Linux"
    with tempfile.TemporaryDirectory(dir=state_directory, prefix="trial-") as folder:
        base = Path(folder)
        for name in ("root", "volume"):
            (base / name).mkdir()
        (base / "volume" / "proof").write_text("")
        (base / "hosts").write_text("127.0.0.1 localhost\n")
        proof = f"{TRIAL_MOUNT_PATH}/proof"
        check = f"import os; os.stat({proof!r}); open('/etc/hosts').read(); os.stat({sys.executable!r})"
        spec = LaunchSpec(
            command=[sys.executable, "-I", "-S", "-c", check],
            environment={},
            host_name="trial",
            root=base / "root",
            hosts_file=base / "hosts",
            mounts=[Mount(base / "volume", TRIAL_MOUNT_PATH, read_only=True)],
        )
        keep = installation_paths(state_directory)
        return await _run_trial(launcher_command(spec, Isolation.NAMESPACES, keep))


async def choose_isolation(state_directory: Path, wanted: str) -> tuple[Isolation, str]:
    """The mode for `auto`, `namespaces` or `prefix`, and a sentence about it for people.

    Raises UnsupportedMachine where namespaces are demanded and impossible.
    """
    if wanted == Isolation.PREFIX.value:
        return Isolation.PREFIX, "pods share the machine's file system (asked for)"
    reason = await probe_namespaces(state_directory)
    if reason is None:
        return Isolation.NAMESPACES, "each pod has its own mounts"
    if wanted == Isolation.NAMESPACES.value:
        raise UnsupportedMachine(f"mount namespaces are not available here: {reason}")
    return Isolation.PREFIX, f"pods share the machine's file system (no mount namespaces: {reason})"


def require_loopback(address: str = "127.77.0.1") -> None:
    """Raise UnsupportedMachine unless addresses all over 127.0.0.0/8 can be bound."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError as error:
            raise UnsupportedMachine(
                f"cannot bind {address}: {error.strerror}. The stand-in cluster gives every pod its own "
                "loopback address, which Linux allows and macOS does not: run it in a Linux machine or container."
            ) from error


def _launcher(document: dict[str, object]) -> list[str]:
    return [sys.executable, "-I", "-S", launcher.__file__, json.dumps(document)]


async def _run_trial(command: Sequence[str]) -> str | None:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(TRIAL_TIMEOUT_SECONDS):
            _, errors = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return f"a trial took longer than {TRIAL_TIMEOUT_SECONDS:g} s"
    if process.returncode == 0:
        return None
    lines = errors.decode("utf-8", "replace").strip().splitlines() or [f"exit code {process.returncode}"]
    return lines[-1].removeprefix("holdfast-local: cannot prepare the container: ")
