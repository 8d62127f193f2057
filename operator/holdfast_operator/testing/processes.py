"""The API server and the operator as processes of their own, for tests that kill, stop and measure them.

The API server is the stand-in's, without a node (`holdfast-local api`); the operator is the real command with the
rights of its chart.  Figures come from /proc, so Linux only.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

START_SECONDS = 240.0
STOP_SECONDS = 60.0
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_SIZE_BYTES = os.sysconf("SC_PAGE_SIZE")
_PROGRAMS = Path(sys.executable).parent


@dataclass(frozen=True, slots=True)
class Usage:
    """Of one process, from its start."""

    cpu_seconds: float
    resident_bytes: int


class LocalProcess:
    """One child process; what it prints goes to `log`."""

    def __init__(self, command: Sequence[str], log: Path, environment: dict[str, str] | None = None) -> None:
        self._command, self.log, self._environment = list(command), log, environment
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, stdout=log, stderr=log, env={**os.environ, **(self._environment or {})}
            )

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.returncode if self._process is not None else None

    def send(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Signal it and wait; returns the exit code.  One that does not end is killed, and TimeoutError raised."""
        if self._process is None:
            return 0
        self.send(number)
        try:
            return await asyncio.wait_for(self._process.wait(), STOP_SECONDS)
        except TimeoutError:
            self.send(signal.SIGKILL)
            await self._process.wait()
            raise

    def usage(self) -> Usage:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        resident = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * _PAGE_SIZE_BYTES
        return Usage((int(fields[11]) + int(fields[12])) / _TICKS, resident)


class ApiProcess(LocalProcess):
    """The stand-in's API server; its port stays the same from start to start."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.port = free_port()
        state.parent.mkdir(parents=True, exist_ok=True)
        command = [str(_PROGRAMS / "holdfast-local"), "api", "--port", str(self.port), "--state", str(state)]
        super().__init__(command, state.with_suffix(".log"))

    @property
    def kubeconfig(self) -> Path:
        return self.state / "kubeconfig"

    @property
    def operator_kubeconfig(self) -> Path:
        return self.state / "operator" / "kubeconfig"

    async def start(self) -> None:
        """Returns when it answers and the Tenant API is there."""
        before = self._announcements()
        await super().start()
        async with asyncio.timeout(START_SECONDS):
            while self._announcements() == before:
                if self.returncode is not None:
                    raise RuntimeError(self.log.read_text()[-2000:])
                await asyncio.sleep(0.05)

    def _announcements(self) -> int:
        return self.log.read_text().count("API server on") if self.log.exists() else 0


@dataclass
class OperatorProcesses:
    """Operators, one or several, of one API server; all are ended at the end of the `async with`."""

    kubeconfig: Path
    directory: Path
    arguments: tuple[str, ...] = ("--all-namespaces", "--log-format", "text")
    started: list[LocalProcess] = field(default_factory=list)

    async def start(self, *more: str) -> LocalProcess:
        log = self.directory / f"operator-{len(self.started)}.log"
        command = [str(_PROGRAMS / "holdfast-operator"), *self.arguments, *more]
        process = LocalProcess(command, log, {"KUBECONFIG": str(self.kubeconfig)})
        await process.start()
        self.started.append(process)
        return process

    async def __aenter__(self) -> OperatorProcesses:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self.started:
            process.send(signal.SIGCONT)
            await process.end(signal.SIGKILL)


def free_port() -> int:
    """A loopback port that nobody listens on at this moment, and none of those that the system gives to who asks for
    any: clients' ends of connections have those as well, and the API server comes back on its own.
    """
    first_given = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = 10_000 + secrets.randbelow(max(first_given - 10_000, 10_000))
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
