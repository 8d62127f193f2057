"""One container of a pod: started, watched, restarted after a crash, stopped when asked.

Invariants: at most one process at a time; `ready` turns false in the same step in which the process's end is
noticed; whatever ends this object (also cancellation) leaves no process of its session running.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from holdfast_local.kubelet.backoff import CrashBackoff
from holdfast_local.kubelet.environment import ContainerConfigError, container_environment, expand_command
from holdfast_local.kubelet.images import ImagePullError, argument_vector, pull
from holdfast_local.kubelet.isolation import (
    Isolation,
    LaunchSpec,
    join_command,
    launcher_command,
    prefix_variables,
    prepare_prefix,
)
from holdfast_local.kubelet.log_file import LogFile, copy_to_log
from holdfast_local.kubelet.manifests import Manifest, timestamp_now
from holdfast_local.kubelet.pod_context import PodContext
from holdfast_local.kubelet.pod_status import ContainerSnapshot, terminated, waiting
from holdfast_local.kubelet.probe_runner import ProbeResult, ProbeTarget, attempt, follow
from holdfast_local.kubelet.probe_state import ProbeKind, Verdict
from holdfast_local.kubelet.volumes import VolumeFolders, container_mounts

CONFIG_RETRY_SECONDS = 1.0
LOG_DRAIN_SECONDS = 1.0
KILL_TIMEOUT_SECONDS = 10.0
"""How long the system may take to end a process after SIGKILL before it is left behind (stuck in a device)."""
EXEC_OUTPUT_LIMIT_BYTES = 4096


class Container:
    """Runs one container of `pod` until it is stopped or, by the restart policy, done."""

    def __init__(
        self,
        context: PodContext,
        pod: Manifest,
        manifest: Manifest,
        snapshot: ContainerSnapshot,
        address: str,
        folders: VolumeFolders,
        directory: Path,
        restart_policy: str,
        on_change: Callable[[], None],
    ) -> None:
        self.snapshot = snapshot
        self.log_path = directory / "logs" / f"{snapshot.name}.log"
        self._context, self._pod, self._manifest = context, pod, manifest
        self._address, self._folders, self._directory = address, folders, directory
        self._restart_policy = restart_policy
        self._on_change = on_change
        self._stop = asyncio.Event()
        self._end = asyncio.Event()
        self._hurry = asyncio.Event()
        self._end_reason = ""
        self._grace_seconds = float(pod["spec"].get("terminationGracePeriodSeconds", 30))
        self._backoff = CrashBackoff()
        self._environment: dict[str, str] = {}

    def stop(self, grace_seconds: float) -> None:
        """Ask for the end: preStop, SIGTERM, SIGKILL after `grace_seconds`.  May be repeated to hurry."""
        self._grace_seconds = min(self._grace_seconds, grace_seconds)
        self._end_reason = self._end_reason or "the pod is being stopped"
        self._stop.set()
        self._end.set()
        self._hurry.set()

    async def run(self) -> None:
        """Until the container has ended for good."""
        log = LogFile(self.log_path)
        try:
            while not self._stop.is_set():
                try:
                    spec = await self._prepare()
                except ImagePullError as error:
                    self._note_hindrance("ErrImagePull", str(error))
                    await self._pause(CONFIG_RETRY_SECONDS)
                    continue
                except (ContainerConfigError, OSError) as error:
                    self._note_hindrance("CreateContainerConfigError", str(error))
                    await self._pause(CONFIG_RETRY_SECONDS)
                    continue
                began = time.monotonic()
                returncode = await self._run_once(spec, log)
                if self._stop.is_set() or not self._wants_restart(returncode):
                    return
                await self._back_off(time.monotonic() - began, returncode)
        finally:
            log.close()

    def _wants_restart(self, returncode: int) -> bool:
        if self._restart_policy == "Always":
            return True
        return self._restart_policy == "OnFailure" and returncode != 0

    async def _prepare(self) -> LaunchSpec:
        """Everything the next start needs, read afresh: Secrets may have changed since the last one."""
        pull(self.snapshot.image)
        pod, namespace = self._pod, self._pod["metadata"]["namespace"]
        lookup = self._context.lookup_in(namespace)
        folders = self._folders.prepare(pod, self._address, lookup)
        declared = container_environment(pod, self._manifest, self._address, lookup)
        host_name = pod["spec"].get("hostname") or pod["metadata"]["name"]
        self._environment = {
            **self._context.base_environment,
            "HOME": str(self._directory),
            "HOSTNAME": host_name,
            # Pods share one network stack here, so each must keep to its own address.
            "HOLDFAST_BIND_ADDRESS": self._address,
            **declared,
        }
        command, arguments = expand_command(self._manifest, declared)
        root = self._directory / "roots" / self.snapshot.name
        root.mkdir(parents=True, exist_ok=True)
        spec = LaunchSpec(
            command=argument_vector(self.snapshot.image, command, arguments),
            environment=self._environment,
            host_name=host_name[:63],
            root=root,
            hosts_file=self._context.hosts.path(namespace),
            mounts=container_mounts(self._manifest, folders, declared),
            working_directory=self._manifest.get("workingDir"),
        )
        if self._context.isolation is Isolation.PREFIX:
            prepare_prefix(spec)
            self._environment.update(prefix_variables(spec))
        return spec

    async def _run_once(self, spec: LaunchSpec, log: LogFile) -> int:
        """Start the process and follow it to its end; its return code as `subprocess` gives it."""
        process = await asyncio.create_subprocess_exec(
            *launcher_command(spec, self._context.isolation, self._context.keep),
            env=spec.environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,  # the terminal's Ctrl-C is for us, and its group is all of the container
        )
        started_at = timestamp_now()
        try:
            self._note_started(process.pid, started_at)
            await self._follow(process, log)
        finally:
            kill_session(process.pid)
            if process.returncode is None:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), KILL_TIMEOUT_SECONDS)
            returncode = process.returncode if process.returncode is not None else -signal.SIGKILL
            self._note_ended(returncode, started_at, process.pid)
        return returncode

    async def _follow(self, process: asyncio.subprocess.Process, log: LogFile) -> None:
        assert process.stdout is not None
        async with asyncio.TaskGroup() as group:
            copying = group.create_task(copy_to_log(process.stdout, log))
            ending = group.create_task(self._end_when_asked(process))
            probing = group.create_task(self._probe(process))
            await process.wait()
            self._note_unready()
            probing.cancel()
            ending.cancel()
            kill_session(process.pid)  # a child that outlives the container would hold the log open
            await asyncio.wait([copying], timeout=LOG_DRAIN_SECONDS)
            copying.cancel()

    async def _end_when_asked(self, process: asyncio.subprocess.Process) -> None:
        await self._end.wait()
        self._note_unready()
        self._event("Killing", f"Stopping container {self.snapshot.name}: {self._end_reason}")
        began = time.monotonic()
        hook = (self._manifest.get("lifecycle") or {}).get("preStop")
        if hook and self._grace_seconds > 0:
            await attempt(self._target(process.pid), {**hook, "timeoutSeconds": self._grace_seconds})
        if self._grace_seconds > 0:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        while (left_seconds := began + self._grace_seconds - time.monotonic()) > 0:
            self._hurry.clear()  # a further `stop` may shorten the grace; the process's end cancels this wait
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), left_seconds)
        kill_session(process.pid)

    async def _probe(self, process: asyncio.subprocess.Process) -> None:
        target = self._target(process.pid)
        startup = self._manifest.get("startupProbe")
        if startup:
            await follow(target, startup, ProbeKind.STARTUP, self._on_verdict, self._on_probe_failure)
        self.snapshot.started = True
        readiness, liveness = self._manifest.get("readinessProbe"), self._manifest.get("livenessProbe")
        if not readiness:
            self._set_ready(True)
        self._on_change()
        async with asyncio.TaskGroup() as group:
            for kind, probe in ((ProbeKind.READINESS, readiness), (ProbeKind.LIVENESS, liveness)):
                if probe:
                    group.create_task(follow(target, probe, kind, self._on_verdict, self._on_probe_failure))

    def _target(self, process_id: int) -> ProbeTarget:
        async def run(command: Sequence[str], timeout_seconds: float) -> ProbeResult:
            joined = join_command(command, process_id, self._context.isolation)
            return await run_bounded(joined, self._environment, timeout_seconds)

        return ProbeTarget(self._address, self._manifest, run, self._context.probe_session)

    def _on_verdict(self, kind: ProbeKind, verdict: Verdict, message: str) -> None:
        if kind is ProbeKind.READINESS:
            self._set_ready(verdict is Verdict.PASSED and not self._end.is_set())
        elif verdict is Verdict.FAILED and not self._end.is_set():
            self._end_reason = f"{kind.value} probe failed: {message}"
            self._end.set()

    def _on_probe_failure(self, kind: ProbeKind, message: str) -> None:
        self._event("Unhealthy", f"{kind.value.capitalize()} probe failed: {message}", warning=True)

    def _set_ready(self, ready: bool) -> None:
        if self.snapshot.ready != ready:
            self.snapshot.ready = ready
            self._on_change()

    def _note_unready(self) -> None:
        self._set_ready(False)

    def _note_started(self, process_id: int, started_at: str) -> None:
        self.snapshot.process_id = process_id
        self.snapshot.state = {"running": {"startedAt": started_at}}
        self.snapshot.started = False
        if not self._stop.is_set():
            self._end.clear()
            self._end_reason = ""
        self._event("Started", f"Started container {self.snapshot.name}")
        self._on_change()

    def _note_ended(self, returncode: int, started_at: str, process_id: int) -> None:
        self.snapshot.ready = self.snapshot.started = False
        self.snapshot.state = terminated(returncode, started_at, timestamp_now(), process_id)
        self._on_change()

    def _note_hindrance(self, reason: str, message: str) -> None:
        """What keeps the container from being started at all."""
        self.snapshot.state = waiting(reason, message)
        self._event("Failed", f"Error: {message}", warning=True)
        self._on_change()

    async def _back_off(self, ran_seconds: float, returncode: int) -> None:
        delay_seconds = self._backoff.delay_seconds(ran_seconds)
        how = f"signal {-returncode}" if returncode < 0 else f"exit code {returncode}"
        message = f"back-off {delay_seconds:g} s restarting container {self.snapshot.name} ({how})"
        self.snapshot.last_state = self.snapshot.state
        self.snapshot.state = waiting("CrashLoopBackOff", message)
        self.snapshot.restart_count += 1
        self._event("BackOff", f"Back-off restarting container {self.snapshot.name} ({how})", warning=True)
        self._on_change()
        await self._pause(delay_seconds)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)

    def _event(self, reason: str, message: str, warning: bool = False) -> None:
        self._context.events.record("Pod", self._pod, reason, message, warning)


async def run_bounded(command: Sequence[str], environment: dict[str, str], timeout_seconds: float) -> ProbeResult:
    """Run a short command to its end; killed with its children at the time limit, which raises TimeoutError."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(timeout_seconds):
            output = await process.stdout.read(EXEC_OUTPUT_LIMIT_BYTES)
            while await process.stdout.read(EXEC_OUTPUT_LIMIT_BYTES):
                pass
            await process.wait()
    finally:
        kill_session(process.pid)
        if process.returncode is None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), KILL_TIMEOUT_SECONDS)
    return ProbeResult(process.returncode == 0, output.decode("utf-8", "replace").strip())


def kill_session(process_group: int) -> None:
    try:
        os.killpg(process_group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
