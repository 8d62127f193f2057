"""The folder of one stand-in cluster (`.holdfast`): what lies where, and the lock that says who runs it.

The lock is a `flock` on `run.lock`, which also holds the process id: it vanishes with the process however that
ended, so a stale file never blocks a start, and the id is to be trusted exactly while the lock is held.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shlex
import shutil
import sys
import time
from pathlib import Path

from holdfast_local.run.failure import RunFailed

SMALLEST_FREE_SPACE_BYTES = 64 * 1024 * 1024
LOCK_POLL_SECONDS = 0.1
NAME_IN_CHECKOUT = ".holdfast"
"""The folder that the Makefile's targets mean."""


class StateDirectory:
    """Paths below the state folder."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.lock_file = self.root / "run.lock"
        self.kubeconfig = self.root / "kubeconfig"
        self.environment_file = self.root / "env"
        self.tokens = self.root / "tokens.json"
        self.volumes = self.root / "volumes"
        self.api = self.root / "cluster"
        self.node = self.root / "node"
        self.operator = self.root / "operator"
        self.logs = self.root / "logs"
        self._lock_descriptor: int | None = None

    def prepare(self) -> None:
        """Create the folders; raises RunFailed if that is impossible or the disk is all but full."""
        try:
            for folder in (self.root, self.volumes, self.api, self.node, self.operator, self.logs):
                folder.mkdir(parents=True, exist_ok=True)
            self.root.chmod(0o700)  # keys and data: nobody else's business
            trial = self.root / ".writable"
            trial.write_bytes(b"\0" * 4096)
            trial.unlink()
        except OSError as error:
            raise RunFailed(f"cannot write to {self.root}: {error.strerror}") from error
        free_bytes = shutil.disk_usage(self.root).free
        if free_bytes < SMALLEST_FREE_SPACE_BYTES:
            raise RunFailed(
                f"cannot start: only {free_bytes // 2**20} MiB are free below {self.root}, "
                f"at least {SMALLEST_FREE_SPACE_BYTES // 2**20} MiB are needed (No space left on device)"
            )

    def acquire(self) -> None:
        """Take the lock for this process's life; raises RunFailed while another holds it."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise RunFailed(f"cannot write to {self.root}: {error.strerror}") from error
        if not _try_lock(descriptor):
            os.close(descriptor)
            kubeconfig = shlex.quote(shown(self.kubeconfig))
            raise RunFailed(
                f"already running (process {self.running_process() or 'unknown'}) with {self.root}:\n"
                f"  `{self.stop_command()}` ends it\n"
                f"  `kubectl --kubeconfig {kubeconfig} apply -f FILE` gives it another Tenant\n"
                f"  `{_program()} run --tenant FILE --state DIR` starts another cluster beside it"
            )
        self._lock_descriptor = descriptor
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            raise RunFailed(f"cannot write to {self.root}: {error.strerror}") from error

    def release(self) -> None:
        if self._lock_descriptor is not None:
            os.ftruncate(self._lock_descriptor, 0)
            os.close(self._lock_descriptor)
            self._lock_descriptor = None

    def running_process(self) -> int | None:
        """The id of the process that holds the lock; None if nobody does."""
        try:
            descriptor = os.open(self.lock_file, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            if _try_lock(descriptor):
                return None
            text = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            return int(text) if text.isdigit() else None
        finally:
            os.close(descriptor)

    def is_locked(self) -> bool:
        """True while some process runs the cluster, even before it has written its id."""
        try:
            descriptor = os.open(self.lock_file, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            return not _try_lock(descriptor)
        finally:
            os.close(descriptor)

    def stop_command(self) -> str:
        """What ends a cluster that runs with this folder, as one would type it in the current one."""
        return "make stop" if self._is_that_of_make() else f"{_program()} stop --state {shlex.quote(shown(self.root))}"

    def remove_command(self) -> str:
        """What removes this folder."""
        return "make clean" if self._is_that_of_make() else f"rm -r {shlex.quote(shown(self.root))}"

    def _is_that_of_make(self) -> bool:
        return shown(self.root) == NAME_IN_CHECKOUT and Path("Makefile").exists()

    def wait_until_released(self, timeout_seconds: float) -> bool:
        """True once nobody holds the lock."""
        deadline = time.monotonic() + timeout_seconds
        while self.is_locked():
            if time.monotonic() > deadline:
                return False
            time.sleep(LOCK_POLL_SECONDS)
        return True


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, all or nothing."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    fresh.rename(path)


def shown(path: Path) -> str:
    """The path as a person in the current folder would type it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _program() -> str:
    """This command, as one would type it: `make` puts it where no shell looks."""
    name = "holdfast-local"
    return name if shutil.which(name) else shlex.quote(shown(Path(sys.prefix) / "bin" / name))


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
