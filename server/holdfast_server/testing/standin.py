"""`make run` as a test drives it: the stand-in cluster, the real operator and a Tenant, in a process of their own.

Not here: anything the user of `make run` would not have; pods are found and killed as processes, and the files
that `make run` writes say where the store is.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from holdfast_server.contract import names

START_TIMEOUT_SECONDS = 240.0
STOP_TIMEOUT_SECONDS = 60.0


@dataclass(slots=True)
class StandIn:
    state: Path
    tenant: Path
    nodes: int = 1
    refresh_seconds: float = 0.0
    """How late changed Secrets and ConfigMaps may reach a pod."""
    process: subprocess.Popen[bytes] | None = None
    environment: dict[str, str] = field(default_factory=dict, repr=False)
    """What `.holdfast/env` exports."""

    @property
    def kubeconfig(self) -> Path:
        return self.state / "kubeconfig"

    @property
    def log(self) -> Path:
        return self.state.with_suffix(".log")

    def start(self) -> None:
        """Returns when the Tenant is Ready."""
        command = [str(Path(sys.executable).parent / "holdfast-local"), "run", "--tenant", str(self.tenant)]
        command += ["--nodes", str(self.nodes), "--refresh", str(self.refresh_seconds)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([*command, "--state", str(self.state)], stdout=log, stderr=log)
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not (self.state / "env").exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"not ready:\n{self.log.read_text()[-4000:]}")
            time.sleep(0.1)
        self.environment = parse_exports((self.state / "env").read_text())

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        if self.process is None:
            return 0
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self.process = None

    def wait_whole(self, timeout_seconds: float = STOP_TIMEOUT_SECONDS) -> None:
        """Until the pod that answers sees every drive serve.  Raises TimeoutError."""
        deadline = time.monotonic() + timeout_seconds
        while not self._whole():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not every drive serves after {timeout_seconds:g} s")
            time.sleep(0.2)

    def wait_restarted(self, pod: str, before: int, timeout_seconds: float = STOP_TIMEOUT_SECONDS) -> None:
        """Until the pod runs as another process than `before`.  Raises TimeoutError."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            try:
                if self.pod_pid(pod) != before:
                    return
            except LookupError:
                pass
            if time.monotonic() > deadline:
                raise TimeoutError(f"{pod} is not back after {timeout_seconds:g} s")
            time.sleep(0.1)

    def _whole(self) -> bool:
        try:
            # Answered without TLS in every mode.
            endpoint = self.environment["AWS_ENDPOINT_URL_S3"].replace("https:", "http:")
            url = f"{endpoint}{names.HEALTH_CLUSTER_PATH}"
            with urllib.request.urlopen(url, timeout=5) as answer:
                drives = json.load(answer)["drives"]
        except urllib.error.HTTPError as error:
            error.close()
            return False
        except (OSError, ValueError):
            return False
        return bool(drives) and all(drive["state"] == "ok" for drive in drives)

    def pod_pid(self, pod: str) -> int:
        """The process of `holdfast server … --pod POD` that this cluster runs.  Raises LookupError."""
        assert self.process is not None
        for pid in descendants(self.process.pid):
            arguments = _command_line(pid)
            if "server" in arguments and pod in arguments and not _is_wrapper(arguments):
                return pid
        raise LookupError(f"no process of pod {pod}")

    def kill_operator(self) -> int:
        """`kill -9`; returns the pid that was killed.  The stand-in starts it again, as a Deployment does."""
        assert self.process is not None
        for pid in descendants(self.process.pid):
            arguments = _command_line(pid)
            if any(argument.endswith("holdfast-operator") for argument in arguments) and not _is_wrapper(arguments):
                os.kill(pid, signal.SIGKILL)
                return pid
        raise LookupError("no process of the operator")

    def kill_pod(self, pod: str) -> int:
        """`kill -9`; returns the pid that was killed."""
        pid = self.pod_pid(pod)
        os.kill(pid, signal.SIGKILL)
        return pid


def parse_exports(text: str) -> dict[str, str]:
    """`export NAME=value` lines, quoted for a shell or not."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["export"]:
            found |= dict(word.partition("=")[::2] for word in words[1:])
    return found


def descendants(pid: int) -> list[int]:
    """All processes below one, nearest first."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError, ValueError):
                continue
            parents.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for one in found:
        found.extend(parents.get(one, []))
    return found[1:]


def _command_line(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def _is_wrapper(arguments: list[str]) -> bool:
    """A launcher that still waits for its child is not the server itself."""
    return any("launcher" in argument or "unshare" in argument for argument in arguments[:3])
