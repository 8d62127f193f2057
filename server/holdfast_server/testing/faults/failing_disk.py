"""Disks that fail or hang under running pods: rules for the library that is preloaded into them, and small file
systems that fill up or turn read-only.

`FailingDisk` needs a C compiler; `small_file_system` and `ErringFileSystem` need root.  All raise, naming what is
missing, where they cannot work, so that a test can skip with the reason.

A test run that is killed unmounts nothing, and a folder with a file system in it can be removed by nobody.  So a run
mounts in a namespace of its own (`keep_mounts_to_oneself`), which the kernel clears away with the run's last process.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from holdfast_server.testing.faults.power_loss import NoCompiler, build_shim

__all__ = [
    "CannotMount",
    "ErringFileSystem",
    "FailingDisk",
    "NoCompiler",
    "fill_up",
    "keep_mounts_to_oneself",
    "small_file_system",
]

SOURCE = Path(__file__).with_name("failing_disk_shim.c")
TIMEOUT_SECONDS = 120
_CLONE_NEWNS = 0x00020000
_MS_REC_PRIVATE = 16384 | 1 << 18


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


def keep_mounts_to_oneself() -> bool:
    """What this thread, and whatever it starts from now on, mounts is seen by them alone.  False where that cannot be:
    mostly to those who cannot mount either."""
    kernel = ctypes.CDLL(None)
    if os.geteuid() != 0 or kernel.unshare(_CLONE_NEWNS) != 0:
        return False
    return bool(kernel.mount(b"none", b"/", None, ctypes.c_ulong(_MS_REC_PRIVATE), None) == 0)


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


class ErringFileSystem:
    """An ext4 file system in an image file, which can be made to find an error: it then turns read-only with files
    open, as `errors=remount-ro` does, and is writable again once it has been mounted anew."""

    def __init__(self, folder: Path, image: Path, size_bytes: int) -> None:
        """Mounts it.  Raises CannotMount."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._image = folder, image
        if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
            raise CannotMount("needs root and mkfs.ext4")
        with image.open("wb") as file:
            file.truncate(size_bytes)
        subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True, timeout=TIMEOUT_SECONDS)
        self.mount()

    def mount(self) -> None:
        _mount(["-o", "loop", str(self._image), str(self.folder)])

    def mount_anew(self) -> None:
        """What has been unmounted, from a copy: pods of a stand-in cluster that other tests run may have it in mount
        namespaces of their own, and while they do, the kernel gives the same read-only file system again."""
        former, self._image = self._image, self._image.with_suffix(".copy")
        copy = ["cp", "--sparse=always", str(former), str(self._image)]
        subprocess.run(copy, check=True, timeout=TIMEOUT_SECONDS)
        self.mount()

    def turn_read_only(self) -> None:
        _mount(["-o", "remount,abort", str(self.folder)])

    def unmount(self) -> bool:
        """False while somebody has files open on it."""
        return (
            subprocess.run(["umount", str(self.folder)], capture_output=True, timeout=TIMEOUT_SECONDS).returncode == 0
        )

    def give_up(self) -> None:
        """At the end, whatever is still open."""
        subprocess.run(["umount", "-l", str(self.folder)], capture_output=True, timeout=TIMEOUT_SECONDS)


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
