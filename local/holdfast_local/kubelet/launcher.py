"""The first thing a container's process does: die with its parent, enter its own mounts, become the command.

Run as a script by the kubelet (`python -I -S launcher.py SPEC`, SPEC being a `LaunchSpec` as JSON), never
imported for its effects; standard library only, because it starts before any package is on the path.
It replaces itself by the command, so that the container keeps this process's id.

Order matters:
1. With `namespaces`: a new mount and UTS namespace, inside a new user namespace where the caller is not root.
2. A private root is built on a tmpfs: every directory of the machine is bound at its own place, except those
   in which a mount point has to be created.  These are recreated as plain directories whose children are
   bound one by one.  So nothing is ever created on the machine's own file system, and none of it is hidden.
3. The pod's volumes are bound on top, `/etc/hosts` becomes a link to the kubelet's table (a link, so that the
   table can be replaced atomically), and the private root becomes `/`.
4. PR_SET_PDEATHSIG is set last: entering a user namespace clears it.  The parent is compared afterwards, so
   that a parent that died in between is noticed.

NOT done here: process, network and user isolation.  A pod sees the machine's processes and network.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import stat
import sys
from typing import Any

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWUSER = 0x10000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 32, 4096, 16384, 1 << 18
MNT_DETACH = 2
PR_SET_PDEATHSIG = 1
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "arm64": 41, "riscv64": 41, "ppc64le": 203, "s390x": 217}

EXIT_CANNOT_ISOLATE = 125
EXIT_CANNOT_EXECUTE = 126
EXIT_COMMAND_NOT_FOUND = 127


class Kernel:
    """The few system calls that Python 3.11 does not offer, raising OSError like the rest of `os`."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None, use_errno=True)

    def _check(self, result: int, what: str) -> None:
        if result != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"{what}: {os.strerror(number)}")

    def unshare(self, flags: int) -> None:
        self._check(self._library.unshare(ctypes.c_int(flags)), "unshare")

    def setns(self, descriptor: int, kind: int) -> None:
        self._check(self._library.setns(descriptor, kind), "setns")

    def mount(self, source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
        encoded = [None if text is None else os.fsencode(text) for text in (source, target, kind, data)]
        result = self._library.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3])
        self._check(result, f"mount {source} at {target}")

    def detach(self, target: str) -> None:
        self._check(self._library.umount2(os.fsencode(target), MNT_DETACH), f"umount {target}")

    def pivot_root(self, new_root: str, put_old: str) -> None:
        number = SYS_PIVOT_ROOT.get(os.uname().machine)
        if number is None:
            raise OSError("pivot_root: unknown machine type")
        result = self._library.syscall(number, os.fsencode(new_root), os.fsencode(put_old))
        self._check(result, "pivot_root")

    def set_host_name(self, name: str) -> None:
        encoded = os.fsencode(name)
        self._check(self._library.sethostname(encoded, len(encoded)), "sethostname")

    def die_with_parent(self) -> None:
        self._check(self._library.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")


def enter_namespaces(kernel: Kernel) -> None:
    """New mount and UTS namespaces; as an ordinary user inside a user namespace that maps only oneself."""
    user, group = os.getuid(), os.getgid()
    try:
        kernel.unshare(CLONE_NEWNS | CLONE_NEWUTS)
    except PermissionError:
        kernel.unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWUTS)
        write("/proc/self/setgroups", "deny")
        write("/proc/self/uid_map", f"{user} {user} 1\n")
        write("/proc/self/gid_map", f"{group} {group} 1\n")
    kernel.mount("none", "/", None, MS_REC | MS_PRIVATE)


def write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def directories_to_recreate(mount_points: list[str]) -> set[str]:
    """Existing directories in which a missing mount point, or a directory on the way to it, must be created."""
    recreate = {"/", "/etc"}  # /etc for the link at /etc/hosts
    for point in mount_points:
        parent = point
        while not os.path.isdir(parent):
            parent = os.path.dirname(parent)
        if parent == point:
            continue
        while parent != "/":
            recreate.add(parent)
            parent = os.path.dirname(parent)
    return recreate


def bind(kernel: Kernel, source: str, target: str, read_only: bool = False) -> None:
    """Bind `source`, a file or a directory, at `target`, which is created where missing."""
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    elif not os.path.lexists(target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_CLOEXEC, 0o644))
    kernel.mount(source, target, None, MS_BIND | MS_REC)
    if read_only:
        # A remount has to repeat the flags an ordinary user is not allowed to drop.
        kept = os.statvfs(target).f_flag & (MS_NOSUID | MS_NODEV | MS_NOEXEC)
        kernel.mount("none", target, None, MS_REMOUNT | MS_BIND | MS_RDONLY | kept)


