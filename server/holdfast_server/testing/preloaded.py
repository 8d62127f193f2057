"""Pods that begin with the server imported: that is two thirds of what their start takes, and tests start hundreds.

One process, the *stem*, imports the server once.  Each pod is forked from it and is then what `python -m MODULE …`
would be: with its own environment, output and group, its module run as `__main__`, killed with what it came from.
The stem lives until whoever began it closes its socket, or dies; it reaps a pod only when it is asked to, so that a
pod's number means nobody else until its end was seen here.

Not for pods whose environment counts before Python runs, or while it imports (`fits`): libraries that are preloaded,
another tree, another allocator.  Not for benchmarks: the pages of a fork are copied as they are written.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO, Protocol

BEFORE_IMPORTS = ("LD_", "PYTHON", "MALLOC_", "GLIBC_")
_PR_SET_PDEATHSIG = 1
_MAX_MESSAGE_BYTES = 1 << 20
_UNKNOWN = -signal.SIGKILL
"""How a pod ended whose stem is gone: it was killed with it."""


def die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Process(Protocol):
    """As much of `subprocess.Popen` as is asked of pods."""

    pid: int

    @property
    def returncode(self) -> int | None: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def send_signal(self, sig: int) -> None: ...

    def terminate(self) -> None: ...

    def kill(self) -> None: ...


class Forked:
    def __init__(self, stem: Stem, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._stem = stem
        self._handle = os.pidfd_open(pid)
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(f"pod process {self.pid}", timeout or 0.0)
        return code

    def _ended(self, timeout: float | None) -> int | None:
        with self._lock:
            if self.returncode is None:
                poll = select.poll()
                poll.register(self._handle, select.POLLIN)
                if poll.poll(None if timeout is None else timeout * 1000):
                    self.returncode = self._stem.reap(self.pid)
                    os.close(self._handle)
            return self.returncode

    def send_signal(self, sig: int) -> None:
        if self.returncode is None:
            try:
                signal.pidfd_send_signal(self._handle, sig)
            except ProcessLookupError:
                pass  # it has ended, and nobody has looked yet

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Stem:
    """Begun with the first pod."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()

    def fits(self, environment: Mapping[str, str]) -> bool:
        """Whether a pod with this environment can come from here."""
        names = {name for name in (*environment, *os.environ) if name.startswith(BEFORE_IMPORTS)}
        return all(environment.get(name) == os.environ.get(name) for name in names)

    def start(
        self, module: str, arguments: Sequence[str], environment: Mapping[str, str], log: BinaryIO, group: int | None
    ) -> Forked:
        told = {"module": module, "arguments": [*arguments], "environment": {**environment}, "group": group}
        return Forked(self, self._ask(told, [log.fileno()]))

    def reap(self, pid: int) -> int:
        """The exit code of a pod that has ended."""
        try:
            return self._ask({"reap": pid}) if self._process is not None else _UNKNOWN
        except OSError:
            return _UNKNOWN

    def close(self) -> None:
        """Ends it and what came from it."""
        if self._process is not None and self._socket is not None:
            self._socket.close()
            self._process.wait()
            self._process = None

    def _ask(self, message: dict[str, Any], descriptors: Sequence[int] = ()) -> int:
        with self._lock:
            if self._process is None:
                self._begin()
            assert self._socket is not None
            socket.send_fds(self._socket, [json.dumps(message).encode()], descriptors)
            answer = self._socket.recv(_MAX_MESSAGE_BYTES)
        if not answer:
            raise ConnectionResetError("the process that pods come from has ended")
        return int(answer)

    def _begin(self) -> None:
        self._socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other:
            command = [sys.executable, "-m", "holdfast_server.testing.preloaded", str(other.fileno())]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[other.fileno()])


_in_force: list[Stem] = []


def in_force() -> Stem | None:
    """Where pods come from now; None if each is a program that is started."""
    return _in_force[-1] if _in_force else None


@contextmanager
def pods() -> Iterator[None]:
    stem = Stem()
    _in_force.append(stem)
    try:
        yield
    finally:
        _in_force.remove(stem)
        stem.close()


# ---------------------------------------------------------------- in the stem


def _serve(control: socket.socket) -> dict[str, Any] | None:
    """Returns in each pod what it is to be, and in the stem, when nobody asks any more, None."""
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, _MAX_MESSAGE_BYTES, 1)
        if not data:
            return None
        message: dict[str, Any] = json.loads(data)
        if "reap" in message:
            _, status = os.waitpid(message["reap"], 0)
            control.send(b"%d" % os.waitstatus_to_exitcode(status))
            continue
        stem, pid = os.getpid(), os.fork()
        if pid == 0:
            control.close()
            return {**message, "log": descriptors[0], "stem": stem}
        os.close(descriptors[0])
        control.send(b"%d" % pid)


def _become(told: dict[str, Any]) -> None:
    for stream in (1, 2):
        os.dup2(told["log"], stream)
    os.close(told["log"])
    if told["group"] is not None:
        os.setregid(told["group"], told["group"])
    # Last, because a change of group undoes it; and then the stem must not have died before it.
    die_with_parent()
    if os.getppid() != told["stem"]:
        os.kill(os.getpid(), signal.SIGKILL)
    os.environ.clear()
    os.environ.update(told["environment"])
    sys.argv[1:] = told["arguments"]
    runpy.run_module(told["module"], run_name="__main__", alter_sys=True)


def main() -> None:
    import holdfast_server.main  # noqa: F401 — what pods need not do

    del sys.modules["holdfast_server.main"]  # each pod runs it anew, as `__main__`
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[1])) as control:
        told = _serve(control)
    if told is not None:
        _become(told)


if __name__ == "__main__":
    main()
