"""The operator as a local process, under its own account, restarted when it crashes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from holdfast_local.kubelet.backoff import CrashBackoff
from holdfast_local.kubelet.container import kill_session
from holdfast_local.kubelet.isolation import Isolation, LaunchSpec, launcher_command
from holdfast_local.kubelet.log_file import LogFile, copy_to_log, tail

STOP_TIMEOUT_SECONDS = 2.0
"""Then it is killed: it keeps nothing that the next start would miss."""


class OperatorProcess:
    """Runs `command` until `stop`; what it writes goes to `log_path`."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        root: Path,
        hosts_file: Path,
        log_path: Path,
        isolation: Isolation,
        keep: Sequence[Path],
        report: Callable[[str], None],
    ) -> None:
        variables = dict(environment)
        if isolation is Isolation.PREFIX:
            variables["HOLDFAST_HOSTS_FILE"] = str(hosts_file)
        root.mkdir(parents=True, exist_ok=True)
        self._spec = LaunchSpec(
            command=list(command),
            environment=variables,
            host_name="holdfast-operator",
            root=root,
            hosts_file=hosts_file,
        )
        self.log_path = log_path
        self._isolation, self._keep, self._report = isolation, keep, report
        self._stop = asyncio.Event()
        self._backoff = CrashBackoff()

    def stop(self) -> None:
        self._stop.set()

    async def run(self) -> None:
        """Until stopped; a crash is reported and followed by a restart."""
        log = LogFile(self.log_path)
        try:
            while not self._stop.is_set():
                began = time.monotonic()
                returncode = await self._run_once(log)
                if self._stop.is_set():
                    return
                delay_seconds = self._backoff.delay_seconds(time.monotonic() - began)
                last = next(iter(tail(self.log_path, 1)), "")
                self._report(
                    f"the operator ended with {_describe(returncode)} and is started again "
                    f"(log: {self.log_path}){': ' + last[:200] if last else ''}"
                )
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), delay_seconds)
        finally:
            log.close()

    async def _run_once(self, log: LogFile) -> int:
        process = await asyncio.create_subprocess_exec(
            *launcher_command(self._spec, self._isolation, self._keep),
            env=self._spec.environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        assert process.stdout is not None
        try:
            async with asyncio.TaskGroup() as group:
                copying = group.create_task(copy_to_log(process.stdout, log))
                ending = group.create_task(self._terminate_when_asked(process))
                await process.wait()
                ending.cancel()
                kill_session(process.pid)
                await asyncio.wait([copying], timeout=1)
                copying.cancel()
        finally:
            kill_session(process.pid)
            await process.wait()
        return process.returncode or 0

    async def _terminate_when_asked(self, process: asyncio.subprocess.Process) -> None:
        await self._stop.wait()
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)
        await asyncio.sleep(STOP_TIMEOUT_SECONDS)
        kill_session(process.pid)


def _describe(returncode: int) -> str:
    return f"signal {-returncode}" if returncode < 0 else f"exit code {returncode}"