def recreate_directory(kernel: Kernel, directory: str, root: str, recreate: set[str]) -> None:
    """Give `root` + `directory` the same children as `directory`: links copied, the rest bound or recreated."""
    target_directory = root + directory.rstrip("/")
    os.makedirs(target_directory, exist_ok=True)
    for name in os.listdir(directory):
        source = os.path.join(directory, name)
        target = f"{target_directory}/{name}"
        if source == "/etc/hosts":
            continue
        try:
            mode = os.lstat(source).st_mode
            if stat.S_ISLNK(mode):
                os.symlink(os.readlink(source), target)
            elif source in recreate:
                recreate_directory(kernel, source, root, recreate)
            else:
                bind(kernel, source, target)
        except OSError as error:
            # What cannot be bound (gone meanwhile, a stale mount) is left out, as if it did not exist.
            if source in recreate:
                raise
            if os.environ.get("HOLDFAST_LAUNCHER_DEBUG"):
                print(f"launcher: {source}: {error}", file=sys.stderr)


def build_root(kernel: Kernel, spec: dict[str, Any]) -> None:
    """Build the private root at `spec["root"]` and make it `/`."""
    root = spec["root"]
    mounts = []
    for mount in spec["mounts"]:
        parent, name = os.path.split(os.path.normpath(mount["path"]))
        mounts.append({**mount, "path": os.path.join(os.path.realpath(parent), name)})
    mounts.sort(key=lambda mount: str(mount["path"]))
    kernel.mount("holdfast-root", root, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=4m")
    recreate_directory(kernel, "/", root, directories_to_recreate([mount["path"] for mount in mounts]))
    for mount in mounts:
        bind(kernel, mount["source"], root + mount["path"], mount.get("read_only", False))
        for kept in spec["keep"]:  # e.g. the installation lies below /tmp and the pod mounts /tmp
            if kept.startswith(mount["path"] + "/"):
                bind(kernel, kept, root + kept)
    os.symlink(spec["hosts_file"], root + "/etc/hosts")
    os.chdir(root)
    try:
        kernel.pivot_root(".", ".")
        kernel.detach(".")
    except OSError:
        os.chroot(".")  # the machine's root is an initramfs, which cannot be pivoted away
    os.chdir("/")


def join(kernel: Kernel, pid: int) -> None:
    """Enter the mounts of a running container, for exec probes and hooks."""
    opened = [(os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY), kind, name)
              for name, kind in (("user", CLONE_NEWUSER), ("mnt", CLONE_NEWNS), ("uts", CLONE_NEWUTS))]  # fmt: skip
    root = os.open(f"/proc/{pid}/root", os.O_RDONLY)
    for descriptor, kind, name in opened:
        if os.fstat(descriptor).st_ino != os.stat(f"/proc/self/ns/{name}").st_ino:
            kernel.setns(descriptor, kind)
    os.fchdir(root)
    os.chroot(".")
    os.chdir("/")


def execute(command: list[str]) -> int:
    """Become `command`; returns an exit code only where that fails."""
    try:
        os.execvp(command[0], command)
    except FileNotFoundError:
        print(f"holdfast-local: {command[0]}: command not found on {os.environ.get('PATH')}", file=sys.stderr)
        return EXIT_COMMAND_NOT_FOUND
    except OSError as error:
        print(f"holdfast-local: {command[0]}: {error}", file=sys.stderr)
        return EXIT_CANNOT_EXECUTE


def main(text: str) -> int:
    spec = json.loads(text)
    kernel = Kernel()
    try:
        if spec.get("join_pid"):
            join(kernel, spec["join_pid"])
        elif spec["namespaces"]:
            enter_namespaces(kernel)
            build_root(kernel, spec)
            kernel.set_host_name(spec["host_name"])
        if spec.get("working_directory"):
            os.chdir(spec["working_directory"])
        kernel.die_with_parent()
    except OSError as error:
        reason = error.strerror or str(error)
        print(f"holdfast-local: cannot prepare the container: {reason}", file=sys.stderr)
        return EXIT_CANNOT_ISOLATE
    if os.getppid() != spec["parent_pid"]:
        return EXIT_CANNOT_ISOLATE
    return execute(spec["command"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
