"""Disks that fail or hang under running pods: rules for the library that is preloaded into them, and small file
systems that fill up or turn read-only.

`FailingDisk` needs a C compiler; `small_file_system` needs root.  Both raise, naming what is missing, where they
cannot work, so that a test can skip with the reason.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from holdfast_server.testing.faults.power_loss import NoCompiler, build_shim

__all__ = ["CannotMount", "FailingDisk", "NoCompiler", "fill_up", "remount", "small_file_system"]

SOURCE = Path(__file__).with_name("failing_disk_shim.c")
TIMEOUT_SECONDS = 30


class FailingDisk:
    """The rules that all pods started with `environment` go by, from the moment they are written."""

    def __init__(self, directory: Path) -> None:
        """Compiles the library into `directory`.  Raises NoCompiler."""
        directory.mkdir(parents=True, exist_ok=True)
        self._library = build_shim(directory, SOURCE)
        self._rules = directory / "rules"

    @property
    def environment(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self._library), "HOLDFAST_DISK_RULES": str(self._rules)}

    def set(self, *rules: tuple[str, str, Path]) -> None:
        """(`read`, `write` or `sync`; `eio` or `hang`; path prefix) each; none: the disks work again."""
        fresh = self._rules.with_suffix(".new")
        fresh.write_text("".join(f"{kind} {what} {prefix.resolve()}\n" for kind, what, prefix in rules))
        os.replace(fresh, self._rules)


class CannotMount(Exception):
    """This process may not mount file systems."""


@contextmanager
def small_file_system(folder: Path, size_bytes: int) -> Iterator[Path]:
    """A file system of its own in `folder`.  Raises CannotMount."""
    folder.mkdir(parents=True, exist_ok=True)
    if os.geteuid() != 0:
        raise CannotMount("only root can mount a small file system")
    _mount(["-t", "tmpfs", "-o", f"size={size_bytes}", "holdfast-test", str(folder)])
    try:
        yield folder
    finally:
        # Lazily: a pod that was killed may still be letting go of it.
        subprocess.run(["umount", "-l", str(folder)], check=False, timeout=TIMEOUT_SECONDS)


def remount(folder: Path, option: str) -> None:
    """`ro` or `rw`.  A file system with files open for writing turns read-only only below them, as it does when the
    kernel finds an error: through a bind mount."""
    _mount(["-o", f"remount,bind,{option}", str(folder)])


def _mount(arguments: list[str]) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, timeout=TIMEOUT_SECONDS)
    if done.returncode:
        raise CannotMount(f"mount {' '.join(arguments)}: {done.stderr.strip()}")


def fill_up(path: Path, leave_bytes: int = 0) -> int:
    """Write a file until its file system has no more than that left; its size in bytes."""
    size = 0
    with path.open("wb", buffering=0) as file:
        for step in (1 << 20, 1 << 12):
            chunk = bytes(step)
            while _available(path) >= leave_bytes + step:
                try:
                    size += file.write(chunk)
                except OSError:
                    break
    return size


def _available(path: Path) -> int:
    facts = os.statvfs(path)
    return facts.f_bavail * facts.f_frsize
